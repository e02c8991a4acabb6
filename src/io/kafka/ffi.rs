//! librdkafka, called directly: all unsafe code of the Kafka source is in this file.
//! It owns handles and frees them in order; what the answers mean is decided in `kafka.rs`.
//!
//! Directly, because batch calls and the resolve callback are not in the safe crate, and because its one event and
//! one `Arc` a record cost more than all the rest. What was read in librdkafka 2.12.1 and shapes this file:
//!
//! - Partition queues stay *un-forwarded*. Forwarding to one queue is undone by librdkafka itself, some time after an
//!   unassign (`rd_kafka_toppar_fetch_stop`), so a partition that is started again could be left unread.
//! - Each message carries the version of its partition's assignment; unassign raises the version before it returns,
//!   and a batch call drops what is older. Nothing from before a stop comes out after it.
//! - Nobody may subscribe: a batch call that meets a rebalance gives up the assignment.
//! - `rd_kafka_pause_partitions` is not used: after a batch call that returned an end-of-partition, librdkafka takes
//!   that offset + 1 as the position to resume from, and a record would be lost. Who pauses just does not read.
//! - Error codes are read as integers: a newer broker may send one that the bindings' enum does not have.
#![expect(unsafe_code, reason = "the one file that calls librdkafka itself")]

use rdkafka_sys as sys;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};
use windrow_core::values::record::{Batch, Offset, Partition, Record};

/// Not in the bindings, or with an enum for a code that may not be in it.
mod raw {
    use super::{c_char, c_int, c_void, sys};

    /// As `getaddrinfo`; the lists are only handed on, so their layout does not matter here.
    pub type Resolve = unsafe extern "C" fn(
        node: *const c_char,
        service: *const c_char,
        hints: *const c_void,
        list: *mut *mut c_void,
        opaque: *mut c_void,
    ) -> c_int;

    unsafe extern "C" {
        pub fn rd_kafka_conf_set_resolve_cb(
            conf: *mut sys::rd_kafka_conf_t,
            resolve: Option<Resolve>,
        );
        pub fn rd_kafka_event_error(event: *mut sys::rd_kafka_event_t) -> c_int;
        pub fn rd_kafka_error_code(error: *const sys::rd_kafka_error_t) -> c_int;
        pub fn rd_kafka_err2str(code: c_int) -> *const c_char;
        pub fn getaddrinfo(
            node: *const c_char,
            service: *const c_char,
            hints: *const c_void,
            list: *mut *mut c_void,
        ) -> c_int;
        pub fn freeaddrinfo(list: *mut c_void);
    }
}

/// `RD_KAFKA_RESP_ERR__TRANSPORT`.
const TRANSPORT: i32 = -195;
/// `RD_KAFKA_RESP_ERR__TIMED_OUT`.
const TIMED_OUT: i32 = -185;
/// `EAI_NONAME` of `getaddrinfo`.
const NO_SUCH_NAME: c_int = -2;
/// How long an answer is waited for between two looks at the errors that came meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Most messages that one batch call returns; batches of 100 and of 10 000 cost the same.
const BATCH_MAX_MESSAGES: usize = 2048;

/// An error as librdkafka gives it: its code (negative for its own, positive for the broker's) and text.
#[derive(Clone, Debug)]
pub struct Failure {
    pub code: i32,
    pub text: String,
}

impl Failure {
    fn of_code(code: i32) -> Self {
        // SAFETY: for any code it returns a static string or one in thread-local storage.
        Self {
            code,
            text: text_of(unsafe { raw::rd_kafka_err2str(code) }),
        }
    }

    /// Takes over and frees librdkafka's error object; `Ok` for none.
    fn check(error: *mut sys::rd_kafka_error_t) -> Result<(), Self> {
        if error.is_null() {
            return Ok(());
        }
        // SAFETY: not null, ours, and not used after it is freed.
        unsafe {
            let failure = Self {
                code: raw::rd_kafka_error_code(error),
                text: text_of(sys::rd_kafka_error_string(error)),
            };
            sys::rd_kafka_error_destroy(error);
            Err(failure)
        }
    }
}

