//! The modeled topic: logs that grow, expire at the front, and are cut off and written anew after
//! the cut. What a table makes of them is not known here.

use crate::rng::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use windrow_core::values::record::{Offset, Partition};
use windrow_core::values::shape::{OnBadRecord, Shape, TimeUnit};

/// The time at which the world begins, by all clocks, in ms since 1970.
pub const BASE: i64 = 1_700_000_000_000;

/// What a record's value says.
pub enum Value {
    /// A value that can be counted: the columns of its key, and its field `n`.
    Good {
        key: Vec<Option<String>>,
        n: Option<i64>,
    },
    /// A value that makes the record a reject.
    Broken,
    /// No value.
    Tombstone,
}

/// A record as the topic holds it.
pub struct LogRecord {
    /// Its event time in ms since 1970; -1 where none can be read.
    pub time: i64,
    /// Its Kafka timestamp in ms since 1970; -1 for none. Without a field for the time it is the
    /// event time.
    pub kafka_time: i64,
    /// What its value says, for the auditor.
    pub value: Value,
    /// The bytes of its value, for the engine; `None` for a tombstone.
    pub bytes: Option<Vec<u8>>,
    /// The leader epoch that it was written in.
    pub leader_epoch: i32,
}

/// One topic partition, whole. Readers see the offsets from `start` up to `visible`.
#[derive(Clone, Default)]
pub struct Log {
    /// All records, also those that have expired, because the auditor needs them.
    pub records: BTreeMap<Offset, Arc<LogRecord>>,
    /// The first offset that has not expired.
    pub start: Offset,
    /// The next offset to be written.
    pub end: Offset,
    /// The first offset that readers do not see yet.
    pub visible: Offset,
    /// A producer's transaction is open until then, in ms since the world began. Meanwhile nothing
    /// past `visible`, the last stable offset, is seen.
    pub open_until: u64,
    /// Nothing but records without a usable time comes in.
    pub is_unusable: bool,
    /// The topic does not have this topic partition before this time, in ms since the world began.
    pub exists_from: u64,
    /// The leader epochs, with the offset at which each begins.
    epochs: Vec<(i32, Offset)>,
    /// The log as it was before it was cut off; `None` when it never was.
    pub before: Option<Box<Log>>,
}

/// A topic. When it is deleted and made again, it has another id.
pub struct Topic {
    pub id: String,
    pub logs: BTreeMap<Partition, Log>,
}

impl Topic {
    /// Draws the topic that is made as the `nth`, at `now` ms since the world began.
    pub fn draw(rng: &mut Rng, shape: &Shape, nth: usize, now: u64) -> Self {
        let partitions = 1 + rng.below(3) as Partition;
        let logs = (0..partitions).map(|p| {
            let mut log = Log {
                epochs: vec![(0, 0)],
                ..Log::default()
            };
            if nth == 0 && p > 0 && rng.one_in(4) {
                log.exists_from = rng.below(60_000);
            }
            let time = BASE + now as i64 + rng.below(20_000) as i64;
            let most = if nth == 0 { 90 } else { 40 };
            log.is_unusable = p > 0 && shape.on_bad_record != OnBadRecord::Fail && rng.one_in(6);
            log.append(rng, shape, time, most);
            log.visible = rng.below(log.end as u64 + 1) as Offset;
            (p, log)
        });
        Self {
            id: format!("id{nth}"),
            logs: logs.collect(),
        }
    }
}

