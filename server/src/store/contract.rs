//! What every backend holds to, as tests that know nothing but the trait. A backend runs them all
//! with `contract::holds!(make)`, where `make` opens a new, empty store and returns it with
//! whatever has to live as long as it does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use semilla_core::audit::{Actor, Draft, Head, Subject};
use semilla_core::id::{ClientId, CompanyId, TokenId};
use semilla_core::otp::{Parameters, Step};
use semilla_core::seal::Sealed;
use semilla_core::time::Timestamp;
use semilla_core::verifier::Counters;
use tokio::sync::broadcast::Receiver;

use super::{
    Attempt, AuditQuery, Batch, Check, Judged, Query, Row, Scope, Store, StoreError, Table, Topic,
    Value, Verifier, VerifierChange, Write, attempts_draft,
};

/// Makes a test of each rule, for the store that `$make` opens.
macro_rules! holds {
    ($make:path) => {
        $crate::store::contract::holds! { $make:
            an_inserted_row_reads_back_and_is_inserted_once
            an_update_replaces_the_version_it_was_read_at_and_no_other
            a_put_replaces_whatever_was_there_and_the_version_still_rises
            a_delete_removes_the_version_it_was_read_at_and_no_other
            unchanged_holds_a_batch_to_a_row_that_it_does_not_write
            rows_of_one_company_are_not_those_of_another
            a_row_of_the_wrong_shape_is_refused
            a_name_is_reserved_once_among_all_companies_until_it_is_given_back
            a_name_that_is_assigned_changes_hands
            writes_of_a_batch_take_effect_one_after_the_other
            security_90_a_batch_that_fails_at_its_last_write_leaves_nothing
            of_many_that_change_the_same_version_one_wins
            of_many_that_reserve_the_same_name_one_wins
            the_verifier_opens_closes_reopens_and_is_destroyed
            a_new_generation_forgives_failures_and_never_gives_a_step_back
            security_25_of_many_checks_of_one_code_one_is_accepted
            checks_and_changes_of_one_verifier_lose_nothing_of_each_other
            a_rule_cannot_give_a_step_back
            attempts_count_before_there_is_a_seed
            an_attempt_that_changes_nothing_is_recorded
            the_attempts_of_a_record_are_those_it_was_hashed_over
            attempts_are_forgotten_up_to_a_record_and_the_records_stay
            all_verifiers_are_listed_in_order_page_by_page
            a_seed_is_sealed_anew_only_where_it_is_the_one_that_was_read
            security_29_steps_are_spent_and_never_given_back
            security_94_what_is_sealed_under_a_key_is_found_in_whatever_table
            security_91_chains_have_no_gap_under_concurrent_batches
            audit_records_are_chosen_by_token_kind_and_place
            pages_hold_every_row_once_in_order_both_ways
            a_limit_of_none_finds_none
            filters_hold_all_together_and_know_nothing_from_something
            a_search_finds_the_text_itself_and_no_pattern
            chores_find_what_is_due_in_all_companies
            what_is_durable_is_told_and_what_conflicts_is_not
            security_108_a_change_nobody_waits_for_any_more_is_made_all_the_same
        }
    };
    ($make:path: $($rule:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
        async fn $rule() {
            let (store, _kept) = $make();
            $crate::store::contract::$rule(&store).await;
        }
    )*};
}
pub(crate) use holds;

/// A table, as if it had nothing but a moment.
pub(crate) static LEASES: Table = Table { name: "access_tokens", columns: &["expires"] };
/// The table with the most columns, all that are not looked at here aside.
pub(crate) static TOKENS: Table = Table {
    name: "tokens",
    columns: &["serial", "kind", "state", "holder", "holder_name_folded", "device", "updated"],
};

const MANY: u64 = 200;
const NOW: i64 = 1_764_000_000;

/// The `n`th id of any kind; 0 is the bank.
pub(crate) fn id<T: std::str::FromStr>(n: u64) -> T {
    let id = format!("00000000-0000-7000-8000-{n:012x}").parse().ok();
    id.expect("an id")
}

fn company() -> CompanyId {
    id(1)
}

/// A row of [`LEASES`].
pub(crate) fn lease(name: &str, version: i64, body: &str) -> Row {
    let columns = vec![Value::Integer(version)];
    Row { company: company(), id: name.to_owned(), version, body: body.to_owned(), columns }
}

/// As it is read back.
fn read(row: Row) -> Option<Row> {
    Some(Row { columns: Vec::new(), ..row })
}

/// A batch of one write.
pub(crate) fn just(write: Write) -> Batch {
    Batch { writes: vec![write], ..Batch::default() }
}

/// A record of the chain of `company`.
pub(crate) fn draft(company: CompanyId, kind: &str) -> Draft {
    Draft::new(company, Timestamp::from_seconds(NOW), kind, Actor::System)
}

fn conflicts(done: Result<(), StoreError>) {
    assert!(matches!(done, Err(StoreError::Conflict)), "{done:?}");
}

async fn write(store: &dyn Store, write: Write) {
    store.commit(just(write)).await.expect("written");
}

/// That a write conflicts.
async fn refuse(store: &dyn Store, write: Write) {
    conflicts(store.commit(just(write)).await);
}

async fn lease_of(store: &dyn Store, name: &str) -> Option<Row> {
    store.row(&LEASES, company(), name).await.expect("a read")
}

/// A write that makes the generation 1 of the `n`th token live.
pub(crate) fn open(n: u64, proved_by: u64) -> Write {
    let change = VerifierChange::Open {
        generation: 1,
        sealed: Sealed::from_stored(format!("key.nonce.first{n}")),
        method: Parameters::APP_MOVIL.into(),
        proved_by,
        drift: 0,
    };
    Write::Verifier(company(), id(n), change)
}

async fn held(store: &dyn Store, n: u64) -> Verifier {
    store.verifier(company(), id(n)).await.expect("a read").expect("a verifier")
}

fn attempt(token: Option<TokenId>, outcome: &str) -> Attempt {
    let at = Timestamp::from_milliseconds(NOW * 1000 + 123);
    Attempt { at, token, client: Some(id::<ClientId>(7)), outcome: outcome.to_owned(), failures: 3 }
}

