//! A year of a table, played in simulated time: windrow's engine, a real PostgreSQL with Hive's
//! schema and real files, with merges, retention, folding, crashes and restarts. Nothing may grow
//! after the first days beside the days that are kept: neither what readers meet, nor what is
//! stored, nor the time that a commit or a restart takes.
//!
//! Only Kafka and time are made up. The log is a function of its offsets, and PostgreSQL's clock is
//! a sequence that the test sets before each step. In between, everything that the engine asks for
//! is done for real and takes no simulated time.
//!
//! Windows are of ten seconds all the time. In the first and in the last days they are committed
//! one by one, and in between six by six, which gives the same rows: a commit takes PostgreSQL some
//! milliseconds, so a year of one every ten seconds would be played for a working day.
#![expect(
    clippy::disallowed_methods,
    reason = "it measures how long commits, restarts and queries take"
)]
#![expect(clippy::cast_precision_loss, reason = "a picture needs no more digits")]

use crate::harness::{Setup, Spark, env, hive_db, psql, unique};
use plotters::prelude::*;
use serde_json::json;
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::mpsc as async_mpsc;
use tokio_postgres::NoTls;
use windrow::io::store::Store;
use windrow::run::catalog_task::{CatalogReport, CatalogTask, CatalogWork};
use windrow::run::clients;
use windrow::run::merging::Merging;
use windrow::run::perform::ask_store;
use windrow_core::engine::{
    Answer, BrokersAnswer, BrokersRequest, CatalogAnswer, CatalogRequest, Effect, Engine, Input,
    LogEnd, Request, Rules, State, StoreAnswer, StoreRequest, TopicFacts,
};
use windrow_core::settings::config::{Config, Secrets};
use windrow_core::values::record::{Batch, Offset, Record};
use windrow_core::values::time::{Mono, WallTime};

/// 27 November 2025, 00:00 UTC, when the year begins.
const BEGIN_MS: i64 = 1_764_201_600_000;
/// The length of a window.
const WINDOW_MS: i64 = 10_000;
const DAY_MS: i64 = 86_400_000;
/// Records in a window, each of another key.
const KEYS: i64 = 5;
/// Kafka's retention.
const LOG_KEPT_MS: i64 = 7 * DAY_MS;
/// Of so many records one comes an hour late, and one cannot be counted.
const ODD_ONE_IN: i64 = 5000;
/// Records that one batch has at most.
const BATCH_MAX: i64 = 5000;

/// What is played.
#[derive(Clone, Copy)]
struct Plan {
    days: i64,
    /// So many of them at the beginning and at the end have a commit for each window.
    busy_days: i64,
    /// Of the table's rows.
    retain_days: i64,
    /// Between two crashes, in commits; the exact place is drawn.
    crash_every: u64,
    /// On these days Spark reads the table.
    spark_days: &'static [i64],
}

