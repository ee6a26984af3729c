//! The words that both sides share and that people read: the steps of a script, how a step went,
//! and everything that can be seen after it. Steps name things as people would ("Carla's latest
//! phone", "the latest request about token 1"), so that a script still makes sense after some of
//! its steps were taken out.

use std::fmt;

/// What somebody may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Operator,
    Administrator,
    Secondary,
}

/// The people of every script. Two companies have the same people, so that one person may hold
/// two tokens on one phone.
pub const PEOPLE: [(&str, Role); 5] = [
    ("Olga", Role::Operator),
    ("Ana", Role::Administrator),
    ("Beto", Role::Administrator),
    ("Carla", Role::Secondary),
    ("Dani", Role::Secondary),
];

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    Person(usize),
    System,
}

/// A phone: so many before the person's latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PhoneRef {
    pub person: usize,
    pub back: usize,
}

impl PhoneRef {
    /// Its place among all phones, given whose each is.
    pub fn find(self, owners: impl DoubleEndedIterator<Item = usize>) -> Option<usize> {
        let mine: Vec<_> = owners.enumerate().filter(|(_, owner)| *owner == self.person).collect();
        mine.iter().rev().nth(self.back).map(|(place, _)| *place)
    }
}

/// What an operation is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    Token(usize),
    Person(usize),
}

/// An operation: so many before the latest about the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OperationRef {
    pub about: About,
    pub back: usize,
}

impl OperationRef {
    /// Its place among all operations, given what each is about.
    pub fn find(self, abouts: impl DoubleEndedIterator<Item = About>) -> Option<usize> {
        let same: Vec<_> = abouts.enumerate().filter(|(_, about)| *about == self.about).collect();
        same.iter().rev().nth(self.back).map(|(place, _)| *place)
    }
}

/// A code that somebody types.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Code {
    /// Of the generation so many before the token's latest, and so many steps from now.
    Of { back: u32, steps: i64 },
    /// As it came out of that, or guessed.
    Text(String),
}

/// An activation code that somebody types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Typed {
    /// The person's code so many before the latest.
    Issued(usize),
    /// The right name and a wrong secret.
    Guessed,
}

/// What a person says on a phone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Say {
    Yes,
    /// With a number that is not the one shown.
    YesToWrongNumber,
    No(&'static str),
}

/// What is wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bend {
    Honest,
    /// Signed with the key of another phone.
    OtherKey,
    /// Names another request, other lines, another nonce, another operation.
    OtherRequest,
    OtherDisplay,
    OtherNonce,
    OtherOperation,
    /// For another server, of another kind, with one bit changed.
    OtherServer,
    OtherKind,
    FlippedBit,
    /// Its counter was used before.
    UsedCounter,
}

/// One step of a script.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// So many milliseconds pass.
    Wait(u64),
    Issue {
        by: By,
        physical: bool,
    },
    Allot {
        by: By,
        token: usize,
        company: usize,
    },
    Withdraw {
        by: By,
        token: usize,
    },
    Retire {
        by: By,
        token: usize,
    },
    Assign {
        by: By,
        token: usize,
        to: usize,
    },
    OpenAgain {
        by: By,
        token: usize,
    },
    /// The seed of the open enrollment is made: for a phone, or shown for an authenticator app.
    Deliver {
        token: usize,
        to: Option<PhoneRef>,
    },
    Prove {
        token: usize,
        on: Option<PhoneRef>,
        code: Code,
    },
    /// The holder gives the open enrollment up.
    GiveUp {
        token: usize,
    },
    Block {
        by: By,
        token: usize,
        cause: &'static str,
    },
    /// *release*, *unblock* or *rotate*: a phone is asked.
    Ask {
        by: By,
        token: usize,
        what: &'static str,
        cause: Option<&'static str>,
    },
    /// A phone answers; `meanwhile` happens between the check of its answer and the execution.
    Answer {
        to: OperationRef,
        on: PhoneRef,
        say: Say,
        bend: Bend,
        meanwhile: Vec<Step>,
    },
    /// The holder begins a rotation on the phone.
    Rotate {
        on: PhoneRef,
        token: usize,
        cause: &'static str,
        stale: bool,
        bend: Bend,
        meanwhile: Vec<Step>,
    },
    Cancel {
        to: OperationRef,
    },
    /// What time alone brings about is noticed.
    Chores,
    /// A code is checked.
    Check {
        token: usize,
        code: Code,
    },
    /// A person gets an activation code.
    Activate {
        person: usize,
    },
    /// A new phone is bound.
    Bind {
        person: usize,
        typed: Typed,
        bend: Bend,
    },
    Revoke {
        by: By,
        phone: PhoneRef,
        cause: &'static str,
    },
    Recover {
        by: By,
        person: usize,
    },
    /// The company chooses who authorizes, or where seeds live.
    FourEyes(bool),
    AuthenticatorApp(bool),
}

