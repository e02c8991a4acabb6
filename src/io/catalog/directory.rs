//! The catalog on a directory: for the demo, development and tests without PostgreSQL. Nobody
//! except windrow reads it.
//!
//! Each epoch is a file. It is written under a temporary name, fsynced, and linked to its number,
//! which fails if that number is there. The owner is the process that has locked the lock file; the
//! kernel unlocks it when the process ends, however it ends. So there is no lease that could be
//! over, and `windrow_core::table::admit::whose` is not asked. The few small writes of a commit
//! block the calling thread.

mod doomed;
mod live;
mod journal;
mod rebuild;

use super::local_files::{
    damaged, entries, now, read, remove_temporary, sync_parent, write, write_through,
};
use live::Live;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use windrow_core::table::admit::{
    CommittedEpoch, JobFacts, Verdict, admit, check_clock, check_owner, committed_at, outcome,
};
use windrow_core::table::commit::{
    Acquired, CatalogError, CheckpointAt, Checkpoints, ClockBound, Commit, EarlierCheckpoint, Head,
    LeaseMark, Outcome, Owner, Renewed,
};
use windrow_core::table::hive::TableName;
use windrow_core::table::plausible::check_head;
use windrow_core::values::cause::{Cause, Trouble};
use windrow_core::values::decision::Decision;
use windrow_core::values::time::DbTime;

/// The folder of all tables below the catalog's directory.
const FOLDER: &str = "_windrow_catalog";

/// The catalog of one table in a directory.
#[derive(Debug)]
pub struct LocalCatalog {
    /// The folder of all tables.
    root: PathBuf,
    name: TableName,
    held: Option<Held>,
    /// What readers saw when it was asked for last.
    live: Live,
}

/// The table is ours as long as this file is open.
#[derive(Debug)]
struct Held {
    lock: File,
    owner: Owner,
}

/// Who had the table last.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct OwnerFile {
    owner: Owner,
    who: String,
    lease_ms: u64,
}

/// What an epoch's file holds.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct EpochFile {
    committed_at: DbTime,
    /// The checkpoint object that this epoch replaced by another one.
    superseded: Option<String>,
    commit: Commit,
}

impl EpochFile {
    fn into_facts(self) -> CommittedEpoch {
        CommittedEpoch {
            digest: self.commit.digest,
            committed_at: self.committed_at,
        }
    }
}

impl LocalCatalog {
    /// Nothing is read or written yet.
    #[must_use]
    pub fn new(dir: &Path, name: TableName) -> Self {
        Self {
            root: dir.join(FOLDER),
            name,
            held: None,
            live: Live::default(),
        }
    }

    fn dir(&self) -> PathBuf {
        self.root.join(self.name.to_string())
    }

    fn path(&self, file: &str) -> PathBuf {
        self.dir().join(file)
    }

    fn epoch_path(&self, epoch: u64) -> PathBuf {
        self.path(&format!("epochs/{epoch:010}.json"))
    }

    pub(super) async fn acquire(
        &mut self,
        who: &str,
        owner_id: &str,
        lease_ms: u64,
        _over: Option<&LeaseMark>,
    ) -> Result<Acquired, CatalogError> {
        let failed = |error| failure("cannot take", &self.name, error);
        fs::create_dir_all(self.path("epochs")).map_err(failed)?;
        let before: Option<OwnerFile> = read(&self.path("owner.json")).map_err(failed)?;
        let lock = match self.held.take() {
            Some(held) => held.lock,
            None => {
                let open = File::options()
                    .create(true)
                    .truncate(false)
                    .write(true)
                    .open(self.path("lock"));
                open.map_err(failed)?
            }
        };
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let (by, left_ms) = before.map_or(("another process".to_owned(), lease_ms), |o| {
                    (o.who, o.lease_ms)
                });
                // The kernel says that its owner lives: no clock has a say in it.
                return Ok(Acquired::Held {
                    by,
                    left_ms,
                    lease: None,
                });
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        // It is read again, because the previous owner may have written it until the lock was free.
        let before: Option<OwnerFile> = read(&self.path("owner.json")).map_err(failed)?;
        let term = before.map_or(0, |file| file.owner.term) + 1;
        let owner = Owner {
            term,
            owner_id: owner_id.to_owned(),
        };
        let file = OwnerFile {
            owner: owner.clone(),
            who: who.to_owned(),
            lease_ms,
        };
        remove_temporary(&self.dir()).map_err(failed)?;
        remove_temporary(&self.path("epochs")).map_err(failed)?;
        write(&self.path("owner.json"), &file).map_err(failed)?;
        let head = self.read_head().map_err(failed)?;
        if let Some(head) = &head {
            self.doom_replaced(head.last.epoch).map_err(failed)?;
        }
        self.held = Some(Held {
            lock,
            owner: owner.clone(),
        });
        Ok(Acquired::Ours {
            owner,
            lease_ms,
            now: now(),
            head: head.map(Box::new),
        })
    }

