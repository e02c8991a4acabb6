//! A Parquet file, or a part of one, becomes columns of values. How files are written is in
//! `columnar`. A column of a type that windrow does not write is refused. There is no I/O here: the
//! bytes are in memory.

use crate::table::columnar::{DAY_MS, FileError, JULIAN_1970, decimal_physical};
use crate::table::columns::{Cells, ColumnKind, Field, field};
use crate::table::listing::Value;
use crate::values::time::EventTime;
use bytes::{Buf, Bytes};
use parquet::basic::{ConvertedType, Repetition, Type as Physical};
use parquet::column::reader::get_typed_column_reader;
use parquet::data_type::{
    ByteArrayType, DataType, DoubleType, FixedLenByteArray, FixedLenByteArrayType, Int32Type,
    Int64Type, Int96, Int96Type,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaDataReader};
use parquet::file::reader::{
    ChunkReader, FileReader, Length, RowGroupReader, SerializedFileReader,
};
use parquet::schema::types::Type;
use std::cell::Cell;
use std::fmt;
use std::ops::Range;

thread_local! {
    static READING: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is reading a file, of which a panic is caught.
#[must_use]
pub fn is_reading_a_file() -> bool {
    READING.get()
}

/// Reads with the Parquet library, which panics at some damaged files.
pub(super) fn guarded<T>(read: impl FnOnce() -> Result<T, FileError>) -> Result<T, FileError> {
    let before = READING.replace(true);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(read));
    READING.set(before);
    result.unwrap_or_else(|_| Err(damaged("it is damaged")))
}

/// Reads the columns of a file: its fields, and for each field the cells of the first `limit` rows.
///
/// # Errors
/// The file is damaged or was not written by windrow.
pub(crate) fn read_file(bytes: &[u8], limit: usize) -> Result<(Vec<Field>, Vec<Cells>), FileError> {
    let size = bytes.len() as u64;
    let bytes = Bytes::copy_from_slice(bytes);
    let file = PartialFile::open(size, vec![Part { start: 0, bytes }])?;
    let mut columns: Vec<Cells> = file.fields.iter().map(|f| Cells::none(f.kind)).collect();
    for group in 0..file.groups() {
        let left = limit - columns.first().map_or(0, Cells::len);
        if left == 0 {
            break;
        }
        let rows = file.rows_of_group(group)?.min(left);
        for (cells, more) in columns.iter_mut().zip(file.cells(group, 0, rows)?) {
            cells.append(more);
        }
    }
    Ok((file.fields, columns))
}

/// Some bytes of a file, and where they begin.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) start: u64,
    pub(crate) bytes: Bytes,
}

/// How many bytes of the file's end are needed to know what is in the file; `None` when `end` is
/// enough.
///
/// # Errors
/// It is not a Parquet file.
pub(crate) fn needed_footer_bytes(end: &Bytes, size: u64) -> Result<Option<u64>, FileError> {
    match ParquetMetaDataReader::new().try_parse_sized(end, size) {
        Ok(()) => Ok(None),
        Err(ParquetError::NeedMoreData(needed)) if needed as u64 <= size && needed > end.len() => {
            Ok(Some(needed as u64))
        }
        Err(error) => Err(damaged(error)),
    }
}

/// A file of which some parts are in memory: its end at least.
pub(crate) struct PartialFile {
    size: u64,
    reader: SerializedFileReader<Parts>,
    fields: Vec<Field>,
}

/// The parts of a file as the Parquet crate reads them.
struct Parts {
    size: u64,
    parts: Vec<Part>,
}

impl Parts {
    /// What is there from this offset on.
    fn from(&self, start: u64) -> Result<Bytes, ParquetError> {
        let at = |part: &Part| {
            let skip = usize::try_from(start.checked_sub(part.start)?).ok()?;
            (skip <= part.bytes.len()).then(|| part.bytes.slice(skip..))
        };
        let found = self.parts.iter().filter_map(at).max_by_key(Bytes::len);
        found.ok_or_else(|| ParquetError::General(format!("byte {start} was not fetched")))
    }
}

impl Length for Parts {
    fn len(&self) -> u64 {
        self.size
    }
}

impl ChunkReader for Parts {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Ok(self.from(start)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let bytes = self.from(start)?;
        if bytes.len() < length {
            let why = format!("{length} bytes from byte {start} on were not fetched");
            return Err(ParquetError::General(why));
        }
        Ok(bytes.slice(..length))
    }
}

