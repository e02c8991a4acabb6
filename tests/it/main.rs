//! Tests of the whole core: golden texts, properties over drawn logs, and a tidy repository.

mod adopt;
mod causes;
mod commands;
mod compaction;
mod demo;
mod documents;
mod garbage;
mod golden;
#[path = "../hands.rs"]
#[allow(dead_code, reason = "the simulation uses more of it")]
mod hands;
mod imports;
mod logs;
mod properties;
#[path = "../rng.rs"]
mod rng;
#[path = "../sim/store.rs"]
#[allow(dead_code, reason = "the simulation makes its mistakes on purpose")]
mod store;
mod tidy;
mod verify;
