//! What can be seen of a lane. Nothing is changed here.

use super::{Lane, Stopped, bytes_of};
use crate::count::partial::{Closed, Entry, closed_bytes};
use crate::values::decision::Decision;
use crate::values::time::EventTime;
use std::ops::Bound::{Excluded, Unbounded};

impl Lane {
    /// The windows that are closed here but not final.
    #[must_use]
    pub fn closed(&self) -> &Closed {
        &self.closed
    }

    /// What this lane takes in memory, in bytes, roughly: open windows, closed windows that are not
    /// final, late records, rejects, and decisions that are not committed. It costs nothing to ask.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.open_bytes() + self.closed_bytes + self.side_bytes + self.decisions_bytes()
    }

    /// The part of [`Lane::memory_bytes`] that decisions take which are not committed.
    fn decisions_bytes(&self) -> usize {
        self.decisions.len() * size_of::<Decision>()
    }

    /// Whether the running sums of [`Lane::memory_bytes`] are what a recount says.
    pub(super) fn sums_are_right(&self) -> bool {
        self.closed_bytes == bytes_of(&self.closed, self.partials.width())
            && self.partials.sum_is_right()
    }

    /// The part of [`Lane::memory_bytes`] that open windows take, with their keys. Only records of
    /// this lane free it.
    #[must_use]
    pub fn open_bytes(&self) -> usize {
        self.partials.bytes()
    }

    /// The part of [`Lane::memory_bytes`] that a commit up to `frontier` would free.
    #[must_use]
    pub fn committable_bytes(&self, frontier: Option<EventTime>) -> usize {
        let Some(frontier) = frontier else {
            return self.side_bytes + self.decisions_bytes();
        };
        // Many windows may wait for a commit, while few are past the frontier.
        let last = frontier.0.saturating_sub(self.size);
        let later = self.closed.range((Excluded(last), Unbounded));
        let width = self.partials.width();
        let later: usize = later.map(|(_, entries)| closed_bytes(entries, width)).sum();
        self.side_bytes + self.decisions_bytes() + self.closed_bytes - later
    }

    /// The watermark before the next record; `None` while there is none.
    #[must_use]
    pub fn watermark(&self) -> Option<EventTime> {
        self.watermark.get()
    }

    /// A record whose event time is after this is a reject; the time is in ms since 1970.
    #[must_use]
    pub fn ceiling(&self) -> i64 {
        self.ceiling
    }

    /// The watermark without floors of reason *loss*: what floors and limits of other topic
    /// partitions go by. A loss says nothing about the topic.
    #[must_use]
    pub fn watermark_without_loss(&self) -> Option<EventTime> {
        self.watermark.without_loss()
    }

    /// How far the watermark stays behind the greatest event time, in milliseconds.
    #[must_use]
    pub fn delay_ms(&self) -> i64 {
        self.watermark.delay_ms()
    }

    /// The greatest event time that moved the watermark so far.
    #[must_use]
    pub fn newest(&self) -> Option<EventTime> {
        self.watermark.greatest()
    }

    /// Whether the lane is not yet back at the last commit.
    #[must_use]
    pub fn replaying(&self) -> bool {
        self.replay.is_some()
    }

    /// Why the lane takes no further record; `None` while it does.
    #[must_use]
    pub fn stopped(&self) -> Option<&Stopped> {
        self.stopped.as_ref()
    }

    /// The sum of the counts in open windows.
    #[must_use]
    pub fn open_count(&self) -> u64 {
        self.partials.open_count(self.watermark_ms)
    }

    /// The sum of the counts in windows that are closed here but not final.
    #[must_use]
    pub fn closed_count(&self) -> u64 {
        self.closed.values().flatten().map(|e| e.count).sum()
    }

    /// The greatest end of a window that has data and is not final; `None` when there is no such
    /// window.
    #[must_use]
    pub fn last_end(&self) -> Option<EventTime> {
        let closed = self
            .closed
            .last_key_value()
            .map(|(start, _)| start + self.size);
        self.partials.last_end().max(closed).map(EventTime)
    }

    /// The windows that are not final, closed here or open, for people to look at: start, end,
    /// entries. With more than 10,000 keys the list is empty, because it copies them all.
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

    /// How many keys are in open windows. A key counts once for each slice that it is in.
    #[must_use]
    pub fn open_keys(&self) -> u64 {
        self.partials.key_slots()
    }

    /// How many keys are held in slices and closed partials. A key counts as often as it is held.
    #[must_use]
    pub fn key_slots(&self) -> u64 {
        self.partials.key_slots() + self.closed.values().map(|e| e.len() as u64).sum::<u64>()
    }
}
