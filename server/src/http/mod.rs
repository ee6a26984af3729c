//! The faces of the server over HTTP. [`routes`] is the one list of what can be asked, and by
//! whom: the router is built from it, each handler behind its [`Rule`], so that a route without a
//! rule cannot be written down. A handler reads what it is handed, calls one function of
//! [`crate::workflow`] and answers.
//!
//! ```text
//! listener ─▶ headers::outermost ─▶ route ─▶ auth::enforce ─▶ handler ─▶ workflow
//!             id, log, panics,               rule, caller,    body,
//!             security headers               time             params
//! ```

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::Method;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodFilter, MethodRouter, on};
use ring::hmac;
use semilla_core::entropy;
use semilla_core::language::Label;
use semilla_core::problem::{Problem, ProblemType};
use tokio::sync::Semaphore;

use self::auth::Guard;
pub use self::auth::Rule;
use self::describe::{About, Endpoint};
use self::problem::ApiError;
use crate::app::App;

pub mod auth;
pub mod body;
pub mod change;
mod ciba;
mod company;
pub mod describe;
mod device;
mod docs;
mod dpop;
mod form;
pub mod headers;
mod health;
mod limits;
mod oauth;
pub mod openapi;
pub mod params;
pub mod problem;
pub mod respond;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub mod wait;
mod webhooks;

/// How long a handler may take (security 100).
const HANDLER_TIME: Duration = Duration::from_secs(10);

/// How long one may take that waits for something to happen: the longest wait, and its own time.
const WAITING_HANDLER_TIME: Duration = Duration::from_secs(40);

/// What the handlers share.
pub struct Edge {
    /// What everything works with.
    pub app: Arc<App>,
    proofs: dpop::Proofs,
    attempts: oauth::Attempts,
    /// Bindings that are begun, by address.
    bindings: limits::Limiter<std::net::IpAddr>,
    programs: limits::Programs,
    /// For comparing what is secret; of this process.
    comparison: hmac::Key,
    running: change::Running,
    streams: Arc<Semaphore>,
}

impl Edge {
    fn new(app: Arc<App>) -> Self {
        let entropy = app.entropy.as_ref();
        Self {
            proofs: dpop::Proofs::new(entropy),
            attempts: oauth::Attempts::default(),
            bindings: limits::Limiter::new(200, Duration::from_millis(50)),
            programs: limits::Programs::new(app.program_limits),
            comparison: hmac::Key::new(hmac::HMAC_SHA256, &entropy::bytes::<32>(entropy)),
            running: change::Running::default(),
            streams: Arc::new(Semaphore::new(wait::STREAMS_MAX)),
            app,
        }
    }
}

/// One thing that can be asked.
pub struct Route {
    /// With this method.
    pub method: Method,
    /// At this path; `{id}` stands for an id.
    pub path: &'static str,
    /// By these callers.
    pub rule: Rule,
    /// What it is for, in a few words.
    pub summary: Label,
    /// What it takes and answers, by its signature.
    pub describe: fn(&mut About),
    /// What its workflow may answer instead.
    pub problems: &'static [ProblemType],
    waits: bool,
    handler: MethodRouter<Arc<Edge>>,
}

impl Route {
    /// The handler waits for something to happen, as its caller wishes.
    #[must_use]
    fn waiting(mut self) -> Self {
        self.waits = true;
        self
    }

    /// The rules of the workflow may say no in these words.
    #[must_use]
    fn may(mut self, problems: &'static [ProblemType]) -> Self {
        self.problems = problems;
        self
    }
}

/// A route that lacks the words that say what it is for, and so is none yet.
#[must_use]
struct Wordless(Route);

impl Wordless {
    fn new<H, T>(
        method: Method,
        filter: MethodFilter,
        path: &'static str,
        rule: Rule,
        handler: H,
    ) -> Self
    where
        H: Endpoint<T>,
        T: 'static,
    {
        let (summary, handler) = (Label("", ""), on(filter, handler));
        let describe = H::describe;
        Self(Route { method, path, rule, summary, describe, problems: &[], waits: false, handler })
    }

    /// What it is for, in Spanish and in English.
    fn says(mut self, spanish: &'static str, english: &'static str) -> Route {
        self.0.summary = Label(spanish, english);
        self.0
    }
}

macro_rules! methods {
    ($($name:ident = $method:ident;)*) => {$(
        fn $name<H, T>(path: &'static str, rule: Rule, handler: H) -> Wordless
        where
            H: Endpoint<T>,
            T: 'static,
        {
            Wordless::new(Method::$method, MethodFilter::$method, path, rule, handler)
        }
    )*};
}

methods! {
    get = GET;
    post = POST;
    put = PUT;
    patch = PATCH;
    delete = DELETE;
}

/// Everything that can be asked.
pub fn routes() -> Vec<Route> {
    let mut routes = vec![
        get("/", Rule::Public, health::product).says("Qué hay aquí", "What is here"),
        get("/healthz", Rule::Public, health::alive)
            .says("El proceso responde", "The process answers"),
        get("/readyz", Rule::Public, health::ready)
            .says("El servidor puede trabajar", "The server can do its work"),
        get("/openapi.json", Rule::Public, openapi::document)
            .says("Esta descripción (OpenAPI 3.1)", "This description (OpenAPI 3.1)"),
        get("/docs", Rule::Public, docs::page)
            .says("Esta página: leer y probar la API", "This page: to read and try the API"),
        get("/docs/style.css", Rule::Public, docs::style).says("Su aspecto", "How it looks"),
        get("/docs/try.js", Rule::Public, docs::script).says("Lo que prueba", "What tries"),
        post("/token", Rule::Public, oauth::token)
            .says("Un token de acceso para un programa", "An access token for a program"),
        post("/bc-authorize", Rule::Public, ciba::authorize).says(
            "Pedir al teléfono de una persona una aprobación (CIBA)",
            "Ask a person's phone for an approval (CIBA)",
        ),
        get("/jwks", Rule::Public, oauth::jwks)
            .says("Las llaves públicas del servidor", "The server's public keys"),
        get("/.well-known/oauth-authorization-server", Rule::Public, oauth::metadata)
            .says("Los metadatos de OAuth (RFC 8414)", "The metadata of OAuth (RFC 8414)"),
        get("/.well-known/openid-configuration", Rule::Public, oauth::metadata)
            .says("Los metadatos de OpenID", "The metadata of OpenID"),
    ];
    routes.extend(company::routes());
    routes.extend(webhooks::routes());
    routes.extend(device::routes());
    routes
}

/// The router of all routes.
pub fn router(app: Arc<App>) -> Router {
    assemble(Arc::new(Edge::new(app)), routes())
}

fn assemble(edge: Arc<Edge>, routes: Vec<Route>) -> Router {
    let mut router = Router::new();
    for Route { path, rule, waits, handler, .. } in routes {
        let gives_nonce = path.starts_with("/device/");
        let guard = Guard { edge: Arc::clone(&edge), rule, gives_nonce, waits };
        router = router.route(path, handler.route_layer(from_fn_with_state(guard, auth::enforce)));
    }
    router
        .fallback(|| async { ApiError::from(Problem::not_found()) })
        .method_not_allowed_fallback(|| async {
            let detail = "Not with this method: see the header Allow.";
            ApiError::from(Problem::new(ProblemType::MethodNotAllowed, detail))
        })
        .layer(from_fn_with_state(Arc::clone(&edge), headers::outermost))
        .with_state(edge)
}
