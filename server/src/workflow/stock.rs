//! Tokens in and out: a file of tokens that come with their seeds enters the bank's stock whole or
//! not at all, and what is in the stock leaves it under a passphrase. A token that a company has,
//! or a seed that was made here, never leaves.

use std::collections::HashSet;

use schemars::JsonSchema;
use semilla_core::audit::Subject;
use semilla_core::id::{CompanyId, TokenId, UserId};
use semilla_core::import::{self, Imported, Line, hexadecimal};
use semilla_core::operations::{Action, State};
use semilla_core::otp::{Method, Step};
use semilla_core::problem::{FieldError, Problem, ProblemType};
use semilla_core::pskc::{self, Exported, FileKey, KEYS_MAX};
use semilla_core::secret::SecretText;
use semilla_core::token::{Kind, Serial, Token};
use serde::{Deserialize, Serialize};

use super::caller::Acting;
use super::effects::{audit_kind, open_own_seed, reserve, seal_own_seed};
use super::unit::Unit;
use super::{Failure, Plan, View};
use crate::app::App;
use crate::records::{OwnSeed, StoredToken};
use crate::store::{Query, Record, Records, Scope, Topic, Value};

/// The faults that a refusal tells one by one.
const FAULTS_TOLD: usize = 100;

/// How many characters a passphrase for an export has.
const PASSPHRASE: std::ops::RangeInclusive<usize> = 12..=1024;

/// How the tokens of a file are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// A key container of RFC 6030.
    Pskc,
    /// Lines of values divided by commas.
    Csv,
}

impl Format {
    fn name(self) -> &'static str {
        match self {
            Self::Pskc => "pskc",
            Self::Csv => "csv",
        }
    }
}

/// A file to import.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImportRequest {
    /// How it is written.
    pub format: Format,
    /// What its tokens are: physical, if not said, or software.
    pub kind: Option<Kind>,
    /// Only reports what an import would do.
    pub dry_run: Option<bool>,
    /// The file.
    pub content: SecretText,
    /// What it is encrypted under, if a passphrase.
    pub passphrase: Option<SecretText>,
    /// What it is encrypted under, if a key: in hexadecimal.
    pub key: Option<SecretText>,
    /// In which operator's name.
    pub asker: Option<UserId>,
}

/// A file that was read.
pub struct Reading {
    format: Format,
    kind: Kind,
    dry_run: bool,
    lines: Vec<Line>,
}

/// What an import did, or would do.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ImportReport {
    /// Whether nothing was to be done.
    pub dry_run: bool,
    /// Whether the tokens are in the stock now.
    pub imported: bool,
    /// How many lines or packages can be imported.
    pub ready: usize,
    /// How many cannot.
    pub faulty: usize,
    /// Each of them.
    pub lines: Vec<LineReport>,
}

/// What became of a line, or of a key package.
#[derive(Debug, Serialize, JsonSchema)]
pub struct LineReport {
    /// Where it begins in the file.
    pub line: u32,
    /// The serial number it names.
    pub serial: Option<String>,
    /// `totp` or `hotp`, where it is a token.
    pub method: Option<&'static str>,
    /// Why it cannot be imported.
    pub fault: Option<String>,
}

impl View for ImportReport {}

/// Reads a file, away from what must not wait: it can take seconds.
pub async fn read(request: ImportRequest) -> Result<Reading, Failure> {
    let kind = request.kind.unwrap_or(Kind::Physical);
    if kind == Kind::Virtual {
        let detail = "must be physical or software: the seed of a virtual token is made here";
        return Err(Problem::field("#/kind", detail).into());
    }
    let (format, dry_run) = (request.format, request.dry_run.unwrap_or(false));
    let work = move || {
        let key = match (request.passphrase, request.key) {
            (Some(_), Some(_)) => {
                return Err(Problem::field("#/key", "give a passphrase or a key, not both"));
            }
            (Some(passphrase), None) => FileKey::Passphrase(passphrase),
            (None, Some(key)) => {
                let bytes = hexadecimal(key.expose()).filter(|bytes| !bytes.is_empty());
                let not_hexadecimal = || Problem::field("#/key", "must be in hexadecimal");
                FileKey::Preshared(bytes.ok_or_else(not_hexadecimal)?)
            }
            (None, None) => FileKey::None,
        };
        let text = request.content.expose();
        match (format, &key) {
            (Format::Pskc, key) => import::pskc(text, key),
            (Format::Csv, FileKey::None) => import::csv(text),
            (Format::Csv, _) => {
                return Err(Problem::field("#/format", "CSV is in clear and has no key"));
            }
        }
        .map_err(|fault| Problem::field("#/content", fault.to_string()))
    };
    let lines = tokio::task::spawn_blocking(work).await;
    let failed = |_| Problem::new(ProblemType::Internal, "The file was not read.");
    Ok(Reading { format, kind, dry_run, lines: lines.map_err(failed)?? })
}

