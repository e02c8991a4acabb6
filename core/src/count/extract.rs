//! Takes key, event time and numbers out of a record's value, or rejects the record with a reason.
//! Tombstones, the ceiling of event times and the number of keys are the lane's concern.
//!
//! What a key column becomes:
//!
//! | the field holds | the column is |
//! |---|---|
//! | a string, `"a"` | that string, `a` |
//! | an integer, `17` | its digits, `17` (and `0` for `-0`) |
//! | a boolean | `true` or `false` |
//! | null, or the field is missing | null with `on-bad-record: null`; otherwise a reject |
//! | a float, a list, an object or a lone surrogate | a reject, always |
//!
//! Example: `group-by: "origin, payload.kind"`, `aggregates: "count, sum(n)"`, and a record with
//! the Kafka timestamp 12:00:03. Its value `{"origin": "a", "payload": {"kind": 7}, "n": 5}` gives
//! the key columns `a` and `7`, the time 12:00:03 and the number 5. The value `{"origin": "a", "n":
//! 5.5}` gives a reject: `field "payload.kind" is missing`. The time comes first, then the key,
//! then the numbers, and the reason names the first fault.

use crate::count::json::{Fields, ValueKind};
use crate::values::record::Key;
use crate::values::shape::{Number, OnBadRecord, Shape, TimeUnit};
use crate::values::time::{EventTime, YEARS_2_TO_9998_MS, parse_rfc3339};

/// Takes records apart as a [`Shape`] says. Each lane has one. A record that is counted allocates
/// nothing.
pub struct Extractor {
    fields: Fields,
    /// The fields of the key columns, in order.
    columns: Vec<Field>,
    /// The field of the event time; `None` takes the Kafka timestamp.
    time: Option<(Field, TimeUnit)>,
    /// The fields of [`Shape::inputs`], in order.
    inputs: Vec<(Field, Number)>,
    /// Whether a key column without a value is null (`on-bad-record: null`) and not a reject.
    nulls: bool,
    /// The longest key, all columns together, in bytes of their UTF-8.
    max_key_bytes: u64,
    /// The key of the last record.
    key: Vec<u8>,
    /// The numbers of the last record.
    values: Vec<Option<i64>>,
    /// A buffer for a string with its escapes decoded.
    text: Vec<u8>,
}

/// A field that is wanted of every record.
struct Field {
    /// Its slot in [`Fields`].
    slot: usize,
    /// Its path as users write it, for reasons.
    path: String,
}

/// What a record's value gives.
#[derive(Debug, PartialEq, Eq)]
pub enum Extraction<'a> {
    /// The record can be counted, as far as its value says.
    Counted(ExtractedRecord<'a>),
    /// The record cannot be counted.
    Reject {
        /// Why, without any content of the value.
        reason: String,
        /// Its event time; `None` where that cannot be read.
        event_time: Option<EventTime>,
        /// For people: its event time; if that cannot be read, its Kafka timestamp, if it has one.
        time: Option<EventTime>,
    },
}

/// What was taken out of a record's value.
#[derive(Debug, PartialEq, Eq)]
pub struct ExtractedRecord<'a> {
    /// The key, encoded as [`Key`] says.
    pub key: &'a [u8],
    /// The event time.
    pub time: EventTime,
    /// One number for each of [`Shape::inputs`], in units of `10^-scale`. `None` means that the
    /// field is missing or null.
    pub values: &'a [Option<i64>],
}

impl Extractor {
    /// An extractor for the columns, the time field and the aggregates of `shape`.
    #[must_use]
    pub fn new(shape: &Shape) -> Self {
        let mut paths: Vec<&[String]> = shape
            .group_by
            .iter()
            .map(|column| column.path.as_slice())
            .collect();
        paths.extend(
            shape
                .timestamp_field
                .iter()
                .map(|field| field.path.as_slice()),
        );
        paths.extend(shape.inputs().map(|input| input.path.as_slice()));
        let fields = Fields::new(paths);
        let field = |path: &[String]| Field {
            slot: fields.slot(path),
            path: path.join("."),
        };
        Self {
            columns: shape
                .group_by
                .iter()
                .map(|column| field(&column.path))
                .collect(),
            time: shape
                .timestamp_field
                .as_ref()
                .map(|time| (field(&time.path), time.unit)),
            inputs: shape
                .inputs()
                .map(|input| (field(&input.path), input.number))
                .collect(),
            nulls: shape.on_bad_record == OnBadRecord::Null,
            max_key_bytes: shape.max_key_bytes,
            key: Vec::new(),
            values: Vec::new(),
            text: Vec::new(),
            fields,
        }
    }

