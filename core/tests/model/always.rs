//! What must always be true, as it can be seen from outside: held against what the product shows
//! before and after every step, without a look at the reference. The numbers are those of the
//! domain's list; what happened earlier in the script is remembered here.

use std::collections::{BTreeMap, BTreeSet};

use crate::words::*;

pub struct Always {
    now: i64,
    /// The last accepted step of each token.
    accepted: BTreeMap<usize, u64>,
    /// Generations that are dead for good.
    dead: BTreeSet<(usize, u32)>,
}

const OPEN: [&str; 3] = ["open", "delivered", "shown"];
const NOBODYS: [&str; 3] = ["stock", "company", "retired"];

fn require(holds: bool, what: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what.to_owned()) }
}

impl Always {
    pub fn new(now: i64) -> Self {
        Self { now, accepted: BTreeMap::new(), dead: BTreeSet::new() }
    }

    /// Looks at one step. `Err` says which rule was broken.
    pub fn look(
        &mut self,
        before: &View,
        step: &Step,
        outcome: Outcome,
        after: &View,
    ) -> Result<(), String> {
        if let Step::Wait(ms) = step {
            self.now += i64::try_from(*ms).unwrap_or(i64::MAX);
        }
        self.codes(before, step, outcome)?;
        failures(before, step, outcome, after)?;
        approvals(self.now, before, step, outcome, after)?;
        self.generations(before, after)?;
        for (place, token) in after.tokens.iter().enumerate() {
            state_fits(token).map_err(|what| format!("token {place}: {what}"))?;
        }
        ends(before, after)?;
        together(after)
    }

    /// 1 and 2: a code is accepted once, and only of the one live generation.
    fn codes(&mut self, before: &View, step: &Step, outcome: Outcome) -> Result<(), String> {
        let Outcome::Accepted(number) = outcome else { return Ok(()) };
        let (Step::Check { token, code } | Step::Prove { token, code, .. }) = step else {
            return Ok(());
        };
        let rises = self.accepted.get(token).is_none_or(|last| number > *last);
        require(rises, "1: a step was accepted again, or one before an accepted one")?;
        self.accepted.insert(*token, number);
        let it = &before.tokens[*token];
        if let (Step::Check { .. }, Code::Of { back, .. }) = (step, code) {
            let generation = it.generations.checked_sub(*back);
            let live = it.live.map(|(generation, _)| generation);
            require(it.state == "active", "2: a code was accepted of a token that is not active")?;
            require(generation == live, "2: a code was accepted of a generation that is not live")?;
            require(
                generation.is_none_or(|it| !self.dead.contains(&(*token, it))),
                "4: a code was accepted of a generation that was dead",
            )?;
        }
        Ok(())
    }

    /// 4 and 5: the dead stay dead, and there is one live generation at most.
    fn generations(&mut self, before: &View, after: &View) -> Result<(), String> {
        for (place, token) in after.tokens.iter().enumerate() {
            let Some(was) = before.tokens.get(place) else { continue };
            require(token.generations >= was.generations, "5: a generation's number came again")?;
            if was.holder.is_some() && token.holder.is_none() {
                self.dead.extend((1..=token.generations).map(|number| (place, number)));
            }
            if let (Some((old, _)), true) =
                (was.live, was.live.map(|it| it.0) != token.live.map(|it| it.0))
            {
                self.dead.insert((place, old));
            }
            for (number, what) in
                [(token.seed, "its seed is here"), (token.live.map(|it| it.0), "live")]
            {
                let dead = number.is_some_and(|number| self.dead.contains(&(place, number)));
                require(!dead, &format!("4: a dead generation of token {place}: {what}"))?;
            }
        }
        Ok(())
    }
}

/// Security 14 and 15: every failure counts, and none is forgiven but by a right code or a phone.
fn failures(before: &View, step: &Step, outcome: Outcome, after: &View) -> Result<(), String> {
    for (place, (was, is)) in before.tokens.iter().zip(&after.tokens).enumerate() {
        let tried = match step {
            Step::Check { token, .. } | Step::Prove { token, .. } => *token == place,
            _ => false,
        };
        let (failed, fell) =
            (matches!(outcome, Outcome::Wrong | Outcome::Used), is.failures < was.failures);
        require(
            !(tried && failed) || is.failures == was.failures + 1,
            "14: a failure did not count",
        )?;
        let right = tried && matches!(outcome, Outcome::Accepted(_));
        let meanwhile = matches!(step, Step::Rotate { .. });
        let approved = matches!(step, Step::Answer { say: Say::Yes, .. }) || meanwhile;
        require(!fell || right || approved, "15: failures were forgiven by nobody")?;
    }
    Ok(())
}

