//! Programs that others could have written: a phone in Python that shares no code with ours takes
//! a token through its life, and a JOSE and an HPKE library from npm read what we sign and seal.
//! `tests/run` installs what they stand on.

use std::path::{Path, PathBuf};
use std::process::Command;

use semilla_tests::http::Expect;
use semilla_tests::world::World;
use serde_json::{Value, json};

fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

/// Runs a foreign program; gives whether it succeeded, and the JSON it printed.
fn run(command: &mut Command) -> (bool, Value) {
    let ran =
        command.output().unwrap_or_else(|error| panic!("{command:?}: {error}: run tests/run"));
    let printed = serde_json::from_slice(&ran.stdout);
    let printed = printed.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&ran.stderr)));
    (ran.status.success(), printed)
}

/// The phone in Python, with its state.
struct ForeignPhone(tempfile::TempDir);

impl ForeignPhone {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    /// Gives the command to the phone.
    async fn ask(&self, arguments: &[&str]) -> (bool, Value) {
        let mut command = Command::new(clients().join(".venv/bin/python"));
        command.arg(clients().join("phone.py")).arg(self.0.path().join("state.json"));
        command.args(arguments);
        tokio::task::spawn_blocking(move || run(&mut command)).await.expect("no panic")
    }

    async fn done(&self, arguments: &[&str]) -> Value {
        let (succeeded, printed) = self.ask(arguments).await;
        assert!(succeeded, "{arguments:?}: {printed}");
        printed
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_written_by_others_binds_enrolls_and_approves() {
    let world = World::begin().await;
    let program = &world.company.program;
    let (administrators, lauras) = (ForeignPhone::new(), ForeignPhone::new());

    let path = format!("/api/v1/users/{}/activation", world.company.administrator);
    let activation = program.post(&path, json!({})).await.expect(201);
    administrators.done(&["bind", activation["uri"].as_str().expect("a uri")]).await;

    let (token, serial, enrollment) = world.assigned(&world.company, &world.company.laura).await;
    let path = format!("/api/v1/enrollments/{enrollment}/activation");
    let activation = program.post(&path, json!({})).await.expect(201);
    let uri = activation["uri"].as_str().expect("a uri");
    lauras.done(&["bind", uri]).await;
    let (succeeded, problem) = ForeignPhone::new().ask(&["bind", uri]).await;
    assert!(!succeeded, "a code binds one phone");
    assert_eq!(problem["type"], "activation-invalid");
    let enrolled = lauras.done(&["enroll"]).await;
    assert_eq!(enrolled["enrolled"], json!([{"serial": serial, "generation": 1}]));

    world.pass(30).await;
    let code = lauras.done(&["code", &serial]).await["code"].as_str().expect("a code").to_owned();
    assert!(program.verify(&token, &code).await, "its codes are accepted");
    assert!(!program.verify(&token, &code).await, "once");

    let release = format!("/api/v1/tokens/{token}/release");
    let cause = json!({"cause": "seed_release"});
    let asked = program.post(&release, cause.clone()).await.expect(202);
    let operation = asked["id"].as_str().expect("an id");
    let inbox = administrators.done(&["inbox"]).await;
    assert_eq!(inbox["requests"][0]["operation"]["serial"], serial.as_str());
    assert!(!inbox.to_string().contains(asked["match_number"].as_str().expect("a number")));
    let denied = administrators.done(&["deny", operation, "user_cancelled"]).await;
    assert_eq!(denied["state"], "denied");

    let asked = program.post(&release, cause).await.expect(202);
    let operation = asked["id"].as_str().expect("an id");
    let number = asked["match_number"].as_str().expect("a number");
    let approved = administrators.done(&["approve", operation, number]).await;
    assert_eq!(approved["state"], "executed");
    let released = program.get(&format!("/api/v1/tokens/{token}")).await.expect(200);
    assert_eq!(released["state"], "company");
    world.pass(30).await;
    let code = lauras.done(&["code", &serial]).await["code"].as_str().expect("a code").to_owned();
    assert!(!program.verify(&token, &code).await, "the seed is dead");
}

#[test]
fn other_libraries_read_every_message_and_open_the_seed() {
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("../core/tests/vectors/messages.json");
    let (succeeded, read) =
        run(Command::new("node").arg(clients().join("verify.mjs")).arg(&vectors));
    assert!(succeeded);
    let text = std::fs::read_to_string(&vectors).expect("the vectors");
    let vectors: Value = serde_json::from_str(&text).expect("JSON");
    let seed: Value =
        serde_json::from_str(vectors["seed"]["plain"].as_str().expect("a text")).expect("JSON");
    assert_eq!(read["seed"], seed);
    let kinds =
        |value: &Value| value.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
    assert_eq!(kinds(&read["messages"]), kinds(&vectors["messages"]));
    let approved = &read["messages"]["approval-response+jwt"];
    assert_eq!(approved["decision"], "approved");
    assert_eq!(approved["request_hash"], vectors["digests"]["request_hash"]);
    assert_eq!(approved["display_hash"], vectors["digests"]["display_hash"]);
}