/// What librdkafka's threads call. It must be quick and must not call librdkafka.
pub trait Hooks: Send + Sync {
    /// Level as in syslog, facility, text.
    fn log(&self, level: i32, facility: &str, text: &str);
    /// Code and text of an error of the client as a whole. Called from whoever serves, asks or reads.
    fn error(&self, code: i32, text: &str);
    /// The names to look up for a broker's host, in order, until one resolves.
    fn names(&self, host: &str) -> Vec<String>;
}

/// A consumer that is assigned topic partitions and never joins a group.
pub struct Client {
    rk: NonNull<sys::rd_kafka_t>,
    /// Where the answers to group commits arrive; they are looked at by the next one.
    commits: *mut sys::rd_kafka_queue_t,
    /// Behind librdkafka's opaque pointer. Freed last: its threads use it until `rd_kafka_destroy` returns.
    _hooks: Box<Arc<dyn Hooks>>,
}

// SAFETY: librdkafka's handles may be used from any thread, and from several at once
// (INTRODUCTION.md, "Threads and callbacks"); batch calls are kept to one thread by `&mut Messages` in the one reader.
unsafe impl Send for Client {}
// SAFETY: as above.
unsafe impl Sync for Client {}

impl Drop for Client {
    fn drop(&mut self) {
        // SAFETY: queues and messages hold an `Arc` of this, so this is the last use. Without the consumer close:
        // there is no group to leave, and it would wait for a rebalance callback that we do not have.
        unsafe {
            sys::rd_kafka_queue_destroy(self.commits);
            sys::rd_kafka_destroy_flags(
                self.rk.as_ptr(),
                sys::RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE,
            );
        }
    }
}

/// The topic as the brokers describe it.
pub struct Described {
    /// Kafka's id of the topic in base64, empty where the broker tells none.
    pub topic_id: String,
    pub partitions: Vec<Partition>,
}

impl Client {
    /// Makes the client; it connects in the background.
    ///
    /// # Errors
    /// librdkafka's text on a setting or the whole. Setting values are not in it.
    pub fn new(settings: &[(&str, String)], hooks: Arc<dyn Hooks>) -> Result<Self, String> {
        let hooks = Box::new(hooks);
        let mut errors = [0 as c_char; 512];
        // SAFETY: the conf is ours until `rd_kafka_new` succeeds, and freed on each other path. The opaque outlives
        // the client: see `Client::_hooks`.
        unsafe {
            let conf = sys::rd_kafka_conf_new();
            for (name, value) in settings {
                if !set(conf, name, value) {
                    sys::rd_kafka_conf_destroy(conf);
                    return Err(format!("librdkafka refuses the value of \"{name}\""));
                }
            }
            sys::rd_kafka_conf_set_opaque(
                conf,
                ptr::from_ref::<Arc<dyn Hooks>>(&hooks).cast_mut().cast(),
            );
            sys::rd_kafka_conf_set_log_cb(conf, Some(on_log));
            sys::rd_kafka_conf_set_error_cb(conf, Some(on_error));
            raw::rd_kafka_conf_set_resolve_cb(conf, Some(on_resolve));
            let rk = sys::rd_kafka_new(
                sys::rd_kafka_type_t::RD_KAFKA_CONSUMER,
                conf,
                errors.as_mut_ptr(),
                errors.len(),
            );
            let Some(rk) = NonNull::new(rk) else {
                sys::rd_kafka_conf_destroy(conf);
                return Err(text_of(errors.as_ptr()));
            };
            Ok(Self {
                rk,
                commits: sys::rd_kafka_queue_new(rk.as_ptr()),
                _hooks: hooks,
            })
        }
    }

    /// Runs the error hook for what has gathered. Cheap; any thread.
    pub fn serve(&self) {
        // SAFETY: a live handle; the hooks that it calls are alive.
        unsafe { sys::rd_kafka_poll(self.rk.as_ptr(), 0) };
    }

    /// The next error of the consumer as a whole (its group, a topic), if any.
    pub fn next_failure(&self) -> Option<Failure> {
        // SAFETY: a live handle. No partition is forwarded to this queue and nothing is subscribed, so what comes is
        // an error; it is freed here.
        unsafe {
            let message = NonNull::new(sys::rd_kafka_consumer_poll(self.rk.as_ptr(), 0))?;
            let failure = Failure {
                code: code_of(message.as_ptr()),
                text: error_text(message.as_ptr()),
            };
            sys::rd_kafka_message_destroy(message.as_ptr());
            Some(failure)
        }
    }

