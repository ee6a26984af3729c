//! Checkpoints of the audit chains, and receipts that stand on them. At an interval each chain that
//! grew is stated once more, signed, and the statement is written to a file outside the database
//! (security 92): it is stored first and written after, so that a crash in between writes it again
//! and never skips it.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use semilla_core::approval::{Operation, OperationState};
use semilla_core::audit::{Draft, Hash, Record};
use semilla_core::checkpoint::{self, RECORDS_MAX, Signed};
use semilla_core::id::{CompanyId, OperationId};
use semilla_core::problem::{Problem, ProblemType};
use semilla_core::receipt::{Receipt, RecordInPlace};
use semilla_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::caller::Caller;
use super::views::Page;
use super::{Failure, View};
use crate::app::App;
use crate::records::StoredCheckpoint;
use crate::store::{AuditQuery, Batch, Query, Record as _, Records, StoreError, Versioned};

/// How many checkpoints are looked at in one go.
const AT_ONCE: u32 = 100;

/// Where checkpoints go, and how often.
pub struct Checkpoints {
    /// The file they are written to, one a line; none keeps them in the database alone.
    pub file: Option<PathBuf>,
    /// How long a chain grows before it is stated again.
    pub interval: Duration,
    /// When all chains were last looked at. Held while they are, so that nothing is written twice.
    looked_at: Mutex<Option<Timestamp>>,
}

impl Checkpoints {
    /// Checkpoints every `interval`, written to `file`.
    pub fn new(file: Option<PathBuf>, interval: Duration) -> Self {
        Self { file, interval, looked_at: Mutex::new(None) }
    }
}

/// States every chain that grew, where it is time, and writes what is not yet written.
pub async fn run(app: &App) -> Result<usize, Failure> {
    let mut looked_at = app.checkpoints.looked_at.lock().await;
    let now = app.now();
    // A clock that was set back does not stop them.
    if looked_at.is_some_and(|last| last <= now && now.since(last) < app.checkpoints.interval) {
        return Ok(0);
    }
    let mut made = 0;
    for company in app.store.audit_chains().await? {
        made += state_chain(app, company).await?;
    }
    write_out(app).await?;
    *looked_at = Some(now);
    Ok(made)
}

