//! What becomes a row: a row of the table itself, a late record, or a reject.
//! These are plain values that the lane and the merger make and `table::file` writes.

use crate::values::aggregate::Acc;
use crate::values::record::{Offset, Partition};
use crate::values::time::EventTime;
use std::sync::Arc;

/// A final row of the table. There is one for each window and key, and it never changes again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Start of the window, which belongs to it.
    pub start: EventTime,
    /// End of the window, which does not belong to it.
    pub end: EventTime,
    /// The key, encoded as [`crate::values::record::Key`] says.
    pub key: Arc<[u8]>,
    /// How many records were counted in this window under this key; at least one.
    pub count: u64,
    /// One state for each of [`crate::values::shape::Shape::inputs`], in the same order.
    pub accs: Box<[Acc]>,
}

/// A record that came after all its windows were closed to it. It becomes a row of `<table>__late`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LateRecord {
    /// The topic partition that it was read from.
    pub partition: Partition,
    /// Its place there, where Kafka still has the whole record.
    pub offset: Offset,
    /// Its event time.
    pub time: EventTime,
    /// The watermark of its topic partition before this record. All its windows end at this time or
    /// earlier, which is why it is late.
    pub watermark: EventTime,
    /// The key, encoded as [`crate::values::record::Key`] says.
    pub key: Box<[u8]>,
    /// The value, cut off after [`SIDE_VALUE_MAX_BYTES`].
    pub value: Box<[u8]>,
}

/// A record that could not be counted. It becomes a row of `<table>__rejects`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectRecord {
    /// The topic partition that it was read from.
    pub partition: Partition,
    /// Its place there, where Kafka still has the whole record.
    pub offset: Offset,
    /// Its event time, if that much could be read; otherwise its Kafka timestamp, if it has one.
    pub time: Option<EventTime>,
    /// Why it could not be counted, without any content of its value.
    pub reason: String,
    /// The value, cut off after [`SIDE_VALUE_MAX_BYTES`].
    pub value: Box<[u8]>,
}

/// How many bytes of a value the side tables keep: 64 KiB. The whole record stays in Kafka, at its
/// offset.
pub const SIDE_VALUE_MAX_BYTES: usize = 65_536;
