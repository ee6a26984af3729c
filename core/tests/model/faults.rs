//! Rules of the product, broken on purpose: each is one small change of what the product's own
//! types did, made on the product's side alone. The tests show that every one of them is found.

use semilla_core::operations::Action;
use semilla_core::token::{Before, Changed, Effect, Token, TokenState};

/// A rule that is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    BlockLeavesTheEnrollmentOpen,
    BlockLeavesTheCodesAccepted,
    ReleaseLeavesTheSeed,
    ApprovalSurvivesAChangeOfTheToken,
    UsedStepIsAcceptedAgain,
    FailuresAreNotCounted,
    WrongNumberDoesNotEndTheRequest,
    LateAnswerCounts,
    AskerMayApproveWithFourEyes,
    CounterMayRepeat,
    OldSeedOutlivesTheRotation,
    LostPhoneKeepsItsOtherTokens,
    DestroyedSeedIsUnblocked,
    RetiredTokenIsAllottedAgain,
}

/// All of them.
pub const FAULTS: [Fault; 14] = [
    Fault::BlockLeavesTheEnrollmentOpen,
    Fault::BlockLeavesTheCodesAccepted,
    Fault::ReleaseLeavesTheSeed,
    Fault::ApprovalSurvivesAChangeOfTheToken,
    Fault::UsedStepIsAcceptedAgain,
    Fault::FailuresAreNotCounted,
    Fault::WrongNumberDoesNotEndTheRequest,
    Fault::LateAnswerCounts,
    Fault::AskerMayApproveWithFourEyes,
    Fault::CounterMayRepeat,
    Fault::OldSeedOutlivesTheRotation,
    Fault::LostPhoneKeepsItsOtherTokens,
    Fault::DestroyedSeedIsUnblocked,
    Fault::RetiredTokenIsAllottedAgain,
];

/// What a token's change becomes under the fault.
pub fn bend(fault: Option<Fault>, before: &Token, mut changed: Changed) -> Changed {
    match (fault, changed.operation) {
        (Some(Fault::BlockLeavesTheEnrollmentOpen), Some(Action::Block)) => {
            changed.token.enrollment = before.enrollment;
            changed.effects.retain(|effect| !matches!(effect, Effect::EnrollmentCancelled(_)));
        }
        (Some(Fault::BlockLeavesTheCodesAccepted), Some(Action::Block)) => {
            changed.effects.retain(|effect| !matches!(effect, Effect::SeedClosed(_)));
        }
        (Some(Fault::ReleaseLeavesTheSeed), Some(Action::Release)) => {
            changed.effects.retain(|effect| !matches!(effect, Effect::SeedDestroyed(_)));
        }
        _ => {}
    }
    changed
}

/// What a token is taken for under the fault, before something is asked of it.
pub fn mistake(fault: Option<Fault>, mut token: Token) -> Token {
    match (fault, token.state) {
        (
            Some(Fault::DestroyedSeedIsUnblocked),
            TokenState::Blocked { holder, before: Before::Destroyed, cause },
        ) => token.state = TokenState::Blocked { holder, before: Before::Assigned, cause },
        (Some(Fault::RetiredTokenIsAllottedAgain), TokenState::Retired) => {
            token.state = TokenState::Stock;
        }
        _ => {}
    }
    token
}
