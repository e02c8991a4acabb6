//! `windrow verify` on Kafka, MinIO, PostgreSQL and Hive's schema: a table that is whole, beside
//! the windrow that counts it, and then the same table damaged on purpose in each way.

use crate::harness::{Setup, Windrow, hive_db, parts, produce, psql, record, topic, unique};
use serde_json::{Value, json};
use std::time::Duration;
use windrow::io::store::Store;
use windrow::run::clients;
use windrow_core::settings::config::{Config, Secrets};
use windrow_core::verify::report::{Kind, Report, Stage};

/// 2024-09-01 19:42:00 UTC.
const START_MS: i64 = 1_725_219_720_000;
const SOON: Duration = Duration::from_secs(60);

/// A table of PostgreSQL, Hive and MinIO.
struct Table {
    name: String,
    setup: Setup,
    store: Store,
    runtime: tokio::runtime::Runtime,
}

impl Table {
    fn new() -> Self {
        let name = unique("verify");
        hive_db(&name, "script");
        topic(&name, 3);
        let settings = json!({
            "idle-timeout": "1s", "watermark-delay": "2s", "commit-interval": "200ms",
        });
        let setup = Setup::new(&name, &name, "t", settings);
        let config = Config::parse(&setup.settings.to_string()).expect("settings");
        let secrets = Secrets::parse(&setup.secrets.to_string()).expect("secrets");
        Self {
            setup,
            store: clients::open(&config, &secrets).expect("clients").store,
            runtime: tokio::runtime::Runtime::new().unwrap(),
            name,
        }
    }

    /// What the command says, with its exit code.
    fn verify(&self, more: &[&str]) -> (Report, Option<i32>) {
        let verb = [&["verify"], more, &["--output", "json"]].concat();
        let output = self.setup.command(&verb).output().expect("it starts");
        let report = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
        (report, output.status.code())
    }

    /// The only kind of difference that there is, and the first one's sentence.
    fn only_difference(&self, more: &[&str]) -> (Kind, String) {
        let (report, code) = self.verify(more);
        assert_eq!(code, Some(3), "{report:#?}");
        let kinds: Vec<Kind> = report.found.by_kind.keys().copied().collect();
        let [kind] = kinds[..] else {
            panic!("{report:#?}")
        };
        (kind, report.found.findings[0].text.clone())
    }

    /// Asserts that all is mended.
    fn is_whole(&self) {
        let (report, code) = self.verify(&[]);
        assert_eq!((code, report.found.findings), (Some(0), vec![]));
    }

    fn sql(&self, sql: &str) -> String {
        psql(&self.name, sql).trim().to_owned()
    }

    fn get(&self, key: &str) -> Vec<u8> {
        let got = self.runtime.block_on(self.store.get(key)).unwrap();
        got.unwrap_or_else(|| panic!("{key} is not there"))
    }

    fn put(&self, key: &str, bytes: Vec<u8>) {
        self.runtime.block_on(self.store.put(key, bytes)).unwrap();
    }

    fn delete(&self, key: &str) {
        let deleted = self
            .runtime
            .block_on(self.store.delete(vec![key.to_owned()]));
        assert_eq!(deleted.first_error, None);
    }
}

/// Some 30 windows of three topic partitions, with late records, rejects and tombstones.
fn records(from: i64, count: i64) -> Vec<Value> {
    (from..from + count)
        .map(|i| {
            let at = START_MS + i * 150 - i * 7919 % 1500;
            let partition = i32::try_from(i % 3).unwrap();
            match i % 97 {
                50 => json!({"p": partition, "ts": at, "v": null}),
                60 => json!({"p": partition, "ts": at, "v": "{"}),
                70 => record(partition, at - 60_000, "late"),
                _ => record(partition, at, &format!("producer-{}", i % 7)),
            }
        })
        .collect()
}

fn counted(table: &Table, windrow: &mut Windrow<'_>, sent: u64) {
    let status = windrow.wait_for_all(sent);
    assert!(status.rejected > 0 && status.tombstones > 0, "{status:#?}");
    let _ = table;
}

#[test]
#[ignore = "needs the real parts: make test"]
fn a_whole_table_has_no_differences_and_each_damage_is_named() {
    let table = Table::new();
    let mut windrow = table.setup.start();
    let mut sent = 0;
    for _ in 0..4 {
        produce(&table.name, &records(sent, 500));
        sent += 500;
        counted(&table, &mut windrow, u64::try_from(sent).unwrap());
    }
    // Beside the windrow that counts.
    let (report, code) = table.verify(&["--deep"]);
    assert_eq!((code, &report.found.findings), (Some(0), &vec![]));
    let recounted = report.recounted.as_ref().expect("the log is there");
    assert_eq!((recounted.offsets, recounted.after), (2000, None));
    assert_eq!(report.checked.hashed_files, report.checked.files);
    assert_eq!(report.checked.proven_epochs, report.checked.epochs);
    in_the_background(&table, &mut windrow);
    windrow.stop();
    table.is_whole();
    let (report, _) = table.verify(&["--from", "2024-09-01T19:44:00Z", "--rate", "4MiB"]);
    assert_eq!(report.found.differences, 0, "{report:#?}");
    let part = report.recounted.expect("the log is there");
    assert!(part.offsets < 2000 && part.after.is_some(), "{part:?}");

    files_are_damaged(&table);
    rows_of_hive_are_damaged(&table);
    epochs_are_damaged(&table);
    files_are_merged_and_epochs_fold(&table, u64::try_from(sent).unwrap());
    history_is_damaged(&table);
}

