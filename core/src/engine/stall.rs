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
    /// When the frontier moved last, or when reading began again after a silence.
    since: Mono,
    /// When a record was read last; `None` before the first one.
    read_at: Option<Mono>,
    /// Since when records wait to be read and the frontier stands; `None` while none waits.
    unread_since: Option<Mono>,
}

impl Stall {
    pub(super) fn new(now: Mono) -> Self {
        Self {
            frontier: None,
            since: now,
            read_at: None,
            unread_since: None,
        }
    }

    /// A record was read.
    pub(super) fn note_read(&mut self, step: &Step<'_>) {
        if !self.is_read(step.now, step.rules.stalled_after_ms) {
            self.since = step.now;
        }
        self.read_at = Some(step.now);
    }

    /// Whether records wait to be read. That time counts while they wait, and no longer: what they
    /// are is known only when they are read.
    pub(super) fn note_unread(&mut self, unread: bool, step: &Step<'_>) {
        let read = self.is_read(step.now, step.rules.stalled_after_ms);
        let since = if read { self.since } else { step.now };
        self.unread_since = unread.then(|| self.unread_since.unwrap_or(since));
    }

    /// Time has gone on. `stands` says that the frontier cannot be expected to move, because the
    /// table is paused or replayed, or the clocks differ.
    pub(super) fn tick(&mut self, frontier: Option<EventTime>, stands: bool, now: Mono) {
        if stands || self.frontier != frontier {
            (self.frontier, self.since) = (frontier, now);
            self.unread_since = self.unread_since.map(|_| now);
        }
    }

    /// For how long the frontier has stood still while there was something to count, in ms; 0 while
    /// there is nothing.
    pub(super) fn age_ms(&self, now: Mono, stalled_after_ms: u64) -> u64 {
        let read_since = self.is_read(now, stalled_after_ms).then_some(self.since);
        let since = read_since.into_iter().chain(self.unread_since).min();
        since.map_or(0, |since| now.since(since))
    }

    /// Whether records are being read: the last one is no longer ago than `stalled-after`.
    fn is_read(&self, now: Mono, stalled_after_ms: u64) -> bool {
        self.read_at
            .is_some_and(|at| now.since(at) <= stalled_after_ms)
    }
}
