//! What can be seen of an engine from outside. Nothing is changed here.

use super::ours::Ours;
use super::table::Table;
use super::troubles::Side;
use super::upkeep::UpkeepView;
use super::{Engine, Phase};
use crate::count::lane::Lane;
use crate::count::merger::Lanes;
use crate::values::cause::{Cause, Trouble};
use crate::values::ledger::TableLedger;
use crate::values::record::{Offset, Partition};
use crate::values::time::{EventTime, format_duration_ms};

/// The lanes of an engine that has none.
const NO_LANES: &Lanes = &Lanes::new();

/// Where the engine stands, in the words of the status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Records are read and counted.
    Counting,
    /// It cannot count now, for this reason, and tries again.
    Waiting(Trouble),
    /// An operator paused the table.
    Paused,
    /// Another process has the table.
    Standby(Trouble),
    /// It does not count, for this reason, until a person changes something.
    Failed(Trouble),
}

/// The topic partition for which the frontier waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrontierHolder {
    /// Its number.
    pub partition: Partition,
    /// Why its watermark is where it is, as the end of a sentence.
    pub why: &'static str,
}

impl Engine {
    /// Where the engine stands.
    #[must_use]
    pub fn state(&self) -> State {
        let trouble = self.troubles.worst(|side| self.hinders(side)).cloned();
        let starting = |text| Trouble::new(Cause::Starting, text);
        match &self.phase {
            Phase::Over { why: None, .. } => State::Waiting("ended".into()),
            Phase::Over { why: Some(why), .. } => State::Failed(why.clone()),
            Phase::Locating(locating) => match locating.refused() {
                Some(why) => State::Failed(why.clone()),
                // Only the catalog is waited for, whatever else is in trouble.
                None => State::Waiting(
                    self.troubles
                        .of(Side::Catalog)
                        .cloned()
                        .unwrap_or_else(|| starting("asking the catalog where the table lies")),
                ),
            },
            Phase::Standby { .. } | Phase::Asking { .. } if self.holder.is_some() => {
                // That another process has the table is as it should be. That this one could not
                // take over, because of its clock, would not be seen before it must.
                let clocks = self.troubles.of(Side::Clocks).cloned();
                let why = clocks.or(trouble);
                State::Standby(why.unwrap_or_else(|| Trouble::new(Cause::Held, String::new())))
            }
            Phase::Standby { .. } | Phase::Asking { .. } => {
                State::Waiting(trouble.unwrap_or_else(|| starting("asking for the table")))
            }
            Phase::Ours(ours) if !ours.is_counting() => {
                let mut why = trouble.unwrap_or_else(|| starting("starting"));
                if self.paused {
                    why.text += "; the table is also paused by an operator; to count after that, \
                                 run: windrow resume";
                }
                State::Waiting(why)
            }
            Phase::Ours(_) if self.paused => State::Paused,
            Phase::Ours(ours) => match trouble {
                Some(why) => State::Waiting(why),
                None if ours.table().is_some_and(Table::is_replaying) => {
                    State::Waiting(starting("replaying from the checkpoint"))
                }
                None => self.stalled().map_or(State::Counting, State::Waiting),
            },
        }
    }

    /// Why no epoch can be committed, where that hinders. A table that an operator has paused still
    /// commits what was read before, and needs its lease.
    #[must_use]
    pub fn commit_trouble(&self) -> Option<&Trouble> {
        let sides = [Side::Clocks, Side::Store, Side::Catalog, Side::Commit];
        self.troubles.worst(|side| sides.contains(&side))
    }

    /// Whether a trouble of this side is what people should know of now.
    fn hinders(&self, side: Side) -> bool {
        match &self.phase {
            // Only the catalog is asked.
            Phase::Standby { .. } | Phase::Asking { .. } => {
                matches!(side, Side::Lease | Side::Clocks | Side::Catalog)
            }
            // One that flow control holds back is not read, whether it could be or not.
            _ => !matches!(side, Side::Lane(partition) if self.is_held(partition)),
        }
    }

    /// Why the table counts as stalled; `None` while it does not. The text stays the same as long
    /// as the same topic partition holds the frontier for the same reason.
    fn stalled(&self) -> Option<Trouble> {
        if self.frontier_age_ms() < self.rules.stalled_after_ms {
            return None;
        }
        let holder = self.frontier_holder()?;
        let at = self
            .lanes()
            .get(&holder.partition)
            .and_then(Lane::watermark)
            .map_or_else(String::new, |at| format!(" at {at}"));
        let why = format!(
            "no window has closed for more than {} although there are records to count: topic \
             partition {} holds the frontier{at}: {}",
            format_duration_ms(self.rules.stalled_after_ms),
            holder.partition,
            holder.why
        );
        Some(Trouble::new(Cause::Stalled, why))
    }

    /// For how long the frontier has stood still while there was something to count, in ms; 0 while
    /// there is nothing.
    #[must_use]
    pub fn frontier_age_ms(&self) -> u64 {
        let stall = self.ours().and_then(Ours::stall);
        stall.map_or(0, |stall| {
            stall.age_ms(self.now, self.rules.stalled_after_ms)
        })
    }

