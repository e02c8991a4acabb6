//! Whether the frontier moves while records are read, and for how long it has not. Who holds it is
//! seen in `view`.

use super::step::Step;
use crate::values::time::{EventTime, Mono};

/// How long the frontier has stood still while records were read.
///
/// Example, with `stalled-after` 5m: the frontier moves at 10:00, and a record is read every second
/// from then on. At 10:05 the table is stalled. Where nothing is read from 10:01 to 11:00, the time
/// begins anew at 11:00.
#[derive(Debug)]
pub(super) struct Stall {
    frontier: Option<EventTime>,
    /// When the frontier moved last, or when reading began again after a silence.
    since: Mono,
    /// When a record was read last; `None` before the first one.
    read_at: Option<Mono>,
}

impl Stall {
    pub(super) fn new(now: Mono) -> Self {
        Self {
            frontier: None,
            since: now,
            read_at: None,
        }
    }

    /// A record was read.
    pub(super) fn note_read(&mut self, step: &Step<'_>) {
        if !self.is_read(step.now, step.rules.stalled_after_ms) {
            self.since = step.now;
        }
        self.read_at = Some(step.now);
    }

    /// Time has gone on. `stands` says that the frontier cannot be expected to move, because the
    /// table is paused or replayed.
    pub(super) fn tick(&mut self, frontier: Option<EventTime>, stands: bool, now: Mono) {
        if stands || self.frontier != frontier {
            (self.frontier, self.since) = (frontier, now);
        }
    }

    /// For how long the frontier has stood still while records were read, in ms; 0 while none is
    /// read.
    pub(super) fn age_ms(&self, now: Mono, stalled_after_ms: u64) -> u64 {
        if self.is_read(now, stalled_after_ms) {
            now.since(self.since)
        } else {
            0
        }
    }

    /// Whether records are being read: the last one is no longer ago than `stalled-after`.
    fn is_read(&self, now: Mono, stalled_after_ms: u64) -> bool {
        self.read_at
            .is_some_and(|at| now.since(at) <= stalled_after_ms)
    }
}
