//! The auditor: what the table must hold, from the logs, the recorded decisions and the definition, one record and one
//! window at a time. It shares no code with the lanes but the types of what was recorded.

use crate::world::{Log, Value};
use std::collections::{BTreeMap, BTreeSet};
use windrow::commit::{Commit, Decided, Decision};
use windrow::engine::Settings;
use windrow::record::{Offset, Partition};

/// What one topic partition comes to, up to an offset.
#[derive(Default, Debug)]
pub struct Expected {
    /// By window start, window end and origin: hits and sum of the field `n`.
    pub windows: BTreeMap<(i64, i64, String), (u64, i128)>,
    pub late: BTreeSet<Offset>,
    pub rejects: BTreeSet<Offset>,
    pub counted: u64,
    pub tombstones: u64,
    pub gaps: u64,
    pub hits: u64,
    pub late_hits: u64,
    pub watermark: Option<i64>,
}

/// Reads a topic partition's log from `start` up to `to`, record by record.
pub fn expect(settings: &Settings, log: &Log, start: Offset, to: Offset, decisions: &[&Decision]) -> Expected {
    let shape = &settings.shape;
    let mut out = Expected::default();
    let (mut newest, mut floor, mut ceiling, mut delay) = (None::<i64>, None::<i64>, i64::MIN, 0);
    let mut decisions = decisions.iter();
    let mut next_decision = decisions.next();
    let mut next = start;
    for offset in start..=to {
        while let Some(decision) = next_decision.filter(|d| d.offset <= offset) {
            match &decision.what {
                Decided::Floor { at, .. } => floor = floor.max(Some(at.0)),
                Decided::Ceiling { at } => ceiling = at.0,
                Decided::Delay { ms } => {
                    floor = newest.map(|t: i64| t - delay).max(floor);
                    delay = *ms;
                }
                other => panic!("not drawn: {other:?}"),
            }
            next_decision = decisions.next();
        }
        if offset == to {
            break;
        }
        let Some(record) = log.records.get(&offset) else { continue };
        out.gaps += (offset - next) as u64;
        next = offset + 1;
        let watermark = newest.map(|t| t - delay).max(floor);
        let (origin, n) = match &record.value {
            Value::Tombstone => {
                out.tombstones += 1;
                continue;
            }
            Value::Broken => {
                out.rejects.insert(offset);
                continue;
            }
            Value::Good { origin, n } => (origin, *n),
        };
        if record.time < 0 || record.time > ceiling {
            out.rejects.insert(offset);
            continue;
        }
        let mut windows = Vec::new();
        let mut start = (record.time - shape.offset_ms).div_euclid(shape.slide_ms) * shape.slide_ms + shape.offset_ms;
        while start + shape.window_ms > record.time {
            windows.push((start, start + shape.window_ms));
            start -= shape.slide_ms;
        }
        let open: Vec<_> = windows.iter().filter(|(_, end)| watermark.is_none_or(|w| *end > w)).collect();
        if open.is_empty() {
            out.late.insert(offset);
            continue;
        }
        out.counted += 1;
        out.hits += windows.len() as u64;
        out.late_hits += (windows.len() - open.len()) as u64;
        for (start, end) in open {
            let window = out.windows.entry((*start, *end, origin.clone())).or_default();
            window.0 += 1;
            window.1 += i128::from(n);
        }
        newest = newest.max(Some(record.time));
    }
    out.gaps += (to - next) as u64;
    out.watermark = newest.map(|t| t - delay).max(floor);
    out
}

/// The final rows: windows that end at the frontier or before, summed over the topic partitions.
pub fn rows(parts: &BTreeMap<Partition, Expected>, frontier: Option<i64>) -> BTreeMap<(i64, i64, String), (u64, i128)> {
    let mut rows = BTreeMap::new();
    for part in parts.values() {
        for (window, (count, sum)) in &part.windows {
            if frontier.is_some_and(|f| window.1 <= f) {
                let row: &mut (u64, i128) = rows.entry(window.clone()).or_default();
                row.0 += count;
                row.1 += sum;
            }
        }
    }
    rows
}

/// All decisions of the epochs so far about one topic partition, in the order in which they were made.
pub fn decisions(epochs: &[Commit], partition: Partition) -> Vec<&Decision> {
    epochs.iter().flat_map(|c| &c.decisions).filter(|d| d.partition == partition).collect()
}
