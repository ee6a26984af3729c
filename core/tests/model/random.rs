//! One generator for everything that a script leaves to chance: the script itself, and the bytes
//! that the product draws. It repeats from its seed (splitmix64).

use std::sync::Mutex;

use semilla_core::entropy::Entropy;

pub struct Random(Mutex<u64>);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(seed))
    }

    pub fn number(&self) -> u64 {
        let mut state = self.0.lock().expect("no panic while drawing");
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; the little bias of a remainder does not matter here.
    pub fn below(&self, bound: usize) -> usize {
        usize::try_from(self.number() % u64::try_from(bound).expect("a small number"))
            .expect("below a usize")
    }

    /// True so many times in a hundred.
    pub fn percent(&self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub fn one_of<T: Clone>(&self, choices: &[T]) -> T {
        choices[self.below(choices.len())].clone()
    }
}

impl Entropy for Random {
    fn fill(&self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            chunk.copy_from_slice(&self.number().to_be_bytes()[..chunk.len()]);
        }
    }
}
