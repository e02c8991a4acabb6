//! Merges in a directory: the rows, the failures, the end, and how much memory and time they take.

use super::*;
use crate::io::store::S3Config;
use std::fs;
use std::path::Path;
use std::sync::mpsc;
use windrow_core::settings::config::S3Settings;
use windrow_core::table::commit::FileKind;
use windrow_core::table::compaction::Level;
use windrow_core::table::file::{Timestamps, read_rows, write_rejects, write_rows};
use windrow_core::values::digest::sha256_hex;
use windrow_core::values::record::Key;
use windrow_core::values::row::{RejectRecord, Row};
use windrow_core::values::shape::Shape;
use windrow_core::values::time::EventTime;

const UNLIMITED: u64 = 1 << 40;

fn store(folder: &Path) -> Store {
    store_at(folder.to_str().unwrap(), "http://127.0.0.1:1")
}

fn store_at(place: &str, endpoint: &str) -> Store {
    let settings = S3Settings {
        endpoint: Some(endpoint.to_owned()),
        region: "us-east-1".to_owned(),
        path_style: true,
        ca_file: None,
        no_proxy: Vec::new(),
    };
    let s3 = S3Config {
        settings,
        ca_pem: None,
        access_key: "k".to_owned(),
        secret_key: "s".to_owned(),
        proxy: None,
    };
    Store::open(&place.parse().unwrap(), &s3).unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().unwrap()
}

fn shape() -> Shape {
    Shape::count_by_origin("clicks", 10_000, 10_000)
}

/// Rows `from..to` of a table whose windows have `keys` rows each.
fn rows(from: u64, to: u64, keys: u64) -> impl Iterator<Item = Row> {
    (from..to).map(move |i| {
        let start = EventTime(i64::try_from(i / keys).unwrap() * 10_000);
        Row {
            start,
            end: start.plus(10_000),
            key: Arc::from(&*Key::of(&[Some(&format!("producer-{:07}", i % keys))]).0),
            count: i % 97 + 1,
            accs: [].into(),
        }
    })
}

/// Stores a file, and says what the journal says of it.
fn put(
    runtime: &tokio::runtime::Runtime,
    store: &Store,
    kind: FileKind,
    name: &str,
    bytes: Vec<u8>,
) -> NewFile {
    let listing = read_rows(&bytes, usize::MAX).unwrap();
    put_rows(runtime, store, kind, name, bytes, listing.rows.len())
}

fn put_rows(
    runtime: &tokio::runtime::Runtime,
    store: &Store,
    kind: FileKind,
    name: &str,
    bytes: Vec<u8>,
    rows: usize,
) -> NewFile {
    let file = NewFile {
        kind,
        chunk: name.to_owned(),
        level: Level::Commit,
        key: format!("t/{name}/part.parquet"),
        bytes: bytes.len() as u64,
        rows: rows as u64,
        sha256: sha256_hex(&bytes),
        first_window: None,
        last_window: None,
        as_of: None,
    };
    runtime.block_on(store.put(&file.key, bytes)).unwrap();
    file
}

fn day() -> FileKind {
    FileKind::Rows {
        date: "1970-01-01".to_owned(),
    }
}

/// Files of rows, with 1000 rows each.
fn small_files(runtime: &tokio::runtime::Runtime, store: &Store, count: u64) -> Vec<NewFile> {
    let file = |n: u64| {
        let rows: Vec<Row> = rows(n * 1000, n * 1000 + 1000, 100).collect();
        let bytes = write_rows(&shape(), Timestamps::Micros, &rows, &[]);
        put(runtime, store, day(), &format!("{n}"), bytes)
    };
    (0..count).map(file).collect()
}

fn order(sources: Vec<NewFile>, file_rows: usize) -> MergeOrder {
    let rows: u64 = sources.iter().map(|source| source.rows).sum();
    let count = rows.div_ceil(file_rows as u64);
    MergeOrder {
        shape: Arc::new(shape()),
        timestamps: Timestamps::Micros,
        keys: (0..count)
            .map(|n| format!("t/new-{n}/part.parquet"))
            .collect(),
        like: NewFile {
            level: Level::Hour,
            ..sources[0].clone()
        },
        sources,
        file_rows,
    }
}