    /// The topic partition for which the frontier waits: the one with the least watermark. Of
    /// several it is one that does not stand aside.
    #[must_use]
    pub fn frontier_holder(&self) -> Option<FrontierHolder> {
        let (partition, lane) = self
            .lanes()
            .iter()
            .min_by_key(|(p, lane)| (lane.watermark(), self.is_idle(**p)))?;
        let reading = self.ours()?.reading()?;
        let behind = self
            .log_end(*partition)
            .is_some_and(|end| end > lane.ledger.next_offset);
        let why = if lane.replaying() {
            "it is replayed from the checkpoint"
        } else if reading.is_held(*partition) {
            "flow control holds it back; see max-skew and max-memory"
        } else if self.troubles.of(Side::Lane(*partition)).is_some() {
            "it cannot be read"
        } else if reading.has_transaction(*partition) {
            "a transaction is open in it, so nothing behind that can be read"
        } else if !reading.is_read(*partition) {
            "it is not read yet"
        } else if reading.is_idle(*partition, self.now) {
            "it stands aside, and its floor follows soon"
        } else if behind {
            "it has records that are not read yet"
        } else if reading.is_quiet(*partition, self.now) {
            "it has had nothing to count for a while, but not yet for idle-timeout, or the end of \
             its log is not known yet"
        } else if lane.watermark().is_none() {
            "no record with a usable time has come from it yet"
        } else {
            "the times of its records do not go on, or watermark-delay is long"
        };
        Some(FrontierHolder {
            partition: *partition,
            why,
        })
    }

    /// The table as it is counted, or was counted last.
    fn ours(&self) -> Option<&Ours> {
        match &self.phase {
            Phase::Ours(ours) => Some(ours),
            Phase::Over { last, .. } => last.as_deref(),
            Phase::Locating(_) | Phase::Standby { .. } | Phase::Asking { .. } => None,
        }
    }

    /// Who has the table, when it is another process.
    #[must_use]
    pub fn holder(&self) -> Option<&str> {
        self.holder.as_deref()
    }

    /// Whether an epoch is on its way into the catalog.
    #[must_use]
    pub fn is_committing(&self) -> bool {
        self.ours().is_some_and(Ours::is_committing)
    }

    /// The lanes of all topic partitions; none before counting begins.
    #[must_use]
    pub fn lanes(&self) -> &Lanes {
        self.ours()
            .and_then(Ours::table)
            .map_or(NO_LANES, Table::lanes)
    }

    /// The log's end of a topic partition, as last heard of.
    #[must_use]
    pub fn log_end(&self, partition: Partition) -> Option<Offset> {
        self.ours()?.reading()?.log_end(partition)
    }

    /// Whether a topic partition stands aside.
    #[must_use]
    pub fn is_idle(&self, partition: Partition) -> bool {
        let reading = self.ours().and_then(Ours::reading);
        reading.is_some_and(|reading| reading.is_idle(partition, self.now))
    }

    /// Whether flow control holds a topic partition back.
    #[must_use]
    pub fn is_held(&self, partition: Partition) -> bool {
        let reading = self.ours().and_then(Ours::reading);
        reading.is_some_and(|reading| reading.is_held(partition))
    }

    /// The topic partition that this one waits for, where flow control holds it back.
    #[must_use]
    pub fn held_by(&self, partition: Partition) -> Option<Partition> {
        self.ours()?.reading()?.held_by(partition)
    }

    /// The memory that counting takes, in bytes, and its bound.
    #[must_use]
    pub fn memory_bytes(&self) -> (u64, u64) {
        let used = self.ours().map_or(0, Ours::memory_bytes);
        (used, self.rules.max_memory_bytes)
    }

    /// What the upkeep of the table's files is doing; nothing while the table is not ours.
    #[must_use]
    pub fn upkeep(&self) -> UpkeepView {
        self.ours()
            .and_then(|ours| ours.upkeep(self.now))
            .unwrap_or_default()
    }

    /// Whether an operator's wish to merge files now can be fulfilled.
    ///
    /// # Errors
    /// Why not, and what to do, as a sentence.
    pub fn may_compact(&self) -> Result<(), String> {
        match &self.phase {
            _ if self.paused => {
                Err("cannot merge files while the table is paused; run: windrow resume".to_owned())
            }
            Phase::Ours(ours) if ours.is_counting() => Ok(()),
            Phase::Standby { .. } | Phase::Asking { .. } if self.holder.is_some() => Err(format!(
                "cannot merge files: \"{}\" writes the table; ask that one",
                self.holder().unwrap_or_default()
            )),
            _ => Err("cannot merge files before counting begins; see: windrow status".to_owned()),
        }
    }

    /// What the ledger says now, with all that is not committed yet.
    #[must_use]
    pub fn ledger(&self) -> TableLedger {
        self.ours()
            .and_then(Ours::table)
            .map_or_else(TableLedger::default, Table::ledger)
    }

    /// The last epoch that was committed; `None` before epoch 0.
    #[must_use]
    pub fn epoch(&self) -> Option<u64> {
        self.ours()?.table()?.next_epoch().checked_sub(1)
    }

    /// Every window of the table that ends here or earlier is closed.
    #[must_use]
    pub fn frontier(&self) -> Option<EventTime> {
        self.ours()?.table()?.frontier()
    }
}
