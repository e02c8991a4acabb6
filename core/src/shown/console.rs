//! Console mode: all windows so far as text, as Spark's console sink prints them in complete mode.
//! No window is closed and nothing is stored. To bound the memory, the oldest windows are left out,
//! and the text says so.

use crate::shown::tables::printable;
use crate::table::listing::Value;
use crate::values::aggregate::{Acc, average, merge};
use crate::values::record::key_columns;
use crate::values::shape::{Aggregate, Function, Shape};
use crate::values::time::{EventTime, sql_time};
use std::collections::BTreeMap;
use std::fmt::Write;

/// The most rows that are held, over all windows. Beyond that the oldest windows are left out.
pub const ROWS_MAX: usize = 100_000;
/// How many rows are printed, which are the newest ones. Spark's default of `numRows` is the same.
pub const SHOWN_MAX: usize = 20;

/// One record in one of its windows.
#[derive(Clone, Copy, Debug)]
pub struct Hit<'a> {
    /// The first time that is in the window.
    pub start: EventTime,
    /// The first time that is after the window.
    pub end: EventTime,
    /// The bytes of a [`crate::values::record::Key`].
    pub key: &'a [u8],
    /// One number for each of [`Shape::inputs`], scaled; `None` where the record has none.
    pub values: &'a [Option<i64>],
}

/// The counts of all windows, by start and key.
#[derive(Debug)]
pub struct Console {
    columns: Vec<String>,
    keys: usize,
    aggregates: Vec<Aggregate>,
    windows: BTreeMap<EventTime, Window>,
    rows: usize,
    rows_max: usize,
    /// Windows that begin at this time or earlier were left out. Their records are not counted any
    /// more: otherwise such a window would be shown again with a count that begins at one.
    left_out: Option<EventTime>,
    /// Hits that no row shows. They belong to windows that were left out, or to new keys of a
    /// window that fills the memory alone.
    unseen: u64,
    batch: u64,
}

#[derive(Debug)]
struct Window {
    end: EventTime,
    rows: BTreeMap<Box<[u8]>, Counts>,
}

#[derive(Debug)]
struct Counts {
    count: u64,
    accs: Box<[Acc]>,
}

impl Console {
    /// An empty console that holds at most `rows_max` rows, usually [`ROWS_MAX`].
    #[must_use]
    pub fn new(shape: &Shape, rows_max: usize) -> Self {
        let names = shape
            .group_by
            .iter()
            .map(|c| &c.name)
            .chain(shape.aggregates.iter().map(|a| &a.name));
        Self {
            columns: std::iter::once("window".to_owned())
                .chain(names.cloned())
                .collect(),
            keys: shape.group_by.len(),
            aggregates: shape.aggregates.clone(),
            windows: BTreeMap::new(),
            rows: 0,
            rows_max,
            left_out: None,
            unseen: 0,
            batch: 0,
        }
    }

    /// Counts one record in one of its windows.
    pub fn add(&mut self, hit: Hit<'_>) {
        if self.left_out.is_some_and(|end| hit.start <= end) {
            self.unseen += 1;
            return;
        }
        let window = self.windows.entry(hit.start).or_insert_with(|| Window {
            end: hit.end,
            rows: BTreeMap::new(),
        });
        if let Some(counts) = window.rows.get_mut(hit.key) {
            counts.add(&self.aggregates, hit.values);
            return;
        }
        if window.rows.len() >= self.rows_max {
            self.unseen += 1;
            return;
        }
        let mut counts = Counts {
            count: 0,
            accs: vec![Acc::default(); hit.values.len()].into(),
        };
        counts.add(&self.aggregates, hit.values);
        window.rows.insert(hit.key.into(), counts);
        self.rows += 1;
        while self.rows > self.rows_max && self.windows.len() > 1 {
            let (start, oldest) = self.windows.pop_first().expect("there are two");
            self.rows -= oldest.rows.len();
            self.unseen += oldest.rows.values().map(|c| c.count).sum::<u64>();
            self.left_out = Some(start);
        }
    }