/// The same, asked of the windrow that counts.
fn in_the_background(table: &Table, windrow: &mut Windrow<'_>) {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .build()
        .into();
    let url = format!("http://{}/v1/verify", table.setup.http);
    let start = || {
        let asked = agent.post(&url).content_type("application/json").send("{}");
        let mut answer = asked.expect("an answer");
        let code = answer.status().as_u16();
        (code, answer.body_mut().read_json::<Value>().expect("JSON"))
    };
    assert_eq!(start(), (200, json!({"id": "verify-1"})));
    let status = windrow.wait("a verification", SOON, |status| {
        status.verification == "verify-1: no differences"
    });
    assert_eq!(status.commit_failures, 0);
    let report: Report = agent
        .get(&url)
        .call()
        .expect("an answer")
        .body_mut()
        .read_json()
        .expect("a report");
    assert_eq!((report.stage, report.found.differences), (Stage::Done, 0));
}

fn files_are_damaged(table: &Table) {
    let keys = table.sql(
        "SELECT key FROM windrow_2.file WHERE kind = 'rows' AND retired_at IS NULL AND rows > 3 \
         ORDER BY first_window LIMIT 2",
    );
    let keys: Vec<&str> = keys.lines().collect();
    let [key, other] = keys[..] else {
        panic!("{keys:?}")
    };
    let good = table.get(key);

    table.delete(key);
    let (kind, text) = table.only_difference(&[]);
    assert_eq!(kind, Kind::FileMissing);
    assert!(text.contains(key), "{text}");
    let (kind, _) = table.only_difference(&["--from", "2031-01-01"]);
    assert_eq!(kind, Kind::FileMissing);

    table.put(key, good[..good.len() / 2].to_vec());
    assert_eq!(table.only_difference(&[]).0, Kind::FileDamaged);

    // Another file's bytes.
    table.put(key, table.get(other));
    let (report, code) = table.verify(&[]);
    assert_eq!(code, Some(3));
    let kinds = &report.found.by_kind;
    let is_named = [Kind::FileHash, Kind::FileDamaged].iter();
    assert!(
        is_named.clone().any(|kind| kinds.contains_key(kind)),
        "{report:#?}"
    );

    // One byte of the first page; it is no byte of the footer.
    let mut bytes = good.clone();
    bytes[30] ^= 0x40;
    table.put(key, bytes);
    let (report, code) = table.verify(&["--deep"]);
    assert_eq!(code, Some(3), "{report:#?}");
    table.put(key, good);
    table.is_whole();

    // The same rows by a second file, as if they had been appended.
    let twice = key.replace("/part.parquet", "x/part.parquet");
    table.put(&twice, table.get(key));
    table.sql(&format!(
        "INSERT INTO windrow_2.file SELECT database, \"table\", '{twice}', epoch, committed_at, \
         kind, date, chunk || 'x', level, rows, bytes, sha256, first_window, last_window \
         FROM windrow_2.file WHERE key = '{key}'"
    ));
    let (report, code) = table.verify(&[]);
    assert_eq!(code, Some(3));
    let kinds = &report.found.by_kind;
    assert!(kinds[&Kind::RowDoubled] > 3 && kinds.contains_key(&Kind::FileList));
    assert!(!kinds.contains_key(&Kind::RowMissing), "{report:#?}");
    table.sql(&format!("DELETE FROM windrow_2.file WHERE key = '{twice}'"));
    table.is_whole();
}

