//! The company API (`/api/v1`): what programs of companies and of the bank can ask. Each handler
//! hands what it was given to one function of [`crate::workflow`].

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName};
use semilla_core::approval::Approvable;
use semilla_core::id::{ClientId, CompanyId, DeviceId, EnrollmentId, OperationId, TokenId, UserId};
use semilla_core::operations::{BlockCause, ReleaseCause, RotateCause};
use semilla_core::otp::Code;
use semilla_core::policy::Policy;
use semilla_core::problem::Problem;
use semilla_core::secret::SecretText;
use semilla_core::token::{Kind, Serial};
use serde::Deserialize;

use super::change::{Change, HeldKey, act, to_the_end};
use super::headers::single;
use super::params::{Id, Ids, Query};
use super::respond::{Answered, shown};
use super::wait::{self, Told, Wait};
use super::{Edge, Route, Rule, delete, get, patch, post, put};
use crate::app::App;
use crate::records::ApiScope;
use crate::store::{AuditQuery, Topic};
use crate::workflow::caller::{Acting, Caller};
use crate::workflow::checkpoints::{self, CheckpointListing};
use crate::workflow::codes::{VerifyRequest, verify};
use crate::workflow::enrollments::{self, Confirming};
use crate::workflow::people::{CompanyChange, Listing, NewClient, NewCompany, NewUser, UserChange};
use crate::workflow::tokens::{Move, SerialRun, TokenListing};
use crate::workflow::trail::TrailListing;
use crate::workflow::{Failure, Plan, View, approvals, devices, people, tokens, trail};

/// What can be asked under `/api/v1`, and which scope it needs.
pub(super) fn routes() -> Vec<Route> {
    let read = Rule::Scope(&[ApiScope::TokensRead]);
    let asked_ = Rule::Scope(&[ApiScope::TokensRead, ApiScope::TokensRelease]);
    let assign_ = Rule::Scope(&[ApiScope::TokensAssign]);
    let block_ = Rule::Scope(&[ApiScope::TokensBlock]);
    let release_ = Rule::Scope(&[ApiScope::TokensRelease]);
    let verify_ = Rule::Scope(&[ApiScope::OtpVerify]);
    let deliver = Rule::Scope(&[ApiScope::EnrollmentsDeliver]);
    let users = Rule::Scope(&[ApiScope::UsersManage]);
    let policies = Rule::Scope(&[ApiScope::PoliciesManage]);
    let audit_ = Rule::Scope(&[ApiScope::AuditRead]);
    let companies = Rule::Scope(&[ApiScope::CompaniesManage]);
    let stock = Rule::Scope(&[ApiScope::StockManage]);
    vec![
        get("/api/v1/tokens", read, list_tokens),
        get("/api/v1/tokens/{id}", read, show_token),
        get("/api/v1/tokens/{id}/generations", read, generations),
        post("/api/v1/tokens/{id}/assign", assign_, assign),
        post("/api/v1/tokens/{id}/enrollments", assign_, open_enrollment),
        post("/api/v1/tokens/{id}/block", block_, block),
        post("/api/v1/tokens/{id}/release", release_, release),
        post("/api/v1/tokens/{id}/unblock", release_, unblock),
        post("/api/v1/tokens/{id}/rotate", release_, rotate),
        get("/api/v1/enrollments/{id}", read, show_enrollment),
        post("/api/v1/enrollments/{id}/activation", deliver, activation),
        post("/api/v1/enrollments/{id}/otpauth", deliver, otpauth),
        post("/api/v1/enrollments/{id}/confirm", deliver, confirm),
        get("/api/v1/operations/{id}", asked_, show_operation).waiting(),
        delete("/api/v1/operations/{id}", release_, cancel_operation),
        post("/api/v1/otp/verify", verify_, verify_code),
        get("/api/v1/audit", audit_, list_audit),
        get("/api/v1/audit/checkpoints", audit_, list_checkpoints),
        get("/api/v1/operations/{id}/receipt", audit_, show_receipt),
        get("/api/v1/events", audit_, events).waiting(),
        get("/api/v1/users", users, list_users),
        post("/api/v1/users", users, create_user),
        get("/api/v1/users/{id}", users, show_user),
        patch("/api/v1/users/{id}", users, change_user),
        post("/api/v1/users/{id}/activation", deliver, phone_activation),
        post("/api/v1/users/{id}/recover", users, recover),
        get("/api/v1/devices", users, list_devices),
        delete("/api/v1/devices/{id}", block_, revoke_device),
        get("/api/v1/policies", policies, show_policy),
        put("/api/v1/policies", policies, set_policy),
        get("/api/v1/companies", companies, list_companies),
        post("/api/v1/companies", companies, create_company),
        get("/api/v1/companies/{id}", companies, show_company),
        patch("/api/v1/companies/{id}", companies, change_company),
        post("/api/v1/companies/{id}/administrators", companies, create_administrator),
        get("/api/v1/companies/{id}/clients", companies, list_clients),
        post("/api/v1/companies/{id}/clients", companies, create_client),
        delete("/api/v1/companies/{id}/clients/{client}", companies, end_client),
        post("/api/v1/companies/{id}/users/{user}/recover", companies, recover_for_company),
        get("/api/v1/stock", stock, list_tokens),
        post("/api/v1/stock/issue", stock, issue),
        post("/api/v1/stock/allot", stock, allot),
        post("/api/v1/stock/withdraw", stock, withdraw),
        post("/api/v1/stock/retire", stock, retire),
    ]
}

