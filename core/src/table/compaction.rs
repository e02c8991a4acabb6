//! Which files become one, and which are dropped. Only the plan is made here: what a merge does
//! with rows is in `merge`, and when a plan is carried out is up to the engine.
//!
//! A *period* is a piece of `window.start`: ten minutes, an hour or a day (UTC). It is *closed*
//! when the frontier has passed the end of the last window that starts in it. From then on no
//! commit can add a row to it, and its files become one.
//!
//! Day by day, with windows of 10s and a commit every 10 s:
//!
//! ```text
//! 13:00:15   the window [12:59:50, 13:00:00) is closed
//! 13:01:15   the newest chunk is a minute old: hour 12 becomes one file
//! 00:01:15   the same for the day of yesterday: its 24 hours become one file
//! ```

pub use crate::table::level::Level;

use crate::table::commit::{FileKind, LiveFile};
use crate::table::hive::TableKind;
use crate::values::shape::Shape;
use crate::values::time::{DbTime, EventTime};
use std::collections::{BTreeMap, BTreeSet};

/// How many bytes the files of a side table may have that become one. All of them are in memory
/// during the merge, and their values compress well; `merge/side` bounds what they become there.
const SIDE_BYTES_MAX: u64 = 4 << 20;
/// How many rows these may have.
const SIDE_ROWS_MAX: u64 = 100_000;

const DAY_MS: i64 = 86_400_000;

/// The times of compaction. Nobody but the simulation has others than the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// The period of [`Level::TenMinutes`].
    pub ten_minutes_ms: i64,
    /// The period of [`Level::Hour`]; a multiple of it, and a part of a day.
    pub hour_ms: i64,
    /// A chunk takes part in a merge this long after its commit, and not before. A query that read
    /// the ids of table partitions before that commit would otherwise see the chunk's rows through
    /// the place of another one, and half an epoch.
    pub settled_ms: i64,
    /// A table partition that was emptied by a swap is deleted this long after it. A query that was
    /// planned before may still look it up.
    pub emptied_ms: u64,
    /// The epochs that were committed in such a period fold when it is over: a UTC day.
    pub fold_ms: i64,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            ten_minutes_ms: 600_000,
            hour_ms: 3_600_000,
            settled_ms: 60_000,
            emptied_ms: 600_000,
            fold_ms: DAY_MS,
        }
    }
}

/// A piece of time, aligned to 1970-01-01 00:00 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period {
    /// What a file of it holds; not [`Level::Commit`].
    pub level: Level,
    /// Where it begins.
    pub start: EventTime,
    length_ms: i64,
}

impl Period {
    /// The period of this level that a time falls in.
    #[must_use]
    pub fn of(level: Level, time: EventTime, times: &Times) -> Self {
        let length_ms = match level {
            Level::TenMinutes => times.ten_minutes_ms,
            Level::Hour => times.hour_ms,
            Level::Day | Level::Commit => DAY_MS,
        };
        Self {
            level,
            start: EventTime(time.0.div_euclid(length_ms) * length_ms),
            length_ms,
        }
    }

    /// What stands for it in sentences, such as `2026-11-27`, `hour 12 of 2026-11-27` or
    /// `12:50 of 2026-11-27`.
    #[must_use]
    pub fn spoken(self) -> String {
        let (day, name) = (self.start.date(), self.name());
        match self.level {
            Level::Day | Level::Commit => day,
            Level::Hour => format!("hour {} of {day}", &name["hour".len()..]),
            Level::TenMinutes => format!("{}:{} of {day}", &name[..2], &name[2..]),
        }
    }

    /// The first moment that is no longer in it.
    fn end(self) -> EventTime {
        self.start.plus(self.length_ms)
    }

    /// What stands for it in the path of a file, below the folder of its day: `day`, `hour12`, or
    /// `1250` for the ten minutes from 12:50.
    #[must_use]
    pub fn name(self) -> String {
        let minute = self.start.0.rem_euclid(DAY_MS) / 60_000;
        let (hour, minute) = (minute / 60, minute % 60);
        match self.level {
            Level::Day | Level::Commit => "day".to_owned(),
            Level::Hour => format!("hour{hour:02}"),
            Level::TenMinutes => format!("{hour:02}{minute:02}"),
        }
    }

    /// Whether no further window that starts in it can close: all of them have.
    #[must_use]
    pub fn is_closed(self, shape: &Shape, closed_through: EventTime) -> bool {
        let (slide, offset) = (shape.slide_ms, shape.offset_ms);
        let last_start = (self.end().0 - 1 - offset).div_euclid(slide) * slide + offset;
        EventTime(last_start).plus(shape.window_ms) <= closed_through
    }
}

/// What the plans go by.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The settings that shape rows.
    pub shape: &'a Shape,
    /// Every window that ends here or earlier is closed; `None` while none is.
    pub closed_through: Option<EventTime>,
    /// The catalog's clock.
    pub now: DbTime,
    /// How many rows a file has at most.
    pub file_rows: u64,
    /// How long the periods are, and what is waited for.
    pub times: &'a Times,
    /// Files that cannot be merged, because they are gone or damaged, or do not fit together: the
    /// others go on without them.
    pub left_out: &'a BTreeSet<String>,
}

