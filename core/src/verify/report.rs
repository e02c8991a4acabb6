//! What a verification found: differences, each as a sentence and as values, and what was compared.

use crate::table::listing::Value;
use crate::values::time::EventTime;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// How many differences are kept with all that is known of them. All of them are counted.
pub const KEPT_MAX: usize = 100;

/// What kind of difference it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The log has records of a row that the table does not show.
    RowMissing,
    /// The table shows a row for which the log has no records.
    RowExtra,
    /// The table shows a row of one window and key more than once.
    RowDoubled,
    /// The table shows other numbers than the log gives.
    RowDiffers,
    /// A row stands before one that it should follow.
    RowOutOfOrder,
    /// A file that readers are shown is not in the store.
    FileMissing,
    /// A file has other bytes than the ones that were written.
    FileHash,
    /// A file cannot be read, or has another size.
    FileDamaged,
    /// A file has another number of rows than the journal says.
    FileRows,
    /// The journal's list of files is not the one that its epochs made.
    FileList,
    /// An epoch is not as it was committed.
    EpochAltered,
    /// An epoch is missing, or does not follow the one before it.
    EpochChain,
    /// What folded epochs said together is not as it was written.
    HistoryAltered,
    /// The offsets or the counts of an epoch do not add up.
    Ledger,
    /// A manifest is not in the store, or cannot be read.
    Manifest,
    /// Hive shows something else than the journal says.
    Hive,
    /// Counting the log again gives other sums than were committed.
    Log,
    /// The journal cannot be read.
    Journal,
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Finding {
    /// Its kind.
    pub kind: Kind,
    /// All of it as one sentence.
    pub text: String,
    /// The start of the window that the row is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_start: Option<EventTime>,
    /// The end of that window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_end: Option<EventTime>,
    /// The columns of the row's key, as text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key: Vec<String>,
    /// What the log gives: the row's numbers, as text, in the order of their columns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expected: Vec<String>,
    /// What the table shows instead.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub found: Vec<String>,
    /// The file, as its path below the warehouse.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The epoch that it is about, or that brought the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
}

impl Finding {
    /// A difference that is not about a row.
    #[must_use]
    pub fn new(kind: Kind, text: String) -> Self {
        Self {
            kind,
            text,
            window_start: None,
            window_end: None,
            key: Vec::new(),
            expected: Vec::new(),
            found: Vec::new(),
            file: None,
            epoch: None,
        }
    }

    /// The same about a file that this epoch brought.
    #[must_use]
    pub fn of_file(self, key: &str, epoch: u64) -> Self {
        Self {
            file: Some(key.to_owned()),
            epoch: Some(epoch),
            ..self
        }
    }

    /// The same about an epoch.
    #[must_use]
    pub fn of_epoch(self, epoch: u64) -> Self {
        Self {
            epoch: Some(epoch),
            ..self
        }
    }

    /// The same about a row: its window, and `keys` columns of its key.
    #[must_use]
    pub fn of_row(mut self, row: &[Value], keys: usize) -> Self {
        if let Some(Value::Window { start, end }) = row.first() {
            (self.window_start, self.window_end) = (Some(*start), Some(*end));
        }
        let texts = row.iter().skip(1).take(keys).map(Value::to_string);
        self.key = texts.collect();
        self
    }
}

/// The differences so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Findings {
    /// How many there are.
    pub differences: u64,
    /// How many there are of each kind.
    pub by_kind: BTreeMap<Kind, u64>,
    /// The first [`KEPT_MAX`] of them.
    pub findings: Vec<Finding>,
}

impl Findings {
    /// Adds one.
    pub fn add(&mut self, finding: Finding) {
        self.differences += 1;
        *self.by_kind.entry(finding.kind).or_default() += 1;
        if self.findings.len() < KEPT_MAX {
            self.findings.push(finding);
        }
    }

    /// Adds others.
    pub fn append(&mut self, others: Self) {
        self.differences += others.differences;
        for (kind, count) in others.by_kind {
            *self.by_kind.entry(kind).or_default() += count;
        }
        let room = KEPT_MAX - self.findings.len();
        self.findings.extend(others.findings.into_iter().take(room));
    }
}

/// Which windows were counted again from the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Recounted {
    /// The epoch after which the log was read.
    pub after_epoch: u64,
    /// Only windows that start after this time are compared; `None` where all are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<EventTime>,
    /// Only windows that start at this time or later are compared; `None` where there is no such
    /// limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<EventTime>,
    /// Only windows that start before this time are compared; `None` where there is no such limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<EventTime>,
    /// Only windows that end here or earlier are compared: later ones are not closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed_through: Option<EventTime>,
    /// How many offsets of the log were read.
    pub offsets: u64,
    /// How many rows the log gives.
    pub rows: u64,
    /// How many of these are in files that could not be read, and so were not compared.
    pub unread_rows: u64,
}

/// What was checked without the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Checked {
    /// Epochs in the journal.
    pub epochs: u64,
    /// Epochs whose content has the digest under which it was committed.
    pub proven_epochs: u64,
    /// Rows of history.
    pub folded_days: u64,
    /// Files that readers are shown.
    pub files: u64,
    /// Those of them whose bytes were all read and have the hash that the journal names.
    pub hashed_files: u64,
    /// Bytes that were read from the store.
    pub bytes: u64,
}

