//! Upkeep of the table beside counting: files that belong together become one, what is kept no
//! longer is dropped, and table partitions that show nothing any more are deleted. Which files
//! these are is decided in `table/compaction`; here is when.
//!
//! ```text
//! LiveFiles                     the catalog says what readers see
//! Merge(hour 12, 64 sources)    the store makes one file of them, which nobody sees yet
//! Ready(swap)                   it waits for its turn between two commits
//! Commit(epoch 4711)            readers see the one file instead of the 64
//! DropEmptied                   ten minutes later, what showed the other 63 is deleted
//! ```
//!
//! One thing is done at a time. A swap is a table commit like any other, with its own epoch and the
//! same fence, so it is true as a whole or not at all. What a crash leaves of a merge is an orphan,
//! and the next owner merges again.

use super::conversation::{CatalogRequest, Effect, StoreRequest};
use super::merge_order::{MergeFailure, MergeOrder};
use super::rules::Rules;
use super::step::Step;
use super::table::Table;
use crate::table::commit::{CatalogError, Commit, FileKind, LiveFile, NewFile, Owner, RetiredFile};
use crate::table::compaction::{
    DueMerge, Facts, Merge, Times, due_merges, past_days, past_side_files,
};
use crate::table::file::FORMAT_REV;
use crate::table::hive::TableKind;
use crate::table::merge::MergeError;
use crate::table::place::Names;
use crate::values::cause::Trouble;
use crate::values::digest::sha256_hex;
use crate::values::time::{DbTime, EventTime, Mono};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

/// Between two looks for something to do.
const LOOK_EVERY_MS: u64 = 10_000;
/// Between two attempts at what failed.
const AGAIN_MS: u64 = 60_000;

/// The upkeep of one table, while it is ours.
pub(super) struct Upkeep {
    owner: Owner,
    /// What readers see; `None` until the catalog has said it.
    files: Option<Vec<LiveFile>>,
    /// When the catalog is asked what readers see; `None` while the answer is on its way, and after
    /// it.
    ask_at: Option<Mono>,
    work: Work,
    /// Files that cannot be merged, because they are gone or damaged, or do not fit together.
    left_out: BTreeSet<String>,
    /// When emptied table partitions are deleted next.
    drop_at: Mono,
    /// What was due when something to do was looked for last.
    due: DueSums,
    /// Since when something is due and no table commit has replaced a file; `None` while nothing
    /// is due.
    due_since: Option<Mono>,
}

/// What upkeep is doing, and what it has before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpkeepView {
    /// What is merged now; `None` while nothing is.
    pub merging: Option<MergeView>,
    /// What is due, what is being done included.
    pub due: DueSums,
    /// For how many milliseconds something has been due without any file being replaced or dropped.
    pub behind_ms: u64,
    /// How many files are left alone, because they are gone or damaged or do not fit together.
    pub left_out: u64,
}

/// A merge that is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergeView {
    /// The table whose files they are.
    pub table: TableKind,
    /// What the result holds, for people, such as `hour 12 of 2026-11-27`.
    pub period: String,
    /// How many files become one, or as few as their rows need.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Sums over what is due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DueSums {
    /// Merges.
    pub merges: u64,
    /// The files that take part in them.
    pub files: u64,
    /// The bytes of these.
    pub bytes: u64,
    /// Files that are dropped, because they are kept no longer.
    pub drops: u64,
}

/// What is being done.
enum Work {
    /// Something to do is looked for at this time.
    Idle { look_at: Mono },
    /// The store merges files. The new ones have some of these paths, the first one at least.
    Merging { merge: Merge, keys: Vec<String> },
    /// It becomes true with the next table commit.
    Ready(Swap),
    /// It is on its way into the catalog, with these new files.
    Committing { keys: Vec<String> },
}

/// What a table commit does to files besides what was counted.
pub(super) struct Swap {
    /// The files that readers see from now on.
    pub(super) files: Vec<NewFile>,
    /// The files that they no longer see.
    pub(super) retired: Vec<RetiredFile>,
}

impl Upkeep {
    /// The table has become ours.
    pub(super) fn new(owner: Owner, now: Mono) -> Self {
        Self {
            owner,
            files: None,
            ask_at: Some(now),
            work: Work::Idle { look_at: now },
            left_out: BTreeSet::new(),
            drop_at: now,
            due: DueSums::default(),
            due_since: None,
        }
    }

    /// Somebody wants everything merged now that can be: what failed is tried again at once, and
    /// files that could not be merged may be whole again.
    pub(super) fn hurry(&mut self, step: &Step<'_>) {
        self.left_out.clear();
        if let Work::Idle { look_at } = &mut self.work {
            *look_at = step.now;
        }
        if let Some(ask_at) = &mut self.ask_at {
            *ask_at = step.now;
        }
    }

