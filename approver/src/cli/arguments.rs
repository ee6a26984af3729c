//! What can be asked. No secret is an argument: PIN and activation code come from a terminal, a
//! file or standard input (security 128).

use std::path::PathBuf;

use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use semilla_core::operations::RotateCause;
use semilla_core::protocol::approval::DenialReason;

use super::words::say;

#[derive(Parser)]
#[command(
    name = "approver",
    version,
    disable_version_flag = true,
    disable_help_flag = true,
    disable_help_subcommand = true,
    subcommand_help_heading = say("Órdenes", "Commands"),
    about = say(
        "AppMóvil: códigos, autorizaciones e inscripción de tokens virtuales.",
        "The AppMóvil: codes, approvals and enrollment of virtual tokens.",
    ),
    after_help = say(
        "Ejemplos:\n  approver enroll --qr activacion.png   vincula este teléfono y recibe el token\n  approver code                         muestra el código de este momento\n  approver inbox                        muestra lo que espera respuesta\n  approver approve                      autoriza, con el número de la pantalla\n\nCódigos de salida: 0 bien, 2 uso, 3 espera agotada, 4 denegado, 5 vencido,\n6 no permitido ahora, 7 PIN, 8 reloj, 11 mensaje rechazado, 69 sin servidor, 70 interno.",
        "Examples:\n  approver enroll --qr activation.png   binds this phone and takes the token\n  approver code                         shows the code of this moment\n  approver inbox                        shows what waits for an answer\n  approver approve                      approves, with the number on the screen\n\nExit codes: 0 ok, 2 usage, 3 timeout, 4 denied, 5 expired, 6 not allowed now,\n7 PIN, 8 clock, 11 message refused, 69 no server, 70 internal.",
    )
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Args)]
#[command(next_help_heading = say("Opciones de toda orden", "Options of every command"))]
pub(crate) struct Global {
    #[arg(long, global = true, env = "SEMILLA_APPROVER_STORE", value_name = "DIR", help = say(
        "Carpeta del almacén [por defecto: ~/.local/share/semilla/approver]",
        "The store's folder [default: ~/.local/share/semilla/approver]",
    ))]
    pub(crate) store: Option<PathBuf>,
    #[arg(long, global = true, env = "SEMILLA_APPROVER_SERVER", value_name = "URL", help = say(
        "Servidor: para códigos escritos a mano, y para elegir la vinculación",
        "Server: for codes that are typed, and to choose the binding",
    ))]
    pub(crate) server: Option<String>,
    #[arg(long, global = true, value_name = "N", help = say(
        "Vinculación, por su número en «approver accounts»",
        "The binding, by its number in `approver accounts`",
    ))]
    pub(crate) account: Option<u32>,
    #[arg(long, global = true, env = "SEMILLA_APPROVER_PIN_FILE", value_name = "FILE", help = say(
        "Lee el PIN de la primera línea de un archivo",
        "Reads the PIN from the first line of a file",
    ))]
    pub(crate) pin_file: Option<PathBuf>,
    #[arg(long, global = true, conflicts_with = "pin_file", help = say(
        "Lee el PIN de la primera línea de la entrada estándar",
        "Reads the PIN from the first line of standard input",
    ))]
    pub(crate) pin_stdin: bool,
    #[arg(long, global = true, help = say(
        "Escribe un objeto JSON por orden",
        "Writes one JSON object for the command",
    ))]
    pub(crate) json: bool,
    #[arg(long, global = true, value_name = "LANG", help = say("Idioma", "Language"))]
    pub(crate) lang: Option<Lang>,
    #[arg(short, long, global = true, action = ArgAction::Help, help = say(
        "Muestra esta ayuda",
        "Shows this help",
    ))]
    help: Option<bool>,
    #[arg(short = 'V', long, action = ArgAction::Version, help = say(
        "Muestra la versión",
        "Shows the version",
    ))]
    version: Option<bool>,
}

