//! Doomed keys of a catalog on a directory: they are noted before their objects are deleted, so
//! that no commit names one.

use super::super::DOOMED_MAX;
use super::super::local_files::{now, read, write};
use super::{LocalCatalog, failure};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use windrow_core::table::commit::{CatalogError, ClockBound, Owner};
use windrow_core::table::place::Names;
use windrow_core::values::time::DbTime;

/// Doomed keys and when they were doomed.
type Doomed = BTreeMap<String, DbTime>;

impl LocalCatalog {
    pub(in super::super) async fn doom(
        &mut self,
        owner: &Owner,
        keys: &[String],
        clock: &ClockBound,
    ) -> Result<Vec<String>, CatalogError> {
        let doing = "cannot doom keys of";
        self.check_owner(doing, owner)?;
        self.check_clock(doing, now(), clock)?;
        let failed = |error| failure(doing, &self.name, error);
        let mut free: Vec<String> = keys.to_vec();
        free.sort();
        free.dedup();
        let last = self.last_epoch().map_err(failed)?;
        for epoch in self.epochs_that_may_name(&free, last) {
            if let Some(mut file) = self.read_epoch(epoch).map_err(failed)? {
                // Of all checkpoints only the newest and the one before it are still needed.
                file.commit.checkpoint = None;
                let named = file.commit.objects();
                free.retain(|key| !named.contains(key));
            }
        }
        if let Some(last) = last {
            let kept = self.checkpoints(last).map_err(failed)?;
            free.retain(|key| !kept.has(key));
        }
        let mut doomed = self.doomed().map_err(failed)?;
        free.retain(|key| !doomed.contains_key(key));
        if !free.is_empty() {
            doomed.extend(free.iter().map(|key| (key.clone(), now())));
            write(&self.path("doomed.json"), &doomed).map_err(failed)?;
        }
        Ok(free)
    }

    /// The epochs that may name `keys`: those in the keys themselves, else all.
    fn epochs_that_may_name(&self, keys: &[String], last: Option<u64>) -> BTreeSet<u64> {
        let names = Names::new(&self.name.database, &self.name.table);
        let of_keys: Option<BTreeSet<u64>> = keys
            .iter()
            .map(|key| names.term_and_epoch(key).and_then(|(_term, epoch)| epoch))
            .collect();
        of_keys.unwrap_or_else(|| (0..last.map_or(0, |last| last + 1)).collect())
    }

    pub(in super::super) async fn doomed_past(
        &mut self,
        grace_ms: u64,
        after: Option<&str>,
        clock: &ClockBound,
    ) -> Result<Vec<String>, CatalogError> {
        let now = now();
        self.check_clock("cannot list doomed keys of", now, clock)?;
        let doomed = self
            .doomed()
            .map_err(|error| failure("cannot list doomed keys of", &self.name, error))?;
        let until = now
            .0
            .saturating_sub(i64::try_from(grace_ms).unwrap_or(i64::MAX));
        Ok(doomed
            .into_iter()
            .filter(|(key, at)| at.0 <= until && after.is_none_or(|after| key.as_str() > after))
            .take(usize::from(DOOMED_MAX))
            .map(|(key, _)| key)
            .collect())
    }

    pub(in super::super) async fn forget(
        &mut self,
        owner: &Owner,
        keys: &[String],
    ) -> Result<(), CatalogError> {
        let doing = "cannot forget keys of";
        self.check_owner(doing, owner)?;
        let failed = |error| failure(doing, &self.name, error);
        let mut doomed = self.doomed().map_err(failed)?;
        for key in keys {
            doomed.remove(key);
        }
        write(&self.path("doomed.json"), &doomed).map_err(failed)
    }

    pub(super) fn doomed(&self) -> io::Result<Doomed> {
        Ok(read(&self.path("doomed.json"))?.unwrap_or_default())
    }
}
