//! Merges in memory, of files that hold rows of every kind. The files that `write_rows` makes of
//! the same rows are the judge.

use super::*;
use crate::table::file::{read_rows, write_late, write_rejects, write_rows};
use crate::table::listing::Value;
use crate::values::aggregate::Acc;
use crate::values::digest::sha256_hex;
use crate::values::record::Key;
use crate::values::row::{LateRecord, RejectRecord, Row};
use crate::values::shape::{Aggregate, Column, Function, Number};
use std::sync::Arc;

const BOTH: [Timestamps; 2] = [Timestamps::Micros, Timestamps::Int96];

/// Numbers by SplitMix64, as in `tests/rng.rs`.
struct Rng(u64);

impl Rng {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % n as u64).unwrap()
    }
}

/// Two key columns, and an aggregate of each kind of column.
fn wide() -> Shape {
    let column = |name: &str| Column {
        path: vec![name.to_owned()],
        name: name.to_owned(),
    };
    let number = Number::Decimal {
        precision: 9,
        scale: 2,
    };
    let aggregate = |function: Function, number| Aggregate {
        function,
        path: vec!["f".to_owned()],
        number,
        name: format!("{function:?}").to_lowercase(),
    };
    Shape {
        group_by: vec![column("origin"), column("kind")],
        aggregates: vec![
            aggregate(Function::Sum, Number::Integer),
            aggregate(Function::Count, Number::Integer),
            aggregate(Function::Min, Number::Integer),
            aggregate(Function::Max, number),
            aggregate(Function::Avg, number),
        ],
        ..by_origin()
    }
}

fn by_origin() -> Shape {
    Shape::count_by_origin("clicks", 10_000, 10_000)
}

/// Rows of `windows` windows with some of all keys, sorted.
fn wide_rows(rng: &mut Rng, windows: i64) -> Vec<Row> {
    const TEXTS: [Option<&str>; 6] = [None, Some(""), Some("\0"), Some("a"), Some("é"), Some("zz")];
    let mut keys: Vec<Key> = TEXTS
        .iter()
        .flat_map(|a| TEXTS.map(|b| Key::of(&[*a, b])))
        .collect();
    keys.sort_unstable();
    let mut rows = Vec::new();
    for window in 0..windows {
        let start = EventTime(-70_000 + window * 10_000);
        for key in &keys {
            if rng.below(3) > 0 {
                continue;
            }
            let mut acc = || Acc {
                n: rng.below(3) as u64,
                value: rng.below(1_000_000) as i128 - 500_000,
            };
            rows.push(Row {
                start,
                end: start.plus(10_000),
                key: Arc::from(&*key.0),
                accs: [acc(), acc(), acc(), acc()].into(),
                count: rng.below(1000) as u64,
            });
        }
    }
    rows
}

