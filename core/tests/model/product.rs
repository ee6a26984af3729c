//! The product's side: the same steps, driven through the types and functions of `semilla_core`,
//! with the little that stores things for them. What refuses here is the product; this file looks
//! up the table for who may ask, and carries the effects of a change to where they belong.
//!
//! This file is about tokens; `product_codes.rs` is about seeds and codes, `product_phones.rs`
//! about what phones are asked, and `product_people.rs` about how they come and go.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use ring::rand::SystemRandom;
use semilla_core::approval::{Approvable, Operation, OperationState, Unanswerable};
use semilla_core::enrollment::{Enrollment, EnrollmentState};
use semilla_core::id::{CompanyId, DeviceId, EnrollmentId, OperationId, TokenId, UserId};
use semilla_core::operations::{Action, Cause, Party, RotateCause};
use semilla_core::otp::Parameters;
use semilla_core::person::Binding;
use semilla_core::policy::{Policy, Profile};
use semilla_core::protocol::MessageError;
use semilla_core::protocol::jwk::SigningKey;
use semilla_core::seal::{Keyring, MasterKey, Sealed};
use semilla_core::time::Timestamp;
use semilla_core::token::{Changed, Effect as TokenEffect, Kind, Refused, Token, TokenState};
use semilla_core::verifier::{Counters, Lockout};

use crate::codes::KeptSeed;
use crate::faults::{self, Fault};
use crate::product_people::Issued;
use crate::product_phones::Phone;
use crate::random::Random;
use crate::words::*;

/// The server's address and key; one key for all scripts, since nothing depends on which it is.
pub const ISSUER: &str = "https://semilla.example";
pub static SERVER: LazyLock<SigningKey> = LazyLock::new(|| new_key(&SystemRandom::new()));

pub fn new_key(rng: &SystemRandom) -> SigningKey {
    SigningKey::from_pkcs8(&SigningKey::generate(rng), rng).expect("a key just made")
}

/// Why a step was refused, by the name of the product's own reason where it is one.
#[derive(Debug)]
pub struct Refusal(pub String);

impl From<&str> for Refusal {
    fn from(why: &str) -> Self {
        Self(why.to_owned())
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        Self::from(match refused {
            Refused::State { .. } => "State",
            Refused::SeedGone => "SeedGone",
            Refused::Pending(_) => "Pending",
            Refused::ProofMismatch => "ProofMismatch",
            Refused::EnrollmentClosed => "EnrollmentClosed",
            Refused::NoSeedHere => "NoSeedHere",
            Refused::SeedIsFixed => "SeedIsFixed",
        })
    }
}

impl From<Unanswerable> for Refusal {
    fn from(refused: Unanswerable) -> Self {
        Self(format!("{refused:?}"))
    }
}

impl From<MessageError> for Refusal {
    fn from(refused: MessageError) -> Self {
        Unanswerable::Message(refused).into()
    }
}

pub type Went = Result<Outcome, Refusal>;

/// A token as it is stored, and what the verifier holds of it.
pub struct Stored {
    pub token: Token,
    pub version: i64,
    pub open: bool,
    pub seed: Option<(u32, Sealed, Parameters)>,
    pub counters: Counters,
}

pub struct Product {
    pub fault: Option<Fault>,
    pub now: Timestamp,
    pub policy: Policy,
    pub random: Random,
    pub rng: SystemRandom,
    pub keyring: Keyring,
    pub companies: [CompanyId; 3],
    pub users: Vec<UserId>,
    pub tokens: Vec<Stored>,
    pub enrollments: Vec<Enrollment>,
    pub operations: Vec<Operation>,
    pub phones: Vec<Phone>,
    pub activations: Vec<Issued>,
    pub people: Vec<(Binding, Option<OperationId>)>,
    /// Every seed ever made, as the phones that opened it keep it.
    pub seeds: BTreeMap<(usize, u32), KeptSeed>,
    pub effects: Vec<(usize, Effect)>,
    pub between: Vec<Outcome>,
    /// Why steps were refused.
    pub refusals: Vec<String>,
    /// Changes that would have left no record.
    pub unrecorded: Vec<String>,
}

