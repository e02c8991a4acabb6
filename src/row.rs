//! What becomes a row: the table's own, a late record, a reject. Plain values between lane, merger and file.

use crate::record::{Offset, Partition};
use crate::time::EventTime;
use std::sync::Arc;

/// One aggregate's state other than `count`. For `sum` and `avg` the exact sum, for `min` and `max` the extreme,
/// in units of `10^-scale`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Acc {
    /// Values seen that were not null; with none the column is null.
    pub n: u64,
    /// Cannot overflow: i64 values, fewer than 2^63 of them.
    pub value: i128,
}

/// A final row of the table: one for each window and key, never changed again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub start: EventTime,
    pub end: EventTime,
    /// Bytes as of [`crate::record::Key`].
    pub key: Arc<[u8]>,
    pub count: u64,
    /// One for each of [`crate::shape::Shape::inputs`].
    pub accs: Box<[Acc]>,
}

/// A record that came after all its windows were closed to it. A row of `<table>__late`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LateRecord {
    pub partition: Partition,
    pub offset: Offset,
    pub time: EventTime,
    /// The topic partition's watermark before the record.
    pub watermark: EventTime,
    /// Bytes as of [`crate::record::Key`].
    pub key: Box<[u8]>,
    /// The value, cut at [`SIDE_VALUE_MAX_BYTES`].
    pub value: Box<[u8]>,
}

/// A record that could not be counted. A row of `<table>__rejects`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectRecord {
    pub partition: Partition,
    pub offset: Offset,
    /// Its event time, where that much could be read; else its Kafka timestamp, where it has one.
    pub time: Option<EventTime>,
    pub reason: String,
    /// The value, cut at [`SIDE_VALUE_MAX_BYTES`].
    pub value: Box<[u8]>,
}

/// Bytes of a value that the side tables keep; the record itself stays in Kafka at its offset.
pub const SIDE_VALUE_MAX_BYTES: usize = 65_536;
