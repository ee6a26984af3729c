//! Signed statements that a chain of audit records had come so far and looked like this. Kept
//! outside the database, they show what the chain alone cannot: that its tail was cut off, or that
//! all of it was written anew (security 92).
//!
//! Each checkpoint covers the records behind the one before it, names that one by its hash, and
//! holds the root of a Merkle tree (RFC 9162 section 2.1.1) over the hashes of its records, so that
//! one record is proven with a few hashes and without showing the others.

use std::fmt;

use ring::digest;
use ring::rand::SecureRandom;
use serde::{Deserialize, Serialize};

use crate::audit::{Hash, Head, Record};
use crate::id::CompanyId;
use crate::protocol::MessageError;
use crate::protocol::bytes::Digest;
use crate::protocol::jwk::{JwkSet, SigningKey};
use crate::protocol::jws::{self, KeyHeader};
use crate::protocol::messages::Version;
use crate::time::Timestamp;

/// The kind of message.
pub const TYP: &str = "audit-checkpoint+jwt";

/// How many records one checkpoint covers, at most.
pub const RECORDS_MAX: u64 = 1000;

/// What a checkpoint states.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// The version.
    pub v: Version,
    /// The server's address.
    pub iss: String,
    /// When it was made.
    pub at: Timestamp,
    /// Whose chain.
    pub company: CompanyId,
    /// The first record it covers.
    pub first: u64,
    /// The last record it covers.
    pub last: u64,
    /// The hash of the last record, and through it of all before it.
    pub head: Hash,
    /// The root of the Merkle tree over the hashes of the records it covers.
    pub root: Hash,
    /// The SHA-256 of the exact text of the checkpoint before it; absent in the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Digest>,
}

/// A checkpoint and its exact text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// What it states.
    pub checkpoint: Checkpoint,
    /// The compact JWS.
    pub text: String,
}

impl Signed {
    /// States that `records` come behind what `previous` covers.
    ///
    /// Returns nothing for no records, or more than [`RECORDS_MAX`].
    pub fn make(
        issuer: &str,
        at: Timestamp,
        previous: Option<&Self>,
        records: &[Record],
        key: &SigningKey,
        rng: &dyn SecureRandom,
    ) -> Option<Self> {
        let (first, last) = (records.first()?, records.last()?);
        if records.len() as u64 > RECORDS_MAX {
            return None;
        }
        let leaves: Vec<Hash> = records.iter().map(|record| record.hash).collect();
        let checkpoint = Checkpoint {
            v: Version,
            iss: issuer.to_owned(),
            at,
            company: first.company,
            first: first.sequence,
            last: last.sequence,
            head: last.hash,
            root: root(&leaves),
            previous: previous.map(Self::digest),
        };
        let text = jws::sign(key, TYP, KeyHeader::Name, &checkpoint, rng);
        Some(Self { checkpoint, text })
    }

    /// Reads a checkpoint that one of `keys` signed.
    pub fn verify(text: &str, keys: &JwkSet) -> Result<Self, MessageError> {
        let key = keys.find(jws::peek(text)?.kid.ok_or(MessageError::Malformed)?)?;
        let checkpoint: Checkpoint = jws::verify(text, TYP, key)?;
        if checkpoint.first == 0 || checkpoint.last < checkpoint.first {
            return Err(MessageError::Malformed);
        }
        Ok(Self { checkpoint, text: text.to_owned() })
    }

    /// What the next one names it by.
    pub fn digest(&self) -> Digest {
        Digest::of(self.text.as_bytes())
    }
}

/// What a chain and its checkpoints disagree about.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Disagreement {
    /// The checkpoint covers records that are not there: the tail was cut off.
    #[error("the records {from} to {to} are missing: the tail was cut off")]
    Cut {
        /// The first one that is missing.
        from: u64,
        /// The last one that is known to have been there.
        to: u64,
    },
    /// The chain is whole in itself and another than the one that was stated.
    #[error("record {0} is not what was stated of it: the chain was written anew")]
    Rewritten(u64),
    /// A checkpoint is missing between two others, or is not the one that was named.
    #[error("a checkpoint that ended before record {0} is missing, or is another")]
    Broken(u64),
}

/// Reads a chain from its beginning and holds it to its checkpoints, in order.
#[derive(Clone, Debug, Default)]
pub struct Witness {
    covered: u64,
    previous: Option<Digest>,
    leaves: Vec<Hash>,
}

impl Witness {
    /// A record that fits its chain comes next.
    pub fn saw(&mut self, head: Head) {
        self.leaves.push(head.hash);
    }

