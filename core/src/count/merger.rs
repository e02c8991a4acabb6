//! The table's machine: all lanes' closed partials → final rows. Nothing else closes a window of the table.

use crate::count::lane::Lane;
use crate::count::partial::Entry;
use crate::values::aggregate::merge;
use crate::values::record::Partition;
use crate::values::row::Row;
use crate::values::shape::{Function, Shape};
use crate::values::time::EventTime;
use std::collections::BTreeMap;

pub type Lanes = BTreeMap<Partition, Lane>;

/// The least watermark over all topic partitions; `None` while one has none.
#[must_use]
pub fn frontier(lanes: &Lanes) -> Option<EventTime> {
    lanes.values().map(Lane::watermark).min().flatten()
}

/// Whether [`close`] at this frontier would give rows.
#[must_use]
pub fn has_rows(lanes: &Lanes, shape: &Shape, frontier: EventTime) -> bool {
    let least = lanes
        .values()
        .filter_map(|lane| lane.closed.first_key_value())
        .map(|(start, _)| *start)
        .min();
    least.is_some_and(|start| start + shape.window_ms <= frontier.0)
}

/// Takes the windows with `end <= frontier` out of the lanes and sums them up: one row for each window and key, by
/// window and key bytes.
pub fn close(lanes: &mut Lanes, shape: &Shape, frontier: EventTime) -> Vec<Row> {
    let mut windows: BTreeMap<i64, Vec<Entry>> = BTreeMap::new();
    for (start, entries) in take(lanes, shape, frontier) {
        windows.entry(start).or_default().extend(entries);
    }
    let functions: Vec<Function> = shape.inputs().map(|a| a.function).collect();
    let mut rows: Vec<Row> = Vec::new();
    for (start, mut entries) in windows {
        entries.sort_by(|a, b| a.key.cmp(&b.key));
        let first = rows.len();
        for entry in entries {
            match rows[first..].last_mut().filter(|row| row.key == entry.key) {
                Some(row) => {
                    row.count += entry.count;
                    for ((acc, function), more) in
                        row.accs.iter_mut().zip(&functions).zip(&entry.accs)
                    {
                        merge(acc, *function, *more);
                    }
                }
                None => rows.push(Row {
                    start: EventTime(start),
                    end: EventTime(start + shape.window_ms),
                    key: entry.key,
                    count: entry.count,
                    accs: entry.accs,
                }),
            }
        }
    }
    rows
}

/// Takes what is final out of the lanes; after a restart, what was committed already goes this way too.
pub fn take(lanes: &mut Lanes, shape: &Shape, frontier: EventTime) -> Vec<(i64, Vec<Entry>)> {
    let mut taken = Vec::new();
    for lane in lanes.values_mut() {
        // The first start whose window ends after the frontier.
        let later = lane.closed.split_off(&(frontier.0 - shape.window_ms + 1));
        taken.extend(std::mem::replace(&mut lane.closed, later));
    }
    taken
}
