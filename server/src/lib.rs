//! The server: who may ask, what is stored, what is shown.

pub mod app;
pub mod clock;
pub mod records;
pub mod store;
pub mod workflow;
