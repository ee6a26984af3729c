//! What people and programs are shown, word for word.

use std::time::Duration;

use anstream::adapter::strip_str;
use semilla_approver::errors::{Error, Input, Refusal, StoreFault};
use semilla_approver::phone::{AccountView, Binding, BindingState, Enrolled, ShownCode, TokenView};
use semilla_core::id::{DeviceId, OperationId, TokenId};
use semilla_core::language::Language::{English, Spanish};
use semilla_core::otp::{Code, Step};
use semilla_core::problem::{Problem, ProblemType};
use semilla_core::protocol::MessageError;
use semilla_core::protocol::wire::{
    Answered, Device, DeviceState, HeldState, OperationState, Rotating,
};
use semilla_core::text::Name;
use semilla_core::time::Timestamp;

use super::card::{short, span};
use super::report::{Report, error_json, error_text};
use super::show;

const ID: &str = "0192d3a4-7c00-7000-8000-0000007f3a21";

fn device() -> DeviceId {
    ID.parse().expect("an id")
}

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

/// A report without colours, then its object.
fn plain(report: &Report) -> String {
    format!("{}{}{}\n", strip_str(&report.human), strip_str(&report.aside), report.json)
}

#[test]
fn a_bound_phone() {
    let binding = |match_number: Option<&str>| Binding {
        account: 1,
        issuer: "http://bank.test".to_owned(),
        device: device(),
        match_number: match_number.map(str::to_owned),
    };
    assert_eq!(
        plain(&show::bound(&binding(None), Spanish)),
        r#"✓ Teléfono vinculado a http://bank.test
  Vinculación  1
  Dispositivo  0192d3a4-7c00-7000-8000-0000007f3a21
{"account":1,"device":"0192d3a4-7c00-7000-8000-0000007f3a21","issuer":"http://bank.test","match_number":null}
"#
    );
    assert_eq!(
        plain(&show::bound(&binding(Some("049302")), English)),
        r#"The phone you had before has to agree. Type this number there:

  049 302

  Binding  1
  Device   0192d3a4-7c00-7000-8000-0000007f3a21
{"account":1,"device":"0192d3a4-7c00-7000-8000-0000007f3a21","issuer":"http://bank.test","match_number":"049302"}
"#
    );
}

#[test]
fn an_enrolled_token() {
    let enrolled = Enrolled {
        serial: "FEF4900032".to_owned(),
        company: "Comercial Andina SAC".to_owned(),
        generation: 2,
    };
    assert_eq!(
        plain(&show::enrolled(&enrolled, Spanish)),
        r#"✓ Token FEF4900032 inscrito
  Empresa     Comercial Andina SAC
  Generación  2
  Siguiente   approver code FEF4900032
{"company":"Comercial Andina SAC","generation":2,"serial":"FEF4900032"}
"#
    );
    let rotating = Rotating { enrollment: ID.parse().expect("an id"), generation: 3 };
    assert_eq!(
        plain(&show::rotating(&rotating, English)),
        r#"✓ The renewal is open: go on with `approver enroll` on the other phone.
{"enrollment":"0192d3a4-7c00-7000-8000-0000007f3a21","generation":3}
"#
    );
}

#[test]
fn security_3_a_code_is_shown_with_its_leading_zeros() {
    let shown = |skew_seconds, state| ShownCode {
        code: Code::parse("00417283").expect("a code"),
        serial: "FEF4900032".to_owned(),
        issuer: "Banco".to_owned(),
        generation: 1,
        state,
        step: Step(58_800_000),
        period: 30,
        ends_at: Timestamp::from_seconds(1_764_000_030),
        time_left: Duration::from_millis(17_900),
        skew_seconds,
    };
    assert_eq!(
        plain(&show::code(&shown(None, HeldState::Active), Spanish)),
        r#"00417283
FEF4900032 · Banco · por 17 s
{"code":"00417283","ends_at":"2025-11-24T16:00:30.000Z","generation":1,"issuer":"Banco","period":30,"seconds_left":17,"serial":"FEF4900032","skew_seconds":null,"state":"active","step":58800000}
"#
    );
    assert_eq!(
        plain(&show::code(&shown(Some(-12), HeldState::Blocked), English)),
        r#"00417283
FEF4900032 · Banco · for 17 s
! The token is blocked: the server refuses its codes. Talk to your administrator.
! This phone's clock is 12 s fast.
{"code":"00417283","ends_at":"2025-11-24T16:00:30.000Z","generation":1,"issuer":"Banco","period":30,"seconds_left":17,"serial":"FEF4900032","skew_seconds":-12,"state":"blocked","step":58800000}
"#
    );
}