/// How far a verification is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// It is under way.
    #[default]
    Running,
    /// It has come to its end. Whether there are differences is another question.
    Done,
    /// It could not be done.
    Failed,
}

/// What a verification found, or has found so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// Its name, by which it can be asked for; empty where it was not started over HTTP.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// The table: `default.newtable`.
    pub table: String,
    /// How far it is.
    pub stage: Stage,
    /// What it does at the moment, for people; empty at its end.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub doing: String,
    /// About how much of the work is done, in percent.
    pub percent: u8,
    /// Why it could not be done; empty unless it has failed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub failure: String,
    /// The last epoch of the journal that it looks at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// What was compared with the log; `None` where nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recounted: Option<Recounted>,
    /// What was checked besides.
    pub checked: Checked,
    /// What a person should know of it, as whole sentences: what was not compared, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// The differences.
    #[serde(flatten)]
    pub found: Findings,
}

impl Report {
    /// One sentence on what has come of it, for a status.
    #[must_use]
    pub fn headline(&self) -> String {
        match self.stage {
            Stage::Running => format!("{} ({} %)", self.doing, self.percent),
            Stage::Failed => self.failure.clone(),
            Stage::Done if self.found.differences == 0 => "no differences".to_owned(),
            Stage::Done => match self.found.findings.first() {
                Some(first) if self.found.differences > 1 => {
                    format!(
                        "{} differences; first: {}",
                        self.found.differences, first.text
                    )
                }
                Some(first) => first.text.clone(),
                None => format!("{} differences", self.found.differences),
            },
        }
    }

    /// All of it as lines for a terminal.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |args: std::fmt::Arguments<'_>| {
            let _ = text.write_fmt(args);
            text.push('\n');
        };
        let Checked {
            epochs,
            proven_epochs,
            folded_days,
            files,
            hashed_files,
            ..
        } = self.checked;
        line(format_args!(
            "table {}, as of epoch {}",
            self.table,
            self.epoch.map_or("none".to_owned(), |n| n.to_string())
        ));
        line(format_args!(
            "journal: {epochs} epochs ({proven_epochs} compared with their digests) and \
             {folded_days} rows of history"
        ));
        line(format_args!(
            "files: {files} that readers see, {hashed_files} of them read to the last byte"
        ));
        match &self.recounted {
            Some(recounted) => line(format_args!("{}", recounted.text())),
            None => line(format_args!("log: no window was counted again")),
        }
        for note in &self.notes {
            line(format_args!("note: {note}"));
        }
        for finding in &self.found.findings {
            line(format_args!("difference: {}", finding.text));
        }
        let found = &self.found;
        match (found.differences, found.findings.len() as u64) {
            (0, _) => line(format_args!("no differences")),
            (1, _) => line(format_args!("1 difference")),
            (all, shown) if shown < all => {
                line(format_args!(
                    "{all} differences, of which {shown} are shown"
                ));
            }
            (all, _) => line(format_args!("{all} differences")),
        }
        text
    }
}

impl Recounted {
    fn text(&self) -> String {
        let from = match (self.after, self.from) {
            (None, None) => "windows from the table's first one on".to_owned(),
            (after, Some(from)) if after.is_none_or(|after| after < from) => {
                format!("windows that start at {from} or later")
            }
            (Some(after), _) => format!("windows that start after {after}"),
            (None, Some(from)) => format!("windows that start at {from} or later"),
        };
        let until = self
            .until
            .map_or(String::new(), |until| format!(" and before {until}"));
        let through = self.closed_through.map_or(String::new(), |through| {
            format!(", as far as they end at {through} or earlier")
        });
        let unread = match self.unread_rows {
            0 => String::new(),
            unread => format!("; {unread} of them are in files that could not be read"),
        };
        format!(
            "log: {} offsets were counted again, from epoch {} on: {} rows, {from}{until}{through}\
             {unread}",
            self.offsets, self.after_epoch, self.rows
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_differences_are_counted_and_the_first_are_kept() {
        let mut findings = Findings::default();
        for i in 0..250 {
            findings.add(Finding::new(Kind::RowMissing, format!("row {i}")));
        }
        let mut others = Findings::default();
        others.add(Finding::new(Kind::Hive, "hive".to_owned()));
        others.append(findings);
        assert_eq!((others.differences, others.findings.len()), (251, KEPT_MAX));
        assert_eq!(others.by_kind[&Kind::RowMissing], 250);
        let report = Report {
            stage: Stage::Done,
            found: others,
            ..Report::default()
        };
        assert_eq!(report.headline(), "251 differences; first: hive");
        assert!(
            report
                .text()
                .ends_with("251 differences, of which 100 are shown\n")
        );
    }

    #[test]
    fn a_report_is_read_as_it_was_written() {
        let mut report = Report {
            table: "default.t".to_owned(),
            recounted: Some(Recounted::default()),
            ..Report::default()
        };
        let finding = Finding::new(Kind::FileHash, "other".to_owned()).of_file("rows/a", 3);
        report.found.add(finding);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["differences"], 1);
        assert_eq!(json["findings"][0]["kind"], "file-hash");
        assert_eq!(serde_json::from_value::<Report>(json).unwrap(), report);
    }
}
