//! Questions to brokers: about the topic and its offsets; and the offsets of the group.
//! It chooses no offset, and does not ask again by itself.

use super::errors::{ClientErrors, KafkaError, code, is_silence};
use super::ffi::{Client, EachOffset, Failure};
use super::{At, End, TopicInfo};
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::warn;
use windrow_core::values::record::{Offset, Partition};

/// After a failed login that nothing was heard about since, the next question gives up after this
/// time.
const LOGIN_WAIT: Duration = Duration::from_secs(2);
/// How long the client waits for the answer to a group commit, in the background.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(20);

/// What Kafka's `ListOffsets` takes for the first offset.
const EARLIEST: i64 = -2;
/// What it takes for the end.
const LATEST: i64 = -1;

/// The first offset and the last stable offset of each topic partition, or why its leader does not
/// tell them.
pub type EachLimits = BTreeMap<Partition, Result<(Offset, Offset), String>>;

/// Asks brokers. Each call blocks at most for the timeout that it is given. Clones share one
/// client.
#[derive(Clone)]
pub struct Brokers {
    client: Arc<Client>,
    errors: Arc<ClientErrors>,
    topic: Arc<CStr>,
    group: Arc<CStr>,
}

impl Brokers {
    pub(super) fn new(
        client: Arc<Client>,
        errors: Arc<ClientErrors>,
        topic: Arc<CStr>,
        group: Arc<CStr>,
    ) -> Self {
        Self {
            client,
            errors,
            topic,
            group,
        }
    }

    /// The cluster, and the id and the partitions of the topic. Each call asks anew.
    ///
    /// When a topic is deleted and created again, librdkafka goes on in the new one, and says
    /// nothing if that one is long enough. So a reader must compare the id before its records
    /// count.
    ///
    /// # Errors
    /// `NotThere`, `TopicDenied`, `Login`, `Tls`, `Unreachable`.
    pub fn topic(&self, timeout: Duration) -> Result<TopicInfo, KafkaError> {
        let deadline = Instant::now() + timeout;
        let found = self.ask_brokers(timeout, |timeout, give_up| {
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
            leaderless: found.leaderless,
        })
    }

    /// The offset of each topic partition at that place.
    ///
    /// # Errors
    /// As for [`Brokers::topic`].
    pub fn offsets(
        &self,
        partitions: &[Partition],
        at: At,
        timeout: Duration,
    ) -> Result<BTreeMap<Partition, Offset>, KafkaError> {
        let at = match at {
            At::Earliest => EARLIEST,
            At::Latest => LATEST,
        };
        self.list_offsets(partitions, at, true, timeout)
    }

    /// The limits of each topic partition of this topic. One whose leader does not answer holds up
    /// no other.
    ///
    /// # Errors
    /// As for [`Brokers::topic`], where nobody answers.
    pub fn limits(&self, topic: &TopicInfo, timeout: Duration) -> Result<EachLimits, KafkaError> {
        let has_leader = |p: &&Partition| !topic.leaderless.contains(p);
        let asked: Vec<Partition> = topic
            .partitions
            .iter()
            .filter(has_leader)
            .copied()
            .collect();
        let mut first = self.each_offset(&asked, EARLIEST, true, timeout)?;
        let mut end = self.each_offset(&asked, LATEST, true, timeout)?;
        let mut limits = |partition: Partition| {
            if !asked.contains(&partition) {
                return Err("it has no leader".to_owned());
            }
            let of = |offsets: &mut BTreeMap<_, Result<Offset, Failure>>| match offsets
                .remove(&partition)
            {
                Some(Ok(offset)) => Ok(offset),
                Some(Err(failure)) => Err(self.errors.classify(&failure, "read").to_string()),
                None => Err("the brokers' answer leaves it out".to_owned()),
            };
            Ok((of(&mut first)?, of(&mut end)?))
        };
        let partitions = topic.partitions.iter();
        Ok(partitions.map(|p| (*p, limits(*p))).collect())
    }

