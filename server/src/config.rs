//! What an operator may set. A file in TOML says it; the environment overrides the file, setting
//! by setting (`SEMILLA_LISTEN` for `listen`). A name that is not known is refused, so that a
//! misspelt setting is not a silent default.
//!
//! Each setting is written down once, below: its documentation here, the commented sample that
//! `semilla init` writes and the names that are known are made of the same lines.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use axum::http::{HeaderName, Uri};
use semilla_core::seal::SealError;

use crate::listener::Limits;
use crate::listener::tls::Files;
use crate::workflow::retention::Retention;

pub mod master_key;

macro_rules! settings {
    ($($(#[doc = $doc:literal])+ $name:ident: $type:ty = $default:literal;)+) => {
        /// What is set.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Config {
            $($(#[doc = $doc])+ pub $name: $type,)+
        }

        /// The settings, as they are documented.
        const SETTINGS: &[Setting] = &[$(Setting {
            name: stringify!($name),
            default: $default,
            quoted: <$type as Readable>::QUOTED,
            doc: &[$($doc),+],
        }),+];

        impl Config {
            fn of(given: &BTreeMap<&str, Given>) -> Result<Self, ConfigError> {
                Ok(Self { $($name: read::<$type>(stringify!($name), $default, given)?),+ })
            }
        }
    };
}

settings! {
    /// The folder with everything that is kept: `data` in it holds the database. A relative path
    /// begins at the folder of this file.
    folder: PathBuf = ".";
    /// The address to listen on. Without TLS it has to be one of this machine alone, unless
    /// `behind_tls_proxy` is set.
    listen: SocketAddr = "127.0.0.1:8080";
    /// The server's address as its callers know it. It stands in every message that the server
    /// signs and is pinned by phones: changing it means binding them anew. Other than `https` only
    /// on this machine.
    issuer: Issuer = "http://localhost:8080";
    /// The file with the master keys, one a line: the first one seals, the others still open. Only
    /// its owner may read it. Keep a copy where no copy of the database is: without it a copy of
    /// the database is worth nothing, to you as to a thief. A relative path begins at `folder`.
    master_key_file: PathBuf = "keys/master.key";
    /// The file with the server's certificate and those between it and its authority, as PEM;
    /// empty where a proxy ends TLS. TLS 1.2 and 1.3, HTTP/1.1. Changed files are served within a
    /// second, without a restart. A relative path begins at `folder`.
    tls_certificate_file: OptionalPath = "";
    /// The file with the private key of that certificate, as PEM. Others than its owner and its
    /// group may not read it.
    tls_key_file: OptionalPath = "";
    /// The address at which metrics are served to Prometheus, at `/metrics`; empty serves none. On
    /// another address than one of this machine they are served over the same TLS.
    metrics_listen: OptionalAddress = "";
    /// For how many days operations and enrollments that have ended are kept, and the receipts of
    /// them; 0 is for good. The audit trail is never shortened.
    keep_operations_days: u32 = "365";
    /// For how many days each single attempt of a code is kept; 0 is for good. What stays of it is
    /// the audit's record over the attempts of one moment, with their number and their hash.
    keep_attempts_days: u32 = "730";
    /// For how many hours the answer to an Idempotency-Key is given again.
    keep_answers_hours: u32 = "24";
    /// The form of the log: `json`, or `text` for people.
    log_format: LogFormat = "json";
    /// What is logged: `error`, `warn`, `info`, `debug` or `trace`.
    log_level: LogLevel = "info";
    /// Connections at the same time, at most.
    connections: usize = "4096";
    /// Connections at the same time from one address, at most. Behind a proxy all connections come
    /// from its address.
    connections_per_address: usize = "256";
    /// How many codes may fail within a minute, over all companies, before an alarm is recorded in
    /// the bank's audit trail.
    alarm_failures_per_minute: u32 = "200";
    /// Requests of one program of a company in a second, at most; twice as many in a burst, and four
    /// times as many of a company's programs together. 0 is no limit.
    requests_per_second: u32 = "500";
    /// Codes of one program that may fail in a minute, for whatever reason, before no more are
    /// looked at for a while. 0 is no limit.
    failed_codes_per_minute: u32 = "600";
    /// Whether webhooks and other requests of the server's own may go to addresses that are not of
    /// the public network: where receivers are in the bank's own.
    allow_private_addresses: bool = "false";
    /// The file that signed checkpoints of the audit trail are appended to, one a line. With it
    /// `semilla audit verify` finds a trail whose end was cut off or that was written anew: keep it,
    /// or a copy made as it grows, where whoever can change the database cannot change it. A
    /// relative path begins at `folder`.
    checkpoint_file: PathBuf = "checkpoints.txt";
    /// How many seconds the audit trail grows before it is stated again, at most.
    checkpoint_seconds: u32 = "60";
    /// Whether a proxy before this server ends TLS. Then `listen` may be any address; see to it
    /// that nobody but the proxy reaches it.
    behind_tls_proxy: bool = "false";
    /// The header in which that proxy names the address of its client, such as `X-Forwarded-For`;
    /// empty where it names none. Only the last entry is believed, and only where
    /// `behind_tls_proxy` is set: the proxy has to write it, whatever the client sent.
    client_address_header: ClientAddressHeader = "";
}

/// One setting, as the sample shows it.
struct Setting {
    name: &'static str,
    default: &'static str,
    quoted: bool,
    doc: &'static [&'static str],
}

/// What can be set.
trait Readable: Sized {
    /// Whether it is a text in TOML.
    const QUOTED: bool;
    /// Reads it; the error ends the sentence "this setting …".
    fn read(text: &str) -> Result<Self, String>;
}

macro_rules! readable {
    ($($type:ty, $quoted:literal, $expected:literal;)*) => {$(
        impl Readable for $type {
            const QUOTED: bool = $quoted;
            fn read(text: &str) -> Result<Self, String> {
                <$type>::from_str(text).map_err(|_| format!("has to be {}", $expected))
            }
        }
    )*};
}

readable! {
    SocketAddr, true, "an address and a port, such as 127.0.0.1:8080";
    usize, false, "a number";
    u32, false, "a number";
    bool, false, "true or false";
}

impl Readable for PathBuf {
    const QUOTED: bool = true;
    fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("has to be a path".to_owned()) } else { Ok(text.into()) }
    }
}

