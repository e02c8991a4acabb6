//! What is known of the reading of one topic partition, and when it stands aside: its windows then
//! wait for nobody. What follows for all of them is in `reading`.
//!
//! A lane stands aside when all of this is true:
//!
//! 1. For `idle-timeout`, none of its records was counted or moved its watermark.
//! 2. The end of its log was asked for, and no transaction was open there.
//! 3. It has since read everything that was in the log when the end was asked for.
//! 4. Flow control was not holding anything back from it. That is so where it is held and has read
//!    to the end that was asked for, and it must count: in full memory all are held, and what frees
//!    it again may be that one of them stands aside.

use super::answers::Answers;
use super::step::Step;
use crate::values::record::{Offset, Partition};
use crate::values::time::{EventTime, Mono};

/// The first pause before a topic partition that cannot be read is started again.
const AGAIN_MS: u64 = 1000;
/// The longest such pause.
const AGAIN_MS_MAX: u64 = 60_000;
/// A topic partition without records for this long may have an open transaction, so the end of its
/// log is asked for, however long `idle-timeout` is.
const LOOK_FOR_TRANSACTION_MS: u64 = 15_000;
/// A lane stands aside for at least this long once it has read to the end of its log that was asked
/// for. To read there may have taken longer than it stands aside otherwise: with little memory,
/// and nothing but rejects that go on and on, it is never at the live end.
const REACHED_HOLDS_MS: u64 = 1000;

/// What is known of the reading of one topic partition.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Feed {
    /// The reader was told to read it.
    pub(super) reading: bool,
    /// Flow control holds it back.
    pub(super) held: bool,
    /// The topic partition that it is held back for, where it is held back for one.
    pub(super) held_by: Option<Partition>,
    /// The answers that did not have it in the topic any more.
    pub(super) gone: Option<Answers>,
    /// The answers by which its log ends below where we are, as if it had been cut off.
    pub(super) ends_below: Option<Answers>,
    pub(super) limits: Limits,
    /// When a record came last that was counted or moved the watermark of its lane. Others are no
    /// sign of life: they would hold all windows open without ever closing one.
    pub(super) last_record: Mono,
    /// Starts again what cannot be read; `None` while it can.
    pub(super) again: Option<Again>,
    /// When the end of the log was answered last.
    pub(super) end_answered_at: Option<Mono>,
    /// The question for the end of the log that is on its way.
    pub(super) end_question: EndQuestion,
    /// An end of the log that the lane has not reached yet. Once it has, it stands aside.
    pub(super) end_to_reach: Option<EndToReach>,
    /// The same for an end that was asked for when the lane had had no sign of life for
    /// `quiet-timeout`.
    pub(super) quiet_end_to_reach: Option<EndToReach>,
    /// The lane had read to such an end. That is taken to hold until this time, as with
    /// `idle_until`.
    pub(super) quiet_until: Option<Mono>,
    /// Of the last answer: a transaction is open in this log.
    pub(super) transaction: Option<OpenTransaction>,
    /// How far the floor of this lane may be raised: the greatest watermark of all lanes when that
    /// end of the log was asked for to which this lane has read since. A watermark that was reached
    /// later does not count, because the record that moved it may have come together with records
    /// here.
    ///
    /// Example: the greatest watermark was 12:00:20 when the question was asked, and has since
    /// moved to 12:00:40. The floor may go to 12:00:20; for more, the question is asked again.
    pub(super) floor_limit: Option<EventTime>,
    /// It stands aside. That is taken to hold until this time, unless a record comes that is
    /// counted or moves the watermark.
    pub(super) idle_until: Option<Mono>,
    /// How often the reader was asked where the log was cut off, without an answer.
    pub(super) cut_asked: u32,
    /// The end of the log as last heard of.
    pub(super) log_end: Offset,
}

/// What was so when the end of a log was asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct EndQuestion {
    /// The greatest watermark of all lanes.
    pub(super) watermark: Option<EventTime>,
    /// The lane's next offset. An end before it is that of a broker that is behind.
    pub(super) next_offset: Offset,
    /// The lane had had no sign of life for `idle-timeout`.
    pub(super) silent: bool,
    /// The lane had had no sign of life for `quiet-timeout`.
    pub(super) quiet: bool,
}

/// An end of the log at which no transaction was open.
#[derive(Clone, Copy, Debug)]
pub(super) struct EndToReach {
    pub(super) offset: Offset,
    pub(super) asked_at: Mono,
    /// The greatest watermark of all lanes when it was asked for.
    pub(super) watermark: Option<EventTime>,
}

impl EndToReach {
    /// Which end is read to once this one is known as well: the nearer one. Where something is
    /// appended all the time, a later one would be further away each time it is asked for. Where
    /// the log was cut off since, the earlier one would never be reached.
    fn or_nearer(self, known: Option<Self>) -> Self {
        known
            .filter(|known| known.offset < self.offset)
            .unwrap_or(self)
    }

    fn is_reached(self, next: Offset) -> bool {
        next >= self.offset
    }

    /// Until when it counts, now that it is reached.
    fn holds_until(self, holds_ms: u64, now: Mono) -> Mono {
        self.asked_at.plus(holds_ms).max(now.plus(REACHED_HOLDS_MS))
    }
}

