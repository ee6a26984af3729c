//! What the product stores, and where: each record's table and the columns that queries need
//! beside its JSON. The order of a record's `columns` is the order of its table's.

use std::fmt;

use schemars::JsonSchema;
use semilla_core::approval::Operation;
use semilla_core::device::{Device, DeviceState};
use semilla_core::enrollment::{Activation, Enrollment};
use semilla_core::id::{ClientId, CompanyId, DeviceId, OperationId, TokenId, UserId};
use semilla_core::otp::{Method, Step};
use semilla_core::person::{Company, User};
use semilla_core::protocol::assertion::ClientKey;
use semilla_core::protocol::jwk::KeyId;
use semilla_core::seal::Sealed;
use semilla_core::text::{Name, fold};
use semilla_core::time::Timestamp;
use semilla_core::token::{Custody, Token};
use serde::{Deserialize, Serialize};

use crate::store::{Record, Table, Value};

macro_rules! record {
    ($type:ty, $table:literal, company: $company:expr, id: $id:expr, [$($column:literal => $value:expr),* $(,)?]) => {
        impl Record for $type {
            const TABLE: &'static Table = &Table { name: $table, columns: &[$($column),*] };
            fn company(&self) -> CompanyId {
                let company: fn(&Self) -> CompanyId = $company;
                company(self)
            }
            fn id(&self) -> String {
                let id: fn(&Self) -> String = $id;
                id(self)
            }
            fn columns(&self) -> Vec<Value> {
                vec![$({ let value: fn(&Self) -> Value = $value; value(self) }),*]
            }
        }
    };
}

pub(crate) use record;

record!(Company, "companies", company: |_| CompanyId::BANK, id: |it| it.id.to_string(), [
    "name" => |it| it.name.folded().into(),
    "state" => |it| if it.active { "active" } else { "inactive" }.into(),
]);

record!(User, "users", company: |it| it.company, id: |it| it.id.to_string(), [
    "login" => |it| it.login.as_str().into(),
    "name_folded" => |it| it.name.folded().into(),
    "role" => |it| it.role.name().into(),
    "state" => |it| if it.active { "active" } else { "inactive" }.into(),
]);

/// A token as stored: with the name of its holder, so that lists sort and search by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredToken {
    /// The token.
    pub token: Token,
    /// Its holder's name, as it was last told.
    pub holder_name: Option<Name>,
    /// When anything of it last changed.
    pub updated: Timestamp,
}

record!(StoredToken, "tokens", company: |it| it.token.company, id: |it| it.token.id.to_string(), [
    "serial" => |it| it.token.serial.as_str().into(),
    "serial_folded" => |it| fold(it.token.serial.as_str()).into(),
    "kind" => |it| it.token.kind.name().into(),
    "state" => |it| it.token.state().name().into(),
    "holder" => |it| it.token.holder().map(|holder| holder.to_string()).into(),
    "holder_name_folded" => |it| it.holder_name.as_ref().map(|name| fold(name.as_str())).into(),
    "device" => |it| it.token.live().and_then(|live| live.custody.device()).map(|id| id.to_string()).into(),
    "updated" => |it| it.updated.into(),
]);

/// A generation's life, without its seed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Generation {
    /// Whose company's.
    pub company: CompanyId,
    /// Of which token.
    pub token: TokenId,
    /// Its number.
    pub number: u32,
    /// Whose it was.
    pub holder: UserId,
    /// Where it was.
    pub custody: Custody,
    /// Since when it was live.
    pub live_since: Timestamp,
    /// Since when its seed is destroyed.
    pub destroyed: Option<Timestamp>,
}

impl Generation {
    /// Its name among the company's generations.
    pub fn id_of(token: TokenId, number: u32) -> String {
        format!("{token}:{number:010}")
    }
}

record!(Generation, "generations", company: |it| it.company, id: |it| Generation::id_of(it.token, it.number), [
    "token" => |it| it.token.to_string().into(),
    "state" => |it| if it.destroyed.is_some() { "destroyed" } else { "kept" }.into(),
]);

/// The seed that a token came with, for as long as the token may be given to somebody. It is the
/// bank's, whose pool the token is in, and opens nothing by itself: a generation is made of it for
/// each holder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnSeed {
    /// Of which token.
    pub token: TokenId,
    /// The seed, sealed.
    pub sealed: Sealed,
    /// How its codes are made.
    pub method: Method,
    /// The last step that was consumed before it was imported, or at a company it was withdrawn
    /// from.
    pub after: Option<Step>,
    /// By how many steps its clock is said to be ahead.
    pub drift: i32,
    /// Who made it.
    pub manufacturer: Option<String>,
    /// Which one it is.
    pub model: Option<String>,
    /// When it was last exported: others may have it since.
    pub exported: Option<Timestamp>,
}

