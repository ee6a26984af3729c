//! Telling: records become deliveries, and deliveries are sent until their receivers have them. One
//! task does it; each receiver is sent to by one request at a time, so that a slow one holds up
//! nobody but itself.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use hyper::body::Bytes;
use semilla_core::audit::{Actor, Draft, Record};
use semilla_core::entropy;
use semilla_core::id::{CompanyId, WebhookId};
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;

use super::records::{Delivery, DeliveryState, Webhook};
use super::{TESTED, secrets, signature};
use crate::app::App;
use crate::outbound::Answer;
use crate::store::{AuditQuery, Batch, Query, Record as _, Records, StoreError, Topic, Versioned};

/// After how many seconds a delivery that failed is tried again: as often as there are numbers, over
/// about three days.
const AGAIN_AFTER: [u64; 9] = [5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400];

/// How long a webhook may fail before it is told no more: five days.
const FAILING_MAX: Duration = Duration::from_secs(5 * 24 * 3600);

/// How many requests are out at the same time.
const REQUESTS_MAX: usize = 64;

/// How many records become deliveries in one go.
const RECORDS_AT_ONCE: u32 = 100;

/// How long nothing may be heard before everything is looked at again.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long requests that are out may take once the server stops.
const LAST_PATIENCE: Duration = Duration::from_secs(3);

