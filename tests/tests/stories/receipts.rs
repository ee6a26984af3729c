//! What convinces an outsider: a receipt of each executed operation, and an audit trail that holds
//! against checkpoints kept elsewhere (security 91, 92). Both are verified by the program alone,
//! without a server.

use std::path::{Path, PathBuf};
use std::process::Output;

use semilla_core::audit::{Draft, Head};
use semilla_tests::http::Expect;
use semilla_tests::process;
use semilla_tests::world::{Active, World};
use serde_json::{Value, json};

use crate::flow::approve;

/// Files that an outsider holds.
struct Outsider(tempfile::TempDir);

impl Outsider {
    async fn with_keys_of(world: &World) -> Self {
        let outsider = Self(tempfile::tempdir().expect("a folder"));
        let keys = world.http().send("GET", "/jwks", &[], b"").await.expect("an answer");
        outsider.keep("jwks.json", &String::from_utf8_lossy(&keys.body));
        outsider
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn keep(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).expect("written");
        path
    }

    fn run(&self, arguments: &[&str], files: &[(&str, &Path)]) -> (Option<i32>, String) {
        let mut all: Vec<String> = arguments.iter().map(|one| (*one).to_owned()).collect();
        for (option, path) in files {
            if !option.is_empty() {
                all.push((*option).to_owned());
            }
            all.push(path.to_str().expect("a path").to_owned());
        }
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let Output { status, stdout, stderr } = process::run(&all);
        (status.code(), String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned())
    }

    fn verify_receipt(&self, receipt: &str) -> (Option<i32>, String) {
        let receipt = self.keep("receipt.json", receipt);
        self.run(&["receipt", "verify"], &[("", &receipt), ("--keys", &self.path("jwks.json"))])
    }

    fn verify_trail(&self, trail: &str, checkpoints: &str) -> (Option<i32>, String) {
        let trail = self.keep("trail.jsonl", trail);
        let checkpoints = self.keep("checkpoints.txt", checkpoints);
        let keys = self.path("jwks.json");
        let files: [(&str, &Path); 3] =
            [("--export", &trail), ("--checkpoints", &checkpoints), ("--keys", &keys)];
        self.run(&["audit", "verify"], &files)
    }
}

async fn released(world: &World, active: &Active) -> Value {
    let release = format!("/api/v1/tokens/{}/release", active.token);
    let cause = json!({"cause": "user_left_company"});
    let asked = world.company.program.post(&release, cause).await.expect(202);
    approve(world, &active.administrator, &asked).await;
    asked
}

