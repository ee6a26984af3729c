//! What can go wrong on a phone: one enum, each variant with the exit code that a script reads and
//! with an explanation that a person reads, which says what happened and what to do next.

mod details;
mod text;

use semilla_core::id::OperationId;
use semilla_core::language::Language;
use semilla_core::problem::{Problem, ProblemType};
use semilla_core::protocol::MessageError;
use semilla_core::protocol::wire::OperationState;
use semilla_core::time::Timestamp;

pub use text::Explanation;

/// Why a phone could not do what it was asked.
#[derive(Debug)]
pub enum Error {
    /// What the person typed or handed in cannot be used.
    Input(Input),
    /// No phone is bound here.
    NotBound,
    /// Several banks or people are bound here, and none was named: their numbers and servers.
    WhichAccount(Vec<String>),
    /// A phone is bound to this server already.
    AlreadyBound(String),
    /// This phone has no token with that serial number.
    UnknownToken(String),
    /// This phone has no token.
    NoToken,
    /// This phone has several tokens, and none was named: their serial numbers.
    WhichToken(Vec<String>),
    /// Nothing waits to be enrolled.
    NothingToEnroll,
    /// The request is not, or no longer, in the inbox.
    UnknownRequest(OperationId),
    /// Nothing of that name, or nothing at all, waits for an answer.
    NoRequest,
    /// Several requests are meant: the ends of their ids.
    WhichRequest(Vec<String>),
    /// Every code that the server would take now was handed out before; the next at this moment.
    NoUnusedCode(Timestamp),
    /// The wait ended without what was waited for.
    TimedOut,
    /// The operation ended otherwise than it was meant to.
    Ended(OperationState),
    /// The time to answer, or to enroll, is over.
    Expired,
    /// The server refused.
    Problem(Box<Problem>),
    /// The server trusts this phone no more; its seeds are wiped.
    Revoked,
    /// A phone that was bound before has yet to agree to this one.
    Waiting,
    /// The server has seen two copies of this phone and trusts neither for now.
    Suspended,
    /// The PIN is wrong; so many tries are left.
    WrongPin(u32),
    /// Too many wrong PINs: the store is wiped.
    Wiped,
    /// The PIN must be entered again: before an approval, or because it was changed elsewhere.
    Locked,
    /// The clocks of phone and server differ by more than a code can bear: so many seconds that
    /// the phone is behind (or, negative, ahead).
    ClockSkew(i64),
    /// A message of the server does not hold.
    MessageRefused(Refusal),
    /// The server cannot be reached: its address, and why.
    Unreachable(String, String),
    /// The address is one in clear, and not of this machine.
    InClear(String),
    /// The store cannot be used.
    Store(StoreFault),
    /// The server answered something that is not in the protocol.
    UnexpectedAnswer(String),
}

/// What a person typed or handed in, and why it cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// Neither an activation code nor a `semilla://` address.
    Activation,
    /// A code alone, and no server to use it with.
    ServerMissing,
    /// Not an `http://` or `https://` address.
    ServerAddress,
    /// Not a PNG file with one readable QR code.
    QrImage,
    /// Not a PIN.
    PinForm,
    /// A PIN that everybody tries first.
    PinCommon,
    /// The PIN and its repetition differ.
    PinRepetition,
    /// No terminal to ask on, and no other source named.
    PinSource,
    /// Not six digits.
    Number,
    /// No code lives that long.
    MinTtl,
    /// The name of a phone that cannot be shown.
    Name,
    /// A file that was named cannot be read.
    File,
    /// Not a certificate in PEM.
    Authority,
    /// A question was not answered with yes.
    NotConfirmed,
}

/// Why a message of the server was not acted on (security 129, 131).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not signed by the pinned server for this phone, altered, of another kind or version, with
    /// an unknown action, or past its time.
    Message(MessageError),
    /// The request is not the one it was announced as.
    OtherOperation,
    /// A cause that this action does not have.
    UnknownCause,
    /// About another generation of the seed than this phone holds.
    Generation {
        /// The one in the message.
        said: u32,
        /// The one on the phone.
        held: u32,
    },
    /// The delivered seed is not for what was asked, or not one this phone can use.
    Seed,
}

/// Why the store cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreFault {
    /// There is none.
    Missing,
    /// There is one already.
    Exists,
    /// Cut off, or changed by something else than this program.
    Damaged,
    /// Written by a later program: the version of its form.
    Version(u32),
    /// Others than its owner can read it.
    Permissions,
    /// Another program of this phone keeps it busy.
    Busy,
    /// The system refused: what it said.
    Io(String),
}

impl From<Input> for Error {
    fn from(input: Input) -> Self {
        Self::Input(input)
    }
}

impl From<StoreFault> for Error {
    fn from(fault: StoreFault) -> Self {
        Self::Store(fault)
    }
}

impl From<std::io::Error> for StoreFault {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error.to_string())
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Message(MessageError::Expired) => Self::Expired,
            refusal => Self::MessageRefused(refusal),
        }
    }
}

