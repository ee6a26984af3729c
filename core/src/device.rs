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

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;

    use super::*;
    use crate::base64url;
    use crate::entropy::testing::Seeded;
    use crate::protocol::jwk::SigningKey;

    fn phone() -> (Device, zeroize::Zeroizing<Vec<u8>>) {
        let (rng, entropy, now) =
            (SystemRandom::new(), Seeded::new(1), Timestamp::from_seconds(1_764_000_000));
        let private = SigningKey::generate(&rng);
        let key = SigningKey::from_pkcs8(&private, &rng).expect("a key").public().clone();
        let device = Device {
            id: DeviceId::new(now, &entropy),
            company: CompanyId::BANK,
            user: UserId::new(now, &entropy),
            name: Name::parse("phone").expect("a name"),
            platform: Name::parse("model").expect("a name"),
            key,
            token_sha256: String::new(),
            state: DeviceState::Bound,
            counter: 1,
            bound: now,
        };
        (device, private)
    }

    #[test]
    fn security_47_what_is_kept_of_a_phones_key_is_its_public_half_and_its_name() {
        let (device, private) = phone();
        let kept = serde_json::to_value(&device).expect("JSON");
        let members: Vec<_> = kept["key"].as_object().expect("a JWK").keys().collect();
        assert_eq!(members, ["crv", "kty", "x", "y"]);
        // PKCS#8 holds the 32 bytes of the private key before the public one (RFC 5915 section 3).
        let secret = &private[36..68];
        let rng = SystemRandom::new();
        assert!(SigningKey::from_pkcs8(&private, &rng).is_ok());
        let mut changed = private.to_vec();
        changed[67] ^= 1;
        assert!(SigningKey::from_pkcs8(&changed, &rng).is_err(), "these bytes are the private key");
        let text = kept.to_string();
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        for written in [base64url::encode(secret), hex, format!("{secret:?}")] {
            assert!(!text.contains(&written));
        }
        // With a private half it is not read.
        let mut with_private = kept.clone();
        with_private["key"]["d"] = base64url::encode(secret).into();
        assert!(serde_json::from_value::<Device>(with_private).is_err());
        assert!(serde_json::from_value::<Device>(kept).is_ok());
        // Its name is the digest of the key: another key, another name.
        assert_eq!(device.key.thumbprint(), device.key.key_id().to_string());
        assert_ne!(device.key.thumbprint(), phone().0.key.thumbprint());
    }

    #[test]
    fn security_130_a_counter_only_rises() {
        let (mut device, _) = phone();
        assert_eq!(device.count(2), Ok(()));
        for seen in [0, 1, 2] {
            assert_eq!(device.count(seen), Err(CounterNotRising { last: 2, seen }));
            assert_eq!(device.counter, 2);
        }
        assert_eq!(device.count(u64::MAX), Ok(()));
        assert!(device.count(u64::MAX).is_err());
    }
}
