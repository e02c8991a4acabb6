//! The rows that the log gives are compared with those of the table's files, in their order. Of the
//! files, one row group is in memory at a time; of the log's rows, those of some windows.
//!
//! ```text
//! step    →  NeedRows                      the log's rows come first
//! expect  ←  [12:00:00, 12:00:10): a 2, b 1
//! step    →  Fetch { key: "rows/…", .. }   and then those of the file that has this window
//! give    ←  these bytes
//! step    →  NeedRows                      both had the same rows
//! end     ←                                the log gives no more
//! step    →  Done
//! ```

use super::report::{Finding, Findings, Kind};
use crate::table::commit::{FileKind, LiveFile};
use crate::table::compaction::chunk_order;
use crate::table::file::listed_rows;
use crate::table::hive::TableKind;
use crate::table::listing::Value;
use crate::table::reread::{Depth, Reread, RereadStep};
use crate::values::row::Row;
use crate::values::shape::Shape;
use crate::values::time::EventTime;
use bytes::Bytes;
use std::cmp::Ordering;
use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;

/// Which windows are compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Only windows that start after this time; `None` is all.
    pub after: Option<EventTime>,
    /// Only windows that start at this time or later, as was asked for.
    pub from: Option<EventTime>,
    /// Only windows that start before this time, as was asked for.
    pub until: Option<EventTime>,
    /// Only windows that end here or earlier. `None` is none: no window is closed yet.
    pub through: Option<EventTime>,
    /// UTC days whose rows were dropped because they are kept no longer.
    pub dropped_days: BTreeSet<String>,
}

impl Scope {
    /// Whether a window is compared.
    #[must_use]
    pub fn has(&self, start: EventTime, end: EventTime) -> bool {
        self.after.is_none_or(|after| start > after)
            && self.from.is_none_or(|from| start >= from)
            && self.until.is_none_or(|until| start < until)
            && self.through.is_some_and(|through| end <= through)
            && (self.dropped_days.is_empty() || !self.dropped_days.contains(&start.date()))
    }

    /// Whether a file may have rows of windows that are compared.
    fn may_have(&self, file: &LiveFile) -> bool {
        let first = file.file.first_window;
        let last = file.file.last_window;
        self.after
            .is_none_or(|after| last.is_none_or(|last| last > after))
            && self
                .from
                .is_none_or(|from| last.is_none_or(|last| last >= from))
            && self
                .until
                .is_none_or(|until| first.is_none_or(|first| first < until))
    }
}

/// What the caller does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CompareStep {
    /// Fetch these bytes of this file, and hand them to [`Comparison::give`].
    Fetch {
        /// The file's path below the warehouse.
        key: String,
        /// The bytes.
        range: Range<u64>,
    },
    /// Hand the rows that come next in the log to [`Comparison::expect`], or say with
    /// [`Comparison::end`] that there are none.
    NeedRows,
    /// Nothing: all was compared.
    Done,
}

/// Compares rows.
pub struct Comparison {
    shape: Shape,
    scope: Scope,
    /// Files that were not begun, in the order of their windows.
    files: VecDeque<LiveFile>,
    /// Files that were begun. There are several where a file that could not be merged lies between
    /// the windows of one that was made without it.
    open: Vec<OpenFile>,
    /// The row of the table that comes next, where it was looked at and is still to be compared.
    held: Option<Shown>,
    /// The log's rows that were not compared.
    expected: VecDeque<Vec<Value>>,
    is_ended: bool,
    /// The last of the log's rows that is done with, whether the table shows it or not.
    passed: Option<Vec<Value>>,
    /// The first and the last window of files that could not be read.
    unread: Vec<(EventTime, EventTime)>,
    /// How many of the log's rows are in these.
    unread_rows: u64,
    /// The keys of files of which all bytes were read and have their hash.
    proven: BTreeSet<String>,
    findings: Findings,
}

/// A file that is being read.
struct OpenFile {
    live: LiveFile,
    reread: Reread,
    /// Rows that were not compared.
    shown: VecDeque<Shown>,
    /// The last row that was read and is in order.
    last: Option<Vec<Value>>,
}

/// A row that the table shows.
#[derive(Clone)]
struct Shown {
    row: Vec<Value>,
    key: String,
    epoch: u64,
}

impl Shown {
    fn start(&self) -> Option<EventTime> {
        match self.row.first() {
            Some(Value::Window { start, .. }) => Some(*start),
            _ => None,
        }
    }
}

