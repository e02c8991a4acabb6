//! Final rows, late records and rejects become the bytes of a file, and are read back from them.
//! How columns become Parquet is in `columnar`. Nothing is stored here.
//!
//! The same rows and metadata give the same bytes. The row `12:00:00 12:00:10 a 2` of the default
//! table has three cells: `window` (a struct of start and end), `origin` and `count`. The table
//! partition columns (`date`, for example) are in the path of the file, and not in the file.

use crate::table::columnar::{FileWriter, write_file};
use crate::table::columns::{Cells, ColumnKind, Field, field};
use crate::table::listing::{Listing, Value};
use crate::table::partial_file::{guarded, read_file};
use crate::values::aggregate::{Acc, average};
use crate::values::record::key_columns;
use crate::values::row::{LateRecord, RejectRecord, Row};
use crate::values::shape::{Aggregate, Column, Function, Number, Shape};
use crate::values::time::{EventTime, READABLE_MS};
use parquet::data_type::ByteArray;

pub use crate::table::columnar::{FORMAT_REV, FileError, ROW_GROUP_ROWS};
pub use crate::table::columns::{ColumnType, Timestamps};
pub use crate::table::partial_file::is_reading_a_file;

/// The columns of the table and of `<table>__chunks`, in order, without the table partition
/// columns.
#[must_use]
pub fn column_types(shape: &Shape) -> Vec<ColumnType> {
    table_fields(shape).iter().map(Field::column_type).collect()
}

/// The columns of `<table>__late`, in order, without the table partition columns.
#[must_use]
pub fn late_column_types() -> Vec<ColumnType> {
    late_fields().iter().map(Field::column_type).collect()
}

/// The columns of `<table>__rejects`, in order, without the table partition columns.
#[must_use]
pub fn rejects_column_types() -> Vec<ColumnType> {
    rejects_fields().iter().map(Field::column_type).collect()
}

/// Writes the file of final rows. `meta` becomes the key-values of the footer, sorted by key.
///
/// # Panics
/// When the rows are not sorted by start, end and key, when a row is there twice, or when a value
/// does not fit in its column. A wrong count must stop.
#[must_use]
pub fn write_rows(
    shape: &Shape,
    timestamps: Timestamps,
    rows: &[Row],
    meta: &[(String, String)],
) -> Vec<u8> {
    let mut file = RowsFile::new(shape, timestamps);
    for rows in rows.chunks(ROW_GROUP_ROWS) {
        file.push(shape, rows.iter().cloned());
    }
    file.finish(shape, meta)
}

/// A file of final rows that is being made. At most one row group of rows is in memory besides the
/// bytes of the file, so an epoch of many rows takes little more memory than its files.
pub struct RowsFile {
    file: FileWriter,
    /// Rows that are not written yet; fewer than a row group has.
    rows: Vec<Row>,
    /// Start, end and key of the last row that was written.
    last: Option<Row>,
    count: usize,
}

impl RowsFile {
    /// A file without rows.
    #[must_use]
    pub fn new(shape: &Shape, timestamps: Timestamps) -> Self {
        Self {
            file: FileWriter::new(timestamps, table_fields(shape)),
            rows: Vec::new(),
            last: None,
            count: 0,
        }
    }

    /// How many rows it has.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Adds the rows that come next.
    ///
    /// # Panics
    /// As for [`write_rows`].
    pub fn push(&mut self, shape: &Shape, rows: impl IntoIterator<Item = Row>) {
        for row in rows {
            self.count += 1;
            self.rows.push(row);
            if self.rows.len() == ROW_GROUP_ROWS {
                self.write_group(shape);
            }
        }
    }

    fn write_group(&mut self, shape: &Shape) {
        let all = self.last.iter().chain(&self.rows);
        let sorted = all.is_sorted_by(|a, b| (a.start, a.end, &a.key) < (b.start, b.end, &b.key));
        assert!(sorted, "rows are sorted by window and key, each once");
        self.file.write_group(&row_cells(shape, &self.rows));
        self.last = self.rows.pop();
        self.rows.clear();
    }

    /// The bytes of the file. `meta` becomes the key-values of the footer, sorted by key.
    ///
    /// # Panics
    /// As for [`write_rows`].
    #[must_use]
    pub fn finish(mut self, shape: &Shape, meta: &[(String, String)]) -> Vec<u8> {
        if !self.rows.is_empty() {
            self.write_group(shape);
        }
        self.file.finish(meta)
    }
}

