//! The whole system told as stories: the real server at port 0, real phones, real cryptography, and
//! a clock that the story moves. One binary, so that it is linked once.

mod activation;
mod api;
mod approvals;
mod audit;
mod authenticator_app;
mod callers;
mod clock;
mod codes;
mod command_line;
mod connections;
mod containers;
mod crash;
mod decisions;
mod disconnects;
mod enrollment;
mod faults;
mod flow;
mod foreign;
mod forgeries;
mod hardware;
mod input;
mod lifecycle;
mod listing;
mod operations;
mod phones;
mod policies;
mod receipts;
mod rotation;
mod secrets;
mod sockets;
mod stopping;
mod tampering;
mod tls;
mod upkeep;
mod webhooks;