/// Takes all tokens of a file into the stock, or none.
pub async fn import(
    app: &App,
    acting: &Acting,
    reading: &Reading,
) -> Result<Plan<ImportReport>, Failure> {
    let mut unit = Unit::new(app);
    let mut lines = Vec::new();
    for line in &reading.lines {
        let (method, fault) = match &line.token {
            Ok(token) => {
                let taken = app.store.lookup(Scope::Serial, token.serial.as_str()).await?.is_some();
                let method = match token.method {
                    Method::Time(_) => "totp",
                    Method::Counter(_) => "hotp",
                };
                if !taken && !reading.dry_run {
                    take_over(&mut unit, acting, reading, token);
                }
                (Some(method), taken.then(|| "a token with this serial number exists".to_owned()))
            }
            Err(fault) => (None, Some(fault.to_string())),
        };
        lines.push(LineReport { line: line.line, serial: line.serial.clone(), method, fault });
    }
    let faulty = lines.iter().filter(|line| line.fault.is_some()).count();
    let ready = lines.len() - faulty;
    let (dry_run, imported) = (reading.dry_run, !reading.dry_run);
    let report = ImportReport { dry_run, imported, ready, faulty, lines };
    if reading.dry_run {
        return Ok(Plan { batch: crate::store::Batch::default(), answer: report });
    }
    if faulty > 0 {
        return Err(refusal(&report).into());
    }
    let draft = unit.draft(CompanyId::BANK, "stock.imported", acting.actor());
    let draft = draft.with("tokens", ready).with("kind", reading.kind.name());
    unit.record(draft.with("format", reading.format.name()));
    unit.wake(Topic::Audit(CompanyId::BANK));
    Ok(unit.plan(report))
}

fn refusal(report: &ImportReport) -> Problem {
    let mut problem = Problem::new(
        ProblemType::Validation,
        format!("{} of {} cannot be imported: nothing was.", report.faulty, report.lines.len()),
    );
    let faulty = report.lines.iter().filter_map(|line| Some((line, line.fault.as_ref()?)));
    problem.errors = faulty
        .take(FAULTS_TOLD)
        .map(|(line, fault)| FieldError {
            pointer: "#/content".into(),
            detail: match &line.serial {
                Some(serial) => format!("line {} ({serial}): {fault}", line.line),
                None => format!("line {}: {fault}", line.line),
            },
        })
        .collect();
    problem
}

fn take_over(unit: &mut Unit<'_>, acting: &Acting, reading: &Reading, imported: &Imported) {
    let app = unit.app;
    let id = TokenId::new(unit.now, app.entropy.as_ref());
    let token = Token::import(id, imported.serial.clone(), reading.kind, unit.now);
    reserve(unit, Scope::Serial, token.serial.to_string(), CompanyId::BANK, id.to_string());
    let subject = Subject { token: Some(id), ..Subject::default() };
    let draft = unit.draft(CompanyId::BANK, audit_kind(Action::Issue), acting.actor());
    let draft = draft.about(subject).with("serial", &token.serial).with("to", State::Stock.name());
    unit.record(draft.with("imported_from", reading.format.name()));
    unit.save(&OwnSeed {
        token: id,
        sealed: seal_own_seed(app, id, &imported.seed),
        method: imported.method,
        after: imported.after,
        drift: imported.drift,
        manufacturer: imported.manufacturer.clone(),
        model: imported.model.clone(),
        exported: None,
    });
    unit.save(&StoredToken { token, holder_name: None, updated: unit.now });
}

/// Which tokens are to leave.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExportRequest {
    /// What the file is to be encrypted under.
    pub passphrase: SecretText,
    /// These; if not said, all that can.
    pub serials: Option<Vec<Serial>>,
    /// In which operator's name.
    pub asker: Option<UserId>,
}

/// A file of tokens. No `Debug`.
#[derive(Serialize, JsonSchema)]
pub struct ExportView {
    /// How many there are in it.
    pub tokens: usize,
    /// The file: a key container of RFC 6030, encrypted.
    pub content: String,
}

