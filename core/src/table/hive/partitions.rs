//! Which table partition in Hive shows which file, and which of them show none. It is decided here
//! for `restore`, after somebody renamed, added or dropped some. The statements are in
//! `io/catalog/hive`.

use super::{HivePartition, TableKind};
use std::collections::{BTreeMap, BTreeSet};

/// A table partition of one of the tables, as Hive has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundPartition {
    /// `PARTITIONS.PART_ID`.
    pub id: i64,
    /// The table that it is part of.
    pub kind: TableKind,
    /// For example `date=2024-09-01/chunk=0000000012`.
    pub name: String,
    /// The values of the partition columns, in their order.
    pub values: Vec<String>,
    /// Its place by `SDS.LOCATION`, by which Hive goes.
    pub location: Option<String>,
    /// Its place by the parameter `path`, by which Spark goes.
    pub path: Option<String>,
    /// It has the column list of its table.
    pub has_columns: bool,
    /// It has a row of `SDS` and one of `SERDES`. Without them it can show nothing.
    pub is_whole: bool,
}

/// A table partition that shows a file, or will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The position of the file in the list.
    pub file: usize,
    /// `PARTITIONS.PART_ID`.
    pub id: i64,
    /// Its place or its column list must be written again.
    pub place_differs: bool,
    /// Its name must be written again.
    pub name_differs: bool,
    /// The values of its partition columns must be written again.
    pub values_differ: bool,
}

/// What becomes of the files and of the table partitions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matched {
    /// Files that a table partition shows.
    pub shown: Vec<Shown>,
    /// The positions of the files that need a new one.
    pub missing: Vec<usize>,
    /// Ids of table partitions that show none of these files, and only a place of windrow's own.
    /// A reader would count the rows there twice, or rows that no epoch has.
    pub surplus: Vec<i64>,
    /// Those that show a place that is not windrow's: somebody's own rows.
    pub foreign: Vec<FoundPartition>,
}

/// Gives each file the table partition with the id that the journal knows, and else the one that
/// has its name. The id comes first because `ALTER TABLE ... PARTITION ... RENAME` keeps it: by
/// name alone, the file would get a second table partition, and readers would count its rows twice.
///
/// `files` come with the ids that the journal knows. `own` is the table's folder as a location,
/// ending in a slash, for example `s3a://spark/warehouse/_windrow/default.newtable/`.
#[must_use]
pub fn match_partitions(
    own: &str,
    files: &[(i64, HivePartition)],
    found: Vec<FoundPartition>,
) -> Matched {
    let whole = || found.iter().filter(|p| p.is_whole);
    let by_id: BTreeMap<i64, &FoundPartition> = whole().map(|p| (p.id, p)).collect();
    let mut shows: Vec<Option<&FoundPartition>> = files
        .iter()
        .map(|(id, file)| by_id.get(id).copied().filter(|p| p.kind == file.kind))
        .collect();
    let mut taken: BTreeSet<i64> = shows.iter().flatten().map(|p| p.id).collect();
    // Some of Hive's schemas let two have one name. Then it is the one with the least id.
    let mut by_name: BTreeMap<(TableKind, &str), &FoundPartition> = BTreeMap::new();
    for partition in whole().filter(|p| !taken.contains(&p.id)) {
        let name = (partition.kind, partition.name.as_str());
        let first = by_name.entry(name).or_insert(partition);
        if partition.id < first.id {
            *first = partition;
        }
    }
    for ((_, file), shows) in files.iter().zip(&mut shows) {
        if shows.is_none() {
            *shows = by_name.remove(&(file.kind, file.name.as_str()));
            taken.extend(shows.map(|p| p.id));
        }
    }
    let mut matched = Matched::default();
    for partition in found.iter().filter(|p| !taken.contains(&p.id)) {
        if partition.shows_only(own) {
            matched.surplus.push(partition.id);
        } else {
            matched.foreign.push(partition.clone());
        }
    }
    let held: BTreeSet<_> = matched.foreign.iter().map(|p| (p.kind, &*p.name)).collect();
    let mut shown = Vec::new();
    for (file, ((_, wanted), partition)) in files.iter().zip(shows).enumerate() {
        match partition {
            None => matched.missing.push(file),
            Some(found) => {
                // A name that somebody else's has can be given only when that one is gone.
                let is_free = !held.contains(&(wanted.kind, &*wanted.name));
                shown.push(differences(file, wanted, found, is_free));
            }
        }
    }
    matched.shown = shown;
    matched
}

/// `is_free`: nobody else's table partition has the name.
fn differences(
    file: usize,
    wanted: &HivePartition,
    found: &FoundPartition,
    is_free: bool,
) -> Shown {
    let place = &wanted.storage.location;
    Shown {
        file,
        id: found.id,
        place_differs: !found.has_columns || found.location != *place || found.path != *place,
        name_differs: is_free && found.name != wanted.name,
        values_differ: is_free && found.values != wanted.values,
    }
}

impl FoundPartition {
    /// It shows no place except folders of windrow's files. They are in folders of their own beside
    /// the tables' empty ones, where an `INSERT` of somebody else puts its files.
    fn shows_only(&self, own: &str) -> bool {
        let own = without_scheme(own);
        let is_own = |place: &String| {
            let rest = without_scheme(place).strip_prefix(own);
            let folder = rest.and_then(|rest| rest.split('/').next());
            folder.is_some_and(|folder| {
                TableKind::PARTITIONED
                    .iter()
                    .any(|kind| kind.word() == folder)
            })
        };
        !self.is_whole
            || [&self.location, &self.path]
                .into_iter()
                .flatten()
                .all(is_own)
    }
}

