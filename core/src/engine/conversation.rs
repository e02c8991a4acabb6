//! The one conversation between the engine and whoever performs for it: requests and answers, each
//! named once. Nothing is decided here, and nothing is performed.
//!
//! The driver, the simulation and the golden texts speak these types. A question is a [`Request`],
//! and what comes back is the [`Answer`] of the same name:
//!
//! ```text
//! engine  →  Effect::Ask(Request::Brokers(BrokersRequest::LogEnd { partition: 1 }))
//! driver     asks the broker through io/kafka
//! engine  ←  Input::Answer(Answer::Brokers(BrokersAnswer::LogEnd { partition: 1, end: Ok(..) }))
//! ```

use super::merge_order::{MergeFailure, MergeOrder};
use crate::table::commit::{
    Acquired, CatalogError, ClockBound, Commit, LeaseMark, LiveFile, NewFile, Outcome, Owner,
    Renewed,
};
use crate::table::history::{DayManifest, History};
use crate::table::manifest::WantedObject;
use crate::table::place::Place;
use crate::values::cause::Trouble;
use crate::values::object::ObjectPage;
use crate::values::record::{Batch, Offset, Partition};
use crate::values::time::{DbTime, Mono, WallTime};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Everything that the engine is told.
pub enum Input<'a> {
    /// Time has gone on; sent at least ten times a second, and before any other input that may have
    /// come while the process was frozen or the machine slept.
    Tick {
        /// The machine's monotonic time. It stands still while the machine sleeps.
        now: Mono,
        /// The machine's wall clock, read at the same moment. It may be wrong, and may be set.
        wall: WallTime,
    },
    /// The answer to an [`Effect::Ask`]; a failure is an answer, too.
    Answer(Answer),
    /// Consecutive records of one topic partition.
    Records {
        /// The topic partition that they were read from.
        partition: Partition,
        /// The leader epoch of the last record; -1 when it is unknown.
        leader_epoch: i32,
        /// The records, in the order of their offsets.
        batch: &'a dyn Batch,
    },
    /// The reader has nothing more; every offset below was shown or never will be.
    End {
        /// The topic partition whose end was reached.
        partition: Partition,
        /// The next offset to read.
        offset: Offset,
    },
    /// Reading could not begin, or not go on, at the offset that was asked for: the log may not
    /// have it.
    OutOfRange {
        /// The topic partition that cannot be read.
        partition: Partition,
    },
    /// The log was cut off somewhere below the place of reading, and written anew.
    Truncated {
        /// The topic partition whose log was cut off.
        partition: Partition,
        /// The first offset that is not what it was; `None` when the broker cannot tell.
        cut_at: Option<Offset>,
        /// What the reader saw, as the beginning of a sentence.
        why: String,
    },
    /// Something hinders reading. Whose it is says when it is over: that of a topic partition when
    /// this one is read again, for which the engine starts it anew with growing pauses; that of the
    /// brokers when they answer anything.
    Trouble {
        /// The topic partition that cannot be read; `None` when it concerns all of them.
        partition: Option<Partition>,
        /// What hinders.
        trouble: Trouble,
    },
    /// The reader is a new one: reading must be started again for every topic partition.
    Reopened,
    /// Clients have new credentials: what failed is tried again at once.
    CredentialsChanged,
    /// An operator paused or resumed the table; the catalog knows it already.
    Paused(bool),
    /// An operator wants everything merged now that can be; see [`super::Engine::may_compact`].
    Compact,
    /// Commit what there is, give the table back, and end.
    Shutdown,
}

/// Everything that the engine wants done. Doing one of them twice does no harm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Ask, and hand the answer in as [`Input::Answer`].
    Ask(Request),
    /// Read a topic partition from an offset on, or from another one than now.
    Start {
        /// The topic partition to read.
        partition: Partition,
        /// The next offset to read.
        offset: Offset,
        /// The leader epoch of the record before `offset`, by which a broker notices a truncated
        /// log; -1 when unknown.
        leader_epoch: i32,
    },
    /// Stop reading all topic partitions.
    StopAll,
    /// Flow control: fetch nothing more of this topic partition until [`Effect::Unhold`].
    Hold {
        /// The topic partition to hold back.
        partition: Partition,
    },
    /// The end of an [`Effect::Hold`].
    Unhold {
        /// The topic partition that may be read again.
        partition: Partition,
    },
    /// The table lies here: from now on the keys of [`StoreRequest`] are paths below this
    /// warehouse.
    UseWarehouse(Place),
    /// Commit the offsets to the consumer group, for lag tools only.
    CommitGroup(BTreeMap<Partition, Offset>),
    /// These keys are on the catalog's list of what to delete, but windrow does not make such ones.
    /// Their objects are left alone: tell whoever watches. It is said once.
    ReportForeignKeys(Vec<String>),
    /// This file cannot be merged with others, because it is gone or damaged, or does not fit
    /// together with those of the same merge: tell whoever watches. In the last case those are left
    /// out as well, and only this one is told of. All other files are merged without them.
    ReportLeftOut {
        /// Its path below the warehouse.
        key: String,
        /// What is wrong with it.
        trouble: Trouble,
    },
    /// These epochs were committed once, and the catalog has lost them. They cannot be committed
    /// again, so counting goes on from the epoch before them: tell whoever watches.
    ReportLostEpochs {
        /// The first of them.
        first: u64,
        /// The last one of which the store has a manifest.
        last: u64,
        /// Why the first cannot be had, as a sentence.
        why: String,
    },
    /// An epoch was committed: tell whoever watches.
    Report(Arc<Commit>),
    /// The end. A reason means that it failed.
    Exit(Option<Trouble>),
}

