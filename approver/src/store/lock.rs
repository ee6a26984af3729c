//! Locks among the programs of one phone. They are the system's own on a file that nobody reads or
//! removes, and end with the program that holds them, however it ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use crate::errors::StoreFault;

/// Held until it is dropped.
pub(crate) struct Lock(#[expect(dead_code, reason = "closing the file ends the lock")] File);

fn open(path: &Path) -> Result<File, StoreFault> {
    let file =
        OpenOptions::new().create(true).write(true).truncate(false).mode(0o600).open(path)?;
    Ok(file)
}

/// Waits for the lock. For sections of milliseconds, or one try of a PIN.
pub(super) fn hold(path: &Path) -> Result<Lock, StoreFault> {
    let file = open(path)?;
    file.lock()?;
    Ok(Lock(file))
}

/// Waits for the lock without keeping the thread; [`StoreFault::Busy`] after half a minute.
pub(super) async fn wait(path: &Path) -> Result<Lock, StoreFault> {
    const PAUSE: Duration = Duration::from_millis(50);
    let file = open(path)?;
    for _ in 0..600 {
        match file.try_lock() {
            Ok(()) => return Ok(Lock(file)),
            Err(TryLockError::WouldBlock) => tokio::time::sleep(PAUSE).await,
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
    }
    Err(StoreFault::Busy)
}