/// The same place may be written `s3://` or `s3a://`, and `file:/` or `file:///`.
fn without_scheme(place: &str) -> &str {
    let rest = place.split_once(':').map_or(place, |(_, rest)| rest);
    rest.trim_start_matches('/')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::hive::Storage;

    const OWN: &str = "s3a://spark/warehouse/_windrow/default.t/";

    fn place(folder: &str) -> Option<String> {
        Some(format!("{OWN}{folder}"))
    }

    /// The table partition of a file, which the journal knows by this id.
    fn file(id: i64, chunk: &str) -> (i64, HivePartition) {
        let partition = HivePartition {
            kind: TableKind::Chunks,
            name: format!("date=d/chunk={chunk}"),
            values: vec!["d".to_owned(), chunk.to_owned()],
            storage: Storage::parquet(place(&format!("rows/{chunk}")).unwrap()),
        };
        (id, partition)
    }

    fn as_made(id: i64, chunk: &str) -> FoundPartition {
        let (_, made) = file(id, chunk);
        FoundPartition {
            id,
            kind: made.kind,
            name: made.name,
            values: made.values,
            path: made.storage.location.clone(),
            location: made.storage.location,
            has_columns: true,
            is_whole: true,
        }
    }

    /// `shown` as `<file>=<id>` and the first letters of what differs.
    fn check(files: &[(i64, HivePartition)], found: Vec<FoundPartition>, expect: &str) {
        let matched = match_partitions(OWN, files, found);
        let mut said = Vec::new();
        for shown in &matched.shown {
            let flags = [
                (shown.place_differs, "p"),
                (shown.name_differs, "n"),
                (shown.values_differ, "v"),
            ];
            let flags = flags.iter().filter(|(is, _)| *is).map(|(_, flag)| *flag);
            said.push(format!(
                "{}={}{}",
                shown.file,
                shown.id,
                flags.collect::<String>()
            ));
        }
        said.extend(matched.missing.iter().map(|file| format!("missing {file}")));
        said.extend(matched.surplus.iter().map(|id| format!("surplus {id}")));
        said.extend(matched.foreign.iter().map(|p| format!("foreign {}", p.id)));
        assert_eq!(said.join(", "), expect);
    }

    #[test]
    fn a_renamed_partition_is_found_by_its_id() {
        let renamed = FoundPartition {
            name: "date=2027-01-01/chunk=a".to_owned(),
            values: vec!["2027-01-01".to_owned(), "a".to_owned()],
            ..as_made(1, "a")
        };
        check(&[file(1, "a")], vec![renamed.clone()], "0=1nv");
        // What a restore by name alone had added beside it, and the journal knows since then.
        check(
            &[file(7, "a")],
            vec![renamed, as_made(7, "a")],
            "0=7, surplus 1",
        );
    }

    #[test]
    fn what_is_as_it_was_made_is_left_alone() {
        let files = [file(1, "a"), file(2, "b")];
        check(&files, vec![as_made(1, "a"), as_made(2, "b")], "0=1, 1=2");
        check(&files, vec![as_made(1, "a")], "0=1, missing 1");
        let elsewhere = FoundPartition {
            path: Some("s3a://else".to_owned()),
            ..as_made(2, "b")
        };
        check(&files, vec![as_made(1, "a"), elsewhere], "0=1, 1=2p");
        let other_columns = FoundPartition {
            has_columns: false,
            ..as_made(2, "b")
        };
        check(&files, vec![as_made(1, "a"), other_columns], "0=1, 1=2p");
        let no_storage = FoundPartition {
            is_whole: false,
            ..as_made(2, "b")
        };
        let expect = "0=1, missing 1, surplus 2";
        check(&files, vec![as_made(1, "a"), no_storage], expect);
    }

    #[test]
    fn an_id_of_another_table_is_not_ours() {
        let late = FoundPartition {
            kind: TableKind::Late,
            location: Some("s3a://else".to_owned()),
            ..as_made(1, "a")
        };
        check(&[file(1, "a")], vec![late], "missing 0, foreign 1");
        // In a metastore that was made anew, ids are others.
        check(&[file(1, "a")], vec![as_made(4, "a")], "0=4");
    }

    #[test]
    fn rows_of_others_are_told_from_a_second_look_at_ours() {
        let at = |id, place: &str| FoundPartition {
            location: Some(place.to_owned()),
            path: None,
            name: format!("date=x/chunk={id}"),
            ..as_made(id, "a")
        };
        let found = vec![
            as_made(1, "a"),
            at(2, "s3://spark/warehouse/_windrow/default.t/rows/a"),
            at(
                3,
                "s3a://spark/warehouse/_windrow/default.t/tables/rows/date=x/chunk=3",
            ),
            at(4, "s3a://spark/warehouse/_windrow/default.t2/rows/a"),
            at(5, "s3a://spark/warehouse"),
            FoundPartition {
                path: Some("s3a://else".to_owned()),
                ..at(6, &format!("{OWN}rows/a"))
            },
        ];
        let expect = "0=1, surplus 2, foreign 3, foreign 4, foreign 5, foreign 6";
        check(&[file(1, "a")], found, expect);
    }

    #[test]
    fn a_name_that_somebody_elses_partition_has_waits_until_that_is_gone() {
        let renamed = FoundPartition {
            name: "date=x/chunk=y".to_owned(),
            ..as_made(1, "a")
        };
        let inserted = FoundPartition {
            location: Some("s3a://else".to_owned()),
            ..as_made(9, "a")
        };
        check(&[file(1, "a")], vec![renamed, inserted], "0=1, foreign 9");
    }
}
