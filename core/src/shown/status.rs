//! The snapshot of a running windrow → JSON, metrics text, tables for a terminal.
//! Nothing is asked here: the driver fills in a [`Status`], and every reader gets the same one.

use crate::values::cause::Cause;
use crate::values::ledger::LaneLedger;
use crate::values::record::{Offset, Partition};
use crate::values::time::EventTime;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;

/// What windrow is doing, and why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    Counting,
    /// For another program, which `reason` names; it goes on by itself.
    #[default]
    Waiting,
    /// By an operator, until `resume`.
    Paused,
    /// A person must act.
    Failed,
    /// Another process owns the table.
    Standby,
}

impl State {
    pub const ALL: [State; 5] = [
        State::Counting,
        State::Waiting,
        State::Paused,
        State::Failed,
        State::Standby,
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            State::Counting => "counting",
            State::Waiting => "waiting",
            State::Paused => "paused",
            State::Failed => "failed",
            State::Standby => "standby",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// All that is known of the table and its topic partitions at one moment. Times are RFC 3339 in JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Status {
    /// `database.table`; empty in console mode.
    pub table: String,
    pub state: State,
    /// Why it is not counting, with the next step; empty when it is.
    pub reason: String,
    /// What kind of reason it is, for programs.
    pub cause: Cause,
    /// Of the committed table.
    pub rows: u64,
    pub files: u64,
    pub bytes: u64,
    #[serde(with = "rfc3339")]
    pub first_window: Option<EventTime>,
    #[serde(with = "rfc3339")]
    pub last_window: Option<EventTime>,
    /// The least of all topic partitions'.
    #[serde(with = "rfc3339")]
    pub watermark: Option<EventTime>,
    /// Records not read yet, over all topic partitions; `None` until all end offsets are known.
    pub lag: Option<u64>,
    /// The last committed; `None` before the table exists.
    pub epoch: Option<u64>,
    /// By the database's clock.
    #[serde(with = "rfc3339")]
    pub last_commit: Option<EventTime>,
    pub consumed: u64,
    pub counted: u64,
    pub late: u64,
    pub rejected: u64,
    pub tombstones: u64,
    pub gaps: u64,
    pub lost: u64,
    /// Rows ever committed, as the ledger has them; with retention the table has fewer.
    pub rows_committed: u64,
    /// Commits of this process, and those that failed and were tried again.
    pub commits: u64,
    pub commit_failures: u64,
    pub topic: String,
    /// Who has the lease, by its setting `instance`; this process, while nobody else is known to.
    pub owner: String,
    pub version: String,
    pub lanes: Vec<LaneStatus>,
    /// Open windows, oldest first.
    pub windows: Vec<WindowStatus>,
}

/// One topic partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct LaneStatus {
    pub partition: Partition,
    pub next_offset: Offset,
    /// `None` until the broker told.
    pub end_offset: Option<Offset>,
    pub lag: Option<u64>,
    #[serde(with = "rfc3339")]
    pub watermark: Option<EventTime>,
    /// Nothing to read for `idle-timeout`: it does not hold the others back.
    pub idle: bool,
    /// The topic partition whose watermark is so far behind that this one's reading is paused.
    pub held_by: Option<Partition>,
    pub ledger: LaneLedger,
}

/// An open window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct WindowStatus {
    #[serde(with = "rfc3339_always")]
    pub start: EventTime,
    #[serde(with = "rfc3339_always")]
    pub end: EventTime,
    pub keys: u64,
    /// Records counted so far.
    pub count: u64,
}

/// Rows of the table, and how many there are: the answer of `/v1/tables/<t>/rows`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Rows {
    pub table: String,
    /// In the table's order.
    pub columns: Vec<String>,
    /// A list of maps by column name, a window as `{"start": …, "end": …}`. Kept as text, as its decimals and sums are
    /// exact and a JSON library's numbers are not.
    pub rows: Box<RawValue>,
    pub count: usize,
    /// There are more than were asked for.
    pub truncated: bool,
}

/// What `/proc` says of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessUse {
    pub resident_bytes: u64,
    pub cpu_seconds: f64,
}

