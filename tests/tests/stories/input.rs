//! Bad input of every kind: a problem document that says where, never a failure of the server, and
//! nothing is changed (security 64, 73, 97 to 99, 101).

use std::collections::BTreeMap;

use semilla_core::id::CompanyId;
use semilla_core::problem::Problem;
use semilla_server::http::{Route, Rule, routes};
use semilla_tests::bad::{self, Bad};
use semilla_tests::bodies::{Ids, good, has_body};
use semilla_tests::http::{Expect, Reply};
use semilla_tests::places::{Places, has_id};
use semilla_tests::seeded::Seeded;
use semilla_tests::world::{Active, World};
use serde_json::{Value, json};

/// A world, and who may ask each route.
struct Desk {
    world: World,
    active: Active,
    places: Places,
    nonce: String,
}

impl Desk {
    async fn open() -> Self {
        let (world, active) = World::with_active_token().await;
        let company = &world.company;
        let pedro = json!({"login": "pedro.ruiz", "name": "Pedro Ruiz"});
        let pedro = company.program.post("/api/v1/users", pedro).await.expect(201);
        let (_, _, enrollment) =
            world.assigned(company, pedro["id"].as_str().expect("an id")).await;
        let device = active.phone.raw().device().expect("a phone").to_string();
        let places = Places::nowhere()
            .with("tokens", &active.token)
            .with("enrollments", &enrollment)
            .with("users", &company.laura)
            .with("devices", &device)
            .with("companies", &company.id);
        let reply =
            world.http().send("GET", "/device/v1/tokens", &[], b"").await.expect("an answer");
        let nonce = reply.header("dpop-nonce").to_owned();
        Self { world, active, places, nonce }
    }

    fn good(&self, route: &Route, number: usize) -> Value {
        let company = &self.world.company;
        let ids =
            Ids { user: &company.laura, token: &self.active.token, company: &company.id, number };
        good(route.method.as_str(), route.path, &ids)
    }

