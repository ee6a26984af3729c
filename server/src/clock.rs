//! Where the time comes from, and whether it can be believed. A server in use asks the system; a
//! test and a simulation move the clock themselves.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use semilla_core::time::Timestamp;

/// A source of the time of day.
pub trait Clock: Send + Sync {
    /// The moment it is.
    fn now(&self) -> Timestamp;
    /// How much time has passed since some moment, whatever anybody does to the time of day.
    fn elapsed(&self) -> Duration;
}

/// The system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    // The one place where the system's clock is read.
    #[expect(clippy::disallowed_methods)]
    fn now(&self) -> Timestamp {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_milliseconds(i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX))
    }

    fn elapsed(&self) -> Duration {
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed()
    }
}

/// A clock that stands still until it is moved.
#[derive(Debug)]
pub struct ManualClock {
    now: AtomicI64,
    elapsed: AtomicI64,
}

impl ManualClock {
    /// A clock that shows `start`.
    pub fn new(start: Timestamp) -> Self {
        Self { now: AtomicI64::new(start.milliseconds()), elapsed: AtomicI64::new(0) }
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        let milliseconds = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        self.now.fetch_add(milliseconds, Ordering::SeqCst);
        self.elapsed.fetch_add(milliseconds, Ordering::SeqCst);
    }

    /// Sets the time of day on, or back, by so many seconds, without time having passed.
    pub fn jump(&self, seconds: i64) {
        self.now.fetch_add(seconds * 1000, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_milliseconds(self.now.load(Ordering::SeqCst))
    }

    fn elapsed(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.elapsed.load(Ordering::SeqCst)).unwrap_or(0))
    }
}

/// From this on a step of the clock is told, in milliseconds (security 110).
const STEP_TOLD: i64 = 2_000;

/// From this on the clock is no longer believed, in milliseconds.
const STEP_DOUBTED: i64 = 30_000;

/// Watches whether the time of day runs on with the time that passes. A jump of more than 30 s is
/// not believed any more, whoever made it: codes are refused until the clock is right and the
/// server was started again, where need be with somebody's word that it is.
#[derive(Debug)]
pub struct ClockWatch {
    seen: Mutex<(Timestamp, Duration)>,
    doubted: AtomicBool,
}

impl ClockWatch {
    /// Begins to watch. `latest` is the latest moment that is on record: a clock well before it is
    /// doubted from the start.
    pub fn new(clock: &dyn Clock, latest: Option<Timestamp>) -> Self {
        let now = clock.now();
        let behind =
            latest.is_some_and(|latest| latest.milliseconds() - now.milliseconds() > STEP_DOUBTED);
        Self { seen: Mutex::new((now, clock.elapsed())), doubted: AtomicBool::new(behind) }
    }

    /// Looks at the clock; the step it made since the last look, in milliseconds, where that is
    /// more than clocks do by themselves.
    pub fn look(&self, clock: &dyn Clock) -> Option<i64> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (now, elapsed) = (clock.now(), clock.elapsed());
        let passed = i64::try_from(elapsed.saturating_sub(seen.1).as_millis()).unwrap_or(i64::MAX);
        let step = now.milliseconds() - seen.0.milliseconds() - passed;
        *seen = (now, elapsed);
        if step.abs() > STEP_DOUBTED {
            self.doubted.store(true, Ordering::SeqCst);
        }
        (step.abs() > STEP_TOLD).then_some(step)
    }

    /// Whether the clock is not believed.
    pub fn is_doubted(&self) -> bool {
        self.doubted.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn security_110_time_that_passes_is_believed_and_a_jump_is_not() {
        let clock = ManualClock::new(Timestamp::from_seconds(1_000_000));
        let watch = ClockWatch::new(&clock, None);
        clock.advance(Duration::from_secs(86_400));
        assert_eq!(watch.look(&clock), None);
        clock.jump(1);
        assert_eq!(watch.look(&clock), None, "clocks are corrected by a little");
        clock.jump(-5);
        assert_eq!(watch.look(&clock), Some(-5_000));
        assert!(!watch.is_doubted());
        clock.jump(3_600);
        assert_eq!(watch.look(&clock), Some(3_600_000));
        clock.jump(-3_600);
        watch.look(&clock);
        assert!(watch.is_doubted(), "set back again, it has still been wrong");
    }

    #[test]
    fn security_110_a_clock_before_what_is_on_record_is_doubted_from_the_start() {
        let clock = ManualClock::new(Timestamp::from_seconds(1_000_000));
        assert!(!ClockWatch::new(&clock, Some(Timestamp::from_seconds(1_000_020))).is_doubted());
        assert!(ClockWatch::new(&clock, Some(Timestamp::from_seconds(1_000_040))).is_doubted());
    }
}
