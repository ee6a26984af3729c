//! Programs with keys: assertions instead of secrets (RFC 7523), and access tokens that are bound
//! to a key (RFC 9449). Each refusal stands beside the same request without its one fault, which
//! is let in.

use ring::rand::SystemRandom;
use semilla_core::audit::Draft;
use semilla_core::base64url;
use semilla_core::protocol::jws::{self, KeyHeader};
use serde_json::{Value, json};

use super::*;
use crate::http::testing::Company;

const FORM: &str = "application/x-www-form-urlencoded";
const GRANT: &str = "grant_type=client_credentials";
const KIND: &str =
    "client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer";

fn signing_key() -> SigningKey {
    let rng = SystemRandom::new();
    SigningKey::from_pkcs8(&SigningKey::generate(&rng), &rng).expect("a key")
}

/// A company's program with a key, and what it says.
struct Program {
    bench: Bench,
    company: Company,
    id: String,
    key: SigningKey,
    jti: std::cell::Cell<u32>,
}

impl Program {
    async fn new() -> Self {
        let bench = Bench::new().await;
        let company = bench.company("Ferretería").await;
        let key = signing_key();
        let jwks = json!({ "keys": [key.public()] });
        let body = json!({ "name": "ERP", "scopes": ["tokens:read"], "jwks": jwks });
        let bank = bench.access_token(bench.client, &bench.secret).await;
        let path = format!("/api/v1/companies/{}/clients", company.id);
        let created = bench.done(&bank, "POST", &path, body).await;
        assert_eq!(created["token_endpoint_auth_method"], "private_key_jwt");
        assert!(created.get("client_secret").is_none(), "one way to prove itself, not two");
        let id = created["client_id"].as_str().expect("an id").to_owned();
        Self { bench, company, id, key, jti: std::cell::Cell::new(0) }
    }

    /// Claims that hold, under a new name each time.
    fn claims(&self) -> Value {
        self.jti.set(self.jti.get() + 1);
        let now = self.bench.app.now().seconds();
        json!({
            "iss": self.id, "sub": self.id, "aud": ISSUER, "jti": self.jti.get().to_string(),
            "iat": now, "exp": now + 60,
        })
    }

    fn sign(&self, claims: &Value) -> String {
        jws::sign(&self.key, "JWT", KeyHeader::Name, claims, &SystemRandom::new())
    }

    async fn ask(&self, assertion: &str) -> Response {
        self.ask_with(&format!("{GRANT}&{KIND}&client_assertion={assertion}"), &[]).await
    }

    async fn ask_with(&self, form: &str, headers: &[(&str, &str)]) -> Response {
        let mut request = Request::post("/token").header(header::CONTENT_TYPE, FORM);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(form.to_owned())).expect("a request");
        self.bench.send(request).await
    }

    /// Why clients of the company were refused, in order.
    async fn reasons(&self) -> Vec<String> {
        let query = crate::store::AuditQuery {
            company: self.company.id.parse().expect("an id"),
            after: 0,
            token: None,
            kind: Some("client.refused".to_owned()),
            limit: 100,
        };
        let records = self.bench.app.store.audit(&query).await.expect("records");
        let reason = |record: &semilla_core::audit::Record| {
            let draft: Draft = serde_json::from_str(&record.body).expect("a record");
            draft.detail["reason"].clone()
        };
        records.iter().map(reason).collect()
    }
}

async fn json_of(response: Response) -> Value {
    serde_json::from_str(&body_of(response).await).expect("JSON")
}

async fn is_invalid_client(response: Response) -> String {
    assert_eq!(response.status(), 401);
    assert_hardened(&response);
    let body = json_of(response).await;
    assert_eq!(body["error"], "invalid_client");
    body["error_description"].as_str().expect("a text").to_owned()
}

