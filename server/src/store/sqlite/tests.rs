//! The contract, in a folder and in memory, and what only a database in a file can be asked:
//! who holds it, what happens when the disk is full, and whether damage shows.

use std::path::Path;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use rusqlite::ffi;
use semilla_core::audit::{Head, Tampering};
use semilla_core::id::CompanyId;
use tempfile::TempDir;

use super::*;
use crate::store::contract::{
    LEASES, TOKENS, check, draft, fill, follow, id, is_filled, just, lease, open as open_token,
};
use crate::store::{Judged, Value, VerifierChange, Write};

mod in_a_folder {
    use super::*;

    fn make() -> (SqliteStore, TempDir) {
        let folder = tempfile::tempdir().expect("a folder");
        (open(folder.path()).expect("a store"), folder)
    }

    crate::store::contract::holds!(make);
}

mod in_memory {
    use super::*;

    fn make() -> (SqliteStore, ()) {
        (SqliteStore::open_in_memory().expect("memory"), ())
    }

    crate::store::contract::holds!(make);
}

fn open(folder: &Path) -> Result<SqliteStore, StoreError> {
    SqliteStore::open(folder, Options::default())
}

fn make() -> (SqliteStore, TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    (open(folder.path()).expect("a store"), folder)
}

fn refusal(opened: Result<SqliteStore, StoreError>) -> String {
    opened.err().expect("refused").to_string()
}

/// Something on the writer's own connection, between its transactions.
fn on_writer<T>(store: &SqliteStore, act: impl FnOnce(&Connection) -> T) -> T {
    act(locked(&store.shared.writing).as_ref().expect("open"))
}

/// Something on the file of a closed store.
fn on_file<T>(folder: &Path, act: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> T {
    let connection = Connection::open(folder.join("semilla.db")).expect("a database");
    act(&connection).expect("done")
}

fn is_unavailable<T>(done: &Result<T, StoreError>) -> bool {
    matches!(done, Err(StoreError::Unavailable(_)))
}

#[tokio::test]
async fn whatever_was_written_is_there_after_opening_again() {
    let (store, folder) = make();
    fill(&store).await;
    drop(store);
    let store = open(folder.path()).expect("opens again");
    is_filled(&store).await;
    store.close().await;
    // Nothing is left in the log.
    let log = std::fs::metadata(folder.path().join("semilla.db-wal")).map_or(0, |log| log.len());
    assert_eq!(log, 0);
    open(folder.path()).expect("and again");
}

#[tokio::test]
async fn a_folder_is_held_by_one_at_a_time() {
    let (store, folder) = make();
    let refused = refusal(open(folder.path()));
    assert!(refused.contains("in use by another process"), "{refused}");
    store.close().await;
    let second = open(folder.path()).expect("free again");
    assert!(refusal(open(folder.path())).contains("in use"));
    drop(second);
    open(folder.path()).expect("free again");
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_finishes_what_was_handed_in_and_then_refuses_everything() {
    let (store, _folder) = make();
    let batch = |n: u64| just(Write::Insert(&LEASES, lease(&n.to_string(), 1, "effect")));
    let commits = join_all((0..100).map(|n| store.commit(batch(n))));
    // Each is handed in when it is first asked; two close at once.
    let (written, ()) = tokio::join!(commits, async {
        tokio::join!(store.close(), store.close());
    });
    assert!(written.iter().all(Result::is_ok));
    assert!(is_unavailable(&store.commit(batch(100)).await));
    assert!(is_unavailable(&store.check(check(1, 1)).await));
    assert!(is_unavailable(&store.row(&LEASES, id(1), "1").await));
    assert!(is_unavailable(&store.rows(&Query::of(&LEASES, id(1), 1)).await));
    let store = SqliteStore::open_in_memory().expect("memory");
    store.close().await;
    assert!(is_unavailable(&store.row(&LEASES, id(1), "1").await));
}

#[cfg(unix)]
#[tokio::test]
async fn folder_and_files_are_for_this_user_alone() {
    use std::os::unix::fs::PermissionsExt;
    let parent = tempfile::tempdir().expect("a folder");
    let folder = parent.path().join("new").join("data");
    let store = open(&folder).expect("a store");
    fill(&store).await;
    let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    for file in ["lock", "semilla.db", "semilla.db-wal", "semilla.db-shm"] {
        assert_eq!(mode(&folder.join(file)), 0o600, "{file}");
    }
}

#[tokio::test]
async fn security_105_a_commit_is_durable_when_it_returns() {
    let (store, _folder) = make();
    let setting = |name: &str| -> String {
        on_writer(&store, |connection| {
            let read = connection
                .pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0));
            match read.expect("a setting") {
                rusqlite::types::Value::Integer(number) => number.to_string(),
                rusqlite::types::Value::Text(text) => text,
                other => panic!("{other:?}"),
            }
        })
    };
    assert_eq!((setting("journal_mode").as_str(), setting("synchronous").as_str()), ("wal", "2"));
    assert_eq!((setting("foreign_keys").as_str(), setting("secure_delete").as_str()), ("1", "1"));
    assert_eq!(setting("busy_timeout"), "5000");
}

