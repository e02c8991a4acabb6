//! The journal is held against itself: each epoch against its digest and against the one before it,
//! folded epochs against their day manifest, and the list of files against what the epochs say.
//!
//! It hears of the epochs one after the other, and keeps little of each, so that a journal of any
//! length fits.

use super::report::{Finding, Findings, Kind};
use crate::table::commit::{CheckpointAt, Commit, FileKind, Head, LiveFile, NewFile, Owner};
use crate::table::history::{DayManifest, History};
use crate::table::plausible::{check_decided, check_epoch};
use crate::values::digest::sha256_hex;
use crate::values::ledger::TableLedger;
use crate::values::record::{Offset, Partition};
use crate::values::time::{DbTime, EventTime};
use std::collections::{BTreeMap, BTreeSet};

/// What the journal holds, one after the other, in this order.
#[derive(Clone, Debug)]
pub enum JournalEntry {
    /// First what everyone reads who looks at the table.
    Head(Box<Head>),
    /// An epoch, and what is kept beside its content. They come in the order of their numbers,
    /// except that epoch 0 comes before all history.
    Epoch(Box<EpochEntry>),
    /// Epochs that are folded. They come in order.
    History {
        /// The first epoch by its own column.
        first_epoch: u64,
        /// The path of the day manifest below the warehouse.
        manifest: String,
        /// What they said together; or why it cannot be read, as the end of a sentence.
        said: Result<Box<History>, String>,
    },
    /// A file that readers see.
    File(LiveFile),
    /// How Hive differs from the journal, as a sentence.
    Hive(String),
}

/// An epoch as the journal has it.
#[derive(Clone, Debug)]
pub struct EpochEntry {
    /// Its number by its own column.
    pub epoch: u64,
    /// Its digest by its own column.
    pub digest: String,
    /// Its manifest by its own column.
    pub manifest: String,
    /// When it was committed, by the catalog's clock.
    pub committed_at: DbTime,
    /// Its content, with or without its checkpoint; or why it cannot be read, as the end of a
    /// sentence.
    pub said: Result<Commit, String>,
}

/// An epoch that only its manifest can prove, because the journal has not got its checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unproven {
    /// Its number.
    pub epoch: u64,
    /// The path of its manifest below the warehouse.
    pub manifest: String,
    digest: String,
    /// The hash of its content without the checkpoint.
    content: String,
}

/// Audits a journal.
#[derive(Default)]
pub struct Audit {
    /// The checkpoints that the journal keeps.
    checkpoints: Vec<(u64, CheckpointAt)>,
    last_epoch: Option<u64>,
    chain: Option<Link>,
    /// Keys of files that epochs brought, after the last fold.
    brought: BTreeMap<String, (u64, NewFile)>,
    /// Keys of files that epochs took away, after the last fold.
    retired: BTreeSet<String>,
    /// The day manifest that lists what readers saw after the last folded epoch.
    base: Option<String>,
    live: BTreeMap<String, LiveFile>,
    dropped_days: BTreeSet<String>,
    unproven: Vec<Unproven>,
    epochs: u64,
    proven: u64,
    folded_days: u64,
    findings: Findings,
}

/// The epoch before, as far as the next one must fit to it.
struct Link {
    epoch: u64,
    digest: String,
    at: DbTime,
    next_offsets: BTreeMap<Partition, Offset>,
    closed_through: Option<EventTime>,
    /// The table's sums; `None` after history, which does not keep them.
    ledger: Option<TableLedger>,
}

impl Audit {
    /// Takes what everyone reads.
    pub fn take_head(&mut self, head: &Head) {
        self.last_epoch = Some(head.last.epoch);
        let earlier = head.earlier.as_ref();
        let earlier = earlier.map(|earlier| (earlier.epoch, earlier.at.clone()));
        self.checkpoints = head.checkpoint.clone().into_iter().chain(earlier).collect();
    }