#[tokio::test]
async fn a_program_with_a_key_gets_a_token_without_a_secret() {
    let program = Program::new().await;
    let granted = json_of(program.ask(&program.sign(&program.claims())).await).await;
    assert_eq!(granted["token_type"], "Bearer");
    let token = granted["access_token"].as_str().expect("a token");
    let listed = program.bench.ask(token, "GET", "/api/v1/tokens", Value::Null).await;
    assert_eq!(listed.status(), 200);
    assert_eq!(program.reasons().await, [""; 0]);
}

#[tokio::test]
async fn security_51_an_assertion_counts_for_its_client_here_now_and_once() {
    let program = Program::new().await;
    let now = program.bench.app.now().seconds();
    let other = program.bench.client.to_string();
    for (name, value, reason, says) in [
        ("iss", json!(other), "assertion", "iss and sub"),
        ("aud", json!("https://other.example"), "assertion", "aud"),
        ("aud", json!([ISSUER, "https://other.example"]), "assertion", "aud"),
        ("exp", json!(now), "assertion", "expired"),
        ("exp", json!(now + 301), "assertion", "5 minutes"),
        ("iat", json!(now + 31), "assertion", "clock"),
        ("nbf", json!(now + 31), "assertion", "clock"),
        ("jti", json!(""), "assertion", "jti"),
    ] {
        let before = program.reasons().await.len();
        let mut claims = program.claims();
        claims[name] = value;
        let said = is_invalid_client(program.ask(&program.sign(&claims)).await).await;
        assert!(said.contains(says), "{name}: {said}");
        assert_eq!(program.reasons().await[before..], [reason], "{name}");
        // The same but for the one fault.
        assert_eq!(program.ask(&program.sign(&program.claims())).await.status(), 200, "{name}");
    }
}

#[tokio::test]
async fn security_46_an_assertion_is_used_once_also_across_a_restart_and_by_two_at_once() {
    let mut program = Program::new().await;
    let claims = program.claims();
    let first = program.sign(&claims);
    assert_eq!(program.ask(&first).await.status(), 200);
    // The name counts, and not the text: another signature over it is the same assertion.
    for again in [first, program.sign(&claims)] {
        let said = is_invalid_client(program.ask(&again).await).await;
        assert!(said.contains("used before"), "{said}");
    }
    // What this process remembers is gone; what is stored is not.
    program.bench.router = router(Arc::clone(&program.bench.app));
    is_invalid_client(program.ask(&program.sign(&claims)).await).await;
    assert_eq!(program.reasons().await, ["replayed"; 3]);
    // Many at once.
    let assertion = program.sign(&program.claims());
    let asked = futures_util::future::join_all((0..8).map(|_| program.ask(&assertion))).await;
    assert_eq!(asked.iter().filter(|response| response.status() == 200).count(), 1);
    assert_eq!(program.reasons().await, ["replayed"; 10], "each of the others is recorded");
    // Another program may use the same name.
    let other = Program::new().await;
    assert_eq!(other.ask(&other.sign(&other.claims())).await.status(), 200);
    // Once it would have ended it is forgotten, and has ended.
    program.bench.clock.advance(Duration::from_secs(61));
    crate::workflow::chores::run(&program.bench.app).await.expect("chores");
    let said = is_invalid_client(program.ask(&program.sign(&claims)).await).await;
    assert!(said.contains("expired"), "{said}");
}