impl OpenFile {
    fn new(shape: &Shape, live: LiveFile) -> Self {
        Self {
            reread: Reread::new(shape, TableKind::Chunks, live.file.bytes, Depth::Rows),
            live,
            shown: VecDeque::new(),
            last: None,
        }
    }
}

impl Comparison {
    /// Compares with the rows of these files; those of side tables and those that have no window in
    /// the scope are left out.
    #[must_use]
    pub fn new(shape: &Shape, scope: Scope, files: &[LiveFile]) -> Self {
        let is_wanted = |live: &&LiveFile| {
            matches!(live.file.kind, FileKind::Rows { .. }) && scope.may_have(live)
        };
        let mut files: Vec<LiveFile> = files.iter().filter(is_wanted).cloned().collect();
        // A commit of many rows has several files, which may share a window.
        files.sort_by_key(|live| {
            let file = &live.file;
            let order = chunk_order(&file.chunk);
            (file.first_window, file.last_window, order)
        });
        Self {
            shape: shape.clone(),
            scope,
            files: files.into(),
            open: Vec::new(),
            held: None,
            expected: VecDeque::new(),
            is_ended: false,
            passed: None,
            unread: Vec::new(),
            unread_rows: 0,
            proven: BTreeSet::new(),
            findings: Findings::default(),
        }
    }

    /// The keys of all files that it reads, from their first byte to their last one.
    #[must_use]
    pub fn keys(&self) -> BTreeSet<String> {
        let files = self.files.iter();
        files.map(|live| live.file.key.clone()).collect()
    }

    /// Takes the log's rows that come next, in order.
    pub fn expect(&mut self, rows: &[Row]) {
        let scope = &self.scope;
        let Some(first) = rows.first() else { return };
        // All of them are of one window.
        if scope.has(first.start, first.end) {
            self.expected.extend(listed_rows(&self.shape, rows));
        }
    }

    /// The log gives no more rows.
    pub fn end(&mut self) {
        self.is_ended = true;
    }

    /// Takes the bytes that [`Comparison::step`] asked for; `None` where there is no such object.
    pub fn give(&mut self, bytes: Option<Bytes>) {
        let Some(at) = self.next_to_read() else {
            return;
        };
        let OpenFile { live, reread, .. } = &mut self.open[at];
        let why = match bytes.map(|bytes| reread.give(bytes)) {
            Some(Ok(())) => return,
            Some(Err(error)) => damaged(live, error.why()),
            None => missing(live),
        };
        self.give_up(at, why);
    }

    /// Leaves the rest of a file out.
    fn give_up(&mut self, at: usize, why: Finding) {
        self.findings.add(why);
        let live = self.open.remove(at).live;
        let (first, last) = (live.file.first_window, live.file.last_window);
        self.unread.extend(first.zip(last));
    }

    /// What must be done next.
    pub fn step(&mut self) -> CompareStep {
        loop {
            let Some(expected) = self.expected.front() else {
                if !self.is_ended {
                    return CompareStep::NeedRows;
                }
                match self.next_shown() {
                    Some(Ok(shown)) => self.add_extra(&shown),
                    Some(Err(fetch)) => return fetch,
                    None => return CompareStep::Done,
                }
                continue;
            };
            let expected = expected.clone();
            let Some(shown) = self.next_shown() else {
                self.add_missing(&expected);
                self.pass();
                continue;
            };
            let shown = match shown {
                Ok(shown) => shown,
                Err(fetch) => return fetch,
            };
            match self.order(&expected, &shown.row) {
                Ordering::Less => {
                    self.held = Some(shown);
                    self.add_missing(&expected);
                    self.pass();
                }
                Ordering::Greater => self.add_extra(&shown),
                Ordering::Equal => {
                    if expected != shown.row {
                        self.add_other(&expected, &shown);
                    }
                    self.pass();
                }
            }
        }
    }

    fn pass(&mut self) {
        self.passed = self.expected.pop_front();
    }

    /// The row that the table shows next, or what must be fetched for it; `None` when it shows no
    /// more.
    fn next_shown(&mut self) -> Option<Result<Shown, CompareStep>> {
        if let Some(held) = self.held.take() {
            return Some(Ok(held));
        }
        loop {
            if let Some(at) = self.next_to_read() {
                if let Some(fetch) = self.read_on(at) {
                    return Some(Err(fetch));
                }
                continue;
            }
            let next = self.next_open();
            let start = next.and_then(|at| self.open[at].shown[0].start());
            let may_come_first =
                |live: &LiveFile| start.is_none_or(|start| live.file.first_window <= Some(start));
            if let Some(live) = self.files.pop_front_if(|live| may_come_first(live)) {
                self.open.push(OpenFile::new(&self.shape, live));
                continue;
            }
            return self.open[next?].shown.pop_front().map(Ok);
        }
    }