impl PartialFile {
    pub(crate) fn open(size: u64, parts: Vec<Part>) -> Result<Self, FileError> {
        let reader = SerializedFileReader::new(Parts { size, parts }).map_err(damaged)?;
        let root = reader.metadata().file_metadata().schema_descr();
        let types = root.root_schema().get_fields();
        let fields = types
            .iter()
            .map(|t| read_field(t))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            size,
            reader,
            fields,
        })
    }

    pub(crate) fn column_names(&self) -> Vec<String> {
        self.fields.iter().map(|field| field.name.clone()).collect()
    }

    /// How many row groups it has.
    pub(crate) fn groups(&self) -> usize {
        self.reader.metadata().num_row_groups()
    }

    pub(crate) fn rows_of_group(&self, group: usize) -> Result<usize, FileError> {
        usize::try_from(self.reader.metadata().row_group(group).num_rows()).map_err(damaged)
    }

    /// Where a row group lies in the file.
    pub(crate) fn bytes_of_group(&self, group: usize) -> Result<Range<u64>, FileError> {
        let columns = self.reader.metadata().row_group(group).columns();
        // The crate's own `byte_range` panics where these are negative.
        let range = |column: &ColumnChunkMetaData| {
            let start = column
                .dictionary_page_offset()
                .unwrap_or_else(|| column.data_page_offset());
            let start = u64::try_from(start).ok()?;
            let length = u64::try_from(column.compressed_size()).ok()?;
            Some(start..start.checked_add(length)?)
        };
        let ranges: Option<Vec<_>> = columns.iter().map(range).collect();
        let ranges = ranges.unwrap_or_default();
        let start = ranges.iter().map(|range| range.start).min().unwrap_or(0);
        let end = ranges.iter().map(|range| range.end).max().unwrap_or(0);
        if start < end && end <= self.size {
            return Ok(start..end);
        }
        Err(FileError::new(format!(
            "row group {group} lies outside of it"
        )))
    }

    /// `take` rows of a row group, after the first `skip` ones.
    pub(crate) fn rows(
        &self,
        group: usize,
        skip: usize,
        take: usize,
    ) -> Result<Vec<Vec<Value>>, FileError> {
        let columns = self.cells(group, skip, take)?;
        let row = |i| {
            let cells = self.fields.iter().zip(&columns);
            cells
                .map(|(field, cells)| cells.value(i, field.kind))
                .collect()
        };
        Ok((0..take).map(row).collect())
    }

    fn cells(&self, group: usize, skip: usize, take: usize) -> Result<Vec<Cells>, FileError> {
        let group = self.reader.get_row_group(group).map_err(damaged)?;
        let mut leaves = Leaves {
            group: group.as_ref(),
            next: 0,
            skip,
            take,
        };
        let mut columns = Vec::with_capacity(self.fields.len());
        for field in &self.fields {
            let cells = read_cells(&mut leaves, field.kind)?;
            if cells.len() != take {
                return Err(FileError::new(format!(
                    "column \"{}\" has {} of {take} rows",
                    field.name,
                    cells.len()
                )));
            }
            columns.push(cells);
        }
        Ok(columns)
    }
}

/// The leaf columns of a row group, one after the other, and which of its rows are read.
struct Leaves<'a> {
    group: &'a dyn RowGroupReader,
    next: usize,
    skip: usize,
    take: usize,
}

/// The error of a file whose bytes cannot be understood.
pub(crate) fn damaged(error: impl fmt::Display) -> FileError {
    FileError::new(error.to_string())
}

/// The column that a type in a file's schema describes.
fn read_field(found: &Type) -> Result<Field, FileError> {
    let unknown = || {
        FileError::new(format!(
            "column \"{}\" has a type that windrow does not write",
            found.name()
        ))
    };
    if found.is_group() {
        let leaves = found
            .get_fields()
            .iter()
            .map(|t| read_field(t))
            .collect::<Result<Vec<_>, _>>()?;
        let window = leaves
            == [
                field("start", ColumnKind::Time),
                field("end", ColumnKind::Time),
            ];
        return if window {
            Ok(field(found.name(), ColumnKind::Window))
        } else {
            Err(unknown())
        };
    }
    let info = found.get_basic_info();
    if info.repetition() == Repetition::REPEATED {
        return Err(unknown());
    }
    let kind = match (found.get_physical_type(), info.converted_type()) {
        (Physical::INT96, _) | (Physical::INT64, ConvertedType::TIMESTAMP_MICROS) => {
            ColumnKind::Time
        }
        (
            Physical::INT32 | Physical::INT64 | Physical::FIXED_LEN_BYTE_ARRAY,
            ConvertedType::DECIMAL,
        ) => {
            let precision = u8::try_from(found.get_precision()).map_err(|_| unknown())?;
            let scale = u8::try_from(found.get_scale()).map_err(|_| unknown())?;
            if precision > 38
                || scale > precision
                || decimal_physical(precision) != found.get_physical_type()
            {
                return Err(unknown());
            }
            ColumnKind::Decimal { precision, scale }
        }
        (Physical::INT32, ConvertedType::NONE) => ColumnKind::Int,
        (Physical::INT64, ConvertedType::NONE) => ColumnKind::Long,
        (Physical::DOUBLE, _) => ColumnKind::Double,
        (Physical::BYTE_ARRAY, ConvertedType::UTF8) => ColumnKind::Text,
        _ => return Err(unknown()),
    };
    Ok(field(found.name(), kind))
}