    /// How many records were seen.
    fn seen(&self) -> u64 {
        self.covered + self.leaves.len() as u64
    }

    /// The next checkpoint of the chain, once everything it covers was seen.
    pub fn hold_to(&mut self, signed: &Signed) -> Result<(), Disagreement> {
        let stated = &signed.checkpoint;
        if stated.first != self.covered + 1 || stated.previous != self.previous {
            return Err(Disagreement::Broken(stated.first));
        }
        if self.seen() < stated.last {
            return Err(Disagreement::Cut { from: self.seen() + 1, to: stated.last });
        }
        let count = usize::try_from(stated.last - self.covered).unwrap_or(usize::MAX);
        let covered = &self.leaves[..count];
        if covered.last() != Some(&stated.head) || root(covered) != stated.root {
            return Err(Disagreement::Rewritten(stated.last));
        }
        self.leaves.drain(..count);
        self.covered = stated.last;
        self.previous = Some(signed.digest());
        Ok(())
    }

    /// How many records no checkpoint covers yet.
    pub fn uncovered(&self) -> u64 {
        self.leaves.len() as u64
    }
}

/// The root of the Merkle tree over `leaves` (RFC 9162 section 2.1.1).
pub fn root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => Hash::finish(digest::Context::new(&digest::SHA256)),
        [leaf] => leaf_hash(*leaf),
        _ => {
            let (left, right) = leaves.split_at(split(leaves.len()));
            node_hash(root(left), root(right))
        }
    }
}

/// The proof that the leaf at `place` is in the tree over `leaves` (RFC 9162 section 2.1.3.1); none
/// where there is no such leaf.
pub fn path(leaves: &[Hash], place: usize) -> Option<Vec<Hash>> {
    if place >= leaves.len() {
        return None;
    }
    if leaves.len() == 1 {
        return Some(Vec::new());
    }
    let (left, right) = leaves.split_at(split(leaves.len()));
    let (mut path, sibling) = if place < left.len() {
        (path(left, place)?, root(right))
    } else {
        (path(right, place - left.len())?, root(left))
    };
    path.push(sibling);
    Some(path)
}

/// The root that `path` leads to from the leaf at `place` of `size` (RFC 9162 section 2.1.3.2);
/// none where the path has another length than it must.
pub fn root_of_path(leaf: Hash, place: u64, size: u64, path: &[Hash]) -> Option<Hash> {
    if place >= size {
        return None;
    }
    let (mut node, mut place, mut last) = (leaf_hash(leaf), place, size - 1);
    for sibling in path {
        if last == 0 {
            return None;
        }
        if place % 2 == 1 || place == last {
            node = node_hash(*sibling, node);
            while place.is_multiple_of(2) && place != 0 {
                place /= 2;
                last /= 2;
            }
        } else {
            node = node_hash(node, *sibling);
        }
        place /= 2;
        last /= 2;
    }
    (last == 0).then_some(node)
}

/// The largest power of two below `length`.
fn split(length: usize) -> usize {
    length.next_power_of_two() / 2
}

fn leaf_hash(leaf: Hash) -> Hash {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(&[0]);
    context.update(leaf.as_bytes());
    Hash::finish(context)
}