/// 3: no release, unblocking or rotation without the answer of a bound phone that was asked, to the
/// number shown, for the token as it was shown; and who may give it.
fn approvals(
    now: i64,
    before: &View,
    step: &Step,
    outcome: Outcome,
    after: &View,
) -> Result<(), String> {
    for (place, token) in after.tokens.iter().enumerate() {
        let Some(was) = before.tokens.get(place) else { continue };
        let released = was.holder.is_some() && token.holder.is_none();
        let unblocked = was.state == "blocked" && ["assigned", "active"].contains(&token.state);
        let rotates = was.state == "active"
            && was.enrollment.is_none()
            && token.state == "active"
            && token.enrollment.is_some();
        if !(released || unblocked || rotates) {
            continue;
        }
        require(
            !unblocked || was.before != Some("gone"),
            "3: unblocked after its seed was destroyed",
        )?;
        let honest = match step {
            Step::Rotate { on, bend: Bend::Honest, stale: false, .. } => {
                rotates && find(before, *on).is_some_and(|it| before.phones[it].state == "bound")
            }
            Step::Answer { to, on, say: Say::Yes, bend: Bend::Honest, .. } => {
                answered(now, before, *to, *on, place)
            }
            _ => false,
        };
        require(
            honest && outcome == Outcome::Done,
            &format!(
                "3: token {place} was {} before, is {} now, and nobody approved it",
                was.state, token.state
            ),
        )?;
        if let Step::Answer { meanwhile, .. } | Step::Rotate { meanwhile, .. } = step {
            let changed = |(step, outcome): (&Step, &Outcome)| match step {
                Step::Block { token, .. }
                | Step::GiveUp { token }
                | Step::OpenAgain { token, .. } => *token == place && *outcome == Outcome::Done,
                _ => false,
            };
            let survived = meanwhile.iter().zip(&after.between).any(changed);
            require(!survived, "3: an approval survived a change of the token (security 56)")?;
        }
    }
    // A message that is wrong in any way, or comes late, changes nothing for the better.
    if let Step::Answer { to, on, bend, .. } = step
        && *bend != Bend::Honest
    {
        require(outcome == Outcome::Refused, "3: a bent answer counted")?;
        let phone = find(before, *on).zip(operation(before, *to));
        if let (Bend::UsedCounter, Some((phone, id))) = (bend, phone) {
            let (phone_was, asked) = (&before.phones[phone], &before.operations[id]);
            let reached = phone_was.state == "bound"
                && asked.asked.contains(&phone)
                && asked.state == "pending"
                && now < asked.expires
                && !(asked.four_eyes && phone_was.owner == asked.asker);
            let suspended = after.phones[phone].state == "suspended";
            require(!reached || suspended, "130: a cloned phone stays trusted")?;
        }
    }
    if let (Step::Answer { to, .. }, Outcome::WrongNumber) = (step, outcome) {
        let id = operation(before, *to).ok_or("an answer to nothing counted")?;
        require(
            after.operations[id].state != "pending",
            "3: a wrong number did not end the request",
        )?;
    }
    Ok(())
}

/// Whether this phone could approve this operation about this token.
fn answered(now: i64, view: &View, to: OperationRef, on: PhoneRef, token: usize) -> bool {
    let (Some(id), Some(phone)) = (operation(view, to), find(view, on)) else { return false };
    let (operation, phone_view) = (&view.operations[id], &view.phones[phone]);
    // A recovery that revokes a phone takes tokens as a block does, never to a release.
    operation.about == About::Token(token)
        && operation.state == "pending"
        && now < operation.expires
        && operation.asked.contains(&phone)
        && phone_view.state == "bound"
        && (!operation.four_eyes || phone_view.owner != operation.asker)
}

fn find(view: &View, phone: PhoneRef) -> Option<usize> {
    phone.find(view.phones.iter().map(|it| it.owner))
}

fn operation(view: &View, operation: OperationRef) -> Option<usize> {
    operation.find(view.operations.iter().map(|it| it.about))
}

