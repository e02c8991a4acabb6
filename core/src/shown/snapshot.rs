//! One engine, and what its run knows besides → the [`Status`] that everybody is shown.
//! Nothing is asked here and nothing is logged.

use crate::count::lane::Lane;
use crate::engine::{Engine, State as EngineState, StoreAnswer};
use crate::shown::status::{LaneStatus, State, Status, WindowStatus};
use crate::shown::upkeep::compaction_text;
use crate::table::commit::{Commit, FileKind};
use crate::values::cause::Trouble;
use crate::values::record::Partition;
use crate::values::time::EventTime;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How many open windows one snapshot shows, the oldest first. Later ones are left out.
const WINDOWS_MAX: usize = 1000;

/// What a run knows besides its engine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunFacts {
    /// `database.table`.
    pub table: String,
    /// The topic's name.
    pub topic: String,
    /// Windrow's own version.
    pub version: String,
    /// The name by which other processes know this one.
    pub instance: String,
    /// Sums over the committed files of rows.
    pub totals: Totals,
    /// The database's clock at the last commit; `None` before this run has seen one.
    pub last_commit: Option<EventTime>,
    /// Epochs that this run has committed.
    pub commits: u64,
    /// Attempts to store an object or to commit an epoch that failed and were made again.
    pub commit_failures: u64,
    /// Merges of files that this run has made.
    pub compactions: u64,
    /// Merges of files that failed. They are made again, or without the file that is damaged.
    pub compaction_failures: u64,
    /// What merges have moved, also those that failed.
    pub compaction_bytes: MovedBytes,
    /// What the merge that is under way has read so far.
    pub merge_read_bytes: u64,
    /// What is wrong with the secrets; see [`Status::problems`].
    pub problems: String,
    /// Which epochs were lost for good, as a sentence; empty where none were. See
    /// [`Status::problems`].
    pub lost_epochs: String,
}

/// How many bytes went between this process and the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MovedBytes {
    /// From the store.
    pub read: u64,
    /// To the store.
    pub written: u64,
}

impl RunFacts {
    /// Takes an epoch that was committed into the sums. Returns how many rows its files have.
    pub fn count_commit(&mut self, commit: &Commit) -> u64 {
        self.commits += 1;
        let before = self.totals.rows;
        self.totals.add_files(commit);
        let added = self.totals.rows - before;
        self.totals.remove_files(commit);
        added
    }

    /// Takes a merge of files into the counts: what came of it, and what it has moved. Other
    /// answers of the store count for nothing here.
    pub fn note_merge(&mut self, answer: &StoreAnswer, moved: MovedBytes) {
        if let StoreAnswer::Merge { result, .. } = answer {
            match result {
                Ok(_) => self.compactions += 1,
                Err(_) => self.compaction_failures += 1,
            }
            self.compaction_bytes.read += moved.read;
            self.compaction_bytes.written += moved.written;
        }
    }
}

/// Sums over the files of one Hive table that readers see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Totals {
    /// How many files there are.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Their rows.
    pub rows: u64,
    /// The least `window.start`; `None` for the side tables, and while there is no row.
    pub first_window: Option<EventTime>,
    /// The greatest `window.start`; `None` for the side tables, and while there is no row.
    pub last_window: Option<EventTime>,
}

impl Totals {
    /// Adds the files of rows that an epoch shows. Files of the side tables are not counted.
    fn add_files(&mut self, commit: &Commit) {
        for file in &commit.files {
            let FileKind::Rows { .. } = file.kind else {
                continue;
            };
            self.files += 1;
            self.bytes += file.bytes;
            self.rows += file.rows;
            self.first_window = self.first_window.into_iter().chain(file.first_window).min();
            self.last_window = self.last_window.max(file.last_window);
        }
    }

    /// Takes off the files of rows that an epoch no longer shows. Which windows are still there, it
    /// does not say.
    fn remove_files(&mut self, commit: &Commit) {
        for file in &commit.retired {
            let FileKind::Rows { .. } = file.kind else {
                continue;
            };
            self.files = self.files.saturating_sub(1);
            self.bytes = self.bytes.saturating_sub(file.bytes);
            self.rows = self.rows.saturating_sub(file.rows);
        }
    }
}