/// `count` rows of the default table, with 100 keys in each window.
fn rows_by_origin(count: i64) -> Vec<Row> {
    let row = |i: i64| {
        let start = EventTime(i / 100 * 10_000);
        let name = format!("origin-{:02}-{}", i % 100, i * 7919 % 1000);
        Row {
            start,
            end: start.plus(10_000),
            key: Arc::from(&*Key::of(&[Some(&name)]).0),
            // So noisy that a file is not small because it compresses well.
            count: (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20,
            accs: [].into(),
        }
    };
    (0..count).map(row).collect()
}

/// Limits at which files of some hundred bytes come in several pieces.
const SMALL: Limits = Limits {
    file_rows: 100,
    group_rows: 7,
    piece_bytes: 1000,
    fetch_bytes: 2000,
    end_bytes: 64,
};

/// As [`SMALL`], but no source is fetched at once, and no two row groups together.
const BY_GROUP: Limits = Limits {
    fetch_bytes: 300,
    ..SMALL
};

/// The usual limits, and files of so many rows.
fn usual(file_rows: usize) -> Limits {
    Limits {
        file_rows,
        group_rows: ROW_GROUP_ROWS,
        piece_bytes: PIECE_BYTES,
        fetch_bytes: FETCH_BYTES,
        end_bytes: END_BYTES,
    }
}

type Files = Vec<(Source, Bytes)>;

/// A file and what the journal says of it.
fn source(name: usize, bytes: Vec<u8>) -> (Source, Bytes) {
    let source = Source {
        key: format!("rows/{name}/part.parquet"),
        bytes: bytes.len() as u64,
        rows: read_rows(&bytes, usize::MAX).unwrap().rows.len() as u64,
        sha256: sha256_hex(&bytes),
    };
    (source, bytes.into())
}

/// The file of a commit.
fn committed(shape: &Shape, timestamps: Timestamps, rows: &[Row], epoch: usize) -> (Source, Bytes) {
    let meta = [("windrow.epoch".to_owned(), epoch.to_string())];
    source(epoch, write_rows(shape, timestamps, rows, &meta))
}

/// Performs the steps of a merge, each request for bytes twice. The new files are as they were
/// stored.
fn perform(mut merge: Merge, files: &Files) -> Result<Files, MergeError> {
    let piece_bytes = merge.limits.piece_bytes;
    let mut stored: Vec<Vec<u8>> = Vec::new();
    let mut is_open = false;
    loop {
        let step = merge.step()?;
        assert_eq!(merge.step().as_ref(), Ok(&step));
        match step {
            MergeStep::Fetch { source, range } => {
                assert!(!range.is_empty());
                let [start, end] = [range.start, range.end].map(|n| usize::try_from(n).unwrap());
                merge.give(files[source].1.slice(start..end))?;
            }
            MergeStep::Store { file, bytes, last } => {
                if !is_open {
                    assert_eq!(file, stored.len(), "files come one after the other");
                    stored.push(Vec::new());
                }
                assert!(last || bytes.len() >= piece_bytes, "{}", bytes.len());
                stored[file].extend_from_slice(&bytes);
                is_open = !last;
                merge.stored();
            }
            MergeStep::Done => break,
        }
    }
    assert!(!is_open, "the last file is complete");
    let merged = merge.finish();
    assert_eq!(merged.len(), stored.len());
    let known = merged.into_iter().zip(stored).enumerate();
    Ok(known
        .map(|(name, (merged, bytes))| {
            let (source, bytes) = source(name, bytes);
            let says = (merged.bytes, merged.rows, &merged.sha256);
            assert_eq!(says, (source.bytes, source.rows, &source.sha256));
            let rows = read_rows(&bytes, usize::MAX).unwrap().rows;
            let starts = [&rows[0], &rows[rows.len() - 1]].map(|row| match row[0] {
                Value::Window { start, .. } => start,
                _ => panic!("a row has a window"),
            });
            assert_eq!(starts, [merged.first_window, merged.last_window]);
            (source, bytes)
        })
        .collect())
}

fn merge(
    shape: &Shape,
    timestamps: Timestamps,
    limits: Limits,
    files: &Files,
) -> Result<Files, MergeError> {
    let sources = files.iter().map(|(source, _)| source.clone()).collect();
    perform(
        Merge::with_limits(shape, timestamps, limits, sources),
        files,
    )
}

/// Splits a list into up to `pieces` pieces, some of which may be empty.
fn split<T: Clone>(rng: &mut Rng, all: &[T], pieces: usize) -> Vec<Vec<T>> {
    let mut cuts: Vec<usize> = (1..pieces).map(|_| rng.below(all.len() + 1)).collect();
    cuts.extend([0, all.len()]);
    cuts.sort_unstable();
    cuts.windows(2)
        .map(|cut| all[cut[0]..cut[1]].to_vec())
        .collect()
}

#[test]
fn the_same_rows_give_the_same_bytes_however_they_are_spread() {
    for seed in 0..60 {
        let mut rng = Rng(seed);
        let (shape, windows) = (wide(), rng.below(40) as i64);
        let rows = wide_rows(&mut rng, windows);
        let timestamps = BOTH[rng.below(2)];
        let limits = [SMALL, BY_GROUP, usual(100)][rng.below(3)];
        let one = vec![committed(&shape, timestamps, &rows, 0)];
        let expected = merge(&shape, timestamps, limits, &one).unwrap();
        assert_eq!(expected.len(), rows.len().div_ceil(limits.file_rows));
        let pieces = 1 + rng.below(30);
        let spread: Files = split(&mut rng, &rows, pieces)
            .iter()
            .enumerate()
            .map(|(epoch, rows)| committed(&shape, BOTH[rng.below(2)], rows, epoch))
            .collect();
        let merged = merge(&shape, timestamps, limits, &spread).unwrap();
        assert!(merged == expected, "seed {seed}");
        // As ten minutes and hours, which have files of any size.
        let mut hours = Files::new();
        let parts = 1 + rng.below(4);
        for part in split(&mut rng, &spread, parts) {
            let limits = Limits {
                file_rows: 1 + rng.below(60),
                group_rows: 1 + rng.below(20),
                ..SMALL
            };
            hours.extend(merge(&shape, BOTH[rng.below(2)], limits, &part).unwrap());
        }
        let day = merge(&shape, timestamps, limits, &hours).unwrap();
        assert!(day == expected, "seed {seed}");
    }
}

#[test]
fn a_merged_file_is_what_its_rows_give_when_they_are_written_at_once() {
    let rows = wide_rows(&mut Rng(1), 20);
    let groups = 140_000;
    for timestamps in BOTH {
        for (shape, rows, file_rows) in [
            (wide(), rows.clone(), 100),
            // More than two row groups in the first file, and one in the second.
            (by_origin(), rows_by_origin(groups + 30_000), 140_000),
        ] {
            let files = split(&mut Rng(2), &rows, 5);
            let files = files.iter().enumerate();
            let files = files.map(|(epoch, rows)| committed(&shape, timestamps, rows, epoch));
            let merged = merge(&shape, timestamps, usual(file_rows), &files.collect()).unwrap();
            let chunks = rows.chunks(file_rows);
            assert_eq!(merged.len(), chunks.len());
            for (file, rows) in merged.iter().zip(chunks) {
                assert!(file.1 == write_rows(&shape, timestamps, rows, &footer()));
            }
        }
    }
}

#[test]
fn bytes_of_a_merged_file_are_known() {
    let rows = wide_rows(&mut Rng(1), 20);
    let hashes = BOTH.map(|timestamps| {
        let files = vec![committed(&wide(), timestamps, &rows, 0)];
        let merged = merge(&wide(), timestamps, usual(1_000_000), &files).unwrap();
        merged[0].0.sha256.clone()
    });
    // When this fails, raise `FORMAT_REV`, as for the files of commits.
    assert_eq!(
        hashes,
        [
            "d26692f9e8e8bd5d9b232eb53215bcd8b2bf1e0864837e818b6c875725a8de0b",
            "8dea6348b098183b6b433eeec5ebc608a25c798cc85a75cf95ca9a80d8809f57",
        ]
    );
}

#[test]
fn a_small_file_is_one_request_and_a_large_one_is_read_by_row_groups() {
    let small = committed(&by_origin(), Timestamps::Micros, &rows_by_origin(1000), 0);
    let rows = rows_by_origin(600_000);
    let large = committed(&by_origin(), Timestamps::Micros, &rows[1000..], 1);
    let size = large.0.bytes;
    assert!(size > 3 * FETCH_BYTES, "{size}");
    let files = [small, large];
    let sources = files.iter().map(|(source, _)| source.clone()).collect();
    let mut merge = Merge::new(&by_origin(), Timestamps::Micros, 1_000_000, sources);
    let mut ranges = Vec::new();
    while let MergeStep::Fetch { source, range } = merge.step().unwrap() {
        let [start, end] = [range.start, range.end].map(|n| usize::try_from(n).unwrap());
        merge.give(files[source].1.slice(start..end)).unwrap();
        ranges.push((source, range));
    }
    assert_eq!(ranges[0], (0, 0..files[0].0.bytes));
    assert_eq!(ranges[1], (1, size - END_BYTES..size));
    assert_eq!(ranges[2].1.start, 0);
    for pair in ranges[2..].windows(2) {
        assert_eq!(pair[0].1.end, pair[1].1.start);
    }
    assert!(
        ranges[2..]
            .iter()
            .all(|(_, range)| range.end - range.start <= FETCH_BYTES)
    );
    // Of ten row groups, the last one is small and comes with the one before it.
    assert_eq!(ranges.len(), 2 + 9, "{ranges:?}");
}

#[test]
fn a_merge_may_go_from_one_thread_to_another() {
    fn check<T: Send + 'static>() {}
    check::<Merge>();
}

#[test]
fn no_rows_make_no_file() {
    let empty = committed(&wide(), Timestamps::Micros, &[], 0);
    for files in [vec![], vec![empty.clone(), empty]] {
        for limits in [BY_GROUP, usual(100)] {
            let merged = merge(&wide(), Timestamps::Micros, limits, &files);
            assert_eq!(merged, Ok(vec![]));
        }
    }
}

/// The sources of a merge that fails, and how.
fn check_error(files: &Files, limits: Limits, expected: &str) {
    let error = merge(&by_origin(), Timestamps::Micros, limits, files).unwrap_err();
    assert_eq!(error.to_string(), expected);
}

#[test]
fn rows_that_overlap_or_are_twice_are_not_merged() {
    let rows = rows_by_origin(300);
    let file = |range: Range<usize>, epoch| {
        committed(&by_origin(), Timestamps::Micros, &rows[range], epoch)
    };
    let expected = "cannot merge file \"rows/1/part.parquet\": its row of the window \
        1970-01-01T00:00:10Z to 1970-01-01T00:00:20Z does not come after the last row of file \
        \"rows/0/part.parquet\"; keep the files as they are, and report this as a mistake in \
        windrow";
    for limits in [BY_GROUP, usual(100)] {
        // The same row at the end of one file and at the beginning of the next.
        check_error(&vec![file(0..151, 0), file(150..300, 1)], limits, expected);
        check_error(
            &vec![file(180..300, 0), file(150..170, 1)],
            limits,
            expected,
        );
        assert!(
            merge(
                &by_origin(),
                Timestamps::Micros,
                limits,
                &vec![file(0..150, 0), file(150..300, 1),]
            )
            .is_ok()
        );
    }
}

#[test]
fn a_file_that_differs_from_the_journal_is_named() {
    let rows = rows_by_origin(300);
    let good = |epoch| committed(&by_origin(), Timestamps::Micros, &rows[..100], epoch);
    let other = || committed(&by_origin(), Timestamps::Micros, &rows[100..], 1);
    let do_this = "; put back the file that windrow stored there, or write the table again from \
        Kafka";
    let fails = |change: &dyn Fn(&mut Source), why: &str| {
        let (mut source, bytes) = other();
        change(&mut source);
        let expected = format!("cannot merge file \"rows/1/part.parquet\": {why}{do_this}");
        for limits in [BY_GROUP, usual(100)] {
            check_error(
                &vec![good(0), (source.clone(), bytes.clone())],
                limits,
                &expected,
            );
        }
    };
    let hash = other().0.sha256;
    fails(
        &|source| source.sha256 = "00".repeat(32),
        &format!(
            "its SHA-256 is {hash}, and the journal says {}",
            "00".repeat(32)
        ),
    );
    fails(
        &|source| source.rows = 201,
        "it has 200 rows, and the journal says 201",
    );
    fails(&|source| source.bytes = 0, "it is too short");
    let wide = committed(&wide(), Timestamps::Micros, &wide_rows(&mut Rng(1), 3), 1);
    let expected = "its columns are not those of the table";
    let expected = format!("cannot merge file \"rows/1/part.parquet\": {expected}{do_this}");
    check_error(&vec![good(0), wide], usual(100), &expected);
}

#[test]
fn bytes_that_were_not_asked_for_are_refused() {
    let (source, _) = committed(&by_origin(), Timestamps::Micros, &rows_by_origin(3), 0);
    let mut merge = Merge::new(&by_origin(), Timestamps::Micros, 10, vec![source]);
    merge.step().unwrap();
    let error = merge.give(Bytes::from_static(b"short")).unwrap_err();
    assert!(
        error.to_string().contains("5 bytes were read where "),
        "{error}"
    );
    assert_eq!(merge.step(), Err(error), "the merge is over");
}

/// A file of row groups of 8 rows.
fn in_small_groups(shape: &Shape, timestamps: Timestamps, rows: &[Row]) -> (Source, Bytes) {
    let limits = Limits {
        group_rows: 8,
        ..SMALL
    };
    let file = vec![committed(shape, timestamps, rows, 0)];
    merge(shape, timestamps, limits, &file).unwrap().remove(0)
}

/// A merge of these sources, the last of which is damaged, may give any answer where the journal
/// names the damaged bytes. Otherwise it says that this one is damaged.
fn check_damaged(shape: &Shape, mut files: Files) {
    let last = files.len() - 1;
    // Row group by row group, and at once.
    for limits in [BY_GROUP, usual(100)] {
        let error = merge(shape, Timestamps::Micros, limits, &files).unwrap_err();
        let is_named = matches!(&error, MergeError::Damaged { place, .. } if *place == last);
        assert!(is_named, "{error}");
    }
    files[last].0.sha256 = sha256_hex(&files[last].1);
    let sources = files.iter().map(|(source, _)| source.clone()).collect();
    let mut merge = Merge::with_limits(shape, Timestamps::Int96, BY_GROUP, sources);
    while let Ok(step) = merge.step() {
        match step {
            MergeStep::Fetch { source, range } => {
                let [start, end] = [range.start, range.end].map(|n| usize::try_from(n).unwrap());
                _ = merge.give(files[source].1.slice(start..end));
            }
            MergeStep::Store { .. } => merge.stored(),
            MergeStep::Done => return,
        }
    }
}

#[test]
fn a_source_with_any_byte_damaged_is_damaged_and_no_panic() {
    let wide_rows = wide_rows(&mut Rng(3), 3);
    for timestamps in BOTH {
        // Every byte of a file with two columns, and some bytes of one with seven.
        for (shape, rows, step) in [
            (by_origin(), rows_by_origin(24), 1),
            (wide(), wide_rows.clone(), 13),
        ] {
            let (first, second) = rows.split_at(5);
            let first = committed(&shape, timestamps, first, 0);
            let second = in_small_groups(&shape, timestamps, second);
            for at in (0..second.1.len()).step_by(step) {
                let mut damaged = second.1.to_vec();
                damaged[at] ^= [0xff, 1, 0x80][at % 3];
                let second = (second.0.clone(), damaged.into());
                check_damaged(&shape, vec![first.clone(), second]);
            }
        }
    }
}

fn late(partition: i32, offset: i64) -> LateRecord {
    LateRecord {
        partition,
        offset,
        time: EventTime(offset * 10),
        watermark: EventTime(offset * 11),
        key: Key::of(&[(offset % 3 > 0).then_some("é")]).0,
        value: format!("{{\"n\":{offset}}}").into_bytes().into(),
    }
}

fn late_file(timestamps: Timestamps, rows: &[LateRecord], epoch: usize) -> (Source, Bytes) {
    let columns = by_origin().group_by;
    let meta = [("windrow.epoch".to_owned(), epoch.to_string())];
    source(
        epoch,
        write_late("clicks", timestamps, &columns, rows, &meta),
    )
}

#[test]
fn side_files_become_one_that_is_sorted_by_offset() {
    let first = [late(0, 4), late(0, 5), late(1, 7)];
    let second = [late(0, 9), late(1, 8), late(2, 0)];
    let all = [
        late(0, 4),
        late(0, 5),
        late(0, 9),
        late(1, 7),
        late(1, 8),
        late(2, 0),
    ];
    for timestamps in BOTH {
        let [one, two] = [
            late_file(Timestamps::Micros, &first, 0),
            late_file(Timestamps::Int96, &second, 1),
        ];
        let merged = merge_side(SideTable::Late, timestamps, &[one, two]).unwrap();
        let columns = by_origin().group_by;
        assert!(merged == write_late("clicks", timestamps, &columns, &all, &footer()));
        // In two stages too.
        let again = merge_side(SideTable::Late, timestamps, &[source(0, merged.clone())]).unwrap();
        assert!(again == merged);
    }
    let reject = |offset| RejectRecord {
        partition: 0,
        offset,
        time: None,
        reason: "not JSON".to_owned(),
        value: b"x".as_slice().into(),
    };
    let file = |offsets: &[i64], meta: &[(String, String)]| {
        let rows: Vec<RejectRecord> = offsets.iter().map(|offset| reject(*offset)).collect();
        write_rejects("clicks", Timestamps::Micros, &rows, meta)
    };
    let sources = [source(0, file(&[1, 2], &[])), source(1, file(&[5], &[]))];
    let merged = merge_side(SideTable::Rejects, Timestamps::Micros, &sources).unwrap();
    assert!(merged == file(&[1, 2, 5], &footer()));
    assert!(merge_side(SideTable::Late, Timestamps::Micros, &sources).is_err());
}

/// Values of a few patterns become very small in a file, and are large again in memory.
#[test]
fn side_files_that_would_take_too_much_memory_are_refused_before_they_are_read() {
    let file = |epoch: usize, rows: i64| {
        let reject = |offset: i64| RejectRecord {
            partition: 0,
            offset,
            time: None,
            reason: "not JSON".to_owned(),
            value: format!("{epoch} {offset} {}", "x".repeat(65_000))
                .into_bytes()
                .into(),
        };
        let rows: Vec<RejectRecord> = (0..rows).map(reject).collect();
        source(
            epoch,
            write_rejects("clicks", Timestamps::Micros, &rows, &[]),
        )
    };
    let sources = [file(0, 200), file(1, 200), file(2, 200)];
    let small: usize = sources.iter().map(|(_, bytes)| bytes.len()).sum();
    assert!(small < 1 << 20, "{small} bytes");
    let merged = |sources: &[_]| merge_side(SideTable::Rejects, Timestamps::Micros, sources);
    assert!(merged(&sources[..2]).is_ok());
    assert_eq!(
        merged(&sources),
        Err(MergeError::TooLarge {
            key: sources[2].0.key.clone(),
            mib: 37,
        })
    );
}

#[test]
fn an_offset_that_is_there_twice_is_that_of_a_log_that_was_cut_off() {
    let one = late_file(Timestamps::Micros, &[late(0, 4), late(0, 4)], 0);
    let two = late_file(Timestamps::Micros, &[late(0, 3), late(0, 4)], 1);
    let merged = merge_side(SideTable::Late, Timestamps::Micros, &[one, two]).unwrap();
    let columns = by_origin().group_by;
    let all = [late(0, 3), late(0, 4), late(0, 4), late(0, 4)];
    assert!(merged == write_late("clicks", Timestamps::Micros, &columns, &all, &footer()));
}

#[test]
fn a_side_file_with_any_byte_damaged_is_damaged_and_no_panic() {
    let (good, bytes) = late_file(Timestamps::Micros, &[late(0, 4), late(1, 4)], 0);
    for at in 0..bytes.len() {
        let mut damaged = bytes.to_vec();
        damaged[at] ^= 0xff;
        let mut source = good.clone();
        let bytes = Bytes::from(damaged);
        let sources = [(source.clone(), bytes.clone())];
        let error = merge_side(SideTable::Late, Timestamps::Micros, &sources).unwrap_err();
        assert!(
            matches!(error, MergeError::Damaged { place: 0, .. }),
            "{error}"
        );
        source.sha256 = sha256_hex(&bytes);
        _ = merge_side(SideTable::Late, Timestamps::Micros, &[(source, bytes)]);
    }
}

/// What `/proc/self/status` says, in KiB: the greatest memory so far.
fn peak_memory_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.unwrap().parse().unwrap()
}

