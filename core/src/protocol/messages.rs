//! The signed messages, one type for each, and the checks that all of them share. The type is the
//! domain: its name is signed with it, so that a message of one kind is refused where another is
//! expected (security 59, 61).
//!
//! | kind | from | says |
//! |---|---|---|
//! | `bind+jwt` | phone | this is my key, and a code vouches for it |
//! | `enroll+jwt` | phone | send me the seed, sealed to this key |
//! | `seed-delivery+jwt` | server | the sealed seed |
//! | `approval-request+jwt` | server | somebody asks for this: what do you say? |
//! | `approval-response+jwt` | phone | yes with the number, or no with the reason |
//! | `rotate-request+jwt` | phone | give my token a new seed |
//! | `key-change+jwt` | phone, old key | from now on I sign with this key |
//! | `key-proof+jwt` | phone, new key | inside the former: and I hold it |

use ring::rand::SecureRandom;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::MessageError;
use super::activation::ActivationName;
use super::bytes::{Binary, Mac, Nonce};
use super::jwk::{KeyId, PublicKey, SigningKey};
use super::jws::{self, KeyHeader};
use crate::id::{DeviceId, EnrollmentId, TokenId};
use crate::text::Name;
use crate::time::Timestamp;

/// The version of the messages, `1` on the wire. There is no value for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Version;

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(1)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u64::deserialize(deserializer)? {
            1 => Ok(Self),
            _ => Err(serde::de::Error::custom(MessageError::WrongVersion)),
        }
    }
}

/// A moment as whole seconds since 1970 (RFC 7519 section 2, "NumericDate", without a fraction):
/// what a message carries; everything else uses RFC 3339. Milliseconds are dropped when written.
pub(super) mod numeric_date {
    use super::{Deserialize, Deserializer, Serializer, Timestamp};

    pub(in crate::protocol) fn serialize<S: Serializer>(
        moment: &Timestamp,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(moment.seconds())
    }

    pub(in crate::protocol) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Timestamp, D::Error> {
        let seconds = u64::deserialize(deserializer)?;
        let moment = Timestamp::from_seconds(i64::try_from(seconds).unwrap_or(i64::MAX));
        if moment.seconds() != seconds {
            return Err(serde::de::Error::custom("a moment beyond the year 9999"));
        }
        Ok(moment)
    }
}

/// What every message carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// Who sent it: the server's address, a phone's id, or before it has one its key's thumbprint.
    pub iss: &'a str,
    /// For whom it is: the server's address, or a phone's id.
    pub aud: &'a str,
    /// Its name, used once.
    pub jti: Nonce,
    /// When it was made, by the sender's clock.
    pub iat: Timestamp,
    /// A phone's counter; `None` where the server is the sender.
    pub ctr: Option<u64>,
}

/// A kind of signed message.
pub trait Message: Serialize + DeserializeOwned {
    /// Its `typ` (RFC 7515 section 4.1.9).
    const TYP: &'static str;

    /// How it names its key.
    const KEY_HEADER: KeyHeader = KeyHeader::Name;

    /// What it has in common with the others.
    fn envelope(&self) -> Envelope<'_>;
}

/// Signs a message.
///
/// # Panics
/// As [`jws::sign`].
pub fn sign<M: Message>(message: &M, key: &SigningKey, rng: &dyn SecureRandom) -> String {
    jws::sign(key, M::TYP, M::KEY_HEADER, message, rng)
}

/// Verifies a message that `iss` signed with `key` for `aud`, and does every check that is the
/// same for all kinds. Left to the caller is what needs memory: that `jti` is new, `ctr` above the
/// last, `nonce` the one given out; and the deadline, by [`check_not_expired`].
pub fn verify<M: Message>(
    text: &str,
    key: &PublicKey,
    iss: &str,
    aud: &str,
) -> Result<M, MessageError> {
    let message = read(&jws::verified(text, M::TYP, key)?)?;
    check_envelope(&message, iss, aud)?;
    Ok(message)
}

/// Verifies a [`Bind`] for `aud` and gives the key it carries. That the code vouches for the key
/// (`jkt_mac`) is for [`super::activation::ActivationKey::verify_phone`] to say.
pub fn verify_bind(text: &str, aud: &str) -> Result<(Bind, PublicKey), MessageError> {
    let (payload, key) = jws::verified_with_embedded_jwk(text, Bind::TYP)?;
    let bind: Bind = read(&payload)?;
    check_envelope(&bind, &key.thumbprint(), aud)?;
    Ok((bind, key))
}

/// Verifies a [`KeyChange`] that the phone `device` signed with `old` for `aud`, and within it
/// that the new key is held by the same phone and is a new one.
pub fn verify_key_change(
    text: &str,
    old: &PublicKey,
    device: DeviceId,
    aud: &str,
) -> Result<KeyChange, MessageError> {
    let device = device.to_string();
    let change: KeyChange = verify(text, old, &device, aud)?;
    let proof: KeyProof = verify(&change.proof, &change.new_key, &device, aud)?;
    if proof.old != old.key_id() || change.new_key == *old {
        return Err(MessageError::WrongKey);
    }
    Ok(change)
}

