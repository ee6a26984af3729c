//! How a database is opened: who holds its folder, that it is ours and of a version we know, how
//! its connections are set, and whether it is damaged.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::Options;
use crate::store::StoreError;

/// Marks the file as ours, for `file` and for us: "Sem1".
pub(super) const APPLICATION: i64 = 0x5365_6D31;

/// How each version of the tables comes from the one before; the first one is version 1.
const MIGRATIONS: [&str; 6] = [
    include_str!("../../../migrations/sqlite/0001_tables.sql"),
    include_str!("../../../migrations/sqlite/0002_webhooks.sql"),
    include_str!("../../../migrations/sqlite/0003_checkpoints.sql"),
    include_str!("../../../migrations/sqlite/0004_clients.sql"),
    include_str!("../../../migrations/sqlite/0005_hardware.sql"),
    include_str!("../../../migrations/sqlite/0006_consents.sql"),
];

/// Statements that each connection keeps prepared: more than there are of them.
const STATEMENTS: usize = 256;

fn unavailable(error: impl std::fmt::Display) -> StoreError {
    StoreError::Unavailable(error.to_string())
}

/// Makes the folder if need be and takes it for this process, for as long as the file is open.
pub(super) fn lock(folder: &Path) -> Result<File, StoreError> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    let named = |error: std::io::Error| unavailable(format!("{}: {error}", folder.display()));
    builder.create(folder).map_err(named)?;
    let file = private(&folder.join("lock")).map_err(named)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(unavailable(format!("{} is in use by another process", folder.display())))
        }
        Err(TryLockError::Error(error)) => Err(named(error)),
    }
}

/// Whether a process holds the folder. Asked by a lock that others may share, for a moment.
pub(super) fn is_held(folder: &Path) -> bool {
    let shared = File::open(folder.join("lock")).map(|file| file.try_lock_shared());
    matches!(shared, Ok(Err(TryLockError::WouldBlock)))
}

/// Opens a file, made for this user alone if it is not there.
fn private(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Opens the connection that writes, and brings the tables up to date.
pub(super) fn open_to_write(file: &Path, options: Options) -> Result<Connection, StoreError> {
    // SQLite gives its own files the permissions of this one.
    private(file).map_err(unavailable)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(file, flags).map_err(unavailable)?;
    connection.busy_timeout(options.busy_timeout).map_err(unavailable)?;
    is_ours(&connection)?;
    set_up(&connection, "wal")?;
    if options.startup_checks {
        quick_check(&connection)?;
    }
    migrate(&mut connection)?;
    if options.startup_checks {
        chains_end_at_their_heads(&connection)?;
    }
    Ok(connection)
}

/// Opens a connection that only reads.
pub(super) fn open_to_read(file: &Path, options: Options) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags).map_err(unavailable)?;
    connection.busy_timeout(options.busy_timeout).map_err(unavailable)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection
        .execute_batch("PRAGMA temp_store = MEMORY; PRAGMA query_only = ON")
        .map_err(unavailable)?;
    Ok(connection)
}

/// Opens a database without a file.
pub(super) fn open_in_memory() -> Result<Connection, StoreError> {
    let mut connection = Connection::open_in_memory().map_err(unavailable)?;
    set_up(&connection, "memory")?;
    migrate(&mut connection)?;
    Ok(connection)
}

/// Sets what a writing connection relies on, and reads back whether it is so: versions and builds
/// differ in what they start with, and say nothing where they do not know a setting.
fn set_up(connection: &Connection, journal: &str) -> Result<(), StoreError> {
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    let settings = [
        ("journal_mode", journal),
        // 2 = FULL: a commit is durable when it returns.
        ("synchronous", "2"),
        // On macOS only this makes it so. Elsewhere without effect.
        ("fullfsync", "1"),
        ("checkpoint_fullfsync", "1"),
        ("foreign_keys", "1"),
        ("secure_delete", "1"),
        ("trusted_schema", "0"),
        ("cell_size_check", "1"),
        // 2 = in memory.
        ("temp_store", "2"),
        ("cache_size", "-32768"),
        // The writer does it itself, between transactions, and looks at how it went.
        ("wal_autocheckpoint", "0"),
        ("journal_size_limit", "67108864"),
    ];
    for (name, value) in settings {
        let set = format!("PRAGMA {name} = {value}");
        // Some of them answer with a row, some do not.
        let mut statement = connection.prepare(&set).map_err(unavailable)?;
        let mut rows = statement.raw_query();
        while rows.next().map_err(unavailable)?.is_some() {}
        let read: rusqlite::types::Value =
            connection.pragma_query_value(None, name, |row| row.get(0)).map_err(unavailable)?;
        let read = match read {
            rusqlite::types::Value::Integer(number) => number.to_string(),
            rusqlite::types::Value::Text(text) => text,
            _ => String::new(),
        };
        if read != value {
            return Err(unavailable(format!("SQLite has {name} = {read} instead of {value}")));
        }
    }
    Ok(())
}

