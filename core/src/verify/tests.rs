//! A table that is counted in memory, and what a verification says of it, whole and damaged.

use super::audit::{Audit, EpochEntry};
use super::compare::{CompareStep, Comparison, Scope};
use super::recount::Recount;
use super::report::{Findings, Kind};
use super::starting::{Chooser, Start};
use crate::count::lane::Lane;
use crate::count::merger::{Lanes, close, frontier};
use crate::table::commit::{Commit, FileKind, LaneCommit, LiveFile, NewFile};
use crate::table::file::{Timestamps, write_rows};
use crate::table::history::{DayManifest, History};
use crate::table::level::Level;
use crate::table::place::Names;
use crate::values::decision::FloorReason;
use crate::values::digest::sha256_hex;
use crate::values::record::{Key, Offset, Partition, Record};
use crate::values::row::Row;
use crate::values::shape::Shape;
use crate::values::time::{DbTime, EventTime};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

const NOON: i64 = 1_725_192_000_000;
const DELAY_MS: i64 = 5_000;

fn shape() -> Shape {
    Shape::count_by_origin("clicks", 10_000, 10_000)
}

/// The record at an offset: some are out of order, some late, some rejects, some tombstones.
fn record(partition: Partition, offset: Offset) -> (i64, Option<String>) {
    let jitter = (offset * 7919 + i64::from(partition) * 31) % 9_000;
    let late = if offset % 23 == 22 { 60_000 } else { 0 };
    let time = NOON + offset * 700 + jitter - late;
    let value = match offset % 17 {
        3 => None,
        5 => Some("{".to_owned()),
        n => Some(format!("{{\"origin\": \"k{}\"}}", n % 4)),
    };
    (time, value)
}

/// A table of two topic partitions, with an epoch for each ten offsets of both.
struct Table {
    epochs: Vec<Commit>,
    rows: Vec<Vec<Row>>,
    objects: BTreeMap<String, Bytes>,
    live: Vec<LiveFile>,
    ends: BTreeMap<Partition, Offset>,
}

impl Table {
    fn counted(epochs: u64) -> Self {
        let shape = shape();
        let names = Names::new("default", "t");
        let mut lanes = Lanes::new();
        for partition in 0..2 {
            let mut lane = Lane::new(partition, &shape, 0);
            lane.set_delay(DELAY_MS);
            lane.offer_ceiling(EventTime(i64::MAX / 4));
            lanes.insert(partition, lane);
        }
        let mut table = Self {
            epochs: Vec::new(),
            rows: Vec::new(),
            objects: BTreeMap::new(),
            live: Vec::new(),
            ends: BTreeMap::new(),
        };
        for epoch in 0..epochs {
            for (partition, lane) in &mut lanes {
                let from = lane.ledger.next_offset;
                // Lane 1 stands aside for a while.
                let stands_aside = *partition == 1 && (8..12).contains(&epoch);
                if epoch > 0 && !stands_aside {
                    read(lane, *partition, from..from + 10);
                }
            }
            if (8..12).contains(&epoch) {
                let at = lanes[&0].watermark().expect("it has read");
                let lane = lanes.get_mut(&1).expect("it is there");
                lane.raise_floor(at, FloorReason::Idle);
            }
            table.cut(epoch, &mut lanes, &names);
        }
        table.ends = lanes
            .iter()
            .map(|(p, lane)| (*p, lane.ledger.next_offset))
            .collect();
        table
    }

