//! The modelled catalog and object store: what PostgreSQL and S3 do for us, in the order in which
//! requests arrive.

use crate::hands::PAGE_MAX;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use windrow_core::engine::Location;
use windrow_core::table::admit::{
    CommittedEpoch, JobFacts, Verdict, Whose, admit, check_clock, check_owner, committed_at,
    outcome, whose,
};
use windrow_core::table::commit::{
    Acquired, CatalogError, CheckpointAt, Checkpoints, ClockBound, Commit, EarlierCheckpoint,
    FileKind, Head, LeaseMark, LiveFile, Outcome, Owner, Renewed,
};
use windrow_core::table::history::{self, DayManifest, Found, History, check_fold};
use windrow_core::values::cause::{Cause, Trouble};
use windrow_core::values::decision::Decision;
use windrow_core::values::ledger::LaneLedger;
use windrow_core::values::record::{Offset, Partition};
use windrow_core::values::time::DbTime;

/// What can be done wrong, one mistake a run, to test that the auditor notices it. The rules of the
/// catalog itself are never changed: a mistake changes what it reads, ignores a verdict, or writes
/// something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// The catalog writes a commit although `admit` says that its sender is fenced.
    NoFence,
    /// The catalog gets a commit before its files are stored.
    FilesAfterCommit,
    /// A lost answer is taken for a success.
    UnknownIsSuccess,
    /// A lost answer is taken for a failure, and the epoch is cut anew.
    UnknownIsFailure,
    /// A restart begins at the checkpoint and forgets the decisions since.
    DecisionsForgotten,
    /// A restart begins at the last commit's offsets with the state of an older checkpoint.
    NoReplay,
    /// The reader leaves a record out.
    RecordSkipped,
    /// The reader hands a record over twice, under a new offset.
    RecordTwice,
    /// Two records change places.
    RecordsSwapped,
    /// A restart begins one record late.
    StartsLate,
    /// A file is stored with other bytes.
    FileDamaged,
    /// The rows of an epoch are shown twice.
    FilesTwice,
    /// The late records of an epoch are not shown.
    LateForgotten,
    /// A topic that was made again keeps its id, as the reader sees it.
    TopicIdKept,
    /// The reader goes on at the log's start when its offset has expired.
    ExpiredUnsaid,
    /// The reader goes on in a log that was cut off below it.
    CutUnsaid,
    /// Whoever asks for the end of a log hears that it is where the engine is, also while no broker
    /// can be asked.
    EndAlwaysHere,
    /// The reader reports an end up to which it has not read.
    EndTooFar,
    /// Whoever takes the table hears a time long past from the catalog.
    ClockBehind,
    /// A key is doomed that the last epoch names.
    DoomsLiveKey,
    /// A key is said to be doomed that was not.
    DeletesUndoomed,
    /// Doomed keys are said to be doomed long enough at once.
    GraceIgnored,
    /// Keys are said to be doomed that are not noted as doomed.
    DoomUnnoted,
    /// A listing is said to be over after its first page.
    OnePageOnly,
    /// Objects that cannot be deleted are said to be gone.
    KeptIsGone,
    /// A process that finds its table elsewhere goes on in the warehouse that it used before.
    WarehouseKept,
    /// The reader says that a log was cut off where it reads, although the cut lies below.
    CutMisplaced,
    /// The brokers say that a log begins later than it does.
    StartTooFar,
    /// The checkpoint before the newest is doomed as well.
    EarlierCheckpointDoomed,
    /// When memory is nearly full, the topic partitions that could free it wait too.
    AllHeld,
    /// When memory is nearly full, a topic partition that is replayed waits too.
    ReplayHeld,
    /// A commit is written whatever the catalog's clock says.
    ClockUnchecked,
    /// Keys are handed out for deletion by a clock that has jumped ahead, which is not compared.
    DeletesByAnyClock,
    /// The wall clock that a process is told stands still in sleep, as monotonic time does.
    WallClockSleeps,
    /// A row of history does not keep what was decided.
    HistoryForgets,
    /// A renewal says that the last epoch is the greatest that there ever was, although epochs were
    /// lost.
    LostEpochsUnsaid,
}

