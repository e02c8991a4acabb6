//! History: the epochs of a day fold into one row of the journal and one object of the store, so
//! that neither grows with the number of commits.
//!
//! ```text
//! epochs 1 to 8640, committed on 27 November    8,640 rows, 8,640 manifests
//! 28 November, 00:00:15                         one row of history, one day manifest
//! ```
//!
//! The row keeps what the epochs said together: their sums, their offsets from and to, their
//! decisions in order, and the digests of the first and the last, which are links of the chain that
//! manifests form. The day manifest keeps that as well, and what readers saw after the last of them.
//!
//! Epoch 0 never folds, because it says what the table is. The last epoch never does, because the
//! next one follows it, and neither do the epochs after the earlier checkpoint, because a restart
//! takes its decisions one by one.

use crate::table::commit::{Checkpoints, Commit, FileKind, LiveFile};
use crate::table::place::Names;
use crate::values::decision::Decision;
use crate::values::digest::sha256_hex;
use crate::values::record::{Offset, Partition};
use crate::values::time::{DbTime, EventTime};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;

/// How many epochs fold at a time. With a commit every second, a day takes nine folds.
pub const EPOCHS_MAX: u64 = 10_000;

/// How long the text of a day manifest is at most. One of 10,000 live files has 5 MB.
const MANIFEST_BYTES_MAX: u64 = 1 << 30;

/// What a number of consecutive epochs said together: a row of the journal's `history`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct History {
    /// The first of these epochs.
    pub first_epoch: u64,
    /// The last of them.
    pub last_epoch: u64,
    /// When the first was committed, by the catalog's clock.
    pub first_at: DbTime,
    /// When the last was committed, by the catalog's clock.
    pub last_at: DbTime,
    /// The digest of the epoch before the first.
    pub previous: String,
    /// The digest of the first.
    pub first_digest: String,
    /// The digest of the last.
    pub last_digest: String,
    /// Of each topic partition: the next offset before the first epoch, and after the last. A topic
    /// that was made again begins anew, so the second may be less.
    pub offsets: BTreeMap<Partition, (Offset, Offset)>,
    /// The files that commits brought.
    pub committed: FileSums,
    /// The files that merges brought.
    pub merged: FileSums,
    /// The files that were replaced by merges.
    pub replaced: FileSums,
    /// The files that were dropped because they are kept no longer.
    pub dropped: FileSums,
    /// The UTC days whose rows were dropped, in order.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub dropped_days: BTreeSet<String>,
    /// What was decided, in the order of the epochs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub decisions: Vec<Decision>,
}

/// Sums over files of all tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct FileSums {
    /// How many files.
    pub files: u64,
    /// Their rows.
    pub rows: u64,
    /// Their sizes.
    pub bytes: u64,
}

impl FileSums {
    fn add(&mut self, rows: u64, bytes: u64) {
        self.files += 1;
        self.rows += rows;
        self.bytes += bytes;
    }
}

impl History {
    /// What one epoch says alone.
    #[must_use]
    pub fn of(commit: &Commit, at: DbTime) -> Self {
        let lanes = commit.lanes.iter();
        let mut history = Self {
            first_epoch: commit.epoch,
            last_epoch: commit.epoch,
            first_at: at,
            last_at: at,
            previous: commit.previous.clone(),
            first_digest: commit.digest.clone(),
            last_digest: commit.digest.clone(),
            offsets: lanes.map(|(p, lane)| (*p, (lane.from, lane.to))).collect(),
            committed: FileSums::default(),
            merged: FileSums::default(),
            replaced: FileSums::default(),
            dropped: FileSums::default(),
            dropped_days: BTreeSet::new(),
            decisions: commit.decisions.clone(),
        };
        // A commit that takes files away and brings none drops them.
        let drops = commit.files.is_empty();
        for file in &commit.retired {
            let sums = if drops {
                &mut history.dropped
            } else {
                &mut history.replaced
            };
            sums.add(file.rows, file.bytes);
            if let FileKind::Rows { date } = &file.kind
                && drops
            {
                history.dropped_days.insert(date.clone());
            }
        }
        let brought = if commit.retired.is_empty() {
            &mut history.committed
        } else {
            &mut history.merged
        };
        for file in &commit.files {
            brought.add(file.rows, file.bytes);
        }
        history
    }

