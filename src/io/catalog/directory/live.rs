//! What readers see of a table whose catalog is a directory: the files of all epochs without those
//! that a later epoch has replaced or dropped.

use super::super::answers::{CommittedFile, Files, Totals};
use super::super::local_files::now;
use super::{LocalCatalog, failure};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use windrow_core::table::commit::{CatalogError, ClockBound, LiveFile, Owner, RetiredFile};
use windrow_core::table::hive::TableKind;

/// The files that readers see, as of the epoch that was read last. An epoch's file never changes,
/// so each of them is read once.
#[derive(Debug, Default)]
pub(super) struct Live {
    /// The epoch that was read last, and its digest; `None` when none was.
    through: Option<(u64, String)>,
    /// By their keys.
    files: BTreeMap<String, LiveFile>,
}

impl LocalCatalog {
    /// The files that readers see now.
    fn live(&mut self) -> io::Result<&BTreeMap<String, LiveFile>> {
        let last = self.last_epoch()?;
        let next = match self.live.through.take() {
            // A directory that was restored from a backup may have other epochs of these numbers.
            Some((epoch, digest)) if self.has_epoch(epoch, &digest)? => {
                self.live.through = Some((epoch, digest));
                epoch + 1
            }
            _ => {
                self.live.files.clear();
                0
            }
        };
        for epoch in next..last.map_or(0, |last| last + 1) {
            let file = self.read_epoch(epoch)?.ok_or_else(|| self.lost(epoch))?;
            let files = &mut self.live.files;
            for retired in &file.commit.retired {
                files.remove(&retired.key);
            }
            for new in file.commit.files {
                let live = LiveFile {
                    epoch,
                    committed_at: file.committed_at,
                    file: new,
                };
                files.insert(live.file.key.clone(), live);
            }
            self.live.through = Some((epoch, file.commit.digest));
        }
        Ok(&self.live.files)
    }

    fn has_epoch(&self, epoch: u64, digest: &str) -> io::Result<bool> {
        let file = self.read_epoch(epoch)?;
        Ok(file.is_some_and(|file| file.commit.digest == digest))
    }

    /// The keys of the files that readers see.
    pub(super) fn live_keys(&mut self) -> io::Result<BTreeSet<String>> {
        Ok(self.live()?.keys().cloned().collect())
    }

    /// The keys of those of `retired` that readers see.
    pub(super) fn live_of(&mut self, retired: &[RetiredFile]) -> io::Result<BTreeSet<String>> {
        if retired.is_empty() {
            return Ok(BTreeSet::new());
        }
        let live = self.live()?;
        let keys = retired.iter().map(|file| &file.key);
        Ok(keys
            .filter(|key| live.contains_key(*key))
            .cloned()
            .collect())
    }

    pub(in super::super) async fn live_files(&mut self) -> Result<Vec<LiveFile>, CatalogError> {
        let name = self.name.clone();
        let failed = |error| failure("cannot list files of", &name, error);
        Ok(self.live().map_err(failed)?.values().cloned().collect())
    }

    pub(in super::super) async fn files(
        &mut self,
        kind: TableKind,
        limit: u32,
    ) -> Result<Files, CatalogError> {
        let name = self.name.clone();
        let failed = |error| failure("cannot list files of", &name, error);
        let live = self.live().map_err(failed)?.values();
        let mut of_kind: Vec<&LiveFile> = live
            .filter(|live| TableKind::of(&live.file.kind) == kind)
            .collect();
        of_kind.sort_by_key(|live| Reverse((live.epoch, live.file.kind.date(), &live.file.chunk)));
        let newest = of_kind
            .iter()
            .take(usize::try_from(limit).unwrap_or(usize::MAX))
            .map(|live| CommittedFile {
                epoch: live.epoch,
                file: live.file.clone(),
            })
            .collect();
        Ok(Files {
            totals: totals(&of_kind),
            newest,
        })
    }

    /// There is no Hive here, and so there are no table partitions.
    pub(in super::super) async fn drop_emptied(
        &mut self,
        owner: &Owner,
        _emptied_ms: u64,
        clock: &ClockBound,
    ) -> Result<(), CatalogError> {
        let doing = "cannot delete emptied table partitions of";
        self.check_owner(doing, owner)?;
        self.check_clock(doing, now(), clock)
    }
}

/// The sums over some files.
fn totals(files: &[&LiveFile]) -> Totals {
    let mut totals = Totals::default();
    for LiveFile { file, .. } in files {
        totals.files += 1;
        totals.bytes += file.bytes;
        totals.rows += file.rows;
        let first = totals.first_window.into_iter().chain(file.first_window);
        totals.first_window = first.min();
        totals.last_window = totals.last_window.max(file.last_window);
    }
    totals
}
