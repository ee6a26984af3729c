//! The authorization server: access tokens for programs by the grant `client_credentials` (RFC
//! 6749 section 4.4), its keys and its metadata (RFC 8414). A program proves itself by its secret
//! or by an assertion signed with its key (RFC 7523); its token is bound to a key where it proves
//! one beside (RFC 9449).

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use schemars::JsonSchema;
use semilla_core::audit::{Actor, Draft, Subject};
use semilla_core::base64url;
use semilla_core::entropy;
use semilla_core::id::{ClientId, CompanyId};
use semilla_core::person::Company;
use semilla_core::problem::{Problem, ProblemType};
use semilla_core::protocol::MessageError;
use semilla_core::protocol::assertion::{ClientKey, Unverified};
use semilla_core::protocol::dpop;
use semilla_core::protocol::jwk::KeyId;
use semilla_core::secret::SecretText;
use serde::Serialize;
use serde_json::json;

use super::Edge;
use super::auth::DPOP;
use super::describe::{About, Content, Kind, Part, Reply, Text};
use super::dpop::Freshness;
use super::headers::single;
use super::limits::{Limiter, retry_after};
use super::problem::ApiError;
use super::{body, ciba, form};
use crate::app::App;
use crate::listener::Peer;
use crate::records::{AccessToken, ApiScope, Client, DeliveryMode, UsedAssertion};
use crate::store::{Batch, Record, Records, Scope, StoreError, Write};
use crate::workflow::caller::sha256;
use crate::workflow::views::AuthMethod;

/// How long an access token lives, in seconds (protocol: at most 300).
const TOKEN_SECONDS: u64 = 300;

/// The kind of assertion that is taken (RFC 7523 section 2.2).
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// How often credentials may fail.
pub(super) struct Attempts {
    /// From one network: whoever fails too often is not heard at all for a while.
    by_network: Limiter<IpAddr>,
    /// For one client: beyond it failures are not recorded, so that strangers cannot fill a
    /// company's chain. The right secret always counts, so that they cannot lock it out either.
    pub(super) by_client: Limiter<ClientId>,
}

impl Default for Attempts {
    fn default() -> Self {
        Self {
            by_network: Limiter::new(20, Duration::from_secs(3)),
            by_client: Limiter::new(10, Duration::from_secs(6)),
        }
    }
}

/// An address as limits count it: of IPv6 the half that a provider gives to one customer.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)))
        }
    }
}

/// Why there is no token: as OAuth has it (RFC 6749 section 5.2), or for a reason that OAuth has no
/// word for.
#[derive(Debug)]
pub(super) enum Refusal {
    Oauth(&'static str, String),
    /// The same with the status 403 (CIBA Core section 13).
    Denied(String),
    Other(ApiError),
}

impl Refusal {
    fn invalid_client() -> Self {
        Self::Oauth(
            "invalid_client",
            "The client is unknown, or does not prove itself as registered.".to_owned(),
        )
    }

    /// An assertion that is signed by the client and holds all the same not.
    pub(super) fn assertion(why: &str) -> Self {
        Self::Oauth("invalid_client", format!("The assertion does not count: {why}."))
    }

    /// A proof of possession that does not hold (RFC 9449 section 5).
    pub(super) fn proof(why: impl std::fmt::Display) -> Self {
        Self::Oauth("invalid_dpop_proof", format!("The proof does not hold: {why}."))
    }

    /// One that has no nonce of ours, or an old one (RFC 9449 section 8).
    fn stale_proof() -> Self {
        let detail = "Sign the proof again, with the nonce of the header DPoP-Nonce.".to_owned();
        Self::Oauth("use_dpop_nonce", detail)
    }

    pub(super) fn invalid_request(detail: impl Into<String>) -> Self {
        Self::Oauth("invalid_request", detail.into())
    }