/// What is wrong, although it hinders nothing, in one line.
fn problems(run: &RunFacts) -> String {
    let texts = [&run.problems, &run.lost_epochs];
    let texts = texts.into_iter().filter(|text| !text.is_empty());
    texts.map(String::as_str).collect::<Vec<_>>().join("; ")
}

/// What a running windrow shows now.
#[must_use]
pub fn snapshot(engine: &Engine, run: &RunFacts) -> Status {
    let (state, why) = state_and_reason(engine);
    let (memory_bytes, memory_limit_bytes) = engine.memory_bytes();
    let (ledger, totals, lanes) = (engine.ledger(), run.totals, lanes(engine));
    let (holder, upkeep) = (engine.frontier_holder(), engine.upkeep());
    Status {
        table: run.table.clone(),
        state,
        reason: why.text,
        cause: why.cause,
        problems: problems(run),
        rows: totals.rows,
        files: totals.files,
        bytes: totals.bytes,
        first_window: totals.first_window,
        last_window: totals.last_window,
        watermark: engine.frontier(),
        frontier_holder: holder.map(|holder| holder.partition),
        frontier_held_because: holder.map_or("", |holder| holder.why).to_owned(),
        frontier_age_ms: engine.frontier_age_ms(),
        // The sum over no lanes would be 0, as if everything were read.
        lag: lanes
            .iter()
            .map(|lane| lane.lag)
            .sum::<Option<u64>>()
            .filter(|_| !lanes.is_empty()),
        epoch: engine.epoch(),
        last_commit: run.last_commit,
        consumed: ledger.consumed,
        counted: ledger.counted,
        late: ledger.late,
        rejected: ledger.rejected,
        tombstones: ledger.tombstones,
        gaps: ledger.gaps,
        lost: ledger.lost,
        lost_hits: ledger.lost_hits,
        adopted: ledger.adopted,
        rows_committed: ledger.rows,
        commits: run.commits,
        commit_failures: run.commit_failures,
        compactions: run.compactions,
        compaction_failures: run.compaction_failures,
        compaction_read_bytes: run.compaction_bytes.read,
        compaction_written_bytes: run.compaction_bytes.written,
        compaction: compaction_text(&upkeep, run.merge_read_bytes),
        compaction_due_merges: upkeep.due.merges,
        compaction_due_files: upkeep.due.files,
        compaction_due_drops: upkeep.due.drops,
        compaction_behind_ms: upkeep.behind_ms,
        compaction_left_out_files: upkeep.left_out,
        verification: String::new(),
        topic: run.topic.clone(),
        owner: engine.holder().unwrap_or(&run.instance).to_owned(),
        version: run.version.clone(),
        memory_bytes,
        memory_limit_bytes,
        lanes,
        windows: open_windows(engine),
    }
}

fn state_and_reason(engine: &Engine) -> (State, Trouble) {
    match engine.state() {
        EngineState::Counting => (State::Counting, Trouble::from("")),
        EngineState::Paused => {
            let mut why = Trouble::from("by an operator; run: windrow resume");
            if let Some(trouble) = engine.commit_trouble() {
                why.text += &format!("; and nothing can be committed: {}", trouble.text);
                why.cause = trouble.cause;
            }
            (State::Paused, why)
        }
        EngineState::Waiting(why) => (State::Waiting, why),
        EngineState::Standby(why) => (State::Standby, why),
        EngineState::Failed(why) => (State::Failed, why),
    }
}

fn lanes(engine: &Engine) -> Vec<LaneStatus> {
    let lane_status = |(partition, lane): (&Partition, &Lane)| {
        let end_offset = engine.log_end(*partition);
        LaneStatus {
            partition: *partition,
            next_offset: lane.ledger.next_offset,
            end_offset,
            // A log that was cut off may end before the next offset.
            lag: end_offset.map(|end| u64::try_from(end - lane.ledger.next_offset).unwrap_or(0)),
            watermark: lane.watermark(),
            idle: engine.is_idle(*partition),
            held_by: engine.held_by(*partition),
            ledger: lane.ledger,
        }
    };
    engine.lanes().iter().map(lane_status).collect()
}