/// The record at an offset: the log is a function of its offsets.
fn record_at(offset: Offset) -> (i64, &'static [u8]) {
    const VALUES: [&[u8]; KEYS as usize] = [
        br#"{"origin":"berlin"}"#,
        br#"{"origin":"cairo"}"#,
        br#"{"origin":"lima"}"#,
        br#"{"origin":"oslo"}"#,
        br#"{"origin":"tokyo"}"#,
    ];
    let (window, key) = (offset / KEYS, offset % KEYS);
    let time = BEGIN_MS + window * WINDOW_MS + key * 1000;
    match offset % ODD_ONE_IN {
        4999 => (time, br#"{"origin":1.5}"#),
        4997 => (time - 3_600_000, VALUES[key as usize]),
        _ => (time, VALUES[key as usize]),
    }
}

/// Consecutive records of the log.
struct Logged(Offset, Offset);

impl Batch for Logged {
    fn each(&self, f: &mut dyn FnMut(Record<'_>)) {
        for offset in self.0..self.1 {
            let (timestamp_ms, value) = record_at(offset);
            f(Record {
                offset,
                timestamp_ms,
                value: Some(value),
            });
        }
    }
}

/// PostgreSQL's clock, as far as this database is concerned.
struct Clock {
    client: tokio_postgres::Client,
    statement: tokio_postgres::Statement,
}

impl Clock {
    /// Makes the clock of this database one that can be set.
    fn make(database: &str, runtime: &Runtime) -> Self {
        psql(
            database,
            &format!(
                "CREATE SEQUENCE public.simulated_ms MINVALUE 0 START {BEGIN_MS}; \
                 GRANT ALL ON SEQUENCE public.simulated_ms TO PUBLIC; \
                 SET allow_system_table_mods = on; \
                 ALTER FUNCTION pg_catalog.clock_timestamp() RENAME TO clock_timestamp_right; \
                 CREATE FUNCTION pg_catalog.clock_timestamp() RETURNS timestamptz \
                 LANGUAGE sql VOLATILE \
                 AS 'SELECT to_timestamp(last_value / 1000.0) FROM public.simulated_ms'"
            ),
        );
        let login = format!(
            "postgresql://{database}:{}@{}/{database}",
            env("PG_PASSWORD"),
            env("PG")
        );
        runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(&login, NoTls)
                .await
                .expect("it is up");
            tokio::spawn(connection);
            let set = "SELECT setval('public.simulated_ms', $1)";
            let statement = client.prepare(set).await.expect("it is there");
            Self { client, statement }
        })
    }

    fn set(&self, runtime: &Runtime, now_ms: i64) {
        runtime
            .block_on(self.client.query(&self.statement, &[&now_ms]))
            .expect("a time");
    }
}

/// One process of windrow, from its start to its crash.
struct Process {
    engine: Engine,
    to_catalog: async_mpsc::UnboundedSender<CatalogWork>,
    from_catalog: mpsc::Receiver<CatalogReport>,
    merging: Merging,
    /// The next offset to read; `None` while nothing is read.
    reads: Option<Offset>,
    held: bool,
    /// What is still to be done.
    effects: VecDeque<Effect>,
    /// It dies before it does the effect with this number.
    dies_at: u64,
    done: u64,
}

/// The world of the year.
struct Year {
    plan: Plan,
    runtime: Runtime,
    config: Config,
    secrets: Secrets,
    rules: Rules,
    store: Store,
    clock: Clock,
    now_ms: i64,
    random: u64,
    /// Since the last sample: how long commits took.
    commits: Vec<Duration>,
    /// How long restarts took, from taking the table to counting, with all that was to be read.
    restarts: Vec<Duration>,
    merges: u64,
}

impl Year {
    fn end_offset(&self) -> Offset {
        (self.now_ms - BEGIN_MS) / WINDOW_MS * KEYS
    }

    fn log_start(&self) -> Offset {
        (self.now_ms - LOG_KEPT_MS - BEGIN_MS).max(0) / WINDOW_MS * KEYS
    }

    /// A number below `n`, the same in each run.
    fn draw(&mut self, n: u64) -> u64 {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % n
    }

    fn start(&mut self) -> Process {
        let (to_catalog, work) = async_mpsc::unbounded_channel();
        let (report, from_catalog) = mpsc::channel();
        let clients = clients::open(&self.config, &self.secrets).expect("settings");
        let owner_id = format!("{:032x}", u128::from(self.draw(u64::MAX)));
        let task = CatalogTask {
            catalog: clients.catalog,
            instance: owner_id.clone(),
            owner_id,
            lease_ms: self.rules.lease_ms,
            database: self.rules.database.clone(),
            init_metastore: false,
        };
        self.runtime
            .spawn(task.run(work, move |said| report.send(said).is_ok()));
        // An effect of a commit is one of some ten.
        let dies_at = self.plan.crash_every * 5 + self.draw(self.plan.crash_every * 10);
        Process {
            engine: Engine::new(self.rules.clone()),
            to_catalog,
            from_catalog,
            merging: Merging::new(u64::MAX),
            reads: None,
            held: false,
            effects: VecDeque::new(),
            dies_at,
            done: 0,
        }
    }

