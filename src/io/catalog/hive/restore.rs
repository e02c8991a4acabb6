//! The rows of an existing table are written again, where somebody dropped or altered them.

use super::super::session::{Session, args};
use super::create::{insert_columns, insert_params, insert_partition_columns};
use super::{Hive, HiveTableRow, refusal};
use windrow_core::table::commit::{CatalogError, Genesis, NewFile};
use windrow_core::table::hive::{self, Difference, HiveTable, TableName};
use windrow_core::table::place::Place;

impl Hive {
    /// Writes again what is missing or altered of the four tables, and of the table partitions that
    /// show `files`. Each file comes with the id of the table partition that the journal knows.
    /// Returns the files that another table partition shows now, with its id.
    ///
    /// # Errors
    /// `Stop` when a table that is not windrow's has one of the names, or the database is gone.
    pub(in super::super) async fn restore(
        &mut self,
        db: &Session,
        name: &TableName,
        genesis: &Genesis,
        files: &[(i64, NewFile)],
    ) -> Result<Vec<(i64, String)>, CatalogError> {
        let Some(database) = self.database_id(db, name).await? else {
            return Err(db.stop(format_args!(
                "Hive has no database \"{0}\"; run CREATE DATABASE `{0}`",
                name.database
            )));
        };
        db.batch("LOCK TABLE hive.\"TBLS\" IN SHARE ROW EXCLUSIVE MODE")
            .await?;
        self.restore_tables(db, name, genesis, database).await?;
        let tables = self.table_rows(db, name, true).await?;
        let (mut there, mut missing) = (Vec::new(), Vec::new());
        let named = partition_ids(db, name, &tables, &genesis.warehouse, files).await?;
        for ((part_id, file), named) in files.iter().zip(named) {
            match named {
                Some(id) => there.push((id, *part_id, file)),
                None => missing.push(file.clone()),
            }
        }
        relocate(db, &genesis.warehouse, &there).await?;
        let added = self
            .add_partitions(db, &genesis.warehouse, &tables, name, &missing)
            .await?;
        let mut changed: Vec<_> = added
            .into_iter()
            .zip(missing.into_iter().map(|file| file.key))
            .collect();
        changed.extend(
            there
                .iter()
                .filter(|(id, known, _)| id != known)
                .map(|(id, _, file)| (*id, file.key.clone())),
        );
        Ok(changed)
    }

    async fn restore_tables(
        &mut self,
        db: &Session,
        name: &TableName,
        genesis: &Genesis,
        database: i64,
    ) -> Result<(), CatalogError> {
        let rows = self.table_rows(db, name, true).await?;
        for table in hive::tables(name, genesis) {
            match rows.iter().find(|row| row.name == table.name) {
                None => self.create_table(db, database, &table).await?,
                Some(row) if !row.is_ours(name) => return Err(refusal(db, name, row)),
                Some(row) if row.is_beyond_repair(&table) => {
                    return Err(db.stop(format_args!(
                        "\"{}.{}\" is no longer as windrow made it; \
                         drop that one and run windrow restore again",
                        name.database, row.name
                    )));
                }
                Some(row) => repair(db, row, &table).await?,
            }
        }
        Ok(())
    }
}

/// Writes again what differs of a table that is there. It keeps its id, because its table
/// partitions and the rights that were granted on it go by that.
async fn repair(db: &Session, row: &HiveTableRow, table: &HiveTable) -> Result<(), CatalogError> {
    db.execute(
        "UPDATE hive.\"TBLS\" SET \"VIEW_ORIGINAL_TEXT\" = $2, \"VIEW_EXPANDED_TEXT\" = $2 \
         WHERE \"TBL_ID\" = $1 \
           AND (\"VIEW_ORIGINAL_TEXT\", \"VIEW_EXPANDED_TEXT\") IS DISTINCT FROM ($2, $2)",
        args![row.id, table.view_text],
    )
    .await?;
    let differences = table.differences(&row.found);
    if let Some(columns) = row
        .columns
        .filter(|_| differences.contains(&Difference::Columns))
    {
        let delete = "DELETE FROM hive.\"COLUMNS_V2\" WHERE \"CD_ID\" = $1";
        db.execute(delete, args![columns]).await?;
        insert_columns(db, columns, table).await?;
    }
    if differences.contains(&Difference::PartitionColumns) {
        let delete = "DELETE FROM hive.\"PARTITION_KEYS\" WHERE \"TBL_ID\" = $1";
        db.execute(delete, args![row.id]).await?;
        insert_partition_columns(db, row.id, table).await?;
    }
    if differences
        .iter()
        .any(|d| matches!(d, Difference::Property(_)))
    {
        // Beside windrow's own these are what an ALTER VIEW leaves: the names that another query
        // gives its columns, its schema, and the settings under which it was parsed.
        let keys: Vec<&str> = table.params.iter().map(|(key, _)| key.as_str()).collect();
        db.execute(
            "DELETE FROM hive.\"TABLE_PARAMS\" WHERE \"TBL_ID\" = $1 \
             AND (\"PARAM_KEY\" = ANY($2) OR \"PARAM_KEY\" LIKE 'view.%' \
               OR \"PARAM_KEY\" LIKE 'spark.sql.sources.schema%')",
            args![row.id, keys],
        )
        .await?;
        insert_params(db, row.id, table).await?;
    }
    Ok(())
}

/// The id of the table partition that has each file's name in its table, whatever file it shows.
/// `None` where there is no such table partition, or one without a place.
async fn partition_ids(
    db: &Session,
    name: &TableName,
    tables: &[HiveTableRow],
    warehouse: &Place,
    files: &[(i64, NewFile)],
) -> Result<Vec<Option<i64>>, CatalogError> {
    let (mut table_ids, mut names) = (Vec::new(), Vec::new());
    for (_, file) in files {
        let partition = hive::partition(warehouse, file).map_err(|why| db.stop(why))?;
        let table = name.of(partition.kind);
        let row = tables.iter().find(|row| row.name == table);
        table_ids.push(row.map_or(-1, |row| row.id));
        names.push(partition.name);
    }
    // One join for all files. A look for each file took a scan of all table partitions in Spark's
    // lazy schema, which has no index on their names: 12 s for 8,000 files, and four times as long
    // for twice as many.
    let rows = db
        .query(
            "SELECT min(p.\"PART_ID\")::bigint \
             FROM unnest($1, $2) WITH ORDINALITY AS f (id, name, position) \
               LEFT JOIN (hive.\"PARTITIONS\" AS p \
                 JOIN hive.\"SDS\" AS s ON s.\"SD_ID\" = p.\"SD_ID\") \
               ON p.\"TBL_ID\" = f.id AND p.\"PART_NAME\" = f.name \
             GROUP BY f.position ORDER BY f.position",
            args![table_ids, names],
        )
        .await?;
    let read = |row| db.read(row, 0, "Hive's PARTITIONS.PART_ID");
    rows.iter().map(read).collect()
}

/// Points table partitions at their files' folders and at the column list of their table. Each is
/// given as its own id, the id that the journal knows, and the file.
async fn relocate(
    db: &Session,
    warehouse: &Place,
    there: &[(i64, i64, &NewFile)],
) -> Result<(), CatalogError> {
    let ids: Vec<i64> = there.iter().map(|(id, ..)| *id).collect();
    let locations: Vec<Option<String>> = there
        .iter()
        .filter_map(|(_, _, file)| hive::partition(warehouse, file).ok())
        .map(|partition| partition.storage.location)
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
