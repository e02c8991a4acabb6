//! A Parquet file, or a part of one, becomes columns of values. How files are written is in
//! `columnar`. A column of a type that windrow does not write is refused. There is no I/O here: the
//! bytes are in memory.

use crate::table::columnar::{
    DAY_MS, DecimalForm, FileError, JULIAN_1970, ROW_GROUP_ROWS, damaged,
};
use crate::table::columns::{Cells, ColumnKind, Field, field};
use crate::table::file_check::{check_footer, check_pages};
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
use parquet::file::metadata::{ColumnChunkMetaData, FooterTail};
use parquet::file::reader::{
    ChunkReader, FileReader, Length, RowGroupReader, SerializedFileReader,
};
use parquet::schema::types::Type;
use std::cell::Cell;
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

impl Part {
    /// The bytes of this range, which were asked for.
    ///
    /// # Errors
    /// There are fewer or more bytes than were asked for.
    pub(crate) fn of(range: &Range<u64>, bytes: Bytes) -> Result<Self, FileError> {
        let asked = range.end - range.start;
        if asked != bytes.len() as u64 {
            return Err(FileError::new(format!(
                "{} bytes were read where {asked} should be",
                bytes.len()
            )));
        }
        Ok(Self {
            start: range.start,
            bytes,
        })
    }
}

/// How many bytes of the file's end are needed to know what is in the file; `None` when `end` is
/// enough.
///
/// # Errors
/// It is not a Parquet file.
pub(crate) fn needed_footer_bytes(end: &Bytes, size: u64) -> Result<Option<u64>, FileError> {
    let Some(tail) = end.last_chunk::<TAIL_BYTES>() else {
        return Err(damaged("it is too short"));
    };
    let tail = FooterTail::try_new(tail).map_err(damaged)?;
    let needed = tail.metadata_length() as u64 + TAIL_BYTES as u64;
    if needed > size {
        return Err(damaged("its description is longer than the file"));
    }
    Ok((needed > end.len() as u64).then_some(needed))
}

/// The last bytes of a file: the length of its description, and `PAR1`.
const TAIL_BYTES: usize = 8;

/// A file of which some parts are in memory: its end at least.
pub(crate) struct PartialFile {
    parts: Parts,
    reader: SerializedFileReader<Parts>,
    fields: Vec<Field>,
}

