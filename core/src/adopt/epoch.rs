//! Epoch 0 of an adopted table: the job's rows in files of windrow's, and where counting goes on.
//!
//! A file holds rows of one UTC day of `window.start`. A day that is closed is written as
//! compaction would write it, so it is never written again.

use crate::adopt::job::Plan;
use crate::count::checkpoint;
use crate::count::lane::Lane;
use crate::table::commit::{CheckpointAt, Commit, FileKind, Genesis, LaneCommit, NewFile, Owner};
use crate::table::compaction::{Level, Period, Times};
use crate::table::file::Timestamps;
use crate::table::file::{FORMAT_REV, RowsFile};
use crate::table::place::Names;
use crate::values::decision::Decided;
use crate::values::digest::{hex, sha256_hex};
use crate::values::ledger::TableLedger;
use crate::values::row::Row;
use crate::values::shape::Shape;
use crate::values::time::EventTime;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

const DAY_MS: i64 = 86_400_000;

/// The number of the UTC day that a window starts in, counted from 1970-01-01.
#[must_use]
pub fn day_of(start: EventTime) -> i64 {
    start.0.div_euclid(DAY_MS)
}

/// Days that are sorted together: as many that follow each other as have at most `rows_max` rows
/// between them, and at least one. `rows` is how many rows each day has.
#[must_use]
pub fn pieces(rows: &BTreeMap<i64, u64>, rows_max: u64) -> Vec<RangeInclusive<i64>> {
    let mut pieces: Vec<(RangeInclusive<i64>, u64)> = Vec::new();
    for (day, rows) in rows {
        match pieces.last_mut() {
            Some((days, sum)) if *sum + rows <= rows_max => {
                *days = *days.start()..=*day;
                *sum += rows;
            }
            _ => pieces.push((*day..=*day, *rows)),
        }
    }
    pieces.into_iter().map(|(days, _)| days).collect()
}

/// What all files of an adopted table have in common.
#[derive(Clone, Copy, Debug)]
pub struct Files<'a> {
    /// The settings that shape rows.
    pub shape: &'a Shape,
    /// How times are stored.
    pub timestamps: Timestamps,
    /// How many rows a file has at most.
    pub file_rows: usize,
    /// The names of the table's objects.
    pub names: &'a Names,
    /// The term of the owner.
    pub term: u64,
    /// The windows that end here or earlier are closed.
    pub through: EventTime,
}

impl Files<'_> {
    /// Sorts the rows of some days and makes their files, each with its bytes.
    ///
    /// # Errors
    /// The job has written a window twice, or one that it must not have closed yet; as the end of a
    /// sentence.
    pub fn write(&self, mut rows: Vec<Row>) -> Result<Vec<(NewFile, Vec<u8>)>, String> {
        if let Some(row) = rows.iter().find(|row| row.end > self.through) {
            return Err(format!(
                "it has a row of the window {} to {}, but its checkpoint has closed windows \
                 through {} only: the checkpoint is of another table",
                row.start, row.end, self.through
            ));
        }
        rows.sort_unstable_by(|a, b| (a.start, a.end, &a.key).cmp(&(b.start, b.end, &b.key)));
        let is_twice = |two: &&[Row]| (two[0].start, &two[0].key) == (two[1].start, &two[1].key);
        if let Some(two) = rows.windows(2).find(is_twice) {
            return Err(format!(
                "it has two rows of one key in the window {} to {}, so two jobs have written it; \
                 remove one of them from the table first",
                two[0].start, two[0].end
            ));
        }
        let mut files = Vec::new();
        let days = rows.chunk_by(|a, b| day_of(a.start) == day_of(b.start));
        for of_day in days {
            for (part, rows) in of_day.chunks(self.file_rows).enumerate() {
                files.push(self.write_file(part, rows));
            }
        }
        Ok(files)
    }

    /// `rows` are sorted, of one day, and at least one; `part` counts the files of a day from 0.
    fn write_file(&self, part: usize, rows: &[Row]) -> (NewFile, Vec<u8>) {
        let (first, last) = (rows[0].start, rows[rows.len() - 1].start);
        let period = Period::of(Level::Day, first, &Times::default());
        let level = match period.is_closed(self.shape, self.through) {
            true => Level::Day,
            false => Level::Commit,
        };
        let mut file = RowsFile::new(self.shape, self.timestamps);
        file.push(self.shape, rows.iter().cloned());
        let footer = [("windrow.format".to_owned(), FORMAT_REV.to_string())];
        let bytes = file.finish(self.shape, &footer);
        let (date, sha256) = (first.date(), sha256_hex(&bytes));
        let folder = format!("rows/{date}");
        let chunk = match part {
            0 => format!("{:010}", 0),
            part => format!("{:010}-{part}", 0),
        };
        let file = NewFile {
            key: self.names.file(&folder, self.term, 0, &sha256),
            kind: FileKind::Rows { date },
            chunk,
            level,
            bytes: bytes.len() as u64,
            rows: rows.len() as u64,
            sha256,
            first_window: Some(first),
            last_window: Some(last),
            as_of: None,
        };
        (file, bytes)
    }
}

