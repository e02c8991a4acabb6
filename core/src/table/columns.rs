//! The columns of windrow's tables: the kinds of their values, and the names of Hive and Spark.
//! How columns become the bytes of a file is in `columnar`.
//!
//! Example: `sum(price decimal(18,2))` makes a column of the kind
//! `Decimal { precision: 38, scale: 2 }`. Hive calls it `decimal(38,2)`, and Spark's schema
//! calls it `"decimal(38,2)"`. The cell 12345 in it is the value 123.45.

use crate::table::listing::Value;
use crate::values::time::EventTime;
use parquet::data_type::ByteArray;

/// How a file stores times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timestamps {
    /// As INT64, in microseconds since 1970 UTC.
    Micros,
    /// As INT96, which is what Hive 2.3's own reader needs.
    Int96,
}

/// A column as the catalog must describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnType {
    /// Its name, in lower case.
    pub name: String,
    /// Its type in Hive's words: `struct<start:timestamp,end:timestamp>`, `decimal(38,2)`.
    pub hive: String,
    /// Its type in Spark's schema JSON, which is what stands after `"type":`: `"string"`, or an
    /// object for a struct.
    pub spark: String,
}

/// A column of any of the tables. All columns are optional in Parquet: Spark reads those as well as
/// required ones, and so every column can hold null.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) kind: ColumnKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ColumnKind {
    /// A struct of two times, start and end.
    Window,
    /// A time.
    Time,
    /// UTF-8 text.
    Text,
    /// A 32-bit integer.
    Int,
    /// A 64-bit integer.
    Long,
    /// An integer in units of `10^-scale`, of at most `precision` digits; at most 38.
    Decimal { precision: u8, scale: u8 },
    /// A 64-bit float.
    Double,
}

/// The column of this name and kind.
pub(crate) fn field(name: &str, kind: ColumnKind) -> Field {
    Field {
        name: name.to_owned(),
        kind,
    }
}

impl Field {
    /// The column as the catalog must describe it.
    pub(crate) fn column_type(&self) -> ColumnType {
        let (hive, spark) = match self.kind {
            ColumnKind::Window => (
                "struct<start:timestamp,end:timestamp>".to_owned(),
                SPARK_WINDOW.to_owned(),
            ),
            ColumnKind::Time => ("timestamp".to_owned(), r#""timestamp""#.to_owned()),
            ColumnKind::Text => ("string".to_owned(), r#""string""#.to_owned()),
            ColumnKind::Int => ("int".to_owned(), r#""integer""#.to_owned()),
            ColumnKind::Long => ("bigint".to_owned(), r#""long""#.to_owned()),
            ColumnKind::Double => ("double".to_owned(), r#""double""#.to_owned()),
            ColumnKind::Decimal { precision, scale } => (
                format!("decimal({precision},{scale})"),
                format!("\"decimal({precision},{scale})\""),
            ),
        };
        ColumnType {
            name: self.name.clone(),
            hive,
            spark,
        }
    }
}

/// The type of a window in Spark's schema JSON.
const SPARK_WINDOW: &str = concat!(
    r#"{"type":"struct","fields":["#,
    r#"{"name":"start","type":"timestamp","nullable":true,"metadata":{}},"#,
    r#"{"name":"end","type":"timestamp","nullable":true,"metadata":{}}]}"#
);

/// The values of one column for some rows; `None` is null.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cells {
    Window(Vec<Option<(EventTime, EventTime)>>),
    Time(Vec<Option<EventTime>>),
    Text(Vec<Option<ByteArray>>),
    Int(Vec<Option<i32>>),
    Long(Vec<Option<i64>>),
    Decimal(Vec<Option<i128>>),
    Double(Vec<Option<f64>>),
}

impl Cells {
    /// No values of this kind.
    pub(crate) fn none(kind: ColumnKind) -> Self {
        match kind {
            ColumnKind::Window => Cells::Window(Vec::new()),
            ColumnKind::Time => Cells::Time(Vec::new()),
            ColumnKind::Text => Cells::Text(Vec::new()),
            ColumnKind::Int => Cells::Int(Vec::new()),
            ColumnKind::Long => Cells::Long(Vec::new()),
            ColumnKind::Decimal { .. } => Cells::Decimal(Vec::new()),
            ColumnKind::Double => Cells::Double(Vec::new()),
        }
    }

    /// The number of rows.
    pub(crate) fn len(&self) -> usize {
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

    /// Appends the values of further rows of the same column.
    pub(crate) fn append(&mut self, more: Cells) {
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

    /// Removes the rows from row `at` on, and returns them.
    pub(crate) fn split_off(&mut self, at: usize) -> Self {
        match self {
            Cells::Window(v) => Cells::Window(v.split_off(at)),
            Cells::Time(v) => Cells::Time(v.split_off(at)),
            Cells::Text(v) => Cells::Text(v.split_off(at)),
            Cells::Int(v) => Cells::Int(v.split_off(at)),
            Cells::Long(v) => Cells::Long(v.split_off(at)),
            Cells::Decimal(v) => Cells::Decimal(v.split_off(at)),
            Cells::Double(v) => Cells::Double(v.split_off(at)),
        }
    }

    /// The values of these rows, in the order in which they are named.
    pub(crate) fn pick(&self, rows: &[usize]) -> Self {
        fn of<T: Clone>(values: &[T], rows: &[usize]) -> Vec<T> {
            rows.iter().map(|row| values[*row].clone()).collect()
        }
        match self {
            Cells::Window(v) => Cells::Window(of(v, rows)),
            Cells::Time(v) => Cells::Time(of(v, rows)),
            Cells::Text(v) => Cells::Text(of(v, rows)),
            Cells::Int(v) => Cells::Int(of(v, rows)),
            Cells::Long(v) => Cells::Long(of(v, rows)),
            Cells::Decimal(v) => Cells::Decimal(of(v, rows)),
            Cells::Double(v) => Cells::Double(of(v, rows)),
        }
    }

    /// The value of row `i`, for people; `kind` is that of the column.
    pub(crate) fn value(&self, i: usize, kind: ColumnKind) -> Value {
        let value = match (self, kind) {
            (Cells::Window(v), _) => v[i].map(|(start, end)| Value::Window { start, end }),
            (Cells::Time(v), _) => v[i].map(Value::Time),
            (Cells::Text(v), _) => v[i]
                .as_ref()
                .map(|t| Value::Text(String::from_utf8_lossy(t.data()).into_owned())),
            (Cells::Int(v), _) => v[i].map(|n| Value::Integer(n.into())),
            (Cells::Long(v), _) => v[i].map(Value::Integer),
            (Cells::Decimal(v), ColumnKind::Decimal { scale, .. }) => {
                v[i].map(|units| Value::Decimal { units, scale })
            }
            (Cells::Double(v), _) => v[i].map(Value::Double),
            (Cells::Decimal(_), _) => unreachable!("cells are of their field's kind"),
        };
        value.unwrap_or(Value::Null)
    }
}
