//! Questions to brokers: about the topic and its offsets; and the offsets of the group.
//! It chooses no offset, and does not ask again by itself.

use super::errors::{ClientErrors, KafkaError, code, is_silence};
use super::ffi::{Client, Failure};
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
        if partitions.is_empty() {
            return Ok(BTreeMap::new());
        }
        let deadline = Instant::now() + timeout;
        let found = self.ask_brokers(timeout, |timeout, give_up| {
            let client = &self.client;
            match client.list_offsets(&self.topic, partitions, at, committed, timeout, give_up) {
                Err(failure) if failure.code == code::NO_LEADER => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    Err(self.explain_no_leader(partitions, failure, left, give_up))
                }
                answer => answer,
            }
        })?;
        let found: BTreeMap<_, _> = found.into_iter().collect();
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
