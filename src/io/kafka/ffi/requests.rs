//! Requests to brokers and their answers: the topic, offsets, and the offsets of a group.

use super::{Client, Failure, List, TIMED_OUT, TRANSPORT, millis, raw, sys, text_of};
use std::ffi::CStr;
use std::ptr::{self, NonNull};
use std::time::{Duration, Instant};
use windrow_core::values::record::{Offset, Partition};

/// How long one wait for an answer takes. Between two waits the client looks at errors that have
/// come meanwhile.
const WAIT_SLICE: Duration = Duration::from_millis(50);

/// The topic as the brokers describe it.
pub struct Described {
    /// Kafka's id of the topic in base64; empty where the broker does not tell it.
    pub topic_id: String,
    pub partitions: Vec<Partition>,
    /// Those of them that have no leader.
    pub leaderless: Vec<Partition>,
}

/// What each topic partition that was asked for has answered.
pub type EachOffset = Vec<(Partition, Result<Offset, Failure>)>;

impl Client {
    /// The id of the cluster; `None` when no broker has told it in time.
    pub fn cluster_id(&self, timeout: Duration) -> Option<String> {
        // SAFETY: a live handle. The answer is copied and then freed by librdkafka.
        unsafe {
            let id = NonNull::new(sys::rd_kafka_clusterid(self.rk.as_ptr(), millis(timeout)))?;
            let text = text_of(id.as_ptr());
            sys::rd_kafka_mem_free(self.rk.as_ptr(), id.as_ptr().cast());
            Some(text)
        }
    }

