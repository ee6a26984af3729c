//! How often a wrong PIN was entered. The count lies beside the store, because it must be read and
//! written while the store is closed, and it is written before a PIN is tried: whoever kills the
//! program in between has used up a try (security 125).

use std::path::Path;

use super::file::replace;
use crate::errors::StoreFault;

/// How many tries there are; after the last wrong one the store is erased.
pub const TRIES_MAX: u32 = 10;

const NAME: &str = "tries";

/// The tries used up since a PIN was right.
pub(super) fn used(folder: &Path) -> Result<u32, StoreFault> {
    match std::fs::read_to_string(folder.join(NAME)) {
        // No guess: a store whose count is gone or cut off stays shut.
        Ok(text) => text.trim_end().parse().map_err(|_| StoreFault::Damaged),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(StoreFault::Damaged),
        Err(error) => Err(error.into()),
    }
}

/// Writes the count; it is durable when this returns.
pub(super) fn set(folder: &Path, used: u32) -> Result<(), StoreFault> {
    replace(folder, NAME, format!("{used}\n").as_bytes())
}