/// What a merge reports.
fn merged(
    runtime: &tokio::runtime::Runtime,
    store: &Store,
    order: MergeOrder,
) -> (Result<Vec<NewFile>, MergeFailure>, MovedBytes) {
    let (report, reported) = mpsc::channel();
    let mut merging = Merging::new(UNLIMITED);
    merging.begin(
        runtime.handle(),
        store.clone(),
        order,
        move |answer, moved| {
            let StoreAnswer::Merge { key, result } = answer else {
                panic!("it is the answer to a merge")
            };
            assert_eq!(key, "t/new-0/part.parquet");
            report.send((result, moved)).unwrap();
        },
    );
    reported.recv_timeout(Duration::from_secs(300)).unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder.join("t"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn files_become_fewer_with_the_same_rows() {
    let folder = tempfile::tempdir().unwrap();
    let (runtime, store) = (runtime(), store(folder.path()));
    let sources = small_files(&runtime, &store, 5);
    let read: u64 = sources.iter().map(|source| source.bytes).sum();
    let (result, moved) = merged(&runtime, &store, order(sources.clone(), 3000));
    let files = result.unwrap();
    let written: u64 = files.iter().map(|file| file.bytes).sum();
    assert_eq!(moved, MovedBytes { read, written });
    let bytes_of = |file: &NewFile| runtime.block_on(store.get(&file.key)).unwrap().unwrap();
    let all = |files: &[NewFile]| -> Vec<_> {
        let rows = |file: &NewFile| read_rows(&bytes_of(file), usize::MAX).unwrap().rows;
        files.iter().flat_map(rows).collect()
    };
    assert!(all(&files) == all(&sources));
    assert_eq!(
        files.iter().map(|file| file.rows).collect::<Vec<_>>(),
        [3000, 2000]
    );
    for (file, (chunk, source)) in files.iter().zip([("0", 0), ("1", 3)]) {
        assert_eq!((file.chunk.as_str(), file.level), (chunk, Level::Hour));
        assert_eq!(file.sha256, sha256_hex(&bytes_of(file)));
        assert_eq!(file.first_window, Some(EventTime(source * 100_000)));
    }
    assert_eq!(
        names(folder.path()),
        ["0", "1", "2", "3", "4", "new-0", "new-1"]
    );
}

#[test]
fn files_of_a_side_table_become_one() {
    let folder = tempfile::tempdir().unwrap();
    let (runtime, store) = (runtime(), store(folder.path()));
    let file = |n: i64| {
        let reject = RejectRecord {
            partition: 0,
            offset: n,
            time: Some(EventTime(n)),
            reason: "not JSON".to_owned(),
            value: b"{"[..].into(),
        };
        let bytes = write_rejects("clicks", Timestamps::Micros, &[reject], &[]);
        put(&runtime, &store, FileKind::Rejects, &format!("{n}"), bytes)
    };
    let sources: Vec<NewFile> = [2, 1].map(file).into();
    let (result, moved) = merged(&runtime, &store, order(sources.clone(), 3000));
    let files = result.unwrap();
    assert_eq!((files.len(), files[0].rows), (1, 2));
    let bytes = runtime.block_on(store.get(&files[0].key)).unwrap().unwrap();
    assert_eq!(read_rows(&bytes, 9).unwrap().rows.len(), 2);
    assert_eq!(moved.written, bytes.len() as u64);
    assert_eq!(moved.read, sources[0].bytes + sources[1].bytes);
}

/// The engine leaves out a file that is gone or damaged, and tries again where the store is away.
#[test]
fn a_failure_names_the_file_that_is_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let (runtime, store) = (runtime(), store(folder.path()));
    let sources = small_files(&runtime, &store, 3);
    let path = |n: usize| folder.path().join(&sources[n].key);
    let fails = |store: &Store| {
        let failure = merged(&runtime, store, order(sources.clone(), 9000)).0;
        let failure = failure.unwrap_err();
        (failure.left_out, failure.trouble.text)
    };

    let short = fs::read(path(1)).unwrap();
    fs::write(path(1), &short[..short.len() - 1]).unwrap();
    let (left_out, text) = fails(&store);
    assert_eq!(left_out, [sources[1].key.clone()], "{text}");
    fs::remove_file(path(1)).unwrap();
    let (left_out, text) = fails(&store);
    assert_eq!(left_out, [sources[1].key.clone()]);
    assert_eq!(
        text,
        "cannot merge file \"t/1/part.parquet\": it is gone; put back the file that windrow \
         stored there, or write the table again from Kafka"
    );
    assert!(!folder.path().join("t/new-0").exists());

    let nobody = store_at("s3a://spark/w", "http://127.0.0.1:1");
    let (left_out, text) = fails(&nobody);
    assert!(
        left_out.is_empty() && text.contains("cannot reach"),
        "{text}"
    );
}

#[test]
fn a_merge_that_is_cancelled_reports_nothing_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (runtime, store) = (runtime(), store(folder.path()));
    let sources = small_files(&runtime, &store, 3);
    let (report, reported) = mpsc::channel();
    // The second request waits for days.
    let mut merging = Merging::new(1);
    let begin = |merging: &mut Merging| {
        let report = report.clone();
        let order = order(sources.clone(), 1000);
        merging.begin(runtime.handle(), store.clone(), order, move |_, _| {
            report.send(()).unwrap();
        });
    };
    begin(&mut merging);
    begin(&mut merging);
    merging.cancel();
    drop((report, runtime));
    assert_eq!(
        reported.recv_timeout(Duration::from_secs(60)),
        Err(mpsc::RecvTimeoutError::Disconnected)
    );
    assert_eq!(names(folder.path()), ["0", "1", "2"]);
}