#[tokio::test]
async fn security_109_databases_of_later_versions_and_of_others_are_refused_unchanged() {
    let (store, folder) = make();
    drop(store);
    let version = |version: i64| {
        on_file(folder.path(), |connection| {
            connection.pragma_update(None, "user_version", version)
        });
    };
    let kept = |connection: &Connection| {
        connection.pragma_query_value(None, "user_version", |row| row.get(0))
    };
    let known = on_file::<i64>(folder.path(), kept);
    version(99);
    let refused = refusal(open(folder.path()));
    assert!(refused.contains("version 99") && refused.contains("newer program"), "{refused}");
    assert_eq!(on_file::<i64>(folder.path(), kept), 99);
    version(known);
    drop(open(folder.path()).expect("known"));

    on_file(folder.path(), |connection| connection.pragma_update(None, "application_id", 7));
    assert!(refusal(open(folder.path())).contains("another program"));
    std::fs::write(folder.path().join("semilla.db"), vec![b'x'; 8192]).expect("written");
    assert!(refusal(open(folder.path())).contains("not a database"));
}

#[tokio::test]
async fn security_90_and_107_a_full_disk_changes_nothing_and_passes() {
    let (store, _folder) = make();
    fill(&store).await;
    let head = follow(&store, id(1)).await;
    let (pages, most): (i64, i64) = on_writer(&store, |connection| {
        let get =
            |name| connection.pragma_query_value(None, name, |row| row.get(0)).expect("a number");
        (get("page_count"), get("max_page_count"))
    });
    let limit = |pages: i64| {
        on_writer(&store, |connection| {
            let set = format!("PRAGMA max_page_count = {pages}");
            connection.query_row(&set, [], |_| Ok(())).expect("set");
        });
    };
    let big = |name: &str| Batch {
        topics: vec![Topic::Device(name.to_owned())],
        audit: vec![draft(id(1), "token.issued")],
        writes: vec![
            Write::Put(&LEASES, lease("small", 1, "effect")),
            Write::Insert(&LEASES, lease(name, 1, &"x".repeat(1 << 20))),
        ],
    };
    limit(pages);
    let mut topics = store.subscribe();
    let (full, small) = tokio::join!(
        store.commit(big("big")),
        store.commit(just(Write::Put(&LEASES, lease("other", 1, "fits")))),
    );
    assert!(is_unavailable(&full), "{full:?}");
    small.expect("there is room for it");
    assert!(topics.try_recv().is_err(), "told of what did not happen");
    for name in ["big", "small"] {
        assert_eq!(store.row(&LEASES, id(1), name).await.expect("a read"), None);
    }
    assert_eq!(follow(&store, id(1)).await, head);
    assert_eq!(store.failed(), None);

    limit(most);
    store.commit(big("big")).await.expect("there is room again");
    assert_eq!(follow(&store, id(1)).await.sequence, head.sequence + 1);
    assert_eq!(store.check(check(1, 12)).await.expect("judged").outcome, "accepted");
}

