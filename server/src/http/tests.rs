//! The edge as a whole: what is true of every route, and how callers prove who they are.

use axum::body::Body;
use axum::http::{HeaderValue, Method, Request, header};
use axum::response::Response;
use ring::rand::SystemRandom;
use semilla_core::device::{Device, DeviceState};
use semilla_core::id::{CompanyId, DeviceId};
use semilla_core::problem::Problem;
use semilla_core::protocol::bytes::Nonce;
use semilla_core::protocol::dpop;
use semilla_core::protocol::jwk::SigningKey;
use semilla_core::text::Name;
use semilla_core::time::Timestamp;

use super::testing::{Bench, ISSUER, body_of};
use super::*;
use crate::listener::Peer;
use crate::records::ApiScope;
use crate::store::{Batch, Query, Record, Records, Scope, Write};
use crate::workflow::caller::{Caller, Phone, sha256};

mod api;
mod clients;
mod description;

async fn problem_of(response: Response) -> Problem {
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
    let status = response.status().as_u16();
    let problem: Problem = serde_json::from_str(&body_of(response).await).expect("a problem");
    assert_eq!(problem.status, status);
    problem
}

fn request(method: &str, path: &str) -> Request<Body> {
    Request::builder().method(method).uri(path).body(Body::empty()).expect("a request")
}

/// A route of these tests' own, which nobody else is told of.
fn undescribed<H, T>(
    method: Method,
    filter: MethodFilter,
    path: &'static str,
    rule: Rule,
    handler: H,
) -> Route
where
    H: axum::handler::Handler<T, Arc<Edge>>,
    T: 'static,
{
    let (summary, handler) = (Label("", ""), on(filter, handler));
    Route { method, path, rule, summary, describe: |_| {}, problems: &[], waits: false, handler }
}

