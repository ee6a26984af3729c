//! Tokens that come with their seeds, from the file to the code: imported, allotted, assigned,
//! proven by a code of the thing itself, verified with look-ahead, found again by two codes, and
//! given to somebody else. Their codes come from oathtool, which shares no code with ours.

use std::process::Command;
use std::sync::Arc;

use semilla_tests::canary::{Canary, found};
use semilla_tests::http::Expect;
use semilla_tests::process::{Home, run, sqlite};
use semilla_tests::seeded::Seeded;
use semilla_tests::socket::exchange;
use semilla_tests::world::{BEGINNING, World};
use serde_json::{Value, json};

use super::flow::approve;

/// Twenty bytes that nothing else would say.
const SEED: &str = "a1b2c3d4e5f60718293a4b5c6d7e8f9001122334";

/// A file of one token with a counter and two that go by time.
fn file() -> String {
    format!(
        "serial,type,secret_hex,algorithm,digits,period,counter\n\
         HW-1000,hotp,{SEED},SHA1,6,,7\n\
         HW-1001,totp,{SEED},SHA256,8,60,\n\
         HW-1002,totp,{SEED},SHA512,7,30,\n"
    )
}

fn oathtool(arguments: &[&str]) -> String {
    let ran = Command::new("oathtool").args(arguments).arg(SEED).output();
    let ran = ran.expect("oathtool is installed: run tests/run");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).expect("digits").trim().to_owned()
}

fn hotp(counter: u64) -> String {
    oathtool(&["--hotp", "-d", "6", "-c", &counter.to_string()])
}

/// The code of HW-1001, so many seconds from the beginning of the story.
fn totp(seconds: i64) -> String {
    let now = format!("@{}", BEGINNING + seconds);
    oathtool(&["--totp=sha256", "-d", "8", "-s", "60s", "--now", &now])
}

async fn import(world: &World, content: &str) -> Value {
    let body = json!({"format": "csv", "content": content});
    world.operator.post("/api/v1/stock/import", body).await.expect(200)
}

async fn allot(world: &World, serial: &str, company: &str) {
    let body = json!({"first": serial, "count": 1, "company": company});
    world.operator.post("/api/v1/stock/allot", body).await.expect(200);
}

/// The id of a token of the company.
async fn named(world: &World, serial: &str) -> String {
    let path = format!("/api/v1/tokens?q={serial}");
    let listed = world.company.program.get(&path).await.expect(200);
    listed["items"][0]["id"].as_str().expect("a token").to_owned()
}

/// Gives a token to a person. Returns the enrollment.
async fn assign(world: &World, token: &str, user: &str) -> String {
    let path = format!("/api/v1/tokens/{token}/assign");
    let opened = world.company.program.post(&path, json!({"user": user})).await.expect(201);
    assert_eq!(opened["enrollment"]["state"], "in_hand");
    opened["enrollment"]["id"].as_str().expect("an id").to_owned()
}

async fn confirm(world: &World, enrollment: &str, body: Value) -> bool {
    let path = format!("/api/v1/enrollments/{enrollment}/confirm");
    let reply = world.company.program.post(&path, body).await;
    if reply.status.is_success() {
        return true;
    }
    reply.refused("code-invalid");
    false
}

/// A world in which Laura holds an imported token, which is yet to be proven.
async fn assigned(serial: &str) -> (World, String, String) {
    let world = World::begin().await;
    import(&world, &file()).await;
    allot(&world, serial, &world.company.id).await;
    let token = named(&world, serial).await;
    let enrollment = assign(&world, &token, &world.company.laura).await;
    (world, token, enrollment)
}

async fn resync(world: &World, token: &str, codes: [String; 2]) -> bool {
    let path = format!("/api/v1/tokens/{token}/resync");
    let answer = world.company.program.post(&path, json!({"codes": codes})).await.expect(200);
    answer["accepted"].as_bool().expect("an answer")
}

