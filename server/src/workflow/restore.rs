//! What is done to a database that was restored from a backup before anybody is served from it. It
//! has forgotten what happened since: codes that were accepted, operations that were answered,
//! sessions that ended. So that nothing of it comes back to life, every code up to this moment is
//! dead, everything that waits is cancelled, every session is over, and no message that a phone
//! signed before counts (security 29, 96).

use std::sync::Arc;

use semilla_core::approval::{Operation, OperationState};
use semilla_core::audit::{Actor, Draft};
use semilla_core::enrollment::{Enrollment, EnrollmentState};
use semilla_core::id::CompanyId;
use semilla_core::operations::BlockCause;
use semilla_core::otp::Method;
use semilla_core::time::Timestamp;
use serde::Serialize;

use super::enrollments::kill_codes;
use super::unit::Unit;
use super::views::Nothing;
use super::{Failure, act, effects};
use crate::app::App;
use crate::records::{AccessToken, Setting};
use crate::store::{
    Batch, Query, Record, Records, Scope, StoreError, Topic, VerifierChange, Write,
};

/// How many rows are read and written in one go.
const AT_ONCE: u32 = 256;

/// The setting with the moment of the last restore.
pub const RESTORED: &str = "restored";

/// What a restore did.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// When the last record of the backup was made. What happened since is not known.
    pub last_record: Option<Timestamp>,
    /// Tokens whose codes up to now are dead.
    pub tokens: u64,
    /// Tokens with a counter, which were blocked.
    pub blocked: u64,
    /// Operations that waited for a phone, and were cancelled.
    pub operations: u64,
    /// Enrollments that were open, and were cancelled.
    pub enrollments: u64,
    /// Access tokens that were ended.
    pub access_tokens: u64,
}

/// Ends what must not come back. Interrupted, it is begun again.
pub async fn run(app: &Arc<App>, last_record: Option<Timestamp>) -> Result<Report, Failure> {
    let mut report = Report { last_record, ..Report::default() };
    report.tokens = spend_codes(app).await?;
    report.blocked = block_counters(app).await?;
    for company in app.store.audit_chains().await? {
        report.access_tokens += end_sessions(app, company).await?;
        report.operations += cancel_operations(app, company).await?;
        report.enrollments += cancel_enrollments(app, company).await?;
        act(app, None, move |app| async move {
            let mut unit = Unit::new(&app);
            kill_codes(&mut unit, company, None).await?;
            Ok(unit.plan(Nothing {}))
        })
        .await?;
    }
    let draft = Draft::new(CompanyId::BANK, app.now(), "bank.restored", Actor::Local)
        .with("tokens", report.tokens)
        .with("blocked", report.blocked)
        .with("operations", report.operations)
        .with("enrollments", report.enrollments)
        .with("access_tokens", report.access_tokens);
    let mut batch = Batch::default();
    batch.audit.push(match last_record {
        Some(moment) => draft.with("last_record", moment),
        None => draft,
    });
    batch.put(&Setting { name: RESTORED.to_owned(), value: app.now().milliseconds().to_string() });
    batch.topics.push(Topic::Audit(CompanyId::BANK));
    app.store.commit(batch).await?;
    Ok(report)
}

/// The moment of the last restore, if there was one.
pub async fn last(store: &dyn crate::store::Store) -> Result<Option<Timestamp>, StoreError> {
    let kept = store.get::<Setting>(CompanyId::BANK, RESTORED).await?;
    let milliseconds = kept.and_then(|kept| kept.record.value.parse().ok());
    Ok(milliseconds.map(Timestamp::from_milliseconds))
}

