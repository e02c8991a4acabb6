//! The source against librdkafka's mock cluster, and (ignored) against a real Kafka.

use super::*;
use crate::io::mock_kafka::MockKafka;

const PATIENCE: Duration = Duration::from_secs(20);
const STEP: Duration = Duration::from_millis(200);

fn plain(bootstrap: &str, topic: &str) -> KafkaConfig {
    KafkaConfig {
        bootstrap: bootstrap.to_owned(),
        topic: topic.to_owned(),
        security: Security::Plaintext,
        mechanism: Mechanism::ScramSha512,
        username: String::new(),
        password: Secret::default(),
        group: "windrow-test".to_owned(),
        namespace: None,
        cluster_domain: "cluster.local".to_owned(),
        ca_pem: None,
        partitions: 3,
    }
}

/// What a reader handed over of one topic partition.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    /// Offset, timestamp, value.
    records: Vec<(Offset, i64, Option<Vec<u8>>)>,
    ends: Vec<Offset>,
    out_of_range: Vec<Offset>,
    truncated: usize,
}

#[derive(Debug, Default)]
struct Log {
    seen: BTreeMap<Partition, Seen>,
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
        reader.poll(timeout, &mut |event| self.add(event)).expect("the client goes on");
    }

    fn add(&mut self, event: Event<'_>) {
        match event {
            Event::Batch { partition, batch, records, bytes, next_offset, .. } => {
                let seen = &mut self.seen.entry(partition).or_default().records;
                let before = seen.len();
                batch.each(&mut |r| seen.push((r.offset, r.timestamp_ms, r.value.map(<[u8]>::to_vec))));
                assert_eq!(seen.len() - before, records);
                assert_eq!(
                    seen[before..].iter().filter_map(|r| r.2.as_ref()).map(Vec::len).sum::<usize>(),
                    bytes
                );
                assert_eq!(seen.last().map(|r| r.0 + 1), Some(next_offset));
                assert!(seen[before..].is_sorted_by_key(|r| r.0));
            }
            Event::End { partition, next_offset } => {
                self.seen.entry(partition).or_default().ends.push(next_offset)
            }
            Event::OutOfRange { partition, offset } => {
                self.seen.entry(partition).or_default().out_of_range.push(offset);
            }
            Event::Truncated { partition, .. } => self.seen.entry(partition).or_default().truncated += 1,
            Event::Problem { what, .. } => self.problems.push(what),
        }
    }

    fn offsets(&self, partition: Partition) -> Vec<Offset> {
        self.seen.get(&partition).map(|s| s.records.iter().map(|r| r.0).collect()).unwrap_or_default()
    }

    fn last_end(&self, partition: Partition) -> Option<Offset> {
        self.seen.get(&partition).and_then(|s| s.ends.last().copied())
    }
}

/// Values `prefix 0`, `prefix 1` …, a millisecond apart.
fn send(kafka: &MockKafka, topic: &str, partition: Partition, range: std::ops::Range<i64>) {
    let values: Vec<_> = range.clone().map(|i| format!("value {i}")).collect();
    kafka
        .send(topic, partition, range.zip(&values).map(|(i, v)| (1_000 + i, Some(v.as_bytes()))))
        .expect("sent");
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
    let first = consumer.offsets(&[0, 1, 2], At::Earliest, PATIENCE).expect("offsets");
    assert_eq!(first, BTreeMap::from([(0, 0), (1, 0), (2, 0)]));
    let end = consumer.end(1, PATIENCE).expect("an end");
    assert_eq!(end, End { log_start: 0, last_stable: 5_000, high_watermark: 5_000 });

    let mut log = Log::default();
    for (partition, offset) in [(0, 0), (1, 4_000), (2, 0)] {
        reader.start(partition, offset, -1).expect("started");
    }
    log.read(&mut reader, |log| (0..3).all(|p| log.last_end(p) == Some(5_000)));
    assert_eq!(log.offsets(0), (0..5_000).collect::<Vec<_>>());
    assert_eq!(log.offsets(1), (4_000..5_000).collect::<Vec<_>>());
    assert_eq!(log.offsets(2), (0..5_000).collect::<Vec<_>>());
    assert_eq!(log.seen[&1].records[7], (4_007, 5_007, Some(b"value 4007".to_vec())));

    // What comes later comes, and the end is told anew.
    send(&kafka, "t", 1, 5_000..5_010);
    log.read(&mut reader, |log| log.last_end(1) == Some(5_010));
    assert_eq!(log.offsets(1), (4_000..5_010).collect::<Vec<_>>());
    assert!(log.problems.is_empty(), "{log:?}");
}

