//! What the metastore must say for readers to see an epoch: Hive's tables, the view and the table
//! partitions as plain values. `io/catalog/hive` writes these values as rows. What Spark needs of
//! them was measured with Spark 3.4, 3.5 and Kyuubi; the property names are those of Spark's
//! `HiveExternalCatalog`.

mod check;
mod partitions;

pub use check::{Difference, FoundTable};
pub use partitions::{FoundPartition, Matched, Shown, match_partitions};

use crate::table::commit::{Chunk, FileKind, Genesis};
use crate::table::file::{ColumnType, column_types, late_column_types, rejects_column_types};
use crate::table::place::{Names, Place};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::fmt;

/// A table's name in Hive. Both parts are `[a-z0-9_]+`. Spark takes a name that begins with a
/// digit, for example `2024` or `1e5`, for a number unless it is quoted, so statements quote all
/// names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TableName {
    /// The name of the Hive database.
    pub database: String,
    /// The name that users query.
    pub table: String,
}

/// The longest name of a database or a table. Hive's own limit is 128 for both, and `__rejects`
/// must still fit.
const NAME_MAX_BYTES: usize = 119;

/// Suffixes of the tables that windrow makes beside the one that users query.
const SUFFIXES: [&str; 3] = ["__chunks", "__late", "__rejects"];

impl TableName {
    /// The name, if every reader can use it.
    ///
    /// # Errors
    /// What is wrong and what is allowed, as the end of a sentence.
    pub fn new(database: &str, table: &str) -> Result<Self, String> {
        for (what, name) in [("database", database), ("table", table)] {
            let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
            if name.is_empty() || !name.bytes().all(plain) {
                return Err(format!(
                    "{what} name \"{name}\" is not plain; write lower-case letters, digits and _"
                ));
            }
            if name.len() > NAME_MAX_BYTES {
                return Err(format!(
                    "{what} name \"{name}\" is too long; at most {NAME_MAX_BYTES} characters"
                ));
            }
        }
        if let Some(suffix) = SUFFIXES.iter().find(|s| table.ends_with(*s)) {
            return Err(format!(
                "table name \"{table}\" ends in {suffix}, as windrow's own tables do; \
                 choose another"
            ));
        }
        Ok(Self {
            database: database.to_owned(),
            table: table.to_owned(),
        })
    }

    /// The name of one of the four in Hive, without the database: for example `newtable__late`.
    #[must_use]
    pub fn of(&self, kind: TableKind) -> String {
        format!("{}{}", self.table, kind.suffix())
    }
}

/// Both parts with a dot between, for example `default.newtable`.
impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.database, self.table)
    }
}

/// One of the four names in Hive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TableKind {
    /// What users query: the rows without the partition columns.
    View,
    /// `__chunks`: the rows.
    Chunks,
    /// `__late`: late records.
    Late,
    /// `__rejects`: records that cannot be counted.
    Rejects,
}

impl TableKind {
    /// All four; the view comes first.
    pub const ALL: [TableKind; 4] = [
        TableKind::View,
        TableKind::Chunks,
        TableKind::Late,
        TableKind::Rejects,
    ];

    /// Those that have table partitions: all except the view.
    pub const PARTITIONED: [TableKind; 3] =
        [TableKind::Chunks, TableKind::Late, TableKind::Rejects];

    /// The table that a file belongs to.
    #[must_use]
    pub fn of(file: &FileKind) -> Self {
        match file {
            FileKind::Rows { .. } => TableKind::Chunks,
            FileKind::Late => TableKind::Late,
            FileKind::Rejects => TableKind::Rejects,
        }
    }

    /// What follows the table's own name in its name; empty for the view.
    #[must_use]
    pub fn suffix(self) -> &'static str {
        match self {
            TableKind::View => "",
            TableKind::Chunks => "__chunks",
            TableKind::Late => "__late",
            TableKind::Rejects => "__rejects",
        }
    }

    /// The word for it in the journal and in paths.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            TableKind::View => "view",
            TableKind::Chunks => "rows",
            TableKind::Late => "late",
            TableKind::Rejects => "rejects",
        }
    }
}

