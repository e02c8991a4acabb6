//! What the auditor asks of a replay: it leads to where the last commit was.

use crate::world::World;
use windrow_core::values::decision::Decided;
use windrow_core::values::record::{Offset, Partition};
use windrow_core::values::time::EventTime;

impl World {
    /// The offset that a lane is replayed to; `None` where it is not replayed.
    pub fn replays_to(&self, i: usize, p: Partition) -> Option<Offset> {
        let lane = self.processes[i].engine.lanes().get(&p)?;
        lane.replays_to()
    }

    /// A process has read on. Where a replay to the offset `goal` is over by that, and no counts
    /// were lost, the newest event time is the one that the commit there says, or that of a record
    /// behind it.
    pub fn replay_was_right(
        &self,
        i: usize,
        p: Partition,
        goal: Option<Offset>,
    ) -> Result<(), String> {
        let lane = self.processes[i].engine.lanes().get(&p);
        let Some((lane, goal)) = lane.filter(|lane| !lane.replaying()).zip(goal) else {
            return Ok(());
        };
        let of_it = |what: &Decided| {
            matches!(
                what,
                Decided::CountsLost { .. } | Decided::Generation { .. }
            )
        };
        if lane.decisions.iter().any(|decision| of_it(&decision.what)) {
            return Ok(());
        }
        let commits = self.catalog.epochs.iter().rev().map(|(commit, _)| commit);
        let mut lanes = commits.filter_map(|commit| commit.lanes.get(&p));
        let Some(committed) = lanes.find(|lane| lane.to == goal) else {
            return Ok(());
        };
        let newest = lane.newest();
        let moved_on = || {
            let log = self.topic().logs.get(&p);
            let mut read = log.into_iter().flat_map(|log| {
                let to = lane.ledger.next_offset.max(goal);
                log.records.range(goal..to)
            });
            newest > committed.newest
                && read.any(|(_, record)| Some(EventTime(record.time)) == newest)
        };
        if newest == committed.newest || moved_on() {
            return Ok(());
        }
        Err(format!(
            "the replay of topic partition {p} to offset {goal} has {newest:?} for the newest \
             event time, and the commit there {:?}",
            committed.newest
        ))
    }
}
