//! What can be seen of an engine from outside. Nothing is changed here.

use super::ours::Ours;
use super::table::Table;
use super::troubles::Side;
use super::{Engine, Phase};
use crate::count::merger::Lanes;
use crate::values::cause::{Cause, Trouble};
use crate::values::ledger::TableLedger;
use crate::values::record::{Offset, Partition};
use crate::values::time::EventTime;

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

impl Engine {
    /// Where the engine stands.
    #[must_use]
    pub fn state(&self) -> State {
        let trouble = self.troubles.worst().cloned();
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
                State::Standby(trouble.unwrap_or_else(|| Trouble::new(Cause::Held, String::new())))
            }
            Phase::Standby { .. } | Phase::Asking { .. } => {
                State::Waiting(trouble.unwrap_or_else(|| starting("asking for the table")))
            }
            Phase::Ours(ours) if !ours.is_counting() => {
                State::Waiting(trouble.unwrap_or_else(|| starting("starting")))
            }
            Phase::Ours(_) if self.paused => State::Paused,
            Phase::Ours(ours) => match trouble {
                Some(why) => State::Waiting(why),
                None if ours.table().is_some_and(Table::is_replaying) => {
                    State::Waiting(starting("replaying from the checkpoint"))
                }
                None => State::Counting,
            },
        }
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
