//! What happens beside the change of a token, carried into the same unit of work: enrollments and
//! operations end, the verifier opens, closes or forgets, phones are revoked. One place, so that
//! no path to a state can leave something open behind it.

use semilla_core::approval::{Operation, OperationState};
use semilla_core::audit::{Actor, Subject};
use semilla_core::device::{Device, DeviceState};
use semilla_core::enrollment::{Enrollment, EnrollmentState};
use semilla_core::id::{CompanyId, DeviceId, EnrollmentId, OperationId, TokenId};
use semilla_core::operations::{Action, BlockCause, RotateCause, State};
use semilla_core::otp::Step;
use semilla_core::person::{Company, User};
use semilla_core::receipt;
use semilla_core::seal::{Purpose, SealError, Sealed};
use semilla_core::secret::Seed;
use semilla_core::token::{Changed, Custody, Effect, Live, Token, TokenState};

use super::Failure;
use super::unit::Unit;
use crate::app::App;
use crate::records::{DEVICE_STATES_HELD, Generation, InboxItem, OwnSeed, StoredToken};
use crate::store::{Query, Record, Scope, StoreError, Topic, VerifierChange, Versioned, Write};

/// The kind of audit record that an operation leaves.
pub fn audit_kind(action: Action) -> &'static str {
    match action {
        Action::Issue => "token.issued",
        Action::Allot => "token.allotted",
        Action::Withdraw => "token.withdrawn",
        Action::Assign => "token.assigned",
        Action::Enroll => "token.enrolled",
        Action::Rotate => "token.rotated",
        Action::Block => "token.blocked",
        Action::Unblock => "token.unblocked",
        Action::Release => "token.released",
        Action::Retire => "token.retired",
    }
}

/// Takes a token's change and all its effects into `unit`, with the record of it. Returns the
/// token as stored. `rotation` is why an enrollment that opens renews a live generation.
pub async fn apply(
    unit: &mut Unit<'_>,
    before: &Versioned<StoredToken>,
    changed: Changed,
    actor: Actor,
    rotation: Option<RotateCause>,
) -> Result<StoredToken, Failure> {
    let Changed { token, operation, effects } = changed;
    let from = before.record.token.state();
    let stored =
        StoredToken { holder_name: holder_name(unit, &token).await?, updated: unit.now, token };
    unit.save(&stored);
    let token = &stored.token;
    if operation.is_some() {
        unit.record(record_of(unit, token, before, from, actor.clone()));
    }
    for effect in effects {
        let company = token.company;
        match effect {
            Effect::EnrollmentOpens(id) => open_enrollment(unit, token, id, rotation).await?,
            Effect::EnrollmentCancelled(id) => {
                end_enrollment(unit, company, id, EnrollmentState::Cancelled).await?
            }
            Effect::OperationCancelled(id) => {
                let at = unit.now;
                end_operation(unit, company, id, OperationState::Cancelled { at }, Actor::System)
                    .await?;
            }
            // The caller, who has the seed, opens the verifier.
            Effect::SeedLive(_) => {}
            Effect::SeedClosed(_) => verifier(unit, token, VerifierChange::Close),
            Effect::SeedReopened(_) => verifier(unit, token, VerifierChange::Reopen),
            Effect::SeedDestroyed(number) => {
                verifier(unit, token, VerifierChange::Destroy);
                let id = Generation::id_of(token.id, number);
                let mut generation = unit.must::<Generation>(company, &id).await?.record;
                generation.destroyed = Some(unit.now);
                unit.save(&generation);
            }
            Effect::FailuresForgiven => verifier(unit, token, VerifierChange::Forgive),
            Effect::OwnSeedDestroyed => destroy_own_seed(unit, token).await?,
            Effect::DeviceRevoked(id) => {
                // With the cause that the token itself was blocked for.
                let TokenState::Blocked { cause, .. } = token.state else { continue };
                Box::pin(revoke_device(unit, company, id, cause, actor.clone())).await?;
            }
        }
    }
    Ok(stored)
}