    /// How long it is from one commit to the next now.
    fn step_ms(&self) -> i64 {
        let (day, busy) = (self.day(), self.plan.busy_days);
        if (busy..self.plan.days - busy).contains(&day) {
            6 * WINDOW_MS
        } else {
            WINDOW_MS
        }
    }

    /// Time goes on to the next commit. Returns whether the process is still alive.
    fn step(&mut self, process: &mut Process) -> bool {
        self.now_ms += self.step_ms();
        self.clock.set(&self.runtime, self.now_ms);
        self.feed(process, self.tick());
        loop {
            while let Some(effect) = process.effects.pop_front() {
                process.done += 1;
                if process.done >= process.dies_at {
                    return false;
                }
                self.perform(process, effect);
            }
            let Some(next) = process.reads.filter(|_| !process.held) else {
                return true;
            };
            let to = self.end_offset().min(next + BATCH_MAX);
            if to <= next {
                return true;
            }
            process.reads = Some(to);
            let mut out = Vec::new();
            let input = Input::Records {
                partition: 0,
                leader_epoch: 0,
                batch: &Logged(next, to),
            };
            process.engine.step(input, &mut out);
            process.effects.extend(out);
        }
    }

    fn tick(&self) -> Input<'static> {
        Input::Tick {
            now: Mono((self.now_ms - BEGIN_MS).unsigned_abs()),
            wall: WallTime(self.now_ms),
        }
    }

    fn feed(&self, process: &mut Process, input: Input<'_>) {
        let mut out = Vec::new();
        process.engine.step(input, &mut out);
        process.effects.extend(out);
    }

    fn perform(&mut self, process: &mut Process, effect: Effect) {
        match effect {
            Effect::Ask(Request::Catalog(request)) => self.ask_catalog(process, request),
            Effect::Ask(Request::Brokers(request)) => {
                let answer = Answer::Brokers(self.ask_brokers(&request));
                self.feed(process, Input::Answer(answer));
            }
            Effect::Ask(Request::Store(StoreRequest::Merge(order))) => {
                self.merges += 1;
                let (send, merged) = mpsc::channel();
                let report = move |answer: StoreAnswer, _| drop(send.send(answer));
                process
                    .merging
                    .begin(self.runtime.handle(), self.store.clone(), *order, report);
                let answer = merged.recv().expect("a merge ends");
                self.feed(process, Input::Answer(Answer::Store(answer)));
            }
            Effect::Ask(Request::Store(request)) => {
                let answer = self.runtime.block_on(ask_store(&self.store, request));
                self.feed(process, Input::Answer(Answer::Store(answer)));
            }
            Effect::Start { offset, .. } => {
                assert!(offset >= self.log_start(), "the log has it");
                (process.reads, process.held) = (Some(offset), false);
            }
            Effect::StopAll => process.reads = None,
            Effect::Hold { .. } => process.held = true,
            Effect::Unhold { .. } => process.held = false,
            Effect::UseWarehouse(_) | Effect::CommitGroup(_) | Effect::Report(_) => {}
            Effect::ReportLostEpochs { first, .. } => panic!("epoch {first} is lost"),
            Effect::ReportForeignKeys(keys) => panic!("foreign keys {keys:?}"),
            Effect::ReportLeftOut { key, trouble } => panic!("{key}: {trouble:?}"),
            Effect::Exit(why) => panic!("windrow has ended: {why:?}"),
        }
    }

    fn ask_catalog(&mut self, process: &mut Process, request: CatalogRequest) {
        let is_commit = matches!(request, CatalogRequest::Commit { .. });
        let is_release = matches!(request, CatalogRequest::Release { .. });
        let began = Instant::now();
        process
            .to_catalog
            .send(CatalogWork::Perform(request))
            .expect("the catalog's task runs");
        if is_release {
            return;
        }
        loop {
            match process
                .from_catalog
                .recv()
                .expect("the catalog's task answers")
            {
                CatalogReport::Answer(answer) => {
                    if is_commit {
                        self.commits.push(began.elapsed());
                    }
                    if let CatalogAnswer::Commit {
                        result: Err(error), ..
                    } = &answer
                    {
                        panic!("cannot commit: {error:?}");
                    }
                    return self.feed(process, Input::Answer(Answer::Catalog(answer)));
                }
                CatalogReport::Totals(_) | CatalogReport::Paused(_) => {}
            }
        }
    }

    fn ask_brokers(&self, request: &BrokersRequest) -> BrokersAnswer {
        let (start, end) = (self.log_start(), self.end_offset());
        match *request {
            BrokersRequest::Topic => BrokersAnswer::Topic(Ok(TopicFacts {
                cluster_id: "cluster".to_owned(),
                topic_id: "topic".to_owned(),
                partitions: [(0, (start, end))].into(),
                unknown: [].into(),
            })),
            BrokersRequest::TopicId => BrokersAnswer::TopicId(Ok("topic".to_owned())),
            BrokersRequest::LogEnd { partition } => BrokersAnswer::LogEnd {
                partition,
                end: Ok(LogEnd {
                    last_stable: end,
                    high_watermark: end,
                }),
            },
            BrokersRequest::LogLimits { partition } => BrokersAnswer::LogLimits {
                partition,
                limits: Ok((start, end)),
            },
        }
    }
}

