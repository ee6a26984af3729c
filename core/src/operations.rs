//! The two tables of operations, as data in one place: what may be done to a token and to a
//! phone, by whom, from which state, for which cause, and whose phone has to agree. The rules in
//! [`crate::token`], the server's checks, the choices a person is shown, the documentation and
//! the tests all read these tables; what is not in them is refused.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::language::{Label, Language};

/// The name of a token's state.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// In the bank's stock; companies do not see it.
    Stock,
    /// In a company's pool: nobody holds it, no seed exists.
    Company,
    /// Given to a user, who must still enroll it; no seed is live.
    Assigned,
    /// One generation is live on a proven phone; codes are accepted.
    Active,
    /// Codes are refused.
    Blocked,
    /// Ended for good.
    Retired,
}

impl State {
    /// All of them, in the order of a token's life.
    pub const ALL: [Self; 6] =
        [Self::Stock, Self::Company, Self::Assigned, Self::Active, Self::Blocked, Self::Retired];

    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stock => "stock",
            Self::Company => "company",
            Self::Assigned => "assigned",
            Self::Active => "active",
            Self::Blocked => "blocked",
            Self::Retired => "retired",
        }
    }

    /// Its name on screen.
    pub fn label(self, language: Language) -> &'static str {
        match self {
            Self::Stock => Label("En inventario", "In stock"),
            Self::Company => Label("Asignado Empresa", "Assigned to company"),
            Self::Assigned => Label("Asignado Usuario", "Assigned to user"),
            Self::Active => Label("Activo", "Active"),
            Self::Blocked => Label("Bloqueado", "Blocked"),
            Self::Retired => Label("Retirado", "Retired"),
        }
        .text(language)
    }

    /// Whose move it is.
    pub fn whose_move(self) -> Option<Party> {
        match self {
            Self::Stock => Some(Party::Operator),
            Self::Company | Self::Blocked => Some(Party::Administrator),
            Self::Assigned => Some(Party::Holder),
            Self::Active | Self::Retired => None,
        }
    }
}

/// Who may ask for something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Party {
    /// The bank's operator.
    Operator,
    /// An administrator of the company.
    Administrator,
    /// The person who holds the token, or whose phone it is.
    Holder,
    /// The product itself, by a rule.
    System,
}

impl Party {
    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Administrator => "administrator",
            Self::Holder => "holder",
            Self::System => "system",
        }
    }
}

/// What may be done to a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// A new token enters the bank's stock.
    Issue,
    /// From the stock to a company.
    Allot,
    /// From a company back to the stock.
    Withdraw,
    /// From the company's pool to a user.
    Assign,
    /// A generation is proven on a phone and goes live.
    Enroll,
    /// A new generation takes the place of the live one.
    Rotate,
    /// Codes are refused from now on.
    Block,
    /// Back to what it was before the block.
    Unblock,
    /// The seed dies; the token returns to the company's pool.
    Release,
    /// The end.
    Retire,
}

/// Where an operation leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// To this state.
    To(State),
    /// To the state a block was put on.
    BeforeBlock,
}

/// Whose phone has to agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phone {
    /// Nobody's. For a block on purpose: a stolen phone must not be needed to stop it.
    None,
    /// The administrator's whom the company's policy names: the asking one, or another.
    Administrator,
    /// The holder's, on which the live generation is.
    Holder,
    /// The holder's, which receives the seed and proves it by a code.
    Receiver,
}

/// What becomes of the seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeedEffect {
    /// There is none.
    None,
    /// An enrollment opens; no seed yet.
    EnrollmentOpens,
    /// Made for one phone alone, live once proven by a code.
    LiveOnceProven,
    /// The old one lives until the new one is proven, and dies in the same transaction.
    ReplacedOnceProven,
    /// Kept, but for causes that destroy it ([`BlockCause::destroys_seed`]).
    KeptUnlessCauseDestroys,
    /// The same generation is accepted again.
    AcceptedAgain,
    /// Destroyed.
    Destroyed,
}

/// One row of the table: an operation on a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// What is done.
    pub action: Action,
    /// Who may ask for it.
    pub parties: &'static [Party],
    /// From which states; none where there is no token yet.
    pub from: &'static [State],
    /// Where it leads.
    pub target: Target,
    /// For which causes; none where it needs no cause.
    pub causes: &'static [Cause],
    /// Whose phone has to agree.
    pub phone: Phone,
    /// What becomes of the seed.
    pub seed: SeedEffect,
}

const RELEASE_CAUSES: &[Cause] = &[
    Cause::Release(ReleaseCause::AssignmentError),
    Cause::Release(ReleaseCause::UserLeftCompany),
    Cause::Release(ReleaseCause::CustomerRequest),
    Cause::Release(ReleaseCause::SeedRelease),
];

