//! What is counted and what of it is committed: the lanes, the ledger, the frontier, the
//! checkpoint. When an epoch is due is decided here; what is in it is in `cut`, and its way into
//! the catalog in `flight`.

use super::conversation::TopicFacts;
use super::memory::Memory;
use super::step::{Break, Going, Step};
use crate::count::lane::{AtCommit, Lane, LaneState, Stopped};
use crate::count::merger::{self, Lanes};
use crate::table::commit::{Commit, Head, LaneCommit};
use crate::values::decision::{Decided, FloorReason};
use crate::values::ledger::TableLedger;
use crate::values::record::{Batch, Offset, Partition};
use crate::values::row::Row;
use crate::values::shape::Shape;
use crate::values::time::{EventTime, Mono};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The table as it is counted.
#[derive(Default)]
pub(super) struct Table {
    lanes: Lanes,
    /// Lanes are, or were a moment ago, behind the last commit.
    replaying: bool,
    /// The topic partitions that the next commit names first, with their first offsets.
    joining: BTreeMap<Partition, Offset>,
    /// The next offsets as of the last commit.
    committed: BTreeMap<Partition, Offset>,
    /// What the commit that a replay leads to says of each lane.
    at_commit: BTreeMap<Partition, AtCommit>,
    /// The sums of earlier generations of the topic, of which no lane speaks any more.
    archived: TableLedger,
    /// What the ledger of the last commit says, until the lanes are restored.
    without_lanes: Option<TableLedger>,
    rows: u64,
    row_count: u64,
    next_epoch: u64,
    /// The last epoch that is true; `None` before epoch 0.
    last: Option<Arc<Commit>>,
    closed_through: Option<EventTime>,
    /// When the last epoch was cut.
    last_cut: Option<Mono>,
    /// When the last epoch was cut, or counting began.
    last_progress: Mono,
    checkpoint: CheckpointState,
}

/// How far a restart would have to replay.
#[derive(Clone, Debug, Default)]
struct CheckpointState {
    /// When the last one was cut.
    at: Mono,
    /// The offsets that were consumed then.
    consumed: u64,
    /// The next commit needs one, because a replay could not repeat what was decided.
    wanted: bool,
    /// The last commit is past the last checkpoint: a restart would replay.
    behind: bool,
    /// Where a restart would begin to read each lane.
    offsets: BTreeMap<Partition, Offset>,
}

impl Table {
    /// A table without epochs: a lane for each topic partition, at its start offset.
    pub(super) fn founded(starts: &BTreeMap<Partition, Offset>, step: &Step<'_>) -> Self {
        let mut table = Self::default();
        for (partition, start) in starts {
            let mut lane = Lane::new(*partition, &step.rules.shape, *start);
            lane.set_delay(step.rules.delay_ms);
            table.lanes.insert(*partition, lane);
            table.committed.insert(*partition, *start);
        }
        table
    }

    /// The table as of its last commit, still without lanes.
    pub(super) fn at_head(head: &Head) -> Self {
        let last = &head.last;
        Self {
            next_epoch: last.epoch + 1,
            last: Some(Arc::new(last.clone())),
            closed_through: last.closed_through,
            rows: last.ledger.rows,
            row_count: last.ledger.row_count,
            archived: archived(last),
            without_lanes: Some(last.ledger),
            committed: last.lanes.iter().map(|(p, lane)| (*p, lane.to)).collect(),
            at_commit: last.lanes.iter().map(|(p, lane)| (*p, at(lane))).collect(),
            ..Self::default()
        }
    }

