//! `_spark_metadata`, the log of a Spark file sink: which files of a directory are in the table.
//! Files that it does not name are left from attempts that failed.
//!
//! Each batch has an object with its number as its name: `v1`, and one line of JSON for each file.
//! Every tenth batch is written as `9.compact`, which has all lines before it as well; smaller
//! numbers may be deleted then (read in Spark's `CompactibleFileStreamLog`, and seen).
//!
//! ```text
//! v1
//! {"path":"s3a://spark/warehouse/newtable/part-00000-1b15.snappy.parquet","action":"add",...}
//! ```

use crate::values::ledger::NUMBER_MAX;
use serde::Deserialize;
use std::collections::BTreeSet;

/// The objects of the log that must be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needed {
    /// Their names, in the order in which they hold.
    pub names: Vec<String>,
    /// The last batch that is in the table.
    pub last_batch: u64,
}

/// The batch that an object of this name is about, in the log of files and in the checkpoint;
/// `None` for other names, such as `.9.crc`.
#[must_use]
pub fn batch_number(name: &str) -> Option<u64> {
    let number = name.parse().ok();
    number.filter(|number| *number < NUMBER_MAX.unsigned_abs())
}

/// Which objects of the log must be read, of those that have these names. Names that are no
/// batches' are passed over, such as `.9.compact.crc`.
///
/// # Errors
/// No batch is in the log, or one is missing in between; as the end of a sentence.
pub fn needed(names: &[String]) -> Result<Needed, String> {
    let compact = |name: &String| batch_number(name.strip_suffix(".compact")?);
    let compacted = names.iter().filter_map(compact).max();
    let batches: BTreeSet<u64> = names.iter().filter_map(|name| batch_number(name)).collect();
    let first = compacted.map_or(0, |compacted| compacted + 1);
    let later: Vec<u64> = batches.range(first..).copied().collect();
    for (expected, batch) in (first..).zip(&later) {
        if expected != *batch {
            return Err(format!(
                "the log of its files has batch {batch}, but not batch {expected}"
            ));
        }
    }
    let last_batch = later.last().copied().or(compacted);
    Ok(Needed {
        names: compacted
            .map(|batch| format!("{batch}.compact"))
            .into_iter()
            .chain(later.iter().map(u64::to_string))
            .collect(),
        last_batch: last_batch.ok_or("the log of its files has no batch, so there is no row")?,
    })
}

/// A line of the log.
#[derive(Deserialize)]
struct Line {
    path: String,
    #[serde(rename = "isDir", default)]
    is_dir: bool,
    #[serde(default)]
    action: Option<String>,
}

/// Reads the objects of the log, in the order of [`needed`], and gives the names of the files in
/// the table's directory. `directory` is the last part of that directory's path: every file must
/// lie there.
///
/// # Errors
/// An object is not such a log, or names a file elsewhere; as the end of a sentence.
pub fn files<'a>(
    logs: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    directory: &str,
) -> Result<BTreeSet<String>, String> {
    let mut files = BTreeSet::new();
    for (name, bytes) in logs {
        let text = std::str::from_utf8(bytes);
        let text = text.map_err(|_| format!("\"{name}\" in the log of its files is not text"))?;
        let mut lines = text.lines();
        let version = lines.next().unwrap_or_default();
        if version != "v1" {
            return Err(format!(
                "\"{name}\" in the log of its files has version \"{}\", and only v1 is known",
                version.chars().take(20).collect::<String>()
            ));
        }
        for line in lines.filter(|line| !line.is_empty()) {
            let Line {
                path,
                is_dir,
                action,
            } = serde_json::from_str(line).map_err(|error| {
                format!("\"{name}\" in the log of its files has a line that is not one: {error}")
            })?;
            let mut parts = path.rsplit('/');
            let (file, folder) = (parts.next().unwrap_or_default(), parts.next());
            if is_dir || file.is_empty() || folder != Some(directory) {
                return Err(format!(
                    "\"{name}\" in the log of its files names \"{path}\", which is not a file in \
                     the directory \"{directory}\"; a table with partitions cannot be adopted"
                ));
            }
            match action.as_deref() {
                None | Some("add") => _ = files.insert(file.to_owned()),
                Some("delete") => _ = files.remove(file),
                Some(other) => {
                    return Err(format!(
                        "\"{name}\" in the log of its files has the action \"{other}\", which is \
                         not known"
                    ));
                }
            }
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_compacted_log_and_what_came_after_it_are_needed() {
        let check = |names: &[&str], expect: Result<(&[&str], u64), &str>| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let found = needed(&names);
            let found = found.map(|n| (n.names.join(" "), n.last_batch));
            let expect = expect.map(|(names, last)| (names.join(" "), last));
            assert_eq!(found, expect.map_err(str::to_owned), "{names:?}");
        };
        check(&["0", "1", ".1.crc"], Ok((&["0", "1"], 1)));
        check(
            &["8", "9.compact", "10", "19.compact", "20", "21"],
            Ok((&["19.compact", "20", "21"], 21)),
        );
        check(&["9.compact"], Ok((&["9.compact"], 9)));
        check(
            &["0", "2"],
            Err("the log of its files has batch 2, but not batch 1"),
        );
        check(
            &["9.compact", "11"],
            Err("the log of its files has batch 11, but not batch 10"),
        );
        check(
            &[],
            Err("the log of its files has no batch, so there is no row"),
        );
    }

    #[test]
    fn the_files_of_the_table_are_those_that_the_log_names() {
        let line = |file: &str, action: &str| {
            format!(r#"{{"path":"s3a://b/w/newtable/{file}","size":1,"action":"{action}"}}"#)
        };
        let first = format!("v1\n{}\n{}\n", line("a", "add"), line("b", "add"));
        let second = format!("v1\n{}\n{}", line("c", "add"), line("a", "delete"));
        let logs = [("0", first.as_bytes()), ("1", second.as_bytes())];
        let names = files(logs, "newtable").unwrap();
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["b", "c"]);

        let elsewhere = files(logs, "othertable").unwrap_err();
        assert!(
            elsewhere.contains("not a file in the directory"),
            "{elsewhere}"
        );
        for (bytes, expect) in [
            (&b"v2\n"[..], "has version \"v2\""),
            (b"v1\n{", "a line that is not one"),
            (b"\xff", "is not text"),
        ] {
            let why = files([("0", bytes)], "newtable").unwrap_err();
            assert!(why.contains(expect), "{why}");
        }
    }
}
