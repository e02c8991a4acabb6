//! What librdkafka has fetched: the queue of each topic partition, and the messages in it.

use super::{Client, Failure, sys, text_of};
use std::ffi::{CStr, c_void};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;
use windrow_core::values::record::{Batch, Offset, Partition, Record};

/// The most messages that one batch call returns. Batches of 100 and of 10 000 messages cost the
/// same for each message.
const BATCH_MAX_MESSAGES: usize = 2048;

impl Client {
    /// The queue from which the messages and errors of a topic partition are read, once it is
    /// assigned. `None` when librdkafka has no such queue.
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
        // SAFETY: a live handle. Forwarding to null marks the queue as ours, so that `assign` does
        // not forward it. The signal lives until `Queue::drop` has switched off the callback.
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
}

/// Wakes the reader: librdkafka's threads ring it when something comes into an empty queue.
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

    /// Waits until it rings or the deadline has passed. Says whether it has rung.
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
    /// The queue may have something. `on_filled` sets this, and it is cleared before the queue is
    /// read.
    ready: AtomicBool,
    bell: Arc<Bell>,
}

/// What was fetched of one topic partition.
pub struct Queue {
    queue: NonNull<sys::rd_kafka_queue_t>,
    signal: Arc<Signal>,
    _client: Arc<Client>,
}

// SAFETY: as `Client`.
unsafe impl Send for Queue {}

impl Queue {
    /// Whether there may be something to read.
    pub fn ready(&self) -> bool {
        self.signal.ready.load(Ordering::Acquire)
    }

    /// How many messages and errors are in it, those included that an unassign has outdated.
    pub fn len(&self) -> usize {
        // SAFETY: a live queue.
        unsafe { sys::rd_kafka_queue_length(self.queue.as_ptr()) }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: switching off the callback takes the queue's lock, and the callback is called
        // under that lock. So the signal is not used any more afterwards. The client is still
        // alive.
        unsafe {
            sys::rd_kafka_queue_cb_event_enable(self.queue.as_ptr(), None, ptr::null_mut());
            sys::rd_kafka_queue_destroy(self.queue.as_ptr());
        }
    }
}

/// A buffer of messages. They are freed when it is filled again or dropped. A reader has one
/// buffer.
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

    /// Takes what is in the queue, without waiting, up to a limit. When the limit is reached, the
    /// queue stays ready.
    pub fn fill(&mut self, queue: &Queue) {
        self.clear();
        // This comes before the read: what arrives during the read is either read or sets the flag
        // again.
        queue.signal.ready.store(false, Ordering::Release);
        // SAFETY: the buffer has room for that many pointers, and librdkafka has written as many as
        // it returns.
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

    /// Hands over the records in runs, and each error between them, in order.
    pub fn each<'a>(&'a self, mut on: impl FnMut(Fetched<'a>)) {
        let mut rest = &self.messages[..];
        while let Some(&first) = rest.first() {
            // SAFETY: messages live until the buffer is filled again, which `&'a self` prevents.
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

    /// The leader epoch of the first record, -1 when unknown; `None` where no record is.
    pub fn first_leader_epoch(&self) -> Option<i32> {
        // SAFETY: as in `each`.
        self.messages
            .iter()
            .find(|message| unsafe { code_of(**message) } == 0)
            .map(|message| unsafe { sys::rd_kafka_message_leader_epoch(*message) })
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
    /// The meaning of the offset depends on the code; it is negative where there is none.
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

    /// The offset and the leader epoch (-1 when unknown) of the last record.
    pub fn last(&self) -> (Offset, i32) {
        let last = self.0[self.0.len() - 1];
        // SAFETY: see `Messages::each`.
        unsafe { ((*last).offset, sys::rd_kafka_message_leader_epoch(last)) }
    }

    /// The sum of the values' bytes.
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

/// # Safety
/// `message` is alive.
pub(super) unsafe fn code_of(message: *const sys::rd_kafka_message_t) -> i32 {
    // SAFETY: the field is a C enum, which is an `int`.
    unsafe { ptr::addr_of!((*message).err).cast::<i32>().read() }
}

/// # Safety
/// `message` is alive and has an error.
pub(super) unsafe fn error_text(message: *const sys::rd_kafka_message_t) -> String {
    // SAFETY: it returns a string that lives as long as the message.
    text_of(unsafe { sys::rd_kafka_message_errstr(message) })
}

/// Sets a flag and wakes the reader. It is called under the queue's lock.
unsafe extern "C" fn on_filled(_rk: *mut sys::rd_kafka_t, opaque: *mut c_void) {
    // SAFETY: the signal lives until `Queue::drop` has switched off this callback.
    let signal = unsafe { &*opaque.cast::<Signal>() };
    signal.ready.store(true, Ordering::Release);
    signal.bell.ring();
}
