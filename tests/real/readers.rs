//! Readers in whose way files are replaced. Sessions of Spark 3.4 and 3.5, the Thrift server and a
//! reader that asks the metastore as Hive does sum the table in a loop, across hundreds of swaps,
//! while epochs are added, emptied table partitions are deleted and replaced files are deleted:
//! none of them may ever see another sum, or fail.
//!
//! The swaps are made here, by the catalog that windrow uses, because windrow itself makes one in
//! ten minutes. The times that protect a reader are shorter than windrow's in the same measure.
#![expect(
    clippy::disallowed_methods,
    reason = "readers and the writer run for a time by the clock"
)]

use crate::harness::{Setup, Spark, Thrift, env, hive_db, produce, record, topic, unique, wait};
use bytes::Bytes;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::runtime::Runtime;
use tokio_postgres::NoTls;
use windrow::io::catalog::Catalog;
use windrow::io::catalog::postgres::PostgresCatalog;
use windrow::io::catalog::session::PgConfig;
use windrow::io::store::{S3Config, Store};
use windrow_core::settings::config::{CatalogTls, S3Settings};
use windrow_core::table::commit::{
    Acquired, ClockBound, Commit, FileKind, Genesis, LaneCommit, NewFile, Owner, RetiredFile,
};
use windrow_core::table::compaction::Level;
use windrow_core::table::file::{Timestamps, write_late, write_rows};
use windrow_core::table::hive::{TableKind, TableName};
use windrow_core::table::place::{Names, Place};
use windrow_core::values::digest::sha256_hex;
use windrow_core::values::ledger::{LaneLedger, TableLedger};
use windrow_core::values::record::Key;
use windrow_core::values::row::{LateRecord, Row};
use windrow_core::values::shape::Shape;
use windrow_core::values::time::{DbTime, EventTime};

/// A file takes part in a swap this long after its commit. Windrow waits for a minute.
const SETTLED: Duration = Duration::from_secs(15);
/// An emptied table partition is deleted this long after its swap. Windrow waits ten minutes.
const EMPTIED_MS: u64 = 30_000;
/// A replaced file is deleted this long after its swap: longer than a query takes on a busy
/// machine. Windrow waits seven days.
const KEPT: Duration = Duration::from_secs(150);
/// How long the readers read at least, and how often. On a busy machine a query takes a minute.
const READ_FOR: Duration = Duration::from_secs(180);
const READS_MIN: usize = 10;
/// How long they are waited for.
const READ_AT_MOST: Duration = Duration::from_secs(600);

/// Files of each table whose rows are there from the start.
const FIXED_FILES: usize = 200;
const ROWS_A_FILE: usize = 20;
const LATE_FILES: usize = 40;
/// The days of the rows, by which the table is partitioned.
const DAYS: [&str; 2] = ["2026-11-26", "2026-11-27"];
const DAY_1_MS: i64 = 1_795_651_200_000;
const DAY_MS: i64 = 86_400_000;

const ANY_CLOCK: ClockBound = ClockBound {
    expected: DbTime(0),
    off_max_ms: u64::MAX,
};

/// What a file adds to the sums that readers check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sums {
    /// How many rows there are of the key `fixed`, and their counts. They never change.
    fixed_rows: i64,
    fixed: i64,
    /// The counts of the key `left` less those of `right`. Each epoch adds the same to both, in two
    /// files.
    skew: i64,
    /// Late records. They never change.
    late: i64,
}

impl Sums {
    fn plus(self, other: Self) -> Self {
        Self {
            fixed_rows: self.fixed_rows + other.fixed_rows,
            fixed: self.fixed + other.fixed,
            skew: self.skew + other.skew,
            late: self.late + other.late,
        }
    }
}

/// A file that readers see, with what is in it.
struct Shown {
    file: NewFile,
    content: Content,
    since: Instant,
}

#[derive(Clone)]
enum Content {
    Rows(Vec<Row>),
    Late(Vec<LateRecord>),
}