impl Product {
    pub fn new(seed: u64, now: i64, lockout: Lockout, fault: Option<Fault>) -> Self {
        let (random, now) = (Random::new(seed), Timestamp::from_milliseconds(now));
        let company = || CompanyId::new(now, &random);
        let companies = [CompanyId::BANK, company(), company()];
        let users = PEOPLE.iter().map(|_| UserId::new(now, &random)).collect();
        Self {
            fault,
            now,
            policy: Policy { lockout, ..Policy::DEFAULT },
            rng: SystemRandom::new(),
            keyring: Keyring::new(MasterKey::generate(&random), []),
            random,
            companies,
            users,
            tokens: Vec::new(),
            enrollments: Vec::new(),
            operations: Vec::new(),
            phones: Vec::new(),
            activations: Vec::new(),
            people: vec![(Binding::First, None); PEOPLE.len()],
            seeds: BTreeMap::new(),
            effects: Vec::new(),
            between: Vec::new(),
            refusals: Vec::new(),
            unrecorded: Vec::new(),
        }
    }

    /// Takes one step.
    pub fn step(&mut self, step: &Step) -> Outcome {
        let went = match step {
            Step::Wait(ms) => {
                self.now = self.now.plus(std::time::Duration::from_millis(*ms));
                Ok(Outcome::Done)
            }
            Step::Issue { by, physical } => self.issue(*by, *physical),
            Step::Allot { by, token, company } => {
                let company = self.companies[*company];
                self.change(Action::Allot, *by, *token, |token, now| token.allot(company, now))
            }
            Step::Withdraw { by, token } => {
                self.change(Action::Withdraw, *by, *token, Token::withdraw)
            }
            Step::Retire { by, token } => self.change(Action::Retire, *by, *token, Token::retire),
            Step::Assign { by, token, to } => self.assign(*by, *token, *to),
            Step::OpenAgain { by, token } => self.open_again(*by, *token),
            Step::Deliver { token, to: Some(phone) } => self.deliver(*token, *phone),
            Step::Deliver { token, to: None } => self.show(*token),
            Step::Prove { token, on, code } => self.prove(*token, *on, code),
            Step::GiveUp { token } => self.give_up(*token),
            Step::Block { by, token, cause } => self.block(*by, *token, cause),
            Step::Check { token, code } => self.check(*token, code),
            Step::AuthenticatorApp(app) => {
                self.policy.profile =
                    if *app { Profile::AuthenticatorApp } else { Policy::DEFAULT.profile };
                Ok(Outcome::Done)
            }
            Step::Chores => self.chores(),
            about_phones => self.step_of_phones(about_phones),
        };
        went.unwrap_or_else(|Refusal(why)| {
            self.refusals.push(why);
            Outcome::Refused
        })
    }

    pub fn parties(&self, by: By, holder: Option<UserId>) -> Vec<Party> {
        let By::Person(person) = by else { return vec![Party::System] };
        let role = match PEOPLE[person].1 {
            Role::Operator => Some(Party::Operator),
            Role::Administrator => Some(Party::Administrator),
            Role::Secondary => None,
        };
        let is_holder = holder == Some(self.users[person]);
        role.into_iter().chain(is_holder.then_some(Party::Holder)).collect()
    }

    pub fn stored(&self, token: usize) -> Result<&Stored, Refusal> {
        self.tokens.get(token).ok_or_else(|| "no such token".into())
    }

    /// The cause, where the product's table has it for this party; the state is left to the token.
    pub fn permit(
        &self,
        action: Action,
        by: By,
        holder: Option<UserId>,
        cause: Option<&str>,
    ) -> Result<Option<Cause>, Refusal> {
        let row = action.operation();
        let parties = self.parties(by, holder);
        if !row.parties.iter().any(|party| parties.contains(party)) {
            return Err("not this party".into());
        }
        let Some(name) = cause else {
            return if row.causes.is_empty() { Ok(None) } else { Err("no cause".into()) };
        };
        let named = row.causes.iter().find(|cause| cause.name() == name);
        match named {
            Some(cause) if cause.is_of_system() == (by == By::System) => Ok(Some(*cause)),
            Some(_) => Err("a cause of somebody else".into()),
            None => Err("not a cause of this".into()),
        }
    }

