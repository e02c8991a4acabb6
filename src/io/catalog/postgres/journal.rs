//! The journal: windrow's own tables in PostgreSQL, schema `windrow_1`. It is made here, and read
//! as the facts that `windrow_core::table::admit` judges by. What a commit writes is in `commit`.

use super::super::answers::CommittedFile;
use super::super::hive::ROLES_LET_IN;
use super::super::session::{Lost, Session, args};
use serde::{Deserialize, Serialize};
use tokio_postgres::Row;
use windrow_core::table::admit::{CommittedEpoch, JobFacts};
use windrow_core::table::commit::{
    CatalogError, CheckpointAt, Checkpoints, Commit, FileKind, Genesis, NewFile, Owner,
};
use windrow_core::table::compaction::Level;
use windrow_core::table::hive::{TableKind, TableName};
use windrow_core::values::cause::Cause;
use windrow_core::values::time::{DbTime, EventTime};

/// The journal's tables. The version is in the schema's name: a newer one is made beside it,
/// because later users may not alter what earlier ones made.
///
/// Each new relation of a charm comes with a new role whose name nobody can know now, and the
/// journal must outlive them all. So it is open to all who may connect to the database, but only
/// where that is not everybody: the charms of PostgreSQL take PUBLIC's right to connect away. In
/// any other database it is open to its owner and to those who were let in by name. The columns are
/// `json` and not `jsonb`, which refuses texts that hold U+0000.
const SCHEMA: &str = r#"
CREATE SCHEMA windrow_1;
CREATE TABLE windrow_1.job (
    database text NOT NULL,
    "table" text NOT NULL,
    owner_epoch bigint NOT NULL DEFAULT 0,
    owner_id text NOT NULL DEFAULT '',
    owner_name text NOT NULL DEFAULT '',
    lease_until timestamptz, -- null: given back
    last_epoch bigint, -- null before epoch 0
    genesis json,
    checkpoint_epoch bigint,
    checkpoint json,
    paused boolean NOT NULL DEFAULT false,
    paused_by text,
    paused_at timestamptz,
    PRIMARY KEY (database, "table"));
CREATE TABLE windrow_1.lane (
    database text NOT NULL,
    "table" text NOT NULL,
    partition integer NOT NULL,
    owner_epoch bigint NOT NULL,
    owner_id text NOT NULL,
    lease_until timestamptz, -- null: as long as the job's
    next_offset bigint NOT NULL,
    leader_epoch integer NOT NULL,
    PRIMARY KEY (database, "table", partition));
CREATE TABLE windrow_1.epoch (
    database text NOT NULL,
    "table" text NOT NULL,
    epoch bigint NOT NULL,
    owner_epoch bigint NOT NULL,
    digest text NOT NULL,
    manifest text NOT NULL,
    committed_at timestamptz NOT NULL,
    decisions integer NOT NULL, -- how many
    said json NOT NULL, -- the commit without its checkpoint
    PRIMARY KEY (database, "table", epoch));
CREATE TABLE windrow_1.file (
    database text NOT NULL,
    "table" text NOT NULL,
    key text NOT NULL,
    epoch bigint NOT NULL,
    kind text NOT NULL,
    date text NOT NULL, -- empty for the side tables
    chunk text NOT NULL,
    rows bigint NOT NULL,
    bytes bigint NOT NULL,
    sha256 text NOT NULL,
    first_window bigint,
    last_window bigint,
    part_id bigint NOT NULL, -- Hive's PARTITIONS."PART_ID"
    retired_at timestamptz, -- null: readers see it
    PRIMARY KEY (database, "table", key));
CREATE UNIQUE INDEX file_chunk ON windrow_1.file (database, "table", kind, date, chunk);
CREATE INDEX file_epoch ON windrow_1.file (database, "table", epoch);
CREATE TABLE windrow_1.doomed (
    database text NOT NULL,
    "table" text NOT NULL,
    key text NOT NULL,
    doomed_at timestamptz NOT NULL,
    PRIMARY KEY (database, "table", key));