/// A question to one of the three systems around windrow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// To the catalog. Its requests are carried out one after the other, in the order in which they
    /// were made.
    Catalog(CatalogRequest),
    /// To Kafka's brokers.
    Brokers(BrokersRequest),
    /// To the object store.
    Store(StoreRequest),
}

/// What came of a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// From the catalog.
    Catalog(CatalogAnswer),
    /// From Kafka's brokers.
    Brokers(BrokersAnswer),
    /// From the object store.
    Store(StoreAnswer),
}

/// What the catalog is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CatalogRequest {
    /// Where does the table lie, and where does Hive keep its database? Asked only where the
    /// settings name no more than a bucket, and before the table is taken.
    Locate,
    /// Take the table.
    Acquire {
        /// A lease that was seen unchanged for the length of a lease: if it is still the same one,
        /// it is over, whatever the catalog's clock says.
        over: Option<LeaseMark>,
    },
    /// Keep the table for another lease.
    Renew {
        /// The owner that goes on.
        owner: Owner,
    },
    /// Give the table back, so that a standby need not wait for the end of the lease. There is no
    /// answer.
    Release {
        /// The owner that ends.
        owner: Owner,
    },
    /// Make an epoch true.
    Commit {
        /// What becomes true.
        commit: Arc<Commit>,
        /// By which clock it is sent. It is no part of the commit, so that the same commit can be
        /// sent again later.
        clock: ClockBound,
    },
    /// What became of a commit whose answer was lost? The old connection is waited out.
    Outcome {
        /// The epoch in question.
        epoch: u64,
    },
    /// Doom those of the keys that no epoch, checkpoint or manifest names: no later commit may name
    /// them.
    Doom {
        /// The owner that asks.
        owner: Owner,
        /// Paths below the warehouse.
        keys: Vec<String>,
        /// By which clock they are doomed: by a wrong one their time would come too soon.
        clock: ClockBound,
    },
    /// Which objects of a manifest are doomed? Its epoch is to be committed from the store.
    Doomed {
        /// The manifest's path below the warehouse.
        manifest: String,
        /// Paths below the warehouse.
        keys: Vec<String>,
    },
    /// Which keys were doomed so long ago that their objects may be deleted?
    DoomedPast {
        /// How long ago at least, in milliseconds.
        grace_ms: u64,
        /// Only keys behind this one, in the catalog's own order of keys; `None` for the first.
        after: Option<String>,
        /// By which clock that is reckoned.
        clock: ClockBound,
    },
    /// Which files do readers see?
    LiveFiles,
    /// Delete the table partitions that swaps have emptied. Nobody who planned a query before that
    /// looks them up any more.
    DropEmptied {
        /// The owner that asks.
        owner: Owner,
        /// How long ago at least the swap was, in milliseconds.
        emptied_ms: u64,
        /// By which clock that is reckoned.
        clock: ClockBound,
    },
    /// Which epochs fold now, and what do they say together?
    Foldable {
        /// How long the periods are in which epochs fold together, in milliseconds: a day.
        every_ms: i64,
        /// By which clock it is reckoned which of them are over.
        clock: ClockBound,
    },
    /// Keep epochs as one row of history from now on. Their own rows are deleted, and their
    /// manifests are doomed.
    Fold {
        /// The owner that asks.
        owner: Owner,
        /// What they say together.
        history: Arc<History>,
        /// The path of their day manifest, which is stored, below the warehouse.
        manifest: String,
        /// By which clock the manifests are doomed.
        clock: ClockBound,
    },
    /// Doom the day manifests whose offsets the log has no longer.
    DropDays {
        /// The owner that asks.
        owner: Owner,
        /// Where the log of each topic partition begins.
        log_starts: BTreeMap<Partition, Offset>,
        /// By which clock they are doomed.
        clock: ClockBound,
    },
    /// Take keys off the list of the doomed, because their objects are gone.
    Forget {
        /// The owner that asks.
        owner: Owner,
        /// Paths below the warehouse.
        keys: Vec<String>,
    },
}