    /// The error after which the client works no more, if there was one.
    pub fn fatal(&self) -> Option<String> {
        let mut text = [0 as c_char; 512];
        // SAFETY: a live handle and a buffer of the given size; the enum that it returns is not looked at but for 0.
        unsafe {
            let code = sys::rd_kafka_fatal_error(self.rk.as_ptr(), text.as_mut_ptr(), text.len());
            (code as i32 != 0).then(|| text_of(text.as_ptr()))
        }
    }

    /// Starts to fetch a topic partition; call [`Client::queue`] before, or its records go to a queue nobody reads.
    pub fn assign(
        &self,
        topic: &CStr,
        partition: Partition,
        offset: Offset,
        leader_epoch: i32,
    ) -> Result<(), Failure> {
        let list = List::of(topic, [(partition, offset)]);
        // SAFETY: the list has one element, and lives through the call; librdkafka copies it.
        unsafe {
            sys::rd_kafka_topic_partition_set_leader_epoch((*list.0.as_ptr()).elems, leader_epoch);
            Failure::check(sys::rd_kafka_incremental_assign(
                self.rk.as_ptr(),
                list.0.as_ptr(),
            ))
        }
    }

    /// Ends fetching. When it returns, all that was fetched is outdated.
    pub fn unassign(&self, topic: &CStr, partition: Partition) -> Result<(), Failure> {
        let list = List::of(topic, [(partition, 0)]);
        // SAFETY: as in `assign`.
        unsafe {
            Failure::check(sys::rd_kafka_incremental_unassign(
                self.rk.as_ptr(),
                list.0.as_ptr(),
            ))
        }
    }

    /// Has librdkafka ask the leader whether its log has this leader epoch up to this offset, before it fetches on:
    /// `assign` alone takes the epoch and does not ask (KIP-320).
    pub fn validate(
        &self,
        topic: &CStr,
        partition: Partition,
        offset: Offset,
        leader_epoch: i32,
        timeout: Duration,
    ) -> Result<(), Failure> {
        let list = List::of(topic, [(partition, offset)]);
        // SAFETY: as in `assign`; the element's error is read as an integer.
        unsafe {
            let element = (*list.0.as_ptr()).elems;
            sys::rd_kafka_topic_partition_set_leader_epoch(element, leader_epoch);
            Failure::check(sys::rd_kafka_seek_partitions(
                self.rk.as_ptr(),
                list.0.as_ptr(),
                millis(timeout),
            ))?;
            match ptr::addr_of!((*element).err).cast::<i32>().read() {
                0 => Ok(()),
                code => Err(Failure::of_code(code)),
            }
        }
    }

    /// The queue of a topic partition, from which its messages and errors are read once it is assigned.
    pub fn queue(
        self: &Arc<Self>,
        topic: &CStr,
        partition: Partition,
        bell: &Arc<Bell>,
    ) -> Option<Queue> {
        let signal = Arc::new(Signal {
            ready: AtomicBool::new(true),
            bell: Arc::clone(bell),
        });
        // SAFETY: a live handle. Forwarding to null marks the queue as ours, so that `assign` leaves it un-forwarded.
        // The signal lives until `Queue::drop` has switched the callback off.
        unsafe {
            let queue = NonNull::new(sys::rd_kafka_queue_get_partition(
                self.rk.as_ptr(),
                topic.as_ptr(),
                partition,
            ))?;
            sys::rd_kafka_queue_forward(queue.as_ptr(), ptr::null_mut());
            sys::rd_kafka_queue_cb_event_enable(
                queue.as_ptr(),
                Some(on_filled),
                Arc::as_ptr(&signal).cast_mut().cast(),
            );
            Some(Queue {
                queue,
                signal,
                _client: Arc::clone(self),
            })
        }
    }

    /// The cluster's id, or `None` when no broker told it in time.
    pub fn cluster_id(&self, timeout: Duration) -> Option<String> {
        // SAFETY: a live handle; the answer is copied and given back to librdkafka's allocator.
        unsafe {
            let id = NonNull::new(sys::rd_kafka_clusterid(self.rk.as_ptr(), millis(timeout)))?;
            let text = text_of(id.as_ptr());
            sys::rd_kafka_mem_free(self.rk.as_ptr(), id.as_ptr().cast());
            Some(text)
        }
    }

