//! `Input` → `Effect`s: one table's whole state and its only door, `step`. It reads no clock and does no I/O.
//! What it asks for is carried out by `driver`, and comes back as another input, also when it failed.

use crate::checkpoint;
use crate::commit::{
    Acquired, CHECKPOINT_INLINE_MAX_BYTES, CatalogError, CheckpointAt, Commit, Decided, FileKind,
    FloorReason, Genesis, Head, LaneCommit, NewFile, Outcome, Owner, hex, object_key, object_prefix,
    sha256_hex, unhex,
};
use crate::file::{self, Timestamps};
use crate::lane::{Lane, LaneState, Stopped};
use crate::ledger::TableLedger;
use crate::merger::{self, Lanes};
use crate::record::{Batch, Offset, Partition};
use crate::row::Row;
use crate::shape::Shape;
use crate::time::{DbTime, EventTime, Mono};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What does not change while the engine lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub shape: Shape,
    pub database: String,
    pub table: String,
    pub warehouse: String,
    pub timestamps: Timestamps,
    /// Where a table without epochs begins: at the log's end instead of its start.
    pub start_at_end: bool,
    pub delay_ms: i64,
    pub idle_timeout_ms: u64,
    pub quiet_timeout_ms: Option<u64>,
    pub max_skew_ms: i64,
    pub max_future_ms: i64,
    pub commit_interval_ms: u64,
    /// Records that are no longer in the log are a recorded decision instead of a reason to stop.
    pub continue_on_data_loss: bool,
    pub lease_ms: u64,
    /// Up to this many keys in open windows a checkpoint goes with each commit; with more it goes by replay distance.
    pub checkpoint_keys_small: u64,
}

/// What Kafka says of the topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicFacts {
    pub cluster_id: String,
    /// Empty when the broker cannot tell.
    pub topic_id: String,
    /// First offset and end offset of each topic partition.
    pub partitions: BTreeMap<Partition, (Offset, Offset)>,
}

pub enum Input<'a> {
    /// Time has gone on; sent at least ten times a second.
    Tick {
        now: Mono,
    },
    Acquired(Result<Acquired, CatalogError>),
    /// The lease goes on: the database's clock, and whether a pause is in force.
    Renewed(Result<(DbTime, bool), CatalogError>),
    Topic(Result<TopicFacts, String>),
    /// The topic's id, asked for after [`Effect::CheckTopic`]; empty when the broker cannot tell.
    TopicId(Result<String, String>),
    /// Paths of the table's manifests.
    Manifests(Result<Vec<String>, String>),
    Checkpoint(Result<Vec<u8>, String>),
    Records {
        partition: Partition,
        leader_epoch: i32,
        batch: &'a dyn Batch,
    },
    /// The reader has nothing more; every offset below was shown or never will be.
    End {
        partition: Partition,
        offset: Offset,
    },
    /// The answer to [`Effect::LookAtEnd`], fetched after it was asked for.
    Looked {
        partition: Partition,
        end: Result<LogEnd, String>,
    },
    /// The log does not have the offset that was asked for.
    OutOfRange {
        partition: Partition,
        log_start: Offset,
        log_end: Offset,
    },
    /// The log was cut off somewhere below where we read, and written anew.
    Truncated {
        partition: Partition,
        why: String,
    },
    /// What hinders reading, in a sentence; it is over with the next record.
    Trouble {
        reason: String,
    },
    /// The reader is a new one: whatever is to be read must be started again.
    Reopened,
    Stored {
        key: String,
        result: Result<(), String>,
    },
    Committed {
        epoch: u64,
        result: Result<DbTime, CatalogError>,
    },
    Found {
        epoch: u64,
        result: Result<Outcome, CatalogError>,
    },
    /// An operator's word, already in the catalog.
    Paused(bool),
    /// Commit what there is, give the table back, end.
    Shutdown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogEnd {
    /// Below it every transaction is decided.
    pub last_stable: Offset,
    pub high_watermark: Offset,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    Acquire,
    Renew {
        owner: Owner,
    },
    Release {
        owner: Owner,
    },
    LookUpTopic,
    /// Ask the topic's id anew. A client reads on silently in a topic that was deleted and made again: what was read
    /// counts only if the topic is still the one that we read when all of it was read.
    CheckTopic,
    ListManifests {
        prefix: String,
    },
    FetchCheckpoint {
        key: String,
    },
    /// Read a topic partition from an offset on, or from another one than now.
    Start {
        partition: Partition,
        offset: Offset,
        leader_epoch: i32,
    },
    /// Stop reading all topic partitions.
    StopAll,
    /// Flow control: fetch nothing more until resumed.
    Hold {
        partition: Partition,
    },
    Unhold {
        partition: Partition,
    },
    LookAtEnd {
        partition: Partition,
    },
    /// Store an object; answered by [`Input::Stored`]. Harmless when it is there already.
    Put {
        key: String,
        bytes: Arc<Vec<u8>>,
    },
    Commit(Arc<Commit>),
    /// What became of a commit whose answer was lost; the old connection is waited out.
    Find {
        owner: Owner,
        epoch: u64,
    },
    /// For lag tools only.
    CommitGroup(BTreeMap<Partition, Offset>),
    /// An epoch was committed: for whoever watches.
    Report(Arc<Commit>),
    /// The end. A reason means failure.
    Exit(Option<String>),
}

/// Where the engine stands, in the words of the status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Counting,
    Waiting(String),
    Paused,
    Standby(String),
    Failed(String),
}

#[derive(Debug)]
enum Phase {
    /// Not ours, or nobody asked yet.
    Standby {
        ask_at: Mono,
    },
    Asking,
    /// Ours; Kafka has not said yet what the topic is.
    Locating {
        ask_at: Option<Mono>,
    },
    /// No epoch in the catalog: are there manifests of a lost one?
    Searching {
        ask_at: Option<Mono>,
        facts: TopicFacts,
    },
    /// Epoch 0 is under way.
    Founding,
    Restoring {
        ask_at: Option<Mono>,
        key: String,
        facts: TopicFacts,
    },
    /// Reading, replays included.
    Counting,
    /// For good; with the reason when nobody asked for it.
    Over(Option<String>),
}

/// Who can keep us waiting; in the order in which people should look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    Lease,
    Topic,
    Reader,
    Store,
    Catalog,
}

/// What is known of the reading of one topic partition. Processing time only: nothing here decides about a record.
#[derive(Clone, Copy, Debug, Default)]
struct Watch {
    reading: bool,
    held: bool,
    /// Since when it is not in the topic any more; after [`GONE_AFTER_MS`] it holds nobody back.
    gone: Option<Mono>,
    last_record: Mono,
    /// The reader said that it has nothing more.
    at_end: bool,
    looked_at: Option<Mono>,
    /// When the log's end was asked for, while the answer is on its way.
    looking: Option<Mono>,
    /// The greatest watermark of all when the log's end was asked for, and, once it was seen there, up to where this
    /// topic partition may be raised: a record in another that came later may have come with records in this one.
    asked_with: Option<EventTime>,
    nothing_by: Option<EventTime>,
    /// The log's end was seen where we are; nothing came until now.
    idle_until: Option<Mono>,
    log_end: Offset,
}

/// Something that is asked once until its answer comes. The answer to a question of an earlier ownership is void:
/// it is of another time, and asked for again.
#[derive(Clone, Copy, Debug, Default)]
struct Question {
    asked: bool,
    void: bool,
}

impl Question {
    /// Whether to ask now, as no answer is on its way.
    fn ask(&mut self) -> bool {
        !std::mem::replace(&mut self.asked, true)
    }

    /// The answer came: whether it counts.
    fn answered(&mut self) -> bool {
        self.asked = false;
        !std::mem::take(&mut self.void)
    }

    fn of_earlier_ownership(self) -> Self {
        Self { void: self.asked, ..self }
    }
}

