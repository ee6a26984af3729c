//! `approver`: the AppMóvil on the command line. It reads what is asked, asks for what is missing,
//! and prints; everything else is the library's.

use std::process::ExitCode;

mod cli;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    cli::main().await
}
