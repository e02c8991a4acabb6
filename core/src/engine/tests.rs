//! What went wrong once, told to an engine whose every request a small world answers at once.
//! Longer stories are in the golden texts of `tests/it`.

use super::*;
use crate::table::commit::{Commit, Renewed};
use crate::values::object::ObjectPage;
use crate::values::record::{Offset, Partition, Record};
use std::collections::BTreeMap;
use std::sync::Arc;

/// 2024-09-01T12:00:00Z: what all clocks say when a test begins.
const NOON: i64 = 1_725_192_000_000;
/// One minute.
const MINUTE: u64 = 60_000;

/// An engine, and all that is around it.
struct World {
    rules: Rules,
    engine: Engine,
    /// Milliseconds since noon.
    now: u64,
    topic: TopicFacts,
    /// Why the topic cannot be looked up; `None` while it can. Its id can be asked all the same.
    topic_fails: Option<String>,
    /// Why brokers cannot say where a log ends; `None` while they can.
    end_fails: Option<String>,
    commits: Vec<Arc<Commit>>,
    /// No object can be stored.
    store_is_away: bool,
    objects: BTreeMap<String, Arc<Vec<u8>>>,
    /// What the reader was told since this was looked at last, and the end.
    told: Vec<Effect>,
}

impl World {
    /// A topic whose topic partitions are empty, and an engine that has begun to count it.
    fn new(rules: Rules, partitions: Partition) -> Self {
        let mut world = Self {
            engine: Engine::new(rules.clone()),
            rules,
            now: 0,
            topic: TopicFacts {
                cluster_id: "c".to_owned(),
                unknown: BTreeMap::new(),
                topic_id: "1".to_owned(),
                partitions: (0..partitions).map(|p| (p, (0, 0))).collect(),
            },
            topic_fails: None,
            end_fails: None,
            commits: Vec::new(),
            store_is_away: false,
            objects: BTreeMap::new(),
            told: Vec::new(),
        };
        world.wait(100);
        world
    }

    /// The process is killed and started again.
    fn restart(&mut self) {
        self.engine = Engine::new(self.rules.clone());
        self.told.clear();
        self.wait(100);
    }

    fn step(&mut self, input: Input<'_>) {
        let mut effects = Vec::new();
        self.engine.step(input, &mut effects);
        while !effects.is_empty() {
            for effect in std::mem::take(&mut effects) {
                match effect {
                    Effect::Ask(request) => {
                        if let Some(answer) = self.answer(request) {
                            self.engine.step(Input::Answer(answer), &mut effects);
                        }
                    }
                    Effect::Start { .. }
                    | Effect::Hold { .. }
                    | Effect::Unhold { .. }
                    | Effect::Exit(_) => self.told.push(effect),
                    _ => {}
                }
            }
        }
    }

    fn wait(&mut self, ms: u64) {
        let until = self.now + ms;
        while self.now < until {
            self.now = until.min(self.now + 100);
            let wall = WallTime(NOON + self.now as i64);
            self.step(Input::Tick {
                now: Mono(self.now),
                wall,
            });
        }
    }

    /// A record with the time of now comes, and is read.
    fn record(&mut self, partition: Partition) {
        let end = &mut self.topic.partitions.get_mut(&partition).unwrap().1;
        *end += 1;
        let offset = *end - 1;
        self.read(partition, offset, 0);
    }

    /// A record without a value and without a time comes, and is read.
    fn tombstone(&mut self, partition: Partition) {
        let end = &mut self.topic.partitions.get_mut(&partition).unwrap().1;
        *end += 1;
        let record = Record {
            offset: *end - 1,
            timestamp_ms: -1,
            value: None,
        };
        self.step(Input::Records {
            partition,
            leader_epoch: 0,
            batch: &&[record][..],
        });
    }

