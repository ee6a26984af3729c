//! The command `semilla`: makes a bank, serves it, shows it, and proves that its records are whole.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use semilla_core::language::Language;

mod commands;
mod doctor;
mod upkeep;

/// Virtual tokens for companies: issue, assign, block, release, verify.
#[derive(Parser)]
#[command(
    name = "semilla",
    version,
    after_help = "Begin with `semilla dev --story`, which needs nothing.\n\nExit codes: 0 done, \
                  1 what was to be proven does not hold, 2 usage, 69 a service is not there, 70 internal, \
                  78 configuration."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Makes a folder with keys, configuration and database, and the bank's first operator.
    #[command(
        after_help = "Example:\n  semilla init --folder bank --bank 'Banco de Ejemplo' --operator olga.ruiz --name 'Olga Ruiz'"
    )]
    Init {
        /// The folder to make.
        #[arg(long, default_value = "semilla-data")]
        folder: PathBuf,
        /// The bank's name, as phones show it.
        #[arg(long, default_value = "Banco")]
        bank: String,
        /// The first operator's login.
        #[arg(long, default_value = "operador")]
        operator: String,
        /// The first operator's name.
        #[arg(long, default_value = "Operador del banco")]
        name: String,
        /// Prints one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Serves a folder that `init` made, until it is told to stop.
    #[command(
        after_help = "Example:\n  semilla serve --config semilla-data/semilla.toml\n\nEvery setting of the file can be \
                      set by the environment as well: SEMILLA_LISTEN, SEMILLA_ISSUER, …"
    )]
    Serve {
        /// The configuration file.
        #[arg(long, default_value = "semilla-data/semilla.toml", env = "SEMILLA_CONFIG")]
        config: PathBuf,
        /// Writes one line of JSON with the address once it listens.
        #[arg(long)]
        ready_file: Option<PathBuf>,
        /// Says that the machine's clock is right, although records say that it was later before.
        #[arg(long)]
        confirm_clock: bool,
    },
    /// A demonstration on this machine: server, company and phones, with nothing to set up.
    #[command(
        after_help = "Examples:\n  semilla dev            keeps running; prints what to paste\n  semilla dev --tls      the same over TLS\n  semilla dev --story    \
                      plays the whole flow and ends"
    )]
    Dev {
        /// Plays the whole flow in the terminal, one line a step; exits 0 only if every step held.
        #[arg(long)]
        story: bool,
        /// Where to listen.
        #[arg(long, default_value = "127.0.0.1:8080")]
        listen: SocketAddr,
        /// Speaks TLS, with an authority and a certificate made for this run.
        #[arg(long, conflicts_with = "story")]
        tls: bool,
        /// The language of what is printed: es or en.
        #[arg(long, value_parser = language, default_value = "es")]
        lang: Language,
    },
    /// Copies the database to a file, while a server works on it.
    #[command(
        after_help = "Example:\n  semilla backup --config semilla-data/semilla.toml --to /mnt/backup/semilla-2026-01-15.db"
    )]
    Backup {
        /// The configuration file.
        #[arg(long, default_value = "semilla-data/semilla.toml", env = "SEMILLA_CONFIG")]
        config: PathBuf,
        /// The file to make.
        #[arg(long)]
        to: PathBuf,
        /// Prints one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Makes the database of a folder from a backup: every code up to now is dead, everything that
    /// waits is cancelled, every session is over.
    #[command(
        after_help = "Example:\n  semilla restore --config semilla-data/semilla.toml --from semilla-2026-01-15.db\n\n\
                      The master keys have to be there already, as they were when the backup was made."
    )]
    Restore {
        /// The configuration file.
        #[arg(long, default_value = "semilla-data/semilla.toml", env = "SEMILLA_CONFIG")]
        config: PathBuf,
        /// The backup.
        #[arg(long)]
        from: PathBuf,
        /// Prints one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Looks at everything a server needs, and says what to do where it is not well; exits 1 then.
    #[command(
        after_help = "Example:\n  semilla doctor --config semilla-data/semilla.toml\n\nIt changes nothing, and may be run \
                      beside the server."
    )]
    Doctor {
        /// The configuration file.
        #[arg(long, default_value = "semilla-data/semilla.toml", env = "SEMILLA_CONFIG")]
        config: PathBuf,
        /// Prints one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// The master keys.
    Keys {
        #[command(subcommand)]
        command: KeysCommand,
    },
    /// Writes what a shell completes.
    #[command(
        after_help = "Example:\n  semilla completions bash > ~/.local/share/bash-completion/completions/semilla"
    )]
    Completions {
        /// For which shell.
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Writes the manual pages.
    #[command(after_help = "Example:\n  semilla man ~/.local/share/man/man1")]
    Man {
        /// Into which folder.
        folder: PathBuf,
    },
    /// The audit trail.
    Audit {
        #[command(subcommand)]
        command: AuditCommand,
    },
    /// Files of tokens that come with their seeds.
    Tokens {
        #[command(subcommand)]
        command: TokensCommand,
    },
    /// Receipts of operations that a phone approved.
    Receipt {
        #[command(subcommand)]
        command: ReceiptCommand,
    },
}

