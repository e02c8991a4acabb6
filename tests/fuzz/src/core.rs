//! The parsers of the core: record values, times, settings, secrets, what is read back from the
//! store and the catalog, HTTP requests, and the last line of a process.

use crate::text;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{LazyLock, Once};
use windrow_core::adopt::job::{JobFacts, plan, read_batch, read_begin};
use windrow_core::adopt::sink_log;
use windrow_core::count::checkpoint as checkpoints;
use windrow_core::count::extract::{Extraction, Extractor};
use windrow_core::count::lane::{Lane, LaneState};
use windrow_core::count::merger::{self, Lanes};
use windrow_core::settings::config::{Config, Secrets};
use windrow_core::settings::parse::{HostPort, parse_bytes, split_host_port};
use windrow_core::shown::access::{RequestFacts, admit};
use windrow_core::table::commit::{Commit, Genesis};
use windrow_core::table::file;
use windrow_core::table::place::{Names, Place, locate};
use windrow_core::values::cause::Trouble;
use windrow_core::values::digest::unhex;
use windrow_core::values::record::{Partition, Record, key_columns};
use windrow_core::values::shape::{OnBadRecord, Shape};
use windrow_core::values::time::{EventTime, format_duration_ms, parse_duration_ms, parse_rfc3339};

/// Settings with a time field, several columns and aggregates of each kind.
const BUSY: &str = "
kafka: { bootstrap: 'k:9092', topic: t }
table: { name: n, warehouse: 's3a://spark/w' }
catalog: postgresql://db/hive
group-by: 'origin, payload.kind'
aggregates: 'count, sum(n), min(price decimal(18,2)), max(n) as most, avg(payload.ms)'
timestamp-field: at
";

static BUSY_SHAPE: LazyLock<Shape> =
    LazyLock::new(|| Config::parse(BUSY).expect("they are right").shape);

/// The value of a record, which anybody may have sent.
///
/// Where `serde_json` reads the value, the key must be the one that it has, because nothing that is
/// JSON to it is anything else to Python's `json.loads`.
pub fn record_value(data: &[u8]) {
    let Some((first, value)) = data.split_first() else {
        return;
    };
    if first % 2 == 1 {
        let mut shape = BUSY_SHAPE.clone();
        if first % 4 == 1 {
            shape.on_bad_record = OnBadRecord::Null;
        }
        let _ = Extractor::new(&shape).extract(1000, value);
        return;
    }
    let shape = Shape::count_by_origin("t", 10_000, 5000);
    let mut extractor = Extractor::new(&shape);
    let found = extractor.extract(1000, value);
    let Ok(Value::Object(known)) = serde_json::from_slice::<Value>(value) else {
        return;
    };
    let key = match known.get("origin") {
        Some(Value::String(key)) => key.clone(),
        Some(Value::Bool(key)) => key.to_string(),
        Some(Value::Number(n)) if n.is_i64() => n.to_string(),
        _ => return,
    };
    let fits = key.len() as u64 <= shape.max_key_bytes;
    match found {
        Extraction::Counted(found) => {
            let columns = key_columns(found.key, 1);
            assert_eq!(columns, [Some(key.as_str().into())], "the key is another");
        }
        // Python's integers have no minus zero: what `-0` is, is not asked here.
        Extraction::Reject { reason, .. } => {
            assert!(!fits || key == "0", "a good record is a reject: {reason}");
        }
    }
}

/// A time, as a record's field has it.
pub fn time(data: &[u8]) {
    let Some(text) = text(data) else { return };
    if let Some(at) = parse_rfc3339(text) {
        assert_eq!(
            parse_rfc3339(&at.to_string()),
            Some(at),
            "it is read as written"
        );
    }
    if let Ok(ms) = parse_duration_ms(text) {
        let again = parse_duration_ms(&format_duration_ms(ms));
        assert_eq!(again, Ok(ms), "it is read as written");
    }
    // What cannot be read is an error with words.
    let _ = parse_bytes(text).map_err(|why| assert!(!why.is_empty()));
}

/// The settings file, and what stands in single settings.
pub fn settings(data: &[u8]) {
    let Some(text) = text(data) else { return };
    if let Ok(config) = Config::parse(text) {
        assert!(config.shape.slide_ms > 0 && config.shape.slide_ms <= config.shape.window_ms);
    }
    let _ = split_host_port(text);
    if let Some(address) = HostPort::parse(text, Some(9092)) {
        let again = HostPort::parse(&address.to_string(), None);
        assert_eq!(again, Some(address), "it is read as written");
    }
}

/// The secrets file. What is wrong with it is said without a value of it.
pub fn secrets(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let _ = Secrets::parse(text);
    // A password that is surely in no sentence of ours.
    let hidden = "zq9!vX7#kW";
    let with_password = format!("{text}\nkafka-password: \"{hidden}\"\n");
    if let Err(why) = Secrets::parse(&with_password) {
        assert!(!why.to_string().contains(hidden), "a secret is in an error");
    }
}

/// What a Spark job has left: a batch of its checkpoint, its log of files, and the names in there.
/// Where a batch can be read, a plan goes on behind what the job has read.
pub fn spark_job(data: &[u8]) {
    let _ = read_begin(data, "t");
    let _ = sink_log::files([("0", data)], "n");
    let names: Vec<String> =
        text(data).map_or_else(Vec::new, |text| text.lines().map(str::to_owned).collect());
    let needed = sink_log::needed(&names);
    let Ok(batch) = read_batch(data, "t") else {
        return;
    };
    let in_table = needed.map_or(0, |needed| needed.last_batch);
    let facts = JobFacts {
        in_table,
        begin: Some(batch.next_offsets.clone()),
        logs: batch
            .next_offsets
            .keys()
            .map(|p| (*p, (0, i64::MAX)))
            .collect(),
        batches: BTreeMap::from([(in_table, batch)]),
        committed: Some(in_table),
        delay_ms: 10_000,
    };
    let shape = Shape::count_by_origin("t", 10_000, 5000);
    if let Ok(plan) = plan(&facts, &shape) {
        let starts = plan.start_offsets.iter();
        assert!(
            starts
                .into_iter()
                .all(|(p, start)| *start <= plan.next_offsets[p])
        );
        assert!(plan.offsets_again() >= 0);
    }
}

