//! A file is read again from its first byte to its last one, to see whether it is still the one
//! that was written: which bytes are needed next, the rows in them, and at the end its hash. There
//! is no I/O here, and the file as a whole is never in memory.
//!
//! Other than a merge, this goes on when the hash is another one: whoever looks for damage wants to
//! know which rows it has touched.
//!
//! ```text
//! step  →  Fetch(934_464..1_000_000)   the end of the file, where its description is
//! give  ←  these bytes
//! step  →  Fetch(0..900_000)           row groups, from the first one on
//! give  ←  these bytes
//! step  →  Rows                        those of the first row group
//! …
//! step  →  End { sha256: "9f86…" }
//! ```

use crate::table::columnar::{FileError, damaged};
use crate::table::columns::Field;
use crate::table::file::{late_fields, listed, rejects_fields, table_fields};
use crate::table::hive::TableKind;
use crate::table::listing::Value;
use crate::table::partial_file::{Part, PartialFile, guarded, needed_footer_bytes};
use crate::values::digest::hex;
use crate::values::shape::Shape;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::ops::Range;

/// How much of the end of a file is fetched first, as in `newest`.
const END_BYTES: u64 = 65_536;
/// As many row groups are fetched together as have at most so many bytes.
const FETCH_BYTES: u64 = 1 << 20;

/// How much of a file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Its end only, where it is described: columns and number of rows.
    Description,
    /// All its bytes, for the hash. Rows are not decoded.
    Bytes,
    /// All its bytes and rows.
    Rows,
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq)]
pub enum RereadStep {
    /// Fetch these bytes of the file, and hand them to [`Reread::give`].
    Fetch(Range<u64>),
    /// The rows that come next, with one value for each column.
    Rows(Vec<Vec<Value>>),
    /// Nothing: all was read that was wanted.
    End {
        /// The SHA-256 of the file, in lower-case hexadecimal; `None` where only its description
        /// was read.
        sha256: Option<String>,
    },
}

/// Reads one file.
pub struct Reread {
    size: u64,
    depth: Depth,
    fields: Vec<Field>,
    wanted: Option<Range<u64>>,
    /// The end of the file. It may be too little, as long as it was not described.
    end: Option<Part>,
    /// How many rows the description says; `None` before it was read.
    rows: Option<u64>,
    /// Bytes that were fetched to be decoded.
    groups: Option<Part>,
    /// The next row group to decode.
    next_group: usize,
    /// The bytes before this offset were hashed.
    hashed_to: u64,
    hash: Sha256,
}

impl Reread {
    /// Reads a file of this table that should have `size` bytes.
    #[must_use]
    pub fn new(shape: &Shape, kind: TableKind, size: u64, depth: Depth) -> Self {
        Self {
            size,
            depth,
            fields: match kind {
                TableKind::Late => late_fields(),
                TableKind::Rejects => rejects_fields(),
                TableKind::Chunks | TableKind::View => table_fields(shape),
            },
            wanted: None,
            end: None,
            rows: None,
            groups: None,
            next_group: 0,
            hashed_to: 0,
            hash: Sha256::new(),
        }
    }

    /// How many rows the file says it has; `None` before its description was read.
    #[must_use]
    pub fn rows(&self) -> Option<u64> {
        self.rows
    }

    /// Takes the bytes that [`Reread::step`] asked for.
    ///
    /// # Errors
    /// There are fewer or more bytes: the file has another size.
    pub fn give(&mut self, bytes: Bytes) -> Result<(), FileError> {
        let Some(range) = self.wanted.take() else {
            return Ok(());
        };
        let part = Part::of(&range, bytes)?;
        if self.rows.is_none() {
            self.end = Some(part);
            return Ok(());
        }
        self.hash.update(&part.bytes);
        self.hashed_to = range.end;
        self.groups = Some(part);
        Ok(())
    }

    /// What must be done next.
    ///
    /// # Errors
    /// The file is damaged, or has other columns than the table. Its hash is not known then.
    pub fn step(&mut self) -> Result<RereadStep, FileError> {
        guarded(|| self.advance())
    }

    fn advance(&mut self) -> Result<RereadStep, FileError> {
        let Some(end) = &self.end else {
            if self.size == 0 {
                return Err(damaged("it is too short"));
            }
            return Ok(self.fetch(self.size.saturating_sub(END_BYTES)..self.size));
        };
        if let Some(needed) = needed_footer_bytes(&end.bytes, self.size)? {
            return Ok(self.fetch(self.size - needed..self.size));
        }
        if self.depth == Depth::Bytes && self.rows.is_some() {
            return Ok(self.hash_on());
        }
        let parts = [self.end.clone(), self.groups.clone()];
        let file = PartialFile::open(self.size, parts.into_iter().flatten().collect())?;
        if self.rows.is_none() {
            self.rows = Some(described_rows(&file, &self.fields)?);
            if self.depth == Depth::Description {
                return Ok(RereadStep::End { sha256: None });
            }
            return self.advance();
        }
        if self.next_group == file.groups() {
            return Ok(self.hash_on());
        }
        let group = self.next_group;
        if file.bytes_of_group(group)?.end > self.hashed_to {
            let end = self.end_of_groups(&file)?;
            return Ok(self.fetch(self.hashed_to..end));
        }
        let cells = file.cells(group, 0, file.rows_of_group(group)?)?;
        self.next_group += 1;
        Ok(RereadStep::Rows(listed(&self.fields, &cells)))
    }

