//! Answers that come when something happens: long polls (`?wait=`) and event streams.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{self, StreamExt};
use schemars::JsonSchema;
use semilla_core::problem::{Problem, ProblemType};
use serde::Deserialize;
use tokio::time::Instant;

use super::Edge;
use super::describe::{Kind, Text};
use super::problem::ApiError;
use crate::app::App;
use crate::store::Topic;
use crate::workflow::Failure;

/// The longest wait, in seconds (security 100).
const WAIT_SECONDS_MAX: u32 = 30;

/// How often a silent stream says that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// After how long a client that lost its stream comes back.
const RETRY: Duration = Duration::from_secs(2);

/// How long a stream lasts before its client has to come back, and be let in again: a credential
/// that no longer holds ends with it. As long as an access token.
const STREAM_TIME: Duration = Duration::from_secs(300);

/// How many streams there are at the same time, at most.
pub(super) const STREAMS_MAX: usize = 2048;

/// The parameter of a long poll.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Wait {
    /// Seconds, 0 to 30; 0 if not said.
    #[schemars(range(max = 30))]
    pub wait: Option<u32>,
}

impl Wait {
    /// How long to wait.
    pub fn patience(self) -> Result<Duration, ApiError> {
        match self.wait.unwrap_or(0) {
            seconds @ 0..=WAIT_SECONDS_MAX => Ok(Duration::from_secs(seconds.into())),
            _ => Err(Problem::field("wait", format!("must be 0 to {WAIT_SECONDS_MAX}")).into()),
        }
    }
}

/// A stream of events (WHATWG HTML, server-sent events).
pub struct Events;

impl Kind for Events {
    const MEDIA_TYPE: &'static str = "text/event-stream";
    /// Of one event: so do tools read it.
    fn schema() -> serde_json::Value {
        let text = serde_json::json!({ "type": "string" });
        serde_json::json!({
            "description": "Events, each with these fields.",
            "type": "object",
            "properties": { "id": text, "event": text, "data": text },
            "required": ["event", "data"],
        })
    }
    fn example() -> serde_json::Value {
        serde_json::json!({ "id": "42", "event": "audit", "data": "{\"kind\":\"token.released\"}" })
    }
}

/// One event of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Where a client that comes back goes on (`Last-Event-ID`); none where it needs no place.
    pub id: Option<String>,
    /// What kind of event.
    pub event: &'static str,
    /// Its JSON.
    pub data: String,
}

/// Waits until `ready` has something to say, `patience` is over or the server stops, as
/// [`App::wait_for`], for what can also be refused.
pub async fn wait_for<T, R, F>(
    app: &App,
    topic: &Topic,
    patience: Duration,
    ready: R,
) -> Result<Option<T>, Failure>
where
    R: Fn() -> F,
    F: Future<Output = Result<Option<T>, Failure>>,
{
    let found = app.wait_for(topic, patience, || async { Ok(ready().await.transpose()) });
    found.await?.transpose()
}

/// Streams what `news` finds, from `place` on: it is asked at once, and again whenever something of
/// `topic` became durable. It returns what is new and the place behind it. The stream ends when the
/// server stops, when the store fails, or after five minutes; a client that wants more comes back.
pub fn stream<P, N, F>(
    edge: &Arc<Edge>,
    topic: Topic,
    place: P,
    news: N,
) -> Result<Text<Events>, ApiError>
where
    P: Clone + Send + Sync + 'static,
    N: Fn(Arc<App>, P) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Option<(Vec<Told>, P)>, Failure>> + Send,
{
    let Ok(permit) = Arc::clone(&edge.streams).try_acquire_owned() else {
        let detail = "Too many streams are open: ask with ?wait= instead, or come back later.";
        return Err(Problem::new(ProblemType::RateLimited, detail).retry_after(30).into());
    };
    let (app, end) = (Arc::clone(&edge.app), Instant::now() + STREAM_TIME);
    let events = stream::unfold((place, permit), move |(place, permit)| {
        let (app, topic, news) = (Arc::clone(&app), topic.clone(), news.clone());
        async move {
            let patience = end.saturating_duration_since(Instant::now());
            let found = wait_for(&app, &topic, patience, || news(Arc::clone(&app), place.clone()));
            match found.await {
                Ok(Some((told, place))) if !patience.is_zero() => Some((told, (place, permit))),
                Ok(_) => None,
                Err(failure) => {
                    ApiError::from(failure).log();
                    None
                }
            }
        }
    });
    let hello = Event::default().retry(RETRY).comment("");
    let events = events.flat_map(|told| stream::iter(told.into_iter().map(event)));
    let events = stream::iter([hello]).chain(events).map(Ok::<_, Infallible>);
    let events = events.take_until(edge.app.stopping.clone().cancelled_owned());
    Ok(Text::of(Sse::new(events).keep_alive(KeepAlive::new().interval(HEARTBEAT))))
}

fn event(told: Told) -> Event {
    let event = Event::default().event(told.event).data(told.data);
    match told.id {
        Some(id) => event.id(id),
        None => event,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn security_100_a_wait_is_bounded() {
        assert_eq!(Wait::default().patience().expect("none"), Duration::ZERO);
        let longest = Wait { wait: Some(30) }.patience().expect("a wait");
        assert_eq!(longest, Duration::from_secs(30));
        let error = Wait { wait: Some(31) }.patience().expect_err("too long");
        assert_eq!(error.problem().errors[0].pointer, "wait");
    }
}
