//! Phones: binding the first and another, revoking, recovering, leaving, and changing the key.

use schemars::JsonSchema;
use semilla_core::approval::{Approvable, Operation};
use semilla_core::audit::{Actor, Subject};
use semilla_core::device::{Device, DeviceState};
use semilla_core::enrollment::{Activation, ActivationState};
use semilla_core::id::{CompanyId, DeviceId, OperationId, UserId};
use semilla_core::operations::BlockCause;
use semilla_core::person::{Binding, Company, Role, User};
use semilla_core::problem::{Problem, ProblemType};
use semilla_core::protocol::MessageError;
use semilla_core::protocol::activation::{ActivationKey, ActivationName};
use semilla_core::protocol::bytes::Nonce;
use semilla_core::protocol::jwk::PublicKey;
use semilla_core::protocol::messages::Bind;
use semilla_core::protocol::{messages, wire};
use semilla_core::seal::Purpose;
use semilla_core::secret::SecretText;
use semilla_core::time::Timestamp;
use semilla_core::token::{Custody, Kind};
use serde::Serialize;

use super::approvals::{self, Approvers, AskedAbout};
use super::caller::{Acting, Caller, Phone, require_bound, sha256};
use super::effects::{self, cancel_operation, reserve, revoke_device};
use super::unit::Unit;
use super::views::{DeviceView, Nothing, OperationAsked, Page};
use super::{Failure, Plan, View};
use crate::app::App;
use crate::records::StoredToken;
use crate::store::{Query, Record, Records, Scope, StoreError, Topic, Write};

/// How many phones one person may have bound.
const PHONES_MAX: usize = 5;

/// The problem of a signed message that does not verify.
pub fn signature_invalid(error: MessageError) -> Failure {
    Problem::new(ProblemType::SignatureInvalid, format!("Refused: {error}.")).into()
}

/// The phone's record in this unit, bound as it is now and not only as it was when it asked.
pub async fn bound(unit: &mut Unit<'_>, phone: &Phone) -> Result<Device, Failure> {
    let device =
        unit.must::<Device>(phone.company.id, &phone.device.record.id.to_string()).await?.record;
    require_bound(&device)?;
    Ok(device)
}

/// Takes the counter of a verified message. One that does not rise means that there are two of
/// this phone: it is suspended, what waits for it ends, and that is recorded (security 130). One
/// that was `signed` before the database was restored may have counted already, in the time that
/// it has forgotten (security 29).
pub async fn count(
    unit: &mut Unit<'_>,
    device: &mut Device,
    seen: u64,
    signed: Timestamp,
) -> Result<(), Failure> {
    // Messages tell whole seconds.
    if unit.app.restored.is_some_and(|restored| signed.seconds() < restored.seconds()) {
        let detail = "Refused: signed before the bank was restored from a backup. Try again.";
        return Err(Problem::new(ProblemType::SignatureInvalid, detail).into());
    }
    let Err(error) = device.count(seen) else {
        unit.save(device);
        return Ok(());
    };
    // Only this is to be changed, whatever else the unit has done so far.
    let mut alone = Unit::new(unit.app);
    let mut device = alone.must::<Device>(device.company, &device.id.to_string()).await?.record;
    require_bound(&device)?;
    device.state = DeviceState::Suspended;
    alone.save(&device);
    let subject =
        Subject { device: Some(device.id), user: Some(device.user), ..Subject::default() };
    let draft = alone.draft(device.company, "device.suspended", Actor::System).about(subject);
    alone.record(draft.with("reason", error));
    alone.wake(Topic::Device(device.id.to_string()));
    effects::cancel_what_waits_on(&mut alone, device.company, device.id).await?;
    Err(alone.refuse(Problem::new(
        ProblemType::DeviceRevoked,
        "This phone sent a counter it had used before: there may be two copies of it. It is suspended; \
         ask the administrator to revoke it, and bind it anew.",
    )))
}

fn activation_invalid() -> Problem {
    Problem::new(
        ProblemType::ActivationInvalid,
        "The activation code is wrong, used or too old. Ask for a new one.",
    )
}

impl View for wire::BindingStarted {}

impl View for wire::Devices {}

impl View for wire::HeldTokens {}

async fn live_activation(
    unit: &mut Unit<'_>,
    name: &ActivationName,
) -> Result<Activation, Failure> {
    let found = unit.app.store.lookup(Scope::Activation, name.as_str()).await?;
    let Some((company, id)) = found else { return Err(activation_invalid().into()) };
    match unit.get::<Activation>(company, &id).await? {
        Some(activation) if activation.record.is_live(unit.now) => Ok(activation.record),
        _ => Err(activation_invalid().into()),
    }
}

