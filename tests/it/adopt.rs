//! `windrow adopt` with a local catalog and a mocked Kafka. A Spark job is played here by its
//! rules: it reads batches, keeps open windows in a state, and writes files, its log of files and
//! its checkpoint in Spark's order. It is stopped at each point of a batch.
#![expect(
    clippy::disallowed_methods,
    reason = "it waits for windrow, with a deadline"
)]

use crate::rng::Rng;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use windrow::io::kafka::mock::MockKafka;
use windrow::run::adopt::{Adoption, Wish, adopt};
use windrow::run::verify::{Options, verify};
use windrow::run::{clients, running};
use windrow_core::settings::config::{Config, Secrets};
use windrow_core::table::file::{Timestamps, read_rows, write_rows};
use windrow_core::table::hive::TableKind;
use windrow_core::table::listing::Value;
use windrow_core::values::record::Key;
use windrow_core::values::row::Row;
use windrow_core::values::shape::Shape;
use windrow_core::values::time::EventTime;
use windrow_core::verify::report::Report;

const TOPIC: &str = "clicks";
const START_MS: i64 = 1_725_219_720_000;
const DELAY_MS: i64 = 10_000;
const SIZE_MS: i64 = 10_000;

/// Window start and key → count.
type Counts = BTreeMap<(i64, String), u64>;

/// Where in its last batch the job was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Killed {
    /// `commits/N` is there.
    Between,
    /// `offsets/N + 1` is there, and a file that no log names.
    InTheNext,
    /// `_spark_metadata/N` is there, but `commits/N` is not.
    BeforeCommit,
}

/// The records of a topic partition: time and key, by offset.
type Log = Vec<(i64, String)>;

/// A Spark job with windows of 10 s, as far as its directories show it.
struct SparkJob<'a> {
    table: &'a Path,
    checkpoint: &'a Path,
    slide_ms: i64,
    state: Counts,
    /// The watermark of the next batch.
    watermark: i64,
    newest: i64,
    batch: u64,
    next: [usize; 2],
    written: Counts,
}

fn windows_of(time: i64, slide_ms: i64) -> impl Iterator<Item = i64> {
    let last = time.div_euclid(slide_ms) * slide_ms;
    (0..SIZE_MS / slide_ms).map(move |n| last - n * slide_ms)
}

fn put(path: &Path, bytes: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn source(offsets: [usize; 2]) -> String {
    format!(
        "{{\"{TOPIC}\":{{\"0\":{},\"1\":{}}}}}",
        offsets[0], offsets[1]
    )
}

impl SparkJob<'_> {
    fn shape(&self) -> Shape {
        Shape::count_by_origin(TOPIC, SIZE_MS, self.slide_ms)
    }

    fn plan(&self, to: [usize; 2]) {
        let text = format!(
            "v1\n{{\"batchWatermarkMs\":{},\"batchTimestampMs\":1,\"conf\":{{}}}}\n{}",
            self.watermark,
            source(to)
        );
        put(
            &self.checkpoint.join(format!("offsets/{}", self.batch)),
            text,
        );
    }

    /// A batch up to these offsets.
    fn run(&mut self, logs: &[Log; 2], to: [usize; 2], commits: bool) {
        if self.batch == 0 {
            let text = format!("\0v1\n{}", source([0, 0]));
            put(&self.checkpoint.join("sources/0/0"), text);
        }
        self.plan(to);
        for (log, (from, to)) in logs.iter().zip(self.next.into_iter().zip(to)) {
            for (time, key) in &log[from..to] {
                self.newest = self.newest.max(*time);
                for start in windows_of(*time, self.slide_ms) {
                    if start + SIZE_MS > self.watermark {
                        *self.state.entry((start, key.clone())).or_default() += 1;
                    }
                }
            }
        }
        let watermark = self.watermark;
        let closed: Counts = self
            .state
            .extract_if(.., |(start, _), _| start + SIZE_MS <= watermark)
            .collect();
        let (mut names, half) = (Vec::new(), closed.len().div_ceil(2).max(1));
        let all: Vec<_> = closed.iter().collect();
        for (n, part) in all.chunks(half).enumerate() {
            let rows = part.iter().map(|((start, key), count)| Row {
                start: EventTime(*start),
                end: EventTime(start + SIZE_MS),
                key: Arc::from(Key::of(&[Some(key)]).0),
                count: **count,
                accs: Box::default(),
            });
            let rows: Vec<Row> = rows.collect();
            let bytes = write_rows(&self.shape(), Timestamps::Int96, &rows, &[]);
            let name = format!("part-{n:05}-{}.snappy.parquet", self.batch);
            put(&self.table.join(&name), bytes);
            names.push(name);
        }
        self.write_log(&names);
        self.written.extend(closed);
        if commits {
            let text = format!(
                "v1\n{{\"nextBatchWatermarkMs\":{}}}",
                self.newest - DELAY_MS
            );
            put(
                &self.checkpoint.join(format!("commits/{}", self.batch)),
                text,
            );
        }
        (self.next, self.batch) = (to, self.batch + 1);
        self.watermark = self.watermark.max(self.newest - DELAY_MS);
    }

    /// Every tenth log has all lines before it as well.
    fn write_log(&self, names: &[String]) {
        let folder = self.table.join("_spark_metadata");
        let line = |name: &String| {
            let path = self.table.join(name);
            let path = path.display();
            format!(
                "\n{{\"path\":\"file://{path}\",\"size\":1,\"isDir\":false,\"action\":\"add\"}}"
            )
        };
        let lines: String = names.iter().map(line).collect();
        let (n, batch) = (self.batch, self.batch.to_string());
        if (n + 1) % 10 != 0 {
            return put(&folder.join(batch), format!("v1{lines}"));
        }
        let mut all = String::from("v1");
        for earlier in (n - 9)..n {
            let text = fs::read_to_string(folder.join(earlier.to_string())).unwrap();
            all += text.strip_prefix("v1").unwrap();
            // Spark deletes them later; here at once.
            fs::remove_file(folder.join(earlier.to_string())).unwrap();
        }
        if n >= 10 {
            let before = format!("{}.compact", n - 10);
            let text = fs::read_to_string(folder.join(before)).unwrap();
            all.insert_str(2, text.strip_prefix("v1").unwrap());
        }
        put(&folder.join(format!("{n}.compact")), all + &lines);
    }
}

