//! The product's side, fourth part: how phones are bound, revoked and recovered.

use std::time::Duration;

use semilla_core::approval::{Approvable, OperationState};
use semilla_core::device::{Device, DeviceState};
use semilla_core::enrollment::{Activation, ActivationState, EnrollmentState};
use semilla_core::id::{DeviceId, OperationId, UserId};
use semilla_core::operations::{BlockCause, DEVICE_TABLE, DeviceAction, State};
use semilla_core::person::Binding;
use semilla_core::protocol::activation::{ActivationCode, ActivationKey};
use semilla_core::protocol::bytes::Nonce;
use semilla_core::protocol::messages;
use semilla_core::seal::Purpose;

use crate::product::{ISSUER, Product, Refusal, Went, new_key};
use crate::product_phones::Phone;
use crate::words::*;

/// An activation code, as the server keeps it and as its receiver does.
pub struct Issued {
    pub person: usize,
    pub kept: Activation,
    pub nonce: Nonce,
    pub code: ActivationCode,
}

impl Product {
    pub fn permit_on_phone(&self, action: DeviceAction, by: By, of: UserId) -> Result<(), Refusal> {
        let row = DEVICE_TABLE.iter().find(|row| row.action == action).expect("a row for each");
        let parties = self.parties(by, Some(of));
        if row.parties.iter().any(|party| parties.contains(party)) {
            Ok(())
        } else {
            Err("not this party, on a phone".into())
        }
    }

    pub fn activate(&mut self, person: usize) -> Outcome {
        for earlier in &mut self.activations {
            let live = matches!(
                earlier.kept.state,
                ActivationState::Live | ActivationState::Started { .. }
            );
            if earlier.person == person && live {
                earlier.kept.state = ActivationState::Dead;
            }
        }
        let code = ActivationCode::generate(&self.random);
        let (name, company) = (code.name().to_string(), self.companies[1]);
        let purpose = Purpose::Other { kind: "activation", company, id: &name };
        let nonce = Nonce::generate(&self.random);
        let kept = Activation {
            key: self.keyring.seal(code.key().expose(), &purpose, &self.random),
            name,
            company,
            user: self.users[person],
            enrollment: None,
            wrong: 0,
            state: ActivationState::Started { nonce: nonce.to_string() },
            expires: self.now.plus(Duration::from_secs(Activation::SECONDS)),
        };
        self.activations.push(Issued { person, kept, nonce, code });
        Outcome::Done
    }

    pub fn bind(&mut self, person: usize, typed: Typed, bend: Bend) -> Went {
        let back = if let Typed::Issued(back) = typed { back } else { 0 };
        let mine = (0..self.activations.len()).filter(|it| self.activations[*it].person == person);
        let place = mine.rev().nth(back).ok_or("no activation code")?;
        let key = new_key(&self.rng);
        let text = self.say_bind(place, &key, typed, bend);
        if !self.activations[place].kept.is_live(self.now) {
            return Err("activation code is dead".into());
        }
        let (bind, public) = messages::verify_bind(&text, ISSUER)?;
        let Issued { kept, nonce, .. } = &mut self.activations[place];
        let purpose = Purpose::Other { kind: "activation", company: kept.company, id: &kept.name };
        let opened = self.keyring.open(&kept.key, &purpose).map_err(|_| "does not open")?;
        let shared = ActivationKey::from_bytes(&opened)?;
        let vouched = bind.nonce == *nonce
            && shared.verify_phone(&bind.nonce, public.key_id(), &bind.jkt_mac).is_ok();
        if !vouched {
            kept.count_wrong();
            return Err("the code does not vouch for it".into());
        }
        let (user, trusted) = (self.users[person], self.trusted(person));
        let another = self.people[person].0 == Binding::Another;
        if another && trusted.is_empty() {
            return Err("no phone left to agree".into());
        }
        self.activations[place].kept.state = ActivationState::Used;
        self.people[person].0 = Binding::Another;
        let operation = OperationId::new(self.now, &self.random);
        let state = match another {
            true => DeviceState::Waiting { operation },
            false => DeviceState::Bound,
        };
        let id = DeviceId::new(self.now, &self.random);
        let device = Device {
            id,
            company: self.companies[1],
            user,
            name: bind.name,
            platform: bind.platform,
            key: public,
            token_sha256: String::new(),
            state,
            counter: bind.ctr,
            bound: self.now,
        };
        self.phones.push(Phone { device, key, sent: 1 });
        if another {
            self.end_persons_operation(person);
            self.people[person].1 = Some(operation);
            let about = (user, Some(id));
            self.send(operation, Approvable::BindPhone, None, about, (person, false), &trusted);
        }
        Ok(Outcome::Done)
    }

