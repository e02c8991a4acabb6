//! Sorted files of rows become fewer files with the same rows: which bytes are needed next, and
//! which bytes must be stored next. There is no I/O here, and no file as a whole is in memory.
//!
//! A merge of an hour file of 3 MB and a commit's file of 5 KB is this conversation:
//!
//! ```text
//! step   →  Fetch { source: 0, range: 2_934_464..3_000_000 }   its end, where its description is
//! give   ←  these bytes
//! step   →  Fetch { source: 0, range: 0..900_000 }             row groups, from the first one on
//! give   ←  these bytes
//! …                                                            and so on, to its last row group
//! step   →  Fetch { source: 1, range: 0..5_000 }               a small file, all at once
//! give   ←  these bytes
//! step   →  Store { file: 0, bytes, last: true }               all of the new file: it is small
//! stored ←
//! step   →  Done
//! finish →  [Merged { rows: 612_000, bytes: 3_004_100, sha256: "9f86…", .. }]
//! ```
//!
//! A new file of more than 8 MiB comes in several pieces, between the fetches. The same rows give
//! the same bytes, no matter over which files they were spread: row groups and files are cut by row
//! count only, and the footer tells nothing of the sources.

mod order;
mod output;
mod side;
mod source;

pub use side::{SideTable, merge_side};

use crate::table::columnar::{FORMAT_REV, FileError, ROW_GROUP_ROWS};
use crate::table::columns::{Cells, Timestamps};
use crate::table::file::table_fields;
use crate::table::partial_file::guarded;
use crate::values::shape::Shape;
use crate::values::time::EventTime;
use bytes::Bytes;
use order::{Broken, Order, Sums};
use output::{Output, Piece};
use source::{SourceReader, SourceStep};
use std::ops::Range;

/// Every piece of a new file except its last one has at least so many bytes. S3 takes no part of
/// an upload below 5 MiB, except the last one.
pub const PIECE_BYTES: usize = 8 << 20;
/// A source of at most so many bytes is fetched at once, and checked before its rows are used.
/// As many row groups of a larger one are fetched together as have at most so many bytes.
pub const FETCH_BYTES: u64 = 1 << 20;
/// How much of the end of a larger source is fetched first, as in `newest`.
const END_BYTES: u64 = 65_536;

/// A file to merge, as the journal knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its path below the warehouse. Errors name it.
    pub key: String,
    /// Its size.
    pub bytes: u64,
    /// How many rows it has.
    pub rows: u64,
    /// The SHA-256 of the file, in lower-case hexadecimal.
    pub sha256: String,
}

/// What the caller does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MergeStep {
    /// Fetch these bytes of this source, and hand them to [`Merge::give`].
    Fetch {
        /// The source's place in the list that the merge was made with, from 0.
        source: usize,
        /// The bytes; at least one.
        range: Range<u64>,
    },
    /// Store these bytes behind those that were stored of this file before, and call
    /// [`Merge::stored`].
    Store {
        /// Counts the new files from 0. A file begins when the one before has ended.
        file: usize,
        /// The piece; at least [`PIECE_BYTES`], except the last one.
        bytes: Bytes,
        /// Whether the file ends with this piece.
        last: bool,
    },
    /// Nothing: all rows are stored. [`Merge::finish`] says in which files.
    Done,
}

/// A new file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    /// How many rows it has; at least one.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
    /// The SHA-256 of the file, in lower-case hexadecimal.
    pub sha256: String,
    /// The least `window.start`.
    pub first_window: EventTime,
    /// The greatest `window.start`.
    pub last_window: EventTime,
}

