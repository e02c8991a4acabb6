//! What a swap does to Hive's rows: places, statistics, and the deletion of what was emptied.

use super::*;
use cases::{compacted, fourth, three_epochs, three_sources};
use windrow_core::table::commit::FileKind;

/// How many rows each of Hive's tables has, and which ones: those of table partitions.
const COUNTS: &str = r#"SELECT concat_ws(' ', (SELECT count(*) FROM "PARTITIONS"),
    (SELECT count(*) FROM "PARTITION_KEY_VALS"), (SELECT count(*) FROM "PARTITION_PARAMS"),
    (SELECT count(*) FROM "SDS"), (SELECT count(*) FROM "SERDES"),
    (SELECT count(*) FROM "SERDE_PARAMS"), (SELECT count(*) FROM "CDS"),
    (SELECT count(*) FROM "COLUMNS_V2"), (SELECT count(*) FROM "TBLS"))"#;

/// What readers of the table's own rows see who have read all ids: each name with its folder, and
/// whether it belongs to no table, so that nobody else reads its id.
const PLACES: &str = r#"SELECT string_agg(concat_ws(' ', right(p."PART_NAME", 4),
    substr(s."LOCATION", length('s3a://spark/warehouse/_windrow/default.t/rows/') + 1),
    CASE WHEN v."PARAM_VALUE" <> s."LOCATION" THEN v."PARAM_VALUE" END,
    CASE WHEN p."TBL_ID" IS NULL THEN 'of no table' END), ', '
    ORDER BY p."PART_NAME")
  FROM "PARTITIONS" AS p JOIN "SDS" AS s USING ("SD_ID")
    LEFT JOIN "SERDE_PARAMS" AS v ON v."SERDE_ID" = s."SERDE_ID" AND v."PARAM_KEY" = 'path'
  WHERE p."PART_NAME" LIKE 'date=%'"#;

/// What Spark does at `ANALYZE TABLE t__chunks PARTITION (...) COMPUTE STATISTICS`: it writes the
/// whole table partition that it has read before, here those of the table `read`. It finds those of
/// its table only.
const ANALYZED: &str = r#"DELETE FROM read WHERE "PART_ID" IN
      (SELECT "PART_ID" FROM "PARTITIONS" WHERE "TBL_ID" IS NULL);
    UPDATE "SDS" AS s SET "LOCATION" = r."LOCATION" FROM read AS r
      WHERE r."SD_ID" = s."SD_ID";
    UPDATE "SERDE_PARAMS" AS v SET "PARAM_VALUE" = r."LOCATION" FROM read AS r
      WHERE r."SERDE_ID" = v."SERDE_ID" AND v."PARAM_KEY" = 'path';
    DELETE FROM "PARTITION_PARAMS";
    INSERT INTO "PARTITION_PARAMS" ("PART_ID", "PARAM_KEY", "PARAM_VALUE")
      SELECT "PART_ID", 'spark.sql.statistics.numRows', '77' FROM read"#;

const READ: &str = r#"CREATE TEMP TABLE read AS SELECT "PART_ID", s.* FROM "PARTITIONS"
    JOIN "SDS" AS s USING ("SD_ID")"#;

/// A swap of three chunks that become one.
fn three_to_one(owner: &Owner) -> Commit {
    let sources = three_sources(owner);
    let new = compacted(owner, &sources[0], 0);
    fourth(owner, &sources, vec![new])
}

/// The full epoch `n` that follows the swap.
fn next(owner: &Owner, n: u64) -> Commit {
    let mut next = full(owner, n);
    if n == 5 {
        next.lanes.values_mut().for_each(|lane| lane.from = 30);
    }
    next
}

async fn statistics(client: &tokio_postgres::Client) -> String {
    let sql = r#"SELECT count(*)::text FROM "PARTITION_PARAMS""#;
    text(client, sql).await
}

