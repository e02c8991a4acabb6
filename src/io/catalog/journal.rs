//! The catalog in the metastore's own PostgreSQL: the ledger in schema `windrow_1`, leases, commits, and with each
//! commit Hive's rows in the same transaction. What Hive's rows are is in `hive`.
//!
//! Whatever must not happen twice holds the table's row of `windrow_1.job` locked: taking the table, a commit, dooming
//! keys. So each of them sees what the one before did, and an old owner's transaction ends before a new owner's begins.

use super::answers::{CommittedFile, Files, Renewed, TableInfo, Totals};
use super::hive::{self, Hive};
use super::session::{Lost, PgConfig, Session, args};
use std::fmt;
use tokio_postgres::Row;
use windrow_core::table::commit::{
    Acquired, CatalogError, CheckpointAt, Commit, FileKind, Genesis, Head, NewFile, Outcome, Owner,
};
use windrow_core::table::hive::{TableKind, TableName};
use windrow_core::values::cause::Cause;
use windrow_core::values::decision::Decision;
use windrow_core::values::time::{DbTime, EventTime};

/// The ledger. Its version is in its name: a newer one is made beside it, as later users may not alter what earlier
/// ones made.
///
/// It is open to PUBLIC: each new relation comes with a new role whose name nobody can know now, and the ledger must
/// outlive them all. Who may reach it is decided by who may connect to the database. `json` and not `jsonb`, which refuses
/// texts that hold U+0000.
const LEDGER: &str = r#"
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
GRANT USAGE ON SCHEMA windrow_1 TO PUBLIC;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA windrow_1 TO PUBLIC;
"#;

/// The number in the name of the ledger that this program writes.
const LEDGER_VERSION: u64 = 1;

/// PostgreSQL's clock in milliseconds.
const NOW_MS: &str = "floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint";

/// Keys handed out for deletion at a time.
const DOOMED_MAX: i64 = 1000;

/// The catalog of one table. It connects when it must, and again after each error.
pub struct Metastore {
    config: PgConfig,
    name: TableName,
    link: Option<Link>,
}

/// A connection and what was learned over it.
struct Link {
    db: Session,
    hive: Hive,
    /// The ledger's schema is there.
    ledger: bool,
}

impl fmt::Debug for Metastore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Metastore({:?}, {})", self.config, self.name)
    }
}

impl Metastore {
    /// Nothing is connected yet.
    #[must_use]
    pub fn new(config: PgConfig, name: TableName) -> Self {
        Self {
            config,
            name,
            link: None,
        }
    }

    /// Goes on with another login or place, from the next call on.
    pub fn set_config(&mut self, config: PgConfig) {
        self.config = config;
        self.link = None;
    }

    /// The connection, taken out of `self`: it comes back only when all went well, so that whatever is left half-done is
    /// rolled back with it.
    async fn link(&mut self, doing: &str) -> Result<Link, CatalogError> {
        let doing = format!("{doing} table \"{}\"", self.name);
        if let Some(mut link) = self.link.take().filter(|link| !link.db.is_closed()) {
            link.db.doing(&doing);
            return Ok(link);
        }
        let db = Session::connect(&self.config, &doing).await?;
        let ledger = find_ledger(&db).await?;
        Ok(Link {
            db,
            hive: Hive::default(),
            ledger,
        })
    }

    /// As [`Metastore::link`], for what only an owner does.
    async fn owned(&mut self, doing: &str) -> Result<Link, CatalogError> {
        let link = self.link(doing).await?;
        if link.ledger {
            return Ok(link);
        }
        Err(link
            .db
            .fenced("the ledger is gone; was another database restored?"))
    }

    pub(super) async fn acquire(
        &mut self,
        who: &str,
        owner_id: &str,
        lease_ms: u64,
    ) -> Result<Acquired, CatalogError> {
        let mut link = self.link("cannot take").await?;
        link.hive.check_ready(&link.db).await?;
        make_ledger(&mut link).await?;
        link.db.begin().await?;
        let acquired = self.acquire_in(&link, who, owner_id, lease_ms).await?;
        link.db.commit(Lost::Again).await?;
        self.link = Some(link);
        Ok(acquired)
    }