record!(OwnSeed, "own_seeds", company: |_| CompanyId::BANK, id: |it| it.token.to_string(), []);

record!(Device, "devices", company: |it| it.company, id: |it| it.id.to_string(), [
    "user" => |it| it.user.to_string().into(),
    "state" => |it| it.state.name().into(),
]);

/// The states in which a phone is a phone of its person.
pub const DEVICE_STATES_HELD: [&str; 2] = ["bound", "suspended"];

/// Whether a phone may be asked for approvals and fetch what is its person's.
pub fn is_trusted(device: &Device) -> bool {
    device.state == DeviceState::Bound
}

record!(Enrollment, "enrollments", company: |it| it.company, id: |it| it.id.to_string(), [
    "token" => |it| it.token.to_string().into(),
    "holder" => |it| it.holder.to_string().into(),
    "state" => |it| if it.state.is_open() { "open" } else { it.state.name() }.into(),
    "expires" => |it| it.expires.into(),
]);

record!(Operation, "operations", company: |it| it.company, id: |it| it.id.to_string(), [
    "token" => |it| it.token.as_ref().map(|token| token.id.to_string()).into(),
    "state" => |it| it.state.name().into(),
    "expires" => |it| it.expires.into(),
    "asker" => |it| it.asker.to_string().into(),
]);

record!(Activation, "activations", company: |it| it.company, id: |it| it.name.clone(), [
    "user" => |it| it.user.to_string().into(),
    "state" => |it| if it.is_live(Timestamp::from_milliseconds(0)) { "live" } else { "ended" }.into(),
    "expires" => |it| it.expires.into(),
]);

/// What a program may do (protocol: scopes).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum ApiScope {
    /// Read tokens and operations.
    #[serde(rename = "tokens:read")]
    TokensRead,
    /// Assign tokens, open enrollments.
    #[serde(rename = "tokens:assign")]
    TokensAssign,
    /// Block tokens, revoke phones.
    #[serde(rename = "tokens:block")]
    TokensBlock,
    /// Ask for release, unblock and rotate.
    #[serde(rename = "tokens:release")]
    TokensRelease,
    /// Check codes.
    #[serde(rename = "otp:verify")]
    OtpVerify,
    /// Receive activation codes, to deliver them to their holders.
    #[serde(rename = "enrollments:deliver")]
    EnrollmentsDeliver,
    /// People and their phones.
    #[serde(rename = "users:manage")]
    UsersManage,
    /// The company's policy.
    #[serde(rename = "policies:manage")]
    PoliciesManage,
    /// The company's audit trail.
    #[serde(rename = "audit:read")]
    AuditRead,
    /// The company's webhooks.
    #[serde(rename = "webhooks:manage")]
    WebhooksManage,
    /// Ask people's phones for approvals of the program's own, at `/bc-authorize`.
    #[serde(rename = "approvals:ask")]
    ApprovalsAsk,
    /// The bank's: issue, allot, withdraw, retire.
    #[serde(rename = "stock:manage")]
    StockManage,
    /// The bank's: companies, their first administrators and their programs.
    #[serde(rename = "companies:manage")]
    CompaniesManage,
}

impl ApiScope {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::TokensRead,
        Self::TokensAssign,
        Self::TokensBlock,
        Self::TokensRelease,
        Self::OtpVerify,
        Self::EnrollmentsDeliver,
        Self::UsersManage,
        Self::PoliciesManage,
        Self::AuditRead,
        Self::WebhooksManage,
        Self::ApprovalsAsk,
        Self::StockManage,
        Self::CompaniesManage,
    ];

    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::TokensRead => "tokens:read",
            Self::TokensAssign => "tokens:assign",
            Self::TokensBlock => "tokens:block",
            Self::TokensRelease => "tokens:release",
            Self::OtpVerify => "otp:verify",
            Self::EnrollmentsDeliver => "enrollments:deliver",
            Self::UsersManage => "users:manage",
            Self::PoliciesManage => "policies:manage",
            Self::AuditRead => "audit:read",
            Self::WebhooksManage => "webhooks:manage",
            Self::ApprovalsAsk => "approvals:ask",
            Self::StockManage => "stock:manage",
            Self::CompaniesManage => "companies:manage",
        }
    }

    /// Whether only the bank's programs may have it.
    pub fn is_of_bank(self) -> bool {
        matches!(self, Self::StockManage | Self::CompaniesManage)
    }

    /// The scope of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.name() == name)
    }
}

