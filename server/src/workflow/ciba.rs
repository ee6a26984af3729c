//! Approvals that a relying party asks of a person's phone, for something of its own (OpenID CIBA
//! Core 1.0): asking, looking for the answer, and telling that there is one. What is asked becomes
//! an operation like any other, with the same number, the same deadline and the same signature;
//! what comes of it is an ID token.
//!
//! The number. CIBA has no second screen: whoever can make a program ask can hope that a tired
//! person says yes, and a `binding_message` that nobody compares does not help (security F11, 66).
//! So the program is answered a number that it shows to the person in front of it, and the person
//! types it on the phone. Only a program that the bank registered as one that cannot show it goes
//! without.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, header};
use ring::digest::{SHA256, digest};
use semilla_core::approval::{Approvable, Operation, OperationState};
use semilla_core::audit::{Actor, Draft, Subject};
use semilla_core::base64url;
use semilla_core::entropy;
use semilla_core::id::{CompanyId, OperationId, UserId};
use semilla_core::person::{Company, User};
use semilla_core::problem::Problem;
use semilla_core::protocol::approval::{ApprovalResponse, DenialReason, VerificationMethod};
use semilla_core::protocol::assertion::ClientKey;
use semilla_core::protocol::consent::{BindingMessage, Consent, Details};
use semilla_core::protocol::jwk::KeyId;
use semilla_core::protocol::jws::{self, KeyHeader};
use semilla_core::protocol::messages;
use semilla_core::seal::Purpose;
use serde::{Deserialize, Serialize};

use super::approvals::{self, Approvers, AskedAbout};
use super::caller::sha256;
use super::unit::Unit;
use super::{Failure, act};
use crate::app::App;
use crate::records::{
    AccessToken, ApprovalSettings, Client, ConsentHistory, ConsentRequest, DeliveryMode,
};
use crate::store::{Batch, Query, Record, Records, Scope, StoreError, Write};

/// How many seconds have to pass between two looks, at first.
pub const INTERVAL: u64 = 5;

/// How many more, whenever a program looks too soon (CIBA Core section 11).
const SLOWER: u64 = 5;

/// The longest time a person may be given to answer, in seconds (security F11).
pub const EXPIRY_MAX: u64 = 600;

/// How long an approval in the last moment may still be fetched.
const GRACE: Duration = Duration::from_secs(60);

/// How many requests that are not approved a program may ask of a person: in 10 minutes, and in a
/// day (security 65).
const UNAPPROVED: [(Duration, usize); 2] =
    [(Duration::from_secs(600), 3), (Duration::from_secs(86_400), 10)];

/// How long a program asks nothing of a person who said that it was not them (security 67).
const FRAUD_QUIET: Duration = Duration::from_secs(3600);

/// How long access and ID tokens live, in seconds.
const TOKEN_SECONDS: u64 = 300;

/// How often a program is told that there is an answer, until it listens.
const PINGS_MAX: u32 = 4;

/// The kind of an ID token: what clients expect. It cannot pass for any other message of ours,
/// which have kinds of their own, and is signed with a key that signs nothing else.
const ID_TOKEN: &str = "JWT";

/// The class of an approval with the number typed, and of one without.
pub const ACR: [&str; 2] = ["urn:semilla:acr:number", "urn:semilla:acr:phone"];

/// Why a relying party is refused, in the words of OAuth.
#[derive(Debug)]
pub struct Refused {
    /// The error.
    pub error: &'static str,
    /// For people.
    pub detail: String,
    /// What is recorded of it.
    pub reason: Option<&'static str>,
}

impl Refused {
    /// A refusal.
    pub fn new(error: &'static str, detail: impl Into<String>) -> Self {
        Self { error, detail: detail.into(), reason: None }
    }

    fn because(mut self, reason: &'static str) -> Self {
        self.reason = Some(reason);
        self
    }
}

/// What a request leads to, and what is stored of it, refused or not.
pub struct Planned<T> {
    /// What is stored.
    pub batch: Batch,
    /// The answer.
    pub outcome: Result<T, Refused>,
}

impl<T> Planned<T> {
    fn nothing(refused: Refused) -> Self {
        Self { batch: Batch::default(), outcome: Err(refused) }
    }
}

