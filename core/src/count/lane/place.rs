//! Where a lane was at a commit, and the lane from there on without what it had counted. Why it is
//! counted from there on is not known here.

use super::{Adoption, LaneState};
use crate::count::watermark::Watermark;
use crate::values::ledger::LaneLedger;
use crate::values::time::EventTime;

/// Where a lane was at a commit, as far as the commit says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LanePlace {
    /// What became of each offset up to there.
    pub ledger: LaneLedger,
    /// The watermark there.
    pub watermark: Option<EventTime>,
    /// The greatest event time up to there.
    pub newest: Option<EventTime>,
    /// The watermark delay in force there, in milliseconds.
    pub delay_ms: i64,
    /// The ceiling in force there, in ms since 1970.
    pub ceiling_ms: i64,
    /// What another job had counted, where the table was adopted.
    pub adoption: Option<Adoption>,
}

impl LaneState {
    /// The lane at a commit, without what it had counted in windows that were not final. What it
    /// counts from there on in windows that start after `place.newest` is all that the log has for
    /// them, because no record before had a later event time.
    #[must_use]
    pub fn without_counts(place: &LanePlace) -> Self {
        Self {
            watermark: Watermark::at(place.delay_ms, place.newest, place.watermark),
            ceiling: place.ceiling_ms,
            ledger: place.ledger,
            adoption: place.adoption,
            ..Self::at_start(place.ledger.next_offset)
        }
    }
}
