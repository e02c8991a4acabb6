//! Tests of the whole core: golden texts, properties over drawn logs, and the tidiness of the repository.

mod causes;
mod documents;
mod golden;
mod properties;
#[path = "../rng.rs"]
mod rng;
mod tidy;