impl Status {
    /// The keys of `get-table-status`, without topic partitions and windows: what `/v1/tables/<t>` answers.
    ///
    /// # Panics
    /// Never: a status is a map of plain values.
    #[must_use]
    pub fn summary(&self) -> Value {
        let mut value = serde_json::to_value(self).expect("a status is plain values");
        let map = value.as_object_mut().expect("a status is a map");
        map.remove("lanes");
        map.remove("windows");
        value
    }

    /// The answer of `/v1/tables`: in console mode there is none.
    #[must_use]
    pub fn tables(&self) -> Value {
        let tables = if self.table.is_empty() {
            Vec::new()
        } else {
            vec![self.summary()]
        };
        json!({"tables": tables, "count": tables.len(), "truncated": false})
    }

    /// The answer of `/v1/windows`: the oldest [`WINDOWS_MAX`].
    #[must_use]
    pub fn open_windows(&self) -> Value {
        let shown = &self.windows[..self.windows.len().min(WINDOWS_MAX)];
        let truncated = shown.len() < self.windows.len();
        json!({"table": self.table, "windows": shown, "count": shown.len(), "truncated": truncated})
    }
}

/// Open windows in one answer.
const WINDOWS_MAX: usize = 1000;

/// The metrics in OpenMetrics text; its content type is [`METRICS_CONTENT_TYPE`].
///
/// # Panics
/// Never: writing to a string cannot fail.
#[must_use]
pub fn metrics(status: &Status, process: ProcessUse) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Metrics {
        status: status.clone(),
        process,
    }));
    let mut out = String::new();
    text::encode(&mut out, &registry).expect("a string takes all text");
    out
}

pub const METRICS_CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Debug)]
struct Metrics {
    status: Status,
    process: ProcessUse,
}

impl Collector for Metrics {
    fn encode(&self, mut out: DescriptorEncoder) -> fmt::Result {
        let s = &self.status;
        let outcomes = [
            ("counted", s.counted),
            ("late", s.late),
            ("rejected", s.rejected),
            ("tombstone", s.tombstones),
            ("gap", s.gaps),
            ("lost", s.lost),
        ];
        let mut family = out.encode_descriptor(
            "windrow_records",
            "Offsets by what became of them",
            None,
            MetricType::Counter,
        )?;
        for (outcome, n) in outcomes {
            ConstCounter::new(n).encode(family.encode_family(&[("outcome", outcome)])?)?;
        }
        counter(
            &mut out,
            "windrow_rows",
            "Rows ever committed",
            s.rows_committed,
        )?;
        counter(
            &mut out,
            "windrow_commits",
            "Commits of this process",
            s.commits,
        )?;
        counter(
            &mut out,
            "windrow_commit_failures",
            "Commits of this process that failed and were tried again",
            s.commit_failures,
        )?;
        gauge(
            &mut out,
            "windrow_table_rows",
            "Rows of the committed table",
            s.rows,
        )?;
        gauge(
            &mut out,
            "windrow_table_files",
            "Files of the committed table",
            s.files,
        )?;
        gauge(
            &mut out,
            "windrow_table_bytes",
            "Bytes of the committed table's files",
            s.bytes,
        )?;
        if let Some(epoch) = s.epoch {
            gauge(&mut out, "windrow_epoch", "The last committed epoch", epoch)?;
        }
        for (name, help, time) in [
            (
                "windrow_watermark_seconds",
                "The table's watermark, in seconds since 1970 UTC",
                s.watermark,
            ),
            (
                "windrow_last_commit_seconds",
                "When the last epoch was committed, in seconds since 1970 UTC",
                s.last_commit,
            ),
        ] {
            if let Some(time) = time {
                let family = out.encode_descriptor(name, help, None, MetricType::Gauge)?;
                ConstGauge::new(seconds(time)).encode(family)?;
            }
        }
        let mut family = out.encode_descriptor(
            "windrow_lag_records",
            "Records not read yet",
            None,
            MetricType::Gauge,
        )?;
        for lane in &s.lanes {
            if let Some(lag) = lane.lag {
                ConstGauge::new(lag)
                    .encode(family.encode_family(&[("partition", lane.partition.to_string())])?)?;
            }
        }
        let open = u64::try_from(s.windows.len()).expect("a length");
        gauge(
            &mut out,
            "windrow_open_windows",
            "Windows that are not closed yet",
            open,
        )?;
        let mut family = out.encode_descriptor(
            "windrow_state",
            "1 for the state it is in",
            None,
            MetricType::Gauge,
        )?;
        for state in State::ALL {
            let on = u64::from(state == s.state);
            ConstGauge::new(on).encode(family.encode_family(&[("state", state.name())])?)?;
        }
        gauge(
            &mut out,
            "windrow_up",
            "1 when it is counting",
            u64::from(s.state == State::Counting),
        )?;
        let mut family = out.encode_descriptor(
            "windrow_build_info",
            "Which program this is",
            None,
            MetricType::Gauge,
        )?;
        ConstGauge::new(1_u64).encode(family.encode_family(&[("version", s.version.as_str())])?)?;
        gauge(
            &mut out,
            "process_resident_memory_bytes",
            "Resident memory",
            self.process.resident_bytes,
        )?;
        let family = out.encode_descriptor(
            "process_cpu_seconds",
            "CPU time, user and system",
            None,
            MetricType::Counter,
        )?;
        ConstCounter::new(self.process.cpu_seconds).encode(family)
    }
}