/// The CPU time of this process in hundredths of a second.
fn cpu_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields = stat.rsplit(')').next().unwrap().split_whitespace();
    let ticks = fields.skip(11).take(2).map(|n| n.parse::<u64>().unwrap());
    ticks.sum()
}

/// The files of a day: 24 hours with windows of 10 s, and some 1,140 of 4,000 keys in each window.
/// Counts are of one to three digits.
fn write_day(folder: &std::path::Path) {
    let mut rng = Rng(1);
    let keys: Vec<Arc<[u8]>> = (0..4000)
        .map(|n| Arc::from(&*Key::of(&[Some(&format!("producer-{:05}.example.org", n * 7))]).0))
        .collect();
    for hour in 0..24 {
        let mut rows = Vec::new();
        for window in 0..360 {
            let start = EventTime(1_800_000_000_000 - 1_800_000_000_000 % 86_400_000)
                .plus((hour * 360 + window) * 10_000);
            let mut key = rng.below(3);
            while key < keys.len() {
                rows.push(Row {
                    start,
                    end: start.plus(10_000),
                    key: keys[key].clone(),
                    count: 1 + rng.below(300) as u64,
                    accs: [].into(),
                });
                key += 1 + rng.below(6);
            }
        }
        let file = committed(&by_origin(), Timestamps::Micros, &rows, 0);
        std::fs::write(folder.join(format!("{hour:02}")), &file.1).unwrap();
        let source = (file.0.rows, file.0.sha256);
        let json = serde_json::to_string(&source).unwrap();
        std::fs::write(folder.join(format!("{hour:02}.json")), json).unwrap();
    }
}

