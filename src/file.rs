//! Rows as Parquet bytes and back, and the columns of the four tables as Hive, Spark and Parquet name them.
//! The same rows and metadata give the same bytes: no clock, no dice, fixed writer settings; it stores nothing.

use crate::record::{Offset, key_columns};
use crate::row::{Acc, LateRecord, RejectRecord, Row};
use crate::shape::{Aggregate, Column, Function, Number, Shape};
use crate::time::EventTime;
use bytes::Bytes;
use parquet::basic::{
    Compression, ConvertedType, LogicalType, Repetition, TimeUnit, Type as Physical, ZstdLevel,
};
use parquet::column::reader::get_typed_column_reader;
use parquet::data_type::{
    ByteArray, ByteArrayType, DataType, DoubleType, FixedLenByteArray, FixedLenByteArrayType, Int32Type,
    Int64Type, Int96, Int96Type,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::{ColumnPath, Type};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// Raised when the same rows would give other bytes: other settings here, or another version of the crates that
/// encode and compress. Files of one revision compare by their bytes, others by their rows.
pub const FORMAT_REV: u32 = 1;
/// Rows of a row group, which is what the writer holds in memory beside the rows it was given.
pub const ROW_GROUP_ROWS: usize = 65_536;
/// `name version x (build y)` is the one form that parquet-mr parses without a warning; y is [`FORMAT_REV`].
const CREATED_BY: &str = "windrow version 1 (build 1)";
/// Tells Spark that dates are of the proleptic Gregorian calendar. Without it Spark 3 refuses a file with a time
/// before 1900 (`SparkUpgradeException`), and one record with a zero time would close the table to every query.
const SPARK_CALENDAR: (&str, &str) = ("org.apache.spark.version", "3.4.2");

/// How times are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timestamps {
    /// INT64 microseconds adjusted to UTC.
    Micros,
    /// INT96, which Hive 2.3's own reader wants.
    Int96,
}

/// A column as the catalog has to name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnType {
    pub name: String,
    /// Hive's type: `struct<start:timestamp,end:timestamp>`, `decimal(38,2)`.
    pub hive: String,
    /// What stands after `"type":` in Spark's schema JSON: `"string"`, or an object for a struct.
    pub spark: String,
}

/// A Parquet file that is not as windrow writes them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot read Parquet file: {0}; it is damaged or not windrow's: write the table again from Kafka")]
pub struct FileError(String);

/// The columns of the table and of `<table>__chunks`, without the table partition columns.
#[must_use]
pub fn column_types(shape: &Shape) -> Vec<ColumnType> {
    table_fields(shape).iter().map(Field::column_type).collect()
}

/// The columns of `<table>__late`.
#[must_use]
pub fn late_column_types() -> Vec<ColumnType> {
    late_fields().iter().map(Field::column_type).collect()
}

/// The columns of `<table>__rejects`.
#[must_use]
pub fn rejects_column_types() -> Vec<ColumnType> {
    rejects_fields().iter().map(Field::column_type).collect()
}

/// The file of final rows. `meta` becomes the footer's key-values, in order of the keys.
///
/// # Panics
/// When the rows are not sorted by (start, end, key) without repetition, or a value is out of its column's range:
/// a wrong count must stop.
#[must_use]
pub fn write_rows(shape: &Shape, timestamps: Timestamps, rows: &[Row], meta: &[(String, String)]) -> Vec<u8> {
    let sorted = rows.is_sorted_by(|a, b| (a.start, a.end, &a.key) < (b.start, b.end, &b.key));
    assert!(sorted, "rows are sorted by window and key, each once");
    let groups = rows.chunks(ROW_GROUP_ROWS).map(|rows| row_cells(shape, rows));
    write_file(timestamps, &table_fields(shape), groups, meta)
}

/// The file of late records. `columns` are those of `group-by`: one gives its text as `key`, several a JSON array.
/// Bytes of a value that are not UTF-8 become U+FFFD; the record itself stays in Kafka.
///
/// # Panics
/// When the records are not sorted by (partition, offset) without repetition.
#[must_use]
pub fn write_late(
    topic: &str,
    timestamps: Timestamps,
    columns: &[Column],
    records: &[LateRecord],
    meta: &[(String, String)],
) -> Vec<u8> {
    let sorted = records.is_sorted_by(|a, b| (a.partition, a.offset) < (b.partition, b.offset));
    assert!(sorted, "late records are sorted by offset, each once");
    let groups = records.chunks(ROW_GROUP_ROWS).map(|records| late_cells(topic, columns.len(), records));
    write_file(timestamps, &late_fields(), groups, meta)
}

/// The file of rejects. Bytes of a value that are not UTF-8 become U+FFFD; the record itself stays in Kafka.
///
/// # Panics
/// When the records are not sorted by (partition, offset) without repetition.
#[must_use]
pub fn write_rejects(
    topic: &str,
    timestamps: Timestamps,
    records: &[RejectRecord],
    meta: &[(String, String)],
) -> Vec<u8> {
    let sorted = records.is_sorted_by(|a, b| (a.partition, a.offset) < (b.partition, b.offset));
    assert!(sorted, "rejects are sorted by offset, each once");
    let groups = records.chunks(ROW_GROUP_ROWS).map(|records| reject_cells(topic, records));
    write_file(timestamps, &rejects_fields(), groups, meta)
}

/// One file that was made of several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    pub bytes: Vec<u8>,
    pub rows: u64,
    /// Least and greatest `window.start`; `None` for the side tables.
    pub first_window: Option<EventTime>,
    pub last_window: Option<EventTime>,
}

/// One file with the rows of several of the same table, in order: the bytes [`write_rows`] would have given for them.
/// All rows are in memory at once.
///
/// # Errors
/// A file is damaged, has other columns than the shape, or a row is there twice.
pub fn merge_rows(
    shape: &Shape,
    timestamps: Timestamps,
    files: &[Vec<u8>],
    meta: &[(String, String)],
) -> Result<Merged, FileError> {
    merge(&table_fields(shape), 0..=shape.group_by.len(), timestamps, files, meta)
}

/// As [`merge_rows`], of `<table>__late`.
///
/// # Errors
/// As [`merge_rows`].
pub fn merge_late(
    timestamps: Timestamps,
    files: &[Vec<u8>],
    meta: &[(String, String)],
) -> Result<Merged, FileError> {
    merge(&late_fields(), 1..=2, timestamps, files, meta)
}

/// As [`merge_rows`], of `<table>__rejects`.
///
/// # Errors
/// As [`merge_rows`].
pub fn merge_rejects(
    timestamps: Timestamps,
    files: &[Vec<u8>],
    meta: &[(String, String)],
) -> Result<Merged, FileError> {
    merge(&rejects_fields(), 1..=2, timestamps, files, meta)
}

/// The first `limit` rows of any of the files above, for people and for JSON.
///
/// # Errors
/// The file is damaged or has a column of a type that windrow does not write.
pub fn read_rows(bytes: &[u8], limit: usize) -> Result<Listing, FileError> {
    let (fields, columns) = read_file(bytes, limit)?;
    let mut rows = vec![Vec::with_capacity(fields.len()); columns.first().map_or(0, Cells::len)];
    for (field, cells) in fields.iter().zip(&columns) {
        for (i, row) in rows.iter_mut().enumerate() {
            row.push(cells.value(i, field.kind));
        }
    }
    Ok(Listing { columns: fields.into_iter().map(|f| f.name).collect(), rows })
}