#[tokio::test]
async fn security_52_an_assertion_is_signed_by_a_key_of_its_client_and_by_nothing_else() {
    let program = Program::new().await;
    let control = async || program.ask(&program.sign(&program.claims())).await.status();
    let rng = SystemRandom::new();
    // By a key that nobody registered, under the name of the registered one and under its own.
    let stranger = signing_key();
    let forged = jws::sign(&stranger, "JWT", KeyHeader::Name, &program.claims(), &rng);
    let (_, rest) = forged.split_once('.').expect("a header");
    let header = program.sign(&json!({}));
    let (header, _) = header.split_once('.').expect("a header");
    let mut said = Vec::new();
    for text in [forged.clone(), format!("{header}.{rest}")] {
        said.push(is_invalid_client(program.ask(&text).await).await);
    }
    // With a key brought along.
    let brought = jws::sign(&stranger, "JWT", KeyHeader::Key, &program.claims(), &rng);
    said.push(is_invalid_client(program.ask(&brought).await).await);
    assert_eq!(program.reasons().await, ["signature"; 3]);
    // By the key of a secret: the client has none, and what it has is public.
    let secret_client = program.company.client.to_string();
    let mut claims = program.claims();
    claims["iss"] = json!(secret_client);
    claims["sub"] = json!(secret_client);
    said.push(is_invalid_client(program.ask(&program.sign(&claims)).await).await);
    // By nobody.
    let mut claims = program.claims();
    let nobody = "019ac6a5-1c00-7000-8000-00000000dead";
    claims["iss"] = json!(nobody);
    claims["sub"] = json!(nobody);
    said.push(is_invalid_client(program.ask(&program.sign(&claims)).await).await);
    said.dedup();
    assert_eq!(said.len(), 1, "the same words for all of them: {said:?}");
    // Without a signature, with another algorithm, and what is no assertion at all.
    let part = |value: Value| base64url::encode(value.to_string().as_bytes());
    for header in [json!({"alg": "none"}), json!({"alg": "HS256"}), json!({"alg": "ES256"})] {
        let text = format!("{}.{}.", part(header), part(program.claims()));
        is_invalid_client(program.ask(&text).await).await;
    }
    for text in ["x", "a.b.c", "..."] {
        is_invalid_client(program.ask(text).await).await;
    }
    assert_eq!(control().await, 200);
}

#[tokio::test]
async fn a_program_proves_itself_in_the_one_way_it_is_registered_for() {
    let program = Program::new().await;
    let bench = &program.bench;
    let assertion = program.sign(&program.claims());
    // A program with a key has no secret, not even an empty one.
    for secret in ["", "x", &assertion] {
        is_invalid_client(bench.token_request(&program.id, secret, GRANT).await).await;
    }
    assert_eq!(program.reasons().await, ["secret"; 3]);
    let both = format!("{GRANT}&{KIND}&client_assertion={assertion}");
    for (form, error) in [
        (both.clone(), "invalid_request"),
        (format!("{GRANT}&client_assertion={assertion}"), "invalid_request"),
        (format!("{GRANT}&{KIND}"), "invalid_request"),
    ] {
        let response = bench.token_request(&program.id, "x", &form).await;
        assert_eq!(response.status(), 400);
        assert_eq!(json_of(response).await["error"], error);
    }
    let other = format!("{both}&client_id={}", bench.client);
    assert_eq!(program.ask_with(&other, &[]).await.status(), 400);
    let named = format!("{both}&client_id={}", program.id);
    assert_eq!(program.ask_with(&named, &[]).await.status(), 200, "nothing used it up");
}

#[tokio::test]
async fn a_program_whose_credentials_ended_gets_no_token_and_its_tokens_die() {
    let program = Program::new().await;
    let granted = json_of(program.ask(&program.sign(&program.claims())).await).await;
    let token = granted["access_token"].as_str().expect("a token");
    let bench = &program.bench;
    let bank = bench.access_token(bench.client, &bench.secret).await;
    let path = format!("/api/v1/companies/{}/clients/{}", program.company.id, program.id);
    assert_eq!(bench.ask(&bank, "DELETE", &path, Value::Null).await.status(), 204);
    is_invalid_client(program.ask(&program.sign(&program.claims())).await).await;
    assert_eq!(program.reasons().await, ["inactive"]);
    assert_eq!(bench.ask(token, "GET", "/api/v1/tokens", Value::Null).await.status(), 401);
}

