//! Requests: which are shown, which are refused, and what is signed in answer.

use std::sync::Arc;

use ring::rand::SystemRandom;
use semilla_approver::entropy::SystemEntropy;
use semilla_approver::errors::{Input, Refusal};
use semilla_approver::pin::Pin;
use semilla_approver::store::{FileStore, Stretch};
use semilla_approver::{Error, Phone};
use semilla_core::id::OperationId;
use semilla_core::protocol::MessageError;
use semilla_core::protocol::approval::{Action, ApprovalRequest, DenialReason};
use semilla_core::protocol::bytes::Nonce;
use semilla_core::protocol::messages;
use semilla_core::protocol::wire::OperationState;

use crate::bank::{Bank, Fault, SERIAL};
use crate::{NUMBER, another_key};

#[tokio::test]
async fn security_129_and_131_a_request_that_is_not_what_it_says_is_not_shown() {
    let bank = Bank::new();
    let phone = bank.enrolled_phone().await;
    let good = bank.request(1);
    let other = another_key();
    let random = SystemRandom::new();

    let text = bank.sign(&good);
    let payload_at = text.find('.').expect("a JWS") + 30;
    let mut altered = text.clone().into_bytes();
    altered[payload_at] = if altered[payload_at] == b'A' { b'B' } else { b'A' };
    let altered = String::from_utf8(altered).expect("text");
    let with = |change: &dyn Fn(&mut ApprovalRequest)| {
        let mut request = good.clone();
        change(&mut request);
        bank.sign(&request)
    };
    let cause = |text: &str| {
        let text = text.to_owned();
        with(&move |request| {
            let Action::Release { cause, .. } = &mut request.operation.action else { return };
            cause.clone_from(&text);
        })
    };
    // The bank signs an action that this program does not know.
    let unknown_action = {
        let mut claims = serde_json::to_value(&good).expect("JSON");
        claims["operation"]["action"] = "retire".into();
        bank_signs_json(&bank, &claims)
    };
    let later_version = {
        let mut claims = serde_json::to_value(&good).expect("JSON");
        claims["v"] = 2.into();
        bank_signs_json(&bank, &claims)
    };
    let device = phone.raw().device().expect("bound");
    let message = Refusal::Message;
    let cases = [
        (
            "another server's key",
            messages::sign(&good, &other, &random),
            message(MessageError::WrongKey),
        ),
        ("altered", altered, message(MessageError::BadSignature)),
        (
            "another issuer",
            with(&|it| it.iss = "http://other.test".to_owned()),
            message(MessageError::WrongIssuer),
        ),
        (
            "another phone's",
            with(&|it| it.aud = good.txn.to_string()),
            message(MessageError::WrongAudience),
        ),
        ("expired", with(&|it| it.exp = it.iat), message(MessageError::Expired)),
        ("unknown action", unknown_action, message(MessageError::Malformed)),
        ("later version", later_version, message(MessageError::WrongVersion)),
        ("unknown cause", cause("because"), Refusal::UnknownCause),
        ("a cause of another action", cause("too_many_failures"), Refusal::UnknownCause),
        (
            "another operation",
            with(&|it| it.txn = OperationId::new(it.iat, &SystemEntropy)),
            Refusal::OtherOperation,
        ),
        (
            "another generation",
            with(&|it| {
                let Action::Release { token, .. } = &mut it.operation.action else { return };
                token.generation = 2;
            }),
            Refusal::Generation { said: 2, held: 1 },
        ),
        (
            "a line turned round",
            with(&|it| it.display.lines.push("Empresa: \u{202e}CAS".to_owned())),
            message(MessageError::Malformed),
        ),
        ("not a message", "x.y.z".to_owned(), message(MessageError::Malformed)),
    ];
    for (what, text, why) in cases {
        bank.state().approvals.clear();
        let id = bank.ask_with(good.txn, text);
        let inbox = phone.inbox().await.expect("an inbox");
        assert!(inbox.requests.is_empty(), "{what}");
        let refused: Vec<_> = inbox.refused.iter().map(|one| one.refusal).collect();
        assert_eq!(refused, [why], "{what}");
        let sent = bank.state().signed.len();
        let error = phone.approve(id, NUMBER).await.expect_err(what);
        let expected = if why == message(MessageError::Expired) { 5 } else { 11 };
        assert_eq!(error.exit_code(), expected, "{what}");
        assert!(phone.deny(id, DenialReason::UserCancelled).await.is_err(), "{what}");
        assert_eq!(bank.state().signed.len(), sent, "{what}: nothing is signed over it");
    }
    // The control: nothing else was wrong with it.
    bank.state().approvals.clear();
    assert_eq!(good.aud, device.to_string());
    let id = bank.ask(&good);
    assert_eq!(phone.inbox().await.expect("an inbox").requests.len(), 1);
    assert_eq!(phone.approve(id, NUMBER).await.expect("approved").state, OperationState::Executed);
}