#[tokio::test]
#[ignore = "needs PostgreSQL: make parts-up"]
async fn a_swap_changes_places_and_emptied_table_partitions_leave_no_row_behind() {
    for kind in ["script", "lazy", "3.1", "4.0"] {
        let place = Place::postgres("swap", kind);
        let mut catalog = place.catalog("t");
        let owner = three_epochs(&mut catalog).await;
        let client = place.other_client().await;
        client.batch_execute(READ).await.unwrap();
        client.batch_execute(ANALYZED).await.unwrap();
        assert_eq!(statistics(&client).await, "9");
        let ids = r#"SELECT string_agg("PART_ID"::text, ',' ORDER BY "PART_ID") FROM "PARTITIONS""#;
        let ids_before = text(&client, ids).await;
        catalog.commit(&three_to_one(&owner)).await.unwrap();
        // The ids stay, and so do the statistics of the side tables.
        assert_eq!(text(&client, ids).await, ids_before);
        assert_eq!(statistics(&client).await, "6");
        let swapped = "0001 1-hour12-abc-0, 0002 empty-abc of no table, 0003 empty-abc of no table";
        assert_eq!(text(&client, PLACES).await, swapped);

        // Somebody's ANALYZE, which had read them before, writes the old places back.
        client.batch_execute(ANALYZED).await.unwrap();
        let old = "0001 1-1-abc, 0002 empty-abc of no table, 0003 empty-abc of no table";
        assert_eq!(text(&client, PLACES).await, old);
        catalog.commit(&next(&owner, 5)).await.unwrap();
        let right = format!("{swapped}, 0005 1-5-abc");
        assert_eq!(text(&client, PLACES).await, right);
        assert_eq!(statistics(&client).await, "6");

        // They are deleted when their time has come.
        let hour = 3_600_000;
        catalog
            .drop_emptied(&owner, hour, &ANY_CLOCK)
            .await
            .unwrap();
        assert_eq!(text(&client, PLACES).await, right);
        client.batch_execute(ANALYZED).await.unwrap();
        let of_emptied = r#"INSERT INTO "PARTITION_PARAMS" ("PART_ID", "PARAM_KEY", "PARAM_VALUE")
            SELECT "PART_ID", 'k', 'v' FROM "PARTITIONS" WHERE "TBL_ID" IS NULL"#;
        client.batch_execute(of_emptied).await.unwrap();
        let counts = text(&client, COUNTS).await;
        assert!(counts.starts_with("12 16 9 "), "{counts}");
        catalog.drop_emptied(&owner, 0, &ANY_CLOCK).await.unwrap();
        let left = "0001 1-1-abc, 0005 1-5-abc";
        assert_eq!(
            text(&client, PLACES).await,
            left,
            "the next commit puts it right"
        );
        let numbers =
            |counts: &str| -> Vec<i64> { counts.split(' ').map(|n| n.parse().unwrap()).collect() };
        let after = text(&client, COUNTS).await;
        let fewer = numbers(&counts).into_iter().zip(numbers(&after));
        let fewer: Vec<i64> = fewer.map(|(before, after)| before - after).collect();
        assert_eq!(fewer, [2, 4, 2, 2, 2, 4, 0, 0, 0], "{kind}");
        let journal = "SELECT count(*)::text FROM windrow_2.part";
        assert_eq!(text(&client, journal).await, "10");
        catalog.commit(&next(&owner, 6)).await.unwrap();
        let right = "0001 1-hour12-abc-0, 0005 1-5-abc, 0006 1-6-abc";
        assert_eq!(text(&client, PLACES).await, right);
        let answer = catalog.restore("admin", "id", LEASE_MS).await;
        because(answer, Cause::Held, "owns it");
    }
}

/// More than are deleted at once, of which somebody has dropped some already.
#[tokio::test]
#[ignore = "needs PostgreSQL: make parts-up"]
async fn many_emptied_table_partitions_are_deleted_in_pieces() {
    for kind in ["script", "lazy"] {
        let place = Place::postgres("many_emptied", kind);
        let mut catalog = place.catalog("t");
        let (owner, _) = take(&mut catalog, "a").await;
        catalog.commit(&epoch(&owner, 0)).await.unwrap();
        catalog.commit(&full(&owner, 1)).await.unwrap();
        let counts = {
            let client = place.other_client().await;
            text(&client, COUNTS).await
        };
        add_files(&place, 2500);
        let files = catalog.live_files().await.unwrap().into_iter();
        let files = files.map(|live| live.file);
        let added: Vec<NewFile> = files.filter(|file| file.chunk.starts_with('c')).collect();
        assert_eq!(added.len(), 2500);
        let mut drop_all = epoch(&owner, 2);
        drop_all.retired = added.iter().map(cases::retired).collect();
        let begun = Instant::now();
        catalog.commit(&drop_all).await.unwrap();
        println!("{kind}: 2500 files dropped in {:?}", begun.elapsed());
        let client = place.other_client().await;
        client
            .batch_execute(
                r#"DELETE FROM "PARTITION_KEY_VALS" WHERE "PART_ID" = 1000007;
                   DELETE FROM "PARTITIONS" WHERE "PART_ID" = 1000007;
                   DELETE FROM "SDS" WHERE "SD_ID" = 1000007;
                   DELETE FROM "SERDE_PARAMS" WHERE "SERDE_ID" = 1000007;
                   DELETE FROM "SERDES" WHERE "SERDE_ID" = 1000007"#,
            )
            .await
            .unwrap();
        let begun = Instant::now();
        catalog.drop_emptied(&owner, 0, &ANY_CLOCK).await.unwrap();
        println!(
            "{kind}: 2500 table partitions deleted in {:?}",
            begun.elapsed()
        );
        assert_eq!(text(&client, COUNTS).await, counts, "{kind}");
        catalog.commit(&full(&owner, 3)).await.unwrap();
    }
}