    /// Takes one record apart. `timestamp_ms` is Kafka's, in ms since 1970; it is negative when the
    /// record has none.
    pub fn extract(&mut self, timestamp_ms: i64, value: &[u8]) -> Extraction<'_> {
        let kafka_time = kafka_time(timestamp_ms);
        let time = match self
            .read(value)
            .and_then(|()| self.event_time(timestamp_ms, value))
        {
            Ok(time) => time,
            Err(reason) => {
                return Extraction::Reject {
                    reason,
                    event_time: kafka_time.filter(|_| self.time.is_none()),
                    time: kafka_time,
                };
            }
        };
        match self.read_key(value).and_then(|()| self.read_inputs(value)) {
            Ok(()) => Extraction::Counted(ExtractedRecord {
                key: &self.key,
                time,
                values: &self.values,
            }),
            Err(reason) => Extraction::Reject {
                reason,
                event_time: Some(time),
                time: Some(time),
            },
        }
    }

    /// The event time of a record without a value. It has one where that is the Kafka timestamp.
    #[must_use]
    pub fn event_time_without_value(&self, timestamp_ms: i64) -> Option<EventTime> {
        kafka_time(timestamp_ms).filter(|_| self.time.is_none())
    }

    /// Reads the value as a JSON object.
    fn read(&mut self, value: &[u8]) -> Result<(), String> {
        self.fields
            .read(value)
            .map_err(|why| format!("the value is not JSON: {why}"))?;
        match self.fields.value(Fields::DOCUMENT).kind {
            ValueKind::Object => Ok(()),
            _ => Err("the value is not a JSON object".to_owned()),
        }
    }

    /// The event time of the record whose value was read last.
    fn event_time(&mut self, timestamp_ms: i64, value: &[u8]) -> Result<EventTime, String> {
        let Some((field, unit)) = &self.time else {
            return match timestamp_ms {
                ..0 => Err("the record has no Kafka timestamp".to_owned()),
                _ if YEARS_2_TO_9998_MS.contains(&timestamp_ms) => Ok(EventTime(timestamp_ms)),
                _ => Err("the Kafka timestamp is after the year 9998".to_owned()),
            };
        };
        let found = self.fields.value(field.slot);
        let ms = match (found.kind, unit) {
            (ValueKind::Integer | ValueKind::Float, _) if *unit != TimeUnit::Rfc3339 => {
                number_ms(found.raw(value), *unit)
            }
            (ValueKind::String | ValueKind::Escaped, TimeUnit::Auto | TimeUnit::Rfc3339) => {
                let text = self.fields.text(field.slot, value, &mut self.text);
                let Some(ms) = text.and_then(rfc3339_ms) else {
                    return Err(field.reason("is not an RFC 3339 time"));
                };
                Some(ms)
            }
            (kind, _) => return Err(field.refuse(kind)),
        };
        match ms {
            Some(ms) if YEARS_2_TO_9998_MS.contains(&ms) => Ok(EventTime(ms)),
            _ => Err(field.reason("is outside the years 2 to 9998")),
        }
    }

    /// Makes the key of the record whose value was read last.
    fn read_key(&mut self, value: &[u8]) -> Result<(), String> {
        self.key.clear();
        let mut bytes = 0;
        for (i, column) in self.columns.iter().enumerate() {
            let found = self.fields.value(column.slot);
            let text: Option<&[u8]> = match found.kind {
                ValueKind::String | ValueKind::Escaped => {
                    match self.fields.text(column.slot, value, &mut self.text) {
                        Some(text) => Some(text),
                        None => return Err(column.reason("has a lone surrogate")),
                    }
                }
                ValueKind::Integer => match found.raw(value) {
                    b"-0" => Some(b"0"),
                    digits => Some(digits),
                },
                ValueKind::True => Some(b"true"),
                ValueKind::False => Some(b"false"),
                ValueKind::Null | ValueKind::Missing if self.nulls => None,
                kind => return Err(column.refuse(kind)),
            };
            bytes += text.map_or(0, <[u8]>::len) as u64;
            // This is not left to the end of the loop, so that a key that is far too long is not
            // copied.
            if bytes <= self.max_key_bytes {
                Key::push_column(&mut self.key, text, i + 1 == self.columns.len());
            }
        }
        if bytes > self.max_key_bytes {
            return Err(format!(
                "the key has {bytes} bytes, more than max-key-bytes ({})",
                self.max_key_bytes
            ));
        }
        Ok(())
    }

    /// Takes the numbers of the record whose value was read last.
    fn read_inputs(&mut self, value: &[u8]) -> Result<(), String> {
        self.values.clear();
        for (field, number) in &self.inputs {
            let found = self.fields.value(field.slot);
            self.values.push(match (found.kind, *number) {
                (ValueKind::Missing | ValueKind::Null, _) => None,
                (ValueKind::Integer, Number::Integer) => match scaled(found.raw(value), 0) {
                    Some((n, _)) => Some(n),
                    None => return Err(field.reason("does not fit in 64 bits")),
                },
                (ValueKind::Integer | ValueKind::Float, Number::Decimal { precision, scale }) => {
                    Some(
                        decimal(found.raw(value), precision, scale)
                            .map_err(|problem| field.reason(&problem))?,
                    )
                }
                (_, Number::Integer) => return Err(field.reason("is not an integer")),
                (_, Number::Decimal { .. }) => return Err(field.reason("is not a decimal number")),
            });
        }
        Ok(())
    }
}

impl Field {
    /// The reason of a reject: the field and what is wrong with it.
    #[cold]
    fn reason(&self, problem: &str) -> String {
        format!("field \"{}\" {problem}", self.path)
    }