    pub(super) fn rate_limited(wait: Duration) -> Self {
        let detail = "Too many attempts failed: wait before the next one.";
        let problem = Problem::new(ProblemType::RateLimited, detail).retry_after(retry_after(wait));
        Self::Other(problem.into())
    }
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Self::Other(error)
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Other(error.into())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let denied = matches!(self, Self::Denied(_));
        let (error, error_description) = match self {
            Self::Oauth(error, description) => (error, description),
            Self::Denied(description) => ("access_denied", description),
            Self::Other(error) => return error.into_response(),
        };
        #[derive(Serialize)]
        struct Document {
            error: &'static str,
            error_description: String,
        }
        let document = axum::Json(Document { error, error_description });
        if denied {
            return (StatusCode::FORBIDDEN, document).into_response();
        }
        if error != "invalid_client" {
            return (StatusCode::BAD_REQUEST, document).into_response();
        }
        let challenge = [(header::WWW_AUTHENTICATE, "Basic realm=\"semilla\"")];
        (StatusCode::UNAUTHORIZED, challenge, document).into_response()
    }
}

/// What a program asks for. Parameters that are not known are ignored, as RFC 6749 section 3.2
/// demands.
pub(super) struct Asked {
    grant_type: Option<String>,
    scope: Option<String>,
    client_id: Option<String>,
    assertion: Option<String>,
    pairs: Vec<(String, String)>,
}

impl Asked {
    /// A parameter; an empty one is as good as none.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        let given = self.pairs.iter().find(|(given, value)| given == name && !value.is_empty());
        given.map(|(_, value)| value.as_str())
    }

    fn parse(text: &[u8]) -> Result<Self, Refusal> {
        let text = std::str::from_utf8(text)
            .map_err(|_| Refusal::invalid_request("The body is not UTF-8."))?;
        let pairs =
            form::parse(text).map_err(|error| Refusal::invalid_request(error.to_string()))?;
        // An empty parameter is as good as none.
        let value = |name: &str| {
            pairs
                .iter()
                .find(|(given, value)| given == name && !value.is_empty())
                .map(|(_, value)| value.clone())
        };
        if value("client_secret").is_some() {
            return Err(Refusal::invalid_request(
                "Send the secret as HTTP Basic, not in the body.",
            ));
        }
        let assertion = match (value("client_assertion_type"), value("client_assertion")) {
            (None, None) => None,
            (Some(kind), Some(assertion)) if kind == JWT_BEARER => Some(assertion),
            _ => {
                let detail = format!(
                    "client_assertion and client_assertion_type={JWT_BEARER} belong together."
                );
                return Err(Refusal::invalid_request(detail));
            }
        };
        Ok(Self {
            grant_type: value("grant_type"),
            scope: value("scope"),
            client_id: value("client_id"),
            assertion,
            pairs,
        })
    }
}

/// A client's id and secret from HTTP Basic, each encoded as in a form (RFC 6749 section 2.3.1).
fn credentials(headers: &HeaderMap) -> Result<(String, SecretText), Refusal> {
    let text = single(headers, &header::AUTHORIZATION)?.ok_or_else(Refusal::invalid_client)?;
    let basic = text.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("Basic"));
    let pair = basic
        .and_then(|(_, encoded)| STANDARD.decode(encoded.trim_ascii()).ok())
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .map(SecretText::new);
    let decoded = pair.as_ref().and_then(|pair| {
        let (id, secret) = pair.expose().split_once(':')?;
        Some((form::decode(id).ok()?, SecretText::new(form::decode(secret).ok()?)))
    });
    decoded.ok_or_else(Refusal::invalid_client)
}

/// How a client says who it is.
enum Claimed {
    Secret(String, SecretText),
    Assertion(String),
}

impl Claimed {
    /// In one way, not in two (RFC 6749 section 2.3).
    fn read(headers: &HeaderMap, asked: &mut Asked) -> Result<Self, Refusal> {
        let basic = headers.contains_key(header::AUTHORIZATION);
        match asked.assertion.take() {
            Some(_) if basic => {
                Err(Refusal::invalid_request("Prove yourself in one way, not in two."))
            }
            Some(assertion) => Ok(Self::Assertion(assertion)),
            None => credentials(headers).map(|(id, secret)| Self::Secret(id, secret)),
        }
    }
}

