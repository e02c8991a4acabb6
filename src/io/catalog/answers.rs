//! What a catalog answers to those who look: files, sums, tables, leases.

pub use windrow_core::shown::snapshot::Totals;

use windrow_core::table::commit::NewFile;
use windrow_core::table::hive::TableName;
use windrow_core::values::time::DbTime;

/// A lease that was renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewed {
    pub now: DbTime,
    /// An operator's `pause` is in force.
    pub paused: bool,
}

/// A committed file that readers see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedFile {
    pub epoch: u64,
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

/// A table that windrow keeps in this catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableInfo {
    pub name: TableName,
    /// Who holds a lease that is not over.
    pub held_by: Option<String>,
    /// The last epoch and when it was committed; `None` before epoch 0.
    pub last: Option<(u64, DbTime)>,
    pub paused: bool,
}
