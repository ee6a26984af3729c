//! Bytes as they travel: base64url without padding, in exactly one spelling. Lengths are checked
//! when a text is read, so that nobody has to check them later.

use std::fmt;
use std::str::FromStr;

use ring::digest;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::MessageError;
use crate::base64url;
use crate::entropy::{self, Entropy};

macro_rules! fixed {
    ($($(#[$doc:meta])* $name:ident($length:literal);)*) => {$(
        $(#[$doc])*
        pub struct $name([u8; $length]);

        impl $name {
            /// Takes the bytes.
            pub fn from_bytes(bytes: [u8; $length]) -> Self {
                Self(bytes)
            }

            /// The bytes.
            pub fn as_bytes(&self) -> &[u8; $length] {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = MessageError;
            fn from_str(text: &str) -> Result<Self, MessageError> {
                let bytes = base64url::decode(text).ok_or(MessageError::Malformed)?;
                bytes.try_into().map(Self).map_err(|_| MessageError::Malformed)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&base64url::encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
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

fixed! {
    /// 128 random bits that are used once: a message's `jti`, or a `nonce` of the server
    /// (security 46, 54).
    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
    Nonce(16);
    /// A SHA-256 digest (FIPS 180-4).
    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
    Digest(32);
    /// An HMAC-SHA-256 value (RFC 2104). It has no equality: comparing it is the business of
    /// [`super::activation::ActivationKey`], in constant time.
    #[derive(Clone, Copy)]
    Mac(32);
}

impl Nonce {
    /// A new one.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        Self(entropy::bytes(entropy))
    }
}

impl Digest {
    /// The digest of `bytes`: the one place where the protocol hashes.
    pub fn of(bytes: &[u8]) -> Self {
        let mut out = [0; 32];
        out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
        Self(out)
    }
}

/// Bytes of any length that are no secret: a ciphertext, an encapsulated key.
#[derive(Clone, PartialEq, Eq)]
pub struct Binary(pub Vec<u8>);

impl fmt::Debug for Binary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base64url::encode(&self.0))
    }
}

impl Serialize for Binary {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&base64url::encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Binary {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = base64url::decode(&text);
        bytes.map(Self).ok_or_else(|| serde::de::Error::custom(MessageError::Malformed))
    }
}

/// For `#[serde(deserialize_with)]` on an optional field: absent is `None`, `null` is an error, so
/// that what is not there has one spelling.
pub(super) fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_in_one_spelling_and_one_length() {
        let digest = Digest::of(b"abc");
        let text = "ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0"; // FIPS 180-4, example "abc"
        assert_eq!(digest.to_string(), text);
        assert_eq!(text.parse::<Digest>(), Ok(digest));
        // The last character carries four bits that mean nothing: they must be zero.
        for other in [&text[..42], "ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa1", "", "AAAA"] {
            assert_eq!(other.parse::<Digest>(), Err(MessageError::Malformed), "{other}");
        }
        let json = serde_json::to_string(&Binary(vec![0xfb, 0xff])).expect("JSON");
        assert_eq!(json, r#""-_8""#);
        assert!(serde_json::from_str::<Binary>(r#""-_9""#).is_err());
    }
}
