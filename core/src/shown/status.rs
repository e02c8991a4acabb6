//! What windrow is doing, as one value, and the JSON that programs read of it.
//! Nothing is asked here: the program fills in a [`Status`], and every reader gets the same one.

use crate::values::cause::{Cause, optional};
use crate::values::ledger::LaneLedger;
use crate::values::record::{Offset, Partition};
use crate::values::time::EventTime;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::fmt;

/// How many open windows one answer of `/v1/windows` has.
const WINDOWS_MAX: usize = 1000;
const NOT_A_TIME: &str = "not a time as RFC 3339 writes it";

/// All that is known of the table and of its topic partitions at one moment.
///
/// In JSON the keys are the names of the fields in kebab-case, and times are texts of RFC 3339, for
/// example `"last-commit": "2024-09-01T19:43:20.500Z"`. A key that is absent has its default value,
/// so that an older status can be read too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Status {
    /// `database.table`; empty in console mode.
    pub table: String,
    /// What windrow is doing.
    pub state: State,
    /// Why it is not counting, with the next step, for people; empty while it is counting.
    pub reason: String,
    /// What kind of reason that is, for programs; `None` while it is counting, and for a reason of
    /// no known kind. In JSON that is the empty text.
    #[serde(with = "optional")]
    pub cause: Option<Cause>,
    /// What a person should mend although windrow goes on without it, such as an optional secret
    /// that cannot be read; empty when there is nothing.
    pub problems: String,
    /// Rows of the committed table.
    pub rows: u64,
    /// Files of the committed table.
    pub files: u64,
    /// Bytes of the committed table's files.
    pub bytes: u64,
    /// Start of the oldest window of the committed table; `None` while it has no rows.
    #[serde(with = "rfc3339")]
    pub first_window: Option<EventTime>,
    /// Start of the newest window of the committed table; `None` while it has no rows.
    #[serde(with = "rfc3339")]
    pub last_window: Option<EventTime>,
    /// The frontier: the least watermark of all topic partitions. `None` before there is one.
    #[serde(with = "rfc3339")]
    pub watermark: Option<EventTime>,
    /// The topic partition for which the frontier waits; `None` before counting begins.
    pub frontier_holder: Option<Partition>,
    /// Why it waits for that one, as the end of a sentence.
    pub frontier_held_because: String,
    /// For how many milliseconds the frontier has stood still while records were read; 0 while none
    /// is read.
    pub frontier_age_ms: u64,
    /// Records that are not read yet, over all topic partitions. `None` until counting begins and
    /// all end offsets are known.
    pub lag: Option<u64>,
    /// The last committed epoch; `None` before the table exists, and while this process does not
    /// have it: then it knows nothing of the table, and the counts below are 0.
    pub epoch: Option<u64>,
    /// When that epoch was committed, by the database's clock.
    #[serde(with = "rfc3339")]
    pub last_commit: Option<EventTime>,
    /// Offsets that are accounted for: the sum of the six fields from `counted` to `lost`, and of
    /// `adopted`.
    pub consumed: u64,
    /// Records that were counted in their windows.
    pub counted: u64,
    /// Records that came after their windows had been closed.
    pub late: u64,
    /// Records that cannot be counted.
    pub rejected: u64,
    /// Records without a value.
    pub tombstones: u64,
    /// Offsets that hold no record, such as those of aborted transactions.
    pub gaps: u64,
    /// Offsets whose records were removed before they were read.
    pub lost: u64,
    /// Counts of windows that were still open when their records were removed: they were counted,
    /// but are in no row.
    pub lost_hits: u64,
    /// Records that are in the rows that were adopted from another job. It is left out where there
    /// are none.
    #[serde(skip_serializing_if = "is_zero")]
    pub adopted: u64,
    /// Rows that were ever committed, by the ledger. The table has fewer when retention has removed
    /// some, and more when it was adopted: rows of another job are not in the ledger.
    pub rows_committed: u64,
    /// Epochs that this process has committed.
    pub commits: u64,
    /// Commits of this process that failed and were tried again.
    pub commit_failures: u64,
    /// Merges of files that this process has made.
    pub compactions: u64,
    /// Merges of files by this process that failed. They are made again, or without the file that
    /// is damaged.
    pub compaction_failures: u64,
    /// Bytes that merges have read from the store, also those that failed.
    pub compaction_read_bytes: u64,
    /// Bytes that merges have written to the store, also those that failed.
    pub compaction_written_bytes: u64,
    /// What is merged now and what is due, for people; empty while nothing is.
    pub compaction: String,
    /// Merges that are due, the one that is under way included.
    pub compaction_due_merges: u64,
    /// Files that take part in these.
    pub compaction_due_files: u64,
    /// Files that are to be dropped, because they are kept no longer.
    pub compaction_due_drops: u64,
    /// For how many milliseconds something has been due without any file being replaced or dropped.
    pub compaction_behind_ms: u64,
    /// Files that are left alone, because they are gone or damaged or do not fit together.
    pub compaction_left_out_files: u64,
    /// The verification that is under way, or the last one of this process: its name, and how far
    /// it is or what it found. Empty, and absent in JSON, where none was started.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub verification: String,
    /// The Kafka topic.
    pub topic: String,
    /// Who holds the lease on the table, by its setting `instance`. As long as no other holder is
    /// known, this is the name of this process.
    pub owner: String,
    /// The program's version.
    pub version: String,
    /// The memory that counting takes, in bytes, roughly; with what the Kafka client may have
    /// fetched.
    pub memory_bytes: u64,
    /// The bound on it, which is the setting `max-memory`.
    pub memory_limit_bytes: u64,
    /// One entry for each topic partition, in order.
    pub lanes: Vec<LaneStatus>,
    /// The open windows, oldest first.
    pub windows: Vec<WindowStatus>,
}

