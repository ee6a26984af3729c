//! A server in this process: the store opened, the keys at hand, the routes served, the chores
//! done, until it is stopped. `serve`, `dev` and every test start the same one.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::http::header;
use axum::routing::get;
use ring::rand::SystemRandom;
use semilla_core::audit::{Actor, Draft};
use semilla_core::entropy::Entropy;
use semilla_core::id::CompanyId;
use semilla_core::seal::{Keyring, SealError};
use semilla_core::time::Timestamp;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::app::{App, KeysError, ProgramLimits, SystemEntropy, server_keys};
use crate::clock::{Clock, ClockWatch, SystemClock};
use crate::config::master_key;
use crate::listener::tls::{Files, Stamp, Tls, TlsError};
use crate::listener::{self, Limits};
use crate::metrics::Metrics;
use crate::outbound::{Outbound, Reach};
use crate::store::sqlite::SqliteStore;
use crate::store::{AuditQuery, Batch, Store, StoreError};
use crate::workflow::checkpoints::Checkpoints;
use crate::workflow::codes::FailureWindow;
use crate::workflow::retention::Retention;
use crate::workflow::{chores, restore, rewrap};

/// How often what is due is done, at most. Nothing waits for it: see [`chores`].
const CHORES_PERIOD: Duration = Duration::from_secs(1);

/// How often the files are looked at that may change while it runs.
const FILES_PERIOD: Duration = Duration::from_secs(1);

/// How long after something went wrong sealing everything anew is tried again.
const REWRAP_PAUSE: Duration = Duration::from_secs(2);
/// How often programs are told that there are answers.
const PINGS_PERIOD: Duration = Duration::from_millis(500);

/// What a server needs to start.
pub struct Start {
    /// The folder of the database; `None` keeps everything in memory.
    pub data: Option<PathBuf>,
    /// What seals and opens at rest.
    pub keyring: Keyring,
    /// The file it came from, where it may change while the server runs.
    pub key_file: Option<PathBuf>,
    /// Where to listen; port 0 takes any free one.
    pub listen: SocketAddr,
    /// The address callers know it by; where it listens, if none is given.
    pub issuer: Option<String>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Random bytes.
    pub entropy: Arc<dyn Entropy>,
    /// What clients may take of it.
    pub limits: Limits,
    /// Where metrics are served; none serves none.
    pub metrics: Option<SocketAddr>,
    /// For how long things are kept.
    pub retention: Retention,
    /// The files with the certificate and its key, where it speaks TLS itself.
    pub tls: Option<Files>,
    /// How many failed codes within a minute, over all companies, raise the alarm.
    pub alarm_failures_per_minute: u32,
    /// Somebody looked at the clock and says that it is right, although records say that it was
    /// later before.
    pub clock_confirmed: bool,
    /// How much programs may ask.
    pub program_limits: ProgramLimits,
    /// Which addresses the server may ask itself.
    pub reach: Reach,
    /// The file that checkpoints of the audit chains are written to; none keeps them in the
    /// database alone.
    pub checkpoint_file: Option<PathBuf>,
    /// How long an audit chain grows before it is stated again.
    pub checkpoint_interval: Duration,
}

impl Start {
    /// A server on a free port of this machine, with the system's clock and randomness.
    pub fn on_loopback(data: Option<PathBuf>, keyring: Keyring) -> Self {
        Self {
            data,
            keyring,
            key_file: None,
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            issuer: None,
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy::default()),
            limits: Limits::default(),
            metrics: None,
            retention: Retention::default(),
            tls: None,
            alarm_failures_per_minute: 500,
            clock_confirmed: false,
            program_limits: ProgramLimits { requests_per_second: 0, failed_codes_per_minute: 0 },
            reach: Reach::PublicAndLoopback,
            checkpoint_file: None,
            checkpoint_interval: Duration::from_secs(60),
        }
    }
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is taken, or not ours.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// Where it should have listened.
        address: SocketAddr,
        /// What the system says.
        error: std::io::Error,
    },
    /// The database does not open.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The keys do not open.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The certificate or its key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// A server that runs.
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it works with.
    pub app: Arc<App>,
    /// Where metrics are served.
    pub metrics_address: Option<SocketAddr>,
    serving: JoinHandle<usize>,
    measuring: Option<JoinHandle<usize>>,
    chores: JoinHandle<()>,
    watching: JoinHandle<()>,
    rewrapping: JoinHandle<()>,
    files: Arc<Watched>,
    webhooks: JoinHandle<()>,
    pings: JoinHandle<()>,
}

impl Running {
    /// The address its callers know it by.
    pub fn issuer(&self) -> &str {
        &self.app.issuer
    }

    /// Reads the files it works with again, changed or not.
    pub async fn reload(&self) {
        self.files.look(&self.app, true).await;
    }