/// States what a chain grew by. Returns in how many checkpoints.
async fn state_chain(app: &App, company: CompanyId) -> Result<usize, Failure> {
    let mut made = 0;
    loop {
        let previous = newest(app, company).await?;
        let after = previous.as_ref().map_or(0, |signed| signed.checkpoint.last);
        let records = records(app, company, after, RECORDS_MAX).await?;
        let (key, now) = (&app.keys.checkpoints, app.now());
        let next = Signed::make(&app.issuer, now, previous.as_ref(), &records, key, &app.random);
        let Some(next) = next else { return Ok(made) };
        let mut batch = Batch::default();
        batch.insert(&StoredCheckpoint {
            company,
            first: next.checkpoint.first,
            last: next.checkpoint.last,
            text: next.text,
            written: false,
        });
        match app.store.commit(batch).await {
            Ok(()) => made += 1,
            // Another one was quicker: go on behind it.
            Err(StoreError::Conflict) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

async fn records(
    app: &App,
    company: CompanyId,
    after: u64,
    limit: u64,
) -> Result<Vec<Record>, StoreError> {
    let limit = u32::try_from(limit).unwrap_or(u32::MAX);
    app.store.audit(&AuditQuery { company, after, token: None, kind: None, limit }).await
}

fn read(app: &App, stored: &StoredCheckpoint) -> Result<Signed, StoreError> {
    Signed::verify(&stored.text, &app.keys.published).map_err(|error| StoreError::Inconsistent {
        table: StoredCheckpoint::TABLE.name,
        what: format!("{} {}: {error}", stored.company, stored.first),
    })
}

async fn newest(app: &App, company: CompanyId) -> Result<Option<Signed>, StoreError> {
    covering(app, company, u64::MAX).await
}

/// The checkpoint with the latest first record that is not behind `sequence`.
async fn covering(
    app: &App,
    company: CompanyId,
    sequence: u64,
) -> Result<Option<Signed>, StoreError> {
    let mut query = Query::of(StoredCheckpoint::TABLE, company, 1);
    query.order = Some("first");
    query.descending = true;
    query.at_most = Some(("first", i64::try_from(sequence).unwrap_or(i64::MAX)));
    let found = app.store.find::<StoredCheckpoint>(&query).await?.pop();
    found.map(|found| read(app, &found.record)).transpose()
}

/// Writes the checkpoints that were not yet written, in the order of their chains.
async fn write_out(app: &App) -> Result<(), Failure> {
    let Some(file) = app.checkpoints.file.clone() else { return Ok(()) };
    loop {
        let mut query = Query::of(StoredCheckpoint::TABLE, CompanyId::BANK, AT_ONCE);
        query.company = None;
        query.order = Some("first");
        let unwritten =
            app.store.find::<StoredCheckpoint>(&query.equals("state", "unwritten")).await?;
        if unwritten.is_empty() {
            return Ok(());
        }
        let lines: String = unwritten.iter().map(|one| format!("{}\n", one.record.text)).collect();
        let file = file.clone();
        let written = tokio::task::spawn_blocking(move || append(&file, &lines)).await;
        if let Err(error) = written.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
            // They stay unwritten, and are tried again at the next interval.
            tracing::error!(%error, "checkpoints cannot be written: see checkpoint_file");
            return Ok(());
        }
        let mut batch = Batch::default();
        for Versioned { mut record, version } in unwritten {
            record.written = true;
            batch.update(&Versioned { record, version });
        }
        match app.store.commit(batch).await {
            Ok(()) | Err(StoreError::Conflict) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whole lines, durable when it returns.
fn append(file: &PathBuf, lines: &str) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(file)?;
    file.write_all(lines.as_bytes())?;
    file.sync_all()
}

/// A checkpoint as a company reads it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct CheckpointView {
    /// The first record it covers.
    pub first: u64,
    /// The last one.
    pub last: u64,
    /// The exact text of the `audit-checkpoint+jwt`.
    pub checkpoint: String,
}

impl View for CheckpointView {}

/// How checkpoints are asked for.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckpointListing {
    /// Behind the one with this first record.
    pub after: Option<u64>,
    /// At most this many: 1 to 100, 20 if not said.
    #[schemars(range(min = 1, max = 100))]
    pub limit: Option<u32>,
}

/// A page of the checkpoints of the company's chain, oldest first.
pub async fn list(
    app: &App,
    caller: &Caller,
    listing: &CheckpointListing,
) -> Result<Page<CheckpointView>, Failure> {
    let limit = super::tokens::page_limit(listing.limit)?;
    let mut query = Query::of(StoredCheckpoint::TABLE, caller.company.id, limit);
    query.order = Some("first");
    let total = app.store.count(&query).await?;
    if let Some(after) = listing.after {
        let place = i64::try_from(after).unwrap_or(i64::MAX);
        query.after = Some((place.into(), StoredCheckpoint::id_of(after)));
    }
    let found = app.store.find::<StoredCheckpoint>(&query).await?;
    let next = found.last().map(|one| one.record.first).or(listing.after).unwrap_or(0);
    let items = found.into_iter().map(|one| CheckpointView {
        first: one.record.first,
        last: one.record.last,
        checkpoint: one.record.text,
    });
    Ok(Page { items: items.collect(), next_cursor: Some(next.to_string()), total })
}

impl View for Receipt {}

/// The receipt of an executed operation. Where no checkpoint covers its record yet, one is made.
pub async fn receipt(app: &App, caller: &Caller, id: OperationId) -> Result<Receipt, Failure> {
    let company = caller.company.id;
    let operation = app.store.get::<Operation>(company, &id.to_string()).await?;
    let operation = operation.ok_or_else(Problem::not_found)?.record;
    let OperationState::Executed { device, key, response, .. } = &operation.state else {
        let detail = "Only an operation that was approved and executed has a receipt.";
        let mut problem = Problem::new(ProblemType::StateConflict, detail);
        problem.state = Some(operation.state.name().to_owned());
        return Err(problem.into());
    };
    let inconsistent = |what: &str| StoreError::Inconsistent {
        table: Operation::TABLE.name,
        what: format!("{id}: {what}"),
    };
    let request =
        operation.request_to(*device).ok_or_else(|| inconsistent("its request is missing"))?;
    let record = execution(app, &operation).await?;
    let record = record.ok_or_else(|| inconsistent("its audit record is missing"))?;
    let mut covering_it = covering(app, company, record.sequence).await?;
    if covering_it.as_ref().is_none_or(|signed| signed.checkpoint.last < record.sequence) {
        state_chain(app, company).await?;
        covering_it = covering(app, company, record.sequence).await?;
    }
    let signed = covering_it.ok_or_else(|| inconsistent("no checkpoint covers it"))?;
    let (first, last) = (signed.checkpoint.first, signed.checkpoint.last);
    let covered = records(app, company, first - 1, last - first + 1).await?;
    let leaves: Vec<Hash> = covered.iter().map(|record| record.hash).collect();
    let place = usize::try_from(record.sequence - first).unwrap_or(usize::MAX);
    let previous = match record.sequence {
        1 => Hash::START,
        sequence => {
            let before = records(app, company, sequence - 2, 1).await?.pop();
            before.ok_or_else(|| inconsistent("the record before is missing"))?.hash
        }
    };
    let path = checkpoint::path(&leaves, place)
        .ok_or_else(|| inconsistent("the checkpoint covers other records"))?;
    Ok(Receipt {
        operation: id,
        company,
        request: request.text.clone(),
        response: response.clone(),
        phone_key: key.clone(),
        record: RecordInPlace { sequence: record.sequence, previous, body: record.body },
        checkpoint: signed.text,
        path,
    })
}

/// The audit record of an operation's execution.
async fn execution(app: &App, operation: &Operation) -> Result<Option<Record>, StoreError> {
    let mut query = AuditQuery {
        company: operation.company,
        after: 0,
        token: operation.token.map(|token| token.id),
        kind: Some("operation.executed".to_owned()),
        limit: 1000,
    };
    loop {
        let records = app.store.audit(&query).await?;
        let Some(last) = records.last() else { return Ok(None) };
        query.after = last.sequence;
        let is_it = |record: &Record| {
            serde_json::from_str::<Draft>(&record.body)
                .is_ok_and(|draft| draft.subject.operation == Some(operation.id))
        };
        if let Some(found) = records.into_iter().find(is_it) {
            return Ok(Some(found));
        }
    }
}
