//! Journals of other versions: a newer one, the one of before the first release, and the filling of
//! one from the one before.

use super::super::postgres::versions::{VERSIONS, Version, make};
use super::super::session::Session;
use super::*;

#[tokio::test]
#[ignore = "needs PostgreSQL: make parts-up"]
async fn newer_journal_is_left_alone() {
    let place = Place::postgres("newer", "script");
    place
        .other_client()
        .await
        .batch_execute("CREATE SCHEMA windrow_22")
        .await
        .unwrap();
    stopped(
        place.catalog("t").acquire("a", "x", LEASE_MS).await,
        "windrow_22",
    );
    stopped(place.catalog("t").head().await, "upgrade it");
}

/// A journal of before the first release, as far as this program looks at it.
const UNRELEASED: &str = "CREATE SCHEMA windrow_1; \
    CREATE TABLE windrow_1.job (database text, \"table\" text, last_epoch bigint); \
    INSERT INTO windrow_1.job VALUES ('default', 't', 7), ('default', 'never', NULL)";

#[tokio::test]
#[ignore = "needs PostgreSQL: make parts-up"]
async fn a_table_of_before_the_first_release_is_refused_with_the_ways_out() {
    let place = Place::postgres("unreleased", "script");
    let client = place.other_client().await;
    client.batch_execute(UNRELEASED).await.unwrap();
    let mut catalog = place.catalog("t");
    for part in [
        "journal windrow_1 cannot be taken over; choose another table name",
        "run DROP VIEW `default`.`t`; DROP TABLE `default`.`t__chunks`; DROP TABLE",
        "DELETE FROM windrow_1.job WHERE database = 'default' AND \"table\" = 't'",
        "delete the folder _windrow/default.t in",
    ] {
        stopped(catalog.acquire("a", "x", LEASE_MS).await, part);
    }
    assert_eq!(catalog.head().await.unwrap(), None);
    // Another table name is one way out, and a table that has no epoch there needs none.
    for table in ["other", "never"] {
        uses_all_of_the_journal(&mut place.catalog(table), "a").await;
    }
    // The other way, where Hive's tables are gone already.
    client
        .batch_execute("DELETE FROM windrow_1.job WHERE database = 'default' AND \"table\" = 't'")
        .await
        .unwrap();
    uses_all_of_the_journal(&mut catalog, "a").await;
}

/// A stranger's schema of that name is not looked into: what it holds could run with our rights.
#[tokio::test]
#[ignore = "needs PostgreSQL: make parts-up"]
async fn an_unreleased_journal_of_a_stranger_is_left_alone() {
    let place = Place::postgres("unreleased_planter", "script");
    let sql = |sql: &str| parts(&["psql", place.database(), "-qAt", "-c", sql]);
    sql(
        "DO $$ BEGIN CREATE ROLE catalog_unreleased_planter LOGIN; EXCEPTION \
          WHEN duplicate_object THEN NULL; END $$",
    );
    sql(&format!(
        "GRANT CREATE ON DATABASE {} TO catalog_unreleased_planter; \
         SET ROLE catalog_unreleased_planter; {UNRELEASED}; \
         GRANT USAGE ON SCHEMA windrow_1 TO PUBLIC; GRANT SELECT ON windrow_1.job TO PUBLIC",
        place.database()
    ));
    uses_all_of_the_journal(&mut place.catalog("t"), "a").await;
}

/// A made-up next version, which keeps a part of one table under another name.
const NEXT: Version = Version {
    number: 3,
    tables: "CREATE SCHEMA windrow_3; CREATE TABLE windrow_3.work (database text, \
             \"table\" text, term bigint, owner_name text, last_epoch bigint)",
    fill: Some(
        "INSERT INTO windrow_3.work \
           SELECT database, \"table\", term, owner_name, last_epoch FROM windrow_2.job; \
         UPDATE windrow_2.job SET term = term + 1, owner_id = '', owner_name = 'windrow_3', \
           lease_until = NULL",
    ),
};

#[tokio::test]
#[ignore = "needs PostgreSQL: make parts-up"]
async fn a_newer_journal_is_made_beside_an_older_one_and_filled_from_it_at_once() {
    let place = Place::postgres("filled", "script");
    let mut catalog = place.catalog("t");
    let (owner, _) = take(&mut catalog, "a").await;
    catalog.commit(&epoch(&owner, 0)).await.unwrap();
    let known: Vec<Version> = VERSIONS.iter().map(copy).chain([copy(&NEXT)]).collect();
    let config = |place: &Place| {
        let url = format!("postgresql://{}/{}", address(), place.database());
        PgConfig::new(
            &url,
            place.database(),
            &password(),
            CatalogTls::Disable,
            None,
        )
        .unwrap()
    };
    // Several begin at once, and one of them makes it.
    let make_it = async || {
        let mut db = Session::connect(&config(&place), "cannot make")
            .await
            .unwrap();
        make(&mut db, &known).await.unwrap();
    };
    // They wait for a commit that is under way.
    let client = place.other_client().await;
    let under_way = "BEGIN; SELECT FROM windrow_2.job FOR UPDATE; \
                     UPDATE windrow_2.job SET last_epoch = 1";
    client.batch_execute(under_way).await.unwrap();
    tokio::join!(make_it(), make_it(), async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        client.batch_execute("COMMIT").await.unwrap();
    });
    let terms = "SELECT \
          string_agg(concat_ws(' ', w.term, w.owner_name, w.last_epoch, j.term), ',') \
         FROM windrow_3.work AS w JOIN windrow_2.job AS j USING (database, \"table\")";
    assert_eq!(text(&client, terms).await, "1 a 1 2");
    // The owner of before may not commit there any more, and then sees why.
    fenced(catalog.commit(&full(&owner, 1)).await, "windrow_3");
    let answer = catalog.acquire("a", "id of a", LEASE_MS).await;
    stopped(answer, "a newer journal, windrow_3");

    // Where there is none, the newest alone is made, and not filled.
    let place = Place::postgres("filled_none", "script");
    let mut db = Session::connect(&config(&place), "cannot make")
        .await
        .unwrap();
    make(&mut db, &known).await.unwrap();
    let client = place.other_client().await;
    let rows = "SELECT concat_ws(' ', count(*), to_regnamespace('windrow_2')) FROM windrow_3.work";
    assert_eq!(text(&client, rows).await, "0");
}

fn copy(version: &Version) -> Version {
    Version { ..*version }
}
