//! Who is calling. Each route of the table names a rule, and the rule is checked before anything
//! of the request but its headers is read; a handler finds the caller it asks for, or is not
//! entered at all.

use std::fmt;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use semilla_core::id::{ClientId, CompanyId, DeviceId};
use semilla_core::problem::{Problem, ProblemType};
use semilla_core::protocol::dpop;

use super::dpop::Freshness;
use super::headers::single;
use super::problem::ApiError;
use super::{Edge, HANDLER_TIME, WAITING_HANDLER_TIME};
use crate::records::ApiScope;
use crate::workflow::Failure;
use crate::workflow::caller::{Caller, Phone};

/// Who may call a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Anybody. Such a handler has its own way to know whom it serves, or serves everybody.
    Public,
    /// A program whose access token has one of these scopes.
    Scope(&'static [ApiScope]),
    /// A phone that this server knows, trusted or not.
    KnownPhone,
    /// A phone that is trusted.
    BoundPhone,
}

/// Who called, for the log: a response carries it to the outermost layer.
#[derive(Clone, Copy, Debug)]
pub(super) enum Who {
    /// A program.
    Client(ClientId),
    /// A phone.
    Device(DeviceId),
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(id) => write!(f, "client {id}"),
            Self::Device(id) => write!(f, "device {id}"),
        }
    }
}

/// A route's rule, and what it needs to be checked.
#[derive(Clone)]
pub(super) struct Guard {
    pub(super) edge: Arc<Edge>,
    pub(super) rule: Rule,
    /// Whether the route is of the device API, whose every answer carries a nonce. So does every
    /// other to a request with a proof.
    pub(super) gives_nonce: bool,
    /// Whether the handler may wait for something to happen.
    pub(super) waits: bool,
}

const BEARER: &str = "Bearer realm=\"semilla\"";
const EITHER: &str = "Bearer realm=\"semilla\", DPoP algs=\"ES256\"";
const INVALID_BEARER: &str = "Bearer realm=\"semilla\", error=\"invalid_token\"";
const NO_PROOF: &str = "DPoP algs=\"ES256\"";
const INVALID_PROOF: &str = "DPoP algs=\"ES256\", error=\"invalid_dpop_proof\"";
const STALE_PROOF: &str = "DPoP algs=\"ES256\", error=\"use_dpop_nonce\"";
const INVALID_BOUND_TOKEN: &str = "DPoP algs=\"ES256\", error=\"invalid_token\"";

pub(super) const DPOP: HeaderName = HeaderName::from_static("dpop");
pub(super) const DPOP_NONCE: HeaderName = HeaderName::from_static("dpop-nonce");

/// The layer of one route: checks its rule, then runs the handler within its time.
pub(super) async fn enforce(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let time = if guard.waits { WAITING_HANDLER_TIME } else { HANDLER_TIME };
    let (mut parts, body) = request.into_parts();
    let mut who = None;
    let gives_nonce = guard.gives_nonce || parts.headers.contains_key(DPOP);
    let answered = tokio::time::timeout(time, async {
        who = admit(&guard, &mut parts).await?;
        Ok::<_, ApiError>(next.run(Request::from_parts(parts, body)).await)
    });
    // What was begun goes on in its own task and may still succeed.
    let late = || ApiError::unavailable("a handler took too long");
    let mut response = match answered.await.unwrap_or_else(|_| Err(late())) {
        Ok(response) => response,
        Err(error) => error.into_response(),
    };
    if let Some(who) = who {
        response.extensions_mut().insert(who);
    }
    if gives_nonce && let Ok(nonce) = HeaderValue::from_str(&guard.edge.proofs.nonce()) {
        response.headers_mut().insert(DPOP_NONCE, nonce);
    }
    response
}

/// Lets a caller in whom the rule allows, and leaves it where the handler looks for it.
async fn admit(guard: &Guard, request: &mut Parts) -> Result<Option<Who>, ApiError> {
    match guard.rule {
        Rule::Public => Ok(None),
        Rule::Scope(scopes) => {
            let caller = program(&guard.edge, request).await?;
            guard.edge.programs.take(&caller)?;
            require(&caller, scopes)?;
            let who = Who::Client(caller.client.id);
            request.extensions.insert(caller);
            Ok(Some(who))
        }
        Rule::KnownPhone | Rule::BoundPhone => {
            let phone = phone(&guard.edge, request).await?;
            if guard.rule == Rule::BoundPhone {
                phone.require_bound()?;
            }
            let who = Who::Device(phone.device.record.id);
            request.extensions.insert(phone);
            Ok(Some(who))
        }
    }
}

fn unauthenticated(detail: &str, challenge: &'static str) -> ApiError {
    ApiError::from(Problem::new(ProblemType::Unauthenticated, detail))
        .challenge(HeaderValue::from_static(challenge))
}

/// The credentials of this scheme; `None` where there are others or none.
fn credentials<'a>(headers: &'a HeaderMap, scheme: &str) -> Result<Option<&'a str>, ApiError> {
    let Some(text) = single(headers, &header::AUTHORIZATION)? else { return Ok(None) };
    let (given, token) = text.split_once(' ').unwrap_or((text, ""));
    Ok(given.eq_ignore_ascii_case(scheme).then_some(token.trim_ascii()))
}

