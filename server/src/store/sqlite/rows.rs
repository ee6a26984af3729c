//! What is stored, read back: one row, a verifier, the head of a chain, attempts. Whatever does
//! not read as what it should be is an error and never guessed at.

use std::str::FromStr;

use rusqlite::{Connection, OptionalExtension, params};
use semilla_core::audit::{Hash, Head};
use semilla_core::id::{CompanyId, TokenId};
use semilla_core::otp::Step;
use semilla_core::seal::Sealed;
use semilla_core::time::Timestamp;
use semilla_core::verifier::Counters;

use crate::store::{Attempt, Row, Scope, StoreError, Table, Verifier};

pub(super) fn inconsistent(table: &'static str, what: impl Into<String>) -> StoreError {
    StoreError::Inconsistent { table, what: what.into() }
}

/// Why a read or a write stops. Within a transaction the difference matters: SQLite may have
/// undone all of it when it fails.
#[derive(Debug)]
pub(super) enum Stop {
    /// What was asked for cannot be had; the database is well.
    Refused(StoreError),
    /// The database failed.
    Failed(rusqlite::Error),
}

impl From<rusqlite::Error> for Stop {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<StoreError> for Stop {
    fn from(refused: StoreError) -> Self {
        Self::Refused(refused)
    }
}

impl From<Stop> for StoreError {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Refused(refused) => refused,
            Stop::Failed(error) => Self::Unavailable(error.to_string()),
        }
    }
}

/// What an error of a read of `table` means: a value of the wrong kind is the row's, everything
/// else is the database's.
pub(super) fn unread(table: &'static str) -> impl Fn(rusqlite::Error) -> Stop {
    use rusqlite::Error::{FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType};
    move |error| match error {
        FromSqlConversionFailure(..) | IntegralValueOutOfRange(..) | InvalidColumnType(..) => {
            Stop::Refused(inconsistent(table, error.to_string()))
        }
        _ => Stop::Failed(error),
    }
}

/// A text that must be an id or a hash.
pub(super) fn parsed<T: FromStr>(table: &'static str, text: &str) -> Result<T, StoreError> {
    text.parse().map_err(|_| inconsistent(table, format!("`{text}` is no id")))
}

/// A number that is never negative.
pub(super) fn counted<T: TryFrom<i64>>(table: &'static str, number: i64) -> Result<T, StoreError> {
    T::try_from(number).map_err(|_| inconsistent(table, format!("{number} is out of range")))
}

/// A number as the database holds it.
pub(super) fn stored(table: &'static str, number: u64) -> Result<i64, StoreError> {
    i64::try_from(number).map_err(|_| inconsistent(table, format!("{number} is out of range")))
}

fn hash(table: &'static str, text: &str) -> Result<Hash, StoreError> {
    Hash::parse(text).ok_or_else(|| inconsistent(table, format!("`{text}` is no hash")))
}

/// One row by its key.
pub(super) fn row(
    connection: &Connection,
    table: &'static Table,
    company: CompanyId,
    id: &str,
) -> Result<Option<Row>, Stop> {
    let sql = format!("SELECT version, body FROM {} WHERE company = ?1 AND id = ?2", table.name);
    let found: Option<(i64, String)> = connection
        .prepare_cached(&sql)
        .and_then(|mut statement| {
            let key = params![company.to_string(), id];
            statement.query_row(key, |row| row.try_into()).optional()
        })
        .map_err(unread(table.name))?;
    let whole =
        |(version, body)| Row { company, id: id.to_owned(), version, body, columns: Vec::new() };
    Ok(found.map(whole))
}

/// Whose a name is.
pub(super) fn name(
    connection: &Connection,
    scope: Scope,
    name: &str,
) -> Result<Option<(CompanyId, String)>, Stop> {
    let found: Option<(String, String)> = connection
        .prepare_cached("SELECT company, id FROM names WHERE scope = ?1 AND name = ?2")
        .and_then(|mut statement| {
            statement.query_row(params![scope.name(), name], |row| row.try_into()).optional()
        })
        .map_err(unread("names"))?;
    found.map(|(company, id)| Ok((parsed("names", &company)?, id))).transpose()
}

type StoredVerifier = (i64, bool, Option<String>, String, Option<i64>, i64, Option<i64>, i32);

/// What the verifier holds of a token.
pub(super) fn verifier(
    connection: &Connection,
    company: CompanyId,
    token: TokenId,
) -> Result<Option<Verifier>, Stop> {
    const TABLE: &str = "verifiers";
    let sql = "SELECT generation, open, sealed, parameters, last_step, failures,
                      waits_until, drift
               FROM verifiers WHERE company = ?1 AND token = ?2";
    let found: Option<StoredVerifier> = connection
        .prepare_cached(sql)
        .and_then(|mut statement| {
            let get = |row: &rusqlite::Row<'_>| row.try_into();
            statement.query_row(params![company.to_string(), token.to_string()], get).optional()
        })
        .map_err(unread(TABLE))?;
    found.map(|found| read_verifier(found, &token.to_string())).transpose()
}

fn read_verifier(stored: StoredVerifier, token: &str) -> Result<Verifier, Stop> {
    const TABLE: &str = "verifiers";
    let (generation, open, sealed, method, last_step, failures, waits_until, drift) = stored;
    let unreadable = |error: serde_json::Error| inconsistent(TABLE, format!("{token}: {error}"));
    Ok(Verifier {
        generation: counted(TABLE, generation)?,
        open,
        sealed: sealed.map(Sealed::from_stored),
        method: serde_json::from_str(&method).map_err(unreadable)?,
        counters: Counters {
            last_step: last_step.map(|step| counted(TABLE, step)).transpose()?.map(Step),
            drift,
            failures: counted(TABLE, failures)?,
            waits_until: waits_until.map(Timestamp::from_milliseconds),
        },
    })
}

