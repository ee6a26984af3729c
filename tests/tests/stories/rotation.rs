//! A new seed for a token that works: the old one is good until the very transaction that proves
//! the new one, and never a moment longer (security 49, 50; domain: rotate).

use std::time::Duration;

use semilla_approver::Phone;
use semilla_approver::http::Response;
use semilla_core::operations::{Cause, RotateCause};
use semilla_core::secret::Seed;
use semilla_tests::asking::{accepted, refused, request_on, sign_as};
use semilla_tests::binding::{ByHand, code, confirm};
use semilla_tests::http::Expect;
use semilla_tests::process::sqlite;
use semilla_tests::world::{Active, World};
use serde_json::{Value, json};

use crate::audit::assert_whole;

/// A token whose new seed is on its phone and not yet proven.
struct Rotating {
    world: World,
    active: Active,
    enrollment: String,
    new: Seed,
    request: ByHand,
}

impl Rotating {
    /// The holder began it on the phone.
    async fn begin() -> Self {
        let (world, active) = World::with_active_token().await;
        let begun = active.phone.rotate(&active.serial, RotateCause::Suspicion).await;
        let enrollment = begun.expect("begun").enrollment.to_string();
        let (request, new) = seed_of(&active.phone, &enrollment).await;
        Self { world, active, enrollment, new, request }
    }

    /// The code of the new seed, now.
    fn new_code(&self) -> String {
        code(&self.new, self.world.now())
    }

    async fn verifies(&self, code: &str) -> bool {
        self.world.company.program.verify(&self.active.token, code).await
    }

    /// Proves the new seed by its code of now.
    async fn prove(&self) -> Response {
        confirm(&self.active.phone, &self.enrollment, &self.new_code()).await
    }

    /// Which of the two seeds is good, each asked in a step of its own.
    async fn good(&self) -> (bool, bool) {
        self.world.clock.advance(Duration::from_secs(300));
        let old = self.verifies(&self.active.code()).await;
        self.world.clock.advance(Duration::from_secs(300));
        (old, self.verifies(&self.new_code()).await)
    }
}

/// Asks for a seed by hand, and opens what comes.
async fn seed_of(phone: &Phone, enrollment: &str) -> (ByHand, Seed) {
    let request = ByHand::ask(phone, enrollment);
    let answer = request.send(phone).await;
    let seed = request.open(phone, &answer).expect("a seed");
    (request, seed)
}

