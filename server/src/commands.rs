//! What each command does. Errors come back with the exit code that scripts rely on.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use semilla_core::language::Language;
use semilla_core::person::{Login, Role};
use semilla_core::protocol::jwk::JwkSet;
use semilla_core::receipt::Receipt;
use semilla_core::text::Name;
use semilla_server::app::{App, ProgramLimits, SystemEntropy};
use semilla_server::config::{Config, ConfigError, master_key};
use semilla_server::dev::{self, demo};
use semilla_server::logs::{self, Levels};
use semilla_server::outbound::Reach;
use semilla_server::proof::Proof;
use semilla_server::serve::{Running, Start, StartError, open, start};
use semilla_server::workflow::people::NewUser;
use semilla_server::workflow::{act, bootstrap, trail};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

pub(crate) mod tokens;

/// Why a command ends without having done what it was asked.
pub(crate) struct Failed {
    /// The exit code.
    pub(crate) code: u8,
    /// What happened, and what to do next.
    pub(crate) message: String,
}

pub(crate) const DOES_NOT_HOLD: u8 = 1;
pub(crate) const USAGE: u8 = 2;
pub(crate) const UNAVAILABLE: u8 = 69;
pub(crate) const INTERNAL: u8 = 70;
pub(crate) const CONFIGURATION: u8 = 78;

pub(crate) fn failed(code: u8) -> impl Fn(&dyn std::fmt::Display) -> Failed {
    move |error| Failed { code, message: error.to_string() }
}

impl From<ConfigError> for Failed {
    fn from(error: ConfigError) -> Self {
        failed(CONFIGURATION)(&error)
    }
}

impl From<StartError> for Failed {
    fn from(error: StartError) -> Self {
        failed(UNAVAILABLE)(&error)
    }
}

impl From<std::io::Error> for Failed {
    fn from(error: std::io::Error) -> Self {
        failed(INTERNAL)(&error)
    }
}

impl From<dev::DevError> for Failed {
    fn from(error: dev::DevError) -> Self {
        let code = match error {
            dev::DevError::Broken(_) => DOES_NOT_HOLD,
            dev::DevError::Start(_) => UNAVAILABLE,
            _ => INTERNAL,
        };
        failed(code)(&error)
    }
}

pub(crate) fn print(text: &str) -> Result<(), Failed> {
    Ok(writeln!(anstream::stdout(), "{text}")?)
}