    /// The next batch as text. On a terminal it replaces the previous one.
    pub fn render(&mut self, terminal: bool) -> String {
        let newest = self.windows.iter().rev().flat_map(|(start, window)| {
            window
                .rows
                .iter()
                .rev()
                .map(|(key, counts)| self.row(*start, window.end, key, counts))
        });
        let mut rows: Vec<Vec<String>> = newest.take(SHOWN_MAX).collect();
        rows.reverse();
        // Go to the top left, clear the screen, and clear the lines that have scrolled off.
        let mut out = if terminal {
            "\x1b[H\x1b[2J\x1b[3J".to_owned()
        } else {
            String::new()
        };
        let rule = "-".repeat(43);
        writeln!(out, "{rule}\nBatch: {}\n{rule}", self.batch).expect("a string takes all text");
        out += &spark_table(&self.columns, &rows);
        if self.rows > rows.len() {
            writeln!(
                out,
                "only showing newest {} of {} rows",
                rows.len(),
                self.rows
            )
            .expect("a string takes all text");
        }
        if self.unseen > 0 {
            writeln!(
                out,
                "left out, as memory is bounded to {} rows: {} counts of old windows or new keys",
                self.rows_max, self.unseen
            )
            .expect("a string takes all text");
        }
        out.push('\n');
        self.batch += 1;
        out
    }

    fn row(&self, start: EventTime, end: EventTime, key: &[u8], counts: &Counts) -> Vec<String> {
        let window = format!(
            "{{{}, {}}}",
            sql_time(&start.to_string()),
            sql_time(&end.to_string())
        );
        let keys = key_columns(key, self.keys).into_iter();
        let keys =
            keys.map(|column| column.map_or_else(|| "NULL".to_owned(), |text| printable(&text)));
        let mut accs = counts.accs.iter();
        let values = self
            .aggregates
            .iter()
            .map(|aggregate| match aggregate.function {
                Function::Count => counts.count.to_string(),
                _ => accs
                    .next()
                    .map_or_else(String::new, |acc| value(aggregate, *acc)),
            });
        std::iter::once(window).chain(keys).chain(values).collect()
    }
}

impl Counts {
    fn add(&mut self, aggregates: &[Aggregate], values: &[Option<i64>]) {
        self.count += 1;
        let functions = aggregates
            .iter()
            .map(|a| a.function)
            .filter(|f| *f != Function::Count);
        for ((acc, value), function) in self.accs.iter_mut().zip(values).zip(functions) {
            if let Some(value) = value.map(i128::from) {
                merge(acc, function, Acc { n: 1, value });
            }
        }
    }
}

/// An aggregate's value as text; `NULL` when no record had a number for it.
fn value(aggregate: &Aggregate, acc: Acc) -> String {
    let scale = aggregate.number.scale();
    if acc.n == 0 {
        return "NULL".to_owned();
    }
    if aggregate.function == Function::Avg {
        return format!("{:?}", average(acc, scale));
    }
    Value::Decimal {
        units: acc.value,
        scale,
    }
    .to_string()
}

