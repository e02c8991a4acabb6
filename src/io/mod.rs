//! The edges: thin, no decisions. What is asked of them comes from `driver`, what they answer goes back to it.

pub mod roots;
pub mod store;