impl Content {
    fn sums(&self) -> Sums {
        let rows = match self {
            Content::Late(records) => {
                return Sums {
                    late: records.len() as i64,
                    ..Sums::default()
                };
            }
            Content::Rows(rows) => rows,
        };
        let of = |name: &'static str| rows.iter().filter(move |row| row.key == key(name));
        let count = |name: &'static str| of(name).map(|row| row.count as i64).sum::<i64>();
        Sums {
            fixed_rows: of("fixed").count() as i64,
            fixed: count("fixed"),
            skew: count("left") - count("right"),
            late: 0,
        }
    }
}

fn key(name: &str) -> Arc<[u8]> {
    Key::of(&[Some(name)]).0.as_ref().into()
}

/// What all readers must see.
const EXPECTED: Sums = Sums {
    fixed_rows: (FIXED_FILES * ROWS_A_FILE) as i64,
    fixed: (FIXED_FILES * ROWS_A_FILE) as i64 * 3,
    skew: 0,
    late: LATE_FILES as i64,
};

/// The sums of each file by its folder, which is the location of a table partition.
type ByPlace = Arc<Mutex<HashMap<String, Sums>>>;

/// The one who writes the table.
struct Writer {
    runtime: Runtime,
    catalog: Catalog,
    store: Store,
    warehouse: Place,
    names: Names,
    shape: Shape,
    owner: Owner,
    last: Commit,
    shown: BTreeMap<String, VecDeque<Shown>>,
    by_place: ByPlace,
    replaced: VecDeque<(Instant, String)>,
    /// How many swaps there were, and how many replaced files were deleted.
    swaps: usize,
    deleted: usize,
}

