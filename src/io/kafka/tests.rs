//! The source against librdkafka's mock cluster, and (ignored) against a real Kafka.

use super::errors::cause;
use super::*;
use crate::io::kafka::mock::{Demo, DemoProducer, MockKafka};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use windrow_core::settings::config::{Mechanism, Start};
use windrow_core::settings::parse::HostPort;

const PATIENCE: Duration = Duration::from_secs(20);
const STEP: Duration = Duration::from_millis(200);

fn servers(text: &str) -> Vec<HostPort> {
    let servers = text.split(',').map(|server| server.parse());
    servers.collect::<Result<_, _>>().expect("HOST:PORT")
}

fn plain(bootstrap: &str, topic: &str) -> KafkaConfig {
    KafkaConfig {
        settings: KafkaSettings {
            bootstrap: servers(bootstrap),
            security: Security::Plaintext,
            mechanism: Mechanism::ScramSha512,
            group_prefix: String::new(),
            namespace: None,
            cluster_domain: "cluster.local".to_owned(),
            ca_file: None,
            start: Start::Earliest,
        },
        topic: topic.to_owned(),
        username: String::new(),
        password: Secret::default(),
        group: "windrow-test".to_owned(),
        ca_pem: None,
        fetched_bytes: 32 << 20,
        partitions: 3,
    }
}

/// What a reader handed over of one topic partition.
#[derive(Debug, Default, PartialEq, Eq)]
struct Observation {
    /// Offset, timestamp, value.
    records: Vec<(Offset, i64, Option<Vec<u8>>)>,
    ends: Vec<Offset>,
    out_of_range: Vec<Offset>,
    truncated: usize,
    cut_at: Option<Offset>,
}

#[derive(Debug, Default)]
struct Log {
    seen: BTreeMap<Partition, Observation>,
    problems: Vec<KafkaError>,
}

impl Log {
    /// Polls until `done`.
    fn read(&mut self, reader: &mut Reader, mut done: impl FnMut(&Log) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < deadline, "in vain: {self:?}");
            self.poll(reader, STEP);
        }
    }

    fn poll(&mut self, reader: &mut Reader, timeout: Duration) {
        reader
            .poll(timeout, &mut |event| self.add(event))
            .expect("the client goes on");
    }

    fn add(&mut self, event: Event<'_>) {
        match event {
            Event::Batch {
                partition,
                batch,
                records,
                bytes,
                next_offset,
                ..
            } => {
                let seen = &mut self.seen.entry(partition).or_default().records;
                let before = seen.len();
                batch.each(&mut |r| {
                    seen.push((r.offset, r.timestamp_ms, r.value.map(<[u8]>::to_vec)))
                });
                assert_eq!(seen.len() - before, records);
                assert_eq!(
                    seen[before..]
                        .iter()
                        .filter_map(|r| r.2.as_ref())
                        .map(Vec::len)
                        .sum::<usize>(),
                    bytes
                );
                assert_eq!(seen.last().map(|r| r.0 + 1), Some(next_offset));
                assert!(seen[before..].is_sorted_by_key(|r| r.0));
            }
            Event::End {
                partition,
                next_offset,
            } => self
                .seen
                .entry(partition)
                .or_default()
                .ends
                .push(next_offset),
            Event::OutOfRange { partition, offset } => {
                self.seen
                    .entry(partition)
                    .or_default()
                    .out_of_range
                    .push(offset);
            }
            Event::Truncated {
                partition, cut_at, ..
            } => {
                let seen = self.seen.entry(partition).or_default();
                seen.truncated += 1;
                seen.cut_at = cut_at;
            }
            Event::Problem { what, .. } => self.problems.push(what),
        }
    }

    fn offsets(&self, partition: Partition) -> Vec<Offset> {
        self.seen
            .get(&partition)
            .map(|s| s.records.iter().map(|r| r.0).collect())
            .unwrap_or_default()
    }

    fn last_end(&self, partition: Partition) -> Option<Offset> {
        self.seen
            .get(&partition)
            .and_then(|s| s.ends.last().copied())
    }
}

/// Values `prefix 0`, `prefix 1` …, a millisecond apart.
fn send(kafka: &MockKafka, topic: &str, partition: Partition, range: std::ops::Range<i64>) {
    let values: Vec<_> = range.clone().map(|i| format!("value {i}")).collect();
    kafka
        .send(
            topic,
            partition,
            range
                .zip(&values)
                .map(|(i, v)| (1_000 + i, Some(v.as_bytes()))),
        )
        .expect("sent");
}

#[test]
fn a_topic_partition_without_a_leader_does_not_hide_the_limits_of_the_others() {
    let kafka = MockKafka::start("t", 3).expect("a mock cluster");
    let value: &[u8] = b"{}";
    kafka.send("t", 2, [(1, Some(value))]).expect("sent");
    kafka.set_led("t", 1, false).expect("the mock does as told");
    let (consumer, _reader) = open(&plain(&kafka.bootstrap(), "t")).expect("a client");
    let topic = consumer.topic(PATIENCE).expect("the topic is there");
    assert_eq!(
        (&topic.partitions[..], &topic.leaderless[..]),
        (&[0, 1, 2][..], &[1][..])
    );
    let limits = consumer
        .limits(&topic, PATIENCE)
        .expect("the others answer");
    assert_eq!(limits[&0], Ok((0, 0)));
    assert_eq!(limits[&1], Err("it has no leader".to_owned()));
    assert_eq!(limits[&2], Ok((0, 1)));
}

