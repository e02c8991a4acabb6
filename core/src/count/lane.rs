//! A lane is one topic partition's machine: extract → window → watermark → partials, and a ledger.
//! It knows no other lane and no clock, and it does not know why a decision was made: what it does
//! depends on its own log and on recorded decisions alone.
//!
//! Each record becomes exactly one of these, in this order of tests:
//!
//! 1. a *tombstone*, when it has no value;
//! 2. a *reject*, when its key, its time or a number cannot be read, or its time is past the
//!    ceiling;
//! 3. a *late record*, when all windows of its time end at or before the watermark;
//! 4. a *reject*, when its key is new to a slice that is full (`max-keys`);
//! 5. *counted* otherwise.
//!
//! Whatever it becomes, a record whose event time is known and not past the ceiling takes part in
//! the watermark, which may close windows. (If only counted records did, a topic partition of
//! nothing but rejects would hold every window of the table open.) A record without a usable event
//! time moves nothing, and neither does one from the future. A tombstone has an event time where
//! that is the Kafka timestamp.
//!
//! The watermark that judges a record is the one before that record. Example, with `window` 10s,
//! `slide` 5s and `watermark-delay` 0s:
//!
//! | record | watermark before it | what it becomes |
//! |---|---|---|
//! | `a` at 12:00:07 | – | counted in [12:00:00, 12:00:10) and [12:00:05, 12:00:15) |
//! | `b` at 12:00:12 | 12:00:07 | counted in [12:00:05, 12:00:15) and [12:00:10, 12:00:20) |
//! | | 12:00:12 | [12:00:00, 12:00:10) is closed, with `a` 1 |
//! | `a` at 12:00:08 | 12:00:12 | counted in [12:00:05, 12:00:15); one *late hit* for the other |
//! | `a` at 12:00:01 | 12:00:12 | late for both its windows: a late record |
//! | a reject at 12:00:16 | 12:00:12 | kept as a reject |
//! | | 12:00:16 | [12:00:05, 12:00:15) is closed, with `a` 2 and `b` 1 |
//!
//! After a restart, a lane begins at its checkpoint and reads the log again up to the last commit,
//! with the decisions that were recorded since. This *replay* must come to the committed ledger.
//! Otherwise the log has changed, and the lane stops.

mod floors;
mod hits;
mod look;
mod place;
mod replay;

pub use hits::Adoption;
pub use place::LanePlace;
pub use replay::AtCommit;

use crate::count::extract::{Extraction, Extractor};
use crate::count::partial::{Closed, Partials, SliceState, closed_bytes};
use crate::count::watermark::Watermark;
use crate::values::decision::{Decided, Decision};
use crate::values::ledger::LaneLedger;
use crate::values::record::{Batch, EpochMark, Offset, Partition, Record};
use crate::values::row::{LateRecord, RejectRecord, SIDE_VALUE_MAX_BYTES};
use crate::values::shape::{OnBadRecord, Shape};
use crate::values::time::EventTime;
use hits::adopted_through;
use replay::Replay;
use std::sync::Arc;

/// One topic partition, and everything that windrow keeps about it.
pub struct Lane {
    partition: Partition,
    /// Length of a window in ms.
    size: i64,
    /// Distance between the starts of two windows in ms.
    slide: i64,
    /// Whether the first reject stops the lane (`on-bad-record: fail`).
    fail_on_reject: bool,
    extractor: Extractor,
    watermark: Watermark,
    /// `watermark.ms()`, kept beside it for the hot path.
    watermark_ms: i64,
    /// The earliest end of an open window with data, or `i64::MAX`. When the watermark reaches it,
    /// there is something to close.
    next_end: i64,
    /// A record whose event time in ms is greater than this is a reject.
    ceiling: i64,
    /// Another ceiling, which will hold from the next record on, when one comes.
    offered_ceiling: Option<EventTime>,
    /// What another job had counted; `None` in a table that was not adopted.
    adoption: Option<Adoption>,
    partials: Partials,
    /// Windows that are closed here but not final, because another topic partition is behind.
    closed: Closed,
    /// What `closed` takes in memory, in bytes. It is a running sum.
    closed_bytes: usize,
    /// What became of each offset so far.
    pub ledger: LaneLedger,
    /// The last record whose leader epoch is known. Behind it are none but offsets that are never
    /// shown, such as a transaction's marker, which may be of a later epoch.
    epoch_mark: Option<EpochMark>,
    /// The offset after the last record that was taken from the reader.
    read_to: Offset,
    /// Late records since the last cut, in the order of their offsets.
    pub late: Vec<LateRecord>,
    /// Rejects since the last cut, in the order of their offsets.
    pub rejects: Vec<RejectRecord>,
    /// The memory that `late` and `rejects` take, in bytes, roughly.
    pub side_bytes: usize,
    /// Decisions made since the last cut, in the order of their offsets.
    pub decisions: Vec<Decision>,
    /// How many records were counted and how many were late when the last floor of reason *idle*
    /// was decided; `None` where none was.
    at_idle_floor: Option<(u64, u64)>,
    /// How this lane comes back to where the last commit was; `None` once it is there.
    replay: Option<Replay>,
    stopped: Option<Stopped>,
}

