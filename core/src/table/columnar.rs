//! Columns of values become the bytes of a Parquet file. How they come back is in `partial_file`.
//! Nothing here knows what a window or a key is for.
//!
//! The same columns and metadata give the same bytes: the settings of the writer are fixed, and
//! there is neither a clock nor chance.

use crate::table::columns::{Cells, ColumnKind, Field, Timestamps, field};
use crate::values::time::EventTime;
use parquet::basic::{Compression, LogicalType, Repetition, TimeUnit, Type as Physical, ZstdLevel};
use parquet::data_type::{
    ByteArrayType, DataType, DoubleType, FixedLenByteArray, FixedLenByteArrayType, Int32Type,
    Int64Type, Int96, Int96Type,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::{ColumnPath, Type};
use std::fmt;
use std::sync::Arc;

/// The revision of the format. It is raised when the same rows would give other bytes, because of
/// other settings here or another version of the crates that encode and compress. Two files of one
/// revision can be compared by their bytes, others only by their rows.
pub const FORMAT_REV: u32 = 1;
/// How many rows a row group has at most. The writer holds one row group in memory, besides the
/// rows that it was given.
pub const ROW_GROUP_ROWS: usize = 65_536;
/// Who wrote the file. `name version x (build y)` is the only form that parquet-mr parses without a
/// warning; y is [`FORMAT_REV`].
const CREATED_BY: &str = "windrow version 1 (build 1)";
/// Metadata that tells Spark that dates are in the proleptic Gregorian calendar. Without it, Spark
/// 3 refuses a file with a time before 1900 (`SparkUpgradeException`). Then one record with a zero
/// time would make every query of the table fail.
const SPARK_CALENDAR: (&str, &str) = ("org.apache.spark.version", "3.4.2");

/// A Parquet file cannot be read, or is not one that windrow writes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "cannot read Parquet file: {0}; it is damaged or was not written by windrow: \
     write the table again from Kafka"
)]
pub struct FileError(String);

impl FileError {
    pub(crate) fn new(why: String) -> Self {
        Self(why)
    }

    /// What is wrong with the file, for a message that names the file itself.
    #[must_use]
    pub fn why(&self) -> &str {
        &self.0
    }
}

/// The error of a file whose bytes cannot be understood.
pub(crate) fn damaged(error: impl fmt::Display) -> FileError {
    FileError::new(error.to_string())
}

/// The column as Parquet describes it.
fn parquet_type(column: &Field, timestamps: Timestamps) -> Result<Type, ParquetError> {
    if column.kind == ColumnKind::Window {
        let leaf = |name| parquet_type(&field(name, ColumnKind::Time), timestamps).map(Arc::new);
        return Type::group_type_builder(&column.name)
            .with_repetition(Repetition::OPTIONAL)
            .with_fields(vec![leaf("start")?, leaf("end")?])
            .build();
    }
    let (physical, logical, length) = match column.kind {
        ColumnKind::Window => unreachable!("a group, made above"),
        ColumnKind::Time => match timestamps {
            Timestamps::Micros => (
                Physical::INT64,
                Some(LogicalType::timestamp(true, TimeUnit::MICROS)),
                0,
            ),
            Timestamps::Int96 => (Physical::INT96, None, 0),
        },
        ColumnKind::Text => (Physical::BYTE_ARRAY, Some(LogicalType::String), 0),
        ColumnKind::Int => (Physical::INT32, None, 0),
        ColumnKind::Long => (Physical::INT64, None, 0),
        ColumnKind::Double => (Physical::DOUBLE, None, 0),
        ColumnKind::Decimal { precision, scale } => {
            let logical = LogicalType::decimal(i32::from(scale), i32::from(precision));
            let stored = DecimalForm::of(precision, timestamps);
            (stored.physical(), Some(logical), stored.length())
        }
    };
    let (precision, scale) = match column.kind {
        ColumnKind::Decimal { precision, scale } => (i32::from(precision), i32::from(scale)),
        _ => (-1, -1),
    };
    Type::primitive_type_builder(&column.name, physical)
        .with_repetition(Repetition::OPTIONAL)
        .with_logical_type(logical)
        .with_length(length)
        .with_precision(precision)
        .with_scale(scale)
        .build()
}

/// How the values of a decimal column are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DecimalForm {
    Int32,
    Int64,
    /// So many bytes, the most significant one first, in two's complement.
    Fixed(usize),
}

