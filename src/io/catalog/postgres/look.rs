//! What is committed, for whoever looks: the head, the files, and whether the table is paused.

use super::super::answers::{CommittedFile, Files, Totals};
use super::super::session::{Lost, Session, args};
use super::PostgresCatalog;
use super::journal::{
    Journal, KeptCheckpoints, committed_file, from_json, kind_of_word, to_bigint,
};
use std::collections::BTreeMap;
use tokio_postgres::Row;
use windrow_core::table::commit::{
    CatalogError, Checkpoints, Commit, EarlierCheckpoint, Head, LiveFile,
};
use windrow_core::table::hive::{TableKind, TableName};
use windrow_core::table::plausible::{check_head, check_next_offsets};
use windrow_core::values::decision::Decision;
use windrow_core::values::record::{Offset, Partition};
use windrow_core::values::time::{DbTime, EventTime};

impl PostgresCatalog {
    pub(in super::super) async fn head(&mut self) -> Result<Option<Head>, CatalogError> {
        let mut link = self.link("cannot read").await?;
        if !link.has_journal {
            return Ok(None);
        }
        link.db.begin().await?;
        let head = self.journal(&link.db).head().await?;
        link.db.commit(Lost::Again).await?;
        self.link = Some(link);
        Ok(head)
    }

    pub(in super::super) async fn files(
        &mut self,
        kind: TableKind,
        limit: u32,
    ) -> Result<Files, CatalogError> {
        let mut link = self.link("cannot list files of").await?;
        if !link.has_journal {
            return Ok(Files {
                totals: Totals::default(),
                newest: Vec::new(),
            });
        }
        let TableName { database, table } = &self.name;
        link.db.begin().await?;
        let totals = link
            .db
            .query_one(
                "SELECT count(*), COALESCE(sum(bytes), 0)::bigint, COALESCE(sum(rows), 0)::bigint, \
                   min(first_window), max(last_window) FROM windrow_1.file \
                 WHERE database = $1 AND \"table\" = $2 AND kind = $3 AND retired_at IS NULL",
                args![*database, *table, kind.word()],
            )
            .await?;
        let rows = link
            .db
            .query(
                "SELECT epoch, date, chunk, key, bytes, rows, sha256, first_window, last_window \
                 FROM windrow_1.file \
                 WHERE database = $1 AND \"table\" = $2 AND kind = $3 AND retired_at IS NULL \
                 ORDER BY epoch DESC, date DESC, chunk DESC LIMIT $4",
                args![*database, *table, kind.word(), i64::from(limit)],
            )
            .await?;
        link.db.commit(Lost::Again).await?;
        let db = &link.db;
        let window = |i: usize, name: &str| {
            let window: Result<Option<i64>, _> = db.read(&totals, i, name);
            window.map(|window| window.map(EventTime))
        };
        let files = Files {
            totals: Totals {
                files: db.read_count(&totals, 0, "the number of files")?,
                bytes: db.read_count(&totals, 1, "windrow_1.file.bytes")?,
                rows: db.read_count(&totals, 2, "windrow_1.file.rows")?,
                first_window: window(3, "windrow_1.file.first_window")?,
                last_window: window(4, "windrow_1.file.last_window")?,
            },
            newest: rows
                .iter()
                .map(|row| committed_file(db, kind, row))
                .collect::<Result<_, _>>()?,
        };
        self.link = Some(link);
        Ok(files)
    }

    pub(in super::super) async fn live_files(&mut self) -> Result<Vec<LiveFile>, CatalogError> {
        let mut link = self.link("cannot list files of").await?;
        if !link.has_journal {
            return Ok(Vec::new());
        }
        link.db.begin().await?;
        let rows = link
            .db
            .query(
                "SELECT f.epoch, date, chunk, key, bytes, rows, sha256, first_window, \
                   last_window, kind, floor(extract(epoch FROM e.committed_at) * 1000)::bigint \
                 FROM windrow_1.file AS f JOIN windrow_1.epoch AS e USING (database, \"table\", epoch) \
                 WHERE database = $1 AND \"table\" = $2 AND retired_at IS NULL",
                args![self.name.database, self.name.table],
            )
            .await?;
        link.db.commit(Lost::Again).await?;
        let db = &link.db;
        let live_file = |row: &Row| {
            let kind = kind_of_word(db.read(row, 9, "windrow_1.file.kind")?);
            let CommittedFile { epoch, file } = committed_file(db, kind, row)?;
            let committed_at = DbTime(db.read(row, 10, "windrow_1.epoch.committed_at")?);
            Ok(LiveFile {
                epoch,
                committed_at,
                file,
            })
        };
        let files = rows.iter().map(live_file).collect::<Result<_, _>>()?;
        self.link = Some(link);
        Ok(files)
    }