/// How a step went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    Refused,
    Denied,
    WrongNumber,
    /// The code of this step was accepted, or proved a generation.
    Accepted(u64),
    Used,
    Wrong,
    /// Refused unseen: after failures for a while, for good, or because no seed is live.
    Waiting,
    Locked,
    Closed,
}

/// What happens beside a token's change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    EnrollmentOpens(usize),
    EnrollmentCancelled(usize),
    OperationCancelled(usize),
    SeedLive(u32),
    SeedClosed(u32),
    SeedReopened(u32),
    SeedDestroyed(u32),
    PhoneRevoked(usize),
}

/// A token as it can be seen.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenView {
    /// 0 is the bank.
    pub company: usize,
    pub state: &'static str,
    pub holder: Option<usize>,
    /// What a block was put on: `assigned`, `active` or, where the seed is gone, `gone`.
    pub before: Option<&'static str>,
    /// The generation whose seed exists and its phone, if it is one of ours.
    pub live: Option<(u32, Option<usize>)>,
    pub generations: u32,
    pub enrollment: Option<usize>,
    pub pending: Option<usize>,
    pub last: (&'static str, Option<String>),
    pub changed_at: i64,
    pub whose_move: Option<&'static str>,
    /// Whether codes are accepted, and of which generation there is a seed.
    pub open: bool,
    pub seed: Option<u32>,
    pub last_step: Option<u64>,
    pub failures: u32,
    pub waits_until: Option<i64>,
}

/// A phone as it can be seen.
#[derive(Clone, Debug, PartialEq)]
pub struct PhoneView {
    pub owner: usize,
    pub state: &'static str,
    pub counter: u64,
}

/// An operation that waits, or waited, for a phone.
#[derive(Clone, Debug, PartialEq)]
pub struct OperationView {
    pub what: &'static str,
    pub about: About,
    pub asker: usize,
    pub four_eyes: bool,
    pub asked: Vec<usize>,
    pub expires: i64,
    pub state: &'static str,
}

/// Everything that can be seen after a step.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct View {
    pub tokens: Vec<TokenView>,
    pub phones: Vec<PhoneView>,
    pub operations: Vec<OperationView>,
    /// State and generation.
    pub enrollments: Vec<(&'static str, u32)>,
    /// Whether the next phone needs a bound one's approval, and the operation about their phones.
    pub people: Vec<(bool, Option<usize>)>,
    /// State and wrong tries of the activation codes.
    pub codes: Vec<(&'static str, u32)>,
    /// The effects of the step, token by token, in order.
    pub effects: Vec<(usize, Effect)>,
    /// How the steps in between went.
    pub between: Vec<Outcome>,
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Person(person) => f.write_str(PEOPLE[*person].0),
            Self::System => f.write_str("the system"),
        }
    }
}

impl fmt::Display for PhoneRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = PEOPLE[self.person].0;
        match self.back {
            0 => write!(f, "{name}'s latest phone"),
            back => write!(f, "{name}'s phone {back} before the latest"),
        }
    }
}

impl fmt::Display for OperationRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.back {
            0 => f.write_str("the latest request about ")?,
            back => write!(f, "the request {back} before the latest about ")?,
        }
        match self.about {
            About::Token(token) => write!(f, "token {token}"),
            About::Person(person) => f.write_str(PEOPLE[person].0),
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "the code {text}"),
            Self::Of { back, steps } => {
                write!(f, "a code {steps:+} steps from now of the generation ")?;
                if *back == 0 {
                    f.write_str("newest")
                } else {
                    write!(f, "{back} before the newest")
                }
            }
        }
    }
}

