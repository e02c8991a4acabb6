//! What a commit says, and what a catalog answers: the values that pass between the engine and the
//! catalog. Whether a commit may be written is decided in `admit`.

use crate::table::level::Level;
use crate::table::place::{Names, Place};
use crate::values::cause::Trouble;
use crate::values::decision::Decision;
use crate::values::digest::sha256_hex;
use crate::values::ledger::{LaneLedger, TableLedger};
use crate::values::record::{EpochMark, Offset, Partition};
use crate::values::shape::Shape;
use crate::values::time::{DbTime, EventTime};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Who may commit. Another owner has another `term`. The id tells apart two processes that believe
/// to have the same term.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Owner {
    /// The number of this ownership; each new owner has a higher one.
    pub term: u64,
    /// Random, and new with every process.
    pub owner_id: String,
}

/// What is decided before the first record is read, and committed as epoch 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Genesis {
    /// The settings that shape the rows. Other values later are refused.
    pub shape: Shape,
    /// Where the files are. It is kept as text: `s3a://bucket/warehouse`, or a directory.
    pub warehouse: Place,
    /// Kafka's id of the cluster.
    pub cluster_id: String,
    /// Kafka's id of the topic; empty where the broker is too old to have one.
    pub topic_id: String,
    /// The topic partitions, and the offset at which each begins.
    pub start_offsets: BTreeMap<Partition, Offset>,
    /// A file of the table's own columns that has no rows: its path below the warehouse. It is what
    /// a table partition shows between the swap that replaced its file and its deletion.
    pub empty_file: String,
    /// The table of another job that this one goes on from; `None` for a table that windrow began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopted: Option<AdoptedTable>,
}

/// The table of a Spark Structured Streaming job, as windrow took it over. Its rows are in the
/// files of epoch 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct AdoptedTable {
    /// The directory of its files, which stay there.
    pub directory: String,
    /// The directory of the job's checkpoint.
    pub checkpoint: String,
    /// The last batch of the job whose rows are in the table.
    pub batch: u64,
    /// The job's watermark: it has written all windows that end here or earlier.
    pub through: EventTime,
    /// The next offsets that the job would have read.
    pub next_offsets: BTreeMap<Partition, Offset>,
    /// How many rows it had.
    pub rows: u64,
    /// The sum of `count` over these rows.
    pub row_count: u64,
    /// The name that its entry in Hive has now, `<table>__spark`; `None` where it had none.
    pub renamed_to: Option<String>,
}

/// Which of the four tables a file belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "table", rename_all = "kebab-case")]
pub enum FileKind {
    /// `<table>__chunks`.
    Rows {
        /// The UTC day of `window.start` of all its rows, for example `2024-09-01`.
        date: String,
    },
    /// `<table>__late`.
    Late,
    /// `<table>__rejects`.
    Rejects,
}

impl FileKind {
    /// The UTC day of the rows' window starts; empty for the side tables.
    #[must_use]
    pub fn date(&self) -> &str {
        match self {
            FileKind::Rows { date } => date,
            FileKind::Late | FileKind::Rejects => "",
        }
    }
}

/// A Parquet file that a commit shows to readers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct NewFile {
    /// The table that it belongs to.
    #[serde(flatten)]
    pub kind: FileKind,
    /// The value of the partition column `chunk`; it is unique among the files that readers see of
    /// one table. A compacted file has that of its first source, whose table partition shows it.
    pub chunk: String,
    /// How much of the table it holds.
    #[serde(default, skip_serializing_if = "Level::is_commit")]
    pub level: Level,
    /// Its path below the warehouse. The folder in it holds this file alone, and is the location of
    /// the table partition.
    pub key: String,
    /// Its size.
    pub bytes: u64,
    /// How many rows it has.
    pub rows: u64,
    /// The SHA-256 of the file, in lower-case hexadecimal.
    pub sha256: String,
    /// The least `window.start`; `None` for the side tables.
    pub first_window: Option<EventTime>,
    /// The greatest `window.start`; `None` for the side tables.
    pub last_window: Option<EventTime>,
    /// In a compacted file of a side table: when the newest commit was made that has rows in it, by
    /// the catalog's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<DbTime>,
}

