//! The table partitions that are there: whether they show the files that the journal knows, and
//! their restoring where they do not. Which one shows which file is decided in
//! `windrow_core::table::hive`.

use super::super::session::{Session, args};
use super::{Hive, HiveTableRow};
use tokio_postgres::Row;
use windrow_core::table::commit::{CatalogError, Genesis, NewFile};
use windrow_core::table::hive::{
    self, FoundPartition, HivePartition, Matched, Shown, TableKind, TableName, match_partitions,
};
use windrow_core::table::place::Names;
use windrow_core::values::cause::Cause;

/// How many of the newest files are looked for in Hive at the first commit over a connection. It is
/// never all of them: the look must end within a transaction's time however old the table is.
const FIRST_LOOK_FILES: i64 = 10_000;

/// The same at each later commit.
const LATER_LOOK_FILES: i64 = 8;

/// All table partitions are counted again after as many commits as there are thousands of files. So
/// a commit counts a thousand on average, whatever the age of the table.
const FILES_A_COMMIT: i64 = 1000;

/// How many table partitions that are not windrow's a message names.
const NAMED_MAX: usize = 3;

/// What the next commit over this connection looks at.
#[derive(Default)]
pub(super) struct Looks {
    /// The first look found all table partitions, so a few are enough from now on.
    verified: bool,
    /// How many commits may pass before all table partitions are counted again.
    commits_to_count: i64,
}

impl Looks {
    /// No table partition of a new table can be missing.
    pub(super) fn of_a_new_table() -> Self {
        Self {
            verified: true,
            ..Self::default()
        }
    }
}

/// What [`Hive::restore_partitions`] has done.
pub(super) struct RestoredPartitions {
    /// Files that another table partition shows now: its id and the file's key.
    pub(super) part_ids: Vec<(i64, String)>,
    /// Which table partitions are not windrow's, and what to do with them; `None` where there is
    /// none.
    pub(super) foreign: Option<String>,
}

impl Hive {
    /// Looks for the table partitions of the newest files that are committed, and now and then
    /// counts them all.
    pub(super) async fn check_partitions(
        &mut self,
        db: &Session,
        name: &TableName,
        genesis: &Genesis,
        tables: &[HiveTableRow],
    ) -> Result<(), CatalogError> {
        self.check_newest(db, name, genesis, tables).await?;
        self.looks.verified = true;
        if self.looks.commits_to_count > 0 {
            self.looks.commits_to_count -= 1;
            return Ok(());
        }
        let files = check_counts(db, name, tables).await?;
        self.looks.commits_to_count = files / FILES_A_COMMIT;
        Ok(())
    }

    async fn check_newest(
        &self,
        db: &Session,
        name: &TableName,
        genesis: &Genesis,
        tables: &[HiveTableRow],
    ) -> Result<(), CatalogError> {
        let limit = if self.looks.verified {
            LATER_LOOK_FILES
        } else {
            FIRST_LOOK_FILES
        };
        let table_ids: Vec<i64> = tables.iter().map(|row| row.id).collect();
        // The names and the values are those of `windrow_core::table::hive::partition`.
        let missing = db
            .query_opt(
                "SELECT f.key FROM (SELECT key, part_id, \
                     CASE kind WHEN 'rows' THEN 'date=' || date || '/' ELSE '' END \
                       || 'chunk=' || chunk AS name, \
                     CASE kind WHEN 'rows' THEN ARRAY[date, chunk] ELSE ARRAY[chunk] END AS vals \
                   FROM windrow_1.file WHERE database = $1 AND \"table\" = $2 \
                   AND retired_at IS NULL ORDER BY epoch DESC LIMIT $3) AS f \
                 WHERE NOT EXISTS (SELECT FROM hive.\"PARTITIONS\" AS p \
                     JOIN hive.\"SDS\" AS s ON s.\"SD_ID\" = p.\"SD_ID\" \
                     JOIN hive.\"SERDE_PARAMS\" AS v ON v.\"SERDE_ID\" = s.\"SERDE_ID\" \
                       AND v.\"PARAM_KEY\" = 'path' \
                   WHERE p.\"PART_ID\" = f.part_id AND p.\"TBL_ID\" = ANY($4) \
                   AND p.\"PART_NAME\" = f.name \
                   AND s.\"LOCATION\" = $5 || regexp_replace(f.key, '/[^/]*$', '') \
                   AND v.\"PARAM_VALUE\" = s.\"LOCATION\" \
                   AND f.vals = ARRAY(SELECT k.\"PART_KEY_VAL\" \
                     FROM hive.\"PARTITION_KEY_VALS\" AS k WHERE k.\"PART_ID\" = p.\"PART_ID\" \
                     ORDER BY k.\"INTEGER_IDX\")::text[]) \
                 LIMIT 1",
                args![
                    name.database,
                    name.table,
                    limit,
                    table_ids,
                    genesis.warehouse.uri_of("")
                ],
            )
            .await?;
        let Some(row) = missing else { return Ok(()) };
        let key: &str = db.read(&row, 0, "windrow_1.file.key")?;
        let why = format!(
            "table was dropped: the table partition of file \"{key}\" is missing or altered; \
             run windrow restore, or choose another table name"
        );
        Err(db.stop_for(Cause::TableDropped, why))
    }