/// Writes the file of late records. `columns` are those of `group-by`. With one column, `key` is
/// its text; with several, it is a JSON array such as `["a",null]`. Bytes of a value that are not
/// UTF-8 become U+FFFD; the record itself stays in Kafka.
///
/// # Panics
/// When the records are not sorted by topic partition and offset.
#[must_use]
pub fn write_late(
    topic: &str,
    timestamps: Timestamps,
    columns: &[Column],
    records: &[LateRecord],
    meta: &[(String, String)],
) -> Vec<u8> {
    let sorted = records.is_sorted_by_key(|r| (r.partition, r.offset));
    assert!(sorted, "late records are sorted by offset");
    let groups = records
        .chunks(ROW_GROUP_ROWS)
        .map(|records| late_cells(topic, columns.len(), records));
    write_file(timestamps, late_fields(), groups, meta)
}

/// Writes the file of rejects. Bytes of a value that are not UTF-8 become U+FFFD; the record itself
/// stays in Kafka.
///
/// # Panics
/// When the records are not sorted by topic partition and offset.
#[must_use]
pub fn write_rejects(
    topic: &str,
    timestamps: Timestamps,
    records: &[RejectRecord],
    meta: &[(String, String)],
) -> Vec<u8> {
    let sorted = records.is_sorted_by_key(|r| (r.partition, r.offset));
    assert!(sorted, "rejects are sorted by offset");
    let groups = records
        .chunks(ROW_GROUP_ROWS)
        .map(|records| reject_cells(topic, records));
    write_file(timestamps, rejects_fields(), groups, meta)
}

/// Reads the first `limit` rows of any of these files, for people and for JSON.
///
/// # Errors
/// The file is damaged, or has a column of a type that windrow does not write.
pub fn read_rows(bytes: &[u8], limit: usize) -> Result<Listing, FileError> {
    let (fields, columns) = guarded(|| read_file(bytes, limit))?;
    let rows = listed(&fields, &columns);
    Ok(Listing {
        columns: fields.into_iter().map(|f| f.name).collect(),
        rows,
    })
}

/// Final rows as a file that has them gives them back: one value for each column of the table.
#[must_use]
pub fn listed_rows(shape: &Shape, rows: &[Row]) -> Vec<Vec<Value>> {
    listed(&table_fields(shape), &row_cells(shape, rows))
}

/// The rows of these cells, one value for each column.
pub(super) fn listed(fields: &[Field], columns: &[Cells]) -> Vec<Vec<Value>> {
    let count = columns.first().map_or(0, Cells::len);
    let mut rows = vec![Vec::with_capacity(fields.len()); count];
    for (field, cells) in fields.iter().zip(columns) {
        for (i, row) in rows.iter_mut().enumerate() {
            row.push(cells.value(i, field.kind));
        }
    }
    rows
}

/// The columns of the table's own files.
pub(super) fn table_fields(shape: &Shape) -> Vec<Field> {
    let mut fields = vec![field("window", ColumnKind::Window)];
    fields.extend(
        shape
            .group_by
            .iter()
            .map(|c| field(&c.name, ColumnKind::Text)),
    );
    fields.extend(
        shape
            .aggregates
            .iter()
            .map(|a| field(&a.name, aggregate_kind(a))),
    );
    fields
}

/// The kind of an aggregate's column. A sum of i64 values needs up to 38 digits.
fn aggregate_kind(aggregate: &Aggregate) -> ColumnKind {
    match (aggregate.function, aggregate.number) {
        (Function::Count, _) | (Function::Min | Function::Max, Number::Integer) => ColumnKind::Long,
        (Function::Min | Function::Max, Number::Decimal { precision, scale }) => {
            ColumnKind::Decimal { precision, scale }
        }
        (Function::Sum, number) => ColumnKind::Decimal {
            precision: 38,
            scale: number.scale(),
        },
        (Function::Avg, _) => ColumnKind::Double,
    }
}

