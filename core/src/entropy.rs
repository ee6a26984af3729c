//! Random bytes, handed in from outside. The server and a real phone hand in the operating
//! system's generator; a simulation hands in one that repeats from its seed.

/// A source of random bytes fit for keys, or, in a simulation, one that repeats.
pub trait Entropy: Send + Sync {
    /// Fills `out` completely. A source that cannot must not return.
    fn fill(&self, out: &mut [u8]);
}

/// `N` random bytes.
pub fn bytes<const N: usize>(entropy: &dyn Entropy) -> [u8; N] {
    let mut out = [0; N];
    entropy.fill(&mut out);
    out
}

/// A number below `bound`, without the bias of a plain remainder.
pub fn below(entropy: &dyn Entropy, bound: u32) -> u32 {
    assert!(bound > 0, "an empty range has no member");
    let zone = u32::MAX - u32::MAX % bound;
    loop {
        let drawn = u32::from_be_bytes(bytes(entropy));
        if drawn < zone {
            return drawn % bound;
        }
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use std::sync::Mutex;

    /// Repeats from its seed (splitmix64): for tests, never for keys.
    pub(crate) struct Seeded(Mutex<u64>);

    impl Seeded {
        pub(crate) fn new(seed: u64) -> Self {
            Self(Mutex::new(seed))
        }
    }

    impl super::Entropy for Seeded {
        fn fill(&self, out: &mut [u8]) {
            let mut state = self.0.lock().expect("no panic while drawing");
            for chunk in out.chunks_mut(8) {
                *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut z = *state;
                z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                z ^= z >> 31;
                chunk.copy_from_slice(&z.to_be_bytes()[..chunk.len()]);
            }
        }
    }

    #[test]
    fn a_bounded_draw_reaches_every_value_and_no_other() {
        let entropy = Seeded::new(1);
        let mut seen = [false; 7];
        for _ in 0..500 {
            seen[super::below(&entropy, 7) as usize] = true;
        }
        assert_eq!(seen, [true; 7]);
    }
}
