//! The program itself, as a person and as a script use it, against the bank over HTTP.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use semilla_core::protocol::approval::Action;
use semilla_core::qr;
use serde_json::Value;
use tempfile::TempDir;

use crate::NUMBER;
use crate::bank::{Bank, SERIAL};

/// A person with a folder of their own, and the bank they deal with.
struct Person {
    home: TempDir,
    bank: Arc<Bank>,
}

impl Person {
    async fn new() -> Self {
        let home = tempfile::tempdir().expect("a folder");
        let person = Self { home, bank: Bank::listen().await };
        person.file("pin", b"482913\n");
        person
    }

    /// One who has a bound phone with a live token.
    async fn with_token() -> Self {
        let person = Self::new().await;
        person.bank.assign(SERIAL);
        let picture =
            person.file("activation.png", &qr::png(&person.bank.invite(), 4).expect("QR"));
        let enrolled = person.run(&["enroll", "--qr", &text(&picture)]);
        assert!(enrolled.status.success(), "{}", err(&enrolled));
        person
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.home.path().join(name);
        std::fs::write(&path, bytes).expect("own file");
        path
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_approver"));
        command
            .env_clear()
            .env("XDG_DATA_HOME", self.home.path())
            .env("SEMILLA_APPROVER_PIN_FILE", self.home.path().join("pin"))
            .stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command().args(arguments).output().expect("runs")
    }

    fn json(&self, arguments: &[&str]) -> (i32, Value) {
        let output = self.run(&[arguments, &["--json"]].concat());
        let text = out(&output);
        let value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("one object: {text}"));
        (output.status.code().expect("a code"), value)
    }
}

