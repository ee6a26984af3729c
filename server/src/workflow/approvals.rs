//! Operations that a phone has to agree to: asking, the phone's answer, and every other end. The
//! answer, the operation's execution and its record are one transaction.

use std::sync::Arc;
use std::time::Duration;

use semilla_core::approval::{
    Answering, Approvable, Operation, OperationState, Outcome, SentRequest, TokenAt, Unanswerable,
};
use semilla_core::audit::{Actor, Subject};
use semilla_core::device::Device;
use semilla_core::id::{CompanyId, DeviceId, EnrollmentId, OperationId, TokenId, UserId};
use semilla_core::language::{Label, Language};
use semilla_core::operations::{BlockCause, Phone as WhosePhone, State};
use semilla_core::person::{Binding, Company, Role, User};
use semilla_core::policy::Authorizer;
use semilla_core::problem::{Problem, ProblemType};
use semilla_core::protocol::approval::{
    Action as SignedAction, ApprovalRequest, DenialReason, Display, MatchNumber,
    Operation as SignedOperation, TokenRef,
};
use semilla_core::protocol::bytes::Nonce;
use semilla_core::protocol::consent::Consent;
use semilla_core::protocol::messages::{self, Version};
use semilla_core::protocol::wire;
use semilla_core::seal::Purpose;
use semilla_core::token::{Kind, Token};

use super::caller::{Acting, Caller, Phone};
use super::effects::{self, apply, end_operation, settle_token};
use super::tokens::{problem_of, require_version, token_of};
use super::unit::Unit;
use super::views::{OperationAsked, OperationView};
use super::{Failure, Plan, View, act};
use crate::app::App;
use crate::records::{InboxItem, StoredToken};
use crate::store::{Query, Record, Records, Scope, StoreError, Topic, Versioned};

/// How many phones one request goes to.
const PHONES_MAX: usize = 10;

/// How long an answered item stays known to the phone, beyond its time to answer.
const INBOX_SECONDS: u64 = 3600;

/// *release*, *unblock*, *rotate* of a token, asked by an administrator: the phone that has to
/// agree is asked.
pub async fn ask(
    app: &App,
    acting: &Acting,
    id: TokenId,
    action: Approvable,
    if_match: Option<i64>,
) -> Result<Plan<OperationAsked>, Failure> {
    let mut unit = Unit::new(app);
    let company = acting.caller.company.clone();
    let mut stored = token_of(&mut unit, company.id, id).await?;
    require_version(&stored, if_match)?;
    if let Some(pending) = stored.record.token.pending {
        let operation = unit.must::<Operation>(company.id, &pending.to_string()).await?.record;
        if operation.is_overdue(unit.now) {
            expire_in(&mut unit, &operation).await?;
            stored = token_of(&mut unit, company.id, id).await?;
        } else if operation.action == action && operation.asker == acting.asker.id {
            // Asked again: one request, one number, one push (security 65).
            let number = number_of(app, &operation)?;
            return Ok(unit.plan(OperationAsked(OperationView::of(&operation, Some(&number)))));
        }
    }
    let operation_id = OperationId::new(unit.now, app.entropy.as_ref());
    let changed = stored
        .record
        .token
        .clone()
        .ask(action, operation_id)
        .map_err(|refused| problem_of(refused, Some(&stored.record)))?;
    let token = changed.token;
    // The table says that these states have a holder.
    let Some(holder) = token.holder() else { return Err(Problem::not_found().into()) };
    let asked =
        StoredToken { token, updated: unit.now, holder_name: stored.record.holder_name.clone() };
    unit.save(&asked);
    let whose = action.on_token().map_or(WhosePhone::None, |action| action.operation().phone);
    let approvers = approvers(&mut unit, &company, &acting.asker, whose, &asked.token).await?;
    let token_at = TokenAt { id, version: unit.version_after(&asked) };
    let token = Some((&asked.token, token_at));
    let subject = AskedAbout { token, holder, new_device: None, consent: None };
    let view =
        send(&mut unit, operation_id, &company, action, &acting.asker, subject, approvers).await?;
    Ok(unit.plan(OperationAsked(view)))
}

