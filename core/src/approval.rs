//! An operation that waits for a phone, and how a phone's answer ends it. What makes an
//! [`ApprovalVerified`] is here and nowhere else: the signature of a phone that was asked, over
//! exactly the text it was sent, with the number that only the asker's screen shows, in time.

use serde::{Deserialize, Serialize};

use crate::id::{CompanyId, DeviceId, OperationId, TokenId, UserId};
use crate::operations::{Action, Cause, ReleaseCause, RotateCause};
use crate::protocol::MessageError;
use crate::protocol::approval::{
    ApprovalRequest, ApprovalResponse, Decision, DenialReason, MatchNumber,
};
use crate::protocol::bytes::Nonce;
use crate::protocol::consent::Consent;
use crate::protocol::jwk::PublicKey;
use crate::protocol::messages::{self, RotateRequest};
use crate::seal::Sealed;
use crate::time::Timestamp;

/// What a phone can be asked to approve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Approvable {
    /// The release of a token.
    Release(ReleaseCause),
    /// The unblocking of a token.
    Unblock,
    /// A new seed for a token.
    Rotate(RotateCause),
    /// One more phone for the person.
    BindPhone,
    /// A new first phone for a person who has none left.
    Recover,
    /// Something of a relying party, which changes no token and no phone: it is in neither table.
    Consent,
}

impl Approvable {
    /// The operation of the table of tokens that it is, if it is one.
    pub fn on_token(self) -> Option<Action> {
        match self {
            Self::Release(_) => Some(Action::Release),
            Self::Unblock => Some(Action::Unblock),
            Self::Rotate(_) => Some(Action::Rotate),
            Self::BindPhone | Self::Recover | Self::Consent => None,
        }
    }

    /// Its cause, where it has one.
    pub fn cause(self) -> Option<Cause> {
        match self {
            Self::Release(cause) => Some(Cause::Release(cause)),
            Self::Rotate(cause) => Some(Cause::Rotate(cause)),
            Self::Unblock | Self::BindPhone | Self::Recover | Self::Consent => None,
        }
    }

    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Release(_) => "release",
            Self::Unblock => "unblock",
            Self::Rotate(_) => "rotate",
            Self::BindPhone => "bind_phone",
            Self::Recover => "recover",
            Self::Consent => "consent",
        }
    }
}

/// The token an operation is about, at the version that was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenAt {
    /// Which token.
    pub id: TokenId,
    /// The version it has while the operation is pending.
    pub version: i64,
}

/// A request as it was sent to one phone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SentRequest {
    /// Which phone.
    pub device: DeviceId,
    /// Whose.
    pub user: UserId,
    /// The exact text of the `approval-request+jwt`: what an answer has to be an answer to.
    pub text: String,
}

/// How an operation stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum OperationState {
    /// Approver's move.
    Pending,
    /// A person said no.
    Denied {
        /// On which phone.
        device: DeviceId,
        /// Why.
        reason: DenialReason,
        /// When.
        at: Timestamp,
    },
    /// Nobody answered in time.
    Expired {
        /// When that was noticed.
        at: Timestamp,
    },
    /// Its asker took it back, or something else happened to its subject.
    Cancelled {
        /// When.
        at: Timestamp,
    },
    /// Approved and done, in one transaction.
    Executed {
        /// On which phone.
        device: DeviceId,
        /// When.
        at: Timestamp,
        /// The key that signed the answer: the phone may have another one later.
        key: PublicKey,
        /// The exact text of the answer: the proof.
        response: String,
    },
    /// A wrong number was typed, or what was approved was no longer possible.
    Failed {
        /// On which phone.
        device: DeviceId,
        /// When.
        at: Timestamp,
        /// The name of the problem.
        problem: String,
    },
}

impl OperationState {
    /// Its name on the wire.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Denied { .. } => "denied",
            Self::Expired { .. } => "expired",
            Self::Cancelled { .. } => "cancelled",
            Self::Executed { .. } => "executed",
            Self::Failed { .. } => "failed",
        }
    }
}

/// An operation that waits, or waited, for a phone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operation {
    /// Its id.
    pub id: OperationId,
    /// Whose company's.
    pub company: CompanyId,
    /// What is asked.
    pub action: Approvable,
    /// The token, where it is about one.
    pub token: Option<TokenAt>,
    /// The person whose token or phone it is about.
    pub holder: UserId,
    /// The phone that waits to be bound, where it is about one.
    pub new_device: Option<DeviceId>,
    /// What a relying party asks, where it is that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consent: Option<Consent>,
    /// In whose name it was asked; of a consent, whoever is asked.
    pub asker: UserId,
    /// Whether only another person than the asker may answer.
    pub four_eyes: bool,
    /// What was sent, to each phone that may answer.
    pub requests: Vec<SentRequest>,
    /// The number that is shown to the asker, sealed.
    pub number: Sealed,
    /// How it stands.
    pub state: OperationState,
    /// Since when.
    pub created: Timestamp,
    /// Until when it may be answered: by the server's clock alone.
    pub expires: Timestamp,
}

/// The phone an answer came from, as the server knows it.
#[derive(Clone, Copy, Debug)]
pub struct Answering<'a> {
    /// Which phone.
    pub device: DeviceId,
    /// Whose.
    pub user: UserId,
    /// Its registered key.
    pub key: &'a PublicKey,
}

/// What a person answered, and what has to be remembered of the message.
pub struct Answered {
    /// The answer.
    pub outcome: Outcome,
    /// The phone's counter in it, which has to be above the last.
    pub counter: u64,
    /// When the phone signed it, by its own clock.
    pub signed: Timestamp,
    /// The message's name.
    pub jti: Nonce,
}

