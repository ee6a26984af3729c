//! The audit trail: each change leaves exactly its record, reads leave none, and where no
//! record can be written nothing is done (security 89, 90).

use semilla_core::protocol::approval::DenialReason;
use semilla_server::workflow::trail;
use semilla_tests::bodies;
use semilla_tests::http::{Expect, Program};
use semilla_tests::process::sqlite;
use semilla_tests::socket;
use semilla_tests::world::{Active, World};
use serde_json::{Value, json};

use crate::flow::approve;

/// Looks at both chains around each step of a story.
struct Books<'w> {
    world: &'w World,
    company: usize,
    bank: u64,
}

impl<'w> Books<'w> {
    async fn open(world: &'w World) -> Self {
        // Their access tokens are there before anything is counted.
        let company = world.trail(&world.company).await.len();
        Self { world, company, bank: world.trail_length_of_bank().await }
    }

    /// That exactly these kinds were recorded since, in this order: in the company's chain and in
    /// the bank's.
    async fn have(&mut self, what: &str, company: &[&str], bank: &[&str]) {
        let kinds = self.world.kinds_since(&self.world.company, self.company).await;
        assert_eq!(kinds, company, "{what}, in the company's chain");
        self.company += kinds.len();
        let records = self.world.bank_records_since(self.bank, "").await;
        let kinds: Vec<_> =
            records.iter().map(|record| record["kind"].as_str().expect("a kind")).collect();
        assert_eq!(kinds, bank, "{what}, in the bank's chain");
        self.bank += kinds.len() as u64;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn security_89_each_change_of_a_token_leaves_exactly_its_record() {
    let world = World::begin().await;
    let (company, program) = (&world.company, &world.company.program);
    let mut books = Books::open(&world).await;

    let issue = json!({"first": "ABC0000001", "count": 3});
    let issued = world.operator.post("/api/v1/stock/issue", issue).await.expect(200);
    books.have("issue of three", &[], &["token.issued"; 3]).await;
    let allot = json!({"first": "ABC0000001", "count": 2, "company": company.id});
    world.operator.post("/api/v1/stock/allot", allot).await.expect(200);
    books.have("allot of two", &["token.allotted"; 2], &["token.allotted"; 2]).await;
    world
        .operator
        .post("/api/v1/stock/withdraw", json!({"first": "ABC0000002", "count": 1}))
        .await
        .expect(200);
    books.have("withdraw", &["token.withdrawn"], &["token.withdrawn"]).await;
    world
        .operator
        .post("/api/v1/stock/retire", json!({"first": "ABC0000002", "count": 1}))
        .await
        .expect(200);
    books.have("retire", &[], &["token.retired"]).await;

    let administrator = world.bound_phone(company, &company.administrator).await;
    books.have("bind a phone", &["activation.issued", "device.bound"], &[]).await;

    let token = format!("/api/v1/tokens/{}", issued["tokens"][0]["id"].as_str().expect("an id"));
    let assign = json!({"user": company.laura});
    let opened = program.post(&format!("{token}/assign"), assign).await.expect(201);
    books.have("assign", &["token.assigned"], &[]).await;
    let opened = program.post(&format!("{token}/enrollments"), json!({})).await.expect(201)["enrollment"]["id"]
        .as_str()
        .map_or_else(|| panic!("no enrollment: {opened}"), str::to_owned);
    books.have("enroll anew", &["enrollment.cancelled", "enrollment.opened"], &[]).await;
    let phone = world.enrolled_phone(company, &opened).await;
    let enrolled = [
        "activation.issued",
        "device.bound",
        "enrollment.delivered",
        "otp.checked",
        "token.enrolled",
    ];
    books.have("bind and enroll", &enrolled, &[]).await;

    world.clock.advance(std::time::Duration::from_secs(30));
    let active = Active {
        token: issued["tokens"][0]["id"].as_str().expect("an id").to_owned(),
        serial: "ABC0000001".to_owned(),
        phone,
        administrator,
    };
    assert!(program.verify(&active.token, &active.code()).await);
    books.have("a good code", &["otp.checked"], &[]).await;
    assert!(!program.verify(&active.token, &active.code()).await);
    books.have("a used code", &["otp.checked"], &[]).await;
    assert!(!program.verify("no such token", "00000000").await);
    books.have("a code of nothing", &["otp.checked"], &[]).await;

    program.post(&format!("{token}/block"), json!({"cause": "user_inactive"})).await.expect(200);
    books.have("block", &["token.blocked"], &[]).await;
    program
        .post(&format!("{token}/block"), json!({"cause": "user_inactive"}))
        .await
        .refused("state-conflict");
    books.have("block again: refused", &[], &[]).await;

    let asked = program.post(&format!("{token}/unblock"), json!({})).await.expect(202);
    books.have("ask for unblock", &["operation.requested"], &[]).await;
    program.post(&format!("{token}/unblock"), json!({})).await.expect(202);
    books.have("ask for the same again", &[], &[]).await;
    approve(&world, &active.administrator, &asked).await;
    books.have("approve unblock", &["token.unblocked", "operation.executed"], &[]).await;

    let rotate = json!({"cause": "suspicion"});
    let asked = program.post(&format!("{token}/rotate"), rotate).await.expect(202);
    books.have("ask for rotate", &["operation.requested"], &[]).await;
    approve(&world, &active.phone, &asked).await;
    books.have("approve rotate", &["token.rotated", "operation.executed"], &[]).await;
    // The step of the last good code is used, for every generation.
    world.clock.advance(std::time::Duration::from_secs(30));
    active.phone.enroll_next().await.expect("a new seed");
    let proven = ["enrollment.delivered", "otp.checked", "token.rotated"];
    books.have("prove the new seed", &proven, &[]).await;

    let release = json!({"cause": "seed_release"});
    let asked = program.post(&format!("{token}/release"), release.clone()).await.expect(202);
    books.have("ask for release", &["operation.requested"], &[]).await;
    let id = asked["id"].as_str().expect("an id");
    program.send("DELETE", &format!("/api/v1/operations/{id}"), &[], None).await.expect(200);
    books.have("cancel it", &["operation.cancelled"], &[]).await;

    let asked = program.post(&format!("{token}/release"), release.clone()).await.expect(202);
    let inbox = active.administrator.inbox().await.expect("an inbox");
    let wrong = if asked["match_number"] == "000000" { "000001" } else { "000000" };
    assert!(active.administrator.approve(inbox.requests[0].id(), wrong).await.is_err());
    books.have("a wrong number", &["operation.requested", "operation.failed"], &[]).await;

    program.post(&format!("{token}/release"), release.clone()).await.expect(202);
    let inbox = active.administrator.inbox().await.expect("an inbox");
    active
        .administrator
        .deny(inbox.requests[0].id(), DenialReason::UserCancelled)
        .await
        .expect("denied");
    books.have("deny", &["operation.requested", "operation.denied"], &[]).await;

    let asked = program.post(&format!("{token}/release"), release).await.expect(202);
    approve(&world, &active.administrator, &asked).await;
    let released = ["operation.requested", "token.released", "operation.executed"];
    books.have("release", &released, &[]).await;
    assert_whole(&world).await;
}

/// That every chain of this world is whole.
pub(crate) async fn assert_whole(world: &World) {
    let reports = trail::verify(world.server().app.store.as_ref()).await.expect("a check");
    assert!(reports.iter().all(|report| report.tampered.is_none()), "{reports:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn security_89_each_change_of_people_phones_programs_and_policy_leaves_exactly_its_record() {
    let (world, active) = World::with_active_token().await;
    let (company, program) = (&world.company, &world.company.program);
    let mut books = Books::open(&world).await;

    let marta = json!({"login": "marta.paz", "name": "Marta Paz"});
    let marta = program.post("/api/v1/users", marta).await.expect(201);
    books.have("a person", &["user.created"], &[]).await;
    let path = format!("/api/v1/users/{}", marta["id"].as_str().expect("an id"));
    program.send("PATCH", &path, &[], Some(json!({"name": "Marta Paz Ríos"}))).await.expect(200);
    books.have("another name", &["user.changed"], &[]).await;
    program.send("PATCH", &path, &[], Some(json!({"active": false}))).await.expect(200);
    books.have("deactivated", &["user.deactivated"], &[]).await;
    program.send("PATCH", &path, &[], Some(json!({"active": true}))).await.expect(200);
    books.have("activated", &["user.activated"], &[]).await;
    let laura = format!("/api/v1/users/{}", company.laura);
    program.send("PATCH", &laura, &[], Some(json!({"active": false}))).await.expect(200);
    books.have("Laura deactivated", &["user.deactivated", "token.blocked"], &[]).await;
    program.send("PATCH", &laura, &[], Some(json!({"active": true}))).await.expect(200);
    books.have("Laura activated: her token stays blocked", &["user.activated"], &[]).await;

    let mut policy = bodies::policy();
    policy["approval_seconds"] = 120.into();
    program.send("PUT", "/api/v1/policies", &[], Some(policy)).await.expect(200);
    books.have("a policy", &["policy.changed"], &[]).await;
    let mut policy = bodies::policy();
    policy["authorizer"] = "another_administrator".into();
    program.send("PUT", "/api/v1/policies", &[], Some(policy)).await.refused("validation");
    books.have("a policy that nobody could satisfy", &[], &[]).await;

    let device = active.phone.raw().device().expect("a phone");
    program.send("DELETE", &format!("/api/v1/devices/{device}"), &[], None).await.expect(204);
    // Her token was blocked; now its seed is gone as well.
    books.have("a phone revoked", &["device.revoked", "token.blocked"], &[]).await;

    let companies = format!("/api/v1/companies/{}", company.id);
    let other = json!({"login": "rosa.mejia", "name": "Rosa Mejía"});
    world.operator.post(&format!("{companies}/administrators"), other).await.expect(201);
    books.have("another administrator", &["user.created"], &[]).await;
    let client = json!({"name": "Otro", "scopes": ["tokens:read"]});
    let client = world.operator.post(&format!("{companies}/clients"), client).await.expect(201);
    books.have("a program", &["client.created"], &[]).await;
    let other = Program::of(world.http(), &client);
    other.get("/api/v1/tokens").await.expect(200);
    books.have("it authenticates", &["client.authenticated"], &[]).await;
    other.get("/api/v1/users").await.refused("forbidden");
    let end = format!("{companies}/clients/{}", other.0.id);
    world.operator.send("DELETE", &end, &[], None).await.expect(204);
    books.have("it ends", &["client.ended"], &[]).await;
    assert_eq!(other.0.ask_for_access_token("").await.expect("an answer").status, 401);
    books.have("it tries again", &["client.refused"], &[]).await;

    let sur = json!({"name": "Industrias del Sur", "administrator": {"login": "ximena.rey", "name": "Ximena Rey"}});
    world.operator.post("/api/v1/companies", sur).await.expect(201);
    books.have("another company", &[], &["company.created"]).await;
    world.operator.send("PATCH", &companies, &[], Some(json!({"active": false}))).await.expect(200);
    world.operator.send("PATCH", &companies, &[], Some(json!({"active": true}))).await.expect(200);
    let both = ["company.deactivated", "company.activated"];
    books.have("the company off and on", &both, &both).await;
    assert_whole(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_leave_no_record() {
    let (world, active) = World::with_active_token().await;
    let mut books = Books::open(&world).await;
    let places = semilla_tests::places::Places::nowhere()
        .with("tokens", &active.token)
        .with("users", &world.company.laura)
        .with("companies", &world.company.id);
    let mut seen = 0;
    for route in
        semilla_server::http::routes().iter().filter(|route| route.method.as_str() == "GET")
    {
        let path = places.at(route.path);
        // Streams do not end; they are a story of their own.
        if route.path.starts_with("/api/v1/") && route.path != "/api/v1/events" {
            for program in [&world.company.program, &world.operator] {
                assert!(!program.get(&path).await.status.is_server_error(), "{path}");
            }
            seen += 1;
        }
    }
    active.phone.sync().await.expect("in step");
    active.phone.inbox().await.expect("an inbox");
    assert!(seen >= 14, "only {seen} reads");
    books.have("every read there is", &[], &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trail_is_read_page_by_page_and_by_token_and_kind() {
    let (world, active) = World::with_active_token().await;
    let program = &world.company.program;
    let whole = world.trail(&world.company).await;
    let (mut walked, mut after) = (Vec::new(), "0".to_owned());
    loop {
        let page = program.get(&format!("/api/v1/audit?limit=3&after={after}")).await.expect(200);
        assert_eq!(page["total"], whole.len());
        page["next_cursor"].as_str().expect("a cursor").clone_into(&mut after);
        match page["items"].as_array().expect("items") {
            items if items.is_empty() => break,
            items => walked.extend(items.clone()),
        }
    }
    assert_eq!(walked, whole);
    let numbers: Vec<_> =
        whole.iter().map(|item| item["sequence"].as_u64().expect("a number")).collect();
    assert_eq!(numbers, (1..=whole.len() as u64).collect::<Vec<_>>());
    let by = async |query: &str| {
        let page = program.get(&format!("/api/v1/audit?limit=100&{query}")).await.expect(200);
        page["items"].as_array().expect("items").clone()
    };
    let of_token = by(&format!("token={}", active.token)).await;
    let about: Vec<Value> = whole
        .iter()
        .filter(|item| item["record"]["subject"]["token"] == active.token.as_str())
        .cloned()
        .collect();
    assert!(about.len() >= 3);
    assert_eq!(of_token, about);
    assert_eq!(by("kind=token.assigned").await.len(), 1);
    let group = by("kind=token.").await;
    assert!(
        group.len() > 1
            && group.iter().all(|item| item["record"]["kind"]
                .as_str()
                .is_some_and(|kind| kind.starts_with("token.")))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_told_as_they_happen_and_a_lost_stream_goes_on_where_it_was() {
    let world = World::begin().await;
    let base = world.http().base().to_owned();
    let bearer =
        format!("Bearer {}", world.company.program.0.access_token().await.expect("a token"));
    let known = world.trail(&world.company).await.len();
    let last = known.to_string();
    let listen = async |from: &str| {
        let headers = [("Authorization", bearer.as_str()), ("Last-Event-ID", from)];
        let mut stream = socket::connect(&base).await;
        let bytes = socket::request("GET", "/api/v1/events", &headers, b"");
        tokio::io::AsyncWriteExt::write_all(&mut stream, &bytes).await.expect("sent");
        stream
    };
    let mut stream = listen(&last).await;
    let head =
        String::from_utf8(socket::read_until(&mut stream, b"\r\n\r\n").await).expect("UTF-8");
    assert!(head.contains("text/event-stream"), "{head}");
    let user = async |login: &str| {
        let user = json!({"login": login, "name": "Alguien"});
        world.company.program.post("/api/v1/users", user).await.expect(201);
    };
    user("uno").await;
    let told = String::from_utf8(socket::read_until(&mut stream, b"\"uno\"").await).expect("UTF-8");
    assert!(
        told.contains(&format!("id: {}", known + 1)) && told.contains("user.created"),
        "{told}"
    );
    drop(stream);
    user("dos").await;
    user("tres").await;
    let mut stream = listen(&(known + 1).to_string()).await;
    let told =
        String::from_utf8(socket::read_until(&mut stream, b"\"tres\"").await).expect("UTF-8");
    assert!(told.contains("\"dos\"") && !told.contains("\"uno\""), "{told}");
    for wrong in ["x", "-1", "99999999999999999999999"] {
        let headers = [("Authorization", bearer.as_str()), ("Last-Event-ID", wrong)];
        let answer =
            socket::head(&base, &socket::request("GET", "/api/v1/events", &headers, b"")).await;
        assert!((400..500).contains(&answer.status), "{wrong}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn security_90_nothing_is_done_where_no_record_can_be_written() {
    let (world, active) = World::with_active_token().await;
    let program = &world.company.program;
    let token = format!("/api/v1/tokens/{}", active.token);
    let before = world.trail(&world.company).await.len();
    let database = world.data().join("semilla.db");
    // As if the audit store were gone: whatever is written to it fails.
    sqlite(
        &database,
        "CREATE TRIGGER gone BEFORE INSERT ON audit BEGIN INSERT INTO no_such_table VALUES (1); END",
    );
    let code = active.code();
    program
        .post(&format!("{token}/block"), json!({"cause": "user_inactive"}))
        .await
        .refused("unavailable");
    let body = json!({"token": active.token, "code": code});
    program.post("/api/v1/otp/verify", body).await.refused("unavailable");
    let user = json!({"login": "nadie", "name": "Nadie"});
    program.post("/api/v1/users", user.clone()).await.refused("unavailable");
    let release = json!({"cause": "seed_release"});
    program.post(&format!("{token}/release"), release).await.refused("unavailable");
    assert_eq!(program.0.ask_for_access_token("").await.expect("an answer").status, 503);
    sqlite(&database, "DROP TRIGGER gone");
    // Nothing happened meanwhile, not even to the code.
    assert_eq!(program.get(&token).await.expect(200)["state"], "active");
    assert_eq!(world.trail(&world.company).await.len(), before);
    assert!(active.administrator.inbox().await.expect("an inbox").requests.is_empty());
    assert!(program.verify(&active.token, &code).await);
    program.post("/api/v1/users", user).await.expect(201);
    assert_whole(&world).await;
}