    /// Ids of the brokers, the one that answered first. Makes librdkafka learn the leaders of the topics it reads, too.
    fn brokers(&self, timeout: Duration, give_up: &dyn Fn() -> bool) -> Result<Vec<i32>, Failure> {
        let deadline = Instant::now() + timeout;
        let mut slice = LOOK_EVERY;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut metadata = ptr::null();
            // SAFETY: a live handle; on success the metadata is ours, and freed here.
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
            // A slow network needs longer than the first slices.
            slice = (slice * 2).min(Duration::from_secs(2));
        }
    }

    /// Asks for the topic's id and partitions. `give_up` is asked now and then while there is no answer.
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

    /// Any broker knows; librdkafka by itself would wait for the one that is the controller.
    fn describe_by(
        &self,
        broker: i32,
        topic: &CStr,
        timeout: Duration,
        give_up: &dyn Fn() -> bool,
    ) -> Result<Described, Failure> {
        let event = self.ask(
            sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS,
            timeout,
            give_up,
            // SAFETY: the collection copies the name, and is freed after the request took what it needs.
            |options, queue| unsafe {
                sys::rd_kafka_AdminOptions_set_broker(options, broker, ptr::null_mut(), 0);
                let mut names = [topic.as_ptr()];
                let topics =
                    sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
                sys::rd_kafka_DescribeTopics(self.rk.as_ptr(), topics, options, queue);
                sys::rd_kafka_TopicCollection_destroy(topics);
            },
        )?;
        // SAFETY: what the event returns lives as long as the event does, and is copied out of it here. The error
        // object belongs to the event.
        unsafe {
            let result = sys::rd_kafka_event_DescribeTopics_result(event.0.as_ptr());
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
            Ok(Described {
                topic_id,
                partitions,
            })
        }
    }

    /// Asks the leaders for offsets. `wanted` is what Kafka's ListOffsets takes: -2 for the first, -1 for the end, else
    /// a timestamp, for which -1 is answered when no record is that young. The end is the last stable offset when
    /// `committed`, else the high watermark.
    pub fn list_offsets(
        &self,
        topic: &CStr,
        wanted: &[(Partition, i64)],
        committed: bool,
        timeout: Duration,
        give_up: &dyn Fn() -> bool,
    ) -> Result<Vec<(Partition, Offset)>, Failure> {
        let list = List::of(topic, wanted.iter().copied());
        let level = if committed {
            sys::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_COMMITTED
        } else {
            sys::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_UNCOMMITTED
        };
        let event = self.ask(
            sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTOFFSETS,
            timeout,
            give_up,
            // SAFETY: the options are for this request, which accepts the setting; the list is copied.
            |options, queue| unsafe {
                let _ = Failure::check(sys::rd_kafka_AdminOptions_set_isolation_level(
                    options, level,
                ));
                sys::rd_kafka_ListOffsets(self.rk.as_ptr(), list.0.as_ptr(), options, queue);
            },
        )?;
        let mut offsets = Vec::with_capacity(wanted.len());
        // SAFETY: as in `describe`.
        unsafe {
            let result = sys::rd_kafka_event_ListOffsets_result(event.0.as_ptr());
            let mut count = 0;
            let infos = sys::rd_kafka_ListOffsets_result_infos(result, &raw mut count);
            for i in 0..count {
                let found = sys::rd_kafka_ListOffsetsResultInfo_topic_partition(*infos.add(i));
                match ptr::addr_of!((*found).err).cast::<i32>().read() {
                    // A leader that could not be asked has no error here, and librdkafka's "invalid" for an offset.
                    0 if (*found).offset < -1 => return Err(Failure::of_code(TRANSPORT)),
                    0 => offsets.push(((*found).partition, (*found).offset)),
                    code => return Err(Failure::of_code(code)),
                }
            }
        }
        Ok(offsets)
    }

    /// Sends the group's offsets and does not wait. Not `rd_kafka_commit`: one that waits for a coordinator holds up
    /// every later `assign`.
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
        // SAFETY: live handles; the request copies group and list.
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

    /// How earlier commits ended: calls `each` once for each that was answered since.
    pub fn commits_answered(&self, mut each: impl FnMut(Result<(), Failure>)) {
        loop {
            // SAFETY: a live queue that only commits reply to; the event is freed by its owner.
            let event = unsafe { sys::rd_kafka_queue_poll(self.commits, 0) };
            let Some(event) = NonNull::new(event).map(Event) else {
                return;
            };
            each(
                event
                    .failure()
                    .or_else(|| event.group_failure())
                    .map_or(Ok(()), Err),
            );
        }
    }

    /// Sends a request and waits for its answer.
    fn ask(
        &self,
        what: sys::rd_kafka_admin_op_t,
        timeout: Duration,
        give_up: &dyn Fn() -> bool,
        send: impl FnOnce(*mut sys::rd_kafka_AdminOptions_t, *mut sys::rd_kafka_queue_t),
    ) -> Result<Event, Failure> {
        let deadline = Instant::now() + timeout;
        let options = Options::new(self, what, timeout);
        // SAFETY: a live handle; `Answers` frees the queue, and an answer that comes later is dropped by librdkafka.
        let answers = Answers(unsafe { sys::rd_kafka_queue_new(self.rk.as_ptr()) });
        send(options.0.as_ptr(), answers.0);
        loop {
            // SAFETY: a live queue; the event is freed by its owner.
            let event = unsafe { sys::rd_kafka_queue_poll(answers.0, millis(LOOK_EVERY)) };
            self.serve();
            if let Some(event) = NonNull::new(event).map(Event) {
                return event.failure().map_or(Ok(event), Err);
            }
            if give_up() || Instant::now() >= deadline {
                return Err(Failure::of_code(TIMED_OUT));
            }
        }
    }
}

