//! What a person can rely on when a program is killed, a disk cuts a file off, a stranger copies
//! it, or two programs use it at once.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

use super::file::{FileStore, claim_try, replace};
use super::{Store, Stretch, TRIES_MAX};
use crate::contents::Contents;
use crate::errors::{Error, Input, StoreFault};
use crate::pin::Pin;

const RIGHT: &str = "482913";
const WRONG: &str = "482914";

fn pin(text: &str) -> Pin {
    Pin::entered(text).expect("a PIN")
}

/// A new store in a folder that goes with the test.
fn store() -> (TempDir, PathBuf, FileStore) {
    let home = tempfile::tempdir().expect("a folder");
    let folder = home.path().join("approver");
    let store = FileStore::create(&folder, &pin(RIGHT), Stretch::CHEAP).expect("a store");
    (home, folder, store)
}

fn open(folder: &Path, text: &str) -> Result<FileStore, Error> {
    FileStore::open(folder, &pin(text))
}

/// Makes a change that a test can see.
fn count_up(store: &Store) -> u32 {
    store
        .update(|contents| {
            contents.last_account += 1;
            Ok(contents.last_account)
        })
        .expect("a change")
}

fn counted(store: &Store) -> u32 {
    store.read(|contents| Ok(contents.last_account)).expect("a state")
}

fn tries(folder: &Path) -> String {
    fs::read_to_string(folder.join("tries")).expect("a count")
}

#[test]
fn a_change_is_there_after_opening_again_and_an_error_changes_nothing() {
    let (_home, folder, store) = store();
    let store = Store::from(store);
    assert_eq!(count_up(&store), 1);
    let failed: Result<(), Error> = store.update(|contents| {
        contents.last_account = 99;
        Err(Error::NotBound)
    });
    assert!(failed.is_err());
    assert_eq!(counted(&Store::from(open(&folder, RIGHT).expect("opens"))), 1);
}

#[test]
fn security_127_the_store_is_for_its_owner_alone() {
    let (_home, folder, store) = store();
    count_up(&Store::from(store));
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    for entry in fs::read_dir(&folder).expect("a folder") {
        assert_eq!(mode(&entry.expect("a file").path()), 0o600);
    }
    for (path, open_mode, own_mode) in
        [(folder.join("store"), 0o640, 0o600), (folder.clone(), 0o701, 0o700)]
    {
        fs::set_permissions(&path, fs::Permissions::from_mode(open_mode)).expect("own file");
        let refused = open(&folder, RIGHT).err();
        assert!(matches!(refused, Some(Error::Store(StoreFault::Permissions))), "{path:?}");
        fs::set_permissions(&path, fs::Permissions::from_mode(own_mode)).expect("own file");
        assert!(open(&folder, RIGHT).is_ok());
    }
    assert_eq!(tries(&folder), "0\n", "no try was used up by that");
}

#[test]
fn security_124_and_128_nothing_of_the_state_or_the_pin_can_be_read_in_the_files() {
    let (_home, folder, store) = store();
    let store = Store::from(store);
    store
        .update(|contents| {
            contents.last_account = 1_234_567;
            Ok(())
        })
        .expect("a change");
    for entry in fs::read_dir(&folder).expect("a folder") {
        let bytes = fs::read(entry.expect("a file").path()).expect("readable");
        for secret in ["1234567", "last_account", RIGHT] {
            let found = bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
            assert!(!found, "{secret}");
        }
    }
    // The same state under the same PIN never looks the same twice.
    let first = fs::read(folder.join("store")).expect("a store");
    store
        .update(|contents| {
            contents.last_account = 1_234_568;
            Ok(())
        })
        .expect("a change");
    let second = fs::read(folder.join("store")).expect("a store");
    let line = |file: &[u8]| file.iter().position(|byte| *byte == b'\n').expect("a header");
    assert_ne!(first[..line(&first)], second[..line(&second)]);
}

