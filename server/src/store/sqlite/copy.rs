//! Copies of a database that is in use, and looking at one without taking it. Both need nothing of
//! the process that holds the folder: SQLite lets others read beside it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::{Options, SqliteStore, schema};
use crate::store::StoreError;

fn unavailable(path: &Path) -> impl Fn(std::io::Error) -> StoreError {
    move |error| StoreError::Unavailable(format!("{}: {error}", path.display()))
}

/// Copies the database in `folder`, as it is at one moment, to the new file `to`: for its owner
/// alone, checked, and whole or not there.
///
/// # Errors
/// [`StoreError::Unavailable`] where it cannot be read or written, or `to` exists;
/// [`StoreError::Inconsistent`] where what was copied is damaged.
pub fn backup(folder: &Path, to: &Path) -> Result<(), StoreError> {
    let there = |_| StoreError::Unavailable(format!("{} exists already", to.display()));
    if to.exists() {
        return Err(there(()));
    }
    let unfinished = to.with_extension("unfinished");
    // What an interrupted copy left is of no use to anybody.
    let _ = std::fs::remove_file(&unfinished);
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished);
    made.map_err(unavailable(&unfinished))?;
    let copied = copy(folder, &unfinished).and_then(|()| {
        // A link fails where there is such a file by now, which renaming would not.
        std::fs::hard_link(&unfinished, to).map_err(unavailable(to))?;
        let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty());
        let synced = File::open(parent.unwrap_or(Path::new("."))).and_then(|it| it.sync_all());
        synced.map_err(unavailable(to))
    });
    let _ = std::fs::remove_file(&unfinished);
    copied
}

fn copy(folder: &Path, to: &Path) -> Result<(), StoreError> {
    let failed = |error: rusqlite::Error| StoreError::Unavailable(error.to_string());
    {
        let from = schema::open_to_read(&folder.join("semilla.db"), Options::default())?;
        // To make another file is no query, even though this one stays as it is.
        from.pragma_update(None, "query_only", false).map_err(failed)?;
        from.execute("VACUUM INTO ?1", [to.to_string_lossy()]).map_err(failed)?;
    }
    File::open(to).and_then(|file| file.sync_all()).map_err(unavailable(to))?;
    check(to)
}

/// Looks whether a database is one of ours, of a version that this program knows, undamaged, and
/// with every chain ending at its head.
///
/// # Errors
/// As [`SqliteStore::open`].
pub fn check(file: &Path) -> Result<(), StoreError> {
    let connection = schema::open_to_read(file, Options::default())?;
    schema::is_ours(&connection)?;
    schema::quick_check(&connection)?;
    schema::chains_end_at_their_heads(&connection)
}

/// Opens the database in `folder` to be read, beside whoever holds it. Everything that would change
/// it is refused.
///
/// # Errors
/// As [`SqliteStore::open`]; also where its tables are older than the program, until a server of
/// this version was started on it.
pub fn look(folder: &Path) -> Result<SqliteStore, StoreError> {
    let file = folder.join("semilla.db");
    let connection = schema::open_to_read(&file, Options::default())?;
    schema::is_ours(&connection)?;
    schema::is_of_this_version(&connection)?;
    SqliteStore::to_be_read(&file)
}