#[tokio::test]
async fn security_90_and_107_a_disk_that_takes_no_writes_accepts_no_code() {
    let (store, _folder) = make();
    fill(&store).await;
    let head = follow(&store, id(1)).await;
    let read_only = |on: bool| {
        on_writer(&store, |connection| connection.pragma_update(None, "query_only", on))
            .expect("set");
    };
    read_only(true);
    let checks = join_all((0..20).map(|_| store.check(check(1, 12)))).await;
    assert!(checks.iter().all(is_unavailable), "{checks:?}");
    let audit = vec![draft(id(1), "token.issued")];
    assert!(is_unavailable(&store.commit(Batch { audit, ..Batch::default() }).await));
    assert_eq!(follow(&store, id(1)).await, head);

    read_only(false);
    // No step was burned, and the code is still good for once.
    assert_eq!(store.check(check(1, 12)).await.expect("judged").outcome, "accepted");
    assert_eq!(store.check(check(1, 12)).await.expect("judged").outcome, "used");
}

#[tokio::test]
async fn security_27_and_107_a_commit_that_fails_is_told_as_failed() {
    let (store, _folder) = make();
    fill(&store).await;
    let head = follow(&store, id(1)).await;
    // A condition that SQLite looks at only when it commits.
    let trap = "CREATE TABLE parents (id INTEGER PRIMARY KEY);
                CREATE TABLE orphans (id INTEGER REFERENCES parents DEFERRABLE INITIALLY DEFERRED);
                CREATE TRIGGER trap AFTER INSERT ON access_tokens BEGIN INSERT INTO orphans VALUES (7); END;";
    on_writer(&store, |connection| connection.execute_batch(trap)).expect("set");
    let mut topics = store.subscribe();
    let batch = || Batch {
        audit: vec![draft(id(1), "token.issued")],
        topics: vec![Topic::Device("d".to_owned())],
        ..just(Write::Insert(&LEASES, lease("b", 1, "effect")))
    };
    let (written, judged) = {
        // Both wait for the writer and share its transaction.
        let held = locked(&store.shared.writing);
        let mut written = std::pin::pin!(store.commit(batch()));
        let mut judged = std::pin::pin!(store.check(check(1, 12)));
        assert!(written.as_mut().now_or_never().is_none());
        assert!(judged.as_mut().now_or_never().is_none());
        drop(held);
        tokio::join!(written, judged)
    };
    assert!(written.is_err() && judged.is_err(), "{written:?} {judged:?}");
    assert!(topics.try_recv().is_err(), "told of what did not happen");
    assert_eq!(follow(&store, id(1)).await, head);
    assert_eq!(store.row(&LEASES, id(1), "b").await.expect("a read"), None);

    on_writer(&store, |connection| connection.execute_batch("DROP TRIGGER trap")).expect("set");
    store.commit(batch()).await.expect("written");
    assert_eq!(store.check(check(1, 12)).await.expect("judged").outcome, "accepted");
}

#[tokio::test]
async fn security_107_after_a_failed_fsync_nothing_is_answered_any_more() {
    let (store, folder) = make();
    fill(&store).await;
    assert_eq!(store.failed(), None);
    let error = rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_IOERR_FSYNC), None);
    store.shared.health.note(&error, false);
    assert!(store.failed().is_some());
    assert!(is_unavailable(&store.commit(Batch::default()).await));
    assert!(is_unavailable(&store.check(check(1, 12)).await));
    assert!(is_unavailable(&store.row(&LEASES, id(1), "a").await));
    assert!(is_unavailable(&store.lookup(Scope::Serial, "VT-1").await));
    assert!(is_unavailable(&store.audit_chains().await));
    store.close().await;
    // What was durable before is there.
    is_filled(&open(folder.path()).expect("opens again")).await;
}

