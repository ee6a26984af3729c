//! What callers of the company API are shown. Never a seed, a code, a key or a secret, but for the
//! few answers that exist to hand one out, once.

use schemars::JsonSchema;
use semilla_core::approval::{Operation, OperationState};
use semilla_core::device::Device;
use semilla_core::enrollment::Enrollment;
use semilla_core::id::{CompanyId, DeviceId, EnrollmentId, OperationId, TokenId, UserId};
use semilla_core::operations::{Action, State};
use semilla_core::person::{Company, Login, Role, User};
use semilla_core::policy::Policy;
use semilla_core::protocol::approval::{DenialReason, MatchNumber};
use semilla_core::text::Name;
use semilla_core::time::Timestamp;
use semilla_core::token::{Custody, Kind, Serial};
use serde::Serialize;

use super::View;
use crate::records::{ApiScope, ApprovalSettings, Client, DeliveryMode, Generation, StoredToken};
use crate::store::Versioned;

/// A token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct TokenView {
    /// Its id.
    pub id: TokenId,
    /// What is printed on lists.
    pub serial: Serial,
    /// Virtual, physical, or a program of others.
    pub kind: Kind,
    /// Its state.
    pub state: State,
    /// The live generation, or the one kept under a block.
    pub generation: Option<u32>,
    /// Who holds it.
    pub holder: Option<UserId>,
    /// Their name.
    pub holder_name: Option<Name>,
    /// The phone with the live generation.
    pub device: Option<DeviceId>,
    /// What was last done to it.
    pub last_action: Action,
    /// Why.
    pub last_cause: Option<String>,
    /// The operation that waits for a phone.
    pub pending_operation: Option<OperationId>,
    /// The enrollment that is open.
    pub enrollment: Option<EnrollmentId>,
    /// When anything of it last changed.
    pub updated_at: Timestamp,
    /// For `If-Match`.
    #[serde(skip)]
    pub version: i64,
}

impl TokenView {
    /// Shows a token.
    pub fn of(stored: &StoredToken, version: i64) -> Self {
        let token = &stored.token;
        Self {
            id: token.id,
            serial: token.serial.clone(),
            kind: token.kind,
            state: token.state(),
            generation: token.live().map(|live| live.generation),
            holder: token.holder(),
            holder_name: stored.holder_name.clone(),
            device: token.live().and_then(|live| live.custody.device()),
            last_action: token.last.action,
            last_cause: token.last.cause.clone(),
            pending_operation: token.pending,
            enrollment: token.enrollment,
            updated_at: stored.updated,
            version,
        }
    }
}

impl From<&Versioned<StoredToken>> for TokenView {
    fn from(stored: &Versioned<StoredToken>) -> Self {
        Self::of(&stored.record, stored.version)
    }
}

impl View for TokenView {
    fn version(&self) -> Option<i64> {
        Some(self.version)
    }
}

/// A page of a list.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(rename = "PageOf{T}")]
pub struct Page<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// For `cursor`, where there is more.
    pub next_cursor: Option<String>,
    /// How many there are on all pages.
    pub total: u64,
}

impl<T: Serialize + JsonSchema + Send + 'static> View for Page<T> {}

/// A generation: that it was, never what it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct GenerationView {
    /// Its number.
    pub generation: u32,
    /// Whose it was.
    pub holder: UserId,
    /// The phone it was on; none where an authenticator app had it, or it came with the token.
    pub device: Option<DeviceId>,
    /// Since when it was live.
    pub live_since: Timestamp,
    /// Since when its seed is destroyed.
    pub destroyed_at: Option<Timestamp>,
}

impl From<&Generation> for GenerationView {
    fn from(generation: &Generation) -> Self {
        Self {
            generation: generation.number,
            holder: generation.holder,
            device: match generation.custody {
                Custody::Phone(device) => Some(device),
                Custody::AuthenticatorApp | Custody::Imported => None,
            },
            live_since: generation.live_since,
            destroyed_at: generation.destroyed,
        }
    }
}

/// An enrollment: that it is open, never what opens it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct EnrollmentView {
    /// Its id.
    pub id: EnrollmentId,
    /// Of which token.
    pub token: TokenId,
    /// For whom.
    pub holder: UserId,
    /// The generation it makes.
    pub generation: u32,
    /// How far it has come.
    pub state: &'static str,
    /// Until when.
    pub expires_at: Timestamp,
}

impl From<&Enrollment> for EnrollmentView {
    fn from(enrollment: &Enrollment) -> Self {
        Self {
            id: enrollment.id,
            token: enrollment.token,
            holder: enrollment.holder,
            generation: enrollment.generation,
            state: enrollment.state.name(),
            expires_at: enrollment.expires,
        }
    }
}

impl View for EnrollmentView {}

/// An enrollment that was opened by this request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct EnrollmentOpened {
    /// The enrollment.
    pub enrollment: EnrollmentView,
}

