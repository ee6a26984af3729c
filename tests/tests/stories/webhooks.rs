//! Webhooks: a company is told of everything it could read in its audit trail, once and in a way
//! that receivers written by others verify; what fails is tried again, and nothing is lost.

use std::process::{Command, Stdio};
use std::time::Duration;

use semilla_tests::http::Expect;
use semilla_tests::receiver::{Received, Receiver};
use semilla_tests::world::World;
use serde_json::{Value, json};

use crate::flow::approve;

const WEBHOOKS: &str = "/api/v1/webhooks";

/// Makes a webhook of Comercial Andina: its path and its secret.
async fn webhook(world: &World, receiver: &Receiver, kinds: &[&str]) -> (String, String) {
    let body = json!({"url": receiver.url, "kinds": kinds});
    let made = world.company.program.post(WEBHOOKS, body).await.expect(201);
    let text = |name: &str| made[name].as_str().expect("a text").to_owned();
    (format!("{WEBHOOKS}/{}", text("id")), text("secret"))
}

/// What the official library of Standard Webhooks and the one of CloudEvents say to it.
fn read_by_others(received: &Received, secret: &str, at: i64) -> (bool, Value) {
    let clients = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("clients");
    let mut child = Command::new(clients.join(".venv/bin/python"))
        .arg(clients.join("webhook.py"))
        // The library looks at the clock: it is shown the story's.
        .env("LD_PRELOAD", semilla_tests::process::FAKETIME)
        .env("FAKETIME_FMT", "%s")
        .env("FAKETIME", at.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python runs: run tests/run");
    let told = json!({"secret": secret, "headers": received.headers, "body": received.body});
    let mut stdin = child.stdin.take().expect("its input");
    std::io::Write::write_all(&mut stdin, told.to_string().as_bytes()).expect("told");
    drop(stdin);
    let ran = child.wait_with_output().expect("its output");
    let said = serde_json::from_slice(&ran.stdout).expect("JSON");
    (ran.status.success(), said)
}

fn now(world: &World) -> i64 {
    i64::try_from(world.now().seconds()).expect("a time")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_is_told_step_by_step_and_verified_by_libraries_of_others() {
    let (world, active) = World::with_active_token().await;
    let mut receiver = Receiver::begin().await;
    let (_, secret) = webhook(&world, &receiver, &[]).await;
    let first = receiver.next().await;
    assert_eq!(first.kind(), "semilla.webhook.created", "it is told from its own making on");
    let release = format!("/api/v1/tokens/{}/release", active.token);
    let cause = json!({"cause": "user_left_company"});
    let asked = world.company.program.post(&release, cause).await.expect(202);
    approve(&world, &active.administrator, &asked).await;
    world.company.program.verify(&active.token, "00000000").await;
    let mut told = Vec::new();
    while told.last().is_none_or(|kind| kind != "semilla.token.released") {
        let received = receiver.next().await;
        let (verified, event) = read_by_others(&received, &secret, now(&world));
        assert!(verified, "{event}");
        assert_eq!(event["source"], world.http().base());
        told.push(event["type"].as_str().expect("a type").to_owned());
        if event["type"] == "semilla.token.released" {
            assert_eq!(event["subject"], active.token.as_str());
            assert_eq!(event["data"]["detail"]["cause"], "user_left_company");
            let trail = world.trail(&world.company).await;
            let place = event["sequence"].as_str().expect("a place").parse::<usize>().expect("one");
            assert_eq!(trail[place - 1]["record"], event["data"], "what the trail holds");
        }
        // Whoever changes a letter of it, or has another secret, is found out.
        let mut forged = received.clone();
        forged.body = forged.body.replacen("semilla.", "semilla!", 1);
        assert!(!read_by_others(&forged, &secret, now(&world)).0);
        let other = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        assert!(!read_by_others(&received, other, now(&world)).0);
        assert!(!read_by_others(&received, &secret, now(&world) + 600).0, "too old by then");
    }
    assert!(told.contains(&"semilla.operation.requested".to_owned()), "{told:?}");
    assert!(!told.contains(&"semilla.otp.checked".to_owned()), "checks are no changes");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_tried_again_later_and_later_under_the_same_name() {
    let world = World::begin().await;
    let mut receiver = Receiver::begin().await;
    receiver.will_answer(&[500, 503, 302]);
    let (path, _) = webhook(&world, &receiver, &["webhook."]).await;
    let first = receiver.next().await;
    let id = first.header("webhook-id").to_owned();
    for (attempts, seconds) in (1..).zip([5, 300, 1800]) {
        let listed = pending(&world, &path, attempts).await;
        assert_eq!(listed["id"], id.as_str());
        assert!(receiver.is_empty(), "not before its time");
        // Up to a tenth more, so that not all come at once.
        world.pass(seconds + seconds / 10 + 1).await;
        let again = receiver.next().await;
        assert_eq!(again.header("webhook-id"), id);
        assert_eq!(again.body, first.body);
        assert_ne!(again.header("webhook-timestamp"), first.header("webhook-timestamp"));
    }
    let delivered = delivery(&world, &path, "delivered").await;
    assert_eq!(
        (delivered["attempts"].as_u64(), delivered["status"].as_u64()),
        (Some(4), Some(204))
    );
    let shown = world.company.program.get(&path).await.expect(200);
    assert_eq!(shown["failing_since"], Value::Null, "all is well again");
}

/// The delivery that waits for its next time, once it was tried so often and that is noted.
async fn pending(world: &World, path: &str, attempts: u64) -> Value {
    loop {
        let found = delivery(world, path, "pending").await;
        if found["attempts"] == attempts {
            return found;
        }
    }
}

/// The first delivery that stands so, once one does.
async fn delivery(world: &World, path: &str, state: &str) -> Value {
    let path = format!("{path}/deliveries?state={state}");
    for _ in 0..10_000 {
        let page = world.company.program.get(&path).await.expect(200);
        if page["total"] != 0 {
            return page["items"][0].clone();
        }
        tokio::task::yield_now().await;
    }
    panic!("no delivery came to be {state}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_is_gone_is_told_no_more_until_it_is_resumed() {
    let world = World::begin().await;
    let program = &world.company.program;
    let mut receiver = Receiver::begin().await;
    receiver.will_answer(&[410]);
    let (path, _) = webhook(&world, &receiver, &["user."]).await;
    let person = |login: &str| json!({"login": login, "name": "Persona"});
    program.post("/api/v1/users", person("uno.uno")).await.expect(201);
    receiver.next().await;
    while program.get(&path).await.expect(200)["active"] == true {
        tokio::task::yield_now().await;
    }
    let disabled = world.records_since(&world.company, 0, "webhook.disabled").await;
    assert_eq!(disabled[0]["detail"]["reason"], "gone");
    program.post("/api/v1/users", person("dos.dos")).await.expect(201);
    let resumed = Some(json!({"active": true}));
    program.send("PATCH", &path, &[], resumed).await.expect(200);
    let told = receiver.next().await;
    assert_eq!(told.event()["data"]["detail"]["login"], "dos.dos", "what happened meanwhile");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_secret_signs_beside_the_old_one_for_a_day() {
    let world = World::begin().await;
    let program = &world.company.program;
    let mut receiver = Receiver::begin().await;
    let (path, old) = webhook(&world, &receiver, &["webhook.tested"]).await;
    let rotated = program.post(&format!("{path}/rotate-secret"), json!({})).await.expect(200);
    let new = rotated["secret"].as_str().expect("a secret").to_owned();
    assert_ne!(old, new);
    let test = format!("{path}/test");
    program.post(&test, json!({})).await.expect(200);
    let received = receiver.next().await;
    assert_eq!(received.header("webhook-signature").split(' ').count(), 2);
    for secret in [&old, &new] {
        assert!(read_by_others(&received, secret, now(&world)).0);
    }
    world.pass(24 * 3600).await;
    program.post(&test, json!({})).await.expect(200);
    let received = receiver.next().await;
    assert!(!read_by_others(&received, &old, now(&world)).0);
    assert!(read_by_others(&received, &new, now(&world)).0);
    assert_eq!(program.get(&path).await.expect(200)["secret"], Value::Null, "never shown again");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_told_is_told_again_when_asked_also_over_a_restart() {
    let mut world = World::begin().await;
    let mut receiver = Receiver::begin().await;
    let (path, _) = webhook(&world, &receiver, &["user."]).await;
    let person = |login: &str| json!({"login": login, "name": "Persona"});
    for login in ["uno.uno", "dos.dos", "tres.tres"] {
        world.company.program.post("/api/v1/users", person(login)).await.expect(201);
    }
    let mut first = Vec::new();
    for _ in 0..3 {
        first.push(receiver.next().await.header("webhook-id").to_owned());
    }
    world.restart().await;
    world.company.program.post("/api/v1/users", person("cuatro.x")).await.expect(201);
    let fourth = receiver.next().await;
    assert_eq!(fourth.event()["data"]["detail"]["login"], "cuatro.x", "nothing came twice");
    first.push(fourth.header("webhook-id").to_owned());
    let program = &world.company.program;
    program.post(&format!("{path}/replay"), json!({"after": 0})).await.expect(200);
    // From the very beginning: also who was there before the webhook was.
    let mut again = Vec::new();
    while !first.iter().all(|id| again.contains(id)) {
        again.push(receiver.next().await.header("webhook-id").to_owned());
    }
    assert!(again.len() > first.len());
    let one = format!("{path}/deliveries/{}/replay", first[1]);
    program.post(&one, json!({})).await.expect(200);
    assert_eq!(receiver.next().await.header("webhook-id"), first[1]);
    let foreign = world.another_company("Industrias del Sur").await;
    foreign.program.post(&one, json!({})).await.refused("not-found");
    foreign.program.get(&path).await.refused("not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_makes_the_server_ask_its_neighbours() {
    let world = World::begin().await;
    let program = &world.company.program;
    for url in [
        "http://10.0.0.1/",
        "https://10.0.0.1/",
        "https://169.254.169.254/latest/meta-data",
        "https://[fd00::1]/",
        "http://example.com/",
        "https://user:secret@example.com/",
        "ftp://example.com/",
        "nowhere",
    ] {
        let problem = program.post(WEBHOOKS, json!({"url": url})).await.refused("validation");
        assert_eq!(problem["errors"][0]["pointer"], "#/url", "{url}");
    }
    for kinds in [json!([""]), json!(["x"]), json!(["Token.released"]), json!(["a.b\u{202e}"])] {
        let body = json!({"url": "https://receiver.example/", "kinds": kinds});
        program.post(WEBHOOKS, body).await.refused("validation");
    }
    // A redirect is an answer like another that is no success, and is not followed.
    let mut elsewhere = Receiver::begin().await;
    let mut receiver = Receiver::begin().await;
    receiver.will_redirect(Box::leak(elsewhere.url.clone().into_boxed_str()));
    let (path, _) = webhook(&world, &receiver, &["webhook.tested"]).await;
    program.post(&format!("{path}/test"), json!({})).await.expect(200);
    receiver.next().await;
    assert_eq!(pending(&world, &path, 1).await["status"], 307);
    assert!(elsewhere.is_empty());
    let (path, _) = webhook(&world, &elsewhere, &["webhook.tested"]).await;
    program.post(&format!("{path}/test"), json!({})).await.expect(200);
    elsewhere.next().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_never_answers_holds_nobody_up() {
    let world = World::begin().await;
    let program = &world.company.program;
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/", silent.local_addr().expect("an address"));
    let body = json!({"url": url, "kinds": ["user."]});
    program.post(WEBHOOKS, body).await.expect(201);
    let mut receiver = Receiver::begin().await;
    webhook(&world, &receiver, &["user."]).await;
    for number in 0..5 {
        let person = json!({"login": format!("persona.{number}"), "name": "Persona"});
        program.post("/api/v1/users", person).await.expect(201);
        receiver.next().await;
    }
    // Nor does it hold up the end.
    let begun = std::time::Instant::now();
    let mut world = world;
    world.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(10));
}
