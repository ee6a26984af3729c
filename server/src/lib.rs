//! The server: who may ask, what is stored, what is shown.

pub mod store;