fn key_of(app: &App, activation: &Activation) -> Result<ActivationKey, Failure> {
    let purpose =
        Purpose::Other { kind: "activation", company: activation.company, id: &activation.name };
    let inconsistent =
        |what: String| StoreError::Inconsistent { table: Activation::TABLE.name, what };
    let opened = app
        .keyring
        .open(&activation.key, &purpose)
        .map_err(|error| inconsistent(error.to_string()))?;
    ActivationKey::from_bytes(&opened).map_err(|error| inconsistent(error.to_string()).into())
}

/// The first step of a binding: the server proves that it knows the code, and so that its keys are
/// the ones to pin.
pub async fn start(
    app: &App,
    name: &ActivationName,
) -> Result<Plan<wire::BindingStarted>, Failure> {
    let mut unit = Unit::new(app);
    let mut activation = live_activation(&mut unit, name).await?;
    // Begun again, the same nonce: a stranger who begins cannot disturb the one who has the code.
    let nonce = match &activation.state {
        ActivationState::Started { nonce } => {
            nonce.parse::<Nonce>().map_err(|_| activation_invalid())?
        }
        _ => Nonce::generate(app.entropy.as_ref()),
    };
    let jwks = app.keys.public.clone();
    let mac = key_of(app, &activation)?.server_mac(&nonce, &app.issuer, jwks.text());
    activation.state = ActivationState::Started { nonce: nonce.to_string() };
    unit.save(&activation);
    let issuer = app.issuer.clone();
    Ok(unit.plan(wire::BindingStarted { nonce, issuer, jwks, mac }))
}

impl View for wire::Bound {
    const STATUS: u16 = 201;
}

/// The second step: the phone proves that it knows the code and holds the key. A first phone is
/// bound at once; another one waits for a phone bound before.
pub async fn bind(app: &App, text: &str) -> Result<Plan<wire::Bound>, Failure> {
    let (bind, key) = messages::verify_bind(text, &app.issuer).map_err(signature_invalid)?;
    let mut unit = Unit::new(app);
    if let Some(bound) = bound_before(&mut unit, &bind, &key, text).await? {
        return Ok(unit.plan(bound));
    }
    let mut activation = live_activation(&mut unit, &bind.activation).await?;
    let ActivationState::Started { nonce } = &activation.state else {
        return Err(activation_invalid().into());
    };
    let vouched = nonce.parse::<Nonce>().is_ok_and(|nonce| nonce == bind.nonce)
        && key_of(app, &activation)?.verify_phone(&bind.nonce, key.key_id(), &bind.jkt_mac).is_ok();
    let company = activation.company;
    if !vouched {
        activation.count_wrong();
        if activation.state == ActivationState::Dead {
            unit.batch.writes.push(Write::Free(Scope::Activation, activation.name.clone()));
        }
        unit.save(&activation);
        let subject = Subject { user: Some(activation.user), ..Subject::default() };
        let draft = unit.draft(company, "activation.refused", Actor::System).about(subject);
        unit.record(draft.with("wrong", activation.wrong));
        return Err(unit.refuse(activation_invalid()));
    }
    if app.store.lookup(Scope::DeviceKey, &key.thumbprint()).await?.is_some() {
        let detail = "This key was bound before: a phone makes a new one for every binding.";
        return Err(Problem::new(ProblemType::StateConflict, detail).into());
    }
    let holder =
        unit.get::<User>(company, &activation.user.to_string()).await?.map(|user| user.record);
    let Some(mut holder) = holder.filter(|user| user.active) else {
        return Err(activation_invalid().into());
    };
    let owner = unit.must::<Company>(CompanyId::BANK, &company.to_string()).await?.record;
    if !owner.active {
        return Err(activation_invalid().into());
    }
    activation.state = ActivationState::Used;
    unit.save(&activation);
    unit.batch.writes.push(Write::Free(Scope::Activation, activation.name.clone()));

    let device_token = device_token_for(app, text);
    let mut device = Device {
        id: DeviceId::new(unit.now, app.entropy.as_ref()),
        company,
        user: holder.id,
        name: bind.name,
        platform: bind.platform,
        key,
        token_sha256: sha256(&device_token),
        state: DeviceState::Bound,
        counter: bind.ctr,
        bound: unit.now,
    };
    let others = effects::devices_of(&mut unit, company, holder.id).await?;
    if others.len() >= PHONES_MAX {
        let detail = format!("A person has at most {PHONES_MAX} phones: revoke one first.");
        return Err(Problem::new(ProblemType::StateConflict, detail).into());
    }
    let match_number = match holder.binding {
        Binding::First => {
            holder.binding = Binding::Another;
            unit.save(&holder);
            None
        }
        Binding::Another => {
            let trusted = approvals::trusted_phones(&mut unit, company, holder.id).await?;
            if trusted.is_empty() {
                let mut problem = Problem::new(
                    ProblemType::StateConflict,
                    "No phone bound before is left that could agree. Ask an administrator to help you recover.",
                );
                problem.who_can_act = Some("administrator".to_owned());
                return Err(problem.into());
            }
            let operation = OperationId::new(unit.now, app.entropy.as_ref());
            device.state = DeviceState::Waiting { operation };
            if let Some(earlier) = holder.pending {
                cancel_operation(&mut unit, company, earlier).await?;
            }
            holder.pending = Some(operation);
            unit.save(&holder);
            let (holder_id, new_device) = (holder.id, Some(device.id));
            let about = AskedAbout { token: None, holder: holder_id, new_device, consent: None };
            let approvers = Approvers::of(trusted);
            let view = approvals::send(
                &mut unit,
                operation,
                &owner,
                Approvable::BindPhone,
                &holder,
                about,
                approvers,
            )
            .await?;
            view.match_number
        }
    };
    register(&mut unit, &device);
    let kind = if match_number.is_some() { "device.waiting" } else { "device.bound" };
    let subject = Subject { device: Some(device.id), user: Some(holder.id), ..Subject::default() };
    let actor = Actor::Device { device: device.id, user: holder.id };
    let draft = unit.draft(company, kind, actor).about(subject);
    unit.record(draft.with("name", &device.name).with("key", device.key.thumbprint()));
    effects::wake_phones(&mut unit, company, holder.id).await?;
    let device_token = SecretText::new(device_token);
    Ok(unit.plan(wire::Bound { device: device.id, device_token, match_number }))
}

