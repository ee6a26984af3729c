//! A phone's life: bound, moved on, revoked, copied, gone.

use std::sync::Arc;
use std::time::Duration;

use semilla_approver::Error;
use semilla_approver::entropy::SystemEntropy;
use semilla_approver::errors::{Refusal, StoreFault};
use semilla_approver::phone::BindingState;
use semilla_approver::pin::Pin;
use semilla_approver::store::FileStore;
use semilla_core::protocol::MessageError;
use semilla_core::protocol::activation::ActivationCode;
use semilla_core::protocol::approval::{Decision, DenialReason, MatchNumber};
use semilla_core::protocol::bytes::Nonce;
use semilla_core::protocol::jwk::JwkSet;
use semilla_core::protocol::wire::{BindingStarted, DeviceState, HeldState, OperationState};

use crate::bank::{Bank, Fault, SERIAL};
use crate::{NUMBER, another_key};

#[tokio::test]
async fn a_phone_is_bound_takes_a_token_gives_codes_and_approves() {
    let bank = Bank::new();
    let phone = bank.phone();
    assert!(matches!(phone.account(), Err(Error::NotBound)));
    let binding = phone.bind(&bank.invite()).await.expect("bound");
    assert_eq!((binding.account, &binding.issuer), (1, &bank.issuer));
    assert_eq!(binding.match_number, None);
    assert!(matches!(phone.enroll_next().await, Err(Error::NothingToEnroll)));

    bank.assign(SERIAL);
    let enrolled = phone.enroll_next().await.expect("enrolled");
    assert_eq!((enrolled.serial.as_str(), enrolled.generation), (SERIAL, 1));

    bank.advance(Duration::from_secs(30));
    let code = phone.code(SERIAL).expect("a code");
    assert_eq!((code.code.expose().len(), code.time_left.as_secs()), (8, 30));
    assert!(bank.takes(SERIAL, code.code.expose()));
    assert!(!bank.takes(SERIAL, code.code.expose()), "once");

    let id = bank.ask(&bank.request(1));
    let inbox = phone.inbox().await.expect("an inbox");
    assert_eq!(inbox.requests.len(), 1);
    let answered = phone.approve(id, NUMBER).await.expect("answered");
    assert_eq!(answered.state, OperationState::Executed);
    assert!(phone.inbox().await.expect("an inbox").requests.is_empty());
}

#[tokio::test]
async fn security_131_a_server_that_does_not_know_the_code_is_not_believed() {
    let bank = Bank::new();
    let phone = bank.phone();
    let invitation = bank.invite();
    // Another server answers: the mac is over its own keys, and made without the code.
    let nonce = Nonce::from_bytes([7; 16]);
    let jwks = JwkSet::new(vec![another_key().public().clone()]);
    let code = ActivationCode::generate(&SystemEntropy);
    let mac = code.key().server_mac(&nonce, &bank.issuer, jwks.text());
    let started = BindingStarted { nonce, issuer: bank.issuer.clone(), jwks, mac };
    let started = serde_json::to_string(&started).expect("JSON");
    bank.fail([Fault::Answer(200, started)]);
    let refused = phone.bind(&invitation).await.err();
    let expected = Refusal::Message(MessageError::WrongMac);
    assert!(
        matches!(&refused, Some(Error::MessageRefused(why)) if *why == expected),
        "{refused:?}"
    );
    assert_eq!(refused.map(|error| error.exit_code()), Some(11));
    assert!(matches!(phone.account(), Err(Error::NotBound)), "nothing was pinned");
    // The control: the same code at the right server.
    phone.bind(&invitation).await.expect("bound");
}