/// Why a lane takes no further record. Each holds a sentence for the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// A record cannot be counted, and `on-bad-record` is `fail`. What came before it is right and
    /// may be committed.
    BadRecord(String),
    /// The log is not the one that was counted. Nothing of this lane may be committed.
    Replay(String),
}

/// Everything of a lane that a restart needs, as it was read from a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneState {
    /// The watermark, with the parts that it is made of.
    pub watermark: Watermark,
    /// A record whose event time is greater than this is a reject; in ms since 1970.
    pub ceiling: i64,
    /// What became of each offset so far.
    pub ledger: LaneLedger,
    /// The last record whose leader epoch is known.
    pub epoch_mark: Option<EpochMark>,
    /// What another job had counted.
    pub adoption: Option<Adoption>,
    /// The keys, encoded as [`crate::values::record::Key`] says. Slices name them by their place.
    pub keys: Vec<Arc<[u8]>>,
    /// The slices of open windows.
    pub slices: Vec<SliceState>,
    /// Windows that are closed in this lane but not final.
    pub closed: Closed,
}

impl LaneState {
    /// Nothing was read yet, and `start` is the next offset.
    #[must_use]
    pub fn at_start(start: Offset) -> Self {
        Self {
            watermark: Watermark::new(0),
            ceiling: i64::MIN,
            ledger: LaneLedger {
                start_offset: start,
                next_offset: start,
                ..LaneLedger::default()
            },
            epoch_mark: None,
            adoption: None,
            keys: Vec::new(),
            slices: Vec::new(),
            closed: Closed::new(),
        }
    }
}

/// What a checkpoint keeps of a lane, borrowed from it.
pub(super) struct Kept<'a> {
    pub(super) watermark: Watermark,
    pub(super) ceiling: i64,
    pub(super) ledger: LaneLedger,
    pub(super) epoch_mark: Option<EpochMark>,
    pub(super) adoption: Option<Adoption>,
    pub(super) partials: &'a Partials,
    pub(super) closed: &'a Closed,
}

impl Lane {
    /// A lane at its start offset. No record is counted, and neither a delay nor a ceiling is
    /// decided yet: before the first record, the caller decides both.
    #[must_use]
    pub fn new(partition: Partition, shape: &Shape, start: Offset) -> Self {
        let state = LaneState::at_start(start);
        let ledger = state.ledger;
        let mut lane = Self::restore(partition, shape, state, ledger, Vec::new());
        lane.begin_replay(None, None);
        lane
    }

    /// A lane as its checkpoint has it. Its replay leads to `goal`, the ledger of the last commit,
    /// with `decisions`, those that were recorded since the checkpoint. It begins with
    /// [`Lane::begin_replay`], unless what it had counted is lost ([`Lane::lose_counts`]).
    #[must_use]
    pub fn restore(
        partition: Partition,
        shape: &Shape,
        state: LaneState,
        goal: LaneLedger,
        decisions: Vec<Decision>,
    ) -> Self {
        let replay = Replay::new(&state, goal, decisions);
        let mut partials = Partials::new(shape);
        partials.import(&state.keys, state.slices);
        let closed_bytes = bytes_of(&state.closed, partials.width());
        let mut lane = Self {
            partition,
            size: shape.window_ms,
            slide: shape.slide_ms,
            fail_on_reject: shape.on_bad_record == OnBadRecord::Fail,
            extractor: Extractor::new(shape),
            watermark: state.watermark,
            watermark_ms: state.watermark.ms(),
            next_end: i64::MAX,
            ceiling: state.ceiling,
            offered_ceiling: None,
            adoption: state.adoption,
            partials,
            closed_bytes,
            closed: state.closed,
            ledger: state.ledger,
            epoch_mark: state.epoch_mark,
            read_to: state.ledger.next_offset,
            late: Vec::new(),
            rejects: Vec::new(),
            side_bytes: 0,
            decisions: Vec::new(),
            at_idle_floor: None,
            replay: Some(replay),
            stopped: None,
        };
        lane.next_end = lane
            .partials
            .next_end(lane.watermark_ms)
            .unwrap_or(i64::MAX);
        lane
    }

