//! A Kafka inside of this process, for the demo and for tests, and a producer of records like those
//! of the use case. It is librdkafka's mock cluster, which has no logins and no rights, and keeps 5
//! MB or 100 000 batches of a topic partition.
#![expect(
    clippy::disallowed_methods,
    reason = "a producer stamps records with the machine's time"
)]

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use windrow_core::values::record::Partition;

/// How long records that were sent may take to arrive.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(30);

/// A cluster with one broker. It ends when this value is dropped.
pub struct MockKafka {
    cluster: MockCluster<'static, DefaultProducerContext>,
    producer: BaseProducer,
}

impl MockKafka {
    /// Starts the cluster with one topic.
    ///
    /// # Errors
    /// librdkafka's text.
    pub fn start(topic: &str, partitions: Partition) -> Result<Self, String> {
        let cluster =
            MockCluster::new(1).map_err(|e| format!("cannot start an in-process Kafka: {e}"))?;
        cluster
            .create_topic(topic, partitions, 1)
            .map_err(|e| format!("cannot create topic \"{topic}\": {e}"))?;
        let producer = producer(&cluster.bootstrap_servers())?;
        Ok(Self { cluster, producer })
    }

    /// The broker's address, as `host:port`.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        self.cluster.bootstrap_servers()
    }

    /// Adds a topic.
    ///
    /// # Errors
    /// librdkafka's text.
    pub fn create_topic(&self, topic: &str, partitions: Partition) -> Result<(), String> {
        self.cluster
            .create_topic(topic, partitions, 1)
            .map_err(|e| format!("cannot create topic \"{topic}\": {e}"))
    }

    /// Makes the cluster answer as if this topic did not exist. By itself a mock cluster creates
    /// each topic that it is asked for.
    ///
    /// # Errors
    /// librdkafka's text.
    #[cfg(test)]
    pub fn forbid(&self, topic: &str) -> Result<(), String> {
        self.cluster
            .topic_error(
                topic,
                rdkafka::types::RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART,
            )
            .map_err(|e| e.to_string())
    }

    /// Takes the leader of a topic partition away, or brings it back.
    ///
    /// # Errors
    /// librdkafka's text.
    #[cfg(test)]
    pub fn set_led(&self, topic: &str, partition: Partition, led: bool) -> Result<(), String> {
        self.cluster
            .partition_leader(topic, partition, led.then_some(1))
            .map_err(|e| e.to_string())
    }

    /// Takes the broker away, or brings it back.
    ///
    /// # Errors
    /// librdkafka's text.
    #[cfg(test)]
    pub fn set_up(&self, up: bool) -> Result<(), String> {
        if up {
            self.cluster.broker_up(1)
        } else {
            self.cluster.broker_down(1)
        }
        .map_err(|e| e.to_string())
    }

    /// Sends records, each as timestamp (ms since 1970) and value, to a topic partition. They have
    /// arrived when this returns.
    ///
    /// # Errors
    /// librdkafka's text. Some of the records may have arrived.
    pub fn send<'a>(
        &self,
        topic: &str,
        partition: Partition,
        records: impl IntoIterator<Item = (i64, Option<&'a [u8]>)>,
    ) -> Result<(), String> {
        for (timestamp_ms, value) in records {
            push(&self.producer, topic, partition, timestamp_ms, value)?;
        }
        self.producer
            .flush(FLUSH_TIMEOUT)
            .map_err(|e| format!("cannot send to topic \"{topic}\": {e}"))
    }
}

fn producer(bootstrap: &str) -> Result<BaseProducer, String> {
    ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("client.id", "windrow-demo")
        .set("linger.ms", "5")
        .create()
        .map_err(|e| format!("cannot make a producer for Kafka \"{bootstrap}\": {e}"))
}

/// Hands a record to the producer, and waits while the producer's queue is full.
fn push(
    producer: &BaseProducer,
    topic: &str,
    partition: Partition,
    timestamp_ms: i64,
    value: Option<&[u8]>,
) -> Result<(), String> {
    loop {
        let mut record = BaseRecord::<(), [u8]>::to(topic)
            .partition(partition)
            .timestamp(timestamp_ms);
        record.payload = value;
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                producer.poll(Duration::from_millis(10));
            }
            Err((e, _)) => return Err(format!("cannot send to topic \"{topic}\": {e}")),
        }
    }
}