/// The columns of the files of late records.
pub(super) fn late_fields() -> Vec<Field> {
    vec![
        field("topic", ColumnKind::Text),
        field("partition", ColumnKind::Int),
        field("offset", ColumnKind::Long),
        field("event_time", ColumnKind::Time),
        field("watermark", ColumnKind::Time),
        field("key", ColumnKind::Text),
        field("value", ColumnKind::Text),
    ]
}

/// The columns of the files of rejects.
pub(super) fn rejects_fields() -> Vec<Field> {
    vec![
        field("topic", ColumnKind::Text),
        field("partition", ColumnKind::Int),
        field("offset", ColumnKind::Long),
        field("event_time", ColumnKind::Time),
        field("reason", ColumnKind::Text),
        field("value", ColumnKind::Text),
    ]
}

/// The cells of final rows, one list for each of [`table_fields`].
fn row_cells(shape: &Shape, rows: &[Row]) -> Vec<Cells> {
    let mut cells = vec![Cells::Window(
        rows.iter().map(|r| Some((r.start, r.end))).collect(),
    )];
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
            let counts = rows
                .iter()
                .map(|r| Some(i64::try_from(r.count).expect("a count of offsets, which are i64")));
            cells.push(Cells::Long(counts.collect()));
        } else {
            cells.push(aggregate_cells(
                aggregate,
                rows.iter().map(|r| r.accs[input]),
            ));
            input += 1;
        }
    }
    cells
}

/// The cells of one aggregate, from its state in each row. Where no value was seen, the cell is
/// null.
fn aggregate_cells(aggregate: &Aggregate, accs: impl Iterator<Item = Acc>) -> Cells {
    let seen = accs.map(|acc| (acc.n > 0).then_some(acc));
    match aggregate_kind(aggregate) {
        ColumnKind::Long => {
            let narrow = |acc: Acc| i64::try_from(acc.value).expect("an extreme of i64 values");
            Cells::Long(seen.map(|acc| acc.map(narrow)).collect())
        }
        ColumnKind::Double => {
            let scale = aggregate.number.scale();
            Cells::Double(seen.map(|acc| acc.map(|acc| average(acc, scale))).collect())
        }
        _ => Cells::Decimal(seen.map(|acc| acc.map(|a| a.value)).collect()),
    }
}

/// The cells of late records, one list for each of [`late_fields`].
fn late_cells(topic: &str, columns: usize, records: &[LateRecord]) -> Vec<Cells> {
    let topic = ByteArray::from(topic);
    vec![
        Cells::Text(records.iter().map(|_| Some(topic.clone())).collect()),
        Cells::Int(records.iter().map(|r| Some(r.partition)).collect()),
        Cells::Long(records.iter().map(|r| Some(r.offset)).collect()),
        Cells::Time(
            records
                .iter()
                .map(|r| Some(nearest_readable_time(r.time)))
                .collect(),
        ),
        Cells::Time(
            records
                .iter()
                .map(|r| Some(nearest_readable_time(r.watermark)))
                .collect(),
        ),
        Cells::Text(records.iter().map(|r| key_text(&r.key, columns)).collect()),
        Cells::Text(records.iter().map(|r| Some(lossy(&r.value))).collect()),
    ]
}

/// The cells of rejects, one list for each of [`rejects_fields`].
fn reject_cells(topic: &str, records: &[RejectRecord]) -> Vec<Cells> {
    let topic = ByteArray::from(topic);
    vec![
        Cells::Text(records.iter().map(|_| Some(topic.clone())).collect()),
        Cells::Int(records.iter().map(|r| Some(r.partition)).collect()),
        Cells::Long(records.iter().map(|r| Some(r.offset)).collect()),
        Cells::Time(
            records
                .iter()
                .map(|r| r.time.map(nearest_readable_time))
                .collect(),
        ),
        Cells::Text(
            records
                .iter()
                .map(|r| Some(ByteArray::from(r.reason.as_str())))
                .collect(),
        ),
        Cells::Text(records.iter().map(|r| Some(lossy(&r.value))).collect()),
    ]
}

/// A key of so many columns as one text: the text of a single column, or a JSON array of several.
fn key_text(key: &[u8], columns: usize) -> Option<ByteArray> {
    let texts = key_columns(key, columns);
    if let [text] = texts.as_slice() {
        return text.as_deref().map(ByteArray::from);
    }
    Some(ByteArray::from(
        serde_json::to_vec(&texts).expect("texts and nulls are JSON"),
    ))
}