    /// The reason of a reject whose field holds a kind of value that does not belong there.
    #[cold]
    fn refuse(&self, kind: ValueKind) -> String {
        self.reason(match kind {
            ValueKind::Missing => "is missing",
            ValueKind::Null => "is null",
            ValueKind::True | ValueKind::False => "is a boolean",
            ValueKind::Integer => "is an integer",
            ValueKind::Float | ValueKind::NotFinite => "is a float",
            ValueKind::String | ValueKind::Escaped => "is a string",
            ValueKind::List => "is a list",
            ValueKind::Object => "is an object",
        })
    }
}

/// The Kafka timestamp as a time; `None` where the record has none, or one that is not usable.
fn kafka_time(timestamp_ms: i64) -> Option<EventTime> {
    let usable = timestamp_ms >= 0 && YEARS_2_TO_9998_MS.contains(&timestamp_ms);
    usable.then_some(EventTime(timestamp_ms))
}

/// The time in ms that a JSON number gives. It is rounded down from the number's text and never
/// goes through a float. `None` means that it does not fit.
///
/// Example: `1725219735.1239` in seconds is 1725219735123 ms.
fn number_ms(text: &[u8], unit: TimeUnit) -> Option<i64> {
    let power = match unit {
        TimeUnit::Seconds => 3,
        TimeUnit::Millis => 0,
        TimeUnit::Micros => -3,
        TimeUnit::Auto | TimeUnit::Rfc3339 => {
            let (floor, exact) = scaled(text, 0)?;
            // Rounded towards zero, so that a time and its negative get the same unit.
            match (floor + i64::from(floor < 0 && !exact)).unsigned_abs() {
                0..100_000_000_000 => 3,
                100_000_000_000..100_000_000_000_000 => 0,
                _ => -3,
            }
        }
    };
    scaled(text, power).map(|(ms, _)| ms)
}

/// The time in ms that an RFC 3339 text gives, rounded down; `None` when it is not such a text.
fn rfc3339_ms(text: &[u8]) -> Option<i64> {
    parse_rfc3339(std::str::from_utf8(text).ok()?).map(|time| time.0)
}

/// A JSON number as an exact integer in units of `10^-scale`.
///
/// Example: `1.5` with the scale 2 is 150; `1.234` is refused.
///
/// # Errors
/// Why the number does not have that precision and scale, as the end of a sentence.
fn decimal(text: &[u8], precision: u8, scale: u8) -> Result<i64, String> {
    match scaled(text, i64::from(scale)) {
        Some((n, exact)) if n.unsigned_abs() < 10_u64.pow(u32::from(precision)) => {
            if exact {
                Ok(n)
            } else {
                Err(format!("has more than {scale} digits after the point"))
            }
        }
        _ => Err(format!(
            "has more than {} digits before the point",
            precision - scale
        )),
    }
}

/// A JSON number times `10^power`, rounded down, and whether the result is exact. `None` means that
/// it does not fit in an i64.
///
/// Example: `-1.25` with the power 1 is -13, not exact; `12300e-4` with the power 2 is 123, exact.
fn scaled(text: &[u8], power: i64) -> Option<(i64, bool)> {
    let (mantissa, exponent) = match text.iter().position(|b| matches!(b, b'e' | b'E')) {
        Some(at) => (&text[..at], read_exponent(&text[at + 1..])),
        None => (text, 0),
    };
    let (negative, mantissa) = match mantissa.strip_prefix(b"-") {
        Some(mantissa) => (true, mantissa),
        None => (false, mantissa),
    };
    let whole = mantissa
        .iter()
        .position(|&b| b == b'.')
        .unwrap_or(mantissa.len());
    // The number of digits before the point, once it has moved. It cannot overflow: no text is as
    // long as i64's range, and `read_exponent` keeps the exponent far from its ends.
    let mut before = whole as i64 + exponent + power;
    let (mut n, mut exact) = (0_u64, true);
    for digit in mantissa
        .iter()
        .filter(|b| b.is_ascii_digit())
        .map(|b| b - b'0')
    {
        if before > 0 {
            n = n.checked_mul(10)?.checked_add(u64::from(digit))?;
        } else {
            exact &= digit == 0;
        }
        before -= 1;
    }
    while before > 0 && n != 0 {
        n = n.checked_mul(10)?;
        before -= 1;
    }
    let n = i128::from(n);
    let floor = if negative { -n - i128::from(!exact) } else { n };
    Some((i64::try_from(floor).ok()?, exact))
}

