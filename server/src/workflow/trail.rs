//! The audit trail: reading a company's chain, and proving that it is whole.

use semilla_core::audit::{Hash, Head, Tampered, Tampering};
use semilla_core::id::{CompanyId, TokenId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::caller::Caller;
use super::views::Page;
use super::{Failure, View};
use crate::app::App;
use crate::store::{AuditQuery, Store, StoreError, attempts_draft};

/// A record as its company reads it.
#[derive(Clone, Debug, Serialize)]
pub struct RecordView {
    /// Its place in the chain, from 1.
    pub sequence: u64,
    /// The hash over it and all before it.
    pub hash: String,
    /// The exact text that was hashed.
    pub record: Box<RawValue>,
}

impl View for RecordView {}

/// How a trail is asked for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrailListing {
    /// Behind this sequence number.
    pub after: Option<u64>,
    /// Only about this token.
    pub token: Option<TokenId>,
    /// Only of this kind: `token.released`, or `token.` for all that begin so.
    pub kind: Option<String>,
    /// At most this many: 1 to 100, 20 if not said.
    pub limit: Option<u32>,
}

/// A page of the company's trail, oldest first. `next_cursor` is what `after` has to be for the
/// next one, also where there is none yet.
pub async fn list(
    app: &App,
    caller: &Caller,
    listing: &TrailListing,
) -> Result<Page<RecordView>, Failure> {
    let limit = super::tokens::page_limit(listing.limit)?;
    let after = listing.after.unwrap_or(0);
    let company = caller.company.id;
    let query =
        AuditQuery { company, after, token: listing.token, kind: listing.kind.clone(), limit };
    let records = app.store.audit(&query).await?;
    let total = app.store.audit_head(company).await?.sequence;
    let next = records.last().map_or(after, |record| record.sequence);
    let items = records.into_iter().map(view).collect::<Result<_, _>>()?;
    Ok(Page { items, next_cursor: Some(next.to_string()), total })
}

fn view(record: semilla_core::audit::Record) -> Result<RecordView, Failure> {
    let body = RawValue::from_string(record.body)
        .map_err(|error| StoreError::Inconsistent { table: "audit", what: error.to_string() })?;
    Ok(RecordView { sequence: record.sequence, hash: record.hash.to_string(), record: body })
}

/// What a check of one chain found.
#[derive(Clone, Debug, Serialize)]
pub struct ChainReport {
    /// Whose chain.
    pub company: CompanyId,
    /// How many records were read.
    pub records: u64,
    /// How many checks of codes they stand for.
    pub attempts: u64,
    /// The hash of the last one: to be compared with one that was noted down elsewhere.
    pub head: String,
    /// What is wrong; none where the chain is whole.
    pub tampered: Option<String>,
}

/// Reads every chain from its beginning and checks every hash, the attempts included.
pub async fn verify(store: &dyn Store) -> Result<Vec<ChainReport>, StoreError> {
    let mut reports = Vec::new();
    for company in store.audit_chains().await? {
        reports.push(verify_chain(store, company).await?);
    }
    Ok(reports)
}

async fn verify_chain(store: &dyn Store, company: CompanyId) -> Result<ChainReport, StoreError> {
    let last = store.audit_head(company).await?;
    let mut report = ChainReport {
        company,
        records: 0,
        attempts: 0,
        head: Hash::START.to_string(),
        tampered: None,
    };
    let mut head = Head::EMPTY;
    loop {
        let query =
            AuditQuery { company, after: head.sequence, token: None, kind: None, limit: 1000 };
        let records = store.audit(&query).await?;
        if records.is_empty() {
            break;
        }
        for record in records {
            head = match head.advance(&record) {
                Ok(head) => head,
                Err(tampered) => {
                    report.tampered = Some(tampered.to_string());
                    return Ok(report);
                }
            };
            report.records = head.sequence;
            report.head = head.hash.to_string();
            match attempts_of(store, &record).await? {
                Some(attempts) => report.attempts += attempts,
                None => {
                    report.tampered =
                        Some(format!("the attempts of record {} were altered", record.sequence));
                    return Ok(report);
                }
            }
        }
    }
    if head != last {
        let cut = Tampered { sequence: head.sequence + 1, what: Tampering::Cut };
        report.tampered = Some(cut.to_string());
    }
    Ok(report)
}

/// How many attempts a record stands for; none where they are not the ones it was made over.
async fn attempts_of(
    store: &dyn Store,
    record: &semilla_core::audit::Record,
) -> Result<Option<u64>, StoreError> {
    let inconsistent = |error: serde_json::Error| StoreError::Inconsistent {
        table: "audit",
        what: error.to_string(),
    };
    let draft: semilla_core::audit::Draft =
        serde_json::from_str(&record.body).map_err(inconsistent)?;
    if draft.kind != "otp.checked" {
        return Ok(Some(0));
    }
    let attempts = store.attempts(record.company, record.sequence).await?;
    let again = attempts_draft(record.company, draft.at, &attempts);
    Ok((again.detail == draft.detail).then_some(attempts.len() as u64))
}
