//! The server as people run it: the program `semilla` in a process of its own, which can be killed
//! at any moment and started again on the same folder.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use semilla_server::clock::{Clock, SystemClock};
use serde_json::Value;

use crate::http::Http;

/// The program, next to the one that runs the stories.
pub fn semilla() -> PathBuf {
    let own = std::env::current_exe().expect("this program has a path");
    let folder = own.parent().and_then(Path::parent).expect("target/debug/deps");
    let program = folder.join("semilla");
    assert!(
        program.is_file(),
        "{} is missing: run `cargo build --workspace` before the stories",
        program.display()
    );
    program
}

/// Runs the program to its end.
pub fn run(arguments: &[&str]) -> Output {
    Command::new(semilla()).args(arguments).stdin(Stdio::null()).output().expect("semilla runs")
}

/// Shows another clock to a program (Debian: apt install libfaketime).
pub const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

/// A folder that `semilla init` made.
pub struct Home {
    /// The folder.
    pub folder: tempfile::TempDir,
    /// What `init` printed: the operator's credentials.
    pub credentials: Value,
    port: u16,
    /// The authority of its certificate, where it speaks TLS.
    pub authority: Option<String>,
    /// By how many seconds the server's clock is ahead of the machine's, from its next start on.
    pub ahead: u64,
    /// What its environment holds besides, from its next start on.
    pub environment: Vec<(&'static str, String)>,
    /// What is run in the place of `semilla`, with its first arguments; empty for `semilla`.
    pub program: Vec<String>,
}

impl Home {
    /// Makes one.
    pub fn make() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("semilla");
        assert!(Path::new(FAKETIME).is_file(), "libfaketime is not installed: run tests/run");
        let made = run(&["init", "--folder", path.to_str().expect("a path"), "--json"]);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let credentials = serde_json::from_slice(&made.stdout).expect("JSON");
        // A port that was free a moment ago, and the same for every start: it stands in what
        // phones pin.
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = free.local_addr().expect("an address").port();
        Self {
            folder,
            credentials,
            port,
            authority: None,
            ahead: 0,
            environment: Vec::new(),
            program: Vec::new(),
        }
    }

    /// The same, speaking TLS with a certificate of an authority of its own.
    pub fn make_with_tls() -> Self {
        let mut home = Self::make();
        home.set("tls_certificate_file = \"tls/server.pem\"");
        home.set("tls_key_file = \"tls/server.key\"");
        home.authority = Some(home.certify());
        home
    }

    /// Makes an authority and a certificate, which take the place of those before; the authority.
    pub fn certify(&self) -> String {
        let folder = self.path().join("tls");
        std::fs::create_dir_all(&folder).expect("a folder");
        let names = ["127.0.0.1", "localhost"];
        let made = semilla_server::dev::certificates::make(&folder, &names, SystemClock.now());
        made.expect("a certificate").authority_pem
    }