impl Arguments {
    /// Reads the arguments of this run; ends it where they cannot be read or ask for help.
    pub(crate) fn read() -> Self {
        let template = say(
            "{about-with-newline}\nUso: {usage}\n\n{all-args}{after-help}",
            "{about-with-newline}\nUsage: {usage}\n\n{all-args}{after-help}",
        );
        let command = Self::command()
            .help_template(template)
            .mut_subcommands(|command| command.help_template(template));
        let matches = command.get_matches();
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Lang {
    Es,
    En,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    #[command(
        about = say("Vincula este teléfono con un código de activación", "Binds this phone with an activation code"),
        after_help = say(
            "Ejemplos:\n  approver bind                          pide el código\n  approver bind --qr activacion.png      lo lee de una imagen\n  approver bind --server http://127.0.0.1:8080 --code-file codigo.txt",
            "Examples:\n  approver bind                          asks for the code\n  approver bind --qr activation.png      reads it from a picture\n  approver bind --server http://127.0.0.1:8080 --code-file code.txt",
        )
    )]
    Bind(Invited),
    #[command(
        about = say("Recibe un token: el de un código, o el que espera", "Takes a token: that of a code, or the one that waits"),
        after_help = say(
            "Ejemplos:\n  approver enroll --qr activacion.png    vincula y recibe el token\n  approver enroll                        recibe lo que espera, o sigue donde quedó",
            "Examples:\n  approver enroll --qr activation.png    binds and takes the token\n  approver enroll                        takes what waits, or goes on where it stopped",
        )
    )]
    Enroll(Invited),
    #[command(
        about = say("Muestra un código", "Shows a code"),
        after_help = say(
            "Ejemplos:\n  approver code FEF4900032               el código de este momento\n  approver code --unused --min-ttl 5     uno sin usar, con 5 segundos por delante\n  approver code --offline                sin red, aunque el reloj esté mal",
            "Examples:\n  approver code FEF4900032               the code of this moment\n  approver code --unused --min-ttl 5     an unused one, with 5 seconds left\n  approver code --offline                without a network, whatever the clock says",
        )
    )]
    Code(CodeArguments),
    #[command(
        about = say("Muestra lo que espera respuesta", "Shows what waits for an answer"),
        after_help = say(
            "Ejemplos:\n  approver inbox\n  approver inbox --wait 60 --json        espera hasta un minuto",
            "Examples:\n  approver inbox\n  approver inbox --wait 60 --json        waits for up to a minute",
        )
    )]
    Inbox {
        #[arg(long, default_value_t = 0, value_name = "SECONDS", help = say(
            "Espera tanto a que algo llegue; salida 3 si nada llegó",
            "Waits so long for something to come; exit 3 if nothing did",
        ))]
        wait: u64,
    },
    #[command(
        about = say("Autoriza una solicitud", "Approves a request"),
        after_help = say(
            "Ejemplos:\n  approver approve                       la única, y pide el número\n  approver approve 7f3a21                por el final de su id\n  approver approve 7f3a21 --number 493027 --pin-file pin.txt",
            "Examples:\n  approver approve                       the only one, and asks for the number\n  approver approve 7f3a21                by the end of its id\n  approver approve 7f3a21 --number 493027 --pin-file pin.txt",
        )
    )]
    Approve {
        #[arg(value_name = "ID", help = request_help())]
        id: Option<String>,
        #[arg(long, value_name = "NNNNNN", help = say(
            "El número de la pantalla de quien pide",
            "The number on the asker's screen",
        ))]
        number: Option<String>,
    },
    #[command(
        about = say("Deniega una solicitud", "Denies a request"),
        after_help = say(
            "Ejemplos:\n  approver deny --reason user_cancelled     me equivoqué\n  approver deny --reason unknown_request    no sé qué es\n  approver deny --reason suspected_fraud    no fui yo: también bloquea el token",
            "Examples:\n  approver deny --reason user_cancelled     my mistake\n  approver deny --reason unknown_request    I do not know what it is\n  approver deny --reason suspected_fraud    not me: blocks the token as well",
        )
    )]
    Deny {
        #[arg(value_name = "ID", help = request_help())]
        id: Option<String>,
        #[arg(long, value_enum, help = say("Por qué no", "Why not"))]
        reason: Reason,
    },
    #[command(
        about = say("Muestra lo que llega, hasta que se interrumpa", "Shows what comes in, until interrupted"),
        after_help = say(
            "Ejemplos:\n  approver watch\n  approver watch --once --timeout 60 --json   la primera novedad, o salida 3",
            "Examples:\n  approver watch\n  approver watch --once --timeout 60 --json   the first piece of news, or exit 3",
        )
    )]
    Watch {
        #[arg(long, help = say("Termina con la primera novedad", "Ends with the first piece of news"))]
        once: bool,
        #[arg(long, value_name = "SECONDS", help = say(
            "Termina después de tanto; salida 3 si nada llegó",
            "Ends after so long; exit 3 if nothing came",
        ))]
        timeout: Option<u64>,
    },
    #[command(
        about = say("Muestra los tokens de su dueño", "Shows the tokens of its owner"),
        after_help = say("Ejemplo:\n  approver tokens --json", "Example:\n  approver tokens --json"),
    )]
    Tokens {
        #[arg(long, help = say("Sin preguntar al servidor", "Without asking the server"))]
        offline: bool,
    },
    #[command(
        about = say("Muestra los teléfonos de su dueño", "Shows the phones of its owner"),
        after_help = say("Ejemplo:\n  approver devices", "Example:\n  approver devices"),
    )]
    Devices,
    #[command(
        about = say("Muestra las vinculaciones de este teléfono, sin red", "Shows the bindings of this phone, without a network"),
        after_help = say("Ejemplo:\n  approver accounts", "Example:\n  approver accounts"),
    )]
    Accounts,
    #[command(
        about = say("Renueva la semilla de un token", "Gives a token a new seed"),
        after_help = say(
            "Ejemplos:\n  approver rotate FEF4900032 --cause suspicion\n  approver rotate --cause new_phone      la recibe otro teléfono con «enroll»",
            "Examples:\n  approver rotate FEF4900032 --cause suspicion\n  approver rotate --cause new_phone      another phone takes it with `enroll`",
        )
    )]
    Rotate {
        #[arg(value_name = "SERIAL", help = serial_help())]
        serial: Option<String>,
        #[arg(long, value_enum, default_value = "scheduled", help = say("Por qué", "Why"))]
        cause: RotateReason,
    },
    #[command(
        about = say("Desvincula este teléfono y borra sus semillas", "Unbinds this phone and erases its seeds"),
        after_help = say("Ejemplo:\n  approver leave --yes", "Example:\n  approver leave --yes"),
    )]
    Leave {
        #[arg(long, help = say("Sin preguntar", "Without asking"))]
        yes: bool,
    },
    #[command(
        about = say("Cambia el PIN", "Changes the PIN"),
        after_help = say(
            "Ejemplos:\n  approver pin\n  approver pin --pin-file actual.txt --new-pin-file nuevo.txt",
            "Examples:\n  approver pin\n  approver pin --pin-file present.txt --new-pin-file new.txt",
        )
    )]
    Pin {
        #[arg(long, value_name = "FILE", help = say(
            "Lee el PIN nuevo de un archivo",
            "Reads the new PIN from a file",
        ))]
        new_pin_file: Option<PathBuf>,
    },
    #[command(
        about = say("Escribe lo que un intérprete de órdenes completa", "Writes what a shell completes"),
        after_help = say(
            "Ejemplo:\n  approver completions bash > ~/.local/share/bash-completion/completions/approver",
            "Example:\n  approver completions bash > ~/.local/share/bash-completion/completions/approver",
        )
    )]
    Completions {
        #[arg(value_enum, help = say("Para cuál", "For which one"))]
        shell: clap_complete::Shell,
    },
    #[command(
        about = say("Escribe las páginas de manual", "Writes the manual pages"),
        after_help = say("Ejemplo:\n  approver man ~/.local/share/man/man1", "Example:\n  approver man ~/.local/share/man/man1"),
    )]
    Man {
        #[arg(value_name = "DIR", help = say("A qué carpeta", "Into which folder"))]
        folder: PathBuf,
    },
}