    pub(super) async fn renew(
        &mut self,
        owner: &Owner,
        _lease_ms: u64,
    ) -> Result<Renewed, CatalogError> {
        self.check_owner("cannot renew the lease of", owner)?;
        Ok(Renewed {
            now: now(),
            paused: self.path("paused").exists(),
            last_epoch: self
                .last_epoch()
                .map_err(|error| failure("cannot renew the lease of", &self.name, error))?,
        })
    }

    pub(super) async fn release(&mut self, owner: &Owner) -> Result<(), CatalogError> {
        // Closing the file unlocks it.
        self.held.take_if(|held| held.owner == *owner);
        Ok(())
    }

    /// Refuses whoever does not own the table.
    fn check_owner(&self, doing: &str, owner: &Owner) -> Result<(), CatalogError> {
        let facts = JobFacts {
            owner: self.held.as_ref().map(|held| held.owner.clone()),
            owner_name: self.owner_name(),
            ..JobFacts::default()
        };
        check_owner(&facts, owner).map_err(|why| self.fenced(doing, &why))
    }

    /// The name of the last owner, for messages; empty when it cannot be read.
    fn owner_name(&self) -> String {
        let file: Option<OwnerFile> = read(&self.path("owner.json")).unwrap_or_default();
        file.map(|file| file.who).unwrap_or_default()
    }

    fn fenced(&self, doing: &str, why: &str) -> CatalogError {
        CatalogError::Fenced(format!("{doing} table \"{}\": {why}", self.name))
    }

    /// What `admit` needs to know of a commit; `last` is the last epoch.
    fn facts(&mut self, commit: &Commit, last: Option<&EpochFile>) -> io::Result<JobFacts> {
        let live = self.live_of(&commit.retired)?;
        let last_epoch = last.map(|last| last.commit.epoch);
        let there = if last_epoch >= Some(commit.epoch) {
            self.read_epoch(commit.epoch)?
        } else {
            None
        };
        let doomed = self.doomed()?;
        let lanes = last.map(|last| last.commit.lanes.iter());
        Ok(JobFacts {
            owner: self.held.as_ref().map(|held| held.owner.clone()),
            owner_name: self.owner_name(),
            lease_until: None,
            last_epoch,
            epoch: there.map(EpochFile::into_facts),
            next_offsets: lanes
                .into_iter()
                .flatten()
                .map(|(partition, lane)| (*partition, lane.to))
                .collect(),
            doomed: commit
                .objects()
                .into_iter()
                .filter(|key| doomed.contains_key(key))
                .collect(),
            last_digest: last.map(|last| last.commit.digest.clone()),
            live,
        })
    }

    /// Refuses what was sent by another clock than this one.
    fn check_clock(
        &self,
        doing: &str,
        now: DbTime,
        clock: &ClockBound,
    ) -> Result<(), CatalogError> {
        check_clock(now, clock).map_err(|why| {
            let why = format!("{doing} table \"{}\": {why}", self.name);
            CatalogError::Retry(Trouble::new(Cause::Clocks, why))
        })
    }