#[test]
fn lists_of_tokens_phones_and_bindings() {
    let token = TokenView {
        token: ID.parse::<TokenId>().expect("an id"),
        serial: "FEF4900032".to_owned(),
        company: "Comercial Andina SAC".to_owned(),
        state: HeldState::Assigned,
        generation: 0,
        here: false,
    };
    assert_eq!(
        plain(&show::tokens(&[token], Spanish)),
        r#"FEF4900032  Asignado Usuario  Comercial Andina SAC · generación 0 · no en este teléfono
{"tokens":[{"company":"Comercial Andina SAC","generation":0,"here":false,"serial":"FEF4900032","state":"assigned","token":"0192d3a4-7c00-7000-8000-0000007f3a21"}]}
"#
    );
    assert_eq!(plain(&show::tokens(&[], English)), "No tokens.\n{\"tokens\":[]}\n");

    let account = AccountView {
        account: 1,
        server: "http://127.0.0.1:8080".to_owned(),
        issuer: "http://bank.test".to_owned(),
        device: Some(device()),
        state: BindingState::Bound,
        match_number: Some("049302".to_owned()),
        tokens: 0,
        server_keys: vec!["key".to_owned()],
        skew_seconds: Some(0),
    };
    let phone = Device {
        device: device(),
        name: name("Teléfono de Ana"),
        platform: name("linux"),
        state: DeviceState::Waiting,
        bound_at: Timestamp::from_seconds(1_764_000_000),
    };
    assert_eq!(
        plain(&show::devices(&[phone], Some(&account), Spanish)),
        r#"Teléfono de Ana  espera  linux · desde 2025-11-24T16:00:00.000Z · este teléfono
{"devices":[{"bound_at":"2025-11-24T16:00:00.000Z","device":"0192d3a4-7c00-7000-8000-0000007f3a21","name":"Teléfono de Ana","platform":"linux","state":"waiting"}],"this":"0192d3a4-7c00-7000-8000-0000007f3a21"}
"#
    );
    assert_eq!(
        plain(&show::accounts(&[account], English)),
        r#"1  http://bank.test  waits for the other phone, number 049302  0 tokens
{"accounts":[{"account":1,"device":"0192d3a4-7c00-7000-8000-0000007f3a21","issuer":"http://bank.test","match_number":"049302","server":"http://127.0.0.1:8080","server_keys":["key"],"skew_seconds":0,"state":"bound","tokens":0}]}
"#
    );
}

#[test]
fn an_answer_that_ended_otherwise_is_an_error_with_its_exit_code() {
    let operation: OperationId = ID.parse().expect("an id");
    let answered = |state| Answered { operation, state };
    let wanted = OperationState::Executed;
    let report = show::answered(&answered(wanted), wanted, Spanish).expect("wanted");
    assert_eq!(
        plain(&report),
        "✓ Autorizado y ejecutado.\n{\"operation\":\"0192d3a4-7c00-7000-8000-0000007f3a21\",\"state\":\"executed\"}\n"
    );
    for (state, code) in [
        (OperationState::Denied, 4),
        (OperationState::Expired, 5),
        (OperationState::Cancelled, 6),
        (OperationState::Failed, 6),
    ] {
        let ended = show::answered(&answered(state), wanted, Spanish).err().expect("ended");
        assert_eq!(ended.exit_code(), code, "{state:?}");
    }
}

