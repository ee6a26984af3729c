//! Webhooks: a company is told of every change that it could read in its audit trail, at an address
//! of its own. The chain itself is the queue: each record becomes one delivery to each webhook that
//! wants its kind, once, whatever crashes; a delivery is tried again until the receiver has it.
//!
//! Signed as Standard Webhooks has it (standardwebhooks.com), in the envelope of CloudEvents 1.0
//! (structured mode, JSON).

use std::time::Duration;

use schemars::JsonSchema;
use semilla_core::audit::Actor;
use semilla_core::entropy;
use semilla_core::id::WebhookId;
use semilla_core::problem::{Problem, ProblemType};
use semilla_core::seal::Purpose;
use semilla_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::app::App;
use crate::store::{Query, Record, Records, StoreError, Value, Versioned};
use crate::webhooks::records::{Delivery, DeliveryState, KeptSecret, Webhook};
use crate::workflow::caller::Caller;
use crate::workflow::tokens::{page, page_limit, read_cursor, require_version, write_cursor};
use crate::workflow::unit::Unit;
use crate::workflow::views::{Nothing, Page};
use crate::workflow::{Failure, Plan, View};

pub mod dispatch;
pub mod records;
pub mod signature;

/// How many webhooks a company may have.
const WEBHOOKS_MAX: u64 = 20;

/// How many kinds one webhook may name.
const KINDS_MAX: usize = 50;

/// How long the secret before the newest signs as well: 24 hours.
const OLD_SECRET_TIME: Duration = Duration::from_secs(24 * 3600);

/// How many secrets sign at the same time, at most.
const SECRETS_MAX: usize = 3;

/// A webhook to be made.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewWebhook {
    /// Where it is told: `https`, on the public network.
    pub url: String,
    /// Of what: kinds of audit records, such as `token.released`, or `token.` for all that begin so.
    /// Everything but the checks of codes, if not said.
    #[serde(default)]
    pub kinds: Vec<String>,
}

/// What of a webhook may be changed.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookChange {
    /// Where it is told.
    pub url: Option<String>,
    /// Of what.
    pub kinds: Option<Vec<String>>,
    /// Whether it is told anything. What happened while it was not is told once it is again.
    pub active: Option<bool>,
}

/// A webhook as its company sees it: never its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct WebhookView {
    /// Its id.
    pub id: WebhookId,
    /// Where it is told.
    pub url: String,
    /// Of what.
    pub kinds: Vec<String>,
    /// Whether it is told anything.
    pub active: bool,
    /// The last record of the audit trail that was looked at for it.
    pub told: u64,
    /// Since when every delivery has failed.
    pub failing_since: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
    #[serde(skip)]
    version: i64,
}

impl WebhookView {
    fn of(webhook: &Webhook, version: i64) -> Self {
        Self {
            id: webhook.id,
            url: webhook.url.clone(),
            kinds: webhook.kinds.clone(),
            active: webhook.active,
            told: webhook.told,
            failing_since: webhook.failing_since,
            created_at: webhook.created,
            version,
        }
    }
}

impl From<&Versioned<Webhook>> for WebhookView {
    fn from(read: &Versioned<Webhook>) -> Self {
        Self::of(&read.record, read.version)
    }
}

impl View for WebhookView {
    fn version(&self) -> Option<i64> {
        Some(self.version)
    }
}

/// A webhook that has a new secret, which is shown this once. No `Debug`.
#[derive(Clone, Serialize, JsonSchema)]
pub struct WebhookSecret {
    /// The webhook.
    #[serde(flatten)]
    pub webhook: WebhookView,
    /// The secret, as libraries of Standard Webhooks take it.
    pub secret: String,
}

/// A webhook that was made.
#[derive(Clone, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct WebhookCreated(WebhookSecret);

impl View for WebhookSecret {
    fn version(&self) -> Option<i64> {
        self.webhook.version()
    }
}

impl View for WebhookCreated {
    const STATUS: u16 = 201;
    fn location(&self) -> Option<String> {
        Some(format!("/api/v1/webhooks/{}", self.0.webhook.id))
    }
    fn version(&self) -> Option<i64> {
        self.0.version()
    }
}

