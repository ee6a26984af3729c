//! Where a real phone's random bytes come from.

use ring::rand::{SecureRandom, SystemRandom};
use semilla_core::entropy::Entropy;

/// The operating system's generator.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, out: &mut [u8]) {
        // A phone without random bytes must not go on (see `Entropy`).
        SystemRandom::new().fill(out).expect("the system's generator works");
    }
}
