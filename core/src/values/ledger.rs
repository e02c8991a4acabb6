//! The ledger: offsets = counted + late + rejected + tombstones + gaps + lost, and hits = counts. If not, stop.

use crate::values::record::Offset;
use serde::{Deserialize, Serialize};

/// What became of each offset of one topic partition, since its start offset, within one generation of the topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct LaneLedger {
    pub start_offset: Offset,
    pub next_offset: Offset,
    pub counted: u64,
    /// Late for all their windows.
    pub late: u64,
    pub rejected: u64,
    pub tombstones: u64,
    /// Offsets never shown: control records, aborted transactions, compacted records.
    pub gaps: u64,
    /// No longer in the log, by a recorded decision.
    pub lost: u64,
    /// Windows that counted records fall in, those they missed included.
    pub hits: u64,
    /// Of `hits`, those of windows that were closed to the record.
    pub late_hits: u64,
}

impl LaneLedger {
    /// Whether each offset is accounted for exactly once.
    ///
    /// # Errors
    /// Both sides of the sum.
    pub fn check(&self) -> Result<(), String> {
        let offsets = self.next_offset - self.start_offset;
        let sum =
            self.counted + self.late + self.rejected + self.tombstones + self.gaps + self.lost;
        if u64::try_from(offsets).is_ok_and(|n| n == sum) && self.late_hits <= self.hits {
            return Ok(());
        }
        Err(format!(
            "ledger does not add up: {offsets} offsets from {} to {}, but counted {} + late {} + rejected {} + tombstones {} + gaps {} + lost {} = {sum}",
            self.start_offset,
            self.next_offset,
            self.counted,
            self.late,
            self.rejected,
            self.tombstones,
            self.gaps,
            self.lost,
        ))
    }
}

/// The table's sums over all topic partitions and generations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TableLedger {
    /// Offsets consumed: the sum of all below but the hits, rows and counts.
    pub consumed: u64,
    pub counted: u64,
    pub late: u64,
    pub rejected: u64,
    pub tombstones: u64,
    pub gaps: u64,
    pub lost: u64,
    /// Windows that counted records fall in.
    pub hits: u64,
    pub late_hits: u64,
    /// Rows ever committed.
    pub rows: u64,
    /// Sum of `count` over the rows ever committed.
    pub row_count: u64,
    /// Sum of counts in windows that are still open in their topic partition.
    pub open: u64,
    /// Sum of counts in partials that are closed but not final, as another topic partition is behind.
    pub closed: u64,
}

impl TableLedger {
    /// Adds what one topic partition says.
    pub fn add(&mut self, lane: &LaneLedger) {
        self.counted += lane.counted;
        self.late += lane.late;
        self.rejected += lane.rejected;
        self.tombstones += lane.tombstones;
        self.gaps += lane.gaps;
        self.lost += lane.lost;
        self.hits += lane.hits;
        self.late_hits += lane.late_hits;
        self.consumed +=
            lane.counted + lane.late + lane.rejected + lane.tombstones + lane.gaps + lane.lost;
    }

    /// Whether each hit is in a row, in a partial, or missed.
    ///
    /// # Errors
    /// Both sides of the sum.
    pub fn check(&self) -> Result<(), String> {
        let sum = self.row_count + self.open + self.closed + self.late_hits;
        if self.hits == sum {
            return Ok(());
        }
        Err(format!(
            "ledger does not add up: {} window hits, but rows {} + open {} + closed {} + late hits {} = {sum}",
            self.hits, self.row_count, self.open, self.closed, self.late_hits,
        ))
    }
}
