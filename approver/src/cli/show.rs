//! How the outcome of each command looks, for people and for programs. Everything here is a
//! function of what the library returned, so that a test can hold it.

use semilla_approver::errors::Error;
use semilla_approver::phone::{
    AccountView, Binding, BindingState, Enrolled, Inbox, News, Refused, ShownCode, TokenView,
};
use semilla_core::language::{Label, Language};
use semilla_core::operations::State;
use semilla_core::protocol::wire::{
    Answered, Device, DeviceState, HeldState, OpenEnrollment, OperationState, Rotating,
};
use semilla_core::time::Timestamp;
use serde_json::{Value, json};

use super::card::{card, card_json, how_to_answer, line, short, span, table};
use super::report::{BAD, FAINT, GOOD, Report, STRONG};

fn done(text: &str) -> String {
    format!("{GOOD}✓{GOOD:#} {text}\n")
}

pub(crate) fn bound(binding: &Binding, language: Language) -> Report {
    let label = |es, en| Label(es, en).text(language);
    let Binding { account, issuer, device, match_number } = binding;
    let mut human = match match_number {
        None => done(&format!("{} {issuer}", label("Teléfono vinculado a", "Phone bound to"))),
        Some(number) => {
            let (before, after) = number.split_at(number.len() / 2);
            let what = label(
                "Falta que el teléfono que ya tenía lo autorice. Escriba allí este número:",
                "The phone you had before has to agree. Type this number there:",
            );
            format!("{what}\n\n  {STRONG}{before} {after}{STRONG:#}\n\n")
        }
    };
    human.push_str(&table(&[
        (label("Vinculación", "Binding"), account.to_string()),
        (label("Dispositivo", "Device"), device.to_string()),
    ]));
    let json = json!({
        "account": account, "issuer": issuer, "device": device, "match_number": match_number,
    });
    Report::new(human, json)
}

pub(crate) fn enrolled(enrolled: &Enrolled, language: Language) -> Report {
    let label = |es, en| Label(es, en).text(language);
    let Enrolled { serial, company, generation } = enrolled;
    let mut human = done(&format!("Token {serial} {}", label("inscrito", "enrolled")));
    human.push_str(&table(&[
        (label("Empresa", "Company"), company.clone()),
        (label("Generación", "Generation"), generation.to_string()),
        (label("Siguiente", "Next"), format!("approver code {serial}")),
    ]));
    Report::new(human, json!(enrolled))
}

pub(crate) fn code(shown: &ShownCode, language: Language) -> Report {
    let label = |es, en| Label(es, en).text(language);
    let ShownCode { code, serial, issuer, time_left, state, skew_seconds, .. } = shown;
    let left = span(*time_left);
    let for_so_long = label("por", "for");
    let mut aside = format!("{FAINT}{serial} · {issuer} · {for_so_long} {left}{FAINT:#}\n");
    if *state == HeldState::Blocked {
        let blocked = label(
            "El token está bloqueado: el servidor rechaza sus códigos. Hable con su administrador.",
            "The token is blocked: the server refuses its codes. Talk to your administrator.",
        );
        line(&mut aside, format_args!("{BAD}!{BAD:#} {blocked}"));
    }
    if let Some(skew) = skew_seconds.filter(|skew| skew.abs() > 5) {
        aside.push_str(&clock_note(skew, language));
    }
    let human = format!("{STRONG}{}{STRONG:#}\n", code.expose());
    let json = json!({
        "serial": serial,
        "code": code.expose(),
        "issuer": issuer,
        "generation": shown.generation,
        "state": state,
        "step": shown.step,
        "period": shown.period,
        "ends_at": shown.ends_at,
        "seconds_left": time_left.as_secs(),
        "skew_seconds": skew_seconds,
    });
    Report { aside, ..Report::new(human, json) }
}

fn clock_note(skew: i64, language: Language) -> String {
    let seconds = skew.unsigned_abs();
    let text = match (language, skew > 0) {
        (Language::Spanish, true) => {
            format!("El reloj de este teléfono está {seconds} s atrasado.")
        }
        (Language::Spanish, false) => {
            format!("El reloj de este teléfono está {seconds} s adelantado.")
        }
        (Language::English, true) => format!("This phone's clock is {seconds} s slow."),
        (Language::English, false) => format!("This phone's clock is {seconds} s fast."),
    };
    format!("{BAD}!{BAD:#} {text}\n")
}