    /// Where the next row group ends, or the last of several small ones.
    fn end_of_groups(&self, file: &PartialFile) -> Result<u64, FileError> {
        let mut end = file.bytes_of_group(self.next_group)?.end;
        for group in self.next_group + 1..file.groups() {
            let next = file.bytes_of_group(group)?.end;
            if next < end || next - self.hashed_to > FETCH_BYTES {
                break;
            }
            end = next;
        }
        Ok(end)
    }

    /// Hashes what was not hashed yet.
    fn hash_on(&mut self) -> RereadStep {
        if self.hashed_to < self.size {
            let next = self.size.min(self.hashed_to + FETCH_BYTES);
            return self.fetch(self.hashed_to..next);
        }
        RereadStep::End {
            sha256: Some(hex(&self.hash.clone().finalize())),
        }
    }

    fn fetch(&mut self, range: Range<u64>) -> RereadStep {
        // What was fetched before is decoded.
        self.groups = None;
        self.wanted = Some(range.clone());
        RereadStep::Fetch(range)
    }
}

/// Checks that the file has these columns, and counts its rows.
fn described_rows(file: &PartialFile, fields: &[Field]) -> Result<u64, FileError> {
    if file.fields() != fields {
        return Err(damaged("its columns are not those of the table"));
    }
    let mut rows = 0;
    for group in 0..file.groups() {
        rows += file.rows_of_group(group)? as u64;
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::file::{Timestamps, read_rows, write_rows};
    use crate::values::digest::sha256_hex;
    use crate::values::record::Key;
    use crate::values::row::Row;
    use crate::values::time::EventTime;
    use std::sync::Arc;

    fn shape() -> Shape {
        Shape::count_by_origin("clicks", 10_000, 10_000)
    }

    fn file(rows: i64) -> Vec<u8> {
        let rows: Vec<Row> = (0..rows)
            .map(|i| Row {
                start: EventTime(i * 10_000),
                end: EventTime(i * 10_000 + 10_000),
                key: Arc::from(&*Key::of(&[Some(&format!("k{}", i * 7919))]).0),
                count: 1,
                accs: [].into(),
            })
            .collect();
        write_rows(&shape(), Timestamps::Micros, &rows, &[])
    }

    type Found = (Vec<Vec<Value>>, Option<String>, u64);

    /// Rows and hash of these bytes, and how many bytes were fetched. The journal says `size`.
    fn reread(bytes: &[u8], size: u64, depth: Depth) -> Result<Found, FileError> {
        let mut reread = Reread::new(&shape(), TableKind::Chunks, size, depth);
        let (mut rows, mut fetched) = (Vec::new(), 0);
        loop {
            match reread.step()? {
                RereadStep::Fetch(range) => {
                    let at = |n: u64| usize::try_from(n).unwrap().min(bytes.len());
                    let part = &bytes[at(range.start)..at(range.end)];
                    fetched += part.len() as u64;
                    reread.give(Bytes::copy_from_slice(part))?;
                }
                RereadStep::Rows(more) => rows.extend(more),
                RereadStep::End { sha256 } => return Ok((rows, sha256, fetched)),
            }
        }
    }

    #[test]
    fn a_file_gives_its_rows_and_its_hash() {
        for count in [0, 1, 70_000, 150_000] {
            let bytes = file(count);
            let size = bytes.len() as u64;
            let all = read_rows(&bytes, usize::MAX).unwrap().rows;
            let hash = Some(sha256_hex(&bytes));
            let (rows, found, _) = reread(&bytes, size, Depth::Rows).unwrap();
            assert_eq!((rows.len(), &found), (all.len(), &hash));
            assert!(rows == all);
            let (rows, found, _) = reread(&bytes, size, Depth::Bytes).unwrap();
            assert_eq!((rows.len(), &found), (0, &hash));
            let (rows, found, fetched) = reread(&bytes, size, Depth::Description).unwrap();
            assert_eq!((rows.len(), found), (0, None));
            assert!(fetched <= END_BYTES);
        }
    }

    #[test]
    fn a_file_of_another_size_is_noticed_at_its_end() {
        let bytes = file(70_000);
        let size = bytes.len() as u64;
        for (bytes, size) in [
            (&bytes[..bytes.len() - 1000], size),
            (&bytes[..bytes.len() / 2], size),
            (&bytes[..], size - 1000),
            (&[], size),
        ] {
            assert!(reread(bytes, size, Depth::Description).is_err());
        }
    }

    #[test]
    fn a_damaged_byte_changes_the_hash_or_cannot_be_read() {
        let good = file(40);
        let (size, hash) = (good.len() as u64, Some(sha256_hex(&good)));
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0xff;
            if let Ok((_, found, _)) = reread(&bad, size, Depth::Rows) {
                assert_ne!(found, hash);
            }
        }
    }
}
