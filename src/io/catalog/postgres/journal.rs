//! The journal: windrow's own tables in PostgreSQL. They are read here as the facts that
//! `windrow_core::table::admit` judges by. They are made in `versions`, and what a commit writes is
//! in `commit`. A statement writes `journal.` for their schema.

use super::super::session::{Session, args};
use serde::{Deserialize, Serialize};
use tokio_postgres::Row;
use windrow_core::table::admit::{CommittedEpoch, JobFacts, check_clock};
use windrow_core::table::commit::{
    CatalogError, CheckpointAt, Checkpoints, Chunk, ClockBound, Commit, FileKind, Genesis,
    LiveFile, NewFile, Owner,
};
use windrow_core::table::compaction::Level;
use windrow_core::table::hive::{TableKind, TableName};
use windrow_core::values::cause::Cause;
use windrow_core::values::time::{DbTime, EventTime};

/// PostgreSQL's clock in milliseconds since 1970.
pub(super) const NOW_MS: &str = "floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint";

/// The job's row as [`Job`] and the clock. The end of the lease is rounded up, so that no lease
/// ends early for others.
const JOB: &str = "SELECT term, owner_id, owner_name, \
       ceil(extract(epoch FROM lease_until) * 1000)::bigint, last_epoch, checkpoint::text, \
       floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint, checkpoint_epoch \
     FROM journal.job WHERE database = $1 AND \"table\" = $2";

/// One table's rows of the journal, over one connection.
#[derive(Clone, Copy)]
pub(super) struct Journal<'a> {
    pub(super) db: &'a Session,
    pub(super) name: &'a TableName,
}

/// What the column `checkpoint` of a `job` holds: the newest checkpoint, as the first version of
/// windrow wrote it, and beside it the one before with its epoch. The epoch of the newest has a
/// column of its own.
#[derive(Serialize, Deserialize)]
pub(super) struct KeptCheckpoints {
    #[serde(flatten)]
    newest: CheckpointAt,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    before: Option<(u64, CheckpointAt)>,
}

impl KeptCheckpoints {
    /// `None` where there is no newest.
    pub(super) fn of(kept: Checkpoints) -> Option<Self> {
        let newest = kept.newest?.1;
        let before = kept.before;
        Some(Self { newest, before })
    }

    /// The same with the epoch of the newest.
    pub(super) fn at(self, epoch: u64) -> Checkpoints {
        Checkpoints {
            newest: Some((epoch, self.newest)),
            before: self.before,
        }
    }
}

/// The table's row of `job`.
#[derive(Default)]
pub(super) struct Job {
    /// What the row alone says; the rest is absent. A table without a row has no owner.
    pub(super) facts: JobFacts,
    /// The checkpoint in force, and the one before it.
    pub(super) checkpoints: Checkpoints,
}

