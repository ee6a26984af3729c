//! The server's half of DPoP (RFC 9449) that lives in this process: the nonces it gives, and the
//! proofs it has seen. A nonce is an HMAC over a number that rises every two minutes, under a key
//! made at start; one of another process or of an earlier time is answered with a new one, and the
//! phone signs once more. Time is the monotonic clock's, so that neither a wrong clock of the
//! phone nor a clock that is set makes any difference (section 8).

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ring::{digest, hmac};
use semilla_core::base64url;
use semilla_core::entropy::{self, Entropy};
use semilla_core::protocol::jwk::KeyId;
use tokio::time::Instant;

/// For how long a nonce is given. It holds as long again.
const PERIOD: Duration = Duration::from_secs(120);

/// How many proofs are remembered for one nonce. Where there are more, the next nonce comes
/// early: then proofs with the old one are refused sooner, and none is ever forgotten while it
/// could be replayed.
const SEEN_MAX: usize = 100_000;

/// What is known of proofs.
pub(super) struct Proofs {
    key: hmac::Key,
    period: Mutex<Period>,
}

struct Period {
    /// What the nonce is made of.
    number: u64,
    since: Instant,
    /// Proofs that came in this period, and in the one before.
    seen: HashSet<[u8; 32]>,
    seen_before: HashSet<[u8; 32]>,
}

/// What a proof is worth, its signature aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Freshness {
    /// It has a nonce that holds, and comes for the first time.
    Fresh,
    /// It has no nonce, or one that does not hold.
    Stale,
    /// It came before (security 62).
    Replayed,
}

impl Proofs {
    /// Nothing has been seen.
    pub(super) fn new(entropy: &dyn Entropy) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &entropy::bytes::<32>(entropy));
        let period = Period {
            number: 1,
            since: Instant::now(),
            seen: HashSet::new(),
            seen_before: HashSet::new(),
        };
        Self { key, period: Mutex::new(period) }
    }

    /// The nonce to give now (`DPoP-Nonce`).
    pub(super) fn nonce(&self) -> String {
        let number = self.period().number;
        self.nonce_of(number)
    }

    /// Whether a proof's nonce holds. Asked before anything is looked up; [`Proofs::accept`]
    /// decides.
    pub(super) fn holds(&self, nonce: Option<&str>) -> bool {
        let number = self.period().number;
        nonce.is_some_and(|nonce| self.is_of(number, nonce))
    }

    /// Takes a proof whose signature holds. What identifies it is the key and the name the phone
    /// gave it, never its signature, which has a second spelling.
    pub(super) fn accept(&self, nonce: Option<&str>, key: KeyId, jti: &str) -> Freshness {
        let proof = digest::digest(&digest::SHA256, format!("{key}|{jti}").as_bytes());
        let Ok(proof) = <[u8; 32]>::try_from(proof.as_ref()) else { return Freshness::Stale };
        // One lock around both questions: a proof must be remembered in a period in which its
        // nonce holds.
        let mut period = self.period();
        if !nonce.is_some_and(|nonce| self.is_of(period.number, nonce)) {
            return Freshness::Stale;
        }
        if period.seen_before.contains(&proof) || !period.seen.insert(proof) {
            return Freshness::Replayed;
        }
        Freshness::Fresh
    }

    fn period(&self) -> MutexGuard<'_, Period> {
        let mut period = self.period.lock().unwrap_or_else(PoisonError::into_inner);
        let age = period.since.elapsed();
        if age >= PERIOD || period.seen.len() >= SEEN_MAX {
            period.seen_before = std::mem::take(&mut period.seen);
            period.number += 1;
            if age >= 2 * PERIOD {
                period.seen_before.clear();
                period.number += 1;
            }
            period.since = Instant::now();
        }
        period
    }

    fn is_of(&self, number: u64, nonce: &str) -> bool {
        let Some(tag) = base64url::decode(nonce) else { return false };
        // The whole tag in constant time, for the number of now and the one before.
        [number, number - 1]
            .iter()
            .any(|number| hmac::verify(&self.key, &number.to_be_bytes(), &tag).is_ok())
    }

    fn nonce_of(&self, number: u64) -> String {
        base64url::encode(hmac::sign(&self.key, &number.to_be_bytes()).as_ref())
    }
}

