//! What is forgotten when it has been kept for long enough: operations and enrollments that have
//! ended, and the single attempts behind the audit's records of them. The audit trail itself is
//! never shortened; that attempts were forgotten, and up to which record, is a record of it.

use std::time::Duration;

use semilla_core::approval::Operation;
use semilla_core::audit::{Actor, Draft};
use semilla_core::enrollment::Enrollment;
use semilla_core::id::CompanyId;
use semilla_core::time::Timestamp;
use tokio::sync::Mutex;

use super::Failure;
use crate::app::App;
use crate::store::{
    AuditQuery, Batch, Query, Record, Records, Scope, Store, StoreError, Topic, Value, Write,
};

/// The kind of record that tells how far the attempts of a chain were forgotten.
pub const FORGOTTEN: &str = "attempts.forgotten";

/// How often attempts are looked through: each time that something is found leaves a record.
const ATTEMPTS_PERIOD: Duration = Duration::from_secs(24 * 3600);

/// How many things of one kind are forgotten in one go.
const AT_ONCE: u32 = 100;

/// For how long things are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Operations and enrollments, from when they could be answered last; none keeps them for good.
    pub operations: Option<Duration>,
    /// Single attempts; none keeps them for good.
    pub attempts: Option<Duration>,
    /// Answers to idempotency keys.
    pub answers: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        Self { operations: None, attempts: None, answers: Duration::from_secs(24 * 3600) }
    }
}

/// What is forgotten when, and when that was last looked at.
#[derive(Debug)]
pub struct Forgetting {
    /// For how long things are kept.
    pub after: Retention,
    /// When attempts were last looked through.
    looked_at: Mutex<Option<Timestamp>>,
}

impl From<Retention> for Forgetting {
    fn from(after: Retention) -> Self {
        Self { after, looked_at: Mutex::new(None) }
    }
}

/// Forgets what is due. Returns how much that was.
pub async fn run(app: &App) -> Result<usize, Failure> {
    // By a clock that is wrong nothing is forgotten.
    if app.clock_watch.is_doubted() {
        return Ok(0);
    }
    let mut forgotten = 0;
    if let Some(kept) = app.forgetting.after.operations {
        forgotten += ended_operations(app, kept).await? + ended_enrollments(app, kept).await?;
    }
    if let Some(kept) = app.forgetting.after.attempts {
        forgotten += attempts(app, kept).await?;
    }
    Ok(forgotten)
}

/// The ended ones whose time was over before `kept`.
fn long_ended<R: Record>(app: &App, kept: Duration, states: &[&'static str]) -> Query {
    let kept = i64::try_from(kept.as_millis()).unwrap_or(i64::MAX);
    let mut query = Query::of(R::TABLE, CompanyId::BANK, AT_ONCE);
    query.company = None;
    query.order = Some("expires");
    query.at_most = Some(("expires", app.now().milliseconds().saturating_sub(kept)));
    query.any_of.push(("state", states.iter().map(|state| Value::from(*state)).collect()));
    query
}

async fn commit(app: &App, batch: Batch, count: usize) -> Result<usize, Failure> {
    if count == 0 {
        return Ok(0);
    }
    match app.store.commit(batch).await {
        // Whatever was changed meanwhile is looked at again.
        Ok(()) | Err(StoreError::Conflict) => Ok(count),
        Err(error) => Err(error.into()),
    }
}

async fn ended_operations(app: &App, kept: Duration) -> Result<usize, Failure> {
    let states = ["executed", "denied", "expired", "cancelled", "failed"];
    let query = long_ended::<Operation>(app, kept, &states);
    let ended = app.store.find::<Operation>(&query).await?;
    let mut batch = Batch::default();
    for operation in &ended {
        batch.writes.push(Write::Free(Scope::Operation, operation.record.id.to_string()));
        batch.delete(operation);
    }
    commit(app, batch, ended.len()).await
}

async fn ended_enrollments(app: &App, kept: Duration) -> Result<usize, Failure> {
    let query = long_ended::<Enrollment>(app, kept, &["confirmed", "expired", "cancelled"]);
    let ended = app.store.find::<Enrollment>(&query).await?;
    let mut batch = Batch::default();
    for enrollment in &ended {
        batch.delete(enrollment);
    }
    commit(app, batch, ended.len()).await
}

/// Up to which record the attempts of a chain were forgotten; 0 where none were.
pub async fn forgotten_up_to(store: &dyn Store, company: CompanyId) -> Result<u64, StoreError> {
    let mut up_to = 0;
    let mut after = 0;
    loop {
        let kind = Some(FORGOTTEN.to_owned());
        let query = AuditQuery { company, after, token: None, kind, limit: 1000 };
        let records = store.audit(&query).await?;
        let Some(last) = records.last() else { return Ok(up_to) };
        after = last.sequence;
        for record in &records {
            if let Ok(draft) = serde_json::from_str::<Draft>(&record.body)
                && let Some(told) = draft.detail.get("up_to").and_then(|it| it.parse().ok())
            {
                up_to = up_to.max(told);
            }
        }
    }
}

async fn attempts(app: &App, kept: Duration) -> Result<usize, Failure> {
    let mut looked_at = app.forgetting.looked_at.lock().await;
    let now = app.now();
    if looked_at.is_some_and(|last| last <= now && now.since(last) < ATTEMPTS_PERIOD) {
        return Ok(0);
    }
    let mut forgotten = 0;
    for company in app.store.audit_chains().await? {
        let before = forgotten_up_to(app.store.as_ref(), company).await?;
        let last = last_before(app, company, before, kept).await?;
        if last > before {
            let draft = Draft::new(company, now, FORGOTTEN, Actor::System).with("up_to", last);
            let batch = Batch {
                writes: vec![Write::ForgetAttempts(company, last)],
                audit: vec![draft],
                topics: vec![Topic::Audit(company)],
            };
            app.store.commit(batch).await?;
            forgotten += 1;
        }
    }
    *looked_at = Some(now);
    Ok(forgotten)
}

/// The last record behind `before` whose attempts have been kept for long enough.
async fn last_before(
    app: &App,
    company: CompanyId,
    before: u64,
    kept: Duration,
) -> Result<u64, Failure> {
    let mut last = before;
    loop {
        let kind = Some("otp.checked".to_owned());
        let query = AuditQuery { company, after: last, token: None, kind, limit: 1000 };
        let records = app.store.audit(&query).await?;
        if records.is_empty() {
            return Ok(last);
        }
        for record in records {
            let draft: Draft = serde_json::from_str(&record.body).map_err(|error| {
                StoreError::Inconsistent { table: "audit", what: error.to_string() }
            })?;
            if draft.at.plus(kept) > app.now() {
                return Ok(last);
            }
            last = record.sequence;
        }
    }
}
