//! A relying party as a story needs it: registered by the operator, with a secret or a key of its
//! own, asking people's phones at `/bc-authorize` and looking for the answer at `/token`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use semilla_core::protocol::bytes::Nonce;
use semilla_core::protocol::dpop;
use semilla_core::protocol::jwk::SigningKey;
use semilla_core::protocol::jws::{self, KeyHeader};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::asking::new_key;
use crate::http::{Expect, Http, Reply};
use crate::world::{Company, World};

const GRANT: &str = "urn:openid:params:grant-type:ciba";
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// A relying party.
pub struct RelyingParty {
    /// Its `client_id`.
    pub id: String,
    /// Its secret; empty where it has a key.
    pub secret: String,
    /// Its key, where it has one.
    pub key: Option<SigningKey>,
    http: Http,
    issuer: String,
    names: AtomicU32,
}

impl RelyingParty {
    /// One with a secret.
    pub async fn with_secret(world: &World, company: &Company, approvals: Value) -> Self {
        Self::register(world, company, Some(approvals), None).await
    }

    /// One with a key.
    pub async fn with_key(world: &World, company: &Company, approvals: Value) -> Self {
        Self::register(world, company, Some(approvals), Some(new_key())).await
    }

    /// A program that may not ask.
    pub async fn without_right(world: &World, company: &Company) -> Self {
        Self::register(world, company, None, None).await
    }

    /// The same with a secret that is not its own.
    #[must_use]
    pub fn with_wrong_secret(mut self) -> Self {
        self.secret = "A".repeat(43);
        self
    }

    async fn register(
        world: &World,
        company: &Company,
        approvals: Option<Value>,
        key: Option<SigningKey>,
    ) -> Self {
        let scope = if approvals.is_some() { "approvals:ask" } else { "tokens:read" };
        let mut body =
            json!({"name": "Portal de pagos", "scopes": [scope], "approvals": approvals});
        if let Some(key) = &key {
            let mut jwk = serde_json::to_value(key.public()).expect("JSON");
            jwk.as_object_mut()
                .expect("an object")
                .retain(|name, _| ["kty", "crv", "x", "y"].contains(&name.as_str()));
            body["jwks"] = json!({ "keys": [jwk] });
        }
        let path = format!("/api/v1/companies/{}/clients", company.id);
        let made = world.operator.post(&path, body).await.expect(201);
        let text = |name: &str| made[name].as_str().unwrap_or_default().to_owned();
        Self {
            id: text("client_id"),
            secret: text("client_secret"),
            key,
            http: world.http(),
            issuer: world.server().issuer().to_owned(),
            names: AtomicU32::new(0),
        }
    }

    fn name(&self) -> String {
        format!("n{}", self.names.fetch_add(1, Ordering::Relaxed))
    }

    /// Claims that begin at `now`, named anew, for the server.
    pub fn envelope(&self, now: u64) -> Value {
        json!({
            "iss": self.id, "aud": self.issuer, "jti": self.name(),
            "iat": now, "nbf": now, "exp": now + 60,
        })
    }

    /// Signs claims with its key.
    pub fn sign(&self, claims: &Value) -> String {
        let key = self.key.as_ref().expect("a key");
        jws::sign(key, "JWT", KeyHeader::Name, claims, &SystemRandom::new())
    }

    /// A signed request.
    pub fn signed(&self, now: u64, asks: Value) -> String {
        let mut claims = self.envelope(now);
        for (name, value) in asks.as_object().expect("an object") {
            claims[name] = value.clone();
        }
        self.sign(&claims)
    }

    /// An assertion of its own.
    pub fn assertion(&self, now: u64) -> String {
        let mut claims = self.envelope(now);
        claims["sub"] = self.id.clone().into();
        self.sign(&claims)
    }

    /// Posts a form, proving itself anew.
    pub async fn post(&self, now: u64, path: &str, form: &[(&str, &str)]) -> Reply {
        if self.key.is_none() {
            return self.post_plain(path, form, &[]).await;
        }
        let assertion = self.assertion(now);
        self.post_with(path, form, &assertion).await
    }

    /// Posts a form with this assertion.
    pub async fn post_with(&self, path: &str, form: &[(&str, &str)], assertion: &str) -> Reply {
        let mut form = form.to_vec();
        form.push(("client_assertion_type", JWT_BEARER));
        form.push(("client_assertion", assertion));
        self.post_plain(path, &form, &[]).await
    }

    async fn post_plain(&self, path: &str, form: &[(&str, &str)], more: &[(&str, &str)]) -> Reply {
        let body: Vec<String> =
            form.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
        let basic = format!("Basic {}", STANDARD.encode(format!("{}:{}", self.id, self.secret)));
        let mut headers = vec![("content-type", "application/x-www-form-urlencoded")];
        if !self.secret.is_empty() {
            headers.push(("authorization", &basic));
        }
        headers.extend(more);
        let body = body.join("&");
        self.http.send("POST", path, &headers, body.as_bytes()).await.expect("an answer")
    }

    /// Asks; `scope=openid` goes without saying.
    pub async fn ask(&self, world: &World, form: &[(&str, &str)]) -> Reply {
        let mut form = form.to_vec();
        form.push(("scope", "openid"));
        self.post(world.now().seconds(), "/bc-authorize", &form).await
    }

    /// Asks Laura, well.
    pub async fn ask_laura(&self, world: &World) -> Value {
        let form = [("login_hint", "laura.valencia"), ("binding_message", "Pago 4711")];
        self.ask(world, &form).await.expect(200)
    }

    /// Looks for the answer.
    pub async fn look(&self, world: &World, asked: &Value) -> Reply {
        let id = asked["auth_req_id"].as_str().expect("an id");
        let form = [("grant_type", GRANT), ("auth_req_id", id)];
        self.post(world.now().seconds(), "/token", &form).await
    }
}

impl RelyingParty {
    /// Looks for the answer and binds the tokens to `prover`.
    pub async fn look_with_proof(
        &self,
        world: &World,
        asked: &Value,
        prover: &SigningKey,
    ) -> Reply {
        let id = asked["auth_req_id"].as_str().expect("an id");
        let mut nonce: Option<String> = None;
        loop {
            let now = world.now();
            let assertion = self.assertion(now.seconds());
            let uri = format!("{}/token", self.issuer);
            let about = dpop::Request { method: "POST", uri: &uri, access_token: None };
            let name = Nonce::from_bytes(*b"0123456789abcdef");
            let rng = SystemRandom::new();
            let proof = dpop::create(prover, &about, name, now, nonce.as_deref(), &rng);
            let form = [
                ("grant_type", GRANT),
                ("auth_req_id", id),
                ("client_assertion_type", JWT_BEARER),
                ("client_assertion", &assertion),
            ];
            let reply = self.post_plain("/token", &form, &[("dpop", &proof)]).await;
            if nonce.is_some() {
                return reply;
            }
            nonce = Some(reply.header("dpop-nonce").to_owned());
        }
    }
}

/// What stands in a form for `text`.
fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

/// That a request was refused with this error of OAuth.
#[track_caller]
pub fn refused(reply: Reply, status: u16, error: &str) -> Value {
    let body = reply.expect(status);
    assert_eq!(body["error"], error, "{body}");
    body
}

/// The claims of a compact JWS, read without verifying it.
pub fn claims(text: &str) -> Value {
    let payload = text.split('.').nth(1).expect("three parts");
    let bytes = semilla_core::base64url::decode(payload).expect("base64url");
    serde_json::from_slice(&bytes).expect("JSON")
}