/// The kinds of demo records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DemoKind {
    /// As the use case has them.
    Good,
    /// Like a good one, but half a minute old.
    Late,
    /// Not JSON.
    Broken,
    /// JSON without an origin.
    NoOrigin,
}

/// How many demo records were sent, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DemoSent {
    /// Records of [`DemoKind::Good`].
    pub good: u64,
    /// Records of [`DemoKind::Late`].
    pub late: u64,
    /// Records of [`DemoKind::Broken`].
    pub broken: u64,
    /// Records of [`DemoKind::NoOrigin`].
    pub no_origin: u64,
}

impl DemoSent {
    fn add(&mut self, kind: DemoKind) {
        *match kind {
            DemoKind::Good => &mut self.good,
            DemoKind::Late => &mut self.late,
            DemoKind::Broken => &mut self.broken,
            DemoKind::NoOrigin => &mut self.no_origin,
        } += 1;
    }

    /// Records of all kinds.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.good + self.late + self.broken + self.no_origin
    }
}

/// One record of the demo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DemoRecord {
    /// What kind of record it is.
    pub kind: DemoKind,
    /// The topic partition that it is sent to.
    pub partition: Partition,
    /// The Kafka timestamp, in ms since 1970.
    pub timestamp_ms: i64,
    /// The value; the record has no key.
    pub value: Vec<u8>,
}