#[tokio::test]
#[ignore = "needs PostgreSQL: make parts-up"]
async fn a_place_that_was_altered_is_put_right_by_the_next_commit() {
    for (i, sql) in [
        r#"UPDATE "SDS" SET "LOCATION" = 's3a://else' WHERE "LOCATION" LIKE '%/late/1-%'"#,
        r#"UPDATE "SERDE_PARAMS" SET "PARAM_VALUE" = 's3a://else'
           WHERE "PARAM_KEY" = 'path' AND "PARAM_VALUE" LIKE '%/rows/1-%'"#,
        r#"DELETE FROM "SERDE_PARAMS" WHERE "PARAM_KEY" = 'path'
           AND "PARAM_VALUE" LIKE '%/rows/1-%'"#,
    ]
    .into_iter()
    .enumerate()
    {
        let place = Place::postgres("altered", if i % 2 == 0 { "script" } else { "lazy" });
        let mut catalog = one_epoch(&place).await;
        let client = place.other_client().await;
        let made = text(&client, PARTITIONS_IN_HIVE).await;
        client.batch_execute(sql).await.unwrap();
        assert_ne!(text(&client, PARTITIONS_IN_HIVE).await, made);
        let (owner, _) = take(&mut catalog, "a").await;
        catalog.commit(&epoch(&owner, 2)).await.unwrap();
        assert_eq!(text(&client, PARTITIONS_IN_HIVE).await, made, "{sql}");
        // Nothing is written where nothing differs.
        let before = text(&client, VERSIONS_IN_HIVE).await;
        catalog.commit(&epoch(&owner, 3)).await.unwrap();
        assert_eq!(text(&client, VERSIONS_IN_HIVE).await, before);
    }
}

/// What somebody does to Hive's rows after a swap.
const AFTER_SWAPS: [&str; 4] = [
    // The metastore was made anew.
    r#"DELETE FROM "PARTITION_PARAMS"; DELETE FROM "PARTITION_KEY_VALS"; DELETE FROM "PARTITIONS";
       DELETE FROM "PARTITION_KEYS"; DELETE FROM "TABLE_PARAMS"; DELETE FROM "TBLS""#,
    // An emptied one, and the one that shows the new file.
    r#"DELETE FROM "PARTITION_KEY_VALS" WHERE "PART_ID" IN
         (SELECT "PART_ID" FROM "PARTITIONS" WHERE "PART_NAME" LIKE 'date=%' AND
           right("PART_NAME", 1) IN ('1', '2'));
       DELETE FROM "PARTITIONS" WHERE "PART_NAME" LIKE 'date=%' AND
         right("PART_NAME", 1) IN ('1', '2')"#,
    r#"UPDATE "PARTITIONS" SET "PART_NAME" = 'date=2027-01-01/chunk=' || right("PART_NAME", 10)
         WHERE "PART_NAME" LIKE 'date=%';
       UPDATE "PARTITION_KEY_VALS" SET "PART_KEY_VAL" = '2027-01-01'
         WHERE "PART_KEY_VAL" LIKE '2024-%'"#,
    // ANALYZE TABLE wrote an old place back.
    r#"UPDATE "SDS" SET "LOCATION" = 's3a://spark/warehouse/_windrow/default.t/rows/1-2-abc'
         WHERE "LOCATION" LIKE '%/rows/1-hour12-abc-0'"#,
];