/// Rows as read: each has one value a column. As JSON it is a list of objects, columns in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listing {
    pub columns: Vec<String>,
    pub rows: Vec<Vec<Value>>,
}

/// A value as read. `Display` is for tables on a terminal, `Serialize` for JSON: times as RFC 3339 text, decimals as
/// exact numbers, a window as `{"start":…,"end":…}`.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Window {
        start: EventTime,
        end: EventTime,
    },
    Time(EventTime),
    Text(String),
    Integer(i64),
    /// `units * 10^-scale`.
    Decimal {
        units: i128,
        scale: u8,
    },
    Double(f64),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => f.write_str("null"),
            Value::Window { start, end } => write!(f, "{start} {end}"),
            Value::Time(time) => time.fmt(f),
            Value::Text(text) => f.write_str(text),
            Value::Integer(n) => n.fmt(f),
            Value::Decimal { units, scale } => f.write_str(&decimal_text(*units, *scale)),
            Value::Double(x) => x.fmt(f),
        }
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Null => serializer.serialize_unit(),
            Value::Window { start, end } => {
                let mut map = serializer.serialize_map(Some(2))?;
                map.serialize_entry("start", &start.to_string())?;
                map.serialize_entry("end", &end.to_string())?;
                map.end()
            }
            Value::Time(time) => serializer.serialize_str(&time.to_string()),
            Value::Text(text) => serializer.serialize_str(text),
            Value::Integer(n) => serializer.serialize_i64(*n),
            // Raw, as a float would round it.
            Value::Decimal { units, scale } => {
                serde_json::value::RawValue::from_string(decimal_text(*units, *scale))
                    .map_err(serde::ser::Error::custom)?
                    .serialize(serializer)
            }
            Value::Double(x) => serializer.serialize_f64(*x),
        }
    }
}

impl Serialize for Listing {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.rows.len()))?;
        for row in &self.rows {
            list.serialize_element(&Line(&self.columns, row))?;
        }
        list.end()
    }
}

/// One row of a [`Listing`] as a JSON object.
struct Line<'a>(&'a [String], &'a [Value]);

impl Serialize for Line<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().zip(self.1))
    }
}

fn decimal_text(units: i128, scale: u8) -> String {
    let digits = format!("{:0width$}", units.unsigned_abs(), width = usize::from(scale) + 1);
    let (whole, fraction) = digits.split_at(digits.len() - usize::from(scale));
    let sign = if units < 0 { "-" } else { "" };
    let point = if scale == 0 { "" } else { "." };
    format!("{sign}{whole}{point}{fraction}")
}

/// The double nearest to `value / divisor`, ties to even: one rounding of the exact quotient.
///
/// # Panics
/// When `divisor` is zero.
#[must_use]
pub fn quotient(value: i128, divisor: u128) -> f64 {
    assert!(divisor != 0, "an average is of at least one value");
    if value == 0 {
        return 0.0;
    }
    let dividend = value.unsigned_abs();
    let (mut q, mut rest) = (dividend / divisor, dividend % divisor);
    // Long division by bits until q has 54 of them, one more than a double keeps: |value| / divisor is
    // (q + rest / divisor) * 2^exponent throughout.
    let mut exponent = 0_i64;
    while q >> 53 == 0 {
        let carry = rest >> 127 == 1;
        rest <<= 1;
        q <<= 1;
        if carry || rest >= divisor {
            rest = rest.wrapping_sub(divisor);
            q |= 1;
        }
        exponent -= 1;
    }
    let dropped = 128 - q.leading_zeros() - 53;
    let kept = q >> dropped;
    let below = q & ((1 << dropped) - 1);
    let half = 1_u128 << (dropped - 1);
    let up = match below.cmp(&half) {
        Ordering::Greater => true,
        Ordering::Equal => rest != 0 || kept & 1 == 1,
        Ordering::Less => false,
    };
    let mantissa = u64::try_from(kept).expect("53 bits") + u64::from(up);
    // Never subnormal: 2^-128 <= quotient < 2^128. A mantissa that rounded up to 2^53 carries into the exponent.
    let biased =
        u64::try_from(exponent + i64::from(dropped) + 52 + 1023).expect("within a double's exponents");
    let sign = u64::from(value < 0) << 63;
    f64::from_bits(sign | ((biased << 52) + (mantissa - (1 << 52))))
}

/// A column of any of the tables. All are optional in Parquet, as Spark reads both and nulls then need no thought.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Field {
    name: String,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Window,
    Time,
    Text,
    Int,
    Long,
    Decimal { precision: u8, scale: u8 },
    Double,
}

fn field(name: &str, kind: Kind) -> Field {
    Field { name: name.to_owned(), kind }
}

fn table_fields(shape: &Shape) -> Vec<Field> {
    let mut fields = vec![field("window", Kind::Window)];
    fields.extend(shape.group_by.iter().map(|c| field(&c.name, Kind::Text)));
    fields.extend(shape.aggregates.iter().map(|a| field(&a.name, aggregate_kind(a))));
    fields
}

fn aggregate_kind(aggregate: &Aggregate) -> Kind {
    match (aggregate.function, aggregate.number) {
        (Function::Count, _) | (Function::Min | Function::Max, Number::Integer) => Kind::Long,
        (Function::Min | Function::Max, Number::Decimal { precision, scale }) => {
            Kind::Decimal { precision, scale }
        }
        (Function::Sum, number) => Kind::Decimal { precision: 38, scale: number.scale() },
        (Function::Avg, _) => Kind::Double,
    }
}

fn late_fields() -> Vec<Field> {
    vec![
        field("topic", Kind::Text),
        field("partition", Kind::Int),
        field("offset", Kind::Long),
        field("event_time", Kind::Time),
        field("watermark", Kind::Time),
        field("key", Kind::Text),
        field("value", Kind::Text),
    ]
}

fn rejects_fields() -> Vec<Field> {
    vec![
        field("topic", Kind::Text),
        field("partition", Kind::Int),
        field("offset", Kind::Long),
        field("event_time", Kind::Time),
        field("reason", Kind::Text),
        field("value", Kind::Text),
    ]
}