impl Writer {
    /// Takes the table `default.newtable` of the metastore `database`, and makes it.
    fn open(database: &str) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let warehouse: Place = format!("s3a://{}/{database}", env("S3_BUCKET"))
            .parse()
            .expect("a warehouse");
        let s3 = S3Config {
            settings: S3Settings {
                endpoint: Some(env("S3")),
                region: "us-east-1".to_owned(),
                path_style: true,
                ca_file: None,
                no_proxy: Vec::new(),
            },
            ca_pem: None,
            access_key: env("S3_KEY"),
            secret_key: env("S3_SECRET"),
            proxy: None,
        };
        let url = format!("postgresql://{}/{database}", env("PG"));
        let pg = PgConfig::new(
            &url,
            database,
            &env("PG_PASSWORD"),
            CatalogTls::Disable,
            None,
        );
        let name = TableName::new("default", "newtable").expect("a name");
        let pg = PostgresCatalog::new(pg.expect("a login"), name);
        let mut catalog = Catalog::Postgres(Box::new(pg));
        let taken = runtime.block_on(catalog.acquire("reader-test", "1", 3_600_000));
        let Ok(Acquired::Ours { owner, .. }) = taken else {
            panic!("{taken:?}");
        };
        let store = Store::open(&warehouse, &s3).expect("a store");
        let shape = Shape::count_by_origin("topic", 10_000, 10_000);
        let names = Names::new("default", "newtable");
        let mut writer = Self {
            runtime,
            catalog,
            store,
            warehouse: warehouse.clone(),
            names,
            last: first(&owner, &shape, warehouse),
            shape,
            owner,
            shown: BTreeMap::new(),
            by_place: ByPlace::default(),
            replaced: VecDeque::new(),
            swaps: 0,
            deleted: 0,
        };
        let empty = write_rows(&writer.shape, Timestamps::Micros, &[], &[]);
        let empty_key = writer.names.empty_file(&sha256_hex(&empty));
        writer.put(&empty_key, empty, Sums::default());
        let genesis = writer.last.genesis.as_mut().expect("epoch 0");
        genesis.empty_file = empty_key;
        writer.last.seal(&writer.names);
        let first = writer.last.clone();
        writer.send(&first);
        writer
    }

    /// Stores a file, after it was noted what is in it.
    fn put(&mut self, key: &str, bytes: Vec<u8>, sums: Sums) {
        let folder = key.rsplit_once('/').expect("a folder").0;
        let place = self.warehouse.uri_of(folder);
        self.by_place.lock().unwrap().insert(place, sums);
        let put = self.store.put(key, Bytes::from(bytes));
        self.runtime.block_on(put).expect("the store is there");
    }

    fn send(&mut self, commit: &Commit) {
        let sent = self.catalog.commit_by(commit, &ANY_CLOCK);
        self.runtime
            .block_on(sent)
            .unwrap_or_else(|error| panic!("epoch {}: {error}", commit.epoch));
    }

    /// The next epoch: adds these files, each with its day or none, and takes those away.
    fn commit(&mut self, content: Vec<(Option<&str>, Content, String)>, retired: &[NewFile]) {
        let epoch = self.last.epoch + 1;
        let mut files = Vec::new();
        let mut shown = Vec::new();
        for (i, (day, content, chunk)) in content.into_iter().enumerate() {
            let level = match retired {
                [] => Level::Commit,
                _ => Level::TenMinutes,
            };
            let file = self.file(epoch, i, day, &content, chunk, level);
            files.push(file.clone());
            shown.push((file, content));
        }
        let mut commit = Commit {
            epoch,
            previous: self.last.digest.clone(),
            genesis: None,
            files,
            retired: retired
                .iter()
                .map(|file| RetiredFile {
                    kind: file.kind.clone(),
                    key: file.key.clone(),
                    rows: file.rows,
                    bytes: file.bytes,
                })
                .collect(),
            ..self.last.clone()
        };
        commit.seal(&self.names);
        self.send(&commit);
        self.last = commit;
        for (file, content) in shown {
            let list = group(&file, &content);
            let since = Instant::now();
            let entry = self.shown.entry(list).or_default();
            entry.push_back(Shown {
                file,
                content,
                since,
            });
        }
        for file in retired {
            self.replaced.push_back((Instant::now(), file.key.clone()));
        }
    }

    fn file(
        &mut self,
        epoch: u64,
        number: usize,
        day: Option<&str>,
        content: &Content,
        chunk: String,
        level: Level,
    ) -> NewFile {
        let bytes = match content {
            Content::Rows(rows) => write_rows(&self.shape, Timestamps::Micros, rows, &[]),
            Content::Late(records) => write_late(
                "topic",
                Timestamps::Micros,
                &self.shape.group_by,
                records,
                &[],
            ),
        };
        let kind = match day {
            Some(date) => FileKind::Rows {
                date: date.to_owned(),
            },
            None => FileKind::Late,
        };
        let rows = match content {
            Content::Rows(rows) => rows.as_slice(),
            Content::Late(_) => &[],
        };
        let hash = sha256_hex(&bytes);
        // Files of the same rows have the same hash, and each needs a folder of its own.
        let unique = sha256_hex(format!("{hash} {epoch} {number}").as_bytes());
        let folder = TableKind::of(&kind).word();
        let key = self.names.file(folder, self.owner.term, epoch, &unique);
        let file = NewFile {
            kind,
            chunk,
            level,
            key: key.clone(),
            bytes: bytes.len() as u64,
            rows: match content {
                Content::Rows(rows) => rows.len() as u64,
                Content::Late(records) => records.len() as u64,
            },
            sha256: hash,
            first_window: rows.first().map(|row| row.start),
            last_window: rows.last().map(|row| row.start),
            as_of: None,
        };
        self.put(&key, bytes, content.sums());
        file
    }

    /// What is there from the start: the rows of `fixed`, and the late records.
    fn fill(&mut self) {
        let mut window = 0;
        for of_epoch in 0..8 {
            let mut content = Vec::new();
            for i in 0..FIXED_FILES / 8 {
                let rows = (0..ROWS_A_FILE).map(|_| {
                    window += 1;
                    row(DAY_1_MS + window * 10_000, "fixed", 3)
                });
                let rows = Content::Rows(rows.collect());
                content.push((Some(DAYS[0]), rows, chunk(self.last.epoch + 1, i)));
            }
            for i in 0..LATE_FILES / 8 {
                let offset = (of_epoch * LATE_FILES / 8 + i) as i64;
                let chunk = chunk(self.last.epoch + 1, i);
                content.push((None, Content::Late(vec![late(offset)]), chunk));
            }
            self.commit(content, &[]);
        }
    }

    /// A new epoch: the same counts to `left` on one day and to `right` on the other.
    fn add(&mut self) {
        let epoch = self.last.epoch + 1;
        let start = |day: i64| DAY_1_MS + day * DAY_MS + (40_000 + epoch as i64) * 1000;
        let count = 1 + epoch % 7;
        let content = |day: usize, key: &str| {
            let rows = vec![row(start(day as i64), key, count)];
            (Some(DAYS[day]), Content::Rows(rows), chunk(epoch, day))
        };
        self.commit(vec![content(0, "left"), content(1, "right")], &[]);
    }

    /// Two files that are settled become one. Returns whether there were any.
    fn swap(&mut self, list: &str) -> bool {
        let Some(files) = self.shown.get_mut(list) else {
            return false;
        };
        if files.len() < 2 || files.iter().take(2).any(|f| f.since.elapsed() < SETTLED) {
            return false;
        }
        let sources: Vec<Shown> = files.drain(..2).collect();
        let day = match &sources[0].file.kind {
            FileKind::Rows { date } => Some(date.clone()),
            _ => None,
        };
        let content = match (&sources[0].content, &sources[1].content) {
            (Content::Rows(a), Content::Rows(b)) => {
                let mut rows = [&a[..], b].concat();
                rows.sort_by_key(|row| row.start);
                Content::Rows(rows)
            }
            (Content::Late(a), Content::Late(b)) => {
                let mut records = [&a[..], b].concat();
                records.sort_by_key(|record| record.offset);
                Content::Late(records)
            }
            _ => unreachable!("one list is of one table"),
        };
        let chunk = sources[0].file.chunk.clone();
        let retired: Vec<NewFile> = sources.into_iter().map(|shown| shown.file).collect();
        self.commit(vec![(day.as_deref(), content, chunk)], &retired);
        self.swaps += 1;
        true
    }

    /// Deletes emptied table partitions and replaced files whose time has come.
    fn clean(&mut self) {
        let dropped = self
            .catalog
            .drop_emptied(&self.owner, EMPTIED_MS, &ANY_CLOCK);
        self.runtime.block_on(dropped).expect("they can be deleted");
        let mut keys = Vec::new();
        while self
            .replaced
            .front()
            .is_some_and(|(at, _)| at.elapsed() >= KEPT)
        {
            keys.extend(self.replaced.pop_front().map(|(_, key)| key));
        }
        if !keys.is_empty() {
            self.deleted += keys.len();
            let deleted = self.runtime.block_on(self.store.delete(keys));
            assert!(deleted.kept.is_empty(), "{deleted:?}");
        }
    }
}

