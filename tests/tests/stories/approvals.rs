//! A phone's answer, and what it is an answer to: what the server stored decides, nothing that
//! comes with the answer does, and every end is an end (security 53 to 66, 68).

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use semilla_approver::Phone;
use semilla_approver::http::Response;
use semilla_approver::review::Request;
use semilla_core::base64url;
use semilla_core::protocol::approval::{Decision, DenialReason, Display, request_hash};
use semilla_core::protocol::messages::{Enroll, KeyChange, RotateRequest};
use semilla_tests::asking::{
    Asked, accepted, answer, approval, refused, request_on, sign_answer, sign_as,
};
use semilla_tests::bodies::policy;
use semilla_tests::http::{Expect, Reply};
use semilla_tests::process::sqlite;
use semilla_tests::socket;
use semilla_tests::world::{Active, World};
use serde_json::{Value, json};

use crate::audit::assert_whole;

/// A release that waits for the administrator's phone.
struct Waiting {
    world: World,
    active: Active,
    asked: Asked,
    request: Arc<Request>,
    /// How long the trail was when it began to wait.
    recorded: Cell<usize>,
}

impl Waiting {
    async fn begin() -> Self {
        let (world, active) = World::with_active_token().await;
        Self::asked_in(world, active).await
    }

    async fn asked_in(world: World, active: Active) -> Self {
        let asked = world.company.ask_for_release(&active.token).await;
        let request = request_on(&active.administrator).await;
        let recorded = Cell::new(world.trail(&world.company).await.len());
        Self { world, active, asked, request, recorded }
    }

    fn phone(&self) -> &Phone {
        &self.active.administrator
    }

    /// The claims of the good answer.
    fn good(&self) -> Value {
        approval(self.phone(), &self.request, &self.asked.number)
    }

    /// Sends claims, signed by the phone that was asked.
    async fn send(&self, claims: Value) -> Response {
        self.send_text(sign_answer(self.phone(), claims)).await
    }

    async fn send_text(&self, text: String) -> Response {
        self.phone().raw().respond(&self.request, text).await.expect("an answer")
    }

    /// The reason of the one answer that was refused since the last look.
    async fn reason(&self) -> String {
        let refusals = self.records("operation.answer_refused").await;
        assert_eq!(refusals.len(), 1, "{refusals:?}");
        self.look_away().await;
        assert_eq!(refusals[0]["subject"]["operation"], self.asked.id.as_str());
        refusals[0]["detail"]["reason"].as_str().expect("a reason").to_owned()
    }

    /// The records of a kind since the last look.
    async fn records(&self, kind: &str) -> Vec<Value> {
        self.world.records_since(&self.world.company, self.recorded.get(), kind).await
    }

    /// The kinds of all records since the last look.
    async fn kinds(&self) -> Vec<String> {
        self.world.kinds_since(&self.world.company, self.recorded.get()).await
    }

    /// What was recorded so far is of no interest.
    async fn look_away(&self) {
        self.recorded.set(self.world.trail(&self.world.company).await.len());
    }

    /// How operation and token stand.
    async fn stands(&self) -> (String, String) {
        let operation = self.world.company.operation(&self.asked.id).await;
        let state = operation["state"].as_str().expect("a state").to_owned();
        (state, self.world.company.state_of(&self.active.token).await)
    }

    async fn still_waits(&self, why: &str) {
        assert_eq!(self.stands().await, ("pending".into(), "active".into()), "{why}");
    }

    /// The control at the end of a story of refusals: the good answer is taken.
    async fn ends_well(&self) {
        accepted(&self.send(self.good()).await);
        assert_eq!(self.stands().await, ("executed".into(), "company".into()));
        assert_whole(&self.world).await;
    }
}