/// A value as UTF-8, with U+FFFD for the bytes that are not.
fn lossy(value: &[u8]) -> ByteArray {
    ByteArray::from(String::from_utf8_lossy(value).as_bytes())
}

/// The nearest time that every reader can show. The side tables keep the time that a record claims,
/// which may be any i64, but SQL has no time outside the years 1 to 9999.
fn nearest_readable_time(time: EventTime) -> EventTime {
    EventTime(time.0.clamp(*READABLE_MS.start(), *READABLE_MS.end()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::record::{Key, Offset};
    use crate::values::shape::OnBadRecord;
    use bytes::Bytes;
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use std::sync::Arc;

    const BOTH: [Timestamps; 2] = [Timestamps::Micros, Timestamps::Int96];

    fn meta() -> Vec<(String, String)> {
        vec![
            ("windrow.epoch".to_owned(), "7".to_owned()),
            ("windrow.a".to_owned(), "{}".to_owned()),
        ]
    }

    fn by_origin() -> Shape {
        Shape::count_by_origin("clicks", 10_000, 10_000)
    }

    fn row(start_ms: i64, key: &[Option<&str>], count: u64, accs: &[Acc]) -> Row {
        let (start, end) = (EventTime(start_ms), EventTime(start_ms + 10_000));
        Row {
            start,
            end,
            key: Arc::from(&*Key::of(key).0),
            count,
            accs: accs.into(),
        }
    }

    fn window(start_ms: i64) -> Value {
        Value::Window {
            start: EventTime(start_ms),
            end: EventTime(start_ms + 10_000),
        }
    }

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    /// A table with every aggregate, over integers and decimals, and with two key columns.
    fn wide() -> Shape {
        let aggregate = |function, number, name: &str| Aggregate {
            function,
            path: vec!["f".to_owned()],
            number,
            name: name.to_owned(),
        };
        let (small, large) = (
            Number::Decimal {
                precision: 9,
                scale: 2,
            },
            Number::Decimal {
                precision: 18,
                scale: 18,
            },
        );
        let column = |name: &str| Column {
            path: vec![name.to_owned()],
            name: name.to_owned(),
        };
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
        let low = [
            acc(1, -top),
            acc(1, -top),
            acc(1, -max - 1),
            acc(1, -999_999_999),
            acc(1, -1),
            acc(3, -1),
        ];
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
    fn files_for_hive_2_3_have_the_codec_that_it_knows() {
        use parquet::basic::Compression;
        for timestamps in BOTH {
            let late = [LateRecord {
                partition: 0,
                offset: 1,
                time: EventTime(5),
                watermark: EventTime(9),
                key: Box::from(&*Key::of(&[Some("a")]).0),
                value: Box::from(*b"{}"),
            }];
            let rejects = [RejectRecord {
                partition: 0,
                offset: 2,
                time: None,
                reason: "no key".to_owned(),
                value: Box::from(*b"{}"),
            }];
            for file in [
                write_rows(
                    &by_origin(),
                    timestamps,
                    &[row(0, &[Some("a")], 1, &[])],
                    &meta(),
                ),
                write_late("clicks", timestamps, &by_origin().group_by, &late, &meta()),
                write_rejects("clicks", timestamps, &rejects, &meta()),
            ] {
                assert_eq!(read_rows(&file, 10).unwrap().rows.len(), 1);
                let reader = SerializedFileReader::new(Bytes::from(file)).unwrap();
                for column in reader.metadata().row_group(0).columns() {
                    let codec = column.compression();
                    match timestamps {
                        Timestamps::Micros => assert!(matches!(codec, Compression::ZSTD(_))),
                        Timestamps::Int96 => assert_eq!(codec, Compression::SNAPPY),
                    }
                }
            }
        }
    }

    #[test]
    fn files_for_hive_2_3_have_no_decimals_that_are_integers() {
        use parquet::basic::{ConvertedType, Type as Physical};
        for (timestamps, expected) in [
            (
                Timestamps::Micros,
                [
                    (38, Physical::FIXED_LEN_BYTE_ARRAY, 16),
                    (38, Physical::FIXED_LEN_BYTE_ARRAY, 16),
                    (9, Physical::INT32, 0),
                    (18, Physical::INT64, 0),
                ],
            ),
            (
                Timestamps::Int96,
                [
                    (38, Physical::FIXED_LEN_BYTE_ARRAY, 16),
                    (38, Physical::FIXED_LEN_BYTE_ARRAY, 16),
                    (9, Physical::FIXED_LEN_BYTE_ARRAY, 4),
                    (18, Physical::FIXED_LEN_BYTE_ARRAY, 8),
                ],
            ),
        ] {
            let file = write_rows(&wide(), timestamps, &wide_rows(), &meta());
            let reader = SerializedFileReader::new(Bytes::from(file)).unwrap();
            let schema = reader.metadata().file_metadata().schema_descr();
            let decimals = schema.columns().iter();
            let decimals = decimals.filter(|c| c.converted_type() == ConvertedType::DECIMAL);
            let found: Vec<_> = decimals
                .map(|c| (c.type_precision(), c.physical_type(), c.type_length()))
                .collect();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn wide_rows_come_back_exactly() {
        for timestamps in BOTH {
            let bytes = write_rows(&wide(), timestamps, &wide_rows(), &meta());
            let found = read_rows(&bytes, 10).unwrap();
            let names = [
                "window", "origin", "kind", "sum_n", "count", "sum_p", "min_n", "max_p", "min_q",
                "avg_p",
            ];
            assert_eq!(found.columns, names);
            let (n, integer) = (|| Value::Null, Value::Integer);
            let decimal = |units, scale| Value::Decimal { units, scale };
            let top = (1_i128 << 126) - 1;
            #[rustfmt::skip]
            assert_eq!(found.rows, [
                vec![
                    window(0), n(), n(), n(), integer(1), n(), n(), n(), n(), n(),
                ],
                vec![
                    window(0), n(), text(""), decimal(-top, 0), integer(2), decimal(-top, 2),
                    integer(i64::MIN), decimal(-999_999_999, 2), decimal(-1, 18),
                    Value::Double(-1.0 / 300.0),
                ],
                vec![
                    window(0), text("a"), n(), decimal(top, 0), integer(i64::MAX), decimal(top, 2),
                    integer(i64::MAX), decimal(999_999_999, 2),
                    decimal(999_999_999_999_999_999, 18), Value::Double(2.0 / 300.0),
                ],
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
            let found = read_rows(
                &write_rows(&by_origin(), timestamps, &rows, &[]),
                usize::MAX,
            )
            .unwrap();
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

    /// More than two row groups: 50,000 windows with three keys each.
    fn many() -> Vec<Row> {
        let keys = ["a", "b", "c"];
        let windows = (0..50_000)
            .flat_map(|w| keys.map(|key| row(w * 10_000, &[Some(key)], w as u64 + 1, &[])));
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
        assert_eq!(
            found.rows[149_999],
            [window(49_999 * 10_000), text("c"), Value::Integer(50_000)]
        );
        assert_eq!(
            read_rows(&bytes, 70_000).unwrap().rows,
            found.rows[..70_000]
        );
    }

    /// When this fails, the same rows give other bytes: raise [`FORMAT_REV`], and put the new hash
    /// here. Files of different revisions cannot be compared by their bytes.
    #[test]
    fn bytes_of_this_format_revision_are_known() {
        use sha2::{Digest, Sha256};
        let hashes = BOTH.map(|timestamps| {
            let mut all = Sha256::new();
            all.update(write_rows(&wide(), timestamps, &wide_rows(), &meta()));
            all.update(write_rows(&by_origin(), timestamps, &many(), &meta()));
            let bytes = all.finalize();
            bytes.iter().map(|b| format!("{b:02x}")).collect::<String>()
        });
        const KNOWN: [&str; 2] = [
            "cc291aa084a4e060451069751eeff3a0482227a15b25185b81a7001dc3346058",
            "e9fff0a750eea3e8cc960841775823bfcf06a4b4ebf5d343170d726e776ec156",
        ];
        assert_eq!(
            (FORMAT_REV, hashes.each_ref().map(|h| h.as_str())),
            (1, KNOWN)
        );
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
    fn late_records_come_back() {
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
                Value::Time(EventTime(*READABLE_MS.start())),
                Value::Time(EventTime(1000)),
                text("a"),
                text("{\"origin\":\"a\"}"),
            ];
            assert_eq!(found.rows[0], first);
            assert_eq!(found.rows[1][5..], [Value::Null, text("\u{fffd}{")]);
        }
        let two = write_late(
            "clicks",
            Timestamps::Micros,
            &wide().group_by,
            &[late(1, 0, &[Some("a\"\0"), None], b"")],
            &[],
        );
        assert_eq!(
            read_rows(&two, 10).unwrap().rows[0][5],
            text("[\"a\\\"\\u0000\",null]")
        );
    }

    #[test]
    fn rejects_come_back() {
        let reject = |offset, time: Option<i64>, reason: &str| RejectRecord {
            partition: 0,
            offset,
            time: time.map(EventTime),
            reason: reason.to_owned(),
            value: b"not json".as_slice().into(),
        };
        let records = [
            reject(0, None, "not JSON"),
            reject(5, Some(i64::MAX), "from the future"),
        ];
        for timestamps in BOTH {
            let all = write_rejects("clicks", timestamps, &records, &[]);
            let found = read_rows(&all, 10).unwrap();
            assert_eq!(
                found.rows[0][3..],
                [Value::Null, text("not JSON"), text("not json")]
            );
            assert_eq!(found.rows[1][3], Value::Time(EventTime(*READABLE_MS.end())));
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
        let bytes = write_rows(
            &by_origin(),
            Timestamps::Micros,
            &[row(0, &[Some("a")], 1, &[])],
            &meta(),
        );
        let reader = SerializedFileReader::new(Bytes::from(bytes)).unwrap();
        let file = reader.metadata().file_metadata();
        assert_eq!(
            file.created_by(),
            Some(format!("windrow version 1 (build {FORMAT_REV})").as_str())
        );
        let pairs: Vec<_> = file
            .key_value_metadata()
            .unwrap()
            .iter()
            .map(|kv| kv.key.as_str())
            .collect();
        assert_eq!(
            pairs,
            ["org.apache.spark.version", "windrow.a", "windrow.epoch"]
        );
    }

    #[test]
    fn damage_is_an_error_that_says_so() {
        let bytes = write_rows(&by_origin(), Timestamps::Micros, &many()[..1000], &meta());
        for bad in [
            &bytes[..0],
            &bytes[..bytes.len() / 2],
            &bytes[1..],
            b"hello",
        ] {
            let error = read_rows(bad, 10).unwrap_err().to_string();
            assert!(error.starts_with("cannot read Parquet file: "), "{error}");
        }
    }

    #[test]
    fn listings_are_json_with_exact_decimals() {
        let bytes = write_rows(&wide(), Timestamps::Micros, &wide_rows(), &meta());
        let json = serde_json::to_string(&read_rows(&bytes, 2).unwrap()).unwrap();
        let expected = concat!(
            r#"[{"window":{"start":"1970-01-01T00:00:00Z","end":"1970-01-01T00:00:10Z"},"#,
            r#""origin":null,"kind":null,"sum_n":null,"count":1,"sum_p":null,"#,
            r#""min_n":null,"max_p":null,"min_q":null,"avg_p":null},"#,
            r#"{"window":{"start":"1970-01-01T00:00:00Z","end":"1970-01-01T00:00:10Z"},"#,
            r#""origin":null,"kind":"","#,
            r#""sum_n":-85070591730234615865843651857942052863,"count":2,"#,
            r#""sum_p":-850705917302346158658436518579420528.63,"#,
            r#""min_n":-9223372036854775808,"max_p":-9999999.99,"#,
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
        assert!(
            columns
                .iter()
                .all(|c| serde_json::from_str::<serde_json::Value>(&c.spark).is_ok())
        );
        assert_eq!(columns[5].spark, "\"decimal(38,2)\"");
    }

    /// Found by fuzzing: the Parquet library panics at a column that begins before the file.
    #[test]
    fn a_file_with_any_byte_damaged_is_an_error_or_rows_and_no_panic() {
        let rows = [row(0, &[Some("a")], 3, &[])];
        let bytes = write_rows(&by_origin(), Timestamps::Micros, &rows, &meta());
        let damaged = (0..bytes.len()).map(|at| {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0xff;
            read_rows(&damaged, 10).is_err()
        });
        assert!(damaged.filter(|is_error| *is_error).count() > 10);
    }
}
