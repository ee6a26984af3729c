//! Who may ask what. The table is the server's own list of routes: each of them meets every kind
//! of wrong caller, and one that may ask (security 61, 62, 71 to 74, 77, 78).

use ring::rand::SystemRandom;
use semilla_approver::Phone;
use semilla_core::protocol::bytes::Nonce;
use semilla_core::protocol::dpop;
use semilla_core::protocol::jwk::SigningKey;
use semilla_server::app::SystemEntropy;
use semilla_server::http::{Route, Rule, routes};
use semilla_server::records::ApiScope;
use semilla_tests::bodies::{Ids, good, has_body};
use semilla_tests::http::{Expect, Program, Reply};
use semilla_tests::places::{NOBODY, Places, has_id};
use semilla_tests::socket;
use semilla_tests::world::{Active, COMPANY_SCOPES, Company, World};
use serde_json::json;

/// What everybody may ask. A new route of this kind has to be added here, on purpose.
const PUBLIC: [&str; 14] = [
    "/",
    "/openapi.json",
    "/docs",
    "/docs/style.css",
    "/docs/try.js",
    "/healthz",
    "/readyz",
    "/token",
    "/jwks",
    "/bc-authorize",
    "/.well-known/oauth-authorization-server",
    "/.well-known/openid-configuration",
    "/device/v1/bindings/start",
    "/device/v1/bindings",
];

/// The scopes of which a caller needs one; none where a route is not for programs.
fn scopes_of(route: &Route) -> &'static [ApiScope] {
    match route.rule {
        Rule::Scope(scopes) => scopes,
        _ => &[],
    }
}

fn is_for_programs(route: &Route) -> bool {
    !scopes_of(route).is_empty()
}

fn is_of_bank(route: &Route) -> bool {
    is_for_programs(route) && scopes_of(route).iter().all(|scope| scope.is_of_bank())
}

fn is_for_phones(route: &Route) -> bool {
    matches!(route.rule, Rule::KnownPhone | Rule::BoundPhone)
}

fn name(route: &Route) -> String {
    format!("{} {}", route.method, route.path)
}

/// A world with something of every kind, so that every path leads somewhere.
struct Stage {
    world: World,
    active: Active,
    places: Places,
    enrollment: String,
}

impl Stage {
    async fn set() -> Self {
        let (world, active) = World::with_active_token().await;
        let company = &world.company;
        let pedro = json!({"login": "pedro.ruiz", "name": "Pedro Ruiz"});
        let pedro = company.program.post("/api/v1/users", pedro).await.expect(201);
        let pedro = pedro["id"].as_str().expect("an id");
        let (_, _, enrollment) = world.assigned(company, pedro).await;
        let release = format!("/api/v1/tokens/{}/release", active.token);
        let asked =
            company.program.post(&release, json!({"cause": "seed_release"})).await.expect(202);
        let device = active.phone.raw().device().expect("a phone").to_string();
        let places = Places::nowhere()
            .with("tokens", &active.token)
            .with("enrollments", &enrollment)
            .with("operations", asked["id"].as_str().expect("an id"))
            .with("approvals", asked["id"].as_str().expect("an id"))
            .with("users", &company.laura)
            .with("devices", &device)
            .with("companies", &company.id)
            .with("clients", &company.program.0.id);
        Self { world, active, places, enrollment }
    }

    fn body(&self, route: &Route) -> Vec<u8> {
        let method = route.method.as_str();
        if !has_body(method) || ["/token", "/bc-authorize"].contains(&route.path) {
            return Vec::new();
        }
        let company = &self.world.company;
        let ids = Ids {
            user: &company.laura,
            token: &self.active.token,
            company: &company.id,
            number: 7,
        };
        good(method, route.path, &ids).to_string().into_bytes()
    }

    /// Sends a request of a route with these credentials and its good body.
    async fn send(&self, route: &Route, places: &Places, credentials: &[(&str, &str)]) -> Reply {
        let body = self.body(route);
        let mut headers = credentials.to_vec();
        if !body.is_empty() {
            headers.push(("content-type", "application/json"));
        }
        let path = places.at(route.path);
        self.world
            .http()
            .send(route.method.as_str(), &path, &headers, &body)
            .await
            .expect("an answer")
    }