#[test]
fn an_empty_value_is_not_a_tombstone() {
    let kafka = MockKafka::start("t", 1).expect("a mock cluster");
    kafka.send("t", 0, [(5, None), (6, Some(&b""[..])), (7, Some(&b"x"[..]))]).expect("sent");
    let (_, mut reader) = open(&plain(&kafka.bootstrap(), "t")).expect("a client");
    let mut log = Log::default();
    reader.start(0, 0, -1).expect("started");
    log.read(&mut reader, |log| log.last_end(0) == Some(3));
    assert_eq!(log.seen[&0].records, [(0, 5, None), (1, 6, Some(vec![])), (2, 7, Some(b"x".to_vec()))]);
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
fn nothing_from_before_a_stop_comes_after_a_start_elsewhere() {
    let kafka = MockKafka::start("t", 1).expect("a mock cluster");
    send(&kafka, "t", 0, 0..20_000);
    let (_, mut reader) = open(&plain(&kafka.bootstrap(), "t")).expect("a client");
    for round in 0..40 {
        let offset = (round * 7_919) % 20_000;
        let epoch = if round % 2 == 0 { -1 } else { 0 };
        reader.start(0, offset, epoch).expect("started");
        let mut log = Log::default();
        log.read(&mut reader, |log| !log.offsets(0).is_empty());
        let seen = log.offsets(0);
        assert_eq!(seen, (offset..offset + seen.len() as i64).collect::<Vec<_>>(), "round {round}");
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
    log.read(&mut reader, |log| log.seen.get(&0).is_some_and(|s| !s.out_of_range.is_empty()));
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
    assert_eq!(error.to_string(), "cannot read topic \"gone\": it does not exist; create it, or name another");
    reader.start(0, 0, -1).expect("started");
    let mut log = Log::default();
    log.read(&mut reader, |log| !log.problems.is_empty());
    assert!(matches!(log.problems[0], KafkaError::NotThere(_)), "{log:?}");
    log.poll(&mut reader, STEP);
    assert_eq!(log.problems.len(), 1);
    assert!(matches!(consumer.end(0, PATIENCE), Err(KafkaError::NotThere(_))));
}

#[test]
fn a_client_without_a_broker_says_so_in_time() {
    // A port that nobody listens to any more.
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
    let (consumer, mut reader) = open(&plain(&format!("127.0.0.1:{port}"), "t")).expect("a client");
    let begin = Instant::now();
    let error = consumer.topic(Duration::from_millis(700)).expect_err("nobody is there");
    assert!(begin.elapsed() < Duration::from_secs(3));
    assert!(matches!(error, KafkaError::Unreachable(_)), "{error:?}");
    let mut log = Log::default();
    log.read(&mut reader, |log| !log.problems.is_empty());
    let text = log.problems[0].to_string();
    assert!(text.starts_with(&format!("cannot reach Kafka \"127.0.0.1:{port}\": ")), "{text}");
    assert!(text.contains("refused") && text.contains("; check that it runs"), "{text}");
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
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
}

#[test]
fn group_commits_do_not_block_and_arrive() {
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
        ["kafka-k8s-0.kafka-k8s-endpoints", "kafka-k8s-0.kafka-k8s-endpoints.kafka.svc.cluster.local"]
    );
    assert_eq!(names("kafka-k8s"), ["kafka-k8s", "kafka-k8s.kafka.svc.cluster.local"]);
    for whole in ["10.1.2.3", "::1", "localhost", "kafka.example.com", "a.b.svc.cluster.local", "kafka."] {
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
    let (consumer, _reader) = open_with(&config, move |host| {
        asked_too.lock().expect("no panic").push(host.to_owned());
        let names = names_to_try(host, Some("kafka"), "cluster.local");
        // The second name stands for one that the cluster's DNS knows.
        names
            .into_iter()
            .map(|n| if n.ends_with(".kafka.svc.cluster.local") { "127.0.0.1".to_owned() } else { n })
            .collect()
    })
    .expect("a client");
    assert_eq!(consumer.topic(PATIENCE).expect("a topic").partitions, [0]);
    assert_eq!(asked.lock().expect("no panic")[0], "kafka-k8s-0.kafka-k8s-endpoints");
    // As it is, it leads nowhere.
    let (consumer, _reader) = open(&config).expect("a client");
    let error = consumer.topic(Duration::from_secs(3)).expect_err("no such host");
    assert!(error.to_string().contains("set the Kubernetes namespace"), "{error}");
}

#[test]
fn no_secret_is_printed_and_mozillas_roots_are_pem() {
    let mut config = plain("x:1", "t");
    config.password = Secret("hunter2".to_owned());
    assert!(!format!("{config:?}").contains("hunter2"));
    let mut text = String::new();
    push_base64(&mut text, b"ab");
    assert_eq!(text, "YWI=\n");
    config.security = Security::SaslSsl;
    config.username = "u".to_owned();
    open(&config).map(|_| ()).expect("librdkafka reads all roots");
    config.ca_pem = Some("no PEM".to_owned());
    // Text between certificates is allowed in PEM; what is no certificate at all is only found at the handshake.
    assert!(open(&config).is_ok());
}

#[test]
fn texts_name_cause_and_cure() {
    assert_eq!(
        without_prefix("sasl_plaintext://127.0.0.1:1/bootstrap: Connect failed: refused"),
        "Connect failed: refused"
    );
    assert_eq!(without_prefix("Fetch failed: http://x: y"), "Fetch failed: http://x: y");
}