    /// Stops: nothing new is accepted, long polls end, what was begun is finished, the database is
    /// closed. Returns within the drain time of the limits, and how many connections were cut off.
    pub async fn stop(self) -> usize {
        self.app.stopping.cancel();
        let cut = self.serving.await.unwrap_or_default();
        // A chore that was being done is done to its end.
        let _ = self.chores.await;
        if let Some(measuring) = self.measuring {
            let _ = measuring.await;
        }
        let _ = self.watching.await;
        let _ = self.rewrapping.await;
        let _ = self.webhooks.await;
        let _ = self.pings.await;
        self.app.store.close().await;
        cut
    }
}

/// Opens what a server works with, without serving anything: for commands that act on a folder.
pub async fn open(start: &mut Start, issuer: String) -> Result<App, StartError> {
    let store: Arc<dyn Store> = match &start.data {
        Some(folder) => {
            Arc::new(SqliteStore::open(folder, crate::store::sqlite::Options::default())?)
        }
        None => Arc::new(SqliteStore::open_in_memory()?),
    };
    let now = start.clock.now();
    let keys = server_keys(store.as_ref(), &start.keyring, start.entropy.as_ref(), now).await?;
    let latest = latest_record(store.as_ref()).await?;
    let mut clock_watch = ClockWatch::new(start.clock.as_ref(), latest);
    if clock_watch.is_doubted() && start.clock_confirmed {
        clock_watch = ClockWatch::new(start.clock.as_ref(), None);
        let draft = Draft::new(CompanyId::BANK, now, "clock.confirmed", Actor::Local);
        let audit = latest.map(|latest| draft.with("latest_record", latest)).into_iter().collect();
        store.commit(Batch { audit, ..Batch::default() }).await?;
    }
    if clock_watch.is_doubted() {
        tracing::error!(
            "the clock is before what is on record: codes are refused until it is right; if it is, start \
             once with --confirm-clock"
        );
    }
    let restored = restore::last(store.as_ref()).await?;
    Ok(App {
        store,
        clock_watch,
        restored,
        keyring: start.keyring.clone().into(),
        keys,
        clock: Arc::clone(&start.clock),
        entropy: Arc::clone(&start.entropy),
        random: SystemRandom::new(),
        issuer,
        stopping: CancellationToken::new(),
        alarm_failures_per_minute: start.alarm_failures_per_minute,
        program_limits: start.program_limits,
        failures: FailureWindow::default(),
        forgetting: start.retention.into(),
        metrics: Metrics::default(),
        outbound: Outbound::new(start.reach),
        checkpoints: Checkpoints::new(start.checkpoint_file.clone(), start.checkpoint_interval),
    })
}

/// When the last record of any chain was made.
pub async fn latest_record(store: &dyn Store) -> Result<Option<Timestamp>, StoreError> {
    let mut latest = None;
    for company in store.audit_chains().await? {
        let after = store.audit_head(company).await?.sequence.saturating_sub(1);
        let query = AuditQuery { company, after, token: None, kind: None, limit: 1 };
        let last = store.audit(&query).await?.pop();
        let draft = last.and_then(|record| serde_json::from_str::<Draft>(&record.body).ok());
        latest = latest.max(draft.map(|draft| draft.at));
    }
    Ok(latest)
}

/// Starts a server.
pub async fn start(mut start: Start) -> Result<Running, StartError> {
    let listen = |error| StartError::Listen { address: start.listen, error };
    let listener = TcpListener::bind(start.listen).await.map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?;
    let metrics = match start.metrics {
        Some(address) => {
            let listen = |error| StartError::Listen { address, error };
            let listener = TcpListener::bind(address).await.map_err(listen)?;
            let address = listener.local_addr().map_err(listen)?;
            Some((listener, address))
        }
        None => None,
    };
    let tls = start.tls.take().map(Tls::open).transpose()?.map(Arc::new);
    let scheme = if tls.is_some() { "https" } else { "http" };
    let issuer = start.issuer.take().unwrap_or_else(|| format!("{scheme}://{address}"));
    let app = Arc::new(open(&mut start, issuer).await?);
    let router = crate::http::router(Arc::clone(&app));
    start.limits.open = app.metrics.connections.clone();
    let serving =
        listener::serve(listener, tls.clone(), router, app.stopping.clone(), start.limits);
    let serving = tokio::spawn(serving);
    let (metrics_address, measuring) = match metrics {
        Some((listener, address)) => {
            // In clear it is served to this machine alone, or to a proxy's side.
            let served = tls.clone();
            let tls = tls.clone().filter(|_| !address.ip().is_loopback());
            let router = measured(Arc::clone(&app), served);
            let limits = Limits { connections: 64, ..Limits::default() };
            let serving = listener::serve(listener, tls, router, app.stopping.clone(), limits);
            (Some(address), Some(tokio::spawn(serving)))
        }
        None => (None, None),
    };
    let files = Arc::new(Watched::new(tls, start.key_file.take()));
    let watching = tokio::spawn(watch(Arc::clone(&app), Arc::clone(&files)));
    let rewrapping = tokio::spawn(rewrap_after_changes(Arc::clone(&app)));
    let chores = tokio::spawn(do_chores(Arc::clone(&app)));
    let webhooks = tokio::spawn(crate::webhooks::dispatch::run(Arc::clone(&app)));
    let pings = tokio::spawn(tell_programs(Arc::clone(&app)));
    Ok(Running {
        address,
        metrics_address,
        app,
        serving,
        measuring,
        chores,
        pings,
        watching,
        rewrapping,
        files,
        webhooks,
    })
}

