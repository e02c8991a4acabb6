//! Tests of the whole core: golden texts, properties over drawn logs, and a tidy repository.

mod causes;
mod golden;
mod imports;
mod properties;
#[path = "../rng.rs"]
mod rng;
mod tidy;