/// `POST /token`.
pub(super) async fn token(
    State(edge): State<Arc<Edge>>,
    TokenRequest(request): TokenRequest,
) -> Result<Granting, Refusal> {
    let granted = entered(edge, request, true, |edge, entered| async move {
        match entered.asked.grant_type.as_deref() {
            Some("client_credentials") => issue(&edge, entered).await,
            Some(ciba::GRANT) => ciba::redeem(&edge, entered).await,
            None => Err(Refusal::invalid_request("grant_type is missing.")),
            Some(_) => {
                let detail = format!("Only client_credentials and {} are offered.", ciba::GRANT);
                Err(Refusal::Oauth("unsupported_grant_type", detail))
            }
        }
    })
    .await?;
    // RFC 6749 section 5.1 wants both.
    Ok(([(header::PRAGMA, "no-cache")], axum::Json(granted)))
}

/// A program that proved itself, and what it asks.
pub(super) struct Entered {
    pub(super) client: Client,
    /// The assertion that is used up by it.
    pub(super) used: Option<UsedAssertion>,
    pub(super) asked: Asked,
    pub(super) proof: Option<dpop::Proof>,
}

/// Lets a program in, then does what it asks in a task of its own: what was refused is recorded
/// also where the program does not wait for it.
pub(super) async fn entered<T, F>(
    edge: Arc<Edge>,
    request: Request,
    binds: bool,
    then: impl FnOnce(Arc<Edge>, Entered) -> F + Send + 'static,
) -> Result<T, Refusal>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Refusal>> + Send,
{
    let (parts, stream) = request.into_parts();
    let peer = parts.extensions.get::<Peer>().map(|Peer(address)| *address);
    let from = peer.map(network);
    if let Some(from) = from {
        // Taken before anything is looked at, and given back to whoever proves itself.
        edge.attempts.by_network.take(from).map_err(Refusal::rate_limited)?;
    }
    body::require_media_type(&parts.headers, "application/x-www-form-urlencoded")?;
    let mut asked = Asked::parse(&body::read(stream, body::BODY_BYTES_MAX).await?)?;
    let claimed = Claimed::read(&parts.headers, &mut asked)?;
    // Before the assertion is used up: whoever only lacks a nonce comes again with the same one.
    let proof = if binds { proof(&edge, &parts.headers)? } else { None };
    // In its own task: what was refused is recorded, and what was taken is given back, also where
    // the client does not wait for it.
    let task = tokio::spawn(async move {
        let (client, used) = authenticate(&edge, claimed, asked.client_id.as_deref(), peer).await?;
        if let Some(from) = from {
            edge.attempts.by_network.give_back(&from);
        }
        then(edge, Entered { client, used, asked, proof }).await
    });
    task.await.map_err(|_| Refusal::Other(ApiError::internal("a request of a program panicked")))?
}

/// Takes the proof of a key as used. Returns the key that a token is bound to by it.
pub(super) fn bound_to(edge: &Edge, proof: Option<dpop::Proof>) -> Result<Option<KeyId>, Refusal> {
    let Some(dpop::Proof { claims, key }) = proof else { return Ok(None) };
    match edge.proofs.accept(claims.nonce.as_deref(), key.key_id(), &claims.jti) {
        Freshness::Fresh => Ok(Some(key.key_id())),
        Freshness::Stale => Err(Refusal::stale_proof()),
        Freshness::Replayed => Err(Refusal::proof("it was used before")),
    }
}