/// The encoder adds `_total` to the name.
fn counter(out: &mut DescriptorEncoder, name: &str, help: &str, n: u64) -> fmt::Result {
    ConstCounter::new(n).encode(out.encode_descriptor(name, help, None, MetricType::Counter)?)
}

fn gauge(out: &mut DescriptorEncoder, name: &str, help: &str, n: u64) -> fmt::Result {
    ConstGauge::new(n).encode(out.encode_descriptor(name, help, None, MetricType::Gauge)?)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a gauge is a double; to the year 287000 it is exact to the millisecond"
)]
fn seconds(time: EventTime) -> f64 {
    time.0 as f64 / 1000.0
}

/// The status as a terminal shows it: the keys of `get-table-status`, then the topic partitions.
#[must_use]
pub fn status_table(status: &Value) -> String {
    const KEYS: [&str; 25] = [
        "table",
        "state",
        "reason",
        "cause",
        "rows",
        "files",
        "bytes",
        "first-window",
        "last-window",
        "watermark",
        "lag",
        "epoch",
        "last-commit",
        "consumed",
        "counted",
        "late",
        "rejected",
        "tombstones",
        "gaps",
        "lost",
        "commits",
        "commit-failures",
        "topic",
        "owner",
        "version",
    ];
    let rows: Vec<_> = KEYS
        .iter()
        .filter_map(|key| {
            status
                .get(key)
                .map(|value| vec![(*key).to_owned(), cell(value)])
        })
        .collect();
    let mut out = print_table(&["key", "value"], &rows);
    if let Some(lanes) = status["lanes"].as_array().filter(|lanes| !lanes.is_empty()) {
        let columns = [
            "partition",
            "next-offset",
            "end-offset",
            "lag",
            "watermark",
            "idle",
            "held-by",
        ];
        out += &maps_table(&columns, lanes.iter());
    }
    out
}

/// The answer of `/v1/tables`.
#[must_use]
pub fn tables_table(tables: &Value) -> String {
    let columns = [
        "table",
        "state",
        "rows",
        "files",
        "bytes",
        "first-window",
        "last-window",
    ];
    maps_table(&columns, tables["tables"].as_array().into_iter().flatten())
}

/// The answer of `/v1/windows`.
#[must_use]
pub fn windows_table(windows: &Value) -> String {
    maps_table(
        &["start", "end", "keys", "count"],
        windows["windows"].as_array().into_iter().flatten(),
    )
}

/// Rows as beeline prints a query's.
///
/// # Errors
/// They are not a list of maps.
pub fn rows_table(rows: &Rows) -> Result<String, serde_json::Error> {
    let maps: Vec<BTreeMap<&str, &RawValue>> = serde_json::from_str(rows.rows.get())?;
    let line = |map: &BTreeMap<&str, &RawValue>| {
        let raw = |column: &String| map.get(column.as_str()).map_or("null", |raw| raw.get());
        rows.columns
            .iter()
            .map(|column| raw_cell(raw(column)))
            .collect()
    };
    Ok(print_table(
        &rows.columns,
        &maps.iter().map(line).collect::<Vec<Vec<String>>>(),
    ))
}

