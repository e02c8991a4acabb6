//! Spark reads what windrow wrote, and judges it.

use crate::harness::{Setup, Spark, hive_db, produce, record, topic, unique};
use serde_json::json;

#[test]
#[ignore = "needs the real parts: make test"]
fn a_first_look() {
    let name = unique("look");
    topic(&name, 2);
    hive_db(&name, "script");
    let records: Vec<_> =
        (0..60).map(|i| record(i % 2, 1_725_184_800_000 + i64::from(i) * 1000, "a")).collect();
    produce(&name, &records);
    let setup = Setup::new(&name, &name, "newtable", json!({"idle-timeout": "1s"}));
    let mut windrow = setup.start();
    windrow.wait_for_all(60);
    let used = windrow.stop();
    println!("{used:?}");
    let mut spark = Spark::open(&name);
    println!("{:#?}", spark.sql("SELECT * FROM newtable"));
}