/// A chunk of one of the tables: what readers see as one table partition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Chunk {
    /// The table that it is part of.
    pub kind: FileKind,
    /// The value of the partition column `chunk`.
    pub name: String,
}

impl NewFile {
    /// The chunk whose rows it holds.
    #[must_use]
    pub fn as_chunk(&self) -> Chunk {
        Chunk {
            kind: self.kind.clone(),
            name: self.chunk.clone(),
        }
    }
}

/// A file that readers no longer see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RetiredFile {
    /// The table that it belonged to.
    #[serde(flatten)]
    pub kind: FileKind,
    /// Its path below the warehouse.
    pub key: String,
    /// How many rows it has.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
}

/// What a commit says of one topic partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct LaneCommit {
    /// The `to` of the commit before. A commit that does not go on from there is refused.
    pub from: Offset,
    /// The next offset to read after this commit.
    pub to: Offset,
    /// Kafka's leader epoch of the record before `to`; -1 when it is unknown or there is no record.
    pub leader_epoch: i32,
    /// Where `leader_epoch` is unknown: the last record before `to` whose leader epoch is known.
    /// Only offsets that are never shown lie between it and `to`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch_mark: Option<EpochMark>,
    /// The watermark at `to`; `None` while no record and no decision has set one.
    pub watermark: Option<EventTime>,
    /// Its ledger since the start offset, up to `to`.
    pub ledger: LaneLedger,
    /// The sum of its counts in windows that are not final: open, or closed in this lane alone.
    /// It is what a loss may take away.
    #[serde(default)]
    pub held: u64,
    /// The greatest event time that moved its watermark so far.
    #[serde(default)]
    pub newest: Option<EventTime>,
}

impl LaneCommit {
    /// The last record before `to` whose leader epoch is known.
    #[must_use]
    pub fn mark(&self) -> Option<EpochMark> {
        EpochMark::read(self.epoch_mark, self.leader_epoch, self.to)
    }
}

/// Where a checkpoint is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckpointAt {
    /// In the catalog, when it is small, because every owner reads the catalog's row: its bytes in
    /// hexadecimal.
    Inline(String),
    /// In an object: its path below the warehouse.
    Object(String),
}

/// One epoch: all of it becomes true in one act, or none of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Commit {
    /// Who sends it.
    pub owner: Owner,
    /// Its number. Epochs count by ones from 0.
    pub epoch: u64,
    /// The digest of the epoch before it; empty in epoch 0. So the manifests are a chain, which can
    /// be followed where the catalog was lost.
    pub previous: String,
    /// What the table is. Epoch 0 has it, and no other epoch.
    pub genesis: Option<Genesis>,
    /// Every topic partition of the table, also those that read nothing.
    pub lanes: BTreeMap<Partition, LaneCommit>,
    /// Kafka's id of the topic that `lanes` are about. It differs from that of the genesis after
    /// the topic was made again.
    pub topic_id: String,
    /// Kafka's id of the cluster that has this topic. It differs from that of the genesis after the
    /// topic of another cluster was taken for it. Empty in commits of earlier versions, where it is
    /// that of the genesis, and where the broker could not tell.
    #[serde(default)]
    pub cluster_id: String,
    /// Kafka's ids of the topics of this name, in this cluster, that were counted before `topic_id`
    /// and left, from old to new: the last hundred. A broker that still names one of them has old
    /// metadata.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_topic_ids: Vec<String>,
    /// What was decided since the commit before, in the order in which it holds in each lane.
    pub decisions: Vec<Decision>,
    /// Every window that ends here or earlier is closed: its rows are in this epoch or an earlier
    /// one.
    pub closed_through: Option<EventTime>,
    /// The sums over all topic partitions since epoch 0.
    pub ledger: TableLedger,
    /// The files that readers see from now on.
    pub files: Vec<NewFile>,
    /// The files that readers no longer see: they are replaced by `files`, or dropped. Each of them
    /// must be shown at the moment of the commit. They are doomed by it.
    ///
    /// Where there are any, the first of `files` takes the chunk of the first of these, the second
    /// that of the second, and so on. Readers see no rows in the chunks that are left over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retired: Vec<RetiredFile>,
    /// `None` leaves the last one in force, and a restart replays from there.
    pub checkpoint: Option<CheckpointAt>,
    /// The object that says all this once more, for a catalog that was lost: its path below the
    /// warehouse.
    pub manifest: String,
    /// The SHA-256, in lower-case hexadecimal, over the commit without its owner, its manifest and
    /// this field. Two commits of one epoch are the same if their digests are.
    pub digest: String,
}

