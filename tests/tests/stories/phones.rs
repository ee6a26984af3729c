//! The second table: a person's phones, from the first to the one that is lost, and what becomes
//! of the tokens on them; and what a phone makes of a server that is not its own, of a copy of
//! itself and of a wrong clock (security 39, 50, 130, 131).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use semilla_approver::entropy::SystemEntropy as PhoneEntropy;
use semilla_approver::phone::BindingState;
use semilla_approver::{Error, Phone};
use semilla_core::operations::{DEVICE_TABLE, DeviceAction, DeviceProof, Party, RotateCause};
use semilla_core::protocol::approval::DenialReason;
use semilla_core::protocol::jwk::JwkSet;
use semilla_core::protocol::wire::DeviceState;
use semilla_core::time::Timestamp;
use semilla_server::clock::Clock;
use semilla_tests::asking::{Asked, accepted, approval, new_key, refused, request_on, sign_answer};
use semilla_tests::binding::Binder;
use semilla_tests::http::Expect;
use semilla_tests::wire::Wire;
use semilla_tests::world::{Company, World};
use serde_json::{Value, json};

use crate::audit::assert_whole;

/// A phone that a person bound as another one; it waits for a phone bound before. Returns the
/// number it shows as well.
async fn waiting_phone(world: &World, company: &Company, user: &str) -> (Phone, String) {
    let (_, uri) = company.activation_for(user).await;
    let phone = world.phone();
    let number = phone.bind(&uri).await.expect("bound").match_number.expect("a number");
    (phone, number)
}

/// Another phone of a person, which `first` agreed to.
async fn another_phone(world: &World, company: &Company, user: &str, first: &Phone) -> Phone {
    let (phone, number) = waiting_phone(world, company, user).await;
    let request = request_on(first).await;
    first.approve(request.id(), &number).await.expect("approved");
    phone
}

/// How the company sees a phone.
async fn state_of(company: &Company, phone: &Phone) -> String {
    let device = json!(phone.raw().device().expect("bound"));
    let devices = company.program.get("/api/v1/devices").await.expect(200);
    let found = devices["items"].as_array().expect("items").iter().find(|it| it["id"] == device);
    found.expect("it is listed")["state"].as_str().expect("a state").to_owned()
}