#[test]
fn all_records_of_all_partitions_come_in_order_and_then_the_end() {
    let kafka = MockKafka::start("t", 3).expect("a mock cluster");
    for partition in 0..3 {
        send(&kafka, "t", partition, 0..5_000);
    }
    let (consumer, mut reader) = open(&plain(&kafka.bootstrap(), "t")).expect("a client");
    let info = consumer.topic(PATIENCE).expect("a topic");
    assert_eq!(info.partitions, [0, 1, 2]);
    assert!(!info.cluster_id.is_empty());
    let first = consumer
        .offsets(&[0, 1, 2], At::Earliest, PATIENCE)
        .expect("offsets");
    assert_eq!(first, BTreeMap::from([(0, 0), (1, 0), (2, 0)]));
    let end = consumer.end(1, PATIENCE).expect("an end");
    assert_eq!(
        end,
        End {
            log_start: 0,
            last_stable: 5_000,
            high_watermark: 5_000
        }
    );

    let mut log = Log::default();
    for (partition, offset) in [(0, 0), (1, 4_000), (2, 0)] {
        reader.start(partition, offset, -1).expect("started");
    }
    log.read(&mut reader, |log| {
        (0..3).all(|p| log.last_end(p) == Some(5_000))
    });
    assert_eq!(log.offsets(0), (0..5_000).collect::<Vec<_>>());
    assert_eq!(log.offsets(1), (4_000..5_000).collect::<Vec<_>>());
    assert_eq!(log.offsets(2), (0..5_000).collect::<Vec<_>>());
    assert_eq!(
        log.seen[&1].records[7],
        (4_007, 5_007, Some(b"value 4007".to_vec()))
    );

    // Later records come too, and the end is reported again.
    send(&kafka, "t", 1, 5_000..5_010);
    log.read(&mut reader, |log| log.last_end(1) == Some(5_010));
    assert_eq!(log.offsets(1), (4_000..5_010).collect::<Vec<_>>());
    assert!(log.problems.is_empty(), "{log:?}");
}

#[test]
fn an_empty_value_is_not_a_tombstone() {
    let kafka = MockKafka::start("t", 1).expect("a mock cluster");
    kafka
        .send(
            "t",
            0,
            [(5, None), (6, Some(&b""[..])), (7, Some(&b"x"[..]))],
        )
        .expect("sent");
    let (_, mut reader) = open(&plain(&kafka.bootstrap(), "t")).expect("a client");
    let mut log = Log::default();
    reader.start(0, 0, -1).expect("started");
    log.read(&mut reader, |log| log.last_end(0) == Some(3));
    assert_eq!(
        log.seen[&0].records,
        [
            (0, 5, None),
            (1, 6, Some(vec![])),
            (2, 7, Some(b"x".to_vec()))
        ]
    );
}

#[test]
fn a_paused_partition_is_silent_and_loses_nothing() {
    let kafka = MockKafka::start("t", 2).expect("a mock cluster");
    send(&kafka, "t", 0, 0..100);
    let (_, mut reader) = open(&plain(&kafka.bootstrap(), "t")).expect("a client");
    let mut log = Log::default();
    reader.start(0, 0, -1).expect("started");
    reader.start(1, 0, -1).expect("started");
    log.read(&mut reader, |log| log.last_end(0) == Some(100));
    // At the end: here librdkafka's own pause would go on one record too far.
    reader.pause(0);
    send(&kafka, "t", 0, 100..6_000);
    send(&kafka, "t", 1, 0..100);
    log.read(&mut reader, |log| log.last_end(1) == Some(100));
    log.poll(&mut reader, Duration::from_millis(100));
    assert_eq!(log.offsets(0).len(), 100);
    reader.resume(0);
    log.read(&mut reader, |log| log.last_end(0) == Some(6_000));
    assert_eq!(log.offsets(0), (0..6_000).collect::<Vec<_>>());
}

#[test]
fn topic_partitions_take_turns_where_all_together_would_fetch_too_much() {
    const PARTITIONS: i32 = 12;
    let kafka = MockKafka::start("t", PARTITIONS).expect("a mock cluster");
    for partition in 0..PARTITIONS {
        send(&kafka, "t", partition, 0..6_000);
    }
    let mut config = plain(&kafka.bootstrap(), "t");
    config.fetched_bytes = 2 << 20;
    let (_, mut reader) = open(&config).expect("a client");
    for partition in 0..PARTITIONS {
        reader.start(partition, 0, -1).expect("started");
    }
    reader.pause(3);
    let (mut log, mut most) = (Log::default(), 0);
    let ended = |log: &Log, partition| log.last_end(partition) == Some(6_000);
    let mut read = |log: &mut Log, reader: &mut Reader, who: &dyn Fn(Partition) -> bool| {
        let deadline = Instant::now() + PATIENCE;
        while !(0..PARTITIONS).all(|p| !who(p) || ended(log, p)) {
            assert!(Instant::now() < deadline, "not all was read");
            most = most.max(reader.queued_bytes());
            log.poll(reader, STEP);
        }
    };
    read(&mut log, &mut reader, &|partition| partition != 3);
    assert_eq!(log.offsets(3), [0; 0]);
    reader.resume(3);
    read(&mut log, &mut reader, &|_| true);
    for partition in 0..PARTITIONS {
        assert_eq!(
            log.offsets(partition),
            (0..6_000).collect::<Vec<_>>(),
            "{partition}"
        );
    }
    // Together they would be 22 MB: each record takes 300 bytes besides its own.
    assert!(most <= 2 * config.fetched_bytes, "{most}");
}

#[test]
fn nothing_from_before_a_stop_comes_after_a_start_elsewhere() {
    let kafka = MockKafka::start("t", 1).expect("a mock cluster");
    send(&kafka, "t", 0, 0..20_000);
    let (_, mut reader) = open(&plain(&kafka.bootstrap(), "t")).expect("a client");
    for round in 0..12 {
        let offset = (round * 7_919) % 20_000;
        let epoch = if round % 2 == 0 { -1 } else { 0 };
        reader.start(0, offset, epoch).expect("started");
        let mut log = Log::default();
        log.read(&mut reader, |log| !log.offsets(0).is_empty());
        let seen = log.offsets(0);
        assert_eq!(
            seen,
            (offset..offset + seen.len() as i64).collect::<Vec<_>>(),
            "round {round}"
        );
        if round % 3 == 0 {
            reader.stop(0);
            let mut log = Log::default();
            log.poll(&mut reader, Duration::from_millis(20));
            assert!(log.seen.is_empty(), "{log:?}");
        }
    }
}