/// `semilla init`.
pub(crate) async fn init(
    folder: &Path,
    bank: &str,
    operator: &str,
    name: &str,
    json: bool,
) -> Result<(), Failed> {
    let usage = failed(USAGE);
    let bank = Name::parse(bank).map_err(|error| usage(&format!("--bank: {error}")))?;
    let operator = NewUser {
        login: Login::parse(operator).map_err(|error| usage(&format!("--operator: {error}")))?,
        name: Name::parse(name).map_err(|error| usage(&format!("--name: {error}")))?,
        role: Role::Operator,
    };
    let file = folder.join("semilla.toml");
    if file.exists() {
        return Err(usage(&format!(
            "{} exists: this folder was made before. Choose another.",
            file.display()
        )));
    }
    private_folder(folder)?;
    demo::private_file(&file, &Config::sample())?;
    let config = Config::load(&file)?;
    master_key::create(&config.master_key_path(), &SystemEntropy::default())?;
    let app = Arc::new(opened(&config).await?);
    let created = act(&app, None, move |app| {
        let (bank, operator) = (bank.clone(), operator.clone());
        async move { bootstrap::bank(&app, &bank, &operator).await }
    })
    .await
    .map_err(|failure| failed(INTERNAL)(&dev::describe(&failure)))?;
    app.store.close().await;
    let created: Value = serde_json::from_str(&created.into_answer().body).unwrap_or_default();
    let (id, secret) = (&created["client_id"], &created["client_secret"]);
    if json {
        return print(
            &json!({"folder": folder, "client_id": id, "client_secret": secret}).to_string(),
        );
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    print(&format!(
        "Made {}.\n\nThe operator's program, shown this once:\n  client_id      {}\n  client_secret  {}\n\n\
         Keep {} apart from the backups of {}: whoever has both has the seeds.\n\nNext: semilla serve --config {}",
        folder.display(),
        text(id),
        text(secret),
        config.master_key_path().display(),
        config.data_folder().display(),
        file.display(),
    ))
}

pub(crate) fn private_folder(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

pub(crate) fn options(config: &Config) -> Result<Start, Failed> {
    let keyring = master_key::load(&config.master_key_path())?;
    let mut options = Start::on_loopback(Some(config.data_folder()), keyring);
    options.key_file = Some(config.master_key_path());
    options.listen = config.listen;
    options.issuer = Some(config.issuer.as_str().to_owned());
    options.limits = config.limits();
    options.tls = config.tls();
    options.metrics = config.metrics_listen.0;
    options.retention = config.retention();
    options.alarm_failures_per_minute = config.alarm_failures_per_minute;
    options.program_limits = ProgramLimits {
        requests_per_second: config.requests_per_second,
        failed_codes_per_minute: config.failed_codes_per_minute,
    };
    options.reach = if config.allow_private_addresses { Reach::Any } else { Reach::Public };
    options.checkpoint_file = Some(config.checkpoint_path());
    options.checkpoint_interval = Duration::from_secs(config.checkpoint_seconds.into());
    Ok(options)
}

async fn opened(config: &Config) -> Result<App, Failed> {
    let mut options = options(config)?;
    Ok(open(&mut options, String::new()).await?)
}

/// Seeds are in this process's memory: it leaves no core dump, and nobody attaches to it
/// (security 42).
fn lock_down() -> std::io::Result<()> {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// SIGHUP: the certificate and the keys are read again, and the level of the log is taken from the
/// configuration. Everything else in it needs a restart.
async fn reload(path: &Path, running: &Running, levels: &Levels) {
    match Config::load(path) {
        Ok(config) => {
            let level = config.log_level.name();
            let tell = || tracing::info!(log_level = level, "the configuration was read again");
            // At whichever of the two levels it is heard.
            let heard_before = tracing::enabled!(tracing::Level::INFO);
            if heard_before {
                tell();
            }
            levels.set(config.log_level);
            if !heard_before {
                tell();
            }
        }
        Err(error) => {
            tracing::warn!(%error, "the configuration does not read: nothing of it changed")
        }
    }
    running.reload().await;
}

/// `semilla serve`.
pub(crate) async fn serve(
    path: &Path,
    ready_file: Option<&Path>,
    clock_confirmed: bool,
) -> Result<(), Failed> {
    lock_down()?;
    let mut interrupts = demo::Interrupts::listen()?;
    let config = Config::load(path)?;
    let levels = logs::start(config.log_format, config.log_level)
        .map_err(|error| failed(INTERNAL)(&error))?;
    let running = start(Start { clock_confirmed, ..options(&config)? }).await?;
    let ready = json!({
        "listening": running.address,
        "issuer": running.issuer(),
        "metrics": running.metrics_address,
    })
    .to_string();
    tracing::info!(address = %running.address, issuer = running.issuer(), "listening");
    if let Some(file) = ready_file {
        // Whole or not there: whoever waits for it reads it at once.
        let unfinished = file.with_extension("unfinished");
        std::fs::write(&unfinished, format!("{ready}\n"))?;
        std::fs::rename(&unfinished, file)?;
    }
    let mut hangup = signal(SignalKind::hangup())?;
    loop {
        tokio::select! {
            () = interrupts.next() => break,
            _ = hangup.recv() => reload(path, &running, &levels).await,
        }
    }
    tracing::info!("stopping");
    // A second request to stop is obeyed at once (security 118).
    tokio::select! {
        cut = running.stop() => tracing::info!(cut_off = cut, "stopped"),
        () = interrupts.next() => {}
    }
    Ok(())
}

/// `semilla dev`.
pub(crate) async fn dev(listen: SocketAddr, tls: bool, language: Language) -> Result<(), Failed> {
    Ok(demo::run(listen, tls, language).await?)
}

/// `semilla dev --story`.
pub(crate) async fn story(language: Language) -> Result<(), Failed> {
    Ok(dev::story::play(language).await?)
}

/// What an audit trail is verified from.
pub(crate) struct Evidence {
    /// The configuration of a server that does not run.
    pub(crate) config: PathBuf,
    /// An export, in the place of that server's database.
    pub(crate) export: Option<PathBuf>,
    /// A file of checkpoints, in the place of that server's.
    pub(crate) checkpoints: Option<PathBuf>,
    /// The public keys, in the place of that server's.
    pub(crate) keys: Option<PathBuf>,
}

fn read(path: &Path) -> Result<String, Failed> {
    let named = |error| failed(UNAVAILABLE)(&format!("{}: {error}", path.display()));
    std::fs::read_to_string(path).map_err(named)
}

fn keys(path: &Path) -> Result<JwkSet, Failed> {
    let text = read(path)?;
    let unreadable = |error| failed(USAGE)(&format!("{}: {error}", path.display()));
    JwkSet::parse(text.trim_end()).map_err(unreadable)
}

/// `semilla audit verify`.
pub(crate) async fn audit_verify(evidence: Evidence, json: bool) -> Result<(), Failed> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |error| failed(USAGE)(&format!("{}: {error}", path.display()))
    };
    let mut proof = Proof::default();
    if let Some(export) = &evidence.export {
        if let Some(file) = &evidence.checkpoints {
            let Some(trusted) = &evidence.keys else {
                return Err(failed(USAGE)(
                    &"--checkpoints needs --keys: a copy of what the server \
                                           serves at /jwks, from before",
                ));
            };
            proof.hold_to(&read(file)?, &keys(trusted)?).map_err(unreadable(file))?;
        }
        for (place, line) in read(export)?.lines().enumerate() {
            proof.see_line(place + 1, line).map_err(unreadable(export))?;
        }
    } else {
        let config = Config::load(&evidence.config)?;
        let app = opened(&config).await?;
        let trusted = match &evidence.keys {
            Some(file) => keys(file)?,
            None => app.keys.published.clone(),
        };
        let file = evidence.checkpoints.clone().unwrap_or_else(|| config.checkpoint_path());
        // A server that never came to write one has no file.
        if evidence.checkpoints.is_some() || file.exists() {
            proof.hold_to(&read(&file)?, &trusted).map_err(unreadable(&file))?;
        }
        let read = trail::prove(app.store.as_ref(), &mut proof).await;
        app.store.close().await;
        read.map_err(|error| failed(UNAVAILABLE)(&error))?;
    }
    let reports = proof.reports();
    let whole = reports.iter().all(|report| report.tampered.is_none());
    if json {
        print(&json!({"whole": whole, "chains": reports}).to_string())?;
    } else {
        for report in &reports {
            let found = report.tampered.as_deref().unwrap_or("whole");
            print(&format!(
                "{}  {:>8} records  {:>8} as checkpoints state  {:>8} checks of codes  head {}  {found}",
                report.company, report.records, report.stated, report.attempts, report.head
            ))?;
        }
    }
    if whole {
        Ok(())
    } else {
        Err(failed(DOES_NOT_HOLD)(&"the audit trail was tampered with, see above"))
    }
}

/// `semilla audit export`.
pub(crate) async fn audit_export(config: &Path, out: &Path) -> Result<(), Failed> {
    let app = opened(&Config::load(config)?).await?;
    let named = |error| failed(UNAVAILABLE)(&format!("{}: {error}", out.display()));
    let file = std::fs::File::create_new(out).map_err(named)?;
    let mut file = std::io::BufWriter::new(file);
    let exported = trail::export(app.store.as_ref(), &mut file).await;
    app.store.close().await;
    let count = exported.map_err(|error| failed(UNAVAILABLE)(&error))?;
    file.get_ref().sync_all()?;
    print(&format!("{count} records in {}", out.display()))
}

/// `semilla receipt verify`.
pub(crate) fn receipt_verify(receipt: &Path, trusted: &Path, json: bool) -> Result<(), Failed> {
    let unreadable = |error| failed(USAGE)(&format!("{}: {error}", receipt.display()));
    let read: Receipt = serde_json::from_str(&read(receipt)?).map_err(unreadable)?;
    let proven = read.verify(&keys(trusted)?).map_err(|unproven| {
        failed(DOES_NOT_HOLD)(&format!("this receipt proves nothing: {unproven}"))
    })?;
    let (display, checkpoint) = (&proven.request.display, &proven.checkpoint);
    if json {
        let proven = json!({
            "operation": read.operation,
            "issuer": proven.request.iss,
            "display": display,
            "record": proven.record,
            "checkpoint": checkpoint,
        });
        return print(&proven.to_string());
    }
    print(&format!("{}\n  {}", display.title, display.lines.join("\n  ")))?;
    print(&format!(
        "\nApproved by phone {} and executed at {}.\nRecord {} of the chain of {}, stated by {} at {}.",
        proven.request.aud,
        proven.record.at,
        read.record.sequence,
        read.company,
        proven.request.iss,
        checkpoint.at
    ))
}
