//! The commands of those who run a server: copies and their return, the rotation of the master key.
//! All of them work beside a server that runs, but for `restore`, which makes its folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use semilla_core::id::CompanyId;
use semilla_server::app::SystemEntropy;
use semilla_server::config::{Config, master_key};
use semilla_server::dev;
use semilla_server::records::Setting;
use semilla_server::serve::{latest_record, open};
use semilla_server::store::sqlite::{self, SqliteStore};
use semilla_server::store::{Records, Store};
use semilla_server::workflow::{restore, rewrap};
use serde_json::json;

use crate::commands::{
    CONFIGURATION, DOES_NOT_HOLD, Failed, INTERNAL, UNAVAILABLE, USAGE, failed, options, print,
    private_folder,
};

/// For how many looks a folder has to be free that was held, before it is taken.
const FREE_LOOKS: u32 = 30;

/// How often the progress of a server that runs is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// `semilla backup`.
pub(crate) async fn backup(config: &Path, to: &Path, json: bool) -> Result<(), Failed> {
    let config = Config::load(config)?;
    let (folder, file) = (config.data_folder(), to.to_owned());
    let copied = tokio::task::spawn_blocking(move || sqlite::backup(&folder, &file)).await;
    copied
        .map_err(|error| failed(INTERNAL)(&error))?
        .map_err(|error| failed(UNAVAILABLE)(&error))?;
    let bytes = std::fs::metadata(to)?.len();
    if json {
        return print(&json!({"file": to, "bytes": bytes}).to_string());
    }
    print(&format!(
        "{} ({bytes} bytes), checked.\n\nIt opens only with the master keys of this moment, {}: keep a copy of \
         them apart from it.",
        to.display(),
        config.master_key_path().display()
    ))
}

/// `semilla restore`.
pub(crate) async fn restore(config: &Path, from: &Path, json: bool) -> Result<(), Failed> {
    let config = Config::load(config)?;
    let data = config.data_folder();
    if data.join("semilla.db").exists() {
        return Err(failed(USAGE)(&format!(
            "{} holds a database: move it away first, nothing is written over.",
            data.display()
        )));
    }
    sqlite::check(from).map_err(|error| failed(UNAVAILABLE)(&error))?;
    // Made whole beside its place, so that nobody is served from a half of it.
    let unfinished = data.with_extension("restoring");
    if unfinished.exists() {
        std::fs::remove_dir_all(&unfinished)?;
    }
    private_folder(&unfinished)?;
    copy_private(from, &unfinished.join("semilla.db"))?;
    let mut options = options(&config)?;
    options.data = Some(unfinished.clone());
    let app = Arc::new(open(&mut options, config.issuer.as_str().to_owned()).await?);
    if app.clock_watch.is_doubted() {
        return Err(failed(UNAVAILABLE)(
            &"the clock is before what is in the backup: set it right, or codes that were used come back",
        ));
    }
    let last = latest_record(app.store.as_ref()).await;
    let last = last.map_err(|error| failed(UNAVAILABLE)(&error))?;
    let report = restore::run(&app, last).await;
    app.store.close().await;
    let report = report.map_err(|failure| failed(INTERNAL)(&dev::describe(&failure)))?;
    // Opening a folder leaves its lock there.
    let _ = std::fs::remove_file(data.join("lock"));
    let _ = std::fs::remove_dir(&data);
    std::fs::rename(&unfinished, &data)?;
    let parent = data.parent().filter(|parent| !parent.as_os_str().is_empty());
    std::fs::File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
    if json {
        return print(&json!({"restored": report}).to_string());
    }
    let since = report.last_record.map(|moment| moment.to_string()).unwrap_or_default();
    print(&format!(
        "Restored to {}.\n\n  {} tokens: every code up to now is dead\n  {} operations and {} enrollments \
         cancelled\n  {} sessions ended\n\nWhat happened after {since} is not known here: a token that was blocked \
         or released since, or a phone that was revoked, is as it was before. Do that again before you serve.\n\
         Checkpoints that were written since state records that are lost: begin a new file \
         (checkpoint_file), and keep the old one.",
        data.display(),
        report.tokens,
        report.operations,
        report.enrollments,
        report.access_tokens,
    ))
}

fn copy_private(from: &Path, to: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut out = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    std::io::copy(&mut std::fs::File::open(from)?, &mut out)?;
    out.sync_all()
}