    /// Puts the lanes in, as the checkpoint has them. Then a replay brings them to the last commit.
    /// Where no checkpoint can be read, `states` says why: then they are where the last commit left
    /// them, without what open windows had counted.
    pub(super) fn restore(
        &mut self,
        head: &Head,
        states: Result<BTreeMap<Partition, LaneState>, String>,
        shape: &Shape,
        now: Mono,
    ) {
        self.without_lanes = None;
        let (mut states, unreadable) = match states {
            Ok(states) => (states, None),
            Err(why) => (BTreeMap::new(), Some(why)),
        };
        for (partition, commit) in &head.last.lanes {
            let state = match states.remove(partition) {
                Some(state) => state,
                // There is no checkpoint yet, or none since it joined: a lane begins at its start
                // offset.
                None => LaneState::at_start(commit.ledger.start_offset),
            };
            let since = head.decisions.iter();
            let decisions = since
                .filter(|d| d.partition == *partition && unreadable.is_none())
                .cloned()
                .collect();
            let begins = state.ledger.next_offset;
            self.checkpoint.offsets.insert(*partition, begins);
            let mut lane = Lane::restore(*partition, shape, state, commit.ledger, decisions);
            match &unreadable {
                Some(why) => {
                    lane.lose_counts(at(commit), self.closed_through, why.clone());
                    self.checkpoint.wanted = true;
                }
                None => {
                    lane.begin_replay(commit.watermark, commit.newest);
                    lane.check_before_replay(commit.mark());
                }
            }
            self.checkpoint.behind |= lane.replaying();
            self.lanes.insert(*partition, lane);
        }
        self.replaying = true;
        self.last_progress = now;
        self.checkpoint.at = now;
    }

    pub(super) fn lanes(&self) -> &Lanes {
        &self.lanes
    }

    /// The lanes whose first commit is through, which may be read.
    pub(super) fn committed_lanes(&self) -> impl Iterator<Item = (&Partition, &Lane)> {
        self.lanes
            .iter()
            .filter(|(partition, _)| self.committed.contains_key(partition))
    }

    pub(super) fn committed(&self) -> &BTreeMap<Partition, Offset> {
        &self.committed
    }

    pub(super) fn next_epoch(&self) -> u64 {
        self.next_epoch
    }

    /// The last epoch that is true; `None` before epoch 0.
    pub(super) fn last(&self) -> Option<&Arc<Commit>> {
        self.last.as_ref()
    }

    /// Every window of the table that ends here or earlier is closed.
    pub(super) fn frontier(&self) -> Option<EventTime> {
        merger::frontier(&self.lanes).max(self.closed_through)
    }

    pub(super) fn is_replaying(&self) -> bool {
        self.lanes.values().any(Lane::replaying)
    }

    /// What the ledger says now, with all that is not committed yet; as of the last commit while
    /// there are no lanes yet.
    pub(super) fn ledger(&self) -> TableLedger {
        if let Some(committed) = self.without_lanes {
            return committed;
        }
        let mut ledger = self.archived;
        for lane in self.lanes.values() {
            ledger.add(&lane.ledger);
        }
        ledger.rows = self.rows;
        ledger.row_count = self.row_count;
        ledger.open = self.lanes.values().map(Lane::open_count).sum();
        ledger.closed = self.lanes.values().map(Lane::closed_count).sum();
        ledger
    }

    /// Counts records. Returns the lane's next offset, and whether one of them was counted or moved
    /// the watermark; `None` for a topic partition that has no lane.
    pub(super) fn count(
        &mut self,
        partition: Partition,
        leader_epoch: i32,
        batch: &dyn Batch,
        ceiling: EventTime,
        max_future_ms: i64,
    ) -> Option<(Offset, bool)> {
        let lane = self.lanes.get_mut(&partition)?;
        // A new ceiling is recorded when the old one is off by an eighth of `max-future` (with 1h:
        // every 7.5 minutes; with 10s, which is the least: every 1,250 ms). That is often enough
        // that a record of this moment is never taken for one of the future, and seldom enough that
        // few decisions are recorded.
        let off_max_ms = max_future_ms.unsigned_abs() / 8;
        if lane.ceiling_is_off(ceiling, off_max_ms) {
            lane.offer_ceiling(ceiling);
        }
        let before = (lane.ledger.counted, lane.watermark());
        let next = lane.ledger.next_offset;
        lane.records(batch);
        if lane.ledger.next_offset > next {
            lane.note_leader_epoch(leader_epoch);
        }
        let lives = before != (lane.ledger.counted, lane.watermark());
        Some((lane.ledger.next_offset, lives))
    }

