//! The product's side, second part: what phones are asked and what they answer. What a phone
//! says is in `product_messages.rs`; here the server's part of it is done.

use semilla_core::approval::{
    Answering, Approvable, Operation, OperationState, Outcome as Answer, SentRequest, TokenAt,
    Unanswerable, rotation,
};
use semilla_core::device::{Device, DeviceState};
use semilla_core::id::{DeviceId, EnrollmentId, OperationId, UserId};
use semilla_core::operations::{Action, BlockCause, Cause, DeviceAction, Phone as WhosePhone};
use semilla_core::person::Binding;
use semilla_core::policy::{Authorizer, Policy};
use semilla_core::protocol::approval::{DenialReason, MatchNumber};
use semilla_core::protocol::jwk::SigningKey;
use semilla_core::protocol::messages;
use semilla_core::seal::Purpose;

use crate::faults::{self, Fault};
use crate::product::{ISSUER, Product, Refusal, SERVER, Went};
use crate::words::*;

/// A phone: what the server knows of it, and what only the phone has.
pub struct Phone {
    pub device: Device,
    pub key: SigningKey,
    /// The last counter it put into a message.
    pub sent: u64,
}

impl Phone {
    pub fn require_bound(&self) -> Result<(), Refusal> {
        match self.device.state {
            DeviceState::Bound => Ok(()),
            other => Err(Refusal(format!("the phone is {}", other.name()))),
        }
    }
}

impl Product {
    pub fn step_of_phones(&mut self, step: &Step) -> Went {
        match step {
            Step::Ask { by, token, what, cause } => self.ask(*by, *token, what, *cause),
            Step::Answer { to, on, say, bend, meanwhile } => {
                self.answer(*to, *on, *say, *bend, meanwhile)
            }
            Step::Rotate { on, token, cause, stale, bend, meanwhile } => {
                self.rotate(*on, *token, cause, *stale, *bend, meanwhile)
            }
            Step::Cancel { to } => {
                let id = self.operation(*to)?;
                if self.operations[id].state != OperationState::Pending {
                    return Err(Unanswerable::Decided.into());
                }
                self.end_operation(id, OperationState::Cancelled { at: self.now });
                Ok(Outcome::Done)
            }
            Step::Activate { person } => Ok(self.activate(*person)),
            Step::Bind { person, typed, bend } => self.bind(*person, *typed, *bend),
            Step::Revoke { by, phone, cause } => {
                let phone = self.phone(*phone)?;
                self.permit_on_phone(DeviceAction::Revoke, *by, self.phones[phone].device.user)?;
                let causes = Action::Block.operation().causes;
                let cause = causes.iter().find(|it| it.name() == *cause);
                let Some(Cause::Block(cause)) = cause else { return Err("not a cause".into()) };
                self.revoke(phone, *cause);
                Ok(Outcome::Done)
            }
            Step::Recover { by, person } => self.recover(*by, *person),
            Step::FourEyes(wanted) => {
                let authorizer = match wanted {
                    true => Authorizer::AnotherAdministrator,
                    false => Authorizer::OwnPhone,
                };
                let policy = Policy { authorizer, ..self.policy };
                if !policy.violations(self.administrators_with_phone(None)).is_empty() {
                    return Err("nobody could satisfy this policy".into());
                }
                self.policy = policy;
                Ok(Outcome::Done)
            }
            _ => Err("no such step".into()),
        }
    }

    pub fn phone(&self, phone: PhoneRef) -> Result<usize, Refusal> {
        let owners: Vec<_> = self.phones.iter().map(|it| self.person(it.device.user)).collect();
        phone.find(owners.into_iter()).ok_or_else(|| "no such phone".into())
    }

    pub fn about(&self, operation: &Operation) -> About {
        match operation.token {
            Some(at) => About::Token(self.place_of(at.id)),
            None => About::Person(self.person(operation.holder)),
        }
    }

