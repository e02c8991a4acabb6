//! The way of a lane from its checkpoint back to where the last commit was, and what becomes of it
//! where that way cannot be gone. What a record does is not said here.

use super::{Lane, LaneState, Stopped, bytes_of};
use crate::count::watermark::Watermark;
use crate::values::decision::{Decided, Decision};
use crate::values::ledger::LaneLedger;
use crate::values::record::{EpochMark, Offset};
use crate::values::time::EventTime;
use std::collections::VecDeque;

/// What the last commit says of a lane whose replay cannot be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtCommit {
    /// The watermark then.
    pub watermark: Option<EventTime>,
    /// The greatest event time then.
    pub newest: Option<EventTime>,
    /// The sum of the counts that were not in rows yet.
    pub held: u64,
    /// The last record whose leader epoch is known.
    pub epoch_mark: Option<EpochMark>,
}

/// The way from a checkpoint back to where the last commit was.
pub(super) struct Replay {
    /// The offset of the checkpoint.
    pub(super) began_at: Offset,
    /// The watermark at the checkpoint: windows that end at or before it were complete there.
    pub(super) began: Watermark,
    /// The committed ledger, which the replay must come to.
    pub(super) goal: LaneLedger,
    /// The committed watermark, which it must come to as well: records that were cut off and
    /// written anew may give the same ledger.
    pub(super) goal_watermark: Option<EventTime>,
    /// The committed newest event time, which it must come to as well: a floor may be above the
    /// watermark that records give. `None` where the commit says none.
    pub(super) goal_newest: Option<EventTime>,
    /// The delay that a decision of the replay sets last, in milliseconds, and the ceiling.
    pub(super) last_delay_ms: i64,
    pub(super) last_ceiling: i64,
    /// The last record before the goal whose leader epoch is known, while it is not known whether
    /// the log still has that record.
    pub(super) unchecked: Option<EpochMark>,
    /// The recorded decisions that are not applied yet, in the order of their offsets.
    pub(super) decisions: VecDeque<Decision>,
}

impl Replay {
    /// From the checkpoint `state` to the ledger `goal`, with the decisions since.
    pub(super) fn new(state: &LaneState, goal: LaneLedger, decisions: Vec<Decision>) -> Self {
        let decisions = without_taken_over(decisions);
        let last =
            |set: fn(&Decided) -> Option<i64>| decisions.iter().rev().find_map(|d| set(&d.what));
        let last_delay_ms = last(|what| match what {
            Decided::Delay { ms } | Decided::CountsLost { delay_ms: ms, .. } => Some(*ms),
            _ => None,
        });
        let last_ceiling = last(|what| match what {
            Decided::Ceiling { at } | Decided::CountsLost { ceiling: at, .. } => Some(at.0),
            _ => None,
        });
        Self {
            began_at: state.ledger.next_offset,
            began: state.watermark,
            goal,
            goal_watermark: None,
            goal_newest: None,
            last_delay_ms: last_delay_ms.unwrap_or(state.watermark.delay_ms()),
            last_ceiling: last_ceiling.unwrap_or(state.ceiling),
            unchecked: None,
            decisions: decisions.into(),
        }
    }
}

impl Lane {
    /// Ends the replay of a restored lane at once where nothing is to be read again. `watermark`
    /// and `newest`, the greatest event time, are those of the last commit. Where that says no
    /// `newest`, none is compared.
    pub fn begin_replay(&mut self, watermark: Option<EventTime>, newest: Option<EventTime>) {
        if let Some(replay) = &mut self.replay {
            replay.goal_watermark = watermark;
            replay.goal_newest = newest;
        }
        // The offsets before and after another generation do not compare.
        if !self.replays_another_generation() {
            self.reach(self.ledger.next_offset);
        }
    }

    /// Has the log be checked where the replay ends, before the replay: what is read below may be
    /// another log than the one that was counted, and give the same ledger. `mark` is the last
    /// record before whose leader epoch is known; without one nothing can be checked.
    pub fn check_before_replay(&mut self, mark: Option<EpochMark>) {
        if let Some(replay) = &mut self.replay {
            replay.unchecked = mark;
        }
    }

