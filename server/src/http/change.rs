//! A request that changes something: its body, the version it was decided on (`If-Match`) and the
//! key under which it is done once (`Idempotency-Key`).

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{FromRequest, Request};
use axum::http::{HeaderName, header};
use semilla_core::id::ClientId;
use semilla_core::problem::{Problem, ProblemType};
use serde::de::DeserializeOwned;

use super::Edge;
use super::body;
use super::headers::single;
use super::problem::ApiError;
use super::respond::{Answered, Shown, etag};
use crate::app::App;
use crate::workflow::caller::Caller;
use crate::workflow::{self, Failure, IdempotencyKey, Plan, View};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The longest key.
const KEY_BYTES_MAX: usize = 128;

/// A program's request that changes something.
pub struct Change<T, const BYTES_MAX: usize = { body::BODY_BYTES_MAX }> {
    /// Its body. No body at all is read as `{}`: whether that says enough is for `T`.
    pub body: T,
    /// The version that must still be the current one.
    pub if_match: Option<i64>,
    /// Its key, held while it is worked on.
    pub key: Option<HeldKey>,
}

impl<T: DeserializeOwned, const BYTES_MAX: usize> FromRequest<Arc<Edge>> for Change<T, BYTES_MAX> {
    type Rejection = ApiError;

    async fn from_request(request: Request, edge: &Arc<Edge>) -> Result<Self, ApiError> {
        let (parts, stream) = request.into_parts();
        let if_match = match single(&parts.headers, &header::IF_MATCH)? {
            Some(tag) => version(tag)?,
            None => None,
        };
        let name = single(&parts.headers, &IDEMPOTENCY_KEY)?.map(key_name).transpose()?;
        let bytes = body::read(stream, BYTES_MAX).await?;
        let body = if bytes.is_empty() && !parts.headers.contains_key(header::CONTENT_TYPE) {
            body::parse(b"{}")?
        } else {
            body::require_media_type(&parts.headers, "application/json")?;
            body::parse(&bytes)?
        };
        let key = match (name, parts.extensions.get::<Caller>()) {
            (None, _) => None,
            (Some(name), Some(caller)) => {
                let path = parts.uri.path_and_query().map_or("", |address| address.as_str());
                let request = framed(&[parts.method.as_str().as_bytes(), path.as_bytes(), &bytes]);
                let (company, client) = (caller.company.id, caller.client.id);
                Some(edge.running.hold(IdempotencyKey { company, client, key: name, request })?)
            }
            (Some(_), None) => {
                return Err(ApiError::internal("a key without a client to scope it to"));
            }
        };
        Ok(Self { body, if_match, key })
    }
}

/// Each part behind its length, so that no two requests read the same.
fn framed(parts: &[&[u8]]) -> Vec<u8> {
    let mut framed = Vec::new();
    for part in parts {
        framed.extend_from_slice(&(part.len() as u64).to_be_bytes());
        framed.extend_from_slice(part);
    }
    framed
}

fn key_name(text: &str) -> Result<String, ApiError> {
    let visible = text.bytes().all(|byte| byte.is_ascii_graphic());
    if visible && (1..=KEY_BYTES_MAX).contains(&text.len()) {
        Ok(text.to_owned())
    } else {
        let detail = format!("must have 1 to {KEY_BYTES_MAX} visible ASCII characters");
        Err(Problem::field(IDEMPOTENCY_KEY.as_str(), detail).into())
    }
}

/// The version that `If-Match` names; `None` for `*` (RFC 9110 section 13.1.1).
fn version(tag: &str) -> Result<Option<i64>, ApiError> {
    if tag == "*" {
        return Ok(None);
    }
    let number = tag
        .strip_prefix('"')
        .and_then(|tag| tag.strip_suffix('"'))
        .and_then(|tag| tag.parse().ok());
    match number {
        // One spelling only.
        Some(number) if etag(number) == tag => Ok(Some(number)),
        // No version of anything here, and so not the current one: weak tags, other texts.
        _ => Err(Problem::new(
            ProblemType::PreconditionFailed,
            "If-Match does not name a version: send the ETag as it was given.",
        )
        .into()),
    }
}

/// The keys of requests that this process is working on.
#[derive(Clone, Default)]
pub(super) struct Running(Arc<Mutex<HashSet<(ClientId, String)>>>);

