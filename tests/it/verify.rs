//! `windrow verify` from end to end, without other systems: a mock Kafka, and store and catalog in
//! a directory. First a table is whole, and then it is damaged in each way that a person or a disk
//! may damage it.
#![expect(
    clippy::disallowed_methods,
    reason = "it waits for what a running windrow does, and its records are of yesterday"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};
use tokio::runtime::Runtime;
use windrow::io::kafka::mock::MockKafka;
use windrow::run::clients;
use windrow::run::running::{self, Running};
use windrow::run::verify::{Options, verify};
use windrow_core::settings::config::{Config, Secrets};
use windrow_core::shown::status::Status;
use windrow_core::table::commit::{FileKind, LiveFile};
use windrow_core::table::compaction::{Level, Times};
use windrow_core::values::time::EventTime;
use windrow_core::verify::report::{Kind, Report, Stage};

const TOPIC: &str = "clicks";
const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

/// A table, and what is around it.
struct Bed {
    folder: tempfile::TempDir,
    kafka: MockKafka,
    runtime: Runtime,
    config: Config,
    /// The first millisecond of yesterday.
    yesterday: i64,
}

impl Bed {
    fn start(partitions: i32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let kafka = MockKafka::start(TOPIC, partitions).unwrap();
        let text = format!(
            "kafka: {{ bootstrap: '{}', topic: {TOPIC}, security: plaintext }}\n\
             table: {{ name: t }}\ncatalog: 'local:{}'\n\
             watermark-delay: 0s\ncommit-interval: 100ms\nidle-timeout: 1s\n",
            kafka.bootstrap(),
            folder.path().display()
        );
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = i64::try_from(now.unwrap().as_millis()).unwrap();
        Self {
            config: Config::parse(&text).unwrap(),
            folder,
            kafka,
            runtime: tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap(),
            yesterday: now - now.rem_euclid(DAY) - DAY,
        }
    }

    /// Counts; merges where `merges` says so.
    fn run(&self, merges: bool) -> Running {
        let mut parts = clients::open(&self.config, &Secrets::default()).unwrap();
        parts.config = None;
        parts.settings.compaction = Times {
            settled_ms: if merges { 500 } else { i64::MAX },
            ..Times::default()
        };
        running::start(parts, self.runtime.handle()).unwrap()
    }

    fn send(&self, partition: i32, at: i64, values: &[&str]) {
        let records = values.iter().map(|value| (at, Some(value.as_bytes())));
        self.kafka.send(TOPIC, partition, records).unwrap();
    }

    fn verify(&self, options: &Options) -> Report {
        let parts = clients::open(&self.config, &Secrets::default()).unwrap();
        let options = Options {
            memory_max: 64 << 20,
            ..options.clone()
        };
        let mut show = |report: &Report| assert_eq!(report.stage, Stage::Running);
        let verified = verify(parts.into(), options, &mut show);
        self.runtime.block_on(verified).unwrap()
    }

    fn live(&self) -> Vec<LiveFile> {
        let mut look = clients::open(&self.config, &Secrets::default()).unwrap();
        let live = self.runtime.block_on(look.look.live_files()).unwrap();
        let is_rows = |live: &LiveFile| matches!(live.file.kind, FileKind::Rows { .. });
        let mut live: Vec<LiveFile> = live.into_iter().filter(is_rows).collect();
        live.sort_by_key(|live| live.file.first_window);
        live
    }

    fn path_of(&self, key: &str) -> PathBuf {
        find(self.folder.path(), key).unwrap_or_else(|| panic!("{key} is not there"))
    }

    /// Does some damage, verifies, and mends it.
    fn damaged(&self, path: &Path, damage: impl FnOnce(&Path), options: &Options) -> Report {
        let good = fs::read(path).unwrap();
        damage(path);
        let report = self.verify(options);
        fs::write(path, good).unwrap();
        report
    }
}

/// The file below a folder whose path ends so.
fn find(folder: &Path, end: &str) -> Option<PathBuf> {
    for entry in fs::read_dir(folder).ok()? {
        let path = entry.ok()?.path();
        if path.is_dir() {
            if let Some(found) = find(&path, end) {
                return Some(found);
            }
        } else if path.ends_with(end) {
            return Some(path);
        }
    }
    None
}

