//! One-time passwords once more, from RFC 4226 section 5.3 over `ring`'s HMAC: what phones, former
//! holders and thieves show, and what the reference compares with. Nothing of the product's own
//! arithmetic is used.

use ring::hmac;

/// A seed as the one who received it keeps it, whatever became of its generation.
#[derive(Clone, PartialEq)]
pub struct KeptSeed {
    pub bytes: Vec<u8>,
    /// SHA-1 and 6 digits, not SHA-256 and 8.
    pub authenticator_app: bool,
}

impl KeptSeed {
    pub fn digits(&self) -> usize {
        if self.authenticator_app { 6 } else { 8 }
    }

    /// The code of a step of 30 s.
    pub fn code(&self, step: u64) -> String {
        let algorithm = match self.authenticator_app {
            true => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            false => hmac::HMAC_SHA256,
        };
        let digits = self.digits();
        let tag = hmac::sign(&hmac::Key::new(algorithm, &self.bytes), &step.to_be_bytes());
        let tag = tag.as_ref();
        let offset = usize::from(tag[tag.len() - 1] & 15);
        let word =
            tag[offset..offset + 4].iter().fold(0, |word, byte| word << 8 | u32::from(*byte));
        format!(
            "{:0digits$}",
            (word & 0x7fff_ffff) % 10_u32.pow(u32::try_from(digits).unwrap_or(6))
        )
    }
}

/// The step of a moment in milliseconds.
pub fn step_of(now: i64) -> u64 {
    u64::try_from(now / 30_000).unwrap_or(0)
}
