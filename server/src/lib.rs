//! The server: who may ask, what is stored, what is shown. A face over HTTP in front, the store
//! behind, and between them one function for each thing that can be asked.

pub mod app;
pub mod clock;
pub mod config;
pub mod dev;
pub mod http;
pub mod keyring;
pub mod listener;
pub mod logs;
pub mod metrics;
pub mod outbound;
pub mod proof;
pub mod records;
pub mod serve;
pub mod store;
pub mod webhooks;
pub mod workflow;