/// An epoch on its way into the catalog.
struct InFlight {
    commit: Arc<Commit>,
    /// Objects not stored yet, and whether a request is out.
    puts: BTreeMap<String, (Arc<Vec<u8>>, bool)>,
    stage: Stage,
    retry_at: Option<Mono>,
    /// Whether the topic was the same after all of this was read.
    topic: TopicCheck,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum TopicCheck {
    AskAt(Mono),
    Asked,
    Same,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Storing,
    Committing,
    Finding,
}

pub struct Engine {
    settings: Settings,
    prefix: String,
    now: Mono,
    phase: Phase,
    /// What hinders it, by whom; each is over when the same one does what it is asked.
    troubles: BTreeMap<Side, String>,
    /// Another process had the table when we asked last.
    held_by_other: bool,
    owner: Option<Owner>,
    renew_at: Option<Mono>,
    renewing: bool,
    /// Manifests were found where the catalog has no epoch: the reason to stop, once a renewal that was sent after
    /// (`true`) has shown that the lease holds.
    lost_catalog: Option<(String, bool)>,
    /// The database's clock, and ours when we asked: it was read at that moment or later, so that what is reckoned from
    /// it is not behind, however late the answer came.
    clock: Option<(DbTime, Mono)>,
    clock_asked_at: Mono,
    /// When the last commit was, by the database's clock.
    committed_at: Option<DbTime>,
    /// The database's clock reads earlier than that: no reading until it is right.
    clock_back: bool,
    head: Option<Box<Head>>,
    topic_id: String,
    topic_asked: Question,
    topic_check_asked: Question,
    manifests_asked: Question,
    checkpoint_asked: Question,
    topic_ask_at: Mono,
    out_of_range: BTreeMap<Partition, (Offset, Offset)>,
    lanes: Lanes,
    watches: BTreeMap<Partition, Watch>,
    /// Lanes are, or were a moment ago, behind the last commit.
    replaying: bool,
    /// Topic partitions that the next commit names first, with their first offset.
    joining: BTreeMap<Partition, Offset>,
    /// Next offsets as of the last commit.
    committed: BTreeMap<Partition, Offset>,
    /// Sums of earlier generations of the topic, of which no lane speaks any more.
    archived: TableLedger,
    rows: u64,
    row_count: u64,
    next_epoch: u64,
    closed_through: Option<EventTime>,
    in_flight: Option<InFlight>,
    last_cut: Option<Mono>,
    last_progress: Mono,
    checkpoint_at: Mono,
    consumed_at_checkpoint: u64,
    want_checkpoint: bool,
    /// The last commit is past the last checkpoint: a restart would replay.
    checkpoint_behind: bool,
    paused: bool,
    /// No more reading; after the last commit the end, with this reason.
    stopping: Option<Option<String>>,
    stopping_since: Mono,
}

/// Between two attempts at what failed; the driver adds jitter.
const RETRY_MS: u64 = 1000;
/// Between two looks at the topic's partitions.
const TOPIC_EVERY_MS: u64 = 10_000;
/// What was seen of a log's end holds for `idle-timeout`, and at least this long: asking takes a second or two.
const IDLE_HOLDS_MS_MIN: u64 = 5000;
/// Between two looks at a log's end at least.
const LOOK_AGAIN_MS: u64 = 500;
/// A topic partition that the topic has not had for this long is gone. One broker may not know of a new one yet.
const GONE_AFTER_MS: u64 = 30_000;
/// Offsets that moved without anything to show are committed this often.
const PROGRESS_EVERY_MS: u64 = 30_000;
/// Late records and rejects that make a commit, and twice that pauses reading.
const SIDE_BYTES_MAX: usize = 16 << 20;
/// Entries of closed windows that make a commit, and twice that pauses reading.
const CLOSED_ENTRIES_MAX: u64 = 2_000_000;
/// The usual [`Settings::checkpoint_keys_small`].
pub const CHECKPOINT_KEYS_SMALL: u64 = 20_000;
const CHECKPOINT_EVERY_MS: u64 = 60_000;
const CHECKPOINT_EVERY_RECORDS: u64 = 5_000_000;
const CLOCK_BACK: &str = "the database's clock reads earlier than at the last commit; correct it";
/// How long the last commit is waited for when there is a word to stop; without it a restart reads again.
const STOP_WAITS_MS: u64 = 10_000;
/// Rows of one file at most.
const FILE_ROWS_MAX: usize = 1_000_000;

impl Engine {
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let prefix = object_prefix(&settings.database, &settings.table);
        Self {
            settings,
            prefix,
            now: Mono(0),
            phase: Phase::Standby { ask_at: Mono(0) },
            troubles: BTreeMap::new(),
            held_by_other: false,
            owner: None,
            renew_at: None,
            renewing: false,
            lost_catalog: None,
            clock: None,
            clock_asked_at: Mono(0),
            committed_at: None,
            clock_back: false,
            head: None,
            topic_id: String::new(),
            topic_asked: Question::default(),
            topic_check_asked: Question::default(),
            manifests_asked: Question::default(),
            checkpoint_asked: Question::default(),
            topic_ask_at: Mono(0),
            out_of_range: BTreeMap::new(),
            lanes: Lanes::new(),
            watches: BTreeMap::new(),
            replaying: false,
            joining: BTreeMap::new(),
            committed: BTreeMap::new(),
            archived: TableLedger::default(),
            rows: 0,
            row_count: 0,
            next_epoch: 0,
            closed_through: None,
            in_flight: None,
            last_cut: None,
            last_progress: Mono(0),
            checkpoint_at: Mono(0),
            consumed_at_checkpoint: 0,
            want_checkpoint: false,
            checkpoint_behind: false,
            paused: false,
            stopping: None,
            stopping_since: Mono(0),
        }
    }

    /// The only way in.
    pub fn step(&mut self, input: Input<'_>, out: &mut Vec<Effect>) {
        if matches!(self.phase, Phase::Over(_)) {
            return;
        }
        match input {
            Input::Tick { now } => self.tick(now, out),
            Input::Acquired(answer) => self.acquired(answer, out),
            Input::Renewed(answer) => self.renewed(answer, out),
            Input::Topic(answer) => self.topic(answer, out),
            Input::TopicId(answer) => self.topic_checked(answer, out),
            Input::Manifests(answer) => self.manifests(answer, out),
            Input::Checkpoint(answer) => self.checkpoint(answer, out),
            Input::Records { partition, leader_epoch, batch } => self.records(partition, leader_epoch, batch),
            Input::End { partition, offset } => self.end(partition, offset),
            Input::Looked { partition, end } => self.looked(partition, end),
            Input::OutOfRange { partition, log_start, log_end } => {
                if self.watches.get_mut(&partition).is_some_and(|w| std::mem::take(&mut w.reading)) {
                    // Before anything is said of lost records: it may be another topic of the same name.
                    self.out_of_range.insert(partition, (log_start, log_end));
                    self.look_up_topic(out);
                }
            }
            Input::Truncated { partition, why } => self.truncated(partition, why, out),
            Input::Trouble { reason } => self.trouble(Side::Reader, reason),
            Input::Reopened => {
                self.watches.values_mut().for_each(|w| (w.reading, w.held) = (false, false));
                if matches!(self.phase, Phase::Counting) {
                    self.start_lanes(out);
                }
            }
            Input::Stored { key, result } => self.stored(&key, result, out),
            Input::Committed { epoch, result } => self.committed(epoch, result, out),
            Input::Found { epoch, result } => self.found(epoch, result, out),
            Input::Paused(paused) => self.paused = paused,
            Input::Shutdown => {
                self.stop(None);
            }
        }
        self.settle(out);
    }

    /// No more reading; the end after what is under way.
    fn stop(&mut self, reason: Option<String>) {
        if self.stopping.is_none() {
            self.stopping = Some(reason);
            self.stopping_since = self.now;
        }
    }

    // ---- getting and keeping the table ----

    fn tick(&mut self, now: Mono, out: &mut Vec<Effect>) {
        self.now = now;
        match &mut self.phase {
            Phase::Standby { ask_at } if now >= *ask_at && self.stopping.is_none() => {
                self.phase = Phase::Asking;
                self.clock_asked_at = now;
                out.push(Effect::Acquire);
            }
            Phase::Locating { ask_at } if ask_at.is_some_and(|at| now >= at) => {
                *ask_at = None;
                self.look_up_topic(out);
            }
            Phase::Searching { ask_at, .. } if ask_at.is_some_and(|at| now >= at) => {
                *ask_at = None;
                self.list_manifests(out);
            }
            Phase::Restoring { ask_at, key, .. } if ask_at.is_some_and(|at| now >= at) => {
                *ask_at = None;
                let key = key.clone();
                self.fetch_checkpoint(key, out);
            }
            Phase::Counting => self.counting_tick(out),
            _ => {}
        }
        if self.renew_at.is_some_and(|at| now >= at) {
            self.renew(out);
        }
        self.push_commit(out);
    }

