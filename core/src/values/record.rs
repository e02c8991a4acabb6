//! What a record is to windrow, and the key that it is counted by.
//! Nothing here knows JSON or Kafka's client.
//!
//! Example of a key: with `group-by: "origin, kind"`, the record `{"origin": "a", "kind": null}`
//! has the columns `a` and null. [`Key`] holds them as the bytes `01 61 00 00` and `00`.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;

/// The number of a topic partition, within the one topic that a table counts.
pub type Partition = i32;
/// A record's position in its topic partition. A name such as `next_offset` is the next position to
/// read, as Kafka commits it.
pub type Offset = i64;

/// One record as it was read, borrowed from the batch that it came in.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Its position in its topic partition.
    pub offset: Offset,
    /// Kafka's timestamp in milliseconds since 1970 UTC; -1 when the record has none.
    pub timestamp_ms: i64,
    /// The bytes of the value. `None` makes the record a tombstone.
    pub value: Option<&'a [u8]>,
}

/// Consecutive records of one topic partition, in the order of their offsets. Offsets are missing
/// where Kafka never shows one, as for control records and aborted transactions.
pub trait Batch {
    /// Calls `f` with each record once, in order.
    fn each(&self, f: &mut dyn FnMut(Record<'_>));
}

impl Batch for &[Record<'_>] {
    fn each(&self, f: &mut dyn FnMut(Record<'_>)) {
        for record in *self {
            f(*record);
        }
    }
}

/// The leader epoch of a record, and where it was. A broker tells by it whether the log was cut off
/// below that place since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct EpochMark {
    /// The offset after the record.
    pub offset: Offset,
    /// Kafka's leader epoch of the record; at least 0.
    pub leader_epoch: i32,
}

impl EpochMark {
    /// The leader epoch of the record before `next`; -1 when it is unknown.
    #[must_use]
    pub fn leader_epoch_at(mark: Option<Self>, next: Offset) -> i32 {
        mark.filter(|mark| mark.offset == next)
            .map_or(-1, |mark| mark.leader_epoch)
    }

    /// The mark, where it is of an earlier record than the one before `next`.
    #[must_use]
    pub fn below(mark: Option<Self>, next: Offset) -> Option<Self> {
        mark.filter(|mark| mark.offset != next)
    }

    /// The mark of which [`EpochMark::below`] and [`EpochMark::leader_epoch_at`] were written down.
    #[must_use]
    pub fn read(below: Option<Self>, leader_epoch: i32, next: Offset) -> Option<Self> {
        let at_next = (leader_epoch >= 0).then_some(Self {
            offset: next,
            leader_epoch,
        });
        at_next.or(below)
    }
}

/// The columns that a record is counted by, as bytes that sort as the columns do, nulls first.
///
/// A null column is `0x00`. Any other column is `0x01`, followed by its UTF-8 bytes. Every column
/// that is not null and not the last one is closed by `0x00 0x00`, and each `0x00` inside it is
/// written as `0x00 0xff`. So one comparison of bytes compares column by column.
///
/// Example: the columns `a` and `b` are `01 61 00 00 01 62`; the columns null and `b` are
/// `00 01 62`, which sorts first.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub Box<[u8]>);

impl Key {
    /// Appends one column, in UTF-8, to the bytes of a key that is being made. `last` says that no
    /// column follows.
    #[inline]
    pub fn push_column(key: &mut Vec<u8>, column: Option<&[u8]>, last: bool) {
        let Some(text) = column else {
            key.push(0);
            return;
        };
        key.push(1);
        if last {
            key.extend_from_slice(text);
            return;
        }
        for &byte in text {
            key.push(byte);
            if byte == 0 {
                key.push(0xff);
            }
        }
        key.extend_from_slice(&[0, 0]);
    }

    /// Makes the key of the given columns.
    #[must_use]
    pub fn of(columns: &[Option<&str>]) -> Self {
        let mut bytes = Vec::new();
        for (i, column) in columns.iter().enumerate() {
            Self::push_column(
                &mut bytes,
                column.map(str::as_bytes),
                i + 1 == columns.len(),
            );
        }
        Self(bytes.into())
    }

    /// The columns, in order; `None` is a null column.
    ///
    /// # Panics
    /// When the bytes were not made by [`Key::push_column`] for `n` columns.
    #[must_use]
    pub fn columns(&self, n: usize) -> Vec<Option<Cow<'_, str>>> {
        key_columns(&self.0, n)
    }
}

/// The `n` columns of a key that is given as bytes; see [`Key`]. `None` is a null column.
///
/// # Panics
/// When the bytes were not made by [`Key::push_column`] for `n` columns.
#[must_use]
pub fn key_columns(bytes: &[u8], n: usize) -> Vec<Option<Cow<'_, str>>> {
    let mut rest = bytes;
    let mut columns = Vec::with_capacity(n);
    for i in 0..n {
        let (&tag, after) = rest.split_first().expect("a column begins with its tag");
        rest = after;
        if tag == 0 {
            columns.push(None);
        } else if i + 1 == n {
            columns.push(Some(Cow::Borrowed(
                std::str::from_utf8(rest).expect("keys are UTF-8"),
            )));
            rest = &[];
        } else {
            let mut text = Vec::new();
            loop {
                match *rest {
                    [0, 0xff, ..] => text.push(0),
                    [0, 0, ..] => break,
                    [byte, ..] => text.push(byte),
                    [] => panic!("a column that is not the last ends in two zero bytes"),
                }
                rest = &rest[if rest[0] == 0 { 2 } else { 1 }..];
            }
            rest = &rest[2..];
            columns.push(Some(Cow::Owned(
                String::from_utf8(text).expect("keys are UTF-8"),
            )));
        }
    }
    assert!(rest.is_empty(), "a key has no bytes after its last column");
    columns
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.0.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_bytes_keep_columns_and_order() {
        let mut keys = Vec::new();
        let texts = [
            None,
            Some(""),
            Some("\0"),
            Some("\0a"),
            Some("a"),
            Some("a\0"),
            Some("a\0b"),
            Some("ab"),
            Some("ÿ"),
        ];
        for a in texts {
            for b in texts {
                keys.push([a, b]);
            }
        }
        keys.sort_unstable();
        let encoded: Vec<Key> = keys.iter().map(|k| Key::of(k)).collect();
        assert!(encoded.is_sorted());
        for (key, columns) in encoded.iter().zip(&keys) {
            let back = key.columns(2);
            assert_eq!(
                back.iter().map(|c| c.as_deref()).collect::<Vec<_>>(),
                columns
            );
        }
        assert_eq!(Key::of(&[Some("x")]).0.as_ref(), b"\x01x");
    }
}