    /// The answer that a caller gets who may ask; of those that do not end, the beginning.
    async fn answer(
        &self,
        route: &Route,
        places: &Places,
        credentials: &[(&str, &str)],
    ) -> socket::Answer {
        let path = places.at(route.path);
        let mut headers = credentials.to_vec();
        headers.push(("connection", "close"));
        let body = self.body(route);
        if !body.is_empty() {
            headers.push(("content-type", "application/json"));
        }
        let request = socket::request(route.method.as_str(), &path, &headers, &body);
        let http = self.world.http();
        match route.path {
            "/api/v1/events" | "/device/v1/stream" => socket::head(http.base(), &request).await,
            _ => socket::exchange(http.base(), &request).await,
        }
    }

    /// A program of the company with these scopes.
    async fn program(&self, scopes: &[&str]) -> Program {
        program_of(&self.world, &self.world.company, scopes).await
    }

    async fn bearer(&self, program: &Program) -> String {
        format!("Bearer {}", program.0.access_token().await.expect("an access token"))
    }
}

async fn program_of(world: &World, company: &Company, scopes: &[&str]) -> Program {
    let client = json!({"name": "Otro", "scopes": scopes, "askers": [company.administrator]});
    let path = format!("/api/v1/companies/{}/clients", company.id);
    let created = world.operator.post(&path, client).await.expect(201);
    Program::of(world.http(), &created)
}

/// The part of an answer that is the same each time.
fn lasting(reply: &Reply) -> (u16, Vec<(String, String)>, Vec<u8>) {
    let of_each = ["date", "x-request-id"];
    let headers = reply.headers.iter().filter(|(name, _)| !of_each.contains(&name.as_str()));
    let headers = headers.map(|(name, value)| (name.to_string(), format!("{value:?}")));
    let mut headers: Vec<_> = headers.collect();
    headers.sort();
    (reply.status.as_u16(), headers, reply.body.to_vec())
}

