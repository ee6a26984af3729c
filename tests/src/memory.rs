//! A search of this very process's memory for a secret, without holding that secret in clear.

use std::fs::File;
use std::os::unix::fs::FileExt;

/// What is looked for lies in memory under this mask.
const MASK: u8 = 0xA5;

/// How much of a secret is looked for: never there by chance.
const END: usize = 12;

/// How much is looked at in one piece.
const PIECE: usize = 1 << 20;

/// A secret as it may lie in memory while one looks for it.
pub struct Masked(Vec<u8>);

impl Masked {
    /// Masks the end of a secret, whose bytes stay where they are. The beginning of what is given
    /// back is written over by whoever manages memory, and would hide the rest.
    pub fn end_of(secret: &[u8]) -> Self {
        assert!(secret.len() >= 32, "nothing would be left of it");
        Self(secret[secret.len() - END..].iter().map(|byte| byte ^ MASK).collect())
    }

    /// How often it is in clear in what this process can write: heap, stacks, everything.
    pub fn copies(&self) -> usize {
        let mut piece = vec![0; PIECE];
        // What is read is not what is looked for, wherever it was read to.
        let own = piece.as_ptr().addr() as u64;
        let (own, own_end) = (own, own + PIECE as u64);
        let maps = std::fs::read_to_string("/proc/self/maps").expect("the maps");
        let memory = File::open("/proc/self/mem").expect("own memory");
        let mut found = 0;
        for (from, to) in maps.lines().filter_map(writable) {
            // Before the buffer, and behind it.
            for (from, to) in [(from, to.min(own)), (from.max(own_end), to)] {
                found += self.within(&memory, from, to, &mut piece);
            }
        }
        found
    }

    fn within(&self, memory: &File, from: u64, to: u64, piece: &mut [u8]) -> usize {
        let (mut found, mut place) = (0, from);
        while place < to {
            let wanted = usize::try_from(to - place).unwrap_or(PIECE).min(PIECE);
            // Pages that went away meanwhile hold nothing.
            let read = memory.read_at(&mut piece[..wanted], place).unwrap_or(0);
            found += self.occurrences(&piece[..read]);
            // Once more what a secret across the border would begin with.
            let step = if place + wanted as u64 == to { wanted } else { wanted - self.0.len() + 1 };
            place += step as u64;
        }
        found
    }

    fn occurrences(&self, piece: &[u8]) -> usize {
        let first = self.0[0] ^ MASK;
        let candidates = piece.windows(self.0.len()).filter(|window| window[0] == first);
        candidates
            .filter(|window| {
                window.iter().zip(&self.0).all(|(byte, masked)| byte ^ MASK == *masked)
            })
            .count()
    }
}

/// Where a line of the maps is memory that can be read and written.
fn writable(line: &str) -> Option<(u64, u64)> {
    let mut words = line.split_whitespace();
    let (from, to) = words.next()?.split_once('-')?;
    if !words.next()?.starts_with("rw") || line.ends_with("[vvar]") {
        return None;
    }
    Some((u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_found_while_it_is_there_and_not_when_it_was_wiped() {
        let random = ring::rand::SystemRandom::new();
        let mut secret = vec![0_u8; 32];
        ring::rand::SecureRandom::fill(&random, &mut secret).expect("random bytes");
        let masked = Masked::end_of(&secret);
        let copy = secret.clone();
        assert_eq!(masked.copies(), 2);
        drop(zeroize::Zeroizing::new(copy));
        assert_eq!(masked.copies(), 1);
        zeroize::Zeroize::zeroize(secret.as_mut_slice());
        assert_eq!(masked.copies(), 0);
    }
}