/// What an operation is about.
pub struct AskedAbout<'t> {
    /// The token, where it is about one.
    pub token: Option<(&'t Token, TokenAt)>,
    /// Whose token or phone.
    pub holder: UserId,
    /// The phone that waits.
    pub new_device: Option<DeviceId>,
    /// What a relying party asks, and how long it waits for an answer.
    pub consent: Option<(Consent, Duration)>,
}

/// The phones that are asked.
pub struct Approvers {
    phones: Vec<Device>,
    four_eyes: bool,
}

impl Approvers {
    /// These phones, whoever asks.
    pub fn of(phones: Vec<Device>) -> Self {
        Self { phones, four_eyes: false }
    }

    /// These phones, none of which is the asker's.
    pub fn others(phones: Vec<Device>) -> Self {
        Self { phones, four_eyes: true }
    }
}

async fn approvers(
    unit: &mut Unit<'_>,
    company: &Company,
    asker: &User,
    whose: WhosePhone,
    token: &Token,
) -> Result<Approvers, Failure> {
    match whose {
        WhosePhone::Holder => {
            let holder = token.holder().unwrap_or(asker.id);
            let mut phones = trusted_phones(unit, company.id, holder).await?;
            if let Some(current) = token.live().and_then(|live| live.custody.device()) {
                phones.retain(|phone| phone.id == current);
            }
            Ok(Approvers::of(phones))
        }
        _ if company.policy.authorizer == Authorizer::OwnPhone => {
            Ok(Approvers::of(trusted_phones(unit, company.id, asker.id).await?))
        }
        _ => Ok(Approvers::others(other_administrators_phones(unit, company.id, asker.id).await?)),
    }
}

/// A person's phones that may answer.
pub async fn trusted_phones(
    unit: &mut Unit<'_>,
    company: CompanyId,
    user: UserId,
) -> Result<Vec<Device>, Failure> {
    let devices = effects::devices_of(unit, company, user).await?;
    Ok(devices.into_iter().map(|device| device.record).filter(crate::records::is_trusted).collect())
}

/// The phones of the other administrators or, where there is none, of the bank's operators: losing
/// the second administrator falls to the operator, never to silence.
pub async fn other_administrators_phones(
    unit: &mut Unit<'_>,
    company: CompanyId,
    but: UserId,
) -> Result<Vec<Device>, Failure> {
    for (company, role) in [(company, Role::Administrator), (CompanyId::BANK, Role::Operator)] {
        let people = Query::of(User::TABLE, company, 100)
            .equals("role", role.name())
            .equals("state", "active");
        let mut phones = Vec::new();
        for person in unit.app.store.find::<User>(&people).await? {
            if person.record.id != but {
                phones.extend(trusted_phones(unit, company, person.record.id).await?);
            }
        }
        if !phones.is_empty() {
            return Ok(phones);
        }
    }
    Ok(Vec::new())
}

