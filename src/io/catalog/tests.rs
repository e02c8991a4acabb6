//! The cases that every catalog passes, over the directory and over PostgreSQL; then what only
//! PostgreSQL can do: rights, schemas, other clients, lost answers.

#![expect(
    clippy::disallowed_methods,
    reason = "tests have deadlines, and the environment says where the services are"
)]

use super::*;
use crate::io::catalog::session::PgConfig;
use cases::{
    ANY_CLOCK, Client as _, LEASE_MS, epoch, fenced, file, full, full_after_genesis, genesis, rows,
    stopped, take,
};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};
use tokio_postgres::NoTls;
use windrow_core::settings::config::CatalogTls;
use windrow_core::table::commit::{CheckpointAt, NewFile};
use windrow_core::table::hive::TableName;
use windrow_core::values::time::EventTime;

#[path = "../../../tests/catalog_cases.rs"]
mod cases;
mod history;
mod rebuild;
mod swaps;
mod versions;

/// Where a case runs.
enum Place {
    Local(tempfile::TempDir),
    Postgres(String),
}

impl Place {
    fn local() -> Self {
        Self::Local(tempfile::tempdir().unwrap())
    }

    /// A database that is made anew, of one of the kinds that `parts.sh hive-db` knows. Its owner
    /// is a role of the same name.
    fn postgres(name: &str, kind: &str) -> Self {
        let database = format!("catalog_{name}_{}", kind.replace(['.', '-'], "_"));
        parts(&["hive-db", &database, kind]);
        Self::Postgres(database)
    }

    fn catalog(&self, table: &str) -> Catalog {
        let name = TableName::new("default", table).unwrap();
        match self {
            Place::Local(dir) => Catalog::Local(LocalCatalog::new(dir.path(), name)),
            Place::Postgres(database) => postgres(&address(), database, database, name),
        }
    }

    fn database(&self) -> &str {
        match self {
            Place::Local(_) => unreachable!("a case of PostgreSQL's"),
            Place::Postgres(database) => database,
        }
    }

    /// A connection of another program, with the rights of the database's owner.
    async fn other_client(&self) -> tokio_postgres::Client {
        let (user, password, address) = (self.database(), password(), address());
        let url = format!("postgresql://{user}:{password}@{address}/{user}");
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }
}

fn postgres(address: &str, database: &str, user: &str, name: TableName) -> Catalog {
    let url = format!("postgresql://{address}/{database}");
    let config = PgConfig::new(&url, user, &password(), CatalogTls::Disable, None).unwrap();
    Catalog::Postgres(Box::new(PostgresCatalog::new(config, name)))
}

fn variable(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: eval \"$(tests/services/services.sh env)\""))
}

fn address() -> String {
    variable("WINDROW_TEST_PG")
}

fn password() -> String {
    variable("WINDROW_TEST_PG_PASSWORD")
}

fn parts(args: &[&str]) -> String {
    let output = Command::new(variable("WINDROW_TEST_PARTS"))
        .args(args)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{args:?}: {said} {}",
        String::from_utf8_lossy(&output.stderr)
    );
    said
}

#[track_caller]
fn retried<T: std::fmt::Debug>(answer: Result<T, CatalogError>, part: &str) {
    assert!(
        matches!(&answer, Err(CatalogError::Retry(why)) if why.text.contains(part)),
        "{answer:?}"
    );
}

#[track_caller]
fn because<T: std::fmt::Debug>(answer: Result<T, CatalogError>, cause: Cause, part: &str) {
    assert!(
        matches!(&answer, Err(CatalogError::Retry(why)) if why.cause == Some(cause)),
        "{answer:?}"
    );
    retried(answer, part);
}

impl cases::Place for Place {
    type Client = Catalog;

    fn client(&self, table: &str) -> Catalog {
        self.catalog(table)
    }
}

impl cases::Client for Catalog {
    async fn acquire_over(
        &mut self,
        who: &str,
        owner_id: &str,
        lease_ms: u64,
        over: Option<&LeaseMark>,
    ) -> Result<Acquired, CatalogError> {
        self.acquire_over(who, owner_id, lease_ms, over).await
    }

    async fn renew(&mut self, owner: &Owner, lease_ms: u64) -> Result<Renewed, CatalogError> {
        self.renew(owner, lease_ms).await
    }

    async fn release(&mut self, owner: &Owner) -> Result<(), CatalogError> {
        self.release(owner).await
    }

    async fn commit_by(
        &mut self,
        commit: &Commit,
        clock: &ClockBound,
    ) -> Result<DbTime, CatalogError> {
        self.commit_by(commit, clock).await
    }

    async fn outcome(&mut self, epoch: u64) -> Result<Outcome, CatalogError> {
        self.outcome(epoch).await
    }

    async fn head(&mut self) -> Result<Option<Head>, CatalogError> {
        self.head().await
    }

    async fn set_paused(&mut self, paused: bool) -> Result<(), CatalogError> {
        self.set_paused(paused, "admin").await
    }

    async fn live_files(&mut self) -> Result<Vec<LiveFile>, CatalogError> {
        self.live_files().await
    }

    async fn drop_emptied(
        &mut self,
        owner: &Owner,
        emptied_ms: u64,
        clock: &ClockBound,
    ) -> Result<(), CatalogError> {
        self.drop_emptied(owner, emptied_ms, clock).await
    }

    async fn doom(
        &mut self,
        owner: &Owner,
        keys: &[String],
        clock: &ClockBound,
    ) -> Result<Vec<String>, CatalogError> {
        self.doom(owner, keys, clock).await
    }

    async fn doomed_past(
        &mut self,
        grace_ms: u64,
        after: Option<&str>,
        clock: &ClockBound,
    ) -> Result<Vec<String>, CatalogError> {
        self.doomed_past(grace_ms, after, clock).await
    }

    async fn forget(&mut self, owner: &Owner, keys: &[String]) -> Result<(), CatalogError> {
        self.forget(owner, keys).await
    }