#[test]
fn an_offset_that_is_not_there_is_told_once() {
    let kafka = MockKafka::start("t", 1).expect("a mock cluster");
    send(&kafka, "t", 0, 0..10);
    let (_, mut reader) = open(&plain(&kafka.bootstrap(), "t")).expect("a client");
    let mut log = Log::default();
    reader.start(0, 50, -1).expect("started");
    log.read(&mut reader, |log| {
        log.seen.get(&0).is_some_and(|s| !s.out_of_range.is_empty())
    });
    assert_eq!(log.seen[&0].out_of_range, [50]);
    // A start at a good one goes on as if nothing had been.
    reader.start(0, 5, 0).expect("started");
    let mut log = Log::default();
    log.read(&mut reader, |log| log.last_end(0) == Some(10));
    assert_eq!(log.seen[&0].out_of_range, [0; 0]);
    assert_eq!(log.offsets(0), [5, 6, 7, 8, 9]);
}

#[test]
fn a_topic_that_is_not_there_is_told() {
    let kafka = MockKafka::start("t", 1).expect("a mock cluster");
    kafka.forbid("gone").expect("set");
    let (consumer, mut reader) = open(&plain(&kafka.bootstrap(), "gone")).expect("a client");
    let error = consumer.topic(PATIENCE).expect_err("it is not there");
    assert_eq!(
        error.to_string(),
        "cannot read topic \"gone\": it does not exist; create it, or name another"
    );
    reader.start(0, 0, -1).expect("started");
    let mut log = Log::default();
    log.read(&mut reader, |log| !log.problems.is_empty());
    assert!(
        matches!(log.problems[0], KafkaError::NotThere(_)),
        "{log:?}"
    );
    log.poll(&mut reader, STEP);
    assert_eq!(log.problems.len(), 1);
    let error = consumer.end(0, PATIENCE).expect_err("it is not there");
    assert!(matches!(error, KafkaError::NotThere(_)), "{error:?}");
}

#[test]
fn a_client_without_a_broker_says_so_in_time() {
    // A port that nobody listens to any more.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|l| l.local_addr())
        .expect("a port")
        .port();
    let (consumer, mut reader) = open(&plain(&format!("127.0.0.1:{port}"), "t")).expect("a client");
    let begin = Instant::now();
    let error = consumer
        .topic(Duration::from_millis(700))
        .expect_err("nobody is there");
    assert!(begin.elapsed() < Duration::from_secs(3));
    assert!(matches!(error, KafkaError::Unreachable(_)), "{error:?}");
    let mut log = Log::default();
    log.read(&mut reader, |log| !log.problems.is_empty());
    let text = log.problems[0].to_string();
    assert!(
        text.starts_with(&format!("cannot reach Kafka \"127.0.0.1:{port}\": ")),
        "{text}"
    );
    assert!(
        text.contains("refused") && text.contains("; check that it runs"),
        "{text}"
    );
}

#[test]
fn a_silent_topic_wakes_the_reader_within_milliseconds() {
    let kafka = MockKafka::start("t", 1).expect("a mock cluster");
    let (_, mut reader) = open(&plain(&kafka.bootstrap(), "t")).expect("a client");
    let mut log = Log::default();
    reader.start(0, 0, -1).expect("started");
    log.read(&mut reader, |log| log.last_end(0) == Some(0));
    let begin = Instant::now();
    send(&kafka, "t", 0, 0..1);
    let deadline = Instant::now() + PATIENCE;
    while log.offsets(0).is_empty() && Instant::now() < deadline {
        log.poll(&mut reader, PATIENCE);
    }
    assert_eq!(log.offsets(0), [0]);
    // Sending takes some of it: linger, and a flush.
    assert!(
        begin.elapsed() < Duration::from_secs(2),
        "{:?}",
        begin.elapsed()
    );
}

#[test]
fn a_broker_that_goes_and_comes_back_costs_no_record() {
    let kafka = MockKafka::start("t", 1).expect("a mock cluster");
    send(&kafka, "t", 0, 0..100);
    let (consumer, mut reader) = open(&plain(&kafka.bootstrap(), "t")).expect("a client");
    let mut log = Log::default();
    reader.start(0, 0, -1).expect("started");
    log.read(&mut reader, |log| log.last_end(0) == Some(100));
    kafka.set_up(false).expect("set");
    log.read(&mut reader, |log| {
        log.problems
            .iter()
            .any(|p| matches!(p, KafkaError::Unreachable(_)))
    });
    let error = consumer
        .end(0, Duration::from_millis(300))
        .expect_err("nobody is there");
    assert!(matches!(error, KafkaError::Unreachable(_)), "{error:?}");
    kafka.set_up(true).expect("set");
    send(&kafka, "t", 0, 100..200);
    log.read(&mut reader, |log| log.last_end(0) == Some(200));
    assert_eq!(log.offsets(0), (0..200).collect::<Vec<_>>());
    assert_eq!(
        consumer.end(0, PATIENCE).expect("an answer").high_watermark,
        200
    );
}

#[test]
fn the_demo_sends_what_it_says() {
    let kafka = MockKafka::start("t", 3).expect("a mock cluster");
    let demo = Demo {
        bootstrap: kafka.bootstrap(),
        topic: "t".to_owned(),
        partitions: 3,
        origins: 2,
        rate: 5_000,
        seed: 1,
    };
    let producer = DemoProducer::start(demo).expect("started");
    let deadline = Instant::now() + PATIENCE;
    while producer.sent().total() < 500 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    let sent = producer.stop().expect("all have arrived");
    assert!(
        sent.total() >= 500 && sent.late > 0 && sent.broken > 0 && sent.no_origin > 0,
        "{sent:?}"
    );
    let (consumer, mut reader) = open(&plain(&kafka.bootstrap(), "t")).expect("a client");
    let ends = consumer
        .offsets(&[0, 1, 2], At::Latest, PATIENCE)
        .expect("offsets");
    assert_eq!(ends.values().sum::<i64>() as u64, sent.total());
    let mut log = Log::default();
    for partition in 0..3 {
        reader.start(partition, 0, -1).expect("started");
    }
    log.read(&mut reader, |log| {
        ends.iter().all(|(p, end)| log.last_end(*p) == Some(*end))
    });
    let values = log
        .seen
        .values()
        .flat_map(|seen| &seen.records)
        .map(|r| r.2.as_deref().expect("no tombstones"));
    let broken = values
        .filter(|v| serde_json::from_slice::<serde_json::Value>(v).is_err())
        .count();
    assert_eq!(broken as u64, sent.broken);
}