    /// What a checkpoint keeps of this lane.
    pub(super) fn kept(&self) -> Kept<'_> {
        debug_assert!(
            self.sums_are_right(),
            "the running sums of memory are what a recount says"
        );
        Kept {
            watermark: self.watermark,
            ceiling: self.ceiling,
            ledger: self.ledger,
            epoch_mark: self.epoch_mark,
            adoption: self.adoption,
            partials: &self.partials,
            closed: &self.closed,
        }
    }

    /// Takes the records of a batch, in order. Records below the next offset were taken before, so
    /// they are passed over.
    pub fn records(&mut self, batch: &dyn Batch) {
        batch.each(&mut |record| {
            if self.stopped.is_none() && record.offset >= self.ledger.next_offset {
                self.record(record);
                self.read_to = record.offset + 1;
            }
        });
    }

    /// Takes one record at the next offset or past it.
    fn record(&mut self, record: Record<'_>) {
        if self.replay.is_some() {
            self.reach(record.offset);
        }
        // A recorded loss may have led past the record, although the log has it again.
        if self.stopped.is_some() || record.offset < self.ledger.next_offset {
            return;
        }
        if self.replay.is_none() {
            self.use_offered_ceiling();
        }
        self.skip_to(record.offset);
        let Some(value) = record.value else {
            self.ledger.tombstones += 1;
            self.ledger.next_offset += 1;
            let time = self.extractor.event_time_without_value(record.timestamp_ms);
            return self.observe(time);
        };
        let (time, key, values) = match self.extractor.extract(record.timestamp_ms, value) {
            Extraction::Counted(found) => (found.time, found.key, found.values),
            Extraction::Reject {
                reason,
                event_time,
                time,
            } => {
                self.reject(record, time, reason);
                return self.observe(event_time);
            }
        };
        if time.0 > self.ceiling {
            let reason = format!(
                "from the future: its time is after {}",
                EventTime(self.ceiling)
            );
            return self.reject(record, Some(time), reason);
        }
        let span = self.partials.span(time.0);
        if span.last_end <= self.watermark_ms {
            self.ledger.next_offset += 1;
            if adopted_through(self.adoption, record.offset) >= span.last_end {
                self.ledger.adopted += 1;
                return;
            }
            self.ledger.late += 1;
            // It cannot move the watermark, because its time lies below it.
            // In a replay, the record is in a file already.
            if self.replay.is_none() {
                let value: Box<[u8]> = value[..value.len().min(SIDE_VALUE_MAX_BYTES)].into();
                self.side_bytes += value.len() + key.len() + SIDE_ROW_BYTES;
                self.late.push(LateRecord {
                    partition: self.partition,
                    offset: record.offset,
                    time,
                    watermark: EventTime(self.watermark_ms),
                    key: key.into(),
                    value,
                });
            }
            return;
        }
        if self.partials.add(span, key, values).is_err() {
            self.reject(
                record,
                Some(time),
                "a new key in a slice that already has max-keys keys".to_owned(),
            );
            return self.observe(Some(time));
        }
        self.note_counted(record.offset, span);
        if self.watermark.observe(time) {
            self.move_watermark();
        }
    }

    /// Lets the event time of a record that was not counted move the watermark; `None` where it has
    /// none that is usable. A time past the ceiling moves nothing, and neither does a record that
    /// has stopped the lane.
    fn observe(&mut self, time: Option<EventTime>) {
        if let Some(time) = time
            && time.0 <= self.ceiling
            && self.stopped.is_none()
            && self.watermark.observe(time)
        {
            self.move_watermark();
        }
    }

    /// Keeps a record that cannot be counted, or stops at it (`on-bad-record: fail`).
    ///
    /// In a replay there was no such record: it would have stopped the lane before that commit. So
    /// the log is another one.
    fn reject(&mut self, record: Record<'_>, time: Option<EventTime>, reason: String) {
        if self.fail_on_reject {
            let (partition, offset) = (self.partition, record.offset);
            self.stopped = Some(match self.replay {
                Some(_) => Stopped::Replay(format!(
                    "the replay of topic partition {partition} finds a record at offset {offset} \
                     that cannot be counted ({reason}), where the commit had none; the log has \
                     changed since (a compacted topic, or a restored broker)"
                )),
                None => Stopped::BadRecord(format!(
                    "cannot count the record at topic partition {partition} offset {offset}: \
                     {reason}; on-bad-record is fail: choose another table name with \
                     on-bad-record: reject"
                )),
            });
            return;
        }
        self.ledger.rejected += 1;
        self.ledger.next_offset += 1;
        if self.replay.is_none() {
            let value = record.value.unwrap_or_default();
            let value: Box<[u8]> = value[..value.len().min(SIDE_VALUE_MAX_BYTES)].into();
            self.side_bytes += value.len() + reason.len() + SIDE_ROW_BYTES;
            self.rejects.push(RejectRecord {
                partition: self.partition,
                offset: record.offset,
                time,
                reason,
                value,
            });
        }
    }

    /// Takes the end of the log: every offset below `offset` is accounted for now, whether or not
    /// Kafka showed a record there.
    pub fn end(&mut self, offset: Offset) {
        if self.stopped.is_none() && offset >= self.ledger.next_offset {
            if self.replay.is_some() {
                self.reach(offset);
            }
            if self.stopped.is_none() && offset >= self.ledger.next_offset {
                self.skip_to(offset);
            }
        }
    }

    /// Goes on to `offset`. Offsets that are passed over without a record are gaps.
    fn skip_to(&mut self, offset: Offset) {
        self.ledger.gaps +=
            u64::try_from(offset - self.ledger.next_offset).expect("offsets only grow");
        self.ledger.next_offset = offset;
    }

    /// Applies a decision at the next offset.
    fn obey(&mut self, decided: &Decided) {
        match decided {
            Decided::Floor { at, .. } => {
                self.watermark.raise_floor(*at);
                self.move_watermark();
            }
            Decided::Adopted { through, to } => self.adopt(*through, *to),
            Decided::Ceiling { at } => self.ceiling = at.0,
            Decided::Delay { ms } => {
                self.watermark.set_delay(*ms);
                // A shorter delay moves the watermark at once.
                self.move_watermark();
            }
            Decided::Lost { to, .. } => {
                // One that was changed by hand may lead back: the ledgers then tell.
                let lost = *to - self.ledger.next_offset;
                if let Ok(lost) = u64::try_from(lost) {
                    self.ledger.lost += lost;
                    self.ledger.next_offset = *to;
                    self.epoch_mark = None;
                }
            }
            Decided::CountsLost {
                ledger,
                newest,
                floor,
                delay_ms,
                ceiling,
                ..
            } => {
                self.partials.clear();
                self.watermark.take_over(*delay_ms, *newest, *floor);
                self.watermark_ms = self.watermark.ms();
                self.next_end = i64::MAX;
                self.ceiling = ceiling.0;
                self.ledger = *ledger;
                self.epoch_mark = None;
                self.adoption = None;
            }
            Decided::Generation { to, .. } => {
                self.ledger = LaneLedger {
                    start_offset: *to,
                    next_offset: *to,
                    ..LaneLedger::default()
                };
                self.epoch_mark = None;
                self.adoption = None;
            }
        }
    }

    /// Takes over the watermark after one of its parts has changed, and closes the windows that it
    /// has passed.
    fn move_watermark(&mut self) {
        let before = self.watermark_ms;
        self.watermark_ms = self.watermark.ms();
        if self.watermark_ms >= self.next_end {
            self.closed_bytes += self
                .partials
                .close(before, self.watermark_ms, &mut self.closed);
            self.next_end = self
                .partials
                .next_end(self.watermark_ms)
                .unwrap_or(i64::MAX);
        }
    }

    /// Applies a decision that holds from the next offset on, and keeps it for the next commit. Of
    /// several floors, ceilings or delays at one offset only the last is kept, because no record
    /// came in between.
    ///
    /// # Panics
    /// During a replay, which obeys the decisions that were recorded.
    pub fn decide(&mut self, what: Decided) {
        assert!(
            self.replay.is_none(),
            "decisions are made after the replay of those made before"
        );
        let offset = self.ledger.next_offset;
        self.obey(&what);
        let same = |d: &mut Decision| {
            d.offset == offset && std::mem::discriminant(&d.what) == std::mem::discriminant(&what)
        };
        if matches!(
            what,
            Decided::Floor { .. } | Decided::Ceiling { .. } | Decided::Delay { .. }
        ) && let Some(last) = self
            .decisions
            .iter_mut()
            .rev()
            .find_map(|d| same(d).then_some(d))
        {
            last.what = what;
            return;
        }
        self.decisions.push(Decision {
            partition: self.partition,
            offset,
            what,
        });
    }

    /// Decides another watermark delay, from the next record on, unless it is the one in force.
    pub fn set_delay(&mut self, ms: i64) {
        if self.watermark.delay_ms() != ms {
            self.decide(Decided::Delay { ms });
        }
    }

    /// Offers a ceiling for the next record on. It is decided only when a record comes, so that a
    /// quiet topic partition has no decision to record.
    pub fn offer_ceiling(&mut self, at: EventTime) {
        self.offered_ceiling = Some(at);
    }

    /// Decides the ceiling that was offered, if there is one.
    fn use_offered_ceiling(&mut self) {
        if let Some(at) = self.offered_ceiling.take() {
            self.decide(Decided::Ceiling { at });
        }
    }

    /// Whether a new ceiling should be offered, because the one in force (or the one that is
    /// offered already) differs from `at` by more than `ms`. It may also be too high: that happens
    /// when `max-future` has been made shorter.
    ///
    /// In a replay, the ceiling in force is the one that the replay ends with. A new one holds only
    /// from there on, and the ceiling in the middle of the replay is an older one.
    #[must_use]
    pub fn ceiling_is_off(&self, at: EventTime, ms: u64) -> bool {
        let in_force = match (&self.offered_ceiling, &self.replay) {
            (Some(offered), _) => offered.0,
            (None, Some(replay)) => replay.last_ceiling,
            (None, None) => self.ceiling,
        };
        in_force.abs_diff(at.0) > ms
    }

    /// The records that were taken last came with this leader epoch, which is that of the last one;
    /// -1 when it is unknown.
    pub fn note_leader_epoch(&mut self, leader_epoch: i32) {
        let offset = self.ledger.next_offset;
        // A decision or a record that cannot be counted may lie between.
        let known = leader_epoch >= 0 && self.read_to == offset;
        self.epoch_mark = known.then_some(EpochMark {
            offset,
            leader_epoch,
        });
    }

    /// What is known of leader epochs does not help any more: the log begins later.
    pub fn forget_epoch(&mut self) {
        self.epoch_mark = None;
    }

    /// Takes out the late records and the rejects, for an epoch that is being cut.
    pub fn take_side_rows(&mut self) -> (Vec<LateRecord>, Vec<RejectRecord>) {
        self.side_bytes = 0;
        (
            std::mem::take(&mut self.late),
            std::mem::take(&mut self.rejects),
        )
    }

    /// Takes out the decisions that were made since the last cut.
    pub fn take_decisions(&mut self) -> Vec<Decision> {
        std::mem::take(&mut self.decisions)
    }

    /// Takes out the closed windows that start before `start`.
    pub(super) fn take_closed_before(&mut self, start: i64) -> Closed {
        let later = self.closed.split_off(&start);
        let taken = std::mem::replace(&mut self.closed, later);
        self.closed_bytes -= bytes_of(&taken, self.partials.width());
        self.partials.closed_taken(start);
        taken
    }
}

