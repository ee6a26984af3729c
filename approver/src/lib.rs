//! The AppMóvil: a phone that holds the keys and seeds of one person, shows codes, and answers
//! what the bank asks. It is a stranger to the server: all that both share is the protocol in
//! `semilla_core`. The binary `approver`, tests and simulations use the same [`Phone`]; they
//! differ in where its [`Store`](store::Store) keeps things, in the clock and in the randomness,
//! which all come from outside, so that a thousand phones run in one process.
//!
//! ```no_run
//! # async fn story() -> Result<(), semilla_approver::Error> {
//! use std::sync::Arc;
//! use semilla_approver::{Phone, clock::SystemClock, entropy::SystemEntropy};
//!
//! let phone = Phone::in_memory(Arc::new(SystemClock), Arc::new(SystemEntropy));
//! phone.bind("semilla://enroll?server=http%3A%2F%2F127.0.0.1%3A8080&code=7K2M-9QRS-T0VW-XYZ1").await?;
//! let token = phone.enroll_next().await?;
//! let code = phone.code(&token.serial)?;
//! assert_eq!(code.code.expose().len(), 8);
//! for request in phone.inbox().await?.requests {
//!     phone.approve(request.id(), "493027").await?; // the number on the asker's screen
//! }
//! # Ok(()) }
//! ```
//!
//! ```text
//!   Phone ── bind, enroll, codes, inbox, approve …      phone/
//!     │  ╲
//!     │   review ── is this request what it says?       review.rs
//!     ├── Store ── sealed file │ memory                 store/  (holds contents.rs)
//!     └── Transport ── HTTP │ a test's own              http.rs
//! ```

pub mod clock;
mod contents;
pub mod entropy;
pub mod errors;
pub mod http;
pub mod invitation;
pub mod phone;
pub mod pin;
pub mod qr;
pub mod review;
pub mod store;

pub use errors::Error;
pub use phone::Phone;