    pub(super) async fn commit(
        &mut self,
        commit: &Commit,
        clock: &ClockBound,
    ) -> Result<DbTime, CatalogError> {
        let doing = format!("cannot commit epoch {} of", commit.epoch);
        let name = self.name.clone();
        let failed = |error| failure(&doing, &name, error);
        let last = self.read_last_epoch().map_err(failed)?;
        match admit(&self.facts(commit, last.as_ref()).map_err(failed)?, commit) {
            Verdict::Write => {}
            Verdict::AlreadyThere(committed_at) => {
                sync_parent(&self.epoch_path(commit.epoch)).map_err(failed)?;
                return Ok(committed_at);
            }
            Verdict::Fenced(why) => return Err(self.fenced(&doing, &why)),
            Verdict::Mistake(why) => {
                let why = format!("{doing} table \"{}\": {why}", self.name);
                return Err(CatalogError::Stop(why.into()));
            }
        }
        let now = now();
        self.check_clock(&doing, now, clock)?;
        let file = EpochFile {
            committed_at: committed_at(now, last.as_ref().map(|last| last.committed_at)),
            superseded: self.superseded(commit).map_err(failed)?,
            commit: commit.clone(),
        };
        self.link_epoch(&doing, &file)?;
        // This is only bookkeeping: the next owner makes good what fails here.
        let _ = self.doom_replaced(commit.epoch);
        Ok(file.committed_at)
    }

