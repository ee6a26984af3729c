//! How a new generation comes to a phone: the activation code for its holder, the delivery of the
//! seed to that phone alone, and the code that proves it.

use std::sync::Arc;
use std::time::Duration;

use semilla_core::approval::Answering;
use semilla_core::audit::{Actor, Draft, Subject};
use semilla_core::enrollment::{Activation, ActivationState, Enrollment, EnrollmentState};
use semilla_core::id::{CompanyId, DeviceId, EnrollmentId, OperationId, TokenId, UserId};
use semilla_core::otpauth::{self, KeyUri, Label};
use semilla_core::person::{Company, User};
use semilla_core::policy::Profile;
use semilla_core::problem::{Problem, ProblemType};
use semilla_core::protocol::activation::{ActivationCode, EnrollUri};
use semilla_core::protocol::bytes::{Digest, Nonce};
use semilla_core::protocol::messages::{self, Enroll, SeedDelivery, Version};
use semilla_core::protocol::seed_delivery::{self, SeedContext, SeedPackage};
use semilla_core::protocol::wire;
use semilla_core::qr;
use semilla_core::seal::Purpose;
use semilla_core::secret::{SecretText, Seed};
use semilla_core::token::Custody;

use super::caller::{Caller, Phone};
use super::codes::{Against, By, Sent, Tried, attempt};
use super::effects::{Proved, apply, go_live};
use super::tokens::problem_of;
use super::unit::Unit;
use super::views::{ActivationView, EnrollmentView, OtpauthView};
use super::{Acted, Failure, Plan, View, act};
use crate::app::App;
use crate::records::StoredToken;
use crate::store::{Query, Record, Records, Scope, Versioned, Write};

/// An enrollment of the company that is open and whose time is not over.
async fn open_one(
    unit: &mut Unit<'_>,
    company: CompanyId,
    id: EnrollmentId,
) -> Result<Versioned<Enrollment>, Failure> {
    let enrollment = unit.get::<Enrollment>(company, &id.to_string()).await?;
    let enrollment = enrollment.ok_or_else(Problem::not_found)?;
    if enrollment.record.state.is_open() && unit.now < enrollment.record.expires {
        return Ok(enrollment);
    }
    Err(ended(&enrollment.record).into())
}

fn ended(enrollment: &Enrollment) -> Problem {
    let state = if enrollment.state.is_open() { "expired" } else { enrollment.state.name() };
    let detail = format!("This enrollment is {state}. Ask the administrator to open another.");
    let mut problem = Problem::new(ProblemType::DeliveryExpired, detail);
    problem.state = Some(state.to_owned());
    problem.who_can_act = Some("administrator".to_owned());
    problem
}

/// Shows an enrollment to the company's programs.
pub async fn show(app: &App, caller: &Caller, id: EnrollmentId) -> Result<EnrollmentView, Failure> {
    let enrollment = app.store.get::<Enrollment>(caller.company.id, &id.to_string()).await?;
    Ok(EnrollmentView::from(&enrollment.ok_or_else(Problem::not_found)?.record))
}

/// The activation code of an enrollment, for its holder. An earlier one of the same person is dead.
pub async fn activation(
    app: &App,
    caller: &Caller,
    id: EnrollmentId,
) -> Result<Plan<ActivationView>, Failure> {
    let mut unit = Unit::new(app);
    let enrollment = open_one(&mut unit, caller.company.id, id).await?.record;
    if matches!(enrollment.state, EnrollmentState::InHand { .. }) {
        return Err(in_hand().into());
    }
    if enrollment.profile == Profile::AuthenticatorApp {
        return Err(wrong_profile(
            "This company's seeds go to authenticator apps: ask for the otpauth URI.",
        )
        .into());
    }
    issue_code(unit, caller.company.id, enrollment.holder, Some(id), caller.actor()).await
}

/// An activation code that binds a phone and leads to no token.
pub async fn phone_activation(
    app: &App,
    caller: &Caller,
    user: UserId,
) -> Result<Plan<ActivationView>, Failure> {
    issue_code(Unit::new(app), caller.company.id, user, None, caller.actor()).await
}

fn in_hand() -> Problem {
    wrong_profile("The seed of this token came with it: confirm the enrollment by a code it shows.")
}