/// A number is shown as it is written, with all its digits.
fn raw_cell(raw: &str) -> String {
    if raw.starts_with(|c: char| c == '-' || c.is_ascii_digit()) {
        return raw.to_owned();
    }
    serde_json::from_str(raw).map_or_else(|_| raw.to_owned(), |value| cell(&value))
}

fn maps_table<'a>(columns: &[&str], maps: impl Iterator<Item = &'a Value>) -> String {
    let rows: Vec<Vec<String>> = maps
        .map(|map| columns.iter().map(|column| cell(&map[*column])).collect())
        .collect();
    print_table(columns, &rows)
}

/// A value as beeline prints it: a window as `{"start":2024-09-01 19:42:15,"end":2024-09-01 19:42:25}`.
#[must_use]
pub fn cell(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::String(text) => text.clone(),
        Value::Object(map)
            if map.len() == 2 && map.contains_key("start") && map.contains_key("end") =>
        {
            let time = |key: &str| map[key].as_str().map(sql_time).unwrap_or_default();
            format!("{{\"start\":{},\"end\":{}}}", time("start"), time("end"))
        }
        other => other.to_string(),
    }
}

/// `2024-09-01T19:42:15.500Z` as SQL prints it: `2024-09-01 19:42:15.5`.
#[must_use]
pub fn sql_time(rfc3339: &str) -> String {
    let text = rfc3339.trim_end_matches('Z').replacen('T', " ", 1);
    if text.contains('.') {
        text.trim_end_matches('0').to_owned()
    } else {
        text
    }
}

/// A box of `+---+` lines as beeline draws it: headers in the middle, cells to the left. Control characters are
/// written out, as a record's text must not steer the terminal.
#[must_use]
pub fn print_table<S: AsRef<str>>(columns: &[S], rows: &[Vec<String>]) -> String {
    let columns: Vec<String> = columns.iter().map(|c| printable(c.as_ref())).collect();
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| row.iter().map(|c| printable(c)).collect())
        .collect();
    let length = |text: &String| text.chars().count();
    let widths: Vec<usize> = (0..columns.len())
        .map(|i| {
            rows.iter()
                .filter_map(|r| r.get(i))
                .chain([&columns[i]])
                .map(length)
                .max()
                .unwrap_or(0)
                + 1
        })
        .collect();
    let line: String = widths
        .iter()
        .map(|w| format!("+{}", "-".repeat(w + 2)))
        .collect::<String>()
        + "+\n";
    let mut out = line.clone();
    for (column, w) in columns.iter().zip(&widths) {
        out += &format!("| {column:^w$} ");
    }
    out += "|\n";
    out += &line;
    for row in &rows {
        for (text, w) in row.iter().zip(&widths) {
            out += &format!("| {text:<w$} ");
        }
        out += "|\n";
    }
    if !rows.is_empty() {
        out += &line;
    }
    out
}

/// The text with control characters written out.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        // Marks that turn the direction of writing hide as well as control characters do.
        if c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// Reads what [`EventTime`]'s `Display` writes: years of four digits, UTC.
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<EventTime> {
    use ::time::{OffsetDateTime, format_description::well_known::Rfc3339};
    let ns = OffsetDateTime::parse(text, &Rfc3339)
        .ok()?
        .unix_timestamp_nanos();
    i64::try_from(ns.div_euclid(1_000_000)).ok().map(EventTime)
}

mod rfc3339 {
    use crate::values::time::EventTime;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(time: &Option<EventTime>, to: S) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => to.collect_str(time),
            None => to.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<EventTime>, D::Error> {
        let text: Option<String> = Option::deserialize(from)?;
        text.map(|t| {
            super::parse_rfc3339(&t).ok_or_else(|| D::Error::custom("not a time of RFC 3339"))
        })
        .transpose()
    }
}

