//! OpenID clients that others wrote ask people's phones for approvals, and are told that there is
//! an answer (OpenID CIBA Core, RFC 9396).

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use semilla_approver::Phone;
use semilla_core::protocol::approval::DenialReason;
use semilla_server::records::ConsentRequest;
use semilla_server::store::Records;
use semilla_tests::asking::request_on;
use semilla_tests::http::Expect;
use semilla_tests::receiver::Receiver;
use semilla_tests::relying_party::{RelyingParty, refused};
use semilla_tests::world::World;
use serde_json::{Value, json};

fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

/// A relying party written by others, with a key of its own.
struct Foreign {
    issuer: String,
    id: String,
    key: String,
}

impl Foreign {
    async fn register(world: &World, approvals: Value) -> Self {
        let issuer = world.http().base().to_owned();
        let key = python(vec![issuer.clone(), "new".to_owned()]).await;
        let path = format!("/api/v1/companies/{}/clients", world.company.id);
        let body = json!({
            "name": "Portal de pagos", "scopes": ["approvals:ask"], "approvals": approvals,
            "jwks": {"keys": [key["public"]]},
        });
        let created = world.operator.post(&path, body).await.expect(201);
        let id = created["client_id"].as_str().expect("an id").to_owned();
        Self { issuer, id, key: key["private"].to_string() }
    }

    async fn python(&self, command: &str, what: &str) -> Value {
        let own = [&self.issuer, &self.id, &self.key].map(Clone::clone);
        let mut arguments = own.to_vec();
        arguments.extend([command.to_owned(), what.to_owned()]);
        python(arguments).await
    }

    async fn look(&self, asked: &Value) -> Value {
        self.python("look", asked["auth_req_id"].as_str().expect("an id")).await
    }
}

async fn python(arguments: Vec<String>) -> Value {
    tokio::task::spawn_blocking(move || {
        let mut command = Command::new(clients().join(".venv/bin/python"));
        command.arg(clients().join("ciba.py")).args(arguments);
        let ran = command.output().expect("python runs: see tests/run");
        let said = String::from_utf8_lossy(&ran.stdout);
        serde_json::from_str(&said)
            .unwrap_or_else(|_| panic!("{said}{}", String::from_utf8_lossy(&ran.stderr)))
    })
    .await
    .expect("a task")
}

/// A world whose clock shows what the machine's does, as the clients of others need it.
async fn world_of_today() -> (World, Phone) {
    let world = World::begin().await;
    let now = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs();
    world.pass(now - world.now().seconds()).await;
    let phone = world.bound_phone(&world.company, &world.company.laura).await;
    (world, phone)
}

