//! A record's value becomes its key, its event time and its numbers, or a reject with a reason.
//! Tombstones, the ceiling of event times and the number of keys are the lane's concern.

use crate::json::{Fields, Kind};
use crate::record::Key;
use crate::shape::{Number, OnBadRecord, Shape, TimeUnit};
use crate::time::EventTime;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Event times that are counted, in ms: the years 1 to 9999, which RFC 3339 and every reader of the table can write.
const TIME_MS: std::ops::RangeInclusive<i64> = -62_135_596_800_000..=253_402_300_799_999;

/// Takes records apart as a [`Shape`] says. One for each lane; a record that is counted allocates nothing.
pub struct Extractor {
    fields: Fields,
    columns: Vec<Field>,
    time: Option<(Field, TimeUnit)>,
    inputs: Vec<(Field, Number)>,
    /// Whether a key column without a value is null and not a reject.
    nulls: bool,
    max_key_bytes: u64,
    /// The last record's key and values.
    key: Vec<u8>,
    values: Vec<Option<i64>>,
    /// A string with its escapes decoded.
    text: Vec<u8>,
}

struct Field {
    slot: usize,
    /// The path as users write it, for reasons.
    path: String,
}

/// What a record says.
#[derive(Debug, PartialEq, Eq)]
pub enum Extraction<'a> {
    Counted(Extracted<'a>),
    /// Why it cannot be counted, without a word of its value, and its event time; if that cannot be read its Kafka
    /// timestamp, if it has one.
    Reject { reason: String, time: Option<EventTime> },
}

#[derive(Debug, PartialEq, Eq)]
pub struct Extracted<'a> {
    /// Bytes as of [`Key`].
    pub key: &'a [u8],
    pub time: EventTime,
    /// One for each of [`Shape::inputs`], in units of `10^-scale`; `None` is missing or null.
    pub values: &'a [Option<i64>],
}

impl Extractor {
    #[must_use]
    pub fn new(shape: &Shape) -> Self {
        let mut paths: Vec<&[String]> = shape.group_by.iter().map(|column| column.path.as_slice()).collect();
        paths.extend(shape.timestamp_field.iter().map(|field| field.path.as_slice()));
        paths.extend(shape.inputs().map(|input| input.path.as_slice()));
        let fields = Fields::new(paths);
        let field = |path: &[String]| Field { slot: fields.slot(path), path: path.join(".") };
        Self {
            columns: shape.group_by.iter().map(|column| field(&column.path)).collect(),
            time: shape.timestamp_field.as_ref().map(|time| (field(&time.path), time.unit)),
            inputs: shape.inputs().map(|input| (field(&input.path), input.number)).collect(),
            nulls: shape.on_bad_record == OnBadRecord::Null,
            max_key_bytes: shape.max_key_bytes,
            key: Vec::new(),
            values: Vec::new(),
            text: Vec::new(),
            fields,
        }
    }

    /// Takes one record apart; `timestamp_ms` is Kafka's, negative when there is none.
    pub fn extract(&mut self, timestamp_ms: i64, value: &[u8]) -> Extraction<'_> {
        let kafka_time = (timestamp_ms >= 0 && TIME_MS.contains(&timestamp_ms)).then_some(EventTime(timestamp_ms));
        let time = match self.read(value).and_then(|()| self.event_time(timestamp_ms, value)) {
            Ok(time) => time,
            Err(reason) => return Extraction::Reject { reason, time: kafka_time },
        };
        match self.read_key(value).and_then(|()| self.read_inputs(value)) {
            Ok(()) => Extraction::Counted(Extracted { key: &self.key, time, values: &self.values }),
            Err(reason) => Extraction::Reject { reason, time: Some(time) },
        }
    }

    fn read(&mut self, value: &[u8]) -> Result<(), String> {
        self.fields.read(value).map_err(|why| format!("value is not JSON: {why}"))?;
        match self.fields.found(Fields::DOCUMENT).kind {
            Kind::Object => Ok(()),
            _ => Err("value is no object".to_owned()),
        }
    }

    fn event_time(&mut self, timestamp_ms: i64, value: &[u8]) -> Result<EventTime, String> {
        let Some((field, unit)) = &self.time else {
            return match timestamp_ms {
                ..0 => Err("no timestamp".to_owned()),
                _ if TIME_MS.contains(&timestamp_ms) => Ok(EventTime(timestamp_ms)),
                _ => Err("timestamp is past the year 9999".to_owned()),
            };
        };
        let found = self.fields.found(field.slot);
        let ms = match (found.kind, unit) {
            (Kind::Integer | Kind::Float, _) if *unit != TimeUnit::Rfc3339 => number_ms(found.raw(value), *unit),
            (Kind::String | Kind::Escaped, TimeUnit::Auto | TimeUnit::Rfc3339) => {
                let text = found.text(value, &mut self.text);
                let Some(ms) = text.and_then(rfc3339_ms) else { return Err(field.reason("is not RFC 3339")) };
                Some(ms)
            }
            (kind, _) => return Err(field.refuse(kind)),
        };
        match ms {
            Some(ms) if TIME_MS.contains(&ms) => Ok(EventTime(ms)),
            _ => Err(field.reason("is outside the years 1 to 9999")),
        }
    }

    fn read_key(&mut self, value: &[u8]) -> Result<(), String> {
        self.key.clear();
        let mut bytes = 0;
        for (i, column) in self.columns.iter().enumerate() {
            let found = self.fields.found(column.slot);
            let text = match found.kind {
                Kind::String | Kind::Escaped => match found.text(value, &mut self.text) {
                    Some(text) => Some(text),
                    None => return Err(column.reason("has a lone surrogate")),
                },
                Kind::Integer => match found.raw(value) {
                    b"-0" => Some("0"),
                    digits => Some(std::str::from_utf8(digits).expect("digits are ASCII")),
                },
                Kind::True => Some("true"),
                Kind::False => Some("false"),
                Kind::Null | Kind::Missing if self.nulls => None,
                kind => return Err(column.refuse(kind)),
            };
            bytes += text.map_or(0, str::len) as u64;
            // Not after the loop: a key far too long need not be copied.
            if bytes <= self.max_key_bytes {
                Key::push_column(&mut self.key, text, i + 1 == self.columns.len());
            }
        }
        if bytes > self.max_key_bytes {
            return Err(format!("key of {bytes} bytes is longer than {}", self.max_key_bytes));
        }
        Ok(())
    }

    fn read_inputs(&mut self, value: &[u8]) -> Result<(), String> {
        self.values.clear();
        for (field, number) in &self.inputs {
            let found = self.fields.found(field.slot);
            self.values.push(match (found.kind, *number) {
                (Kind::Missing | Kind::Null, _) => None,
                (Kind::Integer, Number::Integer) => match scaled(found.raw(value), 0) {
                    Some((n, _)) => Some(n),
                    None => return Err(field.reason("does not fit 64 bits")),
                },
                (Kind::Integer | Kind::Float, Number::Decimal { precision, scale }) => {
                    Some(decimal(found.raw(value), precision, scale).map_err(|problem| field.reason(&problem))?)
                }
                (_, Number::Integer) => return Err(field.reason("is not an integer")),
                (_, Number::Decimal { .. }) => return Err(field.reason("is not a decimal number")),
            });
        }
        Ok(())
    }
}

