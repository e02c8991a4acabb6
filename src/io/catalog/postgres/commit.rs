//! One transaction that makes an epoch true, and the question whether it did.
//! Whether a commit may be written is decided by `windrow_core::table::admit`.

use super::super::session::{Lost, args};
use super::journal::{Job, Journal, KeptCheckpoints, compare_clock, to_bigint, to_json};
use super::{Link, PostgresCatalog};
use windrow_core::table::admit::{Verdict, admit, outcome};
use windrow_core::table::commit::{
    CatalogError, Checkpoints, ClockBound, Commit, NewFile, Outcome,
};
use windrow_core::table::hive::{TableKind, TableName, partition};
use windrow_core::values::time::DbTime;

impl PostgresCatalog {
    pub(in super::super) async fn commit(
        &mut self,
        commit: &Commit,
        clock: &ClockBound,
    ) -> Result<DbTime, CatalogError> {
        let doing = format!("cannot commit epoch {} of", commit.epoch);
        let mut link = self.owners_link(&doing).await?;
        link.hive.check_ready(&mut link.db).await?;
        let creates = commit.genesis.is_some();
        // The files of a swap take the table partitions of those that they replace.
        let partitions = match commit.retired.len() {
            0 => commit.files.len(),
            _ => 0,
        };
        link.hive
            .reserve(&mut link.db, &self.name, creates, partitions)
            .await?;
        link.db.begin().await?;
        let committed_at = self.commit_in(&mut link, commit, clock).await?;
        link.db.commit(Lost::Ask).await?;
        self.link = Some(link);
        Ok(committed_at)
    }

    async fn commit_in(
        &self,
        link: &mut Link,
        commit: &Commit,
        clock: &ClockBound,
    ) -> Result<DbTime, CatalogError> {
        let Link { db, hive, .. } = link;
        let journal = self.journal(db);
        let Job {
            mut facts,
            checkpoints,
        } = journal.lock_job().await?;
        journal.read_for_commit(&mut facts, commit).await?;
        match admit(&facts, commit) {
            Verdict::Write => {}
            Verdict::AlreadyThere(committed_at) => return Ok(committed_at),
            Verdict::Fenced(why) => return Err(db.fenced(why)),
            Verdict::Mistake(why) => return Err(db.stop(why)),
        }
        let genesis = match &commit.genesis {
            Some(genesis) => {
                hive.create(db, &self.name, genesis).await?;
                genesis.clone()
            }
            None => journal.genesis().await?,
        };
        journal.swap_partitions(commit).await?;
        let tables = hive.check_tables(db, &self.name, &genesis).await?;
        if commit.retired.is_empty() {
            let new = commit.files.iter();
            let new = new.map(|file| partition(&genesis.warehouse, &file.as_chunk(), &file.key));
            let new: Vec<_> = new.collect::<Result<_, _>>().map_err(|why| db.stop(why))?;
            let ids = hive.add_partitions(db, &tables, &self.name, &new).await?;
            journal.insert_partitions(commit, ids).await?;
        }
        journal.update_lanes(commit).await?;
        journal.update_job(commit, checkpoints).await?;
        let committed_at = journal.insert_epoch(commit).await?;
        journal.retire_files(commit).await?;
        journal.insert_files(commit).await?;
        compare_clock(db, clock).await?;
        Ok(committed_at)
    }

    pub(in super::super) async fn outcome(&mut self, epoch: u64) -> Result<Outcome, CatalogError> {
        // The old connection may be the reason why we have to ask, and it must not hold the row.
        self.link = None;
        let doing = format!("cannot learn what became of epoch {epoch} of");
        let mut link = self.link(&doing).await?;
        if !link.has_journal {
            self.link = Some(link);
            return Ok(Outcome::Absent);
        }
        link.db.begin().await?;
        let journal = self.journal(&link.db);
        // A commit holds this lock from its beginning to its end. Once we have the lock, the old
        // transaction has ended, whoever owns the table now.
        let mut facts = journal.lock_job().await?.facts;
        facts.epoch = journal.epoch(epoch).await?;
        link.db.commit(Lost::Again).await?;
        self.link = Some(link);
        Ok(outcome(&facts))
    }
}

