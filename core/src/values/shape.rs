//! The settings that shape rows: what a table's epoch 0 records, and another value of which is refused later.
//! Text is read in `config`; here are only the values.

use crate::values::time::format_duration_ms;
use serde::{Deserialize, Serialize};

/// All that decides which rows a log gives, but the watermark delay and the recorded decisions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Shape {
    pub topic: String,
    /// Length of a window.
    pub window_ms: i64,
    /// Distance of two windows' starts; `1 <= slide_ms <= window_ms <= 1000 * slide_ms`.
    pub slide_ms: i64,
    /// Windows start at multiples of `slide_ms` plus this; `0 <= offset_ms < slide_ms`.
    pub offset_ms: i64,
    /// The key's columns; at least one.
    pub group_by: Vec<Column>,
    /// The value columns in the table's order; at least one.
    pub aggregates: Vec<Aggregate>,
    /// Where event time is read; `None` takes the Kafka record's timestamp.
    pub timestamp_field: Option<TimeField>,
    pub on_bad_record: OnBadRecord,
    /// New keys that one slice of one topic partition takes before it rejects more.
    pub max_keys: u64,
    /// Longest key, all columns together, in bytes of their UTF-8.
    pub max_key_bytes: u64,
    /// The meaning of all this; raised when windrow itself would give other rows.
    pub semantics: u32,
}

/// The semantics this program implements.
pub const SEMANTICS: u32 = 1;

/// A key column: where it lies in the JSON value, and its name in the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Field names from the top level down; at least one.
    pub path: Vec<String>,
    /// Lower case, unique among the table's columns.
    pub name: String,
}

/// A value column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aggregate {
    pub function: Function,
    /// Empty for [`Function::Count`].
    pub path: Vec<String>,
    pub number: Number,
    /// Lower case, unique among the table's columns.
    pub name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Function {
    Count,
    Sum,
    Min,
    Max,
    Avg,
}

/// Which JSON numbers an aggregate takes; any other value in the field rejects the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Number {
    /// Integers of i64.
    Integer,
    /// Decimals kept as integers of `10^-scale`; `1 <= precision <= 18`, `scale <= precision`, so i64 holds them.
    Decimal { precision: u8, scale: u8 },
}

impl Number {
    /// Digits after the decimal point of the kept integer.
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
    pub path: Vec<String>,
    pub unit: TimeUnit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimeUnit {
    /// A string is RFC 3339; a number's unit goes by its size: below 10^11 seconds, below 10^14 ms, else us.
    Auto,
    Seconds,
    Millis,
    Micros,
    Rfc3339,
}

impl Shape {
    /// The settings it comes of, as a user writes them, in the order of the manual; all of it is in them.
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

/// What a record without a key column's field, or with null in it, becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnBadRecord {
    /// A reject, as every other record that cannot be counted.
    Reject,
    /// A null column for a missing or null field; all else is a reject.
    Null,
    /// Stop at the first record that would be a reject.
    Fail,
}

impl Shape {
    /// The aggregates that need the record's fields: all but `count`, in order.
    pub fn inputs(&self) -> impl Iterator<Item = &Aggregate> {
        self.aggregates
            .iter()
            .filter(|a| a.function != Function::Count)
    }

    /// `count` by one string column `origin`, as the use case has it; the default of every setting.
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
