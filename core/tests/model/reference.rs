//! The reference: the two tables and the rules around them, written from the domain's words alone,
//! in the plainest form there is. No type, table or function of the product is used here; time is
//! a number, people and things are places in lists.
//!
//! This file is about tokens and codes; `reference_phones.rs` is about phones and their answers.

use std::collections::BTreeMap;

use crate::codes::{KeptSeed, step_of};
use crate::tables::{self, PHONE_IS_GONE, row_of};
use crate::words::*;

/// What a company chose and a script cannot change: from how many failures on a token waits, so
/// many seconds for each, and at how many it is blocked.
pub type Lockout = (u32, u32, u32);

#[derive(Clone)]
pub struct Token {
    pub company: usize,
    pub physical: bool,
    pub state: &'static str,
    pub holder: Option<usize>,
    pub before: Option<&'static str>,
    pub live: Option<(u32, Option<usize>)>,
    pub generations: u32,
    pub enrollment: Option<usize>,
    pub pending: Option<usize>,
    pub last: (&'static str, Option<String>),
    pub changed_at: i64,
    /// How often it was changed: an approval is for the token as it was.
    pub changes: u64,
    pub last_step: Option<u64>,
    pub failures: u32,
    pub waits_until: Option<i64>,
}

#[derive(Clone)]
pub struct Enrollment {
    pub token: usize,
    pub generation: u32,
    pub rotation: Option<&'static str>,
    /// The phone with the live generation.
    pub current: Option<usize>,
    pub authenticator_app: bool,
    pub state: &'static str,
    /// To which phone, or to an authenticator app.
    pub delivered: Option<Option<usize>>,
    pub expires: i64,
}

#[derive(Clone)]
pub struct Operation {
    pub what: &'static str,
    pub cause: Option<&'static str>,
    pub about: About,
    pub new_phone: Option<usize>,
    pub asker: usize,
    pub four_eyes: bool,
    pub asked: Vec<usize>,
    pub state: &'static str,
    pub expires: i64,
}

#[derive(Clone)]
pub struct Phone {
    pub owner: usize,
    pub state: &'static str,
    pub counter: u64,
    /// The last counter it put into a message.
    pub sent: u64,
    pub waits_for: Option<usize>,
}

#[derive(Clone)]
pub struct Activation {
    pub person: usize,
    pub state: &'static str,
    pub wrong: u32,
    pub expires: i64,
}

pub struct Reference {
    pub now: i64,
    pub four_eyes: bool,
    pub authenticator_app: bool,
    pub lockout: Lockout,
    pub tokens: Vec<Token>,
    pub enrollments: Vec<Enrollment>,
    pub operations: Vec<Operation>,
    pub phones: Vec<Phone>,
    pub activations: Vec<Activation>,
    /// Whether they had a phone, and the operation about their phones.
    pub people: Vec<(bool, Option<usize>)>,
    /// Every seed ever made, dead ones too.
    pub seeds: BTreeMap<(usize, u32), KeptSeed>,
    pub effects: Vec<(usize, Effect)>,
    pub between: Vec<Outcome>,
}

/// An enrollment stays open for a day, an operation for 5 minutes, a code for 10.
const DAY: i64 = 24 * 3_600_000;
pub const FIVE_MINUTES: i64 = 300_000;
pub const TEN_MINUTES: i64 = 600_000;

/// `Some(())` where something holds: refusals read as one line each.
pub fn holds(it: bool) -> Option<()> {
    it.then_some(())
}

impl Reference {
    pub fn new(now: i64, lockout: Lockout) -> Self {
        Self {
            now,
            four_eyes: false,
            authenticator_app: false,
            lockout,
            tokens: Vec::new(),
            enrollments: Vec::new(),
            operations: Vec::new(),
            phones: Vec::new(),
            activations: Vec::new(),
            people: vec![(false, None); PEOPLE.len()],
            seeds: BTreeMap::new(),
            effects: Vec::new(),
            between: Vec::new(),
        }
    }

