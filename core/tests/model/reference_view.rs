//! Everything that can be seen of the reference, in the words that both sides share.

use crate::reference::{Operation, Phone, Reference, Token};
use crate::tables;
use crate::words::*;

impl Phone {
    pub fn view(&self) -> PhoneView {
        PhoneView { owner: self.owner, state: self.state, counter: self.counter }
    }
}

impl Operation {
    pub fn view(&self) -> OperationView {
        OperationView {
            what: self.what,
            about: self.about,
            asker: self.asker,
            four_eyes: self.four_eyes,
            asked: self.asked.clone(),
            expires: self.expires,
            state: self.state,
        }
    }
}

impl Reference {
    /// Everything that can be seen.
    pub fn view(&self) -> View {
        let token = |it: &Token| TokenView {
            company: it.company,
            state: it.state,
            holder: it.holder,
            before: it.before,
            live: it.live,
            generations: it.generations,
            enrollment: it.enrollment,
            pending: it.pending,
            last: it.last.clone(),
            changed_at: it.changed_at,
            whose_move: tables::STATES
                .iter()
                .find(|(name, _)| *name == it.state)
                .and_then(|it| it.1),
            open: it.state == "active",
            seed: it.live.map(|(generation, _)| generation),
            last_step: it.last_step,
            failures: it.failures,
            waits_until: it.waits_until,
        };
        let mut effects = self.effects.clone();
        effects.sort_unstable();
        View {
            tokens: self.tokens.iter().map(token).collect(),
            phones: self.phones.iter().map(Phone::view).collect(),
            operations: self.operations.iter().map(Operation::view).collect(),
            enrollments: self.enrollments.iter().map(|it| (it.state, it.generation)).collect(),
            people: self.people.clone(),
            codes: self.activations.iter().map(|it| (it.state, it.wrong)).collect(),
            effects,
            between: self.between.clone(),
        }
    }
}