    /// Makes the table partitions show `files` and nothing else of windrow's. Each file comes with
    /// the id of the table partition that the journal knows. What is somebody else's stays.
    pub(super) async fn restore_partitions(
        &mut self,
        db: &Session,
        name: &TableName,
        genesis: &Genesis,
        tables: &[HiveTableRow],
        files: &[(i64, NewFile)],
    ) -> Result<RestoredPartitions, CatalogError> {
        let wanted = files
            .iter()
            .map(|(id, file)| Ok((*id, hive::partition(&genesis.warehouse, file)?)))
            .collect::<Result<Vec<_>, String>>()
            .map_err(|why| db.stop(why))?;
        let found = found_partitions(db, name, tables).await?;
        let own = Names::new(&name.database, &name.table);
        let own = genesis.warehouse.uri_of(own.prefix());
        let matched = match_partitions(&own, &wanted, found);
        delete_partitions(db, &matched.surplus).await?;
        relocate(db, &matched, &wanted).await?;
        rename(db, &matched, &wanted).await?;
        let missing: Vec<NewFile> = matched
            .missing
            .iter()
            .map(|i| files[*i].1.clone())
            .collect();
        let added = self
            .add_partitions(db, &genesis.warehouse, tables, name, &missing)
            .await?;
        let shown = matched.shown.iter().map(|shown| (shown.id, shown.file));
        let missing = matched.missing.iter().copied();
        let part_ids = shown
            .chain(added.into_iter().zip(missing))
            .filter(|(id, file)| *id != files[*file].0)
            .map(|(id, file)| (id, files[file].1.key.clone()))
            .collect();
        Ok(RestoredPartitions {
            part_ids,
            foreign: describe_foreign(name, &matched.foreign),
        })
    }
}

/// Sees that each table has as many table partitions as the journal knows files of it. Returns how
/// many those are in all.
async fn check_counts(
    db: &Session,
    name: &TableName,
    tables: &[HiveTableRow],
) -> Result<i64, CatalogError> {
    let mut total = 0;
    let kinds = TableKind::PARTITIONED.map(|kind| (kind, name.of(kind)));
    for (kind, table) in &kinds {
        let Some(row) = tables.iter().find(|row| row.name == *table) else {
            continue;
        };
        let counts = db
            .query_one(
                "SELECT (SELECT count(*) FROM hive.\"PARTITIONS\" WHERE \"TBL_ID\" = $1), \
                   (SELECT count(*) FROM windrow_1.file WHERE database = $2 AND \"table\" = $3 \
                     AND kind = $4 AND retired_at IS NULL)",
                args![row.id, name.database, name.table, kind.word()],
            )
            .await?;
        let partitions: i64 = db.read(&counts, 0, "the number of table partitions")?;
        let files: i64 = db.read(&counts, 1, "the number of files")?;
        if partitions != files {
            let why = format!(
                "table was dropped or altered: \"{}.{table}\" has {partitions} table partitions \
                 in Hive, and {files} files by the journal, so somebody has added or dropped \
                 some; run windrow restore, or choose another table name",
                name.database
            );
            return Err(db.stop_for(Cause::TableDropped, why));
        }
        total += files;
    }
    Ok(total)
}