#[test]
fn group_commits_do_not_block() {
    let kafka = MockKafka::start("t", 1).expect("a mock cluster");
    let (consumer, _reader) = open(&plain(&kafka.bootstrap(), "t")).expect("a client");
    let begin = Instant::now();
    consumer.commit_group(&BTreeMap::from([(0, 7)]));
    assert!(begin.elapsed() < Duration::from_millis(500));
}

#[test]
fn short_broker_names_are_completed_with_the_namespace() {
    let names = |host| names_to_try(host, Some("kafka"), "cluster.local");
    assert_eq!(
        names("kafka-k8s-0.kafka-k8s-endpoints"),
        [
            "kafka-k8s-0.kafka-k8s-endpoints",
            "kafka-k8s-0.kafka-k8s-endpoints.kafka.svc.cluster.local"
        ]
    );
    assert_eq!(
        names("kafka-k8s"),
        ["kafka-k8s", "kafka-k8s.kafka.svc.cluster.local"]
    );
    for whole in [
        "10.1.2.3",
        "::1",
        "localhost",
        "kafka.example.com",
        "a.b.svc.cluster.local",
        "kafka.",
    ] {
        assert_eq!(names(whole), [whole]);
    }
    assert_eq!(names_to_try("a.b", None, "cluster.local"), ["a.b"]);
}

#[test]
fn bootstrap_names_go_through_the_resolver() {
    let kafka = MockKafka::start("t", 1).expect("a mock cluster");
    send(&kafka, "t", 0, 0..3);
    let bootstrap = kafka.bootstrap();
    let port = bootstrap.rsplit_once(':').expect("host:port").1;
    let config = plain(&format!("kafka-k8s-0.kafka-k8s-endpoints:{port}"), "t");
    let asked = Arc::new(Mutex::new(Vec::new()));
    let asked_too = Arc::clone(&asked);
    let (consumer, _reader) = open_with(
        &config,
        Box::new(move |host: &str| {
            asked_too.lock().expect("no panic").push(host.to_owned());
            let names = names_to_try(host, Some("kafka"), "cluster.local");
            // The second name stands for one that the cluster's DNS knows.
            names
                .into_iter()
                .map(|n| {
                    if n.ends_with(".kafka.svc.cluster.local") {
                        "127.0.0.1".to_owned()
                    } else {
                        n
                    }
                })
                .collect()
        }),
    )
    .expect("a client");
    assert_eq!(consumer.topic(PATIENCE).expect("a topic").partitions, [0]);
    assert_eq!(
        asked.lock().expect("no panic")[0],
        "kafka-k8s-0.kafka-k8s-endpoints"
    );
    // As it is, it leads nowhere.
    let (consumer, _reader) = open(&config).expect("a client");
    let error = consumer
        .topic(Duration::from_secs(3))
        .expect_err("no such host");
    assert!(
        error.to_string().contains("set the Kubernetes namespace"),
        "{error}"
    );
}

#[test]
fn no_secret_is_printed_and_mozillas_roots_are_pem() {
    let mut config = plain("x:1", "t");
    config.password = Secret::new("hunter2".to_owned());
    assert!(!format!("{config:?}").contains("hunter2"));

    config.settings.security = Security::SaslSsl;
    config.username = "u".to_owned();
    open(&config)
        .map(|_| ())
        .expect("librdkafka reads all roots");
    config.ca_pem = Some("no PEM".to_owned());
    let Err(error) = open(&config) else {
        panic!("that is no CA")
    };
    assert!(error.to_string().ends_with("give it in PEM"), "{error}");
}

#[test]
fn the_consumer_is_for_all_threads_and_the_reader_for_any_one() {
    fn is_send<T: Send>() {}
    fn is_sync<T: Sync>() {}
    is_send::<Brokers>();
    is_sync::<Brokers>();
    is_send::<Reader>();
}

#[test]
fn texts_name_cause_and_cure() {
    assert_eq!(
        cause(
            "sasl_plaintext://127.0.0.1:1/bootstrap: Connect failed: refused (after 3ms in \
             state CONNECT)"
        ),
        "Connect failed: refused"
    );
    assert_eq!(
        cause("Fetch failed: http://x: y"),
        "Fetch failed: http://x: y"
    );
}

/// Against a real Kafka; `WINDROW_TEST_KAFKA` and its kin say where, and `WINDROW_TEST_PARTS` is
/// the script that makes users, topics and records there.
mod real {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    fn env(name: &str) -> String {
        std::env::var(name)
            .unwrap_or_else(|_| panic!("{name} is not set: this test needs a real Kafka"))
    }