/// What windrow is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It reads and commits.
    Counting,
    /// It waits for another program, which [`Status::reason`] names, and goes on by itself.
    #[default]
    Waiting,
    /// An operator has paused it; it goes on after `windrow resume`.
    Paused,
    /// It cannot go on until a person has acted.
    Failed,
    /// Another process owns the table; this one takes over when that one ends.
    Standby,
}

impl State {
    /// All states, for metrics.
    pub const ALL: [State; 5] = [
        State::Counting,
        State::Waiting,
        State::Paused,
        State::Failed,
        State::Standby,
    ];

    /// The word for it in JSON, in metrics and on the status page.
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

impl Status {
    /// The answer of `/v1/compact`: how far the merging of files is.
    #[must_use]
    pub fn compaction(&self) -> Value {
        json!({
            "table": self.table,
            "compaction": self.compaction,
            "compaction-due-merges": self.compaction_due_merges,
            "compaction-due-files": self.compaction_due_files,
            "compaction-due-drops": self.compaction_due_drops,
            "compaction-left-out-files": self.compaction_left_out_files,
        })
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One topic partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct LaneStatus {
    /// The number of the topic partition.
    pub partition: Partition,
    /// The next offset to read.
    pub next_offset: Offset,
    /// `None` until a broker has told it.
    pub end_offset: Option<Offset>,
    /// Records that are not read yet; `None` until the end offset is known.
    pub lag: Option<u64>,
    /// `None` before the first record with a time.
    #[serde(with = "rfc3339")]
    pub watermark: Option<EventTime>,
    /// It has had nothing to count for `idle-timeout`, so it does not hold the others back.
    pub idle: bool,
    /// This one is not read for now, because it waits for the topic partition with this number,
    /// which is behind. Either that is too far behind (`max-skew`), or memory is nearly full
    /// (`max-memory`).
    pub held_by: Option<Partition>,
    /// What became of its offsets.
    pub ledger: LaneLedger,
}

/// An open window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct WindowStatus {
    /// The first time that is in the window.
    #[serde(with = "rfc3339_always")]
    pub start: EventTime,
    /// The first time that is after the window.
    #[serde(with = "rfc3339_always")]
    pub end: EventTime,
    /// How many keys it has so far.
    pub keys: u64,
    /// Records that were counted in it so far.
    pub count: u64,
}

/// Rows of the table: the answer of `/v1/tables/<table>/rows`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Rows {
    /// `database.table`, with the suffix of the side table where the rows are from there.
    pub table: String,
    /// The names of the columns, in the table's order.
    pub columns: Vec<String>,
    /// A list of maps by column name; a window is `{"start": …, "end": …}`. It is kept as text,
    /// because decimals and sums are exact here, and a JSON library's numbers are not.
    pub rows: Box<RawValue>,
    /// How many rows these are.
    pub count: usize,
    /// The table has more rows than these.
    pub truncated: bool,
}

impl Status {
    /// Whether the process that says this knows nothing of its table, because it stands by, or
    /// waits for the table: the catalog knows more. A process in console mode has no table.
    #[must_use]
    pub fn knows_less_than_the_catalog(&self) -> bool {
        let waits = self.state == State::Waiting && self.epoch.is_none();
        !self.table.is_empty() && (self.state == State::Standby || waits)
    }

