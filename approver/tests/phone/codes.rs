//! Seeds and codes: how they come, what interrupts them, and when they are given.

use std::time::Duration;

use ring::rand::SystemRandom;
use semilla_approver::Error;
use semilla_approver::entropy::SystemEntropy;
use semilla_approver::phone::CodeRequest;
use semilla_core::id::TokenId;
use semilla_core::language::Language;
use semilla_core::operations::RotateCause;
use semilla_core::otp::Step;
use semilla_core::protocol::messages::{self, SeedDelivery};
use semilla_core::protocol::wire::OpenEnrollment;
use semilla_core::secret::Seed;

use crate::another_key;
use crate::bank::{self, Bank, Fault, SERIAL};

#[tokio::test]
async fn an_enrollment_goes_on_after_every_interruption() {
    for lost in 0..6 {
        for fault in [|| Fault::LoseAnswer, || Fault::LoseRequest] {
            let bank = Bank::new();
            let phone = bank.bound_phone().await;
            bank.assign(SERIAL);
            phone.enrollments().await.expect("listed");
            // One exchange after another fails for good, as often as it is tried.
            bank.fail((0..lost).map(|_| Fault::None).chain((0..3).map(|_| fault())));
            let first = phone.enroll_next().await;
            let enrolled = match first {
                Ok(enrolled) => enrolled,
                Err(error) => {
                    assert_eq!(error.exit_code(), 69, "{error}");
                    bank.state().faults.clear();
                    bank.advance(Duration::from_secs(60));
                    phone.enroll_next().await.expect("goes on")
                }
            };
            assert_eq!(enrolled.generation, 1);
            let asked = bank.state().signed.len();
            assert_eq!(asked, 2, "one bind, one enroll, whatever was lost");
            bank.advance(Duration::from_secs(30));
            let code = phone.code(SERIAL).expect("a code");
            assert!(bank.takes(SERIAL, code.code.expose()));
        }
    }
}

#[tokio::test]
async fn security_37_a_seed_for_something_else_is_not_taken() {
    let bank = Bank::new();
    let phone = bank.bound_phone().await;
    let enrollment = bank.assign(SERIAL);
    // The right delivery, seen and held back.
    phone.enrollments().await.expect("listed");
    bank.fail([Fault::None, Fault::LoseAnswer, Fault::LoseAnswer, Fault::LoseAnswer]);
    assert!(phone.enroll(enrollment).await.is_err());
    let (good, open, request) = {
        let state = bank.state();
        let one = &state.enrollments[&enrollment.to_string()];
        (one.delivery.clone(), one.open.clone(), one.request.clone())
    };
    let device = phone.raw().device().expect("bound");
    let claims = Bank::claims(&good);
    let parsed: SeedDelivery = serde_json::from_value(claims).expect("a delivery");
    let with = |change: &dyn Fn(&mut SeedDelivery)| {
        let mut delivery = parsed.clone();
        change(&mut delivery);
        bank.sign(&delivery)
    };
    let random = SystemRandom::new();
    let enroll: messages::Enroll = {
        let key = phone.raw().public_key().expect("bound");
        messages::verify(&request, &key, &device.to_string(), &bank.issuer).expect("its own")
    };
    let seed = Seed::generate(32, &SystemEntropy);
    let other_serial = OpenEnrollment { serial: "FEF4900033".to_owned(), ..open.clone() };
    let cases = [
        ("another server's", messages::sign(&parsed, &another_key(), &random)),
        ("another token", with(&|it| it.sub = TokenId::new(it.iat, &SystemEntropy))),
        ("another generation", with(&|it| it.generation = 2)),
        ("another phone", with(&|it| it.aud = it.sub.to_string())),
        ("sealed for another request", bank.delivery(&open, &seed, &enroll, device, "another")),
        ("another serial number", bank.delivery(&other_serial, &seed, &enroll, device, &request)),
    ];
    for (what, delivery) in cases {
        bank.state().enrollments.get_mut(&enrollment.to_string()).expect("one").delivery = delivery;
        let error = phone.enroll(enrollment).await.expect_err(what);
        assert_eq!(error.exit_code(), 11, "{what}: {error}");
        assert!(phone.tokens().expect("none").is_empty(), "{what}");
    }
    bank.state().enrollments.get_mut(&enrollment.to_string()).expect("one").delivery = good;
    assert_eq!(phone.enroll(enrollment).await.expect("enrolled").serial, SERIAL);
}

#[tokio::test]
async fn a_phone_with_a_wrong_clock_says_so_and_gives_codes_only_offline() {
    let bank = Bank::new();
    let phone = bank.phone_off_by(-90);
    phone.bind(&bank.invite()).await.expect("a wrong clock does no harm here");
    bank.assign(SERIAL);
    let error = phone.enroll_next().await.expect_err("its codes would be refused");
    assert!(matches!(error, Error::ClockSkew(89..=91)), "{error:?}");
    assert_eq!(error.exit_code(), 8);
    assert!(error.explain(Language::Spanish).what.contains("atrasado"));

    let ahead = Bank::new();
    let phone = ahead.enrolled_phone().await;
    let later = ahead.clock_off_by(90);
    // The same phone after its clock was set wrongly.
    let phone = phone.with_clock(later);
    phone.sync().await.expect("listed");
    let error = phone.code(SERIAL).err();
    assert!(matches!(error, Some(Error::ClockSkew(-91..=-89))), "{error:?}");
    let offline = CodeRequest { offline: true, ..CodeRequest::default() };
    assert_eq!(phone.make_code(&offline).expect("a code").skew_seconds, Some(-90));
}

#[tokio::test]
async fn unused_codes_are_each_given_once_and_all_taken() {
    let bank = Bank::new();
    let phone = bank.enrolled_phone().await;
    let unused = CodeRequest { unused: true, ..CodeRequest::default() };
    let mut given = Vec::new();
    for _ in 0..6 {
        match phone.make_code(&unused) {
            Ok(code) => {
                assert!(bank.takes(SERIAL, code.code.expose()));
                given.push(code.step);
            }
            Err(Error::NoUnusedCode(at)) => bank.advance(at.since(bank.now())),
            Err(error) => panic!("{error}"),
        }
    }
    assert!(given.len() >= 3);
    assert!(given.windows(2).all(|pair| pair[0] < pair[1]), "{given:?}");
    let first = given.first().expect("some");
    assert!(*first > Step(bank::START as u64 / 30), "not the code that proved the enrollment");
}

#[tokio::test]
async fn security_3_a_code_keeps_its_leading_zeros() {
    let bank = Bank::new();
    let phone = bank.enrolled_phone().await;
    let start = bank::START as u64 / 30;
    let zero = (start..start + 2000)
        .map(|step| phone.raw().code_at(SERIAL, Step(step)).expect("a code"))
        .find(|shown| shown.code.expose().starts_with('0'))
        .expect("one in ten");
    assert_eq!(zero.code.expose().len(), 8);
}

#[tokio::test]
async fn a_token_is_renewed_and_the_old_codes_die() {
    let bank = Bank::new();
    let phone = bank.enrolled_phone().await;
    let old = phone.raw().copy().expect("a copy");
    let renewed = phone.renew(SERIAL, RotateCause::Suspicion).await.expect("renewed");
    assert_eq!(renewed.generation, 2);
    bank.advance(Duration::from_secs(30));
    assert!(!bank.takes(SERIAL, old.code(SERIAL).expect("a code").code.expose()));
    assert!(bank.takes(SERIAL, phone.code(SERIAL).expect("a code").code.expose()));
    assert_eq!(phone.tokens().expect("one").len(), 1);
}