impl Journal<'_> {
    /// The table's row and the clock, as they are at this moment, without a lock. `None` where
    /// there is no row.
    pub(super) async fn read_job(&self) -> Result<Option<(Job, DbTime)>, CatalogError> {
        self.job(JOB).await
    }

    /// Locks the table's row until the transaction ends, and reads it. The clock is left out,
    /// because such a statement may read it before it waits for the lock.
    pub(super) async fn lock_job(&self) -> Result<Job, CatalogError> {
        let job = self.job(&format!("{JOB} FOR UPDATE")).await?;
        Ok(job.map(|(job, _)| job).unwrap_or_default())
    }

    async fn job(&self, sql: &str) -> Result<Option<(Job, DbTime)>, CatalogError> {
        let (db, TableName { database, table }) = (self.db, self.name);
        let Some(row) = db.query_opt(sql, args![*database, *table]).await? else {
            return Ok(None);
        };
        let text = db.read::<Option<&str>>(&row, 5, "journal.job.checkpoint")?;
        let epoch = db.read_count_opt(&row, 7, "journal.job.checkpoint_epoch")?;
        let checkpoints = match (text, epoch) {
            (Some(text), Some(epoch)) => {
                from_json::<KeptCheckpoints>(db, "journal.job.checkpoint", text)?.at(epoch)
            }
            _ => Checkpoints::default(),
        };
        let term = db.read_count(&row, 0, "journal.job.term")?;
        let owner_id = db.read(&row, 1, "journal.job.owner_id")?;
        let facts = JobFacts {
            // The row is made a moment before its first owner is entered.
            owner: (term > 0).then_some(Owner { term, owner_id }),
            owner_name: db.read(&row, 2, "journal.job.owner_name")?,
            lease_until: db
                .read::<Option<i64>>(&row, 3, "journal.job.lease_until")?
                .map(DbTime),
            last_epoch: db.read_count_opt(&row, 4, "journal.job.last_epoch")?,
            ..JobFacts::default()
        };
        let now = DbTime(db.read(&row, 6, "PostgreSQL's clock")?);
        Ok(Some((Job { facts, checkpoints }, now)))
    }

    /// Adds to the facts of a locked row what `admit` needs to know besides.
    pub(super) async fn read_for_commit(
        &self,
        facts: &mut JobFacts,
        commit: &Commit,
    ) -> Result<(), CatalogError> {
        let (db, TableName { database, table }) = (self.db, self.name);
        if facts.last_epoch >= Some(commit.epoch) {
            facts.epoch = self.epoch(commit.epoch).await?;
        }
        let lanes = db
            .query(
                "SELECT partition, next_offset FROM journal.lane \
                 WHERE database = $1 AND \"table\" = $2 ORDER BY partition FOR UPDATE",
                args![*database, *table],
            )
            .await?;
        for row in &lanes {
            let partition = db.read(row, 0, "journal.lane.partition")?;
            let next = db.read(row, 1, "journal.lane.next_offset")?;
            facts.next_offsets.insert(partition, next);
        }
        facts.doomed = self.doomed_among(&commit.objects()).await?;
        if let Some(last) = facts.last_epoch {
            facts.last_digest = self.epoch(last).await?.map(|last| last.digest);
        }
        let retired: Vec<&str> = commit.retired.iter().map(|file| &*file.key).collect();
        if !retired.is_empty() {
            let live = db
                .query(
                    "SELECT key, kind, date, chunk FROM journal.file \
                     WHERE database = $1 AND \"table\" = $2 AND retired_at IS NULL \
                     AND key = ANY($3)",
                    args![*database, *table, retired],
                )
                .await?;
            for row in &live {
                let chunk = Chunk {
                    kind: read_kind(db, row, 1, "journal.file")?,
                    name: db.read(row, 3, "journal.file.chunk")?,
                };
                let key = db.read(row, 0, "journal.file.key")?;
                facts.live.insert(key, chunk);
            }
        }
        Ok(())
    }

    /// Those of `keys` that are doomed, in order.
    pub(super) async fn doomed_among(
        &self,
        keys: &[impl AsRef<str>],
    ) -> Result<Vec<String>, CatalogError> {
        let keys: Vec<&str> = keys.iter().map(AsRef::as_ref).collect();
        let rows = self
            .db
            .query(
                "SELECT key FROM journal.doomed \
                 WHERE database = $1 AND \"table\" = $2 AND key = ANY($3) ORDER BY key",
                args![self.name.database, self.name.table, keys],
            )
            .await?;
        let read = |row| self.db.read(row, 0, "journal.doomed.key");
        rows.iter().map(read).collect()
    }

    /// What is committed under this number.
    pub(super) async fn epoch(&self, epoch: u64) -> Result<Option<CommittedEpoch>, CatalogError> {
        let (db, TableName { database, table }) = (self.db, self.name);
        let row = db
            .query_opt(
                "SELECT digest, floor(extract(epoch FROM committed_at) * 1000)::bigint \
                 FROM journal.epoch WHERE database = $1 AND \"table\" = $2 AND epoch = $3",
                args![*database, *table, to_bigint(epoch)],
            )
            .await?;
        row.map(|row| {
            Ok(CommittedEpoch {
                digest: db.read(&row, 0, "journal.epoch.digest")?,
                committed_at: DbTime(db.read(&row, 1, "journal.epoch.committed_at")?),
            })
        })
        .transpose()
    }

    /// What epoch 0 said of the table.
    pub(super) async fn genesis(&self) -> Result<Genesis, CatalogError> {
        let (db, TableName { database, table }) = (self.db, self.name);
        let row = db
            .query_one(
                "SELECT COALESCE(genesis::text, '') FROM journal.job \
                 WHERE database = $1 AND \"table\" = $2",
                args![*database, *table],
            )
            .await?;
        from_json(
            db,
            "journal.job.genesis",
            db.read(&row, 0, "journal.job.genesis")?,
        )
    }
}