#[tokio::test]
async fn a_binding_goes_on_with_the_same_code_after_its_answer_was_lost() {
    let bank = Bank::new();
    let phone = bank.phone();
    let invitation = bank.invite();
    bank.fail([Fault::None, Fault::LoseAnswer, Fault::LoseAnswer, Fault::LoseAnswer]);
    assert_eq!(phone.bind(&invitation).await.err().map(|error| error.exit_code()), Some(69));
    let state = phone.accounts().expect("one")[0].state;
    assert_eq!(state, BindingState::Binding);
    phone.bind(&invitation).await.expect("bound");
    assert_eq!(phone.account().expect("one").state, BindingState::Bound);
    assert_eq!(bank.state().signed.len(), 1, "one key, one phone");
    assert!(matches!(phone.bind(&bank.invite()).await, Err(Error::AlreadyBound(_))));
    // A code that is dead leaves nothing behind.
    let phone = bank.phone();
    let invitation = bank.invite();
    bank.state().activation = None;
    let error = phone.bind(&invitation).await.expect_err("dead");
    assert_eq!((error.kind(), error.exit_code()), ("activation-invalid", 6));
    assert!(phone.accounts().expect("none").is_empty());
}

#[tokio::test]
async fn after_a_release_the_former_holders_phone_is_dead_for_that_token() {
    let bank = Bank::new();
    let phone = bank.enrolled_phone().await;
    let former = phone.raw().copy().expect("a copy that never hears of it");
    assert_eq!(phone.sync().await.expect("listed")[0].state, HeldState::Active);
    bank.state().tokens[0].held.state = HeldState::Blocked;
    phone.sync().await.expect("listed");
    assert_eq!(phone.code(SERIAL).expect("still a code").state, HeldState::Blocked);
    let held = bank.state().tokens.remove(0);
    assert!(phone.sync().await.expect("listed").is_empty());
    assert!(matches!(phone.code(SERIAL), Err(Error::UnknownToken(_))));
    assert!(former.code(SERIAL).is_ok(), "a phone that is not told keeps making codes");
    // Assigned again, to the same person: another generation, on no phone yet.
    bank.state().tokens.push(held);
    bank.state().tokens[0].held.generation = 2;
    former.sync().await.expect("listed");
    assert!(matches!(former.code(SERIAL), Err(Error::UnknownToken(_))));
}

#[tokio::test]
async fn a_phone_that_was_revoked_forgets_its_seeds_and_one_that_waits_does_not() {
    let bank = Bank::new();
    let phone = bank.enrolled_phone().await;
    bank.state().shut = true;
    for (state, kind) in
        [(DeviceState::Waiting, "device-waiting"), (DeviceState::Suspended, "device-suspended")]
    {
        bank.state().device.as_mut().expect("bound").state = state;
        let error = phone.sync().await.expect_err("shut");
        assert_eq!((error.kind(), error.exit_code()), (kind, 6));
        assert!(phone.code(SERIAL).is_ok());
    }
    bank.state().device.as_mut().expect("bound").state = DeviceState::Revoked;
    assert!(matches!(phone.sync().await, Err(Error::Revoked)));
    assert!(matches!(phone.code(SERIAL), Err(Error::Revoked)));
    assert_eq!(phone.account().expect("a tombstone").state, BindingState::Revoked);
    // Bound anew, the dead binding is gone.
    bank.state().shut = false;
    phone.bind(&bank.invite()).await.expect("bound");
    assert_eq!(phone.accounts().expect("one").len(), 1);
}

#[tokio::test]
async fn security_130_a_copied_phone_is_found_out_by_its_counter() {
    let bank = Bank::new();
    let phone = bank.enrolled_phone().await;
    let copy = phone.raw().copy().expect("a copy");
    let id = bank.ask(&bank.request(1));
    copy.deny(id, DenialReason::UserCancelled).await.expect("the copy is first");
    let id = bank.ask(&bank.request(1));
    let error = phone.approve(id, NUMBER).await.expect_err("the same counter again");
    assert_eq!(error.kind(), "device-suspended");
}