    fn renew(&mut self, out: &mut Vec<Effect>) {
        if let Some(owner) = self.owner.clone().filter(|_| !self.renewing) {
            self.renewing = true;
            self.clock_asked_at = self.now;
            out.push(Effect::Renew { owner });
        }
    }

    fn acquired(&mut self, answer: Result<Acquired, CatalogError>, out: &mut Vec<Effect>) {
        if !matches!(self.phase, Phase::Asking) {
            return;
        }
        self.phase = Phase::Standby { ask_at: self.now.plus(RETRY_MS) };
        self.held_by_other = matches!(answer, Ok(Acquired::Held { .. }));
        match answer {
            Ok(Acquired::Held { by, left_ms }) => {
                let reason =
                    format!("table {}.{} is written by {by}", self.settings.database, self.settings.table);
                self.trouble(Side::Lease, reason);
                self.phase = Phase::Standby { ask_at: self.now.plus(left_ms.clamp(200, 5000)) };
            }
            Ok(Acquired::Ours { owner, lease_ms, now, head }) => {
                self.troubles.remove(&Side::Lease);
                self.owner = Some(owner);
                self.renew_at = Some(self.now.plus(lease_ms / 3));
                self.settings.lease_ms = lease_ms;
                self.clock = Some((now, self.clock_asked_at));
                if let Some(head) = &head {
                    self.committed_at = Some(head.committed_at);
                    if now < head.committed_at {
                        // Rejecting by such a clock would be for ever; waiting for it is not.
                        self.trouble(Side::Lease, CLOCK_BACK.to_owned());
                        self.give_back(out);
                        return;
                    }
                    if let Err(reason) = same_table(&head.genesis, &self.settings) {
                        self.fail(reason, out);
                        return;
                    }
                    self.paused = head.paused;
                }
                self.head = head;
                self.phase = Phase::Locating { ask_at: None };
                self.look_up_topic(out);
            }
            Err(CatalogError::Stop(reason)) => self.fail(reason, out),
            Err(error) => self.trouble(Side::Lease, error.to_string()),
        }
    }

    fn renewed(&mut self, answer: Result<(DbTime, bool), CatalogError>, out: &mut Vec<Effect>) {
        self.renewing = false;
        if self.owner.is_none() {
            return;
        }
        match answer {
            Ok((now, paused)) => {
                self.troubles.remove(&Side::Catalog);
                self.renew_at = Some(self.now.plus(self.settings.lease_ms / 3));
                self.paused = paused;
                self.clock_back = self.committed_at.is_some_and(|at| now < at);
                if self.clock_back {
                    self.trouble(Side::Lease, CLOCK_BACK.to_owned());
                    self.renew_at = Some(self.now.plus(RETRY_MS.min(self.settings.lease_ms / 3)));
                } else {
                    self.troubles.remove(&Side::Lease);
                    self.clock = Some((now, self.clock_asked_at));
                }
                match self.lost_catalog.take() {
                    Some((reason, true)) => self.fail(reason, out),
                    Some((reason, false)) => {
                        self.lost_catalog = Some((reason, true));
                        self.renew(out);
                    }
                    None => {}
                }
            }
            Err(CatalogError::Fenced(reason)) => self.fenced(reason, out),
            // The lease may end meanwhile. That costs only work: each commit looks whose table it is.
            Err(error) => {
                self.trouble(Side::Catalog, error.to_string());
                self.renew_at = Some(self.now.plus(RETRY_MS));
            }
        }
    }

    /// Another process has the table, or the ledger is another one than we thought: forget all, ask again.
    fn fenced(&mut self, reason: String, out: &mut Vec<Effect>) {
        self.forget(out);
        self.trouble(Side::Lease, reason);
        self.phase = Phase::Standby { ask_at: self.now.plus(RETRY_MS) };
    }

    fn give_back(&mut self, out: &mut Vec<Effect>) {
        if let Some(owner) = self.owner.take() {
            out.push(Effect::Release { owner });
        }
    }

    fn forget(&mut self, out: &mut Vec<Effect>) {
        let fresh = Self::new(self.settings.clone());
        let old = std::mem::replace(self, fresh);
        (self.now, self.paused) = (old.now, old.paused);
        (self.stopping, self.stopping_since) = (old.stopping, old.stopping_since);
        self.topic_asked = old.topic_asked.of_earlier_ownership();
        self.topic_check_asked = old.topic_check_asked.of_earlier_ownership();
        self.manifests_asked = old.manifests_asked.of_earlier_ownership();
        self.checkpoint_asked = old.checkpoint_asked.of_earlier_ownership();
        out.push(Effect::StopAll);
    }

    fn fail(&mut self, reason: String, out: &mut Vec<Effect>) {
        out.push(Effect::StopAll);
        self.give_back(out);
        self.phase = Phase::Over(Some(reason.clone()));
        out.push(Effect::Exit(Some(reason)));
    }

    fn trouble(&mut self, side: Side, reason: String) {
        self.troubles.insert(side, reason);
    }

    // ---- the topic, epoch 0, restoring ----

    fn look_up_topic(&mut self, out: &mut Vec<Effect>) {
        if self.topic_asked.ask() {
            out.push(Effect::LookUpTopic);
        }
    }

    fn list_manifests(&mut self, out: &mut Vec<Effect>) {
        if self.manifests_asked.ask() {
            out.push(Effect::ListManifests { prefix: format!("{}manifests/", self.prefix) });
        }
    }

    fn fetch_checkpoint(&mut self, key: String, out: &mut Vec<Effect>) {
        if self.checkpoint_asked.ask() {
            out.push(Effect::FetchCheckpoint { key });
        }
    }

    fn topic(&mut self, answer: Result<TopicFacts, String>, out: &mut Vec<Effect>) {
        if !self.topic_asked.answered() {
            if matches!(self.phase, Phase::Locating { .. } | Phase::Counting) {
                self.look_up_topic(out);
            }
            return;
        }
        self.topic_ask_at = self.now.plus(TOPIC_EVERY_MS);
        let facts = match answer {
            Ok(facts) if !facts.partitions.is_empty() => facts,
            Ok(_) => {
                return self
                    .topic_missing(format!("topic \"{}\" has no partitions yet", self.settings.shape.topic));
            }
            Err(reason) => return self.topic_missing(reason),
        };
        match self.phase {
            Phase::Locating { .. } => {
                self.troubles.remove(&Side::Topic);
                match self.head.take() {
                    None => {
                        self.phase = Phase::Searching { ask_at: None, facts };
                        self.list_manifests(out);
                    }
                    Some(head) => self.resume(head, facts, out),
                }
            }
            Phase::Counting => {
                self.troubles.remove(&Side::Topic);
                self.topic_seen(&facts, out);
            }
            _ => {}
        }
    }

    fn topic_missing(&mut self, reason: String) {
        self.trouble(Side::Topic, reason);
        self.topic_ask_at = self.now.plus(RETRY_MS);
        if let Phase::Locating { ask_at } = &mut self.phase {
            *ask_at = Some(self.now.plus(RETRY_MS));
        }
    }

    fn manifests(&mut self, answer: Result<Vec<String>, String>, out: &mut Vec<Effect>) {
        let counts = self.manifests_asked.answered();
        let Phase::Searching { ask_at, facts } = &mut self.phase else { return };
        if !counts {
            *ask_at = Some(self.now);
            return;
        }
        let keys = match answer {
            Ok(keys) => keys,
            Err(reason) => {
                *ask_at = Some(self.now.plus(RETRY_MS));
                self.trouble(Side::Store, reason);
                return;
            }
        };
        // One of epoch 0 proves nothing: it is stored before epoch 0 is committed.
        let epoch = |key: &String| key.rsplit('/').next()?.split('-').nth(1)?.parse::<u64>().ok();
        if let Some(lost) = keys.iter().filter_map(epoch).filter(|e| *e > 0).max() {
            let reason = format!(
                "the catalog has no epoch of table {}.{}, but {} holds manifests up to epoch {lost}: the catalog was \
                 lost, or restored from before the table; restore it, or choose another table name",
                self.settings.database, self.settings.table, self.settings.warehouse
            );
            // Unless they are of another owner that came after us: only a lease that still holds proves it.
            self.lost_catalog = Some((reason, !self.renewing));
            return self.renew(out);
        }
        let facts = facts.clone();
        self.troubles.remove(&Side::Store);
        self.found_table(facts, out);
    }