/// Writes the request to every phone that is asked and shows the number to the asker.
pub async fn send(
    unit: &mut Unit<'_>,
    id: OperationId,
    company: &Company,
    action: Approvable,
    asker: &User,
    about: AskedAbout<'_>,
    approvers: Approvers,
) -> Result<OperationView, Failure> {
    let app = unit.app;
    let Approvers { mut phones, four_eyes } = approvers;
    phones.truncate(PHONES_MAX);
    if phones.is_empty() {
        return Err(nobody_can_approve(action, four_eyes).into());
    }
    let holder = unit.must::<User>(company.id, &about.holder.to_string()).await?.record;
    let number = MatchNumber::generate(app.entropy.as_ref());
    let (consent, patience) = about.consent.unzip();
    let expires = unit.now.plus(patience.unwrap_or_else(|| company.policy.approval()));
    let display = match &consent {
        Some(consent) => display_of_consent(consent, company, &holder),
        None => display(action, company, asker, &holder, about.token.map(|(token, _)| token)),
    };
    let state_version = about.token.map_or(0, |(_, at)| at.version);
    let signed = SignedOperation {
        action: match &consent {
            Some(consent) => SignedAction::Consent(consent.clone()),
            None => signed_action(action, about.token.map(|(token, _)| token)),
        },
        holder: holder.id,
        company: company.id,
        asker: asker.id,
        state_version: u64::try_from(state_version).unwrap_or(0),
    };
    let mut requests = Vec::new();
    for phone in &phones {
        let request = ApprovalRequest {
            v: Version,
            iss: app.issuer.clone(),
            aud: phone.id.to_string(),
            jti: Nonce::generate(app.entropy.as_ref()),
            iat: unit.now,
            exp: expires,
            nonce: Nonce::generate(app.entropy.as_ref()),
            txn: id,
            operation: signed.clone(),
            display: display.clone(),
        };
        let text = messages::sign(&request, &app.keys.signing, &app.random);
        requests.push(SentRequest { device: phone.id, user: phone.user, text });
        unit.save(&InboxItem {
            company: phone.company,
            device: phone.id,
            operation: id,
            of: company.id,
            open: true,
            expires: expires.plus(Duration::from_secs(INBOX_SECONDS)),
        });
        unit.wake(Topic::Device(phone.id.to_string()));
    }
    let id_text = id.to_string();
    let purpose = number_purpose(company.id, &id_text);
    let operation = Operation {
        id,
        company: company.id,
        action,
        token: about.token.map(|(_, at)| at),
        holder: holder.id,
        new_device: about.new_device,
        consent,
        asker: asker.id,
        four_eyes,
        requests,
        number: app.keyring.seal(number.expose().as_bytes(), &purpose, app.entropy.as_ref()),
        state: OperationState::Pending,
        created: unit.now,
        expires,
    };
    unit.save(&operation);
    if asker.company != company.id {
        effects::reserve(unit, Scope::Operation, id_text.clone(), company.id, id_text.clone());
    }
    let subject = Subject {
        token: operation.token.map(|token| token.id),
        user: Some(holder.id),
        operation: Some(id),
        client: operation.consent.as_ref().map(|consent| consent.client),
        ..Subject::default()
    };
    let mut draft = unit
        .draft(company.id, "operation.requested", Actor::System)
        .about(subject)
        .with("action", action.name())
        .with("asker", asker.id)
        .with("phones", operation.requests.len());
    if let Some(cause) = action.cause() {
        draft = draft.with("cause", cause.name());
    }
    unit.record(draft);
    Ok(OperationView::of(&operation, Some(&number)))
}

fn nobody_can_approve(action: Approvable, four_eyes: bool) -> Problem {
    let (detail, who) = match action {
        Approvable::Rotate(_) => (
            "The holder has no phone that could agree. Release the token and assign it again.",
            "administrator",
        ),
        _ if four_eyes => {
            ("Nobody else has a phone that could agree. Ask the bank's operator.", "operator")
        }
        _ => ("You have no bound phone that could agree. Bind one first.", "administrator"),
    };
    let mut problem = Problem::new(ProblemType::StateConflict, detail);
    problem.who_can_act = Some(who.to_owned());
    problem
}

fn signed_action(action: Approvable, token: Option<&Token>) -> SignedAction {
    let cause = action.cause().map(|cause| cause.name().to_owned()).unwrap_or_default();
    let token = token.map(|token| TokenRef {
        token: token.id,
        serial: token.serial.to_string(),
        generation: token.live().map_or(0, |live| live.generation),
    });
    match (action, token) {
        (Approvable::Release(_), Some(token)) => SignedAction::Release { token, cause },
        (Approvable::Rotate(_), Some(token)) => SignedAction::Rotate { token, cause },
        (Approvable::Unblock, Some(token)) => SignedAction::Unblock { token },
        (Approvable::Recover, _) => SignedAction::Recover,
        // What is on a token has one; what is left is another phone.
        _ => SignedAction::BindPhone,
    }
}