    /// A topic partition has nothing more below this offset. Returns the lane's next offset; `None`
    /// for a topic partition that has no lane.
    pub(super) fn end(&mut self, partition: Partition, offset: Offset) -> Option<Offset> {
        let lane = self.lanes.get_mut(&partition)?;
        lane.end(offset);
        Some(lane.ledger.next_offset)
    }

    /// Raises the floor of one lane.
    pub(super) fn raise_floor(&mut self, partition: Partition, at: EventTime, why: FloorReason) {
        if let Some(lane) = self.lanes.get_mut(&partition) {
            lane.raise_floor(at, why);
        }
    }

    /// Raises the floors of all lanes.
    pub(super) fn raise_floors(&mut self, at: EventTime, why: FloorReason) {
        self.lanes.values_mut().for_each(|lane| {
            lane.raise_floor(at, why);
        });
    }

    /// Every window of the table that ends here or earlier was closed by the last commit.
    pub(super) fn closed_through(&self) -> Option<EventTime> {
        self.closed_through
    }

    /// A lane whose replay cannot be done, and why: its log is not the one that was counted, or the
    /// topic was made again on the way.
    pub(super) fn broken_replay(&self) -> Option<(Partition, String)> {
        self.lanes.iter().find_map(|(partition, lane)| {
            if let Some(Stopped::Replay(why)) = lane.stopped() {
                return Some((*partition, why.clone()));
            }
            lane.replays_another_generation().then(|| {
                let why = format!(
                    "the checkpoint of topic partition {partition} is of an earlier log than the \
                     one that is there"
                );
                (*partition, why)
            })
        })
    }

    /// Records that what a lane had counted in open windows is lost, because its replay cannot be
    /// done: the lane is where the last commit left it.
    pub(super) fn lose_counts(&mut self, partition: Partition, reason: String) {
        if let (Some(lane), Some(at)) = (
            self.lanes.get_mut(&partition),
            self.at_commit.get(&partition),
        ) {
            lane.lose_counts(*at, self.closed_through, reason);
            self.checkpoint.wanted = true;
        }
    }

    /// The reader went on where a lane was started. Returns whether only that was in question, so
    /// that its replay is to be read next.
    pub(super) fn note_checked(&mut self, partition: Partition) -> bool {
        let lane = self.lanes.get_mut(&partition);
        lane.is_some_and(Lane::note_checked)
    }

    /// Whether this batch shows that the log was cut off on the way of a replay: nothing below the
    /// last commit can have been written later than the record before it.
    pub(super) fn replays_another_log(
        &self,
        partition: Partition,
        leader_epoch: i32,
        batch: &dyn Batch,
    ) -> bool {
        let (Some(lane), Some(at)) = (self.lanes.get(&partition), self.at_commit.get(&partition))
        else {
            return false;
        };
        let Some(to) = lane.replays_to() else {
            return false;
        };
        if at
            .epoch_mark
            .is_none_or(|mark| leader_epoch <= mark.leader_epoch)
        {
            return false;
        }
        // The epoch is that of the last record, which must lie below the commit.
        let mut last = None;
        batch.each(&mut |record| last = Some(record.offset));
        last.is_some_and(|last| last < to)
    }

    /// Where a lane's log was cut off, if this batch shows it: it has a record where nothing but
    /// offsets that are never shown, such as a transaction's marker, was before.
    pub(super) fn shown_cut(&self, partition: Partition, batch: &dyn Batch) -> Option<Offset> {
        let lane = self.lanes.get(&partition)?;
        let shown = lane.shown_up_to()?;
        let mut first = None;
        batch.each(&mut |record| first = first.or(Some(record.offset)));
        first.filter(|first| (shown..lane.ledger.next_offset).contains(first))
    }

    /// What is known of a lane's leader epochs lies before the log's start, where nothing can be
    /// compared.
    pub(super) fn forget_epoch_before(&mut self, partition: Partition, log_start: Offset) {
        if let Some(lane) = self.lanes.get_mut(&partition)
            && lane.starts_at().0 < log_start
        {
            lane.forget_epoch();
        }
    }

