//! The Kafka source: topic partitions read in batches from offsets that the caller keeps, and the questions to brokers.
//! It decides nothing: no offset is chosen, nothing is retried but connections, and no record is looked into.
//!
//! [`open`] makes two halves of one client. The [`Brokers`] asks brokers and may block: for any thread. The [`Reader`]
//! hands over what was fetched: for one thread.
#![expect(
    clippy::disallowed_methods,
    reason = "the edge that waits for brokers, with deadlines"
)]

use ffi::{Bell, Client, Failure, Fetched, Hooks, Messages, Queue};
use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tracing::{debug, trace, warn};
use windrow_core::settings::config::{Mechanism, Secret, Security};
use windrow_core::values::cause::{Cause, Trouble};
use windrow_core::values::record::{Batch, Offset, Partition};

mod ffi;
pub mod mock;
#[cfg(test)]
mod tests;

/// What may be fetched and not yet read, over all topic partitions; each message costs some 300 bytes beside its own.
const QUEUE_MAX_BYTES: usize = 4 << 20;
/// At most this many messages in it, too.
const QUEUE_MAX_MESSAGES: usize = 20_000;
/// A fetch returns no more than this, but for one record batch that is larger by itself.
const FETCH_MAX_BYTES: usize = 8 << 20;
/// A response larger than this is refused: no record batch may be. Kafka's own default for a batch is 1 MB.
const RESPONSE_MAX_BYTES: usize = 256 << 20;
/// How long after a failed login that was not heard of again the next question gives up.
const LOGIN_WAIT: Duration = Duration::from_secs(2);
/// How long a start that checks the leader epoch may take.
const START_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the answer to a group commit is waited for, in the background.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(20);
/// The same problem is told again after this long.
const TELL_AGAIN: Duration = Duration::from_secs(30);

/// How to reach one topic.
#[derive(Clone, Debug)]
pub struct KafkaConfig {
    /// `host:port,host:port`.
    pub bootstrap: String,
    pub topic: String,
    pub security: Security,
    pub mechanism: Mechanism,
    /// Ignored without SASL, as is the password.
    pub username: String,
    pub password: Secret,
    /// For what lag tools read; no group is ever joined. Kafka wants Read on it all the same.
    pub group: String,
    /// The Kubernetes namespace that short broker names are completed with when they do not resolve.
    pub namespace: Option<String>,
    pub cluster_domain: String,
    /// CAs in PEM, beside Mozilla's.
    pub ca_pem: Option<String>,
    /// How many topic partitions will be read, about: they share the memory for what is fetched. 0 when unknown.
    pub partitions: usize,
}

/// Why Kafka does not do what it was asked; each text is a sentence that says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KafkaError {
    /// The topic, or a topic partition, does not exist (any more).
    #[error("{0}")]
    NotThere(String),
    /// No right to read the topic. Kafka says so, too, of a topic that does not exist.
    #[error("{0}")]
    TopicDenied(String),
    /// No right on the group: reading goes on, lag tools see nothing.
    #[error("{0}")]
    GroupDenied(String),
    /// User or password. Waiting does not help; new credentials need a new client.
    #[error("{0}")]
    Login(String),
    /// No encrypted line to a broker that is trusted. Waiting does not help.
    #[error("{0}")]
    Tls(String),
    /// No broker answers, or none leads the topic partition: try again.
    #[error("{0}")]
    Unreachable(String),
    /// Bytes in the log cannot be read: the topic partition is given up here, so that no record is skipped.
    #[error("{0}")]
    Damaged(String),
    /// The client is done for: make a new one.
    #[error("{0}")]
    Fatal(String),
    #[error("{0}")]
    Other(String),
}

impl From<KafkaError> for Trouble {
    fn from(error: KafkaError) -> Self {
        let cause = match &error {
            KafkaError::NotThere(_) | KafkaError::TopicDenied(_) => Cause::NoTopic,
            KafkaError::Login(_) => Cause::LoginKafka,
            KafkaError::GroupDenied(_)
            | KafkaError::Tls(_)
            | KafkaError::Unreachable(_)
            | KafkaError::Damaged(_)
            | KafkaError::Fatal(_)
            | KafkaError::Other(_) => Cause::None,
        };
        Trouble::new(cause, error.to_string())
    }
}

/// What brokers say of the topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicInfo {
    pub cluster_id: String,
    /// Another one means that the topic was made again; empty where brokers are too old to tell (before 2.8).
    pub topic_id: String,
    /// In order.
    pub partitions: Vec<Partition>,
}

/// Where in a topic partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// The first record that is still there.
    Earliest,
    /// The last stable offset.
    Latest,
    /// The first record with this timestamp (ms since 1970) or a later one; the last stable offset when there is none.
    Timestamp(i64),
}