    /// A record with the time of now is read at this offset.
    fn read(&mut self, partition: Partition, offset: Offset, leader_epoch: i32) {
        let record = Record {
            offset,
            timestamp_ms: NOON + self.now as i64,
            value: Some(br#"{"origin": "a"}"#),
        };
        self.step(Input::Records {
            partition,
            leader_epoch,
            batch: &&[record][..],
        });
    }

    /// A topic partition cannot be read.
    fn trouble(&mut self, partition: Partition) {
        self.step(Input::Trouble {
            partition: Some(partition),
            trouble: "it came damaged".into(),
        });
    }

    /// The reason of the state `waiting`, or another state as it is written in code.
    fn state(&self) -> String {
        match self.engine.state() {
            State::Waiting(why) => why.text,
            other => format!("{other:?}"),
        }
    }

    /// Where topic partitions were started since this was asked last: each with its offset and
    /// leader epoch.
    fn starts(&mut self) -> Vec<(Partition, Offset, i32)> {
        let start = |effect| match effect {
            Effect::Start {
                partition,
                offset,
                leader_epoch,
            } => Some((partition, offset, leader_epoch)),
            _ => None,
        };
        std::mem::take(&mut self.told)
            .into_iter()
            .filter_map(start)
            .collect()
    }

    fn next_offset(&self, partition: Partition) -> Offset {
        self.engine.lanes()[&partition].ledger.next_offset
    }

    /// What the catalog says of the table.
    fn head(&self) -> Option<Box<Head>> {
        let last = self.commits.last()?;
        let with_checkpoint = |commit: &&Arc<Commit>| commit.checkpoint.is_some();
        let newest = self.commits.iter().rev().find(with_checkpoint);
        let after = newest.map_or(0, |commit| commit.epoch + 1) as usize;
        let later = self.commits[after..].iter();
        Some(Box::new(Head {
            genesis: self.commits[0].genesis.clone().unwrap(),
            last: (**last).clone(),
            committed_at: DbTime(NOON),
            checkpoint: newest.map(|commit| (commit.epoch, commit.checkpoint.clone().unwrap())),
            decisions: later.flat_map(|commit| commit.decisions.clone()).collect(),
            earlier: None,
            paused: false,
        }))
    }

    fn answer(&mut self, request: Request) -> Option<Answer> {
        Some(match request {
            Request::Catalog(request) => Answer::Catalog(self.ask_catalog(request)?),
            Request::Brokers(request) => Answer::Brokers(self.ask_brokers(request)),
            Request::Store(request) => Answer::Store(self.ask_store(request)?),
        })
    }

    fn ask_catalog(&mut self, request: CatalogRequest) -> Option<CatalogAnswer> {
        let now = DbTime(NOON + self.now as i64);
        Some(match request {
            CatalogRequest::Acquire { .. } => CatalogAnswer::Acquire(Ok(Acquired::Ours {
                owner: crate::table::commit::Owner {
                    term: 1,
                    owner_id: "1".to_owned(),
                },
                lease_ms: 15_000,
                now,
                head: self.head(),
            })),
            CatalogRequest::Renew { .. } => CatalogAnswer::Renew(Ok(Renewed {
                now,
                paused: false,
                last_epoch: self.commits.last().map(|commit| commit.epoch),
            })),
            CatalogRequest::Commit { commit, .. } => {
                let epoch = commit.epoch;
                self.commits.push(commit);
                let result = Ok(now);
                CatalogAnswer::Commit { epoch, result }
            }
            _ => return None,
        })
    }

    fn ask_brokers(&self, request: BrokersRequest) -> BrokersAnswer {
        let topic = &self.topic;
        match request {
            BrokersRequest::Topic => {
                let fails = self.topic_fails.clone().map(Trouble::from);
                BrokersAnswer::Topic(fails.map_or(Ok(topic.clone()), Err))
            }
            BrokersRequest::TopicId => BrokersAnswer::TopicId(Ok(topic.topic_id.clone())),
            BrokersRequest::LogEnd { partition } => {
                let limits = topic.partitions.get(&partition);
                let end = limits.map(|(_, end)| LogEnd {
                    last_stable: *end,
                    high_watermark: *end,
                });
                let end = end.ok_or_else(|| topic.unknown[&partition].clone());
                let end = self.end_fails.clone().map_or(end, Err);
                BrokersAnswer::LogEnd { partition, end }
            }
            BrokersRequest::LogLimits { partition } => BrokersAnswer::LogLimits {
                partition,
                limits: topic
                    .partitions
                    .get(&partition)
                    .copied()
                    .ok_or_else(|| topic.unknown[&partition].clone()),
            },
        }
    }

    fn ask_store(&mut self, request: StoreRequest) -> Option<StoreAnswer> {
        Some(match request {
            StoreRequest::ListPage { prefix, after } => StoreAnswer::ListPage {
                prefix,
                after,
                result: Ok(ObjectPage::default()),
            },
            StoreRequest::Get { key } => {
                let object = self.objects.get(&key);
                let result = Ok(object.map(|bytes| bytes.to_vec()));
                StoreAnswer::Get { key, result }
            }
            StoreRequest::Put { key, .. } if self.store_is_away => StoreAnswer::Put {
                key,
                result: Err("the store is away".into()),
            },
            StoreRequest::Put { key, bytes } => {
                self.objects.insert(key.clone(), bytes);
                StoreAnswer::Put {
                    key,
                    result: Ok(()),
                }
            }
            _ => return None,
        })
    }
}

/// A broker restarts, and a silent topic partition's log end cannot be had. Then records flow, so
/// the question is not asked again.
#[test]
fn a_log_end_that_could_not_be_had_is_no_trouble_once_records_come() {
    let mut world = World::new(Rules::for_tests(), 1);
    world.record(0);
    world.end_fails = Some("the broker is away".to_owned());
    world.wait(20_000);
    assert_eq!(world.state(), "the broker is away");
    world.end_fails = None;
    world.record(0);
    assert_eq!(world.state(), "Counting");
}

/// The answer to a question of a silent moment, which comes when records flow again.
#[test]
fn a_failed_question_for_a_log_end_is_no_trouble_of_one_that_is_read() {
    let mut world = World::new(Rules::for_tests(), 1);
    world.record(0);
    world.wait(9_000);
    let mut effects = Vec::new();
    while !effects.contains(&BrokersRequest::LogEnd { partition: 0 }.into()) {
        effects.clear();
        world.now += 100;
        let (now, wall) = (Mono(world.now), WallTime(NOON + world.now as i64));
        world.engine.step(Input::Tick { now, wall }, &mut effects);
    }
    world.record(0);
    let end = Err("the broker is away".to_owned());
    world.step(BrokersAnswer::LogEnd { partition: 0, end }.into());
    assert_eq!(world.state(), "Counting");
}

/// Nothing is read meanwhile, so nothing would show that the brokers are back.
#[test]
fn brokers_that_were_away_are_no_trouble_of_a_standby() {
    let mut engine = Engine::new(Rules::for_tests());
    let tick = Input::Tick {
        now: Mono(0),
        wall: WallTime(NOON),
    };
    engine.step(tick, &mut Vec::new());
    let trouble = |cause, text: &str| Trouble::new(cause, text);
    let brokers = Input::Trouble {
        partition: None,
        trouble: trouble(Cause::NoTopic, "the brokers are away"),
    };
    engine.step(brokers, &mut Vec::new());
    let error = CatalogError::Retry("the catalog is away".into());
    engine.step(CatalogAnswer::Acquire(Err(error)).into(), &mut Vec::new());
    assert_eq!(engine.state(), State::Waiting("the catalog is away".into()));
}

/// The topic was looked up, and what is waited for now is the store.
#[test]
fn brokers_that_answer_are_no_trouble_while_the_table_is_opened() {
    let mut world = World::new(Rules::for_tests(), 1);
    world.engine = Engine::new(world.rules.clone());
    let mut effects = Vec::new();
    let (now, wall) = (Mono(world.now), WallTime(NOON + world.now as i64));
    world.engine.step(Input::Tick { now, wall }, &mut effects);
    let brokers = Input::Trouble {
        partition: None,
        trouble: "the brokers are away".into(),
    };
    world.engine.step(brokers, &mut effects);
    for effect in effects {
        if let Effect::Ask(request) = effect
            && let Some(answer) = world.answer(request)
        {
            world.step(Input::Answer(answer));
        }
    }
    assert_eq!(world.state(), "Counting");
}

/// Rules by which nothing stands aside during a test.
fn nobody_stands_aside() -> Rules {
    Rules {
        idle_timeout_ms: 24 * 60 * MINUTE,
        ..Rules::for_tests()
    }
}

/// Two topic partitions. The first is more than an hour ahead of the other, so it is held back.
fn held_for_skew() -> World {
    let mut world = World::new(nobody_stands_aside(), 2);
    world.record(0);
    world.record(1);
    world.wait(61 * MINUTE);
    world.record(0);
    world.wait(100);
    assert!(world.engine.is_held(0));
    world
}

#[test]
fn a_table_is_stalled_also_when_flow_control_has_stopped_all_reading() {
    let mut world = held_for_skew();
    assert_eq!(world.state(), "Counting");
    world.wait(4 * MINUTE);
    assert_eq!(world.state(), "Counting");
    for minutes in [1, 6, 60] {
        world.wait(minutes * MINUTE);
        let state = world.state();
        assert!(
            state.contains("topic partition 1 holds the frontier"),
            "{state}"
        );
        assert!(world.engine.frontier_age_ms() >= 5 * MINUTE);
    }
    // While an operator has paused the table, nothing is expected.
    world.step(Input::Paused(true));
    world.wait(100);
    assert_eq!(world.engine.frontier_age_ms(), 0);
}

#[test]
fn a_table_is_stalled_when_what_is_in_the_log_does_not_come() {
    let mut world = World::new(nobody_stands_aside(), 1);
    world.record(0);
    world.wait(60 * MINUTE);
    assert_eq!(
        world.state(),
        "Counting",
        "nothing is read, and nothing unread"
    );
    world.topic.partitions.insert(0, (0, 5));
    world.wait(4 * MINUTE);
    assert_eq!(world.state(), "Counting");
    world.wait(MINUTE + 20_000);
    let state = world.state();
    assert!(
        state.contains("it has records that are not read yet"),
        "{state}"
    );
    for offset in 1..5 {
        world.read(0, offset, 0);
    }
    world.wait(60 * MINUTE);
    assert_eq!(world.state(), "Counting");
}

/// Nothing is unread behind a cut, although the log was longer before.
#[test]
fn a_log_that_was_cut_off_has_nothing_unread_behind_the_cut() {
    let rules = Rules {
        continue_on_data_loss: true,
        ..nobody_stands_aside()
    };
    let mut world = World::new(rules, 1);
    for _ in 0..5 {
        world.record(0);
    }
    world.topic.partitions.insert(0, (0, 2));
    world.step(Input::Truncated {
        partition: 0,
        cut_at: Some(2),
        why: "it was cut off".to_owned(),
    });
    world.wait(60 * MINUTE);
    assert_eq!(
        (world.state(), world.next_offset(0)),
        ("Counting".into(), 2)
    );
    assert_eq!(world.engine.log_end(0), Some(2));
}

/// What was never read was cut off, so the reader has nothing to say of it.
#[test]
fn a_log_whose_unread_end_was_cut_off_has_nothing_unread() {
    let mut world = World::new(nobody_stands_aside(), 1);
    world.record(0);
    world.topic.partitions.insert(0, (0, 5));
    world.wait(20_000);
    assert_eq!(world.engine.log_end(0), Some(5));
    world.topic.partitions.insert(0, (0, 1));
    world.wait(60 * MINUTE);
    assert_eq!(world.state(), "Counting");
    assert_eq!(world.engine.log_end(0), Some(1));
}

#[test]
fn a_topic_partition_that_is_held_is_in_no_trouble_and_not_started_again() {
    let mut world = held_for_skew();
    world.starts();
    // What was fetched before the hold came damaged.
    world.trouble(0);
    assert_eq!(world.state(), "Counting");
    world.wait(4 * MINUTE);
    assert_eq!((world.starts(), world.state()), (vec![], "Counting".into()));
    // The other one catches up, so this one must prove that it works.
    world.record(1);
    world.wait(200);
    assert_eq!(world.state(), "it came damaged");
    assert_eq!(world.starts(), [(0, 2, 0)]);
    world.record(0);
    assert_eq!(world.state(), "Counting");
}

/// Brokers before Kafka 2.8 know no ids of topics, so only the cluster's id tells.
#[test]
fn the_topic_of_another_cluster_does_not_end_a_table_that_goes_on_after_data_loss() {
    let topic_id = String::new();
    for goes_on in [false, true] {
        let rules = Rules {
            continue_on_data_loss: goes_on,
            ..Rules::for_tests()
        };
        let mut world = World::new(rules, 1);
        world.topic.topic_id.clone_from(&topic_id);
        world.commits.clear();
        world.restart();
        for _ in 0..3 {
            world.record(0);
        }
        world.wait(MINUTE);
        assert_eq!(world.next_offset(0), 3);
        // A broker that knows no id of its cluster tells nothing.
        for known in ["", "c"] {
            world.topic.cluster_id = known.to_owned();
            world.restart();
            assert_eq!(
                (world.state(), world.next_offset(0)),
                ("Counting".into(), 3)
            );
        }
        world.topic.cluster_id = "d".to_owned();
        world.topic.partitions.insert(0, (0, 0));
        world.restart();
        world.wait(MINUTE);
        if !goes_on {
            let State::Failed(why) = world.engine.state() else {
                panic!("{}", world.state())
            };
            assert_eq!(why.cause, Some(Cause::DataLoss));
            assert!(why.text.contains("set on-data-loss: continue"), "{why}");
            continue;
        }
        assert_eq!(
            (world.state(), world.next_offset(0)),
            ("Counting".into(), 0)
        );
        // The commit says of which cluster it is: it is not another one after the next restart.
        world.record(0);
        world.wait(MINUTE);
        world.restart();
        assert_eq!(
            (world.state(), world.next_offset(0)),
            ("Counting".into(), 1)
        );
    }
}

#[test]
fn a_checkpoint_of_a_newer_windrow_is_no_reason_to_give_counts_up() {
    let mut world = World::new(Rules::for_tests(), 1);
    world.record(0);
    world.wait(MINUTE);
    let of_newer = zstd::encode_all(&br#"{"version": 2, "tables": []}"#[..], 1).unwrap();
    let newer = crate::values::digest::hex(&of_newer);
    for commit in &mut world.commits {
        let mut changed = (**commit).clone();
        changed.checkpoint = Some(crate::table::commit::CheckpointAt::Inline(newer.clone()));
        *commit = Arc::new(changed);
    }
    world.restart();
    let State::Failed(why) = world.engine.state() else {
        panic!("{}", world.state())
    };
    assert_eq!(why.cause, Some(Cause::OtherCheckpoint));
    assert!(why.text.contains("it has version 2"), "{why}");
    assert!(why.text.contains("run the windrow that wrote it"), "{why}");
}

/// A world of one topic partition that goes on after data loss. It has read three records with the
/// leader epoch 5, and then the marker of a transaction, which is never shown.
fn behind_a_marker() -> World {
    let rules = Rules {
        continue_on_data_loss: true,
        ..Rules::for_tests()
    };
    let mut world = World::new(rules, 1);
    for offset in 0..3 {
        world.topic.partitions.insert(0, (0, offset + 1));
        world.read(0, offset, 5);
    }
    world.topic.partitions.insert(0, (0, 4));
    world.step(Input::End {
        partition: 0,
        offset: 4,
    });
    world.starts();
    world
}

/// A generation that was begun by the last commit: where it begins, and why.
fn generation(world: &World) -> Option<(Offset, String)> {
    let decisions = world.commits.iter().flat_map(|commit| &commit.decisions);
    decisions
        .filter_map(|decision| match &decision.what {
            crate::values::decision::Decided::Generation { to, reason, .. } => {
                Some((*to, reason.clone()))
            }
            _ => None,
        })
        .next_back()
}

/// The leader epoch of a transaction's marker is not known, but that of the record before it is.
#[test]
fn a_cut_below_a_transactions_marker_is_found_after_a_restart() {
    let mut world = behind_a_marker();
    world.wait(MINUTE);
    assert_eq!(world.commits.last().unwrap().lanes[&0].to, 4);
    world.restart();
    // The record before offset 3 had the leader epoch 5: the broker can tell whether it still has.
    assert_eq!(world.starts(), [(0, 3, 5)]);
    assert_eq!(world.next_offset(0), 4);
    world.step(Input::Truncated {
        partition: 0,
        cut_at: Some(1),
        why: "it was cut off".to_owned(),
    });
    assert_eq!(world.starts(), [(0, 1, -1)]);
}

#[test]
fn records_where_a_transactions_marker_was_show_a_cut() {
    let mut world = behind_a_marker();
    world.step(Input::Reopened);
    assert_eq!(world.starts(), [(0, 3, 5)]);
    world.read(0, 3, 6);
    assert_eq!(world.starts(), [(0, 3, -1)]);
    world.read(0, 3, 6);
    world.wait(MINUTE);
    let reason = "topic partition 0 was cut off below offset 4: it has records where none were";
    assert_eq!(generation(&world), Some((3, reason.to_owned())));
    assert_eq!(world.next_offset(0), 4);
}

/// Where the leader epoch was known is before the log's start now: nothing is lost by that, and
/// nothing is asked for there.
#[test]
fn a_log_that_begins_behind_the_last_known_leader_epoch_is_read_on() {
    let mut world = behind_a_marker();
    world.topic.partitions.insert(0, (4, 4));
    world.step(Input::Reopened);
    assert_eq!(world.starts(), [(0, 3, 5)]);
    world.step(Input::OutOfRange { partition: 0 });
    world.wait(MINUTE);
    assert_eq!(world.starts(), [(0, 4, -1)]);
    assert_eq!(generation(&world), None);
}

/// The log ends before the next offset: what was written anew below its end must not be passed over
/// where the reader can tell the place of the cut.
#[test]
fn a_lane_that_is_out_of_range_asks_for_the_place_of_the_cut() {
    let mut world = behind_a_marker();
    world.record(0);
    world.starts();
    world.topic.partitions.insert(0, (0, 2));
    world.step(Input::OutOfRange { partition: 0 });
    // One broker may be behind, so a single answer does not make a log cut off.
    world.wait(11_000);
    assert_eq!(world.starts(), []);
    world.wait(MINUTE);
    assert_eq!(world.starts(), [(0, 5, 0)]);
    assert_eq!(generation(&world), None);
    world.step(Input::Truncated {
        partition: 0,
        cut_at: Some(1),
        why: "it was cut off".to_owned(),
    });
    world.wait(MINUTE);
    assert_eq!(generation(&world), Some((1, "it was cut off".to_owned())));
    assert_eq!(world.next_offset(0), 1);
}

#[test]
fn a_cut_whose_place_nobody_can_tell_is_called_unknown() {
    let unknown = "the place of the cut is not known";
    // The reader does not say it, however often it is started.
    let mut world = behind_a_marker();
    world.topic.partitions.insert(0, (0, 2));
    for _ in 0..4 {
        world.step(Input::OutOfRange { partition: 0 });
        world.wait(MINUTE);
    }
    world.wait(MINUTE);
    let (to, reason) = generation(&world).unwrap();
    assert!(to == 2 && reason.contains(unknown), "{to}: {reason}");
    // The broker cannot tell it.
    let mut world = behind_a_marker();
    world.step(Input::Truncated {
        partition: 0,
        cut_at: None,
        why: "it was cut off".to_owned(),
    });
    world.wait(MINUTE);
    let (to, reason) = generation(&world).unwrap();
    assert!(to == 4 && reason.contains(unknown), "{to}: {reason}");
}

/// The ids of the topics of the generations that were committed.
fn generations(world: &World) -> Vec<String> {
    let decisions = world.commits.iter().flat_map(|commit| &commit.decisions);
    let topic = |decision: &crate::values::decision::Decision| match &decision.what {
        crate::values::decision::Decided::Generation { topic_id, .. } => Some(topic_id.clone()),
        _ => None,
    };
    decisions.filter_map(topic).collect()
}

/// A world whose topic 1 was counted, deleted and made again as topic 2, of which two records are
/// committed.
fn counts_the_second_topic() -> World {
    let rules = Rules {
        continue_on_data_loss: true,
        ..Rules::for_tests()
    };
    let mut world = World::new(rules, 1);
    world.record(0);
    world.wait(MINUTE);
    world.topic.topic_id = "2".to_owned();
    world.topic.partitions.insert(0, (0, 0));
    world.wait(MINUTE);
    world.record(0);
    world.record(0);
    world.wait(MINUTE);
    assert_eq!(generations(&world), ["2"]);
    assert_eq!(world.commits.last().unwrap().topic_id, "2");
    world
}

#[test]
fn a_broker_that_still_serves_the_topic_before_brings_it_not_back() {
    for goes_on in [true, false] {
        for restarts in [true, false] {
            let mut world = counts_the_second_topic();
            world.rules.continue_on_data_loss = goes_on;
            world.restart();
            for behind_ms in [11_000, 5 * MINUTE] {
                world.topic.topic_id = "1".to_owned();
                if restarts {
                    world.restart();
                } else {
                    world.record(0);
                }
                world.wait(behind_ms);
                let state = world.state();
                assert!(state.contains("a broker has old metadata"), "{state}");
                world.topic.topic_id = "2".to_owned();
                world.wait(20_000);
                assert_eq!(world.state(), "Counting");
            }
            assert_eq!(generations(&world), ["2"]);
            assert_eq!(world.commits.last().unwrap().topic_id, "2");
        }
    }
}

/// It may be the first that has heard of a topic that was made again, or the last that has not.
#[test]
fn another_topic_is_not_believed_before_brokers_agree() {
    for goes_on in [true, false] {
        let mut world = counts_the_second_topic();
        world.rules.continue_on_data_loss = goes_on;
        world.restart();
        for _ in 0..3 {
            let commits = world.commits.len();
            world.topic.topic_id = "3".to_owned();
            world.record(0);
            world.wait(29_000);
            let state = world.state();
            assert!(
                state.contains("made again: its id is 3, as it seems"),
                "{state}"
            );
            assert!(world.engine.is_held(0));
            assert_eq!(world.commits.len(), commits, "it may be of either");
            world.topic.topic_id = "2".to_owned();
            world.wait(1500);
            assert!(!world.engine.is_held(0));
        }
        world.wait(MINUTE);
        assert_eq!(
            (world.state(), generations(&world)),
            ("Counting".into(), vec!["2".into()])
        );
        world.topic.topic_id = "3".to_owned();
        world.topic.partitions.insert(0, (0, 0));
        world.wait(MINUTE);
        if goes_on {
            world.record(0);
            world.wait(MINUTE);
            assert_eq!(generations(&world), ["2", "3"]);
            let last = world.commits.last().unwrap();
            assert_eq!(last.left_topic_ids, ["1", "2"]);
        } else {
            assert!(matches!(world.engine.state(), State::Failed(_)));
        }
    }
}

/// After a failover to another cluster and back, its topic has an id that was counted before.
#[test]
fn the_topic_of_the_first_cluster_is_counted_again_after_a_failback() {
    let mut world = counts_the_second_topic();
    for (cluster, id) in [("d", "3"), ("c", "2")] {
        world.topic.cluster_id = cluster.to_owned();
        world.topic.topic_id = id.to_owned();
        world.wait(MINUTE);
        world.record(0);
        world.wait(MINUTE);
        assert_eq!(world.commits.last().unwrap().topic_id, id);
    }
}

/// A topic that cannot be looked up may have grown, or may have been made again.
#[test]
fn a_commit_does_not_end_the_trouble_of_a_look_up_that_fails() {
    let mut world = World::new(Rules::for_tests(), 1);
    world.topic_fails = Some("no leader".to_owned());
    world.wait(11_000);
    let commits = world.commits.len();
    for _ in 0..20 {
        world.record(0);
        world.wait(MINUTE);
        assert_eq!(world.state(), "no leader");
    }
    assert!(world.commits.len() > commits + 10);
    world.topic_fails = None;
    world.wait(2000);
    assert_eq!(world.state(), "Counting");
}

/// The floor of a lane that stands aside follows the others with each tick, and tombstones move its
/// offset meanwhile.
#[test]
fn decisions_do_not_grow_with_the_ticks_of_an_outage() {
    let mut world = World::new(Rules::for_tests(), 3);
    for partition in 0..3 {
        world.record(partition);
    }
    for _ in 0..300 {
        world.wait(100);
        world.record(1);
        world.record(2);
    }
    assert!(world.engine.is_idle(0));
    world.store_is_away = true;
    let slides = |world: &World| {
        let watermark = world.engine.lanes()[&0].watermark().unwrap();
        watermark.0 / world.rules.shape.slide_ms
    };
    let slides_before = slides(&world);
    for _ in 0..5000 {
        world.wait(100);
        world.tombstone(0);
        world.record(1);
        world.record(2);
    }
    let crossed = usize::try_from(slides(&world) - slides_before).unwrap();
    assert!(crossed > 40, "{crossed}");
    let lane = &world.engine.lanes()[&0];
    let decided = lane.decisions.len();
    assert!((1..=crossed).contains(&decided), "{decided}");
    let bytes = decided * size_of::<crate::values::decision::Decision>();
    assert!(lane.memory_bytes() >= bytes + lane.open_bytes());
    assert!(lane.committable_bytes(None) >= bytes);
}

/// One broker is away, and the topic partition that it led has no other replica.
#[test]
fn a_topic_partition_without_a_leader_holds_up_no_other() {
    let rules = Rules {
        continue_on_data_loss: true,
        ..nobody_stands_aside()
    };
    let mut world = World::new(rules, 2);
    for _ in 0..3 {
        world.record(0);
        world.record(1);
    }
    world.wait(MINUTE);
    world.topic.partitions.remove(&1);
    world.topic.unknown.insert(1, "it has no leader".to_owned());
    // Another one loses records that were not read yet.
    world.topic.partitions.insert(0, (8, 9));
    world.starts();
    world.step(Input::OutOfRange { partition: 0 });
    world.wait(20_000);
    assert_eq!(world.starts(), [(0, 8, -1)]);
    world.read(0, 8, 0);
    // A new one joins.
    world.topic.partitions.insert(2, (0, 0));
    world.wait(20_000);
    assert_eq!(world.starts(), [(2, 0, -1)]);
    // A restart reads what it can.
    world.restart();
    world.wait(1000);
    assert_eq!(world.engine.lanes().len(), 3);
    let mut starts = world.starts();
    starts.dedup();
    assert!(starts.iter().any(|(p, _, _)| *p == 0), "{starts:?}");
    // One that should join cannot, and that is said.
    world.topic.unknown.insert(3, "it has no leader".to_owned());
    world.wait(20_000);
    let state = world.state();
    assert!(state.starts_with("topic partition 3 of topic"), "{state}");
    world.topic.unknown.remove(&3);
    world.topic.partitions.insert(3, (0, 0));
    world.wait(20_000);
    assert!(world.engine.lanes().contains_key(&3));
}

#[test]
fn a_table_begins_with_all_topic_partitions() {
    let mut world = World::new(Rules::for_tests(), 1);
    world.commits.clear();
    world.topic.unknown.insert(1, "it has no leader".to_owned());
    world.restart();
    world.wait(MINUTE);
    assert_eq!(world.commits.len(), 0);
    assert!(
        world.state().starts_with("topic partition 1 of topic"),
        "{}",
        world.state()
    );
    world.topic.unknown.clear();
    world.topic.partitions.insert(1, (7, 9));
    world.wait(2000);
    let genesis = world.commits[0].genesis.clone().unwrap();
    assert_eq!(genesis.start_offsets, BTreeMap::from([(0, 0), (1, 7)]));
}
