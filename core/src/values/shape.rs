//! The settings that shape rows. Epoch 0 of a table keeps them, and another value later is refused.
//! Text is read in `settings`; here are only the values.

use crate::values::time::format_duration_ms;
use serde::{Deserialize, Serialize};

/// All that decides which rows a log gives, except the watermark delay and the recorded decisions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Shape {
    /// The Kafka topic's name.
    pub topic: String,
    /// The length of a window.
    pub window_ms: i64,
    /// How far apart windows begin; `1 <= slide_ms <= window_ms <= 1000 * slide_ms`.
    pub slide_ms: i64,
    /// Windows start at multiples of `slide_ms` plus this; `0 <= offset_ms < slide_ms`.
    pub offset_ms: i64,
    /// The key's columns; at least one.
    pub group_by: Vec<Column>,
    /// The value columns in the table's order; at least one.
    pub aggregates: Vec<Aggregate>,
    /// Where event time is read; `None` is the Kafka record's timestamp.
    pub timestamp_field: Option<TimeField>,
    /// What happens to a record without a key.
    pub on_bad_record: OnBadRecord,
    /// How many new keys one slice of one topic partition takes before it rejects more.
    pub max_keys: u64,
    /// The longest key, all columns together, in bytes of their UTF-8.
    pub max_key_bytes: u64,
    /// The revision of the meaning of all this. It is raised when a new windrow would give other
    /// rows for the same log and the same settings. A table that does not record one has 0.
    #[serde(default)]
    pub semantics: u32,
}

/// The revision that this program implements: see [`Shape::semantics`].
///
/// | revision | what changed |
/// |---|---|
/// | 1 | only counted records moved the watermark |
/// | 2 | every record whose event time is known and not past the ceiling moves it |
/// | 2 | records of the years 1 and 9999 are rejects |
pub const SEMANTICS: u32 = 2;

/// A key column: where it lies in the JSON value, and its name in the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Field names from the top level down; at least one.
    pub path: Vec<String>,
    /// Lower case, unique among the table's columns.
    pub name: String,
}

/// A value column of the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aggregate {
    /// What is computed.
    pub function: Function,
    /// Field names from the top level down; empty for [`Function::Count`].
    pub path: Vec<String>,
    /// Which numbers the field may hold.
    pub number: Number,
    /// Lower case, unique among the table's columns.
    pub name: String,
}

/// What an aggregate computes over the records of a window and key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Function {
    /// How many records there are.
    Count,
    /// The sum of the field's values.
    Sum,
    /// The least of them.
    Min,
    /// The greatest of them.
    Max,
    /// Their exact average.
    Avg,
}

/// Which JSON numbers an aggregate takes. Any other value in the field rejects the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Number {
    /// Integers that an i64 holds.
    Integer,
    /// Decimals, kept as integers of `10^-scale`. An i64 holds them all.
    Decimal {
        /// Digits in all, 1 to 18.
        precision: u8,
        /// Digits after the point, at most `precision`.
        scale: u8,
    },
}

impl Number {
    /// How many of the kept integer's digits stand after the decimal point.
    #[must_use]
    pub fn scale(self) -> u8 {
        match self {
            Number::Integer => 0,
            Number::Decimal { scale, .. } => scale,
        }
    }
}

/// The JSON field that holds event time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeField {
    /// Field names from the top level down; at least one.
    pub path: Vec<String>,
    /// How the field's value is read.
    pub unit: TimeUnit,
}

/// How the value of the time field is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimeUnit {
    /// A string is RFC 3339. The unit of a number goes by its size: below 10^11 it is seconds,
    /// below 10^14 milliseconds, and else microseconds.
    Auto,
    /// Seconds since 1970.
    Seconds,
    /// Milliseconds since 1970.
    Millis,
    /// Microseconds since 1970.
    Micros,
    /// A string such as `2024-09-01T19:42:15Z`.
    Rfc3339,
}

