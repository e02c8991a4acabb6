//! What becomes a row: the table's own, a late record, a reject. Plain values between lane, merger and file.

use crate::values::aggregate::Acc;
use crate::values::record::{Offset, Partition};
use crate::values::time::EventTime;
use std::sync::Arc;

/// A final row of the table: one for each window and key, never changed again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub start: EventTime,
    pub end: EventTime,
    /// Bytes as of [`crate::values::record::Key`].
    pub key: Arc<[u8]>,
    pub count: u64,
    /// One for each of [`crate::values::shape::Shape::inputs`].
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
    /// Bytes as of [`crate::values::record::Key`].
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