    /// Where reading starts: the offset, and the leader epoch of the record before it; -1 when none
    /// is known. That may be below the next offset: then nothing but offsets that are never shown
    /// lay between, and a record there is of another log.
    #[must_use]
    pub fn starts_at(&self) -> (Offset, i32) {
        let unchecked = self.replay.as_ref().and_then(|replay| replay.unchecked);
        match unchecked.or(self.epoch_mark) {
            Some(mark) => (mark.offset, mark.leader_epoch),
            None => (self.ledger.next_offset, -1),
        }
    }

    /// Where the last known leader epoch was, if that is below the next offset of a lane that is
    /// not replayed.
    #[must_use]
    pub fn shown_up_to(&self) -> Option<Offset> {
        let mark = self.epoch_mark.filter(|_| self.replay.is_none())?;
        (mark.offset < self.ledger.next_offset).then_some(mark.offset)
    }

    /// The last record whose leader epoch is known; `None` while there is none.
    #[must_use]
    pub fn epoch_mark(&self) -> Option<EpochMark> {
        self.epoch_mark
    }

    /// The reader went on where the replay ends, so the log below is the one that was counted.
    /// Returns whether that was in question: then the replay is read next.
    pub fn note_checked(&mut self) -> bool {
        let replay = self.replay.as_mut();
        replay.is_some_and(|replay| replay.unchecked.take().is_some())
    }

    /// In a replay, before the record at `offset`: applies the decisions that hold from there or
    /// from earlier, and ends the replay where the last commit ended.
    ///
    /// Example: the commit ended at offset 10, and a floor was recorded at offset 7. A record at 6
    /// applies nothing. A record at 8 applies the floor and then makes offset 7 a gap. After it, a
    /// record at 12 makes 9 a gap, compares the ledgers at 10, and ends the replay.
    pub(super) fn reach(&mut self, offset: Offset) {
        let Some(mut replay) = self.replay.take() else {
            return;
        };
        let goal = replay.goal.next_offset;
        let until = |next: Offset| offset.max(next).min(goal);
        // A decision about lost records may lead past the offset.
        while let Some(decision) = {
            let until = until(self.ledger.next_offset);
            replay.decisions.pop_front_if(|d| d.offset <= until)
        } {
            self.skip_to(decision.offset.max(self.ledger.next_offset));
            self.obey(&decision.what);
        }
        if until(self.ledger.next_offset) < goal {
            self.replay = Some(replay);
            return;
        }
        self.skip_to(replay.goal.next_offset.max(self.ledger.next_offset));
        let (goal, times) = (replay.goal, (self.watermark(), self.newest()));
        let must = (replay.goal_watermark, replay.goal_newest.or(times.1));
        if self.ledger != goal || times != must {
            let differs = if self.ledger != goal {
                format!(
                    "ledger that differs from the committed one: {:?} instead of {goal:?}",
                    self.ledger
                )
            } else if times.0 != must.0 {
                format!(
                    "watermark that differs from the committed one: {:?} instead of {:?}",
                    times.0, must.0
                )
            } else {
                format!(
                    "newest event time that differs from the committed one: {:?} instead of {:?}",
                    times.1, must.1
                )
            };
            self.stopped = Some(Stopped::Replay(format!(
                "the replay of topic partition {} gives a {differs}; the log below offset {} has \
                 changed since the commit (a compacted topic, or a restored broker)",
                self.partition, goal.next_offset
            )));
            // It may still be decided that what cannot be made again is lost.
            self.replay = Some(replay);
        }
    }

    /// Decides that the replay cannot be done, because records are gone that were counted after the
    /// checkpoint. The lane is then where the last commit left it, without what it had counted in
    /// windows that were open at the checkpoint or were opened since. `through` is how far windows
    /// of the table are closed: what is in their rows is not lost.
    ///
    /// # Panics
    /// When there is no replay.
    pub fn lose_counts(&mut self, at: AtCommit, through: Option<EventTime>, reason: String) {
        let replay = self.replay.take().expect("only a replay loses counts");
        // Only what was complete at the checkpoint is right: what was replayed since may have been
        // read from another log.
        let complete = replay.began.ms();
        let through = through.map_or(i64::MIN, |t| t.0);
        let size = self.size;
        self.closed
            .retain(|start, _| (through + 1..=complete).contains(&(start + size)));
        self.closed_bytes = bytes_of(&self.closed, self.partials.width());
        let mut ledger = replay.goal;
        ledger.lost_hits += at.held.saturating_sub(self.closed_count());
        // Without lost hits no open window has counted anything.
        let opened = at
            .newest
            .filter(|_| ledger.lost_hits > replay.goal.lost_hits)
            .map(|t| EventTime(self.partials.last_end_of(t.0)));
        self.stopped = None;
        self.watermark = replay.began;
        // Where no checkpoint could be read the delay is not known, but it cannot have been less.
        let trails = at.newest.zip(at.watermark).map_or(0, |(n, w)| n.0 - w.0);
        let what = Decided::CountsLost {
            to: ledger.next_offset,
            ledger,
            newest: at.newest,
            floor: opened.max(at.watermark),
            delay_ms: replay.last_delay_ms.max(trails),
            ceiling: EventTime(replay.last_ceiling),
            reason,
        };
        self.obey(&what);
        self.epoch_mark = at.epoch_mark;
        self.decisions.push(Decision {
            partition: self.partition,
            offset: replay.began_at,
            what,
        });
    }

