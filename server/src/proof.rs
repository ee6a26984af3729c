//! Proves that audit trails are whole: every record fits the one before it, the checks of codes are
//! those that were counted, and everything is as the signed checkpoints state it. It needs no
//! server and no database: an export, the checkpoints and the public keys are enough.

use std::collections::BTreeMap;

use ring::digest::{SHA256, digest};
use semilla_core::audit::{Draft, Hash, Head, Record, Tampered, Tampering};
use semilla_core::base64url;
use semilla_core::checkpoint::{Signed, Witness};
use semilla_core::id::CompanyId;
use semilla_core::protocol::jwk::JwkSet;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::store::Attempt;

/// What was found out about one chain.
#[derive(Clone, Debug, Serialize)]
pub struct ChainReport {
    /// Whose chain.
    pub company: CompanyId,
    /// How many records were read.
    pub records: u64,
    /// How many checks of codes they stand for.
    pub attempts: u64,
    /// The hash of the last one: to be compared with one that was noted down elsewhere.
    pub head: Hash,
    /// How many of the records are as a checkpoint states them.
    pub stated: u64,
    /// What is wrong; none where the chain is whole.
    pub tampered: Option<String>,
}

/// Chains on their way to a report.
#[derive(Default)]
pub struct Proof {
    chains: BTreeMap<CompanyId, Chain>,
}

struct Chain {
    head: Head,
    attempts: u64,
    witness: Witness,
    stated: u64,
    /// The checkpoints that are not yet reached, the next one last.
    checkpoints: Vec<Signed>,
    tampered: Option<String>,
}

impl Default for Chain {
    fn default() -> Self {
        Self {
            head: Head::EMPTY,
            attempts: 0,
            witness: Witness::default(),
            stated: 0,
            checkpoints: Vec::new(),
            tampered: None,
        }
    }
}

/// What is no export, or no file of checkpoints.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct Unreadable {
    /// Where.
    pub line: usize,
    /// What is wrong with it.
    pub what: String,
}

impl Proof {
    /// Holds the chains to the checkpoints of a file, one a line, that one of `keys` signed. The
    /// same checkpoint twice says it once.
    pub fn hold_to(&mut self, checkpoints: &str, keys: &JwkSet) -> Result<(), Unreadable> {
        for (place, text) in checkpoints.lines().enumerate() {
            let unreadable =
                |what: String| Unreadable { line: place + 1, what: format!("checkpoint: {what}") };
            let signed =
                Signed::verify(text, keys).map_err(|error| unreadable(error.to_string()))?;
            let chain = self.chains.entry(signed.checkpoint.company).or_default();
            if !chain.checkpoints.contains(&signed) {
                chain.checkpoints.push(signed);
            }
        }
        for chain in self.chains.values_mut() {
            chain.checkpoints.sort_by_key(|signed| std::cmp::Reverse(signed.checkpoint.first));
        }
        Ok(())
    }

    /// The next record of its chain. `attempts` is the text of the checks it was made over, for a
    /// record of such; none where that text is not at hand.
    pub fn see(&mut self, record: &Record, attempts: Option<&str>) {
        let chain = self.chains.entry(record.company).or_default();
        if chain.tampered.is_none()
            && let Err(tampered) = chain.see(record, attempts)
        {
            chain.tampered = Some(tampered);
        }
    }

    /// The next line of an export: an item of `GET /api/v1/audit`, perhaps with `attempts`.
    pub fn see_line(&mut self, place: usize, text: &str) -> Result<(), Unreadable> {
        let unreadable = |what: String| Unreadable { line: place, what };
        let line: Line<'_> =
            serde_json::from_str(text).map_err(|error| unreadable(error.to_string()))?;
        let draft: Draft = serde_json::from_str(line.record.get())
            .map_err(|error| unreadable(format!("record: {error}")))?;
        let record = Record {
            company: draft.company,
            sequence: line.sequence,
            body: line.record.get().to_owned(),
            hash: line.hash,
        };
        self.see(&record, line.attempts.map(RawValue::get));
        Ok(())
    }

    /// Where the database says that a chain ends.
    pub fn ends_at(&mut self, company: CompanyId, head: Head) {
        let chain = self.chains.entry(company).or_default();
        if chain.tampered.is_none() && chain.head != head {
            let cut = Tampered { sequence: chain.head.sequence + 1, what: Tampering::Cut };
            chain.tampered = Some(cut.to_string());
        }
    }

    /// What was found out, once everything was seen.
    pub fn reports(self) -> Vec<ChainReport> {
        let report = |(company, mut chain): (CompanyId, Chain)| {
            if chain.tampered.is_none()
                && let Some(missing) = chain.checkpoints.pop()
            {
                chain.tampered = chain.witness.hold_to(&missing).err().map(|it| it.to_string());
            }
            ChainReport {
                company,
                records: chain.head.sequence,
                attempts: chain.attempts,
                head: chain.head.hash,
                stated: chain.stated,
                tampered: chain.tampered,
            }
        };
        self.chains.into_iter().map(report).collect()
    }
}

impl Chain {
    fn see(&mut self, record: &Record, attempts: Option<&str>) -> Result<(), String> {
        self.head = self.head.advance(record).map_err(|tampered| tampered.to_string())?;
        self.witness.saw(self.head);
        if let Some(attempts) = attempts {
            self.attempts += attempts_count(record, attempts).ok_or_else(|| {
                format!("the attempts of record {} were altered", record.sequence)
            })?;
        }
        // Reached, or passed where one before it is missing.
        while let Some(next) = self.checkpoints.last()
            && next.checkpoint.last <= self.head.sequence
        {
            self.witness.hold_to(next).map_err(|disagreement| disagreement.to_string())?;
            self.stated = next.checkpoint.last;
            self.checkpoints.pop();
        }
        Ok(())
    }
}

/// A line of an export.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    sequence: u64,
    hash: Hash,
    #[serde(borrow)]
    record: &'a RawValue,
    #[serde(borrow, default)]
    attempts: Option<&'a RawValue>,
}

/// A record as a line of an export.
pub fn line(record: &Record, attempts: Option<String>) -> String {
    let Record { sequence, hash, body, .. } = record;
    let attempts = attempts.map(|text| format!(",\"attempts\":{text}")).unwrap_or_default();
    format!("{{\"sequence\":{sequence},\"hash\":\"{hash}\",\"record\":{body}{attempts}}}")
}

/// Whether a record stands for checks of codes.
pub fn is_of_attempts(body: &str) -> bool {
    serde_json::from_str::<Draft>(body).is_ok_and(|draft| draft.kind == "otp.checked")
}

/// Checks of codes as the record over them hashes them.
pub fn attempts_text(attempts: &[Attempt]) -> String {
    serde_json::to_string(attempts).unwrap_or_default()
}

/// How many attempts a record stands for; none where `text` is not what it was made over.
fn attempts_count(record: &Record, text: &str) -> Option<u64> {
    let draft: Draft = serde_json::from_str(&record.body).ok()?;
    let hash = base64url::encode(digest(&SHA256, text.as_bytes()).as_ref());
    let count: Vec<serde::de::IgnoredAny> = serde_json::from_str(text).ok()?;
    let is_it = draft.detail.get("rows_sha256") == Some(&hash)
        && draft.detail.get("attempts") == Some(&count.len().to_string());
    is_it.then_some(count.len() as u64)
}