    /// Epoch 0: everything that later epochs only refer to.
    fn found_table(&mut self, facts: TopicFacts, out: &mut Vec<Effect>) {
        let at_end = self.settings.start_at_end;
        let start_offsets: BTreeMap<_, _> = facts
            .partitions
            .iter()
            .map(|(p, (first, end))| (*p, if at_end { *end } else { *first }))
            .collect();
        for (partition, start) in &start_offsets {
            let mut lane = Lane::new(*partition, &self.settings.shape, *start);
            lane.set_delay(self.settings.delay_ms);
            self.lanes.insert(*partition, lane);
            self.watches.insert(*partition, Watch::default());
            self.committed.insert(*partition, *start);
        }
        self.topic_id.clone_from(&facts.topic_id);
        let genesis = Genesis {
            shape: self.settings.shape.clone(),
            warehouse: self.settings.warehouse.clone(),
            cluster_id: facts.cluster_id,
            topic_id: facts.topic_id,
            start_offsets,
        };
        self.phase = Phase::Founding;
        self.cut(Some(genesis), out);
    }

    /// Goes on where the last commit was: lanes from the checkpoint, then a replay.
    fn resume(&mut self, head: Box<Head>, facts: TopicFacts, out: &mut Vec<Effect>) {
        self.topic_id.clone_from(&head.last.topic_id);
        let recorded = &head.genesis;
        if facts.topic_id.is_empty() && facts.cluster_id != recorded.cluster_id {
            let reason = format!(
                "topic \"{}\" is of Kafka cluster \"{}\", but table {}.{} counts the one of cluster \"{}\"; choose another table name",
                recorded.shape.topic,
                facts.cluster_id,
                self.settings.database,
                self.settings.table,
                recorded.cluster_id
            );
            return self.fail(reason, out);
        }
        self.next_epoch = head.last.epoch + 1;
        self.closed_through = head.last.closed_through;
        self.rows = head.last.ledger.rows;
        self.row_count = head.last.ledger.row_count;
        self.archived = archived(&head.last);
        self.committed = head.last.lanes.iter().map(|(p, lane)| (*p, lane.to)).collect();
        let at = head.checkpoint.clone();
        self.head = Some(head);
        match at {
            None => self.restore(BTreeMap::new(), &facts, out),
            Some((_, CheckpointAt::Inline(hex))) => match unhex(&hex) {
                Some(bytes) => self.restore_bytes(&bytes, &facts, out),
                None => self.fail("cannot read the checkpoint in the catalog: it is no hex".to_owned(), out),
            },
            Some((_, CheckpointAt::Object(key))) => {
                self.phase = Phase::Restoring { ask_at: None, key: key.clone(), facts };
                self.fetch_checkpoint(key, out);
            }
        }
    }

    fn checkpoint(&mut self, answer: Result<Vec<u8>, String>, out: &mut Vec<Effect>) {
        let counts = self.checkpoint_asked.answered();
        let Phase::Restoring { ask_at, facts, .. } = &mut self.phase else { return };
        if !counts {
            *ask_at = Some(self.now);
            return;
        }
        match answer {
            Ok(bytes) => {
                let facts = facts.clone();
                self.restore_bytes(&bytes, &facts, out);
            }
            Err(reason) => {
                *ask_at = Some(self.now.plus(RETRY_MS));
                self.trouble(Side::Store, reason);
            }
        }
    }

    fn restore_bytes(&mut self, bytes: &[u8], facts: &TopicFacts, out: &mut Vec<Effect>) {
        match checkpoint::decode(bytes) {
            Ok(states) => self.restore(states, facts, out),
            Err(reason) => self.fail(reason, out),
        }
    }

    fn restore(
        &mut self,
        mut states: BTreeMap<Partition, LaneState>,
        facts: &TopicFacts,
        out: &mut Vec<Effect>,
    ) {
        let head = self.head.take().expect("a head was read before its checkpoint");
        let shape = &self.settings.shape;
        for (partition, commit) in &head.last.lanes {
            let state = match states.remove(partition) {
                Some(state) => state,
                // No checkpoint yet, or none since it joined: a lane begins at its start offset.
                None => Lane::new(*partition, shape, commit.ledger.start_offset).state(),
            };
            let decisions = head.decisions.iter().filter(|d| d.partition == *partition).cloned().collect();
            let lane = Lane::restore(*partition, shape, state, commit.ledger, decisions);
            self.watches.insert(*partition, Watch { last_record: self.now, ..Watch::default() });
            self.checkpoint_behind |= lane.replaying();
            self.lanes.insert(*partition, lane);
        }
        self.troubles.remove(&Side::Store);
        self.replaying = true;
        self.phase = Phase::Counting;
        self.last_progress = self.now;
        self.checkpoint_at = self.now;
        // Before anything is read: it may be another topic of the same name.
        if self.is_other_topic(facts) {
            return self.new_generation(facts, out);
        }
        self.topic_seen(facts, out);
    }

    fn is_other_topic(&self, facts: &TopicFacts) -> bool {
        !facts.topic_id.is_empty() && !self.topic_id.is_empty() && facts.topic_id != self.topic_id
    }

    /// Reads every lane that is not read yet and whose first commit is through.
    fn start_lanes(&mut self, out: &mut Vec<Effect>) {
        for (partition, lane) in &self.lanes {
            let watch = self.watches.entry(*partition).or_default();
            if watch.reading || watch.gone.is_some() || !self.committed.contains_key(partition) {
                continue;
            }
            if self.out_of_range.contains_key(partition) {
                continue;
            }
            *watch =
                Watch { reading: true, last_record: self.now, log_end: watch.log_end, ..Watch::default() };
            out.push(Effect::Start {
                partition: *partition,
                offset: lane.ledger.next_offset,
                leader_epoch: lane.leader_epoch,
            });
        }
        if self.paused {
            // Not with the next tick: a batch would be counted before it.
            self.flow(out);
        }
    }

    /// The topic as it is now against the topic as we count it.
    fn topic_seen(&mut self, facts: &TopicFacts, out: &mut Vec<Effect>) {
        for (partition, (_, end)) in &facts.partitions {
            if let Some(watch) = self.watches.get_mut(partition) {
                watch.log_end = watch.log_end.max(*end);
            }
        }
        if self.is_other_topic(facts) {
            // What was read since the last commit may be of either: back to the ledger, which is of the one before.
            let reason = format!(
                "topic \"{}\" was made again: its id is {}",
                self.settings.shape.topic, facts.topic_id
            );
            self.give_back(out);
            return self.fenced(reason, out);
        }
        for (partition, watch) in &mut self.watches {
            // Without an id nothing says that the topic was made again, with fewer topic partitions.
            let there = facts.topic_id.is_empty() || facts.partitions.contains_key(partition);
            watch.gone = if there { None } else { watch.gone.or(Some(self.now)) };
        }
        for (partition, (log_start, log_end)) in std::mem::take(&mut self.out_of_range) {
            // Either answer may be an old one; a log neither begins earlier nor, uncut, ends earlier than it says.
            let (first, end) = facts.partitions.get(&partition).copied().unwrap_or((log_start, log_end));
            self.lost(partition, log_start.max(first), log_end.max(end), out);
            if matches!(self.phase, Phase::Over(_)) {
                return;
            }
        }
        for (partition, (first, _)) in &facts.partitions {
            if !self.lanes.contains_key(partition) {
                self.joining.insert(*partition, *first);
            }
        }
        self.start_lanes(out);
    }

