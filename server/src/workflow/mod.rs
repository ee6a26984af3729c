//! What is done when somebody asks for something: one function for each thing, called by every
//! face of the server. A function reads what it needs, lets the rules in `core` decide, and
//! returns a [`Plan`]: everything that changes, and the answer. [`act`] makes the plan durable.
//!
//! Whoever loses a race is planned again from fresh reads, so that the rules, and not the
//! database's error, say what the loser is told.

use std::sync::Arc;

use schemars::JsonSchema;
use semilla_core::base64url;
use semilla_core::id::{ClientId, CompanyId};
use semilla_core::problem::{Problem, ProblemType};
use semilla_core::seal::Purpose;
use serde::{Deserialize, Serialize};

use crate::app::App;
use crate::metrics;
use crate::records::IdempotentAnswer;
use crate::store::{Batch, Records, StoreError};

pub mod approvals;
pub mod bootstrap;
pub mod caller;
pub mod checkpoints;
pub mod chores;
pub mod ciba;
pub mod codes;
pub mod devices;
pub mod effects;
pub mod enrollments;
pub mod people;
pub mod restore;
pub mod retention;
pub mod rewrap;
pub mod stock;
pub mod tokens;
pub mod trail;
pub mod unit;
pub mod views;

/// Everything one request changes, and what is answered once that is durable.
#[derive(Debug)]
pub struct Plan<T> {
    /// The changes, all or none.
    pub batch: Batch,
    /// The answer.
    pub answer: T,
}

/// Why nothing was done.
#[derive(Debug)]
pub enum Failure {
    /// The rules refuse; the caller is told why.
    Refused(Box<Problem>),
    /// The database does not answer, or holds something that cannot be.
    Store(StoreError),
    /// Refused, and that it was asked at all is recorded: an attempt with a wrong number, a
    /// message that does not verify. The batch is committed before the caller is told.
    Recorded(Box<Problem>, Box<Batch>),
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self::Refused(Box::new(problem))
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// How many times a plan is made anew before its caller is told to come back.
const ATTEMPTS_MAX: usize = 16;

/// An answer as it goes over the wire, so that it can be given again byte for byte.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The `Location` header.
    pub location: Option<String>,
    /// The `ETag` header's version.
    pub version: Option<i64>,
    /// The JSON body; empty where there is none.
    pub body: String,
}

/// What can be answered.
pub trait View: Serialize + JsonSchema + Send + 'static {
    /// The HTTP status of success.
    const STATUS: u16 = 200;
    /// Where the new thing is.
    fn location(&self) -> Option<String> {
        None
    }
    /// The version a change has to name in `If-Match`.
    fn version(&self) -> Option<i64> {
        None
    }
}

impl Answer {
    /// The answer that shows `view`.
    pub fn of<T: View>(view: &T) -> Self {
        Self {
            status: T::STATUS,
            location: view.location(),
            version: view.version(),
            // Views are structs and enums of strings and numbers: writing them cannot fail.
            body: if T::STATUS == 204 {
                String::new()
            } else {
                serde_json::to_string(view).unwrap_or_default()
            },
        }
    }
}

/// An idempotency key, and the request it came with (protocol: `Idempotency-Key`).
#[derive(Clone)]
pub struct IdempotencyKey {
    /// The client's company.
    pub company: CompanyId,
    /// The client: keys of different clients never meet.
    pub client: ClientId,
    /// The key.
    pub key: String,
    /// Method, path and body, which must be the same the second time.
    pub request: Vec<u8>,
}

/// What became of a request.
pub enum Acted<T> {
    /// It was done now.
    Done(T, Answer),
    /// It had been done already: the same answer once more.
    Again(Answer),
}

impl<T> Acted<T> {
    /// The answer, whichever time it is.
    pub fn into_answer(self) -> Answer {
        match self {
            Self::Done(_, answer) | Self::Again(answer) => answer,
        }
    }
}

