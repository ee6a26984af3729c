//! `semilla tokens`: files of tokens to and from a server that runs, over its API, as the operator's
//! program. Secrets come from files or are asked for; the command line shows up in lists of
//! processes.

use std::fs::OpenOptions;
use std::io::{IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use semilla_server::dev::client::{Http, Program, Reply};
use semilla_server::http::body::FILE_BYTES_MAX;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{DOES_NOT_HOLD, Failed, UNAVAILABLE, USAGE, failed, print};

/// Which server, and as whom.
#[derive(clap::Args)]
pub(crate) struct Server {
    /// The server's address: on its own machine, which it listens on without TLS.
    #[arg(long, default_value = "http://localhost:8080", env = "SEMILLA_SERVER")]
    server: String,
    /// A file with the operator's credentials, as `init --json` prints them.
    #[arg(long, env = "SEMILLA_CREDENTIALS")]
    credentials: PathBuf,
}

/// A file of tokens to import.
#[derive(clap::Args)]
pub(crate) struct Import {
    /// The file.
    file: PathBuf,
    /// How it is written: pskc or csv [default: csv where its name ends so].
    #[arg(long, value_parser = ["pskc", "csv"])]
    format: Option<String>,
    /// What its tokens are.
    #[arg(long, value_parser = ["physical", "software"], default_value = "physical")]
    kind: String,
    /// Only reports, line by line, what an import would do.
    #[arg(long)]
    dry_run: bool,
    /// A file with the passphrase it is under [default: asked for].
    #[arg(long, conflicts_with = "key_file")]
    passphrase_file: Option<PathBuf>,
    /// A file with the pre-shared key it is under, in hexadecimal.
    #[arg(long)]
    key_file: Option<PathBuf>,
    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

/// Tokens to export.
#[derive(clap::Args)]
pub(crate) struct Export {
    /// The file to make.
    #[arg(long)]
    out: PathBuf,
    /// A token of the stock by its serial number; may be repeated [default: all that came with their
    /// seeds].
    #[arg(long)]
    serial: Vec<String>,
    /// A file with the passphrase to put it under [default: asked for].
    #[arg(long)]
    passphrase_file: Option<PathBuf>,
    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

fn text_of(path: &Path) -> Result<Zeroizing<String>, Failed> {
    let named = |error| failed(UNAVAILABLE)(&format!("{}: {error}", path.display()));
    std::fs::read_to_string(path).map(Zeroizing::new).map_err(named)
}

/// The first line of a file with one secret.
fn secret_in(path: &Path) -> Result<Zeroizing<String>, Failed> {
    let text = text_of(path)?;
    Ok(Zeroizing::new(text.lines().next().unwrap_or_default().to_owned()))
}

fn asked_for(prompt: &str) -> Result<Zeroizing<String>, Failed> {
    if !std::io::stdin().is_terminal() {
        return Err(failed(USAGE)(&"there is nobody to ask for the passphrase: --passphrase-file"));
    }
    Ok(Zeroizing::new(rpassword::prompt_password(prompt)?))
}

impl Server {
    fn program(&self) -> Result<Program, Failed> {
        let text = text_of(&self.credentials)?;
        let read: Value = serde_json::from_str(&text).unwrap_or_default();
        if !read["client_id"].is_string() || !read["client_secret"].is_string() {
            let what = format!("{}: no client_id and client_secret", self.credentials.display());
            return Err(failed(USAGE)(&what));
        }
        Ok(Program::of(Http::new(self.server.trim_end_matches('/')), &read))
    }

    /// Asks the server, and says so where it takes longer than a second.
    async fn ask(&self, path: &str, body: Value, doing: &str) -> Result<Reply, Failed> {
        let (program, body) = (self.program()?, Zeroizing::new(body.to_string()));
        let mut asked = std::pin::pin!(program.send("POST", path, &[], body.as_bytes()));
        let mut seconds = 0;
        let reply = loop {
            match tokio::time::timeout(Duration::from_secs(1), &mut asked).await {
                Ok(reply) => break reply,
                Err(_) => {
                    seconds += 1;
                    let _ = write!(anstream::stderr(), "\r{doing} … {seconds} s");
                }
            }
        };
        if seconds > 0 {
            let _ = writeln!(anstream::stderr());
        }
        reply.map_err(|error| failed(UNAVAILABLE)(&error))
    }
}

fn refused(reply: &Reply) -> Failed {
    let problem = reply.json();
    let mut message = problem["detail"].as_str().unwrap_or("the server refused").to_owned();
    for error in problem["errors"].as_array().into_iter().flatten() {
        let text = |name: &str| error[name].as_str().unwrap_or_default();
        message.push_str(&format!("\n  {}  {}", text("pointer"), text("detail")));
    }
    Failed { code: DOES_NOT_HOLD, message }
}

/// `semilla tokens import`.
pub(crate) async fn import(import: Import) -> Result<(), Failed> {
    let content = text_of(&import.file)?;
    let is_csv = import.file.extension().is_some_and(|end| end.eq_ignore_ascii_case("csv"));
    let format = import.format.as_deref().unwrap_or(if is_csv { "csv" } else { "pskc" });
    let mut body = json!({
        "format": format,
        "kind": import.kind,
        "dry_run": import.dry_run,
        "content": content.as_str(),
    });
    if let Some(path) = &import.key_file {
        body["key"] = secret_in(path)?.as_str().into();
    } else if let Some(path) = &import.passphrase_file {
        body["passphrase"] = secret_in(path)?.as_str().into();
    } else if format == "pskc" && content.contains("DerivedKey") {
        body["passphrase"] = asked_for("Passphrase of the file: ")?.as_str().into();
    }
    // Of what is too large the server reads nothing, and its answer could be lost.
    if body.to_string().len() > FILE_BYTES_MAX {
        return Err(failed(USAGE)(&"the file is too large: at most 8 MiB are imported at once"));
    }
    let doing = format!("importing {}", import.file.display());
    let reply = import.server.ask("/api/v1/stock/import", body, &doing).await?;
    if !reply.status.is_success() {
        return Err(refused(&reply));
    }
    let report = reply.json();
    if import.json {
        print(&report.to_string())?;
    } else {
        for line in report["lines"].as_array().into_iter().flatten() {
            let text = |name: &str| line[name].as_str().unwrap_or("-").to_owned();
            let found = line["fault"].as_str().unwrap_or("ready");
            let (serial, method) = (text("serial"), text("method"));
            let number = line["line"].as_u64().unwrap_or_default();
            print(&format!("line {number:>6}  {serial:<32}  {method:<4}  {found}"))?;
        }
        let done = if import.dry_run { "nothing was done" } else { "all of them are in the stock" };
        print(&format!("{} ready, {} faulty: {done}", report["ready"], report["faulty"]))?;
    }
    if report["faulty"] == json!(0) {
        Ok(())
    } else {
        Err(failed(DOES_NOT_HOLD)(&"with these faults nothing of it would be imported"))
    }
}

/// `semilla tokens export`.
pub(crate) async fn export(export: Export) -> Result<(), Failed> {
    let passphrase = match &export.passphrase_file {
        Some(path) => secret_in(path)?,
        None => {
            let passphrase = asked_for("Passphrase for the file, at least 12 characters: ")?;
            if passphrase != asked_for("Once more: ")? {
                return Err(failed(USAGE)(&"these are two passphrases"));
            }
            passphrase
        }
    };
    let mut body = json!({"passphrase": passphrase.as_str()});
    if !export.serial.is_empty() {
        body["serials"] = export.serial.clone().into();
    }
    // Before anything is asked for, so that no export is recorded that went nowhere.
    let named = |error| failed(UNAVAILABLE)(&format!("{}: {error}", export.out.display()));
    let mut options = OpenOptions::new();
    let mut file =
        options.write(true).create_new(true).mode(0o600).open(&export.out).map_err(named)?;
    let reply = export.server.ask("/api/v1/stock/export", body, "exporting").await;
    let reply = reply.and_then(|reply| {
        if reply.status.is_success() { Ok(reply.json()) } else { Err(refused(&reply)) }
    });
    let reply = match reply {
        Ok(reply) => reply,
        Err(error) => {
            std::fs::remove_file(&export.out)?;
            return Err(error);
        }
    };
    file.write_all(reply["content"].as_str().unwrap_or_default().as_bytes())?;
    file.sync_all()?;
    let tokens = &reply["tokens"];
    if export.json {
        return print(&json!({"tokens": tokens, "file": export.out}).to_string());
    }
    print(&format!("{tokens} tokens in {}", export.out.display()))
}
