//! librdkafka, called directly. All unsafe code of windrow is in this file and in the folder `ffi`,
//! except one line in `io/heap.rs`.
//! It owns the handles and frees them in the right order. What the answers mean is decided above.
//!
//! The safe crate is not used for reading: it has neither batch calls nor the resolve callback, and
//! its one event and one `Arc` for each record cost more than everything else together. These facts
//! about librdkafka 2.12.1 shape this file:
//!
//! - Partition queues are never *forwarded* to one common queue. librdkafka undoes the forwarding
//!   itself, some time after an unassign (`rd_kafka_toppar_fetch_stop`), so a partition that has
//!   been started again could be left unread.
//! - Each message carries the version of its partition's assignment. An unassign raises the version
//!   before it returns, and a batch call drops messages of older versions. So nothing from before a
//!   stop comes out after it.
//! - Nothing may subscribe to a topic: a batch call that meets a rebalance gives up the assignment.
//! - `rd_kafka_pause_partitions` is not used. After a batch call that returned the end of a
//!   partition, librdkafka would resume from that offset + 1, and a record would be lost. To pause
//!   a partition, its queue is simply not read.
//! - Error codes are read as integers, because a newer broker may send a code that the enum of the
//!   bindings does not have.
#![expect(unsafe_code, reason = "the one file that calls librdkafka itself")]

mod messages;
mod requests;

pub use messages::{Bell, Fetched, Messages, Queue};
use messages::{code_of, error_text};
use rdkafka_sys as sys;
pub use requests::EachOffset;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::Duration;
use windrow_core::values::record::{Offset, Partition};

/// Functions that are not in the bindings, or that the bindings give an enum as their type where a
/// code may come that the enum does not have.
mod raw {
    use super::{c_char, c_int, c_void, sys};

    /// The type of `getaddrinfo`. The lists are only passed on, so their layout does not matter.
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
/// An error as librdkafka gives it: a code (negative for its own, positive for the broker's) and a
/// text.
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

    /// Takes over librdkafka's error object and frees it; `Ok` when there is no error.
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

/// Why OpenSSL refuses a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// An `X509_V_ERR_...` of OpenSSL's `x509_vfy.h`; never 0, which means no error.
    pub code: i32,
    /// 0 for the broker's own certificate, 1 for the one that signed it, and so on.
    pub depth: i32,
}

/// What librdkafka's threads call. It must be quick and must not call librdkafka.
pub trait Hooks: Send + Sync {
    /// Takes a line of librdkafka's log. The levels are those of syslog.
    fn log(&self, level: i32, facility: &str, text: &str);
    /// Takes an error of the client as a whole. It is called by threads that serve, ask or read.
    fn error(&self, code: i32, text: &str);
    /// Takes why a broker's certificate, or one of those that signed it, is refused.
    fn refused_certificate(&self, why: Refused);
    /// The names to look up for a broker's host, in order, until one of them resolves.
    fn names(&self, host: &str) -> Vec<String>;
}

/// A consumer that is assigned topic partitions and never joins a group.
pub struct Client {
    rk: NonNull<sys::rd_kafka_t>,
    /// The answers to group commits arrive here. The next commit looks at them.
    commits: *mut sys::rd_kafka_queue_t,
    /// librdkafka's opaque pointer points to this. It is freed last, because librdkafka's threads
    /// use it until `rd_kafka_destroy` returns.
    _hooks: Box<Arc<dyn Hooks>>,
}

// SAFETY: librdkafka's handles may be used from any thread, and from several at once
// (INTRODUCTION.md, "Threads and callbacks"). Batch calls come from one thread at a time, because
// they need the `&mut Messages` of the one reader.
unsafe impl Send for Client {}
// SAFETY: as above.
unsafe impl Sync for Client {}

impl Drop for Client {
    fn drop(&mut self) {
        // SAFETY: queues and messages hold an `Arc` of this, so this is the last use. The consumer
        // is not closed: there is no group to leave, and closing would wait for a rebalance
        // callback that we do not have.
        unsafe {
            sys::rd_kafka_queue_destroy(self.commits);
            sys::rd_kafka_destroy_flags(
                self.rk.as_ptr(),
                sys::RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE,
            );
        }
    }
}

