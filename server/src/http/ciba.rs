//! Approvals for relying parties (OpenID CIBA Core 1.0): `POST /bc-authorize`, and the grant of
//! `/token` that fetches the answer. Here the form, or the signed request in it, is read and held
//! against what the program may; the rest is [`crate::workflow::ciba`].

use std::sync::Arc;

use axum::extract::{FromRequest, Request, State};
use schemars::JsonSchema;
use semilla_core::problem::ProblemType;
use semilla_core::protocol::consent::{BindingMessage, Details};
use semilla_core::protocol::request_object;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::Edge;
use super::describe::{About, Content, Part, Reply};
use super::oauth::{Asked, Denied, Entered, Granted, Refusal, bound_to, entered, refused};
use super::problem::ApiError;
use crate::records::{ApiScope, ApprovalSettings, Client, DeliveryMode, UsedAssertion};
use crate::store::StoreError;
use crate::workflow::Failure;
use crate::workflow::caller::sha256;
use crate::workflow::ciba::{self, Hint, INTERVAL, Planned, Refused};

/// The grant (section 10.1).
pub(super) const GRANT: &str = "urn:openid:params:grant-type:ciba";

/// How many times something is planned anew.
const ATTEMPTS_MAX: usize = 16;

/// The parameters of a request (section 7.1): outside of a signed one they must not stand.
const PARAMETERS: [&str; 11] = [
    "scope",
    "client_notification_token",
    "acr_values",
    "login_hint_token",
    "id_token_hint",
    "login_hint",
    "binding_message",
    "user_code",
    "requested_expiry",
    "authorization_details",
    "request_uri",
];

/// A request of an approval: a form, and not JSON.
pub(super) struct AuthorizeRequest(Request);

impl<S: Sync> FromRequest<S> for AuthorizeRequest {
    type Rejection = std::convert::Infallible;
    async fn from_request(request: Request, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self(request))
    }
}

/// The form of [`AuthorizeRequest`], as it is described.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it is described, and read by hand")]
struct AuthorizeForm {
    /// `openid`.
    #[schemars(extend("const" = "openid"))]
    scope: String,
    /// Whose phone: their login or their id. This, or `id_token_hint`.
    #[schemars(extend("examples" = ["laura.valencia"]))]
    login_hint: Option<String>,
    /// An ID token that this program was given before.
    id_token_hint: Option<String>,
    /// What the person compares: 1 to 64 visible characters, shown on both screens.
    #[schemars(length(min = 1, max = 64), extend("examples" = ["Pago 4711"]))]
    binding_message: Option<String>,
    /// What exactly is asked (RFC 9396), as JSON. All of it has to fit on a phone.
    #[schemars(extend("examples" = [r#"[{"type":"payment_initiation","amount":"120.50"}]"#]))]
    authorization_details: Option<String>,
    /// For how many seconds, 600 at most.
    #[schemars(extend("examples" = ["120"]))]
    requested_expiry: Option<String>,
    /// The classes that are wished for; nothing depends on it.
    #[schemars(extend("examples" = ["urn:semilla:acr:number"]))]
    acr_values: Option<String>,
    /// What the program knows a ping by.
    #[schemars(extend("examples" = ["8d67dc78-7faa-4d41-aabd-67707b374255"]))]
    client_notification_token: Option<String>,
    /// All of this in a text signed with the program's key, in the place of it.
    request: Option<String>,
    /// Who asks; it has to be who proves itself.
    client_id: Option<String>,
    /// With `client_assertion`.
    client_assertion_type: Option<String>,
    /// An assertion signed with the client's key (RFC 7523), in the place of a secret.
    client_assertion: Option<String>,
}