    /// What it is doing.
    pub(super) fn view(&self, now: Mono) -> UpkeepView {
        let merging = match &self.work {
            Work::Merging { merge, .. } => Some(MergeView {
                table: merge.table,
                period: merge.period.spoken(),
                files: merge.sources.len() as u64,
                bytes: merge.sources.iter().map(|live| live.file.bytes).sum(),
            }),
            Work::Idle { .. } | Work::Ready(_) | Work::Committing { .. } => None,
        };
        UpkeepView {
            merging,
            due: self.due,
            behind_ms: self.due_since.map_or(0, |since| now.since(since)),
            left_out: self.left_out.len() as u64,
        }
    }

    /// Time has gone on: begins what is due. Nothing is begun while memory is short, while the
    /// clocks differ, during a pause, or at the end of the process.
    pub(super) fn tick(&mut self, table: &Table, memory_is_tight: bool, step: &mut Step<'_>) {
        let Some(clock) = step.clock else {
            return;
        };
        if step.paused || step.ending || table.last().is_none() || table.is_replaying() {
            return;
        }
        if self.ask_at.take_if(|at| step.now >= *at).is_some() {
            step.ask(CatalogRequest::LiveFiles);
        }
        if step.now >= self.drop_at {
            self.drop_at = step.now.plus(step.rules.compaction.emptied_ms / 4);
            step.ask(CatalogRequest::DropEmptied {
                owner: self.owner.clone(),
                emptied_ms: step.rules.compaction.emptied_ms,
                clock,
            });
        }
        let is_due = matches!(self.work, Work::Idle { look_at } if step.now >= look_at);
        if is_due && !memory_is_tight {
            self.begin(table, clock.expected, step);
        }
    }

    /// Looks for something to do, and begins it.
    fn begin(&mut self, table: &Table, now: DbTime, step: &mut Step<'_>) {
        let (Some(files), Some(last)) = (&self.files, table.last()) else {
            return;
        };
        let facts = facts(step.rules, last.closed_through, now, &self.left_out);
        let retired = past(files, step.rules, facts);
        let merges = due_merges(files, facts);
        self.due = DueSums::default();
        self.due.drops = retired.len() as u64;
        for merge in &merges {
            self.due.merges += 1;
            self.due.files += merge.sources.len() as u64;
            self.due.bytes += merge
                .sources
                .iter()
                .map(|live| live.file.bytes)
                .sum::<u64>();
        }
        if self.due == DueSums::default() {
            self.due_since = None;
        } else {
            self.due_since.get_or_insert(step.now);
        }
        if !retired.is_empty() {
            self.work = Work::Ready(Swap {
                files: Vec::new(),
                retired,
            });
            return;
        }
        self.work = match merges.first() {
            Some(merge) => {
                let merge = merge.to_merge();
                let nth = step.questions.next_merge();
                let order = order(&merge, &self.owner, nth, step);
                let keys = order.keys.clone();
                step.ask(StoreRequest::Merge(Box::new(order)));
                Work::Merging { merge, keys }
            }
            None => Work::Idle {
                look_at: step.now.plus(LOOK_EVERY_MS),
            },
        };
    }

    /// The catalog said what readers see. What was committed since it was asked is known here.
    pub(super) fn take_files(
        &mut self,
        result: Result<Vec<LiveFile>, CatalogError>,
        step: &mut Step<'_>,
    ) {
        match result {
            Ok(files) => self.files = Some(files),
            Err(_) => self.ask_at = Some(step.now.plus(AGAIN_MS)),
        }
    }

    /// The store has merged files, or not.
    pub(super) fn merged(
        &mut self,
        merged_key: &str,
        result: Result<Vec<NewFile>, MergeFailure>,
        step: &mut Step<'_>,
    ) {
        let merge = match &self.work {
            Work::Merging { merge, keys } if keys[0] == merged_key => merge,
            // An answer to an earlier ownership is about files of its own.
            _ => return,
        };
        match result {
            Ok(files) => {
                let retired = merge.sources.iter().map(retired).collect();
                self.work = Work::Ready(Swap { files, retired });
            }
            Err(MergeFailure { left_out, trouble }) => {
                let Some(key) = left_out.first().cloned() else {
                    self.work = Work::Idle {
                        look_at: step.now.plus(AGAIN_MS),
                    };
                    return;
                };
                self.left_out.extend(left_out);
                step.effect(Effect::ReportLeftOut { key, trouble });
                self.work = Work::Idle { look_at: step.now };
            }
        }
    }