    async fn wait(&mut self) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Looks at the files that the case `a_table_lives_through_owners` has left.
async fn files_are_listed_newest_first(place: &Place) {
    let mut catalog = place.catalog("life");
    let owner = catalog.head().await.unwrap().unwrap().last.owner;
    let files = catalog.files(TableKind::Chunks, 2).await.unwrap();
    let newest: Vec<_> = files.newest.iter().map(|f| f.epoch).collect();
    assert_eq!(
        (newest, files.totals.files, files.totals.rows),
        (vec![4, 3], 4, 1 + 2 + 3 + 4)
    );
    assert_eq!(files.newest[0].file, file(&owner, 4, rows()));
    assert_eq!(files.totals.last_window, Some(EventTime(1_725_148_840_000)));
    let late = catalog.files(TableKind::Late, 100).await.unwrap();
    assert_eq!(late.newest.len(), 4);
    let rejects = catalog.files(TableKind::Rejects, 100).await.unwrap();
    assert_eq!(rejects.totals.first_window, None);
}

#[expect(clippy::too_many_lines, reason = "one story of one table")]
async fn doomed_keys_are_refused_and_named_ones_not_doomed(place: &Place) {
    let mut catalog = place.catalog("doom");
    let (owner, _) = take(&mut catalog, "a").await;
    let object = |n| {
        Some(CheckpointAt::Object(format!(
            "_windrow/default.t/checkpoints/{n}"
        )))
    };
    catalog
        .commit(&Commit {
            checkpoint: object(0),
            ..epoch(&owner, 0)
        })
        .await
        .unwrap();
    catalog
        .commit(&Commit {
            checkpoint: object(1),
            ..full(&owner, 1)
        })
        .await
        .unwrap();
    // The one before the newest is kept, for when the newest cannot be read.
    assert!(
        catalog
            .doomed_past(0, None, &ANY_CLOCK)
            .await
            .unwrap()
            .is_empty()
    );
    catalog
        .commit(&Commit {
            checkpoint: object(2),
            ..full(&owner, 2)
        })
        .await
        .unwrap();
    // The checkpoint of epoch 0 was replaced twice, so it is doomed already.
    assert_eq!(
        catalog.doomed_past(0, None, &ANY_CLOCK).await.unwrap(),
        ["_windrow/default.t/checkpoints/0"]
    );
    assert!(
        catalog
            .doomed_past(3_600_000, None, &ANY_CLOCK)
            .await
            .unwrap()
            .is_empty()
    );
    let next = full(&owner, 3);
    let named = [
        file(&owner, 1, rows()).key,
        epoch(&owner, 0).manifest,
        "_windrow/default.t/checkpoints/1".to_owned(),
        "_windrow/default.t/checkpoints/2".to_owned(),
    ];
    let mut keys = named.to_vec();
    keys.push(next.files[0].key.clone());
    assert_eq!(
        catalog.doom(&owner, &keys, &ANY_CLOCK).await.unwrap(),
        [next.files[0].key.clone()]
    );
    fenced(catalog.commit(&next).await, "is doomed");
    catalog
        .forget(&owner, &["_windrow/default.t/checkpoints/0".to_owned()])
        .await
        .unwrap();
    assert_eq!(
        catalog.doomed_past(0, None, &ANY_CLOCK).await.unwrap(),
        [next.files[0].key.clone()]
    );
    let stranger = Owner {
        term: owner.term + 1,
        ..owner.clone()
    };
    fenced(catalog.doom(&stranger, &keys, &ANY_CLOCK).await, "");
    fenced(catalog.forget(&stranger, &keys).await, "");
    catalog.commit(&epoch(&owner, 2)).await.unwrap();
}

async fn all_cases(place: &Place) {
    cases::all(place).await;
    files_are_listed_newest_first(place).await;
    doomed_keys_are_refused_and_named_ones_not_doomed(place).await;
}

#[tokio::test]
async fn directory_passes_all_cases() {
    all_cases(&Place::local()).await;
}

#[tokio::test]
async fn directory_goes_on_after_a_kill_in_the_middle_of_a_write() {
    let place = Place::local();
    let mut catalog = place.catalog("kill");
    let (owner, _) = take(&mut catalog, "a").await;
    catalog.commit(&epoch(&owner, 0)).await.unwrap();
    let Place::Local(dir) = &place else {
        unreachable!()
    };
    let folder = dir.path().join("_windrow_catalog/default.kill");
    for half_written in ["epochs/0000000001.tmp", "owner.tmp", "doomed.tmp"] {
        std::fs::write(folder.join(half_written), b"{\"half\":").unwrap();
    }
    drop(catalog);
    let mut catalog = place.catalog("kill");
    let (owner, head) = take(&mut catalog, "b").await;
    assert_eq!((owner.term, head.unwrap().last.epoch), (2, 0));
    catalog.commit(&full(&owner, 1)).await.unwrap();
    assert!(!folder.join("epochs/0000000001.tmp").exists());
}

/// Damages `file` of a local catalog, and looks what those who read it are told.
async fn damaged(file: &str, damage: impl FnOnce(&std::path::Path), part: &str) {
    let place = Place::local();
    let mut catalog = place.catalog("t");
    let (owner, _) = take(&mut catalog, "a").await;
    for n in 0..3 {
        catalog
            .commit(&full_after_genesis(&owner, n))
            .await
            .unwrap();
    }
    let orphan = "_windrow/default.t/orphan".to_owned();
    catalog.doom(&owner, &[orphan], &ANY_CLOCK).await.unwrap();
    catalog.release(&owner).await.unwrap();
    let Place::Local(dir) = &place else {
        unreachable!()
    };
    let path = dir.path().join("_windrow_catalog/default.t").join(file);
    damage(&path);
    let doomed = catalog.doomed_past(0, None, &ANY_CLOCK).await.map(drop);
    let answers = [
        catalog.acquire("b", "id of b", LEASE_MS).await.map(drop),
        doomed,
    ];
    let stop = answers.into_iter().find_map(|answer| match answer {
        Err(CatalogError::Stop(why)) => Some(why.text),
        _ => None,
    });
    let why = stop.unwrap_or_else(|| panic!("{file}: nobody was stopped"));
    assert!(
        why.contains(&path.display().to_string()) && why.contains(part),
        "{why}"
    );
    assert!(!why.contains("ours to write"), "{why}");
}

#[tokio::test]
async fn a_damaged_file_of_a_local_catalog_stops_with_its_name() {
    let write =
        |text: &'static str| move |path: &std::path::Path| std::fs::write(path, text).unwrap();
    let last = "epochs/0000000002.json";
    let sentence = "restore it from a backup";
    damaged(last, write("{\"half\":"), sentence).await;
    damaged(last, write(""), sentence).await;
    damaged("owner.json", write("[]"), sentence).await;
    damaged("doomed.json", write("[]"), sentence).await;
    let remove = |path: &std::path::Path| std::fs::remove_file(path).unwrap();
    damaged("epochs/0000000001.json", remove, "is gone").await;
    let copy = |path: &std::path::Path| {
        let earlier = path.with_file_name("0000000001.json");
        std::fs::copy(earlier, path).unwrap();
    };
    damaged(last, copy, "it holds epoch 1").await;
    let set_back = |path: &std::path::Path| {
        let text = std::fs::read_to_string(path).unwrap();
        let wrong = text.replace("\"to\":20", "\"to\":15");
        assert_ne!(text, wrong);
        std::fs::write(path, wrong).unwrap();
    };
    damaged(last, set_back, "the next offset is 15").await;
}

macro_rules! on_schemas {
    ($($test:ident: $kind:literal,)*) => { $(
        #[tokio::test]
        #[ignore = "needs PostgreSQL: make parts-up"]
        async fn $test() {
            all_cases(&Place::postgres("all", $kind)).await;
        }
    )* };
}

on_schemas! {
    metastore_by_script_passes_all_cases: "script",
    metastore_made_by_spark_passes_all_cases: "lazy",
    metastore_3_1_passes_all_cases: "3.1",
    metastore_4_0_passes_all_cases: "4.0",
}

/// The epochs' times as people look at them, and the transaction's own comparison.
#[tokio::test]
#[ignore = "needs PostgreSQL: make parts-up"]
async fn an_epoch_that_was_committed_ahead_of_time_takes_the_next_ones_with_it() {
    let place = Place::postgres("ahead_of_time", "script");
    let mut catalog = place.catalog("t");
    let (owner, _) = take(&mut catalog, "a").await;
    catalog.commit(&epoch(&owner, 0)).await.unwrap();
    // As a server whose clock was a day ahead would have written it.
    let other = place.other_client().await;
    other
        .batch_execute(
            "UPDATE windrow_2.epoch SET committed_at = clock_timestamp() + interval '1 day'",
        )
        .await
        .unwrap();
    let ahead = catalog.head().await.unwrap().unwrap().committed_at;
    let now = catalog.renew(&owner, LEASE_MS).await.unwrap().now;
    let clock = ClockBound {
        expected: now,
        off_max_ms: 60_000,
    };
    // It is no reason to wait, and time never goes back.
    for n in 1..3 {
        let at = catalog.commit_by(&full(&owner, n), &clock).await.unwrap();
        assert_eq!(at, ahead);
    }
    assert_eq!(catalog.head().await.unwrap().unwrap().committed_at, ahead);
}

#[tokio::test]
#[ignore = "needs PostgreSQL: make parts-up"]
async fn nothing_is_doomed_or_handed_out_for_deletion_by_another_clock() {
    let place = Place::postgres("doomed_by_another_clock", "script");
    let mut catalog = place.catalog("t");
    let (owner, _) = take(&mut catalog, "a").await;
    catalog.commit(&epoch(&owner, 0)).await.unwrap();
    let now = catalog.renew(&owner, LEASE_MS).await.unwrap().now;
    let clock = |ahead: i64| ClockBound {
        expected: DbTime(now.0 + ahead),
        off_max_ms: 60_000,
    };
    let keys = ["orphan".to_owned()];
    // The clock was set a week ahead since the owner heard it: by it, all that was doomed a moment
    // ago was doomed long enough ago.
    let week = 7 * 86_400_000;
    for ahead in [-week, week] {
        let because = "and run NTP";
        because_of_clocks(catalog.doom(&owner, &keys, &clock(ahead)).await, because);
        because_of_clocks(catalog.doomed_past(0, None, &clock(ahead)).await, because);
    }
    assert!(
        catalog
            .doomed_past(0, None, &clock(0))
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(catalog.doom(&owner, &keys, &clock(0)).await.unwrap(), keys);
    assert_eq!(catalog.doomed_past(0, None, &clock(0)).await.unwrap(), keys);
}

#[track_caller]
fn because_of_clocks<T: std::fmt::Debug>(answer: Result<T, CatalogError>, part: &str) {
    because(answer, Cause::Clocks, part);
}

#[tokio::test]
#[ignore = "needs PostgreSQL: make parts-up"]
async fn lease_of_a_clock_that_was_ahead_is_taken_when_it_was_seen_unchanged() {
    let place = Place::postgres("lease_ahead", "script");
    cases::lease_of_a_clock_that_was_ahead_is_taken_when_it_was_seen_unchanged(&place).await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL: make parts-up"]
async fn lease_that_is_over_is_taken() {
    let place = Place::postgres("lease", "script");
    cases::lease_that_is_over_is_taken(&place).await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL: make parts-up"]
async fn rows_are_what_spark_needs() {
    let place = Place::postgres("rows", "script");
    let mut catalog = place.catalog("newtable");
    assert_eq!(catalog.warehouse("default").await.unwrap(), None);
    let (owner, _) = take(&mut catalog, "a").await;
    catalog.commit(&epoch(&owner, 0)).await.unwrap();
    catalog.commit(&full(&owner, 1)).await.unwrap();
    assert_eq!(
        catalog.warehouse("default").await.unwrap().as_deref(),
        Some("s3a://spark/warehouse")
    );
    let client = place.other_client().await;
    let rows = client
        .query(
            r#"SELECT t."TBL_NAME", t."TBL_TYPE", p."PART_NAME", s."LOCATION", sp."PARAM_VALUE",
                 (SELECT string_agg(v."PART_KEY_VAL", ',' ORDER BY v."INTEGER_IDX") FROM
                   "PARTITION_KEY_VALS" v WHERE v."PART_ID" = p."PART_ID")
               FROM "TBLS" t LEFT JOIN "PARTITIONS" p USING ("TBL_ID") LEFT JOIN "SDS" s ON
                 s."SD_ID" = p."SD_ID"
               LEFT JOIN "SERDE_PARAMS" sp ON sp."SERDE_ID" = s."SERDE_ID" AND sp."PARAM_KEY" =
                 'path' ORDER BY 1"#,
            &[],
        )
        .await
        .unwrap();
    let text = |i: usize, j: usize| rows[i].get::<_, Option<&str>>(j).unwrap_or("-").to_owned();
    assert_eq!(
        (text(0, 0), text(0, 1), text(0, 2)),
        ("newtable".into(), "VIRTUAL_VIEW".into(), "-".into())
    );
    assert_eq!(
        (text(1, 0), text(1, 2)),
        (
            "newtable__chunks".into(),
            "date=2024-09-01/chunk=0000000001".into()
        )
    );
    assert_eq!(
        text(1, 3),
        "s3a://spark/warehouse/_windrow/default.t/rows/1-1-abc"
    );
    assert_eq!(text(1, 3), text(1, 4));
    assert_eq!(text(1, 5), "2024-09-01,0000000001");
    assert_eq!(text(2, 2), "chunk=0000000001");
}

#[tokio::test]
#[ignore = "needs PostgreSQL: make parts-up"]
async fn table_that_is_not_ours_is_refused() {
    for kind in ["script", "lazy"] {
        let place = Place::postgres("refused", kind);
        let client = place.other_client().await;
        let mut first = place.catalog("first");
        let (owner, _) = take(&mut first, "a").await;
        first.commit(&epoch(&owner, 0)).await.unwrap();
        let sql = r#"INSERT INTO "TBLS" ("TBL_ID", "CREATE_TIME", "DB_ID", "LAST_ACCESS_TIME",
          "RETENTION", "TBL_NAME", "TBL_TYPE", "IS_REWRITE_ENABLED")
                     SELECT 1000, 0, "DB_ID", 0, 0, 'newtable', 'MANAGED_TABLE', false FROM
                       "DBS" WHERE "NAME" = 'default'"#;
        client.batch_execute(sql).await.unwrap();
        let mut catalog = place.catalog("newtable");
        stopped(
            catalog.acquire("a", "x", LEASE_MS).await,
            "table \"default.newtable\" is there and is not windrow's",
        );
        // Somebody makes such a table after the look and before epoch 0.
        let mut late = place.catalog("second");
        let (owner, _) = take(&mut late, "a").await;
        client
            .batch_execute(r#"UPDATE "TBLS" SET "TBL_NAME" = 'second__late' WHERE "TBL_ID" = 1000"#)
            .await
            .unwrap();
        stopped(
            late.commit(&epoch(&owner, 0)).await,
            "table \"default.second__late\" is there and is not windrow's",
        );
        assert_eq!(late.head().await.unwrap(), None);
        // The journal is lost, but Hive's tables are still there.
        client
            .batch_execute("DELETE FROM windrow_2.job; DELETE FROM windrow_2.epoch")
            .await
            .unwrap();
        stopped(
            place.catalog("first").acquire("a", "x", LEASE_MS).await,
            "but the journal does not know it",
        );
    }
}

const GONE: &str = "is no longer in Hive";
const OTHER: &str = "is another table now";

/// What somebody does to Hive's rows, and what the next commit says of it.
const DAMAGES: [(&str, &str); 16] = [
    // Hive's own DROP TABLE sends these statements. It leaves the column list.
    (
        r#"CREATE TEMP TABLE gone AS SELECT "TBL_ID" FROM "TBLS"
             WHERE "TBL_NAME" IN ('t', 't__chunks');
           DELETE FROM "PARTITION_KEY_VALS" WHERE "PART_ID" IN
             (SELECT "PART_ID" FROM "PARTITIONS" JOIN gone USING ("TBL_ID"));
           DELETE FROM "PARTITIONS" WHERE "TBL_ID" IN (TABLE gone);
           DELETE FROM "PARTITION_KEYS" WHERE "TBL_ID" IN (TABLE gone);
           DELETE FROM "TABLE_PARAMS" WHERE "TBL_ID" IN (TABLE gone);
           DELETE FROM "TBLS" WHERE "TBL_ID" IN (TABLE gone)"#,
        GONE,
    ),
    (
        r#"UPDATE "TBLS" SET "TBL_NAME" = 'gone' WHERE "TBL_NAME" = 't__late'"#,
        GONE,
    ),
    (
        r#"UPDATE "TBLS" SET "VIEW_EXPANDED_TEXT" = 'SELECT 1' WHERE "TBL_NAME" = 't'"#,
        "no longer as windrow made it",
    ),
    (
        r#"DELETE FROM "TABLE_PARAMS" WHERE "PARAM_KEY" = 'windrow.table'"#,
        OTHER,
    ),
    (
        r#"DELETE FROM "PARTITION_KEY_VALS";
           DELETE FROM "PARTITIONS" WHERE "PART_NAME" LIKE 'date=%'"#,
        "the table partition \"",
    ),
    // What Spark does at ALTER VIEW t AS SELECT origin FROM t__chunks.
    (
        r#"INSERT INTO "CDS" ("CD_ID") VALUES (9000);
           INSERT INTO "COLUMNS_V2" ("CD_ID", "COLUMN_NAME", "TYPE_NAME", "INTEGER_IDX")
             VALUES (9000, 'origin', 'string', 0);
           CREATE TEMP TABLE altered AS SELECT "TBL_ID", "SD_ID" FROM "TBLS" WHERE "TBL_NAME" = 't';
           UPDATE "SDS" SET "CD_ID" = 9000 WHERE "SD_ID" IN (SELECT "SD_ID" FROM altered);
           UPDATE "TBLS" SET "VIEW_ORIGINAL_TEXT" = 'SELECT origin FROM t__chunks',
             "VIEW_EXPANDED_TEXT" = 'SELECT origin FROM t__chunks' WHERE "TBL_NAME" = 't';
           DELETE FROM "TABLE_PARAMS" WHERE "TBL_ID" IN (SELECT "TBL_ID" FROM altered)
             AND ("PARAM_KEY" LIKE 'view.%' OR "PARAM_KEY" LIKE 'spark.sql.sources.schema%');
           INSERT INTO "TABLE_PARAMS" ("TBL_ID", "PARAM_KEY", "PARAM_VALUE")
             SELECT "TBL_ID", key, value FROM altered, (VALUES
               ('spark.sql.sources.schema', '{"type":"struct","fields":[{"name":"origin",'
                 '"type":"string","nullable":true,"metadata":{}}]}'),
               ('view.catalogAndNamespace.numParts', '2'),
               ('view.catalogAndNamespace.part.0', 'spark_catalog'),
               ('view.catalogAndNamespace.part.1', 'default'),
               ('view.query.out.numCols', '1'), ('view.query.out.col.0', 'origin'),
               ('view.sqlConfig.spark.sql.ansi.enabled', 'false')) AS p (key, value)"#,
        "altered: its query",
    ),
    // The same, by somebody who has then put the query right.
    (
        r#"UPDATE "TABLE_PARAMS" SET "PARAM_VALUE" = '1'
             WHERE "PARAM_KEY" = 'view.query.out.numCols';
           DELETE FROM "TABLE_PARAMS" WHERE "PARAM_KEY" = 'view.query.out.col.2'"#,
        "altered: its property view.query.out.",
    ),
    // What Hive does at ALTER TABLE t__chunks REPLACE COLUMNS (origin string).
    (
        r#"INSERT INTO "CDS" ("CD_ID") VALUES (9000);
           INSERT INTO "COLUMNS_V2" ("CD_ID", "COLUMN_NAME", "TYPE_NAME", "INTEGER_IDX")
             VALUES (9000, 'origin', 'string', 0);
           UPDATE "SDS" SET "CD_ID" = 9000 WHERE "SD_ID" IN
             (SELECT "SD_ID" FROM "TBLS" WHERE "TBL_NAME" = 't__chunks')"#,
        "altered: its columns",
    ),
    // It leaves Hive's columns as they are, and Spark goes by this.
    (
        r#"UPDATE "TABLE_PARAMS" SET "PARAM_VALUE" = replace("PARAM_VALUE", '"long"', '"integer"')
           WHERE "PARAM_KEY" = 'spark.sql.sources.schema.part.0' AND "TBL_ID" IN
             (SELECT "TBL_ID" FROM "TBLS" WHERE "TBL_NAME" = 't__chunks')"#,
        "altered: its property spark.sql.sources.schema",
    ),
    // Without it Spark looks for files in the table's empty directory.
    (
        r#"DELETE FROM "TABLE_PARAMS" WHERE "PARAM_KEY" = 'spark.sql.partitionProvider'"#,
        "altered: its property spark.sql.partitionProvider",
    ),
    (
        r#"UPDATE "PARTITION_KEYS" SET "PKEY_TYPE" = 'date' WHERE "PKEY_NAME" = 'date'"#,
        "altered: its partition columns",
    ),
    // What Hive does at ALTER TABLE t__chunks PARTITION (...) RENAME TO PARTITION (...): the id and
    // the place stay.
    (
        r#"UPDATE "PARTITIONS" SET "PART_NAME" = 'date=2027-01-01/chunk=0000000001'
             WHERE "PART_NAME" LIKE 'date=%';
           UPDATE "PARTITION_KEY_VALS" SET "PART_KEY_VAL" = '2027-01-01'
             WHERE "PART_KEY_VAL" LIKE '2024-%'"#,
        "missing or altered",
    ),
    // ALTER TABLE t__chunks ADD PARTITION (...) LOCATION 'the place of a file': its rows are
    // counted twice.
    (SECOND_LOOK_AT_OURS, "has 2 table partitions in Hive"),
    // What Hive does at ALTER TABLE t__chunks SET TBLPROPERTIES ('EXTERNAL'='FALSE'). Then DROP
    // TABLE deletes the folders of all table partitions.
    (MANAGED, "altered: its type"),
    // The same danger.
    (
        r#"INSERT INTO "TABLE_PARAMS" ("TBL_ID", "PARAM_KEY", "PARAM_VALUE")
             SELECT "TBL_ID", 'external.table.purge', 'TRUE' FROM "TBLS"
             WHERE "TBL_NAME" = 't__chunks'"#,
        "altered: its property external.table.purge",
    ),
    (
        r#"UPDATE "SDS" SET "CD_ID" = NULL WHERE "SD_ID" IN
             (SELECT "SD_ID" FROM "TBLS" WHERE "TBL_NAME" = 't__late')"#,
        "altered: its columns",
    ),
];

const MANAGED: &str = r#"UPDATE "TBLS" SET "TBL_TYPE" = 'MANAGED_TABLE'
             WHERE "TBL_NAME" = 't__chunks';
           UPDATE "TABLE_PARAMS" SET "PARAM_VALUE" = 'FALSE' WHERE "PARAM_KEY" = 'EXTERNAL'
             AND "TBL_ID" IN (SELECT "TBL_ID" FROM "TBLS" WHERE "TBL_NAME" = 't__chunks')"#;

const SECOND_LOOK_AT_OURS: &str = r#"CREATE TEMP TABLE one AS
             SELECT p."TBL_ID", s."CD_ID", s."LOCATION" FROM "PARTITIONS" AS p
             JOIN "SDS" AS s USING ("SD_ID") WHERE "PART_NAME" LIKE 'date=%';
           INSERT INTO "SERDES" ("SERDE_ID") VALUES (9000);
           INSERT INTO "SERDE_PARAMS" ("SERDE_ID", "PARAM_KEY", "PARAM_VALUE")
             SELECT 9000, 'path', "LOCATION" FROM one;
           INSERT INTO "SDS" ("SD_ID", "IS_COMPRESSED", "IS_STOREDASSUBDIRECTORIES",
             "NUM_BUCKETS", "LOCATION", "SERDE_ID", "CD_ID")
             SELECT 9000, false, false, -1, "LOCATION", 9000, "CD_ID" FROM one;
           INSERT INTO "PARTITIONS" ("PART_ID", "CREATE_TIME", "LAST_ACCESS_TIME", "PART_NAME",
             "SD_ID", "TBL_ID")
             SELECT 9000, 0, 0, 'date=2027-01-01/chunk=it''s', 9000, "TBL_ID" FROM one;
           INSERT INTO "PARTITION_KEY_VALS" ("PART_ID", "PART_KEY_VAL", "INTEGER_IDX")
             VALUES (9000, '2027-01-01', 0), (9000, 'it''s', 1);
           INSERT INTO "PARTITION_PARAMS" ("PART_ID", "PARAM_KEY", "PARAM_VALUE")
             VALUES (9000, 'transient_lastDdlTime', '1725212535')"#;

/// What Hive says of the four tables, without ids and times.
const TABLES_IN_HIVE: &str = r#"SELECT string_agg(concat_ws(E'\n', "TBL_NAME", "TBL_TYPE",
    "VIEW_ORIGINAL_TEXT", "VIEW_EXPANDED_TEXT",
    (SELECT string_agg("COLUMN_NAME" || ' ' || "TYPE_NAME", ', ' ORDER BY "INTEGER_IDX")
       FROM "COLUMNS_V2" AS c WHERE c."CD_ID" = s."CD_ID"),
    (SELECT string_agg("PKEY_NAME" || ' ' || "PKEY_TYPE", ', ' ORDER BY "INTEGER_IDX")
       FROM "PARTITION_KEYS" AS k WHERE k."TBL_ID" = t."TBL_ID"),
    (SELECT string_agg("PARAM_KEY" || '=' || "PARAM_VALUE", E'\n' ORDER BY "PARAM_KEY")
       FROM "TABLE_PARAMS" AS p WHERE p."TBL_ID" = t."TBL_ID"),
    (SELECT string_agg(DISTINCT (o."CD_ID" = s."CD_ID")::text, ',')
       FROM "PARTITIONS" AS p JOIN "SDS" AS o ON o."SD_ID" = p."SD_ID"
       WHERE p."TBL_ID" = t."TBL_ID")), E'\n\n' ORDER BY "TBL_NAME")
  FROM "TBLS" AS t LEFT JOIN "SDS" AS s USING ("SD_ID") WHERE "TBL_NAME" LIKE 't%'"#;

/// What Hive says of the table partitions, without ids and times.
const PARTITIONS_IN_HIVE: &str = r#"SELECT string_agg(concat_ws(' ', t."TBL_NAME", p."PART_NAME",
    (SELECT string_agg(k."PART_KEY_VAL", ',' ORDER BY k."INTEGER_IDX")
       FROM "PARTITION_KEY_VALS" AS k WHERE k."PART_ID" = p."PART_ID"), s."LOCATION",
    (SELECT string_agg(v."PARAM_VALUE", ',') FROM "SERDE_PARAMS" AS v
       WHERE v."SERDE_ID" = s."SERDE_ID" AND v."PARAM_KEY" = 'path')),
    E'\n' ORDER BY t."TBL_NAME", s."LOCATION")
  FROM "PARTITIONS" AS p JOIN "TBLS" AS t USING ("TBL_ID") LEFT JOIN "SDS" AS s
    ON s."SD_ID" = p."SD_ID" WHERE t."TBL_NAME" LIKE 't\_\_%'"#;