    /// The topic was deleted and made again: its offsets mean other records now.
    fn new_generation(&mut self, facts: &TopicFacts, out: &mut Vec<Effect>) {
        let topic = &self.settings.shape.topic;
        if self.lanes.values().any(Lane::replaying) {
            let reason = format!(
                "cannot go on from the checkpoint: topic \"{topic}\" was deleted and made again since (its id is {}), and \
                 open windows counted the old one; choose another table name",
                facts.topic_id
            );
            return self.fail(reason, out);
        }
        if !self.settings.continue_on_data_loss {
            let reason = format!(
                "topic \"{topic}\" was deleted and made again: its id is {}, table {}.{} counts {}; set on-data-loss: continue \
                 to count the new one into the same table, or choose another table name",
                facts.topic_id, self.settings.database, self.settings.table, self.topic_id
            );
            return self.fail(reason, out);
        }
        out.push(Effect::StopAll);
        self.out_of_range.clear();
        let frontier = merger::frontier(&self.lanes);
        for (partition, lane) in &mut self.lanes {
            self.archived.add(&lane.ledger);
            lane.decide(Decided::Generation {
                to: 0,
                topic_id: facts.topic_id.clone(),
                reason: "the topic was made again".to_owned(),
            });
            if let Some(frontier) = frontier {
                lane.raise_floor(frontier, FloorReason::Generation);
            }
            let gone = (!facts.partitions.contains_key(partition)).then_some(self.now);
            self.watches.insert(*partition, Watch { gone, last_record: self.now, ..Watch::default() });
        }
        self.topic_id.clone_from(&facts.topic_id);
        self.want_checkpoint = true;
        for (partition, (first, _)) in &facts.partitions {
            if !self.lanes.contains_key(partition) {
                self.joining.insert(*partition, *first);
            }
        }
        self.start_lanes(out);
    }

    /// The log of one topic partition does not reach to where we are.
    fn lost(&mut self, partition: Partition, log_start: Offset, log_end: Offset, out: &mut Vec<Effect>) {
        let Some(lane) = self.lanes.get_mut(&partition) else { return };
        let next = lane.ledger.next_offset;
        if (log_start..=log_end).contains(&next) {
            return;
        }
        let what = if next < log_start {
            format!(
                "offsets {next} to {log_start} of topic partition {partition} are no longer in Kafka (retention, or deleted records)"
            )
        } else {
            format!(
                "topic partition {partition} was cut off at offset {log_end}, below the next offset {next}"
            )
        };
        if lane.replaying() {
            let reason = format!(
                "cannot go on from the checkpoint: {what}, and open windows counted them; choose another table name"
            );
            return self.fail(reason, out);
        }
        if !self.settings.continue_on_data_loss {
            let reason = format!(
                "{what}; set on-data-loss: continue to go on without them, or choose another table name"
            );
            return self.fail(reason, out);
        }
        if next < log_start {
            lane.decide(Decided::Lost { to: log_start, reason: what });
        } else {
            self.archived.add(&lane.ledger);
            lane.decide(Decided::Generation { to: log_end, topic_id: self.topic_id.clone(), reason: what });
        }
        self.want_checkpoint = true;
    }

    /// A cut whose place nobody knows: what was counted of it is gone from the log.
    fn truncated(&mut self, partition: Partition, why: String, out: &mut Vec<Effect>) {
        let Some(lane) = self.lanes.get_mut(&partition) else { return };
        if lane.replaying() {
            let reason = format!(
                "cannot go on from the checkpoint: {why}, and open windows counted what was cut off; choose another table name"
            );
            return self.fail(reason, out);
        }
        if !self.settings.continue_on_data_loss {
            let reason =
                format!("{why}; set on-data-loss: continue to go on behind it, or choose another table name");
            return self.fail(reason, out);
        }
        self.archived.add(&lane.ledger);
        lane.decide(Decided::Generation {
            to: lane.ledger.next_offset,
            topic_id: self.topic_id.clone(),
            reason: why,
        });
        self.want_checkpoint = true;
        if let Some(watch) = self.watches.get_mut(&partition) {
            watch.reading = false;
        }
        self.start_lanes(out);
    }

    // ---- records ----

    fn records(&mut self, partition: Partition, leader_epoch: i32, batch: &dyn Batch) {
        let ceiling = self.ceiling();
        let (Some(lane), Some(watch)) = (self.lanes.get_mut(&partition), self.watches.get_mut(&partition))
        else {
            return;
        };
        if !watch.reading || self.stopping.is_some() {
            return;
        }
        // An eighth of the slack: often enough that no record of now is from the future, seldom enough to record.
        if let Some(ceiling) = ceiling
            && lane.ceiling_is_off(ceiling, self.settings.max_future_ms.unsigned_abs() / 8)
        {
            lane.offer_ceiling(ceiling);
        }
        lane.records(batch);
        self.troubles.remove(&Side::Reader);
        if leader_epoch >= 0 {
            lane.leader_epoch = leader_epoch;
        }
        watch.last_record = self.now;
        watch.at_end = false;
        watch.idle_until = None;
        watch.log_end = watch.log_end.max(lane.ledger.next_offset);
    }

    fn ceiling(&self) -> Option<EventTime> {
        let (then, at) = self.clock?;
        let since = i64::try_from(self.now.since(at)).unwrap_or(i64::MAX);
        Some(EventTime(then.0).plus(since).plus(self.settings.max_future_ms))
    }

    fn end(&mut self, partition: Partition, offset: Offset) {
        let (Some(lane), Some(watch)) = (self.lanes.get_mut(&partition), self.watches.get_mut(&partition))
        else {
            return;
        };
        // What was read after the word to stop was passed over, so that the log's end says nothing of it.
        if watch.reading && self.stopping.is_none() {
            if offset > lane.ledger.next_offset {
                // What lies between, such as a transaction's marker, may be of a later epoch, with which the log would
                // seem to have been cut off.
                lane.leader_epoch = -1;
            }
            lane.end(offset);
            watch.at_end = offset == lane.ledger.next_offset;
            self.troubles.remove(&Side::Reader);
            watch.log_end = watch.log_end.max(offset);
        }
    }

    fn looked(&mut self, partition: Partition, end: Result<LogEnd, String>) {
        let (Some(lane), Some(watch)) = (self.lanes.get(&partition), self.watches.get_mut(&partition)) else {
            return;
        };
        let Some(asked_at) = watch.looking.take() else { return };
        watch.looked_at = Some(self.now);
        let Ok(end) = end else {
            watch.idle_until = None;
            return;
        };
        watch.log_end = watch.log_end.max(end.high_watermark);
        let next = lane.ledger.next_offset;
        let silent = self.now.since(watch.last_record) >= self.settings.idle_timeout_ms;
        let nothing = next == end.last_stable && next == end.high_watermark;
        let idle = watch.at_end && silent && nothing && watch.reading && !watch.held;
        let hold_ms = self.settings.idle_timeout_ms.max(IDLE_HOLDS_MS_MIN);
        watch.idle_until = idle.then(|| asked_at.plus(hold_ms));
        if idle {
            watch.nothing_by = watch.asked_with;
        }
    }

    // ---- while counting ----

    fn counting_tick(&mut self, out: &mut Vec<Effect>) {
        if self.now >= self.topic_ask_at {
            self.look_up_topic(out);
        }
        self.look_at_ends(out);
        self.raise_floors();
        self.flow(out);
    }

    /// Asks for the log's end of topic partitions that were silent for `idle-timeout`; sooner again where that is what
    /// keeps a window from closing.
    fn look_at_ends(&mut self, out: &mut Vec<Effect>) {
        let timeout = self.settings.idle_timeout_ms;
        let shape = &self.settings.shape;
        let slides = |at: EventTime| (at.0 - shape.offset_ms).div_euclid(shape.slide_ms);
        let target = self.idle_and_target().1.map(slides);
        let highest = self.lanes.values().filter_map(Lane::watermark).max();
        for (partition, watch) in &mut self.watches {
            let silent = self.now.since(watch.last_record) >= timeout;
            let every = if watch.idle_until.is_some() && target > watch.nothing_by.map(slides) {
                LOOK_AGAIN_MS
            } else {
                (timeout / 4).clamp(LOOK_AGAIN_MS, 10_000)
            };
            let due = watch.looked_at.is_none_or(|at| self.now.since(at) >= every);
            if watch.reading && watch.at_end && silent && due && watch.looking.is_none() && !watch.held {
                watch.looking = Some(self.now);
                watch.asked_with = highest;
                out.push(Effect::LookAtEnd { partition: *partition });
            }
        }
    }

