//! Names of things: UUIDv7 (RFC 9562 section 5.7), made from a moment and random bytes that the
//! caller hands in, one type for each kind of thing so that none can stand for another.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use crate::entropy::{self, Entropy};
use crate::time::Timestamp;

/// The text is no id: ids are UUIDs in lower case with hyphens.
#[derive(Debug, thiserror::Error)]
#[error("not an id")]
pub struct NotAnId;

fn parse(text: &str) -> Result<Uuid, NotAnId> {
    let id = Uuid::try_parse(text).map_err(|_| NotAnId)?;
    // One spelling only: whatever keys on the text keys on the thing.
    if id.hyphenated().encode_lower(&mut Uuid::encode_buffer()) != text {
        return Err(NotAnId);
    }
    Ok(id)
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// A new id, later in order than those of earlier moments.
            pub fn new(now: Timestamp, entropy: &dyn Entropy) -> Self {
                let milliseconds = u64::try_from(now.milliseconds()).unwrap_or(0);
                let random = entropy::bytes::<10>(entropy);
                Self(uuid::Builder::from_unix_timestamp_millis(milliseconds, &random).into_uuid())
            }
        }

        impl FromStr for $name {
            type Err = NotAnId;
            fn from_str(text: &str) -> Result<Self, NotAnId> {
                parse(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

ids! {
    /// A company, or the bank itself ([`CompanyId::BANK`]): whose thing something is.
    CompanyId;
    /// A person of a company or of the bank.
    UserId;
    /// A virtual or physical token, through all its generations.
    TokenId;
    /// A phone bound to one person.
    DeviceId;
    /// An opportunity to enroll one generation of one token on a phone.
    EnrollmentId;
    /// An operation that was asked for and waits, or waited, for a phone.
    OperationId;
    /// A program that holds credentials for the API.
    ClientId;
    /// An address that a company wants to be told at.
    WebhookId;
}

impl CompanyId {
    /// The bank: owner of the stock, of the operators and of what no company owns.
    pub const BANK: Self = Self(Uuid::from_u128(0x7000_8000_0000_0000_0000));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::testing::Seeded;

    #[test]
    fn ids_are_version_7_and_ordered_by_time() {
        let entropy = Seeded::new(7);
        let early = TokenId::new(Timestamp::from_seconds(1_000), &entropy);
        let late = TokenId::new(Timestamp::from_seconds(2_000), &entropy);
        assert!(early < late && early.to_string() < late.to_string());
        assert_eq!(early.0.get_version_num(), 7);
    }

    #[test]
    fn an_id_has_one_spelling() {
        let id = CompanyId::BANK.to_string();
        assert_eq!(id, "00000000-0000-7000-8000-000000000000");
        assert!(id.parse::<CompanyId>().is_ok());
        for other in
            ["", "00000000000070008000000000000000", "{00000000-0000-7000-8000-000000000000}"]
        {
            assert!(other.parse::<CompanyId>().is_err(), "{other}");
        }
        assert!("ABCDEF00-0000-7000-8000-000000000000".parse::<CompanyId>().is_err());
    }
}