/// A check by which `step` is accepted where it is later than the last one, and a failure where
/// it is not.
pub(crate) fn check(n: u64, step: u64) -> Check {
    let judge = move |held: Option<&Verifier>| {
        let Some(held) = held.filter(|held| held.open) else {
            return Judged { counters: None, attempt: attempt(Some(id(n)), "not_live") };
        };
        let is_fresh = held.counters.last_step < Some(Step(step));
        let counters = if is_fresh {
            Counters { last_step: Some(Step(step)), ..Counters::default() }
        } else {
            let waits_until = Some(Timestamp::from_seconds(NOW + 5));
            Counters { failures: held.counters.failures + 1, waits_until, ..held.counters }
        };
        let outcome = if is_fresh { "accepted" } else { "used" };
        Judged { counters: Some(counters), attempt: attempt(Some(id(n)), outcome) }
    };
    Check { company: company(), token: Some(id(n)), judge: Box::new(judge) }
}

/// Follows a whole chain and returns its head, which is the one the store names.
pub(crate) async fn follow(store: &dyn Store, company: CompanyId) -> Head {
    let mut head = Head::EMPTY;
    loop {
        let query =
            AuditQuery { company, after: head.sequence, token: None, kind: None, limit: 64 };
        let records = store.audit(&query).await.expect("records");
        if records.is_empty() {
            assert_eq!(store.audit_head(company).await.expect("a head"), head);
            return head;
        }
        head = records.iter().try_fold(head, Head::advance).expect("an unbroken chain");
    }
}

/// Everything that is told until `last` is.
async fn told(topics: &mut Receiver<Arc<[Topic]>>, last: &Topic) -> Vec<Topic> {
    let mut all = Vec::new();
    while !all.contains(last) {
        let next = tokio::time::timeout(Duration::from_secs(60), topics.recv()).await;
        all.extend_from_slice(&next.expect("told in time").expect("told"));
    }
    all
}

pub(crate) async fn an_inserted_row_reads_back_and_is_inserted_once(store: &dyn Store) {
    assert_eq!(lease_of(store, "a").await, None);
    let row = lease("a", 1, "{\"ñ\":\"\u{1F512}\"}");
    write(store, Write::Insert(&LEASES, row.clone())).await;
    refuse(store, Write::Insert(&LEASES, lease("a", 1, "other"))).await;
    refuse(store, Write::Insert(&LEASES, lease("a", 2, "other"))).await;
    assert_eq!(lease_of(store, "a").await, read(row));

    // A record that moved here goes on counting.
    let moved = lease("b", 7, "moved");
    write(store, Write::Insert(&LEASES, moved.clone())).await;
    assert_eq!(lease_of(store, "b").await, read(moved));
}

pub(crate) async fn an_update_replaces_the_version_it_was_read_at_and_no_other(store: &dyn Store) {
    refuse(store, Write::Update(&LEASES, lease("a", 2, "no row"))).await;
    write(store, Write::Insert(&LEASES, lease("a", 1, "first"))).await;
    for version in [1, 3] {
        refuse(store, Write::Update(&LEASES, lease("a", version, "late"))).await;
    }
    let second = lease("a", 2, "second");
    write(store, Write::Update(&LEASES, second.clone())).await;
    refuse(store, Write::Update(&LEASES, lease("a", 2, "late"))).await;
    assert_eq!(lease_of(store, "a").await, read(second));

    // Its columns as well.
    let by = |expires: i64| Query::of(&LEASES, company(), 9).equals("expires", expires);
    assert_eq!(store.count(&by(1)).await.expect("a count"), 0);
    assert_eq!(store.count(&by(2)).await.expect("a count"), 1);
}

pub(crate) async fn a_put_replaces_whatever_was_there_and_the_version_still_rises(
    store: &dyn Store,
) {
    write(store, Write::Put(&LEASES, lease("a", 1, "first"))).await;
    assert_eq!(lease_of(store, "a").await, read(lease("a", 1, "first")));
    write(store, Write::Put(&LEASES, lease("a", 1, "second"))).await;
    assert_eq!(lease_of(store, "a").await, read(lease("a", 2, "second")));
    // Who read the first one cannot take the second one for it.
    refuse(store, Write::Unchanged(&LEASES, company(), "a".to_owned(), 1)).await;
    refuse(store, Write::Update(&LEASES, lease("a", 2, "late"))).await;
}

pub(crate) async fn a_delete_removes_the_version_it_was_read_at_and_no_other(store: &dyn Store) {
    let delete = |version| Write::Delete(&LEASES, company(), "a".to_owned(), version);
    refuse(store, delete(1)).await;
    write(store, Write::Insert(&LEASES, lease("a", 2, "first"))).await;
    for version in [1, 3] {
        refuse(store, delete(version)).await;
    }
    assert!(lease_of(store, "a").await.is_some());
    write(store, delete(2)).await;
    assert_eq!(lease_of(store, "a").await, None);
    refuse(store, delete(2)).await;
}

pub(crate) async fn unchanged_holds_a_batch_to_a_row_that_it_does_not_write(store: &dyn Store) {
    let batch = |version, name: &str| Batch {
        writes: vec![
            Write::Insert(&LEASES, lease(name, 1, "depends")),
            Write::Unchanged(&LEASES, company(), "a".to_owned(), version),
        ],
        ..Batch::default()
    };
    conflicts(store.commit(batch(1, "b")).await);
    write(store, Write::Insert(&LEASES, lease("a", 1, "first"))).await;
    store.commit(batch(1, "b")).await.expect("unchanged");
    write(store, Write::Update(&LEASES, lease("a", 2, "second"))).await;
    conflicts(store.commit(batch(1, "c")).await);
    assert_eq!(lease_of(store, "c").await, None);
    assert_eq!(lease_of(store, "a").await, read(lease("a", 2, "second")));
}

pub(crate) async fn rows_of_one_company_are_not_those_of_another(store: &dyn Store) {
    let of = |n| Row { company: id(n), ..lease("a", 1, &n.to_string()) };
    write(store, Write::Insert(&LEASES, of(1))).await;
    assert_eq!(store.row(&LEASES, id(2), "a").await.expect("a read"), None);
    refuse(store, Write::Delete(&LEASES, id(2), "a".to_owned(), 1)).await;
    refuse(store, Write::Update(&LEASES, Row { version: 2, ..of(2) })).await;
    write(store, Write::Insert(&LEASES, of(2))).await;
    for n in [1, 2] {
        assert_eq!(store.row(&LEASES, id(n), "a").await.expect("a read"), read(of(n)));
        let rows = store.rows(&Query::of(&LEASES, id(n), 9)).await.expect("rows");
        assert_eq!(rows, [read(of(n)).expect("a row")]);
    }
    write(store, Write::Verifier(id(2), id(5), VerifierChange::Close)).await;
    write(store, open(5, 1)).await;
    assert_eq!(store.verifier(id(2), id(5)).await.expect("a read"), None);
}

