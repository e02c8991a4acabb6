//! The program: what the engine in `windrow-core` asks for is performed here, against Kafka, the
//! store and the catalog.

pub mod io;
pub mod run;