/// The device token that a phone's message earns. The same message gets the same token, so that an
/// answer which was lost can be given again, though no token is kept; without the phone's key it
/// opens nothing.
fn device_token_for(app: &App, text: &str) -> String {
    super::hmac(app, &[b"device-token", text.as_bytes()])
}

/// The phone that this very message bound, whose answer was lost: for as long as its code would
/// have lived.
async fn bound_before(
    unit: &mut Unit<'_>,
    bind: &Bind,
    key: &PublicKey,
    text: &str,
) -> Result<Option<wire::Bound>, Failure> {
    let app = unit.app;
    let found = app.store.lookup(Scope::DeviceKey, &key.thumbprint()).await?;
    let Some((company, id)) = found else { return Ok(None) };
    let device = unit.must::<Device>(company, &id).await?.record;
    let activation = unit.get::<Activation>(company, bind.activation.as_str()).await?;
    let in_time = activation.is_some_and(|activation| {
        activation.record.state == ActivationState::Used && unit.now < activation.record.expires
    });
    let device_token = device_token_for(app, text);
    if !in_time || device.token_sha256 != sha256(&device_token) {
        return Ok(None);
    }
    let match_number = match device.state {
        DeviceState::Waiting { operation } => {
            let operation = unit.must::<Operation>(company, &operation.to_string()).await?.record;
            Some(approvals::number_of(app, &operation)?.expose().to_owned())
        }
        DeviceState::Bound => None,
        DeviceState::Suspended | DeviceState::Revoked => return Ok(None),
    };
    let device_token = SecretText::new(device_token);
    Ok(Some(wire::Bound { device: device.id, device_token, match_number }))
}

fn register(unit: &mut Unit<'_>, device: &Device) {
    unit.save(device);
    let (company, id) = (device.company, device.id.to_string());
    reserve(unit, Scope::DeviceKey, device.key.thumbprint(), company, id.clone());
    reserve(unit, Scope::DeviceToken, device.token_sha256.clone(), company, id);
}

