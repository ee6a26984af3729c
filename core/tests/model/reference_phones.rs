//! The reference, second part: phones, what they are asked and what they answer.

use crate::reference::{
    Activation, FIVE_MINUTES, Operation, Phone, Reference, TEN_MINUTES, Token, holds,
};
use crate::tables;
use crate::words::*;

impl Reference {
    pub fn step_of_phones(&mut self, step: &Step) -> Option<Outcome> {
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
                holds(self.operations[id].state == "pending")?;
                self.end_operation(id, "cancelled");
                Some(Outcome::Done)
            }
            Step::Activate { person } => self.activate(*person),
            Step::Bind { person, typed, bend } => self.bind(*person, *typed, *bend),
            Step::Revoke { by, phone, cause } => {
                let phone = self.phone(*phone)?;
                let parties = self.parties(*by, Some(self.phones[phone].owner));
                holds(tables::PHONES[2].1.iter().any(|who| parties.contains(who)))?;
                self.revoke(phone, cause);
                Some(Outcome::Done)
            }
            Step::Recover { by, person } => self.recover(*by, *person),
            Step::FourEyes(wanted) => {
                // A policy that nobody could satisfy cannot be set.
                holds(!wanted || self.administrators_with_phone(None) >= 2)?;
                self.four_eyes = *wanted;
                Some(Outcome::Done)
            }
            _ => None,
        }
    }

    pub fn phone(&self, phone: PhoneRef) -> Option<usize> {
        phone.find(self.phones.iter().map(|phone| phone.owner))
    }

    pub fn operation(&self, operation: OperationRef) -> Option<usize> {
        operation.find(self.operations.iter().map(|operation| operation.about))
    }

    /// The phones that a person may answer on.
    pub fn trusted(&self, person: usize) -> Vec<usize> {
        let trusted = |place: &usize| {
            let phone = &self.phones[*place];
            phone.owner == person && phone.state == "bound"
        };
        (0..self.phones.len()).filter(trusted).collect()
    }

    fn administrators_with_phone(&self, but: Option<usize>) -> usize {
        let able = |person: &usize| {
            PEOPLE[*person].1 == Role::Administrator
                && Some(*person) != but
                && !self.trusted(*person).is_empty()
        };
        (0..PEOPLE.len()).filter(able).count()
    }

    /// At most one operation of a token waits; it needs a phone that can answer.
    fn ask(
        &mut self,
        by: By,
        token: usize,
        what: &'static str,
        cause: Option<&'static str>,
    ) -> Option<Outcome> {
        let pending = self.tokens.get(token)?.pending;
        if let Some(pending) = pending.filter(|id| self.now >= self.operations[*id].expires) {
            self.end_operation(pending, "expired");
        }
        let By::Person(asker) = by else { return None };
        self.asked(what, by, token, cause)?;
        let it = &self.tokens[token];
        holds(!it.physical && it.pending.is_none())?;
        // Not after a cause that destroyed the seed.
        holds(what != "unblock" || it.before != Some("gone"))?;
        let four_eyes = tables::row_of(what).phone == "approver" && self.four_eyes;
        let asked = match tables::row_of(what).phone {
            "holder" => {
                let mut phones = self.trusted(it.holder?);
                if let Some((_, Some(current))) = it.live {
                    phones.retain(|phone| *phone == current);
                }
                phones
            }
            _ if four_eyes => {
                let administrators =
                    (0..PEOPLE.len()).filter(|it| PEOPLE[*it].1 == Role::Administrator);
                administrators.flat_map(|it| self.trusted(it)).collect()
            }
            _ => self.trusted(asker),
        };
        let someone_can = |phone: &usize| !four_eyes || self.phones[*phone].owner != asker;
        holds(asked.iter().any(someone_can))?;
        let about = About::Token(token);
        let id = self.send(what, cause, about, None, asker, four_eyes, asked);
        self.tokens[token].pending = Some(id);
        self.tokens[token].changes += 1;
        Some(Outcome::Done)
    }

    #[expect(clippy::too_many_arguments, reason = "an operation has so many facts")]
    fn send(
        &mut self,
        what: &'static str,
        cause: Option<&'static str>,
        about: About,
        new_phone: Option<usize>,
        asker: usize,
        four_eyes: bool,
        asked: Vec<usize>,
    ) -> usize {
        let expires = self.now + FIVE_MINUTES;
        let state = "pending";
        let operation =
            Operation { what, cause, about, new_phone, asker, four_eyes, asked, state, expires };
        self.operations.push(operation);
        self.operations.len() - 1
    }

    /// Ends an operation; one that has an end keeps it.
    pub fn end_operation(&mut self, id: usize, end: &'static str) {
        if self.operations[id].state != "pending" {
            return;
        }
        self.operations[id].state = end;
        match self.operations[id].about {
            About::Token(token) if self.tokens[token].pending == Some(id) => {
                self.tokens[token].pending = None;
                self.tokens[token].changes += 1;
            }
            About::Person(person) if self.people[person].1 == Some(id) => {
                self.people[person].1 = None;
            }
            _ => {}
        }
        if let Some(phone) = self.operations[id].new_phone.filter(|_| end != "executed") {
            self.phones[phone].state = "revoked";
        }
    }

    fn answer(
        &mut self,
        to: OperationRef,
        on: PhoneRef,
        say: Say,
        bend: Bend,
        meanwhile: &[Step],
    ) -> Option<Outcome> {
        let (id, phone) = (self.operation(to)?, self.phone(on)?);
        self.phones[phone].sent += 1;
        let it = self.operations[id].clone();
        holds(self.phones[phone].state == "bound" && it.asked.contains(&phone))?;
        holds(!it.four_eyes || self.phones[phone].owner != it.asker)?;
        holds(it.state == "pending")?;
        if self.now >= it.expires {
            self.end_operation(id, "expired");
            return None;
        }
        self.message_counts(phone, bend)?;
        self.phones[phone].counter = self.phones[phone].sent;
        match say {
            Say::No(reason) => {
                self.end_operation(id, "denied");
                if let (About::Token(token), "suspected_fraud") = (it.about, reason)
                    && tables::row_of("block").from.contains(&self.tokens[token].state)
                {
                    self.block(token, "fraud_reported");
                }
                Some(Outcome::Denied)
            }
            Say::YesToWrongNumber => {
                self.end_operation(id, "failed");
                Some(Outcome::WrongNumber)
            }
            Say::Yes => match it.about {
                About::Person(person) => self.execute_on_person(id, &it, person),
                About::Token(token) => {
                    let changes = self.tokens[token].changes;
                    self.between(meanwhile);
                    if self.tokens[token].changes != changes {
                        self.end_operation(id, "failed");
                        return None;
                    }
                    self.tokens[token].pending = None;
                    self.operations[id].state = "executed";
                    self.execute(token, it.what, it.cause)
                }
            },
        }
    }

    /// A message counts if it is exactly what it has to be; a counter that was used before means
    /// that there are two of this phone.
    fn message_counts(&mut self, phone: usize, bend: Bend) -> Option<()> {
        if bend == Bend::UsedCounter {
            self.phones[phone].state = "suspended";
            self.cancel_what_waits_on(phone);
        }
        holds(bend == Bend::Honest)
    }

    fn between(&mut self, meanwhile: &[Step]) {
        for step in meanwhile {
            let outcome = self.step(step);
            self.between.push(outcome);
        }
    }

    fn execute(
        &mut self,
        token: usize,
        what: &'static str,
        cause: Option<&'static str>,
    ) -> Option<Outcome> {
        let it: &mut Token = &mut self.tokens[token];
        let live = it.live.map(|(generation, _)| generation);
        match what {
            "release" => {
                // An approved operation forgives what failed before it.
                (it.failures, it.waits_until) = (0, None);
                self.cancel_open(token);
                self.effects.extend(live.map(|number| (token, Effect::SeedDestroyed(number))));
                self.changed(token, what, "company", cause.map(str::to_owned))
            }
            "unblock" => {
                (it.failures, it.waits_until) = (0, None);
                let back = it.before?;
                self.effects.extend(live.map(|number| (token, Effect::SeedReopened(number))));
                self.changed(token, what, back, None)?;
                if back == "assigned" {
                    self.open_enrollment(token, None)?;
                }
                Some(Outcome::Done)
            }
            _ => {
                self.changed(token, "rotate", "active", cause.map(str::to_owned))?;
                self.open_enrollment(token, cause)
            }
        }
    }

    fn rotate(
        &mut self,
        on: PhoneRef,
        token: usize,
        cause: &'static str,
        stale: bool,
        bend: Bend,
        meanwhile: &[Step],
    ) -> Option<Outcome> {
        let phone = self.phone(on)?;
        self.tokens.get(token)?;
        self.phones[phone].sent += 1;
        holds(self.phones[phone].state == "bound")?;
        let owner = self.phones[phone].owner;
        let it = &self.tokens[token];
        let here = it.live.is_some_and(|(_, on)| on == Some(phone)) && it.holder == Some(owner);
        holds(here)?;
        let changes = it.changes;
        self.message_counts(phone, bend)?;
        self.between(meanwhile);
        holds(!stale && self.tokens[token].changes == changes)?;
        holds(self.tokens[token].pending.is_none())?;
        self.asked("rotate", By::Person(owner), token, Some(cause))?;
        self.phones[phone].counter = self.phones[phone].sent;
        self.execute(token, "rotate", Some(cause))
    }

    /// A person gets a code; the earlier one is dead.
    fn activate(&mut self, person: usize) -> Option<Outcome> {
        for earlier in &mut self.activations {
            if earlier.person == person && earlier.state == "live" {
                earlier.state = "dead";
            }
        }
        let expires = self.now + TEN_MINUTES;
        self.activations.push(Activation { person, state: "live", wrong: 0, expires });
        Some(Outcome::Done)
    }

    fn bind(&mut self, person: usize, typed: Typed, bend: Bend) -> Option<Outcome> {
        let back = if let Typed::Issued(back) = typed { back } else { 0 };
        let mine = self.activations.iter().enumerate().filter(|(_, it)| it.person == person);
        let mine: Vec<_> = mine.map(|(place, _)| place).collect();
        let code = *mine.iter().rev().nth(back)?;
        let now = self.now;
        let it = &mut self.activations[code];
        holds(it.state == "live" && now < it.expires)?;
        holds(!matches!(bend, Bend::OtherServer | Bend::OtherKind | Bend::FlippedBit))?;
        if typed == Typed::Guessed || matches!(bend, Bend::OtherKey | Bend::OtherNonce) {
            it.wrong += 1;
            if it.wrong == 5 {
                it.state = "dead";
            }
            return None;
        }
        let trusted = self.trusted(person);
        let another = self.people[person].0;
        holds(!another || !trusted.is_empty())?;
        self.activations[code].state = "used";
        self.people[person].0 = true;
        let phone = self.phones.len();
        let state = if another { "waiting" } else { "bound" };
        let mut new = Phone { owner: person, state, counter: 1, sent: 1, waits_for: None };
        if another {
            self.end_persons_operation(person);
            let about = About::Person(person);
            let id = self.send("bind_phone", None, about, Some(phone), person, false, trusted);
            self.people[person].1 = Some(id);
            new.waits_for = Some(id);
        }
        self.phones.push(new);
        Some(Outcome::Done)
    }

    fn end_persons_operation(&mut self, person: usize) {
        if let Some(earlier) = self.people[person].1 {
            self.end_operation(earlier, "cancelled");
        }
    }

    fn recover(&mut self, by: By, person: usize) -> Option<Outcome> {
        let By::Person(helper) = by else { return None };
        holds(helper != person && self.people[person].0)?;
        let may = match (PEOPLE[helper].1, PEOPLE[person].1) {
            (_, Role::Operator) | (Role::Secondary, _) => false,
            (Role::Administrator, _) => true,
            (Role::Operator, Role::Administrator) => {
                self.administrators_with_phone(Some(person)) == 0
            }
            (Role::Operator, Role::Secondary) => false,
        };
        holds(may)?;
        let asked = self.trusted(helper);
        holds(!asked.is_empty())?;
        self.end_persons_operation(person);
        let about = About::Person(person);
        let id = self.send("recover", None, about, None, helper, false, asked);
        self.people[person].1 = Some(id);
        Some(Outcome::Done)
    }

    fn execute_on_person(&mut self, id: usize, it: &Operation, person: usize) -> Option<Outcome> {
        self.end_operation(id, "executed");
        if let Some(phone) = it.new_phone {
            self.phones[phone].state = "bound";
            return Some(Outcome::Done);
        }
        for phone in 0..self.phones.len() {
            let mine = self.phones[phone].owner == person;
            if mine && ["bound", "suspended"].contains(&self.phones[phone].state) {
                self.revoke(phone, "device_lost_or_stolen");
            }
        }
        self.people[person].0 = false;
        Some(Outcome::Done)
    }

    /// A pending operation dies with a change of the phone that was asked.
    fn cancel_what_waits_on(&mut self, phone: usize) {
        for id in 0..self.operations.len() {
            if self.operations[id].asked.contains(&phone) {
                self.end_operation(id, "cancelled");
            }
        }
    }

    /// A phone is trusted no more. What it was asked ends, what was to be enrolled on it ends, and
    /// every token with a generation on it is blocked with the same cause.
    pub fn revoke(&mut self, phone: usize, cause: &str) {
        if self.phones[phone].state == "revoked" {
            return;
        }
        let waits_for = self.phones[phone].waits_for;
        self.phones[phone].state = "revoked";
        if let Some(id) = waits_for {
            self.end_operation(id, "cancelled");
        }
        self.cancel_what_waits_on(phone);
        for id in 0..self.enrollments.len() {
            let it = &self.enrollments[id];
            let open = ["open", "delivered", "shown"].contains(&it.state);
            if open && (it.delivered == Some(Some(phone)) || it.current == Some(phone)) {
                self.close_enrollment(id, "cancelled");
            }
        }
        for token in 0..self.tokens.len() {
            let it = &mut self.tokens[token];
            let Some((number, _)) = it.live.filter(|(_, on)| *on == Some(phone)) else { continue };
            if it.state == "active" {
                self.block(token, cause);
            } else {
                (it.live, it.before) = (None, Some("gone"));
                self.cancel_open(token);
                self.effects.push((token, Effect::SeedDestroyed(number)));
                self.changed(token, "block", "blocked", Some(cause.to_owned()));
            }
        }
    }
}