    /// Takes one step. What does not apply is refused and changes nothing.
    pub fn step(&mut self, step: &Step) -> Outcome {
        let done = match step {
            Step::Wait(ms) => {
                self.now += i64::try_from(*ms).expect("a short while");
                Some(Outcome::Done)
            }
            Step::Issue { by, physical } => self.issue(*by, *physical),
            Step::Allot { by, token, company } => self.move_to("allot", *by, *token, *company),
            Step::Withdraw { by, token } => self.move_to("withdraw", *by, *token, 0),
            Step::Retire { by, token } => self.retire(*by, *token),
            Step::Assign { by, token, to } => self.assign(*by, *token, *to),
            Step::OpenAgain { by, token } => self.open_again(*by, *token),
            Step::Deliver { token, to } => self.deliver(*token, *to),
            Step::Prove { token, on, code } => self.prove(*token, *on, code),
            Step::GiveUp { token } => self.give_up(*token),
            Step::Block { by, token, cause } => {
                self.asked("block", *by, *token, Some(cause)).map(|()| self.block(*token, cause))
            }
            Step::Check { token, code } => self.check(*token, code),
            Step::AuthenticatorApp(app) => {
                self.authenticator_app = *app;
                Some(Outcome::Done)
            }
            Step::Chores => {
                self.chores();
                Some(Outcome::Done)
            }
            about_phones => self.step_of_phones(about_phones),
        };
        done.unwrap_or(Outcome::Refused)
    }

    /// Who `by` is to a token.
    pub fn parties(&self, by: By, holder: Option<usize>) -> Vec<&'static str> {
        let By::Person(person) = by else { return vec![tables::SYSTEM] };
        let mut parties = match PEOPLE[person].1 {
            Role::Operator => vec![tables::OPERATOR],
            Role::Administrator => vec![tables::ADMINISTRATOR],
            Role::Secondary => vec![],
        };
        if holder == Some(person) {
            parties.push(tables::HOLDER);
        }
        parties
    }

    /// Whether the table allows it: this party, from this state, for this cause.
    pub fn asked(&self, operation: &str, by: By, token: usize, cause: Option<&str>) -> Option<()> {
        let token = self.tokens.get(token)?;
        let row = row_of(operation);
        holds(row.from.contains(&token.state))?;
        holds(row.allows(&self.parties(by, token.holder), cause))
    }

    fn issue(&mut self, by: By, physical: bool) -> Option<Outcome> {
        holds(row_of("issue").allows(&self.parties(by, None), None))?;
        self.tokens.push(Token {
            company: 0,
            physical,
            state: row_of("issue").to,
            holder: None,
            before: None,
            live: None,
            generations: 0,
            enrollment: None,
            pending: None,
            last: ("issue", None),
            changed_at: self.now,
            changes: 0,
            last_step: None,
            failures: 0,
            waits_until: None,
        });
        Some(Outcome::Done)
    }

    fn move_to(&mut self, what: &'static str, by: By, token: usize, to: usize) -> Option<Outcome> {
        self.asked(what, by, token, None)?;
        self.tokens[token].company = to;
        self.changed(token, what, row_of(what).to, None)
    }

    fn retire(&mut self, by: By, token: usize) -> Option<Outcome> {
        self.asked("retire", by, token, None)?;
        self.changed(token, "retire", "retired", None)
    }

    fn assign(&mut self, by: By, token: usize, to: usize) -> Option<Outcome> {
        self.asked("assign", by, token, None)?;
        holds(!self.tokens[token].physical)?;
        holds(PEOPLE[to].1 != Role::Operator)?;
        let company = self.tokens[token].company;
        let holds_one = |other: &Token| other.company == company && other.holder == Some(to);
        holds(!self.tokens.iter().any(holds_one))?;
        self.tokens[token].holder = Some(to);
        self.changed(token, "assign", "assigned", None)?;
        self.open_enrollment(token, None)
    }

    /// The earlier enrollment is dead; whatever waited for a phone dies with the token's change.
    pub fn open_enrollment(&mut self, token: usize, why: Option<&'static str>) -> Option<Outcome> {
        self.cancel_open(token);
        let id = self.enrollments.len();
        let it = &mut self.tokens[token];
        it.changes += 1;
        it.generations += 1;
        it.enrollment = Some(id);
        self.enrollments.push(Enrollment {
            token,
            generation: it.generations,
            rotation: why,
            current: it.live.and_then(|(_, phone)| phone),
            authenticator_app: self.authenticator_app,
            state: "open",
            delivered: None,
            expires: self.now + DAY,
        });
        self.effects.push((token, Effect::EnrollmentOpens(id)));
        Some(Outcome::Done)
    }

