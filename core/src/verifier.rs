//! The one verifier: what happens to a token's counters when a code is tried. An attempt is
//! claimed before the code is looked at, and only a claimed attempt can be checked, so that no
//! path can forget to count (security 16, 21).

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::otp::{self, Code, Match, Method, Step};
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
    /// By how many steps the token's own clock is ahead of ours, as its codes have shown.
    pub drift: i32,
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

/// How far from the expected one a code is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    /// Of a token with a counter: how many codes it may have shown that nobody sent.
    pub look_ahead: u32,
}

/// How many counters ahead two codes in a row are looked for.
const COUNTERS_AHEAD: u64 = 1000;

/// By how many steps of time two codes in a row may be off: an hour, with steps of 30 s.
const STEPS_OFF: u64 = 120;

/// Which way a resynchronization may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Search {
    /// The token is in use: the stored drift never falls, so that codes somebody has seen pass by
    /// are dead however its clock is said to go (CVE-2019-12887, security 6).
    Forward,
    /// The token is being proven: nothing was accepted of this generation yet, and a clock that
    /// went slow in a drawer is as good as one that went fast.
    Afresh,
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
        method: &Method,
        reach: Reach,
        code: &Code,
        now: Timestamp,
    ) -> (Verdict, Counters) {
        let after = self.counters.last_step;
        let window = match method {
            Method::Time(parameters) => {
                let expected = moved(parameters.step_at(now), self.counters.drift);
                expected.saturating_sub(1)..=expected.saturating_add(1)
            }
            // The last one as well, so that a repeated code is told from a wrong one.
            Method::Counter(_) => {
                let last = after.map_or(0, |Step(last)| last);
                last..=self.next().saturating_add(reach.look_ahead.into())
            }
        };
        match otp::matching_within(seed, method, code, window, after) {
            Match::Fresh(step) => self.accepted(step, self.counters.drift),
            Match::Used => (Verdict::Used, self.counters),
            Match::None => (Verdict::Wrong, self.counters),
        }
    }

    /// Looks far for two codes in a row, of a token that has left the window. Both are consumed.
    pub fn resynchronize(
        self,
        seed: &Seed,
        method: &Method,
        search: Search,
        codes: [&Code; 2],
        now: Timestamp,
    ) -> (Verdict, Counters) {
        let window = match method {
            Method::Time(parameters) => {
                let current = parameters.step_at(now);
                let expected = moved(current, self.counters.drift);
                let first = match search {
                    Search::Forward => expected.saturating_sub(1),
                    Search::Afresh => current.0.saturating_sub(STEPS_OFF),
                };
                first..=expected.max(current.0).saturating_add(STEPS_OFF)
            }
            Method::Counter(_) => self.next()..=self.next().saturating_add(COUNTERS_AHEAD),
        };
        let after = self.counters.last_step;
        match otp::matching_pair(seed, method, codes, window, after) {
            Some(step) => {
                let drift = match method {
                    Method::Time(parameters) => ahead(step, parameters.step_at(now)),
                    Method::Counter(_) => 0,
                };
                self.accepted(step, drift)
            }
            None => (Verdict::Wrong, self.counters),
        }
    }

    /// The same attempt on a generation that nothing was accepted of: behind `after`, which another
    /// one of the same seed reached, and with a clock that is `drift` steps ahead.
    #[must_use]
    pub fn on_new_generation(mut self, after: Option<Step>, drift: i32) -> Self {
        self.counters.last_step = self.counters.last_step.max(after);
        self.counters.drift = drift;
        self
    }

    /// The counter that is expected next.
    fn next(&self) -> u64 {
        self.counters.last_step.map_or(0, |Step(last)| last.saturating_add(1))
    }

    fn accepted(&self, step: Step, drift: i32) -> (Verdict, Counters) {
        let counters = Counters { last_step: Some(step), drift, failures: 0, waits_until: None };
        (Verdict::Accepted(step), counters)
    }

    /// The counters of an attempt whose code could not be checked, which counts all the same
    /// (security 11).
    pub fn unchecked(self) -> Counters {
        self.counters
    }
}

fn moved(step: Step, drift: i32) -> u64 {
    step.0.saturating_add_signed(drift.into())
}