/// The table and the day of a row that has the columns `kind` and `date` at `column` and after it;
/// `of` is the row's own table.
pub(super) fn read_kind(
    db: &Session,
    row: &Row,
    column: usize,
    of: &str,
) -> Result<FileKind, CatalogError> {
    let word: &str = db.read(row, column, &format!("{of}.kind"))?;
    let kinds = TableKind::PARTITIONED.into_iter();
    match kinds.into_iter().find(|kind| kind.word() == word) {
        Some(TableKind::Late) => Ok(FileKind::Late),
        Some(TableKind::Rejects) => Ok(FileKind::Rejects),
        Some(TableKind::Chunks | TableKind::View) => {
            let date = db.read(row, column + 1, &format!("{of}.date"))?;
            Ok(FileKind::Rows { date })
        }
        None => Err(db.impossible(&format!("{of}.kind"), format!("it is \"{word}\""))),
    }
}

/// The columns of `file` that [`read_file`] reads.
pub(super) const FILE: &str = "kind, date, chunk, level, key, bytes, rows, sha256, first_window, \
     last_window, as_of, epoch, floor(extract(epoch FROM committed_at) * 1000)::bigint";

/// A row of `file` that has the columns [`FILE`].
pub(super) fn read_file(db: &Session, row: &Row) -> Result<LiveFile, CatalogError> {
    let time = |column: usize, name: &str| db.read::<Option<i64>>(row, column, name);
    let word: &str = db.read(row, 3, "journal.file.level")?;
    let level = Level::of_word(word)
        .ok_or_else(|| db.impossible("journal.file.level", format!("it is \"{word}\"")))?;
    let file = NewFile {
        kind: read_kind(db, row, 0, "journal.file")?,
        chunk: db.read(row, 2, "journal.file.chunk")?,
        level,
        key: db.read(row, 4, "journal.file.key")?,
        bytes: db.read_count(row, 5, "journal.file.bytes")?,
        rows: db.read_count(row, 6, "journal.file.rows")?,
        sha256: db.read(row, 7, "journal.file.sha256")?,
        first_window: time(8, "journal.file.first_window")?.map(EventTime),
        last_window: time(9, "journal.file.last_window")?.map(EventTime),
        as_of: time(10, "journal.file.as_of")?.map(DbTime),
    };
    Ok(LiveFile {
        epoch: db.read_count(row, 11, "journal.file.epoch")?,
        committed_at: DbTime(db.read(row, 12, "journal.file.committed_at")?),
        file,
    })
}

/// Reads PostgreSQL's clock, and compares it with the one by which a request was made. A
/// transaction that writes asks it last, so that no wait for a lock comes in between; without its
/// commit, all of it is rolled back.
///
/// # Errors
/// `Retry` with [`Cause::Clocks`] when it is another one.
pub(super) async fn compare_clock(
    db: &Session,
    clock: &ClockBound,
) -> Result<DbTime, CatalogError> {
    let row = db.query_one(&format!("SELECT {NOW_MS}"), args![]).await?;
    let now = DbTime(db.read(&row, 0, "PostgreSQL's clock")?);
    check_clock(now, clock).map_err(|why| db.retry_for(Cause::Clocks, why))?;
    Ok(now)
}

/// A value as the text of a `json` column.
pub(super) fn to_json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("commits have no keys but strings and numbers")
}

/// The value of a `json` column, which the message calls `what`.
pub(super) fn from_json<T: serde::de::DeserializeOwned>(
    db: &Session,
    what: &str,
    text: &str,
) -> Result<T, CatalogError> {
    serde_json::from_str(text).map_err(|error| {
        db.stop(format_args!(
            "cannot read {}: {error}; was it written by another version of windrow?",
            db.named(what)
        ))
    })
}

/// A count as PostgreSQL's bigint.
pub(super) fn to_bigint(n: u64) -> i64 {
    i64::try_from(n).expect("counts stay below 2^63")
}