    fn open_again(&mut self, by: By, token: usize) -> Option<Outcome> {
        let it = self.tokens.get(token)?;
        holds(self.parties(by, it.holder).contains(&tables::ADMINISTRATOR))?;
        let waits = it.state == "assigned" || (it.state == "active" && it.enrollment.is_some());
        holds(waits)?;
        let why = it.enrollment.and_then(|id| self.enrollments[id].rotation);
        self.open_enrollment(token, why)
    }

    fn deliver(&mut self, token: usize, to: Option<PhoneRef>) -> Option<Outcome> {
        let it = self.tokens.get(token)?;
        let phone = match to {
            None => None,
            Some(phone) => Some(self.phone(phone)?),
        };
        let open = it.enrollment;
        if let Some(phone) = phone {
            self.phones[phone].sent += 1;
        }
        let it = &self.tokens[token];
        let enrollment = &self.enrollments[open?];
        holds(enrollment.state == "open" && self.now < enrollment.expires)?;
        holds(enrollment.authenticator_app == phone.is_none())?;
        if let Some(phone) = phone {
            holds(Some(self.phones[phone].owner) == it.holder)?;
            holds(self.phones[phone].state == "bound")?;
            // The phone with the live seed gets the new one, but for `new_phone`.
            if let (Some(why), Some(current)) = (enrollment.rotation, enrollment.current) {
                holds((phone == current) != (why == "new_phone"))?;
            }
        }
        if let Some(phone) = phone {
            self.phones[phone].counter = self.phones[phone].sent;
        }
        let id = open?;
        let state = if phone.is_some() { "delivered" } else { "shown" };
        self.enrollments[id].state = state;
        self.enrollments[id].delivered = Some(phone);
        Some(Outcome::Done)
    }

    fn prove(&mut self, token: usize, on: Option<PhoneRef>, code: &Code) -> Option<Outcome> {
        let it = self.tokens.get(token)?;
        let phone = match on {
            None => None,
            Some(phone) => Some(self.phone(phone)?),
        };
        let id = it.enrollment?;
        let enrollment = &self.enrollments[id];
        holds(self.now < enrollment.expires && enrollment.delivered == Some(phone))?;
        holds(phone.is_none_or(|phone| self.phones[phone].state == "bound"))?;
        let generation = enrollment.generation;
        let outcome = self.try_code(token, generation, code);
        if let Outcome::Accepted(step) = outcome {
            self.cancel_pending(token);
            self.enrollments[id].state = "confirmed";
            let it = &mut self.tokens[token];
            it.enrollment = None;
            let old = it.live.replace((generation, phone));
            (it.failures, it.waits_until) = (0, None);
            it.last_step = it.last_step.max(Some(step));
            let what = if old.is_some() { "rotate" } else { "enroll" };
            if let Some((old, _)) = old {
                self.effects.push((token, Effect::SeedDestroyed(old)));
            }
            self.effects.push((token, Effect::SeedLive(generation)));
            self.changed(token, what, "active", None)?;
        }
        Some(outcome)
    }

    fn give_up(&mut self, token: usize) -> Option<Outcome> {
        let id = self.tokens.get(token)?.enrollment?;
        self.close_enrollment(id, "cancelled");
        Some(Outcome::Done)
    }

    /// Changes nothing but what waits for the token as it was.
    pub fn close_enrollment(&mut self, id: usize, end: &'static str) {
        let token = self.enrollments[id].token;
        self.tokens[token].changes += 1;
        self.cancel_open(token);
        self.enrollments[id].state = end;
    }

