//! The settings that the engine obeys, as values.

use crate::table::commit::Genesis;
use crate::table::compaction::Times;
use crate::table::file::Timestamps;
use crate::table::place::{Place, TablePlace};
use crate::values::cause::{Cause, Trouble};
use crate::values::shape::Shape;

/// What does not change while the engine lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The settings that shape rows.
    pub shape: Shape,
    /// The Hive database.
    pub database: String,
    /// The table's name, without the database.
    pub table: String,
    /// Where the table lies, as far as the settings say it.
    pub place: TablePlace,
    /// How timestamps are written to files.
    pub timestamps: Timestamps,
    /// Whether a table without epochs begins at the log's end instead of its start.
    pub start_at_end: bool,
    /// How far the watermark trails the newest event time.
    pub delay_ms: i64,
    /// How long a topic partition has nothing to read before it stands aside.
    pub idle_timeout_ms: u64,
    /// How long the whole topic is silent before open windows close; `None` is never.
    pub quiet_timeout_ms: Option<u64>,
    /// How long the frontier may stand still, while records are read, before the state says so.
    pub stalled_after_ms: u64,
    /// How far a watermark may be ahead of the least one before its topic partition is held back.
    pub max_skew_ms: i64,
    /// How much memory the table's counts may take, with what the Kafka client has fetched.
    pub max_memory_bytes: u64,
    /// How far past the database's clock an event time may lie.
    pub max_future_ms: i64,
    /// At most this long between a closed window and its commit.
    pub commit_interval_ms: u64,
    /// Whether records that are no longer in the log are a recorded decision instead of a reason to
    /// stop.
    pub continue_on_data_loss: bool,
    /// How long the table stays ours without a renewal.
    pub lease_ms: u64,
    /// How long a replaced or orphaned object is kept before it is deleted.
    pub keep_replaced_ms: u64,
    /// How often garbage is looked for and deleted.
    pub garbage: GarbageRules,
    /// When files are merged.
    pub compaction: Times,
    /// How long after the end of its last window a day is kept; `None` is for ever.
    pub retain_ms: Option<u64>,
    /// How long late records and rejects are kept; `None` is for ever.
    pub retain_side_ms: Option<u64>,
    /// The limits that no setting names.
    pub limits: Limits,
}

/// Limits that no setting names, with their usual values as the default. They are fields, and not
/// constants of the code that obeys them, so that the small logs of a simulation reach them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// With at most this many keys in open windows a checkpoint goes with each commit; with more it
    /// goes by the distance of a replay.
    pub checkpoint_keys_small: u64,
    /// A checkpoint is at most this old when a restart has to replay from it.
    pub checkpoint_every_ms: u64,
    /// A restart has to replay at most about this many records.
    pub checkpoint_every_records: u64,
    /// A checkpoint of at most this many bytes lies in the catalog; a greater one is an object.
    pub checkpoint_inline_bytes: usize,
    /// Offsets that moved without anything to show are committed this often.
    pub progress_every_ms: u64,
    /// Rows of one file at most.
    pub file_rows: usize,
    /// What was seen of a log's end holds for `idle-timeout`, and at least this long, because
    /// asking takes a second or two.
    pub idle_holds_ms: u64,
}

/// How often garbage is looked for and deleted. The simulation varies it; everybody else uses the
/// default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GarbageRules {
    /// Between the beginnings of two searches for orphans.
    pub search_every_ms: u64,
    /// How old an object is before it may be taken for an orphan although its owner is not known to
    /// be gone.
    pub orphan_age_ms: u64,
    /// Between the beginnings of two rounds of deletion. A key that cannot be deleted is tried
    /// again in the next one.
    pub delete_every_ms: u64,
}

impl Default for GarbageRules {
    fn default() -> Self {
        Self {
            search_every_ms: 86_400_000,
            orphan_age_ms: 86_400_000,
            delete_every_ms: 3_600_000,
        }
    }
}

impl Rules {
    /// How much of [`Rules::max_memory_bytes`] is set apart for what the Kafka client has fetched
    /// and nobody has read yet, over all topic partitions.
    #[must_use]
    pub fn fetched_bytes(&self) -> u64 {
        fetched_bytes(self.max_memory_bytes)
    }
}

/// How much of `max-memory` is for what the Kafka client has fetched: a sixteenth.
#[must_use]
pub fn fetched_bytes(max_memory_bytes: u64) -> u64 {
    max_memory_bytes / 16
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            checkpoint_keys_small: 20_000,
            checkpoint_every_ms: 60_000,
            checkpoint_every_records: 5_000_000,
            checkpoint_inline_bytes: 16_384,
            progress_every_ms: 30_000,
            file_rows: 1_000_000,
            idle_holds_ms: 5000,
        }
    }
}

#[cfg(test)]
impl Rules {
    /// Usual rules for the table `default.t` of the topic `clicks`, for tests to change.
    pub(crate) fn for_tests() -> Self {
        Rules {
            shape: Shape::count_by_origin("clicks", 10_000, 10_000),
            database: "default".to_owned(),
            table: "t".to_owned(),
            place: TablePlace::At("s3a://spark/warehouse".parse().unwrap()),
            timestamps: Timestamps::Micros,
            start_at_end: false,
            delay_ms: 0,
            idle_timeout_ms: 10_000,
            stalled_after_ms: 300_000,
            quiet_timeout_ms: None,
            max_skew_ms: 3_600_000,
            max_memory_bytes: 512 << 20,
            max_future_ms: 600_000,
            commit_interval_ms: 10_000,
            continue_on_data_loss: false,
            lease_ms: 15_000,
            keep_replaced_ms: 604_800_000,
            garbage: GarbageRules::default(),
            compaction: Times::default(),
            retain_ms: None,
            retain_side_ms: None,
            limits: Limits::default(),
        }
    }
}

/// Whether the recorded table is the one that the settings ask for, at `place`.
///
/// # Errors
/// The setting, both values, and the way out.
pub fn same_table(recorded: &Genesis, rules: &Rules, place: &Place) -> Result<(), Trouble> {
    let table = format!("{}.{}", rules.database, rules.table);
    let (then, now) = (recorded.shape.semantics, rules.shape.semantics);
    if then != now {
        let text = format!(
            "table {table} was made by a windrow that counts by revision {then} of its rules, and \
             this one counts by revision {now}, which gives other rows for the same log; run the \
             windrow that made it, or choose another table name"
        );
        return Err(Trouble::new(Cause::OtherVersion, text));
    }
    let differs = |cause, name: &str, then: &str, now: &str| {
        let text = format!(
            "table {table} was made with {name} {then}, the settings say {now}; set it back, or \
             choose another table name"
        );
        Err(Trouble::new(cause, text))
    };
    for ((name, then), (_, now)) in recorded
        .shape
        .as_settings()
        .iter()
        .zip(rules.shape.as_settings())
    {
        if *then != now {
            return differs(Cause::OtherSettings, name, then, &now);
        }
    }
    let then = &recorded.warehouse;
    if then != place {
        let other = then.bucket() != place.bucket();
        let cause = if other {
            Cause::OtherBucket
        } else {
            Cause::OtherSettings
        };
        return differs(cause, "warehouse", &then.to_string(), &place.to_string());
    }
    Ok(())
}
