//! Where a phone's time comes from. A real phone asks the system; a test hands in a closure over
//! its own clock, set off or drifting as it likes.

use std::time::{SystemTime, UNIX_EPOCH};

use semilla_core::time::Timestamp;

/// A source of the time of day. Any closure that gives a [`Timestamp`] is one.
pub trait Clock: Send + Sync {
    /// The moment it is, by this phone's clock.
    fn now(&self) -> Timestamp;
}

impl<F: Fn() -> Timestamp + Send + Sync> Clock for F {
    fn now(&self) -> Timestamp {
        self()
    }
}

/// The system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that asks the system")]
    fn now(&self) -> Timestamp {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_milliseconds(i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX))
    }
}