pub(crate) async fn a_row_of_the_wrong_shape_is_refused(store: &dyn Store) {
    let few = Row { columns: Vec::new(), ..lease("a", 1, "few") };
    let wrong = Row { columns: vec!["soon".into()], ..lease("a", 1, "wrong") };
    for row in [few, wrong] {
        let done = store.commit(just(Write::Insert(&LEASES, row))).await;
        assert!(matches!(done, Err(StoreError::Inconsistent { .. })), "{done:?}");
    }
    assert_eq!(lease_of(store, "a").await, None);
    let query = Query::of(&LEASES, company(), 9).equals("state", "live");
    assert!(matches!(store.rows(&query).await, Err(StoreError::Inconsistent { .. })));
    assert!(matches!(store.count(&query).await, Err(StoreError::Inconsistent { .. })));
}

pub(crate) async fn a_name_is_reserved_once_among_all_companies_until_it_is_given_back(
    store: &dyn Store,
) {
    let reserve = |scope, n| Write::Reserve(scope, "VT-1".to_owned(), id(n), format!("of {n}"));
    let free = || Write::Free(Scope::Serial, "VT-1".to_owned());
    write(store, free()).await;
    write(store, reserve(Scope::Serial, 1)).await;
    for n in [1, 2] {
        refuse(store, reserve(Scope::Serial, n)).await;
    }
    // Each scope has names of its own, and a name has one spelling.
    write(store, reserve(Scope::Client, 2)).await;
    let lookup = async |scope, name| store.lookup(scope, name).await.expect("a lookup");
    assert_eq!(lookup(Scope::Serial, "VT-1").await, Some((id(1), "of 1".to_owned())));
    assert_eq!(lookup(Scope::Client, "VT-1").await, Some((id(2), "of 2".to_owned())));
    assert_eq!(lookup(Scope::Serial, "vt-1").await, None);

    write(store, free()).await;
    assert_eq!(lookup(Scope::Serial, "VT-1").await, None);
    assert!(lookup(Scope::Client, "VT-1").await.is_some());
    write(store, reserve(Scope::Serial, 2)).await;
    assert_eq!(lookup(Scope::Serial, "VT-1").await, Some((id(2), "of 2".to_owned())));
}

pub(crate) async fn a_name_that_is_assigned_changes_hands(store: &dyn Store) {
    let assign =
        |n: u64| Write::Assign(Scope::DeviceToken, "hash".to_owned(), id(n), n.to_string());
    for n in [1, 2] {
        write(store, assign(n)).await;
        let found = store.lookup(Scope::DeviceToken, "hash").await.expect("a lookup");
        assert_eq!(found, Some((id(n), n.to_string())));
    }
    refuse(store, Write::Reserve(Scope::DeviceToken, "hash".to_owned(), id(3), "3".to_owned()))
        .await;
}

pub(crate) async fn writes_of_a_batch_take_effect_one_after_the_other(store: &dyn Store) {
    write(store, Write::Insert(&LEASES, lease("a", 1, "old"))).await;
    write(store, Write::Reserve(Scope::Serial, "s".to_owned(), id(1), "old".to_owned())).await;
    let writes = vec![
        Write::Delete(&LEASES, company(), "a".to_owned(), 1),
        Write::Insert(&LEASES, lease("a", 2, "new")),
        Write::Unchanged(&LEASES, company(), "a".to_owned(), 2),
        Write::Free(Scope::Serial, "s".to_owned()),
        Write::Reserve(Scope::Serial, "s".to_owned(), id(2), "new".to_owned()),
    ];
    store.commit(Batch { writes, ..Batch::default() }).await.expect("written");
    assert_eq!(lease_of(store, "a").await, read(lease("a", 2, "new")));
    let found = store.lookup(Scope::Serial, "s").await.expect("a lookup");
    assert_eq!(found, Some((id(2), "new".to_owned())));
}

pub(crate) async fn security_90_a_batch_that_fails_at_its_last_write_leaves_nothing(
    store: &dyn Store,
) {
    write(store, Write::Insert(&LEASES, lease("a", 1, "first"))).await;
    write(store, Write::Insert(&LEASES, lease("gone", 1, "first"))).await;
    write(store, Write::Reserve(Scope::Serial, "s".to_owned(), id(1), "it".to_owned())).await;
    write(store, open(1, 10)).await;
    let before = held(store, 1).await;

    let writes = || {
        vec![
            Write::Insert(&LEASES, lease("b", 1, "new")),
            Write::Put(&LEASES, lease("c", 1, "new")),
            Write::Update(&LEASES, lease("a", 2, "second")),
            Write::Delete(&LEASES, company(), "gone".to_owned(), 1),
            Write::Free(Scope::Serial, "s".to_owned()),
            Write::Assign(Scope::Serial, "t".to_owned(), id(1), "it".to_owned()),
            Write::Verifier(company(), id(1), VerifierChange::Destroy),
            open(2, 20),
        ]
    };
    let failing = [
        Write::Insert(&LEASES, lease("a", 1, "taken")),
        Write::Update(&LEASES, lease("a", 2, "late")),
        Write::Delete(&LEASES, company(), "a".to_owned(), 1),
        Write::Unchanged(&LEASES, company(), "a".to_owned(), 1),
        Write::Reserve(Scope::Serial, "t".to_owned(), id(2), "it".to_owned()),
        Write::Verifier(company(), id(3), VerifierChange::Reopen),
    ];
    for last in failing {
        let said = format!("{last:?}");
        let writes = writes().into_iter().chain([last]).collect();
        let audit = vec![draft(company(), "token.released")];
        conflicts(store.commit(Batch { writes, audit, topics: Vec::new() }).await);

        assert_eq!(lease_of(store, "a").await, read(lease("a", 1, "first")), "{said}");
        assert!(lease_of(store, "gone").await.is_some(), "{said}");
        for new in ["b", "c"] {
            assert_eq!(lease_of(store, new).await, None, "{said}");
        }
        assert!(store.lookup(Scope::Serial, "s").await.expect("a lookup").is_some(), "{said}");
        assert_eq!(store.lookup(Scope::Serial, "t").await.expect("a lookup"), None, "{said}");
        assert_eq!(held(store, 1).await, before, "{said}");
        assert_eq!(store.verifier(company(), id(2)).await.expect("a read"), None, "{said}");
        assert_eq!(follow(store, company()).await, Head::EMPTY, "{said}");
    }
}