/// The inbox, with `now` by the server's clock. A message that was refused for more than its time
/// is worth an exit code: scripts should notice.
pub(crate) fn inbox(inbox: &Inbox, now: Timestamp, language: Language) -> Report {
    let mut human = String::new();
    for request in &inbox.requests {
        human.push_str(&card(request, now, language));
        human.push_str(&how_to_answer(request));
        human.push('\n');
    }
    for open in &inbox.enrollments {
        human.push_str(&to_enroll(open, now, language));
    }
    let mut aside = String::new();
    for refused in &inbox.refused {
        aside.push_str(&refused_text(*refused, language));
    }
    if inbox.requests.is_empty() && inbox.enrollments.is_empty() {
        human.push_str(Label("Nada espera respuesta.\n", "Nothing waits.\n").text(language));
    }
    let json = json!({
        "requests": inbox.requests.iter().map(|one| card_json(one, now, language)).collect::<Vec<_>>(),
        "refused": inbox.refused.iter().map(|one| refused_json(*one, language)).collect::<Vec<_>>(),
        "enrollments": inbox.enrollments,
    });
    let refused = inbox.refused.iter().map(|one| Error::from(one.refusal).exit_code());
    let exit_code = refused.filter(|code| *code == 11).max().unwrap_or(0);
    Report { human, aside, json, exit_code }
}

fn to_enroll(open: &OpenEnrollment, now: Timestamp, language: Language) -> String {
    let label = |es, en| Label(es, en).text(language);
    let what = label("Token por inscribir", "Token to enroll");
    let left = span(open.expires_at.since(now));
    let remaining = label("quedan", "left:");
    format!(
        "{STRONG}▌ {what} {}{STRONG:#}  {FAINT}{remaining} {left}{FAINT:#}\n  {}\n  {FAINT}→{FAINT:#} approver enroll\n",
        open.serial, open.company,
    )
}

fn refused_text(refused: Refused, language: Language) -> String {
    let what = Label("Solicitud rechazada", "Request refused").text(language);
    let why = refused.refusal.text(language);
    format!("{BAD}✗{BAD:#} {what} {}: {why}.\n", short(refused.id))
}

fn refused_json(refused: Refused, language: Language) -> Value {
    json!({ "id": refused.id, "reason": refused.refusal.text(language) })
}

/// One piece of news of `watch`.
pub(crate) fn news(news: &News, now: Timestamp, language: Language) -> Report {
    match news {
        News::Asked(request) => {
            let human = card(request, now, language) + &how_to_answer(request);
            Report::new(human, event("asked", "request", card_json(request, now, language)))
        }
        News::Gone(request) => {
            let what = Label("Ya no espera", "No longer waits").text(language);
            let id = short(request.id());
            let human =
                format!("{FAINT}– {what}: {}  {id}{FAINT:#}\n", request.action_label(language));
            Report::new(human, event("gone", "id", json!(request.id())))
        }
        News::Refused(refused) => {
            let json = event("refused", "refused", refused_json(*refused, language));
            Report::new(refused_text(*refused, language), json)
        }
        News::ToEnroll(open) => Report::new(
            to_enroll(open, now, language),
            event("to_enroll", "enrollment", json!(open)),
        ),
    }
}

fn event(name: &str, what: &str, value: Value) -> Value {
    json!({ "event": name, what: value })
}

/// The answer to an answer; the exit code is that of the state, unless it is the `wanted` one.
pub(crate) fn answered(
    answered: &Answered,
    wanted: OperationState,
    language: Language,
) -> Result<Report, Error> {
    let label = |es, en| Label(es, en).text(language);
    if answered.state != wanted {
        return Err(Error::Ended(answered.state));
    }
    let text = match answered.state {
        OperationState::Denied => label("Denegado.", "Denied."),
        _ => label("Autorizado y ejecutado.", "Approved and executed."),
    };
    Ok(Report::new(done(text), json!(answered)))
}

