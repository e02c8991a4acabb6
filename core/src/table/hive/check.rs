//! Whether Hive still has a table as windrow made it, as far as readers and `DROP TABLE` go by it.
//! What they do not go by may change: statistics, comments, times, a user's own properties.

use super::{EXTERNAL, EXTERNAL_TABLE, HiveTable, PURGE, SCHEMA, VERSION, VIRTUAL_VIEW};
use crate::table::columns::ColumnType;
use serde_json::Value;
use std::collections::BTreeMap;

/// What Hive has of a table that windrow made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundTable {
    /// Its type, for example `EXTERNAL_TABLE`; empty where Hive has none.
    pub table_type: String,
    /// The view's query; `None` for a table.
    pub view_text: Option<String>,
    /// The names and types of its columns, in their order, without the partition columns.
    pub columns: Vec<(String, String)>,
    /// The same of the columns by which it is partitioned.
    pub partition_columns: Vec<(String, String)>,
    /// Its properties: rows of TABLE_PARAMS.
    pub params: BTreeMap<String, String>,
}

/// What is no longer as windrow made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// Its type, for example `MANAGED_TABLE` for an `EXTERNAL_TABLE`.
    Type,
    /// The view's query.
    Query,
    /// The columns.
    Columns,
    /// The columns by which it is partitioned.
    PartitionColumns,
    /// The property of this name. Spark's schema, which has several, goes by the name that they
    /// begin with.
    Property(String),
}

/// What differs, for example `its columns`.
impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Difference::Type => f.write_str("its type"),
            Difference::Query => f.write_str("its query"),
            Difference::Columns => f.write_str("its columns"),
            Difference::PartitionColumns => f.write_str("its partition columns"),
            Difference::Property(name) => write!(f, "its property {name}"),
        }
    }
}

impl HiveTable {
    /// What Hive has other than windrow made it.
    #[must_use]
    pub fn differences(&self, found: &FoundTable) -> Vec<Difference> {
        let mut differences = Vec::new();
        if self.table_type != found.table_type {
            differences.push(Difference::Type);
        }
        // A table may have an empty one.
        let found_text = found.view_text.as_deref().filter(|text| !text.is_empty());
        if self.view_text.as_deref() != found_text {
            differences.push(Difference::Query);
        }
        if !are_columns(&self.columns, &found.columns) {
            differences.push(Difference::Columns);
        }
        if !are_columns(&self.partition_columns, &found.partition_columns) {
            differences.push(Difference::PartitionColumns);
        }
        for (key, value) in &self.params {
            // Spark writes its own version with every change, and reads the schema from one
            // property where that is there, and else from parts.
            let compared =
                key != VERSION && key != SCHEMA_NUM_PARTS && !key.starts_with(SCHEMA_PARTS);
            let there = found.params.get(key);
            if compared && !there.is_some_and(|there| there.eq_ignore_ascii_case(value)) {
                differences.push(Difference::Property(key.clone()));
            }
        }
        if self.table_type == EXTERNAL_TABLE && found.is_purged_when_dropped() {
            differences.push(Difference::Property(PURGE.to_owned()));
        }
        let made = self
            .params
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()));
        let made: BTreeMap<&str, &str> = made.collect();
        let made = schema(|key| made.get(key).copied());
        if made != schema(|key| found.params.get(key).map(String::as_str)) {
            differences.push(Difference::Property(SCHEMA.to_owned()));
        }
        differences
    }
}

impl FoundTable {
    /// Whether a `DROP TABLE` may delete files too. Hive deletes the folders of all table
    /// partitions of a table that it manages (`ALTER TABLE ... SET TBLPROPERTIES
    /// ('EXTERNAL'='FALSE')` makes it one), and of an external table that is to be purged.
    #[must_use]
    pub fn drop_deletes_files(&self) -> bool {
        let is_external = self.table_type == EXTERNAL_TABLE && self.is_true(EXTERNAL);
        self.table_type != VIRTUAL_VIEW && (!is_external || self.is_purged_when_dropped())
    }

    fn is_purged_when_dropped(&self) -> bool {
        self.is_true(PURGE)
    }

    fn is_true(&self, property: &str) -> bool {
        let value = self.params.get(property);
        value.is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }
}

/// The beginnings of the properties that hold Spark's schema in parts. Those of the partition
/// columns' names, `numPartCols` and `partCol.0`, are others.
const SCHEMA_PARTS: &str = "spark.sql.sources.schema.part.";
const SCHEMA_NUM_PARTS: &str = "spark.sql.sources.schema.numParts";

/// Hive keeps names in lower case, and types are keywords.
fn are_columns(made: &[ColumnType], found: &[(String, String)]) -> bool {
    made.len() == found.len()
        && made.iter().zip(found).all(|(made, (name, of_type))| {
            made.name.eq_ignore_ascii_case(name) && made.hive.eq_ignore_ascii_case(of_type)
        })
}

/// The schema that Spark finds in a table's properties, without comments; `None` when there is none
/// that can be read.
fn schema<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Option<Value> {
    let text = match get(SCHEMA) {
        Some(text) => text.to_owned(),
        None => {
            let parts: usize = get(SCHEMA_NUM_PARTS)?.parse().ok()?;
            (0..parts)
                .map(|i| get(&format!("{SCHEMA_PARTS}{i}")))
                .collect::<Option<String>>()?
        }
    };
    let mut schema = serde_json::from_str(&text).ok()?;
    leave_out_comments(&mut schema);
    Some(schema)
}