type Here = State<Arc<Edge>>;

/// In whose name, where that is all a request says.
#[derive(Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    asker: Option<UserId>,
}

/// In whose name, and why.
#[derive(Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct Caused<C> {
    cause: C,
    asker: Option<UserId>,
}

/// Nothing at all.
#[derive(Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct Empty {}

/// Does what `plan` plans, for a program in its own name.
async fn act_alone<T, P, F>(edge: &Edge, key: Option<HeldKey>, caller: Caller, plan: P) -> Answered
where
    T: View,
    P: Fn(Arc<App>, Caller) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Plan<T>, Failure>> + Send,
{
    act(edge, key, caller, plan).await
}

/// Does what `plan` plans, in the name of an administrator or operator.
async fn act_for<T, P, F>(
    edge: &Edge,
    key: Option<HeldKey>,
    caller: Caller,
    asker: Option<UserId>,
    plan: P,
) -> Answered
where
    T: View,
    P: Fn(Arc<App>, Acting) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Plan<T>, Failure>> + Send,
{
    act(edge, key, (caller, plan), move |app, (caller, plan)| async move {
        let acting = caller.acting(&app, asker).await?;
        plan(app, acting).await
    })
    .await
}

async fn list_tokens(
    State(edge): Here,
    caller: Caller,
    Query(listing): Query<TokenListing>,
) -> Answered {
    shown(tokens::list(&edge.app, &caller, &listing).await)
}

async fn show_token(State(edge): Here, caller: Caller, Id(id): Id<TokenId>) -> Answered {
    shown(tokens::show(&edge.app, &caller, id).await)
}

async fn generations(State(edge): Here, caller: Caller, Id(id): Id<TokenId>) -> Answered {
    shown(tokens::generations(&edge.app, &caller, id).await)
}

#[derive(Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct Assign {
    user: UserId,
    asker: Option<UserId>,
}

async fn assign(
    State(edge): Here,
    caller: Caller,
    Id(id): Id<TokenId>,
    change: Change<Assign>,
) -> Answered {
    let Change { body, if_match, key } = change;
    act_for(&edge, key, caller, body.asker, move |app, acting| async move {
        tokens::assign(&app, &acting, id, body.user, if_match).await
    })
    .await
}

async fn open_enrollment(
    State(edge): Here,
    caller: Caller,
    Id(id): Id<TokenId>,
    change: Change<Asked>,
) -> Answered {
    let Change { body, if_match, key } = change;
    act_for(&edge, key, caller, body.asker, move |app, acting| async move {
        tokens::open_enrollment(&app, &acting, id, if_match).await
    })
    .await
}

async fn block(
    State(edge): Here,
    caller: Caller,
    Id(id): Id<TokenId>,
    change: Change<Caused<BlockCause>>,
) -> Answered {
    let Change { body, if_match, key } = change;
    act_for(&edge, key, caller, body.asker, move |app, acting| async move {
        tokens::block(&app, &acting, id, body.cause, if_match).await
    })
    .await
}