/// All table partitions of the tables. It is one statement, so that all is as at one moment.
async fn found_partitions(
    db: &Session,
    name: &TableName,
    tables: &[HiveTableRow],
) -> Result<Vec<FoundPartition>, CatalogError> {
    let kind_of = |table: i64| {
        let row = tables.iter().find(|row| row.id == table)?;
        let kinds = TableKind::ALL.into_iter();
        kinds.into_iter().find(|kind| name.of(*kind) == row.name)
    };
    let table_ids: Vec<i64> = tables.iter().map(|row| row.id).collect();
    let rows = db
        .query(
            "SELECT p.\"PART_ID\"::bigint, p.\"TBL_ID\"::bigint, p.\"PART_NAME\", k.vals, \
               s.\"LOCATION\", v.\"PARAM_VALUE\", \
               s.\"CD_ID\" IS NOT DISTINCT FROM o.\"CD_ID\", d.\"SERDE_ID\" IS NOT NULL \
             FROM hive.\"PARTITIONS\" AS p \
               JOIN hive.\"TBLS\" AS t ON t.\"TBL_ID\" = p.\"TBL_ID\" \
               LEFT JOIN hive.\"SDS\" AS o ON o.\"SD_ID\" = t.\"SD_ID\" \
               LEFT JOIN hive.\"SDS\" AS s ON s.\"SD_ID\" = p.\"SD_ID\" \
               LEFT JOIN hive.\"SERDES\" AS d ON d.\"SERDE_ID\" = s.\"SERDE_ID\" \
               LEFT JOIN hive.\"SERDE_PARAMS\" AS v ON v.\"SERDE_ID\" = d.\"SERDE_ID\" \
                 AND v.\"PARAM_KEY\" = 'path' \
               LEFT JOIN (SELECT \"PART_ID\", \
                   array_agg(COALESCE(\"PART_KEY_VAL\", '')::text \
                     ORDER BY \"INTEGER_IDX\") AS vals \
                 FROM hive.\"PARTITION_KEY_VALS\" GROUP BY 1) AS k \
                 ON k.\"PART_ID\" = p.\"PART_ID\" \
             WHERE p.\"TBL_ID\" = ANY($1) ORDER BY p.\"PART_ID\"",
            args![table_ids],
        )
        .await?;
    let read = |row: &Row| -> Result<Option<FoundPartition>, CatalogError> {
        let Some(kind) = kind_of(db.read(row, 1, "Hive's PARTITIONS.TBL_ID")?) else {
            return Ok(None);
        };
        let partition_name: Option<String> = db.read(row, 2, "Hive's PARTITIONS.PART_NAME")?;
        let values: Option<Vec<String>> =
            db.read(row, 3, "Hive's PARTITION_KEY_VALS.PART_KEY_VAL")?;
        Ok(Some(FoundPartition {
            id: db.read(row, 0, "Hive's PARTITIONS.PART_ID")?,
            kind,
            name: partition_name.unwrap_or_default(),
            values: values.unwrap_or_default(),
            location: db.read(row, 4, "Hive's SDS.LOCATION")?,
            path: db.read(row, 5, "Hive's SERDE_PARAMS.PARAM_VALUE")?,
            has_columns: db.read(row, 6, "Hive's SDS.CD_ID")?,
            is_whole: db.read(row, 7, "Hive's SERDES.SERDE_ID")?,
        }))
    };
    rows.iter()
        .filter_map(|row| read(row).transpose())
        .collect()
}

/// The tables whose rows belong to a table partition. Not all schemas have all of them.
const OF_PARTITION: [&str; 5] = [
    "PARTITION_KEY_VALS",
    "PARTITION_PARAMS",
    "PART_COL_STATS",
    "PART_COL_PRIVS",
    "PART_PRIVS",
];

/// The same for a row of `SDS`.
const OF_STORAGE: [&str; 6] = [
    "SD_PARAMS",
    "BUCKETING_COLS",
    "SORT_COLS",
    "SKEWED_COL_NAMES",
    "SKEWED_COL_VALUE_LOC_MAP",
    "SKEWED_VALUES",
];

/// Deletes table partitions with all that belongs to them, as Hive's `DROP PARTITION` does, except
/// for the files.
async fn delete_partitions(db: &Session, ids: &[i64]) -> Result<(), CatalogError> {
    if ids.is_empty() {
        return Ok(());
    }
    let ids = ids.to_vec();
    let rows = db
        .query(
            "SELECT s.\"SD_ID\"::bigint, s.\"SERDE_ID\"::bigint FROM hive.\"PARTITIONS\" AS p \
               JOIN hive.\"SDS\" AS s ON s.\"SD_ID\" = p.\"SD_ID\" WHERE p.\"PART_ID\" = ANY($1)",
            args![ids],
        )
        .await?;
    let (mut storages, mut serdes) = (Vec::new(), Vec::new());
    for row in &rows {
        storages.push(db.read::<i64>(row, 0, "Hive's SDS.SD_ID")?);
        serdes.extend(db.read::<Option<i64>>(row, 1, "Hive's SDS.SERDE_ID")?);
    }
    delete_from(db, &OF_PARTITION, "PART_ID", &ids).await?;
    delete_from(db, &["PARTITIONS"], "PART_ID", &ids).await?;
    // Somebody's hand may have let two share a row.
    let unused = |column: &str, others: &[&str]| {
        let used = others.iter().map(|other| {
            format!(
                " AND NOT EXISTS (SELECT FROM hive.\"{other}\" AS o WHERE o.\"{column}\" = n.id)"
            )
        });
        format!(
            "SELECT DISTINCT n.id FROM unnest($1) AS n (id) WHERE true{}",
            used.collect::<String>()
        )
    };
    let storages = read_ids(db, &unused("SD_ID", &["PARTITIONS", "TBLS"]), storages).await?;
    delete_from(db, &OF_STORAGE, "SD_ID", &storages).await?;
    delete_from(db, &["SDS"], "SD_ID", &storages).await?;
    let serdes = read_ids(db, &unused("SERDE_ID", &["SDS"]), serdes).await?;
    delete_from(db, &["SERDE_PARAMS", "SERDES"], "SERDE_ID", &serdes).await
}

