//! Doomed keys of a catalog on a directory: they are noted before their objects are deleted, so
//! that no commit names one.

use super::super::DOOMED_MAX;
use super::super::local_files::{now, read, write};
use super::{LocalCatalog, failure};
use std::collections::BTreeMap;
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
        let name = self.name.clone();
        let failed = |error| failure(doing, &name, error);
        let mut free: Vec<String> = keys.to_vec();
        free.sort();
        free.dedup();
        free = self.unnamed(free).map_err(failed)?;
        let mut doomed = self.doomed().map_err(failed)?;
        free.retain(|key| !doomed.contains_key(key));
        if !free.is_empty() {
            doomed.extend(free.iter().map(|key| (key.clone(), now())));
            write(&self.path("doomed.json"), &doomed).map_err(failed)?;
        }
        Ok(free)
    }

    /// Those of `keys` that are not of a file that readers see, of the file without rows, of a
    /// manifest or of a checkpoint that is still needed.
    fn unnamed(&mut self, mut keys: Vec<String>) -> io::Result<Vec<String>> {
        let live = self.live_keys()?;
        keys.retain(|key| !live.contains(key));
        let Some(last) = self.last_epoch()? else {
            return Ok(keys);
        };
        // Of all checkpoints only the newest and the one before it are still needed.
        let kept = self.checkpoints(last)?;
        let first = self.read_epoch(0)?.and_then(|file| file.commit.genesis);
        let empty_file = first.map(|genesis| genesis.empty_file);
        keys.retain(|key| !kept.has(key) && Some(key) != empty_file.as_ref());
        let mut unnamed = Vec::new();
        for key in keys {
            if !self.is_manifest(&key)? {
                unnamed.push(key);
            }
        }
        Ok(unnamed)
    }

    /// Whether it is the manifest of an epoch. The name of a manifest without an epoch is not
    /// windrow's, and is taken for one.
    fn is_manifest(&self, key: &str) -> io::Result<bool> {
        if !key.contains("/manifests/") {
            return Ok(false);
        }
        let Some(epoch) = Names::epoch_of_manifest(key) else {
            return Ok(true);
        };
        let file = self.read_epoch(epoch)?;
        Ok(file.is_some_and(|file| file.commit.manifest == key))
    }

    pub(in super::super) async fn doomed_among(
        &mut self,
        keys: &[String],
    ) -> Result<Vec<String>, CatalogError> {
        let doomed = self
            .doomed()
            .map_err(|error| failure("cannot list doomed keys of", &self.name, error))?;
        let mut among = keys.to_vec();
        among.retain(|key| doomed.contains_key(key));
        among.sort();
        Ok(among)
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