    /// Takes the next epoch. It returns its content where that can be read.
    pub fn take_epoch<'a>(&mut self, entry: &'a EpochEntry) -> Option<&'a Commit> {
        self.epochs += 1;
        let epoch = entry.epoch;
        let commit = match &entry.said {
            Ok(commit) => commit,
            Err(why) => {
                self.add(Kind::EpochAltered, epoch, format!("cannot be read: {why}"));
                self.chain = None;
                return None;
            }
        };
        if let Err(why) = check_epoch(commit) {
            self.add(Kind::EpochAltered, epoch, format!("cannot be true: {why}"));
            self.chain = None;
            return None;
        }
        let columns = [
            ("number", commit.epoch.to_string(), epoch.to_string()),
            ("digest", commit.digest.clone(), entry.digest.clone()),
            ("manifest", commit.manifest.clone(), entry.manifest.clone()),
        ];
        for (what, said, column) in columns {
            if said != column {
                let text = format!("has the {what} {column}, and its content says {said}");
                self.add(Kind::EpochAltered, epoch, text);
            }
        }
        self.prove(entry, commit);
        self.check_link(commit, entry.committed_at);
        self.check_ledgers(commit);
        let history = History::of(commit, entry.committed_at);
        self.dropped_days.extend(history.dropped_days);
        for file in &commit.files {
            self.brought.insert(file.key.clone(), (epoch, file.clone()));
        }
        let retired = commit.retired.iter().map(|file| file.key.clone());
        self.retired.extend(retired);
        self.chain = Some(Link {
            epoch,
            digest: entry.digest.clone(),
            at: entry.committed_at,
            next_offsets: commit.lanes.iter().map(|(p, lane)| (*p, lane.to)).collect(),
            closed_through: commit.closed_through,
            ledger: Some(commit.ledger),
        });
        Some(commit)
    }

    /// Compares the content of an epoch with its digest, where all of it is there.
    fn prove(&mut self, entry: &EpochEntry, commit: &Commit) {
        if commit.content_digest() == entry.digest {
            self.proven += 1;
            return;
        }
        let kept = self.checkpoints.iter();
        let kept = kept.filter(|(epoch, _)| *epoch == entry.epoch);
        for (_, checkpoint) in kept.cloned().collect::<Vec<_>>() {
            let whole = Commit {
                checkpoint: Some(checkpoint),
                ..commit.clone()
            };
            if whole.content_digest() == entry.digest {
                self.proven += 1;
                return;
            }
        }
        if commit.checkpoint.is_some() {
            let text = "does not have the content that its digest says".to_owned();
            return self.add(Kind::EpochAltered, entry.epoch, text);
        }
        self.unproven.push(Unproven {
            epoch: entry.epoch,
            manifest: entry.manifest.clone(),
            digest: entry.digest.clone(),
            content: content_without_checkpoint(commit),
        });
    }

    /// Checks that an epoch follows the one before it.
    fn check_link(&mut self, commit: &Commit, at: DbTime) {
        let Some(link) = &self.chain else { return };
        let epoch = commit.epoch;
        let mut wrong = Vec::new();
        if epoch != link.epoch + 1 {
            wrong.push(format!("follows epoch {}", link.epoch));
        } else if commit.previous != link.digest {
            wrong.push(format!(
                "does not follow epoch {} by their digests",
                link.epoch
            ));
        }
        if at < link.at {
            wrong.push(format!("was committed before epoch {}", link.epoch));
        }
        if commit.closed_through < link.closed_through {
            wrong.push(format!(
                "closes fewer windows than epoch {} has closed",
                link.epoch
            ));
        }
        for (partition, lane) in &commit.lanes {
            let before = link.next_offsets.get(partition);
            if before.is_some_and(|before| *before != lane.from) {
                wrong.push(format!(
                    "begins topic partition {partition} at offset {}, where epoch {} has left it \
                     at {}",
                    lane.from,
                    link.epoch,
                    before.copied().unwrap_or_default()
                ));
            }
        }
        for text in wrong {
            self.add(Kind::EpochChain, epoch, text);
        }
    }

    /// Checks that an epoch's offsets and counts add up, and that it has as many rows as its files.
    fn check_ledgers(&mut self, commit: &Commit) {
        let mut wrong = Vec::new();
        for (partition, lane) in &commit.lanes {
            if let Err(why) = lane.ledger.check() {
                wrong.push(format!("topic partition {partition}: {why}"));
            }
            if lane.ledger.next_offset != lane.to {
                wrong.push(format!(
                    "topic partition {partition}: its ledger ends at offset {}, the epoch at {}",
                    lane.ledger.next_offset, lane.to
                ));
            }
        }
        wrong.extend(commit.ledger.check().err());
        if let Some(before) = self.chain.as_ref().and_then(|link| link.ledger)
            && commit.retired.is_empty()
        {
            let files = commit.files.iter();
            let rows = files.filter(|file| matches!(file.kind, FileKind::Rows { .. }));
            let rows: u64 = rows.map(|file| file.rows).sum();
            if before.rows + rows != commit.ledger.rows {
                wrong.push(format!(
                    "its files have {rows} rows, and the table's sum grows from {} to {}",
                    before.rows, commit.ledger.rows
                ));
            }
        }
        for text in wrong {
            self.add(Kind::Ledger, commit.epoch, text);
        }
    }

    /// Takes the next row of history. It returns what it says where that can be read.
    pub fn take_history<'a>(
        &mut self,
        first_epoch: u64,
        manifest: &str,
        said: &'a Result<Box<History>, String>,
    ) -> Option<&'a History> {
        self.folded_days += 1;
        let history = match said {
            Ok(history) => history,
            Err(why) => {
                let text = format!("history from epoch {first_epoch} on cannot be read: {why}");
                self.findings.add(Finding::new(Kind::HistoryAltered, text));
                self.chain = None;
                return None;
            }
        };
        if let Err(why) = history.decisions.iter().try_for_each(check_decided) {
            let text = format!("history from epoch {first_epoch} on cannot be true: {why}");
            self.findings.add(Finding::new(Kind::HistoryAltered, text));
            self.chain = None;
            return None;
        }
        if let Some(link) = &self.chain
            && (history.first_epoch != link.epoch + 1 || history.previous != link.digest)
        {
            let text = format!(
                "history of epochs {} to {} does not follow epoch {}",
                history.first_epoch, history.last_epoch, link.epoch
            );
            let finding = Finding::new(Kind::EpochChain, text);
            self.findings.add(finding.of_epoch(history.first_epoch));
        }
        if history.first_epoch != first_epoch {
            let text = format!(
                "history from epoch {first_epoch} on says that it begins with epoch {}",
                history.first_epoch
            );
            self.findings.add(Finding::new(Kind::HistoryAltered, text));
        }
        self.dropped_days.extend(history.dropped_days.clone());
        // What readers saw then is in the day manifest.
        (self.brought, self.retired) = (BTreeMap::new(), BTreeSet::new());
        self.base = Some(manifest.to_owned());
        let next_offsets = history.offsets.iter().map(|(p, (_, to))| (*p, *to));
        self.chain = Some(Link {
            epoch: history.last_epoch,
            digest: history.last_digest.clone(),
            at: history.last_at,
            next_offsets: next_offsets.collect(),
            closed_through: None,
            ledger: None,
        });
        Some(history)
    }

    /// Takes a file that readers see.
    pub fn take_file(&mut self, live: LiveFile) {
        self.live.insert(live.file.key.clone(), live);
    }

    /// Takes a difference between Hive and the journal.
    pub fn take_hive(&mut self, text: String) {
        self.findings.add(Finding::new(Kind::Hive, text));
    }

    /// The path of the day manifest that [`Audit::take_base`] needs; `None` where no epoch is
    /// folded.
    #[must_use]
    pub fn base(&self) -> Option<&str> {
        self.base.as_deref()
    }

    /// Compares the files that readers see with what the epochs say of files, after the last entry.
    /// `base` is the day manifest of the last folded epochs; `None` where there is none, or where
    /// it cannot be read.
    pub fn check_files(&mut self, base: Option<&DayManifest>) {
        let chain_end = self.chain.as_ref().map(|link| link.epoch);
        if chain_end != self.last_epoch && self.epochs > 0 {
            let name = |epoch: Option<u64>| epoch.map_or("none".to_owned(), |n| n.to_string());
            let text = format!(
                "the journal's last epoch is {}, and the epochs end with {}",
                name(self.last_epoch),
                name(chain_end)
            );
            self.findings.add(Finding::new(Kind::EpochChain, text));
        }
        if self.base.is_some() && base.is_none() {
            return;
        }
        let mut expected: BTreeMap<String, (u64, NewFile)> = BTreeMap::new();
        for live in base.map(|base| &base.live).into_iter().flatten() {
            expected.insert(live.file.key.clone(), (live.epoch, live.file.clone()));
        }
        expected.append(&mut self.brought);
        for key in &self.retired {
            if expected.remove(key).is_none() {
                let text = format!("file \"{key}\" was taken away, and no epoch has brought it");
                self.findings.add(Finding::new(Kind::FileList, text));
            }
        }
        for (key, (epoch, file)) in &expected {
            let text = match self.live.get(key) {
                Some(live) if live.file == *file && live.epoch == *epoch => continue,
                Some(_) => format!(
                    "file \"{key}\" is described by the list of files in another way than by epoch \
                     {epoch}"
                ),
                None => format!(
                    "file \"{key}\" of epoch {epoch} is not in the list of files that readers see"
                ),
            };
            let finding = Finding::new(Kind::FileList, text);
            self.findings.add(finding.of_file(key, *epoch));
        }
        for (key, live) in &self.live {
            if !expected.contains_key(key) {
                let text = format!(
                    "file \"{key}\" is in the list of files that readers see, and no epoch has \
                     brought it or one has taken it away"
                );
                let finding = Finding::new(Kind::FileList, text);
                self.findings.add(finding.of_file(key, live.epoch));
            }
        }
    }

    /// Compares a row of history with its day manifest; `None` when there is no such object.
    pub fn check_day_manifest(
        &mut self,
        history: &History,
        key: &str,
        manifest: Option<&Result<DayManifest, String>>,
    ) {
        let text = match manifest {
            None => format!("day manifest \"{key}\" is not in the store"),
            Some(Err(why)) => format!("day manifest \"{key}\" cannot be read: {why}"),
            Some(Ok(manifest)) if manifest.history != *history => format!(
                "history of epochs {} to {} is not what its day manifest says",
                history.first_epoch, history.last_epoch
            ),
            Some(Ok(manifest)) if manifest.last.digest != history.last_digest => {
                format!("day manifest \"{key}\" ends with another epoch than history says")
            }
            Some(Ok(_)) => return,
        };
        let kind = match manifest {
            Some(Ok(_)) => Kind::HistoryAltered,
            _ => Kind::Manifest,
        };
        let finding = Finding::new(kind, text);
        self.findings.add(finding.of_epoch(history.last_epoch));
    }

    /// The epochs that only their manifests can prove, from old to new.
    #[must_use]
    pub fn unproven(&self) -> &[Unproven] {
        &self.unproven
    }

    /// Compares an epoch with its manifest; `None` when there is no such object.
    pub fn check_manifest(&mut self, unproven: &Unproven, manifest: Option<&[u8]>) {
        let epoch = unproven.epoch;
        let key = &unproven.manifest;
        let Some(bytes) = manifest else {
            let text = format!("has no manifest: \"{key}\" is not in the store");
            return self.add(Kind::Manifest, epoch, text);
        };
        let commit: Commit = match serde_json::from_slice(bytes) {
            Ok(commit) => commit,
            Err(error) => {
                let text = format!("has a manifest that cannot be read, \"{key}\": {error}");
                return self.add(Kind::Manifest, epoch, text);
            }
        };
        if commit.content_digest() != unproven.digest {
            let text = format!("has a manifest of another content than its digest says, \"{key}\"");
            return self.add(Kind::Manifest, epoch, text);
        }
        if content_without_checkpoint(&commit) != unproven.content {
            let text = format!("does not have the content that its manifest says, \"{key}\"");
            return self.add(Kind::EpochAltered, epoch, text);
        }
        self.proven += 1;
    }

    fn add(&mut self, kind: Kind, epoch: u64, text: String) {
        let finding = Finding::new(kind, format!("epoch {epoch} {text}"));
        self.findings.add(finding.of_epoch(epoch));
    }

    /// How many epochs there were, how many of them have the content of their digest, and how many
    /// rows of history.
    #[must_use]
    pub fn counts(&self) -> (u64, u64, u64) {
        (self.epochs, self.proven, self.folded_days)
    }

    /// The UTC days whose rows were dropped.
    #[must_use]
    pub fn dropped_days(&self) -> &BTreeSet<String> {
        &self.dropped_days
    }

    /// The files that readers see, in the order of their keys.
    #[must_use]
    pub fn live(&self) -> Vec<LiveFile> {
        self.live.values().cloned().collect()
    }

    /// Takes out what was found so far.
    pub fn take_findings(&mut self) -> Findings {
        std::mem::take(&mut self.findings)
    }
}

/// The hash of an epoch's content as the journal keeps it, without who has committed it: an epoch
/// that the journal had lost is committed again from its manifest, by another owner.
fn content_without_checkpoint(commit: &Commit) -> String {
    let said = Commit {
        owner: Owner {
            term: 0,
            owner_id: String::new(),
        },
        ..commit.without_checkpoint()
    };
    sha256_hex(&serde_json::to_vec(&said).expect("plain values"))
}