/// What the code that proved a generation has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proved {
    /// Its step, which is consumed.
    pub step: Step,
    /// By how many steps the token's own clock is ahead.
    pub drift: i32,
}

/// Opens the verifier for a proven generation and keeps that it was.
pub fn go_live(
    unit: &mut Unit<'_>,
    token: &Token,
    live: Live,
    sealed: semilla_core::seal::Sealed,
    method: semilla_core::otp::Method,
    proved: Proved,
) {
    let Proved { step, drift } = proved;
    let generation = live.generation;
    let change = VerifierChange::Open { generation, sealed, method, proved_by: step.0, drift };
    verifier(unit, token, change);
    if let Some(holder) = token.holder() {
        let generation = Generation {
            company: token.company,
            token: token.id,
            number: live.generation,
            holder,
            custody: live.custody,
            live_since: unit.now,
            destroyed: None,
        };
        unit.save(&generation);
    }
}

fn verifier(unit: &mut Unit<'_>, token: &Token, change: VerifierChange) {
    unit.batch.writes.push(Write::Verifier(token.company, token.id, change));
}

fn record_of(
    unit: &Unit<'_>,
    token: &Token,
    before: &Versioned<StoredToken>,
    from: State,
    actor: Actor,
) -> semilla_core::audit::Draft {
    let holder = token.holder().or(before.record.token.holder());
    let device = token.live().or(before.record.token.live()).and_then(|live| live.custody.device());
    let operation = before.record.token.pending.filter(|_| token.pending.is_none());
    let subject =
        Subject { token: Some(token.id), user: holder, device, operation, ..Subject::default() };
    let mut draft = unit
        .draft(token.company, audit_kind(token.last.action), actor)
        .about(subject)
        .with("serial", &token.serial)
        .with("from", from.name())
        .with("to", token.state().name());
    if let Some(cause) = &token.last.cause {
        draft = draft.with("cause", cause);
    }
    if let Some(live) = token.live() {
        draft = draft.with("generation", live.generation);
        match live.custody {
            Custody::Phone(_) => {}
            Custody::AuthenticatorApp => draft = draft.with("custody", "authenticator_app"),
            Custody::Imported => draft = draft.with("custody", "imported"),
        }
    }
    draft
}

async fn holder_name(
    unit: &mut Unit<'_>,
    token: &Token,
) -> Result<Option<semilla_core::text::Name>, Failure> {
    match token.holder() {
        Some(holder) => {
            Ok(Some(unit.must::<User>(token.company, &holder.to_string()).await?.record.name))
        }
        None => Ok(None),
    }
}

async fn open_enrollment(
    unit: &mut Unit<'_>,
    token: &Token,
    id: EnrollmentId,
    rotation: Option<RotateCause>,
) -> Result<(), Failure> {
    let Some(holder) = token.holder() else { return Ok(()) };
    let company = unit.must::<Company>(CompanyId::BANK, &token.company.to_string()).await?.record;
    let current = token.live().and_then(|live| live.custody.device());
    let enrollment = Enrollment {
        id,
        company: token.company,
        token: token.id,
        holder,
        generation: token.generation,
        profile: company.policy.profile,
        rotation: rotation.filter(|_| token.live().is_some()),
        current,
        asked_by: None,
        state: beginning(unit, token).await?,
        created: unit.now,
        expires: unit.now.plus(company.policy.enrollment()),
    };
    unit.save(&enrollment);
    wake_phones(unit, token.company, holder).await
}