/// Two topic partitions, with times that go on and are taken back by less than the delay.
fn draw_logs(rng: &mut Rng, records: usize) -> [Log; 2] {
    let mut logs = [Log::new(), Log::new()];
    for i in 0..records {
        let back = i64::try_from(rng.below(9_000)).unwrap();
        let time = START_MS + DELAY_MS + i64::try_from(i).unwrap() * 250 - back;
        logs[i % 2].push((time, format!("key{}", rng.below(3))));
    }
    logs
}

fn count(logs: &[Log; 2], slide_ms: i64) -> Counts {
    let mut counts = Counts::new();
    for (time, key) in logs.iter().flatten() {
        for start in windows_of(*time, slide_ms) {
            *counts.entry((start, key.clone())).or_default() += 1;
        }
    }
    counts
}

fn send(kafka: &MockKafka, logs: &[Log; 2], from: [usize; 2], to: [usize; 2]) {
    for (p, log) in (0..).zip(logs) {
        let at = usize::try_from(p).unwrap();
        let records: Vec<(i64, String)> = log[from[at]..to[at]]
            .iter()
            .map(|(time, key)| (*time, format!("{{\"origin\":\"{key}\"}}")))
            .collect();
        let records = records
            .iter()
            .map(|(time, value)| (*time, Some(value.as_bytes())));
        kafka.send(TOPIC, p, records).unwrap();
    }
}

struct World<'a> {
    dir: &'a Path,
    config: Config,
    runtime: tokio::runtime::Runtime,
}

impl World<'_> {
    fn new<'a>(dir: &'a Path, kafka: &MockKafka, slide_ms: i64) -> World<'a> {
        let place = dir.display();
        let config = Config::parse(&format!(
            "kafka: {{ bootstrap: '{}', topic: {TOPIC}, security: plaintext }}\n\
             table: {{ name: newtable, warehouse: {place}/new }}\ncatalog: local:{place}/catalog\n\
             slide: {slide_ms}ms\ncommit-interval: 200ms\nidle-timeout: 500ms\nmax-future: 87600h",
            kafka.bootstrap()
        ));
        World {
            dir,
            config: config.unwrap(),
            runtime: tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap(),
        }
    }

    fn adopt(&self, dry_run: bool) -> anyhow::Result<Adoption> {
        let wish = Wish {
            checkpoint: self.dir.join("checkpoint").display().to_string(),
            table_directory: Some(self.dir.join("newtable").display().to_string()),
            dry_run,
            look_again_after: Duration::from_millis(1),
        };
        let secrets = Secrets::default();
        self.runtime.block_on(adopt(&self.config, &secrets, &wish))
    }

    fn verify(&self) -> Report {
        let parts = clients::open(&self.config, &Secrets::default()).unwrap();
        let options = Options {
            deep: true,
            memory_max: 64 << 20,
            ..Options::default()
        };
        self.runtime
            .block_on(verify(parts.into(), options, &mut |_| {}))
            .unwrap()
    }

    fn rows(&self) -> Counts {
        let mut parts = clients::open(&self.config, &Secrets::default()).unwrap();
        self.runtime.block_on(async {
            let mut counts = Counts::new();
            let files = parts.look.files(TableKind::Chunks, 10_000).await.unwrap();
            for file in files.newest {
                let bytes = parts.store.get(&file.file.key).await.unwrap().unwrap();
                for row in read_rows(&bytes, usize::MAX).unwrap().rows {
                    let [
                        Value::Window { start, .. },
                        Value::Text(key),
                        Value::Integer(n),
                    ] = row.as_slice()
                    else {
                        panic!("{row:?}");
                    };
                    let n = u64::try_from(*n).unwrap();
                    let before = counts.insert((start.0, key.clone()), n);
                    assert_eq!(before, None, "a row is there twice");
                }
            }
            counts
        })
    }

    /// Counts until so many records are accounted for, and ends.
    fn count_until(&self, consumed: u64) -> u64 {
        let mut parts = clients::open(&self.config, &Secrets::default()).unwrap();
        parts.config = None;
        let running = running::start(parts, self.runtime.handle()).unwrap();
        let end = Instant::now() + Duration::from_secs(30);
        let status = loop {
            let status = Arc::clone(&running.handle.status.borrow());
            let idle = !status.lanes.is_empty() && status.lanes.iter().all(|lane| lane.idle);
            if status.consumed >= consumed && idle {
                break status;
            }
            assert!(Instant::now() < end, "{status:#?}");
            std::thread::sleep(Duration::from_millis(20));
        };
        assert_eq!((status.late, status.rejected), (0, 0));
        running.stop.stop();
        running.join().unwrap();
        status.adopted
    }
}