    /// The ids of the brokers; the first one is the broker that has answered. Asking also makes
    /// librdkafka learn the leaders of the topics that it reads.
    fn brokers(&self, timeout: Duration, give_up: &dyn Fn() -> bool) -> Result<Vec<i32>, Failure> {
        let deadline = Instant::now() + timeout;
        let mut slice = WAIT_SLICE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut metadata = ptr::null();
            // SAFETY: a live handle. On success the metadata is ours, and it is freed below.
            let code = unsafe {
                let slice = millis(slice.min(left).max(Duration::from_millis(1)));
                sys::rd_kafka_metadata(
                    self.rk.as_ptr(),
                    0,
                    ptr::null_mut(),
                    &raw mut metadata,
                    slice,
                ) as i32
            };
            self.serve();
            if !metadata.is_null() {
                // SAFETY: as above; the array has that many elements.
                unsafe {
                    let (all, count) = (
                        (*metadata).brokers,
                        usize::try_from((*metadata).broker_cnt).unwrap_or(0),
                    );
                    let mut ids: Vec<_> = (0..count).map(|i| (*all.add(i)).id).collect();
                    let answered = (*metadata).orig_broker_id;
                    ids.sort_unstable_by_key(|id| *id != answered);
                    sys::rd_kafka_metadata_destroy(metadata);
                    return Ok(ids);
                }
            }
            if give_up() || left.is_zero() {
                return Err(Failure::of_code(code));
            }
            // A slow network needs more time than the first slices.
            slice = (slice * 2).min(Duration::from_secs(2));
        }
    }

    /// Asks for the topic's id and partitions. While there is no answer, `give_up` is called now
    /// and then, and `true` ends the wait.
    pub fn describe(
        &self,
        topic: &CStr,
        timeout: Duration,
        give_up: &dyn Fn() -> bool,
    ) -> Result<Described, Failure> {
        let deadline = Instant::now() + timeout;
        let brokers = self.brokers(timeout, give_up)?;
        let mut last = Failure::of_code(TIMED_OUT);
        for (i, broker) in brokers.iter().enumerate() {
            let left = deadline.saturating_duration_since(Instant::now());
            let share = left / u32::try_from(brokers.len() - i).unwrap_or(1);
            match self.describe_by(*broker, topic, share, give_up) {
                Err(failure) if failure.code < 0 && !give_up() => last = failure,
                answer => return answer,
            }
        }
        Err(last)
    }

    /// Asks one broker. Any broker knows the answer, but librdkafka by itself would wait for the
    /// controller.
    fn describe_by(
        &self,
        broker: i32,
        topic: &CStr,
        timeout: Duration,
        give_up: &dyn Fn() -> bool,
    ) -> Result<Described, Failure> {
        let reply = self.request(
            sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS,
            timeout,
            give_up,
            // SAFETY: the collection copies the name, and it is freed after the request has taken
            // what it needs.
            |options, queue| unsafe {
                sys::rd_kafka_AdminOptions_set_broker(options, broker, ptr::null_mut(), 0);
                let mut names = [topic.as_ptr()];
                let topics =
                    sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
                sys::rd_kafka_DescribeTopics(self.rk.as_ptr(), topics, options, queue);
                sys::rd_kafka_TopicCollection_destroy(topics);
            },
        )?;
        // SAFETY: what the reply returns lives as long as the reply does, and is copied out of it
        // here. The error object belongs to the reply.
        unsafe {
            let result = sys::rd_kafka_event_DescribeTopics_result(reply.0.as_ptr());
            let mut count = 0;
            let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
            if count == 0 {
                return Err(Failure::of_code(3));
            }
            let topic = *topics;
            let error = sys::rd_kafka_TopicDescription_error(topic);
            if !error.is_null() && raw::rd_kafka_error_code(error) != 0 {
                return Err(Failure {
                    code: raw::rd_kafka_error_code(error),
                    text: text_of(sys::rd_kafka_error_string(error)),
                });
            }
            let id = sys::rd_kafka_TopicDescription_topic_id(topic);
            let known = !id.is_null()
                && (sys::rd_kafka_Uuid_most_significant_bits(id) != 0
                    || sys::rd_kafka_Uuid_least_significant_bits(id) != 0);
            let topic_id = if known {
                text_of(sys::rd_kafka_Uuid_base64str(id))
            } else {
                String::new()
            };
            let mut count = 0;
            let infos = sys::rd_kafka_TopicDescription_partitions(topic, &raw mut count);
            let mut partitions: Vec<_> = (0..count)
                .map(|i| sys::rd_kafka_TopicPartitionInfo_partition(*infos.add(i)))
                .collect();
            partitions.sort_unstable();
            let has_leader = |info| {
                let leader = sys::rd_kafka_TopicPartitionInfo_leader(info);
                !leader.is_null() && sys::rd_kafka_Node_id(leader) >= 0
            };
            let leaderless = (0..count)
                .map(|i| *infos.add(i))
                .filter(|info| !has_leader(*info))
                .map(|info| sys::rd_kafka_TopicPartitionInfo_partition(info));
            Ok(Described {
                topic_id,
                partitions,
                leaderless: leaderless.collect(),
            })
        }
    }

    /// Asks the leaders for offsets. `at` is what Kafka's `ListOffsets` takes: -2 for the first
    /// offset, -1 for the end. The end is the last stable offset when `committed`, and the high
    /// watermark otherwise.
    pub fn list_offsets(
        &self,
        topic: &CStr,
        partitions: &[Partition],
        at: i64,
        committed: bool,
        timeout: Duration,
        give_up: &dyn Fn() -> bool,
    ) -> Result<EachOffset, Failure> {
        let list = List::of(topic, partitions.iter().map(|partition| (*partition, at)));
        let level = if committed {
            sys::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_COMMITTED
        } else {
            sys::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_UNCOMMITTED
        };
        let reply = self.request(
            sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTOFFSETS,
            timeout,
            give_up,
            // SAFETY: the options are for this request, which accepts the setting; the list is
            // copied.
            |options, queue| unsafe {
                let _ = Failure::check(sys::rd_kafka_AdminOptions_set_isolation_level(
                    options, level,
                ));
                sys::rd_kafka_ListOffsets(self.rk.as_ptr(), list.0.as_ptr(), options, queue);
            },
        )?;
        let mut offsets = Vec::with_capacity(partitions.len());
        // SAFETY: as in `describe_by`.
        unsafe {
            let result = sys::rd_kafka_event_ListOffsets_result(reply.0.as_ptr());
            let mut count = 0;
            let infos = sys::rd_kafka_ListOffsets_result_infos(result, &raw mut count);
            for i in 0..count {
                let found = sys::rd_kafka_ListOffsetsResultInfo_topic_partition(*infos.add(i));
                let offset = match ptr::addr_of!((*found).err).cast::<i32>().read() {
                    // For a leader that could not be asked there is no error, but librdkafka's
                    // number for an invalid offset.
                    0 if (*found).offset < -1 => Err(Failure::of_code(TRANSPORT)),
                    0 => Ok((*found).offset),
                    code => Err(Failure::of_code(code)),
                };
                offsets.push(((*found).partition, offset));
            }
        }
        Ok(offsets)
    }

    /// Sends the group's offsets and does not wait. `rd_kafka_commit` is not used, because a commit
    /// that waits for a coordinator would hold up every later `assign`.
    pub fn commit(
        &self,
        group: &CStr,
        topic: &CStr,
        offsets: impl IntoIterator<Item = (Partition, Offset)>,
        timeout: Duration,
    ) {
        let list = List::of(topic, offsets);
        let options = Options::new(
            self,
            sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_ALTERCONSUMERGROUPOFFSETS,
            timeout,
        );
        // SAFETY: live handles. The request copies the group and the list.
        unsafe {
            let mut request =
                sys::rd_kafka_AlterConsumerGroupOffsets_new(group.as_ptr(), list.0.as_ptr());
            sys::rd_kafka_AlterConsumerGroupOffsets(
                self.rk.as_ptr(),
                &raw mut request,
                1,
                options.0.as_ptr(),
                self.commits,
            );
            sys::rd_kafka_AlterConsumerGroupOffsets_destroy(request);
        }
    }

    /// Calls `each` with the outcome of each earlier commit that has been answered since the last
    /// call.
    pub fn take_commit_answers(&self, mut each: impl FnMut(Result<(), Failure>)) {
        loop {
            // SAFETY: a live queue, to which only commits are answered. The reply frees the event.
            let event = unsafe { sys::rd_kafka_queue_poll(self.commits, 0) };
            let Some(reply) = NonNull::new(event).map(Reply) else {
                return;
            };
            each(
                reply
                    .failure()
                    .or_else(|| reply.group_failure())
                    .map_or(Ok(()), Err),
            );
        }
    }

    /// Sends a request and waits for its answer.
    fn request(
        &self,
        what: sys::rd_kafka_admin_op_t,
        timeout: Duration,
        give_up: &dyn Fn() -> bool,
        send: impl FnOnce(*mut sys::rd_kafka_AdminOptions_t, *mut sys::rd_kafka_queue_t),
    ) -> Result<Reply, Failure> {
        let deadline = Instant::now() + timeout;
        let options = Options::new(self, what, timeout);
        // SAFETY: a live handle. `Answers` frees the queue, and librdkafka drops an answer that
        // comes later.
        let answers = Answers(unsafe { sys::rd_kafka_queue_new(self.rk.as_ptr()) });
        send(options.0.as_ptr(), answers.0);
        loop {
            // SAFETY: a live queue. The reply frees the event.
            let event = unsafe { sys::rd_kafka_queue_poll(answers.0, millis(WAIT_SLICE)) };
            self.serve();
            if let Some(reply) = NonNull::new(event).map(Reply) {
                return reply.failure().map_or(Ok(reply), Err);
            }
            if give_up() || Instant::now() >= deadline {
                return Err(Failure::of_code(TIMED_OUT));
            }
        }
    }
}

