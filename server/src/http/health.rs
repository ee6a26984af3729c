//! Whether the server is there, and whether it can work.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use schemars::JsonSchema;
use semilla_core::id::CompanyId;
use semilla_core::problem::{Problem, ProblemType};
use semilla_core::seal::{Purpose, Sealed};
use serde::Serialize;

use super::Edge;
use super::problem::ApiError;
use super::respond::{Answered, shown};
use crate::app::App;
use crate::records::Setting;
use crate::store::{Batch, Records};
use crate::workflow::View;

/// How long the store may take to show that it answers.
const READY_TIME: Duration = Duration::from_secs(2);

/// What this is, and where its parts are.
#[derive(Serialize, JsonSchema)]
pub(super) struct Product {
    /// Its name.
    product: &'static str,
    /// The description of everything that can be asked.
    description: &'static str,
    /// The same as a page.
    docs: &'static str,
    /// For programs.
    company_api: &'static str,
    /// For phones.
    device_api: &'static str,
    /// Where programs get access tokens.
    authorization_server: &'static str,
}

/// `GET /`: what this is.
pub(super) async fn product() -> axum::Json<Product> {
    axum::Json(Product {
        product: "Semilla",
        description: "/openapi.json",
        docs: "/docs",
        company_api: "/api/v1",
        device_api: "/device/v1",
        authorization_server: "/.well-known/oauth-authorization-server",
    })
}

/// How the server is.
#[derive(Serialize, JsonSchema)]
pub(super) struct Health {
    /// `up` or `ready`.
    status: &'static str,
}

impl View for Health {}

/// `GET /healthz`: the process answers. Restart it where this fails.
pub(super) async fn alive() -> axum::Json<Health> {
    axum::Json(Health { status: "up" })
}

/// `GET /readyz`: the server can do its work (security 121). What it needs for a code is what is
/// tried: the store reads a row, what is sealed in it opens, and attempts can be counted. Send it
/// nothing where this fails.
pub(super) async fn ready(State(edge): State<Arc<Edge>>) -> Answered<Health> {
    if edge.app.stopping.is_cancelled() {
        return Err(Problem::new(ProblemType::Unavailable, "The server is stopping.").into());
    }
    match tokio::time::timeout(READY_TIME, can_work(&edge.app)).await {
        Ok(Ok(())) => shown(Ok(Health { status: "ready" })),
        Ok(Err(why)) => Err(ApiError::unavailable(format!("not ready: {why}"))),
        Err(_) => Err(ApiError::unavailable("not ready: the store does not answer")),
    }
}

async fn can_work(app: &App) -> Result<(), String> {
    opens_a_key(app).await?;
    // Only where the last change failed: nobody outside may have this server write as he pleases.
    if app.store.cannot_write() { writes_something(app).await } else { Ok(()) }
}

/// Tries whether there is room again, which nobody else would while nothing is sent here.
async fn writes_something(app: &App) -> Result<(), String> {
    let mut batch = Batch::default();
    batch.put(&Setting { name: "ready".to_owned(), value: app.now().milliseconds().to_string() });
    app.store.commit(batch).await.map_err(|error| error.to_string())
}

/// Reads the server's signing key as `app::server_keys` keeps it, and opens its seal.
async fn opens_a_key(app: &App) -> Result<(), String> {
    const NAME: &str = "signing-key";
    let kept =
        app.store.get::<Setting>(CompanyId::BANK, NAME).await.map_err(|error| error.to_string())?;
    let kept = kept.ok_or("the signing key is gone")?;
    let purpose = Purpose::Other { kind: "secret", company: CompanyId::BANK, id: NAME };
    let opened = app.keyring.open(&Sealed::from_stored(kept.record.value), &purpose);
    opened.map(drop).map_err(|error| error.to_string())
}
