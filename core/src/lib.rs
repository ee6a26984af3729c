//! What a virtual token is: seeds and codes, the rules of the token's life, the messages that
//! server and phone exchange, and the record that is kept of everything.
//!
//! Architecture invariant: nothing here reads a clock, draws a random number of its own accord,
//! opens a file or a socket, or waits. Time and random bytes are arguments, so that a test moves
//! the one and repeats the other. Everything that would still be true with pen and paper is here;
//! who may ask and what is stored together belongs to the server.
//!
//! ```text
//!            issue          allot            assign             enroll + code
//!   (none) ────────▶ stock ◀───────▶ company ───────▶ assigned ───────────────▶ active ◀─╮ rotate
//!                      │    withdraw  │  ▲ ▲             │  │                   │  │ ╰────╯
//!               retire │       retire │  │ │    release   │  │ block       block │  │
//!                      ▼              │  │ ╰─────────────┼──┼───────────────────┼──╯ release
//!                   retired ◀─────────╯  │               │  ▼                   ▼
//!                                        ╰───────────────┴─ blocked(from) ◀─────╯
//!                                             release          │ unblock → from
//! ```
//!
//! The table of operations that this drawing shows is [`operations::TABLE`].

pub mod approval;
pub mod audit;
pub mod base64url;
pub mod checkpoint;
pub mod device;
pub mod enrollment;
pub mod entropy;
pub mod id;
pub mod import;
pub mod language;
pub mod operations;
pub mod otp;
pub mod otpauth;
pub mod person;
pub mod policy;
pub mod problem;
pub mod protocol;
pub mod pskc;
pub mod qr;
pub mod receipt;
mod schema;
pub mod seal;
pub mod secret;
pub mod text;
pub mod time;
pub mod token;
pub mod verifier;
