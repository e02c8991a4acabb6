//! The rows of a file that a Spark Structured Streaming job wrote: one row for each window and key,
//! with a count. Windrow's own files are read in `partial_file`, which is stricter. There is no I/O
//! here: the bytes are in memory.
//!
//! Spark 3.4 writes such a file (`parquet-tools schema`), with INT96 times by default, and INT64
//! microseconds with `spark.sql.parquet.outputTimestampType=TIMESTAMP_MICROS`:
//!
//! ```text
//! required group window { optional int96 start; optional int96 end; }
//! optional binary origin (String);
//! required int64 count;
//! ```
//!
//! Its key-values describe the columns once more as JSON, and there the column `window` has the
//! watermark delay of the job: `{"spark.timeWindow":true,"spark.watermarkDelayMs":10000}` (seen in
//! files of Spark 3.4.2).

use crate::table::columnar::{FileError, damaged};
use crate::table::partial_file::guarded;
use crate::values::ledger::NUMBER_MAX;
use crate::values::record::Key;
use crate::values::row::Row;
use crate::values::shape::{Function, Shape};
use crate::values::time::{EventTime, READABLE_MS};
use bytes::Bytes;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use serde_json::Value;

/// The key under which Spark describes the columns of a file.
const DESCRIPTION: &str = "org.apache.spark.sql.parquet.row.metadata";

/// What a file of a Spark job holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SparkFile {
    /// Its rows, in the order of the file.
    pub rows: Vec<Row>,
    /// How far the job's watermark trails the newest event time, in milliseconds. `None` where the
    /// file does not say it.
    pub delay_ms: Option<i64>,
}

/// Whether a table of this shape can have the rows of a Spark job: the only aggregate is the count.
/// The others are made of states that a finished row no longer has.
///
/// # Errors
/// Why not, as the end of a sentence.
pub fn check_shape(shape: &Shape) -> Result<(), String> {
    let mut aggregates = shape.aggregates.iter();
    match (aggregates.next().map(|a| a.function), aggregates.next()) {
        (Some(Function::Count), None) => Ok(()),
        _ => Err(
            "its aggregates are not count alone, which is all that can be taken over; set \
             aggregates: count"
                .to_owned(),
        ),
    }
}

/// Reads a file of a job that counts by the same columns and in the same windows as `shape`.
///
/// # Errors
/// The file is damaged, or its columns or windows are not those of `shape`.
pub fn read_spark_file(bytes: Vec<u8>, shape: &Shape) -> Result<SparkFile, FileError> {
    guarded(|| {
        let reader = SerializedFileReader::new(Bytes::from(bytes)).map_err(damaged)?;
        let meta = reader.metadata().file_metadata();
        let described = meta.key_value_metadata().into_iter().flatten();
        let description = described
            .filter(|pair| pair.key == DESCRIPTION)
            .find_map(|pair| pair.value.as_deref());
        let delay_ms = description.and_then(delay_of);
        check_columns(meta.schema_descr().root_schema().get_fields(), shape)?;
        let mut rows = Vec::new();
        for row in reader.get_row_iter(None).map_err(damaged)? {
            rows.push(read_row(&row.map_err(damaged)?, shape)?);
        }
        Ok(SparkFile { rows, delay_ms })
    })
}

/// The watermark delay in Spark's description of the columns.
fn delay_of(description: &str) -> Option<i64> {
    let description: Value = serde_json::from_str(description).ok()?;
    let columns = description["fields"].as_array()?;
    let window = columns.iter().find(|column| column["name"] == "window")?;
    let delay_ms = window["metadata"]["spark.watermarkDelayMs"].as_i64()?;
    (0..NUMBER_MAX).contains(&delay_ms).then_some(delay_ms)
}

fn count_column(shape: &Shape) -> &str {
    shape.aggregates.first().map_or("count", |a| &a.name)
}

/// The columns must be the table's own, in any order: a column that is left out would be lost.
fn check_columns(
    found: &[parquet::schema::types::TypePtr],
    shape: &Shape,
) -> Result<(), FileError> {
    let mut found: Vec<&str> = found.iter().map(|column| column.name()).collect();
    let keys = shape.group_by.iter().map(|column| column.name.as_str());
    let expected: Vec<&str> = std::iter::once("window")
        .chain(keys)
        .chain([count_column(shape)])
        .collect();
    let written = found.join(", ");
    let mut sorted = expected.clone();
    found.sort_unstable();
    sorted.sort_unstable();
    if found == sorted {
        return Ok(());
    }
    Err(FileError::new(format!(
        "the job's columns are {written}, and those of the settings are {}; set group-by as the \
         job groups",
        expected.join(", ")
    )))
}