/// How an enrollment begins: without a seed, or with the one that the token came with, sealed anew
/// for this generation.
async fn beginning(unit: &mut Unit<'_>, token: &Token) -> Result<EnrollmentState, Failure> {
    if !token.has_own_seed {
        return Ok(EnrollmentState::Open);
    }
    let own = unit.must::<OwnSeed>(CompanyId::BANK, &token.id.to_string()).await?.record;
    let seed = open_own_seed(unit.app, &own)?;
    let (company, generation) = (token.company, token.generation);
    let purpose = Purpose::Seed { company, token: token.id, generation };
    let seed = unit.app.keyring.seal_seed(&seed, &purpose, unit.app.entropy.as_ref());
    Ok(EnrollmentState::InHand { seed, method: own.method, after: own.after, drift: own.drift })
}

/// Seals the seed that a token comes with.
pub fn seal_own_seed(app: &App, token: TokenId, seed: &Seed) -> Sealed {
    let id = token.to_string();
    let purpose = Purpose::Other { kind: "own-seed", company: CompanyId::BANK, id: &id };
    app.keyring.seal_seed(seed, &purpose, app.entropy.as_ref())
}

/// Opens the seed that a token came with.
pub fn open_own_seed(app: &App, own: &OwnSeed) -> Result<Seed, Failure> {
    let id = own.token.to_string();
    let purpose = Purpose::Other { kind: "own-seed", company: CompanyId::BANK, id: &id };
    let opened = app.keyring.open_seed(&own.sealed, &purpose);
    let table = OwnSeed::TABLE.name;
    let what = |error: SealError| StoreError::Inconsistent { table, what: error.to_string() };
    Ok(opened.map_err(what)?)
}

/// Destroys the seed that a token came with.
pub async fn destroy_own_seed(unit: &mut Unit<'_>, token: &Token) -> Result<(), Failure> {
    let own = unit.must::<OwnSeed>(CompanyId::BANK, &token.id.to_string()).await?;
    unit.forget(&own.record);
    let (table, id) = (OwnSeed::TABLE, own.record.id());
    unit.batch.writes.push(Write::Delete(table, CompanyId::BANK, id, own.version));
    Ok(())
}

/// Tells a person's phones to look at what waits for them.
pub async fn wake_phones(
    unit: &mut Unit<'_>,
    company: CompanyId,
    user: semilla_core::id::UserId,
) -> Result<(), Failure> {
    for device in devices_of(unit, company, user).await? {
        unit.wake(Topic::Device(device.record.id.to_string()));
    }
    Ok(())
}

/// How many phones of one person are looked at.
const DEVICES_MAX: u32 = 50;

/// The phones of a person that are bound or suspended.
pub async fn devices_of(
    unit: &mut Unit<'_>,
    company: CompanyId,
    user: semilla_core::id::UserId,
) -> Result<Vec<Versioned<Device>>, Failure> {
    let mut query = Query::of(Device::TABLE, company, DEVICES_MAX).equals("user", user.to_string());
    query.any_of.push(("state", DEVICE_STATES_HELD.iter().map(|state| (*state).into()).collect()));
    unit.find::<Device>(&query).await
}

/// Ends an enrollment, if it is open, in `end`.
pub async fn end_enrollment(
    unit: &mut Unit<'_>,
    company: CompanyId,
    id: EnrollmentId,
    end: EnrollmentState,
) -> Result<(), Failure> {
    let mut enrollment = unit.must::<Enrollment>(company, &id.to_string()).await?.record;
    if !enrollment.state.is_open() {
        return Ok(());
    }
    // The seal of a seed that never went live goes with the state that held it.
    enrollment.state = end;
    unit.save(&enrollment);
    let kind = format!("enrollment.{}", enrollment.state.name());
    let subject = Subject {
        token: Some(enrollment.token),
        user: Some(enrollment.holder),
        enrollment: Some(id),
        ..Subject::default()
    };
    unit.record(unit.draft(company, &kind, Actor::System).about(subject));
    Ok(())
}