    async fn acquire_in(
        &self,
        link: &Link,
        who: &str,
        owner_id: &str,
        lease_ms: u64,
    ) -> Result<Acquired, CatalogError> {
        let (db, TableName { database, table }) = (&link.db, &self.name);
        db.execute(
            "INSERT INTO windrow_1.job (database, \"table\") VALUES ($1, $2) ON CONFLICT DO NOTHING",
            args![*database, *table],
        )
        .await?;
        // First without the lock: those who stand by must not be in the owner's way each time they ask.
        if let Some(held) = self.held(db, owner_id).await? {
            return Ok(held);
        }
        let job = self.lock_job(db).await?;
        if let Some(held) = self.held(db, owner_id).await? {
            return Ok(held);
        }
        if job.is_none_or(|job| job.last_epoch.is_none()) {
            link.hive.check_free(db, &self.name).await?;
        }
        let sql = format!(
            "UPDATE windrow_1.job SET owner_epoch = owner_epoch + 1, owner_id = $3, owner_name = $4, \
             lease_until = clock_timestamp() + $5 * interval '1 millisecond' \
             WHERE database = $1 AND \"table\" = $2 RETURNING owner_epoch, {NOW_MS}"
        );
        let row = db
            .query_one(&sql, args![*database, *table, owner_id, who, big(lease_ms)])
            .await?;
        let term: i64 = row.get(0);
        db.execute(
            "UPDATE windrow_1.lane SET owner_epoch = $3, owner_id = $4 WHERE database = $1 AND \"table\" = $2",
            args![*database, *table, term, owner_id],
        )
        .await?;
        let owner = Owner {
            term: count(term),
            owner_id: owner_id.to_owned(),
        };
        let head = self.head_in(db).await?.map(Box::new);
        Ok(Acquired::Ours {
            owner,
            lease_ms,
            now: DbTime(row.get(1)),
            head,
        })
    }

    /// The lease of another process, if it is not over. The clock is read by the statement itself, so after a lock that
    /// was waited for.
    async fn held(&self, db: &Session, owner_id: &str) -> Result<Option<Acquired>, CatalogError> {
        let row = db
            .query_opt(
                "SELECT owner_name, ceil(extract(epoch FROM lease_until - clock_timestamp()) * 1000)::bigint \
                 FROM windrow_1.job WHERE database = $1 AND \"table\" = $2 AND owner_id <> $3 \
                 AND lease_until > clock_timestamp()",
                args![self.name.database, self.name.table, owner_id],
            )
            .await?;
        Ok(row.map(|row| Acquired::Held {
            by: row.get(0),
            left_ms: u64::try_from(row.get::<_, i64>(1)).unwrap_or(0),
        }))
    }

    pub(super) async fn renew(
        &mut self,
        owner: &Owner,
        lease_ms: u64,
    ) -> Result<Renewed, CatalogError> {
        let mut link = self.owned("cannot renew the lease of").await?;
        link.db.begin().await?;
        let sql = format!(
            "UPDATE windrow_1.job SET lease_until = clock_timestamp() + $5 * interval '1 millisecond' \
             WHERE database = $1 AND \"table\" = $2 AND owner_epoch = $3 AND owner_id = $4 RETURNING paused, {NOW_MS}"
        );
        let TableName { database, table } = &self.name;
        let row = link
            .db
            .query_opt(
                &sql,
                args![
                    *database,
                    *table,
                    big(owner.term),
                    owner.owner_id,
                    big(lease_ms)
                ],
            )
            .await?;
        let Some(row) = row else {
            return Err(link.db.fenced("another owner has it"));
        };
        link.db.commit(Lost::Again).await?;
        self.link = Some(link);
        Ok(Renewed {
            paused: row.get(0),
            now: DbTime(row.get(1)),
        })
    }

    pub(super) async fn release(&mut self, owner: &Owner) -> Result<(), CatalogError> {
        let mut link = self.link("cannot give back").await?;
        if !link.ledger {
            return Ok(());
        }
        link.db.begin().await?;
        link.db
            .execute(
                "UPDATE windrow_1.job SET lease_until = NULL \
                 WHERE database = $1 AND \"table\" = $2 AND owner_epoch = $3 AND owner_id = $4",
                args![
                    self.name.database,
                    self.name.table,
                    big(owner.term),
                    owner.owner_id
                ],
            )
            .await?;
        link.db.commit(Lost::Again).await?;
        self.link = Some(link);
        Ok(())
    }

    pub(super) async fn commit(&mut self, commit: &Commit) -> Result<DbTime, CatalogError> {
        let mut link = self
            .owned(&format!("cannot commit epoch {} of", commit.epoch))
            .await?;
        link.hive.check_ready(&link.db).await?;
        let creates = commit.genesis.is_some();
        link.hive
            .reserve(&mut link.db, &self.name, creates, commit.files.len())
            .await?;
        link.db.begin().await?;
        let committed_at = self.commit_in(&mut link, commit).await?;
        link.db.commit(Lost::Ask).await?;
        self.link = Some(link);
        Ok(committed_at)
    }