impl fmt::Display for ApiScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A program that holds credentials for the API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Client {
    /// Its id, which is its `client_id`.
    pub id: ClientId,
    /// Whose: a company's, or the bank's.
    pub company: CompanyId,
    /// What people call it.
    pub name: Name,
    /// SHA-256 of its secret, base64url. The secret has 256 random bits, so that no slower
    /// function would add anything. None where it proves itself by a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_sha256: Option<String>,
    /// The keys by which it proves itself; none where it has a secret.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<ClientKey>,
    /// What it may do.
    pub scopes: Vec<ApiScope>,
    /// In whose names.
    pub askers: Vec<UserId>,
    /// How it asks people's phones for approvals of its own, where it may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approvals: Option<ApprovalSettings>,
    /// Whether it may do anything.
    pub active: bool,
}

/// How a program asks people's phones for approvals of its own (OpenID CIBA Core section 4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [{
    "mode": "ping",
    "notification_endpoint": "https://payments.example/ping",
    "details_types": ["payment_initiation"],
}]))]
pub struct ApprovalSettings {
    /// How it learns of the answer.
    #[serde(default)]
    pub mode: DeliveryMode,
    /// Where it is told that there is one, in the mode `ping`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notification_endpoint: Option<String>,
    /// The types of `authorization_details` that it may ask for (RFC 9396).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), inner(length(min = 1, max = 100)))]
    pub details_types: Vec<String>,
    /// Whether it has to sign its requests (section 7.1.1).
    #[serde(default)]
    pub signed_requests: bool,
    /// Whether the person has to type the number that it is answered and has to show. Only a
    /// program that cannot show it goes without: a yes on a phone alone is what tired people give.
    #[serde(default = "yes")]
    pub match_number: bool,
    /// Whether the rules of FAPI CIBA hold for it: it proves itself by a key, signs its requests,
    /// and its access tokens are bound to a key.
    #[serde(default)]
    pub fapi: bool,
}

impl Default for ApprovalSettings {
    fn default() -> Self {
        Self {
            mode: DeliveryMode::Poll,
            notification_endpoint: None,
            details_types: Vec::new(),
            signed_requests: false,
            match_number: true,
            fapi: false,
        }
    }
}

fn yes() -> bool {
    true
}

/// How a program learns of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryMode {
    /// It asks again and again.
    #[default]
    Poll,
    /// It is told that there is one, and asks then.
    Ping,
}

/// What a program asked a person's phone, beside the operation of the same id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsentRequest {
    /// The client's company.
    pub company: CompanyId,
    /// The operation.
    pub operation: OperationId,
    /// Who asked.
    pub client: ClientId,
    /// Whom.
    pub user: UserId,
    /// SHA-256 of the `auth_req_id`, base64url.
    pub sha256: String,
    /// How many seconds have to pass between two looks.
    pub interval: u64,
    /// When it last looked.
    pub looked: Option<Timestamp>,
    /// When it was given its tokens: once.
    pub redeemed: Option<Timestamp>,
    /// What it is to be told, sealed, until it was.
    pub ping: Option<Sealed>,
    /// How often that failed.
    pub ping_failures: u32,
    /// When it is to be told; none while there is nothing to tell.
    pub ping_due: Option<Timestamp>,
    /// Until when it is kept.
    pub expires: Timestamp,
}

record!(ConsentRequest, "consents", company: |it| it.company, id: |it| it.operation.to_string(), [
    "ping_due" => |it| it.ping_due.map(|at| at.milliseconds()).into(),
    "expires" => |it| it.expires.into(),
]);

/// What a program asked a person lately that was not approved: whoever is asked too often says
/// yes at some time (security 65, 67).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsentHistory {
    /// The client's company.
    pub company: CompanyId,
    /// Who asked.
    pub client: ClientId,
    /// Whom.
    pub user: UserId,
    /// Which operations, the latest last.
    pub asked: Vec<OperationId>,
    /// Until when it is kept.
    pub expires: Timestamp,
}

impl ConsentHistory {
    /// Its name among the company's.
    pub fn id_of(client: ClientId, user: UserId) -> String {
        format!("{client}:{user}")
    }
}

record!(ConsentHistory, "consent_histories", company: |it| it.company, id: |it| ConsentHistory::id_of(it.client, it.user), [
    "expires" => |it| it.expires.into(),
]);

