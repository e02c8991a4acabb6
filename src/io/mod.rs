//! The edges: each file talks to one outside system and decides nothing.

pub mod catalog;
pub mod cgroup;
mod connections;
pub mod files;
pub mod heap;
pub mod verify_http;
pub mod http;
pub mod kafka;
pub mod pebble;
pub mod roots;
pub mod store;
