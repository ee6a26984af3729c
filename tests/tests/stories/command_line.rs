//! The programs as people and scripts meet them: help with examples, exit codes, `--json`, settings
//! that are all documented, and a demonstration whose printed commands work when they are pasted.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use semilla_server::config::Config;
use semilla_tests::process::{Home, run, semilla};
use serde_json::Value;

fn said(arguments: &[&str]) -> (Option<i32>, String, String) {
    let ran = run(arguments);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    (ran.status.code(), text(&ran.stdout), text(&ran.stderr))
}

#[test]
fn every_command_has_help_with_an_example() {
    for command in [
        &["init"][..],
        &["serve"],
        &["dev"],
        &["audit", "verify"],
        &["audit", "export"],
        &["receipt", "verify"],
    ] {
        let (code, help, _) = said(&[command, &["--help"]].concat());
        assert_eq!(code, Some(0));
        assert!(help.contains("Example"), "{command:?}: {help}");
        let name = format!("semilla {}", command.join(" "));
        assert!(help.matches(&name).count() >= 2, "{command:?} shows itself: {help}");
    }
    let (code, _, wrong) = said(&["sevre"]);
    assert_eq!(code, Some(2));
    assert!(wrong.contains("serve"), "the nearest name: {wrong}");
    assert_eq!(said(&[]).0, Some(2));
    assert_eq!(said(&["--version"]).0, Some(0));
}

#[test]
fn init_makes_a_folder_once_and_says_what_comes_next() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("bank");
    let path = path.to_str().expect("a path");
    let (code, text, _) = said(&["init", "--folder", path, "--bank", "Banco de Ejemplo"]);
    assert_eq!(code, Some(0));
    assert!(text.contains("client_secret") && text.contains("semilla serve --config"), "{text}");
    let (code, _, wrong) = said(&["init", "--folder", path]);
    assert_eq!(code, Some(2));
    assert!(wrong.contains("exists"), "{wrong}");
    for (option, value) in [("--operator", "Ñ"), ("--name", "\u{202e}"), ("--bank", "")] {
        let other = folder.path().join("other");
        let other = other.to_str().expect("a path");
        let (code, _, wrong) = said(&["init", "--folder", other, option, value]);
        assert_eq!(code, Some(2), "{option}");
        assert!(wrong.contains(option), "{wrong}");
        assert!(!folder.path().join("other").exists(), "nothing is left behind");
    }
    use std::os::unix::fs::PermissionsExt;
    for (name, mode) in [("", 0o700), ("keys/master.key", 0o600), ("semilla.toml", 0o600)] {
        let path = folder.path().join("bank").join(name);
        let permissions = std::fs::metadata(&path).expect("made").permissions();
        assert_eq!(permissions.mode() & 0o777, mode, "{}", path.display());
    }
}

#[test]
fn every_setting_stands_explained_in_the_file_and_a_misspelt_one_is_named() {
    let home = Home::make();
    let file = std::fs::read_to_string(home.config()).expect("the file");
    assert_eq!(file, Config::sample());
    let mut explained = false;
    for line in file.lines().filter(|line| !line.is_empty()) {
        match line.strip_prefix("# ") {
            Some(_) => explained = true,
            None => {
                assert!(explained, "{line} stands without a word about it");
                explained = false;
            }
        }
    }
    std::fs::write(home.config(), "lsten = \"127.0.0.1:1\"\n").expect("written");
    let config = home.config();
    let config = config.to_str().expect("a path");
    let (code, _, wrong) = said(&["serve", "--config", config]);
    assert_eq!(code, Some(78));
    assert!(wrong.contains("line 1") && wrong.contains("did you mean listen?"), "{wrong}");
    let ran = Command::new(semilla())
        .args(["serve", "--config", config])
        .env("SEMILLA_LISTEN", "nowhere")
        .output()
        .expect("it runs");
    assert_eq!(ran.status.code(), Some(78));
    // Each of them can be set by the environment, which is told where it is wrong.
    std::fs::write(home.config(), "").expect("written");
    let settings = file.lines().filter_map(|line| line.strip_prefix('#')?.split_once(" = "));
    let settings: Vec<_> = settings.filter(|(name, _)| !name.contains(' ')).collect();
    assert!(settings.len() > 10, "{settings:?}");
    for (name, default) in settings {
        // What stands for none, where there may be none; files are looked at later.
        if default == "\"\"" && name.starts_with("tls_") {
            continue;
        }
        let variable = format!("SEMILLA_{}", name.to_uppercase());
        let wrong = if default == "\"\"" { "a b" } else { "" };
        let ran = Command::new(semilla())
            .args(["serve", "--config", config])
            .env(&variable, wrong)
            .output()
            .expect("it runs");
        let told = String::from_utf8_lossy(&ran.stderr);
        assert_eq!(ran.status.code(), Some(78), "{variable}: {told}");
        assert!(told.contains(&variable) && told.contains(name), "{told}");
    }
    let (code, _, wrong) = said(&["serve", "--config", "/nowhere/semilla.toml"]);
    assert_eq!(code, Some(78));
    assert!(wrong.contains("/nowhere/semilla.toml"), "{wrong}");
}