    /// The act that makes an epoch true.
    fn link_epoch(&self, doing: &str, file: &EpochFile) -> Result<(), CatalogError> {
        let path = self.epoch_path(file.commit.epoch);
        let temporary = path.with_extension("tmp");
        write_through(&temporary, file).map_err(|error| failure(doing, &self.name, error))?;
        let linked = fs::hard_link(&temporary, &path).and_then(|()| sync_parent(&path));
        let _ = fs::remove_file(&temporary);
        linked.map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => self.fenced(doing, "somebody else has committed it"),
            // The link is there, but it may not be on disk yet.
            _ if path.exists() => {
                CatalogError::Unknown(format!("{doing} table \"{}\": {error}", self.name))
            }
            _ => failure(doing, &self.name, error),
        })
    }

    /// The checkpoint object that nobody needs any more when `commit` brings another one.
    fn superseded(&self, commit: &Commit) -> io::Result<Option<String>> {
        let Some(at) = commit.checkpoint.clone().filter(|_| commit.epoch > 0) else {
            return Ok(None);
        };
        Ok(self.checkpoints(commit.epoch - 1)?.push(commit.epoch, at))
    }

    /// The newest checkpoint at or before `epoch`, and the one before it.
    fn checkpoints(&self, epoch: u64) -> io::Result<Checkpoints> {
        let newest = self.checkpoint_at(epoch)?.0;
        let before = match &newest {
            Some((newest, _)) if *newest > 0 => self.checkpoint_at(newest - 1)?.0,
            _ => None,
        };
        Ok(Checkpoints { newest, before })
    }

    /// Dooms what an epoch has replaced: files, and a checkpoint.
    fn doom_replaced(&self, epoch: u64) -> io::Result<()> {
        let Some(file) = self.read_epoch(epoch)? else {
            return Ok(());
        };
        let retired = file.commit.retired.into_iter().map(|retired| retired.key);
        let keys: Vec<String> = retired.chain(file.superseded).collect();
        if keys.is_empty() {
            return Ok(());
        }
        let mut doomed = self.doomed()?;
        for key in keys {
            doomed.entry(key).or_insert_with(now);
        }
        write(&self.path("doomed.json"), &doomed)
    }

    pub(super) async fn outcome(&mut self, epoch: u64) -> Result<Outcome, CatalogError> {
        let doing = format!("cannot learn what became of epoch {epoch} of");
        let failed = |error| failure(&doing, &self.name, error);
        let there = self.read_epoch(epoch).map_err(failed)?;
        if there.is_some() {
            sync_parent(&self.epoch_path(epoch)).map_err(failed)?;
        }
        Ok(outcome(&JobFacts {
            epoch: there.map(EpochFile::into_facts),
            ..JobFacts::default()
        }))
    }

    pub(super) async fn head(&mut self) -> Result<Option<Head>, CatalogError> {
        self.read_head()
            .map_err(|error| failure("cannot read", &self.name, error))
    }

    fn read_head(&self) -> io::Result<Option<Head>> {
        let Some(last) = self.last_epoch()? else {
            return Ok(None);
        };
        let file = self.read_epoch(last)?.ok_or_else(|| self.lost(last))?;
        let (checkpoint, decisions) = self.checkpoint_at(last)?;
        let earlier = match &checkpoint {
            Some((newest, _)) if *newest > 0 => {
                let (earlier, mut decisions) = self.checkpoint_at(newest - 1)?;
                let newest = self
                    .read_epoch(*newest)?
                    .ok_or_else(|| self.lost(*newest))?;
                decisions.extend(newest.commit.decisions);
                earlier.map(|(epoch, at)| EarlierCheckpoint {
                    epoch,
                    at,
                    decisions,
                })
            }
            _ => None,
        };
        let first = self.read_epoch(0)?.ok_or_else(|| self.lost(0))?;
        let genesis = first.commit.genesis;
        let undescribed = || damaged(&self.epoch_path(0), "it does not say what the table is");
        let head = Head {
            genesis: genesis.ok_or_else(undescribed)?,
            last: file.commit,
            committed_at: file.committed_at,
            checkpoint,
            decisions,
            earlier,
            paused: self.path("paused").exists(),
        };
        check_head(&head).map_err(|why| damaged(&self.epoch_path(last), why))?;
        Ok(Some(head))
    }

    /// The error for an epoch that must be there, because a later one is.
    fn lost(&self, epoch: u64) -> io::Error {
        damaged(&self.epoch_path(epoch), "it is gone")
    }

    /// The newest checkpoint at or before `epoch`, and the decisions after it.
    #[expect(clippy::type_complexity, reason = "the two fields of `Head`")]
    fn checkpoint_at(
        &self,
        epoch: u64,
    ) -> io::Result<(Option<(u64, CheckpointAt)>, Vec<Decision>)> {
        let mut decisions: Vec<Vec<Decision>> = Vec::new();
        let mut found = None;
        for epoch in (0..=epoch).rev() {
            let file = self.read_epoch(epoch)?;
            let commit = file.ok_or_else(|| self.lost(epoch))?.commit;
            if let Some(checkpoint) = commit.checkpoint {
                found = Some((epoch, checkpoint));
                break;
            }
            decisions.push(commit.decisions);
        }
        Ok((found, decisions.into_iter().rev().flatten().collect()))
    }

    pub(super) async fn set_paused(&mut self, paused: bool, by: &str) -> Result<(), CatalogError> {
        let doing = if paused {
            "cannot pause"
        } else {
            "cannot resume"
        };
        if !self.dir().is_dir() {
            let why = "there is no such table in this catalog; see table.name and catalog";
            return Err(CatalogError::Stop(
                format!("{doing} table \"{}\": {why}", self.name).into(),
            ));
        }
        let path = self.path("paused");
        let done = if paused {
            write(&path, &by)
        } else {
            fs::remove_file(&path)
        };
        match done {
            Err(error) if paused || error.kind() != ErrorKind::NotFound => {
                Err(failure(doing, &self.name, error))
            }
            _ => Ok(()),
        }
    }

    pub(super) async fn warehouse(
        &mut self,
        _database: &str,
    ) -> Result<Option<String>, CatalogError> {
        Ok(None)
    }

    /// The greatest number among the names of the epochs' files, which are not read.
    fn last_epoch(&self) -> io::Result<Option<u64>> {
        let number = |name: String| name.strip_suffix(".json").and_then(|n| n.parse().ok());
        Ok(entries(&self.path("epochs"))?
            .into_iter()
            .filter_map(number)
            .max())
    }

    fn read_last_epoch(&self) -> io::Result<Option<EpochFile>> {
        match self.last_epoch()? {
            Some(last) => self.read_epoch(last),
            None => Ok(None),
        }
    }

    fn read_epoch(&self, epoch: u64) -> io::Result<Option<EpochFile>> {
        let path = self.epoch_path(epoch);
        let file: Option<EpochFile> = read(&path)?;
        // A copy of another epoch's file would send the next commit to a number that is taken.
        match file.as_ref().map(|file| file.commit.epoch) {
            Some(other) if other != epoch => Err(damaged(&path, format!("it holds epoch {other}"))),
            _ => Ok(file),
        }
    }
}

/// What an error of the file system means: `Stop` for a file that is damaged, and `Retry` for the
/// rest.
fn failure(doing: &str, name: &TableName, error: io::Error) -> CatalogError {
    if error.kind() == ErrorKind::InvalidData {
        let why = format!(
            "{doing} table \"{name}\": {error}, which windrow never leaves like that; restore it \
             from a backup"
        );
        return CatalogError::Stop(why.into());
    }
    let why =
        format!("{doing} table \"{name}\": {error}; is the catalog's directory ours to write?");
    CatalogError::Retry(why.into())
}
