//! The API as a product: that its description is true, by a program of others that makes requests
//! from nothing but the description; and that OAuth clients written by others prove themselves by
//! a key and use tokens that are bound to one.

use std::path::{Path, PathBuf};
use std::process::Command;

use semilla_tests::http::Expect;
use semilla_tests::world::World;
use serde_json::{Value, json};

fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

fn python(script: &str) -> Command {
    let mut command = Command::new(clients().join(".venv/bin/python"));
    command.arg(clients().join(script));
    command
}

/// Runs a program of others to its end; gives whether it succeeded, and all that it said.
async fn run(mut command: Command) -> (bool, String) {
    let ran = tokio::task::spawn_blocking(move || {
        command.output().unwrap_or_else(|error| panic!("{command:?}: {error}: run tests/run"))
    });
    let ran = ran.await.expect("no panic");
    let said = [ran.stdout, ran.stderr].concat();
    (ran.status.success(), String::from_utf8_lossy(&said).into_owned())
}

/// A phone in Python, bound for somebody.
async fn bound_phone(world: &World, user: &str, state: &Path) {
    let path = format!("/api/v1/users/{user}/activation");
    let activation = world.company.program.post(&path, json!({})).await.expect(201);
    let mut bind = python("phone.py");
    bind.arg(state).args(["bind", activation["uri"].as_str().expect("a uri")]);
    let (succeeded, said) = run(bind).await;
    assert!(succeeded, "{said}");
}

/// The description, with ids of this world's things in the place of its examples: something of
/// each kind is there to be found. The company is another than the one that asks, which can thus
/// not switch itself off.
async fn of_this_world(world: &World) -> String {
    let (program, laura) = (&world.company.program, &world.company.laura);
    let (token, serial, enrollment) = world.assigned(&world.company, laura).await;
    let release = format!("/api/v1/tokens/{token}/release");
    let operation = program.post(&release, json!({"cause": "seed_release"})).await.expect(202);
    let devices = program.get(&format!("/api/v1/devices?user={laura}")).await.expect(200);
    let other = world.another_company("Otra S.A.").await;
    let document = world.http().send("GET", "/openapi.json", &[], b"").await.expect("an answer");
    let mut document = String::from_utf8(document.body.to_vec()).expect("UTF-8");
    for (number, id) in [
        other.id.as_str(),
        laura,
        &token,
        devices["items"][0]["id"].as_str().expect("an id"),
        &enrollment,
        operation["id"].as_str().expect("an id"),
        &other.program.0.id,
    ]
    .into_iter()
    .enumerate()
    {
        let example = format!("019ac6a5-1c00-7000-8000-00000000000{}", number + 1);
        assert!(document.contains(&example));
        document = document.replace(&example, id);
    }
    document.replace("FEF4900032", &serial)
}

async fn access_token(program: &semilla_tests::http::Program) -> String {
    program.0.access_token().await.expect("a token")
}

#[tokio::test(flavor = "multi_thread")]
async fn schemathesis_tries_the_whole_description_and_finds_nothing() {
    let world = World::begin().await;
    let folder = tempfile::tempdir().expect("a folder");
    let (asks, leaves) = (folder.path().join("asks.json"), folder.path().join("leaves.json"));
    bound_phone(&world, &world.company.administrator, &asks).await;
    bound_phone(&world, &world.company.laura, &leaves).await;
    let program = &world.company.program;
    let phones = std::env::join_paths([&asks, &leaves]).expect("paths");
    let document = folder.path().join("openapi.json");
    std::fs::write(&document, of_this_world(&world).await).expect("written");
    let mut schemathesis = Command::new(clients().join(".venv/bin/schemathesis"));
    schemathesis
        .current_dir(folder.path())
        .arg("--config-file")
        .arg(clients().join("schemathesis.toml"))
        .arg("run")
        .arg(document)
        .args(["--url", world.http().base(), "--no-color"])
        .env("PYTHONPATH", clients())
        .env("SEMILLA_COMPANY", access_token(program).await)
        .env("SEMILLA_BANK", access_token(&world.operator).await)
        .env("SEMILLA_CLIENT", format!("{}:{}", program.0.id, program.0.secret))
        .env("SEMILLA_PHONES", phones);
    let (succeeded, said) = run(schemathesis).await;
    assert!(succeeded, "{said}");
    // Nearly all were let in: what is refused everywhere wants messages that no tool can sign, or
    // wants to be asked by another.
    let outside = said.split_once("Authentication failed: ").map_or("0", |(_, rest)| rest);
    let outside: usize = outside.split(' ').next().unwrap_or_default().parse().expect("a number");
    assert!(outside <= 12, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_is_of_the_form_that_is_beside_it() {
    let world = World::begin().await;
    let document = world.http().send("GET", "/openapi.json", &[], b"").await.expect("an answer");
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), &document.body).expect("written");
    let mut examples = python("examples.py");
    examples.arg(file.path());
    let checked = printed(examples).await;
    assert_eq!(checked["wrong"], json!([]));
    assert!(checked["examples"].as_u64() > Some(900), "{checked}");
}

/// What a program of others prints, as JSON.
async fn printed(command: Command) -> Value {
    let (succeeded, said) = run(command).await;
    assert!(succeeded, "{said}");
    let line = said.lines().find(|line| line.starts_with('{')).unwrap_or_default();
    serde_json::from_str(line).unwrap_or_else(|_| panic!("{said}"))
}

/// A program of others with a key of its own, registered for the company: what it finds.
async fn proves_itself(world: &World, program: impl Fn() -> Command) -> Value {
    let issuer = world.http().base().to_owned();
    let mut new = program();
    new.args([&issuer, "new"]);
    let key = printed(new).await;
    let path = format!("/api/v1/companies/{}/clients", world.company.id);
    let jwks = json!({"keys": [key["public"]]});
    let body = json!({"name": "Nómina", "scopes": ["tokens:read"], "jwks": jwks});
    let created = world.operator.post(&path, body).await.expect(201);
    assert!(created.get("client_secret").is_none());
    let id = created["client_id"].as_str().expect("an id").to_owned();
    let mut uses = program();
    uses.args([&issuer, &id, &key["private"].to_string()]);
    printed(uses).await
}

#[tokio::test(flavor = "multi_thread")]
async fn oauth_clients_written_by_others_prove_themselves_by_a_key_and_bind_their_tokens() {
    let world = World::begin().await;
    // Their clocks are the machine's.
    let now = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs();
    world.pass(now - world.now().seconds()).await;
    let found = proves_itself(&world, || python("oauth.py")).await;
    let again = found["again"].as_str().expect("a text");
    assert!(again.starts_with("invalid_client: ") && again.contains("jti"), "{again}");
    for (what, came) in [
        ("bearer", json!("Bearer")),
        ("listed", json!(200)),
        ("bound", json!("DPoP")),
        ("listed with proof", json!(200)),
        ("stolen", json!(401)),
        ("first", json!("Bearer")),
    ] {
        assert_eq!(found[what], came, "{what}: {found}");
    }
    let found = proves_itself(&world, || {
        let mut node = Command::new("node");
        node.arg(clients().join("oauth.mjs"));
        node
    })
    .await;
    for (what, came) in [
        ("bearer", json!("bearer")),
        ("listed", json!(200)),
        ("bound", json!("dpop")),
        ("listed with proof", json!(200)),
        ("stolen", json!(401)),
        ("stolen with another proof", json!(401)),
        ("stranger", json!("invalid_client")),
        ("late", json!("invalid_client")),
        ("elsewhere", json!("invalid_client")),
    ] {
        assert_eq!(found[what], came, "{what}: {found}");
    }
}