impl Client {
    /// Makes the client, which then connects in the background.
    ///
    /// # Errors
    /// librdkafka's text about a setting, or about all of them. Values of settings are not in it.
    pub fn new(settings: &[(&str, String)], hooks: Arc<dyn Hooks>) -> Result<Self, String> {
        let hooks = Box::new(hooks);
        let mut errors = [0 as c_char; 512];
        // SAFETY: the conf is ours until `rd_kafka_new` succeeds, and is freed on every other path.
        // The opaque outlives the client: see `Client::_hooks`.
        unsafe {
            let conf = sys::rd_kafka_conf_new();
            for (name, value) in settings {
                if !set_option(conf, name, value) {
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
            // It fails only in a librdkafka without TLS, which verifies nothing.
            let _ = sys::rd_kafka_conf_set_ssl_cert_verify_cb(conf, Some(on_certificate));
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

    /// Calls the error hook for the errors that have gathered. It is cheap, and any thread may do
    /// it.
    pub fn serve(&self) {
        // SAFETY: a live handle; the hooks that it calls are alive.
        unsafe { sys::rd_kafka_poll(self.rk.as_ptr(), 0) };
    }

    /// The next error of the consumer as a whole (of its group or of a topic), if there is one.
    pub fn next_failure(&self) -> Option<Failure> {
        // SAFETY: a live handle. No partition is forwarded to this queue and nothing is subscribed,
        // so whatever comes is an error; it is freed here.
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

    /// The error after which the client no longer works, if there was one.
    pub fn fatal(&self) -> Option<String> {
        let mut text = [0 as c_char; 512];
        // SAFETY: a live handle and a buffer of the given size. The enum that it returns is only
        // compared with 0.
        unsafe {
            let code = sys::rd_kafka_fatal_error(self.rk.as_ptr(), text.as_mut_ptr(), text.len());
            (code as i32 != 0).then(|| text_of(text.as_ptr()))
        }
    }

    /// Starts to fetch a topic partition. Call [`Client::queue`] before: otherwise its records go
    /// to a queue that nobody reads.
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

    /// Ends fetching. When it returns, everything that was fetched before is outdated.
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

    /// Makes librdkafka ask the leader whether its log has this leader epoch up to this offset,
    /// before it fetches on. `assign` alone takes the epoch and does not ask (KIP-320).
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

/// Whether librdkafka accepts the option.
///
/// # Safety
/// `conf` is a live configuration.
unsafe fn set_option(conf: *mut sys::rd_kafka_conf_t, name: &str, value: &str) -> bool {
    let (Ok(name), Ok(value)) = (CString::new(name), CString::new(value)) else {
        return false;
    };
    // SAFETY: two C strings, which librdkafka copies. Its text is left out, because it may quote
    // the value.
    let result =
        unsafe { sys::rd_kafka_conf_set(conf, name.as_ptr(), value.as_ptr(), ptr::null_mut(), 0) };
    result == sys::rd_kafka_conf_res_t::RD_KAFKA_CONF_OK
}

/// A copy of a C string, empty for null.
fn text_of(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: not null, and all callers have it from librdkafka or libc, so it ends in a zero byte.
    unsafe { CStr::from_ptr(text) }
        .to_string_lossy()
        .into_owned()
}

/// A time for librdkafka, where a negative number would mean for ever.
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
    // SAFETY: the opaque is what `Client::new` has set, and it lives as long as the client's
    // threads.
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

/// Tells why a certificate is refused: librdkafka's own errors only say that one is. It never
/// decides itself: the answer is always OpenSSL's.
unsafe extern "C" fn on_certificate(
    _rk: *mut sys::rd_kafka_t,
    _broker: *const c_char,
    _broker_id: i32,
    x509_error: *mut c_int,
    depth: c_int,
    _certificate: *const c_char,
    _certificate_bytes: usize,
    _text: *mut c_char,
    _text_bytes: usize,
    opaque: *mut c_void,
) -> c_int {
    // SAFETY: librdkafka passes the address of OpenSSL's result; the opaque is as in `on_log`.
    let (code, hooks) = unsafe { (*x509_error, &*opaque.cast::<Arc<dyn Hooks>>()) };
    if code != 0 {
        hooks.refused_certificate(Refused { code, depth });
    }
    c_int::from(code == 0)
}

/// Calls `getaddrinfo` for each name until one resolves. For a null node it calls `freeaddrinfo`:
/// librdkafka frees a list through the same callback.
unsafe extern "C" fn on_resolve(
    node: *const c_char,
    service: *const c_char,
    hints: *const c_void,
    list: *mut *mut c_void,
    opaque: *mut c_void,
) -> c_int {
    // SAFETY: librdkafka passes what getaddrinfo takes, and gives back the list that it got here;
    // the opaque is as in `on_log`.
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
