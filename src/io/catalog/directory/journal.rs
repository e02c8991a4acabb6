//! The journal of a local catalog, read from its first epoch to its last one. It takes no lock, and
//! an epoch's file never changes, so a windrow that runs is not disturbed.

use super::super::local_files::read;
use super::{EpochFile, LocalCatalog, failure};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use windrow_core::table::commit::{CatalogError, LiveFile};
use windrow_core::values::time::DbTime;
use windrow_core::verify::audit::{EpochEntry, JournalEntry};

impl LocalCatalog {
    pub(in super::super) async fn journal_entries(
        &mut self,
        take: &mut (dyn FnMut(JournalEntry) + Send),
    ) -> Result<bool, CatalogError> {
        let name = self.name.clone();
        let failed = |error| failure("cannot read the journal of", &name, error);
        let Some(head) = self.read_head().map_err(failed)? else {
            return Ok(false);
        };
        let last = head.last.epoch;
        take(JournalEntry::Head(Box::new(head)));
        let mut live: BTreeMap<String, LiveFile> = BTreeMap::new();
        for epoch in 0..=last {
            let Some(entry) = self.journal_epoch(epoch).map_err(failed)? else {
                continue;
            };
            if let Ok(commit) = &entry.said {
                for retired in &commit.retired {
                    live.remove(&retired.key);
                }
                live.extend(commit.files.iter().map(|file| {
                    let live = LiveFile {
                        epoch,
                        committed_at: entry.committed_at,
                        file: file.clone(),
                    };
                    (file.key.clone(), live)
                }));
            }
            take(JournalEntry::Epoch(Box::new(entry)));
        }
        for live in live.into_values() {
            take(JournalEntry::File(live));
        }
        Ok(true)
    }

    /// An epoch as its file says it; `None` where there is no file.
    fn journal_epoch(&self, epoch: u64) -> io::Result<Option<EpochEntry>> {
        let file: Option<EpochFile> = match read(&self.epoch_path(epoch)) {
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                return Ok(Some(EpochEntry {
                    epoch,
                    digest: String::new(),
                    manifest: String::new(),
                    committed_at: DbTime(0),
                    said: Err(error.to_string()),
                }));
            }
            other => other?,
        };
        Ok(file.map(|file| EpochEntry {
            epoch,
            digest: file.commit.digest.clone(),
            manifest: file.commit.manifest.clone(),
            committed_at: file.committed_at,
            said: Ok(file.commit),
        }))
    }
}
