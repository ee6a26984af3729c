//! What is secret stays where it belongs. The whole flow is played on the real process at its most
//! talkative, and then everything it left is searched for every secret there was, in every form:
//! its log, its database with what is not yet in the main file, and its answers (security 12, 30,
//! 35, 38, 40, 93).

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use semilla_approver::Phone;
use semilla_approver::entropy::SystemEntropy;
use semilla_approver::http::Transport;
use semilla_approver::pin::Pin;
use semilla_approver::store::{FileStore, Stretch};
use semilla_core::id::CompanyId;
use semilla_core::operations::RotateCause;
use semilla_core::otp::Step;
use semilla_core::seal::{Purpose, Sealed};
use semilla_server::clock::{Clock, SystemClock};
use semilla_server::config::master_key;
use semilla_tests::canary::{Canary, found};
use semilla_tests::http::{Expect, Http, Program};
use semilla_tests::memory::Masked;
use semilla_tests::process::{Home, semilla, sqlite};
use semilla_tests::wire::Wire;
use semilla_tests::world::{COMPANY_SCOPES, World};
use serde_json::{Value, json};

use crate::flow::approve;

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

/// What opens the phones of these stories.
const PIN: &str = "482915";

/// By how many seconds server and phones are ahead of the machine, in the second half.
const AHEAD: u64 = 60;

/// A phone that keeps everything in `folder`, on a way to the server where somebody listens.
fn phone(folder: &Path, way: &Arc<dyn Transport>, ahead: &Arc<AtomicU64>) -> Phone {
    let pin = Pin::chosen(PIN).expect("a PIN");
    let store = FileStore::create(folder, &pin, Stretch::CHEAP).expect("a store");
    let ahead = Arc::clone(ahead);
    let clock = Arc::new(move || {
        SystemClock.now().plus(Duration::from_secs(ahead.load(Ordering::Relaxed)))
    });
    Phone::new(Arc::new(store.into()), clock, Arc::new(SystemEntropy)).over(Arc::clone(way))
}

/// The keys that the server keeps sealed in its database.
fn server_keys(home: &Home) -> Vec<Canary> {
    let keys = master_key::load(&home.path().join("keys/master.key")).expect("the master key");
    let rows = sqlite(&home.database(), "SELECT json_group_array(json(body)) FROM settings");
    let rows: Vec<Value> = serde_json::from_str(&rows).expect("JSON");
    let opened = rows.iter().filter_map(|row| {
        let (id, sealed) = (row["name"].as_str()?, row["value"].as_str()?);
        let purpose = Purpose::Other { kind: "secret", company: CompanyId::BANK, id };
        let opened = keys.open(&Sealed::from_stored(sealed.to_owned()), &purpose).ok()?;
        Some(Canary::bytes(id, &opened))
    });
    opened.collect()
}