impl Commit {
    /// Fills in the digest, and the path of the manifest, which has the digest in it.
    ///
    /// # Panics
    /// Never: a commit is plain values, which are always JSON.
    pub fn seal(&mut self, names: &Names) {
        self.digest = self.content_digest();
        self.manifest = names.manifest(self.owner.term, self.epoch, &self.digest);
    }

    /// The digest that its content has, whatever [`Commit::digest`] says.
    ///
    /// # Panics
    /// Never: a commit is plain values, which are always JSON.
    #[must_use]
    pub fn content_digest(&self) -> String {
        let content = Self {
            owner: Owner {
                term: 0,
                owner_id: String::new(),
            },
            manifest: String::new(),
            digest: String::new(),
            ..self.clone()
        };
        sha256_hex(&serde_json::to_vec(&content).expect("plain values"))
    }

    /// The commit as the journal's epochs keep it. A checkpoint is large, and only two are needed,
    /// so these are kept once, with the job.
    #[must_use]
    pub fn without_checkpoint(&self) -> Self {
        Self {
            checkpoint: None,
            ..self.clone()
        }
    }

    /// The paths of all objects that this epoch names.
    #[must_use]
    pub fn objects(&self) -> Vec<String> {
        let checkpoint = match &self.checkpoint {
            Some(CheckpointAt::Object(key)) => Some(key.clone()),
            _ => None,
        };
        self.files
            .iter()
            .map(|file| file.key.clone())
            .chain(checkpoint)
            .chain([self.manifest.clone()])
            .collect()
    }
}

#[cfg(test)]
impl Commit {
    /// An epoch that says nothing, for tests to say what they need.
    pub(crate) fn for_tests(epoch: u64) -> Self {
        Self {
            owner: Owner {
                term: 1,
                owner_id: "1".to_owned(),
            },
            epoch,
            previous: String::new(),
            genesis: None,
            lanes: BTreeMap::new(),
            topic_id: "topic".to_owned(),
            cluster_id: "cluster".to_owned(),
            left_topic_ids: Vec::new(),
            decisions: Vec::new(),
            closed_through: None,
            ledger: TableLedger::default(),
            files: Vec::new(),
            retired: Vec::new(),
            checkpoint: None,
            manifest: String::new(),
            digest: String::new(),
        }
    }
}

/// A file that readers see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct LiveFile {
    /// The epoch that brought it.
    pub epoch: u64,
    /// The catalog's clock at that commit.
    pub committed_at: DbTime,
    /// What the commit said of it.
    pub file: NewFile,
}

/// What the catalog knows of a table. An owner reads it in the act that gives it the table; others
/// may read it at any time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Head {
    /// What epoch 0 said of the table.
    pub genesis: Genesis,
    /// The last epoch.
    pub last: Commit,
    /// The catalog's clock when `last` was committed.
    pub committed_at: DbTime,
    /// The newest checkpoint and the epoch that wrote it. `None` when no epoch did: then a restart
    /// begins at the start offsets.
    pub checkpoint: Option<(u64, CheckpointAt)>,
    /// The decisions of all epochs after the checkpoint's, in order.
    pub decisions: Vec<Decision>,
    /// The checkpoint before the newest, for when that cannot be read; `None` when there is none.
    pub earlier: Option<EarlierCheckpoint>,
    /// An operator's `pause` is in force.
    pub paused: bool,
}

/// The checkpoint before the newest one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct EarlierCheckpoint {
    /// The epoch that wrote it.
    pub epoch: u64,
    /// Where it is.
    pub at: CheckpointAt,
    /// The decisions of the epochs after it, up to that of the newest checkpoint.
    pub decisions: Vec<Decision>,
}

impl Head {
    /// Goes back to the checkpoint before the newest, because that cannot be read. Returns whether
    /// there is one.
    pub fn go_back(&mut self) -> bool {
        let earlier = self.earlier.take();
        let there = earlier.is_some();
        self.checkpoint = earlier.map(|earlier| {
            let later = std::mem::replace(&mut self.decisions, earlier.decisions);
            self.decisions.extend(later);
            (earlier.epoch, earlier.at)
        });
        there
    }
}