impl View for EnrollmentOpened {
    const STATUS: u16 = 201;
    fn location(&self) -> Option<String> {
        Some(format!("/api/v1/enrollments/{}", self.enrollment.id))
    }
}

/// An activation code, for its holder, once. No `Debug`.
#[derive(Clone, Serialize, JsonSchema)]
pub struct ActivationView {
    /// To be typed.
    pub code: String,
    /// To be opened on the phone.
    pub uri: String,
    /// To be scanned: an SVG image of `uri`.
    pub qr_svg: String,
    /// Until when.
    pub expires_at: Timestamp,
}

impl View for ActivationView {
    const STATUS: u16 = 201;
}

/// A seed for an authenticator app, for its holder, once. No `Debug`.
#[derive(Clone, Serialize, JsonSchema)]
pub struct OtpauthView {
    /// The `otpauth://` URI.
    pub uri: String,
    /// To be scanned: an SVG image of `uri`.
    pub qr_svg: String,
}

impl View for OtpauthView {}

/// An operation that waits, or waited, for a phone.
#[derive(Clone, Serialize, JsonSchema)]
pub struct OperationView {
    /// Its id.
    pub id: OperationId,
    /// What was asked.
    pub action: &'static str,
    /// Why.
    pub cause: Option<&'static str>,
    /// Of which token.
    pub token: Option<TokenId>,
    /// Whose token or phone.
    pub holder: UserId,
    /// In whose name.
    pub asker: UserId,
    /// How it stands.
    pub state: &'static str,
    /// The number to type on the phone, while it waits.
    pub match_number: Option<String>,
    /// The phone that answered.
    pub device: Option<DeviceId>,
    /// Why it was denied.
    pub reason: Option<DenialReason>,
    /// The problem that made it fail.
    pub problem: Option<String>,
    /// Since when.
    pub created_at: Timestamp,
    /// Until when it may be answered.
    pub expires_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}

impl OperationView {
    /// Shows an operation; its number only where the asker is the one who looks.
    pub fn of(operation: &Operation, number: Option<&MatchNumber>) -> Self {
        let (device, reason, problem, ended_at) = match &operation.state {
            OperationState::Pending => (None, None, None, None),
            OperationState::Denied { device, reason, at } => {
                (Some(*device), Some(*reason), None, Some(*at))
            }
            OperationState::Expired { at } | OperationState::Cancelled { at } => {
                (None, None, None, Some(*at))
            }
            OperationState::Executed { device, at, .. } => (Some(*device), None, None, Some(*at)),
            OperationState::Failed { device, at, problem } => {
                (Some(*device), None, Some(problem.clone()), Some(*at))
            }
        };
        let pending = operation.state == OperationState::Pending;
        Self {
            id: operation.id,
            action: operation.action.name(),
            cause: operation.action.cause().map(|cause| cause.name()),
            token: operation.token.map(|token| token.id),
            holder: operation.holder,
            asker: operation.asker,
            state: operation.state.name(),
            match_number: number.filter(|_| pending).map(|number| number.expose().to_owned()),
            device,
            reason,
            problem,
            created_at: operation.created,
            expires_at: operation.expires,
            ended_at,
        }
    }
}

impl View for OperationView {}

/// An operation that this request began.
#[derive(Clone, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct OperationAsked(pub OperationView);

impl View for OperationAsked {
    const STATUS: u16 = 202;
    fn location(&self) -> Option<String> {
        Some(format!("/api/v1/operations/{}", self.0.id))
    }
}

/// The answer to a code: the same for every reason not to accept it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct VerifyView {
    /// Whether it is accepted.
    pub accepted: bool,
}

impl View for VerifyView {}

/// A person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct UserView {
    /// Their id.
    pub id: UserId,
    /// For programs.
    pub login: Login,
    /// As lists show it.
    pub name: Name,
    /// What they may do.
    pub role: Role,
    /// Whether they take part.
    pub active: bool,
    /// Since when.
    pub created_at: Timestamp,
    /// For `If-Match`.
    #[serde(skip)]
    pub version: i64,
}

impl UserView {
    /// Shows a person.
    pub fn of(user: &User, version: i64) -> Self {
        Self {
            id: user.id,
            login: user.login.clone(),
            name: user.name.clone(),
            role: user.role,
            active: user.active,
            created_at: user.created,
            version,
        }
    }
}

impl View for UserView {
    fn version(&self) -> Option<i64> {
        Some(self.version)
    }
}

/// A person that this request made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct UserCreated(pub UserView);

impl View for UserCreated {
    const STATUS: u16 = 201;
    fn location(&self) -> Option<String> {
        Some(format!("/api/v1/users/{}", self.0.id))
    }
    fn version(&self) -> Option<i64> {
        Some(self.0.version)
    }
}

/// A phone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct DeviceView {
    /// Its id.
    pub id: DeviceId,
    /// Whose.
    pub user: UserId,
    /// As its owner called it.
    pub name: Name,
    /// What it says it is.
    pub platform: Name,
    /// Whether it is trusted.
    pub state: &'static str,
    /// Since when.
    pub bound_at: Timestamp,
}

