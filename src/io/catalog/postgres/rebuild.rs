//! A journal that has no epoch of the table is written again, from what the store says of it.

use super::super::hive::Restored;
use super::super::session::{Limits, Lost, args};
use super::PostgresCatalog;
use super::journal::{Journal, to_bigint, to_json};
use super::versions::{self, VERSIONS};
use windrow_core::table::commit::{Acquired, CatalogError, Checkpoints, Commit, LiveFile};
use windrow_core::table::hive::{self, HivePartition, TableKind, TableName};
use windrow_core::table::rebuild::Base;
use windrow_core::values::cause::Cause;
use windrow_core::values::time::DbTime;

impl PostgresCatalog {
    /// All of it becomes true in one transaction, or nothing. Returns what a person should know, as
    /// whole sentences.
    pub(in super::super) async fn rebuild(
        &mut self,
        who: &str,
        owner_id: &str,
        base: &Base,
    ) -> Result<Vec<String>, CatalogError> {
        let mut link = self.link("cannot rebuild").await?;
        link.hive.check_ready(&mut link.db).await?;
        if !link.has_journal {
            versions::make(&mut link.db, VERSIONS).await?;
            link.has_journal = true;
        }
        link.db.set_limits(Limits::LONG);
        link.hive
            .reserve(&mut link.db, &self.name, true, base.live.len())
            .await?;
        link.db.begin().await?;
        let journal = self.journal(&link.db);
        journal.make_job().await?;
        let job = journal.lock_job().await?;
        if let Some(Acquired::Held { by, .. }) = self.held(&link, owner_id, None).await? {
            let why = format!("\"{by}\" owns it; stop that windrow first");
            return Err(link.db.retry_for(Cause::Held, why));
        }
        if let Some(last) = job.facts.last_epoch {
            return Err(link.db.stop(format_args!(
                "the journal has its epochs up to {last}, so nothing of it is lost; start windrow, \
                 which follows what the store has after that; run windrow restore where Hive's \
                 entries are gone"
            )));
        }
        let genesis = base.first.genesis.as_ref();
        let genesis = genesis.ok_or_else(|| link.db.stop("epoch 0 does not describe the table"))?;
        journal.write_base(who, owner_id, base).await?;
        let wanted = wanted_partitions(base);
        let wanted = wanted.map_err(|why| link.db.stop(why))?;
        link.hive
            .make_database(&link.db, &self.name, genesis)
            .await?;
        let Restored {
            part_ids,
            mut notes,
            foreign,
        } = link
            .hive
            .restore(&link.db, &self.name, genesis, &wanted)
            .await?;
        journal.update_part_ids(part_ids).await?;
        link.db.commit(Lost::Again).await?;
        if let Some(why) = foreign {
            return Err(link.db.stop_for(Cause::TableDropped, why));
        }
        self.link = Some(link);
        notes.extend(base.notes.clone());
        Ok(notes)
    }
}

/// Every table partition that Hive should have. Their ids are not known yet, so each has one that
/// Hive gives nobody.
fn wanted_partitions(base: &Base) -> Result<Vec<(i64, HivePartition)>, String> {
    let genesis = base.first.genesis.as_ref();
    let warehouse = &genesis
        .ok_or("epoch 0 does not describe the table")?
        .warehouse;
    let partition = |(id, live): (i64, &LiveFile)| {
        let chunk = live.file.as_chunk();
        let partition = hive::partition(warehouse, &chunk, &live.file.key)?;
        Ok((id, partition))
    };
    unknown_ids(base).zip(&base.live).map(partition).collect()
}

fn unknown_ids(base: &Base) -> impl Iterator<Item = i64> {
    (1..=base.live.len()).map(|n| -i64::try_from(n).expect("they fit memory"))
}