/// Why the files cannot be merged. The merge is over, and no piece that was stored may be shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// A source is not the file that the journal names. The caller leaves it as it is, and may
    /// begin again with the sources on one side of it.
    #[error(
        "cannot merge file \"{key}\": {why}; put back the file that windrow stored there, or write \
         the table again from Kafka"
    )]
    Damaged {
        /// The source's place in the list that the merge was made with, from 0.
        place: usize,
        /// The source's key.
        key: String,
        /// What is wrong with it.
        why: String,
    },
    /// The rows of a side table's files would take too much memory at once. The caller leaves this
    /// file as it is, and may begin again with the sources on one side of it.
    #[error(
        "cannot merge file \"{key}\": its rows, with those of the files before it, would take \
         {mib} MiB of memory, which is too much; readers see it as it is"
    )]
    TooLarge {
        /// The source's key.
        key: String,
        /// The memory that was reckoned up to here, in MiB.
        mib: u64,
    },
    /// The sources are what the journal says, and still their rows do not make one file. To go on
    /// could show a row twice or lose one, so nobody should try again.
    #[error(
        "cannot merge file \"{key}\": {why}; keep the files as they are, and report this as a \
         mistake in windrow"
    )]
    Mismatch {
        /// The key of the source in which this was noticed.
        key: String,
        /// What does not fit.
        why: String,
    },
}

/// Where things are cut. They differ in tests only, except `file_rows`.
#[derive(Clone, Copy, Debug)]
struct Limits {
    file_rows: usize,
    group_rows: usize,
    piece_bytes: usize,
    fetch_bytes: u64,
    end_bytes: u64,
}

/// Merges sorted files of rows into files of `file_rows` rows.
///
/// In memory are the rows of one row group of a source, those of one row group of the new file, and
/// one piece of the new file. With keys of some bytes that is about 40 MB. A step works for some 50
/// ms at most then, so it does not belong on a thread that must answer others.
pub struct Merge {
    sources: Vec<Source>,
    limits: Limits,
    /// The source that is read; the number of sources when all were read.
    current: usize,
    reader: SourceReader,
    /// Rows of the source that is read, checked but not written yet.
    rows: Vec<Cells>,
    order: Order,
    /// Rows that are out of order, in a source that is not known to be undamaged yet. When it is
    /// undamaged, this is the error.
    broken: Option<MergeError>,
    read: Sums,
    output: Output,
    /// What is being stored.
    piece: Option<Piece>,
    /// Whether the last file has its footer.
    is_ended: bool,
    failed: Option<MergeError>,
}

impl Merge {
    /// Merges these files, which are in the order of their rows and do not overlap. The new files
    /// have `file_rows` rows, and the last one the rest. (In production that is 1,000,000.)
    ///
    /// The sources may have been written with other `timestamps` than the new files.
    ///
    /// # Panics
    /// When `file_rows` is zero.
    #[must_use]
    pub fn new(
        shape: &Shape,
        timestamps: Timestamps,
        file_rows: usize,
        sources: Vec<Source>,
    ) -> Self {
        let limits = Limits {
            file_rows,
            group_rows: ROW_GROUP_ROWS,
            piece_bytes: PIECE_BYTES,
            fetch_bytes: FETCH_BYTES,
            end_bytes: END_BYTES,
        };
        Self::with_limits(shape, timestamps, limits, sources)
    }

    fn with_limits(
        shape: &Shape,
        timestamps: Timestamps,
        limits: Limits,
        sources: Vec<Source>,
    ) -> Self {
        assert!(limits.file_rows > 0, "a file has at least one row");
        let fields = table_fields(shape);
        Self {
            sources,
            limits,
            current: 0,
            reader: SourceReader::new(limits),
            rows: Vec::new(),
            order: Order::new(shape.group_by.len()),
            broken: None,
            read: Sums::default(),
            output: Output::new(timestamps, fields, limits),
            piece: None,
            is_ended: false,
            failed: None,
        }
    }

    /// What must be done next. It says the same again until [`Merge::give`] or [`Merge::stored`]
    /// was called, so a request that failed can be repeated.
    ///
    /// # Errors
    /// As [`MergeError`] says. The next call fails in the same way.
    pub fn step(&mut self) -> Result<MergeStep, MergeError> {
        self.unless_failed(Self::advance)
    }

    /// Takes the bytes that [`Merge::step`] asked for.
    ///
    /// # Errors
    /// There are fewer or more bytes than were asked for, or the small source that they are does
    /// not have its SHA-256.
    pub fn give(&mut self, bytes: Bytes) -> Result<(), MergeError> {
        self.unless_failed(|merge| {
            let Some(source) = merge.sources.get(merge.current) else {
                return Ok(());
            };
            let given = merge.reader.give(source, bytes);
            given.map_err(|error| merge.damaged(&error))
        })
    }

