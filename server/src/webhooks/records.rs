//! What is kept of webhooks: the endpoints of a company, and what became of each delivery.

use schemars::JsonSchema;
use semilla_core::id::{CompanyId, WebhookId};
use semilla_core::seal::Sealed;
use semilla_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::records::record;
use crate::store::{Record, Table, Value};

/// An address that a company wants to be told at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// Its id.
    pub id: WebhookId,
    /// Whose.
    pub company: CompanyId,
    /// Where it is told.
    pub url: String,
    /// Of what: kinds of audit records, or their beginnings up to a dot; everything if empty.
    pub kinds: Vec<String>,
    /// Its secrets, the newest first.
    pub secrets: Vec<KeptSecret>,
    /// Whether it is told anything.
    pub active: bool,
    /// The last record of the chain that was looked at for it.
    pub told: u64,
    /// Since when every delivery has failed.
    pub failing_since: Option<Timestamp>,
    /// When it was made.
    pub created: Timestamp,
}

record!(Webhook, "webhooks", company: |it| it.company, id: |it| it.id.to_string(), [
    "state" => |it| if it.active { "active" } else { "inactive" }.into(),
]);

/// A secret of a receiver, sealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptSecret {
    /// Its number among the webhook's secrets, from 1.
    pub number: u32,
    /// The secret.
    pub sealed: Sealed,
    /// Until when it signs as well; for good where there is no such moment.
    pub until: Option<Timestamp>,
}

/// How a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// To be tried, for the first time or again.
    Pending,
    /// The receiver has it.
    Delivered,
    /// Given up.
    Failed,
}

impl DeliveryState {
    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
        }
    }
}

/// One record of the chain on its way to one webhook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delivery {
    /// Whose.
    pub company: CompanyId,
    /// To which webhook.
    pub webhook: WebhookId,
    /// Which record.
    pub sequence: u64,
    /// The record's kind.
    pub kind: String,
    /// How it stands.
    pub state: DeliveryState,
    /// How often it was tried.
    pub attempts: u32,
    /// When it is tried next; when it ended, where it did.
    pub due: Timestamp,
    /// The status that was answered last.
    pub status: Option<u16>,
    /// Why there was no good answer the last time.
    pub error: Option<String>,
}

impl Delivery {
    /// Its name among the company's deliveries: the same each time the record is sent, which is
    /// also its `webhook-id`, so that receivers know what they have already.
    pub fn id_of(webhook: WebhookId, sequence: u64) -> String {
        format!("msg_{webhook}_{sequence:020}")
    }
}

record!(Delivery, "deliveries", company: |it| it.company, id: |it| Delivery::id_of(it.webhook, it.sequence), [
    "webhook" => |it| it.webhook.to_string().into(),
    "state" => |it| it.state.name().into(),
    "due" => |it| it.due.into(),
]);