/// What a secret is sealed for.
pub fn secret_id(webhook: WebhookId, number: u32) -> String {
    format!("{webhook}/{number}")
}

/// Makes a secret the newest of a webhook, and gives it as its receiver keeps it.
fn renew(app: &App, webhook: &mut Webhook, now: Timestamp) -> Zeroizing<String> {
    let secret = Zeroizing::new(
        entropy::bytes::<{ signature::SECRET_LENGTH }>(app.entropy.as_ref()).to_vec(),
    );
    let number = webhook.secrets.first().map_or(1, |newest| newest.number + 1);
    let id = secret_id(webhook.id, number);
    let purpose = Purpose::Other { kind: "webhook-secret", company: webhook.company, id: &id };
    let sealed = app.keyring.seal(&secret, &purpose, app.entropy.as_ref());
    for old in &mut webhook.secrets {
        let end = now.plus(OLD_SECRET_TIME);
        old.until = Some(old.until.map_or(end, |until| until.min(end)));
    }
    webhook.secrets.insert(0, KeptSecret { number, sealed, until: None });
    webhook.secrets.truncate(SECRETS_MAX);
    signature::shown(&secret)
}

/// The secrets that sign now.
fn secrets(
    app: &App,
    webhook: &Webhook,
    now: Timestamp,
) -> Result<Vec<Zeroizing<Vec<u8>>>, StoreError> {
    let good = webhook.secrets.iter().filter(|kept| kept.until.is_none_or(|until| now < until));
    good.map(|kept| {
        let id = secret_id(webhook.id, kept.number);
        let purpose = Purpose::Other { kind: "webhook-secret", company: webhook.company, id: &id };
        app.keyring.open(&kept.sealed, &purpose).map_err(|error| StoreError::Inconsistent {
            table: Webhook::TABLE.name,
            what: format!("{id}: {error}"),
        })
    })
    .collect()
}

fn checked_url(app: &App, url: &str) -> Result<(), Failure> {
    app.outbound
        .address(url)
        .map(drop)
        .map_err(|error| Problem::field("#/url", error.to_string()).into())
}

fn checked_kinds(kinds: &[String]) -> Result<(), Failure> {
    if kinds.len() > KINDS_MAX {
        return Err(Problem::field("#/kinds", format!("must be {KINDS_MAX} at most")).into());
    }
    let is_kind = |kind: &String| {
        (3..=64).contains(&kind.len())
            && kind.contains('.')
            && kind.bytes().all(|byte| byte.is_ascii_lowercase() || b"._".contains(&byte))
    };
    match kinds.iter().position(|kind| !is_kind(kind)) {
        None => Ok(()),
        Some(place) => {
            let detail = "must be a kind such as token.released, or token. for all that begin so";
            Err(Problem::field(format!("#/kinds/{place}"), detail).into())
        }
    }
}

/// The webhooks of the caller's company.
pub async fn list(app: &App, caller: &Caller) -> Result<Page<WebhookView>, Failure> {
    let query = Query::of(Webhook::TABLE, caller.company.id, 100);
    let found = app.store.find::<Webhook>(&query).await?;
    let total = found.len() as u64;
    Ok(Page { items: found.iter().map(WebhookView::from).collect(), next_cursor: None, total })
}

/// One webhook.
pub async fn show(app: &App, caller: &Caller, id: WebhookId) -> Result<WebhookView, Failure> {
    let read = app.store.get::<Webhook>(caller.company.id, &id.to_string()).await?;
    read.as_ref().map(WebhookView::from).ok_or_else(|| Problem::not_found().into())
}

async fn webhook_of(
    unit: &mut Unit<'_>,
    caller: &Caller,
    id: WebhookId,
) -> Result<Versioned<Webhook>, Failure> {
    let read = unit.get::<Webhook>(caller.company.id, &id.to_string()).await?;
    read.ok_or_else(|| Problem::not_found().into())
}

