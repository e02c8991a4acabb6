//! The journal is lost, in part or as a whole, and comes back from the store: what docs/recovery.md
//! says, step by step. Each epoch must come back with the digest that it had, so nothing of it is
//! counted again.
#![expect(
    clippy::disallowed_methods,
    reason = "it says how long each recovery took"
)]

use crate::harness::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use windrow_core::shown::status::State;

/// For what takes a lease and some retries, with other tests beside it on two cores.
const SOON: Duration = Duration::from_secs(60);
/// 2024-09-01T10:00:00Z, at a window's start.
const T0: i64 = 1_725_184_800_000;
/// Event time between two batches: three windows.
const BATCH_MS: i64 = 30_000;
/// Records of a batch.
const BATCH: i64 = 60;

/// A table of its own, with what was produced for it.
struct Table {
    name: String,
    topic: String,
    batches: i64,
}

impl Table {
    fn new(prefix: &str) -> (Self, Setup) {
        let name = unique(prefix);
        hive_db(&name, "script");
        let topic_name = name.replace('_', "-");
        topic(&topic_name, 2);
        let settings = json!({"commit-interval": "200ms", "idle-timeout": "1s", "lease": "3s"});
        let setup = Setup::new(&name, &topic_name, &name, settings);
        let table = Self {
            topic: topic_name,
            name,
            batches: 0,
        };
        (table, setup)
    }

    /// Produces another batch, and waits until its rows are committed.
    fn count_more(&mut self, windrow: &mut Windrow<'_>) {
        let from = T0 + self.batches * BATCH_MS;
        let one = |i: i64| {
            let partition = i32::try_from(i % 2).expect("two");
            record(
                partition,
                from + i * 20_000 / BATCH,
                &format!("producer-{}", i % 3),
            )
        };
        produce(&self.topic, &(0..BATCH).map(one).collect::<Vec<_>>());
        self.batches += 1;
        windrow.wait_for_all(u64::try_from(self.batches * BATCH).expect("few"));
    }

    /// Window start, origin, count: of the table as it is committed.
    fn rows(setup: &Setup) -> BTreeMap<(String, String), u64> {
        let answer = setup.ask(&["rows", "--limit", "1000"]);
        let rows = answer["rows"].as_array().expect("a list");
        let text = |v: &Value| v.as_str().expect("text").to_owned();
        let row = |r: &Value| {
            let key = (text(&r["window"]["start"]), text(&r["origin"]));
            (key, r["count"].as_u64().expect("a number"))
        };
        rows.iter().map(row).collect()
    }

    /// The digests of all epochs that did not fold, by number.
    fn digests(&self) -> BTreeMap<u64, String> {
        let sql = "SELECT epoch, digest FROM windrow_2.epoch ORDER BY epoch";
        let lines = psql(&self.name, sql);
        let one = |line: &str| {
            let (epoch, digest) = line.split_once('|').expect("two columns");
            (epoch.parse().expect("a number"), digest.to_owned())
        };
        lines.lines().map(one).collect()
    }

    /// A copy of the database, as a backup or a standby has it. Nobody else may be connected.
    fn copy_database(&self, from: &str, to: &str) {
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = ";
        psql("postgres", &format!("{end}'{from}'"));
        let owner = &self.name;
        psql(
            "postgres",
            &format!("CREATE DATABASE \"{to}\" TEMPLATE \"{from}\" OWNER \"{owner}\""),
        );
    }

    /// The database is the copy again. What came after is lost.
    fn restore_database(&self, copy: &str) {
        let name = &self.name;
        psql(
            "postgres",
            &format!("DROP DATABASE \"{name}\" WITH (FORCE)"),
        );
        self.copy_database(copy, name);
        psql("postgres", &format!("DROP DATABASE \"{copy}\""));
    }