#[tokio::test(flavor = "multi_thread")]
async fn an_executed_operation_has_a_receipt_that_anybody_with_the_public_keys_verifies() {
    let (world, active) = World::with_active_token().await;
    let program = &world.company.program;
    let asked = released(&world, &active).await;
    let path = format!("/api/v1/operations/{}/receipt", asked["id"].as_str().expect("an id"));
    let receipt = program.get(&path).await.expect(200);

    let outsider = Outsider::with_keys_of(&world).await;
    let (code, said) = outsider.verify_receipt(&receipt.to_string());
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(&active.serial) && said.contains("Liberar"), "{said}");

    // The same later, when other checkpoints cover other records.
    world.pass(60).await;
    assert_eq!(program.get(&path).await.expect(200)["record"], receipt["record"]);

    // Whatever is changed in it, it proves nothing.
    let other = World::with_active_token().await;
    let others = released(&other.0, &other.1).await;
    let path = format!("/api/v1/operations/{}/receipt", others["id"].as_str().expect("an id"));
    let others = other.0.company.program.get(&path).await.expect(200);
    for name in receipt.as_object().expect("an object").keys() {
        let mut changed = receipt.clone();
        assert_ne!(changed[name], others[name], "{name}");
        changed[name] = others[name].clone();
        let (code, said) = outsider.verify_receipt(&changed.to_string());
        assert_eq!(code, Some(1), "{name} of another operation: {said}");
    }
    let (code, said) = outsider.verify_receipt(&others.to_string());
    assert_eq!(code, Some(1), "a receipt of another server: {said}");
    assert_eq!(outsider.verify_receipt("{}").0, Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_an_executed_operation_has_a_receipt() {
    let (world, active) = World::with_active_token().await;
    let program = &world.company.program;
    let release = format!("/api/v1/tokens/{}/release", active.token);
    let asked = program.post(&release, json!({"cause": "seed_release"})).await.expect(202);
    let path = format!("/api/v1/operations/{}/receipt", asked["id"].as_str().expect("an id"));
    assert_eq!(program.get(&path).await.refused("state-conflict")["state"], "pending");
    let inbox = active.administrator.inbox().await.expect("the inbox");
    let request = inbox.requests.first().expect("a request");
    let reason = semilla_core::protocol::approval::DenialReason::UserCancelled;
    active.administrator.deny(request.id(), reason).await.expect("denied");
    assert_eq!(program.get(&path).await.refused("state-conflict")["state"], "denied");
    let other = world.another_company("Industrias del Sur").await;
    other.program.get(&path).await.refused("not-found");
}

/// The whole trail of the company as anybody with `audit:read` gets it: one record a line.
async fn trail(world: &World) -> Vec<String> {
    let items = world.trail(&world.company).await;
    // As text, because the hash is over the text.
    let mut lines = Vec::new();
    for after in 0..items.len() {
        let path = format!("/api/v1/audit?limit=1&after={after}");
        let page = world.company.program.get(&path).await;
        let body = String::from_utf8(page.body.to_vec()).expect("UTF-8");
        let start = body.find('[').expect("items") + 1;
        lines.push(body[start..body.rfind(']').expect("items")].to_owned());
    }
    lines
}

async fn checkpoints(world: &World) -> String {
    let path = "/api/v1/audit/checkpoints?limit=100";
    let page = world.company.program.get(path).await.expect(200);
    let items = page["items"].as_array().expect("items");
    items.iter().map(|one| format!("{}\n", one["checkpoint"].as_str().expect("a text"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn security_91_and_92_an_outsider_finds_every_way_to_tamper_with_a_trail() {
    let (world, active) = World::with_active_token().await;
    world.pass(60).await;
    world.company.program.verify(&active.token, &active.code()).await;
    released(&world, &active).await;
    world.pass(60).await;
    let (lines, stated) = (trail(&world).await, checkpoints(&world).await);
    assert!(lines.len() > 10 && stated.lines().count() >= 2, "{stated}");
    let file = std::fs::read_to_string(world.checkpoints()).expect("the file of checkpoints");
    assert!(stated.lines().all(|line| file.contains(line)), "the same, outside the database");

    let outsider = Outsider::with_keys_of(&world).await;
    let check = |lines: &[String]| outsider.verify_trail(&lines.join("\n"), &stated);
    let (code, said) = check(&lines);
    assert_eq!(code, Some(0), "{said}");

    let mut edited = lines.clone();
    edited[4] = edited[4].replacen("\"at\":\"2026", "\"at\":\"2025", 1);
    assert_ne!(edited, lines);
    let mut deleted = lines.clone();
    deleted.remove(4);
    let mut reordered = lines.clone();
    reordered.swap(4, 5);
    let mut inserted = lines.clone();
    inserted.insert(4, lines[3].clone());
    let mut cut = lines.clone();
    cut.pop();
    // Every hash made anew by the rules, over a history in which the release has another cause.
    let mut head = Head::EMPTY;
    let rewritten: Vec<String> = lines
        .iter()
        .map(|line| {
            let line: Value = serde_json::from_str(line).expect("JSON");
            let text = line["record"].to_string().replace("user_left_company", "seed_release");
            let draft: Draft = serde_json::from_str(&text).expect("a draft");
            let record = head.append(&draft);
            head = Head { sequence: record.sequence, hash: record.hash };
            semilla_server::proof::line(&record, None)
        })
        .collect();
    let attacks = [
        ("an edit", edited),
        ("a deletion", deleted),
        ("another order", reordered),
        ("an insertion", inserted),
        ("a cut tail", cut.clone()),
        ("a chain written anew", rewritten.clone()),
    ];
    for (what, lines) in attacks {
        let (code, said) = check(&lines);
        assert_eq!(code, Some(1), "{what}: {said}");
    }
    // The last two fit in themselves: without checkpoints they pass, which is what those are for.
    for lines in [cut, rewritten] {
        let trail = outsider.keep("trail.jsonl", &lines.join("\n"));
        let (code, said) = outsider.run(&["audit", "verify"], &[("--export", &trail)]);
        assert_eq!(code, Some(0), "{said}");
    }
    // A checkpoint that is missing, or of another server, convinces nobody.
    let first = stated.lines().next().expect("one");
    let missing = stated.replace(&format!("{first}\n"), "");
    assert_eq!(outsider.verify_trail(&lines.join("\n"), &missing).0, Some(1));
    let stranger = World::begin().await;
    stranger.pass(60).await;
    let foreign = checkpoints(&stranger).await;
    assert_eq!(outsider.verify_trail(&lines.join("\n"), &foreign).0, Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn security_92_checkpoints_go_on_where_they_were_after_a_crash_and_none_is_skipped() {
    let (mut world, active) = World::with_active_token().await;
    world.pass(60).await;
    let before = std::fs::read_to_string(world.checkpoints()).expect("the file");
    // The file was lost, or could not be written: it is a folder for a while.
    std::fs::remove_file(world.checkpoints()).expect("removed");
    std::fs::create_dir(world.checkpoints()).expect("in the way");
    world.company.program.verify(&active.token, &active.code()).await;
    world.pass(60).await;
    world.stop().await;
    std::fs::remove_dir(world.checkpoints()).expect("out of the way");
    std::fs::write(world.checkpoints(), &before).expect("back from a copy");
    world.restart().await;
    world.company.program.verify(&active.token, "00000000").await;
    world.pass(60).await;
    let after = std::fs::read_to_string(world.checkpoints()).expect("the file");
    assert!(after.starts_with(&before) && after.len() > before.len());
    let outsider = Outsider::with_keys_of(&world).await;
    let mine: String = after
        .lines()
        .filter(|line| checkpoint_company(line) == world.company.id)
        .map(|line| format!("{line}\n"))
        .collect();
    assert!(mine.lines().count() >= 3);
    let (code, said) = outsider.verify_trail(&trail(&world).await.join("\n"), &mine);
    assert_eq!(code, Some(0), "{said}");
}

fn checkpoint_company(line: &str) -> String {
    let claims = line.split('.').nth(1).expect("claims");
    let claims = semilla_core::base64url::decode(claims).expect("base64url");
    let claims: Value = serde_json::from_slice(&claims).expect("JSON");
    claims["company"].as_str().expect("an id").to_owned()
}
