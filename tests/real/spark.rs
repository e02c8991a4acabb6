//! Spark reads what windrow wrote, and judges it: against the table that the use case's Spark job
//! makes of the same topic, against values worked out by hand, and in `million.rs` against a plain
//! group-by.

use crate::harness::{
    Found, Setup, Spark, Thrift, hive_db, parts, produce, psql, record, topic, unique, wait,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

/// 2024-09-01 19:42:00 UTC, the start of a window.
const START_MS: i64 = 1_725_219_720_000;
/// The delay of both: how far a record may be behind the newest one.
pub const DELAY_MS: i64 = 10_000;

/// Records whose time goes on by `step_ms` and is taken back by less than the delay, in a fixed
/// disorder: neither windrow nor Spark finds one late. Topic partitions and origins take turns.
pub fn disordered(count: i64, partitions: i64, origins: i64, step_ms: i64) -> Vec<Value> {
    (0..count)
        .map(|i| {
            let back = i * 7919 % (DELAY_MS - 100);
            let ts = START_MS + DELAY_MS + i * step_ms - back;
            record(
                (i % partitions) as i32,
                ts,
                &format!("producer-{} (10.1.63.230)", i / 2 % origins),
            )
        })
        .collect()
}

/// The use case's job on a topic, until it has read it all.
fn spark_job(database: &str, topic: &str, table: &str, slide: &[&str]) {
    parts(
        &[&["spark-job", database, topic, "--table", table], slide].concat(),
        "",
    );
}

/// Windrow on a topic, until it has closed all that Spark's job closes, and to its end.
///
/// Spark's watermark is the greatest time of the whole topic less the delay, and it closes what
/// ends there or before when it has read everything. Windrow does the same once all topic
/// partitions are idle: their floors rise to the greatest watermark of all.
fn windrow(database: &str, topic: &str, table: &str, records: usize, settings: Value) {
    let setup = Setup::new(database, topic, table, settings);
    let mut windrow = setup.start();
    windrow.wait_for_all(records as u64);
    windrow.stop();
}

/// The lines of a beeline answer, those of the table's body sorted: SQL promises no order.
fn body_sorted(answer: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = answer.lines().collect();
    assert!(lines.len() > 4, "a table was expected: {answer}");
    let last = lines.len() - 1;
    lines[3..last].sort_unstable();
    lines
}

#[test]
#[ignore = "needs the real parts: make test"]
fn the_table_looks_and_counts_as_the_spark_jobs() {
    let name = unique("judge");
    let tag = &name[6..];
    let (few, many) = (format!("{name}.few"), format!("{name}.many"));
    hive_db(&name, "script");
    // Closed at 65 s - 10 s: five windows of two origins, all that LIMIT 10 shows.
    let few_records = disordered(1100, 3, 2, 50);
    let many_records = disordered(12_000, 3, 40, 50);
    for (topic_name, records) in [(&few, &few_records), (&many, &many_records)] {
        topic(topic_name, 3);
        produce(topic_name, records);
    }
    // Names of the same length, so that answers that show them can be compared.
    let ours = |what: &str| format!("windrow_{what}_{tag}");
    let theirs = |what: &str| format!("sparkjob{what}_{tag}").replace("sparkjob", "sparkjb_");
    let idle = json!({"idle-timeout": "1s"});
    windrow(&name, &few, &ours("few"), few_records.len(), idle.clone());
    thread::scope(|scope| {
        scope.spawn(|| {
            spark_job(&name, &few, &theirs("few"), &[]);
            spark_job(&name, &many, &theirs("tumble"), &[]);
        });
        scope.spawn(|| spark_job(&name, &many, &theirs("slide"), &["--slide", "5 seconds"]));
        // Beside Spark, which makes tables in the same metastore.
        let int96 = json!({"idle-timeout": "1s", "table": {"timestamps": "int96"}});
        windrow(&name, &many, &ours("tumble"), many_records.len(), int96);
        let slide = json!({"idle-timeout": "1s", "slide": "5s"});
        windrow(&name, &many, &ours("slide"), many_records.len(), slide);
    });

    thread::scope(|scope| {
        scope.spawn(|| beeline_shows_the_same(&name, &ours("few"), &theirs("few")));
        scope.spawn(|| {
            for version in ["3.4.2", "3.5.3"] {
                let mut spark = Spark::open_version(&name, version);
                for what in ["few", "tumble", "slide"] {
                    sessions_see_the_same(&mut spark, &ours(what), &theirs(what));
                }
            }
        });
    });
}

/// What the use case types into beeline, on both tables: the same to the character, up to the
/// table's name and the order of rows.
fn beeline_shows_the_same(database: &str, ours: &str, theirs: &str) {
    let thrift = Thrift::up(database);
    for statement in [
        "DESCRIBE TABLE_NAME",
        "SELECT count(*) FROM TABLE_NAME",
        "SELECT * FROM TABLE_NAME LIMIT 10",
    ] {
        let [answer, judge] =
            [ours, theirs].map(|t| thrift.beeline(&[&statement.replace("TABLE_NAME", t)]));
        assert_eq!(body_sorted(&answer), body_sorted(&judge), "{statement}");
        println!("{answer}");
    }
    let shown = thrift.beeline(&["SHOW TABLES"]);
    let line = |table: &str| {
        let column = format!("| {table} ");
        shown
            .lines()
            .find(|l| l.contains(&column))
            .unwrap_or_else(|| panic!("{table} is not in\n{shown}"))
    };
    assert_eq!(line(ours).replace(ours, theirs), line(theirs));
}

/// Rows as multisets, types and times, in two time zones, with and without a filter that Parquet's
/// statistics serve.
fn sessions_see_the_same(spark: &mut Spark, ours: &str, theirs: &str) {
    for (zone, from) in [
        ("UTC", "2024-09-01 19:42:20"),
        ("America/New_York", "2024-09-01 15:42:20"),
    ] {
        spark.sql(&format!("SET spark.sql.session.timeZone={zone}"));
        for filter in [String::new(), format!("WHERE window.start >= '{from}'")] {
            let [found, judge] =
                [ours, theirs].map(|t| spark.sql(&format!("SELECT * FROM {t} {filter}")));
            assert_eq!(
                (&found.columns, &found.types),
                (&judge.columns, &judge.types)
            );
            assert_eq!(found.sorted(), judge.sorted(), "{ours} in {zone} {filter}");
            let starts = found
                .rows
                .iter()
                .map(|row| row[0]["start"].as_str().expect("a text").to_owned());
            let first = starts.min().expect("rows");
            // Also without the judge: 19:42 in UTC is 15:42 in New York.
            let expect = if filter.is_empty() { &from[..13] } else { from };
            assert!(
                first.starts_with(expect),
                "{ours} in {zone} {filter}: {first}"
            );
        }
    }
}

/// A connection that has read the tables before sees each commit; Spark's own tables come and go
/// beside ours.
#[test]
#[ignore = "needs the real parts: make test"]
#[expect(
    clippy::too_many_lines,
    reason = "one story, told in order: each step needs what the last one left"
)]
fn an_open_connection_sees_each_commit_and_makes_tables_of_its_own() {
    let name = unique("fresh");
    topic(&name, 1);
    hive_db(&name, "script");
    let setup = Setup::new(&name, &name, "newtable", json!({"idle-timeout": "1s"}));
    let mut windrow = setup.start();
    let mut spark = Spark::open(&name);
    let mut round = |number: i64, spark: &mut Spark| {
        // A minute of one record a second; then one of the first minute's start, and one that is no
        // JSON.
        let start = START_MS + number * 60_000;
        let mut records: Vec<Value> = (0..60).map(|i| record(0, start + i * 1000, "a")).collect();
        records.push(record(0, START_MS, "late"));
        records.push(json!({"p": 0, "ts": start + 59_000, "v": "{\"origin\": "}));
        produce(&name, &records);
        let rounds = number + 1;
        windrow.wait_for_all(rounds as u64 * 62);
        let newest = START_MS + rounds * 60_000 - 1000;
        let windows = (newest - DELAY_MS - START_MS) / 10_000;
        let expect: Vec<Value> = (0..windows)
            .map(|w| json!([START_MS / 1000 + w * 10, "a", 10]))
            .collect();
        let found =
            spark.sql("SELECT CAST(window.start AS long), origin, count FROM newtable ORDER BY 1");
        assert_eq!(found.rows, expect, "after round {number}");
        // These two need another commit, as they close nothing.
        let side = |spark: &mut Spark, sql: &str, expect: Vec<Value>| {
            wait(sql, Duration::from_secs(20), || {
                (spark.sql(sql).rows == expect).then_some(())
            });
        };
        let late = (0..rounds).map(|r| {
            let watermark = START_MS + r * 60_000 + 59_000 - DELAY_MS;
            json!([
                name,
                0,
                r * 62 + 60,
                START_MS / 1000,
                watermark / 1000,
                "late",
                true
            ])
        });
        side(
            spark,
            "SELECT topic, partition, offset, CAST(event_time AS long), CAST(watermark AS \
             long), key, \
             value LIKE '%\"origin\":\"late\"%' FROM newtable__late ORDER BY offset",
            late.collect(),
        );
        let rejects = (0..rounds).map(|r| json!([name, 0, r * 62 + 61, true, "{\"origin\": "]));
        side(
            spark,
            "SELECT topic, partition, offset, length(reason) > 5, value FROM newtable__rejects \
             ORDER BY offset",
            rejects.collect(),
        );
    };
    round(0, &mut spark);
    spark.sql("CREATE TABLE own_plain USING parquet AS SELECT 1 AS x");
    spark.sql("CREATE TABLE own_parts (x INT, d STRING) USING parquet PARTITIONED BY (d)");
    spark.sql("INSERT INTO own_parts VALUES (1, 'a'), (2, 'b')");
    round(1, &mut spark);
    // Spark takes ids five at a time: these may be from before windrow's last commit.
    spark.sql("INSERT INTO own_parts VALUES (3, 'c'), (4, 'd'), (5, 'e'), (6, 'f')");
    spark.sql("CREATE TABLE own_hive (x INT) STORED AS PARQUET");
    spark.sql("INSERT INTO own_hive VALUES (7)");
    round(2, &mut spark);
    assert_eq!(spark.sql("SELECT sum(x) FROM own_parts").one(), &json!(21));
    assert_eq!(spark.sql("SELECT sum(x) FROM own_hive").one(), &json!(7));
    for table in ["own_plain", "own_parts", "own_hive"] {
        spark.sql(&format!("DROP TABLE {table}"));
    }
    round(3, &mut spark);
    let tables = psql(&name, "SELECT \"TBL_NAME\" FROM \"TBLS\" ORDER BY 1");
    assert_eq!(
        tables.lines().collect::<Vec<_>>(),
        [
            "newtable",
            "newtable__chunks",
            "newtable__late",
            "newtable__rejects"
        ]
    );
    windrow.stop();
}

