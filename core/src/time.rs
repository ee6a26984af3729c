//! Moments and durations, in milliseconds. Nothing here knows what time it is.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A moment: milliseconds since 1970-01-01T00:00:00Z. On the wire RFC 3339 in UTC
/// (`2026-11-24T08:12:27.000Z`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// The text is no RFC 3339 time.
#[derive(Debug, thiserror::Error)]
#[error("not an RFC 3339 time")]
pub struct NotATime;

/// The last moment RFC 3339 can write: 9999-12-30T22:00:00.000Z, in any offset.
const MILLISECONDS_MAX: i64 = 253_402_207_200_000;

impl Timestamp {
    /// The moment `milliseconds` after 1970, held within what RFC 3339 can write.
    pub fn from_milliseconds(milliseconds: i64) -> Self {
        Self(milliseconds.clamp(0, MILLISECONDS_MAX))
    }

    /// The moment `seconds` after 1970.
    pub fn from_seconds(seconds: i64) -> Self {
        Self::from_milliseconds(seconds.saturating_mul(1000))
    }

    /// Milliseconds since 1970, for storage.
    pub fn milliseconds(self) -> i64 {
        self.0
    }

    /// Whole seconds since 1970, for codes (RFC 6238 section 4.2) and for the claims `iat` and
    /// `exp` (RFC 7519 section 4.1). Never negative.
    pub fn seconds(self) -> u64 {
        u64::try_from(self.0 / 1000).unwrap_or(0)
    }

    /// The moment `duration` later.
    pub fn plus(self, duration: Duration) -> Self {
        Self::from_milliseconds(
            self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)),
        )
    }

    /// How long from `earlier` until this moment; zero where `earlier` is not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0 - earlier.0).unwrap_or(0))
    }

    /// The moment as the header `Date` tells it (RFC 9110 section 5.6.7), to the second.
    pub fn to_http_date(self) -> String {
        let printer = jiff::fmt::rfc2822::DateTimePrinter::new();
        let moment =
            jiff::Timestamp::from_millisecond(self.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        printer.timestamp_to_rfc9110_string(&moment).unwrap_or_default()
    }

    /// Reads RFC 3339, whatever its offset.
    pub fn parse(text: &str) -> Result<Self, NotATime> {
        let read: jiff::Timestamp = text.parse().map_err(|_| NotATime)?;
        if !(0..=MILLISECONDS_MAX).contains(&read.as_millisecond()) {
            return Err(NotATime);
        }
        Ok(Self(read.as_millisecond()))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(moment) => write!(f, "{moment:.3}"),
            Err(_) => Err(fmt::Error),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_and_read_as_rfc_3339() {
        let moment = Timestamp::from_seconds(1_764_000_000);
        assert_eq!(moment.to_string(), "2025-11-24T16:00:00.000Z");
        assert_eq!(Timestamp::parse("2025-11-24T11:00:00-05:00").expect("a time"), moment);
        assert_eq!(moment.to_http_date(), "Mon, 24 Nov 2025 16:00:00 GMT");
        assert!(Timestamp::parse("2025-11-24").is_err());
        assert!(Timestamp::parse("1969-12-31T23:59:59Z").is_err());
    }

    #[test]
    fn the_ends_of_time_neither_panic_nor_wrap() {
        let last = Timestamp::from_milliseconds(i64::MAX);
        assert_eq!(last.plus(Duration::MAX), last);
        assert_eq!(last.to_string(), "9999-12-30T22:00:00.000Z");
        assert_eq!(Timestamp::from_milliseconds(-5).seconds(), 0);
        assert_eq!(Timestamp::from_seconds(0).since(last), Duration::ZERO);
    }
}