impl Journal<'_> {
    /// Makes the table's row of `job` where there is none.
    pub(super) async fn make_job(&self) -> Result<(), CatalogError> {
        self.db
            .execute(
                "INSERT INTO journal.job (database, \"table\") VALUES ($1, $2) \
                 ON CONFLICT DO NOTHING",
                args![self.name.database, self.name.table],
            )
            .await?;
        Ok(())
    }

    async fn write_base(&self, who: &str, owner_id: &str, base: &Base) -> Result<(), CatalogError> {
        let last = base.last.as_ref().unwrap_or(&base.first);
        self.db
            .execute(
                "UPDATE journal.job SET term = greatest(term + 1, $3), owner_id = $4, \
                   owner_name = $5, lease_until = NULL, last_epoch = $6, genesis = $7::json \
                 WHERE database = $1 AND \"table\" = $2",
                args![
                    self.name.database,
                    self.name.table,
                    to_bigint(base.term),
                    owner_id,
                    who,
                    to_bigint(last.epoch),
                    base.first.genesis.as_ref().map(to_json),
                ],
            )
            .await?;
        self.write_epochs(base).await?;
        for (history, manifest) in &base.history {
            self.insert_history_row(history, manifest).await?;
        }
        self.update_lanes(last).await?;
        self.write_files(&base.live).await?;
        self.write_parts(base).await
    }

    /// Epoch 0, and the last one, from which the next one goes on. What that one has decided stands
    /// in its row of history, so here it counts as none.
    async fn write_epochs(&self, base: &Base) -> Result<(), CatalogError> {
        let days = &base.history;
        let first_at = days.first().map(|(history, _)| history.first_at);
        let last_at = days.last().map(|(history, _)| history.last_at);
        self.write_epoch(&base.first, first_at, base.first.decisions.len())
            .await?;
        match &base.last {
            Some(last) => self.write_epoch(last, last_at, 0).await,
            None => self.keep_checkpoint(&base.first).await,
        }
    }

    /// A day manifest has no checkpoint, so a restart takes that of a later epoch. Epoch 0 has one.
    async fn keep_checkpoint(&self, first: &Commit) -> Result<(), CatalogError> {
        let Some(checkpoint) = first.checkpoint.clone() else {
            return Ok(());
        };
        let mut kept = Checkpoints::default();
        kept.push(first.epoch, checkpoint);
        self.write_checkpoints(first.epoch, kept).await
    }

    /// Without a time it is committed now.
    async fn write_epoch(
        &self,
        commit: &Commit,
        at: Option<DbTime>,
        decisions: usize,
    ) -> Result<(), CatalogError> {
        let said = commit.without_checkpoint();
        self.db
            .execute(
                "INSERT INTO journal.epoch (database, \"table\", epoch, term, digest, manifest, \
                   committed_at, decisions, said) \
                 VALUES ($1, $2, $3, $4, $5, $6, \
                   COALESCE(to_timestamp(0) + $7::bigint * interval '1 millisecond', \
                     clock_timestamp()), $8, $9::json)",
                args![
                    self.name.database,
                    self.name.table,
                    to_bigint(commit.epoch),
                    to_bigint(commit.owner.term),
                    commit.digest,
                    commit.manifest,
                    at.map(|at| at.0),
                    i32::try_from(decisions).unwrap_or(i32::MAX),
                    to_json(&said),
                ],
            )
            .await?;
        Ok(())
    }

    async fn write_files(&self, live: &[LiveFile]) -> Result<(), CatalogError> {
        let texts = |f: &dyn Fn(&LiveFile) -> String| live.iter().map(f).collect::<Vec<_>>();
        let counts = |f: &dyn Fn(&LiveFile) -> u64| {
            let numbers = live.iter().map(|live| to_bigint(f(live)));
            numbers.collect::<Vec<_>>()
        };
        let times = |f: &dyn Fn(&LiveFile) -> Option<i64>| live.iter().map(f).collect::<Vec<_>>();
        let TableName { database, table } = self.name;
        self.db
            .execute(
                "INSERT INTO journal.file (database, \"table\", epoch, committed_at, key, kind, \
                   date, chunk, level, rows, bytes, sha256, first_window, last_window, as_of) \
                 SELECT $1, $2, epoch, to_timestamp(0) + at * interval '1 millisecond', key, kind, \
                   date, chunk, level, rows, bytes, sha256, first_window, last_window, as_of \
                 FROM unnest($3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) \
                   AS f (epoch, at, key, kind, date, chunk, level, rows, bytes, sha256, \
                     first_window, last_window, as_of)",
                args![
                    *database,
                    *table,
                    counts(&|f| f.epoch),
                    live.iter().map(|f| f.committed_at.0).collect::<Vec<i64>>(),
                    texts(&|f| f.file.key.clone()),
                    texts(&|f| TableKind::of(&f.file.kind).word().to_owned()),
                    texts(&|f| f.file.kind.date().to_owned()),
                    texts(&|f| f.file.chunk.clone()),
                    texts(&|f| f.file.level.word().to_owned()),
                    counts(&|f| f.file.rows),
                    counts(&|f| f.file.bytes),
                    texts(&|f| f.file.sha256.clone()),
                    times(&|f| f.file.first_window.map(|time| time.0)),
                    times(&|f| f.file.last_window.map(|time| time.0)),
                    times(&|f| f.file.as_of.map(|time| time.0)),
                ],
            )
            .await?;
        Ok(())
    }

    async fn write_parts(&self, base: &Base) -> Result<(), CatalogError> {
        let files = || base.live.iter().map(|live| &live.file);
        let TableName { database, table } = self.name;
        self.db
            .execute(
                "INSERT INTO journal.part (database, \"table\", kind, date, chunk, part_id, key) \
                 SELECT $1, $2, kind, date, chunk, part_id, key \
                 FROM unnest($3, $4, $5, $6, $7) AS p (kind, date, chunk, part_id, key)",
                args![
                    *database,
                    *table,
                    files()
                        .map(|f| TableKind::of(&f.kind).word().to_owned())
                        .collect::<Vec<_>>(),
                    files()
                        .map(|f| f.kind.date().to_owned())
                        .collect::<Vec<_>>(),
                    files().map(|f| f.chunk.clone()).collect::<Vec<_>>(),
                    unknown_ids(base).collect::<Vec<_>>(),
                    files().map(|f| f.key.clone()).collect::<Vec<_>>(),
                ],
            )
            .await?;
        Ok(())
    }
}