    /// Records that offsets of a lane are no longer in the log.
    pub(super) fn lose(&mut self, partition: Partition, to: Offset, reason: String) {
        if let Some(lane) = self.lanes.get_mut(&partition) {
            lane.decide(Decided::Lost { to, reason });
            self.checkpoint.wanted = true;
        }
    }

    /// Records that a lane's log is another one from here on: it goes on at `to`, and its ledger
    /// starts anew.
    pub(super) fn begin_generation(
        &mut self,
        partition: Partition,
        to: Offset,
        topic_id: &str,
        reason: String,
    ) {
        if let Some(lane) = self.lanes.get_mut(&partition) {
            self.archived.add(&lane.ledger);
            lane.decide(Decided::Generation {
                to,
                topic_id: topic_id.to_owned(),
                reason,
            });
            self.checkpoint.wanted = true;
        }
    }

    /// The logs of the topic begin and end here. A lane whose checkpoint the log's start may soon
    /// pass gets a new one with the next commit, because no restart could replay it any more.
    pub(super) fn note_logs(&mut self, logs: &BTreeMap<Partition, (Offset, Offset)>) {
        self.checkpoint.wanted |= self.checkpoint.offsets.iter().any(|(partition, at)| {
            let lane = self.lanes.get(partition);
            let read_since = lane.is_some_and(|lane| lane.ledger.next_offset > *at);
            let log = logs.get(partition);
            read_since && log.is_some_and(|(start, end)| is_near_the_start(*at, *start, *end))
        });
    }

    /// Topic partitions that have no lane yet become part of the table with the next commit.
    pub(super) fn note_joining(&mut self, facts: &TopicFacts) {
        for (partition, (first, _)) in &facts.partitions {
            if !self.lanes.contains_key(partition) {
                self.joining.insert(*partition, *first);
            }
        }
    }

    /// The topic partitions that appeared get lanes, which begin at the frontier: what they hold of
    /// closed windows is late. Returns them.
    pub(super) fn join(&mut self, frontier: Option<EventTime>, step: &Step<'_>) -> Vec<Partition> {
        let joining = std::mem::take(&mut self.joining);
        for (partition, start) in &joining {
            let mut lane = Lane::new(*partition, &step.rules.shape, *start);
            lane.set_delay(step.rules.delay_ms);
            if let Some(frontier) = frontier {
                lane.raise_floor(frontier, FloorReason::Join);
            }
            self.lanes.insert(*partition, lane);
            self.checkpoint.wanted = true;
        }
        joining.into_keys().collect()
    }

    /// Looks for a lane that takes no further record, and leaves out what a replay has closed anew
    /// although its rows are committed. After a replay the delay of the settings holds, which may
    /// be another one than before.
    ///
    /// # Errors
    /// The log is not the one that was counted.
    pub(super) fn settle(&mut self, step: &Step<'_>) -> Result<Option<String>, Break> {
        let stopped = self.lanes.values().find_map(Lane::stopped).cloned();
        let bad_record = match stopped {
            Some(Stopped::BadRecord(why)) => Some(why),
            // The caller has decided what becomes of it.
            Some(Stopped::Replay(_)) | None => None,
        };
        if self.replaying {
            self.replaying = self.is_replaying();
            if let Some(through) = self.closed_through {
                merger::take(&mut self.lanes, &step.rules.shape, through);
            }
            if !self.replaying {
                self.lanes
                    .values_mut()
                    .for_each(|lane| lane.set_delay(step.rules.delay_ms));
            }
        }
        // What came before that record is committed, which needs all replays to be over.
        let is_replayed = |lane: &Lane| lane.replaying() && lane.stopped().is_none();
        Ok(bad_record.filter(|_| !self.lanes.values().any(is_replayed)))
    }