/// The exponent of a JSON number, which is the text after its `e`. Past ten billion its size makes
/// no difference any more: zero stays zero, and every other number vanishes or does not fit.
fn read_exponent(text: &[u8]) -> i64 {
    let digits = text.iter().filter(|b| b.is_ascii_digit());
    let size = digits.fold(0, |n: i64, b| {
        (n * 10 + i64::from(b - b'0')).min(10_000_000_000)
    });
    if text[0] == b'-' { -size } else { size }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::record::key_columns;
    use crate::values::shape::{Aggregate, Column, Function, TimeField};
    use serde_json::Value;

    /// 2024-09-01T10:00:00Z
    const NOW: i64 = 1_725_184_800_000;

    fn path(text: &str) -> Vec<String> {
        text.split('.').map(str::to_owned).collect()
    }

    fn by_columns(paths: &[&str]) -> Shape {
        let column = |text: &&str| Column {
            path: path(text),
            name: text.replace('.', "_"),
        };
        Shape {
            group_by: paths.iter().map(column).collect(),
            ..Shape::count_by_origin("clicks", 10_000, 5000)
        }
    }

    fn by_time_field(unit: TimeUnit) -> Shape {
        Shape {
            timestamp_field: Some(TimeField {
                path: path("ts"),
                unit,
            }),
            ..by_columns(&["origin"])
        }
    }

    fn with_input(field: &str, number: Number) -> Shape {
        let mut shape = by_columns(&["origin"]);
        let sum = Aggregate {
            function: Function::Sum,
            path: path(field),
            number,
            name: format!("sum_{field}"),
        };
        shape.aggregates.push(sum);
        shape
    }

    /// The columns of the key, or the reason of the reject.
    fn key(extractor: &mut Extractor, value: &[u8]) -> Result<Vec<Option<String>>, String> {
        let columns = extractor.columns.len();
        match extractor.extract(NOW, value) {
            Extraction::Counted(counted) => Ok(key_columns(counted.key, columns)
                .into_iter()
                .map(|c| c.map(|c| c.into_owned()))
                .collect()),
            Extraction::Reject { reason, .. } => Err(reason),
        }
    }

    /// Compares the columns, joined by `|` with `-` for null, or the reason of the reject.
    fn check_key(shape: &Shape, value: &str, expect: &str) {
        let found = match key(&mut Extractor::new(shape), value.as_bytes()) {
            Ok(columns) => columns
                .iter()
                .map(|c| c.as_deref().unwrap_or("-"))
                .collect::<Vec<_>>()
                .join("|"),
            Err(reason) => reason,
        };
        assert_eq!(found, expect, "{value}");
    }

    /// Compares the event time, or the reason of the reject.
    fn check_time(unit: TimeUnit, ts: &str, expect: &str) {
        let value = format!("{{\"origin\": \"a\", \"ts\": {ts}}}");
        let found = match Extractor::new(&by_time_field(unit)).extract(NOW, value.as_bytes()) {
            Extraction::Counted(counted) => counted.time.to_string(),
            Extraction::Reject { reason, time, .. } => {
                assert_eq!(
                    time,
                    Some(EventTime(NOW)),
                    "Kafka's timestamp stands in for {ts}"
                );
                reason
            }
        };
        assert_eq!(found, expect, "{ts}");
    }

    /// Compares the integer that is kept, `-` for none, or the reason of the reject.
    fn check_input(number: Number, x: &str, expect: &str) {
        let value = format!("{{\"origin\": \"a\", \"x\": {x}}}");
        let found = match Extractor::new(&with_input("x", number)).extract(NOW, value.as_bytes()) {
            Extraction::Counted(counted) => {
                counted.values[0].map_or("-".to_owned(), |n| n.to_string())
            }
            Extraction::Reject { reason, .. } => reason,
        };
        assert_eq!(found, expect, "{x}");
    }

    #[test]
    fn keys_are_what_python_reads() {
        let answers = include_str!("../../../tests/data/json_loads.jsonl");
        let mut extractor = Extractor::new(&by_columns(&["origin"]));
        for line in answers.lines() {
            let (document, answer): (String, Value) = serde_json::from_str(line).unwrap();
            let value: Vec<u8> = document.chars().map(|c| u8::try_from(c).unwrap()).collect();
            let found = key(&mut extractor, &value);
            let as_expected = match (&answer, &found) {
                (Value::Array(key), Ok(columns)) => columns[0].as_deref() == key[1].as_str(),
                (Value::String(answer), Err(reason)) => match answer.as_str() {
                    "error" => reason.starts_with("the value is not JSON: "),
                    "not an object" => reason == "the value is not a JSON object",
                    "missing" => reason == "field \"origin\" is missing",
                    "null" => reason == "field \"origin\" is null",
                    "float" => reason == "field \"origin\" is a float",
                    "list" => reason == "field \"origin\" is a list",
                    "object" => reason == "field \"origin\" is an object",
                    "surrogate" => reason == "field \"origin\" has a lone surrogate",
                    other => panic!("no such answer: {other}"),
                },
                _ => false,
            };
            assert!(
                as_expected,
                "{document:?}: Python says {answer}, we {found:?}"
            );
        }
    }

    /// What the mutated documents get in place of a piece of their own.
    fn pieces() -> Vec<&'static [u8]> {
        r#"" \ { } [ ] , : . - e E 0 1 9 \u "origin" "origin": null true"#
            .split(' ')
            .map(str::as_bytes)
            .chain([
                &b" "[..],
                b"\n",
                b"\0",
                b"\x1f",
                b"\x7f",
                b"\x80",
                b"\xc3\xa9",
                b"\xff",
            ])
            .collect()
    }

    #[test]
    fn mutated_documents_are_read_as_serde_json_reads_them() {
        let seeds = [
            concat!(
                r#"{"timestamp": 1725184800.123456, "_id": "0af3", "#,
                r#""origin": "producer-0 (10.1.63.230)", "content": "Message #17"}"#
            ),
            concat!(
                r#"{"origin":"é\u00e9\n\"\\\/","n":-0.5e-3,"ok":true,"no":false,"nil":null,"#,
                r#""l":[1,[2,{"origin":"x"}],"]"],"d":{"origin":{}}}"#
            ),
            concat!(
                r#" { "x" : [ ] , "origin" : 17 , "y" : { } , "#,
                r#""origin" : "b" , "long": "abcdefgh\tijklmnop" } "#
            ),
        ];
        let pieces = pieces();
        let mut state = 1_u64;
        let mut dice = |sides: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % sides
        };
        let mut extractor = Extractor::new(&by_columns(&["origin"]));
        let mut counted = 0;
        for _ in 0..100_000 {
            let mut value = seeds[dice(3)].as_bytes().to_vec();
            for _ in 0..[1, 1, 1, 2, 3, 8][dice(6)] {
                let at = dice(value.len() + 1);
                let to = (at + [0, 0, 1, 1, 2, 30][dice(6)]).min(value.len());
                value.splice(at..to, pieces[dice(pieces.len())].iter().copied());
            }
            let found = key(&mut extractor, &value);
            counted += u32::from(found.is_ok());
            let reason = found.as_ref().err().map(String::as_str);
            let as_expected = match serde_json::from_slice::<Value>(&value) {
                // serde_json refuses some documents that Python takes; json_loads.jsonl has them.
                Err(error) if error.to_string().contains("out of range") => true,
                Err(_) => {
                    reason.is_some_and(|reason| reason.starts_with("the value is not JSON: "))
                }
                Ok(Value::Object(fields)) => match fields.get("origin") {
                    None => reason == Some("field \"origin\" is missing"),
                    Some(Value::String(text)) => found == Ok(vec![Some(text.clone())]),
                    Some(Value::Bool(bool)) => found == Ok(vec![Some(bool.to_string())]),
                    // serde_json does not keep the text of -0 and of integers past 64 bits.
                    Some(Value::Number(n)) if n.is_f64() => {
                        found.is_ok() || reason == Some("field \"origin\" is a float")
                    }
                    Some(Value::Number(n)) => found == Ok(vec![Some(n.to_string())]),
                    Some(Value::Null) => reason == Some("field \"origin\" is null"),
                    Some(Value::Array(_)) => reason == Some("field \"origin\" is a list"),
                    Some(Value::Object(_)) => reason == Some("field \"origin\" is an object"),
                },
                Ok(_) => reason == Some("the value is not a JSON object"),
            };
            assert!(as_expected, "{}: {found:?}", value.escape_ascii());
        }
        assert!(
            counted > 10_000,
            "only {counted} documents were well-formed"
        );
    }

    #[test]
    fn no_nesting_overflows_the_stack() {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let nested = |depth: usize| {
                format!(
                    "{{\"origin\":\"a\",\"b\":{}1{}}}",
                    open.repeat(depth),
                    close.repeat(depth)
                )
            };
            let shape = by_columns(&["origin"]);
            check_key(&shape, &nested(999), "a");
            check_key(
                &shape,
                &nested(1000),
                "the value is not JSON: it is nested too deeply",
            );
            check_key(
                &shape,
                &nested(1_000_000),
                "the value is not JSON: it is nested too deeply",
            );
            check_key(
                &shape,
                &open.repeat(1_000_000),
                "the value is not JSON: it is nested too deeply",
            );
        }
    }

    #[test]
    fn documents_that_end_early_are_told_apart() {
        let shape = by_columns(&["origin"]);
        for (value, why) in [
            ("", "it ends too early"),
            ("{\"origin\": ", "it ends too early"),
            ("{\"origin\": \"abcdefgh", "a string has no end"),
            ("{\"origin\": \"a\"", "there is no comma or } after a value"),
            ("{\"origin\": \"a\"}}", "there is more after its end"),
            (
                "{\"origin\": \"a\tb\"}",
                "a string has a control character that is not escaped",
            ),
            ("{\"origin\": \"a\\x\"}", "a string has an invalid escape"),
            ("{\"origin\": 'a'}", "a value is missing or not valid"),
        ] {
            check_key(&shape, value, &format!("the value is not JSON: {why}"));
        }
        assert_eq!(
            key(&mut Extractor::new(&shape), b"\xff\xfe{\0}\0"),
            Err("the value is not JSON: it is not UTF-8".to_owned())
        );
    }

    #[test]
    fn paths_walk_nested_objects_and_the_last_object_wins_as_a_whole() {
        let shape = by_columns(&["payload.kind", "payload", "payload.user.id"]);
        let kind = by_columns(&["payload.kind"]);
        check_key(&kind, r#"{"payload": {"kind": "a"}}"#, "a");
        check_key(
            &kind,
            r#"{"payload.kind": "a"}"#,
            "field \"payload.kind\" is missing",
        );
        check_key(
            &kind,
            r#"{"payload": [{"kind": "a"}]}"#,
            "field \"payload.kind\" is missing",
        );
        check_key(
            &kind,
            r#"{"payload": {"kind": "a"}, "payload": {}}"#,
            "field \"payload.kind\" is missing",
        );
        check_key(
            &kind,
            r#"{"payload": {"kind": "a"}, "payload": null}"#,
            "field \"payload.kind\" is missing",
        );
        check_key(
            &kind,
            r#"{"payload": {"kind": "a", "kind": "b"}, "x": {"kind": "c"}}"#,
            "b",
        );
        check_key(
            &kind,
            r#"{"payload": {"payload": {"kind": "b"}, "k\u0069nd": "a"}}"#,
            "a",
        );
        check_key(
            &shape,
            r#"{"payload": {"kind": "a"}}"#,
            "field \"payload\" is an object",
        );
        let nulls = Shape {
            on_bad_record: OnBadRecord::Null,
            ..shape
        };
        check_key(&nulls, r#"{"payload": "p"}"#, "-|p|-");
        check_key(
            &nulls,
            r#"{"payload": {"user": {"id": 7}}, "payload": null}"#,
            "-|-|-",
        );
        check_key(&nulls, r#"{"payload": [1]}"#, "field \"payload\" is a list");
        let users = Shape {
            on_bad_record: OnBadRecord::Null,
            ..by_columns(&["payload.user.id", "payload.kind"])
        };
        check_key(
            &users,
            r#"{"payload": {"user": {"id": -0}, "kind": true}}"#,
            "0|true",
        );
        check_key(
            &users,
            r#"{"payload": {"user": {"id": 1}, "kind": "a", "user": 2}}"#,
            "-|a",
        );
    }

    #[test]
    fn null_columns_are_for_missing_and_null_alone() {
        let nulls = Shape {
            on_bad_record: OnBadRecord::Null,
            ..by_columns(&["a", "b"])
        };
        check_key(&nulls, "{}", "-|-");
        check_key(&nulls, r#"{"a": null, "b": ""}"#, "-|");
        check_key(&nulls, r#"{"a": "\u0000", "b": "x\u0000y"}"#, "\0|x\0y");
        check_key(&nulls, r#"{"a": 1.0}"#, "field \"a\" is a float");
        check_key(
            &nulls,
            r#"{"a": "\udc00"}"#,
            "field \"a\" has a lone surrogate",
        );
        check_key(&nulls, "[]", "the value is not a JSON object");
        let fail = Shape {
            on_bad_record: OnBadRecord::Fail,
            ..nulls
        };
        check_key(&fail, r#"{"a": null}"#, "field \"a\" is null");
    }

    #[test]
    fn key_bytes_have_a_limit_over_all_columns() {
        let shape = Shape {
            max_key_bytes: 5,
            ..by_columns(&["a", "b"])
        };
        check_key(&shape, r#"{"a": "xyz", "b": 12}"#, "xyz|12");
        check_key(&shape, r#"{"a": "xyz", "b": "\u00e9"}"#, "xyz|é");
        check_key(
            &shape,
            r#"{"a": "xyz", "b": 123}"#,
            "the key has 6 bytes, more than max-key-bytes (5)",
        );
        check_key(
            &shape,
            r#"{"a": "xyzxyz", "b": true}"#,
            "the key has 10 bytes, more than max-key-bytes (5)",
        );
    }

    #[test]
    fn kafka_timestamps_are_event_time_unless_a_field_is() {
        let mut extractor = Extractor::new(&by_columns(&["origin"]));
        let mut say =
            |timestamp_ms, value: &str| match extractor.extract(timestamp_ms, value.as_bytes()) {
                Extraction::Counted(counted) => counted.time.to_string(),
                Extraction::Reject { reason, time, .. } => {
                    format!(
                        "{reason} {}",
                        time.map_or("-".to_owned(), |t| t.to_string())
                    )
                }
            };
        assert_eq!(say(NOW + 1, r#"{"origin": 1}"#), "2024-09-01T10:00:00.001Z");
        assert_eq!(say(0, r#"{"origin": 1}"#), "1970-01-01T00:00:00Z");
        assert_eq!(
            say(-1, r#"{"origin": 1}"#),
            "the record has no Kafka timestamp -"
        );
        assert_eq!(
            say(i64::MAX, r#"{"origin": 1}"#),
            "the Kafka timestamp is after the year 9998 -"
        );
        assert_eq!(
            say(NOW, "{}"),
            "field \"origin\" is missing 2024-09-01T10:00:00Z"
        );
        assert_eq!(say(-1, "[]"), "the value is not a JSON object -");
        let mut extractor = Extractor::new(&by_time_field(TimeUnit::Millis));
        let found = extractor.extract(-1, br#"{"ts": 5}"#);
        assert_eq!(
            found,
            Extraction::Reject {
                reason: "field \"origin\" is missing".to_owned(),
                event_time: Some(EventTime(5)),
                time: Some(EventTime(5))
            }
        );
    }

    #[test]
    fn a_reject_has_an_event_time_only_where_that_was_read() {
        let event_time = |shape: &Shape, kafka_ms, value: &str| match Extractor::new(shape)
            .extract(kafka_ms, value.as_bytes())
        {
            Extraction::Reject { event_time, .. } => event_time,
            Extraction::Counted(_) => panic!("{value} is counted"),
        };
        let (by_kafka, by_field) = (by_columns(&["origin"]), by_time_field(TimeUnit::Millis));
        let now = Some(EventTime(NOW));
        assert_eq!(event_time(&by_kafka, NOW, "{}"), now, "a bad key");
        assert_eq!(event_time(&by_kafka, NOW, "{"), now, "no JSON");
        assert_eq!(event_time(&by_kafka, -1, "{"), None, "no timestamp");
        let far = YEARS_2_TO_9998_MS.end() + 1;
        assert_eq!(event_time(&by_kafka, far, "{}"), None, "no usable one");
        assert_eq!(
            event_time(&by_field, NOW, "{\"ts\": 5}"),
            Some(EventTime(5))
        );
        for unreadable in [
            "{\"origin\": \"a\"}",
            "{\"origin\": \"a\", \"ts\": []}",
            "{",
        ] {
            assert_eq!(event_time(&by_field, NOW, unreadable), None, "{unreadable}");
        }
        let tombstone = |shape| Extractor::new(shape).event_time_without_value(NOW);
        assert_eq!((tombstone(&by_kafka), tombstone(&by_field)), (now, None));
    }

    #[test]
    fn time_numbers_are_read_from_their_digits_and_rounded_down() {
        use TimeUnit::{Auto, Micros, Millis, Rfc3339, Seconds};
        check_time(Seconds, "1725219735.123456", "2024-09-01T19:42:15.123Z");
        check_time(
            Seconds,
            "1725219735.1239999999999999999999",
            "2024-09-01T19:42:15.123Z",
        );
        check_time(Seconds, "1725219735", "2024-09-01T19:42:15Z");
        check_time(Seconds, "1.725219735123456e9", "2024-09-01T19:42:15.123Z");
        check_time(Seconds, "172521973512e-2", "2024-09-01T19:42:15.120Z");
        check_time(Seconds, "-0.0001", "1969-12-31T23:59:59.999Z");
        check_time(Seconds, "-1", "1969-12-31T23:59:59Z");
        check_time(Seconds, "-0", "1970-01-01T00:00:00Z");
        check_time(Millis, "1725219735123.9", "2024-09-01T19:42:15.123Z");
        check_time(Micros, "1725219735123999", "2024-09-01T19:42:15.123Z");
        check_time(Auto, "99999999999", "5138-11-16T09:46:39Z");
        check_time(Auto, "100000000000", "1973-03-03T09:46:40Z");
        check_time(Auto, "99999999999999", "5138-11-16T09:46:39.999Z");
        check_time(Auto, "100000000000000", "1973-03-03T09:46:40Z");
        check_time(Auto, "-99999999.5", "1966-10-31T14:13:20.500Z");
        check_time(Auto, "-100000000000", "1966-10-31T14:13:20Z");
        check_time(Seconds, "253370764799.999", "9998-12-31T23:59:59.999Z");
        check_time(Seconds, "-62104060800", "0002-01-01T00:00:00Z");
        for beyond in [
            "253370764800",
            "-62104060801",
            "1e999999999999999999999",
            "99999999999999999999",
            "-9e18",
        ] {
            check_time(
                Seconds,
                beyond,
                "field \"ts\" is outside the years 2 to 9998",
            );
        }
        check_time(Seconds, "0e999999999999999999999", "1970-01-01T00:00:00Z");
        check_time(Seconds, "1e-999999999999999999999", "1970-01-01T00:00:00Z");
        check_time(Seconds, "NaN", "field \"ts\" is a float");
        check_time(Seconds, "null", "field \"ts\" is null");
        check_time(Seconds, "true", "field \"ts\" is a boolean");
        check_time(Seconds, "\"1\"", "field \"ts\" is a string");
        check_time(Rfc3339, "1", "field \"ts\" is an integer");
        check_time(Rfc3339, "1, \"ts\": []", "field \"ts\" is a list");
    }

    #[test]
    fn times_that_readers_of_the_table_cannot_show_are_rejects() {
        let outside = "field \"ts\" is outside the years 2 to 9998";
        for (time, expected) in [
            // .NET's date that was never set.
            (r#""0001-01-01T00:00:00Z""#, outside),
            (r#""0001-12-31T23:59:59Z""#, outside),
            (r#""0002-01-01T00:00:00Z""#, "0002-01-01T00:00:00Z"),
            (r#""9998-12-31T23:59:59Z""#, "9998-12-31T23:59:59Z"),
            (r#""9999-12-31T23:59:59.999Z""#, outside),
        ] {
            check_time(TimeUnit::Auto, time, expected);
        }
    }

    #[test]
    fn time_strings_are_rfc_3339() {
        use TimeUnit::{Auto, Rfc3339};
        check_time(Rfc3339, r#""2024-09-01T19:42:15Z""#, "2024-09-01T19:42:15Z");
        check_time(
            Auto,
            r#""2024-09-01T19:42:15.123999+02:00""#,
            "2024-09-01T17:42:15.123Z",
        );
        check_time(
            Auto,
            r#""2024-09-01T19:42:15.123-00:30\u005a""#,
            "field \"ts\" is not an RFC 3339 time",
        );
        check_time(
            Auto,
            r#""2024-09-01T19:42:15\u005a""#,
            "2024-09-01T19:42:15Z",
        );
        check_time(
            Auto,
            r#""1969-12-31T23:59:59.9999Z""#,
            "1969-12-31T23:59:59.999Z",
        );
        check_time(
            Auto,
            r#""9998-12-31T23:59:59-01:00""#,
            "field \"ts\" is outside the years 2 to 9998",
        );
        for bad in [
            "",
            "2024-09-01",
            "2024-09-01T19:42:15",
            "2024-02-30T00:00:00Z",
            "1725219735",
            "\\ud800",
        ] {
            check_time(
                Auto,
                &format!("\"{bad}\""),
                "field \"ts\" is not an RFC 3339 time",
            );
        }
    }

    #[test]
    fn integer_inputs_are_exact_or_refused() {
        let integer = |x, expect| check_input(Number::Integer, x, expect);
        integer("5", "5");
        integer("-0", "0");
        integer("9223372036854775807", "9223372036854775807");
        integer("-9223372036854775808", "-9223372036854775808");
        integer("9223372036854775808", "field \"x\" does not fit in 64 bits");
        integer(
            "-9223372036854775809",
            "field \"x\" does not fit in 64 bits",
        );
        integer(
            "99999999999999999999999",
            "field \"x\" does not fit in 64 bits",
        );
        integer("null", "-");
        integer("1, \"x\": null", "-");
        for odd in [
            "5.0",
            "5e0",
            "NaN",
            "-Infinity",
            "\"5\"",
            "true",
            "[5]",
            "{}",
        ] {
            integer(odd, "field \"x\" is not an integer");
        }
    }

    #[test]
    fn decimal_inputs_are_exact_or_refused() {
        let decimal = |x, expect| {
            check_input(
                Number::Decimal {
                    precision: 5,
                    scale: 2,
                },
                x,
                expect,
            )
        };
        decimal("5", "500");
        decimal("-1.5", "-150");
        decimal("1.2300000", "123");
        decimal("999.99", "99999");
        decimal("-999.99", "-99999");
        decimal("1.23e1", "1230");
        decimal("12300e-4", "123");
        decimal("0.000e99", "0");
        decimal("null", "-");
        decimal(
            "1.234",
            "field \"x\" has more than 2 digits after the point",
        );
        decimal(
            "-0.001",
            "field \"x\" has more than 2 digits after the point",
        );
        decimal(
            "1e-99",
            "field \"x\" has more than 2 digits after the point",
        );
        decimal(
            "1000",
            "field \"x\" has more than 3 digits before the point",
        );
        decimal(
            "1e99",
            "field \"x\" has more than 3 digits before the point",
        );
        for odd in ["NaN", "Infinity", "\"5\"", "false", "[]", "{}"] {
            decimal(odd, "field \"x\" is not a decimal number");
        }
        check_input(
            Number::Decimal {
                precision: 18,
                scale: 18,
            },
            "0.999999999999999999",
            "999999999999999999",
        );
    }

    #[test]
    fn one_extractor_forgets_the_record_before() {
        let mut extractor = Extractor::new(&with_input("x", Number::Integer));
        let mut say = |value: &str| match extractor.extract(NOW, value.as_bytes()) {
            Extraction::Counted(counted) => {
                format!("{:?} {:?}", Key(counted.key.into()), counted.values)
            }
            Extraction::Reject { reason, .. } => reason,
        };
        assert_eq!(say(r#"{"origin": "a", "x": 1}"#), r"Key(\x01a) [Some(1)]");
        assert_eq!(say(r#"{"origin": "b"}"#), r"Key(\x01b) [None]");
        assert_eq!(say(r#"{"x": 1}"#), "field \"origin\" is missing");
        assert_eq!(
            say(r#"{"origin": "c", "x":"#),
            "the value is not JSON: it ends too early"
        );
        assert_eq!(say(r#"{"origin": "d", "x": 2}"#), r"Key(\x01d) [Some(2)]");
    }

    /// `cargo test --release --lib -- --ignored --nocapture timing_of_a_record`
    #[expect(clippy::disallowed_methods, reason = "it measures")]
    #[test]
    #[ignore = "a timing"]
    fn timing_of_a_record() {
        const RECORDS: u32 = 50_000;
        let value = |i: u32| {
            let id = u64::from(i).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            format!(
                concat!(
                    r#"{{"timestamp": 17251848{:02}.{:06}, "_id": "{:016x}{:016x}", "#,
                    r#""origin": "producer-{} (10.1.63.{})", "content": "Message #{}"}}"#
                ),
                i % 100,
                i,
                id,
                !id,
                i % 10,
                i % 250,
                i
            )
        };
        let values: Vec<String> = (0..RECORDS).map(value).collect();
        let mut extractor = Extractor::new(&by_columns(&["origin"]));
        let mut best = f64::MAX;
        for _ in 0..200 {
            let start = std::time::Instant::now();
            for value in &values {
                let found = std::hint::black_box(extractor.extract(NOW, value.as_bytes()));
                assert!(matches!(found, Extraction::Counted(_)));
            }
            best = best.min(start.elapsed().as_secs_f64() * 1e9 / f64::from(RECORDS));
        }
        println!("{best:.0} ns a record");
    }
}
