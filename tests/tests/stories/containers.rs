//! Key containers (RFC 6030) between us and programs of others: python-pskc and pskctool read what
//! we write, and python-pskc's files, those it writes and those it is tested with, read here.
//! `tests/run` installs both.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use semilla_core::import::hexadecimal;
use semilla_core::pskc::{self, FileKey};
use semilla_core::secret::SecretText;
use semilla_tests::http::Expect;
use semilla_tests::world::World;
use serde_json::{Value, json};

const SEED: &str = "a1b2c3d4e5f60718293a4b5c6d7e8f9001122334";

fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

/// Runs python-pskc.
fn python(arguments: &[&str]) -> Value {
    let program = clients().join(".venv/bin/python");
    let ran = Command::new(program).arg(clients().join("pskc_file.py")).args(arguments).output();
    let ran = ran.expect("python-pskc is installed: run tests/run");
    serde_json::from_slice(&ran.stdout)
        .unwrap_or_else(|_| panic!("{arguments:?}: {}", String::from_utf8_lossy(&ran.stderr)))
}

/// What pskctool says of a file. It exits with success whatever it thinks of it.
fn pskctool(what: &str, file: &Path) -> String {
    let ran = Command::new("pskctool").arg(what).arg(file).output();
    let ran = ran.expect("pskctool is installed: run tests/run");
    String::from_utf8_lossy(&ran.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn python_pskc_and_pskctool_read_what_we_write() {
    let world = World::begin().await;
    let content = format!(
        "serial,type,secret_hex,algorithm,digits,period,counter,manufacturer\n\
         HW-1000,hotp,{SEED},SHA1,6,,7,Ñandú & <Hijos>\n\
         HW-1001,totp,{SEED},SHA256,8,60,,\n\
         HW-1002,totp,{SEED},SHA512,7,30,,Acme\n"
    );
    let file = json!({"format": "csv", "content": content});
    world.operator.post("/api/v1/stock/import", file).await.expect(200);
    let passphrase = "correct horse battery staple";
    let exported = world.operator.post("/api/v1/stock/export", json!({"passphrase": passphrase}));
    let exported = exported.await.expect(200);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("out.pskcxml");
    std::fs::write(&path, exported["content"].as_str().expect("a file")).expect("written");

    let read = python(&["read", path.to_str().expect("a path"), "passphrase", passphrase]);
    let shown = |key: &Value| {
        assert_eq!((&key["secret"], &key["mac"]), (&json!(SEED), &json!(true)), "{key}");
        json!([
            key["serial"],
            key["algorithm"],
            key["suite"],
            key["counter"],
            key["interval"],
            key["digits"]
        ])
    };
    let keys: Vec<_> = read.as_array().expect("keys").iter().map(shown).collect();
    let expected = [
        json!(["HW-1000", "hotp", null, 7, null, 6]),
        json!(["HW-1001", "totp", "HMAC-SHA256", null, 60, 8]),
        json!(["HW-1002", "totp", "HMAC-SHA512", null, 30, 7]),
    ];
    assert_eq!(keys, expected);
    assert_eq!(read[0]["manufacturer"], "Ñandú & <Hijos>");
    let wrong = python(&["read", path.to_str().expect("a path"), "passphrase", "another"]);
    assert!(wrong[0]["error"].is_string(), "{wrong}");

    assert_eq!(pskctool("--validate", &path).trim(), "OK");
    let info = pskctool("--info", &path);
    for line in ["SerialNo: HW-1000", "Key Counter: 7", "SerialNo: HW-1001", "Key TimeInterval: 60"]
    {
        assert!(info.contains(line), "{line}: {info}");
    }
    // The control: pskctool finds what is wrong with an order that the schema has not.
    let text = std::fs::read_to_string(&path).expect("the file");
    let twisted = text.replacen(
        "<Data><Secret>",
        "<Data><Counter><PlainValue>1</PlainValue></Counter><Secret>",
        1,
    );
    std::fs::write(&path, twisted).expect("written");
    assert!(pskctool("--validate", &path).contains("FAIL"));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_python_pskc_writes_are_imported() {
    let folder = tempfile::tempdir().expect("a folder");
    let key = "00112233445566778899aabbccddeeff";
    for (kind, secret, opener) in [
        ("clear", "", None),
        ("key", key, Some("key")),
        ("passphrase", "contraseña de la caja", Some("passphrase")),
        ("passphrase-sha256", "contraseña de la caja", Some("passphrase")),
    ] {
        let world = World::begin().await;
        let path = folder.path().join(kind);
        python(&["write", path.to_str().expect("a path"), kind, secret, SEED]);
        let content = std::fs::read_to_string(&path).expect("the file");
        let mut body = json!({"format": "pskc", "content": content});
        if let Some(opener) = opener {
            world.operator.post("/api/v1/stock/import", body.clone()).await.refused("validation");
            body[opener] = secret.into();
        }
        let report = world.operator.post("/api/v1/stock/import", body).await.expect(200);
        let lines = report["lines"].as_array().expect("lines");
        let methods: Vec<_> = lines.iter().map(|line| [&line["serial"], &line["method"]]).collect();
        assert_eq!(
            methods,
            [[&json!("PY-1000"), &json!("hotp")], [&json!("PY-1001"), &json!("totp")]]
        );

        // Their codes are those that oathtool makes of the seed python-pskc was given.
        let allot = json!({"first": "PY-1000", "count": 1, "company": world.company.id});
        world.operator.post("/api/v1/stock/allot", allot).await.expect(200);
        let program = &world.company.program;
        let token =
            program.get("/api/v1/tokens?q=PY-1000").await.expect(200)["items"][0]["id"].clone();
        let assign = format!("/api/v1/tokens/{}/assign", token.as_str().expect("an id"));
        let opened = program.post(&assign, json!({"user": world.company.laura})).await.expect(201);
        let id = opened["enrollment"]["id"].as_str().expect("an id").to_owned();
        let ran = Command::new("oathtool").args(["--hotp", "-d", "6", "-c", "7", SEED]).output();
        let code = String::from_utf8(ran.expect("oathtool").stdout).expect("digits");
        let confirm = json!({"code": code.trim()});
        program.post(&format!("/api/v1/enrollments/{id}/confirm"), confirm).await.expect(200);
    }
}

const PRESHARED: &str = "12345678901234567890123456789012";

/// Example files of python-pskc, and what opens them.
const READ: [(&str, &str, &str); 22] = [
    ("rfc6030/figure2.pskcxml", "clear", ""),
    ("rfc6030/figure3.pskcxml", "clear", ""),
    ("rfc6030/figure4.pskcxml", "clear", ""),
    ("rfc6030/figure5.pskcxml", "clear", ""),
    ("rfc6030/figure6.pskcxml", "key", PRESHARED),
    ("rfc6030/figure7.pskcxml", "passphrase", "qwerty"),
    ("rfc6030/figure9.pskcxml", "clear", ""),
    ("rfc6030/figure10.pskcxml", "clear", ""),
    ("encryption/aes128-cbc.pskcxml", "key", PRESHARED),
    ("encryption/aes192-cbc.pskcxml", "key", "123456789012345678901234567890123456789012345678"),
    (
        "encryption/aes256-cbc.pskcxml",
        "key",
        "1234567890123456789012345678901234567890123456789012345678901234",
    ),
    ("encryption/kw-aes128.pskcxml", "key", "000102030405060708090a0b0c0d0e0f"),
    ("encryption/kw-aes192.pskcxml", "key", "000102030405060708090a0b0c0d0e0f1011121314151617"),
    (
        "encryption/kw-aes256.pskcxml",
        "key",
        "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
    ),
    ("feitian/20120919-test001-4282.xml", "clear", ""),
    ("feitian/file1.pskcxml", "clear", ""),
    ("misc/SampleFullyQualifiedNS.xml", "passphrase", "3FCA3158035072D6"),
    ("misc/checkdigits.pskcxml", "clear", ""),
    ("misc/odd-namespace.pskcxml", "clear", ""),
    ("nagraid/file1.pskcxml", "key", "4A057F6AB6FCB57AB5408E46A9835E68"),
    ("yubico/example1.pskcxml", "clear", ""),
    ("yubico/example2.pskcxml", "clear", ""),
];

/// Those of which nothing is read, and those whose secrets are not: drafts from before RFC 6030,
/// ciphers other than AES, values without a MAC of their own key over what is encrypted, an
/// initialization vector that is not in the file, keys under certificates, and broken files.
const REFUSED: [&str; 21] = [
    "actividentity/",
    "draft-",
    "encryption/aes128-cbc-noiv",
    "encryption/camellia",
    "encryption/kw-camellia",
    "encryption/kw-tripledes",
    "encryption/mac-over-plaintext",
    "encryption/no-mac-key",
    "encryption/tripledes",
    "invalid/incomplete-derivation",
    "invalid/mac-algorithm",
    "invalid/mac-value",
    "invalid/missing-encryption",
    "invalid/missing-encryption-method",
    "invalid/no-mac-method",
    "invalid/notxml",
    "invalid/unknown-encryption",
    "invalid/wrongelement",
    "invalid/wrongversion",
    "misc/partialxml",
    "rfc6030/figure8",
];

/// Those in which something beside a secret is wrong or of no account here.
const OTHERWISE: [&str; 6] = [
    "invalid/not-boolean",
    "invalid/not-integer",
    "invalid/not-integer2",
    "misc/integers",
    "misc/policy",
    "yubico/example3",
];

fn examples() -> PathBuf {
    let requirements = std::fs::read_to_string(clients().join("requirements.txt")).expect("them");
    let version = requirements.lines().find_map(|line| line.strip_prefix("python-pskc=="));
    let folder = format!(".venv/python_pskc-{}/tests", version.expect("a version"));
    let folder = clients().join(folder);
    assert!(folder.is_dir(), "{} is missing: run tests/run", folder.display());
    folder
}

fn opener(kind: &str, secret: &str) -> FileKey {
    match kind {
        "key" => FileKey::Preshared(hexadecimal(secret).expect("hexadecimal")),
        "passphrase" => FileKey::Passphrase(SecretText::new(secret.to_owned())),
        _ => FileKey::None,
    }
}

#[test]
fn the_example_files_of_python_pskc_read_the_same_here() {
    let folder = examples();
    let mut compared = 0;
    for (name, kind, secret) in READ {
        let path = folder.join(name);
        let theirs = python(&["read", path.to_str().expect("a path"), kind, secret]);
        let text = std::fs::read_to_string(&path).expect("the file");
        let ours = pskc::read(&text, &opener(kind, secret));
        let ours = ours.unwrap_or_else(|fault| panic!("{name}: {fault}"));
        let theirs = theirs.as_array().expect("keys");
        assert_eq!(ours.len(), theirs.len(), "{name}");
        for (ours, theirs) in ours.iter().zip(theirs) {
            assert!(theirs["error"].is_null(), "{name}: {theirs}");
            let secret =
                ours.secret.as_ref().ok().map(|secret| {
                    secret.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
                });
            assert_eq!(json!(secret), theirs["secret"], "{name}");
            assert_eq!(json!(ours.serial), theirs["serial"], "{name}");
            assert_eq!(json!(ours.counter.as_ref().ok()), theirs["counter"], "{name}");
            assert_eq!(json!(ours.interval.as_ref().ok()), theirs["interval"], "{name}");
            compared += 1;
        }
    }
    assert_eq!(compared, 39);
}

#[test]
fn every_other_example_file_of_python_pskc_yields_no_secret() {
    let folder = examples();
    let mut seen = BTreeSet::new();
    for group in std::fs::read_dir(&folder).expect("the folder") {
        let group = group.expect("an entry").path();
        for entry in std::fs::read_dir(&group).into_iter().flatten() {
            let path = entry.expect("an entry").path();
            let name =
                path.strip_prefix(&folder).expect("inside").to_str().expect("a name").to_owned();
            if !name.ends_with("xml") || name.starts_with("signature/") {
                continue;
            }
            if READ.iter().any(|(read, ..)| *read == name)
                || OTHERWISE.iter().any(|other| name.starts_with(other))
            {
                continue;
            }
            assert!(REFUSED.iter().any(|refused| name.starts_with(refused)), "{name} is new");
            let text =
                String::from_utf8_lossy(&std::fs::read(&path).expect("the file")).into_owned();
            for key in [FileKey::None, opener("key", PRESHARED), opener("passphrase", "qwerty")] {
                for entry in pskc::read(&text, &key).into_iter().flatten() {
                    assert!(entry.secret.is_err(), "{name} at line {}", entry.line);
                }
            }
            seen.insert(name);
        }
    }
    assert!(seen.len() >= 30, "{seen:?}");
}