#[tokio::test]
async fn keys_that_are_none_are_refused_where_they_stand() {
    let program = Program::new().await;
    let bench = &program.bench;
    let bank = bench.access_token(bench.client, &bench.secret).await;
    let path = format!("/api/v1/companies/{}/clients", program.company.id);
    let jwk = serde_json::to_value(signing_key().public()).expect("JSON");
    let mut private = jwk.clone();
    private["d"] = json!("AAAA");
    let mut wrong = jwk.clone();
    wrong["alg"] = json!("RS256");
    for (keys, pointer) in [
        (json!([]), "#/jwks/keys"),
        (json!([private]), "#/jwks/keys/0/d"),
        (json!([jwk, wrong]), "#/jwks/keys/1"),
        (json!([jwk, jwk]), "#/jwks/keys/1"),
    ] {
        let body = json!({ "name": "ERP", "scopes": ["tokens:read"], "jwks": { "keys": keys } });
        let problem = problem_of(bench.ask(&bank, "POST", &path, body).await).await;
        assert_eq!(problem.kind, ProblemType::Validation);
        assert_eq!(problem.errors[0].pointer, pointer);
    }
}

/// A key of its own, and proofs of it.
struct Prover {
    key: SigningKey,
    jti: std::cell::Cell<u8>,
}

impl Prover {
    fn new() -> Self {
        Self { key: signing_key(), jti: std::cell::Cell::new(0) }
    }

    fn proof(&self, method: &str, path: &str, token: Option<&str>, nonce: Option<&str>) -> String {
        self.jti.set(self.jti.get() + 1);
        let uri = format!("{ISSUER}{path}");
        let about = dpop::Request { method, uri: &uri, access_token: token };
        let (jti, iat) = (Nonce::from_bytes([self.jti.get(); 16]), Timestamp::from_seconds(1));
        dpop::create(&self.key, &about, jti, iat, nonce, &SystemRandom::new())
    }
}

async fn nonce_of(program: &Program) -> String {
    let proof = Prover::new().proof("POST", "/token", None, None);
    let form = format!("{GRANT}&{KIND}&client_assertion=x");
    let response = program.ask_with(&form, &[("dpop", &proof)]).await;
    let nonce = response.headers()["dpop-nonce"].to_str().expect("a nonce").to_owned();
    assert_eq!(response.status(), 400);
    assert_eq!(json_of(response).await["error"], "use_dpop_nonce");
    nonce
}

/// A token bound to the prover's key.
async fn bound_token(program: &Program, prover: &Prover, nonce: &str) -> String {
    let assertion = program.sign(&program.claims());
    let form = format!("{GRANT}&{KIND}&client_assertion={assertion}");
    let without = prover.proof("POST", "/token", None, None);
    let refused = program.ask_with(&form, &[("dpop", &without)]).await;
    assert_eq!(json_of(refused).await["error"], "use_dpop_nonce");
    // The same assertion again: lacking a nonce used nothing up.
    let proof = prover.proof("POST", "/token", None, Some(nonce));
    let granted = json_of(program.ask_with(&form, &[("dpop", &proof)]).await).await;
    assert_eq!(granted["token_type"], "DPoP");
    granted["access_token"].as_str().expect("a token").to_owned()
}

async fn listed(program: &Program, scheme: &str, token: &str, proof: Option<&str>) -> Response {
    let mut request =
        Request::get("/api/v1/tokens").header(header::AUTHORIZATION, format!("{scheme} {token}"));
    if let Some(proof) = proof {
        request = request.header("dpop", proof);
    }
    program.bench.send(request.body(Body::empty()).expect("a request")).await
}

fn challenge(response: &Response) -> &str {
    response.headers()[header::WWW_AUTHENTICATE].to_str().expect("a challenge")
}