fn wrong_profile(detail: &str) -> Problem {
    let mut problem = Problem::new(ProblemType::StateConflict, detail);
    problem.who_can_act = Some("administrator".to_owned());
    problem
}

/// Makes an activation code for a person, and kills the earlier ones.
pub async fn issue_code(
    mut unit: Unit<'_>,
    company: CompanyId,
    user: UserId,
    enrollment: Option<EnrollmentId>,
    actor: Actor,
) -> Result<Plan<ActivationView>, Failure> {
    let app = unit.app;
    let person = unit.get::<User>(company, &user.to_string()).await?;
    let person = person.ok_or_else(Problem::not_found)?.record;
    if !person.active {
        let mut problem = Problem::new(ProblemType::StateConflict, "This person is not active.");
        problem.who_can_act = Some("administrator".to_owned());
        return Err(problem.into());
    }
    // One code per person: two that are issued at once meet in the person's record.
    unit.save(&person);
    kill_codes(&mut unit, company, Some(user)).await?;
    let code = loop {
        let code = ActivationCode::generate(app.entropy.as_ref());
        if app.store.lookup(Scope::Activation, code.name().as_str()).await?.is_none() {
            break code;
        }
    };
    let name = code.name().as_str().to_owned();
    let purpose = Purpose::Other { kind: "activation", company, id: &name };
    let activation = Activation {
        name: name.clone(),
        company,
        user,
        enrollment,
        key: app.keyring.seal(code.key().expose(), &purpose, app.entropy.as_ref()),
        wrong: 0,
        state: ActivationState::Live,
        expires: unit.now.plus(Duration::from_secs(Activation::SECONDS)),
    };
    // A name that an ended code once had may come again.
    unit.batch.put(&activation);
    unit.batch.writes.push(Write::Reserve(Scope::Activation, name.clone(), company, name));
    let subject = Subject { user: Some(user), enrollment, ..Subject::default() };
    unit.record(unit.draft(company, "activation.issued", actor).about(subject));
    let expires_at = activation.expires;
    let typed = code.expose().to_string();
    let uri = EnrollUri { server: app.issuer.clone(), code }.expose();
    let qr_svg = qr::svg(&uri, "Código QR · QR code").map_err(|_| unprintable())?;
    let view = ActivationView {
        code: typed,
        uri: uri.to_string(),
        qr_svg: qr_svg.to_string(),
        expires_at,
    };
    Ok(unit.plan(view))
}

fn unprintable() -> Problem {
    Problem::new(ProblemType::Internal, "The address of this server does not fit into a QR code.")
}

/// Ends a person's activation codes, or those of everybody in a company.
pub async fn kill_codes(
    unit: &mut Unit<'_>,
    company: CompanyId,
    user: Option<UserId>,
) -> Result<(), Failure> {
    let mut live = Query::of(Activation::TABLE, company, 1000).equals("state", "live");
    if let Some(user) = user {
        live = live.equals("user", user.to_string());
    }
    for earlier in unit.find::<Activation>(&live).await? {
        let dead = Activation { state: ActivationState::Dead, ..earlier.record };
        unit.batch.writes.push(Write::Free(Scope::Activation, dead.name.clone()));
        unit.save(&dead);
    }
    Ok(())
}

/// What waits to be enrolled on a phone.
pub async fn waiting(app: &App, phone: &Phone) -> Result<wire::OpenEnrollments, Failure> {
    phone.require_bound()?;
    let query = Query::of(Enrollment::TABLE, phone.company.id, 20)
        .equals("holder", phone.user.id.to_string())
        .equals("state", "open");
    let device = phone.device.record.id;
    let mut enrollments = Vec::new();
    for Versioned { record, .. } in app.store.find::<Enrollment>(&query).await? {
        let mine = match &record.state {
            EnrollmentState::Open => {
                record.profile != Profile::AuthenticatorApp && record.is_for(device)
            }
            EnrollmentState::Delivered { device: to, .. } => *to == device,
            _ => false,
        };
        if !mine || app.now() >= record.expires {
            continue;
        }
        let token =
            app.store.get::<StoredToken>(phone.company.id, &record.token.to_string()).await?;
        enrollments.extend(token.map(|token| wire::OpenEnrollment {
            enrollment: record.id,
            token: record.token,
            serial: token.record.token.serial.to_string(),
            company: phone.company.name.clone(),
            generation: record.generation,
            expires_at: record.expires,
        }));
    }
    Ok(wire::OpenEnrollments { enrollments })
}

