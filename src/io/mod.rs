//! The edges: what talks to the world outside. They decide nothing.

pub mod catalog;
mod hive;
pub mod local;
pub mod metastore;
pub mod postgres;
