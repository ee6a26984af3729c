//! The flow of the bank's own sheet, from the pool to a phone and back: what a visitor sees first.

use semilla_tests::http::Expect;
use semilla_tests::world::World;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_assigned_enrolled_verified_blocked_unblocked_released_and_enrolled_again() {
    let (world, active) = World::with_active_token().await;
    let program = &world.company.program;
    let token = format!("/api/v1/tokens/{}", active.token);

    let code = active.code();
    assert!(program.verify(&active.token, &code).await);
    assert!(!program.verify(&active.token, &code).await, "a code is accepted once");
    assert!(!program.verify(&active.token, &code).await, "and stays used");

    let blocked = program
        .post(&format!("{token}/block"), json!({"cause": "user_inactive"}))
        .await
        .expect(200);
    assert_eq!(blocked["state"], "blocked");
    world.pass(30).await;
    assert!(
        !program.verify(&active.token, &active.code()).await,
        "a good code of a blocked token is refused"
    );

    let asked = program.post(&format!("{token}/unblock"), json!({})).await.expect(202);
    approve(&world, &active.administrator, &asked).await;
    world.pass(30).await;
    assert!(program.verify(&active.token, &active.code()).await, "the same seed works again");

    let asked = program
        .post(&format!("{token}/release"), json!({"cause": "seed_release"}))
        .await
        .expect(202);
    assert_eq!(asked["state"], "pending");
    approve(&world, &active.administrator, &asked).await;
    let released = program.get(&token).await.expect(200);
    assert_eq!((released["state"].as_str(), released["holder"].as_str()), (Some("company"), None));
    world.pass(30).await;
    assert!(
        !program.verify(&active.token, &active.code()).await,
        "a fresh code of the dead seed is refused"
    );

    program
        .post(&format!("{token}/assign"), json!({"user": world.company.laura}))
        .await
        .expect(201);
    active.phone.enroll_next().await.expect("the enrollment waits in the inbox of a bound phone");
    world.pass(30).await;
    assert!(program.verify(&active.token, &active.code()).await, "the new seed works");
    assert_eq!(program.get(&token).await.expect(200)["generation"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn security_15_a_release_forgives_the_failures_that_blocked_the_token() {
    let (world, active) = World::with_active_token().await;
    let program = &world.company.program;
    let token = format!("/api/v1/tokens/{}", active.token);
    let mut policy = semilla_tests::bodies::policy();
    policy["lockout"] = json!({"wait_from": 1, "wait_seconds": 1, "block_at": 1});
    program.send("PUT", "/api/v1/policies", &[], Some(policy)).await.expect(200);

    let code = active.code();
    let wrong = if code == "00000000" { "00000001" } else { "00000000" };
    assert!(!program.verify(&active.token, wrong).await);
    let blocked = program.get(&token).await.expect(200);
    assert_eq!(
        (&blocked["state"], &blocked["last_cause"]),
        (&json!("blocked"), &json!("too_many_failures"))
    );

    let asked = program
        .post(&format!("{token}/release"), json!({"cause": "seed_release"}))
        .await
        .expect(202);
    approve(&world, &active.administrator, &asked).await;
    let user = json!({"user": world.company.laura});
    program.post(&format!("{token}/assign"), user).await.expect(201);
    active.phone.enroll_next().await.expect("the new seed is proven by its first code");
    world.pass(30).await;
    assert!(program.verify(&active.token, &active.code()).await);
}

/// The administrator reads the number on the portal and types it on the phone.
pub(crate) async fn approve(
    world: &World,
    phone: &semilla_approver::Phone,
    asked: &serde_json::Value,
) {
    let number = asked["match_number"].as_str().expect("a number");
    let inbox = phone.inbox().await.expect("the inbox");
    let request = inbox.requests.first().expect("a request");
    phone.approve(request.id(), number).await.expect("approved");
    let path = format!("/api/v1/operations/{}?wait=5", asked["id"].as_str().expect("an id"));
    let operation = world.company.program.get(&path).await.expect(200);
    assert_eq!(operation["state"], "executed");
}
