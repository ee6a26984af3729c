//! What a command says in the end: lines for a person or one JSON object for a program, and the
//! exit code. Colours and rules are written always, and taken out where the output is no terminal.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use semilla_approver::Error;
use semilla_core::language::Language;
use serde_json::{Value, json};

/// Bold.
pub(crate) const STRONG: Style = Style::new().bold();
/// Faint.
pub(crate) const FAINT: Style = Style::new().dimmed();
/// Good news.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// Bad news.
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();

/// The outcome of a command.
pub(crate) struct Report {
    /// For a person, on standard output; ends with a line break.
    pub(crate) human: String,
    /// For a person, on standard error: what should not get into a pipe.
    pub(crate) aside: String,
    /// For a program.
    pub(crate) json: Value,
    /// 0, unless something is to be noticed.
    pub(crate) exit_code: u8,
}

impl Report {
    pub(crate) fn new(human: String, json: Value) -> Self {
        Self { human, aside: String::new(), json, exit_code: 0 }
    }
}

/// Prints a report; nothing where there is none.
pub(crate) fn print(report: Option<&Report>, json: bool) -> io::Result<()> {
    let Some(report) = report else { return Ok(()) };
    let mut out = anstream::stdout().lock();
    if json {
        if !report.json.is_null() {
            writeln!(out, "{}", report.json)?;
        }
    } else {
        write!(out, "{}", report.human)?;
        write!(anstream::stderr(), "{}", report.aside)?;
    }
    out.flush()
}

/// Prints an error: to standard error for a person, as an object to standard output for a program.
pub(crate) fn print_error(error: &Error, language: Language, json: bool) -> io::Result<()> {
    if json {
        return print(Some(&Report::new(String::new(), error_json(error, language))), true);
    }
    write!(anstream::stderr(), "{}", error_text(error, language))
}

pub(crate) fn error_text(error: &Error, language: Language) -> String {
    let explanation = error.explain(language);
    format!("{BAD}✗{BAD:#} {STRONG}{}{STRONG:#}\n  {}\n", explanation.what, explanation.next)
}

pub(crate) fn error_json(error: &Error, language: Language) -> Value {
    let explanation = error.explain(language);
    json!({ "error": {
        "kind": error.kind(),
        "exit_code": error.exit_code(),
        "what": explanation.what,
        "next": explanation.next,
    }})
}