/// The program that an access token was given to: by the token alone (RFC 6750), or with a proof
/// of the key that it is bound to (RFC 9449 section 7). Neither stands in for the other: a bound
/// token that somebody stole is worth nothing as a bearer's (section 7.2).
async fn program(edge: &Edge, request: &Parts) -> Result<Caller, ApiError> {
    if let Some(token) = credentials(&request.headers, "DPoP")? {
        let proof = signed_proof(edge, request, token)?;
        let caller = Caller::of_access_token(&edge.app, token)
            .await
            .map_err(|failure| challenged(failure, INVALID_BOUND_TOKEN))?;
        match caller.bound_to {
            Some(key) if key == proof.key.key_id() => {}
            Some(_) => {
                let detail =
                    "The proof is signed with another key than the one the token is bound to.";
                return Err(unauthenticated(detail, INVALID_PROOF));
            }
            None => {
                let detail = "This access token is bound to no key: send it as `Bearer`.";
                return Err(unauthenticated(detail, INVALID_BOUND_TOKEN));
            }
        }
        accept_once(edge, &proof)?;
        return Ok(caller);
    }
    let Some(token) = credentials(&request.headers, "Bearer")? else {
        let detail = "Send an access token from /token: `Authorization: Bearer …`, or `DPoP …` where it is bound to a key.";
        return Err(unauthenticated(detail, EITHER));
    };
    let caller = Caller::of_access_token(&edge.app, token)
        .await
        .map_err(|failure| challenged(failure, INVALID_BEARER))?;
    if caller.bound_to.is_some() {
        let detail = "This access token is bound to a key: send it as `DPoP`, with a proof.";
        return Err(unauthenticated(detail, INVALID_BOUND_TOKEN));
    }
    Ok(caller)
}

/// The proof that goes with a request and its token: its signature and its nonce hold. That it
/// comes for the first time is asked last, by [`accept_once`], so that strangers fill no memory.
fn signed_proof(edge: &Edge, request: &Parts, token: &str) -> Result<dpop::Proof, ApiError> {
    let invalid = |detail: &str| unauthenticated(detail, INVALID_PROOF);
    let proof = single(&request.headers, &DPOP)?;
    let proof = proof.ok_or_else(|| invalid("The header DPoP is missing."))?;
    // By the address that is configured, never by the `Host` that the client sent.
    let uri = format!("{}{}", edge.app.issuer, request.uri.path());
    let about =
        dpop::Request { method: request.method.as_str(), uri: &uri, access_token: Some(token) };
    let proof = dpop::verify(proof, &about)
        .map_err(|error| invalid(&format!("The proof does not hold: {error}.")))?;
    if edge.proofs.holds(proof.claims.nonce.as_deref()) { Ok(proof) } else { Err(stale()) }
}

fn stale() -> ApiError {
    let detail = "Sign the request again, with the nonce of the header DPoP-Nonce.";
    unauthenticated(detail, STALE_PROOF)
}

/// Takes a proof as used.
fn accept_once(edge: &Edge, proof: &dpop::Proof) -> Result<(), ApiError> {
    let dpop::Proof { claims, key } = proof;
    match edge.proofs.accept(claims.nonce.as_deref(), key.key_id(), &claims.jti) {
        Freshness::Fresh => Ok(()),
        Freshness::Stale => Err(stale()),
        Freshness::Replayed => Err(unauthenticated("This proof was used before.", INVALID_PROOF)),
    }
}

/// Requires one of `scopes`, and that what only the bank may do is asked by the bank.
fn require(caller: &Caller, scopes: &[ApiScope]) -> Result<(), ApiError> {
    let may = |scope: &&ApiScope| caller.company.id == CompanyId::BANK || !scope.is_of_bank();
    if scopes.iter().filter(may).any(|scope| caller.require(*scope).is_ok()) {
        return Ok(());
    }
    let names = scopes.iter().map(|scope| scope.name()).collect::<Vec<_>>();
    let detail = format!("This needs an access token with the scope {}.", names.join(" or "));
    let error = ApiError::from(Problem::new(ProblemType::Forbidden, detail));
    let challenge =
        format!("{BEARER}, error=\"insufficient_scope\", scope=\"{}\"", names.join(" "));
    Err(match HeaderValue::from_str(&challenge) {
        Ok(challenge) => error.challenge(challenge),
        Err(_) => error,
    })
}

/// A failure to know who calls, with the challenge that belongs to it where it is one.
fn challenged(failure: Failure, challenge: &'static str) -> ApiError {
    let error = ApiError::from(failure);
    if error.problem().kind == ProblemType::Unauthenticated {
        error.challenge(HeaderValue::from_static(challenge))
    } else {
        error
    }
}

/// The phone that a device token was given to and whose key signed this very request (RFC 9449
/// section 7). The signature is checked first, then what is stored is looked up, and at last the
/// proof is taken as used: strangers fill no memory.
async fn phone(edge: &Edge, request: &Parts) -> Result<Phone, ApiError> {
    let Some(token) = credentials(&request.headers, "DPoP")? else {
        let detail =
            "Send the device token and a proof of its key: `Authorization: DPoP …`, `DPoP: …`.";
        return Err(unauthenticated(detail, NO_PROOF));
    };
    let proof = signed_proof(edge, request, token)?;
    let phone = Phone::of_device_token(&edge.app, token)
        .await
        .map_err(|failure| challenged(failure, INVALID_BOUND_TOKEN))?;
    if proof.key != phone.device.record.key {
        let detail = "The proof is signed with another key than the device token's.";
        return Err(unauthenticated(detail, INVALID_PROOF));
    }
    accept_once(edge, &proof)?;
    Ok(phone)
}

/// What the rule of the route has let in. A handler that asks for another caller than its rule
/// names finds none, and fails closed.
macro_rules! admitted {
    ($type:ty) => {
        impl<S: Send + Sync> FromRequestParts<S> for $type {
            type Rejection = ApiError;
            async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
                let caller = parts.extensions.get::<Self>().cloned();
                caller.ok_or_else(|| {
                    ApiError::internal("a handler asks for a caller its rule does not let in")
                })
            }
        }
    };
}

admitted!(Caller);
admitted!(Phone);
