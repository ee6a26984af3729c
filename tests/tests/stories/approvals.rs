//! A phone's answer that came in time, from the right person, about the token as it is: or one that
//! did not, and has no effect; and one that did, with all of its effect (security 56 to 60, 63).

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use semilla_approver::Phone;
use semilla_approver::http::Response;
use semilla_approver::review::Request;
use semilla_core::protocol::approval::{Decision, DenialReason};
use semilla_tests::asking::{Asked, accepted, answer, approval, refused, request_on, sign_answer};
use semilla_tests::http::Expect;
use semilla_tests::process::sqlite;
use semilla_tests::world::{Active, World};
use serde_json::{Value, json};

use crate::audit::assert_whole;

/// A release that waits for the administrator's phone.
pub(crate) struct Waiting {
    pub(crate) world: World,
    pub(crate) active: Active,
    pub(crate) asked: Asked,
    pub(crate) request: Arc<Request>,
    /// How long the trail was when it began to wait.
    pub(crate) recorded: Cell<usize>,
}

impl Waiting {
    pub(crate) async fn begin() -> Self {
        let (world, active) = World::with_active_token().await;
        Self::asked_in(world, active).await
    }

    pub(crate) async fn asked_in(world: World, active: Active) -> Self {
        let asked = world.company.ask_for_release(&active.token).await;
        let request = request_on(&active.administrator).await;
        let recorded = Cell::new(world.trail(&world.company).await.len());
        Self { world, active, asked, request, recorded }
    }

    pub(crate) fn approver(&self) -> &Phone {
        &self.active.administrator
    }

    /// The claims of the good answer.
    pub(crate) fn good(&self) -> Value {
        approval(self.approver(), &self.request, &self.asked.number)
    }

    /// Sends claims, signed by the phone that was asked.
    pub(crate) async fn send(&self, claims: Value) -> Response {
        self.send_text(sign_answer(self.approver(), claims)).await
    }

    pub(crate) async fn send_text(&self, text: String) -> Response {
        self.approver().raw().respond(&self.request, text).await.expect("an answer")
    }

    /// The reason of the one answer that was refused since the last look.
    pub(crate) async fn reason(&self) -> String {
        let refusals = self.records("operation.answer_refused").await;
        assert_eq!(refusals.len(), 1, "{refusals:?}");
        self.look_away().await;
        assert_eq!(refusals[0]["subject"]["operation"], self.asked.id.as_str());
        refusals[0]["detail"]["reason"].as_str().expect("a reason").to_owned()
    }

    /// The records of a kind since the last look.
    pub(crate) async fn records(&self, kind: &str) -> Vec<Value> {
        self.world.records_since(&self.world.company, self.recorded.get(), kind).await
    }

    /// The kinds of all records since the last look.
    pub(crate) async fn kinds(&self) -> Vec<String> {
        self.world.kinds_since(&self.world.company, self.recorded.get()).await
    }

    /// What was recorded so far is of no interest.
    pub(crate) async fn look_away(&self) {
        self.recorded.set(self.world.trail(&self.world.company).await.len());
    }

    /// How operation and token stand.
    pub(crate) async fn stands(&self) -> (String, String) {
        let operation = self.world.company.operation(&self.asked.id).await;
        let state = operation["state"].as_str().expect("a state").to_owned();
        (state, self.world.company.state_of(&self.active.token).await)
    }

    pub(crate) async fn still_waits(&self, why: &str) {
        assert_eq!(self.stands().await, ("pending".into(), "active".into()), "{why}");
    }

    /// The control at the end of a story of refusals: the good answer is taken.
    pub(crate) async fn ends_well(&self) {
        accepted(&self.send(self.good()).await);
        assert_eq!(self.stands().await, ("executed".into(), "company".into()));
        assert_whole(&self.world).await;
    }
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
        let request = request_on(waiting.approver()).await;
        waiting.approver().approve(request.id(), &again.number).await.expect("approved");
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
    waiting.request = request_on(waiting.approver()).await;
    let good = sign_answer(waiting.approver(), waiting.good());
    world.revoke(&world.company, waiting.approver()).await;
    refused(&waiting.send_text(good).await, "device-revoked");
    assert_eq!(waiting.stands().await, ("cancelled".into(), "active".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn security_56_what_waits_for_or_is_about_somebody_who_leaves_ends_at_once() {
    let (world, active) = World::with_active_token().await;
    let company = &world.company;
    // About her: a recovery that the administrator has not answered yet.
    let path = format!("/api/v1/users/{}/recover", company.laura);
    let recovery = Asked::of(&company.program.post(&path, json!({})).await.expect(202));
    let request = request_on(&active.administrator).await;
    company.set_active(&company.laura, false).await;
    assert_eq!(company.operation(&recovery.id).await["state"], "cancelled");
    let late = active.administrator.approve_request(&request, &recovery.number).await;
    late.expect_err("it is over");
    company.set_active(&company.laura, true).await;

    // For her phone: under four eyes, the one who would have to agree.
    let rosa = world.another_administrator(company, "rosa.mejia").await;
    let hers = world.bound_phone(company, &rosa).await;
    let ximena = world.another_administrator(company, "ximena.rey").await;
    let other = world.bound_phone(company, &ximena).await;
    company.choose(|policy| policy["authorizer"] = "another_administrator".into()).await;
    let asked = company.ask_for_release(&active.token).await;
    let request = request_on(&hers).await;
    company.set_active(&rosa, false).await;
    assert_eq!(company.operation(&asked.id).await["state"], "cancelled");
    refused(
        &hers.raw().respond(&request, "a.b.c".to_owned()).await.expect("an answer"),
        "forbidden",
    );
    // Asked anew, it goes to whoever is left.
    let again = company.ask_for_release(&active.token).await;
    let request = request_on(&other).await;
    other.approve(request.id(), &again.number).await.expect("approved");
    assert_eq!(company.state_of(&active.token).await, "company");
    assert_whole(&world).await;
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
    waiting.request = request_on(waiting.approver()).await;
    let mut claims = waiting.good();
    claims["iat"] = json!(seconds - 7200);
    accepted(&waiting.send(claims).await);
    assert_eq!(waiting.stands().await, ("executed".into(), "company".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn security_58_a_hundred_answers_at_once_have_one_effect_and_one_record() {
    let (world, active) = World::with_active_token().await;
    // A second phone of the same administrator, which the first agreed to.
    let second = world
        .another_phone(&world.company, &world.company.administrator, &active.administrator)
        .await;
    let waiting = Waiting::asked_in(world, active).await;
    let phones = [waiting.approver(), &second];
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
        let good = sign_answer(waiting.approver(), waiting.good());
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

#[tokio::test(flavor = "multi_thread")]
async fn security_58_a_repeated_answer_is_answered_and_done_once() {
    let waiting = Waiting::begin().await;
    let text = sign_answer(waiting.approver(), waiting.good());
    for _ in 0..3 {
        assert_eq!(accepted(&waiting.send_text(text.clone()).await)["state"], "executed");
    }
    let kinds = waiting.kinds().await;
    assert_eq!(kinds, ["token.released", "operation.executed"]);
    // Another yes is another message: too late.
    refused(&waiting.send(waiting.good()).await, "approval-already-decided");
}

#[tokio::test(flavor = "multi_thread")]
async fn security_60_effect_end_and_record_of_an_approval_are_one_transaction() {
    let waiting = Waiting::begin().await;
    let company = &waiting.world.company;
    let database = waiting.world.data().join("semilla.db");
    let text = sign_answer(waiting.approver(), waiting.good());
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
        assert_eq!(request_on(waiting.approver()).await.id(), waiting.request.id());
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
