//! The company API (`/api/v1`): what programs of companies and of the bank can ask. Each handler
//! hands what it was given to one function of [`crate::workflow`].

use std::sync::Arc;

use axum::extract::{FromRequestParts, State};
use axum::http::HeaderName;
use axum::http::request::Parts;
use schemars::JsonSchema;
use semilla_core::approval::Approvable;
use semilla_core::id::{ClientId, CompanyId, DeviceId, EnrollmentId, OperationId, TokenId, UserId};
use semilla_core::operations::{BlockCause, ReleaseCause, RotateCause};
use semilla_core::policy::Policy;
use semilla_core::problem::{Problem, ProblemType};
use semilla_core::protocol::wire;
use semilla_core::receipt::Receipt;
use semilla_core::secret::SecretText;
use semilla_core::token::{Kind, Serial};
use serde::Deserialize;
use serde_json::json;

use super::body::FILE_BYTES_MAX;
use super::change::{Change, HeldKey, act, to_the_end};
use super::describe::{About, Part, Text};
use super::headers::single;
use super::params::{Id, Ids, Query};
use super::problem::ApiError;
use super::respond::{Answered, shown};
use super::wait::{self, Events, Told, Wait};
use super::{Edge, Route, Rule, delete, get, patch, post, put};
use crate::app::App;
use crate::records::ApiScope;
use crate::store::{AuditQuery, Topic};
use crate::workflow::caller::{Acting, Caller};
use crate::workflow::checkpoints::CheckpointView;
use crate::workflow::checkpoints::{self, CheckpointListing};
use crate::workflow::codes::{Sent, VerifyRequest, resynchronize, verify};
use crate::workflow::enrollments::{self, Confirming};
use crate::workflow::people::{CompanyChange, Listing, NewClient, NewCompany, NewUser, UserChange};
use crate::workflow::stock::{ExportRequest, ExportView, ImportReport, ImportRequest};
use crate::workflow::tokens::{Move, SerialRun, TokenListing};
use crate::workflow::trail::{RecordView, TrailListing};
use crate::workflow::views::{
    ActivationView, ClientCreated, ClientView, CompanyCreated, CompanyView, DeviceView,
    EnrollmentOpened, EnrollmentView, GenerationView, Nothing, OperationAsked, OperationView,
    OtpauthView, Page, PolicyView, TokenView, TokensChanged, UserCreated, UserView, VerifyView,
};
use crate::workflow::{Failure, Plan, View, approvals, devices, people, stock, tokens, trail};

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
    let stock_ = Rule::Scope(&[ApiScope::StockManage]);
    use ProblemType::{
        ApprovalAlreadyDecided, CodeInvalid, DeliveryExpired, SelfApproval, StateConflict,
        TokenLocked,
    };
    vec![
        get("/api/v1/tokens", read, list_tokens).says(
            "Los tokens de la empresa, por páginas",
            "The company's tokens, a page at a time",
        ),
        get("/api/v1/tokens/{id}", read, show_token).says("Un token", "One token"),
        get("/api/v1/tokens/{id}/generations", read, generations).says(
            "Las generaciones de la semilla de un token",
            "The generations of a token's seed",
        ),
        post("/api/v1/tokens/{id}/assign", assign_, assign)
            .says("Asignar un token a una persona", "Give a token to a person")
            .may(&[StateConflict]),
        post("/api/v1/tokens/{id}/enrollments", assign_, open_enrollment)
            .says("Abrir otra activación", "Open another enrollment")
            .may(&[StateConflict]),
        post("/api/v1/tokens/{id}/block", block_, block)
            .says("Bloquear, de inmediato", "Block, at once")
            .may(&[StateConflict]),
        post("/api/v1/tokens/{id}/release", release_, release)
            .says("Pedir que se libere", "Ask for a release")
            .may(&[StateConflict]),
        post("/api/v1/tokens/{id}/unblock", release_, unblock)
            .says("Pedir que se desbloquee", "Ask to unblock")
            .may(&[StateConflict]),
        post("/api/v1/tokens/{id}/rotate", release_, rotate)
            .says("Pedir que se renueve la semilla", "Ask for a new seed")
            .may(&[StateConflict]),
        post("/api/v1/tokens/{id}/resync", verify_, resync)
            .says(
                "Encontrar un token con reloj o contador propio, por dos códigos seguidos",
                "Find a token with a clock or counter of its own, by two codes in a row",
            )
            .may(&[StateConflict]),
        get("/api/v1/enrollments/{id}", read, show_enrollment)
            .says("Una activación", "One enrollment"),
        post("/api/v1/enrollments/{id}/activation", deliver, activation)
            .says(
                "El código de activación, para entregarlo, una vez",
                "The activation code, to deliver it, once",
            )
            .may(&[StateConflict, DeliveryExpired]),
        post("/api/v1/enrollments/{id}/otpauth", deliver, otpauth)
            .says(
                "La semilla para una app de autenticación, una vez",
                "The seed for an authenticator app, once",
            )
            .may(&[StateConflict, DeliveryExpired]),
        post("/api/v1/enrollments/{id}/confirm", deliver, confirm)
            .says(
                "Confirmar con un código de la semilla nueva",
                "Confirm with a code of the new seed",
            )
            .may(&[StateConflict, DeliveryExpired, CodeInvalid, TokenLocked]),
        get("/api/v1/operations/{id}", asked_, show_operation)
            .says(
                "Una operación; con wait, cuando haya terminado",
                "One operation; with wait, once it has ended",
            )
            .waiting(),
        delete("/api/v1/operations/{id}", release_, cancel_operation)
            .says("Cancelar lo que espera un teléfono", "Cancel what waits for a phone")
            .may(&[StateConflict, ApprovalAlreadyDecided]),
        post("/api/v1/otp/verify", verify_, verify_code)
            .says("¿Es correcto este código?", "Is this code right?"),
        get("/api/v1/audit", audit_, list_audit)
            .says("La auditoría de la empresa", "The company's audit trail"),
        get("/api/v1/audit/checkpoints", audit_, list_checkpoints).says(
            "Los puntos de control firmados de la auditoría",
            "The signed checkpoints of the audit trail",
        ),
        get("/api/v1/operations/{id}/receipt", audit_, show_receipt)
            .says(
                "El comprobante de una operación ejecutada",
                "The receipt of an executed operation",
            )
            .may(&[StateConflict]),
        get("/api/v1/events", audit_, events)
            .says(
                "La auditoría mientras crece (eventos; Last-Event-ID)",
                "The audit trail as it grows (events; Last-Event-ID)",
            )
            .waiting(),
        get("/api/v1/users", users, list_users)
            .says("Las personas de la empresa", "The company's people"),
        post("/api/v1/users", users, create_user).says("Inscribir a una persona", "Add a person"),
        get("/api/v1/users/{id}", users, show_user).says("Una persona", "One person"),
        patch("/api/v1/users/{id}", users, change_user)
            .says("Cambiar o inactivar a una persona", "Change or deactivate a person")
            .may(&[StateConflict]),
        post("/api/v1/users/{id}/activation", deliver, phone_activation)
            .says("El código para vincular un teléfono, una vez", "The code to bind a phone, once")
            .may(&[StateConflict]),
        post("/api/v1/users/{id}/recover", users, recover)
            .says(
                "Pedir que una persona sin teléfono pueda vincular otro",
                "Ask that a person without a phone may bind one",
            )
            .may(&[StateConflict, SelfApproval]),
        get("/api/v1/devices", users, list_devices).says("Los teléfonos", "The phones"),
        delete("/api/v1/devices/{id}", block_, revoke_device)
            .says("Revocar un teléfono", "Revoke a phone")
            .may(&[StateConflict]),
        get("/api/v1/policies", policies, show_policy)
            .says("La política de la empresa", "The company's policy"),
        put("/api/v1/policies", policies, set_policy).says("Fijar la política", "Set the policy"),
        get("/api/v1/companies", companies, list_companies).says("Las empresas", "The companies"),
        post("/api/v1/companies", companies, create_company)
            .says("Inscribir una empresa", "Add a company"),
        get("/api/v1/companies/{id}", companies, show_company).says("Una empresa", "One company"),
        patch("/api/v1/companies/{id}", companies, change_company)
            .says("Activar o inactivar una empresa", "Activate or deactivate a company")
            .may(&[StateConflict]),
        post("/api/v1/companies/{id}/administrators", companies, create_administrator)
            .says("Inscribir a un administrador", "Add an administrator"),
        get("/api/v1/companies/{id}/clients", companies, list_clients)
            .says("Los programas de una empresa", "A company's programs"),
        post("/api/v1/companies/{id}/clients", companies, create_client).says(
            "Credenciales para un programa: un secreto, o sus llaves",
            "Credentials for a program: a secret, or its keys",
        ),
        delete("/api/v1/companies/{id}/clients/{client}", companies, end_client)
            .says("Terminar las credenciales de un programa", "End a program's credentials"),
        post("/api/v1/companies/{id}/users/{user}/recover", companies, recover_for_company)
            .says(
                "Pedir la recuperación de quien no tiene quién la apruebe",
                "Ask for the recovery of somebody whom nobody else can help",
            )
            .may(&[StateConflict, SelfApproval]),
        get("/api/v1/stock", stock_, list_tokens)
            .says("El inventario del banco", "The bank's stock"),
        // A large file takes longer than anything else.
        post("/api/v1/stock/import", stock_, import)
            .says(
                "Importar un archivo de tokens (PSKC o CSV), completo o nada",
                "Import a file of tokens (PSKC or CSV), all of it or nothing",
            )
            .waiting(),
        post("/api/v1/stock/export", stock_, export)
            .says(
                "Exportar tokens del inventario (PSKC), cifrados",
                "Export tokens of the stock (PSKC), encrypted",
            )
            .may(&[StateConflict])
            .waiting(),
        post("/api/v1/stock/issue", stock_, issue)
            .says("Emitir tokens al inventario", "Issue tokens into the stock")
            .may(&[StateConflict]),
        post("/api/v1/stock/allot", stock_, allot)
            .says("Destinar tokens a una empresa", "Allot tokens to a company")
            .may(&[StateConflict]),
        post("/api/v1/stock/withdraw", stock_, withdraw)
            .says("Devolver tokens al inventario", "Take tokens back into the stock")
            .may(&[StateConflict]),
        post("/api/v1/stock/retire", stock_, retire)
            .says("Retirar tokens para siempre", "Retire tokens for good")
            .may(&[StateConflict]),
    ]
}