impl From<MessageError> for Error {
    fn from(error: MessageError) -> Self {
        Refusal::Message(error).into()
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        match problem.kind {
            ProblemType::DeviceRevoked => Self::Revoked,
            ProblemType::ApprovalExpired | ProblemType::DeliveryExpired => Self::Expired,
            _ => Self::Problem(Box::new(problem)),
        }
    }
}

impl Error {
    /// The exit code for scripts: 2 usage, 3 timeout, 4 denied, 5 expired, 6 not allowed in this
    /// state, 7 locked or wrong PIN, 8 clock skew, 11 message refused, 69 unreachable, 70 internal.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Input(_)
            | Self::WhichAccount(_)
            | Self::UnknownToken(_)
            | Self::WhichToken(_)
            | Self::UnknownRequest(_)
            | Self::WhichRequest(_) => 2,
            Self::NoUnusedCode(_) | Self::TimedOut => 3,
            Self::Ended(OperationState::Denied) => 4,
            Self::Ended(OperationState::Expired) | Self::Expired => 5,
            Self::NotBound
            | Self::AlreadyBound(_)
            | Self::NoToken
            | Self::NothingToEnroll
            | Self::NoRequest
            | Self::Ended(_)
            | Self::Revoked
            | Self::Waiting
            | Self::Suspended
            | Self::Store(StoreFault::Missing | StoreFault::Exists) => 6,
            Self::WrongPin(_) | Self::Wiped | Self::Locked => 7,
            Self::ClockSkew(_) => 8,
            Self::MessageRefused(_) => 11,
            Self::Unreachable(..) | Self::InClear(_) => 69,
            Self::Store(_) | Self::UnexpectedAnswer(_) => 70,
            Self::Problem(problem) => problem_exit_code(problem.kind),
        }
    }

    /// A word for programs that stays the same: `wrong-pin`, `message-refused`, or the type of the
    /// server's problem.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Input(_) => "input",
            Self::NotBound => "not-bound",
            Self::WhichAccount(_) => "which-account",
            Self::AlreadyBound(_) => "already-bound",
            Self::UnknownToken(_) => "unknown-token",
            Self::NoToken => "no-token",
            Self::WhichToken(_) => "which-token",
            Self::NothingToEnroll => "nothing-to-enroll",
            Self::UnknownRequest(_) => "unknown-request",
            Self::NoRequest => "no-request",
            Self::WhichRequest(_) => "which-request",
            Self::NoUnusedCode(_) => "no-unused-code",
            Self::TimedOut => "timed-out",
            Self::Ended(_) => "ended",
            Self::Expired => "expired",
            Self::Problem(problem) => problem.kind.name(),
            Self::Revoked => "device-revoked",
            Self::Waiting => "device-waiting",
            Self::Suspended => "device-suspended",
            Self::WrongPin(_) => "wrong-pin",
            Self::Wiped => "wiped",
            Self::Locked => "locked",
            Self::ClockSkew(_) => "clock-skew",
            Self::MessageRefused(_) => "message-refused",
            Self::Unreachable(..) => "unreachable",
            Self::InClear(_) => "in-clear",
            Self::Store(StoreFault::Missing) => "store-missing",
            Self::Store(StoreFault::Exists) => "store-exists",
            Self::Store(StoreFault::Damaged) => "store-damaged",
            Self::Store(StoreFault::Version(_)) => "store-version",
            Self::Store(StoreFault::Permissions) => "store-permissions",
            Self::Store(StoreFault::Busy) => "store-busy",
            Self::Store(StoreFault::Io(_)) => "store-io",
            Self::UnexpectedAnswer(_) => "unexpected-answer",
        }
    }

    /// The server's problem, where it is one.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Problem(problem) => Some(problem),
            _ => None,
        }
    }

    /// What happened and what to do next.
    pub fn explain(&self, language: Language) -> Explanation {
        text::explain(self, language)
    }
}

fn problem_exit_code(kind: ProblemType) -> u8 {
    match kind {
        ProblemType::NumberMismatch => 4,
        ProblemType::ApprovalExpired | ProblemType::DeliveryExpired => 5,
        ProblemType::Unauthenticated
        | ProblemType::SignatureInvalid
        | ProblemType::Forbidden
        | ProblemType::SelfApproval
        | ProblemType::DeviceRevoked
        | ProblemType::NotFound
        | ProblemType::StateConflict
        | ProblemType::ApprovalAlreadyDecided
        | ProblemType::RequestHashMismatch
        | ProblemType::IdempotencyConflict
        | ProblemType::ActivationInvalid
        | ProblemType::CodeInvalid => 6,
        ProblemType::TokenLocked => 7,
        ProblemType::RateLimited | ProblemType::Unavailable => 69,
        ProblemType::Malformed
        | ProblemType::Validation
        | ProblemType::MethodNotAllowed
        | ProblemType::IdempotencyMismatch
        | ProblemType::PreconditionFailed
        | ProblemType::TooLarge
        | ProblemType::UnsupportedMediaType
        | ProblemType::Internal => 70,
    }
}

impl std::fmt::Display for Error {
    /// In English, for logs and tests; people are shown [`Error::explain`].
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Explanation { what, next } = self.explain(Language::English);
        write!(f, "{what} {next}")
    }
}

impl std::error::Error for Error {}