/// Draws a table as Spark's `Dataset.showString` does when it cuts nothing: cells are aligned to
/// the left, without blanks around them, and are at least three characters wide.
fn spark_table(columns: &[String], rows: &[Vec<String>]) -> String {
    let widths: Vec<usize> = (0..columns.len())
        .map(|i| {
            rows.iter()
                .map(|r| &r[i])
                .chain([&columns[i]])
                .map(|t| t.chars().count())
                .max()
                .unwrap_or(0)
                .max(3)
        })
        .collect();
    let rule: String = widths
        .iter()
        .map(|w| format!("+{}", "-".repeat(*w)))
        .collect::<String>()
        + "+\n";
    let line = |cells: &[String]| {
        cells
            .iter()
            .zip(&widths)
            .map(|(text, w)| format!("|{text:<w$}"))
            .collect::<String>()
            + "|\n"
    };
    format!(
        "{rule}{}{rule}{}{rule}",
        line(columns),
        rows.iter().map(|row| line(row)).collect::<String>()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::record::Key;
    use crate::values::shape::Number;

    const START: i64 = 1_725_219_730_000;

    fn hit(console: &mut Console, window: i64, key: &str, values: &[Option<i64>]) {
        let start = EventTime(START + window * 10_000);
        console.add(Hit {
            start,
            end: start.plus(10_000),
            key: &Key::of(&[Some(key)]).0,
            values,
        });
    }

    fn console(rows_max: usize) -> Console {
        Console::new(&Shape::count_by_origin("t", 10_000, 10_000), rows_max)
    }

    #[test]
    fn batches_print_as_sparks_console_sink_prints_them() {
        let mut console = console(ROWS_MAX);
        for (window, key) in [(1, "a"), (0, "b"), (0, "a"), (0, "b")] {
            hit(&mut console, window, key, &[]);
        }
        let expect = "\
-------------------------------------------
Batch: 0
-------------------------------------------
+------------------------------------------+------+-----+
|window                                    |origin|count|
+------------------------------------------+------+-----+
|{2024-09-01 19:42:10, 2024-09-01 19:42:20}|a     |1    |
|{2024-09-01 19:42:10, 2024-09-01 19:42:20}|b     |2    |
|{2024-09-01 19:42:20, 2024-09-01 19:42:30}|a     |1    |
+------------------------------------------+------+-----+

";
        assert_eq!(console.render(false), expect);
        assert_eq!(
            console.render(true),
            format!(
                "\x1b[H\x1b[2J\x1b[3J{}",
                expect.replace("Batch: 0", "Batch: 1")
            )
        );
    }

    #[test]
    fn the_newest_rows_are_shown_in_order() {
        let mut console = console(ROWS_MAX);
        for window in 0..25 {
            hit(&mut console, window, "a", &[]);
        }
        let out = console.render(false);
        assert_eq!(
            out.lines().filter(|l| l.starts_with("|{")).count(),
            SHOWN_MAX
        );
        assert!(
            out.contains("only showing newest 20 of 25 rows") && !out.contains("left out"),
            "{out}"
        );
        assert!(
            !out.contains("{2024-09-01 19:42:10,") && out.contains("{2024-09-01 19:46:10,"),
            "{out}"
        );
    }

    #[test]
    fn memory_is_bounded_and_what_is_left_out_is_told() {
        let mut console = console(4);
        for window in 0..4 {
            hit(&mut console, window, "a", &[]);
            hit(&mut console, window, "b", &[]);
        }
        assert_eq!((console.rows, console.windows.len()), (4, 2));
        hit(&mut console, 0, "a", &[]);
        let out = console.render(false);
        assert!(
            out.contains(
                "left out, as memory is bounded to 4 rows: 5 counts of old windows or new keys"
            ),
            "{out}"
        );
        for key in 0..9 {
            hit(&mut console, 9, &key.to_string(), &[]);
        }
        assert_eq!((console.rows, console.windows.len()), (4, 1));
    }

    #[test]
    fn aggregates_are_exact_and_null_without_values() {
        let aggregate = |function, number| Aggregate {
            function,
            path: vec!["p".to_owned()],
            number,
            name: format!("{function:?}").to_lowercase(),
        };
        let cents = Number::Decimal {
            precision: 18,
            scale: 2,
        };
        let mut shape = Shape::count_by_origin("t", 10_000, 10_000);
        shape.aggregates = vec![
            aggregate(Function::Sum, cents),
            aggregate(Function::Count, Number::Integer),
            aggregate(Function::Min, Number::Integer),
            aggregate(Function::Max, Number::Integer),
            aggregate(Function::Avg, cents),
        ];
        let mut console = Console::new(&shape, ROWS_MAX);
        hit(
            &mut console,
            0,
            "a",
            &[Some(-105), Some(-7), None, Some(150)],
        );
        hit(&mut console, 0, "a", &[Some(100), Some(9), None, None]);
        let out = console.render(false);
        let row = out.lines().find(|l| l.starts_with("|{")).unwrap();
        assert!(row.ends_with("|a     |-0.05|2    |-7 |NULL|1.5|"), "{row}");
    }

    #[test]
    fn a_keys_text_does_not_steer_the_terminal() {
        let mut console = console(ROWS_MAX);
        hit(&mut console, 0, "\x1b]0;x\x07", &[]);
        assert!(!console.render(false).contains('\x1b'));
    }
}
