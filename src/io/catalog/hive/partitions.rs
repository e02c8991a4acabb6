//! The table partitions that are there, and their restoring where they are not as the journal says.
//! Which one shows which file is decided in `windrow_core::table::hive`.

use super::super::session::{Session, args};
use super::delete::{delete_from, delete_partitions};
use super::places::relocate;
use super::{Hive, HiveTableRow};
use tokio_postgres::Row;
use windrow_core::table::commit::{CatalogError, Genesis};
use windrow_core::table::hive::{
    FoundPartition, HivePartition, Matched, Shown, TableKind, TableName, match_partitions,
};
use windrow_core::table::place::Names;

/// How many table partitions that are not windrow's a message names.
const NAMED_MAX: usize = 3;

/// What [`Hive::restore_partitions`] has done.
pub(super) struct RestoredPartitions {
    /// Table partitions that have another id than the journal knows: that one, and their own.
    pub(super) part_ids: Vec<(i64, i64)>,
    /// Which table partitions are not windrow's, and what to do with them; `None` where there is
    /// none.
    pub(super) foreign: Option<String>,
}

impl Hive {
    /// Makes the table partitions of windrow's as they are `wanted`, and deletes all others of
    /// them. Each comes with the id that the journal knows. What is somebody else's stays.
    pub(super) async fn restore_partitions(
        &mut self,
        db: &Session,
        name: &TableName,
        genesis: &Genesis,
        tables: &[HiveTableRow],
        wanted: &[(i64, HivePartition)],
    ) -> Result<RestoredPartitions, CatalogError> {
        let found = found_partitions(db, name, tables).await?;
        let own = Names::new(&name.database, &name.table);
        let own = genesis.warehouse.uri_of(own.prefix());
        let matched = match_partitions(&own, wanted, found);
        delete_partitions(db, &matched.surplus).await?;
        let moved = matched.shown.iter().filter(|shown| shown.place_differs);
        let moved = moved.filter_map(|shown| {
            let place = wanted[shown.file].1.storage.location.clone()?;
            Some((shown.id, place))
        });
        relocate(db, &moved.collect::<Vec<_>>()).await?;
        rename(db, &matched, wanted).await?;
        let missing: Vec<HivePartition> = matched
            .missing
            .iter()
            .map(|i| wanted[*i].1.clone())
            .collect();
        let added = self.add_partitions(db, tables, name, &missing).await?;
        let shown = matched.shown.iter().map(|shown| (shown.file, shown.id));
        let part_ids = shown
            .chain(matched.missing.iter().copied().zip(added))
            .map(|(i, id)| (wanted[i].0, id))
            .filter(|(known, id)| known != id)
            .collect();
        Ok(RestoredPartitions {
            part_ids,
            foreign: describe_foreign(name, &matched.foreign),
        })
    }
}

/// All table partitions of the tables. It is one statement, so that all is as at one moment.
pub(super) async fn found_partitions(
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