/// Rung by librdkafka's threads when a queue that was empty is no more.
#[derive(Default)]
pub struct Bell {
    rung: Mutex<bool>,
    heard: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.heard.notify_one();
    }

    /// Waits until it rings or the deadline has passed; whether it rang.
    pub fn wait(&self, deadline: Instant) -> bool {
        let mut rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        while !*rung {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            rung = self
                .heard
                .wait_timeout(rung, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        *rung = false;
        true
    }
}

struct Signal {
    /// The queue may have something: set by `on_filled`, taken back before the queue is read.
    ready: AtomicBool,
    bell: Arc<Bell>,
}

/// What is fetched of one topic partition.
pub struct Queue {
    queue: NonNull<sys::rd_kafka_queue_t>,
    signal: Arc<Signal>,
    _client: Arc<Client>,
}

// SAFETY: as `Client`.
unsafe impl Send for Queue {}

impl Queue {
    /// Whether something may be there.
    pub fn ready(&self) -> bool {
        self.signal.ready.load(Ordering::Acquire)
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: switching the callback off takes the queue's lock, under which it is called: the signal is not used
        // after that. The client is still alive.
        unsafe {
            sys::rd_kafka_queue_cb_event_enable(self.queue.as_ptr(), None, ptr::null_mut());
            sys::rd_kafka_queue_destroy(self.queue.as_ptr());
        }
    }
}

/// A buffer of messages, which are freed when it is filled again or dropped. One reader has one.
pub struct Messages {
    messages: Vec<*mut sys::rd_kafka_message_t>,
}

// SAFETY: messages belong to whoever holds them, on any thread.
unsafe impl Send for Messages {}

impl Messages {
    pub fn new() -> Self {
        Self {
            messages: Vec::with_capacity(BATCH_MAX_MESSAGES),
        }
    }

    /// Takes what is in the queue, without waiting, and up to a limit: then the queue stays ready.
    pub fn fill(&mut self, queue: &Queue) {
        self.clear();
        // Before the read: what comes during it is either read or sets the flag again.
        queue.signal.ready.store(false, Ordering::Release);
        // SAFETY: the buffer has room for that many pointers, and as many as are returned were written.
        unsafe {
            let count = sys::rd_kafka_consume_batch_queue(
                queue.queue.as_ptr(),
                0,
                self.messages.as_mut_ptr(),
                BATCH_MAX_MESSAGES,
            );
            self.messages.set_len(usize::try_from(count).unwrap_or(0));
        }
        if self.messages.len() == BATCH_MAX_MESSAGES {
            queue.signal.ready.store(true, Ordering::Release);
        }
    }

    /// Hands over runs of records, and each error between them, in order.
    pub fn each<'a>(&'a self, mut on: impl FnMut(Fetched<'a>)) {
        let mut rest = &self.messages[..];
        while let Some(&first) = rest.first() {
            // SAFETY: messages live until the buffer is filled again, which `&'a self` rules out.
            let records = rest
                .iter()
                .take_while(|m| unsafe { code_of(**m) } == 0)
                .count();
            if records > 0 {
                on(Fetched::Records(Records(&rest[..records])));
                rest = &rest[records..];
                continue;
            }
            // SAFETY: as above.
            let (code, offset, text) =
                unsafe { (code_of(first), (*first).offset, error_text(first)) };
            on(Fetched::Error {
                failure: Failure { code, text },
                offset,
            });
            rest = &rest[1..];
        }
    }

    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub fn clear(&mut self) {
        for message in self.messages.drain(..) {
            // SAFETY: each was returned to us once and is freed once.
            unsafe { sys::rd_kafka_message_destroy(message) };
        }
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        self.clear();
    }
}

/// A piece of what a queue had.
pub enum Fetched<'a> {
    Records(Records<'a>),
    /// The offset means what the code says; negative for none.
    Error {
        failure: Failure,
        offset: Offset,
    },
}

/// At least one record, borrowed from [`Messages`].
#[derive(Clone, Copy)]
pub struct Records<'a>(&'a [*mut sys::rd_kafka_message_t]);

