//! Every setting is one row here; the parser and the documents are made from these rows.

mod row;
pub mod setting;
pub mod charm_options;
mod yaml;
mod written;
pub mod parse;
mod grammar;
pub mod config;
pub mod secrets;
mod needed;
pub mod certificates;
#[cfg(test)]
mod documents;

pub use yaml::ConfigError;
