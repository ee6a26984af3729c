//! Whoever tampers with the audit trail in the file is found (security 91).

use std::sync::Arc;

use semilla_server::store::Store;
use semilla_server::store::sqlite::{Options, SqliteStore};
use semilla_server::workflow::trail;
use semilla_tests::http::{Expect, Http, Program};
use semilla_tests::process::{Home, sqlite};
use semilla_tests::seeded::Seeded;
use semilla_tests::world::World;
use serde_json::json;

use crate::audit::assert_whole;

/// What somebody with the file can do to the trail, each as a few statements.
const ATTACKS: [(&str, &str); 12] = [
    (
        "a cause is changed",
        "UPDATE audit SET body = replace(body, 'user_inactive', 'customer_request') WHERE kind = 'token.blocked'",
    ),
    (
        "a time is changed",
        "UPDATE audit SET body = replace(body, '\"at\":\"2026', '\"at\":\"2025') WHERE sequence = 3",
    ),
    (
        "a hash is changed",
        "UPDATE audit SET hash = (SELECT hash FROM audit WHERE sequence = 1 LIMIT 1) WHERE sequence = 4",
    ),
    ("a record is deleted", "DELETE FROM audit WHERE sequence = 5"),
    ("the first is deleted", "DELETE FROM audit WHERE sequence = 1"),
    (
        "all after it move up",
        "DELETE FROM audit WHERE sequence = 5; UPDATE audit SET sequence = sequence - 1 WHERE sequence > 5",
    ),
    (
        "two change places",
        "UPDATE audit SET sequence = -3 WHERE sequence = 3; UPDATE audit SET sequence = 3 WHERE sequence = 4; UPDATE audit SET sequence = 4 WHERE sequence = -3",
    ),
    (
        "one is put in",
        "UPDATE audit SET sequence = sequence + 1000 WHERE sequence > 3; UPDATE audit SET sequence = sequence - 999 WHERE sequence > 1000; INSERT INTO audit SELECT company, 4, kind, token, body, hash FROM audit WHERE sequence = 2",
    ),
    ("the tail is cut off", "DELETE FROM audit WHERE sequence > 6"),
    (
        "a whole chain is dropped",
        "DELETE FROM audit WHERE company = (SELECT max(company) FROM audit)",
    ),
    ("an outcome is changed", "UPDATE attempts SET outcome = 'wrong' WHERE outcome = 'accepted'"),
    ("all attempts are deleted", "DELETE FROM attempts"),
];

#[tokio::test(flavor = "multi_thread")]
async fn security_91_whoever_tampers_with_the_trail_in_the_file_is_found() {
    let (mut world, active) = World::with_active_token().await;
    let program = &world.company.program;
    assert!(program.verify(&active.token, &active.code()).await);
    let token = format!("/api/v1/tokens/{}", active.token);
    program.post(&format!("{token}/block"), json!({"cause": "user_inactive"})).await.expect(200);
    world.stop().await;
    let folder = world.data();
    let copy = tempfile::tempdir().expect("a folder");
    // The control: untouched, and after a change that the trail does not vouch for.
    assert_eq!(tampered(&folder, copy.path(), "SELECT 1").await, Ok(()));
    // The attacker takes off what would stop him first.
    let triggers = "DROP TRIGGER audit_is_never_changed; DROP TRIGGER audit_is_never_deleted;";
    for (what, statements) in ATTACKS {
        let statements =
            statements.replace("DELETE FROM attempts WHERE rowid_of = 0", "DELETE FROM attempts");
        let found = tampered(&folder, copy.path(), &format!("{triggers}{statements}")).await;
        assert!(found.is_err(), "{what}: not found");
    }
    // Any byte of any record, from a seed.
    let mut seeded = Seeded::from_environment(91);
    for _ in 0..20 {
        let place = seeded.below(200) + 1;
        let statements = format!(
            "UPDATE audit SET body = substr(body, 1, {place} - 1) || \
             CASE substr(body, {place}, 1) WHEN 'x' THEN 'y' ELSE 'x' END || substr(body, {place} + 1) \
             WHERE sequence = {} AND company = (SELECT min(company) FROM audit WHERE sequence > 5)",
            seeded.below(6) + 1
        );
        assert!(
            tampered(&folder, copy.path(), &format!("{triggers}{statements}")).await.is_err(),
            "{statements}"
        );
    }
    // Without taking the triggers off, the database itself refuses.
    let refused = std::process::Command::new("sqlite3")
        .arg(folder.join("semilla.db"))
        .arg("DELETE FROM audit")
        .output()
        .expect("sqlite3 is installed");
    assert!(!refused.status.success());
    world.restart().await;
    assert_whole(&world).await;
}

/// What is found in a copy of the database after these statements.
async fn tampered(
    folder: &std::path::Path,
    copy: &std::path::Path,
    statements: &str,
) -> Result<(), String> {
    let target = copy.join("data");
    let _ = std::fs::remove_dir_all(&target);
    std::fs::create_dir(&target).expect("a folder");
    std::fs::copy(folder.join("semilla.db"), target.join("semilla.db")).expect("copied");
    sqlite(&target.join("semilla.db"), statements);
    let options = Options { startup_checks: false, ..Options::default() };
    let store = Arc::new(SqliteStore::open(&target, options).map_err(|error| error.to_string())?);
    let reports = trail::verify(store.as_ref()).await;
    store.close().await;
    match reports.map_err(|error| error.to_string())?.into_iter().find_map(|report| report.tampered)
    {
        Some(tampered) => Err(tampered),
        None => Ok(()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn security_91_semilla_audit_verify_finds_it_too_and_its_exit_code_says_so() {
    let home = Home::make();
    let server = home.serve();
    let program = Program::of(Http::new(&home.base()), &home.credentials);
    let sur = json!({"name": "Industrias del Sur", "administrator": {"login": "ximena.rey", "name": "Ximena Rey"}});
    program.post("/api/v1/companies", sur).await.expect(201);
    assert!(server.stop().success());
    let (whole, said) = home.verify();
    assert!(whole && said.contains("whole"), "{said}");
    let original = std::fs::read(home.database()).expect("the database");
    let triggers = "DROP TRIGGER audit_is_never_changed; DROP TRIGGER audit_is_never_deleted;";
    for (what, statements) in
        ATTACKS.iter().filter(|(_, statements)| !statements.contains("attempts"))
    {
        sqlite(&home.database(), &format!("{triggers}{statements}"));
        let changed = sqlite(&home.database(), "SELECT count(*), sum(length(body)) FROM audit");
        let (whole, said) = home.verify();
        let is_same = *what == "a cause is changed" || *what == "the tail is cut off";
        assert!(!whole || is_same, "{what} ({changed}): {said}");
        std::fs::write(home.database(), &original).expect("as before");
    }
    let (whole, said) = home.verify();
    assert!(whole, "{said}");
}