pub(crate) async fn of_many_that_change_the_same_version_one_wins(store: &dyn Store) {
    write(store, Write::Insert(&LEASES, lease("a", 1, "first"))).await;
    let change = |n: u64| Batch {
        writes: vec![
            Write::Insert(&LEASES, lease(&format!("by {n}"), 1, "effect")),
            Write::Update(&LEASES, lease("a", 2, &n.to_string())),
        ],
        audit: vec![draft(company(), "token.released").with("by", n)],
        topics: Vec::new(),
    };
    let done = join_all((0..MANY).map(|n| store.commit(change(n)))).await;
    let winners: Vec<usize> = (0..done.len()).filter(|n| done[*n].is_ok()).collect();
    let [winner] = winners.as_slice() else { panic!("{winners:?}") };
    for lost in done.iter().filter_map(|done| done.as_ref().err()) {
        assert!(matches!(lost, StoreError::Conflict), "{lost}");
    }
    assert_eq!(lease_of(store, "a").await, read(lease("a", 2, &winner.to_string())));
    assert_eq!(store.count(&Query::of(&LEASES, company(), 9)).await.expect("a count"), 2);
    assert_eq!(follow(store, company()).await.sequence, 1);
}

pub(crate) async fn of_many_that_reserve_the_same_name_one_wins(store: &dyn Store) {
    let reserve =
        |n: u64| just(Write::Reserve(Scope::DeviceKey, "key".to_owned(), id(n), n.to_string()));
    let done = join_all((1..=MANY).map(|n| store.commit(reserve(n)))).await;
    let winner = done.iter().position(Result::is_ok).expect("a winner") as u64 + 1;
    assert_eq!(done.iter().filter(|done| done.is_ok()).count(), 1);
    let found = store.lookup(Scope::DeviceKey, "key").await.expect("a lookup");
    assert_eq!(found, Some((id(winner), winner.to_string())));
}

pub(crate) async fn the_verifier_opens_closes_reopens_and_is_destroyed(store: &dyn Store) {
    let change = |change| Write::Verifier(company(), id(1), change);
    // Nothing to close or destroy, and nothing that could be opened again.
    write(store, change(VerifierChange::Close)).await;
    write(store, change(VerifierChange::Destroy)).await;
    write(store, change(VerifierChange::Forgive)).await;
    refuse(store, change(VerifierChange::Reopen)).await;
    assert_eq!(store.verifier(company(), id(1)).await.expect("a read"), None);

    write(store, open(1, 10)).await;
    let opened = Verifier {
        generation: 1,
        open: true,
        sealed: Some(Sealed::from_stored("key.nonce.first1".to_owned())),
        method: Parameters::APP_MOVIL.into(),
        counters: Counters { last_step: Some(Step(10)), ..Counters::default() },
    };
    assert_eq!(held(store, 1).await, opened);

    assert_eq!(store.check(check(1, 10)).await.expect("judged").outcome, "used");
    write(store, change(VerifierChange::Close)).await;
    let closed = held(store, 1).await;
    assert!(!closed.open && closed.sealed == opened.sealed && closed.counters.failures == 1);
    assert_eq!(store.check(check(1, 11)).await.expect("judged").outcome, "not_live");
    assert_eq!(held(store, 1).await, closed);

    write(store, change(VerifierChange::Reopen)).await;
    assert_eq!(held(store, 1).await, Verifier { open: true, ..closed });
    write(store, change(VerifierChange::Forgive)).await;
    assert_eq!(held(store, 1).await, opened);

    assert_eq!(store.check(check(1, 10)).await.expect("judged").outcome, "used");
    write(store, change(VerifierChange::Destroy)).await;
    let destroyed = held(store, 1).await;
    assert!(!destroyed.open && destroyed.sealed.is_none() && destroyed.counters.failures == 1);
    refuse(store, change(VerifierChange::Reopen)).await;
}

pub(crate) async fn a_new_generation_forgives_failures_and_never_gives_a_step_back(
    store: &dyn Store,
) {
    write(store, open(1, 10)).await;
    assert_eq!(store.check(check(1, 30)).await.expect("judged").outcome, "accepted");
    assert_eq!(store.check(check(1, 30)).await.expect("judged").outcome, "used");
    for (generation, proved_by, last) in [(2, 20, 30), (3, 40, 40)] {
        let change = VerifierChange::Open {
            generation,
            sealed: Sealed::from_stored(format!("key.nonce.{generation}")),
            method: Parameters::AUTHENTICATOR_APP.into(),
            proved_by,
            drift: -2,
        };
        write(store, Write::Verifier(company(), id(1), change)).await;
        let expected = Verifier {
            generation,
            open: true,
            sealed: Some(Sealed::from_stored(format!("key.nonce.{generation}"))),
            method: Parameters::AUTHENTICATOR_APP.into(),
            counters: Counters { last_step: Some(Step(last)), drift: -2, ..Counters::default() },
        };
        assert_eq!(held(store, 1).await, expected);
    }
}

pub(crate) async fn all_verifiers_are_listed_in_order_page_by_page(store: &dyn Store) {
    for n in [3, 1, 2] {
        write(store, open(n, 10)).await;
    }
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = store.verifiers(after, 2).await.expect("read");
        let Some((company, token, _)) = page.last() else { break };
        after = Some((*company, *token));
        found.extend(page);
    }
    let mut ids = [id(1), id(2), id(3)];
    ids.sort_unstable_by_key(ToString::to_string);
    assert_eq!(found.iter().map(|(_, token, _)| *token).collect::<Vec<_>>(), ids);
    let (company, token, verifier) = &found[0];
    assert_eq!(store.verifier(*company, *token).await.expect("read").as_ref(), Some(verifier));
}

pub(crate) async fn a_seed_is_sealed_anew_only_where_it_is_the_one_that_was_read(
    store: &dyn Store,
) {
    write(store, open(1, 10)).await;
    let before = held(store, 1).await;
    let from = before.sealed.clone().expect("a seed");
    let to = Sealed::from_stored("new.nonce.text".to_owned());
    let reseal = |from: &Sealed, to: &Sealed| {
        let change = VerifierChange::Reseal { from: from.clone(), to: to.clone() };
        Write::Verifier(company(), id(1), change)
    };
    write(store, reseal(&from, &to)).await;
    assert_eq!(held(store, 1).await, Verifier { sealed: Some(to.clone()), ..before });
    refuse(store, reseal(&from, &to)).await;
    write(store, Write::Verifier(company(), id(1), VerifierChange::Destroy)).await;
    refuse(store, reseal(&to, &from)).await;
}