/// Files that should become one, or as few as their rows need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merge {
    /// The table whose files they are.
    pub table: TableKind,
    /// What the result holds. That of a side table is a period of the catalog's clock.
    pub period: Period,
    /// In the order of their rows.
    pub sources: Vec<LiveFile>,
}

/// A merge that is due.
#[derive(Clone, Debug)]
pub struct DueMerge<'a> {
    /// As in [`Merge`].
    pub table: TableKind,
    /// As in [`Merge`].
    pub period: Period,
    /// In the order of their rows.
    pub sources: Vec<&'a LiveFile>,
}

impl DueMerge<'_> {
    /// The same, with files of its own.
    #[must_use]
    pub fn to_merge(&self) -> Merge {
        Merge {
            table: self.table,
            period: self.period,
            sources: self.sources.iter().map(|live| (*live).clone()).collect(),
        }
    }
}

/// All merges that are due, in the order in which they are made. No file is in two of them.
#[must_use]
pub fn due_merges<'a>(files: &'a [LiveFile], facts: Facts<'_>) -> Vec<DueMerge<'a>> {
    let mut due = due_row_merges(files, facts);
    due.extend(due_side_merges(files, TableKind::Late, facts));
    due.extend(due_side_merges(files, TableKind::Rejects, facts));
    due
}

/// The merges of the table's own rows. Days come first, then hours, then ten minutes, so that what
/// was left for a while is merged once and not three times.
///
/// ```text
/// files of 2026-11-27, closed through 13:00:10, all older than a minute
///   hour 11: one file of level hour            →  left alone
///   hour 12: five of ten minutes, 59 commits   →  DueMerge { hour12, 64 sources }
///   hour 13: one commit                        →  left alone: it is not closed
/// ```
fn due_row_merges<'a>(files: &'a [LiveFile], facts: Facts<'_>) -> Vec<DueMerge<'a>> {
    let Some(closed_through) = facts.closed_through else {
        return Vec::new();
    };
    let mut days: BTreeMap<&str, Vec<&LiveFile>> = BTreeMap::new();
    for live in files {
        if let FileKind::Rows { date } = &live.file.kind
            && !facts.left_out.contains(&live.file.key)
        {
            days.entry(date).or_default().push(live);
        }
    }
    let mut due = Vec::new();
    for level in [Level::Day, Level::Hour, Level::TenMinutes] {
        for of_day in days.values_mut() {
            let period_of = |live: &LiveFile| {
                // A file that holds more than this belongs to an earlier merge. The day is made of
                // all that there is of it.
                let takes_part = level == Level::Day || live.file.level < level;
                let last = live.file.last_window.filter(|_| takes_part)?;
                Some(Period::of(level, last, facts.times))
            };
            let mut periods: BTreeMap<Period, Vec<&LiveFile>> = BTreeMap::new();
            for live in &*of_day {
                if let Some(period) = period_of(live) {
                    periods.entry(period).or_default().push(live);
                }
            }
            periods.retain(|period, sources| {
                let closed = period.is_closed(facts.shape, closed_through);
                closed && is_worth_it(*period, sources, facts)
            });
            of_day.retain(|live| {
                let is_taken = |period| periods.contains_key(&period);
                !period_of(live).is_some_and(is_taken)
            });
            for (period, sources) in periods {
                due.push(in_order(period, sources));
            }
        }
    }
    due
}

/// Whether these files of a period that is closed should become one now.
fn is_worth_it(period: Period, sources: &[&LiveFile], facts: Facts<'_>) -> bool {
    let settled = sources.iter().all(|live| is_settled(live, facts));
    let rows: u64 = sources.iter().map(|live| live.file.rows).sum();
    let saves = rows.div_ceil(facts.file_rows) < sources.len() as u64;
    // The bytes of a day depend on its rows alone, so it is written anew in any case.
    let anew =
        period.level == Level::Day && sources.iter().any(|live| live.file.level != Level::Day);
    settled && (saves && period.level != Level::Day || anew)
}

fn is_settled(live: &LiveFile, facts: Facts<'_>) -> bool {
    facts.now.0.saturating_sub(live.committed_at.0) >= facts.times.settled_ms
}

/// A merge of rows whose sources are in the order of their rows.
fn in_order(period: Period, mut sources: Vec<&LiveFile>) -> DueMerge<'_> {
    sources.sort_by_key(|live| {
        let file = &live.file;
        (
            file.first_window,
            file.last_window,
            chunk_order(&file.chunk),
        )
    });
    DueMerge {
        table: TableKind::Chunks,
        period,
        sources,
    }
}