    /// The open file whose next row is not known.
    fn next_to_read(&self) -> Option<usize> {
        self.open.iter().position(|file| file.shown.is_empty())
    }

    /// The open file that has the row which comes first. Each of them has one.
    fn next_open(&self) -> Option<usize> {
        let row = |at: usize| &self.open[at].shown[0].row;
        (0..self.open.len()).min_by(|a, b| self.order(row(*a), row(*b)))
    }

    /// Reads on in an open file. Returns what must be fetched for that.
    fn read_on(&mut self, at: usize) -> Option<CompareStep> {
        let OpenFile { live, reread, .. } = &mut self.open[at];
        match reread.step() {
            Ok(RereadStep::Fetch(range)) => {
                let key = live.file.key.clone();
                return Some(CompareStep::Fetch { key, range });
            }
            Ok(RereadStep::Rows(rows)) => self.show(rows, at),
            Ok(RereadStep::End { sha256 }) => {
                let findings = check_file(live, reread.rows(), sha256.as_deref());
                if findings.differences == 0 {
                    self.proven.insert(live.file.key.clone());
                }
                self.findings.append(findings);
                self.open.remove(at);
            }
            Err(error) => {
                let why = damaged(live, error.why());
                self.give_up(at, why);
            }
        }
        None
    }

    /// Takes rows of an open file. Those of other windows than it should have, those that stand
    /// twice and those that are out of order are noted and left out.
    fn show(&mut self, rows: Vec<Vec<Value>>, at: usize) {
        let (file, epoch) = (&self.open[at].live.file, self.open[at].live.epoch);
        let windows = file.first_window..=file.last_window;
        let key = file.key.clone();
        for row in rows {
            let Some(Value::Window { start, end }) = row.first() else {
                continue;
            };
            let (is_own, is_compared) = (
                windows.contains(&Some(*start)),
                self.scope.has(*start, *end),
            );
            let key = key.clone();
            let shown = Shown { row, key, epoch };
            if !is_own {
                let what = "is in a file of other windows";
                self.add_shown(Kind::RowExtra, what, &shown);
            } else if is_compared && self.follows(&shown, at) {
                self.open[at].shown.push_back(shown);
            }
        }
    }

    /// Notes a row as the last one of its file. It says whether the row comes after the one before.
    fn follows(&mut self, shown: &Shown, at: usize) -> bool {
        let order = self.open[at].last.as_ref();
        let order = order.map_or(Ordering::Less, |last| self.order(last, &shown.row));
        match order {
            Ordering::Less => {
                self.open[at].last = Some(shown.row.clone());
                return true;
            }
            Ordering::Equal => self.add_shown(Kind::RowDoubled, "is there twice", shown),
            Ordering::Greater => {
                let what = "stands behind a row that it should precede";
                self.add_shown(Kind::RowOutOfOrder, what, shown);
            }
        }
        false
    }

    /// How two rows stand to each other by window and key.
    fn order(&self, a: &[Value], b: &[Value]) -> Ordering {
        let columns = 1 + self.shape.group_by.len();
        let pairs = a.iter().zip(b).take(columns);
        pairs.fold(Ordering::Equal, |order, (a, b)| {
            order.then_with(|| compare_values(a, b))
        })
    }

    fn add_missing(&mut self, row: &[Value]) {
        let keys = self.shape.group_by.len();
        if let Some(Value::Window { start, .. }) = row.first() {
            let is_unread =
                |(first, last): &(EventTime, EventTime)| (first..=last).contains(&start);
            if self.unread.iter().any(is_unread) {
                self.unread_rows += 1;
                return;
            }
        }
        let text = format!(
            "row {} is missing; the log gives {}",
            name(row, keys),
            numbers(row, keys).join(", ")
        );
        let finding = Finding {
            expected: numbers(row, keys),
            ..Finding::new(Kind::RowMissing, text).of_row(row, keys)
        };
        self.findings.add(finding);
    }

    /// Adds a row that the table shows and that is none of the log's rows that are to come.
    fn add_extra(&mut self, shown: &Shown) {
        let is_passed = self.passed.as_ref();
        let is_passed = is_passed.is_some_and(|passed| self.order(passed, &shown.row).is_ge());
        if is_passed {
            let what = "is there once more, or in the wrong place";
            return self.add_shown(Kind::RowDoubled, what, shown);
        }
        self.add_shown(Kind::RowExtra, "has no records in the log", shown);
    }