    /// What the next table commit does to files, if something waits for it.
    pub(super) fn take_swap(&mut self) -> Option<Swap> {
        // Asked after each batch of records, and nearly always nothing waits.
        if !matches!(self.work, Work::Ready(_)) {
            return None;
        }
        let keys = self.in_hand();
        match std::mem::replace(&mut self.work, Work::Committing { keys }) {
            Work::Ready(swap) => Some(swap),
            _ => None,
        }
    }

    /// The keys of files that are being made, or that wait for the table commit which shows them.
    /// No epoch names them yet, however old their objects are: during a pause, a merged file may
    /// wait for weeks.
    pub(super) fn in_hand(&self) -> Vec<String> {
        match &self.work {
            Work::Idle { .. } => Vec::new(),
            Work::Merging { keys, .. } | Work::Committing { keys } => keys.clone(),
            Work::Ready(swap) => swap.files.iter().map(|file| file.key.clone()).collect(),
        }
    }

    /// An epoch is true.
    pub(super) fn note_commit(&mut self, commit: &Commit, at: DbTime, step: &Step<'_>) {
        if let Some(files) = &mut self.files {
            let is_retired = |key: &String| commit.retired.iter().any(|file| file.key == *key);
            // Where the commit's answer was lost, the catalog may have told of its files already.
            let known = |key: &String| commit.files.iter().any(|file| file.key == *key);
            files.retain(|live| !is_retired(&live.file.key) && !known(&live.file.key));
            files.extend(commit.files.iter().map(|file| LiveFile {
                epoch: commit.epoch,
                committed_at: at,
                file: file.clone(),
            }));
        }
        if !commit.retired.is_empty() {
            self.due_since = None;
            // There may be more to do.
            self.work = Work::Idle { look_at: step.now };
        }
    }
}

impl MergeOrder {
    /// What became of a merge that failed.
    #[must_use]
    pub fn failed(&self, error: MergeError) -> MergeFailure {
        let trouble = Trouble::from(error.to_string());
        let left_out = match error {
            MergeError::Damaged { key, .. } | MergeError::TooLarge { key, .. } => vec![key],
            MergeError::Mismatch { key, .. } => {
                let sources = self.sources.iter().map(|source| source.key.clone());
                let others: Vec<String> = sources.filter(|other| *other != key).collect();
                [vec![key], others].concat()
            }
        };
        MergeFailure { left_out, trouble }
    }
}

/// What upkeep has to do.
#[derive(Clone, Debug)]
pub struct UpkeepPlan<'a> {
    /// Files that are dropped, because they are kept no longer. This is done first.
    pub drops: Vec<RetiredFile>,
    /// What is merged after that.
    pub merges: Vec<DueMerge<'a>>,
}

/// What upkeep would do with the files that readers see, if all of them were old enough to take
/// part in a merge.
#[must_use]
pub fn plan_upkeep<'a>(
    files: &'a [LiveFile],
    rules: &Rules,
    closed_through: Option<EventTime>,
    now: DbTime,
) -> UpkeepPlan<'a> {
    let times = Times {
        settled_ms: 0,
        ..rules.compaction
    };
    let nothing = BTreeSet::new();
    let facts = Facts {
        times: &times,
        ..facts(rules, closed_through, now, &nothing)
    };
    let drops = past(files, rules, facts);
    let dropped = drops.iter().map(|file| file.key.clone()).collect();
    let rest = Facts {
        left_out: &dropped,
        ..facts
    };
    UpkeepPlan {
        merges: due_merges(files, rest),
        drops,
    }
}

/// What the plans go by in a table with these rules.
fn facts<'a>(
    rules: &'a Rules,
    closed_through: Option<EventTime>,
    now: DbTime,
    left_out: &'a BTreeSet<String>,
) -> Facts<'a> {
    Facts {
        shape: &rules.shape,
        closed_through,
        now,
        file_rows: rules.limits.file_rows as u64,
        times: &rules.compaction,
        left_out,
    }
}

/// What is kept no longer.
fn past(files: &[LiveFile], rules: &Rules, facts: Facts<'_>) -> Vec<RetiredFile> {
    let days = rules.retain_ms.map(|ms| past_days(files, ms, facts));
    let side = rules
        .retain_side_ms
        .map(|ms| past_side_files(files, ms, facts.now));
    let keys: BTreeSet<String> = days.into_iter().chain(side).flatten().collect();
    files
        .iter()
        .filter(|live| keys.contains(&live.file.key))
        .map(retired)
        .collect()
}

fn retired(live: &LiveFile) -> RetiredFile {
    RetiredFile {
        kind: live.file.kind.clone(),
        key: live.file.key.clone(),
        rows: live.file.rows,
        bytes: live.file.bytes,
    }
}

