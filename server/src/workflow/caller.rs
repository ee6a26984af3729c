//! Who asks. These values exist only for callers whose credentials held when the request came in,
//! so that a function that wants one cannot be reached without.

use semilla_core::audit::Actor;
use semilla_core::base64url;
use semilla_core::device::{Device, DeviceState};
use semilla_core::id::{CompanyId, UserId};
use semilla_core::person::{Company, Role, User};
use semilla_core::problem::{Problem, ProblemType};
use semilla_core::protocol::jwk::KeyId;

use super::Failure;
use crate::app::App;
use crate::records::{AccessToken, ApiScope, Client};
use crate::store::{Records, Scope, Versioned};

/// A program with an access token that holds.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Its credentials.
    pub client: Client,
    /// Whose program it is.
    pub company: Company,
    /// What the access token is good for.
    pub scopes: Vec<ApiScope>,
    /// The key that has to sign every request with it.
    pub bound_to: Option<KeyId>,
}

/// A program, and the administrator in whose name it acts.
#[derive(Clone, Debug)]
pub struct Acting {
    /// The program.
    pub caller: Caller,
    /// The administrator, whose phone is asked where a phone has to agree.
    pub asker: User,
}

/// A phone with a device token and a proof of its key that hold.
#[derive(Clone, Debug)]
pub struct Phone {
    /// The phone.
    pub device: Versioned<Device>,
    /// Whose.
    pub user: User,
    /// Whose company's.
    pub company: Company,
}

/// SHA-256 as base64url: how secrets that were given out are looked up.
pub fn sha256(text: &str) -> String {
    base64url::encode(ring::digest::digest(&ring::digest::SHA256, text.as_bytes()).as_ref())
}

fn unauthenticated(detail: &str) -> Failure {
    Problem::new(ProblemType::Unauthenticated, detail).into()
}

impl Caller {
    /// The program that an access token was given to.
    pub async fn of_access_token(app: &App, token: &str) -> Result<Self, Failure> {
        let refused = || {
            unauthenticated(
                "The access token is unknown or has expired: get a new one from /token.",
            )
        };
        let sha256 = sha256(token);
        let Some((company, id)) = app.store.lookup(Scope::AccessToken, &sha256).await? else {
            return Err(refused());
        };
        let Some(token) = app.store.get::<AccessToken>(company, &id).await? else {
            return Err(refused());
        };
        if token.record.expires <= app.now() {
            return Err(refused());
        }
        let client = app.store.get::<Client>(company, &token.record.client.to_string()).await?;
        let Some(client) = client.map(|kept| kept.record).filter(|client| client.active) else {
            return Err(refused());
        };
        let company = active_company(app, company).await?.ok_or_else(refused)?;
        let bound_to = token.record.bound_to;
        let scopes =
            token.record.scopes.into_iter().filter(|scope| client.scopes.contains(scope)).collect();
        Ok(Self { client, company, scopes, bound_to })
    }

    /// Requires a scope.
    pub fn require(&self, scope: ApiScope) -> Result<(), Failure> {
        if self.scopes.contains(&scope) {
            return Ok(());
        }
        let detail = format!("This needs an access token with the scope {scope}.");
        Err(Problem::new(ProblemType::Forbidden, detail).into())
    }

    /// As whom a record of what this program did names it.
    pub fn actor(&self) -> Actor {
        Actor::Client { client: self.client.id, asker: None }
    }

    /// The administrator in whose name the program acts: the one it names, or its only one.
    pub async fn acting(self, app: &App, asker: Option<UserId>) -> Result<Acting, Failure> {
        let forbidden = |detail: &str| Failure::from(Problem::new(ProblemType::Forbidden, detail));
        let asker = match (asker, self.client.askers.as_slice()) {
            (Some(asker), granted) if granted.contains(&asker) => asker,
            (Some(_), _) => {
                return Err(forbidden("This program may not act in the name of this person."));
            }
            (None, [only]) => *only,
            (None, []) => return Err(forbidden("This program may act in nobody's name.")),
            (None, _) => {
                return Err(Problem::field(
                    "#/asker",
                    "say in whose name: this program may act for several",
                )
                .into());
            }
        };
        let asker = app.store.get::<User>(self.company.id, &asker.to_string()).await?;
        // The bank has operators where a company has administrators.
        let of_bank = self.company.id == CompanyId::BANK;
        let role = if of_bank { Role::Operator } else { Role::Administrator };
        match asker.map(|kept| kept.record) {
            Some(asker) if asker.active && asker.role == role => Ok(Acting { caller: self, asker }),
            _ => Err(forbidden(&format!(
                "The person this program acts for is no active {}.",
                role.name()
            ))),
        }
    }
}

impl Acting {
    /// As whom a record of what was done names them.
    pub fn actor(&self) -> Actor {
        Actor::Client { client: self.caller.client.id, asker: Some(self.asker.id) }
    }
}

impl Phone {
    /// The phone that a device token was given to. That the request was signed with its key is for
    /// the caller of this function to check, against [`Device::key`].
    pub async fn of_device_token(app: &App, token: &str) -> Result<Self, Failure> {
        let refused = || unauthenticated("This device token is unknown: bind the phone again.");
        let Some((company, id)) = app.store.lookup(Scope::DeviceToken, &sha256(token)).await?
        else {
            return Err(refused());
        };
        let Some(device) = app.store.get::<Device>(company, &id).await? else {
            return Err(refused());
        };
        let user = app.store.get::<User>(company, &device.record.user.to_string()).await?;
        let company = active_company(app, company).await?;
        match (user.map(|kept| kept.record).filter(|user| user.active), company) {
            (Some(user), Some(company)) => Ok(Self { device, user, company }),
            // Not revoked: who is active again goes on with the same phone and its seeds.
            _ => Err(Problem::new(
                ProblemType::Forbidden,
                "This phone's person, or their company, is not active. Ask the administrator.",
            )
            .into()),
        }
    }

    /// Requires that the phone is trusted, and not merely known.
    pub fn require_bound(&self) -> Result<(), Failure> {
        require_bound(&self.device.record)
    }

    /// As whom a record of what was done names it.
    pub fn actor(&self) -> Actor {
        Actor::Device { device: self.device.record.id, user: self.user.id }
    }
}

async fn active_company(
    app: &App,
    id: semilla_core::id::CompanyId,
) -> Result<Option<Company>, Failure> {
    let kept = app.store.get::<Company>(CompanyId::BANK, &id.to_string()).await?;
    Ok(kept.map(|kept| kept.record).filter(|company| company.active))
}

/// Requires that a phone is trusted, and not merely known; says what its person can do where not.
pub fn require_bound(device: &Device) -> Result<(), Failure> {
    let detail = match device.state {
        DeviceState::Bound => return Ok(()),
        DeviceState::Waiting { .. } => {
            "This phone waits for the approval of a phone bound before it."
        }
        DeviceState::Suspended => {
            "There are two copies of this phone's key. Ask the administrator to revoke it, and bind it anew."
        }
        DeviceState::Revoked => "This phone was revoked. To use it again, bind it anew.",
    };
    Err(Problem::new(ProblemType::DeviceRevoked, detail).into())
}