/// What a person answered.
pub enum Outcome {
    /// Yes, with the right number.
    Approved(ApprovalVerified),
    /// Yes, with a wrong number: the operation is over.
    WrongNumber,
    /// No.
    Denied(DenialReason),
}

/// Why an answer does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unanswerable {
    /// It has an end already.
    #[error("this was already decided")]
    Decided,
    /// Too late.
    #[error("the time to answer is over")]
    Expired,
    /// This phone was not asked.
    #[error("this phone was not asked")]
    NotAsked,
    /// The asker may not answer.
    #[error("somebody else has to approve this")]
    Own,
    /// The message does not verify.
    #[error(transparent)]
    Message(MessageError),
    /// It answers another text than the one that was sent to this phone.
    #[error("this answers another request")]
    OtherRequest,
}

/// Proof that the right person's phone approved one operation. Cannot be made but by
/// [`Operation::answer`] and [`rotation`], nor copied: one proof, one operation.
#[derive(Debug)]
pub struct ApprovalVerified {
    operation: OperationId,
    action: Approvable,
    token: Option<TokenAt>,
    immediate: bool,
}

impl ApprovalVerified {
    /// The operation that was approved.
    pub fn operation(&self) -> OperationId {
        self.operation
    }

    /// What was approved.
    pub fn action(&self) -> Approvable {
        self.action
    }

    /// Whether the holder began it on the phone, so that nothing was pending before.
    pub fn is_immediate(&self) -> bool {
        self.immediate
    }

    /// Whether it covers `action` on this token at this version.
    pub fn covers(&self, action: Approvable, token: TokenId, version: i64) -> bool {
        self.action == action && self.token == Some(TokenAt { id: token, version })
    }
}

impl Operation {
    /// The request that was sent to `device`.
    pub fn request_to(&self, device: DeviceId) -> Option<&SentRequest> {
        self.requests.iter().find(|request| request.device == device)
    }

    /// Whether this person asked for what only somebody else may approve.
    pub fn refuses_own(&self, user: UserId) -> bool {
        self.four_eyes && user == self.asker
    }

    /// Whether the number on the asker's screen has to be typed: always, but for a relying party
    /// that the bank registered as one that cannot show it.
    pub fn wants_number(&self) -> bool {
        self.consent.as_ref().is_none_or(|consent| consent.number)
    }

    /// Whether its time is over while nobody answered.
    pub fn is_overdue(&self, now: Timestamp) -> bool {
        self.state == OperationState::Pending && now >= self.expires
    }

    /// Reads a phone's answer. `number` is the one that was shown to the asker, `server` the
    /// server's key and `issuer` its address.
    ///
    /// The order matters: what is refused before the signature is verified tells nothing that the
    /// phone could not know; the number is compared last, and a wrong one ends the operation.
    pub fn answer(
        &self,
        from: Answering<'_>,
        text: &str,
        number: &MatchNumber,
        issuer: &str,
        server: &PublicKey,
        now: Timestamp,
    ) -> Result<Answered, Unanswerable> {
        if self.refuses_own(from.user) {
            return Err(Unanswerable::Own);
        }
        let sent = self.request_to(from.device).ok_or(Unanswerable::NotAsked)?;
        if sent.user != from.user {
            return Err(Unanswerable::NotAsked);
        }
        if self.state != OperationState::Pending {
            return Err(Unanswerable::Decided);
        }
        if now >= self.expires {
            return Err(Unanswerable::Expired);
        }
        let device = from.device.to_string();
        let response: ApprovalResponse =
            messages::verify(text, from.key, &device, issuer).map_err(Unanswerable::Message)?;
        // Our own stored text, read back; never what the answer says it was.
        let request: ApprovalRequest =
            messages::verify(&sent.text, server, issuer, &device).map_err(Unanswerable::Message)?;
        if !response.answers(&sent.text, &request) {
            return Err(Unanswerable::OtherRequest);
        }
        let approved = || {
            Outcome::Approved(ApprovalVerified {
                operation: self.id,
                action: self.action,
                token: self.token,
                immediate: false,
            })
        };
        let outcome = match response.decision {
            Decision::Denied { reason } => Outcome::Denied(reason),
            Decision::Approved { match_number } if match_number.matches(number) => approved(),
            Decision::Approved { .. } => Outcome::WrongNumber,
            // As a message that lacks what it has to have.
            Decision::Agreed if self.wants_number() => {
                return Err(Unanswerable::Message(MessageError::Malformed));
            }
            Decision::Agreed => approved(),
        };
        let (counter, signed, jti) = (response.ctr, response.iat, response.jti);
        Ok(Answered { outcome, counter, signed, jti })
    }
}

/// A rotation that the holder begins on the phone with the live generation: its signed request is
/// the approval. Returns the proof, the phone's counter and the message's name.
pub fn rotation(
    from: Answering<'_>,
    text: &str,
    issuer: &str,
    operation: OperationId,
) -> Result<(ApprovalVerified, RotateRequest), MessageError> {
    let request: RotateRequest =
        messages::verify(text, from.key, &from.device.to_string(), issuer)?;
    let cause = [RotateCause::Scheduled, RotateCause::NewPhone, RotateCause::Suspicion]
        .into_iter()
        .find(|cause| Cause::Rotate(*cause).name() == request.cause)
        .ok_or(MessageError::Malformed)?;
    let version = i64::try_from(request.state_version).map_err(|_| MessageError::Malformed)?;
    let proof = ApprovalVerified {
        operation,
        action: Approvable::Rotate(cause),
        token: Some(TokenAt { id: request.token, version }),
        immediate: true,
    };
    Ok((proof, request))
}