/// The options of one request.
struct Options(NonNull<sys::rd_kafka_AdminOptions_t>);

impl Options {
    fn new(client: &Client, what: sys::rd_kafka_admin_op_t, timeout: Duration) -> Self {
        // SAFETY: a live handle. No error is asked for, because the value is in the allowed range.
        unsafe {
            let options = NonNull::new(sys::rd_kafka_AdminOptions_new(client.rk.as_ptr(), what))
                .expect("librdkafka knows the requests that it has");
            let timeout = millis(timeout).clamp(1, 3_600_000);
            sys::rd_kafka_AdminOptions_set_request_timeout(
                options.as_ptr(),
                timeout,
                ptr::null_mut(),
                0,
            );
            Self(options)
        }
    }
}

impl Drop for Options {
    fn drop(&mut self) {
        // SAFETY: ours, freed once.
        unsafe { sys::rd_kafka_AdminOptions_destroy(self.0.as_ptr()) };
    }
}

/// The queue for the answer to one request.
struct Answers(*mut sys::rd_kafka_queue_t);

impl Drop for Answers {
    fn drop(&mut self) {
        // SAFETY: ours, freed once.
        unsafe { sys::rd_kafka_queue_destroy(self.0) };
    }
}

/// An answer, or the error that came in its place.
struct Reply(NonNull<sys::rd_kafka_event_t>);

impl Reply {
    fn failure(&self) -> Option<Failure> {
        // SAFETY: a live event.
        unsafe {
            match raw::rd_kafka_event_error(self.0.as_ptr()) {
                0 => None,
                code => Some(Failure {
                    code,
                    text: text_of(sys::rd_kafka_event_error_string(self.0.as_ptr())),
                }),
            }
        }
    }

    /// The first error in the answer to a group commit.
    fn group_failure(&self) -> Option<Failure> {
        // SAFETY: results belong to the live event, errors and lists to the result.
        unsafe {
            let result = sys::rd_kafka_event_AlterConsumerGroupOffsets_result(self.0.as_ptr());
            if result.is_null() {
                return None;
            }
            let mut count = 0;
            let groups =
                sys::rd_kafka_AlterConsumerGroupOffsets_result_groups(result, &raw mut count);
            if count == 0 {
                return None;
            }
            let error = sys::rd_kafka_group_result_error(*groups);
            if !error.is_null() {
                let text = text_of(sys::rd_kafka_error_string(error));
                return Some(Failure {
                    code: raw::rd_kafka_error_code(error),
                    text,
                });
            }
            let list = sys::rd_kafka_group_result_partitions(*groups);
            let count = if list.is_null() {
                0
            } else {
                usize::try_from((*list).cnt).unwrap_or(0)
            };
            (0..count)
                .map(|i| {
                    ptr::addr_of!((*(*list).elems.add(i)).err)
                        .cast::<i32>()
                        .read()
                })
                .find(|code| *code != 0)
                .map(Failure::of_code)
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        // SAFETY: ours, freed once.
        unsafe { sys::rd_kafka_event_destroy(self.0.as_ptr()) };
    }
}
