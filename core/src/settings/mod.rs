//! Every setting is one row here; the parser and the documents are made from these rows.

pub mod grammar;
pub mod config;