/// What the phone shows, in the phone's language (Spanish, until phones say which).
fn display(
    action: Approvable,
    company: &Company,
    asker: &User,
    holder: &User,
    token: Option<&Token>,
) -> Display {
    let language = Language::Spanish;
    let text = |label: Label| label.text(language);
    let is_virtual = token.is_none_or(|token| token.kind == Kind::Virtual);
    let title = match action {
        Approvable::Release(_) if !is_virtual => Label("Liberar token", "Release token"),
        Approvable::Unblock if !is_virtual => Label("Desbloquear token", "Unblock token"),
        Approvable::Release(_) => Label("Liberar token virtual", "Release virtual token"),
        Approvable::Unblock => Label("Desbloquear token virtual", "Unblock virtual token"),
        Approvable::Rotate(_) => Label("Renovar semilla", "Rotate seed"),
        Approvable::BindPhone => Label("Vincular otro teléfono", "Bind another phone"),
        Approvable::Recover => Label("Recuperar acceso sin teléfono", "Recover without a phone"),
        Approvable::Consent => CONSENT_TITLE,
    };
    let consequence = match action {
        Approvable::Release(_) if token.is_some_and(|token| token.kind == Kind::Physical) => Label(
            "Sus códigos dejan de valer y el token vuelve a la empresa: pídalo a su usuario.",
            "Its codes are no longer valid and the token returns to the company: ask its user for it.",
        ),
        Approvable::Release(_) => Label(
            "La semilla se destruye y el token vuelve a la empresa.",
            "The seed is destroyed and the token returns to the company.",
        ),
        Approvable::Unblock => {
            Label("La misma semilla vuelve a funcionar.", "The same seed works again.")
        }
        Approvable::Rotate(_) => Label(
            "Se crea una semilla nueva; la actual muere al probarla.",
            "A new seed is made; the present one dies once it is proven.",
        ),
        Approvable::BindPhone => Label(
            "El teléfono nuevo podrá autorizar en su nombre.",
            "The new phone will be able to authorize in your name.",
        ),
        Approvable::Recover => Label(
            "Se revocan los teléfonos de esta persona, que vinculará uno nuevo.",
            "This person's phones are revoked, and a new one can be bound.",
        ),
        Approvable::Consent => CONSENT_CONSEQUENCE,
    };
    let mut lines = vec![
        format!("{}: {}", text(Label("Empresa", "Company")), company.name),
        format!("{}: {}", text(Label("Solicita", "Asked by")), asker.name),
        format!("{}: {}", text(Label("Nombre de Usuario", "User name")), holder.name),
    ];
    if let Some(token) = token {
        lines.push(format!(
            "{}: {}",
            text(Label("Número de Serie", "Serial number")),
            token.serial
        ));
        lines.push(format!(
            "{}: {}",
            text(Label("Estado actual", "Current state")),
            token.state().label(language)
        ));
    }
    if let Some(cause) = action.cause() {
        lines.push(format!("{}: {}", text(Label("Causal", "Cause")), cause.label(language)));
    }
    lines.push(text(consequence).to_owned());
    Display { locale: language.tag().to_owned(), title: text(title).to_owned(), lines }
}

const CONSENT_TITLE: Label = Label("Autorizar a un servicio", "Approve for a service");

const CONSENT_CONSEQUENCE: Label = Label(
    "El servicio recibe su autorización. Ningún token cambia.",
    "The service is given your approval. No token changes.",
);

