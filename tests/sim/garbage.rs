//! What the auditor asks of garbage collection: no object is deleted that anybody may still need,
//! and in the end nothing is left that was found to be garbage.

use crate::faults::CLOCK_OFF_MS;
use crate::world::World;
use std::collections::BTreeSet;
use windrow_core::values::time::DbTime;

/// What was deleted, as the auditor remembers it.
#[derive(Default)]
pub struct Deletions {
    /// Keys whose objects were deleted at least once.
    deleted: BTreeSet<String>,
    /// Keys that were put again after that, by a process that was thought to be dead.
    put_again: BTreeSet<String>,
}

impl Deletions {
    /// An object is stored.
    pub fn note_put(&mut self, key: &str) {
        if self.deleted.contains(key) {
            self.put_again.insert(key.to_owned());
        }
    }
}

impl World {
    /// Called before the objects of these keys are deleted.
    pub fn check_deletion(&mut self, keys: &[String]) -> Result<(), String> {
        let now = self.db_now();
        for key in keys {
            if self.catalog.is_live(key) {
                return Err(format!("{key} is deleted, but it is still needed"));
            }
            match self.catalog.doomed.get(key) {
                Some(at) if !self.grace_is_over(*at, now) => {
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

    /// The database's clock may have been set back since the catalog was asked.
    fn grace_is_over(&self, doomed: DbTime, now: DbTime) -> bool {
        let grace_ms = self.settings.keep_replaced_ms as i64;
        now.0 + 2 * CLOCK_OFF_MS - doomed.0 >= grace_ms
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
