//! What is said of the upkeep of a table: what is merged now, and what would be merged and dropped.

use crate::engine::{Rules, UpkeepPlan, UpkeepView, plan_upkeep};
use crate::table::commit::{FileKind, LiveFile, RetiredFile};
use crate::table::compaction::DueMerge;
use crate::table::hive::TableKind;
use crate::values::time::{DbTime, EventTime};
use serde::Serialize;
use std::collections::BTreeMap;

/// What a running windrow merges now, as the end of a sentence; empty while nothing is due.
/// `read_bytes` is how much of it was read from the store.
///
/// ```text
/// merging 64 files of hour 12 of 2026-11-27, 1.5 MiB of 4.0 MiB read; 2 more merges are due
/// ```
#[must_use]
pub fn compaction_text(view: &UpkeepView, read_bytes: u64) -> String {
    let mut parts = Vec::new();
    let mut more = view.due.merges;
    if let Some(merging) = &view.merging {
        more = more.saturating_sub(1);
        parts.push(format!(
            "merging {} files of {}{}, {} of {} read",
            merging.files,
            merging.period,
            table_of(merging.table),
            mebibytes(read_bytes.min(merging.bytes)),
            mebibytes(merging.bytes)
        ));
    }
    if more > 0 {
        let further = if parts.is_empty() { "" } else { "more " };
        parts.push(match more {
            1 => format!("1 {further}merge is due"),
            _ => format!("{more} {further}merges are due"),
        });
    }
    if view.due.drops > 0 {
        parts.push(format!("dropping {} files", view.due.drops));
    }
    if view.left_out > 0 {
        parts.push(format!(
            "{} files cannot be merged, see the log",
            view.left_out
        ));
    }
    parts.join("; ")
}

fn mebibytes(bytes: u64) -> String {
    #[expect(
        clippy::cast_precision_loss,
        reason = "one digit behind the point is shown"
    )]
    let mebibytes = bytes as f64 / f64::from(1 << 20);
    format!("{mebibytes:.1} MiB")
}

fn table_of(kind: TableKind) -> String {
    match kind {
        TableKind::View | TableKind::Chunks => String::new(),
        TableKind::Late | TableKind::Rejects => format!(" of {}", kind.suffix()),
    }
}

/// What upkeep would do now: the answer of `windrow compact --dry-run`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct CompactionPlan {
    /// `database.table`.
    pub table: String,
    /// What would be merged, in this order.
    pub merges: Vec<PlannedMerge>,
    /// What would be dropped, because it is kept no longer.
    pub drops: Vec<PlannedDrop>,
    /// How many merges there are.
    pub count: usize,
}