#[test]
fn an_error_says_what_happened_and_what_to_do_next() {
    let error = Error::WrongPin(3);
    assert_eq!(
        strip_str(&error_text(&error, Spanish)).to_string(),
        "✗ El PIN no es correcto.\n  Quedan 3 intentos; después se borra todo lo que guarda este teléfono.\n"
    );
    assert_eq!(
        error_json(&error, English).to_string(),
        r#"{"error":{"exit_code":7,"kind":"wrong-pin","next":"3 tries are left; after them everything on this phone is erased.","what":"The PIN is wrong."}}"#
    );
}

#[test]
fn every_error_is_explained_in_both_languages_and_has_an_exit_code_of_the_list() {
    let list = || vec!["a".to_owned(), "b".to_owned()];
    let mut errors = vec![
        Error::NotBound,
        Error::WhichAccount(list()),
        Error::AlreadyBound("http://a".to_owned()),
        Error::UnknownToken("FEF4900032".to_owned()),
        Error::NoToken,
        Error::WhichToken(list()),
        Error::NothingToEnroll,
        Error::UnknownRequest(ID.parse().expect("an id")),
        Error::NoRequest,
        Error::WhichRequest(list()),
        Error::NoUnusedCode(Timestamp::from_seconds(0)),
        Error::TimedOut,
        Error::Expired,
        Error::Revoked,
        Error::Waiting,
        Error::Suspended,
        Error::WrongPin(1),
        Error::Wiped,
        Error::Locked,
        Error::ClockSkew(90),
        Error::ClockSkew(-90),
        Error::Unreachable("http://a".to_owned(), "refused".to_owned()),
        Error::InClear("http://a".to_owned()),
        Error::UnexpectedAnswer("HTTP 502".to_owned()),
    ];
    for state in [OperationState::Denied, OperationState::Expired, OperationState::Failed] {
        errors.push(Error::Ended(state));
    }
    for input in [
        Input::Activation,
        Input::ServerMissing,
        Input::ServerAddress,
        Input::QrImage,
        Input::PinForm,
        Input::Authority,
        Input::PinCommon,
        Input::PinRepetition,
        Input::PinSource,
        Input::Number,
        Input::MinTtl,
        Input::Name,
        Input::File,
        Input::NotConfirmed,
    ] {
        errors.push(input.into());
    }
    for fault in [
        StoreFault::Missing,
        StoreFault::Exists,
        StoreFault::Damaged,
        StoreFault::Version(2),
        StoreFault::Permissions,
        StoreFault::Busy,
        StoreFault::Io("no space".to_owned()),
    ] {
        errors.push(fault.into());
    }
    for refusal in [
        Refusal::Message(MessageError::WrongKey),
        Refusal::Message(MessageError::BadSignature),
        Refusal::Message(MessageError::WrongAudience),
        Refusal::Message(MessageError::WrongVersion),
        Refusal::Message(MessageError::WrongMac),
        Refusal::Message(MessageError::NotOpened),
        Refusal::Message(MessageError::Malformed),
        Refusal::OtherOperation,
        Refusal::UnknownCause,
        Refusal::Generation { said: 2, held: 1 },
        Refusal::Seed,
    ] {
        errors.push(refusal.into());
    }
    for kind in ProblemType::ALL {
        errors.push(Problem::new(*kind, "Why.\u{1b}[2J").into());
    }
    for error in errors {
        let (spanish, english) = (error.explain(Spanish), error.explain(English));
        assert_ne!(spanish, english, "{error:?}");
        for text in [&spanish.what, &spanish.next, &english.what, &english.next] {
            let ends = text.ends_with(['.', ')']);
            assert!(ends && !text.contains(['{', '}', '\u{1b}']), "{error:?}: {text}");
        }
        let code = error.exit_code();
        assert!([2, 3, 4, 5, 6, 7, 8, 11, 69, 70].contains(&code), "{error:?}: {code}");
        assert!(error.kind().bytes().all(|byte| byte == b'-' || byte.is_ascii_lowercase()));
    }
}

#[test]
fn time_and_ids_are_short() {
    let spans = [0, 59, 60, 125, 3600, 90_061].map(|seconds| span(Duration::from_secs(seconds)));
    assert_eq!(spans, ["0 s", "59 s", "1 min 0 s", "2 min 5 s", "1 h 0 min", "25 h 1 min"]);
    assert_eq!(short(ID), "7f3a21");
}