/// Epoch 0.
fn first(owner: &Owner, shape: &Shape, warehouse: Place) -> Commit {
    let lane = LaneCommit {
        from: 0,
        to: 0,
        leader_epoch: -1,
        epoch_mark: None,
        watermark: None,
        ledger: LaneLedger::default(),
        held: 0,
        newest: None,
    };
    Commit {
        owner: owner.clone(),
        epoch: 0,
        previous: String::new(),
        genesis: Some(Genesis {
            shape: shape.clone(),
            warehouse,
            cluster_id: "cluster".to_owned(),
            topic_id: "topic".to_owned(),
            start_offsets: BTreeMap::from([(0, 0)]),
            empty_file: String::new(),
            adopted: None,
        }),
        lanes: BTreeMap::from([(0, lane)]),
        topic_id: "topic".to_owned(),
        cluster_id: "cluster".to_owned(),
        left_topic_ids: Vec::new(),
        decisions: Vec::new(),
        closed_through: None,
        ledger: TableLedger::default(),
        files: Vec::new(),
        retired: Vec::new(),
        checkpoint: None,
        manifest: String::new(),
        digest: String::new(),
    }
}

/// Files that may become one are in one list.
fn group(file: &NewFile, content: &Content) -> String {
    let key = match content {
        Content::Rows(rows) => String::from_utf8_lossy(&rows[0].key).into_owned(),
        Content::Late(_) => String::new(),
    };
    format!("{} {key}", file.kind.date())
}

