//! What a catalog answers to those who look: files, sums, leases. What it answers to the engine
//! alone is in `windrow_core::table::commit`.

use serde::{Deserialize, Serialize};
use windrow_core::table::commit::NewFile;
use windrow_core::values::time::{DbTime, EventTime};

/// A lease that was renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewed {
    /// The catalog's clock.
    pub now: DbTime,
    /// An operator's `pause` is in force.
    pub paused: bool,
}

/// A committed file that readers see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedFile {
    /// The epoch that brought it.
    pub epoch: u64,
    /// What its commit said of it.
    pub file: NewFile,
}

/// Sums over the files of one Hive table that readers see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Totals {
    /// How many files.
    pub files: u64,
    /// Their size in the store.
    pub bytes: u64,
    /// Their rows.
    pub rows: u64,
    /// The least `window.start`; `None` for the side tables and while there is no row.
    pub first_window: Option<EventTime>,
    /// The greatest `window.start`, likewise.
    pub last_window: Option<EventTime>,
}

/// The files of one Hive table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// Over all files, also those beyond the limit.
    pub totals: Totals,
    /// The newest first.
    pub newest: Vec<CommittedFile>,
}