impl Shape {
    /// The settings that it was read from, as a user writes them, in the order of the file. They
    /// say all of it, so two shapes are equal exactly when these are.
    #[must_use]
    pub fn as_settings(&self) -> Vec<(&'static str, String)> {
        let time = |ms: i64| format_duration_ms(ms.unsigned_abs());
        let path = |path: &[String]| path.join(".");
        let named = |text: String, name: &str, usual: String| {
            if *name == usual {
                text
            } else {
                format!("{text} as {name}")
            }
        };
        let last = |path: &[String]| path.last().cloned().unwrap_or_default().to_lowercase();
        let column = |c: &Column| named(path(&c.path), &c.name, last(&c.path));
        let aggregate = |a: &Aggregate| {
            let function = format!("{:?}", a.function).to_lowercase();
            match a.number {
                _ if a.function == Function::Count => named(function.clone(), &a.name, function),
                Number::Integer => named(
                    format!("{function}({})", path(&a.path)),
                    &a.name,
                    format!("{function}_{}", last(&a.path)),
                ),
                Number::Decimal { precision, scale } => named(
                    format!("{function}({} decimal({precision},{scale}))", path(&a.path)),
                    &a.name,
                    format!("{function}_{}", last(&a.path)),
                ),
            }
        };
        let all = |texts: Vec<String>| format!("\"{}\"", texts.join(", "));
        let field = self.timestamp_field.as_ref().map(|field| {
            let unit = match field.unit {
                TimeUnit::Auto => "",
                TimeUnit::Seconds => " s",
                TimeUnit::Millis => " ms",
                TimeUnit::Micros => " us",
                TimeUnit::Rfc3339 => " rfc3339",
            };
            path(&field.path) + unit
        });
        vec![
            ("kafka.topic", self.topic.clone()),
            ("window", time(self.window_ms)),
            ("slide", time(self.slide_ms)),
            ("offset", time(self.offset_ms)),
            ("group-by", all(self.group_by.iter().map(column).collect())),
            (
                "aggregates",
                all(self.aggregates.iter().map(aggregate).collect()),
            ),
            ("timestamp-field", all(vec![field.unwrap_or_default()])),
            (
                "on-bad-record",
                format!("{:?}", self.on_bad_record).to_lowercase(),
            ),
            ("max-keys", self.max_keys.to_string()),
            ("max-key-bytes", self.max_key_bytes.to_string()),
            ("semantics (windrow's own)", self.semantics.to_string()),
        ]
    }
}

/// What happens to a record in which the field of a key column is missing or null.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnBadRecord {
    /// It becomes a reject, like every other record that cannot be counted.
    Reject,
    /// It is counted under a null key. What cannot be counted for another reason is a reject.
    Null,
    /// Counting stops at the first record that would be a reject.
    Fail,
}

impl Shape {
    /// The aggregates that need the record's fields: all except `count`, in order.
    pub fn inputs(&self) -> impl Iterator<Item = &Aggregate> {
        self.aggregates
            .iter()
            .filter(|a| a.function != Function::Count)
    }

    /// `count` by the one column `origin`: what the default of every setting gives.
    #[must_use]
    pub fn count_by_origin(topic: &str, window_ms: i64, slide_ms: i64) -> Self {
        Self {
            topic: topic.to_owned(),
            window_ms,
            slide_ms,
            offset_ms: 0,
            group_by: vec![Column {
                path: vec!["origin".to_owned()],
                name: "origin".to_owned(),
            }],
            aggregates: vec![Aggregate {
                function: Function::Count,
                path: Vec::new(),
                number: Number::Integer,
                name: "count".to_owned(),
            }],
            timestamp_field: None,
            on_bad_record: OnBadRecord::Reject,
            max_keys: 1_000_000,
            max_key_bytes: 65_536,
            semantics: SEMANTICS,
        }
    }
}