impl Log {
    /// Writes up to `most` records, the first one near `time`.
    fn append(&mut self, rng: &mut Rng, shape: &Shape, mut time: i64, most: u64) {
        let step = rng.pick(&[50, 400, 2500]);
        let disorder = rng.pick(&[0, 3000, 20_000]);
        let keys = rng.pick(&[1, 3, 8]);
        let leader_epoch = self.epochs.last().map_or(0, |e| e.0);
        let odd = odd_one_in(shape);
        for _ in 0..rng.below(most) {
            time += rng.below(step) as i64;
            let mut at = time - rng.below(disorder + 1) as i64;
            if rng.one_in(2 * odd) {
                at = rng.pick(&[-1, 253_370_764_799_000, time + 700_000]);
            }
            if rng.one_in(12) {
                self.end += 1 + rng.below(3) as Offset;
            }
            let kafka_time = at;
            let (mut value, mut bytes) = draw_value(rng, shape, keys, &mut at);
            let mut kafka_time = match &shape.timestamp_field {
                Some(_) => rng.pick(&[-1, kafka_time, time + 700_000]),
                None => kafka_time,
            };
            if self.is_unusable {
                (value, bytes) = (Value::Broken, Some(draw_broken(rng, false)));
                (at, kafka_time) = (-1, -1);
            }
            self.records.insert(
                self.end,
                Arc::new(LogRecord {
                    time: at,
                    kafka_time,
                    value,
                    bytes,
                    leader_epoch,
                }),
            );
            self.end += 1;
        }
        self.end += rng.below(2) as Offset;
    }

    /// Writes one more record that can be counted, at the event time `time`.
    pub fn append_good(&mut self, rng: &mut Rng, shape: &Shape, time: i64) {
        let (value, bytes) = loop {
            let mut said = time;
            let drawn = draw_value(rng, shape, 3, &mut said);
            if matches!(drawn.0, Value::Good { .. }) {
                break drawn;
            }
        };
        let kafka_time = match &shape.timestamp_field {
            Some(_) => rng.pick(&[-1, time]),
            None => time,
        };
        let record = LogRecord {
            time,
            kafka_time,
            value,
            bytes,
            leader_epoch: self.epochs.last().map_or(0, |e| e.0),
        };
        self.records.insert(self.end, Arc::new(record));
        self.end += 1;
    }

    /// Writes one more record without a usable time.
    pub fn append_unusable(&mut self) {
        let record = LogRecord {
            time: -1,
            kafka_time: -1,
            value: Value::Broken,
            bytes: Some(b"{}".to_vec()),
            leader_epoch: self.epochs.last().map_or(0, |e| e.0),
        };
        self.records.insert(self.end, Arc::new(record));
        self.end += 1;
    }

    /// The end of the log, past which nothing is replicated; it is greater than the last stable
    /// offset while a transaction is open.
    pub fn high_watermark(&self, now: u64) -> Offset {
        if now < self.open_until {
            self.end
        } else {
            self.visible
        }
    }

    /// Lets readers see all that was written, unless a transaction is open.
    pub fn show_all(&mut self, now: u64) {
        if now >= self.open_until {
            self.visible = self.end;
        }
    }

    /// Lets the front of the log expire, up to `to`.
    pub fn expire(&mut self, to: Offset) {
        self.start = self.start.max(to.min(self.visible));
    }

    /// Elects a leader that does not have the records from `at` on. Other records are written
    /// there.
    pub fn cut(&mut self, rng: &mut Rng, shape: &Shape, at: Offset) {
        self.before = Some(Box::new(self.clone()));
        self.records.split_off(&at);
        self.end = at;
        self.epochs
            .push((self.epochs.last().map_or(0, |e| e.0) + 1, at));
        let time = self
            .records
            .last_key_value()
            .map_or(BASE, |(_, r)| r.time.clamp(BASE, BASE + 300_000));
        self.append(rng, shape, time, 40);
        self.visible = at + rng.below((self.end - at) as u64 + 1) as Offset;
    }

    /// Where in `range` the one good record of this event time is; `None` where there is none, or
    /// where the log has such a time more than once.
    pub fn newest_at(&self, range: Range<Offset>, time: i64) -> Option<Offset> {
        let all = self.records.range(..range.end);
        let mut of_time = all.filter(|(_, record)| record.time == time);
        let (offset, record) = of_time.next()?;
        let good = matches!(record.value, Value::Good { .. });
        (good && range.contains(offset) && of_time.next().is_none()).then_some(*offset)
    }

