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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::path::Path;

    use ring::rand::{SecureRandom, SystemRandom};

    use super::*;
    use crate::otp::Algorithm;

    struct System(SystemRandom);

    impl Entropy for System {
        fn fill(&self, out: &mut [u8]) {
            self.0.fill(out).expect("the system's generator");
        }
    }

    #[test]
    fn security_7_a_seed_is_as_long_as_its_hash_and_none_comes_twice() {
        let entropy = System(SystemRandom::new());
        for algorithm in [Algorithm::Sha1, Algorithm::Sha256, Algorithm::Sha512] {
            let seed = Seed::generate(algorithm.key_length(), &entropy);
            let output = match algorithm {
                Algorithm::Sha1 => 20,
                Algorithm::Sha256 => 32,
                Algorithm::Sha512 => 64,
            };
            assert!(seed.expose().len() == output && output * 8 >= 160);
        }
        let times = if cfg!(debug_assertions) { 100_000 } else { 1_000_000 };
        let seen: HashSet<[u8; 20]> = (0..times)
            .map(|_| Seed::generate(20, &entropy).expose().try_into().expect("20 bytes"))
            .collect();
        assert_eq!(seen.len(), times);
    }

    /// Every source file of this crate without its tests, by name.
    fn sources(folder: &Path, found: &mut Vec<(String, String)>) {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                sources(&path, found);
            } else if !path.ends_with("protocol/tests.rs") {
                let text = std::fs::read_to_string(&path).expect("a source");
                let code = text.split("#[cfg(test)]\nmod tests {").next().expect("a beginning");
                found.push((path.display().to_string(), code.to_owned()));
            }
        }
    }

    #[test]
    fn security_5_and_7_nothing_here_reads_a_clock_or_draws_a_number_of_its_own() {
        let mut found = Vec::new();
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
        assert!(found.len() > 20);
        let outside = [
            "SystemTime",
            "Instant",
            "Timestamp::now",
            "Zoned::now",
            "now_v7",
            "new_v4",
            "SystemRandom::",
            "OsRng",
            "getrandom",
            "thread_rng",
        ];
        for (name, code) in &found {
            for word in outside {
                assert!(!code.contains(word), "{name}: {word}");
            }
        }
        // The one place where seeds come from, and nobody else fills one.
        let makes = |code: &String| code.matches("Seed::generate(").count();
        assert_eq!(found.iter().map(|(_, code)| makes(code)).sum::<usize>(), 0);
        let here = found.iter().find(|(name, _)| name.ends_with("secret.rs")).expect("this file");
        assert_eq!(here.1.matches("entropy.fill(").count(), 1);
    }
}
