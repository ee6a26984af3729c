//! An enrollment: the one opportunity to bring a new generation of a token to a phone, and the
//! activation code that opens the way to it.

use serde::{Deserialize, Serialize};

use crate::id::{CompanyId, DeviceId, EnrollmentId, TokenId, UserId};
use crate::operations::RotateCause;
use crate::otp::{Method, Parameters, Step};
use crate::policy::Profile;
use crate::seal::Sealed;
use crate::time::Timestamp;

/// How far an enrollment has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum EnrollmentState {
    /// No seed exists yet. Holder's move.
    Open,
    /// A seed was made and sealed to one phone. The phone's move: prove it by a code.
    Delivered {
        /// Which phone.
        device: DeviceId,
        /// The seed, sealed for us.
        seed: Sealed,
        /// SHA-256 of the request, base64url: the same request gets the same bytes again.
        request_sha256: String,
        /// The delivery, sealed to the phone.
        delivery: String,
    },
    /// A seed was made and shown once to the holder, for an authenticator app.
    Shown {
        /// The seed, sealed for us.
        seed: Sealed,
    },
    /// The seed came with the token, which its holder has in hand. Holder's move: prove it by a
    /// code.
    InHand {
        /// The seed, sealed for us.
        seed: Sealed,
        /// How its codes are made.
        method: Method,
        /// The last step that was consumed of the generations before.
        after: Option<Step>,
        /// By how many steps its clock is said to be ahead.
        drift: i32,
    },
    /// Proven: the generation went live.
    Confirmed {
        /// When.
        at: Timestamp,
        /// By the code of which step, so that a repeated confirmation gets the same answer.
        step: Step,
        /// The phone, where it is one of ours.
        device: Option<DeviceId>,
    },
    /// Its time ran out.
    Expired,
    /// Something else happened to the token, or a newer enrollment took its place.
    Cancelled,
}

impl EnrollmentState {
    /// Its name on the wire.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Delivered { .. } => "delivered",
            Self::Shown { .. } => "shown",
            Self::InHand { .. } => "in_hand",
            Self::Confirmed { .. } => "confirmed",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether it can still lead somewhere.
    pub fn is_open(&self) -> bool {
        match self {
            Self::Open | Self::Delivered { .. } | Self::Shown { .. } | Self::InHand { .. } => true,
            Self::Confirmed { .. } | Self::Expired | Self::Cancelled => false,
        }
    }
}

/// An enrollment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrollment {
    /// Its id.
    pub id: EnrollmentId,
    /// Whose company's.
    pub company: CompanyId,
    /// Of which token.
    pub token: TokenId,
    /// For whom alone.
    pub holder: UserId,
    /// The number of the generation it makes.
    pub generation: u32,
    /// Where the seed will live.
    pub profile: Profile,
    /// Why, where it renews a live generation.
    pub rotation: Option<RotateCause>,
    /// The phone with the live generation, where it renews one: the same phone gets the new one,
    /// except for the cause `new_phone`, which is for any other phone of the holder.
    pub current: Option<DeviceId>,
    /// SHA-256 of the message by which its holder asked for it, base64url, where it was one: the
    /// same message opens nothing anew.
    pub asked_by: Option<String>,
    /// How far it has come.
    pub state: EnrollmentState,
    /// Since when.
    pub created: Timestamp,
    /// Until when.
    pub expires: Timestamp,
}

impl Enrollment {
    /// How the codes of this generation are made.
    pub fn parameters(&self) -> Parameters {
        self.profile.parameters()
    }

    /// Whether this phone of the holder may receive the seed.
    pub fn is_for(&self, device: DeviceId) -> bool {
        match (self.rotation, self.current) {
            (Some(RotateCause::NewPhone), Some(current)) => device != current,
            (Some(_), Some(current)) => device == current,
            _ => true,
        }
    }
}

/// Whether an activation code still works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ActivationState {
    /// It does. Holder's move.
    Live,
    /// A phone began with it and was given this nonce to answer.
    Started {
        /// The nonce.
        nonce: String,
    },
    /// A phone was bound with it.
    Used,
    /// A later one took its place, it was tried wrongly too often, or its person is no more.
    Dead,
}

/// An activation code: one use, a few minutes, few wrong tries (security 44, 45). What is stored
/// is the key derived from it, sealed; the code itself is known to its receiver alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Activation {
    /// The four characters that name it.
    pub name: String,
    /// Whose company's.
    pub company: CompanyId,
    /// Whose phone it binds.
    pub user: UserId,
    /// The enrollment that goes on with it.
    pub enrollment: Option<EnrollmentId>,
    /// The key derived from its secret, sealed.
    pub key: Sealed,
    /// Wrong answers so far.
    pub wrong: u32,
    /// Whether it works.
    pub state: ActivationState,
    /// Until when.
    pub expires: Timestamp,
}

impl Activation {
    /// How many wrong answers kill it.
    pub const WRONG_MAX: u32 = 5;
    /// How long it lives, in seconds: 10 minutes.
    pub const SECONDS: u64 = 600;

    /// Whether it works at this moment.
    pub fn is_live(&self, now: Timestamp) -> bool {
        matches!(self.state, ActivationState::Live | ActivationState::Started { .. })
            && now < self.expires
    }

    /// Counts a wrong answer; the last one kills it.
    pub fn count_wrong(&mut self) {
        self.wrong += 1;
        if self.wrong >= Self::WRONG_MAX {
            self.state = ActivationState::Dead;
        }
    }
}