impl Field {
    #[cold]
    fn reason(&self, problem: &str) -> String {
        format!("field \"{}\" {problem}", self.path)
    }

    /// The reason against a kind of value that does not belong here.
    #[cold]
    fn refuse(&self, kind: Kind) -> String {
        self.reason(match kind {
            Kind::Missing => return format!("no field \"{}\"", self.path),
            Kind::Null => "is null",
            Kind::True | Kind::False => "is a boolean",
            Kind::Integer => "is an integer",
            Kind::Float | Kind::NotFinite => "is a float",
            Kind::String | Kind::Escaped => "is a string",
            Kind::List => "is a list",
            Kind::Object => "is an object",
        })
    }
}

/// The time that a JSON number gives, rounded down from its text, never through a float; `None` when it does not fit.
fn number_ms(text: &[u8], unit: TimeUnit) -> Option<i64> {
    let power = match unit {
        TimeUnit::Seconds => 3,
        TimeUnit::Millis => 0,
        TimeUnit::Micros => -3,
        TimeUnit::Auto | TimeUnit::Rfc3339 => {
            let (floor, exact) = scaled(text, 0)?;
            // Towards zero, so that a time and its negative have one unit.
            match (floor + i64::from(floor < 0 && !exact)).unsigned_abs() {
                ..100_000_000_000 => 3,
                ..100_000_000_000_000 => 0,
                _ => -3,
            }
        }
    };
    scaled(text, power).map(|(ms, _)| ms)
}

fn rfc3339_ms(text: &str) -> Option<i64> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    i64::try_from(time.unix_timestamp_nanos().div_euclid(1_000_000)).ok()
}

/// A JSON number in units of `10^-scale`, exact.
///
/// # Errors
/// Why it is not of that precision and scale, as the end of a sentence.
fn decimal(text: &[u8], precision: u8, scale: u8) -> Result<i64, String> {
    match scaled(text, i64::from(scale)) {
        Some((n, exact)) if n.unsigned_abs() < 10_u64.pow(u32::from(precision)) => {
            if exact { Ok(n) } else { Err(format!("has more than {scale} decimals")) }
        }
        _ => Err(format!("has more than {} digits before the point", precision - scale)),
    }
}

/// A JSON number times `10^power`, rounded down, and whether that is exact; `None` when it does not fit.
fn scaled(text: &[u8], power: i64) -> Option<(i64, bool)> {
    let (mantissa, exponent) = match text.iter().position(|b| matches!(b, b'e' | b'E')) {
        Some(at) => (&text[..at], read_exponent(&text[at + 1..])),
        None => (text, 0),
    };
    let (negative, mantissa) = match mantissa.strip_prefix(b"-") {
        Some(mantissa) => (true, mantissa),
        None => (false, mantissa),
    };
    let whole = mantissa.iter().position(|&b| b == b'.').unwrap_or(mantissa.len());
    // Digits before the point, once it has moved. No text is longer than i64, and the exponent is far from its ends.
    let mut before = whole as i64 + exponent + power;
    let (mut n, mut exact) = (0_u64, true);
    for digit in mantissa.iter().filter(|b| b.is_ascii_digit()).map(|b| b - b'0') {
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

/// The exponent of a JSON number, after its `e`; past ten digits it is as good as any other, for zero stays zero and all
/// else vanishes or does not fit.
fn read_exponent(text: &[u8]) -> i64 {
    let digits = text.iter().filter(|b| b.is_ascii_digit());
    let size = digits.fold(0, |n: i64, b| (n * 10 + i64::from(b - b'0')).min(10_000_000_000));
    if text[0] == b'-' { -size } else { size }
}
