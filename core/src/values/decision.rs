//! What the log cannot say: floors, ceilings, delays, losses, generations, adoptions. When such a
//! decision is made is not said here.

use crate::values::ledger::LaneLedger;
use crate::values::record::{Offset, Partition};
use crate::values::time::EventTime;
use serde::{Deserialize, Serialize};

/// Something that the log cannot say. It is decided once and recorded, and every replay obeys it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Decision {
    /// The topic partition that it is about.
    pub partition: Partition,
    /// It holds from this offset on.
    pub offset: Offset,
    /// What was decided.
    #[serde(flatten)]
    pub what: Decided,
}

/// What can be decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "decided",
    rename_all = "kebab-case",
    rename_all_fields = "kebab-case"
)]
pub enum Decided {
    /// The topic partition's watermark is not less than `at` any more.
    Floor {
        /// The least watermark.
        at: EventTime,
        /// What made it necessary.
        reason: FloorReason,
    },
    /// Records with a later event time than `at` are rejects.
    Ceiling {
        /// The latest event time that is counted.
        at: EventTime,
    },
    /// The watermark delay from here on. The watermark does not go back, because the watermark of
    /// this moment becomes a floor.
    Delay {
        /// How far the watermark trails the newest event time, in milliseconds.
        ms: i64,
    },
    /// Offsets that are no longer in the log.
    Lost {
        /// The first offset that is still there.
        to: Offset,
        /// What happened, for people.
        reason: String,
    },
    /// Records are gone that were counted after the checkpoint at this decision's offset, so what
    /// open windows had counted cannot be made again. Windows that were closed in the lane by then
    /// keep their counts; what it had counted in all others is *lost hits*. The decision holds all
    /// that the lane goes on with, so that a replay takes it over instead of reading the log.
    CountsLost {
        /// The offset at which the lane goes on: where the last commit left it.
        to: Offset,
        /// The ledger at `to`. Its `lost-hits` are known here.
        ledger: LaneLedger,
        /// The greatest event time that the lane had seen at `to`.
        newest: Option<EventTime>,
        /// No window that ends here or earlier takes a record of the lane any more. This is a floor
        /// of reason *loss*: floors and limits of other lanes ignore it. `None` when the lane had
        /// no watermark.
        floor: Option<EventTime>,
        /// The watermark delay at `to`, in milliseconds.
        delay_ms: i64,
        /// The ceiling at `to`.
        ceiling: EventTime,
        /// What happened, for people.
        reason: String,
    },
    /// Another job had counted the table before windrow took it over. Its watermark is a floor of
    /// the topic partition, because the windows that end there or earlier are rows already. What it
    /// had counted in later windows is counted again, so reading begins before the offset that the
    /// job had reached. A record in between whose windows are all rows already is *adopted*: it is
    /// in the table, or the job dropped it, so it is neither late nor kept.
    ///
    /// Example: the job closed the windows through 12:00:10 and had read up to offset 70. Reading
    /// begins at offset 40. The record `a` of 12:00:04 at offset 41 is adopted; at offset 71 it
    /// would be late.
    Adopted {
        /// The job's watermark: it has written the rows of all windows that end here or earlier.
        through: EventTime,
        /// The next offset that the job would have read.
        to: Offset,
    },
    /// The log itself is another one from here on: the topic was made again, or was cut off.
    Generation {
        /// The offset at which the new log is read.
        to: Offset,
        /// Kafka's id of the topic that is read from here on; empty where the broker has none.
        topic_id: String,
        /// What happened, for people.
        reason: String,
    },
}

/// Why a topic partition got a floor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FloorReason {
    /// It had nothing to read for `idle-timeout`, and must not hold the others back.
    Idle,
    /// The whole topic was silent for `quiet-timeout`.
    Quiet,
    /// It appeared when windows of the table were closed already.
    Join,
    /// The topic was made again, or was cut off.
    Generation,
}