/// The open windows, summed over all topic partitions. A window that is closed in some of them is
/// still shown as open until its row is cut.
fn open_windows(engine: &Engine) -> Vec<WindowStatus> {
    let mut sums: BTreeMap<(i64, i64), BTreeMap<&[u8], u64>> = BTreeMap::new();
    let open: Vec<_> = engine
        .lanes()
        .values()
        .flat_map(Lane::some_open_windows)
        .collect();
    for (start, end, entries) in &open {
        let window = sums.entry((*start, *end)).or_default();
        for entry in entries {
            *window.entry(&entry.key[..]).or_default() += entry.count;
        }
    }
    sums.into_iter()
        .take(WINDOWS_MAX)
        .map(|((start, end), keys)| WindowStatus {
            start: EventTime(start),
            end: EventTime(end),
            keys: keys.len() as u64,
            count: keys.values().sum(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{
        Answer, BrokersAnswer, BrokersRequest, CatalogAnswer, CatalogRequest, Effect, Input,
        MergeFailure, Request, Rules, StoreAnswer, StoreRequest, TopicFacts,
    };
    use crate::table::commit::{
        Acquired, CatalogError, Genesis, Head, LaneCommit, NewFile, Owner, RetiredFile,
    };
    use crate::values::cause::Cause;
    use crate::values::ledger::LaneLedger;
    use crate::values::object::ObjectPage;
    use crate::values::record::Record;
    use crate::values::time::{DbTime, Mono, WallTime};

    /// The database's clock: 2023-11-14 22:13:20 UTC.
    const NOW: i64 = 1_700_000_000_000;

    fn engine() -> Engine {
        Engine::new(Rules::for_tests())
    }

    fn run_facts() -> RunFacts {
        RunFacts {
            table: "default.t".to_owned(),
            instance: "windrow/0".to_owned(),
            ..RunFacts::default()
        }
    }

    /// Every request is answered at once, and well. There is one topic partition, whose log is
    /// empty.
    fn answer(request: Request) -> Option<Answer> {
        let limits = (0, 0);
        Some(match request {
            Request::Catalog(CatalogRequest::Acquire { .. }) => {
                Answer::Catalog(CatalogAnswer::Acquire(Ok(Acquired::Ours {
                    owner: Owner {
                        term: 1,
                        owner_id: "1".to_owned(),
                    },
                    lease_ms: 15_000,
                    now: DbTime(NOW),
                    head: None,
                })))
            }
            Request::Catalog(CatalogRequest::Commit { commit, .. }) => {
                Answer::Catalog(CatalogAnswer::Commit {
                    epoch: commit.epoch,
                    result: Ok(DbTime(NOW)),
                })
            }
            Request::Brokers(BrokersRequest::Topic) => {
                Answer::Brokers(BrokersAnswer::Topic(Ok(TopicFacts {
                    cluster_id: "c".to_owned(),
                    unknown: BTreeMap::new(),
                    topic_id: "1".to_owned(),
                    partitions: BTreeMap::from([(0, limits)]),
                })))
            }
            Request::Brokers(BrokersRequest::TopicId) => {
                Answer::Brokers(BrokersAnswer::TopicId(Ok("1".to_owned())))
            }
            Request::Store(StoreRequest::ListPage { prefix, after }) => {
                Answer::Store(StoreAnswer::ListPage {
                    prefix,
                    after,
                    result: Ok(ObjectPage::default()),
                })
            }
            Request::Store(StoreRequest::Put { key, .. }) => Answer::Store(StoreAnswer::Put {
                key,
                result: Ok(()),
            }),
            _ => return None,
        })
    }

    /// The first tick: the wall clock says the same as the database's.
    fn begin() -> Input<'static> {
        Input::Tick {
            now: Mono(0),
            wall: WallTime(NOW),
        }
    }

    fn step(engine: &mut Engine, input: Input<'_>) {
        let mut effects = Vec::new();
        engine.step(input, &mut effects);
        while !effects.is_empty() {
            for effect in std::mem::take(&mut effects) {
                if let Effect::Ask(request) = effect
                    && let Some(answer) = answer(request)
                {
                    engine.step(Input::Answer(answer), &mut effects);
                }
            }
        }
    }

    #[test]
    fn a_new_engine_waits_and_its_own_name_is_shown_as_the_owner() {
        let status = snapshot(&engine(), &run_facts());
        assert_eq!(
            (status.state, status.cause),
            (State::Waiting, Some(Cause::Starting))
        );
        assert_eq!(
            (&*status.table, &*status.owner, status.epoch),
            ("default.t", "windrow/0", None)
        );
    }

    /// Kafka does not answer. What the catalog says of the table is known all the same.
    #[test]
    fn a_table_that_waits_for_the_topic_is_shown_as_it_was_committed() {
        let mut last = commit();
        (last.ledger.consumed, last.ledger.counted) = (7, 7);
        let ledger = LaneLedger {
            next_offset: 7,
            counted: 7,
            ..LaneLedger::default()
        };
        let lane = LaneCommit {
            from: 0,
            to: 7,
            leader_epoch: -1,
            epoch_mark: None,
            watermark: None,
            ledger,
            held: 0,
            newest: None,
        };
        last.lanes.insert(0, lane);
        let head = Head {
            genesis: Genesis {
                shape: Rules::for_tests().shape,
                warehouse: Rules::for_tests().place.or_default(),
                cluster_id: "c".to_owned(),
                topic_id: "1".to_owned(),
                start_offsets: BTreeMap::from([(0, 0)]),
                empty_file: String::new(),
                adopted: None,
            },
            last,
            committed_at: DbTime(NOW),
            checkpoint: None,
            decisions: Vec::new(),
            earlier: None,
            paused: false,
        };
        let mut engine = engine();
        engine.step(begin(), &mut Vec::new());
        let ours = Acquired::Ours {
            owner: commit().owner,
            lease_ms: 15_000,
            now: DbTime(NOW),
            head: Some(Box::new(head)),
        };
        engine.step(CatalogAnswer::Acquire(Ok(ours)).into(), &mut Vec::new());
        let status = snapshot(&engine, &run_facts());
        assert_eq!((status.state, status.epoch), (State::Waiting, Some(1)));
        assert_eq!((status.consumed, status.counted), (7, 7));
        assert_eq!((status.lag, status.lanes.len()), (None, 0), "not 0");
    }

    #[test]
    fn a_pause_does_not_hide_that_nothing_can_be_committed() {
        let mut engine = engine();
        step(&mut engine, begin());
        step(&mut engine, Input::Paused(true));
        let status = snapshot(&engine, &run_facts());
        assert_eq!((status.state, status.cause), (State::Paused, None));
        assert_eq!(status.reason, "by an operator; run: windrow resume");
        let error = CatalogError::Retry(Trouble::new(Cause::LoginCatalog, "no such role"));
        step(&mut engine, CatalogAnswer::Renew(Err(error)).into());
        let status = snapshot(&engine, &run_facts());
        assert_eq!(
            (status.state, status.cause),
            (State::Paused, Some(Cause::LoginCatalog))
        );
        assert_eq!(
            status.reason,
            "by an operator; run: windrow resume; and nothing can be committed: no such role"
        );
    }

    #[test]
    fn a_wait_at_the_start_does_not_hide_a_pause() {
        let mut engine = engine();
        engine.step(begin(), &mut Vec::new());
        let ours =
            answer(Request::Catalog(CatalogRequest::Acquire { over: None })).expect("an answer");
        engine.step(Input::Answer(ours), &mut Vec::new());
        engine.step(Input::Paused(true), &mut Vec::new());
        let no_topic = Trouble::new(Cause::NoTopic, "no such topic");
        let answer = BrokersAnswer::Topic(Err(no_topic));
        engine.step(answer.into(), &mut Vec::new());
        let status = snapshot(&engine, &run_facts());
        assert_eq!(
            (status.state, status.cause),
            (State::Waiting, Some(Cause::NoTopic))
        );
        let reason = &status.reason;
        assert!(
            reason.starts_with("no such topic; the table is also paused"),
            "{reason}"
        );
    }

    #[test]
    fn a_standby_shows_who_has_the_table() {
        let mut engine = engine();
        engine.step(begin(), &mut Vec::new());
        let held = Acquired::Held {
            by: "windrow/1".to_owned(),
            left_ms: 9000,
            lease: None,
        };
        engine.step(CatalogAnswer::Acquire(Ok(held)).into(), &mut Vec::new());
        let status = snapshot(&engine, &run_facts());
        assert_eq!(
            (status.state, &*status.owner),
            (State::Standby, "windrow/1")
        );
    }

    #[test]
    fn records_of_open_windows_are_shown_by_window_and_by_topic_partition() {
        let mut engine = engine();
        step(&mut engine, begin());
        let record = |offset, second: i64, value: &'static str| Record {
            offset,
            timestamp_ms: NOW + second * 1000,
            value: Some(value.as_bytes()),
        };
        let (a, b) = (r#"{"origin": "a"}"#, r#"{"origin": "b"}"#);
        let batch = [
            record(0, 0, a),
            record(1, 1, a),
            record(2, 2, b),
            record(3, 11, b),
        ];
        step(
            &mut engine,
            Input::Records {
                partition: 0,
                leader_epoch: 0,
                batch: &&batch[..],
            },
        );
        let status = snapshot(&engine, &run_facts());
        assert_eq!((status.state, &*status.reason), (State::Counting, ""));
        assert_eq!(
            (status.epoch, status.consumed, status.counted),
            (Some(0), 4, 4)
        );
        let lane = &status.lanes[0];
        assert_eq!(
            (lane.partition, lane.next_offset, lane.held_by),
            (0, 4, None)
        );
        // With no delay the watermark has closed the first window, but its row is not cut yet.
        assert_eq!(status.watermark, Some(EventTime(NOW + 11_000)));
        let windows: Vec<_> = status
            .windows
            .iter()
            .map(|w| (w.start.0 - NOW, w.keys, w.count))
            .collect();
        assert_eq!(windows, [(0, 2, 3), (10_000, 1, 1)]);
    }

    #[test]
    fn only_files_of_rows_are_summed() {
        let file = |kind, first, last| NewFile {
            kind,
            chunk: "0".to_owned(),
            key: "k".to_owned(),
            bytes: 100,
            rows: 7,
            sha256: String::new(),
            first_window: first,
            last_window: last,
            level: crate::table::compaction::Level::Commit,
            as_of: None,
        };
        let rows = || FileKind::Rows {
            date: "2023-11-14".to_owned(),
        };
        let mut run = run_facts();
        let mut commit = commit();
        commit.files = vec![
            file(rows(), Some(EventTime(20)), Some(EventTime(30))),
            file(FileKind::Late, None, None),
            file(rows(), Some(EventTime(10)), Some(EventTime(10))),
        ];
        assert_eq!(run.count_commit(&commit), 14);
        let totals = Totals {
            files: 2,
            bytes: 200,
            rows: 14,
            first_window: Some(EventTime(10)),
            last_window: Some(EventTime(30)),
        };
        assert_eq!((run.totals, run.commits), (totals, 1));

        // Two of them become one; a file of a side table counts for nothing.
        let rows = FileKind::Rows {
            date: "2026-11-27".to_owned(),
        };
        let retired = |kind: &FileKind| RetiredFile {
            kind: kind.clone(),
            key: String::new(),
            rows: 7,
            bytes: 100,
        };
        commit.files.truncate(1);
        (commit.files[0].rows, commit.files[0].bytes) = (14, 150);
        commit.retired = vec![retired(&rows), retired(&FileKind::Late), retired(&rows)];
        assert_eq!(run.count_commit(&commit), 14);
        let totals = Totals {
            files: 1,
            bytes: 150,
            ..totals
        };
        assert_eq!((run.totals, run.commits), (totals, 2));
    }

    #[test]
    fn merges_are_counted_with_what_they_have_moved() {
        let mut run = run_facts();
        let moved = MovedBytes {
            read: 30,
            written: 20,
        };
        let answer = |result| StoreAnswer::Merge {
            key: "k".to_owned(),
            result,
        };
        run.note_merge(&answer(Ok(Vec::new())), moved);
        let away = MergeFailure {
            left_out: Vec::new(),
            trouble: "the store is away".into(),
        };
        run.note_merge(
            &answer(Err(away)),
            MovedBytes {
                read: 5,
                written: 0,
            },
        );
        let sums = MovedBytes {
            read: 35,
            written: 20,
        };
        assert_eq!((run.compactions, run.compaction_failures), (1, 1));
        assert_eq!(run.compaction_bytes, sums);
    }

    fn commit() -> Commit {
        Commit {
            topic_id: "1".to_owned(),
            cluster_id: "c".to_owned(),
            ..Commit::for_tests(1)
        }
    }
}