/// What `/proc` says of this process: the most memory since it was told to forget, in MiB, and CPU
/// seconds so far.
fn peak_and_cpu() -> (u64, f64) {
    let read = |name: &str| fs::read_to_string(format!("/proc/self/{name}")).unwrap();
    let status = read("status");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.unwrap().trim().trim_end_matches(" kB").parse::<u64>();
    let stat = read("stat");
    let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
    let ticks = fields.skip(11).take(2).map(|n| n.parse::<f64>().unwrap());
    (peak.unwrap() / 1024, ticks.sum::<f64>() / 100.0)
}

#[test]
#[ignore = "takes a minute; for figures: cargo test --release -p windrow --lib ten_million -- \
            --ignored --nocapture"]
fn ten_million_rows_are_merged_in_bounded_memory() {
    const MILLION: u64 = 1_000_000;
    let folder = tempfile::tempdir().unwrap();
    let (runtime, store) = (runtime(), store(folder.path()));
    // 100,000 keys a window; no file begins where a new one will.
    let file = |n: u64| {
        let (from, to) = (n * MILLION, (n + 1) * MILLION);
        let from = if n == 0 { 0 } else { from - 7 };
        let to = if n == 9 { to } else { to - 7 };
        let mut file = windrow_core::table::file::RowsFile::new(&shape(), Timestamps::Micros);
        file.push(&shape(), rows(from, to, 100_000));
        let bytes = file.finish(&shape(), &[]);
        let count = usize::try_from(to - from).unwrap();
        put_rows(&runtime, &store, day(), &format!("{n}"), bytes, count)
    };
    let sources: Vec<NewFile> = (0..10).map(file).collect();
    crate::io::heap::give_back();
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let (before, cpu_before) = peak_and_cpu();
    let begun = Instant::now();
    let (result, moved) = merged(&runtime, &store, order(sources, 1_000_000));
    let (peak, cpu) = peak_and_cpu();
    let files = result.unwrap();
    println!(
        "{} files, read {} MiB, written {} MiB, {:.1} s, {:.1} CPU seconds, {before} MiB before, \
         {peak} MiB at most",
        files.len(),
        moved.read >> 20,
        moved.written >> 20,
        begun.elapsed().as_secs_f64(),
        cpu - cpu_before,
    );
    assert_eq!(
        files.iter().map(|file| file.rows).sum::<u64>(),
        10 * MILLION
    );
    assert!(peak < before + 64, "{peak} MiB, and {before} before");
}