/// Whether a program can be set so; if not, where and why not.
pub fn check(
    app: &App,
    settings: &ApprovalSettings,
    keys: &[ClientKey],
) -> Result<(), (&'static str, String)> {
    let wrong = |place, what: &str| Err((place, what.to_owned()));
    match (settings.mode, &settings.notification_endpoint) {
        (DeliveryMode::Ping, Some(endpoint)) => {
            let checked = app.outbound.address(endpoint);
            checked.map_err(|error| ("/notification_endpoint", error.to_string()))?;
        }
        (DeliveryMode::Ping, None) => {
            return wrong("/notification_endpoint", "is missing: where is the program told?");
        }
        (DeliveryMode::Poll, Some(_)) => {
            return wrong("/notification_endpoint", "is for the mode ping");
        }
        (DeliveryMode::Poll, None) => {}
    }
    let is_type = |name: &String| {
        (1..=100).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic())
    };
    if settings.details_types.len() > 20 || !settings.details_types.iter().all(is_type) {
        return wrong("/details_types", "at most 20, each of 1 to 100 visible characters");
    }
    if (settings.signed_requests || settings.fapi) && keys.is_empty() {
        return wrong("", "signed requests need the program's keys: give jwks");
    }
    Ok(())
}

/// Whom a program means.
#[derive(Clone, Debug)]
pub enum Hint {
    /// By `login_hint`: their login or their id.
    Login(String),
    /// By `id_token_hint`.
    IdToken(String),
}

/// What a program asks.
#[derive(Clone, Debug)]
pub struct Request {
    /// Whom.
    pub hint: Hint,
    /// In its own words.
    pub binding_message: Option<BindingMessage>,
    /// What exactly.
    pub details: Details,
    /// For how long, in seconds.
    pub requested_expiry: Option<u64>,
    /// What the program knows a ping by.
    pub notification_token: Option<String>,
}

/// The answer of section 7.3, with the number. No `Debug`: it holds both secrets.
pub struct Asked {
    /// What the program looks for the answer with.
    pub auth_req_id: String,
    /// For how many seconds.
    pub expires_in: u64,
    /// The number to show to the person; none where none has to be typed.
    pub match_number: Option<String>,
}

/// What of an ID token makes it a hint.
#[derive(Deserialize)]
struct IdTokenHint {
    iss: String,
    aud: String,
    sub: UserId,
}

/// Whom a hint means, if it is somebody of the program's company.
async fn person(app: &App, client: &Client, hint: &Hint) -> Result<Option<UserId>, StoreError> {
    match hint {
        Hint::Login(login) => match login.parse::<UserId>() {
            Ok(id) => Ok(Some(id)),
            Err(_) => {
                let name = format!("{}/{login}", client.company);
                let found = app.store.lookup(Scope::Login, &name).await?;
                Ok(found.and_then(|(_, id)| id.parse().ok()))
            }
        },
        // One that has expired still says who it was about (OpenID Connect Core 3.1.2.1).
        Hint::IdToken(text) => {
            let key = app.keys.id_tokens.public();
            let read = jws::verify::<IdTokenHint>(text, ID_TOKEN, key).ok();
            let is_ours =
                |hint: &IdTokenHint| hint.iss == app.issuer && hint.aud == client.id.to_string();
            Ok(read.filter(is_ours).map(|hint| hint.sub))
        }
    }
}

