//! The record of everything that happened, one chain for each company and one for the bank. Each
//! record holds the hash of the one before it, so that an edit, a deletion, an insertion or a
//! change of order anywhere shows in every later hash.
//!
//! The hash is over the exact text that is stored (never over a re-serialized one):
//!
//! ```text
//! hash(n) = SHA-256( "semilla/audit/v1" | company (36) | n (8, big endian) | hash(n-1) (32) | body )
//! ```
//!
//! with `hash(0)` = 32 zero bytes. Only `body` has a variable length, and it comes last.

use std::collections::BTreeMap;
use std::fmt;

use ring::digest;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::base64url;
use crate::id::{ClientId, CompanyId, DeviceId, EnrollmentId, OperationId, TokenId, UserId};
use crate::time::Timestamp;

/// Who did it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Actor {
    /// The product itself, by a rule: an expiry, a lock-out.
    System,
    /// A program, and the person in whose name it acted, where there was one.
    Client {
        /// The program's credentials.
        client: ClientId,
        /// In whose name.
        asker: Option<UserId>,
    },
    /// A person, by a signature or a code of their phone.
    Device {
        /// The phone.
        device: DeviceId,
        /// Whose phone.
        user: UserId,
    },
    /// Somebody at the machine itself, by a local command.
    Local,
}

/// What it was done to: whatever of these the record is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// The token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenId>,
    /// The person: holder, or who was changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserId>,
    /// The phone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceId>,
    /// The operation that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<OperationId>,
    /// The enrollment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enrollment: Option<EnrollmentId>,
    /// The program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<ClientId>,
}

/// A record before it has its place in a chain. Holds names, states, causes and reasons; never a
/// code, a seed, a number or a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Draft {
    /// Whose chain.
    pub company: CompanyId,
    /// When, by the server's clock.
    pub at: Timestamp,
    /// What happened: `token.released`, `otp.checked`.
    pub kind: String,
    /// Who did it.
    pub actor: Actor,
    /// What it was done to.
    pub subject: Subject,
    /// Facts of this kind of record: cause, states before and after, reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub detail: BTreeMap<String, String>,
}

impl Draft {
    /// A record with nothing but its kind.
    pub fn new(company: CompanyId, at: Timestamp, kind: &str, actor: Actor) -> Self {
        Self {
            company,
            at,
            kind: kind.to_owned(),
            actor,
            subject: Subject::default(),
            detail: BTreeMap::new(),
        }
    }

    /// Says what it was done to.
    #[must_use]
    pub fn about(mut self, subject: Subject) -> Self {
        self.subject = subject;
        self
    }

    /// Adds a fact.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.detail.insert(name.to_owned(), value.to_string());
        self
    }
}

/// A SHA-256 hash of the chain; base64url without padding as text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hash([u8; 32]);

impl Hash {
    /// What stands before the first record.
    pub const START: Self = Self([0; 32]);

    /// Reads the text form.
    pub fn parse(text: &str) -> Option<Self> {
        Some(Self(base64url::decode(text)?.try_into().ok()?))
    }

    /// The hash of the record `sequence` of the chain of `company`, whose text is `body`, behind
    /// the one that has the hash `previous`.
    pub fn of(company: CompanyId, sequence: u64, previous: Self, body: &str) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(b"semilla/audit/v1");
        context.update(company.to_string().as_bytes());
        context.update(&sequence.to_be_bytes());
        context.update(&previous.0);
        context.update(body.as_bytes());
        Self::finish(context)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    pub(crate) fn finish(context: digest::Context) -> Self {
        let mut out = [0; 32];
        out.copy_from_slice(context.finish().as_ref());
        Self(out)
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text)
            .ok_or_else(|| serde::de::Error::custom("a hash of 32 bytes in base64url"))
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base64url::encode(&self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A record in its place, as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Whose chain.
    pub company: CompanyId,
    /// Its place, from 1, without gaps.
    pub sequence: u64,
    /// The exact text of the [`Draft`] that was hashed.
    pub body: String,
    /// The hash over this record and, through it, over all before it.
    pub hash: Hash,
}

/// The last record of a chain: where the next one goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// How many records there are.
    pub sequence: u64,
    /// The last one's hash.
    pub hash: Hash,
}