impl Field {
    fn column_type(&self) -> ColumnType {
        let (hive, spark) = match self.kind {
            Kind::Window => ("struct<start:timestamp,end:timestamp>".to_owned(), SPARK_WINDOW.to_owned()),
            Kind::Time => ("timestamp".to_owned(), r#""timestamp""#.to_owned()),
            Kind::Text => ("string".to_owned(), r#""string""#.to_owned()),
            Kind::Int => ("int".to_owned(), r#""integer""#.to_owned()),
            Kind::Long => ("bigint".to_owned(), r#""long""#.to_owned()),
            Kind::Double => ("double".to_owned(), r#""double""#.to_owned()),
            Kind::Decimal { precision, scale } => {
                (format!("decimal({precision},{scale})"), format!("\"decimal({precision},{scale})\""))
            }
        };
        ColumnType { name: self.name.clone(), hive, spark }
    }

    fn parquet_type(&self, timestamps: Timestamps) -> Result<Type, ParquetError> {
        if self.kind == Kind::Window {
            let leaf = |name| field(name, Kind::Time).parquet_type(timestamps).map(Arc::new);
            return Type::group_type_builder(&self.name)
                .with_repetition(Repetition::OPTIONAL)
                .with_fields(vec![leaf("start")?, leaf("end")?])
                .build();
        }
        let (physical, logical, length) = match self.kind {
            Kind::Window => unreachable!("a group, made above"),
            Kind::Time => match timestamps {
                Timestamps::Micros => {
                    (Physical::INT64, Some(LogicalType::timestamp(true, TimeUnit::MICROS)), 0)
                }
                Timestamps::Int96 => (Physical::INT96, None, 0),
            },
            Kind::Text => (Physical::BYTE_ARRAY, Some(LogicalType::String), 0),
            Kind::Int => (Physical::INT32, None, 0),
            Kind::Long => (Physical::INT64, None, 0),
            Kind::Double => (Physical::DOUBLE, None, 0),
            Kind::Decimal { precision, scale } => {
                let logical = LogicalType::decimal(i32::from(scale), i32::from(precision));
                let physical = decimal_physical(precision);
                (physical, Some(logical), if physical == Physical::FIXED_LEN_BYTE_ARRAY { 16 } else { 0 })
            }
        };
        let (precision, scale) = match self.kind {
            Kind::Decimal { precision, scale } => (i32::from(precision), i32::from(scale)),
            _ => (-1, -1),
        };
        Type::primitive_type_builder(&self.name, physical)
            .with_repetition(Repetition::OPTIONAL)
            .with_logical_type(logical)
            .with_length(length)
            .with_precision(precision)
            .with_scale(scale)
            .build()
    }
}

const SPARK_WINDOW: &str = concat!(
    r#"{"type":"struct","fields":[{"name":"start","type":"timestamp","nullable":true,"metadata":{}},"#,
    r#"{"name":"end","type":"timestamp","nullable":true,"metadata":{}}]}"#
);

/// As Spark writes decimals (`spark.sql.parquet.writeLegacyFormat=false`).
fn decimal_physical(precision: u8) -> Physical {
    match precision {
        0..=9 => Physical::INT32,
        10..=18 => Physical::INT64,
        _ => Physical::FIXED_LEN_BYTE_ARRAY,
    }
}

/// The values of one column for some rows.
#[derive(Clone, Debug, PartialEq)]
enum Cells {
    Window(Vec<Option<(EventTime, EventTime)>>),
    Time(Vec<Option<EventTime>>),
    Text(Vec<Option<ByteArray>>),
    Int(Vec<Option<i32>>),
    Long(Vec<Option<i64>>),
    Decimal(Vec<Option<i128>>),
    Double(Vec<Option<f64>>),
}

fn row_cells(shape: &Shape, rows: &[Row]) -> Vec<Cells> {
    let mut cells = vec![Cells::Window(rows.iter().map(|r| Some((r.start, r.end))).collect())];
    let n = shape.group_by.len();
    let mut keys = vec![Vec::with_capacity(rows.len()); n];
    for row in rows {
        for (texts, text) in keys.iter_mut().zip(key_columns(&row.key, n)) {
            texts.push(text.map(|t| ByteArray::from(t.as_bytes())));
        }
    }
    cells.extend(keys.into_iter().map(Cells::Text));
    let mut input = 0;
    for aggregate in &shape.aggregates {
        if aggregate.function == Function::Count {
            let counts =
                rows.iter().map(|r| Some(i64::try_from(r.count).expect("a count of offsets, which are i64")));
            cells.push(Cells::Long(counts.collect()));
        } else {
            cells.push(aggregate_cells(aggregate, rows.iter().map(|r| r.accs[input])));
            input += 1;
        }
    }
    cells
}

fn aggregate_cells(aggregate: &Aggregate, accs: impl Iterator<Item = Acc>) -> Cells {
    let seen = accs.map(|acc| (acc.n > 0).then_some(acc));
    match aggregate_kind(aggregate) {
        Kind::Long => {
            let narrow = |acc: Acc| i64::try_from(acc.value).expect("an extreme of i64 values");
            Cells::Long(seen.map(|acc| acc.map(narrow)).collect())
        }
        Kind::Double => {
            let power = 10_u128.pow(u32::from(aggregate.number.scale()));
            let average = |acc: Acc| quotient(acc.value, u128::from(acc.n) * power);
            Cells::Double(seen.map(|acc| acc.map(average)).collect())
        }
        _ => Cells::Decimal(seen.map(|acc| acc.map(|a| a.value)).collect()),
    }
}

fn late_cells(topic: &str, columns: usize, records: &[LateRecord]) -> Vec<Cells> {
    let topic = ByteArray::from(topic);
    vec![
        Cells::Text(records.iter().map(|_| Some(topic.clone())).collect()),
        Cells::Int(records.iter().map(|r| Some(r.partition)).collect()),
        Cells::Long(records.iter().map(|r| Some(r.offset)).collect::<Vec<Option<Offset>>>()),
        Cells::Time(records.iter().map(|r| Some(sql_time(r.time))).collect()),
        Cells::Time(records.iter().map(|r| Some(sql_time(r.watermark))).collect()),
        Cells::Text(records.iter().map(|r| key_text(&r.key, columns)).collect()),
        Cells::Text(records.iter().map(|r| Some(lossy(&r.value))).collect()),
    ]
}

fn reject_cells(topic: &str, records: &[RejectRecord]) -> Vec<Cells> {
    let topic = ByteArray::from(topic);
    vec![
        Cells::Text(records.iter().map(|_| Some(topic.clone())).collect()),
        Cells::Int(records.iter().map(|r| Some(r.partition)).collect()),
        Cells::Long(records.iter().map(|r| Some(r.offset)).collect()),
        Cells::Time(records.iter().map(|r| r.time.map(sql_time)).collect()),
        Cells::Text(records.iter().map(|r| Some(ByteArray::from(r.reason.as_str()))).collect()),
        Cells::Text(records.iter().map(|r| Some(lossy(&r.value))).collect()),
    ]
}

fn key_text(key: &[u8], columns: usize) -> Option<ByteArray> {
    let texts = key_columns(key, columns);
    if let [text] = texts.as_slice() {
        return text.as_deref().map(ByteArray::from);
    }
    Some(ByteArray::from(serde_json::to_vec(&texts).expect("texts and nulls are JSON")))
}

fn lossy(value: &[u8]) -> ByteArray {
    ByteArray::from(String::from_utf8_lossy(value).as_bytes())
}

/// The side tables keep what a record claims, and that may be any i64. Past the years 1 to 9999 SQL has no time: the
/// nearest it has stands in.
fn sql_time(time: EventTime) -> EventTime {
    EventTime(time.0.clamp(-62_135_596_800_000, 253_402_300_799_999))
}

impl Cells {
    fn none(kind: Kind) -> Self {
        match kind {
            Kind::Window => Cells::Window(Vec::new()),
            Kind::Time => Cells::Time(Vec::new()),
            Kind::Text => Cells::Text(Vec::new()),
            Kind::Int => Cells::Int(Vec::new()),
            Kind::Long => Cells::Long(Vec::new()),
            Kind::Decimal { .. } => Cells::Decimal(Vec::new()),
            Kind::Double => Cells::Double(Vec::new()),
        }
    }

    fn len(&self) -> usize {
        match self {
            Cells::Window(v) => v.len(),
            Cells::Time(v) => v.len(),
            Cells::Text(v) => v.len(),
            Cells::Int(v) => v.len(),
            Cells::Long(v) => v.len(),
            Cells::Decimal(v) => v.len(),
            Cells::Double(v) => v.len(),
        }
    }

    fn append(&mut self, more: Cells) {
        match (self, more) {
            (Cells::Window(a), Cells::Window(b)) => a.extend(b),
            (Cells::Time(a), Cells::Time(b)) => a.extend(b),
            (Cells::Text(a), Cells::Text(b)) => a.extend(b),
            (Cells::Int(a), Cells::Int(b)) => a.extend(b),
            (Cells::Long(a), Cells::Long(b)) => a.extend(b),
            (Cells::Decimal(a), Cells::Decimal(b)) => a.extend(b),
            (Cells::Double(a), Cells::Double(b)) => a.extend(b),
            _ => unreachable!("cells of one field are of one kind"),
        }
    }

    /// The cells at these places.
    fn take(&self, at: &[usize]) -> Self {
        fn pick<T: Clone>(from: &[T], at: &[usize]) -> Vec<T> {
            at.iter().map(|&i| from[i].clone()).collect()
        }
        match self {
            Cells::Window(v) => Cells::Window(pick(v, at)),
            Cells::Time(v) => Cells::Time(pick(v, at)),
            Cells::Text(v) => Cells::Text(pick(v, at)),
            Cells::Int(v) => Cells::Int(pick(v, at)),
            Cells::Long(v) => Cells::Long(pick(v, at)),
            Cells::Decimal(v) => Cells::Decimal(pick(v, at)),
            Cells::Double(v) => Cells::Double(pick(v, at)),
        }
    }

    /// Nulls first, text by bytes: the order of [`crate::record::Key`].
    fn compare(&self, a: usize, b: usize) -> Ordering {
        match self {
            Cells::Window(v) => v[a].cmp(&v[b]),
            Cells::Time(v) => v[a].cmp(&v[b]),
            Cells::Text(v) => v[a].as_ref().map(ByteArray::data).cmp(&v[b].as_ref().map(ByteArray::data)),
            Cells::Int(v) => v[a].cmp(&v[b]),
            Cells::Long(v) => v[a].cmp(&v[b]),
            Cells::Decimal(v) => v[a].cmp(&v[b]),
            Cells::Double(_) => unreachable!("no table is sorted by an average"),
        }
    }

    fn value(&self, i: usize, kind: Kind) -> Value {
        let value = match (self, kind) {
            (Cells::Window(v), _) => v[i].map(|(start, end)| Value::Window { start, end }),
            (Cells::Time(v), _) => v[i].map(Value::Time),
            (Cells::Text(v), _) => {
                v[i].as_ref().map(|t| Value::Text(String::from_utf8_lossy(t.data()).into_owned()))
            }
            (Cells::Int(v), _) => v[i].map(|n| Value::Integer(n.into())),
            (Cells::Long(v), _) => v[i].map(Value::Integer),
            (Cells::Decimal(v), Kind::Decimal { scale, .. }) => {
                v[i].map(|units| Value::Decimal { units, scale })
            }
            (Cells::Double(v), _) => v[i].map(Value::Double),
            (Cells::Decimal(_), _) => unreachable!("cells are of their field's kind"),
        };
        value.unwrap_or(Value::Null)
    }
}

fn write_file(
    timestamps: Timestamps,
    fields: &[Field],
    groups: impl Iterator<Item = Vec<Cells>>,
    meta: &[(String, String)],
) -> Vec<u8> {
    // Into memory, of values checked before: what could fail is this file's own mistake.
    try_write(timestamps, fields, groups, meta).expect("rows of a known schema encode")
}

fn try_write(
    timestamps: Timestamps,
    fields: &[Field],
    groups: impl Iterator<Item = Vec<Cells>>,
    meta: &[(String, String)],
) -> Result<Vec<u8>, ParquetError> {
    let types = fields.iter().map(|f| f.parquet_type(timestamps).map(Arc::new)).collect::<Result<_, _>>()?;
    // Spark's own name for it.
    let schema = Type::group_type_builder("spark_schema").with_fields(types).build()?;
    let properties = Arc::new(properties(timestamps, fields, meta)?);
    let mut writer = SerializedFileWriter::new(Vec::new(), Arc::new(schema), properties)?;
    for cells in groups {
        let mut group = writer.next_row_group()?;
        for (field, cells) in fields.iter().zip(&cells) {
            write_cells(&mut group, timestamps, field.kind, cells)?;
        }
        group.close()?;
    }
    writer.into_inner()
}

/// All that shapes the bytes is said here, also where it is the crate's default today.
fn properties(
    timestamps: Timestamps,
    fields: &[Field],
    meta: &[(String, String)],
) -> Result<WriterProperties, ParquetError> {
    let (calendar, version) = SPARK_CALENDAR;
    let mut meta: Vec<(&str, &str)> = meta.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    meta.push((calendar, version));
    meta.sort_unstable();
    let meta = meta.into_iter().map(|(k, v)| KeyValue::new(k.to_owned(), v.to_owned())).collect();
    let mut builder = WriterProperties::builder()
        .set_created_by(CREATED_BY.to_owned())
        // Pages and encodings that Hive 2.3's Parquet reader knows.
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .set_dictionary_enabled(true)
        .set_dictionary_page_size_limit(1 << 20)
        .set_data_page_size_limit(1 << 20)
        .set_data_page_row_count_limit(20_000)
        .set_write_batch_size(1024)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_statistics_truncate_length(Some(64))
        .set_offset_index_disabled(true)
        .set_key_value_metadata(Some(meta));
    for field in fields {
        let path = |parts: &[&str]| ColumnPath::new(parts.iter().map(|&p| p.to_owned()).collect());
        match (field.kind, timestamps, field.name.as_str()) {
            // INT96 has no order that readers agree on.
            (Kind::Window, Timestamps::Int96, name) => {
                for leaf in ["start", "end"] {
                    builder =
                        builder.set_column_statistics_enabled(path(&[name, leaf]), EnabledStatistics::None);
                }
            }
            (Kind::Time, Timestamps::Int96, name) => {
                builder = builder.set_column_statistics_enabled(path(&[name]), EnabledStatistics::None);
            }
            // The same twice is rare here.
            (Kind::Long, _, "offset") => {
                builder = builder.set_column_dictionary_enabled(path(&["offset"]), false)
            }
            (Kind::Text, _, "value") => {
                builder = builder
                    .set_column_dictionary_enabled(path(&["value"]), false)
                    .set_column_statistics_enabled(path(&["value"]), EnabledStatistics::None);
            }
            _ => {}
        }
    }
    Ok(builder.build())
}

type Group<'a> = SerializedRowGroupWriter<'a, Vec<u8>>;

fn write_cells(
    group: &mut Group<'_>,
    timestamps: Timestamps,
    kind: Kind,
    cells: &Cells,
) -> Result<(), ParquetError> {
    match (cells, kind) {
        (Cells::Window(v), _) => {
            write_times(group, timestamps, 2, v.iter().map(|w| w.map(|(start, _)| start)))?;
            write_times(group, timestamps, 2, v.iter().map(|w| w.map(|(_, end)| end)))
        }
        (Cells::Time(v), _) => write_times(group, timestamps, 1, v.iter().copied()),
        (Cells::Text(v), _) => write_leaf::<ByteArrayType>(group, 1, v.iter().cloned()),
        (Cells::Int(v), _) => write_leaf::<Int32Type>(group, 1, v.iter().copied()),
        (Cells::Long(v), _) => write_leaf::<Int64Type>(group, 1, v.iter().copied()),
        (Cells::Double(v), _) => write_leaf::<DoubleType>(group, 1, v.iter().copied()),
        (Cells::Decimal(v), Kind::Decimal { precision, .. }) => {
            let power = 10_u128.pow(precision.into());
            let fits = v.iter().flatten().all(|units| units.unsigned_abs() < power);
            assert!(fits, "a value has no more digits than its decimal({precision}) column");
            match decimal_physical(precision) {
                Physical::INT32 => {
                    let narrow = |n: i128| i32::try_from(n).expect("nine digits");
                    write_leaf::<Int32Type>(group, 1, v.iter().map(|n| n.map(narrow)))
                }
                Physical::INT64 => {
                    let narrow = |n: i128| i64::try_from(n).expect("eighteen digits");
                    write_leaf::<Int64Type>(group, 1, v.iter().map(|n| n.map(narrow)))
                }
                _ => {
                    let bytes = |n: i128| FixedLenByteArray::from(n.to_be_bytes().to_vec());
                    write_leaf::<FixedLenByteArrayType>(group, 1, v.iter().map(|n| n.map(bytes)))
                }
            }
        }
        (Cells::Decimal(_), _) => unreachable!("cells are of their field's kind"),
    }
}

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

fn micros(time: EventTime) -> i64 {
    time.0.checked_mul(1000).expect("a window lies within 292 000 years of 1970")
}

/// Nanoseconds of the day, and the Julian day (1970-01-01 is 2 440 588).
fn int96(time: EventTime) -> Int96 {
    let nanos = u64::try_from(time.0.rem_euclid(DAY_MS) * 1_000_000).expect("not negative");
    let day = i32::try_from(time.0.div_euclid(DAY_MS) + JULIAN_1970)
        .expect("a window lies within 292 000 years of 1970");
    let mut value = Int96::new();
    value.set_data((nanos & 0xffff_ffff) as u32, (nanos >> 32) as u32, day.cast_unsigned());
    value
}

const DAY_MS: i64 = 86_400_000;
const JULIAN_1970: i64 = 2_440_588;

/// Writes a leaf column; `depth` is the definition level of a value, that of a null is 0.
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
    let mut column = group.next_column()?.expect("as many columns as the schema has leaves");
    column.typed::<T>().write_batch(&values, Some(&levels), None)?;
    column.close()
}

fn merge(
    fields: &[Field],
    order: std::ops::RangeInclusive<usize>,
    timestamps: Timestamps,
    files: &[Vec<u8>],
    meta: &[(String, String)],
) -> Result<Merged, FileError> {
    let mut columns: Vec<Cells> = fields.iter().map(|f| Cells::none(f.kind)).collect();
    for file in files {
        let (found, cells) = read_file(file, usize::MAX)?;
        if found != fields {
            return Err(FileError("its columns are not the table's".to_owned()));
        }
        for (all, more) in columns.iter_mut().zip(cells) {
            all.append(more);
        }
    }
    let key = &columns[order];
    let compare = |a: usize, b: usize| {
        key.iter().map(|c| c.compare(a, b)).find(|o| o.is_ne()).unwrap_or(Ordering::Equal)
    };
    let mut places: Vec<usize> = (0..columns[0].len()).collect();
    places.sort_unstable_by(|&a, &b| compare(a, b));
    if !places.is_sorted_by(|&a, &b| compare(a, b).is_lt()) {
        return Err(FileError("a row is there twice".to_owned()));
    }
    let groups = places.chunks(ROW_GROUP_ROWS).map(|at| columns.iter().map(|c| c.take(at)).collect());
    let bytes = write_file(timestamps, fields, groups, meta);
    let start = |at: Option<&usize>| match (&columns[0], at) {
        (Cells::Window(windows), Some(&i)) => windows[i].map(|(start, _)| start),
        _ => None,
    };
    let (first_window, last_window) = (start(places.first()), start(places.last()));
    Ok(Merged { bytes, rows: places.len() as u64, first_window, last_window })
}

/// The fields, and for each the cells of the first `limit` rows.
fn read_file(bytes: &[u8], limit: usize) -> Result<(Vec<Field>, Vec<Cells>), FileError> {
    let reader = SerializedFileReader::new(Bytes::copy_from_slice(bytes)).map_err(damaged)?;
    let metadata = reader.metadata();
    let root = metadata.file_metadata().schema_descr().root_schema();
    let fields = root.get_fields().iter().map(|t| read_field(t)).collect::<Result<Vec<_>, _>>()?;
    let mut columns: Vec<Cells> = fields.iter().map(|f| Cells::none(f.kind)).collect();
    for i in 0..metadata.num_row_groups() {
        let left = limit - columns.first().map_or(0, Cells::len);
        if left == 0 {
            break;
        }
        let group = reader.get_row_group(i).map_err(damaged)?;
        let rows = usize::try_from(group.metadata().num_rows()).map_err(damaged)?.min(left);
        let mut leaf = 0;
        for (field, cells) in fields.iter().zip(&mut columns) {
            let more = read_cells(group.as_ref(), &mut leaf, field.kind, rows)?;
            if more.len() != rows {
                return Err(FileError(format!(
                    "column \"{}\" has {} of {rows} rows",
                    field.name,
                    more.len()
                )));
            }
            cells.append(more);
        }
    }
    Ok((fields, columns))
}

fn damaged(error: impl fmt::Display) -> FileError {
    FileError(error.to_string())
}

fn read_field(found: &Type) -> Result<Field, FileError> {
    let unknown = || FileError(format!("column \"{}\" has a type that windrow does not write", found.name()));
    if found.is_group() {
        let leaves = found.get_fields().iter().map(|t| read_field(t)).collect::<Result<Vec<_>, _>>()?;
        let window = leaves == [field("start", Kind::Time), field("end", Kind::Time)];
        return if window { Ok(field(found.name(), Kind::Window)) } else { Err(unknown()) };
    }
    let info = found.get_basic_info();
    if info.repetition() == Repetition::REPEATED {
        return Err(unknown());
    }
    let kind = match (found.get_physical_type(), info.converted_type()) {
        (Physical::INT96, _) | (Physical::INT64, ConvertedType::TIMESTAMP_MICROS) => Kind::Time,
        (Physical::INT32 | Physical::INT64 | Physical::FIXED_LEN_BYTE_ARRAY, ConvertedType::DECIMAL) => {
            let precision = u8::try_from(found.get_precision()).map_err(|_| unknown())?;
            let scale = u8::try_from(found.get_scale()).map_err(|_| unknown())?;
            if precision > 38 || scale > precision || decimal_physical(precision) != found.get_physical_type()
            {
                return Err(unknown());
            }
            Kind::Decimal { precision, scale }
        }
        (Physical::INT32, ConvertedType::NONE) => Kind::Int,
        (Physical::INT64, ConvertedType::NONE) => Kind::Long,
        (Physical::DOUBLE, _) => Kind::Double,
        (Physical::BYTE_ARRAY, ConvertedType::UTF8) => Kind::Text,
        _ => return Err(unknown()),
    };
    Ok(field(found.name(), kind))
}

fn read_cells(
    group: &dyn RowGroupReader,
    leaf: &mut usize,
    kind: Kind,
    rows: usize,
) -> Result<Cells, FileError> {
    Ok(match kind {
        Kind::Window => {
            let starts = read_times(group, leaf, rows)?;
            let ends = read_times(group, leaf, rows)?;
            Cells::Window(starts.into_iter().zip(ends).map(|(start, end)| start.zip(end)).collect())
        }
        Kind::Time => Cells::Time(read_times(group, leaf, rows)?),
        Kind::Text => Cells::Text(read_leaf::<ByteArrayType>(group, leaf, rows)?),
        Kind::Int => Cells::Int(read_leaf::<Int32Type>(group, leaf, rows)?),
        Kind::Long => Cells::Long(read_leaf::<Int64Type>(group, leaf, rows)?),
        Kind::Double => Cells::Double(read_leaf::<DoubleType>(group, leaf, rows)?),
        Kind::Decimal { precision, .. } => Cells::Decimal(match decimal_physical(precision) {
            Physical::INT32 => widen(read_leaf::<Int32Type>(group, leaf, rows)?),
            Physical::INT64 => widen(read_leaf::<Int64Type>(group, leaf, rows)?),
            _ => {
                let units = |bytes: FixedLenByteArray| {
                    <[u8; 16]>::try_from(bytes.data()).map(i128::from_be_bytes).map_err(damaged)
                };
                let found = read_leaf::<FixedLenByteArrayType>(group, leaf, rows)?;
                found.into_iter().map(|n| n.map(units).transpose()).collect::<Result<_, _>>()?
            }
        }),
    })
}

fn widen<T: Into<i128>>(narrow: Vec<Option<T>>) -> Vec<Option<i128>> {
    narrow.into_iter().map(|n| n.map(Into::into)).collect()
}

fn read_times(
    group: &dyn RowGroupReader,
    leaf: &mut usize,
    rows: usize,
) -> Result<Vec<Option<EventTime>>, FileError> {
    let int96 = group.metadata().column(*leaf).column_type() == Physical::INT96;
    if !int96 {
        let micros = read_leaf::<Int64Type>(group, leaf, rows)?;
        return Ok(micros.into_iter().map(|t| t.map(|us| EventTime(us.div_euclid(1000)))).collect());
    }
    let times = read_leaf::<Int96Type>(group, leaf, rows)?;
    let time = |value: Int96| {
        let [low, high, day] = [value.data()[0], value.data()[1], value.data()[2]].map(i64::from);
        let day = i64::from((day as u32).cast_signed()) - JULIAN_1970;
        EventTime(day.wrapping_mul(DAY_MS).wrapping_add(((high << 32) | low) / 1_000_000))
    };
    Ok(times.into_iter().map(|t| t.map(time)).collect())
}

/// The next leaf column's first `rows` cells; moves `leaf` on.
fn read_leaf<T: DataType>(
    group: &dyn RowGroupReader,
    leaf: &mut usize,
    rows: usize,
) -> Result<Vec<Option<T::T>>, FileError> {
    let depth = group.metadata().column(*leaf).column_descr().max_def_level();
    let mut reader = get_typed_column_reader::<T>(group.get_column_reader(*leaf).map_err(damaged)?);
    *leaf += 1;
    let (mut levels, mut values) = (Vec::new(), Vec::new());
    let mut read = 0;
    while read < rows {
        let (more, _, _) =
            reader.read_records(rows - read, Some(&mut levels), None, &mut values).map_err(damaged)?;
        if more == 0 {
            break;
        }
        read += more;
    }
    let mut values = values.into_iter();
    if depth == 0 {
        return Ok(values.map(Some).collect());
    }
    Ok(levels.into_iter().map(|level| if level == depth { values.next() } else { None }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Key;
    use crate::shape::OnBadRecord;

    const BOTH: [Timestamps; 2] = [Timestamps::Micros, Timestamps::Int96];

    fn meta() -> Vec<(String, String)> {
        vec![("windrow.epoch".to_owned(), "7".to_owned()), ("windrow.a".to_owned(), "{}".to_owned())]
    }

    fn by_origin() -> Shape {
        Shape::count_by_origin("clicks", 10_000, 10_000)
    }

    fn row(start_ms: i64, key: &[Option<&str>], count: u64, accs: &[Acc]) -> Row {
        let (start, end) = (EventTime(start_ms), EventTime(start_ms + 10_000));
        Row { start, end, key: Arc::from(&*Key::of(key).0), count, accs: accs.into() }
    }

    fn window(start_ms: i64) -> Value {
        Value::Window { start: EventTime(start_ms), end: EventTime(start_ms + 10_000) }
    }

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    /// All aggregates over integers and decimals, keyed by two columns.
    fn wide() -> Shape {
        let aggregate = |function, number, name: &str| Aggregate {
            function,
            path: vec!["f".to_owned()],
            number,
            name: name.to_owned(),
        };
        let (small, large) =
            (Number::Decimal { precision: 9, scale: 2 }, Number::Decimal { precision: 18, scale: 18 });
        let column = |name: &str| Column { path: vec![name.to_owned()], name: name.to_owned() };
        Shape {
            group_by: vec![column("origin"), column("kind")],
            aggregates: vec![
                aggregate(Function::Sum, Number::Integer, "sum_n"),
                aggregate(Function::Count, Number::Integer, "count"),
                aggregate(Function::Sum, small, "sum_p"),
                aggregate(Function::Min, Number::Integer, "min_n"),
                aggregate(Function::Max, small, "max_p"),
                aggregate(Function::Min, large, "min_q"),
                aggregate(Function::Avg, small, "avg_p"),
            ],
            on_bad_record: OnBadRecord::Null,
            ..by_origin()
        }
    }

    fn acc(n: u64, value: i128) -> Acc {
        Acc { n, value }
    }

    fn wide_rows() -> Vec<Row> {
        let max = i128::from(i64::MAX);
        let top = (1_i128 << 126) - 1;
        let low =
            [acc(1, -top), acc(1, -top), acc(1, -max - 1), acc(1, -999_999_999), acc(1, -1), acc(3, -1)];
        let high = [
            acc(1, top),
            acc(1, top),
            acc(1, max),
            acc(2, 999_999_999),
            acc(1, 999_999_999_999_999_999),
            acc(3, 2),
        ];
        vec![
            row(0, &[None, None], 1, &[Acc::default(); 6]),
            row(0, &[None, Some("")], 2, &low),
            row(0, &[Some("a"), None], u64::try_from(max).unwrap(), &high),
        ]
    }

    #[test]
    fn wide_rows_come_back_exactly() {
        for timestamps in BOTH {
            let bytes = write_rows(&wide(), timestamps, &wide_rows(), &meta());
            let found = read_rows(&bytes, 10).unwrap();
            let names =
                ["window", "origin", "kind", "sum_n", "count", "sum_p", "min_n", "max_p", "min_q", "avg_p"];
            assert_eq!(found.columns, names);
            let decimal = |units, scale| Value::Decimal { units, scale };
            let top = (1_i128 << 126) - 1;
            let n = || Value::Null;
            #[rustfmt::skip]
            assert_eq!(found.rows, [
                vec![window(0), n(), n(), n(), Value::Integer(1), n(), n(), n(), n(), n()],
                vec![window(0), n(), text(""), decimal(-top, 0), Value::Integer(2), decimal(-top, 2), Value::Integer(i64::MIN),
                     decimal(-999_999_999, 2), decimal(-1, 18), Value::Double(-1.0 / 300.0)],
                vec![window(0), text("a"), n(), decimal(top, 0), Value::Integer(i64::MAX), decimal(top, 2), Value::Integer(i64::MAX),
                     decimal(999_999_999, 2), decimal(999_999_999_999_999_999, 18), Value::Double(2.0 / 300.0)],
            ]);
        }
    }

    #[test]
    fn strange_keys_and_times_come_back() {
        let long = "x".repeat(1 << 20);
        let y9999 = 253_402_300_790_000;
        let rows = vec![
            row(-62_135_596_800_000, &[Some("zero time")], 1, &[]),
            row(-315_619_200_001, &[Some("1959")], 1, &[]),
            row(-315_619_200_000, &[Some("1960")], 1, &[]),
            row(0, &[None], 1, &[]),
            row(0, &[Some("")], 2, &[]),
            row(0, &[Some("\0")], 3, &[]),
            row(0, &[Some("\0\0a")], 4, &[]),
            row(0, &[Some(&long)], 5, &[]),
            row(0, &[Some("\u{10ffff}é")], 6, &[]),
            row(y9999, &[Some("a")], 7, &[]),
        ];
        for timestamps in BOTH {
            let found = read_rows(&write_rows(&by_origin(), timestamps, &rows, &[]), usize::MAX).unwrap();
            for (row, found) in rows.iter().zip(&found.rows) {
                let key = row.key_text().map_or(Value::Null, |t| text(&t));
                let count = Value::Integer(i64::try_from(row.count).unwrap());
                assert_eq!(found, &[window(row.start.0), key, count]);
            }
            assert_eq!(found.rows.len(), rows.len());
        }
    }

    impl Row {
        fn key_text(&self) -> Option<String> {
            key_columns(&self.key, 1).remove(0).map(|t| t.into_owned())
        }
    }

    /// More than two row groups, windows of three keys.
    fn many() -> Vec<Row> {
        let keys = ["a", "b", "c"];
        let windows =
            (0..50_000).flat_map(|w| keys.map(|key| row(w * 10_000, &[Some(key)], w as u64 + 1, &[])));
        windows.collect()
    }

    #[test]
    fn same_rows_give_the_same_bytes_and_others_do_not() {
        let rows = many();
        let bytes = write_rows(&by_origin(), Timestamps::Micros, &rows, &meta());
        let mut turned = meta();
        turned.reverse();
        assert!(bytes == write_rows(&by_origin(), Timestamps::Micros, &rows, &turned));
        assert!(bytes != write_rows(&by_origin(), Timestamps::Micros, &rows[1..], &meta()));
        assert!(bytes != write_rows(&by_origin(), Timestamps::Int96, &rows, &meta()));
        let found = read_rows(&bytes, usize::MAX).unwrap();
        assert_eq!(found.rows.len(), rows.len());
        assert_eq!(found.rows[149_999], [window(49_999 * 10_000), text("c"), Value::Integer(50_000)]);
        assert_eq!(read_rows(&bytes, 70_000).unwrap().rows, found.rows[..70_000]);
    }

    /// Bytes of another revision are not to be compared with these: raise [`FORMAT_REV`] with the new hash.
    #[test]
    fn bytes_of_this_format_revision_are_known() {
        use sha2::{Digest, Sha256};
        let mut all = Sha256::new();
        for timestamps in BOTH {
            all.update(write_rows(&wide(), timestamps, &wide_rows(), &meta()));
            all.update(write_rows(&by_origin(), timestamps, &many(), &meta()));
        }
        let hash: String = all.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!((FORMAT_REV, hash.as_str()), (1, "?"));
        assert!(CREATED_BY.ends_with(&format!("(build {FORMAT_REV})")));
    }

    #[test]
    fn merging_files_gives_the_bytes_of_writing_their_rows_at_once() {
        let rows = many();
        let part = |keep: fn(usize) -> bool| {
            let rows: Vec<Row> =
                rows.iter().enumerate().filter(|(i, _)| keep(*i)).map(|(_, r)| r.clone()).collect();
            write_rows(&by_origin(), Timestamps::Micros, &rows, &meta())
        };
        let files = [part(|i| i % 7 == 3), part(|i| i % 7 < 3), part(|_| false), part(|i| i % 7 > 3)];
        for timestamps in BOTH {
            let merged = merge_rows(&by_origin(), timestamps, &files, &[]).unwrap();
            assert!(merged.bytes == write_rows(&by_origin(), timestamps, &rows, &[]));
            assert_eq!((merged.rows, merged.first_window), (150_000, Some(EventTime(0))));
            assert_eq!(merged.last_window, Some(EventTime(499_990_000)));
        }
        let wide = [&wide_rows()[1..2], &wide_rows()[..1], &wide_rows()[2..]]
            .map(|rows| write_rows(&self::wide(), Timestamps::Int96, rows, &meta()));
        let merged = merge_rows(&self::wide(), Timestamps::Micros, &wide, &[]).unwrap();
        assert!(merged.bytes == write_rows(&self::wide(), Timestamps::Micros, &wide_rows(), &[]));
        let twice = merge_rows(&by_origin(), Timestamps::Micros, &[files[0].clone(), files[0].clone()], &[]);
        assert!(twice.unwrap_err().to_string().contains("a row is there twice"));
        assert!(merge_rows(&by_origin(), Timestamps::Micros, &wide, &[]).is_err());
    }

    #[test]
    #[should_panic(expected = "rows are sorted by window and key")]
    fn unsorted_rows_are_not_written() {
        let rows = [row(0, &[Some("b")], 1, &[]), row(0, &[Some("a")], 1, &[])];
        _ = write_rows(&by_origin(), Timestamps::Micros, &rows, &[]);
    }

    #[test]
    #[should_panic(expected = "rows are sorted by window and key")]
    fn a_row_twice_is_not_written() {
        let rows = [row(0, &[Some("a")], 1, &[]), row(0, &[Some("a")], 1, &[])];
        _ = write_rows(&by_origin(), Timestamps::Micros, &rows, &[]);
    }

    fn late(offset: Offset, time: i64, key: &[Option<&str>], value: &[u8]) -> LateRecord {
        LateRecord {
            partition: 3,
            offset,
            time: EventTime(time),
            watermark: EventTime(1000),
            key: Key::of(key).0,
            value: value.into(),
        }
    }

    #[test]
    fn late_records_come_back_and_merge() {
        let origin = &by_origin().group_by;
        let records = [
            late(1, i64::MIN, &[Some("a")], b"{\"origin\":\"a\"}"),
            late(2, 500, &[None], b"\xff{"),
            late(9, 600, &[Some("\"")], b""),
        ];
        for timestamps in BOTH {
            let all = write_late("clicks", timestamps, origin, &records, &meta());
            let found = read_rows(&all, 10).unwrap();
            let names: Vec<String> = late_column_types().into_iter().map(|c| c.name).collect();
            assert_eq!(found.columns, names);
            let first = [
                text("clicks"),
                Value::Integer(3),
                Value::Integer(1),
                Value::Time(EventTime(-62_135_596_800_000)),
                Value::Time(EventTime(1000)),
                text("a"),
                text("{\"origin\":\"a\"}"),
            ];
            assert_eq!(found.rows[0], first);
            assert_eq!(found.rows[1][5..], [Value::Null, text("\u{fffd}{")]);
            let parts =
                [&records[2..], &records[..2]].map(|r| write_late("clicks", timestamps, origin, r, &[]));
            assert!(merge_late(timestamps, &parts, &meta()).unwrap().bytes == all);
        }
        let two = write_late(
            "clicks",
            Timestamps::Micros,
            &wide().group_by,
            &[late(1, 0, &[Some("a\"\0"), None], b"")],
            &[],
        );
        assert_eq!(read_rows(&two, 10).unwrap().rows[0][5], text("[\"a\\\"\\u0000\",null]"));
    }

    #[test]
    fn rejects_come_back_and_merge() {
        let reject = |offset, time: Option<i64>, reason: &str| RejectRecord {
            partition: 0,
            offset,
            time: time.map(EventTime),
            reason: reason.to_owned(),
            value: b"not json".as_slice().into(),
        };
        let records = [reject(0, None, "not JSON"), reject(5, Some(i64::MAX), "from the future")];
        for timestamps in BOTH {
            let all = write_rejects("clicks", timestamps, &records, &[]);
            let found = read_rows(&all, 10).unwrap();
            assert_eq!(found.rows[0][3..], [Value::Null, text("not JSON"), text("not json")]);
            assert_eq!(found.rows[1][3], Value::Time(EventTime(253_402_300_799_999)));
            let parts =
                [&records[1..], &records[..1]].map(|r| write_rejects("clicks", timestamps, r, &meta()));
            assert!(merge_rejects(timestamps, &parts, &[]).unwrap().bytes == all);
        }
    }

    #[test]
    fn no_rows_are_a_file_too() {
        for timestamps in BOTH {
            let bytes = write_rows(&wide(), timestamps, &[], &[]);
            let found = read_rows(&bytes, 10).unwrap();
            assert_eq!((found.columns.len(), found.rows.len()), (10, 0));
        }
    }

    #[test]
    fn footer_names_us_the_calendar_and_what_was_given() {
        let bytes = write_rows(&by_origin(), Timestamps::Micros, &[row(0, &[Some("a")], 1, &[])], &meta());
        let reader = SerializedFileReader::new(Bytes::from(bytes)).unwrap();
        let file = reader.metadata().file_metadata();
        assert_eq!(file.created_by(), Some("windrow version 1 (build 1)"));
        let pairs: Vec<_> = file.key_value_metadata().unwrap().iter().map(|kv| kv.key.as_str()).collect();
        assert_eq!(pairs, ["org.apache.spark.version", "windrow.a", "windrow.epoch"]);
    }

    #[test]
    fn damage_is_an_error_that_says_so() {
        let bytes = write_rows(&by_origin(), Timestamps::Micros, &many()[..1000], &meta());
        for bad in [&bytes[..0], &bytes[..bytes.len() / 2], &bytes[1..], b"hello"] {
            let error = read_rows(bad, 10).unwrap_err().to_string();
            assert!(error.starts_with("cannot read Parquet file: "), "{error}");
        }
    }

    #[test]
    fn listings_are_json_with_exact_decimals() {
        let bytes = write_rows(&wide(), Timestamps::Micros, &wide_rows(), &meta());
        let json = serde_json::to_string(&read_rows(&bytes, 2).unwrap()).unwrap();
        let expected = concat!(
            r#"[{"window":{"start":"1970-01-01T00:00:00Z","end":"1970-01-01T00:00:10Z"},"origin":null,"kind":null,"#,
            r#""sum_n":null,"count":1,"sum_p":null,"min_n":null,"max_p":null,"min_q":null,"avg_p":null},"#,
            r#"{"window":{"start":"1970-01-01T00:00:00Z","end":"1970-01-01T00:00:10Z"},"origin":null,"kind":"","#,
            r#""sum_n":-85070591730234615865843651857942052863,"count":2,"#,
            r#""sum_p":-850705917302346158658436518579420528.63,"min_n":-9223372036854775808,"max_p":-9999999.99,"#,
            r#""min_q":-0.000000000000000001,"avg_p":-0.0033333333333333335}]"#
        );
        assert_eq!(json, expected);
    }

    #[test]
    fn columns_have_the_names_of_hive_and_spark() {
        let columns = column_types(&wide());
        let hive: Vec<&str> = columns.iter().map(|c| c.hive.as_str()).collect();
        let expected = [
            "struct<start:timestamp,end:timestamp>",
            "string",
            "string",
            "decimal(38,0)",
            "bigint",
            "decimal(38,2)",
            "bigint",
            "decimal(9,2)",
            "decimal(18,18)",
            "double",
        ];
        assert_eq!(hive, expected);
        assert!(columns.iter().all(|c| serde_json::from_str::<serde_json::Value>(&c.spark).is_ok()));
        assert_eq!(columns[5].spark, "\"decimal(38,2)\"");
    }

    #[test]
    fn quotient_is_the_nearest_double() {
        let check = |value: i128, divisor: u128, expect: f64| {
            assert_eq!(quotient(value, divisor).to_bits(), expect.to_bits(), "{value} / {divisor}");
            if value != 0 && value != i128::MIN {
                assert_eq!(quotient(-value, divisor).to_bits(), (-expect).to_bits(), "-{value} / {divisor}");
            }
        };
        check(0, 7, 0.0);
        check(1, 3, 1.0 / 3.0);
        let two53 = 1_i128 << 53;
        check(two53 + 1, 1, 9_007_199_254_740_992.0);
        check(two53 + 3, 1, 9_007_199_254_740_996.0);
        check((two53 + 1) * 3 + 1, 3, 9_007_199_254_740_994.0);
        check(i128::MIN, 1, -(2.0_f64.powi(127)));
        check(1, u128::MAX, 2.0_f64.powi(-128));
        check(i128::MAX, u128::MAX, 0.5);
        // IEEE division rounds once: right where both are exact as doubles.
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        for _ in 0..20_000 {
            let (a, b) = (next() >> (11 + next() % 50), (next() >> (11 + next() % 50)).max(1));
            check(i128::from(a), u128::from(b), a as f64 / b as f64);
            // And i128 to f64 rounds once as well.
            let wide = i128::from(next()) << (next() % 63) | i128::from(next());
            check(wide, 1, wide as f64);
            check(wide, 1 << 40, wide as f64 / (1_u64 << 40) as f64);
        }
    }
}