    fn cut(&mut self, epoch: u64, lanes: &mut Lanes, names: &Names) {
        let shape = shape();
        let mut rows = Vec::new();
        let through = frontier(lanes);
        if let Some(through) = through {
            close(lanes, &shape, through, |window| rows.extend(window));
        }
        let before = self.epochs.last().cloned();
        let mut ledger = before
            .as_ref()
            .map(|commit| commit.ledger)
            .unwrap_or_default();
        ledger.rows += rows.len() as u64;
        ledger.row_count += rows.iter().map(|row| row.count).sum::<u64>();
        let mut sums = crate::values::ledger::TableLedger {
            rows: ledger.rows,
            row_count: ledger.row_count,
            ..Default::default()
        };
        for lane in lanes.values() {
            sums.add(&lane.ledger);
            sums.open += lane.open_count();
            sums.closed += lane.closed_count();
        }
        let files = self.put(epoch, &rows, names);
        let lane_commit = |(partition, lane): (&Partition, &mut Lane)| {
            let from = before
                .as_ref()
                .and_then(|commit| Some(commit.lanes.get(partition)?.to));
            let commit = LaneCommit {
                from: from.unwrap_or_default(),
                to: lane.ledger.next_offset,
                leader_epoch: -1,
                epoch_mark: None,
                watermark: lane.watermark(),
                ledger: lane.ledger,
                held: lane.open_count() + lane.closed_count(),
                newest: lane.newest(),
            };
            (*partition, commit)
        };
        let decisions = lanes.values_mut().flat_map(Lane::take_decisions).collect();
        let mut commit = Commit {
            previous: before
                .as_ref()
                .map_or(String::new(), |commit| commit.digest.clone()),
            lanes: lanes.iter_mut().map(lane_commit).collect(),
            decisions,
            closed_through: through,
            ledger: sums,
            files,
            ..Commit::for_tests(epoch)
        };
        commit.seal(names);
        self.epochs.push(commit);
        self.rows.push(rows);
    }

    fn put(&mut self, epoch: u64, rows: &[Row], names: &Names) -> Vec<NewFile> {
        let Some((first, last)) = rows.first().zip(rows.last()) else {
            return Vec::new();
        };
        let bytes = write_rows(&shape(), Timestamps::Micros, rows, &[]);
        let sha256 = sha256_hex(&bytes);
        let file = NewFile {
            kind: FileKind::Rows {
                date: first.start.date(),
            },
            chunk: format!("{epoch:010}"),
            level: Level::Commit,
            key: names.file(&format!("rows/{}", first.start.date()), 1, epoch, &sha256),
            bytes: bytes.len() as u64,
            rows: rows.len() as u64,
            sha256,
            first_window: Some(first.start),
            last_window: Some(last.start),
            as_of: None,
        };
        self.objects.insert(file.key.clone(), bytes.into());
        self.live.push(LiveFile {
            epoch,
            committed_at: DbTime(0),
            file: file.clone(),
        });
        vec![file]
    }

    fn last(&self) -> &Commit {
        self.epochs.last().expect("epoch 0")
    }

    /// Where to begin, when the log begins at this offset of both topic partitions.
    fn start(&self, log_start: Offset, from: Option<EventTime>) -> Option<Start> {
        let log_start = BTreeMap::from([(0, log_start), (1, log_start)]);
        let mut chooser = Chooser::new(log_start, self.last(), from);
        for commit in &self.epochs {
            chooser.take_epoch(commit);
        }
        assert_eq!(chooser.wanted(), None);
        chooser.choose()
    }

    /// What comparing with the log says, and how many rows it gave.
    fn compare(&self, start: &Start, until: Option<EventTime>) -> (Findings, u64) {
        let mut recount = Recount::new(&shape(), start, self.last(), until);
        let scope = Scope {
            after: start.after,
            from: None,
            until,
            through: self.last().closed_through,
            dropped_days: std::collections::BTreeSet::new(),
        };
        let mut comparison = Comparison::new(&shape(), scope, &self.live);
        let mut next = recount.begins();
        while !recount.is_done() {
            let ahead = recount.ahead();
            for (partition, offset) in next.clone() {
                if ahead.contains(&partition) || recount.is_at_goal(partition) {
                    continue;
                }
                // The log goes on behind the last commit.
                take(&mut recount, partition, offset..offset + 7);
                next.insert(partition, offset + 7);
            }
            recount.give_rows(|rows| comparison.expect(&rows));
            while let CompareStep::Fetch { key, range } = comparison.step() {
                comparison.give(self.get(&key, &range));
            }
        }
        recount.give_rows(|rows| comparison.expect(&rows));
        comparison.end();
        while let CompareStep::Fetch { key, range } = comparison.step() {
            comparison.give(self.get(&key, &range));
        }
        let (mut findings, _, _) = comparison.finish();
        findings.append(recount.check_sums());
        (findings, recount.rows())
    }