    fn is_idle(&self, partition: Partition) -> bool {
        let watch = &self.watches[&partition];
        watch.gone.is_some_and(|since| self.now.since(since) >= GONE_AFTER_MS)
            || watch.idle_until.is_some_and(|until| self.now < until)
    }

    /// The idle topic partitions, and where their floors belong: at the least watermark of the others, or at the
    /// greatest of all when all are idle.
    fn idle_and_target(&self) -> (Vec<Partition>, Option<EventTime>) {
        let idle: Vec<Partition> = self.lanes.keys().copied().filter(|p| self.is_idle(*p)).collect();
        let target = if idle.len() == self.lanes.len() {
            self.lanes.values().filter_map(Lane::watermark).max()
        } else {
            // One that is not idle and has no watermark yet holds all the others.
            let watermark = |(p, lane): (&Partition, &Lane)| (!idle.contains(p)).then(|| lane.watermark());
            self.lanes.iter().filter_map(watermark).min().flatten()
        };
        (idle, target)
    }

    /// Idle topic partitions stand aside: their floors go up, as far as was known when they were seen to be empty.
    fn raise_floors(&mut self) {
        if self.lanes.values().any(Lane::replaying) || self.paused {
            return;
        }
        let (idle, target) = self.idle_and_target();
        if idle.is_empty() {
            return;
        }
        let all = idle.len() == self.lanes.len();
        if let Some(target) = target {
            for partition in &idle {
                let watch = &self.watches[partition];
                let at = if watch.gone.is_some() {
                    Some(target)
                } else {
                    watch.nothing_by.map(|by| by.min(target))
                };
                if let Some(at) = at {
                    self.lanes.get_mut(partition).expect("just listed").raise_floor(at, FloorReason::Idle);
                }
            }
        }
        if let Some(quiet) = self.settings.quiet_timeout_ms
            && all
            && self.watches.values().all(|w| self.now.since(w.last_record) >= quiet)
            && let Some(end) = self.lanes.values().filter_map(Lane::last_end).max()
        {
            for lane in self.lanes.values_mut() {
                lane.raise_floor(end, FloorReason::Quiet);
            }
        }
    }

    /// Pauses what runs ahead too far or fills memory. It changes no row.
    fn flow(&mut self, out: &mut Vec<Effect>) {
        let side: usize = self.lanes.values().map(|l| l.side_bytes).sum();
        let closed: u64 = self.lanes.values().flat_map(|l| l.closed.values()).map(|e| e.len() as u64).sum();
        let behind = self.lanes.iter().filter(|(p, _)| !self.is_idle(**p)).map(|(_, l)| l.watermark());
        // While one that is not idle has no watermark yet, nothing becomes final.
        let (least, unset) = (behind.clone().flatten().min(), behind.clone().any(|w| w.is_none()));
        let all = self.paused || self.clock_back || self.stopping.is_some() || side > 2 * SIDE_BYTES_MAX;
        for (partition, lane) in &self.lanes {
            let ahead = lane.watermark().is_some_and(|w| {
                least.is_some_and(|least| w > least.plus(self.settings.max_skew_ms))
                    || (closed > 2 * CLOSED_ENTRIES_MAX && (unset || least.is_some_and(|least| w > least)))
            });
            let hold = all || (ahead && !lane.replaying());
            let watch = self.watches.get_mut(partition).expect("every lane is watched");
            if watch.reading && watch.held != hold {
                watch.held = hold;
                watch.idle_until = None;
                watch.last_record = self.now;
                out.push(if hold {
                    Effect::Hold { partition: *partition }
                } else {
                    Effect::Unhold { partition: *partition }
                });
            }
        }
    }

    /// After each step: stop where a lane stopped, commit where something is due, end where nothing is left.
    fn settle(&mut self, out: &mut Vec<Effect>) {
        if matches!(self.phase, Phase::Counting) {
            match self.lanes.values().find_map(Lane::stopped).cloned() {
                Some(Stopped::Replay(reason)) => return self.fail(reason, out),
                Some(Stopped::BadRecord(reason)) => {
                    self.stop(Some(reason));
                }
                None => {}
            }
            self.drop_committed();
            if self.in_flight.is_none() && self.due() {
                self.cut(None, out);
            }
        }
        let busy = self.in_flight.is_some() || matches!(self.phase, Phase::Asking);
        let waited = self.now.since(self.stopping_since) >= STOP_WAITS_MS;
        if !matches!(self.phase, Phase::Over(_))
            && (!busy || waited)
            && let Some(reason) = self.stopping.clone()
        {
            out.push(Effect::StopAll);
            self.give_back(out);
            self.phase = Phase::Over(reason.clone());
            out.push(Effect::Exit(reason));
        }
    }

    /// A replay closes windows anew whose rows are committed already. After it the settings' delay holds, which may be
    /// another one than before.
    fn drop_committed(&mut self) {
        if !self.replaying {
            return;
        }
        self.replaying = self.lanes.values().any(Lane::replaying);
        if let Some(through) = self.closed_through {
            merger::take(&mut self.lanes, &self.settings.shape, through);
        }
        if !self.replaying {
            self.lanes.values_mut().for_each(|lane| lane.set_delay(self.settings.delay_ms));
        }
    }

    /// Whether a commit should be cut now.
    fn due(&self) -> bool {
        if self.lanes.values().any(Lane::replaying) {
            return false;
        }
        let moved =
            self.lanes.iter().any(|(p, lane)| self.committed.get(p) != Some(&lane.ledger.next_offset));
        let decided = self.lanes.values().any(|lane| !lane.decisions.is_empty());
        if self.stopping.is_some() || !self.joining.is_empty() || self.want_checkpoint {
            return moved || decided || !self.joining.is_empty() || self.checkpoint_behind;
        }
        // Also when nothing comes any more: the log's start moves up to where a restart would begin.
        if self.checkpoint_behind && self.now.since(self.checkpoint_at) >= CHECKPOINT_EVERY_MS {
            return true;
        }
        let side: usize = self.lanes.values().map(|l| l.side_bytes).sum();
        if side > SIDE_BYTES_MAX {
            return true;
        }
        let rows = merger::frontier(&self.lanes)
            .is_some_and(|f| merger::has_rows(&self.lanes, &self.settings.shape, f));
        if rows || side > 0 {
            let closed: u64 =
                self.lanes.values().flat_map(|l| l.closed.values()).map(|e| e.len() as u64).sum();
            let interval = self.settings.commit_interval_ms;
            return (rows && closed > CLOSED_ENTRIES_MAX)
                || self.last_cut.is_none_or(|at| self.now.since(at) >= interval);
        }
        (moved || decided) && self.now.since(self.last_progress) >= PROGRESS_EVERY_MS
    }

    // ---- the commit ----

    /// Draws the line: everything up to here becomes one epoch. Reading goes on at once.
    fn cut(&mut self, genesis: Option<Genesis>, out: &mut Vec<Effect>) {
        let owner = self.owner.clone().expect("only an owner cuts");
        let epoch = self.next_epoch;
        let frontier = merger::frontier(&self.lanes).max(self.closed_through);
        self.join(frontier);
        let rows =
            frontier.map_or_else(Vec::new, |f| merger::close(&mut self.lanes, &self.settings.shape, f));
        self.rows += rows.len() as u64;
        self.row_count += rows.iter().map(|row| row.count).sum::<u64>();
        let ledger = self.table_ledger();
        let checks = self.lanes.values().map(|lane| lane.ledger.check()).chain([ledger.check()]);
        if let Err(reason) = checks.collect::<Result<Vec<()>, String>>() {
            return self.fail(reason, out);
        }
        let lanes: BTreeMap<_, _> =
            self.lanes.iter().map(|(p, lane)| (*p, self.lane_commit(*p, lane))).collect();
        let mut puts = BTreeMap::new();
        let meta = footer(epoch, &lanes, &ledger);
        let files = self.files(&owner, epoch, &rows, &meta, &mut puts);
        let decisions =
            self.lanes.values_mut().flat_map(|lane| std::mem::take(&mut lane.decisions)).collect();
        let checkpoint = self.write_checkpoint(&owner, epoch, ledger.consumed, &mut puts);
        let mut commit = Commit {
            owner,
            epoch,
            genesis,
            lanes,
            topic_id: self.topic_id.clone(),
            decisions,
            closed_through: frontier,
            ledger,
            files,
            checkpoint,
            manifest: String::new(),
            digest: String::new(),
        };
        commit.seal(&self.prefix);
        let manifest = serde_json::to_vec(&commit).expect("plain values");
        puts.insert(commit.manifest.clone(), (Arc::new(manifest), false));
        self.closed_through = frontier;
        self.last_cut = Some(self.now);
        self.last_progress = self.now;
        // Epoch 0 holds no record.
        let topic = if commit.genesis.is_some() || self.topic_id.is_empty() {
            TopicCheck::Same
        } else {
            TopicCheck::AskAt(self.now)
        };
        let commit = Arc::new(commit);
        self.in_flight = Some(InFlight { commit, puts, stage: Stage::Storing, retry_at: None, topic });
        self.push_commit(out);
    }