pub(crate) async fn security_29_steps_are_spent_and_never_given_back(store: &dyn Store) {
    write(store, open(1, 10)).await;
    let before = held(store, 1).await;
    for (up_to, last) in [(20, 20), (15, 20), (21, 21)] {
        write(store, Write::Verifier(company(), id(1), VerifierChange::Spend { up_to })).await;
        let after = held(store, 1).await;
        assert_eq!(after.counters.last_step, Some(Step(last)));
        assert_eq!((after.open, &after.sealed), (before.open, &before.sealed));
    }
    assert_eq!(store.check(check(1, 21)).await.expect("judged").outcome, "used");
    assert_eq!(store.check(check(1, 22)).await.expect("judged").outcome, "accepted");
    // A token that never had a seed has no codes.
    write(store, Write::Verifier(company(), id(2), VerifierChange::Spend { up_to: 9 })).await;
    assert_eq!(store.verifier(company(), id(2)).await.expect("read"), None);
}

pub(crate) async fn security_94_what_is_sealed_under_a_key_is_found_in_whatever_table(
    store: &dyn Store,
) {
    let found = |keys: &'static [&'static str]| async move {
        store.sealed_under(keys).await.expect("read")
    };
    assert_eq!(found(&["key", "k"]).await, []);
    write(store, open(1, 10)).await;
    assert_eq!(found(&["key", "k"]).await, [("verifiers".to_owned(), "key".to_owned())]);
    let row = lease("a", 1, r#"{"inner":{"seal":"k.nonce.text"}}"#);
    write(store, Write::Insert(&LEASES, row)).await;
    let both = [(LEASES.name, "k"), ("verifiers", "key")];
    let both = both.map(|(table, key)| (table.to_owned(), key.to_owned()));
    assert_eq!(found(&["key", "k"]).await, both);
    assert_eq!(found(&["nonce", "ke"]).await, []);
}

pub(crate) async fn attempts_are_forgotten_up_to_a_record_and_the_records_stay(store: &dyn Store) {
    write(store, open(1, 10)).await;
    for step in [11, 12, 13] {
        store.check(check(1, step)).await.expect("judged");
    }
    let all = AuditQuery { company: company(), after: 0, token: None, kind: None, limit: 100 };
    let records = store.audit(&all).await.expect("read");
    let last = records.last().expect("a record").sequence;
    write(store, Write::ForgetAttempts(company(), last - 1)).await;
    for record in &records {
        let left = store.attempts(company(), record.sequence).await.expect("read").len();
        assert_eq!(left, usize::from(record.sequence == last), "{}", record.sequence);
    }
    assert_eq!(store.audit(&all).await.expect("read"), records);
}

pub(crate) async fn security_25_of_many_checks_of_one_code_one_is_accepted(store: &dyn Store) {
    for (n, step) in [(1, 10), (2, 10)] {
        write(store, open(n, step)).await;
    }
    let codes = (0..MANY).flat_map(|_| [check(1, 11), check(2, 12)]);
    let judged = join_all(codes.map(|check| store.check(check))).await;
    for (n, step) in [(1, 11), (2, 12)] {
        let of = |judged: &&Result<Attempt, StoreError>| {
            let attempt = judged.as_ref().expect("judged");
            attempt.token == Some(id(n)) && attempt.outcome == "accepted"
        };
        assert_eq!(judged.iter().filter(of).count(), 1);
        let counters = held(store, n).await.counters;
        assert_eq!(counters.last_step, Some(Step(step)));
        // Not all of them come after the one that was accepted, but that one forgives none of the
        // later ones.
        assert!(u64::from(counters.failures) < MANY);
    }
    recorded(store, 2 * MANY).await;
}

pub(crate) async fn checks_and_changes_of_one_verifier_lose_nothing_of_each_other(
    store: &dyn Store,
) {
    write(store, open(1, 10)).await;
    // Wrong codes only, so that each one counts; meanwhile other rows of the table change.
    let checks = join_all((0..MANY).map(|_| store.check(check(1, 10))));
    let others = join_all((2..=MANY).map(|n| store.commit(just(open(n, 10)))));
    let (judged, written) = tokio::join!(checks, others);
    assert!(judged.iter().all(|judged| judged.as_ref().is_ok_and(|it| it.outcome == "used")));
    assert!(written.iter().all(Result::is_ok));
    let counters = held(store, 1).await.counters;
    assert_eq!((counters.last_step, u64::from(counters.failures)), (Some(Step(10)), MANY));
    assert_eq!(counters.waits_until, Some(Timestamp::from_seconds(NOW + 5)));
}

pub(crate) async fn a_rule_cannot_give_a_step_back(store: &dyn Store) {
    write(store, open(1, 10)).await;
    let before = held(store, 1).await;
    for (last_step, drift) in [(None, 0), (Some(Step(9)), 0), (Some(Step(11)), -1)] {
        let counters = Some(Counters { last_step, drift, ..Counters::default() });
        let judge = move |_: Option<&Verifier>| Judged {
            counters,
            attempt: attempt(Some(id(1)), "accepted"),
        };
        let check = Check { company: company(), token: Some(id(1)), judge: Box::new(judge) };
        assert!(matches!(store.check(check).await, Err(StoreError::Inconsistent { .. })));
    }
    // Neither can it count where no token is named.
    let judge = |_: Option<&Verifier>| Judged {
        counters: Some(Counters::default()),
        attempt: attempt(None, "accepted"),
    };
    let check = Check { company: company(), token: None, judge: Box::new(judge) };
    assert!(matches!(store.check(check).await, Err(StoreError::Inconsistent { .. })));
    assert_eq!(held(store, 1).await, before);
    assert_eq!(follow(store, company()).await, Head::EMPTY);
}

pub(crate) async fn attempts_count_before_there_is_a_seed(store: &dyn Store) {
    let judge = |held: Option<&Verifier>| {
        let before = held.map(|held| held.counters).unwrap_or_default();
        let counters = Counters { failures: before.failures + 1, ..before };
        Judged { counters: Some(counters), attempt: attempt(Some(id(1)), "wrong") }
    };
    let check = || Check { company: company(), token: Some(id(1)), judge: Box::new(judge) };
    let judged = join_all((0..MANY).map(|_| store.check(check()))).await;
    assert!(judged.iter().all(Result::is_ok));
    let verifier = held(store, 1).await;
    assert!(!verifier.open && verifier.sealed.is_none());
    assert_eq!((u64::from(verifier.counters.failures), verifier.counters.last_step), (MANY, None));
    refuse(store, Write::Verifier(company(), id(1), VerifierChange::Reopen)).await;
    write(store, Write::Verifier(company(), id(1), VerifierChange::Forgive)).await;
    assert_eq!(held(store, 1).await.counters, Counters::default());
    write(store, open(1, 10)).await;
    let counters = Counters { last_step: Some(Step(10)), ..Counters::default() };
    assert_eq!(held(store, 1).await.counters, counters);
}