/// A checkpoint. The bytes are what zstd has packed, because bytes at random are not zstd's.
///
/// What can be read is gone on from: the lanes count a record and close all windows, and what is
/// written of them is read as written.
pub fn checkpoint(data: &[u8]) {
    let packed = zstd::encode_all(data, 1).expect("memory to memory");
    for shape in [&Shape::count_by_origin("t", 10_000, 5000), &*BUSY_SHAPE] {
        let _ = checkpoints::decode(data, shape);
        if let Ok(states) = checkpoints::decode(&packed, shape) {
            go_on(states, shape);
        }
    }
}

fn go_on(states: BTreeMap<Partition, LaneState>, shape: &Shape) {
    let columns = shape.group_by.len();
    let restore = |states: BTreeMap<Partition, LaneState>| -> Lanes {
        let lanes = states.into_iter().map(|(partition, state)| {
            let goal = state.ledger;
            let mut lane = Lane::restore(partition, shape, state, goal, Vec::new());
            lane.begin_replay(lane.watermark(), lane.newest());
            (partition, lane)
        });
        lanes.collect()
    };
    let encode = |lanes: &Lanes| checkpoints::encode(lanes.iter().map(|(p, l)| (*p, l)), columns);
    let mut lanes = restore(states);
    let written = encode(&lanes);
    let again = checkpoints::decode(&written, shape).expect("what is written can be read");
    assert!(encode(&restore(again)) == written, "it is read as written");
    for lane in lanes.values_mut() {
        let record = Record {
            offset: lane.ledger.next_offset,
            timestamp_ms: 1_725_192_000_000,
            value: Some(br#"{"origin": "a"}"#),
        };
        lane.offer_ceiling(EventTime(1_725_195_600_000));
        lane.records(&&[record][..]);
        lane.ledger.check().expect("it adds up");
    }
    let written = encode(&lanes);
    let _ = checkpoints::decode(&written, shape).expect("what is written can be read");
    merger::close(&mut lanes, shape, EventTime(1_725_192_060_000), |_| {});
}

/// A manifest, and the names of objects in a listing of the store.
pub fn manifest(data: &[u8]) {
    if let Ok(commit) = serde_json::from_slice::<Commit>(data) {
        let text = serde_json::to_vec(&commit).expect("plain values");
        let again: Commit = serde_json::from_slice(&text).expect("what is written can be read");
        assert_eq!(again, commit);
        let mut sealed = commit;
        sealed.seal(&Names::new("default", "t"));
        assert!(sealed.objects().contains(&sealed.manifest));
    }
    if let Some(key) = text(data) {
        let _ = Names::epoch_of_manifest(key);
    }
}

/// What stands in a row of the catalog, as text.
pub fn ledger_row(data: &[u8]) {
    let Some(text) = text(data) else { return };
    if let Ok(genesis) = serde_json::from_str::<Genesis>(text) {
        let _ = genesis.shape.as_settings();
    }
    let _ = unhex(text);
    if let Ok(place) = text.parse::<Place>() {
        assert_eq!(
            place.to_string().parse(),
            Ok(place),
            "it is read as written"
        );
    }
    let (recorded, database) = text.split_once('\n').unwrap_or((text, ""));
    let _ = locate("spark", Some(recorded), Some(database));
    let _ = locate("spark", None, Some(database));
}

/// A Parquet file of the table's folder. The Parquet library may panic at a damaged one, as long as
/// that is caught: what is not caught ends this program, too.
pub fn table_file(data: &[u8]) {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| std::panic::set_hook(Box::new(|_| {})));
    if let Ok(listing) = file::read_rows(data, 20) {
        assert!(listing.rows.len() <= 20);
    }
}

/// A request over HTTP, as three lines: path, `Authorization`, `Host`.
pub fn http_request(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else {
        return;
    };
    let Some(rest) = text(rest) else { return };
    let mut lines = rest.split('\n');
    let mut line = || lines.next().filter(|line| !line.is_empty());
    let stranger = IpAddr::V4(Ipv4Addr::new(10, 1, 2, 3));
    let token = "a-long-token-of-ours";
    let request = RequestFacts {
        path: line().unwrap_or("/"),
        changes: first & 1 != 0,
        peer: stranger,
        local: Some(IpAddr::V4(Ipv4Addr::new(10, 1, 2, 4))),
        token: (first & 2 != 0).then_some(token),
        authorization: line(),
        host: line(),
        origin: line(),
        content_type: line(),
        forwarded: first & 4 != 0,
    };
    if admit(&request).is_ok() {
        let open = !request.changes && ["/healthz", "/readyz", "/metrics"].contains(&request.path);
        let brought = request.token.is_some()
            && request
                .authorization
                .is_some_and(|given| given.contains(token));
        assert!(open || brought, "a stranger without a token is let in");
    }
}

/// The last line of a process, as the charm finds it in the log.
pub fn last_line(data: &[u8]) {
    let Some(text) = text(data) else { return };
    if let Some(trouble) = Trouble::of_last_line(text) {
        let again = Trouble::of_last_line(&trouble.last_line());
        assert_eq!(again.map(|again| again.cause), Some(trouble.cause));
    }
}
