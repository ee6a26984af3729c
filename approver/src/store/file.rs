//! The sealed file in its folder, and what keeps it whole: one lock around each change, a new file
//! put in the place of the old one in a single step, and both on disk before a change counts
//! (security 127).
//!
//! | file | is |
//! |---|---|
//! | `store` | the state, sealed |
//! | `tries` | how many wrong PINs were entered |
//! | `store.new`, `tries.new` | what a stopped program left; written over |
//! | `lock`, `sending` | empty: see the module `lock` |

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::lock::{self, Lock};
use super::sealed::{Key, Sealed, Stretch, TAG};
use super::tries::{self, TRIES_MAX};
use crate::contents::Contents;
use crate::errors::{Error, StoreFault};
use crate::pin::Pin;

const NAME: &str = "store";

/// The longest file that is read, in bytes: 16 MiB. A state has some kilobytes.
const LENGTH_MAX: u64 = 16 * 1024 * 1024;

/// A store that its PIN has opened.
pub struct FileStore {
    folder: PathBuf,
    unlocked: Mutex<Unlocked>,
    pub(super) turn: tokio::sync::Mutex<()>,
}

struct Unlocked {
    key: Key,
    /// Whether a PIN was entered that no approval has used up.
    presence: bool,
}

impl FileStore {
    /// Whether there is a store in `folder`.
    pub fn exists(folder: &Path) -> bool {
        folder.join(NAME).exists()
    }

    /// Makes a new store in `folder`, which is made as well where there is none.
    pub fn create(folder: &Path, pin: &Pin, stretch: Stretch) -> Result<Self, Error> {
        pin.require_uncommon()?;
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(StoreFault::from)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).map_err(StoreFault::from)?;
        let _lock = lock::hold(&folder.join("lock"))?;
        if Self::exists(folder) {
            return Err(StoreFault::Exists.into());
        }
        let key = Key::new(pin, stretch)?;
        // The count first: a store without one does not open.
        tries::set(folder, 0)?;
        replace(folder, NAME, &key.seal(Contents::default().to_bytes(TAG)))?;
        Ok(Self::opened(folder, key))
    }

    /// Opens the store in `folder`. The try is counted first; the tenth wrong PIN erases all.
    pub fn open(folder: &Path, pin: &Pin) -> Result<Self, Error> {
        let key = try_pin(folder, pin)?;
        Ok(Self::opened(folder, key))
    }

    fn opened(folder: &Path, key: Key) -> Self {
        let unlocked = Mutex::new(Unlocked { key, presence: true });
        Self { folder: folder.to_owned(), unlocked, turn: tokio::sync::Mutex::new(()) }
    }

    /// The person enters the PIN again, as before every approval (security 126).
    pub fn confirm_pin(&self, pin: &Pin) -> Result<(), Error> {
        let key = try_pin(&self.folder, pin)?;
        *self.unlocked() = Unlocked { key, presence: true };
        Ok(())
    }

    /// Puts another PIN in the place of the present one; both files are sealed anew.
    pub fn change_pin(&self, present: &Pin, new: &Pin) -> Result<(), Error> {
        new.require_uncommon()?;
        let present = try_pin(&self.folder, present)?;
        let _lock = self.hold()?;
        let sealed = self.sealed()?;
        let key = Key::new(new, sealed.stretch())?;
        let mut plain = sealed.open(&present).ok_or(Error::Locked)?;
        plain.reserve_exact(TAG);
        replace(&self.folder, NAME, &key.seal(plain))?;
        *self.unlocked() = Unlocked { key, presence: true };
        Ok(())
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn load(&self) -> Result<Contents, Error> {
        // Without the lock: a file is always one whole state.
        Ok(Contents::from_bytes(&self.plain()?)?)
    }

    pub(super) fn update<T>(
        &self,
        change: impl FnOnce(&mut Contents) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let _lock = self.hold()?;
        let (value, after) = super::changed(&self.plain()?, TAG, change)?;
        if let Some(after) = after {
            let sealed = self.unlocked().key.seal(after);
            replace(&self.folder, NAME, &sealed)?;
        }
        Ok(value)
    }

    pub(super) async fn wait_for_others(&self) -> Result<Lock, StoreFault> {
        lock::wait(&self.folder.join("sending")).await
    }

    pub(super) fn take_presence(&self) -> Result<(), Error> {
        if std::mem::take(&mut self.unlocked().presence) { Ok(()) } else { Err(Error::Locked) }
    }

    fn plain(&self) -> Result<zeroize::Zeroizing<Vec<u8>>, Error> {
        let sealed = self.sealed()?;
        let unlocked = self.unlocked();
        if !sealed.is_under(&unlocked.key) {
            return Err(Error::Locked);
        }
        sealed.open(&unlocked.key).ok_or(Error::Store(StoreFault::Damaged))
    }

    fn sealed(&self) -> Result<Sealed, StoreFault> {
        Sealed::parse(&read(&self.folder)?)
    }

    fn hold(&self) -> Result<Lock, StoreFault> {
        lock::hold(&self.folder.join("lock"))
    }

    fn unlocked(&self) -> std::sync::MutexGuard<'_, Unlocked> {
        self.unlocked.lock().expect("no panic while it was held")
    }
}