#[test]
fn the_story_is_one_line_a_step_in_both_languages_and_exits_0() {
    let told: Vec<String> = ["es", "en"]
        .into_iter()
        .map(|language| {
            let (code, text, wrong) = said(&["dev", "--story", "--lang", language]);
            assert_eq!(code, Some(0), "{wrong}");
            assert!(!text.contains('\u{1b}'), "no colours where nobody looks");
            let lines: Vec<&str> = text.lines().collect();
            assert_eq!(lines.len(), 12, "{text}");
            for (place, line) in lines.iter().enumerate() {
                assert!(line.trim_start().starts_with(&format!("{}  ✓", place + 1)), "{line}");
            }
            text
        })
        .collect();
    assert!(told[0].contains("Asignado Empresa") && told[1].contains("Assigned to company"));
    for (spanish, english) in told[0].lines().zip(told[1].lines()) {
        assert_ne!(spanish, english);
    }
    assert_eq!(said(&["dev", "--story", "--lang", "fr"]).0, Some(2));
}

/// What `semilla dev` prints, and the process that goes on.
fn demonstration() -> (std::process::Child, String) {
    let mut child = Command::new(semilla())
        .args(["dev", "--lang", "en", "--listen", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it runs");
    let mut text = String::new();
    let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    for line in lines.by_ref() {
        let line = line.expect("UTF-8");
        text.push_str(&line);
        text.push('\n');
        if line.starts_with("Running.") {
            break;
        }
    }
    std::thread::spawn(move || lines.for_each(drop));
    (child, text)
}

#[test]
fn what_the_demonstration_prints_works_when_it_is_pasted() {
    let (mut child, printed) = demonstration();
    // As a person would, but with the program that is built already, and with the number typed.
    let approver = semilla().with_file_name("approver");
    let pasted = printed
        .lines()
        .skip_while(|line| !line.starts_with("S="))
        .take_while(|line| !line.starts_with("Running."))
        .collect::<Vec<_>>()
        .join("\n")
        .replace("cargo run -q -p semilla-approver --", approver.to_str().expect("a path"));
    assert!(pasted.contains("andres approve") && pasted.contains("laura code"), "{pasted}");
    let ask = "ask $S/api/v1/tokens/$T/release -d '{\"cause\":\"seed_release\"}'";
    assert!(pasted.contains(ask), "{pasted}");
    // Once with a number that was never shown, which ends it, and once more with the right one.
    let asks = format!(
        "R=$({ask}); N=$(echo \"$R\" | sed 's/.*\"match_number\":\"\\([0-9]*\\)\".*/\\1/')"
    );
    let approves = format!(
        "andres approve --number $(printf %06d $(( (10#$N + 1) % 1000000 ))); echo \"wrong: $?\"
         andres inbox --json; {asks}
         andres approve --number $N --json; echo \"right: $?\"
         andres approve --number $N --json; echo \"again: $?\""
    );
    let scripted = pasted.replace(ask, &asks).replace("andres approve", &approves);
    let ran = Command::new("bash").arg("-c").arg(&scripted).output().expect("bash runs");
    let text = String::from_utf8_lossy(&ran.stdout).into_owned();
    child.kill().expect("ended");
    child.wait().expect("its status");
    assert!(ran.status.success(), "{text}{}", String::from_utf8_lossy(&ran.stderr));
    let accepted: Vec<_> = text.lines().filter(|line| line.contains("accepted")).collect();
    assert_eq!(accepted[..2], ["{\"accepted\":true}", "{\"accepted\":false}"], "{text}");
    for line in ["wrong: 4", "right: 0", "again: 6"] {
        assert!(text.lines().any(|said| said == line), "{line}: {text}");
    }
    let token =
        text.lines().find(|line| line.contains("\"state\":\"company\"")).expect("the token");
    assert!(token.contains("FEF4900032"), "back with the company: {token}");
    for kind in ["operation.failed", "operation.executed", "token.released"] {
        assert!(text.contains(kind), "the trail tells of {kind}: {text}");
    }
}

#[test]
fn audit_verify_says_everything_as_json_too() {
    let home = Home::make();
    let config = home.config();
    let config = config.to_str().expect("a path");
    let (code, text, _) = said(&["audit", "verify", "--config", config, "--json"]);
    assert_eq!(code, Some(0));
    let report: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(report["whole"], true);
    assert!(report["chains"][0]["records"].as_u64().expect("a number") > 0);
    let out = home.path().join("trail.jsonl");
    let out = out.to_str().expect("a path");
    assert_eq!(said(&["audit", "export", "--config", config, "--out", out]).0, Some(0));
    assert_eq!(
        said(&["audit", "export", "--config", config, "--out", out]).0,
        Some(69),
        "no overwriting"
    );
    assert_eq!(said(&["audit", "verify", "--export", out]).0, Some(0));
}