fn text(path: &Path) -> String {
    path.to_str().expect("text").to_owned()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_enrolls_takes_codes_and_approves() {
    let person = Person::with_token().await;
    let bank = &person.bank;
    let (code, shown) = person.json(&["code", "--unused", "--min-ttl", "2"]);
    assert_eq!((code, shown["serial"].as_str()), (0, Some(SERIAL)));
    assert_eq!(
        keys(&shown),
        [
            "code",
            "ends_at",
            "generation",
            "issuer",
            "period",
            "seconds_left",
            "serial",
            "skew_seconds",
            "state",
            "step"
        ]
    );
    assert!(bank.takes(SERIAL, shown["code"].as_str().expect("a code")));

    let (code, empty) = person.json(&["inbox"]);
    assert_eq!(
        (code, empty.to_string().as_str()),
        (0, r#"{"enrollments":[],"refused":[],"requests":[]}"#)
    );
    let id = bank.ask(&bank.request(1)).to_string();
    let (code, inbox) = person.json(&["inbox", "--wait", "5"]);
    assert_eq!((code, inbox["requests"][0]["id"].as_str()), (0, Some(id.as_str())));
    assert_eq!(inbox["requests"][0]["operation"]["cause"], "customer_request");
    assert_eq!(inbox["requests"][0]["final"], true);

    let ending = &id[id.len() - 6..];
    let (code, answered) = person.json(&["approve", ending, "--number", NUMBER]);
    assert_eq!(code, 0);
    assert_eq!(answered, serde_json::json!({ "operation": id, "state": "executed" }));

    let (code, tokens) = person.json(&["tokens"]);
    assert_eq!((code, tokens["tokens"][0]["here"].as_bool()), (0, Some(true)));
    let (code, devices) = person.json(&["devices"]);
    assert_eq!((code, devices["this"] == devices["devices"][0]["device"]), (0, true));
    let (code, accounts) = person.json(&["accounts"]);
    assert_eq!((code, accounts["accounts"][0]["state"].as_str()), (0, Some("bound")));
    let (code, rotated) = person.json(&["rotate", "--cause", "suspicion"]);
    assert_eq!((code, rotated["generation"].as_u64()), (0, Some(2)));
    let (code, left) = person.json(&["leave", "--yes"]);
    assert_eq!((code, left["left"].as_u64()), (0, Some(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_fail_has_its_exit_code_and_says_what_to_do_next() {
    let person = Person::new().await;
    let fails = |arguments: &[&str], code: i32, kind: &str| {
        let (exit, value) = person.json(arguments);
        assert_eq!((exit, value["error"]["kind"].as_str()), (code, Some(kind)), "{arguments:?}");
        assert_eq!(value["error"]["exit_code"], code);
        let said = person.run(arguments);
        assert_eq!((said.status.code(), out(&said).as_str()), (Some(code), ""), "{arguments:?}");
        assert!(err(&said).lines().count() >= 2, "what, and what next: {}", err(&said));
    };
    fails(&["code"], 6, "store-missing");
    assert_eq!(person.run(&["code", "--min-ttl", "x"]).status.code(), Some(2));
    assert_eq!(person.run(&[]).status.code(), Some(2));
    let dead = person.file("dead", b"7K2M-9QRS-T0VW-XYZ1");
    let server = person.bank.issuer.clone();
    let from =
        |path: &Path| ["bind", "--code-file"].map(str::to_owned).into_iter().chain([text(path)]);
    let bind: Vec<String> = from(&dead).collect();
    let bind: Vec<&str> = bind.iter().map(String::as_str).collect();
    fails(&bind, 2, "input");
    fails(&[&bind[..], &["--server", &server]].concat(), 6, "activation-invalid");
    fails(&[&bind[..], &["--server", "http://127.0.0.1:1"]].concat(), 69, "unreachable");
    fails(&[&bind[..], &["--server", "http://192.0.2.1"]].concat(), 69, "in-clear");
    fails(&["code"], 6, "not-bound");

    let person = Person::with_token().await;
    let fails = |arguments: &[&str], code: i32, kind: &str| {
        let (exit, value) = person.json(arguments);
        assert_eq!((exit, value["error"]["kind"].as_str()), (code, Some(kind)), "{arguments:?}");
    };
    fails(&["code", "FEF4900099"], 2, "unknown-token");
    fails(&["code", "--min-ttl", "999"], 2, "input");
    fails(&["approve", "--number", NUMBER], 6, "no-request");
    fails(&["inbox", "--wait", "1"], 3, "timed-out");
    fails(&["watch", "--once", "--timeout", "1"], 3, "timed-out");
    fails(&["enroll"], 6, "nothing-to-enroll");
    for _ in 0..2 {
        person.run(&["code", "--unused", "--timeout", "0"]);
    }
    fails(&["code", "--unused", "--timeout", "0"], 3, "no-unused-code");
    person.bank.ask(&person.bank.request(1));
    fails(&["approve", "--number", "12"], 2, "input");
    fails(&["approve", "--number", "000000"], 4, "number-mismatch");
    person.bank.ask(&person.bank.request(9));
    fails(&["deny", "--reason", "unknown_request"], 11, "message-refused");
    let (exit, inbox) = person.json(&["inbox"]);
    assert_eq!((exit, inbox["refused"].as_array().map(Vec::len)), (11, Some(1)));
    let wrong = person.file("wrong", b"482914");
    fails(&["code", "--pin-file", &text(&wrong)], 7, "wrong-pin");
    fails(&["tokens", "--offline", "--account", "9"], 6, "not-bound");
}

#[tokio::test(flavor = "multi_thread")]
async fn security_64_and_129_a_person_sees_the_signed_facts_before_the_number_is_asked() {
    let person = Person::with_token().await;
    let request = person.bank.request(1);
    let id = person.bank.ask(&request).to_string();
    let shown = person.run(&["inbox"]);
    let left = "4 min 5";
    let plain = out(&shown);
    assert!(plain.contains(left), "{plain}");
    let ending = &id[id.len() - 6..];
    let expected = format!(
        "▌ Liberar  quedan …
  Acción           Liberar
  Número de Serie  FEF4900032
  Causal           Solicitud de Cliente
  Consecuencia     La semilla se destruye: el teléfono del usuario deja de dar códigos válidos. No se puede deshacer.
  ── El banco dice ──
  Liberar token virtual
  Empresa: Comercial Andina SAC
  Solicita: Ana Quispe
  → approver approve {ending}   |   approver deny {ending} --reason …

"
    );
    let start = plain.find("quedan ").expect("time left") + "quedan ".len();
    let end = start + plain[start..].find('\n').expect("a line");
    assert_eq!(format!("{}…{}", &plain[..start], &plain[end..]), expected);
    assert!(!plain.contains('\u{1b}'), "no colours in a pipe");

    let english = out(&person.run(&["inbox", "--lang", "en"]));
    assert!(english.contains("  Cause          Customer request\n"), "{english}");
    assert!(english.contains("── The bank says ──"), "{english}");
    // Without a terminal there is nobody to ask, and nothing is sent; the card was shown.
    let sent = person.bank.state().signed.len();
    let asked = person.run(&["approve"]);
    assert_eq!(asked.status.code(), Some(2));
    assert!(err(&asked).contains("Solicitud de Cliente"));
    assert_eq!(person.bank.state().signed.len(), sent);
    let denied = person.run(&["deny", "--reason", "suspected_fraud"]);
    assert_eq!((denied.status.code(), out(&denied).as_str()), (Some(0), "✓ Denegado.\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_reads_spanish_and_a_pipe_gets_the_code_alone() {
    let person = Person::with_token().await;
    let code = person.run(&["code", SERIAL]);
    let digits = out(&code);
    assert!(digits.trim_end().bytes().all(|byte| byte.is_ascii_digit()), "{digits}");
    assert_eq!(digits.len(), 9);
    assert!(err(&code).starts_with("FEF4900032 · Banco · por "), "{}", err(&code));
    person.bank.state().tokens[0].held.state = semilla_core::protocol::wire::HeldState::Blocked;
    let blocked = person.run(&["code", "--lang", "en"]);
    assert!(err(&blocked).contains("The token is blocked"), "{}", err(&blocked));
    let tokens = out(&person.run(&["tokens"]));
    let line = "FEF4900032  Bloqueado  Comercial Andina SAC · generación 1 · en este teléfono\n";
    assert_eq!(tokens, line);
    let coloured = person.command().env("CLICOLOR_FORCE", "1").arg("tokens").output();
    assert!(out(&coloured.expect("runs")).contains("\u{1b}[1mFEF4900032"));
}

#[tokio::test(flavor = "multi_thread")]
async fn security_128_no_secret_is_taken_from_the_arguments_or_shown_in_them() {
    let person = Person::new().await;
    for arguments in [
        &["bind", "7K2M-9QRS-T0VW-XYZ1"][..],
        &["--pin", "482913", "tokens"],
        &["tokens", "482913"],
    ] {
        assert_eq!(person.run(arguments).status.code(), Some(2), "{arguments:?}");
    }
    // PIN and code come on standard input, PIN first.
    let mut child = person
        .command()
        .env_remove("SEMILLA_APPROVER_PIN_FILE")
        .args(["bind", "--pin-stdin", "--code-file", "-", "--name", "Teléfono de Ana"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("runs");
    let invitation = person.bank.invite();
    let lines = format!("482913\n{invitation}\n");
    let mut input = child.stdin.take().expect("piped");
    input.write_all(lines.as_bytes()).expect("taken");
    drop(input);
    let output = child.wait_with_output().expect("ends");
    assert!(output.status.success(), "{}", err(&output));
    assert!(out(&output).starts_with(&format!("✓ Teléfono vinculado a {}\n", person.bank.issuer)));
    let said = out(&output) + &err(&output);
    for secret in ["482913", "the-device-token", &invitation[invitation.len() - 14..]] {
        assert!(!said.contains(secret), "{secret}");
    }
    let bound = Bank::claims(person.bank.state().signed.first().expect("sent"));
    assert_eq!(bound["name"], "Teléfono de Ana");
}

#[tokio::test(flavor = "multi_thread")]
async fn security_125_programs_that_try_pins_at_once_count_every_one() {
    let person = Person::with_token().await;
    let wrong = text(&person.file("wrong", b"482914"));
    let tries: Vec<_> = (0..6)
        .map(|_| person.command().args(["tokens", "--offline", "--pin-file", &wrong]).spawn())
        .collect();
    for child in tries {
        assert_eq!(child.expect("runs").wait().expect("ends").code(), Some(7));
    }
    let count = person.home.path().join("semilla/approver/tries");
    assert_eq!(std::fs::read_to_string(&count).expect("a count"), "6\n");
    for _ in 0..4 {
        person.run(&["tokens", "--offline", "--pin-file", &wrong]);
    }
    let (code, wiped) = person.json(&["tokens", "--offline"]);
    assert_eq!((code, wiped["error"]["kind"].as_str()), (7, Some("wiped")));
}

#[tokio::test(flavor = "multi_thread")]
async fn security_130_two_programs_at_once_send_counters_that_rise() {
    let person = Person::with_token().await;
    let mut ids = Vec::new();
    for _ in 0..6 {
        ids.push(person.bank.ask(&person.bank.request(1)).to_string());
    }
    let programs: Vec<_> = ids
        .iter()
        .map(|id| {
            let mut command = person.command();
            command.args(["deny", id.as_str(), "--reason", "user_cancelled"]);
            command.stdout(Stdio::null()).spawn().expect("runs")
        })
        .collect();
    for mut program in programs {
        assert_eq!(program.wait().expect("ends").code(), Some(0));
    }
    assert!(!person.bank.state().shut, "no counter came twice or late");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pin_is_changed_and_common_ones_are_refused() {
    let person = Person::with_token().await;
    let common = text(&person.file("common", b"123456"));
    let new = text(&person.file("new", b"907142"));
    assert_eq!(person.run(&["pin", "--new-pin-file", &common]).status.code(), Some(2));
    let changed = person.run(&["pin", "--new-pin-file", &new]);
    assert_eq!(out(&changed), "✓ El PIN cambió.\n", "{}", err(&changed));
    assert_eq!(person.run(&["tokens"]).status.code(), Some(7));
    assert_eq!(person.run(&["tokens", "--pin-file", &new]).status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn watching_tells_what_comes_and_what_goes() {
    let person = Person::with_token().await;
    let (code, _) = person.json(&["watch", "--once", "--timeout", "1"]);
    assert_eq!(code, 3);
    let mut request = person.bank.request(1);
    request.operation.action = Action::BindPhone;
    let id = person.bank.ask(&request).to_string();
    let (code, news) = person.json(&["watch", "--once", "--timeout", "20"]);
    assert_eq!((code, news["event"].as_str()), (0, Some("asked")));
    assert_eq!(news["request"]["id"], id);
    let card = out(&person.run(&["watch", "--once"]));
    assert!(card.contains("Acción        Vincular otro teléfono\n"), "{card}");
}
