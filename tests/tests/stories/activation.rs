//! How a phone becomes somebody's: codes that end, and proofs that must fit (security 44 to 47, 51).

use std::time::Duration;

use semilla_core::base64url;
use semilla_core::protocol::bytes::Nonce;
use semilla_core::protocol::messages::Bind;
use semilla_core::time::Timestamp;
use semilla_server::app::SystemEntropy;
use semilla_tests::asking::{request_on, sign_with};
use semilla_tests::binding::{Binder, start};
use semilla_tests::http::Expect;
use semilla_tests::world::World;
use serde_json::{Value, json};

use crate::audit::assert_whole;

#[tokio::test(flavor = "multi_thread")]
async fn security_44_an_activation_code_is_sixty_bits_for_ten_minutes_and_one_phone() {
    let world = World::begin().await;
    let company = &world.company;
    let path = format!("/api/v1/users/{}/activation", company.laura);
    let activation = company.program.post(&path, json!({})).await.expect(201);
    let typed = activation["code"].as_str().expect("a code");
    let fours: Vec<_> = typed.split('-').collect();
    assert!(fours.len() == 4 && fours.iter().all(|four| four.len() == 4), "{typed}");
    let ends = activation["expires_at"].as_str().and_then(|at| Timestamp::parse(at).ok());
    assert_eq!(ends.expect("a moment").since(world.now()), Duration::from_secs(600));

    // Begun in time and finished in the last second: it counts, once.
    let laura = Binder::new(&world, typed);
    let nonce = laura.nonce().await;
    world.clock.advance(Duration::from_secs(599));
    laura.send(laura.claims(nonce)).await.expect(201);
    let thief = Binder::new(&world, typed);
    thief.start().await.refused("activation-invalid");
    thief.send(thief.claims(nonce)).await.refused("activation-invalid");

    // Begun in time and finished one second later, without any chore: it does not.
    let marta = company.person("marta.paz", "Marta Paz").await;
    let (typed, _) = company.activation_for(&marta).await;
    let marta = Binder::new(&world, &typed);
    let nonce = marta.nonce().await;
    world.clock.advance(Duration::from_secs(600));
    marta.start().await.refused("activation-invalid");
    marta.send(marta.claims(nonce)).await.refused("activation-invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn security_44_a_code_that_is_issued_again_kills_the_one_before() {
    let world = World::begin().await;
    let company = &world.company;
    let (_, _, enrollment) = world.assigned(company, &company.laura).await;
    let (first, _) = company.activation_for(&company.laura).await;
    let first = Binder::new(&world, &first);
    let nonce = first.nonce().await;
    // A begun code dies as well, and so does one of the other kind.
    let (second, _) = company.activation_of(&enrollment).await;
    first.send(first.claims(nonce)).await.refused("activation-invalid");
    let (third, uri) = company.activation_for(&company.laura).await;
    Binder::new(&world, &second).start().await.refused("activation-invalid");
    assert_ne!(second, third);
    world.phone().bind(&uri).await.expect("the last one counts");
}

#[tokio::test(flavor = "multi_thread")]
async fn security_44_the_name_of_a_code_tells_nothing_about_it() {
    let world = World::begin().await;
    let company = &world.company;
    let (dead, _) = company.activation_for(&company.laura).await;
    let (used, uri) = company.activation_for(&company.laura).await;
    world.phone().bind(&uri).await.expect("bound");
    let http = world.http();
    let mut answers = Vec::new();
    for name in [&dead[..4], &used[..4], "0000"] {
        let reply = start(&http, name).await;
        assert_eq!(reply.status, 422);
        answers.push(reply.body);
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "dead, used and unknown");
    // What begins a binding is no secret of the server's: a phone needs the other twelve.
    let marta = company.person("marta.paz", "Marta Paz").await;
    let (live, _) = company.activation_for(&marta).await;
    let live = Binder::new(&world, &live);
    let nonce = live.nonce().await;
    assert_eq!(live.nonce().await, nonce, "a stranger who begins disturbs nobody");
    live.send(live.claims(nonce)).await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn security_45_five_wrong_tries_kill_a_code_and_no_other() {
    let world = World::begin().await;
    let company = &world.company;
    let marta = company.person("marta.paz", "Marta Paz").await;
    let (hers, _) = company.activation_for(&marta).await;
    for (tries, then) in [(4, 201), (5, 422)] {
        let pedro = company.person(&format!("pedro.{tries}"), "Pedro Ruiz").await;
        let (typed, _) = company.activation_for(&pedro).await;
        let right = Binder::new(&world, &typed);
        let nonce = right.nonce().await;
        // Somebody who saw the first four characters and guesses the rest.
        let guess = format!("{}-0000-0000-0000", &typed[..4]);
        let wrong = Binder::new(&world, &guess);
        let recorded = world.trail(company).await.len();
        for _ in 0..tries {
            wrong.send(wrong.claims(nonce)).await.refused("activation-invalid");
        }
        let records = world.records_since(company, recorded, "activation.refused").await;
        let counted: Vec<_> = records.iter().map(|record| &record["detail"]["wrong"]).collect();
        let expected: Vec<_> = (1..=tries).map(|number: u32| json!(number.to_string())).collect();
        assert_eq!(counted, expected.iter().collect::<Vec<_>>());
        assert_eq!(records[0]["subject"]["user"], pedro.as_str());
        let reply = right.send(right.claims(nonce)).await;
        assert_eq!(reply.status, then, "after {tries}: {}", reply.problem());
    }
    // Tries of one code are none of another: hers has all five left.
    let hers = Binder::new(&world, &hers);
    let nonce = hers.nonce().await;
    hers.send(hers.claims(nonce)).await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn security_45_wrong_tries_at_once_are_all_counted() {
    let world = World::begin().await;
    let company = &world.company;
    let (typed, _) = company.activation_for(&company.laura).await;
    let right = Binder::new(&world, &typed);
    let nonce = right.nonce().await;
    let guess = format!("{}-0000-0000-0000", &typed[..4]);
    let wrong: Vec<_> = (0..20).map(|_| Binder::new(&world, &guess)).collect();
    let recorded = world.trail(company).await.len();
    let sent = wrong.iter().map(|wrong| wrong.send(wrong.claims(nonce)));
    for reply in futures_util::future::join_all(sent).await {
        reply.refused("activation-invalid");
    }
    let records = world.records_since(company, recorded, "activation.refused").await;
    assert_eq!(records.len(), 5, "what came after the fifth met a dead code");
    right.send(right.claims(nonce)).await.refused("activation-invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn security_46_a_binding_proves_the_key_the_nonce_and_the_code() {
    let world = World::begin().await;
    let company = &world.company;
    let marta = company.person("marta.paz", "Marta Paz").await;
    let (hers, _) = company.activation_for(&marta).await;
    let hers = Binder::new(&world, &hers);
    let her_nonce = hers.nonce().await;
    let (typed, _) = company.activation_for(&company.laura).await;
    let laura = Binder::new(&world, &typed);
    let nonce = laura.nonce().await;
    let good = laura.claims(nonce);
    let other_key = Binder::new(&world, &typed).key;
    let with = |claim: &str, value: Value| {
        let mut claims = good.clone();
        claims[claim] = value;
        claims
    };
    let elsewhere = Nonce::generate(&SystemEntropy::default());
    let sign = |claims: Value| sign_with::<Bind>(&laura.key, claims);

    // Proofs that do not fit the code: each of them counts as a try.
    for (what, text) in [
        ("another nonce", sign(laura.claims(elsewhere))),
        ("the nonce of another code", sign(laura.claims(her_nonce))),
        ("another code's voucher", sign(with("jkt_mac", hers.claims(nonce)["jkt_mac"].clone()))),
        ("a voucher for another key", {
            let mut claims = good.clone();
            claims["iss"] = json!(other_key.public().thumbprint());
            sign_with::<Bind>(&other_key, claims)
        }),
    ] {
        let recorded = world.trail(company).await.len();
        assert_eq!(laura.post(text).await.problem(), "activation-invalid", "{what}");
        let kinds = world.kinds_since(company, recorded).await;
        assert_eq!(kinds, ["activation.refused"], "{what}");
    }
    // Messages that do not hold in themselves: refused before any code is looked at.
    let text = sign(good.clone());
    let parts: Vec<_> = text.split('.').collect();
    let header: Value =
        serde_json::from_slice(&base64url::decode(parts[0]).expect("base64url")).expect("JSON");
    let headed = |change: &dyn Fn(&mut Value)| {
        let mut header = header.clone();
        change(&mut header);
        let header = base64url::encode(header.to_string().as_bytes());
        format!("{header}.{}.{}", parts[1], parts[2])
    };
    let foreign = json!(other_key.public());
    let recorded = world.trail(company).await.len();
    for (what, text) in [
        ("signed by another key than it carries", {
            let signed = sign_with::<Bind>(&other_key, good.clone());
            let signature = signed.rsplit_once('.').expect("a JWS").1;
            format!("{}.{}.{signature}", parts[0], parts[1])
        }),
        (
            "without its key",
            headed(&|header| drop(header.as_object_mut().map(|it| it.remove("jwk")))),
        ),
        ("with another key in its header", headed(&|header| header["jwk"] = foreign.clone())),
        ("unsigned", headed(&|header| header["alg"] = json!("none"))),
        ("of another kind", headed(&|header| header["typ"] = json!("enroll+jwt"))),
        (
            "with an address to look for keys at",
            headed(&|header| header["jku"] = json!("http://x")),
        ),
        ("with something critical", headed(&|header| header["crit"] = json!([]))),
        ("for another server", sign(with("aud", json!("https://other.example")))),
        ("from somebody else", sign(with("iss", json!(other_key.public().thumbprint())))),
        ("of another version", sign(with("v", json!(2)))),
        ("with more than it may have", sign(with("user", json!(company.administrator)))),
    ] {
        assert_eq!(laura.post(text).await.problem(), "signature-invalid", "{what}");
    }
    assert!(world.kinds_since(company, recorded).await.is_empty());
    // The control: four tries are used, and the good message binds.
    laura.post(text).await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn security_47_a_key_is_bound_once_by_whomever() {
    let world = World::begin().await;
    let company = &world.company;
    let other = world.another_company("Industrias del Sur S.A.").await;
    let (typed, _) = company.activation_for(&company.laura).await;
    let first = Binder::new(&world, &typed);
    let nonce = first.nonce().await;
    let bound = first.send(first.claims(nonce)).await.expect(201);
    let mut key = first.key;
    let marta = company.person("marta.paz", "Marta Paz").await;
    for (whose, owner, user) in [
        ("another person's", company, &marta),
        ("another company's", &other, &other.laura),
        ("a revoked phone's", company, &company.administrator),
    ] {
        if whose.starts_with("a revoked") {
            let path = format!("/api/v1/devices/{}", bound["device"].as_str().expect("an id"));
            company.program.send("DELETE", &path, &[], None).await.expect(204);
        }
        let (typed, _) = owner.activation_for(user).await;
        let again = Binder::new(&world, &typed).with_key(key);
        let nonce = again.nonce().await;
        let problem = again.send(again.claims(nonce)).await.refused("state-conflict");
        assert!(
            problem["detail"].as_str().is_some_and(|it| it.contains("bound before")),
            "{whose}"
        );
        // The control: the code is not used up, and binds a new key.
        let fresh = Binder::new(&world, &typed);
        fresh.send(fresh.claims(nonce)).await.expect(201);
        key = again.key;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn security_51_every_binding_and_every_change_of_one_is_recorded_for_life() {
    let world = World::begin().await;
    let company = &world.company;
    let recorded = world.trail(company).await.len();
    let first = world.bound_phone(company, &company.laura).await;
    let key = first.raw().public_key().expect("a key").thumbprint();
    let (_, uri) = company.activation_for(&company.laura).await;
    let second = world.phone();
    let number = second.bind(&uri).await.expect("bound").match_number.expect("a number");
    let request = request_on(&first).await;
    first.approve(request.id(), &number).await.expect("approved");
    first.change_keys().await.expect("changed");
    let new_key = first.raw().public_key().expect("a key").thumbprint();
    let gone = first.raw().device().expect("bound");
    first.leave().await.expect("gone");
    let kinds = world.kinds_since(company, recorded).await;
    assert_eq!(
        kinds,
        [
            "activation.issued",
            "device.bound",
            "activation.issued",
            "operation.requested",
            "device.waiting",
            "device.bound",
            "operation.executed",
            "device.key_changed",
            "device.revoked",
        ]
    );
    let trail = world.trail(company).await;
    let record = |place: usize| &trail[recorded + place]["record"];
    assert_eq!(record(1)["detail"]["key"], key.as_str());
    assert_eq!(record(1)["subject"]["user"], company.laura.as_str());
    assert_eq!(record(5)["actor"]["device"]["device"], json!(gone), "the phone that agreed");
    assert_eq!(record(7)["detail"]["key"], new_key.as_str());
    for place in [1, 7, 8] {
        assert_eq!(record(place)["subject"]["device"], json!(gone));
    }
    // Nothing that time brings about takes any of it away.
    world.pass(400 * 24 * 3600).await;
    assert_eq!(world.trail(company).await[..trail.len()], trail);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_a_code_for_somebody_who_takes_no_part() {
    let world = World::begin().await;
    let company = &world.company;
    let (_, uri) = company.activation_for(&company.laura).await;
    company.set_active(&company.laura, false).await;
    world.phone().bind(&uri).await.expect_err("it died with her leave");
    let path = format!("/api/v1/users/{}/activation", company.laura);
    company.program.post(&path, json!({})).await.refused("state-conflict");
    company.set_active(&company.laura, true).await;
    world.phone().bind(&uri).await.expect_err("and does not come back");
    let (_, uri) = company.activation_for(&company.laura).await;
    world.phone().bind(&uri).await.expect("a new one works");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_company_that_takes_no_part_gets_nothing_bound_and_its_codes_are_dead() {
    let world = World::begin().await;
    let company = &world.company;
    let (typed, uri) = company.activation_for(&company.laura).await;
    let begun = Binder::new(&world, &typed);
    let nonce = begun.nonce().await;
    let companies = format!("/api/v1/companies/{}", company.id);
    for active in [false, true] {
        let body = Some(json!({"active": active}));
        world.operator.send("PATCH", &companies, &[], body).await.expect(200);
        begun.send(begun.claims(nonce)).await.refused("activation-invalid");
        begun.start().await.refused("activation-invalid");
        world.phone().bind(&uri).await.expect_err("dead, and dead it stays");
    }
    let (_, uri) = company.activation_for(&company.laura).await;
    world.phone().bind(&uri).await.expect("a new one works");
}

#[tokio::test(flavor = "multi_thread")]
async fn security_44_a_code_that_many_use_at_once_binds_one_phone() {
    let world = World::begin().await;
    let company = &world.company;
    let (typed, _) = company.activation_for(&company.laura).await;
    let binders: Vec<_> = (0..20).map(|_| Binder::new(&world, &typed)).collect();
    let nonce = binders[0].nonce().await;
    let sent = binders.iter().map(|binder| binder.send(binder.claims(nonce)));
    let answers = futures_util::future::join_all(sent).await;
    let bound = answers.iter().filter(|answer| answer.status == 201).count();
    assert_eq!(bound, 1);
    for answer in answers.into_iter().filter(|answer| answer.status != 201) {
        answer.refused("activation-invalid");
    }
    assert_eq!(company.program.get("/api/v1/devices").await.expect(200)["total"], 1);
    let kinds = world.kinds_since(company, 0).await;
    assert_eq!(kinds.iter().filter(|kind| *kind == "device.bound").count(), 1);
    assert_whole(&world).await;
}