impl DecimalForm {
    /// As Spark writes it. For Hive 2.3 that is the form of `spark.sql.parquet.writeLegacyFormat`,
    /// because Hive's own reader fails at a decimal that is an integer
    /// (`UnsupportedOperationException` in `ETypeConverter`).
    ///
    /// | precision | micros | int96 |
    /// |---|---|---|
    /// | 9 | INT32 | 4 bytes |
    /// | 18 | INT64 | 8 bytes |
    /// | 38 | 16 bytes | 16 bytes |
    pub(super) fn of(precision: u8, timestamps: Timestamps) -> Self {
        match (timestamps, precision) {
            (Timestamps::Int96, _) => Self::Fixed(decimal_bytes(precision)),
            (Timestamps::Micros, 0..=9) => Self::Int32,
            (Timestamps::Micros, 10..=18) => Self::Int64,
            (Timestamps::Micros, _) => Self::Fixed(DECIMAL_BYTES_MAX),
        }
    }

    fn physical(self) -> Physical {
        match self {
            Self::Int32 => Physical::INT32,
            Self::Int64 => Physical::INT64,
            Self::Fixed(_) => Physical::FIXED_LEN_BYTE_ARRAY,
        }
    }

    /// What the schema says of the length, which is 0 where the type is an integer.
    fn length(self) -> i32 {
        match self {
            Self::Int32 | Self::Int64 => 0,
            Self::Fixed(bytes) => i32::try_from(bytes).expect("at most 16"),
        }
    }

    /// Whether windrow writes decimals of this precision as values of this type and length. The
    /// length does not count where the type is an integer.
    pub(super) fn is_written(precision: u8, physical: Physical, length: i32) -> bool {
        let forms = [Timestamps::Micros, Timestamps::Int96].map(|t| Self::of(precision, t));
        forms.into_iter().any(|form| {
            let has_length = physical == Physical::FIXED_LEN_BYTE_ARRAY;
            form.physical() == physical && (!has_length || form.length() == length)
        })
    }
}

/// The bytes of an `i128`, and of a decimal of 38 digits.
const DECIMAL_BYTES_MAX: usize = 16;

/// In how many bytes every number of so many digits fits, with its sign: four for nine digits.
fn decimal_bytes(precision: u8) -> usize {
    let power = 10_u128.pow(precision.into());
    let fits = |bytes: &usize| 1_u128 << (8 * bytes - 1) >= power;
    let bytes = (1..DECIMAL_BYTES_MAX).find(fits);
    bytes.unwrap_or(DECIMAL_BYTES_MAX)
}

/// Makes a file of row groups. Each group has the cells of each field, in the order of `fields`, at
/// most [`ROW_GROUP_ROWS`] of them. `meta` becomes the key-values of the footer, sorted by key.
pub(crate) fn write_file(
    timestamps: Timestamps,
    fields: Vec<Field>,
    groups: impl Iterator<Item = Vec<Cells>>,
    meta: &[(String, String)],
) -> Vec<u8> {
    let mut file = FileWriter::new(timestamps, fields);
    for cells in groups {
        file.write_group(&cells);
    }
    file.finish(meta)
}

/// A file that is being made in memory, one row group after the other.
///
/// It writes into memory, and the values were checked before. So only a mistake in this source file
/// could make it fail, and then it panics.
pub(crate) struct FileWriter {
    timestamps: Timestamps,
    fields: Vec<Field>,
    writer: SerializedFileWriter<Vec<u8>>,
}

const ENCODES: &str = "rows of a known schema encode";

impl FileWriter {
    pub(crate) fn new(timestamps: Timestamps, fields: Vec<Field>) -> Self {
        let writer = begin(timestamps, &fields).expect(ENCODES);
        Self {
            timestamps,
            fields,
            writer,
        }
    }

    /// Writes the cells of each field, at most [`ROW_GROUP_ROWS`] of them.
    pub(crate) fn write_group(&mut self, cells: &[Cells]) {
        let mut group = self.writer.next_row_group().expect(ENCODES);
        for (field, cells) in self.fields.iter().zip(cells) {
            write_cells(&mut group, self.timestamps, field.kind, cells).expect(ENCODES);
        }
        group.close().expect(ENCODES);
    }

