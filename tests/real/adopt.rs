//! `windrow adopt` takes over from the use case's real Spark job, which is killed in the middle of
//! its work. The judge is a count of the whole topic.
#![expect(
    clippy::disallowed_methods,
    reason = "it sends records one second after the other"
)]

use crate::harness::{
    Setup, Spark, hive_db, parts, produce, psql, spawn_parts, topic, try_parts, unique, wait,
};
use crate::spark::{DELAY_MS, disordered};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::Output;
use std::thread;
use std::time::Duration;

/// Rows as Spark shows them: start of the window in seconds, origin, count.
type Rows = BTreeMap<(i64, String), i64>;

const ROWS: &str = "SELECT CAST(window.start AS long), origin, count FROM";

fn rows(spark: &mut Spark, table: &str) -> Rows {
    let found = spark.sql(&format!("{ROWS} {table}")).rows;
    let count = found.len();
    let rows: Rows = found
        .iter()
        .map(|row| {
            let text = row[1].as_str().expect("a text").to_owned();
            let number = |i: usize| row[i].as_i64().expect("a number");
            ((number(0), text), number(2))
        })
        .collect();
    assert_eq!(rows.len(), count, "no row is there twice");
    rows
}

/// The rows of all windows that are closed when all of the records were read.
fn counted(records: &[Value]) -> Rows {
    let time = |record: &Value| record["ts"].as_i64().expect("a time");
    let newest = records.iter().map(time).max().expect("records");
    let mut rows = Rows::new();
    for record in records {
        let start = time(record) - time(record).rem_euclid(10_000);
        if start + 10_000 <= newest - DELAY_MS {
            let value: Value = serde_json::from_str(record["v"].as_str().unwrap()).unwrap();
            let origin = value["origin"].as_str().unwrap().to_owned();
            *rows.entry((start / 1000, origin)).or_default() += 1;
        }
    }
    rows
}

fn adopt(setup: &Setup, checkpoint: &str, more: &[&str]) -> Output {
    let verb = [&["adopt", "--checkpoint", checkpoint], more].concat();
    setup.command(&verb).output().expect("windrow starts")
}