    async fn commit_in(&self, link: &mut Link, commit: &Commit) -> Result<DbTime, CatalogError> {
        let Link { db, hive, .. } = link;
        let job = self.lock_job(db).await?;
        let job = job.ok_or_else(|| {
            db.fenced("the ledger does not know the table; was another database restored?")
        })?;
        job.check_owner(db, &commit.owner)?;
        if let Some(committed_at) = self.check_epoch(db, &job, commit).await? {
            return Ok(committed_at);
        }
        self.check_lanes(db, commit).await?;
        self.check_doomed(db, commit).await?;
        let genesis = match &commit.genesis {
            Some(genesis) => {
                hive.create(db, &self.name, genesis).await?;
                genesis.clone()
            }
            None => self.genesis(db).await?,
        };
        let tables = hive.check_tables(db, &self.name, &genesis).await?;
        let part_ids = hive
            .add_partitions(db, &genesis.warehouse, &tables, &self.name, &commit.files)
            .await?;
        self.insert_files(db, commit, part_ids).await?;
        self.update_lanes(db, commit).await?;
        self.update_job(db, commit, job.checkpoint.as_ref()).await?;
        self.insert_epoch(db, commit).await
    }

    /// Locks the table's row until the transaction ends. `None` where there is none.
    async fn lock_job(&self, db: &Session) -> Result<Option<Job>, CatalogError> {
        let row = db
            .query_opt(
                "SELECT owner_epoch, owner_id, owner_name, last_epoch, checkpoint::text FROM windrow_1.job \
                 WHERE database = $1 AND \"table\" = $2 FOR UPDATE",
                args![self.name.database, self.name.table],
            )
            .await?;
        let Some(row) = row else { return Ok(None) };
        let checkpoint = row
            .get::<_, Option<&str>>(4)
            .map(|text| parse(db, "checkpoint", text))
            .transpose()?;
        Ok(Some(Job {
            owner: Owner {
                term: count(row.get(0)),
                owner_id: row.get(1),
            },
            owner_name: row.get(2),
            last_epoch: row.get::<_, Option<i64>>(3).map(count),
            checkpoint,
        }))
    }

    /// Whether `commit` goes on from the last epoch. Answers when it was committed if it is there already.
    async fn check_epoch(
        &self,
        db: &Session,
        job: &Job,
        commit: &Commit,
    ) -> Result<Option<DbTime>, CatalogError> {
        let next = job.last_epoch.map_or(0, |last| last + 1);
        if commit.epoch > next {
            return Err(db.fenced(format_args!(
                "the ledger's next epoch is {next}; was an older database restored? Reading it again"
            )));
        }
        if commit.epoch < next {
            return match self.epoch(db, commit.epoch).await? {
                Some((digest, committed_at)) if digest == commit.digest => Ok(Some(committed_at)),
                _ => Err(db.fenced("this epoch is there with other contents")),
            };
        }
        if commit.genesis.is_some() != (next == 0) {
            return Err(db.stop(
                "epoch 0 and only epoch 0 says what the table is; this is a mistake of windrow's",
            ));
        }
        Ok(None)
    }

    async fn epoch(
        &self,
        db: &Session,
        epoch: u64,
    ) -> Result<Option<(String, DbTime)>, CatalogError> {
        let row = db
            .query_opt(
                "SELECT digest, floor(extract(epoch FROM committed_at) * 1000)::bigint FROM windrow_1.epoch \
                 WHERE database = $1 AND \"table\" = $2 AND epoch = $3",
                args![self.name.database, self.name.table, big(epoch)],
            )
            .await?;
        Ok(row.map(|row| (row.get(0), DbTime(row.get(1)))))
    }

    /// Each topic partition must be this owner's and go on where the last commit left it.
    async fn check_lanes(&self, db: &Session, commit: &Commit) -> Result<(), CatalogError> {
        let rows = db
            .query(
                "SELECT partition, next_offset, owner_epoch, owner_id FROM windrow_1.lane \
                 WHERE database = $1 AND \"table\" = $2 ORDER BY partition FOR UPDATE",
                args![self.name.database, self.name.table],
            )
            .await?;
        for row in &rows {
            let partition: i32 = row.get(0);
            let Some(lane) = commit.lanes.get(&partition) else {
                continue;
            };
            let owner = Owner {
                term: count(row.get(2)),
                owner_id: row.get(3),
            };
            if owner != commit.owner {
                return Err(db.fenced(format_args!(
                    "another owner has topic partition {partition}"
                )));
            }
            let next_offset: i64 = row.get(1);
            if lane.from != next_offset {
                return Err(db.fenced(format_args!(
                    "topic partition {partition} goes on from offset {}, but the ledger is at {next_offset}",
                    lane.from
                )));
            }
        }
        Ok(())
    }