fn record(unit: &mut Unit<'_>, webhook: &Webhook, kind: &str, actor: Actor) {
    let draft = unit.draft(webhook.company, kind, actor).with("webhook", webhook.id);
    unit.record(draft);
}

/// Makes a webhook. It is told of what happens from then on.
pub async fn create(
    app: &App,
    caller: &Caller,
    new: &NewWebhook,
) -> Result<Plan<WebhookCreated>, Failure> {
    checked_url(app, &new.url)?;
    checked_kinds(&new.kinds)?;
    let mut unit = Unit::new(app);
    let company = caller.company.id;
    let count = app.store.count(&Query::of(Webhook::TABLE, company, 1)).await?;
    if count >= WEBHOOKS_MAX {
        let detail = format!("A company has {WEBHOOKS_MAX} webhooks at most: remove one first.");
        return Err(Problem::new(ProblemType::StateConflict, detail).into());
    }
    let mut webhook = Webhook {
        id: WebhookId::new(unit.now, app.entropy.as_ref()),
        company,
        url: new.url.clone(),
        kinds: new.kinds.clone(),
        secrets: Vec::new(),
        active: true,
        told: app.store.audit_head(company).await?.sequence,
        failing_since: None,
        created: unit.now,
    };
    let secret = renew(app, &mut webhook, unit.now).to_string();
    unit.save(&webhook);
    record(&mut unit, &webhook, "webhook.created", caller.actor());
    let view = WebhookView::of(&webhook, unit.version_after(&webhook));
    Ok(unit.plan(WebhookCreated(WebhookSecret { webhook: view, secret })))
}

/// Changes a webhook.
pub async fn change(
    app: &App,
    caller: &Caller,
    id: WebhookId,
    change: &WebhookChange,
    if_match: Option<i64>,
) -> Result<Plan<WebhookView>, Failure> {
    let mut unit = Unit::new(app);
    let read = webhook_of(&mut unit, caller, id).await?;
    require_version(&read, if_match)?;
    let mut webhook = read.record;
    if let Some(url) = &change.url {
        checked_url(app, url)?;
        webhook.url.clone_from(url);
    }
    if let Some(kinds) = &change.kinds {
        checked_kinds(kinds)?;
        webhook.kinds.clone_from(kinds);
    }
    if let Some(active) = change.active {
        webhook.active = active;
    }
    webhook.failing_since = None;
    unit.save(&webhook);
    record(&mut unit, &webhook, "webhook.changed", caller.actor());
    let view = WebhookView::of(&webhook, unit.version_after(&webhook));
    Ok(unit.plan(view))
}

/// Removes a webhook. Nothing more is sent to it.
pub async fn remove(app: &App, caller: &Caller, id: WebhookId) -> Result<Plan<Nothing>, Failure> {
    let mut unit = Unit::new(app);
    let read = webhook_of(&mut unit, caller, id).await?;
    unit.batch.delete(&read);
    unit.forget(&read.record);
    record(&mut unit, &read.record, "webhook.removed", caller.actor());
    Ok(unit.plan(Nothing {}))
}

/// Gives a webhook a new secret. For a day the old one signs as well, beside the new one.
pub async fn rotate_secret(
    app: &App,
    caller: &Caller,
    id: WebhookId,
) -> Result<Plan<WebhookSecret>, Failure> {
    let mut unit = Unit::new(app);
    let mut webhook = webhook_of(&mut unit, caller, id).await?.record;
    let secret = renew(app, &mut webhook, unit.now).to_string();
    unit.save(&webhook);
    record(&mut unit, &webhook, "webhook.secret_rotated", caller.actor());
    let view = WebhookView::of(&webhook, unit.version_after(&webhook));
    Ok(unit.plan(WebhookSecret { webhook: view, secret }))
}

/// Sends an event that says nothing, to see that it arrives.
pub async fn test(app: &App, caller: &Caller, id: WebhookId) -> Result<Plan<WebhookView>, Failure> {
    let mut unit = Unit::new(app);
    let read = webhook_of(&mut unit, caller, id).await?;
    record(&mut unit, &read.record, TESTED, caller.actor());
    Ok(unit.plan(WebhookView::from(&read)))
}