impl Journal<'_> {
    /// Says of the table partitions of retired files what they show from now on: the new files,
    /// and the file without rows in those that are left over. Hive is told with the next check of
    /// its tables.
    async fn swap_partitions(&self, commit: &Commit) -> Result<(), CatalogError> {
        let retired: Vec<&str> = commit.retired.iter().map(|file| &*file.key).collect();
        if retired.is_empty() {
            return Ok(());
        }
        let new_keys = commit.files.iter().map(|file| Some(&*file.key));
        let new_keys: Vec<Option<&str>> = new_keys
            .chain(std::iter::repeat(None))
            .take(retired.len())
            .collect();
        let changed = self
            .db
            .execute(
                "UPDATE journal.part AS p SET key = n.key, \
                   emptied_at = CASE WHEN n.key IS NULL THEN clock_timestamp() END \
                 FROM unnest($3, $4) AS n (retired, key) \
                 WHERE p.database = $1 AND p.\"table\" = $2 AND p.key = n.retired",
                args![self.name.database, self.name.table, retired, new_keys],
            )
            .await?;
        if changed != retired.len() as u64 {
            let why = format!(
                "{changed} rows show the {} files that are to be replaced or dropped",
                retired.len()
            );
            return Err(self.db.impossible("journal.part.key", why));
        }
        Ok(())
    }

    /// `ids` are those of Hive's table partitions, in the order of the files.
    async fn insert_partitions(&self, commit: &Commit, ids: Vec<i64>) -> Result<(), CatalogError> {
        if ids.is_empty() {
            return Ok(());
        }
        let files = &commit.files;
        let texts = |f: &dyn Fn(&NewFile) -> String| files.iter().map(f).collect::<Vec<_>>();
        self.db
            .execute(
                "INSERT INTO journal.part (database, \"table\", kind, date, chunk, part_id, key) \
                 SELECT $1, $2, kind, date, chunk, part_id, key \
                 FROM unnest($3, $4, $5, $6, $7) AS p (kind, date, chunk, part_id, key)",
                args![
                    self.name.database,
                    self.name.table,
                    texts(&|f| TableKind::of(&f.kind).word().to_owned()),
                    texts(&|f| f.kind.date().to_owned()),
                    texts(&|f| f.chunk.clone()),
                    ids,
                    texts(&|f| f.key.clone()),
                ],
            )
            .await?;
        Ok(())
    }

    /// Readers do not see these files any more, and their objects will be deleted.
    async fn retire_files(&self, commit: &Commit) -> Result<(), CatalogError> {
        let retired = commit.retired.iter().map(|file| file.key.clone());
        let retired: Vec<String> = retired.collect();
        if retired.is_empty() {
            return Ok(());
        }
        self.db
            .execute(
                "UPDATE journal.file SET retired_at = clock_timestamp(), retired_epoch = $4 \
                 WHERE database = $1 AND \"table\" = $2 AND key = ANY($3)",
                args![
                    self.name.database,
                    self.name.table,
                    retired,
                    to_bigint(commit.epoch)
                ],
            )
            .await?;
        self.insert_doomed(&retired).await
    }

    /// The epoch of these files is there already.
    async fn insert_files(&self, commit: &Commit) -> Result<(), CatalogError> {
        if commit.files.is_empty() {
            return Ok(());
        }
        let TableName { database, table } = self.name;
        let files = &commit.files;
        let texts = |f: &dyn Fn(&NewFile) -> String| files.iter().map(f).collect::<Vec<_>>();
        let counts = |f: &dyn Fn(&NewFile) -> u64| {
            let numbers = files.iter().map(|file| to_bigint(f(file)));
            numbers.collect::<Vec<_>>()
        };
        let times = |f: &dyn Fn(&NewFile) -> Option<i64>| files.iter().map(f).collect::<Vec<_>>();
        self.db
            .execute(
                "INSERT INTO journal.file (database, \"table\", epoch, committed_at, key, kind, \
                   date, chunk, level, rows, bytes, sha256, first_window, last_window, as_of) \
                 SELECT $1, $2, $3, e.committed_at, f.key, f.kind, f.date, f.chunk, f.level, \
                   f.rows, f.bytes, f.sha256, f.first_window, f.last_window, f.as_of \
                 FROM journal.epoch AS e, \
                   unnest($4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) AS f (key, kind, date, \
                     chunk, level, rows, bytes, sha256, first_window, last_window, as_of) \
                 WHERE e.database = $1 AND e.\"table\" = $2 AND e.epoch = $3",
                args![
                    *database,
                    *table,
                    to_bigint(commit.epoch),
                    texts(&|f| f.key.clone()),
                    texts(&|f| TableKind::of(&f.kind).word().to_owned()),
                    texts(&|f| f.kind.date().to_owned()),
                    texts(&|f| f.chunk.clone()),
                    texts(&|f| f.level.word().to_owned()),
                    counts(&|f| f.rows),
                    counts(&|f| f.bytes),
                    texts(&|f| f.sha256.clone()),
                    times(&|f| f.first_window.map(|time| time.0)),
                    times(&|f| f.last_window.map(|time| time.0)),
                    times(&|f| f.as_of.map(|time| time.0)),
                ],
            )
            .await?;
        Ok(())
    }

    /// A topic partition gets its row at its first commit. The row of one that read nothing stays
    /// untouched.
    pub(super) async fn update_lanes(&self, commit: &Commit) -> Result<(), CatalogError> {
        let TableName { database, table } = self.name;
        let lanes = || commit.lanes.values();
        self.db
            .execute(
                "INSERT INTO journal.lane AS l (database, \"table\", partition, next_offset, \
                   leader_epoch) \
                 SELECT $1, $2, partition, next_offset, leader_epoch \
                 FROM unnest($3, $4, $5) AS n (partition, next_offset, leader_epoch) \
                 ON CONFLICT (database, \"table\", partition) DO UPDATE \
                 SET next_offset = EXCLUDED.next_offset, leader_epoch = EXCLUDED.leader_epoch \
                 WHERE (l.next_offset, l.leader_epoch) \
                   <> (EXCLUDED.next_offset, EXCLUDED.leader_epoch)",
                args![
                    *database,
                    *table,
                    commit.lanes.keys().copied().collect::<Vec<i32>>(),
                    lanes().map(|lane| lane.to).collect::<Vec<i64>>(),
                    lanes().map(|lane| lane.leader_epoch).collect::<Vec<i32>>(),
                ],
            )
            .await?;
        Ok(())
    }

    /// `kept` are the checkpoints until now. When the commit brings another one, the object of the
    /// one that is dropped is doomed.
    async fn update_job(&self, commit: &Commit, mut kept: Checkpoints) -> Result<(), CatalogError> {
        let (db, TableName { database, table }) = (self.db, self.name);
        let epoch = to_bigint(commit.epoch);
        db.execute(
            "UPDATE journal.job SET last_epoch = $3, genesis = COALESCE($4::json, genesis) \
             WHERE database = $1 AND \"table\" = $2",
            args![
                *database,
                *table,
                epoch,
                commit.genesis.as_ref().map(to_json)
            ],
        )
        .await?;
        let Some(checkpoint) = commit.checkpoint.clone() else {
            return Ok(());
        };
        let dropped = kept.push(commit.epoch, checkpoint);
        self.write_checkpoints(commit.epoch, kept).await?;
        match dropped {
            Some(key) => self.insert_doomed(&[key]).await,
            None => Ok(()),
        }
    }

    /// `epoch` is that of the newest.
    pub(super) async fn write_checkpoints(
        &self,
        epoch: u64,
        kept: Checkpoints,
    ) -> Result<(), CatalogError> {
        self.db
            .execute(
                "UPDATE journal.job SET checkpoint_epoch = $3, checkpoint = $4::json \
                 WHERE database = $1 AND \"table\" = $2",
                args![
                    self.name.database,
                    self.name.table,
                    to_bigint(epoch),
                    KeptCheckpoints::of(kept).map(|k| to_json(&k))
                ],
            )
            .await?;
        Ok(())
    }

    /// Returns when the epoch was committed, which is never before the epoch before it.
    async fn insert_epoch(&self, commit: &Commit) -> Result<DbTime, CatalogError> {
        let said = commit.without_checkpoint();
        let sql = "INSERT INTO journal.epoch (database, \"table\", epoch, term, digest, \
               manifest, committed_at, decisions, said) \
             VALUES ($1, $2, $3, $4, $5, $6, greatest(clock_timestamp(), \
                 (SELECT committed_at FROM journal.epoch \
                  WHERE database = $1 AND \"table\" = $2 AND epoch = $3 - 1)), $7, $8::json) \
             RETURNING floor(extract(epoch FROM committed_at) * 1000)::bigint";
        let row = self
            .db
            .query_one(
                sql,
                args![
                    self.name.database,
                    self.name.table,
                    to_bigint(commit.epoch),
                    to_bigint(commit.owner.term),
                    commit.digest,
                    commit.manifest,
                    i32::try_from(commit.decisions.len()).unwrap_or(i32::MAX),
                    to_json(&said),
                ],
            )
            .await?;
        let committed_at = self.db.read(&row, 0, "journal.epoch.committed_at")?;
        Ok(DbTime(committed_at))
    }
}
