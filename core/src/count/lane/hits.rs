//! The window hits of a record that was counted: whether each is ours, late, or that of a job that
//! had counted before the table was adopted.

use super::Lane;
use crate::count::window::Span;
use crate::values::record::Offset;
use crate::values::time::EventTime;
use serde::{Deserialize, Serialize};

/// What another job had counted before the table was adopted:
/// [`Decided::Adopted`](crate::values::decision::Decided::Adopted).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Adoption {
    /// The rows of all windows that end here or earlier are the job's.
    pub through: EventTime,
    /// The next offset that the job would have read.
    pub to: Offset,
}

/// The job has written the windows that end here or earlier, so a record at this offset is no late
/// one there; in ms since 1970, or `i64::MIN` where it had not read the offset.
pub(super) fn adopted_through(adoption: Option<Adoption>, offset: Offset) -> i64 {
    let adoption = adoption.filter(|adoption| offset < adoption.to);
    adoption.map_or(i64::MIN, |adoption| adoption.through.0)
}

impl Lane {
    /// Goes on from what another job has counted.
    pub(super) fn adopt(&mut self, through: EventTime, to: Offset) {
        self.adoption = Some(Adoption { through, to });
        self.watermark.raise_floor(through);
        self.move_watermark();
    }

    /// The record at this offset was added in this slice.
    pub(super) fn note_counted(&mut self, offset: Offset, span: Span) {
        self.ledger.counted += 1;
        self.ledger.next_offset += 1;
        self.ledger.hits += span.windows(self.slide);
        if self.watermark_ms >= span.first_end {
            // Its hits in windows that another job has closed are that job's, and no late ones.
            let adopted = match adopted_through(self.adoption, offset) {
                i64::MIN => 0,
                through => span.closed(self.slide, through),
            };
            self.ledger.hits -= adopted;
            self.ledger.late_hits += span.closed(self.slide, self.watermark_ms) - adopted;
            self.next_end = self.next_end.min(
                span.next_end(self.slide, self.watermark_ms)
                    .unwrap_or(i64::MAX),
            );
        } else {
            self.next_end = self.next_end.min(span.first_end);
        }
    }
}