/// Asks a person's phones.
pub async fn ask(
    app: &App,
    client: &Client,
    settings: &ApprovalSettings,
    request: &Request,
) -> Result<Planned<Asked>, Failure> {
    let mut unit = Unit::new(app);
    let company = client.company;
    let owner = unit.must::<Company>(CompanyId::BANK, &company.to_string()).await?.record;
    // Nobody, somebody who does not take part and somebody without a phone look the same.
    let unknown = || Refused::new("unknown_user_id", "There is nobody whose phone could be asked.");
    let Some(user) = person(app, client, &request.hint).await? else {
        return Ok(Planned::nothing(unknown()));
    };
    let user = unit.get::<User>(company, &user.to_string()).await?.map(|user| user.record);
    let Some(user) = user.filter(|user| user.active) else {
        return Ok(Planned::nothing(unknown()));
    };
    let phones = approvals::trusted_phones(&mut unit, company, user.id).await?;
    if phones.is_empty() {
        return Ok(Planned::nothing(unknown()));
    }
    let mut asked = match may_ask(&mut unit, client, user.id).await? {
        Ok(asked) => asked,
        Err(refused) => {
            let subject =
                Subject { user: Some(user.id), client: Some(client.id), ..Subject::default() };
            record_refusal(&mut unit, company, subject, &refused);
            return Ok(Planned { batch: unit.into_batch(), outcome: Err(refused) });
        }
    };
    let operation = OperationId::new(unit.now, app.entropy.as_ref());
    let consent = Consent {
        client: client.id,
        client_name: client.name.clone(),
        binding_message: request.binding_message.clone(),
        authorization_details: request.details.clone(),
        number: settings.match_number,
    };
    let expires_in =
        request.requested_expiry.unwrap_or(owner.policy.approval().as_secs()).min(EXPIRY_MAX);
    let about = AskedAbout {
        token: None,
        holder: user.id,
        new_device: None,
        consent: Some((consent, Duration::from_secs(expires_in))),
    };
    let (action, approvers) = (Approvable::Consent, Approvers::of(phones));
    let view =
        approvals::send(&mut unit, operation, &owner, action, &user, about, approvers).await?;
    let secret = base64url::encode(&entropy::bytes::<32>(app.entropy.as_ref()));
    let auth_req_id = format!("{operation}.{secret}");
    let ping = request.notification_token.as_ref().filter(|_| settings.mode == DeliveryMode::Ping);
    let ping = ping.map(|token| {
        let told = Told { auth_req_id: auth_req_id.clone(), token: token.clone() };
        let plain = zeroize::Zeroizing::new(serde_json::to_vec(&told).unwrap_or_default());
        let id = operation.to_string();
        app.keyring.seal(&plain, &ping_purpose(company, &id), app.entropy.as_ref())
    });
    let day = UNAPPROVED[1].0;
    unit.save(&ConsentRequest {
        company,
        operation,
        client: client.id,
        user: user.id,
        sha256: sha256(&auth_req_id),
        interval: INTERVAL,
        looked: None,
        redeemed: None,
        ping,
        ping_failures: 0,
        ping_due: None,
        expires: unit.now.plus(day),
    });
    asked.asked.push(operation);
    asked.expires = unit.now.plus(day);
    unit.save(&asked);
    let match_number = view.match_number.filter(|_| settings.match_number);
    let answer = Asked { auth_req_id, expires_in, match_number };
    Ok(Planned { batch: unit.into_batch(), outcome: Ok(answer) })
}

fn ping_purpose(company: CompanyId, operation: &str) -> Purpose<'_> {
    Purpose::Other { kind: "ping", company, id: operation }
}

/// Whether a program may ask this person now: one request at a time, few that nobody approves,
/// and none for a while once they said that it was not them. Returns what it asked lately, without
/// what was approved.
async fn may_ask(
    unit: &mut Unit<'_>,
    client: &Client,
    user: UserId,
) -> Result<Result<ConsentHistory, Refused>, Failure> {
    let denied = |detail: &str| Refused::new("access_denied", detail);
    let (company, now) = (client.company, unit.now);
    let id = ConsentHistory::id_of(client.id, user);
    let history = unit.get::<ConsentHistory>(company, &id).await?.map(|kept| kept.record);
    let mut history = history.unwrap_or_else(|| ConsentHistory {
        company,
        client: client.id,
        user,
        asked: Vec::new(),
        expires: now,
    });
    let mut unapproved = Vec::new();
    for id in std::mem::take(&mut history.asked) {
        let operation = unit.get::<Operation>(company, &id.to_string()).await?;
        let Some(operation) = operation.map(|kept| kept.record) else { continue };
        match &operation.state {
            OperationState::Pending if operation.is_overdue(now) => {
                approvals::expire_in(unit, &operation).await?;
            }
            OperationState::Pending => {
                let refused = denied("One request of this program waits for this person already.");
                return Ok(Err(refused.because("pending")));
            }
            OperationState::Denied { reason: DenialReason::SuspectedFraud, at, .. }
                if now.since(*at) < FRAUD_QUIET =>
            {
                let refused = denied("This person said that an earlier request was a fraud.");
                return Ok(Err(refused.because("fraud")));
            }
            OperationState::Executed { .. } => continue,
            _ => {}
        }
        if now.since(operation.created) < UNAPPROVED[1].0 {
            unapproved.push(operation.created);
            history.asked.push(id);
        }
    }
    for (within, most) in UNAPPROVED {
        let lately = unapproved.iter().filter(|created| now.since(**created) < within).count();
        if lately >= most {
            let refused = denied("This person was asked too often without agreeing. Wait.");
            return Ok(Err(refused.because("limit")));
        }
    }
    Ok(Ok(history))
}