/// The limits of a topic partition, as its leader said after it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// The first offset that is still there.
    pub log_start: Offset,
    /// Offsets below are decided: no open transaction has begun before it.
    pub last_stable: Offset,
    /// The end offset.
    pub high_watermark: Offset,
}

/// What the [`Reader`] hands over, in the order of each topic partition's log.
pub enum Event<'a> {
    /// At least one record. Offsets between batches that never come are gaps: control records, aborted transactions,
    /// compacted records.
    Batch {
        partition: Partition,
        /// Of the last record; -1 when unknown.
        leader_epoch: i32,
        batch: &'a dyn Batch,
        records: usize,
        /// Sum of the values' bytes.
        bytes: usize,
        /// One after the last record; an [`Event::End`] may show that the next record is further on.
        next_offset: Offset,
    },
    /// A fetch found nothing more that is stable: all offsets below `next_offset` were handed over or are gaps.
    End {
        partition: Partition,
        next_offset: Offset,
    },
    /// The offset to read is not in the log, or no longer. Nothing more comes until the next start. Compare with
    /// [`Brokers::end`] and the topic's id before this is taken for a loss of data.
    OutOfRange {
        partition: Partition,
        offset: Offset,
    },
    /// The log was cut off below the offset to read, and written anew from there: a leader was elected that did not
    /// have all. Nothing more comes until the next start.
    Truncated { partition: Partition, why: String },
    /// What hinders reading; it goes on by itself when it is over, but for `Damaged`. `None` for all topic partitions.
    /// The same is not told again for half a minute.
    Problem {
        partition: Option<Partition>,
        what: KafkaError,
    },
}

/// Makes a client, which connects in the background.
///
/// # Errors
/// A setting that librdkafka refuses, such as a CA that is not PEM.
pub fn open(config: &KafkaConfig) -> Result<(Brokers, Reader), KafkaError> {
    let (namespace, domain) = (config.namespace.clone(), config.cluster_domain.clone());
    open_with(
        config,
        Box::new(move |host| names_to_try(host, namespace.as_deref(), &domain)),
    )
}

fn open_with(config: &KafkaConfig, names: Box<Names>) -> Result<(Brokers, Reader), KafkaError> {
    let c_text = |what: &str, text: &str| {
        CString::new(text).map_err(|_| {
            KafkaError::Other(format!(
                "cannot use {what} \"{}\": it has a zero byte",
                text.escape_debug()
            ))
        })
    };
    // librdkafka takes any text before the first certificate for a comment.
    if let Some(pem) = &config.ca_pem
        && !pem.contains("-----BEGIN CERTIFICATE-----")
    {
        return Err(KafkaError::Other(format!(
            "cannot use the CA for Kafka \"{}\": no certificate in it; give it in PEM",
            config.bootstrap
        )));
    }
    let told = Arc::new(Told {
        bootstrap: config.bootstrap.clone(),
        topic: config.topic.clone(),
        group: config.group.clone(),
        username: config.username.clone(),
        password: config.password.clone(),
        names,
        any: AtomicBool::new(false),
        state: Mutex::default(),
    });
    let client = Client::new(&settings(config), Arc::<Told>::clone(&told)).map_err(|why| {
        KafkaError::Other(format!(
            "cannot make a client for Kafka \"{}\": {}",
            config.bootstrap,
            told.redact(&why)
        ))
    })?;
    let client = Arc::new(client);
    let topic: Arc<CStr> = c_text("topic", &config.topic)?.into();
    let group: Arc<CStr> = c_text("group", &config.group)?.into();
    let reader = Reader {
        lanes: BTreeMap::new(),
        messages: Messages::new(),
        bell: Arc::default(),
        recent: BTreeMap::new(),
        topic: Arc::clone(&topic),
        told: Arc::clone(&told),
        client: Arc::clone(&client),
    };
    Ok((
        Brokers {
            client,
            told,
            topic,
            group,
        },
        reader,
    ))
}

/// Asks brokers. Its calls block for at most the timeout they are given; clones share one client.
#[derive(Clone)]
pub struct Brokers {
    client: Arc<Client>,
    told: Arc<Told>,
    topic: Arc<CStr>,
    group: Arc<CStr>,
}

