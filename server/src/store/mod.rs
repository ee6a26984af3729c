//! What is stored, and how races are decided. A unit of work reads what it needs, computes, and
//! hands in one [`Batch`]: every write in it names the version it was computed from, and either
//! all of it becomes durable, its audit records included, or none of it does. Whoever loses a
//! race gets [`StoreError::Conflict`], reads again and decides anew.
//!
//! The trait is small so that each backend is plain: rows are JSON texts, with a few columns
//! beside them that queries need. [`Check`] is apart, because checking a code is what is done a
//! million times.

use async_trait::async_trait;
use semilla_core::audit;
use semilla_core::id::{ClientId, CompanyId, TokenId};
use semilla_core::otp::Method;
use semilla_core::seal::Sealed;
use semilla_core::time::Timestamp;
use semilla_core::verifier::Counters;
use serde::Serialize;
use serde::de::DeserializeOwned;

#[cfg(test)]
pub(crate) mod contract;
pub mod sqlite;

/// A kind of row: the table's name and the columns beside `company`, `id`, `version` and `body`.
#[derive(Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name in the database.
    pub name: &'static str,
    /// The columns that queries filter, search and sort by.
    pub columns: &'static [&'static str],
}

/// What a column holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// Nothing. Sorts first.
    Null,
    /// A number, or a moment in milliseconds.
    Integer(i64),
    /// A text.
    Text(String),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<Timestamp> for Value {
    fn from(moment: Timestamp) -> Self {
        Self::Integer(moment.milliseconds())
    }
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// Something that is stored as a row of its own.
pub trait Record: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Where.
    const TABLE: &'static Table;
    /// Whose it is; leads every key.
    fn company(&self) -> CompanyId;
    /// Its name among the company's rows of this table.
    fn id(&self) -> String;
    /// The values of [`Table::columns`], in that order.
    fn columns(&self) -> Vec<Value>;
}

/// A row as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Whose it is.
    pub company: CompanyId,
    /// Its name among the company's rows of its table.
    pub id: String,
    /// Rises by one with every change; what a change is compared with.
    pub version: i64,
    /// The record as JSON.
    pub body: String,
    /// The columns beside it. Empty in what a read returns.
    pub columns: Vec<Value>,
}

/// A record and the version it was read at.
#[derive(Clone, Debug)]
pub struct Versioned<R> {
    /// The record.
    pub record: R,
    /// The version a change of it must name.
    pub version: i64,
}

