//! Clocks that are wrong and databases that forget, as the whole program meets them. PostgreSQL's
//! clock is set for one database alone: its function `clock_timestamp` is replaced by one that adds
//! what a table says.
#![expect(
    clippy::disallowed_methods,
    reason = "records of this moment are sent, by the machine's clock"
)]

use crate::faults::{comes_out_right, on_s3, some, until};
use crate::harness::{hive_db, produce, psql, topic, unique, wait};
use serde_json::json;
use std::time::{Duration, SystemTime};
use windrow_core::shown::status::State;
use windrow_core::values::cause::Cause;

const SOON: Duration = Duration::from_secs(60);

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    i64::try_from(now.expect("after 1970").as_millis()).expect("before the year 292 million")
}

/// From now on the clock of this database can be set by [`set_clock`].
fn make_clock_settable(database: &str) {
    psql(
        database,
        "CREATE TABLE public.clock_off (off interval NOT NULL); \
         INSERT INTO public.clock_off VALUES ('0'); \
         GRANT SELECT ON public.clock_off TO PUBLIC; \
         SET allow_system_table_mods = on; \
         ALTER FUNCTION pg_catalog.clock_timestamp() RENAME TO clock_timestamp_right; \
         CREATE FUNCTION pg_catalog.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE \
         AS 'SELECT pg_catalog.clock_timestamp_right() + off FROM public.clock_off'",
    );
}

fn set_clock(database: &str, off: &str) {
    psql(
        database,
        &format!("UPDATE public.clock_off SET off = '{off}'"),
    );
}

#[test]
#[ignore = "needs the real parts: make test"]
fn a_restart_while_the_databases_clock_is_back_rejects_nothing() {
    let name = unique("clock");
    topic(&name, 1);
    hive_db(&name, "script");
    make_clock_settable(&name);
    let mut records = some(60, now_ms() - 60_000, 1);
    produce(&name, &records);
    let setup = on_s3(&name, &name);
    let mut windrow = setup.start();
    comes_out_right(&mut windrow, &setup, &records);

    set_clock(&name, "-2 days");
    let says = ["the clocks differ by 2d", "correct the database's clock"];
    let status = until(&mut windrow, State::Waiting, &says);
    assert_eq!(status.cause, Some(Cause::Clocks));
    let epochs = || psql(&name, "SELECT max(epoch) FROM windrow_2.epoch");
    let before = epochs();
    let more = some(60, now_ms() - 20_000, 1);
    produce(&name, &more);
    records.extend(more);
    windrow.stop();
    assert_eq!(epochs(), before, "the end commits nothing by a wrong clock");

    let mut windrow = setup.start();
    let status = until(&mut windrow, State::Waiting, &says);
    assert_eq!(status.cause, Some(Cause::Clocks));
    set_clock(&name, "0");
    comes_out_right(&mut windrow, &setup, &records);

    // The other way round a wrong clock would let everything close.
    set_clock(&name, "400 days");
    let says = ["the clocks differ by 400d", "correct the database's clock"];
    until(&mut windrow, State::Waiting, &says);
    let more = some(60, now_ms(), 1);
    produce(&name, &more);
    records.extend(more);
    set_clock(&name, "0");
    comes_out_right(&mut windrow, &setup, &records);
    windrow.stop();
}

/// Makes one database from another one, whoever is connected to it.
fn copy_database(from: &str, to: &str) {
    let alone = |database: &str, allow: bool| {
        psql(
            "postgres",
            &format!("ALTER DATABASE \"{database}\" ALLOW_CONNECTIONS {allow}"),
        );
    };
    let dropped = |database: &str| {
        psql(
            "postgres",
            &format!(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                 WHERE datname = '{database}'"
            ),
        );
    };
    alone(from, false);
    wait("nobody is connected", SOON, || {
        dropped(from);
        let copied = psql(
            "postgres",
            &format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{from}'"),
        );
        (copied.trim() == "0").then_some(())
    });
    psql(
        "postgres",
        &format!("CREATE DATABASE \"{to}\" TEMPLATE \"{from}\""),
    );
    alone(from, true);
}

#[test]
#[ignore = "needs the real parts: make test"]
fn epochs_lost_by_a_failover_are_noticed_while_the_topic_is_quiet() {
    let name = unique("lost");
    let backup = format!("{name}_backup");
    topic(&name, 1);
    hive_db(&name, "script");
    let mut records = some(60, now_ms() - 300_000, 1);
    produce(&name, &records);
    let setup = on_s3(&name, &name);
    let mut windrow = setup.start();
    comes_out_right(&mut windrow, &setup, &records);
    copy_database(&name, &backup);
    for round in 1..4 {
        let more = some(60, now_ms() - 300_000 + round * 30_000, 1);
        produce(&name, &more);
        records.extend(more);
        comes_out_right(&mut windrow, &setup, &records);
    }

    // The backup takes the place of the database. No record comes any more.
    // They come back in one epoch, with fewer files than before, but with the same rows.
    let in_files = "SELECT sum(rows) FROM windrow_2.file WHERE first_window IS NOT NULL";
    let before = psql(&name, in_files);
    psql(
        "postgres",
        &format!("ALTER DATABASE \"{name}\" ALLOW_CONNECTIONS false"),
    );
    psql(
        "postgres",
        &format!("DROP DATABASE \"{name}\" WITH (FORCE)"),
    );
    psql(
        "postgres",
        &format!("ALTER DATABASE \"{backup}\" RENAME TO \"{name}\""),
    );
    assert_ne!(psql(&name, in_files), before, "readers see less");
    wait("the lost epochs are there again", SOON, || {
        (psql(&name, in_files) == before).then_some(())
    });
    comes_out_right(&mut windrow, &setup, &records);
    assert!(setup.log().contains("reading the journal again"));
    windrow.stop();
}

#[test]
#[ignore = "needs the real parts: make test"]
fn a_max_future_of_nothing_is_refused_with_what_is_allowed() {
    let mut setup = on_s3("none", "none");
    setup.settings["max-future"] = json!("0s");
    setup.write();
    let checked = setup.command(&["check-config"]).output();
    let checked = checked.expect("windrow starts");
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert_eq!(checked.status.code(), Some(2), "{said}");
    assert!(
        said.contains("max-future") && said.contains("10s"),
        "{said}"
    );
}
