//! The bodies of the device API (`/device/v1`), shared by the server and the phone. A body that a
//! program signed travels as text inside [`Signed`]; every other field is data of the connection
//! and decides nothing that a signed message decides. Unknown fields are refused on both sides.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `POST bindings/start` | [`BindingStart`] | [`BindingStarted`] |
//! | `POST bindings` | [`Signed`] `bind+jwt` | 201 [`Bound`] |
//! | `GET tokens` | – | [`HeldTokens`] |
//! | `GET devices` | – | [`Devices`] |
//! | `GET enrollments` | – | [`OpenEnrollments`] |
//! | `POST enrollments` | [`Signed`] `enroll+jwt` | [`Signed`] `seed-delivery+jwt` |
//! | `GET enrollments/{id}` | – | the same bytes |
//! | `POST enrollments/{id}/confirm` | [`Confirm`] | [`Confirmed`] |
//! | `GET approvals?wait=25` | – | [`Approvals`] |
//! | `POST approvals/{id}/response` | [`Signed`] `approval-response+jwt` | [`Answered`] |
//! | `POST tokens/{id}/rotate` | [`Signed`] `rotate-request+jwt` | 201 [`Rotating`] |
//! | `POST keys` | [`Signed`] `key-change+jwt` | [`Bound`] |

use serde::{Deserialize, Serialize, Serializer};

use super::activation::ActivationName;
use super::bytes::{Mac, Nonce, present};
use super::jwk::JwkSet;
use crate::id::{DeviceId, EnrollmentId, OperationId, TokenId};
use crate::otp::Code;
use crate::secret::SecretText;
use crate::text::Name;
use crate::time::Timestamp;

/// Writes a secret into the one body that carries it.
fn exposed<S: Serializer>(secret: &SecretText, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose())
}

/// Writes a code into the one body that carries it.
fn exposed_code<S: Serializer>(code: &Code, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(code.expose())
}

/// A signed message as the body of a request or an answer: its exact text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signed {
    /// The compact JWS.
    pub message: String,
}

/// Begins the binding of a phone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BindingStart {
    /// The first four characters of the code. The others never travel.
    pub activation: ActivationName,
}

/// The server proves that it knows the code.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BindingStarted {
    /// For the `bind+jwt`.
    pub nonce: Nonce,
    /// The server's address, as it stands in messages.
    pub issuer: String,
    /// The server's keys; on the wire a string that holds the exact text.
    pub jwks: JwkSet,
    /// [`super::activation::ActivationKey::server_mac`] over the three.
    pub mac: Mac,
}

/// The phone is bound, or has changed its key. No `Debug`: it holds the phone's access token.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bound {
    /// The phone's id, its `iss` from now on.
    pub device: DeviceId,
    /// The access token for the device API, bound to the phone's key (RFC 9449 section 6).
    #[serde(serialize_with = "exposed")]
    pub device_token: SecretText,
    /// Present where a phone bound before has to agree first: the number to type there, which the
    /// new phone shows. Until then the new phone can do nothing.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub match_number: Option<String>,
}

/// The tokens that the phone's owner holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeldTokens {
    /// In the order of their serial numbers.
    pub tokens: Vec<HeldToken>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeldToken {
    /// Its id.
    pub token: TokenId,
    /// Its serial number.
    pub serial: String,
    /// The company's name.
    pub company: Name,
    /// What it can do.
    pub state: HeldState,
    /// The generation of its seed.
    pub generation: u32,
    /// The version of its state, for a `rotate-request+jwt`.
    pub state_version: u64,
    /// The phone that has its seed; absent while none has.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceId>,
}

/// The states of a token that somebody holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeldState {
    /// Waits for a phone.
    Assigned,
    /// Makes codes that are accepted.
    Active,
    /// Makes codes that are not.
    Blocked,
}

/// The phones of the phone's owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Devices {
    /// The oldest first.
    pub devices: Vec<Device>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Its id.
    pub device: DeviceId,
    /// Its name, as its owner gave it.
    pub name: Name,
    /// Its system.
    pub platform: Name,
    /// Whether it may speak.
    pub state: DeviceState,
    /// Since when it is bound.
    pub bound_at: Timestamp,
}

/// The states of a phone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceState {
    /// Not yet: a phone bound before it has to agree.
    Waiting,
    /// It may.
    Bound,
    /// Not for now: its counter went back, so that there may be two of it.
    Suspended,
    /// Never again.
    Revoked,
}

/// What waits to be enrolled on a phone of the phone's owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenEnrollments {
    /// The oldest first.
    pub enrollments: Vec<OpenEnrollment>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenEnrollment {
    /// Its id, for the `enroll+jwt`.
    pub enrollment: EnrollmentId,
    /// Which token.
    pub token: TokenId,
    /// The token's serial number.
    pub serial: String,
    /// The company's name.
    pub company: Name,
    /// The generation that would begin.
    pub generation: u32,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// Confirms a delivered seed with a code it makes. No `Debug`: it holds the code.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confirm {
    /// The code of the new generation.
    #[serde(serialize_with = "exposed_code")]
    pub code: Code,
}

/// The generation is live, and the one before it dead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confirmed {
    /// Which token.
    pub token: TokenId,
    /// Which generation.
    pub generation: u32,
}

/// What waits for an answer of this phone. Empty where the wait ended without anything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approvals {
    /// The oldest first.
    pub approvals: Vec<Approval>,
}

/// One of them; also the data of an event of `GET stream`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// The id for the address of the answer; the same as `txn` in the request.
    pub id: OperationId,
    /// The `approval-request+jwt`: its exact text.
    pub request: String,
}

/// What became of the operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answered {
    /// Which operation.
    pub operation: OperationId,
    /// Its state now.
    pub state: OperationState,
}

/// The states of an operation that needs an approval.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationState {
    /// Waits for a phone.
    Pending,
    /// The person said no.
    Denied,
    /// Nobody answered in time.
    Expired,
    /// The asker took it back.
    Cancelled,
    /// Approved and done.
    Executed,
    /// Approved, and no longer possible.
    Failed,
}

/// A rotation that the holder began is open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rotating {
    /// The enrollment of the new generation.
    pub enrollment: EnrollmentId,
    /// The new generation.
    pub generation: u32,
}