async fn outcomes(world: &World) -> Vec<String> {
    let store = &world.server().app.store;
    let company = world.company.id.parse().expect("an id");
    let mut outcomes = Vec::new();
    for item in world.trail(&world.company).await {
        if item["record"]["kind"] == "otp.checked" {
            let sequence = item["sequence"].as_u64().expect("a number");
            let attempts = store.attempts(company, sequence).await.expect("attempts");
            outcomes.extend(attempts.into_iter().map(|attempt| attempt.outcome));
        }
    }
    outcomes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_with_a_counter_lives_as_the_table_says() {
    let (world, token, enrollment) = assigned("HW-1000").await;
    let (program, company) = (&world.company.program, &world.company);
    let path = format!("/api/v1/tokens/{token}");
    let administrator = world.bound_phone(company, &company.administrator).await;

    // No phone is needed, and none is offered the seed.
    let activation = format!("/api/v1/enrollments/{enrollment}/activation");
    program.post(&activation, json!({})).await.refused("state-conflict");
    let lauras = world.bound_phone(company, &company.laura).await;
    assert!(lauras.enroll_next().await.is_err(), "there is nothing to enroll on a phone");

    assert!(!program.verify(&token, &hotp(7)).await, "nothing is accepted before it is proven");
    assert!(!confirm(&world, &enrollment, json!({"code": hotp(6)})).await, "used at the factory");
    assert!(confirm(&world, &enrollment, json!({"code": hotp(9)})).await, "within the look-ahead");
    let shown = program.get(&path).await.expect(200);
    let text = |name: &str| shown[name].as_str().unwrap_or_default().to_owned();
    assert_eq!((text("kind"), text("state")), ("physical".to_owned(), "active".to_owned()));

    assert!(!program.verify(&token, &hotp(9)).await, "the code that proved it is used");
    assert!(program.verify(&token, &hotp(10)).await);
    assert!(program.verify("HW-1000", &hotp(12)).await, "also by its serial number");
    let by_person = json!({"user": company.laura, "code": hotp(13)});
    let answer = program.post("/api/v1/otp/verify", by_person).await.expect(200);
    assert_eq!(answer["accepted"], true, "and by its holder");
    for dead in [10, 11, 12, 13] {
        assert!(!program.verify(&token, &hotp(dead)).await, "{dead}");
    }
    assert!(!program.verify(&token, &hotp(25)).await, "one beyond the look-ahead");
    world.pass(60).await;
    assert!(program.verify(&token, &hotp(24)).await, "the last one within it");

    program
        .post(&format!("{path}/rotate"), json!({"cause": "suspicion"}))
        .await
        .refused("state-conflict");
    program.post(&format!("{path}/block"), json!({"cause": "user_inactive"})).await.expect(200);
    assert!(!program.verify(&token, &hotp(25)).await, "blocked");
    let asked = program.post(&format!("{path}/unblock"), json!({})).await.expect(202);
    approve(&world, &administrator, &asked).await;
    assert!(program.verify(&token, &hotp(25)).await, "the same seed works again");

    // Released, it keeps its seed for the next holder, and accepts nobody's codes meanwhile.
    let cause = json!({"cause": "user_left_company"});
    let asked = program.post(&format!("{path}/release"), cause).await.expect(202);
    approve(&world, &administrator, &asked).await;
    assert!(!program.verify(&token, &hotp(26)).await, "nobody holds it");
    let enrollment = assign(&world, &token, &company.administrator).await;
    assert!(!program.verify(&token, &hotp(26)).await, "not yet proven");
    for old in [7, 24, 25] {
        assert!(!confirm(&world, &enrollment, json!({"code": hotp(old)})).await, "{old}");
    }
    assert!(confirm(&world, &enrollment, json!({"code": hotp(26)})).await);
    assert!(program.verify(&token, &hotp(27)).await);
    assert_eq!(program.get(&path).await.expect(200)["generation"], 2);

    // Lost, its seed is destroyed, and no release brings it back.
    program
        .post(&format!("{path}/block"), json!({"cause": "device_lost_or_stolen"}))
        .await
        .expect(200);
    program.post(&format!("{path}/unblock"), json!({})).await.refused("state-conflict");
    let asked = program
        .post(&format!("{path}/release"), json!({"cause": "seed_release"}))
        .await
        .expect(202);
    approve(&world, &administrator, &asked).await;
    let again = program.post(&format!("{path}/assign"), json!({"user": company.laura})).await;
    again.refused("state-conflict");
}

#[tokio::test(flavor = "multi_thread")]
async fn security_6_two_codes_in_a_row_find_a_token_ahead_and_never_behind() {
    let (world, token, enrollment) = assigned("HW-1000").await;
    let program = &world.company.program;
    assert!(confirm(&world, &enrollment, json!({"code": hotp(7)})).await);
    // Pressed far too often in a pocket.
    assert!(!program.verify(&token, &hotp(400)).await);
    assert!(!resync(&world, &token, [hotp(400), hotp(402)]).await, "not in a row");
    assert!(!resync(&world, &token, [hotp(401), hotp(400)]).await, "the wrong way round");
    assert!(resync(&world, &token, [hotp(400), hotp(401)]).await);
    for spent in [[hotp(400), hotp(401)], [hotp(398), hotp(399)], [hotp(401), hotp(402)]] {
        assert!(!resync(&world, &token, spent).await, "both are consumed, with all before them");
    }
    assert!(!program.verify(&token, &hotp(401)).await);
    world.pass(600).await;
    assert!(program.verify(&token, &hotp(402)).await);
    assert!(!resync(&world, &token, [hotp(1500), hotp(1501)]).await, "too far");
    let outcomes = outcomes(&world).await;
    let count = |word: &str| outcomes.iter().filter(|outcome| *outcome == word).count();
    assert_eq!((count("resynchronized"), count("accepted")), (1, 1), "{outcomes:?}");
    let kinds = world.kinds_since(&world.company, 0).await;
    assert!(kinds.iter().any(|kind| kind == "otp.resynchronized"));
}

#[tokio::test(flavor = "multi_thread")]
async fn security_16_and_21_a_resynchronization_is_an_attempt_like_any_other() {
    let (world, token, enrollment) = assigned("HW-1000").await;
    let program = &world.company.program;
    assert!(confirm(&world, &enrollment, json!({"code": hotp(7)})).await);
    let wrong = ["000000".to_owned(), "000001".to_owned()];
    for _ in 0..2 {
        assert!(!program.verify(&token, "000000").await);
        assert!(!resync(&world, &token, wrong.clone()).await);
    }
    assert!(!resync(&world, &token, wrong.clone()).await, "the fifth failure");
    assert!(!resync(&world, &token, [hotp(8), hotp(9)]).await, "waits, whatever is sent");
    assert!(outcomes(&world).await.last().is_some_and(|outcome| outcome.starts_with("waiting")));
    world.pass(25).await;
    assert!(resync(&world, &token, [hotp(8), hotp(9)]).await, "neither burned nor forgiven");
    // In parallel: once.
    let world = Arc::new(world);
    let tried = (0..20).map(|_| {
        let (world, token) = (Arc::clone(&world), token.clone());
        tokio::spawn(async move { resync(&world, &token, [hotp(20), hotp(21)]).await })
    });
    let mut accepted = 0;
    for one in tried.collect::<Vec<_>>() {
        accepted += u32::from(one.await.expect("no panic"));
    }
    assert_eq!(accepted, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_goes_by_time_is_followed_forward_only() {
    let (world, token, enrollment) = assigned("HW-1001").await;
    let program = &world.company.program;
    // In a drawer its clock went seven steps slow: two codes say so, and nothing was accepted yet.
    let slow = -7 * 60;
    assert!(!confirm(&world, &enrollment, json!({"code": totp(slow)})).await);
    let two = json!({"code": totp(slow - 60), "next_code": totp(slow)});
    assert!(confirm(&world, &enrollment, two).await);
    world.pass(60).await;
    assert!(program.verify(&token, &totp(60 + slow)).await);
    assert!(!program.verify(&token, &totp(60 + slow)).await, "once");
    // Its clock jumps ahead: found again. Codes of where it was are dead from then on.
    let fast = 20 * 60;
    assert!(resync(&world, &token, [totp(fast), totp(fast + 60)]).await);
    for back in [0, 5 * 60, fast - 60] {
        assert!(!resync(&world, &token, [totp(back), totp(back + 60)]).await, "{back}");
    }
    world.pass(120).await;
    assert!(program.verify(&token, &totp(120 + fast + 60)).await);
    assert!(!program.verify(&token, &totp(180)).await, "not where ours is");
    // A virtual token follows the phone's clock, and is never looked for.
    let active = world.active_token(&world.another_company("Otra S.A.S.").await).await;
    let path = format!("/api/v1/tokens/{}/resync", active.token);
    let codes = json!({"codes": ["12345678", "12345679"]});
    program.post(&path, codes).await.refused("not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_company_that_gets_a_token_begins_where_the_one_before_ended() {
    let (world, token, enrollment) = assigned("HW-1000").await;
    let program = &world.company.program;
    let administrator = world.bound_phone(&world.company, &world.company.administrator).await;
    assert!(confirm(&world, &enrollment, json!({"code": hotp(7)})).await);
    assert!(program.verify(&token, &hotp(8)).await);
    let path = format!("/api/v1/tokens/{token}/release");
    let asked = program.post(&path, json!({"cause": "customer_request"})).await.expect(202);
    approve(&world, &administrator, &asked).await;
    let run = json!({"first": "HW-1000", "count": 1});
    world.operator.post("/api/v1/stock/withdraw", run).await.expect(200);

    let other = world.another_company("Otra S.A.S.").await;
    allot(&world, "HW-1000", &other.id).await;
    let path = format!("/api/v1/tokens/{token}/assign");
    let opened = other.program.post(&path, json!({"user": other.laura})).await.expect(201);
    let id = opened["enrollment"]["id"].as_str().expect("an id");
    let confirm = format!("/api/v1/enrollments/{id}/confirm");
    for old in [7, 8] {
        let code = json!({"code": hotp(old)});
        other.program.post(&confirm, code).await.refused("code-invalid");
    }
    other.program.post(&confirm, json!({"code": hotp(9)})).await.expect(200);
    assert!(!program.verify(&token, &hotp(10)).await, "the former company's token no more");
    assert!(other.program.verify(&token, &hotp(10)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_of_others_stays_with_its_holder_and_so_its_seed_dies_with_the_release() {
    let world = World::begin().await;
    let body = json!({"format": "csv", "kind": "software", "content": file()});
    world.operator.post("/api/v1/stock/import", body).await.expect(200);
    allot(&world, "HW-1000", &world.company.id).await;
    let (token, company) = (named(&world, "HW-1000").await, &world.company);
    let enrollment = assign(&world, &token, &company.laura).await;
    assert!(confirm(&world, &enrollment, json!({"code": hotp(7)})).await);
    // Beside it she may hold a virtual one, so that she is never without a code.
    let (virtual_one, _, _) = world.assigned(company, &company.laura).await;
    let by_person = json!({"user": company.laura, "code": hotp(8)});
    let answer = company.program.post("/api/v1/otp/verify", by_person).await.expect(200);
    assert_eq!(answer["accepted"], true, "the virtual one is yet to be enrolled");
    assert_ne!(virtual_one, token);
    let administrator = world.bound_phone(company, &company.administrator).await;
    let path = format!("/api/v1/tokens/{token}");
    let asked = company
        .program
        .post(&format!("{path}/release"), json!({"cause": "seed_release"}))
        .await
        .expect(202);
    approve(&world, &administrator, &asked).await;
    let assign = json!({"user": company.administrator});
    company.program.post(&format!("{path}/assign"), assign).await.refused("state-conflict");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_says_line_by_line_what_an_import_would_do_and_a_half_bad_file_does_nothing() {
    let world = World::begin().await;
    let half =
        format!("GOOD1,{SEED}\nBAD-2,123\n\n# a word\nGOOD1,{SEED}\nGOOD3,{SEED},TOTP,6,60\n");
    let before = world.operator.get("/api/v1/stock").await.expect(200)["total"].clone();
    let body = |dry_run| json!({"format": "csv", "content": half, "dry_run": dry_run});
    let report = world.operator.post("/api/v1/stock/import", body(true)).await.expect(200);
    assert_eq!(report["imported"], false);
    assert_eq!((&report["ready"], &report["faulty"]), (&json!(2), &json!(2)));
    let lines: Vec<_> = report["lines"]
        .as_array()
        .expect("lines")
        .iter()
        .map(|line| (line["line"].as_u64(), line["method"].as_str(), line["fault"].is_string()))
        .collect();
    let expected = [
        (Some(1), Some("hotp"), false),
        (Some(2), None, true),
        (Some(5), None, true),
        (Some(6), Some("totp"), false),
    ];
    assert_eq!(lines, expected);
    let refused = world.operator.post("/api/v1/stock/import", body(false)).await;
    let problem = refused.refused("validation");
    assert_eq!(problem["errors"].as_array().map(Vec::len), Some(2));
    assert!(
        problem["errors"][0]["detail"]
            .as_str()
            .is_some_and(|text| text.starts_with("line 2 (BAD-2)"))
    );
    assert_eq!(world.operator.get("/api/v1/stock").await.expect(200)["total"], before);

    // A whole file goes in, once; with its key it is answered again, and without it refused.
    let whole = json!({"format": "csv", "content": file()});
    let key = [("idempotency-key", "one-delivery")];
    let path = "/api/v1/stock/import";
    let first = world.operator.send("POST", path, &key, Some(whole.clone())).await.expect(200);
    let again = world.operator.send("POST", path, &key, Some(whole.clone())).await.expect(200);
    assert_eq!(first, again);
    let problem = world.operator.post(path, whole).await.refused("validation");
    assert_eq!(problem["errors"].as_array().map(Vec::len), Some(3));
    // As an inventory entry a physical token has no seed, and nobody is given it.
    let issue = json!({"first": "FIS0000001", "count": 1, "kind": "physical"});
    world.operator.post("/api/v1/stock/issue", issue).await.expect(200);
    allot(&world, "FIS0000001", &world.company.id).await;
    let token = named(&world, "FIS0000001").await;
    let path = format!("/api/v1/tokens/{token}/assign");
    let user = json!({"user": world.company.laura});
    world.company.program.post(&path, user).await.refused("state-conflict");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_in_the_stock_and_came_with_its_seed_leaves_and_the_audit_says_so() {
    let world = World::begin().await;
    import(&world, &file()).await;
    let issue = json!({"first": "FEF0000001", "count": 1});
    world.operator.post("/api/v1/stock/issue", issue).await.expect(200);
    allot(&world, "HW-1002", &world.company.id).await;
    let path = "/api/v1/stock/export";
    let passphrase = "correct horse battery staple";
    let one = |serial: &str| json!({"passphrase": passphrase, "serials": [serial]});
    for stays in ["HW-1002", "FEF0000001", "HW-9999"] {
        world.operator.post(path, one(stays)).await.refused("validation");
    }
    world.operator.post(path, json!({"passphrase": "short"})).await.refused("validation");
    world.company.program.post(path, one("HW-1000")).await.refused("forbidden");
    let exported = world.operator.post(path, json!({"passphrase": passphrase})).await.expect(200);
    assert_eq!(exported["tokens"], 2, "of the stock, and not the virtual one");
    let content = exported["content"].as_str().expect("a file");
    let seed = Canary::bytes("seed", &bytes(SEED));
    assert!(!seed.is_in(content.as_bytes()));
    let trail = world.operator.get("/api/v1/audit?kind=token.exported").await.expect(200);
    assert_eq!(trail["items"].as_array().map(Vec::len), Some(2));
    let summary = world.operator.get("/api/v1/audit?kind=stock.exported").await.expect(200);
    assert!(summary["items"][0]["record"]["actor"].to_string().contains("asker"));
    // A company that gets one of them is told.
    allot(&world, "HW-1001", &world.company.id).await;
    let told = world.company.program.get("/api/v1/audit?kind=token.allotted").await.expect(200);
    assert!(told.to_string().contains("seed_exported_at"), "{told}");

    // Another server reads the file with the passphrase and with no other; counters go along.
    let elsewhere = World::begin().await;
    let file =
        |passphrase: &str| json!({"format": "pskc", "content": content, "passphrase": passphrase});
    let path = "/api/v1/stock/import";
    elsewhere.operator.post(path, file("correct horse battery stable")).await.refused("validation");
    elsewhere.operator.post(path, file(passphrase)).await.expect(200);
    allot(&elsewhere, "HW-1000", &elsewhere.company.id).await;
    let token = named(&elsewhere, "HW-1000").await;
    let enrollment = assign(&elsewhere, &token, &elsewhere.company.laura).await;
    assert!(!confirm(&elsewhere, &enrollment, json!({"code": hotp(6)})).await);
    assert!(confirm(&elsewhere, &enrollment, json!({"code": hotp(7)})).await);
}

fn bytes(hexadecimal: &str) -> Vec<u8> {
    let pairs = hexadecimal.as_bytes().chunks(2);
    let text = |pair: &[u8]| String::from_utf8_lossy(pair).into_owned();
    pairs.map(|pair| u8::from_str_radix(&text(pair), 16).expect("hexadecimal")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn security_30_and_40_an_imported_seed_is_in_no_answer_record_or_file() {
    let mut world = World::begin().await;
    let mut said = import(&world, &file()).await.to_string();
    let wrong = json!({"format": "csv", "content": format!("HW-2,{SEED},OCRA\nHW-1000,{SEED}")});
    said.push_str(
        &world.operator.post("/api/v1/stock/import", wrong).await.refused("validation").to_string(),
    );
    let cut = json!({"format": "pskc", "content": format!("<a>{SEED}")});
    said.push_str(
        &world.operator.post("/api/v1/stock/import", cut).await.refused("validation").to_string(),
    );
    let twisted = json!({"format": SEED, "content": 7});
    said.push_str(
        &world
            .operator
            .post("/api/v1/stock/import", twisted)
            .await
            .refused("validation")
            .to_string()
            .replace(SEED, ""),
    );
    allot(&world, "HW-1000", &world.company.id).await;
    let token = named(&world, "HW-1000").await;
    let enrollment = assign(&world, &token, &world.company.laura).await;
    assert!(confirm(&world, &enrollment, json!({"code": hotp(7)})).await);
    let path = format!("/api/v1/enrollments/{enrollment}");
    said.push_str(&world.company.program.get(&path).await.expect(200).to_string());
    said.push_str(&world.company.program.get("/api/v1/tokens").await.expect(200).to_string());
    for item in world.trail(&world.company).await {
        said.push_str(&item.to_string());
    }
    let passphrase = "correct horse battery staple";
    let exported = json!({"passphrase": passphrase});
    said.push_str(
        &world.operator.post("/api/v1/stock/export", exported).await.expect(200).to_string(),
    );
    world.stop().await;
    let canaries = [Canary::bytes("seed", &bytes(SEED)), Canary::text("passphrase", passphrase)];
    assert_eq!(found(&canaries, said.as_bytes()), Vec::<&str>::new());
    let mut looked_at = 0;
    for entry in std::fs::read_dir(world.data()).expect("the folder") {
        let path = entry.expect("an entry").path();
        let content = std::fs::read(&path).expect("a file");
        looked_at += content.len();
        assert_eq!(found(&canaries, &content), Vec::<&str>::new(), "{}", path.display());
    }
    assert!(looked_at > 100_000, "there was something to look at");
}

#[tokio::test(flavor = "multi_thread")]
async fn security_97_a_file_has_its_own_limit_and_a_hostile_one_costs_nothing() {
    let world = World::begin().await;
    let token = world.operator.0.access_token().await.expect("a token");
    let bearer = format!("Bearer {token}");
    let path = "/api/v1/stock/import";
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {bearer}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        8 * 1024 * 1024 + 1
    );
    let answer = exchange(world.http().base(), head.as_bytes()).await;
    assert_eq!((answer.status, answer.problem().as_str()), (413, "too-large"));
    // Far above the limit of every other body.
    let many: String = (0..2000).map(|n| format!("M-{n:06},{SEED}\n")).collect();
    assert!(many.len() > 64 * 1024);
    assert_eq!(import(&world, &many).await["ready"], 2000);

    let begun = std::time::Instant::now();
    let bomb =
        "<!DOCTYPE a [<!ENTITY b \"bbbbbbbb\"><!ENTITY c \"&b;&b;&b;&b;&b;&b;\">]><a>&c;</a>";
    let deep = "<a>".repeat(500_000);
    let container = |inner: &str| format!("<KeyContainer Version=\"1.0\">{inner}</KeyContainer>");
    let wide = container(&"<a/>".repeat(1_500_000));
    let slow = container(
        "<EncryptionKey><DerivedKey><KeyDerivationMethod Algorithm=\"#pbkdf2\"><PBKDF2-params>\
         <Salt><Specified>AAAA</Specified></Salt><IterationCount>4000000000</IterationCount>\
         <KeyLength>16</KeyLength></PBKDF2-params></KeyDerivationMethod></DerivedKey></EncryptionKey><KeyPackage/>",
    );
    for content in
        [bomb, &deep, &container(&deep), &wide, &slow, "\u{feff}", &"\n".repeat(1_000_000)]
    {
        let body = json!({"format": "pskc", "content": content, "passphrase": "x"});
        world.operator.post(path, body).await.refused("validation");
    }
    assert!(begun.elapsed() < std::time::Duration::from_secs(20));
}

#[tokio::test(flavor = "multi_thread")]
async fn security_105_a_server_that_is_killed_in_an_import_has_all_of_it_or_nothing() {
    const TOKENS: usize = 400;
    let home = Home::make();
    let credentials = home.path().join("operator.json");
    std::fs::write(&credentials, home.credentials.to_string()).expect("written");
    let mut seeded = Seeded::new(0x5eed);
    let (mut all, mut nothing) = (0, 0);
    for round in 0..8 {
        let lines: String = (0..TOKENS).map(|n| format!("K{round}-{n:05},{SEED}\n")).collect();
        let file = home.path().join("tokens.csv");
        std::fs::write(&file, lines).expect("written");
        let mut server = home.serve();
        let arguments = [
            "tokens",
            "import",
            file.to_str().expect("a path"),
            "--credentials",
            credentials.to_str().expect("a path"),
            "--server",
            &home.base(),
            "--json",
        ];
        let mut asked = Command::new(semilla_tests::process::semilla())
            .args(arguments)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("semilla runs");
        // The first and the last round: before it can have begun, and after its answer.
        match round {
            0 => {}
            7 => assert!(asked.wait().expect("its status").success()),
            _ => {
                let pause = std::time::Duration::from_millis(seeded.below(600) as u64);
                tokio::time::sleep(pause).await;
            }
        }
        server.kill_now();
        let _ = asked.wait();
        let (whole, said) = home.verify();
        assert!(whole, "{said}");
        let count = |sql: &str| sqlite(&home.database(), sql).parse::<usize>().expect("a number");
        let tokens = count(&format!("SELECT count(*) FROM tokens WHERE serial LIKE 'K{round}-%'"));
        let names = count(&format!("SELECT count(*) FROM names WHERE name LIKE 'K{round}-%'"));
        assert!(tokens == 0 || tokens == TOKENS, "{tokens}");
        assert_eq!(tokens, names);
        match tokens {
            0 => nothing += 1,
            _ => all += 1,
        }
        let seeds = count("SELECT count(*) FROM own_seeds");
        assert_eq!(seeds, all * TOKENS, "each with its seed");
        let records = count("SELECT count(*) FROM audit WHERE kind = 'stock.imported'");
        assert_eq!(records, all, "each import with its record");
    }
    assert!(all > 0 && nothing > 0, "{all} {nothing}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_imports_and_exports_from_the_command_line() {
    let home = Home::make();
    let write = |name: &str, text: &str| {
        let path = home.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.to_str().expect("a path").to_owned()
    };
    let credentials = write("operator.json", &home.credentials.to_string());
    let passphrase = write("passphrase", "correct horse battery staple\n");
    let (good, bad) =
        (write("good.csv", &file()), write("bad.csv", &format!("HW-1,{SEED}\nHW-2\n")));
    let out = home.path().join("out.pskcxml");
    let out = out.to_str().expect("a path");
    let server = home.serve();
    let base = home.base();
    let semilla = |arguments: &[&str]| {
        let ours = ["--credentials", &credentials, "--server", &base];
        let ran = run(&[&["tokens"], arguments, &ours].concat());
        let said = String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned();
        (ran.status.code().expect("a code"), said)
    };
    let (code, said) = semilla(&["import", &bad, "--dry-run"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("line      1") && said.contains("another number of fields"), "{said}");
    assert_eq!(semilla(&["import", &good, "--dry-run"]).0, 0);
    let (code, said) = semilla(&["import", &good]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("3 ready, 0 faulty: all of them are in the stock"), "{said}");
    assert_eq!(semilla(&["import", &good]).0, 1, "they exist already");
    let (code, said) = semilla(&["export", "--out", out]);
    assert_eq!(code, 2, "nobody to ask: {said}");
    assert!(!std::path::Path::new(out).exists());
    let (code, said) =
        semilla(&["export", "--out", out, "--passphrase-file", &passphrase, "--json"]);
    assert_eq!(code, 0, "{said}");
    assert!(std::fs::read_to_string(out).expect("the file").contains("KeyContainer"));
    let (code, said) = semilla(&["import", out, "--passphrase-file", &passphrase, "--dry-run"]);
    assert_eq!((code, said.matches("exists").count()), (1, 3), "it reads, and they exist: {said}");
    assert!(server.stop().success());
}