/// Signs claims that no type of the protocol could hold.
fn bank_signs_json(bank: &Bank, claims: &serde_json::Value) -> String {
    #[derive(serde::Serialize, serde::Deserialize)]
    #[serde(transparent)]
    struct Anything(serde_json::Value);
    impl messages::Message for Anything {
        const TYP: &'static str = "approval-request+jwt";
        fn envelope(&self) -> messages::Envelope<'_> {
            unreachable!("only signed")
        }
    }
    bank.sign(&Anything(claims.clone()))
}

#[tokio::test]
async fn a_request_about_a_newer_generation_makes_the_phone_look_before_it_refuses() {
    let bank = Bank::new();
    let phone = bank.enrolled_phone().await;
    // The token moved to another phone, and this one, an administrator's, is asked about it.
    bank.state().tokens[0].held.generation = 2;
    bank.state().tokens[0].held.device = None;
    bank.ask(&bank.request(2));
    let inbox = phone.inbox().await.expect("an inbox");
    assert_eq!((inbox.requests.len(), inbox.refused.len()), (1, 0));
    assert!(phone.tokens().expect("none").is_empty());
}

#[tokio::test]
async fn security_64_the_answer_is_over_what_was_shown_even_if_the_server_changes_its_mind() {
    let bank = Bank::new();
    let phone = bank.enrolled_phone().await;
    let shown = bank.request(1);
    let id = bank.ask(&shown);
    let inbox = phone.inbox().await.expect("an inbox");
    let text = inbox.requests[0].text().to_owned();
    // Under the same id the server now has another text.
    bank.state().approvals.clear();
    bank.ask(&ApprovalRequest { jti: Nonce::from_bytes([1; 16]), ..shown });
    phone.inbox().await.expect("an inbox");
    let error = phone.approve(id, NUMBER).await.expect_err("not what the server has now");
    let kind = error.problem().map(|problem| problem.kind.name());
    assert_eq!(kind, Some("request-hash-mismatch"));
    assert_ne!(bank.state().approvals[0].request, text);
}

#[tokio::test]
async fn a_wrong_number_ends_the_operation_and_a_denial_needs_none() {
    let bank = Bank::new();
    let phone = bank.enrolled_phone().await;
    let id = bank.ask(&bank.request(1));
    assert!(matches!(phone.approve(id, "49302").await, Err(Error::Input(Input::Number))));
    let error = phone.approve(id, "493028").await.expect_err("wrong");
    assert_eq!((error.kind(), error.exit_code()), ("number-mismatch", 4));
    assert!(matches!(phone.approve(id, NUMBER).await, Err(Error::Problem(_))));
    let id = bank.ask(&bank.request(1));
    let denied = phone.deny(id, DenialReason::SuspectedFraud).await.expect("denied");
    assert_eq!(denied.state, OperationState::Denied);
    let claims = Bank::claims(bank.state().signed.last().expect("sent"));
    assert_eq!(claims["reason"], "suspected_fraud");
    assert_eq!(claims.get("match_number"), None);
    let unknown = OperationId::new(bank.now(), &SystemEntropy);
    assert!(matches!(phone.approve(unknown, NUMBER).await, Err(Error::UnknownRequest(_))));
}