/// Nobody knows how far a counter went since the backup was made, so that its tokens are blocked:
/// an administrator looks at each, and has it proven anew where it was used meanwhile.
async fn block_counters(app: &Arc<App>) -> Result<u64, Failure> {
    let (mut blocked, mut after) = (0, None);
    loop {
        let page = app.store.verifiers(after, AT_ONCE).await?;
        let Some((company, token, _)) = page.last() else { return Ok(blocked) };
        after = Some((*company, *token));
        for (company, token, verifier) in page {
            if !verifier.open || !matches!(verifier.method, Method::Counter(_)) {
                continue;
            }
            blocked += 1;
            let cause = BlockCause::TechnicalFailure;
            act(app, None, move |app| async move {
                super::tokens::block_by_system(&app, company, token, cause).await
            })
            .await?;
        }
    }
}

async fn spend_codes(app: &App) -> Result<u64, Failure> {
    let (mut spent, mut after) = (0, None);
    loop {
        let page = app.store.verifiers(after, AT_ONCE).await?;
        let Some((company, token, _)) = page.last() else { return Ok(spent) };
        after = Some((*company, *token));
        spent += page.len() as u64;
        let spend = |(company, token, verifier): &(_, _, crate::store::Verifier)| {
            let Method::Time(parameters) = verifier.method else { return None };
            // One more than now: a phone that is a little fast was ahead by that, too.
            let now = parameters.step_at(app.now()).0 + 1;
            let up_to = now.saturating_add_signed(verifier.counters.drift.max(0).into());
            Some(Write::Verifier(*company, *token, VerifierChange::Spend { up_to }))
        };
        let writes = page.iter().filter_map(spend).collect();
        app.store.commit(Batch { writes, ..Batch::default() }).await?;
    }
}

async fn end_sessions(app: &App, company: CompanyId) -> Result<u64, Failure> {
    let mut ended = 0;
    loop {
        let all = Query::of(AccessToken::TABLE, company, AT_ONCE);
        let tokens = app.store.find::<AccessToken>(&all).await?;
        if tokens.is_empty() {
            return Ok(ended);
        }
        let mut batch = Batch::default();
        for token in &tokens {
            batch.writes.push(Write::Free(Scope::AccessToken, token.record.sha256.clone()));
            batch.delete(token);
        }
        ended += tokens.len() as u64;
        app.store.commit(batch).await?;
    }
}

async fn cancel_operations(app: &Arc<App>, company: CompanyId) -> Result<u64, Failure> {
    let mut cancelled = 0;
    loop {
        let pending = Query::of(Operation::TABLE, company, AT_ONCE).equals("state", "pending");
        let operations = app.store.find::<Operation>(&pending).await?;
        if operations.is_empty() {
            return Ok(cancelled);
        }
        for operation in operations {
            cancelled += 1;
            let id = operation.record.id;
            act(app, None, move |app| async move {
                let mut unit = Unit::new(&app);
                let found = unit.must::<Operation>(company, &id.to_string()).await?.record;
                effects::settle_token(&mut unit, &found).await?;
                let end = OperationState::Cancelled { at: unit.now };
                effects::end_operation(&mut unit, company, id, end, Actor::Local).await?;
                Ok(unit.plan(Nothing {}))
            })
            .await?;
        }
    }
}

async fn cancel_enrollments(app: &Arc<App>, company: CompanyId) -> Result<u64, Failure> {
    let mut cancelled = 0;
    loop {
        let open = Query::of(Enrollment::TABLE, company, AT_ONCE).equals("state", "open");
        let enrollments = app.store.find::<Enrollment>(&open).await?;
        if enrollments.is_empty() {
            return Ok(cancelled);
        }
        for enrollment in enrollments {
            cancelled += 1;
            let id = enrollment.record.id;
            act(app, None, move |app| async move {
                let mut unit = Unit::new(&app);
                let found = unit.must::<Enrollment>(company, &id.to_string()).await?.record;
                let end = EnrollmentState::Cancelled;
                effects::end_enrollment(&mut unit, company, id, end).await?;
                effects::close_enrollment(&mut unit, &found).await?;
                Ok(unit.plan(Nothing {}))
            })
            .await?;
        }
    }
}