/// Run it twice, as the first run writes the files, which takes more memory than a merge:
/// `cargo test --release -p windrow-core --lib a_day_of_ten_million -- --ignored --nocapture`
#[test]
#[ignore = "needs a release build, a minute, and /proc"]
fn a_day_of_ten_million_rows_takes_little_time_and_memory() {
    use std::os::unix::fs::FileExt;
    let folder = std::env::temp_dir().join("windrow-merge-day");
    if !folder.join("23.json").is_file() {
        std::fs::create_dir_all(&folder).unwrap();
        write_day(&folder);
        println!("the files are in {}; run it again", folder.display());
        return;
    }
    let path = |hour: usize| folder.join(format!("{hour:02}"));
    let sources: Vec<Source> = (0..24)
        .map(|hour| {
            let json = std::fs::read(path(hour).with_extension("json")).unwrap();
            let (rows, sha256) = serde_json::from_slice(&json).unwrap();
            let bytes = std::fs::metadata(path(hour)).unwrap().len();
            let key = format!("hour {hour}");
            Source {
                key,
                bytes,
                rows,
                sha256,
            }
        })
        .collect();
    let read: u64 = sources.iter().map(|source| source.bytes).sum();
    let rows: u64 = sources.iter().map(|source| source.rows).sum();
    let (ticks, memory) = (cpu_ticks(), peak_memory_kib());
    let mut merge = Merge::new(&by_origin(), Timestamps::Micros, 1_000_000, sources);
    let mut requests = 0;
    loop {
        match merge.step().unwrap() {
            MergeStep::Fetch { source, range } => {
                requests += 1;
                let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap()];
                let file = std::fs::File::open(path(source)).unwrap();
                file.read_exact_at(&mut bytes, range.start).unwrap();
                merge.give(bytes.into()).unwrap();
            }
            MergeStep::Store { .. } => merge.stored(),
            MergeStep::Done => break,
        }
    }
    let merged = merge.finish();
    let ticks = cpu_ticks() - ticks;
    let peak = peak_memory_kib();
    println!(
        "{rows} rows, {read} bytes in {requests} requests, {} files with {} bytes: \
         {}.{:02} CPU s, peak {peak} KiB (before: {memory} KiB)",
        merged.len(),
        merged.iter().map(|file| file.bytes).sum::<u64>(),
        ticks / 100,
        ticks % 100,
    );
    assert_eq!(merged.iter().map(|file| file.rows).sum::<u64>(), rows);
    assert!(ticks < 3000 && peak < 128 * 1024);
}
