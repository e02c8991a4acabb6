//! The modules of the charm's hook binary: gather facts → plan → apply, the same for every event.
//!
//! Juju's hooks only say that something changed. So each dispatch reads all there is (`gather`), decides what should be
//! (`reconcile`, which does no I/O), and makes it so (`apply`). Nothing is put off, and what is already so is left alone.

pub mod context;
pub mod facts;

pub mod options;
pub mod settings;
pub mod endpoint;
pub mod layer;
pub mod status;
pub mod reconcile;

pub mod hookcmd;
pub mod namespace;
pub mod pebble;

pub mod gather;
pub mod apply;
pub mod action;