    /// A key that may be deleted at any moment must not become part of the table.
    async fn check_doomed(&self, db: &Session, commit: &Commit) -> Result<(), CatalogError> {
        let doomed = db
            .query_opt(
                "SELECT key FROM windrow_1.doomed WHERE database = $1 AND \"table\" = $2 AND key = ANY($3) LIMIT 1",
                args![self.name.database, self.name.table, commit.objects()],
            )
            .await?;
        match doomed {
            Some(row) => {
                Err(db.fenced(format_args!("key \"{}\" is doomed", row.get::<_, &str>(0))))
            }
            None => Ok(()),
        }
    }

    async fn genesis(&self, db: &Session) -> Result<Genesis, CatalogError> {
        let row = db
            .query_one(
                "SELECT genesis::text FROM windrow_1.job WHERE database = $1 AND \"table\" = $2",
                args![self.name.database, self.name.table],
            )
            .await?;
        parse(
            db,
            "epoch 0",
            row.get::<_, Option<&str>>(0).unwrap_or_default(),
        )
    }

    async fn insert_files(
        &self,
        db: &Session,
        commit: &Commit,
        part_ids: Vec<i64>,
    ) -> Result<(), CatalogError> {
        if commit.files.is_empty() {
            return Ok(());
        }
        let files = &commit.files;
        let texts = |f: &dyn Fn(&NewFile) -> String| files.iter().map(f).collect::<Vec<_>>();
        let numbers =
            |f: &dyn Fn(&NewFile) -> u64| files.iter().map(|file| big(f(file))).collect::<Vec<_>>();
        let windows = |f: &dyn Fn(&NewFile) -> Option<EventTime>| {
            files
                .iter()
                .map(|file| f(file).map(|time| time.0))
                .collect::<Vec<_>>()
        };
        db.execute(
            "INSERT INTO windrow_1.file (database, \"table\", epoch, key, kind, date, chunk, rows, bytes, sha256, \
               first_window, last_window, part_id) \
             SELECT $1, $2, $3, key, kind, date, chunk, rows, bytes, sha256, first_window, last_window, part_id \
             FROM unnest($4, $5, $6, $7, $8, $9, $10, $11, $12, $13) \
               AS f (key, kind, date, chunk, rows, bytes, sha256, first_window, last_window, part_id)",
            args![
                self.name.database,
                self.name.table,
                big(commit.epoch),
                texts(&|f| f.key.clone()),
                texts(&|f| TableKind::of(&f.kind).word().to_owned()),
                texts(&|f| f.kind.date().to_owned()),
                texts(&|f| f.chunk.clone()),
                numbers(&|f| f.rows),
                numbers(&|f| f.bytes),
                texts(&|f| f.sha256.clone()),
                windows(&|f| f.first_window),
                windows(&|f| f.last_window),
                part_ids,
            ],
        )
        .await?;
        Ok(())
    }

    async fn update_lanes(&self, db: &Session, commit: &Commit) -> Result<(), CatalogError> {
        // A topic partition that read nothing keeps its row; at its first commit each gets one.
        let lanes = || commit.lanes.values();
        db.execute(
            "INSERT INTO windrow_1.lane AS l \
               (database, \"table\", partition, owner_epoch, owner_id, next_offset, leader_epoch) \
             SELECT $1, $2, partition, $3, $4, next_offset, leader_epoch \
             FROM unnest($5, $6, $7) AS n (partition, next_offset, leader_epoch) \
             ON CONFLICT (database, \"table\", partition) DO UPDATE \
             SET next_offset = EXCLUDED.next_offset, leader_epoch = EXCLUDED.leader_epoch \
             WHERE (l.next_offset, l.leader_epoch) <> (EXCLUDED.next_offset, EXCLUDED.leader_epoch)",
            args![
                self.name.database,
                self.name.table,
                big(commit.owner.term),
                commit.owner.owner_id,
                commit.lanes.keys().copied().collect::<Vec<i32>>(),
                lanes().map(|lane| lane.to).collect::<Vec<i64>>(),
                lanes().map(|lane| lane.leader_epoch).collect::<Vec<i32>>(),
            ],
        )
        .await?;
        Ok(())
    }

    async fn update_job(
        &self,
        db: &Session,
        commit: &Commit,
        superseded: Option<&CheckpointAt>,
    ) -> Result<(), CatalogError> {
        let TableName { database, table } = &self.name;
        let epoch = big(commit.epoch);
        db.execute(
            "UPDATE windrow_1.job SET last_epoch = $3, genesis = COALESCE($4::json, genesis) \
             WHERE database = $1 AND \"table\" = $2",
            args![*database, *table, epoch, commit.genesis.as_ref().map(text)],
        )
        .await?;
        let Some(checkpoint) = &commit.checkpoint else {
            return Ok(());
        };
        db.execute(
            "UPDATE windrow_1.job SET checkpoint_epoch = $3, checkpoint = $4::json \
             WHERE database = $1 AND \"table\" = $2",
            args![*database, *table, epoch, text(checkpoint)],
        )
        .await?;
        match superseded {
            Some(old @ CheckpointAt::Object(key)) if old != checkpoint => {
                self.insert_doomed(db, &[key.as_str()]).await
            }
            _ => Ok(()),
        }
    }