    /// The limits of a topic partition, asked of its leader.
    ///
    /// # Errors
    /// As for [`Brokers::topic`].
    pub fn end(&self, partition: Partition, timeout: Duration) -> Result<End, KafkaError> {
        let deadline = Instant::now() + timeout;
        let one = |wanted, committed| {
            let left = deadline.saturating_duration_since(Instant::now());
            let found = self.list_offsets(&[partition], wanted, committed, left)?;
            Ok::<_, KafkaError>(found[&partition])
        };
        // The high watermark comes last: when all three are equal, that offset was the end already
        // when the first of them was asked for.
        Ok(End {
            log_start: one(EARLIEST, true)?,
            last_stable: one(LATEST, true)?,
            high_watermark: one(LATEST, false)?,
        })
    }

    /// Tells Kafka's group how far reading is, for tools that show lag. The request is sent in the
    /// background, and its failures only go to the log.
    pub fn commit_group(&self, offsets: &BTreeMap<Partition, Offset>) {
        self.client.take_commit_answers(|answer| {
            let problem = answer
                .err()
                .map(|failure| self.errors.classify(&failure, "commit offsets of"));
            // The same problem is logged once.
            if self.errors.note_commit_problem(problem.as_ref())
                && let Some(error) = problem
            {
                warn!(
                    error = %error,
                    "cannot tell Kafka's group how far reading is; only lag tools miss it"
                );
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
        let found = self.ask_brokers_for(partitions, at, committed, timeout, |found| {
            let offset = |(partition, offset): (Partition, Result<_, _>)| {
                offset.map(|offset| (partition, offset))
            };
            found.into_iter().map(offset).collect()
        })?;
        let found: BTreeMap<_, _> = found;
        let is_missing = |p: &&Partition| found.get(p).is_none_or(|offset| *offset < 0);
        match partitions.iter().find(is_missing) {
            None => Ok(found),
            Some(p) => Err(KafkaError::Unreachable(format!(
                "cannot find offsets of topic \"{}\": the answer leaves out partition {p}; \
                 try again",
                self.errors.topic
            ))),
        }
    }

    /// What each topic partition answers.
    fn each_offset(
        &self,
        partitions: &[Partition],
        at: i64,
        committed: bool,
        timeout: Duration,
    ) -> Result<BTreeMap<Partition, Result<Offset, Failure>>, KafkaError> {
        self.ask_brokers_for(partitions, at, committed, timeout, |found| {
            Ok(found.into_iter().collect())
        })
    }

    /// Asks the leaders of topic partitions for offsets. `read` makes of the answers what is
    /// wanted, or fails as the question does.
    fn ask_brokers_for<T: Default>(
        &self,
        partitions: &[Partition],
        at: i64,
        committed: bool,
        timeout: Duration,
        read: impl FnOnce(EachOffset) -> Result<T, Failure>,
    ) -> Result<T, KafkaError> {
        if partitions.is_empty() {
            return Ok(T::default());
        }
        let deadline = Instant::now() + timeout;
        self.ask_brokers(timeout, |timeout, give_up| {
            let client = &self.client;
            let found =
                client.list_offsets(&self.topic, partitions, at, committed, timeout, give_up);
            match found.and_then(read) {
                Err(failure) if failure.code == code::NO_LEADER => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    Err(self.explain_no_leader(partitions, failure, left, give_up))
                }
                answer => answer,
            }
        })
    }

    /// librdkafka only says that it has found no leaders. The brokers know whether there is a topic
    /// that could have leaders.
    fn explain_no_leader(
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

    /// Asks a question. It gives up early when a login fails meanwhile, or when one has failed
    /// before and nothing was heard since.
    fn ask_brokers<T>(
        &self,
        timeout: Duration,
        question: impl FnOnce(Duration, &dyn Fn() -> bool) -> Result<T, Failure>,
    ) -> Result<T, KafkaError> {
        let before = self.errors.logins_failed();
        let timeout = if self.errors.cannot_log_in() {
            timeout.min(LOGIN_WAIT)
        } else {
            timeout
        };
        let answer = question(timeout, &|| self.errors.logins_failed() != before);
        match answer {
            Ok(answer) => {
                self.errors.clear();
                Ok(answer)
            }
            Err(failure) if is_silence(failure.code) => Err(self.errors.explain_silence()),
            Err(failure) => Err(self.errors.classify(&failure, "read")),
        }
    }
}
