//! Where a phone keeps what it must not lose and nobody else may read: a sealed file under a PIN,
//! or memory for simulated phones. Both keep the same bytes and change them in the same way, one
//! whole state after another, so that a simulated phone forgets and remembers like a real one.

mod file;
mod lock;
mod memory;
mod sealed;
#[cfg(test)]
mod tests;
mod tries;

use crate::contents::Contents;
use crate::errors::Error;

pub use file::FileStore;
pub use memory::MemoryStore;
pub use sealed::Stretch;
pub use tries::TRIES_MAX;

/// A phone's memory.
pub enum Store {
    /// In a file.
    File(FileStore),
    /// In this process, gone with it.
    Memory(MemoryStore),
}

impl From<FileStore> for Store {
    fn from(store: FileStore) -> Self {
        Self::File(store)
    }
}

impl From<MemoryStore> for Store {
    fn from(store: MemoryStore) -> Self {
        Self::Memory(store)
    }
}

/// While it lives, no other message of this phone is signed or on its way, in this process or
/// another: counters arrive in the order in which they were counted (security 130).
pub(crate) struct Turn<'a> {
    _in_this_process: tokio::sync::MutexGuard<'a, ()>,
    _among_processes: Option<lock::Lock>,
}

impl Store {
    /// Looks at the state.
    pub(crate) fn read<T>(
        &self,
        look: impl FnOnce(&Contents) -> Result<T, Error>,
    ) -> Result<T, Error> {
        match self {
            Self::File(store) => look(&store.load()?),
            Self::Memory(store) => look(&store.load()?),
        }
    }

    /// Changes the state; it is durable when this returns. An error changes nothing.
    pub(crate) fn update<T>(
        &self,
        change: impl FnOnce(&mut Contents) -> Result<T, Error>,
    ) -> Result<T, Error> {
        match self {
            Self::File(store) => store.update(change),
            Self::Memory(store) => store.update(change),
        }
    }

    /// Waits until no other signed message of this phone is on its way.
    pub(crate) async fn turn(&self) -> Result<Turn<'_>, Error> {
        match self {
            Self::File(store) => Ok(Turn {
                _in_this_process: store.turn.lock().await,
                _among_processes: Some(store.wait_for_others().await?),
            }),
            Self::Memory(store) => {
                Ok(Turn { _in_this_process: store.turn.lock().await, _among_processes: None })
            }
        }
    }

    /// Uses up the proof that the person is here. A sealed file has one for each PIN that was
    /// entered (security 126); a simulated person is always here.
    pub(crate) fn take_presence(&self) -> Result<(), Error> {
        match self {
            Self::File(store) => store.take_presence(),
            Self::Memory(_) => Ok(()),
        }
    }
}

/// The bytes of a state.
type Bytes = zeroize::Zeroizing<Vec<u8>>;

/// One state after another, as bytes: `None` where nothing changed. There are `spare` bytes more
/// in the buffer than needed.
fn changed<T>(
    before: &[u8],
    spare: usize,
    change: impl FnOnce(&mut Contents) -> Result<T, Error>,
) -> Result<(T, Option<Bytes>), Error> {
    let mut contents = Contents::from_bytes(before)?;
    let value = change(&mut contents)?;
    let after = contents.to_bytes(spare);
    let differs = after.as_slice() != before;
    Ok((value, differs.then_some(after)))
}