DO $$ BEGIN
    IF NOT has_database_privilege('public', current_database(), 'CONNECT') THEN
        GRANT USAGE ON SCHEMA windrow_1 TO PUBLIC;
        GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA windrow_1 TO PUBLIC;
    END IF;
END $$;
"#;

/// The number in the name of the schema that this program writes.
const VERSION: u64 = 1;

/// PostgreSQL's clock in milliseconds since 1970.
pub(super) const NOW_MS: &str = "floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint";

/// The job's row as [`Job`] and the clock. The end of the lease is rounded up, so that no lease
/// ends early for others.
const JOB: &str = "SELECT owner_epoch, owner_id, owner_name, \
       ceil(extract(epoch FROM lease_until) * 1000)::bigint, last_epoch, checkpoint::text, \
       floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint, checkpoint_epoch \
     FROM windrow_1.job WHERE database = $1 AND \"table\" = $2";

/// The schemas that bear the journal's name. With each: its owner, whether that owner is trusted,
/// and whether the tables in it are as windrow makes them: with a trusted owner, and without
/// triggers, rules and row security, which would run with our rights.
///
/// An owner is trusted if it could do the same harm without the journal: our own role and those
/// that we are a member of, superusers, the owner of the database, and whoever may write Hive's
/// tables.
/// The last are, for example, the users of other relations, of which an earlier one may have made
/// the journal.
const FIND: &str = "WITH trusted AS (SELECT r.oid FROM pg_roles AS r \
       WHERE r.rolsuper OR pg_has_role(r.oid, 'MEMBER') \
       OR r.oid = (SELECT datdba FROM pg_database WHERE datname = current_database()) \
       OR COALESCE(has_table_privilege(r.oid, to_regclass($1 || '.\"TBLS\"'), 'INSERT'), false)) \
     SELECT n.nspname::text, pg_get_userbyid(n.nspowner)::text, \
       n.nspowner IN (SELECT oid FROM trusted), \
       NOT EXISTS (SELECT FROM pg_class AS c WHERE c.relnamespace = n.oid \
         AND c.relname IN ('job', 'lane', 'epoch', 'file', 'doomed') \
         AND (c.relkind <> 'r' OR c.relowner NOT IN (SELECT oid FROM trusted) OR c.relrowsecurity \
           OR EXISTS (SELECT FROM pg_trigger AS t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal) \
           OR EXISTS (SELECT FROM pg_rewrite AS w WHERE w.ev_class = c.oid))) \
     FROM pg_namespace AS n WHERE n.nspname ~ '^windrow_[0-9]+$'";

/// Whether the journal is there.
///
/// # Errors
/// `Stop` when there is a newer one: its epochs would be unknown to this program. `Retry` when a
/// schema of its name is somebody else's, or was tampered with.
pub(super) async fn find(db: &Session) -> Result<bool, CatalogError> {
    let mut rows = db.query(FIND, args![db.hive_schema()]).await?;
    let ours = format!("windrow_{VERSION}");
    for row in &rows {
        let (name, owner): (&str, &str) = (row.get(0), row.get(1));
        if name == ours && !row.get::<_, bool>(2) {
            return Err(db.retry(format_args!(
                "the schema {name} belongs to \"{owner}\", who may not write Hive's tables, so \
                 it is not taken for windrow's; if it is, run ALTER SCHEMA {name} OWNER TO \"{}\" \
                 and the same for its tables, else ALTER SCHEMA {name} RENAME TO another_name",
                db.user()
            )));
        }
        if name == ours && !row.get::<_, bool>(3) {
            return Err(db.retry(format_args!(
                "a table in the schema {name} has a trigger, a rule, row security or an owner who \
                 may not write Hive's tables; remove that, because it would run with windrow's \
                 rights"
            )));
        }
    }
    // A newer journal that nobody trusted has made is none.
    rows.retain(|row| row.get(2));
    let version = |row: &Row| {
        row.get::<_, &str>(0)["windrow_".len()..]
            .parse::<u64>()
            .unwrap_or(u64::MAX)
    };
    let versions: Vec<u64> = rows.iter().map(version).collect();
    match versions.iter().max() {
        Some(newest) if *newest > VERSION => Err(db.stop(format_args!(
            "the catalog has a newer journal, windrow_{newest}, and this windrow writes \
             windrow_{VERSION}; upgrade it"
        ))),
        _ => Ok(versions.contains(&VERSION)),
    }
}

