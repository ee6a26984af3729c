//! The model test: random sequences of everything that can be done, played on the product's own
//! types and on a plain reference written from the domain's words, with the same outcome and the
//! same view demanded after every step, and what must always be true held against both.
//!
//! A failure prints a seed and a script as short as it could be made; `SEMILLA_SEED` names the
//! script to begin with. The same scripts find every rule that is broken on purpose.

#![expect(unreachable_pub, reason = "modules of one test program")]

mod always;
mod codes;
mod coverage;
mod faults;
mod play;
mod product;
mod product_codes;
mod product_messages;
mod product_people;
mod product_phones;
mod product_view;
mod random;
mod reference;
mod reference_phones;
mod reference_view;
mod script;
mod tables;
mod words;

use coverage::Coverage;
use faults::FAULTS;
use play::{Failed, Setting, play};

const SCRIPTS: u64 = 1_100;
const STEPS: usize = 100;

#[test]
fn security_5_6_23_24_56_83_84_nothing_outside_of_the_tables_ever_happens() {
    let mut coverage = Coverage::default();
    let given = std::env::var("SEMILLA_SEED").ok();
    let first: u64 = given.map_or(0, |text| text.parse().expect("SEMILLA_SEED is a number"));
    for seed in first..first + SCRIPTS {
        let setting = Setting { seed, steps: STEPS, fault: None, compared: true };
        if let Err(failed) = play(setting, &mut coverage) {
            panic!("{}", failed.shrunken().story());
        }
    }
    assert!(coverage.steps >= 100_000, "{} steps", coverage.steps);
    let missing = coverage.missing();
    // The last wrong code blocks the token, so that nobody ever meets one locked for good.
    assert_eq!(coverage.times("check: Locked") + coverage.times("proof: Locked"), 0);
    assert!(missing.is_empty(), "not reached:\n{}\n{}", missing.join("\n"), coverage.told());
}

/// The first of many scripts that finds the fault.
fn found(fault: faults::Fault, compared: bool) -> Option<Failed> {
    let mut unused = Coverage::default();
    (0..400).find_map(|seed| {
        let setting = Setting { seed, steps: STEPS, fault: Some(fault), compared };
        play(setting, &mut unused).err().map(Failed::shrunken)
    })
}

#[test]
fn every_rule_that_is_broken_on_purpose_is_found() {
    for fault in FAULTS {
        let failed = found(fault, true);
        let Some(failed) = failed else { panic!("{fault:?} was not found") };
        // Short enough to be read; it fails again as it is told, and without the fault does not.
        assert!(failed.script.len() <= 20, "{}", failed.story());
        assert_eq!(failed.again().as_ref(), Some(&failed.why));
        assert_eq!(failed.without_fault().again(), None, "{}", failed.story());
    }
}

#[test]
fn what_must_always_be_true_finds_every_one_of_them_without_the_reference() {
    for fault in FAULTS {
        assert!(found(fault, false).is_some(), "{fault:?} was not found");
    }
}
