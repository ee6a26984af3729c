//! `semilla dev`: server and phones in one process, with a demonstration company, so that a
//! newcomer sees the product work before reading a line of it. One of the two places where the
//! server knows the approver; everything between them goes over real HTTP.

use std::path::Path;

use semilla_core::entropy::Entropy;
use semilla_core::person::{Login, Role};
use semilla_core::seal::{Keyring, MasterKey};
use semilla_core::text::Name;
use serde_json::{Value, json};

use crate::app::SystemEntropy;
use crate::serve::{Running, Start, StartError, start};
use crate::workflow::people::NewUser;
use crate::workflow::{Failure, act, bootstrap};
use client::{ClientError, Http, Program};

pub mod certificates;
pub mod client;
pub mod demo;
pub mod story;

/// Why the demonstration did not come about.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// The server did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The server refused what it should not.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A phone could not do what it should.
    #[error("a phone: {0}")]
    Phone(#[from] semilla_approver::Error),
    /// A file of the demonstration cannot be written.
    #[error("{0}")]
    File(#[from] std::io::Error),
    /// Something did not hold.
    #[error("{0}")]
    Broken(String),
}

/// The demonstration's bank and company.
pub struct Demo {
    /// The server.
    pub server: Running,
    /// The operator's program.
    pub operator: Program,
    /// The company's program, acting for its administrator.
    pub company: Program,
    /// The company's id.
    pub company_id: String,
    /// Andrés Gómez, the administrator.
    pub administrator: String,
    /// Laura Valencia, a secondary user.
    pub laura: String,
    /// The tokens in the company's pool: id and serial number.
    pub pool: Vec<(String, String)>,
}

/// The first of the demonstration's serial numbers, as on the bank's sheet.
const FIRST_SERIAL: &str = "FEF4900032";

impl Demo {
    /// Starts a server that holds nothing yet, and fills it over its own API. `authority` is whom
    /// to believe about it, where it speaks TLS.
    pub async fn begin(
        data: Option<&Path>,
        authority: Option<&str>,
        adjust: impl FnOnce(&mut Start),
    ) -> Result<Self, DevError> {
        let keyring =
            Keyring::new(MasterKey::generate(&SystemEntropy::default() as &dyn Entropy), []);
        let mut options = Start::on_loopback(data.map(Path::to_path_buf), keyring);
        adjust(&mut options);
        let server = start(options).await?;
        let operator = bank(&server, authority).await?;
        let body = json!({
            "name": "Comercial Andina S.A.S.",
            "administrator": {"login": "andres.gomez", "name": "Andrés Gómez"},
        });
        let created = operator.post("/api/v1/companies", body).await?;
        let (company_id, administrator) =
            (text(&created["company"]["id"])?, text(&created["administrator"]["id"])?);
        let body = json!({
            "name": "Tesorería",
            "scopes": [
                "tokens:read", "tokens:assign", "tokens:block", "tokens:release", "otp:verify",
                "enrollments:deliver", "users:manage", "policies:manage", "audit:read",
            ],
            "askers": [administrator],
        });
        let created =
            operator.post(&format!("/api/v1/companies/{company_id}/clients"), body).await?;
        let company = Program::of(operator.http.clone(), &created);
        let body = json!({"login": "laura.valencia", "name": "Laura Valencia"});
        let laura = text(&company.post("/api/v1/users", body).await?["id"])?;
        let run = json!({"first": FIRST_SERIAL, "count": 3});
        operator.post("/api/v1/stock/issue", run).await?;
        let run = json!({"first": FIRST_SERIAL, "count": 3, "company": company_id});
        let allotted = operator.post("/api/v1/stock/allot", run).await?;
        let tokens = allotted["tokens"].as_array().cloned().unwrap_or_default();
        let pool = tokens
            .iter()
            .map(|token| Ok((text(&token["id"])?, text(&token["serial"])?)))
            .collect::<Result<_, DevError>>()?;
        Ok(Self { server, operator, company, company_id, administrator, laura, pool })
    }

    /// An activation code that binds a phone to a person.
    pub async fn activation(&self, user: &str) -> Result<String, DevError> {
        let issued =
            self.company.post(&format!("/api/v1/users/{user}/activation"), json!({})).await?;
        text(&issued["uri"])
    }

    /// Assigns a token and returns the activation for its holder.
    pub async fn assign(&self, token: &str, user: &str) -> Result<String, DevError> {
        let body = json!({"user": user});
        let opened = self.company.post(&format!("/api/v1/tokens/{token}/assign"), body).await?;
        let enrollment = text(&opened["enrollment"]["id"])?;
        let issued = self
            .company
            .post(&format!("/api/v1/enrollments/{enrollment}/activation"), json!({}))
            .await?;
        text(&issued["uri"])
    }

    /// Whether a code of a token is accepted.
    pub async fn verify(&self, token: &str, code: &str) -> Result<bool, DevError> {
        let body = json!({"token": token, "code": code});
        Ok(self.company.post("/api/v1/otp/verify", body).await?["accepted"] == true)
    }
}

async fn bank(server: &Running, authority: Option<&str>) -> Result<Program, DevError> {
    let broken = |what: &dyn std::fmt::Display| DevError::Broken(what.to_string());
    let name = Name::parse("Banco de Ejemplo").map_err(|error| broken(&error))?;
    let operator = NewUser {
        login: Login::parse("operador").map_err(|error| broken(&error))?,
        name: Name::parse("Operador del banco").map_err(|error| broken(&error))?,
        role: Role::Operator,
    };
    let created = act(&server.app, None, move |app| {
        let (name, operator) = (name.clone(), operator.clone());
        async move { bootstrap::bank(&app, &name, &operator).await }
    })
    .await
    .map_err(|failure| broken(&describe(&failure)))?;
    let created: Value = serde_json::from_str(&created.into_answer().body).unwrap_or(Value::Null);
    let http = Http::trusting(server.issuer(), authority).map_err(|error| broken(&error))?;
    Ok(Program::of(http, &created))
}

/// What a failure says to somebody at the machine.
pub fn describe(failure: &Failure) -> String {
    match failure {
        Failure::Refused(problem) | Failure::Recorded(problem, _) => problem.detail.clone(),
        Failure::Store(error) => error.to_string(),
    }
}

/// A text of an answer.
fn text(value: &Value) -> Result<String, DevError> {
    value
        .as_str()
        .map(str::to_owned)
        .ok_or_else(|| DevError::Broken("an answer lacks a text".to_owned()))
}