    /// Topic partitions that appeared begin at the frontier: what they hold of closed windows is late.
    fn join(&mut self, frontier: Option<EventTime>) {
        for (partition, start) in std::mem::take(&mut self.joining) {
            let mut lane = Lane::new(partition, &self.settings.shape, start);
            lane.set_delay(self.settings.delay_ms);
            if let Some(frontier) = frontier {
                lane.raise_floor(frontier, FloorReason::Join);
            }
            self.lanes.insert(partition, lane);
            self.watches.insert(partition, Watch { last_record: self.now, ..Watch::default() });
            self.want_checkpoint = true;
        }
    }

    fn lane_commit(&self, partition: Partition, lane: &Lane) -> LaneCommit {
        LaneCommit {
            from: self.committed.get(&partition).copied().unwrap_or(lane.ledger.start_offset),
            to: lane.ledger.next_offset,
            leader_epoch: lane.leader_epoch,
            watermark: lane.watermark(),
            ledger: lane.ledger,
        }
    }

    fn table_ledger(&self) -> TableLedger {
        let mut ledger = self.archived;
        for lane in self.lanes.values() {
            ledger.add(&lane.ledger);
        }
        ledger.rows = self.rows;
        ledger.row_count = self.row_count;
        ledger.open = self.lanes.values().map(Lane::open_count).sum();
        ledger.closed = self.lanes.values().map(Lane::closed_count).sum();
        ledger
    }

    fn files(
        &mut self,
        owner: &Owner,
        epoch: u64,
        rows: &[Row],
        meta: &[(String, String)],
        puts: &mut BTreeMap<String, (Arc<Vec<u8>>, bool)>,
    ) -> Vec<NewFile> {
        let shape = &self.settings.shape;
        let timestamps = self.settings.timestamps;
        let mut files = Vec::new();
        let mut add = |kind: FileKind,
                       folder: &str,
                       part: usize,
                       rows: usize,
                       windows: Option<(EventTime, EventTime)>,
                       bytes: Vec<u8>| {
            let sha256 = sha256_hex(&bytes);
            let key = object_key(&self.prefix, folder, owner, epoch, &sha256) + "/part.parquet";
            files.push(NewFile {
                kind,
                chunk: if part == 0 { format!("{epoch:010}") } else { format!("{epoch:010}-{part}") },
                key: key.clone(),
                bytes: bytes.len() as u64,
                rows: rows as u64,
                sha256,
                first_window: windows.map(|w| w.0),
                last_window: windows.map(|w| w.1),
            });
            puts.insert(key, (Arc::new(bytes), false));
        };
        for day in rows.chunk_by(|a, b| a.start.0.div_euclid(86_400_000) == b.start.0.div_euclid(86_400_000))
        {
            let date = day[0].start.date();
            for (part, rows) in day.chunks(FILE_ROWS_MAX).enumerate() {
                let bytes = file::write_rows(shape, timestamps, rows, meta);
                let windows = (rows[0].start, rows[rows.len() - 1].start);
                let folder = format!("rows/{date}");
                add(FileKind::Rows { date: date.clone() }, &folder, part, rows.len(), Some(windows), bytes);
            }
        }
        let (mut late, mut rejects) = (Vec::new(), Vec::new());
        for lane in self.lanes.values_mut() {
            late.append(&mut lane.late);
            rejects.append(&mut lane.rejects);
            lane.side_bytes = 0;
        }
        if !late.is_empty() {
            let bytes = file::write_late(&shape.topic, timestamps, &shape.group_by, &late, meta);
            add(FileKind::Late, "late", 0, late.len(), None, bytes);
        }
        if !rejects.is_empty() {
            let bytes = file::write_rejects(&shape.topic, timestamps, &rejects, meta);
            add(FileKind::Rejects, "rejects", 0, rejects.len(), None, bytes);
        }
        files
    }

    /// A checkpoint goes with every commit while it is small, else by replay distance, and always with decisions that
    /// a replay could not repeat.
    fn write_checkpoint(
        &mut self,
        owner: &Owner,
        epoch: u64,
        consumed: u64,
        puts: &mut BTreeMap<String, (Arc<Vec<u8>>, bool)>,
    ) -> Option<CheckpointAt> {
        let keys: u64 = self.lanes.values().map(Lane::key_slots).sum();
        let far = self.now.since(self.checkpoint_at) >= CHECKPOINT_EVERY_MS
            || consumed.saturating_sub(self.consumed_at_checkpoint) >= CHECKPOINT_EVERY_RECORDS;
        if epoch > 0
            && keys > self.settings.checkpoint_keys_small
            && !far
            && !self.want_checkpoint
            && self.stopping.is_none()
        {
            self.checkpoint_behind = true;
            return None;
        }
        self.checkpoint_behind = false;
        self.checkpoint_at = self.now;
        self.consumed_at_checkpoint = consumed;
        self.want_checkpoint = false;
        let states = self.lanes.iter().map(|(p, lane)| (*p, lane.state())).collect();
        let bytes = checkpoint::encode(&states, self.settings.shape.group_by.len());
        if bytes.len() <= CHECKPOINT_INLINE_MAX_BYTES {
            return Some(CheckpointAt::Inline(hex(&bytes)));
        }
        let key = object_key(&self.prefix, "checkpoints", owner, epoch, &sha256_hex(&bytes));
        puts.insert(key.clone(), (Arc::new(bytes), false));
        Some(CheckpointAt::Object(key))
    }

    /// Carries the commit on: what is not stored is stored, then the catalog is told, then asked when it was silent.
    fn push_commit(&mut self, out: &mut Vec<Effect>) {
        let Some(flight) = &mut self.in_flight else { return };
        if flight.retry_at.is_some_and(|at| self.now < at) {
            return;
        }
        let retry = flight.retry_at.take().is_some();
        if flight.stage == Stage::Storing {
            if let TopicCheck::AskAt(at) = flight.topic
                && self.now >= at
                && self.topic_check_asked.ask()
            {
                flight.topic = TopicCheck::Asked;
                out.push(Effect::CheckTopic);
            }
            if flight.puts.is_empty() && flight.topic == TopicCheck::Same {
                flight.stage = Stage::Committing;
                out.push(Effect::Commit(Arc::clone(&flight.commit)));
                return;
            }
            // The manifest first, and alone: whoever comes after us finds by it what we left behind.
            let first = flight.puts.contains_key(&flight.commit.manifest);
            for (key, (bytes, asked)) in &mut flight.puts {
                if !*asked && (!first || *key == flight.commit.manifest) {
                    *asked = true;
                    out.push(Effect::Put { key: key.clone(), bytes: Arc::clone(bytes) });
                }
            }
        } else if retry {
            out.push(match flight.stage {
                Stage::Finding => {
                    Effect::Find { owner: flight.commit.owner.clone(), epoch: flight.commit.epoch }
                }
                _ => Effect::Commit(Arc::clone(&flight.commit)),
            });
        }
    }

    fn stored(&mut self, key: &str, result: Result<(), String>, out: &mut Vec<Effect>) {
        let Some(flight) = &mut self.in_flight else { return };
        let Some((_, asked)) = flight.puts.get_mut(key) else { return };
        match result {
            Ok(()) => {
                flight.puts.remove(key);
                if flight.puts.is_empty() {
                    self.troubles.remove(&Side::Store);
                }
                self.push_commit(out);
            }
            Err(reason) => {
                *asked = false;
                flight.retry_at = Some(self.now.plus(RETRY_MS));
                self.trouble(Side::Store, reason);
            }
        }
    }