/// One write of a batch. Each but [`Write::Put`] fails the whole batch where its condition fails.
#[derive(Clone, Debug)]
pub enum Write {
    /// A new row, at the version it carries; conflicts where there is one.
    Insert(&'static Table, Row),
    /// Replaces the row whose version is one below the one it carries; conflicts otherwise.
    Update(&'static Table, Row),
    /// Inserts or replaces, whatever was there.
    Put(&'static Table, Row),
    /// Removes the row of exactly this version; conflicts otherwise.
    Delete(&'static Table, CompanyId, String, i64),
    /// Writes nothing: conflicts unless the row still has this version.
    Unchanged(&'static Table, CompanyId, String, i64),
    /// Reserves a name among all companies and says whose it is; conflicts where it is taken.
    Reserve(Scope, String, CompanyId, String),
    /// As [`Write::Reserve`], and takes it over where it is taken.
    Assign(Scope, String, CompanyId, String),
    /// Gives a name back, where it is reserved.
    Free(Scope, String),
    /// Changes what the verifier holds of a token.
    Verifier(CompanyId, TokenId, VerifierChange),
    /// Removes the attempts that the records of a chain up to this one stand for. The records stay.
    ForgetAttempts(CompanyId, u64),
}

/// Names that are looked up, or are unique, across all companies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// A token's serial number.
    Serial,
    /// A client's id.
    Client,
    /// A company's short name, in lower case.
    CompanyName,
    /// The SHA-256 of a device token.
    DeviceToken,
    /// The SHA-256 of an access token.
    AccessToken,
    /// The four characters that name an activation.
    Activation,
    /// The RFC 7638 thumbprint of a phone's key: one key, one binding (security 47).
    DeviceKey,
    /// A user's login, as `company/login`.
    Login,
    /// The id of an operation that an operator asked for in a company.
    Operation,
}

impl Scope {
    /// Its name in the database.
    pub fn name(self) -> &'static str {
        match self {
            Self::Serial => "serial",
            Self::Client => "client",
            Self::CompanyName => "company_name",
            Self::DeviceToken => "device_token",
            Self::AccessToken => "access_token",
            Self::Activation => "activation",
            Self::DeviceKey => "device_key",
            Self::Login => "login",
            Self::Operation => "operation",
        }
    }
}

/// What the verifier holds of a token: one row per token, through all its generations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verifier {
    /// The generation whose codes are checked.
    pub generation: u32,
    /// Whether codes are accepted at all.
    pub open: bool,
    /// Its seed; none once it is destroyed.
    pub sealed: Option<Sealed>,
    /// How its codes are made.
    pub method: Method,
    /// The counters of all attempts.
    pub counters: Counters,
}

/// A change of what the verifier holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VerifierChange {
    /// A proven generation goes live: its seed replaces whatever was there, failures are forgiven,
    /// and the last step becomes the later of the one stored and the one that proved it.
    Open {
        /// The generation.
        generation: u32,
        /// Its seed.
        sealed: Sealed,
        /// How its codes are made.
        method: Method,
        /// The step of the code that proved it, which is thereby consumed.
        proved_by: u64,
        /// By how many steps the token's own clock is ahead, as that code has shown.
        drift: i32,
    },
    /// Codes are refused from now on; the seed stays.
    Close,
    /// Codes of the seed that stayed are accepted again. Conflicts where there is no seed.
    Reopen,
    /// Failures before this are forgiven, whether there is a seed or not (security 15: only an
    /// approved operation does that). Steps that were consumed stay consumed.
    Forgive,
    /// The seed is destroyed and codes are refused. Counters stay.
    Destroy,
    /// The same seed, sealed under another key. Conflicts where it is not the one that was read.
    Reseal {
        /// As it was read.
        from: Sealed,
        /// As it is from now on.
        to: Sealed,
    },
    /// Every step up to this one is consumed, whether a code of it came or not.
    Spend {
        /// The last of them.
        up_to: u64,
    },
}

/// Everything one unit of work changes, with its audit records and whom it wakes.
#[derive(Debug, Default)]
pub struct Batch {
    /// The writes, all or none.
    pub writes: Vec<Write>,
    /// The records of it; each is given its place in its chain in the same transaction.
    pub audit: Vec<audit::Draft>,
    /// Who is told, once it is durable.
    pub topics: Vec<Topic>,
}

/// Something that somebody may be waiting for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Topic {
    /// The inbox of a phone, by its id.
    Device(String),
    /// An operation, by its id.
    Operation(String),
    /// The audit chain of a company.
    Audit(CompanyId),
}

/// How rows are chosen.
#[derive(Clone, Debug)]
pub struct Query {
    /// Of which kind.
    pub table: &'static Table,
    /// Of which company; `None` only for the product's own chores (expiries of all companies).
    pub company: Option<CompanyId>,
    /// Column = one of the values. All must hold.
    pub any_of: Vec<(&'static str, Vec<Value>)>,
    /// Any of these columns contains this text. Columns are stored folded; fold the text as well.
    pub search: Option<(&'static [&'static str], String)>,
    /// Column ≤ value.
    pub at_most: Option<(&'static str, i64)>,
    /// Sorted by this column, then by id; by id alone where `None`.
    pub order: Option<&'static str>,
    /// From the last to the first.
    pub descending: bool,
    /// Behind this row: the value of the `order` column (`Null` where there is none) and the id.
    pub after: Option<(Value, String)>,
    /// At most this many.
    pub limit: u32,
}

impl Query {
    /// All rows of a company, by id, at most `limit`.
    pub fn of(table: &'static Table, company: CompanyId, limit: u32) -> Self {
        Self {
            table,
            company: Some(company),
            any_of: Vec::new(),
            search: None,
            at_most: None,
            order: None,
            descending: false,
            after: None,
            limit,
        }
    }

