//! `windrow demo`: a Kafka, a producer of records like those of the use case, windrow itself, a
//! local table and the status page, all in one process.
#![expect(
    clippy::disallowed_methods,
    reason = "it waits for the demo's time to pass"
)]

use crate::io::http::{self, Handle};
use crate::io::kafka::mock::{Demo, DemoProducer, DemoSent, MockKafka};
use crate::run::cli;
use crate::run::clients;
use crate::run::running;
use anyhow::anyhow;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use windrow_core::settings::config::{Config, Secrets};
use windrow_core::shown::status::Status;
use windrow_core::shown::tables::rows_table;
use windrow_core::table::hive::TableKind;

const TOPIC: &str = "test-topic";
/// kafka-test-app makes as many.
const PARTITIONS: i32 = 5;
/// How often the view is drawn again.
const REDRAW: Duration = Duration::from_millis(250);
/// How long the last windows may take to close after the producer has stopped.
const LAST_WINDOWS_MAX: Duration = Duration::from_secs(20);
/// The port of the status page. A running windrow has the same one by default.
const PAGE_PORT: u16 = 8080;
/// How many rows of the table are printed at the end.
const ROWS_SHOWN: usize = 10;

/// Runs the demo and prints what has come of it.
///
/// # Errors
/// A part cannot be started, or the ledger differs from what was sent.
pub fn run(demo: &cli::Demo) -> anyhow::Result<()> {
    let dir = create_folder()?;
    let kafka = MockKafka::start(TOPIC, PARTITIONS).map_err(|why| anyhow!(why))?;
    let config = config(&kafka.bootstrap(), &dir)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let mut parts = clients::open(&config, &Secrets::default())?;
    let mut look = clients::open(&config, &Secrets::default())?;
    parts.config = None;
    // How to read the table without a metastore is said by its files, so none may stand for others.
    parts.settings.compaction.settled_ms = i64::MAX;
    let running = running::start(parts, runtime.handle())?;
    let page = serve_page(&runtime, running.handle.clone())?;
    let producer = DemoProducer::start(Demo {
        bootstrap: kafka.bootstrap(),
        topic: TOPIC.to_owned(),
        partitions: PARTITIONS,
        origins: demo.origins,
        rate: demo.rate,
        seed: 1,
    })
    .map_err(|why| anyhow!(why))?;
    println!(
        "windrow demo: {} records a second from {} origins, through a Kafka topic of \
         {PARTITIONS} partitions,\n\
         counted in windows of 2 s by origin into a table in {}\n\
         status page: http://{page}/\n",
        demo.rate,
        demo.origins,
        dir.display()
    );
    let mut view = View {
        terminal: std::io::stdout().is_terminal(),
        lines: 0,
        epoch: None,
    };
    let sent = watch_counting(
        &mut view,
        &running.handle.status,
        producer,
        Duration::from_millis(demo.for_ms),
    )?;
    running.stop.stop();
    running.join().map_err(|reason| anyhow!(reason))?;
    let last = runtime.block_on(clients::look(&mut look))?;
    let rows = runtime.block_on(clients::newest_rows(
        &last.table,
        TableKind::Chunks,
        &mut look.look,
        &look.store,
        ROWS_SHOWN,
    ))?;
    view.draw(&last, sent);
    println!(
        "\nthe newest rows of {} in all:\n{}",
        last.rows,
        rows_table(&rows)?
    );
    println!("{}", ledger(&last, sent));
    println!("{}", how_to_read(&dir));
    if last.consumed != sent.total() {
        return Err(anyhow!(
            "{} records were sent, {} are in the ledger",
            sent.total(),
            last.consumed
        ));
    }
    Ok(())
}

/// Serves the status page and all else that a running windrow serves, for as long as the runtime
/// lives. Gives the address: port 8080 of loopback, or any free port where another program has it.
fn serve_page(runtime: &Runtime, handle: Handle) -> anyhow::Result<SocketAddr> {
    let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let listener = runtime
        .block_on(http::bind(loopback(PAGE_PORT)))
        .or_else(|_| runtime.block_on(http::bind(loopback(0))))?;
    let address = listener.local_addr()?;
    runtime.spawn(http::serve(listener, handle, std::future::pending()));
    Ok(address)
}

/// Draws how the records are counted, for the given time and until the last windows are closed.
/// Says what was sent.
fn watch_counting(
    view: &mut View,
    status: &watch::Receiver<std::sync::Arc<Status>>,
    producer: DemoProducer,
    time: Duration,
) -> anyhow::Result<DemoSent> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        view.draw(&status.borrow(), producer.sent());
        std::thread::sleep(REDRAW);
    }
    let sent = producer.stop().map_err(|why| anyhow!(why))?;
    let deadline = Instant::now() + LAST_WINDOWS_MAX;
    // The topic is quiet from here on, so the last windows close once all records are read.
    let done = |s: &Status| s.consumed >= sent.total() && s.windows.is_empty() && s.lag == Some(0);
    while !done(&status.borrow()) && Instant::now() < deadline {
        view.draw(&status.borrow(), sent);
        std::thread::sleep(REDRAW);
    }
    Ok(sent)
}