    fn operation(&self, operation: OperationRef) -> Result<usize, Refusal> {
        let abouts: Vec<_> = self.operations.iter().map(|it| self.about(it)).collect();
        operation.find(abouts.into_iter()).ok_or_else(|| "no such operation".into())
    }

    pub fn trusted(&self, person: usize) -> Vec<usize> {
        let trusted = |place: &usize| {
            let device = &self.phones[*place].device;
            device.user == self.users[person] && device.state == DeviceState::Bound
        };
        (0..self.phones.len()).filter(trusted).collect()
    }

    fn administrators(&self) -> impl Iterator<Item = usize> {
        (0..PEOPLE.len()).filter(|person| PEOPLE[*person].1 == Role::Administrator)
    }

    pub fn administrators_with_phone(&self, but: Option<usize>) -> usize {
        let able = |person: &usize| Some(*person) != but && !self.trusted(*person).is_empty();
        self.administrators().filter(able).count()
    }

    fn ask(&mut self, by: By, place: usize, what: &str, cause: Option<&str>) -> Went {
        let pending = self.stored(place)?.token.pending.map(|id| self.operation_of(id));
        if let Some(id) = pending.filter(|id| self.operations[*id].is_overdue(self.now)) {
            self.end_operation(id, OperationState::Expired { at: self.now });
        }
        let By::Person(asker) = by else { return Err("not this party".into()) };
        let token = faults::mistake(self.fault, self.tokens[place].token.clone());
        let action = match what {
            "release" => Action::Release,
            "unblock" => Action::Unblock,
            _ => Action::Rotate,
        };
        let cause = self.permit(action, by, token.holder(), cause)?;
        let action = Self::approvable(what, cause).ok_or("not a cause of this")?;
        let id = OperationId::new(self.now, &self.random);
        let asked = token.ask(action, id)?.token;
        let holder = asked.holder().ok_or("nobody holds it")?;
        let whose = action.on_token().map_or(WhosePhone::None, |action| action.operation().phone);
        let four_eyes = whose == WhosePhone::Administrator
            && self.policy.authorizer == Authorizer::AnotherAdministrator;
        let mut phones = match whose {
            WhosePhone::Holder => self.trusted(self.person(holder)),
            _ if four_eyes => self.administrators().flat_map(|it| self.trusted(it)).collect(),
            _ => self.trusted(asker),
        };
        let current = asked.live().and_then(|live| live.custody.device());
        if let (WhosePhone::Holder, Some(current)) = (whose, current) {
            phones.retain(|phone| self.phones[*phone].device.id == current);
        }
        let can =
            |phone: &usize| !four_eyes || self.phones[*phone].device.user != self.users[asker];
        if !phones.iter().any(can) {
            return Err("no phone could agree".into());
        }
        self.tokens[place].token.pending = Some(id);
        self.tokens[place].version += 1;
        let at = TokenAt { id: asked.id, version: self.tokens[place].version };
        self.send(id, action, Some(at), (holder, None), (asker, four_eyes), &phones);
        Ok(Outcome::Done)
    }

    /// Writes the request to every phone that is asked, and keeps the number.
    pub fn send(
        &mut self,
        id: OperationId,
        action: Approvable,
        token: Option<TokenAt>,
        (holder, new_device): (UserId, Option<DeviceId>),
        (asker, four_eyes): (usize, bool),
        phones: &[usize],
    ) {
        let number = MatchNumber::generate(&self.random);
        let id_text = id.to_string();
        let company =
            token.map_or(self.companies[1], |at| self.tokens[self.place_of(at.id)].token.company);
        let purpose = Purpose::Other { kind: "match-number", company, id: &id_text };
        let mut operation = Operation {
            consent: None,
            id,
            company,
            action,
            token,
            holder,
            new_device,
            asker: self.users[asker],
            four_eyes,
            requests: Vec::new(),
            number: self.keyring.seal(number.expose().as_bytes(), &purpose, &self.random),
            state: OperationState::Pending,
            created: self.now,
            expires: self.now.plus(self.policy.approval()),
        };
        operation.requests = phones
            .iter()
            .map(|phone| {
                let Device { id: device, user, .. } = self.phones[*phone].device;
                let request = self.request(&operation, device);
                SentRequest { device, user, text: messages::sign(&request, &SERVER, &self.rng) }
            })
            .collect();
        self.operations.push(operation);
    }