async fn ask(
    edge: &Edge,
    caller: Caller,
    id: TokenId,
    action: Approvable,
    change: Change<Asked>,
) -> Answered {
    let Change { body, if_match, key } = change;
    act_for(edge, key, caller, body.asker, move |app, acting| async move {
        approvals::ask(&app, &acting, id, action, if_match).await
    })
    .await
}

fn asked<C>(change: Change<Caused<C>>) -> (C, Change<Asked>) {
    let Change { body, if_match, key } = change;
    (body.cause, Change { body: Asked { asker: body.asker }, if_match, key })
}

async fn release(
    State(edge): Here,
    caller: Caller,
    Id(id): Id<TokenId>,
    change: Change<Caused<ReleaseCause>>,
) -> Answered {
    let (cause, change) = asked(change);
    ask(&edge, caller, id, Approvable::Release(cause), change).await
}

async fn unblock(
    State(edge): Here,
    caller: Caller,
    Id(id): Id<TokenId>,
    change: Change<Asked>,
) -> Answered {
    ask(&edge, caller, id, Approvable::Unblock, change).await
}

async fn rotate(
    State(edge): Here,
    caller: Caller,
    Id(id): Id<TokenId>,
    change: Change<Caused<RotateCause>>,
) -> Answered {
    let (cause, change) = asked(change);
    ask(&edge, caller, id, Approvable::Rotate(cause), change).await
}

async fn show_enrollment(State(edge): Here, caller: Caller, Id(id): Id<EnrollmentId>) -> Answered {
    shown(enrollments::show(&edge.app, &caller, id).await)
}

async fn activation(
    State(edge): Here,
    caller: Caller,
    Id(id): Id<EnrollmentId>,
    change: Change<Empty>,
) -> Answered {
    act_alone(&edge, change.key, caller, move |app, caller| async move {
        enrollments::activation(&app, &caller, id).await
    })
    .await
}