#[test]
fn security_127_a_program_killed_while_writing_leaves_the_old_state() {
    let (_home, folder, store) = store();
    let store = Store::from(store);
    count_up(&store);
    let before = fs::read(folder.join("store")).expect("a store");
    count_up(&store);
    let after = fs::read(folder.join("store")).expect("a store");
    // Killed with nothing, with a part, and with all of the new file written beside the old one.
    for written in [0, 1, after.len() / 2, after.len() - 1, after.len()] {
        fs::write(folder.join("store"), &before).expect("own file");
        fs::write(folder.join("store.new"), &after[..written]).expect("own file");
        fs::write(folder.join("tries.new"), "7").expect("own file");
        let opened = Store::from(open(&folder, RIGHT).expect("the old state"));
        assert_eq!(counted(&opened), 1, "{written} bytes");
        assert_eq!(count_up(&opened), 2, "and it goes on from there");
        assert!(!folder.join("store.new").exists());
    }
}

#[test]
fn security_127_a_file_that_is_cut_off_or_changed_is_named_and_costs_no_try() {
    let (_home, folder, store) = store();
    count_up(&Store::from(store));
    let whole = fs::read(folder.join("store")).expect("a store");
    let damaged = |bytes: &[u8]| {
        fs::write(folder.join("store"), bytes).expect("own file");
        matches!(open(&folder, RIGHT).err(), Some(Error::Store(StoreFault::Damaged)))
    };
    for length in (0..whole.len()).step_by(7) {
        assert!(damaged(&whole[..length]), "cut off after {length} bytes");
    }
    let end = whole.iter().position(|byte| *byte == b'\n').expect("a header");
    for place in [end + 1, end + 20, whole.len() - 1] {
        let mut changed = whole.clone();
        changed[place] ^= 1;
        assert!(damaged(&changed), "changed at {place}");
    }
    assert!(damaged(&[whole.as_slice(), b"x"].concat()));
    assert!(damaged(b"{}\n"));
    assert_eq!(tries(&folder), "0\n");
    fs::write(folder.join("store"), &whole).expect("own file");
    assert!(open(&folder, RIGHT).is_ok());
}