/// What serves `GET /metrics`, and nothing else.
fn measured(app: Arc<App>, tls: Option<Arc<Tls>>) -> Router {
    Router::new().route(
        "/metrics",
        get(move || {
            let metrics = &app.metrics;
            metrics.backlog.set(i64::try_from(app.store.backlog()).unwrap_or(i64::MAX));
            metrics.clock_doubted.set(app.clock_watch.is_doubted().into());
            let expires = tls.as_ref().map_or(0, |tls| tls.expires().milliseconds() / 1000);
            metrics.certificate_expires.set(expires);
            let text = metrics.text();
            async move { ([(header::CONTENT_TYPE, crate::metrics::CONTENT_TYPE)], text) }
        }),
    )
}

/// The files that may change while the server runs.
struct Watched {
    tls: Option<Arc<Tls>>,
    keys: Option<PathBuf>,
    /// The file of the master keys as it was last read.
    keys_seen: Mutex<Option<Stamp>>,
}

impl Watched {
    fn new(tls: Option<Arc<Tls>>, keys: Option<PathBuf>) -> Self {
        let seen = keys.as_deref().and_then(Stamp::of);
        Self { tls, keys, keys_seen: Mutex::new(seen) }
    }

    /// Reads what changed, or, where that was asked for, everything.
    async fn look(&self, app: &App, always: bool) {
        if let Some(tls) = &self.tls {
            tls.reload(always);
        }
        let Some(path) = &self.keys else { return };
        let now = Stamp::of(path);
        let seen = *self.keys_seen.lock().unwrap_or_else(PoisonError::into_inner);
        if now == seen && !always {
            return;
        }
        let taken = match master_key::load(path) {
            // Whoever serves codes can open what is stored, whatever the file says.
            Ok(ring) => match opens_what_is_kept(app, &ring).await {
                Ok(()) => app.keyring.replace(ring).await,
                Err(error) => {
                    tracing::error!(%error, "the master keys were not taken");
                    true
                }
            },
            Err(error) => {
                tracing::error!(%error, "the master keys were not taken");
                true
            }
        };
        // Where units of work were in the way it is tried again.
        if taken {
            *self.keys_seen.lock().unwrap_or_else(PoisonError::into_inner) = now;
            tracing::info!(key = app.keyring.ring().sealing(), "the master keys were read again");
        }
    }
}

async fn opens_what_is_kept(app: &App, ring: &Keyring) -> Result<(), StartError> {
    let under = app.store.sealed_under(&app.keyring.ring().ids().collect::<Vec<_>>()).await?;
    // What is sealed under a key that is to go may not need it any more.
    match under.iter().find(|(_, key)| !ring.ids().any(|id| id == key)) {
        None => Ok(()),
        Some(_) => Err(KeysError::from(SealError::UnknownKey).into()),
    }
}

/// Looks at the files it works with every now and then.
async fn watch(app: Arc<App>, files: Arc<Watched>) {
    loop {
        tokio::select! {
            () = app.stopping.cancelled() => return,
            () = tokio::time::sleep(FILES_PERIOD) => {}
        }
        files.look(&app, false).await;
    }
}

/// Seals everything anew whenever the first master key is another one, and once at the start, for
/// whatever was left.
async fn rewrap_after_changes(app: Arc<App>) {
    loop {
        let patience = match rewrap::run(&app).await {
            Ok(state) if state.done => Duration::MAX,
            Ok(_) => REWRAP_PAUSE,
            Err(failure) => {
                tracing::warn!(?failure, "not everything is sealed anew, it will be tried again");
                REWRAP_PAUSE
            }
        };
        tokio::select! {
            () = app.stopping.cancelled() => return,
            () = app.keyring.changed() => {}
            () = tokio::time::sleep(patience) => {}
        }
    }
}

/// Tells programs that there are answers. Apart from the chores, which no slow receiver holds up.
async fn tell_programs(app: Arc<App>) {
    loop {
        let told = async {
            if let Err(failure) = crate::workflow::ciba::tell(&app).await {
                tracing::warn!(?failure, "programs were not told, and will be");
            }
            tokio::time::sleep(PINGS_PERIOD).await;
        };
        tokio::select! {
            () = app.stopping.cancelled() => return,
            () = told => {}
        }
    }
}

async fn do_chores(app: Arc<App>) {
    loop {
        if let Err(failure) = chores::run(&app).await {
            tracing::warn!(?failure, "chores were left undone, and will be tried again");
        }
        tokio::select! {
            () = app.stopping.cancelled() => return,
            () = tokio::time::sleep(CHORES_PERIOD) => {}
        }
    }
}
