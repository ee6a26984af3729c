//! The outermost layer: what is true of every request and every response, whatever becomes of it.
//! A request gets an id and one line in the log; a response, errors included, gets the headers
//! that tell a browser to do nothing clever with it (security 78).

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use semilla_core::base64url;
use semilla_core::entropy;
use semilla_core::problem::{Problem, ProblemType};
use tracing::Instrument;

use super::Edge;
use super::auth::Who;
use super::problem::ApiError;
use crate::listener::Peer;

/// The longest address of a request, in bytes (security 97).
const URI_BYTES_MAX: usize = 2048;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The one value of a header; an error where it comes more than once or holds anything but
/// visible ASCII and blanks.
pub fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, ApiError> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    match value.to_str() {
        Ok(text) if values.next().is_none() => Ok(Some(text)),
        _ => Err(Problem::field(name.as_str(), "must be given once, in ASCII").into()),
    }
}

/// The layer.
pub(super) async fn outermost(
    State(edge): State<Arc<Edge>>,
    request: Request,
    next: Next,
) -> Response {
    let id = base64url::encode(&entropy::bytes::<12>(edge.app.entropy.as_ref()));
    let method = request.method().clone();
    // The pattern, not the path: a path holds ids, a query may hold anything.
    let route = request.extensions().get::<MatchedPath>().cloned();
    let peer = request.extensions().get::<Peer>().copied();
    let span = tracing::info_span!("request", id);
    let begun = tokio::time::Instant::now();
    let mut response = match refusal(&request) {
        // A handler that panics has failed like any other: the connection and the process go on.
        None => AssertUnwindSafe(next.run(request))
            .catch_unwind()
            .instrument(span.clone())
            .await
            .unwrap_or_else(|_| {
                span.in_scope(|| ApiError::internal("a handler panicked").into_response())
            }),
        Some(refused) => refused,
    };
    let who = response.extensions_mut().remove::<Who>();
    let pattern = route.as_ref().map(MatchedPath::as_str);
    edge.app.metrics.answered(
        method.as_str(),
        pattern,
        response.status().as_u16(),
        begun.elapsed(),
    );
    tracing::info!(
        id,
        %method,
        route = route.as_ref().map(MatchedPath::as_str),
        status = response.status().as_u16(),
        milliseconds = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        who = who.map(tracing::field::display),
        peer = peer.map(|Peer(address)| tracing::field::display(address)),
        "request"
    );
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, id);
    }
    // Ours, and not the connection's: a phone learns from it how its clock is off.
    if let Ok(date) = HeaderValue::from_str(&edge.app.now().to_http_date()) {
        headers.insert(header::DATE, date);
    }
    harden(headers, edge.app.issuer.starts_with("https://"));
    response
}

/// What can be said against a request before anybody looks at what it wants.
fn refusal(request: &Request) -> Option<Response> {
    let length = request.uri().path_and_query().map_or(0, |address| address.as_str().len());
    if length > URI_BYTES_MAX {
        let detail = format!("An address has at most {URI_BYTES_MAX} bytes.");
        let problem = Problem { status: 414, ..Problem::new(ProblemType::TooLarge, detail) };
        return Some(ApiError::from(problem).into_response());
    }
    // RFC 9112 section 3.2. Nothing here decides by it, but what stands before this server may.
    let hosts = request.headers().get_all(header::HOST).iter().count();
    if hosts > 1 || (hosts == 0 && request.version() == Version::HTTP_11) {
        return Some(ApiError::malformed("A request names its host once.").into_response());
    }
    None
}

fn harden(headers: &mut HeaderMap, https: bool) {
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(
        HeaderName::from_static("cross-origin-opener-policy"),
        HeaderValue::from_static("same-origin"),
    );
    headers.insert(
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    );
    // A page that needs more says so itself.
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    if https {
        headers.insert(
            header::STRICT_TRANSPORT_SECURITY,
            HeaderValue::from_static("max-age=63072000; includeSubDomains"),
        );
    }
}