/// What was measured at one moment.
struct Sample {
    day: i64,
    /// Table partitions of the rows in Hive.
    partitions: u64,
    /// Objects below the table's folder.
    objects: u64,
    object_bytes: u64,
    /// The whole database.
    database_bytes: u64,
    /// Rows of `epoch`, `history`, `file` and `doomed`.
    journal_rows: [u64; 4],
    /// The resident memory of this process, the playing of Kafka included.
    rss_bytes: u64,
    /// How long a commit took: median, and 99 of 100.
    commit: (Duration, Duration),
    commits: usize,
    /// The longest restart since the sample before.
    restart: Duration,
    /// How long Spark took to plan and to answer; `None` on most days.
    queries: Option<[(Duration, Duration); 4]>,
}

/// What is asked: all, one day, one hour, and a few rows. `{day}` stands for yesterday.
const QUERIES: [(&str, &str); 4] = [
    ("count(*)", "SELECT count(*) FROM year"),
    (
        "one day",
        "SELECT sum(count) FROM year__chunks WHERE date = '{day}'",
    ),
    (
        "one hour",
        "SELECT sum(count) FROM year__chunks WHERE date = '{day}' AND \
         window.start >= '{day} 12:00:00' AND window.start < '{day} 13:00:00'",
    ),
    ("LIMIT 10", "SELECT * FROM year LIMIT 10"),
];

impl Year {
    fn day(&self) -> i64 {
        (self.now_ms - BEGIN_MS) / DAY_MS
    }

    fn sample(&mut self, database: &str, folder: &Path, spark: &mut Option<Spark>) -> Sample {
        // In a day of real time autovacuum passes many times; here a day takes seconds.
        psql(database, "VACUUM");
        let number = |sql: &str| psql(database, sql).trim().parse::<u64>().expect("a number");
        let table = |name: &str| number(&format!("SELECT count(*) FROM windrow_2.{name}"));
        let mut commits = std::mem::take(&mut self.commits);
        commits.sort_unstable();
        let at = |part: usize| {
            commits
                .get(commits.len() * part / 100)
                .copied()
                .unwrap_or_default()
        };
        let (objects, object_bytes) = files_below(folder);
        let day = self.day();
        let reads = self.plan.spark_days.contains(&day) || day == self.plan.days;
        Sample {
            day,
            partitions: number("SELECT count(*) FROM \"PARTITIONS\" WHERE \"TBL_ID\" IS NOT NULL"),
            objects,
            object_bytes,
            database_bytes: number(&format!("SELECT pg_database_size('{database}')")),
            journal_rows: ["epoch", "history", "file", "doomed"].map(table),
            rss_bytes: resident_bytes(),
            commit: (at(50), at(99)),
            commits: commits.len(),
            restart: self.restarts.drain(..).max().unwrap_or_default(),
            queries: reads.then(|| {
                let spark = spark.get_or_insert_with(|| Spark::open(database));
                self.query(spark)
            }),
        }
    }