    async fn insert_doomed(&self, db: &Session, keys: &[&str]) -> Result<(), CatalogError> {
        db.execute(
            "INSERT INTO windrow_1.doomed (database, \"table\", key, doomed_at) \
             SELECT $1, $2, key, clock_timestamp() FROM unnest($3) AS key ON CONFLICT DO NOTHING",
            args![self.name.database, self.name.table, keys.to_vec()],
        )
        .await?;
        Ok(())
    }

    async fn insert_epoch(&self, db: &Session, commit: &Commit) -> Result<DbTime, CatalogError> {
        // The checkpoint is kept once, with the job: it is the one large thing that only the newest epoch needs.
        let said = Commit {
            checkpoint: None,
            ..commit.clone()
        };
        let row = db
            .query_one(
                "INSERT INTO windrow_1.epoch \
                   (database, \"table\", epoch, owner_epoch, digest, manifest, committed_at, decisions, said) \
                 VALUES ($1, $2, $3, $4, $5, $6, clock_timestamp(), $7, $8::json) \
                 RETURNING floor(extract(epoch FROM committed_at) * 1000)::bigint",
                args![
                    self.name.database,
                    self.name.table,
                    big(commit.epoch),
                    big(commit.owner.term),
                    commit.digest,
                    commit.manifest,
                    i32::try_from(commit.decisions.len()).unwrap_or(i32::MAX),
                    text(&said),
                ],
            )
            .await?;
        Ok(DbTime(row.get(0)))
    }

    pub(super) async fn restore(&mut self, owner: &Owner) -> Result<(), CatalogError> {
        let mut link = self.owned("cannot restore").await?;
        link.hive.check_ready(&link.db).await?;
        let files = self.all_files(&link.db).await?.len();
        link.hive
            .reserve(&mut link.db, &self.name, true, files)
            .await?;
        link.db.begin().await?;
        self.check_owner(&link.db, owner).await?;
        let genesis = self.genesis(&link.db).await?;
        let files = self.all_files(&link.db).await?;
        let changed = link
            .hive
            .restore(&link.db, &self.name, &genesis, &files)
            .await?;
        let (ids, keys): (Vec<i64>, Vec<String>) = changed.into_iter().unzip();
        link.db
            .execute(
                "UPDATE windrow_1.file AS f SET part_id = n.id FROM unnest($3, $4) AS n (id, key) \
                 WHERE f.database = $1 AND f.\"table\" = $2 AND f.key = n.key",
                args![self.name.database, self.name.table, ids, keys],
            )
            .await?;
        link.db.commit(Lost::Again).await?;
        self.link = Some(link);
        Ok(())
    }

    /// Every file that readers should see, with its table partition.
    async fn all_files(&self, db: &Session) -> Result<Vec<(i64, NewFile)>, CatalogError> {
        let rows = db
            .query(
                "SELECT epoch, date, chunk, key, bytes, rows, sha256, first_window, last_window, part_id, kind \
                 FROM windrow_1.file WHERE database = $1 AND \"table\" = $2 AND retired_at IS NULL ORDER BY epoch, key",
                args![self.name.database, self.name.table],
            )
            .await?;
        let kind = |word: &str| {
            TableKind::ALL
                .into_iter()
                .find(|kind| kind.word() == word)
                .unwrap_or(TableKind::Chunks)
        };
        Ok(rows
            .iter()
            .map(|row| (row.get(9), committed_file(kind(row.get(10)), row).file))
            .collect())
    }

    pub(super) async fn outcome(
        &mut self,
        _owner: &Owner,
        epoch: u64,
    ) -> Result<Outcome, CatalogError> {
        // The old connection may be the reason why we have to ask; and it must not hold the row itself.
        self.link = None;
        let mut link = self
            .link(&format!("cannot learn what became of epoch {epoch} of"))
            .await?;
        if !link.ledger {
            self.link = Some(link);
            return Ok(Outcome::Absent);
        }
        link.db.begin().await?;
        // A commit holds this lock from its beginning: once we have it, the old transaction has ended, whoever owns
        // the table now.
        self.lock_job(&link.db).await?;
        let found = self.epoch(&link.db, epoch).await?;
        link.db.commit(Lost::Again).await?;
        self.link = Some(link);
        Ok(match found {
            Some((digest, committed_at)) => Outcome::Committed {
                digest,
                committed_at,
            },
            None => Outcome::Absent,
        })
    }