fn chunk(epoch: u64, number: usize) -> String {
    match number {
        0 => format!("{epoch:010}"),
        n => format!("{epoch:010}-{}", n + 1),
    }
}

fn row(start: i64, name: &str, count: u64) -> Row {
    Row {
        start: EventTime(start),
        end: EventTime(start + 10_000),
        key: key(name),
        count,
        accs: Box::default(),
    }
}

fn late(offset: i64) -> LateRecord {
    LateRecord {
        partition: 0,
        offset,
        time: EventTime(DAY_1_MS),
        watermark: EventTime(DAY_1_MS + DAY_MS),
        key: key("fixed").as_ref().into(),
        value: format!("value {offset}").into_bytes().into(),
    }
}

/// Through the view, and with a filter of table partitions that Spark gives to the metastore.
fn query(number: usize) -> String {
    let sums = "SELECT CAST(count(CASE WHEN origin = 'fixed' THEN 1 END) AS string), \
        CAST(sum(CASE WHEN origin = 'fixed' THEN count ELSE 0 END) AS string), \
        CAST(sum(CASE origin WHEN 'left' THEN count WHEN 'right' THEN -count ELSE 0 END) \
        AS string)";
    match number % 2 {
        0 => format!("{sums} FROM newtable"),
        _ => format!("{sums} FROM newtable__chunks WHERE `date` >= '{}'", DAYS[0]),
    }
}

const LATE_QUERY: &str =
    "SELECT CAST(count(*) AS string), CAST(count(DISTINCT value) AS string) FROM newtable__late";

fn expected() -> Vec<String> {
    [EXPECTED.fixed_rows, EXPECTED.fixed, EXPECTED.skew]
        .map(|n| n.to_string())
        .to_vec()
}

/// A session that is open all along. It says how often it has read.
fn read_with_spark(database: &str, version: &str, over: &AtomicBool, done: &AtomicUsize) {
    let mut spark = Spark::open_version(database, version);
    let mut reads = 0;
    while !over.load(Ordering::Relaxed) {
        let found = spark.sql(&query(reads));
        let row: Vec<String> = serde_json::from_value(found.rows[0].clone()).expect("texts");
        assert_eq!(row, expected(), "Spark {version}, read {reads}");
        if reads % 5 == 4 {
            let found = spark.sql(LATE_QUERY);
            let row: Vec<String> = serde_json::from_value(found.rows[0].clone()).expect("texts");
            let late = EXPECTED.late.to_string();
            assert_eq!(row, [late.clone(), late], "Spark {version}, late records");
        }
        reads += 1;
        done.store(reads, Ordering::Relaxed);
    }
}

/// beeline, some statements at a time over one connection.
fn read_with_beeline(database: &str, over: &AtomicBool, done: &AtomicUsize) {
    const AT_A_TIME: usize = 10;
    let thrift = Thrift::up(database);
    let statements: Vec<String> = (0..AT_A_TIME).map(query).collect();
    let statements: Vec<&str> = statements.iter().map(String::as_str).collect();
    let mut reads = 0;
    while !over.load(Ordering::Relaxed) {
        let said = thrift.beeline(&statements);
        let right = |line: &&str| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            cells.get(1..4).is_some_and(|cells| *cells == expected())
        };
        let count = said.lines().filter(right).count();
        assert_eq!(count, AT_A_TIME, "beeline, read {reads}: {said}");
        reads += AT_A_TIME;
        done.store(reads, Ordering::Relaxed);
    }
}

