//! What a catalog answers to those who look: files and sums. What it answers to the engine
//! alone is in `windrow_core::table::commit`.

pub use windrow_core::shown::snapshot::Totals;

use windrow_core::table::commit::NewFile;

/// A committed file that readers see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedFile {
    /// The epoch that brought it.
    pub epoch: u64,
    /// What its commit said of it.
    pub file: NewFile,
}

/// The files of one Hive table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// Over all files, also those beyond the limit.
    pub totals: Totals,
    /// The newest first.
    pub newest: Vec<CommittedFile>,
}

/// The entry in Hive of a Spark job's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SparkEntry {
    /// The directory of its files, as Hive has it: `s3a://spark/warehouse/newtable`.
    pub location: String,
    /// The name that it gets when the table is adopted: `newtable__spark`.
    pub renamed_to: String,
}