    pub(super) async fn head(&mut self) -> Result<Option<Head>, CatalogError> {
        let mut link = self.link("cannot read").await?;
        if !link.ledger {
            return Ok(None);
        }
        link.db.begin().await?;
        let head = self.head_in(&link.db).await?;
        link.db.commit(Lost::Again).await?;
        self.link = Some(link);
        Ok(head)
    }

    /// All is read for the epoch that the job's row names, so that a commit in between does not show in a part of it.
    async fn head_in(&self, db: &Session) -> Result<Option<Head>, CatalogError> {
        let TableName { database, table } = &self.name;
        let job = db
            .query_opt(
                "SELECT last_epoch, genesis::text, checkpoint_epoch, checkpoint::text, paused FROM windrow_1.job \
                 WHERE database = $1 AND \"table\" = $2 AND last_epoch IS NOT NULL",
                args![*database, *table],
            )
            .await?;
        let Some(job) = job else { return Ok(None) };
        let last_epoch: i64 = job.get(0);
        let checkpoint_epoch: Option<i64> = job.get(2);
        let row = db
            .query_one(
                "SELECT said::text, floor(extract(epoch FROM committed_at) * 1000)::bigint FROM windrow_1.epoch \
                 WHERE database = $1 AND \"table\" = $2 AND epoch = $3",
                args![*database, *table, last_epoch],
            )
            .await?;
        let mut last: Commit = parse(db, "epoch", row.get(0))?;
        let checkpoint: Option<CheckpointAt> = job
            .get::<_, Option<&str>>(3)
            .map(|text| parse(db, "checkpoint", text))
            .transpose()?;
        if checkpoint_epoch == Some(last_epoch) {
            last.checkpoint.clone_from(&checkpoint);
        }
        let mut decisions: Vec<Decision> = Vec::new();
        let rows = db
            .query(
                "SELECT (said->'decisions')::text FROM windrow_1.epoch WHERE database = $1 AND \"table\" = $2 \
                 AND epoch > $3 AND epoch <= $4 AND decisions > 0 ORDER BY epoch",
                args![*database, *table, checkpoint_epoch.unwrap_or(-1), last_epoch],
            )
            .await?;
        for row in &rows {
            decisions.extend(parse::<Vec<Decision>>(db, "decisions", row.get(0))?);
        }
        Ok(Some(Head {
            genesis: parse(db, "epoch 0", row_text(&job, 1))?,
            last,
            committed_at: DbTime(row.get(1)),
            checkpoint: checkpoint_epoch.map(count).zip(checkpoint),
            decisions,
            paused: job.get(4),
        }))
    }

    pub(super) async fn files(
        &mut self,
        kind: TableKind,
        limit: u32,
    ) -> Result<Files, CatalogError> {
        let mut link = self.link("cannot list files of").await?;
        if !link.ledger {
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
                "SELECT count(*), COALESCE(sum(bytes), 0)::bigint, COALESCE(sum(rows), 0)::bigint, min(first_window), \
                   max(last_window) FROM windrow_1.file \
                 WHERE database = $1 AND \"table\" = $2 AND kind = $3 AND retired_at IS NULL",
                args![*database, *table, kind.word()],
            )
            .await?;
        let rows = link
            .db
            .query(
                "SELECT epoch, date, chunk, key, bytes, rows, sha256, first_window, last_window FROM windrow_1.file \
                 WHERE database = $1 AND \"table\" = $2 AND kind = $3 AND retired_at IS NULL \
                 ORDER BY epoch DESC, date DESC, chunk DESC LIMIT $4",
                args![*database, *table, kind.word(), i64::from(limit)],
            )
            .await?;
        link.db.commit(Lost::Again).await?;
        self.link = Some(link);
        Ok(Files {
            totals: Totals {
                files: count(totals.get(0)),
                bytes: count(totals.get(1)),
                rows: count(totals.get(2)),
                first_window: totals.get::<_, Option<i64>>(3).map(EventTime),
                last_window: totals.get::<_, Option<i64>>(4).map(EventTime),
            },
            newest: rows.iter().map(|row| committed_file(kind, row)).collect(),
        })
    }

