//! For the tests of this folder: a server without a network, and requests to it.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, header};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::BodyExt;
use ring::rand::SystemRandom;
use semilla_core::id::ClientId;
use semilla_core::person::Login;
use semilla_core::seal::{Keyring, MasterKey};
use semilla_core::text::Name;
use semilla_core::time::Timestamp;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::app::{App, SystemEntropy, server_keys};
use crate::clock::ManualClock;
use crate::store::sqlite::SqliteStore;
use crate::workflow::people::NewUser;
use crate::workflow::{Failure, Plan, View, act, bootstrap};

/// A server, its clock, and the bank's program.
pub(crate) struct Bench {
    pub(crate) app: Arc<App>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) router: Router,
    /// The bank's program, which may do what an operator may.
    pub(crate) client: ClientId,
    pub(crate) secret: String,
}

/// Where the server is, for its callers.
pub(crate) const ISSUER: &str = "https://tokens.example";

impl Bench {
    /// A server with a bank and its operator, and nothing else.
    pub(crate) async fn new() -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::from_seconds(1_800_000_000)));
        let entropy = SystemEntropy::default();
        let store = Arc::new(SqliteStore::open_in_memory().expect("a database"));
        let keyring = Keyring::new(MasterKey::generate(&entropy), []);
        let now = crate::clock::Clock::now(clock.as_ref());
        let keys = server_keys(store.as_ref(), &keyring, &entropy, now).await.expect("keys");
        let app = Arc::new(App {
            store,
            keyring,
            keys,
            clock: clock.clone(),
            entropy: Arc::new(entropy),
            random: SystemRandom::new(),
            issuer: ISSUER.to_owned(),
            stopping: CancellationToken::new(),
            alarm_failures_per_minute: 1000,
            failures: Default::default(),
        });
        let name = Name::parse("Banco").expect("a name");
        let operator = NewUser {
            login: Login::parse("operator").expect("a login"),
            name: Name::parse("Operadora").expect("a name"),
            role: semilla_core::person::Role::Operator,
        };
        let acted = act(&app, None, move |app| {
            let (name, operator) = (name.clone(), operator.clone());
            async move { bootstrap::bank(&app, &name, &operator).await }
        });
        let created = acted.await.expect("a bank").into_answer();
        let created: serde_json::Value = serde_json::from_str(&created.body).expect("JSON");
        let text = |name: &str| created[name].as_str().expect("a text").to_owned();
        let client = text("client_id").parse().expect("an id");
        let secret = text("client_secret");
        let router = super::router(Arc::clone(&app));
        Self { app, clock, router, client, secret }
    }

    /// Sends a request, with a `Host` where it has none.
    pub(crate) async fn send(&self, mut request: Request<Body>) -> Response {
        if !request.headers().contains_key(header::HOST) {
            request
                .headers_mut()
                .insert(header::HOST, header::HeaderValue::from_static("tokens.example"));
        }
        self.router.clone().oneshot(request).await.expect("an answer")
    }

    /// `POST /token` with these credentials and this form.
    pub(crate) async fn token_request(&self, client: &str, secret: &str, form: &str) -> Response {
        let basic = STANDARD.encode(format!("{client}:{secret}"));
        let request = Request::post("/token")
            .header(header::AUTHORIZATION, format!("Basic {basic}"))
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Body::from(form.to_owned()))
            .expect("a request");
        self.send(request).await
    }

    /// An access token for a client.
    pub(crate) async fn access_token(&self, client: ClientId, secret: &str) -> String {
        let response =
            self.token_request(&client.to_string(), secret, "grant_type=client_credentials").await;
        assert_eq!(response.status(), 200);
        let granted: serde_json::Value =
            serde_json::from_str(&body_of(response).await).expect("JSON");
        granted["access_token"].as_str().expect("a token").to_owned()
    }

    /// Does what `plan` plans and returns its answer's body.
    pub(crate) async fn done<T, P, F>(&self, plan: P) -> serde_json::Value
    where
        T: View,
        P: Fn(Arc<App>) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Plan<T>, Failure>> + Send,
    {
        let answer = act(&self.app, None, plan).await.expect("done").into_answer();
        serde_json::from_str(&answer.body).unwrap_or_default()
    }
}

/// A response's body.
pub(crate) async fn body_of(response: Response) -> String {
    let bytes = response.into_body().collect().await.expect("a body").to_bytes();
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}