pub(crate) async fn an_attempt_that_changes_nothing_is_recorded(store: &dyn Store) {
    let judge = |held: Option<&Verifier>| {
        assert!(held.is_none());
        Judged { counters: None, attempt: attempt(None, "unknown_token") }
    };
    for token in [None, Some(id(1))] {
        let check = Check { company: company(), token, judge: Box::new(judge) };
        assert_eq!(store.check(check).await.expect("judged"), attempt(None, "unknown_token"));
    }
    let first = store.attempts(company(), 1).await.expect("attempts");
    assert_eq!(first, [attempt(None, "unknown_token")]);
    assert_eq!(store.attempts(company(), 9).await.expect("attempts"), []);
    assert_eq!(store.attempts(id(2), 1).await.expect("attempts"), []);
    recorded(store, 2).await;
}

/// That the chain holds `number` attempts, each record the hash of its own.
async fn recorded(store: &dyn Store, number: u64) {
    let mut sum = 0;
    let kind = Some("otp.checked".to_owned());
    let query = AuditQuery { company: company(), after: 0, token: None, kind, limit: 10_000 };
    for record in store.audit(&query).await.expect("records") {
        let attempts = store.attempts(company(), record.sequence).await.expect("attempts");
        let draft: Draft = serde_json::from_str(&record.body).expect("a draft");
        assert_eq!(draft, attempts_draft(company(), draft.at, &attempts));
        assert_eq!(Some(draft.at), attempts.iter().map(|attempt| attempt.at).max());
        sum += attempts.len() as u64;
    }
    assert_eq!(sum, number);
    follow(store, company()).await;
}

pub(crate) async fn the_attempts_of_a_record_are_those_it_was_hashed_over(store: &dyn Store) {
    write(store, open(1, 10)).await;
    let checks = join_all((11..11 + MANY).map(|step| store.check(check(1, step))));
    let audited = |_| Batch { audit: vec![draft(company(), "token.issued")], ..Batch::default() };
    let batches = join_all((0..MANY).map(|n| store.commit(audited(n))));
    let (judged, written) = tokio::join!(checks, batches);
    assert!(judged.iter().all(Result::is_ok) && written.iter().all(Result::is_ok));
    recorded(store, MANY).await;
}

pub(crate) async fn security_91_chains_have_no_gap_under_concurrent_batches(store: &dyn Store) {
    let batch = |n: u64| Batch {
        writes: vec![Write::Insert(&LEASES, lease(&n.to_string(), 1, "effect"))],
        audit: vec![
            draft(id(n % 3), "token.issued").with("n", n),
            draft(id(n % 3), "token.assigned").with("n", n),
            draft(id(9), "token.issued").with("n", n),
        ],
        topics: Vec::new(),
    };
    let done = join_all((0..MANY).map(|n| store.commit(batch(n)))).await;
    assert!(done.iter().all(Result::is_ok));
    let mut sum = 0;
    for n in 0..3 {
        sum += follow(store, id(n)).await.sequence;
    }
    assert_eq!((sum, follow(store, id(9)).await.sequence), (2 * MANY, MANY));
    assert_eq!(store.audit_chains().await.expect("chains"), [id(0), id(1), id(2), id(9)]);
    assert_eq!(store.audit_head(id(5)).await.expect("a head"), Head::EMPTY);

    // The records of a batch stand in its order.
    let query = AuditQuery { company: id(1), after: 0, token: None, kind: None, limit: 1000 };
    let records = store.audit(&query).await.expect("records");
    for pair in records.chunks(2) {
        let [issued, assigned] =
            [0, 1].map(|n| -> Draft { serde_json::from_str(&pair[n].body).expect("a draft") });
        assert_eq!(
            (issued.kind.as_str(), assigned.kind.as_str()),
            ("token.issued", "token.assigned")
        );
        assert_eq!(issued.detail["n"], assigned.detail["n"]);
    }
}

pub(crate) async fn audit_records_are_chosen_by_token_kind_and_place(store: &dyn Store) {
    let kinds = ["token.issued", "token.released", "tokens.listed", "otp.checked", "token"];
    let mut audit = Vec::new();
    for kind in kinds {
        for token in [None, Some(id(1)), Some(id(2))] {
            audit.push(draft(company(), kind).about(Subject { token, ..Subject::default() }));
        }
    }
    store.commit(Batch { audit, ..Batch::default() }).await.expect("written");

    let all = AuditQuery { company: company(), after: 0, token: None, kind: None, limit: 100 };
    let chosen = async |query: AuditQuery| -> Vec<u64> {
        let records = store.audit(&query).await.expect("records");
        records.iter().map(|record| record.sequence).collect()
    };
    let kind = |kind: &str| Some(kind.to_owned());
    assert_eq!(chosen(AuditQuery { after: 13, ..all.clone() }).await, [14, 15]);
    assert_eq!(chosen(AuditQuery { limit: 2, ..all.clone() }).await, [1, 2]);
    assert_eq!(chosen(AuditQuery { token: Some(id(2)), ..all.clone() }).await, [3, 6, 9, 12, 15]);
    assert_eq!(chosen(AuditQuery { kind: kind("token.issued"), ..all.clone() }).await, [1, 2, 3]);
    assert_eq!(
        chosen(AuditQuery { kind: kind("token."), ..all.clone() }).await,
        [1, 2, 3, 4, 5, 6]
    );
    assert_eq!(chosen(AuditQuery { kind: kind("token"), ..all.clone() }).await, [13, 14, 15]);
    let both = AuditQuery { kind: kind("token."), token: Some(id(1)), after: 2, ..all.clone() };
    assert_eq!(chosen(both).await, [5]);
    assert_eq!(chosen(AuditQuery { company: id(2), ..all }).await, [0; 0]);
}