impl Records<'_> {
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Offset and leader epoch (-1 when unknown) of the last record.
    pub fn last(&self) -> (Offset, i32) {
        let last = self.0[self.0.len() - 1];
        // SAFETY: see `Messages::each`.
        unsafe { ((*last).offset, sys::rd_kafka_message_leader_epoch(last)) }
    }

    /// Sum of the values' bytes.
    pub fn bytes(&self) -> usize {
        // SAFETY: see `Messages::each`.
        self.0
            .iter()
            .map(|message| unsafe { (**message).len })
            .sum()
    }
}

impl Batch for Records<'_> {
    fn each(&self, f: &mut dyn FnMut(Record<'_>)) {
        for &message in self.0 {
            // SAFETY: see `Messages::each`. A payload that is not null has that many bytes.
            let record = unsafe {
                let value = (!(*message).payload.is_null()).then(|| {
                    std::slice::from_raw_parts((*message).payload.cast::<u8>(), (*message).len)
                });
                let timestamp_ms = sys::rd_kafka_message_timestamp(message, ptr::null_mut());
                Record {
                    offset: (*message).offset,
                    timestamp_ms,
                    value,
                }
            };
            f(record);
        }
    }
}

/// An owned list of partitions of one topic.
struct List(NonNull<sys::rd_kafka_topic_partition_list_t>);

impl List {
    fn of(topic: &CStr, partitions: impl IntoIterator<Item = (Partition, Offset)>) -> Self {
        // SAFETY: a new list; the element is valid until the next is added.
        unsafe {
            let list = NonNull::new(sys::rd_kafka_topic_partition_list_new(1))
                .expect("librdkafka aborts without memory");
            for (partition, offset) in partitions {
                (*sys::rd_kafka_topic_partition_list_add(
                    list.as_ptr(),
                    topic.as_ptr(),
                    partition,
                ))
                .offset = offset;
            }
            Self(list)
        }
    }
}

impl Drop for List {
    fn drop(&mut self) {
        // SAFETY: ours, freed once.
        unsafe { sys::rd_kafka_topic_partition_list_destroy(self.0.as_ptr()) };
    }
}

struct Options(NonNull<sys::rd_kafka_AdminOptions_t>);