    pub(in super::super) async fn set_paused(
        &mut self,
        paused: bool,
        by: &str,
    ) -> Result<(), CatalogError> {
        let doing = if paused {
            "cannot pause"
        } else {
            "cannot resume"
        };
        let mut link = self.link(doing).await?;
        let mut changed = 0;
        if link.has_journal {
            link.db.begin().await?;
            changed = link
                .db
                .execute(
                    "UPDATE windrow_1.job SET paused = $3, paused_by = $4, \
                       paused_at = clock_timestamp() WHERE database = $1 AND \"table\" = $2",
                    args![self.name.database, self.name.table, paused, by],
                )
                .await?;
            link.db.commit(Lost::Again).await?;
        }
        if changed == 0 {
            return Err(link
                .db
                .stop("there is no such table in this catalog; see table.name and catalog"));
        }
        self.link = Some(link);
        Ok(())
    }
}

impl Journal<'_> {
    /// The head; `None` before epoch 0. All of it is read for the epoch that the job's row names,
    /// so that a commit between two statements does not show in a part of it.
    pub(super) async fn head(&self) -> Result<Option<Head>, CatalogError> {
        let (db, TableName { database, table }) = (self.db, self.name);
        // One statement sees one moment: these tables agree in it, also while an owner commits.
        let job = db
            .query_opt(
                "SELECT last_epoch, COALESCE(genesis::text, ''), checkpoint_epoch, \
                   checkpoint::text, paused, \
                   (SELECT max(epoch) FROM windrow_1.epoch AS e \
                     WHERE e.database = $1 AND e.\"table\" = $2), \
                   (SELECT max(epoch) FROM windrow_1.file AS f \
                     WHERE f.database = $1 AND f.\"table\" = $2), \
                   ARRAY(SELECT partition FROM windrow_1.lane AS l \
                     WHERE l.database = $1 AND l.\"table\" = $2 ORDER BY partition), \
                   ARRAY(SELECT next_offset FROM windrow_1.lane AS l \
                     WHERE l.database = $1 AND l.\"table\" = $2 ORDER BY partition) \
                 FROM windrow_1.job WHERE database = $1 AND \"table\" = $2",
                args![*database, *table],
            )
            .await?;
        let Some(job) = job else { return Ok(None) };
        check_no_later_epoch(db, &job)?;
        let next_offsets = read_next_offsets(db, &job)?;
        let check_lanes = |last: Option<&Commit>| {
            check_next_offsets(&next_offsets, last)
                .map_err(|why| db.impossible("windrow_1.lane.next_offset", why))
        };
        let last_epoch: Option<i64> = db.read(&job, 0, "windrow_1.job.last_epoch")?;
        let Some(last_epoch) = last_epoch else {
            check_lanes(None)?;
            return Ok(None);
        };
        let checkpoint_epoch = db.read_count_opt(&job, 2, "windrow_1.job.checkpoint_epoch")?;
        let (mut last, committed_at) = self.last(last_epoch).await?;
        let kept = db.read::<Option<&str>>(&job, 3, "windrow_1.job.checkpoint")?;
        let kept = match (kept, checkpoint_epoch) {
            (Some(text), Some(epoch)) => {
                from_json::<KeptCheckpoints>(db, "windrow_1.job.checkpoint", text)?.at(epoch)
            }
            _ => Checkpoints::default(),
        };
        if checkpoint_epoch == u64::try_from(last_epoch).ok() {
            last.checkpoint = kept.newest.as_ref().map(|(_, at)| at.clone());
        }
        let decisions = self
            .decisions(checkpoint_epoch.map_or(-1, to_bigint), last_epoch)
            .await?;
        let earlier = match kept.before {
            None => None,
            Some((epoch, at)) => Some(EarlierCheckpoint {
                epoch,
                at,
                decisions: self
                    .decisions(to_bigint(epoch), checkpoint_epoch.map_or(-1, to_bigint))
                    .await?,
            }),
        };
        let genesis = db.read(&job, 1, "windrow_1.job.genesis")?;
        let head = Head {
            genesis: from_json(db, "windrow_1.job.genesis", genesis)?,
            last,
            committed_at,
            checkpoint: kept.newest,
            decisions,
            earlier,
            paused: db.read(&job, 4, "windrow_1.job.paused")?,
        };
        check_head(&head).map_err(|why| db.impossible("windrow_1.epoch.said", why))?;
        check_lanes(Some(&head.last))?;
        Ok(Some(head))
    }

    /// What the last epoch said, without its checkpoint, and when it was committed.
    async fn last(&self, last_epoch: i64) -> Result<(Commit, DbTime), CatalogError> {
        let (db, TableName { database, table }) = (self.db, self.name);
        let row = db
            .query_opt(
                "SELECT said::text, floor(extract(epoch FROM committed_at) * 1000)::bigint \
                 FROM windrow_1.epoch WHERE database = $1 AND \"table\" = $2 AND epoch = $3",
                args![*database, *table, last_epoch],
            )
            .await?;
        let why = || format!("it is {last_epoch}, and windrow_1.epoch has no such row");
        let row = row.ok_or_else(|| db.impossible("windrow_1.job.last_epoch", why()))?;
        let said = db.read(&row, 0, "windrow_1.epoch.said")?;
        let committed_at = db.read(&row, 1, "windrow_1.epoch.committed_at")?;
        let last = from_json(db, "windrow_1.epoch.said", said)?;
        Ok((last, DbTime(committed_at)))
    }

    /// The decisions of the epochs after `after`, up to `until`, in order.
    async fn decisions(&self, after: i64, until: i64) -> Result<Vec<Decision>, CatalogError> {
        let (db, TableName { database, table }) = (self.db, self.name);
        let rows = db
            .query(
                "SELECT (said->'decisions')::text FROM windrow_1.epoch \
                 WHERE database = $1 AND \"table\" = $2 AND epoch > $3 AND epoch <= $4 \
                 AND decisions > 0 ORDER BY epoch",
                args![*database, *table, after, until],
            )
            .await?;
        let mut decisions: Vec<Decision> = Vec::new();
        for row in &rows {
            let text = db.read::<Option<&str>>(row, 0, "windrow_1.epoch.said")?;
            let text = text.unwrap_or_default();
            decisions.extend(from_json::<Vec<Decision>>(
                db,
                "windrow_1.epoch.said",
                text,
            )?);
        }
        Ok(decisions)
    }
}