/// Rows of [`TOKENS`] with equal values, nothing, and texts whose order is easily got wrong.
fn assorted() -> BTreeMap<String, Row> {
    let texts = ["", "a", "a b", "aa", "B", "Z", "z", "ñ", "\u{1F512}", "%"];
    let text = |n: usize| if n % 4 == 3 { Value::Null } else { texts[n % texts.len()].into() };
    let moment = |n: usize| {
        if n.is_multiple_of(5) { Value::Null } else { Value::Integer([-7, 0, 5, i64::MAX][n % 4]) }
    };
    let row = |n: usize| {
        // Ids in another order than anything else.
        let id = format!("{:02}", n * 37 % 61);
        let columns = vec![
            format!("VT-{:03}", n * 11 % 61).into(),
            if n.is_multiple_of(2) { "virtual" } else { "physical" }.into(),
            if n.is_multiple_of(3) { "blocked" } else { "active" }.into(),
            text(n),
            text(n / 2),
            Value::Null,
            moment(n),
        ];
        Row { company: company(), id, version: 1, body: n.to_string(), columns }
    };
    (0..60).map(row).map(|row| (row.id.clone(), row)).collect()
}

pub(crate) async fn pages_hold_every_row_once_in_order_both_ways(store: &dyn Store) {
    let rows = assorted();
    let elsewhere = rows.values().map(|row| Row { company: id(2), ..row.clone() });
    let writes =
        rows.values().cloned().chain(elsewhere).map(|row| Write::Insert(&TOKENS, row)).collect();
    store.commit(Batch { writes, ..Batch::default() }).await.expect("written");

    let orders = TOKENS.columns.iter().copied().map(Some).chain([None]);
    for (order, descending, state) in orders.flat_map(|order| {
        [(false, None), (true, None), (false, Some("active")), (true, Some("active"))]
            .map(|(descending, state)| (order, descending, state))
    }) {
        let at = order.and_then(|order| TOKENS.columns.iter().position(|column| *column == order));
        let key =
            |id: &str| (at.map_or(Value::Null, |at| rows[id].columns[at].clone()), id.to_owned());
        let is_chosen = |row: &&Row| state.is_none_or(|state| row.columns[2] == state.into());
        let mut expected: Vec<_> =
            rows.values().filter(is_chosen).map(|row| key(&row.id)).collect();
        expected.sort();
        if descending {
            expected.reverse();
        }
        for limit in [1, 7, 100] {
            let all = Query { order, descending, ..Query::of(&TOKENS, company(), limit) };
            let mut query =
                state.into_iter().fold(all, |query, state| query.equals("state", state));
            let mut seen = Vec::new();
            loop {
                let page = store.rows(&query).await.expect("a page");
                assert!(page.len() <= limit as usize);
                // Whatever the page: as many as there are.
                let number = store.count(&query).await.expect("a count");
                assert_eq!(number, expected.len() as u64);
                let Some(last) = page.last() else { break };
                query.after = Some(key(&last.id));
                for row in page {
                    assert_eq!(Some(&row), read(rows[&row.id].clone()).as_ref());
                    seen.push(key(&row.id));
                }
            }
            assert_eq!(seen, expected, "{query:?}");
        }
    }
}

pub(crate) async fn a_limit_of_none_finds_none(store: &dyn Store) {
    write(store, Write::Insert(&LEASES, lease("a", 1, "first"))).await;
    assert_eq!(store.rows(&Query::of(&LEASES, company(), 0)).await.expect("rows"), []);
    let after = Some((Value::Null, String::new()));
    let query = Query { order: Some("expires"), after, ..Query::of(&LEASES, company(), 0) };
    assert_eq!(store.rows(&query).await.expect("rows"), []);
}

/// The bodies of the rows a query chooses, and that they are as many as are counted.
async fn bodies(store: &dyn Store, query: &Query) -> Vec<String> {
    let rows = store.rows(query).await.expect("rows");
    assert_eq!(store.count(query).await.expect("a count"), rows.len() as u64, "{query:?}");
    rows.into_iter().map(|row| row.body).collect()
}

pub(crate) async fn filters_hold_all_together_and_know_nothing_from_something(store: &dyn Store) {
    let row = |name: &str, columns: [Value; 7]| {
        Write::Insert(&TOKENS, Row { columns: columns.into(), ..lease(name, 1, name) })
    };
    let text = |text: &str| Value::from(text);
    let (none, empty) = (Value::Null, text(""));
    for write_of in [
        row(
            "a",
            [text("1"), text("v"), text("active"), text("u"), none.clone(), none.clone(), 5.into()],
        ),
        row(
            "b",
            [
                text("2"),
                text("v"),
                text("blocked"),
                none.clone(),
                none.clone(),
                none.clone(),
                7.into(),
            ],
        ),
        row(
            "c",
            [text("3"), text("p"), text("active"), empty, none.clone(), none.clone(), none.clone()],
        ),
    ] {
        write(store, write_of).await;
    }
    let all = Query::of(&TOKENS, company(), 100);
    let any = |column, values: &[Value]| {
        let mut query = all.clone();
        query.any_of.push((column, values.to_vec()));
        query
    };
    assert_eq!(bodies(store, &all).await, ["a", "b", "c"]);
    assert_eq!(bodies(store, &all.clone().equals("state", "active")).await, ["a", "c"]);
    assert_eq!(
        bodies(store, &all.clone().equals("state", "active").equals("kind", "v")).await,
        ["a"]
    );
    assert_eq!(
        bodies(store, &any("state", &[text("active"), text("blocked")])).await,
        ["a", "b", "c"]
    );
    assert_eq!(bodies(store, &any("holder", std::slice::from_ref(&none))).await, ["b"]);
    assert_eq!(bodies(store, &any("holder", &[none, text("u")])).await, ["a", "b"]);
    assert_eq!(bodies(store, &any("holder", &[text("")])).await, ["c"]);
    assert_eq!(bodies(store, &any("holder", &[])).await, [""; 0]);
    assert_eq!(bodies(store, &Query { at_most: Some(("updated", 6)), ..all.clone() }).await, ["a"]);
    assert_eq!(
        bodies(store, &Query { at_most: Some(("updated", 7)), ..all.clone() }).await,
        ["a", "b"]
    );
}