mod rfc3339_always {
    use crate::values::time::EventTime;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(time: &EventTime, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(time)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<EventTime, D::Error> {
        let text = String::deserialize(from)?;
        super::parse_rfc3339(&text).ok_or_else(|| D::Error::custom("not a time of RFC 3339"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shown::example::{full, rows};
    use serde_json::json;

    #[test]
    fn json_has_the_keys_of_the_contract_and_comes_back() {
        let status = full();
        let json = serde_json::to_value(&status).unwrap();
        for key in "table state reason cause rows files bytes first-window last-window watermark lag epoch last-commit consumed counted late rejected tombstones gaps lost".split(' ') {
            assert!(json.get(key).is_some(), "{key}");
        }
        assert_eq!(json["first-window"], "2024-09-01T19:42:15Z");
        assert_eq!(json["last-commit"], "2024-09-01T19:43:20.500Z");
        assert_eq!(json["state"], "counting");
        assert_eq!(json["lanes"][0]["held-by"], 2);
        assert_eq!(json["lanes"][0]["ledger"]["late-hits"], 0);
        assert_eq!(serde_json::from_value::<Status>(json).unwrap(), status);
        assert_eq!(
            serde_json::from_str::<Status>("{}").unwrap(),
            Status::default()
        );
        assert!(status.summary().get("lanes").is_none());
    }

    #[test]
    fn metrics_are_named_by_noun_and_unit() {
        let text = metrics(
            &full(),
            ProcessUse {
                resident_bytes: 4096,
                cpu_seconds: 1.5,
            },
        );
        for line in [
            "windrow_records_total{outcome=\"counted\"} 170",
            "windrow_records_total{outcome=\"tombstone\"} 2",
            "windrow_rows_total 10",
            "windrow_commits_total 4",
            "windrow_commit_failures_total 0",
            "windrow_lag_records{partition=\"7\"} 5",
            "windrow_watermark_seconds 1725219805.0",
            "windrow_epoch 3",
            "windrow_up 1",
            "windrow_state{state=\"counting\"} 1",
            "windrow_state{state=\"failed\"} 0",
            "process_resident_memory_bytes 4096",
            "process_cpu_seconds_total 1.5",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
        assert!(!metrics(&Status::default(), ProcessUse::default()).contains("windrow_epoch"));
    }

    #[test]
    fn rows_print_as_beeline_prints_them() {
        let row = |start: &str, end: &str, count: u64| json!({"window": {"start": start, "end": end}, "origin": "producer-0 (10.1.63.230)", "count": count});
        let rows = rows(
            &["window", "origin", "count"],
            &json!([
                row("2024-09-01T19:42:15Z", "2024-09-01T19:42:25Z", 4),
                row("2024-09-01T19:42:30.500Z", "2024-09-01T19:42:40.500Z", 20),
            ])
            .to_string(),
        );
        let expect = r#"
+--------------------------------------------------------------+---------------------------+--------+
|                            window                            |          origin           | count  |
+--------------------------------------------------------------+---------------------------+--------+
| {"start":2024-09-01 19:42:15,"end":2024-09-01 19:42:25}      | producer-0 (10.1.63.230)  | 4      |
| {"start":2024-09-01 19:42:30.5,"end":2024-09-01 19:42:40.5}  | producer-0 (10.1.63.230)  | 20     |
+--------------------------------------------------------------+---------------------------+--------+
"#;
        assert_eq!(rows_table(&rows).unwrap(), expect.trim_start());
    }

    #[test]
    fn numbers_keep_all_their_digits() {
        let out = rows_table(&rows(
            &["a", "b", "c"],
            r#"[{"a":0.10,"b":-85070591730234615865843651857942052863}]"#,
        ))
        .unwrap();
        assert!(
            out.contains("| 0.10  | -85070591730234615865843651857942052863  | NULL  |"),
            "{out}"
        );
    }

    #[test]
    fn empty_answers_print_their_headers() {
        assert_eq!(windows_table(&json!({"windows": []})).lines().count(), 3);
        assert_eq!(tables_table(&json!({})).lines().count(), 3);
        assert!(status_table(&full().summary()).contains("| watermark "));
    }

    #[test]
    fn a_records_text_does_not_steer_the_terminal() {
        let out = print_table(&["a"], &[vec!["\x1b[2J\nx\u{202e}".to_owned()]]);
        assert!(!out.contains('\x1b') && !out.contains('\u{202e}'));
        assert_eq!(out.lines().count(), 5);
    }

    #[test]
    fn times_come_back() {
        for ms in [0, -1, 1_725_219_735_123, 253_402_300_799_999] {
            assert_eq!(
                parse_rfc3339(&EventTime(ms).to_string()),
                Some(EventTime(ms))
            );
        }
        assert_eq!(parse_rfc3339("yesterday"), None);
    }
}