    /// The number that the asker's screen shows.
    pub fn number(&self, operation: &Operation) -> MatchNumber {
        let id = operation.id.to_string();
        let purpose = Purpose::Other { kind: "match-number", company: operation.company, id: &id };
        let opened = self.keyring.open(&operation.number, &purpose).expect("sealed here");
        MatchNumber::parse(std::str::from_utf8(&opened).expect("digits")).expect("digits")
    }

    /// Ends an operation; one that has an end keeps it.
    pub fn end_operation(&mut self, id: usize, end: OperationState) {
        if self.operations[id].state != OperationState::Pending {
            return;
        }
        let executed = matches!(end, OperationState::Executed { .. });
        self.operations[id].state = end;
        let Operation { id, token, holder, new_device, .. } = self.operations[id];
        match token.map(|at| self.place_of(at.id)) {
            Some(place) if self.tokens[place].token.pending == Some(id) => {
                self.tokens[place].token = self.tokens[place].token.clone().settle(id);
                self.tokens[place].version += 1;
            }
            Some(_) => {}
            None => {
                let person = self.person(holder);
                self.people[person].1 = self.people[person].1.filter(|pending| *pending != id);
            }
        }
        if let Some(phone) = new_device.filter(|_| !executed).map(|device| self.phone_of(device)) {
            self.phones[phone].device.state = DeviceState::Revoked;
        }
    }

    fn answer(
        &mut self,
        to: OperationRef,
        on: PhoneRef,
        say: Say,
        bend: Bend,
        meanwhile: &[Step],
    ) -> Went {
        let (id, phone) = (self.operation(to)?, self.phone(on)?);
        let text = self.say(id, phone, say, bend);
        self.phones[phone].require_bound()?;
        let mut operation = self.operations[id].clone();
        let mut now = self.now;
        match self.fault {
            Some(Fault::AskerMayApproveWithFourEyes) => operation.four_eyes = false,
            Some(Fault::LateAnswerCounts) => now = now.min(operation.created),
            _ => {}
        }
        let Device { id: device, user, ref key, .. } = self.phones[phone].device;
        let from = Answering { device, user, key };
        let number = self.number(&operation);
        let answered = operation.answer(from, &text, &number, ISSUER, SERVER.public(), now);
        let answered = answered.map_err(|refused| {
            if refused == Unanswerable::Expired {
                self.end_operation(id, OperationState::Expired { at: self.now });
            }
            Refusal::from(refused)
        })?;
        self.count(phone, answered.counter)?;
        let at = self.now;
        match answered.outcome {
            Answer::Denied(reason) => {
                self.end_operation(id, OperationState::Denied { device, reason, at });
                if let (DenialReason::SuspectedFraud, Some(token)) = (reason, operation.token) {
                    let place = self.place_of(token.id);
                    let token = self.tokens[place].token.clone();
                    // A token that is blocked already stays blocked for the cause it has.
                    if let Ok(changed) = token.block(BlockCause::FraudReported, at) {
                        self.apply(place, changed, None);
                    }
                }
                Ok(Outcome::Denied)
            }
            Answer::WrongNumber => {
                if self.fault != Some(Fault::WrongNumberDoesNotEndTheRequest) {
                    let problem = "number-mismatch".to_owned();
                    self.end_operation(id, OperationState::Failed { device, at, problem });
                }
                Ok(Outcome::WrongNumber)
            }
            Answer::Approved(proof) => {
                let key = self.phones[phone].device.key.clone();
                let executed = OperationState::Executed { device, at, key, response: text };
                let Some(token) = operation.token else {
                    self.end_operation(id, executed);
                    self.execute_on_person(&operation);
                    return Ok(Outcome::Done);
                };
                self.between(meanwhile);
                let place = self.place_of(token.id);
                let stored = &self.tokens[place];
                let mut token = faults::mistake(self.fault, stored.token.clone());
                let mut version = stored.version;
                if self.fault == Some(Fault::ApprovalSurvivesAChangeOfTheToken) {
                    (token.pending, version) =
                        (Some(operation.id), operation.token.map_or(0, |at| at.version));
                }
                let (now, enrollment) = (self.now, EnrollmentId::new(self.now, &self.random));
                let (changed, cause) = match operation.action {
                    Approvable::Release(cause) => (token.release(proof, version, cause, now), None),
                    Approvable::Rotate(cause) => {
                        (token.rotate(proof, version, enrollment, now), Some(cause))
                    }
                    _ => (token.unblock(proof, version, enrollment, now), None),
                };
                match changed {
                    Ok(changed) => {
                        self.apply(place, changed, cause);
                        self.end_operation(id, executed);
                        Ok(Outcome::Done)
                    }
                    Err(refused) => {
                        let problem = "state-conflict".to_owned();
                        self.end_operation(id, OperationState::Failed { device, at, problem });
                        Err(refused.into())
                    }
                }
            }
        }
    }

