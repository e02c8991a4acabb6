//! A million records through Kafka, S3 and the metastore while windrow is killed ten times: Spark
//! finds the rows of a plain group-by over the log, and the ledger adds up.
//!
//! The log is drawn from a seed, and what the table must hold is worked out here from the log
//! alone, by the definition: one record and one window at a time. Nothing of that is shared with
//! windrow.

use crate::harness::{Setup, Thrift, Used, enqueue, hive_db, parts, producer_settings, unique};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::{Duration, Instant};
use windrow_core::shown::status::Status;

const RECORDS: usize = 1_000_000;
const PARTITIONS: usize = 3;
const ORIGINS: u64 = 50;
const KILLS: usize = 10;
/// How long the slice of records between two kills takes at least, and in how many pieces it comes.
const SLICE_MS: u64 = 1500;
const PIECES: usize = 15;
const START_MS: i64 = 1_725_219_720_000;
const SIZE_MS: i64 = 10_000;
const SLIDE_MS: i64 = 5_000;
const DELAY_MS: i64 = 10_000;
/// The year 2200: past every ceiling.
const FUTURE_MS: i64 = 7_258_118_400_000;

/// What stands at one offset.
#[derive(Clone, Copy, Debug)]
enum Entry {
    Good {
        ts: i64,
        origin: u64,
    },
    Broken {
        ts: i64,
    },
    Tombstone {
        ts: i64,
    },
    Future {
        origin: u64,
    },
    /// Never shown: a record of an aborted transaction, or its marker.
    Gap,
}

/// Of each topic partition, what was produced, by offset.
type Log = [Vec<Entry>; PARTITIONS];

/// Numbers from a seed (splitmix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// The record number `i`: its topic partition and what it is. Time goes on by 4 ms a record; the
/// third topic partition is a quarter of a minute behind the others, so that each closed window
/// waits for it.
fn draw(dice: &mut Dice, i: usize) -> (usize, Entry) {
    let partition = dice.below(PARTITIONS as u64) as usize;
    let back = match dice.below(200) {
        // Beyond the delay: late for some or all of its windows.
        0 => DELAY_MS + dice.below(50_000) as i64,
        _ => dice.below(8_000) as i64,
    };
    let behind = if partition == 2 { 15_000 } else { 0 };
    let ts = START_MS + 100_000 + i as i64 * 4 - back - behind;
    let origin = dice.below(ORIGINS);
    let entry = match dice.below(50_000) {
        0..100 => Entry::Broken { ts },
        100..200 => Entry::Tombstone { ts },
        200 => Entry::Future { origin },
        _ => Entry::Good { ts, origin },
    };
    (partition, entry)
}

fn producer() -> BaseProducer {
    producer_settings()
        .set("linger.ms", "20")
        .create()
        .expect("a producer")
}