/// The parts of a file as the Parquet crate reads them.
#[derive(Clone)]
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

    /// The description of the file.
    fn footer(&self) -> Result<Bytes, FileError> {
        let from = |start: u64| self.from(start).map_err(damaged);
        let tail = from(self.size.saturating_sub(TAIL_BYTES as u64))?;
        let needed = needed_footer_bytes(&tail, self.size)?.unwrap_or(TAIL_BYTES as u64);
        let end = from(self.size - needed)?;
        Ok(end.slice(..end.len() - TAIL_BYTES))
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
        let parts = Parts { size, parts };
        check_footer(&parts.footer()?)?;
        let reader = SerializedFileReader::new(parts.clone()).map_err(damaged)?;
        let root = reader.metadata().file_metadata().schema_descr();
        let types = root.root_schema().get_fields();
        let fields = types
            .iter()
            .map(|t| read_field(t))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            parts,
            reader,
            fields,
        })
    }

    /// The columns, in the order of the file.
    pub(crate) fn fields(&self) -> &[Field] {
        &self.fields
    }

    pub(crate) fn column_names(&self) -> Vec<String> {
        self.fields.iter().map(|field| field.name.clone()).collect()
    }

    /// How many row groups it has.
    pub(crate) fn groups(&self) -> usize {
        self.reader.metadata().num_row_groups()
    }

    pub(crate) fn rows_of_group(&self, group: usize) -> Result<usize, FileError> {
        let rows = self.reader.metadata().row_group(group).num_rows();
        let rows = usize::try_from(rows)
            .ok()
            .filter(|rows| *rows <= ROW_GROUP_ROWS);
        rows.ok_or_else(|| {
            damaged(format!(
                "row group {group} has more rows than windrow writes"
            ))
        })
    }

    /// Where a row group lies in the file.
    pub(crate) fn bytes_of_group(&self, group: usize) -> Result<Range<u64>, FileError> {
        let columns = self.reader.metadata().row_group(group).columns();
        let ranges: Option<Vec<_>> = columns.iter().map(bytes_of_column).collect();
        let ranges = ranges.unwrap_or_default();
        let start = ranges.iter().map(|range| range.start).min().unwrap_or(0);
        let end = ranges.iter().map(|range| range.end).max().unwrap_or(0);
        if start < end && end <= self.parts.size {
            return Ok(start..end);
        }
        Err(FileError::new(format!(
            "row group {group} lies outside of it"
        )))
    }

    /// What the columns of all row groups have in bytes when they are not compressed, as the file
    /// says it.
    pub(crate) fn unpacked_bytes(&self) -> u64 {
        let groups = self.reader.metadata().row_groups().iter();
        let columns = groups.flat_map(|group| group.columns());
        let bytes = columns.map(|column| u64::try_from(column.uncompressed_size()).unwrap_or(0));
        bytes.fold(0, u64::saturating_add)
    }

    /// Checks the pages of a row group, before the Parquet library reads them.
    fn check_group(&self, group: usize) -> Result<(), FileError> {
        for column in self.reader.metadata().row_group(group).columns() {
            let range = bytes_of_column(column).ok_or_else(|| damaged("a column has no place"))?;
            let length = usize::try_from(range.end - range.start).map_err(damaged)?;
            let chunk = self.parts.get_bytes(range.start, length).map_err(damaged)?;
            check_pages(&chunk)?;
        }
        Ok(())
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

    /// As [`PartialFile::rows`], by columns: the cells of each field.
    pub(crate) fn cells(
        &self,
        group: usize,
        skip: usize,
        take: usize,
    ) -> Result<Vec<Cells>, FileError> {
        self.check_group(group)?;
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

/// Where the pages of a column lie in the file. The crate's own `byte_range` panics where a number
/// is negative.
fn bytes_of_column(column: &ColumnChunkMetaData) -> Option<Range<u64>> {
    let start = column
        .dictionary_page_offset()
        .unwrap_or_else(|| column.data_page_offset());
    let start = u64::try_from(start).ok()?;
    let length = u64::try_from(column.compressed_size()).ok()?;
    Some(start..start.checked_add(length)?)
}

/// The leaf columns of a row group, one after the other, and which of its rows are read.
struct Leaves<'a> {
    group: &'a dyn RowGroupReader,
    next: usize,
    skip: usize,
    take: usize,
}

impl Leaves<'_> {
    /// How the values of the next leaf column are stored.
    fn next_type(&self) -> Physical {
        self.group.metadata().column(self.next).column_type()
    }
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
                || !DecimalForm::is_written(precision, found.get_physical_type(), length_of(found))
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

/// How many bytes a value of this type has, where the type states that; otherwise 0 or less.
fn length_of(found: &Type) -> i32 {
    match found {
        Type::PrimitiveType { type_length, .. } => *type_length,
        Type::GroupType { .. } => 0,
    }
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
        ColumnKind::Decimal { .. } => Cells::Decimal(match leaves.next_type() {
            Physical::INT32 => widen(read_leaf::<Int32Type>(leaves)?),
            Physical::INT64 => widen(read_leaf::<Int64Type>(leaves)?),
            _ => {
                let found = read_leaf::<FixedLenByteArrayType>(leaves)?;
                let units = |bytes: Option<FixedLenByteArray>| {
                    bytes.map(|bytes| decimal_units(bytes.data())).transpose()
                };
                found.into_iter().map(units).collect::<Result<_, _>>()?
            }
        }),
    })
}

/// A number from its bytes in two's complement, the most significant one first.
fn decimal_units(bytes: &[u8]) -> Result<i128, FileError> {
    let is_negative = bytes.first().is_some_and(|byte| byte & 0x80 != 0);
    let mut all = [if is_negative { 0xff } else { 0 }; 16];
    let skip = all.len().checked_sub(bytes.len());
    let skip = skip.ok_or_else(|| damaged("a decimal in it has more than 16 bytes"))?;
    all[skip..].copy_from_slice(bytes);
    Ok(i128::from_be_bytes(all))
}

/// Narrow integers as i128.
fn widen<T: Into<i128>>(narrow: Vec<Option<T>>) -> Vec<Option<i128>> {
    narrow.into_iter().map(|n| n.map(Into::into)).collect()
}

/// The times of the next leaf column.
fn read_times(leaves: &mut Leaves<'_>) -> Result<Vec<Option<EventTime>>, FileError> {
    if leaves.next_type() != Physical::INT96 {
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