fn read_row(row: &parquet::record::Row, shape: &Shape) -> Result<Row, FileError> {
    let of = |name: &str| {
        let mut cells = row.get_column_iter();
        cells.find(|(of, _)| *of == name).map(|(_, cell)| cell)
    };
    let (start, end) = window(of("window"))?;
    check_window(start, end, shape)?;
    let mut keys: Vec<Option<&str>> = Vec::with_capacity(shape.group_by.len());
    for column in &shape.group_by {
        keys.push(match of(&column.name) {
            Some(Field::Str(text)) => Some(text),
            Some(Field::Null) => None,
            _ => {
                let why = format!("column \"{}\" is not text", column.name);
                return Err(FileError::new(why));
            }
        });
    }
    let count = match of(count_column(shape)) {
        Some(Field::Long(count)) => u64::try_from(*count).ok().filter(|count| *count > 0),
        _ => None,
    };
    Ok(Row {
        start,
        end,
        key: std::sync::Arc::from(Key::of(&keys).0),
        count: count.ok_or_else(|| FileError::new("a count is not a number above 0".to_owned()))?,
        accs: Box::default(),
    })
}

fn window(cell: Option<&Field>) -> Result<(EventTime, EventTime), FileError> {
    let Some(Field::Group(window)) = cell else {
        return Err(FileError::new("a window is not there".to_owned()));
    };
    let time = |name: &str| {
        let mut cells = window.get_column_iter();
        let ms = match cells.find(|(of, _)| *of == name)?.1 {
            Field::TimestampMillis(ms) => *ms,
            Field::TimestampMicros(us) if us % 1000 == 0 => us / 1000,
            _ => return None,
        };
        Some(EventTime(ms)).filter(|time| READABLE_MS.contains(&time.0))
    };
    let both = time("start").zip(time("end"));
    both.ok_or_else(|| FileError::new("a window has no start or no end".to_owned()))
}

fn check_window(start: EventTime, end: EventTime, shape: &Shape) -> Result<(), FileError> {
    let (size, slide, offset) = (shape.window_ms, shape.slide_ms, shape.offset_ms);
    if end.0 - start.0 == size && (start.0 - offset).rem_euclid(slide) == 0 {
        return Ok(());
    }
    Err(FileError::new(format!(
        "the job has the window {start} to {end}, which is none of those of {size} ms every \
         {slide} ms from {offset} ms on; set window, slide and offset as the job has them"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::file::{Timestamps, write_rows};

    fn row(start: i64, key: &str, count: u64) -> Row {
        Row {
            start: EventTime(start),
            end: EventTime(start + 10_000),
            key: std::sync::Arc::from(Key::of(&[Some(key)]).0),
            count,
            accs: Box::default(),
        }
    }

    #[test]
    fn rows_are_read_with_both_kinds_of_times() {
        let shape = Shape::count_by_origin("clicks", 10_000, 10_000);
        let rows = [row(0, "a", 2), row(10_000, "b", 3)];
        for timestamps in [Timestamps::Int96, Timestamps::Micros] {
            let bytes = write_rows(&shape, timestamps, &rows, &[]);
            let file = read_spark_file(bytes, &shape).unwrap();
            assert_eq!((file.rows.as_slice(), file.delay_ms), (&rows[..], None));
        }
    }

    #[test]
    fn the_delay_is_in_sparks_description_of_the_columns() {
        let shape = Shape::count_by_origin("clicks", 10_000, 10_000);
        let description = r#"{"type":"struct","fields":[{"name":"window","type":"struct",
            "metadata":{"spark.timeWindow":true,"spark.watermarkDelayMs":10000}}]}"#;
        let meta = [(DESCRIPTION.to_owned(), description.to_owned())];
        let bytes = write_rows(&shape, Timestamps::Int96, &[], &meta);
        let file = read_spark_file(bytes, &shape).unwrap();
        assert_eq!(file.delay_ms, Some(10_000));
    }

    #[test]
    fn other_windows_columns_and_bytes_are_refused_by_what_they_are() {
        let by_origin = Shape::count_by_origin("clicks", 10_000, 10_000);
        let bytes = write_rows(&by_origin, Timestamps::Int96, &[row(10_000, "a", 2)], &[]);
        let mut hourly = Shape::count_by_origin("clicks", 3_600_000, 3_600_000);
        let refused = |shape: &Shape, bytes: &[u8]| {
            let read = read_spark_file(bytes.to_vec(), shape);
            read.unwrap_err().to_string()
        };
        let why = refused(&hourly, &bytes);
        assert!(why.contains("none of those of 3600000 ms"), "{why}");
        hourly.group_by[0].name = "kind".to_owned();
        let why = refused(&hourly, &bytes);
        assert!(
            why.contains("are window, origin, count, and those of the settings are window, kind"),
            "{why}"
        );
        refused(&by_origin, b"PAR1 no file PAR1");
    }
}