pub(crate) fn tokens(tokens: &[TokenView], language: Language) -> Report {
    let label = |es, en| Label(es, en).text(language);
    let mut human = String::new();
    for token in tokens {
        let state = held_state(token.state).label(language);
        let place = if token.here {
            label("en este teléfono", "on this phone")
        } else {
            label("no en este teléfono", "not on this phone")
        };
        line(
            &mut human,
            format_args!(
                "{STRONG}{}{STRONG:#}  {state}  {FAINT}{} · {} {} · {place}{FAINT:#}",
                token.serial,
                token.company,
                label("generación", "generation"),
                token.generation,
            ),
        );
    }
    if tokens.is_empty() {
        human.push_str(label("No tiene tokens.\n", "No tokens.\n"));
    }
    Report::new(human, json!({ "tokens": tokens }))
}

fn held_state(state: HeldState) -> State {
    match state {
        HeldState::Assigned => State::Assigned,
        HeldState::Active => State::Active,
        HeldState::Blocked => State::Blocked,
    }
}

pub(crate) fn devices(devices: &[Device], own: Option<&AccountView>, language: Language) -> Report {
    let label = |es, en| Label(es, en).text(language);
    let mut human = String::new();
    for device in devices {
        let state = match device.state {
            DeviceState::Waiting => label("espera", "waits"),
            DeviceState::Bound => label("vinculado", "bound"),
            DeviceState::Suspended => label("suspendido", "suspended"),
            DeviceState::Revoked => label("revocado", "revoked"),
        };
        let is_own = own.is_some_and(|own| own.device == Some(device.device));
        let this = if is_own { label(" · este teléfono", " · this phone") } else { "" };
        line(
            &mut human,
            format_args!(
                "{STRONG}{}{STRONG:#}  {state}  {FAINT}{} · {} {}{this}{FAINT:#}",
                device.name,
                device.platform,
                label("desde", "since"),
                device.bound_at,
            ),
        );
    }
    let json = json!({ "devices": devices, "this": own.and_then(|own| own.device) });
    Report::new(human, json)
}

pub(crate) fn accounts(accounts: &[AccountView], language: Language) -> Report {
    let label = |es, en| Label(es, en).text(language);
    let mut human = String::new();
    for account in accounts {
        let state = match (account.state, &account.match_number) {
            (BindingState::Binding, _) => label("a medias", "unfinished").to_owned(),
            (BindingState::Bound, None) => label("vinculado", "bound").to_owned(),
            (BindingState::Bound, Some(number)) => {
                let waits =
                    label("espera al otro teléfono, número", "waits for the other phone, number");
                format!("{waits} {number}")
            }
            (BindingState::Revoked, _) => label("revocado", "revoked").to_owned(),
        };
        line(
            &mut human,
            format_args!(
                "{STRONG}{}{STRONG:#}  {}  {state}  {FAINT}{} tokens{FAINT:#}",
                account.account, account.issuer, account.tokens,
            ),
        );
    }
    if accounts.is_empty() {
        human.push_str(label("Ninguna vinculación.\n", "No bindings.\n"));
    }
    Report::new(human, json!({ "accounts": accounts }))
}

/// A renewal that another phone goes on with.
pub(crate) fn rotating(rotating: &Rotating, language: Language) -> Report {
    let text = Label(
        "Renovación abierta: siga en el otro teléfono con «approver enroll».",
        "The renewal is open: go on with `approver enroll` on the other phone.",
    );
    Report::new(done(text.text(language)), json!(rotating))
}

pub(crate) fn left(account: &AccountView, language: Language) -> Report {
    let text = Label(
        "Teléfono desvinculado; sus semillas se borraron.",
        "Phone unbound; its seeds are erased.",
    );
    Report::new(done(text.text(language)), json!({ "left": account.account }))
}

pub(crate) fn pin_changed(language: Language) -> Report {
    let text = Label("El PIN cambió.", "The PIN is changed.");
    Report::new(done(text.text(language)), json!({ "pin_changed": true }))
}
