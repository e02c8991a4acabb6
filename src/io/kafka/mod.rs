//! The Kafka source: it reads topic partitions in batches, and asks brokers questions.
//! It decides nothing: the caller keeps the offsets, only connections are retried, and no record is
//! looked into.
//!
//! [`open`] makes the two halves of one client. [`Brokers`] asks brokers; it may block, and any
//! thread may use it. [`Reader`] hands over what was fetched, to one thread.
#![expect(
    clippy::disallowed_methods,
    reason = "the edge that waits for brokers, with deadlines"
)]

mod read;
mod turns;
mod brokers;
mod errors;
mod ffi;
pub mod mock;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod fake_broker;

pub use brokers::Brokers;
pub use errors::KafkaError;
pub use read::Reader;

use crate::io::roots::mozilla_pem;
use errors::ClientErrors;
use ffi::Client;
use std::ffi::{CStr, CString};
use std::net::IpAddr;
use std::sync::Arc;
use windrow_core::settings::config::{KafkaSettings, Secret, Security};
use windrow_core::settings::parse::join_addresses;
use windrow_core::values::record::{Batch, Offset, Partition};

/// What librdkafka needs for each message in addition to the message's own bytes.
const MESSAGE_BYTES: u64 = 300;
/// A client that does not know the topic yet is ready for this many topic partitions, so that small
/// topics need no second client.
const PARTITIONS_AT_FIRST: usize = 8;
/// A fetch returns at most so many bytes, unless a single record batch is larger.
const FETCH_MAX_BYTES: u64 = 8 << 20;
/// A larger response is refused, and so is a larger record batch. Kafka's own default for the size
/// of a batch is 1 MB.
const RESPONSE_MAX_BYTES: usize = 256 << 20;

/// How to reach one topic.
#[derive(Clone, Debug)]
pub struct KafkaConfig {
    /// Where the brokers are, and how to log in.
    pub settings: KafkaSettings,
    /// The name of the topic.
    pub topic: String,
    /// Ignored without SASL.
    pub username: String,
    /// Ignored without SASL.
    pub password: Secret,
    /// The group whose offsets are committed for tools that show lag. No group is ever joined, but
    /// Kafka wants the right Read on it all the same.
    pub group: String,
    /// CA certificates in PEM, which are trusted in addition to Mozilla's.
    pub ca_pem: Option<String>,
    /// How much memory what is fetched and not yet read may take, in bytes, over all topic
    /// partitions.
    pub fetched_bytes: u64,
    /// How many topic partitions the client is ready for: they share `fetched_bytes`. Zero when
    /// that is unknown.
    pub partitions: usize,
}

impl KafkaConfig {
    /// Takes note of how many topic partitions the topic has. Returns whether a new client must be
    /// made, because this one would let each of them have too much memory.
    pub fn share_out(&mut self, partitions: usize) -> bool {
        let more = partitions > self.partitions.max(PARTITIONS_AT_FIRST);
        if more {
            // A topic that grows one by one needs a new client only when it has doubled.
            self.partitions = partitions.next_power_of_two();
        }
        more
    }

    /// The same with another login; `None` where it is the login that is used already.
    #[must_use]
    pub fn with_login(&self, username: String, password: Secret) -> Option<Self> {
        let is_new = username != self.username || password != self.password;
        is_new.then(|| Self {
            username,
            password,
            ..self.clone()
        })
    }

    /// The servers to ask first, as librdkafka takes them: `host:port,host:port`.
    fn bootstrap(&self) -> String {
        join_addresses(&self.settings.bootstrap)
    }
}

/// What brokers say about the topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicInfo {
    /// Kafka's id of the cluster; empty when no broker has told it in time.
    pub cluster_id: String,
    /// Kafka's id of the topic. When it changes, the topic was deleted and created again. It is
    /// empty where brokers are too old to tell it (before 2.8).
    pub topic_id: String,
    /// The numbers of the topic partitions, in order.
    pub partitions: Vec<Partition>,
    /// Those of them that have no leader, so that nobody can read them or tell their offsets.
    pub leaderless: Vec<Partition>,
}

/// A place in a topic partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// The first record that is still there.
    Earliest,
    /// The last stable offset.
    Latest,
}