#[tokio::test]
#[ignore = "needs PostgreSQL: make parts-up"]
async fn after_swaps_a_restore_neither_doubles_nor_misses_a_chunk() {
    for (i, sql) in AFTER_SWAPS.into_iter().enumerate() {
        let place = Place::postgres("after_swaps", if i % 2 == 0 { "script" } else { "lazy" });
        let mut catalog = place.catalog("t");
        let owner = three_epochs(&mut catalog).await;
        catalog.commit(&three_to_one(&owner)).await.unwrap();
        catalog.commit(&next(&owner, 5)).await.unwrap();
        let live = catalog.live_files().await.unwrap().len();
        catalog.release(&owner).await.unwrap();
        let client = place.other_client().await;
        let made = text(&client, PARTITIONS_IN_HIVE).await;
        client.batch_execute(sql).await.unwrap();
        catalog.restore("admin", "id", LEASE_MS).await.unwrap();
        assert_eq!(text(&client, PARTITIONS_IN_HIVE).await, made, "{sql}");
        let before = text(&client, VERSIONS_IN_HIVE).await;
        catalog.restore("admin", "id", LEASE_MS).await.unwrap();
        assert_eq!(text(&client, VERSIONS_IN_HIVE).await, before, "{sql}");
        // All goes on: another swap, of the one that was compacted, and the deletion.
        let (owner, _) = take(&mut catalog, "a").await;
        catalog.drop_emptied(&owner, 0, &ANY_CLOCK).await.unwrap();
        assert_eq!(catalog.live_files().await.unwrap().len(), live);
        catalog.commit(&next(&owner, 6)).await.unwrap();
        let places = format!(
            "0001 1-hour12-abc-0, 0005 1-5-abc, 0006 {}-6-abc",
            owner.term
        );
        assert_eq!(text(&client, PLACES).await, places);
    }
}

/// What the comparison of all places costs. Other tables have many table partitions.
#[tokio::test]
#[ignore = "needs PostgreSQL: make parts-up"]
async fn comparing_all_places_is_cheap_at_some_hundred_table_partitions() {
    for kind in ["script", "lazy"] {
        let place = Place::postgres("cheap", kind);
        let mut other = place.catalog("t");
        let (owner, _) = take(&mut other, "a").await;
        other.commit(&epoch(&owner, 0)).await.unwrap();
        add_files(&place, 100_000);
        let mut catalog = place.catalog("small");
        let (owner, _) = take(&mut catalog, "a").await;
        catalog.commit(&epoch(&owner, 0)).await.unwrap();
        let mut many = epoch(&owner, 1);
        many.files = (0..400)
            .map(|n| NewFile {
                chunk: format!("many{n}"),
                key: format!("_windrow/default.small/rows/1-{n}-abc/part.parquet"),
                ..file(&owner, 1, rows())
            })
            .collect();
        catalog.commit(&many).await.unwrap();
        let mut least = Duration::MAX;
        for n in 2..8 {
            let begun = Instant::now();
            catalog.commit(&full(&owner, n)).await.unwrap();
            least = least.min(begun.elapsed());
        }
        println!("{kind}: a commit at 400 table partitions takes {least:?}");
        assert!(least < Duration::from_millis(500), "{least:?}");
    }
}

/// A late file that a swap of the side table has merged keeps the time of its newest commit.
#[tokio::test]
#[ignore = "needs PostgreSQL: make parts-up"]
async fn a_swap_of_a_side_table_changes_its_places_only() {
    let place = Place::postgres("side", "script");
    let mut catalog = place.catalog("t");
    let owner = three_epochs(&mut catalog).await;
    let client = place.other_client().await;
    let rows = text(&client, PLACES).await;
    let late = [1, 2].map(|n| file(&owner, n, FileKind::Late));
    let new = compacted(&owner, &late[0], 0);
    catalog
        .commit(&fourth(&owner, &late, vec![new]))
        .await
        .unwrap();
    assert_eq!(text(&client, PLACES).await, rows);
    // The file without rows has the columns of the table itself. A side table reads them as null,
    // and there are none.
    let places = r#"SELECT string_agg(right(s."LOCATION", 14), ',' ORDER BY p."PART_NAME")
        FROM "PARTITIONS" AS p JOIN "SDS" AS s USING ("SD_ID") JOIN "TBLS" AS t USING ("TBL_ID")
        WHERE t."TBL_NAME" = 't__late'"#;
    let expect = "1-hour12-abc-0,t/late/1-3-abc";
    assert_eq!(text(&client, places).await, expect);
}
