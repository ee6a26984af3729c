//! What those who run a server see of it and set in it: metrics, the level of the log, what is
//! kept for how long, and what comes with the program.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use semilla_server::workflow::retention::Retention;
use semilla_tests::branch::Branch;
use semilla_tests::http::{Expect, Http};
use semilla_tests::process::{Home, semilla, sqlite};
use semilla_tests::world::{Settings, World};
use serde_json::{Value, json};

/// The metrics as the official library of Prometheus reads them.
async fn scrape(home: &Home) -> Value {
    use std::io::Write;
    let ready = std::fs::read_to_string(home.path().join("ready")).expect("the ready file");
    let ready: Value = serde_json::from_str(&ready).expect("JSON");
    let address = ready["metrics"].as_str().expect("an address");
    let http = Http::new(&format!("http://{address}"));
    let answer = http.send("GET", "/metrics", &[], b"").await.expect("answered");
    assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients");
    let mut reader = Command::new(clients.join(".venv/bin/python"))
        .arg(clients.join("metrics.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python runs: tests/run installs it");
    reader.stdin.take().expect("its input").write_all(&answer.body).expect("read");
    let read = reader.wait_with_output().expect("its output");
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&answer.body));
    serde_json::from_slice(&read.stdout).expect("JSON")
}

