//! The log is counted once more, from a commit of the past up to the last one, with the decisions
//! that were recorded. It gives the rows of the table a second time.
//!
//! This is what a restart does, with two differences: it may begin at any commit, without the open
//! windows of that moment, and it also gives the rows that were committed already.

use super::report::{Finding, Findings, Kind};
use super::starting::Start;
use crate::count::lane::{Lane, LaneState, Stopped};
use crate::count::merger::{Lanes, close, frontier, has_rows};
use crate::table::commit::{Commit, LaneCommit};
use crate::values::ledger::LaneLedger;
use crate::values::record::{Batch, Offset, Partition, Record};
use crate::values::row::Row;
use crate::values::shape::Shape;
use crate::values::time::EventTime;
use std::collections::{BTreeMap, BTreeSet};

/// How far one topic partition may be ahead of the others in event time: what it counts waits in
/// memory for them. It is at least the length of a window.
const AHEAD_MS: i64 = 600_000;

/// Counts the log again.
pub struct Recount {
    shape: Shape,
    lanes: Lanes,
    goals: BTreeMap<Partition, LaneCommit>,
    begins: BTreeMap<Partition, Offset>,
    /// Topic partitions that have come to their goal.
    done: BTreeSet<Partition>,
    closed_through: Option<EventTime>,
    until: Option<EventTime>,
    /// The count began with the table's first record, so it must come to the very ledger.
    from_first: bool,
    /// How many rows it has given.
    rows: u64,
}

impl Recount {
    /// Counts from `start` to `last`, the journal's last commit. With `until`, windows that start
    /// there or later are not wanted, and the log is read no further than they need.
    #[must_use]
    pub fn new(shape: &Shape, start: &Start, last: &Commit, until: Option<EventTime>) -> Self {
        let mut lanes = Lanes::new();
        let mut begins = BTreeMap::new();
        for (partition, place) in &start.lanes {
            let Some(goal) = last.lanes.get(partition) else {
                continue;
            };
            let decisions = start.decisions.iter();
            let decisions = decisions.filter(|d| d.partition == *partition).cloned();
            let state = LaneState::without_counts(place);
            let mut lane =
                Lane::restore(*partition, shape, state, goal.ledger, decisions.collect());
            lane.begin_replay(goal.watermark, goal.newest);
            begins.insert(*partition, place.ledger.next_offset);
            lanes.insert(*partition, lane);
        }
        let mut recount = Self {
            shape: shape.clone(),
            lanes,
            goals: last.lanes.clone(),
            begins,
            done: BTreeSet::new(),
            closed_through: last.closed_through,
            until,
            from_first: start.from_first,
            rows: 0,
        };
        recount.note_done();
        recount
    }

    /// From which offset on each topic partition must be read. Those that have nothing to read are
    /// left out.
    #[must_use]
    pub fn begins(&self) -> BTreeMap<Partition, Offset> {
        let open = self.begins.iter().filter(|(p, _)| !self.done.contains(p));
        open.map(|(p, offset)| (*p, *offset)).collect()
    }

    /// Takes a batch of one topic partition. Records behind the last commit are passed over.
    pub fn take(&mut self, partition: Partition, batch: &dyn Batch, next_offset: Offset) {
        let Some((lane, goal)) = self.read_on(partition) else {
            return;
        };
        let below = Below {
            batch,
            end: goal.to,
        };
        lane.records(&below);
        if next_offset >= goal.to {
            lane.end(goal.to);
        }
        self.note_done();
    }

    /// All offsets of a topic partition below this one were taken, or are never shown.
    pub fn end(&mut self, partition: Partition, next_offset: Offset) {
        if let Some((lane, goal)) = self.read_on(partition) {
            lane.end(next_offset.min(goal.to));
            self.note_done();
        }
    }

    /// A lane that has not come to its goal, and the goal.
    fn read_on(&mut self, partition: Partition) -> Option<(&mut Lane, &LaneCommit)> {
        if self.done.contains(&partition) {
            return None;
        }
        let lane = self.lanes.get_mut(&partition);
        lane.zip(self.goals.get(&partition))
    }

    fn note_done(&mut self) {
        let lanes = self.lanes.iter();
        let at_goal = lanes.filter(|(_, lane)| !lane.replaying() || lane.stopped().is_some());
        self.done.extend(at_goal.map(|(partition, _)| *partition));
    }