/// The checks of sender and receiver. That the version is known, a message of these types shows by
/// being one.
pub fn check_envelope<M: Message>(message: &M, iss: &str, aud: &str) -> Result<(), MessageError> {
    let envelope = message.envelope();
    if envelope.iss != iss {
        return Err(MessageError::WrongIssuer);
    }
    if envelope.aud != aud {
        return Err(MessageError::WrongAudience);
    }
    Ok(())
}

/// Whether `exp` is still ahead (RFC 7519 section 4.1.4). On a phone `now` is its clock corrected
/// by the skew that the server tells it; what counts is the server's clock (security 57).
pub fn check_not_expired(exp: Timestamp, now: Timestamp) -> Result<(), MessageError> {
    if now < exp { Ok(()) } else { Err(MessageError::Expired) }
}

/// Reads the version first, so that a message of a later one is told apart from a bad one.
fn read<M: Message>(payload: &[u8]) -> Result<M, MessageError> {
    #[derive(Deserialize)]
    struct Versioned {
        v: u64,
    }
    let versioned: Versioned = jws::claims(payload)?;
    if versioned.v != 1 {
        return Err(MessageError::WrongVersion);
    }
    jws::claims(payload)
}

/// Declares a message: the fields that all have, `ctr` for those of a phone, then its own.
macro_rules! message {
    (
        $(#[$meta:meta])*
        $name:ident $typ:literal $key_header:ident $([$ctr:ident])?
        { $($(#[$field_meta:meta])* $field:ident: $ty:ty,)* }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            /// The version.
            pub v: Version,
            /// The sender.
            pub iss: String,
            /// The receiver.
            pub aud: String,
            /// The message's name, used once.
            pub jti: Nonce,
            /// When it was made.
            #[serde(with = "numeric_date")]
            pub iat: Timestamp,
            $(
                /// Rises with every message of this phone; a value that does not means that two
                /// phones hold the same key (security 130).
                pub $ctr: u64,
            )?
            $($(#[$field_meta])* pub $field: $ty,)*
        }

        impl Message for $name {
            const TYP: &'static str = $typ;
            const KEY_HEADER: KeyHeader = KeyHeader::$key_header;
            fn envelope(&self) -> Envelope<'_> {
                Envelope {
                    iss: &self.iss,
                    aud: &self.aud,
                    jti: self.jti,
                    iat: self.iat,
                    ctr: None$(.or(Some(self.$ctr)))?,
                }
            }
        }
    };
}

message! {
    /// Binds a phone to a person: signed by the phone's new key, which the header carries. `iss`
    /// is that key's thumbprint.
    Bind "bind+jwt" Key [ctr] {
        /// The nonce that the server gave for this activation (security 46).
        nonce: Nonce,
        /// Which activation.
        activation: ActivationName,
        /// The phone's system, as the phone calls it.
        platform: Name,
        /// The phone's name, as its owner knows it.
        name: Name,
        /// Proof that whoever holds the key holds the code: see
        /// [`super::activation::ActivationKey::phone_mac`].
        jkt_mac: Mac,
    }
}

message! {
    /// Asks for the seed of an open enrollment.
    Enroll "enroll+jwt" Name [ctr] {
        /// Which enrollment.
        enrollment: EnrollmentId,
        /// A fresh key, made for this one request, to which the seed is sealed.
        seed_kem: PublicKey,
    }
}

message! {
    /// Carries a seed, sealed to the key of an [`Enroll`]: see [`super::seed_delivery`].
    SeedDelivery "seed-delivery+jwt" Name {
        /// Which token.
        sub: TokenId,
        /// Which enrollment.
        txn: EnrollmentId,
        /// Which generation of the token.
        generation: u32,
        /// When the delivery can no longer be confirmed.
        #[serde(with = "numeric_date")]
        exp: Timestamp,
        /// The sealed seed.
        hpke: Hpke,
    }
}

/// A text sealed by HPKE (RFC 9180 section 6.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hpke {
    /// The encapsulated key: 65 bytes.
    pub enc: Binary,
    /// The ciphertext with its tag.
    pub ct: Binary,
}

message! {
    /// Asks for a new seed for a token that the phone's owner holds.
    RotateRequest "rotate-request+jwt" Name [ctr] {
        /// Which token.
        token: TokenId,
        /// The generation that is to be replaced.
        generation: u32,
        /// Why, in code.
        cause: String,
        /// The state of the token that its holder saw: another means that something happened since
        /// (security 56).
        state_version: u64,
    }
}

message! {
    /// Replaces the phone's key: signed by the old one.
    KeyChange "key-change+jwt" Name [ctr] {
        /// The key that replaces it.
        new_key: PublicKey,
        /// A [`KeyProof`] as signed text.
        proof: String,
    }
}

message! {
    /// Shows that the phone holds the new key, and that it was made to replace that old one.
    /// `iss` is the phone's id. It is worth nothing outside a [`KeyChange`].
    KeyProof "key-proof+jwt" Name {
        /// The key that is to be replaced.
        old: KeyId,
    }
}
