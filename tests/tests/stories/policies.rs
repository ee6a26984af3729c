//! What a company may choose: each choice is seen to take effect, and what the bank does not
//! allow is refused where it stands (security 57, 63; domain: policies).

use std::time::Duration;

use semilla_approver::Phone;
use semilla_core::policy::Policy;
use semilla_tests::asking::{refused, request_on};
use semilla_tests::binding::confirm;
use semilla_tests::bodies::{authenticator_app_policy, policy};
use semilla_tests::http::{Expect, Reply};
use semilla_tests::world::{Company, World};
use serde_json::{Value, json};

async fn put(company: &Company, policy: Value) -> Reply {
    company.program.send("PUT", "/api/v1/policies", &[], Some(policy)).await
}

/// A policy that differs in one place from the one that every company begins with.
fn with(pointer: &str, value: Value) -> Value {
    let mut policy = policy();
    *policy.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer}")) = value;
    policy
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_is_read_as_it_was_set_and_what_is_out_of_bounds_is_named() {
    let world = World::begin().await;
    let company = &world.company;
    let begun = company.program.get("/api/v1/policies").await.expect(200);
    assert_eq!(begun, serde_json::to_value(Policy::DEFAULT).expect("JSON"));
    let recorded = world.trail(company).await.len();
    for (pointer, low, high) in [
        ("/approval_seconds", 60, 600),
        ("/enrollment_hours", 1, 168),
        ("/lockout/wait_from", 1, 5),
        ("/lockout/wait_seconds", 1, 3600),
        ("/lockout/block_at", 5, 100),
        ("/profile/app_movil/digits", 6, 8),
        ("/look_ahead", 1, 100),
    ] {
        for bad in [json!(low - 1), json!(high + 1), json!(-1), json!(1.5), json!("5"), Value::Null]
        {
            let problem = put(company, with(pointer, bad.clone())).await.refused("validation");
            let at = problem["errors"][0]["pointer"].as_str().expect("a pointer");
            assert!(
                at == format!("#{pointer}") || bad.is_null() && pointer.starts_with(&at[1..]),
                "{pointer} = {bad}: {at}"
            );
        }
    }
    for bad in [json!(29), json!(31), json!(0), json!(90)] {
        let problem = put(company, with("/profile/app_movil/period", bad)).await;
        let problem = problem.refused("validation");
        assert_eq!(problem["errors"][0]["pointer"], "#/profile/app_movil/period");
    }
    for (pointer, bad) in [
        ("/authorizer", json!("nobody")),
        ("/profile", json!("paper")),
        ("/lockout", json!({"wait_from": 5})),
        ("/profile/app_movil", json!({"digits": 8})),
        ("/profile/app_movil", json!({"digits": 8, "period": 30, "seed": "x"})),
        ("/lockout", json!({"wait_from": 5, "wait_seconds": 5, "block_at": 50, "never": 1})),
    ] {
        let problem = put(company, with(pointer, bad)).await.refused("validation");
        let at = problem["errors"][0]["pointer"].as_str().expect("a pointer").to_owned();
        assert!(at.starts_with(&format!("#{pointer}")), "{pointer}: {at}");
        assert!(at.len() > pointer.len() + 1 || !problem.to_string().contains("not known"), "{at}");
    }
    // All that is wrong is said at once.
    let mut several = with("/approval_seconds", json!(601));
    several["enrollment_hours"] = json!(0);
    several["lockout"] = json!({"wait_from": 6, "wait_seconds": 0, "block_at": 101});
    let problem = put(company, several).await.refused("validation");
    assert_eq!(problem["errors"].as_array().map(Vec::len), Some(5), "{problem}");
    // Nothing of all that was kept, or recorded.
    assert_eq!(company.program.get("/api/v1/policies").await.expect(200), begun);
    assert_eq!(world.trail(company).await.len(), recorded);

    // The controls: every bound itself.
    for (pointer, value) in [
        ("/approval_seconds", 60),
        ("/approval_seconds", 600),
        ("/enrollment_hours", 1),
        ("/enrollment_hours", 168),
        ("/lockout/wait_from", 1),
        ("/lockout/wait_seconds", 3600),
        ("/lockout/block_at", 5),
        ("/lockout/block_at", 100),
        ("/profile/app_movil/digits", 6),
        ("/profile/app_movil/period", 40),
        ("/profile/app_movil/period", 60),
    ] {
        let chosen = with(pointer, json!(value));
        assert_eq!(put(company, chosen.clone()).await.expect(200), chosen);
        assert_eq!(company.program.get("/api/v1/policies").await.expect(200), chosen);
    }
    let changed = world.records_since(company, recorded, "policy.changed").await;
    assert_eq!(changed.len(), 11);
    let last: Value = changed[10]["detail"]["policy"]
        .as_str()
        .and_then(|text| serde_json::from_str(text).ok())
        .expect("what was chosen");
    assert_eq!(last, with("/profile/app_movil/period", json!(60)));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_who_change_the_policy_the_second_is_told_and_decides_anew() {
    let world = World::begin().await;
    let company = &world.company;
    let change = async |etag: &str, seconds: u32| {
        let policy = Some(with("/approval_seconds", json!(seconds)));
        company.program.send("PUT", "/api/v1/policies", &[("if-match", etag)], policy).await
    };
    let etag = company.program.get("/api/v1/policies").await.header("etag").to_owned();
    let first = change(&etag, 100).await;
    let after = first.header("etag").to_owned();
    first.expect(200);
    assert_ne!(after, etag);
    change(&etag, 200).await.refused("precondition-failed");
    change("\"x\"", 200).await.refused("precondition-failed");
    let read = company.program.get("/api/v1/policies").await;
    assert_eq!(read.header("etag"), after);
    assert_eq!(read.expect(200)["approval_seconds"], 100);
    change(&after, 200).await.expect(200);
    change("*", 300).await.expect(200);
    assert_eq!(company.program.get("/api/v1/policies").await.expect(200)["approval_seconds"], 300);
    // It is this company's alone.
    let other = world.another_company("Industrias del Sur S.A.").await;
    company.choose(|policy| policy["enrollment_hours"] = json!(7)).await;
    assert_eq!(other.program.get("/api/v1/policies").await.expect(200), policy());
}

#[tokio::test(flavor = "multi_thread")]
async fn security_63_four_eyes_can_be_chosen_where_two_administrators_have_phones() {
    let (world, active) = World::with_active_token().await;
    let company = &world.company;
    let four_eyes = with("/authorizer", json!("another_administrator"));
    let refused_for = async |why: &str| {
        let problem = put(company, four_eyes.clone()).await.refused("validation");
        assert_eq!(problem["errors"][0]["pointer"], "#/authorizer", "{why}");
    };
    refused_for("there is one administrator").await;
    let rosa = world.another_administrator(company, "rosa.mejia").await;
    refused_for("the second has no phone").await;
    let rosas = world.bound_phone(company, &rosa).await;
    company.set_active(&rosa, false).await;
    refused_for("the second takes no part").await;
    company.set_active(&rosa, true).await;
    put(company, four_eyes.clone()).await.expect(200);
    let asked = company.ask_for_release(&active.token).await;
    assert!(active.administrator.inbox().await.expect("the inbox").requests.is_empty());
    // What waits is under the policy it was asked under; what is asked next under the next one.
    put(company, policy()).await.expect(200);
    assert!(active.administrator.inbox().await.expect("the inbox").requests.is_empty());
    let request = request_on(&rosas).await;
    rosas.approve(request.id(), &asked.number).await.expect("approved");
    let marta = company.person("marta.paz", "Marta Paz").await;
    let (token, _, _) = world.assigned(company, &marta).await;
    let asked = company.ask_for_release(&token).await;
    assert!(rosas.inbox().await.expect("the inbox").requests.is_empty());
    let request = request_on(&active.administrator).await;
    active.administrator.approve(request.id(), &asked.number).await.expect("approved");
    // Another person's phone, whose person cannot take part, is none.
    rosas.leave().await.expect("gone");
    refused_for("the second has lost the phone").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn security_57_the_time_to_answer_is_the_companys_from_a_minute_to_ten() {
    for seconds in [60, 600] {
        let (world, active) = World::with_active_token().await;
        let company = &world.company;
        // What waits already keeps its time.
        let before = company.ask_for_release(&active.token).await;
        let ends = company.operation(&before.id).await["expires_at"].clone();
        company.choose(|policy| policy["approval_seconds"] = json!(seconds)).await;
        assert_eq!(company.operation(&before.id).await["expires_at"], ends);
        let path = format!("/api/v1/operations/{}", before.id);
        company.program.send("DELETE", &path, &[], None).await.expect(200);

        let asked = company.ask_for_release(&active.token).await;
        let request = request_on(&active.administrator).await;
        let claims = request.claims();
        assert_eq!(claims.exp.since(claims.iat), Duration::from_secs(seconds));
        world.pass(seconds - 1).await;
        assert_eq!(company.operation(&asked.id).await["state"], "pending");
        world.pass(1).await;
        assert_eq!(company.operation(&asked.id).await["state"], "expired");
        let late = active.administrator.approve_request(&request, &asked.number).await;
        late.expect_err("too late");
        let asked = company.ask_for_release(&active.token).await;
        let request = request_on(&active.administrator).await;
        world.pass(seconds - 1).await;
        active.administrator.approve(request.id(), &asked.number).await.expect("in time");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_to_enroll_is_the_companys() {
    let world = World::begin().await;
    let company = &world.company;
    let phone = world.bound_phone(company, &company.laura).await;
    company.choose(|policy| policy["enrollment_hours"] = json!(1)).await;
    let (token, _, enrollment) = world.assigned(company, &company.laura).await;
    world.pass(3599).await;
    assert_eq!(phone.enrollments().await.expect("a list").len(), 1);
    world.pass(1).await;
    assert!(phone.enrollments().await.expect("a list").is_empty());
    let seen = company.program.get(&format!("/api/v1/enrollments/{enrollment}")).await;
    assert_eq!(seen.expect(200)["state"], "expired");
    company.choose(|policy| policy["enrollment_hours"] = json!(168)).await;
    let path = format!("/api/v1/tokens/{token}/enrollments");
    company.program.post(&path, json!({})).await.expect(201);
    world.pass(168 * 3600 - 1).await;
    phone.enroll_next().await.expect("in the last second");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_wrong_codes_lead_to_is_the_companys_from_the_next_code_on() {
    let (world, active) = World::with_active_token().await;
    let company = &world.company;
    let wrong = async || {
        let good = active.code();
        let bad = if good == "00000000" { "00000001" } else { "00000000" };
        assert!(!company.program.verify(&active.token, bad).await);
    };
    company
        .choose(|policy| {
            policy["lockout"] = json!({"wait_from": 2, "wait_seconds": 100, "block_at": 4});
        })
        .await;
    wrong().await;
    assert!(company.program.verify(&active.token, &active.code()).await, "one is forgiven");
    world.clock.advance(Duration::from_secs(30));
    wrong().await;
    wrong().await;
    let recorded = world.trail(company).await.len();
    world.clock.advance(Duration::from_secs(199));
    assert!(!company.program.verify(&active.token, &active.code()).await, "2 times 100 seconds");
    let unseen = world.records_since(company, recorded, "otp.checked").await;
    assert_eq!(unseen.len(), 1);
    world.clock.advance(Duration::from_secs(1));
    assert!(company.program.verify(&active.token, &active.code()).await, "and then it counts");
    for _ in 0..4 {
        world.clock.advance(Duration::from_secs(400));
        wrong().await;
    }
    let token = company.token(&active.token).await;
    assert_eq!(
        (&token["state"], &token["last_cause"]),
        (&json!("blocked"), &json!("too_many_failures"))
    );
    // A company that allows more from now on.
    company.choose(|policy| policy["lockout"]["block_at"] = json!(100)).await;
    let asked = company.ask(&active.token, "unblock", json!({})).await;
    let request = request_on(&active.administrator).await;
    active.administrator.approve(request.id(), &asked.number).await.expect("approved");
    world.clock.advance(Duration::from_secs(400));
    assert!(company.program.verify(&active.token, &active.code()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_profile_is_the_companys_for_the_next_seed_and_no_earlier_one() {
    let (world, active) = World::with_active_token().await;
    let company = &world.company;
    for (digits, period) in [(6, 60), (7, 40)] {
        company
            .choose(|policy| {
                policy["profile"] = json!({"app_movil": {"digits": digits, "period": period}});
            })
            .await;
        let user = company.person(&format!("persona.{digits}"), "Otra Persona").await;
        let (token, serial, enrollment) = world.assigned(company, &user).await;
        let phone = world.enrolled_phone(company, &enrollment).await;
        world.clock.advance(Duration::from_secs(60));
        let shown = phone.code(&serial).expect("a code");
        assert_eq!(shown.code.expose().len(), digits);
        assert_eq!(u64::from(shown.period), period);
        assert!(company.program.verify(&token, shown.code.expose()).await);
        // One step of that length is one step.
        world.clock.advance(Duration::from_secs(period));
        let next = phone.code(&serial).expect("a code");
        assert_eq!(next.step.0, shown.step.0 + 1);
        assert!(company.program.verify(&token, next.code.expose()).await);
        // The seed of before goes on as it was.
        assert_eq!(active.code().len(), 8);
        assert!(company.program.verify(&active.token, &active.code()).await);
    }
    // An enrollment that is open keeps the profile it was opened with.
    let user = company.person("persona.8", "Otra Persona").await;
    let (_, _, enrollment) = world.assigned(company, &user).await;
    put(company, authenticator_app_policy()).await.expect(200);
    let path = format!("/api/v1/enrollments/{enrollment}/otpauth");
    company.program.post(&path, json!({})).await.refused("state-conflict");
    let phone = world.enrolled_phone(company, &enrollment).await;
    assert_eq!(phone.tokens().expect("a list").len(), 1);
    // The next one is the app's, and no phone of ours gets it.
    let user = company.person("persona.9", "Otra Persona").await;
    let phone: Phone = world.bound_phone(company, &user).await;
    let (_, _, enrollment) = world.assigned(company, &user).await;
    assert!(phone.enrollments().await.expect("a list").is_empty());
    let path = format!("/api/v1/enrollments/{enrollment}/otpauth");
    company.program.post(&path, json!({})).await.expect(200);
    refused(&confirm(&phone, &enrollment, "123456").await, "not-found");
}