impl View for wire::Signed {}

impl View for wire::OpenEnrollments {}

/// Makes the seed of an open enrollment and seals it to the phone that asks. The same request gets
/// the same bytes again (security 37).
pub async fn deliver(app: &App, phone: &Phone, text: &str) -> Result<Plan<wire::Signed>, Failure> {
    phone.require_bound()?;
    let mut unit = Unit::new(app);
    let mut device = super::devices::bound(&mut unit, phone).await?;
    let id = device.id;
    let enroll: Enroll = messages::verify(text, &device.key, &id.to_string(), &app.issuer)
        .map_err(super::devices::signature_invalid)?;
    let company = phone.company.id;
    let mut enrollment = open_one(&mut unit, company, enroll.enrollment).await?.record;
    if enrollment.holder != phone.user.id {
        return Err(Problem::not_found().into());
    }
    let request_sha256 = Digest::of(text.as_bytes()).to_string();
    match &enrollment.state {
        EnrollmentState::Delivered { device, request_sha256: before, delivery, .. }
            if *device == id && *before == request_sha256 =>
        {
            let message = delivery.clone();
            return Ok(unit.plan(wire::Signed { message }));
        }
        EnrollmentState::Open
            if enrollment.profile != Profile::AuthenticatorApp && enrollment.is_for(id) => {}
        EnrollmentState::Open => {
            return Err(wrong_profile("This enrollment is not for this phone.").into());
        }
        _ => {
            return Err(wrong_profile(
                "The seed of this enrollment was made for another request. Ask for a new enrollment.",
            )
            .into());
        }
    }
    super::devices::count(&mut unit, &mut device, enroll.ctr, enroll.iat).await?;
    let token = super::tokens::token_of(&mut unit, company, enrollment.token).await?.record.token;
    let parameters = enrollment.parameters();
    let seed = Seed::generate(parameters.algorithm.key_length(), app.entropy.as_ref());
    let package = SeedPackage {
        secret_b32: SecretText::new(otpauth::encode(&seed).to_string()),
        algorithm: parameters.algorithm.name().to_owned(),
        digits: parameters.digits.get(),
        period: parameters.period.seconds().into(),
        issuer: phone.company.name.to_string(),
        account: token.serial.to_string(),
    };
    let context = SeedContext {
        issuer: &app.issuer,
        device: id,
        token: token.id,
        generation: enrollment.generation,
        enroll_text: text,
    };
    let delivery = SeedDelivery {
        v: Version,
        iss: app.issuer.clone(),
        aud: id.to_string(),
        jti: Nonce::generate(app.entropy.as_ref()),
        iat: unit.now,
        sub: token.id,
        txn: enrollment.id,
        generation: enrollment.generation,
        exp: enrollment.expires,
        hpke: seed_delivery::seal(&package, &enroll.seed_kem, &context, app.entropy.as_ref()),
    };
    let message = messages::sign(&delivery, &app.keys.signing, &app.random);
    let purpose = Purpose::Seed { company, token: token.id, generation: enrollment.generation };
    let sealed = app.keyring.seal_seed(&seed, &purpose, app.entropy.as_ref());
    enrollment.state = EnrollmentState::Delivered {
        device: id,
        seed: sealed,
        request_sha256,
        delivery: message.clone(),
    };
    unit.save(&enrollment);
    record_step(&mut unit, &enrollment, "enrollment.delivered", phone.actor(), Some(id));
    Ok(unit.plan(wire::Signed { message }))
}

/// The delivery once more, for the phone it was made for, until it is confirmed or its time is over.
pub async fn delivered(
    app: &App,
    phone: &Phone,
    id: EnrollmentId,
) -> Result<wire::Signed, Failure> {
    phone.require_bound()?;
    let enrollment = app.store.get::<Enrollment>(phone.company.id, &id.to_string()).await?;
    let enrollment = enrollment.ok_or_else(Problem::not_found)?.record;
    if enrollment.holder != phone.user.id {
        return Err(Problem::not_found().into());
    }
    match &enrollment.state {
        EnrollmentState::Delivered { device, delivery, .. }
            if *device == phone.device.record.id && app.now() < enrollment.expires =>
        {
            Ok(wire::Signed { message: delivery.clone() })
        }
        EnrollmentState::Delivered { device, .. } if *device != phone.device.record.id => {
            Err(Problem::not_found().into())
        }
        EnrollmentState::Open if app.now() < enrollment.expires => Err(Problem::not_found().into()),
        _ => Err(ended(&enrollment).into()),
    }
}