/// Uses up one try of `folder`'s store and gives the tries used so far, this one included.
pub(super) fn claim_try(folder: &Path) -> Result<u32, Error> {
    let used = tries::used(folder)?.saturating_add(1);
    if used > TRIES_MAX {
        erase(folder)?;
        return Err(Error::Wiped);
    }
    tries::set(folder, used)?;
    Ok(used)
}

fn try_pin(folder: &Path, pin: &Pin) -> Result<Key, Error> {
    if !folder.is_dir() {
        return Err(StoreFault::Missing.into());
    }
    let _lock = lock::hold(&folder.join("lock"))?;
    let file = match read(folder) {
        // Where the store is gone and the tries are used up, it was erased.
        Err(StoreFault::Missing) if tries::used(folder).is_ok_and(|used| used >= TRIES_MAX) => {
            return Err(Error::Wiped);
        }
        file => file?,
    };
    let sealed = Sealed::parse(&file)?;
    let used = claim_try(folder)?;
    let key = sealed.key(pin)?;
    if sealed.open(&key).is_some() {
        tries::set(folder, 0)?;
        return Ok(key);
    }
    if used == TRIES_MAX {
        erase(folder)?;
        return Err(Error::Wiped);
    }
    Err(Error::WrongPin(TRIES_MAX - used))
}

fn read(folder: &Path) -> Result<Vec<u8>, StoreFault> {
    let file = match File::open(folder.join(NAME)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(StoreFault::Missing),
        file => file?,
    };
    let metadata = file.metadata()?;
    if (metadata.mode() | fs::metadata(folder)?.mode()) & 0o077 != 0 {
        return Err(StoreFault::Permissions);
    }
    let mut bytes = Vec::new();
    file.take(LENGTH_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LENGTH_MAX { Err(StoreFault::Damaged) } else { Ok(bytes) }
}

/// Puts `bytes` in the place of the file `name`: at every moment, and after every power cut, there
/// is the old file or the new one.
pub(super) fn replace(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), StoreFault> {
    let new = folder.join(format!("{name}.new"));
    remove(&new)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, folder.join(name))?;
    File::open(folder)?.sync_all()?;
    Ok(())
}

/// Overwrites and removes the store. The count stays, and says why it is gone.
fn erase(folder: &Path) -> Result<(), StoreFault> {
    let path = folder.join(NAME);
    if let Ok(mut file) = OpenOptions::new().write(true).open(&path) {
        let length = usize::try_from(file.metadata()?.len()).unwrap_or(0);
        file.write_all(&vec![0; length])?;
        file.sync_all()?;
    }
    remove(&path)?;
    remove(&folder.join(format!("{NAME}.new")))?;
    File::open(folder)?.sync_all()?;
    Ok(())
}

fn remove(path: &Path) -> Result<(), StoreFault> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