    fn add_shown(&mut self, kind: Kind, what: &str, shown: &Shown) {
        let keys = self.shape.group_by.len();
        let numbers = numbers(&shown.row, keys);
        let text = format!(
            "row {} {what}; the table shows {}",
            name(&shown.row, keys),
            numbers.join(", ")
        );
        let finding = Finding {
            found: numbers,
            ..Finding::new(kind, in_file(&text, &shown.key)).of_row(&shown.row, keys)
        };
        self.findings.add(finding.of_file(&shown.key, shown.epoch));
    }

    fn add_other(&mut self, expected: &[Value], shown: &Shown) {
        let keys = self.shape.group_by.len();
        let text = format!(
            "row {} has {}, and the log gives {}",
            name(expected, keys),
            numbers(&shown.row, keys).join(", "),
            numbers(expected, keys).join(", ")
        );
        let finding = Finding {
            expected: numbers(expected, keys),
            found: numbers(&shown.row, keys),
            ..Finding::new(Kind::RowDiffers, in_file(&text, &shown.key)).of_row(expected, keys)
        };
        self.findings.add(finding.of_file(&shown.key, shown.epoch));
    }

    /// What was found, how many of the log's rows could not be compared, and the keys of the files
    /// that are as they were written.
    #[must_use]
    pub fn finish(self) -> (Findings, u64, BTreeSet<String>) {
        (self.findings, self.unread_rows, self.proven)
    }
}

/// Compares what a file says and its hash with the journal.
#[must_use]
pub fn check_file(live: &LiveFile, rows: Option<u64>, sha256: Option<&str>) -> Findings {
    let mut findings = Findings::default();
    let file = &live.file;
    if let Some(sha256) = sha256.filter(|sha256| *sha256 != file.sha256) {
        let text = format!(
            "file \"{}\" has other bytes than were written: its SHA-256 is {sha256}, and the \
             journal says {}",
            file.key, file.sha256
        );
        findings.add(Finding::new(Kind::FileHash, text).of_file(&file.key, live.epoch));
    }
    if let Some(rows) = rows.filter(|rows| *rows != file.rows) {
        let text = format!(
            "file \"{}\" has {rows} rows, and the journal says {}",
            file.key, file.rows
        );
        findings.add(Finding::new(Kind::FileRows, text).of_file(&file.key, live.epoch));
    }
    findings
}

/// The finding of a file that readers are shown and that is not there.
#[must_use]
pub fn missing(live: &LiveFile) -> Finding {
    let key = &live.file.key;
    let text = format!("file \"{key}\" is not in the store, and readers are shown it");
    Finding::new(Kind::FileMissing, text).of_file(key, live.epoch)
}

/// The finding of a file that cannot be read.
#[must_use]
pub fn damaged(live: &LiveFile, why: &str) -> Finding {
    let key = &live.file.key;
    let text = format!("file \"{key}\" cannot be read as it was written: {why}");
    Finding::new(Kind::FileDamaged, text).of_file(key, live.epoch)
}

/// How two values of a window or a key stand to each other; null comes first.
fn compare_values(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Null, Value::Null) => Ordering::Equal,
        (Value::Null, _) => Ordering::Less,
        (_, Value::Null) => Ordering::Greater,
        (Value::Window { start, end }, Value::Window { start: s, end: e }) => {
            (start, end).cmp(&(s, e))
        }
        (Value::Text(a), Value::Text(b)) => a.as_bytes().cmp(b.as_bytes()),
        (a, b) => a.to_string().cmp(&b.to_string()),
    }
}

/// A row's window and key, for people: `[2024-09-01T12:00:00Z, 2024-09-01T12:00:10Z) "a"`.
fn name(row: &[Value], keys: usize) -> String {
    let window = match row.first() {
        Some(Value::Window { start, end }) => format!("[{start}, {end})"),
        _ => "without a window".to_owned(),
    };
    let key = row.iter().skip(1).take(keys).map(|value| match value {
        Value::Text(text) => format!("{text:?}"),
        other => other.to_string(),
    });
    std::iter::once(window)
        .chain(key)
        .collect::<Vec<_>>()
        .join(" ")
}

/// The numbers of a row, as text.
fn numbers(row: &[Value], keys: usize) -> Vec<String> {
    row.iter().skip(1 + keys).map(Value::to_string).collect()
}

fn in_file(text: &str, key: &str) -> String {
    format!("{text} (file \"{key}\")")
}
