//! Epochs fold into rows of `history`. Which ones, and what their rows keep, is decided by
//! `windrow_core::table::history`.

use super::super::session::{Lost, args};
use super::PostgresCatalog;
use super::journal::{FILE, Job, Journal, compare_clock, from_json, read_file, to_bigint, to_json};
use std::collections::BTreeMap;
use tokio_postgres::Row;
use windrow_core::table::admit::{CommittedEpoch, check_owner};
use windrow_core::table::commit::{CatalogError, ClockBound, Commit, LiveFile, Owner};
use windrow_core::table::history::{
    DayManifest, Found, History, Range, check_fold, days_to_drop, today,
};
use windrow_core::table::hive::TableName;
use windrow_core::values::record::{Offset, Partition};
use windrow_core::values::time::DbTime;

/// How many epochs are read at a time. One has some 2 KB.
const PAGE: i64 = 500;

impl PostgresCatalog {
    pub(in super::super) async fn foldable(
        &mut self,
        every_ms: i64,
        clock: &ClockBound,
    ) -> Result<Option<Box<DayManifest>>, CatalogError> {
        let mut link = self.link("cannot read epochs of").await?;
        if !link.has_journal {
            return Ok(None);
        }
        link.db.begin().await?;
        let made_at = compare_clock(&link.db, clock).await?;
        let journal = self.journal(&link.db);
        let range = match journal.read_job().await? {
            Some((job, _)) => {
                let old = journal.last_before(today(made_at, every_ms)).await?;
                journal.found(&job).await?.range(old)
            }
            None => None,
        };
        let manifest = match range {
            Some(range) => Some(Box::new(journal.day_manifest(made_at, range).await?)),
            None => None,
        };
        link.db.commit(Lost::Again).await?;
        self.link = Some(link);
        Ok(manifest)
    }

    pub(in super::super) async fn fold(
        &mut self,
        owner: &Owner,
        history: &History,
        manifest: &str,
        clock: &ClockBound,
    ) -> Result<(), CatalogError> {
        let mut link = self.owners_link("cannot fold epochs of").await?;
        link.db.begin().await?;
        let journal = self.journal(&link.db);
        let job = journal.lock_job().await?;
        check_owner(&job.facts, owner).map_err(|why| link.db.fenced(why))?;
        let digest = |epoch: Option<CommittedEpoch>| epoch.map(|epoch| epoch.digest);
        let first = digest(journal.epoch(history.first_epoch).await?);
        let last = digest(journal.epoch(history.last_epoch).await?);
        let doomed = !journal.doomed_among(&[manifest]).await?.is_empty();
        let found = journal.found(&job).await?;
        check_fold(history, &found, first.as_deref(), last.as_deref(), doomed)
            .map_err(|why| link.db.retry(why))?;
        journal.insert_history(history, manifest).await?;
        compare_clock(&link.db, clock).await?;
        link.db.commit(Lost::Again).await?;
        self.link = Some(link);
        Ok(())
    }
}

impl PostgresCatalog {
    pub(in super::super) async fn drop_days(
        &mut self,
        owner: &Owner,
        log_starts: &BTreeMap<Partition, Offset>,
        clock: &ClockBound,
    ) -> Result<(), CatalogError> {
        let mut link = self.owners_link("cannot drop day manifests of").await?;
        link.db.begin().await?;
        let journal = self.journal(&link.db);
        let job = journal.lock_job().await?;
        check_owner(&job.facts, owner).map_err(|why| link.db.fenced(why))?;
        let keys = days_to_drop(&journal.history().await?, log_starts);
        if !keys.is_empty() {
            journal.insert_doomed(&keys).await?;
            journal.forget_day_manifests(&keys).await?;
        }
        compare_clock(&link.db, clock).await?;
        link.db.commit(Lost::Again).await?;
        self.link = Some(link);
        Ok(())
    }
}