/// Two key columns, one of which may be null, and each aggregate, worked out by hand.
fn aggregate_records() -> Vec<Value> {
    let big = i64::MAX;
    let value = |ts: i64, text: String| json!({"p": 0, "ts": START_MS + ts, "v": text});
    vec![
        value(
            0,
            r#"{"origin": "a", "payload": {"kind": "x"}, "bytes": 3, "price": 0.10, "latency": -4}"#
                .to_owned(),
        ),
        value(
            1,
            r#"{"origin": "a", "payload": {"kind": "x"}, "bytes": 4, "price": 0.20, "latency": -7}"#
                .to_owned(),
        ),
        value(2, r#"{"origin": "a", "payload": {"kind": "x"}, "price": 12345678901234.56}"#.to_owned()),
        // A key that is null, missing, or has no parent: one group.
        value(3, r#"{"origin": "a", "payload": {"kind": null}, "bytes": 1}"#.to_owned()),
        value(4, r#"{"origin": "a", "payload": {}, "bytes": 2}"#.to_owned()),
        value(5, r#"{"origin": "a", "bytes": null}"#.to_owned()),
        // More than a bigint holds.
        value(6, format!(r#"{{"origin": 7, "payload": {{"kind": true}}, "bytes": {big}}}"#)),
        value(7, format!(r#"{{"origin": 7, "payload": {{"kind": true}}, "bytes": {big}}}"#)),
        // No key and no number at all.
        value(8, "{}".to_owned()),
        // Rejects: a float in an integer's field, more digits than the decimal takes, a key that is
        // a list.
        value(9, r#"{"origin": "a", "bytes": 1.5}"#.to_owned()),
        value(10, r#"{"origin": "a", "price": 0.001}"#.to_owned()),
        value(11, r#"{"origin": ["a"]}"#.to_owned()),
        value(40_000, r#"{"origin": "closes the others"}"#.to_owned()),
    ]
}

const AGGREGATES: &str = "count, sum(bytes), min(bytes), max(bytes), avg(bytes), sum(price \
                          decimal(18,2)) as total, \
                          min(price decimal(18,2)) as cheapest, max(latency) as worst";

fn aggregate_rows() -> (Vec<(&'static str, &'static str)>, Vec<Value>) {
    let columns = vec![
        ("window", "struct<start:timestamp,end:timestamp>"),
        ("origin", "string"),
        ("kind", "string"),
        ("count", "bigint"),
        ("sum_bytes", "decimal(38,0)"),
        ("min_bytes", "bigint"),
        ("max_bytes", "bigint"),
        ("avg_bytes", "double"),
        ("total", "decimal(38,2)"),
        ("cheapest", "decimal(18,2)"),
        ("worst", "bigint"),
    ];
    let (big, sum) = (i64::MAX.to_string(), "18446744073709551614");
    let rows = vec![
        json!([null, null, "1", null, null, null, null, null, null, null]),
        json!([
            "7",
            "true",
            "2",
            sum,
            big,
            big,
            "9.223372036854775807E18",
            null,
            null,
            null
        ]),
        json!(["a", null, "3", "3", "1", "2", "1.5", null, null, null]),
        json!([
            "a",
            "x",
            "3",
            "7",
            "3",
            "4",
            "3.5",
            "12345678901234.86",
            "0.10",
            "-4"
        ]),
    ];
    (columns, rows)
}

fn aggregates_are_right(spark: &mut Spark, kind: &str) {
    let (columns, rows) = aggregate_rows();
    let described: BTreeMap<String, String> = spark
        .sql("DESCRIBE newtable")
        .rows
        .iter()
        .map(|r| (text(&r[0]), text(&r[1])))
        .collect();
    let expect: BTreeMap<String, String> = columns
        .iter()
        .map(|(name, of)| ((*name).to_owned(), (*of).to_owned()))
        .collect();
    assert_eq!(described, expect, "{kind}");
    let Found {
        columns: named,
        types,
        ..
    } = spark.sql("SELECT * FROM newtable LIMIT 1");
    let found: Vec<_> = named
        .iter()
        .map(String::as_str)
        .zip(types.iter().map(String::as_str))
        .collect();
    assert_eq!(found, columns, "{kind}");
    let casts: Vec<String> = columns[1..]
        .iter()
        .map(|(name, _)| format!("CAST({name} AS string)"))
        .collect();
    let found = spark.sql(&format!(
        "SELECT {} FROM newtable ORDER BY origin, kind",
        casts.join(", ")
    ));
    // A double's digits are not the matter.
    let doubles = |rows: &[Value]| -> Vec<Value> {
        let mut rows = rows.to_vec();
        for row in &mut rows {
            if let Some(double) = row[6].as_str() {
                row[6] = json!(double.parse::<f64>().expect("a double"));
            }
        }
        rows
    };
    assert_eq!(doubles(&found.rows), doubles(&rows), "{kind}");
    assert_eq!(
        spark.sql("SELECT count(*) FROM newtable__rejects").one(),
        &json!(3),
        "{kind}"
    );
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// The schemas that Hive's own scripts make, and those that a Spark makes that was told to create
/// the tables itself.
#[test]
#[ignore = "needs the real parts: make test"]
fn aggregates_and_null_keys_are_read_from_every_kind_of_hive_schema() {
    let name = unique("kinds");
    topic(&name, 1);
    let records = aggregate_records();
    produce(&name, &records);
    thread::scope(|scope| {
        // Two at a time, as a Spark of its own reads most of them.
        for kinds in [["script", "4.0", "3.1"], ["lazy", "empty", "lazy-fresh"]] {
            let (name, records) = (&name, records.len() as u64);
            scope.spawn(move || kinds.map(|kind| kind_holds(kind, name, records)));
        }
    });
}

fn kind_holds(kind: &str, topic: &str, records: u64) {
    let database = format!("{topic}_{}", kind.replace(['.', '-'], ""));
    hive_db(&database, kind);
    let settings = json!({
        "idle-timeout": "1s",
        "group-by": "origin, payload.kind as kind",
        "aggregates": AGGREGATES,
        "on-bad-record": "null",
    });
    let setup = Setup::new(&database, topic, "newtable", settings);
    let mut windrow = setup.start();
    // Of these two there is a like that is read.
    let mut spark = (kind != "3.1" && kind != "lazy-fresh").then(|| Spark::open(&database));
    if kind == "empty" {
        // Spark makes Hive's tables when somebody needs them: they are waited for, and the reason
        // says how to get them.
        windrow.wait("it says what it waits for", Duration::from_secs(20), |s| {
            s.epoch.is_none() && s.reason.contains("open Kyuubi and create a table")
        });
        spark
            .as_mut()
            .expect("opened")
            .sql("CREATE TABLE own (x INT) USING parquet");
    }
    let status = windrow.wait_for_all(records);
    assert_eq!(status.rows, 4, "{kind}");
    windrow.stop();
    let table_partitions = psql(&database, "SELECT count(*) FROM \"PARTITIONS\"");
    assert_eq!(
        table_partitions.trim(),
        "2",
        "{kind}: one of rows, one of rejects"
    );
    if let Some(spark) = &mut spark {
        aggregates_are_right(spark, kind);
    }
}
