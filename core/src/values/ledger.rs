//! The ledger: two equations that must hold at every commit, or windrow stops.
//!
//! - offsets = counted + late + rejected + tombstones + gaps + lost + adopted
//! - window hits = counts in rows + open + closed + late hits + lost hits

use crate::values::record::Offset;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// No count and no offset comes near this, and a sum of some of them is still an i64.
pub const NUMBER_MAX: i64 = 1 << 58;

/// What became of the offsets of one topic partition since its start offset. A topic that is made
/// again begins a new ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct LaneLedger {
    /// The first offset that it accounts for.
    pub start_offset: Offset,
    /// The next offset to read.
    pub next_offset: Offset,
    /// Records that were counted in at least one window.
    pub counted: u64,
    /// Records that were late for all their windows.
    pub late: u64,
    /// Records that cannot be counted.
    pub rejected: u64,
    /// Records without a value.
    pub tombstones: u64,
    /// Offsets that Kafka never shows: control records, aborted transactions, compacted records.
    pub gaps: u64,
    /// Offsets that are no longer in the log, by a recorded decision.
    pub lost: u64,
    /// Windows that counted records fall in, including those that were closed to the record.
    pub hits: u64,
    /// Those of `hits` whose window was closed to the record.
    pub late_hits: u64,
    /// Window hits that were counted, and cannot be counted again because their records are gone
    /// from the log, by a recorded decision. They may be of an earlier generation, whose windows
    /// were still open.
    #[serde(default)]
    pub lost_hits: u64,
    /// Records that another job had counted before the table was adopted from it, by a recorded
    /// decision. Only an adopted table has any.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub adopted: u64,
}

/// Whether a number need not be written, because it is the default.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl LaneLedger {
    /// Checks that each offset is accounted for exactly once.
    ///
    /// # Errors
    /// Both sides of the equation, as a message. The caller must stop.
    pub fn check(&self) -> Result<(), String> {
        let offsets = self.next_offset - self.start_offset;
        let sum = self.counted
            + self.late
            + self.rejected
            + self.tombstones
            + self.gaps
            + self.lost
            + self.adopted;
        let adopted = match self.adopted {
            0 => String::new(),
            n => format!(" + adopted {n}"),
        };
        if u64::try_from(offsets).is_ok_and(|n| n == sum) && self.late_hits <= self.hits {
            return Ok(());
        }
        Err(format!(
            "ledger does not add up: {offsets} offsets from {} to {}, but counted {} + late {} \
             + rejected {} + tombstones {} + gaps {} + lost {}{adopted} = {sum}",
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
    /// Offsets that are accounted for: counted + late + rejected + tombstones + gaps + lost
    /// + adopted.
    pub consumed: u64,
    /// The sum of [`LaneLedger::counted`].
    pub counted: u64,
    /// The sum of [`LaneLedger::late`].
    pub late: u64,
    /// The sum of [`LaneLedger::rejected`].
    pub rejected: u64,
    /// The sum of [`LaneLedger::tombstones`].
    pub tombstones: u64,
    /// The sum of [`LaneLedger::gaps`].
    pub gaps: u64,
    /// The sum of [`LaneLedger::lost`].
    pub lost: u64,
    /// The sum of [`LaneLedger::hits`].
    pub hits: u64,
    /// The sum of [`LaneLedger::late_hits`].
    pub late_hits: u64,
    /// The sum of [`LaneLedger::lost_hits`].
    #[serde(default)]
    pub lost_hits: u64,
    /// The sum of [`LaneLedger::adopted`].
    #[serde(default, skip_serializing_if = "is_zero")]
    pub adopted: u64,
    /// Rows that were ever committed, without those that were adopted from another job.
    pub rows: u64,
    /// The sum of `count` over these rows.
    pub row_count: u64,
    /// The sum of counts in windows that are still open in their topic partition.
    pub open: u64,
    /// The sum of counts in partials that are closed in their topic partition, but not yet rows,
    /// because another topic partition is behind.
    pub closed: u64,
}

impl TableLedger {
    /// Adds the ledger of one topic partition.
    pub fn add(&mut self, lane: &LaneLedger) {
        self.counted += lane.counted;
        self.late += lane.late;
        self.rejected += lane.rejected;
        self.tombstones += lane.tombstones;
        self.gaps += lane.gaps;
        self.lost += lane.lost;
        self.hits += lane.hits;
        self.late_hits += lane.late_hits;
        self.lost_hits += lane.lost_hits;
        self.adopted += lane.adopted;
        self.consumed += lane.counted
            + lane.late
            + lane.rejected
            + lane.tombstones
            + lane.gaps
            + lane.lost
            + lane.adopted;
    }

    /// Checks that each window hit is in a row, in a partial, late or lost.
    ///
    /// # Errors
    /// Both sides of the equation, as a message. The caller must stop.
    pub fn check(&self) -> Result<(), String> {
        let sum = self.row_count + self.open + self.closed + self.late_hits + self.lost_hits;
        if self.hits == sum {
            return Ok(());
        }
        Err(format!(
            "ledger does not add up: {} window hits, but rows {} + open {} + closed {} \
             + late hits {} + lost hits {} = {sum}",
            self.hits, self.row_count, self.open, self.closed, self.late_hits, self.lost_hits,
        ))
    }
}

/// Checks that no field of a ledger is negative or absurdly large.
///
/// # Errors
/// The first such field, as the end of a sentence.
pub fn check_numbers(ledger: &impl Serialize) -> Result<(), String> {
    let fields = serde_json::to_value(ledger).unwrap_or_default();
    for (name, value) in fields.as_object().into_iter().flatten() {
        let is_fine = |n: &Value| n.as_i64().is_some_and(|n| (0..NUMBER_MAX).contains(&n));
        if !is_fine(value) {
            return Err(format!("{name} is {value}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_cannot_be_are_named() {
        let fine = LaneLedger {
            start_offset: 5,
            next_offset: 12,
            counted: 7,
            hits: 9,
            ..LaneLedger::default()
        };
        assert_eq!(check_numbers(&fine), Ok(()));
        assert_eq!(check_numbers(&TableLedger::default()), Ok(()));
        for (ledger, expect) in [
            (
                LaneLedger {
                    next_offset: -1,
                    ..fine
                },
                "next-offset is -1",
            ),
            (
                LaneLedger {
                    counted: u64::MAX,
                    ..fine
                },
                "counted is 18446744073709551615",
            ),
            (
                LaneLedger {
                    start_offset: i64::MIN,
                    ..fine
                },
                "start-offset is -9223372036854775808",
            ),
        ] {
            assert_eq!(check_numbers(&ledger), Err(expect.to_owned()));
        }
    }
}
