//! The upkeep of a table from end to end, without other systems: a mock Kafka, and store and
//! catalog in a directory. Files of several commits become one, and later they are dropped.
#![expect(
    clippy::disallowed_methods,
    reason = "it waits for what a running windrow does, and its records are of yesterday"
)]

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};
use windrow::io::http::{Command, Wish};
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

/// A folder, a topic and threads, all of them new.
fn bed() -> (tempfile::TempDir, MockKafka, tokio::runtime::Runtime) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    (
        tempfile::tempdir().unwrap(),
        MockKafka::start(TOPIC, 1).unwrap(),
        runtime.unwrap(),
    )
}

/// Now, and when yesterday began, in ms since 1970.
fn now_and_yesterday() -> (i64, i64) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = i64::try_from(now.unwrap().as_millis()).unwrap();
    (now, now - now.rem_euclid(DAY) - DAY)
}

/// Sends a record of origin `a` and one of origin `b`, of this time.
fn send(kafka: &MockKafka, at: i64) {
    let values = [br#"{"origin":"a"}"#, br#"{"origin":"b"}"#];
    let records = values.map(|value| (at, Some(value.as_slice())));
    kafka.send(TOPIC, 0, records).unwrap();
}

/// What an operator's wish to merge files now is answered.
fn compact(running: &Running, runtime: &tokio::runtime::Runtime) -> Result<(), String> {
    runtime.block_on(async {
        let (answer, answered) = tokio::sync::oneshot::channel();
        let wish = Wish::Compact;
        let commands = &running.handle.commands;
        commands.send(Command { wish, answer }).await.unwrap();
        answered.await.unwrap()
    })
}

/// A file that cannot be merged is left alone, and readers of the others have few files all the
/// same. Once it is put back, an operator's word is enough; windrow need not be started again.
#[test]
fn a_file_that_is_put_back_is_merged_when_an_operator_says_so() {
    let (folder, kafka, runtime) = bed();
    let config = config(&kafka, folder.path());
    let (now, yesterday) = now_and_yesterday();
    let running = start(&config, None, &runtime);
    for hour in 0..5 {
        send(&kafka, yesterday + hour * HOUR);
        let rows = u64::try_from(hour).unwrap() * 2;
        until(&running, "a commit", |status| status.rows == rows);
    }
    let mut look = clients::open(&config, &Secrets::default()).unwrap();
    let live = runtime.block_on(look.look.live_files()).unwrap();
    let path = folder.path().join(&live[0].file.key);
    let away = folder.path().join("away");
    std::fs::rename(&path, &away).unwrap();

    send(&kafka, now);
    let status = until(&running, "what is left is merged", |status| {
        status.rows == 10 && status.files == 2 && status.compaction_left_out_files == 1
    });
    assert!(
        status.compaction.contains("1 files cannot be merged"),
        "{status:?}"
    );
    let plan = runtime
        .block_on(clients::compaction_plan(&mut look))
        .unwrap();
    let (merge, []) = (&plan.merges[0], &plan.drops[..]) else {
        panic!("{plan:?}");
    };
    assert_eq!(
        (plan.count, merge.files, merge.into, merge.rows),
        (1, 2, 1, 10)
    );

    std::fs::rename(&away, &path).unwrap();
    compact(&running, &runtime).unwrap();
    let status = until(&running, "one file", |status| status.files == 1);
    assert_eq!(status.rows, 10);
    let done = |status: &Status| status.compaction_due_merges == 0;
    let status = until(&running, "nothing is due", done);
    assert_eq!(
        (status.compaction.as_str(), status.compaction_left_out_files),
        ("", 0)
    );
    compact(&running, &runtime).unwrap();
    running.stop.stop();
    running.join().unwrap();
}

#[test]
fn files_of_a_closed_day_become_one_and_are_dropped_when_they_are_kept_no_longer() {
    let (folder, kafka, runtime) = bed();
    let config = config(&kafka, folder.path());
    let (now, yesterday) = now_and_yesterday();
    let send = |at| send(&kafka, at);

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