    /// Whether a topic partition has come to the last commit, or cannot be counted further.
    #[must_use]
    pub fn is_at_goal(&self, partition: Partition) -> bool {
        self.done.contains(&partition)
    }

    /// Whether nothing more needs to be read.
    #[must_use]
    pub fn is_done(&self) -> bool {
        let all = self.done.len() == self.lanes.len();
        let is_past = |until: EventTime| {
            let enough = until.plus(self.shape.window_ms);
            frontier(&self.lanes).is_some_and(|frontier| frontier >= enough)
        };
        all || self.until.is_some_and(is_past)
    }

    /// The topic partitions that must wait for others, because what they count is kept until these
    /// have come as far.
    #[must_use]
    pub fn ahead(&self) -> BTreeSet<Partition> {
        let open = || self.lanes.iter().filter(|(p, _)| !self.done.contains(p));
        let Some(least) = open().map(|(_, lane)| lane.watermark()).min() else {
            return BTreeSet::new();
        };
        let far = AHEAD_MS.max(self.shape.window_ms);
        let is_ahead = |lane: &Lane| match (lane.watermark(), least) {
            (Some(watermark), Some(least)) => watermark > least.plus(far),
            (watermark, least) => watermark > least,
        };
        let ahead = open().filter(|(_, lane)| is_ahead(lane));
        ahead.map(|(partition, _)| *partition).collect()
    }

    /// What it takes in memory, in bytes, roughly.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.lanes.values().map(Lane::memory_bytes).sum()
    }

    /// How many offsets were counted again, and how many there are in all.
    #[must_use]
    pub fn progress(&self) -> (u64, u64) {
        let begin = |p: &Partition| self.begins.get(p).copied().unwrap_or_default();
        let counted = |(p, lane): (&Partition, &Lane)| lane.ledger.next_offset - begin(p);
        let all = |p: &Partition| self.goals.get(p).map_or(0, |goal| goal.to - begin(p));
        let sum = |sum: i64| u64::try_from(sum).unwrap_or_default();
        (
            sum(self.lanes.iter().map(counted).sum()),
            sum(self.lanes.keys().map(all).sum()),
        )
    }

    /// How many rows it has given.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Gives the rows of the windows that have become final since the last call, one window after
    /// the other.
    pub fn give_rows(&mut self, mut give: impl FnMut(Vec<Row>)) {
        let Some(through) = self.closed_through else {
            return;
        };
        let at = match frontier(&self.lanes) {
            _ if self.done.len() == self.lanes.len() => through,
            Some(frontier) => frontier.min(through),
            None => return,
        };
        if has_rows(&self.lanes, &self.shape, at) {
            let given = &mut self.rows;
            close(&mut self.lanes, &self.shape, at, |rows| {
                *given += rows.len() as u64;
                give(rows);
            });
        }
    }

    /// Compares the sums of each topic partition with the last commit, after all was read. Windows
    /// that are still open are no difference. Nothing is said where the log was read only in part.
    #[must_use]
    pub fn check_sums(&self) -> Findings {
        let mut findings = Findings::default();
        for (partition, lane) in &self.lanes {
            if let Some(Stopped::Replay(why) | Stopped::BadRecord(why)) = lane.stopped()
                && !self.is_limit_of_keys(*partition, &lane.ledger)
            {
                findings.add(Finding::new(Kind::Log, why.clone()));
            }
        }
        findings
    }

    /// Whether the only difference is which of a slice's new keys were refused by `max-keys`.
    /// Without the windows that were open at the beginning, a slice has room for other keys than it
    /// had. The rows that are compared are of later slices.
    fn is_limit_of_keys(&self, partition: Partition, found: &LaneLedger) -> bool {
        let Some(goal) = self.goals.get(&partition) else {
            return false;
        };
        let goal = &goal.ledger;
        let same = LaneLedger {
            counted: goal.counted,
            rejected: goal.rejected,
            hits: goal.hits,
            late_hits: goal.late_hits,
            ..*found
        };
        let sum = |ledger: &LaneLedger| ledger.counted + ledger.rejected;
        !self.from_first && same == *goal && sum(found) == sum(goal)
    }
}

/// The records of a batch that come before an offset.
struct Below<'a> {
    batch: &'a dyn Batch,
    end: Offset,
}

impl Batch for Below<'_> {
    fn each(&self, f: &mut dyn FnMut(Record<'_>)) {
        self.batch.each(&mut |record| {
            if record.offset < self.end {
                f(record);
            }
        });
    }
}
