//! Closed partials become the rows of a file, a commit binds an epoch, the table shows it.

pub mod place;
mod columns;
mod columnar;
mod file_check;
mod partial_file;
pub mod file;
pub mod spark_file;
pub mod listing;
pub mod level;
pub mod commit;
pub mod manifest;
pub mod compaction;
pub mod admit;
pub mod history;
pub mod rebuild;
pub mod hive;
pub mod newest;
pub mod merge;
pub mod reread;
pub mod plausible;
