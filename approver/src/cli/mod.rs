//! The command line: `arguments` says what can be asked, `run` does it through the library,
//! `show` says how it looks, `ask` gets PIN, code and number without putting them where others
//! can read them (security 128).

mod arguments;
mod ask;
mod card;
mod progress;
mod report;
mod run;
mod show;
#[cfg(test)]
mod tests;
mod words;

use std::process::ExitCode;

use arguments::Arguments;
use report::{Report, print, print_error};

/// Runs one command: 0, or the exit code of the error it ended with.
pub(crate) async fn main() -> ExitCode {
    let arguments = Arguments::read();
    let (language, json) = (words::language(), arguments.global.json);
    let outcome = run::run(arguments, language).await;
    let printed = match &outcome {
        Ok(Report { exit_code, .. }) => print(outcome.as_ref().ok(), json).map(|()| *exit_code),
        Err(error) => print_error(error, language, json).map(|()| error.exit_code()),
    };
    match printed {
        Ok(code) => ExitCode::from(code),
        // Whoever read the output is gone: nobody is left to be told.
        Err(_) => ExitCode::from(70),
    }
}