impl Head {
    /// The head of an empty chain.
    pub const EMPTY: Self = Self { sequence: 0, hash: Hash::START };

    /// Gives `draft` its place behind this head.
    pub fn append(self, draft: &Draft) -> Record {
        // A draft is a struct of strings: writing it to a string cannot fail.
        let body = serde_json::to_string(draft).unwrap_or_default();
        let sequence = self.sequence + 1;
        let hash = Hash::of(draft.company, sequence, self.hash, &body);
        Record { company: draft.company, sequence, body, hash }
    }

    /// Checks that `record` comes right behind this head, and moves on to it.
    pub fn advance(self, record: &Record) -> Result<Self, Tampered> {
        let expected = self.sequence + 1;
        if record.sequence != expected {
            return Err(Tampered { sequence: expected, what: Tampering::Missing });
        }
        let expected_hash = Hash::of(record.company, record.sequence, self.hash, &record.body);
        if expected_hash != record.hash {
            return Err(Tampered { sequence: expected, what: Tampering::Altered });
        }
        Ok(Self { sequence: expected, hash: record.hash })
    }
}

/// Where a chain no longer fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("record {sequence} {what}")]
pub struct Tampered {
    /// The first place that does not fit.
    pub sequence: u64,
    /// What is wrong there.
    pub what: Tampering,
}

/// What is wrong with a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tampering {
    /// The record is not there: another stands in its place.
    Missing,
    /// The record, or one before it, is not what was written.
    Altered,
    /// The chain ends before its head: the tail was cut off.
    Cut,
}

impl fmt::Display for Tampering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "is missing",
            Self::Altered => "was altered, or one before it was",
            Self::Cut => "was cut off, with all after it",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(length: u64) -> Vec<Record> {
        let mut head = Head::EMPTY;
        (1..=length)
            .map(|n| {
                let at = Timestamp::from_seconds(1_000);
                let draft =
                    Draft::new(CompanyId::BANK, at, "token.issued", Actor::System).with("n", n);
                let record = head.append(&draft);
                head = Head { sequence: record.sequence, hash: record.hash };
                record
            })
            .collect()
    }

    fn verify(records: &[Record]) -> Result<Head, Tampered> {
        records.iter().try_fold(Head::EMPTY, Head::advance)
    }

    #[test]
    fn security_91_every_way_to_tamper_with_a_chain_shows() {
        assert_eq!(verify(&chain(5)).expect("whole").sequence, 5);

        let mut edited = chain(5);
        edited[2].body = edited[2].body.replace("\"3\"", "\"4\"");
        assert_eq!(verify(&edited), Err(Tampered { sequence: 3, what: Tampering::Altered }));

        let mut deleted = chain(5);
        deleted.remove(2);
        assert_eq!(verify(&deleted), Err(Tampered { sequence: 3, what: Tampering::Missing }));

        let mut renumbered = deleted;
        renumbered[2].sequence = 3;
        renumbered[3].sequence = 4;
        assert_eq!(verify(&renumbered), Err(Tampered { sequence: 3, what: Tampering::Altered }));

        let mut reordered = chain(5);
        reordered.swap(1, 2);
        assert!(verify(&reordered).is_err());

        let mut inserted = chain(5);
        inserted.insert(2, inserted[1].clone());
        assert!(verify(&inserted).is_err());

        let mut foreign = chain(5);
        foreign[0].company = "01900000-0000-7000-8000-000000000000".parse().expect("an id");
        assert!(verify(&foreign).is_err());
    }

    #[test]
    fn a_body_reads_back_as_the_draft_that_was_hashed() {
        let record = &chain(1)[0];
        let draft: Draft = serde_json::from_str(&record.body).expect("a draft");
        assert_eq!(Head::EMPTY.append(&draft), *record);
    }
}