/// The value of a sample with (at least) these labels; 0 where there is none.
fn value(metrics: &Value, family: &str, sample: &str, labels: &[(&str, &str)]) -> f64 {
    let samples = metrics[family]["samples"].as_array();
    let samples = samples.unwrap_or_else(|| panic!("no {family}: {metrics}"));
    let matches = |found: &&Value| {
        found[0] == sample && labels.iter().all(|(name, label)| found[1][name] == **label)
    };
    samples.iter().filter(matches).filter_map(|found| found[2].as_f64()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn security_121_metrics_count_what_happens_and_hold_no_id() {
    let home = Home::make();
    home.set("metrics_listen = \"127.0.0.1:0\"");
    let mut branch = Branch::open(home, 1).await;
    let administrator = branch.bound_phone(&branch.andres).await;
    let phone = branch.enrolled_phone().await;
    branch.start_after(60);
    let code = branch.code(&phone);
    assert!(branch.verify(&code).await);
    for _ in 0..6 {
        assert!(!branch.verify("00000000").await);
    }
    let token = format!("/api/v1/tokens/{}", branch.pool[0].0);
    let release = format!("{token}/release");
    let ask = json!({"cause": "seed_release"});
    let asked = branch.company.post(&release, ask.clone()).await.expect(202);
    let path = format!("/api/v1/operations/{}", asked["id"].as_str().expect("an id"));
    branch.company.send("DELETE", &path, &[], None).await.expect(200);
    let asked = branch.company.post(&release, ask).await.expect(202);
    let number = asked["match_number"].as_str().expect("a number");
    let inbox = administrator.inbox().await.expect("the inbox");
    administrator.approve(inbox.requests[0].id(), number).await.expect("approved");
    branch.company.get("/no/such/place").await;
    // A phone that waits while we look.
    let waiting = phone.wait_for_requests(Duration::from_secs(25));
    let looking = async {
        loop {
            let metrics = scrape(&branch.home).await;
            if value(&metrics, "semilla_waiting", "semilla_waiting", &[("for", "phone")]) > 0.0 {
                break metrics;
            }
        }
    };
    let metrics = tokio::select! {
        metrics = looking => metrics,
        _ = waiting => panic!("nothing was to come"),
    };
    let count = |family: &str, labels: &[(&str, &str)]| {
        value(&metrics, family, &format!("{family}_total"), labels)
    };
    let route = ("route", "/api/v1/otp/verify");
    assert_eq!(
        count("semilla_http_requests", &[route, ("status", "200"), ("method", "POST")]),
        7.0
    );
    assert!(count("semilla_http_requests", &[("route", "none")]) >= 1.0);
    let family = "semilla_http_request_duration_seconds";
    assert_eq!(metrics[family]["type"], "histogram");
    assert_eq!(value(&metrics, family, &format!("{family}_count"), &[route]), 7.0);
    assert_eq!(count("semilla_codes", &[("outcome", "accepted")]), 1.0);
    assert_eq!(count("semilla_codes", &[("outcome", "wrong")]), 5.0);
    assert_eq!(count("semilla_codes", &[("outcome", "waiting")]), 1.0);
    assert_eq!(count("semilla_locks", &[("outcome", "waiting")]), 1.0);
    for outcome in ["executed", "cancelled"] {
        let labels = [("action", "release"), ("outcome", outcome)];
        assert_eq!(count("semilla_operations", &labels), 1.0, "{outcome}");
    }
    let family = "semilla_operation_answer_seconds";
    let executed = [("outcome", "executed")];
    assert_eq!(value(&metrics, family, &format!("{family}_count"), &executed), 1.0);
    assert!(value(&metrics, "semilla_connections", "semilla_connections", &[]) >= 1.0);
    let version = metrics["semilla_build_info"]["samples"][0][1]["version"].as_str();
    assert_eq!(version, Some("0.1.0"));
    // No id, no name, no address, no code.
    let text = metrics.to_string();
    let secrets = [
        branch.pool[0].0.as_str(),
        &branch.pool[0].1,
        &branch.andres,
        &branch.laura,
        &code,
        number,
        "127.0.0.1",
        "Comercial",
        "/no/such/place",
    ];
    for secret in secrets {
        assert!(!text.contains(secret), "{secret}");
    }
    assert!(administrator.inbox().await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_level_of_the_log_is_set_while_the_server_runs() {
    let home = Home::make();
    let server = home.serve();
    let sample = std::fs::read_to_string(home.config()).expect("read");
    let set = |line: &str| {
        std::fs::write(home.config(), format!("{sample}\n{line}\n")).expect("written");
        server.signal("HUP");
    };
    let ask = || async {
        Http::new(&home.base()).send("GET", "/healthz", &[], b"").await.expect("answered")
    };
    ask().await;
    server.hear("\"/healthz\"");
    set("log_level = \"warn\"");
    server.hear("the configuration was read again");
    // What does not read changes nothing, and is told at this level, too.
    set("log_level = \"loud\"");
    server.hear("the configuration does not read");
    let before = server.log().matches("\"/healthz\"").count();
    for _ in 0..20 {
        ask().await;
    }
    set("log_level = \"debug\"");
    server.hear("the configuration was read again");
    assert_eq!(server.log().matches("\"/healthz\"").count(), before, "nothing of requests");
    ask().await;
    server.hear("\"/healthz\"");
    assert!(server.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_ended_is_kept_for_its_time_and_the_audit_for_good() {
    let day = 24 * 3600;
    let kept = |days: u64| Some(Duration::from_secs(days * day));
    let retention =
        Retention { operations: kept(30), attempts: kept(60), answers: Duration::from_secs(3600) };
    let mut world = World::set_to(Settings { retention, ..Settings::default() }).await;
    let active = world.active_token(&world.company).await;
    let program = &world.company.program;
    let path = format!("/api/v1/tokens/{}/release", active.token);
    assert!(!program.verify(&active.token, "00000000").await);
    let asked = program.post(&path, json!({"cause": "seed_release"})).await.expect(202);
    let path = format!("/api/v1/operations/{}", asked["id"].as_str().expect("an id"));
    let key = [("idempotency-key", "an-answer-for-an-hour")];
    let body = Some(json!({"login": "marta.paz", "name": "Marta Paz"}));
    program.send("POST", "/api/v1/users", &key, body.clone()).await.expect(201);
    program.send("POST", "/api/v1/users", &key, body.clone()).await.expect(201);
    world.pass(3600).await;
    let again = program.send("POST", "/api/v1/users", &key, body).await;
    assert_ne!(again.status.as_u16(), 201, "the answer was forgotten, and the name is taken");
    assert_eq!(program.get(&path).await.expect(200)["state"], "expired");
    world.pass(29 * day).await;
    assert_eq!(program.get(&path).await.expect(200)["state"], "expired");
    let trail = world.trail(&world.company).await;
    world.pass(day).await;
    program.get(&path).await.refused("not-found");

    let database = world.data().join("semilla.db");
    let count = "SELECT count(*) FROM attempts";
    world.pass(29 * day).await;
    world.stop().await;
    assert_eq!(sqlite(&database, count), "2");
    world.restart().await;
    world.pass(2 * day).await;
    let after = world.trail(&world.company).await;
    assert_eq!(after[..trail.len()], trail, "the trail is as it was");
    let since = after[trail.len()..].iter().map(|item| &item["record"]["kind"]);
    assert_eq!(since.filter(|kind| **kind == "attempts.forgotten").count(), 1);
    world.stop().await;
    assert_eq!(sqlite(&database, count), "0");
    let store = semilla_server::store::sqlite::look(&world.data()).expect("read");
    let reports = semilla_server::workflow::trail::verify(&store).await.expect("read");
    assert!(reports.iter().all(|report| report.tampered.is_none()), "it is whole: {reports:?}");
}

#[test]
fn completions_and_manual_pages_come_with_both_programs() {
    let folder = tempfile::tempdir().expect("a folder");
    for (program, command) in
        [(semilla(), "backup"), (semilla().with_file_name("approver"), "approve")]
    {
        for shell in ["bash", "zsh", "fish"] {
            let made = Command::new(&program).args(["completions", shell]).output().expect("runs");
            assert!(made.status.success());
            let text = String::from_utf8(made.stdout).expect("a script");
            assert!(text.contains(command), "{shell}");
            if shell == "bash" {
                let file = folder.path().join("completions");
                std::fs::write(&file, text).expect("written");
                let name = program.file_name().expect("a name").to_str().expect("a name");
                // As the shell does it, on a word that is begun.
                let script = format!(
                    "source {}; COMP_WORDS=({name} {}); COMP_CWORD=1; _{name} {name} {} {name}; echo \"${{COMPREPLY[*]}}\"",
                    file.display(),
                    &command[..5],
                    &command[..5],
                );
                let completed = Command::new("bash").args(["-c", &script]).output().expect("runs");
                let completed = String::from_utf8_lossy(&completed.stdout).into_owned();
                assert!(completed.split_whitespace().any(|word| word == command), "{completed}");
            }
        }
        let pages = folder.path().join("man1");
        std::fs::create_dir_all(&pages).expect("a folder");
        let made = Command::new(&program).arg("man").arg(&pages).output().expect("runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let name = program.file_name().expect("a name").to_string_lossy().into_owned();
        let page = std::fs::read_to_string(pages.join(format!("{name}.1"))).expect("a page");
        assert!(page.contains(".TH") && page.contains(command), "{page}");
        assert!(pages.join(format!("{name}-{command}.1")).is_file());
    }
}