    /// How many bytes of the file are there and were not taken. Some KiB more may still be in the
    /// library's own buffer.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.writer.inner().len()
    }

    /// Takes the bytes that are there, so that a file need not be in memory as a whole. What
    /// [`FileWriter::finish`] returns then follows after the bytes that were taken. The footer is
    /// the same: the library itself counts how far it has written.
    pub(crate) fn take_bytes(&mut self) -> Vec<u8> {
        std::mem::take(self.writer.inner_mut())
    }

    /// The bytes of the file, except those that were taken. `meta` becomes the key-values of the
    /// footer, sorted by key.
    pub(crate) fn finish(mut self, meta: &[(String, String)]) -> Vec<u8> {
        let (calendar, version) = SPARK_CALENDAR;
        let mut meta: Vec<(&str, &str)> =
            meta.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        meta.push((calendar, version));
        meta.sort_unstable();
        for (k, v) in meta {
            let pair = KeyValue::new(k.to_owned(), v.to_owned());
            self.writer.append_key_value_metadata(pair);
        }
        self.writer.into_inner().expect(ENCODES)
    }
}

fn begin(
    timestamps: Timestamps,
    fields: &[Field],
) -> Result<SerializedFileWriter<Vec<u8>>, ParquetError> {
    let types = fields
        .iter()
        .map(|field| parquet_type(field, timestamps).map(Arc::new))
        .collect::<Result<_, _>>()?;
    // The name that Spark itself gives it.
    let schema = Type::group_type_builder("spark_schema")
        .with_fields(types)
        .build()?;
    let properties = Arc::new(properties(timestamps, fields)?);
    SerializedFileWriter::new(Vec::new(), Arc::new(schema), properties)
}

/// INT96 is for the Parquet library of Hive 2.3, which does not know zstd.
fn compression(timestamps: Timestamps) -> Result<Compression, ParquetError> {
    Ok(match timestamps {
        Timestamps::Micros => Compression::ZSTD(ZstdLevel::try_new(1)?),
        Timestamps::Int96 => Compression::SNAPPY,
    })
}

/// The settings of the writer. Each one that shapes the bytes is set here, even where it is the
/// crate's default today.
fn properties(timestamps: Timestamps, fields: &[Field]) -> Result<WriterProperties, ParquetError> {
    let mut builder = WriterProperties::builder()
        .set_created_by(CREATED_BY.to_owned())
        // The pages and encodings that the Parquet reader of Hive 2.3 knows.
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_compression(compression(timestamps)?)
        .set_dictionary_enabled(true)
        .set_dictionary_page_size_limit(1 << 20)
        .set_data_page_size_limit(1 << 20)
        .set_data_page_row_count_limit(20_000)
        .set_write_batch_size(1024)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_statistics_truncate_length(Some(64))
        .set_offset_index_disabled(true);
    for field in fields {
        let path = |parts: &[&str]| ColumnPath::new(parts.iter().map(|&p| p.to_owned()).collect());
        match (field.kind, timestamps, field.name.as_str()) {
            // Readers do not agree on the order of INT96, so there are no statistics.
            (ColumnKind::Window, Timestamps::Int96, name) => {
                for leaf in ["start", "end"] {
                    builder = builder.set_column_statistics_enabled(
                        path(&[name, leaf]),
                        EnabledStatistics::None,
                    );
                }
            }
            (ColumnKind::Time, Timestamps::Int96, name) => {
                builder =
                    builder.set_column_statistics_enabled(path(&[name]), EnabledStatistics::None);
            }
            // In these columns a value rarely occurs twice, so a dictionary would only cost space.
            (ColumnKind::Long, _, "offset") => {
                builder = builder.set_column_dictionary_enabled(path(&["offset"]), false)
            }
            (ColumnKind::Text, _, "value") => {
                builder = builder
                    .set_column_dictionary_enabled(path(&["value"]), false)
                    .set_column_statistics_enabled(path(&["value"]), EnabledStatistics::None);
            }
            _ => {}
        }
    }
    Ok(builder.build())
}

/// The row group that is being written.
type Group<'a> = SerializedRowGroupWriter<'a, Vec<u8>>;