impl Running {
    fn hold(&self, key: IdempotencyKey) -> Result<HeldKey, ApiError> {
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !keys.insert((key.client, key.key.clone())) {
            let detail =
                "A request with this Idempotency-Key is still running: ask again in a moment.";
            return Err(Problem::new(ProblemType::IdempotencyConflict, detail)
                .retry_after(1)
                .into());
        }
        Ok(HeldKey { running: self.clone(), key })
    }
}

/// A key, held until dropped.
pub struct HeldKey {
    running: Running,
    key: IdempotencyKey,
}

impl Drop for HeldKey {
    fn drop(&mut self) {
        let mut keys = self.running.0.lock().unwrap_or_else(PoisonError::into_inner);
        keys.remove(&(self.key.client, std::mem::take(&mut self.key.key)));
    }
}

/// Does what `plan` makes of `input`, once, and answers it. The key is held by the task that does
/// it and not by the handler, so that it is free when the work has ended, and not when the client
/// hangs up.
pub async fn act<C, T, P, F>(edge: &Edge, key: Option<HeldKey>, input: C, plan: P) -> Answered<T>
where
    C: Clone + Send + Sync + 'static,
    T: View,
    P: Fn(Arc<App>, C) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Plan<T>, Failure>> + Send,
{
    let named = key.as_ref().map(|held| held.key.clone());
    let acted = workflow::act(&edge.app, named, move |app| {
        // Moved into the plan, which lives as long as its task.
        let _ = &key;
        plan(app, input.clone())
    });
    Ok(Shown::of(acted.await?.into_answer()))
}

/// Does something that takes several steps to its end, also when the client hangs up (security
/// 108).
pub async fn to_the_end<T, F>(work: F) -> Result<T, Failure>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Failure>> + Send + 'static,
{
    tokio::spawn(work)
        .await
        .unwrap_or_else(|_| Err(Problem::new(ProblemType::Internal, "The request failed.").into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::SystemEntropy;
    use semilla_core::id::CompanyId;
    use semilla_core::time::Timestamp;

    #[test]
    fn if_match_names_one_version_in_one_spelling() {
        assert_eq!(version("\"7\"").expect("one"), Some(7));
        assert_eq!(version("*").expect("any"), None);
        for other in ["7", "W/\"7\"", "\"07\"", "\"+7\"", "\"7\", \"8\"", "\"\"", "\"x\"", "", "\""]
        {
            let error = version(other).expect_err(other);
            assert_eq!(error.problem().kind, ProblemType::PreconditionFailed);
        }
    }

    #[test]
    fn security_104_a_key_is_short_and_visible() {
        for fine in ["a", "0190b6a0-0000-7000-8000-000000000000", &"x".repeat(128)] {
            assert_eq!(key_name(fine).expect("a key"), fine);
        }
        for wrong in ["", "a b", "a\u{1b}", "ñ", &"x".repeat(129)] {
            assert_eq!(
                key_name(wrong).expect_err(wrong).problem().errors[0].pointer,
                "idempotency-key"
            );
        }
    }

    #[test]
    fn security_104_a_key_is_held_by_one_request_at_a_time() {
        let (running, now) = (Running::default(), Timestamp::from_seconds(0));
        let key = |client, name: &str| IdempotencyKey {
            company: CompanyId::BANK,
            client,
            key: name.to_owned(),
            request: Vec::new(),
        };
        let entropy = SystemEntropy::default();
        let (one, other) = (ClientId::new(now, &entropy), ClientId::new(now, &entropy));
        let held = running.hold(key(one, "a")).expect("free");
        let error = running.hold(key(one, "a")).map(drop).expect_err("held");
        assert_eq!(error.problem().kind, ProblemType::IdempotencyConflict);
        assert!(running.hold(key(one, "b")).is_ok() && running.hold(key(other, "a")).is_ok());
        drop(held);
        assert!(running.hold(key(one, "a")).is_ok());
    }

    #[test]
    fn no_two_requests_are_framed_alike() {
        assert_ne!(framed(&[b"POST", b"/a", b"b"]), framed(&[b"POST", b"/", b"ab"]));
        assert_ne!(framed(&[b"", b"a"]), framed(&[b"a", b""]));
    }
}