/// Asks the metastore as Hive's direct SQL does: the ids of table partitions, then their places,
/// then their key values, each in a statement that sees what is committed at that moment. Other
/// work comes in between. The sums of what is at these places are known.
fn read_as_hive_does(database: &str, by_place: &ByPlace, over: &AtomicBool, done: &AtomicUsize) {
    let runtime = Runtime::new().expect("a runtime");
    let url = format!(
        "postgresql://{database}:{}@{}/{database}",
        env("PG_PASSWORD"),
        env("PG")
    );
    let db = runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    });
    let mut reads = 0;
    while !over.load(Ordering::Relaxed) {
        let mut sums = Sums::default();
        for (table, keys) in [("newtable__chunks", 2), ("newtable__late", 1)] {
            let pause = Duration::from_millis(reads as u64 % 40);
            let ids: Vec<i64> = runtime
                .block_on(db.query(
                    "SELECT \"PART_ID\" FROM \"PARTITIONS\" INNER JOIN \"TBLS\" USING (\"TBL_ID\") \
                     WHERE \"TBL_NAME\" = $1 ORDER BY \"PART_NAME\"",
                    &[&table],
                ))
                .unwrap()
                .iter()
                .map(|row| row.get(0))
                .collect();
            std::thread::sleep(pause);
            let places = runtime
                .block_on(db.query(
                    "SELECT \"PART_ID\", \"LOCATION\" FROM \"PARTITIONS\" \
                     LEFT OUTER JOIN \"SDS\" USING (\"SD_ID\") \
                     LEFT OUTER JOIN \"SERDES\" USING (\"SERDE_ID\") WHERE \"PART_ID\" = ANY($1)",
                    &[&ids],
                ))
                .unwrap();
            std::thread::sleep(pause);
            let values = runtime
                .block_on(db.query(
                    "SELECT \"PART_ID\", count(*) FROM \"PARTITION_KEY_VALS\" \
                     WHERE \"PART_ID\" = ANY($1) GROUP BY 1",
                    &[&ids],
                ))
                .unwrap();
            let values: HashMap<i64, i64> = values.iter().map(|r| (r.get(0), r.get(1))).collect();
            let known = by_place.lock().unwrap();
            for row in &places {
                let (id, place): (i64, String) = (row.get(0), row.get(1));
                assert_eq!(values.get(&id), Some(&keys), "the key values of {place}");
                sums = sums.plus(known[&place]);
            }
        }
        assert_eq!(sums, EXPECTED, "as Hive's direct SQL, read {reads}");
        reads += 1;
        done.store(reads, Ordering::Relaxed);
    }
}