/// The `index`-th record of the demo with this seed, sent at `now_ms`, in the format of
/// kafka-test-app. Of 100 records about 3 are late, 1 is broken, and 1 has no origin.
#[must_use]
pub fn demo_record(
    seed: u64,
    index: u64,
    origins: u32,
    partitions: Partition,
    now_ms: i64,
) -> DemoRecord {
    let dice = mix(seed ^ mix(index));
    let kind = match dice % 100 {
        0..=2 => DemoKind::Late,
        3 => DemoKind::Broken,
        4 => DemoKind::NoOrigin,
        _ => DemoKind::Good,
    };
    let origin = (mix(dice) % u64::from(origins.max(1))) as u32;
    let timestamp_ms = if kind == DemoKind::Late {
        now_ms - 30_000
    } else {
        now_ms
    };
    let (seconds, millis) = (timestamp_ms.div_euclid(1000), timestamp_ms.rem_euclid(1000));
    let id = (u128::from(dice) << 64) | u128::from(mix(dice ^ 1));
    let fields = format!(r#""timestamp": {seconds}.{millis:03}, "_id": "{id:032x}""#);
    let origin = format!(
        r#""origin": "producer-{origin} (10.1.{}.{})""#,
        63 + origin / 250,
        1 + origin % 250
    );
    let value = match kind {
        DemoKind::Broken => format!("Message #{index} is not JSON"),
        DemoKind::NoOrigin => {
            format!(r#"{{{fields}, "content": "Message #{index}"}}"#)
        }
        DemoKind::Good | DemoKind::Late => {
            format!(r#"{{{fields}, {origin}, "content": "Message #{index}"}}"#)
        }
    };
    let partition = (index % u64::from(partitions.max(1).unsigned_abs())) as Partition;
    DemoRecord {
        kind,
        partition,
        timestamp_ms,
        value: value.into_bytes(),
    }
}

/// `SplitMix64` (Steele, Lea, Flood 2014): a number that is as good as random here, and the same on
/// every machine.
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// What the demo sends.
#[derive(Clone, Debug)]
pub struct Demo {
    /// The broker's address, as `host:port`.
    pub bootstrap: String,
    /// The topic that the records are sent to.
    pub topic: String,
    /// How many partitions the topic has.
    pub partitions: Partition,
    /// How many origins the records have.
    pub origins: u32,
    /// Records a second.
    pub rate: u32,
    /// Decides what the records are: the same seed gives the same records.
    pub seed: u64,
}

/// Sends demo records, from a thread of its own, until it is stopped.
pub struct DemoProducer {
    stop: Arc<AtomicBool>,
    sent: Arc<Mutex<DemoSent>>,
    thread: Option<JoinHandle<Result<(), String>>>,
}

impl DemoProducer {
    /// Starts to send.
    ///
    /// # Errors
    /// librdkafka's text on the bootstrap address.
    pub fn start(demo: Demo) -> Result<Self, String> {
        let producer = producer(&demo.bootstrap)?;
        let (stop, sent) = (
            Arc::new(AtomicBool::new(false)),
            Arc::<Mutex<DemoSent>>::default(),
        );
        let (stopped, counts) = (Arc::clone(&stop), Arc::clone(&sent));
        let thread = std::thread::Builder::new()
            .name("demo-producer".to_owned())
            .spawn(move || run(&demo, &producer, &stopped, &counts))
            .map_err(|e| format!("cannot start a thread: {e}"))?;
        Ok(Self {
            stop,
            sent,
            thread: Some(thread),
        })
    }

    /// How many records were handed to Kafka's client so far.
    #[must_use]
    pub fn sent(&self) -> DemoSent {
        *self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops, waits until all records have arrived, and says how many there are.
    ///
    /// # Errors
    /// librdkafka's text. Some of the records may not have arrived.
    pub fn stop(mut self) -> Result<DemoSent, String> {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread
                .join()
                .map_err(|_| "the demo's producer panicked".to_owned())??;
        }
        Ok(self.sent())
    }
}

impl Drop for DemoProducer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

fn run(
    demo: &Demo,
    producer: &BaseProducer,
    stop: &AtomicBool,
    sent: &Mutex<DemoSent>,
) -> Result<(), String> {
    let begin = Instant::now();
    let mut index = 0;
    while !stop.load(Ordering::Acquire) {
        let due = (begin.elapsed().as_secs_f64() * f64::from(demo.rate)) as u64;
        while index < due && !stop.load(Ordering::Acquire) {
            let now = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default();
            let now_ms = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
            let record = demo_record(demo.seed, index, demo.origins, demo.partitions, now_ms);
            push(
                producer,
                &demo.topic,
                record.partition,
                record.timestamp_ms,
                Some(&record.value),
            )?;
            sent.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .add(record.kind);
            index += 1;
        }
        producer.poll(Duration::from_millis(10));
    }
    producer
        .flush(FLUSH_TIMEOUT)
        .map_err(|e| format!("cannot send to topic \"{}\": {e}", demo.topic))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn demo_records_are_the_same_for_a_seed() {
        let all = |seed| {
            (0..1000)
                .map(|i| demo_record(seed, i, 3, 2, 1_725_184_800_123))
                .collect::<Vec<_>>()
        };
        assert_eq!(all(7), all(7));
        assert_ne!(all(7), all(8));
        let mut sent = DemoSent::default();
        for record in all(7) {
            sent.add(record.kind);
            let json = serde_json::from_slice::<serde_json::Value>(&record.value);
            assert_eq!(json.is_err(), record.kind == DemoKind::Broken);
            if let Ok(json) = json {
                assert_eq!(
                    json.get("origin").is_none(),
                    record.kind == DemoKind::NoOrigin
                );
                assert_eq!(
                    json["timestamp"].as_f64(),
                    Some(record.timestamp_ms as f64 / 1000.0)
                );
            }
        }
        assert_eq!(sent.total(), 1000);
        assert!(
            sent.late > 10 && sent.broken > 2 && sent.no_origin > 2,
            "{sent:?}"
        );
    }

    #[test]
    fn a_demo_record_looks_like_the_use_case() {
        let record = (0..)
            .map(|i| demo_record(1, i, 1, 1, 1_725_184_800_123))
            .find(|r| r.kind == DemoKind::Good);
        let text = String::from_utf8(record.expect("most are good").value).expect("text");
        assert!(
            text.starts_with(r#"{"timestamp": 1725184800.123, "_id": ""#),
            "{text}"
        );
        assert!(
            text.contains(r#"", "origin": "producer-0 (10.1.63.1)", "content": "Message #"#),
            "{text}"
        );
    }
}