/// What the phone shows of what a relying party asks: all of it, in the lines that are its facts
/// as well, so that what is shown is what is signed (RFC 9396 section 3, security 129).
fn display_of_consent(consent: &Consent, company: &Company, holder: &User) -> Display {
    let language = Language::Spanish;
    let text = |label: Label| label.text(language);
    let mut lines = vec![
        format!("{}: {}", text(Label("Empresa", "Company")), company.name),
        format!("{}: {}", text(Label("Nombre de Usuario", "User name")), holder.name),
    ];
    let facts = consent.facts(language).into_iter();
    lines.extend(facts.map(|(name, fact)| format!("{name}: {fact}")));
    lines.push(text(CONSENT_CONSEQUENCE).to_owned());
    Display { locale: language.tag().to_owned(), title: text(CONSENT_TITLE).to_owned(), lines }
}

fn number_purpose(company: CompanyId, operation: &str) -> Purpose<'_> {
    Purpose::Other { kind: "match-number", company, id: operation }
}

/// The number that is shown to the asker of an operation.
pub fn number_of(app: &App, operation: &Operation) -> Result<MatchNumber, Failure> {
    let id = operation.id.to_string();
    let inconsistent =
        |what: String| StoreError::Inconsistent { table: Operation::TABLE.name, what };
    let opened = app
        .keyring
        .open(&operation.number, &number_purpose(operation.company, &id))
        .map_err(|error| inconsistent(error.to_string()))?;
    let text = std::str::from_utf8(&opened).map_err(|error| inconsistent(error.to_string()))?;
    MatchNumber::parse(text).map_err(|error| inconsistent(error.to_string()).into())
}

/// Whose company's an operation is that this program asks about: its own or, where an operator
/// asked for it, the one it was asked in.
async fn owner_of(app: &App, caller: &Caller, id: OperationId) -> Result<CompanyId, Failure> {
    if caller.company.id == CompanyId::BANK
        && let Some((company, _)) = app.store.lookup(Scope::Operation, &id.to_string()).await?
    {
        return Ok(company);
    }
    Ok(caller.company.id)
}

/// Shows an operation to the company's programs.
pub async fn show(app: &App, caller: &Caller, id: OperationId) -> Result<OperationView, Failure> {
    let company = owner_of(app, caller, id).await?;
    let operation = app.store.get::<Operation>(company, &id.to_string()).await?;
    let operation = operation.ok_or_else(Problem::not_found)?.record;
    let is_askers = caller.client.askers.contains(&operation.asker)
        && caller.scopes.contains(&crate::records::ApiScope::TokensRelease)
        // The number of a consent is for the program that asked, which was answered it.
        && operation.consent.is_none();
    let number = if is_askers { Some(number_of(app, &operation)?) } else { None };
    Ok(OperationView::of(&operation, number.as_ref()))
}

/// Shows an operation once it has an end, or when `patience` is over.
pub async fn wait(
    app: &Arc<App>,
    caller: &Caller,
    id: OperationId,
    patience: Duration,
) -> Result<OperationView, Failure> {
    let company = owner_of(app, caller, id).await?;
    let topic = Topic::Operation(id.to_string());
    let ended = || async {
        let operation = app.store.get::<Operation>(company, &id.to_string()).await?;
        let waits = operation.is_some_and(|operation| {
            operation.record.state == OperationState::Pending
                && !operation.record.is_overdue(app.now())
        });
        Ok((!waits).then_some(()))
    };
    app.wait_for(&topic, patience, ended).await?;
    if is_overdue(app, company, id).await? {
        act(app, None, move |app| async move { expire(&app, company, id).await }).await?;
    }
    show(app, caller, id).await
}

/// Whether an operation's time is over without anybody having noticed yet.
pub async fn is_overdue(app: &App, company: CompanyId, id: OperationId) -> Result<bool, Failure> {
    let operation = app.store.get::<Operation>(company, &id.to_string()).await?;
    Ok(operation.is_some_and(|operation| operation.record.is_overdue(app.now())))
}

/// Ends an operation that nobody answered in time. Does nothing to one that has an end.
pub async fn expire(
    app: &App,
    company: CompanyId,
    id: OperationId,
) -> Result<Plan<super::views::Nothing>, Failure> {
    let mut unit = Unit::new(app);
    if let Some(operation) = unit.get::<Operation>(company, &id.to_string()).await?
        && operation.record.is_overdue(unit.now)
    {
        expire_in(&mut unit, &operation.record).await?;
    }
    Ok(unit.plan(super::views::Nothing {}))
}