    /// The keys of the action `get-table-status`, without topic partitions and windows: the answer
    /// of `/v1/tables/<table>`.
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

    /// The answer of `/v1/tables`. The list is empty in console mode.
    #[must_use]
    pub fn tables(&self) -> Value {
        let tables = if self.table.is_empty() {
            Vec::new()
        } else {
            vec![self.summary()]
        };
        json!({"tables": tables, "count": tables.len(), "truncated": false})
    }

    /// The answer of `/v1/windows`: the oldest 1000 of the open windows.
    #[must_use]
    pub fn open_windows(&self) -> Value {
        let shown = &self.windows[..self.windows.len().min(WINDOWS_MAX)];
        let truncated = shown.len() < self.windows.len();
        json!({"table": self.table, "windows": shown, "count": shown.len(), "truncated": truncated})
    }
}

/// A time that may be absent, as text of RFC 3339 or `null`.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

mod rfc3339 {
    use super::NOT_A_TIME;
    use crate::values::time::{EventTime, parse_rfc3339};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(time: &Option<EventTime>, to: S) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => to.collect_str(time),
            None => to.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<EventTime>, D::Error> {
        let text: Option<String> = Option::deserialize(from)?;
        text.map(|t| parse_rfc3339(&t).ok_or_else(|| D::Error::custom(NOT_A_TIME)))
            .transpose()
    }
}

/// A time that is always there, as text of RFC 3339.
mod rfc3339_always {
    use super::NOT_A_TIME;
    use crate::values::time::{EventTime, parse_rfc3339};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(time: &EventTime, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(time)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<EventTime, D::Error> {
        let text = String::deserialize(from)?;
        parse_rfc3339(&text).ok_or_else(|| D::Error::custom(NOT_A_TIME))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shown::example::full;

    #[test]
    fn what_waits_for_its_table_knows_less_than_the_catalog() {
        let knows_less = |state, epoch| {
            let mut status = full();
            (status.state, status.epoch) = (state, epoch);
            status.knows_less_than_the_catalog()
        };
        assert!(knows_less(State::Standby, None));
        assert!(
            knows_less(State::Waiting, None),
            "after it gave the table back"
        );
        assert!(!knows_less(State::Waiting, Some(3)));
        assert!(!knows_less(State::Counting, Some(3)));
        assert!(
            !Status::default().knows_less_than_the_catalog(),
            "console mode"
        );
    }

    #[test]
    fn json_has_the_keys_of_the_contract_and_comes_back() {
        let status = full();
        let json = serde_json::to_value(&status).unwrap();
        let keys = "table state reason cause rows files bytes first-window last-window watermark \
            lag epoch last-commit consumed counted late rejected tombstones gaps lost lost-hits";
        for key in keys.split(' ') {
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
}