/// Makes the journal if it is not there. When several windrows begin at once, one of them does.
///
/// # Errors
/// `Retry` with [`Cause::NoCreate`] while the user may not make a schema in this database.
pub(super) async fn make(db: &mut Session) -> Result<(), CatalogError> {
    db.begin().await?;
    db.batch("SELECT pg_advisory_xact_lock(7595448412730)")
        .await?;
    if !find(db).await? {
        // Asked first, because the server's own refusal comes in whatever language it is set to.
        let row = db
            .query_one(
                "SELECT has_database_privilege(current_database(), 'CREATE'), \
                   current_database()::text",
                args![],
            )
            .await?;
        if !row.get::<_, bool>(0) {
            let why = format!(
                "no right to make windrow's own schema; \
                 grant the user \"{}\" CREATE on the database \"{}\"",
                db.user(),
                row.get::<_, &str>(1)
            );
            return Err(db.retry_for(Cause::NoCreate, why));
        }
        db.batch(SCHEMA).await?;
        let row = db.query_one(ROLES_LET_IN, args![]).await?;
        if let Some(roles) = row.get::<_, Option<&str>>(0) {
            db.batch(&format!(
                "GRANT USAGE ON SCHEMA windrow_1 TO {roles}; \
                 GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA windrow_1 TO {roles}"
            ))
            .await?;
        }
    }
    db.commit(Lost::Again).await
}

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
        let text = db.read::<Option<&str>>(&row, 5, "windrow_1.job.checkpoint")?;
        let epoch = db.read_count_opt(&row, 7, "windrow_1.job.checkpoint_epoch")?;
        let checkpoints = match (text, epoch) {
            (Some(text), Some(epoch)) => {
                from_json::<KeptCheckpoints>(db, "windrow_1.job.checkpoint", text)?.at(epoch)
            }
            _ => Checkpoints::default(),
        };
        let term = db.read_count(&row, 0, "windrow_1.job.owner_epoch")?;
        let owner_id = db.read(&row, 1, "windrow_1.job.owner_id")?;
        let facts = JobFacts {
            // The row is made a moment before its first owner is entered.
            owner: (term > 0).then_some(Owner { term, owner_id }),
            owner_name: db.read(&row, 2, "windrow_1.job.owner_name")?,
            lease_until: db
                .read::<Option<i64>>(&row, 3, "windrow_1.job.lease_until")?
                .map(DbTime),
            last_epoch: db.read_count_opt(&row, 4, "windrow_1.job.last_epoch")?,
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
                "SELECT partition, next_offset FROM windrow_1.lane \
                 WHERE database = $1 AND \"table\" = $2 ORDER BY partition FOR UPDATE",
                args![*database, *table],
            )
            .await?;
        for row in &lanes {
            let partition = db.read(row, 0, "windrow_1.lane.partition")?;
            let next = db.read(row, 1, "windrow_1.lane.next_offset")?;
            facts.next_offsets.insert(partition, next);
        }
        let doomed = db
            .query(
                "SELECT key FROM windrow_1.doomed \
                 WHERE database = $1 AND \"table\" = $2 AND key = ANY($3) ORDER BY key",
                args![*database, *table, commit.objects()],
            )
            .await?;
        facts.doomed = doomed
            .iter()
            .map(|row| db.read(row, 0, "windrow_1.doomed.key"))
            .collect::<Result<_, _>>()?;
        if let Some(last) = facts.last_epoch {
            facts.last_digest = self.epoch(last).await?.map(|last| last.digest);
        }
        let retired: Vec<&str> = commit.retired.iter().map(|file| &*file.key).collect();
        if !retired.is_empty() {
            let live = db
                .query(
                    "SELECT key FROM windrow_1.file WHERE database = $1 AND \"table\" = $2 \
                     AND retired_at IS NULL AND key = ANY($3)",
                    args![*database, *table, retired],
                )
                .await?;
            facts.live = live
                .iter()
                .map(|row| db.read(row, 0, "windrow_1.file.key"))
                .collect::<Result<_, _>>()?;
        }
        Ok(())
    }

    /// What is committed under this number.
    pub(super) async fn epoch(&self, epoch: u64) -> Result<Option<CommittedEpoch>, CatalogError> {
        let (db, TableName { database, table }) = (self.db, self.name);
        let row = db
            .query_opt(
                "SELECT digest, floor(extract(epoch FROM committed_at) * 1000)::bigint \
                 FROM windrow_1.epoch WHERE database = $1 AND \"table\" = $2 AND epoch = $3",
                args![*database, *table, to_bigint(epoch)],
            )
            .await?;
        row.map(|row| {
            Ok(CommittedEpoch {
                digest: db.read(&row, 0, "windrow_1.epoch.digest")?,
                committed_at: DbTime(db.read(&row, 1, "windrow_1.epoch.committed_at")?),
            })
        })
        .transpose()
    }

    /// What epoch 0 said of the table.
    pub(super) async fn genesis(&self) -> Result<Genesis, CatalogError> {
        let (db, TableName { database, table }) = (self.db, self.name);
        let row = db
            .query_one(
                "SELECT COALESCE(genesis::text, '') FROM windrow_1.job \
                 WHERE database = $1 AND \"table\" = $2",
                args![*database, *table],
            )
            .await?;
        from_json(
            db,
            "windrow_1.job.genesis",
            db.read(&row, 0, "windrow_1.job.genesis")?,
        )
    }
}