    /// Runs `services.sh kafka` with this on its standard input.
    fn kafka(arguments: &[&str], input: &str) -> String {
        let mut child = Command::new(env("WINDROW_TEST_PARTS"))
            .arg("kafka")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the script runs");
        child
            .stdin
            .take()
            .expect("piped")
            .write_all(input.as_bytes())
            .expect("written");
        let output = child.wait_with_output().expect("the script ends");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// A topic of its own for a test, gone at the end.
    struct Topic(String);

    impl Topic {
        fn new(name: &str, partitions: u32) -> Self {
            let name = format!("source-{name}-{}", std::process::id());
            kafka(
                &["topic", &name, "--partitions", &partitions.to_string()],
                "",
            );
            Self(name)
        }

        /// Sends values to topic partition 0.
        fn send(&self, values: std::ops::Range<i64>, options: &[&str]) {
            let lines: String = values
                .map(|i| format!("{{\"p\":0,\"ts\":{},\"v\":\"value {i}\"}}\n", 1_000 + i))
                .collect();
            self.send_lines(&lines, options);
        }

        fn send_lines(&self, lines: &str, options: &[&str]) {
            kafka(&[&["produce", &self.0], options].concat(), lines);
        }
    }

    impl Drop for Topic {
        fn drop(&mut self) {
            if let Ok(script) = std::env::var("WINDROW_TEST_PARTS") {
                let _ = Command::new(script)
                    .args(["kafka", "delete-topic", &self.0])
                    .output();
            }
        }
    }

    fn admin(topic: &str) -> KafkaConfig {
        let mut config = plain(&env("WINDROW_TEST_KAFKA"), topic);
        config.settings.security = Security::SaslPlaintext;
        config.username = env("WINDROW_TEST_KAFKA_USER");
        config.password = Secret::new(env("WINDROW_TEST_KAFKA_PASSWORD"));
        config
    }

    /// Reads a topic partition from an offset to its end.
    fn read(config: &KafkaConfig, partition: Partition, offset: Offset, end: Offset) -> Log {
        let (_, mut reader) = open(config).expect("a client");
        let mut log = Log::default();
        reader.start(partition, offset, -1).expect("started");
        log.read(&mut reader, |log| log.last_end(partition) == Some(end));
        log
    }

    #[test]
    #[ignore = "needs a real Kafka"]
    fn a_login_reads_all_and_cluster_and_topic_have_ids() {
        let topic = Topic::new("login", 2);
        topic.send(0..500, &[]);
        topic.send_lines(
            "{\"p\":0,\"ts\":7,\"v\":null}\n{\"p\":0,\"ts\":8,\"v\":\"\"}\n",
            &[],
        );
        let (consumer, _reader) = open(&admin(&topic.0)).expect("a client");
        let begin = Instant::now();
        let info = consumer.topic(PATIENCE).expect("a topic");
        eprintln!("topic() took {:?}: {info:?}", begin.elapsed());
        assert_eq!(info.partitions, [0, 1]);
        assert!(
            !info.topic_id.is_empty() && !info.cluster_id.is_empty(),
            "{info:?}"
        );
        let begin = Instant::now();
        assert_eq!(
            consumer.end(0, PATIENCE),
            Ok(End {
                log_start: 0,
                last_stable: 502,
                high_watermark: 502
            })
        );
        eprintln!("end() took {:?}", begin.elapsed());
        let at = |at| consumer.offsets(&[0, 1], at, PATIENCE).expect("offsets");
        assert_eq!(at(At::Latest), BTreeMap::from([(0, 502), (1, 0)]));
        assert_eq!(at(At::Earliest), BTreeMap::from([(0, 0), (1, 0)]));
        let begin = Instant::now();
        let log = read(&admin(&topic.0), 0, 0, 502);
        eprintln!("open, start and read took {:?}", begin.elapsed());
        assert_eq!(log.offsets(0), (0..502).collect::<Vec<_>>());
        assert_eq!(
            log.seen[&0].records[500..],
            [(500, 7, None), (501, 8, Some(vec![]))]
        );

        consumer.commit_group(&BTreeMap::from([(0, 123)]));
        let deadline = Instant::now() + PATIENCE;
        while !kafka(&["group", "windrow-test"], "").contains("123") {
            assert!(
                Instant::now() < deadline,
                "{}",
                kafka(&["group", "windrow-test"], "")
            );
        }
    }

    #[test]
    #[ignore = "needs a real Kafka"]
    fn a_wrong_password_is_told_in_seconds() {
        let topic = Topic::new("password", 1);
        let mut config = admin(&topic.0);
        config.password = Secret::new("wrong-password".to_owned());
        let (consumer, mut reader) = open(&config).expect("a client");
        for _ in 0..2 {
            let begin = Instant::now();
            let error = consumer.topic(PATIENCE).expect_err("the password is wrong");
            eprintln!("{:?} {error}", begin.elapsed());
            assert!(matches!(error, KafkaError::Login(_)), "{error:?}");
            assert!(begin.elapsed() < Duration::from_secs(5));
            assert!(!error.to_string().contains("wrong-password"));
        }
        let mut log = Log::default();
        log.read(&mut reader, |log| !log.problems.is_empty());
        assert!(matches!(log.problems[0], KafkaError::Login(_)), "{log:?}");
    }

    #[test]
    #[ignore = "needs a real Kafka"]
    fn missing_rights_are_told_with_what_to_grant() {
        let topic = Topic::new("rights", 1);
        topic.send(0..10, &[]);
        let user = format!("source-{}", std::process::id());
        kafka(&["user", &user], "user-secret\n");
        let mut config = admin(&topic.0);
        (config.username, config.password) = (user.clone(), Secret::new("user-secret".to_owned()));
        let (consumer, reader) = open(&config).expect("a client");
        let error = consumer.topic(PATIENCE).expect_err("no rights");
        eprintln!("{error}");
        assert!(matches!(error, KafkaError::TopicDenied(_)), "{error:?}");
        drop((consumer, reader));

        // With rights on the topic alone, records come, and the group is reported.
        kafka(&["allow", &user, "--read", &topic.0], "");
        let (consumer, mut reader) = open(&config).expect("a client");
        assert_eq!(consumer.topic(PATIENCE).expect("a topic").partitions, [0]);
        let mut log = Log::default();
        reader.start(0, 0, -1).expect("started");
        log.read(&mut reader, |log| log.last_end(0) == Some(10));
        log.read(&mut reader, |log| !log.problems.is_empty());
        eprintln!("{:?}", log.problems);
        assert!(
            matches!(log.problems[..], [KafkaError::GroupDenied(_)]),
            "{log:?}"
        );

        // Rights that go while it reads, and come back.
        kafka(&["revoke", &user], "");
        log.read(&mut reader, |log| {
            log.problems
                .iter()
                .any(|p| matches!(p, KafkaError::TopicDenied(_)))
        });
        topic.send(10..11, &[]);
        log.poll(&mut reader, STEP);
        assert_eq!(log.offsets(0).len(), 10);
        kafka(&["allow", &user, "--read", &topic.0], "");
        log.read(&mut reader, |log| log.last_end(0) == Some(11));
        kafka(&["delete-user", &user], "");
    }

    #[test]
    #[ignore = "needs a real Kafka"]
    fn a_missing_topic_is_told() {
        let (consumer, mut reader) = open(&admin("source-no-such-topic")).expect("a client");
        assert!(matches!(
            consumer.topic(PATIENCE),
            Err(KafkaError::NotThere(_))
        ));
        assert!(matches!(
            consumer.end(0, PATIENCE),
            Err(KafkaError::NotThere(_))
        ));
        let mut log = Log::default();
        reader.start(0, 0, -1).expect("started");
        log.read(&mut reader, |log| !log.problems.is_empty());
        assert!(
            matches!(log.problems[..], [KafkaError::NotThere(_)]),
            "{log:?}"
        );
    }

    #[test]
    #[ignore = "needs a real Kafka"]
    fn tls_wants_the_right_ca() {
        let topic = Topic::new("tls", 1);
        topic.send(0..100, &[]);
        let mut config = admin(&topic.0);
        config.settings.bootstrap = servers(&env("WINDROW_TEST_KAFKA_SSL"));
        config.settings.security = Security::SaslSsl;
        let (consumer, _reader) = open(&config).expect("a client");
        let error = consumer
            .topic(PATIENCE)
            .expect_err("Mozilla does not know this CA");
        eprintln!("{error}");
        assert!(
            matches!(&error, KafkaError::Tls(text) if text.contains("give the CA")),
            "{error:?}"
        );
        config.ca_pem = Some(std::fs::read_to_string(env("WINDROW_TEST_KAFKA_CA")).expect("a CA"));
        let begin = Instant::now();
        let log = read(&config, 0, 0, 100);
        eprintln!("open, start and read took {:?}", begin.elapsed());
        assert_eq!(log.offsets(0).len(), 100);
        // TLS spoken to a port that does not.
        config.settings.bootstrap = servers(&env("WINDROW_TEST_KAFKA"));
        let (consumer, _reader) = open(&config).expect("a client");
        // Once, that is a broker that is being started. librdkafka reports the same error of a
        // broker only every half minute or so, and four of them are waited for.
        let deadline = Instant::now() + 10 * PATIENCE;
        loop {
            let error = consumer.topic(PATIENCE).expect_err("no TLS there");
            if matches!(error, KafkaError::NoTls(_)) {
                break;
            }
            assert!(matches!(error, KafkaError::Unreachable(_)), "{error:?}");
            assert!(Instant::now() < deadline, "{error:?}");
        }
    }

    #[test]
    #[ignore = "needs a real Kafka"]
    fn every_compression_is_read() {
        for codec in ["gzip", "snappy", "lz4", "zstd"] {
            let topic = Topic::new(codec, 1);
            topic.send(0..3_000, &["--compression", codec]);
            let log = read(&admin(&topic.0), 0, 0, 3_000);
            assert_eq!(log.offsets(0), (0..3_000).collect::<Vec<_>>(), "{codec}");
            assert_eq!(
                log.seen[&0].records[2_999].2.as_deref(),
                Some(&b"value 2999"[..])
            );
        }
    }

    #[test]
    #[ignore = "needs a real Kafka"]
    fn aborted_transactions_and_control_records_are_gaps() {
        let topic = Topic::new("transactions", 1);
        let transaction = format!("source-{}", std::process::id());
        topic.send(0..10, &["--transaction", &transaction]);
        topic.send(10..20, &["--transaction", &transaction, "--abort"]);
        topic.send(20..30, &[]);
        topic.send(30..40, &["--transaction", &transaction, "--abort"]);
        // 10, commit, 10, abort, 10, 10, abort.
        let log = read(&admin(&topic.0), 0, 0, 43);
        assert_eq!(log.offsets(0), (0..10).chain(22..32).collect::<Vec<_>>());
        let (consumer, mut reader) = open(&admin(&topic.0)).expect("a client");
        assert_eq!(
            consumer.end(0, PATIENCE),
            Ok(End {
                log_start: 0,
                last_stable: 43,
                high_watermark: 43
            })
        );
        // From the middle of what was aborted, paused at the end, and on.
        let mut log = Log::default();
        reader.start(0, 35, 0).expect("started");
        log.read(&mut reader, |log| log.last_end(0) == Some(43));
        reader.pause(0);
        topic.send(40..43, &["--transaction", &transaction]);
        reader.resume(0);
        log.read(&mut reader, |log| log.last_end(0) == Some(47));
        assert_eq!(log.offsets(0), [43, 44, 45]);
    }

    #[test]
    #[ignore = "needs a real Kafka"]
    fn a_value_of_ten_megabytes_passes() {
        let name = Topic(format!("source-large-{}", std::process::id()));
        kafka(
            &["topic", &name.0, "--config", "max.message.bytes=20000000"],
            "",
        );
        let producer: rdkafka::producer::BaseProducer = rdkafka::ClientConfig::new()
            .set("bootstrap.servers", env("WINDROW_TEST_KAFKA_PLAIN"))
            .set("message.max.bytes", "20000000")
            .create()
            .expect("a producer");
        let value = vec![b'x'; 10 << 20];
        for _ in 0..5 {
            let record = rdkafka::producer::BaseRecord::<(), [u8]>::to(&name.0)
                .partition(0)
                .payload(&value);
            producer.send(record).expect("queued");
        }
        rdkafka::producer::Producer::flush(&producer, PATIENCE).expect("sent");
        let log = read(&admin(&name.0), 0, 0, 5);
        assert!(
            log.seen[&0]
                .records
                .iter()
                .all(|r| r.2.as_deref() == Some(&value[..]))
        );
        assert_eq!(log.offsets(0).len(), 5);
    }

    #[test]
    #[ignore = "needs a real Kafka"]
    fn deleted_records_are_out_of_range() {
        let topic = Topic::new("deleted", 1);
        topic.send(0..100, &[]);
        let (consumer, mut reader) = open(&admin(&topic.0)).expect("a client");
        kafka(&["delete-records", &topic.0, "0:50"], "");
        let mut log = Log::default();
        reader.start(0, 20, 0).expect("started");
        log.read(&mut reader, |log| {
            log.seen.get(&0).is_some_and(|s| !s.out_of_range.is_empty())
        });
        assert_eq!(
            log.seen[&0],
            Observation {
                out_of_range: vec![20],
                ..Observation::default()
            }
        );
        assert_eq!(
            consumer.end(0, PATIENCE),
            Ok(End {
                log_start: 50,
                last_stable: 100,
                high_watermark: 100
            })
        );
        reader.start(0, 50, -1).expect("started");
        log.read(&mut reader, |log| log.last_end(0) == Some(100));
        assert_eq!(log.offsets(0).len(), 50);
    }

    #[test]
    #[ignore = "needs a real Kafka"]
    fn a_leader_epoch_that_the_log_never_had_is_a_truncation() {
        let topic = Topic::new("epoch", 1);
        topic.send(0..100, &[]);
        let (_, mut reader) = open(&admin(&topic.0)).expect("a client");
        let mut log = Log::default();
        // A record of epoch 0 below 150 was never there.
        reader.start(0, 150, 0).expect("started");
        log.read(&mut reader, |log| {
            log.seen
                .get(&0)
                .is_some_and(|s| s.truncated + s.out_of_range.len() > 0)
        });
        eprintln!("{log:?}");
        assert_eq!(log.seen[&0].truncated, 1);
        // The broker says where its log parts from ours.
        assert_eq!(log.seen[&0].cut_at, Some(100));
    }

    #[test]
    #[ignore = "needs a real Kafka"]
    fn a_topic_deleted_while_it_is_read_is_told_and_made_again_has_another_id() {
        let topic = Topic::new("again", 1);
        topic.send(0..10, &[]);
        let (consumer, mut reader) = open(&admin(&topic.0)).expect("a client");
        let before = consumer.topic(PATIENCE).expect("a topic");
        let mut log = Log::default();
        reader.start(0, 0, -1).expect("started");
        log.read(&mut reader, |log| log.last_end(0) == Some(10));
        kafka(&["delete-topic", &topic.0], "");
        let begin = Instant::now();
        log.read(&mut reader, |log| !log.problems.is_empty());
        eprintln!("told after {:?}", begin.elapsed());
        assert!(
            matches!(log.problems[..], [KafkaError::NotThere(_)]),
            "{log:?}"
        );
        kafka(&["topic", &topic.0, "--partitions", "1"], "");
        topic.send(0..5, &[]);
        let after = consumer.topic(PATIENCE).expect("a topic");
        assert_ne!(before.topic_id, after.topic_id);
        assert_eq!(before.cluster_id, after.cluster_id);
        reader.start(0, 0, -1).expect("started");
        let mut log = Log::default();
        log.read(&mut reader, |log| log.last_end(0) == Some(5));
        assert_eq!(log.offsets(0).len(), 5);
    }

    #[test]
    #[ignore = "needs a real Kafka"]
    fn a_partition_that_is_added_can_be_started_beside_the_others() {
        let topic = Topic::new("added", 1);
        topic.send(0..10, &[]);
        let (consumer, mut reader) = open(&admin(&topic.0)).expect("a client");
        let mut log = Log::default();
        reader.start(0, 0, -1).expect("started");
        log.read(&mut reader, |log| log.last_end(0) == Some(10));
        kafka(&["partitions", &topic.0, "2"], "");
        topic.send_lines("{\"p\":1,\"ts\":7,\"v\":\"x\"}\n", &[]);
        let deadline = Instant::now() + PATIENCE;
        while consumer.topic(PATIENCE).expect("a topic").partitions != [0, 1] {
            assert!(Instant::now() < deadline);
        }
        reader.start(1, 0, -1).expect("started");
        log.read(&mut reader, |log| log.last_end(1) == Some(1));
    }

    /// User and system time of this process, from `/proc`, in seconds.
    fn cpu() -> f64 {
        let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
        let fields: Vec<_> = stat
            .rsplit_once(')')
            .expect("a name")
            .1
            .split_whitespace()
            .collect();
        (fields[11].parse::<f64>().expect("utime") + fields[12].parse::<f64>().expect("stime"))
            / 100.0
    }

    fn resident_mb() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
        let line = status
            .lines()
            .find(|l| l.starts_with("VmRSS"))
            .expect("VmRSS");
        line.split_whitespace()
            .nth(1)
            .and_then(|kb| kb.parse::<u64>().ok())
            .expect("a number")
            / 1024
    }

