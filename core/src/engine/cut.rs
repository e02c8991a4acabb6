//! What is in an epoch: files, checkpoint and manifest, made in memory at one line through all
//! lanes. Nothing is stored here. Reading goes on at once; the epoch's way into the catalog is in
//! `flight`.

use super::rules::Rules;
use super::step::{Break, Step};
use super::table::Table;
use super::topic::Topic;
use super::upkeep::Swap;
use crate::count::checkpoint;
use crate::count::lane::Lane;
use crate::table::commit::{CheckpointAt, Commit, FileKind, Genesis, LaneCommit, NewFile, Owner};
use crate::table::compaction::Level;
use crate::table::file::{self, RowsFile};
use crate::table::place::Names;
use crate::values::digest::{hex, sha256_hex};
use crate::values::ledger::TableLedger;
use crate::values::record::{EpochMark, Partition};
use crate::values::row::Row;
use crate::values::time::EventTime;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Milliseconds of a day.
const DAY_MS: i64 = 86_400_000;

/// Objects that must be stored before an epoch is committed: their keys and bytes.
pub(super) type Objects = BTreeMap<String, Arc<Vec<u8>>>;

/// An epoch in memory.
pub(super) struct Cut {
    pub(super) commit: Commit,
    pub(super) objects: Objects,
    /// The topic partitions that are in this epoch for the first time.
    pub(super) joined: Vec<Partition>,
}

/// Draws the line: everything up to the lanes' next offsets becomes one epoch.
///
/// # Errors
/// The ledger does not add up: nothing may be committed.
pub(super) fn cut(
    table: &mut Table,
    owner: &Owner,
    topic: &Topic,
    genesis: Option<Genesis>,
    step: &Step<'_>,
) -> Result<Cut, Break> {
    let epoch = table.next_epoch();
    let frontier = table.frontier();
    let joined = table.join(frontier, step);
    let mut rows = RowsFiles::new(step);
    table.close(frontier, &step.rules.shape, |window| rows.add(window));
    let ledger = table.ledger();
    table.check_ledger(&ledger)?;
    let lanes = lane_commits(table);
    let mut files = Files::new(owner, epoch, footer(epoch, &lanes, &ledger), step);
    files.add_rows(rows);
    files.add_side_tables(table);
    let Files {
        files, mut objects, ..
    } = files;
    if genesis.is_some() {
        let (key, bytes) = empty_file(step.rules, step.names);
        objects.insert(key, Arc::new(bytes));
    }
    let decisions = table.take_from_lanes(Lane::take_decisions);
    let checkpoint = write_checkpoint(table, owner, epoch, ledger.consumed, &mut objects, step);
    let mut commit = Commit {
        owner: owner.clone(),
        epoch,
        previous: table
            .last()
            .map_or(String::new(), |last| last.digest.clone()),
        genesis,
        lanes,
        topic_id: topic.id().to_owned(),
        cluster_id: topic.cluster_id().to_owned(),
        left_topic_ids: topic.left_ids().to_vec(),
        decisions: decisions.into_iter().flatten().collect(),
        closed_through: frontier,
        ledger,
        files,
        retired: Vec::new(),
        checkpoint,
        manifest: String::new(),
        digest: String::new(),
    };
    commit.seal(step.names);
    let manifest = serde_json::to_vec(&commit).expect("plain values");
    objects.insert(commit.manifest.clone(), Arc::new(manifest));
    table.note_cut(frontier, step.now);
    Ok(Cut {
        commit,
        objects,
        joined,
    })
}

/// A table commit that changes only what readers see: it replaces files or drops them. Topic
/// partitions, windows and sums stay as in the last commit.
pub(super) fn cut_swap(last: &Commit, owner: &Owner, swap: Swap, step: &Step<'_>) -> Cut {
    let mut lanes = last.lanes.clone();
    lanes.values_mut().for_each(|lane| lane.from = lane.to);
    let mut commit = Commit {
        owner: owner.clone(),
        epoch: last.epoch + 1,
        previous: last.digest.clone(),
        genesis: None,
        lanes,
        decisions: Vec::new(),
        files: swap.files,
        retired: swap.retired,
        checkpoint: None,
        manifest: String::new(),
        digest: String::new(),
        ..last.clone()
    };
    commit.seal(step.names);
    let manifest = serde_json::to_vec(&commit).expect("plain values");
    Cut {
        objects: Objects::from([(commit.manifest.clone(), Arc::new(manifest))]),
        commit,
        joined: Vec::new(),
    }
}

