//! Answers that somebody made up: what the server stored decides, and nothing that comes with the
//! answer does (security 53 to 55, 59, 61, 62).

use std::sync::Arc;

use semilla_core::base64url;
use semilla_core::protocol::approval::{Decision, DenialReason, Display, request_hash};
use semilla_core::protocol::messages::{Enroll, KeyChange, RotateRequest};
use semilla_tests::asking::{
    accepted, answer, approval, refused, request_on, sign_answer, sign_as,
};
use semilla_tests::http::{Expect, Reply};
use semilla_tests::world::World;
use serde_json::{Value, json};

use crate::approvals::Waiting;

/// A JWS taken apart.
pub(crate) fn parts(text: &str) -> (String, Value, String) {
    let parts: Vec<_> = text.split('.').collect();
    let payload = base64url::decode(parts[1]).expect("base64url");
    let payload = serde_json::from_slice(&payload).expect("JSON");
    (parts[0].to_owned(), payload, parts[2].to_owned())
}

/// The pointers of every value within a JSON document.
fn leaves(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| leaves(value, &format!("{at}/{name}"), found));
        }
        Value::Array(items) => {
            let items = items.iter().enumerate();
            items.for_each(|(place, value)| leaves(value, &format!("{at}/{place}"), found));
        }
        _ => found.push(at.to_owned()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn security_53_an_answer_to_a_request_with_any_shown_field_changed_is_refused() {
    let waiting = Waiting::begin().await;
    let (header, sent, signature) = parts(waiting.request.text());
    let mut places = Vec::new();
    leaves(&sent, "", &mut places);
    assert!(places.len() >= 25, "{places:?}");
    for place in places {
        let mut altered = sent.clone();
        let value = altered.pointer_mut(&place).expect("it is there");
        *value = match value {
            Value::Number(number) => json!(number.as_u64().expect("a number") + 1),
            // Ids, nonces and texts alike stay such.
            Value::String(text) => {
                let first = text.chars().next().expect("not empty");
                let other = if first == '1' { "2" } else { "1" };
                json!(format!("{other}{}", &text[first.len_utf8()..]))
            }
            other => panic!("{place}: {other}"),
        };
        let payload = base64url::encode(altered.to_string().as_bytes());
        let text = format!("{header}.{payload}.{signature}");
        // The phone was shown the altered request, believed it, and answers exactly that.
        let display: Display =
            serde_json::from_value(altered["display"].clone()).expect("a display");
        let mut claims = waiting.good();
        claims["request_hash"] = json!(request_hash(&text));
        claims["display_hash"] = json!(display.digest());
        claims["nonce"] = altered["nonce"].clone();
        claims["txn"] = altered["txn"].clone();
        refused(&waiting.send(claims).await, "request-hash-mismatch");
        assert_eq!(waiting.reason().await, "this answers another request", "{place}");
        waiting.still_waits(&place).await;
    }
    waiting.ends_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn security_53_54_an_answer_with_any_claim_of_its_own_changed_is_refused() {
    let waiting = Waiting::begin().await;
    let other = "this answers another request";
    let malformed = "the message is malformed";
    let nonce = "AAECAwQFBgcICQoLDA0ODw";
    let digest = "AAECAwQFBgcICQoLDA0ODwABAgMEBQYHCAkKCwwNDg8";
    let id = "019ac6a5-1c00-7000-8000-000000000001";
    let device = waiting.active.phone.raw().device().expect("bound");
    for (claim, value, reason) in [
        ("v", json!(2), "the message has a version this program does not know"),
        ("v", json!("1"), malformed),
        ("iss", json!(device), "the message is from another sender"),
        ("aud", json!("https://other.example"), "the message is for another receiver"),
        ("aud", json!([waiting.world.server().issuer()]), malformed),
        ("nonce", json!(nonce), other),
        ("txn", json!(id), other),
        ("request_hash", json!(digest), other),
        ("display_hash", json!(digest), other),
        ("decision", json!("denied"), malformed),
        ("decision", json!("maybe"), malformed),
        ("decision", Value::Null, malformed),
        ("reason", json!("user_cancelled"), malformed),
        ("match_number", json!(493_027), malformed),
        ("match_number", json!(format!(" {}", waiting.asked.number)), malformed),
        ("uv", json!({"method": "none"}), malformed),
        ("uv", json!({}), malformed),
        ("ctr", json!(-1), malformed),
        ("operation", json!({"action": "unblock"}), malformed),
        ("exp", json!(4_102_444_800_u64), malformed),
    ] {
        let mut claims = waiting.good();
        claims[claim] = value.clone();
        let problem = if reason == other { "request-hash-mismatch" } else { "signature-invalid" };
        refused(&waiting.send(claims).await, problem);
        assert_eq!(waiting.reason().await, reason, "{claim} = {value}");
        waiting.still_waits(claim).await;
    }
    let claims = waiting.good();
    for claim in claims.as_object().expect("an object").keys() {
        let mut claims = waiting.good();
        claims.as_object_mut().expect("an object").remove(claim);
        refused(&waiting.send(claims).await, "signature-invalid");
        assert_eq!(waiting.reason().await, malformed, "without {claim}");
        waiting.still_waits(claim).await;
    }
    waiting.ends_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn security_54_what_is_signed_names_everything_that_is_decided() {
    let waiting = Waiting::begin().await;
    let company = &waiting.world.company;
    let (header, sent, _) = parts(waiting.request.text());
    let header: Value =
        serde_json::from_slice(&base64url::decode(&header).expect("base64url")).expect("JSON");
    assert_eq!((&header["typ"], &header["alg"]), (&json!("approval-request+jwt"), &json!("ES256")));
    assert_eq!((&sent["v"], &sent["iss"]), (&json!(1), &json!(waiting.world.server().issuer())));
    assert_eq!(sent["aud"], json!(waiting.approver().raw().device().expect("bound")));
    assert_eq!(sent["txn"], waiting.asked.id.as_str());
    let operation = &sent["operation"];
    for (name, value) in [
        ("action", "release"),
        ("cause", "seed_release"),
        ("token", &waiting.active.token),
        ("serial", &waiting.active.serial),
        ("holder", &company.laura),
        ("company", &company.id),
        ("asker", &company.administrator),
    ] {
        assert_eq!(operation[name], value, "{name}");
    }
    assert_eq!(operation["generation"], 1);
    // The version that the token has while it waits, and that it must still have.
    let path = format!("/api/v1/tokens/{}", waiting.active.token);
    let etag = company.program.get(&path).await.header("etag").to_owned();
    assert_eq!(format!("\"{}\"", operation["state_version"]), etag);
    let nonce = base64url::decode(sent["nonce"].as_str().expect("text")).expect("base64url");
    assert_eq!(nonce.len(), 16);
    let begun = sent["iat"].as_u64().expect("a moment");
    assert_eq!(sent["exp"].as_u64().expect("a moment") - begun, 300);
    // The two that the phone adds.
    let claims = waiting.good();
    assert_eq!(claims["decision"], "approved");
    assert_eq!(claims["match_number"], waiting.asked.number.as_str());
}

#[tokio::test(flavor = "multi_thread")]
async fn security_54_a_signed_answer_with_any_bit_flipped_is_refused() {
    let waiting = Waiting::begin().await;
    let text = sign_answer(waiting.approver(), waiting.good());
    let flipped = |place: usize, mask: u8| {
        let mut parts: Vec<Vec<u8>> =
            text.split('.').map(|part| base64url::decode(part).expect("base64url")).collect();
        let lengths: Vec<_> = parts.iter().map(Vec::len).collect();
        let (mut part, mut rest) = (0, place % lengths.iter().sum::<usize>());
        while rest >= lengths[part] {
            rest -= lengths[part];
            part += 1;
        }
        parts[part][rest] ^= mask;
        let encoded: Vec<_> = parts.iter().map(|part| base64url::encode(part)).collect();
        encoded.join(".")
    };
    // A step that has no divisor in common with the length goes through all three parts.
    for turn in 0..48_usize {
        let altered = flipped(turn * 17, 1 << (turn % 8));
        refused(&waiting.send_text(altered).await, "signature-invalid");
        waiting.reason().await;
    }
    waiting.still_waits("after all flips").await;
    accepted(&waiting.send_text(text).await);
    assert_eq!(waiting.stands().await, ("executed".into(), "company".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn security_55_a_denials_signature_is_worth_nothing_for_an_approval_and_no_is_final() {
    let waiting = Waiting::begin().await;
    let no = Decision::Denied { reason: DenialReason::UserCancelled };
    let denial = answer(waiting.approver(), &waiting.request, no);
    let denied = sign_answer(waiting.approver(), denial.clone());
    let (header, _, signature) = parts(&denied);
    // The same message, but for the decision: what somebody in the middle would want it to be.
    let mut approved = denial;
    let fields = approved.as_object_mut().expect("an object");
    fields.remove("reason");
    fields.insert("decision".into(), "approved".into());
    fields.insert("match_number".into(), waiting.asked.number.as_str().into());
    let payload = base64url::encode(approved.to_string().as_bytes());
    let forged = format!("{header}.{payload}.{signature}");
    refused(&waiting.send_text(forged).await, "signature-invalid");
    assert_eq!(waiting.reason().await, "the signature does not fit the message");
    waiting.still_waits("after the forgery").await;

    // The control: the denial itself counts, and nothing after it does.
    assert_eq!(accepted(&waiting.send_text(denied.clone()).await)["state"], "denied");
    let problem = refused(&waiting.send(waiting.good()).await, "approval-already-decided");
    assert_eq!(problem["state"], "denied");
    refused(&waiting.send_text(denied).await, "approval-already-decided");
    assert_eq!(waiting.stands().await, ("denied".into(), "active".into()));
    let code = waiting.active.code();
    assert!(waiting.world.company.program.verify(&waiting.active.token, &code).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn security_59_an_answer_of_another_phone_company_or_server_is_refused() {
    let waiting = Waiting::begin().await;
    let world = &waiting.world;
    let other_company = world.another_company("Industrias del Sur S.A.").await;
    let foreign = world.active_token(&other_company).await;
    // Its own release waits there, so that the phone is well and has something to answer.
    let theirs = other_company.ask_for_release(&foreign.token).await;
    let their_request = request_on(&foreign.administrator).await;
    let path = format!("/device/v1/approvals/{}/response", waiting.asked.id);
    let absent = "/device/v1/approvals/019ac6a5-1c00-7000-8000-00000000dead/response";

    for (whose, phone) in
        [("the holder's", &waiting.active.phone), ("another company's", &foreign.administrator)]
    {
        // Under its own name, and under the name of the phone that was asked.
        for claims in [approval(phone, &waiting.request, &waiting.asked.number), waiting.good()] {
            let text = sign_answer(phone, claims);
            let raw = phone.raw();
            let answer = raw.send_signed(&path, text.clone()).await.expect("an answer");
            let nowhere = raw.send_signed(absent, text).await.expect("an answer");
            refused(&answer, "not-found");
            assert_eq!(*answer.body, *nowhere.body, "{whose} phone learns nothing");
        }
        waiting.still_waits(whose).await;
    }
    // Signed by the key of a phone that was not asked, carried by the one that was.
    for phone in [&waiting.active.phone, &foreign.administrator] {
        refused(&waiting.send_text(sign_answer(phone, waiting.good())).await, "signature-invalid");
        assert_eq!(waiting.reason().await, "the message is signed with another key");
    }
    // An answer of this very phone to another server, which asked for the same.
    let elsewhere = World::begin().await;
    let mut claims = waiting.good();
    claims["aud"] = json!(elsewhere.server().issuer());
    refused(&waiting.send(claims).await, "signature-invalid");
    assert_eq!(waiting.reason().await, "the message is for another receiver");
    waiting.still_waits("after the foreign answers").await;
    // The controls: the foreign phone answers its own, and the phone that was asked this one.
    let answered = foreign.administrator.approve(their_request.id(), &theirs.number).await;
    answered.expect("approved");
    waiting.ends_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn security_59_an_answer_to_another_request_or_action_is_refused() {
    let mut waiting = Waiting::begin().await;
    let world = &waiting.world;
    let company = &world.company;
    // The same administrator is asked for the release of another token, which looks the same.
    let marta = company.person("marta.paz", "Marta Paz").await;
    let (other_token, _, _) = world.assigned(company, &marta).await;
    let other = company.ask_for_release(&other_token).await;
    let inbox = waiting.approver().inbox().await.expect("the inbox");
    let second = inbox.requests.iter().find(|one| one.id().to_string() == other.id);
    let second = Arc::clone(second.expect("both wait"));
    let mut claims = approval(waiting.approver(), &second, &other.number);
    for round in ["as it is", "with this one's name"] {
        refused(&waiting.send(claims.clone()).await, "request-hash-mismatch");
        assert_eq!(waiting.reason().await, "this answers another request", "{round}");
        claims["txn"] = json!(waiting.asked.id);
        claims["match_number"] = json!(waiting.asked.number);
        claims["ctr"] = waiting.good()["ctr"].clone();
    }
    // And the other way: the good answer at the other request's address.
    let text = sign_answer(waiting.approver(), waiting.good());
    let answer = waiting.approver().raw().respond(&second, text).await.expect("an answer");
    refused(&answer, "request-hash-mismatch");
    waiting.look_away().await;

    // Another action on the same token: an approval that was meant for the release.
    let meant_for_release = waiting.good();
    let path = format!("/api/v1/operations/{}", waiting.asked.id);
    company.program.send("DELETE", &path, &[], None).await.expect(200);
    let cause = json!({"cause": "technical_failure"});
    let block = format!("/api/v1/tokens/{}/block", waiting.active.token);
    company.program.post(&block, cause).await.expect(200);
    let unblock = company.ask(&waiting.active.token, "unblock", json!({})).await;
    let inbox = waiting.approver().inbox().await.expect("the inbox");
    let request = inbox.requests.iter().find(|one| one.id().to_string() == unblock.id);
    waiting.request = Arc::clone(request.expect("it waits"));
    waiting.asked = unblock;
    let mut claims = meant_for_release;
    claims["ctr"] = waiting.good()["ctr"].clone();
    claims["match_number"] = json!(waiting.asked.number);
    waiting.look_away().await;
    refused(&waiting.send(claims).await, "request-hash-mismatch");
    assert_eq!(waiting.reason().await, "this answers another request");
    assert_eq!(waiting.stands().await, ("pending".into(), "blocked".into()));
    accepted(&waiting.send(waiting.good()).await);
    assert_eq!(waiting.stands().await, ("executed".into(), "active".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn security_59_61_a_message_of_another_kind_or_purpose_is_no_answer() {
    let waiting = Waiting::begin().await;
    let phone = waiting.approver();
    let path = format!("/device/v1/approvals/{}/response", waiting.asked.id);
    let poll = phone.raw().proof("GET", "/device/v1/approvals", None).expect("a proof");
    let post = phone.raw().proof("POST", &path, None).expect("a proof");
    for (what, text) in [
        ("a rotation", sign_as::<RotateRequest>(phone, waiting.good())),
        ("an enrollment", sign_as::<Enroll>(phone, waiting.good())),
        ("a change of keys", sign_as::<KeyChange>(phone, waiting.good())),
        ("a proof of a poll", poll),
        ("a proof of this request", post),
        ("the request itself", waiting.request.text().to_owned()),
    ] {
        refused(&waiting.send_text(text).await, "signature-invalid");
        assert_eq!(waiting.reason().await, "this is another kind of message", "{what}");
        waiting.still_waits(what).await;
    }
    // And no proof of who asks: an approval where a proof belongs.
    let good = sign_answer(waiting.approver(), waiting.good());
    let token = waiting.approver().raw().device_token().expect("a token");
    let authorization = format!("DPoP {}", token.expose());
    let headers = [("authorization", authorization.as_str()), ("dpop", good.as_str())];
    let reply = waiting.world.http().send("GET", "/device/v1/approvals", &headers, b"").await;
    reply.expect("an answer").refused("unauthenticated");
    accepted(&waiting.send_text(good).await);
    assert_eq!(waiting.stands().await, ("executed".into(), "company".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn security_62_an_answer_overheard_cannot_be_sent_by_anybody_else() {
    let waiting = Waiting::begin().await;
    let http = waiting.world.http();
    let path = format!("/device/v1/approvals/{}/response", waiting.asked.id);
    let reply = http.send("GET", "/device/v1/tokens", &[], b"").await.expect("an answer");
    let nonce = reply.header("dpop-nonce").to_owned();
    let token = waiting.approver().raw().device_token().expect("a token");
    let authorization = format!("DPoP {}", token.expose());
    let body = json!({"message": sign_answer(waiting.approver(), waiting.good())}).to_string();
    let send = async |method: &str, path: &str, proof: &str, body: &str| -> Reply {
        let mut headers = vec![("authorization", authorization.as_str()), ("dpop", proof)];
        if !body.is_empty() {
            headers.push(("content-type", "application/json"));
        }
        http.send(method, path, &headers, body.as_bytes()).await.expect("an answer")
    };
    // A poll, and the same poll again, from somebody who saw it pass.
    let proof = waiting.approver().raw().proof("GET", "/device/v1/approvals", Some(&nonce));
    let poll = proof.expect("a proof");
    let seen = send("GET", "/device/v1/approvals", &poll, "").await.expect(200);
    assert_eq!(seen["approvals"][0]["id"], waiting.asked.id.as_str());
    send("GET", "/device/v1/approvals", &poll, "").await.refused("unauthenticated");
    // The proof of the poll does not carry the answer; the right proof does, once.
    send("POST", &path, &poll, &body).await.refused("unauthenticated");
    let proof = waiting.approver().raw().proof("POST", &path, Some(&nonce)).expect("a proof");
    waiting.still_waits("after the replays").await;
    send("POST", &path, &proof, &body).await.expect(200);
    send("POST", &path, &proof, &body).await.refused("unauthenticated");
    assert_eq!(waiting.stands().await, ("executed".into(), "company".into()));
}