pub(super) async fn expire_in(unit: &mut Unit<'_>, operation: &Operation) -> Result<(), Failure> {
    settle_token(unit, operation).await?;
    let at = unit.now;
    end_operation(
        unit,
        operation.company,
        operation.id,
        OperationState::Expired { at },
        Actor::System,
    )
    .await
}

/// Takes back an operation that waits: its asker alone does.
pub async fn cancel(
    app: &App,
    acting: &Acting,
    id: OperationId,
) -> Result<Plan<OperationView>, Failure> {
    let mut unit = Unit::new(app);
    let company = owner_of(app, &acting.caller, id).await?;
    let operation = unit.get::<Operation>(company, &id.to_string()).await?;
    let operation = operation.ok_or_else(Problem::not_found)?.record;
    if operation.asker != acting.asker.id || operation.consent.is_some() {
        let detail = "Only the person who asked for it can take it back.";
        return Err(Problem::new(ProblemType::Forbidden, detail).into());
    }
    if operation.state != OperationState::Pending {
        return Err(already_decided(&operation).into());
    }
    settle_token(&mut unit, &operation).await?;
    let at = unit.now;
    end_operation(&mut unit, company, id, OperationState::Cancelled { at }, acting.actor()).await?;
    let cancelled = unit.must::<Operation>(company, &id.to_string()).await?.record;
    Ok(unit.plan(OperationView::of(&cancelled, None)))
}

fn already_decided(operation: &Operation) -> Problem {
    let mut problem = Problem::new(
        ProblemType::ApprovalAlreadyDecided,
        format!("This operation is {}: nothing more can be done about it.", operation.state.name()),
    );
    problem.state = Some(operation.state.name().to_owned());
    problem
}

/// What waits for an answer of this phone.
pub async fn inbox(app: &App, phone: &Phone) -> Result<wire::Approvals, Failure> {
    let device = phone.device.record.id;
    let query = Query::of(InboxItem::TABLE, phone.company.id, 100)
        .equals("device", device.to_string())
        .equals("state", "open");
    let mut approvals = Vec::new();
    for item in app.store.find::<InboxItem>(&query).await? {
        let id = item.record.operation;
        let operation = app.store.get::<Operation>(item.record.of, &id.to_string()).await?;
        let Some(operation) = operation.map(|operation| operation.record) else { continue };
        if operation.state == OperationState::Pending
            && app.now() < operation.expires
            && let Some(request) = operation.request_to(device)
        {
            approvals.push(wire::Approval { id, request: request.text.clone() });
        }
    }
    Ok(wire::Approvals { approvals })
}

impl View for wire::Answered {}

impl View for wire::Approvals {}

