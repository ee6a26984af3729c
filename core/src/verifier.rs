//! The one verifier: what happens to a token's counters when a code is tried. An attempt is
//! claimed before the code is looked at, and only a claimed attempt can be checked, so that no
//! path can forget to count (security 16, 21).

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::otp::{Code, Match, Parameters, Step};
use crate::secret::Seed;
use crate::time::Timestamp;

/// When a token begins to wait, and when it is blocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Lockout {
    /// From this many consecutive failures on, the token waits after each. Never above 5
    /// (security 14).
    #[schemars(range(min = 1, max = 5), extend("examples" = [5]))]
    pub wait_from: u32,
    /// Seconds of waiting for each consecutive failure so far.
    #[schemars(range(min = 1, max = 3600), extend("examples" = [5]))]
    pub wait_seconds: u32,
    /// At this many consecutive failures the token is blocked. Never above 100 (SP 800-63B
    /// section 3.2.2).
    #[schemars(range(min = 1, max = 100), extend("examples" = [50]))]
    pub block_at: u32,
}

impl Lockout {
    /// What applies unless the company chose otherwise: 5 failures, 5 s for each, blocked at 50.
    pub const DEFAULT: Self = Self { wait_from: 5, wait_seconds: 5, block_at: 50 };
}

/// The counters of one token. They outlive its generations: a new seed does not forgive old
/// failures, only a right code does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// The last consumed step: every step up to it is dead.
    pub last_step: Option<Step>,
    /// Failures since the last success.
    pub failures: u32,
    /// Until when attempts are refused unseen.
    pub waits_until: Option<Timestamp>,
}

/// Why an attempt is refused without looking at the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Locked {
    /// Until this moment, after too many failures in a row.
    Waiting(Timestamp),
    /// For good: the token is to be blocked, and only an approved operation opens it again.
    ForGood,
}

/// An attempt that has been counted already. The only way to have a code checked.
pub struct Claimed {
    counters: Counters,
}

/// What a claimed attempt came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The code is right and its step is consumed.
    Accepted(Step),
    /// The code belongs to a step that is consumed already.
    Used,
    /// The code is wrong.
    Wrong,
}

impl Counters {
    /// Counts an attempt, or refuses it.
    ///
    /// Counting sets the wait that holds should the code turn out wrong; [`Claimed::check`] lifts
    /// it should it turn out right.
    pub fn claim(self, lockout: &Lockout, now: Timestamp) -> Result<Claimed, Locked> {
        if self.failures >= lockout.block_at {
            return Err(Locked::ForGood);
        }
        if let Some(until) = self.waits_until.filter(|until| now < *until) {
            return Err(Locked::Waiting(until));
        }
        let failures = self.failures + 1;
        let waits_until = (failures >= lockout.wait_from).then(|| {
            let seconds = u64::from(lockout.wait_seconds) * u64::from(failures);
            now.plus(Duration::from_secs(seconds))
        });
        Ok(Claimed { counters: Self { failures, waits_until, ..self } })
    }
}

impl Claimed {
    /// Looks at the code: the verdict, and the counters to store with it.
    pub fn check(
        self,
        seed: &Seed,
        parameters: &Parameters,
        code: &Code,
        now: Timestamp,
    ) -> (Verdict, Counters) {
        match crate::otp::matching_step(seed, parameters, code, now, self.counters.last_step) {
            Match::Fresh(step) => {
                let counters = Counters { last_step: Some(step), failures: 0, waits_until: None };
                (Verdict::Accepted(step), counters)
            }
            Match::Used => (Verdict::Used, self.counters),
            Match::None => (Verdict::Wrong, self.counters),
        }
    }

    /// The counters of an attempt whose code could not be checked, which counts all the same
    /// (security 11).
    pub fn unchecked(self) -> Counters {
        self.counters
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::testing::Seeded;

    const NOW: i64 = 1_764_000_000;

    fn seed() -> Seed {
        Seed::generate(32, &Seeded::new(1))
    }

    fn code(seconds: i64) -> Code {
        let parameters = Parameters::APP_MOVIL;
        parameters.code(&seed(), parameters.step_at(Timestamp::from_seconds(seconds)))
    }

    fn attempt(
        counters: Counters,
        code: &Code,
        seconds: i64,
    ) -> Result<(Verdict, Counters), Locked> {
        let now = Timestamp::from_seconds(seconds);
        let claimed = counters.claim(&Lockout::DEFAULT, now)?;
        Ok(claimed.check(&seed(), &Parameters::APP_MOVIL, code, now))
    }

    #[test]
    fn security_14_and_15_waits_grow_and_the_fiftieth_failure_is_the_last() {
        let wrong = Code::parse("00000000").expect("a code");
        let (mut counters, mut now, mut waited) = (Counters::default(), NOW, Vec::new());
        for failures in 1..=50 {
            let (verdict, after) = attempt(counters, &wrong, now).expect("not locked");
            assert_eq!((verdict, after.failures), (Verdict::Wrong, failures));
            counters = after;
            if let Some(until) = counters.waits_until {
                waited.push((failures, until.since(Timestamp::from_seconds(now)).as_secs()));
                assert!(attempt(counters, &wrong, now).is_err());
                now = i64::try_from(until.seconds()).expect("a time");
            }
        }
        assert_eq!(waited[..3], [(5, 25), (6, 30), (7, 35)]);
        assert_eq!(waited.len(), 46);
        let far = now + 10_000_000;
        assert_eq!(attempt(counters, &code(far), far).err(), Some(Locked::ForGood));
    }

    #[test]
    fn security_17_a_right_code_while_waiting_is_refused_and_neither_burned_nor_forgiven() {
        let wrong = Code::parse("00000000").expect("a code");
        let mut counters = Counters::default();
        for _ in 0..5 {
            counters = attempt(counters, &wrong, NOW).expect("not locked").1;
        }
        assert!(matches!(attempt(counters, &code(NOW), NOW), Err(Locked::Waiting(_))));
        let (verdict, after) =
            attempt(counters, &code(NOW + 25), NOW + 25).expect("the wait is over");
        assert!(matches!(verdict, Verdict::Accepted(_)));
        assert_eq!((after.failures, after.waits_until), (0, None));
    }

    #[test]
    fn security_24_an_accepted_step_kills_all_before_it() {
        let (verdict, counters) =
            attempt(Counters::default(), &code(NOW), NOW).expect("not locked");
        assert!(matches!(verdict, Verdict::Accepted(_)));
        assert_eq!(attempt(counters, &code(NOW), NOW).expect("not locked").0, Verdict::Used);
        assert_eq!(attempt(counters, &code(NOW - 30), NOW).expect("not locked").0, Verdict::Used);
    }

    #[test]
    fn security_11_an_attempt_that_could_not_be_checked_counts() {
        let now = Timestamp::from_seconds(NOW);
        let claimed = Counters::default().claim(&Lockout::DEFAULT, now).expect("not locked");
        assert_eq!(claimed.unchecked().failures, 1);
    }
}