/// A phone bound before agreed: the waiting one is trusted.
pub async fn accept(
    unit: &mut Unit<'_>,
    company: CompanyId,
    id: DeviceId,
    actor: Actor,
) -> Result<(), Failure> {
    let mut device = unit.must::<Device>(company, &id.to_string()).await?.record;
    if !matches!(device.state, DeviceState::Waiting { .. }) {
        let detail = format!("The phone that was to be bound is {}.", device.state.name());
        return Err(Problem::new(ProblemType::StateConflict, detail).into());
    }
    device.state = DeviceState::Bound;
    device.bound = unit.now;
    unit.save(&device);
    let subject = Subject { device: Some(id), user: Some(device.user), ..Subject::default() };
    let draft = unit.draft(company, "device.bound", actor).about(subject);
    unit.record(draft.with("name", &device.name).with("key", device.key.thumbprint()));
    unit.wake(Topic::Device(id.to_string()));
    Ok(())
}

/// The phone changes its key: both sign, and it gets a new device token bound to the new one.
pub async fn change_key(app: &App, phone: &Phone, text: &str) -> Result<Plan<KeyChanged>, Failure> {
    phone.require_bound()?;
    let mut unit = Unit::new(app);
    let mut device = bound(&mut unit, phone).await?;
    let device_token = device_token_for(app, text);
    if device.token_sha256 == sha256(&device_token) {
        // The reply was lost, and the phone asks again: with the new key already.
        return Ok(unit.plan(KeyChanged::of(&device, device_token)));
    }
    let change = messages::verify_key_change(text, &device.key, device.id, &app.issuer)
        .map_err(signature_invalid)?;
    count(&mut unit, &mut device, change.ctr, change.iat).await?;
    let new: PublicKey = change.new_key;
    if app.store.lookup(Scope::DeviceKey, &new.thumbprint()).await?.is_some() {
        return Err(Problem::new(
            ProblemType::StateConflict,
            "This key was used before: make a new one.",
        )
        .into());
    }
    // The old token still leads here: where this reply gets lost, the phone has no other. It is
    // good for nothing without the new key.
    device.key = new;
    device.token_sha256 = sha256(&device_token);
    register(&mut unit, &device);
    let subject =
        Subject { device: Some(device.id), user: Some(device.user), ..Subject::default() };
    let draft = unit.draft(device.company, "device.key_changed", phone.actor()).about(subject);
    unit.record(draft.with("key", device.key.thumbprint()));
    Ok(unit.plan(KeyChanged::of(&device, device_token)))
}

/// A phone after it changed its key.
#[derive(Serialize, JsonSchema)]
#[serde(transparent)]
pub struct KeyChanged(pub wire::Bound);

impl KeyChanged {
    fn of(device: &Device, device_token: String) -> Self {
        let device_token = SecretText::new(device_token);
        Self(wire::Bound { device: device.id, device_token, match_number: None })
    }
}

impl View for KeyChanged {}

/// The phone goes: its person revokes it from itself.
pub async fn leave(app: &App, phone: &Phone) -> Result<Plan<Nothing>, Failure> {
    let device = phone.device.record.id;
    revoke_own(app, phone, device).await
}

/// A person revokes one of their phones, from another or from itself.
pub async fn revoke_own(app: &App, phone: &Phone, id: DeviceId) -> Result<Plan<Nothing>, Failure> {
    if id != phone.device.record.id {
        phone.require_bound()?;
    }
    let mut unit = Unit::new(app);
    let company = phone.company.id;
    let device = unit.get::<Device>(company, &id.to_string()).await?;
    if device.is_none_or(|device| device.record.user != phone.user.id) {
        return Err(Problem::not_found().into());
    }
    revoke_device(&mut unit, company, id, BlockCause::DeviceChange, phone.actor()).await?;
    Ok(unit.plan(Nothing {}))
}

/// An administrator revokes a phone of the company.
pub async fn revoke(app: &App, acting: &Acting, id: DeviceId) -> Result<Plan<Nothing>, Failure> {
    let mut unit = Unit::new(app);
    let company = acting.caller.company.id;
    if unit.get::<Device>(company, &id.to_string()).await?.is_none() {
        return Err(Problem::not_found().into());
    }
    let cause = BlockCause::DeviceLostOrStolen;
    revoke_device(&mut unit, company, id, cause, acting.actor()).await?;
    Ok(unit.plan(Nothing {}))
}