macro_rules! choices {
    ($($(#[doc = $doc:literal])+ $type:ident { $($(#[doc = $variant_doc:literal])+ $variant:ident = $name:literal,)+ })+) => {$(
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $type { $($(#[doc = $variant_doc])+ $variant,)+ }

        impl $type {
            /// Its name.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }

        impl Readable for $type {
            const QUOTED: bool = true;
            fn read(text: &str) -> Result<Self, String> {
                match text {
                    $($name => Ok(Self::$variant),)+
                    _ => Err(format!("has to be one of {}", [$($name),+].join(", "))),
                }
            }
        }
    )+};
}

choices! {
    /// The form of the log.
    LogFormat {
        /// A line of JSON for each event.
        Json = "json",
        /// A line for people.
        Text = "text",
    }
    /// What is logged.
    LogLevel {
        /// Failures only.
        Error = "error",
        /// What somebody should look at.
        Warn = "warn",
        /// A line for each request.
        Info = "info",
        /// More, for whoever looks for something.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }
}

/// The server's address: `https://host`, perhaps with a port and a path, without `/` at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer(String);

impl Issuer {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Readable for Issuer {
    const QUOTED: bool = true;
    fn read(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| {
            Err(format!("has to be an address such as https://tokens.example: {what}"))
        };
        let Ok(uri) = text.parse::<Uri>() else { return wrong("this is none") };
        let (Some(scheme), Some(host)) = (uri.scheme_str(), uri.host()) else {
            return wrong("it needs a scheme and a host");
        };
        let is_here = matches!(host, "localhost" | "127.0.0.1" | "[::1]");
        if scheme != "https" && !(scheme == "http" && is_here) {
            return wrong("http is for this machine alone (security 36)");
        }
        // One spelling: callers compare it as text.
        if text != text.to_ascii_lowercase()
            || text.ends_with('/')
            || text.contains(['?', '#', '@'])
        {
            return wrong("in lower case, without a user, a query, or a / at its end");
        }
        Ok(Self(text.to_owned()))
    }
}

/// A path, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionalPath(pub Option<PathBuf>);

impl Readable for OptionalPath {
    const QUOTED: bool = true;
    fn read(text: &str) -> Result<Self, String> {
        Ok(Self((!text.is_empty()).then(|| text.into())))
    }
}

/// An address to listen on, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionalAddress(pub Option<SocketAddr>);

impl Readable for OptionalAddress {
    const QUOTED: bool = true;
    fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        SocketAddr::read(text).map(|address| Self(Some(address)))
    }
}

/// A header's name, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAddressHeader(pub Option<HeaderName>);

impl Readable for ClientAddressHeader {
    const QUOTED: bool = true;
    fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        let name =
            HeaderName::from_str(text).map_err(|_| "has to be the name of a header".to_owned())?;
        Ok(Self(Some(name)))
    }
}

/// What was given for a setting, and where.
struct Given {
    text: String,
    /// Where it was given, for whoever has to mend it.
    place: String,
}

fn read<T: Readable>(
    name: &str,
    default: &str,
    given: &BTreeMap<&str, Given>,
) -> Result<T, ConfigError> {
    let (text, place) = match given.get(name) {
        Some(given) => (given.text.as_str(), given.place.as_str()),
        None => (default, "the default"),
    };
    T::read(text).map_err(|what| ConfigError::Wrong {
        name: name.to_owned(),
        place: place.to_owned(),
        what,
    })
}

/// Why the server does not start with this configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {error}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The file is not TOML.
    #[error("the configuration is not TOML: {0}")]
    Syntax(Box<toml::de::Error>),
    /// A name that is not known.
    #[error("{place}: there is no setting {name}; did you mean {nearest}?")]
    Unknown {
        /// The name.
        name: String,
        /// Where it stands.
        place: String,
        /// The known name that is most like it.
        nearest: &'static str,
    },
    /// A setting has a value that it cannot have.
    #[error("{place}: {name} {what}")]
    Wrong {
        /// The setting.
        name: String,
        /// Where it was given.
        place: String,
        /// What it has to be.
        what: String,
    },
    /// The settings together are not safe.
    #[error("{0}")]
    Unsafe(String),
    /// A key does not read.
    #[error("{}, line {line}: {error}", path.display())]
    MasterKey {
        /// The file.
        path: PathBuf,
        /// Which line.
        line: usize,
        /// Why.
        error: SealError,
    },
}

impl Config {
    /// Reads the file at `path`, and the environment.
    ///
    /// # Errors
    /// Whatever is wrong with them, with its place. Values are told where they are wrong: none of
    /// them is a secret.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path)
            .map_err(|error| ConfigError::File { path: path.to_owned(), error })?;
        let mut config = Self::parse(&text, |name| std::env::var(name).ok())?;
        // An empty parent is the folder that the program runs in.
        config.folder = path.parent().unwrap_or(Path::new("")).join(&config.folder);
        Ok(config)
    }

    /// Reads `text`, and what `environment` says to override it. Paths are left as they are given.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(
        text: &str,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let table: toml::Table =
            text.parse().map_err(|error| ConfigError::Syntax(Box::new(error)))?;
        let mut given = BTreeMap::new();
        for (name, value) in table {
            let place = place_of(text, &name);
            let Some(setting) = SETTINGS.iter().find(|setting| setting.name == name) else {
                return Err(ConfigError::Unknown { nearest: nearest(&name), name, place });
            };
            let text = match (value, setting.quoted) {
                (toml::Value::String(text), true) => text,
                (toml::Value::Integer(number), false) => number.to_string(),
                (toml::Value::Boolean(switch), false) => switch.to_string(),
                (_, quoted) => {
                    let what =
                        if quoted { "has to be a text in quotes" } else { "stands without quotes" };
                    return Err(ConfigError::Wrong { name, place, what: what.to_owned() });
                }
            };
            given.insert(setting.name, Given { text, place });
        }
        for setting in SETTINGS {
            let variable = variable(setting.name);
            if let Some(text) = environment(&variable) {
                given.insert(
                    setting.name,
                    Given { text, place: format!("the environment ({variable})") },
                );
            }
        }
        let config = Self::of(&given)?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let tls = match (&self.tls_certificate_file.0, &self.tls_key_file.0) {
            (Some(_), Some(_)) => true,
            (None, None) => false,
            _ => {
                return Err(ConfigError::Unsafe(
                    "tls_certificate_file and tls_key_file belong together: set both, or none."
                        .to_owned(),
                ));
            }
        };
        if tls && !self.issuer.as_str().starts_with("https://") {
            return Err(ConfigError::Unsafe(format!(
                "issuer = \"{}\" is no https address, and this server speaks TLS.",
                self.issuer.as_str()
            )));
        }
        if let Some(address) = self.metrics_listen.0
            && !tls
            && !address.ip().is_loopback()
        {
            return Err(ConfigError::Unsafe(format!(
                "metrics_listen = \"{address}\" would answer others in clear text. Listen on 127.0.0.1, or set \
                 tls_certificate_file and tls_key_file."
            )));
        }
        if !tls && !self.behind_tls_proxy && !self.listen.ip().is_loopback() {
            return Err(ConfigError::Unsafe(format!(
                "listen = \"{}\" would answer others in clear text. Listen on 127.0.0.1, set \
                 tls_certificate_file and tls_key_file, or put a proxy with TLS before this server and set \
                 behind_tls_proxy = true.",
                self.listen
            )));
        }
        if self.client_address_header.0.is_some() && !self.behind_tls_proxy {
            return Err(ConfigError::Unsafe(
                "client_address_header is set and behind_tls_proxy is not: whoever connects could name any address."
                    .to_owned(),
            ));
        }
        Ok(())
    }

    /// A file with every setting, its documentation and its default, all commented out.
    pub fn sample() -> String {
        let mut sample =
            "# Settings of Semilla. Remove a # to change one; the environment overrides them\n\
                          # (SEMILLA_LISTEN for listen).\n"
                .to_owned();
        for Setting { name, default, quoted, doc } in SETTINGS {
            let quote = if *quoted { "\"" } else { "" };
            sample.push('\n');
            for line in *doc {
                sample.push_str(&format!("#{line}\n"));
            }
            sample.push_str(&format!("#{name} = {quote}{default}{quote}\n"));
        }
        sample
    }

    /// The folder of the database.
    pub fn data_folder(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// The file with the master keys.
    pub fn master_key_path(&self) -> PathBuf {
        self.folder.join(&self.master_key_file)
    }

    /// The file of the checkpoints.
    pub fn checkpoint_path(&self) -> PathBuf {
        self.folder.join(&self.checkpoint_file)
    }

    /// The certificate and its key, where this server speaks TLS.
    pub fn tls(&self) -> Option<Files> {
        let (certificate, key) = (&self.tls_certificate_file.0, &self.tls_key_file.0);
        let (Some(certificate), Some(key)) = (certificate, key) else { return None };
        Some(Files { certificate: self.folder.join(certificate), key: self.folder.join(key) })
    }

    /// For how long things are kept.
    pub fn retention(&self) -> Retention {
        let days =
            |count: u32| (count > 0).then(|| Duration::from_secs(u64::from(count) * 24 * 3600));
        let answers = Duration::from_secs(u64::from(self.keep_answers_hours) * 3600);
        Retention {
            operations: days(self.keep_operations_days),
            attempts: days(self.keep_attempts_days),
            answers,
        }
    }

    /// What a client may take of the server.
    pub fn limits(&self) -> Limits {
        Limits {
            connections: self.connections,
            connections_per_address: self.connections_per_address,
            client_address_header: self.client_address_header.0.clone(),
            ..Limits::default()
        }
    }
}

fn variable(name: &str) -> String {
    format!("SEMILLA_{}", name.to_ascii_uppercase())
}

/// The line that a name stands on.
fn place_of(text: &str, name: &str) -> String {
    let begins =
        |line: &str| line.trim_start().trim_start_matches(['"', '\'', '[']).starts_with(name);
    match text.lines().position(begins) {
        Some(place) => format!("line {}", place + 1),
        None => "the configuration".to_owned(),
    }
}

/// The known name that is most like `name`.
fn nearest(name: &str) -> &'static str {
    SETTINGS
        .iter()
        .map(|setting| setting.name)
        .min_by_key(|known| distance(name, known))
        .unwrap_or_default()
}

/// How many letters to change, add or leave out to make the one of the other (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (place, letter) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = place + 1;
        for (column, known) in other.iter().enumerate() {
            let changed = diagonal + usize::from(letter != *known);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text, |_| None)
    }

    fn refused(text: &str) -> String {
        parse(text).expect_err(text).to_string()
    }

    #[test]
    fn an_empty_file_means_the_defaults_and_the_sample_says_what_they_are() {
        let defaults = parse("").expect("defaults");
        assert_eq!(defaults.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(parse(&Config::sample()).expect("a sample"), defaults);
        let set: Vec<_> = Config::sample()
            .lines()
            .filter_map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')))
            .map(str::to_owned)
            .collect();
        assert_eq!(set.len(), SETTINGS.len());
        assert_eq!(parse(&set.join("\n")).expect("a sample"), defaults);
    }

    #[test]
    fn the_environment_overrides_the_file() {
        let environment = |name: &str| (name == "SEMILLA_CONNECTIONS").then(|| "7".to_owned());
        let config = Config::parse("connections = 5\nlog_level = \"debug\"", environment)
            .expect("a configuration");
        assert_eq!((config.connections, config.log_level), (7, LogLevel::Debug));
        let wrong = Config::parse("", |name| (name == "SEMILLA_LISTEN").then(|| "x".to_owned()));
        let told = wrong.expect_err("wrong").to_string();
        assert!(told.contains("SEMILLA_LISTEN") && told.contains("127.0.0.1:8080"), "{told}");
    }

    #[test]
    fn a_misspelt_name_is_refused_with_its_line_and_the_right_one() {
        let told = refused("# first\nconnections = 5\n lsten = \"x\"\n");
        assert_eq!(told, "line 3: there is no setting lsten; did you mean listen?");
        assert!(refused("[server]\nlisten = \"x\"").contains("line 1: there is no setting server"));
        assert!(refused("listen = ").contains("line 1"));
    }

    #[test]
    fn a_wrong_value_is_refused_with_what_it_has_to_be() {
        for (text, told) in [
            ("listen = 8080", "line 1: listen has to be a text in quotes"),
            ("connections = \"5\"", "line 1: connections stands without quotes"),
            ("connections = -1", "line 1: connections has to be a number"),
            ("log_format = \"xml\"", "line 1: log_format has to be one of json, text"),
            ("folder = \"\"", "line 1: folder has to be a path"),
            (
                "client_address_header = \"a b\"",
                "line 1: client_address_header has to be the name of a header",
            ),
        ] {
            assert_eq!(refused(text), told);
        }
    }

    #[test]
    fn security_36_and_77_what_would_not_be_safe_is_refused() {
        for text in [
            "listen = \"0.0.0.0:443\"",
            "listen = \"[::]:443\"",
            "client_address_header = \"X-Forwarded-For\"",
            "issuer = \"http://tokens.example\"",
            "tls_certificate_file = \"a\"",
            "tls_key_file = \"a\"",
            "metrics_listen = \"0.0.0.0:9100\"",
            "tls_certificate_file = \"a\"\ntls_key_file = \"b\"",
        ] {
            refused(text);
        }
        let config = parse(
            "listen = \"0.0.0.0:80\"\nbehind_tls_proxy = true\nclient_address_header = \"X-Real-IP\"",
        );
        assert_eq!(
            config.expect("safe").limits().client_address_header,
            Some(HeaderName::from_static("x-real-ip"))
        );
    }

    #[test]
    fn the_issuer_has_one_spelling() {
        for fine in
            ["https://tokens.example", "https://tokens.example:8443/semilla", "http://[::1]:8080"]
        {
            assert!(Issuer::read(fine).is_ok(), "{fine}");
        }
        for wrong in [
            "",
            "tokens.example",
            "https://",
            "https://Tokens.example",
            "https://tokens.example/",
            "https://tokens.example?x",
            "https://tokens.example#x",
            "https://a@tokens.example",
            "ftp://tokens.example",
            "http://localhost.evil.example",
        ] {
            assert!(Issuer::read(wrong).is_err(), "{wrong}");
        }
    }
}
