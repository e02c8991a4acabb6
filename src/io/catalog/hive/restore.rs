//! The rows of an existing table are written again, where somebody dropped or altered them.

use super::super::session::{Session, args};
use super::create::{insert_columns, insert_params, insert_partition_columns};
use super::{Hive, HiveTableRow};
use windrow_core::table::commit::{CatalogError, Genesis};
use windrow_core::table::hive::{
    self, Difference, HivePartition, HiveTable, PURGE, TableName, VIRTUAL_VIEW,
};
use windrow_core::values::cause::Cause;

/// What [`Hive::restore`] has done, beside the rows that it has written.
pub(in super::super) struct Restored {
    /// Table partitions that have another id than the journal knows: that one, and their own.
    pub(in super::super) part_ids: Vec<(i64, i64)>,
    /// What a person should know of it, as whole sentences.
    pub(in super::super) notes: Vec<String>,
    /// What only a person can mend: somebody else's table partitions, and what to do with them.
    pub(in super::super) foreign: Option<String>,
}

impl Hive {
    /// Writes again what is missing or altered of the four tables, and of the table partitions that
    /// are `wanted`. Each of these comes with the id that the journal knows.
    ///
    /// # Errors
    /// `Stop` when a table that is not windrow's has one of the names, or the database is gone.
    pub(in super::super) async fn restore(
        &mut self,
        db: &Session,
        name: &TableName,
        genesis: &Genesis,
        wanted: &[(i64, HivePartition)],
    ) -> Result<Restored, CatalogError> {
        let Some(database) = self.database_id(db, name).await? else {
            return Err(db.stop(format_args!(
                "Hive has no database \"{0}\"; run CREATE DATABASE `{0}`",
                name.database
            )));
        };
        db.batch("LOCK TABLE hive.\"TBLS\" IN SHARE ROW EXCLUSIVE MODE")
            .await?;
        let rows = self.table_rows(db, name, true).await?;
        let notes = separate_tables_of_one_name(db, name, &rows).await?;
        self.restore_tables(db, name, genesis, database).await?;
        let tables = self.table_rows(db, name, true).await?;
        let partitions = self
            .restore_partitions(db, name, genesis, &tables, wanted)
            .await?;
        Ok(Restored {
            part_ids: partitions.part_ids,
            notes,
            foreign: partitions.foreign,
        })
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
                Some(row) if !row.is_ours(name) => {
                    let why = format!(
                        "\"{}.{}\" is another table now, and is not windrow's; {}, and run \
                         windrow restore again",
                        name.database,
                        row.name,
                        row.way_out(name)
                    );
                    return Err(db.stop_for(Cause::TableDropped, why));
                }
                Some(row) => self.repair(db, row, &table).await?,
            }
        }
        Ok(())
    }

    /// Writes again what differs of a table that is there. It keeps its id, because its table
    /// partitions and the rights that were granted on it go by that.
    async fn repair(
        &mut self,
        db: &Session,
        row: &HiveTableRow,
        table: &HiveTable,
    ) -> Result<(), CatalogError> {
        db.execute(
            "UPDATE hive.\"TBLS\" SET \"TBL_TYPE\" = $3, \"VIEW_ORIGINAL_TEXT\" = $2, \
               \"VIEW_EXPANDED_TEXT\" = $2 \
             WHERE \"TBL_ID\" = $1 \
               AND (\"TBL_TYPE\", \"VIEW_ORIGINAL_TEXT\", \"VIEW_EXPANDED_TEXT\") \
                 IS DISTINCT FROM ($3, $2, $2)",
            args![row.id, table.view_text, table.table_type],
        )
        .await?;
        let differences = table.differences(&row.found);
        // The rows of a view's storage are of no use to a table, nor the other way round.
        let is_view = |table_type: &str| table_type == VIRTUAL_VIEW;
        let is_other_kind = is_view(&row.found.table_type) != is_view(table.table_type);
        match row.columns.filter(|_| !is_other_kind) {
            None => {
                let storage = self.create_table_storage(db, table).await?;
                db.execute(
                    "UPDATE hive.\"TBLS\" SET \"SD_ID\" = $2 WHERE \"TBL_ID\" = $1",
                    args![row.id, storage],
                )
                .await?;
            }
            Some(columns) if differences.contains(&Difference::Columns) => {
                let delete = "DELETE FROM hive.\"COLUMNS_V2\" WHERE \"CD_ID\" = $1";
                db.execute(delete, args![columns]).await?;
                insert_columns(db, columns, table).await?;
            }
            Some(_) => {}
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
            rewrite_params(db, row.id, table).await?;
        }
        Ok(())
    }
}