/// What the catalog answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CatalogAnswer {
    /// To [`CatalogRequest::Locate`].
    Locate(Result<Location, CatalogError>),
    /// To [`CatalogRequest::Acquire`].
    Acquire(Result<Acquired, CatalogError>),
    /// To [`CatalogRequest::Renew`].
    Renew(Result<Renewed, CatalogError>),
    /// To [`CatalogRequest::Commit`]: the database's clock when the epoch was committed.
    Commit {
        /// The epoch that was asked for.
        epoch: u64,
        /// When it was committed, or why not.
        result: Result<DbTime, CatalogError>,
    },
    /// To [`CatalogRequest::Outcome`].
    Outcome {
        /// The epoch that was asked for.
        epoch: u64,
        /// What became of it, or why that cannot be told.
        result: Result<Outcome, CatalogError>,
    },
    /// To [`CatalogRequest::Doom`]: the keys that were doomed by it.
    Doom(Result<Vec<String>, CatalogError>),
    /// To [`CatalogRequest::Doomed`].
    Doomed {
        /// The manifest that was asked for.
        manifest: String,
        /// Those of the keys that are doomed.
        result: Result<Vec<String>, CatalogError>,
    },
    /// To [`CatalogRequest::DoomedPast`].
    DoomedPast {
        /// The key that was asked with.
        after: Option<String>,
        /// The next keys, in the catalog's own order of keys and at most a thousand; none when
        /// there are no more.
        result: Result<Vec<String>, CatalogError>,
    },
    /// To [`CatalogRequest::LiveFiles`]: in no particular order.
    LiveFiles(Result<Vec<LiveFile>, CatalogError>),
    /// To [`CatalogRequest::DropEmptied`].
    DropEmptied(Result<(), CatalogError>),
    /// To [`CatalogRequest::Foldable`]; `None` where nothing is to fold now.
    Foldable(Result<Option<Box<DayManifest>>, CatalogError>),
    /// To [`CatalogRequest::Fold`].
    Fold(Result<(), CatalogError>),
    /// To [`CatalogRequest::DropDays`].
    DropDays(Result<(), CatalogError>),
    /// To [`CatalogRequest::Forget`].
    Forget(Result<(), CatalogError>),
}

/// What Kafka's brokers are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BrokersRequest {
    /// What is there of the topic?
    Topic,
    /// What is the topic's id now? A client reads on silently in a topic that was deleted and made
    /// again: what was read counts only if the topic is still the same when all of it was read.
    TopicId,
    /// Where does the log of a topic partition end now?
    LogEnd {
        /// The topic partition in question.
        partition: Partition,
    },
    /// Where does the log of a topic partition begin and end now? Asked after
    /// [`Input::OutOfRange`].
    LogLimits {
        /// The topic partition in question.
        partition: Partition,
    },
}

/// What Kafka's brokers answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BrokersAnswer {
    /// To [`BrokersRequest::Topic`].
    Topic(Result<TopicFacts, Trouble>),
    /// To [`BrokersRequest::TopicId`]; empty when the broker cannot tell.
    TopicId(Result<String, Trouble>),
    /// To [`BrokersRequest::LogEnd`], fetched after it was asked for.
    LogEnd {
        /// The topic partition that was asked for.
        partition: Partition,
        /// Where its log ends, or why that cannot be told.
        end: Result<LogEnd, String>,
    },
    /// To [`BrokersRequest::LogLimits`].
    LogLimits {
        /// The topic partition that was asked for.
        partition: Partition,
        /// The first offset that its log still has and the offset after the last one, or why that
        /// cannot be told.
        limits: Result<(Offset, Offset), String>,
    },
}

