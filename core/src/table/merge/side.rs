//! Files of late records, or of rejects, become one file. They are small, so all their rows are in
//! memory at once; the caller bounds them.
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
    let mut order = Vec::new();
    for (place, (source, bytes)) in sources.iter().enumerate() {
        let rows = guarded(|| read_source(source, bytes, &fields));
        let damaged = |error: FileError| MergeError::Damaged {
            place,
            key: source.key.clone(),
            why: error.why().to_owned(),
        };
        let rows = rows.map_err(damaged)?;
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

/// The cells of all rows of a file, which is checked against the journal first.
fn read_source(source: &Source, bytes: &Bytes, fields: &[Field]) -> Result<Vec<Cells>, FileError> {
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