fn record_refusal(unit: &mut Unit<'_>, company: CompanyId, subject: Subject, refused: &Refused) {
    let (Some(reason), Some(client)) = (refused.reason, subject.client) else { return };
    let actor = Actor::Client { client, asker: None };
    let draft: Draft = unit.draft(company, "consent.refused", actor).about(subject);
    unit.record(draft.with("error", refused.error).with("reason", reason));
}

/// The tokens for an approval. No `Debug`.
pub struct Redeemed {
    /// The access token: good for nothing of this server's API.
    pub access_token: String,
    /// The ID token.
    pub id_token: String,
    /// For how many seconds both hold.
    pub expires_in: u64,
    /// What was agreed to.
    pub details: Details,
}

/// Looks for the answer, and gives out tokens for a yes, once.
pub async fn redeem(
    app: &App,
    client: &Client,
    auth_req_id: &str,
    bound_to: Option<KeyId>,
) -> Result<Planned<Redeemed>, Failure> {
    let mut unit = Unit::new(app);
    let company = client.company;
    let unknown = |reason| {
        let detail = "This auth_req_id is unknown, used, or was given to another program.";
        Refused::new("invalid_grant", detail).because(reason)
    };
    let mut subject = Subject { client: Some(client.id), ..Subject::default() };
    let id = auth_req_id.split_once('.').and_then(|(id, _)| id.parse::<OperationId>().ok());
    let kept = match id {
        Some(id) => unit.get::<ConsentRequest>(company, &id.to_string()).await?,
        None => None,
    };
    let kept = kept.map(|kept| kept.record).filter(|kept| kept.sha256 == sha256(auth_req_id));
    let refusal = match &kept {
        None => Some("unknown"),
        Some(kept) if kept.client != client.id => Some("foreign"),
        Some(kept) if kept.redeemed.is_some() => Some("used"),
        Some(_) => None,
    };
    let mut kept = match (kept, refusal) {
        (Some(kept), None) => kept,
        (_, reason) => {
            let refused = unknown(reason.unwrap_or("unknown"));
            record_refusal(&mut unit, company, subject, &refused);
            return Ok(Planned { batch: unit.into_batch(), outcome: Err(refused) });
        }
    };
    let id = kept.operation;
    subject.operation = Some(id);
    subject.user = Some(kept.user);
    let operation = unit.must::<Operation>(company, &id.to_string()).await?.record;
    let now = unit.now;
    let outcome = match &operation.state {
        OperationState::Pending if operation.is_overdue(now) => {
            approvals::expire_in(&mut unit, &operation).await?;
            Err(expired())
        }
        OperationState::Pending => {
            let wait = Duration::from_secs(kept.interval);
            let is_early = kept.looked.is_some_and(|looked| now.since(looked) < wait);
            kept.looked = Some(now);
            let refused = if is_early {
                kept.interval += SLOWER;
                let detail = format!("Look again in {} seconds, not before.", kept.interval);
                Refused::new("slow_down", detail)
            } else {
                Refused::new("authorization_pending", "The person has not answered yet.")
            };
            unit.save(&kept);
            Err(refused)
        }
        OperationState::Expired { .. } => Err(expired()),
        OperationState::Denied { .. } => Err(Refused::new("access_denied", "The person said no.")),
        OperationState::Failed { problem, .. } if problem == "number-mismatch" => {
            Err(Refused::new("access_denied", "A wrong number was typed. Ask again."))
        }
        OperationState::Failed { .. } | OperationState::Cancelled { .. } => {
            Err(Refused::new("transaction_failed", "The request ended without an answer."))
        }
        OperationState::Executed { .. } if now.since(operation.expires) > GRACE => Err(expired()),
        OperationState::Executed { .. } => {
            let person = unit.must::<User>(company, &kept.user.to_string()).await?.record;
            if person.active {
                kept.redeemed = Some(now);
                // Nobody has to be told any more.
                (kept.ping, kept.ping_due) = (None, None);
                unit.save(&kept);
                Ok(issue(&mut unit, client, &operation, auth_req_id, bound_to, subject)?)
            } else {
                Err(Refused::new("access_denied", "The person does not take part any more."))
            }
        }
    };
    Ok(Planned { batch: unit.into_batch(), outcome })
}

