//! A relying party asks a person's phone for an approval of something of its own: every answer
//! there is, each error by its name, and everything a program could do that is not its own
//! (OpenID CIBA Core, FAPI CIBA; security 53, 64 to 67, 129).

use semilla_approver::Phone;
use semilla_core::protocol::approval::DenialReason;
use semilla_core::protocol::jwk::JwkSet;
use semilla_core::protocol::jws;
use semilla_tests::asking::{accepted, answer, refused as told, request_on, sign_answer};
use semilla_tests::http::Expect;
use semilla_tests::relying_party::{RelyingParty, claims, refused};
use semilla_tests::world::World;
use serde_json::{Value, json};

/// Laura with a phone, and a relying party with a secret.
async fn begin() -> (World, Phone, RelyingParty) {
    let world = World::begin().await;
    let phone = world.bound_phone(&world.company, &world.company.laura).await;
    let party = RelyingParty::with_secret(&world, &world.company, details()).await;
    (world, phone, party)
}

fn details() -> Value {
    json!({"details_types": ["payment_initiation"]})
}

async fn approve(phone: &Phone, asked: &Value) {
    let request = request_on(phone).await;
    let number = asked["match_number"].as_str().expect("a number");
    phone.approve(request.id(), number).await.expect("approved");
}

/// The reasons of the refusals of consents that are on record.
async fn reasons(world: &World) -> Vec<String> {
    let trail = world.trail(&world.company).await;
    let records = trail.iter().map(|item| &item["record"]);
    let refused = records.filter(|record| record["kind"] == "consent.refused");
    refused
        .map(|record| record["detail"]["reason"].as_str().expect("a reason").to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn security_129_what_a_program_asks_is_shown_signed_and_given_back_whole() {
    let (world, phone, party) = begin().await;
    let details = r#"[{"type": "payment_initiation", "creditorName": "Ferretería Ñandú",
        "instructedAmount": {"currency": "EUR", "amount": "123.50"}}]"#;
    let form = [
        ("login_hint", world.company.laura.as_str()),
        ("binding_message", "Pago 4711"),
        ("authorization_details", details),
        ("requested_expiry", "90"),
        ("acr_values", "urn:semilla:acr:number"),
    ];
    let asked = party.ask(&world, &form).await.expect(200);
    assert_eq!((asked["expires_in"].as_u64(), asked["interval"].as_u64()), (Some(90), Some(5)));
    refused(party.look(&world, &asked).await, 400, "authorization_pending");

    let request = request_on(&phone).await;
    let lines = request.display().lines.join("\n");
    for line in [
        "Servicio: Portal de pagos",
        "Mensaje: Pago 4711",
        "Detalle: type: payment_initiation",
        "Detalle: creditorName: Ferretería Ñandú",
        "Detalle: instructedAmount.amount: 123.50",
        "Detalle: instructedAmount.currency: EUR",
    ] {
        assert!(lines.contains(line), "{line} is not in\n{lines}");
    }
    // What the phone shows of its own says the same.
    let facts = request.facts(semilla_core::language::Language::Spanish);
    assert!(facts.iter().any(|(_, fact)| fact == "instructedAmount.amount: 123.50"), "{facts:?}");
    approve(&phone, &asked).await;

    let granted = party.look(&world, &asked).await.expect(200);
    assert_eq!(granted["token_type"], "Bearer");
    let wanted: Value = serde_json::from_str(details).expect("JSON");
    assert_eq!(granted["authorization_details"], wanted);
    let id_token = granted["id_token"].as_str().expect("an ID token");
    let said = claims(id_token);
    assert_eq!(said["sub"], world.company.laura.as_str());
    assert_eq!(said["aud"], party.id.as_str());
    assert_eq!(said["acr"], "urn:semilla:acr:number");
    assert_eq!(said["urn:openid:params:jwt:claim:auth_req_id"], asked["auth_req_id"]);
    assert_eq!(said["authorization_details"], wanted);
    // By its own key, which is published, and which phones do not trust.
    let keys = world.http().send("GET", "/jwks", &[], b"").await.expect("an answer").expect(200);
    let set = JwkSet::parse(&keys.to_string()).expect("keys");
    let kid = jws::peek(id_token).expect("a header").kid.expect("a kid");
    jws::verify::<Value>(id_token, "JWT", set.find(kid).expect("published")).expect("signed");
    assert_ne!(world.server().app.keys.signing.public().key_id(), kid);

    // Once.
    refused(party.look(&world, &asked).await, 400, "invalid_grant");
    assert_eq!(reasons(&world).await, ["used"]);
    // The access token opens nothing of the API.
    let bearer = format!("Bearer {}", granted["access_token"].as_str().expect("a token"));
    let headers = [("authorization", bearer.as_str())];
    let reply = world.http().send("GET", "/api/v1/tokens", &headers, b"").await.expect("an answer");
    assert_eq!(reply.expect(403)["type"], "forbidden");
    // And the same person can be named by the ID token.
    let hinted = party.ask(&world, &[("id_token_hint", id_token)]).await.expect(200);
    approve(&phone, &hinted).await;
    party.look(&world, &hinted).await.expect(200);
    let forged = party.ask(&world, &[("id_token_hint", "e30.e30.e30")]).await;
    refused(forged, 400, "unknown_user_id");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_end_of_a_request_has_its_own_error() {
    let (world, phone, party) = begin().await;
    // No.
    let asked = party.ask_laura(&world).await;
    let request = request_on(&phone).await;
    phone.deny(request.id(), DenialReason::UserCancelled).await.expect("denied");
    refused(party.look(&world, &asked).await, 400, "access_denied");
    // Nobody answers.
    let asked = party.ask_laura(&world).await;
    world.pass(301).await;
    refused(party.look(&world, &asked).await, 400, "expired_token");
    // A wrong number ends it (security 66).
    world.pass(600).await;
    let asked = party.ask_laura(&world).await;
    let request = request_on(&phone).await;
    let number = asked["match_number"].as_str().expect("a number");
    let wrong = if number == "000000" { "000001" } else { "000000" };
    phone.approve(request.id(), wrong).await.expect_err("a wrong number");
    refused(party.look(&world, &asked).await, 400, "access_denied");
    // The person leaves.
    let asked = party.ask_laura(&world).await;
    world.company.set_active(&world.company.laura, false).await;
    refused(party.look(&world, &asked).await, 400, "transaction_failed");
    refused(party.ask(&world, &[("login_hint", "laura.valencia")]).await, 400, "unknown_user_id");
    world.company.set_active(&world.company.laura, true).await;
    // A yes that is fetched too late.
    world.pass(700).await;
    let asked = party.ask_laura(&world).await;
    approve(&phone, &asked).await;
    world.pass(361).await;
    refused(party.look(&world, &asked).await, 400, "expired_token");
    // A yes of somebody who left before it was fetched.
    let asked = party.ask_laura(&world).await;
    approve(&phone, &asked).await;
    world.company.set_active(&world.company.laura, false).await;
    refused(party.look(&world, &asked).await, 400, "access_denied");
    world.company.set_active(&world.company.laura, true).await;
    party.look(&world, &asked).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_looks_too_soon_is_slowed_down_by_five_seconds_each_time() {
    let (world, phone, party) = begin().await;
    let asked = party.ask_laura(&world).await;
    refused(party.look(&world, &asked).await, 400, "authorization_pending");
    world.pass(4).await;
    refused(party.look(&world, &asked).await, 400, "slow_down");
    world.pass(9).await;
    refused(party.look(&world, &asked).await, 400, "slow_down");
    world.pass(15).await;
    refused(party.look(&world, &asked).await, 400, "authorization_pending");
    // An answer is given whenever it is there.
    approve(&phone, &asked).await;
    party.look(&world, &asked).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_says_something_wrong_is_refused_by_name() {
    let (world, phone, party) = begin().await;
    let laura = ("login_hint", "laura.valencia");
    let detail = |text| ("authorization_details", text);
    let long = "x".repeat(65);
    let cases: Vec<(&str, Vec<(&str, &str)>)> = vec![
        ("invalid_request", vec![]),
        ("invalid_request", vec![laura, ("id_token_hint", "x")]),
        ("invalid_request", vec![("login_hint_token", "x")]),
        ("invalid_request", vec![laura, ("request_uri", "https://example.com")]),
        ("invalid_request", vec![laura, ("requested_expiry", "0")]),
        ("invalid_request", vec![laura, ("requested_expiry", "-1")]),
        ("invalid_request", vec![laura, ("requested_expiry", "1.5")]),
        ("invalid_request", vec![laura, ("request", "e30.e30.e30")]),
        ("unknown_user_id", vec![("login_hint", "nobody")]),
        ("unknown_user_id", vec![("login_hint", "andres.gomez")]),
        ("unknown_user_id", vec![("id_token_hint", "e30.e30.e30")]),
        ("invalid_binding_message", vec![laura, ("binding_message", &long)]),
        ("invalid_binding_message", vec![laura, ("binding_message", "a\u{202e}b")]),
        ("invalid_binding_message", vec![laura, ("binding_message", "a\nb")]),
        ("invalid_authorization_details", vec![laura, detail("[]")]),
        ("invalid_authorization_details", vec![laura, detail(r#"[{"type":"other"}]"#)]),
        (
            "invalid_authorization_details",
            vec![laura, detail(r#"[{"type":"payment_initiation","amount":0.1}]"#)],
        ),
        (
            "invalid_authorization_details",
            vec![laura, detail(r#"[{"type":"payment_initiation","a":"1","a":"2"}]"#)],
        ),
    ];
    for (error, form) in cases {
        refused(party.ask(&world, &form).await, 400, error);
    }
    let now = world.now().seconds();
    for scope in ["profile", "openid profile", "openid tokens:read"] {
        let form = [laura, ("scope", scope)];
        refused(party.post(now, "/bc-authorize", &form).await, 400, "invalid_scope");
    }
    refused(party.post(now, "/bc-authorize", &[laura]).await, 400, "invalid_request");
    // A program without the right, and one that does not prove itself.
    let program = RelyingParty::without_right(&world, &world.company).await;
    let stranger = RelyingParty::with_secret(&world, &world.company, json!({})).await;
    for (other, status, error) in [
        (program, 400, "unauthorized_client"),
        (stranger.with_wrong_secret(), 401, "invalid_client"),
    ] {
        refused(other.ask(&world, &[laura]).await, status, error);
        let asked = json!({"auth_req_id": "x"});
        refused(other.look(&world, &asked).await, status, error);
    }
    let form = [("grant_type", "urn:openid:params:grant-type:ciba")];
    refused(party.post(now, "/token", &form).await, 400, "invalid_request");
    // Nothing of it reached the phone; the control does.
    assert!(phone.inbox().await.expect("the inbox").requests.is_empty());
    party.ask(&world, &[laura, ("requested_expiry", "100000")]).await.expect(200);
    request_on(&phone).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn security_65_and_67_a_person_is_asked_once_at_a_time_and_left_alone_who_does_not_agree() {
    let (world, phone, party) = begin().await;
    let laura = [("login_hint", "laura.valencia")];
    party.ask_laura(&world).await;
    refused(party.ask(&world, &laura).await, 403, "access_denied");
    // Another program may ask meanwhile: each has its own turn.
    let other = RelyingParty::with_secret(&world, &world.company, json!({})).await;
    other.ask_laura(&world).await;
    for _ in 0..2 {
        world.pass(301).await;
        party.ask_laura(&world).await;
    }
    // The third within ten minutes ends unanswered: two are still counted, one is not.
    world.pass(200).await;
    refused(party.ask(&world, &laura).await, 403, "access_denied");
    for request in phone.inbox().await.expect("the inbox").requests {
        phone.deny(request.id(), DenialReason::UserCancelled).await.expect("denied");
    }
    party.ask_laura(&world).await;
    let request = request_on(&phone).await;
    phone.deny(request.id(), DenialReason::UserCancelled).await.expect("denied");
    refused(party.ask(&world, &laura).await, 403, "access_denied");
    world.pass(601).await;
    // Not me.
    party.ask_laura(&world).await;
    let request = request_on(&phone).await;
    phone.deny(request.id(), DenialReason::SuspectedFraud).await.expect("denied");
    world.pass(3000).await;
    refused(party.ask(&world, &laura).await, 403, "access_denied");
    world.pass(601).await;
    let asked = party.ask_laura(&world).await;
    approve(&phone, &asked).await;
    assert_eq!(reasons(&world).await, ["pending", "pending", "limit", "fraud"]);
    let kinds = world.kinds_since(&world.company, 0).await;
    assert!(kinds.iter().any(|kind| kind == "fraud.reported"));
    // Whoever agrees can be asked again and again.
    for _ in 0..12 {
        let asked = party.ask_laura(&world).await;
        approve(&phone, &asked).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn security_65_of_requests_that_race_for_one_person_one_is_asked() {
    let (world, phone, party) = begin().await;
    let form = [("login_hint", "laura.valencia")];
    let racing = (0..8).map(|_| party.ask(&world, &form));
    let replies = futures_util::future::join_all(racing).await;
    let statuses: Vec<u16> = replies.iter().map(|reply| reply.status.as_u16()).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
    request_on(&phone).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_looks_that_race_for_one_answer_one_is_given_the_tokens() {
    let (world, phone, party) = begin().await;
    let asked = party.ask_laura(&world).await;
    approve(&phone, &asked).await;
    let racing = (0..8).map(|_| party.look(&world, &asked));
    let replies = futures_util::future::join_all(racing).await;
    let given = replies.iter().filter(|reply| reply.status.as_u16() == 200).count();
    assert_eq!(given, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn security_76_the_request_of_another_program_is_nobodys() {
    let (world, phone, party) = begin().await;
    let asked = party.ask_laura(&world).await;
    approve(&phone, &asked).await;
    let neighbour = RelyingParty::with_secret(&world, &world.company, json!({})).await;
    refused(neighbour.look(&world, &asked).await, 400, "invalid_grant");
    let company = world.another_company("Textiles del Sur").await;
    let foreigner = RelyingParty::with_secret(&world, &company, json!({})).await;
    let theirs = refused(foreigner.look(&world, &asked).await, 400, "invalid_grant");
    let nothing = json!({"auth_req_id": "019ac6a5-1c00-7000-8000-00000000dead.x"});
    let absent = refused(foreigner.look(&world, &nothing).await, 400, "invalid_grant");
    assert_eq!(theirs, absent);
    // Nor is a person of another company anybody.
    let form = [("login_hint", world.company.laura.as_str())];
    refused(foreigner.ask(&world, &form).await, 400, "unknown_user_id");
    // The end of the id alone opens nothing.
    let id = asked["auth_req_id"].as_str().expect("an id");
    let guessed = json!({"auth_req_id": format!("{}.{}", &id[..36], "A".repeat(43))});
    refused(party.look(&world, &guessed).await, 400, "invalid_grant");
    assert_eq!(reasons(&world).await, ["foreign", "unknown"]);
    // A program of the company sees the operation, and never its number.
    let seen = world.company.operation(&id[..36]).await;
    assert_eq!((&seen["action"], &seen["match_number"]), (&json!("consent"), &Value::Null));
    party.look(&world, &asked).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn security_66_only_a_program_registered_so_goes_without_a_number() {
    let (world, phone, party) = begin().await;
    let settings = json!({"match_number": false});
    let numberless = RelyingParty::with_secret(&world, &world.company, settings).await;
    // Then something has to tell the request from others.
    let form = [("login_hint", "laura.valencia")];
    refused(numberless.ask(&world, &form).await, 400, "invalid_request");
    let asked = numberless.ask_laura(&world).await;
    assert_eq!(asked["match_number"], Value::Null);
    let request = request_on(&phone).await;
    assert!(!request.wants_number());
    phone.approve(request.id(), "").await.expect("approved");
    let granted = numberless.look(&world, &asked).await.expect(200);
    let said = claims(granted["id_token"].as_str().expect("an ID token"));
    assert_eq!(said["acr"], "urn:semilla:acr:phone");
    // A phone that leaves the number out of any other approval is not heard.
    let asked = party.ask_laura(&world).await;
    let request = request_on(&phone).await;
    phone.approve(request.id(), "").await.expect_err("no number");
    let agreed = semilla_core::protocol::approval::Decision::Agreed;
    let forged = sign_answer(&phone, answer(&phone, &request, agreed));
    let reply = phone.raw().respond(&request, forged).await.expect("an answer");
    told(&reply, "signature-invalid");
    refused(party.look(&world, &asked).await, 400, "authorization_pending");
    let number = asked["match_number"].as_str().expect("a number");
    let good = semilla_tests::asking::approval(&phone, &request, number);
    accepted(&phone.raw().respond(&request, sign_answer(&phone, good)).await.expect("an answer"));
    party.look(&world, &asked).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_program_may_not_be_set_to_is_refused_at_its_place() {
    let world = World::begin().await;
    let path = format!("/api/v1/companies/{}/clients", world.company.id);
    for (approvals, place) in [
        (json!({"mode": "ping"}), "#/approvals/notification_endpoint"),
        (
            json!({"mode": "ping", "notification_endpoint": "http://10.0.0.1/"}),
            "#/approvals/notification_endpoint",
        ),
        (
            json!({"notification_endpoint": "https://example.com/"}),
            "#/approvals/notification_endpoint",
        ),
        (json!({"details_types": [""]}), "#/approvals/details_types"),
        (json!({"fapi": true}), "#/approvals"),
        (json!({"signed_requests": true}), "#/approvals"),
        (json!({"mode": "push"}), "#/approvals/mode"),
    ] {
        let body = json!({"name": "X", "scopes": ["approvals:ask"], "approvals": approvals});
        let problem = world.operator.post(&path, body).await.refused("validation");
        assert_eq!(problem["errors"][0]["pointer"], place, "{approvals}");
    }
    let body = json!({"name": "X", "scopes": ["tokens:read"], "approvals": {}});
    world.operator.post(&path, body).await.refused("validation");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_under_fapi_signs_each_request_once_and_binds_its_tokens() {
    let world = World::begin().await;
    let phone = world.bound_phone(&world.company, &world.company.laura).await;
    let settings = json!({"fapi": true, "details_types": ["payment_initiation"]});
    let party = RelyingParty::with_key(&world, &world.company, settings).await;
    let now = world.now().seconds();
    let asks = json!({
        "scope": "openid", "login_hint": "laura.valencia", "binding_message": "Pago 4711",
        "requested_expiry": 120, "authorization_details": [{"type": "payment_initiation"}],
    });
    let form = [("login_hint", "laura.valencia")];
    refused(party.ask(&world, &form).await, 400, "invalid_request");
    // Everything is in the signed request, and nothing beside it.
    let good = party.signed(now, asks.clone());
    let beside = [("request", good.as_str()), ("scope", "openid")];
    refused(party.post(now, "/bc-authorize", &beside).await, 400, "invalid_request");
    for (name, value) in [
        ("aud", json!("https://other.example")),
        ("iss", json!("somebody")),
        ("exp", json!(now)),
        ("exp", json!(now + 3601)),
        ("nbf", json!(now + 60)),
        ("jti", json!("")),
        ("jti", Value::Null),
        ("sub", json!(party.id)),
    ] {
        let mut claims = party.envelope(now);
        for (name, value) in asks.as_object().expect("an object") {
            claims[name] = value.clone();
        }
        claims[name] = value;
        let wrong = party.sign(&claims);
        let reply = party.post(now, "/bc-authorize", &[("request", &wrong)]).await;
        refused(reply, 400, "invalid_request");
    }
    let other = RelyingParty::with_key(&world, &world.company, json!({})).await;
    let mut posing = party.envelope(now);
    posing["scope"] = "openid".into();
    let foreign = other.sign(&posing);
    let reply = party.post(now, "/bc-authorize", &[("request", &foreign)]).await;
    refused(reply, 400, "invalid_request");
    // The assertion is no request, and counts once.
    let assertion = party.assertion(now);
    let asked = party.post_with("/bc-authorize", &[("request", &good)], &assertion).await;
    let asked = asked.expect(200);
    let again = party.signed(now, asks.clone());
    let reply = party.post_with("/bc-authorize", &[("request", &again)], &assertion).await;
    refused(reply, 401, "invalid_client");
    let reply = party.post(now, "/bc-authorize", &[("request", &good)]).await;
    let said = refused(reply, 400, "invalid_request");
    assert!(said["error_description"].as_str().expect("a text").contains("used before"), "{said}");
    let trail = world.trail(&world.company).await;
    let refusals = trail.iter().map(|item| &item["record"]);
    let refusals = refusals.filter(|record| record["kind"] == "client.refused");
    let refusals: Vec<_> = refusals.map(|record| record["detail"]["reason"].clone()).collect();
    assert_eq!(refusals, ["replayed", "request_replayed"]);

    assert_eq!(asked["expires_in"], 120);
    approve(&phone, &asked).await;
    // Without a key to bind to there is no token, and nothing is used up.
    refused(party.look(&world, &asked).await, 400, "invalid_dpop_proof");
    let prover = semilla_tests::asking::new_key();
    let granted = party.look_with_proof(&world, &asked, &prover).await.expect(200);
    assert_eq!(granted["token_type"], "DPoP");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_of_a_consent_is_verified_as_any_other() {
    let (world, phone, party) = begin().await;
    let asked = party.ask_laura(&world).await;
    approve(&phone, &asked).await;
    let id = &asked["auth_req_id"].as_str().expect("an id")[..36];
    let path = format!("/api/v1/operations/{id}/receipt");
    let receipt = world.company.program.get(&path).await.expect(200);
    let receipt: semilla_core::receipt::Receipt =
        serde_json::from_value(receipt).expect("a receipt");
    let proven = receipt.verify(&world.server().app.keys.published).expect("proven");
    assert!(matches!(
        proven.request.operation.action,
        semilla_core::protocol::approval::Action::Consent(_)
    ));
}
