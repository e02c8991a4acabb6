//! The modeled topic: logs that grow, expire at the front, and are cut off and written anew after
//! the cut. What a table makes of them is not known here.

use crate::rng::Rng;
use std::collections::BTreeMap;
use std::sync::Arc;
use windrow_core::values::record::{Offset, Partition};
use windrow_core::values::shape::{OnBadRecord, Shape};

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
    /// Its Kafka timestamp in ms since 1970; -1 for none.
    pub time: i64,
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
        for _ in 0..rng.below(most) {
            time += rng.below(step) as i64;
            let mut at = time - rng.below(disorder + 1) as i64;
            if rng.one_in(60) {
                at = rng.pick(&[-1, 253_402_300_799_000, time + 700_000]);
            }
            if rng.one_in(12) {
                self.end += 1 + rng.below(3) as Offset;
            }
            let (value, bytes) = draw_value(rng, shape, keys);
            self.records.insert(
                self.end,
                Arc::new(LogRecord {
                    time: at,
                    value,
                    bytes,
                    leader_epoch,
                }),
            );
            self.end += 1;
        }
        self.end += rng.below(2) as Offset;
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

    /// This log up to `at`, followed by the records of another log.
    pub fn spliced(&self, at: Offset, other: &Log) -> Log {
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

/// Draws a value, and gives the bytes that say it.
fn draw_value(rng: &mut Rng, shape: &Shape, keys: u64) -> (Value, Option<Vec<u8>>) {
    let nulls = shape.on_bad_record == OnBadRecord::Null;
    match rng.below(30) {
        0 => {
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
            return (Value::Broken, Some(rng.pick(broken).to_vec()));
        }
        1 => return (Value::Tombstone, None),
        _ => {}
    }
    let mut fields = Vec::new();
    let key = shape
        .group_by
        .iter()
        .map(|column| {
            let text = format!("{}{}", &column.name[..1], rng.below(keys));
            match rng.below(8) {
                0 if nulls => None,
                1 if nulls => {
                    fields.push(format!("\"{}\": null", column.name));
                    None
                }
                _ => {
                    fields.push(format!("\"{}\": \"{text}\"", column.name));
                    Some(text)
                }
            }
        })
        .collect();
    let n = (!rng.one_in(10)).then(|| rng.below(1000) as i64 - 300);
    fields.extend(n.map(|n| format!("\"n\": {n}")));
    (
        Value::Good { key, n },
        Some(format!("{{{}}}", fields.join(", ")).into_bytes()),
    )
}