    const COST_RECORDS: u64 = 2_000_000;

    fn send_demo(topic: &str) {
        let producer: rdkafka::producer::BaseProducer = rdkafka::ClientConfig::new()
            .set("bootstrap.servers", env("WINDROW_TEST_KAFKA_PLAIN"))
            .set("linger.ms", "20")
            .create()
            .expect("a producer");
        for i in 0..COST_RECORDS {
            let demo = crate::io::kafka::mock::demo_record(1, i, 10, 3, 1_725_184_800_000);
            let mut record = rdkafka::producer::BaseRecord::<(), [u8]>::to(topic)
                .partition(demo.partition)
                .timestamp(demo.timestamp_ms)
                .payload(&demo.value);
            while let Err((_, again)) = producer.send(record) {
                producer.poll(Duration::from_millis(10));
                record = again;
            }
        }
        rdkafka::producer::Producer::flush(&producer, Duration::from_secs(60)).expect("sent");
    }

    /// Prints what reading costs when nothing is done with it; run it alone, with `--nocapture`, in
    /// release.
    #[test]
    #[ignore = "needs a real Kafka, and measures"]
    fn what_reading_costs() {
        let topic = Topic::new("cost", 3);
        send_demo(&topic.0);
        for bootstrap in [
            "WINDROW_TEST_KAFKA_PLAIN",
            "WINDROW_TEST_KAFKA_PLAIN",
            "WINDROW_TEST_KAFKA",
        ] {
            let mut config = admin(&topic.0);
            config.settings.bootstrap = servers(&env(bootstrap));
            if bootstrap == "WINDROW_TEST_KAFKA_PLAIN" {
                config.settings.security = Security::Plaintext;
            }
            let (before, begin) = (cpu(), Instant::now());
            let (_, mut reader) = open(&config).expect("a client");
            for partition in 0..3 {
                reader.start(partition, 0, -1).expect("started");
            }
            let (mut records, mut bytes, mut batches, mut polls, mut ends, mut sum) =
                (0, 0, 0, 0, 0, 0);
            let mut first = None;
            while ends < 3 {
                polls += 1;
                reader
                    .poll(STEP, &mut |event| match event {
                        Event::Batch {
                            records: n,
                            bytes: b,
                            batch,
                            ..
                        } => {
                            first.get_or_insert(begin.elapsed());
                            records += n;
                            bytes += b;
                            batches += 1;
                            batch.each(&mut |record| sum += record.value.map_or(0, <[u8]>::len));
                        }
                        Event::End { .. } => ends += 1,
                        _ => {}
                    })
                    .expect("the client goes on");
            }
            assert_eq!(records as u64, COST_RECORDS);
            assert_eq!(sum, bytes);
            let (wall, cpu_s) = (begin.elapsed().as_secs_f64(), cpu() - before);
            eprintln!(
                "{bootstrap}: {:.3} CPU s per million, {:.2} million/s, first after {first:?}, \
                 {} bytes a record, {:.0} records a batch, {polls} polls, {} MB resident",
                cpu_s * 1e6 / records as f64,
                records as f64 / 1e6 / wall,
                bytes / records,
                records as f64 / f64::from(batches),
                resident_mb(),
            );
            let (before, begin) = (cpu(), Instant::now());
            while begin.elapsed() < Duration::from_secs(10) {
                reader
                    .poll(Duration::from_millis(500), &mut |_| ())
                    .expect("the client goes on");
            }
            eprintln!(
                "idle: {:.2} % of a core",
                (cpu() - before) * 100.0 / begin.elapsed().as_secs_f64()
            );
        }
    }
}

