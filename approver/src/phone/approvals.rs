//! The inbox and its answers. A request is shown only after it passed every check, and the answer
//! is signed over the very text that was shown (security 53 to 55, 64, 129).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use semilla_core::id::OperationId;
use semilla_core::problem::ProblemType;
use semilla_core::protocol::approval::{Decision, DenialReason, MatchNumber};
use semilla_core::protocol::wire::{Answered, Approval, Approvals, OpenEnrollment, OperationState};

use super::connection::{Call, PATIENCE};
use super::{Draft, Phone};
use crate::errors::{Error, Input, Refusal};
use crate::review::{Expected, Request, review};

/// How long the server lets a phone wait at most.
const WAIT_MAX: Duration = Duration::from_secs(25);

/// What waits for the person.
#[derive(Debug, Default)]
pub struct Inbox {
    /// What is asked, the oldest first.
    pub requests: Vec<Arc<Request>>,
    /// What the server sent and this phone does not believe.
    pub refused: Vec<Refused>,
    /// What waits to be enrolled.
    pub enrollments: Vec<OpenEnrollment>,
}

/// A request that did not pass. Nothing of its text is kept: it is not to be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The id it was announced as.
    pub id: OperationId,
    /// Why.
    pub refusal: Refusal,
}

impl Phone {
    /// What waits now.
    pub async fn inbox(&self) -> Result<Inbox, Error> {
        let mut inbox = self.wait_for_requests(Duration::ZERO).await?;
        inbox.enrollments = self.enrollments().await?;
        Ok(inbox)
    }

    /// Waits until something is asked, for 25 seconds at most; an empty inbox where nothing was.
    /// What waits to be enrolled is left out.
    pub async fn wait_for_requests(&self, wait: Duration) -> Result<Inbox, Error> {
        let wait = wait.min(WAIT_MAX);
        let path = match wait.as_secs() {
            0 => "/device/v1/approvals".to_owned(),
            seconds => format!("/device/v1/approvals?wait={seconds}"),
        };
        let answer = self.call(Call::get(&path).patient(wait + PATIENCE)).await?;
        let Approvals { approvals } = answer.json()?;
        let mut reviewed = self.review_all(&approvals)?;
        let wrong_generation =
            |result: &Result<Request, Refusal>| matches!(result, Err(Refusal::Generation { .. }));
        if reviewed.iter().any(wrong_generation) {
            // Perhaps it is this phone that has not heard of a release or a renewal yet.
            self.sync().await?;
            reviewed = self.review_all(&approvals)?;
        }
        let mut inbox = Inbox::default();
        for (Approval { id, .. }, result) in approvals.iter().zip(reviewed) {
            match result {
                Ok(request) => inbox.requests.push(Arc::new(request)),
                Err(refusal) => inbox.refused.push(Refused { id: *id, refusal }),
            }
        }
        self.remember(&inbox.requests);
        Ok(inbox)
    }

    /// Approves what is in the inbox with the six digits on the asker's screen. A request that was
    /// shown is answered as it was shown. Where the PIN protects this phone, each approval needs
    /// it once more: [`Error::Locked`] without (security 126).
    pub async fn approve(&self, id: OperationId, number: &str) -> Result<Answered, Error> {
        let request = self.find(id).await?;
        self.approve_request(&request, number).await
    }

    /// As [`Phone::approve`], for a request in hand. The number is empty where none is asked for.
    pub async fn approve_request(
        &self,
        request: &Request,
        number: &str,
    ) -> Result<Answered, Error> {
        if number.is_empty() && !request.wants_number() {
            self.store.take_presence()?;
            return self
                .answer(request, &format!("agree {}", request.id()), Decision::Agreed)
                .await;
        }
        let parsed = MatchNumber::parse(number).map_err(|_| Input::Number)?;
        self.store.take_presence()?;
        let intent = format!("approve {} {}", request.id(), parsed.expose());
        self.answer(request, &intent, Decision::Approved { match_number: parsed }).await
    }

    /// Denies what is in the inbox. [`DenialReason::SuspectedFraud`] also blocks the token.
    pub async fn deny(&self, id: OperationId, reason: DenialReason) -> Result<Answered, Error> {
        let request = self.find(id).await?;
        self.deny_request(&request, reason).await
    }

    /// As [`Phone::deny`], for a request in hand.
    pub async fn deny_request(
        &self,
        request: &Request,
        reason: DenialReason,
    ) -> Result<Answered, Error> {
        let intent = format!("deny {} {reason:?}", request.id());
        match self.answer(request, &intent, Decision::Denied { reason }).await {
            // Another phone of the person said no, or this one did and the answer got lost.
            Err(Error::Problem(problem))
                if problem.kind == ProblemType::ApprovalAlreadyDecided
                    && problem.state.as_deref() == Some("denied") =>
            {
                Ok(Answered { operation: request.id(), state: OperationState::Denied })
            }
            answered => answered,
        }
    }

    async fn answer(
        &self,
        request: &Request,
        intent: &str,
        decision: Decision,
    ) -> Result<Answered, Error> {
        let path = format!("/device/v1/approvals/{}/response", request.id());
        let write = |draft: Draft| draft.response(request, decision);
        let answer = self.send_signed(intent, &path, write, |_, _| ()).await?;
        let answered: Answered = answer.json()?;
        if answered.operation != request.id() {
            return Err(Error::UnexpectedAnswer("operation".to_owned()));
        }
        self.shown().remove(&request.id());
        Ok(answered)
    }

    /// The request that was shown under this id, or else the one in the inbox.
    async fn find(&self, id: OperationId) -> Result<Arc<Request>, Error> {
        let shown = self.shown().get(&id).cloned();
        if let Some(request) = shown {
            return Ok(request);
        }
        let Inbox { requests, refused, .. } = self.wait_for_requests(Duration::ZERO).await?;
        if let Some(refused) = refused.iter().find(|refused| refused.id == id) {
            return Err(refused.refusal.into());
        }
        requests.into_iter().find(|request| request.id() == id).ok_or(Error::UnknownRequest(id))
    }

    fn review_all(&self, approvals: &[Approval]) -> Result<Vec<Result<Request, Refusal>>, Error> {
        let reviewed = self.read(|account| {
            let (device, _) = account.bound()?;
            let held = |token| {
                let live = account.tokens.iter().filter(|own| own.token == token);
                let live = live.map(|own| own.generation);
                let pending = account.pending.iter().filter(|own| own.token == token);
                live.chain(pending.map(|own| own.generation)).collect()
            };
            let expected = Expected {
                issuer: &account.issuer,
                jwks: &account.jwks,
                device,
                now: account.server_time(self.now()),
                held: &held,
            };
            let one = |approval: &Approval| review(approval.id, &approval.request, &expected);
            Ok(approvals.iter().map(one).collect::<Vec<_>>())
        })?;
        if let Some(latest) = reviewed.iter().flatten().map(|request| request.claims().iat).max() {
            self.learn_signed_time(latest)?;
        }
        Ok(reviewed)
    }

    /// Keeps what is shown, and lets go of what the server lists no more. What was shown first
    /// under an id stays.
    fn remember(&self, requests: &[Arc<Request>]) {
        let mut shown = self.shown();
        let listed = |id: &OperationId| requests.iter().any(|request| request.id() == *id);
        shown.retain(|id, _| listed(id));
        for request in requests {
            shown.entry(request.id()).or_insert_with(|| Arc::clone(request));
        }
    }

    fn shown(&self) -> std::sync::MutexGuard<'_, BTreeMap<OperationId, Arc<Request>>> {
        self.shown.lock().expect("no panic while it was held")
    }
}
