//! What Juju runs at every event: look at everything, decide, act.
//!
//! A hook of Juju only says that something has changed. So each dispatch reads all there is
//! (`gather`), decides what should be (`reconcile`, which does no I/O), and makes it so (`apply`).
//! Nothing is deferred to a later event, and what is already as it should be is left alone.

pub mod context;
pub mod facts;
mod secrets;

pub mod endpoint;
pub mod options;
pub mod rendered;
pub mod layer;
pub mod status;
pub mod needs;
mod target;
pub mod reconcile;

pub mod hookcmd;
pub mod pebble;
pub mod namespace;
pub mod workload;

pub mod gather;
pub mod apply;
pub mod action;

#[cfg(test)]
mod commands;
