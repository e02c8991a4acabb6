//! The database's clock, as last heard, and the ceiling that follows from it. No clock is read
//! here.

use crate::values::time::{DbTime, EventTime, Mono};

/// What is shown while the database's clock is not to be trusted.
pub(super) const CLOCK_BACK: &str =
    "the database's clock reads earlier than at the last commit; correct it";

/// The database's clock beside the machine's monotonic time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clocks {
    /// The database's clock, and the monotonic time when it was asked for. It was read at that
    /// moment or later, so that what is reckoned from it is never behind, however late the answer
    /// came.
    heard: Option<(DbTime, Mono)>,
    /// When the last commit was, by the database's clock.
    committed_at: Option<DbTime>,
    /// The database's clock reads earlier than that: nothing is read until it is right again.
    back: bool,
}

impl Clocks {
    /// The clock as it was heard with the table.
    pub(super) fn new(clock: DbTime, asked_at: Mono, committed_at: Option<DbTime>) -> Self {
        Self {
            heard: Some((clock, asked_at)),
            committed_at,
            back: false,
        }
    }

    /// Takes another reading of the database's clock. Returns whether it can be trusted.
    pub(super) fn hear(&mut self, clock: DbTime, asked_at: Mono) -> bool {
        self.back = self.committed_at.is_some_and(|at| clock < at);
        if !self.back {
            self.heard = Some((clock, asked_at));
        }
        !self.back
    }

    /// An epoch was committed at this time.
    pub(super) fn note_commit(&mut self, at: DbTime) {
        self.committed_at = self.committed_at.max(Some(at));
    }

    /// Whether the database's clock reads earlier than at the last commit.
    pub(super) fn is_back(&self) -> bool {
        self.back
    }

    /// The greatest event time that is not from the future now.
    pub(super) fn ceiling(&self, now: Mono, max_future_ms: i64) -> Option<EventTime> {
        let (then, at) = self.heard?;
        let since = i64::try_from(now.since(at)).unwrap_or(i64::MAX);
        Some(EventTime(then.0).plus(since).plus(max_future_ms))
    }
}
