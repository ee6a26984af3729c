//! What the scripts reached: every row of both tables from every state, for every cause and by
//! everybody who may; every refusal; every way a code can go. A model test that never gets
//! somewhere shows nothing about it.

use std::collections::BTreeMap;

use crate::tables::{PHONES, Row, STATES, TOKENS};
use crate::words::*;

#[derive(Default)]
pub struct Coverage {
    pub steps: usize,
    reached: BTreeMap<String, usize>,
}

impl Coverage {
    fn reach(&mut self, what: String) {
        *self.reached.entry(what).or_default() += 1;
    }

    pub fn count(
        &mut self,
        before: &View,
        step: &Step,
        outcome: Outcome,
        after: &View,
        refusals: &[String],
    ) {
        self.steps += 1;
        for why in refusals {
            self.reach(format!("refused: {why}"));
        }
        for (place, token) in after.tokens.iter().enumerate() {
            let was = before.tokens.get(place);
            let from = was.map_or("-", |was| was.state);
            let same = was.is_some_and(|was| {
                (&was.last, was.changed_at, was.state)
                    == (&token.last, token.changed_at, token.state)
            });
            if !same {
                let (operation, cause) = &token.last;
                let cause = cause.as_deref().unwrap_or("-");
                self.reach(format!("{operation} from {from}: {cause}"));
                if let (Step::Answer { .. } | Step::Rotate { .. }, Outcome::Done) = (step, outcome)
                {
                    let asker = asker(before, step);
                    self.reach(format!("{operation} for {asker}: {cause}"));
                }
            }
        }
        if let Some((operation, token)) = asked(step)
            && let (Outcome::Refused | Outcome::Closed, Some(it)) =
                (outcome, before.tokens.get(token))
        {
            self.reach(format!("{operation} refused in {}", it.state));
        }
        match step {
            Step::Check { .. } | Step::Prove { .. } => {
                let how = format!("{outcome:?}");
                let how = how.split('(').next().unwrap_or_default();
                let what = if matches!(step, Step::Check { .. }) { "check" } else { "proof" };
                self.reach(format!("{what}: {how}"));
            }
            Step::Answer { bend, say, .. } if *bend == Bend::Honest => {
                self.reach(format!("answer {say:?}: {outcome:?}"));
            }
            Step::Answer { bend, .. } => self.reach(format!("answer {bend:?}: {outcome:?}")),
            Step::Rotate { bend, stale, meanwhile, .. } => {
                let meanwhile = !meanwhile.is_empty();
                self.reach(format!(
                    "rotate {bend:?} stale {stale} meanwhile {meanwhile}: {outcome:?}"
                ));
            }
            Step::Bind { bend, typed, person } => {
                self.reach(format!("bind {typed:?} {bend:?}: {outcome:?}"));
                if outcome == Outcome::Done {
                    let another = before.people[*person].0;
                    self.reach(format!(
                        "{}: asked",
                        if another { "bind_another" } else { "bind_first" }
                    ));
                }
            }
            Step::Revoke { by, cause, phone } if outcome == Outcome::Done => {
                let own = *by == By::Person(phone.person);
                self.reach(format!(
                    "revoke by {}: {cause}",
                    if own { "holder" } else { "administrator" }
                ));
            }
            _ => {}
        }
        for (was, is) in before.operations.iter().zip(&after.operations) {
            if was.state != is.state {
                self.reach(format!("{} {}", is.what, is.state));
            }
        }
    }

    pub fn times(&self, what: &str) -> usize {
        self.reached.get(what).copied().unwrap_or(0)
    }

    /// Everything that was to be reached, and was not as often.
    pub fn missing(&self) -> Vec<String> {
        let wanted = wanted();
        let short = wanted.into_iter().filter(|(what, times)| self.times(what) < *times);
        short.map(|(what, times)| format!("{what}: {} of {times}", self.times(&what))).collect()
    }

    /// All of it, to be read.
    pub fn told(&self) -> String {
        let lines = self.reached.iter().map(|(what, times)| format!("{times:7} {what}\n"));
        lines.collect()
    }
}