#[tokio::test]
async fn a_phone_changes_its_key_and_goes_on() {
    let bank = Bank::new();
    let phone = bank.enrolled_phone().await;
    let before = phone.raw().public_key().expect("bound");
    bank.fail([Fault::LoseRequest, Fault::LoseRequest, Fault::LoseRequest]);
    assert!(phone.change_keys().await.is_err());
    assert_eq!(phone.raw().public_key().expect("bound"), before, "not before the server knows");
    phone.change_keys().await.expect("changed");
    assert_ne!(phone.raw().public_key().expect("bound"), before);
    let id = bank.ask(&bank.request(1));
    phone.approve(id, NUMBER).await.expect("approved with the new key");
}

#[tokio::test]
async fn a_phone_leaves_and_keeps_nothing() {
    let bank = Bank::new();
    let phone = bank.enrolled_phone().await;
    bank.fail([Fault::Unreachable]);
    assert_eq!(phone.leave().await.err().map(|error| error.exit_code()), Some(69));
    assert!(phone.code(SERIAL).is_ok(), "not without the server");
    phone.leave().await.expect("gone");
    assert!(phone.accounts().expect("none").is_empty());
    assert!(bank.state().device.is_none());
}

#[tokio::test]
async fn a_misbehaving_phone_can_sign_and_send_anything() {
    let bank = Bank::new();
    let phone = bank.enrolled_phone().await;
    let id = bank.ask(&bank.request(1));
    let request = Arc::clone(&phone.inbox().await.expect("an inbox").requests[0]);
    let raw = phone.raw();
    let number = MatchNumber::parse(NUMBER).expect("six digits");
    let mut answer = raw
        .draft()
        .expect("a draft")
        .response(&request, Decision::Approved { match_number: number });
    answer.display_hash = answer.request_hash;
    let text = raw.sign(&answer).expect("signed");
    let refused = raw.respond(&request, text).await.expect("an answer");
    assert_eq!(refused.status, 409);
    let path = format!("/device/v1/approvals/{id}/response");
    let refused = raw.send("POST", &path, Some("{}")).await.expect("an answer");
    assert_eq!(refused.status, 422);
    let tokens = raw.send("GET", "/device/v1/tokens", None).await.expect("an answer");
    assert_eq!(tokens.status, 200);
}

#[tokio::test]
async fn answers_outside_the_protocol_are_named_and_change_nothing() {
    let bank = Bank::new();
    let phone = bank.enrolled_phone().await;
    for (status, body) in [
        (200, "<html>"),
        (200, "{}"),
        (200, r#"{"tokens":[],"more":1}"#),
        (502, "bad gateway"),
        (404, r#"{"type":"made-up","title":"","status":404,"detail":""}"#),
    ] {
        bank.fail([Fault::Answer(status, body.to_owned())]);
        let error = phone.sync().await.expect_err(body);
        assert!(matches!(error, Error::UnexpectedAnswer(_)), "{body}: {error:?}");
        assert_eq!(error.exit_code(), 70);
    }
    let hostile = r#"{"tokens":[{"token":"TOKEN","serial":"\u001b[2J","company":"A","state":"active","generation":1,"state_version":1}]}"#;
    let id = bank.state().tokens[0].held.token.to_string();
    bank.fail([Fault::Answer(200, hostile.replace("TOKEN", &id))]);
    assert!(matches!(phone.sync().await, Err(Error::UnexpectedAnswer(_))));
    assert!(phone.code(SERIAL).is_ok());
}

#[tokio::test]
async fn a_thousand_phones_run_in_one_process() {
    let bank = Bank::new();
    let mut phones = Vec::new();
    for _ in 0..1000 {
        phones.push(bank.phone());
    }
    for phone in phones.iter().step_by(100) {
        phone.bind(&bank.invite()).await.expect("bound");
    }
    assert_eq!(bank.state().signed.len(), 10);
}

#[test]
fn a_store_that_is_missing_or_shut_is_named() {
    let home = tempfile::tempdir().expect("a folder");
    let pin = Pin::chosen("482913").expect("a PIN");
    let missing = FileStore::open(home.path(), &pin).err();
    assert!(matches!(missing, Some(Error::Store(StoreFault::Missing))));
}