/// A proxy in front of a broker. It says of itself where the broker speaks of its own address, and
/// while `damages` holds, it flips one bit of each fetched value that contains `FLIP`.
struct Proxy {
    address: String,
    damages: Arc<AtomicBool>,
}

impl Proxy {
    fn start(broker: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let damages = Arc::new(AtomicBool::new(true));
        let (broker, flag) = (broker.to_owned(), Arc::clone(&damages));
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { return };
                let Ok(server) = TcpStream::connect(&broker) else {
                    return;
                };
                let port_of = |text: &str| text.rsplit_once(':').expect("HOST:PORT").1.to_owned();
                let from: u16 = port_of(&broker).parse().expect("a port");
                let ends = (client.try_clone(), server.try_clone());
                let (Ok(from_client), Ok(mut to_server)) = ends else {
                    return;
                };
                std::thread::spawn(move || std::io::copy(&mut &from_client, &mut to_server));
                let flag = Arc::clone(&flag);
                std::thread::spawn(move || answers(server, client, (from, port), &flag));
            }
        });
        Self {
            address: format!("127.0.0.1:{port}"),
            damages,
        }
    }
}

/// Hands on what the broker answers, one whole answer at a time.
fn answers(
    mut server: TcpStream,
    mut client: TcpStream,
    (from, to): (u16, u16),
    damages: &AtomicBool,
) -> std::io::Result<()> {
    loop {
        let mut size = [0; 4];
        server.read_exact(&mut size)?;
        let mut answer = vec![0; u32::from_be_bytes(size) as usize];
        server.read_exact(&mut answer)?;
        let address =
            |port: u16| [b"127.0.0.1".as_slice(), &u32::from(port).to_be_bytes()].concat();
        replace(&mut answer, &address(from), &address(to));
        if damages.load(Ordering::SeqCst) {
            replace(&mut answer, b"FLIP", b"FLIQ");
        }
        client.write_all(&size)?;
        client.write_all(&answer)?;
    }
}