/// Does it until the server stops.
pub async fn run(app: Arc<App>) {
    let mut news = app.store.subscribe();
    let mut requests: JoinSet<WebhookId> = JoinSet::new();
    let mut busy = HashSet::new();
    let mut grown = Grown::Any;
    loop {
        if let Err(error) = fan_out(&app, &grown).await {
            tracing::warn!(%error, "webhooks are told later");
        }
        match due(&app).await {
            Ok(due) => {
                for delivery in due {
                    if requests.len() < REQUESTS_MAX && busy.insert(delivery.record.webhook) {
                        let app = Arc::clone(&app);
                        requests.spawn(async move {
                            let webhook = delivery.record.webhook;
                            if let Err(error) = deliver(&app, delivery).await {
                                tracing::warn!(%error, %webhook, "a delivery is tried again");
                            }
                            webhook
                        });
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "webhooks are told later"),
        }
        grown = tokio::select! {
            () = app.stopping.cancelled() => return finish(requests).await,
            Some(done) = requests.join_next() => {
                match done {
                    Ok(webhook) => drop(busy.remove(&webhook)),
                    // A panic: whose it was is not known, and nobody else is sent to meanwhile.
                    Err(_) => busy.clear(),
                }
                Grown::These(BTreeSet::new())
            }
            heard = news.recv() => match heard {
                Ok(topics) => Grown::These(
                    topics
                        .iter()
                        .filter_map(|topic| match topic {
                            Topic::Audit(company) => Some(*company),
                            _ => None,
                        })
                        .collect(),
                ),
                Err(RecvError::Lagged(_)) => Grown::Any,
                Err(RecvError::Closed) => return,
            },
            () = tokio::time::sleep(PATIENCE) => Grown::Any,
        };
    }
}

/// Lets requests that are out come to their end, and be noted, for a while: what is not noted is
/// sent again.
async fn finish(mut requests: JoinSet<WebhookId>) {
    let all = async { while requests.join_next().await.is_some() {} };
    // Whoever is cut off here finds its delivery pending at the next start.
    let _ = tokio::time::timeout(LAST_PATIENCE, all).await;
}

/// Which chains may have grown.
enum Grown {
    Any,
    These(BTreeSet<CompanyId>),
}

/// Makes deliveries of the records that nobody was told of yet.
async fn fan_out(app: &App, grown: &Grown) -> Result<(), StoreError> {
    let mut webhooks = Vec::new();
    match grown {
        Grown::Any => {
            let mut query = Query::of(Webhook::TABLE, CompanyId::BANK, 1000);
            query.company = None;
            webhooks = app.store.find::<Webhook>(&query.equals("state", "active")).await?;
        }
        Grown::These(companies) => {
            for company in companies {
                let query = Query::of(Webhook::TABLE, *company, 100).equals("state", "active");
                webhooks.extend(app.store.find::<Webhook>(&query).await?);
            }
        }
    }
    for webhook in webhooks {
        match tell(app, webhook).await {
            // Changed meanwhile: it is looked at again.
            Ok(()) | Err(StoreError::Conflict) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The same for one webhook. Its place in the chain and the deliveries are one transaction.
async fn tell(app: &App, mut webhook: Versioned<Webhook>) -> Result<(), StoreError> {
    loop {
        let company = webhook.record.company;
        let query = AuditQuery {
            company,
            after: webhook.record.told,
            token: None,
            kind: None,
            limit: RECORDS_AT_ONCE,
        };
        let records = app.store.audit(&query).await?;
        let Some(last) = records.last() else { return Ok(()) };
        let mut batch = Batch::default();
        webhook.record.told = last.sequence;
        for record in &records {
            let draft = draft(record)?;
            if is_wanted(&webhook.record, &draft) {
                batch.put(&Delivery {
                    company,
                    webhook: webhook.record.id,
                    sequence: record.sequence,
                    kind: draft.kind,
                    state: DeliveryState::Pending,
                    attempts: 0,
                    due: app.now(),
                    status: None,
                    error: None,
                });
            }
        }
        batch.update(&webhook);
        app.store.commit(batch).await?;
        webhook.version += 1;
    }
}

fn draft(record: &Record) -> Result<Draft, StoreError> {
    serde_json::from_str(&record.body)
        .map_err(|error| StoreError::Inconsistent { table: "audit", what: error.to_string() })
}

fn is_wanted(webhook: &Webhook, draft: &Draft) -> bool {
    if draft.kind == TESTED {
        return draft.detail.get("webhook") == Some(&webhook.id.to_string());
    }
    // Checks of codes are no changes: only who names them is told of them.
    if webhook.kinds.is_empty() {
        return draft.kind != "otp.checked";
    }
    webhook.kinds.iter().any(|kind| match kind.strip_suffix('.') {
        Some(_) => draft.kind.starts_with(kind.as_str()),
        None => draft.kind == *kind,
    })
}

/// The deliveries whose time has come, the oldest first.
async fn due(app: &App) -> Result<Vec<Versioned<Delivery>>, StoreError> {
    let mut query = Query::of(Delivery::TABLE, CompanyId::BANK, 1000);
    query.company = None;
    query.order = Some("due");
    query.at_most = Some(("due", app.now().milliseconds()));
    app.store.find::<Delivery>(&query.equals("state", DeliveryState::Pending.name())).await
}

/// Sends one, and notes what came of it.
async fn deliver(app: &App, mut delivery: Versioned<Delivery>) -> Result<(), StoreError> {
    let it = &delivery.record;
    let webhook = app.store.get::<Webhook>(it.company, &it.webhook.to_string()).await?;
    let Some(webhook) = webhook.filter(|webhook| webhook.record.active) else {
        delivery.record.state = DeliveryState::Failed;
        delivery.record.error = Some("the webhook is removed, or not active".to_owned());
        return note(app, &delivery, None, None).await;
    };
    let answer = send(app, &webhook.record, it).await;
    let now = app.now();
    let it = &mut delivery.record;
    it.attempts += 1;
    (it.status, it.error) = match &answer {
        Ok(answer) => (Some(answer.status), None),
        Err(error) => (None, Some(error.clone())),
    };
    let status = it.status.unwrap_or(0);
    if (200..300).contains(&status) {
        it.state = DeliveryState::Delivered;
        let recovered = webhook.record.failing_since.is_some().then(|| {
            let record = Webhook { failing_since: None, ..webhook.record.clone() };
            Versioned { record, ..webhook }
        });
        return note(app, &delivery, recovered, None).await;
    }
    // "Gone" is the receiver's own word (RFC 9110 section 15.5.11).
    let is_gone = status == 410;
    let attempt = usize::try_from(it.attempts).unwrap_or(usize::MAX);
    match AGAIN_AFTER.get(attempt - 1).filter(|_| !is_gone) {
        Some(seconds) => it.due = now.plus(Duration::from_secs(spread(app, *seconds))),
        None => it.state = DeliveryState::Failed,
    }
    let since = webhook.record.failing_since.unwrap_or(now);
    let ends = is_gone || now.since(since) >= FAILING_MAX;
    let mut record = Webhook { failing_since: Some(since), ..webhook.record.clone() };
    record.active = !ends;
    let told = ends.then(|| {
        let draft = Draft::new(record.company, now, "webhook.disabled", Actor::System);
        draft.with("webhook", record.id).with("reason", if is_gone { "gone" } else { "failing" })
    });
    let changed = (record != webhook.record).then_some(Versioned { record, ..webhook });
    note(app, &delivery, changed, told).await
}

/// Stores what came of a delivery. Where the webhook was changed meanwhile, only that.
async fn note(
    app: &App,
    delivery: &Versioned<Delivery>,
    webhook: Option<Versioned<Webhook>>,
    told: Option<Draft>,
) -> Result<(), StoreError> {
    let batch = |with_webhook: bool| {
        let mut batch = Batch::default();
        batch.update(delivery);
        if with_webhook {
            if let Some(webhook) = &webhook {
                batch.update(webhook);
            }
            batch.topics.extend(told.iter().map(|draft| Topic::Audit(draft.company)));
            batch.audit.extend(told.iter().cloned());
        }
        batch
    };
    match app.store.commit(batch(true)).await {
        Err(StoreError::Conflict) => match app.store.commit(batch(false)).await {
            // Replayed meanwhile: it is sent again.
            Ok(()) | Err(StoreError::Conflict) => Ok(()),
            Err(error) => Err(error),
        },
        done => done,
    }
}

/// Up to a tenth more, so that what failed together is not tried again together.
fn spread(app: &App, seconds: u64) -> u64 {
    let tenth = u32::try_from(seconds / 10).unwrap_or(0);
    seconds + u64::from(entropy::below(app.entropy.as_ref(), tenth + 1))
}

/// Sends a delivery. An error is why there was no answer.
async fn send(app: &App, webhook: &Webhook, delivery: &Delivery) -> Result<Answer, String> {
    let unusable = |error: &dyn std::fmt::Display| error.to_string();
    let query = AuditQuery {
        company: delivery.company,
        after: delivery.sequence - 1,
        token: None,
        kind: None,
        limit: 1,
    };
    let record = app.store.audit(&query).await.map_err(|error| unusable(&error))?.pop();
    let record = record.ok_or("the record is missing")?;
    let body = cloud_event(app, &record).map_err(|error| unusable(&error))?;
    let now = app.now();
    let id = delivery.id();
    let secrets = secrets(app, webhook, now).map_err(|error| unusable(&error))?;
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("content-type", "application/cloudevents+json".to_owned()),
        ("user-agent", concat!("Semilla/", env!("CARGO_PKG_VERSION")).to_owned()),
        ("webhook-timestamp", now.seconds().to_string()),
        ("webhook-signature", signature::sign(&secrets, &id, now, &body)),
        ("webhook-id", id),
    ] {
        let value = HeaderValue::from_str(&value).map_err(|error| unusable(&error))?;
        headers.insert(HeaderName::from_static(name), value);
    }
    let uri = app.outbound.address(&webhook.url).map_err(|error| unusable(&error))?;
    app.outbound.post(&uri, headers, Bytes::from(body)).await.map_err(|error| unusable(&error))
}

/// A record as a CloudEvent (CloudEvents 1.0, JSON format). Its `data` is the exact text that the
/// audit trail holds.
fn cloud_event(app: &App, record: &Record) -> Result<String, StoreError> {
    #[derive(serde::Serialize)]
    struct CloudEvent<'a> {
        specversion: &'static str,
        id: String,
        source: &'a str,
        r#type: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        subject: Option<String>,
        time: String,
        datacontenttype: &'static str,
        sequence: String,
        data: &'a serde_json::value::RawValue,
    }
    let draft = draft(record)?;
    let inconsistent = |error: serde_json::Error| StoreError::Inconsistent {
        table: "audit",
        what: error.to_string(),
    };
    let data = serde_json::from_str(&record.body).map_err(inconsistent)?;
    let event = CloudEvent {
        specversion: "1.0",
        id: format!("{}/{}", record.company, record.sequence),
        source: &app.issuer,
        r#type: format!("semilla.{}", draft.kind),
        subject: draft.subject.token.map(|token| token.to_string()),
        time: draft.at.to_string(),
        datacontenttype: "application/json",
        sequence: record.sequence.to_string(),
        data,
    };
    serde_json::to_string(&event).map_err(inconsistent)
}