/// All that a Hive table or view needs to exist, except its ids and times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HiveTable {
    /// Which of the four it is.
    pub kind: TableKind,
    /// Its name without the database.
    pub name: String,
    /// `EXTERNAL_TABLE` or `VIRTUAL_VIEW`.
    pub table_type: &'static str,
    /// The view's query; `None` for a table.
    pub view_text: Option<String>,
    /// Its columns, without the partition columns.
    pub columns: Vec<ColumnType>,
    /// The columns by which it is partitioned; none for the view.
    pub partition_columns: Vec<ColumnType>,
    /// Where and how its rows are kept.
    pub storage: Storage,
    /// Its properties: rows of TABLE_PARAMS.
    pub params: Vec<(String, String)>,
}

/// Where and how rows are kept: a row of `SDS`, and one of `SERDES` with its `SERDE_PARAMS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    /// `None` for a view.
    pub location: Option<String>,
    /// The Java class that reads files.
    pub input_format: &'static str,
    /// The Java class that writes files.
    pub output_format: &'static str,
    /// The Java class that makes rows of what is in a file.
    pub serde: &'static str,
}

impl Storage {
    /// The rows of `SERDE_PARAMS`. Spark takes the place of a datasource table from `path` and not
    /// from the location; without it the table is empty.
    #[must_use]
    pub fn serde_params(&self) -> Vec<(&'static str, &str)> {
        let mut params = vec![("serialization.format", "1")];
        params.extend(self.location.as_deref().map(|location| ("path", location)));
        params
    }

    fn parquet(location: String) -> Self {
        Self {
            location: Some(location),
            input_format: "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat",
            output_format: "org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat",
            serde: "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe",
        }
    }

    /// The same that Spark writes for its own views. Nobody reads through it.
    fn view() -> Self {
        Self {
            location: None,
            input_format: "org.apache.hadoop.mapred.SequenceFileInputFormat",
            output_format: "org.apache.hadoop.hive.ql.io.HiveSequenceFileOutputFormat",
            serde: "org.apache.hadoop.hive.serde2.lazy.LazySimpleSerDe",
        }
    }
}

/// A table partition: it shows one file to readers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HivePartition {
    /// The table that it is part of.
    pub kind: TableKind,
    /// For example `date=2024-09-01/chunk=0000000012`.
    pub name: String,
    /// The values of the partition columns, in their order.
    pub values: Vec<String>,
    /// Where and how its rows are kept.
    pub storage: Storage,
}

/// The property that marks a table as windrow's; its value is [`TableName`] in full.
pub const MARK: &str = "windrow.table";

/// The type of a view.
pub const VIRTUAL_VIEW: &str = "VIRTUAL_VIEW";

/// The type of a table whose files stay when it is dropped.
const EXTERNAL_TABLE: &str = "EXTERNAL_TABLE";

/// The property by which Hive tells such a table from one that it manages.
const EXTERNAL: &str = "EXTERNAL";

/// The property that makes Hive delete the files of an external table with the table.
pub const PURGE: &str = "external.table.purge";

/// The version of Spark that writes tables in this way.
const SPARK_VERSION: &str = "3.4.2";

/// The property that holds [`SPARK_VERSION`].
const VERSION: &str = "spark.sql.create.version";

/// The property that holds Spark's schema, and the beginning of those that hold it in parts.
const SCHEMA: &str = "spark.sql.sources.schema";

/// How many characters of a property's value every version of Hive's schema can hold. Spark cuts
/// the JSON of a table's schema there too.
const PARAM_MAX_CHARS: usize = 4000;

/// The four tables of epoch 0, in the order of [`TableKind::ALL`].
///
/// Each commit compares them with what Hive has ([`HiveTable::differences`]). So whoever changes
/// them must see to it that what earlier versions made is still accepted.
#[must_use]
pub fn tables(name: &TableName, genesis: &Genesis) -> [HiveTable; 4] {
    let rows = column_types(&genesis.shape);
    TableKind::ALL.map(|kind| match kind {
        TableKind::View => view(name, rows.clone()),
        TableKind::Chunks => table(name, kind, &genesis.warehouse, rows.clone()),
        TableKind::Late => table(name, kind, &genesis.warehouse, late_column_types()),
        TableKind::Rejects => table(name, kind, &genesis.warehouse, rejects_column_types()),
    })
}