/// The file without rows that a table partition shows once its own file was replaced: its key and
/// its bytes.
pub(super) fn empty_file(rules: &Rules, names: &Names) -> (String, Vec<u8>) {
    let bytes = file::write_rows(&rules.shape, rules.timestamps, &[], &[]);
    (names.empty_file(&sha256_hex(&bytes)), bytes)
}

fn lane_commits(table: &Table) -> BTreeMap<Partition, LaneCommit> {
    let lane_commit = |(partition, lane): (&Partition, &Lane)| {
        let from = table.committed().get(partition).copied();
        let commit = LaneCommit {
            from: from.unwrap_or(lane.ledger.start_offset),
            to: lane.ledger.next_offset,
            leader_epoch: EpochMark::leader_epoch_at(lane.epoch_mark(), lane.ledger.next_offset),
            epoch_mark: EpochMark::below(lane.epoch_mark(), lane.ledger.next_offset),
            watermark: lane.watermark(),
            ledger: lane.ledger,
            held: lane.open_count() + lane.closed_count(),
            newest: lane.newest(),
        };
        (*partition, commit)
    };
    table.lanes().iter().map(lane_commit).collect()
}

/// The lineage in each file's footer.
fn footer(
    epoch: u64,
    lanes: &BTreeMap<Partition, LaneCommit>,
    ledger: &TableLedger,
) -> Vec<(String, String)> {
    let offsets: BTreeMap<_, _> = lanes
        .iter()
        .map(|(p, lane)| (p, (lane.from, lane.to)))
        .collect();
    let text = |value: serde_json::Result<String>| value.expect("plain values");
    vec![
        ("windrow.epoch".to_owned(), epoch.to_string()),
        (
            "windrow.ledger".to_owned(),
            text(serde_json::to_string(ledger)),
        ),
        (
            "windrow.offsets".to_owned(),
            text(serde_json::to_string(&offsets)),
        ),
    ]
}

/// The files of the table's own rows as they are made, each of one day and of at most so many rows.
/// Their footers need the ledger, which is known once all rows are.
struct RowsFiles<'a> {
    rules: &'a Rules,
    files: Vec<RowsOf>,
}

/// A file of the rows of one day.
struct RowsOf {
    day: i64,
    /// In a file's path: `2024-09-01`.
    date: String,
    /// Counts the files of one day from 0.
    part: usize,
    /// The least start of a window.
    first: EventTime,
    /// The greatest one.
    last: EventTime,
    file: RowsFile,
}

impl<'a> RowsFiles<'a> {
    fn new(step: &Step<'a>) -> Self {
        Self {
            rules: step.rules,
            files: Vec::new(),
        }
    }

    /// Adds the rows of the next window.
    fn add(&mut self, rows: Vec<Row>) {
        let shape = &self.rules.shape;
        for row in rows {
            let (day, start) = (row.start.0.div_euclid(DAY_MS), row.start);
            let of_this_day = self.files.last().filter(|of| of.day == day);
            let part = match of_this_day {
                Some(of) if of.file.count() < self.rules.limits.file_rows => of.part,
                of => of.map_or(0, |of| of.part + 1),
            };
            if of_this_day.is_none_or(|of| of.part != part) {
                self.files.push(RowsOf {
                    day,
                    date: start.date(),
                    part,
                    first: start,
                    last: start,
                    file: RowsFile::new(shape, self.rules.timestamps),
                });
            }
            let of = self.files.last_mut().expect("it was added");
            of.last = start;
            of.file.push(shape, [row]);
        }
    }
}

/// The files of one epoch, as they are made.
struct Files<'a> {
    owner: &'a Owner,
    epoch: u64,
    footer: Vec<(String, String)>,
    step: &'a Step<'a>,
    files: Vec<NewFile>,
    objects: Objects,
}

