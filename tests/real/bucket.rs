//! `table.bucket`: where in a bucket a table lies, and what is told while nobody can say. Kafka is
//! the one inside the process.
#![expect(
    clippy::disallowed_methods,
    reason = "a thread stands between windrow and its catalog"
)]

use crate::faults::with_secrets;
use crate::harness::{Setup, env, free_port, hive_db, psql, unique};
use serde_json::{Value, json};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};
use windrow::io::kafka::mock::MockKafka;
use windrow_core::shown::status::State;
use windrow_core::values::cause::Cause;

const SOON: Duration = Duration::from_secs(60);

/// A windrow whose settings name a bucket and no warehouse, and a Kafka that needs no login.
fn setup(database: &str, kafka: &MockKafka, bucket: &str, more: Value) -> Setup {
    let mut setup = Setup::new(database, "t", "newtable", more);
    setup.settings["kafka"] =
        json!({"bootstrap": kafka.bootstrap(), "topic": "t", "security": "plaintext"});
    // A name of its own, as all these tables may lie in one warehouse.
    setup.settings["table"] = json!({"name": database, "bucket": bucket});
    setup.settings["idle-timeout"] = json!("1s");
    setup.settings["watermark-delay"] = json!("1s");
    setup.write();
    setup
}

/// Ten records in windows of their own, one of them a reject.
fn kafka() -> MockKafka {
    let kafka = MockKafka::start("t", 1).expect("a mock Kafka");
    let values: Vec<String> = (0..10)
        .map(|i| {
            if i == 5 {
                "caf\u{e9}, no JSON".into()
            } else {
                format!(r#"{{"origin":"o{i}"}}"#)
            }
        })
        .collect();
    let records = (0..)
        .map(|i| 1_725_148_800_000 + i * 10_000)
        .zip(values.iter().map(|v| Some(v.as_bytes())));
    kafka.send("t", 0, records).expect("they are there");
    kafka
}

/// Passes bytes on to PostgreSQL, from a port where nobody answered before.
fn forward(port: u16) {
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port is still free");
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let server = TcpStream::connect(env("PG")).expect("PostgreSQL is up");
            for (mut from, mut to) in [
                (
                    client.try_clone().expect("a socket"),
                    server.try_clone().expect("a socket"),
                ),
                (server, client),
            ] {
                std::thread::spawn(move || std::io::copy(&mut from, &mut to));
            }
        }
    });
}

fn genesis_of(database: &str) -> String {
    psql(database, "SELECT genesis->>'warehouse' FROM windrow_2.job")
        .trim()
        .to_owned()
}

/// Hive's own row for the database `default`.
fn hive_keeps_default_at(database: &str, location: &str) {
    psql(
        database,
        &format!(
            r#"INSERT INTO "DBS" ("DB_ID", "DB_LOCATION_URI", "NAME") VALUES (1, '{location}', 'default')"#
        ),
    );
}