impl View for ExportView {}

/// Writes tokens of the stock that came with their seeds, under a passphrase. They stay: who moves
/// them to another server retires them here.
pub async fn export(
    app: &App,
    acting: &Acting,
    request: &ExportRequest,
) -> Result<Plan<ExportView>, Failure> {
    if !PASSPHRASE.contains(&request.passphrase.expose().chars().count()) {
        let (least, most) = (PASSPHRASE.start(), PASSPHRASE.end());
        let detail = format!("must have {least} to {most} characters");
        return Err(Problem::field("#/passphrase", detail).into());
    }
    let mut unit = Unit::new(app);
    let mut exported = Vec::new();
    for (place, id) in chosen(app, request).await? {
        let stored = unit.get::<StoredToken>(CompanyId::BANK, &id).await?;
        let token = stored.map(|stored| stored.record.token);
        let can_leave = |token: &Token| token.state() == State::Stock && token.has_own_seed;
        let Some(token) = token.filter(can_leave) else {
            let detail = "is not of a token in the stock that came with its seed";
            return Err(Problem::field(place, detail).into());
        };
        let own = unit.must::<OwnSeed>(CompanyId::BANK, &id).await?.record;
        let subject = Subject { token: Some(token.id), ..Subject::default() };
        let draft = unit.draft(CompanyId::BANK, "token.exported", acting.actor()).about(subject);
        unit.record(draft.with("serial", &token.serial));
        exported.push(Exported {
            serial: token.serial,
            seed: open_own_seed(app, &own)?,
            method: own.method,
            counter: own.after.map_or(0, |Step(after)| after.saturating_add(1)),
            drift: own.drift,
            manufacturer: own.manufacturer.clone(),
            model: own.model.clone(),
        });
        unit.save(&OwnSeed { exported: Some(unit.now), ..own });
    }
    if exported.is_empty() {
        let mut problem = Problem::new(
            ProblemType::StateConflict,
            "There is no token in the stock that came with its seed.",
        );
        problem.who_can_act = Some("operator".to_owned());
        return Err(problem.into());
    }
    let tokens = exported.len();
    let draft = unit.draft(CompanyId::BANK, "stock.exported", acting.actor());
    unit.record(draft.with("tokens", tokens));
    unit.wake(Topic::Audit(CompanyId::BANK));
    let entropy = std::sync::Arc::clone(&app.entropy);
    let passphrase = SecretText::new(request.passphrase.expose().to_owned());
    let work = move || pskc::write(&exported, &passphrase, entropy.as_ref());
    let failed = |_| Problem::new(ProblemType::Internal, "The file was not written.");
    let content = tokio::task::spawn_blocking(work).await.map_err(failed)?;
    Ok(unit.plan(ExportView { tokens, content }))
}

/// The ids of the tokens that a request names, each with the place it names it at.
async fn chosen(app: &App, request: &ExportRequest) -> Result<Vec<(String, String)>, Failure> {
    let mut chosen = Vec::new();
    let too_many = || {
        let detail = format!("are more than {KEYS_MAX}: name fewer, and make several files");
        Failure::from(Problem::field("#/serials", detail))
    };
    if let Some(serials) = &request.serials {
        if serials.len() > KEYS_MAX {
            return Err(too_many());
        }
        let mut seen = HashSet::new();
        for (place, serial) in serials.iter().enumerate() {
            let place = format!("#/serials/{place}");
            if !seen.insert(serial) {
                return Err(Problem::field(place, "is given twice").into());
            }
            let found = app.store.lookup(Scope::Serial, serial.as_str()).await?;
            // Unknown, and of a company: both are not in the stock.
            let id = found.filter(|(owner, _)| *owner == CompanyId::BANK);
            chosen.push((place, id.map_or_else(String::new, |(_, id)| id)));
        }
        return Ok(chosen);
    }
    let mut query =
        Query::of(StoredToken::TABLE, CompanyId::BANK, 1000).equals("state", State::Stock.name());
    query.order = Some("serial");
    loop {
        let found = app.store.find::<StoredToken>(&query).await?;
        let Some(last) = found.last() else { return Ok(chosen) };
        query.after = Some((Value::Text(last.record.token.serial.to_string()), last.record.id()));
        let own = found.iter().filter(|stored| stored.record.token.has_own_seed);
        chosen.extend(own.map(|stored| ("#".to_owned(), stored.record.id())));
        if chosen.len() > KEYS_MAX {
            return Err(too_many());
        }
    }
}