/// Which transaction has written each row.
const VERSIONS_IN_HIVE: &str = r#"SELECT concat_ws(' ',
    (SELECT string_agg(xmin::text, ',' ORDER BY "SD_ID") FROM "SDS"),
    (SELECT string_agg(xmin::text, ',' ORDER BY "TBL_ID") FROM "TBLS"),
    (SELECT string_agg(xmin::text, ',' ORDER BY "TBL_ID", "PARAM_KEY")
      FROM "TABLE_PARAMS"),
    (SELECT string_agg(xmin::text, ',' ORDER BY "CD_ID", "COLUMN_NAME")
      FROM "COLUMNS_V2"),
    (SELECT string_agg(xmin::text, ',' ORDER BY "PART_ID") FROM "PARTITIONS"),
    (SELECT string_agg(xmin::text, ',' ORDER BY "PART_ID", "INTEGER_IDX")
      FROM "PARTITION_KEY_VALS"),
    (SELECT string_agg(xmin::text, ',' ORDER BY "SERDE_ID", "PARAM_KEY")
      FROM "SERDE_PARAMS"))"#;

/// The one text that a statement answers.
async fn text(client: &tokio_postgres::Client, sql: &str) -> String {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test]
#[ignore = "needs PostgreSQL: make parts-up"]
async fn what_was_dropped_or_altered_stops_the_next_commit_until_restored() {
    for (i, (sql, part)) in DAMAGES.into_iter().enumerate() {
        let place = Place::postgres("dropped", if i % 2 == 0 { "script" } else { "lazy" });
        let mut catalog = place.catalog("t");
        let (owner, _) = take(&mut catalog, "a").await;
        catalog.commit(&epoch(&owner, 0)).await.unwrap();
        catalog.commit(&full(&owner, 1)).await.unwrap();
        let client = place.other_client().await;
        let made = text(&client, TABLES_IN_HIVE).await;
        let made_partitions = text(&client, PARTITIONS_IN_HIVE).await;
        client.batch_execute(sql).await.unwrap();
        stopped(catalog.commit(&full(&owner, 2)).await, part);
        stopped(catalog.commit(&full(&owner, 2)).await, "table was dropped");
        assert!(matches!(
            catalog.commit(&full(&owner, 2)).await,
            Err(CatalogError::Stop(why)) if why.cause == Some(Cause::TableDropped)
        ));
        assert_eq!(catalog.head().await.unwrap().unwrap().last.epoch, 1);
        stopped(
            catalog.commit(&full(&owner, 2)).await,
            "run windrow restore",
        );
        // The verb is a process of its own, which has to wait until the owner has ended.
        let mut verb = place.catalog("t");
        let answer = verb.restore("admin", "id of admin", LEASE_MS).await;
        because(answer, Cause::Held, "while \"a\" owns it");
        catalog.release(&owner).await.unwrap();
        let answer = verb.restore("admin", "id of admin", LEASE_MS).await;
        if part == OTHER {
            stopped(answer, "is not windrow's");
            continue;
        }
        answer.unwrap();
        assert_eq!(text(&client, TABLES_IN_HIVE).await, made, "{sql}");
        let partitions = text(&client, PARTITIONS_IN_HIVE).await;
        assert_eq!(partitions, made_partitions, "{sql}");
        let before = text(&client, VERSIONS_IN_HIVE).await;
        verb.restore("admin", "id of admin", LEASE_MS)
            .await
            .unwrap();
        let after = text(&client, VERSIONS_IN_HIVE).await;
        assert_eq!(after, before, "a row was written that did not differ");
        fenced(
            catalog.commit(&full(&owner, 2)).await,
            "\"admin\" owns it now",
        );
        let (owner, head) = take(&mut catalog, "a").await;
        assert_eq!(head.unwrap().last.epoch, 1);
        catalog.commit(&full(&owner, 2)).await.unwrap();
        let partitions = text(&client, PARTITIONS_IN_HIVE).await;
        let (before, added): (Vec<&str>, Vec<&str>) = partitions
            .lines()
            .partition(|line| made_partitions.lines().any(|made| made == *line));
        assert_eq!(before.join("\n"), made_partitions, "{sql}");
        let chunks = "t__chunks date=2024-09-01/chunk=0000000002 2024-09-01,0000000002 \
                      s3a://spark/warehouse/_windrow/default.t/rows/";
        assert!(
            added.len() == 3 && added[0].starts_with(chunks),
            "{added:?}"
        );
        let places = r#"SELECT count(*), count(DISTINCT s."LOCATION") FROM "PARTITIONS"
            JOIN "TBLS" AS t USING ("TBL_ID") JOIN "SDS" AS s ON s."SD_ID" = "PARTITIONS"."SD_ID"
            WHERE t."TBL_NAME" LIKE 't\_\_%'"#;
        let row = client.query_one(places, &[]).await.unwrap();
        assert_eq!((row.get(0), row.get(1)), (6_i64, 6_i64), "{sql}");
    }
}

/// A table of one name, with one epoch that has files; its lease is given back.
async fn one_epoch(place: &Place) -> Catalog {
    let mut catalog = place.catalog("t");
    let (owner, _) = take(&mut catalog, "a").await;
    catalog.commit(&epoch(&owner, 0)).await.unwrap();
    catalog.commit(&full(&owner, 1)).await.unwrap();
    catalog.release(&owner).await.unwrap();
    catalog
}

/// `INSERT INTO t__chunks`, for example: it puts its files below the table's own empty folder.
#[tokio::test]
#[ignore = "needs PostgreSQL: make parts-up"]
async fn rows_of_somebody_else_are_named_and_neither_counted_nor_deleted() {
    for kind in ["script", "lazy"] {
        let place = Place::postgres("foreign", kind);
        let mut catalog = one_epoch(&place).await;
        let client = place.other_client().await;
        let made = text(&client, PARTITIONS_IN_HIVE).await;
        let inserted = "_windrow/default.t/tables/rows/date=2027-01-01/chunk=7";
        client.batch_execute(SECOND_LOOK_AT_OURS).await.unwrap();
        client
            .batch_execute(&format!(
                "UPDATE \"SDS\" SET \"LOCATION\" = 's3a://spark/warehouse/{inserted}' \
                   WHERE \"SD_ID\" = 9000; \
                 UPDATE \"SERDE_PARAMS\" SET \"PARAM_VALUE\" = 's3a://spark/warehouse/{inserted}' \
                   WHERE \"SERDE_ID\" = 9000 AND \"PARAM_KEY\" = 'path'"
            ))
            .await
            .unwrap();
        client.batch_execute(MANAGED).await.unwrap();
        let answer = catalog.restore("admin", "id of admin", LEASE_MS).await;
        let drop = "ALTER TABLE `default`.`t__chunks` \
                    DROP PARTITION (`date`='2027-01-01', `chunk`='it\\'s')";
        stopped(answer, drop);
        // Everything else is as it was made: that statement deletes no files now.
        let types = r#"SELECT string_agg(DISTINCT "TBL_TYPE", ',') FROM "TBLS""#;
        assert_eq!(text(&client, types).await, "EXTERNAL_TABLE,VIRTUAL_VIEW");
        let said = text(&client, PARTITIONS_IN_HIVE).await;
        assert!(said.contains(inserted), "{said}");
        let (owner, _) = take(&mut catalog, "a").await;
        let answer = catalog.commit(&full(&owner, 2)).await;
        stopped(
            answer,
            "has 2 table partitions in Hive, and 1 by the journal",
        );
        catalog.release(&owner).await.unwrap();
        client
            .batch_execute(
                r#"DELETE FROM "PARTITION_PARAMS" WHERE "PART_ID" = 9000;
                   DELETE FROM "PARTITION_KEY_VALS" WHERE "PART_ID" = 9000;
                   DELETE FROM "PARTITIONS" WHERE "PART_ID" = 9000"#,
            )
            .await
            .unwrap();
        let notes = catalog.restore("admin", "id", LEASE_MS).await.unwrap();
        assert!(notes.is_empty(), "{notes:?}");
        assert_eq!(text(&client, PARTITIONS_IN_HIVE).await, made);
        let (owner, _) = take(&mut catalog, "a").await;
        catalog.commit(&full(&owner, 2)).await.unwrap();
    }
}

