//! The edges: each file does one kind of I/O and decides nothing.

pub mod settings;
pub mod http;