impl From<&Device> for DeviceView {
    fn from(device: &Device) -> Self {
        Self {
            id: device.id,
            user: device.user,
            name: device.name.clone(),
            platform: device.platform.clone(),
            state: device.state.name(),
            bound_at: device.bound,
        }
    }
}

impl View for DeviceView {}

/// A company.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct CompanyView {
    /// Its id.
    pub id: CompanyId,
    /// Its name.
    pub name: Name,
    /// Whether it takes part.
    pub active: bool,
    /// What it chose.
    pub policy: Policy,
    /// Since when.
    pub created_at: Timestamp,
    /// For `If-Match`.
    #[serde(skip)]
    pub version: i64,
}

impl CompanyView {
    /// Shows a company.
    pub fn of(company: &Company, version: i64) -> Self {
        Self {
            id: company.id,
            name: company.name.clone(),
            active: company.active,
            policy: company.policy,
            created_at: company.created,
            version,
        }
    }
}

impl View for CompanyView {
    fn version(&self) -> Option<i64> {
        Some(self.version)
    }
}

/// A company that this request made, with its first administrator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct CompanyCreated {
    /// The company.
    pub company: CompanyView,
    /// Its first administrator.
    pub administrator: UserView,
}

impl View for CompanyCreated {
    const STATUS: u16 = 201;
    fn location(&self) -> Option<String> {
        Some(format!("/api/v1/companies/{}", self.company.id))
    }
}

/// A company's policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PolicyView {
    /// What it chose.
    #[serde(flatten)]
    pub policy: Policy,
    /// For `If-Match`.
    #[serde(skip)]
    pub version: i64,
}

impl View for PolicyView {
    fn version(&self) -> Option<i64> {
        Some(self.version)
    }
}

/// A program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ClientView {
    /// Its `client_id`.
    pub client_id: semilla_core::id::ClientId,
    /// Whose.
    pub company: CompanyId,
    /// What people call it.
    pub name: Name,
    /// What it may do.
    pub scopes: Vec<ApiScope>,
    /// In whose names.
    pub askers: Vec<UserId>,
    /// How it proves itself.
    pub token_endpoint_auth_method: AuthMethod,
    /// How it asks people's phones for approvals of its own, where it may.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approvals: Option<ApprovalsView>,
    /// Whether it may do anything.
    pub active: bool,
}

/// How a program asks people's phones for approvals of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ApprovalsView {
    /// How it learns of the answer.
    pub mode: DeliveryMode,
    /// Where it is told that there is one.
    pub notification_endpoint: Option<String>,
    /// The types of `authorization_details` that it may ask for.
    pub details_types: Vec<String>,
    /// Whether it has to sign its requests.
    pub signed_requests: bool,
    /// Whether the person has to type the number that it shows.
    pub match_number: bool,
    /// Whether the rules of FAPI CIBA hold for it.
    pub fapi: bool,
}

impl From<&ApprovalSettings> for ApprovalsView {
    fn from(settings: &ApprovalSettings) -> Self {
        Self {
            mode: settings.mode,
            notification_endpoint: settings.notification_endpoint.clone(),
            details_types: settings.details_types.clone(),
            // FAPI wants them signed, whatever else is said.
            signed_requests: settings.signed_requests || settings.fapi,
            match_number: settings.match_number,
            fapi: settings.fapi,
        }
    }
}

/// How a program proves itself (RFC 8414, `token_endpoint_auth_methods_supported`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuthMethod {
    /// By a secret, as HTTP Basic.
    ClientSecretBasic,
    /// By an assertion signed with its key.
    PrivateKeyJwt,
}

impl From<&Client> for ClientView {
    fn from(client: &Client) -> Self {
        Self {
            client_id: client.id,
            company: client.company,
            name: client.name.clone(),
            scopes: client.scopes.clone(),
            askers: client.askers.clone(),
            token_endpoint_auth_method: match client.secret_sha256 {
                Some(_) => AuthMethod::ClientSecretBasic,
                None => AuthMethod::PrivateKeyJwt,
            },
            approvals: client.approvals.as_ref().map(ApprovalsView::from),
            active: client.active,
        }
    }
}

impl View for ClientView {}

/// A program that this request made, with its secret, once, where it has one. No `Debug`.
#[derive(Clone, Serialize, JsonSchema)]
pub struct ClientCreated {
    /// The program.
    #[serde(flatten)]
    pub client: ClientView,
    /// Its secret; none where it proves itself by a key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_secret: Option<String>,
}

impl View for ClientCreated {
    const STATUS: u16 = 201;
}

/// What an operator's request did to several tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct TokensChanged {
    /// The tokens as they are now.
    pub tokens: Vec<TokenView>,
}

impl View for TokensChanged {}

/// Nothing to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Nothing {}

impl View for Nothing {
    const STATUS: u16 = 204;
}
