//! What a phone does and refuses to do, against a bank in the same process: a good one, one that
//! is hard to reach, and one that lies. And the same on the command line, over HTTP.

mod answering;
mod bank;
mod codes;
mod command_line;
mod life;

use ring::rand::SystemRandom;
use semilla_core::protocol::jwk::SigningKey;

/// The number on the asker's screen.
const NUMBER: &str = "493027";

fn another_key() -> SigningKey {
    let random = SystemRandom::new();
    SigningKey::from_pkcs8(&SigningKey::generate(&random), &random).expect("a key")
}