    pub fn end_persons_operation(&mut self, person: usize) {
        if let Some(earlier) = self.people[person].1 {
            let end = OperationState::Cancelled { at: self.now };
            self.end_operation(self.operation_of(earlier), end);
        }
    }

    pub fn recover(&mut self, by: By, person: usize) -> Went {
        let By::Person(helper) = by else { return Err("not this party, on a phone".into()) };
        self.permit_on_phone(DeviceAction::Recover, by, self.users[helper])?;
        if helper == person {
            return Err("nobody recovers alone".into());
        }
        if self.people[person].0 == Binding::First {
            return Err("nothing to recover".into());
        }
        let alone = PEOPLE[person].1 == Role::Administrator
            && self.administrators_with_phone(Some(person)) == 0;
        match (PEOPLE[helper].1, PEOPLE[person].1) {
            (_, Role::Operator) => return Err("an operator is not recovered here".into()),
            (Role::Operator, _) if !alone => return Err("an administrator can help".into()),
            _ => {}
        }
        let asked = self.trusted(helper);
        if asked.is_empty() {
            return Err("no phone could agree".into());
        }
        self.end_persons_operation(person);
        let id = OperationId::new(self.now, &self.random);
        self.people[person].1 = Some(id);
        let about = (self.users[person], None);
        self.send(id, Approvable::Recover, None, about, (helper, false), &asked);
        Ok(Outcome::Done)
    }

    /// A phone is trusted no more: what it was asked ends, what was to be enrolled on it ends, and
    /// every token with a generation on it is blocked.
    pub fn revoke(&mut self, phone: usize, cause: BlockCause) {
        let Device { id, state, .. } = self.phones[phone].device;
        if state == DeviceState::Revoked {
            return;
        }
        self.phones[phone].device.state = DeviceState::Revoked;
        if let DeviceState::Waiting { operation } = state {
            let at = self.now;
            self.end_operation(self.operation_of(operation), OperationState::Cancelled { at });
        }
        self.cancel_what_waits_on(phone);
        for place in 0..self.enrollments.len() {
            let enrollment = &self.enrollments[place];
            let here = match &enrollment.state {
                EnrollmentState::Delivered { device, .. } => *device == id,
                _ => false,
            };
            if enrollment.state.is_open() && (here || enrollment.current == Some(id)) {
                self.close_enrollment(place, EnrollmentState::Cancelled);
            }
        }
        for place in 0..self.tokens.len() {
            let token = self.tokens[place].token.clone();
            if token.live().and_then(|live| live.custody.device()) != Some(id) {
                continue;
            }
            let changed = match token.state() {
                State::Active => token.block(cause, self.now),
                _ => token.lose_seed(cause, self.now),
            };
            self.apply(place, changed.expect("a token with a seed can lose it"), None);
        }
    }

    /// Whoever asked this phone for something is not left waiting.
    pub fn cancel_what_waits_on(&mut self, phone: usize) {
        let id = self.phones[phone].device.id;
        for place in 0..self.operations.len() {
            if self.operations[place].request_to(id).is_some() {
                self.end_operation(place, OperationState::Cancelled { at: self.now });
            }
        }
    }
}
