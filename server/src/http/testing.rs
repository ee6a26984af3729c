//! For the tests of this folder: a server without a network, and requests to it.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, header};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::BodyExt;
use semilla_core::id::ClientId;
use semilla_core::person::Login;
use semilla_core::seal::{Keyring, MasterKey};
use semilla_core::text::Name;
use semilla_core::time::Timestamp;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::app::{App, SystemEntropy};
use crate::clock::ManualClock;
use crate::listener::Peer;
use crate::records::ApiScope;
use crate::serve::{self, Start};
use crate::workflow::people::NewUser;
use crate::workflow::{act, bootstrap};

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
        let keyring = Keyring::new(MasterKey::generate(&SystemEntropy::default()), []);
        let mut start = Start { clock: clock.clone(), ..Start::on_loopback(None, keyring) };
        let app = serve::open(&mut start, ISSUER.to_owned()).await.expect("a server");
        let app = Arc::new(app);
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

    /// Sends a request, with a `Host` and a peer where it has none.
    pub(crate) async fn send(&self, mut request: Request<Body>) -> Response {
        if request.extensions().get::<Peer>().is_none() {
            request.extensions_mut().insert(Peer([127, 0, 0, 1].into()));
        }
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

    /// Sends a program's request, as JSON where it has a body.
    pub(crate) async fn ask(&self, token: &str, method: &str, path: &str, body: Value) -> Response {
        self.ask_with(token, method, path, body, &[]).await
    }

    /// The same, with more headers.
    pub(crate) async fn ask_with(
        &self,
        token: &str,
        method: &str,
        path: &str,
        body: Value,
        headers: &[(&str, &str)],
    ) -> Response {
        let mut request = Request::builder().method(method).uri(path);
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = match body {
            Value::Null => Body::empty(),
            body => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Body::from(body.to_string())
            }
        };
        self.send(request.body(body).expect("a request")).await
    }

    /// Sends a program's request and expects success.
    pub(crate) async fn done(&self, token: &str, method: &str, path: &str, body: Value) -> Value {
        let response = self.ask(token, method, path, body).await;
        let status = response.status();
        let body = body_of(response).await;
        assert!(status.is_success(), "{method} {path}: {status} {body}");
        serde_json::from_str(&body).unwrap_or_default()
    }

    /// A company with an administrator, and a program that may do all that a company's may.
    pub(crate) async fn company(&self, name: &str) -> Company {
        let bank = self.access_token(self.client, &self.secret).await;
        let administrator = json!({ "login": "admin", "name": "Andrés" });
        let body = json!({ "name": name, "administrator": administrator });
        let created = self.done(&bank, "POST", "/api/v1/companies", body).await;
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let (id, admin) = (text(&created["company"]["id"]), text(&created["administrator"]["id"]));
        let scopes = ApiScope::ALL.into_iter().filter(|scope| !scope.is_of_bank());
        let scopes: Vec<_> = scopes.map(ApiScope::name).collect();
        let body = json!({ "name": "ERP", "scopes": scopes, "askers": [admin] });
        let path = format!("/api/v1/companies/{id}/clients");
        let client = self.done(&bank, "POST", &path, body).await;
        let client_id = text(&client["client_id"]).parse().expect("an id");
        let token = self.access_token(client_id, &text(&client["client_secret"])).await;
        Company { id, admin, client: client_id, secret: text(&client["client_secret"]), token }
    }

    /// A token in a company's pool.
    pub(crate) async fn token_for(&self, company: &Company, serial: &str) -> String {
        let bank = self.access_token(self.client, &self.secret).await;
        let run = json!({ "first": serial, "count": 1 });
        self.done(&bank, "POST", "/api/v1/stock/issue", run).await;
        let allot = json!({ "first": serial, "count": 1, "company": company.id });
        let allotted = self.done(&bank, "POST", "/api/v1/stock/allot", allot).await;
        allotted["tokens"][0]["id"].as_str().expect("an id").to_owned()
    }
}

/// A company, as its program knows it.
pub(crate) struct Company {
    pub(crate) id: String,
    pub(crate) admin: String,
    pub(crate) client: ClientId,
    pub(crate) secret: String,
    /// An access token of its program.
    pub(crate) token: String,
}

/// A response's body.
pub(crate) async fn body_of(response: Response) -> String {
    let bytes = response.into_body().collect().await.expect("a body").to_bytes();
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}