fn number(connection: &Connection, sql: &str) -> Result<i64, StoreError> {
    connection.query_row(sql, [], |row| row.get(0)).map_err(unavailable)
}

/// Refuses databases of other programs, and of later versions of this one, before anything in them
/// is changed.
pub(super) fn is_ours(connection: &Connection) -> Result<(), StoreError> {
    let application = number(connection, "PRAGMA application_id")?;
    let version = number(connection, "PRAGMA user_version")?;
    let things = number(connection, "SELECT count(*) FROM sqlite_schema")?;
    let is_new = (application, version, things) == (0, 0, 0);
    if !is_new && application != APPLICATION {
        return Err(unavailable("the file is a database of another program"));
    }
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    if version > known {
        return Err(unavailable(format!(
            "the database has version {version}, this program knows up to {known}: use a newer program"
        )));
    }
    Ok(())
}

/// Refuses databases whose tables are older: who only reads cannot bring them up to date.
pub(super) fn is_of_this_version(connection: &Connection) -> Result<(), StoreError> {
    let version = number(connection, "PRAGMA user_version")?;
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    if version == known {
        return Ok(());
    }
    Err(unavailable(format!(
        "the database has version {version}, this program knows {known}: start the server once"
    )))
}

fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    let version = number(connection, "PRAGMA user_version")?;
    for (n, migration) in (1_i64..).zip(MIGRATIONS) {
        if n > version {
            let transaction = connection.transaction().map_err(unavailable)?;
            let stamp =
                format!("PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {n};");
            transaction
                .execute_batch(migration)
                .and_then(|()| transaction.execute_batch(&stamp))
                .and_then(|()| transaction.commit())
                .map_err(|error| unavailable(format!("migration {n}: {error}")))?;
        }
    }
    Ok(())
}

/// Looks through the whole file for pages and rows that are not as SQLite left them.
pub(super) fn quick_check(connection: &Connection) -> Result<(), StoreError> {
    let damaged = |what: String| StoreError::Inconsistent { table: "database", what };
    let said: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(|error| damaged(error.to_string()))?;
    if said == "ok" { Ok(()) } else { Err(damaged(said)) }
}

/// Looks whether each chain ends with the record its head names (security 91, 109). What lies
/// before is for whoever verifies the whole chain.
pub(super) fn chains_end_at_their_heads(connection: &Connection) -> Result<(), StoreError> {
    // `companies` steps from one company to the next through the key, without reading the chains.
    let sql = "
        WITH RECURSIVE companies (company) AS (
            SELECT min(company) FROM audit
            UNION ALL
            SELECT (SELECT min(company) FROM audit WHERE company > companies.company)
            FROM companies WHERE companies.company IS NOT NULL
        ), ends (company, sequence) AS (
            SELECT company, (SELECT max(sequence) FROM audit WHERE audit.company = companies.company)
            FROM companies WHERE company IS NOT NULL
        )
        SELECT coalesce(chains.company, ends.company)
        FROM chains
        FULL JOIN ends ON ends.company = chains.company
        LEFT JOIN audit ON audit.company = ends.company AND audit.sequence = ends.sequence
        WHERE ends.sequence IS NOT chains.sequence OR audit.hash IS NOT chains.hash
        LIMIT 1";
    let mut statement = connection.prepare(sql).map_err(unavailable)?;
    let mut rows = statement.query([]).map_err(unavailable)?;
    match rows.next().map_err(unavailable)? {
        None => Ok(()),
        Some(row) => {
            let company: String = row.get(0).map_err(unavailable)?;
            Err(StoreError::Inconsistent {
                table: "audit",
                what: format!("the chain of {company} does not end at its head"),
            })
        }
    }
}
