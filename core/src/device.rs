//! A phone bound to one person by a key made on it.

use serde::{Deserialize, Serialize};

use crate::id::{CompanyId, DeviceId, OperationId, UserId};
use crate::protocol::jwk::PublicKey;
use crate::text::Name;
use crate::time::Timestamp;

/// Whether a phone is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum DeviceState {
    /// Its code and key are proven, and a phone bound earlier has yet to agree.
    Waiting {
        /// The operation that asks for it.
        operation: OperationId,
    },
    /// Trusted.
    Bound,
    /// A message came with a counter that was used before: there are two of this phone, and no
    /// telling which is the person's. Nothing it sends counts until somebody revokes it.
    Suspended,
    /// Trusted no more, for good.
    Revoked,
}

impl DeviceState {
    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting { .. } => "waiting",
            Self::Bound => "bound",
            Self::Suspended => "suspended",
            Self::Revoked => "revoked",
        }
    }
}

/// A phone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Its id.
    pub id: DeviceId,
    /// Whose company's.
    pub company: CompanyId,
    /// Whose.
    pub user: UserId,
    /// As its owner called it.
    pub name: Name,
    /// What it says it is.
    pub platform: Name,
    /// The public half of the key made on it.
    pub key: PublicKey,
    /// SHA-256 of its device token, as base64url.
    pub token_sha256: String,
    /// Whether it is trusted.
    pub state: DeviceState,
    /// The last counter seen in a message it signed.
    pub counter: u64,
    /// Since when.
    pub bound: Timestamp,
}

/// A counter that does not rise: the message was seen before, or there are two of this phone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the counter {seen} is not above {last}")]
pub struct CounterNotRising {
    /// The last one accepted.
    pub last: u64,
    /// The one that came.
    pub seen: u64,
}

impl Device {
    /// Takes the counter of a message whose signature was verified (security 130).
    pub fn count(&mut self, seen: u64) -> Result<(), CounterNotRising> {
        if seen <= self.counter {
            return Err(CounterNotRising { last: self.counter, seen });
        }
        self.counter = seen;
        Ok(())
    }
}
