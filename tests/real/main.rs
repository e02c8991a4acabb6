//! Windrow against a real Kafka, MinIO and PostgreSQL, as a user runs it: the built program, a
//! settings file, signals. Spark is the judge. All of it is ignored until the parts are there;
//! `make test` brings them up and runs it.

mod adopt;
mod bucket;
mod clocks;
mod day;
mod faults;
mod harness;
mod memory;
mod million;
mod readers;
mod recovery;
mod spark;
mod verify;
mod year;
