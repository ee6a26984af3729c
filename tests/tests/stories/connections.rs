//! What lies between a phone and its server: answers that get lost, a server that is not its own, a
//! copy of the phone, another key and a wrong clock (security 39, 130, 131).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use semilla_approver::entropy::SystemEntropy as PhoneEntropy;
use semilla_approver::{Error, Phone};
use semilla_core::operations::RotateCause;
use semilla_core::protocol::approval::DenialReason;
use semilla_core::protocol::jwk::JwkSet;
use semilla_core::time::Timestamp;
use semilla_server::clock::Clock;
use semilla_tests::asking::{accepted, approval, new_key, refused, request_on, sign_answer};
use semilla_tests::binding::Binder;
use semilla_tests::http::Expect;
use semilla_tests::wire::Wire;
use semilla_tests::world::World;
use serde_json::json;

use crate::audit::assert_whole;

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
        // Nobody is left waiting for a phone that may not answer.
        assert_eq!(kinds, ["device.suspended", "operation.cancelled"]);
        assert_eq!(company.operation(&again.id).await["state"], "cancelled");
        assert_eq!(company.state_of(&active.token).await, "active");
        for phone in [first, second] {
            assert!(matches!(phone.sync().await, Err(Error::Suspended)));
            let answered = phone.approve(request.id(), &again.number).await;
            assert!(matches!(answered, Err(Error::Suspended)));
        }
        assert_eq!(company.state_of_phone(original).await, "suspended");
        // Somebody revokes it; then it is as lost as any other.
        world.revoke(company, original).await;
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
