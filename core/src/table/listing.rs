//! Rows as they are read back from a file, for people and for JSON.
//! Nothing here knows Parquet.
//!
//! Example: the values of a row of the default table, as text and as JSON:
//!
//! ```text
//! 2024-09-01T12:00:00Z 2024-09-01T12:00:10Z   a   2
//! {"window":{"start":"2024-09-01T12:00:00Z","end":"2024-09-01T12:00:10Z"},"origin":"a","count":2}
//! ```

use crate::values::time::EventTime;
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use std::fmt;

/// Rows as they were read. As JSON this is a list of objects, with the columns in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listing {
    /// The names of the columns, in the order of the file.
    pub columns: Vec<String>,
    /// The rows, in the order of the file. Each has one value for each column.
    pub rows: Vec<Vec<Value>>,
}

/// A value as it was read. `Display` is for tables on a terminal. `Serialize` is for JSON: times
/// are RFC 3339 text, decimals are exact numbers, and a window is `{"start":…,"end":…}`.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// No value.
    Null,
    /// A window, `[start, end)`.
    Window {
        /// The first time that belongs to it.
        start: EventTime,
        /// The first time after it.
        end: EventTime,
    },
    /// A time.
    Time(EventTime),
    /// A text.
    Text(String),
    /// An integer.
    Integer(i64),
    /// The number `units * 10^-scale`.
    Decimal {
        /// The number in units of its last digit.
        units: i128,
        /// How many digits stand after the point.
        scale: u8,
    },
    /// A float.
    Double(f64),
}

impl Value {
    /// The length of a text in bytes; zero for every other value, because those are always short.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        if let Value::Text(text) = self {
            text.len()
        } else {
            0
        }
    }
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
            // Written as its digits, because a float would round it.
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

/// A decimal as text: 12345 units with the scale 2 are `123.45`.
fn decimal_text(units: i128, scale: u8) -> String {
    let digits = format!(
        "{:0width$}",
        units.unsigned_abs(),
        width = usize::from(scale) + 1
    );
    let (whole, fraction) = digits.split_at(digits.len() - usize::from(scale));
    let sign = if units < 0 { "-" } else { "" };
    let point = if scale == 0 { "" } else { "." };
    format!("{sign}{whole}{point}{fraction}")
}
