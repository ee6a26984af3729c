//! How an operation is asked for, seen, waited for and ended: by a yes with the number, by a no with
//! its reason, by its asker or by time, and that every end is one (security 64 to 68, 86).

use std::sync::Arc;
use std::time::Duration;

use semilla_approver::http::Response;
use semilla_core::protocol::approval::{Decision, DenialReason};
use semilla_tests::asking::{accepted, answer, approval, refused, request_on, sign_answer};
use semilla_tests::bodies::policy;
use semilla_tests::http::Expect;
use semilla_tests::socket;
use semilla_tests::world::World;
use serde_json::{Value, json};

use crate::approvals::Waiting;
use crate::forgeries::parts;

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
    assert_eq!(waiting.approver().inbox().await.expect("the inbox").requests.len(), 1);
    assert!(waiting.kinds().await.is_empty());
    waiting.ends_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn security_66_the_number_is_on_the_askers_screen_and_never_on_its_way_to_the_phone() {
    let waiting = Waiting::begin().await;
    let (_, sent, _) = parts(waiting.request.text());
    assert!(!sent.to_string().contains(&waiting.asked.number));
    for path in ["/device/v1/approvals", "/device/v1/tokens", "/device/v1/devices"] {
        let answer = waiting.approver().raw().send("GET", path, None).await.expect("an answer");
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
    let wrong = approval(waiting.approver(), &waiting.request, waiting.asked.wrong_number());
    refused(&waiting.send(wrong).await, "number-mismatch");
    assert_eq!(waiting.stands().await, ("failed".into(), "active".into()));
    // The right one comes too late.
    let problem = refused(&waiting.send(waiting.good()).await, "approval-already-decided");
    assert_eq!(problem["state"], "failed");
    let company = &waiting.world.company;
    let failed = waiting.records("operation.failed").await;
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0]["detail"]["problem"], "number-mismatch");
    assert_eq!(
        failed[0]["subject"]["device"],
        json!(waiting.approver().raw().device().expect("it"))
    );
    let seen = company.operation(&waiting.asked.id).await;
    assert_eq!(seen["problem"], "number-mismatch");
    // The control: asked anew, with another number, it is done.
    let again = company.ask_for_release(&waiting.active.token).await;
    assert_ne!(again.id, waiting.asked.id);
    let request = request_on(waiting.approver()).await;
    waiting.approver().approve(request.id(), &again.number).await.expect("approved");
    assert_eq!(company.state_of(&waiting.active.token).await, "company");
}

#[tokio::test(flavor = "multi_thread")]
async fn security_68_what_has_an_end_never_comes_back_not_even_over_a_restart() {
    for end in ["denied", "expired", "cancelled", "failed"] {
        let mut waiting = Waiting::begin().await;
        let good = sign_answer(waiting.approver(), waiting.good());
        let company = &waiting.world.company;
        let path = format!("/api/v1/operations/{}", waiting.asked.id);
        match end {
            "denied" => {
                let no = DenialReason::UnknownRequest;
                waiting.approver().deny(waiting.request.id(), no).await.expect("denied");
            }
            "expired" => waiting.world.pass(300).await,
            "cancelled" => {
                company.program.send("DELETE", &path, &[], None).await.expect(200);
            }
            _ => {
                let wrong = waiting.asked.wrong_number();
                let approved = waiting.approver().approve(waiting.request.id(), wrong).await;
                approved.expect_err("a wrong number");
            }
        }
        for life in ["in this life", "after a restart"] {
            let seen = waiting.world.company.operation(&waiting.asked.id).await;
            assert_eq!(seen["state"], end, "{life}");
            assert!(waiting.approver().inbox().await.expect("the inbox").requests.is_empty());
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
        let request = request_on(waiting.approver()).await;
        waiting.approver().approve(request.id(), &again.number).await.expect("approved");
        assert_eq!(waiting.world.company.operation(&again.id).await["state"], "executed");
    }
}

async fn answer_denied(waiting: &Waiting) -> Response {
    let no = Decision::Denied { reason: DenialReason::SuspectedFraud };
    waiting.send(answer(waiting.approver(), &waiting.request, no)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn security_68_what_waits_still_waits_after_a_restart_and_is_sent_once() {
    let mut waiting = Waiting::begin().await;
    waiting.world.restart().await;
    let request = request_on(waiting.approver()).await;
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
        waiting.approver().deny(waiting.request.id(), reason).await.expect("denied");
        let seen = company.operation(&waiting.asked.id).await;
        assert_eq!((&seen["state"], &seen["reason"]), (&json!("denied"), &json!(name)));
        assert_eq!(seen["device"], json!(waiting.approver().raw().device().expect("bound")));
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
            let request = request_on(waiting.approver()).await;
            waiting.approver().approve(request.id(), &asked.number).await.expect("approved");
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
    assert!(waiting.approver().inbox().await.expect("the inbox").requests.is_empty());
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
        "device": waiting.approver().raw().device().expect("bound"),
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
    waiting.approver().leave().await.expect("gone");
    let block = format!("/api/v1/tokens/{}/block", waiting.active.token);
    company.program.post(&block, json!({"cause": "technical_failure"})).await.expect(200);
    assert!(!company.program.verify(&waiting.active.token, &waiting.active.code()).await);
    // What opens it again needs one, and says so.
    let unblock = format!("/api/v1/tokens/{}/unblock", waiting.active.token);
    let problem = company.program.post(&unblock, json!({})).await.refused("state-conflict");
    assert_eq!(problem["who_can_act"], "administrator");
}