    pub(super) async fn tables(&mut self) -> Result<Vec<TableInfo>, CatalogError> {
        let mut link = self.link("cannot list tables beside").await?;
        if !link.ledger {
            return Ok(Vec::new());
        }
        link.db.begin().await?;
        let rows = link
            .db
            .query(
                "SELECT j.database, j.\"table\", CASE WHEN j.lease_until > clock_timestamp() THEN j.owner_name END, \
                   j.last_epoch, floor(extract(epoch FROM e.committed_at) * 1000)::bigint, j.paused \
                 FROM windrow_1.job AS j LEFT JOIN windrow_1.epoch AS e \
                   ON e.database = j.database AND e.\"table\" = j.\"table\" AND e.epoch = j.last_epoch \
                 ORDER BY j.database, j.\"table\"",
                args![],
            )
            .await?;
        link.db.commit(Lost::Again).await?;
        self.link = Some(link);
        let info = |row: &Row| TableInfo {
            name: TableName {
                database: row.get(0),
                table: row.get(1),
            },
            held_by: row.get(2),
            last: row
                .get::<_, Option<i64>>(3)
                .map(count)
                .zip(row.get::<_, Option<i64>>(4).map(DbTime)),
            paused: row.get(5),
        };
        Ok(rows.iter().map(info).collect())
    }

    pub(super) async fn set_paused(&mut self, paused: bool, by: &str) -> Result<(), CatalogError> {
        let mut link = self
            .link(if paused {
                "cannot pause"
            } else {
                "cannot resume"
            })
            .await?;
        let mut touched = 0;
        if link.ledger {
            link.db.begin().await?;
            touched = link
                .db
                .execute(
                    "UPDATE windrow_1.job SET paused = $3, paused_by = $4, paused_at = clock_timestamp() \
                     WHERE database = $1 AND \"table\" = $2",
                    args![self.name.database, self.name.table, paused, by],
                )
                .await?;
            link.db.commit(Lost::Again).await?;
        }
        if touched == 0 {
            return Err(link
                .db
                .stop("windrow has no such table here; see windrow tables"));
        }
        self.link = Some(link);
        Ok(())
    }

    pub(super) async fn warehouse(
        &mut self,
        database: &str,
    ) -> Result<Option<String>, CatalogError> {
        let mut link = self.link("cannot look up the warehouse for").await?;
        link.hive.check_ready(&link.db).await?;
        let location = link.hive.database_location(&link.db, database).await?;
        self.link = Some(link);
        Ok(location)
    }

    pub(super) async fn init_metastore(&mut self) -> Result<(), CatalogError> {
        let mut link = self.link("cannot make Hive's schema for").await?;
        hive::init(&mut link.db).await?;
        self.link = Some(link);
        Ok(())
    }

    pub(super) async fn doom(
        &mut self,
        owner: &Owner,
        keys: &[String],
    ) -> Result<Vec<String>, CatalogError> {
        let mut link = self.owned("cannot doom keys of").await?;
        link.db.begin().await?;
        let doomed = self.doom_in(&link.db, owner, keys).await?;
        link.db.commit(Lost::Again).await?;
        self.link = Some(link);
        Ok(doomed)
    }

    async fn doom_in(
        &self,
        db: &Session,
        owner: &Owner,
        keys: &[String],
    ) -> Result<Vec<String>, CatalogError> {
        self.check_owner(db, owner).await?;
        let rows = db
            .query(
                "SELECT DISTINCT key FROM unnest($3) AS key \
                 WHERE NOT EXISTS (SELECT FROM windrow_1.file AS f \
                     WHERE f.database = $1 AND f.\"table\" = $2 AND f.key = key.key) \
                 AND NOT EXISTS (SELECT FROM windrow_1.epoch AS e \
                     WHERE e.database = $1 AND e.\"table\" = $2 AND e.manifest = key.key) \
                 AND NOT EXISTS (SELECT FROM windrow_1.job AS j \
                     WHERE j.database = $1 AND j.\"table\" = $2 AND j.checkpoint->>'object' = key.key) \
                 ORDER BY key",
                args![self.name.database, self.name.table, keys.to_vec()],
            )
            .await?;
        let doomed: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        self.insert_doomed(db, &doomed.iter().map(String::as_str).collect::<Vec<_>>())
            .await?;
        Ok(doomed)
    }

    async fn check_owner(&self, db: &Session, owner: &Owner) -> Result<(), CatalogError> {
        match self.lock_job(db).await? {
            Some(job) => job.check_owner(db, owner),
            None => Err(db.fenced("the ledger does not know the table")),
        }
    }

