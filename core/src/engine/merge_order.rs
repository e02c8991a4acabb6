//! A merge of files as it is ordered, and why it may fail. How it is done is in `table/merge`.

use crate::table::commit::{FileKind, NewFile};
use crate::table::file::Timestamps;
use crate::table::merge::{Merged, SideTable, Source};
use crate::values::cause::Trouble;
use crate::values::digest::sha256_hex;
use crate::values::shape::Shape;
use std::sync::Arc;

/// What is to be merged, and into what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergeOrder {
    /// The settings that shape the rows, of which the columns follow.
    pub shape: Arc<Shape>,
    /// How timestamps are written.
    pub timestamps: Timestamps,
    /// The files to read, in the order of their rows.
    pub sources: Vec<NewFile>,
    /// The paths of the new files: as many as may be needed, in order. What is left over is not
    /// stored.
    pub keys: Vec<String>,
    /// What each of the new files is, without what is known only when it is made: its path, size,
    /// rows, hash and windows, and its chunk, which is that of the source of the same number.
    pub like: NewFile,
    /// How many rows a file has at most.
    pub file_rows: usize,
}

impl MergeOrder {
    /// The sources, as a merge takes them.
    #[must_use]
    pub fn merge_sources(&self) -> Vec<Source> {
        let source = |file: &NewFile| Source {
            key: file.key.clone(),
            bytes: file.bytes,
            rows: file.rows,
            sha256: file.sha256.clone(),
        };
        self.sources.iter().map(source).collect()
    }

    /// The side table whose files are merged; `None` for the table itself.
    #[must_use]
    pub fn side_table(&self) -> Option<SideTable> {
        match self.like.kind {
            FileKind::Rows { .. } => None,
            FileKind::Late => Some(SideTable::Late),
            FileKind::Rejects => Some(SideTable::Rejects),
        }
    }

    /// The new files, now that they are made and stored.
    #[must_use]
    pub fn new_files(&self, merged: &[Merged]) -> Vec<NewFile> {
        let files = merged.iter().zip(&self.keys).zip(&self.sources);
        let new_file = |((merged, key), source): ((&Merged, &String), &NewFile)| NewFile {
            chunk: source.chunk.clone(),
            key: key.clone(),
            bytes: merged.bytes,
            rows: merged.rows,
            sha256: merged.sha256.clone(),
            first_window: Some(merged.first_window),
            last_window: Some(merged.last_window),
            ..self.like.clone()
        };
        files.map(new_file).collect()
    }

    /// The new file of a side table, which has these bytes.
    #[must_use]
    pub fn new_side_file(&self, bytes: &[u8]) -> Vec<NewFile> {
        vec![NewFile {
            key: self.keys[0].clone(),
            bytes: bytes.len() as u64,
            rows: self.sources.iter().map(|source| source.rows).sum(),
            sha256: sha256_hex(bytes),
            ..self.like.clone()
        }]
    }
}

/// Why files could not be merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergeFailure {
    /// The sources that later merges do without: the one that is gone, damaged or too large; or all
    /// of them, where they do not fit together, and the first is the one in which that was noticed.
    /// Empty where the merge may work later.
    pub left_out: Vec<String>,
    /// What went wrong.
    pub trouble: Trouble,
}