    fn issue(&mut self, by: By, physical: bool) -> Went {
        self.permit(Action::Issue, by, None, None)?;
        let serial = format!("FEF{:07}", self.tokens.len()).parse().expect("a serial");
        let kind = if physical { Kind::Physical } else { Kind::Virtual };
        let token = Token::issue(TokenId::new(self.now, &self.random), serial, kind, self.now);
        let counters = Counters::default();
        self.tokens.push(Stored { token, version: 1, open: false, seed: None, counters });
        Ok(Outcome::Done)
    }

    /// An operation without a cause or a phone.
    fn change(
        &mut self,
        action: Action,
        by: By,
        place: usize,
        change: impl FnOnce(Token, Timestamp) -> Result<Changed, Refused>,
    ) -> Went {
        let stored = self.stored(place)?;
        self.permit(action, by, stored.token.holder(), None)?;
        let token = faults::mistake(self.fault, stored.token.clone());
        let changed = change(token, self.now)?;
        self.apply(place, changed, None);
        Ok(Outcome::Done)
    }

    fn assign(&mut self, by: By, place: usize, to: usize) -> Went {
        if PEOPLE[to].1 == Role::Operator {
            return Err("an operator holds no token".into());
        }
        let (holder, company) = (self.users[to], self.stored(place)?.token.company);
        let enrollment = EnrollmentId::new(self.now, &self.random);
        let mine =
            |other: &Stored| other.token.company == company && other.token.holder() == Some(holder);
        if self.tokens.iter().any(mine) {
            return Err("holds one already".into());
        }
        self.change(Action::Assign, by, place, |token, now| token.assign(holder, enrollment, now))
    }

    fn open_again(&mut self, by: By, place: usize) -> Went {
        let token = self.stored(place)?.token.clone();
        if !self.parties(by, token.holder()).contains(&Party::Administrator) {
            return Err("not this party".into());
        }
        let earlier = token.enrollment.map(|id| self.enrollment(id));
        let rotation = earlier.and_then(|id| self.enrollments[id].rotation);
        let changed = token.open_again(EnrollmentId::new(self.now, &self.random))?;
        self.apply(place, changed, rotation);
        Ok(Outcome::Done)
    }

    fn block(&mut self, by: By, place: usize, cause: &str) -> Went {
        let token = self.stored(place)?.token.clone();
        let cause = self.permit(Action::Block, by, token.holder(), Some(cause))?;
        let Some(Cause::Block(cause)) = cause else { return Err("not a cause of this".into()) };
        let changed = token.block(cause, self.now)?;
        self.apply(place, changed, None);
        Ok(Outcome::Done)
    }

    fn chores(&mut self) -> Went {
        for id in 0..self.operations.len() {
            if self.operations[id].is_overdue(self.now) {
                self.end_operation(id, OperationState::Expired { at: self.now });
            }
        }
        for id in 0..self.enrollments.len() {
            let enrollment = &self.enrollments[id];
            if enrollment.state.is_open() && self.now >= enrollment.expires {
                self.close_enrollment(id, EnrollmentState::Expired);
            }
        }
        Ok(Outcome::Done)
    }

    /// Stores a token's change and carries its effects.
    pub fn apply(&mut self, place: usize, changed: Changed, rotation: Option<RotateCause>) {
        let before = &self.tokens[place].token;
        let Changed { token, operation, effects } = faults::bend(self.fault, before, changed);
        let same = (before.state(), before.holder(), before.company, before.live())
            == (token.state(), token.holder(), token.company, token.live());
        if operation.is_none() && !same {
            self.unrecorded.push(format!("{:?} became {:?}", before.state, token.state));
        }
        self.tokens[place].version += 1;
        self.tokens[place].token = token;
        for effect in effects {
            let seen = self.carry(place, effect, rotation);
            self.effects.extend(seen.map(|seen| (place, seen)));
        }
    }

