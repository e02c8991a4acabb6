//! What a commit says, and what a catalog answers: the values that pass between the engine and the catalog.
//! No I/O in it: the engine decides, `driver` carries out, `io/` writes.

use crate::table::place::Names;
use crate::values::cause::Trouble;
use crate::values::decision::Decision;
use crate::values::digest::sha256_hex;
use crate::values::ledger::{LaneLedger, TableLedger};
use crate::values::record::{Offset, Partition};
use crate::values::shape::Shape;
use crate::values::time::{DbTime, EventTime};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Who may commit. Another owner has another `term`; the id tells two processes apart that believe in the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Owner {
    /// The number of this ownership; each new owner has a higher one. Files say `owner-epoch`.
    #[serde(rename = "owner-epoch")]
    pub term: u64,
    /// Random; new with every process.
    pub owner_id: String,
}

/// What is decided before the first record is read, and committed as epoch 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Genesis {
    pub shape: Shape,
    /// Where the files are: `s3a://bucket/warehouse`, or a directory.
    pub warehouse: String,
    pub cluster_id: String,
    /// Kafka's id of the topic; empty where the broker is too old to tell.
    pub topic_id: String,
    /// The topic partitions and the offset each begins at.
    pub start_offsets: BTreeMap<Partition, Offset>,
}

/// Which of the four tables a file belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "table", rename_all = "kebab-case")]
pub enum FileKind {
    /// `<table>__chunks`; `date` is the UTC day of `window.start` of all its rows.
    Rows {
        date: String,
    },
    Late,
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
    #[serde(flatten)]
    pub kind: FileKind,
    /// Value of the table partition column `chunk`; unique within the table.
    pub chunk: String,
    /// Path below the warehouse; its folder holds this file alone and is the table partition's location.
    pub key: String,
    pub bytes: u64,
    pub rows: u64,
    /// Hex SHA-256 of the file.
    pub sha256: String,
    /// Least and greatest `window.start`; `None` for the side tables.
    pub first_window: Option<EventTime>,
    pub last_window: Option<EventTime>,
}

/// What a commit says of one topic partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct LaneCommit {
    /// `next_offset` of the commit before; the catalog refuses a commit that does not go on from there.
    pub from: Offset,
    pub to: Offset,
    /// Leader epoch of the record before `to`; -1 when unknown, or when there is none to see.
    pub leader_epoch: i32,
    pub watermark: Option<EventTime>,
    /// Cumulative.
    pub ledger: LaneLedger,
}

/// Where a checkpoint is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckpointAt {
    /// In the catalog, when at most [`CHECKPOINT_INLINE_MAX_BYTES`]: hex of the bytes.
    Inline(String),
    /// In an object: its path below the warehouse.
    Object(String),
}

pub const CHECKPOINT_INLINE_MAX_BYTES: usize = 16_384;

/// One epoch: all of it becomes true in one act, or none of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Commit {
    pub owner: Owner,
    /// By ones from 0.
    pub epoch: u64,
    /// Epoch 0 only.
    pub genesis: Option<Genesis>,
    /// Every topic partition of the table, also those that read nothing.
    pub lanes: BTreeMap<Partition, LaneCommit>,
    /// Kafka's id of the topic that `lanes` speak of; another than the genesis' after a new generation.
    pub topic_id: String,
    pub decisions: Vec<Decision>,
    /// Every window that ends here or earlier is closed: its rows are in this epoch or an earlier one.
    pub closed_through: Option<EventTime>,
    pub ledger: TableLedger,
    pub files: Vec<NewFile>,
    /// `None` leaves the last one in force: a restart replays from there.
    pub checkpoint: Option<CheckpointAt>,
    /// The object that says all this once more, for a catalog that was lost: its path below the warehouse.
    pub manifest: String,
    /// Hex SHA-256 over the commit without its owner and this field: two commits of one epoch are the same iff it is.
    pub digest: String,
}

impl Commit {
    /// Fills in the digest, and the manifest's path with it.
    pub fn seal(&mut self, prefix: &str) {
        let nobody = Owner {
            term: 0,
            owner_id: String::new(),
        };
        let owner = std::mem::replace(&mut self.owner, nobody);
        self.manifest.clear();
        self.digest.clear();
        self.digest = sha256_hex(&serde_json::to_vec(self).expect("plain values"));
        self.owner = owner;
        self.manifest =
            Names::with_prefix(prefix).manifest(self.owner.term, self.epoch, &self.digest);
    }

    /// Paths of all objects that this epoch names.
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

/// Folder of a table's objects below the warehouse. Its first letter hides it from whoever lists the warehouse.
#[must_use]
pub fn object_prefix(database: &str, table: &str) -> String {
    Names::new(database, table).prefix().to_owned()
}

/// Where the manifests lie of an epoch that another owner may have left unfinished.
#[must_use]
pub fn manifests_of(prefix: &str, term: u64, epoch: u64) -> String {
    Names::with_prefix(prefix).manifests_of(term, epoch)
}

/// A path that no other owner and no other bytes can have: `<prefix><folder>/<owner epoch>-<epoch>-<sha256>`.
/// The hash is cut at 128 bits, as paths are read by people.
#[must_use]
pub fn object_key(prefix: &str, folder: &str, owner: &Owner, epoch: u64, sha256: &str) -> String {
    Names::with_prefix(prefix).object(folder, owner.term, epoch, sha256)
}

/// What the catalog knows of a table, read in the act that made us its owner (or without, for a look).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Head {
    pub genesis: Genesis,
    /// The last epoch, without the decisions of the ones before.
    pub last: Commit,
    /// The database's clock when `last` was committed.
    pub committed_at: DbTime,
    /// The newest checkpoint and the epoch that wrote it; `None` when no epoch did: begin at the start offsets.
    pub checkpoint: Option<(u64, CheckpointAt)>,
    /// Decisions of the epochs after the checkpoint's, in order.
    pub decisions: Vec<Decision>,
    /// An operator's `pause` is in force.
    pub paused: bool,
}

/// What came of asking for the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acquired {
    /// It is ours until `lease_ms` after the request was sent. `head` is `None` for a table that does not exist yet.
    Ours {
        owner: Owner,
        lease_ms: u64,
        now: DbTime,
        head: Option<Box<Head>>,
    },
    /// Another process has it, for at most `left_ms` more if it does not renew.
    Held { by: String, left_ms: u64 },
}

/// Why a catalog did not do what it was asked; what the caller does follows from the variant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CatalogError {
    /// Another owner has the table, or our epoch exists with another digest: stop and stand by.
    #[error("{0}")]
    Fenced(String),
    /// Nothing was changed; try again later. Somebody may have to do something first, which the text says.
    #[error("{0}")]
    Retry(Trouble),
    /// The answer to a commit was lost: ask [`outcome`](CatalogError) before anything else.
    #[error("{0}")]
    Unknown(String),
    /// It will not work until a person changes something and starts us again.
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
    /// It is there with this digest; the database's clock when it was committed.
    Committed {
        digest: String,
        committed_at: DbTime,
    },
    /// It is not there and can no longer arrive.
    Absent,
}