/// `id` is the table's.
async fn rewrite_params(db: &Session, id: i64, table: &HiveTable) -> Result<(), CatalogError> {
    // Beside windrow's own these are what an ALTER VIEW leaves: the names that another query gives
    // its columns, its schema, and the settings under which it was parsed. And no drop may delete
    // files.
    let mut keys: Vec<&str> = table.params.iter().map(|(key, _)| key.as_str()).collect();
    keys.push(PURGE);
    db.execute(
        "DELETE FROM hive.\"TABLE_PARAMS\" WHERE \"TBL_ID\" = $1 \
         AND (\"PARAM_KEY\" = ANY($2) OR \"PARAM_KEY\" LIKE 'view.%' \
           OR \"PARAM_KEY\" LIKE 'spark.sql.sources.schema%')",
        args![id, keys],
    )
    .await?;
    insert_params(db, id, table).await
}

/// Where Hive's schema has no UNIQUE constraint, two clients may make a table of one name at the
/// same moment. Then nobody can read or drop either of them. Where one is windrow's and the other
/// shows nothing, the other gets another name, and this returns a sentence that says so.
///
/// # Errors
/// `Stop` with what to do in SQL, where it is not certain which of them is windrow's, or the other
/// one has table partitions or shares the storage of windrow's.
async fn separate_tables_of_one_name(
    db: &Session,
    name: &TableName,
    rows: &[HiveTableRow],
) -> Result<Vec<String>, CatalogError> {
    let mut notes = Vec::new();
    for row in rows {
        let same_name: Vec<_> = rows.iter().filter(|other| other.name == row.name).collect();
        let (ours, others): (Vec<&HiveTableRow>, Vec<_>) =
            same_name.iter().partition(|row| row.is_ours(name));
        if same_name.len() < 2 || same_name[0].id != row.id {
            continue;
        }
        let ids: Vec<i64> = others.iter().map(|other| other.id).collect();
        let shows = db
            .query_opt(
                "SELECT FROM hive.\"PARTITIONS\" WHERE \"TBL_ID\" = ANY($1) LIMIT 1",
                args![ids],
            )
            .await?;
        let [ours] = ours[..] else {
            return Err(two_tables(db, name, &same_name, "one of them"));
        };
        let shares = others
            .iter()
            .any(|other| other.storage.is_some() && other.storage == ours.storage);
        if shows.is_some() || shares {
            let what = "the one that windrow has not made";
            return Err(two_tables(db, name, &others, what));
        }
        for other in others {
            let new_name = format!("windrow_other_{}", other.id);
            db.execute(
                "UPDATE hive.\"TBLS\" SET \"TBL_NAME\" = $2 WHERE \"TBL_ID\" = $1",
                args![other.id, new_name],
            )
            .await?;
            notes.push(format!(
                "Hive had two tables {0}.{1}; the one that is not windrow's is called \
                 {0}.{new_name} now",
                name.database, other.name
            ));
        }
    }
    Ok(notes)
}

/// `rows` are those among which a person must choose `what`.
fn two_tables(db: &Session, name: &TableName, rows: &[&HiveTableRow], what: &str) -> CatalogError {
    let schema = db.hive_schema();
    let table = rows.first().map_or("", |row| row.name.as_str());
    let renames: Vec<String> = rows
        .iter()
        .map(|row| {
            format!(
                "UPDATE {schema}.\"TBLS\" SET \"TBL_NAME\" = 'windrow_other_{0}' \
                 WHERE \"TBL_ID\" = {0}",
                row.id
            )
        })
        .collect();
    db.stop_for(
        Cause::TableDropped,
        format!(
            "Hive has two tables \"{}.{table}\", and either may show rows; rename {what} in \
             PostgreSQL: {}; then run windrow restore again",
            name.database,
            renames.join("; or ")
        ),
    )
}