fn replace(bytes: &mut [u8], from: &[u8], to: &[u8]) {
    assert_eq!(from.len(), to.len());
    for at in 0..(bytes.len() + 1).saturating_sub(from.len()) {
        if bytes[at..].starts_with(from) {
            bytes[at..at + to.len()].copy_from_slice(to);
        }
    }
}

/// One bit of an answer is flipped on its way. The topic partition is halted, so that no record is
/// skipped, and a new start at the same place reads on. The other topic partition is not disturbed.
#[test]
fn a_damaged_answer_is_asked_again() {
    let kafka = MockKafka::start("t", 2).expect("a mock cluster");
    send(&kafka, "t", 0, 0..10);
    let flip = b"FLIP me".as_slice();
    kafka
        .send("t", 1, [(1, Some(flip)), (2, Some(flip))])
        .expect("sent");
    let proxy = Proxy::start(&kafka.bootstrap());
    let (consumer, mut reader) = open(&plain(&proxy.address, "t")).expect("a client");
    consumer.topic(PATIENCE).expect("a topic");
    let mut log = Log::default();
    reader.start(0, 0, -1).expect("started");
    reader.start(1, 0, -1).expect("started");
    log.read(&mut reader, |log| {
        log.last_end(0) == Some(10) && !log.problems.is_empty()
    });
    let KafkaError::Damaged(why) = &log.problems[0] else {
        panic!("{log:?}");
    };
    assert!(
        why.contains("partition 1") && why.contains("asked for again"),
        "{why}"
    );
    assert!(!why.contains("by hand"), "nothing can skip it: {why}");
    assert!(log.offsets(1).is_empty(), "nothing is made up: {log:?}");

    // As long as it stays damaged, it is asked for in vain, and nothing is skipped. That is
    // reported each time, because nobody else would start it again.
    reader.start(1, 0, -1).expect("started");
    log.read(&mut reader, |log| log.problems.len() >= 2);
    assert!(log.offsets(1).is_empty(), "{log:?}");

    proxy.damages.store(false, Ordering::SeqCst);
    reader.start(1, 0, -1).expect("started");
    log.read(&mut reader, |log| log.last_end(1) == Some(2));
    assert_eq!(log.offsets(1), [0, 1]);
}

#[test]
fn forty_topic_partitions_queue_no_more_than_three() {
    let mut config = plain("localhost:1", "t");
    config.partitions = 0;
    for topic in [3, 40, 1000, 5000] {
        config.share_out(topic);
        let queue = queue(&config);
        let small = 100;
        let fetch = queue.fetch_bytes + queue.fetch_bytes / small * MESSAGE_BYTES;
        let each = queue.kbytes * 1024 + queue.messages * MESSAGE_BYTES + fetch;
        let all = each * topic as u64;
        assert!(all <= config.fetched_bytes, "{topic}: {all}");
    }
    // A few topic partitions are not slowed down: each may have a megabyte waiting.
    config.partitions = 0;
    assert!(!config.share_out(3), "no second client is needed");
    assert_eq!(queue(&config).kbytes, 1024);
    assert!(config.share_out(40) && !config.share_out(41) && !config.share_out(3));
}