    /// Sends bytes to a route, as whoever may ask it.
    async fn send(
        &self,
        route: &Route,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Reply {
        let method = route.method.as_str();
        let program = match route.rule {
            Rule::Public => {
                return self
                    .world
                    .http()
                    .send(method, path, headers, body)
                    .await
                    .expect("an answer");
            }
            Rule::KnownPhone | Rule::BoundPhone => {
                return self.as_phone(method, path, headers, body).await;
            }
            Rule::Scope(scopes) if scopes.iter().all(|scope| scope.is_of_bank()) => {
                &self.world.operator
            }
            Rule::Scope(_) => &self.world.company.program,
        };
        program.send_raw(method, path, headers, body).await
    }

    async fn as_phone(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Reply {
        let raw = self.active.phone.raw();
        let bare = path.split('?').next().unwrap_or_default();
        let proof = raw.proof(method, bare, Some(&self.nonce)).expect("a proof");
        let token = format!("DPoP {}", raw.device_token().expect("a token").expose());
        let mut all = vec![("authorization", token.as_str()), ("dpop", proof.as_str())];
        all.extend_from_slice(headers);
        self.world.http().send(method, path, &all, body).await.expect("an answer")
    }

    async fn send_json(&self, route: &Route, body: &[u8]) -> Reply {
        self.send(route, &self.places.at(route.path), &[("content-type", "application/json")], body)
            .await
    }

    /// The heads of both chains: whoever changed anything has moved one of them.
    async fn heads(&self) -> Vec<u64> {
        let company: CompanyId = self.world.company.id.parse().expect("an id");
        let mut heads = Vec::new();
        for chain in [company, CompanyId::BANK] {
            heads.push(
                self.world.server().app.store.audit_head(chain).await.expect("a head").sequence,
            );
        }
        heads
    }
}

fn json_routes() -> Vec<Route> {
    let takes = |route: &Route| {
        has_body(route.method.as_str()) && !["/token", "/bc-authorize"].contains(&route.path)
    };
    routes().into_iter().filter(takes).collect()
}

/// That an answer is a whole problem document, and says no more than the problem.
fn problem(reply: &Reply, what: &str) -> Problem {
    let text = String::from_utf8_lossy(&reply.body);
    assert!(reply.status.is_client_error(), "{what}: {} {text}", reply.status);
    assert_eq!(reply.header("content-type"), "application/problem+json", "{what}: {text}");
    assert!(text.len() < 2000, "{what}: {text}");
    serde_json::from_slice(&reply.body).unwrap_or_else(|error| panic!("{what}: {error}: {text}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn security_97_and_98_every_route_refuses_what_cannot_be_read_and_nothing_changes() {
    let desk = Desk::open().await;
    desk.world.company.program.get("/api/v1/tokens").await.expect(200);
    let before = desk.heads().await;
    for route in json_routes() {
        for Bad { why, body, problem: expected, .. } in bad::unreadable(&desk.good(&route, 1)) {
            // What brings a file may be larger, and has a story of its own.
            let of_file = ["/api/v1/stock/import", "/api/v1/stock/export"].contains(&route.path);
            if expected == "too-large" && of_file {
                continue;
            }
            let what = format!("{} {}, {why}", route.method, route.path);
            let reply = desk.send_json(&route, &body).await;
            assert_eq!(problem(&reply, &what).kind.name(), expected, "{what}: {:?}", reply.json());
        }
    }
    assert_eq!(desk.heads().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn security_73_and_98_every_route_refuses_wrong_content_and_says_where() {
    let desk = Desk::open().await;
    let before = desk.heads().await;
    for route in json_routes() {
        for Bad { why, body, pointer, .. } in bad::wrong(&desk.good(&route, 2)) {
            if why.starts_with("perhaps too few") && may_be_less(&route) {
                continue;
            }
            let what = format!("{} {}, {why}", route.method, route.path);
            let reply = desk.send_json(&route, &body).await;
            // A code may be any text: what is no code is refused like a wrong one.
            if route.path == "/api/v1/otp/verify" && reply.status == 200 {
                assert_eq!(reply.json(), json!({"accepted": false}), "{what}");
                continue;
            }
            let problem = problem(&reply, &what);
            // A text of any kind may stand where a code or a signed message is expected.
            let by_content = [
                "code-invalid",
                "signature-invalid",
                "activation-invalid",
                "not-found",
                "state-conflict",
            ];
            let is_text =
                pointer == "#/code" || pointer == "#/message" || pointer == "#/activation";
            let kind = problem.kind.name();
            assert!(
                kind == "validation" || (is_text && by_content.contains(&kind)),
                "{what}: {problem:?}"
            );
            if problem.kind.name() == "validation" {
                let place =
                    &problem.errors.first().unwrap_or_else(|| panic!("{what}: no place")).pointer;
                assert!(place.starts_with(&pointer), "{what}: {place} instead of {pointer}");
            }
        }
    }
    let checked = |heads: &[u64]| heads[1];
    assert_eq!(checked(&desk.heads().await), checked(&before));
    let kinds = desk
        .world
        .kinds_since(&desk.world.company, usize::try_from(before[0]).expect("a length"))
        .await;
    assert!(kinds.iter().all(|kind| kind == "otp.checked"), "{kinds:?}");
}

/// Routes whose body is right with a field less.
fn may_be_less(route: &Route) -> bool {
    let patch = route.method.as_str() == "PATCH";
    patch || ["/api/v1/companies/{id}/clients", "/api/v1/webhooks"].contains(&route.path)
}

#[tokio::test(flavor = "multi_thread")]
async fn security_71_a_body_that_does_not_say_that_it_is_json_is_refused_on_every_route() {
    let desk = Desk::open().await;
    let before = desk.heads().await;
    for route in json_routes() {
        let body = desk.good(&route, 3).to_string();
        let path = desk.places.at(route.path);
        for content_type in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data",
            "application/jsonx",
        ] {
            let headers = [("content-type", content_type)];
            let reply = desk.send(&route, &path, &headers, body.as_bytes()).await;
            reply.refused("unsupported-media-type");
        }
        let headers = [("content-type", "application/json"), ("content-encoding", "gzip")];
        desk.send(&route, &path, &headers, body.as_bytes()).await.refused("unsupported-media-type");
    }
    let form = [("content-type", "application/json")];
    let reply = desk.world.http().send("POST", "/token", &form, b"{}").await.expect("an answer");
    reply.refused("unsupported-media-type");
    assert_eq!(desk.heads().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn security_64_and_99_a_name_with_hidden_characters_is_refused_wherever_a_name_is_given() {
    let desk = Desk::open().await;
    let before = desk.heads().await;
    let hidden = [
        "a\u{202e}b",
        "a\u{2066}b",
        "a\u{200b}b",
        "\u{feff}a",
        "a\u{2060}b",
        "a\u{0}b",
        "a\nb",
        "a\r\nb",
        "a\u{1b}[31mb",
        "a\u{85}b",
        "a\u{2028}b",
        "a\u{ad}b",
        "a\u{e0041}b",
        "a\u{e000}b",
        "",
        "   ",
    ];
    let long = "ñ".repeat(101);
    let mut places = 0;
    for route in json_routes().iter().filter(|route| route.path.starts_with("/api/")) {
        let good = desk.good(route, 4);
        for pointer in names_in(&good) {
            for name in hidden.iter().copied().chain([long.as_str()]) {
                let mut body = good.clone();
                *body.pointer_mut(&pointer).expect("a name") = name.into();
                let what = format!("{} {pointer} {name:?}", route.path);
                let problem =
                    problem(&desk.send_json(route, body.to_string().as_bytes()).await, &what);
                assert_eq!(problem.errors[0].pointer, format!("#{pointer}"), "{what}");
            }
            places += 1;
        }
    }
    assert!(places >= 7, "only {places} places for a name");
    assert_eq!(desk.heads().await, before);
    // The control: a name of a hundred characters, and one that comes in another spelling of the
    // same letters and is the same name (NFC).
    let longest = json!({"login": "larga", "name": "ñ".repeat(100)});
    desk.world.company.program.post("/api/v1/users", longest).await.expect(201);
    let decomposed = json!({"login": "andres", "name": "Andre\u{301}s"});
    let user = desk.world.company.program.post("/api/v1/users", decomposed).await.expect(201);
    assert_eq!(user["name"], "Andr\u{e9}s");
    // A login has one spelling too, and is taken once.
    for taken in ["andres", "ANDRES", "Andres"] {
        let again = json!({"login": taken, "name": "Otra"});
        desk.world.company.program.post("/api/v1/users", again).await.refused("validation");
    }
}

fn names_in(good: &Value) -> Vec<String> {
    ["/name", "/administrator/name", "/login", "/administrator/login"]
        .into_iter()
        .filter(|pointer| good.pointer(pointer).is_some())
        .map(str::to_owned)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn security_99_what_is_no_id_names_nothing_in_the_same_bytes_as_an_absent_id() {
    let desk = Desk::open().await;
    let before = desk.heads().await;
    let token = desk.active.token.clone();
    let (braced, upper, plain) =
        (format!("%7B{token}%7D"), token.to_uppercase(), token.replace('-', ""));
    let ids = [
        "x",
        "0",
        "-1",
        "%00",
        "%ff",
        "..%2f..%2fetc",
        "a%2Fb",
        "%F0%9F%94%91",
        "null",
        &braced,
        &upper,
        &plain,
        "%E2%80%AE",
        "00000000-0000-0000-0000-000000000000",
        "1%20OR%201%3D1",
        "%27",
        "%2e%2e",
    ];
    // What a phone signs is looked at before the address, and signs none here.
    let signed =
        |route: &Route| route.path.starts_with("/device/") && has_body(route.method.as_str());
    for route in routes().iter().filter(|route| has_id(route.path) && !signed(route)) {
        let body = match has_body(route.method.as_str()) {
            true => desk.good(route, 5).to_string(),
            false => String::new(),
        };
        let headers = [("content-type", "application/json")];
        let headers = if body.is_empty() { &headers[1..] } else { &headers[..] };
        let nowhere = Places::nowhere().at(route.path);
        let absent = desk.send(route, &nowhere, headers, body.as_bytes()).await;
        assert_eq!(absent.problem(), "not-found", "{} {}", route.method, route.path);
        for id in ids {
            let path = desk.places.at(&route.path.replacen("{id}", id, 1));
            let reply = desk.send(route, &path, headers, body.as_bytes()).await;
            assert_eq!((reply.status, &reply.body), (absent.status, &absent.body), "{path}");
        }
    }
    assert_eq!(desk.heads().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn security_98_a_parameter_that_is_unknown_repeated_or_wrong_is_named() {
    let desk = Desk::open().await;
    let mut wrong: BTreeMap<&str, Vec<(&str, &str)>> = BTreeMap::new();
    let page = [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=x", "limit"),
        ("limit=-1", "limit"),
        ("limit=99999999999999999999", "limit"),
        ("cursor=x", "cursor"),
        ("cursor=W10", "cursor"),
    ];
    for list in ["/api/v1/tokens", "/api/v1/users", "/api/v1/companies", "/api/v1/stock"] {
        wrong.entry(list).or_default().extend(page);
    }
    let tokens = [
        ("state=gone", "state"),
        ("kind=x", "kind"),
        ("holder=x", "holder"),
        ("sort=seed", "sort"),
        ("sort=--serial", "sort"),
        ("sort=serial%3B", "sort"),
    ];
    wrong.entry("/api/v1/tokens").or_default().extend(tokens);
    wrong.entry("/api/v1/audit").or_default().extend([
        ("after=x", "after"),
        ("after=-1", "after"),
        ("token=x", "token"),
        ("limit=0", "limit"),
    ]);
    wrong.entry("/api/v1/devices").or_default().push(("user=x", "user"));
    wrong.entry("/api/v1/operations/{id}").or_default().extend([
        ("wait=31", "wait"),
        ("wait=-1", "wait"),
        ("wait=1.5", "wait"),
        ("wait=", "wait"),
    ]);
    wrong
        .entry("/device/v1/approvals")
        .or_default()
        .extend([("wait=31", "wait"), ("wait=x", "wait")]);
    for route in routes().iter().filter(|route| route.method.as_str() == "GET") {
        let mut cases = wrong.remove(route.path).unwrap_or_default();
        if !cases.is_empty() {
            cases.extend([("unknown=1", "unknown"), ("%ff=1", "query"), ("x=%", "query")]);
        }
        for (query, name) in cases {
            let path = format!("{}?{query}", desk.places.at(route.path));
            let problem = problem(&desk.send(route, &path, &[], b"").await, &path);
            assert_eq!(problem.kind.name(), "validation", "{path}: {problem:?}");
            assert_eq!(problem.errors[0].pointer, name, "{path}: {problem:?}");
        }
    }
    assert!(wrong.is_empty(), "no such routes: {wrong:?}");
    let twice = "/api/v1/tokens?limit=1&limit=2";
    let reply = desk.world.company.program.get(twice).await.refused("validation");
    assert_eq!(reply["errors"][0]["pointer"], "limit");
    // Whatever a cursor says, it leads to nothing but the company's own tokens.
    let forged = semilla_core::base64url::encode(br#"["serial","","'; DROP TABLE tokens; --"]"#);
    let page = desk
        .world
        .company
        .program
        .get(&format!("/api/v1/tokens?cursor={forged}"))
        .await
        .expect(200);
    assert_eq!(page["total"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn security_98_thousands_of_random_bodies_never_make_the_server_fail() {
    let desk = Desk::open().await;
    let mut seeded = Seeded::from_environment(20_261_124);
    let table = json_routes();
    for number in 0..3000 {
        let route = seeded.one_of(&table);
        // What is made by them is their own; what they may break is not.
        if ["/api/v1/companies/{id}", "/api/v1/policies"].contains(&route.path)
            && seeded.below(5) > 0
        {
            continue;
        }
        let body = bad::random(&mut seeded, &desk.good(route, 100 + number));
        let reply = desk.send_json(route, &body).await;
        let what = format!(
            "{number}: {} {} {:?}",
            route.method,
            route.path,
            body.escape_ascii().to_string()
        );
        assert!(!reply.status.is_server_error(), "{what}: {}", reply.status);
        let text = String::from_utf8_lossy(&reply.body);
        assert!(!text.contains("panic"), "{what}: {text}");
        if reply.status.is_client_error() {
            problem(&reply, &what);
        }
    }
    // The server is well afterwards, and its books are in order.
    let reports =
        semilla_server::workflow::trail::verify(desk.world.server().app.store.as_ref()).await;
    assert!(reports.expect("a check").iter().all(|report| report.tampered.is_none()));
    desk.world.http().send("GET", "/readyz", &[], b"").await.expect("an answer").expect(200);
}
