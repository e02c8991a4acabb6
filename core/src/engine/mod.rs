//! `Input` → `Effect`s: one table's whole state and its only door, `step`. It reads no clock and does no I/O.
//! What it asks for is carried out by `driver`, and comes back as another input, also when it failed.

mod conversation;
mod flight;
mod lease;
mod reading;
mod topic;

pub use conversation::{
    Answer, BrokersAnswer, BrokersRequest, CatalogAnswer, CatalogRequest, Effect, Input, Location,
    LogEnd, Request, StoreAnswer, StoreRequest, TopicFacts,
};
pub use topic::same_table;

use crate::count::checkpoint;
use crate::count::lane::{Lane, LaneState, Stopped};
use crate::count::merger::{self, Lanes};
use crate::table::commit::{
    Acquired, CHECKPOINT_INLINE_MAX_BYTES, CatalogError, CheckpointAt, Commit, FileKind, Genesis,
    Head, LaneCommit, NewFile, Outcome, Owner, object_key, object_prefix,
};
use crate::table::file::{self, Timestamps};
use crate::values::cause::{Cause, Trouble};
use crate::values::decision::{Decided, FloorReason};
use crate::values::digest::{hex, sha256_hex, unhex};
use crate::values::ledger::TableLedger;
use crate::values::record::{Batch, Offset, Partition};
use crate::values::row::Row;
use crate::values::shape::Shape;
use crate::values::time::{DbTime, EventTime, Mono};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What does not change while the engine lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
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

/// Where the engine stands, in the words of the status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Counting,
    Waiting(Trouble),
    Paused,
    Standby(Trouble),
    Failed(Trouble),
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
    Over(Option<Trouble>),
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
    /// The greatest watermark of all when the log's end was asked for, and, once it was seen there, up to where this
    /// topic partition may be raised: a record in another that came later may have come with records in this one.
    asked_with: Option<EventTime>,
    nothing_by: Option<EventTime>,
    /// The log's limits were asked for; with a time, they are to be asked for then.
    limits: Option<Option<Mono>>,
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
        Self {
            void: self.asked,
            ..self
        }
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
    settings: Rules,
    prefix: String,
    now: Mono,
    phase: Phase,
    /// What hinders it, by whom; each is over when the same one does what it is asked.
    troubles: BTreeMap<Side, Trouble>,
    /// The other process that had the table when we asked last.
    holder: Option<String>,
    owner: Option<Owner>,
    renew_at: Option<Mono>,
    renewing: bool,
    /// Manifests were found where the catalog has no epoch: the reason to stop, once a renewal that was sent after
    /// (`true`) has shown that the lease holds.
    lost_catalog: Option<(Trouble, bool)>,
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
    /// When a log's end was asked for, while the answer is on its way; also when it was for an earlier reader.
    looking: BTreeMap<Partition, Mono>,
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
    stopping: Option<Option<Trouble>>,
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
/// The usual [`Rules::checkpoint_keys_small`].
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
    pub fn new(settings: Rules) -> Self {
        let prefix = object_prefix(&settings.database, &settings.table);
        Self {
            settings,
            prefix,
            now: Mono(0),
            phase: Phase::Standby { ask_at: Mono(0) },
            troubles: BTreeMap::new(),
            holder: None,
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
            looking: BTreeMap::new(),
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
            Input::Answer(answer) => self.answer(answer, out),
            Input::Records {
                partition,
                leader_epoch,
                batch,
            } => self.records(partition, leader_epoch, batch),
            Input::End { partition, offset } => self.end(partition, offset),
            Input::OutOfRange { partition } => self.out_of_range(partition, out),
            Input::Truncated { partition, why } => self.truncated(partition, why, out),
            Input::Trouble(trouble) => self.trouble(Side::Reader, trouble),
            Input::Reopened => {
                self.watches
                    .values_mut()
                    .for_each(|w| (w.reading, w.held) = (false, false));
                if matches!(self.phase, Phase::Counting) {
                    self.start_lanes(out);
                }
            }
            Input::Paused(paused) => self.paused = paused,
            Input::Shutdown => {
                self.stop(None);
            }
        }
        self.settle(out);
    }

    fn answer(&mut self, answer: Answer, out: &mut Vec<Effect>) {
        match answer {
            Answer::Catalog(CatalogAnswer::Acquire(answer)) => self.acquired(answer, out),
            Answer::Catalog(CatalogAnswer::Renew(answer)) => self.renewed(answer, out),
            Answer::Catalog(CatalogAnswer::Commit { epoch, result }) => {
                self.committed(epoch, result, out)
            }
            Answer::Catalog(CatalogAnswer::Outcome { epoch, result }) => {
                self.found(epoch, result, out)
            }
            Answer::Brokers(BrokersAnswer::Topic(answer)) => self.topic(answer, out),
            Answer::Brokers(BrokersAnswer::TopicId(answer)) => self.topic_checked(answer, out),
            Answer::Brokers(BrokersAnswer::LogEnd { partition, end }) => {
                self.looked(partition, end)
            }
            Answer::Store(StoreAnswer::List { result, .. }) => self.manifests(result, out),
            Answer::Store(StoreAnswer::Get { key, result }) => self.checkpoint(&key, result, out),
            Answer::Brokers(BrokersAnswer::LogLimits { partition, limits }) => {
                self.limits_answered(partition, limits, out);
            }
            // Not asked for yet.
            Answer::Catalog(
                CatalogAnswer::Locate(_)
                | CatalogAnswer::Doom(_)
                | CatalogAnswer::DoomedPast(_)
                | CatalogAnswer::Forget(_),
            )
            | Answer::Store(StoreAnswer::Delete { .. }) => {}
            Answer::Store(StoreAnswer::Put { key, result }) => self.stored(&key, result, out),
        }
    }

    /// No more reading; the end after what is under way.
    fn stop(&mut self, reason: Option<Trouble>) {
        if self.stopping.is_none() {
            self.stopping = Some(reason);
            self.stopping_since = self.now;
        }
    }

    #[must_use]
    pub fn state(&self) -> State {
        let trouble = self.worst_trouble().cloned();
        let starting = |text| Trouble::new(Cause::Starting, text);
        match &self.phase {
            Phase::Over(None) => State::Waiting("ended".into()),
            Phase::Over(Some(reason)) => State::Failed(reason.clone()),
            Phase::Standby { .. } | Phase::Asking if self.holder.is_some() => {
                State::Standby(trouble.unwrap_or_else(|| Trouble::new(Cause::Held, String::new())))
            }
            Phase::Standby { .. } | Phase::Asking => {
                State::Waiting(trouble.unwrap_or_else(|| starting("asking for the table")))
            }
            Phase::Counting if self.paused => State::Paused,
            Phase::Counting => match trouble {
                Some(reason) => State::Waiting(reason),
                None if self.lanes.values().any(Lane::replaying) => {
                    State::Waiting(starting("replaying from the checkpoint"))
                }
                None => State::Counting,
            },
            _ => State::Waiting(trouble.unwrap_or_else(|| starting("starting"))),
        }
    }

    /// Of several troubles the one to be told: one whose cause is known before one that may pass by itself, and among
    /// these in the order of [`Side`].
    fn worst_trouble(&self) -> Option<&Trouble> {
        self.troubles
            .values()
            .min_by_key(|trouble| trouble.cause == Cause::None)
    }

    /// Who has the table, when it is another process.
    #[must_use]
    pub fn holder(&self) -> Option<&str> {
        self.holder.as_deref()
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
        (
            self.watches.contains_key(&partition) && self.is_idle(partition),
            held,
        )
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
