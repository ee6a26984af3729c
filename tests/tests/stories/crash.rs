//! The server process is killed with SIGKILL at every step of the flow, and started again: what it
//! acknowledged is there, nothing is done twice, and there is never more than one seed (security
//! 49, 60, 105, 106). Once it is killed right behind each answer, and then somewhere in the middle
//! of each request, at moments that a printed seed chooses; whoever lost an answer asks again. The
//! programs and phones that ask die as well, alone or together with the server.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use semilla_tests::bank::{Bank, Lost, STEPS, needs_a_fresh_step};
use semilla_tests::http::Expect;
use semilla_tests::invariants;
use semilla_tests::seeded::Seeded;
use semilla_tests::world::World;
use serde_json::{Value, json};

use crate::flow::approve;

/// What each step leaves, and how long it takes, when nobody kills anything in the middle.
async fn undisturbed() -> Vec<(BTreeMap<String, u64>, Value, Duration)> {
    let mut bank = Bank::begin().await;
    let mut left = Vec::new();
    for (step, name) in STEPS.iter().enumerate() {
        if needs_a_fresh_step(step) {
            bank.kill_and_start(true);
        }
        let begun = Instant::now();
        assert!(bank.take(step).await.is_ok(), "{name}");
        let took = begun.elapsed();
        left.push((bank.recorded(), bank.seen(step).await, took));
    }
    left
}

#[tokio::test(flavor = "multi_thread")]
async fn security_49_60_105_and_106_killed_behind_every_answer_nothing_acknowledged_is_lost() {
    let expected = undisturbed().await;
    assert_eq!(expected[15].0["accepted"], 3, "the control: each code was accepted");

    // Behind every answer.
    let mut bank = Bank::begin().await;
    for (step, (recorded, seen, _)) in expected.iter().enumerate() {
        if needs_a_fresh_step(step) {
            bank.kill_and_start(true);
        }
        assert!(bank.take(step).await.is_ok(), "{}", STEPS[step]);
        bank.kill_and_start(false);
        assert_eq!(bank.recorded(), *recorded, "after {}", STEPS[step]);
        assert_eq!(bank.seen(step).await, *seen, "after {}", STEPS[step]);
    }
}

/// Who dies in the middle of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dies {
    Server,
    /// Program and phone, while the server goes on.
    Client,
    Both,
}

#[tokio::test(flavor = "multi_thread")]
async fn security_49_60_and_106_killed_within_every_request_by_whoever_asks_again_done_once() {
    let expected = undisturbed().await;
    let mut seeded = Seeded::from_environment(106);
    let mut cut_off = 0;
    for round in 0..6 {
        let dies = [Dies::Server, Dies::Client, Dies::Both][round % 3];
        let mut bank = Bank::begin().await;
        for (step, (recorded, seen, took)) in expected.iter().enumerate() {
            if needs_a_fresh_step(step) {
                bank.kill_and_start(true);
            }
            let moment = Duration::from_micros(
                seeded.below(usize::try_from(took.as_micros()).expect("a time") + 200) as u64,
            );
            let done = cut(&mut bank, step, dies, moment).await;
            cut_off += usize::from(done.is_err());
            match dies {
                // What was lost may still be under way.
                Dies::Client => bank.take_up_phones(),
                Dies::Server | Dies::Both => bank.kill_and_start(false),
            }
            if done.is_err() {
                until_taken(&mut bank, step).await;
            }
            assert_eq!(bank.recorded(), *recorded, "{dies:?} in {}", STEPS[step]);
            assert_eq!(bank.seen(step).await, *seen, "{dies:?} in {}", STEPS[step]);
        }
        bank.kill_and_start(false);
    }
    assert!(cut_off > 20, "only {cut_off} of 96 requests were cut off");
}

/// Takes a step while somebody dies.
async fn cut(bank: &mut Bank, step: usize, dies: Dies, moment: Duration) -> Result<(), Lost> {
    let mut server = bank.server.take().expect("it runs");
    let done = match dies {
        Dies::Server => {
            let killed = async {
                tokio::time::sleep(moment).await;
                server.kill_now();
            };
            tokio::join!(bank.take(step), killed).0
        }
        // Given up: the future is dropped where it stands, and with it what the phone had in mind.
        Dies::Client | Dies::Both => {
            tokio::time::timeout(moment, bank.take(step)).await.unwrap_or(Err(Lost))
        }
    };
    bank.server = Some(server);
    done
}

/// Asks again until there is an answer.
async fn until_taken(bank: &mut Bank, step: usize) {
    for _ in 0..200 {
        if bank.take(step).await.is_ok() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("{} is not answered", STEPS[step]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_looks_at_the_tables_after_a_crash_finds_whatever_could_be_wrong() {
    let (mut world, active) = World::with_active_token().await;
    let company = &world.company;
    // One release that was executed, on a token that is in the pool since, and one that waits.
    let pablo = company.person("pablo.rey", "Pablo Rey").await;
    let (token, _, enrollment) = world.assigned(company, &pablo).await;
    world.enrolled_phone(company, &enrollment).await;
    let release = format!("/api/v1/tokens/{token}/release");
    let cause = json!({"cause": "seed_release"});
    let asked = company.program.post(&release, cause).await.expect(202);
    approve(&world, &active.administrator, &asked).await;
    company.ask_for_release(&active.token).await;
    world.stop().await;
    invariants::each_is_found_in_a_copy_of(&world.data().join("semilla.db"));
}