fn send(producer: &BaseProducer, topic: &str, partition: usize, entry: Entry) {
    let origin = |n: u64| format!("producer-{n} (10.1.63.230)");
    let value = |ts: i64, n: u64| {
        format!(
            r#"{{"timestamp": {}.{:03}, "_id": "b84e2b8a1f4e4c0e9d2f", "origin": "{}", "content": "Message"}}"#,
            ts / 1000,
            ts % 1000,
            origin(n)
        )
    };
    let (ts, value) = match entry {
        Entry::Good { ts, origin } => (ts, Some(value(ts, origin))),
        Entry::Future { origin } => (FUTURE_MS, Some(value(FUTURE_MS, origin))),
        Entry::Broken { ts } => (ts, Some(r#"{"origin": "producer-0 (10.1."#.to_owned())),
        Entry::Tombstone { ts } => (ts, None),
        Entry::Gap => return,
    };
    let mut record: BaseRecord<'_, (), str> = BaseRecord::to(topic)
        .partition(partition as i32)
        .timestamp(ts);
    if let Some(value) = &value {
        record = record.payload(value);
    }
    enqueue(producer, record);
}

/// Produces the next `count` records and adds them to the log.
fn produce(producer: &BaseProducer, topic: &str, dice: &mut Dice, log: &mut Log, count: usize) {
    let first: usize = log.iter().map(Vec::len).sum();
    for i in first..first + count {
        let (partition, entry) = draw(dice, i);
        send(producer, topic, partition, entry);
        log[partition].push(entry);
        if i % 1000 == 0 {
            producer.poll(Duration::ZERO);
        }
    }
    producer
        .flush(Duration::from_secs(60))
        .expect("everything is delivered");
}

/// Records that nobody may see: each stands at an offset, and the marker at one more.
fn abort_some(topic: &str, log: &mut Log) {
    let lines: String = (0..10)
        .map(|_| {
            format!(
                "{}\n",
                json!({"p": 0, "ts": START_MS, "v": "{\"origin\": \"aborted\"}"})
            )
        })
        .collect();
    parts(
        &["kafka", "produce", topic, "--transaction", topic, "--abort"],
        &lines,
    );
    log[0].extend([Entry::Gap; 11]);
}

/// What the table and its side tables must hold.
#[derive(Default)]
struct Expected {
    /// By start and end in seconds and by origin.
    rows: BTreeMap<(i64, i64, String), u64>,
    late: BTreeSet<(usize, usize)>,
    rejects: BTreeSet<(usize, usize)>,
    counted: u64,
    tombstones: u64,
    gaps: u64,
    /// Windows that a counted record was late for.
    late_hits: u64,
}

/// The definition: a topic partition's watermark is the greatest time counted before, less the
/// delay; a record is late for a window that ends there or before; a window is closed when it ends
/// at the least watermark or before.
fn group_by(log: &Log) -> Expected {
    let mut out = Expected::default();
    let mut windows: BTreeMap<(i64, u64), u64> = BTreeMap::new();
    let mut frontier = i64::MAX;
    for (partition, entries) in log.iter().enumerate() {
        let mut watermark = i64::MIN;
        for (offset, entry) in entries.iter().enumerate() {
            let (ts, origin) = match *entry {
                Entry::Good { ts, origin } => (ts, origin),
                Entry::Broken { .. } | Entry::Future { .. } => {
                    out.rejects.insert((partition, offset));
                    continue;
                }
                Entry::Tombstone { .. } => {
                    out.tombstones += 1;
                    continue;
                }
                Entry::Gap => {
                    out.gaps += 1;
                    continue;
                }
            };
            let last = ts.div_euclid(SLIDE_MS) * SLIDE_MS;
            let starts = (0..SIZE_MS / SLIDE_MS).map(|i| last - i * SLIDE_MS);
            let (open, missed): (Vec<i64>, Vec<i64>) =
                starts.partition(|start| start + SIZE_MS > watermark);
            if open.is_empty() {
                out.late.insert((partition, offset));
                continue;
            }
            out.counted += 1;
            out.late_hits += missed.len() as u64;
            for start in open {
                *windows.entry((start, origin)).or_default() += 1;
            }
            watermark = watermark.max(ts - DELAY_MS);
        }
        frontier = frontier.min(watermark);
    }
    out.rows = windows
        .into_iter()
        .filter(|((start, _), _)| start + SIZE_MS <= frontier)
        .map(|((start, origin), count)| {
            (
                (
                    start / 1000,
                    (start + SIZE_MS) / 1000,
                    format!("producer-{origin} (10.1.63.230)"),
                ),
                count,
            )
        })
        .collect();
    out
}

/// Runs it while a slice is produced, and kills it at a moment of that time drawn from the dice.
/// What was produced later is there when the next one starts.
fn run_and_kill(setup: &Setup, dice: &mut Dice, produce: impl FnOnce()) -> Used {
    let mut windrow = setup.start();
    windrow.wait("it counts", Duration::from_secs(60), |s| {
        s.reason.is_empty() && s.epoch.is_some()
    });
    let moment = Duration::from_millis(100 + dice.below(SLICE_MS));
    thread::scope(|scope| {
        let killed = scope.spawn(move || {
            pause(moment);
            windrow.kill()
        });
        produce();
        killed.join().expect("it ran")
    })
}

#[expect(
    clippy::disallowed_methods,
    reason = "how fast records come and when a kill does are no conditions"
)]
fn pause(time: Duration) {
    thread::sleep(time);
}

