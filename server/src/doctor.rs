//! `semilla doctor`: looks at everything a server needs, beside one that runs or before one is
//! started, and says of each thing that is not as it should be what to do. It changes nothing.

use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use semilla_core::id::CompanyId;
use semilla_core::seal::{Keyring, Purpose, Sealed};
use semilla_core::time::Timestamp;
use semilla_server::clock::{Clock, SystemClock};
use semilla_server::config::{Config, master_key};
use semilla_server::listener::tls::Tls;
use semilla_server::records::Setting;
use semilla_server::serve::latest_record;
use semilla_server::store::Records;
use semilla_server::store::sqlite::{self, SqliteStore};
use serde::Serialize;
use serde_json::json;

use crate::commands::{DOES_NOT_HOLD, Failed, failed, print};

/// Below so many free bytes a disk is too full, and twice as many are a warning.
const FREE_BYTES: u64 = 256 * 1024 * 1024;

/// For so long before a certificate ends that is told.
const EXPIRY_TOLD: Duration = Duration::from_secs(21 * 24 * 3600);

/// How well a thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Health {
    Well,
    Warning,
    Ill,
}

/// What was found of one thing.
#[derive(Serialize)]
struct Finding {
    what: &'static str,
    health: Health,
    found: String,
    /// Empty where nothing is to be done.
    to_do: String,
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn well(&mut self, what: &'static str, found: impl Into<String>) {
        self.add(what, Health::Well, found, "");
    }
    fn warn(&mut self, what: &'static str, found: impl Into<String>, to_do: &str) {
        self.add(what, Health::Warning, found, to_do);
    }
    fn ill(&mut self, what: &'static str, found: impl Into<String>, to_do: &str) {
        self.add(what, Health::Ill, found, to_do);
    }
    fn add(&mut self, what: &'static str, health: Health, found: impl Into<String>, to_do: &str) {
        self.0.push(Finding { what, health, found: found.into(), to_do: to_do.to_owned() });
    }
}

/// Looks at everything; an error where something is ill.
pub(crate) async fn run(path: &Path, json: bool) -> Result<(), Failed> {
    let mut findings = Findings::default();
    match Config::load(path) {
        Ok(config) => {
            findings.well("configuration", path.display().to_string());
            let ring = keys(&mut findings, &config);
            folder(&mut findings, &config);
            database(&mut findings, &config, ring.as_ref()).await;
            disk(&mut findings, &config);
            certificate(&mut findings, &config);
            port(&mut findings, &config);
        }
        Err(error) => findings.ill(
            "configuration",
            error.to_string(),
            "mend what it names, or make a folder with `semilla init`",
        ),
    }
    let ill = findings.0.iter().filter(|finding| finding.health == Health::Ill).count();
    if json {
        print(&json!({"well": ill == 0, "findings": findings.0}).to_string())?;
    } else {
        for Finding { what, health, found, to_do } in &findings.0 {
            let mark = match health {
                Health::Well => "✓",
                Health::Warning => "!",
                Health::Ill => "✗",
            };
            print(&format!("{mark} {what:<14} {found}"))?;
            if !to_do.is_empty() {
                print(&format!("  {:<14} → {to_do}", ""))?;
            }
        }
    }
    match ill {
        0 => Ok(()),
        some => Err(failed(DOES_NOT_HOLD)(&format!("{some} of it has to be mended"))),
    }
}

fn keys(findings: &mut Findings, config: &Config) -> Option<Keyring> {
    match master_key::load(&config.master_key_path()) {
        Ok(ring) if ring.ids().count() == 1 => {
            findings.well("master key", format!("{}, for its owner alone", ring.sealing()));
            Some(ring)
        }
        Ok(ring) => {
            findings.warn(
                "master key",
                format!("{} keys: a rotation has not ended", ring.ids().count()),
                "run `semilla keys rotate`, which goes on where it stopped",
            );
            Some(ring)
        }
        Err(error) => {
            findings.ill(
                "master key",
                error.to_string(),
                "bring the file back from where its copy is kept, mode 600: without it no seed opens",
            );
            None
        }
    }
}

fn folder(findings: &mut Findings, config: &Config) {
    let data = config.data_folder();
    let mut open = Vec::new();
    for name in [".", "semilla.db", "semilla.db-wal", "semilla.db-shm", "lock"] {
        if let Ok(file) = std::fs::metadata(data.join(name))
            && file.permissions().mode() & 0o077 != 0
        {
            open.push(format!("{name} has mode {:03o}", file.permissions().mode() & 0o777));
        }
    }
    if !open.is_empty() {
        findings.ill("permissions", open.join(", "), "chmod 700 the folder and 600 what is in it");
        return;
    }
    // The key beside the database is copied with it.
    let key = config.master_key_path();
    if key.starts_with(&data) {
        let to_do = "move the key out of the folder of the database, and set master_key_file";
        findings.ill("permissions", "the master key is in the folder of the database", to_do);
        return;
    }
    findings.well("permissions", "only the owner reads the database");
}

