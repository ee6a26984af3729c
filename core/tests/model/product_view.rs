//! Everything that can be seen of the product's side, in the words that both sides share.

use semilla_core::approval::Operation;
use semilla_core::enrollment::ActivationState;
use semilla_core::id::{DeviceId, UserId};
use semilla_core::operations::Party;
use semilla_core::person::Binding;
use semilla_core::time::Timestamp;
use semilla_core::token::{Before, TokenState};

use crate::product::{Product, Stored};
use crate::product_people::Issued;
use crate::product_phones::Phone;
use crate::words::*;

impl Product {
    pub fn view(&self) -> View {
        let mut effects = self.effects.clone();
        effects.sort_unstable();
        View {
            tokens: self.tokens.iter().map(|it| self.token_view(it)).collect(),
            phones: self.phones.iter().map(|it| self.phone_view(it)).collect(),
            operations: self.operations.iter().map(|it| self.operation_view(it)).collect(),
            enrollments: self
                .enrollments
                .iter()
                .map(|it| (it.state.name(), it.generation))
                .collect(),
            people: self
                .people
                .iter()
                .map(|(binding, pending)| {
                    (*binding == Binding::Another, pending.map(|id| self.operation_of(id)))
                })
                .collect(),
            codes: self.activations.iter().map(code_view).collect(),
            effects,
            between: self.between.clone(),
        }
    }

    fn token_view(&self, stored: &Stored) -> TokenView {
        let Stored { token, open, seed, counters, .. } = stored;
        let phone = |device: DeviceId| self.phone_of(device);
        let company = self.companies.iter().position(|it| *it == token.company);
        TokenView {
            company: company.expect("a company of this script"),
            state: token.state().name(),
            holder: token.holder().map(|holder: UserId| self.person(holder)),
            before: match token.state {
                TokenState::Blocked { before: Before::Assigned, .. } => Some("assigned"),
                TokenState::Blocked { before: Before::Active(_), .. } => Some("active"),
                TokenState::Blocked { before: Before::Destroyed, .. } => Some("gone"),
                _ => None,
            },
            live: token.live().map(|live| (live.generation, live.custody.device().map(phone))),
            generations: token.generation,
            enrollment: token.enrollment.map(|id| self.enrollment(id)),
            pending: token.pending.map(|id| self.operation_of(id)),
            last: (token.last.action.name(), token.last.cause.clone()),
            changed_at: token.last.at.milliseconds(),
            whose_move: token.state().whose_move().map(Party::name),
            open: *open,
            seed: seed.as_ref().map(|(generation, ..)| *generation),
            last_step: counters.last_step.map(|step| step.0),
            failures: counters.failures,
            waits_until: counters.waits_until.map(Timestamp::milliseconds),
        }
    }

    fn phone_view(&self, phone: &Phone) -> PhoneView {
        let device = &phone.device;
        PhoneView {
            owner: self.person(device.user),
            state: device.state.name(),
            counter: device.counter,
        }
    }

    fn operation_view(&self, operation: &Operation) -> OperationView {
        OperationView {
            what: operation.action.name(),
            about: self.about(operation),
            asker: self.person(operation.asker),
            four_eyes: operation.four_eyes,
            asked: operation.requests.iter().map(|sent| self.phone_of(sent.device)).collect(),
            expires: operation.expires.milliseconds(),
            state: operation.state.name(),
        }
    }
}

fn code_view(issued: &Issued) -> (&'static str, u32) {
    let state = match issued.kept.state {
        ActivationState::Live | ActivationState::Started { .. } => "live",
        ActivationState::Used => "used",
        ActivationState::Dead => "dead",
    };
    (state, issued.kept.wrong)
}