impl Options {
    fn new(client: &Client, what: sys::rd_kafka_admin_op_t, timeout: Duration) -> Self {
        // SAFETY: a live handle; the errors are not wanted, as the value is in the range that is allowed.
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

struct Answers(*mut sys::rd_kafka_queue_t);

impl Drop for Answers {
    fn drop(&mut self) {
        // SAFETY: ours, freed once.
        unsafe { sys::rd_kafka_queue_destroy(self.0) };
    }
}

struct Event(NonNull<sys::rd_kafka_event_t>);

impl Event {
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

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: ours, freed once.
        unsafe { sys::rd_kafka_event_destroy(self.0.as_ptr()) };
    }
}

/// # Safety
/// `conf` is a live configuration.
unsafe fn set(conf: *mut sys::rd_kafka_conf_t, name: &str, value: &str) -> bool {
    let (Ok(name), Ok(value)) = (CString::new(name), CString::new(value)) else {
        return false;
    };
    // SAFETY: two C strings, which librdkafka copies. Its text is left out: it may quote the value.
    let result =
        unsafe { sys::rd_kafka_conf_set(conf, name.as_ptr(), value.as_ptr(), ptr::null_mut(), 0) };
    result == sys::rd_kafka_conf_res_t::RD_KAFKA_CONF_OK
}

/// # Safety
/// `message` is alive.
unsafe fn code_of(message: *const sys::rd_kafka_message_t) -> i32 {
    // SAFETY: the field is a C enum, which is an `int`.
    unsafe { ptr::addr_of!((*message).err).cast::<i32>().read() }
}

/// # Safety
/// `message` is alive and has an error.
unsafe fn error_text(message: *const sys::rd_kafka_message_t) -> String {
    // SAFETY: it returns a string that lives as long as the message.
    text_of(unsafe { sys::rd_kafka_message_errstr(message) })
}

/// A copy of a C string, empty for null.
fn text_of(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: not null, and all who call this have it from librdkafka or libc: it ends in a zero byte.
    unsafe { CStr::from_ptr(text) }
        .to_string_lossy()
        .into_owned()
}

/// For librdkafka, where a negative number would mean for ever.
fn millis(time: Duration) -> c_int {
    c_int::try_from(time.as_millis()).unwrap_or(c_int::MAX)
}

unsafe extern "C" fn on_log(
    rk: *const sys::rd_kafka_t,
    level: c_int,
    facility: *const c_char,
    text: *const c_char,
) {
    if rk.is_null() {
        return;
    }
    // SAFETY: the opaque is what `Client::new` set, and alive as long as the client's threads are.
    let hooks = unsafe { &*sys::rd_kafka_opaque(rk).cast::<Arc<dyn Hooks>>() };
    hooks.log(level, &text_of(facility), &text_of(text));
}

unsafe extern "C" fn on_error(
    _rk: *mut sys::rd_kafka_t,
    code: c_int,
    text: *const c_char,
    opaque: *mut c_void,
) {
    // SAFETY: as in `on_log`.
    let hooks = unsafe { &*opaque.cast::<Arc<dyn Hooks>>() };
    hooks.error(code, &text_of(text));
}

/// Under the queue's lock: sets a flag, and wakes the reader.
unsafe extern "C" fn on_filled(_rk: *mut sys::rd_kafka_t, opaque: *mut c_void) {
    // SAFETY: the signal is alive until `Queue::drop` has switched this off.
    let signal = unsafe { &*opaque.cast::<Signal>() };
    signal.ready.store(true, Ordering::Release);
    signal.bell.ring();
}

/// `getaddrinfo` for each name until one resolves; and, as librdkafka has it, `freeaddrinfo` for a null node.
unsafe extern "C" fn on_resolve(
    node: *const c_char,
    service: *const c_char,
    hints: *const c_void,
    list: *mut *mut c_void,
    opaque: *mut c_void,
) -> c_int {
    // SAFETY: librdkafka hands over what getaddrinfo takes, and gives back the list that we gave it; the opaque is as
    // in `on_log`.
    unsafe {
        if node.is_null() {
            raw::freeaddrinfo(*list);
            return 0;
        }
        let hooks = &*opaque.cast::<Arc<dyn Hooks>>();
        let mut first = None;
        for name in hooks.names(&text_of(node)) {
            let Ok(name) = CString::new(name) else {
                continue;
            };
            match raw::getaddrinfo(name.as_ptr(), service, hints, list) {
                0 => return 0,
                code => first = first.or(Some(code)),
            }
        }
        first.unwrap_or(NO_SUCH_NAME)
    }
}
