//! What the log cannot say: floors, ceilings, delays, losses, generations. How they come about is not said here.

use crate::values::record::{Offset, Partition};
use crate::values::time::EventTime;
use serde::{Deserialize, Serialize};

/// What the log cannot say, decided once and obeyed by every replay. It holds from `offset` on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Decision {
    pub partition: Partition,
    pub offset: Offset,
    #[serde(flatten)]
    pub what: Decided,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "decided",
    rename_all = "kebab-case",
    rename_all_fields = "kebab-case"
)]
pub enum Decided {
    /// The topic partition's watermark is at least this.
    Floor { at: EventTime, reason: FloorReason },
    /// Event times past this are rejects.
    Ceiling { at: EventTime },
    /// The watermark delay from here on. It never lowers the watermark: a floor comes with it.
    Delay { ms: i64 },
    /// The offsets from here to `to` are no longer in the log.
    Lost { to: Offset, reason: String },
    /// The log itself is another one: the topic was made again, or cut off below here. It goes on at `to`.
    Generation {
        to: Offset,
        topic_id: String,
        reason: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FloorReason {
    /// Nothing to read for `idle-timeout`: it does not hold the others back.
    Idle,
    /// The whole topic was silent for `quiet-timeout`.
    Quiet,
    /// The topic partition appeared later than the table's frontier.
    Join,
    /// The topic was made again, or was cut off.
    Generation,
}