/// The table of a file, by what the column `kind` says.
pub(super) fn kind_of_word(word: &str) -> TableKind {
    TableKind::ALL
        .into_iter()
        .find(|kind| kind.word() == word)
        .unwrap_or(TableKind::Chunks)
}

/// A row of `file` that begins with these columns: epoch, date, chunk, key, bytes, rows, sha256,
/// first_window, last_window.
pub(super) fn committed_file(
    db: &Session,
    kind: TableKind,
    row: &Row,
) -> Result<CommittedFile, CatalogError> {
    let window = |i: usize, name: &str| Ok(db.read::<Option<i64>>(row, i, name)?.map(EventTime));
    let file = NewFile {
        kind: match kind {
            TableKind::Late => FileKind::Late,
            TableKind::Rejects => FileKind::Rejects,
            TableKind::View | TableKind::Chunks => FileKind::Rows {
                date: db.read(row, 1, "windrow_1.file.date")?,
            },
        },
        chunk: db.read(row, 2, "windrow_1.file.chunk")?,
        key: db.read(row, 3, "windrow_1.file.key")?,
        bytes: db.read_count(row, 4, "windrow_1.file.bytes")?,
        rows: db.read_count(row, 5, "windrow_1.file.rows")?,
        sha256: db.read(row, 6, "windrow_1.file.sha256")?,
        first_window: window(7, "windrow_1.file.first_window")?,
        last_window: window(8, "windrow_1.file.last_window")?,
        level: Level::Commit,
        as_of: None,
    };
    Ok(CommittedFile {
        epoch: db.read_count(row, 0, "windrow_1.file.epoch")?,
        file,
    })
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
            "cannot read {what}: {error}; \
             was it written by another version of windrow?"
        ))
    })
}

/// A count as PostgreSQL's bigint.
pub(super) fn to_bigint(n: u64) -> i64 {
    i64::try_from(n).expect("counts stay below 2^63")
}