impl Part for AuthorizeRequest {
    fn describe(about: &mut About) {
        let form = json!({
            "scope": "openid", "login_hint": "laura.valencia", "binding_message": "Pago 4711",
        });
        let content = Content {
            media_type: "application/x-www-form-urlencoded",
            schema: about.reads_form::<AuthorizeForm>(),
            examples: Map::from_iter([("example".to_owned(), form)]),
        };
        about.body = Some((content, true));
        use ProblemType::{
            Forbidden, RateLimited, TooLarge, Unauthenticated, UnsupportedMediaType,
        };
        about.may(&[Forbidden, RateLimited, TooLarge, Unauthenticated, UnsupportedMediaType]);
    }
}

/// The answer of section 7.3. No `Debug`: it holds the number.
#[derive(Serialize, JsonSchema)]
pub(super) struct Authorizing {
    /// What to look for the answer with, once.
    #[schemars(extend("examples" = [
        "019ac6a5-1c00-7000-8000-000000000009.q3ZtC5kdtPzVY9vWqkPyJ0OBeS1GhNNOZ5mb7x1Qv9Y"
    ]))]
    auth_req_id: String,
    /// For how many seconds.
    expires_in: u64,
    /// How many seconds have to pass between two looks.
    interval: u64,
    /// The number to show to the person, who types it on the phone. CIBA does not know it; without
    /// it nobody can approve, but where the bank registered the program as one that shows none.
    #[serde(skip_serializing_if = "Option::is_none")]
    match_number: Option<String>,
}

impl Reply for Result<axum::Json<Authorizing>, Refusal> {
    fn describe(about: &mut About) {
        about.answers_json::<Authorizing>(200);
        about.refuses_as_oauth = true;
    }
}

/// `POST /bc-authorize` (section 7).
pub(super) async fn authorize(
    State(edge): State<Arc<Edge>>,
    AuthorizeRequest(request): AuthorizeRequest,
) -> Result<axum::Json<Authorizing>, Refusal> {
    entered(edge, request, false, |edge, entered| async move {
        let Entered { client, used, asked, .. } = entered;
        let settings = settings_of(&client)?;
        let mut used: Vec<_> = used.into_iter().collect();
        let parameters = parameters(&edge, &client, &settings, &asked, &mut used).await?;
        let request = request_of(&settings, &parameters)?;
        let settle = |planned: Planned<ciba::Asked>| match planned.outcome {
            // Whom may not be asked now, is denied by the server (section 13).
            Err(Refused { error: "access_denied", detail, .. }) => Err(Refusal::Denied(detail)),
            Err(refused) => Err(Refusal::Oauth(refused.error, refused.detail)),
            Ok(asked) => Ok(axum::Json(Authorizing {
                auth_req_id: asked.auth_req_id,
                expires_in: asked.expires_in,
                interval: INTERVAL,
                match_number: asked.match_number,
            })),
        };
        let (app, asked) = (Arc::clone(&edge.app), Arc::new((client.clone(), settings, request)));
        let plan = move || {
            let (app, asked) = (Arc::clone(&app), Arc::clone(&asked));
            async move { ciba::ask(&app, &asked.0, &asked.1, &asked.2).await }
        };
        settle(durable(&edge, &client, &used, plan).await?)
    })
    .await
}

/// The grant of `/token` (section 10.1).
pub(super) async fn redeem(edge: &Edge, entered: Entered) -> Result<Granted, Refusal> {
    let Entered { client, used, asked, proof } = entered;
    let settings = settings_of(&client)?;
    let auth_req_id = asked.value("auth_req_id");
    let auth_req_id =
        auth_req_id.ok_or_else(|| Refusal::invalid_request("auth_req_id is missing."))?;
    if settings.fapi && proof.is_none() {
        return Err(Refusal::proof("this program binds its tokens to a key: it is missing"));
    }
    let bound_to = bound_to(edge, proof)?;
    let used: Vec<_> = used.into_iter().collect();
    let (app, looked) = (Arc::clone(&edge.app), Arc::new((client.clone(), auth_req_id.to_owned())));
    let plan = move || {
        let (app, looked) = (Arc::clone(&app), Arc::clone(&looked));
        async move { ciba::redeem(&app, &looked.0, &looked.1, bound_to).await }
    };
    match durable(edge, &client, &used, plan).await?.outcome {
        Err(refused) => Err(Refusal::Oauth(refused.error, refused.detail)),
        Ok(redeemed) => Ok(Granted {
            access_token: redeemed.access_token,
            token_type: if bound_to.is_some() { "DPoP" } else { "Bearer" },
            expires_in: redeemed.expires_in,
            scope: "openid".to_owned(),
            id_token: Some(redeemed.id_token),
            authorization_details: Some(&redeemed.details)
                .filter(|details| !details.is_empty())
                .and_then(|details| serde_json::to_value(details).ok()),
        }),
    }
}