/// `semilla keys rotate`.
pub(crate) async fn keys_rotate(config: &Path, json: bool) -> Result<(), Failed> {
    let config = Config::load(config)?;
    let path = config.master_key_path();
    let entropy = SystemEntropy::default();
    if master_key::load(&path)?.ids().count() == 1 {
        master_key::add(&path, &entropy)?;
    }
    let ring = master_key::load(&path)?;
    let key = ring.sealing().to_owned();
    let older: Vec<String> = ring.ids().skip(1).map(str::to_owned).collect();
    // A server that is started again is left its folder.
    let mut free = FREE_LOOKS;
    loop {
        let held = SqliteStore::is_held(&config.data_folder());
        free = if held { 0 } else { free + 1 };
        if free > FREE_LOOKS && seal_anew(&config).await? {
            break;
        }
        // A server holds the folder: it reads the new key within a second, and does it itself.
        if is_done(&config, &key).await? {
            break;
        }
        tokio::time::sleep(LOOK).await;
    }
    let store = sqlite::look(&config.data_folder()).map_err(|error| failed(UNAVAILABLE)(&error))?;
    let names: Vec<&str> = older.iter().map(String::as_str).collect();
    let left = store.sealed_under(&names).await.map_err(|error| failed(UNAVAILABLE)(&error))?;
    if let Some((table, under)) = left.first() {
        return Err(failed(DOES_NOT_HOLD)(&format!(
            "something in {table} is still sealed under {under}: no key was destroyed. Run it again; if it says \
             the same, this program has forgotten how to seal it anew."
        )));
    }
    master_key::retire_older(&path)?;
    if json {
        return print(&json!({"key": key, "destroyed": older}).to_string());
    }
    print(&format!(
        "Everything is sealed under the key {key}; {} is destroyed in {}.\n\nBackups made before open only with a \
         copy of the key that was destroyed here. Make a new backup now, and destroy the old ones with the old key.",
        older.join(", "),
        path.display()
    ))
}

/// Seals everything anew in this process, where no server holds the folder.
/// False where one took it in the meantime.
async fn seal_anew(config: &Config) -> Result<bool, Failed> {
    if !config.data_folder().join("semilla.db").exists() {
        return Err(failed(CONFIGURATION)(&format!(
            "{} holds no database",
            config.data_folder().display()
        )));
    }
    let mut options = options(config)?;
    let Ok(app) = open(&mut options, config.issuer.as_str().to_owned()).await else {
        // Taken in the meantime; where it is something else the next round finds the same.
        return if SqliteStore::is_held(&config.data_folder()) {
            Ok(false)
        } else {
            Err(failed(UNAVAILABLE)(&"the database does not open: see semilla doctor"))
        };
    };
    let app = Arc::new(app);
    let state = rewrap::run(&app).await;
    app.store.close().await;
    let state = state.map_err(|failure| failed(INTERNAL)(&dev::describe(&failure)))?;
    Ok(state.done)
}

/// Whether the server that holds the folder says that everything is sealed anew under `key`; an
/// error where it says that it cannot be.
async fn is_done(config: &Config, key: &str) -> Result<bool, Failed> {
    let store = sqlite::look(&config.data_folder()).map_err(|error| failed(UNAVAILABLE)(&error))?;
    let kept = store.get::<Setting>(CompanyId::BANK, rewrap::STATE).await;
    let kept = kept.map_err(|error| failed(UNAVAILABLE)(&error))?;
    let state = kept.and_then(|it| serde_json::from_str::<rewrap::State>(&it.record.value).ok());
    let Some(state) = state.filter(|state| state.key == key) else { return Ok(false) };
    match state.stuck {
        Some(stuck) => Err(failed(DOES_NOT_HOLD)(&format!(
            "not everything can be sealed anew, and no key was destroyed: {stuck}"
        ))),
        None => Ok(state.done),
    }
}

/// `semilla completions`.
pub(crate) fn completions(shell: clap_complete::Shell, mut command: clap::Command) {
    clap_complete::generate(shell, &mut command, "semilla", &mut std::io::stdout());
}

/// `semilla man`.
pub(crate) fn manual(folder: &PathBuf, command: clap::Command) -> Result<(), Failed> {
    std::fs::create_dir_all(folder)?;
    Ok(clap_mangen::generate_to(command, folder)?)
}
