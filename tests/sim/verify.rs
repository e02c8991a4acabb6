//! The table of a run is verified as `windrow verify` does it: its log is counted again, from its
//! first record, from where it has not expired, and from a commit in the middle. Whatever the run
//! went through, there must be no difference.

use crate::topic::{Log, Topic};
use crate::world::World;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use windrow_core::table::commit::{Commit, FileKind, LiveFile};
use windrow_core::table::history::History;
use windrow_core::values::record::{Offset, Partition, Record};
use windrow_core::values::time::EventTime;
use windrow_core::verify::compare::{CompareStep, Comparison, Scope};
use windrow_core::verify::recount::Recount;
use windrow_core::verify::report::Findings;
use windrow_core::verify::starting::{Chooser, Start};

impl World {
    /// Verifies the table; says how many rows were counted again.
    pub fn verify(&self) -> Result<u64, String> {
        let Some((last, _)) = self.catalog.epochs.last() else {
            return Ok(0);
        };
        let topic = self.topics.iter().find(|topic| topic.id == last.topic_id);
        // What was read before a cut is not known, and a log of unread records ends early.
        let Some(topic) = topic.filter(|topic| topic.logs.values().all(|log| log.before.is_none()))
        else {
            return Ok(0);
        };
        let middle = self.catalog.epochs.len() / 2;
        let newest = self.catalog.epochs[middle].0.lanes.values();
        let from = newest.filter_map(|lane| lane.newest).max();
        let mut rows = 0;
        for (expires, from) in [(false, None), (true, None), (false, from)] {
            let Some(start) = self.start_of(topic, last, expires, from) else {
                continue;
            };
            let (findings, counted) = self.count_again(topic, last, &start, from);
            if findings.differences > 0 {
                return Err(format!(
                    "counted again from epoch {} on: {:#?}",
                    start.epoch, findings.findings
                ));
            }
            rows += counted;
        }
        Ok(rows)
    }

    fn start_of(
        &self,
        topic: &Topic,
        last: &Commit,
        expires: bool,
        from: Option<EventTime>,
    ) -> Option<Start> {
        let first = |log: &Log| if expires { log.start } else { 0 };
        let log_start = topic.logs.iter().map(|(p, log)| (*p, first(log)));
        let mut chooser = Chooser::new(log_start.collect(), last, from);
        for (commit, _) in &self.catalog.epochs {
            chooser.take_epoch(commit);
        }
        chooser.choose()
    }

    fn count_again(
        &self,
        topic: &Topic,
        last: &Commit,
        start: &Start,
        from: Option<EventTime>,
    ) -> (Findings, u64) {
        let shape = &self.settings.shape;
        let (live, dropped_days) = self.live_files();
        let scope = Scope {
            after: start.after,
            from,
            until: None,
            through: last.closed_through,
            dropped_days,
        };
        let mut recount = Recount::new(shape, start, last, None);
        let mut comparison = Comparison::new(shape, scope, &live);
        let mut next = recount.begins();
        while !recount.is_done() {
            let ahead = recount.ahead();
            for (partition, offset) in next.clone() {
                if !ahead.contains(&partition) && !recount.is_at_goal(partition) {
                    let to = take_some(&mut recount, &topic.logs[&partition], partition, offset);
                    next.insert(partition, to);
                }
            }
            recount.give_rows(|rows| comparison.expect(&rows));
            self.compare(&mut comparison);
        }
        recount.give_rows(|rows| comparison.expect(&rows));
        comparison.end();
        self.compare(&mut comparison);
        let (mut findings, _, _) = comparison.finish();
        findings.append(recount.check_sums());
        (findings, recount.rows())
    }

    fn compare(&self, comparison: &mut Comparison) {
        while let CompareStep::Fetch { key, range } = comparison.step() {
            let object = self.catalog.seen.get(&key).cloned().flatten();
            comparison.give(object.map(|object| {
                let at = |n: u64| usize::try_from(n).unwrap().min(object.len());
                Bytes::copy_from_slice(&object[at(range.start)..at(range.end)])
            }));
        }
    }

    /// The files of rows that readers see, and the days that were dropped.
    fn live_files(&self) -> (Vec<LiveFile>, BTreeSet<String>) {
        let mut live: BTreeMap<String, LiveFile> = BTreeMap::new();
        let mut dropped = BTreeSet::new();
        for (commit, at) in &self.catalog.epochs {
            dropped.extend(History::of(commit, *at).dropped_days);
            for retired in &commit.retired {
                live.remove(&retired.key);
            }
            for file in &commit.files {
                if matches!(file.kind, FileKind::Rows { .. }) {
                    let new = LiveFile {
                        epoch: commit.epoch,
                        committed_at: *at,
                        file: file.clone(),
                    };
                    live.insert(file.key.clone(), new);
                }
            }
        }
        (live.into_values().collect(), dropped)
    }
}

/// Hands over some records from an offset on, and says where the next ones begin.
fn take_some(recount: &mut Recount, log: &Log, partition: Partition, from: Offset) -> Offset {
    let mut to = from;
    for (offset, found) in log.records.range(from..).take(5) {
        let record = Record {
            offset: *offset,
            timestamp_ms: found.kafka_time,
            value: found.bytes.as_deref(),
        };
        to = offset + 1;
        recount.take(partition, &&[record][..], to);
    }
    if to == from {
        to = log.end;
        recount.end(partition, to);
    }
    to
}