/// What the store is asked to do for merge number `nth` of this process. A merge that is tried
/// again gives the same bytes, but its files get other paths. What is left of the first attempt may
/// be doomed, and a request that deletes it may arrive late.
fn order(merge: &Merge, owner: &Owner, nth: u64, step: &Step<'_>) -> MergeOrder {
    let first = &merge.sources[0].file;
    let owner_id = &owner.owner_id;
    let mut input = format!("owner {owner_id}\nmerge {nth}\nformat {FORMAT_REV}\n");
    for live in &merge.sources {
        let _ = writeln!(input, "{}", live.file.sha256);
    }
    let (sha256, period) = (sha256_hex(input.as_bytes()), merge.period.name());
    let folder = match &first.kind {
        FileKind::Rows { date } => format!("rows/{date}"),
        FileKind::Late | FileKind::Rejects => merge.table.word().to_owned(),
    };
    let rows: u64 = merge.sources.iter().map(|live| live.file.rows).sum();
    let file_rows = step.rules.limits.file_rows;
    let count = rows.div_ceil(file_rows as u64).max(1);
    let names: &Names = step.names;
    let key = |part| names.compacted(&folder, owner.term, &period, &sha256, part);
    let side = merge.table != TableKind::Chunks;
    MergeOrder {
        shape: Arc::new(step.rules.shape.clone()),
        timestamps: step.rules.timestamps,
        sources: merge.sources.iter().map(|live| live.file.clone()).collect(),
        keys: (0..usize::try_from(count).unwrap_or(usize::MAX))
            .map(key)
            .collect(),
        like: NewFile {
            level: merge.period.level,
            as_of: merge
                .sources
                .iter()
                .map(LiveFile::as_of)
                .max()
                .filter(|_| side),
            ..first.clone()
        },
        file_rows,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::step::in_a_step;
    use crate::table::compaction::Period;
    use crate::table::level::Level;

    fn live(key: &str) -> LiveFile {
        LiveFile {
            epoch: 1,
            committed_at: DbTime(0),
            file: NewFile {
                kind: FileKind::Rows {
                    date: "1970-01-01".to_owned(),
                },
                chunk: key.to_owned(),
                level: Level::Commit,
                key: key.to_owned(),
                bytes: 1000,
                rows: 10,
                sha256: String::new(),
                first_window: Some(EventTime(0)),
                last_window: Some(EventTime(0)),
                as_of: None,
            },
        }
    }

    /// The upkeep while the store merges files `a`, `b` and `c`, and the order for that.
    fn merging(rules: &Rules) -> (Upkeep, MergeOrder) {
        let owner = Owner {
            term: 1,
            owner_id: "0".to_owned(),
        };
        let mut upkeep = Upkeep::new(owner.clone(), Mono(0));
        let merge = Merge {
            table: TableKind::Chunks,
            period: Period::of(Level::Hour, EventTime(0), &rules.compaction),
            sources: ["a", "b", "c"].map(live).into(),
        };
        let order = in_a_step(0, rules, |step| order(&merge, &owner, 1, step));
        let keys = order.keys.clone();
        upkeep.work = Work::Merging { merge, keys };
        (upkeep, order)
    }

    /// What is left of the first attempt may be doomed, and a request that deletes it may arrive
    /// late.
    #[test]
    fn a_merge_that_is_tried_again_stores_under_other_keys() {
        let rules = Rules::for_tests();
        let (upkeep, first) = merging(&rules);
        let Work::Merging { merge, .. } = &upkeep.work else {
            unreachable!("it is made so");
        };
        let again = in_a_step(0, &rules, |step| order(merge, &upkeep.owner, 2, step));
        assert_eq!(again.sources, first.sources);
        assert!(again.keys.iter().all(|key| !first.keys.contains(key)));
    }

    #[test]
    fn files_that_do_not_fit_together_are_all_left_out_and_told_of_once() {
        let rules = Rules::for_tests();
        let (mut upkeep, order) = merging(&rules);
        let failure = order.failed(MergeError::Mismatch {
            key: "b".to_owned(),
            why: "its row does not come after the row before it".to_owned(),
        });
        in_a_step(1000, &rules, |step| {
            upkeep.merged(&order.keys[0], Err(failure.clone()), step);
            let told = Effect::ReportLeftOut {
                key: "b".to_owned(),
                trouble: failure.trouble,
            };
            assert_eq!(*step.effects, [told]);
        });
        let all = ["a", "b", "c"].map(str::to_owned);
        assert_eq!(upkeep.left_out, BTreeSet::from(all));
    }
}
