//! What those who run a server do with it: copies and their return, the rotation of the master key,
//! and the look at whether all is well; with the program as people run it, and killed in between.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use semilla_core::id::{CompanyId, TokenId};
use semilla_core::otp::Parameters;
use semilla_core::seal::{Keyring, MasterKey, Purpose};
use semilla_core::secret::Seed;
use semilla_server::app::SystemEntropy;
use semilla_server::store::sqlite::{Options, SqliteStore};
use semilla_server::store::{Batch, Store, VerifierChange, Write};
use semilla_tests::branch::Branch;
use semilla_tests::http::Expect;
use semilla_tests::process::{Home, semilla, sqlite};
use semilla_tests::seeded::Seeded;
use serde_json::{Value, json};

fn key_file(home: &Home) -> PathBuf {
    home.path().join("keys/master.key")
}

fn key_lines(home: &Home) -> Vec<String> {
    let text = std::fs::read_to_string(key_file(home)).expect("the key file");
    text.lines().map(str::to_owned).collect()
}

fn backup(home: &Home, name: &str) -> PathBuf {
    let to = home.folder.path().join(name);
    let (done, said) = home.command(&["backup", "--to", to.to_str().expect("a path")]);
    assert!(done, "{said}");
    to
}

/// Takes the database away, as a disk does that is lost, and brings it back from a backup.
fn restore(home: &Home, from: &Path) -> (bool, String) {
    let data = home.path().join("data");
    if data.exists() {
        std::fs::remove_dir_all(&data).expect("removed");
    }
    home.command(&["restore", "--from", from.to_str().expect("a path")])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_made_while_the_server_works_and_is_whole_at_its_moment() {
    use std::os::unix::fs::PermissionsExt;
    let branch = Branch::open(Home::make(), 1).await;
    let phone = branch.enrolled_phone().await;
    let seed_before = branch.code(&phone);
    // Somebody works all the while.
    let working = async {
        for n in 0..150 {
            let user = json!({"login": format!("user.{n}"), "name": format!("Persona {n}")});
            branch.company.post("/api/v1/users", user).await.expect(201);
            branch.verify("00000000").await;
        }
    };
    let copying = async {
        tokio::task::block_in_place(|| {
            (0..4).map(|n| backup(&branch.home, &format!("copy-{n}.db"))).collect::<Vec<_>>()
        })
    };
    let ((), copies) = tokio::join!(working, copying);
    for copy in &copies {
        let mode = std::fs::metadata(copy).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(sqlite(copy, "PRAGMA integrity_check"), "ok");
    }
    let again = branch.home.command(&["backup", "--to", copies[0].to_str().expect("a path")]);
    assert!(!again.0, "nothing is written over");
    // Of each copy, the whole trail holds, and the last one opens as a bank.
    for copy in &copies {
        let other = Home::make();
        std::fs::copy(key_file(&branch.home), key_file(&other)).expect("copied");
        let (done, said) = restore(&other, copy);
        assert!(done, "{said}");
        let (whole, said) = other.verify();
        assert!(whole, "{said}");
    }
    assert!(!seed_before.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn security_35_a_backup_without_the_key_file_gives_no_seed() {
    let mut branch = Branch::open(Home::make(), 1).await;
    branch.enrolled_phone().await;
    let copy = backup(&branch.home, "copy.db");
    branch.stop();
    let text = String::from_utf8_lossy(&std::fs::read(&copy).expect("read")).into_owned();
    for line in key_lines(&branch.home) {
        let (id, secret) = line.split_once('.').expect("a key");
        assert!(text.contains(&format!("{id}.")) && !text.contains(secret));
    }
    let other = Home::make();
    let (done, said) = restore(&other, &copy);
    assert!(!done && said.contains("belongs to another database"), "{said}");
    assert!(!other.database().exists(), "nothing is served from it");
    std::fs::copy(key_file(&branch.home), key_file(&other)).expect("copied");
    assert!(restore(&other, &copy).0, "with the key it is a bank");
}

#[tokio::test(flavor = "multi_thread")]
async fn security_29_and_96_what_was_used_or_ended_before_a_restore_stays_so() {
    let mut branch = Branch::open(Home::make(), 2).await;
    let administrator = branch.bound_phone(&branch.andres).await;
    let phone = branch.enrolled_phone().await;
    branch.start_after(60);
    let token = format!("/api/v1/tokens/{}", branch.pool[0].0);
    // What waits when the backup is made.
    let release = format!("{token}/release");
    let asked = branch.company.post(&release, json!({"cause": "seed_release"}));
    let asked = asked.await.expect(202);
    let other = format!("/api/v1/tokens/{}/assign", branch.pool[1].0);
    let opened = branch.company.post(&other, json!({"user": branch.andres})).await.expect(201);
    let path = format!("/api/v1/users/{}/activation", branch.laura);
    let activation = branch.company.post(&path, json!({})).await.expect(201);
    let access_token = branch.company.0.access_token().await.expect("a token");
    let copy = backup(&branch.home, "copy.db");
    // What happens after it, and is lost.
    let code = branch.code(&phone);
    assert!(branch.verify(&code).await);

    branch.stop();
    let (done, said) = restore(&branch.home, &copy);
    assert!(done, "{said}");
    branch.start_after(0);
    // The session: the program is let in by its secret, not by the token it had.
    let bearer = [("authorization", format!("Bearer {access_token}"))];
    let bearer: Vec<_> = bearer.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let answer = branch.company.http().send("GET", &token, &bearer, b"").await.expect("answered");
    assert_eq!(answer.status.as_u16(), 401);
    // The code that was used, and every other one up to now.
    assert!(!branch.verify(&code).await, "it was accepted before, and that is forgotten");
    assert!(!branch.verify(&branch.code(&phone)).await);
    let rows = sqlite_attempts(&branch).await;
    assert_eq!(rows[rows.len() - 2..], ["used", "used"], "not for another reason");
    // The operation, the enrollment and the activation.
    let path = format!("/api/v1/operations/{}", asked["id"].as_str().expect("an id"));
    assert_eq!(branch.company.get(&path).await.expect(200)["state"], "cancelled");
    let number = asked["match_number"].as_str().expect("a number");
    assert!(administrator.inbox().await.expect("the inbox").requests.is_empty(), "{number}");
    let path =
        format!("/api/v1/enrollments/{}", opened["enrollment"]["id"].as_str().expect("an id"));
    assert_eq!(branch.company.get(&path).await.expect(200)["state"], "cancelled");
    let refused = branch.phone().bind(activation["uri"].as_str().expect("a uri")).await;
    assert_eq!(refused.expect_err("refused").kind(), "activation-invalid");
    // It is on record, and the trail is whole.
    let restored = branch.bank_trail("bank.restored").await;
    assert_eq!(restored.len(), 1);
    assert_eq!(restored[0]["detail"]["operations"], "1");
    assert_eq!(restored[0]["detail"]["enrollments"], "1");
    // And from the next code on everything works.
    branch.start_after(90);
    assert!(branch.verify(&branch.code(&phone)).await);
    let asked = branch.company.post(&release, json!({"cause": "seed_release"}));
    let asked = asked.await.expect(202);
    let inbox = administrator.inbox().await.expect("the inbox");
    let number = asked["match_number"].as_str().expect("a number");
    administrator.approve(inbox.requests[0].id(), number).await.expect("approved");
    assert_eq!(branch.company.get(&token).await.expect(200)["state"], "company");
}

/// What came of the company's attempts, oldest first.
async fn sqlite_attempts(branch: &Branch) -> Vec<String> {
    let sql = "SELECT outcome FROM attempts ORDER BY at, sequence, position";
    let ran =
        Command::new("sqlite3").arg("-readonly").arg(branch.home.database()).arg(sql).output();
    let ran = ran.expect("sqlite3 runs");
    String::from_utf8_lossy(&ran.stdout).lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn security_29_a_message_that_a_phone_signed_before_a_restore_does_not_count_after_it() {
    let mut branch = Branch::open(Home::make(), 1).await;
    let phone = branch.enrolled_phone().await;
    branch.start_after(60);
    let copy = backup(&branch.home, "copy.db");
    // A rotation is asked after the backup, and what was sent is kept by somebody on the way.
    let raw = phone.raw();
    let held = raw.send("GET", "/device/v1/tokens", None).await.expect("answered");
    let held: Value = serde_json::from_slice(&held.body).expect("JSON");
    let version = held["tokens"][0]["state_version"].as_u64().expect("a version");
    let token = branch.pool[0].0.parse().expect("an id");
    let draft = raw.draft().expect("a draft");
    let message = raw.sign(&draft.rotate(token, 1, version, "scheduled")).expect("signed");
    let path = format!("/device/v1/tokens/{token}/rotate");
    let answer = raw.send_signed(&path, message.clone()).await.expect("answered");
    assert_eq!(answer.status, 201, "{}", String::from_utf8_lossy(&answer.body));
    // Messages tell whole seconds: the restore is in another one.
    branch.start_after(2);
    branch.stop();
    assert!(restore(&branch.home, &copy).0);
    branch.start_after(0);
    // The phone's key proves the request once more: the message itself has to be refused.
    let refused = raw.send_signed(&path, message).await.expect("answered");
    let told: Value = serde_json::from_slice(&refused.body).expect("JSON");
    assert_eq!(told["type"], "signature-invalid", "{told}");
    assert!(told["detail"].as_str().expect("a detail").contains("restored"), "{told}");
    let draft = raw.draft().expect("a draft");
    let message = raw.sign(&draft.rotate(token, 1, version, "scheduled")).expect("signed");
    let answer = raw.send_signed(&path, message).await.expect("answered");
    assert_eq!(answer.status, 201, "one that is signed now counts");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_restored_over_a_bank_or_from_what_is_none() {
    let mut branch = Branch::open(Home::make(), 1).await;
    let copy = backup(&branch.home, "copy.db");
    branch.stop();
    let path = |path: &Path| path.to_str().expect("a path").to_owned();
    let (done, said) = branch.home.command(&["restore", "--from", &path(&copy)]);
    assert!(!done && said.contains("holds a database"), "{said}");
    // A copy that was cut, altered, or is of something else.
    let bytes = std::fs::read(&copy).expect("read");
    let broken = branch.home.folder.path().join("broken.db");
    let mut altered = bytes.clone();
    let middle = bytes.len() / 2;
    altered[middle..middle + 4096].fill(0x5A);
    for content in [&bytes[..bytes.len() / 2], &altered, b"nothing at all", b""] {
        std::fs::write(&broken, content).expect("written");
        let (done, said) = restore(&branch.home, &broken);
        assert!(!done, "{said}");
        assert!(!branch.home.database().exists());
    }
    // Killed in the middle of it, it is begun again.
    for milliseconds in [0, 5, 10, 20, 40, 80] {
        std::fs::remove_dir_all(branch.home.path().join("data")).ok();
        let mut child = Command::new(semilla())
            .args(["restore", "--from", &path(&copy), "--config"])
            .arg(branch.home.config())
            .spawn()
            .expect("semilla runs");
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        let _ = child.kill();
        child.wait().expect("its status");
        if branch.home.database().exists() {
            let restored = "SELECT count(*) FROM audit WHERE kind = 'bank.restored'";
            assert_eq!(sqlite(&branch.home.database(), restored), "1", "whole or not there");
        }
    }
    assert!(restore(&branch.home, &copy).0);
    branch.start_after(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn security_94_the_master_key_is_rotated_while_the_server_works_and_the_old_one_destroyed() {
    let mut branch = Branch::open(Home::make(), 2).await;
    let administrator = branch.bound_phone(&branch.andres).await;
    let phone = branch.enrolled_phone().await;
    // One of each thing that is sealed: a number, an activation, a seed on its way, an answer.
    let token = format!("/api/v1/tokens/{}", branch.pool[0].0);
    let release = format!("{token}/release");
    let asked = branch.company.post(&release, json!({"cause": "seed_release"}));
    let asked = asked.await.expect(202);
    let other = format!("/api/v1/tokens/{}/assign", branch.pool[1].0);
    branch.company.post(&other, json!({"user": branch.andres})).await.expect(201);
    let path = format!("/api/v1/users/{}/activation", branch.laura);
    let key = [("idempotency-key", "one-answer-only")];
    let activation = branch.company.send("POST", &path, &key, Some(json!({}))).await.expect(201);
    let before = key_lines(&branch.home);
    let old = before[0].split('.').next().expect("an id").to_owned();
    let copy = backup(&branch.home, "before.db");
    assert!(std::fs::read(&copy).expect("read").windows(old.len()).any(|it| it == old.as_bytes()));

    let (done, said) = tokio::task::block_in_place(|| branch.home.command(&["keys", "rotate"]));
    assert!(done, "{said}");
    let after = key_lines(&branch.home);
    assert!(after.len() == 1 && after != before, "{said}");
    let new = after[0].split('.').next().expect("an id").to_owned();
    // Nothing at all is left under the old key, and everything opens under the new one.
    let copy = backup(&branch.home, "after.db");
    let text = String::from_utf8_lossy(&std::fs::read(&copy).expect("read")).into_owned();
    assert!(!text.contains(&format!("{old}.")) && text.contains(&format!("{new}.")));
    let again = branch.company.send("POST", &path, &key, Some(json!({}))).await.expect(201);
    assert_eq!(again, activation, "the answer to the key");
    let second = branch.phone();
    second.bind(activation["uri"].as_str().expect("a uri")).await.expect("the activation");
    administrator.enroll_next().await.expect("the other token");
    let inbox = administrator.inbox().await.expect("the inbox");
    let number = asked["match_number"].as_str().expect("a number");
    branch.start_after(60);
    assert!(branch.verify(&branch.code(&phone)).await, "the seed");
    administrator.approve(inbox.requests[0].id(), number).await.expect("the number");
    let kinds = branch.bank_trail("key.").await;
    let kinds: Vec<_> =
        kinds.iter().map(|record| record["kind"].as_str().expect("a kind")).collect();
    assert!(kinds.ends_with(&["key.rotation_began", "key.rotated"]), "{kinds:?}");
    // Once more, with nobody at work.
    branch.stop();
    let (done, said) = branch.home.command(&["keys", "rotate"]);
    assert!(done, "{said}");
    assert!(key_lines(&branch.home).len() == 1 && key_lines(&branch.home) != after);
    branch.start_after(60);
}

#[tokio::test(flavor = "multi_thread")]
async fn security_94_no_key_is_destroyed_while_something_cannot_be_sealed_anew() {
    let mut branch = Branch::open(Home::make(), 1).await;
    let phone = branch.enrolled_phone().await;
    branch.stop();
    let id = key_lines(&branch.home)[0].split('.').next().expect("an id").to_owned();
    // Of a table that the rotation does not know, and one that it knows and that does not open.
    let foreign = format!(
        "UPDATE companies SET body = json_set(body, '$.name', '{id}.nonce.text') WHERE rowid = \
         (SELECT min(rowid) FROM companies)"
    );
    let name = sqlite(&branch.home.database(), "SELECT body FROM companies ORDER BY rowid LIMIT 1");
    let back = format!(
        "UPDATE companies SET body = '{name}' WHERE rowid = (SELECT min(rowid) FROM companies)"
    );
    sqlite(&branch.home.database(), &foreign);
    let (done, said) = branch.home.command(&["keys", "rotate"]);
    assert!(!done && said.contains("companies"), "{said}");
    assert_eq!(key_lines(&branch.home).len(), 2);
    // Beside a server it says the same.
    branch.start_after(60);
    let (done, said) = tokio::task::block_in_place(|| branch.home.command(&["keys", "rotate"]));
    assert!(!done && said.contains("companies"), "{said}");
    assert_eq!(key_lines(&branch.home).len(), 2);
    branch.stop();
    sqlite(&branch.home.database(), &back);
    let (done, said) = branch.home.command(&["keys", "rotate"]);
    assert!(done, "{said}");
    assert_eq!(key_lines(&branch.home).len(), 1);
    branch.start_after(60);
    assert!(branch.verify(&branch.code(&phone)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn security_94_whenever_the_server_is_killed_during_a_rotation_every_seed_opens() {
    const SEEDS: u32 = 6_000;
    let home = Home::make();
    let entropy = SystemEntropy::default();
    let ring = |home: &Home| {
        let mut keys =
            key_lines(home).into_iter().map(|line| MasterKey::parse(&line).expect("a key"));
        Keyring::new(keys.next().expect("a key"), keys)
    };
    let first = ring(&home);
    let company = CompanyId::BANK;
    let tokens: Vec<TokenId> = (0..SEEDS)
        .map(|n| TokenId::new(semilla_core::time::Timestamp::from_seconds(n.into()), &entropy))
        .collect();
    let store = SqliteStore::open(&home.path().join("data"), Options::default()).expect("opened");
    for some in tokens.chunks(500) {
        let open = |token: &TokenId| {
            let purpose = Purpose::Seed { company, token: *token, generation: 1 };
            let sealed = first.seal_seed(&Seed::generate(32, &entropy), &purpose, &entropy);
            let parameters = Parameters::APP_MOVIL;
            let change = VerifierChange::Open {
                generation: 1,
                sealed,
                method: parameters.into(),
                proved_by: 0,
                drift: 0,
            };
            Write::Verifier(company, *token, change)
        };
        let writes = some.iter().map(open).collect();
        store.commit(Batch { writes, ..Batch::default() }).await.expect("stored");
    }
    store.close().await;
    drop(store);

    let old = first.sealing().to_owned();
    let left = || -> u32 {
        let sql = format!("SELECT count(*) FROM verifiers WHERE sealed LIKE '{old}.%'");
        sqlite(&home.database(), &sql).parse().expect("a number")
    };
    let mut rotating = Command::new(semilla())
        .args(["keys", "rotate", "--config"])
        .arg(home.config())
        .spawn()
        .expect("semilla runs");
    // The first one works by itself, and is killed in the middle; servers after it, and a second
    // one that goes on.
    let mut in_between = 0;
    let mut random = Seeded::new(20_260_115);
    let mut killed = 0;
    tokio::time::sleep(Duration::from_millis(120)).await;
    rotating.kill().expect("killed");
    rotating.wait().expect("its status");
    for _ in 0..20 {
        let mut server = home.serve();
        tokio::time::sleep(Duration::from_millis(random.below(60) as u64)).await;
        server.kill_now();
        killed += 1;
        let left = left();
        in_between += u32::from(left > 0 && left < SEEDS);
        let ring = ring(&home);
        let store = semilla_server::store::sqlite::look(&home.path().join("data")).expect("read");
        let mut after = None;
        let mut opened = 0;
        loop {
            let page = store.verifiers(after, 1000).await.expect("read");
            let Some((company, token, _)) = page.last() else { break };
            after = Some((*company, *token));
            for (company, token, verifier) in page {
                let purpose = Purpose::Seed { company, token, generation: 1 };
                let sealed = verifier.sealed.expect("a seed");
                assert!(ring.open_seed(&sealed, &purpose).is_ok(), "{token}");
                opened += 1;
            }
        }
        assert_eq!(opened, SEEDS);
        if left == 0 {
            break;
        }
    }
    assert!(in_between > 0, "of {killed} kills none fell in the middle");
    let (done, said) = home.command(&["keys", "rotate"]);
    assert!(done, "{said}");
    assert_eq!((left(), key_lines(&home).len()), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_finds_all_well_and_each_thing_that_is_not() {
    use std::os::unix::fs::PermissionsExt;
    let mut branch = Branch::open(Home::make_with_tls(), 1).await;
    let home = &branch.home;
    let look = |home: &Home| -> (Option<i32>, Value) {
        let ran = home.ran(&["doctor", "--json"]);
        let found = serde_json::from_slice(&ran.stdout).unwrap_or(Value::Null);
        (ran.status.code(), found)
    };
    let health = |found: &Value, what: &str| -> String {
        let all = found["findings"].as_array().expect("findings").iter();
        let one = all.rev().find(|finding| finding["what"] == what).expect(what);
        let (health, to_do) = (one["health"].as_str().expect("health"), &one["to_do"]);
        assert_eq!(
            health == "well",
            to_do == "",
            "whatever is not well has something to do: {one}"
        );
        health.to_owned()
    };
    let (code, found) = look(home);
    assert_eq!(code, Some(0), "{found}");
    let all = [
        "configuration",
        "master key",
        "permissions",
        "database",
        "clock",
        "seals",
        "disk",
        "tls",
        "port",
    ];
    for what in all {
        assert_eq!(health(&found, what), "well", "{what}");
    }
    let (well, said) = home.command(&["doctor"]);
    assert!(well && said.contains("✓ database"), "{said}");

    let ill = |home: &Home, what: &str| {
        let (code, found) = look(home);
        assert_eq!((code, health(&found, what).as_str()), (Some(1), "ill"), "{found}");
    };
    let set_mode = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("set");
    };
    set_mode(&key_file(home), 0o644);
    ill(home, "master key");
    set_mode(&key_file(home), 0o600);
    set_mode(&home.database(), 0o644);
    ill(home, "permissions");
    set_mode(&home.database(), 0o600);
    let stranger = Home::make();
    let own = std::fs::read(key_file(home)).expect("read");
    std::fs::copy(key_file(&stranger), key_file(home)).expect("copied");
    ill(home, "seals");
    std::fs::write(key_file(home), own).expect("written");
    std::fs::rename(home.path().join("tls/server.key"), home.path().join("tls/kept"))
        .expect("moved");
    ill(home, "tls");
    std::fs::rename(home.path().join("tls/kept"), home.path().join("tls/server.key"))
        .expect("moved");

    branch.stop();
    let home = &branch.home;
    let (code, found) = look(home);
    assert_eq!((code, health(&found, "port").as_str()), (Some(0), "warning"));
    let other = std::net::TcpListener::bind(("127.0.0.1", home.port())).expect("the port");
    ill(home, "port");
    drop(other);
    sqlite(&home.database(), "UPDATE chains SET sequence = sequence + 1");
    ill(home, "database");
    sqlite(&home.database(), "UPDATE chains SET sequence = sequence - 1");
    assert_eq!(look(home).0, Some(0));
    std::fs::write(home.database(), "nothing").expect("written");
    ill(home, "database");
    home.set("no_such_setting = 1");
    ill(home, "configuration");
}
