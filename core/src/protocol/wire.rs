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

use schemars::JsonSchema;
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Signed {
    /// The compact JWS.
    pub message: String,
}

/// Begins the binding of a phone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BindingStart {
    /// The first four characters of the code. The others never travel.
    pub activation: ActivationName,
}

/// The server proves that it knows the code.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
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
#[derive(Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeldTokens {
    /// In the order of their serial numbers.
    pub tokens: Vec<HeldToken>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Devices {
    /// The oldest first.
    pub devices: Vec<Device>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OpenEnrollments {
    /// The oldest first.
    pub enrollments: Vec<OpenEnrollment>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Confirm {
    /// The code of the new generation.
    #[serde(serialize_with = "exposed_code")]
    pub code: Code,
}

/// The generation is live, and the one before it dead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Confirmed {
    /// Which token.
    pub token: TokenId,
    /// Which generation.
    pub generation: u32,
}

/// What waits for an answer of this phone. Empty where the wait ended without anything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Approvals {
    /// The oldest first.
    pub approvals: Vec<Approval>,
}

/// One of them; also the data of an event of `GET stream`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// The id for the address of the answer; the same as `txn` in the request.
    pub id: OperationId,
    /// The `approval-request+jwt`: its exact text.
    pub request: String,
}

/// What became of the operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Answered {
    /// Which operation.
    pub operation: OperationId,
    /// Its state now.
    pub state: OperationState,
}

/// The states of an operation that needs an approval.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rotating {
    /// The enrollment of the new generation.
    pub enrollment: EnrollmentId,
    /// The new generation.
    pub generation: u32,
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;
    use serde_json::json;

    use super::*;

    /// Reads `body`, writes it, and finds every change of its fields refused.
    fn is_strict<T: Serialize + DeserializeOwned>(body: serde_json::Value) {
        let text = body.to_string();
        let read: T = serde_json::from_str(&text).expect("a body");
        assert_eq!(serde_json::to_value(&read).expect("JSON"), body);
        let unknown = text.replacen('{', r#"{"unknown":1,"#, 1);
        assert!(serde_json::from_str::<T>(&unknown).is_err(), "{unknown}");
        for (name, value) in body.as_object().expect("an object") {
            let doubled = text.replacen('{', &format!(r#"{{"{name}":{value},"#), 1);
            assert!(serde_json::from_str::<T>(&doubled).is_err(), "{doubled}");
            let mut null = body.clone();
            null[name] = serde_json::Value::Null;
            assert!(serde_json::from_value::<T>(null).is_err(), "{name} null");
        }
    }

    #[test]
    fn every_body_is_written_as_it_is_read_and_nothing_else_is_read() {
        let id = "019ac6a5-1c00-7000-8000-000000000001";
        let jwks = r#"{"keys":[{"kty":"EC","crv":"P-256","x":"l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs","y":"9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA","kid":"0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I","alg":"ES256","use":"sig"}]}"#;
        is_strict::<Signed>(json!({"message": "a.b.c"}));
        is_strict::<BindingStart>(json!({"activation": "7ZQ4"}));
        is_strict::<BindingStarted>(json!({
            "nonce": "AAECAwQFBgcICQoLDA0ODw", "issuer": "https://semilla.example",
            "jwks": jwks, "mac": "T8_6IL9jLQEklNJOHBx6HD7ovGN7xxtS_ohbkIyqBn8",
        }));
        is_strict::<Bound>(json!({"device": id, "device_token": "secret"}));
        let token = json!({
            "token": id, "serial": "FEF4900032", "company": "Ferretería", "state": "active",
            "generation": 1, "state_version": 4, "device": id,
        });
        is_strict::<HeldTokens>(json!({"tokens": [token]}));
        is_strict::<HeldToken>(token);
        is_strict::<HeldToken>(json!({
            "token": id, "serial": "FEF4900032", "company": "Ferretería", "state": "assigned",
            "generation": 1, "state_version": 4,
        }));
        let device = json!({
            "device": id, "name": "Teléfono de Laura", "platform": "Android 16",
            "state": "suspended", "bound_at": "2025-11-24T16:00:00.000Z",
        });
        is_strict::<Devices>(json!({"devices": [device]}));
        is_strict::<Device>(device);
        let enrollment = json!({
            "enrollment": id, "token": id, "serial": "FEF4900032", "company": "Ferretería",
            "generation": 2, "expires_at": "2025-11-24T16:00:00.000Z",
        });
        is_strict::<OpenEnrollments>(json!({"enrollments": [enrollment]}));
        is_strict::<OpenEnrollment>(enrollment);
        is_strict::<Confirm>(json!({"code": "01234567"}));
        is_strict::<Confirmed>(json!({"token": id, "generation": 2}));
        is_strict::<Approvals>(json!({"approvals": []}));
        is_strict::<Approval>(json!({"id": id, "request": "a.b.c"}));
        is_strict::<Answered>(json!({"operation": id, "state": "executed"}));
        is_strict::<Rotating>(json!({"enrollment": id, "generation": 2}));
    }
}
