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
//! manifests form. The day manifest keeps that as well, and what readers saw after the last of
//! them.
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

/// So many of the newest day manifests are always kept: a lost catalog is rebuilt from the newest,
/// or from the one before it where that is damaged.
const DAYS_KEPT: usize = 2;

/// Which day manifests are needed no longer, because the log has none of their offsets any more:
/// their paths. `rows` are those of history with the path of each one's day manifest, in order;
/// it is empty where that was dropped already. `log_starts` says where the logs begin now.
///
/// A topic partition whose log nobody has looked at keeps all of them.
#[must_use]
pub fn days_to_drop(
    rows: &[(History, String)],
    log_starts: &BTreeMap<Partition, Offset>,
) -> Vec<String> {
    let older = &rows[..rows.len().saturating_sub(DAYS_KEPT)];
    let is_gone = |(history, manifest): &&(History, String)| {
        let mut offsets = history.offsets.iter();
        !manifest.is_empty()
            && offsets.all(|(p, (_, to))| log_starts.get(p).is_some_and(|start| to <= start))
    };
    let gone = older.iter().filter(is_gone);
    gone.map(|(_, manifest)| manifest.clone()).collect()
}

/// When the present period began: the UTC day, unless the times are those of a simulation.
#[must_use]
pub fn today(now: DbTime, every_ms: i64) -> DbTime {
    DbTime(now.0.div_euclid(every_ms) * every_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::commit::{CheckpointAt, LaneCommit, NewFile, RetiredFile};
    use crate::table::compaction::Level;
    use crate::values::decision::{Decided, FloorReason};
    use crate::values::ledger::LaneLedger;

    fn rows(date: &str) -> FileKind {
        FileKind::Rows {
            date: date.to_owned(),
        }
    }

    /// Epoch `n`: topic partition 0 goes on by ten offsets.
    fn commit(n: u64, files: &[FileKind], retired: &[FileKind]) -> Commit {
        let to = i64::try_from(n).unwrap() * 10;
        let lane = LaneCommit {
            from: to - 10,
            to,
            leader_epoch: -1,
            epoch_mark: None,
            watermark: None,
            ledger: LaneLedger::default(),
            held: 0,
            newest: None,
        };
        let file = |kind: &FileKind| NewFile {
            kind: kind.clone(),
            chunk: format!("{n:010}"),
            level: Level::Commit,
            key: format!("file of {n}"),
            bytes: 100,
            rows: 7,
            sha256: String::new(),
            first_window: None,
            last_window: None,
            as_of: None,
        };
        let retired_file = |kind: &FileKind| RetiredFile {
            kind: kind.clone(),
            key: "old".to_owned(),
            rows: 5,
            bytes: 50,
        };
        let floor = Decided::Floor {
            at: EventTime(to),
            reason: FloorReason::Idle,
        };
        Commit {
            previous: format!("digest of {}", n - 1),
            lanes: BTreeMap::from([(0, lane)]),
            decisions: vec![Decision {
                partition: 0,
                offset: to,
                what: floor,
            }],
            files: files.iter().map(file).collect(),
            retired: retired.iter().map(retired_file).collect(),
            manifest: format!("manifest of {n}"),
            digest: format!("digest of {n}"),
            ..Commit::for_tests(n)
        }
    }

    fn at(n: i64) -> DbTime {
        DbTime(1_795_651_200_000 + n * 1000)
    }

    fn folded() -> History {
        let day = rows("2026-11-26");
        let mut history = History::of(&commit(1, &[day.clone(), FileKind::Late], &[]), at(1));
        let swap = commit(2, std::slice::from_ref(&day), &[day.clone(), day.clone()]);
        history.push(&swap, at(2)).unwrap();
        let dropped = commit(3, &[], &[rows("2025-11-26"), FileKind::Late]);
        history.push(&dropped, at(3)).unwrap();
        history
    }

    #[test]
    fn history_says_what_its_epochs_said_together() {
        let history = folded();
        let sums = |files, rows, bytes| FileSums { files, rows, bytes };
        assert_eq!((history.first_epoch, history.last_epoch), (1, 3));
        assert_eq!((history.first_at, history.last_at), (at(1), at(3)));
        assert_eq!(history.previous, "digest of 0");
        assert_eq!(
            (&*history.first_digest, &*history.last_digest),
            ("digest of 1", "digest of 3")
        );
        assert_eq!(history.offsets, BTreeMap::from([(0, (0, 30))]));
        assert_eq!(history.committed, sums(2, 14, 200));
        assert_eq!(history.merged, sums(1, 7, 100));
        assert_eq!(history.replaced, sums(2, 10, 100));
        assert_eq!(history.dropped, sums(2, 10, 100));
        assert_eq!(history.dropped_days, ["2025-11-26".to_owned()].into());
        let offsets: Vec<Offset> = history.decisions.iter().map(|d| d.offset).collect();
        assert_eq!(offsets, [10, 20, 30]);
    }

    #[test]
    fn an_epoch_that_is_missing_or_another_one_does_not_fold() {
        let mut history = folded();
        let error = history.push(&commit(5, &[], &[]), at(5)).unwrap_err();
        assert_eq!(error, "epoch 4 is missing before epoch 5");
        let mut other = commit(4, &[], &[]);
        other.previous = "another".to_owned();
        let error = history.push(&other, at(4)).unwrap_err();
        assert!(
            error.starts_with("epoch 4 does not follow epoch 3"),
            "{error}"
        );
        assert_eq!(history, folded(), "nothing of it was added");
    }

    #[test]
    fn day_manifests_go_when_the_log_has_their_offsets_no_longer() {
        let day = |to: Offset| {
            let mut history = folded();
            history.offsets = BTreeMap::from([(0, (to - 10, to)), (1, (0, 5))]);
            (history, format!("day {to}"))
        };
        let rows: Vec<_> = [10, 20, 30, 40].map(day).into();
        let drop = |start: Offset| days_to_drop(&rows, &BTreeMap::from([(0, start), (1, 5)]));
        assert_eq!(drop(9), Vec::<String>::new());
        assert_eq!(drop(10), ["day 10"]);
        assert_eq!(drop(99), ["day 10", "day 20"], "the newest two stay");
        assert!(days_to_drop(&rows, &BTreeMap::from([(0, 99)])).is_empty());
        assert!(days_to_drop(&rows[..1], &BTreeMap::from([(0, 99), (1, 99)])).is_empty());
    }

    #[test]
    fn a_day_manifest_is_read_as_it_was_written() {
        let manifest = DayManifest {
            made_at: at(4),
            history: folded(),
            last: commit(3, &[], &[]),
            live: vec![LiveFile {
                epoch: 2,
                committed_at: at(2),
                file: commit(2, &[rows("2026-11-26")], &[]).files.remove(0),
            }],
        };
        let bytes = manifest.write();
        assert_eq!(DayManifest::read(&bytes), Ok(manifest.clone()));
        let names = Names::new("default", "t");
        let key = manifest.key(&names, 3, &bytes);
        let begins = "_windrow/default.t/manifests/3-2026-11-26-";
        assert!(
            key.starts_with(begins) && key.ends_with(".json.zst"),
            "{key}"
        );
        assert_eq!(names.term_and_epoch(&key), Some((3, None)));
        assert_eq!(Names::epoch_of_manifest(&key), None);
        for cut in [0, 1, bytes.len() / 2, bytes.len() - 1] {
            assert!(DayManifest::read(&bytes[..cut]).is_err());
        }
    }

    /// Epochs 1 to 9 are there, and 1 and 2 have folded.
    #[test]
    fn epochs_that_a_restart_needs_one_by_one_do_not_fold() {
        let checkpoint = |epoch| Some((epoch, CheckpointAt::Inline(String::new())));
        let range = |before, newest, today: Option<u64>| {
            let kept = Checkpoints { newest, before };
            let found = Found {
                next: 3,
                last: 9,
                kept: &kept,
            };
            found.range(today).map(|range| (range.first, range.last))
        };
        for (before, newest, today, expect) in [
            (checkpoint(8), checkpoint(9), Some(7), Some((3, 7))),
            (checkpoint(5), checkpoint(9), Some(7), Some((3, 5))),
            (checkpoint(8), checkpoint(9), Some(9), Some((3, 8))),
            (None, checkpoint(9), Some(9), Some((3, 8))),
            (checkpoint(8), checkpoint(9), Some(3), Some((3, 3))),
            (checkpoint(8), checkpoint(9), Some(2), None),
            (checkpoint(2), checkpoint(9), Some(7), None),
            (checkpoint(8), checkpoint(9), None, None),
            (None, None, Some(7), None),
        ] {
            assert_eq!(range(before.clone(), newest, today), expect, "{before:?}");
        }
    }

    /// A request may arrive late, when the database has lost commits since.
    #[test]
    fn what_is_no_longer_as_it_was_read_does_not_fold() {
        let kept = Checkpoints {
            newest: Some((9, CheckpointAt::Inline(String::new()))),
            before: None,
        };
        let fold = |next, last, first: Option<&str>, digest: Option<&str>, doomed| {
            let found = Found {
                next,
                last,
                kept: &kept,
            };
            check_fold(&folded(), &found, first, digest, doomed).is_ok()
        };
        let (first, last) = (Some("digest of 1"), Some("digest of 3"));
        assert!(fold(1, 9, first, last, false));
        assert!(!fold(1, 9, first, last, true), "its manifest is doomed");
        assert!(!fold(1, 9, None, last, false), "it was folded already");
        assert!(!fold(1, 9, first, Some("other"), false));
        assert!(!fold(2, 9, first, last, false), "a gap");
        assert!(!fold(1, 3, first, last, false), "the last epoch stays");
    }

    #[test]
    fn a_day_begins_at_midnight_utc_also_before_1970() {
        const DAY_MS: i64 = 86_400_000;
        for (now, begin) in [(0, 0), (DAY_MS - 1, 0), (DAY_MS, DAY_MS), (-1, -DAY_MS)] {
            assert_eq!(today(DbTime(now), DAY_MS), DbTime(begin));
        }
    }
}