fn expired() -> Refused {
    Refused::new("expired_token", "The time to answer is over. Ask again.")
}

/// The claims of an ID token (OpenID Connect Core section 2, CIBA Core section 10.3.1).
#[derive(Serialize)]
struct IdToken<'a> {
    iss: &'a str,
    sub: UserId,
    aud: String,
    exp: u64,
    iat: u64,
    auth_time: u64,
    jti: String,
    acr: &'static str,
    amr: Vec<&'static str>,
    at_hash: String,
    #[serde(rename = "urn:openid:params:jwt:claim:auth_req_id")]
    auth_req_id: &'a str,
    #[serde(skip_serializing_if = "Details::is_empty")]
    authorization_details: &'a Details,
}

fn issue(
    unit: &mut Unit<'_>,
    client: &Client,
    operation: &Operation,
    auth_req_id: &str,
    bound_to: Option<KeyId>,
    subject: Subject,
) -> Result<Redeemed, Failure> {
    let (app, now) = (unit.app, unit.now);
    let inconsistent = |what: String| StoreError::Inconsistent { table: "operations", what };
    let (OperationState::Executed { device, at, key, response }, Some(consent)) =
        (&operation.state, &operation.consent)
    else {
        return Err(inconsistent(format!("{} was not agreed to", operation.id)).into());
    };
    // The signature is verified once more: nothing else vouches for the person.
    let answer: ApprovalResponse =
        messages::verify(response, key, &device.to_string(), &app.issuer)
            .map_err(|error| inconsistent(format!("{}: {error}", operation.id)))?;
    let access_token = base64url::encode(&entropy::bytes::<32>(app.entropy.as_ref()));
    let expires = now.plus(Duration::from_secs(TOKEN_SECONDS));
    let hash = digest(&SHA256, access_token.as_bytes());
    let claims = IdToken {
        iss: &app.issuer,
        sub: operation.holder,
        aud: client.id.to_string(),
        exp: expires.seconds(),
        iat: now.seconds(),
        auth_time: at.seconds(),
        jti: base64url::encode(&entropy::bytes::<16>(app.entropy.as_ref())),
        acr: ACR[usize::from(!consent.number)],
        // RFC 8176: a key in software, and how the phone knew who holds it.
        amr: vec![
            "swk",
            match answer.uv.method {
                VerificationMethod::Pin => "pin",
                VerificationMethod::Biometric => "user",
            },
        ],
        at_hash: base64url::encode(&hash.as_ref()[..16]),
        auth_req_id,
        authorization_details: &consent.authorization_details,
    };
    let key = &app.keys.id_tokens;
    let id_token = jws::sign(key, ID_TOKEN, KeyHeader::Name, &claims, &app.random);
    let sha256 = sha256(&access_token);
    unit.save(&AccessToken {
        sha256: sha256.clone(),
        company: client.company,
        client: client.id,
        scopes: Vec::new(),
        expires,
        bound_to,
    });
    let reserve = Write::Reserve(Scope::AccessToken, sha256.clone(), client.company, sha256);
    unit.batch.writes.push(reserve);
    let actor = Actor::Client { client: client.id, asker: None };
    let mut draft = unit.draft(client.company, "consent.redeemed", actor).about(subject);
    if let Some(key) = bound_to {
        draft = draft.with("bound_to", key);
    }
    unit.record(draft);
    let details = consent.authorization_details.clone();
    Ok(Redeemed { access_token, id_token, expires_in: TOKEN_SECONDS, details })
}

/// What a program is told.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Told {
    auth_req_id: String,
    token: String,
}

/// An operation that a program asked for has an end: it is to be told.
pub(super) async fn ended(unit: &mut Unit<'_>, operation: &Operation) -> Result<(), Failure> {
    let id = operation.id.to_string();
    let Some(kept) = unit.get::<ConsentRequest>(operation.company, &id).await? else {
        return Ok(());
    };
    if kept.record.ping.is_some() {
        let ping_due = Some(unit.now);
        unit.save(&ConsentRequest { ping_due, ..kept.record });
    }
    Ok(())
}

