//! A [`Status`] as metrics, in the text that Prometheus reads.
//!
//! Names are `windrow_<noun>_<unit>`, and the encoder adds `_total` to those of counters. Labels
//! come from closed sets, except `partition`, which has one value for each topic partition.

use crate::shown::status::{State, Status};
use crate::values::time::EventTime;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use std::fmt;
use std::time::Duration;

/// The content type of [`metrics`] over HTTP.
pub const METRICS_CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What `/proc` says of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessUse {
    /// Memory that is in use and not swapped out.
    pub resident_bytes: u64,
    /// CPU time since the start, user and system together.
    pub cpu_seconds: f64,
}

/// The metrics as `OpenMetrics` text.
///
/// # Panics
/// Never: writing to a string cannot fail.
#[must_use]
pub fn metrics(status: &Status, process: ProcessUse) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Snapshot {
        status: status.clone(),
        process,
    }));
    let mut out = String::new();
    text::encode(&mut out, &registry).expect("a string takes all text");
    out
}

#[derive(Debug)]
struct Snapshot {
    status: Status,
    process: ProcessUse,
}

impl Collector for Snapshot {
    fn encode(&self, mut out: DescriptorEncoder) -> fmt::Result {
        write_counts(&mut out, &self.status)?;
        write_table(&mut out, &self.status)?;
        write_lag(&mut out, &self.status)?;
        write_state(&mut out, &self.status)?;
        write_process(&mut out, &self.status.version, self.process)
    }
}

/// Whether the process knows what became of offsets: it has the table, or had it.
fn is_table_known(status: &Status) -> bool {
    status.epoch.is_some() || !status.lanes.is_empty()
}

/// What became of the offsets, and of the commits. What is not known is left out: a 0 would look as
/// if the counters began anew.
fn write_counts(out: &mut DescriptorEncoder, status: &Status) -> fmt::Result {
    if is_table_known(status) {
        write_outcomes(out, status)?;
    }
    let commits = [
        ("windrow_commits", "Commits of this process", status.commits),
        (
            "windrow_commit_failures",
            "Commits of this process that failed and were tried again",
            status.commit_failures,
        ),
        (
            "windrow_compactions",
            "Merges of files by this process",
            status.compactions,
        ),
        (
            "windrow_compaction_failures",
            "Merges of files by this process that failed",
            status.compaction_failures,
        ),
    ];
    write_counters(out, &commits)?;
    let help = "Bytes that merges of files by this process have moved";
    let kind = MetricType::Counter;
    let mut family = begin(out, "windrow_compaction_bytes", help, kind)?;
    for (direction, n) in [
        ("read", status.compaction_read_bytes),
        ("written", status.compaction_written_bytes),
    ] {
        ConstCounter::new(n).encode(family.encode_family(&[("direction", direction)])?)?;
    }
    Ok(())
}

/// Counters without labels: the name of each, what it counts, and how far it is.
fn write_counters(out: &mut DescriptorEncoder, counters: &[(&str, &str, u64)]) -> fmt::Result {
    for (name, help, n) in counters {
        ConstCounter::new(*n).encode(begin(out, name, help, MetricType::Counter)?)?;
    }
    Ok(())
}

/// What became of the offsets, and the rows of that.
fn write_outcomes(out: &mut DescriptorEncoder, status: &Status) -> fmt::Result {
    let outcomes = [
        ("counted", status.counted),
        ("late", status.late),
        ("rejected", status.rejected),
        ("tombstone", status.tombstones),
        ("gap", status.gaps),
        ("lost", status.lost),
    ];
    let mut family = begin(
        out,
        "windrow_records",
        "Offsets by what became of them",
        MetricType::Counter,
    )?;
    let adopted = Some(("adopted", status.adopted)).filter(|(_, n)| *n > 0);
    for (outcome, n) in outcomes.into_iter().chain(adopted) {
        ConstCounter::new(n).encode(family.encode_family(&[("outcome", outcome)])?)?;
    }
    let rows = [
        ("windrow_rows", "Rows ever committed", status.rows_committed),
        (
            "windrow_lost_hits",
            "Counts that are in no row, because the records of open windows were removed",
            status.lost_hits,
        ),
    ];
    write_counters(out, &rows)
}

/// What is committed. What is not known yet is left out.
fn write_table(out: &mut DescriptorEncoder, status: &Status) -> fmt::Result {
    for (name, help, n) in [
        (
            "windrow_table_rows",
            "Rows of the committed table",
            status.rows,
        ),
        (
            "windrow_table_files",
            "Files of the committed table",
            status.files,
        ),
        (
            "windrow_table_bytes",
            "Bytes of the committed table's files",
            status.bytes,
        ),
    ] {
        write_gauge(out, name, help, n)?;
    }
    if let Some(epoch) = status.epoch {
        write_gauge(out, "windrow_epoch", "The last committed epoch", epoch)?;
    }
    write_frontier(out, status)?;
    write_upkeep(out, status)?;
    for (name, help, time) in [
        (
            "windrow_watermark_seconds",
            "The table's watermark, in seconds since 1970 UTC",
            status.watermark,
        ),
        (
            "windrow_last_commit_seconds",
            "When the last epoch was committed, in seconds since 1970 UTC",
            status.last_commit,
        ),
    ] {
        if let Some(time) = time {
            ConstGauge::new(seconds(time)).encode(begin(out, name, help, MetricType::Gauge)?)?;
        }
    }
    Ok(())
}