#[tokio::test]
#[ignore = "needs PostgreSQL: make parts-up"]
async fn a_drop_that_deletes_files_is_never_advised() {
    let place = Place::postgres("managed", "script");
    let mut catalog = one_epoch(&place).await;
    let client = place.other_client().await;
    client.batch_execute(MANAGED).await.unwrap();
    client
        .batch_execute(
            r#"CREATE TEMP TABLE mark AS SELECT * FROM "TABLE_PARAMS"
                 WHERE "PARAM_KEY" = 'windrow.table';
               DELETE FROM "TABLE_PARAMS" WHERE "PARAM_KEY" = 'windrow.table'"#,
        )
        .await
        .unwrap();
    // The view comes first, and a view may be dropped.
    let answer = catalog.restore("admin", "id", LEASE_MS).await;
    stopped(
        answer,
        "\"default.t\" is another table now, and is not windrow's; drop that one",
    );
    let put_back = |table: &str| {
        format!(
            "INSERT INTO \"TABLE_PARAMS\" SELECT m.* FROM mark AS m JOIN \"TBLS\" AS t \
             USING (\"TBL_ID\") WHERE t.\"TBL_NAME\" = '{table}'"
        )
    };
    client.batch_execute(&put_back("t")).await.unwrap();
    let advice = "do not drop it, because that may delete files: if it shows windrow's rows, run \
                  ALTER TABLE `default`.`t__chunks` SET TBLPROPERTIES \
                  ('windrow.table'='default.t'), else rename it";
    stopped(catalog.restore("admin", "id", LEASE_MS).await, advice);
    let (owner, _) = take(&mut catalog, "a").await;
    stopped(catalog.commit(&full(&owner, 2)).await, advice);
    catalog.release(&owner).await.unwrap();
    for table in ["t__chunks", "t__late", "t__rejects"] {
        client.batch_execute(&put_back(table)).await.unwrap();
    }
    catalog.restore("admin", "id", LEASE_MS).await.unwrap();
    let (owner, _) = take(&mut catalog, "a").await;
    catalog.commit(&full(&owner, 2)).await.unwrap();
}

/// A second table that Spark has made at the same moment, where no UNIQUE constraint hinders it.
const SECOND_TABLE: &str = r#"INSERT INTO "SERDES" ("SERDE_ID") VALUES (9000);
    INSERT INTO "SDS" ("SD_ID", "IS_COMPRESSED", "IS_STOREDASSUBDIRECTORIES", "NUM_BUCKETS",
      "LOCATION", "SERDE_ID") VALUES (9000, false, false, -1, 's3a://else', 9000);
    INSERT INTO "TBLS" ("TBL_ID", "CREATE_TIME", "DB_ID", "LAST_ACCESS_TIME", "RETENTION",
      "TBL_NAME", "TBL_TYPE", "IS_REWRITE_ENABLED", "SD_ID")
      SELECT 9000, 0, "DB_ID", 0, 0, 't__chunks', 'MANAGED_TABLE', false, 9000
      FROM "TBLS" WHERE "TBL_NAME" = 't__chunks'"#;

#[tokio::test]
#[ignore = "needs PostgreSQL: make parts-up"]
async fn of_two_tables_of_one_name_the_other_is_renamed_if_it_shows_nothing() {
    let place = Place::postgres("two", "lazy");
    let mut catalog = one_epoch(&place).await;
    let client = place.other_client().await;
    client.batch_execute(SECOND_TABLE).await.unwrap();
    let (owner, _) = take(&mut catalog, "a").await;
    let answer = catalog.commit(&full(&owner, 2)).await;
    stopped(answer, "Hive has two tables \"default.t__chunks\"");
    stopped(
        catalog.commit(&full(&owner, 2)).await,
        "run windrow restore",
    );
    catalog.release(&owner).await.unwrap();
    // With a table partition, it may show rows that somebody needs.
    client
        .batch_execute(
            r#"INSERT INTO "PARTITIONS" ("PART_ID", "CREATE_TIME", "LAST_ACCESS_TIME",
                 "PART_NAME", "SD_ID", "TBL_ID") VALUES (9000, 0, 0, 'a=1', 9000, 9000)"#,
        )
        .await
        .unwrap();
    let by_hand = "rename the one that windrow has not made in PostgreSQL: UPDATE public.\"TBLS\" \
                   SET \"TBL_NAME\" = 'windrow_other_9000' WHERE \"TBL_ID\" = 9000; then";
    stopped(catalog.restore("admin", "id", LEASE_MS).await, by_hand);
    let delete = r#"DELETE FROM "PARTITIONS" WHERE "PART_ID" = 9000"#;
    client.batch_execute(delete).await.unwrap();
    let notes = catalog.restore("admin", "id", LEASE_MS).await.unwrap();
    let expect = "Hive had two tables default.t__chunks; the one that is not windrow's is called \
                  default.windrow_other_9000 now";
    assert_eq!(notes, [expect]);
    let (owner, _) = take(&mut catalog, "a").await;
    catalog.commit(&full(&owner, 2)).await.unwrap();
    // Nobody can tell which of two tables without windrow's mark is which.
    catalog.release(&owner).await.unwrap();
    client
        .batch_execute(
            r#"UPDATE "TBLS" SET "TBL_NAME" = 't__chunks' WHERE "TBL_ID" = 9000;
               DELETE FROM "TABLE_PARAMS" WHERE "PARAM_KEY" = 'windrow.table'"#,
        )
        .await
        .unwrap();
    let answer = catalog.restore("admin", "id", LEASE_MS).await;
    stopped(answer, "rename one of them in PostgreSQL: UPDATE");
}

#[tokio::test]
#[ignore = "needs PostgreSQL: make parts-up"]
async fn nobody_takes_the_table_while_it_is_restored_even_after_the_lease() {
    let place = Place::postgres("restoring", "script");
    let mut catalog = one_epoch(&place).await;
    let client = place.other_client().await;
    client
        .batch_execute(
            r#"UPDATE "SDS" SET "LOCATION" = 's3a://else' WHERE "LOCATION" LIKE '%/late/%'"#,
        )
        .await
        .unwrap();
    client
        .batch_execute(r#"BEGIN; LOCK TABLE "SERDE_PARAMS" IN EXCLUSIVE MODE"#)
        .await
        .unwrap();
    let mut restoring = Box::pin(catalog.restore("admin", "id of admin", 1));
    let waits = tokio::time::timeout(Duration::from_secs(1), &mut restoring).await;
    assert!(waits.is_err(), "the lock holds it up: {waits:?}");
    // The lease was one millisecond, and a few more for the files. The restore goes on all along.
    let mut other = place.catalog("t");
    let taking = other.acquire("b", "id of b", LEASE_MS);
    let taking = async {
        tokio::join!(taking, async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            client.batch_execute("ROLLBACK").await.unwrap();
        })
        .0
    };
    let (restored, taken) = tokio::join!(restoring, taking);
    restored.unwrap();
    // It had to wait for the end, and sees what was restored.
    assert!(matches!(taken, Ok(Acquired::Ours { .. })), "{taken:?}");
    let places = r#"SELECT string_agg("LOCATION", ',') FROM "SDS" WHERE "LOCATION" = 's3a://else'"#;
    let row = client.query_one(places, &[]).await.unwrap();
    assert_eq!(row.get::<_, Option<String>>(0), None);
}

fn variable_or(name: &str, default: u32) -> u32 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// Adds so many files to epoch 1 of the table `t`, with the table partitions that show them.
fn add_files(place: &Place, files: u32) {
    let sql = format!(
        "CREATE TEMP TABLE n AS SELECT n, 1000000 + n AS id, \
           '_windrow/default.t/rows/1-1-' || n AS folder FROM generate_series(1, {files}) AS n; \
         INSERT INTO windrow_2.file SELECT 'default', 't', folder || '/part.parquet', 1, \
           clock_timestamp(), 'rows', '2024-09-02', 'c' || n, 'commit', 1, 1, 'abc', 1, 1 FROM n; \
         INSERT INTO windrow_2.part SELECT 'default', 't', 'rows', '2024-09-02', 'c' || n, id, \
           folder || '/part.parquet' FROM n; \
         INSERT INTO \"SERDES\" (\"SERDE_ID\") SELECT id FROM n; \
         INSERT INTO \"SERDE_PARAMS\" (\"SERDE_ID\", \"PARAM_KEY\", \"PARAM_VALUE\") \
           SELECT id, 'path', 's3a://spark/warehouse/' || folder FROM n; \
         INSERT INTO \"SDS\" (\"SD_ID\", \"IS_COMPRESSED\", \"IS_STOREDASSUBDIRECTORIES\", \
           \"NUM_BUCKETS\", \"LOCATION\", \"SERDE_ID\", \"CD_ID\") \
           SELECT n.id, false, false, -1, 's3a://spark/warehouse/' || folder, n.id, s.\"CD_ID\" \
           FROM n, \"TBLS\" JOIN \"SDS\" AS s USING (\"SD_ID\") \
           WHERE \"TBL_NAME\" = 't__chunks'; \
         INSERT INTO \"PARTITIONS\" (\"PART_ID\", \"CREATE_TIME\", \"LAST_ACCESS_TIME\", \
           \"PART_NAME\", \"SD_ID\", \"TBL_ID\") \
           SELECT id, 0, 0, 'date=2024-09-02/chunk=c' || n, id, \"TBL_ID\" \
           FROM n, \"TBLS\" WHERE \"TBL_NAME\" = 't__chunks'; \
         INSERT INTO \"PARTITION_KEY_VALS\" (\"PART_ID\", \"PART_KEY_VAL\", \"INTEGER_IDX\") \
           SELECT id, '2024-09-02', 0 FROM n UNION ALL SELECT id, 'c' || n, 1 FROM n"
    );
    parts(&["psql", place.database(), "-qAt", "-c", &sql]);
}

