//! The edges: thin, no decisions. What is asked of them comes from `driver`, what they answer goes back to it.

pub mod catalog;
mod hive;
pub mod http;
pub mod kafka;
pub mod local;
pub mod metastore;
pub mod mock_kafka;
pub mod pebble;
pub mod postgres;
pub mod roots;
pub mod settings;
pub mod store;