impl Brokers {
    /// Cluster, id and partitions of the topic, asked for anew.
    ///
    /// librdkafka goes on in a topic that was deleted and made again, without a word when that one is long enough: who
    /// reads must compare the id before what was read counts.
    ///
    /// # Errors
    /// `NotThere`, `TopicDenied`, `Login`, `Tls`, `Unreachable`.
    pub fn topic(&self, timeout: Duration) -> Result<TopicInfo, KafkaError> {
        let deadline = Instant::now() + timeout;
        let found = self.ask(timeout, |timeout, give_up| {
            self.client.describe(&self.topic, timeout, give_up)
        })?;
        let left = deadline
            .saturating_duration_since(Instant::now())
            .max(Duration::from_millis(100));
        let cluster_id = self.client.cluster_id(left).unwrap_or_default();
        Ok(TopicInfo {
            cluster_id,
            topic_id: found.topic_id,
            partitions: found.partitions,
        })
    }

    /// Where to start reading.
    ///
    /// # Errors
    /// As [`Brokers::topic`].
    pub fn offsets(
        &self,
        partitions: &[Partition],
        at: At,
        timeout: Duration,
    ) -> Result<BTreeMap<Partition, Offset>, KafkaError> {
        let deadline = Instant::now() + timeout;
        let wanted = match at {
            At::Earliest => EARLIEST,
            At::Latest => LATEST,
            At::Timestamp(ms) => ms.max(0),
        };
        let mut offsets = self.list_offsets(partitions, wanted, true, timeout)?;
        // No record is that young.
        let none: Vec<_> = offsets
            .iter()
            .filter(|(_, offset)| **offset < 0)
            .map(|(p, _)| *p)
            .collect();
        if !none.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            offsets.extend(self.list_offsets(&none, LATEST, true, left)?);
        }
        Ok(offsets)
    }

    /// Asks a topic partition's leader for its limits.
    ///
    /// # Errors
    /// As [`Brokers::topic`].
    pub fn end(&self, partition: Partition, timeout: Duration) -> Result<End, KafkaError> {
        let deadline = Instant::now() + timeout;
        let one = |wanted, committed| {
            let left = deadline.saturating_duration_since(Instant::now());
            let found = self.list_offsets(&[partition], wanted, committed, left)?;
            Ok::<_, KafkaError>(found[&partition])
        };
        // The high watermark last: an offset that equals all three was at the end when the first was asked for.
        Ok(End {
            log_start: one(EARLIEST, true)?,
            last_stable: one(LATEST, true)?,
            high_watermark: one(LATEST, false)?,
        })
    }

    /// Tells Kafka's group how far reading is, for lag tools. Sent in the background; failures only go to the log.
    pub fn commit_group(&self, offsets: &BTreeMap<Partition, Offset>) {
        self.client.commits_answered(|answer| {
            if let Err(failure) = answer {
                let error = self.told.classify(&failure, "commit offsets of");
                // Once a cause: `Told` says whether it is new.
                if self.told.is_new_commit_problem(Some(&error)) {
                    warn!(error = %error, "cannot tell Kafka's group how far reading is; only lag tools miss it");
                }
            } else {
                self.told.is_new_commit_problem(None);
            }
        });
        if !offsets.is_empty() {
            let offsets = offsets.iter().map(|(p, o)| (*p, *o));
            self.client
                .commit(&self.group, &self.topic, offsets, COMMIT_TIMEOUT);
        }
    }

    fn list_offsets(
        &self,
        partitions: &[Partition],
        at: i64,
        committed: bool,
        timeout: Duration,
    ) -> Result<BTreeMap<Partition, Offset>, KafkaError> {
        if partitions.is_empty() {
            return Ok(BTreeMap::new());
        }
        let deadline = Instant::now() + timeout;
        let wanted: Vec<_> = partitions.iter().map(|p| (*p, at)).collect();
        let found = self.ask(timeout, |timeout, give_up| {
            let answer =
                self.client
                    .list_offsets(&self.topic, &wanted, committed, timeout, give_up);
            match answer {
                Err(failure) if failure.code == code::NO_LEADER => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    Err(self.why_no_leader(partitions, failure, left, give_up))
                }
                answer => answer,
            }
        })?;
        let found: BTreeMap<_, _> = found.into_iter().collect();
        let is_missing = |p: &&Partition| found.get(p).is_none_or(|offset| *offset < 0 && at < 0);
        match partitions.iter().find(is_missing) {
            None => Ok(found),
            Some(p) => Err(KafkaError::Unreachable(format!(
                "cannot find offsets of topic \"{}\": the answer leaves out partition {p}; try again",
                self.told.topic
            ))),
        }
    }

    /// librdkafka only says that it found no leaders; the brokers know whether there is a topic to lead.
    fn why_no_leader(
        &self,
        partitions: &[Partition],
        no_leader: Failure,
        timeout: Duration,
        give_up: &dyn Fn() -> bool,
    ) -> Failure {
        match self.client.describe(&self.topic, timeout, give_up) {
            Err(failure) => failure,
            Ok(found) if partitions.iter().all(|p| found.partitions.contains(p)) => no_leader,
            Ok(_) => Failure {
                code: code::UNKNOWN_PARTITION,
                ..no_leader
            },
        }
    }

    /// Asks, and gives up early when a login fails meanwhile, or failed before and nothing was heard since.
    fn ask<T>(
        &self,
        timeout: Duration,
        question: impl FnOnce(Duration, &dyn Fn() -> bool) -> Result<T, Failure>,
    ) -> Result<T, KafkaError> {
        let before = self.told.logins_failed();
        let timeout = if self.told.cannot_log_in() {
            timeout.min(LOGIN_WAIT)
        } else {
            timeout
        };
        let answer = question(timeout, &|| self.told.logins_failed() != before);
        match answer {
            Ok(answer) => {
                self.told.all_is_well();
                Ok(answer)
            }
            Err(failure) if is_silence(failure.code) => Err(self.told.why_silent()),
            Err(failure) => Err(self.told.classify(&failure, "read")),
        }
    }
}

