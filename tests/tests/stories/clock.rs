//! The clock: what happens when it jumps, goes back or comes to the end of 32 bits (security 8,
//! 110, 111).

use std::time::Duration;

use semilla_core::otp::Step;
use semilla_core::protocol::approval::DenialReason;
use semilla_tests::asking::request_on;
use semilla_tests::http::Expect;
use semilla_tests::world::World;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn security_110_after_a_jump_codes_are_refused_until_the_clock_is_right_again() {
    let (mut world, active) = World::with_active_token().await;
    let from = world.trail_length_of_bank().await;
    world.clock.jump(20);
    assert!(world.company.program.verify(&active.token, &active.code()).await, "20 s is not much");
    assert_eq!(world.bank_records_since(from, "alarm.clock_stepped").await.len(), 1);
    world.clock.jump(3600);
    let body = json!({"token": active.token, "code": active.code()});
    world.company.program.post("/api/v1/otp/verify", body.clone()).await.refused("unavailable");
    assert_eq!(world.bank_records_since(from, "alarm.clock_stepped").await.len(), 2);
    world.clock.jump(-3600);
    let again = world.company.program.post("/api/v1/otp/verify", body).await;
    again.refused("unavailable");
    // Meanwhile things were recorded in the future: somebody has to look at the clock.
    world.settings.clock_confirmed = true;
    world.restart().await;
    assert_eq!(world.bank_records_since(from, "clock.confirmed").await.len(), 1);
    world.clock.advance(Duration::from_secs(60));
    assert!(world.company.program.verify(&active.token, &active.code()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn security_110_and_111_a_clock_behind_the_record_is_not_believed_and_reopens_nothing() {
    let (mut world, active) = World::with_active_token().await;
    let program = &world.company.program;
    let code = active.code();
    assert!(program.verify(&active.token, &code).await);
    let release = format!("/api/v1/tokens/{}/release", active.token);
    let asked = program.post(&release, json!({"cause": "seed_release"})).await.expect(202);
    let request = request_on(&active.administrator).await;
    world.pass(600).await;
    let operation = format!("/api/v1/operations/{}", asked["id"].as_str().expect("an id"));
    assert_eq!(world.company.program.get(&operation).await.expect(200)["state"], "expired");
    for _ in 0..5 {
        assert!(!world.company.program.verify(&active.token, "00000000").await);
    }
    // Back to when the code was live, the request pending and nothing locked.
    world.stop().await;
    world.clock.jump(-600);
    world.restart().await;
    let program = &world.company.program;
    let body = json!({"token": active.token, "code": code});
    program.post("/api/v1/otp/verify", body).await.refused("unavailable");
    assert_eq!(program.get(&operation).await.expect(200)["state"], "expired");
    let denied = active.administrator.deny_request(&request, DenialReason::UserCancelled).await;
    assert!(denied.is_err(), "what expired stays expired");

    // Where the clock is a little behind only, it is believed, and the used step stays used.
    world.stop().await;
    world.clock.jump(600 - 20);
    world.restart().await;
    let step = Step(world.now().seconds() / 30);
    let code = active.phone.raw().code_at(&active.serial, step).expect("a code");
    assert!(
        !world.company.program.verify(&active.token, code.code.expose()).await,
        "the five failures still make it wait"
    );
    world.clock.advance(Duration::from_secs(120));
    assert!(world.company.program.verify(&active.token, &active.code()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn security_8_the_years_2038_and_2106_are_years_like_others() {
    for end in [i64::from(i32::MAX), i64::from(u32::MAX)] {
        let (mut world, active) = World::with_active_token().await;
        let now = i64::try_from(world.now().seconds()).expect("a time");
        // On both sides of the last second that fits.
        world.stop().await;
        world.clock.jump(end - now - 15);
        world.restart().await;
        for _ in 0..3 {
            assert!(world.company.program.verify(&active.token, &active.code()).await);
            world.clock.advance(Duration::from_secs(30));
        }
    }
}