/// A commit every ten seconds makes as many files in two days. In the schema that Spark makes, no
/// index finds a table partition by its name.
#[tokio::test]
#[ignore = "needs PostgreSQL: make parts-up"]
async fn a_table_of_many_files_is_restored_within_seconds() {
    for kind in ["lazy", "script"] {
        let place = Place::postgres("many_files", kind);
        let mut catalog = place.catalog("t");
        let (owner, _) = take(&mut catalog, "a").await;
        catalog.commit(&epoch(&owner, 0)).await.unwrap();
        catalog.commit(&full(&owner, 1)).await.unwrap();
        catalog.release(&owner).await.unwrap();
        let files = variable_or("WINDROW_MANY_FILES", 20_000);
        add_files(&place, files);
        let limit = Duration::from_secs(8) * files / 20_000;
        let client = place.other_client().await;
        client
            .batch_execute(
                r#"DELETE FROM "PARTITION_KEY_VALS"
                     WHERE "PART_ID" > 1000000 AND "PART_ID" % 20 = 0;
                   DELETE FROM "PARTITIONS" WHERE "PART_ID" > 1000000 AND "PART_ID" % 20 = 0;
                   UPDATE "SDS" SET "LOCATION" = 's3a://else'
                     WHERE "SD_ID" > 1000000 AND "SD_ID" % 20 = 1"#,
            )
            .await
            .unwrap();
        let begun = Instant::now();
        let answer = catalog.restore("admin", "id of admin", LEASE_MS).await;
        let took = begun.elapsed();
        println!("{kind}: {files} files, of which a tenth was damaged, restored in {took:?}");
        answer.unwrap();
        assert!(took < limit, "{took:?}");
        let wrong = r#"SELECT count(*) FROM windrow_2.part AS f WHERE NOT EXISTS
            (SELECT FROM "PARTITIONS" AS p JOIN "SDS" AS s USING ("SD_ID")
               WHERE p."PART_ID" = f.part_id
               AND s."LOCATION" || '/part.parquet' = 's3a://spark/warehouse/' || f.key)"#;
        let row = client.query_one(wrong, &[]).await.unwrap();
        assert_eq!(row.get::<_, i64>(0), 0);
        // The first commit over a connection looks for many files, and later ones for few.
        let mut catalog = place.catalog("t");
        let (owner, _) = take(&mut catalog, "a").await;
        for n in 2..4 {
            let begun = Instant::now();
            catalog.commit(&full(&owner, n)).await.unwrap();
            println!("{kind}: epoch {n} committed in {:?}", begun.elapsed());
        }
        catalog.release(&owner).await.unwrap();
        // All table partitions are gone.
        client
            .batch_execute(r#"DELETE FROM "PARTITION_KEY_VALS"; DELETE FROM "PARTITIONS""#)
            .await
            .unwrap();
        let begun = Instant::now();
        let answer = catalog.restore("admin", "id of admin", LEASE_MS).await;
        let took = begun.elapsed();
        println!("{kind}: all of {files} table partitions restored in {took:?}");
        answer.unwrap();
        assert!(took < limit, "{took:?}");
        assert_eq!(
            client.query_one(wrong, &[]).await.unwrap().get::<_, i64>(0),
            0
        );
    }
}

#[tokio::test]
#[ignore = "needs PostgreSQL: make parts-up"]
#[expect(clippy::too_many_lines, reason = "one table of damages")]
async fn impossible_values_in_the_journal_stop_with_a_sentence_and_no_panic() {
    let ledger = |path: &str, value: &str| {
        format!(
            "UPDATE windrow_2.epoch \
             SET said = jsonb_set(said::jsonb, '{{{path}}}', '{value}')::json"
        )
    };
    let damages = [
        (
            "UPDATE windrow_2.job SET term = -7".to_owned(),
            "windrow_2.job.term: it is -7",
        ),
        (
            "UPDATE windrow_2.job SET last_epoch = -1".to_owned(),
            "windrow_2.job.last_epoch: it is -1",
        ),
        (
            "UPDATE windrow_2.job SET checkpoint_epoch = -5".to_owned(),
            "windrow_2.job.checkpoint_epoch: it is -5",
        ),
        (
            "UPDATE windrow_2.job SET last_epoch = 77".to_owned(),
            "windrow_2.epoch has no such row",
        ),
        (
            "UPDATE windrow_2.file SET rows = -3".to_owned(),
            "windrow_2.file.rows: it is -",
        ),
        (
            "UPDATE windrow_2.file SET bytes = -3".to_owned(),
            "windrow_2.file.bytes: it is -",
        ),
        (
            "ALTER TABLE windrow_2.job ALTER term TYPE text USING term::text".to_owned(),
            "windrow_2.job.term",
        ),
        (
            ledger("ledger,hits", "-1"),
            "cannot read windrow_2.epoch.said",
        ),
        (
            ledger("ledger,counted", "18446744073709551615"),
            "counted is 18446744073709551615",
        ),
        (ledger("ledger,hits", "123456"), "ledger does not add up"),
        (
            ledger("lanes,0,ledger,next-offset", "-9223372036854775808"),
            "next-offset is -",
        ),
        (ledger("lanes,0,to", "4611686018427387904"), "by its ledger"),
        (ledger("lanes", "7"), "cannot read windrow_2.epoch.said"),
        // A hand's edit, or a restore of some tables only. With these, each commit was refused or
        // failed, and was planned again from the same numbers for ever.
        (
            "UPDATE windrow_2.lane SET next_offset = 75 WHERE partition = 1".to_owned(),
            "windrow_2.lane.next_offset: it is 75 for topic partition 1, and epoch 1 ended at 10",
        ),
        (
            "INSERT INTO windrow_2.lane SELECT database, \"table\", 2, 7, 0 \
               FROM windrow_2.job"
                .to_owned(),
            "it is 7 for topic partition 2, and epoch 1 does not know it",
        ),
        (
            "UPDATE windrow_2.job SET last_epoch = 0".to_owned(),
            "windrow_2.job.last_epoch: it is 0, and windrow_2.epoch has a row of epoch 1",
        ),
        (
            "UPDATE windrow_2.job SET last_epoch = 0; \
             UPDATE windrow_2.lane SET next_offset = 0; \
             DELETE FROM windrow_2.epoch WHERE epoch = 1"
                .to_owned(),
            "windrow_2.job.last_epoch: it is 0, and windrow_2.file has a row of epoch 1",
        ),
        (
            "UPDATE windrow_2.job SET last_epoch = NULL".to_owned(),
            "windrow_2.job.last_epoch: it is null, and windrow_2.epoch has a row of epoch 1",
        ),
        (
            "UPDATE windrow_2.job SET checkpoint_epoch = 9".to_owned(),
            "windrow_2.job.checkpoint_epoch: it is 9",
        ),
    ];
    let place = Place::postgres("impossible", "script");
    for (i, (sql, part)) in damages.iter().enumerate() {
        let table = format!("t{i}");
        let mut catalog = place.catalog(&table);
        let (owner, _) = take(&mut catalog, "a").await;
        catalog.commit(&epoch(&owner, 0)).await.unwrap();
        catalog.commit(&full(&owner, 1)).await.unwrap();
        catalog.release(&owner).await.unwrap();
        place.other_client().await.batch_execute(sql).await.unwrap();
        let acquired = place
            .catalog(&table)
            .acquire("b", "id of b", LEASE_MS)
            .await
            .map(drop);
        let head = place.catalog(&table).head().await.map(drop);
        let files = place
            .catalog(&table)
            .files(TableKind::Chunks, 5)
            .await
            .map(drop);
        let errors: Vec<_> = [acquired, head, files]
            .into_iter()
            .filter_map(Result::err)
            .collect();
        assert!(
            errors.iter().any(|error| {
                matches!(error, CatalogError::Stop(_)) && error.to_string().contains(part)
            }),
            "{sql}: {errors:?}"
        );
        // The next table begins with a journal of its own.
        let undo = "DROP SCHEMA windrow_2 CASCADE";
        place
            .other_client()
            .await
            .batch_execute(undo)
            .await
            .unwrap();
    }
}

#[tokio::test]
#[ignore = "needs PostgreSQL: make parts-up"]
async fn a_table_that_never_was_is_not_restored() {
    let place = Place::postgres("never", "script");
    let answer = place.catalog("t").restore("admin", "x", LEASE_MS).await;
    stopped(answer, "there is nothing to restore");
    let answer = Place::local()
        .catalog("t")
        .restore("admin", "x", LEASE_MS)
        .await;
    stopped(answer, "a local catalog has no entries in Hive");
}

#[tokio::test]
async fn a_local_catalog_does_not_claim_to_have_made_hives_schema() {
    let answer = Place::local().catalog("t").init_metastore().await;
    stopped(answer, "a local catalog has no metastore");
}

#[tokio::test]
#[ignore = "needs PostgreSQL: make parts-up"]
async fn database_must_be_there_unless_it_is_the_default() {
    let place = Place::postgres("database", "script");
    let name = TableName::new("sales", "t").unwrap();
    let mut catalog = postgres(&address(), place.database(), place.database(), name);
    let (owner, _) = take(&mut catalog, "a").await;
    stopped(
        catalog.commit(&epoch(&owner, 0)).await,
        "run CREATE DATABASE `sales`",
    );
}

#[tokio::test]
#[ignore = "needs PostgreSQL: make parts-up"]
async fn user_without_rights_is_told_which_and_works_once_they_are_granted() {
    let place = Place::postgres("rights", "script");
    let (database, user) = (place.database(), "catalog_rights_other");
    let sql = |sql: &str| parts(&["psql", database, "-q", "-c", sql]);
    sql(&format!(
        "DO $$ BEGIN CREATE ROLE {user} LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$"
    ));
    sql(&format!("ALTER ROLE {user} PASSWORD '{}'", password()));
    sql(&format!("GRANT CONNECT ON DATABASE {database} TO {user}"));
    sql(&format!(
        "REVOKE pg_read_all_data, pg_write_all_data FROM {user}"
    ));
    let name = TableName::new("default", "t").unwrap();
    let mut catalog = postgres(&address(), database, user, name.clone());
    retried(
        catalog.acquire("a", "x", LEASE_MS).await,
        "no rights on Hive's tables CDS, COLUMNS_V2",
    );
    sql(&format!(
        "GRANT pg_read_all_data, pg_write_all_data TO {user}"
    ));
    retried(
        catalog.acquire("a", "x", LEASE_MS).await,
        "no right to make windrow's own schema",
    );
    sql(&format!("GRANT CREATE ON DATABASE {database} TO {user}"));
    let (owner, _) = take(&mut catalog, "a").await;
    catalog.commit(&epoch(&owner, 0)).await.unwrap();
    catalog.commit(&full(&owner, 1)).await.unwrap();
    catalog.release(&owner).await.unwrap();
    // The next relation brings another user, who finds a journal that it does not own.
    let mut next = place.catalog("t");
    let (owner, head) = take(&mut next, "b").await;
    assert_eq!(head.unwrap().last.epoch, 1);
    next.commit(&full(&owner, 2)).await.unwrap();
    let wrong = PgConfig::new(
        &format!("postgresql://{}/{database}", address()),
        user,
        "wrong-secret",
        CatalogTls::Disable,
        None,
    );
    let mut wrong = Catalog::Postgres(Box::new(PostgresCatalog::new(wrong.unwrap(), name.clone())));
    let answer = wrong.head().await;
    retried(
        answer.clone(),
        "the login of user \"catalog_rights_other\" was refused",
    );
    assert!(!format!("{answer:?}{wrong:?}").contains("wrong-secret"));
    let look = async || {
        postgres(&address(), database, user, name.clone())
            .head()
            .await
    };
    sql(&format!("ALTER ROLE {user} CONNECTION LIMIT 0"));
    retried(look().await, "raise its max_connections");
    sql(&format!("ALTER ROLE {user} CONNECTION LIMIT -1 NOLOGIN"));
    because(look().await, Cause::LoginCatalog, "CREATE ROLE ... LOGIN");
    sql(&format!("ALTER ROLE {user} LOGIN"));
    retried(
        postgres(&address(), "catalog_no_such", user, name.clone())
            .head()
            .await,
        "not there yet",
    );
    retried(
        postgres("127.0.0.1:1", database, user, name).head().await,
        "is PostgreSQL up?",
    );
}

#[tokio::test]
#[ignore = "needs PostgreSQL: make parts-up"]
async fn empty_database_waits_for_hive_or_is_filled_when_told() {
    let place = Place::postgres("init", "empty");
    let database = place.database();
    let sql = |sql: &str| parts(&["psql", database, "-qAt", "-c", sql]);
    sql(
        "DO $$ BEGIN CREATE ROLE catalog_init_kyuubi LOGIN; EXCEPTION WHEN duplicate_object THEN \
          NULL; END $$",
    );
    sql(&format!(
        "GRANT CONNECT ON DATABASE {database} TO catalog_init_kyuubi"
    ));
    // Everybody may connect, as on a plain PostgreSQL where nobody has revoked it.
    sql(&format!("GRANT CONNECT ON DATABASE {database} TO PUBLIC"));
    sql(
        "DO $$ BEGIN CREATE ROLE catalog_init_stranger LOGIN; EXCEPTION \
          WHEN duplicate_object THEN NULL; END $$",
    );
    let may_connect =
        format!("SELECT has_database_privilege('catalog_init_stranger', '{database}', 'CONNECT')");
    assert_eq!(sql(&may_connect).trim(), "t");
    let mut catalog = place.catalog("t");
    retried(
        catalog.acquire("a", "x", LEASE_MS).await,
        "Hive schema not there yet: open Kyuubi and create a table",
    );
    let mut other = place.catalog("u");
    let (one, two) = tokio::join!(catalog.init_metastore(), other.init_metastore());
    one.unwrap();
    two.unwrap();
    catalog.init_metastore().await.unwrap();
    assert_eq!(
        sql("SELECT \"SCHEMA_VERSION\" FROM \"VERSION\"").trim(),
        "2.3.0"
    );
    assert_eq!(
        sql("SELECT has_table_privilege('catalog_init_kyuubi', '\"TBLS\"', 'DELETE')").trim(),
        "t"
    );
    for right in ["SELECT", "INSERT", "UPDATE", "DELETE"] {
        let has =
            format!("SELECT has_table_privilege('catalog_init_stranger', '\"TBLS\"', '{right}')");
        assert_eq!(sql(&has).trim(), "f", "{right} was granted to everybody");
    }
    all_cases(&place).await;
    // Whoever is not let in can neither change what windrow says of the table nor doom its files.
    for (role, expect) in [("catalog_init_stranger", "f"), ("catalog_init_kyuubi", "t")] {
        for table in ["job", "doomed", "epoch"] {
            let has =
                format!("SELECT has_table_privilege('{role}', 'windrow_2.{table}', 'INSERT')");
            assert_eq!(sql(&has).trim(), expect, "{role} {table}");
        }
    }
}

#[tokio::test]
#[ignore = "needs PostgreSQL: make parts-up"]
async fn a_role_that_may_make_schemas_can_neither_stop_windrow_nor_plant_code() {
    let place = Place::postgres("planter", "script");
    let database = place.database();
    let sql = |sql: &str| parts(&["psql", database, "-qAt", "-c", sql]);
    sql("DO $$ BEGIN CREATE ROLE catalog_planter LOGIN; EXCEPTION \
          WHEN duplicate_object THEN NULL; END $$");
    sql(&format!(
        "GRANT CREATE ON DATABASE {database} TO catalog_planter"
    ));
    // A newer journal, and a schema that stands before Hive's in our user's search path, with a
    // table of Hive's and a function that fits better than PostgreSQL's own.
    sql(&format!(
        "SET ROLE catalog_planter; CREATE SCHEMA windrow_9; CREATE SCHEMA {database}; \
         CREATE TABLE {database}.\"TBLS\" (a int); GRANT ALL ON SCHEMA {database} TO PUBLIC; \
         CREATE FUNCTION {database}.unnest(text[]) RETURNS SETOF text LANGUAGE plpgsql \
           AS $$ BEGIN RAISE EXCEPTION 'planted'; END $$"
    ));
    uses_all_of_the_journal(&mut place.catalog("t"), "a").await;

    sql(
        "CREATE FUNCTION public.planted() RETURNS trigger LANGUAGE plpgsql \
           AS $$ BEGIN RETURN NEW; END $$; \
         CREATE TRIGGER planted BEFORE UPDATE ON windrow_2.job FOR EACH ROW \
           EXECUTE FUNCTION public.planted()",
    );
    retried(place.catalog("t").head().await, "has a trigger");
    sql("DROP TRIGGER planted ON windrow_2.job");
    place.catalog("t").head().await.unwrap();

    sql("ALTER TABLE windrow_2.epoch OWNER TO catalog_planter");
    retried(
        place.catalog("t").head().await,
        "may not write Hive's tables",
    );

    sql("DROP SCHEMA windrow_2 CASCADE; SET ROLE catalog_planter; CREATE SCHEMA windrow_2");
    let answer = place.catalog("t").acquire("a", "x", LEASE_MS).await;
    retried(
        answer,
        "the schema windrow_2 belongs to \"catalog_planter\"",
    );
}

/// A journal of years is made by multiplying epochs and files.
#[tokio::test]
#[ignore = "needs PostgreSQL: make parts-up"]
async fn dooming_does_not_look_through_all_epochs() {
    let place = Place::postgres("years", "script");
    let mut catalog = place.catalog("t");
    let (owner, _) = take(&mut catalog, "a").await;
    catalog.commit(&epoch(&owner, 0)).await.unwrap();
    let sql = |sql: &str| parts(&["psql", place.database(), "-qAt", "-c", sql]);
    sql(
        "INSERT INTO windrow_2.epoch SELECT database, \"table\", n, term, digest, \
           '_windrow/default.t/manifests/1-' || lpad(n::text, 10, '0') || '-abc.json', \
           committed_at, decisions, said FROM windrow_2.epoch, generate_series(1, 100000) AS n; \
         INSERT INTO windrow_2.file SELECT 'default', 't', \
           '_windrow/default.t/rows/1-' || lpad(n::text, 10, '0') || '-abc/part.parquet', \
           n, clock_timestamp(), 'rows', '2024-09-01', n::text, 'commit', 1, 1, 'abc', 1, 1 \
           FROM generate_series(1, 100000) AS n; \
         ANALYZE windrow_2.epoch; ANALYZE windrow_2.file",
    );
    let keys: Vec<String> = (0..250)
        .flat_map(|n| {
            let n = n * 400;
            [
                format!("_windrow/default.t/manifests/1-{n:010}-abc.json"),
                format!("_windrow/default.t/manifests/1-{n:010}-orphan.json"),
                format!("_windrow/default.t/rows/1-{:010}-abc/part.parquet", n + 1),
                format!("_windrow/default.t/rows/1-{n:010}-orphan/part.parquet"),
            ]
        })
        .collect();
    let begun = Instant::now();
    let doomed = catalog.doom(&owner, &keys, &ANY_CLOCK).await.unwrap();
    let took = begun.elapsed();
    println!("1000 keys, half of them orphans, against 100 000 epochs: {took:?}");
    assert_eq!(doomed.len(), 500);
    assert!(doomed.iter().all(|key| key.contains("-orphan")));
    assert!(took < Duration::from_secs(2), "{took:?}");
    let again = catalog.doom(&owner, &keys, &ANY_CLOCK).await.unwrap();
    assert!(again.is_empty(), "they are doomed already");

    let first = catalog.doomed_past(0, None, &ANY_CLOCK).await.unwrap();
    assert_eq!(first, doomed);
    let rest = catalog
        .doomed_past(0, Some(&first[399]), &ANY_CLOCK)
        .await
        .unwrap();
    assert_eq!(rest, first[400..]);
}

/// A database as Charmed PostgreSQL gives it to relations, with the statements of that charm's
/// library, for its tracks 14 and 16. The server has version 15 or later; where version 14 differs,
/// the difference is set up here.
struct Charmed {
    database: String,
}

impl Charmed {
    /// In version 14 the schema `public` belongs to the super user, and anybody may make tables in
    /// it. From version 15 on it belongs to the database's owner, and nobody else may.
    fn of_14(name: &str) -> Self {
        let charmed = Self::new(name);
        let database = &charmed.database;
        charmed.sql(&format!(
            "ALTER DATABASE {database} OWNER TO CURRENT_USER; REVOKE ALL PRIVILEGES ON DATABASE \
              {database} FROM PUBLIC; \
             ALTER SCHEMA public OWNER TO CURRENT_USER; GRANT ALL ON SCHEMA public TO PUBLIC"
        ));
        charmed
    }

    fn of_16(name: &str) -> Self {
        let charmed = Self::new(name);
        let database = &charmed.database;
        for (role, more) in [
            ("owner", "NOLOGIN"),
            ("admin", "NOLOGIN NOINHERIT"),
            ("dml", "NOLOGIN"),
        ] {
            charmed.make_role(&format!("charmed_{database}_{role}"), more);
        }
        charmed.sql(&format!(
            "ALTER DATABASE {database} OWNER TO CURRENT_USER; REVOKE ALL PRIVILEGES ON DATABASE \
              {database} FROM PUBLIC; \
             GRANT charmed_{database}_owner TO charmed_{database}_admin; \
             ALTER SCHEMA public OWNER TO charmed_{database}_owner; \
             GRANT CONNECT ON DATABASE {database} TO charmed_{database}_admin; \
             GRANT CREATE, TEMPORARY ON DATABASE {database} TO charmed_{database}_owner; \
             ALTER DEFAULT PRIVILEGES FOR ROLE charmed_{database}_owner GRANT SELECT ON TABLES \
               TO charmed_{database}_admin"
        ));
        charmed
    }

    fn new(name: &str) -> Self {
        let Place::Postgres(database) = Place::postgres(name, "empty") else {
            unreachable!()
        };
        Self { database }
    }

    fn sql(&self, sql: &str) -> String {
        parts(&["psql", &self.database, "-qAt", "-c", sql])
    }

    /// The role may be there from an earlier run, with rights in databases of other tests:
    /// `init-metastore` grants rights to every user of its database.
    fn make_role(&self, role: &str, more: &str) {
        let databases = format!(
            "SELECT DISTINCT d.datname FROM pg_shdepend s JOIN pg_database d ON d.oid = s.dbid \
             JOIN pg_roles r ON r.oid = s.refobjid WHERE s.refclassid = 'pg_authid'::regclass \
               AND r.rolname = '{role}'"
        );
        for database in self.sql(&databases).lines() {
            parts(&[
                "psql",
                database,
                "-qAt",
                "-c",
                &format!("DROP OWNED BY {role}"),
            ]);
        }
        self.sql(&format!("DROP ROLE IF EXISTS {role}"));
        self.sql(&format!(
            "CREATE ROLE {role} PASSWORD '{}' {more}",
            password()
        ));
    }

    /// The user of a relation. Its name is the database's name, followed by the relation's.
    fn user(&self, relation: &str) -> String {
        format!("{}_{relation}", self.database)
    }

    /// With `alone`, no other relation asks for the database. Then all tables that are there become
    /// this user's.
    fn relate_14(&self, relation: &str, roles: &str, alone: bool) {
        let (database, user) = (&self.database, self.user(relation));
        self.make_role(&user, "LOGIN");
        if !roles.is_empty() {
            self.sql(&format!("GRANT {roles} TO {user}"));
        }
        self.sql(&format!(
            "GRANT ALL PRIVILEGES ON DATABASE {database} TO {user}"
        ));
        let each = |what: &str, of: &str| {
            self.sql(&format!(
                "DO $$ DECLARE s text; BEGIN FOR s IN SELECT {what} FROM {of} \
                 NOT IN ('pg_catalog', 'information_schema') LOOP EXECUTE s; END LOOP; END $$"
            ))
        };
        if alone {
            each(
                &format!("format('ALTER TABLE %I.%I OWNER TO {user}', schemaname, tablename)"),
                "pg_tables WHERE schemaname",
            );
        } else {
            for kind in ["TABLES", "SEQUENCES", "FUNCTIONS"] {
                each(
                    &format!(
                        "format('GRANT ALL PRIVILEGES ON ALL {kind} IN SCHEMA %I TO {user}', \
                          schema_name)"
                    ),
                    "information_schema.schemata WHERE schema_name NOT LIKE 'pg\\_%' AND \
                      schema_name",
                );
            }
        }
    }

    /// In track 16 a hook sets the role at login.
    fn relate_16(&self, relation: &str) {
        let (database, user) = (&self.database, self.user(relation));
        self.make_role(
            &user,
            &format!("LOGIN IN ROLE charmed_{database}_admin, charmed_{database}_dml"),
        );
        self.sql(&format!(
            "ALTER ROLE {user} SET role = 'charmed_{database}_owner'"
        ));
    }

    fn unrelate(&self, relation: &str) {
        let user = self.user(relation);
        self.sql(&format!(
            "REASSIGN OWNED BY {user} TO CURRENT_USER; DROP OWNED BY {user}; DROP ROLE {user}"
        ));
    }

    fn catalog(&self, relation: &str) -> Catalog {
        let name = TableName::new("default", "t").unwrap();
        postgres(&address(), &self.database, &self.user(relation), name)
    }

    async fn client(&self, relation: &str) -> tokio_postgres::Client {
        let (user, password, address, database) =
            (self.user(relation), password(), address(), &self.database);
        let url = format!("postgresql://{user}:{password}@{address}/{database}");
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    fn owner_of_the_journal(&self) -> String {
        self.sql("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'windrow_2'")
            .trim()
            .to_owned()
    }
}

/// Hive's tables as its own script makes them, and as Spark makes them one by one when it needs
/// them.
const HIVE_SCHEMAS: [&str; 2] = [
    include_str!("hive-2.3.0.sql"),
    include_str!("../../../tests/services/hive-lazy.sql"),
];

/// The value of the charm's option `metastore-roles` for version 14.
const METASTORE_ROLES: &str = "pg_read_all_data, pg_write_all_data";

/// Runs every statement that an owner sends to the journal: rows are added, changed and deleted.
async fn uses_all_of_the_journal(catalog: &mut Catalog, who: &str) {
    let (owner, head) = take(catalog, who).await;
    let next = head.map_or(0, |head| head.last.epoch + 1);
    for n in next..next + 2 {
        catalog
            .commit(&full_after_genesis(&owner, n))
            .await
            .unwrap();
    }
    assert!(!catalog.renew(&owner, LEASE_MS).await.unwrap().paused);
    let orphans = [format!("_windrow/default.t/rows/orphan-of-{who}")];
    assert_eq!(
        catalog.doom(&owner, &orphans, &ANY_CLOCK).await.unwrap(),
        orphans
    );
    catalog.forget(&owner, &orphans).await.unwrap();
    catalog.set_paused(false, who).await.unwrap();
    catalog.release(&owner).await.unwrap();
    catalog
        .restore(who, "id of restore", LEASE_MS)
        .await
        .unwrap();
}

#[tokio::test]
#[ignore = "needs PostgreSQL: make parts-up"]
async fn charmed_14_with_kyuubis_tables_first_needs_no_roles() {
    for (i, schema) in HIVE_SCHEMAS.into_iter().enumerate() {
        let charmed = Charmed::of_14(&format!("14a{i}"));
        charmed.relate_14("kyuubi", "", true);
        let kyuubi = charmed.client("kyuubi").await;
        kyuubi.batch_execute(schema).await.unwrap();
        charmed.relate_14("windrow", "", false);
        uses_all_of_the_journal(&mut charmed.catalog("windrow"), "a").await;
        // Kyuubi sees the table, and drops a table partition as its own.
        let dropped = r#"DELETE FROM "PARTITION_KEY_VALS" WHERE "PART_ID" IN (SELECT "PART_ID"
          FROM "PARTITIONS")"#;
        assert!(kyuubi.execute(dropped, &[]).await.unwrap() > 0);
    }
}

#[tokio::test]
#[ignore = "needs PostgreSQL: make parts-up"]
async fn charmed_14_with_windrow_first_needs_roles_and_goes_on_once_it_has_them() {
    for (i, schema) in HIVE_SCHEMAS.into_iter().enumerate() {
        let charmed = Charmed::of_14(&format!("14b{i}"));
        charmed.relate_14("windrow", "", true);
        let mut catalog = charmed.catalog("windrow");
        because(
            catalog.acquire("a", "x", LEASE_MS).await,
            Cause::NoSchema,
            "Hive schema not there yet",
        );
        charmed.relate_14("kyuubi", "", false);
        charmed
            .client("kyuubi")
            .await
            .batch_execute(schema)
            .await
            .unwrap();
        let expect = "no rights on Hive's tables CDS, COLUMNS_V2, DBS, PARTITIONS, \
          PARTITION_KEYS, PARTITION_KEY_VALS, SDS, \
                      SEQUENCE_TABLE, SERDES, SERDE_PARAMS, TABLE_PARAMS, TBLS; grant the \
                        catalog's user \
                      pg_read_all_data and pg_write_all_data";
        for _ in 0..2 {
            because(
                catalog.acquire("a", "x", LEASE_MS).await,
                Cause::NoRights,
                expect,
            );
            because(catalog.warehouse("default").await, Cause::NoRights, expect);
        }
        charmed.sql(&format!(
            "GRANT {METASTORE_ROLES} TO {}",
            charmed.user("windrow")
        ));
        uses_all_of_the_journal(&mut catalog, "a").await;
    }
}

#[tokio::test]
#[ignore = "needs PostgreSQL: make parts-up"]
async fn right_to_make_the_journal_is_asked_for_by_name() {
    let charmed = Charmed::of_14("14create");
    charmed.relate_14("kyuubi", "", true);
    charmed
        .client("kyuubi")
        .await
        .batch_execute(HIVE_SCHEMAS[0])
        .await
        .unwrap();
    charmed.relate_14("windrow", METASTORE_ROLES, false);
    let (database, user) = (&charmed.database, charmed.user("windrow"));
    charmed.sql(&format!("REVOKE CREATE ON DATABASE {database} FROM {user}"));
    let mut catalog = charmed.catalog("windrow");
    because(
        catalog.acquire("a", "x", LEASE_MS).await,
        Cause::NoCreate,
        &format!(
            "no right to make windrow's own schema; grant the user \"{user}\" CREATE on the \
              database \"{database}\""
        ),
    );
    charmed.sql(&format!(
        "REVOKE CONNECT ON DATABASE {database} FROM {user}"
    ));
    because(
        charmed.catalog("windrow").head().await,
        Cause::CatalogRules,
        &format!("grant the user \"{user}\" CONNECT on the database"),
    );
    charmed.sql(&format!(
        "GRANT ALL PRIVILEGES ON DATABASE {database} TO {user}"
    ));
    uses_all_of_the_journal(&mut catalog, "a").await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL: make parts-up"]
async fn journal_of_an_earlier_relation_serves_later_ones() {
    let charmed = Charmed::of_14("14c");
    charmed.relate_14("kyuubi", "", true);
    charmed
        .client("kyuubi")
        .await
        .batch_execute(HIVE_SCHEMAS[0])
        .await
        .unwrap();
    charmed.relate_14("first", METASTORE_ROLES, false);
    uses_all_of_the_journal(&mut charmed.catalog("first"), "first").await;
    assert_eq!(charmed.owner_of_the_journal(), charmed.user("first"));
    charmed.unrelate("first");
    let operator = charmed.sql("SELECT current_user").trim().to_owned();
    assert_eq!(charmed.owner_of_the_journal(), operator);
    charmed.relate_14("second", METASTORE_ROLES, false);
    uses_all_of_the_journal(&mut charmed.catalog("second"), "second").await;
    // The second relation is still there, so no table was made by the third or given to it.
    charmed.relate_14("third", "", false);
    uses_all_of_the_journal(&mut charmed.catalog("third"), "third").await;
    // No other relation is left, so all tables become this one's.
    for relation in ["second", "third", "kyuubi"] {
        charmed.unrelate(relation);
    }
    charmed.relate_14("fourth", "", true);
    assert_eq!(charmed.owner_of_the_journal(), charmed.user("fourth"));
    uses_all_of_the_journal(&mut charmed.catalog("fourth"), "fourth").await;

    let charmed = Charmed::of_16("16c");
    charmed.relate_16("first");
    let mut first = charmed.catalog("first");
    retried(
        first.acquire("a", "x", LEASE_MS).await,
        "Hive schema not there yet",
    );
    charmed.relate_16("kyuubi");
    charmed
        .client("kyuubi")
        .await
        .batch_execute(HIVE_SCHEMAS[1])
        .await
        .unwrap();
    uses_all_of_the_journal(&mut first, "first").await;
    assert_eq!(
        charmed.owner_of_the_journal(),
        format!("charmed_{}_owner", charmed.database)
    );
    charmed.unrelate("first");
    charmed.relate_16("second");
    uses_all_of_the_journal(&mut charmed.catalog("second"), "second").await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL: make parts-up"]
async fn hive_schema_that_windrow_makes_is_kyuubis_too() {
    // The names of those of Hive's tables and sequences with which the role may not do everything.
    let closed = |charmed: &Charmed, user: &str| {
        charmed
            .sql(&format!(
                "SELECT string_agg(c.relname, ' ') FROM pg_class AS c WHERE relnamespace = \
              'public'::regnamespace AND CASE relkind \
               WHEN 'r' THEN NOT (has_table_privilege('{user}', c.oid, 'SELECT') AND \
                 has_table_privilege('{user}', c.oid, 'INSERT') \
                 AND has_table_privilege('{user}', c.oid, 'UPDATE') AND \
                   has_table_privilege('{user}', c.oid, 'DELETE')) \
               WHEN 'S' THEN NOT (has_sequence_privilege('{user}', c.oid, 'USAGE') AND \
                 has_sequence_privilege('{user}', c.oid, 'UPDATE')) \
               ELSE false END"
            ))
            .trim()
            .to_owned()
    };
    let charmed = Charmed::of_14("14init");
    charmed.relate_14("kyuubi", "", true);
    charmed.relate_14("windrow", "", false);
    charmed.make_role(&charmed.user("onlookers"), "NOLOGIN");
    charmed.sql(&format!(
        "GRANT CONNECT ON DATABASE {} TO {}",
        charmed.database,
        charmed.user("onlookers")
    ));
    let mut catalog = charmed.catalog("windrow");
    catalog.init_metastore().await.unwrap();
    assert_eq!(closed(&charmed, &charmed.user("kyuubi")), "");
    assert!(closed(&charmed, &charmed.user("onlookers")).contains("TBLS"));
    assert!(
        charmed
            .sql("SELECT relname FROM pg_class WHERE relkind = 'S'")
            .contains("MASTER_KEYS_KEY_ID_seq")
    );
    uses_all_of_the_journal(&mut catalog, "a").await;
    // The charm gives a relation that comes later the tables that are there, and DataNucleus can
    // add those that it misses.
    charmed.relate_14("later", "", false);
    assert_eq!(closed(&charmed, &charmed.user("later")), "");
    charmed
        .client("later")
        .await
        .batch_execute("CREATE TABLE public.\"COLUMNS_OLD\" (a int)")
        .await
        .unwrap();

    let charmed = Charmed::of_16("16init");
    charmed.relate_16("windrow");
    let mut catalog = charmed.catalog("windrow");
    catalog.init_metastore().await.unwrap();
    uses_all_of_the_journal(&mut catalog, "a").await;
    charmed.relate_16("kyuubi");
    let kyuubi = charmed.client("kyuubi").await;
    kyuubi
        .batch_execute(r#"ALTER TABLE "TBLS" ADD COLUMN more int; DELETE FROM "VERSION""#)
        .await
        .unwrap();
}

#[tokio::test]
#[ignore = "needs PostgreSQL: make parts-up"]
async fn part_of_a_schema_is_waited_for_and_not_touched() {
    let place = Place::postgres("part", "empty");
    place
        .other_client()
        .await
        .batch_execute(r#"CREATE TABLE "DBS" ("DB_ID" bigint)"#)
        .await
        .unwrap();
    let mut catalog = place.catalog("t");
    retried(
        catalog.acquire("a", "x", LEASE_MS).await,
        "Hive schema not there yet",
    );
    retried(catalog.init_metastore().await, "needs an empty database");
    // Nor does one more table make a whole schema of it.
    place
        .other_client()
        .await
        .batch_execute(r#"CREATE TABLE "TBLS" ("TBL_ID" bigint)"#)
        .await
        .unwrap();
    let missing = "not all of Hive's (missing: CDS, COLUMNS_V2, PARTITIONS, ";
    retried(place.catalog("t").init_metastore().await, missing);
}

/// From PostgreSQL 15 on, the right to write all data is not the right to make tables.
#[tokio::test]
#[ignore = "needs PostgreSQL: make parts-up"]
async fn who_may_not_make_hives_tables_is_told_that_right_and_no_other() {
    let place = Place::postgres("init_right", "empty");
    let (database, user) = (place.database(), "catalog_init_right_other");
    let sql = |sql: &str| parts(&["psql", database, "-q", "-c", sql]);
    sql(&format!(
        "DO $$ BEGIN CREATE ROLE {user} LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$"
    ));
    sql(&format!("ALTER ROLE {user} PASSWORD '{}'", password()));
    sql(&format!("GRANT ALL ON DATABASE {database} TO {user}"));
    sql(&format!(
        "GRANT pg_read_all_data, pg_write_all_data TO {user}"
    ));
    sql("REVOKE CREATE ON SCHEMA public FROM PUBLIC");
    let name = TableName::new("default", "t").unwrap();
    let mut catalog = postgres(&address(), database, user, name);
    let grant = format!("GRANT CREATE ON SCHEMA public TO \"{user}\"");
    because(catalog.init_metastore().await, Cause::NoCreate, &grant);
    sql(&grant);
    catalog.init_metastore().await.unwrap();
    let (owner, _) = take(&mut catalog, "a").await;
    catalog.commit(&epoch(&owner, 0)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: make parts-up"]
async fn ids_are_shared_with_others_and_never_collide() {
    let place = Place::postgres("ids", "lazy");
    // This takes ids as DataNucleus does, five at a time, and uses them.
    let client = place.other_client().await;
    let spark = tokio::spawn(async move {
        for _ in 0..40 {
            let sql = r#"WITH taken AS (UPDATE "SEQUENCE_TABLE" SET "NEXT_VAL" = "NEXT_VAL" + 5
                           WHERE "SEQUENCE_NAME" =
                             'org.apache.hadoop.hive.metastore.model.MSerDeInfo' RETURNING
                             "NEXT_VAL" - 5 AS id)
                         INSERT INTO "SERDES" ("SERDE_ID") SELECT id + n FROM taken,
                           generate_series(0, 4) AS n"#;
            client.execute(sql, &[]).await.unwrap();
        }
    });
    let writers: Vec<_> = ["a", "b", "c"]
        .into_iter()
        .map(|table| {
            let mut catalog = place.catalog(table);
            tokio::spawn(async move {
                let (owner, _) = take(&mut catalog, table).await;
                for n in 0..20 {
                    // All three look for the database at the same time, and one of them makes it.
                    let deadline = Instant::now() + Duration::from_secs(20);
                    while let Err(error) = catalog.commit(&full_after_genesis(&owner, n)).await {
                        assert!(n == 0 && matches!(error, CatalogError::Retry(_)), "{error}");
                        assert!(Instant::now() < deadline, "{error}");
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    spark.await.unwrap();
    let client = place.other_client().await;
    for (class, table, id) in [
        ("MSerDeInfo", "SERDES", "SERDE_ID"),
        ("MPartition", "PARTITIONS", "PART_ID"),
        ("MTable", "TBLS", "TBL_ID"),
    ] {
        let sql = format!(
            r#"SELECT (SELECT max("NEXT_VAL") FROM "SEQUENCE_TABLE" WHERE "SEQUENCE_NAME" LIKE
              '%.{class}') > max("{id}"),
                 count(*), (SELECT count(*) FROM "SEQUENCE_TABLE" WHERE "SEQUENCE_NAME" LIKE
                   '%.{class}') FROM "{table}""#
        );
        let row = client.query_one(&sql, &[]).await.unwrap();
        assert!(
            row.get::<_, bool>(0) && row.get::<_, i64>(1) > 0 && row.get::<_, i64>(2) == 1,
            "{table}"
        );
    }
    let row = client.query_one(
        r#"SELECT count(*), count(DISTINCT "NAME") FROM "DBS" WHERE "NAME" = 'default'"#,
        &[],
    );
    assert_eq!(row.await.unwrap().get::<_, i64>(0), 1);
}

/// Passes bytes on to PostgreSQL, except a COMMIT, with which it does what `fault` says.
struct Proxy {
    address: String,
    fault: Arc<AtomicU8>,
}

const PASS: u8 = 0;
/// The connection breaks before COMMIT reaches the server.
const BREAK_BEFORE: u8 = 1;
/// The connection breaks after COMMIT was passed on and before its answer comes.
const BREAK_AFTER: u8 = 2;

impl Proxy {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Self {
            address: listener.local_addr().unwrap().to_string(),
            fault: Arc::new(AtomicU8::new(PASS)),
        };
        let (fault, server) = (proxy.fault.clone(), address());
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (client, server, fault) = (
                    client.unwrap(),
                    TcpStream::connect(&server).unwrap(),
                    fault.clone(),
                );
                let (mut from, mut to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                std::thread::spawn(move || std::io::copy(&mut from, &mut to));
                std::thread::spawn(move || Self::pass(client, server, &fault));
            }
        });
        proxy
    }

    fn pass(mut client: TcpStream, mut server: TcpStream, fault: &AtomicU8) {
        let mut buffer = vec![0; 65_536];
        while let Ok(n @ 1..) = client.read(&mut buffer) {
            let bytes = &buffer[..n];
            let fault = if bytes.windows(7).any(|w| w == b"COMMIT\0") {
                fault.load(Ordering::SeqCst)
            } else {
                PASS
            };
            if fault != PASS {
                client.shutdown(std::net::Shutdown::Both).unwrap();
            }
            if fault == BREAK_BEFORE || server.write_all(bytes).is_err() {
                break;
            }
        }
        let _ = server.shutdown(std::net::Shutdown::Write);
    }
}

#[tokio::test]
#[ignore = "needs PostgreSQL: make parts-up"]
async fn lost_answer_to_commit_is_asked_for() {
    let place = Place::postgres("unknown", "script");
    let proxy = Proxy::new();
    let name = TableName::new("default", "t").unwrap();
    let mut catalog = postgres(&proxy.address, place.database(), place.database(), name);
    let (owner, _) = take(&mut catalog, "a").await;
    catalog.commit(&epoch(&owner, 0)).await.unwrap();
    // This commit reserves a block of ids, so that the next ones send only the COMMIT that counts.
    catalog.commit(&full(&owner, 1)).await.unwrap();
    for (n, fault) in [(2, BREAK_BEFORE), (3, BREAK_AFTER)] {
        proxy.fault.store(fault, Ordering::SeqCst);
        let answer = catalog.commit(&full(&owner, n)).await;
        assert!(
            matches!(answer, Err(CatalogError::Unknown(_))),
            "{answer:?}"
        );
        proxy.fault.store(PASS, Ordering::SeqCst);
        match (fault, catalog.outcome(n).await.unwrap()) {
            (BREAK_BEFORE, Outcome::Absent) => {}
            (BREAK_AFTER, Outcome::Committed { digest, .. }) => {
                assert_eq!(digest, format!("digest of {n}"))
            }
            (_, other) => panic!("{other:?}"),
        }
        catalog.commit(&full(&owner, n)).await.unwrap();
    }
    assert_eq!(
        catalog
            .files(TableKind::Chunks, 9)
            .await
            .unwrap()
            .totals
            .files,
        3
    );
}

#[tokio::test]
#[ignore = "needs PostgreSQL: make parts-up"]
async fn outcome_waits_for_the_old_transaction() {
    let place = Place::postgres("wait", "script");
    let mut catalog = place.catalog("t");
    let (owner, _) = take(&mut catalog, "a").await;
    catalog.commit(&epoch(&owner, 0)).await.unwrap();
    // This is the old transaction: it is still under way, because the server has not noticed that
    // its client is gone.
    let old = place.other_client().await;
    old.batch_execute(
        "BEGIN; SELECT 1 FROM windrow_2.job FOR UPDATE; \
         INSERT INTO windrow_2.epoch SELECT database, \"table\", 1, 1, 'digest of 1', 'm', \
           clock_timestamp(), 0, said FROM windrow_2.epoch",
    )
    .await
    .unwrap();
    let mut asking = Box::pin(catalog.outcome(1));
    assert!(
        tokio::time::timeout(Duration::from_millis(300), &mut asking)
            .await
            .is_err(),
        "it must wait"
    );
    old.batch_execute("COMMIT").await.unwrap();
    assert!(matches!(
        asking.await.unwrap(),
        Outcome::Committed { digest, .. } if digest == "digest of 1"
    ));
}

#[tokio::test]
#[ignore = "needs PostgreSQL: make parts-up"]
async fn lock_held_by_another_client_is_a_reason_to_try_again() {
    let place = Place::postgres("lock", "script");
    let mut catalog = place.catalog("t");
    let (owner, _) = take(&mut catalog, "a").await;
    catalog.commit(&epoch(&owner, 0)).await.unwrap();
    let other = place.other_client().await;
    other
        .batch_execute(r#"BEGIN; LOCK TABLE "TBLS" IN ACCESS EXCLUSIVE MODE"#)
        .await
        .unwrap();
    retried(catalog.commit(&full(&owner, 1)).await, "holds a lock");
    other.batch_execute("ROLLBACK").await.unwrap();
    catalog.commit(&full(&owner, 1)).await.unwrap();
}

#[tokio::test]
#[ignore = "needs PostgreSQL: make parts-up"]
async fn restored_database_makes_the_owner_read_again() {
    let place = Place::postgres("restored", "script");
    let mut catalog = place.catalog("t");
    let (owner, _) = take(&mut catalog, "a").await;
    for n in 0..4 {
        catalog
            .commit(&full_after_genesis(&owner, n))
            .await
            .unwrap();
    }
    let other = place.other_client().await;
    other
        .batch_execute(
            "UPDATE windrow_2.job SET last_epoch = 1; DELETE FROM windrow_2.epoch WHERE epoch > 1; \
             DELETE FROM windrow_2.file WHERE epoch > 1; UPDATE windrow_2.lane SET next_offset = \
               10; \
             DELETE FROM windrow_2.part WHERE key NOT IN (SELECT key FROM windrow_2.file); \
             DELETE FROM \"PARTITION_KEY_VALS\" WHERE \"PART_ID\" NOT IN \
               (SELECT part_id FROM windrow_2.part); \
             DELETE FROM \"PARTITIONS\" WHERE \"PART_ID\" NOT IN \
               (SELECT part_id FROM windrow_2.part)",
        )
        .await
        .unwrap();
    fenced(catalog.commit(&full(&owner, 4)).await, "next epoch is 2");
    let (owner, head) = take(&mut catalog, "a").await;
    assert_eq!(head.unwrap().last.epoch, 1);
    catalog.commit(&epoch(&owner, 2)).await.unwrap();
    other
        .batch_execute("DROP SCHEMA windrow_2 CASCADE")
        .await
        .unwrap();
    assert!(catalog.commit(&epoch(&owner, 3)).await.is_err());
    fenced(
        catalog.commit(&epoch(&owner, 3)).await,
        "the journal is gone",
    );
}

/// What users of Spark may do with the tables.
const HARMLESS_STATEMENTS: [&str; 13] = [
    "SHOW TABLES",
    "SELECT * FROM newtable",
    "SELECT * FROM newtable__chunks",
    "SELECT * FROM newtable__late",
    "SELECT count(*) FROM newtable__rejects WHERE chunk > '0'",
    "SHOW PARTITIONS newtable__chunks",
    "ANALYZE TABLE newtable__chunks COMPUTE STATISTICS",
    "ALTER VIEW newtable SET TBLPROPERTIES ('note' = 'ours')",
    "ALTER TABLE newtable__chunks SET TBLPROPERTIES ('note' = 'ours')",
    "ALTER TABLE newtable__chunks ALTER COLUMN origin COMMENT 'who'",
    "COMMENT ON TABLE newtable__late IS 'late'",
    "ANALYZE TABLE newtable__chunks COMPUTE STATISTICS FOR COLUMNS origin, count",
    "CREATE TABLE after_us (a INT) USING parquet PARTITIONED BY (b INT)",
];

/// The statement that makes Spark write a file of one row, of `producer-<n>`, whose window begins
/// at this second.
fn write_one_row(warehouse: &str, file: &NewFile, n: usize, second: u32) -> String {
    let folder = file.key.rsplit_once('/').unwrap().0;
    let end = second + 10;
    format!(
        "INSERT OVERWRITE DIRECTORY 'file:{warehouse}/{folder}' USING parquet SELECT \
         named_struct('start', timestamp'2024-09-01 19:42:{second}', \
           'end', timestamp'2024-09-01 19:42:{end}') AS window, \
         'producer-{n}' AS origin, 20L AS count"
    )
}

/// A row of Spark's answer.
const FIRST_ROW: &str = "[{\"start\": \"2024-09-01 19:42:15.000000\", \
   \"end\": \"2024-09-01 19:42:25.000000\"}, \"producer-0\", 20]";

/// The view was altered. Commits epoch 3 once that is undone, and returns the owner.
async fn an_altered_view_is_restored(catalog: &mut Catalog, owner: &Owner) -> Owner {
    stopped(catalog.commit(&epoch(owner, 3)).await, "altered: its query");
    catalog.release(owner).await.unwrap();
    catalog
        .restore("admin", "id of admin", LEASE_MS)
        .await
        .unwrap();
    let (owner, _) = take(catalog, "a").await;
    catalog.commit(&epoch(&owner, 3)).await.unwrap();
    owner
}

/// Spark is the judge. It writes two Parquet files itself, and must find exactly their rows through
/// the view.
#[tokio::test]
#[ignore = "needs PostgreSQL and Spark: make parts-up"]
async fn spark_reads_what_was_committed_and_changes_nothing() {
    for kind in ["script", "lazy"] {
        let place = Place::postgres("spark", kind);
        let dir = tempfile::tempdir().unwrap();
        let warehouse = dir.path().to_str().unwrap();
        let spark = |sql: &[&str]| parts(&[&["spark-sql", place.database()], sql].concat());
        let mut catalog = place.catalog("newtable");
        let (owner, _) = take(&mut catalog, "a").await;
        let mut genesis = genesis();
        genesis.warehouse = warehouse.parse().unwrap();
        catalog
            .commit(&Commit {
                genesis: Some(genesis),
                ..epoch(&owner, 0)
            })
            .await
            .unwrap();
        let files = [1, 2].map(|n| NewFile {
            chunk: format!("{n:010}"),
            ..file(&owner, n, rows())
        });
        spark(&[
            &write_one_row(warehouse, &files[0], 0, 15),
            &write_one_row(warehouse, &files[1], 1, 25),
        ]);
        catalog
            .commit(&Commit {
                files: files[..1].to_vec(),
                ..epoch(&owner, 1)
            })
            .await
            .unwrap();
        let said = spark(&HARMLESS_STATEMENTS);
        assert!(
            said.contains(r#""columns": ["window", "origin", "count"]"#),
            "{said}"
        );
        assert!(
            said.contains(
                r#""types": ["struct<start:timestamp,end:timestamp>", "string", "bigint"]"#
            ),
            "{said}"
        );
        assert!(said.contains(FIRST_ROW), "{said}");
        // What Spark did to the tables does not count as damage, and readers see the next epoch.
        catalog
            .commit(&Commit {
                files: files[1..].to_vec(),
                ..epoch(&owner, 2)
            })
            .await
            .unwrap();
        let said = spark(&[
            "SELECT count(*), sum(count), max(window.start) FROM newtable",
            "SELECT count(*) FROM newtable__chunks \
             WHERE chunk = '0000000002' AND date = '2024-09-01'",
            "ALTER VIEW newtable AS SELECT origin FROM newtable__chunks",
        ]);
        assert!(
            said.contains(r#"[2, 40, "2024-09-01 19:42:25.000000"]"#) && said.contains("\n[1]\n"),
            "{said}"
        );
        let owner = an_altered_view_is_restored(&mut catalog, &owner).await;
        let said = spark(&["SELECT * FROM newtable", "DROP VIEW newtable"]);
        assert!(said.contains(FIRST_ROW), "{said}");
        stopped(
            catalog.commit(&epoch(&owner, 4)).await,
            "\"default.newtable\" is no longer in Hive",
        );
    }
}

/// Spark reads `2024` without quotes as a number, and the view's own query quotes all names.
#[tokio::test]
#[ignore = "needs PostgreSQL and Spark: make parts-up"]
async fn a_table_whose_name_spark_takes_for_a_number_can_be_made_and_read() {
    let place = Place::postgres("numbers", "script");
    let dir = tempfile::tempdir().unwrap();
    let warehouse = dir.path().to_str().unwrap();
    let spark = |sql: &[&str]| parts(&[&["spark-sql", place.database()], sql].concat());
    let name = TableName::new("2024", "1e5").unwrap();
    let mut catalog = postgres(&address(), place.database(), place.database(), name);
    let (owner, _) = take(&mut catalog, "a").await;
    let mut genesis = genesis();
    genesis.warehouse = warehouse.parse().unwrap();
    let first = Commit {
        genesis: Some(genesis),
        ..epoch(&owner, 0)
    };
    let answer = catalog.commit(&first).await;
    let CatalogError::Stop(why) = answer.unwrap_err() else {
        panic!("the database is not there");
    };
    let advice = "CREATE DATABASE `2024`";
    assert!(why.text.contains(&format!("run {advice} in")), "{why:?}");
    let shown = NewFile {
        chunk: "0000000001".to_owned(),
        ..file(&owner, 1, rows())
    };
    spark(&[
        &format!("{advice} LOCATION 'file:{warehouse}/2024.db'"),
        &write_one_row(warehouse, &shown, 0, 15),
    ]);
    catalog.commit(&first).await.unwrap();
    let second = Commit {
        files: vec![shown],
        ..epoch(&owner, 1)
    };
    catalog.commit(&second).await.unwrap();
    let said = spark(&["SELECT * FROM `2024`.`1e5`"]);
    assert!(said.contains(FIRST_ROW), "{said}");
}

/// WINDROW_TEST_PG_TLS is `localhost:port` of a server with TLS. WINDROW_TEST_PG_CA is the file of
/// its authority, and the server's certificate names `localhost` alone.
#[tokio::test]
#[ignore = "needs PostgreSQL: make parts-up"]
async fn tls_verifies_host_and_authority_when_told() {
    let (address, ca) = (
        variable("WINDROW_TEST_PG_TLS"),
        variable("WINDROW_TEST_PG_CA"),
    );
    let ca = std::fs::read_to_string(ca).unwrap();
    let by_number = address.replace("localhost", "127.0.0.1");
    let head = async |address: &str, tls, ca: Option<&str>| {
        let url = format!("postgresql://{address}/postgres");
        let config = PgConfig::new(&url, "windrow", &password(), tls, ca).unwrap();
        let name = TableName::new("default", "t").unwrap();
        Catalog::Postgres(Box::new(PostgresCatalog::new(config, name)))
            .head()
            .await
    };
    assert_eq!(
        head(&address, CatalogTls::VerifyFull, Some(&ca)).await,
        Ok(None)
    );
    assert_eq!(head(&by_number, CatalogTls::Require, None).await, Ok(None));
    retried(
        head(&address, CatalogTls::VerifyFull, None).await,
        "certificate",
    );
    retried(
        head(&by_number, CatalogTls::VerifyFull, Some(&ca)).await,
        "certificate",
    );
    stopped(
        head(
            &address,
            CatalogTls::VerifyFull,
            Some("-----BEGIN CERTIFICATE-----\n"),
        )
        .await,
        "catalog-ca-file",
    );
}