    /// The offset that a replay leads to; `None` when there is none.
    #[must_use]
    pub fn replays_to(&self) -> Option<Offset> {
        self.replay.as_ref().map(|replay| replay.goal.next_offset)
    }

    /// Whether the replay must take over a decision before which the log cannot be read any more:
    /// a new generation, whose offsets mean other records.
    #[must_use]
    pub fn replays_another_generation(&self) -> bool {
        self.replay.as_ref().is_some_and(|replay| {
            let mut decided = replay.decisions.iter().map(|d| &d.what);
            decided.any(|what| matches!(what, Decided::Generation { .. }))
        })
    }
}

/// The decisions of a replay without those that one about lost counts takes over: those that were
/// recorded before it and hold from a later offset on.
fn without_taken_over(decisions: Vec<Decision>) -> Vec<Decision> {
    let mut left: Vec<Decision> = Vec::with_capacity(decisions.len());
    for decision in decisions {
        if let Decided::CountsLost { .. } = decision.what {
            left.retain(|d| d.offset <= decision.offset);
        }
        left.push(decision);
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::count::checkpoint;
    use crate::values::decision::FloorReason;
    use crate::values::record::Record;
    use crate::values::shape::{OnBadRecord, Shape};

    /// Sliding windows of 20 every 10, of which another job closed those through 30, and had read
    /// up to offset 4.
    #[test]
    fn what_another_job_has_counted_is_adopted_and_not_late_also_in_a_replay() {
        let shape = Shape::count_by_origin("clicks", 20, 10);
        let begin = || {
            let mut lane = Lane::new(0, &shape, 0);
            lane.set_delay(0);
            lane.decide(Decided::Adopted {
                through: EventTime(30),
                to: 4,
            });
            lane.offer_ceiling(EventTime(1000));
            lane
        };
        let read = |lane: &mut Lane, times: &[i64]| {
            for time in times {
                let record = Record {
                    offset: lane.ledger.next_offset,
                    timestamp_ms: *time,
                    value: Some(br#"{"origin":"a"}"#),
                };
                lane.records(&&[record][..]);
            }
        };
        let mut lane = begin();
        // Wholly the job's; half the job's; ours; late by our own watermark; and then behind the
        // job's offset, where what it has closed is late.
        read(&mut lane, &[15, 25, 41, 22, 15, 32]);
        let ledger = lane.ledger;
        assert_eq!((ledger.adopted, ledger.late, ledger.counted), (1, 2, 3));
        assert_eq!((ledger.hits, ledger.late_hits), (1 + 2 + 2, 1));
        assert_eq!(ledger.check(), Ok(()));
        let late: Vec<Offset> = lane.take_side_rows().0.iter().map(|l| l.offset).collect();
        assert_eq!(late, [3, 4]);

        let mut again = Lane::restore(
            0,
            &shape,
            LaneState::at_start(0),
            lane.ledger,
            lane.take_decisions(),
        );
        again.begin_replay(lane.watermark(), lane.newest());
        read(&mut again, &[15, 25, 41, 22, 15, 32]);
        again.end(6);
        assert_eq!(again.stopped(), None);
        assert_eq!(again.ledger, lane.ledger);
        assert!(again.late.is_empty());

        // A checkpoint amid what was adopted leads there as well.
        let mut at_one = begin();
        read(&mut at_one, &[15]);
        let state = state_of(&at_one);
        assert_eq!(state.adoption.map(|adoption| adoption.to), Some(4));
        let mut again = Lane::restore(0, &shape, state, lane.ledger, Vec::new());
        again.begin_replay(lane.watermark(), lane.newest());
        read(&mut again, &[25, 41, 22, 15, 32]);
        again.end(6);
        assert_eq!(again.ledger, lane.ledger);
    }

    /// What a checkpoint of this lane gives back.
    fn state_of(lane: &Lane) -> LaneState {
        let bytes = checkpoint::encode([(0, lane)], 1);
        let shape = Shape::count_by_origin("clicks", 10, 10);
        checkpoint::decode(&bytes, &shape)
            .unwrap()
            .remove(&0)
            .unwrap()
    }

    /// A lane whose checkpoint, at offset 0, has the ceiling `before`. The last commit was at
    /// offset 4, and the ceiling `after` was recorded at offset 2.
    fn with_ceilings(before: i64, after: i64) -> Lane {
        let shape = Shape::count_by_origin("clicks", 10, 10);
        let mut counted = Lane::new(0, &shape, 0);
        counted.offer_ceiling(EventTime(before));
        take(&mut counted, 0..1, 5);
        let state = LaneState {
            ceiling: before,
            ..LaneState::at_start(0)
        };
        take(&mut counted, 1..2, 5);
        counted.offer_ceiling(EventTime(after));
        take(&mut counted, 2..4, 5);
        let decisions = counted.decisions.iter().filter(|d| d.offset > 0);
        let decisions = decisions.cloned().collect();
        let mut lane = Lane::restore(0, &shape, state, counted.ledger, decisions);
        lane.begin_replay(counted.watermark(), counted.newest());
        assert!(lane.replaying());
        lane
    }

    /// Takes one record of this time at each of the offsets, in one batch.
    fn take(lane: &mut Lane, offsets: std::ops::Range<Offset>, time: i64) {
        let records: Vec<Record<'_>> = offsets
            .map(|offset| Record {
                offset,
                timestamp_ms: time,
                value: Some(br#"{"origin": "a"}"#),
            })
            .collect();
        lane.records(&&records[..]);
    }

    #[test]
    fn a_bad_record_in_a_replay_is_another_log_and_not_the_end() {
        let shape = Shape {
            on_bad_record: OnBadRecord::Fail,
            ..Shape::count_by_origin("t", 10, 10)
        };
        // The commit read offset 0 as one that is never shown.
        let goal = LaneLedger {
            next_offset: 1,
            gaps: 1,
            ..LaneLedger::default()
        };
        let mut lane = Lane::restore(0, &shape, LaneState::at_start(0), goal, Vec::new());
        lane.begin_replay(None, None);
        let batch = [Record {
            offset: 0,
            timestamp_ms: 5,
            value: Some(br#"{"origin": "a"}"#),
        }];
        lane.records(&&batch[..]);
        let said = match lane.stopped() {
            Some(Stopped::Replay(said)) => said,
            other => panic!("{other:?}"),
        };
        assert!(
            said.contains("at offset 0 that cannot be counted (from the future"),
            "{said}"
        );
    }

    #[test]
    fn a_record_behind_a_replay_is_judged_by_the_ceiling_of_now() {
        // The ceiling of now, 1000, happens to be that of the checkpoint. The replay ends with
        // another one: the clock was ahead for a while, or behind.
        for other in [9000, 100] {
            let mut lane = with_ceilings(1000, other);
            let now = EventTime(1000);
            assert!(lane.ceiling_is_off(now, 100), "a replay to {other}");
            lane.offer_ceiling(now);
            assert!(!lane.ceiling_is_off(now, 100));
            take(&mut lane, 0..5, 5);
            assert!(!lane.replaying());
            assert_eq!(lane.stopped(), None);
            take(&mut lane, 5..6, 1000);
            take(&mut lane, 6..7, 1001);
            let ledger = lane.ledger;
            assert_eq!((ledger.counted, ledger.rejected), (6, 1));
        }
    }

    #[test]
    fn a_replay_that_ends_with_the_ceiling_of_now_needs_no_other() {
        let lane = with_ceilings(100, 1000);
        assert!(!lane.ceiling_is_off(EventTime(1050), 100));
    }

    const NOON: i64 = 1_725_192_000_000;

    fn shape() -> Shape {
        Shape::count_by_origin("clicks", 10_000, 10_000)
    }

    /// Takes records of 20 keys at these offsets, one a second.
    fn read(lane: &mut Lane, offsets: std::ops::Range<Offset>) {
        for offset in offsets {
            let value = format!("{{\"origin\": \"k{}\"}}", offset % 20);
            let record = Record {
                offset,
                timestamp_ms: NOON + offset * 1000,
                value: Some(value.as_bytes()),
            };
            lane.records(&&[record][..]);
        }
    }

    /// A lane that is replayed from offset 25 to 40, and where it was then.
    fn replayed(decisions: Vec<Decision>) -> (Lane, AtCommit) {
        let mut before = Lane::new(0, &shape(), 0);
        before.set_delay(0);
        before.offer_ceiling(EventTime(i64::MAX));
        read(&mut before, 0..25);
        let checkpoint = state_of(&before);
        read(&mut before, 25..40);
        let at = AtCommit {
            watermark: before.watermark(),
            newest: before.newest(),
            held: before.open_count() + before.closed_count(),
            epoch_mark: None,
        };
        let mut lane = Lane::restore(0, &shape(), checkpoint, before.ledger, decisions);
        lane.begin_replay(at.watermark, at.newest);
        (lane, at)
    }

    #[test]
    fn counts_that_are_lost_take_no_memory() {
        let (mut lane, at) = replayed(Vec::new());
        read(&mut lane, 25..37);
        // The window that the replay has closed since the checkpoint is lost, and so is the open
        // one; the rows of the first are not final.
        lane.lose_counts(at, Some(EventTime(NOON + 10_000)), "gone".to_owned());
        let restored = Lane::restore(0, &shape(), state_of(&lane), lane.ledger, Vec::new());
        assert!(lane.sums_are_right());
        // What was decided about it is committed.
        lane.take_decisions();
        assert_eq!(lane.memory_bytes(), restored.memory_bytes());
        lane.take_closed_before(i64::MAX);
        assert_eq!(lane.memory_bytes(), 0);
    }

    /// A record was written anew with another time, as where a broker was restored from a copy. A
    /// floor is above both watermarks, so only the newest event time tells.
    #[test]
    fn a_replay_to_another_newest_event_time_is_not_right() {
        let above = EventTime(NOON + 60_000);
        for changed in [false, true] {
            let mut before = Lane::new(0, &shape(), 0);
            before.offer_ceiling(EventTime(i64::MAX));
            let checkpoint = state_of(&before);
            read(&mut before, 0..2);
            before.raise_floor(above, FloorReason::Idle);
            let decisions = before.decisions.clone();
            let mut lane = Lane::restore(0, &shape(), checkpoint, before.ledger, decisions);
            lane.begin_replay(before.watermark(), before.newest());
            read(&mut lane, 0..1);
            let record = Record {
                offset: 1,
                timestamp_ms: NOON + 1000 + i64::from(changed),
                value: Some(br#"{"origin": "k1"}"#),
            };
            lane.records(&&[record][..]);
            lane.end(2);
            assert_eq!(lane.watermark(), Some(above));
            let stopped = matches!(lane.stopped(), Some(Stopped::Replay(_)));
            assert_eq!(stopped, changed, "{:?}", lane.stopped());
        }
    }

    fn lost(offset: Offset, to: Offset) -> Decision {
        Decision {
            partition: 0,
            offset,
            what: Decided::Lost {
                to,
                reason: "gone".to_owned(),
            },
        }
    }

    /// The log's start went back after a loss was recorded, as where a broker was restored from a
    /// copy: the records of the loss are there again.
    #[test]
    fn records_that_were_lost_and_are_there_again_are_passed_over() {
        let (mut lane, _) = replayed(vec![lost(28, 34)]);
        read(&mut lane, 25..41);
        assert_eq!((lane.ledger.lost, lane.ledger.next_offset), (6, 40));
        assert!(matches!(lane.stopped(), Some(Stopped::Replay(_))));
    }

    #[test]
    fn a_loss_that_leads_back_loses_nothing() {
        let (mut lane, _) = replayed(vec![lost(28, 3)]);
        read(&mut lane, 25..41);
        assert_eq!(lane.ledger.lost, 0);
        // It is the same log, with which nothing was lost.
        assert_eq!((lane.stopped(), lane.replaying()), (None, false));
    }
}
