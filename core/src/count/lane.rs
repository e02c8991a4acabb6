//! One topic partition's machine: extract → window → watermark → partials, late records, rejects, ledger.
//! What it does depends on its own log and on recorded decisions alone; it knows no other lane and no clock.

use crate::count::extract::{Extraction, Extractor};
use crate::count::partial::{Closed, Entry, Partials};
use crate::count::watermark::Watermark;
use crate::values::decision::{Decided, Decision, FloorReason};
use crate::values::ledger::LaneLedger;
use crate::values::record::{Batch, Offset, Partition, Record};
use crate::values::row::{LateRecord, RejectRecord, SIDE_VALUE_MAX_BYTES};
use crate::values::shape::{OnBadRecord, Shape};
use crate::values::time::EventTime;
use std::collections::VecDeque;

pub struct Lane {
    partition: Partition,
    size: i64,
    slide: i64,
    fail_on_reject: bool,
    extractor: Extractor,
    watermark: Watermark,
    /// `watermark.ms()`, kept beside it for the hot path.
    watermark_ms: i64,
    /// Earliest end of an open window with data: when the watermark reaches it, there is something to close.
    next_end: i64,
    /// Event times past this are rejects.
    ceiling: i64,
    /// A later ceiling that holds from the next record on, once there is one.
    offered_ceiling: Option<EventTime>,
    partials: Partials,
    /// Closed here, not yet final: another topic partition is behind.
    pub closed: Closed,
    pub ledger: LaneLedger,
    pub leader_epoch: i32,
    pub late: Vec<LateRecord>,
    pub rejects: Vec<RejectRecord>,
    /// Bytes of `late` and `rejects`.
    pub side_bytes: usize,
    /// Made since the last cut.
    pub decisions: Vec<Decision>,
    /// What the catalog says of the offsets up to which this lane has to be brought again.
    replay: Option<Replay>,
    stopped: Option<Stopped>,
}

/// Why a lane takes no further record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// A record that cannot be counted, and `on-bad-record` is `fail`. All before it is right.
    BadRecord(String),
    /// The log is not the one that was counted: nothing of this lane may be committed.
    Replay(String),
}

/// From a checkpoint back to where the last commit was.
struct Replay {
    /// The ledger that must come out.
    goal: LaneLedger,
    /// Recorded decisions not yet applied, by offset.
    decisions: VecDeque<Decision>,
}

/// All of a lane that a restart needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneState {
    pub watermark: Watermark,
    pub ceiling: i64,
    pub ledger: LaneLedger,
    pub leader_epoch: i32,
    pub slices: Vec<(i64, Vec<Entry>)>,
    pub closed: Closed,
}

impl Lane {
    /// A lane at its start offset: no record counted, no delay or ceiling decided yet.
    #[must_use]
    pub fn new(partition: Partition, shape: &Shape, start: Offset) -> Self {
        let ledger = LaneLedger {
            start_offset: start,
            next_offset: start,
            ..LaneLedger::default()
        };
        let state = LaneState {
            watermark: Watermark::new(0),
            ceiling: i64::MIN,
            ledger,
            leader_epoch: -1,
            slices: Vec::new(),
            closed: Closed::new(),
        };
        Self::restore(partition, shape, state, ledger, Vec::new())
    }

