//! The client of the workload container's Pebble, over its unix socket. It decides nothing.
//!
//! Every call has a limit of time and of size. The contents of files appear in no error and in no
//! log, because they may be secret.
#![expect(
    clippy::disallowed_methods,
    reason = "the edge to Pebble: every wait for it has a limit, and a notice has an age"
)]

mod wire;
mod api;
mod files;
mod exec;
#[cfg(test)]
mod tests;

pub use exec::ExecOutput;
pub use files::{Content, FileWrite, Files};
pub use wire::{Pebble, PebbleError};
