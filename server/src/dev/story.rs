//! `semilla dev --story`: the whole flow, one line a step, each of which has to hold. The clock is
//! moved, not waited for: what takes minutes in life takes milliseconds here.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use semilla_approver::Phone;
use semilla_approver::entropy::SystemEntropy;
use semilla_core::language::{Label, Language};
use semilla_core::operations::{BlockCause, Cause, ReleaseCause, State};
use serde_json::{Value, json};

use super::{Demo, DevError, text};
use crate::clock::{Clock, ManualClock, SystemClock};
use crate::workflow::trail;

/// One step's worth of time: the next code.
const STEP: Duration = Duration::from_secs(30);

struct Telling {
    language: Language,
    step: u32,
}

impl Telling {
    /// A step that held.
    fn held(&mut self, label: Label, more: &str) {
        self.step += 1;
        let green = Style::new().fg_color(Some(AnsiColor::Green.into()));
        let step = self.step;
        let line = label.text(self.language);
        let mut out = anstream::stdout().lock();
        // A reader that went away is not what the story is about.
        let _ = writeln!(out, "{step:>3}  {green}✓{green:#}  {line}{more}");
    }
}

/// Requires what a step claims.
fn require(holds: bool, what: &str) -> Result<(), DevError> {
    if holds { Ok(()) } else { Err(DevError::Broken(format!("this did not hold: {what}"))) }
}