    /// What Spark takes: the second time, when its own code is warm.
    fn query(&self, spark: &mut Spark) -> [(Duration, Duration); 4] {
        let yesterday = windrow_core::values::time::EventTime(self.now_ms - DAY_MS).date();
        QUERIES.map(|(_, sql)| {
            let sql = sql.replace("{day}", &yesterday);
            let timed = |spark: &mut Spark, sql: &str| {
                let began = Instant::now();
                (spark.sql(sql), began.elapsed())
            };
            timed(spark, &sql);
            let (_, planned) = timed(spark, &format!("EXPLAIN {sql}"));
            let (_, answered) = timed(spark, &sql);
            (planned, answered)
        })
    }

    /// What the table must have: every window of the days that are kept, with a count of one for
    /// each key, and the late records that were kept.
    fn check(&self, database: &str) {
        let until = |ms: i64| (ms - BEGIN_MS) / WINDOW_MS;
        let sums = psql(
            database,
            "SELECT sum(rows), min(first_window), max(last_window) FROM windrow_2.file WHERE \
             kind = 'rows' AND retired_at IS NULL",
        );
        let fields: Vec<i64> = sums
            .trim()
            .split('|')
            .map(|n| n.parse().expect("a number"))
            .collect();
        let (rows, first, last) = (fields[0], fields[1], fields[2]);
        let oldest = (self.now_ms - self.plan.retain_days * DAY_MS).max(BEGIN_MS);
        assert!(
            first <= oldest.max(BEGIN_MS) && first >= oldest - DAY_MS - 20 * WINDOW_MS,
            "the first window is {first}, and {oldest} must be kept"
        );
        assert!(
            last >= self.now_ms - 20 * WINDOW_MS,
            "the last window is {last}"
        );
        // A record that cannot be counted, or that is late, is in no row.
        let windows = until(last) - until(first) + 1;
        let all = windows * KEYS;
        let odd = |from: i64, to: i64, which: i64| {
            let before = |n: i64| (n - which + ODD_ONE_IN - 1).div_euclid(ODD_ONE_IN);
            before(to * KEYS) - before(from * KEYS)
        };
        let (from, to) = (until(first), until(last) + 1);
        let expected = all - odd(from, to, 4999) - odd(from, to, 4997);
        assert_eq!(rows, expected, "rows of {windows} windows");
    }
}

/// How many files there are, and their bytes.
fn files_below(folder: &Path) -> (u64, u64) {
    let mut sums = (0, 0);
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let meta = entry.metadata().expect("it is there");
        let (files, bytes) = if meta.is_dir() {
            files_below(&entry.path())
        } else {
            (1, meta.len())
        };
        sums = (sums.0 + files, sums.1 + bytes);
    }
    sums
}

fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .expect("VmRSS");
    line.trim()
        .trim_end_matches(" kB")
        .parse::<u64>()
        .expect("a number")
        * 1024
}

/// A world in which nothing has been counted yet, in this database and this folder.
fn begin(plan: Plan, database: &str, folder: &Path) -> Year {
    hive_db(database, "script");
    let setup = Setup::new(
        database,
        "year",
        "year",
        json!({
            "table": {
                "warehouse": folder,
                "retain": format!("{}d", plan.retain_days),
                "retain-side": format!("{}d", plan.retain_days),
            },
            // A window is committed as soon as it is closed.
            "commit-interval": "1s",
            "lease": "5m",
            "watermark-delay": "10s",
        }),
    );
    let config = Config::parse(&setup.settings.to_string()).expect("settings");
    let secrets = windrow::io::files::load_secrets(&config).expect("secrets");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("threads");
    let clients = clients::open(&config, &secrets).expect("settings");
    Year {
        plan,
        clock: Clock::make(database, &runtime),
        runtime,
        rules: clients.settings,
        store: clients.store,
        config,
        secrets,
        now_ms: BEGIN_MS,
        random: 1,
        commits: Vec::new(),
        restarts: Vec::new(),
        merges: 0,
    }
}