/// The limits of a topic partition, as its leader has told them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// The first offset that is still there.
    pub log_start: Offset,
    /// The last stable offset: no open transaction has begun below it, so offsets below it no
    /// longer change.
    pub last_stable: Offset,
    /// The end offset.
    pub high_watermark: Offset,
}

/// What the [`Reader`] hands over, in the order of each topic partition's log.
pub enum Event<'a> {
    /// At least one record. Offsets between batches that never come are gaps: control records,
    /// records of aborted transactions, and records that compaction has removed.
    Batch {
        /// Where the records are from.
        partition: Partition,
        /// The leader epoch of the last record; -1 when unknown.
        leader_epoch: i32,
        /// The records themselves.
        batch: &'a dyn Batch,
        /// How many records there are.
        records: usize,
        /// The sum of the values' bytes.
        bytes: usize,
        /// The offset after the last record. An [`Event::End`] may show later that the next record
        /// is further on.
        next_offset: Offset,
    },
    /// A fetch has found nothing more that is stable.
    End {
        /// Where nothing more is.
        partition: Partition,
        /// All offsets below this one were handed over or are gaps.
        next_offset: Offset,
    },
    /// The offset to read is not in the log, or not any more. Nothing more comes until the next
    /// start. Before this counts as a loss of data, compare with [`Brokers::end`] and the topic's
    /// id.
    OutOfRange {
        /// Where the offset is missing.
        partition: Partition,
        /// The offset that should be read next.
        offset: Offset,
    },
    /// The log was cut off below the offset to read and written anew from there: a new leader was
    /// elected that did not have all records. Nothing more comes until the next start.
    Truncated {
        /// Where the log was cut off.
        partition: Partition,
        /// The first offset that is not what it was; `None` when the broker cannot tell.
        cut_at: Option<Offset>,
        /// librdkafka's text.
        why: String,
    },
    /// Something hinders reading. When it is over, reading goes on by itself, except after
    /// [`KafkaError::Damaged`]: then nothing more comes until the next start, and it is reported
    /// after each start. Any other problem is not reported again for half a minute.
    Problem {
        /// `None` when it concerns all topic partitions.
        partition: Option<Partition>,
        /// What hinders.
        what: KafkaError,
    },
}

/// Gives the names to look up for a host, in order.
type Names = dyn Fn(&str) -> Vec<String> + Send + Sync;

/// Makes a client, which then connects in the background.
///
/// # Errors
/// librdkafka refuses a setting, such as a CA that is not PEM. A person must correct it.
pub fn open(config: &KafkaConfig) -> Result<(Brokers, Reader), KafkaError> {
    let (namespace, domain) = (
        config.settings.namespace.clone(),
        config.settings.cluster_domain.clone(),
    );
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
    // Without this check a text without any certificate would pass: librdkafka takes all that
    // stands before the first certificate for a comment.
    if let Some(pem) = &config.ca_pem
        && !pem.contains("-----BEGIN CERTIFICATE-----")
    {
        return Err(KafkaError::Other(format!(
            "cannot use the CA for Kafka \"{}\": no certificate in it; give it in PEM",
            config.bootstrap()
        )));
    }
    let errors = Arc::new(ClientErrors::new(config, names));
    let hooks = Arc::<ClientErrors>::clone(&errors);
    let client = Client::new(&client_options(config), hooks).map_err(|why| {
        KafkaError::Other(format!(
            "cannot make a client for Kafka \"{}\": {}",
            config.bootstrap(),
            errors.redact(&why)
        ))
    })?;
    let client = Arc::new(client);
    let topic: Arc<CStr> = c_text("topic", &config.topic)?.into();
    let group: Arc<CStr> = c_text("group", &config.group)?.into();
    let reader = Reader::new(
        Arc::clone(&client),
        Arc::clone(&errors),
        Arc::clone(&topic),
        config.fetched_bytes,
    );
    Ok((Brokers::new(client, errors, topic, group), reader))
}

/// The names to look up for a broker's host: the host itself, and the host with the suffix of the
/// namespace when it is short. TLS still checks the short name.
///
/// Example: Kafka advertises `pod.service` inside of its own namespace `kafka`. From another
/// namespace it resolves as `pod.service.kafka.svc.cluster.local`.
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