#[tokio::test]
async fn security_130_a_lost_answer_repeats_the_same_text_and_the_counter_never_does() {
    let bank = Bank::new();
    let phone = bank.enrolled_phone().await;
    let counter = phone.raw().counter().expect("bound");
    // Fetching the request, then the answer to the approval is lost twice.
    let id = bank.ask(&bank.request(1));
    bank.fail([Fault::None, Fault::LoseAnswer, Fault::LoseAnswer]);
    let answered = phone.approve(id, NUMBER).await.expect("approved");
    assert_eq!(answered.state, OperationState::Executed);
    assert_eq!(phone.raw().counter().expect("bound"), counter + 1);
    // Lost for good: the person tries again, and the same text goes out.
    let id = bank.ask(&bank.request(1));
    bank.fail([Fault::None, Fault::LoseAnswer, Fault::LoseAnswer, Fault::LoseAnswer]);
    let error = phone.approve(id, NUMBER).await.expect_err("no answer");
    assert_eq!(error.exit_code(), 69);
    let sent = bank.state().signed.len();
    let answered = phone.approve(id, NUMBER).await.expect("approved");
    assert_eq!(answered.state, OperationState::Executed);
    assert_eq!(bank.state().signed.len(), sent, "no other text");
    assert_eq!(phone.raw().counter().expect("bound"), counter + 2);
    // A change of mind is another message.
    let id = bank.ask(&bank.request(1));
    bank.fail([Fault::None, Fault::Unreachable]);
    assert!(phone.approve(id, NUMBER).await.is_err());
    phone.deny(id, DenialReason::UserCancelled).await.expect("denied");
    assert_eq!(phone.raw().counter().expect("bound"), counter + 4);
    let counters: Vec<u64> = bank
        .state()
        .signed
        .iter()
        .map(|text| Bank::claims(text)["ctr"].as_u64().expect("a counter"))
        .collect();
    assert!(counters.windows(2).all(|pair| pair[0] < pair[1]), "{counters:?}");
}

#[tokio::test]
async fn security_130_the_counter_is_on_disk_before_the_message_leaves() {
    let bank = Bank::new();
    let home = tempfile::tempdir().expect("a folder");
    let folder = home.path().join("approver");
    let pin = Pin::chosen("482913").expect("a PIN");
    let store = FileStore::create(&folder, &pin, Stretch::CHEAP).expect("a store");
    let over = |store: FileStore| {
        let clock = bank.clock_off_by(0);
        Phone::new(Arc::new(store.into()), clock, Arc::new(SystemEntropy)).over(bank.line())
    };
    let phone = over(store);
    phone.bind(&bank.invite()).await.expect("bound");
    bank.assign(SERIAL);
    bank.fail([Fault::None, Fault::None, Fault::Unreachable]);
    assert!(phone.enroll_next().await.is_err());
    let counter = phone.raw().counter().expect("bound");
    drop(phone);
    // The program starts again: the message that never left still has its counter to itself.
    let phone = over(FileStore::open(&folder, &pin).expect("opens"));
    assert_eq!(phone.raw().counter().expect("bound"), counter);
    phone.enroll_next().await.expect("enrolled");
    // Each approval needs the PIN again.
    let id = bank.ask(&bank.request(1));
    phone.approve(id, NUMBER).await.expect("approved");
    let id = bank.ask(&bank.request(1));
    assert!(matches!(phone.approve(id, NUMBER).await, Err(Error::Locked)), "security 126");
    phone.deny(id, DenialReason::UserCancelled).await.expect("denied");
    let mut last = 0;
    for text in &bank.state().signed {
        let counter = Bank::claims(text)["ctr"].as_u64().expect("a counter");
        assert!(counter > last);
        last = counter;
    }
}