fn bytes_of(closed: &Closed, width: usize) -> usize {
    closed.values().map(|e| closed_bytes(e, width)).sum()
}

/// What a late record or a reject costs in memory besides its value and key or reason, roughly.
const SIDE_ROW_BYTES: usize = 160;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::decision::FloorReason;
    use crate::values::shape::{TimeField, TimeUnit};

    /// A lane with windows of 10 ms, no delay, and the ceiling 1000.
    fn lane(shape: &Shape) -> Lane {
        let mut lane = Lane::new(0, shape, 0);
        lane.offer_ceiling(EventTime(1000));
        lane
    }

    fn shape() -> Shape {
        Shape {
            max_keys: 1,
            ..Shape::count_by_origin("clicks", 10, 10)
        }
    }

    /// What the watermark is after the lane has taken `value` at `time`, as its next record.
    fn after(lane: &mut Lane, time: i64, value: Option<&str>) -> Option<i64> {
        let record = Record {
            offset: lane.ledger.next_offset,
            timestamp_ms: time,
            value: value.map(str::as_bytes),
        };
        lane.records(&&[record][..]);
        lane.watermark().map(|w| w.0)
    }

    #[test]
    fn every_record_with_a_known_time_moves_the_watermark() {
        let mut lane = lane(&shape());
        let good = |key: &str| format!("{{\"origin\": \"{key}\"}}");
        let long = good(&"k".repeat(70_000));
        assert_eq!(after(&mut lane, 15, Some(&good("a"))), Some(15), "counted");
        assert_eq!(after(&mut lane, 16, Some("{}")), Some(16), "a bad key");
        assert_eq!(after(&mut lane, 17, Some("{")), Some(17), "no JSON");
        assert_eq!(after(&mut lane, 18, Some(&long)), Some(18), "a long key");
        assert_eq!(after(&mut lane, 19, Some(&good("b"))), Some(19), "max-keys");
        assert_eq!(lane.closed_count(), 0);
        assert_eq!(after(&mut lane, 21, None), Some(21), "a tombstone");
        assert_eq!(lane.closed_count(), 1, "it closes a window");
        assert_eq!(after(&mut lane, 15, Some(&good("a"))), Some(21), "late");
        assert_eq!(after(&mut lane, 1001, Some(&good("a"))), Some(21), "future");
        assert_eq!(after(&mut lane, 1001, Some("{}")), Some(21), "future");
        assert_eq!(after(&mut lane, 1001, None), Some(21), "future");
        assert_eq!(after(&mut lane, -1, Some("{}")), Some(21), "no time");
        assert_eq!(
            after(&mut lane, 1000, Some("{}")),
            Some(1000),
            "the ceiling"
        );
        let l = lane.ledger;
        assert_eq!((l.counted, l.late, l.rejected, l.tombstones), (1, 1, 8, 2));
    }

    #[test]
    fn a_record_whose_time_field_cannot_be_read_moves_nothing() {
        let field = TimeField {
            path: vec!["ts".to_owned()],
            unit: TimeUnit::Millis,
        };
        let mut lane = lane(&Shape {
            timestamp_field: Some(field),
            ..shape()
        });
        assert_eq!(after(&mut lane, 500, Some("{\"origin\": \"a\"}")), None);
        assert_eq!(after(&mut lane, 500, Some("{")), None);
        assert_eq!(
            after(&mut lane, 500, None),
            None,
            "a tombstone has no field"
        );
        assert_eq!(after(&mut lane, 500, Some("{\"ts\": 7}")), Some(7));
    }

    #[test]
    fn an_idle_floor_takes_over_a_lower_one_unless_a_late_record_came_between() {
        let mut lane = lane(&shape());
        let floors = |lane: &Lane| {
            let floor = |d: &Decision| match d.what {
                Decided::Floor { at, .. } => Some((d.offset, at.0)),
                _ => None,
            };
            lane.decisions.iter().filter_map(floor).collect::<Vec<_>>()
        };
        let read = |lane: &mut Lane, offset, timestamp_ms, value: Option<&'static str>| {
            let value = value.map(str::as_bytes);
            lane.records(
                &&[Record {
                    offset,
                    timestamp_ms,
                    value,
                }][..],
            );
        };
        read(&mut lane, 0, -1, None);
        lane.raise_floor(EventTime(15), FloorReason::Idle);
        read(&mut lane, 1, -1, None);
        lane.raise_floor(EventTime(35), FloorReason::Idle);
        assert_eq!(floors(&lane), [(2, 35)]);
        read(&mut lane, 2, 5, Some(r#"{"origin": "a"}"#));
        assert_eq!(lane.ledger.late, 1);
        lane.raise_floor(EventTime(36), FloorReason::Idle);
        assert_eq!(floors(&lane), [(2, 35), (3, 36)]);
        // This one moves the watermark itself.
        read(&mut lane, 3, 50, None);
        lane.raise_floor(EventTime(60), FloorReason::Idle);
        read(&mut lane, 4, -1, None);
        lane.raise_floor(EventTime(70), FloorReason::Quiet);
        assert_eq!(floors(&lane), [(2, 35), (3, 36), (4, 60), (5, 70)]);
    }

    #[test]
    fn a_bad_record_that_stops_the_lane_moves_nothing() {
        let mut lane = lane(&Shape {
            on_bad_record: OnBadRecord::Fail,
            ..shape()
        });
        assert_eq!(after(&mut lane, 500, Some("{}")), None);
        assert!(matches!(lane.stopped(), Some(Stopped::BadRecord(_))));
        assert_eq!(lane.ledger.next_offset, 0);
    }
}
