//! A request as a person sees it: first what was signed as facts, in this program's words, then
//! what the bank wrote, then what can be done.

use std::fmt::Write;
use std::time::Duration;

use semilla_approver::review::Request;
use semilla_core::language::{Label, Language};
use semilla_core::time::Timestamp;
use serde_json::{Value, json};

use super::report::{BAD, FAINT, STRONG};

/// The end of an id, which names it well enough among a few: its random part.
pub(crate) fn short(id: impl ToString) -> String {
    let id = id.to_string();
    id[id.len().saturating_sub(6)..].to_owned()
}

/// `4 min 5 s`, `17 s`.
pub(crate) fn span(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        seconds => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// Lines of a name and a value, the values below each other.
pub(crate) fn table<'a>(rows: &[(&'a str, String)]) -> String {
    let width = |name: &'a str| name.chars().count();
    let widest = rows.iter().map(|(name, _)| width(name)).max().unwrap_or(0);
    let mut out = String::new();
    for (name, value) in rows {
        let gap = " ".repeat(widest - width(name) + 2);
        line(&mut out, format_args!("  {FAINT}{name}{FAINT:#}{gap}{value}"));
    }
    out
}

pub(crate) fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("a String takes everything");
}

/// The request, with `now` by the server's clock.
pub(crate) fn card(request: &Request, now: Timestamp, language: Language) -> String {
    let label = |es, en| Label(es, en).text(language);
    let title = request.action_label(language);
    let left = span(request.expires_at().since(now));
    let mut out = String::new();
    let style = if request.is_final() { BAD } else { STRONG };
    let remaining = label("quedan", "left:");
    line(&mut out, format_args!("{style}▌ {title}{style:#}  {FAINT}{remaining} {left}{FAINT:#}"));
    out.push_str(&table(&request.facts(language)));
    let says = label("El banco dice", "The bank says");
    line(&mut out, format_args!("  {FAINT}── {says} ──{FAINT:#}"));
    line(&mut out, format_args!("  {}", request.display().title));
    for text in &request.display().lines {
        line(&mut out, format_args!("  {text}"));
    }
    out
}

/// How to answer it.
pub(crate) fn how_to_answer(request: &Request) -> String {
    let id = short(request.id());
    format!(
        "  {FAINT}→{FAINT:#} approver approve {id}   {FAINT}|{FAINT:#}   approver deny {id} --reason …\n"
    )
}

/// The request as an object: everything that was signed, but for the envelope.
pub(crate) fn card_json(request: &Request, now: Timestamp, language: Language) -> Value {
    let claims = request.claims();
    json!({
        "id": request.id(),
        "operation": claims.operation,
        "consequence": request.effect(language),
        "final": request.is_final(),
        "expires_at": request.expires_at(),
        "seconds_left": request.expires_at().since(now).as_secs(),
        "display": claims.display,
    })
}