fn get<H, T>(path: &'static str, rule: Rule, handler: H) -> Route
where
    H: axum::handler::Handler<T, Arc<Edge>>,
    T: 'static,
{
    undescribed(Method::GET, MethodFilter::GET, path, rule, handler)
}

fn post<H, T>(path: &'static str, rule: Rule, handler: H) -> Route
where
    H: axum::handler::Handler<T, Arc<Edge>>,
    T: 'static,
{
    undescribed(Method::POST, MethodFilter::POST, path, rule, handler)
}

/// A router with routes of these tests' own.
fn bench_with(mut bench: Bench, routes: Vec<Route>) -> Bench {
    bench.router = assemble(Arc::new(Edge::new(Arc::clone(&bench.app))), routes);
    bench
}

#[tokio::test]
async fn every_way_to_fail_answers_a_problem_with_every_header() {
    let bench = bench_with(Bench::new().await, {
        let mut all = routes();
        all.push(get("/panics", Rule::Public, || async { panic!("on purpose") as &'static str }));
        all.push(get("/fails", Rule::Public, || async { ApiError::internal("on purpose") }));
        all.push(post("/reads", Rule::Public, |_: body::Json<Vec<u8>>| async {}));
        all.push(get("/id/{id}", Rule::Public, |_: params::Id<DeviceId>| async {}));
        all
    });
    let long = format!("/{}", "x".repeat(2048));
    for (method, path, status, kind) in [
        ("GET", "/nothing", 404, ProblemType::NotFound),
        ("GET", "/id/x", 404, ProblemType::NotFound),
        ("GET", "/id/%ff", 404, ProblemType::NotFound),
        ("PUT", "/token", 405, ProblemType::MethodNotAllowed),
        ("TRACE", "/", 405, ProblemType::MethodNotAllowed),
        ("OPTIONS", "/token", 405, ProblemType::MethodNotAllowed),
        ("PROPFIND", "/", 405, ProblemType::MethodNotAllowed),
        ("POST", "/reads", 415, ProblemType::UnsupportedMediaType),
        ("GET", &long, 414, ProblemType::TooLarge),
        ("GET", "/panics", 500, ProblemType::Internal),
        ("GET", "/fails", 500, ProblemType::Internal),
    ] {
        let response = bench.send(request(method, path)).await;
        assert_eq!(response.status(), status, "{method} {path}");
        assert_hardened(&response);
        assert_eq!(
            response.headers().contains_key(header::ALLOW),
            status == 405,
            "{method} {path}"
        );
        let problem = problem_of(response).await;
        assert_eq!(problem.kind, kind, "{method} {path}");
        assert!(!problem.detail.contains("on purpose"));
    }
    let allowed = bench.send(request("PUT", "/token")).await.headers()[header::ALLOW].clone();
    assert_eq!(allowed, "POST");
}

fn assert_hardened(response: &Response) {
    let headers = response.headers();
    for (name, value) in [
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("strict-transport-security", "max-age=63072000; includeSubDomains"),
        ("cross-origin-opener-policy", "same-origin"),
    ] {
        assert_eq!(headers.get(name).map(HeaderValue::as_bytes), Some(value.as_bytes()), "{name}");
    }
    // The page of the documentation loads from here what it needs; see its own test.
    let policy = headers["content-security-policy"].to_str().expect("text");
    assert!(policy.starts_with("default-src 'none'; "), "{policy}");
    assert!(policy.ends_with("frame-ancestors 'none'"), "{policy}");
    assert_eq!(headers["x-request-id"].len(), 16);
    assert!(
        !headers.contains_key("access-control-allow-origin") && !headers.contains_key("server")
    );
}

#[tokio::test]
async fn security_78_every_route_has_every_header_whoever_calls() {
    let bench = Bench::new().await;
    for route in routes() {
        let path = route.path.replace("{id}", &CompanyId::BANK.to_string());
        for method in [route.method.as_str(), "DELETE", "HEAD"] {
            assert_hardened(&bench.send(request(method, &path)).await);
        }
    }
}

#[tokio::test]
async fn a_request_id_is_ours_and_new_every_time() {
    let bench = Bench::new().await;
    let ids = async || {
        let mut request = request("GET", "/healthz");
        request.headers_mut().insert("x-request-id", HeaderValue::from_static("forged"));
        bench.send(request).await.headers()["x-request-id"].clone()
    };
    let (first, second) = (ids().await, ids().await);
    assert!(first != second && first != "forged" && second != "forged");
}

#[tokio::test]
async fn a_request_without_a_host_or_with_two_is_refused() {
    let bench = Bench::new().await;
    let mut two = request("GET", "/");
    two.headers_mut().append(header::HOST, HeaderValue::from_static("a"));
    two.headers_mut().append(header::HOST, HeaderValue::from_static("b"));
    assert_eq!(problem_of(bench.send(two).await).await.kind, ProblemType::Malformed);
    let none = bench.router.clone();
    let response = tower::ServiceExt::oneshot(none, request("GET", "/")).await.expect("an answer");
    assert_eq!(problem_of(response).await.kind, ProblemType::Malformed);
}

#[tokio::test]
async fn security_121_the_server_is_ready_while_it_can_work() {
    let bench = Bench::new().await;
    assert_eq!(bench.send(request("GET", "/readyz")).await.status(), 200);
    bench.app.stopping.cancel();
    assert_eq!(bench.send(request("GET", "/readyz")).await.status(), 503);
    assert_eq!(bench.send(request("GET", "/healthz")).await.status(), 200, "up, not ready");
    let bench = Bench::new().await;
    bench.app.store.close().await;
    let problem = problem_of(bench.send(request("GET", "/readyz")).await).await;
    assert_eq!(problem.kind, ProblemType::Unavailable);
}

#[tokio::test]
async fn the_metadata_names_what_there_is() {
    let bench = Bench::new().await;
    let response = bench.send(request("GET", "/.well-known/oauth-authorization-server")).await;
    let metadata: serde_json::Value = serde_json::from_str(&body_of(response).await).expect("JSON");
    assert_eq!(metadata["issuer"], ISSUER);
    for endpoint in ["token_endpoint", "jwks_uri"] {
        let path =
            metadata[endpoint].as_str().and_then(|uri| uri.strip_prefix(ISSUER)).expect("ours");
        assert!(routes().iter().any(|route| route.path == path), "{path}");
    }
    let keys = bench.send(request("GET", "/jwks")).await;
    assert_eq!(keys.headers()[header::CONTENT_TYPE], "application/jwk-set+json");
    assert_eq!(body_of(keys).await, bench.app.keys.published.text());
}

mod tokens_of_programs {
    use super::*;

    async fn refused(response: Response, status: u16) -> String {
        assert_eq!(response.status(), status);
        assert_eq!(response.headers().contains_key(header::WWW_AUTHENTICATE), status == 401);
        assert_hardened(&response);
        let body: serde_json::Value = serde_json::from_str(&body_of(response).await).expect("JSON");
        body["error"].as_str().expect("an error").to_owned()
    }

    async fn kinds(bench: &Bench) -> Vec<String> {
        let query = crate::store::AuditQuery {
            company: CompanyId::BANK,
            after: 0,
            token: None,
            kind: Some("client.".to_owned()),
            limit: 100,
        };
        let records = bench.app.store.audit(&query).await.expect("records");
        records
            .iter()
            .map(|record| {
                let draft: semilla_core::audit::Draft =
                    serde_json::from_str(&record.body).expect("a record");
                draft.kind
            })
            .collect()
    }

    #[tokio::test]
    async fn a_program_gets_a_token_that_works_for_300_seconds() {
        let bench = Bench::new().await;
        let form = "grant_type=client_credentials&scope=stock%3Amanage+audit:read&unknown=1";
        let response = bench.token_request(&bench.client.to_string(), &bench.secret, form).await;
        assert_eq!(response.status(), 200);
        assert_hardened(&response);
        let granted: serde_json::Value =
            serde_json::from_str(&body_of(response).await).expect("JSON");
        assert_eq!(granted["token_type"], "Bearer");
        assert_eq!(granted["expires_in"], 300);
        assert_eq!(granted["scope"], "audit:read stock:manage");
        let token = granted["access_token"].as_str().expect("a token");
        assert_eq!(token.len(), 43);
        let caller = Caller::of_access_token(&bench.app, token).await.expect("a caller");
        assert_eq!(caller.scopes, [ApiScope::AuditRead, ApiScope::StockManage]);
        bench.clock.advance(Duration::from_secs(299));
        assert!(Caller::of_access_token(&bench.app, token).await.is_ok());
        bench.clock.advance(Duration::from_secs(1));
        assert!(Caller::of_access_token(&bench.app, token).await.is_err());
        assert_eq!(kinds(&bench).await, ["client.created", "client.authenticated"]);
    }

    #[tokio::test]
    async fn what_is_wrong_has_the_name_that_oauth_gives_it() {
        let bench = Bench::new().await;
        let id = bench.client.to_string();
        let grant = "grant_type=client_credentials";
        for (client, secret, form, status, error) in [
            (&*id, &*bench.secret, "", 400, "invalid_request"),
            (&id, &bench.secret, "grant_type=", 400, "invalid_request"),
            (&id, &bench.secret, "grant_type=a&grant_type=a", 400, "invalid_request"),
            (&id, &bench.secret, "grant_type=%ff", 400, "invalid_request"),
            (&id, &bench.secret, "grant_type=password", 400, "unsupported_grant_type"),
            (&id, &bench.secret, &format!("{grant}&client_secret=x"), 400, "invalid_request"),
            (&id, &bench.secret, &format!("{grant}&client_id=x"), 400, "invalid_request"),
            (&id, &bench.secret, &format!("{grant}&scope=otp:verify"), 400, "invalid_scope"),
            (
                &id,
                &bench.secret,
                &format!("{grant}&scope=audit:read++stock:manage"),
                400,
                "invalid_scope",
            ),
            (&id, "wrong", grant, 401, "invalid_client"),
            (&id, "", grant, 401, "invalid_client"),
            ("not-an-id", &bench.secret, grant, 401, "invalid_client"),
            (&CompanyId::BANK.to_string(), &bench.secret, grant, 401, "invalid_client"),
        ] {
            let response = bench.token_request(client, secret, form).await;
            assert_eq!(refused(response, status).await, error, "{form}");
        }
        let nobody = Request::post("/token")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Body::from(grant))
            .expect("a request");
        assert_eq!(refused(bench.send(nobody).await, 401).await, "invalid_client");
        let json = Request::post("/token").header(header::CONTENT_TYPE, "application/json");
        let json = json.body(Body::from("{}")).expect("a request");
        assert_eq!(
            problem_of(bench.send(json).await).await.kind,
            ProblemType::UnsupportedMediaType
        );
    }

    #[tokio::test]
    async fn an_unknown_client_and_a_wrong_secret_get_the_same_bytes_and_a_record_each() {
        let bench = Bench::new().await;
        let grant = "grant_type=client_credentials";
        let unknown = CompanyId::BANK.to_string();
        let mut answers = Vec::new();
        for client in [&bench.client.to_string(), &unknown] {
            let response = bench.token_request(client, "wrong", grant).await;
            let mut headers = response.headers().clone();
            headers.remove("x-request-id");
            answers.push((response.status(), headers, body_of(response).await));
        }
        assert_eq!(answers[0], answers[1]);
        assert_eq!(kinds(&bench).await, ["client.created", "client.refused", "client.refused"]);
    }

    #[tokio::test]
    async fn security_103_failures_are_limited_and_the_right_secret_is_never_locked_out() {
        let bench = Bench::new().await;
        let (id, grant) = (bench.client.to_string(), "grant_type=client_credentials");
        let mut statuses = Vec::new();
        for _ in 0..12 {
            statuses.push(bench.token_request(&id, "wrong", grant).await.status().as_u16());
        }
        assert_eq!(statuses, [[401; 10].as_slice(), &[429; 2]].concat());
        assert_eq!(kinds(&bench).await.len(), 11, "beyond the limit nothing is recorded");
        assert_eq!(bench.token_request(&id, &bench.secret, grant).await.status(), 200);
    }

    #[tokio::test]
    async fn security_103_a_network_that_fails_too_often_is_not_heard_and_others_are() {
        let bench = Bench::new().await;
        let ask = async |peer: &str, secret: &str| {
            let basic = base64::Engine::encode(
                &base64::engine::general_purpose::STANDARD,
                format!("{}:{secret}", bench.client),
            );
            let mut request = Request::post("/token")
                .header(header::AUTHORIZATION, format!("Basic {basic}"))
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(Body::from("grant_type=client_credentials"))
                .expect("a request");
            request.extensions_mut().insert(Peer(peer.parse().expect("an address")));
            bench.send(request).await
        };
        for _ in 0..30 {
            assert_eq!(
                ask("2001:db8::7", &bench.secret).await.status(),
                200,
                "success costs nothing"
            );
        }
        for host in 0..20 {
            ask(&format!("2001:db8::{host}"), "wrong").await;
        }
        let response = ask("2001:db8::99", &bench.secret).await;
        assert!(response.headers().contains_key(header::RETRY_AFTER));
        assert_eq!(problem_of(response).await.kind, ProblemType::RateLimited);
        assert_eq!(ask("2001:db8:0:1::1", &bench.secret).await.status(), 200);
    }
}

mod programs {
    use super::*;

    fn guarded() -> Vec<Route> {
        vec![
            get("/stock", Rule::Scope(&[ApiScope::StockManage]), |caller: Caller| async move {
                caller.client.id.to_string()
            }),
            get("/tokens", Rule::Scope(&[ApiScope::TokensRead]), |_: Caller| async {}),
            get("/unguarded", Rule::Public, |_: Caller| async {}),
        ]
    }

    async fn ask(bench: &Bench, path: &str, authorization: &[&str]) -> Response {
        let mut request = request("GET", path);
        for value in authorization {
            let value = HeaderValue::from_str(value).expect("a header");
            request.headers_mut().append(header::AUTHORIZATION, value);
        }
        bench.send(request).await
    }

    #[tokio::test]
    async fn security_74_a_handler_is_reached_by_whom_its_rule_names() {
        let bench =
            bench_with(Bench::new().await, [guarded(), routes()].into_iter().flatten().collect());
        let token = bench.access_token(bench.client, &bench.secret).await;
        let bearer = format!("Bearer {token}");
        let response = ask(&bench, "/stock", &[&bearer]).await;
        assert_eq!(body_of(response).await, bench.client.to_string());
        assert_eq!(ask(&bench, "/stock", &[&format!("bearer  {token} ")]).await.status(), 200);
        for wrong in [
            vec![],
            vec!["Bearer x"],
            vec!["Bearer"],
            vec!["Basic x"],
            vec![&*format!("DPoP {token}")],
            vec![&*token],
        ] {
            let response = ask(&bench, "/stock", &wrong).await;
            let challenge =
                response.headers()[header::WWW_AUTHENTICATE].to_str().expect("text").to_owned();
            let by_key = wrong.first().is_some_and(|sent| sent.starts_with("DPoP "));
            let scheme = if by_key { "DPoP " } else { "Bearer " };
            assert!(challenge.starts_with(scheme), "{challenge}");
            assert_eq!(problem_of(response).await.kind, ProblemType::Unauthenticated, "{wrong:?}");
        }
        let twice = ask(&bench, "/stock", &[&bearer, &bearer]).await;
        assert_eq!(problem_of(twice).await.kind, ProblemType::Validation);
        let response = ask(&bench, "/tokens", &[&bearer]).await;
        let challenge =
            response.headers()[header::WWW_AUTHENTICATE].to_str().expect("text").to_owned();
        assert!(
            challenge.contains("insufficient_scope") && challenge.contains("tokens:read"),
            "{challenge}"
        );
        assert_eq!(problem_of(response).await.kind, ProblemType::Forbidden);
        let unguarded = ask(&bench, "/unguarded", &[&bearer]).await;
        assert_eq!(unguarded.status(), 500, "a handler without its rule fails closed");
    }
}

mod phones {
    use super::*;

    /// A phone as a stranger would write it: a key, a token, the last nonce.
    struct Stranger {
        key: SigningKey,
        token: String,
        nonce: Option<String>,
    }

    impl Stranger {
        fn proof(&self, method: &str, path: &str) -> String {
            self.proof_at(method, path, Timestamp::from_seconds(0))
        }

        fn proof_at(&self, method: &str, path: &str, iat: Timestamp) -> String {
            let uri = format!("{ISSUER}{path}");
            let about = dpop::Request { method, uri: &uri, access_token: Some(&self.token) };
            let jti = Nonce::generate(&crate::app::SystemEntropy::default());
            dpop::create(&self.key, &about, jti, iat, self.nonce.as_deref(), &SystemRandom::new())
        }

        async fn send(&mut self, bench: &Bench, path: &str, proof: &str) -> Response {
            let mut request = request("GET", path);
            let value = |text: &str| HeaderValue::from_str(text).expect("a header");
            let headers = request.headers_mut();
            headers.insert(header::AUTHORIZATION, value(&format!("DPoP {}", self.token)));
            headers.insert("dpop", value(proof));
            let response = bench.send(request).await;
            self.nonce = Some(response.headers()["dpop-nonce"].to_str().expect("text").to_owned());
            response
        }

        async fn ask(&mut self, bench: &Bench) -> Response {
            let proof = self.proof("GET", PATH);
            self.send(bench, PATH, &proof).await
        }
    }

    const PATH: &str = "/device/v1/test";

    /// A server that knows one phone of the operator, in `state`.
    async fn bench_with_phone(state: DeviceState) -> (Bench, Stranger) {
        let bench = bench_with(
            Bench::new().await,
            vec![
                get(PATH, Rule::BoundPhone, |phone: Phone| async move {
                    phone.device.record.id.to_string()
                }),
                get("/device/v1/known", Rule::KnownPhone, |phone: Phone| async move {
                    phone.device.record.state.name()
                }),
            ],
        );
        let rng = SystemRandom::new();
        let key = SigningKey::from_pkcs8(&SigningKey::generate(&rng), &rng).expect("a key");
        let token = "a-device-token".to_owned();
        let app = &bench.app;
        let users = Query::of(semilla_core::person::User::TABLE, CompanyId::BANK, 1);
        let user =
            app.store.find::<semilla_core::person::User>(&users).await.expect("users").remove(0);
        let device = Device {
            id: DeviceId::new(app.now(), app.entropy.as_ref()),
            company: CompanyId::BANK,
            user: user.record.id,
            name: Name::parse("phone").expect("a name"),
            platform: Name::parse("test").expect("a name"),
            key: key.public().clone(),
            token_sha256: sha256(&token),
            state,
            counter: 0,
            bound: app.now(),
        };
        let mut batch = Batch::default();
        batch.insert(&device);
        let id = device.id.to_string();
        batch.writes.push(Write::Reserve(Scope::DeviceToken, sha256(&token), CompanyId::BANK, id));
        app.store.commit(batch).await.expect("stored");
        (bench, Stranger { key, token, nonce: None })
    }

    fn challenge(response: &Response) -> String {
        response.headers()[header::WWW_AUTHENTICATE].to_str().expect("text").to_owned()
    }

    #[tokio::test]
    async fn a_phone_is_asked_for_a_nonce_once_and_then_heard() {
        let (bench, mut phone) = bench_with_phone(DeviceState::Bound).await;
        let first = phone.ask(&bench).await;
        assert!(challenge(&first).contains("use_dpop_nonce"));
        assert_eq!(problem_of(first).await.kind, ProblemType::Unauthenticated);
        for _ in 0..3 {
            let response = phone.ask(&bench).await;
            assert_eq!(response.status(), 200);
            assert_hardened(&response);
        }
    }

    #[tokio::test]
    async fn a_wrong_clock_on_either_side_does_no_harm() {
        let (bench, mut phone) = bench_with_phone(DeviceState::Bound).await;
        phone.ask(&bench).await;
        for iat in [Timestamp::from_seconds(0), Timestamp::from_milliseconds(i64::MAX)] {
            let proof = phone.proof_at("GET", PATH, iat);
            assert_eq!(phone.send(&bench, PATH, &proof).await.status(), 200);
        }
        bench.clock.advance(Duration::from_secs(10 * 24 * 3600));
        assert_eq!(phone.ask(&bench).await.status(), 200);
    }

    #[tokio::test]
    async fn security_62_a_proof_works_once_and_for_its_own_request() {
        let (bench, mut phone) = bench_with_phone(DeviceState::Bound).await;
        phone.ask(&bench).await;
        let proof = phone.proof("GET", PATH);
        assert_eq!(phone.send(&bench, PATH, &proof).await.status(), 200);
        let again = phone.send(&bench, PATH, &proof).await;
        assert!(challenge(&again).contains("invalid_dpop_proof"));
        assert_eq!(problem_of(again).await.kind, ProblemType::Unauthenticated);
        for wrong in [
            phone.proof("POST", PATH),
            phone.proof("GET", "/device/v1/other"),
            {
                // Another token's.
                let token = std::mem::replace(&mut phone.token, "another".to_owned());
                let proof = phone.proof("GET", PATH);
                phone.token = token;
                proof
            },
            String::new(),
            "a.b.c".to_owned(),
        ] {
            let response = phone.send(&bench, PATH, &wrong).await;
            assert!(challenge(&response).contains("invalid_dpop_proof"));
            assert_eq!(response.status(), 401);
        }
        // The host that the client names does not count.
        let proof = phone.proof("GET", PATH);
        let mut elsewhere = request("GET", PATH);
        elsewhere.headers_mut().insert(header::HOST, HeaderValue::from_static("evil.example"));
        let authorization =
            HeaderValue::from_str(&format!("DPoP {}", phone.token)).expect("a header");
        elsewhere.headers_mut().insert(header::AUTHORIZATION, authorization);
        elsewhere.headers_mut().insert("dpop", HeaderValue::from_str(&proof).expect("a header"));
        assert_eq!(bench.send(elsewhere).await.status(), 200);
    }

    #[tokio::test]
    async fn a_proof_of_another_key_or_for_an_unknown_token_is_refused() {
        let (bench, mut phone) = bench_with_phone(DeviceState::Bound).await;
        phone.ask(&bench).await;
        let rng = SystemRandom::new();
        let other = SigningKey::from_pkcs8(&SigningKey::generate(&rng), &rng).expect("a key");
        let own = std::mem::replace(&mut phone.key, other);
        let response = phone.ask(&bench).await;
        assert!(challenge(&response).contains("invalid_dpop_proof"));
        phone.key = own;
        phone.token = "unknown".to_owned();
        let response = phone.ask(&bench).await;
        assert!(challenge(&response).contains("invalid_token"));
    }

    #[tokio::test]
    async fn credentials_of_the_wrong_kind_or_none_are_refused_with_a_nonce() {
        let (bench, phone) = bench_with_phone(DeviceState::Bound).await;
        for authorization in
            [None, Some(format!("Bearer {}", phone.token)), Some(format!("DPoP {}", phone.token))]
        {
            let mut request = request("GET", PATH);
            if let Some(value) = authorization {
                let value = HeaderValue::from_str(&value).expect("a header");
                request.headers_mut().insert(header::AUTHORIZATION, value);
            }
            let response = bench.send(request).await;
            assert_eq!(response.status(), 401);
            assert!(
                challenge(&response).starts_with("DPoP")
                    && response.headers().contains_key("dpop-nonce")
            );
        }
    }

    #[tokio::test]
    async fn a_phone_that_is_not_trusted_is_known_and_no_more() {
        for state in [DeviceState::Suspended, DeviceState::Revoked] {
            let (bench, mut phone) = bench_with_phone(state).await;
            phone.ask(&bench).await;
            assert_eq!(problem_of(phone.ask(&bench).await).await.kind, ProblemType::DeviceRevoked);
            let path = "/device/v1/known";
            let proof = phone.proof("GET", path);
            let response = phone.send(&bench, path, &proof).await;
            assert_eq!(body_of(response).await, state.name());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn security_100_a_handler_has_ten_seconds_and_one_that_waits_has_more() {
    let never = || std::future::pending::<()>();
    let bench = bench_with(
        Bench::new().await,
        vec![get("/never", Rule::Public, never), get("/waits", Rule::Public, never).waiting()],
    );
    for (path, seconds) in [("/never", 10), ("/waits", 40)] {
        let begun = tokio::time::Instant::now();
        let problem = problem_of(bench.send(request("GET", path)).await).await;
        assert_eq!(problem.kind, ProblemType::Unavailable);
        // The clock is paused: it shows exactly what was waited for.
        assert_eq!(begun.elapsed().as_secs(), seconds);
    }
}

#[test]
fn security_74_every_route_has_one_rule_and_one_place() {
    let mut seen = std::collections::HashSet::new();
    for route in routes() {
        assert!(
            seen.insert((route.method.clone(), route.path)),
            "{} {} twice",
            route.method,
            route.path
        );
        let is_phones = matches!(route.rule, Rule::KnownPhone | Rule::BoundPhone);
        let is_programs = matches!(route.rule, Rule::Scope(_));
        match route.path {
            path if path.starts_with("/api/") => assert!(is_programs, "{path}"),
            // A phone that is being bound has no credentials yet.
            path if path.starts_with("/device/v1/bindings") => assert_eq!(route.rule, Rule::Public),
            path if path.starts_with("/device/") => assert!(is_phones, "{path}"),
            path => {
                assert_eq!(route.rule, Rule::Public, "{path}");
                let open =
                    route.method == Method::GET || ["/token", "/bc-authorize"].contains(&path);
                assert!(open, "{path} changes something for anybody");
            }
        }
    }
}