/// Plays the flow. An error is a step that did not hold.
pub async fn play(language: Language) -> Result<(), DevError> {
    let clock = Arc::new(ManualClock::new(SystemClock.now()));
    let for_server = Arc::clone(&clock);
    let folder = super::demo::Folder::temporary()?;
    let data = folder.path().join("data");
    let demo = Demo::begin(Some(&data), None, |options| options.clock = for_server).await?;
    let mut tell = Telling { language, step: 0 };
    tell.held(
        Label(
            "Servidor en marcha, con Comercial Andina S.A.S. y sus tokens disponibles: ",
            "Server running, with Comercial Andina S.A.S. and its available tokens: ",
        ),
        &demo.pool.len().to_string(),
    );
    let phone = || {
        let clock = Arc::clone(&clock);
        Phone::in_memory(Arc::new(move || clock.now()), Arc::new(SystemEntropy))
    };
    let (token, serial) =
        demo.pool.first().cloned().ok_or_else(|| DevError::Broken("no tokens".to_owned()))?;

    let administrators = phone();
    administrators.bind(&demo.activation(&demo.administrator).await?).await?;
    tell.held(
        Label(
            "Andrés Gómez (administrador) vincula su teléfono con un código de activación",
            "Andrés Gómez (administrator) binds his phone with an activation code",
        ),
        "",
    );

    let activation = demo.assign(&token, &demo.laura).await?;
    require(state(&demo, &token).await? == State::Assigned, "assigned")?;
    tell.held(
        Label("Token asignado a Laura Valencia: ", "Token assigned to Laura Valencia: "),
        &format!("{serial} · {}", State::Assigned.label(language)),
    );

    let lauras = phone();
    lauras.bind(&activation).await?;
    lauras.enroll_next().await?;
    require(state(&demo, &token).await? == State::Active, "active")?;
    tell.held(
        Label(
            "El teléfono de Laura recibe la semilla sellada y la prueba con un código: ",
            "Laura's phone receives the sealed seed and proves it with a code: ",
        ),
        State::Active.label(language),
    );

    clock.advance(STEP);
    let code = code_of(&lauras, &serial)?;
    require(demo.verify(&token, &code).await?, "a fresh code is accepted")?;
    require(!demo.verify(&token, &code).await?, "a used code is refused")?;
    require(!demo.verify(&token, &code).await?, "a used code stays refused")?;
    tell.held(
        Label(
            "Código aceptado una vez, y rechazado dos: ",
            "Code accepted once, and refused twice: ",
        ),
        &code,
    );

    let cause = Cause::Block(BlockCause::UserInactive);
    demo.company
        .post(&format!("/api/v1/tokens/{token}/block"), json!({"cause": cause.name()}))
        .await?;
    clock.advance(STEP);
    require(
        !demo.verify(&token, &code_of(&lauras, &serial)?).await?,
        "a blocked token's good code is refused",
    )?;
    tell.held(
        Label(
            "Bloqueado sin teléfono; un código bueno se rechaza: ",
            "Blocked without a phone; a good code is refused: ",
        ),
        cause.label(language),
    );

    let asked = demo.company.post(&format!("/api/v1/tokens/{token}/unblock"), json!({})).await?;
    approve(&demo, &administrators, &asked).await?;
    clock.advance(STEP);
    require(demo.verify(&token, &code_of(&lauras, &serial)?).await?, "the same seed works again")?;
    tell.held(
        Label(
            "Desbloqueado con el teléfono del administrador; la misma semilla sirve otra vez",
            "Unblocked by the administrator's phone; the same seed works again",
        ),
        "",
    );

    let cause = Cause::Release(ReleaseCause::SeedRelease);
    let asked = demo
        .company
        .post(&format!("/api/v1/tokens/{token}/release"), json!({"cause": cause.name()}))
        .await?;
    tell.held(
        Label(
            "Liberación solicitada; el portal muestra el número ",
            "Release asked; the portal shows the number ",
        ),
        &format!("{} · {}", text(&asked["match_number"])?, cause.label(language)),
    );
    approve(&demo, &administrators, &asked).await?;
    require(state(&demo, &token).await? == State::Company, "released")?;
    tell.held(
        Label(
            "El teléfono autoriza · ¡Estado cambiado exitosamente! · Estado: ",
            "The phone authorizes · State changed · State: ",
        ),
        State::Company.label(language),
    );

    clock.advance(STEP);
    require(!demo.verify(&token, &code_of(&lauras, &serial)?).await?, "the old seed is dead")?;
    tell.held(
        Label(
            "Un código nuevo de la semilla vieja se rechaza: la semilla murió",
            "A fresh code of the old seed is refused: the seed is dead",
        ),
        "",
    );

    // The phone is bound already, so that the new enrollment waits in its inbox.
    demo.company
        .post(&format!("/api/v1/tokens/{token}/assign"), json!({"user": demo.laura}))
        .await?;
    lauras.enroll_next().await?;
    clock.advance(STEP);
    let shown = demo.company.get(&format!("/api/v1/tokens/{token}")).await?;
    require(demo.verify(&token, &code_of(&lauras, &serial)?).await?, "the new seed works")?;
    require(shown["generation"] == 2, "the second generation")?;
    tell.held(
        Label(
            "Asignado de nuevo e inscrito en el teléfono: código nuevo aceptado, generación ",
            "Assigned again and enrolled on the phone: new code accepted, generation ",
        ),
        &shown["generation"].to_string(),
    );

    let reports = trail::verify(demo.server.app.store.as_ref())
        .await
        .map_err(|error| DevError::Broken(error.to_string()))?;
    require(reports.iter().all(|report| report.tampered.is_none()), "the audit is whole")?;
    let records: u64 = reports.iter().map(|report| report.records).sum();
    tell.held(
        Label(
            "Auditoría verificada; registros encadenados, del banco y de la empresa: ",
            "Audit verified; chained records, the bank's and the company's: ",
        ),
        &records.to_string(),
    );
    demo.server.stop().await;
    Ok(())
}

async fn state(demo: &Demo, token: &str) -> Result<State, DevError> {
    let shown = demo.company.get(&format!("/api/v1/tokens/{token}")).await?;
    serde_json::from_value(shown["state"].clone())
        .map_err(|error| DevError::Broken(error.to_string()))
}

fn code_of(phone: &Phone, serial: &str) -> Result<String, DevError> {
    Ok(phone.code(serial)?.code.expose().to_owned())
}

/// The administrator reads the number on the portal and types it on the phone.
async fn approve(demo: &Demo, phone: &Phone, asked: &Value) -> Result<(), DevError> {
    let number = text(&asked["match_number"])?;
    let inbox = phone.inbox().await?;
    let request = inbox
        .requests
        .first()
        .ok_or_else(|| DevError::Broken("nothing came to the phone".to_owned()))?;
    phone.approve(request.id(), &number).await?;
    let path = format!("/api/v1/operations/{}?wait=5", text(&asked["id"])?);
    require(demo.company.get(&path).await?["state"] == "executed", "the operation was executed")
}