/// A JWS taken apart.
fn parts(text: &str) -> (String, Value, String) {
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
    assert_eq!(sent["aud"], json!(waiting.phone().raw().device().expect("bound")));
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
    let text = sign_answer(waiting.phone(), waiting.good());
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
    let denial = answer(waiting.phone(), &waiting.request, no);
    let denied = sign_answer(waiting.phone(), denial.clone());
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
async fn security_56_whatever_happens_to_the_token_meanwhile_makes_the_approval_worthless() {
    for (what, then) in [
        ("the token is blocked", "blocked"),
        ("its holder is deactivated", "blocked"),
        ("its phone is revoked", "blocked"),
        ("its holder leaves the phone", "blocked"),
        ("its asker is deactivated", "active"),
        ("it is taken back", "active"),
        ("a renewal that was open is proven", "active"),
    ] {
        let (world, active) = World::with_active_token().await;
        let rotating = what.starts_with("a renewal");
        if rotating {
            let asked = world.company.ask(&active.token, "rotate", json!({"cause": "scheduled"}));
            let asked = asked.await;
            let request = request_on(&active.phone).await;
            active.phone.approve(request.id(), &asked.number).await.expect("approved");
        }
        let waiting = Waiting::asked_in(world, active).await;
        let (world, company) = (&waiting.world, &waiting.world.company);
        let token = format!("/api/v1/tokens/{}", waiting.active.token);
        match what {
            "the token is blocked" => {
                let cause = json!({"cause": "technical_failure"});
                company.program.post(&format!("{token}/block"), cause).await.expect(200);
            }
            "its holder is deactivated" => company.set_active(&company.laura, false).await,
            "its phone is revoked" => world.revoke(company, &waiting.active.phone).await,
            "its holder leaves the phone" => waiting.active.phone.leave().await.expect("gone"),
            "its asker is deactivated" => {
                world.another_administrator(company, "rosa.mejia").await;
                company.set_active(&company.administrator, false).await;
                company.set_active(&company.administrator, true).await;
            }
            "it is taken back" => {
                let path = format!("/api/v1/operations/{}", waiting.asked.id);
                company.program.send("DELETE", &path, &[], None).await.expect(200);
            }
            _ => {
                waiting.active.phone.enroll_next().await.expect("enrolled");
            }
        }
        let problem = refused(&waiting.send(waiting.good()).await, "approval-already-decided");
        assert_eq!(problem["state"], "cancelled", "{what}");
        assert_eq!(waiting.stands().await, ("cancelled".into(), then.into()), "{what}");
        let kinds = waiting.kinds().await;
        let count = |kind: &str| kinds.iter().filter(|other| *other == kind).count();
        assert_eq!(count("operation.cancelled"), 1, "{what}: {kinds:?}");
        assert_eq!(count("token.released"), 0, "{what}: {kinds:?}");
        // The control: asked of the token as it is now, it is done.
        let again = company.ask_for_release(&waiting.active.token).await;
        let request = request_on(waiting.phone()).await;
        waiting.phone().approve(request.id(), &again.number).await.expect("approved");
        assert_eq!(company.state_of(&waiting.active.token).await, "company", "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn security_56_a_company_or_a_phone_that_ends_takes_its_operations_along() {
    let mut waiting = Waiting::begin().await;
    let world = &waiting.world;
    let companies = format!("/api/v1/companies/{}", world.company.id);
    for active in [false, true] {
        let body = Some(json!({"active": active}));
        world.operator.send("PATCH", &companies, &[], body).await.expect(200);
    }
    refused(&waiting.send(waiting.good()).await, "approval-already-decided");
    assert_eq!(waiting.stands().await, ("cancelled".into(), "active".into()));

    waiting.asked = world.company.ask_for_release(&waiting.active.token).await;
    waiting.request = request_on(waiting.phone()).await;
    let good = sign_answer(waiting.phone(), waiting.good());
    world.revoke(&world.company, waiting.phone()).await;
    refused(&waiting.send_text(good).await, "device-revoked");
    assert_eq!(waiting.stands().await, ("cancelled".into(), "active".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn security_57_an_answer_counts_until_the_last_second_and_not_after() {
    let waiting = Waiting::begin().await;
    waiting.world.clock.advance(Duration::from_secs(299));
    waiting.ends_well().await;

    let late = Waiting::begin().await;
    // No chore has run: the rule looks at the clock itself, within the transaction.
    late.world.clock.advance(Duration::from_secs(300));
    refused(&late.send(late.good()).await, "approval-expired");
    assert_eq!(late.reason().await, "the time to answer is over");
    assert_eq!(late.stands().await, ("expired".into(), "active".into()));
    late.world.clock.advance(Duration::from_secs(1));
    refused(&late.send(late.good()).await, "approval-already-decided");
}

#[tokio::test(flavor = "multi_thread")]
async fn security_57_the_phones_clock_moves_no_deadline() {
    let mut waiting = Waiting::begin().await;
    let seconds = waiting.world.now().seconds();
    waiting.world.clock.advance(Duration::from_secs(301));
    for iat in [seconds, 0, seconds + 100_000] {
        let mut claims = waiting.good();
        claims["iat"] = json!(iat);
        let answer = waiting.send(claims).await;
        assert!(!answer.is_success(), "iat {iat}");
    }
    let refusals = waiting.records("operation.answer_refused").await;
    assert_eq!(refusals[0]["detail"]["reason"], "the time to answer is over");
    assert_eq!(waiting.stands().await, ("expired".into(), "active".into()));
    // The control: a phone whose clock is two hours off answers in time, and that counts.
    waiting.asked = waiting.world.company.ask_for_release(&waiting.active.token).await;
    waiting.request = request_on(waiting.phone()).await;
    let mut claims = waiting.good();
    claims["iat"] = json!(seconds - 7200);
    accepted(&waiting.send(claims).await);
    assert_eq!(waiting.stands().await, ("executed".into(), "company".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn security_58_a_hundred_answers_at_once_have_one_effect_and_one_record() {
    let (world, active) = World::with_active_token().await;
    // A second phone of the same administrator, which the first agreed to.
    let second = another_phone(&world, &active.administrator).await;
    let waiting = Waiting::asked_in(world, active).await;
    let phones = [waiting.phone(), &second];
    let mut messages = Vec::new();
    for place in 0..100 {
        let phone = phones[place % 2];
        let request = request_on(phone).await;
        let yes = approval(phone, &request, &waiting.asked.number);
        let no = Decision::Denied { reason: DenialReason::UserCancelled };
        let claims = if place < 90 { yes } else { answer(phone, &request, no) };
        messages.push((place % 2, request, sign_answer(phone, claims)));
    }
    let sent = messages.into_iter().map(|(phone, request, text)| {
        let phone = phones[phone];
        async move { phone.raw().respond(&request, text).await.expect("an answer") }
    });
    let answers = futures_util::future::join_all(sent).await;
    let taken = answers.iter().filter(|answer| answer.is_success()).count();
    assert_eq!(taken, 1);
    for answer in answers.iter().filter(|answer| !answer.is_success()) {
        // Decided, and not a word about counters that came out of order.
        refused(answer, "approval-already-decided");
    }
    let kinds = waiting.kinds().await;
    let ended = |kind: &&String| kind.starts_with("operation.") && !kind.ends_with("refused");
    assert_eq!(kinds.iter().filter(ended).count(), 1, "{kinds:?}");
    let (operation, token) = waiting.stands().await;
    let released = kinds.iter().filter(|kind| *kind == "token.released").count();
    match operation.as_str() {
        "executed" => assert_eq!((released, token.as_str()), (1, "company")),
        "denied" => assert_eq!((released, token.as_str()), (0, "active")),
        other => panic!("{other}"),
    }
    assert_whole(&waiting.world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn security_56_of_an_approval_and_a_block_at_once_one_comes_first_and_counts() {
    for _ in 0..8 {
        let waiting = Waiting::begin().await;
        let company = &waiting.world.company;
        let good = sign_answer(waiting.phone(), waiting.good());
        let path = format!("/api/v1/tokens/{}/block", waiting.active.token);
        let block = company.program.post(&path, json!({"cause": "technical_failure"}));
        let (approved, blocked) = tokio::join!(waiting.send_text(good), block);
        let (operation, token) = waiting.stands().await;
        match (operation.as_str(), token.as_str()) {
            ("executed", "company") => {
                accepted(&approved);
                blocked.refused("state-conflict");
            }
            ("cancelled", "blocked") => {
                refused(&approved, "approval-already-decided");
                blocked.expect(200);
            }
            other => panic!("{other:?}"),
        }
        let kinds = waiting.kinds().await;
        let done = ["token.released", "token.blocked"];
        assert_eq!(kinds.iter().filter(|kind| done.contains(&kind.as_str())).count(), 1);
        assert_whole(&waiting.world).await;
    }
}

/// One more phone of the administrator, which `first` agreed to.
async fn another_phone(world: &World, first: &Phone) -> Phone {
    let (_, uri) = world.company.activation_for(&world.company.administrator).await;
    let second = world.phone();
    let number = second.bind(&uri).await.expect("bound").match_number.expect("a number");
    let request = request_on(first).await;
    first.approve(request.id(), &number).await.expect("approved");
    second
}

#[tokio::test(flavor = "multi_thread")]
async fn security_58_a_repeated_answer_is_answered_and_done_once() {
    let waiting = Waiting::begin().await;
    let text = sign_answer(waiting.phone(), waiting.good());
    for _ in 0..3 {
        assert_eq!(accepted(&waiting.send_text(text.clone()).await)["state"], "executed");
    }
    let kinds = waiting.kinds().await;
    assert_eq!(kinds, ["token.released", "operation.executed"]);
    // Another yes is another message: too late.
    refused(&waiting.send(waiting.good()).await, "approval-already-decided");
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
    let inbox = waiting.phone().inbox().await.expect("the inbox");
    let second = inbox.requests.iter().find(|one| one.id().to_string() == other.id);
    let second = Arc::clone(second.expect("both wait"));
    let mut claims = approval(waiting.phone(), &second, &other.number);
    for round in ["as it is", "with this one's name"] {
        refused(&waiting.send(claims.clone()).await, "request-hash-mismatch");
        assert_eq!(waiting.reason().await, "this answers another request", "{round}");
        claims["txn"] = json!(waiting.asked.id);
        claims["match_number"] = json!(waiting.asked.number);
        claims["ctr"] = waiting.good()["ctr"].clone();
    }
    // And the other way: the good answer at the other request's address.
    let text = sign_answer(waiting.phone(), waiting.good());
    let answer = waiting.phone().raw().respond(&second, text).await.expect("an answer");
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
    let inbox = waiting.phone().inbox().await.expect("the inbox");
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
    let phone = waiting.phone();
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
    let good = sign_answer(waiting.phone(), waiting.good());
    let token = waiting.phone().raw().device_token().expect("a token");
    let authorization = format!("DPoP {}", token.expose());
    let headers = [("authorization", authorization.as_str()), ("dpop", good.as_str())];
    let reply = waiting.world.http().send("GET", "/device/v1/approvals", &headers, b"").await;
    reply.expect("an answer").refused("unauthenticated");
    accepted(&waiting.send_text(good).await);
    assert_eq!(waiting.stands().await, ("executed".into(), "company".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn security_60_effect_end_and_record_of_an_approval_are_one_transaction() {
    let waiting = Waiting::begin().await;
    let company = &waiting.world.company;
    let database = waiting.world.data().join("semilla.db");
    let text = sign_answer(waiting.phone(), waiting.good());
    for (fails, trigger) in [
        ("the record of the release", "INSERT ON audit WHEN NEW.kind = 'token.released'"),
        ("the record of the end", "INSERT ON audit WHEN NEW.kind = 'operation.executed'"),
        ("the token", "UPDATE ON tokens"),
        ("the operation", "UPDATE ON operations"),
        ("the inbox", "UPDATE ON inbox"),
        ("the generation", "UPDATE ON generations"),
        ("the verifier", "UPDATE ON verifiers"),
        ("the phone's counter", "UPDATE ON devices"),
    ] {
        let trigger = format!(
            "CREATE TRIGGER fails BEFORE {trigger} BEGIN INSERT INTO no_such_table VALUES (1); END"
        );
        sqlite(&database, &trigger);
        refused(&waiting.send_text(text.clone()).await, "unavailable");
        sqlite(&database, "DROP TRIGGER fails");
        waiting.still_waits(fails).await;
        let recorded = waiting.world.trail(company).await.len();
        assert_eq!(recorded, waiting.recorded.get(), "{fails}");
        assert_eq!(request_on(waiting.phone()).await.id(), waiting.request.id());
    }
    let code = waiting.active.code();
    assert!(company.program.verify(&waiting.active.token, &code).await, "the seed is whole");
    waiting.look_away().await;
    // The very same message, once everything works.
    accepted(&waiting.send_text(text).await);
    let kinds = waiting.kinds().await;
    assert_eq!(kinds, ["token.released", "operation.executed"]);
    let trail = waiting.world.trail(company).await;
    let [.., released, executed] = trail.as_slice() else { panic!("two records") };
    assert_eq!(released["record"]["at"], executed["record"]["at"]);
    assert_eq!(released["record"]["actor"], executed["record"]["actor"]);
    assert_whole(&waiting.world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn security_62_an_answer_overheard_cannot_be_sent_by_anybody_else() {
    let waiting = Waiting::begin().await;
    let http = waiting.world.http();
    let path = format!("/device/v1/approvals/{}/response", waiting.asked.id);
    let reply = http.send("GET", "/device/v1/tokens", &[], b"").await.expect("an answer");
    let nonce = reply.header("dpop-nonce").to_owned();
    let token = waiting.phone().raw().device_token().expect("a token");
    let authorization = format!("DPoP {}", token.expose());
    let body = json!({"message": sign_answer(waiting.phone(), waiting.good())}).to_string();
    let send = async |method: &str, path: &str, proof: &str, body: &str| -> Reply {
        let mut headers = vec![("authorization", authorization.as_str()), ("dpop", proof)];
        if !body.is_empty() {
            headers.push(("content-type", "application/json"));
        }
        http.send(method, path, &headers, body.as_bytes()).await.expect("an answer")
    };
    // A poll, and the same poll again, from somebody who saw it pass.
    let proof = waiting.phone().raw().proof("GET", "/device/v1/approvals", Some(&nonce));
    let poll = proof.expect("a proof");
    let seen = send("GET", "/device/v1/approvals", &poll, "").await.expect(200);
    assert_eq!(seen["approvals"][0]["id"], waiting.asked.id.as_str());
    send("GET", "/device/v1/approvals", &poll, "").await.refused("unauthenticated");
    // The proof of the poll does not carry the answer; the right proof does, once.
    send("POST", &path, &poll, &body).await.refused("unauthenticated");
    let proof = waiting.phone().raw().proof("POST", &path, Some(&nonce)).expect("a proof");
    waiting.still_waits("after the replays").await;
    send("POST", &path, &proof, &body).await.expect(200);
    send("POST", &path, &proof, &body).await.refused("unauthenticated");
    assert_eq!(waiting.stands().await, ("executed".into(), "company".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn security_63_by_default_the_askers_own_phone_authorizes_and_no_other() {
    let (world, active) = World::with_active_token().await;
    let company = &world.company;
    let rosa = world.another_administrator(company, "rosa.mejia").await;
    let other = world.bound_phone(company, &rosa).await;
    let waiting = Waiting::asked_in(world, active).await;
    assert!(other.inbox().await.expect("the inbox").requests.is_empty());
    let text = sign_answer(&other, approval(&other, &waiting.request, &waiting.asked.number));
    let answer = other.raw().respond(&waiting.request, text).await.expect("an answer");
    refused(&answer, "not-found");
    waiting.still_waits("after another administrator's answer").await;
    waiting.ends_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn security_63_under_four_eyes_the_asker_is_refused_and_another_administrator_counts() {
    let (world, active) = World::with_active_token().await;
    let company = &world.company;
    let rosa = world.another_administrator(company, "rosa.mejia").await;
    let other = world.bound_phone(company, &rosa).await;
    company.choose(|policy| policy["authorizer"] = "another_administrator".into()).await;
    let recorded = world.trail(company).await.len();

    let asked = company.ask_for_release(&active.token).await;
    assert!(active.administrator.inbox().await.expect("the inbox").requests.is_empty());
    let request = request_on(&other).await;
    // The asker's phone, with what it would need: the number it sees and the request it was told.
    let own = &active.administrator;
    let text = sign_answer(own, approval(own, &request, &asked.number));
    let answer = own.raw().respond(&request, text).await.expect("an answer");
    refused(&answer, "self-approval");
    let refusals = world.records_since(company, recorded, "operation.answer_refused").await;
    assert_eq!(refusals[0]["detail"]["reason"], "somebody else has to approve this");
    assert_eq!(refusals[0]["actor"]["device"]["user"], company.administrator.as_str());
    assert_eq!(company.operation(&asked.id).await["state"], "pending");
    // The holder is nobody's second pair of eyes, and learns nothing.
    let text = sign_answer(&active.phone, approval(&active.phone, &request, &asked.number));
    let answer = active.phone.raw().respond(&request, text).await.expect("an answer");
    refused(&answer, "not-found");

    other.approve(request.id(), &asked.number).await.expect("approved");
    let operation = company.operation(&asked.id).await;
    assert_eq!(
        (&operation["state"], &operation["asker"]),
        (&json!("executed"), &json!(company.administrator))
    );
    assert_eq!(operation["device"], json!(other.raw().device().expect("bound")));
    assert_eq!(company.state_of(&active.token).await, "company");
    assert_whole(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn security_64_what_is_shown_is_what_was_named_and_what_is_signed() {
    let world = World::begin().await;
    let company = &world.company;
    let administrator = world.bound_phone(company, &company.administrator).await;
    // Names that would mislead are refused where they are given.
    for hostile in ["Laura\u{202e}aicnelaV", "Laura\u{200b}", "Laura\nAprobado: sí", "\u{feff}L"] {
        let body = json!({"login": "laura.otra", "name": hostile});
        let problem = company.program.post("/api/v1/users", body).await.refused("validation");
        assert_eq!(problem["errors"][0]["pointer"], "#/name", "{hostile:?}");
    }
    // The longest, and the strangest that is none of that.
    for name in ["Ñ".repeat(100), "<b>Ana</b> & \"Co\" {{x}} %s שלום".to_owned()] {
        let user = company.person(&format!("persona.{}", name.len()), &name).await;
        let (token, serial, _) = world.assigned(company, &user).await;
        let asked = company.ask_for_release(&token).await;
        let request = request_on(&administrator).await;
        let display = request.display();
        let lines = display.lines.join("\n");
        for shown in [&name, &serial, "Comercial Andina S.A.S.", "Andrés Gómez"] {
            assert!(lines.contains(shown), "{shown} in {lines}");
        }
        assert_eq!(display.title, "Liberar token virtual");
        assert!(lines.contains("Causal: Liberación de semilla"), "{lines}");
        // The server's lines are within what is signed, and the answer names exactly them.
        let (_, sent, _) = parts(request.text());
        assert_eq!(sent["display"]["lines"], json!(display.lines));
        let claims = approval(&administrator, &request, &asked.number);
        assert_eq!(claims["display_hash"], json!(display.digest()));
        let answer =
            administrator.raw().respond(&request, sign_answer(&administrator, claims)).await;
        accepted(&answer.expect("an answer"));
        assert_eq!(company.state_of(&token).await, "company");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn security_65_one_request_waits_per_token_and_the_same_is_the_same() {
    let waiting = Waiting::begin().await;
    let company = &waiting.world.company;
    let again = company.ask_for_release(&waiting.active.token).await;
    assert_eq!((&again.id, &again.number), (&waiting.asked.id, &waiting.asked.number));
    let path = format!("/api/v1/tokens/{}", waiting.active.token);
    for (action, body) in [
        ("release", json!({"cause": "customer_request"})),
        ("rotate", json!({"cause": "suspicion"})),
    ] {
        let reply = company.program.post(&format!("{path}/{action}"), body).await;
        reply.refused("state-conflict");
    }
    assert_eq!(waiting.phone().inbox().await.expect("the inbox").requests.len(), 1);
    assert!(waiting.kinds().await.is_empty());
    waiting.ends_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn security_66_the_number_is_on_the_askers_screen_and_never_on_its_way_to_the_phone() {
    let waiting = Waiting::begin().await;
    let (_, sent, _) = parts(waiting.request.text());
    assert!(!sent.to_string().contains(&waiting.asked.number));
    for path in ["/device/v1/approvals", "/device/v1/tokens", "/device/v1/devices"] {
        let answer = waiting.phone().raw().send("GET", path, None).await.expect("an answer");
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(answer.is_success() && !body.contains(&waiting.asked.number), "{body}");
    }
    let trail = json!(waiting.world.trail(&waiting.world.company).await).to_string();
    assert!(!trail.contains(&format!("\"{}\"", waiting.asked.number)));
    // Nor is it for a program that may look, and did not ask.
    let rosa = waiting.world.another_administrator(&waiting.world.company, "rosa.mejia").await;
    let program = waiting.world.program_for(&waiting.world.company, &[&rosa]).await;
    let path = format!("/api/v1/operations/{}", waiting.asked.id);
    assert_eq!(program.get(&path).await.expect(200)["match_number"], Value::Null);
    let seen = waiting.world.company.operation(&waiting.asked.id).await;
    assert_eq!(seen["match_number"], waiting.asked.number.as_str());
    waiting.ends_well().await;
    let ended = waiting.world.company.operation(&waiting.asked.id).await;
    assert_eq!(ended["match_number"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn security_66_a_wrong_number_ends_the_operation_for_good() {
    let waiting = Waiting::begin().await;
    let wrong = approval(waiting.phone(), &waiting.request, waiting.asked.wrong_number());
    refused(&waiting.send(wrong).await, "number-mismatch");
    assert_eq!(waiting.stands().await, ("failed".into(), "active".into()));
    // The right one comes too late.
    let problem = refused(&waiting.send(waiting.good()).await, "approval-already-decided");
    assert_eq!(problem["state"], "failed");
    let company = &waiting.world.company;
    let failed = waiting.records("operation.failed").await;
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0]["detail"]["problem"], "number-mismatch");
    assert_eq!(failed[0]["subject"]["device"], json!(waiting.phone().raw().device().expect("it")));
    let seen = company.operation(&waiting.asked.id).await;
    assert_eq!(seen["problem"], "number-mismatch");
    // The control: asked anew, with another number, it is done.
    let again = company.ask_for_release(&waiting.active.token).await;
    assert_ne!(again.id, waiting.asked.id);
    let request = request_on(waiting.phone()).await;
    waiting.phone().approve(request.id(), &again.number).await.expect("approved");
    assert_eq!(company.state_of(&waiting.active.token).await, "company");
}

#[tokio::test(flavor = "multi_thread")]
async fn security_68_what_has_an_end_never_comes_back_not_even_over_a_restart() {
    for end in ["denied", "expired", "cancelled", "failed"] {
        let mut waiting = Waiting::begin().await;
        let good = sign_answer(waiting.phone(), waiting.good());
        let company = &waiting.world.company;
        let path = format!("/api/v1/operations/{}", waiting.asked.id);
        match end {
            "denied" => {
                let no = DenialReason::UnknownRequest;
                waiting.phone().deny(waiting.request.id(), no).await.expect("denied");
            }
            "expired" => waiting.world.pass(300).await,
            "cancelled" => {
                company.program.send("DELETE", &path, &[], None).await.expect(200);
            }
            _ => {
                let wrong = waiting.asked.wrong_number();
                let approved = waiting.phone().approve(waiting.request.id(), wrong).await;
                approved.expect_err("a wrong number");
            }
        }
        for life in ["in this life", "after a restart"] {
            let seen = waiting.world.company.operation(&waiting.asked.id).await;
            assert_eq!(seen["state"], end, "{life}");
            assert!(waiting.phone().inbox().await.expect("the inbox").requests.is_empty());
            let answer = waiting.send_text(good.clone()).await;
            let problem = refused(&answer, "approval-already-decided");
            assert_eq!(problem["state"], end, "{life}");
            let denied = answer_denied(&waiting).await;
            refused(&denied, "approval-already-decided");
            let cancel = waiting.world.company.program.send("DELETE", &path, &[], None).await;
            cancel.refused("approval-already-decided");
            assert_eq!(waiting.world.company.state_of(&waiting.active.token).await, "active");
            waiting.world.restart().await;
        }
        // What is asked next has another id and another number, and works.
        let again = waiting.world.company.ask_for_release(&waiting.active.token).await;
        assert_ne!(again.id, waiting.asked.id);
        let request = request_on(waiting.phone()).await;
        waiting.phone().approve(request.id(), &again.number).await.expect("approved");
        assert_eq!(waiting.world.company.operation(&again.id).await["state"], "executed");
    }
}

async fn answer_denied(waiting: &Waiting) -> Response {
    let no = Decision::Denied { reason: DenialReason::SuspectedFraud };
    waiting.send(answer(waiting.phone(), &waiting.request, no)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn security_68_what_waits_still_waits_after_a_restart_and_is_sent_once() {
    let mut waiting = Waiting::begin().await;
    waiting.world.restart().await;
    let request = request_on(waiting.phone()).await;
    assert_eq!(request.text(), waiting.request.text(), "the same bytes: nothing was sent anew");
    assert!(waiting.kinds().await.is_empty());
    waiting.ends_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_says_why_and_only_a_report_of_fraud_does_more() {
    for (reason, name) in [
        (DenialReason::UserCancelled, "user_cancelled"),
        (DenialReason::UnknownRequest, "unknown_request"),
        (DenialReason::SuspectedFraud, "suspected_fraud"),
    ] {
        let waiting = Waiting::begin().await;
        let company = &waiting.world.company;
        waiting.phone().deny(waiting.request.id(), reason).await.expect("denied");
        let seen = company.operation(&waiting.asked.id).await;
        assert_eq!((&seen["state"], &seen["reason"]), (&json!("denied"), &json!(name)));
        assert_eq!(seen["device"], json!(waiting.phone().raw().device().expect("bound")));
        let denied = waiting.records("operation.denied").await;
        assert_eq!(denied[0]["detail"]["reason"], name);
        let kinds = waiting.kinds().await;
        let code = waiting.active.code();
        let token = company.token(&waiting.active.token).await;
        if reason == DenialReason::SuspectedFraud {
            assert_eq!(kinds, ["fraud.reported", "token.blocked", "operation.denied"]);
            assert_eq!(
                (&token["state"], &token["last_cause"]),
                (&json!("blocked"), &json!("fraud_reported"))
            );
            assert!(!company.program.verify(&waiting.active.token, &code).await);
            // It is a block like another: a phone opens it again.
            let asked = company.ask(&waiting.active.token, "unblock", json!({})).await;
            let request = request_on(waiting.phone()).await;
            waiting.phone().approve(request.id(), &asked.number).await.expect("approved");
        } else {
            assert_eq!(kinds, ["operation.denied"]);
            assert_eq!(token["state"], "active");
        }
        assert!(company.program.verify(&waiting.active.token, &code).await, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fraud_reported_on_a_blocked_token_leaves_the_cause_it_has() {
    let (world, active) = World::with_active_token().await;
    let company = &world.company;
    let block = format!("/api/v1/tokens/{}/block", active.token);
    company.program.post(&block, json!({"cause": "user_inactive"})).await.expect(200);
    company.ask(&active.token, "unblock", json!({})).await;
    let request = request_on(&active.administrator).await;
    let recorded = world.trail(company).await.len();
    let fraud = DenialReason::SuspectedFraud;
    active.administrator.deny(request.id(), fraud).await.expect("denied");
    let token = company.token(&active.token).await;
    assert_eq!(token["last_cause"], "user_inactive");
    let kinds = world.kinds_since(company, recorded).await;
    assert_eq!(kinds, ["fraud.reported", "operation.denied"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_asker_takes_an_operation_back_and_nobody_else_does() {
    let waiting = Waiting::begin().await;
    let (world, company) = (&waiting.world, &waiting.world.company);
    let path = format!("/api/v1/operations/{}", waiting.asked.id);
    let stranger = world.another_company("Industrias del Sur S.A.").await;
    stranger.program.send("DELETE", &path, &[], None).await.refused("not-found");
    let rosa = world.another_administrator(company, "rosa.mejia").await;
    let other = world.program_for(company, &[&rosa]).await;
    other.send("DELETE", &path, &[], None).await.refused("forbidden");
    waiting.still_waits("after the others' attempts").await;
    let cancelled = company.program.send("DELETE", &path, &[], None).await.expect(200);
    assert_eq!(cancelled["state"], "cancelled");
    assert!(waiting.phone().inbox().await.expect("the inbox").requests.is_empty());
    let records = waiting.records("operation.cancelled").await;
    assert_eq!(records[0]["actor"]["client"]["asker"], company.administrator.as_str());
    company.program.send("DELETE", &path, &[], None).await.refused("approval-already-decided");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_is_woken_on_both_sides() {
    let (world, active) = World::with_active_token().await;
    let company = &world.company;
    // Whoever is not woken waits for its whole patience, and has nothing then.
    let patience = Duration::from_secs(25);
    let asking = async {
        others_ask(&world).await;
        company.ask_for_release(&active.token).await
    };
    let (inbox, asked) = tokio::join!(active.administrator.wait_for_requests(patience), asking);
    let request = Arc::clone(&inbox.expect("woken").requests[0]);
    assert_eq!(request.id().to_string(), asked.id);
    let path = format!("/api/v1/operations/{}?wait=25", asked.id);
    let approving = async {
        others_ask(&world).await;
        active.administrator.approve(request.id(), &asked.number).await.expect("approved");
    };
    let (seen, ()) = tokio::join!(company.program.get(&path), approving);
    assert_eq!(seen.expect(200)["state"], "executed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_is_told_of_requests_in_a_stream_each_once() {
    let (world, active) = World::with_active_token().await;
    let company = &world.company;
    let marta = company.person("marta.paz", "Marta Paz").await;
    let (token, _, _) = world.assigned(company, &marta).await;
    let path = "/device/v1/stream";
    let reply = world.http().send("GET", path, &[], b"").await.expect("an answer");
    let raw = active.administrator.raw();
    let proof = raw.proof("GET", path, Some(reply.header("dpop-nonce"))).expect("a proof");
    let authorization = format!("DPoP {}", raw.device_token().expect("a token").expose());
    let headers = [("authorization", authorization.as_str()), ("dpop", proof.as_str())];
    let base = world.http().base().to_owned();
    let mut stream = socket::connect(&base).await;
    let request = socket::request("GET", path, &headers, b"");
    tokio::io::AsyncWriteExt::write_all(&mut stream, &request).await.expect("sent");
    let head = socket::read_until(&mut stream, b"\r\n\r\n").await;
    assert!(String::from_utf8_lossy(&head).contains("text/event-stream"));
    let first = company.ask_for_release(&active.token).await;
    let told = socket::read_until(&mut stream, first.id.as_bytes()).await;
    assert!(String::from_utf8_lossy(&told).contains("event: approval"));
    let second = company.ask_for_release(&token).await;
    let told = socket::read_until(&mut stream, second.id.as_bytes()).await;
    let told = String::from_utf8_lossy(&told).into_owned();
    assert!(!told.contains(&first.id) && !told.contains(&first.number), "{told}");
}

/// So much that whoever began to wait before does wait by now.
async fn others_ask(world: &World) {
    for _ in 0..20 {
        world.company.program.get("/api/v1/tokens").await.expect(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_executed_operation_says_everything_once_more() {
    let waiting = Waiting::begin().await;
    let begun = waiting.world.now();
    waiting.world.clock.advance(Duration::from_secs(7));
    waiting.ends_well().await;
    let company = &waiting.world.company;
    let seen = company.operation(&waiting.asked.id).await;
    let ended = waiting.world.now();
    let approval = Duration::from_secs(policy()["approval_seconds"].as_u64().expect("a number"));
    let whole = json!({
        "id": waiting.asked.id, "action": "release", "cause": "seed_release",
        "token": waiting.active.token, "holder": company.laura, "asker": company.administrator,
        "state": "executed", "match_number": null,
        "device": waiting.phone().raw().device().expect("bound"),
        "reason": null, "problem": null, "created_at": begun.to_string(),
        "expires_at": begun.plus(approval).to_string(), "ended_at": ended.to_string(),
    });
    assert_eq!(seen, whole);
    let generations = format!("/api/v1/tokens/{}/generations", waiting.active.token);
    let generations = company.program.get(&generations).await.expect(200);
    assert_eq!(generations["items"][0]["destroyed_at"], ended.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn security_86_a_block_needs_no_phone_and_takes_what_waits_along() {
    let waiting = Waiting::begin().await;
    let company = &waiting.world.company;
    // Every phone of the administrator is gone.
    waiting.phone().leave().await.expect("gone");
    let block = format!("/api/v1/tokens/{}/block", waiting.active.token);
    company.program.post(&block, json!({"cause": "technical_failure"})).await.expect(200);
    assert!(!company.program.verify(&waiting.active.token, &waiting.active.code()).await);
    // What opens it again needs one, and says so.
    let unblock = format!("/api/v1/tokens/{}/unblock", waiting.active.token);
    let problem = company.program.post(&unblock, json!({})).await.refused("state-conflict");
    assert_eq!(problem["who_can_act"], "administrator");
}
