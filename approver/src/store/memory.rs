//! A store without file and PIN, for simulated phones by the thousand.

use std::sync::Mutex;

use zeroize::Zeroizing;

use crate::contents::Contents;
use crate::errors::Error;

/// A state in memory.
pub struct MemoryStore {
    bytes: Mutex<Zeroizing<Vec<u8>>>,
    pub(super) turn: tokio::sync::Mutex<()>,
}

impl MemoryStore {
    /// An empty one.
    pub fn new() -> Self {
        Self::of(&Contents::default())
    }

    /// One that begins with `contents`: a copied or restored phone.
    pub(crate) fn of(contents: &Contents) -> Self {
        Self { bytes: Mutex::new(contents.to_bytes(0)), turn: tokio::sync::Mutex::new(()) }
    }

    pub(super) fn load(&self) -> Result<Contents, Error> {
        let bytes = self.bytes.lock().expect("no panic while it was held");
        Ok(Contents::from_bytes(&bytes)?)
    }

    pub(super) fn update<T>(
        &self,
        change: impl FnOnce(&mut Contents) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut bytes = self.bytes.lock().expect("no panic while it was held");
        let (value, after) = super::changed(&bytes, 0, change)?;
        if let Some(after) = after {
            *bytes = after;
        }
        Ok(value)
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}