#[derive(Subcommand)]
enum KeysCommand {
    /// Makes a new master key, seals everything anew under it while a server works, and destroys
    /// the one before. Interrupted, it goes on where it stopped.
    #[command(after_help = "Example:\n  semilla keys rotate --config semilla-data/semilla.toml")]
    Rotate {
        /// The configuration file.
        #[arg(long, default_value = "semilla-data/semilla.toml", env = "SEMILLA_CONFIG")]
        config: PathBuf,
        /// Prints one JSON object.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
enum AuditCommand {
    /// Checks every record of every chain; exits 1 where one was edited, deleted, moved, inserted or
    /// cut off, or where all of them were written anew.
    #[command(
        after_help = "Examples:\n  semilla audit verify --config semilla-data/semilla.toml --json\n  semilla audit \
                      verify --export trail.jsonl --checkpoints checkpoints.txt --keys jwks.json\n\nWithout --export \
                      the server must not be running on the same folder. With it nothing of the server is needed: \
                      the items of GET /api/v1/audit, one a line, are an export as well."
    )]
    Verify {
        /// The configuration file.
        #[arg(long, default_value = "semilla-data/semilla.toml", env = "SEMILLA_CONFIG")]
        config: PathBuf,
        /// An export to check in the place of the database.
        #[arg(long)]
        export: Option<PathBuf>,
        /// The checkpoints to hold it to [default without --export: those of the configuration].
        #[arg(long)]
        checkpoints: Option<PathBuf>,
        /// The server's public keys, as it served them at /jwks [default without --export: its own].
        #[arg(long)]
        keys: Option<PathBuf>,
        /// Prints one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Writes every record of every chain to a file, one a line.
    #[command(
        after_help = "Example:\n  semilla audit export --config semilla-data/semilla.toml --out trail.jsonl\n\nThe \
                      server must not be running on the same folder."
    )]
    Export {
        /// The configuration file.
        #[arg(long, default_value = "semilla-data/semilla.toml", env = "SEMILLA_CONFIG")]
        config: PathBuf,
        /// The file to make.
        #[arg(long)]
        out: PathBuf,
    },
}

#[derive(Subcommand)]
enum TokensCommand {
    /// Takes the tokens of a file into the bank's stock, all or none.
    #[command(
        after_help = "Examples:\n  semilla tokens import tokens.pskcxml --dry-run --credentials operator.json\n  semilla \
                      tokens import tokens.csv --credentials operator.json\n\nA file is a key container of RFC 6030 \
                      (PSKC), in clear, under a key or under a passphrase, or CSV: with a first line of \
                      serial,type,secret_hex,algorithm,digits,period,counter,manufacturer,model (secret_base32 and \
                      secret_base64 as well), or without one as LinOTP and privacyIDEA have it: serial, hexadecimal \
                      seed, HOTP or TOTP, digits, seconds or counter. At most 10000 tokens and 8 MiB."
    )]
    Import(commands::tokens::Import),
    /// Writes tokens of the bank's stock that came with their seeds to a key container (RFC 6030),
    /// under a passphrase. They stay in the stock; the audit trail says that they were exported.
    #[command(
        after_help = "Example:\n  semilla tokens export --out tokens.pskcxml --credentials operator.json"
    )]
    Export(commands::tokens::Export),
}

#[derive(Subcommand)]
enum ReceiptCommand {
    /// Checks that an operation was approved as shown, executed and recorded; exits 1 where the
    /// receipt does not prove it.
    #[command(
        after_help = "Example:\n  semilla receipt verify receipt.json --keys jwks.json\n\nThe receipt comes from GET \
                      /api/v1/operations/{id}/receipt, the keys from GET /jwks."
    )]
    Verify {
        /// The receipt.
        receipt: PathBuf,
        /// The server's public keys.
        #[arg(long)]
        keys: PathBuf,
        /// Prints one JSON object.
        #[arg(long)]
        json: bool,
    },
}

fn language(text: &str) -> Result<Language, String> {
    match text {
        "es" => Ok(Language::Spanish),
        "en" => Ok(Language::English),
        _ => Err("es or en".to_owned()),
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(70, &format!("the runtime does not start: {error}")),
    };
    let done = runtime.block_on(async {
        match arguments.command {
            Command::Init { folder, bank, operator, name, json } => {
                commands::init(&folder, &bank, &operator, &name, json).await
            }
            Command::Serve { config, ready_file, confirm_clock } => {
                commands::serve(&config, ready_file.as_deref(), confirm_clock).await
            }
            Command::Dev { story: true, lang, .. } => commands::story(lang).await,
            Command::Dev { listen, tls, lang, .. } => commands::dev(listen, tls, lang).await,
            Command::Backup { config, to, json } => upkeep::backup(&config, &to, json).await,
            Command::Restore { config, from, json } => upkeep::restore(&config, &from, json).await,
            Command::Doctor { config, json } => doctor::run(&config, json).await,
            Command::Keys { command: KeysCommand::Rotate { config, json } } => {
                upkeep::keys_rotate(&config, json).await
            }
            Command::Completions { shell } => {
                upkeep::completions(shell, Arguments::command());
                Ok(())
            }
            Command::Man { folder } => upkeep::manual(&folder, Arguments::command()),
            Command::Audit {
                command: AuditCommand::Verify { config, export, checkpoints, keys, json },
            } => {
                let evidence = commands::Evidence { config, export, checkpoints, keys };
                commands::audit_verify(evidence, json).await
            }
            Command::Audit { command: AuditCommand::Export { config, out } } => {
                commands::audit_export(&config, &out).await
            }
            Command::Tokens { command: TokensCommand::Import(import) } => {
                commands::tokens::import(import).await
            }
            Command::Tokens { command: TokensCommand::Export(export) } => {
                commands::tokens::export(export).await
            }
            Command::Receipt { command: ReceiptCommand::Verify { receipt, keys, json } } => {
                commands::receipt_verify(&receipt, &keys, json)
            }
        }
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(commands::Failed { code, message }) => fail(code, &message),
    }
}

fn fail(code: u8, message: &str) -> ExitCode {
    // Where nobody reads the errors, the exit code still tells.
    let _ = writeln!(anstream::stderr(), "semilla: {message}");
    ExitCode::from(code)
}