    /// Only rows whose `column` is `value`.
    #[must_use]
    pub fn equals(mut self, column: &'static str, value: impl Into<Value>) -> Self {
        self.any_of.push((column, vec![value.into()]));
        self
    }
}

/// How audit records are chosen: those of `company` behind `after`, oldest first.
#[derive(Clone, Debug)]
pub struct AuditQuery {
    /// Whose chain.
    pub company: CompanyId,
    /// Behind this sequence number.
    pub after: u64,
    /// Only about this token.
    pub token: Option<TokenId>,
    /// Only of this kind, or, where it ends in `.`, of kinds that begin so.
    pub kind: Option<String>,
    /// At most this many.
    pub limit: u32,
}

/// One attempt to have a code accepted, as recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attempt {
    /// When.
    pub at: Timestamp,
    /// On which token; none where the caller named none of its company's.
    pub token: Option<TokenId>,
    /// Which program asked; none for a phone that proves an enrollment.
    pub client: Option<ClientId>,
    /// What came of it: `accepted`, or why not, by one of the words of the verifier.
    pub outcome: String,
    /// Consecutive failures: with this one, or, where it was accepted, before it.
    pub failures: u32,
}

/// A code to be checked. `judge` is called with what the verifier holds, within the transaction
/// that stores what it returns; it may be called again where that transaction is retried.
pub struct Check {
    /// Whose token.
    pub company: CompanyId,
    /// Which token; none to record an attempt on nothing.
    pub token: Option<TokenId>,
    /// The rule.
    pub judge: Judge,
}

/// A rule that decides about an attempt, given what the verifier holds of the token, if anything.
pub type Judge = Box<dyn Fn(Option<&Verifier>) -> Judged + Send + Sync>;

/// What a rule decided about an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// The counters to store; none where the attempt changes nothing. Where the verifier holds
    /// nothing of the token yet, they make a row that is closed and has no seed.
    pub counters: Option<Counters>,
    /// The row to record.
    pub attempt: Attempt,
}

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Something was changed meanwhile: read again.
    #[error("changed meanwhile")]
    Conflict,
    /// Nothing was stored: the disk is full, the database is busy or gone.
    #[error("storage unavailable: {0}")]
    Unavailable(String),
    /// A row does not read as what it should be. Never guessed at.
    #[error("inconsistent row in {table}: {what}")]
    Inconsistent {
        /// Where.
        table: &'static str,
        /// What is wrong with it.
        what: String,
    },
}

/// A database. Reads see everything that was durable when they began.
#[async_trait]
pub trait Store: Send + Sync {
    /// One row.
    async fn row(
        &self,
        table: &'static Table,
        company: CompanyId,
        id: &str,
    ) -> Result<Option<Row>, StoreError>;
    /// The rows a query chooses.
    async fn rows(&self, query: &Query) -> Result<Vec<Row>, StoreError>;
    /// How many rows a query would choose, its `after` and `limit` aside.
    async fn count(&self, query: &Query) -> Result<u64, StoreError>;
    /// Whose a name is.
    async fn lookup(
        &self,
        scope: Scope,
        name: &str,
    ) -> Result<Option<(CompanyId, String)>, StoreError>;
    /// Makes all of a batch durable, or nothing of it.
    async fn commit(&self, batch: Batch) -> Result<(), StoreError>;
    /// Judges an attempt and makes its outcome durable. Concurrent ones share a commit.
    async fn check(&self, check: Check) -> Result<Attempt, StoreError>;
    /// What the verifier holds of a token.
    async fn verifier(
        &self,
        company: CompanyId,
        token: TokenId,
    ) -> Result<Option<Verifier>, StoreError>;
    /// What the verifier holds of all tokens, in order, behind `after`.
    async fn verifiers(
        &self,
        after: Option<(CompanyId, TokenId)>,
        limit: u32,
    ) -> Result<Vec<(CompanyId, TokenId, Verifier)>, StoreError>;
    /// The tables, whichever they are, that hold something sealed under one of these keys, each
    /// with such a key.
    async fn sealed_under(&self, keys: &[&str]) -> Result<Vec<(String, String)>, StoreError>;
    /// The records of a chain.
    async fn audit(&self, query: &AuditQuery) -> Result<Vec<audit::Record>, StoreError>;
    /// The head of a chain, as the database says.
    async fn audit_head(&self, company: CompanyId) -> Result<audit::Head, StoreError>;
    /// The companies that have a chain.
    async fn audit_chains(&self) -> Result<Vec<CompanyId>, StoreError>;
    /// The attempts that the record `sequence` of a chain stands for, in the order of its hash.
    async fn attempts(&self, company: CompanyId, sequence: u64)
    -> Result<Vec<Attempt>, StoreError>;
    /// Tells whenever a batch with topics has become durable.
    fn subscribe(&self) -> tokio::sync::broadcast::Receiver<std::sync::Arc<[Topic]>>;
    /// How many changes were handed in and are not yet durable.
    fn backlog(&self) -> usize;
    /// Whether the last change could not be kept, for want of room or of a disk that works. The
    /// next one that can be ends it.
    fn cannot_write(&self) -> bool;
    /// Finishes what was handed in and closes.
    async fn close(&self);
}