    /// Takes a message's counter. One that does not rise means that there are two of this phone.
    pub fn count(&mut self, phone: usize, seen: u64) -> Result<(), Refusal> {
        let device = &mut self.phones[phone].device;
        if device.count(seen).is_err() && self.fault != Some(Fault::CounterMayRepeat) {
            device.state = DeviceState::Suspended;
            self.cancel_what_waits_on(phone);
            return Err("CounterNotRising".into());
        }
        Ok(())
    }

    fn between(&mut self, meanwhile: &[Step]) {
        for step in meanwhile {
            let outcome = self.step(step);
            self.between.push(outcome);
        }
    }

    fn execute_on_person(&mut self, operation: &Operation) {
        if let Some(device) = operation.new_device {
            let phone = self.phone_of(device);
            self.phones[phone].device.state = DeviceState::Bound;
            return;
        }
        for phone in 0..self.phones.len() {
            let device = &self.phones[phone].device;
            let held = matches!(device.state, DeviceState::Bound | DeviceState::Suspended);
            if device.user == operation.holder && held {
                self.revoke(phone, BlockCause::DeviceLostOrStolen);
            }
        }
        let person = self.person(operation.holder);
        self.people[person].0 = Binding::First;
    }

    fn rotate(
        &mut self,
        on: PhoneRef,
        place: usize,
        cause: &str,
        stale: bool,
        bend: Bend,
        meanwhile: &[Step],
    ) -> Went {
        let phone = self.phone(on)?;
        self.stored(place)?;
        let text = self.say_rotate(phone, place, cause, stale, bend);
        self.phones[phone].require_bound()?;
        let Device { id: device, user, ref key, .. } = self.phones[phone].device;
        let live = self.tokens[place].token.live();
        let here = live.and_then(|live| live.custody.device()) == Some(device);
        if self.tokens[place].token.holder() != Some(user) || !here {
            return Err("not the token of this phone".into());
        }
        let from = Answering { device, user, key };
        let (proof, request) =
            rotation(from, &text, ISSUER, OperationId::new(self.now, &self.random))?;
        let before = self.phones[phone].device.counter;
        self.count(phone, request.ctr)?;
        self.between(meanwhile);
        let Approvable::Rotate(cause) = proof.action() else { return Err("no rotation".into()) };
        let enrollment = EnrollmentId::new(self.now, &self.random);
        let Product { tokens, now, .. } = self;
        let stored = &tokens[place];
        let changed = stored.token.clone().rotate(proof, stored.version, enrollment, *now);
        // One transaction: what is refused in the end leaves the counter as it was.
        let changed = changed.inspect_err(|_| self.phones[phone].device.counter = before)?;
        self.apply(place, changed, Some(cause));
        Ok(Outcome::Done)
    }
}