fn until(running: &Running, what: &str, holds: impl Fn(&Status) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let status = (**running.handle.status.borrow()).clone();
        if holds(&status) {
            return;
        }
        assert!(Instant::now() < deadline, "{what}: {status:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Sends five hours of records to two topic partitions, with a late record, a reject and a
/// tombstone, and waits until a window of each hour is a row of each key.
fn count_five_hours(bed: &Bed, running: &Running) {
    for hour in 0..5 {
        let at = bed.yesterday + hour * HOUR;
        bed.send(0, at, &[r#"{"origin":"a"}"#, r#"{"origin":"b"}"#]);
        bed.send(1, at, &[r#"{"origin":"a"}"#, r#"{"origin":"a"}"#]);
        if hour == 2 {
            bed.send(0, at - 2 * HOUR, &[r#"{"origin":"late"}"#]);
            bed.send(1, at, &["{"]);
        }
        let rows = u64::try_from(hour).unwrap() * 2;
        until(running, "a commit", |status| status.rows == rows);
    }
}

#[test]
fn a_whole_table_has_no_differences_and_each_damage_is_named() {
    let bed = Bed::start(2);
    let running = bed.run(false);
    count_five_hours(&bed, &running);
    // It runs on while it is verified.
    let report = bed.verify(&Options::default());
    assert_eq!(report.found.findings, [], "{report:#?}");
    let recounted = report.recounted.as_ref().unwrap();
    assert_eq!((recounted.rows, recounted.after), (8, None));
    assert!(recounted.offsets >= 22, "{report:#?}");
    assert!(
        report.text().ends_with("no differences\n"),
        "{}",
        report.text()
    );
    running.stop.stop();
    running.join().unwrap();
    let deep = Options {
        deep: true,
        ..Options::default()
    };
    let report = bed.verify(&deep);
    assert_eq!(report.found.differences, 0, "{report:#?}");
    assert_eq!(report.checked.hashed_files, report.checked.files);
    assert_eq!(report.checked.proven_epochs, report.checked.epochs);
    assert!(report.recounted.as_ref().unwrap().rows >= 8);

    files_are_damaged(&bed);
    epochs_are_damaged(&bed);
}

fn files_are_damaged(bed: &Bed) {
    let live = bed.live();
    let all = Options::default();
    let file = &live[1].file;
    let path = bed.path_of(&file.key);
    let other = fs::read(bed.path_of(&live[2].file.key)).unwrap();

    let report = bed.damaged(&path, |path| fs::remove_file(path).unwrap(), &all);
    assert_eq!(kinds(&report), [(Kind::FileMissing, 1)], "{report:#?}");
    assert_eq!(report.recounted.as_ref().unwrap().unread_rows, 2);
    let text = &report.found.findings[0].text;
    assert!(text.contains("is not in the store, and readers are shown it"));

    let report = bed.damaged(&path, |path| fs::write(path, &other).unwrap(), &all);
    let found: Vec<Kind> = kinds(&report).iter().map(|(kind, _)| *kind).collect();
    assert!(found.contains(&Kind::FileHash) || found.contains(&Kind::FileDamaged));

    let cut = |path: &Path| {
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_len(100).unwrap();
    };
    let report = bed.damaged(&path, cut, &all);
    assert_eq!(kinds(&report), [(Kind::FileDamaged, 1)], "{report:#?}");

    // A time that leaves the file out is compared only by its end, unless every byte is read.
    let flip = |path: &Path| {
        let mut bytes = fs::read(path).unwrap();
        bytes[10] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    let later = Options {
        from: live[3].file.first_window,
        ..Options::default()
    };
    let report = bed.damaged(&path, flip, &later);
    assert_eq!(kinds(&report), [], "{report:#?}");
    let deep = Options {
        deep: true,
        ..later
    };
    let report = bed.damaged(&path, flip, &deep);
    assert_eq!(kinds(&report), [(Kind::FileHash, 1)], "{report:#?}");
}

fn epochs_are_damaged(bed: &Bed) {
    let path = bed.path_of("epochs/0000000003.json");
    let all = Options::default();
    let report = bed.damaged(&path, |path| fs::remove_file(path).unwrap(), &all);
    // The catalog itself needs it, unless a later epoch has a checkpoint.
    assert!(
        report.found.by_kind.contains_key(&Kind::EpochChain),
        "{report:#?}"
    );
    let alter = |path: &Path| {
        let text = fs::read_to_string(path).unwrap();
        fs::write(path, text.replacen("\"counted\":", "\"counted\":1", 1)).unwrap();
    };
    let report = bed.damaged(&path, alter, &all);
    assert!(
        report.found.by_kind.contains_key(&Kind::EpochAltered),
        "{report:#?}"
    );
    let report = bed.damaged(&path, |path| fs::write(path, "{").unwrap(), &all);
    assert!(
        report.found.by_kind.contains_key(&Kind::EpochAltered),
        "{report:#?}"
    );
}

#[test]
fn a_table_whose_files_were_merged_and_dropped_is_as_it_should_be() {
    let bed = Bed::start(2);
    let running = bed.run(true);
    count_five_hours(&bed, &running);
    let now = bed.yesterday + DAY;
    bed.send(0, now, &[r#"{"origin":"a"}"#]);
    bed.send(1, now, &[r#"{"origin":"a"}"#]);
    until(&running, "a day file", |status| {
        status.rows == 10 && status.files == 1 && status.compactions > 0
    });
    let report = bed.verify(&Options::default());
    assert_eq!(report.found.findings, [], "{report:#?}");
    let live = bed.live();
    assert_eq!(live[0].file.level, Level::Day);
    assert_eq!(report.recounted.as_ref().unwrap().rows, 10);
    // A part of it.
    let part = Options {
        from: Some(EventTime(bed.yesterday + HOUR)),
        to: Some(EventTime(bed.yesterday + 3 * HOUR)),
        ..Options::default()
    };
    let report = bed.verify(&part);
    assert_eq!(report.found.findings, [], "{report:#?}");
    running.stop.stop();
    running.join().unwrap();
    assert_eq!(bed.verify(&Options::default()).found.findings, []);
}

fn kinds(report: &Report) -> Vec<(Kind, u64)> {
    let by_kind = report.found.by_kind.iter();
    by_kind.map(|(kind, n)| (*kind, *n)).collect()
}