async fn read_ids(db: &Session, sql: &str, ids: Vec<i64>) -> Result<Vec<i64>, CatalogError> {
    let rows = db.query(sql, args![ids]).await?;
    rows.iter().map(|row| db.read(row, 0, "an id")).collect()
}

/// Deletes the rows with these ids from those of the tables that are there.
async fn delete_from(
    db: &Session,
    tables: &[&str],
    column: &str,
    ids: &[i64],
) -> Result<(), CatalogError> {
    let there = db
        .query(
            "SELECT name FROM unnest($1) WITH ORDINALITY AS t (name, position) \
             WHERE to_regclass($2 || '.' || quote_ident(name)) IS NOT NULL ORDER BY position",
            args![tables.to_vec(), db.hive_schema()],
        )
        .await?;
    for row in &there {
        let table: &str = row.get(0);
        let column = match table {
            "SKEWED_VALUES" => "SD_ID_OID",
            _ => column,
        };
        let sql = format!("DELETE FROM hive.\"{table}\" WHERE \"{column}\" = ANY($1)");
        db.execute(&sql, args![ids.to_vec()]).await?;
    }
    Ok(())
}

/// Gives table partitions the names and the values of their files again.
async fn rename(
    db: &Session,
    matched: &Matched,
    wanted: &[(i64, HivePartition)],
) -> Result<(), CatalogError> {
    let renamed: Vec<&Shown> = matched.shown.iter().filter(|s| s.name_differs).collect();
    if !renamed.is_empty() {
        let ids: Vec<i64> = renamed.iter().map(|shown| shown.id).collect();
        let names = renamed.iter().map(|shown| &*wanted[shown.file].1.name);
        // Two may have changed their names with each other, and no two may have one name even for
        // a moment.
        db.execute(
            "UPDATE hive.\"PARTITIONS\" SET \"PART_NAME\" = 'windrow=' || \"PART_ID\" \
             WHERE \"PART_ID\" = ANY($1)",
            args![ids],
        )
        .await?;
        db.execute(
            "UPDATE hive.\"PARTITIONS\" AS p SET \"PART_NAME\" = n.name \
             FROM unnest($1, $2) AS n (id, name) WHERE p.\"PART_ID\" = n.id",
            args![ids, names.collect::<Vec<_>>()],
        )
        .await?;
        // They are kept by the partition's name, and nobody finds them any more.
        delete_from(db, &["PART_COL_STATS"], "PART_ID", &ids).await?;
    }
    let with_values: Vec<&Shown> = matched.shown.iter().filter(|s| s.values_differ).collect();
    if with_values.is_empty() {
        return Ok(());
    }
    let ids: Vec<i64> = with_values.iter().map(|shown| shown.id).collect();
    delete_from(db, &["PARTITION_KEY_VALS"], "PART_ID", &ids).await?;
    let partitions = with_values
        .iter()
        .map(|shown| (shown.id, &wanted[shown.file].1));
    insert_key_values(db, partitions).await
}

/// Writes the values of the partition columns. Each table partition comes with its id.
pub(super) async fn insert_key_values(
    db: &Session,
    partitions: impl Iterator<Item = (i64, &HivePartition)>,
) -> Result<(), CatalogError> {
    let (mut ids, mut values, mut positions) = (Vec::new(), Vec::new(), Vec::new());
    for (id, partition) in partitions {
        for (position, value) in (0_i32..).zip(&partition.values) {
            ids.push(id);
            values.push(value.as_str());
            positions.push(position);
        }
    }
    db.execute(
        "INSERT INTO hive.\"PARTITION_KEY_VALS\" (\"PART_ID\", \"PART_KEY_VAL\", \"INTEGER_IDX\") \
         SELECT id, value, position FROM unnest($1, $2, $3) AS v (id, value, position)",
        args![ids, values, positions],
    )
    .await?;
    Ok(())
}