/// A phone's answer. What it leads to, the operation's end and the record of both are one
/// transaction (security 60).
pub async fn answer(
    app: &App,
    phone: &Phone,
    id: OperationId,
    text: &str,
) -> Result<Plan<wire::Answered>, Failure> {
    let mut unit = Unit::new(app);
    let mut device = super::devices::bound(&mut unit, phone).await?;
    let item = unit.get::<InboxItem>(phone.company.id, &InboxItem::id_of(device.id, id)).await?;
    let asked = item.is_some();
    let of = item.map_or(phone.company.id, |item| item.record.of);
    let operation = unit.get::<Operation>(of, &id.to_string()).await?.map(|found| found.record);
    // Whoever asked under four eyes is told why, and it is recorded; for everybody else who was
    // not asked there is nothing here.
    let operation = operation.filter(|operation| asked || operation.refuses_own(device.user));
    let Some(operation) = operation else { return Err(Problem::not_found().into()) };
    if let OperationState::Executed { response, .. } = &operation.state
        && response == text
    {
        // The reply was lost, and the phone asks again.
        return Ok(
            unit.plan(wire::Answered { operation: id, state: wire::OperationState::Executed })
        );
    }
    let number = number_of(app, &operation)?;
    let from = Answering { device: device.id, user: device.user, key: &device.key };
    let server = app.keys.signing.public();
    let answered = operation.answer(from, text, &number, &app.issuer, server, unit.now);
    let key = device.key.clone();
    let answered = match answered {
        Ok(answered) => answered,
        Err(refused) => return Err(refuse(unit, phone, &operation, refused).await?),
    };
    super::devices::count(&mut unit, &mut device, answered.counter, answered.signed).await?;
    let at = unit.now;
    let actor = phone.actor();
    let device = device.id;
    let (end, refusal) = match answered.outcome {
        Outcome::Approved(proof) => {
            match execute(&mut unit, &operation, proof, actor.clone()).await {
                Ok(()) => {
                    let response = text.to_owned();
                    (OperationState::Executed { device, at, key, response }, None)
                }
                Err(Failure::Refused(problem)) => {
                    settle_token(&mut unit, &operation).await?;
                    let name = problem.kind.name().to_owned();
                    (OperationState::Failed { device, at, problem: name }, Some(*problem))
                }
                Err(failure) => return Err(failure),
            }
        }
        Outcome::WrongNumber => {
            settle_token(&mut unit, &operation).await?;
            let problem = Problem::new(
                ProblemType::NumberMismatch,
                "The number is not the one shown to the person who asked. The operation is over; ask again.",
            );
            let name = problem.kind.name().to_owned();
            (OperationState::Failed { device, at, problem: name }, Some(problem))
        }
        Outcome::Denied(reason) => {
            settle_token(&mut unit, &operation).await?;
            if reason == DenialReason::SuspectedFraud {
                report_fraud(&mut unit, &operation, actor.clone()).await?;
            }
            (OperationState::Denied { device, reason, at }, None)
        }
    };
    let state = wire_state(&end);
    end_operation(&mut unit, operation.company, id, end, actor).await?;
    match refusal {
        Some(problem) => Err(unit.refuse(problem)),
        None => Ok(unit.plan(wire::Answered { operation: id, state })),
    }
}

fn wire_state(state: &OperationState) -> wire::OperationState {
    match state {
        OperationState::Pending => wire::OperationState::Pending,
        OperationState::Denied { .. } => wire::OperationState::Denied,
        OperationState::Expired { .. } => wire::OperationState::Expired,
        OperationState::Cancelled { .. } => wire::OperationState::Cancelled,
        OperationState::Executed { .. } => wire::OperationState::Executed,
        OperationState::Failed { .. } => wire::OperationState::Failed,
    }
}

/// What a phone is told whose answer does not count, and what is kept of it.
async fn refuse(
    mut unit: Unit<'_>,
    phone: &Phone,
    operation: &Operation,
    refused: Unanswerable,
) -> Result<Failure, Failure> {
    let problem = match refused {
        Unanswerable::Decided => already_decided(operation),
        Unanswerable::Expired => {
            expire_in(&mut unit, operation).await?;
            Problem::new(
                ProblemType::ApprovalExpired,
                "The time to answer is over. It has to be asked again.",
            )
        }
        Unanswerable::NotAsked => return Ok(Problem::not_found().into()),
        Unanswerable::Own => Problem::new(
            ProblemType::SelfApproval,
            "The company wants four eyes: another administrator has to approve this.",
        ),
        Unanswerable::Message(error) => {
            Problem::new(ProblemType::SignatureInvalid, format!("Refused: {error}."))
        }
        Unanswerable::OtherRequest => Problem::new(
            ProblemType::RequestHashMismatch,
            "The answer is to another text than the one this phone was sent. Fetch the request again.",
        ),
    };
    let subject = Subject {
        token: operation.token.map(|token| token.id),
        user: Some(phone.user.id),
        device: Some(phone.device.record.id),
        operation: Some(operation.id),
        ..Subject::default()
    };
    let draft =
        unit.draft(operation.company, "operation.answer_refused", phone.actor()).about(subject);
    unit.record(draft.with("problem", problem.kind.name()).with("reason", refused));
    Ok(unit.refuse(problem))
}