/// What the verifier holds of all tokens, in order, behind `after`.
pub(super) fn verifiers(
    connection: &Connection,
    after: Option<(CompanyId, TokenId)>,
    limit: u32,
) -> Result<Vec<(CompanyId, TokenId, Verifier)>, Stop> {
    const TABLE: &str = "verifiers";
    let sql = "SELECT generation, open, sealed, parameters, last_step, failures, waits_until,
                      drift, company, token
               FROM verifiers WHERE (company, token) > (?1, ?2) ORDER BY company, token LIMIT ?3";
    // No id is empty.
    let after = after.map(|(company, token)| (company.to_string(), token.to_string()));
    let (company, token) = after.unwrap_or_default();
    type Keyed = (StoredVerifier, String, String);
    let found: Vec<Keyed> = connection
        .prepare_cached(sql)
        .and_then(|mut statement| {
            let get = |row: &rusqlite::Row<'_>| {
                Ok((row.try_into()?, row.get("company")?, row.get("token")?))
            };
            statement.query_map(params![company, token, limit], get)?.collect()
        })
        .map_err(unread(TABLE))?;
    let read = |(stored, company, token): Keyed| {
        let verifier = read_verifier(stored, &token)?;
        Ok((parsed(TABLE, &company)?, parsed(TABLE, &token)?, verifier))
    };
    found.into_iter().map(read).collect()
}

/// The tables that hold something sealed under one of these keys, each with such a key. What is
/// looked at is every text of every table, so that none has to be known here.
pub(super) fn sealed_under(
    connection: &Connection,
    keys: &[String],
) -> Result<Vec<(String, String)>, Stop> {
    let tables = "SELECT tables.name, columns.name FROM sqlite_schema AS tables
                  JOIN pragma_table_info(tables.name) AS columns
                  WHERE tables.type = 'table' AND columns.name IN ('body', 'sealed')
                    AND tables.name <> 'audit' ORDER BY 1, 2";
    let tables: Vec<(String, String)> = connection
        .prepare_cached(tables)
        .and_then(|mut statement| statement.query_map([], |row| row.try_into())?.collect())
        .map_err(unread("database"))?;
    let mut found = Vec::new();
    for (table, column) in &tables {
        for key in keys {
            // Within JSON a sealed text is a text of its own.
            let (condition, text) = match column.as_str() {
                "body" => ("instr(body, ?1) > 0", format!("\"{key}.")),
                _ => ("substr(sealed, 1, length(?1)) = ?1", format!("{key}.")),
            };
            let sql = format!("SELECT 1 FROM {table} WHERE {condition} LIMIT 1");
            let mut statement = connection.prepare_cached(&sql).map_err(unread("database"))?;
            if statement.exists([text]).map_err(unread("database"))? {
                found.push((table.clone(), key.clone()));
            }
        }
    }
    Ok(found)
}

/// The head of a chain; that of an empty one where there is none.
pub(super) fn head(connection: &Connection, company: CompanyId) -> Result<Head, Stop> {
    let found: Option<(i64, String)> = connection
        .prepare_cached("SELECT sequence, hash FROM chains WHERE company = ?1")
        .and_then(|mut statement| {
            let get = |row: &rusqlite::Row<'_>| row.try_into();
            statement.query_row([company.to_string()], get).optional()
        })
        .map_err(unread("chains"))?;
    found.map_or(Ok(Head::EMPTY), |(sequence, text)| {
        Ok(Head { sequence: counted("chains", sequence)?, hash: hash("chains", &text)? })
    })
}

/// The companies that have a chain, in order.
pub(super) fn chains(connection: &Connection) -> Result<Vec<CompanyId>, Stop> {
    let texts: Vec<String> = connection
        .prepare_cached("SELECT company FROM chains ORDER BY company")
        .and_then(|mut statement| statement.query_map([], |row| row.get(0))?.collect())
        .map_err(unread("chains"))?;
    texts.iter().map(|text| Ok(parsed("chains", text)?)).collect()
}

/// An audit record of `company` from its row: sequence, body, hash.
pub(super) fn record(
    company: CompanyId,
    (sequence, body, text): (i64, String, String),
) -> Result<semilla_core::audit::Record, StoreError> {
    let (sequence, hash) = (counted("audit", sequence)?, hash("audit", &text)?);
    Ok(semilla_core::audit::Record { company, sequence, body, hash })
}

type StoredAttempt = (i64, Option<String>, Option<String>, String, i64);

/// The attempts of one record, in their order.
pub(super) fn attempts(
    connection: &Connection,
    company: CompanyId,
    sequence: u64,
) -> Result<Vec<Attempt>, Stop> {
    const TABLE: &str = "attempts";
    let sql = "SELECT at, token, client, outcome, failures FROM attempts
               WHERE company = ?1 AND sequence = ?2 ORDER BY position";
    let sequence = stored(TABLE, sequence)?;
    let found: Vec<StoredAttempt> = connection
        .prepare_cached(sql)
        .and_then(|mut statement| {
            let key = params![company.to_string(), sequence];
            statement.query_map(key, |row| row.try_into())?.collect()
        })
        .map_err(unread(TABLE))?;
    let attempt = |(at, token, client, outcome, failures): StoredAttempt| {
        Ok(Attempt {
            at: Timestamp::from_milliseconds(at),
            token: token.map(|text| parsed(TABLE, &text)).transpose()?,
            client: client.map(|text| parsed(TABLE, &text)).transpose()?,
            outcome,
            failures: counted(TABLE, failures)?,
        })
    };
    found.into_iter().map(attempt).collect()
}