fn rows_of_hive_are_damaged(table: &Table) {
    let restore = || {
        let restored = table.setup.command(&["restore"]).output().unwrap();
        assert!(restored.status.success());
        table.is_whole();
    };
    let of_chunks = "\"TBL_ID\" = (SELECT \"TBL_ID\" FROM \"TBLS\" WHERE \"TBL_NAME\" = \
                     't__chunks')";
    let one = table.sql(&format!(
        "SELECT \"PART_ID\" FROM \"PARTITIONS\" WHERE {of_chunks} ORDER BY 1 LIMIT 1"
    ));
    // What `ALTER TABLE t__chunks DROP PARTITION` does.
    for child in ["PARTITION_PARAMS", "PARTITION_KEY_VALS", "PARTITIONS"] {
        table.sql(&format!(
            "DELETE FROM \"{child}\" WHERE \"PART_ID\" = {one}"
        ));
    }
    let (kind, text) = table.only_difference(&[]);
    assert_eq!(kind, Kind::Hive);
    assert!(
        text.contains("Hive does not have the table partition"),
        "{text}"
    );
    restore();
    table.sql("UPDATE \"TBLS\" SET \"VIEW_EXPANDED_TEXT\" = 'SELECT 1' WHERE \"TBL_NAME\" = 't'");
    let (kind, text) = table.only_difference(&[]);
    assert_eq!(kind, Kind::Hive);
    assert!(text.contains("its query"), "{text}");
    restore();
}

fn epochs_are_damaged(table: &Table) {
    let middle = table.sql("SELECT max(epoch) / 2 FROM windrow_2.epoch");
    let said = table.sql(&format!(
        "SELECT said FROM windrow_2.epoch WHERE epoch = {middle}"
    ));
    let write = |text: &str| {
        let text = text.replace('\'', "''");
        let sql = format!("UPDATE windrow_2.epoch SET said = '{text}' WHERE epoch = {middle}");
        parts(&["psql", &table.name, "-tA"], &sql);
    };
    // A number that no equation knows.
    let altered = said.replacen("\"newest\":17", "\"newest\":16", 1);
    assert_ne!(altered, said);
    write(&altered);
    let (kind, text) = table.only_difference(&[]);
    assert_eq!(kind, Kind::EpochAltered);
    assert!(text.starts_with(&format!("epoch {middle} ")), "{text}");
    write(&said);
    table.is_whole();

    let saved = "CREATE TABLE saved AS SELECT * FROM windrow_2.epoch WHERE epoch = ";
    table.sql(&format!("{saved}{middle}"));
    table.sql(&format!(
        "DELETE FROM windrow_2.epoch WHERE epoch = {middle}"
    ));
    let (report, code) = table.verify(&[]);
    assert_eq!(code, Some(3));
    assert!(
        report.found.by_kind.contains_key(&Kind::EpochChain),
        "{report:#?}"
    );
    table.sql("INSERT INTO windrow_2.epoch SELECT * FROM saved");
    table.is_whole();
}

/// As if all had been committed yesterday: the day becomes one file, and its epochs one row.
fn files_are_merged_and_epochs_fold(table: &Table, sent: u64) {
    let age = || {
        for journal in ["epoch", "file"] {
            table.sql(&format!(
                "UPDATE windrow_2.{journal} SET committed_at = committed_at - interval '1 day'"
            ));
        }
    };
    let next_day = START_MS + 24 * 3_600_000;
    let more: Vec<Value> = (0..3).map(|p| record(p, next_day, "b")).collect();
    produce(&table.name, &more);
    let mut windrow = table.setup.start();
    windrow.wait_for_all(sent + 3);
    windrow.stop();
    age();
    let mut windrow = table.setup.start();
    windrow.wait("a day file and history", SOON, |status| {
        status.files == 1 && table.sql("SELECT count(*) FROM windrow_2.history") == "1"
    });
    windrow.stop();
    let level = "SELECT string_agg(DISTINCT level, ' ') FROM windrow_2.file \
                 WHERE kind = 'rows' AND retired_at IS NULL";
    assert_eq!(table.sql(level), "day");
    let (report, code) = table.verify(&["--deep"]);
    assert_eq!((code, &report.found.findings), (Some(0), &vec![]));
    assert_eq!(report.checked.folded_days, 1);
    assert_eq!(report.recounted.expect("the log is there").after, None);
    // A later beginning is in the day manifest.
    let (report, code) = table.verify(&["--from", "2024-09-02"]);
    assert_eq!((code, report.found.findings), (Some(0), vec![]));
    let part = report.recounted.expect("the log is there");
    assert!(part.after_epoch > 0 && part.offsets < sent, "{part:?}");
}

fn history_is_damaged(table: &Table) {
    let key = table.sql("SELECT manifest FROM windrow_2.history");
    let good = table.get(&key);
    table.delete(&key);
    let (kind, text) = table.only_difference(&[]);
    assert_eq!(kind, Kind::Manifest);
    assert!(text.contains(&key), "{text}");
    table.put(&key, good);
    table.is_whole();

    let said = table.sql("SELECT said FROM windrow_2.history");
    let altered = said.replacen("\"rows\":", "\"rows\":1", 1);
    let write = |text: &str| {
        let sql = format!("UPDATE windrow_2.history SET said = '{text}'");
        parts(&["psql", &table.name, "-tA"], &sql);
    };
    write(&altered);
    assert_eq!(table.only_difference(&[]).0, Kind::HistoryAltered);
    write(&said);
    table.is_whole();
}