/// Makes what `plan` returns durable, in a task of its own: once begun it runs to its end, also
/// when the caller hangs up (security 108).
pub async fn act<T, P, F>(
    app: &Arc<App>,
    key: Option<IdempotencyKey>,
    plan: P,
) -> Result<Acted<T>, Failure>
where
    T: View,
    P: Fn(Arc<App>) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Plan<T>, Failure>> + Send,
{
    let app = Arc::clone(app);
    let task = tokio::spawn(async move { act_to_the_end(&app, key, plan).await });
    task.await.unwrap_or_else(|_| {
        Err(Problem::new(ProblemType::Internal, "The request failed. Nothing was changed.").into())
    })
}

async fn act_to_the_end<T, P, F>(
    app: &Arc<App>,
    key: Option<IdempotencyKey>,
    plan: P,
) -> Result<Acted<T>, Failure>
where
    T: View,
    P: Fn(Arc<App>) -> F,
    F: Future<Output = Result<Plan<T>, Failure>>,
{
    for _ in 0..ATTEMPTS_MAX {
        // What is sealed in it is stored before the master key may change.
        let _unit = app.keyring.unit().await;
        if let Some(key) = &key
            && let Some(answer) = answered_before(app, key).await?
        {
            return Ok(Acted::Again(answer));
        }
        let Plan { mut batch, answer: view } = match plan(Arc::clone(app)).await {
            Ok(plan) => plan,
            Err(Failure::Recorded(problem, batch)) => {
                let ends = metrics::ends(&batch);
                match app.store.commit(*batch).await {
                    Ok(()) => {
                        app.metrics.ended(ends);
                        return Err(Failure::Refused(problem));
                    }
                    Err(StoreError::Conflict) => continue,
                    Err(error) => return Err(error.into()),
                }
            }
            Err(failure) => return Err(failure),
        };
        let answer = Answer::of(&view);
        if let Some(key) = &key {
            remember(app, key, &answer, &mut batch);
        }
        let ends = metrics::ends(&batch);
        match app.store.commit(batch).await {
            Ok(()) => {
                app.metrics.ended(ends);
                return Ok(Acted::Done(view, answer));
            }
            Err(StoreError::Conflict) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Problem::new(
        ProblemType::Unavailable,
        "Too much changed at the same time. Nothing was done: try again.",
    )
    .retry_after(1)
    .into())
}

fn hmac(app: &App, parts: &[&[u8]]) -> String {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &app.keys.idempotency);
    let mut context = ring::hmac::Context::with_key(&key);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    base64url::encode(context.sign().as_ref())
}

fn key_id(app: &App, key: &IdempotencyKey) -> (String, String) {
    let name = hmac(app, &[b"key", key.key.as_bytes()]);
    (format!("{}:{name}", key.client), name)
}

async fn answered_before(app: &App, key: &IdempotencyKey) -> Result<Option<Answer>, Failure> {
    let (id, _) = key_id(app, key);
    let Some(kept) = app.store.get::<IdempotentAnswer>(key.company, &id).await? else {
        return Ok(None);
    };
    if kept.record.request != hmac(app, &[b"request", &key.request]) {
        return Err(Problem::new(
            ProblemType::IdempotencyMismatch,
            "This Idempotency-Key came with another request before. Use a new key for a new request.",
        )
        .into());
    }
    let purpose = Purpose::Other { kind: "idempotency", company: key.company, id: &id };
    let opened = app.keyring.open(&kept.record.answer, &purpose).map_err(|error| {
        StoreError::Inconsistent { table: "idempotency", what: error.to_string() }
    })?;
    let answer = serde_json::from_slice(&opened).map_err(|error| StoreError::Inconsistent {
        table: "idempotency",
        what: error.to_string(),
    })?;
    Ok(Some(answer))
}

fn remember(app: &App, key: &IdempotencyKey, answer: &Answer, batch: &mut Batch) {
    let (id, name) = key_id(app, key);
    let purpose = Purpose::Other { kind: "idempotency", company: key.company, id: &id };
    let plain = zeroize::Zeroizing::new(serde_json::to_vec(answer).unwrap_or_default());
    let record = IdempotentAnswer {
        company: key.company,
        client: key.client,
        key: name,
        request: hmac(app, &[b"request", &key.request]),
        answer: app.keyring.seal(&plain, &purpose, app.entropy.as_ref()),
        expires: app.now().plus(app.forgetting.after.answers),
    };
    batch.insert(&record);
}
