//! One source of a merge: which of its bytes are needed next, and the rows in them. Whether the
//! rows are sorted is not checked here.
//!
//! The bytes are hashed in the order of the file: row groups from the first one on, with what may
//! lie between them, and the description last. So after its last row, a source is known to be the
//! file that the journal names. A small one is known to be that before its first row.

use super::{Limits, Source};
use crate::table::columnar::{FileError, damaged};
use crate::table::columns::{Cells, ColumnKind, Field};
use crate::table::partial_file::{Part, PartialFile, needed_footer_bytes};
use crate::values::digest::hex;
use crate::values::time::EventTime;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::ops::Range;

/// What a source needs, or has.
pub(super) enum SourceStep {
    /// Fetch these bytes, and hand them to [`SourceReader::give`].
    Fetch(Range<u64>),
    /// The cells of its next rows, one list for each column.
    Rows(Vec<Cells>),
    /// It has no more rows, and it is what the journal says.
    End,
}

/// Reads one source from its first row to its last one.
pub(super) struct SourceReader {
    limits: Limits,
    wanted: Option<Range<u64>>,
    /// The end of the file. It may be too little, as long as it was not described.
    end: Option<Part>,
    /// Whether `end` has all of the description, and that fits to the journal and the table.
    is_described: bool,
    /// Row groups that were fetched.
    groups: Option<Part>,
    /// The next row group to decode.
    next_group: usize,
    /// The bytes before this offset were hashed.
    hashed_to: u64,
    hash: Sha256,
    is_verified: bool,
}

impl SourceReader {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            wanted: None,
            end: None,
            is_described: false,
            groups: None,
            next_group: 0,
            hashed_to: 0,
            hash: Sha256::new(),
            is_verified: false,
        }
    }

    /// Whether the whole file was hashed, and has the hash that the journal names.
    pub(super) fn is_verified(&self) -> bool {
        self.is_verified
    }

    /// Takes the bytes that [`SourceReader::step`] asked for.
    ///
    /// # Errors
    /// There are fewer or more bytes, or they are the whole file and have another hash.
    pub(super) fn give(&mut self, source: &Source, bytes: Bytes) -> Result<(), FileError> {
        let Some(range) = self.wanted.take() else {
            return Ok(());
        };
        let part = Part::of(&range, bytes)?;
        if self.is_described {
            self.hash_on(&part.bytes);
            self.groups = Some(part);
            return Ok(());
        }
        if part.start == 0 && !self.is_verified {
            self.hash_on(&part.bytes);
            self.verify(source)?;
        }
        self.end = Some(part);
        Ok(())
    }

    /// Reads what can be read of the bytes that are there. `fields` are the table's columns. This
    /// calls the Parquet library, so the caller guards it.
    ///
    /// # Errors
    /// The file is damaged, or is not the one that the journal names.
    pub(super) fn step(
        &mut self,
        source: &Source,
        fields: &[Field],
    ) -> Result<SourceStep, FileError> {
        let size = source.bytes;
        let Some(end) = &self.end else {
            if size == 0 {
                return Err(damaged("it is too short"));
            }
            let is_small = size <= self.limits.fetch_bytes;
            let end_bytes = if is_small {
                size
            } else {
                self.limits.end_bytes
            };
            return Ok(self.fetch(size.saturating_sub(end_bytes)..size));
        };
        if let Some(needed) = needed_footer_bytes(&end.bytes, size)? {
            return Ok(self.fetch(size - needed..size));
        }
        let parts = [self.end.clone(), self.groups.clone()];
        let file = PartialFile::open(size, parts.into_iter().flatten().collect())?;
        if !self.is_described {
            check_description(&file, source, fields)?;
            self.is_described = true;
        }
        let group = self.next_group;
        if group == file.groups() {
            return self.finish(source);
        }
        if file.bytes_of_group(group)?.end > self.hashed_to {
            let end = self.end_of_groups(&file)?;
            return Ok(self.fetch(self.hashed_to..end));
        }
        let rows = file.cells(group, 0, file.rows_of_group(group)?)?;
        for (cells, field) in rows.iter().zip(fields) {
            check_cells(cells, field)?;
        }
        self.next_group += 1;
        Ok(SourceStep::Rows(rows))
    }

    /// Where the next row group ends, or the last of several small ones.
    fn end_of_groups(&self, file: &PartialFile) -> Result<u64, FileError> {
        let mut end = file.bytes_of_group(self.next_group)?.end;
        for group in self.next_group + 1..file.groups() {
            let next = file.bytes_of_group(group)?.end;
            if next < end || next - self.hashed_to > self.limits.fetch_bytes {
                break;
            }
            end = next;
        }
        Ok(end)
    }

    /// Hashes what follows after the last row group, and compares.
    fn finish(&mut self, source: &Source) -> Result<SourceStep, FileError> {
        self.groups = None;
        let end = self.end.clone().expect("the file is described");
        if self.hashed_to < end.start {
            let next = end.start.min(self.hashed_to + self.limits.fetch_bytes);
            return Ok(self.fetch(self.hashed_to..next));
        }
        if !self.is_verified {
            let skip = usize::try_from(self.hashed_to - end.start).map_err(damaged)?;
            self.hash_on(&end.bytes[skip..]);
            self.verify(source)?;
        }
        Ok(SourceStep::End)
    }

    fn fetch(&mut self, range: Range<u64>) -> SourceStep {
        // What was fetched before is decoded.
        self.groups = None;
        self.wanted = Some(range.clone());
        SourceStep::Fetch(range)
    }

    fn hash_on(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.hashed_to += bytes.len() as u64;
    }

    fn verify(&mut self, source: &Source) -> Result<(), FileError> {
        let found = hex(&self.hash.clone().finalize());
        if found != source.sha256 {
            return Err(FileError::new(format!(
                "its SHA-256 is {found}, and the journal says {}",
                source.sha256
            )));
        }
        self.is_verified = true;
        Ok(())
    }
}

/// Checks that the file has the table's columns, and as many rows as the journal says.
pub(super) fn check_description(
    file: &PartialFile,
    source: &Source,
    fields: &[Field],
) -> Result<(), FileError> {
    if file.fields() != fields {
        return Err(damaged("its columns are not those of the table"));
    }
    let mut rows = 0;
    for group in 0..file.groups() {
        rows += file.rows_of_group(group)? as u64;
    }
    if rows != source.rows {
        return Err(FileError::new(format!(
            "it has {rows} rows, and the journal says {}",
            source.rows
        )));
    }
    Ok(())
}

/// Checks that the cells can be written again. Those of a damaged file may be anything, and it is
/// noticed only at its end that it is damaged.
fn check_cells(cells: &Cells, field: &Field) -> Result<(), FileError> {
    let is_time = |time: EventTime| time.0.checked_mul(1000).is_some();
    let fits = match (cells, field.kind) {
        (Cells::Window(v), _) => v
            .iter()
            .all(|window| window.is_some_and(|(start, end)| is_time(start) && is_time(end))),
        (Cells::Decimal(v), ColumnKind::Decimal { precision, .. }) => {
            let power = 10_u128.pow(precision.into());
            v.iter().flatten().all(|units| units.unsigned_abs() < power)
        }
        _ => true,
    };
    if fits {
        return Ok(());
    }
    let why = "holds a value that windrow does not write";
    Err(FileError::new(format!("column \"{}\" {why}", field.name)))
}
