//! What is secret stays where it belongs. The whole flow is played on the real process at its most
//! talkative, and then everything it left is searched for every secret there was, in every form:
//! its log, its database with what is not yet in the main file, and its answers (security 12, 30,
//! 35, 38, 40, 93).

use std::path::Path;
use std::sync::Arc;

use semilla_approver::Phone;
use semilla_approver::entropy::SystemEntropy;
use semilla_core::otp::Step;
use semilla_server::clock::{Clock, SystemClock};
use semilla_tests::canary::{Canary, found};
use semilla_tests::http::{Expect, Http, Program};
use semilla_tests::process::{Home, sqlite};
use semilla_tests::world::{COMPANY_SCOPES, World};
use serde_json::{Value, json};

use crate::flow::approve;

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

fn phone() -> Phone {
    Phone::in_memory(Arc::new(|| SystemClock.now()), Arc::new(SystemEntropy))
}

/// All bytes of a folder's files.
fn all_in(folder: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_file() {
            bytes.extend(std::fs::read(&path).expect("a file"));
        }
    }
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn security_12_30_35_and_40_no_secret_is_found_in_logs_files_or_answers() {
    let mut home = Home::make();
    home.environment = vec![("SEMILLA_LOG_LEVEL", "trace".to_owned())];
    let server = home.serve();
    let http = Http::new(&home.base());
    let mut canaries = Vec::new();
    let operator = Program::of(http.clone(), &home.credentials);
    canaries.push(Canary::text("the operator's secret", &text(&home.credentials["client_secret"])));
    let master = std::fs::read_to_string(home.path().join("keys/master.key")).expect("the key");
    let master = master.lines().last().expect("a line").to_owned();
    let key = master.rsplit([' ', ':', '.']).next().expect("a word");
    canaries.push(Canary::text("the master key", key));

    let body = json!({"name": "Comercial Andina S.A.S.", "administrator": {"login": "andres.gomez", "name": "Andrés Gómez"}});
    let made = operator.post("/api/v1/companies", body).await.expect(201);
    let (company_id, andres) = (text(&made["company"]["id"]), text(&made["administrator"]["id"]));
    let client = json!({"name": "Tesorería", "scopes": COMPANY_SCOPES, "askers": [andres]});
    let path = format!("/api/v1/companies/{company_id}/clients");
    let client = operator.post(&path, client).await.expect(201);
    canaries.push(Canary::text("the program's secret", &text(&client["client_secret"])));
    let program = Program::of(http.clone(), &client);
    let laura = json!({"login": "laura.valencia", "name": "Laura Valencia"});
    let laura = text(&program.post("/api/v1/users", laura).await.expect(201)["id"]);
    let run = json!({"first": "FEF4900032", "count": 1});
    let issued = operator.post("/api/v1/stock/issue", run).await.expect(200);
    let token = text(&issued["tokens"][0]["id"]);
    let run = json!({"first": "FEF4900032", "count": 1, "company": company_id});
    operator.post("/api/v1/stock/allot", run).await.expect(200);

    let activation = |name: &'static str, made: Value, canaries: &mut Vec<Canary>| {
        let code = text(&made["code"]);
        canaries.push(Canary::text(name, &code[5..]));
        canaries.push(Canary::text(name, &code[5..].replace('-', "")));
        text(&made["uri"])
    };
    let (administrator, lauras) = (phone(), phone());
    let path = format!("/api/v1/users/{andres}/activation");
    let made = program.post(&path, json!({})).await.expect(201);
    administrator.bind(&activation("Andrés's code", made, &mut canaries)).await.expect("bound");
    let assign = format!("/api/v1/tokens/{token}/assign");
    let opened = program.post(&assign, json!({"user": laura})).await.expect(201);
    let path = format!("/api/v1/enrollments/{}/activation", text(&opened["enrollment"]["id"]));
    let made = program.post(&path, json!({})).await.expect(201);
    lauras.bind(&activation("Laura's code", made, &mut canaries)).await.expect("bound");
    lauras.enroll_next().await.expect("enrolled");
    let seed = lauras.raw().seed("FEF4900032").expect("a seed");
    let seed = semilla_core::otpauth::decode(seed.expose()).expect("base 32");
    canaries.push(Canary::bytes("the seed", seed.expose()));
    for (name, phone) in [("Andrés's device token", &administrator), ("Laura's", &lauras)] {
        let token = phone.raw().device_token().expect("a token");
        canaries.push(Canary::text(name, token.expose()));
    }

    // A wrong code, a right one, and the same once more.
    let code = |ahead: u64| {
        let step = Step(SystemClock.now().seconds() / 30 + ahead);
        lauras.raw().code_at("FEF4900032", step).expect("a code").code.expose().to_owned()
    };
    for (code, accepted) in [(code(60), false), (code(1), true), (code(1), false)] {
        canaries.push(Canary::standing_alone("a code", &code));
        let body = json!({"token": token, "code": code});
        let answer = program.post("/api/v1/otp/verify", body).await.expect(200);
        assert_eq!(answer["accepted"], accepted);
    }
    let release = format!("/api/v1/tokens/{token}/release");
    let asked = program.post(&release, json!({"cause": "seed_release"})).await.expect(202);
    let number = text(&asked["match_number"]);
    canaries.push(Canary::standing_alone("the number", &number));
    let inbox = administrator.inbox().await.expect("the inbox");
    administrator.approve(inbox.requests[0].id(), &number).await.expect("approved");
    canaries.push(Canary::text("the access token", &program.0.access_token().await.expect("one")));
    // Where secrets are typed that must not be: in addresses, and in fields that are none.
    for path in [format!("/api/v1/tokens?code={}", code(2)), format!("/api/v1/tokens?q={number}")] {
        program.get(&path).await;
    }

    // What was read afterwards by whoever may read everything.
    let mut answers = Vec::new();
    for path in ["tokens", "users", "devices", "policies", "audit?limit=100", "audit/checkpoints"] {
        answers.extend(program.get(&format!("/api/v1/{path}")).await.body.to_vec());
    }
    for path in ["companies", "stock", "users", "audit?limit=100"] {
        answers.extend(operator.get(&format!("/api/v1/{path}")).await.body.to_vec());
    }
    let operation = program.get(&format!("/api/v1/operations/{}", text(&asked["id"]))).await;
    let log = server.log();
    assert!(log.lines().count() > 30, "a line for each request, at the least: {log}");
    let data = home.path().join("data");
    let running = all_in(&data);
    assert!(server.stop().success());
    let stopped = all_in(&data);

    assert_eq!(found(&canaries, log.as_bytes()), Vec::<&str>::new(), "in the log");
    assert_eq!(found(&canaries, &running), Vec::<&str>::new(), "in the database while it runs");
    assert_eq!(found(&canaries, &stopped), Vec::<&str>::new(), "in the database");
    assert_eq!(found(&canaries, &answers), Vec::<&str>::new(), "in answers");
    // The asker's program sees the number while it is good for anything, and nothing else.
    assert_eq!(found(&canaries, asked.to_string().as_bytes()), ["the number (alone)"]);
    assert_eq!(found(&canaries, &operation.body), Vec::<&str>::new());
    // The controls: what must be found is, wherever it is planted.
    for canary in &canaries {
        let planted = [stopped.as_slice(), b" ", canary.example(), b" "].concat();
        assert!(canary.is_in(&planted), "{}", canary.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn security_31_a_seed_in_another_tokens_row_opens_nothing_and_is_told() {
    let (mut world, active) = World::with_active_token().await;
    let other = world.another_company("Industrias del Sur").await;
    let theirs = world.active_token(&other).await;
    world.pass(30).await;
    world.stop().await;
    let database = world.data().join("semilla.db");
    // The thief has a phone of his own, and wants codes of its seed to be good for our token.
    let swap = format!(
        "UPDATE verifiers SET sealed = (SELECT sealed FROM verifiers WHERE token = '{}') WHERE token = '{}'",
        theirs.token, active.token
    );
    sqlite(&database, &swap);
    world.restart().await;
    let (program, trail) = (&world.company.program, world.trail(&world.company).await.len());
    for code in [theirs.phone.code(&theirs.serial), active.phone.code(&active.serial)] {
        let code = code.expect("a code").code;
        let body = json!({"token": active.token, "code": code.expose()});
        program.post("/api/v1/otp/verify", body).await.refused("unavailable");
    }
    let told = world.records_since(&world.company, trail, "otp.seed_unreadable").await;
    assert_eq!(told.len(), 2);
    assert_eq!(told[0]["subject"]["token"], active.token.as_str());
    let code = theirs.phone.code(&theirs.serial).expect("a code").code;
    assert!(other.program.verify(&theirs.token, code.expose()).await, "the control");
}

#[tokio::test(flavor = "multi_thread")]
async fn security_42_the_process_leaves_no_core_and_lets_nobody_attach() {
    let home = Home::make();
    let server = home.serve();
    let process = format!("/proc/{}", server.child.id());
    let limits = std::fs::read_to_string(format!("{process}/limits")).expect("its limits");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a limit");
    let words: Vec<_> = core.split_whitespace().collect();
    assert_eq!(words[4..6], ["0", "0"], "{core}");
    // What is not dumpable belongs to root: nobody else reads its memory, or traces it.
    let owner = std::os::unix::fs::MetadataExt::uid(
        &std::fs::metadata(format!("{process}/environ")).expect("there"),
    );
    assert_eq!(owner, 0);
    assert!(server.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn security_43_what_clients_send_stays_on_its_line_of_the_log() {
    let mut home = Home::make();
    home.environment = vec![("SEMILLA_LOG_LEVEL", "trace".to_owned())];
    let server = home.serve();
    let nasty = "GET /x%0d%0a%1b[31mfake HTTP/1.1\r\nHost: a\r\nUser-Agent: \u{202e}evil\u{1b}]0;x\u{7}\r\nConnection: close\r\n\r\n";
    semilla_tests::socket::exchange(&home.base(), nasty.as_bytes()).await;
    semilla_tests::socket::exchange(&home.base(), b"\x16\x03\x01\x1b[31m\r\n\r\n").await;
    let log = server.log();
    assert!(server.stop().success());
    assert!(!log.contains('\u{1b}') && !log.contains('\u{202e}') && !log.contains('\u{7}'));
    for line in log.lines().filter(|line| !line.is_empty()) {
        assert!(serde_json::from_str::<Value>(line).is_ok(), "no line of JSON: {line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn security_37_and_128_no_number_or_seed_is_in_what_an_administrator_or_a_bystander_sees() {
    let (world, active) = World::with_active_token().await;
    let seed = active.phone.raw().seed(&active.serial).expect("a seed");
    let seed = semilla_core::otpauth::decode(seed.expose()).expect("base 32");
    let canaries = [Canary::bytes("the seed", seed.expose())];
    let release = format!("/api/v1/tokens/{}/release", active.token);
    let cause = json!({"cause": "seed_release"});
    let asked = world.company.program.post(&release, cause).await.expect(202);
    approve(&world, &active.administrator, &asked).await;
    for path in ["tokens", "audit?limit=100", "devices", "users"] {
        let answer = world.company.program.get(&format!("/api/v1/{path}")).await;
        assert_eq!(found(&canaries, &answer.body), Vec::<&str>::new(), "{path}");
    }
}