/// Comments are kept as metadata of a field.
fn leave_out_comments(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.remove("metadata");
            fields.values_mut().for_each(leave_out_comments);
        }
        Value::Array(values) => values.iter_mut().for_each(leave_out_comments),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::newtable;
    use super::*;

    /// The table as Hive has it right after windrow has made it.
    fn found(table: &HiveTable) -> FoundTable {
        let pairs = |columns: &[ColumnType]| {
            let pairs = columns.iter().map(|c| (c.name.clone(), c.hive.clone()));
            pairs.collect()
        };
        FoundTable {
            table_type: table.table_type.to_owned(),
            view_text: table.view_text.clone(),
            columns: pairs(&table.columns),
            partition_columns: pairs(&table.partition_columns),
            params: table.params.iter().cloned().collect(),
        }
    }

    #[test]
    fn what_spark_and_people_add_is_no_difference() {
        for table in newtable() {
            let mut there = found(&table);
            assert_eq!(table.differences(&there), []);
            let set = |there: &mut FoundTable, key: &str, value: &str| {
                there.params.insert(key.to_owned(), value.to_owned())
            };
            set(&mut there, "transient_lastDdlTime", "1725212535");
            set(&mut there, "spark.sql.statistics.totalSize", "17");
            set(&mut there, "note", "ours");
            set(&mut there, VERSION, "3.5.3");
            assert_eq!(table.differences(&there), []);
            // Spark writes a schema that it has changed as one property, here with a comment.
            let schema = there
                .params
                .remove("spark.sql.sources.schema.part.0")
                .unwrap();
            there.params.remove(SCHEMA_NUM_PARTS);
            let commented =
                schema.replacen("\"metadata\":{}", "\"metadata\":{\"comment\":\"c\"}", 1);
            assert_ne!(schema, commented);
            set(&mut there, SCHEMA, &commented);
            assert_eq!(table.differences(&there), []);
            // It reads that one also where older parts are left.
            set(&mut there, SCHEMA_NUM_PARTS, "1");
            set(&mut there, "spark.sql.sources.schema.part.0", "{}");
            assert_eq!(table.differences(&there), []);
        }
    }

    #[test]
    fn whatever_readers_go_by_is_a_difference() {
        let [view, chunks, ..] = newtable();
        let check = |table: &HiveTable, damage: &dyn Fn(&mut FoundTable), expect: &str| {
            let mut there = found(table);
            damage(&mut there);
            let said: Vec<_> = table
                .differences(&there)
                .iter()
                .map(Difference::to_string)
                .collect();
            assert_eq!(said.join(", "), expect);
        };
        let set = |key: &'static str, value: &'static str| {
            move |there: &mut FoundTable| {
                there.params.insert(key.to_owned(), value.to_owned());
            }
        };
        check(
            &view,
            &|there| there.view_text = Some("SELECT 1".to_owned()),
            "its query",
        );
        check(&view, &|there| there.columns.truncate(1), "its columns");
        check(
            &chunks,
            &|there| there.columns[2].1 = "int".to_owned(),
            "its columns",
        );
        check(&chunks, &|there| there.columns.swap(0, 1), "its columns");
        let partitioned = |there: &mut FoundTable| there.partition_columns[0].0 = "day".to_owned();
        check(&chunks, &partitioned, "its partition columns");
        let columns = "view.query.out.numCols";
        check(
            &view,
            &set(columns, "1"),
            "its property view.query.out.numCols",
        );
        check(&chunks, &set("EXTERNAL", "FALSE"), "its property EXTERNAL");
        let managed = |there: &mut FoundTable| there.table_type = "MANAGED_TABLE".to_owned();
        check(&chunks, &managed, "its type");
        let purge = "its property external.table.purge";
        check(&chunks, &set("external.table.purge", "TRUE"), purge);
        check(&chunks, &set("external.table.purge", "false"), "");
        let lose = |key: &'static str| {
            move |there: &mut FoundTable| {
                there.params.remove(key).unwrap();
            }
        };
        let provider = "its property spark.sql.sources.provider";
        check(&chunks, &lose("spark.sql.sources.provider"), provider);
        let schema = "its property spark.sql.sources.schema";
        check(&view, &lose("spark.sql.sources.schema.part.0"), schema);
        check(
            &view,
            &set(SCHEMA, "{\"type\":\"struct\",\"fields\":[]}"),
            schema,
        );
        check(&view, &set(SCHEMA, "{"), schema);
    }

    #[test]
    fn a_table_whose_drop_deletes_the_files_is_known_as_such() {
        let [view, chunks, ..] = newtable();
        let check = |table: &HiveTable, damage: &dyn Fn(&mut FoundTable), expect: bool| {
            let mut there = found(table);
            damage(&mut there);
            assert_eq!(there.drop_deletes_files(), expect, "{there:?}");
        };
        let set = |key: &'static str, value: &'static str| {
            move |there: &mut FoundTable| {
                there.params.insert(key.to_owned(), value.to_owned());
            }
        };
        check(&view, &|_| {}, false);
        check(&chunks, &|_| {}, false);
        let of_type =
            |name: &'static str| move |there: &mut FoundTable| there.table_type = name.to_owned();
        for name in ["MANAGED_TABLE", "MATERIALIZED_VIEW", ""] {
            check(&chunks, &of_type(name), true);
        }
        check(&chunks, &set("EXTERNAL", "FALSE"), true);
        check(&chunks, &set("EXTERNAL", "true"), false);
        check(&chunks, &set("external.table.purge", "True"), true);
        let not_marked = |there: &mut FoundTable| drop(there.params.remove("EXTERNAL"));
        check(&chunks, &not_marked, true);
    }
}