fn record_step(
    unit: &mut Unit<'_>,
    enrollment: &Enrollment,
    kind: &str,
    actor: Actor,
    device: Option<DeviceId>,
) {
    let subject = Subject {
        token: Some(enrollment.token),
        user: Some(enrollment.holder),
        enrollment: Some(enrollment.id),
        device,
        ..Subject::default()
    };
    let draft: Draft = unit.draft(enrollment.company, kind, actor).about(subject);
    unit.record(draft.with("generation", enrollment.generation));
}

/// The seed of an open enrollment as a key URI, once, for the holder's authenticator app. The
/// audit says that the seed was seen.
pub async fn otpauth(
    app: &App,
    caller: &Caller,
    id: EnrollmentId,
) -> Result<Plan<OtpauthView>, Failure> {
    let mut unit = Unit::new(app);
    let company = caller.company.id;
    let mut enrollment = open_one(&mut unit, company, id).await?.record;
    if matches!(enrollment.state, EnrollmentState::InHand { .. }) {
        return Err(in_hand().into());
    }
    if enrollment.profile != Profile::AuthenticatorApp {
        return Err(wrong_profile(
            "This company's seeds go to the AppMóvil: ask for an activation code.",
        )
        .into());
    }
    if enrollment.state != EnrollmentState::Open {
        return Err(ended(&Enrollment { state: EnrollmentState::Cancelled, ..enrollment }).into());
    }
    let token = super::tokens::token_of(&mut unit, company, enrollment.token).await?.record.token;
    let parameters = enrollment.parameters();
    let seed = Seed::generate(parameters.algorithm.key_length(), app.entropy.as_ref());
    let purpose = Purpose::Seed { company, token: token.id, generation: enrollment.generation };
    let sealed = app.keyring.seal_seed(&seed, &purpose, app.entropy.as_ref());
    let uri = KeyUri {
        kind: otpauth::Kind::Totp { period: parameters.period },
        issuer: Some(Label::from(&caller.company.name)),
        account: Label::parse(token.serial.as_str()).map_err(|_| unprintable())?,
        seed,
        algorithm: parameters.algorithm,
        digits: parameters.digits,
    }
    .to_uri();
    let qr_svg = qr::svg(&uri, "Código QR · QR code").map_err(|_| unprintable())?;
    enrollment.state = EnrollmentState::Shown { seed: sealed };
    unit.save(&enrollment);
    record_step(&mut unit, &enrollment, "enrollment.seed_shown", caller.actor(), None);
    Ok(unit.plan(OtpauthView { uri: uri.to_string(), qr_svg: qr_svg.to_string() }))
}

impl View for wire::Confirmed {}

/// Who confirms.
#[derive(Clone)]
pub enum Confirming {
    /// The phone that received the seed.
    Phone(Box<Phone>),
    /// A program, for an authenticator app.
    Program(Box<Caller>),
}

impl Confirming {
    fn company(&self) -> &Company {
        match self {
            Self::Phone(phone) => &phone.company,
            Self::Program(caller) => &caller.company,
        }
    }

    fn actor(&self) -> Actor {
        match self {
            Self::Phone(phone) => phone.actor(),
            Self::Program(caller) => caller.actor(),
        }
    }
}