#[test]
fn nothing_is_lost_or_doubled_wherever_the_job_was_killed() {
    let cases = [
        (Killed::Between, 10_000, 13),
        (Killed::InTheNext, 10_000, 8),
        (Killed::BeforeCommit, 10_000, 10),
        (Killed::Between, 5_000, 11),
        (Killed::BeforeCommit, 5_000, 2),
        (Killed::InTheNext, 10_000, 1),
    ];
    std::thread::scope(|scope| {
        for (seed, case) in (1..).zip(cases) {
            scope.spawn(move || adopt_and_count_on(seed, case));
        }
    });
}

fn adopt_and_count_on(seed: u64, (killed, slide_ms, batches): (Killed, i64, usize)) {
    let mut rng = Rng(seed);
    let dir = tempfile::tempdir().unwrap();
    let kafka = MockKafka::start(TOPIC, 2).unwrap();
    let world = World::new(dir.path(), &kafka, slide_ms);
    let logs = draw_logs(&mut rng, 1200);
    let (table, checkpoint) = (dir.path().join("newtable"), dir.path().join("checkpoint"));
    let mut job = SparkJob {
        table: &table,
        checkpoint: &checkpoint,
        slide_ms,
        state: Counts::new(),
        watermark: 0,
        newest: 0,
        batch: 0,
        next: [0; 2],
        written: Counts::new(),
    };
    for batch in 1..=batches {
        let more = || batch * 35;
        let commits = batch < batches || killed != Killed::BeforeCommit;
        job.run(&logs, [more(), more() + 3], commits);
    }
    let (read, written) = (job.next, job.written.clone());
    if killed == Killed::InTheNext {
        job.plan([read[0] + 30, read[1] + 30]);
        put(
            &table.join("part-00000-garbage.snappy.parquet"),
            "half a file",
        );
    }
    send(&kafka, &logs, [0; 2], [read[0] + 40, read[1] + 40]);

    let dry = world.adopt(true).unwrap();
    assert_eq!(dry.adopted.rows, written.len() as u64, "{killed:?}");
    let adopted = world.adopt(false).unwrap();
    assert_eq!(adopted.rows_after, written.len() as u64);
    assert_eq!(world.rows(), written, "{killed:?}");
    let again = world.adopt(false).unwrap_err().to_string();
    assert!(again.contains("has counted it already"), "{again}");

    // It reads on through a restart, and then all the rest.
    let starts: i64 = adopted.adopted.next_offsets.values().sum::<i64>() - adopted.offsets_again;
    let ends = [read[0] + 40, read[1] + 40];
    let consumed = (ends[0] + ends[1]) as u64 - u64::try_from(starts).unwrap();
    world.count_until(consumed);
    send(&kafka, &logs, ends, [logs[0].len(), logs[1].len()]);
    let consumed = 1200 - u64::try_from(starts).unwrap();
    let adopted = world.count_until(consumed);
    println!(
        "{killed:?} slide {slide_ms}: {} rows, {adopted} adopted",
        written.len()
    );
    let newest = logs.iter().flatten().map(|(time, _)| *time).max().unwrap();
    let mut all = count(&logs, slide_ms);
    all.retain(|(start, _), _| start + SIZE_MS <= newest - DELAY_MS);
    assert_eq!(world.rows(), all, "{killed:?} slide {slide_ms}");

    // Counted again, the log gives all that the job had not written.
    let report = world.verify();
    assert_eq!(report.found.differences, 0, "{}", report.text());
    let recounted = report.recounted.expect("the log has all of it");
    assert_eq!((recounted.after_epoch, recounted.rows > 0), (0, true));
}