    /// Says that the piece which [`Merge::step`] handed out is stored.
    pub fn stored(&mut self) {
        self.piece = None;
    }

    /// The new files, in the order of their rows. There is none when the sources have no rows.
    ///
    /// # Panics
    /// When [`Merge::step`] has not said [`MergeStep::Done`] yet: the last file would be cut short.
    #[must_use]
    pub fn finish(self) -> Vec<Merged> {
        let is_done = self.is_ended && self.piece.is_none() && self.failed.is_none();
        assert!(is_done, "a merge is finished when it is done");
        self.output.files
    }

    fn unless_failed<T>(
        &mut self,
        act: impl FnOnce(&mut Self) -> Result<T, MergeError>,
    ) -> Result<T, MergeError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let result = act(self);
        self.failed = result.as_ref().err().cloned();
        result
    }

    fn advance(&mut self) -> Result<MergeStep, MergeError> {
        loop {
            if let Some(Piece { file, bytes, last }) = self.piece.clone() {
                return Ok(MergeStep::Store { file, bytes, last });
            }
            if self.rows.first().is_some_and(|cells| cells.len() > 0) {
                self.piece = self.output.add(&mut self.rows);
                continue;
            }
            let Some(source) = self.sources.get(self.current) else {
                if self.is_ended {
                    return Ok(MergeStep::Done);
                }
                self.piece = self.output.end();
                self.is_ended = true;
                self.check_sums()?;
                continue;
            };
            let next = guarded(|| self.reader.step(source, self.output.fields()));
            match next.map_err(|error| self.damaged(&error))? {
                SourceStep::Fetch(range) => {
                    let source = self.current;
                    return Ok(MergeStep::Fetch { source, range });
                }
                SourceStep::Rows(rows) => self.take_rows(rows)?,
                SourceStep::End => self.end_source()?,
            }
        }
    }

    /// Takes rows of the current source, unless they are out of order.
    fn take_rows(&mut self, rows: Vec<Cells>) -> Result<(), MergeError> {
        if self.broken.is_some() {
            return Ok(());
        }
        match self.order.follow(self.current, &rows) {
            Ok(()) => {
                self.read.add(&rows);
                self.rows = rows;
                Ok(())
            }
            Err(broken) => {
                let error = self.out_of_order(&broken);
                if self.reader.is_verified() {
                    return Err(error);
                }
                self.broken = Some(error);
                Ok(())
            }
        }
    }

    /// Goes on to the next source. The current one is what the journal says.
    fn end_source(&mut self) -> Result<(), MergeError> {
        if let Some(error) = self.broken.take() {
            return Err(error);
        }
        self.current += 1;
        self.reader = SourceReader::new(self.limits);
        Ok(())
    }

    /// Checks that what was written is what was read.
    fn check_sums(&self) -> Result<(), MergeError> {
        if self.read == self.output.sums {
            return Ok(());
        }
        let key = self.sources.last().map(|source| source.key.clone());
        Err(MergeError::Mismatch {
            key: key.unwrap_or_default(),
            why: format!(
                "with the files before it, {} were read and {} were written",
                self.read, self.output.sums
            ),
        })
    }

    fn damaged(&self, error: &FileError) -> MergeError {
        MergeError::Damaged {
            place: self.current,
            key: self.sources[self.current].key.clone(),
            why: error.why().to_owned(),
        }
    }

    fn out_of_order(&self, broken: &Broken) -> MergeError {
        let after = if broken.after == self.current {
            "the row before it".to_owned()
        } else {
            let before = &self.sources[broken.after].key;
            format!("the last row of file \"{before}\"")
        };
        MergeError::Mismatch {
            key: self.sources[self.current].key.clone(),
            why: format!(
                "its row of the window {} to {} does not come after {after}",
                broken.window.0, broken.window.1
            ),
        }
    }
}

/// The key-values in the footer of a merged file. They say nothing that the rows, the shape, the
/// timestamps and the format do not determine.
fn footer() -> Vec<(String, String)> {
    vec![("windrow.format".to_owned(), FORMAT_REV.to_string())]
}

#[cfg(test)]
mod tests;