impl<'a> Files<'a> {
    fn new(
        owner: &'a Owner,
        epoch: u64,
        footer: Vec<(String, String)>,
        step: &'a Step<'a>,
    ) -> Self {
        Self {
            owner,
            epoch,
            footer,
            step,
            files: Vec::new(),
            objects: Objects::new(),
        }
    }

    /// Adds a file. `part` counts the files of one day from 0; `windows` are the least and the
    /// greatest `window.start`.
    fn add(
        &mut self,
        kind: FileKind,
        part: usize,
        rows: usize,
        windows: Option<(EventTime, EventTime)>,
        bytes: Vec<u8>,
    ) {
        let folder = match &kind {
            FileKind::Rows { date } => format!("rows/{date}"),
            FileKind::Late => "late".to_owned(),
            FileKind::Rejects => "rejects".to_owned(),
        };
        let sha256 = sha256_hex(&bytes);
        let key = self
            .step
            .names
            .file(&folder, self.owner.term, self.epoch, &sha256);
        let epoch = self.epoch;
        self.files.push(NewFile {
            kind,
            chunk: if part == 0 {
                format!("{epoch:010}")
            } else {
                format!("{epoch:010}-{part}")
            },
            level: Level::Commit,
            key: key.clone(),
            bytes: bytes.len() as u64,
            rows: rows as u64,
            sha256,
            first_window: windows.map(|w| w.0),
            last_window: windows.map(|w| w.1),
            as_of: None,
        });
        self.objects.insert(key, Arc::new(bytes));
    }

    /// Adds the files of the table's own rows.
    fn add_rows(&mut self, rows: RowsFiles<'_>) {
        for of_rows in rows.files {
            let RowsOf {
                date,
                part,
                first,
                last,
                file,
                ..
            } = of_rows;
            let count = file.count();
            let bytes = file.finish(&self.step.rules.shape, &self.footer);
            self.add(
                FileKind::Rows { date },
                part,
                count,
                Some((first, last)),
                bytes,
            );
        }
    }

    /// Adds the late records and the rejects, and takes them out of the lanes.
    fn add_side_tables(&mut self, table: &mut Table) {
        let (mut late, mut rejects) = (Vec::new(), Vec::new());
        table.take_from_lanes(|lane| {
            let (more_late, more_rejects) = lane.take_side_rows();
            late.extend(more_late);
            rejects.extend(more_rejects);
        });
        // The records are already in order, except after a truncation: then one epoch may hold
        // records from before the cut and from after it.
        late.sort_by_key(|row| (row.partition, row.offset));
        rejects.sort_by_key(|row| (row.partition, row.offset));
        let (shape, timestamps) = (&self.step.rules.shape, self.step.rules.timestamps);
        if !late.is_empty() {
            let bytes = file::write_late(
                &shape.topic,
                timestamps,
                &shape.group_by,
                &late,
                &self.footer,
            );
            self.add(FileKind::Late, 0, late.len(), None, bytes);
        }
        if !rejects.is_empty() {
            let bytes = file::write_rejects(&shape.topic, timestamps, &rejects, &self.footer);
            self.add(FileKind::Rejects, 0, rejects.len(), None, bytes);
        }
    }
}

/// Writes the checkpoint, if this epoch carries one.
fn write_checkpoint(
    table: &mut Table,
    owner: &Owner,
    epoch: u64,
    consumed: u64,
    objects: &mut Objects,
    step: &Step<'_>,
) -> Option<CheckpointAt> {
    if !table.take_checkpoint_due(consumed, step) {
        return None;
    }
    let lanes = table.lanes().iter().map(|(p, lane)| (*p, lane));
    let bytes = checkpoint::encode(lanes, step.rules.shape.group_by.len());
    if bytes.len() <= step.rules.limits.checkpoint_inline_bytes {
        return Some(CheckpointAt::Inline(hex(&bytes)));
    }
    let key = step
        .names
        .object("checkpoints", owner.term, epoch, &sha256_hex(&bytes));
    objects.insert(key.clone(), Arc::new(bytes));
    Some(CheckpointAt::Object(key))
}