/// In whose name a phone agreed.
fn asker(before: &View, step: &Step) -> &'static str {
    match step {
        Step::Answer { to, .. } => {
            let id = to.find(before.operations.iter().map(|it| it.about));
            let asker = id.map(|id| before.operations[id].asker);
            match asker.map(|asker| PEOPLE[asker].1) {
                Some(Role::Administrator) => "administrator",
                Some(Role::Operator) => "operator",
                _ => "holder",
            }
        }
        _ => "holder on the phone",
    }
}

fn asked(step: &Step) -> Option<(&'static str, usize)> {
    Some(match step {
        Step::Allot { token, .. } => ("allot", *token),
        Step::Withdraw { token, .. } => ("withdraw", *token),
        Step::Retire { token, .. } => ("retire", *token),
        Step::Assign { token, .. } => ("assign", *token),
        Step::Prove { token, .. } => ("enroll", *token),
        Step::Block { token, .. } => ("block", *token),
        Step::Ask { token, what, .. } => (what, *token),
        _ => return None,
    })
}

/// How often each thing has to be reached.
const OFTEN: usize = 5;
const ONCE: usize = 1;

fn wanted() -> Vec<(String, usize)> {
    let mut wanted = Vec::new();
    for Row { operation, asks, from, .. } in &TOKENS {
        for state in if from.is_empty() { &["-"][..] } else { *from } {
            for (who, causes) in *asks {
                for cause in if causes.is_empty() { &["-"][..] } else { *causes } {
                    wanted.push((format!("{operation} from {state}: {cause}"), OFTEN));
                    if *operation == "rotate" || *operation == "release" {
                        wanted.push((format!("{operation} for {who}: {cause}"), OFTEN));
                    }
                }
            }
        }
        for (state, _) in STATES.iter().filter(|(state, _)| !from.contains(state)) {
            if *operation != "issue" {
                wanted.push((format!("{operation} refused in {state}"), OFTEN));
            }
        }
    }
    for cause in crate::tables::ROTATE {
        wanted.push((format!("rotate for holder on the phone: {cause}"), OFTEN));
    }
    // The end of a rotation.
    wanted.push(("rotate from active: -".to_owned(), OFTEN));
    for (action, who, ..) in PHONES {
        match action {
            "bind_first" => wanted.push(("bind_first: asked".to_owned(), OFTEN)),
            "bind_another" => wanted.push(("bind_phone executed".to_owned(), OFTEN)),
            "revoke" => {
                for (who, cause) in
                    who.iter().flat_map(|who| crate::tables::PHONE_IS_GONE.map(|it| (who, it)))
                {
                    wanted.push((format!("revoke by {who}: {cause}"), OFTEN));
                }
            }
            _ => wanted.push(("recover executed".to_owned(), OFTEN)),
        }
    }
    for what in ["release", "unblock", "rotate", "bind_phone", "recover"] {
        for end in ["executed", "denied", "expired", "cancelled", "failed"] {
            wanted.push((format!("{what} {end}"), ONCE));
        }
    }
    let ways =
        ["Accepted", "Used", "Wrong", "Waiting", "Closed"].map(|how| format!("check: {how}"));
    wanted.extend(ways.map(|what| (what, OFTEN)));
    let ways = ["Accepted", "Wrong", "Waiting", "Refused"].map(|how| format!("proof: {how}"));
    wanted.extend(ways.map(|what| (what, OFTEN)));
    wanted.extend(REFUSALS.map(|why| (format!("refused: {why}"), ONCE)));
    wanted
}

/// Every reason the product has.
const REFUSALS: [&str; 29] = [
    "a code of another length",
    "State",
    "SeedGone",
    "Pending",
    "ProofMismatch",
    "NoSeedHere",
    "Decided",
    "Expired",
    "NotAsked",
    "Own",
    "OtherRequest",
    "Message(WrongKey)",
    "Message(BadSignature)",
    "Message(WrongAudience)",
    "Message(WrongType)",
    "CounterNotRising",
    "not this party",
    "not this party, on a phone",
    "not a cause of this",
    "a cause of somebody else",
    "holds one already",
    "the phone is waiting",
    "the phone is suspended",
    "the phone is revoked",
    "activation code is dead",
    "the code does not vouch for it",
    "nobody could satisfy this policy",
    "no phone could agree",
    "nobody recovers alone",
];