const EARLIEST: i64 = -2;
const LATEST: i64 = -1;

/// Hands over what is fetched of the topic partitions that were started.
pub struct Reader {
    lanes: BTreeMap<Partition, Lane>,
    messages: Messages,
    bell: Arc<Bell>,
    /// Problems told lately.
    recent: BTreeMap<String, Instant>,
    topic: Arc<CStr>,
    told: Arc<Told>,
    client: Arc<Client>,
}

struct Lane {
    queue: Queue,
    paused: bool,
    /// Nothing more is handed over until the next start: what follows would hide what is missing.
    halted: bool,
}

impl Reader {
    /// Reads a topic partition from an offset on; whatever was fetched before is forgotten. With the leader epoch of
    /// the record before it (else -1) a log that was cut off and written anew shows as [`Event::Truncated`].
    ///
    /// Ask for the topic first: librdkafka says nothing of a partition that never was, or a topic that it may not see.
    ///
    /// # Errors
    /// `Fatal` or `Other`. What goes wrong later shows as an event.
    pub fn start(
        &mut self,
        partition: Partition,
        offset: Offset,
        leader_epoch: i32,
    ) -> Result<(), KafkaError> {
        self.stop(partition);
        let failed = |failure: &Failure| self.told.classify(failure, "read");
        let Some(queue) = self.client.queue(&self.topic, partition, &self.bell) else {
            return Err(self.told.fail(
                "read",
                "librdkafka has no queue for it; start windrow again",
            ));
        };
        // Errors of an earlier start that carry no version, so that librdkafka cannot tell that they are old.
        loop {
            self.messages.fill(&queue);
            if self.messages.is_empty() {
                break;
            }
        }
        self.client
            .assign(&self.topic, partition, offset, leader_epoch)
            .map_err(|f| failed(&f))?;
        if leader_epoch >= 0 && offset > 0 {
            self.validate(partition, offset, leader_epoch)?;
        }
        self.lanes.insert(
            partition,
            Lane {
                queue,
                paused: false,
                halted: false,
            },
        );
        Ok(())
    }