impl Journal<'_> {
    /// The rows of history, each with the path of its day manifest, in order.
    async fn history(&self) -> Result<Vec<(History, String)>, CatalogError> {
        let (db, TableName { database, table }) = (self.db, self.name);
        let rows = db
            .query(
                "SELECT said::text, manifest FROM journal.history \
                 WHERE database = $1 AND \"table\" = $2 ORDER BY first_epoch",
                args![*database, *table],
            )
            .await?;
        let read = |row: &Row| {
            let text = db.read(row, 0, "journal.history.said")?;
            let history = from_json(db, "journal.history.said", text)?;
            Ok((history, db.read(row, 1, "journal.history.manifest")?))
        };
        rows.iter().map(read).collect()
    }

    /// The rows with these day manifests name none any more.
    async fn forget_day_manifests(&self, keys: &[String]) -> Result<(), CatalogError> {
        self.db
            .execute(
                "UPDATE journal.history SET manifest = '' \
                 WHERE database = $1 AND \"table\" = $2 AND manifest = ANY($3)",
                args![self.name.database, self.name.table, keys.to_vec()],
            )
            .await?;
        Ok(())
    }

    /// What decides which epochs may fold.
    async fn found<'a>(&self, job: &'a Job) -> Result<Found<'a>, CatalogError> {
        let (db, TableName { database, table }) = (self.db, self.name);
        let row = db
            .query_one(
                "SELECT COALESCE(max(last_epoch) + 1, 1) FROM journal.history \
                 WHERE database = $1 AND \"table\" = $2",
                args![*database, *table],
            )
            .await?;
        Ok(Found {
            next: db.read_count(&row, 0, "journal.history.last_epoch")?,
            last: job.facts.last_epoch.unwrap_or_default(),
            kept: &job.checkpoints,
        })
    }

    /// The last epoch that was committed before this time.
    async fn last_before(&self, time: DbTime) -> Result<Option<u64>, CatalogError> {
        let (db, TableName { database, table }) = (self.db, self.name);
        let row = db
            .query_one(
                "SELECT max(epoch) FROM journal.epoch WHERE database = $1 AND \"table\" = $2 \
                 AND committed_at < to_timestamp(0) + $3 * interval '1 millisecond'",
                args![*database, *table, time.0],
            )
            .await?;
        db.read_count_opt(&row, 0, "journal.epoch.epoch")
    }

    async fn day_manifest(
        &self,
        made_at: DbTime,
        range: Range,
    ) -> Result<DayManifest, CatalogError> {
        let (db, TableName { database, table }) = (self.db, self.name);
        let mut read: Option<(History, Commit)> = None;
        let mut next = range.first;
        while next <= range.last {
            let rows = db
                .query(
                    "SELECT said::text, floor(extract(epoch FROM committed_at) * 1000)::bigint \
                     FROM journal.epoch WHERE database = $1 AND \"table\" = $2 \
                     AND epoch BETWEEN $3 AND $4 ORDER BY epoch LIMIT $5",
                    args![
                        *database,
                        *table,
                        to_bigint(next),
                        to_bigint(range.last),
                        PAGE
                    ],
                )
                .await?;
            for row in &rows {
                let text = db.read(row, 0, "journal.epoch.said")?;
                let commit: Commit = from_json(db, "journal.epoch.said", text)?;
                let at = DbTime(db.read(row, 1, "journal.epoch.committed_at")?);
                let history = match read.take() {
                    None => History::of(&commit, at),
                    Some((mut history, _)) => {
                        let pushed = history.push(&commit, at);
                        pushed.map_err(|why| db.impossible("journal.epoch.said", why))?;
                        history
                    }
                };
                read = Some((history, commit));
            }
            let reached = read.as_ref().map(|(history, _)| history.last_epoch);
            match reached.filter(|reached| *reached >= next) {
                Some(reached) => next = reached + 1,
                None => {
                    let why = format!("there is no row of epoch {next}");
                    return Err(db.impossible("journal.epoch.epoch", why));
                }
            }
        }
        let (history, last) = read.expect("a range has an epoch");
        let live = self.live_after(range.last).await?;
        Ok(DayManifest {
            made_at,
            history,
            last,
            live,
        })
    }

    /// What readers saw after an epoch.
    async fn live_after(&self, epoch: u64) -> Result<Vec<LiveFile>, CatalogError> {
        let (db, TableName { database, table }) = (self.db, self.name);
        let rows = db
            .query(
                &format!(
                    "SELECT {FILE} FROM journal.file WHERE database = $1 AND \"table\" = $2 \
                     AND epoch <= $3 AND (retired_epoch IS NULL OR retired_epoch > $3) \
                     ORDER BY epoch, key"
                ),
                args![*database, *table, to_bigint(epoch)],
            )
            .await?;
        rows.iter().map(|row| read_file(db, row)).collect()
    }

    /// The epochs become one row, and their manifests are doomed.
    async fn insert_history(&self, history: &History, manifest: &str) -> Result<(), CatalogError> {
        let (db, TableName { database, table }) = (self.db, self.name);
        let (first, last) = (
            to_bigint(history.first_epoch),
            to_bigint(history.last_epoch),
        );
        self.insert_history_row(history, manifest).await?;
        db.execute(
            "WITH folded AS (DELETE FROM journal.epoch WHERE database = $1 AND \"table\" = $2 \
               AND epoch BETWEEN $3 AND $4 RETURNING manifest) \
             INSERT INTO journal.doomed (database, \"table\", key, doomed_at) \
             SELECT $1, $2, manifest, clock_timestamp() FROM folded ON CONFLICT DO NOTHING",
            args![*database, *table, first, last],
        )
        .await?;
        Ok(())
    }

    pub(super) async fn insert_history_row(
        &self,
        history: &History,
        manifest: &str,
    ) -> Result<(), CatalogError> {
        let (db, TableName { database, table }) = (self.db, self.name);
        let (first, last) = (
            to_bigint(history.first_epoch),
            to_bigint(history.last_epoch),
        );
        db.execute(
            "INSERT INTO journal.history (database, \"table\", first_epoch, last_epoch, \
               first_at, last_at, decisions, manifest, said) \
             VALUES ($1, $2, $3, $4, to_timestamp(0) + $5 * interval '1 millisecond', \
               to_timestamp(0) + $6 * interval '1 millisecond', $7, $8, $9::json)",
            args![
                *database,
                *table,
                first,
                last,
                history.first_at.0,
                history.last_at.0,
                i32::try_from(history.decisions.len()).unwrap_or(i32::MAX),
                manifest,
                to_json(history),
            ],
        )
        .await?;
        Ok(())
    }
}