/// A transaction whose end is waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpenTransaction {
    pub(super) last_stable: Offset,
    pub(super) since: Mono,
}

/// How long to wait before a topic partition that cannot be read is started again, in ms: 1 s, and
/// twice as long each time, up to a minute. `before` is the pause before the last start.
#[must_use]
pub fn pause_before_start(before: Option<u64>) -> u64 {
    before.map_or(AGAIN_MS, |ms| (2 * ms).min(AGAIN_MS_MAX))
}

/// When a topic partition that cannot be read is started again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Again {
    pub(super) at: Mono,
    /// The pause before that.
    pub(super) pause_ms: u64,
}

/// Whether the offset that was asked for is in the log: until that is known, reading is not started
/// again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Limits {
    /// Nothing is in doubt.
    #[default]
    Fine,
    /// The log's limits were asked for.
    Asked,
    /// The brokers could not answer; they are asked again at this time.
    AskAt(Mono),
    /// The log begins and ends here, if it is still the same topic, which is being asked.
    Known(Offset, Offset),
}

impl Feed {
    /// Whether it stands aside.
    pub(super) fn is_idle(&self, now: Mono) -> bool {
        self.is_gone() || self.idle_until.is_some_and(|until| now < until)
    }

    /// Whether the topic has not had it for so long that it holds nobody back.
    pub(super) fn is_gone(&self) -> bool {
        self.gone.is_some_and(Answers::are_believed)
    }

    /// Nothing was counted, and no watermark moved, for `idle-timeout`.
    pub(super) fn is_silent(&self, step: &Step<'_>) -> bool {
        step.now.since(self.last_record) >= step.rules.idle_timeout_ms
    }

    /// It has had no sign of life for so long that the end of its log is asked for.
    pub(super) fn is_quiet(&self, step: &Step<'_>) -> bool {
        let quiet_ms = Self::shorter_timeout_ms(step).min(LOOK_FOR_TRANSACTION_MS);
        step.now.since(self.last_record) >= quiet_ms
    }

    /// The shorter one of `idle-timeout` and `quiet-timeout`.
    pub(super) fn shorter_timeout_ms(step: &Step<'_>) -> u64 {
        let idle_ms = step.rules.idle_timeout_ms;
        step.rules
            .quiet_timeout_ms
            .map_or(idle_ms, |quiet_ms| quiet_ms.min(idle_ms))
    }

    /// Nothing was counted, and no watermark moved, for `quiet-timeout`.
    pub(super) fn is_silent_for_quiet(&self, step: &Step<'_>) -> bool {
        let silent_ms = step.now.since(self.last_record);
        step.rules
            .quiet_timeout_ms
            .is_some_and(|quiet_ms| silent_ms >= quiet_ms)
    }

    /// The end of the log was answered, at which no transaction is open. Where a lane has long been
    /// silent, it is to be read to.
    pub(super) fn note_end(&mut self, question: &EndQuestion, end: EndToReach, step: &Step<'_>) {
        if question.silent && self.is_silent(step) {
            self.end_to_reach = Some(end.or_nearer(self.end_to_reach));
        }
        if question.quiet && self.is_silent_for_quiet(step) {
            self.quiet_end_to_reach = Some(end.or_nearer(self.quiet_end_to_reach));
        }
    }

    /// Whether the lane has read all that was in the log when it had been silent for
    /// `quiet-timeout`, or stands aside. It need not: `idle-timeout` may be longer.
    pub(super) fn is_read_to_quiet_end(&self, now: Mono) -> bool {
        self.is_idle(now) || (self.reading && self.quiet_until.is_some_and(|until| now < until))
    }

    /// How long it stands aside after its log's end was asked for.
    pub(super) fn hold_ms(step: &Step<'_>) -> u64 {
        step.rules
            .idle_timeout_ms
            .max(step.rules.limits.idle_holds_ms)
    }

    /// What was seen of the log's end does not count any more.
    pub(super) fn forget_ends(&mut self) {
        (self.idle_until, self.end_to_reach) = (None, None);
        (self.quiet_until, self.quiet_end_to_reach) = (None, None);
    }

    /// It stands aside once it has read everything that was in the log when its end was asked for,
    /// however long that took. Its floor goes no further than what was known when it was asked.
    pub(super) fn stand_aside(&mut self, next: Offset, step: &Step<'_>) {
        if let Some(end) = self.end_to_reach
            && end.is_reached(next)
            && self.reading
            && self.is_silent(step)
        {
            self.end_to_reach = None;
            self.idle_until = Some(end.holds_until(Self::hold_ms(step), step.now));
            self.floor_limit = end.watermark;
        }
        if let Some(end) = self.quiet_end_to_reach
            && end.is_reached(next)
            && self.reading
            && self.is_silent_for_quiet(step)
        {
            let holds_ms = Self::shorter_timeout_ms(step).max(step.rules.limits.idle_holds_ms);
            self.quiet_end_to_reach = None;
            self.quiet_until = Some(end.holds_until(holds_ms, step.now));
        }
    }
}