    /// Gives the record at `offset` another time, under the same leader epoch: brokers were
    /// restored from a backup, and a producer has written it once more.
    pub fn rewrite(&mut self, offset: Offset, time: i64) {
        self.before = Some(Box::new(self.clone()));
        let old = &self.records[&offset];
        let Value::Good { key, n } = &old.value else {
            unreachable!("only a good record is written once more");
        };
        let record = LogRecord {
            time,
            kafka_time: time,
            value: Value::Good {
                key: key.clone(),
                n: *n,
            },
            bytes: old.bytes.clone(),
            leader_epoch: old.leader_epoch,
        };
        self.records.insert(offset, Arc::new(record));
    }

    /// The leader epochs, with the offset at which each begins.
    pub fn cuts(&self) -> &[(i32, Offset)] {
        &self.epochs
    }

    /// The leader epoch of an offset, whether or not a record is there.
    pub fn epoch_of(&self, offset: Offset) -> i32 {
        self.epochs
            .iter()
            .rev()
            .find(|e| e.1 <= offset)
            .map_or(-1, |e| e.0)
    }

    /// The logs that a reader of `range` may have seen, where this log was cut off: this one, the
    /// one before the cut, or one that changes from the one into the other on the way. It changes
    /// where reading began anew and the leader epoch of what had been read was not known: at the
    /// end of one of the `commits`, or behind an offset without a record. (What lies there, such as
    /// a transaction's marker, may be of any leader epoch.) No two of them have the same records in
    /// `range`.
    pub fn as_it_may_be_read(
        &self,
        range: Range<Offset>,
        commits: impl Iterator<Item = Offset>,
    ) -> Vec<Log> {
        let Some(before) = self.before.as_deref() else {
            return vec![self.clone()];
        };
        let cut = self.cuts().last().map_or(0, |(_, at)| *at);
        let unknown = (cut + 1..=before.end.min(range.end))
            .filter(|at| !before.records.contains_key(&(at - 1)));
        let ats: BTreeSet<Offset> = commits.filter(|at| *at > cut).chain(unknown).collect();
        let changed = ats.into_iter().map(|at| before.spliced(at, self));
        let mut seen = BTreeSet::new();
        [self.clone()]
            .into_iter()
            .chain(changed)
            .chain([before.clone()])
            .filter(|log| {
                let records = log.records.range(range.start..range.end.max(range.start));
                seen.insert(
                    records
                        .map(|(o, r)| (*o, Arc::as_ptr(r)))
                        .collect::<Vec<_>>(),
                )
            })
            .collect()
    }

    /// This log up to `at`, followed by the records of another log.
    fn spliced(&self, at: Offset, other: &Log) -> Log {
        let mut log = self.clone();
        log.records.split_off(&at);
        log.records
            .extend(other.records.range(at..).map(|(o, r)| (*o, Arc::clone(r))));
        log
    }

    /// The offset at which a leader epoch ends; `None` for an epoch that never was.
    pub fn epoch_end(&self, leader_epoch: i32) -> Option<Offset> {
        if self.epochs.last().is_none_or(|last| last.0 < leader_epoch) {
            return None;
        }
        Some(
            self.epochs
                .iter()
                .find(|e| e.0 > leader_epoch)
                .map_or(self.visible, |e| e.1),
        )
    }
}

/// Of how many records one is no ordinary one. Where the first such record ends counting, there are
/// few, or nothing else would be seen.
fn odd_one_in(shape: &Shape) -> u64 {
    match shape.on_bad_record {
        OnBadRecord::Fail => 800,
        OnBadRecord::Reject | OnBadRecord::Null => 30,
    }
}

