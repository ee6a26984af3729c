//! The audit trail: reading a company's chain, and proving that it is whole.

use schemars::JsonSchema;
use semilla_core::audit::Record;
use semilla_core::id::TokenId;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::caller::Caller;
use super::views::Page;
use super::{Failure, View};
use crate::app::App;
use crate::proof::{ChainReport, Proof, attempts_text, is_of_attempts, line};
use crate::store::{AuditQuery, Store, StoreError};

/// A record as its company reads it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct RecordView {
    /// Its place in the chain, from 1.
    pub sequence: u64,
    /// The hash over it and all before it.
    pub hash: String,
    /// The exact text that was hashed.
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    pub record: Box<RawValue>,
}

impl View for RecordView {}

/// How a trail is asked for.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrailListing {
    /// Behind this sequence number.
    pub after: Option<u64>,
    /// Only about this token.
    pub token: Option<TokenId>,
    /// Only of this kind: `token.released`, or `token.` for all that begin so.
    pub kind: Option<String>,
    /// At most this many: 1 to 100, 20 if not said.
    #[schemars(range(min = 1, max = 100))]
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

fn view(record: Record) -> Result<RecordView, Failure> {
    let body = RawValue::from_string(record.body)
        .map_err(|error| StoreError::Inconsistent { table: "audit", what: error.to_string() })?;
    Ok(RecordView { sequence: record.sequence, hash: record.hash.to_string(), record: body })
}

/// Reads every chain of a database from its beginning. `see` is handed each record, with the text
/// of the checks of codes it was made over, where it is one of those and they are still kept.
async fn each_record<E: From<StoreError>>(
    store: &dyn Store,
    mut see: impl FnMut(&Record, Option<String>) -> Result<(), E>,
) -> Result<(), E> {
    for company in store.audit_chains().await? {
        let mut after = 0;
        let forgotten = super::retention::forgotten_up_to(store, company).await?;
        loop {
            let query = AuditQuery { company, after, token: None, kind: None, limit: 1000 };
            let records = store.audit(&query).await?;
            let Some(last) = records.last() else { break };
            after = last.sequence;
            for record in &records {
                let attempts = match is_of_attempts(&record.body) {
                    true if record.sequence <= forgotten => None,
                    true => Some(store.attempts(company, record.sequence).await?),
                    false => None,
                };
                see(record, attempts.as_deref().map(attempts_text))?;
            }
        }
    }
    Ok(())
}

/// Shows `proof` every chain of a database, and where each ends.
pub async fn prove(store: &dyn Store, proof: &mut Proof) -> Result<(), StoreError> {
    each_record::<StoreError>(store, |record, attempts| {
        proof.see(record, attempts.as_deref());
        Ok(())
    })
    .await?;
    for company in store.audit_chains().await? {
        proof.ends_at(company, store.audit_head(company).await?);
    }
    Ok(())
}

/// What there is to say of every chain of a database, where no checkpoints are at hand.
pub async fn verify(store: &dyn Store) -> Result<Vec<ChainReport>, StoreError> {
    let mut proof = Proof::default();
    prove(store, &mut proof).await?;
    Ok(proof.reports())
}

/// Writes every chain of a database, one record a line, as [`Proof::see_line`] reads it. Returns
/// how many records there were.
pub async fn export(store: &dyn Store, out: &mut dyn std::io::Write) -> Result<u64, ExportError> {
    let mut count = 0;
    each_record::<ExportError>(store, |record, attempts| {
        count += 1;
        Ok(writeln!(out, "{}", line(record, attempts))?)
    })
    .await?;
    out.flush()?;
    Ok(count)
}

/// Why an export was not written.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The database does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file does not take it.
    #[error("the export cannot be written: {0}")]
    File(#[from] std::io::Error),
}