record!(Client, "clients", company: |it| it.company, id: |it| it.id.to_string(), [
    "state" => |it| if it.active { "active" } else { "inactive" }.into(),
]);

/// An access token that was given out; the token itself is known to its client alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessToken {
    /// SHA-256 of the token, base64url.
    pub sha256: String,
    /// The client's company.
    pub company: CompanyId,
    /// Which client's.
    pub client: ClientId,
    /// What it is good for: at most what the client may do.
    pub scopes: Vec<ApiScope>,
    /// Until when.
    pub expires: Timestamp,
    /// The key that has to sign every request with it (RFC 9449); none where whoever has the
    /// token may use it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound_to: Option<KeyId>,
}

record!(AccessToken, "access_tokens", company: |it| it.company, id: |it| it.sha256.clone(), [
    "client" => |it| it.client.to_string().into(),
    "expires" => |it| it.expires.into(),
]);

/// That a program used an assertion: it counts once (RFC 7523 section 3, `jti`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UsedAssertion {
    /// The client's company.
    pub company: CompanyId,
    /// Whose.
    pub client: ClientId,
    /// SHA-256 of its `jti`, base64url.
    pub sha256: String,
    /// When it would have ended: until then it is remembered.
    pub expires: Timestamp,
}

impl UsedAssertion {
    /// Its name among the company's.
    pub fn id_of(client: ClientId, sha256: &str) -> String {
        format!("{client}:{sha256}")
    }
}

record!(UsedAssertion, "used_assertions", company: |it| it.company, id: |it| UsedAssertion::id_of(it.client, &it.sha256), [
    "expires" => |it| it.expires.into(),
]);

/// The answer to a request with an idempotency key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdempotentAnswer {
    /// The client's company.
    pub company: CompanyId,
    /// Which client's key.
    pub client: ClientId,
    /// The key, as HMAC.
    pub key: String,
    /// The method, path and body that came with it, as HMAC.
    pub request: String,
    /// The answer, sealed: it may hold an activation code.
    pub answer: Sealed,
    /// Until when it is kept.
    pub expires: Timestamp,
}

record!(IdempotentAnswer, "idempotency", company: |it| it.company, id: |it| format!("{}:{}", it.client, it.key), [
    "client" => |it| it.client.to_string().into(),
    "expires" => |it| it.expires.into(),
]);

/// Something of the server's own, under a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setting {
    /// Its name.
    pub name: String,
    /// What it is; sealed, where that matters.
    pub value: String,
}

record!(Setting, "settings", company: |_| CompanyId::BANK, id: |it| it.name.clone(), []);

/// A checkpoint of an audit chain (see [`semilla_core::checkpoint`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredCheckpoint {
    /// Whose chain.
    pub company: CompanyId,
    /// The first record it covers.
    pub first: u64,
    /// The last one.
    pub last: u64,
    /// Its exact text.
    pub text: String,
    /// Whether it was written outside the database.
    pub written: bool,
}

impl StoredCheckpoint {
    /// Its name among the company's checkpoints: one for each first record, so that a chain has
    /// one line of them, whoever makes them.
    pub fn id_of(first: u64) -> String {
        format!("{first:020}")
    }
}

record!(StoredCheckpoint, "checkpoints", company: |it| it.company, id: |it| StoredCheckpoint::id_of(it.first), [
    "first" => |it| i64::try_from(it.first).unwrap_or(i64::MAX).into(),
    "state" => |it| if it.written { "written" } else { "unwritten" }.into(),
]);

/// That a phone was asked: what an inbox lists, and how an answer finds its operation, also where
/// an operator's phone was asked for a company's operation. It stays for a while once answered, so
/// that a phone that lost the reply and asks again is told what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InboxItem {
    /// The company of the phone.
    pub company: CompanyId,
    /// The phone.
    pub device: DeviceId,
    /// The operation.
    pub operation: OperationId,
    /// The company of the operation.
    pub of: CompanyId,
    /// Whether an answer is still wanted.
    pub open: bool,
    /// Until when it is kept.
    pub expires: Timestamp,
}

impl InboxItem {
    /// Its name among the company's items.
    pub fn id_of(device: DeviceId, operation: OperationId) -> String {
        format!("{device}:{operation}")
    }
}

record!(InboxItem, "inbox", company: |it| it.company, id: |it| InboxItem::id_of(it.device, it.operation), [
    "device" => |it| it.device.to_string().into(),
    "state" => |it| if it.open { "open" } else { "closed" }.into(),
    "expires" => |it| it.expires.into(),
]);