fn node_hash(left: Hash, right: Hash) -> Hash {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(&[1]);
    context.update(left.as_bytes());
    context.update(right.as_bytes());
    Hash::finish(context)
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}-{} {}", self.company, self.first, self.last, self.head)
    }
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;

    use super::*;
    use crate::audit::{Actor, Draft};

    fn chain(length: u64, salt: &str) -> Vec<Record> {
        let mut head = Head::EMPTY;
        let draft = |n: u64| {
            let at = Timestamp::from_seconds(1_000);
            Draft::new(CompanyId::BANK, at, "token.issued", Actor::System).with(salt, n)
        };
        (1..=length)
            .map(|n| {
                let record = head.append(&draft(n));
                head = Head { sequence: record.sequence, hash: record.hash };
                record
            })
            .collect()
    }

    fn key() -> SigningKey {
        let rng = SystemRandom::new();
        SigningKey::from_pkcs8(&SigningKey::generate(&rng), &rng).expect("a key")
    }

    /// Checkpoints over `records`, each covering as many as `counts` says.
    fn checkpoints(records: &[Record], counts: &[usize], key: &SigningKey) -> Vec<Signed> {
        let mut made: Vec<Signed> = Vec::new();
        let mut rest = records;
        for count in counts {
            let (covered, after) = rest.split_at(*count);
            rest = after;
            let at = Timestamp::from_seconds(2_000);
            let rng = SystemRandom::new();
            let next = Signed::make("https://x.example", at, made.last(), covered, key, &rng);
            made.push(next.expect("a checkpoint"));
        }
        made
    }

    fn hold(records: &[Record], signed: &[Signed]) -> Result<u64, Disagreement> {
        let mut witness = Witness::default();
        let mut head = Head::EMPTY;
        for record in records {
            head = head.advance(record).expect("whole in itself");
            witness.saw(head);
        }
        signed.iter().try_for_each(|signed| witness.hold_to(signed))?;
        Ok(witness.uncovered())
    }

    #[test]
    fn security_92_checkpoints_show_a_cut_tail_and_a_chain_written_anew() {
        let key = key();
        let records = chain(10, "n");
        let signed = checkpoints(&records, &[3, 1, 4], &key);
        assert_eq!(hold(&records, &signed), Ok(2));
        assert_eq!(hold(&records[..8], &signed), Ok(0));
        assert_eq!(hold(&records[..7], &signed), Err(Disagreement::Cut { from: 8, to: 8 }));
        assert_eq!(hold(&[], &signed), Err(Disagreement::Cut { from: 1, to: 3 }));
        assert_eq!(hold(&chain(10, "m"), &signed), Err(Disagreement::Rewritten(3)));
        let mut without = signed.clone();
        without.remove(1);
        assert_eq!(hold(&records, &without), Err(Disagreement::Broken(5)));
        let other = checkpoints(&records, &[3, 1, 4], &key);
        let mixed = [signed[0].clone(), other[1].clone(), other[2].clone()];
        assert_eq!(hold(&records, &mixed), Err(Disagreement::Broken(4)), "two histories");
        assert!(checkpoints(&records, &[10], &key)[0].checkpoint.previous.is_none());
    }

    #[test]
    fn a_checkpoint_reads_back_by_the_key_that_signed_it_and_by_no_other() {
        let key = key();
        let signed = checkpoints(&chain(3, "n"), &[3], &key).remove(0);
        let keys = JwkSet::new(vec![key.public().clone()]);
        assert_eq!(Signed::verify(&signed.text, &keys), Ok(signed.clone()));
        let others = JwkSet::new(vec![self::key().public().clone()]);
        assert_eq!(Signed::verify(&signed.text, &others), Err(MessageError::WrongKey));
        let rng = SystemRandom::new();
        let as_another =
            jws::sign(&key, "approval-request+jwt", KeyHeader::Name, &signed.checkpoint, &rng);
        assert!(Signed::verify(&as_another, &keys).is_err());
        assert!(Signed::make("i", Timestamp::from_seconds(1), None, &[], &key, &rng).is_none());
    }

    #[test]
    fn every_leaf_of_every_tree_has_a_path_to_its_root_and_to_no_other() {
        for size in 1..=33_u64 {
            let leaves: Vec<Hash> = chain(size, "n").iter().map(|record| record.hash).collect();
            let root = root(&leaves);
            for place in 0..size {
                let leaf = leaves[place as usize];
                let path = path(&leaves, place as usize).expect("a path");
                assert_eq!(root_of_path(leaf, place, size, &path), Some(root));
                for other in (0..size).filter(|other| *other != place) {
                    let place = root_of_path(leaf, other, size, &path);
                    assert_ne!(place, Some(root), "{size} {other}");
                }
                let other = Hash::START;
                assert_ne!(root_of_path(other, place, size, &path), Some(root));
                let longer = [path.clone(), vec![other]].concat();
                assert_ne!(root_of_path(leaf, place, size, &longer), Some(root));
                if let Some((_, shorter)) = path.split_last() {
                    assert_ne!(root_of_path(leaf, place, size, shorter), Some(root));
                }
            }
            assert_eq!(super::path(&leaves, leaves.len()), None);
        }
    }

    #[test]
    fn the_tree_is_the_one_of_rfc_9162() {
        // Section 2.1.5: with leaves a to g the root is node(node(ab, cd), node(ef, g)).
        let leaves: Vec<Hash> = chain(7, "n").iter().map(|record| record.hash).collect();
        let leaf: Vec<Hash> = leaves.iter().copied().map(leaf_hash).collect();
        let pair = |n: usize| node_hash(leaf[n], leaf[n + 1]);
        let expected = node_hash(node_hash(pair(0), pair(2)), node_hash(pair(4), leaf[6]));
        assert_eq!(root(&leaves), expected);
        let empty = digest::digest(&digest::SHA256, b"");
        assert_eq!(root(&[]).as_bytes(), empty.as_ref());
    }
}