    /// Blocks at once, whoever asked; the caller has looked at the table.
    pub fn block(&mut self, token: usize, cause: &str) -> Outcome {
        let gone = PHONE_IS_GONE.contains(&cause);
        self.cancel_open(token);
        let it = &mut self.tokens[token];
        let was = it.state;
        it.before = Some(if gone { "gone" } else { was });
        let live = it.live;
        if gone {
            it.live = None;
        }
        self.changed(token, "block", "blocked", Some(cause.to_owned()));
        match live {
            Some((number, phone)) if gone => {
                self.effects.push((token, Effect::SeedDestroyed(number)));
                if let Some(phone) = phone {
                    self.effects.push((token, Effect::PhoneRevoked(phone)));
                    self.revoke(phone, cause);
                }
            }
            Some((number, _)) => self.effects.push((token, Effect::SeedClosed(number))),
            None => {}
        }
        Outcome::Done
    }

    fn check(&mut self, token: usize, code: &Code) -> Option<Outcome> {
        let it = self.tokens.get(token)?;
        let Some((generation, _)) = it.live.filter(|_| it.state == "active") else {
            return Some(Outcome::Closed);
        };
        let outcome = self.try_code(token, generation, code);
        if let Outcome::Accepted(step) = outcome {
            let it = &mut self.tokens[token];
            (it.last_step, it.failures, it.waits_until) = (Some(step), 0, None);
        }
        Some(outcome)
    }

    /// One attempt: counted first, then looked at; too many block the token.
    fn try_code(&mut self, token: usize, generation: u32, code: &Code) -> Outcome {
        let Code::Text(text) = code else { return Outcome::Refused };
        // A text of another length is no code of this seed: refused, and not counted.
        let seed = self.seeds.get(&(token, generation));
        if seed.is_some_and(|seed| seed.digits() != text.len()) {
            return Outcome::Refused;
        }
        let (from, seconds, block_at) = self.lockout;
        let (now, it) = (self.now, &mut self.tokens[token]);
        if it.failures >= block_at {
            return Outcome::Locked;
        }
        if it.waits_until.is_some_and(|until| now < until) {
            return Outcome::Waiting;
        }
        it.failures += 1;
        let wait = i64::from(seconds * it.failures) * 1000;
        it.waits_until = (it.failures >= from).then_some(now + wait);
        let seed = self.seeds.get(&(token, generation));
        let is = |step: u64| seed.is_some_and(|seed| seed.code(step) == *text);
        let current = step_of(now);
        let matching: Vec<_> = (current - 1..=current + 1).filter(|step| is(*step)).collect();
        if let Some(step) =
            matching.iter().find(|step| it.last_step.is_none_or(|last| **step > last))
        {
            return Outcome::Accepted(*step);
        }
        if it.failures >= block_at && row_of("block").from.contains(&it.state) {
            self.block(token, "too_many_failures");
        }
        if matching.is_empty() { Outcome::Wrong } else { Outcome::Used }
    }

    /// Takes a token to its next state. Nobody holds what is in the stock, in a pool, or retired.
    pub fn changed(
        &mut self,
        token: usize,
        what: &'static str,
        to: &'static str,
        cause: Option<String>,
    ) -> Option<Outcome> {
        let it = &mut self.tokens[token];
        it.state = to;
        if ["stock", "company", "retired"].contains(&to) {
            (it.holder, it.live) = (None, None);
        }
        if to != "blocked" {
            it.before = None;
        }
        (it.last, it.changed_at) = ((what, cause), self.now);
        it.changes += 1;
        Some(Outcome::Done)
    }

    pub fn cancel_open(&mut self, token: usize) {
        if let Some(id) = self.tokens[token].enrollment.take() {
            self.enrollments[id].state = "cancelled";
            self.effects.push((token, Effect::EnrollmentCancelled(id)));
        }
        self.cancel_pending(token);
    }

    pub fn cancel_pending(&mut self, token: usize) {
        if let Some(id) = self.tokens[token].pending.take() {
            self.effects.push((token, Effect::OperationCancelled(id)));
            self.end_operation(id, "cancelled");
        }
    }

    /// The company takes part in time alone: what is overdue ends.
    fn chores(&mut self) {
        for id in 0..self.operations.len() {
            if self.operations[id].state == "pending" && self.now >= self.operations[id].expires {
                self.end_operation(id, "expired");
            }
        }
        for id in 0..self.enrollments.len() {
            let it = &self.enrollments[id];
            let open = ["open", "delivered", "shown"].contains(&it.state);
            if open && self.now >= it.expires {
                self.close_enrollment(id, "expired");
            }
        }
    }
}