const BLOCK_CAUSES: &[Cause] = &[
    Cause::Block(BlockCause::UserInactive),
    Cause::Block(BlockCause::CustomerRequest),
    Cause::Block(BlockCause::DeviceLostOrStolen),
    Cause::Block(BlockCause::DeviceChange),
    Cause::Block(BlockCause::TechnicalFailure),
    Cause::Block(BlockCause::TooManyFailures),
    Cause::Block(BlockCause::FraudReported),
];

const ROTATE_CAUSES: &[Cause] = &[
    Cause::Rotate(RotateCause::Scheduled),
    Cause::Rotate(RotateCause::NewPhone),
    Cause::Rotate(RotateCause::Suspicion),
];

/// What may be done to a token. Everything else is refused.
pub const TABLE: [Operation; 10] = [
    Operation {
        action: Action::Issue,
        parties: &[Party::Operator],
        from: &[],
        target: Target::To(State::Stock),
        causes: &[],
        phone: Phone::None,
        seed: SeedEffect::None,
    },
    Operation {
        action: Action::Allot,
        parties: &[Party::Operator],
        from: &[State::Stock],
        target: Target::To(State::Company),
        causes: &[],
        phone: Phone::None,
        seed: SeedEffect::None,
    },
    Operation {
        action: Action::Withdraw,
        parties: &[Party::Operator],
        from: &[State::Company],
        target: Target::To(State::Stock),
        causes: &[],
        phone: Phone::None,
        seed: SeedEffect::None,
    },
    Operation {
        action: Action::Assign,
        parties: &[Party::Administrator],
        from: &[State::Company],
        target: Target::To(State::Assigned),
        causes: &[],
        phone: Phone::None,
        seed: SeedEffect::EnrollmentOpens,
    },
    Operation {
        action: Action::Enroll,
        parties: &[Party::Holder],
        from: &[State::Assigned],
        target: Target::To(State::Active),
        causes: &[],
        phone: Phone::Receiver,
        seed: SeedEffect::LiveOnceProven,
    },
    Operation {
        action: Action::Rotate,
        parties: &[Party::Holder, Party::Administrator],
        from: &[State::Active],
        target: Target::To(State::Active),
        causes: ROTATE_CAUSES,
        phone: Phone::Holder,
        seed: SeedEffect::ReplacedOnceProven,
    },
    Operation {
        action: Action::Block,
        parties: &[Party::Administrator, Party::System],
        from: &[State::Active, State::Assigned],
        target: Target::To(State::Blocked),
        causes: BLOCK_CAUSES,
        phone: Phone::None,
        seed: SeedEffect::KeptUnlessCauseDestroys,
    },
    Operation {
        action: Action::Unblock,
        parties: &[Party::Administrator],
        from: &[State::Blocked],
        target: Target::BeforeBlock,
        causes: &[],
        phone: Phone::Administrator,
        seed: SeedEffect::AcceptedAgain,
    },
    Operation {
        action: Action::Release,
        parties: &[Party::Administrator],
        from: &[State::Active, State::Assigned, State::Blocked],
        target: Target::To(State::Company),
        causes: RELEASE_CAUSES,
        phone: Phone::Administrator,
        seed: SeedEffect::Destroyed,
    },
    Operation {
        action: Action::Retire,
        parties: &[Party::Operator],
        from: &[State::Stock, State::Company],
        target: Target::To(State::Retired),
        causes: &[],
        phone: Phone::None,
        seed: SeedEffect::None,
    },
];

impl Action {
    /// Its row.
    pub fn operation(self) -> &'static Operation {
        // One row for each action, in the order of the enum: a test holds them together.
        &TABLE[self as usize]
    }

    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Issue => "issue",
            Self::Allot => "allot",
            Self::Withdraw => "withdraw",
            Self::Assign => "assign",
            Self::Enroll => "enroll",
            Self::Rotate => "rotate",
            Self::Block => "block",
            Self::Unblock => "unblock",
            Self::Release => "release",
            Self::Retire => "retire",
        }
    }

    /// Its name on screen.
    pub fn label(self, language: Language) -> &'static str {
        match self {
            Self::Issue => Label("Emitir", "Issue"),
            Self::Allot => Label("Entregar a empresa", "Allot"),
            Self::Withdraw => Label("Retirar de empresa", "Withdraw"),
            Self::Assign => Label("Asignar", "Assign"),
            Self::Enroll => Label("Inscribir", "Enroll"),
            Self::Rotate => Label("Renovar semilla", "Rotate seed"),
            Self::Block => Label("Bloquear", "Block"),
            Self::Unblock => Label("Desbloquear", "Unblock"),
            Self::Release => Label("Liberar", "Release"),
            Self::Retire => Label("Dar de baja", "Retire"),
        }
        .text(language)
    }
}

