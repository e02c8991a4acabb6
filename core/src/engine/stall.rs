//! Whether the frontier moves while there is something to count, and for how long it has not. Who
//! holds it is seen in `view`.

use super::step::Step;
use crate::values::time::{EventTime, Mono};

/// How long the frontier has stood still while there was something to count: records were read, or
/// waited to be read, in the log or behind flow control.
///
/// Example, with `stalled-after` 5m: the frontier moves at 10:00, and a record is read every second
/// from then on. At 10:05 the table is stalled. It stays so when flow control stops all reading at
/// 10:10, until the frontier moves. Where everything is read at 10:01, and nothing comes before
/// 11:00, the time begins anew at 11:00.
#[derive(Debug)]
pub(super) struct Stall {
    frontier: Option<EventTime>,
    /// When the frontier moved last, or when something came again after a silence.
    since: Mono,
    /// When a record was read last; `None` before the first one.
    read_at: Option<Mono>,
    /// Records wait to be read now.
    unread: bool,
}

impl Stall {
    pub(super) fn new(now: Mono) -> Self {
        Self {
            frontier: None,
            since: now,
            read_at: None,
            unread: false,
        }
    }

    /// A record was read.
    pub(super) fn note_read(&mut self, step: &Step<'_>) {
        self.begin_anew_after_silence(step);
        self.read_at = Some(step.now);
    }

    /// Whether records wait to be read.
    pub(super) fn note_unread(&mut self, unread: bool, step: &Step<'_>) {
        if unread {
            self.begin_anew_after_silence(step);
        }
        self.unread = unread;
    }

    fn begin_anew_after_silence(&mut self, step: &Step<'_>) {
        if !self.is_busy(step.now, step.rules.stalled_after_ms) {
            self.since = step.now;
        }
    }

    /// Time has gone on. `stands` says that the frontier cannot be expected to move, because the
    /// table is paused or replayed, or the clocks differ.
    pub(super) fn tick(&mut self, frontier: Option<EventTime>, stands: bool, now: Mono) {
        if stands || self.frontier != frontier {
            (self.frontier, self.since) = (frontier, now);
        }
    }

    /// For how long the frontier has stood still while there was something to count, in ms; 0 while
    /// there is nothing.
    pub(super) fn age_ms(&self, now: Mono, stalled_after_ms: u64) -> u64 {
        if self.is_busy(now, stalled_after_ms) {
            now.since(self.since)
        } else {
            0
        }
    }

    /// Whether there is something to count: records wait to be read, or the last one was read no
    /// longer ago than `stalled-after`.
    fn is_busy(&self, now: Mono, stalled_after_ms: u64) -> bool {
        let read = |at| now.since(at) <= stalled_after_ms;
        self.unread || self.read_at.is_some_and(read)
    }
}
