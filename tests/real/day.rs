//! The merge of a day of ten million rows, beside counting: what it takes, and that nobody waits
//! for it. Kafka, MinIO and PostgreSQL are real, and so is the program.
#![expect(
    clippy::disallowed_methods,
    reason = "it sends records of this moment, and measures how long commits take"
)]

use crate::harness::{Setup, Windrow, enqueue, hive_db, producer_settings, psql, topic, unique};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::json;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};
use windrow_core::shown::status::Status;

const KEYS: i64 = 100_000;
const WINDOWS: i64 = 100;
/// Windows are short, so that there are many commits to measure.
const WINDOW_MS: i64 = 250;
const DAY_MS: i64 = 86_400_000;

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    i64::try_from(now.expect("after 1970").as_millis()).expect("before the year 292 million")
}

fn producer() -> BaseProducer {
    producer_settings()
        .set("linger.ms", "5")
        .set("queue.buffering.max.messages", "1000000")
        .create()
        .expect("a producer")
}

fn send(producer: &BaseProducer, topic: &str, ts: i64, origin: &str) {
    let value = format!(r#"{{"origin":"{origin}"}}"#);
    let record: BaseRecord<'_, (), str> = BaseRecord::to(topic)
        .partition(0)
        .timestamp(ts)
        .payload(&value);
    enqueue(producer, record);
}

/// CPU seconds and resident MiB of a process, and its greatest resident MiB since it was asked to
/// forget the one before.
fn used(windrow: &Windrow<'_>) -> (f64, f64) {
    const TICKS_A_SECOND: f64 = 100.0;
    let stat = fs::read_to_string(format!("/proc/{}/stat", windrow.pid())).expect("it runs");
    let fields: Vec<&str> = stat
        .rsplit_once(") ")
        .expect("proc(5)")
        .1
        .split(' ')
        .collect();
    let ticks = |i: usize| fields[i].parse::<f64>().expect("a number");
    (
        (ticks(11) + ticks(12)) / TICKS_A_SECOND,
        windrow.peak_rss_mib(),
    )
}

fn forget_peak(windrow: &Windrow<'_>) {
    let _ = fs::write(format!("/proc/{}/clear_refs", windrow.pid()), "5");
}

/// How long the commits took that the log tells of, in ms, without those of merges; sorted.
fn took_ms(log: &str) -> Vec<u64> {
    let mut took: Vec<u64> = log
        .lines()
        .filter(|line| line.contains(" committed "))
        .filter_map(|line| {
            let (_, rest) = line.split_once("took_ms=")?;
            rest.split_whitespace().next()?.parse().ok()
        })
        .collect();
    took.sort_unstable();
    took
}

fn percentile(sorted: &[u64], part: usize) -> u64 {
    sorted[(sorted.len() * part / 100).min(sorted.len() - 1)]
}

/// Ends the records of this moment when it is dropped.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
#[ignore = "makes ten million records: make test-memory"]
fn ten_million_rows_of_a_day_are_merged_beside_counting() {
    let name = unique("day");
    topic(&name, 1);
    hive_db(&name, "script");
    let setup = Setup::new(
        &name,
        &name,
        "newtable",
        json!({
            "window": format!("{WINDOW_MS}ms"),
            "watermark-delay": "0s",
            "commit-interval": "100ms",
            "compact-bandwidth": "4MiB",
            "max-memory": "128MiB",
            "log": {"format": "text"},
        }),
    );
    let producer = producer();
    let yesterday = now_ms().div_euclid(DAY_MS) * DAY_MS - DAY_MS;
    let begun = Instant::now();
    for window in 0..WINDOWS {
        for key in 0..KEYS {
            let ts = yesterday + window * WINDOW_MS;
            send(&producer, &name, ts, &format!("producer-{key}"));
        }
        producer.poll(Duration::ZERO);
    }
    producer
        .flush(Duration::from_secs(60))
        .expect("it is delivered");
    println!("produced in {:.1} s", begun.elapsed().as_secs_f64());

    let mut windrow = setup.start();
    let all = (KEYS * WINDOWS) as u64;
    windrow.wait("the day is read", Duration::from_secs(600), |s| {
        s.consumed == all
    });
    let rows = all - KEYS as u64;
    windrow.wait("it is committed", Duration::from_secs(60), |s| {
        s.rows == rows
    });
    let stop = AtomicBool::new(false);
    let live = || {
        while !stop.load(Ordering::Relaxed) {
            send(&producer, &name, now_ms(), "live");
            producer.poll(Duration::ZERO);
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    std::thread::scope(|scope| {
        // Also when the measurement fails.
        let _stop = Stop(&stop);
        scope.spawn(live);
        measure(&mut windrow, &setup);
    });
    let files = psql(
        &name,
        "SELECT level, count(*), sum(rows) FROM windrow_2.file WHERE kind = 'rows' AND \
         retired_at IS NULL AND level = 'day' GROUP BY level",
    );
    println!("day files: {}", files.trim());
    assert_eq!(
        files.trim(),
        format!("day|{}|{all}", all.div_ceil(1_000_000))
    );
    windrow.stop();
}

/// Measures the commits before the merge and during it, and what the merge takes.
fn measure(windrow: &mut Windrow<'_>, setup: &Setup) {
    let merging = |s: &Status| s.compaction.starts_with("merging") && s.compaction.contains(" MiB");
    // All that was committed while the day was read is no measure of quiet.
    std::thread::sleep(Duration::from_secs(5));
    let from = setup.log().len();
    windrow.wait("the merge begins", Duration::from_secs(180), merging);
    let (cpu, _) = used(windrow);
    let quiet = took_ms(&setup.log()[from..]);
    forget_peak(windrow);
    let (from, begun) = (setup.log().len(), Instant::now());
    windrow.wait("the day is merged", Duration::from_secs(600), |s| {
        s.compaction_due_merges == 0
    });
    let (after, peak) = used(windrow);
    let busy = took_ms(&setup.log()[from..]);
    println!(
        "commits without a merge: {} of median {} ms, p99 {} ms; during the merge ({:.1} s, {:.1} \
         CPU s counting included, peak {peak:.0} MiB): {} of median {} ms, p99 {} ms",
        quiet.len(),
        percentile(&quiet, 50),
        percentile(&quiet, 99),
        begun.elapsed().as_secs_f64(),
        after - cpu,
        busy.len(),
        percentile(&busy, 50),
        percentile(&busy, 99),
    );
    assert!(peak < 128.0, "the merge takes {peak} MiB");
    assert!(after - cpu < 30.0, "the merge takes {} CPU s", after - cpu);
    assert!(
        quiet.len() > 50 && busy.len() > 20,
        "too few commits to tell"
    );
    // One commit may wait for the swap itself, which is the 99th of a hundred.
    let most = percentile(&quiet, 99) * 3 / 2;
    assert!(
        percentile(&busy, 99) <= most.max(20),
        "commits wait for the merge: {busy:?}, without it {quiet:?}"
    );
}
