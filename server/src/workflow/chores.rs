//! What time alone brings about: operations and enrollments that nobody answered end, and what is
//! kept for a while is forgotten. Nothing depends on chores being on time: every rule looks at the
//! clock itself; they make the end known.

use std::sync::Arc;

use semilla_core::approval::Operation;
use semilla_core::enrollment::{Activation, Enrollment};
use semilla_core::id::CompanyId;

use super::{Failure, act};
use crate::app::App;
use crate::records::{
    AccessToken, ConsentHistory, ConsentRequest, IdempotentAnswer, InboxItem, UsedAssertion,
};
use crate::store::{Batch, Query, Record, Records, Scope, StoreError, Write};

/// How many things of one kind are done in one go.
const AT_ONCE: u32 = 100;

/// Does everything that is due. Returns how much that was.
pub async fn run(app: &Arc<App>) -> Result<usize, Failure> {
    // Where the clock is doubted, what is due by it is another matter than codes: it only ends.
    match super::codes::require_steady_clock(app).await {
        Ok(()) | Err(Failure::Refused(_)) => {}
        Err(failure) => return Err(failure),
    }
    let mut done = 0;
    loop {
        let now =
            expire_operations(app).await? + expire_enrollments(app).await? + forget(app).await?;
        let now = now + super::retention::run(app).await?;
        if now == 0 || app.stopping.is_cancelled() {
            return Ok(done + super::checkpoints::run(app).await?);
        }
        done += now;
    }
}

fn due<R: Record>(app: &App) -> Query {
    let mut query = Query::of(R::TABLE, CompanyId::BANK, AT_ONCE);
    query.company = None;
    query.order = Some("expires");
    query.at_most = Some(("expires", app.now().milliseconds()));
    query
}

async fn expire_operations(app: &Arc<App>) -> Result<usize, Failure> {
    let overdue =
        app.store.find::<Operation>(&due::<Operation>(app).equals("state", "pending")).await?;
    for operation in &overdue {
        let (company, id) = (operation.record.company, operation.record.id);
        act(app, None, move |app| async move { super::approvals::expire(&app, company, id).await })
            .await?;
    }
    Ok(overdue.len())
}

async fn expire_enrollments(app: &Arc<App>) -> Result<usize, Failure> {
    let overdue =
        app.store.find::<Enrollment>(&due::<Enrollment>(app).equals("state", "open")).await?;
    for enrollment in &overdue {
        let (company, id) = (enrollment.record.company, enrollment.record.id);
        act(
            app,
            None,
            move |app| async move { super::enrollments::expire(&app, company, id).await },
        )
        .await?;
    }
    Ok(overdue.len())
}

async fn forget(app: &App) -> Result<usize, Failure> {
    let mut batch = Batch::default();
    for token in app.store.find::<AccessToken>(&due::<AccessToken>(app)).await? {
        batch.writes.push(Write::Free(Scope::AccessToken, token.record.sha256.clone()));
        batch.delete(&token);
    }
    for answer in app.store.find::<IdempotentAnswer>(&due::<IdempotentAnswer>(app)).await? {
        batch.delete(&answer);
    }
    for used in app.store.find::<UsedAssertion>(&due::<UsedAssertion>(app)).await? {
        batch.delete(&used);
    }
    for request in app.store.find::<ConsentRequest>(&due::<ConsentRequest>(app)).await? {
        batch.delete(&request);
    }
    for history in app.store.find::<ConsentHistory>(&due::<ConsentHistory>(app)).await? {
        batch.delete(&history);
    }
    for item in app.store.find::<InboxItem>(&due::<InboxItem>(app)).await? {
        batch.delete(&item);
    }
    for activation in app.store.find::<Activation>(&due::<Activation>(app)).await? {
        batch.writes.push(Write::Free(Scope::Activation, activation.record.name.clone()));
        batch.delete(&activation);
    }
    let forgotten = batch.writes.len();
    if forgotten == 0 {
        return Ok(0);
    }
    match app.store.commit(batch).await {
        // Somebody was using one of them: it is looked at again.
        Ok(()) | Err(StoreError::Conflict) => Ok(forgotten),
        Err(error) => Err(error.into()),
    }
}