    /// Whether an epoch should be cut now.
    pub(super) fn is_due(&self, memory: &Memory, step: &Step<'_>) -> bool {
        if self.is_replaying() {
            return false;
        }
        let moved = self
            .lanes
            .iter()
            .any(|(p, lane)| self.committed.get(p) != Some(&lane.ledger.next_offset));
        let decided = self.lanes.values().any(|lane| !lane.decisions.is_empty());
        let joins = !self.joining.is_empty();
        if step.ending || joins || self.checkpoint.wanted {
            return moved || decided || joins || self.checkpoint.behind;
        }
        // Also when nothing comes any more, because the log's start moves up to where a restart
        // would begin.
        let limits = &step.rules.limits;
        let old = step.now.since(self.checkpoint.at) >= limits.checkpoint_every_ms;
        if self.checkpoint.behind && old {
            return true;
        }
        let side = self.lanes.values().any(|lane| lane.side_bytes > 0);
        let rows = merger::frontier(&self.lanes)
            .is_some_and(|f| merger::has_rows(&self.lanes, &step.rules.shape, f));
        if rows || side {
            let interval = step.rules.commit_interval_ms;
            return memory.wants_commit(&self.lanes, self.last_cut, step)
                || self
                    .last_cut
                    .is_none_or(|at| step.now.since(at) >= interval);
        }
        if decided && memory.wants_commit(&self.lanes, self.last_cut, step) {
            return true;
        }
        (moved || decided) && step.now.since(self.last_progress) >= limits.progress_every_ms
    }

    /// Takes the windows up to `frontier` out of the lanes, adds their final rows to the ledger,
    /// and gives those of one window after the other.
    pub(super) fn close(
        &mut self,
        frontier: Option<EventTime>,
        shape: &Shape,
        mut give: impl FnMut(Vec<Row>),
    ) {
        let Some(frontier) = frontier else {
            return;
        };
        merger::close(&mut self.lanes, shape, frontier, |rows| {
            self.rows += rows.len() as u64;
            self.row_count += rows.iter().map(|row| row.count).sum::<u64>();
            give(rows);
        });
    }

    /// Checks both equations of the ledger.
    ///
    /// # Errors
    /// They do not add up: nothing may be committed.
    pub(super) fn check_ledger(&self, ledger: &TableLedger) -> Going {
        let lanes = self.lanes.values().map(|lane| lane.ledger.check());
        let checks = lanes.chain([ledger.check()]);
        checks
            .collect::<Result<Vec<()>, String>>()
            .map(drop)
            .map_err(Break::fail)
    }

    /// Takes from each lane what the epoch that is cut carries besides rows.
    pub(super) fn take_from_lanes<T>(&mut self, take: impl FnMut(&mut Lane) -> T) -> Vec<T> {
        self.lanes.values_mut().map(take).collect()
    }

    /// An epoch is cut: the windows up to `frontier` are in it.
    pub(super) fn note_cut(&mut self, frontier: Option<EventTime>, now: Mono) {
        assert!(
            frontier >= self.closed_through,
            "the frontier never goes back"
        );
        self.closed_through = frontier;
        self.last_cut = Some(now);
        self.last_progress = now;
    }

    /// Whether the epoch that is cut carries a checkpoint. It does while the checkpoint is small,
    /// else by the distance of a replay, and always with decisions that a replay could not repeat.
    pub(super) fn take_checkpoint_due(&mut self, consumed: u64, step: &Step<'_>) -> bool {
        let keys: u64 = self.lanes.values().map(Lane::key_slots).sum();
        let limits = &step.rules.limits;
        let replayed = consumed.saturating_sub(self.checkpoint.consumed);
        let far = step.now.since(self.checkpoint.at) >= limits.checkpoint_every_ms
            || replayed >= limits.checkpoint_every_records;
        let small = keys <= limits.checkpoint_keys_small;
        if self.next_epoch > 0 && !small && !far && !self.checkpoint.wanted && !step.ending {
            self.checkpoint.behind = true;
            return false;
        }
        let lanes = self.lanes.iter();
        self.checkpoint = CheckpointState {
            at: step.now,
            consumed,
            wanted: false,
            behind: false,
            offsets: lanes
                .map(|(p, lane)| (*p, lane.ledger.next_offset))
                .collect(),
        };
        true
    }