#[test]
fn security_74_every_route_has_a_rule_and_what_everybody_may_ask_is_listed() {
    for route in routes() {
        let listed = PUBLIC.contains(&route.path);
        assert_eq!(route.rule == Rule::Public, listed, "{}", name(&route));
        // A face of its own proves itself in its own way.
        assert_eq!(is_for_phones(&route), route.path.starts_with("/device/") && !listed);
        assert_eq!(is_for_programs(&route), route.path.starts_with("/api/"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn security_74_a_route_of_the_company_api_is_closed_to_whoever_has_not_its_scope() {
    let stage = Stage::set().await;
    let world = &stage.world;
    let ended = stage.program(&COMPANY_SCOPES).await;
    let of_ended = stage.bearer(&ended).await;
    let path = format!("/api/v1/companies/{}/clients/{}", world.company.id, ended.0.id);
    world.operator.send("DELETE", &path, &[], None).await.expect(204);
    let device_token = stage.active.phone.raw().device_token().expect("a token");
    let of_phone = format!("Bearer {}", device_token.expose());
    let full = stage.bearer(&world.company.program).await;
    let basic = format!("Basic {}", base64_of(&world.company.program));
    let as_dpop = full.replace("Bearer", "DPoP");
    for route in routes().iter().filter(|route| is_for_programs(route)) {
        let (name, scopes) = (name(route), scopes_of(route));
        for (who, credentials) in [
            ("nobody", ""),
            ("a stranger", "Bearer AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
            ("no token", "Bearer "),
            ("a program that was ended", &of_ended),
            ("a phone", &of_phone),
            ("a client secret", &basic),
            ("another scheme", &as_dpop),
        ] {
            let headers = [("authorization", credentials)];
            let headers = if credentials.is_empty() { &headers[1..] } else { &headers[..] };
            let reply = stage.send(route, &stage.places, headers).await;
            assert_eq!(reply.problem(), "unauthenticated", "{name} for {who}");
            let scheme = if credentials.starts_with("DPoP ") { "DPoP " } else { "Bearer " };
            assert!(reply.header("www-authenticate").starts_with(scheme), "{name} for {who}");
        }
        // Every other scope there is does not help.
        let helps = |other: &str| scopes.iter().any(|scope| scope.name() == other);
        let others: Vec<_> = COMPANY_SCOPES.into_iter().filter(|other| !helps(other)).collect();
        let lesser = stage.bearer(&stage.program(&others).await).await;
        let reply = stage.send(route, &stage.places, &[("authorization", &lesser)]).await;
        assert_eq!(reply.problem(), "forbidden", "{name} without {scopes:?}");
        assert!(reply.header("www-authenticate").contains("insufficient_scope"), "{name}");
        // A program of a company on a route of the bank, and the other way round.
        let crossed = if is_of_bank(route) { &world.company.program } else { &world.operator };
        if is_of_bank(route) || !OF_OPERATOR.into_iter().any(helps) {
            let crossed = stage.bearer(crossed).await;
            let reply = stage.send(route, &stage.places, &[("authorization", &crossed)]).await;
            assert_eq!(reply.problem(), "forbidden", "{name} from the other side");
        }
    }
}

/// The scopes that the operator's program of the beginning has beside the bank's own.
const OF_OPERATOR: [&str; 4] =
    ["users:manage", "enrollments:deliver", "tokens:release", "audit:read"];

fn base64_of(program: &Program) -> String {
    use base64::Engine;
    let pair = format!("{}:{}", program.0.id, program.0.secret);
    base64::engine::general_purpose::STANDARD.encode(pair)
}

#[tokio::test(flavor = "multi_thread")]
async fn security_74_the_one_scope_of_a_route_opens_it_and_its_time_is_300_seconds() {
    let stage = Stage::set().await;
    let world = &stage.world;
    let table = routes();
    let each =
        table.iter().flat_map(|route| scopes_of(route).iter().map(move |scope| (route, *scope)));
    for (route, scope) in each {
        let program = if scope.is_of_bank() {
            // As the operator: there is no program of a company with such a scope.
            let (id, secret) = (&world.operator.0.id, &world.operator.0.secret);
            Program::of(world.http(), &json!({"client_id": id, "client_secret": secret}))
        } else {
            stage.program(&[scope.name()]).await
        };
        let bearer = stage.bearer(&program).await;
        let credentials = [("authorization", bearer.as_str())];
        // With ids that nobody has, so that nothing changes for the routes that follow.
        let answer = stage.answer(route, &Places::nowhere(), &credentials).await;
        let shut = [401, 403].contains(&answer.status) || answer.status >= 500;
        assert!(!shut, "{}: {answer:?}", name(route));
        world.clock.advance(std::time::Duration::from_secs(300));
        let reply = stage.send(route, &Places::nowhere(), &credentials).await;
        assert_eq!(reply.problem(), "unauthenticated", "{} with an expired token", name(route));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn security_72_another_companys_thing_is_byte_for_byte_an_absent_one() {
    let stage = Stage::set().await;
    let world = &stage.world;
    let other = world.another_company("Industrias del Sur S.A.").await;
    let stranger = stage.bearer(&other.program).await;
    let credentials = [("authorization", stranger.as_str())];
    let before = world.trail(&world.company).await.len();
    let mut seen = 0;
    for route in routes().iter().filter(|route| is_for_programs(route) && !is_of_bank(route)) {
        if !has_id(route.path) {
            continue;
        }
        let foreign = stage.send(route, &stage.places, &credentials).await;
        let absent = stage.send(route, &Places::nowhere(), &credentials).await;
        assert_eq!(foreign.problem(), "not-found", "{}", name(route));
        assert_eq!(lasting(&foreign), lasting(&absent), "{}", name(route));
        let no_id = route.path.replace("{id}", "x");
        if !no_id.contains('{') {
            let reply = world.http().send(route.method.as_str(), &no_id, &credentials, b"").await;
            let reply = reply.expect("an answer");
            if !has_body(route.method.as_str()) {
                assert_eq!(lasting(&reply), lasting(&absent), "{} with no id at all", name(route));
            }
        }
        seen += 1;
    }
    assert!(seen >= 15, "only {seen} routes with ids: is the table whole?");
    // Nothing was done to anything, and the company's trail knows nothing of it.
    assert_eq!(world.trail(&world.company).await.len(), before);
    let own = stage.bearer(&world.company.program).await;
    let token =
        routes().into_iter().find(|route| route.path == "/api/v1/tokens/{id}").expect("a route");
    stage.send(&token, &stage.places, &[("authorization", &own)]).await.expect(200);
    let enrollment = format!("/api/v1/enrollments/{}", stage.enrollment);
    assert_eq!(world.company.program.get(&enrollment).await.expect(200)["state"], "open");
}

#[tokio::test(flavor = "multi_thread")]
async fn security_72_the_answer_to_a_code_is_one_for_a_foreign_and_an_unknown_token() {
    let stage = Stage::set().await;
    let world = &stage.world;
    let other = world.another_company("Industrias del Sur S.A.").await;
    let code = stage.active.code();
    let mut answers = Vec::new();
    for token in [stage.active.token.as_str(), &stage.active.serial, NOBODY, "FEF0000000", "x"] {
        let body = json!({"token": token, "code": code});
        answers.push(lasting(&other.program.post("/api/v1/otp/verify", body).await));
    }
    for user in [world.company.laura.as_str(), "laura.valencia.otra", NOBODY] {
        let body = json!({"user": user, "code": code});
        answers.push(lasting(&other.program.post("/api/v1/otp/verify", body).await));
    }
    assert!(
        answers.iter().all(|answer| answer == &answers[0] && answer.2 == b"{\"accepted\":false}")
    );
    // The code was good all the while (security 19: nor was it counted against its token).
    assert!(world.company.program.verify(&stage.active.token, &code).await);
}

/// The headers of a request under a phone's name, signed by `key`.
struct Proofs<'a> {
    stage: &'a Stage,
    token: String,
    nonce: String,
}

impl Proofs<'_> {
    fn by(
        &self,
        key: &SigningKey,
        method: &str,
        path: &str,
        token: &str,
        nonce: Option<&str>,
    ) -> String {
        let uri = format!("{}{path}", self.stage.world.server().issuer());
        let request = dpop::Request { method, uri: &uri, access_token: Some(token) };
        let jti = Nonce::generate(&SystemEntropy::default());
        dpop::create(key, &request, jti, self.stage.world.now(), nonce, &SystemRandom::new())
    }

    fn own(&self, method: &str, path: &str, nonce: Option<&str>) -> String {
        self.stage.active.phone.raw().proof(method, path, nonce).expect("a proof")
    }
}

fn stranger_key() -> SigningKey {
    let random = SystemRandom::new();
    SigningKey::from_pkcs8(&SigningKey::generate(&random), &random).expect("a key")
}

async fn nonce_of(world: &World) -> String {
    let reply = world.http().send("GET", "/device/v1/tokens", &[], b"").await.expect("an answer");
    reply.header("dpop-nonce").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn security_61_and_62_a_route_of_the_device_api_wants_the_phones_own_fresh_proof() {
    let mut stage = Stage::set().await;
    let old_nonce = nonce_of(&stage.world).await;
    // Another process has other nonces.
    stage.world.restart().await;
    let stage = stage;
    let world = &stage.world;
    let device_token = stage.active.phone.raw().device_token().expect("a token");
    let proofs = Proofs {
        stage: &stage,
        token: device_token.expose().to_owned(),
        nonce: nonce_of(world).await,
    };
    let bearer = stage.bearer(&world.company.program).await;
    let access_token = bearer.trim_start_matches("Bearer ").to_owned();
    let stranger = stranger_key();
    let nowhere = Places::nowhere();
    for route in routes().iter().filter(|route| is_for_phones(route)) {
        let (name, method) = (name(route), route.method.as_str());
        let path = nowhere.at(route.path);
        let (token, nonce) = (proofs.token.as_str(), Some(proofs.nonce.as_str()));
        let with = |token: &str, proof: String| (format!("DPoP {token}"), proof);
        let other_method = if method == "GET" { "POST" } else { "GET" };
        let used = proofs.own(method, &path, nonce);
        let first = [("authorization", format!("DPoP {token}")), ("dpop", used.clone())];
        let first: Vec<_> = first.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let answer = stage.answer(route, &nowhere, &first).await;
        // Past the door: what is then said of the message in it is another matter.
        let shut = ["unauthenticated", "device-revoked"].contains(&answer.problem().as_str());
        assert!(!shut && answer.status < 500, "{name}, by the phone itself: {answer:?}");
        for (who, (authorization, proof)) in [
            ("nobody", (String::new(), String::new())),
            ("a program", (bearer.clone(), String::new())),
            ("a program with a proof", (bearer.clone(), proofs.own(method, &path, nonce))),
            ("an access token as DPoP", {
                with(&access_token, proofs.by(&stranger, method, &path, &access_token, nonce))
            }),
            ("no proof", with(token, String::new())),
            ("a proof that is none", with(token, "a.b.c".to_owned())),
            ("a proof without nonce", with(token, proofs.own(method, &path, None))),
            ("an old nonce", with(token, proofs.own(method, &path, Some(&old_nonce)))),
            ("another method", with(token, proofs.own(other_method, &path, nonce))),
            ("another path", with(token, proofs.own(method, "/device/v1/other", nonce))),
            ("another key", with(token, proofs.by(&stranger, method, &path, token, nonce))),
            ("the phone's bearer token alone", (format!("Bearer {token}"), used.clone())),
            ("a proof that was used", with(token, used.clone())),
        ] {
            let all = [("authorization", authorization.as_str()), ("dpop", proof.as_str())];
            let given: Vec<_> = all.into_iter().filter(|(_, value)| !value.is_empty()).collect();
            let reply = stage.send(route, &nowhere, &given).await;
            assert_eq!(reply.problem(), "unauthenticated", "{name} for {who}");
            assert!(reply.header("www-authenticate").starts_with("DPoP"), "{name} for {who}");
            assert!(!reply.header("dpop-nonce").is_empty(), "{name} for {who}");
        }
        if route.path == "/device/v1/me" {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn security_72_a_phone_reaches_nothing_of_another_person() {
    let stage = Stage::set().await;
    let world = &stage.world;
    let (_, _, enrollment) = (&stage.active.token, &stage.active.serial, &stage.enrollment);
    let marta = json!({"login": "marta.paz", "name": "Marta Paz"});
    let marta = world.company.program.post("/api/v1/users", marta).await.expect(201);
    let phone: Phone =
        world.bound_phone(&world.company, marta["id"].as_str().expect("an id")).await;
    let places = stage.places.clone().with("enrollments", enrollment);
    let mut seen = 0;
    for route in routes().iter().filter(|route| is_for_phones(route) && has_id(route.path)) {
        let body = String::from_utf8(stage.body(route)).expect("UTF-8");
        let body = Some(body.as_str()).filter(|body| !body.is_empty());
        let method = match route.method.as_str() {
            "GET" => "GET",
            "DELETE" => "DELETE",
            _ => "POST",
        };
        let foreign =
            phone.raw().send(method, &places.at(route.path), body).await.expect("an answer");
        let absent = phone
            .raw()
            .send(method, &Places::nowhere().at(route.path), body)
            .await
            .expect("an answer");
        assert_eq!(
            (foreign.status, &*foreign.body),
            (absent.status, &*absent.body),
            "{}",
            name(route)
        );
        assert!(foreign.status >= 400, "{}", name(route));
        seen += 1;
    }
    assert!(seen >= 4, "only {seen} routes with ids");
    // The control: the administrator's phone does find what it was asked.
    assert_eq!(stage.active.administrator.inbox().await.expect("an inbox").requests.len(), 1);
    assert_eq!(phone.inbox().await.expect("an inbox").requests.len(), 0);
}