/// Tells programs that there are answers (CIBA Core section 10.2). Returns how many were told, or
/// could not be.
pub async fn tell(app: &Arc<App>) -> Result<usize, Failure> {
    let mut query = Query::of(ConsentRequest::TABLE, CompanyId::BANK, 100);
    query.company = None;
    query.order = Some("ping_due");
    query.at_most = Some(("ping_due", app.now().milliseconds()));
    let due = app.store.find::<ConsentRequest>(&query).await?;
    let told = due.iter().map(|kept| tell_one(app, &kept.record));
    for told in futures_util::future::join_all(told).await {
        told?;
    }
    Ok(due.len())
}

async fn tell_one(app: &Arc<App>, kept: &ConsentRequest) -> Result<(), Failure> {
    let heard = match post(app, kept).await {
        Ok(status) if (200..300).contains(&status) => Ok(()),
        Ok(status) => Err(format!("status {status}")),
        Err(error) => Err(error),
    };
    let (company, id) = (kept.company, kept.operation);
    let heard = Arc::new(heard);
    act(app, None, move |app| {
        let heard = Arc::clone(&heard);
        async move {
            let mut unit = Unit::new(&app);
            let kept = unit.get::<ConsentRequest>(company, &id.to_string()).await?;
            let nothing = super::views::Nothing {};
            let Some(mut kept) = kept.map(|kept| kept.record) else {
                return Ok(unit.plan(nothing));
            };
            let Err(why) = heard.as_ref() else {
                (kept.ping, kept.ping_due) = (None, None);
                unit.save(&kept);
                return Ok(unit.plan(nothing));
            };
            kept.ping_failures += 1;
            if kept.ping_failures < PINGS_MAX {
                let wait = Duration::from_secs(5 << kept.ping_failures);
                kept.ping_due = Some(unit.now.plus(wait));
            } else {
                (kept.ping, kept.ping_due) = (None, None);
                let subject = Subject {
                    client: Some(kept.client),
                    operation: Some(id),
                    ..Subject::default()
                };
                let draft = unit.draft(company, "consent.not_told", Actor::System).about(subject);
                unit.record(draft.with("why", why));
            }
            unit.save(&kept);
            Ok(unit.plan(nothing))
        }
    })
    .await?;
    Ok(())
}

/// Posts what a program is to be told; its status, or why there is none.
async fn post(app: &App, kept: &ConsentRequest) -> Result<u16, String> {
    let id = kept.operation.to_string();
    let client = app.store.get::<Client>(kept.company, &kept.client.to_string()).await;
    let client = client.map_err(|error| error.to_string())?;
    let settings = client.filter(|client| client.record.active);
    let endpoint = settings
        .and_then(|client| client.record.approvals)
        .and_then(|settings| settings.notification_endpoint)
        .ok_or("the program has no endpoint any more")?;
    let sealed = kept.ping.as_ref().ok_or("it was told already")?;
    let opened = app.keyring.open(sealed, &ping_purpose(kept.company, &id));
    let opened = opened.map_err(|error| error.to_string())?;
    let Told { auth_req_id, token } =
        serde_json::from_slice(&opened).map_err(|error| error.to_string())?;
    let mut headers = HeaderMap::new();
    let bearer = HeaderValue::from_str(&format!("Bearer {token}"));
    let mut bearer = bearer.map_err(|error| error.to_string())?;
    bearer.set_sensitive(true);
    headers.insert(header::AUTHORIZATION, bearer);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let body = serde_json::json!({ "auth_req_id": auth_req_id }).to_string();
    let address = app.outbound.address(&endpoint).map_err(|error| error.to_string())?;
    let answer = app.outbound.post(&address, headers, body.into()).await;
    answer.map(|answer| answer.status).map_err(|error| error.to_string())
}

/// Whether what could not be stored could not because it was used before, and not because
/// something else changed.
pub async fn was_used(
    app: &App,
    used: &[crate::records::UsedAssertion],
) -> Result<bool, StoreError> {
    for one in used {
        if app.store.get::<crate::records::UsedAssertion>(one.company, &one.id()).await?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A moment's end for whoever waits longer than a program may.
pub fn too_busy() -> Problem {
    Problem::new(
        semilla_core::problem::ProblemType::Unavailable,
        "Too much changed at the same time. Nothing was done: try again.",
    )
    .retry_after(1)
}