/// The cells of one column in a row group. Its leaf columns are the next ones.
fn read_cells(leaves: &mut Leaves<'_>, kind: ColumnKind) -> Result<Cells, FileError> {
    Ok(match kind {
        ColumnKind::Window => {
            let starts = read_times(leaves)?;
            let ends = read_times(leaves)?;
            Cells::Window(
                starts
                    .into_iter()
                    .zip(ends)
                    .map(|(start, end)| start.zip(end))
                    .collect(),
            )
        }
        ColumnKind::Time => Cells::Time(read_times(leaves)?),
        ColumnKind::Text => Cells::Text(read_leaf::<ByteArrayType>(leaves)?),
        ColumnKind::Int => Cells::Int(read_leaf::<Int32Type>(leaves)?),
        ColumnKind::Long => Cells::Long(read_leaf::<Int64Type>(leaves)?),
        ColumnKind::Double => Cells::Double(read_leaf::<DoubleType>(leaves)?),
        ColumnKind::Decimal { precision, .. } => {
            Cells::Decimal(match decimal_physical(precision) {
                Physical::INT32 => widen(read_leaf::<Int32Type>(leaves)?),
                Physical::INT64 => widen(read_leaf::<Int64Type>(leaves)?),
                _ => {
                    let units = |bytes: FixedLenByteArray| {
                        <[u8; 16]>::try_from(bytes.data())
                            .map(i128::from_be_bytes)
                            .map_err(damaged)
                    };
                    let found = read_leaf::<FixedLenByteArrayType>(leaves)?;
                    found
                        .into_iter()
                        .map(|n| n.map(units).transpose())
                        .collect::<Result<_, _>>()?
                }
            })
        }
    })
}

/// Narrow integers as i128.
fn widen<T: Into<i128>>(narrow: Vec<Option<T>>) -> Vec<Option<i128>> {
    narrow.into_iter().map(|n| n.map(Into::into)).collect()
}

/// The times of the next leaf column.
fn read_times(leaves: &mut Leaves<'_>) -> Result<Vec<Option<EventTime>>, FileError> {
    let int96 = leaves.group.metadata().column(leaves.next).column_type() == Physical::INT96;
    if !int96 {
        let micros = read_leaf::<Int64Type>(leaves)?;
        return Ok(micros
            .into_iter()
            .map(|t| t.map(|us| EventTime(us.div_euclid(1000))))
            .collect());
    }
    let times = read_leaf::<Int96Type>(leaves)?;
    let time = |value: Int96| {
        let [low, high, day] = [value.data()[0], value.data()[1], value.data()[2]].map(i64::from);
        let day = i64::from((day as u32).cast_signed()) - JULIAN_1970;
        EventTime(
            day.wrapping_mul(DAY_MS)
                .wrapping_add(((high << 32) | low) / 1_000_000),
        )
    };
    Ok(times.into_iter().map(|t| t.map(time)).collect())
}

/// The cells of the next leaf column.
fn read_leaf<T: DataType>(leaves: &mut Leaves<'_>) -> Result<Vec<Option<T::T>>, FileError> {
    let (group, leaf) = (leaves.group, leaves.next);
    leaves.next += 1;
    let depth = group.metadata().column(leaf).column_descr().max_def_level();
    let mut reader = get_typed_column_reader::<T>(group.get_column_reader(leaf).map_err(damaged)?);
    if leaves.skip > 0 {
        reader.skip_records(leaves.skip).map_err(damaged)?;
    }
    let (mut levels, mut values) = (Vec::new(), Vec::new());
    let mut read = 0;
    while read < leaves.take {
        let (more, _, _) = reader
            .read_records(leaves.take - read, Some(&mut levels), None, &mut values)
            .map_err(damaged)?;
        if more == 0 {
            break;
        }
        read += more;
    }
    let mut values = values.into_iter();
    if depth == 0 {
        return Ok(values.map(Some).collect());
    }
    Ok(levels
        .into_iter()
        .map(|level| if level == depth { values.next() } else { None })
        .collect())
}