/// The table partition that shows the file `key` as `chunk`.
///
/// # Errors
/// The names cannot be those of a table partition. That is a mistake of windrow's, not of its user.
pub fn partition(warehouse: &Place, chunk: &Chunk, key: &str) -> Result<HivePartition, String> {
    let mut parts = Vec::new();
    if let FileKind::Rows { date } = &chunk.kind {
        parts.push(("date", date.as_str()));
    }
    parts.push(("chunk", chunk.name.as_str()));
    // Hive escapes other characters in the names of table partitions; windrow uses none of them.
    let plain = |value: &str| {
        !value.is_empty()
            && value
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if let Some((column, value)) = parts.iter().find(|(_, value)| !plain(value)) {
        return Err(format!(
            "{column} \"{value}\" of file \"{}\" is not plain",
            key
        ));
    }
    let Some((folder, _)) = key
        .rsplit_once('/')
        .filter(|(folder, _)| !folder.is_empty())
    else {
        return Err(format!("key \"{}\" has no folder of its own", key));
    };
    Ok(HivePartition {
        kind: TableKind::of(&chunk.kind),
        name: parts
            .iter()
            .map(|(column, value)| format!("{column}={value}"))
            .collect::<Vec<_>>()
            .join("/"),
        values: parts
            .into_iter()
            .map(|(_, value)| value.to_owned())
            .collect(),
        storage: Storage::parquet(warehouse.uri_of(folder)),
    })
}

fn view(name: &TableName, columns: Vec<ColumnType>) -> HiveTable {
    let list = columns
        .iter()
        .map(|c| quoted(&c.name))
        .collect::<Vec<_>>()
        .join(", ");
    let chunks = name.of(TableKind::Chunks);
    let text = format!(
        "SELECT {list} FROM {}.{}",
        quoted(&name.database),
        quoted(&chunks)
    );
    let mut params = vec![
        (MARK.to_owned(), name.to_string()),
        (VERSION.to_owned(), SPARK_VERSION.to_owned()),
        (
            "view.catalogAndNamespace.numParts".to_owned(),
            "2".to_owned(),
        ),
        (
            "view.catalogAndNamespace.part.0".to_owned(),
            "spark_catalog".to_owned(),
        ),
        (
            "view.catalogAndNamespace.part.1".to_owned(),
            name.database.clone(),
        ),
        (
            "view.query.out.numCols".to_owned(),
            columns.len().to_string(),
        ),
    ];
    for (i, column) in columns.iter().enumerate() {
        params.push((format!("view.query.out.col.{i}"), column.name.clone()));
    }
    params.extend(schema_params(&columns, &[]));
    HiveTable {
        kind: TableKind::View,
        name: name.of(TableKind::View),
        table_type: VIRTUAL_VIEW,
        view_text: Some(text),
        columns,
        partition_columns: Vec::new(),
        storage: Storage::view(),
        params,
    }
}

fn table(
    name: &TableName,
    kind: TableKind,
    warehouse: &Place,
    columns: Vec<ColumnType>,
) -> HiveTable {
    let partition_columns = match kind {
        TableKind::Chunks => vec![text_column("date"), text_column("chunk")],
        _ => vec![text_column("chunk")],
    };
    let mut params = vec![
        (MARK.to_owned(), name.to_string()),
        (EXTERNAL.to_owned(), "TRUE".to_owned()),
        (VERSION.to_owned(), SPARK_VERSION.to_owned()),
        (
            "spark.sql.sources.provider".to_owned(),
            "parquet".to_owned(),
        ),
        // Without it Spark looks for table partitions in directories and not in the metastore.
        (
            "spark.sql.partitionProvider".to_owned(),
            "catalog".to_owned(),
        ),
    ];
    params.extend(schema_params(&columns, &partition_columns));
    // This directory stays empty. What lies in a table's own location can be found by listing it,
    // and none of windrow's files may be found in that way.
    let folder = Names::new(&name.database, &name.table).empty_folder(kind.word());
    HiveTable {
        kind,
        name: name.of(kind),
        table_type: EXTERNAL_TABLE,
        view_text: None,
        columns,
        partition_columns,
        storage: Storage::parquet(warehouse.uri_of(&folder)),
        params,
    }
}

/// The schema, as Spark keeps it in a table's properties: JSON in numbered parts, which all
/// versions of Spark read. Newer versions also know a single property.
fn schema_params(
    columns: &[ColumnType],
    partition_columns: &[ColumnType],
) -> Vec<(String, String)> {
    let fields: Vec<_> = columns.iter().chain(partition_columns).map(field).collect();
    let schema: Vec<char> = json!({ "type": "struct", "fields": fields })
        .to_string()
        .chars()
        .collect();
    let parts: Vec<String> = schema
        .chunks(PARAM_MAX_CHARS)
        .map(String::from_iter)
        .collect();
    let mut params = vec![(format!("{SCHEMA}.numParts"), parts.len().to_string())];
    for (i, part) in parts.into_iter().enumerate() {
        params.push((format!("{SCHEMA}.part.{i}"), part));
    }
    if !partition_columns.is_empty() {
        params.push((
            format!("{SCHEMA}.numPartCols"),
            partition_columns.len().to_string(),
        ));
    }
    for (i, column) in partition_columns.iter().enumerate() {
        params.push((format!("{SCHEMA}.partCol.{i}"), column.name.clone()));
    }
    params
}

fn field(column: &ColumnType) -> serde_json::Value {
    let spark: serde_json::Value =
        serde_json::from_str(&column.spark).expect("a column's type is JSON");
    json!({ "name": column.name, "type": spark, "nullable": true, "metadata": {} })
}

fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

fn text_column(name: &str) -> ColumnType {
    ColumnType {
        name: name.to_owned(),
        hive: "string".to_owned(),
        spark: "\"string\"".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::shape::{Aggregate, Function, Number, Shape};
    use std::collections::BTreeMap;

    fn genesis(shape: Shape) -> Genesis {
        Genesis {
            shape,
            warehouse: "s3a://spark/warehouse".parse().unwrap(),
            cluster_id: "c".to_owned(),
            topic_id: String::new(),
            start_offsets: BTreeMap::new(),
            empty_file: String::new(),
            adopted: None,
        }
    }

    pub(super) fn newtable() -> [HiveTable; 4] {
        let name = TableName::new("default", "newtable").unwrap();
        tables(
            &name,
            &genesis(Shape::count_by_origin("test-topic", 10_000, 10_000)),
        )
    }

    fn param<'a>(table: &'a HiveTable, key: &str) -> Option<&'a str> {
        table
            .params
            .iter()
            .find(|(k, _)| k == key)
            .map(|(_, v)| v.as_str())
    }

    #[test]
    fn names_that_need_quoting_or_clash_are_refused() {
        assert_eq!(
            TableName::new("default", "t_1").unwrap().to_string(),
            "default.t_1"
        );
        for (database, table) in [
            ("", "t"),
            ("default", "T"),
            ("default", "a-b"),
            ("a.b", "t"),
            ("default", "x__chunks"),
            ("default", "é"),
        ] {
            assert!(
                TableName::new(database, table).is_err(),
                "{database}.{table}"
            );
        }
        assert!(TableName::new("default", &"x".repeat(120)).is_err());
    }

    #[test]
    fn view_has_exactly_the_columns_of_the_spark_job() {
        let [view, ..] = newtable();
        assert_eq!(
            view.view_text.as_deref(),
            Some("SELECT `window`, `origin`, `count` FROM `default`.`newtable__chunks`")
        );
        let columns: Vec<_> = view
            .columns
            .iter()
            .map(|c| (c.name.as_str(), c.hive.as_str()))
            .collect();
        assert_eq!(
            columns,
            [
                ("window", "struct<start:timestamp,end:timestamp>"),
                ("origin", "string"),
                ("count", "bigint")
            ]
        );
        assert_eq!(param(&view, "spark.sql.sources.provider"), None);
        assert_eq!(param(&view, "view.query.out.col.2"), Some("count"));
        assert_eq!(param(&view, "windrow.table"), Some("default.newtable"));
        assert_eq!(view.storage.serde_params(), [("serialization.format", "1")]);
    }

    #[test]
    fn schema_lists_partition_columns_last() {
        let [_, chunks, late, rejects] = newtable();
        let schema: serde_json::Value =
            serde_json::from_str(param(&chunks, "spark.sql.sources.schema.part.0").unwrap())
                .unwrap();
        let names: Vec<_> = schema["fields"]
            .as_array()
            .unwrap()
            .iter()
            .map(|f| f["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["window", "origin", "count", "date", "chunk"]);
        assert_eq!(
            schema["fields"][0]["type"]["fields"][1]["type"],
            "timestamp"
        );
        assert_eq!(schema["fields"][2]["type"], "long");
        assert_eq!(
            param(&chunks, "spark.sql.sources.schema.numPartCols"),
            Some("2")
        );
        assert_eq!(
            param(&late, "spark.sql.sources.schema.partCol.0"),
            Some("chunk")
        );
        assert_eq!(
            param(&rejects, "spark.sql.sources.schema.numPartCols"),
            Some("1")
        );
        assert_eq!(
            chunks.storage.serde_params()[1],
            (
                "path",
                "s3a://spark/warehouse/_windrow/default.newtable/tables/rows"
            )
        );
    }

    #[test]
    fn long_schemas_are_cut_into_parts_that_join_again() {
        let mut shape = Shape::count_by_origin("t", 10, 10);
        for i in 0..100 {
            shape.aggregates.push(Aggregate {
                function: Function::Sum,
                path: vec!["bytes".to_owned()],
                number: Number::Decimal {
                    precision: 18,
                    scale: 2,
                },
                name: format!("sum_{i}"),
            });
        }
        let name = TableName::new("default", "wide").unwrap();
        let [view, ..] = tables(&name, &genesis(shape));
        let parts: usize = param(&view, "spark.sql.sources.schema.numParts")
            .unwrap()
            .parse()
            .unwrap();
        assert!(parts > 1);
        let text: String = (0..parts)
            .map(|i| param(&view, &format!("spark.sql.sources.schema.part.{i}")).unwrap())
            .inspect(|part| assert!(part.len() <= 4000))
            .collect();
        let schema: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(schema["fields"].as_array().unwrap().len(), 103);
        assert_eq!(schema["fields"][3]["type"], "decimal(38,2)");
    }

    #[test]
    fn partition_lies_in_the_folder_of_its_file() {
        let mut chunk = Chunk {
            kind: FileKind::Rows {
                date: "2024-09-01".to_owned(),
            },
            name: "0000000012".to_owned(),
        };
        let key = "_windrow/default.newtable/rows/1-12-ab/part.parquet";
        let rows = partition(&"s3a://spark/warehouse".parse().unwrap(), &chunk, key).unwrap();
        assert_eq!(rows.name, "date=2024-09-01/chunk=0000000012");
        assert_eq!(rows.values, ["2024-09-01", "0000000012"]);
        assert_eq!(
            rows.storage.location.as_deref(),
            Some("s3a://spark/warehouse/_windrow/default.newtable/rows/1-12-ab")
        );
        chunk.kind = FileKind::Late;
        let late = partition(&"/data/warehouse/".parse().unwrap(), &chunk, key).unwrap();
        assert_eq!(late.name, "chunk=0000000012");
        assert!(
            late.storage
                .location
                .unwrap()
                .starts_with("file:/data/warehouse/_windrow/")
        );
        let place = "/w".parse().unwrap();
        assert!(partition(&place, &chunk, "part.parquet").is_err());
        chunk.name = "a/b".to_owned();
        assert!(partition(&place, &chunk, key).is_err());
    }
}