async fn otpauth(
    State(edge): Here,
    caller: Caller,
    Id(id): Id<EnrollmentId>,
    change: Change<Empty>,
) -> Answered {
    act_alone(&edge, change.key, caller, move |app, caller| async move {
        enrollments::otpauth(&app, &caller, id).await
    })
    .await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Confirm {
    code: SecretText,
}

async fn confirm(
    State(edge): Here,
    caller: Caller,
    Id(id): Id<EnrollmentId>,
    change: Change<Confirm>,
) -> Answered {
    let code = Code::parse(change.body.code.expose()).ok();
    let (app, by) = (Arc::clone(&edge.app), Confirming::Program(Box::new(caller)));
    shown(to_the_end(async move { enrollments::confirm(&app, by, id, code).await }).await)
}

async fn show_operation(
    State(edge): Here,
    caller: Caller,
    Id(id): Id<OperationId>,
    Query(wait): Query<Wait>,
) -> Answered {
    shown(approvals::wait(&edge.app, &caller, id, wait.patience()?).await)
}

async fn cancel_operation(
    State(edge): Here,
    caller: Caller,
    Id(id): Id<OperationId>,
    Query(asked): Query<Asked>,
) -> Answered {
    act_for(&edge, None, caller, asked.asker, move |app, acting| async move {
        approvals::cancel(&app, &acting, id).await
    })
    .await
}

async fn verify_code(
    State(edge): Here,
    caller: Caller,
    super::body::Json(request): super::body::Json<VerifyRequest>,
) -> Answered {
    // What follows from too many failures is done also where nobody waits for the answer.
    edge.programs.take_failure(&caller)?;
    let app = Arc::clone(&edge.app);
    let checked = {
        let caller = caller.clone();
        to_the_end(async move { verify(&app, &caller, request).await }).await
    };
    if checked.as_ref().is_ok_and(|checked| checked.accepted) {
        edge.programs.give_failure_back(&caller);
    }
    shown(checked)
}

async fn list_audit(
    State(edge): Here,
    caller: Caller,
    Query(listing): Query<TrailListing>,
) -> Answered {
    shown(trail::list(&edge.app, &caller, &listing).await)
}

async fn list_checkpoints(
    State(edge): Here,
    caller: Caller,
    Query(listing): Query<CheckpointListing>,
) -> Answered {
    shown(checkpoints::list(&edge.app, &caller, &listing).await)
}

async fn show_receipt(State(edge): Here, caller: Caller, Id(id): Id<OperationId>) -> Answered {
    shown(checkpoints::receipt(&edge.app, &caller, id).await)
}

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct After {
    after: Option<u64>,
}

/// The company's audit trail as it grows. Goes on behind `Last-Event-ID`, or behind `after`, or at
/// its end.
async fn events(
    State(edge): Here,
    caller: Caller,
    headers: HeaderMap,
    Query(After { after }): Query<After>,
) -> Answered {
    let company = caller.company.id;
    let place = match (single(&headers, &LAST_EVENT_ID)?, after) {
        // A client that comes back repeats its first address: where it was counts more.
        (Some(id), _) => id.parse().map_err(|_| {
            Problem::field(LAST_EVENT_ID.as_str(), "is no id of an event of this stream")
        })?,
        (None, Some(after)) => after,
        (None, None) => edge.app.store.audit_head(company).await?.sequence,
    };
    wait::stream(&edge, Topic::Audit(company), place, move |app, after| async move {
        audit_behind(&app, company, after).await
    })
}

async fn audit_behind(
    app: &App,
    company: CompanyId,
    after: u64,
) -> Result<Option<(Vec<Told>, u64)>, Failure> {
    let query = AuditQuery { company, after, token: None, kind: None, limit: 100 };
    let records = app.store.audit(&query).await?;
    let Some(last) = records.last().map(|record| record.sequence) else { return Ok(None) };
    let told = records.into_iter().map(|record| Told {
        id: Some(record.sequence.to_string()),
        event: "audit",
        data: record.body,
    });
    Ok(Some((told.collect(), last)))
}

async fn list_users(State(edge): Here, caller: Caller, Query(listing): Query<Listing>) -> Answered {
    shown(people::list_users(&edge.app, &caller, &listing).await)
}

async fn create_user(State(edge): Here, caller: Caller, change: Change<NewUser>) -> Answered {
    let Change { body, key, .. } = change;
    act_alone(&edge, key, caller, move |app, caller| {
        let body = body.clone();
        async move { people::create_user(&app, &caller, &body).await }
    })
    .await
}

async fn show_user(State(edge): Here, caller: Caller, Id(id): Id<UserId>) -> Answered {
    shown(people::show_user(&edge.app, &caller, id).await)
}

async fn change_user(
    State(edge): Here,
    caller: Caller,
    Id(id): Id<UserId>,
    change: Change<UserChange>,
) -> Answered {
    let Change { body, if_match, key } = change;
    act_alone(&edge, key, caller, move |app, caller| {
        let body = body.clone();
        async move { people::change_user(&app, &caller, id, &body, if_match).await }
    })
    .await
}

async fn phone_activation(
    State(edge): Here,
    caller: Caller,
    Id(id): Id<UserId>,
    change: Change<Empty>,
) -> Answered {
    act_alone(&edge, change.key, caller, move |app, caller| async move {
        enrollments::phone_activation(&app, &caller, id).await
    })
    .await
}

async fn recover(
    State(edge): Here,
    caller: Caller,
    Id(id): Id<UserId>,
    change: Change<Asked>,
) -> Answered {
    let company = caller.company.id;
    act_for(&edge, change.key, caller, change.body.asker, move |app, acting| async move {
        devices::recover(&app, &acting, company, id).await
    })
    .await
}

async fn recover_for_company(
    State(edge): Here,
    caller: Caller,
    Ids(company, id): Ids<CompanyId, UserId>,
    change: Change<Asked>,
) -> Answered {
    act_for(&edge, change.key, caller, change.body.asker, move |app, acting| async move {
        devices::recover(&app, &acting, company, id).await
    })
    .await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfUser {
    user: Option<UserId>,
}

async fn list_devices(State(edge): Here, caller: Caller, Query(of): Query<OfUser>) -> Answered {
    shown(devices::list(&edge.app, &caller, of.user).await)
}

async fn revoke_device(
    State(edge): Here,
    caller: Caller,
    Id(id): Id<DeviceId>,
    Query(asked): Query<Asked>,
) -> Answered {
    act_for(&edge, None, caller, asked.asker, move |app, acting| async move {
        devices::revoke(&app, &acting, id).await
    })
    .await
}

async fn show_policy(State(edge): Here, caller: Caller) -> Answered {
    shown(people::show_policy(&edge.app, &caller).await)
}

async fn set_policy(State(edge): Here, caller: Caller, change: Change<Policy>) -> Answered {
    let Change { body, if_match, key } = change;
    act_alone(&edge, key, caller, move |app, caller| async move {
        people::set_policy(&app, &caller, &body, if_match).await
    })
    .await
}

async fn list_companies(State(edge): Here, Query(listing): Query<Listing>) -> Answered {
    shown(people::list_companies(&edge.app, &listing).await)
}

async fn create_company(State(edge): Here, caller: Caller, change: Change<NewCompany>) -> Answered {
    let Change { body, key, .. } = change;
    act_alone(&edge, key, caller, move |app, caller| {
        let body = body.clone();
        async move { people::create_company(&app, &caller, &body).await }
    })
    .await
}

async fn show_company(State(edge): Here, Id(id): Id<CompanyId>) -> Answered {
    shown(people::show_company(&edge.app, id).await)
}

async fn change_company(
    State(edge): Here,
    caller: Caller,
    Id(id): Id<CompanyId>,
    change: Change<CompanyChange>,
) -> Answered {
    let Change { body, if_match, key } = change;
    act_alone(&edge, key, caller, move |app, caller| {
        let body = body.clone();
        async move { people::change_company(&app, &caller, id, &body, if_match).await }
    })
    .await
}

async fn create_administrator(
    State(edge): Here,
    caller: Caller,
    Id(id): Id<CompanyId>,
    change: Change<NewUser>,
) -> Answered {
    let Change { body, key, .. } = change;
    act_alone(&edge, key, caller, move |app, caller| {
        let body = body.clone();
        async move { people::create_administrator(&app, &caller, id, &body).await }
    })
    .await
}

async fn list_clients(State(edge): Here, Id(id): Id<CompanyId>) -> Answered {
    shown(people::list_clients(&edge.app, id).await)
}

async fn create_client(
    State(edge): Here,
    caller: Caller,
    Id(id): Id<CompanyId>,
    change: Change<NewClient>,
) -> Answered {
    let Change { body, key, .. } = change;
    act_alone(&edge, key, caller, move |app, caller| {
        let body = body.clone();
        async move { people::create_client(&app, &caller, id, &body).await }
    })
    .await
}

async fn end_client(
    State(edge): Here,
    caller: Caller,
    Ids(company, id): Ids<CompanyId, ClientId>,
) -> Answered {
    act_alone(&edge, None, caller, move |app, caller| async move {
        people::end_client(&app, &caller, company, id).await
    })
    .await
}

/// Tokens that enter the stock.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Issue {
    first: Serial,
    count: u32,
    kind: Option<Kind>,
}

async fn issue(State(edge): Here, caller: Caller, change: Change<Issue>) -> Answered {
    let Change { body: Issue { first, count, kind }, key, .. } = change;
    let run = SerialRun { first, count };
    act_alone(&edge, key, caller, move |app, caller| {
        let run = run.clone();
        async move { tokens::issue(&app, &caller, &run, kind.unwrap_or(Kind::Virtual)).await }
    })
    .await
}

/// Tokens that go to a company.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Allot {
    first: Serial,
    count: u32,
    company: CompanyId,
}

async fn allot(State(edge): Here, caller: Caller, change: Change<Allot>) -> Answered {
    let Change { body: Allot { first, count, company }, key, .. } = change;
    move_tokens(&edge, key, caller, SerialRun { first, count }, Move::Allot(company)).await
}

async fn withdraw(State(edge): Here, caller: Caller, change: Change<SerialRun>) -> Answered {
    move_tokens(&edge, change.key, caller, change.body, Move::Withdraw).await
}

async fn retire(State(edge): Here, caller: Caller, change: Change<SerialRun>) -> Answered {
    move_tokens(&edge, change.key, caller, change.body, Move::Retire).await
}

async fn move_tokens(
    edge: &Edge,
    key: Option<HeldKey>,
    caller: Caller,
    run: SerialRun,
    to: Move,
) -> Answered {
    act_alone(edge, key, caller, move |app, caller| {
        let run = run.clone();
        async move { tokens::move_tokens(&app, &caller, &run, to).await }
    })
    .await
}
