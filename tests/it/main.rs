//! Tests of the whole core: golden texts, properties over drawn logs, and the tidiness of the repository.

mod causes;
mod commands;
mod demo;
mod golden;
mod properties;
#[path = "../rng.rs"]
mod rng;
mod tidy;