/// What may be asked of a token in `state`, and by `party` where one is given.
pub fn allowed(state: State, party: Option<Party>) -> impl Iterator<Item = Action> {
    TABLE
        .iter()
        .filter(move |row| row.from.contains(&state))
        .filter(move |row| party.is_none_or(|party| row.parties.contains(&party)))
        .map(|row| row.action)
}

/// Why something is done to a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// *Causal de Liberación.*
    Release(ReleaseCause),
    /// *Causal de Bloqueo.*
    Block(BlockCause),
    /// Why a seed is renewed.
    Rotate(RotateCause),
}

/// *Causal de Liberación.*
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReleaseCause {
    /// The token was given to the wrong person.
    AssignmentError,
    /// The person left.
    UserLeftCompany,
    /// The customer asked.
    CustomerRequest,
    /// The seed is to be given up.
    SeedRelease,
}

/// *Causal de Bloqueo.*
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BlockCause {
    /// The person is away.
    UserInactive,
    /// The customer asked.
    CustomerRequest,
    /// The phone is in unknown hands. Destroys the seed.
    DeviceLostOrStolen,
    /// The phone is given away. Destroys the seed.
    DeviceChange,
    /// Something does not work.
    TechnicalFailure,
    /// By the product itself: too many wrong codes.
    TooManyFailures,
    /// By the product itself: the person said of a request that it was not theirs.
    FraudReported,
}

/// Why a seed is renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RotateCause {
    /// By the calendar.
    Scheduled,
    /// The token moves to another phone of the holder.
    NewPhone,
    /// Somebody else might know the seed.
    Suspicion,
}

impl BlockCause {
    /// Whether this cause means that the phone is gone: the generation is destroyed, the phone it
    /// lives on is revoked, and only a release leads on.
    pub fn destroys_seed(self) -> bool {
        matches!(self, Self::DeviceLostOrStolen | Self::DeviceChange)
    }
}

impl Cause {
    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Release(ReleaseCause::AssignmentError) => "assignment_error",
            Self::Release(ReleaseCause::UserLeftCompany) => "user_left_company",
            Self::Release(ReleaseCause::CustomerRequest)
            | Self::Block(BlockCause::CustomerRequest) => "customer_request",
            Self::Release(ReleaseCause::SeedRelease) => "seed_release",
            Self::Block(BlockCause::UserInactive) => "user_inactive",
            Self::Block(BlockCause::DeviceLostOrStolen) => "device_lost_or_stolen",
            Self::Block(BlockCause::DeviceChange) => "device_change",
            Self::Block(BlockCause::TechnicalFailure) => "technical_failure",
            Self::Block(BlockCause::TooManyFailures) => "too_many_failures",
            Self::Block(BlockCause::FraudReported) => "fraud_reported",
            Self::Rotate(RotateCause::Scheduled) => "scheduled",
            Self::Rotate(RotateCause::NewPhone) => "new_phone",
            Self::Rotate(RotateCause::Suspicion) => "suspicion",
        }
    }

    /// Its name on screen, as on the bank's own sheet.
    pub fn label(self, language: Language) -> &'static str {
        match self {
            Self::Release(ReleaseCause::AssignmentError) => {
                Label("Error en la Asignación", "Assigned by mistake")
            }
            Self::Release(ReleaseCause::UserLeftCompany) => {
                Label("Usuario no labora ya en la compañía", "User no longer works here")
            }
            Self::Release(ReleaseCause::CustomerRequest) => {
                Label("Solicitud de Cliente", "Customer request")
            }
            Self::Release(ReleaseCause::SeedRelease) => {
                Label("Liberación de semilla", "Seed release")
            }
            Self::Block(BlockCause::UserInactive) => Label("Usuario inactivo", "User inactive"),
            Self::Block(BlockCause::CustomerRequest) => {
                Label("Bloqueo por solicitud del cliente", "Customer request")
            }
            Self::Block(BlockCause::DeviceLostOrStolen) => {
                Label("Pérdida o robo del dispositivo", "Device lost or stolen")
            }
            Self::Block(BlockCause::DeviceChange) => {
                Label("Cambio del dispositivo", "Change of device")
            }
            Self::Block(BlockCause::TechnicalFailure) => {
                Label("Fallas técnicas", "Technical failure")
            }
            Self::Block(BlockCause::TooManyFailures) => {
                Label("Demasiados intentos", "Too many attempts")
            }
            Self::Block(BlockCause::FraudReported) => Label("Fraude reportado", "Fraud reported"),
            Self::Rotate(RotateCause::Scheduled) => {
                Label("Renovación programada", "Scheduled renewal")
            }
            Self::Rotate(RotateCause::NewPhone) => Label("Teléfono nuevo", "New phone"),
            Self::Rotate(RotateCause::Suspicion) => Label("Sospecha", "Suspicion"),
        }
        .text(language)
    }

    /// Whether only the product itself gives this cause.
    pub fn is_of_system(self) -> bool {
        matches!(self, Self::Block(BlockCause::TooManyFailures | BlockCause::FraudReported))
    }
}

