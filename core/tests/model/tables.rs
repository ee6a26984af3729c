//! The two tables of the domain, transcribed once more by hand, for the reference alone, and the
//! test that holds the product's own tables to this transcription. The reference reads these rows
//! and never the product's.

use semilla_core::operations::{
    Action, DEVICE_TABLE, DeviceAction, DeviceProof, Party, Phone, SeedEffect, State, TABLE,
    Target, allowed,
};

/// *Causal de Liberación*, the four.
pub const RELEASE: [&str; 4] =
    ["assignment_error", "user_left_company", "customer_request", "seed_release"];
/// *Causal de Bloqueo*, the five of an administrator.
pub const BLOCK: [&str; 5] = [
    "user_inactive",
    "customer_request",
    "device_lost_or_stolen",
    "device_change",
    "technical_failure",
];
/// *Causal de Bloqueo*, the two of the system.
pub const BLOCK_BY_SYSTEM: [&str; 2] = ["too_many_failures", "fraud_reported"];
/// Of those, the two that mean that the phone is gone.
pub const PHONE_IS_GONE: [&str; 2] = ["device_lost_or_stolen", "device_change"];
/// Why a seed is renewed.
pub const ROTATE: [&str; 3] = ["scheduled", "new_phone", "suspicion"];

/// Who may ask: operator, administrator, holder, or the system itself.
pub const OPERATOR: &str = "operator";
pub const ADMINISTRATOR: &str = "administrator";
pub const HOLDER: &str = "holder";
pub const SYSTEM: &str = "system";

/// A row of the first table.
pub struct Row {
    pub operation: &'static str,
    /// Who may ask, and for which causes; without causes where it needs none.
    pub asks: &'static [(&'static str, &'static [&'static str])],
    pub from: &'static [&'static str],
    /// `from` is the state that a block was put on.
    pub to: &'static str,
    /// `-`, `approver` (the administrator whom the policy names) or `holder`.
    pub phone: &'static str,
}

const fn row(
    operation: &'static str,
    asks: &'static [(&'static str, &'static [&'static str])],
    from: &'static [&'static str],
    to: &'static str,
    phone: &'static str,
) -> Row {
    Row { operation, asks, from, to, phone }
}

/// "The life of a token", first table.
#[rustfmt::skip]
pub const TOKENS: [Row; 10] = [
    row("issue", &[(OPERATOR, &[])], &[], "stock", "-"),
    row("allot", &[(OPERATOR, &[])], &["stock"], "company", "-"),
    row("withdraw", &[(OPERATOR, &[])], &["company"], "stock", "-"),
    row("assign", &[(ADMINISTRATOR, &[])], &["company"], "assigned", "-"),
    row("enroll", &[(HOLDER, &[])], &["assigned"], "active", "holder"),
    row("rotate", &[(HOLDER, &ROTATE), (ADMINISTRATOR, &ROTATE)], &["active"], "active", "holder"),
    row("block", &[(ADMINISTRATOR, &BLOCK), (SYSTEM, &BLOCK_BY_SYSTEM)], &["active", "assigned"], "blocked", "-"),
    row("unblock", &[(ADMINISTRATOR, &[])], &["blocked"], "from", "approver"),
    row("release", &[(ADMINISTRATOR, &RELEASE)], &["active", "assigned", "blocked"], "company", "approver"),
    row("retire", &[(OPERATOR, &[])], &["stock", "company"], "retired", "-"),
];

/// "The life of a token", second table: who may ask, what proves it, whether tokens are blocked.
#[rustfmt::skip]
pub const PHONES: [(&str, &[&str], &str, bool); 4] = [
    ("bind_first", &[HOLDER], "code + key", false),
    ("bind_another", &[HOLDER], "code + key + the phone already bound", false),
    ("revoke", &[HOLDER, ADMINISTRATOR], "none", true),
    ("recover", &[ADMINISTRATOR, OPERATOR], "the other person's phone", true),
];

/// States and whose move each is.
pub const STATES: [(&str, Option<&str>); 6] = [
    ("stock", Some(OPERATOR)),
    ("company", Some(ADMINISTRATOR)),
    ("assigned", Some(HOLDER)),
    ("active", None),
    ("blocked", Some(ADMINISTRATOR)),
    ("retired", None),
];

/// The row of an operation.
pub fn row_of(operation: &str) -> &'static Row {
    TOKENS.iter().find(|row| row.operation == operation).expect("an operation of the table")
}

impl Row {
    /// Whether one of these may ask for it with this cause.
    pub fn allows(&self, who: &[&str], cause: Option<&str>) -> bool {
        self.asks.iter().any(|(party, causes)| {
            who.contains(party) && cause.map_or(causes.is_empty(), |cause| causes.contains(&cause))
        })
    }
}