/// Plays it. Returns what was measured, day by day.
fn play(plan: Plan) -> Vec<Sample> {
    let database = unique("year");
    // Memory, not a disk: a day has 17,280 objects, and this plays them in seconds.
    let folder = tempfile::tempdir_in("/dev/shm").expect("memory");
    let mut year = begin(plan, &database, folder.path());
    let (mut samples, mut spark) = (Vec::new(), None);
    let mut process = year.start();
    let (mut counted, mut step_ms) = (false, 0);
    while year.now_ms < BEGIN_MS + plan.days * DAY_MS + 600_000 {
        let stepped = Instant::now();
        let before_ms = year.now_ms;
        // Another time between two commits is a setting, so windrow is started again.
        let restarts = std::mem::replace(&mut step_ms, year.step_ms()) != year.step_ms();
        if restarts || !year.step(&mut process) {
            process = year.start();
        }
        // The step in which it takes the table, replays and counts what has come meanwhile.
        let counts = matches!(process.engine.state(), State::Counting);
        if counts && !counted {
            year.restarts.push(stepped.elapsed());
        }
        counted = counts;
        // Ten minutes after midnight, when the day before is merged.
        let is_sampled = |ms: i64| (ms - BEGIN_MS - 600_000).div_euclid(DAY_MS);
        if is_sampled(year.now_ms) != is_sampled(before_ms) {
            let sample = year.sample(&database, folder.path(), &mut spark);
            println!("{}", sample.line());
            samples.push(sample);
            year.check(&database);
        }
    }
    println!("{} merges", year.merges);
    samples
}

impl Sample {
    const HEAD: &str = "| day | partitions | objects | MB | database MB | epochs, history, files, \
        doomed | RSS MB | commit median, p99 (of) ms | restart ms | Spark: plan, answer of \
        count(*); one day; one hour; LIMIT 10 in s |";

    fn line(&self) -> String {
        let mb = |bytes: u64| bytes / 1_000_000;
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        let mut queries = String::new();
        for (planned, answered) in self.queries.into_iter().flatten() {
            let (planned, answered) = (planned.as_secs_f64(), answered.as_secs_f64());
            let _ = write!(queries, "{planned:.2}, {answered:.2}; ");
        }
        let [epochs, history, files, doomed] = self.journal_rows;
        format!(
            "| {} | {} | {} | {} | {} | {epochs}, {history}, {files}, {doomed} | {} | \
             {:.2}, {:.2} ({}) | {:.1} | {} |",
            self.day,
            self.partitions,
            self.objects,
            mb(self.object_bytes),
            mb(self.database_bytes),
            mb(self.rss_bytes),
            ms(self.commit.0),
            ms(self.commit.1),
            self.commits,
            ms(self.restart),
            queries.trim_end_matches("; ")
        )
    }
}

/// One of the charts: what its lines show, and their values at a sample.
struct Chart {
    title: &'static str,
    values: fn(&Sample) -> Vec<f64>,
}

fn charts() -> [Chart; 6] {
    let chart = |title, values| Chart { title, values };
    [
        chart("table partitions in Hive", |s| vec![s.partitions as f64]),
        chart("objects in the store, thousands", |s| {
            vec![s.objects as f64 / 1e3]
        }),
        chart("database, MB", |s| vec![s.database_bytes as f64 / 1e6]),
        chart("commit, ms: median and 99 of 100", |s| {
            [s.commit.0, s.commit.1]
                .map(|time| time.as_secs_f64() * 1e3)
                .into()
        }),
        chart("memory of the process, MB", |s| {
            vec![s.rss_bytes as f64 / 1e6]
        }),
        chart("Spark, s: count(*), one day, one hour, LIMIT 10", |s| {
            let queries = s.queries.into_iter().flatten();
            queries
                .map(|(_, answered)| answered.as_secs_f64())
                .collect()
        }),
    ]
}