/// *recover*: somebody who has no phone left may bind a first one again, once another person's
/// phone agrees. `company` is the person's; an operator helps where no administrator can.
pub async fn recover(
    app: &App,
    acting: &Acting,
    company: CompanyId,
    id: UserId,
) -> Result<Plan<OperationAsked>, Failure> {
    let mut unit = Unit::new(app);
    let by_operator = acting.asker.role == Role::Operator;
    if company != acting.caller.company.id && !by_operator {
        return Err(Problem::not_found().into());
    }
    let owner = unit
        .get::<Company>(CompanyId::BANK, &company.to_string())
        .await?
        .ok_or_else(Problem::not_found)?;
    let person =
        unit.get::<User>(company, &id.to_string()).await?.ok_or_else(Problem::not_found)?;
    let mut person = person.record;
    if person.id == acting.asker.id {
        return Err(Problem::new(
            ProblemType::SelfApproval,
            "Somebody else has to help you recover.",
        )
        .into());
    }
    if !person.active || person.binding == Binding::First {
        let detail =
            "This person can bind a phone with an activation code: there is nothing to recover.";
        return Err(Problem::new(ProblemType::StateConflict, detail).into());
    }
    if by_operator && company != CompanyId::BANK {
        let helpers = approvals::other_administrators_phones(&mut unit, company, id).await?;
        if helpers.iter().any(|phone| phone.company == company) {
            let mut problem = Problem::new(
                ProblemType::StateConflict,
                "An administrator of the company can help: the operator only where none can.",
            );
            problem.who_can_act = Some("administrator".to_owned());
            return Err(problem.into());
        }
    }
    let operation = OperationId::new(unit.now, app.entropy.as_ref());
    if let Some(earlier) = person.pending {
        cancel_operation(&mut unit, company, earlier).await?;
    }
    person.pending = Some(operation);
    unit.save(&person);
    let helpers =
        approvals::trusted_phones(&mut unit, acting.caller.company.id, acting.asker.id).await?;
    let about = AskedAbout { token: None, holder: id, new_device: None, consent: None };
    let approvers = Approvers::of(helpers);
    let action = Approvable::Recover;
    let view = approvals::send(
        &mut unit,
        operation,
        &owner.record,
        action,
        &acting.asker,
        about,
        approvers,
    )
    .await?;
    Ok(unit.plan(OperationAsked(view)))
}

/// The phones of a company, or of one person.
pub async fn list(
    app: &App,
    caller: &Caller,
    user: Option<UserId>,
) -> Result<Page<DeviceView>, Failure> {
    let mut query = Query::of(Device::TABLE, caller.company.id, 100);
    if let Some(user) = user {
        query = query.equals("user", user.to_string());
    }
    let total = app.store.count(&query).await?;
    let found = app.store.find::<Device>(&query).await?;
    let items = found.iter().map(|device| DeviceView::from(&device.record)).collect();
    Ok(Page { items, next_cursor: None, total })
}

/// The phones of the phone's person.
pub async fn own(app: &App, phone: &Phone) -> Result<wire::Devices, Failure> {
    let query =
        Query::of(Device::TABLE, phone.company.id, 100).equals("user", phone.user.id.to_string());
    let found = app.store.find::<Device>(&query).await?;
    let devices = found.into_iter().map(|device| wire::Device {
        device: device.record.id,
        name: device.record.name,
        platform: device.record.platform,
        state: match device.record.state {
            DeviceState::Waiting { .. } => wire::DeviceState::Waiting,
            DeviceState::Bound => wire::DeviceState::Bound,
            DeviceState::Suspended => wire::DeviceState::Suspended,
            DeviceState::Revoked => wire::DeviceState::Revoked,
        },
        bound_at: device.record.bound,
    });
    Ok(wire::Devices { devices: devices.collect() })
}

/// The tokens that the phone's person holds.
pub async fn held(app: &App, phone: &Phone) -> Result<wire::HeldTokens, Failure> {
    phone.require_bound()?;
    let mut query = Query::of(StoredToken::TABLE, phone.company.id, 10)
        .equals("holder", phone.user.id.to_string())
        .equals("kind", Kind::Virtual.name());
    query.order = Some("serial");
    let found = app.store.find::<StoredToken>(&query).await?;
    let tokens = found.into_iter().map(|stored| {
        let token = stored.record.token;
        let live = token.live();
        wire::HeldToken {
            token: token.id,
            serial: token.serial.to_string(),
            company: phone.company.name.clone(),
            state: match token.state() {
                semilla_core::operations::State::Active => wire::HeldState::Active,
                semilla_core::operations::State::Assigned => wire::HeldState::Assigned,
                _ => wire::HeldState::Blocked,
            },
            generation: live.map_or(0, |live| live.generation),
            state_version: u64::try_from(stored.version).unwrap_or(0),
            device: live.and_then(|live| match live.custody {
                Custody::Phone(device) => Some(device),
                Custody::AuthenticatorApp | Custody::Imported => None,
            }),
        }
    });
    Ok(wire::HeldTokens { tokens: tokens.collect() })
}