/// Ends a pending operation in `end`, and takes it out of every inbox.
pub async fn end_operation(
    unit: &mut Unit<'_>,
    company: CompanyId,
    id: OperationId,
    end: OperationState,
    actor: Actor,
) -> Result<(), Failure> {
    let mut operation = unit.must::<Operation>(company, &id.to_string()).await?.record;
    if operation.state != OperationState::Pending {
        return Ok(());
    }
    operation.state = end;
    unit.save(&operation);
    let mut draft = unit
        .draft(company, &format!("operation.{}", operation.state.name()), actor)
        .about(Subject {
            token: operation.token.map(|token| token.id),
            user: Some(operation.holder),
            device: match &operation.state {
                OperationState::Denied { device, .. }
                | OperationState::Executed { device, .. }
                | OperationState::Failed { device, .. } => Some(*device),
                _ => None,
            },
            operation: Some(id),
            ..Subject::default()
        });
    draft = draft.with("action", operation.action.name()).with("asker", operation.asker);
    match &operation.state {
        OperationState::Denied { reason, .. } => {
            draft = draft.with(
                "reason",
                serde_json::to_string(reason).unwrap_or_default().trim_matches('"'),
            );
        }
        OperationState::Failed { problem, .. } => draft = draft.with("problem", problem),
        // What a receipt shows is held to this record: the question, the answer, and whose key.
        OperationState::Executed { device, key, response, .. } => {
            let request = operation.request_to(*device).map_or("", |request| &request.text);
            draft = receipt::facts(draft, request, response, key);
        }
        _ => {}
    }
    unit.record(draft);
    close_inboxes(unit, &operation).await?;
    unit.wake(Topic::Operation(id.to_string()));
    if operation.consent.is_some() {
        super::ciba::ended(unit, &operation).await?;
    } else if operation.token.is_none() {
        let mut person = unit.must::<User>(company, &operation.holder.to_string()).await?.record;
        person.pending = person.pending.filter(|pending| *pending != id);
        unit.save(&person);
    }
    if let Some(device) = operation.new_device
        && !matches!(operation.state, OperationState::Executed { .. })
    {
        let mut device = unit.must::<Device>(company, &device.to_string()).await?.record;
        if device.state == (DeviceState::Waiting { operation: id }) {
            forget_device(unit, &mut device);
        }
    }
    Ok(())
}

async fn close_inboxes(unit: &mut Unit<'_>, operation: &Operation) -> Result<(), Failure> {
    for request in &operation.requests {
        // A phone of the company, or, where it fell to the bank, of an operator.
        for company in [operation.company, CompanyId::BANK] {
            let id = InboxItem::id_of(request.device, operation.id);
            if let Some(item) = unit.get::<InboxItem>(company, &id).await? {
                unit.save(&InboxItem { open: false, ..item.record });
            }
        }
        unit.wake(Topic::Device(request.device.to_string()));
    }
    Ok(())
}

/// Marks a phone as revoked. Its token stays known, so that it is told why it is refused; its key
/// stays taken, so that it can never be bound again.
fn forget_device(unit: &mut Unit<'_>, device: &mut Device) {
    device.state = DeviceState::Revoked;
    unit.save(device);
    unit.wake(Topic::Device(device.id.to_string()));
}

