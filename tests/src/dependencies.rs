//! What may be depended on, and what may be committed. The rules on crates are those of
//! `deny.toml`, read from there, so that `cargo deny` and these tests say the same.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde::Deserialize;
use serde_json::Value;

/// Crates that read, write, wait or look at a clock: nothing for `core`.
const INPUT_AND_OUTPUT: [&str; 11] = [
    "async-trait",
    "axum",
    "clap",
    "hyper",
    "hyper-util",
    "mio",
    "rusqlite",
    "rustix",
    "socket2",
    "tokio",
    "tracing",
];

#[derive(Deserialize)]
struct Lock {
    package: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    source: Option<String>,
    #[serde(default)]
    dependencies: Vec<String>,
}

#[derive(Deserialize)]
struct Deny {
    licenses: Licenses,
    bans: Bans,
}

#[derive(Deserialize)]
struct Licenses {
    allow: Vec<String>,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Ban>,
}

#[derive(Deserialize)]
struct Ban {
    #[serde(rename = "crate")]
    name: String,
    reason: String,
}

fn text(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn lock() -> Lock {
    toml::from_str(&text("Cargo.lock")).expect("a lockfile")
}

fn deny() -> Deny {
    toml::from_str(&text("deny.toml")).expect("deny.toml")
}

/// Whether a licence expression is met by the licences that are allowed.
fn is_allowed(expression: &str, allowed: &[String]) -> bool {
    let expression = spdx::Expression::parse_mode(expression, spdx::ParseMode::LAX);
    let allowed: Vec<_> =
        allowed.iter().map(|one| spdx::Licensee::parse(one).expect("a licence")).collect();
    expression.is_ok_and(|expression| {
        expression.evaluate(|wanted| allowed.iter().any(|one| one.satisfies(wanted)))
    })
}

/// The banned crates among `packages`.
fn banned(packages: &[Package], bans: &[Ban]) -> Vec<String> {
    let ban = |package: &&Package| bans.iter().find(|ban| ban.name == package.name);
    packages
        .iter()
        .filter_map(|package| Some(format!("{}: {}", package.name, ban(&package)?.reason)))
        .collect()
}

#[test]
fn no_crate_is_locked_that_is_banned() {
    let deny = deny();
    assert_eq!(banned(&lock().package, &deny.bans.deny), Vec::<String>::new());
    for name in ["aws-lc-sys", "openssl-sys", "rsa"] {
        let planted = Package {
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            source: None,
            dependencies: Vec::new(),
        };
        assert_eq!(banned(&[planted], &deny.bans.deny).len(), 1, "{name} would be found");
    }
}

#[test]
fn every_crate_comes_from_the_one_registry() {
    for package in lock().package {
        match package.source.as_deref() {
            None => assert!(package.name.starts_with("semilla-"), "{}", package.name),
            Some(source) => {
                let registry = "registry+https://github.com/rust-lang/crates.io-index";
                assert_eq!(source, registry, "{}", package.name);
            }
        }
    }
}

#[test]
fn every_licence_is_an_allowed_one() {
    let ran = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--format-version", "1"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let metadata: Value = serde_json::from_slice(&ran.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    assert!(packages.len() > 100);
    let allowed = deny().licenses.allow;
    let refused: Vec<_> = packages
        .iter()
        .filter(|package| !is_allowed(package["license"].as_str().unwrap_or_default(), &allowed))
        .map(|package| format!("{}: {}", package["name"], package["license"]))
        .collect();
    assert_eq!(refused, Vec::<String>::new());
    for expression in ["", "GPL-3.0-only", "MIT AND GPL-3.0-only", "LGPL-2.1-or-later"] {
        assert!(!is_allowed(expression, &allowed), "{expression} would be found");
    }
}

#[test]
fn core_reaches_no_crate_that_reads_writes_or_waits() {
    let lock = lock();
    let by_name: BTreeMap<(&str, &str), &Package> = lock
        .package
        .iter()
        .map(|package| ((package.name.as_str(), package.version.as_str()), package))
        .collect();
    let reached = |start: &str| {
        let mut reached = BTreeSet::new();
        let mut left = vec![start.to_owned()];
        while let Some(dependency) = left.pop() {
            let (name, version) = match dependency.split_once(' ') {
                Some((name, version)) => (name.to_owned(), Some(version.to_owned())),
                None => (dependency, None),
            };
            let found = by_name.iter().filter(|((one, of), _)| {
                *one == name && version.as_deref().is_none_or(|version| *of == version)
            });
            for (_, package) in found {
                if reached.insert((package.name.clone(), package.version.clone())) {
                    left.extend(package.dependencies.iter().cloned());
                }
            }
        }
        reached.into_iter().map(|(name, _)| name).collect::<BTreeSet<_>>()
    };
    let core = reached("semilla-core");
    let found: Vec<_> = INPUT_AND_OUTPUT.iter().filter(|name| core.contains(**name)).collect();
    assert_eq!(found, Vec::<&&str>::new());
    let server = reached("semilla-server");
    assert!(INPUT_AND_OUTPUT.iter().all(|name| server.contains(*name)), "they would be found");
}

#[test]
fn nothing_committed_tells_of_one_machine_or_leaves_work_undone() {
    // Put together here, so that this file does not hold what it looks for.
    let forbidden: Vec<String> = [
        ("/ho", "me/"),
        ("/ro", "ot/"),
        ("/wo", "rk/"),
        ("todo", "!("),
        ("unimplemented", "!("),
        ("#[ign", "ore"),
        ("FIX", "ME"),
        ("artif", "actory"),
    ]
    .iter()
    .map(|(start, end)| format!("{start}{end}"))
    .collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let ran = Command::new("git").args(["ls-files", "-z"]).current_dir(&folder).output();
    let listed = ran.expect("git runs").stdout;
    let listed = String::from_utf8(listed).expect("names in UTF-8");
    let mut read = 0;
    for name in listed.split('\0').filter(|name| !name.is_empty() && *name != "Cargo.lock") {
        // A file that was removed and not yet committed is no longer there.
        let Ok(bytes) = std::fs::read(folder.join(name)) else { continue };
        let content = String::from_utf8_lossy(&bytes);
        for word in &forbidden {
            assert!(!content.contains(word.as_str()), "{name} holds {word}");
        }
        read += 1;
    }
    assert!(read > 100, "the tests run in a clone of the repository");
}