/// Proves a delivered or shown seed by a code of it. The generation goes live and an older one
/// dies in one transaction, which also consumes the code's step (security 26, 48, 49).
pub async fn confirm(
    app: &Arc<App>,
    by: Confirming,
    id: EnrollmentId,
    sent: Sent,
) -> Result<wire::Confirmed, Failure> {
    let company = by.company().clone();
    let enrollment = app.store.get::<Enrollment>(company.id, &id.to_string()).await?;
    let enrollment = enrollment.ok_or_else(Problem::not_found)?.record;
    let method = enrollment.parameters().into();
    let (sealed, method, after, drift) = match (&by, &enrollment.state) {
        (Confirming::Phone(phone), _) if enrollment.holder != phone.user.id => {
            return Err(Problem::not_found().into());
        }
        (Confirming::Phone(phone), EnrollmentState::Confirmed { device, .. })
            if *device == Some(phone.device.record.id) =>
        {
            // The reply was lost, and the phone asks again.
            return Ok(wire::Confirmed {
                token: enrollment.token,
                generation: enrollment.generation,
            });
        }
        (_, state) if state.is_open() && app.now() >= enrollment.expires => {
            return Err(ended(&enrollment).into());
        }
        (Confirming::Phone(phone), EnrollmentState::Delivered { device, seed, .. })
            if *device == phone.device.record.id =>
        {
            phone.require_bound()?;
            (seed.clone(), method, None, 0)
        }
        (Confirming::Program(_), EnrollmentState::Shown { seed }) => {
            (seed.clone(), method, None, 0)
        }
        (Confirming::Program(_), EnrollmentState::InHand { seed, method, after, drift }) => {
            (seed.clone(), *method, *after, *drift)
        }
        (_, EnrollmentState::Open) => {
            return Err(wrong_profile("Nothing was delivered yet that a code could prove.").into());
        }
        (_, state) if state.is_open() => return Err(Problem::not_found().into()),
        _ => return Err(ended(&enrollment).into()),
    };
    let in_hand = matches!(enrollment.state, EnrollmentState::InHand { .. });
    if matches!(sent, Sent::Two(_)) && !in_hand {
        let detail = "only a token that came with its seed is looked for by two codes";
        return Err(Problem::field("#/next_code", detail).into());
    }
    let against =
        Against::Proving { generation: enrollment.generation, sealed, method, after, drift };
    let client = match &by {
        Confirming::Program(caller) => Some(caller.client.id),
        Confirming::Phone(_) => None,
    };
    let tried = By { company: &company, token: Some(enrollment.token), client };
    let proved = match attempt(app, tried, sent, against).await? {
        Tried::Proved(proved) => proved,
        Tried::Refused if in_hand => {
            return Err(Problem::new(
                ProblemType::CodeInvalid,
                "The code is not one this token shows now. Try the next one, or send two in a row: code and next_code.",
            )
            .into());
        }
        Tried::Refused | Tried::Accepted => {
            return Err(Problem::new(
                ProblemType::CodeInvalid,
                "The code is not one of the new seed. Check the phone's clock and try the next code.",
            )
            .into());
        }
        Tried::Locked(until) => {
            let wait = until.map_or(3600, |until| until.since(app.now()).as_secs());
            return Err(Problem::new(
                ProblemType::TokenLocked,
                "Too many wrong codes: wait, then try again.",
            )
            .retry_after(wait)
            .into());
        }
        Tried::Unreadable => {
            return Err(
                Problem::new(ProblemType::Unavailable, "Codes cannot be checked now.").into()
            );
        }
    };
    let acted = act(app, None, move |app| {
        let by = by.clone();
        async move { prove(&app, &by, id, proved).await }
    })
    .await?;
    match acted {
        Acted::Done(confirmed, _) => Ok(confirmed),
        Acted::Again(_) => {
            Err(Problem::new(ProblemType::Internal, "Answered twice without a key.").into())
        }
    }
}