/// Refuses a last epoch and a checkpoint's epoch that were set back or forth by hand. Otherwise the
/// next commit would take a number that is taken, and be sent again for ever.
fn check_no_later_epoch(db: &Session, job: &Row) -> Result<(), CatalogError> {
    let last: Option<i64> = db.read(job, 0, "windrow_1.job.last_epoch")?;
    let said = last.map_or("null".to_owned(), |last| last.to_string());
    for (column, table) in [(5, "windrow_1.epoch"), (6, "windrow_1.file")] {
        let newest: Option<i64> = db.read(job, column, &format!("{table}.epoch"))?;
        if newest > last {
            let newest = newest.unwrap_or_default();
            let why = format!("it is {said}, and {table} has a row of epoch {newest}");
            return Err(db.impossible("windrow_1.job.last_epoch", why));
        }
    }
    let checkpoint: Option<i64> = db.read(job, 2, "windrow_1.job.checkpoint_epoch")?;
    if checkpoint > last {
        let why = format!(
            "it is {}, and windrow_1.job.last_epoch is {said}",
            checkpoint.unwrap_or_default()
        );
        return Err(db.impossible("windrow_1.job.checkpoint_epoch", why));
    }
    Ok(())
}

/// From which offset each topic partition goes on, by its row of `lane`.
fn read_next_offsets(db: &Session, job: &Row) -> Result<BTreeMap<Partition, Offset>, CatalogError> {
    let partitions: Vec<Partition> = db.read(job, 7, "windrow_1.lane.partition")?;
    let offsets: Vec<Offset> = db.read(job, 8, "windrow_1.lane.next_offset")?;
    Ok(partitions.into_iter().zip(offsets).collect())
}
