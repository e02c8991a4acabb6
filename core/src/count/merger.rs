//! The merger combines all lanes into the table: it sums their closed partials into final rows.
//! It decides nothing about records, and nothing else closes a window of the table.
//!
//! A window of the table is closed if and only if it ends at or before the *frontier*, which is the
//! least watermark of all lanes. Until then, partials that one lane has closed wait for the others.
//!
//! Example: lane 0 has the watermark 12:00:35 and has closed [12:00:00, 12:00:10) with `a` 1. Lane
//! 1 has the watermark 12:00:08. The frontier is 12:00:08, and there is no row. When lane 1 reaches
//! 12:00:11, it closes the same window with `a` 2. The frontier is 12:00:11, and the row is
//! `12:00:00 12:00:10 a 3`.

use crate::count::lane::Lane;
use crate::count::partial::Entry;
use crate::values::aggregate::merge;
use crate::values::record::Partition;
use crate::values::row::Row;
use crate::values::shape::{Function, Shape};
use crate::values::time::EventTime;
use std::collections::BTreeMap;

/// All lanes of a table, by the numbers of their topic partitions.
pub type Lanes = BTreeMap<Partition, Lane>;

/// The least watermark of all lanes; `None` while a lane has none, or while there is no lane.
#[must_use]
pub fn frontier(lanes: &Lanes) -> Option<EventTime> {
    lanes.values().map(Lane::watermark).min().flatten()
}

/// Whether [`close`] would give at least one row at this frontier.
#[must_use]
pub fn has_rows(lanes: &Lanes, shape: &Shape, frontier: EventTime) -> bool {
    let least = lanes
        .values()
        .filter_map(|lane| lane.closed().first_key_value())
        .map(|(start, _)| *start)
        .min();
    least.is_some_and(|start| start + shape.window_ms <= frontier.0)
}

/// Takes the windows that end at or before `frontier` out of the lanes, sums their partials, and
/// gives the rows of each window, one window after the other. There is one row for each window and
/// key, sorted by window and then by the bytes of the key. Only the rows of one window are in
/// memory at a time, while the partials of all of them are.
pub fn close(
    lanes: &mut Lanes,
    shape: &Shape,
    frontier: EventTime,
    mut give: impl FnMut(Vec<Row>),
) {
    let mut windows: BTreeMap<i64, Vec<Vec<Entry>>> = BTreeMap::new();
    for (start, entries) in take(lanes, shape, frontier) {
        windows.entry(start).or_default().push(entries);
    }
    let functions: Vec<Function> = shape.inputs().map(|a| a.function).collect();
    for (start, of_lanes) in windows {
        let mut rows: Vec<Row> = Vec::new();
        let mut entries: Vec<Entry> = of_lanes.into_iter().flatten().collect();
        entries.sort_by(|a, b| a.key.cmp(&b.key));
        for entry in entries {
            match rows.last_mut().filter(|row| row.key == entry.key) {
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
        give(rows);
    }
}

/// Takes the windows that end at or before `frontier` out of the lanes: the start of each, with the
/// entries of one lane. Several lanes may give the same start. After a restart, the replay brings
/// back partials whose rows were committed already; the caller takes them out with this and drops
/// them.
pub fn take(lanes: &mut Lanes, shape: &Shape, frontier: EventTime) -> Vec<(i64, Vec<Entry>)> {
    let mut taken = Vec::new();
    for lane in lanes.values_mut() {
        // The first start of a window that ends after the frontier.
        taken.extend(lane.take_closed_before(frontier.0 - shape.window_ms + 1));
    }
    taken
}