fn ahead(step: Step, current: Step) -> i32 {
    let steps = i128::from(step.0) - i128::from(current.0);
    i32::try_from(steps).unwrap_or(if steps < 0 { i32::MIN } else { i32::MAX })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::entropy::testing::Seeded;
    use crate::otp::{Algorithm, CounterParameters, Digits, Parameters, Period};

    const NOW: i64 = 1_764_000_000;
    const REACH: Reach = Reach { look_ahead: 10 };

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
        Ok(claimed.check(&seed(), &Parameters::APP_MOVIL.into(), REACH, code, now))
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

    const COUNTER: Method =
        Method::Counter(CounterParameters { algorithm: Algorithm::Sha1, digits: Digits::SIX });

    fn hotp(counters: Counters, counter: u64) -> (Verdict, Counters) {
        let code = COUNTER.code(&seed(), Step(counter));
        let now = Timestamp::from_seconds(NOW);
        let claimed = counters.claim(&Lockout::DEFAULT, now).expect("not locked");
        claimed.check(&seed(), &COUNTER, REACH, &code, now)
    }

    fn pair(
        method: &Method,
        search: Search,
        counters: Counters,
        first: u64,
        seconds: i64,
    ) -> (Verdict, Counters) {
        let codes = [first, first + 1].map(|step| method.code(&seed(), Step(step)));
        let now = Timestamp::from_seconds(seconds);
        let claimed = counters.claim(&Lockout::DEFAULT, now).expect("not locked");
        claimed.resynchronize(&seed(), method, search, [&codes[0], &codes[1]], now)
    }

    #[test]
    fn a_counter_is_looked_for_ten_ahead_and_never_behind() {
        let (verdict, counters) = hotp(Counters::default(), 0);
        assert_eq!(verdict, Verdict::Accepted(Step(0)));
        assert_eq!(hotp(counters, 0).0, Verdict::Used);
        let (verdict, counters) = hotp(counters, 11);
        assert_eq!(verdict, Verdict::Accepted(Step(11)));
        for dead in [0, 5, 10] {
            assert_eq!(hotp(counters, dead).0, Verdict::Wrong, "{dead}");
        }
        assert_eq!(hotp(counters, 23).0, Verdict::Wrong, "one too far");
        assert_eq!(hotp(counters, 22).0, Verdict::Accepted(Step(22)));
    }

    #[test]
    fn two_codes_in_a_row_lead_far_ahead_and_never_back() {
        let start = Counters { last_step: Some(Step(50)), ..Counters::default() };
        let (verdict, after) = pair(&COUNTER, Search::Forward, start, 1051, NOW);
        assert_eq!(verdict, Verdict::Accepted(Step(1052)));
        assert_eq!(after.last_step, Some(Step(1052)), "both are consumed");
        for dead in [0, 49, 50, 1052, 1053] {
            let search = if dead < 1000 { after } else { start };
            let verdict = pair(&COUNTER, Search::Forward, search, dead, NOW).0;
            assert_eq!(verdict, Verdict::Wrong, "{dead}");
        }
    }

    #[test]
    fn security_6_a_clock_is_followed_forward_only_while_the_token_is_in_use() {
        let method = Method::Time(Parameters { period: Period::THIRTY, ..Parameters::APP_MOVIL });
        let current = Parameters::APP_MOVIL.step_at(Timestamp::from_seconds(NOW)).0;
        let fresh = Counters::default();
        let (verdict, fast) = pair(&method, Search::Forward, fresh, current + 40, NOW);
        assert_eq!(verdict, Verdict::Accepted(Step(current + 41)));
        assert_eq!(fast.drift, 41);
        // A minute later its next code is two steps on, where it is looked for.
        let now = Timestamp::from_seconds(NOW + 60);
        let code = method.code(&seed(), Step(current + 43));
        let claimed = fast.claim(&Lockout::DEFAULT, now).expect("not locked");
        let verdict = claimed.check(&seed(), &method, REACH, &code, now).0;
        assert_eq!(verdict, Verdict::Accepted(Step(current + 43)));
        // Codes of a while ago, seen and never sent, as in CVE-2019-12887.
        for ago in [3, 10, 40, 120] {
            let verdict = pair(&method, Search::Forward, fresh, current - ago, NOW).0;
            assert_eq!(verdict, Verdict::Wrong);
        }
        let (verdict, slow) = pair(&method, Search::Afresh, fresh, current - 40, NOW);
        assert_eq!((verdict, slow.drift), (Verdict::Accepted(Step(current - 39)), -39));
        let used = Counters { last_step: Some(Step(current)), ..fresh };
        assert_eq!(pair(&method, Search::Afresh, used, current - 40, NOW).0, Verdict::Wrong);
    }

    proptest! {
        // Each looks at a thousand codes, some dozens of times.
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn security_6_whatever_is_sent_accepted_steps_rise_and_drift_never_falls(
            by_counter: bool,
            sent in prop::collection::vec((0_u64..1400, any::<bool>(), 0_i64..90), 1..20),
        ) {
            let method = if by_counter { COUNTER } else { Method::Time(Parameters::APP_MOVIL) };
            let begin = if by_counter { 0 } else {
                Parameters::APP_MOVIL.step_at(Timestamp::from_seconds(NOW)).0 - 700
            };
            let lockout = Lockout { wait_from: 100, wait_seconds: 0, block_at: 100 };
            let (mut counters, mut now) = (Counters::default(), NOW);
            for (step, two, seconds) in sent {
                now += seconds;
                let moment = Timestamp::from_seconds(now);
                let codes = [begin + step, begin + step + 1].map(|n| method.code(&seed(), Step(n)));
                let claimed = counters.claim(&lockout, moment).expect("not locked");
                let (verdict, after) = if two {
                    let codes = [&codes[0], &codes[1]];
                    claimed.resynchronize(&seed(), &method, Search::Forward, codes, moment)
                } else {
                    claimed.check(&seed(), &method, REACH, &codes[0], moment)
                };
                match verdict {
                    Verdict::Accepted(step) => {
                        prop_assert!(counters.last_step.is_none_or(|last| step > last));
                        prop_assert_eq!(after.last_step, Some(step));
                    }
                    _ => prop_assert_eq!(after.last_step, counters.last_step),
                }
                prop_assert!(after.drift >= counters.drift);
                counters = after;
            }
        }
    }

    #[test]
    fn security_11_an_attempt_that_could_not_be_checked_counts() {
        let now = Timestamp::from_seconds(NOW);
        let claimed = Counters::default().claim(&Lockout::DEFAULT, now).expect("not locked");
        assert_eq!(claimed.unchecked().failures, 1);
    }
}