    fn get(&self, key: &str, range: &std::ops::Range<u64>) -> Option<Bytes> {
        let object = self.objects.get(key)?;
        let at = |n: u64| usize::try_from(n).unwrap().min(object.len());
        Some(object.slice(at(range.start)..at(range.end)))
    }

    /// Writes other rows into a file, and lets the journal go on with the old description.
    fn rewrite(&mut self, file: usize, change: impl FnOnce(&mut Vec<Row>)) {
        let epoch = usize::try_from(self.live[file].epoch).unwrap();
        let mut rows = self.rows[epoch].clone();
        change(&mut rows);
        // Row by row, so that no order is checked.
        let mut bytes = Vec::new();
        for pair in rows.windows(2) {
            assert!(pair[0].start <= pair[1].start, "{bytes:?}");
        }
        bytes.extend(write_rows(&shape(), Timestamps::Micros, &rows, &[]));
        let key = self.live[file].file.key.clone();
        self.live[file].file.bytes = bytes.len() as u64;
        self.objects.insert(key, bytes.into());
    }
}

/// Calls `f` with each of these records.
fn each(
    partition: Partition,
    offsets: std::ops::Range<Offset>,
    mut f: impl FnMut(Offset, &[Record<'_>]),
) {
    for offset in offsets {
        let (timestamp_ms, value) = record(partition, offset);
        let record = Record {
            offset,
            timestamp_ms,
            value: value.as_deref().map(str::as_bytes),
        };
        f(offset, &[record]);
    }
}

fn read(lane: &mut Lane, partition: Partition, offsets: std::ops::Range<Offset>) {
    each(partition, offsets, |_, records| lane.records(&records));
}

fn take(recount: &mut Recount, partition: Partition, offsets: std::ops::Range<Offset>) {
    each(partition, offsets, |offset, records| {
        recount.take(partition, &records, offset + 1);
    });
}

fn kinds(findings: &Findings) -> Vec<(Kind, u64)> {
    findings
        .by_kind
        .iter()
        .map(|(kind, n)| (*kind, *n))
        .collect()
}

#[test]
fn a_count_from_the_first_record_on_gives_the_whole_table() {
    let table = Table::counted(40);
    let start = table.start(0, None).unwrap();
    assert_eq!((start.epoch, start.after), (0, None));
    let (findings, rows) = table.compare(&start, None);
    assert_eq!(findings, Findings::default());
    assert_eq!(rows, table.last().ledger.rows);
    assert!(rows > 60, "{rows}");
    assert!(table.last().ledger.late > 0 && table.last().ledger.rejected > 0);
}

/// Each commit is a beginning, and none of them gives a row that differs.
/// A file that was gone could not be merged with those around it, and then it was put back.
#[test]
fn a_file_between_the_windows_of_a_merged_one_is_compared_in_its_place() {
    let mut table = Table::counted(20);
    let epoch_of = |table: &Table, at: usize| table.live[at].epoch;
    let (before, after) = (epoch_of(&table, 1), epoch_of(&table, 3));
    let rows_of = |epoch: u64| table.rows[usize::try_from(epoch).unwrap()].clone();
    let around = [rows_of(before), rows_of(after)].concat();
    table.live.remove(3);
    table.live.remove(1);
    table.put(before, &around, &Names::new("default", "t"));
    let start = table.start(0, None).unwrap();
    let (findings, rows) = table.compare(&start, None);
    assert_eq!(kinds(&findings), []);
    assert_eq!(rows, table.last().ledger.rows);
}

#[test]
fn a_count_from_any_commit_on_gives_the_windows_behind_it() {
    let table = Table::counted(40);
    let mut some = 0;
    for epoch in 0..40 {
        let commit = &table.epochs[epoch];
        let least = commit.lanes.values().map(|lane| lane.to).min().unwrap();
        let start = table.start(least, None).unwrap();
        assert!(start.epoch >= u64::try_from(epoch).unwrap().saturating_sub(4));
        let (findings, rows) = table.compare(&start, None);
        assert_eq!(findings, Findings::default(), "from epoch {epoch} on");
        some += rows;
    }
    assert!(some > 1000, "{some}");
}

#[test]
fn the_last_commit_that_covers_the_first_window_is_chosen() {
    let table = Table::counted(40);
    let from = EventTime(NOON + 120_000);
    let start = table.start(0, Some(from)).unwrap();
    assert!(start.after.unwrap() < from && start.epoch > 5, "{start:?}");
    let next = &table.epochs[usize::try_from(start.epoch).unwrap() + 1];
    let newest = next.lanes.values().filter_map(|lane| lane.newest).max();
    assert!(newest.unwrap() >= from);
    assert_eq!(table.compare(&start, None).0, Findings::default());
    let until = EventTime(NOON + 150_000);
    let (findings, rows) = table.compare(&start, Some(until));
    assert_eq!(findings, Findings::default());
    assert!(rows < 60, "{rows}");
    // The log begins later than that, so the earliest commit that it has is the best.
    let start = table.start(250, Some(from)).unwrap();
    assert!(start.after.unwrap() > from);
    // Nothing is left to count, and the log is empty.
    assert_eq!(table.start(1_000, None).map(|start| start.epoch), Some(39));
}

#[test]
fn folded_commits_are_beginnings_too() {
    let table = Table::counted(40);
    let manifest = |from: usize, to: usize| {
        let mut history = History::of(&table.epochs[from], DbTime(0));
        for commit in &table.epochs[from + 1..=to] {
            history.push(commit, DbTime(0)).unwrap();
        }
        DayManifest {
            made_at: DbTime(0),
            history,
            last: table.epochs[to].clone(),
            live: Vec::new(),
        }
    };
    let days = [manifest(1, 10), manifest(11, 20), manifest(21, 30)];
    let choose = |log_start: Offset, from: Option<i64>| {
        let log_start = BTreeMap::from([(0, log_start), (1, log_start)]);
        let from = from.map(|ms| EventTime(NOON + ms));
        let mut chooser = Chooser::new(log_start, table.last(), from);
        chooser.take_epoch(&table.epochs[0]);
        for day in &days {
            chooser.take_history(&day.history, &day.history.last_epoch.to_string());
        }
        for commit in &table.epochs[31..] {
            chooser.take_epoch(commit);
        }
        let mut asked = Vec::new();
        while let Some(key) = chooser.wanted().map(str::to_owned) {
            let day = days.iter().find(|day| day.last.epoch.to_string() == key);
            asked.push(key);
            chooser.give(day.map(|day| &day.last));
        }
        let start = chooser.choose().unwrap();
        let (findings, _) = table.compare(&start, None);
        assert_eq!(findings, Findings::default());
        (start.epoch, asked)
    };
    assert_eq!(choose(0, None), (0, vec![]));
    assert_eq!(choose(130, None), (20, vec!["20".to_owned()]));
    assert_eq!(choose(290, None).0, 33);
    let days = |list: &[&str]| list.iter().map(|day| (*day).to_owned()).collect::<Vec<_>>();
    assert_eq!(choose(0, Some(160_000)), (20, days(&["30", "20"])));
    assert_eq!(choose(0, Some(260_000)).0, 36);
    assert_eq!(choose(0, Some(20_000)), (0, days(&["30", "20", "10"])));
}

#[test]
#[expect(clippy::too_many_lines, reason = "one list of damages")]
fn each_damage_of_a_file_is_named() {
    type Damage = fn(&mut Table);
    let damages: [(Damage, &[Kind]); 7] = [
        (
            |t| {
                t.objects.remove(&t.live[4].file.key.clone());
            },
            &[Kind::FileMissing],
        ),
        (
            |t| {
                let key = t.live[4].file.key.clone();
                let cut = t.objects[&key].slice(..100);
                t.objects.insert(key, cut);
            },
            &[Kind::FileDamaged],
        ),
        (
            |t| {
                let key = t.live[4].file.key.clone();
                let other = t.objects[&t.live[5].file.key].clone();
                t.live[4].file.bytes = other.len() as u64;
                t.objects.insert(key, other);
            },
            &[Kind::RowMissing, Kind::RowExtra, Kind::FileHash],
        ),
        (
            |t| t.rewrite(4, |rows| rows[0].count += 1),
            &[Kind::RowDiffers, Kind::FileHash],
        ),
        (
            |t| {
                t.rewrite(4, |rows| {
                    rows.pop();
                });
            },
            &[Kind::RowMissing, Kind::FileHash, Kind::FileRows],
        ),
        (
            |t| {
                let more = Row {
                    key: Arc::from(&*Key::of(&[Some("zz")]).0),
                    ..t.rows[usize::try_from(t.live[4].epoch).unwrap()][0].clone()
                };
                t.rewrite(4, |rows| {
                    rows.push(more);
                    rows.sort_by(|a, b| (a.start, &a.key).cmp(&(b.start, &b.key)));
                });
            },
            &[Kind::RowExtra, Kind::FileHash, Kind::FileRows],
        ),
        (
            // A file is shown twice, as by a second table partition of the same rows.
            |t| {
                let mut again = t.live[4].clone();
                again.file.key += "x";
                let bytes = t.objects[&t.live[4].file.key].clone();
                t.objects.insert(again.file.key.clone(), bytes);
                t.live.push(again);
            },
            &[Kind::RowDoubled],
        ),
    ];
    for (i, (damage, expect)) in damages.into_iter().enumerate() {
        let mut table = Table::counted(40);
        damage(&mut table);
        let start = table.start(0, None).unwrap();
        let (findings, _) = table.compare(&start, None);
        let found: Vec<Kind> = findings.by_kind.keys().copied().collect();
        for kind in expect {
            assert!(found.contains(kind), "damage {i}: {findings:#?}");
        }
        let more: Vec<_> = found.iter().filter(|kind| !expect.contains(kind)).collect();
        assert!(
            more.iter().all(|kind| matches!(kind, Kind::RowOutOfOrder)),
            "damage {i}: {findings:#?}"
        );
    }
}

#[test]
fn a_log_that_has_changed_is_named() {
    let table = Table::counted(20);
    let mut start = table.start(0, None).unwrap();
    let place = start.lanes.get_mut(&0).unwrap();
    // As if a record had been there that is no longer.
    place.ledger.counted += 1;
    place.ledger.hits += 1;
    let (findings, _) = table.compare(&start, None);
    assert_eq!(kinds(&findings), [(Kind::Log, 1)]);
    let text = &findings.findings[0].text;
    assert!(text.contains("gives a ledger that differs"), "{text}");
}

fn entry(commit: &Commit) -> EpochEntry {
    EpochEntry {
        epoch: commit.epoch,
        digest: commit.digest.clone(),
        manifest: commit.manifest.clone(),
        committed_at: DbTime(0),
        said: Ok(commit.clone()),
    }
}

/// What an audit says of these epochs and files.
fn audit(table: &Table, entries: &[EpochEntry]) -> Findings {
    let mut audit = Audit::default();
    let head = crate::table::commit::Head {
        genesis: crate::table::commit::Genesis {
            shape: shape(),
            warehouse: crate::table::place::Place::default_in("b"),
            cluster_id: String::new(),
            topic_id: String::new(),
            start_offsets: BTreeMap::new(),
            empty_file: String::new(),
            adopted: None,
        },
        last: table.last().clone(),
        committed_at: DbTime(0),
        checkpoint: None,
        decisions: Vec::new(),
        earlier: None,
        paused: false,
    };
    audit.take_head(&head);
    for entry in entries {
        audit.take_epoch(entry);
    }
    for live in &table.live {
        audit.take_file(live.clone());
    }
    audit.check_files(None);
    for unproven in audit.unproven().to_vec() {
        let epoch = usize::try_from(unproven.epoch).unwrap();
        let manifest = serde_json::to_vec(&table.epochs[epoch]).unwrap();
        audit.check_manifest(&unproven, Some(&manifest));
    }
    audit.take_findings()
}

#[test]
fn a_journal_as_it_was_written_has_no_differences() {
    let table = Table::counted(20);
    let entries: Vec<EpochEntry> = table.epochs.iter().map(entry).collect();
    assert_eq!(audit(&table, &entries), Findings::default());
}

#[test]
fn each_damage_of_the_journal_is_named() {
    type Damage = fn(&mut Table, &mut Vec<EpochEntry>);
    let damages: [(Damage, &[Kind]); 6] = [
        (
            |_, entries| {
                entries.remove(7);
            },
            &[Kind::FileList, Kind::EpochChain],
        ),
        (
            |_, entries| entries[7].said.as_mut().unwrap().ledger.counted += 1,
            &[Kind::EpochAltered],
        ),
        (
            |_, entries| {
                let lanes = &mut entries[7].said.as_mut().unwrap().lanes;
                lanes.get_mut(&0).unwrap().ledger.late += 1;
            },
            &[Kind::EpochAltered, Kind::Ledger],
        ),
        (
            |_, entries| entries[7].digest = "other".to_owned(),
            &[Kind::EpochAltered, Kind::EpochChain],
        ),
        (
            |_, entries| entries[7].said = Err("expected value at line 1".to_owned()),
            &[Kind::EpochAltered, Kind::FileList],
        ),
        (
            |table, _| {
                table.live.remove(3);
                table.live[3].file.rows += 1;
            },
            &[Kind::FileList],
        ),
    ];
    for (i, (damage, expect)) in damages.into_iter().enumerate() {
        let mut table = Table::counted(20);
        let mut entries: Vec<EpochEntry> = table.epochs.iter().map(entry).collect();
        damage(&mut table, &mut entries);
        let findings = audit(&table, &entries);
        let found: Vec<Kind> = findings.by_kind.keys().copied().collect();
        for kind in expect {
            assert!(found.contains(kind), "damage {i}: {findings:#?}");
        }
    }
}

#[test]
fn nothing_is_counted_across_an_epoch_that_is_missing() {
    let table = Table::counted(40);
    let log_start = BTreeMap::from([(0, 0), (1, 0)]);
    let mut chooser = Chooser::new(log_start, table.last(), None);
    for commit in table.epochs.iter().filter(|commit| commit.epoch != 9) {
        chooser.take_epoch(commit);
    }
    let why = "what was counted before epoch 10 cannot be counted again: epoch 9 is missing or \
               cannot be read";
    assert_eq!(chooser.notes(), [why]);
    let start = chooser.choose().unwrap();
    assert_eq!(start.epoch, 10);
    assert_eq!(table.compare(&start, None).0, Findings::default());
}

#[test]
fn an_epoch_with_numbers_that_cannot_be_is_named_and_not_used() {
    let table = Table::counted(20);
    for damage in [
        |commit: &mut Commit| commit.lanes.get_mut(&0).unwrap().newest = Some(EventTime(i64::MAX)),
        |commit: &mut Commit| commit.ledger.hits = u64::MAX,
        |commit: &mut Commit| commit.closed_through = Some(EventTime(i64::MIN)),
    ] {
        let mut entries: Vec<EpochEntry> = table.epochs.iter().map(entry).collect();
        damage(entries[7].said.as_mut().unwrap());
        let findings = audit(&table, &entries);
        assert!(findings.by_kind.contains_key(&Kind::EpochAltered));
        let mut audit = Audit::default();
        assert!(audit.take_epoch(&entries[7]).is_none());
    }
}
