//! Starting and stopping: the server ends in time whatever hangs on it, what was begun is done, and
//! it does not start where it could not keep what it promises (security 33, 34, 109, 118, 121).

use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt};
use semilla_tests::http::{Expect, Http, Program};
use semilla_tests::process::{Home, semilla, sqlite};
use semilla_tests::socket;
use semilla_tests::world::World;
use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::audit::assert_whole;

/// The limit of the requirement, in real time.
const TEN_SECONDS: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn security_118_it_ends_within_ten_seconds_with_hundreds_waiting_and_finishes_what_was_begun()
{
    let (mut world, active) = World::with_active_token().await;
    let program = &world.company.program;
    let release = format!("/api/v1/tokens/{}/release", active.token);
    let asked = program.post(&release, json!({"cause": "seed_release"})).await.expect(202);
    let wait = format!("/api/v1/operations/{}?wait=25", asked["id"].as_str().expect("an id"));
    let access = program.0.access_token().await.expect("a token");
    let mut waiting = Vec::new();
    for number in 0..200 {
        let path = if number % 4 == 0 { "/api/v1/events" } else { &wait };
        let mut stream = socket::connect(program.http().base()).await;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {access}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        waiting.push(stream);
    }
    // Idle, and stalled in the middle of a head and of a body.
    for beginning in
        ["", "GET / HT", "POST /token HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx"]
    {
        let mut stream = socket::connect(program.http().base()).await;
        stream.write_all(beginning.as_bytes()).await.expect("sent");
        waiting.push(stream);
    }
    let people = (0..20).map(|number| {
        let person = json!({"login": format!("persona.{number}"), "name": "Persona"});
        program.post("/api/v1/users", person)
    });
    let begun: Vec<_> = futures_util::future::join_all(people).await;
    assert!(begun.iter().all(|answer| answer.status.as_u16() == 201));
    let before = Instant::now();
    world.stop().await;
    assert!(before.elapsed() < TEN_SECONDS, "it took {:?}", before.elapsed());
    drop(waiting);
    world.restart().await;
    let people = world.company.program.get("/api/v1/users?limit=100").await.expect(200);
    assert_eq!(people["total"], 22, "everything acknowledged is there");
    assert_whole(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn security_105_and_118_what_is_in_flight_when_it_stops_is_done_or_not_acknowledged() {
    let mut world = World::begin().await;
    let (http, program) = (world.http(), &world.company.program);
    let access = format!("Bearer {}", program.0.access_token().await.expect("a token"));
    let headers = [("authorization", access.as_str()), ("content-type", "application/json")];
    let people: FuturesUnordered<_> = (0..200)
        .map(|number| {
            let (http, login) = (http.clone(), format!("persona.{number}"));
            let body = json!({"login": login, "name": "Persona"}).to_string();
            async move {
                let asked = http.send("POST", "/api/v1/users", &headers, body.as_bytes()).await;
                (login, asked.map_or(0, |answer| answer.status.as_u16()))
            }
        })
        .collect();
    let mut people = people.boxed_local();
    let first = people.next().await.expect("an answer");
    let before = Instant::now();
    let (_, mut answers) = tokio::join!(world.stop(), people.collect::<Vec<_>>());
    assert!(before.elapsed() < TEN_SECONDS, "it took {:?}", before.elapsed());
    answers.push(first);
    world.restart().await;
    let acknowledged = answers.iter().filter(|(_, status)| *status == 201);
    let mut count = 0;
    for (login, _) in acknowledged {
        let path = format!("/api/v1/users?q={login}");
        let found = world.company.program.get(&path).await.expect(200);
        let found = found["items"].as_array().expect("items");
        assert!(found.iter().any(|user| user["login"] == login.as_str()), "{login} is lost");
        count += 1;
    }
    assert!(count >= 1, "some were done");
    for (login, status) in &answers {
        assert!(matches!(status, 0 | 201 | 503), "{login} was answered {status}");
    }
    assert_whole(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn security_118_a_second_request_to_stop_is_obeyed_at_once() {
    let home = Home::make();
    let mut server = home.serve();
    // Something that would hold it up.
    let mut stalled = socket::connect(&home.base()).await;
    let beginning = "POST /token HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx";
    stalled.write_all(beginning.as_bytes()).await.expect("sent");
    let before = Instant::now();
    server.ask_to_stop();
    server.hear("stopping");
    server.ask_to_stop();
    assert!(server.child.wait().expect("its status").success());
    assert!(before.elapsed() < TEN_SECONDS);
}

#[tokio::test(flavor = "multi_thread")]
async fn security_121_ready_tells_whether_codes_can_be_checked_and_health_whether_it_runs() {
    let world = World::begin().await;
    let http = world.http();
    for path in ["/healthz", "/readyz"] {
        assert_eq!(http.send("GET", path, &[], b"").await.expect("an answer").status.as_u16(), 200);
    }
    // The database goes away under it.
    world.server().app.store.close().await;
    let ready = http.send("GET", "/readyz", &[], b"").await.expect("an answer");
    assert_eq!(ready.problem(), "unavailable");
    let alive = http.send("GET", "/healthz", &[], b"").await.expect("an answer");
    assert_eq!(alive.status.as_u16(), 200);
    let program = &world.company.program;
    let answer = program
        .0
        .http
        .send(
            "POST",
            "/token",
            &[("content-type", "application/x-www-form-urlencoded")],
            b"grant_type=client_credentials",
        )
        .await;
    assert!(answer.expect("an answer").status.as_u16() >= 400);
}

/// What `semilla serve` says when it does not start, and its exit code.
fn refusal(home: &Home) -> (Option<i32>, String) {
    let mut command = std::process::Command::new(semilla());
    command.args(["serve", "--config"]).arg(home.config()).env("SEMILLA_LISTEN", "127.0.0.1:0");
    let ran = command.output().expect("semilla runs");
    (ran.status.code(), String::from_utf8_lossy(&ran.stderr).into_owned())
}

#[test]
fn security_33_34_and_109_it_does_not_start_on_what_it_cannot_trust() {
    let home = Home::make();
    let key = home.path().join("keys/master.key");
    let original = std::fs::read(&key).expect("a key");
    let database = std::fs::read(home.database()).expect("a database");
    let restore = || {
        std::fs::remove_file(&key).ok();
        std::fs::write(&key, &original).expect("written");
        chmod(&key, 0o600);
        std::fs::write(home.database(), &database).expect("written");
    };

    std::fs::remove_file(&key).expect("removed");
    let (code, said) = refusal(&home);
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("master.key"), "it says which file: {said}");
    assert!(!key.exists(), "and makes no other key in its place");

    restore();
    chmod(&key, 0o644);
    let (code, said) = refusal(&home);
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("chmod 600") || said.contains("owner"), "what to do next: {said}");

    restore();
    let other = Home::make();
    std::fs::copy(other.path().join("keys/master.key"), &key).expect("another's key");
    chmod(&key, 0o600);
    let (code, said) = refusal(&home);
    assert_eq!(code, Some(69), "{said}");
    assert!(said.contains("another database"), "{said}");

    restore();
    std::fs::write(&key, "no key\n").expect("written");
    chmod(&key, 0o600);
    assert_eq!(refusal(&home).0, Some(78));

    restore();
    sqlite(&home.database(), "PRAGMA user_version = 99");
    let (code, said) = refusal(&home);
    assert_eq!(code, Some(69), "{said}");
    assert!(said.contains("newer program"), "{said}");

    restore();
    let mut damaged = database.clone();
    for place in (damaged.len() / 2..damaged.len()).step_by(512) {
        damaged[place] ^= 0x55;
    }
    std::fs::write(home.database(), damaged).expect("written");
    assert_eq!(refusal(&home).0, Some(69));

    restore();
    let triggers = "DROP TRIGGER audit_is_never_changed; DROP TRIGGER audit_is_never_deleted;";
    sqlite(
        &home.database(),
        &format!("{triggers} DELETE FROM audit WHERE sequence = (SELECT max(sequence) FROM audit)"),
    );
    let (code, said) = refusal(&home);
    assert_eq!(code, Some(69), "{said}");
    assert!(said.contains("does not end at its head"), "{said}");

    restore();
    assert!(home.serve().stop().success(), "the control");
}

fn chmod(path: &std::path::Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("set");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_never_share_a_folder() {
    let home = Home::make();
    let server = home.serve();
    let (code, said) = refusal(&home);
    assert_eq!(code, Some(69), "{said}");
    assert!(said.contains("in use by another process"), "{said}");
    let program = Program::of(Http::new(&home.base()), &home.credentials);
    program.get("/api/v1/companies").await.expect(200);
    assert!(server.stop().success());
}