/// The audit record that stands for the attempts of one commit: their number and the hash over
/// their rows, so that a busy company costs one record per commit and not one per check.
pub fn attempts_draft(company: CompanyId, at: Timestamp, attempts: &[Attempt]) -> audit::Draft {
    let rows = serde_json::to_vec(attempts).unwrap_or_default();
    let digest = ring::digest::digest(&ring::digest::SHA256, &rows);
    audit::Draft::new(company, at, "otp.checked", audit::Actor::System)
        .with("attempts", attempts.len())
        .with("rows_sha256", semilla_core::base64url::encode(digest.as_ref()))
}

/// Typed reads over any store.
#[async_trait]
pub trait Records: Store {
    /// One record.
    async fn get<R: Record>(
        &self,
        company: CompanyId,
        id: &str,
    ) -> Result<Option<Versioned<R>>, StoreError> {
        self.row(R::TABLE, company, id).await?.map(read).transpose()
    }

    /// The records a query over their own table chooses.
    async fn find<R: Record>(&self, query: &Query) -> Result<Vec<Versioned<R>>, StoreError> {
        debug_assert_eq!(query.table, R::TABLE);
        self.rows(query).await?.into_iter().map(read).collect()
    }
}

impl<S: Store + ?Sized> Records for S {}

pub(crate) fn read<R: Record>(row: Row) -> Result<Versioned<R>, StoreError> {
    let inconsistent = |error: serde_json::Error| StoreError::Inconsistent {
        table: R::TABLE.name,
        what: format!("{}: {error}", row.id),
    };
    let record = serde_json::from_str(&row.body).map_err(inconsistent)?;
    Ok(Versioned { record, version: row.version })
}

pub(crate) fn row_of<R: Record>(record: &R, version: i64) -> Row {
    Row {
        company: record.company(),
        id: record.id(),
        version,
        // Records are structs and enums of strings and numbers: writing them cannot fail.
        body: serde_json::to_string(record).unwrap_or_default(),
        columns: record.columns(),
    }
}

impl Batch {
    /// Adds a new record.
    pub fn insert<R: Record>(&mut self, record: &R) {
        self.writes.push(Write::Insert(R::TABLE, row_of(record, 1)));
    }

    /// Adds a changed record, which must still be at the version it was read at.
    pub fn update<R: Record>(&mut self, changed: &Versioned<R>) {
        self.writes.push(Write::Update(R::TABLE, row_of(&changed.record, changed.version + 1)));
    }

    /// Adds a record whatever was there.
    pub fn put<R: Record>(&mut self, record: &R) {
        self.writes.push(Write::Put(R::TABLE, row_of(record, 1)));
    }

    /// Removes a record that must still be at the version it was read at.
    pub fn delete<R: Record>(&mut self, read: &Versioned<R>) {
        self.writes.push(Write::Delete(
            R::TABLE,
            read.record.company(),
            read.record.id(),
            read.version,
        ));
    }

    /// Holds the batch to a record that it does not change.
    pub fn unchanged<R: Record>(&mut self, read: &Versioned<R>) {
        self.writes.push(Write::Unchanged(
            R::TABLE,
            read.record.company(),
            read.record.id(),
            read.version,
        ));
    }

    /// Moves a record to another company: it leaves the one it was read at, and goes on counting
    /// versions in the new one.
    pub fn move_to<R: Record>(&mut self, read: &Versioned<R>, moved: &R) {
        self.delete(read);
        self.writes.push(Write::Insert(R::TABLE, row_of(moved, read.version + 1)));
    }
}
