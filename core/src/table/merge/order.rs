//! Whether rows are strictly sorted across all row groups and files, and what their numbers add up
//! to. Nothing here knows the bytes of a file.
//!
//! Rows are sorted by the start of their window, its end, and the key. The bytes of a
//! [`Key`](crate::values::record::Key) sort as its columns do, one after the other, nulls first. So
//! the columns are compared as they stand in the file, and no key is made of them.

use crate::table::columns::Cells;
use crate::values::time::EventTime;
use std::cmp::Ordering;
use std::fmt;

/// A row that does not come after the one before it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Broken {
    /// The window of the row.
    pub(super) window: Window,
    /// The source of the row before.
    pub(super) after: usize,
}

type Window = (EventTime, EventTime);

/// Compares each row with the one before it.
pub(super) struct Order {
    /// How many key columns follow the window.
    key_columns: usize,
    last: Option<Last>,
}

/// The last row so far.
struct Last {
    source: usize,
    window: Window,
    key: Vec<Option<Box<[u8]>>>,
}

impl Order {
    pub(super) fn new(key_columns: usize) -> Self {
        Self {
            key_columns,
            last: None,
        }
    }

    /// Compares the next rows, which have a window each.
    pub(super) fn follow(&mut self, source: usize, rows: &[Cells]) -> Result<(), Broken> {
        let Some((Cells::Window(windows), rest)) = rows.split_first() else {
            unreachable!("the first column of the table is the window");
        };
        let keys = &rest[..self.key_columns];
        let window = |row: usize| windows[row].expect("windows were checked");
        let Some(end) = windows.len().checked_sub(1) else {
            return Ok(());
        };
        if let Some(last) = &self.last {
            let key = last.key.iter().map(Option::as_deref);
            let key = key.cmp(keys.iter().map(|column| text(column, 0)));
            if last.window.cmp(&window(0)).then(key) != Ordering::Less {
                return Err(Broken {
                    window: window(0),
                    after: last.source,
                });
            }
        }
        for row in 0..end {
            let is_before = match window(row).cmp(&window(row + 1)) {
                Ordering::Less => true,
                Ordering::Equal => is_key_before(keys, row, row + 1),
                Ordering::Greater => false,
            };
            if !is_before {
                return Err(Broken {
                    window: window(row + 1),
                    after: source,
                });
            }
        }
        let key = keys.iter().map(|column| text(column, end).map(Box::from));
        self.last = Some(Last {
            source,
            window: window(end),
            key: key.collect(),
        });
        Ok(())
    }
}

/// Whether the key of row `a` sorts before that of row `b`.
fn is_key_before(keys: &[Cells], a: usize, b: usize) -> bool {
    let orders = keys
        .iter()
        .map(|column| text(column, a).cmp(&text(column, b)));
    orders.fold(Ordering::Equal, Ordering::then) == Ordering::Less
}

/// The text of a key column in a row; `None`, which sorts first, is null.
fn text(column: &Cells, row: usize) -> Option<&[u8]> {
    let Cells::Text(texts) = column else {
        unreachable!("key columns are texts");
    };
    texts[row].as_ref().map(|text| text.data())
}

/// How many rows there are, and the sum of each column of whole numbers or decimals (which
/// includes `count`). The sums wrap, as they are only compared.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Sums {
    rows: u64,
    columns: Vec<i128>,
}

impl Sums {
    /// Adds these rows.
    pub(super) fn add(&mut self, rows: &[Cells]) {
        self.rows += rows.first().map_or(0, |cells| cells.len() as u64);
        self.columns.resize(rows.len(), 0);
        for (sum, cells) in self.columns.iter_mut().zip(rows) {
            let more = match cells {
                Cells::Long(v) => v.iter().flatten().map(|n| i128::from(*n)).sum(),
                Cells::Decimal(v) => v.iter().flatten().copied().fold(0, i128::wrapping_add),
                _ => 0,
            };
            *sum = sum.wrapping_add(more);
        }
    }
}

impl fmt::Display for Sums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sums = self.columns.iter().map(i128::to_string);
        let sums = sums.collect::<Vec<_>>().join(", ");
        write!(f, "{} rows (sums of the columns: {sums})", self.rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::record::Key;
    use parquet::data_type::ByteArray;

    const TEXTS: [Option<&str>; 10] = [
        None,
        Some(""),
        Some("\0"),
        Some("\0\0"),
        Some("\0a"),
        Some("a"),
        Some("a\0b"),
        Some("ab"),
        Some("\u{7f}"),
        Some("é\u{10ffff}"),
    ];

    type KeyColumns = [Option<&'static str>; 3];

    fn rows(start: i64, keys: &[&KeyColumns]) -> Vec<Cells> {
        let window = Some((EventTime(start), EventTime(start + 10)));
        let mut cells = vec![Cells::Window(vec![window; keys.len()])];
        for column in 0..3 {
            let texts = keys.iter().map(|key| key[column].map(ByteArray::from));
            cells.push(Cells::Text(texts.collect()));
        }
        cells.push(Cells::Long(vec![Some(1); keys.len()]));
        cells
    }

    #[test]
    fn columns_sort_as_the_bytes_of_the_key_do() {
        let mut keys = Vec::new();
        for a in TEXTS {
            for b in TEXTS {
                keys.extend([None, Some("\0"), Some("é")].map(|c| [a, b, c]));
            }
        }
        for a in &keys {
            for b in &keys {
                let is_before = Key::of(a) < Key::of(b);
                let together = Order::new(3).follow(0, &rows(0, &[a, b]));
                assert_eq!(together.is_ok(), is_before, "{a:?} {b:?}");
                let mut apart = Order::new(3);
                apart.follow(0, &rows(0, &[a])).unwrap();
                assert_eq!(apart.follow(1, &rows(0, &[b])).is_ok(), is_before);
            }
        }
    }

    #[test]
    fn sums_are_of_whole_numbers_and_decimals_and_pass_over_nulls() {
        let cells = |long: &[i64], decimal: i128| {
            let mut longs: Vec<_> = long.iter().copied().map(Some).collect();
            longs.push(None);
            let n = longs.len();
            vec![
                Cells::Text(vec![None; n]),
                Cells::Long(longs),
                Cells::Decimal(vec![Some(decimal); n]),
                Cells::Double(vec![Some(0.5); n]),
            ]
        };
        let (mut apart, mut together) = (Sums::default(), Sums::default());
        apart.add(&cells(&[i64::MAX], i128::MAX));
        apart.add(&cells(&[i64::MAX], i128::MAX));
        together.add(&cells(&[i64::MAX, i64::MAX, 0], i128::MAX));
        assert_eq!(apart, together);
        let twice_max = "18446744073709551614";
        let text = format!("4 rows (sums of the columns: 0, {twice_max}, -4, 0)");
        assert_eq!(apart.to_string(), text);
        together.add(&cells(&[], 0));
        assert_ne!(apart, together, "a row more");
    }

    #[test]
    fn a_later_window_begins_again_with_any_key() {
        let (high, low) = ([Some("b"); 3], [None; 3]);
        let mut order = Order::new(3);
        order.follow(0, &rows(0, &[&low, &high])).unwrap();
        order.follow(0, &rows(10, &[])).unwrap();
        order.follow(3, &rows(10, &[&low])).unwrap();
        let again = Broken {
            window: (EventTime(10), EventTime(20)),
            after: 3,
        };
        assert_eq!(order.follow(4, &rows(10, &[&low])), Err(again));
        assert!(order.follow(4, &rows(5, &[&high])).is_err());
    }
}