/// Draws what was measured, over the days.
fn draw(samples: &[Sample], path: &Path) {
    let root = SVGBackend::new(path, (1200, 700)).into_drawing_area();
    root.fill(&WHITE).expect("a picture");
    for (area, chart) in root.split_evenly((2, 3)).iter().zip(charts()) {
        let points: Vec<(f64, Vec<f64>)> = samples
            .iter()
            .map(|sample| (sample.day as f64, (chart.values)(sample)))
            .filter(|(_, values)| !values.is_empty())
            .collect();
        let most = points
            .iter()
            .flat_map(|(_, values)| values)
            .fold(1.0, |a: f64, b| a.max(*b));
        let last = samples.last().map_or(1.0, |sample| sample.day as f64);
        let mut context = ChartBuilder::on(area)
            .caption(chart.title, ("sans-serif", 16))
            .margin(10)
            .x_label_area_size(25)
            .y_label_area_size(45)
            .build_cartesian_2d(0.0..last, 0.0..most * 1.1)
            .expect("a picture");
        context
            .configure_mesh()
            .x_desc("day")
            .draw()
            .expect("a picture");
        let colours = [BLUE, RED, GREEN, BLACK];
        for (line, colour) in colours.iter().enumerate() {
            let of_line = |(day, values): &(f64, Vec<f64>)| Some((*day, *values.get(line)?));
            let series = LineSeries::new(points.iter().filter_map(of_line), colour);
            context.draw_series(series).expect("a picture");
        }
    }
    root.present().expect("the folder is ours");
}

/// What must hold of every sample of a table that is older than a day.
fn check(samples: &[Sample], plan: Plan) {
    for sample in samples {
        let kept = sample.day.min(plan.retain_days + 1).unsigned_abs();
        let day = sample.day;
        assert!(
            sample.partitions <= 180 + kept,
            "day {day}: {} table partitions, with {kept} days kept",
            sample.partitions
        );
        // The last day's epochs, and what came since.
        assert!(
            sample.journal_rows[0] <= 9000,
            "day {day}: {} epochs",
            sample.journal_rows[0]
        );
    }
}

fn days_from(variable: &str, default: i64) -> i64 {
    std::env::var(variable).map_or(default, |days| days.parse().expect("a number of days"))
}

#[test]
#[ignore = "needs the real parts: make test"]
fn a_few_days_of_commits_leave_as_little_as_one() {
    println!("{}", Sample::HEAD);
    let plan = Plan {
        days: 3,
        busy_days: 0,
        retain_days: 1,
        crash_every: 500,
        spark_days: &[],
    };
    check(&play(plan), plan);
}

#[test]
#[ignore = "plays for more than an hour: make year"]
fn a_year_of_commits_is_flat() {
    println!("{}", Sample::HEAD);
    let plan = Plan {
        days: days_from("WINDROW_YEAR_DAYS", 365),
        busy_days: 3,
        retain_days: 90,
        crash_every: 5000,
        spark_days: &[1, 2, 10, 30, 60, 90, 120, 180, 270, 365],
    };
    let samples = play(plan);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    draw(&samples, &folder.join("year.svg"));
    let lines: Vec<String> = samples.iter().map(Sample::line).collect();
    let rule = Sample::HEAD.replace(|c| c != '|', "-");
    let table = format!("{}\n{rule}\n{}\n", Sample::HEAD, lines.join("\n"));
    fs::write(folder.join("year.md"), table).expect("the folder is ours");
    println!("a table and a picture are in {}", folder.display());
    check(&samples, plan);
}