#[test]
fn a_header_that_asks_for_all_memory_or_names_another_form_is_refused() {
    let (_home, folder, _store) = store();
    let whole = String::from_utf8_lossy(&fs::read(folder.join("store")).expect("a store"))
        .split_once('\n')
        .expect("a header")
        .0
        .to_owned();
    let body = {
        let bytes = fs::read(folder.join("store")).expect("a store");
        bytes[whole.len()..].to_vec()
    };
    let refused = |from: &str, to: &str| {
        let header = whole.replacen(from, to, 1);
        assert_ne!(header, whole);
        fs::write(folder.join("store"), [header.as_bytes(), &body].concat()).expect("own file");
        match open(&folder, RIGHT).err() {
            Some(Error::Store(fault)) => fault,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(refused(r#""version":1"#, r#""version":2"#), StoreFault::Version(2));
    for (from, to) in [
        (r#""memory_kib":8,"#, r#""memory_kib":4294967295,"#),
        (r#""passes":1"#, r#""passes":4000000000"#),
        ("argon2id", "argon2i"),
        ("semilla-approver", "something-else"),
        (r#""version":1"#, r#""version":1,"more":1"#),
    ] {
        assert_eq!(refused(from, to), StoreFault::Damaged, "{to}");
    }
    // Another cost makes another key: the header cannot be weakened behind the owner's back.
    let header = whole.replacen(r#""passes":1"#, r#""passes":2"#, 1);
    fs::write(folder.join("store"), [header.as_bytes(), &body].concat()).expect("own file");
    assert!(matches!(open(&folder, RIGHT).err(), Some(Error::WrongPin(9))));
}

#[test]
fn security_125_a_wrong_pin_is_counted_before_it_is_tried_and_a_right_one_starts_anew() {
    let (_home, folder, _store) = store();
    for left in [9, 8, 7] {
        assert!(
            matches!(open(&folder, WRONG).err(), Some(Error::WrongPin(tries)) if tries == left)
        );
    }
    assert_eq!(tries(&folder), "3\n");
    // Killed between the count and the try: the try is used up, whether the PIN was right or not.
    assert_eq!(claim_try(&folder).expect("a try"), 4);
    assert!(matches!(open(&folder, WRONG).err(), Some(Error::WrongPin(5))));
    assert!(open(&folder, RIGHT).is_ok());
    assert_eq!(tries(&folder), "0\n");
}

#[test]
fn security_125_the_tenth_wrong_pin_erases_everything() {
    let (_home, folder, _store) = store();
    for _ in 1..TRIES_MAX {
        assert!(matches!(open(&folder, WRONG).err(), Some(Error::WrongPin(_))));
    }
    assert!(matches!(open(&folder, WRONG).err(), Some(Error::Wiped)));
    assert!(!folder.join("store").exists());
    assert!(matches!(open(&folder, RIGHT).err(), Some(Error::Wiped)), "and stays erased");
    assert!(FileStore::create(&folder, &pin(RIGHT), Stretch::CHEAP).is_ok(), "a new beginning");
    assert_eq!(tries(&folder), "0\n");
}

#[test]
fn security_125_killing_the_program_at_every_try_saves_no_try() {
    let (_home, folder, _store) = store();
    for used in 1..=TRIES_MAX {
        assert_eq!(claim_try(&folder).expect("a try"), used);
    }
    assert!(matches!(open(&folder, RIGHT).err(), Some(Error::Wiped)));
    assert!(!folder.join("store").exists());
}

#[test]
fn security_125_a_count_that_is_gone_or_nonsense_keeps_the_store_shut() {
    let (_home, folder, _store) = store();
    for nonsense in ["", "x", "-1", "99999999999", "1 2"] {
        fs::write(folder.join("tries"), nonsense).expect("own file");
        let refused = open(&folder, RIGHT).err();
        assert!(matches!(refused, Some(Error::Store(StoreFault::Damaged))), "{nonsense}");
    }
    fs::remove_file(folder.join("tries")).expect("own file");
    assert!(matches!(open(&folder, RIGHT).err(), Some(Error::Store(StoreFault::Damaged))));
    assert!(folder.join("store").exists(), "nothing is erased by that");
}

#[test]
fn security_124_a_copied_file_opens_with_its_own_pin_and_no_other() {
    let (_home, folder, store) = store();
    count_up(&Store::from(store));
    let home = tempfile::tempdir().expect("a folder");
    let elsewhere = home.path().join("thief");
    FileStore::create(&elsewhere, &pin("907142"), Stretch::CHEAP).expect("a store");
    fs::copy(folder.join("store"), elsewhere.join("store")).expect("own file");
    assert!(matches!(open(&elsewhere, "907142").err(), Some(Error::WrongPin(9))));
    let opened = Store::from(open(&elsewhere, RIGHT).expect("the owner's PIN"));
    assert_eq!(counted(&opened), 1);
}

#[test]
fn security_126_every_approval_needs_the_pin_once_more() {
    let (_home, _folder, store) = store();
    let store = Store::from(store);
    assert!(store.take_presence().is_ok(), "it was just entered");
    assert!(matches!(store.take_presence(), Err(Error::Locked)));
    let Store::File(file) = &store else { unreachable!("it is one") };
    assert!(matches!(file.confirm_pin(&pin(WRONG)), Err(Error::WrongPin(9))));
    assert!(matches!(store.take_presence(), Err(Error::Locked)));
    file.confirm_pin(&pin(RIGHT)).expect("the right one");
    assert!(store.take_presence().is_ok());
}

#[test]
fn a_changed_pin_opens_and_the_old_one_does_not_and_open_programs_ask_again() {
    let (_home, folder, other) = store();
    let other = Store::from(other);
    count_up(&other);
    let store = open(&folder, RIGHT).expect("opens");
    let common = store.change_pin(&pin(RIGHT), &pin("123456")).err();
    assert!(matches!(common, Some(Error::Input(Input::PinCommon))));
    assert!(matches!(store.change_pin(&pin(WRONG), &pin("907142")), Err(Error::WrongPin(9))));
    store.change_pin(&pin(RIGHT), &pin("907142")).expect("changed");
    assert_eq!(counted(&Store::from(store)), 1);
    assert!(matches!(open(&folder, RIGHT).err(), Some(Error::WrongPin(9))));
    assert!(open(&folder, "907142").is_ok());
    assert!(matches!(other.read(|_| Ok(())), Err(Error::Locked)));
    let Store::File(file) = &other else { unreachable!("it is one") };
    file.confirm_pin(&pin("907142")).expect("the new one");
    assert_eq!(counted(&other), 1);
}

#[test]
fn a_store_is_never_made_over_another_and_a_missing_one_is_named() {
    let (_home, folder, _store) = store();
    let again = FileStore::create(&folder, &pin(RIGHT), Stretch::CHEAP).err();
    assert!(matches!(again, Some(Error::Store(StoreFault::Exists))));
    let missing = open(&folder.join("nowhere"), RIGHT).err();
    assert!(matches!(missing, Some(Error::Store(StoreFault::Missing))));
    let weak = FileStore::create(&folder.join("weak"), &pin("000000"), Stretch::CHEAP).err();
    assert!(matches!(weak, Some(Error::Input(Input::PinCommon))));
}

#[test]
fn two_programs_change_one_store_and_lose_nothing() {
    let (_home, folder, _store) = store();
    let programs: Vec<_> = (0..4)
        .map(|_| {
            let store = Store::from(open(&folder, RIGHT).expect("opens"));
            std::thread::spawn(move || {
                for _ in 0..25 {
                    count_up(&store);
                }
            })
        })
        .collect();
    programs.into_iter().for_each(|program| program.join().expect("no panic"));
    assert_eq!(counted(&Store::from(open(&folder, RIGHT).expect("opens"))), 100);
}

#[tokio::test]
async fn security_130_one_program_sends_at_a_time() {
    let (_home, folder, _store) = store();
    let one = Arc::new(Store::from(open(&folder, RIGHT).expect("opens")));
    let other = Store::from(open(&folder, RIGHT).expect("opens"));
    let turn = one.turn().await.expect("a turn");
    let mut waiting = std::pin::pin!(other.turn());
    let early = tokio::time::timeout(std::time::Duration::from_millis(150), &mut waiting).await;
    assert!(early.is_err(), "the other waits");
    drop(turn);
    assert!(waiting.await.is_ok());
}

#[test]
fn a_state_is_kept_through_memory_as_through_a_file() {
    let contents = Contents { last_account: 7, accounts: vec![] };
    let store = Store::from(super::MemoryStore::of(&contents));
    assert_eq!(counted(&store), 7);
    assert_eq!(count_up(&store), 8);
}

#[test]
fn a_full_disk_is_told_and_the_old_state_stays() {
    let (_home, folder, store) = store();
    let store = Store::from(store);
    count_up(&store);
    // What cannot be written: a folder stands where the new file is to be made.
    fs::create_dir(folder.join("store.new")).expect("own folder");
    fs::write(folder.join("store.new").join("x"), "").expect("own file");
    let failed = store.update(|contents| {
        contents.last_account = 99;
        Ok(())
    });
    assert!(matches!(failed, Err(Error::Store(StoreFault::Io(_)))));
    assert_eq!(counted(&store), 1);
    assert!(replace(&folder, "other", b"x").is_ok());
}