/// Makes a new folder for this run. What an earlier run has written stays.
fn create_folder() -> anyhow::Result<PathBuf> {
    let base = std::env::temp_dir();
    for n in 1.. {
        let dir = base.join(format!("windrow-demo-{n}"));
        match std::fs::create_dir(&dir) {
            Ok(()) => return Ok(dir),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => {
                return Err(anyhow!(
                    "cannot create folder \"{}\": {error}; \
                     set TMPDIR to a folder that you may write to",
                    dir.display()
                ));
            }
        }
    }
    unreachable!("one of them is free")
}

fn config(bootstrap: &str, dir: &Path) -> anyhow::Result<Config> {
    let text = format!(
        "kafka: {{ bootstrap: '{bootstrap}', topic: {TOPIC}, security: plaintext }}\n\
         table: {{ name: demo }}\ncatalog: 'local:{}'\n\
         window: 2s\nwatermark-delay: 1s\ncommit-interval: 1s\n\
         idle-timeout: 2s\nquiet-timeout: 4s\n",
        dir.display()
    );
    Ok(Config::parse(&text)?)
}

/// What the demo shows while it runs.
struct View {
    terminal: bool,
    /// How many lines were drawn last time; the next ones are drawn over them.
    lines: usize,
    /// The last epoch that has its line, where it is not a terminal.
    epoch: Option<u64>,
}

impl View {
    /// Draws over the same lines on a terminal, and otherwise writes one line for each new epoch.
    fn draw(&mut self, status: &Status, sent: DemoSent) {
        let mut out = String::new();
        if self.terminal {
            if self.lines > 0 {
                let _ = write!(out, "\x1b[{}A\x1b[J", self.lines);
            }
            let text = dashboard(status, sent);
            self.lines = text.lines().count();
            out += &text;
        } else if self.epoch != status.epoch {
            self.epoch = status.epoch;
            let _ = writeln!(
                out,
                "epoch {:>3}: {:>7} records counted, {:>4} late, {:>4} rejected; \
                 {:>4} rows in {:>3} files, windows closed through {}",
                status.epoch.unwrap_or(0),
                status.counted,
                status.late,
                status.rejected,
                status.rows,
                status.files,
                status.watermark.map_or("-".to_owned(), |t| t.to_string())
            );
        }
        let mut stdout = std::io::stdout().lock();
        let _ = stdout
            .write_all(out.as_bytes())
            .and_then(|()| stdout.flush());
    }
}

fn dashboard(status: &Status, sent: DemoSent) -> String {
    let mut out = String::new();
    let _ = writeln!(
        out,
        "sent     {:>9}   counted {:>9}   late {:>6}   rejected {:>6}",
        sent.total(),
        status.counted,
        status.late,
        status.rejected
    );
    let _ = writeln!(
        out,
        "table    {:>9} rows in {} files, epoch {}",
        status.rows,
        status.files,
        status.epoch.map_or("-".to_owned(), |e| e.to_string())
    );
    let _ = writeln!(
        out,
        "closed through {}",
        status.watermark.map_or("-".to_owned(), |t| t.to_string())
    );
    let greatest = status
        .windows
        .iter()
        .map(|w| w.count)
        .max()
        .unwrap_or(0)
        .max(1);
    let newest = status.windows.len().saturating_sub(6);
    let _ = writeln!(out, "open windows:");
    for window in &status.windows[newest..] {
        let bar = usize::try_from(window.count * 40 / greatest).unwrap_or(0);
        let _ = writeln!(
            out,
            "  {} .. {}  {:>7} {}",
            window.start,
            window.end,
            window.count,
            "#".repeat(bar)
        );
    }
    out
}

fn ledger(status: &Status, sent: DemoSent) -> String {
    format!(
        "the ledger: {} sent = {} consumed = {} counted + {} late + {} rejected\n\
         (sent: {} good, {} half a minute late, {} not JSON, {} without an origin)",
        sent.total(),
        status.consumed,
        status.counted,
        status.late,
        status.rejected,
        sent.good,
        sent.late,
        sent.broken,
        sent.no_origin
    )
}

fn how_to_read(dir: &Path) -> String {
    let files = format!(
        "{}/_windrow/default.demo/rows/*/*/part.parquet",
        dir.display()
    );
    format!(
        "the Parquet files stay in {}; read them with\n  \
         DuckDB:   SELECT * FROM read_parquet('{files}') ORDER BY \"window\";\n  \
         PySpark:  spark.read.parquet(\"{files}\").show(truncate=False)",
        dir.display()
    )
}
