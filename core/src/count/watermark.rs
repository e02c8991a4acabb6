//! Newest times → the watermark of one topic partition: `max(greatest event time − delay, every floor)`.
//! It depends on the log and on recorded decisions alone, and never goes back.

use crate::values::time::EventTime;
use serde::{Deserialize, Serialize};

/// A watermark that nothing has moved yet: no window is closed at it.
pub const UNSET: i64 = i64::MIN;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Watermark {
    /// How far it trails the newest event time. Zero closes a window with the first record past its end.
    delay_ms: i64,
    /// Greatest event time of the records counted so far.
    greatest: Option<EventTime>,
    /// The greatest of the recorded floors, and of what the watermark was whenever the delay changed.
    floor: Option<EventTime>,
}

impl Watermark {
    #[must_use]
    pub fn new(delay_ms: i64) -> Self {
        Self {
            delay_ms,
            greatest: None,
            floor: None,
        }
    }

    #[must_use]
    pub fn delay_ms(&self) -> i64 {
        self.delay_ms
    }

    #[must_use]
    pub fn get(&self) -> Option<EventTime> {
        self.greatest
            .map(|t| t.minus(self.delay_ms))
            .max(self.floor)
    }

    /// The same as ms, [`UNSET`] for none: what the hot path compares with.
    #[must_use]
    pub fn ms(&self) -> i64 {
        self.get().map_or(UNSET, |t| t.0)
    }

    /// A record was counted. Returns whether its time is the newest so far.
    pub fn saw(&mut self, time: EventTime) -> bool {
        let newest = self.greatest.is_none_or(|greatest| time > greatest);
        if newest {
            self.greatest = Some(time);
        }
        newest
    }

    pub fn raise_floor(&mut self, at: EventTime) {
        self.floor = self.floor.max(Some(at));
    }

    /// Another delay from here on. A shorter one moves the watermark at once; a longer one leaves it where it is until
    /// newer times pass it.
    pub fn set_delay(&mut self, delay_ms: i64) {
        self.floor = self.get();
        self.delay_ms = delay_ms;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watermark_trails_and_never_goes_back() {
        let mut w = Watermark::new(10);
        assert_eq!(w.ms(), UNSET);
        assert!(w.saw(EventTime(100)));
        assert!(!w.saw(EventTime(50)));
        assert_eq!(w.ms(), 90);
        w.raise_floor(EventTime(95));
        w.raise_floor(EventTime(80));
        assert_eq!(w.ms(), 95);
        w.set_delay(50);
        assert_eq!(w.ms(), 95);
        w.saw(EventTime(160));
        assert_eq!(w.ms(), 110);
    }
}
