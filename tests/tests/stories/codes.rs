//! Codes: which are accepted, what every other one is told, and how often one may try (security
//! sections A, B and C). All refusals look alike; what each was, the record of attempts says.

use std::collections::BTreeMap;
use std::time::Duration;

use semilla_core::otp::Step;
use semilla_server::app::ProgramLimits;
use semilla_tests::http::{Expect, Program, Reply};
use semilla_tests::world::{Active, Company, Settings, World};
use serde_json::{Value, json};

const VERIFY: &str = "/api/v1/otp/verify";

async fn send(program: &Program, token: &str, code: &str) -> Reply {
    program.post(VERIFY, json!({"token": token, "code": code})).await
}

/// The code of a moment.
fn code_at(phone: &semilla_approver::Phone, serial: &str, seconds: i64) -> String {
    let step = Step(u64::try_from(seconds / 30).expect("after 1970"));
    phone.raw().code_at(serial, step).expect("a code").code.expose().to_owned()
}

/// A code of the right form that is none of those around now.
fn wrong(active: &Active) -> String {
    let live = active.code();
    let other = if live.starts_with('0') { "1" } else { "0" };
    format!("{other}{}", &live[1..])
}

/// Sends one code so many times at once, over connections that are open already: where each opens
/// its own first, the first is done before the last arrives.
async fn at_once(program: &Program, count: usize, token: &str, code: &str) -> Vec<Reply> {
    let warm = (0..count).map(|_| program.http().send("GET", "/healthz", &[], b""));
    futures_util::future::join_all(warm).await;
    futures_util::future::join_all((0..count).map(|_| send(program, token, code))).await
}

/// How many attempts came to each outcome.
async fn tally(world: &World) -> BTreeMap<String, usize> {
    let mut tally = BTreeMap::new();
    for outcome in world.outcomes(&world.company).await {
        let word = outcome.split(':').next().unwrap_or_default().to_owned();
        *tally.entry(word).or_default() += 1;
    }
    tally
}

#[tokio::test(flavor = "multi_thread")]
async fn security_2_only_the_digits_themselves_are_a_code() {
    let (world, active) = World::with_active_token().await;
    let program = &world.company.program;
    let code = active.code();
    let full_width: String =
        code.chars().map(|c| char::from_u32(c as u32 - 0x30 + 0xff10).expect("a digit")).collect();
    let arabic: String =
        code.chars().map(|c| char::from_u32(c as u32 - 0x30 + 0x660).expect("a digit")).collect();
    let (half, rest) = code.split_at(4);
    let variants = [
        format!(" {code}"),
        format!("{code} "),
        format!("\t{code}"),
        format!("{code}\n"),
        format!("{code}\r\n"),
        format!("{half} {rest}"),
        format!("{half}-{rest}"),
        format!("{half}_{rest}"),
        format!("{half},{rest}"),
        format!("{half}.{rest}"),
        format!("+{code}"),
        format!("-{code}"),
        format!("0{code}"),
        format!("{code}0"),
        format!("0x{code}"),
        format!("{code}\u{0}"),
        format!("\u{0}{code}"),
        format!("\u{200b}{code}"),
        format!("{half}\u{200b}{rest}"),
        format!("{code}\u{feff}"),
        format!("\u{feff}{code}"),
        format!("\u{202e}{code}"),
        format!("{code}\u{a0}"),
        format!("{code}e0"),
        format!("{code}.0"),
        format!("'{code}'"),
        format!("\"{code}\""),
        format!("{code}{code}"),
        code[1..].to_owned(),
        code[..7].to_owned(),
        code[..6].to_owned(),
        String::new(),
        " ".to_owned(),
        full_width,
        arabic,
        "otp".to_owned(),
        "²²²²²²²²".to_owned(),
        "①②③④⑤⑥⑦⑧".to_owned(),
        "null".to_owned(),
        "%30%31".to_owned(),
        "9".repeat(200),
    ];
    for variant in &variants {
        assert!(!program.verify(&active.token, variant).await, "{variant:?}");
    }
    for value in [json!(12_345_678), json!(null), json!([code]), json!({"code": code}), json!(true)]
    {
        let refused = program.post(VERIFY, json!({"token": active.token, "code": value})).await;
        refused.refused("validation");
    }
    assert_eq!(tally(&world).await.get("malformed"), Some(&variants.len()));
    assert!(program.verify(&active.token, &code).await, "none of them was counted, or used it up");
}