/// Makes what `plan` plans durable, refusals too, with what is used up by it: planned anew where
/// something else changed, refused where it was used before.
async fn durable<T, F>(
    edge: &Edge,
    client: &Client,
    used: &[UsedAssertion],
    plan: impl Fn() -> F,
) -> Result<Planned<T>, Refusal>
where
    F: Future<Output = Result<Planned<T>, Failure>>,
{
    let app = &edge.app;
    for _ in 0..ATTEMPTS_MAX {
        // The master key does not change between sealing and storing.
        let _unit = app.keyring.unit().await;
        let mut planned = plan().await.map_err(ApiError::from)?;
        let mut batch = std::mem::take(&mut planned.batch);
        if !batch.audit.is_empty() && planned.outcome.as_ref().is_err_and(|it| it.reason.is_some())
        {
            // A program cannot fill the trail of its company.
            edge.attempts.by_client.take(client.id).map_err(Refusal::rate_limited)?;
        }
        for one in used {
            batch.insert(one);
        }
        match app.store.commit(batch).await {
            Ok(()) => return Ok(planned),
            Err(StoreError::Conflict) if ciba::was_used(app, used).await? => {
                let denied = Denied("replayed", Refusal::assertion("its jti was used before"));
                return refused(edge, client.company, client.id, None, denied).await;
            }
            Err(StoreError::Conflict) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(ApiError::from(ciba::too_busy()).into())
}

fn settings_of(client: &Client) -> Result<ApprovalSettings, Refusal> {
    let granted = client.scopes.contains(&ApiScope::ApprovalsAsk);
    client.approvals.clone().filter(|_| granted).ok_or_else(|| {
        let detail = "This program may not ask people for approvals.".to_owned();
        Refusal::Oauth("unauthorized_client", detail)
    })
}

/// What is asked, from the form or from the signed request in it.
async fn parameters(
    edge: &Edge,
    client: &Client,
    settings: &ApprovalSettings,
    asked: &Asked,
    used: &mut Vec<UsedAssertion>,
) -> Result<Map<String, Value>, Refusal> {
    let given = |name: &&str| asked.value(name).map(|value| ((*name).to_owned(), value.into()));
    let outside: Map<String, Value> = PARAMETERS.iter().filter_map(given).collect();
    let Some(request) = asked.value("request") else {
        if settings.signed_requests || settings.fapi {
            return Err(Refusal::invalid_request("This program has to sign its requests."));
        }
        return Ok(outside);
    };
    if let Some((name, _)) = outside.into_iter().next() {
        let detail = format!("{name} stands beside the signed request: it belongs into it.");
        return Err(Refusal::invalid_request(detail));
    }
    let app = &edge.app;
    let id = client.id.to_string();
    let read = request_object::read(request, &client.keys, &id, &app.issuer, app.now());
    let (proven, mut asks) = read.map_err(|error| {
        Refusal::invalid_request(format!("The signed request does not count: {error}."))
    })?;
    let one = UsedAssertion {
        company: client.company,
        client: client.id,
        // Not the name of an assertion: both may be called the same.
        sha256: sha256(&format!("request {}", proven.jti)),
        expires: proven.expires,
    };
    if ciba::was_used(app, std::slice::from_ref(&one)).await? {
        let refusal = Refusal::invalid_request("The signed request was used before.");
        let denied = Denied("request_replayed", refusal);
        return refused(edge, client.company, client.id, None, denied).await;
    }
    used.push(one);
    // What is not said may also be said to be nothing.
    asks.retain(|_, value| !value.is_null());
    if asks.contains_key("request") {
        return Err(Refusal::invalid_request("A signed request holds no other."));
    }
    Ok(asks)
}

/// Holds what is asked against what may be.
fn request_of(
    settings: &ApprovalSettings,
    parameters: &Map<String, Value>,
) -> Result<ciba::Request, Refusal> {
    let text = |name: &str| match parameters.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(Refusal::invalid_request(format!("{name} is no text."))),
    };
    if parameters.contains_key("request_uri") {
        return Err(Refusal::invalid_request("request_uri is not offered: send request."));
    }
    let scope = text("scope")?.ok_or_else(|| Refusal::invalid_request("scope is missing."))?;
    let mut scopes = scope.split(' ');
    if !scopes.clone().any(|scope| scope == "openid") || !scopes.all(|scope| scope == "openid") {
        let detail = "The scope of an approval is openid, and no other.".to_owned();
        return Err(Refusal::Oauth("invalid_scope", detail));
    }
    let hints = (text("login_hint")?, text("id_token_hint")?, text("login_hint_token")?);
    let hint = match hints {
        (Some(login), None, None) if login.len() <= 128 => Hint::Login(login.to_owned()),
        (None, Some(token), None) => Hint::IdToken(token.to_owned()),
        (None, None, Some(_)) => {
            let detail = "login_hint_token is not offered: send login_hint.";
            return Err(Refusal::invalid_request(detail));
        }
        _ => {
            let detail = "Say whom with exactly one of login_hint and id_token_hint.";
            return Err(Refusal::invalid_request(detail));
        }
    };
    let binding_message = text("binding_message")?.map(BindingMessage::parse).transpose();
    let binding_message = binding_message
        .map_err(|error| Refusal::Oauth("invalid_binding_message", format!("{error}.")))?;
    let details = details(settings, parameters.get("authorization_details"))?;
    if !settings.match_number && binding_message.is_none() && details.is_empty() {
        // FAPI CIBA section 5.2.2: there has to be something that this request alone has.
        let detail = "Without a number there has to be a binding_message or authorization_details.";
        return Err(Refusal::invalid_request(detail));
    }
    let requested_expiry = match parameters.get("requested_expiry") {
        None => None,
        // A text, or, in a signed request, a number (section 7.1.1).
        Some(value) => {
            let seconds = match value {
                Value::String(text) => text.parse().ok(),
                value => value.as_u64(),
            };
            Some(seconds.filter(|seconds| *seconds > 0).ok_or_else(|| {
                Refusal::invalid_request("requested_expiry is no positive whole number.")
            })?)
        }
    };
    let notification_token = text("client_notification_token")?;
    if settings.mode == DeliveryMode::Ping {
        // Section 7.1: a bearer token, which nobody guesses.
        let fits = |token: &&str| {
            (22..=1024).contains(&token.len())
                && token
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte))
        };
        if notification_token.filter(fits).is_none() {
            let detail = "client_notification_token has 22 to 1024 characters of a bearer token.";
            return Err(Refusal::invalid_request(detail));
        }
    }
    let notification_token = notification_token.map(str::to_owned);
    Ok(ciba::Request { hint, binding_message, details, requested_expiry, notification_token })
}

fn details(settings: &ApprovalSettings, given: Option<&Value>) -> Result<Details, Refusal> {
    let wrong = |detail: String| Refusal::Oauth("invalid_authorization_details", detail);
    let read = match given {
        None => return Ok(Details::default()),
        Some(Value::String(text)) => Details::parse(text),
        Some(value) => Details::of(value.clone()),
    };
    let details = read.map_err(|error| wrong(format!("They cannot be asked: {error}.")))?;
    let foreign = details.types().find(|name| !settings.details_types.iter().any(|it| it == name));
    if let Some(name) = foreign {
        return Err(wrong(format!("This program may not ask for the type {name:?}.")));
    }
    Ok(details)
}
