//! A receipt for an operation that was approved and executed: what was asked, what the phone
//! answered, what came of it, and that this stands in the audit trail. Anybody who has the server's
//! public keys verifies it, without the server and without seeing any other record.
//!
//! What vouches for what: the request is signed by the server; the answer by the phone's key; the
//! audit record names the digests of both texts and the key; the checkpoint, signed by the key for
//! checkpoints and kept outside the database, holds that record.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::audit::{Draft, Hash};
use crate::checkpoint::{self, Signed};
use crate::id::{CompanyId, OperationId};
use crate::protocol::MessageError;
use crate::protocol::approval::{Action, ApprovalRequest, ApprovalResponse, Decision};
use crate::protocol::bytes::Digest;
use crate::protocol::jwk::{JwkSet, PublicKey};
use crate::protocol::{jws, messages};

/// A receipt, as it is handed out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// Which operation.
    pub operation: OperationId,
    /// Whose chain the record is in.
    pub company: CompanyId,
    /// The exact text of the `approval-request+jwt`.
    pub request: String,
    /// The exact text of the `approval-response+jwt`.
    pub response: String,
    /// The phone's key.
    pub phone_key: PublicKey,
    /// The audit record of the execution.
    pub record: RecordInPlace,
    /// The checkpoint that covers it: the exact text.
    pub checkpoint: String,
    /// The hashes from the record to the root of the checkpoint (RFC 9162 section 2.1.3.1).
    pub path: Vec<Hash>,
}

/// An audit record with what its hash is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RecordInPlace {
    /// Its place in the chain.
    pub sequence: u64,
    /// The hash of the record before it.
    pub previous: Hash,
    /// Its exact text.
    pub body: String,
}

/// Why a receipt proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unproven {
    /// A signed text does not hold.
    #[error("the {what} does not hold: {error}")]
    Message {
        /// Which.
        what: &'static str,
        /// Why.
        error: MessageError,
    },
    /// The record is none, or one of something else.
    #[error("the audit record is not one of this operation's execution")]
    Record,
    /// The record names another request, answer or key.
    #[error("the audit record names another {0}")]
    Other(&'static str),
    /// The answer is not to this request, or is not a yes.
    #[error("the answer does not approve this request")]
    Answer,
    /// The checkpoint does not hold the record.
    #[error("the checkpoint does not hold the audit record")]
    NotIncluded,
}

/// What a receipt proves.
#[derive(Clone, Debug)]
pub struct Proven {
    /// What was asked, as the phone showed it.
    pub request: ApprovalRequest,
    /// The audit record.
    pub record: Draft,
    /// The checkpoint that holds it.
    pub checkpoint: checkpoint::Checkpoint,
}

const REQUEST: &str = "request_sha256";
const RESPONSE: &str = "response_sha256";
const PHONE_KEY: &str = "phone_jkt";

/// Adds to the record of an execution what a receipt is held to.
#[must_use]
pub fn facts(draft: Draft, request: &str, response: &str, phone_key: &PublicKey) -> Draft {
    draft
        .with(REQUEST, Digest::of(request.as_bytes()))
        .with(RESPONSE, Digest::of(response.as_bytes()))
        .with(PHONE_KEY, phone_key.thumbprint())
}

impl Receipt {
    /// Verifies everything that can be verified with the server's public keys.
    pub fn verify(&self, keys: &JwkSet) -> Result<Proven, Unproven> {
        let record = self.execution()?;
        self.is_named_by(&record)?;
        let request = self.approved(keys)?;
        let checkpoint = self.included(keys)?;
        Ok(Proven { request, record, checkpoint })
    }

    fn execution(&self) -> Result<Draft, Unproven> {
        let record: Draft =
            serde_json::from_str(&self.record.body).map_err(|_| Unproven::Record)?;
        let is_it = record.kind == "operation.executed"
            && record.company == self.company
            && record.subject.operation == Some(self.operation);
        if is_it { Ok(record) } else { Err(Unproven::Record) }
    }

    fn is_named_by(&self, record: &Draft) -> Result<(), Unproven> {
        let named = [
            (REQUEST, "request", Digest::of(self.request.as_bytes()).to_string()),
            (RESPONSE, "answer", Digest::of(self.response.as_bytes()).to_string()),
            (PHONE_KEY, "key", self.phone_key.thumbprint()),
        ];
        for (name, what, value) in named {
            if record.detail.get(name) != Some(&value) {
                return Err(Unproven::Other(what));
            }
        }
        Ok(())
    }

    fn approved(&self, keys: &JwkSet) -> Result<ApprovalRequest, Unproven> {
        let refused = |what| move |error| Unproven::Message { what, error };
        let server = key_of(&self.request, keys).map_err(refused("request"))?;
        let claims: ApprovalRequest =
            jws::verify(&self.request, <ApprovalRequest as messages::Message>::TYP, server)
                .map_err(refused("request"))?;
        let response: ApprovalResponse =
            messages::verify(&self.response, &self.phone_key, &claims.aud, &claims.iss)
                .map_err(refused("answer"))?;
        let says_yes = match &response.decision {
            Decision::Approved { .. } => true,
            // Enough only where no number was asked for.
            Decision::Agreed => {
                matches!(&claims.operation.action, Action::Consent(consent) if !consent.number)
            }
            Decision::Denied { .. } => false,
        };
        let is_approved = response.answers(&self.request, &claims)
            && says_yes
            && claims.txn == self.operation
            && claims.operation.company == self.company;
        if is_approved { Ok(claims) } else { Err(Unproven::Answer) }
    }

    fn included(&self, keys: &JwkSet) -> Result<checkpoint::Checkpoint, Unproven> {
        let signed = Signed::verify(&self.checkpoint, keys)
            .map_err(|error| Unproven::Message { what: "checkpoint", error })?;
        let stated = signed.checkpoint;
        let RecordInPlace { sequence, previous, body } = &self.record;
        let leaf = Hash::of(self.company, *sequence, *previous, body);
        let is_covered =
            stated.company == self.company && (stated.first..=stated.last).contains(sequence);
        let root = is_covered.then(|| {
            let size = stated.last - stated.first + 1;
            checkpoint::root_of_path(leaf, sequence - stated.first, size, &self.path)
        });
        if root.flatten() == Some(stated.root) { Ok(stated) } else { Err(Unproven::NotIncluded) }
    }
}

fn key_of<'k>(text: &str, keys: &'k JwkSet) -> Result<&'k PublicKey, MessageError> {
    keys.find(jws::peek(text)?.kid.ok_or(MessageError::Malformed)?)
}