/// Revokes a phone: what it was asked ends, what it was about to enroll ends, and every token with
/// a generation on it is blocked with `cause`.
pub async fn revoke_device(
    unit: &mut Unit<'_>,
    company: CompanyId,
    id: DeviceId,
    cause: BlockCause,
    actor: Actor,
) -> Result<(), Failure> {
    let mut device = unit.must::<Device>(company, &id.to_string()).await?.record;
    if device.state == DeviceState::Revoked {
        return Ok(());
    }
    let waiting = match device.state {
        DeviceState::Waiting { operation } => Some(operation),
        _ => None,
    };
    forget_device(unit, &mut device);
    let subject = Subject { device: Some(id), user: Some(device.user), ..Subject::default() };
    let cause_name = semilla_core::operations::Cause::Block(cause).name();
    unit.record(
        unit.draft(company, "device.revoked", actor.clone())
            .about(subject)
            .with("cause", cause_name),
    );
    let at = unit.now;
    if let Some(operation) = waiting {
        end_operation(unit, company, operation, OperationState::Cancelled { at }, Actor::System)
            .await?;
    }
    cancel_what_waits_on(unit, company, id).await?;
    let enrolling = Query::of(Enrollment::TABLE, company, 100)
        .equals("holder", device.user.to_string())
        .equals("state", "open");
    for enrollment in unit.find::<Enrollment>(&enrolling).await? {
        let here = matches!(&enrollment.record.state, EnrollmentState::Delivered { device, .. } if *device == id);
        if here || enrollment.record.current == Some(id) {
            close_enrollment(unit, &enrollment.record).await?;
        }
    }
    let tokens = Query::of(StoredToken::TABLE, company, 100).equals("device", id.to_string());
    for stored in unit.find::<StoredToken>(&tokens).await? {
        let token = stored.record.token.clone();
        if token.live().and_then(|live| live.custody.device()) != Some(id) {
            continue;
        }
        let changed = match token.state() {
            State::Active => token.block(cause, unit.now),
            _ => token.lose_seed(cause, unit.now),
        };
        let changed =
            changed.map_err(|refused| super::tokens::problem_of(refused, Some(&stored.record)))?;
        Box::pin(apply(unit, &stored, changed, actor.clone(), None)).await?;
    }
    Ok(())
}

/// Cancels every operation that waits for this phone: whoever asked for it is not left waiting.
pub async fn cancel_what_waits_on(
    unit: &mut Unit<'_>,
    company: CompanyId,
    device: DeviceId,
) -> Result<(), Failure> {
    let asked = Query::of(InboxItem::TABLE, company, 100)
        .equals("device", device.to_string())
        .equals("state", "open");
    for item in unit.find::<InboxItem>(&asked).await? {
        cancel_operation(unit, item.record.of, item.record.operation).await?;
    }
    Ok(())
}

/// Cancels a pending operation and frees its token for the next.
pub async fn cancel_operation(
    unit: &mut Unit<'_>,
    company: CompanyId,
    id: OperationId,
) -> Result<(), Failure> {
    let operation = unit.must::<Operation>(company, &id.to_string()).await?.record;
    settle_token(unit, &operation).await?;
    let at = unit.now;
    end_operation(unit, company, id, OperationState::Cancelled { at }, Actor::System).await
}

/// Frees the token of an operation that ends without being executed.
pub async fn settle_token(unit: &mut Unit<'_>, operation: &Operation) -> Result<(), Failure> {
    let Some(token) = operation.token else { return Ok(()) };
    let Some(stored) = unit.get::<StoredToken>(operation.company, &token.id.to_string()).await?
    else {
        return Ok(());
    };
    if stored.record.token.pending == Some(operation.id) {
        let token = stored.record.token.settle(operation.id);
        unit.save(&StoredToken {
            token,
            updated: unit.now,
            holder_name: stored.record.holder_name,
        });
    }
    Ok(())
}

/// Closes an open enrollment from outside of its token, and tells the token.
pub async fn close_enrollment(unit: &mut Unit<'_>, enrollment: &Enrollment) -> Result<(), Failure> {
    let id = enrollment.token.to_string();
    if let Some(stored) = unit.get::<StoredToken>(enrollment.company, &id).await?
        && let Ok(changed) = stored.record.token.clone().close_enrollment(enrollment.id)
    {
        apply(unit, &stored, changed, Actor::System, None).await?;
    }
    Ok(())
}

/// Reserves a name that has to be unique among all companies.
pub fn reserve(unit: &mut Unit<'_>, scope: Scope, name: String, company: CompanyId, id: String) {
    unit.batch.writes.push(Write::Reserve(scope, name, company, id));
}