const ACTIONS: [Action; 10] = [
    Action::Issue,
    Action::Allot,
    Action::Withdraw,
    Action::Assign,
    Action::Enroll,
    Action::Rotate,
    Action::Block,
    Action::Unblock,
    Action::Release,
    Action::Retire,
];

#[test]
fn security_83_the_products_table_of_tokens_is_the_one_that_was_agreed() {
    assert_eq!(TABLE.len(), TOKENS.len());
    for (action, row) in ACTIONS.into_iter().zip(&TOKENS) {
        let product = action.operation();
        assert_eq!(product.action.name(), row.operation);
        let parties: Vec<_> = product.parties.iter().map(|party| party.name()).collect();
        assert_eq!(parties, row.asks.iter().map(|(who, _)| *who).collect::<Vec<_>>());
        let from: Vec<_> = product.from.iter().map(|state| state.name()).collect();
        assert_eq!(from, row.from, "{}", row.operation);
        let to = match product.target {
            Target::To(state) => state.name(),
            Target::BeforeBlock => "from",
        };
        assert_eq!(to, row.to, "{}", row.operation);
        // Who gives a cause follows from the cause: the system its two, everybody else the others.
        for (who, causes) in row.asks {
            let given = product.causes.iter().filter(|cause| {
                action != Action::Block || cause.is_of_system() == (*who == SYSTEM)
            });
            let given: Vec<_> = given.map(|cause| cause.name()).collect();
            assert_eq!(given, *causes, "{} by {who}", row.operation);
        }
        let phone = match product.phone {
            Phone::None => "-",
            Phone::Administrator => "approver",
            Phone::Holder | Phone::Receiver => "holder",
        };
        assert_eq!(phone, row.phone, "{}", row.operation);
    }
}

#[test]
fn security_83_the_products_table_says_what_becomes_of_each_seed() {
    use SeedEffect::*;
    let seeds: Vec<_> = TABLE.iter().map(|row| row.seed).collect();
    let agreed = [
        None,
        None,
        None,
        EnrollmentOpens,
        LiveOnceProven,
        ReplacedOnceProven,
        KeptUnlessCauseDestroys,
        AcceptedAgain,
        Destroyed,
        None,
    ];
    assert_eq!(seeds, agreed);
    for row in &TABLE {
        for cause in row.causes {
            if let semilla_core::operations::Cause::Block(block) = cause {
                assert_eq!(block.destroys_seed(), PHONE_IS_GONE.contains(&cause.name()));
            }
        }
    }
}

#[test]
fn security_50_the_products_table_of_phones_is_the_one_that_was_agreed() {
    assert_eq!(DEVICE_TABLE.len(), PHONES.len());
    for (product, (name, who, proof, blocks)) in DEVICE_TABLE.iter().zip(PHONES) {
        let action = match product.action {
            DeviceAction::BindFirst => "bind_first",
            DeviceAction::BindAnother => "bind_another",
            DeviceAction::Revoke => "revoke",
            DeviceAction::Recover => "recover",
        };
        assert_eq!(action, name);
        let parties: Vec<_> = product.parties.iter().map(|party| party.name()).collect();
        assert_eq!(parties, who, "{name}");
        let proven = match product.proof {
            DeviceProof::CodeAndKey => "code + key",
            DeviceProof::CodeKeyAndBoundPhone => "code + key + the phone already bound",
            DeviceProof::OtherPersonsPhone => "the other person's phone",
            DeviceProof::None => "none",
        };
        assert_eq!(proven, proof, "{name}");
        assert_eq!(product.blocks_tokens, blocks, "{name}");
    }
}

#[test]
fn security_83_what_may_be_asked_in_a_state_and_whose_move_it_is_follow_from_the_table() {
    assert_eq!(State::ALL.len(), STATES.len());
    for (state, (name, whose)) in State::ALL.into_iter().zip(STATES) {
        assert_eq!(state.name(), name);
        assert_eq!(state.whose_move().map(Party::name), whose);
        for party in [None, Some(Party::Operator), Some(Party::Administrator), Some(Party::Holder)]
        {
            let product: Vec<_> = allowed(state, party).map(Action::name).collect();
            let agreed = TOKENS.iter().filter(|row| row.from.contains(&name)).filter(|row| {
                party.is_none_or(|party| row.asks.iter().any(|(who, _)| *who == party.name()))
            });
            assert_eq!(product, agreed.map(|row| row.operation).collect::<Vec<_>>());
        }
    }
    // Terminal never leaves (security 84).
    assert_eq!(allowed(State::Retired, None).count(), 0);
}