/// Tells the readers, when it is dropped, that it is over.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
#[ignore = "needs the real parts: make test-real"]
fn readers_see_the_same_across_swaps_and_deletions() {
    let database = unique("readers");
    hive_db(&database, "lazy");
    let mut writer = Writer::open(&database);
    writer.fill();
    std::thread::sleep(SETTLED);
    let over = AtomicBool::new(false);
    let by_place = Arc::clone(&writer.by_place);
    let counts =
        ["Spark 3.4", "Spark 3.5", "beeline", "Hive's SQL"].map(|n| (n, AtomicUsize::new(0)));
    let [old, new, bee, hive] = &counts;
    std::thread::scope(|scope| {
        let readers = [
            scope.spawn(|| read_with_spark(&database, "3.4.2", &over, &old.1)),
            scope.spawn(|| read_with_spark(&database, "3.5.3", &over, &new.1)),
            scope.spawn(|| read_with_beeline(&database, &over, &bee.1)),
            scope.spawn(|| read_as_hive_does(&database, &by_place, &over, &hive.1)),
        ];
        // Readers end with the writer, also where it fails.
        let ends = Ends(&over);
        let begun = Instant::now();
        let have_read = || {
            counts
                .iter()
                .all(|(_, n)| n.load(Ordering::Relaxed) >= READS_MIN)
        };
        while (begun.elapsed() < READ_FOR || !have_read())
            && begun.elapsed() < READ_AT_MOST
            && !readers
                .iter()
                .any(std::thread::ScopedJoinHandle::is_finished)
        {
            writer.add();
            let lists: Vec<String> = writer.shown.keys().cloned().collect();
            for list in lists {
                writer.swap(&list);
            }
            writer.clean();
            std::thread::sleep(Duration::from_millis(300));
        }
        drop(ends);
        for reader in readers {
            reader.join().expect("it never failed");
        }
    });
    println!(
        "{counts:?} across {} swaps, {} epochs and {} deleted files",
        writer.swaps, writer.last.epoch, writer.deleted
    );
    assert!(writer.swaps >= 200 && writer.deleted >= 20);
    for (name, reads) in counts {
        let reads = reads.into_inner();
        assert!(reads >= READS_MIN, "{name} has read {reads} times only");
    }
}

/// Windrow itself makes a day of five commits one file, a minute after the last of them.
#[test]
#[ignore = "needs the real parts: make test-real"]
fn a_closed_day_becomes_one_file_with_the_same_rows() {
    let name = unique("day");
    topic(&name, 1);
    hive_db(&name, "script");
    let setup = Setup::new(&name, &name, "newtable", json!({"idle-timeout": "1s"}));
    let mut windrow = setup.start();
    let now_ms = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970");
    let today = i64::try_from(now_ms.as_millis()).expect("it fits") / DAY_MS * DAY_MS;
    let rounds = 5;
    for hour in 0..rounds {
        let start = today - DAY_MS + hour * 3_600_000;
        let records: Vec<Value> = (0..60)
            .map(|i| record(0, start + i * 10_000, "a"))
            .collect();
        produce(&name, &records);
        windrow.wait_for_all((hour as u64 + 1) * 60);
    }
    // It closes the day before.
    produce(&name, &[record(0, today + 60_000, "a")]);
    windrow.wait_for_all(rounds as u64 * 60 + 1);
    let mut spark = Spark::open(&name);
    let sums = "SELECT count(*), sum(count) FROM newtable";
    let yesterday = EventTime(today - DAY_MS).date();
    let chunks = |spark: &mut Spark| {
        let shown = spark.sql("SHOW PARTITIONS newtable__chunks").rows;
        let of_day = format!("date={yesterday}/");
        let of_day = shown
            .iter()
            .filter(|row| row[0].as_str().is_some_and(|s| s.starts_with(&of_day)));
        of_day.count()
    };
    let expect = json!([rounds * 60, rounds * 60]);
    wait("all rows are there", Duration::from_secs(20), || {
        (spark.sql(sums).rows == [expect.clone()]).then_some(())
    });
    assert!(chunks(&mut spark) >= 5);
    wait("the day is one file", Duration::from_secs(150), || {
        assert_eq!(spark.sql(sums).rows, vec![expect.clone()]);
        (chunks(&mut spark) == 1).then_some(())
    });
    let files = "SELECT count(DISTINCT f) FROM \
        (SELECT input_file_name() AS f FROM newtable__chunks)";
    assert_eq!(spark.sql(files).one(), &json!(1));
    let sorted = "SELECT CAST(window.start AS long), origin, count FROM newtable ORDER BY 1";
    let rows: Vec<Value> = (0..rounds * 60)
        .map(|i| {
            json!([
                (today - DAY_MS) / 1000 + i / 60 * 3600 + i % 60 * 10,
                "a",
                1
            ])
        })
        .collect();
    assert_eq!(spark.sql(sorted).rows, rows);
    windrow.stop();
}
