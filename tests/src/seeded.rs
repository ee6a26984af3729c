//! Numbers that look random and are the same for the same seed, so that a failure can be played
//! again: the seed is printed with it.

/// SplitMix64 (Steele, Lea, Flood 2014): small, and good enough to choose what to try next.
#[derive(Clone, Debug)]
pub struct Seeded(u64);

impl Seeded {
    /// The numbers of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The seed that `SEMILLA_SEED` names, or `otherwise`; printed, for whoever sees the test fail.
    pub fn from_environment(otherwise: u64) -> Self {
        let given = std::env::var("SEMILLA_SEED").ok();
        let seed = given.map_or(otherwise, |text| text.parse().expect("SEMILLA_SEED is a number"));
        eprintln!("played with SEMILLA_SEED={seed}");
        Self(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.number() % bound as u64).unwrap_or(0)
    }

    /// One of these.
    pub fn one_of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }
}