type Here = State<Arc<Edge>>;

/// In whose name, where that is all a request says.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Asked {
    asker: Option<UserId>,
}

/// In whose name, and why.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Because{C}")]
struct Caused<C> {
    cause: C,
    asker: Option<UserId>,
}

/// Nothing at all.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Empty {}

/// Does what `plan` plans, for a program in its own name.
async fn act_alone<T, P, F>(
    edge: &Edge,
    key: Option<HeldKey>,
    caller: Caller,
    plan: P,
) -> Answered<T>
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
) -> Answered<T>
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
) -> Answered<Page<TokenView>> {
    shown(tokens::list(&edge.app, &caller, &listing).await)
}

async fn show_token(State(edge): Here, caller: Caller, Id(id): Id<TokenId>) -> Answered<TokenView> {
    shown(tokens::show(&edge.app, &caller, id).await)
}

async fn generations(
    State(edge): Here,
    caller: Caller,
    Id(id): Id<TokenId>,
) -> Answered<Page<GenerationView>> {
    shown(tokens::generations(&edge.app, &caller, id).await)
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
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
) -> Answered<EnrollmentOpened> {
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
) -> Answered<EnrollmentOpened> {
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
) -> Answered<TokenView> {
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
) -> Answered<OperationAsked> {
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
) -> Answered<OperationAsked> {
    let (cause, change) = asked(change);
    ask(&edge, caller, id, Approvable::Release(cause), change).await
}