    fn validate(
        &self,
        partition: Partition,
        offset: Offset,
        leader_epoch: i32,
    ) -> Result<(), KafkaError> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            match self
                .client
                .validate(&self.topic, partition, offset, leader_epoch, START_TIMEOUT)
            {
                Ok(()) => return Ok(()),
                // An earlier stop has not come to its end, so that the start has not begun.
                Err(f) if is_too_early(f.code) && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err(failure) => {
                    let _ = self.client.unassign(&self.topic, partition);
                    return Err(self.told.classify(&failure, "read"));
                }
            }
        }
    }

    /// Ends reading a topic partition; nothing of it is handed over after this.
    pub fn stop(&mut self, partition: Partition) {
        if self.lanes.remove(&partition).is_some()
            && let Err(failure) = self.client.unassign(&self.topic, partition)
        {
            debug!(partition, error = %failure.text, "unassign failed");
        }
    }

    /// Hands over nothing more of a topic partition until it is resumed. What was fetched stays in memory, up to the
    /// limits, and then fetching pauses, too.
    pub fn pause(&mut self, partition: Partition) {
        if let Some(lane) = self.lanes.get_mut(&partition) {
            lane.paused = true;
        }
    }

    /// Goes on where it was paused.
    pub fn resume(&mut self, partition: Partition) {
        if let Some(lane) = self.lanes.get_mut(&partition) {
            lane.paused = false;
        }
    }

    /// Waits for at most `timeout` until there is something, and hands over one batch of each topic partition that has
    /// any. Returns at once after that; it does not wait for a batch to fill.
    ///
    /// # Errors
    /// `Fatal`: the client is done for.
    pub fn poll(
        &mut self,
        timeout: Duration,
        on: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), KafkaError> {
        let deadline = Instant::now() + timeout;
        self.tell_problems(on);
        let mut every = false;
        while !self.read_lanes(every, on) && !every {
            // After a silent wait each queue is looked at once, ready or not: nothing rests on the bell alone.
            every = !self.bell.wait(deadline);
        }
        match self.told.lock().fatal.clone() {
            None => Ok(()),
            Some(why) => Err(KafkaError::Fatal(why)),
        }
    }

    /// Whether anything was handed over.
    fn read_lanes(&mut self, every: bool, on: &mut dyn FnMut(Event<'_>)) -> bool {
        let mut any = false;
        for (&partition, lane) in &mut self.lanes {
            if lane.paused || !(every || lane.queue.ready()) {
                continue;
            }
            self.messages.fill(&lane.queue);
            any |= !self.messages.is_empty();
            let (told, recent, halted) = (&self.told, &mut self.recent, &mut lane.halted);
            self.messages.each(|fetched| {
                if !*halted {
                    *halted = hand_over(partition, &fetched, told, recent, on);
                }
            });
            self.messages.clear();
        }
        if any {
            self.told.all_is_well();
        }
        any
    }

    fn tell_problems(&mut self, on: &mut dyn FnMut(Event<'_>)) {
        self.client.serve();
        while let Some(failure) = self.client.next_failure() {
            let what = self.told.classify(&failure, "read");
            tell(None, what, &mut self.recent, on);
        }
        for what in self.told.take_news() {
            tell(None, what, &mut self.recent, on);
        }
        if let Some(why) = self.client.fatal() {
            let why = self.told.redact(&why);
            self.told.lock().fatal = Some(format!(
                "cannot go on with Kafka \"{}\": {why}",
                self.told.bootstrap
            ));
        }
    }
}

/// Hands over one piece; whether the topic partition halts with it.
fn hand_over(
    partition: Partition,
    fetched: &Fetched<'_>,
    told: &Told,
    recent: &mut BTreeMap<String, Instant>,
    on: &mut dyn FnMut(Event<'_>),
) -> bool {
    let (failure, offset) = match fetched {
        Fetched::Records(records) => {
            let (last, leader_epoch) = records.last();
            on(Event::Batch {
                partition,
                leader_epoch,
                batch: records,
                records: records.count(),
                bytes: records.bytes(),
                next_offset: last + 1,
            });
            return false;
        }
        Fetched::Error { failure, offset } => (failure, *offset),
    };
    match failure.code {
        code::PARTITION_EOF => on(Event::End {
            partition,
            next_offset: offset,
        }),
        code::AUTO_OFFSET_RESET
            if failure.text.contains("truncat") || failure.text.contains("No epoch found") =>
        {
            on(Event::Truncated {
                partition,
                why: told.redact(&failure.text),
            });
            return true;
        }
        code::AUTO_OFFSET_RESET => {
            on(Event::OutOfRange { partition, offset });
            return true;
        }
        _ => {
            let what = told.classify(failure, &format!("read partition {partition} of"));
            let damaged = matches!(what, KafkaError::Damaged(_));
            tell(Some(partition), what, recent, on);
            return damaged;
        }
    }
    false
}

/// Tells a problem that was not told lately.
fn tell(
    partition: Option<Partition>,
    what: KafkaError,
    recent: &mut BTreeMap<String, Instant>,
    on: &mut dyn FnMut(Event<'_>),
) {
    let now = Instant::now();
    recent.retain(|_, told| now.duration_since(*told) < TELL_AGAIN);
    if recent.insert(what.to_string(), now).is_none() {
        on(Event::Problem { partition, what });
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let partitions: Vec<_> = self.lanes.keys().copied().collect();
        for partition in partitions {
            self.stop(partition);
        }
    }
}

/// The names to look up for a host.
type Names = dyn Fn(&str) -> Vec<String> + Send + Sync;

/// What librdkafka told about the client as a whole, for whoever asks why there is no answer.
struct Told {
    bootstrap: String,
    topic: String,
    group: String,
    username: String,
    password: Secret,
    names: Box<Names>,
    /// Whether `state` holds anything that good news would clear; saves the lock.
    any: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// [`KafkaError::Login`] or [`KafkaError::Tls`].
    login: Option<KafkaError>,
    logins_failed: u64,
    unreachable: Option<String>,
    /// Not yet told to the reader; each once.
    news: Vec<KafkaError>,
    fatal: Option<String>,
    commit_problem: Option<KafkaError>,
}

impl State {
    fn add_news(&mut self, error: KafkaError) {
        if !self.news.contains(&error) {
            self.news.push(error);
        }
    }
}

impl Told {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An answer came: what was told before is over.
    fn all_is_well(&self) {
        if self.any.swap(false, Ordering::AcqRel) {
            let mut state = self.lock();
            (state.login, state.unreachable) = (None, None);
            state.news.retain(|news| {
                !matches!(
                    news,
                    KafkaError::Login(_) | KafkaError::Tls(_) | KafkaError::Unreachable(_)
                )
            });
        }
    }

    fn logins_failed(&self) -> u64 {
        self.lock().logins_failed
    }

    fn cannot_log_in(&self) -> bool {
        self.lock().login.is_some()
    }

    fn take_news(&self) -> Vec<KafkaError> {
        std::mem::take(&mut self.lock().news)
    }

    /// Whether the group commit fails in another way than the last one did.
    fn is_new_commit_problem(&self, problem: Option<&KafkaError>) -> bool {
        let mut state = self.lock();
        let new = state.commit_problem.as_ref() != problem;
        state.commit_problem = problem.cloned();
        new
    }

    fn why_silent(&self) -> KafkaError {
        let state = self.lock();
        match (&state.login, &state.unreachable) {
            (Some(error), _) => error.clone(),
            (None, Some(why)) => self.unreachable_error(why),
            (None, None) => self.unreachable_error("no answer in time"),
        }
    }

    fn login_error(&self, code: i32, text: &str) -> KafkaError {
        let cause = cause(text);
        if code == code::SSL {
            return KafkaError::Tls(format!(
                "cannot connect to Kafka \"{}\": TLS: {cause}; give the CA that signed its certificate, and check that this port speaks TLS",
                self.bootstrap
            ));
        }
        KafkaError::Login(format!(
            "cannot log in to Kafka \"{}\" as user \"{}\": {cause}; give the current user name and password",
            self.bootstrap, self.username
        ))
    }

    fn unreachable_error(&self, why: &str) -> KafkaError {
        let hint = if why.contains("resolve") {
            "check the host name, or set the Kubernetes namespace that Kafka runs in"
        } else {
            "check that it runs, and address and security protocol"
        };
        KafkaError::Unreachable(format!(
            "cannot reach Kafka \"{}\": {}; {hint}",
            self.bootstrap,
            cause(why)
        ))
    }

    fn fail(&self, verb: &str, why: &str) -> KafkaError {
        KafkaError::Other(format!("cannot {verb} topic \"{}\": {why}", self.topic))
    }

    fn classify(&self, failure: &Failure, verb: &str) -> KafkaError {
        let text = self.redact(cause(&failure.text));
        let topic = &self.topic;
        match failure.code {
            code::UNKNOWN_TOPIC_OR_PART
            | code::UNKNOWN_TOPIC
            | code::UNKNOWN_PARTITION
            | code::UNKNOWN_TOPIC_ID => KafkaError::NotThere(format!(
                "cannot {verb} topic \"{topic}\": it does not exist; create it, or name another"
            )),
            code::TOPIC_AUTHORIZATION_FAILED => KafkaError::TopicDenied(format!(
                "cannot {verb} topic \"{topic}\": user \"{}\" may not, or it does not exist; grant Read and Describe on the topic",
                self.username
            )),
            code::GROUP_AUTHORIZATION_FAILED => KafkaError::GroupDenied(format!(
                "cannot use group \"{}\": user \"{}\" may not; grant Read on the group",
                self.group, self.username
            )),
            code::AUTHENTICATION | code::SASL_AUTHENTICATION_FAILED | code::SSL => {
                self.login_error(failure.code, &text)
            }
            code::BAD_MSG | code::BAD_COMPRESSION | code::NOT_IMPLEMENTED | code::INVALID_MSG => {
                KafkaError::Damaged(format!(
                    "cannot {verb} topic \"{topic}\": {text}; a batch in the log is damaged or of an unknown format, repair it or skip it by hand"
                ))
            }
            code::MSG_SIZE_TOO_LARGE => KafkaError::Damaged(format!(
                "cannot {verb} topic \"{topic}\": {text}; a batch is larger than {RESPONSE_MAX_BYTES} bytes"
            )),
            code::FATAL => KafkaError::Fatal(format!(
                "cannot go on with Kafka \"{}\": {text}",
                self.bootstrap
            )),
            code if is_silence(code) || code::PASSING.contains(&code) => {
                KafkaError::Unreachable(format!(
                    "cannot {verb} topic \"{topic}\": {text}; tried again until brokers are back"
                ))
            }
            code => KafkaError::Other(format!(
                "cannot {verb} topic \"{topic}\": {text} (code {code})"
            )),
        }
    }

    /// Brokers and libraries write these texts. None is known to quote a password, and none shall.
    fn redact(&self, text: &str) -> String {
        let password = self.password.expose();
        if password.is_empty() {
            text.to_owned()
        } else {
            text.replace(password, "…")
        }
    }
}

impl Hooks for Told {
    fn log(&self, level: i32, facility: &str, text: &str) {
        let text = self.redact(text);
        // Levels of syslog. Most errors of librdkafka are lost connections, which it makes anew.
        match level {
            ..=4 => warn!(facility, text, "librdkafka"),
            5..=6 => debug!(facility, text, "librdkafka"),
            _ => trace!(facility, text, "librdkafka"),
        }
    }

    fn error(&self, code: i32, text: &str) {
        let text = self.redact(text);
        let mut state = self.lock();
        match code {
            code::AUTHENTICATION | code::SASL_AUTHENTICATION_FAILED | code::SSL => {
                let error = self.login_error(code, &text);
                state.logins_failed += 1;
                state.login = Some(error.clone());
                state.add_news(error);
            }
            code::ALL_BROKERS_DOWN if state.login.is_none() => {
                let why = state.unreachable.clone().unwrap_or(text);
                let error = self.unreachable_error(&why);
                state.add_news(error);
            }
            // Of a topic partition whose topic is gone: not a message of its queue, but an error of the client.
            code::UNKNOWN_TOPIC_OR_PART
            | code::UNKNOWN_PARTITION
            | code::UNKNOWN_TOPIC
            | code::UNKNOWN_TOPIC_ID => {
                let error = self.classify(&Failure { code, text }, "read");
                state.add_news(error);
            }
            code::TRANSPORT | code::RESOLVE => state.unreachable = Some(text),
            // `Client::fatal` has the cause.
            code::FATAL | code::ALL_BROKERS_DOWN => {}
            _ => debug!(code, text, "librdkafka told an error"),
        }
        self.any.store(true, Ordering::Release);
    }

    fn names(&self, host: &str) -> Vec<String> {
        (self.names)(host)
    }
}

/// The cause alone, without the name of librdkafka's thread and the time it took, which would make each text a new one:
/// `sasl_plaintext://host:9092/bootstrap: cause (after 3ms in state CONNECT)`.
fn cause(text: &str) -> &str {
    let text = match text.split_once("://") {
        Some((protocol, rest)) if !protocol.contains(' ') => {
            rest.split_once(": ").map_or(text, |(_, cause)| cause)
        }
        _ => text,
    };
    match text.rsplit_once(" (after ") {
        Some((cause, after)) if after.contains("ms in state ") => cause,
        _ => text,
    }
}

/// Codes of `rd_kafka_resp_err_t`, in which librdkafka's own are negative.
mod code {
    pub const BAD_MSG: i32 = -199;
    pub const BAD_COMPRESSION: i32 = -198;
    pub const TRANSPORT: i32 = -195;
    pub const RESOLVE: i32 = -193;
    pub const PARTITION_EOF: i32 = -191;
    pub const UNKNOWN_PARTITION: i32 = -190;
    pub const UNKNOWN_TOPIC: i32 = -188;
    pub const ALL_BROKERS_DOWN: i32 = -187;
    pub const TIMED_OUT: i32 = -185;
    pub const SSL: i32 = -181;
    pub const PREV_IN_PROGRESS: i32 = -177;
    pub const STATE: i32 = -172;
    pub const NOT_IMPLEMENTED: i32 = -170;
    pub const AUTHENTICATION: i32 = -169;
    pub const TIMED_OUT_QUEUE: i32 = -166;
    pub const NO_LEADER: i32 = -156;
    pub const FATAL: i32 = -150;
    pub const AUTO_OFFSET_RESET: i32 = -140;
    pub const INVALID_MSG: i32 = 2;
    pub const UNKNOWN_TOPIC_OR_PART: i32 = 3;
    pub const MSG_SIZE_TOO_LARGE: i32 = 10;
    pub const TOPIC_AUTHORIZATION_FAILED: i32 = 29;
    pub const GROUP_AUTHORIZATION_FAILED: i32 = 30;
    pub const SASL_AUTHENTICATION_FAILED: i32 = 58;
    pub const UNKNOWN_TOPIC_ID: i32 = 100;
    /// What passes by itself: no leader, another leader, a broker or coordinator that is starting or gone.
    pub const PASSING: [i32; 16] = [
        NO_LEADER, -195, -193, -187, -180, 5, 6, 7, 8, 9, 13, 14, 15, 16, 74, 75,
    ];
}

/// No answer came.
fn is_silence(code: i32) -> bool {
    matches!(
        code,
        code::TIMED_OUT
            | code::TIMED_OUT_QUEUE
            | code::TRANSPORT
            | code::ALL_BROKERS_DOWN
            | code::RESOLVE
    )
}

fn is_too_early(code: i32) -> bool {
    matches!(
        code,
        code::STATE | code::PREV_IN_PROGRESS | code::UNKNOWN_PARTITION
    )
}

/// The names to look up for a broker's host: itself, and when it is short (`pod.service`, as Kafka advertises it inside
/// its own namespace) with the namespace's suffix. TLS still checks the short one.
fn names_to_try(host: &str, namespace: Option<&str>, cluster_domain: &str) -> Vec<String> {
    let mut names = vec![host.to_owned()];
    let dots = host.matches('.').count();
    let short =
        dots <= 1 && !host.ends_with('.') && host != "localhost" && host.parse::<IpAddr>().is_err();
    if let Some(namespace) = namespace.filter(|n| short && !n.is_empty()) {
        names.push(format!("{host}.{namespace}.svc.{cluster_domain}"));
    }
    names
}

/// librdkafka's settings.
fn settings(config: &KafkaConfig) -> Vec<(&'static str, String)> {
    let partitions = if config.partitions == 0 {
        4
    } else {
        config.partitions
    };
    // Per topic partition, as their queues are split. One fetch of 1 MB may come on top.
    let queue_kbytes = (QUEUE_MAX_BYTES / 1024 / partitions).clamp(64, 4096);
    let queue_messages = (QUEUE_MAX_MESSAGES / partitions).clamp(500, 20_000);
    let mut settings: Vec<(&'static str, String)> = [
        ("client.id", "windrow"),
        ("enable.partition.eof", "true"),
        ("auto.offset.reset", "error"),
        ("isolation.level", "read_committed"),
        ("check.crcs", "true"),
        ("enable.auto.commit", "false"),
        ("enable.auto.offset.store", "false"),
        ("allow.auto.create.topics", "false"),
        ("enable.metrics.push", "false"),
        // The default of a second stalls a reader that is slower than the broker.
        ("fetch.queue.backoff.ms", "5"),
        ("fetch.message.max.bytes", "1048576"),
        ("reconnect.backoff.ms", "100"),
        ("reconnect.backoff.max.ms", "5000"),
        ("socket.keepalive.enable", "true"),
        ("socket.connection.setup.timeout.ms", "10000"),
        ("topic.metadata.refresh.interval.ms", "60000"),
        // How long a topic that is gone may be one that has not spread yet.
        ("topic.metadata.propagation.max.ms", "5000"),
        ("log.connection.close", "false"),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .into();
    settings.extend([
        ("bootstrap.servers", config.bootstrap.clone()),
        ("group.id", config.group.clone()),
        ("queued.max.messages.kbytes", queue_kbytes.to_string()),
        ("queued.min.messages", queue_messages.to_string()),
        ("fetch.max.bytes", FETCH_MAX_BYTES.to_string()),
        ("receive.message.max.bytes", RESPONSE_MAX_BYTES.to_string()),
    ]);
    settings.push(("security.protocol", config.security.protocol().to_owned()));
    if config.security.logs_in() {
        settings.push(("sasl.mechanism", config.mechanism.name().to_owned()));
        settings.push(("sasl.username", config.username.clone()));
        settings.push(("sasl.password", config.password.expose().to_owned()));
    }
    if matches!(config.security, Security::Ssl | Security::SaslSsl) {
        settings.push(("ssl.ca.pem", ca_pem(config.ca_pem.as_deref())));
    }
    settings
}

/// Mozilla's roots, which do not depend on what the container's image has, and the given ones.
fn ca_pem(given: Option<&str>) -> String {
    let mut pem = String::with_capacity(300_000);
    if let Some(given) = given {
        pem.push_str(given.trim_end());
        pem.push('\n');
    }
    for root in webpki_root_certs::TLS_SERVER_ROOT_CERTS {
        pem.push_str("-----BEGIN CERTIFICATE-----\n");
        push_base64(&mut pem, root);
        pem.push_str("-----END CERTIFICATE-----\n");
    }
    pem
}

/// Base64 in lines of 64, as PEM has it (RFC 7468).
fn push_base64(text: &mut String, bytes: &[u8]) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for line in bytes.chunks(48) {
        for three in line.chunks(3) {
            let bits = three
                .iter()
                .enumerate()
                .fold(0_u32, |bits, (i, b)| bits | u32::from(*b) << (16 - 8 * i));
            for i in 0..4 {
                let six = (bits >> (18 - 6 * i) & 63) as usize;
                text.push(if i <= three.len() {
                    char::from(ALPHABET[six])
                } else {
                    '='
                });
            }
        }
        text.push('\n');
    }
}