/// The kind of a test, which goes to the webhook that it names alone.
const TESTED: &str = "webhook.tested";

/// From where on everything is sent once more.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Replay {
    /// Behind this record of the audit trail.
    pub after: u64,
}

/// Sends everything behind a record once more, with the same `webhook-id`s as before.
pub async fn replay(
    app: &App,
    caller: &Caller,
    id: WebhookId,
    from: Replay,
) -> Result<Plan<WebhookView>, Failure> {
    let mut unit = Unit::new(app);
    let mut webhook = webhook_of(&mut unit, caller, id).await?.record;
    webhook.told = webhook.told.min(from.after);
    unit.save(&webhook);
    record(&mut unit, &webhook, "webhook.replayed", caller.actor());
    let view = WebhookView::of(&webhook, unit.version_after(&webhook));
    Ok(unit.plan(view))
}

/// A delivery as its company sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct DeliveryView {
    /// Its `webhook-id`.
    #[schemars(example = "msg_019ac6a5-1c00-7000-8000-000000000008_00000000000000000007")]
    pub id: String,
    /// The record of the audit trail.
    pub sequence: u64,
    /// The record's kind.
    pub kind: String,
    /// How it stands.
    pub state: DeliveryState,
    /// How often it was tried.
    pub attempts: u32,
    /// When it is tried next, where it is.
    pub next_at: Option<Timestamp>,
    /// The status that was answered last.
    pub status: Option<u16>,
    /// Why there was no good answer the last time.
    pub error: Option<String>,
}

impl From<&Versioned<Delivery>> for DeliveryView {
    fn from(read: &Versioned<Delivery>) -> Self {
        let it = &read.record;
        Self {
            id: it.id(),
            sequence: it.sequence,
            kind: it.kind.clone(),
            state: it.state,
            attempts: it.attempts,
            next_at: (it.state == DeliveryState::Pending).then_some(it.due),
            status: it.status,
            error: it.error.clone(),
        }
    }
}

impl View for DeliveryView {}

/// How deliveries are asked for.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeliveryListing {
    /// Only those that stand so.
    pub state: Option<DeliveryState>,
    /// Where the last page ended.
    pub cursor: Option<String>,
    /// At most this many: 1 to 100, 20 if not said.
    pub limit: Option<u32>,
}

/// A page of the deliveries to a webhook, the newest first.
pub async fn deliveries(
    app: &App,
    caller: &Caller,
    id: WebhookId,
    listing: &DeliveryListing,
) -> Result<Page<DeliveryView>, Failure> {
    show(app, caller, id).await?;
    let limit = page_limit(listing.limit)?;
    let mut query =
        Query::of(Delivery::TABLE, caller.company.id, limit + 1).equals("webhook", id.to_string());
    if let Some(state) = listing.state {
        query = query.equals("state", state.name());
    }
    query.descending = true;
    let total = app.store.count(&query).await?;
    if let Some(cursor) = &listing.cursor {
        query.after = Some(read_cursor(cursor, "-id")?);
    }
    let found = app.store.find::<Delivery>(&query).await?;
    Ok(page(found, limit, total, |read| write_cursor("-id", &Value::Null, &read.record.id())))
}

/// Sends one delivery once more, now.
pub async fn replay_one(
    app: &App,
    caller: &Caller,
    id: WebhookId,
    delivery: &str,
) -> Result<Plan<DeliveryView>, Failure> {
    let mut unit = Unit::new(app);
    let webhook = webhook_of(&mut unit, caller, id).await?.record;
    let read = unit.get::<Delivery>(caller.company.id, delivery).await?;
    let mut delivery = read
        .map(|read| read.record)
        .filter(|delivery| delivery.webhook == id)
        .ok_or_else(Problem::not_found)?;
    delivery.state = DeliveryState::Pending;
    delivery.attempts = 0;
    delivery.due = unit.now;
    unit.save(&delivery);
    record(&mut unit, &webhook, "webhook.replayed", caller.actor());
    let view = DeliveryView::from(&Versioned { record: delivery, version: 0 });
    Ok(unit.plan(view))
}