#[derive(Args)]
pub(crate) struct Invited {
    #[arg(long, value_name = "FILE", help = say(
        "Imagen PNG con el código QR",
        "A PNG file with the QR code",
    ))]
    pub(crate) qr: Option<PathBuf>,
    #[arg(long, value_name = "FILE", conflicts_with = "qr", help = say(
        "Archivo con el código o la dirección semilla://; «-» es la entrada estándar",
        "A file with the code or the semilla:// address; `-` is standard input",
    ))]
    pub(crate) code_file: Option<PathBuf>,
    #[arg(long, value_name = "NAME", help = say(
        "Cómo llama su dueño a este teléfono",
        "What its owner calls this phone",
    ))]
    pub(crate) name: Option<String>,
    #[arg(long, value_name = "FILE", env = "SEMILLA_APPROVER_CA", help = say(
        "Autoridad del servidor, en PEM: desde ahora la única en que se confía",
        "The server's authority, as PEM: the only one that is believed from now on",
    ))]
    pub(crate) ca: Option<PathBuf>,
    #[arg(long, help = say(
        "Además de la vinculación que ya hay con ese servidor",
        "Beside the binding that there is with that server",
    ))]
    pub(crate) another: bool,
}

#[derive(Args)]
pub(crate) struct CodeArguments {
    #[arg(value_name = "SERIAL", help = serial_help())]
    pub(crate) serial: Option<String>,
    #[arg(long, help = say("El que sigue al de este momento", "The one after the present one"))]
    pub(crate) next: bool,
    #[arg(long, help = say(
        "Uno que --unused no haya dado antes",
        "One that --unused has not given before",
    ))]
    pub(crate) unused: bool,
    #[arg(long, default_value_t = 0, value_name = "SECONDS", help = say(
        "Uno que se muestre al menos tanto",
        "One that is shown for at least so long",
    ))]
    pub(crate) min_ttl: u64,
    #[arg(long, help = say(
        "Sin red, y aunque el reloj esté mal",
        "Without a network, whatever the clock says",
    ))]
    pub(crate) offline: bool,
    #[arg(long, default_value_t = 60, value_name = "SECONDS", help = say(
        "Cuánto esperar un código que sirva",
        "How long to wait for a code that will do",
    ))]
    pub(crate) timeout: u64,
}

/// Why a person says no, by its name in the protocol.
#[derive(Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Reason {
    UserCancelled,
    UnknownRequest,
    SuspectedFraud,
}

impl From<Reason> for DenialReason {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::UserCancelled => Self::UserCancelled,
            Reason::UnknownRequest => Self::UnknownRequest,
            Reason::SuspectedFraud => Self::SuspectedFraud,
        }
    }
}

/// Why a seed is renewed, by its name in the protocol.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum RotateReason {
    Scheduled,
    NewPhone,
    Suspicion,
}

impl From<RotateReason> for RotateCause {
    fn from(reason: RotateReason) -> Self {
        match reason {
            RotateReason::Scheduled => Self::Scheduled,
            RotateReason::NewPhone => Self::NewPhone,
            RotateReason::Suspicion => Self::Suspicion,
        }
    }
}

fn request_help() -> &'static str {
    say(
        "El id de la solicitud o su final; se puede omitir si hay una sola",
        "The request's id or the end of it; may be left out where there is only one",
    )
}

fn serial_help() -> &'static str {
    say(
        "Número de serie; se puede omitir si hay un solo token",
        "Serial number; may be left out where there is only one token",
    )
}