#[tokio::test]
async fn a_job_that_breaks_the_database_s_rules_fails_alone() {
    let (store, _folder) = make();
    fill(&store).await;
    let wrong = Row { columns: vec!["soon".into()], ..lease("wrong", 1, "wrong") };
    let good = |name| just(Write::Insert(&LEASES, lease(name, 1, "effect")));
    let held = locked(&store.shared.writing);
    let mut jobs = std::pin::pin!(async {
        tokio::join!(
            store.commit(good("before")),
            store.check(check(1, 12)),
            store.commit(just(Write::Insert(&LEASES, wrong))),
            store.check(panicking()),
            store.commit(good("after")),
        )
    });
    assert!(jobs.as_mut().now_or_never().is_none());
    drop(held);
    let (before, judged, wrong, panicked, after) = jobs.await;
    before.expect("written");
    assert_eq!(judged.expect("judged").outcome, "accepted");
    assert!(matches!(wrong, Err(StoreError::Inconsistent { .. })), "{wrong:?}");
    assert!(matches!(panicked, Err(StoreError::Inconsistent { .. })), "{panicked:?}");
    after.expect("written");
    follow(&store, id(1)).await;
    assert_eq!(store.count(&Query::of(&LEASES, id(1), 9)).await.expect("a count"), 3);
}

fn panicking() -> Check {
    Check {
        company: id(1),
        token: None,
        judge: Box::new(|_| -> Judged { panic!("as the test wants it") }),
    }
}

#[tokio::test]
async fn attempts_that_arrive_together_share_one_record() {
    for store in [SqliteStore::open_in_memory().expect("memory"), make().0] {
        store.commit(just(open_token(1, 10))).await.expect("written");
        // More than one transaction takes.
        let number = writer::TOGETHER + 50;
        let held = locked(&store.shared.writing);
        let checks = join_all((0..number).map(|_| store.check(check(1, 11))));
        // Otherwise the runtime interrupts it halfway.
        let mut checks = tokio::task::unconstrained(checks);
        assert!((&mut checks).now_or_never().is_none());
        drop(held);
        let judged = checks.await;
        let accepted =
            judged.iter().filter(|it| it.as_ref().is_ok_and(|it| it.outcome == "accepted"));
        assert_eq!((judged.len(), accepted.count()), (number, 1));
        assert_eq!(follow(&store, id(1)).await.sequence, 2);
        assert_eq!(store.attempts(id(1), 1).await.expect("attempts").len(), writer::TOGETHER);
        assert_eq!(store.attempts(id(1), 2).await.expect("attempts").len(), 50);
    }
}

#[tokio::test]
async fn destroyed_seeds_are_overwritten() {
    let (store, folder) = make();
    store.commit(just(open_token(1, 10))).await.expect("written");
    let lingers = || {
        let bytes = std::fs::read(folder.path().join("semilla.db")).expect("a file");
        bytes.windows(16).any(|window| window == b"key.nonce.first1")
    };
    let checkpoint = || {
        on_writer(&store, |connection| {
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("done");
        });
    };
    checkpoint();
    assert!(lingers());
    let destroy = Write::Verifier(id(1), id(1), VerifierChange::Destroy);
    store.commit(just(destroy)).await.expect("written");
    checkpoint();
    assert!(!lingers());
}

#[tokio::test]
async fn security_91_the_database_itself_refuses_to_change_audit_records() {
    let (store, _folder) = make();
    fill(&store).await;
    for sql in ["UPDATE audit SET body = ''", "DELETE FROM audit"] {
        let refused = on_writer(&store, |connection| connection.execute(sql, []));
        assert!(refused.expect_err("refused").to_string().contains("are never"));
    }
}

/// A closed store with a chain of 50 records, a few of them in each page.
async fn chained() -> TempDir {
    let (store, folder) = make();
    let record = |n: u64| {
        draft(id(1), "token.issued").with("note", format!("note {n:03} {}", "x".repeat(500)))
    };
    let batch = Batch { audit: (1..=50).map(record).collect(), ..Batch::default() };
    store.commit(batch).await.expect("written");
    store.close().await;
    folder
}

/// What following a chain comes to.
async fn verify(folder: &Path, options: Options) -> Result<Head, Tampering> {
    let store = SqliteStore::open(folder, options).expect("opens");
    let query = AuditQuery { company: id(1), after: 0, token: None, kind: None, limit: 1000 };
    let records = store.audit(&query).await.expect("records");
    let end =
        records.iter().try_fold(Head::EMPTY, Head::advance).map_err(|tampered| tampered.what)?;
    let head = store.audit_head(id(1)).await.expect("a head");
    if end == head { Ok(end) } else { Err(Tampering::Cut) }
}