async fn prove(
    app: &App,
    by: &Confirming,
    id: EnrollmentId,
    proved: Proved,
) -> Result<Plan<wire::Confirmed>, Failure> {
    let mut unit = Unit::new(app);
    let company = by.company().id;
    let mut enrollment = open_one(&mut unit, company, id).await?.record;
    let of_profile = enrollment.parameters().into();
    let (sealed, method, custody) = match &enrollment.state {
        EnrollmentState::Delivered { device, seed, .. } => {
            (seed.clone(), of_profile, Custody::Phone(*device))
        }
        EnrollmentState::Shown { seed } => (seed.clone(), of_profile, Custody::AuthenticatorApp),
        EnrollmentState::InHand { seed, method, .. } => (seed.clone(), *method, Custody::Imported),
        _ => return Err(ended(&enrollment).into()),
    };
    if let Confirming::Phone(phone) = by {
        super::devices::bound(&mut unit, phone).await?;
    }
    let stored = super::tokens::token_of(&mut unit, company, enrollment.token).await?;
    let changed = stored
        .record
        .token
        .clone()
        .prove(id, custody, unit.now)
        .map_err(|refused| problem_of(refused, Some(&stored.record)))?;
    let Some(live) = changed.token.live() else { return Err(Problem::not_found().into()) };
    let confirmed = wire::Confirmed { token: enrollment.token, generation: live.generation };
    enrollment.state =
        EnrollmentState::Confirmed { at: unit.now, step: proved.step, device: custody.device() };
    unit.save(&enrollment);
    let proven = apply(&mut unit, &stored, changed, by.actor(), None).await?;
    go_live(&mut unit, &proven.token, live, sealed, method, proved);
    Ok(unit.plan(confirmed))
}

impl View for wire::Rotating {
    const STATUS: u16 = 201;
}

/// A rotation that the holder begins on the phone with the live generation.
pub async fn rotate(
    app: &App,
    phone: &Phone,
    id: TokenId,
    text: &str,
) -> Result<Plan<wire::Rotating>, Failure> {
    phone.require_bound()?;
    let mut unit = Unit::new(app);
    let mut device = super::devices::bound(&mut unit, phone).await?;
    let operation = OperationId::new(unit.now, app.entropy.as_ref());
    let from = Answering { device: device.id, user: device.user, key: &device.key };
    let (proof, request) = semilla_core::approval::rotation(from, text, &app.issuer, operation)
        .map_err(super::devices::signature_invalid)?;
    let stored = super::tokens::token_of(&mut unit, phone.company.id, id).await?;
    let live = stored.record.token.live();
    let here = live.is_some_and(|live| live.custody == Custody::Phone(device.id));
    if request.token != id || stored.record.token.holder() != Some(phone.user.id) || !here {
        return Err(Problem::not_found().into());
    }
    let asked_by = Some(Digest::of(text.as_bytes()).to_string());
    if let Some(open) = stored.record.token.enrollment {
        let open = unit.must::<Enrollment>(phone.company.id, &open.to_string()).await?.record;
        if open.asked_by == asked_by {
            // The reply was lost, and the phone asks again.
            let (enrollment, generation) = (open.id, open.generation);
            return Ok(unit.plan(wire::Rotating { enrollment, generation }));
        }
    }
    if live.map(|live| live.generation) != Some(request.generation) {
        return Err(
            problem_of(semilla_core::token::Refused::ProofMismatch, Some(&stored.record)).into()
        );
    }
    super::devices::count(&mut unit, &mut device, request.ctr, request.iat).await?;
    let semilla_core::approval::Approvable::Rotate(cause) = proof.action() else {
        return Err(Problem::not_found().into());
    };
    let enrollment = EnrollmentId::new(unit.now, app.entropy.as_ref());
    let changed = stored
        .record
        .token
        .clone()
        .rotate(proof, stored.version, enrollment, unit.now)
        .map_err(|refused| problem_of(refused, Some(&stored.record)))?;
    let generation = changed.token.generation;
    apply(&mut unit, &stored, changed, phone.actor(), Some(cause)).await?;
    let opened = unit.must::<Enrollment>(phone.company.id, &enrollment.to_string()).await?.record;
    unit.save(&Enrollment { asked_by, ..opened });
    Ok(unit.plan(wire::Rotating { enrollment, generation }))
}

/// Ends an enrollment whose time is over. Does nothing to one that has an end.
pub async fn expire(
    app: &App,
    company: CompanyId,
    id: EnrollmentId,
) -> Result<Plan<super::views::Nothing>, Failure> {
    let mut unit = Unit::new(app);
    if let Some(enrollment) = unit.get::<Enrollment>(company, &id.to_string()).await?
        && enrollment.record.state.is_open()
        && unit.now >= enrollment.record.expires
    {
        // First the enrollment, so that its token finds it ended.
        super::effects::end_enrollment(&mut unit, company, id, EnrollmentState::Expired).await?;
        super::effects::close_enrollment(&mut unit, &enrollment.record).await?;
    }
    Ok(unit.plan(super::views::Nothing {}))
}