/// What the object store is asked. Keys are paths below the warehouse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreRequest {
    /// Which objects begin like this? At most a thousand, in the order of their keys.
    ListPage {
        /// The beginning of the keys.
        prefix: String,
        /// Only keys behind this one; `None` for the first page.
        after: Option<String>,
    },
    /// Fetch an object.
    Get {
        /// Its key.
        key: String,
    },
    /// Are the objects that a manifest names there, with the bytes that they must have?
    Check {
        /// The manifest's key.
        manifest: String,
        /// The objects.
        objects: Vec<WantedObject>,
    },
    /// Store an object. Nothing happens when it is there already.
    Put {
        /// Its key.
        key: String,
        /// Its bytes. A key never gets other bytes.
        bytes: Arc<Vec<u8>>,
    },
    /// Make few files out of many: the rows of all of them, in order, and nothing else.
    Merge(Box<MergeOrder>),
    /// Delete objects. It is no failure when one is gone already.
    Delete {
        /// Their keys.
        keys: Vec<String>,
    },
    /// Abort uploads of objects that were begun and never finished. They are in no listing.
    AbortUploads {
        /// The beginning of the objects' keys.
        prefix: String,
        /// How long ago at least they were begun, in milliseconds.
        age_ms: u64,
    },
}

/// What the object store answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreAnswer {
    /// To [`StoreRequest::ListPage`].
    ListPage {
        /// The beginning that was asked for.
        prefix: String,
        /// The key that was asked with.
        after: Option<String>,
        /// The page, or why it cannot be had.
        result: Result<ObjectPage, Trouble>,
    },
    /// To [`StoreRequest::Get`].
    Get {
        /// The key that was asked for.
        key: String,
        /// The object's bytes; `None` when it is not there.
        result: Result<Option<Vec<u8>>, Trouble>,
    },
    /// To [`StoreRequest::Check`].
    Check {
        /// The manifest that was asked for.
        manifest: String,
        /// What is wrong with the first object that is not as it must be, as a sentence; `None`
        /// where all are there.
        result: Result<Option<String>, Trouble>,
    },
    /// To [`StoreRequest::Put`].
    Put {
        /// The key that was asked for.
        key: String,
        /// Whether the object is there now.
        result: Result<(), Trouble>,
    },
    /// To [`StoreRequest::Merge`].
    Merge {
        /// The path of the first new file that was asked for.
        key: String,
        /// The new files, which are stored now.
        result: Result<Vec<NewFile>, MergeFailure>,
    },
    /// To [`StoreRequest::Delete`].
    Delete {
        /// The keys whose objects are gone now.
        gone: Vec<String>,
        /// The keys whose objects could not be deleted, or of which that is not known.
        kept: Vec<String>,
    },
    /// To [`StoreRequest::AbortUploads`]: how many were aborted. Nothing waits for them, so those
    /// that could not be aborted are left to the next time.
    AbortUploads(Result<u64, Trouble>),
}

/// What says where a table lies. Either may be of any scheme, as others wrote it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Location {
    /// The warehouse that the table's epoch 0 names; `None` for a table that does not exist.
    pub genesis: Option<String>,
    /// Where Hive keeps the database; `None` where Hive does not know it, or there is no Hive.
    pub database: Option<String>,
}

/// What Kafka says of the topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicFacts {
    /// Kafka's id of the cluster.
    pub cluster_id: String,
    /// Kafka's id of the topic; empty when the broker cannot tell.
    pub topic_id: String,
    /// The first offset and the end offset of each topic partition whose leader has told them.
    pub partitions: BTreeMap<Partition, (Offset, Offset)>,
    /// The other topic partitions, such as those without a leader: why nobody could tell their
    /// offsets.
    pub unknown: BTreeMap<Partition, String>,
}

impl TopicFacts {
    /// Whether the topic has this topic partition.
    #[must_use]
    pub fn has(&self, partition: Partition) -> bool {
        self.partitions.contains_key(&partition) || self.unknown.contains_key(&partition)
    }
}

/// The end of a topic partition's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogEnd {
    /// Every transaction below it has ended.
    pub last_stable: Offset,
    /// The offset after the last record that is replicated.
    pub high_watermark: Offset,
}

impl From<CatalogRequest> for Effect {
    fn from(request: CatalogRequest) -> Self {
        Effect::Ask(Request::Catalog(request))
    }
}

impl From<BrokersRequest> for Effect {
    fn from(request: BrokersRequest) -> Self {
        Effect::Ask(Request::Brokers(request))
    }
}

impl From<StoreRequest> for Effect {
    fn from(request: StoreRequest) -> Self {
        Effect::Ask(Request::Store(request))
    }
}

impl From<CatalogAnswer> for Input<'_> {
    fn from(answer: CatalogAnswer) -> Self {
        Input::Answer(Answer::Catalog(answer))
    }
}

impl From<BrokersAnswer> for Input<'_> {
    fn from(answer: BrokersAnswer) -> Self {
        Input::Answer(Answer::Brokers(answer))
    }
}

impl From<StoreAnswer> for Input<'_> {
    fn from(answer: StoreAnswer) -> Self {
        Input::Answer(Answer::Store(answer))
    }
}