/// Epoch 0 of an adopted table. `delay_ms` is the watermark delay of the settings. As in any epoch
/// 0, there is a checkpoint of nothing counted yet, unless it has more than `inline_max_bytes`:
/// without it, a restart begins at the start offsets with the decisions, which is the same.
#[must_use]
pub fn epoch_0(
    owner: &Owner,
    genesis: Genesis,
    plan: &Plan,
    delay_ms: i64,
    files: Vec<NewFile>,
    names: &Names,
    inline_max_bytes: usize,
) -> Commit {
    let (mut lanes, mut commits) = (Vec::new(), BTreeMap::new());
    let mut decisions = Vec::new();
    for (partition, start) in &plan.start_offsets {
        let mut lane = Lane::new(*partition, &genesis.shape, *start);
        lane.set_delay(delay_ms);
        lane.decide(Decided::Adopted {
            through: plan.through,
            to: plan.next_offsets[partition],
        });
        decisions.extend(lane.take_decisions());
        let commit = LaneCommit {
            from: *start,
            to: *start,
            leader_epoch: -1,
            epoch_mark: None,
            watermark: lane.watermark(),
            ledger: lane.ledger,
            held: 0,
            newest: None,
        };
        commits.insert(*partition, commit);
        lanes.push((*partition, lane));
    }
    let key_columns = genesis.shape.group_by.len();
    let states = checkpoint::encode(lanes.iter().map(|(p, lane)| (*p, lane)), key_columns);
    let is_small = states.len() <= inline_max_bytes;
    let mut commit = Commit {
        owner: owner.clone(),
        epoch: 0,
        previous: String::new(),
        topic_id: genesis.topic_id.clone(),
        cluster_id: genesis.cluster_id.clone(),
        left_topic_ids: Vec::new(),
        genesis: Some(genesis),
        lanes: commits,
        decisions,
        closed_through: Some(plan.through),
        ledger: TableLedger::default(),
        files,
        retired: Vec::new(),
        checkpoint: is_small.then(|| CheckpointAt::Inline(hex(&states))),
        manifest: String::new(),
        digest: String::new(),
    };
    commit.seal(names);
    commit
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::count::lane::LaneState;
    use crate::values::digest::unhex;
    use crate::values::record::Key;
    use std::sync::Arc;

    const HOUR_MS: i64 = 3_600_000;

    fn row(start: i64, key: &str) -> Row {
        Row {
            start: EventTime(start),
            end: EventTime(start + HOUR_MS),
            key: Arc::from(Key::of(&[Some(key)]).0),
            count: 1,
            accs: Box::default(),
        }
    }

    fn write(rows: Vec<Row>, through: i64) -> Result<Vec<NewFile>, String> {
        let shape = Shape::count_by_origin("clicks", HOUR_MS, HOUR_MS);
        let files = Files {
            shape: &shape,
            timestamps: Timestamps::Micros,
            file_rows: 2,
            names: &Names::new("default", "newtable"),
            term: 3,
            through: EventTime(through),
        };
        let written = files.write(rows)?;
        Ok(written.into_iter().map(|(file, _)| file).collect())
    }

    #[test]
    fn rows_in_any_order_become_sorted_files_of_one_day_each() {
        let (day, second) = (DAY_MS, DAY_MS + HOUR_MS);
        let rows = vec![
            row(second, "a"),
            row(0, "b"),
            row(day, "a"),
            row(0, "a"),
            row(day, "b"),
        ];
        let files = write(rows, 2 * DAY_MS - 1).unwrap();
        let of = |file: &NewFile| {
            let date = file.kind.date().to_owned();
            (date, file.chunk.clone(), file.level, file.rows)
        };
        let expect =
            |date: &str, chunk: &str, level, rows| (date.to_owned(), chunk.to_owned(), level, rows);
        assert_eq!(
            files.iter().map(of).collect::<Vec<_>>(),
            [
                expect("1970-01-01", "0000000000", Level::Day, 2),
                expect("1970-01-02", "0000000000", Level::Commit, 2),
                expect("1970-01-02", "0000000000-1", Level::Commit, 1),
            ]
        );
    }

    #[test]
    fn rows_that_the_job_cannot_have_written_are_refused() {
        let twice = write(vec![row(0, "a"), row(0, "b"), row(0, "a")], DAY_MS);
        assert!(twice.unwrap_err().contains("two rows of one key"));
        let open = write(vec![row(0, "a")], HOUR_MS - 1);
        assert!(
            open.unwrap_err()
                .contains("the checkpoint is of another table")
        );
    }

    #[test]
    fn a_restart_goes_on_the_same_with_the_checkpoint_of_epoch_0_and_without_one() {
        let shape = Shape::count_by_origin("clicks", HOUR_MS, HOUR_MS);
        let genesis = Genesis {
            shape: shape.clone(),
            warehouse: "s3a://spark/warehouse".parse().unwrap(),
            cluster_id: String::new(),
            topic_id: String::new(),
            start_offsets: BTreeMap::from([(0, 5)]),
            empty_file: String::new(),
            adopted: None,
        };
        let plan = Plan {
            batch: 1,
            through: EventTime(HOUR_MS),
            next_offsets: BTreeMap::from([(0, 9)]),
            start_offsets: BTreeMap::from([(0, 5)]),
        };
        let owner = Owner {
            term: 1,
            owner_id: "a".to_owned(),
        };
        let names = Names::new("default", "newtable");
        let commit = |inline_max| {
            let genesis = genesis.clone();
            epoch_0(&owner, genesis, &plan, 10, Vec::new(), &names, inline_max)
        };
        let restored = |state: LaneState, decisions| {
            let commit = &commit(0).lanes[&0];
            let mut lane = Lane::restore(0, &shape, state, commit.ledger, decisions);
            lane.begin_replay(commit.watermark, commit.newest);
            assert!(!lane.replaying() && lane.stopped().is_none());
            checkpoint::encode([(0, &lane)], 1)
        };
        let with = commit(16_384);
        let Some(CheckpointAt::Inline(states)) = &with.checkpoint else {
            panic!("it is small");
        };
        let mut states = checkpoint::decode(&unhex(states).unwrap(), &shape).unwrap();
        let state = states.remove(&0).unwrap();
        assert_eq!(state.adoption.map(|adoption| adoption.to), Some(9));
        let without = commit(0);
        assert_eq!(without.checkpoint, None);
        assert_eq!(
            restored(state, Vec::new()),
            restored(LaneState::at_start(5), without.decisions)
        );
    }

    #[test]
    fn days_are_sorted_together_within_the_bound() {
        let rows = BTreeMap::from([(1, 4), (2, 5), (3, 2), (5, 30), (6, 1)]);
        assert_eq!(pieces(&rows, 10), [1..=2, 3..=3, 5..=5, 6..=6]);
        assert_eq!(pieces(&BTreeMap::new(), 10), []);
    }
}
