//! How a seed comes to one phone and to nobody else: a delivery that one phone alone can open, a
//! code that proves it, and the one way on which a person sees it (security 37, 38, 48, 49, 52).

use std::time::Duration;

use semilla_approver::Phone;
use semilla_core::base64url;
use semilla_core::otpauth::KeyUri;
use semilla_core::protocol::messages::{Bind, Enroll, KeyChange};
use semilla_core::secret::Seed;
use semilla_core::time::Timestamp;
use semilla_tests::asking::{accepted, new_key, refused, sign_as, sign_with};
use semilla_tests::binding::{Binder, ByHand, code, confirm};
use semilla_tests::bodies::authenticator_app_policy;
use semilla_tests::canary::{Canary, found};
use semilla_tests::http::Expect;
use semilla_tests::places::{Places, has_id};
use semilla_tests::world::{COMPANY_SCOPES, World};
use serde_json::{Value, json};

use crate::audit::assert_whole;

/// Laura with a bound phone and a token that waits to be enrolled.
struct Assigned {
    world: World,
    phone: Phone,
    token: String,
    enrollment: String,
}

impl Assigned {
    async fn begin() -> Self {
        let world = World::begin().await;
        let phone = world.bound_phone(&world.company, &world.company.laura).await;
        let (token, _, enrollment) = world.assigned(&world.company, &world.company.laura).await;
        Self { world, phone, token, enrollment }
    }

    /// Asks for the seed by hand and opens what comes.
    async fn seed(&self) -> (ByHand, Seed) {
        let by_hand = ByHand::ask(&self.phone, &self.enrollment);
        let answer = by_hand.send(&self.phone).await;
        let seed = by_hand.open(&self.phone, &answer).expect("a seed");
        (by_hand, seed)
    }

    async fn fetch(&self, phone: &Phone) -> semilla_approver::http::Response {
        let path = format!("/device/v1/enrollments/{}", self.enrollment);
        phone.raw().send("GET", &path, None).await.expect("an answer")
    }

