//! Clients that hang up: whatever they asked for is done to its end or not at all, and asking again
//! with the same key does it once (security 108). `SEMILLA_DISCONNECTS` says how many hang up, for
//! whoever wants to see it with a hundred thousand.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use semilla_core::operations::State;
use semilla_core::otp::Step;
use semilla_tests::http::Expect;
use semilla_tests::invariants;
use semilla_tests::seeded::Seeded;
use semilla_tests::socket;
use semilla_tests::world::World;
use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::audit::assert_whole;

/// How many requests are cut off.
fn how_many() -> usize {
    let given = std::env::var("SEMILLA_DISCONNECTS").ok();
    given.map_or(2_000, |text| text.parse().expect("SEMILLA_DISCONNECTS is a number"))
}

/// Sends a request and hangs up after `moment`; where `cut` is given, in the middle of sending it.
async fn hang_up(base: &str, request: &[u8], cut: Option<usize>, moment: Duration) {
    let mut stream = socket::connect(base).await;
    let sent = cut.map_or(request, |cut| &request[..cut.min(request.len())]);
    // The server may have refused before it has read everything.
    let _ = stream.write_all(sent).await;
    tokio::time::sleep(moment).await;
    if moment.as_micros().is_multiple_of(2) {
        // The rude way: a reset, which the server notices at once.
        stream.set_zero_linger().expect("set");
    }
    drop(stream);
}

#[tokio::test(flavor = "multi_thread")]
async fn security_108_thousands_hang_up_at_random_moments_and_nothing_is_left_half_done() {
    let (mut world, active) = World::with_active_token().await;
    let other = world.another_company("Industrias del Sur").await;
    let theirs = world.active_token(&other).await;
    let program = &world.company.program;
    let base = world.http().base().to_owned();
    let mut seeded = Seeded::from_environment(108);
    let count = how_many();
    let token = format!("/api/v1/tokens/{}", active.token);
    let before = program.get("/api/v1/users").await.expect(200)["total"].as_u64().expect("a total");
    let mut asked = Vec::new();
    let slots = Arc::new(tokio::sync::Semaphore::new(32));
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..count {
        // People are made; one token is blocked, and wrong codes of it are tried; right codes of
        // another one are tried again and again.
        let asker = if number % 8 == 3 { &other.program } else { program };
        let (path, body) = match number % 8 {
            0 | 1 | 4 | 5 => {
                let login = format!("persona.{number}");
                ("/api/v1/users".to_owned(), json!({"login": login, "name": "Persona"}))
            }
            3 => {
                let step = Step(world.now().seconds() / 30 + seeded.below(2) as u64);
                let code = theirs.phone.raw().code_at(&theirs.serial, step).expect("a code");
                let body = json!({"token": theirs.token, "code": code.code.expose()});
                ("/api/v1/otp/verify".to_owned(), body)
            }
            2 | 6 => (format!("{token}/block"), json!({"cause": "technical_failure"})),
            _ => (
                "/api/v1/otp/verify".to_owned(),
                json!({"token": active.token, "code": "00000000"}),
            ),
        };
        let key = format!("key-{number}");
        if number % 4 < 2 {
            asked.push((path.clone(), body.clone(), key.clone()));
        }
        let access = asker.0.access_token().await.expect("a token");
        let body = body.to_string();
        let key = if path.ends_with("verify") {
            String::new()
        } else {
            format!("Idempotency-Key: {key}\r\n")
        };
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {access}\r\n{key}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let cut = (seeded.below(8) == 0).then(|| seeded.below(request.len()));
        let moment = Duration::from_micros(seeded.below(6_000) as u64);
        let (base, slot) = (base.clone(), Arc::clone(&slots).acquire_owned().await.expect("open"));
        tasks.spawn(async move {
            hang_up(&base, request.as_bytes(), cut, moment).await;
            drop(slot);
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("no panic");
    }

    // Some were done though nobody waited, and some were not: they hung up in time for both.
    let done = program.get("/api/v1/users").await.expect(200)["total"].as_u64().expect("a total");
    let expected = before + asked.len() as u64;
    assert!((before + 1..expected).contains(&done), "{done} of {expected}");

    // Whoever lost an answer asks again, and finds it done, or has it done now.
    for (path, body, key) in &asked {
        let headers = [("idempotency-key", key.as_str())];
        let answer = loop {
            let answer = program.send("POST", path, &headers, Some(body.clone())).await;
            // The first time is still being finished.
            if answer.problem() != "idempotency-conflict" {
                break answer;
            }
        };
        answer.expect(201);
    }
    let after = program.get("/api/v1/users").await.expect(200)["total"].as_u64().expect("a total");
    assert_eq!(after - before, asked.len() as u64, "each person was made once");
    let blocked = world.records_since(&world.company, 0, "token.blocked").await.len();
    assert_eq!(blocked, 1, "one block of one token");
    let state = program.get(&token).await.expect(200)["state"].clone();
    assert_eq!(state, State::Blocked.name());
    let outcomes = world.outcomes(&world.company).await;
    let wrong = outcomes.iter().filter(|outcome| *outcome == "wrong").count();
    assert!(wrong <= 5, "{wrong} codes were looked at");
    // Codes of two steps, and the one that proved the seed.
    let outcomes = world.outcomes(&other).await;
    let accepted = outcomes.iter().filter(|outcome| *outcome == "accepted").count();
    assert!((1..=2).contains(&accepted), "{accepted} codes were accepted: {outcomes:?}");
    assert_whole(&world).await;
    let ready = world.http().send("GET", "/readyz", &[], b"").await.expect("an answer");
    assert_eq!(ready.status.as_u16(), 200);
    let reads = (0..100).map(|_| program.get("/api/v1/tokens"));
    assert!(join_all(reads).await.iter().all(|answer| answer.status.as_u16() == 200));
    world.stop().await;
    invariants::hold_in(&world.data().join("semilla.db"));
}