#[tokio::test]
async fn security_109_a_flipped_bit_of_a_record_shows_in_its_chain() {
    let folder = chained().await;
    assert_eq!(verify(folder.path(), Options::default()).await.map(|head| head.sequence), Ok(50));
    let file = folder.path().join("semilla.db");
    let mut bytes = std::fs::read(&file).expect("a file");
    let at = bytes.windows(8).position(|window| window == b"note 025").expect("the record");
    bytes[at + 7] ^= 1;
    std::fs::write(&file, bytes).expect("written");
    assert_eq!(verify(folder.path(), Options::default()).await, Err(Tampering::Altered));
}

#[tokio::test]
async fn security_109_damaged_pages_are_found_at_the_start() {
    let folder = chained().await;
    let file = folder.path().join("semilla.db");
    let whole = std::fs::read(&file).expect("a file");
    let at = whole.windows(8).position(|window| window == b"note 025").expect("the record");
    // The kind of the page, and where its cells begin.
    let page = at / 4096 * 4096;
    for (damaged, name) in [(page, "kind"), (page + 3, "cells"), (page + 9, "pointer")] {
        let mut bytes = whole.clone();
        bytes[damaged] ^= 0x15;
        std::fs::write(&file, bytes).expect("written");
        let refused = open(folder.path()).err().expect(name);
        assert!(matches!(refused, StoreError::Inconsistent { .. }), "{name}: {refused}");
    }
    std::fs::write(&file, whole).expect("written");
    open(folder.path()).expect("whole again");
}

#[tokio::test]
async fn security_91_and_109_a_chain_that_was_cut_is_found_at_the_start() {
    let unguarded = Options { startup_checks: false, ..Options::default() };
    let drop_trigger = "DROP TRIGGER audit_is_never_deleted; DROP TRIGGER audit_is_never_changed;";
    for (cut, what) in [
        ("DELETE FROM audit WHERE sequence = 50", Tampering::Cut),
        ("DELETE FROM audit", Tampering::Cut),
        ("DELETE FROM chains", Tampering::Cut),
        (
            "UPDATE audit SET hash = (SELECT hash FROM audit WHERE sequence = 1) WHERE sequence = 50",
            Tampering::Altered,
        ),
    ] {
        let folder = chained().await;
        on_file(folder.path(), |connection| connection.execute_batch(drop_trigger));
        drop(open(folder.path()).expect("still whole"));
        on_file(folder.path(), |connection| connection.execute_batch(cut));
        let refused = open(folder.path()).err().expect(cut);
        assert!(refused.to_string().contains("does not end at its head"), "{cut}: {refused}");
        // A tool that looks into it opens it all the same.
        assert_eq!(verify(folder.path(), unguarded).await, Err(what), "{cut}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn listings_and_changes_go_on_beside_each_other() {
    let (store, _folder) = make();
    let change = |n: u64| {
        let mut columns = vec![Value::Null; TOKENS.columns.len()];
        columns[0] = format!("VT-{n:05}").into();
        just(Write::Insert(&TOKENS, Row { columns, ..lease(&n.to_string(), 1, "body") }))
    };
    let query = Query { order: Some("serial"), ..Query::of(&TOKENS, id(1), 10_000) };
    let changes = join_all((0..200).map(|n| store.commit(change(n))));
    let listings = join_all((0..50).map(|_| store.rows(&query)));
    let (changed, listed) = tokio::join!(changes, listings);
    assert!(changed.iter().all(Result::is_ok) && listed.iter().all(Result::is_ok));
    assert_eq!(store.rows(&query).await.expect("rows").len(), 200);
    let bank = Query::of(&TOKENS, CompanyId::BANK, 1);
    assert_eq!(store.count(&bank).await.expect("a count"), 0);
}

#[test]
fn waiting_for_another_program_has_an_end() {
    assert!(Options::default().busy_timeout <= Duration::from_secs(10));
}