    async fn verifies(&self, code: &str) -> bool {
        self.world.company.program.verify(&self.token, code).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn security_37_a_seed_is_for_the_phone_that_asked_first_and_for_no_other() {
    let stage = Assigned::begin().await;
    let world = &stage.world;
    let company = &world.company;
    // A second phone of hers, and somebody else's.
    let second = world.another_phone(company, &company.laura, &stage.phone).await;
    let marta = company.person("marta.paz", "Marta Paz").await;
    let stranger = world.bound_phone(company, &marta).await;

    assert_eq!(second.enrollments().await.expect("a list").len(), 1, "either may");
    refused(&ByHand::ask(&stranger, &stage.enrollment).send(&stranger).await, "not-found");
    refused(&stage.fetch(&stage.phone).await, "not-found");
    let by_hand = ByHand::ask(&stage.phone, &stage.enrollment);
    let first = by_hand.send(&stage.phone).await;
    let seed = by_hand.open(&stage.phone, &first).expect("a seed");
    assert_eq!(seed.expose().len(), 32);
    assert_eq!(first.header("cache-control"), Some("no-store"));

    // The same bytes for the same phone, asked either way, as often as it likes.
    for _ in 0..2 {
        assert_eq!(*stage.fetch(&stage.phone).await.body, *first.body);
        assert_eq!(*by_hand.send(&stage.phone).await.body, *first.body);
    }
    // Nothing for anybody else, nor for the same phone with another request.
    for other in [&second, &stranger] {
        refused(&stage.fetch(other).await, "not-found");
    }
    refused(&ByHand::ask(&second, &stage.enrollment).send(&second).await, "state-conflict");
    refused(&ByHand::ask(&stranger, &stage.enrollment).send(&stranger).await, "not-found");
    let again = ByHand::ask(&stage.phone, &stage.enrollment);
    refused(&again.send(&stage.phone).await, "state-conflict");
    assert!(second.enrollments().await.expect("a list").is_empty());
    // What passed opens with the one key it was sealed to, for the one request it answers.
    assert!(again.open(&stage.phone, &first).is_none());
    assert!(by_hand.open(&second, &first).is_none());

    // Confirmed: it is delivered no more.
    let proof = code(&seed, world.now());
    refused(&confirm(&second, &stage.enrollment, &proof).await, "not-found");
    accepted(&confirm(&stage.phone, &stage.enrollment, &proof).await);
    refused(&stage.fetch(&stage.phone).await, "delivery-expired");
    refused(&by_hand.send(&stage.phone).await, "delivery-expired");
}

#[tokio::test(flavor = "multi_thread")]
async fn security_37_nobody_but_the_phone_is_ever_shown_the_seed() {
    let stage = Assigned::begin().await;
    let world = &stage.world;
    let company = &world.company;
    let (_, seed) = stage.seed().await;
    let canaries = [Canary::bytes("the seed", seed.expose())];
    let look = async |when: &str| {
        let places = Places::nowhere()
            .with("tokens", &stage.token)
            .with("enrollments", &stage.enrollment)
            .with("users", &company.laura)
            .with("companies", &company.id)
            .with("devices", &stage.phone.raw().device().expect("bound").to_string());
        let mut seen = 0;
        for route in semilla_server::http::routes() {
            let streams = route.path == "/api/v1/events" || route.path == "/device/v1/stream";
            if route.method.as_str() != "GET" || streams {
                continue;
            }
            let path = places.at(route.path);
            for program in [&company.program, &world.operator] {
                let reply = program.get(&path).await;
                assert!(found(&canaries, &reply.body).is_empty(), "{path} {when}");
                seen += usize::from(reply.status.is_success() && has_id(route.path));
            }
        }
        assert!(seen >= 5, "only {seen} of its own things were seen {when}");
        let trail = json!(world.trail(company).await).to_string();
        assert!(found(&canaries, trail.as_bytes()).is_empty(), "{when}");
    };
    look("while it is delivered").await;
    let proof = code(&seed, world.now());
    accepted(&confirm(&stage.phone, &stage.enrollment, &proof).await);
    look("while it is live").await;
    let issued = format!("/api/v1/tokens/{}/enrollments", stage.token);
    company.program.post(&issued, json!({})).await.refused("state-conflict");
    let deliver = format!("/api/v1/enrollments/{}", stage.enrollment);
    for way in ["activation", "otpauth"] {
        let reply = company.program.post(&format!("{deliver}/{way}"), json!({})).await;
        assert!(found(&canaries, &reply.body).is_empty());
        reply.refused("delivery-expired");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn security_38_no_address_carries_a_seed_and_no_answer_is_kept() {
    let world = World::begin().await;
    let company = &world.company;
    let (_, _, enrollment) = world.assigned(company, &company.laura).await;
    let path = format!("/api/v1/enrollments/{enrollment}/activation");
    for way in ["activation", "otpauth", "confirm"] {
        let path = format!("/api/v1/enrollments/{enrollment}/{way}");
        company.program.get(&path).await.refused("method-not-allowed");
    }
    let reply = company.program.post(&path, json!({})).await;
    assert_eq!(reply.header("cache-control"), "no-store");
    let activation = reply.expect(201);
    let uri = activation["uri"].as_str().expect("a uri");
    let typed = activation["code"].as_str().expect("a code");
    let server = world.server().issuer().replace(':', "%3A").replace('/', "%2F");
    assert_eq!(uri, format!("semilla://enroll?server={server}&code={typed}"));
    let qr = activation["qr_svg"].as_str().expect("an image");
    assert!(qr.starts_with("<svg") && !qr.contains("http://127") && !qr.contains(typed));
}

#[tokio::test(flavor = "multi_thread")]
async fn security_48_a_seed_works_once_a_code_has_proven_it_and_not_before() {
    let stage = Assigned::begin().await;
    let world = &stage.world;
    let (_, seed) = stage.seed().await;
    let now = code(&seed, world.now());
    assert!(!stage.verifies(&now).await, "delivered is not live");
    assert_eq!(world.company.state_of(&stage.token).await, "assigned");
    // Wrong, and too old: neither proves anything.
    let wrong = if now == "00000000" { "00000001" } else { "00000000" };
    let hour_ago = Timestamp::from_milliseconds(world.now().milliseconds() - 3_600_000);
    for bad in [wrong.to_owned(), code(&seed, hour_ago)] {
        refused(&confirm(&stage.phone, &stage.enrollment, &bad).await, "code-invalid");
    }
    assert_eq!(world.company.state_of(&stage.token).await, "assigned");
    let confirmed = accepted(&confirm(&stage.phone, &stage.enrollment, &now).await);
    assert_eq!(confirmed["generation"], 1);
    assert_eq!(world.company.state_of(&stage.token).await, "active");
    // Security 26: what proved it is used.
    assert!(!stage.verifies(&now).await);
    world.clock.advance(Duration::from_secs(30));
    assert!(stage.verifies(&code(&seed, world.now())).await);
    // A lost answer: the same phone is told the same, and nothing happens twice.
    let recorded = world.trail(&world.company).await.len();
    let again = accepted(&confirm(&stage.phone, &stage.enrollment, &now).await);
    assert_eq!(again, confirmed);
    assert_eq!(world.trail(&world.company).await.len(), recorded);
}

#[tokio::test(flavor = "multi_thread")]
async fn security_48_what_nobody_proved_in_time_expires_and_leads_nowhere() {
    let stage = Assigned::begin().await;
    let (world, company) = (&stage.world, &stage.world.company);
    let (by_hand, seed) = stage.seed().await;
    let day = 24 * 3600;
    world.clock.advance(Duration::from_secs(day - 1));
    assert_eq!(stage.phone.enrollments().await.expect("a list").len(), 1);
    accepted(&stage.fetch(&stage.phone).await);
    // The very second, before any chore has run.
    world.clock.advance(Duration::from_secs(1));
    let proof = code(&seed, world.now());
    assert!(stage.phone.enrollments().await.expect("a list").is_empty());
    refused(&confirm(&stage.phone, &stage.enrollment, &proof).await, "delivery-expired");
    refused(&stage.fetch(&stage.phone).await, "delivery-expired");
    refused(&by_hand.send(&stage.phone).await, "delivery-expired");
    let recorded = world.trail(company).await.len();
    world.pass(1).await;
    assert_eq!(world.kinds_since(company, recorded).await, ["enrollment.expired"]);
    let seen = company.program.get(&format!("/api/v1/enrollments/{}", stage.enrollment)).await;
    assert_eq!(seen.expect(200)["state"], "expired");
    assert_eq!(company.state_of(&stage.token).await, "assigned");
    assert!(!stage.verifies(&code(&seed, world.now())).await);
    // The control: the administrator opens another, and that one works.
    let path = format!("/api/v1/tokens/{}/enrollments", stage.token);
    company.program.post(&path, json!({})).await.expect(201);
    assert_eq!(stage.phone.enroll_next().await.expect("enrolled").generation, 2);
    assert_whole(world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn security_49_another_enrollment_kills_the_one_before_with_its_seed() {
    let stage = Assigned::begin().await;
    let (world, company) = (&stage.world, &stage.world.company);
    let (by_hand, seed) = stage.seed().await;
    let path = format!("/api/v1/tokens/{}/enrollments", stage.token);
    let opened = company.program.post(&path, json!({})).await.expect(201);
    let second = opened["enrollment"]["id"].as_str().expect("an id").to_owned();
    assert_eq!(opened["enrollment"]["generation"], 2);
    let proof = code(&seed, world.now());
    let problem =
        refused(&confirm(&stage.phone, &stage.enrollment, &proof).await, "delivery-expired");
    assert_eq!(problem["state"], "cancelled");
    refused(&by_hand.send(&stage.phone).await, "delivery-expired");
    refused(&confirm(&stage.phone, &second, &proof).await, "state-conflict");
    let again = Assigned { enrollment: second, ..stage };
    let (_, new_seed) = again.seed().await;
    assert_ne!(new_seed.expose(), seed.expose());
    let world = &again.world;
    let old_proof = confirm(&again.phone, &again.enrollment, &code(&seed, world.now())).await;
    refused(&old_proof, "code-invalid");
    let proof = confirm(&again.phone, &again.enrollment, &code(&new_seed, world.now())).await;
    assert_eq!(accepted(&proof)["generation"], 2);
    world.clock.advance(Duration::from_secs(30));
    assert!(!again.verifies(&code(&seed, world.now())).await);
    assert!(again.verifies(&code(&new_seed, world.now())).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn security_52_a_weak_key_is_no_key_wherever_one_is_given() {
    let stage = Assigned::begin().await;
    let world = &stage.world;
    let zero = base64url::encode(&[0; 32]);
    let one = base64url::encode(&[&[0; 31][..], &[1]].concat());
    let prime = "_____wAAAAEAAAAAAAAAAAAAAAD_______________8";
    let good = json!(new_key().public());
    let with = |changes: &[(&str, Value)]| {
        let mut key = good.clone();
        changes.iter().for_each(|(name, value)| key[*name] = value.clone());
        key
    };
    let (x, y) = (good["x"].clone(), good["y"].clone());
    let short = json!(x.as_str().map(|x| &x[..42]));
    let weak = [
        ("no point", with(&[("x", json!(one)), ("y", json!(one))])),
        ("the origin", with(&[("x", json!(zero)), ("y", json!(zero))])),
        ("beyond the field", with(&[("x", json!(prime))])),
        ("swapped", with(&[("x", y), ("y", x)])),
        ("short", with(&[("x", short)])),
        ("empty", with(&[("x", json!("")), ("y", json!(""))])),
        ("of another curve", with(&[("crv", json!("P-384"))])),
        ("of another curve's name", with(&[("crv", json!("secp256k1"))])),
        ("of another kind", json!({"kty": "oct", "k": zero})),
        ("an OKP key of small order", json!({"kty": "OKP", "crv": "X25519", "x": zero})),
        ("with its private half", with(&[("d", json!(one))])),
        ("for encryption", with(&[("use", json!("enc"))])),
        ("nothing", Value::Null),
    ];
    let (typed, _) = world.company.activation_for(&world.company.administrator).await;
    let binder = Binder::new(world, &typed);
    let nonce = binder.nonce().await;
    let bind = sign_with::<Bind>(&binder.key, binder.claims(nonce));
    let parts: Vec<_> = bind.split('.').collect();
    for (what, key) in weak {
        let header = json!({"typ": "bind+jwt", "alg": "ES256", "jwk": key});
        let header = base64url::encode(header.to_string().as_bytes());
        let reply = binder.post(format!("{header}.{}.{}", parts[1], parts[2])).await;
        assert_eq!(reply.problem(), "signature-invalid", "bind: {what}");

        let by_hand = ByHand::ask(&stage.phone, &stage.enrollment);
        let payload = base64url::decode(by_hand.request.split('.').nth(1).expect("a payload"));
        let mut claims: Value = serde_json::from_slice(&payload.expect("base64url")).expect("JSON");
        claims["seed_kem"] = key.clone();
        let raw = stage.phone.raw();
        let text = sign_as::<Enroll>(&stage.phone, claims);
        let answer = raw.send_signed("/device/v1/enrollments", text).await.expect("an answer");
        let detail = refused(&answer, "signature-invalid")["detail"].clone();
        assert_eq!(detail, "Refused: the message is malformed.", "enroll: {what}");

        let draft = raw.draft().expect("a draft");
        let change = draft.key_change(new_key().public().clone(), "a.b.c".to_owned());
        let mut claims = serde_json::to_value(change).expect("JSON");
        claims["new_key"] = key;
        let text = sign_as::<KeyChange>(&stage.phone, claims);
        let answer = raw.send_signed("/device/v1/keys", text).await.expect("an answer");
        let detail = refused(&answer, "signature-invalid")["detail"].clone();
        assert_eq!(detail, "Refused: the message is malformed.", "keys: {what}");
    }
    // The controls: both messages with their own keys.
    binder.post(bind).await.expect(201);
    stage.seed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authenticator_app_is_shown_its_seed_once_and_the_audit_says_so() {
    let world = World::begin().await;
    let company = &world.company;
    let program = &company.program;
    let policy = authenticator_app_policy();
    program.send("PUT", "/api/v1/policies", &[], Some(policy)).await.expect(200);
    let phone = world.bound_phone(company, &company.laura).await;
    let (token, serial, enrollment) = world.assigned(company, &company.laura).await;
    let path = format!("/api/v1/enrollments/{enrollment}");
    let recorded = world.trail(company).await.len();

    // Not by the way of the AppMóvil, and by nobody without the scope.
    program.post(&format!("{path}/activation"), json!({})).await.refused("state-conflict");
    assert!(phone.enrollments().await.expect("a list").is_empty());
    refused(&ByHand::ask(&phone, &enrollment).send(&phone).await, "state-conflict");
    let without = COMPANY_SCOPES.into_iter().filter(|scope| *scope != "enrollments:deliver");
    let clients = format!("/api/v1/companies/{}/clients", company.id);
    let body = json!({"name": "Sin entrega", "scopes": without.collect::<Vec<_>>(),
        "askers": [company.administrator]});
    let client = world.operator.post(&clients, body).await.expect(201);
    let other = semilla_tests::http::Program::of(world.http(), &client);
    for way in ["otpauth", "activation"] {
        other.post(&format!("{path}/{way}"), json!({})).await.refused("forbidden");
    }
    let body = json!({"code": "123456"});
    other.post(&format!("{path}/confirm"), body.clone()).await.refused("forbidden");
    program.post(&format!("{path}/confirm"), body).await.refused("state-conflict");

    let reply = program.post(&format!("{path}/otpauth"), json!({})).await;
    assert_eq!(reply.header("cache-control"), "no-store");
    let shown = reply.expect(200);
    let uri = shown["uri"].as_str().expect("a uri");
    let label = format!("otpauth://totp/Comercial%20Andina%20S.A.S.:{serial}?secret=");
    assert!(uri.starts_with(&label), "{uri}");
    let (_, parameters) = uri.split_once('?').expect("parameters");
    assert!(!parameters.contains("%3D") && !uri.contains('+'));
    assert!(
        parameters
            .ends_with("&issuer=Comercial%20Andina%20S.A.S.&algorithm=SHA1&digits=6&period=30")
    );
    let key = KeyUri::parse(uri).expect("what apps read");
    assert_eq!(key.seed.expose().len(), 20);
    program.post(&format!("{path}/otpauth"), json!({})).await.refused("delivery-expired");
    let code = |now: Timestamp| {
        let parameters = semilla_core::otp::Parameters::AUTHENTICATOR_APP;
        parameters.code(&key.seed, parameters.step_at(now)).expose().to_owned()
    };

    // Not live before one code has proven it; wrong ones count, and in the end make it wait.
    let now = code(world.now());
    assert!(!program.verify(&token, &now).await);
    let wrong = if now == "000000" { "000001" } else { "000000" };
    for _ in 0..5 {
        let body = json!({"code": wrong});
        program.post(&format!("{path}/confirm"), body).await.refused("code-invalid");
    }
    let reply = program.post(&format!("{path}/confirm"), json!({"code": now})).await;
    assert_eq!(reply.header("retry-after"), "25");
    reply.refused("token-locked");
    world.clock.advance(Duration::from_secs(30));
    let now = code(world.now());
    let confirmed = program.post(&format!("{path}/confirm"), json!({"code": now})).await;
    assert_eq!(confirmed.expect(200)["generation"], 1);
    assert!(!program.verify(&token, &now).await, "what proved it is used");
    world.clock.advance(Duration::from_secs(30));
    assert!(program.verify(&token, &code(world.now())).await);
    for way in ["otpauth", "activation", "confirm"] {
        let body = if way == "confirm" { json!({"code": "123456"}) } else { json!({}) };
        program.post(&format!("{path}/{way}"), body).await.refused("delivery-expired");
    }

    // It says whose app saw it, and never what.
    let records = world.records_since(company, recorded, "enrollment.seed_shown").await;
    assert_eq!(records.len(), 1);
    assert_eq!(records[0]["actor"]["client"]["client"], company.program.0.id.as_str());
    let enrolled = world.records_since(company, recorded, "token.enrolled").await;
    assert_eq!(enrolled[0]["detail"]["custody"], "authenticator_app");
    let trail = json!(world.trail(company).await).to_string();
    assert!(found(&[Canary::bytes("the seed", key.seed.expose())], trail.as_bytes()).is_empty());
    let generations = program.get(&format!("/api/v1/tokens/{token}/generations")).await.expect(200);
    assert_eq!(generations["items"][0]["device"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn security_37_a_seed_that_many_ask_for_at_once_is_made_for_one() {
    let stage = Assigned::begin().await;
    let (world, company) = (&stage.world, &stage.world.company);
    let second = world.another_phone(company, &company.laura, &stage.phone).await;
    let phones = [&stage.phone, &second];
    let asked: Vec<_> = (0..20)
        .map(|place| (phones[place % 2], ByHand::ask(phones[place % 2], &stage.enrollment)))
        .collect();
    let sent = asked.iter().map(|(phone, by_hand)| by_hand.send(phone));
    let answers = futures_util::future::join_all(sent).await;
    let mut seeds = Vec::new();
    for ((phone, by_hand), answer) in asked.iter().zip(&answers) {
        if answer.is_success() {
            seeds.push((*phone, by_hand.open(phone, answer).expect("a seed")));
        } else {
            refused(answer, "state-conflict");
        }
    }
    assert_eq!(seeds.len(), 1);
    let (phone, seed) = &seeds[0];
    accepted(&confirm(phone, &stage.enrollment, &code(seed, world.now())).await);
    let kinds = world.kinds_since(company, 0).await;
    assert_eq!(kinds.iter().filter(|kind| *kind == "enrollment.delivered").count(), 1);
    assert_whole(world).await;
}
