//! Disks that fail under the real process: what cannot be kept is refused and said to be, nothing
//! that was acknowledged is lost, and monitoring sees it (security 105, 107, 121).

use semilla_tests::bank::{Bank, STEPS, needs_a_fresh_step};
use semilla_tests::faults::{Disk, Fault};
use semilla_tests::http::{Expect, Reply};
use semilla_tests::process::{Home, sqlite};
use serde_json::json;

/// A bank on a disk, with an active token whose code was used once, and a fresh code to be tried.
async fn on(disk: &Disk) -> Bank {
    let mut home = Home::make();
    home.environment = disk.environment();
    let mut bank = Bank::at(home).await;
    for (step, name) in STEPS.iter().enumerate().take(7) {
        if needs_a_fresh_step(step) {
            bank.kill_and_start(true);
        }
        assert!(bank.take(step).await.is_ok(), "{name}");
    }
    bank.kill_and_start(true);
    bank
}

/// Asks for a person, always with the same key.
async fn person(bank: &Bank, login: &str) -> Reply {
    let body = json!({"login": login, "name": "Marta Paz"});
    let headers = [("idempotency-key", login)];
    bank.company.send("POST", "/api/v1/users", &headers, Some(body)).await
}

async fn tried(bank: &Bank, code: &str) -> Reply {
    bank.company.post("/api/v1/otp/verify", json!({"token": bank.token, "code": code})).await
}

async fn status(bank: &Bank, path: &str) -> u16 {
    bank.company.http().send("GET", path, &[], b"").await.expect("an answer").status.as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn security_107_and_121_a_full_disk_refuses_every_change_and_loses_nothing() {
    let disk = Disk::make();
    let mut bank = on(&disk).await;
    person(&bank, "marta.paz").await.expect(201);
    assert_eq!(status(&bank, "/readyz").await, 200);
    let before = bank.recorded();

    disk.fails(Fault::Full);
    let code = bank.code();
    for _ in 0..3 {
        person(&bank, "pablo.rey").await.refused("unavailable");
        tried(&bank, &code).await.refused("unavailable");
    }
    let token = format!("/api/v1/tokens/{}", bank.token);
    bank.company
        .post(&format!("{token}/block"), json!({"cause": "user_inactive"}))
        .await
        .refused("unavailable");
    assert_eq!(bank.company.get(&token).await.expect(200)["state"], "active", "reading goes on");
    assert_eq!(status(&bank, "/readyz").await, 503, "no code can be checked");
    assert_eq!(status(&bank, "/healthz").await, 200, "and starting it again would not help");

    // Somebody made room: it goes on by itself.
    disk.fails(Fault::None);
    assert_eq!(status(&bank, "/readyz").await, 200);
    let made = person(&bank, "pablo.rey").await.expect(201);
    assert_eq!(person(&bank, "pablo.rey").await.expect(201), made);
    assert_eq!(tried(&bank, &code).await.expect(200)["accepted"], true, "no step was burned");
    assert_eq!(tried(&bank, &code).await.expect(200)["accepted"], false);
    bank.kill_and_start(false);
    let mut expected = before;
    *expected.get_mut("user.created").expect("some") += 1;
    *expected.get_mut("accepted").expect("one") += 1;
    assert_eq!(bank.recorded(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn security_105_and_107_after_a_failed_fsync_nothing_is_acknowledged_until_it_is_started_again()
 {
    let disk = Disk::make();
    let mut bank = on(&disk).await;
    person(&bank, "marta.paz").await.expect(201);
    disk.fails(Fault::Unsynced);
    let code = bank.code();
    tried(&bank, &code).await.refused("unavailable");
    // The disk says that all is well again: whether it kept what it was given, nobody knows.
    disk.fails(Fault::None);
    let asked = bank.company.0.send("GET", "/api/v1/tokens", &[], b"").await.expect("an answer");
    assert_eq!(asked.problem(), "unavailable");
    assert_eq!(status(&bank, "/readyz").await, 503);
    assert_eq!(status(&bank, "/healthz").await, 200);

    bank.kill_and_start(false);
    assert_eq!(status(&bank, "/readyz").await, 200);
    let first = tried(&bank, &code).await.expect(200)["accepted"] == true;
    assert_eq!(tried(&bank, &code).await.expect(200)["accepted"], false);
    let accepted = bank.recorded()["accepted"];
    assert_eq!(accepted, 2, "once, before the disk failed or now (now: {first})");
    assert_eq!(person(&bank, "marta.paz").await.expect(201)["login"], "marta.paz");
    let people = "SELECT count(*) FROM users WHERE login = 'marta.paz'";
    if let Some(server) = bank.server.take() {
        server.kill();
    }
    assert_eq!(sqlite(&bank.home.database(), people), "1");
    bank.check_file();
}