/// Points table partitions at their files' folders and at the column list of their table.
async fn relocate(
    db: &Session,
    matched: &Matched,
    wanted: &[(i64, HivePartition)],
) -> Result<(), CatalogError> {
    let moved: Vec<&Shown> = matched.shown.iter().filter(|s| s.place_differs).collect();
    if moved.is_empty() {
        return Ok(());
    }
    let ids: Vec<i64> = moved.iter().map(|shown| shown.id).collect();
    let locations: Vec<Option<&str>> = moved
        .iter()
        .map(|shown| wanted[shown.file].1.storage.location.as_deref())
        .collect();
    db.execute(
        "UPDATE hive.\"SDS\" AS s SET \"LOCATION\" = n.location, \"CD_ID\" = o.\"CD_ID\" \
         FROM hive.\"PARTITIONS\" AS p, hive.\"TBLS\" AS t, hive.\"SDS\" AS o, \
           unnest($1, $2) AS n (id, location) \
         WHERE p.\"PART_ID\" = n.id AND s.\"SD_ID\" = p.\"SD_ID\" \
           AND t.\"TBL_ID\" = p.\"TBL_ID\" AND o.\"SD_ID\" = t.\"SD_ID\" \
           AND (s.\"LOCATION\", s.\"CD_ID\") IS DISTINCT FROM (n.location, o.\"CD_ID\")",
        args![ids, locations],
    )
    .await?;
    // Spark takes the place from this parameter, and not from the location.
    db.execute(
        "UPDATE hive.\"SERDE_PARAMS\" AS v SET \"PARAM_VALUE\" = n.location \
         FROM hive.\"PARTITIONS\" AS p, hive.\"SDS\" AS s, unnest($1, $2) AS n (id, location) \
         WHERE p.\"PART_ID\" = n.id AND s.\"SD_ID\" = p.\"SD_ID\" \
           AND v.\"SERDE_ID\" = s.\"SERDE_ID\" AND v.\"PARAM_KEY\" = 'path' \
           AND v.\"PARAM_VALUE\" IS DISTINCT FROM n.location",
        args![ids, locations],
    )
    .await?;
    db.execute(
        "INSERT INTO hive.\"SERDE_PARAMS\" (\"SERDE_ID\", \"PARAM_KEY\", \"PARAM_VALUE\") \
         SELECT s.\"SERDE_ID\", 'path', n.location \
         FROM hive.\"PARTITIONS\" AS p, hive.\"SDS\" AS s, unnest($1, $2) AS n (id, location) \
         WHERE p.\"PART_ID\" = n.id AND s.\"SD_ID\" = p.\"SD_ID\" \
           AND NOT EXISTS (SELECT FROM hive.\"SERDE_PARAMS\" AS v \
             WHERE v.\"SERDE_ID\" = s.\"SERDE_ID\" AND v.\"PARAM_KEY\" = 'path')",
        args![ids, locations],
    )
    .await?;
    Ok(())
}

/// Names the first of these table partitions, with the statements that drop them. The tables are
/// external when this is said, so a drop deletes no file.
fn describe_foreign(name: &TableName, foreign: &[FoundPartition]) -> Option<String> {
    if foreign.is_empty() {
        return None;
    }
    let drops: Vec<String> = foreign
        .iter()
        .take(NAMED_MAX)
        .map(|partition| {
            let columns: &[&str] = match partition.kind {
                TableKind::Chunks => &["date", "chunk"],
                TableKind::View | TableKind::Late | TableKind::Rejects => &["chunk"],
            };
            let values = columns
                .iter()
                .zip(&partition.values)
                .map(|(column, value)| {
                    let value = value.replace('\\', "\\\\").replace('\'', "\\'");
                    format!("`{column}`='{value}'")
                });
            format!(
                "ALTER TABLE `{}`.`{}` DROP PARTITION ({})",
                name.database,
                name.of(partition.kind),
                values.collect::<Vec<_>>().join(", ")
            )
        })
        .collect();
    let more = match foreign.len() - drops.len() {
        0 => String::new(),
        more => format!(" (and {more} more, which windrow restore names after these)"),
    };
    Some(format!(
        "all that is windrow's is as the journal says, and there are table partitions that \
         somebody else has added, so readers count rows that windrow has not; keep what you need \
         of them in another table, run {}{more}, and run windrow restore again",
        drops.join("; ")
    ))
}
