//! What the auditor asks of garbage collection: no object is deleted that anybody may still need,
//! and in the end nothing is left that was found to be garbage.

use crate::faults::CLOCK_OFF_MS;
use crate::hands;
use crate::store::{Catalog, Mistake};
use crate::world::World;
use std::collections::{BTreeMap, BTreeSet};
use windrow_core::engine::{StoreAnswer, StoreRequest};
use windrow_core::table::commit::Commit;
use windrow_core::table::history::{DayManifest, History};
use windrow_core::table::place::Names;
use windrow_core::values::record::{Offset, Partition};
use windrow_core::values::time::DbTime;

/// How long a new object is missing from a stale listing.
const STALE_MS: u64 = 10_000;

/// What was deleted, as the auditor remembers it.
#[derive(Default)]
pub struct Deletions {
    /// Keys whose objects were deleted at least once.
    deleted: BTreeSet<String>,
    /// When each key was doomed, as the catalog says it, by the right time, and how far the
    /// database's clock was off then: all clocks may be wrong alike.
    doomed_at: BTreeMap<String, (DbTime, u64, u64)>,
    /// Keys that were put again after that, by a process that was thought to be dead.
    put_again: BTreeSet<String>,
    /// When each object was stored last.
    stored_at: BTreeMap<String, u64>,
    /// The keys under which merges have stored files, or were to store them.
    merged: BTreeSet<String>,
    /// The key whose object can never be deleted, once one was asked for.
    stuck: Option<String>,
}

impl Deletions {
    /// The catalog was asked something: maybe to doom keys.
    pub fn note_doomed(&mut self, catalog: &Catalog, now: u64, off_ms: u64) {
        for (key, said) in &catalog.doomed {
            // What a failover has lost may be doomed once more.
            let known = self.doomed_at.get(key);
            if known.is_none_or(|(known, ..)| known != said) {
                self.doomed_at.insert(key.clone(), (*said, now, off_ms));
            }
        }
    }

    /// An object is stored.
    pub fn note_put(&mut self, key: &str, now: u64) {
        self.stored_at.insert(key.to_owned(), now);
        if self.deleted.contains(key) {
            self.put_again.insert(key.to_owned());
        }
    }

    /// A merge is to store files under these keys.
    ///
    /// # Errors
    /// One of them was there before: what deletes the first object may arrive late.
    pub fn note_merge(&mut self, keys: &[String], now: u64) -> Result<(), String> {
        for key in keys {
            if !self.merged.insert(key.clone()) {
                return Err(format!("two merges store {key}"));
            }
            self.note_put(key, now);
        }
        Ok(())
    }
}

impl World {
    /// Nobody but another owner dooms what an owner commits.
    pub fn check_not_doomed(&self, commit: &Commit) -> Result<(), String> {
        // A catalog that was set back may know nothing of an epoch that is committed once more.
        if self.faults.epochs_are_forgotten || !self.catalog.is_owned_by(&commit.owner) {
            return Ok(());
        }
        let keys = commit.objects();
        match keys
            .iter()
            .find(|key| self.catalog.doomed.contains_key(*key))
        {
            Some(key) => Err(format!(
                "{key} is committed by the owner that has doomed it"
            )),
            None => Ok(()),
        }
    }

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

    /// Deletes objects; some cannot be deleted this time, and one of them never.
    pub fn delete(&mut self, warehouse: String, keys: Vec<String>) -> StoreAnswer {
        let (mut gone, mut kept) = (Vec::new(), Vec::new());
        for key in keys {
            if self.faults.one_key_is_stuck {
                self.deletions.stuck.get_or_insert_with(|| key.clone());
            }
            let stuck = self.deletions.stuck.as_ref() == Some(&key);
            let rate = self.faults.undeletable_one_in;
            if stuck || rate > 0 && self.rng.one_in(rate) {
                self.summary.undeletable += 1;
                kept.push(key);
            } else {
                gone.push(key);
            }
        }
        if self.mistake == Some(Mistake::KeptIsGone) {
            gone.append(&mut kept);
            gone.sort();
        }
        let objects = self.stores.entry(warehouse).or_default();
        objects.retain(|key, _| !gone.contains(key) || self.deletions.stuck.as_ref() == Some(key));
        StoreAnswer::Delete { gone, kept }
    }

    /// A page of a listing, with the ages of the objects. A stale one does not show the newest
    /// objects yet.
    pub fn list_page(&mut self, warehouse: String, request: StoreRequest) -> StoreAnswer {
        let mut objects = self.stores.entry(warehouse).or_default().clone();
        let (stored_at, now) = (&self.deletions.stored_at, self.now);
        if self.faults.lost_one_in > 0 && self.rng.one_in(4) {
            objects.retain(|key, _| now - stored_at.get(key).unwrap_or(&0) > STALE_MS);
        }
        let mut answer = hands::ask_store(&mut objects, request);
        if let StoreAnswer::ListPage {
            result: Ok(page), ..
        } = &mut answer
        {
            self.summary.pages += u64::from(page.next.is_some());
            for object in &mut page.objects {
                object.age_ms = now - stored_at.get(&object.key).unwrap_or(&0);
            }
            if self.mistake == Some(Mistake::OnePageOnly) {
                page.next = None;
            }
        }
        answer
    }