#[tokio::test(flavor = "multi_thread")]
async fn security_4_and_24_one_step_early_and_late_is_accepted_and_two_are_not() {
    for (offset, accepted) in [(-2, false), (-1, true), (0, true), (1, true), (2, false)] {
        let (world, active) = World::with_active_token().await;
        let program = &world.company.program;
        // A phone whose clock is off by as many steps.
        world.pass(300).await;
        let seconds = world.now().seconds() as i64 + offset * 30;
        let code = code_at(&active.phone, &active.serial, seconds);
        assert_eq!(program.verify(&active.token, &code).await, accepted, "{offset}");
        if offset == 0 {
            let before = code_at(&active.phone, &active.serial, seconds - 30);
            assert!(!program.verify(&active.token, &before).await, "all before it are dead");
            let after = code_at(&active.phone, &active.serial, seconds + 30);
            assert!(program.verify(&active.token, &after).await, "a later one is not");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn security_5_nothing_in_a_request_says_what_time_it_is() {
    let (world, active) = World::with_active_token().await;
    let program = &world.company.program;
    let late = code_at(&active.phone, &active.serial, world.now().seconds() as i64 + 3600);
    for name in ["time", "timestamp", "at", "step", "counter", "now"] {
        let body = json!({"token": active.token, "code": late, name: world.now().seconds() + 3600});
        program.post(VERIFY, body).await.refused("validation");
    }
    let headers = [("Date", "Thu, 15 Jan 2026 16:00:00 GMT"), ("X-Time", "1768492800")];
    let body = json!({"token": active.token, "code": late});
    let answer = program.send("POST", VERIFY, &headers, Some(body)).await.expect(200);
    assert_eq!(answer, json!({"accepted": false}));
}

/// Everything that an answer tells, but for what differs between any two.
fn told(reply: &Reply) -> (u16, Vec<(String, String)>, Vec<u8>) {
    let mut headers: Vec<_> = reply
        .headers
        .iter()
        .filter(|(name, _)| !matches!(name.as_str(), "date" | "x-request-id"))
        .map(|(name, value)| (name.to_string(), value.to_str().expect("text").to_owned()))
        .collect();
    headers.sort();
    (reply.status.as_u16(), headers, reply.body.to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn security_10_every_refusal_is_the_same_to_the_byte() {
    let (world, active) = World::with_active_token().await;
    let program = &world.company.program;
    let other = world.another_company("Industrias del Sur").await;
    let foreign = world.active_token(&other).await;
    world.pass(30).await;
    let mut answers = Vec::new();

    // A code that a stranger's company would accept, of a token that is not ours.
    answers.push(send(program, &foreign.token, &foreign.code()).await);
    answers.push(send(program, &foreign.serial, &foreign.code()).await);
    answers.push(send(program, "019ac6a5-1c00-7000-8000-00000000dead", &active.code()).await);
    answers.push(send(program, "ABC0000001", &active.code()).await);
    answers.push(send(program, "no token", &active.code()).await);
    let by_user = json!({"user": "nobody.here", "code": active.code()});
    answers.push(program.post(VERIFY, by_user).await);
    answers.push(send(program, &active.token, &wrong(&active)).await);
    answers.push(send(program, &active.token, "no code").await);
    let code = active.code();
    assert!(program.verify(&active.token, &code).await, "the control");
    answers.push(send(program, &active.token, &code).await);
    world.pass(30).await;
    for _ in 0..5 {
        answers.push(send(program, &active.token, &wrong(&active)).await);
    }
    answers.push(send(program, &active.token, &active.code()).await);
    world.pass(300).await;
    let block = format!("/api/v1/tokens/{}/block", active.token);
    program.post(&block, json!({"cause": "user_inactive"})).await.expect(200);
    answers.push(send(program, &active.token, &active.code()).await);
    let (in_pool, _) = world.token_in_pool(&world.company).await;
    answers.push(send(program, &in_pool, &active.code()).await);

    for answer in &answers {
        assert_eq!(told(answer), told(&answers[0]));
    }
    assert_eq!(answers[0].body, br#"{"accepted":false}"#.as_slice());
    let tally = tally(&world).await;
    let expected = [
        ("accepted", 1),
        ("closed", 1),
        ("malformed", 1),
        ("proved", 1),
        ("unknown", 7),
        ("used", 1),
        ("waiting", 2),
        ("wrong", 5),
    ];
    // The used code counts as a failure: the fifth failure is the fourth wrong code after it.
    assert_eq!(tally, expected.map(|(word, count)| (word.to_owned(), count)).into());
    assert!(other.program.verify(&foreign.token, &foreign.code()).await, "the foreign one works");
}

#[tokio::test(flavor = "multi_thread")]
async fn security_13_14_and_17_five_failures_bring_a_wait_that_outlives_a_restart() {
    let (mut world, active) = World::with_active_token().await;
    for _ in 0..5 {
        assert!(!world.company.program.verify(&active.token, &wrong(&active)).await);
    }
    world.restart().await;
    // 5 s for each of five failures: the right code is refused, and not burned.
    let program = &world.company.program;
    assert!(!program.verify(&active.token, &active.code()).await);
    world.clock.advance(Duration::from_secs(24));
    assert!(!program.verify(&active.token, &active.code()).await);
    world.clock.advance(Duration::from_secs(1));
    assert!(program.verify(&active.token, &active.code()).await);
    let tally = tally(&world).await;
    assert_eq!((tally.get("wrong"), tally.get("waiting")), (Some(&5), Some(&2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn security_15_and_22_fifty_failures_block_and_the_company_is_told_before() {
    let (world, active) = World::with_active_token().await;
    let program = &world.company.program;
    let from = world.trail(&world.company).await.len();
    for failures in 1..=50 {
        assert!(!program.verify(&active.token, &wrong(&active)).await);
        world.clock.advance(Duration::from_secs(5 * failures));
    }
    let token = program.get(&format!("/api/v1/tokens/{}", active.token)).await.expect(200);
    assert_eq!(token["state"], "blocked");
    assert_eq!(token["last_cause"], "too_many_failures");
    assert_eq!(tally(&world).await.get("wrong"), Some(&50), "each of them was looked at");
    world.clock.advance(Duration::from_secs(100_000));
    assert!(!program.verify(&active.token, &active.code()).await, "no waiting opens it again");
    let told: Vec<_> = world
        .kinds_since(&world.company, from)
        .await
        .into_iter()
        .filter(|kind| kind.starts_with("otp.") && kind != "otp.checked")
        .collect();
    assert_eq!(told, ["otp.waiting_began", "otp.block_is_near"]);

    // Only an approved operation opens it again.
    let unblock = format!("/api/v1/tokens/{}/unblock", active.token);
    let asked = program.post(&unblock, json!({})).await.expect(202);
    crate::flow::approve(&world, &active.administrator, &asked).await;
    assert!(program.verify(&active.token, &active.code()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn security_16_of_two_hundred_wrong_codes_at_once_no_more_than_five_are_looked_at() {
    let (world, active) = World::with_active_token().await;
    let code = wrong(&active);
    for answer in at_once(&world.company.program, 200, &active.token, &code).await {
        assert_eq!(answer.expect(200), json!({"accepted": false}));
    }
    let tally = tally(&world).await;
    assert_eq!((tally.get("wrong"), tally.get("waiting")), (Some(&5), Some(&195)));
}

#[tokio::test(flavor = "multi_thread")]
async fn security_18_a_success_forgives_the_failures_of_its_own_token_alone() {
    let (world, active) = World::with_active_token().await;
    let program = &world.company.program;
    let pedro = json!({"login": "pedro.salas", "name": "Pedro Salas"});
    let pedro = program.post("/api/v1/users", pedro).await.expect(201);
    let (token, serial, enrollment) =
        world.assigned(&world.company, pedro["id"].as_str().expect("an id")).await;
    let phone = world.enrolled_phone(&world.company, &enrollment).await;
    world.pass(30).await;
    let code = |serial: &str, phone: &semilla_approver::Phone| {
        code_at(phone, serial, world.now().seconds() as i64)
    };
    for _ in 0..4 {
        assert!(!program.verify(&active.token, &wrong(&active)).await);
        assert!(!program.verify(&token, "00000000").await);
    }
    assert!(program.verify(&active.token, &active.code()).await);
    assert!(!program.verify(&active.token, &wrong(&active)).await, "the first of five again");
    world.pass(30).await;
    assert!(program.verify(&active.token, &active.code()).await);
    assert!(!program.verify(&token, "00000000").await, "the fifth of the other");
    assert!(!program.verify(&token, &code(&serial, &phone)).await, "so that it waits");
    world.pass(30).await;
    assert!(program.verify(&token, &code(&serial, &phone)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn security_19_whoever_tries_foreign_tokens_locks_nobody_out_and_pays_for_it() {
    let limits = ProgramLimits { requests_per_second: 0, failed_codes_per_minute: 20 };
    let settings = Settings { program_limits: limits, ..Settings::default() };
    let world = World::set_to(settings).await;
    let active = world.active_token(&world.company).await;
    let other = world.another_company("Industrias del Sur").await;
    for _ in 0..20 {
        assert!(!other.program.verify(&active.token, &wrong(&active)).await);
    }
    let refused = send(&other.program, &active.token, "00000000").await;
    assert!(!refused.header("retry-after").is_empty());
    refused.refused("rate-limited");
    // Also the next thing it tries, whatever it is; and the victim knows nothing of it.
    send(&other.program, "019ac6a5-1c00-7000-8000-00000000dead", "0").await.refused("rate-limited");
    assert!(world.company.program.verify(&active.token, &active.code()).await);
    // What succeeds costs nothing.
    for _ in 0..25 {
        world.pass(30).await;
        assert!(world.company.program.verify(&active.token, &active.code()).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn security_103_a_program_that_asks_too_much_is_told_when_to_come_back() {
    let limits = ProgramLimits { requests_per_second: 5, failed_codes_per_minute: 0 };
    let settings = Settings { program_limits: limits, ..Settings::default() };
    let world = World::set_to(settings).await;
    let program = &world.company.program;
    let sent = (0..100).map(|_| program.get("/api/v1/tokens"));
    let answers = futures_util::future::join_all(sent).await;
    let (fine, refused): (Vec<_>, Vec<_>) =
        answers.into_iter().partition(|answer| answer.status.as_u16() == 200);
    assert!((1..=20).contains(&fine.len()), "{} of 100", fine.len());
    for answer in refused {
        assert!(answer.header("retry-after").parse::<u64>().expect("seconds") >= 1);
        answer.refused("rate-limited");
    }
    // Another company is not held back by it.
    world.operator.get("/api/v1/companies").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn security_20_many_failures_over_all_companies_raise_an_alarm_once() {
    let world =
        World::set_to(Settings { alarm_failures_per_minute: 20, ..Settings::default() }).await;
    let active = world.active_token(&world.company).await;
    let other = world.another_company("Industrias del Sur").await;
    let from = world.trail_length_of_bank().await;
    for count in 0..19 {
        let company: &Company = if count % 2 == 0 { &other } else { &world.company };
        assert!(!company.program.verify(&active.token, "no code").await);
    }
    assert!(world.bank_records_since(from, "alarm.failure_rate").await.is_empty());
    assert!(!other.program.verify(&active.token, "no code").await);
    let alarms = world.bank_records_since(from, "alarm.failure_rate").await;
    assert_eq!(alarms.len(), 1);
    assert_eq!(alarms[0]["detail"]["failures_per_minute"], "20");
    // Slower than that, over a longer time, is what a company's people do.
    for _ in 0..40 {
        world.clock.advance(Duration::from_secs(4));
        assert!(!other.program.verify(&active.token, "no code").await);
    }
    assert_eq!(world.bank_records_since(from, "alarm.failure_rate").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn security_21_confirming_an_enrollment_and_verifying_share_one_counter() {
    let (world, active) = World::with_active_token().await;
    let program = &world.company.program;
    // A rotation is open: its proof is tried with wrong codes.
    let rotate = format!("/api/v1/tokens/{}/rotate", active.token);
    let asked = program.post(&rotate, json!({"cause": "scheduled"})).await.expect(202);
    crate::flow::approve(&world, &active.phone, &asked).await;
    let enrollment = active.phone.enrollments().await.expect("asked").remove(0).enrollment;
    active.phone.receive_seed(enrollment).await.expect("delivered");
    let confirm = format!("/device/v1/enrollments/{enrollment}/confirm");
    for _ in 0..3 {
        let body = json!({"code": "00000000"}).to_string();
        let answer =
            active.phone.raw().send("POST", &confirm, Some(&body)).await.expect("an answer");
        assert_eq!(answer.status, 422);
    }
    for _ in 0..2 {
        assert!(!program.verify(&active.token, &wrong(&active)).await);
    }
    assert!(!program.verify(&active.token, &active.code()).await, "five in all: it waits");
    let tally = tally(&world).await;
    assert_eq!((tally.get("wrong"), tally.get("waiting")), (Some(&5), Some(&1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn security_22_failures_followed_by_success_are_told() {
    let (world, active) = World::with_active_token().await;
    let from = world.trail(&world.company).await.len();
    let program = &world.company.program;
    for failures in 1..=6 {
        assert!(!program.verify(&active.token, &wrong(&active)).await);
        world.clock.advance(Duration::from_secs(5 * failures));
    }
    assert!(program.verify(&active.token, &active.code()).await);
    let told = world.records_since(&world.company, from, "otp.accepted_after_failures").await;
    assert_eq!(told.len(), 1);
    assert_eq!(told[0]["detail"]["failures"], "6");
    assert_eq!(told[0]["subject"]["token"], active.token.as_str());
}

#[tokio::test(flavor = "multi_thread")]
async fn security_23_of_two_hundred_sends_of_one_code_one_is_accepted() {
    let (world, active) = World::with_active_token().await;
    let code = active.code();
    let answers = at_once(&world.company.program, 200, &active.token, &code).await;
    let accepted = answers.into_iter().filter(|answer| answer.json()["accepted"] == true).count();
    assert_eq!(accepted, 1);
    let tally = tally(&world).await;
    assert_eq!(tally.get("accepted"), Some(&1));
    // The others were used codes until the token had to wait.
    let others =
        tally.get("used").copied().unwrap_or(0) + tally.get("waiting").copied().unwrap_or(0);
    assert_eq!(others, 199);
}

#[tokio::test(flavor = "multi_thread")]
async fn security_23_and_29_a_used_code_stays_used_over_a_restart_and_a_new_generation() {
    let (mut world, active) = World::with_active_token().await;
    let code = active.code();
    assert!(world.company.program.verify(&active.token, &code).await);
    world.restart().await;
    assert!(!world.company.program.verify(&active.token, &code).await);
    let program = &world.company.program;
    let rotate = format!("/api/v1/tokens/{}/rotate", active.token);
    let asked = program.post(&rotate, json!({"cause": "scheduled"})).await.expect(202);
    crate::flow::approve(&world, &active.phone, &asked).await;
    world.pass(30).await;
    let old = active.code();
    active.phone.enroll_next().await.expect("the new seed is proven");
    assert!(!program.verify(&active.token, &old).await, "a fresh code of the old generation");
    assert!(
        !program.verify(&active.token, &active.code()).await,
        "security 26: the one that proved it"
    );
    world.pass(30).await;
    assert!(program.verify(&active.token, &active.code()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_as_good_a_name_as_a_token_or_a_serial_number() {
    let (world, active) = World::with_active_token().await;
    let program = &world.company.program;
    for body in [
        json!({"token": active.token}),
        json!({"token": active.serial}),
        json!({"user": world.company.laura}),
        json!({"user": "laura.valencia"}),
    ] {
        let mut body = body;
        body["code"] = Value::String(active.code());
        let answer = program.post(VERIFY, body.clone()).await.expect(200);
        assert_eq!(answer["accepted"], true, "{body}");
        world.pass(30).await;
    }
    program.post(VERIFY, json!({"code": active.code()})).await.refused("validation");
    let both = json!({"token": active.token, "user": "laura.valencia", "code": active.code()});
    program.post(VERIFY, both).await.refused("validation");
}
