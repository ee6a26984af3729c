//! What the stories share: a world with the real server and real phones, and a plain client. The
//! stories themselves are in `tests/tests/stories`; here are also the rules for dependencies and
//! for what may be committed.

pub mod asking;
pub mod bad;
pub mod bank;
pub mod binding;
pub mod bodies;
pub mod branch;
pub mod canary;
pub mod faults;
pub mod http;
pub mod invariants;
pub mod memory;
pub mod people;
pub mod places;
pub mod process;
pub mod receiver;
pub mod relying_party;
pub mod seeded;
pub mod socket;
pub mod trails;
pub mod wire;
pub mod world;

#[cfg(test)]
mod dependencies;