    fn topic_checked(&mut self, answer: Result<String, String>, out: &mut Vec<Effect>) {
        // One that was asked for earlier came in the place of ours, which is asked now.
        if !self.topic_check_asked.answered() {
            return;
        }
        let Some(flight) = self.in_flight.as_mut().filter(|f| f.topic == TopicCheck::Asked) else { return };
        match answer {
            Ok(id) if id.is_empty() || id == flight.commit.topic_id => {
                flight.topic = TopicCheck::Same;
                self.troubles.remove(&Side::Topic);
                self.push_commit(out);
            }
            // What was read since the last commit may be of either topic: back to the ledger, which decides by the id.
            Ok(id) => {
                let reason = format!(
                    "topic \"{}\" was made again while it was read: its id is {id}",
                    self.settings.shape.topic
                );
                self.give_back(out);
                self.fenced(reason, out);
            }
            Err(reason) => {
                flight.topic = TopicCheck::AskAt(self.now.plus(RETRY_MS));
                self.trouble(Side::Topic, reason);
            }
        }
    }

    fn committed(&mut self, epoch: u64, result: Result<DbTime, CatalogError>, out: &mut Vec<Effect>) {
        let Some(flight) = &mut self.in_flight else { return };
        if flight.commit.epoch != epoch || flight.stage != Stage::Committing {
            return;
        }
        match result {
            Ok(now) => self.epoch_is_true(now, out),
            Err(CatalogError::Fenced(reason)) => self.fenced(reason, out),
            Err(CatalogError::Stop(reason)) => self.fail(reason, out),
            Err(CatalogError::Retry(reason)) => {
                flight.retry_at = Some(self.now.plus(RETRY_MS));
                self.trouble(Side::Catalog, reason);
            }
            Err(CatalogError::Unknown(reason)) => {
                flight.stage = Stage::Finding;
                out.push(Effect::Find { owner: flight.commit.owner.clone(), epoch });
                self.trouble(Side::Catalog, reason);
            }
        }
    }

    fn found(&mut self, epoch: u64, result: Result<Outcome, CatalogError>, out: &mut Vec<Effect>) {
        let Some(flight) = &mut self.in_flight else { return };
        if flight.commit.epoch != epoch || flight.stage != Stage::Finding {
            return;
        }
        match result {
            Ok(Outcome::Committed { digest, committed_at }) if digest == flight.commit.digest => {
                self.epoch_is_true(committed_at, out);
            }
            Ok(Outcome::Committed { .. }) => {
                self.fenced(format!("epoch {epoch} is another owner's"), out);
            }
            Ok(Outcome::Absent) => {
                flight.stage = Stage::Committing;
                out.push(Effect::Commit(Arc::clone(&flight.commit)));
            }
            Err(CatalogError::Fenced(reason)) => self.fenced(reason, out),
            Err(error) => {
                flight.retry_at = Some(self.now.plus(RETRY_MS));
                self.trouble(Side::Catalog, error.to_string());
            }
        }
    }

    fn epoch_is_true(&mut self, now: DbTime, out: &mut Vec<Effect>) {
        let flight = self.in_flight.take().expect("a commit was under way");
        self.troubles.remove(&Side::Catalog);
        self.next_epoch = flight.commit.epoch + 1;
        self.committed_at = self.committed_at.max(Some(now));
        self.committed = flight.commit.lanes.iter().map(|(p, lane)| (*p, lane.to)).collect();
        out.push(Effect::CommitGroup(self.committed.clone()));
        out.push(Effect::Report(flight.commit));
        if matches!(self.phase, Phase::Founding) {
            self.phase = Phase::Counting;
            self.topic_ask_at = self.now.plus(TOPIC_EVERY_MS);
        }
        self.start_lanes(out);
    }

    // ---- for those who look ----

    #[must_use]
    pub fn state(&self) -> State {
        let trouble = self.troubles.values().next().cloned();
        match &self.phase {
            Phase::Over(None) => State::Waiting("ended".to_owned()),
            Phase::Over(Some(reason)) => State::Failed(reason.clone()),
            Phase::Standby { .. } | Phase::Asking if self.held_by_other => {
                State::Standby(trouble.unwrap_or_default())
            }
            Phase::Standby { .. } | Phase::Asking => {
                State::Waiting(trouble.unwrap_or_else(|| "asking for the table".to_owned()))
            }
            Phase::Counting if self.paused => State::Paused,
            Phase::Counting => match trouble {
                Some(reason) => State::Waiting(reason),
                None if self.lanes.values().any(Lane::replaying) => {
                    State::Waiting("replaying from the checkpoint".to_owned())
                }
                None => State::Counting,
            },
            _ => State::Waiting(trouble.unwrap_or_else(|| "starting".to_owned())),
        }
    }

    /// Folder of the table's objects below the warehouse.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether a commit is under way.
    #[must_use]
    pub fn committing(&self) -> bool {
        self.in_flight.is_some()
    }

    #[must_use]
    pub fn lanes(&self) -> &Lanes {
        &self.lanes
    }

    /// The log's end of a topic partition, as last heard of.
    #[must_use]
    pub fn log_end(&self, partition: Partition) -> Option<Offset> {
        self.watches.get(&partition).map(|w| w.log_end)
    }

    /// Whether a topic partition stands aside, and whether it is held back.
    #[must_use]
    pub fn idle_and_held(&self, partition: Partition) -> (bool, bool) {
        let held = self.watches.get(&partition).is_some_and(|w| w.held);
        (self.watches.contains_key(&partition) && self.is_idle(partition), held)
    }

    /// What the ledger says now, with all that is not committed yet.
    #[must_use]
    pub fn ledger(&self) -> TableLedger {
        self.table_ledger()
    }

    /// Epochs committed so far; `None` before epoch 0.
    #[must_use]
    pub fn epoch(&self) -> Option<u64> {
        self.next_epoch.checked_sub(1)
    }

    #[must_use]
    pub fn frontier(&self) -> Option<EventTime> {
        merger::frontier(&self.lanes).max(self.closed_through)
    }

    #[must_use]
    pub fn owner(&self) -> Option<&Owner> {
        self.owner.as_ref()
    }
}

/// The sums that `commit` holds beside those of its own lanes.
fn archived(commit: &Commit) -> TableLedger {
    let mut lanes = TableLedger::default();
    for lane in commit.lanes.values() {
        lanes.add(&lane.ledger);
    }
    let all = commit.ledger;
    TableLedger {
        consumed: all.consumed - lanes.consumed,
        counted: all.counted - lanes.counted,
        late: all.late - lanes.late,
        rejected: all.rejected - lanes.rejected,
        tombstones: all.tombstones - lanes.tombstones,
        gaps: all.gaps - lanes.gaps,
        lost: all.lost - lanes.lost,
        hits: all.hits - lanes.hits,
        late_hits: all.late_hits - lanes.late_hits,
        ..TableLedger::default()
    }
}

/// Whether the recorded table is the one the settings ask for.
///
/// # Errors
/// The setting, both values, and the way out.
pub fn same_table(recorded: &Genesis, settings: &Settings) -> Result<(), String> {
    let differs = |name: &str, then: &str, now: &str| {
        Err(format!(
            "table {}.{} was made with {name} {then}, the settings say {now}; set it back, or choose another table name",
            settings.database, settings.table
        ))
    };
    for ((name, then), (_, now)) in recorded.shape.as_settings().iter().zip(settings.shape.as_settings()) {
        if *then != now {
            return differs(name, then, &now);
        }
    }
    if recorded.warehouse != settings.warehouse {
        return differs("warehouse", &recorded.warehouse, &settings.warehouse);
    }
    Ok(())
}

/// Lineage in each file's footer.
fn footer(
    epoch: u64,
    lanes: &BTreeMap<Partition, LaneCommit>,
    ledger: &TableLedger,
) -> Vec<(String, String)> {
    let offsets: BTreeMap<_, _> = lanes.iter().map(|(p, lane)| (p, (lane.from, lane.to))).collect();
    vec![
        ("windrow.epoch".to_owned(), epoch.to_string()),
        ("windrow.ledger".to_owned(), serde_json::to_string(ledger).expect("plain values")),
        ("windrow.offsets".to_owned(), serde_json::to_string(&offsets).expect("plain values")),
    ]
}
