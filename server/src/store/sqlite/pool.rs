//! Connections that are taken turns at, and whether the database can still be trusted. A
//! connection is held for one read, or by the writer for one transaction, and nothing else is
//! held meanwhile.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, TryLockError};

use rusqlite::{Connection, ErrorCode, ffi};

use super::locked;
use super::rows::Stop;
use crate::store::StoreError;

/// A connection until it is closed. In memory the writer and both pools share one.
pub(super) type Shareable = Arc<Mutex<Option<Connection>>>;

pub(super) fn shareable(connection: Connection) -> Shareable {
    Arc::new(Mutex::new(Some(connection)))
}

/// What is answered when the store is closed.
pub(super) fn closed() -> StoreError {
    StoreError::Unavailable("the store is closed".to_owned())
}

/// Connections to read with.
pub(super) struct Pool {
    connections: Vec<Shareable>,
    next: AtomicUsize,
}

impl Pool {
    /// A pool of at least one connection.
    pub(super) fn new(connections: Vec<Shareable>) -> Self {
        Self { connections, next: AtomicUsize::new(0) }
    }

    /// Reads with a connection that is free, or waits for one.
    pub(super) fn with<T>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, Stop>,
    ) -> Result<T, StoreError> {
        let connection = self.take();
        Ok(read(connection.as_ref().ok_or_else(closed)?)?)
    }

    fn take(&self) -> MutexGuard<'_, Option<Connection>> {
        let first = self.next.fetch_add(1, Ordering::Relaxed) % self.connections.len();
        let (before, from) = self.connections.split_at(first);
        for connection in from.iter().chain(before) {
            match connection.try_lock() {
                Ok(free) => return free,
                // A read that panicked left its connection as it was.
                Err(TryLockError::Poisoned(free)) => return free.into_inner(),
                Err(TryLockError::WouldBlock) => {}
            }
        }
        locked(&self.connections[first])
    }

    /// Closes all connections that nobody else shares, once what is being read is read.
    pub(super) fn close(&self) {
        for connection in &self.connections {
            if Arc::strong_count(connection) == 1 {
                drop(locked(connection).take());
            }
        }
    }
}

/// Whether the database can still be trusted.
#[derive(Default)]
pub(super) struct Health {
    failure: OnceLock<String>,
    /// Whether the last transaction that would have written something did not happen.
    cannot_write: AtomicBool,
}

impl Health {
    /// Why not, where it cannot.
    pub(super) fn failed(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    /// Whether the last change could not be written.
    pub(super) fn cannot_write(&self) -> bool {
        self.failed().is_some() || self.cannot_write.load(Ordering::Relaxed)
    }

    /// Something was written, or could not be.
    pub(super) fn wrote(&self, done: bool) {
        self.cannot_write.store(!done, Ordering::Relaxed);
    }

    /// Refuses everything once it cannot.
    pub(super) fn usable(&self) -> Result<(), StoreError> {
        self.failed().map_or(Ok(()), |why| Err(StoreError::Unavailable(why.to_owned())))
    }

    /// Looks at what went wrong; the first thing that shakes the trust stays for good. `durably`
    /// tells that it went wrong while something was to be made durable.
    pub(super) fn note(&self, error: &rusqlite::Error, durably: bool) {
        if is_fatal(error, durably) {
            // Only the first one is kept.
            let _ = self.failure.set(format!("restart needed: {error}"));
        }
    }
}

/// After a failed fsync the system may have thrown away what it could not write, and a second one
/// that succeeds says nothing about it (security 107). A full disk is not of this kind: SQLite
/// knows what it did not write.
fn is_fatal(error: &rusqlite::Error, durably: bool) -> bool {
    let Some(error) = error.sqlite_error() else { return false };
    match error.code {
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => true,
        ErrorCode::SystemIoFailure => {
            let unsynced = [ffi::SQLITE_IOERR_FSYNC, ffi::SQLITE_IOERR_DIR_FSYNC];
            durably || unsynced.contains(&error.extended_code)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(extended: i32) -> rusqlite::Error {
        rusqlite::Error::SqliteFailure(ffi::Error::new(extended), None)
    }

    #[test]
    fn security_107_a_failed_fsync_is_for_good_and_a_full_disk_is_not() {
        let health = Health::default();
        for passing in [ffi::SQLITE_FULL, ffi::SQLITE_BUSY, ffi::SQLITE_READONLY] {
            health.note(&error(passing), true);
            assert!(health.usable().is_ok());
        }
        health.note(&error(ffi::SQLITE_IOERR_READ), false);
        assert!(health.usable().is_ok());

        for (fatal, durably) in [
            (ffi::SQLITE_IOERR_FSYNC, false),
            (ffi::SQLITE_IOERR_WRITE, true),
            (ffi::SQLITE_CORRUPT, false),
        ] {
            let health = Health::default();
            health.note(&error(fatal), durably);
            assert!(matches!(health.usable(), Err(StoreError::Unavailable(_))));
            assert!(health.failed().is_some());
        }
    }
}