#[cfg(test)]
mod tests {
    use semilla_core::protocol::jwk::SigningKey;

    use super::*;
    use crate::app::SystemEntropy;

    fn key_id() -> KeyId {
        let rng = ring::rand::SystemRandom::new();
        let pkcs8 = SigningKey::generate(&rng);
        SigningKey::from_pkcs8(&pkcs8, &rng).expect("a key").public().key_id()
    }

    #[tokio::test(start_paused = true)]
    async fn a_nonce_holds_for_two_to_four_minutes_and_no_longer() {
        let proofs = Proofs::new(&SystemEntropy::default());
        let first = proofs.nonce();
        assert!(proofs.holds(Some(&first)));
        tokio::time::advance(PERIOD - Duration::from_secs(1)).await;
        assert_eq!(proofs.nonce(), first);
        tokio::time::advance(Duration::from_secs(2)).await;
        let second = proofs.nonce();
        assert_ne!(second, first);
        assert!(proofs.holds(Some(&first)) && proofs.holds(Some(&second)));
        tokio::time::advance(PERIOD).await;
        assert!(!proofs.holds(Some(&first)) && proofs.holds(Some(&second)));
        tokio::time::advance(24 * 3600 * Duration::from_secs(1)).await;
        assert!(!proofs.holds(Some(&second)), "also after a long silence");
    }

    #[tokio::test(start_paused = true)]
    async fn a_nonce_of_nobody_or_of_another_process_does_not_hold() {
        let (one, other) =
            (Proofs::new(&SystemEntropy::default()), Proofs::new(&SystemEntropy::default()));
        let foreign = other.nonce();
        for nonce in [None, Some(""), Some("x"), Some(foreign.as_str())] {
            assert!(!one.holds(nonce));
            assert_eq!(one.accept(nonce, key_id(), "a"), Freshness::Stale);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn security_62_a_proof_is_accepted_once_for_as_long_as_its_nonce_holds() {
        let proofs = Proofs::new(&SystemEntropy::default());
        let (key, nonce) = (key_id(), proofs.nonce());
        let nonce = Some(nonce.as_str());
        assert_eq!(proofs.accept(nonce, key, "a"), Freshness::Fresh);
        assert_eq!(proofs.accept(nonce, key, "a"), Freshness::Replayed);
        assert_eq!(proofs.accept(nonce, key, "b"), Freshness::Fresh);
        assert_eq!(proofs.accept(nonce, key_id(), "a"), Freshness::Fresh, "another phone's");
        tokio::time::advance(PERIOD + Duration::from_secs(1)).await;
        assert_eq!(proofs.accept(nonce, key, "a"), Freshness::Replayed, "in the next period too");
        assert_eq!(proofs.accept(nonce, key, "c"), Freshness::Fresh);
        tokio::time::advance(PERIOD).await;
        assert_eq!(proofs.accept(nonce, key, "a"), Freshness::Stale);
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_proofs_shortens_the_nonce_and_never_the_memory() {
        let proofs = Proofs::new(&SystemEntropy::default());
        let (key, nonce) = (key_id(), proofs.nonce());
        assert_eq!(proofs.accept(Some(&nonce), key, "first"), Freshness::Fresh);
        for number in 1..SEEN_MAX {
            assert_eq!(
                proofs.accept(Some(&proofs.nonce()), key, &number.to_string()),
                Freshness::Fresh
            );
        }
        assert_ne!(proofs.nonce(), nonce);
        assert_eq!(proofs.accept(Some(&nonce), key, "first"), Freshness::Replayed);
        for number in 0..SEEN_MAX {
            let name = format!("second {number}");
            assert_eq!(proofs.accept(Some(&proofs.nonce()), key, &name), Freshness::Fresh);
        }
        assert_eq!(proofs.accept(Some(&nonce), key, "first"), Freshness::Stale);
    }
}