/// Writes one column of the row group.
///
/// # Panics
/// When a decimal has more digits than its column.
fn write_cells(
    group: &mut Group<'_>,
    timestamps: Timestamps,
    kind: ColumnKind,
    cells: &Cells,
) -> Result<(), ParquetError> {
    match (cells, kind) {
        (Cells::Window(v), _) => {
            write_times(
                group,
                timestamps,
                2,
                v.iter().map(|w| w.map(|(start, _)| start)),
            )?;
            write_times(
                group,
                timestamps,
                2,
                v.iter().map(|w| w.map(|(_, end)| end)),
            )
        }
        (Cells::Time(v), _) => write_times(group, timestamps, 1, v.iter().copied()),
        (Cells::Text(v), _) => write_leaf::<ByteArrayType>(group, 1, v.iter().cloned()),
        (Cells::Int(v), _) => write_leaf::<Int32Type>(group, 1, v.iter().copied()),
        (Cells::Long(v), _) => write_leaf::<Int64Type>(group, 1, v.iter().copied()),
        (Cells::Double(v), _) => write_leaf::<DoubleType>(group, 1, v.iter().copied()),
        (Cells::Decimal(v), ColumnKind::Decimal { precision, .. }) => {
            let power = 10_u128.pow(precision.into());
            let fits = v.iter().flatten().all(|units| units.unsigned_abs() < power);
            assert!(
                fits,
                "a value has no more digits than its decimal({precision}) column"
            );
            match DecimalForm::of(precision, timestamps) {
                DecimalForm::Int32 => {
                    let narrow = |n: i128| i32::try_from(n).expect("nine digits");
                    write_leaf::<Int32Type>(group, 1, v.iter().map(|n| n.map(narrow)))
                }
                DecimalForm::Int64 => {
                    let narrow = |n: i128| i64::try_from(n).expect("eighteen digits");
                    write_leaf::<Int64Type>(group, 1, v.iter().map(|n| n.map(narrow)))
                }
                DecimalForm::Fixed(length) => {
                    // The bytes before these only repeat the sign.
                    let skip = DECIMAL_BYTES_MAX - length;
                    let bytes = |n: i128| {
                        let all = n.to_be_bytes();
                        FixedLenByteArray::from(all[skip..].to_vec())
                    };
                    write_leaf::<FixedLenByteArrayType>(group, 1, v.iter().map(|n| n.map(bytes)))
                }
            }
        }
        (Cells::Decimal(_), _) => unreachable!("cells are of their field's kind"),
    }
}

/// Writes a leaf column of times; `depth` is as for [`write_leaf`].
fn write_times(
    group: &mut Group<'_>,
    timestamps: Timestamps,
    depth: i16,
    times: impl Iterator<Item = Option<EventTime>>,
) -> Result<(), ParquetError> {
    match timestamps {
        Timestamps::Micros => write_leaf::<Int64Type>(group, depth, times.map(|t| t.map(micros))),
        Timestamps::Int96 => write_leaf::<Int96Type>(group, depth, times.map(|t| t.map(int96))),
    }
}

/// A time in microseconds since 1970.
fn micros(time: EventTime) -> i64 {
    time.0
        .checked_mul(1000)
        .expect("a window lies within 292 000 years of 1970")
}

/// A time as INT96: the nanoseconds of the day, then the Julian day (1970-01-01 is 2,440,588).
fn int96(time: EventTime) -> Int96 {
    let nanos = u64::try_from(time.0.rem_euclid(DAY_MS) * 1_000_000).expect("not negative");
    let day = i32::try_from(time.0.div_euclid(DAY_MS) + JULIAN_1970)
        .expect("a window lies within 292 000 years of 1970");
    let mut value = Int96::new();
    value.set_data(
        (nanos & 0xffff_ffff) as u32,
        (nanos >> 32) as u32,
        day.cast_unsigned(),
    );
    value
}

/// A day in ms.
pub(super) const DAY_MS: i64 = 86_400_000;

/// The Julian day of 1970-01-01.
pub(super) const JULIAN_1970: i64 = 2_440_588;

/// Writes a leaf column. `depth` is the definition level of a value: 1 in a column of its own, 2 in
/// a window. The level of null is 0.
fn write_leaf<T: DataType>(
    group: &mut Group<'_>,
    depth: i16,
    cells: impl Iterator<Item = Option<T::T>>,
) -> Result<(), ParquetError> {
    let mut levels = Vec::with_capacity(cells.size_hint().0);
    let mut values = Vec::with_capacity(cells.size_hint().0);
    for cell in cells {
        levels.push(if cell.is_some() { depth } else { 0 });
        values.extend(cell);
    }
    let mut column = group
        .next_column()?
        .expect("as many columns as the schema has leaves");
    column
        .typed::<T>()
        .write_batch(&values, Some(&levels), None)?;
    column.close()
}