/// The checkpoints that a catalog keeps: the newest, and the one before it for when the newest
/// cannot be read. Each with the epoch that wrote it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoints {
    /// The newest.
    pub newest: Option<(u64, CheckpointAt)>,
    /// The one before it.
    pub before: Option<(u64, CheckpointAt)>,
}

impl Checkpoints {
    /// Keeps a newer one. Returns the key of the object that nobody needs any more, which must be
    /// doomed.
    pub fn push(&mut self, epoch: u64, at: CheckpointAt) -> Option<String> {
        let dropped = std::mem::replace(&mut self.before, self.newest.replace((epoch, at)));
        match dropped?.1 {
            CheckpointAt::Object(key) => Some(key).filter(|key| !self.has(key)),
            CheckpointAt::Inline(_) => None,
        }
    }

    /// Whether this is the key of one of them.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        [&self.newest, &self.before]
            .into_iter()
            .flatten()
            .any(|(_, at)| matches!(at, CheckpointAt::Object(named) if named == key))
    }
}

/// What the catalog's clock may read when something is written by it. It travels with the request,
/// and the transaction itself compares it, because the clock may have been set, or another server
/// may have taken over, since it was heard last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockBound {
    /// What the clock should read, as far as the sender knows.
    pub expected: DbTime,
    /// How far it may be from that, in either direction. A request that was on its way for longer
    /// is refused, too, and sent again with another bound.
    pub off_max_ms: u64,
}

/// A lease as it is in the catalog: each renewal and each new owner changes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseMark {
    /// Who has it.
    pub owner: Owner,
    /// When it ends, by the catalog's clock.
    pub until: DbTime,
}

/// A lease that was renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewed {
    /// The catalog's clock.
    pub now: DbTime,
    /// An operator's `pause` is in force.
    pub paused: bool,
    /// The journal's last epoch; `None` before epoch 0. If the owner knows another one, commits
    /// were lost (a failover, a restored backup), or somebody else has written.
    pub last_epoch: Option<u64>,
}

/// The answer to a process that wants the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acquired {
    /// It owns the table now.
    Ours {
        /// What it commits as.
        owner: Owner,
        /// How long the lease lasts. It is counted from the moment when the request was sent, so
        /// that it does not end here later than in the catalog.
        lease_ms: u64,
        /// The catalog's clock.
        now: DbTime,
        /// `None` for a table that does not exist yet.
        head: Option<Box<Head>>,
    },
    /// Another process has it.
    Held {
        /// The name by which people know that process.
        by: String,
        /// How long it keeps the table if it does not renew, by the catalog's clock.
        left_ms: u64,
        /// The lease as it is now. A waiting process that sees the same one for the length of a
        /// lease may take the table, whatever the clock says. `None` where no lease ends by a
        /// clock.
        lease: Option<LeaseMark>,
    },
}

/// Why a catalog did not do what it was asked. The variant says what the caller does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CatalogError {
    /// Another owner has the table, or our epoch exists with another digest. Stop counting, and
    /// come back as a standby.
    #[error("{0}")]
    Fenced(String),
    /// Nothing was changed. Try again later. Where a person must do something first, the text says
    /// so.
    #[error("{0}")]
    Retry(Trouble),
    /// The answer to a commit was lost, so the epoch may be there or not. Call `Catalog::outcome`
    /// first: until it has answered, nothing may be deleted or planned.
    #[error("{0}")]
    Unknown(String),
    /// It will not work until a person has changed something. End the process.
    #[error("{0}")]
    Stop(Trouble),
}

impl From<CatalogError> for Trouble {
    fn from(error: CatalogError) -> Self {
        match error {
            CatalogError::Fenced(text) | CatalogError::Unknown(text) => text.into(),
            CatalogError::Retry(trouble) | CatalogError::Stop(trouble) => trouble,
        }
    }
}

/// What became of an epoch whose answer was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is there.
    Committed {
        /// The digest of its commit: another than ours when another owner committed it.
        digest: String,
        /// The catalog's clock when it was committed.
        committed_at: DbTime,
    },
    /// It is not there, and can no longer arrive. The same commit may be sent again.
    Absent,
}