impl fmt::Display for Say {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Yes => f.write_str("yes with the number shown"),
            Self::YesToWrongNumber => f.write_str("yes with a wrong number"),
            Self::No(reason) => write!(f, "no, {reason}"),
        }
    }
}

impl fmt::Display for Bend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Honest => "",
            Self::OtherKey => " (signed with another key)",
            Self::OtherRequest => " (naming another request)",
            Self::OtherDisplay => " (naming other lines)",
            Self::OtherNonce => " (with another nonce)",
            Self::OtherOperation => " (naming another operation)",
            Self::OtherServer => " (for another server)",
            Self::OtherKind => " (as another kind of message)",
            Self::FlippedBit => " (with one bit changed)",
            Self::UsedCounter => " (with a counter that was used)",
        })
    }
}

/// A choice of its own only where there is one.
fn owned(on: Option<PhoneRef>) -> String {
    on.map_or_else(|| "an authenticator app".to_owned(), |phone| phone.to_string())
}

fn between(f: &mut fmt::Formatter<'_>, meanwhile: &[Step]) -> fmt::Result {
    meanwhile.iter().try_for_each(|step| write!(f, "; before it is executed, {step}"))
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wait(ms) => write!(f, "{}.{:03} s pass", ms / 1000, ms % 1000),
            Self::Issue { by, physical: false } => write!(f, "{by} issues a virtual token"),
            Self::Issue { by, physical: true } => write!(f, "{by} issues a physical token"),
            Self::Allot { by, token, company } => {
                write!(f, "{by} allots token {token} to company {company}")
            }
            Self::Withdraw { by, token } => write!(f, "{by} withdraws token {token}"),
            Self::Retire { by, token } => write!(f, "{by} retires token {token}"),
            Self::Assign { by, token, to } => {
                write!(f, "{by} assigns token {token} to {}", PEOPLE[*to].0)
            }
            Self::OpenAgain { by, token } => {
                write!(f, "{by} opens the enrollment of token {token} again")
            }
            Self::Deliver { token, to } => {
                write!(f, "the new seed of token {token} goes to {}", owned(*to))
            }
            Self::Prove { token, on, code } => {
                write!(f, "{} proves the new seed of token {token} by {code}", owned(*on))
            }
            Self::GiveUp { token } => write!(f, "the enrollment of token {token} is given up"),
            Self::Block { by, token, cause } => write!(f, "{by} blocks token {token}: {cause}"),
            Self::Ask { by, token, what, cause } => {
                write!(f, "{by} asks to {what} token {token}")?;
                cause.map_or(Ok(()), |cause| write!(f, ": {cause}"))
            }
            Self::Answer { to, on, say, bend, meanwhile } => {
                write!(f, "{on} answers {to}: {say}{bend}")?;
                between(f, meanwhile)
            }
            Self::Rotate { on, token, cause, stale, bend, meanwhile } => {
                let seen = if *stale { ", as it was before" } else { "" };
                write!(f, "{on} renews the seed of token {token}: {cause}{seen}{bend}")?;
                between(f, meanwhile)
            }
            Self::Cancel { to } => write!(f, "{to} is taken back"),
            Self::Chores => f.write_str("what is overdue is noticed"),
            Self::Check { token, code } => write!(f, "{code} is checked for token {token}"),
            Self::Activate { person } => write!(f, "{} gets an activation code", PEOPLE[*person].0),
            Self::Bind { person, typed, bend } => {
                let with = match typed {
                    Typed::Issued(0) => "the latest activation code".to_owned(),
                    Typed::Issued(back) => format!("the activation code {back} before the latest"),
                    Typed::Guessed => "a guessed activation code".to_owned(),
                };
                write!(f, "{} binds a new phone with {with}{bend}", PEOPLE[*person].0)
            }
            Self::Revoke { by, phone, cause } => write!(f, "{by} revokes {phone}: {cause}"),
            Self::Recover { by, person } => {
                write!(f, "{by} asks to recover {}", PEOPLE[*person].0)
            }
            Self::FourEyes(true) => f.write_str("the company wants four eyes"),
            Self::FourEyes(false) => f.write_str("the company wants the asker's own phone"),
            Self::AuthenticatorApp(true) => {
                f.write_str("seeds go to authenticator apps from now on")
            }
            Self::AuthenticatorApp(false) => f.write_str("seeds go to phones from now on"),
        }
    }
}
