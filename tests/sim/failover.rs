//! Failovers that lose the last epochs, as of a standby that is behind, or a restored backup.

use crate::scenes::Scene;
use crate::store::Catalog;
use crate::world::World;
use windrow_core::values::record::{Offset, Partition};

/// A failover loses at most what came in so many milliseconds. It is less than replaced objects are
/// kept, so the checkpoints that it brings back are still there.
const LOST_MS: u64 = 60_000;

impl World {
    /// From time to time the catalog is kept as it is now.
    pub fn back_up(&mut self) {
        // A catalog that lost all epochs of a table is not gone on from: windrow stops, and says
        // so.
        let worth_it = !self.catalog.epochs.is_empty();
        let one_in = match self.faults.scene {
            Some(Scene::EpochsForgotten) => 1,
            _ => 4,
        };
        if self.faults.epochs_are_forgotten && worth_it && self.rng.one_in(one_in) {
            self.backups.retain(|(at, _)| at + LOST_MS >= self.now);
            self.backups.push((self.now, self.catalog.clone()));
        }
    }

    /// The catalog is as it was a while ago.
    pub fn fail_over(&mut self) {
        self.backups.retain(|(at, _)| at + LOST_MS >= self.now);
        if self.backups.is_empty() {
            return;
        }
        let nth = self.rng.below(self.backups.len() as u64) as usize;
        self.fail_over_to(nth);
    }

    fn fail_over_to(&mut self, nth: usize) {
        let (_, older) = self.backups[nth].clone();
        self.backups.truncate(nth + 1);
        self.summary.failovers += u64::from(older.epochs.len() < self.catalog.epochs.len());
        let newer = std::mem::replace(&mut self.catalog, older);
        self.catalog.keep_what_auditors_know(newer);
    }

    /// Just before a commit arrives, the catalog may lose epochs that moved no offset. Then nothing
    /// but their number tells that they are lost.
    pub fn fail_over_before_commit(&mut self) {
        let may = self.faults.epochs_are_forgotten && self.faults.lost_one_in > 0;
        if !may || !self.rng.one_in(2) {
            return;
        }
        let ends = |catalog: &Catalog| {
            let last = catalog.epochs.last();
            last.map(|(commit, _)| {
                let lanes = commit.lanes.iter();
                lanes.map(|(p, lane)| (*p, lane.to)).collect::<Vec<_>>()
            })
        };
        let now = (ends(&self.catalog), self.catalog.epochs.len());
        let at = self.backups.iter().rposition(|(_, older)| {
            ends(older) == now.0 && older.epochs.len() < now.1 && self.catalog.has_owner_of(older)
        });
        if let Some(at) = at {
            self.fail_over_to(at);
        }
    }

    /// Where a restart reads a topic partition from, also one after a failover: the log may expire
    /// up to there.
    pub fn needed_from(&self, p: Partition) -> Offset {
        let backups = self.backups.iter().map(|(_, catalog)| catalog);
        let all = backups.chain([&self.catalog]);
        let needed = all.map(|catalog: &Catalog| catalog.checkpointed(p).unwrap_or(0));
        needed.min().unwrap_or(0)
    }
}