async fn database(findings: &mut Findings, config: &Config, ring: Option<&Keyring>) {
    let data = config.data_folder();
    let file = data.join("semilla.db");
    if !file.exists() {
        let to_do = "make it with `semilla init`, or bring it back with `semilla restore`";
        return findings.ill("database", format!("{} is missing", file.display()), to_do);
    }
    let checked = tokio::task::spawn_blocking(move || sqlite::check(&file)).await;
    if let Ok(Err(error)) = checked {
        let to_do = "stop the server, keep a copy of the folder, and restore the last backup";
        return findings.ill("database", error.to_string(), to_do);
    }
    let store = match sqlite::look(&data) {
        Ok(store) => store,
        Err(error) => {
            return findings.warn(
                "database",
                error.to_string(),
                "start the server of this version once",
            );
        }
    };
    findings.well("database", "undamaged; every chain ends at its head");
    let now = SystemClock.now();
    match latest_record(&store).await {
        Ok(Some(last)) if now.plus(Duration::from_secs(2)) < last => findings.ill(
            "clock",
            format!("it is {now}, and something was recorded at {last}"),
            "set the clock right (NTP), then start the server again",
        ),
        Ok(_) => findings.well("clock", format!("{now}, after everything on record")),
        Err(error) => findings.ill("clock", error.to_string(), "see database"),
    }
    let Some(ring) = ring else { return };
    let name = "signing-key";
    let purpose = Purpose::Other { kind: "secret", company: CompanyId::BANK, id: name };
    match store.get::<Setting>(CompanyId::BANK, name).await {
        Ok(Some(kept)) => match ring.open(&Sealed::from_stored(kept.record.value), &purpose) {
            Ok(_) => findings.well("seals", "the master key opens what is in the database"),
            Err(error) => findings.ill(
                "seals",
                format!("the master key does not open what is in the database: {error}"),
                "this key belongs to another database: bring the right one back",
            ),
        },
        _ => findings.ill("seals", "the database holds no keys", "restore the last backup"),
    }
}

fn disk(findings: &mut Findings, config: &Config) {
    let folder = config.data_folder();
    match rustix::fs::statvfs(&folder) {
        Ok(found) => {
            let free = found.f_bavail.saturating_mul(found.f_frsize);
            let told = format!("{} MiB free", free / (1024 * 1024));
            let to_do = "make room: a full disk refuses every change";
            match free {
                _ if free < FREE_BYTES => findings.ill("disk", told, to_do),
                _ if free < 2 * FREE_BYTES => findings.warn("disk", told, to_do),
                _ => findings.well("disk", told),
            }
        }
        Err(error) => {
            findings.ill("disk", format!("{}: {error}", folder.display()), "see database")
        }
    }
    // What is written by another user than the one who owns the folder cannot be read by it.
    if let (Ok(folder), Ok(key)) =
        (std::fs::metadata(&folder), std::fs::metadata(config.master_key_path()))
        && folder.uid() != key.uid()
    {
        let to_do = "chown both to the user that the server runs as";
        findings.ill("owner", "database and master key belong to different users", to_do);
    }
}

fn certificate(findings: &mut Findings, config: &Config) {
    let Some(files) = config.tls() else {
        let told = match config.behind_tls_proxy {
            true => "a proxy ends it",
            false => "none: this machine alone is served",
        };
        return findings.well("tls", told);
    };
    match Tls::open(files) {
        Ok(tls) => expiry(findings, tls.expires()),
        Err(error) => findings.ill("tls", error.to_string(), "mend the file it names"),
    }
}

fn expiry(findings: &mut Findings, expires: Timestamp) {
    let now = SystemClock.now();
    let told = format!("the certificate ends {expires}");
    let to_do = "renew it: the files are read again by themselves";
    if expires <= now {
        findings.ill("tls", told, to_do);
    } else if expires < now.plus(EXPIRY_TOLD) {
        findings.warn("tls", told, to_do);
    } else {
        findings.well("tls", told);
    }
}

fn port(findings: &mut Findings, config: &Config) {
    let listen = config.listen;
    if SqliteStore::is_held(&config.data_folder()) {
        return match TcpStream::connect_timeout(&listen, Duration::from_secs(2)) {
            Ok(_) => findings.well("port", format!("the server listens on {listen}")),
            Err(error) => findings.ill(
                "port",
                format!("a process holds the folder, and {listen} does not answer: {error}"),
                "look at its log; restart it",
            ),
        };
    }
    match TcpListener::bind(listen) {
        Ok(_) => findings.warn(
            "port",
            format!("{listen} is free, and no server runs"),
            "start it: `semilla serve`",
        ),
        Err(error) => findings.ill(
            "port",
            format!("{listen}: {error}"),
            "end the other program, or set another address (listen)",
        ),
    }
}
