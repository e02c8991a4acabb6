//! Files of late records, or of rejects, become one file. All their rows are in memory at once.
//!
//! That is bounded twice. `compaction` plans only as many files as have 4 MiB and 100,000 rows. But
//! values compress well, and it cannot know how well: 4 MiB may hold a gigabyte of them. So each
//! file says in its footer what its rows will take, and a merge ends where that is more than
//! [`MEMORY_MAX`]. With what is read and written, a merge takes about twice as much.
//!
//! Example: two files with the rows (partition 0, offset 4), (1, 7) and (0, 9), (1, 8) become one
//! file with the rows (0, 4), (0, 9), (1, 7), (1, 8).

use super::source::check_description;
use super::{MergeError, Source, footer};
use crate::table::columnar::{FileError, ROW_GROUP_ROWS, damaged, write_file};
use crate::table::columns::{Cells, Field, Timestamps};
use crate::table::file::{late_fields, rejects_fields};
use crate::table::partial_file::{Part, PartialFile, guarded};
use crate::values::digest::sha256_hex;
use crate::values::record::{Offset, Partition};
use bytes::Bytes;

/// What the rows of all sources may take in memory.
const MEMORY_MAX: u64 = 32 << 20;
/// What the cells of a row take besides the bytes of their texts.
const ROW_BYTES: u64 = 256;

/// Which of the side tables the files belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SideTable {
    /// `<table>__late`.
    Late,
    /// `<table>__rejects`.
    Rejects,
}

/// Merges whole files of a side table, in the order of their epochs, into the bytes of one file. It
/// has the sum of their rows, sorted by topic partition and offset.
///
/// An offset may be there twice, when the log was cut off and grew again, or the topic was made
/// again. Such rows keep the order of the epochs.
///
/// # Errors
/// As [`MergeError`] says.
pub fn merge_side(
    table: SideTable,
    timestamps: Timestamps,
    sources: &[(Source, Bytes)],
) -> Result<Vec<u8>, MergeError> {
    let fields = match table {
        SideTable::Late => late_fields(),
        SideTable::Rejects => rejects_fields(),
    };
    let mut columns: Vec<Cells> = fields.iter().map(|field| Cells::none(field.kind)).collect();
    let (mut order, mut memory) = (Vec::new(), 0);
    for (place, (source, bytes)) in sources.iter().enumerate() {
        let damaged = |error: FileError| MergeError::Damaged {
            place,
            key: source.key.clone(),
            why: error.why().to_owned(),
        };
        let file = guarded(|| open_source(source, bytes, &fields)).map_err(damaged)?;
        memory += file.unpacked_bytes() + source.rows * ROW_BYTES;
        if memory > MEMORY_MAX {
            return Err(MergeError::TooLarge {
                key: source.key.clone(),
                mib: memory >> 20,
            });
        }
        let rows = guarded(|| read_source(&file, &fields)).map_err(damaged)?;
        for at in positions(&rows).map_err(damaged)? {
            order.push((at, order.len()));
        }
        for (column, more) in columns.iter_mut().zip(rows) {
            column.append(more);
        }
    }
    order.sort_unstable();
    let rows: Vec<usize> = order.into_iter().map(|(_, row)| row).collect();
    let groups = rows.chunks(ROW_GROUP_ROWS).map(|rows| {
        let cells = columns.iter().map(|column| column.pick(rows));
        cells.collect()
    });
    Ok(write_file(timestamps, fields, groups, &footer()))
}

/// A file, which is checked against the journal first.
fn open_source(source: &Source, bytes: &Bytes, fields: &[Field]) -> Result<PartialFile, FileError> {
    let found = sha256_hex(bytes);
    if found != source.sha256 {
        return Err(FileError::new(format!(
            "its SHA-256 is {found}, and the journal says {}",
            source.sha256
        )));
    }
    let bytes = bytes.clone();
    let file = PartialFile::open(bytes.len() as u64, vec![Part { start: 0, bytes }])?;
    check_description(&file, source, fields)?;
    Ok(file)
}

/// The cells of all rows of a file.
fn read_source(file: &PartialFile, fields: &[Field]) -> Result<Vec<Cells>, FileError> {
    let mut columns: Vec<Cells> = fields.iter().map(|field| Cells::none(field.kind)).collect();
    for group in 0..file.groups() {
        let rows = file.cells(group, 0, file.rows_of_group(group)?)?;
        for (column, more) in columns.iter_mut().zip(rows) {
            column.append(more);
        }
    }
    Ok(columns)
}

/// The topic partition and the offset of each row. They are the second and the third column of both
/// tables.
fn positions(rows: &[Cells]) -> Result<Vec<(Partition, Offset)>, FileError> {
    let [_, Cells::Int(partitions), Cells::Long(offsets), ..] = rows else {
        unreachable!("the columns were checked");
    };
    let positions = partitions.iter().zip(offsets);
    let positions = positions.map(|(partition, offset)| partition.zip(*offset));
    let positions: Option<Vec<_>> = positions.collect();
    positions.ok_or_else(|| damaged("a row in it has no topic partition or no offset"))
}