type Granting = ([(header::HeaderName, &'static str); 1], axum::Json<Granted>);

/// A request of a token: a form, and not JSON.
pub(super) struct TokenRequest(Request);

impl<S: Sync> FromRequest<S> for TokenRequest {
    type Rejection = std::convert::Infallible;
    async fn from_request(request: Request, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self(request))
    }
}

/// The form of [`TokenRequest`], as it is described.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it is described, and read by hand")]
struct TokenForm {
    /// `client_credentials`, or `urn:openid:params:grant-type:ciba` with `auth_req_id`.
    #[schemars(extend("enum" = ["client_credentials", ciba::GRANT]))]
    grant_type: String,
    /// What `/bc-authorize` answered.
    auth_req_id: Option<String>,
    /// What the token is to be good for, by blanks; all that the client may do if not said.
    scope: Option<String>,
    /// Who asks; it has to be who proves itself.
    client_id: Option<String>,
    /// With `client_assertion`.
    client_assertion_type: Option<String>,
    /// An assertion signed with the client's key (RFC 7523), in the place of a secret.
    client_assertion: Option<String>,
}

impl Part for TokenRequest {
    fn describe(about: &mut About) {
        let examples = ApiScope::ALL.map(|scope| {
            let form = json!({ "grant_type": "client_credentials", "scope": scope.name() });
            (scope.name().to_owned(), form)
        });
        let content = Content {
            media_type: "application/x-www-form-urlencoded",
            schema: about.reads_form::<TokenForm>(),
            examples: examples.into_iter().collect(),
        };
        about.body = Some((content, true));
        let proof = json!({ "type": "string", "examples": [PROOF_EXAMPLE] });
        let says = "A proof of the key that the token is to be bound to (RFC 9449).";
        about.parameter("header", "DPoP", false, proof, says);
        use ProblemType::{RateLimited, TooLarge, Unauthenticated, UnsupportedMediaType};
        about.may(&[RateLimited, TooLarge, Unauthenticated, UnsupportedMediaType]);
    }
}

impl Reply for Result<Granting, Refusal> {
    fn describe(about: &mut About) {
        about.answers_json::<Granted>(200);
        about.refuses_as_oauth = true;
    }
}

/// RFC 9449, figure 2.
const PROOF_EXAMPLE: &str = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6Ik\
    VDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCR\
    nMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JE\
    QSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIj\
    oiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rva2VuIiwia\
    WF0IjoxNTYyMjYyNjE2fQ.2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg\
    4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3Lg";

/// How [`Refusal`]s of this status are described: each error by its name.
pub(super) fn refusal_content(status: u16) -> serde_json::Value {
    let errors: &[&str] = match status {
        401 => &["invalid_client"],
        403 => &["access_denied"],
        _ => &[
            "invalid_request",
            "invalid_scope",
            "unsupported_grant_type",
            "unauthorized_client",
            "invalid_dpop_proof",
            "use_dpop_nonce",
            "invalid_grant",
            "authorization_pending",
            "slow_down",
            "expired_token",
            "access_denied",
            "transaction_failed",
            "unknown_user_id",
            "invalid_binding_message",
            "invalid_authorization_details",
        ],
    };
    let example = |error: &&str| {
        ((*error).to_owned(), json!({ "value": { "error": error, "error_description": "Why." } }))
    };
    let examples: serde_json::Map<_, _> = errors.iter().map(example).collect();
    json!({
        "schema": {
            "type": "object",
            "properties": {
                "error": { "type": "string", "enum": errors },
                "error_description": { "type": "string" },
            },
            "required": ["error", "error_description"],
        },
        "examples": examples,
    })
}

/// The proof of the key that the token is to be bound to, where there is one.
fn proof(edge: &Edge, headers: &HeaderMap) -> Result<Option<dpop::Proof>, Refusal> {
    let Some(text) = single(headers, &DPOP)? else { return Ok(None) };
    let uri = format!("{}/token", edge.app.issuer);
    let about = dpop::Request { method: "POST", uri: &uri, access_token: None };
    let proof = dpop::verify(text, &about).map_err(Refusal::proof)?;
    if !edge.proofs.holds(proof.claims.nonce.as_deref()) {
        return Err(Refusal::stale_proof());
    }
    Ok(Some(proof))
}

/// Why a client is not let in: as the audit has it, and as the client is told.
pub(super) struct Denied(pub(super) &'static str, pub(super) Refusal);

impl Denied {
    fn unproven(reason: &'static str) -> Self {
        Self(reason, Refusal::invalid_client())
    }
}

/// The client that proves itself, and the assertion that is thereby used up. Until it has, the
/// same reads and the same computations, whoever it says it is: a client that does not exist is
/// looked for at the bank, and recorded there.
async fn authenticate(
    edge: &Edge,
    claimed: Claimed,
    client_id: Option<&str>,
    peer: Option<IpAddr>,
) -> Result<(Client, Option<UsedAssertion>), Refusal> {
    let app = &edge.app;
    let assertion = match &claimed {
        Claimed::Secret(..) => None,
        Claimed::Assertion(text) => {
            Some(Unverified::read(text).map_err(|error| Refusal::assertion(&error.to_string()))?)
        }
    };
    let id = match (&claimed, &assertion) {
        (Claimed::Secret(id, _), _) => id,
        (_, Some(assertion)) => assertion.subject(),
        (_, None) => return Err(Refusal::invalid_client()),
    };
    if client_id.is_some_and(|other| other != id) {
        let detail = "client_id is not the client that proves itself.";
        return Err(Refusal::invalid_request(detail));
    }
    let id: ClientId = id.parse().map_err(|_| Refusal::invalid_client())?;
    let known = app.store.lookup(Scope::Client, &id.to_string()).await?;
    let company = known.map_or(CompanyId::BANK, |(company, _)| company);
    let client = app.store.get::<Client>(company, &id.to_string()).await?.map(|kept| kept.record);
    let owner = app.store.get::<Company>(CompanyId::BANK, &company.to_string()).await?;
    let proven = match (&claimed, &assertion) {
        (Claimed::Secret(_, secret), _) => {
            let expected = client.as_ref().and_then(|client| client.secret_sha256.as_deref());
            let same = same(&edge.comparison, expected.unwrap_or(""), &sha256(secret.expose()));
            if same { Ok(()) } else { Err("secret") }
        }
        (_, Some(assertion)) => {
            // Nobody's key, so that a client without keys takes as long as one with.
            let nobody = [ClientKey { kid: None, key: app.keys.signing.public().clone() }];
            let keys = client.as_ref().map(|client| client.keys.as_slice());
            let verified = match keys.filter(|keys| !keys.is_empty()) {
                Some(keys) => assertion.verify(keys),
                None => assertion.verify(&nobody).and(Err(MessageError::WrongKey)),
            };
            verified.map_err(|_| "signature")
        }
        (_, None) => Err("none"),
    };
    let denied = match (&client, proven) {
        (None, _) => Denied::unproven("unknown"),
        (Some(_), Err(reason)) => Denied::unproven(reason),
        (Some(client), Ok(())) if !client.active => Denied::unproven("inactive"),
        (Some(_), Ok(())) if !owner.as_ref().is_some_and(|owner| owner.record.active) => {
            Denied::unproven("company_inactive")
        }
        (Some(client), Ok(())) => match assertion {
            None => return Ok((client.clone(), None)),
            Some(assertion) => match unused(app, client, &assertion).await? {
                Ok(used) => return Ok((client.clone(), Some(used))),
                Err(denied) => denied,
            },
        },
    };
    refused(edge, company, id, peer, denied).await
}

/// What the assertion of a client uses up, once.
async fn unused(
    app: &App,
    client: &Client,
    assertion: &Unverified<'_>,
) -> Result<Result<UsedAssertion, Denied>, Refusal> {
    let issuer = app.issuer.as_str();
    // Whichever of the two it is sent to: it counts once (CIBA Core section 7.1).
    let endpoints = ["/token", "/bc-authorize"].map(|path| format!("{issuer}{path}"));
    let audiences = [issuer, &endpoints[0], &endpoints[1]];
    let checked = assertion.check(&client.id.to_string(), &audiences, app.now());
    let proven = match checked {
        Ok(proven) => proven,
        Err(error) => {
            return Ok(Err(Denied("assertion", Refusal::assertion(&error.to_string()))));
        }
    };
    let (company, client) = (client.company, client.id);
    let sha256 = sha256(&proven.jti);
    let used = UsedAssertion { company, client, sha256, expires: proven.expires };
    Ok(match app.store.get::<UsedAssertion>(company, &used.id()).await? {
        None => Ok(used),
        // Forgotten late, it is used all the same.
        Some(_) => Err(Denied("replayed", Refusal::assertion("its jti was used before"))),
    })
}

/// Records that a client was refused, and refuses it.
pub(super) async fn refused<T>(
    edge: &Edge,
    company: CompanyId,
    client: ClientId,
    peer: Option<IpAddr>,
    Denied(reason, refusal): Denied,
) -> Result<T, Refusal> {
    let app = &edge.app;
    edge.attempts.by_client.take(client).map_err(Refusal::rate_limited)?;
    let subject = Subject { client: Some(client), ..Subject::default() };
    let mut draft = Draft::new(company, app.now(), "client.refused", Actor::System)
        .about(subject)
        .with("reason", reason);
    if let Some(peer) = peer {
        draft = draft.with("peer", peer);
    }
    app.store.commit(Batch { audit: vec![draft], ..Batch::default() }).await?;
    Err(refusal)
}

/// Compares in constant time: by the tags of both under a key of this process.
fn same(key: &hmac::Key, expected: &str, given: &str) -> bool {
    hmac::verify(key, given.as_bytes(), hmac::sign(key, expected.as_bytes()).as_ref()).is_ok()
}

/// The answer of RFC 6749 section 5.1. No `Debug`: it holds the token.
#[derive(Default, Serialize, JsonSchema)]
pub(super) struct Granted {
    /// The token.
    pub(super) access_token: String,
    /// `Bearer`, or `DPoP` where it is bound to a key.
    pub(super) token_type: &'static str,
    /// For how many seconds it holds.
    pub(super) expires_in: u64,
    /// What it is good for, by blanks.
    pub(super) scope: String,
    /// Of an approval: who gave it, and when (OpenID Connect Core section 2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id_token: Option<String>,
    /// Of an approval: what exactly was agreed to (RFC 9396 section 7).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) authorization_details: Option<serde_json::Value>,
}

async fn issue(edge: &Edge, entered: Entered) -> Result<Granted, Refusal> {
    let app = &edge.app;
    let Entered { client, used, asked, proof } = entered;
    let scopes = scopes(&client, asked.scope.as_deref())?;
    let bound_to = bound_to(edge, proof)?;
    let access_token = base64url::encode(&entropy::bytes::<32>(app.entropy.as_ref()));
    let (sha256, now) = (sha256(&access_token), app.now());
    let scope = scopes.iter().map(|scope| scope.name()).collect::<Vec<_>>().join(" ");
    let mut batch = Batch::default();
    batch.insert(&AccessToken {
        sha256: sha256.clone(),
        company: client.company,
        client: client.id,
        scopes,
        expires: now.plus(Duration::from_secs(TOKEN_SECONDS)),
        bound_to,
    });
    batch.writes.push(Write::Reserve(Scope::AccessToken, sha256.clone(), client.company, sha256));
    let proves_key = used.is_some();
    if let Some(used) = &used {
        batch.insert(used);
    }
    let actor = Actor::Client { client: client.id, asker: None };
    let subject = Subject { client: Some(client.id), ..Subject::default() };
    let mut draft = Draft::new(client.company, now, "client.authenticated", actor).about(subject);
    if let Some(key) = bound_to {
        draft = draft.with("bound_to", key);
    }
    batch.audit.push(draft.with("scope", &scope));
    match app.store.commit(batch).await {
        Ok(()) => {}
        // Two came with the same assertion at once: the database let one in.
        Err(StoreError::Conflict) if proves_key => {
            let denied = Denied("replayed", Refusal::assertion("its jti was used before"));
            return refused(edge, client.company, client.id, None, denied).await;
        }
        Err(error) => return Err(error.into()),
    }
    let token_type = if bound_to.is_some() { "DPoP" } else { "Bearer" };
    let expires_in = TOKEN_SECONDS;
    Ok(Granted { access_token, token_type, expires_in, scope, ..Granted::default() })
}

/// What the token will be good for: all that the client may do, or the part that it asks for.
fn scopes(client: &Client, asked: Option<&str>) -> Result<Vec<ApiScope>, Refusal> {
    if client.scopes.is_empty() {
        let detail = "This client may do nothing: ask the bank.".to_owned();
        return Err(Refusal::Oauth("unauthorized_client", detail));
    }
    let Some(asked) = asked else { return Ok(client.scopes.clone()) };
    let granted = |name: &str| ApiScope::parse(name).filter(|scope| client.scopes.contains(scope));
    let scopes: Option<BTreeSet<_>> = asked.split(' ').map(granted).collect();
    match scopes {
        Some(scopes) => Ok(scopes.into_iter().collect()),
        None => {
            let detail = "A scope is unknown, or not granted to this client.".to_owned();
            Err(Refusal::Oauth("invalid_scope", detail))
        }
    }
}

/// `GET /jwks`: the server's public keys (RFC 7517 section 5).
pub(super) async fn jwks(State(edge): State<Arc<Edge>>) -> Text<KeySet> {
    let content_type = [(header::CONTENT_TYPE, HeaderValue::from_static(KeySet::MEDIA_TYPE))];
    Text::of((content_type, edge.app.keys.published.text().to_owned()))
}

/// A JSON Web Key Set.
pub(super) struct KeySet;

impl Kind for KeySet {
    const MEDIA_TYPE: &'static str = "application/jwk-set+json";
    fn schema() -> serde_json::Value {
        json!({
            "type": "object",
            "properties": { "keys": { "type": "array", "items": { "type": "object" } } },
            "required": ["keys"],
        })
    }
    fn example() -> serde_json::Value {
        json!({ "keys": [{
            "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig",
            "x": "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs",
            "y": "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA",
            "kid": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I",
        }] })
    }
}

/// The metadata of RFC 8414.
#[derive(Serialize, JsonSchema)]
pub(super) struct Metadata {
    issuer: String,
    token_endpoint: String,
    jwks_uri: String,
    service_documentation: String,
    grant_types_supported: Vec<&'static str>,
    #[schemars(extend("examples" = [[]]))]
    response_types_supported: Vec<&'static str>,
    token_endpoint_auth_methods_supported: Vec<AuthMethod>,
    token_endpoint_auth_signing_alg_values_supported: Vec<&'static str>,
    dpop_signing_alg_values_supported: Vec<&'static str>,
    scopes_supported: Vec<&'static str>,
    subject_types_supported: Vec<&'static str>,
    id_token_signing_alg_values_supported: Vec<&'static str>,
    claims_supported: Vec<&'static str>,
    acr_values_supported: Vec<&'static str>,
    request_parameter_supported: bool,
    request_object_signing_alg_values_supported: Vec<&'static str>,
    backchannel_authentication_endpoint: String,
    backchannel_token_delivery_modes_supported: Vec<DeliveryMode>,
    backchannel_authentication_request_signing_alg_values_supported: Vec<&'static str>,
    backchannel_user_code_parameter_supported: bool,
}

/// `GET /.well-known/oauth-authorization-server` (RFC 8414 section 2), and the same document as
/// `GET /.well-known/openid-configuration` (OpenID Connect Discovery section 3, CIBA Core section
/// 4). There is no `authorization_endpoint`: people are asked on their phones alone.
pub(super) async fn metadata(State(edge): State<Arc<Edge>>) -> axum::Json<Metadata> {
    let issuer = &edge.app.issuer;
    axum::Json(Metadata {
        issuer: issuer.clone(),
        token_endpoint: format!("{issuer}/token"),
        jwks_uri: format!("{issuer}/jwks"),
        service_documentation: format!("{issuer}/docs"),
        grant_types_supported: vec!["client_credentials", ciba::GRANT],
        response_types_supported: Vec::new(),
        token_endpoint_auth_methods_supported: vec![
            AuthMethod::ClientSecretBasic,
            AuthMethod::PrivateKeyJwt,
        ],
        token_endpoint_auth_signing_alg_values_supported: vec!["ES256"],
        dpop_signing_alg_values_supported: vec!["ES256"],
        scopes_supported: ["openid"]
            .into_iter()
            .chain(ApiScope::ALL.iter().map(|scope| scope.name()))
            .collect(),
        subject_types_supported: vec!["public"],
        id_token_signing_alg_values_supported: vec!["ES256"],
        claims_supported: vec![
            "iss",
            "sub",
            "aud",
            "exp",
            "iat",
            "auth_time",
            "jti",
            "acr",
            "amr",
            "at_hash",
        ],
        acr_values_supported: crate::workflow::ciba::ACR.to_vec(),
        request_parameter_supported: true,
        request_object_signing_alg_values_supported: vec!["ES256"],
        backchannel_authentication_endpoint: format!("{issuer}/bc-authorize"),
        backchannel_token_delivery_modes_supported: vec![DeliveryMode::Poll, DeliveryMode::Ping],
        backchannel_authentication_request_signing_alg_values_supported: vec!["ES256"],
        backchannel_user_code_parameter_supported: false,
    })
}