#[test]
#[ignore = "needs the real parts: make test"]
#[expect(
    clippy::too_many_lines,
    reason = "one story, told in order: each step needs what the last one left"
)]
fn a_million_records_and_ten_kills_give_the_rows_of_a_plain_group_by() {
    #[expect(clippy::disallowed_methods, reason = "it is told how long it took")]
    let begun = Instant::now();
    let name = unique("million");
    let any_time = "message.timestamp.after.max.ms=9223372036854775807";
    parts(
        &[
            "kafka",
            "topic",
            &name,
            "--partitions",
            "3",
            "--config",
            any_time,
        ],
        "",
    );
    hive_db(&name, "script");
    // No topic partition stands aside in this test: then the rows are a function of the log alone.
    let settings =
        json!({"slide": "5s", "idle-timeout": "1h", "lease": "2s", "commit-interval": "200ms"});
    let setup = Setup::new(&name, &name, "newtable", settings);

    let (mut log, mut dice, producer) = (Log::default(), Dice(1), producer());
    let mut moments = Dice(2);
    let mut used = Used::default();
    let slice = RECORDS / (KILLS + 1);
    for kill in 0..KILLS {
        let killed = run_and_kill(&setup, &mut moments, || {
            for _ in 0..PIECES {
                produce(&producer, &name, &mut dice, &mut log, slice / PIECES);
                pause(Duration::from_millis(SLICE_MS / PIECES as u64));
            }
            if kill == KILLS / 2 {
                abort_some(&name, &mut log);
            }
        });
        used = used.and(killed);
        let status = setup.ask(&["status"]);
        println!(
            "kill {}: epoch {}, {} of {RECORDS} offsets committed",
            kill + 1,
            status["epoch"],
            status["consumed"]
        );
        let consumed = status["consumed"].as_u64().expect("a number");
        assert!(
            consumed < RECORDS as u64,
            "all kills come while there is work"
        );
    }
    let mut windrow = setup.start();
    let gaps = 11;
    let rest = RECORDS + gaps - log.iter().map(Vec::len).sum::<usize>();
    produce(&producer, &name, &mut dice, &mut log, rest);
    let all = (RECORDS + gaps) as u64;
    windrow.wait(
        "all is consumed and committed",
        Duration::from_secs(90),
        |s| {
            s.consumed == all
                && s.rows == s.rows_committed
                && s.windows.iter().all(|w| Some(w.end) > s.watermark)
        },
    );
    used = used.and(windrow.stop());
    println!(
        "{RECORDS} records, {KILLS} kills: {:.1} s CPU in all runs, peak RSS {:.0} MiB, after \
         {:.1} s",
        used.cpu_s,
        used.peak_rss_mib,
        begun.elapsed().as_secs_f64()
    );

    let expected = group_by(&log);
    the_ledger_adds_up(&setup, &expected, all);
    spark_finds(&name, &expected);
}

/// What the catalog says after the end.
fn the_ledger_adds_up(setup: &Setup, expected: &Expected, all: u64) {
    let status: Status = serde_json::from_value(setup.ask(&["status"])).expect("a status");
    let found = (
        status.counted,
        status.late,
        status.rejected,
        status.tombstones,
        status.gaps,
        status.lost,
    );
    println!(
        "counted, late, rejected, tombstones, gaps, lost: {found:?}; late hits {}",
        expected.late_hits
    );
    let (late, rejects) = (expected.late.len() as u64, expected.rejects.len() as u64);
    assert_eq!(
        found,
        (
            expected.counted,
            late,
            rejects,
            expected.tombstones,
            expected.gaps,
            0
        )
    );
    assert_eq!(status.consumed, all);
    assert_eq!(
        expected.counted + late + rejects + expected.tombstones + expected.gaps,
        all
    );
    assert_eq!(
        (status.rows, status.rows_committed),
        (expected.rows.len() as u64, expected.rows.len() as u64)
    );
    let late_hits: u64 = status.lanes.iter().map(|l| l.ledger.late_hits).sum();
    assert_eq!(late_hits, expected.late_hits);
    // The drawn log has some of everything.
    for seen in [late, rejects, expected.tombstones, expected.late_hits] {
        assert!(seen > 100, "too few of a kind");
    }
}

/// All rows through beeline, as users of Kyuubi get them.
fn spark_finds(database: &str, expected: &Expected) {
    let thrift = Thrift::up(database);
    let query = |sql: &str| -> Vec<String> {
        // Tab-separated, below a line with the columns' names.
        thrift
            .beeline(&["-t", sql])
            .lines()
            .skip(1)
            .map(str::to_owned)
            .collect()
    };
    let sql = "SELECT CAST(window.start AS long), CAST(window.end AS long), origin, count FROM \
               newtable ORDER BY 1, 2, 3";
    let found = query(sql);
    assert_eq!(found.len(), expected.rows.len());
    for (found, ((start, end, origin), count)) in found.iter().zip(&expected.rows) {
        assert_eq!(*found, format!("{start}\t{end}\t{origin}\t{count}"));
    }
    for (table, expect) in [
        ("newtable__late", &expected.late),
        ("newtable__rejects", &expected.rejects),
    ] {
        let found = query(&format!(
            "SELECT partition, offset FROM {table} ORDER BY 1, 2"
        ));
        let expect: Vec<String> = expect
            .iter()
            .map(|(partition, offset)| format!("{partition}\t{offset}"))
            .collect();
        assert!(
            found == expect,
            "{table}: {} rows found, {} expected",
            found.len(),
            expect.len()
        );
    }
    println!(
        "Spark found all {} rows through beeline",
        expected.rows.len()
    );
}