    /// Adds the epoch that follows the last one.
    ///
    /// # Errors
    /// It does not follow, as the end of a sentence: the journal's rows are not what windrow wrote.
    pub fn push(&mut self, commit: &Commit, at: DbTime) -> Result<(), String> {
        let next = self.last_epoch + 1;
        if commit.epoch != next {
            return Err(format!(
                "epoch {next} is missing before epoch {}",
                commit.epoch
            ));
        }
        if commit.previous != self.last_digest {
            return Err(format!(
                "epoch {next} does not follow epoch {} by their digests",
                self.last_epoch
            ));
        }
        let one = Self::of(commit, at);
        for (partition, (from, to)) in one.offsets {
            self.offsets.entry(partition).or_insert((from, to)).1 = to;
        }
        for (sums, more) in [
            (&mut self.committed, one.committed),
            (&mut self.merged, one.merged),
            (&mut self.replaced, one.replaced),
            (&mut self.dropped, one.dropped),
        ] {
            sums.files += more.files;
            sums.rows += more.rows;
            sums.bytes += more.bytes;
        }
        self.dropped_days.extend(one.dropped_days);
        self.decisions.extend(one.decisions);
        (self.last_epoch, self.last_at) = (commit.epoch, at);
        self.last_digest = one.last_digest;
        Ok(())
    }
}

/// The object that a fold leaves: all that is needed to go on from the last folded epoch where the
/// catalog was lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DayManifest {
    /// The catalog's clock when it was made. So an attempt that is made again has another name than
    /// the one before, whose object may be deleted by now.
    pub made_at: DbTime,
    /// The sums of the folded epochs.
    pub history: History,
    /// The last folded epoch as it was committed, without its checkpoint.
    pub last: Commit,
    /// What readers saw after it, in all tables.
    pub live: Vec<LiveFile>,
}

impl DayManifest {
    /// Its bytes: JSON, compressed by zstd.
    ///
    /// # Panics
    /// Never: a manifest is plain values, which are always JSON.
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        let text = serde_json::to_vec(self).expect("plain values");
        zstd::bulk::compress(&text, 3).expect("memory is there")
    }

    /// Reads the bytes of a day manifest.
    ///
    /// # Errors
    /// They are none, as the end of a sentence.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        let mut text = Vec::new();
        let reader = zstd::Decoder::with_buffer(bytes).map_err(|error| error.to_string())?;
        reader
            .take(MANIFEST_BYTES_MAX)
            .read_to_end(&mut text)
            .map_err(|error| error.to_string())?;
        serde_json::from_slice(&text).map_err(|error| error.to_string())
    }

    /// Its path below the warehouse. The day in it is that of its last epoch.
    #[must_use]
    pub fn key(&self, names: &Names, term: u64, bytes: &[u8]) -> String {
        let day = EventTime(self.history.last_at.0).date();
        names.day_manifest(term, &day, &sha256_hex(bytes))
    }
}

/// What is to be folded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first epoch.
    pub first: u64,
    /// The last epoch.
    pub last: u64,
}

/// What the catalog has of the table when it is asked to fold.
#[derive(Clone, Debug)]
pub struct Found<'a> {
    /// The first epoch that is in no row of history.
    pub next: u64,
    /// The table's last epoch.
    pub last: u64,
    /// The checkpoints in force.
    pub kept: &'a Checkpoints,
}

impl Found<'_> {
    /// The last epoch that may fold: not the table's last, and none after the earlier checkpoint.
    fn until(&self) -> Option<u64> {
        let (checkpoint, _) = self.kept.before.as_ref().or(self.kept.newest.as_ref())?;
        Some(self.last.checked_sub(1)?.min(*checkpoint))
    }

    /// Which epochs fold now. `before_today` is the last one that was committed before [`today`].
    #[must_use]
    pub fn range(&self, before_today: Option<u64>) -> Option<Range> {
        let first = self.next;
        let last = before_today?.min(self.until()?).min(first + EPOCHS_MAX - 1);
        (last >= first).then_some(Range { first, last })
    }
}

/// Whether the catalog may fold, after it was checked that its owner asks. `first` and `last` are
/// the digests of the first and the last of these epochs as the catalog has them, and `doomed` says
/// that the day manifest may be deleted any time.
///
/// # Errors
/// Why not, as the end of a sentence. It is then asked anew what is to fold: the database may have
/// lost commits since it was asked.
pub fn check_fold(
    history: &History,
    found: &Found<'_>,
    first: Option<&str>,
    last: Option<&str>,
    doomed: bool,
) -> Result<(), String> {
    let (from, to) = (history.first_epoch, history.last_epoch);
    let same = first == Some(&*history.first_digest) && last == Some(&*history.last_digest);
    if !same || from != found.next || found.until().is_none_or(|until| to > until) {
        return Err(format!(
            "epochs {from} to {to} are not there as they were read"
        ));
    }
    if doomed {
        return Err(format!(
            "the day manifest of epochs {from} to {to} is doomed"
        ));
    }
    Ok(())
}

/// When the present period began: the UTC day, unless the times are those of a simulation.
#[must_use]
pub fn today(now: DbTime, every_ms: i64) -> DbTime {
    DbTime(now.0.div_euclid(every_ms) * every_ms)
}