/// Asks for the recovery of a person, in the administrator's name.
async fn ask_for_recovery(company: &Company, user: &str) -> Asked {
    let path = format!("/api/v1/users/{user}/recover");
    Asked::of(&company.program.post(&path, json!({})).await.expect(202))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_table_says_who_may_do_what_with_a_phone() {
    for row in DEVICE_TABLE {
        let (world, active) = World::with_active_token().await;
        let company = &world.company;
        match row.action {
            DeviceAction::BindFirst => {
                assert_eq!(
                    (row.parties, row.proof),
                    (&[Party::Holder][..], DeviceProof::CodeAndKey)
                );
                // A phone without any token, bound by code and key alone.
                let marta = company.person("marta.paz", "Marta Paz").await;
                let phone = world.bound_phone(company, &marta).await;
                assert!(phone.sync().await.expect("trusted").is_empty());
            }
            DeviceAction::BindAnother => {
                assert_eq!(row.proof, DeviceProof::CodeKeyAndBoundPhone);
                let (second, number) = waiting_phone(&world, company, &company.laura).await;
                assert!(matches!(second.sync().await, Err(Error::Waiting)));
                // It is the person's own phone that is asked, and no administrator's.
                assert!(active.administrator.inbox().await.expect("it").requests.is_empty());
                let request = request_on(&active.phone).await;
                active.phone.approve(request.id(), &number).await.expect("approved");
                second.sync().await.expect("trusted");
            }
            DeviceAction::Revoke => {
                assert_eq!(row.proof, DeviceProof::None);
                assert_eq!(row.parties, [Party::Holder, Party::Administrator]);
                world.revoke(company, &active.phone).await;
            }
            DeviceAction::Recover => {
                assert_eq!(row.proof, DeviceProof::OtherPersonsPhone);
                let asked = ask_for_recovery(company, &company.laura).await;
                let request = request_on(&active.administrator).await;
                active.administrator.approve(request.id(), &asked.number).await.expect("approved");
            }
        }
        let token = company.token(&active.token).await;
        let blocked = token["state"] == "blocked" && token["generation"] == Value::Null;
        assert_eq!(blocked, row.blocks_tokens, "{:?}: {token}", row.action);
        if blocked {
            assert_eq!(token["last_cause"], "device_lost_or_stolen");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn security_50_a_phone_that_waits_can_do_nothing_and_only_the_earlier_ones_decide() {
    let (world, active) = World::with_active_token().await;
    let company = &world.company;
    let (second, number) = waiting_phone(&world, company, &company.laura).await;
    assert_eq!(state_of(company, &second).await, "waiting");
    let raw = second.raw();
    for (method, path) in [
        ("GET", "/device/v1/tokens"),
        ("GET", "/device/v1/enrollments"),
        ("GET", "/device/v1/approvals"),
        ("GET", "/device/v1/stream"),
    ] {
        refused(&raw.send(method, path, None).await.expect("an answer"), "device-revoked");
    }
    // It cannot agree to itself, with the number that it shows.
    let request = request_on(&active.phone).await;
    assert_eq!(request.display().title, "Vincular otro teléfono");
    let text = sign_answer(&second, approval(&second, &request, &number));
    refused(&raw.respond(&request, text).await.expect("an answer"), "device-revoked");
    // Nor can the company's programs see the number: it is on the new phone's screen.
    let operation = company.operation(&request.id().to_string()).await;
    assert_eq!(
        (&operation["action"], &operation["match_number"]),
        (&json!("bind_phone"), &Value::Null)
    );
    active.phone.approve(request.id(), &number).await.expect("approved");
    assert_eq!(state_of(company, &second).await, "bound");
    assert_eq!(second.sync().await.expect("trusted").len(), 1);
    assert!(second.tokens().expect("a list").is_empty(), "the seed stays where it is");
}

#[tokio::test(flavor = "multi_thread")]
async fn security_50_every_end_but_a_yes_revokes_the_phone_that_waits() {
    for end in ["denied", "fraud", "wrong number", "expired", "a later one", "left", "revoked"] {
        let (world, active) = World::with_active_token().await;
        let company = &world.company;
        let (second, number) = waiting_phone(&world, company, &company.laura).await;
        let request = request_on(&active.phone).await;
        let recorded = world.trail(company).await.len();
        match end {
            "denied" | "fraud" => {
                let fraud = end == "fraud";
                let reason =
                    if fraud { DenialReason::SuspectedFraud } else { DenialReason::UnknownRequest };
                active.phone.deny(request.id(), reason).await.expect("denied");
                let reported = world.records_since(company, recorded, "fraud.reported").await;
                assert_eq!(reported.len(), usize::from(fraud));
            }
            "wrong number" => {
                let wrong = if number == "000000" { "000001" } else { "000000" };
                active.phone.approve(request.id(), wrong).await.expect_err("wrong");
            }
            "expired" => world.pass(300).await,
            "a later one" => {
                let (third, _) = waiting_phone(&world, company, &company.laura).await;
                assert_eq!(state_of(company, &third).await, "waiting");
                let waits = request_on(&active.phone).await;
                assert_ne!(waits.id(), request.id(), "one waits at a time");
            }
            "left" => {
                let raw = second.raw();
                accepted(&raw.send("DELETE", "/device/v1/me", None).await.expect("an answer"));
            }
            _ => world.revoke(company, &second).await,
        }
        assert_eq!(state_of(company, &second).await, "revoked", "{end}");
        let text = sign_answer(&active.phone, approval(&active.phone, &request, &number));
        let late = active.phone.raw().respond(&request, text).await.expect("an answer");
        refused(&late, "approval-already-decided");
        assert!(matches!(second.sync().await, Err(Error::Revoked)), "{end}");
        // Nothing happened to the phone and the token of before.
        assert!(company.program.verify(&active.token, &active.code()).await, "{end}");
        assert_whole(&world).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_phone_of_the_person_is_asked_and_the_first_word_counts() {
    let (world, active) = World::with_active_token().await;
    let company = &world.company;
    let second = another_phone(&world, company, &company.laura, &active.phone).await;
    let (third, number) = waiting_phone(&world, company, &company.laura).await;
    let on_first = request_on(&active.phone).await;
    let on_second = request_on(&second).await;
    assert_eq!(on_first.id(), on_second.id());
    assert_ne!(on_first.text(), on_second.text(), "each phone's own");
    second.deny(on_second.id(), DenialReason::UnknownRequest).await.expect("denied");
    assert!(active.phone.inbox().await.expect("the inbox").requests.is_empty());
    let late = active.phone.approve_request(&on_first, &number).await;
    let late = late.expect_err("too late");
    assert_eq!(late.problem().and_then(|it| it.state.as_deref()), Some("denied"));
    assert_eq!(state_of(company, &third).await, "revoked");
    // An answer to the one phone's text is none to the other's, though it is the same operation.
    let (_, number) = waiting_phone(&world, company, &company.laura).await;
    let (on_first, on_second) = (request_on(&active.phone).await, request_on(&second).await);
    let text = sign_answer(&second, approval(&second, &on_first, &number));
    let answer = second.raw().respond(&on_second, text).await.expect("an answer");
    refused(&answer, "request-hash-mismatch");
    second.approve(on_second.id(), &number).await.expect("the control");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_has_five_phones_at_most() {
    let world = World::begin().await;
    let company = &world.company;
    let first = world.bound_phone(company, &company.laura).await;
    let mut last = None;
    for _ in 0..4 {
        last = Some(another_phone(&world, company, &company.laura, &first).await);
    }
    let (_, uri) = company.activation_for(&company.laura).await;
    let sixth = world.phone();
    let error = sixth.bind(&uri).await.expect_err("too many");
    assert!(error.problem().is_some_and(|problem| problem.detail.contains("at most 5")));
    world.revoke(company, &last.expect("a phone")).await;
    let (_, uri) = company.activation_for(&company.laura).await;
    sixth.bind(&uri).await.expect("there is room again");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_revokes_a_phone_says_why_its_tokens_are_blocked() {
    for (who, cause) in [
        ("itself", "device_change"),
        ("another phone of its owner", "device_change"),
        ("an administrator", "device_lost_or_stolen"),
        ("a block for loss", "device_lost_or_stolen"),
        ("a block for a change", "device_change"),
    ] {
        let (world, active) = World::with_active_token().await;
        let company = &world.company;
        let second = another_phone(&world, company, &company.laura, &active.phone).await;
        let release = company.ask_for_release(&active.token).await;
        let code = active.code();
        let device = active.phone.raw().device().expect("bound");
        let recorded = world.trail(company).await.len();
        let block = format!("/api/v1/tokens/{}/block", active.token);
        match who {
            "itself" => {
                let raw = active.phone.raw();
                accepted(&raw.send("DELETE", "/device/v1/me", None).await.expect("an answer"));
            }
            "another phone of its owner" => {
                let path = format!("/device/v1/devices/{device}");
                accepted(&second.raw().send("DELETE", &path, None).await.expect("an answer"));
            }
            "an administrator" => world.revoke(company, &active.phone).await,
            _ => {
                company.program.post(&block, json!({"cause": cause})).await.expect(200);
            }
        }
        assert_eq!(state_of(company, &active.phone).await, "revoked", "{who}");
        assert_eq!(state_of(company, &second).await, "bound", "{who}: the other stays");
        let revoked = world.records_since(company, recorded, "device.revoked").await;
        assert_eq!(revoked.len(), 1, "{who}");
        assert_eq!(revoked[0]["detail"]["cause"], cause, "{who}");
        let blocked = world.records_since(company, recorded, "token.blocked").await;
        assert_eq!(blocked.len(), 1, "{who}");
        assert_eq!(blocked[0]["detail"]["cause"], cause, "{who}");
        // At once: codes, the phone, what waited.
        assert!(!company.program.verify(&active.token, &code).await, "{who}");
        assert!(matches!(active.phone.sync().await, Err(Error::Revoked)), "{who}");
        assert_eq!(active.phone.account().expect("it").state, BindingState::Revoked);
        assert_eq!(company.operation(&release.id).await["state"], "cancelled", "{who}");
        // Only a release leads on.
        let unblock = format!("/api/v1/tokens/{}/unblock", active.token);
        company.program.post(&unblock, json!({})).await.refused("state-conflict");
        let asked = company.ask_for_release(&active.token).await;
        let request = request_on(&active.administrator).await;
        active.administrator.approve(request.id(), &asked.number).await.expect("approved");
        assert_eq!(company.state_of(&active.token).await, "company", "{who}");
        assert_whole(&world).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_is_revoked_by_its_owner_and_its_company_and_nobody_else() {
    let (world, active) = World::with_active_token().await;
    let company = &world.company;
    let other = world.another_company("Industrias del Sur S.A.").await;
    let marta = company.person("marta.paz", "Marta Paz").await;
    let stranger = world.bound_phone(company, &marta).await;
    let device = active.phone.raw().device().expect("bound");
    let (_, uri) = company.activation_for(&marta).await;
    let waiting = world.phone();
    waiting.bind(&uri).await.expect("bound");
    for (who, problem) in [(&stranger, "not-found"), (&waiting, "device-revoked")] {
        let path = format!("/device/v1/devices/{device}");
        refused(&who.raw().send("DELETE", &path, None).await.expect("an answer"), problem);
    }
    let path = format!("/api/v1/devices/{device}");
    other.program.send("DELETE", &path, &[], None).await.refused("not-found");
    world.operator.send("DELETE", &path, &[], None).await.refused("forbidden");
    assert!(company.program.verify(&active.token, &active.code()).await);
    // A token that is blocked already loses its seed with the phone.
    let block = format!("/api/v1/tokens/{}/block", active.token);
    company.program.post(&block, json!({"cause": "user_inactive"})).await.expect(200);
    assert_eq!(company.token(&active.token).await["generation"], 1);
    company.program.send("DELETE", &path, &[], None).await.expect(204);
    assert_eq!(company.token(&active.token).await["generation"], Value::Null);
    // Again, and nothing more happens.
    let recorded = world.trail(company).await.len();
    company.program.send("DELETE", &path, &[], None).await.expect(204);
    assert_eq!(world.trail(company).await.len(), recorded);
}

#[tokio::test(flavor = "multi_thread")]
async fn security_50_without_a_phone_only_another_persons_phone_leads_back() {
    let (world, active) = World::with_active_token().await;
    let company = &world.company;
    active.phone.leave().await.expect("gone");
    // A code alone is not enough any more.
    let (_, uri) = company.activation_for(&company.laura).await;
    let error = world.phone().bind(&uri).await.expect_err("no phone is left to agree");
    let problem = error.problem().expect("a problem");
    assert_eq!(
        (problem.kind.name(), problem.who_can_act.as_deref()),
        ("state-conflict", Some("administrator"))
    );
    // The other person says no, or nothing, or a wrong number: all stays as it is.
    for end in ["denied", "expired", "a wrong number"] {
        let asked = ask_for_recovery(company, &company.laura).await;
        let request = request_on(&active.administrator).await;
        assert_eq!(request.display().title, "Recuperar acceso sin teléfono");
        assert!(request.display().lines.iter().any(|line| line.contains("Laura Valencia")));
        match end {
            "denied" => {
                let no = DenialReason::UserCancelled;
                active.administrator.deny(request.id(), no).await.expect("denied");
            }
            "expired" => world.pass(300).await,
            _ => {
                let wrong = asked.wrong_number();
                let answered = active.administrator.approve(request.id(), wrong).await;
                answered.expect_err("wrong");
            }
        }
        let (_, uri) = company.activation_for(&company.laura).await;
        world.phone().bind(&uri).await.expect_err(end);
    }
    let asked = ask_for_recovery(company, &company.laura).await;
    let request = request_on(&active.administrator).await;
    let recorded = world.trail(company).await.len();
    active.administrator.approve(request.id(), &asked.number).await.expect("approved");
    let kinds = world.kinds_since(company, recorded).await;
    assert_eq!(kinds, ["user.recovered", "operation.executed"]);
    let again = world.bound_phone(company, &company.laura).await;
    again.sync().await.expect("trusted");
    // The way back was for one phone: the next one waits again.
    let (third, _) = waiting_phone(&world, company, &company.laura).await;
    assert_eq!(state_of(company, &third).await, "waiting");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_ends_every_phone_and_everything_that_waited() {
    let (world, active) = World::with_active_token().await;
    let company = &world.company;
    let second = another_phone(&world, company, &company.laura, &active.phone).await;
    let (third, number) = waiting_phone(&world, company, &company.laura).await;
    let adding = request_on(&second).await;
    let asked = ask_for_recovery(company, &company.laura).await;
    // One thing at a time waits for a person: the phone that was to be added is no more.
    assert_eq!(state_of(company, &third).await, "revoked");
    second.approve_request(&adding, &number).await.expect_err("cancelled");
    let request = request_on(&active.administrator).await;
    active.administrator.approve(request.id(), &asked.number).await.expect("approved");
    for phone in [&active.phone, &second, &third] {
        assert_eq!(state_of(company, phone).await, "revoked");
        assert!(matches!(phone.sync().await, Err(Error::Revoked)));
    }
    let token = company.token(&active.token).await;
    assert_eq!(
        (&token["state"], &token["last_cause"]),
        (&json!("blocked"), &json!("device_lost_or_stolen"))
    );
    world.bound_phone(company, &company.laura).await;
    // Asked while she had a first phone again to bind, there is nothing to recover.
    let rosa = world.another_administrator(company, "rosa.mejia").await;
    let path = format!("/api/v1/users/{rosa}/recover");
    company.program.post(&path, json!({})).await.refused("state-conflict");
    assert_whole(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn security_50_an_administrator_is_recovered_by_another_or_else_by_the_operator() {
    let (world, active) = World::with_active_token().await;
    let company = &world.company;
    let own = format!("/api/v1/users/{}/recover", company.administrator);
    company.program.post(&own, json!({})).await.refused("self-approval");
    let of_company =
        format!("/api/v1/companies/{}/users/{}/recover", company.id, company.administrator);
    let operators_phone = world.operators_phone().await;
    let rosa = world.another_administrator(company, "rosa.mejia").await;
    let rosas = world.bound_phone(company, &rosa).await;
    let program = world.program_for(company, &[&rosa]).await;
    active.administrator.leave().await.expect("gone");

    // Another administrator has a phone: it is hers to help, and not the bank's.
    let problem = world.operator.post(&of_company, json!({})).await.refused("state-conflict");
    assert_eq!(problem["who_can_act"], "administrator");
    let asked = Asked::of(&program.post(&own, json!({})).await.expect(202));
    let request = request_on(&rosas).await;
    rosas.approve(request.id(), &asked.number).await.expect("approved");
    let again = world.bound_phone(company, &company.administrator).await;

    // Nobody has: the operator helps, on a phone of the bank, and sees how it went.
    again.leave().await.expect("gone");
    rosas.leave().await.expect("gone");
    program.post(&own, json!({})).await.refused("state-conflict");
    let recorded = world.trail(company).await.len();
    let reply = world.operator.post(&of_company, json!({})).await;
    let place = reply.header("location").to_owned();
    let asked = Asked::of(&reply.expect(202));
    let pending = world.operator.get(&place).await.expect(200);
    assert_eq!(
        (&pending["state"], &pending["match_number"]),
        (&json!("pending"), &json!(asked.number))
    );
    let request = request_on(&operators_phone).await;
    operators_phone.approve(request.id(), &asked.number).await.expect("approved");
    assert_eq!(world.operator.get(&place).await.expect(200)["state"], "executed");
    let kinds = world.kinds_since(company, recorded).await;
    assert_eq!(kinds, ["operation.requested", "user.recovered", "operation.executed"]);
    world.bound_phone(company, &company.administrator).await.sync().await.expect("trusted");

    // The company sees that it was done, and by whom; another operator's wish it takes back not.
    let seen = company.operation(&asked.id).await;
    assert_eq!(seen["asker"], world.operator_id().await.as_str());
    let other = world.another_company("Industrias del Sur S.A.").await;
    other.program.get(&place).await.refused("not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_operator_asked_for_the_operator_alone_takes_back() {
    let (world, active) = World::with_active_token().await;
    let company = &world.company;
    world.operators_phone().await;
    active.administrator.leave().await.expect("gone");
    let of_company =
        format!("/api/v1/companies/{}/users/{}/recover", company.id, company.administrator);
    let reply = world.operator.post(&of_company, json!({})).await;
    let place = reply.header("location").to_owned();
    reply.expect(202);
    company.program.send("DELETE", &place, &[], None).await.refused("forbidden");
    let taken = world.operator.send("DELETE", &place, &[], None).await.expect(200);
    assert_eq!(taken["state"], "cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn losing_the_second_administrator_falls_to_the_operator_and_not_to_silence() {
    let (world, active) = World::with_active_token().await;
    let company = &world.company;
    let rosa = world.another_administrator(company, "rosa.mejia").await;
    let rosas = world.bound_phone(company, &rosa).await;
    company.choose(|policy| policy["authorizer"] = "another_administrator".into()).await;
    rosas.leave().await.expect("gone");
    // Nobody at all: said at once, with who can help.
    let release = format!("/api/v1/tokens/{}/release", active.token);
    let cause = json!({"cause": "seed_release"});
    let problem = company.program.post(&release, cause).await.refused("state-conflict");
    assert_eq!(problem["who_can_act"], "operator");
    let operators_phone = world.operators_phone().await;
    let asked = company.ask_for_release(&active.token).await;
    assert!(active.administrator.inbox().await.expect("the inbox").requests.is_empty());
    let request = request_on(&operators_phone).await;
    operators_phone.approve(request.id(), &asked.number).await.expect("approved");
    assert_eq!(company.state_of(&active.token).await, "company");
    let executed = world.records_since(company, 0, "operation.executed").await;
    let by = &executed.last().expect("a record")["actor"]["device"]["device"];
    assert_eq!(*by, json!(operators_phone.raw().device().expect("bound")));
}

#[tokio::test(flavor = "multi_thread")]
async fn security_130_a_copied_phone_is_found_out_and_both_are_shut_out() {
    let waiting = async || {
        let (world, active) = World::with_active_token().await;
        let asked = world.company.ask_for_release(&active.token).await;
        (world, active, asked)
    };
    // The copy speaks first, then the phone it was copied from; and the other way round.
    for copy_first in [true, false] {
        let (world, active, asked) = waiting().await;
        let company = &world.company;
        let original = &active.administrator;
        let copy = original.raw().copy().expect("a copy");
        let (first, second) = if copy_first { (&copy, original) } else { (original, &copy) };
        let request = request_on(first).await;
        first.deny(request.id(), DenialReason::UserCancelled).await.expect("denied");
        let again = company.ask_for_release(&active.token).await;
        assert_ne!(again.id, asked.id);
        let request = request_on(second).await;
        let recorded = world.trail(company).await.len();
        second.approve(request.id(), &again.number).await.expect_err("its counter was used");
        let kinds = world.kinds_since(company, recorded).await;
        assert_eq!(kinds, ["device.suspended"], "and nothing else");
        assert_eq!(company.operation(&again.id).await["state"], "pending");
        assert_eq!(company.state_of(&active.token).await, "active");
        for phone in [first, second] {
            assert!(matches!(phone.sync().await, Err(Error::Suspended)));
            let answered = phone.approve(request.id(), &again.number).await;
            assert!(matches!(answered, Err(Error::Suspended)));
        }
        assert_eq!(state_of(company, original).await, "suspended");
        // Somebody revokes it; then it is as lost as any other.
        world.revoke(company, original).await;
        assert_eq!(company.operation(&again.id).await["state"], "cancelled");
        assert!(matches!(copy.sync().await, Err(Error::Revoked)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn security_130_a_restored_backup_is_a_copy_too_for_every_message() {
    for message in ["an answer", "an enrollment", "a rotation", "a change of keys"] {
        let (world, active) = World::with_active_token().await;
        let company = &world.company;
        let phone = if message == "an answer" { &active.administrator } else { &active.phone };
        let backup = phone.raw().copy().expect("a copy");
        // The phone goes on, and the backup knows nothing of it.
        phone.change_keys().await.expect("changed");
        phone.change_keys().await.expect("changed");
        let counter = backup.raw().counter().expect("a counter");
        assert!(phone.raw().counter().expect("a counter") > counter);
        // Its key is the old one: it is nobody.
        assert!(backup.sync().await.is_err());
        assert!(phone.sync().await.is_ok(), "{message}: the phone itself is well");
        // With the key of today and the counter of then it is found out.
        phone.raw().set_counter(counter).expect("set back");
        let recorded = world.trail(company).await.len();
        let error = match message {
            "an answer" => {
                let asked = company.ask_for_release(&active.token).await;
                let request = request_on(phone).await;
                phone.approve(request.id(), &asked.number).await.expect_err("suspended")
            }
            "an enrollment" => {
                let pedro = company.person("pedro.ruiz", "Pedro Ruiz").await;
                let his = world.bound_phone(company, &pedro).await;
                let counter = his.raw().counter().expect("a counter");
                world.assigned(company, &pedro).await;
                his.raw().set_counter(counter - 1).expect("set back");
                his.enroll_next().await.expect_err("suspended")
            }
            "a rotation" => {
                let cause = RotateCause::Suspicion;
                phone.rotate(&active.serial, cause).await.expect_err("suspended")
            }
            _ => phone.change_keys().await.expect_err("suspended"),
        };
        assert!(matches!(error, Error::Suspended), "{message}: {error}");
        let suspended = world.records_since(company, recorded, "device.suspended").await;
        assert_eq!(suspended.len(), 1, "{message}");
        let reason = suspended[0]["detail"]["reason"].as_str().expect("a reason");
        assert!(reason.contains("is not above"), "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_gets_lost_is_asked_for_again_and_nothing_is_done_twice() {
    for place in ["/bindings", "/enrollments", "/confirm", "/rotate", "/keys", "/response"] {
        let world = World::begin().await;
        let company = &world.company;
        let (way, left) = Wire::losing(place);
        let phone = world.phone().over(way);
        // A phone sends three times at most: twice nothing comes back.
        let lose = |what: &str| {
            if place == what {
                left.store(2, Ordering::SeqCst);
            }
        };
        let (token, serial, enrollment) = world.assigned(company, &company.laura).await;
        let (_, uri) = company.activation_of(&enrollment).await;
        lose("/bindings");
        phone.bind(&uri).await.unwrap_or_else(|error| panic!("{place}: {error}"));
        lose("/enrollments");
        lose("/confirm");
        phone.enroll_next().await.unwrap_or_else(|error| panic!("{place}: {error}"));
        world.clock.advance(Duration::from_secs(30));
        lose("/rotate");
        let renewed = phone.renew(&serial, RotateCause::Suspicion).await;
        let renewed = renewed.unwrap_or_else(|error| panic!("{place}: {error}"));
        assert_eq!(renewed.generation, 2, "{place}");
        lose("/keys");
        phone.change_keys().await.unwrap_or_else(|error| panic!("{place}: {error}"));
        let asked = company.ask(&token, "rotate", json!({"cause": "scheduled"})).await;
        let request = request_on(&phone).await;
        lose("/response");
        phone.approve(request.id(), &asked.number).await.expect("approved");
        assert_eq!(left.load(Ordering::SeqCst), 0, "{place}: nothing was lost");
        world.clock.advance(Duration::from_secs(30));
        assert_eq!(phone.enroll_next().await.expect("enrolled").generation, 3);
        let kinds = world.kinds_since(company, 0).await;
        for (kind, times) in [
            ("device.bound", 1),
            ("enrollment.delivered", 3),
            ("token.enrolled", 1),
            ("device.key_changed", 1),
            ("operation.executed", 1),
            ("device.suspended", 0),
            ("activation.refused", 0),
            // Two beginnings and two ends.
            ("token.rotated", 4),
        ] {
            let count = kinds.iter().filter(|other| *other == kind).count();
            assert_eq!(count, times, "{place}: {kind} in {kinds:?}");
        }
        assert_eq!(company.program.get("/api/v1/devices").await.expect(200)["total"], 1);
        assert_whole(&world).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_phones_lost_answer_tells_the_same_number_and_a_late_one_nothing() {
    let (world, active) = World::with_active_token().await;
    let company = &world.company;
    let (typed, _) = company.activation_for(&company.laura).await;
    let binder = Binder::new(&world, &typed);
    let nonce = binder.nonce().await;
    let text = semilla_tests::asking::sign_with::<semilla_core::protocol::messages::Bind>(
        &binder.key,
        binder.claims(nonce),
    );
    let first = binder.post(text.clone()).await.expect(201);
    assert!(first["match_number"].is_string());
    let again = binder.post(text.clone()).await.expect(201);
    assert_eq!(first, again);
    assert_eq!(active.phone.inbox().await.expect("the inbox").requests.len(), 1);
    // The same claims in another message are another message.
    binder.send(binder.claims(nonce)).await.refused("activation-invalid");
    world.clock.advance(Duration::from_secs(600));
    binder.post(text).await.refused("activation-invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_key_is_the_only_key() {
    let (world, active) = World::with_active_token().await;
    let company = &world.company;
    let phone = &active.administrator;
    let before = phone.raw().copy().expect("a copy");
    let old = phone.raw().public_key().expect("a key");
    let asked = company.ask_for_release(&active.token).await;
    let request = request_on(phone).await;
    phone.change_keys().await.expect("changed");
    assert_ne!(phone.raw().public_key().expect("a key"), old);
    // The old key opens no door, and its signature is no answer.
    let poll = before.raw().send("GET", "/device/v1/approvals", None).await.expect("an answer");
    refused(&poll, "unauthenticated");
    let mut claims = approval(phone, &request, &asked.number);
    let text = sign_answer(&before, claims.clone());
    let answer = phone.raw().respond(&request, text).await.expect("an answer");
    refused(&answer, "signature-invalid");
    // Nor does it bring itself back, vouched for by the new one: it was used before.
    let draft = phone.raw().draft().expect("a draft");
    let change = draft.key_change(new_key().public().clone(), "a.b.c".to_owned());
    let text = phone.raw().sign(&change).expect("signed");
    let answer = phone.raw().send_signed("/device/v1/keys", text).await.expect("an answer");
    refused(&answer, "signature-invalid");
    // What waited can still be answered, with the new key.
    claims["ctr"] = json!(phone.raw().counter().expect("a counter") + 1);
    phone.raw().set_counter(phone.raw().counter().expect("a counter") + 1).expect("counted");
    let text = sign_answer(phone, claims);
    accepted(&phone.raw().respond(&request, text).await.expect("an answer"));
    assert_eq!(company.state_of(&active.token).await, "company");
}

#[tokio::test(flavor = "multi_thread")]
async fn security_39_131_a_server_that_the_code_does_not_vouch_for_is_not_believed() {
    let world = World::begin().await;
    let company = &world.company;
    let foreign = JwkSet::new(vec![new_key().public().clone()]).text().to_owned();
    let server = world.server().issuer().to_owned();
    for what in ["its keys", "its address", "its nonce", "its word"] {
        let (_, uri) = company.activation_for(&company.laura).await;
        let foreign = foreign.clone();
        let way = Wire::changing("/bindings/start", move |answer| match what {
            "its keys" => answer["jwks"] = json!(foreign),
            "its address" => answer["issuer"] = json!("http://127.0.0.1:1"),
            "its nonce" => answer["nonce"] = json!("AAECAwQFBgcICQoLDA0ODw"),
            _ => answer["mac"] = json!("AAECAwQFBgcICQoLDA0ODwABAgMEBQYHCAkKCwwNDg8"),
        });
        let phone = world.phone().over(way);
        let error = phone.bind(&uri).await.expect_err("not vouched for");
        assert_eq!((error.exit_code(), error.kind()), (11, "message-refused"), "{what}");
        assert!(phone.accounts().expect("a list").is_empty(), "{what}: nothing is kept");
        // The same phone, the same code, and nobody on the way.
        let phone = world.phone();
        if what == "its word" {
            phone.bind(&uri).await.expect("bound");
            let pinned = phone.account().expect("bound").server_keys;
            assert_eq!(pinned, [world.server().app.keys.signing.public().thumbprint()]);
            assert_eq!(phone.account().expect("bound").issuer, server);
        }
    }
    // Another server altogether, which has never heard of the code.
    let elsewhere = World::begin().await;
    let (typed, _) = company.activation_for(&company.administrator).await;
    let phone = world.phone().at_server(elsewhere.server().issuer()).expect("an address");
    let error = phone.bind(&typed).await.expect_err("unknown there");
    assert_eq!(error.kind(), "activation-invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn security_131_a_pinned_phone_shows_nothing_that_another_server_signed() {
    let (world, active) = World::with_active_token().await;
    let (other, others) = World::with_active_token().await;
    // Another bank asks the same of its own administrator, and the request is brought over here.
    let theirs = other.company.ask_for_release(&others.token).await;
    let foreign = request_on(&others.administrator).await.text().to_owned();
    let asked = world.company.ask_for_release(&active.token).await;
    let way = Wire::changing("/approvals", move |answer| {
        if let Some(approvals) = answer["approvals"].as_array_mut() {
            approvals.iter_mut().for_each(|one| one["request"] = json!(foreign));
        }
    });
    let deceived = active.administrator.raw().copy().expect("a copy").over(way);
    let inbox = deceived.inbox().await.expect("the inbox");
    assert!(inbox.requests.is_empty());
    assert_eq!(inbox.refused.len(), 1);
    let id = inbox.refused[0].id;
    let error = deceived.approve(id, &theirs.number).await.expect_err("not believed");
    assert_eq!(error.exit_code(), 11);
    // The control: without anybody on the way it is shown, and approved.
    let request = request_on(&active.administrator).await;
    active.administrator.approve(request.id(), &asked.number).await.expect("approved");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_whose_clock_is_wrong_learns_by_how_much_and_can_still_authorize() {
    let world = World::begin().await;
    let company = &world.company;
    for (user, seconds) in [(&company.administrator, 7200), (&company.laura, -7200)] {
        let clock = Arc::clone(&world.clock);
        let wrong = move || {
            let right = clock.now().milliseconds();
            Timestamp::from_milliseconds(right + i64::from(seconds) * 1000)
        };
        let phone = Phone::in_memory(Arc::new(wrong), Arc::new(PhoneEntropy));
        let (_, uri) = company.activation_for(user).await;
        phone.bind(&uri).await.expect("bound, whatever its clock says");
        phone.sync().await.expect("trusted");
        let skew = phone.account().expect("bound").skew_seconds.expect("learned");
        assert!((skew + i64::from(seconds)).abs() <= 1, "{skew}");
        assert!(phone.server_time().expect("known").since(world.now()).as_secs() <= 1);

        // Codes of such a clock would be refused: the phone says so before it sends one.
        let (token, _, enrollment) = world.assigned(company, user).await;
        let error = phone.enroll_next().await.expect_err("its clock is off");
        assert!(matches!(error, Error::ClockSkew(off) if (off + i64::from(seconds)).abs() <= 1));
        assert_eq!(error.exit_code(), 8);
        assert_eq!(company.state_of(&token).await, "assigned");
        // Set right, the same phone goes on with the same seed.
        let clock = Arc::clone(&world.clock);
        let phone = phone.with_clock(Arc::new(move || clock.now()));
        phone.sync().await.expect("trusted");
        let enrollment = enrollment.parse().expect("an id");
        assert_eq!(phone.enroll(enrollment).await.expect("enrolled").generation, 1);
        world.clock.advance(Duration::from_secs(30));
        let code = phone.make_code(&Default::default()).expect("a code");
        assert!(company.program.verify(&token, code.code.expose()).await);
        if user == &company.administrator {
            // An approval counts by the server's clock, and the phone knows that one.
            let clock = Arc::clone(&world.clock);
            let ahead = move || clock.now().plus(Duration::from_secs(7200));
            let phone = phone.with_clock(Arc::new(ahead));
            let asked = company.ask_for_release(&token).await;
            let request = request_on(&phone).await;
            phone.approve(request.id(), &asked.number).await.expect("approved");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_who_takes_no_part_is_refused_on_every_phone_until_they_do_again() {
    let (world, active) = World::with_active_token().await;
    let company = &world.company;
    company.set_active(&company.laura, false).await;
    let raw = active.phone.raw();
    let answer = raw.send("GET", "/device/v1/tokens", None).await.expect("an answer");
    refused(&answer, "device-revoked");
    assert_eq!(state_of(company, &active.phone).await, "bound", "it is the person who is away");
    company.set_active(&company.laura, true).await;
    let held = active.phone.sync().await.expect("trusted again");
    assert_eq!(held[0].state, semilla_core::protocol::wire::HeldState::Blocked);
    let devices = active.phone.devices().await.expect("a list");
    assert_eq!(devices.iter().map(|it| it.state).collect::<Vec<_>>(), [DeviceState::Bound]);
}
