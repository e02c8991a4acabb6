//! A table is compared with the log that it was counted from, with its files, and with its journal.
//!
//! The table is a pure function of the log. So whoever reads the log again, with the decisions that
//! were recorded, must come to the same rows. Nothing is mended here, and nothing is read: the
//! caller fetches what these machines ask for.
//!
//! - `starting`: from which commit on the log can be counted again, and which windows that covers.
//! - `recount`: the log from there on becomes rows once more.
//! - `compare`: those rows, and the rows of the table's files.
//! - `audit`: the journal against itself, and the files that readers see against the journal.

pub mod report;
pub mod starting;
pub mod recount;
pub mod compare;
pub mod audit;

#[cfg(test)]
mod tests;
