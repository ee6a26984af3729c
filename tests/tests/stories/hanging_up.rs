//! Clients that hang up: in the middle of what they send, while it is worked on, or just before
//! the answer. What was begun is done to its end, once, and the server is none the worse for it
//! (security 108).

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use semilla_core::otp::Step;
use semilla_tests::http::Expect;
use semilla_tests::invariants;
use semilla_tests::process::sqlite;
use semilla_tests::seeded::Seeded;
use semilla_tests::socket;
use semilla_tests::world::{Active, World};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::audit::assert_whole;

/// How many requests are cut off, in so many lanes at once.
const REQUESTS: usize = 1_280;
const LANES: usize = 16;

/// Something that is asked for.
struct Request {
    path: String,
    key: String,
    body: Value,
}

/// One of the things that change something, chosen by chance.
fn request(number: usize, seeded: &mut Seeded, world: &World, active: &Active) -> Request {
    let token = format!("/api/v1/tokens/{}", active.token);
    let (path, body) = match seeded.below(8) {
        0..=2 => {
            let login = format!("persona.{number}");
            ("/api/v1/users".to_owned(), json!({"login": login, "name": "Persona"}))
        }
        3..=5 => {
            let step = Step(world.now().seconds() / 30);
            let code = active.phone.raw().code_at(&active.serial, step).expect("a code");
            let body = json!({"token": active.token, "code": code.code.expose()});
            ("/api/v1/otp/verify".to_owned(), body)
        }
        6 => (format!("{token}/release"), json!({"cause": "seed_release"})),
        _ => (format!("/api/v1/users/{}/activation", world.company.laura), json!({})),
    };
    Request { path, key: format!("key-{number}"), body }
}

/// Sends it, or its beginning, and hangs up at some moment. Whether all of it was sent.
async fn hang_up(base: &str, access: &str, request: &Request, seeded: &mut Seeded) -> bool {
    let authorization = format!("Bearer {access}");
    let mut headers =
        vec![("Authorization", authorization.as_str()), ("Content-Type", "application/json")];
    if request.path != "/api/v1/otp/verify" {
        headers.push(("Idempotency-Key", &request.key));
    }
    let body = request.body.to_string();
    let mut bytes = socket::request("POST", &request.path, &headers, body.as_bytes());
    let whole = seeded.below(4) > 0;
    if !whole {
        bytes.truncate(seeded.below(bytes.len()));
    }
    let mut stream = socket::connect(base).await;
    stream.write_all(&bytes).await.expect("sent");
    tokio::time::sleep(Duration::from_micros(seeded.below(6_000) as u64)).await;
    if seeded.below(2) == 0 {
        // The rude way: a reset, which the server notices at once.
        stream.set_zero_linger().expect("set");
    }
    whole
}

#[tokio::test(flavor = "multi_thread")]
async fn security_108_what_was_begun_is_done_to_its_end_once_however_many_hang_up() {
    let (mut world, active) = World::with_active_token().await;
    let program = &world.company.program;
    let base = program.http().base().to_owned();
    let mut seeded = Seeded::from_environment(108);
    let mut people = BTreeMap::new();
    let mut steps = 0;
    for _ in 0..REQUESTS / LANES / 10 {
        // Codes of another moment, and an access token that lives.
        world.pass(30).await;
        steps += 1;
        let access = program.0.ask_for_access_token("").await.expect("an answer").json();
        let access = access["access_token"].as_str().expect("a token").to_owned();
        let lanes: Vec<_> = (0..LANES)
            .map(|_| {
                let mut own = Seeded::new(seeded.number());
                let requests: Vec<Request> = (0..10)
                    .map(|_| {
                        let number = usize::try_from(own.number() >> 20).expect("a number");
                        request(number, &mut own, &world, &active)
                    })
                    .collect();
                (own, requests)
            })
            .collect();
        let (base, access) = (&base, &access);
        let lanes = lanes.into_iter().map(async |(mut own, requests)| {
            let mut sent = Vec::new();
            for request in requests {
                let whole = hang_up(base, access, &request, &mut own).await;
                sent.push((request, whole));
            }
            sent
        });
        for (request, whole) in join_all(lanes).await.into_iter().flatten() {
            if request.path == "/api/v1/users" {
                people.insert(request.key.clone(), (request, whole));
            }
        }
    }
    assert!(people.len() > 300, "only {}", people.len());

    program.get("/api/v1/tokens").await.expect(200);
    // The server is as it was: everybody who stays is answered, many at once.
    let reads = (0..100).map(|_| program.get("/api/v1/tokens"));
    assert!(join_all(reads).await.iter().all(|answer| answer.status.as_u16() == 200));
    assert_eq!(world.http().send("GET", "/readyz", &[], b"").await.expect("ready").status, 200);

    // Some were done though nobody waited; whoever asks again with the same key is told so.
    let mut done_before = 0;
    for (request, whole) in people.values() {
        let login = request.body["login"].as_str().expect("a login");
        let known = program.get(&format!("/api/v1/users?q={login}")).await.expect(200);
        let known = known["items"].as_array().expect("items");
        let known = known.iter().filter(|user| user["login"] == login).count();
        assert!(known <= 1, "{login} is there {known} times");
        assert!(known == 0 || *whole, "{login} came of a part of a request");
        done_before += known;
        let headers = [("idempotency-key", request.key.as_str())];
        let made = program.send("POST", &request.path, &headers, Some(request.body.clone())).await;
        assert_eq!(made.expect(201)["login"], login);
    }
    assert!(
        (people.len() / 10..people.len()).contains(&done_before),
        "{done_before} of {} were done before: nobody hung up at the right moment",
        people.len()
    );
    world.pass(60).await;
    assert!(world.company.program.verify(&active.token, &active.code()).await);
    assert_whole(&world).await;
    let all = people.len();
    world.stop().await;
    let database = world.data().join("semilla.db");
    invariants::hold_in(&database);
    let count = |sql: &str| sqlite(&database, sql).parse::<usize>().expect("a number");
    assert_eq!(count("SELECT count(*) FROM users WHERE login LIKE 'persona.%'"), all);
    let accepted = count("SELECT count(*) FROM attempts WHERE outcome = 'accepted'");
    assert!((2..=steps + 1).contains(&accepted), "{accepted} codes of {steps} steps");
    let pending = "SELECT count(*) FROM operations WHERE state = 'pending' GROUP BY token";
    assert!(sqlite(&database, pending).lines().all(|count| count == "1"));
}
