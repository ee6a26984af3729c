//! The demonstration that keeps running: Laura Valencia holds an active token on her phone, the
//! administrator's phone is bound, and what is printed can be pasted.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anstyle::{AnsiColor, Style};
use semilla_approver::Phone;
use semilla_approver::clock::SystemClock;
use semilla_approver::entropy::SystemEntropy;
use semilla_approver::pin::Pin;
use semilla_approver::store::{FileStore, Stretch};
use semilla_core::base64url;
use semilla_core::entropy;
use semilla_core::language::{Label, Language};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Demo, DevError, certificates};

/// The PIN of the demonstration's phones. Both are thrown away when it ends.
const PIN: &str = "482915";

/// A folder of its own that is removed when dropped.
pub struct Folder(PathBuf);

impl Folder {
    /// A new one, for this user alone, where the system keeps what is temporary.
    pub fn temporary() -> Result<Self, DevError> {
        use std::os::unix::fs::DirBuilderExt;
        let name = base64url::encode(&entropy::bytes::<9>(&SystemEntropy));
        let path = std::env::temp_dir().join(format!("semilla-dev-{name}"));
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed stays in the system's temporary folder.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs the demonstration until it is interrupted.
pub async fn run(listen: SocketAddr, tls: bool, language: Language) -> Result<(), DevError> {
    let mut interrupts = Interrupts::listen()?;
    let folder = Folder::temporary()?;
    let address = listen.ip().to_string();
    let names = ["localhost", address.as_str()];
    let made = tls.then(|| {
        certificates::make(
            folder.path(),
            &names,
            crate::clock::Clock::now(&crate::clock::SystemClock),
        )
    });
    let made = made.transpose()?;
    let authority = made.as_ref().map(|made| made.authority_pem.as_str());
    let demo = Demo::begin(Some(&folder.path().join("data")), authority, |options| {
        options.listen = listen;
        options.tls = made.as_ref().map(|made| made.files.clone());
    })
    .await?;
    let (token, serial) =
        demo.pool.first().cloned().ok_or_else(|| DevError::Broken("no tokens".to_owned()))?;
    let administrators = phone(&folder, "andres", authority).await?;
    administrators.bind(&demo.activation(&demo.administrator).await?).await?;
    let lauras = phone(&folder, "laura", authority).await?;
    lauras.bind(&demo.assign(&token, &demo.laura).await?).await?;
    lauras.enroll_next().await?;
    let authority = made.as_ref().map(|made| made.authority.as_path());
    show(&demo, &folder, authority, (&token, &serial), language)?;
    interrupts.next().await;
    demo.server.stop().await;
    Ok(())
}

async fn phone(folder: &Folder, name: &str, authority: Option<&str>) -> Result<Phone, DevError> {
    let path = folder.path().join(name);
    std::fs::create_dir_all(&path)?;
    private_file(&path.join("pin"), PIN)?;
    let store = FileStore::create(&path, &Pin::chosen(PIN)?, Stretch::STANDARD)?;
    let phone = Phone::new(Arc::new(store.into()), Arc::new(SystemClock), Arc::new(SystemEntropy));
    Ok(match authority {
        Some(authority) => phone.trusting(authority)?,
        None => phone,
    })
}

/// Writes a file that only its owner can read.
pub fn private_file(path: &Path, text: &str) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn show(
    demo: &Demo,
    folder: &Folder,
    authority: Option<&Path>,
    (token, serial): (&str, &str),
    language: Language,
) -> std::io::Result<()> {
    // Where `curl` knows nothing of the authority, it is told.
    let curl = match authority {
        Some(file) => format!("curl -s --cacert {}", file.display()),
        None => "curl -s".to_owned(),
    };
    let bold = Style::new().bold();
    let grey = Style::new().fg_color(Some(AnsiColor::BrightBlack.into()));
    let say = |spanish, english| Label(spanish, english).text(language);
    let base = demo.server.issuer();
    let (id, secret) = (&demo.company.id, &demo.company.secret);
    let phone = |name: &str| {
        let path = folder.path().join(name);
        let options =
            format!("--store {} --pin-file {}", path.display(), path.join("pin").display());
        format!("{name}() {{ cargo run -q -p semilla-approver -- {options} \"$@\"; }}")
    };
    let mut out = anstream::stdout().lock();
    writeln!(
        out,
        "{bold}Semilla{bold:#} · {}\n",
        say(
            "demostración: todo se borra al terminar",
            "demonstration: all of it is erased at the end"
        )
    )?;
    let laura = format!("Laura Valencia · {serial} · {}", say("Activo", "Active"));
    let andres = format!("Andrés Gómez · {}", say("teléfono vinculado", "phone bound"));
    for (what, is) in [
        (say("Servidor", "Server"), base),
        (say("Empresa", "Company"), "Comercial Andina S.A.S."),
        (say("Usuario", "User"), &laura),
        (say("Administrador", "Administrator"), &andres),
    ] {
        writeln!(out, "  {what:<16} {is}")?;
    }
    let note = |out: &mut dyn Write, text: &str| writeln!(out, "\n{grey}# {text}{grey:#}");
    note(
        &mut out,
        say(
            "Péguelo en otra terminal, en esta carpeta",
            "Paste this into another terminal, in this folder",
        ),
    )?;
    writeln!(out, "S={base}; T={token}")?;
    writeln!(
        out,
        "A=$({curl} -u {id}:{secret} -d grant_type=client_credentials $S/token | \
         sed 's/.*\"access_token\":\"\\([^\"]*\\)\".*/\\1/')"
    )?;
    writeln!(
        out,
        "ask() {{ {curl} -H \"Authorization: Bearer $A\" -H 'Content-Type: application/json' \"$@\"; echo; }}"
    )?;
    writeln!(out, "{}\n{}", phone("laura"), phone("andres"))?;
    note(
        &mut out,
        say(
            "Un código del teléfono de Laura: la empresa lo acepta una vez",
            "A code of Laura's phone: the company accepts it once",
        ),
    )?;
    writeln!(out, "C=$(laura code --unused); for i in 1 2; do")?;
    writeln!(out, "ask $S/api/v1/otp/verify -d '{{\"token\":\"'$T'\",\"code\":\"'$C'\"}}'; done")?;
    note(
        &mut out,
        say(
            "El administrador pide liberar el token: anote match_number",
            "The administrator asks to release the token: note match_number",
        ),
    )?;
    writeln!(out, "ask $S/api/v1/tokens/$T/release -d '{{\"cause\":\"seed_release\"}}'")?;
    note(
        &mut out,
        say(
            "Su teléfono muestra qué se pide, pregunta el número y autoriza",
            "His phone shows what is asked, wants the number and authorizes",
        ),
    )?;
    writeln!(out, "andres approve")?;
    note(
        &mut out,
        say(
            "El token está de nuevo en la empresa, y su vida en la auditoría",
            "The token is back with the company, and its life in the audit trail",
        ),
    )?;
    writeln!(out, "ask $S/api/v1/tokens/$T")?;
    writeln!(out, "ask \"$S/api/v1/audit?token=$T&limit=100\"")?;
    note(
        &mut out,
        say(
            "Todo el flujo de una vez: cargo run -- dev --story",
            "The whole flow at once: cargo run -- dev --story",
        ),
    )?;
    writeln!(out, "\n{}", say("Corriendo. Ctrl-C termina.", "Running. Ctrl-C ends it."))?;
    out.flush()
}

/// Ctrl-C and polite requests to end, heard from the moment this is made: before anybody is told
/// that there is something to end.
pub struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    /// Begins to listen.
    pub fn listen() -> std::io::Result<Self> {
        let interrupt = signal(SignalKind::interrupt())?;
        Ok(Self { interrupt, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for the next one.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