fn refusal(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
#[ignore = "needs the real parts: make test"]
#[expect(
    clippy::too_many_lines,
    reason = "one story, told in order: each step needs what the last one left"
)]
fn the_spark_jobs_table_is_taken_over_in_the_middle_of_its_work() {
    let name = unique("adopt");
    let bucket = crate::harness::env("S3_BUCKET");
    let checkpoint = format!("s3a://{bucket}/checkpoints/{name}");
    let table = format!("spark_{}", &name[6..]);
    hive_db(&name, "script");
    topic(&name, 3);
    let records = disordered(9000, 3, 7, 50);
    let (first, second) = records.split_at(4500);
    let job = [
        "spark-job",
        &name,
        &name,
        "--table",
        &table,
        "--checkpoint",
        &checkpoint,
    ];
    let staying = [&job[..], &["--max-offsets", "400", "--stay", "600"]].concat();
    let setup = Setup::new(&name, &name, &table, json!({"idle-timeout": "1s"}));

    // While the job is at work, it is not taken over. It is killed while records come.
    let (before, mut spark) = thread::scope(|scope| {
        let job_at_work = spawn_parts(&staying);
        scope.spawn(|| {
            for chunk in first.chunks(100) {
                produce(&name, chunk);
                thread::sleep(Duration::from_millis(500));
            }
        });
        let log = format!("warehouse/{table}/_spark_metadata/");
        wait(
            "the job has written some batches",
            Duration::from_secs(180),
            || {
                let listed = parts(&["s3", "ls", &log], "");
                (listed.lines().count() >= 3).then_some(())
            },
        );
        let why = refusal(&adopt(&setup, &checkpoint, &[]));
        assert!(why.contains("still running"), "{why}");
        wait("the job has written rows", Duration::from_secs(60), || {
            let listed = parts(&["s3", "ls", &log], "");
            (listed.lines().count() >= 7).then_some(())
        });
        drop(job_at_work);
        let mut spark = Spark::open(&name);
        (rows(&mut spark, &table), spark)
    });
    println!(
        "the job had written {} rows when it was killed",
        before.len()
    );
    assert!(!before.is_empty());
    for (change, expect) in [
        (
            json!({"window": "20s", "slide": "20s"}),
            "set window, slide and offset",
        ),
        (
            json!({"group-by": "kind"}),
            "set group-by as the job groups",
        ),
        (
            json!({"kafka": {"topic": "another"}}),
            "the settings name topic",
        ),
    ] {
        let other = Setup::new(&name, &name, &table, change);
        let why = refusal(&adopt(&other, &checkpoint, &["--dry-run"]));
        assert!(why.contains(expect), "{why}");
    }
    let elsewhere = adopt(&setup, &format!("{checkpoint}-none"), &[]);
    assert!(refusal(&elsewhere).contains("has another checkpoint"));

    let dry = adopt(&setup, &checkpoint, &["--dry-run"]);
    println!("{}", String::from_utf8_lossy(&dry.stdout));
    assert!(dry.status.success(), "{dry:?}");
    let adopted = adopt(&setup, &checkpoint, &[]);
    println!("{}", String::from_utf8_lossy(&adopted.stdout));
    assert!(adopted.status.success(), "{adopted:?}");
    assert_eq!(
        rows(&mut spark, &table),
        before,
        "a session that was open sees the same rows"
    );
    let mut fresh = Spark::open(&name);
    assert_eq!(rows(&mut fresh, &table), before);
    assert_eq!(rows(&mut fresh, &format!("{table}__spark")), before);
    let again = refusal(&adopt(&setup, &checkpoint, &[]));
    assert!(again.contains("windrow has counted it already"), "{again}");

    // Windrow goes on from there, through a crash.
    let mut windrow = setup.start();
    windrow.wait("it counts", Duration::from_secs(60), |s| s.consumed > 0);
    windrow.kill();
    produce(&name, second);
    let mut windrow = setup.start();
    let all = counted(&records);
    let status = windrow.wait("all windows are rows", Duration::from_secs(90), |s| {
        s.rows >= all.len() as u64
    });
    assert_eq!(rows(&mut spark, &table), all);
    let ledger = |key: fn(&windrow_core::shown::status::LaneStatus) -> u64| {
        status.lanes.iter().map(key).sum::<u64>()
    };
    println!(
        "adopted {} late {} counted {}",
        ledger(|l| l.ledger.adopted),
        ledger(|l| l.ledger.late),
        ledger(|l| l.ledger.counted)
    );
    assert_eq!(ledger(|l| l.ledger.late), 0);

    // The job is started again, by somebody who does not know.
    let job_again = try_parts(&job, "", &[]);
    let said = String::from_utf8_lossy(&job_again.stderr).into_owned();
    let error = said.lines().filter(|line| line.contains("Exception"));
    println!("{}", error.collect::<Vec<_>>().join("\n"));
    assert!(!job_again.status.success(), "{said}");
    assert_eq!(rows(&mut spark, &table), all);
    // By its table's new name it goes on, where nobody reads it.
    let mut renamed = job.map(str::to_owned);
    renamed[4] += "__spark";
    let renamed: Vec<&str> = renamed.iter().map(String::as_str).collect();
    parts(&renamed, "");
    fresh.sql(&format!("REFRESH TABLE {table}__spark"));
    assert!(rows(&mut fresh, &format!("{table}__spark")).len() > before.len());
    assert_eq!(rows(&mut spark, &table), all);
    let tables = psql(&name, "SELECT \"TBL_NAME\" FROM \"TBLS\" ORDER BY 1");
    let kinds = ["", "__chunks", "__late", "__rejects", "__spark"];
    assert_eq!(
        tables.lines().collect::<Vec<_>>(),
        kinds.map(|kind| format!("{table}{kind}"))
    );
    windrow.stop();
}