pub(crate) async fn a_search_finds_the_text_itself_and_no_pattern(store: &dyn Store) {
    let names =
        ["laura nunez", "50% luis", "50 luis", "a_b", "axb", "a\\b", "señal", "Senal", "it's", ""];
    for (n, name) in names.iter().enumerate() {
        let mut columns = vec![Value::Null; 7];
        columns[0] = format!("VT-{n}").into();
        columns[4] = (*name).into();
        let row = Row { columns, ..lease(&n.to_string(), 1, name) };
        write(store, Write::Insert(&TOKENS, row)).await;
    }
    let search = async |columns: &'static [&'static str], text: &str| {
        let search = Some((columns, text.to_owned()));
        bodies(store, &Query { search, ..Query::of(&TOKENS, company(), 100) }).await
    };
    const NAME: &[&str] = &["holder_name_folded"];
    assert_eq!(search(NAME, "a nu").await, ["laura nunez"]);
    assert_eq!(search(NAME, "%").await, ["50% luis"]);
    assert_eq!(search(NAME, "_").await, ["a_b"]);
    assert_eq!(search(NAME, "\\").await, ["a\\b"]);
    assert_eq!(search(NAME, "'").await, ["it's"]);
    assert_eq!(search(NAME, "ñ").await, ["señal"]);
    assert_eq!(search(NAME, "s").await, ["50% luis", "50 luis", "señal", "it's"]);
    assert_eq!(search(NAME, "VT-1").await, [""; 0]);
    assert_eq!(
        search(&["serial", "holder_name_folded"], "0").await,
        ["laura nunez", "50% luis", "50 luis"]
    );
    assert_eq!(search(NAME, "").await.len(), names.len());
    // Nothing contains anything in a column that holds nothing, or in no column.
    assert_eq!(search(&["device"], "").await, [""; 0]);
    assert_eq!(search(&[], "").await, [""; 0]);
}

pub(crate) async fn chores_find_what_is_due_in_all_companies(store: &dyn Store) {
    for (n, expires) in [(1, 30), (2, 10), (3, 20), (4, 40)] {
        let columns = vec![Value::Integer(expires)];
        let row = Row { company: id(n), columns, ..lease(&format!("of {n}"), 1, "due") };
        write(store, Write::Insert(&LEASES, row)).await;
    }
    let query = |limit| Query {
        company: None,
        at_most: Some(("expires", 30)),
        order: Some("expires"),
        ..Query::of(&LEASES, company(), limit)
    };
    let due = store.rows(&query(9)).await.expect("rows");
    let companies: Vec<CompanyId> = due.iter().map(|row| row.company).collect();
    assert_eq!(companies, [id(2), id(3), id(1)]);
    assert_eq!(store.rows(&query(1)).await.expect("rows"), due[..1]);
    assert_eq!(store.count(&query(1)).await.expect("a count"), 3);
}

pub(crate) async fn what_is_durable_is_told_and_what_conflicts_is_not(store: &dyn Store) {
    let mut topics = store.subscribe();
    let batch = |name: &str| Batch {
        topics: vec![Topic::Operation(name.to_owned()), Topic::Device(name.to_owned())],
        audit: vec![draft(id(3), "token.issued")],
        ..just(Write::Insert(&LEASES, lease(name, 1, "effect")))
    };
    store.commit(batch("a")).await.expect("written");
    let first = told(&mut topics, &Topic::Device("a".to_owned())).await;
    assert!(
        first.contains(&Topic::Operation("a".to_owned())) && first.contains(&Topic::Audit(id(3)))
    );
    assert!(lease_of(store, "a").await.is_some(), "told before it could be read");

    let loser = Batch { topics: vec![Topic::Device("lost".to_owned())], ..batch("a") };
    conflicts(store.commit(loser).await);
    store.commit(Batch { audit: Vec::new(), ..batch("b") }).await.expect("written");
    let second = told(&mut topics, &Topic::Device("b".to_owned())).await;
    assert!(!second.contains(&Topic::Device("lost".to_owned())));
    assert!(!second.contains(&Topic::Audit(id(3))));

    // Checks grow the chain as well.
    let judge =
        |_: Option<&Verifier>| Judged { counters: None, attempt: attempt(None, "unknown_token") };
    let check = Check { company: id(4), token: None, judge: Box::new(judge) };
    store.check(check).await.expect("judged");
    told(&mut topics, &Topic::Audit(id(4))).await;
    // Whoever comes later hears only of what comes later.
    let mut late = store.subscribe();
    store.commit(batch("c")).await.expect("written");
    let heard = told(&mut late, &Topic::Audit(id(3))).await;
    assert!(!heard.contains(&Topic::Audit(id(4))));
}

pub(crate) async fn security_108_a_change_nobody_waits_for_any_more_is_made_all_the_same(
    store: &dyn Store,
) {
    let mut topics = store.subscribe();
    write(store, open(1, 10)).await;
    for n in 0..20 {
        let name = n.to_string();
        let batch = Batch {
            topics: vec![Topic::Device(name.clone())],
            audit: vec![draft(company(), "token.issued")],
            ..just(Write::Insert(&LEASES, lease(&name, 1, "effect")))
        };
        // Asked once whether it is done, and dropped.
        drop(store.commit(batch).now_or_never());
        drop(store.check(check(1, 11)).now_or_never());
        told(&mut topics, &Topic::Device(name.clone())).await;
        assert!(lease_of(store, &name).await.is_some());
    }
    assert_eq!(store.check(check(1, 11)).await.expect("judged").outcome, "used");
    recorded(store, 21).await;
}

/// Writes a bit of everything; [`is_filled`] finds it again.
pub(crate) async fn fill(store: &dyn Store) {
    let batch = Batch {
        writes: vec![
            Write::Insert(&LEASES, lease("a", 3, "kept")),
            Write::Reserve(Scope::Serial, "VT-1".to_owned(), company(), "a".to_owned()),
            open(1, 10),
        ],
        audit: vec![draft(company(), "token.issued"), draft(CompanyId::BANK, "token.issued")],
        topics: Vec::new(),
    };
    store.commit(batch).await.expect("written");
    assert_eq!(store.check(check(1, 11)).await.expect("judged").outcome, "accepted");
}

/// That everything [`fill`] wrote is there, and that the store goes on from it.
pub(crate) async fn is_filled(store: &dyn Store) {
    assert_eq!(lease_of(store, "a").await, read(lease("a", 3, "kept")));
    let found = store.lookup(Scope::Serial, "VT-1").await.expect("a lookup");
    assert_eq!(found, Some((company(), "a".to_owned())));
    assert_eq!(held(store, 1).await.counters.last_step, Some(Step(11)));
    assert_eq!(
        store.attempts(company(), 2).await.expect("attempts"),
        [attempt(Some(id(1)), "accepted")]
    );
    assert_eq!(follow(store, company()).await.sequence, 2);
    assert_eq!(store.audit_chains().await.expect("chains"), [CompanyId::BANK, company()]);

    assert_eq!(store.check(check(1, 11)).await.expect("judged").outcome, "used");
    assert_eq!(follow(store, company()).await.sequence, 3);
}