/// The seed that a phone holds.
fn seed_of(phone: &Phone) -> Canary {
    let seed = phone.raw().seed("FEF4900032").expect("a seed");
    let seed = semilla_core::otpauth::decode(seed.expose()).expect("base 32");
    Canary::bytes("a seed", seed.expose())
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
async fn security_12_30_35_38_40_93_and_128_no_secret_is_found_in_logs_files_or_answers() {
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
    let (way, came) = Wire::recording();
    let ahead = Arc::new(AtomicU64::new(0));
    let pockets = [home.folder.path().join("andres"), home.folder.path().join("laura")];
    let (administrator, lauras) =
        pockets.each_ref().map(|folder| phone(folder, &way, &ahead)).into();
    let path = format!("/api/v1/users/{andres}/activation");
    let made = program.post(&path, json!({})).await.expect(201);
    administrator.bind(&activation("Andrés's code", made, &mut canaries)).await.expect("bound");
    let assign = format!("/api/v1/tokens/{token}/assign");
    let opened = program.post(&assign, json!({"user": laura})).await.expect(201);
    let path = format!("/api/v1/enrollments/{}/activation", text(&opened["enrollment"]["id"]));
    let made = program.post(&path, json!({})).await.expect(201);
    lauras.bind(&activation("Laura's code", made, &mut canaries)).await.expect("bound");
    lauras.enroll_next().await.expect("enrolled");
    canaries.push(seed_of(&lauras));
    // Another seed is proven by a code of another moment.
    let first_log = server.log();
    assert!(server.stop().success());
    home.ahead = AHEAD;
    ahead.store(AHEAD, Ordering::Relaxed);
    let server = home.serve();
    lauras.renew("FEF4900032", RotateCause::Suspicion).await.expect("another seed");
    canaries.push(seed_of(&lauras));
    canaries.push(Canary::standing_alone("the PIN", PIN));
    // What came to the phones may hold the device tokens, and what follows is nobody's answer.
    let never_sent = canaries.clone();
    for (name, phone) in [("Andrés's device token", &administrator), ("Laura's", &lauras)] {
        let token = phone.raw().device_token().expect("a token");
        canaries.push(Canary::text(name, token.expose()));
    }

    // A wrong code, a right one, and the same once more.
    let code = |ahead: u64| {
        let step = Step((SystemClock.now().seconds() + AHEAD) / 30 + ahead);
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
    let log = [first_log, server.log()].join("\n");
    assert!(log.lines().count() > 30, "a line for each request, at the least: {log}");
    let data = home.path().join("data");
    let running = all_in(&data);
    assert!(server.stop().success());
    let stopped = all_in(&data);
    let signing = server_keys(&home);
    assert!(signing.iter().any(|key| key.name == "signing-key"), "{signing:?}");
    canaries.extend(signing);
    let pockets = [all_in(&pockets[0]), all_in(&pockets[1])].concat();
    let came = came.lock().expect("no panic").clone();

    assert_eq!(found(&canaries, log.as_bytes()), Vec::<&str>::new(), "in the log");
    assert_eq!(found(&canaries, &running), Vec::<&str>::new(), "in the database while it runs");
    assert_eq!(found(&canaries, &stopped), Vec::<&str>::new(), "in the database");
    assert_eq!(found(&canaries, &answers), Vec::<&str>::new(), "in answers");
    assert_eq!(found(&canaries, &pockets), Vec::<&str>::new(), "in what the phones keep");
    assert!(came.len() > 1_000, "the phones were answered");
    assert_eq!(found(&never_sent, &came), Vec::<&str>::new(), "in what came to the phones");
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

/// How many codes are checked before memory is searched.
const CHECKS: u64 = 400;

#[tokio::test(flavor = "multi_thread")]
async fn security_41_no_seed_stays_in_memory_behind_the_checks() {
    let (world, active) = World::with_active_token().await;
    let seed = active.phone.raw().seed(&active.serial).expect("a seed");
    let decoded = semilla_core::otpauth::decode(seed.expose()).expect("base 32");
    let (text, bytes) =
        (Masked::end_of(seed.expose().as_bytes()), Masked::end_of(decoded.expose()));
    assert!(bytes.copies() > 0 && text.copies() > 0, "the control: what is held is found");
    drop((seed, decoded));
    let now = world.now().seconds() / 30;
    let code = |ahead| active.phone.raw().code_at(&active.serial, Step(now + ahead));
    let codes: Vec<_> = (1..=CHECKS).map(|ahead| code(ahead).expect("a code").code).collect();
    let token = active.token;
    drop(active.phone);
    for (number, code) in codes.iter().enumerate() {
        world.clock.advance(Duration::from_secs(30));
        assert!(world.company.program.verify(&token, code.expose()).await);
        // Every now and then, since what is left behind is written over sooner or later.
        if number % 20 == 19 {
            assert_eq!((bytes.copies(), text.copies()), (0, 0), "as bytes, and as base 32");
        }
    }
}

/// The user whom a process acts as.
fn user_of(process: &str) -> u32 {
    let status = std::fs::read_to_string(format!("{process}/status")).expect("its status");
    let line = status.lines().find(|line| line.starts_with("Uid:")).expect("its user");
    line.split_whitespace().nth(2).expect("the second").parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn security_42_the_process_leaves_no_core_and_lets_nobody_attach() {
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::process::ExitStatusExt;
    let mut home = Home::make();
    if user_of("/proc/self") == 0 {
        // As root everything belongs to root anyway: as somebody else.
        let program = home.folder.path().join("program");
        std::fs::copy(semilla(), &program).expect("copied");
        let chown = ["-R", "65534:65534"];
        let given = Command::new("chown").args(chown).arg(home.folder.path()).status();
        assert!(given.expect("chown runs").success());
        let program = program.to_str().expect("a path");
        let line = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", program];
        home.program = line.map(str::to_owned).to_vec();
    }
    let mut server = home.serve();
    let process = format!("/proc/{}", server.child.id());
    let limits = std::fs::read_to_string(format!("{process}/limits")).expect("its limits");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a limit");
    let words: Vec<_> = core.split_whitespace().collect();
    assert_eq!(words[4..6], ["0", "0"], "{core}");
    // What is not dumpable belongs to root, whoever runs it: nobody else reads its memory, or
    // traces it.
    assert_ne!(user_of(&process), 0, "the control: it is not root's");
    let owner = std::fs::metadata(format!("{process}/environ")).expect("there").uid();
    assert_eq!(owner, 0);
    let abort = Command::new("kill").args(["-ABRT", &server.child.id().to_string()]).status();
    assert!(abort.expect("kill runs").success());
    let ended = server.child.wait().expect("its status");
    assert!(ended.signal().is_some() && !ended.core_dumped(), "{ended}");
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