    /// A lane as its checkpoint has it, to be brought to `goal` with the decisions recorded since.
    #[must_use]
    pub fn restore(
        partition: Partition,
        shape: &Shape,
        state: LaneState,
        goal: LaneLedger,
        decisions: Vec<Decision>,
    ) -> Self {
        let mut partials = Partials::new(shape);
        partials.import(state.slices);
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
            partials,
            closed: state.closed,
            ledger: state.ledger,
            leader_epoch: state.leader_epoch,
            late: Vec::new(),
            rejects: Vec::new(),
            side_bytes: 0,
            decisions: Vec::new(),
            replay: Some(Replay {
                goal,
                decisions: decisions.into(),
            }),
            stopped: None,
        };
        lane.next_end = lane
            .partials
            .next_end(lane.watermark_ms)
            .unwrap_or(i64::MAX);
        lane.reach(lane.ledger.next_offset);
        lane
    }

    #[must_use]
    pub fn state(&self) -> LaneState {
        LaneState {
            watermark: self.watermark,
            ceiling: self.ceiling,
            ledger: self.ledger,
            leader_epoch: self.leader_epoch,
            slices: self.partials.export(),
            closed: self.closed.clone(),
        }
    }

    /// Takes the records of a batch in order. Those below the next offset were taken already and are passed over.
    pub fn records(&mut self, batch: &dyn Batch) {
        batch.each(&mut |record| {
            if self.stopped.is_none() && record.offset >= self.ledger.next_offset {
                self.record(record);
            }
        });
    }

    fn record(&mut self, record: Record<'_>) {
        if self.replay.is_some() {
            self.reach(record.offset);
        }
        if self.replay.is_none() {
            self.use_offered_ceiling();
        }
        if self.stopped.is_some() {
            return;
        }
        self.skip_to(record.offset);
        let Some(value) = record.value else {
            self.ledger.tombstones += 1;
            self.ledger.next_offset += 1;
            return;
        };
        let (time, key, values) = match self.extractor.extract(record.timestamp_ms, value) {
            Extraction::Counted(found) => (found.time, found.key, found.values),
            Extraction::Reject { reason, time } => return self.reject(record, time, reason),
        };
        if time.0 > self.ceiling {
            let reason = format!("from the future: after {}", EventTime(self.ceiling));
            return self.reject(record, Some(time), reason);
        }
        let span = self.partials.span(time.0);
        if span.last_end <= self.watermark_ms {
            self.ledger.late += 1;
            self.ledger.next_offset += 1;
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
            return self.reject(
                record,
                Some(time),
                "a new key in a slice that has max-keys already".to_owned(),
            );
        }
        self.ledger.counted += 1;
        self.ledger.next_offset += 1;
        self.ledger.hits += span.windows(self.slide);
        if self.watermark_ms >= span.first_end {
            self.ledger.late_hits += span.closed(self.slide, self.watermark_ms);
            self.next_end = self.next_end.min(
                span.next_end(self.slide, self.watermark_ms)
                    .unwrap_or(i64::MAX),
            );
        } else {
            self.next_end = self.next_end.min(span.first_end);
        }
        if self.watermark.saw(time) {
            self.move_watermark();
        }
    }

    fn reject(&mut self, record: Record<'_>, time: Option<EventTime>, reason: String) {
        if self.fail_on_reject {
            self.stopped = Some(Stopped::BadRecord(format!(
                "cannot count the record at topic partition {} offset {}: {reason}; on-bad-record is fail: choose another table \
                 name with on-bad-record: reject",
                self.partition, record.offset
            )));
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

    /// The log's end: every offset below is accounted for, shown or not.
    pub fn end(&mut self, offset: Offset) {
        if self.stopped.is_none() && offset >= self.ledger.next_offset {
            if self.replay.is_some() {
                self.reach(offset);
            }
            if self.stopped.is_none() {
                self.skip_to(offset);
            }
        }
    }

    /// Offsets that are passed over without a record are gaps.
    fn skip_to(&mut self, offset: Offset) {
        self.ledger.gaps +=
            u64::try_from(offset - self.ledger.next_offset).expect("offsets only grow");
        self.ledger.next_offset = offset;
    }

    /// In a replay, before the record at `offset`: applies the decisions that hold from there, and ends the replay
    /// where the last commit ended.
    fn reach(&mut self, offset: Offset) {
        let Some(mut replay) = self.replay.take() else {
            return;
        };
        let until = offset.min(replay.goal.next_offset);
        while let Some(decision) = replay.decisions.pop_front_if(|d| d.offset <= until) {
            self.skip_to(decision.offset.max(self.ledger.next_offset));
            self.obey(&decision.what);
        }
        if offset < replay.goal.next_offset {
            self.replay = Some(replay);
            return;
        }
        self.skip_to(replay.goal.next_offset.max(self.ledger.next_offset));
        if self.ledger != replay.goal {
            self.stopped = Some(Stopped::Replay(format!(
                "replay of topic partition {} gives another ledger than was committed: {:?} instead of {:?}; \
                 the log below offset {} has changed since (a compacted topic, or a restored broker)",
                self.partition, self.ledger, replay.goal, replay.goal.next_offset
            )));
        }
    }

    fn obey(&mut self, decided: &Decided) {
        match decided {
            Decided::Floor { at, .. } => {
                self.watermark.raise_floor(*at);
                self.move_watermark();
            }
            Decided::Ceiling { at } => self.ceiling = at.0,
            Decided::Delay { ms } => {
                self.watermark.set_delay(*ms);
                // A shorter delay moves it at once.
                self.move_watermark();
            }
            Decided::Lost { to, .. } => {
                let lost = *to - self.ledger.next_offset;
                self.ledger.lost += u64::try_from(lost).expect("lost offsets lie ahead");
                self.ledger.next_offset = *to;
            }
            Decided::Generation { to, .. } => {
                self.ledger = LaneLedger {
                    start_offset: *to,
                    next_offset: *to,
                    ..LaneLedger::default()
                };
                self.leader_epoch = -1;
            }
        }
    }

    /// The watermark's parts moved: closes what it has passed.
    fn move_watermark(&mut self) {
        let before = self.watermark_ms;
        self.watermark_ms = self.watermark.ms();
        if self.watermark_ms >= self.next_end {
            self.partials
                .close(before, self.watermark_ms, &mut self.closed);
            self.next_end = self
                .partials
                .next_end(self.watermark_ms)
                .unwrap_or(i64::MAX);
        }
    }

    /// Decides something that holds from the next offset on. Of several floors or ceilings at one offset only the
    /// last is kept: nothing happened in between.
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

    /// Raises the floor where that moves the watermark. Returns whether it did.
    pub fn raise_floor(&mut self, at: EventTime, reason: FloorReason) -> bool {
        let raises = at.0 > self.watermark_ms;
        if raises {
            self.decide(Decided::Floor { at, reason });
        }
        raises
    }

    /// The watermark delay from the next record on; a no-op when it is that already.
    pub fn set_delay(&mut self, ms: i64) {
        if self.watermark.delay_ms() != ms {
            self.decide(Decided::Delay { ms });
        }
    }

    /// A ceiling to use from the next record on. It is decided only when a record comes, so that a quiet topic
    /// partition has nothing to say.
    pub fn offer_ceiling(&mut self, at: EventTime) {
        self.offered_ceiling = Some(at);
    }

    fn use_offered_ceiling(&mut self) {
        if let Some(at) = self.offered_ceiling.take() {
            self.decide(Decided::Ceiling { at });
        }
    }

    /// Whether the ceiling in force, or offered, is further than `ms` from `at`. It is above after `max-future` was made
    /// shorter.
    #[must_use]
    pub fn ceiling_is_off(&self, at: EventTime, ms: u64) -> bool {
        self.offered_ceiling
            .map_or(self.ceiling, |c| c.0)
            .abs_diff(at.0)
            > ms
    }

    #[must_use]
    pub fn watermark(&self) -> Option<EventTime> {
        self.watermark.get()
    }

    #[must_use]
    pub fn replaying(&self) -> bool {
        self.replay.is_some()
    }

    #[must_use]
    pub fn stopped(&self) -> Option<&Stopped> {
        self.stopped.as_ref()
    }

    /// Sum of counts in open windows.
    #[must_use]
    pub fn open_count(&self) -> u64 {
        self.partials.open_count(self.watermark_ms)
    }

    /// Sum of counts in closed windows that are not final.
    #[must_use]
    pub fn closed_count(&self) -> u64 {
        self.closed.values().flatten().map(|e| e.count).sum()
    }

    /// The greatest end of a window with data, open or closed and not final.
    #[must_use]
    pub fn last_end(&self) -> Option<EventTime> {
        let closed = self
            .closed
            .last_key_value()
            .map(|(start, _)| start + self.size);
        self.partials.last_end().max(closed).map(EventTime)
    }

    /// Windows that are not final, open or closed, the oldest; none when there are very many keys, as this copies them.
    #[must_use]
    pub fn some_open_windows(&self) -> Vec<(i64, i64, Vec<Entry>)> {
        const KEYS_MAX: u64 = 10_000;
        if self.key_slots() > KEYS_MAX {
            return Vec::new();
        }
        let closed = self
            .closed
            .iter()
            .map(|(start, entries)| (*start, start + self.size, entries.clone()));
        closed
            .chain(self.partials.open_windows(self.watermark_ms))
            .collect()
    }

    /// Keys held in slices and closed partials, each as often as it is held.
    #[must_use]
    pub fn key_slots(&self) -> u64 {
        self.partials.key_slots() + self.closed.values().map(|e| e.len() as u64).sum::<u64>()
    }
}

/// What a side row costs beside its value, roughly.
const SIDE_ROW_BYTES: usize = 96;