/// The order of chunks: by the epoch, then by the number of the file within it. `0000000012` comes
/// before `0000000012-2`, and that before `0000000012-10`.
#[must_use]
pub fn chunk_order(chunk: &str) -> (u64, u64) {
    let (epoch, part) = chunk.split_once('-').unwrap_or((chunk, "0"));
    let number = |text: &str| text.parse().unwrap_or(u64::MAX);
    (number(epoch), number(part))
}

/// The merges of a side table: the files of consecutive epochs that were committed within a day
/// that is over, or else within an hour that is over. A merge is cut where its files would have too
/// many bytes or rows.
fn due_side_merges<'a>(
    files: &'a [LiveFile],
    kind: TableKind,
    facts: Facts<'_>,
) -> Vec<DueMerge<'a>> {
    let mut of_table: Vec<&LiveFile> = files
        .iter()
        .filter(|live| TableKind::of(&live.file.kind) == kind)
        .collect();
    of_table.sort_by_key(|live| (live.epoch_of_rows(), chunk_order(&live.file.chunk)));
    let (mut due, mut taken) = (Vec::new(), BTreeSet::new());
    for level in [Level::Day, Level::Hour] {
        let mut block: Vec<&LiveFile> = Vec::new();
        let mut blocks = Vec::new();
        for live in &of_table {
            let free = !facts.left_out.contains(&live.file.key) && !taken.contains(&live.file.key);
            let takes_part = free && live.file.level < level;
            if !(takes_part && fits(live, &block, level, facts)) {
                blocks.push(std::mem::take(&mut block));
            }
            if takes_part {
                block.push(live);
            }
        }
        blocks.push(block);
        for merge in blocks
            .into_iter()
            .filter_map(|block| side_block(kind, level, block, facts))
        {
            taken.extend(merge.sources.iter().map(|live| &live.file.key));
            due.push(merge);
        }
    }
    due
}

/// Whether a file of a side table may be merged with those before it.
fn fits(live: &LiveFile, block: &[&LiveFile], level: Level, facts: Facts<'_>) -> bool {
    let period = |live: &LiveFile| Period::of(level, EventTime(live.as_of().0), facts.times);
    let (bytes, rows) = block.iter().fold((0, 0), |(bytes, rows), live| {
        (bytes + live.file.bytes, rows + live.file.rows)
    });
    bytes + live.file.bytes <= SIDE_BYTES_MAX
        && rows + live.file.rows <= facts.file_rows.min(SIDE_ROWS_MAX)
        && block
            .first()
            .is_none_or(|first| period(first) == period(live))
}

/// A block of a side table, if its period is over and it has several files.
fn side_block<'a>(
    kind: TableKind,
    level: Level,
    sources: Vec<&'a LiveFile>,
    facts: Facts<'_>,
) -> Option<DueMerge<'a>> {
    let last = sources.last()?;
    let period = Period::of(level, EventTime(last.as_of().0), facts.times);
    let over = period.end().0.saturating_add(facts.times.settled_ms) <= facts.now.0;
    let settled = sources.iter().all(|live| is_settled(live, facts));
    (over && settled && sources.len() > 1).then_some(DueMerge {
        table: kind,
        period,
        sources,
    })
}

/// The files that `retain` drops: those of whole days whose last window ended so long ago, by the
/// frontier and by the catalog's clock.
#[must_use]
pub fn past_days(files: &[LiveFile], retain_ms: u64, facts: Facts<'_>) -> Vec<String> {
    let (Some(closed_through), Ok(retain_ms)) = (facts.closed_through, i64::try_from(retain_ms))
    else {
        return Vec::new();
    };
    let until = closed_through.min(EventTime(facts.now.0)).minus(retain_ms);
    let is_past = |live: &&LiveFile| {
        let day = live
            .file
            .last_window
            .map(|last| Period::of(Level::Day, last, facts.times));
        day.is_some_and(|day| day.is_closed(facts.shape, until))
    };
    files
        .iter()
        .filter(is_past)
        .map(|live| live.file.key.clone())
        .collect()
}

/// The files of the side tables that `retain-side` drops: those whose newest commit was made so
/// long ago by the catalog's clock.
#[must_use]
pub fn past_side_files(files: &[LiveFile], retain_ms: u64, now: DbTime) -> Vec<String> {
    let retain_ms = i64::try_from(retain_ms).unwrap_or(i64::MAX);
    let is_past = |live: &&LiveFile| {
        let side = !matches!(live.file.kind, FileKind::Rows { .. });
        side && live.as_of().0.saturating_add(retain_ms) <= now.0
    };
    files
        .iter()
        .filter(is_past)
        .map(|live| live.file.key.clone())
        .collect()
}

impl LiveFile {
    /// When the newest commit was made that has rows in it, by the catalog's clock.
    #[must_use]
    pub fn as_of(&self) -> DbTime {
        self.file.as_of.unwrap_or(self.committed_at)
    }

    /// The epoch of its first rows. A compacted file has the chunk of its first source.
    fn epoch_of_rows(&self) -> u64 {
        chunk_order(&self.file.chunk).0
    }
}
