//! The watermark of one topic partition: no record that is older is expected any more.
//! It depends on the log and on recorded decisions alone, and it never goes back.
//!
//! ```text
//! watermark = max( greatest event time of the records that move it − delay,  every floor )
//! ```
//!
//! Every record moves it whose event time is known and not past the ceiling, whether it is counted
//! or rejected. (A late record cannot raise it.) A floor of reason *loss* is kept apart, because it
//! says nothing about the topic: other topic partitions that follow this one must not follow that
//! floor.
//!
//! Example, with a delay of 10s:
//!
//! | what happens | greatest time | floor | watermark |
//! |---|---|---|---|
//! | nothing yet | – | – | – |
//! | a record of 12:00:20 | 12:00:20 | – | 12:00:10 |
//! | a record of 12:00:05, out of order | 12:00:20 | – | 12:00:10 |
//! | the floor 12:00:15 | 12:00:20 | 12:00:15 | 12:00:15 |
//! | the delay becomes 60s | 12:00:20 | 12:00:15 | 12:00:15 |
//! | a reject of 12:01:30 | 12:01:30 | 12:00:15 | 12:00:30 |

use crate::values::time::EventTime;
use serde::{Deserialize, Serialize};

/// Stands for a watermark that nothing has moved yet. It is below every event time, so it closes no
/// window.
const UNSET: i64 = i64::MIN;

/// The watermark of one topic partition, with the parts that it is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Watermark {
    /// How far the watermark trails the newest event time. With zero, the first record at or past
    /// the end of a window closes it.
    delay_ms: i64,
    /// The greatest event time so far of the records that move the watermark. Late records are left
    /// out, because they cannot raise it.
    greatest: Option<EventTime>,
    /// The greatest of the recorded floors, and of the watermarks that held whenever the delay was
    /// changed.
    floor: Option<EventTime>,
    /// The greatest floor of reason *loss*.
    #[serde(default)]
    loss: Option<EventTime>,
}

impl Watermark {
    /// The times that it is made of, and the watermark itself, in ms since 1970, as far as they are
    /// known. A delay that would overflow gives one that is no time.
    pub(super) fn times(&self) -> impl Iterator<Item = i64> {
        let newest = self.greatest.map(|at| at.0.saturating_sub(self.delay_ms));
        let known = [self.greatest, self.floor, self.loss];
        known
            .into_iter()
            .flatten()
            .map(|at| at.0)
            .chain(newest)
            .chain([self.delay_ms])
    }

    /// A watermark that nothing has moved yet.
    #[must_use]
    pub(super) fn new(delay_ms: i64) -> Self {
        Self {
            delay_ms,
            greatest: None,
            floor: None,
            loss: None,
        }
    }

    /// A watermark that stands at `at`, where the newest event time so far is `greatest`.
    #[must_use]
    pub(super) fn at(delay_ms: i64, greatest: Option<EventTime>, at: Option<EventTime>) -> Self {
        Self {
            delay_ms,
            greatest,
            floor: at,
            loss: None,
        }
    }

    /// The delay in force, in milliseconds.
    #[must_use]
    pub(super) fn delay_ms(&self) -> i64 {
        self.delay_ms
    }

    /// The watermark; `None` while there is neither a record with a usable time nor a floor.
    #[must_use]
    pub(super) fn get(&self) -> Option<EventTime> {
        self.without_loss().max(self.loss)
    }

    /// The same without floors of reason *loss*: what other topic partitions may go by.
    #[must_use]
    pub(super) fn without_loss(&self) -> Option<EventTime> {
        self.greatest
            .map(|t| t.minus(self.delay_ms))
            .max(self.floor)
    }

    /// The greatest event time so far.
    #[must_use]
    pub(super) fn greatest(&self) -> Option<EventTime> {
        self.greatest
    }

    /// Takes over what a decision about lost counts says: see
    /// [`Decided::CountsLost`](crate::values::decision::Decided::CountsLost).
    pub(super) fn take_over(
        &mut self,
        delay_ms: i64,
        greatest: Option<EventTime>,
        loss: Option<EventTime>,
    ) {
        self.delay_ms = delay_ms;
        self.greatest = greatest;
        self.loss = self.loss.max(loss);
    }

    /// The watermark in milliseconds since 1970, or `i64::MIN` while there is none. The hot path
    /// compares with this.
    #[must_use]
    pub(super) fn ms(&self) -> i64 {
        self.get().map_or(UNSET, |t| t.0)
    }

    /// Takes the event time of a record. Returns whether it is the newest so far, which is
    /// when the watermark may have moved.
    pub(super) fn observe(&mut self, time: EventTime) -> bool {
        let newest = self.greatest.is_none_or(|greatest| time > greatest);
        if newest {
            self.greatest = Some(time);
        }
        newest
    }

    /// From here on the watermark is at least `at`. A floor below the watermark changes nothing.
    pub(super) fn raise_floor(&mut self, at: EventTime) {
        self.floor = self.floor.max(Some(at));
    }

    /// Changes the delay from here on. The present watermark becomes a floor first, so a longer
    /// delay leaves the watermark where it is until newer times pass it. A shorter delay moves it
    /// at once.
    pub(super) fn set_delay(&mut self, delay_ms: i64) {
        self.floor = self.without_loss();
        self.delay_ms = delay_ms;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_raises_the_watermark_but_is_not_what_others_go_by() {
        let mut w = Watermark::new(10);
        w.observe(EventTime(100));
        w.take_over(10, Some(EventTime(120)), Some(EventTime(130)));
        assert_eq!(w.ms(), 130);
        assert_eq!(w.without_loss(), Some(EventTime(110)));
        w.set_delay(20);
        assert_eq!(w.ms(), 130);
        assert_eq!(w.without_loss(), Some(EventTime(110)));
        w.observe(EventTime(160));
        assert_eq!(w.ms(), 140);
        assert_eq!(w.without_loss(), w.get());
    }

    #[test]
    fn watermark_trails_and_never_goes_back() {
        let mut w = Watermark::new(10);
        assert_eq!(w.ms(), UNSET);
        assert!(w.observe(EventTime(100)));
        assert!(!w.observe(EventTime(50)));
        assert_eq!(w.ms(), 90);
        w.raise_floor(EventTime(95));
        w.raise_floor(EventTime(80));
        assert_eq!(w.ms(), 95);
        w.set_delay(50);
        assert_eq!(w.ms(), 95);
        w.observe(EventTime(160));
        assert_eq!(w.ms(), 110);
    }
}
