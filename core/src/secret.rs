//! Types for what must never be seen. None has `Debug`, `Display`, `Clone` or `Serialize`; each
//! is overwritten when dropped. `ring`'s own keys are not (they hold a copy for as long as they
//! live), so those are made where they are used and dropped at once.
//!
//! ```compile_fail
//! fn shown<T: std::fmt::Debug>() {}
//! shown::<semilla_core::secret::Seed>(); // security 40: a seed cannot be printed
//! ```
//! ```compile_fail
//! fn written<T: serde::Serialize>() {}
//! written::<semilla_core::secret::Seed>(); // nor serialized
//! ```

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::entropy::Entropy;

/// A token's seed: the shared secret of RFC 4226 section 5.1, 16 to 64 bytes.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Seed(Box<[u8]>);

/// A seed shorter than 128 bits (RFC 4226 section 4, R6) or longer than any hash block needs.
#[derive(Debug, thiserror::Error)]
#[error("a seed has 16 to 64 bytes")]
pub struct SeedLength;

impl Seed {
    /// A new seed of `length` bytes; the one place where seeds come from (security 7).
    ///
    /// # Panics
    /// Where `length` is not a seed's length: a programming error.
    pub fn generate(length: usize, entropy: &dyn Entropy) -> Self {
        assert!((16..=64).contains(&length), "a seed has 16 to 64 bytes");
        let mut bytes = vec![0; length].into_boxed_slice();
        entropy.fill(&mut bytes);
        Self(bytes)
    }

    /// Takes over bytes that were opened or received.
    pub fn from_bytes(bytes: Zeroizing<Vec<u8>>) -> Result<Self, SeedLength> {
        if !(16..=64).contains(&bytes.len()) {
            return Err(SeedLength);
        }
        Ok(Self(bytes.as_slice().into()))
    }

    /// The bytes, for the one computation that needs them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

/// A text that must not be seen: a client secret, a device token, an activation code.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct SecretText(String);

impl SecretText {
    /// Takes over `text`.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text, for the one message or comparison that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl<'de> serde::Deserialize<'de> for SecretText {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The error of a wrong type would quote what it found.
        String::deserialize(deserializer)
            .map(Self)
            .map_err(|_| serde::de::Error::custom("must be a string"))
    }
}