    /// An epoch is true.
    pub(super) fn note_commit(&mut self, commit: &Arc<Commit>) {
        assert_eq!(
            commit.epoch, self.next_epoch,
            "the next epoch is the last one plus one"
        );
        for (partition, lane) in &commit.lanes {
            let now = self.lanes.get(partition).expect("a committed lane stays");
            // Its log may have been cut off since, and then it goes on at an earlier offset.
            let cut_off = now
                .decisions
                .iter()
                .any(|d| matches!(d.what, Decided::Generation { .. }));
            let past = now.ledger.next_offset >= lane.to;
            assert!(
                past || cut_off,
                "every lane is at or past what is committed"
            );
        }
        self.next_epoch = commit.epoch + 1;
        self.last = Some(Arc::clone(commit));
        self.committed = commit.lanes.iter().map(|(p, lane)| (*p, lane.to)).collect();
    }
}

/// Whether a checkpoint at this offset lies within a quarter of the log's length of its start.
/// Offsets stand for time here: what `retention.ms` is may be asked only by a user with more
/// rights. Where nothing was ever deleted, nothing is near.
///
/// Example: the log has offsets 100 to 500. A checkpoint at 199 is near its start, one at 200 not.
fn is_near_the_start(checkpoint: Offset, start: Offset, end: Offset) -> bool {
    start > 0 && checkpoint - start < (end - start) / 4
}

fn at(lane: &LaneCommit) -> AtCommit {
    AtCommit {
        watermark: lane.watermark,
        newest: lane.newest,
        held: lane.held,
        epoch_mark: lane.mark(),
    }
}

/// The sums that `commit` holds beside those of its own lanes.
fn archived(commit: &Commit) -> TableLedger {
    let mut lanes = TableLedger::default();
    for lane in commit.lanes.values() {
        lanes.add(&lane.ledger);
    }
    let all = commit.ledger;
    TableLedger {
        consumed: all.consumed - lanes.consumed,
        counted: all.counted - lanes.counted,
        late: all.late - lanes.late,
        rejected: all.rejected - lanes.rejected,
        tombstones: all.tombstones - lanes.tombstones,
        gaps: all.gaps - lanes.gaps,
        lost: all.lost - lanes.lost,
        hits: all.hits - lanes.hits,
        late_hits: all.late_hits - lanes.late_hits,
        lost_hits: all.lost_hits - lanes.lost_hits,
        adopted: all.adopted - lanes.adopted,
        ..TableLedger::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::record::Record;

    /// 2024-09-01T12:00:00Z.
    const NOON: i64 = 1_725_192_000_000;

    /// How many ceilings a lane records whose records come every 50 ms for 5 s.
    fn ceilings(max_future_ms: i64) -> usize {
        let mut table = Table::default();
        let shape = Shape::count_by_origin("t", 10_000, 10_000);
        table.lanes.insert(0, Lane::new(0, &shape, 0));
        for n in 0..100 {
            let now = NOON + n * 50;
            let batch = [Record {
                offset: n,
                timestamp_ms: now,
                value: Some(br#"{"origin": "a"}"#),
            }];
            let ceiling = EventTime(now + max_future_ms);
            table.count(0, 0, &&batch[..], ceiling, max_future_ms);
        }
        let ceiling =
            |d: &&crate::values::decision::Decision| matches!(d.what, Decided::Ceiling { .. });
        table.lanes[&0].decisions.iter().filter(ceiling).count()
    }

    #[test]
    fn a_short_max_future_is_not_a_decision_for_each_batch() {
        // The settings take nothing shorter than 10s.
        assert_eq!(ceilings(10_000), 4, "every 1,250 ms");
        assert_eq!(ceilings(3_600_000), 1);
    }

    #[test]
    fn a_checkpoint_near_the_logs_start_is_renewed() {
        for (checkpoint, start, end, near) in [
            (199, 100, 500, true),
            (200, 100, 500, false),
            (90, 100, 500, true),
            (500, 100, 500, false),
            (0, 0, 500, false),
            (100, 100, 100, false),
        ] {
            let what = format!("{checkpoint} in {start}..{end}");
            assert_eq!(is_near_the_start(checkpoint, start, end), near, "{what}");
        }
    }
}