async fn approve(phone: &Phone, asked: &Value) {
    let request = request_on(phone).await;
    let number = asked["match_number"].as_str().expect("a number");
    phone.approve(request.id(), number).await.expect("approved");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_oauth2client_asks_and_knows_every_error_by_its_name() {
    let (world, phone) = world_of_today().await;
    let party = Foreign::register(&world, json!({})).await;
    let laura = json!({"login_hint": "laura.valencia", "binding_message": "Pago 4711"});
    let asked = party.python("ask", &laura.to_string()).await;
    let error = |name: &str, raised: &str| json!({"error": name, "raised": raised});
    let pending = error("authorization_pending", "AuthorizationPending");
    assert_eq!(party.look(&asked).await, pending);
    assert_eq!(party.look(&asked).await, error("slow_down", "SlowDown"));
    let other = Foreign::register(&world, json!({})).await;
    assert_eq!(other.look(&asked).await, error("invalid_grant", "InvalidGrant"));
    approve(&phone, &asked).await;
    let said = party.look(&asked).await;
    assert_eq!(said["sub"], world.company.laura.as_str(), "{said}");
    assert_eq!(said["urn:openid:params:jwt:claim:auth_req_id"], asked["auth_req_id"]);
    assert_eq!(party.look(&asked).await, error("invalid_grant", "InvalidGrant"));

    // Signed, and denied.
    let asked = party.python("sign", &laura.to_string()).await;
    let request = request_on(&phone).await;
    phone.deny(request.id(), DenialReason::UserCancelled).await.expect("denied");
    assert_eq!(party.look(&asked).await, error("access_denied", "AccessDenied"));
    // Nobody answers in time.
    let mut short = laura.clone();
    short["requested_expiry"] = 1.into();
    let asked = party.python("ask", &short.to_string()).await;
    world.pass(2).await;
    assert_eq!(party.look(&asked).await, error("expired_token", "ExpiredToken"));
    // The same assertion twice.
    let replayed = party.python("replay", &laura.to_string()).await;
    assert_eq!(replayed, error("invalid_client", "InvalidClient"));
    // While that request waits.
    let again = party.python("ask", &laura.to_string()).await;
    assert_eq!(again, error("access_denied", "AccessDenied"));
    let nobody = json!({"login_hint": "nobody"});
    let nobody = party.python("ask", &nobody.to_string()).await;
    assert_eq!(nobody, error("unknown_user_id", "BackChannelAuthenticationError"));
}

#[tokio::test(flavor = "multi_thread")]
async fn openid_client_looks_until_there_is_an_answer_and_verifies_it() {
    let (world, phone) = world_of_today().await;
    let plain = json!({"details_types": ["payment_initiation"]});
    let fapi = json!({"fapi": true, "details_types": ["payment_initiation"]});
    let details = json!([{"type": "payment_initiation", "amount": "120.50"}]);
    for (settings, signed, ends) in
        [(plain.clone(), false, "approved"), (fapi, true, "approved"), (plain, true, "denied")]
    {
        let party = Foreign::register(&world, settings).await;
        let asks = json!({
            "signed": signed, "dpop": signed, "interval": 1, "scope": "openid",
            "login_hint": "laura.valencia", "binding_message": "Pago 4711",
            "authorization_details": if signed { details.clone() } else { details.to_string().into() },
        });
        let mut node = Command::new("node");
        node.arg(clients().join("ciba.mjs")).args([&party.issuer, &party.id, &party.key]);
        node.arg(asks.to_string()).stdout(Stdio::piped());
        let (said_in, mut said) = tokio::sync::mpsc::unbounded_channel::<Value>();
        let mut node = node.spawn().expect("node runs");
        let lines = BufReader::new(node.stdout.take().expect("its output")).lines();
        let reading = tokio::task::spawn_blocking(move || {
            for line in lines.map_while(Result::ok) {
                let _ = said_in.send(serde_json::from_str(&line).expect("JSON"));
            }
            node.wait().expect("its status")
        });
        let asked = said.recv().await.expect("an answer");
        assert!(asked["auth_req_id"].is_string(), "{asked}");
        // It looked once, and found that nobody has answered yet.
        let looked = said.recv().await.expect("a look");
        assert_eq!(looked, json!({"looked": "authorization_pending"}));
        if ends == "approved" {
            approve(&phone, &asked).await;
        } else {
            let request = request_on(&phone).await;
            phone.deny(request.id(), DenialReason::UnknownRequest).await.expect("denied");
        }
        let end = said.recv().await.expect("an end");
        reading.await.expect("a task");
        if ends == "denied" {
            assert_eq!(end, json!({"error": "access_denied"}));
            continue;
        }
        assert_eq!(end["sub"], world.company.laura.as_str(), "{end}");
        assert_eq!(end["details"], details);
        assert_eq!(end["token_type"], if signed { "dpop" } else { "bearer" });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_in_the_mode_ping_is_told_and_told_again_until_it_listens() {
    let world = World::begin().await;
    let phone = world.bound_phone(&world.company, &world.company.laura).await;
    let mut receiver = Receiver::begin().await;
    let settings = json!({"mode": "ping", "notification_endpoint": receiver.url});
    let party = RelyingParty::with_secret(&world, &world.company, settings).await;
    let token = "8d67dc78-7faa-4d41-aabd-67707b374255";
    let laura = ("login_hint", "laura.valencia");
    refused(party.ask(&world, &[laura]).await, 400, "invalid_request");
    let short = [laura, ("client_notification_token", "short")];
    refused(party.ask(&world, &short).await, 400, "invalid_request");
    let form = [laura, ("client_notification_token", token)];
    // Yes, no, and no answer at all.
    for end in ["yes", "no", "none"] {
        let asked = party.ask(&world, &form).await.expect(200);
        assert!(receiver.is_empty(), "told before there is an answer");
        receiver.will_answer(&[503]);
        match end {
            "yes" => approve(&phone, &asked).await,
            "no" => {
                let request = request_on(&phone).await;
                phone.deny(request.id(), DenialReason::UserCancelled).await.expect("denied");
            }
            _ => world.pass(301).await,
        }
        for failures in [1, 0] {
            let told = receiver.next().await;
            assert_eq!(told.header("authorization"), format!("Bearer {token}"));
            assert_eq!(told.event(), json!({"auth_req_id": asked["auth_req_id"]}));
            // The first time it did not listen: it is told again some seconds later.
            until_recorded(&world, &asked, failures).await;
            world.pass(11).await;
        }
        let looked = party.look(&world, &asked).await;
        match end {
            "yes" => drop(looked.expect(200)),
            "no" => drop(refused(looked, 400, "access_denied")),
            _ => drop(refused(looked, 400, "expired_token")),
        }
        assert!(receiver.is_empty(), "told twice");
    }
}

/// Waits until it is on record that telling failed so often, or, with 0, that nothing is left to
/// be told.
async fn until_recorded(world: &World, asked: &Value, failures: u32) {
    let begun = std::time::Instant::now();
    let id = &asked["auth_req_id"].as_str().expect("an id")[..36];
    let company = world.company.id.parse().expect("an id");
    loop {
        let store = &world.server().app.store;
        let kept = store.get::<ConsentRequest>(company, id).await.expect("the store");
        let kept = kept.expect("kept").record;
        let is_there = if failures == 0 {
            kept.ping.is_none() && kept.ping_due.is_none()
        } else {
            kept.ping_failures == failures
        };
        if is_there {
            return;
        }
        assert!(begun.elapsed().as_secs() < 20, "{kept:?}");
        tokio::task::yield_now().await;
    }
}