#[tokio::test]
async fn security_62_a_bound_token_is_worth_nothing_without_its_key() {
    let program = Program::new().await;
    let nonce = nonce_of(&program).await;
    let (prover, thief) = (Prover::new(), Prover::new());
    let token = bound_token(&program, &prover, &nonce).await;
    let path = "/api/v1/tokens";
    let good = || prover.proof("GET", path, Some(&token), Some(&nonce));
    let used = good();
    assert_eq!(listed(&program, "DPoP", &token, Some(&used)).await.status(), 200);
    let other_token = program.company.token.clone();
    for (why, scheme, proof, error) in [
        ("as a bearer's", "Bearer", None, "invalid_token"),
        ("as a bearer's, with a proof", "Bearer", Some(good()), "invalid_token"),
        ("without a proof", "DPoP", None, "invalid_dpop_proof"),
        (
            "by another key",
            "DPoP",
            Some(thief.proof("GET", path, Some(&token), Some(&nonce))),
            "invalid_dpop_proof",
        ),
        (
            "for no token",
            "DPoP",
            Some(prover.proof("GET", path, None, Some(&nonce))),
            "invalid_dpop_proof",
        ),
        (
            "for another token",
            "DPoP",
            Some(prover.proof("GET", path, Some(&other_token), Some(&nonce))),
            "invalid_dpop_proof",
        ),
        (
            "for another method",
            "DPoP",
            Some(prover.proof("POST", path, Some(&token), Some(&nonce))),
            "invalid_dpop_proof",
        ),
        (
            "for another place",
            "DPoP",
            Some(prover.proof("GET", "/api/v1/users", Some(&token), Some(&nonce))),
            "invalid_dpop_proof",
        ),
        (
            "without a nonce",
            "DPoP",
            Some(prover.proof("GET", path, Some(&token), None)),
            "use_dpop_nonce",
        ),
        (
            "with a nonce of nobody's",
            "DPoP",
            Some(prover.proof("GET", path, Some(&token), Some("x"))),
            "use_dpop_nonce",
        ),
        ("used before", "DPoP", Some(used.clone()), "invalid_dpop_proof"),
    ] {
        let response = listed(&program, scheme, &token, proof.as_deref()).await;
        assert_eq!(response.status(), 401, "{why}");
        let said = challenge(&response);
        assert!(said.starts_with("DPoP ") && said.contains(error), "{why}: {said}");
        assert_eq!(response.headers().contains_key("dpop-nonce"), proof.is_some(), "{why}");
        assert_eq!(problem_of(response).await.kind, ProblemType::Unauthenticated);
        assert_eq!(listed(&program, "DPoP", &token, Some(&good())).await.status(), 200, "{why}");
    }
    // A token that is bound to nothing is nobody's proof either.
    let proof = prover.proof("GET", path, Some(&other_token), Some(&nonce));
    let response = listed(&program, "DPoP", &other_token, Some(&proof)).await;
    assert_eq!(response.status(), 401);
    assert!(challenge(&response).contains("invalid_token"));
    let response = listed(&program, "Bearer", &other_token, None).await;
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn security_62_a_proof_gets_one_token_and_a_broken_one_gets_none() {
    let program = Program::new().await;
    let nonce = nonce_of(&program).await;
    let prover = Prover::new();
    let ask = async |proof: &str| {
        let assertion = program.sign(&program.claims());
        let form = format!("{GRANT}&{KIND}&client_assertion={assertion}");
        json_of(program.ask_with(&form, &[("dpop", proof)]).await).await
    };
    let proof = prover.proof("POST", "/token", None, Some(&nonce));
    assert_eq!(ask(&proof).await["token_type"], "DPoP");
    for (why, proof) in [
        ("used before", proof),
        ("for another place", prover.proof("POST", "/api/v1/tokens", None, Some(&nonce))),
        ("for another method", prover.proof("GET", "/token", None, Some(&nonce))),
        ("for a token", prover.proof("POST", "/token", Some("x"), Some(&nonce))),
        ("no proof", "x".to_owned()),
    ] {
        assert_eq!(ask(&proof).await["error"], "invalid_dpop_proof", "{why}");
    }
    let fresh = prover.proof("POST", "/token", None, Some(&nonce));
    assert_eq!(ask(&fresh).await["token_type"], "DPoP");
}