    /// Adds a line to the configuration.
    pub fn set(&self, line: &str) {
        let config = self.config();
        let text = std::fs::read_to_string(&config).expect("the configuration");
        std::fs::write(config, format!("{text}\n{line}\n")).expect("written");
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A client that believes its authority.
    pub fn http(&self) -> Http {
        Http::trusting(&self.base(), self.authority.as_deref()).expect("an authority")
    }

    /// Runs a command of the program on this folder: whether it exits with 0, and what it says.
    pub fn command(&self, words: &[&str]) -> (bool, String) {
        let ran = self.ran(words);
        let said = [ran.stdout, ran.stderr].concat();
        (ran.status.success(), String::from_utf8_lossy(&said).into_owned())
    }

    /// The same, all of what came of it.
    pub fn ran(&self, words: &[&str]) -> Output {
        let mut command = Command::new(semilla());
        command.args(words).arg("--config").arg(self.config()).stdin(Stdio::null());
        self.environment(&mut command);
        command.output().expect("semilla runs")
    }

    /// The clock and the address that the server has.
    fn environment(&self, command: &mut Command) {
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        if self.ahead > 0 {
            let is_loaded = |(name, _): &&(&str, String)| *name == "LD_PRELOAD";
            let loaded = self.environment.iter().find(is_loaded).map(|(_, path)| path.as_str());
            // The clock alone: what the system measures time with stays what it is.
            command
                .env("LD_PRELOAD", [FAKETIME, loaded.unwrap_or_default()].join(":"))
                .env("FAKETIME", format!("+{}s", self.ahead))
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        command
            .env("SEMILLA_LISTEN", format!("127.0.0.1:{}", self.port))
            .env("SEMILLA_ISSUER", self.base());
    }

    /// The folder that `init` filled.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("semilla")
    }

    /// The configuration.
    pub fn config(&self) -> PathBuf {
        self.path().join("semilla.toml")
    }

    /// The database.
    pub fn database(&self) -> PathBuf {
        self.path().join("data").join("semilla.db")
    }

    /// The server's address.
    pub fn base(&self) -> String {
        let scheme = if self.authority.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// Starts the server, and returns once it answers.
    pub fn serve(&self) -> Process {
        let mut child = self.start();
        // The one line that says where it listens comes when it does; what follows is drained, so
        // that a full pipe never holds the server up.
        let log = BufReader::new(child.stderr.take().expect("its log"));
        let mut lines = log.lines();
        let mut said = Vec::new();
        loop {
            match lines.next() {
                Some(Ok(line)) if line.contains("\"listening\"") => break,
                Some(Ok(line)) => said.push(line),
                _ => {
                    let status = child.wait().expect("its status");
                    panic!("the server did not start ({status}): {}", said.join("\n"));
                }
            }
        }
        let log = Arc::new(Mutex::new(said.join("\n")));
        let kept = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut log = kept.lock().expect("no panic");
                log.push('\n');
                log.push_str(&line);
            }
        });
        Process { child, log, heard: Mutex::new(0) }
    }

    /// Starts the server without waiting for it.
    pub fn start(&self) -> Child {
        let mut command = Command::new(self.program.first().map_or_else(semilla, PathBuf::from));
        command.args(self.program.iter().skip(1));
        self.environment(&mut command);
        command
            .args(["serve", "--config"])
            .arg(self.config())
            .arg("--ready-file")
            .arg(self.path().join("ready"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("semilla runs")
    }

    /// `semilla audit verify`, on a server that does not run: whether it found everything whole,
    /// and what it said.
    pub fn verify(&self) -> (bool, String) {
        let config = self.config();
        let ran = run(&["audit", "verify", "--config", config.to_str().expect("a path")]);
        let said = [ran.stdout, ran.stderr].concat();
        (ran.status.success(), String::from_utf8_lossy(&said).into_owned())
    }
}

/// A server that runs.
pub struct Process {
    /// The process.
    pub child: Child,
    log: Arc<Mutex<String>>,
    /// How far the log was listened to.
    heard: Mutex<usize>,
}

impl Process {
    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("no panic").clone()
    }

    /// Kills it with SIGKILL, now.
    pub fn kill(mut self) {
        self.kill_now();
    }

    /// The same, where it is still needed as one that ran.
    pub fn kill_now(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("its status");
    }

    /// Returns once this stands in its log, behind what was heard before.
    pub fn hear(&self, text: &str) {
        let begun = std::time::Instant::now();
        let mut heard = self.heard.lock().expect("no panic");
        loop {
            let log = self.log();
            if let Some(place) = log[*heard..].find(text) {
                *heard += place + text.len();
                return;
            }
            assert!(begun.elapsed() < std::time::Duration::from_secs(30), "{text}: {log}");
            std::thread::yield_now();
        }
    }

    /// Sends it a signal, by its name.
    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &id]).status();
        assert!(sent.expect("kill runs").success());
    }

    /// Asks it to stop, as a service manager does.
    pub fn ask_to_stop(&self) {
        self.signal("TERM");
    }

    /// The same, and waits for its end.
    pub fn stop(mut self) -> std::process::ExitStatus {
        self.ask_to_stop();
        self.child.wait().expect("its status")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Ended already, where the story did it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs statements on a database that no server holds, as whoever got hold of the file would.
pub fn sqlite(database: &Path, statements: &str) -> String {
    let ran = Command::new("sqlite3").arg("-bail").arg(database).arg(statements).output();
    let ran = ran.expect("sqlite3 is installed (Debian: apt install sqlite3)");
    assert!(ran.status.success(), "{statements}: {}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8_lossy(&ran.stdout).trim_end().to_owned()
}
