//! The second table: a person's phones, from the first to the one that is lost, and what becomes
//! of the tokens on them (security 50).

use semilla_approver::Error;
use semilla_approver::phone::BindingState;
use semilla_core::operations::{DEVICE_TABLE, DeviceAction, DeviceProof, Party};
use semilla_core::protocol::approval::DenialReason;
use semilla_core::protocol::wire::DeviceState;
use semilla_tests::asking::{Asked, accepted, approval, refused, request_on, sign_answer};
use semilla_tests::http::Expect;
use semilla_tests::world::{Company, World};
use serde_json::{Value, json};

use crate::audit::assert_whole;

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
                let (second, number) = world.waiting_phone(company, &company.laura).await;
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
    let (second, number) = world.waiting_phone(company, &company.laura).await;
    assert_eq!(company.state_of_phone(&second).await, "waiting");
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
    assert_eq!(company.state_of_phone(&second).await, "bound");
    assert_eq!(second.sync().await.expect("trusted").len(), 1);
    assert!(second.tokens().expect("a list").is_empty(), "the seed stays where it is");
}

#[tokio::test(flavor = "multi_thread")]
async fn security_50_every_end_but_a_yes_revokes_the_phone_that_waits() {
    for end in ["denied", "fraud", "wrong number", "expired", "a later one", "left", "revoked"] {
        let (world, active) = World::with_active_token().await;
        let company = &world.company;
        let (second, number) = world.waiting_phone(company, &company.laura).await;
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
                let (third, _) = world.waiting_phone(company, &company.laura).await;
                assert_eq!(company.state_of_phone(&third).await, "waiting");
                let waits = request_on(&active.phone).await;
                assert_ne!(waits.id(), request.id(), "one waits at a time");
            }
            "left" => {
                let raw = second.raw();
                accepted(&raw.send("DELETE", "/device/v1/me", None).await.expect("an answer"));
            }
            _ => world.revoke(company, &second).await,
        }
        assert_eq!(company.state_of_phone(&second).await, "revoked", "{end}");
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
    let second = world.another_phone(company, &company.laura, &active.phone).await;
    let (third, number) = world.waiting_phone(company, &company.laura).await;
    let on_first = request_on(&active.phone).await;
    let on_second = request_on(&second).await;
    assert_eq!(on_first.id(), on_second.id());
    assert_ne!(on_first.text(), on_second.text(), "each phone's own");
    second.deny(on_second.id(), DenialReason::UnknownRequest).await.expect("denied");
    assert!(active.phone.inbox().await.expect("the inbox").requests.is_empty());
    let late = active.phone.approve_request(&on_first, &number).await;
    let late = late.expect_err("too late");
    assert_eq!(late.problem().and_then(|it| it.state.as_deref()), Some("denied"));
    assert_eq!(company.state_of_phone(&third).await, "revoked");
    // An answer to the one phone's text is none to the other's, though it is the same operation.
    let (_, number) = world.waiting_phone(company, &company.laura).await;
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
        last = Some(world.another_phone(company, &company.laura, &first).await);
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
        let second = world.another_phone(company, &company.laura, &active.phone).await;
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
        assert_eq!(company.state_of_phone(&active.phone).await, "revoked", "{who}");
        assert_eq!(company.state_of_phone(&second).await, "bound", "{who}: the other stays");
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
    let (third, _) = world.waiting_phone(company, &company.laura).await;
    assert_eq!(company.state_of_phone(&third).await, "waiting");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_ends_every_phone_and_everything_that_waited() {
    let (world, active) = World::with_active_token().await;
    let company = &world.company;
    let second = world.another_phone(company, &company.laura, &active.phone).await;
    let (third, number) = world.waiting_phone(company, &company.laura).await;
    let adding = request_on(&second).await;
    let asked = ask_for_recovery(company, &company.laura).await;
    // One thing at a time waits for a person: the phone that was to be added is no more.
    assert_eq!(company.state_of_phone(&third).await, "revoked");
    second.approve_request(&adding, &number).await.expect_err("cancelled");
    let request = request_on(&active.administrator).await;
    active.administrator.approve(request.id(), &asked.number).await.expect("approved");
    for phone in [&active.phone, &second, &third] {
        assert_eq!(company.state_of_phone(phone).await, "revoked");
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
async fn a_person_who_takes_no_part_is_refused_on_every_phone_until_they_do_again() {
    let (world, active) = World::with_active_token().await;
    let company = &world.company;
    company.set_active(&company.laura, false).await;
    let raw = active.phone.raw();
    let answer = raw.send("GET", "/device/v1/tokens", None).await.expect("an answer");
    refused(&answer, "forbidden");
    assert!(active.phone.inbox().await.is_err(), "nor does the app itself get in");
    let own = active.phone.account().expect("it keeps all");
    assert_eq!((own.state, own.tokens), (BindingState::Bound, 1));
    assert_eq!(
        company.state_of_phone(&active.phone).await,
        "bound",
        "it is the person who is away"
    );
    company.set_active(&company.laura, true).await;
    let held = active.phone.sync().await.expect("trusted again");
    assert_eq!(held[0].state, semilla_core::protocol::wire::HeldState::Blocked);
    let devices = active.phone.devices().await.expect("a list");
    assert_eq!(devices.iter().map(|it| it.state).collect::<Vec<_>>(), [DeviceState::Bound]);
}