    /// Objects that nothing names and that are not doomed.
    pub fn orphans(&self) -> Vec<&String> {
        let objects = self
            .catalog
            .warehouse()
            .and_then(|place| self.stores.get(&place));
        let keys = objects.into_iter().flat_map(|objects| objects.keys());
        // What a catalog that was set back has lost is left alone until it is there again.
        let (names, last) = (Names::new("default", "t"), self.catalog.epochs.len() as u64);
        let is_reached = |key: &str| {
            names
                .term_and_epoch(key)
                .is_some_and(|(_term, epoch)| epoch.is_none_or(|epoch| epoch < last))
        };
        keys.filter(|key| !self.catalog.is_live(key) && !self.catalog.doomed.contains_key(*key))
            .filter(|key| is_reached(key))
            .collect()
    }

    /// What the catalog names is in the store.
    pub fn check_live_objects(&self) -> Result<(), String> {
        let Some(objects) = self
            .catalog
            .warehouse()
            .and_then(|place| self.stores.get(&place))
        else {
            return Ok(());
        };
        match self
            .catalog
            .named_keys()
            .find(|key| !objects.contains_key(*key) && !self.upkeep.is_lost(key))
        {
            Some(key) => Err(format!("{key} is named, but its object is not there")),
            None => Ok(()),
        }
    }

    /// Each row of history says what its epochs said, one row goes on where the other ends, and its
    /// day manifest is in the store.
    pub fn check_history(&self) -> Result<(), String> {
        let mut next = 1;
        for (row, manifest) in &self.catalog.folded {
            let (first, last) = (row.first_epoch as usize, row.last_epoch as usize);
            if row.first_epoch != next {
                return Err(format!("history goes on from {first}, not from {next}"));
            }
            next = row.last_epoch + 1;
            let epochs = &self.catalog.epochs[first..=last];
            let mut said = History::of(&epochs[0].0, epochs[0].1);
            for (commit, at) in &epochs[1..] {
                said.push(commit, *at)?;
            }
            if said != *row {
                return Err(format!("history says {row:?}, and its epochs {said:?}"));
            }
            if manifest.is_empty() {
                self.day_may_go(row)?;
                continue;
            }
            let place = self.catalog.warehouse().unwrap_or_default();
            let object = self
                .stores
                .get(&place)
                .and_then(|objects| objects.get(manifest));
            let object = object.ok_or_else(|| format!("{manifest} is not there"))?;
            let read = DayManifest::read(object)?;
            if read.history != *row || read.last.digest != row.last_digest {
                return Err(format!("{manifest} is of other epochs"));
            }
        }
        Ok(())
    }

    /// A day manifest was dropped: it is not one of the newest two, and the log has none of its
    /// offsets any more.
    fn day_may_go(&self, row: &History) -> Result<(), String> {
        let newest = self.catalog.folded.iter().rev().take(2);
        if newest.into_iter().any(|(newest, _)| newest == row) {
            return Err(format!("the day manifest up to {} is gone", row.last_epoch));
        }
        let begins_after = |p: Partition, to: Offset| {
            let mut logs = self.topics.iter().filter_map(|topic| topic.logs.get(&p));
            logs.any(|log| log.start >= to)
        };
        match row
            .offsets
            .iter()
            .find(|(p, (_, to))| !begins_after(**p, *to))
        {
            Some((p, (_, to))) => Err(format!(
                "the day manifest up to {} is gone, but the log of {p} has offsets below {to}",
                row.last_epoch
            )),
            None => Ok(()),
        }
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
        doomed_at.is_some_and(|(_, at, off_ms)| {
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
            let stuck = self.deletions.stuck.as_ref() == Some(*key);
            stuck
                || objects.is_some_and(|objects| objects.contains_key(*key))
                    && !self.deletions.put_again.contains(*key)
        });
        match left {
            Some(key) => Err(format!("{key} is forgotten, but its object is still there")),
            None => Ok(()),
        }
    }

    /// Keys that were doomed at this time or earlier, could be deleted, and are not deleted yet.
    pub fn doomed_by(&self, until: DbTime) -> Vec<&String> {
        let doomed = self.catalog.doomed.iter();
        doomed
            .filter(|(key, at)| **at <= until && self.deletions.stuck.as_ref() != Some(*key))
            .map(|(key, _)| key)
            .collect()
    }
}