#[tokio::test(flavor = "multi_thread")]
async fn security_49_the_old_seed_is_good_until_the_new_one_is_proven_and_then_dead() {
    let rotating = Rotating::begin().await;
    let (world, company) = (&rotating.world, &rotating.world.company);
    // The new one opens nothing but its own proof.
    assert_eq!(rotating.good().await, (true, false));
    assert_eq!(company.token(&rotating.active.token).await["generation"], 1);
    world.clock.advance(Duration::from_secs(30));
    let (old, new) = (rotating.active.code(), rotating.new_code());
    let recorded = world.trail(company).await.len();
    assert_eq!(accepted(&rotating.prove().await)["generation"], 2);
    let kinds = world.kinds_since(company, recorded).await;
    assert_eq!(kinds, ["otp.checked", "token.rotated"]);
    // In the very step of the proof: neither the old code, never used, nor the one that proved.
    assert!(!rotating.verifies(&old).await);
    assert!(!rotating.verifies(&new).await);
    assert_eq!(rotating.good().await, (false, true));
    let token = company.token(&rotating.active.token).await;
    assert_eq!((&token["generation"], &token["state"]), (&json!(2), &json!("active")));
    let path = format!("/api/v1/tokens/{}/generations", rotating.active.token);
    let generations = company.program.get(&path).await.expect(200);
    let destroyed: Vec<_> = generations["items"].as_array().expect("items").iter().collect();
    assert_eq!(destroyed.len(), 2);
    assert_eq!(destroyed[0]["destroyed_at"], destroyed[1]["live_since"], "one moment");
    assert_eq!(destroyed[1]["destroyed_at"], Value::Null);
    assert_whole(world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn security_49_whatever_fails_while_a_seed_is_proven_exactly_one_is_good() {
    let rotating = Rotating::begin().await;
    let world = &rotating.world;
    let database = world.data().join("semilla.db");
    for (what, trigger) in [
        ("the record", "INSERT ON audit WHEN NEW.kind = 'token.rotated'"),
        ("the token", "UPDATE ON tokens"),
        ("the enrollment", "UPDATE ON enrollments"),
        ("the new generation", "INSERT ON generations"),
        ("the old generation", "UPDATE ON generations"),
        ("the verifier", "UPDATE ON verifiers WHEN NEW.generation = 2"),
    ] {
        let trigger = format!(
            "CREATE TRIGGER fails BEFORE {trigger} BEGIN INSERT INTO no_such_table VALUES (1); END"
        );
        world.clock.advance(Duration::from_secs(300));
        sqlite(&database, &trigger);
        refused(&rotating.prove().await, "unavailable");
        sqlite(&database, "DROP TRIGGER fails");
        assert_eq!(world.company.token(&rotating.active.token).await["generation"], 1, "{what}");
        assert_eq!(rotating.good().await, (true, false), "{what}");
    }
    world.clock.advance(Duration::from_secs(30));
    accepted(&rotating.prove().await);
    assert_eq!(rotating.good().await, (false, true));
    assert_whole(world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn security_49_a_seed_proven_many_times_at_once_goes_live_once() {
    let rotating = Rotating::begin().await;
    let (world, company) = (&rotating.world, &rotating.world.company);
    let recorded = world.trail(company).await.len();
    let proofs = futures_util::future::join_all((0..20).map(|_| rotating.prove())).await;
    let proven = proofs.iter().filter(|answer| answer.is_success());
    assert!(proven.count() >= 1);
    let kinds = world.kinds_since(company, recorded).await;
    assert_eq!(kinds.iter().filter(|kind| *kind == "token.rotated").count(), 1, "{kinds:?}");
    assert_eq!(rotating.good().await, (false, true));
    assert_eq!(company.token(&rotating.active.token).await["generation"], 2);
    assert_whole(world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_seed_that_nobody_proves_expires_and_changes_nothing() {
    let rotating = Rotating::begin().await;
    let (world, company) = (&rotating.world, &rotating.world.company);
    world.clock.advance(Duration::from_secs(24 * 3600));
    refused(&rotating.prove().await, "delivery-expired");
    world.pass(1).await;
    refused(&rotating.prove().await, "delivery-expired");
    refused(&rotating.request.send(&rotating.active.phone).await, "delivery-expired");
    assert_eq!(rotating.good().await, (true, false));
    let token = company.token(&rotating.active.token).await;
    assert_eq!((&token["generation"], &token["enrollment"]), (&json!(1), &Value::Null));
    // The next one has a number of its own: no two seeds ever share one.
    let renewed = rotating.active.phone.renew(&rotating.active.serial, RotateCause::Scheduled);
    assert_eq!(renewed.await.expect("renewed").generation, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_or_a_release_ends_a_rotation_with_its_seed() {
    for release in [false, true] {
        let rotating = Rotating::begin().await;
        let (world, company) = (&rotating.world, &rotating.world.company);
        let token = &rotating.active.token;
        if release {
            let asked = company.ask_for_release(token).await;
            let request = request_on(&rotating.active.administrator).await;
            let approved = rotating.active.administrator.approve(request.id(), &asked.number);
            approved.await.expect("approved");
        } else {
            let block = format!("/api/v1/tokens/{token}/block");
            let cause = json!({"cause": "technical_failure"});
            company.program.post(&block, cause).await.expect(200);
        }
        refused(&rotating.prove().await, "delivery-expired");
        let path = format!("/api/v1/enrollments/{}", rotating.enrollment);
        assert_eq!(company.program.get(&path).await.expect(200)["state"], "cancelled");
        assert_eq!(rotating.good().await, (false, false), "release: {release}");
        if !release {
            let asked = company.ask(token, "unblock", json!({})).await;
            let request = request_on(&rotating.active.administrator).await;
            let approved = rotating.active.administrator.approve(request.id(), &asked.number);
            approved.await.expect("approved");
            assert_eq!(rotating.good().await, (true, false), "the same generation as before");
            refused(&rotating.prove().await, "delivery-expired");
        }
        assert_whole(world).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn security_50_a_token_moves_to_a_new_phone_when_the_old_one_says_so_and_the_new_one_proves()
{
    let (world, active) = World::with_active_token().await;
    let company = &world.company;
    let new = world.another_phone(&world.company, &world.company.laura, &active.phone).await;
    // The new phone has no say in it: the seed is not on it.
    let error = new.rotate(&active.serial, RotateCause::NewPhone).await.expect_err("not its own");
    assert_eq!(error.kind(), "not-found");
    let begun = active.phone.rotate(&active.serial, RotateCause::NewPhone).await.expect("begun");
    let enrollment = begun.enrollment.to_string();
    // It is for the other phone, and not for the one that gives it away.
    assert!(active.phone.enrollments().await.expect("a list").is_empty());
    refused(&ByHand::ask(&active.phone, &enrollment).send(&active.phone).await, "state-conflict");
    assert!(company.program.verify(&active.token, &active.code()).await, "still good");
    world.clock.advance(Duration::from_secs(30));
    let old = active.code();
    assert_eq!(new.enroll_next().await.expect("enrolled").generation, 2);
    assert!(!company.program.verify(&active.token, &old).await);
    world.clock.advance(Duration::from_secs(30));
    assert!(!company.program.verify(&active.token, &active.code()).await, "dead on the old one");
    let code = new.code(&active.serial).expect("a code");
    assert!(company.program.verify(&active.token, code.code.expose()).await);
    let token = company.token(&active.token).await;
    assert_eq!(token["device"], json!(new.raw().device().expect("bound")));
    // The old phone is still hers, and forgets the seed when it hears of it.
    active.phone.sync().await.expect("trusted");
    assert!(active.phone.tokens().expect("a list").is_empty());
    // Losing the old one now costs the token nothing.
    world.revoke(company, &active.phone).await;
    assert_eq!(company.state_of(&active.token).await, "active");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_on_the_same_phone_is_for_that_phone_alone() {
    for cause in [RotateCause::Scheduled, RotateCause::Suspicion] {
        let (world, active) = World::with_active_token().await;
        let other = world.another_phone(&world.company, &world.company.laura, &active.phone).await;
        let begun = active.phone.rotate(&active.serial, cause).await.expect("begun");
        assert!(other.enrollments().await.expect("a list").is_empty());
        let by_hand = ByHand::ask(&other, &begun.enrollment.to_string());
        refused(&by_hand.send(&other).await, "state-conflict");
        assert_eq!(active.phone.enroll_next().await.expect("enrolled").generation, 2);
        let rotated = world.records_since(&world.company, 0, "token.rotated").await;
        assert_eq!(rotated[0]["detail"]["cause"], Cause::Rotate(cause).name());
        assert_eq!(rotated[0]["actor"]["device"]["user"], world.company.laura.as_str());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_that_the_company_asks_for_waits_for_the_holders_phone_with_the_seed() {
    let (world, active) = World::with_active_token().await;
    let company = &world.company;
    let other = world.another_phone(&world.company, &world.company.laura, &active.phone).await;
    let asked = company.ask(&active.token, "rotate", json!({"cause": "scheduled"})).await;
    // Not the administrator's, and not the holder's other one.
    for phone in [&active.administrator, &other] {
        assert!(phone.inbox().await.expect("the inbox").requests.is_empty());
    }
    let request = request_on(&active.phone).await;
    assert_eq!(request.display().title, "Renovar semilla");
    for phone in [&active.administrator, &other] {
        let claims = semilla_tests::asking::approval(phone, &request, &asked.number);
        let text = semilla_tests::asking::sign_answer(phone, claims);
        refused(&phone.raw().respond(&request, text).await.expect("an answer"), "not-found");
    }
    active.phone.approve(request.id(), &asked.number).await.expect("approved");
    assert_eq!(company.operation(&asked.id).await["state"], "executed");
    assert!(company.program.verify(&active.token, &active.code()).await, "the old one, still");
    world.clock.advance(Duration::from_secs(30));
    assert_eq!(active.phone.enroll_next().await.expect("enrolled").generation, 2);
    world.clock.advance(Duration::from_secs(30));
    assert!(company.program.verify(&active.token, &active.code()).await);

    // The holder says no: nothing opens.
    company.ask(&active.token, "rotate", json!({"cause": "suspicion"})).await;
    let request = request_on(&active.phone).await;
    let no = semilla_core::protocol::approval::DenialReason::UserCancelled;
    active.phone.deny(request.id(), no).await.expect("denied");
    assert!(active.phone.enrollments().await.expect("a list").is_empty());
    // The holder's phone is gone: said at once, with what leads on.
    world.revoke(company, &active.phone).await;
    let path = format!("/api/v1/tokens/{}/rotate", active.token);
    let problem = company.program.post(&path, json!({"cause": "suspicion"})).await;
    let problem = problem.refused("state-conflict");
    assert_eq!(problem["allowed"], json!(["unblock", "release"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_by_hand_must_fit_the_token_as_it_is() {
    let (world, active) = World::with_active_token().await;
    let company = &world.company;
    let marta = company.person("marta.paz", "Marta Paz").await;
    let (hers, _, enrollment) = world.assigned(company, &marta).await;
    let stranger = world.enrolled_phone(company, &enrollment).await;
    let raw = active.phone.raw();
    let answer = raw.send("GET", "/device/v1/tokens", None).await.expect("an answer");
    let version = accepted(&answer)["tokens"][0]["state_version"].as_u64().expect("a version");
    let good = |phone: &Phone| {
        let draft = phone.raw().draft().expect("a draft");
        let token = active.token.parse().expect("an id");
        serde_json::to_value(draft.rotate(token, 1, version, "suspicion")).expect("JSON")
    };
    let send = async |phone: &Phone, token: &str, claims: Value| {
        let path = format!("/device/v1/tokens/{token}/rotate");
        let text = sign_as::<semilla_core::protocol::messages::RotateRequest>(phone, claims);
        phone.raw().send_signed(&path, text).await.expect("an answer")
    };
    let recorded = world.trail(company).await.len();
    for (claim, value, problem) in [
        ("generation", json!(0), "state-conflict"),
        ("generation", json!(2), "state-conflict"),
        ("state_version", json!(version + 1), "state-conflict"),
        ("state_version", json!(version - 1), "state-conflict"),
        ("state_version", json!(u64::MAX), "signature-invalid"),
        ("token", json!(hers), "not-found"),
        ("cause", json!("seed_release"), "signature-invalid"),
        ("cause", json!(""), "signature-invalid"),
        ("aud", json!("https://other.example"), "signature-invalid"),
        ("v", json!(2), "signature-invalid"),
    ] {
        let mut claims = good(&active.phone);
        claims[claim] = value.clone();
        let answer = send(&active.phone, &active.token, claims).await;
        refused(&answer, problem);
    }
    // Somebody else's phone, for this token and under its own.
    let mut claims = good(&stranger);
    refused(&send(&stranger, &active.token, claims.clone()).await, "not-found");
    claims["ctr"] = good(&stranger)["ctr"].clone();
    refused(&send(&stranger, &hers, claims).await, "not-found");
    // While something else waits for a phone, and while it is blocked.
    let asked = company.ask_for_release(&active.token).await;
    let mut claims = good(&active.phone);
    claims["state_version"] = json!(version + 1);
    refused(&send(&active.phone, &active.token, claims).await, "state-conflict");
    let path = format!("/api/v1/operations/{}", asked.id);
    company.program.send("DELETE", &path, &[], None).await.expect(200);
    let kinds = world.kinds_since(company, recorded).await;
    assert_eq!(kinds, ["operation.requested", "operation.cancelled"], "nothing else happened");
    // The control, at the version it has now.
    let begun = active.phone.rotate(&active.serial, RotateCause::Suspicion).await;
    assert_eq!(begun.expect("begun").generation, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_opened_again_is_for_the_same_phone_and_the_earlier_one_is_dead() {
    let rotating = Rotating::begin().await;
    let (world, company) = (&rotating.world, &rotating.world.company);
    let other = world.another_phone(company, &company.laura, &rotating.active.phone).await;
    let path = format!("/api/v1/tokens/{}/enrollments", rotating.active.token);
    let opened = company.program.post(&path, json!({})).await.expect(201);
    let enrollment = opened["enrollment"]["id"].as_str().expect("an id").to_owned();
    refused(&rotating.prove().await, "delivery-expired");
    refused(&ByHand::ask(&other, &enrollment).send(&other).await, "state-conflict");
    let (_, seed) = seed_of(&rotating.active.phone, &enrollment).await;
    assert_eq!(rotating.good().await, (true, false));
    refused(
        &confirm(&rotating.active.phone, &enrollment, &rotating.new_code()).await,
        "code-invalid",
    );
    let proof = confirm(&rotating.active.phone, &enrollment, &code(&seed, world.now())).await;
    assert_eq!(accepted(&proof)["generation"], 3);
    assert_eq!(rotating.good().await, (false, false));
    world.clock.advance(Duration::from_secs(300));
    assert!(rotating.verifies(&code(&seed, world.now())).await);
}