impl Mistake {
    pub const ALL: [Mistake; 36] = [
        Mistake::NoFence,
        Mistake::FilesAfterCommit,
        Mistake::UnknownIsSuccess,
        Mistake::UnknownIsFailure,
        Mistake::DecisionsForgotten,
        Mistake::NoReplay,
        Mistake::RecordSkipped,
        Mistake::RecordTwice,
        Mistake::RecordsSwapped,
        Mistake::StartsLate,
        Mistake::FileDamaged,
        Mistake::FilesTwice,
        Mistake::LateForgotten,
        Mistake::TopicIdKept,
        Mistake::ExpiredUnsaid,
        Mistake::CutUnsaid,
        Mistake::EndAlwaysHere,
        Mistake::EndTooFar,
        Mistake::ClockBehind,
        Mistake::DoomsLiveKey,
        Mistake::DeletesUndoomed,
        Mistake::GraceIgnored,
        Mistake::DoomUnnoted,
        Mistake::OnePageOnly,
        Mistake::KeptIsGone,
        Mistake::WarehouseKept,
        Mistake::CutMisplaced,
        Mistake::StartTooFar,
        Mistake::EarlierCheckpointDoomed,
        Mistake::AllHeld,
        Mistake::ReplayHeld,
        Mistake::ClockUnchecked,
        Mistake::DeletesByAnyClock,
        Mistake::WallClockSleeps,
        Mistake::HistoryForgets,
        Mistake::LostEpochsUnsaid,
    ];
}

/// What the catalog holds of the one table.
#[derive(Clone, Default)]
pub struct Catalog {
    /// The owner of the newest term, also after it gave the lease back.
    owner: Option<Owner>,
    /// The name by which people know it.
    owner_name: String,
    /// When its lease ends; `None` when it was given back.
    lease_until: Option<DbTime>,
    /// Every epoch with the time of its commit; the index is its number.
    pub epochs: Vec<(Commit, DbTime)>,
    /// The rows of history, each with the key of its day manifest. The catalog itself no longer
    /// knows the epochs in them one by one; `epochs` keeps them for the auditor.
    pub folded: Vec<(History, String)>,
    /// What an epoch's files held when it was committed; `None` for a file that was not there.
    pub seen: BTreeMap<String, Option<Arc<Vec<u8>>>>,
    /// How often the table was taken.
    pub owners: u64,
    /// An operator's pause.
    pub paused: bool,
    /// Where Hive keeps the database; `None` where Hive does not know it.
    pub database_location: Option<String>,
    /// Keys that no commit may name any more, and since when.
    pub doomed: BTreeMap<String, DbTime>,
    /// The greatest epoch that there ever was, also before a failover.
    last_epoch_ever: Option<u64>,
    /// Epochs that were committed again from the store.
    followed: BTreeSet<u64>,
}

impl Catalog {
    /// What the rules of `windrow_core::table::admit` need to know. `epoch` is the one that is
    /// asked about, if any. Only a commit adds its doomed keys.
    fn facts(&self, epoch: Option<u64>) -> JobFacts {
        let there = epoch
            .filter(|epoch| !self.is_folded(*epoch))
            .and_then(|epoch| self.epochs.get(epoch as usize));
        let last = self.epochs.last();
        JobFacts {
            owner: self.owner.clone(),
            owner_name: self.owner_name.clone(),
            lease_until: self.lease_until,
            last_epoch: self.last_epoch(),
            epoch: there.map(|(commit, at)| CommittedEpoch {
                digest: commit.digest.clone(),
                committed_at: *at,
            }),
            next_offsets: last.map_or_else(BTreeMap::new, |(commit, _)| {
                let lanes = commit.lanes.iter();
                lanes
                    .map(|(partition, lane)| (*partition, lane.to))
                    .collect()
            }),
            last_digest: last.map(|(commit, _)| commit.digest.clone()),
            ..JobFacts::default()
        }
    }

