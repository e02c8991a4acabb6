//! The upkeep of a table from end to end, without other systems: a mock Kafka, and store and
//! catalog in a directory. Files of several commits become one, and later they are dropped.
#![expect(
    clippy::disallowed_methods,
    reason = "it waits for what a running windrow does, and its records are of yesterday"
)]

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};
use windrow::io::kafka::mock::MockKafka;
use windrow::run::clients;
use windrow::run::running::{self, Running};
use windrow_core::settings::config::{Config, Secrets};
use windrow_core::shown::status::Status;
use windrow_core::table::compaction::{Level, Times};
use windrow_core::table::hive::TableKind;

const TOPIC: &str = "clicks";
const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

fn config(kafka: &MockKafka, folder: &Path) -> Config {
    let text = format!(
        "kafka: {{ bootstrap: '{}', topic: {TOPIC}, security: plaintext }}\n\
         table: {{ name: t }}\ncatalog: 'local:{}'\n\
         watermark-delay: 0s\ncommit-interval: 100ms\n",
        kafka.bootstrap(),
        folder.display()
    );
    Config::parse(&text).unwrap()
}

/// Starts a windrow whose chunks need not be a minute old, and that keeps days so long.
fn start(config: &Config, retain_ms: Option<u64>, runtime: &tokio::runtime::Runtime) -> Running {
    let mut parts = clients::open(config, &Secrets::default()).unwrap();
    parts.config = None;
    parts.settings.compaction = Times {
        settled_ms: 500,
        ..Times::default()
    };
    parts.settings.retain_ms = retain_ms;
    running::start(parts, runtime.handle()).unwrap()
}

fn until(running: &Running, what: &str, holds: impl Fn(&Status) -> bool) -> Status {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let status = (**running.handle.status.borrow()).clone();
        if holds(&status) {
            return status;
        }
        assert!(Instant::now() < deadline, "{what}: {status:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// All rows that are committed, as JSON.
fn rows(config: &Config, runtime: &tokio::runtime::Runtime) -> String {
    let mut look = clients::open(config, &Secrets::default()).unwrap();
    let (catalog, store) = (&mut look.look, &look.store);
    let rows = clients::newest_rows("default.t", TableKind::Chunks, catalog, store, 100);
    runtime.block_on(rows).unwrap().rows.get().to_owned()
}

#[test]
fn files_of_a_closed_day_become_one_and_are_dropped_when_they_are_kept_no_longer() {
    let folder = tempfile::tempdir().unwrap();
    let kafka = MockKafka::start(TOPIC, 1).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let config = config(&kafka, folder.path());
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = i64::try_from(now.unwrap().as_millis()).unwrap();
    let yesterday = now - now.rem_euclid(DAY) - DAY;
    let send = |at: i64| {
        let values = [br#"{"origin":"a"}"#, br#"{"origin":"b"}"#];
        let records = values.map(|value| (at, Some(value.as_slice())));
        kafka.send(TOPIC, 0, records).unwrap();
    };

    let running = start(&config, None, &runtime);
    // Each hour closes the window of the one before, and is a commit of its own.
    for hour in 0..5 {
        send(yesterday + hour * HOUR);
        let rows = u64::try_from(hour).unwrap() * 2;
        until(&running, "a commit", |status| status.rows == rows);
    }
    let before = rows(&config, &runtime);
    send(now);
    let status = until(&running, "a day file", |status| {
        status.rows == 10 && status.files == 1 && status.compactions > 0
    });
    assert_eq!(status.compaction_failures, 0);
    assert!(status.compaction_read_bytes > status.compaction_written_bytes);
    assert_eq!(status.first_window.unwrap().0, yesterday);
    let after = rows(&config, &runtime);
    assert!(
        after.contains(before.trim_matches(['[', ']'])),
        "{before}\n{after}"
    );

    let mut look = clients::open(&config, &Secrets::default()).unwrap();
    let live = runtime.block_on(look.look.live_files()).unwrap();
    assert_eq!(live[0].file.level, Level::Day);
    let stored = runtime.block_on(look.store.get(&live[0].file.key)).unwrap();
    assert_eq!(stored.unwrap().len() as u64, live[0].file.bytes);

    // Another start may keep less.
    running.stop.stop();
    running.join().unwrap();
    let running = start(&config, Some(1000), &runtime);
    let status = until(&running, "an empty table", |status| {
        status.epoch.is_some() && status.files == 0
    });
    assert_eq!((status.rows, status.first_window), (0, None));
    assert_eq!(status.rows_committed, 10, "the ledger stays");
    running.stop.stop();
    running.join().unwrap();
}