/// Files that would become one, or as few as their rows need.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct PlannedMerge {
    /// The Hive table that they belong to, without its database.
    pub table: String,
    /// What the result holds, for people, such as `hour 12 of 2026-11-27`.
    pub period: String,
    /// How many they are.
    pub files: usize,
    /// How many they become.
    pub into: u64,
    /// Their rows.
    pub rows: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Files that would be dropped together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct PlannedDrop {
    /// The Hive table that they belong to, without its database.
    pub table: String,
    /// The UTC day of their windows, such as `2026-11-27`; empty for the side tables.
    pub day: String,
    /// How many they are.
    pub files: u64,
    /// Their rows.
    pub rows: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl CompactionPlan {
    /// What would be done with these files. Files that were committed within the last minute are
    /// in the plan, although their merge waits until they are a minute old.
    #[must_use]
    pub fn of(
        files: &[LiveFile],
        rules: &Rules,
        closed_through: Option<EventTime>,
        now: DbTime,
    ) -> Self {
        let UpkeepPlan { drops, merges } = plan_upkeep(files, rules, closed_through, now);
        let (table, file_rows) = (&rules.table, rules.limits.file_rows as u64);
        Self {
            table: format!("{}.{table}", rules.database),
            count: merges.len(),
            merges: merges
                .iter()
                .map(|merge| planned_merge(merge, table, file_rows))
                .collect(),
            drops: planned_drops(&drops, table),
        }
    }
}

fn planned_merge(merge: &DueMerge<'_>, table: &str, file_rows: u64) -> PlannedMerge {
    let rows = merge.sources.iter().map(|live| live.file.rows).sum::<u64>();
    PlannedMerge {
        table: format!("{table}{}", merge.table.suffix()),
        period: merge.period.spoken(),
        files: merge.sources.len(),
        into: rows.div_ceil(file_rows).max(1),
        rows,
        bytes: merge.sources.iter().map(|live| live.file.bytes).sum(),
    }
}

fn planned_drops(files: &[RetiredFile], table: &str) -> Vec<PlannedDrop> {
    let mut drops: BTreeMap<&FileKind, PlannedDrop> = BTreeMap::new();
    for file in files {
        let sums = drops.entry(&file.kind).or_insert_with(|| PlannedDrop {
            table: format!("{table}{}", TableKind::of(&file.kind).suffix()),
            day: file.kind.date().to_owned(),
            files: 0,
            rows: 0,
            bytes: 0,
        });
        sums.files += 1;
        sums.rows += file.rows;
        sums.bytes += file.bytes;
    }
    drops.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{DueSums, MergeView};
    use crate::table::commit::NewFile;
    use crate::table::level::Level;

    const HOUR_MS: i64 = 3_600_000;

    fn live(n: i64, kind: FileKind, rows: u64) -> LiveFile {
        let window = matches!(kind, FileKind::Rows { .. }).then_some(EventTime(n * 60_000));
        LiveFile {
            epoch: n.unsigned_abs() + 1,
            committed_at: DbTime(n * 60_000),
            file: NewFile {
                chunk: format!("{n:010}"),
                kind,
                level: Level::Commit,
                key: format!("file {n} of {rows}"),
                bytes: 1000,
                rows,
                sha256: String::new(),
                first_window: window,
                last_window: window,
                as_of: None,
            },
        }
    }

    /// A commit a minute, for three hours of the first day.
    fn files() -> Vec<LiveFile> {
        let rows = || FileKind::Rows {
            date: "1970-01-01".to_owned(),
        };
        let late = (0..2).map(|n| live(n, FileKind::Late, 7));
        (0..180).map(|n| live(n, rows(), 10)).chain(late).collect()
    }

    #[test]
    fn a_plan_names_each_merge_once() {
        let rules = Rules::for_tests();
        let closed = Some(EventTime(2 * HOUR_MS + 25 * 60_000));
        let now = DbTime(3 * HOUR_MS);
        let plan = CompactionPlan::of(&files(), &rules, closed, now);
        let of: Vec<String> = plan
            .merges
            .iter()
            .map(|merge| {
                let table = merge.table.trim_start_matches(&rules.table);
                format!(
                    "{table} {}: {} to {}",
                    merge.period, merge.files, merge.into
                )
            })
            .collect();
        assert_eq!(
            of,
            [
                "__chunks hour 00 of 1970-01-01: 60 to 1",
                "__chunks hour 01 of 1970-01-01: 60 to 1",
                "__chunks 02:00 of 1970-01-01: 10 to 1",
                "__chunks 02:10 of 1970-01-01: 10 to 1",
                "__late hour 00 of 1970-01-01: 2 to 1",
            ]
        );
        assert_eq!((plan.count, plan.drops.len()), (5, 0));
    }

    #[test]
    fn a_plan_drops_what_is_kept_no_longer() {
        let rules = Rules {
            retain_ms: Some(86_400_000),
            retain_side_ms: Some(86_400_000),
            ..Rules::for_tests()
        };
        let now = 3 * 24 * HOUR_MS;
        let plan = CompactionPlan::of(&files(), &rules, Some(EventTime(now)), DbTime(now));
        let of: Vec<_> = plan
            .drops
            .iter()
            .map(|drop| (&*drop.day, drop.files, drop.rows, drop.bytes))
            .collect();
        assert_eq!(of, [("1970-01-01", 180, 1800, 180_000), ("", 2, 14, 2000)]);
        assert_eq!(plan.merges, [], "what is dropped is not merged before");
    }

    #[test]
    fn what_is_under_way_is_said_in_a_sentence() {
        let mut view = UpkeepView::default();
        assert_eq!(compaction_text(&view, 0), "");
        view.due = DueSums {
            merges: 3,
            files: 70,
            bytes: 5 << 20,
            drops: 0,
        };
        assert_eq!(compaction_text(&view, 0), "3 merges are due");
        view.merging = Some(MergeView {
            table: TableKind::Late,
            period: "hour 12 of 2026-11-27".to_owned(),
            files: 64,
            bytes: 4 << 20,
        });
        view.left_out = 2;
        assert_eq!(
            compaction_text(&view, 1 << 20),
            "merging 64 files of hour 12 of 2026-11-27 of __late, 1.0 MiB of 4.0 MiB read; 2 more \
             merges are due; 2 files cannot be merged, see the log"
        );
    }
}