    pub(super) async fn doomed_past(&mut self, grace_ms: u64) -> Result<Vec<String>, CatalogError> {
        let mut link = self.link("cannot list doomed keys of").await?;
        if !link.ledger {
            return Ok(Vec::new());
        }
        link.db.begin().await?;
        let rows = link
            .db
            .query(
                "SELECT key FROM windrow_1.doomed WHERE database = $1 AND \"table\" = $2 \
                 AND doomed_at <= clock_timestamp() - $3 * interval '1 millisecond' ORDER BY doomed_at, key LIMIT $4",
                args![self.name.database, self.name.table, big(grace_ms), DOOMED_MAX],
            )
            .await?;
        link.db.commit(Lost::Again).await?;
        self.link = Some(link);
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    pub(super) async fn forget(
        &mut self,
        owner: &Owner,
        keys: &[String],
    ) -> Result<(), CatalogError> {
        let mut link = self.owned("cannot forget keys of").await?;
        link.db.begin().await?;
        self.check_owner(&link.db, owner).await?;
        link.db
            .execute(
                "DELETE FROM windrow_1.doomed WHERE database = $1 AND \"table\" = $2 AND key = ANY($3)",
                args![self.name.database, self.name.table, keys.to_vec()],
            )
            .await?;
        link.db.commit(Lost::Again).await?;
        self.link = Some(link);
        Ok(())
    }
}

/// The table's row, locked.
struct Job {
    owner: Owner,
    owner_name: String,
    last_epoch: Option<u64>,
    /// The one in force before this commit.
    checkpoint: Option<CheckpointAt>,
}

impl Job {
    fn check_owner(&self, db: &Session, owner: &Owner) -> Result<(), CatalogError> {
        if self.owner == *owner {
            return Ok(());
        }
        Err(db.fenced(format_args!("\"{}\" owns it now", self.owner_name)))
    }
}

/// Whether the ledger is there.
///
/// # Errors
/// `Stop` when there is a newer one: its epochs would be unknown to this program.
async fn find_ledger(db: &Session) -> Result<bool, CatalogError> {
    let rows = db
        .query(
            "SELECT nspname::text FROM pg_namespace WHERE nspname ~ '^windrow_[0-9]+$'",
            args![],
        )
        .await?;
    let version = |row: &Row| {
        row.get::<_, &str>(0)["windrow_".len()..]
            .parse::<u64>()
            .unwrap_or(u64::MAX)
    };
    let versions: Vec<u64> = rows.iter().map(version).collect();
    match versions.iter().max() {
        Some(newest) if *newest > LEDGER_VERSION => Err(db.stop(format_args!(
            "the catalog has a newer ledger, windrow_{newest}, and this windrow writes windrow_{LEDGER_VERSION}; upgrade it"
        ))),
        _ => Ok(versions.contains(&LEDGER_VERSION)),
    }
}

/// Makes the ledger if it is not there; of several windrows one does.
async fn make_ledger(link: &mut Link) -> Result<(), CatalogError> {
    if link.ledger {
        return Ok(());
    }
    link.db.begin().await?;
    link.db
        .batch("SELECT pg_advisory_xact_lock(7595448412730)")
        .await?;
    if !find_ledger(&link.db).await? {
        // Asked before, as the server's refusal comes in whatever language it is set to.
        let row = link
            .db
            .query_one(
                "SELECT has_database_privilege(current_database(), 'CREATE'), current_database()::text",
                args![],
            )
            .await?;
        if !row.get::<_, bool>(0) {
            let why = format!(
                "no right to make windrow's own schema; grant the user \"{}\" CREATE on the database \"{}\"",
                link.db.user(),
                row.get::<_, &str>(1)
            );
            return Err(link.db.retry_for(Cause::NoCreate, why));
        }
        link.db.batch(LEDGER).await?;
    }
    link.db.commit(Lost::Again).await?;
    link.ledger = true;
    Ok(())
}

fn committed_file(kind: TableKind, row: &Row) -> CommittedFile {
    let window = |i: usize| row.get::<_, Option<i64>>(i).map(EventTime);
    let file = NewFile {
        kind: match kind {
            TableKind::Late => FileKind::Late,
            TableKind::Rejects => FileKind::Rejects,
            TableKind::View | TableKind::Chunks => FileKind::Rows { date: row.get(1) },
        },
        chunk: row.get(2),
        key: row.get(3),
        bytes: count(row.get(4)),
        rows: count(row.get(5)),
        sha256: row.get(6),
        first_window: window(7),
        last_window: window(8),
    };
    CommittedFile {
        epoch: count(row.get(0)),
        file,
    }
}

fn row_text(row: &Row, i: usize) -> &str {
    row.get::<_, Option<&str>>(i).unwrap_or_default()
}

fn text(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("commits have no keys but strings and numbers")
}

fn parse<T: serde::de::DeserializeOwned>(
    db: &Session,
    what: &str,
    text: &str,
) -> Result<T, CatalogError> {
    serde_json::from_str(text).map_err(|error| {
        db.stop(format_args!(
            "cannot read the ledger's {what}: {error}; was it written by another version of windrow?"
        ))
    })
}

/// A count as PostgreSQL's bigint.
fn big(n: u64) -> i64 {
    i64::try_from(n).expect("counts stay below 2^63")
}

fn count(n: i64) -> u64 {
    u64::try_from(n).expect("counts are not negative")
}