/// Draws a value, and gives the bytes that say it. `time` is the record's event time. With a field
/// for the time the value says it, or leaves no time at all.
fn draw_value(rng: &mut Rng, shape: &Shape, keys: u64, time: &mut i64) -> (Value, Option<Vec<u8>>) {
    let nulls = shape.on_bad_record == OnBadRecord::Null;
    let mut fields = Vec::new();
    let said = shape.timestamp_field.as_ref().map(|field| {
        let text = (*time >= 0).then(|| time_text(rng, field.unit, *time));
        (std::mem::replace(time, -1), text)
    });
    match rng.below(odd_one_in(shape)) {
        0 => return (Value::Broken, Some(draw_broken(rng, nulls))),
        1 => return (Value::Tombstone, None),
        _ => {}
    }
    if let Some((at, text)) = said {
        let unreadable = ["null", "true", "\"yesterday\"", "[]", "1e300", ""];
        let text = match text {
            Some(text) => {
                *time = at;
                text
            }
            None => rng.pick(&unreadable).to_owned(),
        };
        if !text.is_empty() {
            fields.push(format!("\"at\": {text}"));
        }
    }
    let key = shape
        .group_by
        .iter()
        .map(|column| {
            let mut text = format!("{}{}", &column.name[..1], rng.below(keys));
            if rng.one_in(20) {
                text.push_str("-a-long-key");
            }
            let nested = column.path.len() > 1;
            let mut field = |value: &str| {
                fields.push(if nested {
                    format!(
                        "\"{}\": {{\"{}\": {value}}}",
                        column.path[0], column.path[1]
                    )
                } else {
                    format!("\"{}\": {value}", column.path[0])
                });
            };
            match rng.below(8) {
                0 if nulls => None,
                1 if nulls => {
                    field("null");
                    None
                }
                _ => {
                    field(&format!("\"{text}\""));
                    Some(text)
                }
            }
        })
        .collect();
    let n = (!rng.one_in(10)).then(|| rng.below(1000) as i64 - 300);
    let scale = shape.inputs().next().map_or(0, |a| a.number.scale());
    fields.extend(n.map(|n| format!("\"n\": {}", number_text(rng, n, scale))));
    (
        Value::Good { key, n },
        Some(format!("{{{}}}", fields.join(", ")).into_bytes()),
    )
}

/// A value that makes its record a reject. `nulls` says that a key without a value is no reason.
fn draw_broken(rng: &mut Rng, nulls: bool) -> Vec<u8> {
    let broken: &[&[u8]] = if nulls {
        &[
            b"{",
            b"[]",
            b"{\"origin\": 1.5}",
            b"{\"origin\": \"a\", \"kind\": \"a\", \"n\": \"1\"}",
            b"",
        ]
    } else {
        &[b"{", b"[]", b"{\"n\": 1}", b"{\"origin\": null}", b""]
    };
    rng.pick(broken).to_vec()
}

/// An event time as the field for it says it. Whoever guesses the unit by the size takes a number
/// of the year 9998 for microseconds, so that time is said in words.
fn time_text(rng: &mut Rng, unit: TimeUnit, ms: i64) -> String {
    let in_words = || {
        let nanos = i128::from(ms) * 1_000_000;
        let at = OffsetDateTime::from_unix_timestamp_nanos(nanos).expect("a year up to 9999");
        format!("\"{}\"", at.format(&Rfc3339).expect("it can be written"))
    };
    match unit {
        TimeUnit::Auto if ms > 99_999_999_999_999 => in_words(),
        TimeUnit::Auto => {
            let units = [
                TimeUnit::Seconds,
                TimeUnit::Millis,
                TimeUnit::Micros,
                TimeUnit::Rfc3339,
            ];
            let unit = rng.pick(&units);
            time_text(rng, unit, ms)
        }
        TimeUnit::Seconds => format!("{}.{:03}", ms / 1000, ms % 1000),
        TimeUnit::Millis => ms.to_string(),
        // What is less than a millisecond is cut off.
        TimeUnit::Micros => (ms * 1000 + rng.below(1000) as i64).to_string(),
        TimeUnit::Rfc3339 => in_words(),
    }
}

/// A number in units of `10^-scale` as JSON has it, with or without zeros at its end.
fn number_text(rng: &mut Rng, n: i64, scale: u8) -> String {
    let unit = 10_i64.pow(scale.into());
    if n % unit == 0 && (scale == 0 || rng.one_in(2)) {
        return (n / unit).to_string();
    }
    let sign = if n < 0 { "-" } else { "" };
    let (whole, rest) = (n.abs() / unit, n.abs() % unit);
    format!("{sign}{whole}.{rest:0width$}", width = scale.into())
}