/// What is true of a token in its state, of its seed, and of what is open.
fn state_fits(token: &TokenView) -> Result<(), String> {
    require(
        token.open == (token.state == "active"),
        "2: codes are accepted though it is not active, or not though it is",
    )?;
    require(
        token.seed == token.live.map(|it| it.0),
        "5: the seed that exists is not that of the live generation",
    )?;
    if NOBODYS.contains(&token.state) || token.state == "assigned" || token.before == Some("gone") {
        require(token.seed.is_none(), "4: a seed exists though none may")?;
    }
    require(
        token.holder.is_none() == NOBODYS.contains(&token.state),
        "a holder where none is, or none",
    )?;
    if NOBODYS.contains(&token.state) || token.state == "blocked" {
        require(
            token.enrollment.is_none(),
            "an enrollment is open though nothing is to be enrolled",
        )?;
    }
    if NOBODYS.contains(&token.state) {
        require(token.pending.is_none(), "an operation waits though nobody holds it")?;
    }
    require((token.state == "stock") <= (token.company == 0), "the stock is the bank's")
}

/// 84 and 68: what has an end keeps it.
fn ends(before: &View, after: &View) -> Result<(), String> {
    for (was, is) in before.tokens.iter().zip(&after.tokens) {
        require(was.state != "retired" || is == was, "84: a retired token changed")?;
        require(is.last_step >= was.last_step, "1: a consumed step was given back")?;
        let moved = was.company != is.company && ![was.state, is.state].contains(&"stock");
        require(!moved, "8: a token went from one company to another")?;
    }
    for (was, is) in before.phones.iter().zip(&after.phones) {
        require(
            was.state != "revoked" || is.state == "revoked",
            "a revoked phone is trusted again",
        )?;
        require(
            was.state != "suspended" || ["suspended", "revoked"].contains(&is.state),
            "a suspended phone is trusted again",
        )?;
        require(is.counter >= was.counter, "130: a phone's counter fell")?;
        require(is.owner == was.owner, "a phone changed its owner")?;
    }
    for (was, is) in before.operations.iter().zip(&after.operations) {
        require(
            was.state == "pending" || is.state == was.state,
            "68: an operation that had an end has another",
        )?;
    }
    for (was, is) in before.enrollments.iter().zip(&after.enrollments) {
        require(OPEN.contains(&was.0) || is == was, "an enrollment that had an end has another")?;
    }
    for (was, is) in before.codes.iter().zip(&after.codes) {
        require(was.0 == "live" || is.0 == was.0, "44: an activation code works again")?;
        require(
            is.1 <= 5 && (is.1 < 5 || is.0 == "dead"),
            "45: an activation code outlived five wrong tries",
        )?;
    }
    Ok(())
}

/// What things say of each other.
fn together(view: &View) -> Result<(), String> {
    for (place, token) in view.tokens.iter().enumerate() {
        let twice =
            |other: &TokenView| other.holder == token.holder && other.company == token.company;
        let holds = view.tokens.iter().skip(place + 1).any(twice);
        require(token.holder.is_none() || !holds, "a person holds two tokens of one company")?;
        let gone = token
            .live
            .and_then(|(_, phone)| phone)
            .filter(|it| view.phones[*it].state == "revoked");
        require(gone.is_none(), "a seed is kept for a phone that was revoked")?;
    }
    let lost = view.effects.iter().any(|(_, effect)| match effect {
        Effect::PhoneRevoked(phone) => view.phones[*phone].state != "revoked",
        _ => false,
    });
    require(!lost, "a lost phone is still trusted")?;
    for (id, (state, _)) in view.enrollments.iter().enumerate() {
        let known = view.tokens.iter().any(|token| token.enrollment == Some(id));
        require(
            known == OPEN.contains(state),
            "an enrollment is open that no token knows, or ended that one does",
        )?;
    }
    for (id, operation) in view.operations.iter().enumerate() {
        let known = match operation.about {
            About::Token(token) => view.tokens[token].pending == Some(id),
            About::Person(person) => view.people[person].1 == Some(id),
        };
        let bound = operation.asked.iter().all(|phone| view.phones[*phone].state == "bound");
        require(
            bound || operation.state != "pending",
            "an operation waits for a phone that is gone",
        )?;
        require(
            known == (operation.state == "pending"),
            "an operation waits that nobody knows, or ended that somebody waits for",
        )?;
    }
    Ok(())
}