async fn unblock(
    State(edge): Here,
    caller: Caller,
    Id(id): Id<TokenId>,
    change: Change<Asked>,
) -> Answered<OperationAsked> {
    ask(&edge, caller, id, Approvable::Unblock, change).await
}

async fn rotate(
    State(edge): Here,
    caller: Caller,
    Id(id): Id<TokenId>,
    change: Change<Caused<RotateCause>>,
) -> Answered<OperationAsked> {
    let (cause, change) = asked(change);
    ask(&edge, caller, id, Approvable::Rotate(cause), change).await
}

async fn show_enrollment(
    State(edge): Here,
    caller: Caller,
    Id(id): Id<EnrollmentId>,
) -> Answered<EnrollmentView> {
    shown(enrollments::show(&edge.app, &caller, id).await)
}

async fn activation(
    State(edge): Here,
    caller: Caller,
    Id(id): Id<EnrollmentId>,
    change: Change<Empty>,
) -> Answered<ActivationView> {
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
) -> Answered<OtpauthView> {
    act_alone(&edge, change.key, caller, move |app, caller| async move {
        enrollments::otpauth(&app, &caller, id).await
    })
    .await
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ConfirmByProgram")]
struct Confirm {
    code: SecretText,
    /// The code after it, of a token whose clock or counter went its own way.
    next_code: Option<SecretText>,
}

async fn confirm(
    State(edge): Here,
    caller: Caller,
    Id(id): Id<EnrollmentId>,
    change: Change<Confirm>,
) -> Answered<wire::Confirmed> {
    let sent = Sent::read(&change.body.code, change.body.next_code.as_ref());
    let (app, by) = (Arc::clone(&edge.app), Confirming::Program(Box::new(caller)));
    shown(to_the_end(async move { enrollments::confirm(&app, by, id, sent).await }).await)
}

async fn show_operation(
    State(edge): Here,
    caller: Caller,
    Id(id): Id<OperationId>,
    Query(wait): Query<Wait>,
) -> Answered<OperationView> {
    shown(approvals::wait(&edge.app, &caller, id, wait.patience()?).await)
}

async fn cancel_operation(
    State(edge): Here,
    caller: Caller,
    Id(id): Id<OperationId>,
    Query(asked): Query<Asked>,
) -> Answered<OperationView> {
    act_for(&edge, None, caller, asked.asker, move |app, acting| async move {
        approvals::cancel(&app, &acting, id).await
    })
    .await
}

async fn verify_code(
    State(edge): Here,
    caller: Caller,
    super::body::Json(request): super::body::Json<VerifyRequest>,
) -> Answered<VerifyView> {
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

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Resync {
    codes: [SecretText; 2],
}

async fn resync(
    State(edge): Here,
    caller: Caller,
    Id(id): Id<TokenId>,
    change: Change<Resync>,
) -> Answered<VerifyView> {
    edge.programs.take_failure(&caller)?;
    let app = Arc::clone(&edge.app);
    let work = {
        let caller = caller.clone();
        async move { resynchronize(&app, &caller, id, change.body.codes).await }
    };
    let checked = to_the_end(work).await;
    if checked.as_ref().is_ok_and(|checked| checked.accepted) {
        edge.programs.give_failure_back(&caller);
    }
    shown(checked)
}

async fn list_audit(
    State(edge): Here,
    caller: Caller,
    Query(listing): Query<TrailListing>,
) -> Answered<Page<RecordView>> {
    shown(trail::list(&edge.app, &caller, &listing).await)
}

async fn list_checkpoints(
    State(edge): Here,
    caller: Caller,
    Query(listing): Query<CheckpointListing>,
) -> Answered<Page<CheckpointView>> {
    shown(checkpoints::list(&edge.app, &caller, &listing).await)
}

async fn show_receipt(
    State(edge): Here,
    caller: Caller,
    Id(id): Id<OperationId>,
) -> Answered<Receipt> {
    shown(checkpoints::receipt(&edge.app, &caller, id).await)
}

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Where a client that comes back was (`Last-Event-ID`).
struct LastEventId(Option<u64>);

impl<S: Sync> FromRequestParts<S> for LastEventId {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let id = single(&parts.headers, &LAST_EVENT_ID)?.map(str::parse).transpose();
        let wrong = "is no id of an event of this stream";
        Ok(Self(id.map_err(|_| Problem::field(LAST_EVENT_ID.as_str(), wrong))?))
    }
}

impl Part for LastEventId {
    fn describe(about: &mut About) {
        let schema =
            json!({ "type": "integer", "minimum": 0, "maximum": u64::MAX, "examples": [42] });
        let says = "The id of the last event that was seen: the stream goes on behind it.";
        about.parameter("header", "Last-Event-ID", false, schema, says);
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct After {
    after: Option<u64>,
}

/// The company's audit trail as it grows. Goes on behind `Last-Event-ID`, or behind `after`, or at
/// its end.
async fn events(
    State(edge): Here,
    caller: Caller,
    LastEventId(last): LastEventId,
    Query(After { after }): Query<After>,
) -> Result<Text<Events>, ApiError> {
    let company = caller.company.id;
    let place = match (last, after) {
        // A client that comes back repeats its first address: where it was counts more.
        (Some(id), _) => id,
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

async fn list_users(
    State(edge): Here,
    caller: Caller,
    Query(listing): Query<Listing>,
) -> Answered<Page<UserView>> {
    shown(people::list_users(&edge.app, &caller, &listing).await)
}

async fn create_user(
    State(edge): Here,
    caller: Caller,
    change: Change<NewUser>,
) -> Answered<UserCreated> {
    let Change { body, key, .. } = change;
    act_alone(&edge, key, caller, move |app, caller| {
        let body = body.clone();
        async move { people::create_user(&app, &caller, &body).await }
    })
    .await
}

async fn show_user(State(edge): Here, caller: Caller, Id(id): Id<UserId>) -> Answered<UserView> {
    shown(people::show_user(&edge.app, &caller, id).await)
}

async fn change_user(
    State(edge): Here,
    caller: Caller,
    Id(id): Id<UserId>,
    change: Change<UserChange>,
) -> Answered<UserView> {
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
) -> Answered<ActivationView> {
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
) -> Answered<OperationAsked> {
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
) -> Answered<OperationAsked> {
    act_for(&edge, change.key, caller, change.body.asker, move |app, acting| async move {
        devices::recover(&app, &acting, company, id).await
    })
    .await
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct OfUser {
    user: Option<UserId>,
}

async fn list_devices(
    State(edge): Here,
    caller: Caller,
    Query(of): Query<OfUser>,
) -> Answered<Page<DeviceView>> {
    shown(devices::list(&edge.app, &caller, of.user).await)
}

async fn revoke_device(
    State(edge): Here,
    caller: Caller,
    Id(id): Id<DeviceId>,
    Query(asked): Query<Asked>,
) -> Answered<Nothing> {
    act_for(&edge, None, caller, asked.asker, move |app, acting| async move {
        devices::revoke(&app, &acting, id).await
    })
    .await
}

async fn show_policy(State(edge): Here, caller: Caller) -> Answered<PolicyView> {
    shown(people::show_policy(&edge.app, &caller).await)
}

async fn set_policy(
    State(edge): Here,
    caller: Caller,
    change: Change<Policy>,
) -> Answered<PolicyView> {
    let Change { body, if_match, key } = change;
    act_alone(&edge, key, caller, move |app, caller| async move {
        people::set_policy(&app, &caller, &body, if_match).await
    })
    .await
}

async fn list_companies(
    State(edge): Here,
    Query(listing): Query<Listing>,
) -> Answered<Page<CompanyView>> {
    shown(people::list_companies(&edge.app, &listing).await)
}

async fn create_company(
    State(edge): Here,
    caller: Caller,
    change: Change<NewCompany>,
) -> Answered<CompanyCreated> {
    let Change { body, key, .. } = change;
    act_alone(&edge, key, caller, move |app, caller| {
        let body = body.clone();
        async move { people::create_company(&app, &caller, &body).await }
    })
    .await
}

async fn show_company(State(edge): Here, Id(id): Id<CompanyId>) -> Answered<CompanyView> {
    shown(people::show_company(&edge.app, id).await)
}

async fn change_company(
    State(edge): Here,
    caller: Caller,
    Id(id): Id<CompanyId>,
    change: Change<CompanyChange>,
) -> Answered<CompanyView> {
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
) -> Answered<UserCreated> {
    let Change { body, key, .. } = change;
    act_alone(&edge, key, caller, move |app, caller| {
        let body = body.clone();
        async move { people::create_administrator(&app, &caller, id, &body).await }
    })
    .await
}

async fn list_clients(State(edge): Here, Id(id): Id<CompanyId>) -> Answered<Page<ClientView>> {
    shown(people::list_clients(&edge.app, id).await)
}

async fn create_client(
    State(edge): Here,
    caller: Caller,
    Id(id): Id<CompanyId>,
    change: Change<NewClient>,
) -> Answered<ClientCreated> {
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
) -> Answered<Nothing> {
    act_alone(&edge, None, caller, move |app, caller| async move {
        people::end_client(&app, &caller, company, id).await
    })
    .await
}

/// Tokens that enter the stock.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Issue {
    first: Serial,
    #[schemars(range(min = 1, max = 100))]
    count: u32,
    kind: Option<Kind>,
}

async fn issue(
    State(edge): Here,
    caller: Caller,
    change: Change<Issue>,
) -> Answered<TokensChanged> {
    let Change { body: Issue { first, count, kind }, key, .. } = change;
    let run = SerialRun { first, count };
    act_alone(&edge, key, caller, move |app, caller| {
        let run = run.clone();
        async move { tokens::issue(&app, &caller, &run, kind.unwrap_or(Kind::Virtual)).await }
    })
    .await
}

/// Tokens that go to a company.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Allot {
    first: Serial,
    #[schemars(range(min = 1, max = 100))]
    count: u32,
    company: CompanyId,
}

async fn allot(
    State(edge): Here,
    caller: Caller,
    change: Change<Allot>,
) -> Answered<TokensChanged> {
    let Change { body: Allot { first, count, company }, key, .. } = change;
    move_tokens(&edge, key, caller, SerialRun { first, count }, Move::Allot(company)).await
}

async fn withdraw(
    State(edge): Here,
    caller: Caller,
    change: Change<SerialRun>,
) -> Answered<TokensChanged> {
    move_tokens(&edge, change.key, caller, change.body, Move::Withdraw).await
}

async fn retire(
    State(edge): Here,
    caller: Caller,
    change: Change<SerialRun>,
) -> Answered<TokensChanged> {
    move_tokens(&edge, change.key, caller, change.body, Move::Retire).await
}

async fn move_tokens(
    edge: &Edge,
    key: Option<HeldKey>,
    caller: Caller,
    run: SerialRun,
    to: Move,
) -> Answered<TokensChanged> {
    act_alone(edge, key, caller, move |app, caller| {
        let run = run.clone();
        async move { tokens::move_tokens(&app, &caller, &run, to).await }
    })
    .await
}

/// Reads the file before anything else is done: what does not read needs no key.
async fn import(
    State(edge): Here,
    caller: Caller,
    change: Change<ImportRequest, FILE_BYTES_MAX>,
) -> Answered<ImportReport> {
    let Change { body, key, .. } = change;
    let asker = body.asker;
    let reading = Arc::new(stock::read(body).await?);
    act_for(&edge, key, caller, asker, move |app, acting| {
        let reading = Arc::clone(&reading);
        async move { stock::import(&app, &acting, &reading).await }
    })
    .await
}

async fn export(
    State(edge): Here,
    caller: Caller,
    change: Change<ExportRequest, FILE_BYTES_MAX>,
) -> Answered<ExportView> {
    let Change { body, key, .. } = change;
    let (asker, request) = (body.asker, Arc::new(body));
    act_for(&edge, key, caller, asker, move |app, acting| {
        let request = Arc::clone(&request);
        async move { stock::export(&app, &acting, &request).await }
    })
    .await
}