/// What is to be merged and dropped, and whether that goes on.
fn write_upkeep(out: &mut DescriptorEncoder, status: &Status) -> fmt::Result {
    for (name, help, n) in [
        (
            "windrow_compaction_due_files",
            "Files that are to be merged now",
            status.compaction_due_files,
        ),
        (
            "windrow_compaction_left_out_files",
            "Files that cannot be merged, because they are gone or damaged",
            status.compaction_left_out_files,
        ),
    ] {
        write_gauge(out, name, help, n)?;
    }
    let help = "How long something has been due without any file being replaced or dropped";
    let name = "windrow_compaction_behind_seconds";
    let behind = begin(out, name, help, MetricType::Gauge)?;
    ConstGauge::new(Duration::from_millis(status.compaction_behind_ms).as_secs_f64()).encode(behind)
}

/// How long the frontier has stood still, and for whom it waits.
fn write_frontier(out: &mut DescriptorEncoder, status: &Status) -> fmt::Result {
    let help = "How long no window has closed although records are read";
    let age = begin(out, "windrow_frontier_age_seconds", help, MetricType::Gauge)?;
    ConstGauge::new(Duration::from_millis(status.frontier_age_ms).as_secs_f64()).encode(age)?;
    if let Some(partition) = status.frontier_holder {
        let help = "1 for the topic partition that the windows of the others wait for";
        let mut family = begin(out, "windrow_frontier_holder", help, MetricType::Gauge)?;
        let label = [("partition", partition.to_string())];
        ConstGauge::new(1_u64).encode(family.encode_family(&label)?)?;
    }
    Ok(())
}

/// What is not committed yet: records to read by topic partition, and open windows.
fn write_lag(out: &mut DescriptorEncoder, status: &Status) -> fmt::Result {
    let mut family = begin(
        out,
        "windrow_lag_records",
        "Records not read yet",
        MetricType::Gauge,
    )?;
    for lane in &status.lanes {
        if let Some(lag) = lane.lag {
            let label = [("partition", lane.partition.to_string())];
            ConstGauge::new(lag).encode(family.encode_family(&label)?)?;
        }
    }
    if !status.lanes.is_empty() {
        let open = u64::try_from(status.windows.len()).expect("a length");
        let help = "Windows that are not closed yet";
        write_gauge(out, "windrow_open_windows", help, open)?;
    }
    write_gauge(
        out,
        "windrow_memory_bytes",
        "Memory that counting takes, roughly",
        status.memory_bytes,
    )?;
    write_gauge(
        out,
        "windrow_memory_limit_bytes",
        "The bound on that memory",
        status.memory_limit_bytes,
    )
}

fn write_state(out: &mut DescriptorEncoder, status: &Status) -> fmt::Result {
    let mut family = begin(
        out,
        "windrow_state",
        "1 for the state it is in",
        MetricType::Gauge,
    )?;
    for state in State::ALL {
        let on = u64::from(state == status.state);
        ConstGauge::new(on).encode(family.encode_family(&[("state", state.name())])?)?;
    }
    let counting = u64::from(status.state == State::Counting);
    write_gauge(out, "windrow_up", "1 when it is counting", counting)
}

fn write_process(out: &mut DescriptorEncoder, version: &str, process: ProcessUse) -> fmt::Result {
    let mut family = begin(
        out,
        "windrow_build_info",
        "Which program this is",
        MetricType::Gauge,
    )?;
    ConstGauge::new(1_u64).encode(family.encode_family(&[("version", version)])?)?;
    write_gauge(
        out,
        "process_resident_memory_bytes",
        "Resident memory",
        process.resident_bytes,
    )?;
    let family = begin(
        out,
        "process_cpu_seconds",
        "CPU time, user and system",
        MetricType::Counter,
    )?;
    ConstCounter::new(process.cpu_seconds).encode(family)
}

/// Begins a metric: its name, help and type. Its values follow.
fn begin<'a>(
    out: &'a mut DescriptorEncoder,
    name: &'a str,
    help: &str,
    kind: MetricType,
) -> Result<MetricEncoder<'a>, fmt::Error> {
    out.encode_descriptor(name, help, None, kind)
}

fn write_gauge(out: &mut DescriptorEncoder, name: &str, help: &str, n: u64) -> fmt::Result {
    ConstGauge::new(n).encode(begin(out, name, help, MetricType::Gauge)?)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a gauge is a double; it is exact to the millisecond until the year 287000"
)]
fn seconds(time: EventTime) -> f64 {
    time.0 as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shown::example::full;

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
            "windrow_compactions_total 6",
            "windrow_compaction_failures_total 0",
            "windrow_compaction_bytes_total{direction=\"read\"} 5000",
            "windrow_compaction_bytes_total{direction=\"written\"} 4000",
            "windrow_compaction_due_files 64",
            "windrow_compaction_left_out_files 1",
            "windrow_compaction_behind_seconds 2.5",
            "windrow_lag_records{partition=\"7\"} 5",
            "windrow_watermark_seconds 1725219805.0",
            "windrow_frontier_age_seconds 1.5",
            "windrow_frontier_holder{partition=\"7\"} 1",
            "windrow_epoch 3",
            "windrow_memory_bytes 3145728",
            "windrow_memory_limit_bytes 536870912",
            "windrow_up 1",
            "windrow_state{state=\"counting\"} 1",
            "windrow_state{state=\"failed\"} 0",
            "process_resident_memory_bytes 4096",
            "process_cpu_seconds_total 1.5",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn what_is_not_known_is_no_zero() {
        let text = metrics(&Status::default(), ProcessUse::default());
        for name in [
            "windrow_epoch",
            "windrow_records_total",
            "windrow_rows_total",
            "windrow_lost_hits_total",
            "windrow_lag_records{",
            "windrow_open_windows",
        ] {
            assert!(!text.contains(name), "{name}\n{text}");
        }
        assert!(text.contains("windrow_commits_total 0"));
    }
}