    /// Whether an epoch is in a row of history.
    pub fn is_folded(&self, epoch: u64) -> bool {
        let until = self.folded.last().map_or(0, |(last, _)| last.last_epoch);
        (1..=until).contains(&epoch)
    }

    fn found<'a>(&self, kept: &'a Checkpoints) -> Found<'a> {
        Found {
            next: self.folded.last().map_or(1, |(row, _)| row.last_epoch + 1),
            last: self.last_epoch().unwrap_or_default(),
            kept,
        }
    }

    /// What was decided in the epochs from `from` on, below `until`. Those of a row of history are
    /// known together only.
    fn decisions(&self, from: u64, until: u64) -> Vec<Decision> {
        let of_history = self.folded.iter().flat_map(|(row, _)| {
            let all = row.first_epoch >= from && row.last_epoch < until;
            let none = row.last_epoch < from || row.first_epoch >= until;
            assert!(all || none, "a restart needs a part of a row of history");
            row.decisions.iter().filter(move |_| all)
        });
        let (first, rest): (Vec<u64>, Vec<u64>) = (from..until)
            .filter(|epoch| !self.is_folded(*epoch))
            .partition(|epoch| *epoch == 0);
        let of_epochs = |epochs: Vec<u64>| {
            let commits = epochs
                .into_iter()
                .map(|epoch| &self.epochs[epoch as usize].0);
            commits.flat_map(|commit| commit.decisions.clone())
        };
        of_epochs(first)
            .chain(of_history.cloned())
            .chain(of_epochs(rest))
            .collect()
    }

    /// What a failover does not take away: it is the auditor's, not the catalog's.
    pub fn keep_what_auditors_know(&mut self, newer: Catalog) {
        self.owners = newer.owners;
        self.last_epoch_ever = newer.last_epoch_ever;
        self.database_location = newer.database_location;
        for (key, bytes) in newer.seen {
            self.seen.entry(key).or_insert(bytes);
        }
    }

    /// Whether the newest term is the same as in an older catalog.
    pub fn has_owner_of(&self, older: &Catalog) -> bool {
        self.owner == older.owner
    }

    /// Whether nobody has taken the table since.
    pub fn is_owned_by(&self, owner: &Owner) -> bool {
        self.owner.as_ref() == Some(owner)
    }

    /// Whether an epoch was committed from the store, by another owner than the one that made it.
    pub fn is_followed(&self, epoch: u64) -> bool {
        self.followed.contains(&epoch)
    }

    /// The owner of the newest term.
    pub fn owner(&self) -> Option<&Owner> {
        self.owner.as_ref()
    }

    pub fn last_epoch(&self) -> Option<u64> {
        (self.epochs.len() as u64).checked_sub(1)
    }

    pub fn acquire(
        &mut self,
        now: DbTime,
        who: &str,
        owner_id: &str,
        lease_ms: u64,
        over: Option<&LeaseMark>,
        mistake: Option<Mistake>,
    ) -> Result<Acquired, CatalogError> {
        if let Whose::Held { by, left_ms, lease } = whose(&self.facts(None), owner_id, now, over) {
            return Ok(Acquired::Held { by, left_ms, lease });
        }
        self.owners += 1;
        let owner = Owner {
            term: self.owner.as_ref().map_or(0, |owner| owner.term) + 1,
            owner_id: owner_id.to_owned(),
        };
        let said = if mistake == Some(Mistake::ClockBehind) && self.epochs.is_empty() {
            DbTime(now.0 - 3_600_000)
        } else {
            now
        };
        self.owner = Some(owner.clone());
        self.owner_name = who.to_owned();
        self.lease_until = Some(DbTime(now.0 + lease_ms as i64));
        Ok(Acquired::Ours {
            owner,
            lease_ms,
            now: said,
            head: self.head(mistake).map(Box::new),
        })
    }

    pub fn head(&self, mistake: Option<Mistake>) -> Option<Head> {
        let (last, committed_at) = self.epochs.last()?.clone();
        let genesis = self.epochs[0].0.genesis.clone().expect("epoch 0 has it");
        let kept = self.checkpoints();
        let since = |from: &Option<(u64, CheckpointAt)>, until: usize| -> Vec<_> {
            let from = from.as_ref().map_or(0, |(epoch, _)| *epoch + 1);
            self.decisions(from, until as u64)
        };
        let newest = kept
            .newest
            .as_ref()
            .map_or(0, |(epoch, _)| *epoch as usize + 1);
        let earlier = kept.before.clone().map(|(epoch, at)| EarlierCheckpoint {
            epoch,
            at,
            decisions: since(&kept.before, newest),
        });
        let mut decisions = since(&kept.newest, self.epochs.len());
        let mut checkpoint = kept.newest;
        let mut last = last;
        match mistake {
            Some(Mistake::DecisionsForgotten) => decisions.clear(),
            Some(Mistake::NoReplay) => {
                // This is the state of the first checkpoint with the offsets of the last commit.
                checkpoint = None;
                for lane in last.lanes.values_mut() {
                    let n = lane.ledger.next_offset;
                    lane.ledger = LaneLedger {
                        start_offset: n,
                        next_offset: n,
                        ..LaneLedger::default()
                    };
                }
                decisions.retain(|d| last.lanes[&d.partition].to <= d.offset);
            }
            _ => {}
        }
        Some(Head {
            genesis,
            last,
            committed_at,
            checkpoint,
            decisions,
            earlier,
            paused: self.paused,
        })
    }

    pub fn renew(
        &mut self,
        now: DbTime,
        owner: &Owner,
        lease_ms: u64,
        mistake: Option<Mistake>,
    ) -> Result<Renewed, CatalogError> {
        check_owner(&self.facts(None), owner).map_err(CatalogError::Fenced)?;
        self.lease_until = Some(DbTime(now.0 + lease_ms as i64));
        Ok(Renewed {
            now,
            paused: self.paused,
            last_epoch: match mistake {
                Some(Mistake::LostEpochsUnsaid) => self.last_epoch_ever,
                _ => self.last_epoch(),
            },
        })
    }

    /// # Errors
    /// `Stop` when there is no such table.
    pub fn set_paused(&mut self, paused: bool) -> Result<(), CatalogError> {
        if self.epochs.is_empty() {
            return Err(CatalogError::Stop("no such table".into()));
        }
        self.paused = paused;
        Ok(())
    }

    /// Where the newest checkpoint of a topic partition is: a restart reads from there.
    pub fn checkpointed(&self, partition: Partition) -> Option<Offset> {
        let (commit, _) = self
            .epochs
            .iter()
            .rev()
            .find(|(c, _)| c.checkpoint.is_some())?;
        commit.lanes.get(&partition).map(|lane| lane.to)
    }

    pub fn release(&mut self, owner: &Owner) {
        if check_owner(&self.facts(None), owner).is_ok() {
            self.lease_until = None;
        }
    }

    pub fn commit(
        &mut self,
        now: DbTime,
        commit: &Commit,
        clock: &ClockBound,
        objects: &BTreeMap<String, Arc<Vec<u8>>>,
        mistake: Option<Mistake>,
    ) -> Result<DbTime, CatalogError> {
        let mut facts = self.facts(Some(commit.epoch));
        facts.doomed = commit.objects();
        facts.doomed.retain(|key| self.doomed.contains_key(key));
        facts.live = self
            .live_files()
            .into_iter()
            .map(|live| (live.file.key.clone(), live.file.as_chunk()))
            .collect();
        match admit(&facts, commit) {
            Verdict::Write => {}
            Verdict::AlreadyThere(at) => return Ok(at),
            Verdict::Fenced(_) if mistake == Some(Mistake::NoFence) && facts.doomed.is_empty() => {}
            Verdict::Fenced(why) => return Err(CatalogError::Fenced(why)),
            Verdict::Mistake(why) => return Err(CatalogError::Stop(why.into())),
        }
        if mistake != Some(Mistake::ClockUnchecked) {
            refuse_other_clock(now, clock)?;
        }
        let at = committed_at(now, self.epochs.last().map(|(_, at)| *at));
        let replaced = commit
            .checkpoint
            .clone()
            .and_then(|at| self.checkpoints().push(commit.epoch, at));
        let mut commit = commit.clone();
        match mistake {
            Some(Mistake::FilesTwice) => {
                let twice = commit.files.clone();
                commit.files.extend(twice);
            }
            Some(Mistake::LateForgotten) => commit.files.retain(|f| f.kind != FileKind::Late),
            _ => {}
        }
        for file in &commit.files {
            self.seen
                .insert(file.key.clone(), objects.get(&file.key).cloned());
        }
        if let Some(CheckpointAt::Object(key)) = &commit.checkpoint {
            assert!(
                objects.contains_key(key) || mistake.is_some(),
                "a checkpoint is stored before its commit"
            );
        }
        let manifest = objects.get(&commit.manifest);
        let manifest = manifest.and_then(|bytes| serde_json::from_slice::<Commit>(bytes).ok());
        if manifest.is_some_and(|manifest| manifest.owner != commit.owner) {
            self.followed.insert(commit.epoch);
        }
        self.epochs.push((commit, at));
        self.last_epoch_ever = self.last_epoch_ever.max(self.last_epoch());
        if mistake == Some(Mistake::EarlierCheckpointDoomed)
            && let Some((_, CheckpointAt::Object(key))) = self.checkpoints().before
        {
            self.doomed.entry(key).or_insert(now);
        }
        let retired = self.epochs.last().map(|(commit, _)| commit.retired.clone());
        let retired = retired.into_iter().flatten().map(|file| file.key);
        for key in retired.chain(replaced) {
            self.doomed.entry(key).or_insert(now);
        }
        Ok(at)
    }

    /// The newest checkpoint and the one before it.
    pub fn checkpoints(&self) -> Checkpoints {
        let mut found = self.epochs.iter().rev().filter_map(|(commit, _)| {
            let at = commit.checkpoint.clone()?;
            Some((commit.epoch, at))
        });
        Checkpoints {
            newest: found.next(),
            before: found.next(),
        }
    }

    /// The files that readers see, in the order in which they were committed.
    pub fn live_files(&self) -> Vec<LiveFile> {
        let retired = self.retired();
        let epochs = self.epochs.iter();
        let files = epochs.flat_map(|(commit, at)| {
            commit.files.iter().map(|file| LiveFile {
                epoch: commit.epoch,
                committed_at: *at,
                file: file.clone(),
            })
        });
        files
            .filter(|live| !retired.contains(&live.file.key))
            .collect()
    }

    /// The keys of all files that were replaced or dropped.
    fn retired(&self) -> BTreeSet<&String> {
        self.epochs
            .iter()
            .flat_map(|(commit, _)| &commit.retired)
            .map(|file| &file.key)
            .collect()
    }

    /// There is no Hive here, and so there are no table partitions.
    pub fn drop_emptied(
        &self,
        now: DbTime,
        owner: &Owner,
        clock: &ClockBound,
    ) -> Result<(), CatalogError> {
        check_owner(&self.facts(None), owner).map_err(CatalogError::Fenced)?;
        refuse_other_clock(now, clock)
    }

    /// Which epochs fold now, and what they say together.
    pub fn foldable(
        &self,
        now: DbTime,
        every_ms: i64,
        clock: &ClockBound,
    ) -> Result<Option<Box<DayManifest>>, CatalogError> {
        refuse_other_clock(now, clock)?;
        let today = history::today(now, every_ms);
        let old = self.epochs.iter().rev().find(|(_, at)| *at < today);
        let kept = self.checkpoints();
        let Some(range) = self.found(&kept).range(old.map(|(commit, _)| commit.epoch)) else {
            return Ok(None);
        };
        let mut epochs = self.epochs[range.first as usize..=range.last as usize].iter();
        let (commit, at) = epochs.next().expect("a range has an epoch");
        let mut history = History::of(commit, *at);
        for (commit, at) in epochs {
            history.push(commit, *at).expect("epochs follow each other");
        }
        let mut before = self.clone();
        before.epochs.truncate(range.last as usize + 1);
        Ok(Some(Box::new(DayManifest {
            made_at: now,
            history,
            last: Commit {
                checkpoint: None,
                ..before.epochs[range.last as usize].0.clone()
            },
            live: before.live_files(),
        })))
    }

    /// Keeps epochs as one row of history from now on.
    pub fn fold(
        &mut self,
        now: DbTime,
        owner: &Owner,
        history: &History,
        manifest: String,
        clock: &ClockBound,
        mistake: Option<Mistake>,
    ) -> Result<(), CatalogError> {
        check_owner(&self.facts(None), owner).map_err(CatalogError::Fenced)?;
        let digest = |epoch| self.facts(Some(epoch)).epoch.map(|epoch| epoch.digest);
        let (first, last) = (digest(history.first_epoch), digest(history.last_epoch));
        let doomed = self.doomed.contains_key(&manifest);
        let kept = self.checkpoints();
        let found = self.found(&kept);
        check_fold(history, &found, first.as_deref(), last.as_deref(), doomed)
            .map_err(|why| CatalogError::Retry(why.into()))?;
        refuse_other_clock(now, clock)?;
        let mut history = history.clone();
        if mistake == Some(Mistake::HistoryForgets) {
            history.decisions.clear();
        }
        for epoch in history.first_epoch..=history.last_epoch {
            let manifest = self.epochs[epoch as usize].0.manifest.clone();
            self.doomed.entry(manifest).or_insert(now);
        }
        self.folded.push((history, manifest));
        Ok(())
    }

    /// Dooms the day manifests whose offsets the logs have no longer.
    pub fn drop_days(
        &mut self,
        now: DbTime,
        owner: &Owner,
        log_starts: &BTreeMap<Partition, Offset>,
        clock: &ClockBound,
    ) -> Result<(), CatalogError> {
        check_owner(&self.facts(None), owner).map_err(CatalogError::Fenced)?;
        refuse_other_clock(now, clock)?;
        for key in history::days_to_drop(&self.folded, log_starts) {
            for (_, manifest) in &mut self.folded {
                if *manifest == key {
                    manifest.clear();
                }
            }
            self.doomed.entry(key).or_insert(now);
        }
        Ok(())
    }

    /// Whether readers see a file of this key, an epoch names it as its manifest, or a restart
    /// needs it as the checkpoint.
    pub fn is_live(&self, key: &str) -> bool {
        let named = |commit: &Commit| {
            commit.manifest == key && !self.is_folded(commit.epoch)
                || commit.files.iter().any(|file| file.key == key)
                || commit
                    .genesis
                    .as_ref()
                    .is_some_and(|genesis| genesis.empty_file == key)
        };
        let retired = self
            .epochs
            .iter()
            .any(|(commit, _)| commit.retired.iter().any(|file| file.key == key));
        !retired && self.epochs.iter().any(|(commit, _)| named(commit))
            || self.checkpoints().has(key)
            || self.folded.iter().any(|(_, manifest)| manifest == key)
    }

    /// The keys of all files that readers see, and of all manifests.
    pub fn named_keys(&self) -> impl Iterator<Item = &String> {
        let retired = self.retired();
        self.epochs
            .iter()
            .flat_map(|(commit, _)| {
                let files = commit.files.iter().map(|file| &file.key);
                let manifest = Some(&commit.manifest);
                files.chain(manifest.filter(|_| !self.is_folded(commit.epoch)))
            })
            .filter(move |key| !retired.contains(*key))
            .chain(self.day_manifests())
    }

    /// The keys of the day manifests that were not dropped.
    fn day_manifests(&self) -> impl Iterator<Item = &String> {
        let all = self.folded.iter().map(|(_, manifest)| manifest);
        all.filter(|manifest| !manifest.is_empty())
    }

    /// What says where the table lies. Hive is only asked while there is no table.
    pub fn locate(&self) -> Location {
        match self.warehouse() {
            Some(warehouse) => Location {
                genesis: Some(warehouse),
                database: None,
            },
            None => Location {
                genesis: None,
                database: self.database_location.clone(),
            },
        }
    }

    /// Where the table lies, as epoch 0 says; `None` for a table that does not exist.
    pub fn warehouse(&self) -> Option<String> {
        let (first, _) = self.epochs.first()?;
        Some(first.genesis.as_ref()?.warehouse.to_string())
    }

    /// Dooms those of `keys` that are not live, and returns them.
    pub fn doom(
        &mut self,
        now: DbTime,
        owner: &Owner,
        keys: &[String],
        clock: &ClockBound,
        mistake: Option<Mistake>,
    ) -> Result<Vec<String>, CatalogError> {
        check_owner(&self.facts(None), owner).map_err(CatalogError::Fenced)?;
        refuse_other_clock(now, clock)?;
        let mut free: Vec<String> = keys
            .iter()
            .filter(|key| !self.is_live(key) && !self.doomed.contains_key(*key))
            .cloned()
            .collect();
        if mistake == Some(Mistake::DoomsLiveKey) {
            free.extend(
                self.epochs
                    .last()
                    .map(|(commit, _)| commit.manifest.clone()),
            );
        }
        if mistake == Some(Mistake::DoomUnnoted) {
            return Ok(free);
        }
        for key in &free {
            self.doomed.entry(key.clone()).or_insert(now);
        }
        Ok(free)
    }

    /// Keys behind `after` that were doomed at least `grace_ms` ago.
    pub fn doomed_past(
        &self,
        now: DbTime,
        grace_ms: u64,
        after: Option<&str>,
        clock: &ClockBound,
        mistake: Option<Mistake>,
    ) -> Result<Vec<String>, CatalogError> {
        let now = if mistake == Some(Mistake::DeletesByAnyClock) {
            // It has jumped since it was heard last.
            DbTime(now.0 + 40 * 86_400_000)
        } else {
            refuse_other_clock(now, clock)?;
            now
        };
        let until = match mistake {
            Some(Mistake::GraceIgnored) => now.0,
            _ => now.0 - grace_ms as i64,
        };
        let mut keys: Vec<String> = self
            .doomed
            .iter()
            .filter(|(key, at)| at.0 <= until && after.is_none_or(|after| key.as_str() > after))
            .map(|(key, _)| key.clone())
            .take(PAGE_MAX)
            .collect();
        if mistake == Some(Mistake::DeletesUndoomed) && after.is_none() {
            keys.extend(
                self.epochs
                    .last()
                    .map(|(commit, _)| commit.manifest.clone()),
            );
        }
        Ok(keys)
    }

    /// Takes keys off the list of the doomed.
    pub fn forget(&mut self, owner: &Owner, keys: &[String]) -> Result<(), CatalogError> {
        check_owner(&self.facts(None), owner).map_err(CatalogError::Fenced)?;
        self.doomed.retain(|key, _| !keys.contains(key));
        Ok(())
    }

    pub fn outcome(&self, epoch: u64) -> Outcome {
        outcome(&self.facts(Some(epoch)))
    }
}

fn refuse_other_clock(now: DbTime, clock: &ClockBound) -> Result<(), CatalogError> {
    let refuse = |why| CatalogError::Retry(Trouble::new(Cause::Clocks, why));
    check_clock(now, clock).map_err(refuse)
}
