//! What the auditor asks of garbage collection: no object is deleted that anybody may still need,
//! and in the end nothing is left that was found to be garbage.

use crate::faults::CLOCK_OFF_MS;
use crate::store::Catalog;
use crate::world::World;
use std::collections::{BTreeMap, BTreeSet};
use windrow_core::values::time::DbTime;

/// What was deleted, as the auditor remembers it.
#[derive(Default)]
pub struct Deletions {
    /// Keys whose objects were deleted at least once.
    deleted: BTreeSet<String>,
    /// When each key was doomed, by the right time, and how far the database's clock was off then:
    /// all clocks may be wrong alike.
    doomed_at: BTreeMap<String, (u64, u64)>,
    /// Keys that were put again after that, by a process that was thought to be dead.
    put_again: BTreeSet<String>,
}

impl Deletions {
    /// The catalog was asked something: maybe to doom keys.
    pub fn note_doomed(&mut self, catalog: &Catalog, now: u64, off_ms: u64) {
        for key in catalog.doomed.keys() {
            self.doomed_at.entry(key.clone()).or_insert((now, off_ms));
        }
    }

    /// An object is stored.
    pub fn note_put(&mut self, key: &str) {
        if self.deleted.contains(key) {
            self.put_again.insert(key.to_owned());
        }
    }
}

impl World {
    /// Called before the objects of these keys are deleted.
    pub fn check_deletion(&mut self, sender: u64, keys: &[String]) -> Result<(), String> {
        // Two clocks that are wrong alike are believed.
        let sender = self.processes.iter().find(|process| process.id == sender);
        let right = sender.is_some_and(|process| !process.clocks.was_wrong);
        for key in keys {
            if self.catalog.is_live(key) {
                return Err(format!("{key} is deleted, but it is still needed"));
            }
            match self.catalog.doomed.get(key) {
                Some(at) if right && !self.grace_is_over(key) => {
                    return Err(format!(
                        "{key} is deleted too soon: it was doomed at {at:?}"
                    ));
                }
                // A deletion that is repeated may come after the key was forgotten.
                None if !self.deletions.deleted.contains(key) => {
                    return Err(format!("{key} is deleted, but it was never doomed"));
                }
                Some(_) | None => {}
            }
            self.summary.deleted += u64::from(self.deletions.deleted.insert(key.clone()));
        }
        Ok(())
    }

    /// Whether a key was doomed long enough ago. It was doomed by a clock that may have been off,
    /// and its time was told by one.
    fn grace_is_over(&self, key: &str) -> bool {
        let off_max_ms = if self.faults.clocks_vary {
            let max_future_ms = self.settings.max_future_ms.max(300_000);
            4 * max_future_ms as u64
        } else {
            4 * CLOCK_OFF_MS as u64
        };
        let doomed_at = self.deletions.doomed_at.get(key).copied();
        doomed_at.is_some_and(|(at, off_ms)| {
            self.now - at + off_max_ms + off_ms >= self.settings.keep_replaced_ms
        })
    }

    /// Called before the catalog forgets that these keys were doomed.
    pub fn check_forgotten(&self, keys: &[String]) -> Result<(), String> {
        let Some(warehouse) = self.catalog.warehouse() else {
            return Ok(());
        };
        let objects = self.stores.get(&warehouse);
        let left = keys.iter().find(|key| {
            objects.is_some_and(|objects| objects.contains_key(*key))
                && !self.deletions.put_again.contains(*key)
        });
        match left {
            Some(key) => Err(format!("{key} is forgotten, but its object is still there")),
            None => Ok(()),
        }
    }

    /// Keys that were doomed at this time or earlier, and are not deleted yet.
    pub fn doomed_by(&self, until: DbTime) -> Vec<&String> {
        let doomed = self.catalog.doomed.iter();
        doomed
            .filter(|(_, at)| **at <= until)
            .map(|(key, _)| key)
            .collect()
    }
}