    /// All that was there is there again, and counting goes on.
    fn judge(
        &mut self,
        (setup, windrow): (&Setup, &mut Windrow<'_>),
        rows: &BTreeMap<(String, String), u64>,
        digests: &BTreeMap<u64, String>,
    ) {
        let last = *digests.keys().last().expect("epochs");
        windrow.wait("the chain is followed", SOON, |s| {
            s.epoch >= Some(last) && s.state == State::Counting
        });
        assert_eq!(&Self::rows(setup), rows);
        let now = self.digests();
        for (epoch, digest) in digests {
            if let Some(now) = now.get(epoch) {
                assert_eq!(now, digest, "epoch {epoch} is another one now");
            }
        }
        assert!(now.contains_key(&last));
        self.count_more(windrow);
        assert!(Self::rows(setup).len() > rows.len(), "it counts on");
        let verify = setup.command(&["verify", "--deep"]).output();
        let verify = verify.expect("windrow starts");
        let report = String::from_utf8_lossy(&verify.stdout);
        assert!(verify.status.success(), "{report}");
    }
}

#[test]
#[ignore = "needs Kafka, MinIO and PostgreSQL"]
fn a_database_restored_from_a_backup_gets_back_what_it_has_lost() {
    let (mut table, setup) = Table::new("backup");
    let mut windrow = setup.start();
    table.count_more(&mut windrow);
    windrow.stop();
    let copy = format!("{}_copy", table.name);
    table.copy_database(&table.name, &copy);
    let mut windrow = setup.start();
    for _ in 0..4 {
        table.count_more(&mut windrow);
    }
    windrow.stop();
    let (rows, digests) = (Table::rows(&setup), table.digests());
    table.restore_database(&copy);
    assert!(table.digests().len() < digests.len(), "epochs are lost");
    let started = Instant::now();
    let mut windrow = setup.start();
    table.judge((&setup, &mut windrow), &rows, &digests);
    println!(
        "restored from a backup: {} epochs and another batch in {:.1} s",
        digests.len(),
        started.elapsed().as_secs_f64()
    );
    windrow.stop();
}

#[test]
#[ignore = "needs Kafka, MinIO and PostgreSQL"]
fn a_failover_that_loses_the_last_epochs_is_made_good_while_windrow_runs() {
    let (mut table, setup) = Table::new("failover");
    let mut windrow = setup.start();
    table.count_more(&mut windrow);
    let copy = format!("{}_copy", table.name);
    windrow.signal("STOP");
    table.copy_database(&table.name, &copy);
    windrow.signal("CONT");
    for _ in 0..3 {
        table.count_more(&mut windrow);
    }
    let (rows, digests) = (Table::rows(&setup), table.digests());
    windrow.signal("STOP");
    table.restore_database(&copy);
    let started = Instant::now();
    windrow.signal("CONT");
    windrow.wait("the loss is noticed", SOON, |s| s.state != State::Counting);
    table.judge((&setup, &mut windrow), &rows, &digests);
    println!(
        "failed over: noticed, followed and another batch in {:.1} s",
        started.elapsed().as_secs_f64()
    );
    windrow.stop();
}

#[test]
#[ignore = "needs Kafka, MinIO and PostgreSQL"]
fn a_database_that_was_lost_is_rebuilt_from_the_store() {
    let (mut table, setup) = Table::new("lost");
    let mut windrow = setup.start();
    for _ in 0..3 {
        table.count_more(&mut windrow);
    }
    windrow.stop();
    // It was yesterday, so these epochs fold.
    psql(
        &table.name,
        "UPDATE windrow_2.epoch SET committed_at = committed_at - interval '1 day'; \
         UPDATE windrow_2.file SET committed_at = committed_at - interval '1 day'",
    );
    let mut windrow = setup.start();
    table.count_more(&mut windrow);
    // What fails on a busy machine is tried again a minute later.
    wait("epochs fold", 3 * SOON, || {
        let folded = psql(&table.name, "SELECT count(*) FROM windrow_2.history");
        (folded.trim() == "1").then_some(())
    });
    table.count_more(&mut windrow);
    windrow.stop();
    let (rows, digests) = (Table::rows(&setup), table.digests());
    psql(
        "postgres",
        &format!("DROP DATABASE \"{}\" WITH (FORCE)", table.name),
    );
    hive_db(&table.name, "script");
    let mut windrow = setup.start();
    windrow.ended(SOON);
    let log = setup.log();
    assert!(log.contains("windrow restore --from-manifests"), "{log}");
    drop(windrow);
    let started = Instant::now();
    let restored = setup.command(&["restore", "--from-manifests"]).output();
    let restored = restored.expect("windrow starts");
    let said = String::from_utf8_lossy(&restored.stdout).into_owned();
    let failed = String::from_utf8_lossy(&restored.stderr);
    assert!(restored.status.success(), "{failed}");
    assert!(said.contains("the next windrow run follows"), "{said}");
    let mut windrow = setup.start();
    table.judge((&setup, &mut windrow), &rows, &digests);
    println!(
        "lost entirely: rebuilt, followed and another batch in {:.1} s; it said:\n{said}",
        started.elapsed().as_secs_f64()
    );
    windrow.stop();
    let again = setup.command(&["restore", "--from-manifests"]).output();
    let again = again.expect("windrow starts");
    let failed = String::from_utf8_lossy(&again.stderr);
    assert!(failed.contains("nothing of it is lost"), "{failed}");
    the_journal_alone_is_lost(&mut table, &setup);
}

/// Hive's entries are still there.
fn the_journal_alone_is_lost(table: &mut Table, setup: &Setup) {
    let (rows, digests) = (Table::rows(setup), table.digests());
    let tables = ["job", "lane", "epoch", "file", "part", "history", "doomed"];
    let deletes = tables.map(|table| format!("DELETE FROM windrow_2.{table}"));
    psql(&table.name, &deletes.join("; "));
    let restored = setup.command(&["restore", "--from-manifests"]).output();
    let restored = restored.expect("windrow starts");
    let failed = String::from_utf8_lossy(&restored.stderr);
    assert!(restored.status.success(), "{failed}");
    let mut windrow = setup.start();
    table.judge((setup, &mut windrow), &rows, &digests);
    windrow.stop();
}