    fn carry(
        &mut self,
        place: usize,
        effect: TokenEffect,
        rotation: Option<RotateCause>,
    ) -> Option<Effect> {
        let stored = &mut self.tokens[place];
        Some(match effect {
            TokenEffect::EnrollmentOpens(id) => {
                self.enroll(place, id, rotation);
                Effect::EnrollmentOpens(self.enrollment(id))
            }
            TokenEffect::EnrollmentCancelled(id) => {
                let id = self.enrollment(id);
                if self.enrollments[id].state.is_open() {
                    self.enrollments[id].state = EnrollmentState::Cancelled;
                }
                Effect::EnrollmentCancelled(id)
            }
            TokenEffect::OperationCancelled(id) => {
                let id = self.operation_of(id);
                self.end_operation(id, OperationState::Cancelled { at: self.now });
                Effect::OperationCancelled(id)
            }
            TokenEffect::SeedLive(live) => Effect::SeedLive(live.generation),
            TokenEffect::SeedClosed(number) => {
                stored.open = false;
                Effect::SeedClosed(number)
            }
            TokenEffect::SeedReopened(number) => {
                stored.open = true;
                Effect::SeedReopened(number)
            }
            TokenEffect::SeedDestroyed(number) => {
                (stored.open, stored.seed) = (false, None);
                Effect::SeedDestroyed(number)
            }
            TokenEffect::DeviceRevoked(id) => {
                // Its other tokens are blocked with the same cause.
                let TokenState::Blocked { cause, .. } = stored.token.state else { return None };
                let phone = self.phone_of(id);
                if self.fault != Some(Fault::LostPhoneKeepsItsOtherTokens) {
                    self.revoke(phone, cause);
                }
                Effect::PhoneRevoked(phone)
            }
            // Every token of a script is made here.
            TokenEffect::OwnSeedDestroyed => return None,
            TokenEffect::FailuresForgiven => {
                (stored.counters.failures, stored.counters.waits_until) = (0, None);
                return None;
            }
        })
    }

    fn enroll(&mut self, place: usize, id: EnrollmentId, rotation: Option<RotateCause>) {
        let token = &self.tokens[place].token;
        let Some(holder) = token.holder() else { return };
        self.enrollments.push(Enrollment {
            id,
            company: token.company,
            token: token.id,
            holder,
            generation: token.generation,
            profile: self.policy.profile,
            rotation: rotation.filter(|_| token.live().is_some()),
            current: token.live().and_then(|live| live.custody.device()),
            asked_by: None,
            state: EnrollmentState::Open,
            created: self.now,
            expires: self.now.plus(self.policy.enrollment()),
        });
    }

    pub fn enrollment(&self, id: EnrollmentId) -> usize {
        self.enrollments.iter().position(|it| it.id == id).expect("an enrollment of this script")
    }

    pub fn operation_of(&self, id: OperationId) -> usize {
        self.operations.iter().position(|it| it.id == id).expect("an operation of this script")
    }

    pub fn phone_of(&self, id: DeviceId) -> usize {
        self.phones.iter().position(|it| it.device.id == id).expect("a phone of this script")
    }

    pub fn place_of(&self, id: TokenId) -> usize {
        self.tokens.iter().position(|it| it.token.id == id).expect("a token of this script")
    }

    pub fn person(&self, id: UserId) -> usize {
        self.users.iter().position(|it| *it == id).expect("a person of this script")
    }

    /// What a person may approve, by name.
    pub fn approvable(what: &str, cause: Option<Cause>) -> Option<Approvable> {
        match (what, cause) {
            ("release", Some(Cause::Release(cause))) => Some(Approvable::Release(cause)),
            ("rotate", Some(Cause::Rotate(cause))) => Some(Approvable::Rotate(cause)),
            ("unblock", None) => Some(Approvable::Unblock),
            _ => None,
        }
    }
}