async fn execute(
    unit: &mut Unit<'_>,
    operation: &Operation,
    proof: semilla_core::approval::ApprovalVerified,
    actor: Actor,
) -> Result<(), Failure> {
    let company = operation.company;
    match (operation.action, operation.token) {
        (Approvable::BindPhone, _) => {
            let Some(device) = operation.new_device else {
                return Err(Problem::not_found().into());
            };
            super::devices::accept(unit, company, device, actor).await
        }
        (Approvable::Recover, _) => {
            let holder = operation.holder;
            for device in effects::devices_of(unit, company, holder).await? {
                let cause = BlockCause::DeviceLostOrStolen;
                effects::revoke_device(unit, company, device.record.id, cause, actor.clone())
                    .await?;
            }
            // The next phone is a first one again: an activation code is enough.
            let mut person = unit.must::<User>(company, &holder.to_string()).await?.record;
            person.binding = Binding::First;
            unit.save(&person);
            let subject =
                Subject { user: Some(holder), operation: Some(operation.id), ..Subject::default() };
            unit.record(unit.draft(company, "user.recovered", actor).about(subject));
            Ok(())
        }
        // The signature is all there is to it, and it is kept with the operation's end.
        (Approvable::Consent, _) => Ok(()),
        (action, Some(at)) => {
            let stored = unit.must::<StoredToken>(company, &at.id.to_string()).await?;
            execute_on_token(unit, &stored, action, proof, actor).await
        }
        (_, None) => Err(Problem::not_found().into()),
    }
}

async fn execute_on_token(
    unit: &mut Unit<'_>,
    stored: &Versioned<StoredToken>,
    action: Approvable,
    proof: semilla_core::approval::ApprovalVerified,
    actor: Actor,
) -> Result<(), Failure> {
    let token = stored.record.token.clone();
    let (version, now) = (stored.version, unit.now);
    let enrollment = EnrollmentId::new(now, unit.app.entropy.as_ref());
    let (changed, rotation) = match action {
        Approvable::Release(cause) => (token.release(proof, version, cause, now), None),
        Approvable::Unblock => (token.unblock(proof, version, enrollment, now), None),
        Approvable::Rotate(cause) => (token.rotate(proof, version, enrollment, now), Some(cause)),
        Approvable::BindPhone | Approvable::Recover | Approvable::Consent => {
            return Err(Problem::not_found().into());
        }
    };
    let changed = changed.map_err(|refused| problem_of(refused, Some(&stored.record)))?;
    apply(unit, stored, changed, actor, rotation).await?;
    Ok(())
}

/// "No fui yo": the token is blocked at once, a phone that was to be bound is revoked, and the
/// company's record says so.
async fn report_fraud(
    unit: &mut Unit<'_>,
    operation: &Operation,
    actor: Actor,
) -> Result<(), Failure> {
    let subject = Subject {
        token: operation.token.map(|token| token.id),
        user: Some(operation.holder),
        operation: Some(operation.id),
        ..Subject::default()
    };
    let draft = unit.draft(operation.company, "fraud.reported", actor.clone()).about(subject);
    unit.record(draft.with("asker", operation.asker));
    let Some(at) = operation.token else { return Ok(()) };
    let stored = unit.must::<StoredToken>(operation.company, &at.id.to_string()).await?;
    // A token that is blocked already stays blocked for the cause it has.
    if stored.record.token.state() != State::Blocked {
        let changed = stored
            .record
            .token
            .clone()
            .block(BlockCause::FraudReported, unit.now)
            .map_err(|refused| problem_of(refused, Some(&stored.record)))?;
        apply(unit, &stored, changed, actor, None).await?;
    }
    Ok(())
}