/// The limits of the queue that each topic partition has of its own.
#[derive(Clone, Copy, Debug)]
struct QueueLimits {
    /// With so much in the queue nothing more is fetched.
    kbytes: u64,
    /// The same as a number of messages.
    messages: u64,
    /// One fetch, which may come on top. A record batch that is larger comes as a whole.
    fetch_bytes: u64,
}

/// Shares out `fetched_bytes`. Of its share, a topic partition has a quarter for the bytes in its
/// queue, a quarter for what librdkafka adds to each message, and a half for one more fetch: an
/// eighth for its bytes, times four, because records of 100 bytes need 400 in memory.
///
/// Compressed batches take more: their size counts once they are unpacked, and a batch is never
/// read by halves.
///
/// Example: `max-memory` is 512 MiB, of which a sixteenth is for what is fetched. Each of 8 topic
/// partitions has 4 MiB. Of 1,024 topic partitions each has 32 KiB.
fn queue(config: &KafkaConfig) -> QueueLimits {
    let partitions = config.partitions.max(PARTITIONS_AT_FIRST) as u64;
    let share = config.fetched_bytes / partitions;
    QueueLimits {
        kbytes: (share / 4 / 1024).clamp(1, 4096),
        messages: (share / 4 / MESSAGE_BYTES).clamp(1, 20_000),
        fetch_bytes: (share / 8).clamp(1024, 1 << 20),
    }
}

/// The options of librdkafka.
fn client_options(config: &KafkaConfig) -> Vec<(&'static str, String)> {
    let queue = queue(config);
    // librdkafka wants at least the size of one batch here.
    let fetch_max = (config.fetched_bytes / 4).clamp(1 << 20, FETCH_MAX_BYTES);
    let mut options: Vec<(&'static str, String)> = [
        ("client.id", "windrow"),
        ("enable.partition.eof", "true"),
        ("auto.offset.reset", "error"),
        ("isolation.level", "read_committed"),
        ("check.crcs", "true"),
        ("enable.auto.commit", "false"),
        ("enable.auto.offset.store", "false"),
        ("allow.auto.create.topics", "false"),
        ("enable.metrics.push", "false"),
        // With the default of one second, a reader that is slower than the broker would stall.
        ("fetch.queue.backoff.ms", "5"),
        // A topic partition that is woken (see `turns`) is not in the request that waits at the
        // broker. With the default of half a second, each turn would begin so late.
        ("fetch.wait.max.ms", "50"),
        ("reconnect.backoff.ms", "100"),
        ("reconnect.backoff.max.ms", "5000"),
        ("socket.keepalive.enable", "true"),
        ("socket.connection.setup.timeout.ms", "10000"),
        ("topic.metadata.refresh.interval.ms", "60000"),
        // For this time a topic that a broker does not know counts as one that is new to it.
        ("topic.metadata.propagation.max.ms", "5000"),
        ("log.connection.close", "false"),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .into();
    options.extend([
        ("bootstrap.servers", config.bootstrap()),
        ("group.id", config.group.clone()),
        ("queued.max.messages.kbytes", queue.kbytes.to_string()),
        ("queued.min.messages", queue.messages.to_string()),
        ("fetch.message.max.bytes", queue.fetch_bytes.to_string()),
        ("fetch.max.bytes", fetch_max.to_string()),
        ("receive.message.max.bytes", RESPONSE_MAX_BYTES.to_string()),
    ]);
    options.push((
        "security.protocol",
        config.settings.security.protocol().to_owned(),
    ));
    if config.settings.security.logs_in() {
        options.push((
            "sasl.mechanism",
            config.settings.mechanism.name().to_owned(),
        ));
        options.push(("sasl.username", config.username.clone()));
        options.push(("sasl.password", config.password.expose().to_owned()));
    }
    if matches!(config.settings.security, Security::Ssl | Security::SaslSsl) {
        options.push(("ssl.ca.pem", trusted_pem(config.ca_pem.as_deref())));
    }
    options
}

/// The given CA certificates and Mozilla's, which do not depend on the image of the container.
fn trusted_pem(given: Option<&str>) -> String {
    match given {
        Some(given) => format!("{}\n{}", given.trim_end(), mozilla_pem()),
        None => mozilla_pem(),
    }
}