#[test]
#[ignore = "needs MinIO and PostgreSQL: make parts-up"]
#[expect(
    clippy::too_many_lines,
    reason = "one story, told in order: each step needs what the last one left"
)]
fn table_goes_where_hive_keeps_the_database_and_stays_there() {
    let (kafka, database, bucket) = (kafka(), unique("bucket"), env("S3_BUCKET"));
    let port = free_port();
    let setup = setup(
        &database,
        &kafka,
        &bucket,
        json!({"catalog": format!("postgresql://127.0.0.1:{port}/{database}")}),
    );

    // Nobody answers at first, then there is no database, then no schema: each is told, and nothing
    // is ended.
    let mut windrow = setup.start();
    let waits = |s: &windrow_core::shown::status::Status, part: &str| {
        s.state == State::Waiting && s.reason.contains(part)
    };
    windrow.wait("the reason", SOON, |s| waits(s, "is PostgreSQL up?"));
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .build()
        .into();
    let get = |path: &str| {
        agent
            .get(format!("http://{}{path}", setup.http))
            .call()
            .expect("an answer")
            .status()
            .as_u16()
    };
    assert_eq!(
        (
            get("/healthz"),
            get("/readyz"),
            get(&format!("/v1/tables/{database}/rows"))
        ),
        (200, 503, 503)
    );
    forward(port);
    // The role has to be there for PostgreSQL to look for the database.
    psql(
        "postgres",
        &format!(
            "CREATE ROLE {database} LOGIN PASSWORD '{}'",
            env("PG_PASSWORD")
        ),
    );
    windrow.wait("no database", SOON, |s| {
        waits(s, "is not there yet; make it")
    });
    let asked = Instant::now();
    windrow.stop();
    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "it ends at once while it asks: {:?}",
        asked.elapsed()
    );

    let mut windrow = setup.start();
    hive_db(&database, "empty");
    windrow.wait("no schema", SOON, |s| {
        s.cause == Some(Cause::NoSchema) && waits(s, "Hive schema not there yet")
    });
    drop(windrow);
    hive_db(&database, "script");
    let place = format!("{bucket}/bucket-test/{database}/hive");
    hive_keeps_default_at(&database, &format!("s3://{place}/"));
    with_secrets(&setup, json!({"catalog-password": "of-yesterday"}));
    let mut windrow = setup.start();
    windrow.wait("the refused login", SOON, |s| {
        s.cause == Some(Cause::LoginCatalog) && waits(s, "the login of user")
    });
    // Secrets that come while it asks count without a restart.
    setup.write();
    let counted = |s: &windrow_core::shown::status::Status| {
        s.consumed == 10 && s.rows == 7 && s.epoch > Some(0)
    };
    windrow.wait("rows", SOON, counted);
    let rows = setup.ask(&["rows", "--limit", "3"]);
    assert_eq!(
        (&rows["count"], &rows["truncated"], &rows["table"]),
        (
            &json!(3),
            &json!(true),
            &json!(format!("default.{database}"))
        )
    );
    windrow.stop();
    assert_eq!(genesis_of(&database), format!("s3a://{place}"));

    // Hive's database moves, the table does not.
    psql(
        &database,
        r#"UPDATE "DBS" SET "DB_LOCATION_URI" = 's3a://elsewhere/hive'"#,
    );
    let mut windrow = setup.start();
    windrow.wait("counting again", SOON, |s| {
        s.state == State::Counting && s.consumed == 10
    });
    let asked = ["rows", "--of", "rejects"];
    let running = setup.ask(&asked);
    windrow.stop();
    // The same without a process, from the catalog.
    assert_eq!(setup.ask(&asked), running);
    assert_eq!(running["table"], format!("default.{database}__rejects"));
    assert_eq!(
        running["columns"],
        json!([
            "topic",
            "partition",
            "offset",
            "event_time",
            "reason",
            "value"
        ])
    );
    let row = &running["rows"][0];
    assert_eq!(
        (&running["count"], &row["offset"], &row["value"]),
        (&json!(1), &json!(5), &json!("caf\u{e9}, no JSON"))
    );
    assert_eq!(setup.ask(&["rows", "--of", "late"])["count"], 0);
    assert_eq!(setup.ask(&["status"])["rows"], 7);
}

#[test]
#[ignore = "needs MinIO and PostgreSQL: make parts-up"]
fn table_in_another_bucket_is_left_alone() {
    let (kafka, database, bucket) = (kafka(), unique("bucket"), env("S3_BUCKET"));
    hive_db(&database, "script");
    hive_keeps_default_at(&database, "s3a://elsewhere/hive");
    let mut setup = setup(&database, &kafka, &bucket, json!({}));
    let mut windrow = setup.start();
    windrow.wait("rows", SOON, |s| s.consumed == 10 && s.rows == 7);
    windrow.stop();
    assert_eq!(genesis_of(&database), format!("s3a://{bucket}/warehouse"));
    let epochs = psql(&database, "SELECT count(*) FROM windrow_2.epoch");

    setup.settings["table"]["bucket"] = json!("other-bucket");
    setup.write();
    let mut windrow = setup.start();
    let text =
        format!("the table lies in s3a://{bucket}/warehouse and not in bucket \"other-bucket\"");
    windrow.wait("the refusal", SOON, |s| {
        s.state == State::Failed && s.cause == Some(Cause::OtherBucket) && s.reason.contains(&text)
    });
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .build()
        .into();
    let get = |path: &str| {
        agent
            .get(format!("http://{}{path}", setup.http))
            .call()
            .expect("an answer")
            .status()
            .as_u16()
    };
    assert_eq!((get("/healthz"), get("/readyz")), (200, 503));
    windrow.stop();
    let output = setup.command(&["rows"]).output().expect("windrow starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.code() == Some(1) && said.contains(&text),
        "{said}"
    );
    assert_eq!(
        psql(&database, "SELECT count(*) FROM windrow_2.epoch"),
        epochs,
        "nothing was committed"
    );

    // It looks again by itself, as whoever restores a database would want.
    let mut windrow = setup.start();
    windrow.wait("the refusal", SOON, |s| {
        s.state == State::Failed && s.cause == Some(Cause::OtherBucket) && s.reason.contains(&text)
    });
    psql(
        &database,
        &format!(
            "UPDATE windrow_2.job SET genesis = replace(genesis::text, 's3a://{bucket}/', \
             's3a://other-bucket/')::json"
        ),
    );
    windrow.wait("no more refusal", SOON, |s| !s.reason.contains(&text));
}
