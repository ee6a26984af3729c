//! How often somebody may fail. A bucket for each name holds a few attempts and fills up slowly;
//! an attempt is taken before it is looked at, so that parallel ones do not slip by (security F9).

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use semilla_core::id::{ClientId, CompanyId};
use semilla_core::problem::{Problem, ProblemType};
use tokio::time::Instant;

use super::problem::ApiError;
use crate::app::ProgramLimits;
use crate::workflow::caller::Caller;

/// How many names are remembered. Beyond it, names that are not yet known are let through: a limit
/// that strangers can fill up must not shut out the others.
const NAMES_MAX: usize = 50_000;

/// A bucket of attempts for each name.
pub(super) struct Limiter<K> {
    /// How many attempts a full bucket holds.
    burst: u32,
    /// In how much time one more comes in.
    refill: Duration,
    buckets: Mutex<HashMap<K, Bucket>>,
}

struct Bucket {
    /// Attempts that are left.
    left: u32,
    /// Since when the next one is coming in.
    since: Instant,
}

impl<K: Eq + Hash> Limiter<K> {
    /// `burst` attempts at once, then one every `refill`.
    pub(super) fn new(burst: u32, refill: Duration) -> Self {
        Self { burst, refill, buckets: Mutex::default() }
    }

    /// Takes an attempt of `name`; where none is left, says how long until there is.
    pub(super) fn take(&self, name: K) -> Result<(), Duration> {
        let now = Instant::now();
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= NAMES_MAX && !buckets.contains_key(&name) {
            // Full buckets say nothing.
            buckets.retain(|_, bucket| {
                self.fill(bucket, now);
                bucket.left < self.burst
            });
            if buckets.len() >= NAMES_MAX {
                return Ok(());
            }
        }
        let bucket = buckets.entry(name).or_insert(Bucket { left: self.burst, since: now });
        self.fill(bucket, now);
        if bucket.left == 0 {
            return Err(self.refill.saturating_sub(now.duration_since(bucket.since)));
        }
        bucket.left -= 1;
        Ok(())
    }

    /// Gives an attempt back that did not fail.
    pub(super) fn give_back(&self, name: &K) {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = buckets.get_mut(name) {
            bucket.left = self.burst.min(bucket.left + 1);
        }
    }

    fn fill(&self, bucket: &mut Bucket, now: Instant) {
        let waited = now.duration_since(bucket.since);
        let missing = self.burst - bucket.left;
        let come = waited.as_nanos() / self.refill.as_nanos().max(1);
        match u32::try_from(come) {
            Ok(come) if come < missing => {
                bucket.left += come;
                bucket.since += self.refill * come;
            }
            _ => *bucket = Bucket { left: self.burst, since: now },
        }
    }
}

/// How often programs may ask, each and all of a company together (security 103), and how often
/// the codes they send may fail, so that whoever guesses at tokens pays with a budget of their own
/// (security 19).
pub(super) struct Programs {
    requests: Option<(Limiter<ClientId>, Limiter<CompanyId>)>,
    failures: Option<Limiter<ClientId>>,
}

impl Programs {
    /// With the limits that are set; 0 is none.
    pub(super) fn new(limits: ProgramLimits) -> Self {
        let every = |time: Duration, count: u32| time / count;
        let ProgramLimits { requests_per_second, failed_codes_per_minute } = limits;
        Self {
            requests: (requests_per_second > 0).then(|| {
                let (each, together) = (requests_per_second, requests_per_second.saturating_mul(4));
                let second = Duration::from_secs(1);
                let limiter = Limiter::new(each.saturating_mul(2), every(second, each));
                (limiter, Limiter::new(together.saturating_mul(2), every(second, together)))
            }),
            failures: (failed_codes_per_minute > 0).then(|| {
                let minute = Duration::from_secs(60);
                Limiter::new(failed_codes_per_minute, every(minute, failed_codes_per_minute))
            }),
        }
    }

    /// Takes a request of a program.
    pub(super) fn take(&self, caller: &Caller) -> Result<(), ApiError> {
        let Some((each, together)) = &self.requests else { return Ok(()) };
        each.take(caller.client.id)
            .and_then(|()| together.take(caller.company.id))
            .map_err(|wait| too_many("Too many requests of this program: wait.", wait))
    }

    /// Takes a failed code of a program, before it is known to be one.
    pub(super) fn take_failure(&self, caller: &Caller) -> Result<(), ApiError> {
        let Some(failures) = &self.failures else { return Ok(()) };
        failures
            .take(caller.client.id)
            .map_err(|wait| too_many("Too many codes of this program failed: wait.", wait))
    }

    /// The code did not fail after all.
    pub(super) fn give_failure_back(&self, caller: &Caller) {
        if let Some(failures) = &self.failures {
            failures.give_back(&caller.client.id);
        }
    }
}

fn too_many(detail: &str, wait: Duration) -> ApiError {
    Problem::new(ProblemType::RateLimited, detail).retry_after(retry_after(wait)).into()
}

/// The seconds that `Retry-After` tells, rounded up.
pub(super) fn retry_after(wait: Duration) -> u64 {
    wait.as_secs() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn security_103_a_bucket_empties_by_failures_and_fills_up_by_time() {
        let limiter = Limiter::new(3, Duration::from_secs(10));
        for _ in 0..3 {
            assert_eq!(limiter.take("a"), Ok(()));
        }
        assert_eq!(limiter.take("a"), Err(Duration::from_secs(10)));
        assert_eq!(limiter.take("b"), Ok(()), "each name has its own");
        tokio::time::advance(Duration::from_secs(4)).await;
        assert_eq!(limiter.take("a"), Err(Duration::from_secs(6)));
        tokio::time::advance(Duration::from_secs(17)).await;
        assert_eq!((limiter.take("a"), limiter.take("a")), (Ok(()), Ok(())));
        assert!(limiter.take("a").is_err());
        tokio::time::advance(Duration::from_secs(1_000_000)).await;
        for _ in 0..3 {
            assert_eq!(limiter.take("a"), Ok(()));
        }
        assert!(limiter.take("a").is_err(), "never more than a full bucket");
    }

    #[tokio::test(start_paused = true)]
    async fn what_did_not_fail_costs_nothing() {
        let limiter = Limiter::new(1, Duration::from_secs(10));
        for _ in 0..5 {
            assert_eq!(limiter.take(1), Ok(()));
            limiter.give_back(&1);
        }
        limiter.give_back(&1);
        assert_eq!(limiter.take(1), Ok(()));
        assert!(limiter.take(1).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn the_memory_is_bounded() {
        let limiter = Limiter::new(1, Duration::from_secs(10));
        for name in 0..NAMES_MAX + 10 {
            assert_eq!(limiter.take(name), Ok(()));
        }
        assert_eq!(limiter.buckets.lock().expect("no panic").len(), NAMES_MAX);
        assert!(limiter.take(0).is_err(), "the known ones are still held");
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(limiter.take(NAMES_MAX + 1), Ok(()));
        assert_eq!(limiter.buckets.lock().expect("no panic").len(), 1);
    }
}