/// What may be done to a phone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceAction {
    /// A person's first phone.
    BindFirst,
    /// One more phone of the same person.
    BindAnother,
    /// A phone is trusted no more.
    Revoke,
    /// A person without a phone binds anew.
    Recover,
}

impl DeviceAction {
    /// Its name on screen.
    pub fn label(self, language: Language) -> &'static str {
        match self {
            Self::BindFirst => Label("Vincular el primer teléfono", "Bind the first phone"),
            Self::BindAnother => Label("Vincular otro teléfono", "Bind another phone"),
            Self::Revoke => Label("Revocar un teléfono", "Revoke a phone"),
            Self::Recover => Label("Recuperar acceso sin teléfono", "Recover without a phone"),
        }
        .text(language)
    }
}

/// What proves that a phone may be bound or revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceProof {
    /// The activation code, and possession of the new key.
    CodeAndKey,
    /// Those, and the approval of a phone already bound.
    CodeKeyAndBoundPhone,
    /// The approval of the phone of the person who helps; then code and key.
    OtherPersonsPhone,
    /// None: a phone that is gone must not be needed.
    None,
}

/// One row of the second table: an operation on a phone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceOperation {
    /// What is done.
    pub action: DeviceAction,
    /// Who may ask for it. For a recovery: an administrator for a user, another administrator for
    /// an administrator, an operator where there is none.
    pub parties: &'static [Party],
    /// What proves it.
    pub proof: DeviceProof,
    /// Whether the phone's tokens are blocked by it, as lost.
    pub blocks_tokens: bool,
}

/// What may be done to a phone. Everything else is refused.
pub const DEVICE_TABLE: [DeviceOperation; 4] = [
    DeviceOperation {
        action: DeviceAction::BindFirst,
        parties: &[Party::Holder],
        proof: DeviceProof::CodeAndKey,
        blocks_tokens: false,
    },
    DeviceOperation {
        action: DeviceAction::BindAnother,
        parties: &[Party::Holder],
        proof: DeviceProof::CodeKeyAndBoundPhone,
        blocks_tokens: false,
    },
    DeviceOperation {
        action: DeviceAction::Revoke,
        parties: &[Party::Holder, Party::Administrator],
        proof: DeviceProof::None,
        blocks_tokens: true,
    },
    DeviceOperation {
        action: DeviceAction::Recover,
        parties: &[Party::Administrator, Party::Operator],
        proof: DeviceProof::OtherPersonsPhone,
        blocks_tokens: true,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_action_has_its_own_row() {
        for (place, row) in TABLE.iter().enumerate() {
            assert_eq!(row.action as usize, place, "{:?}", row.action);
            assert_eq!(row.action.operation(), row);
        }
        for (place, row) in DEVICE_TABLE.iter().enumerate() {
            assert_eq!(row.action as usize, place);
        }
    }

    #[test]
    fn an_administrator_is_offered_what_the_sheet_offers() {
        let offered = |state| allowed(state, Some(Party::Administrator)).collect::<Vec<_>>();
        assert_eq!(offered(State::Active), [Action::Rotate, Action::Block, Action::Release]);
        assert_eq!(offered(State::Blocked), [Action::Unblock, Action::Release]);
        assert_eq!(offered(State::Company), [Action::Assign]);
        assert_eq!(offered(State::Stock), []);
        assert_eq!(offered(State::Retired), []);
    }

    #[test]
    fn names_and_labels_are_told_apart_within_an_operation() {
        for row in &TABLE {
            for language in [Language::Spanish, Language::English] {
                let labels: std::collections::HashSet<_> =
                    row.causes.iter().map(|cause| cause.label(language)).collect();
                assert_eq!(labels.len(), row.causes.len());
            }
            let names: std::collections::HashSet<_> =
                row.causes.iter().map(|cause| cause.name()).collect();
            assert_eq!(names.len(), row.causes.len());
        }
    }

    #[test]
    fn serde_and_the_table_give_things_the_same_names() {
        let quoted = |name: &str| format!("\"{name}\"");
        for state in State::ALL {
            assert_eq!(serde_json::to_string(&state).expect("a name"), quoted(state.name()));
        }
        for row in &TABLE {
            assert_eq!(
                serde_json::to_string(&row.action).expect("a name"),
                quoted(row.action.name())
            );
            for cause in row.causes {
                let written = match cause {
                    Cause::Release(cause) => serde_json::to_string(cause),
                    Cause::Block(cause) => serde_json::to_string(cause),
                    Cause::Rotate(cause) => serde_json::to_string(cause),
                };
                assert_eq!(written.expect("a name"), quoted(cause.name()));
            }
        }
    }
}
