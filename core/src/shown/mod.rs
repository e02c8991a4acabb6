//! What people and programs see of a running windrow, all of it from one snapshot.

pub mod status;
pub mod snapshot;
pub mod metrics;
pub mod tables;
pub mod upkeep;
pub mod page;
pub mod console;
pub mod access;
pub mod causes;
pub mod notice;
#[doc(hidden)]
pub mod example;
