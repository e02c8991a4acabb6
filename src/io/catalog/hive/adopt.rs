//! The entry of a Spark job's table in Hive, which makes way for windrow's view of the same name.
//! It gets another name and stays what it is otherwise; its files are never touched.

use super::super::SparkEntry;
use super::super::session::{Session, args};
use super::{Hive, HiveTableRow};
use windrow_core::table::commit::CatalogError;
use windrow_core::table::hive::{TableKind, TableName};

/// What follows the table's name in the new name of the job's entry.
const SUFFIX: &str = "__spark";

impl Hive {
    /// The entry that has the name of the view and is not windrow's; `None` when nothing has it.
    ///
    /// # Errors
    /// `Stop` when the entry is not that of a Spark job's table, or its new name is taken.
    pub(in super::super) async fn spark_entry(
        &self,
        db: &Session,
        name: &TableName,
    ) -> Result<Option<SparkEntry>, CatalogError> {
        let rows = self.table_rows(db, name, false).await?;
        let view = name.of(TableKind::View);
        if let Some(other) = rows.iter().find(|row| row.name != view) {
            return Err(super::refusal(db, name, other));
        }
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        check_entry(db, name, row)?;
        let renamed_to = format!("{}{SUFFIX}", name.table);
        self.check_name_is_free(db, name, &renamed_to).await?;
        let location = db
            .query_opt(
                "SELECT COALESCE(p.\"PARAM_VALUE\", s.\"LOCATION\") FROM hive.\"SDS\" AS s \
                 LEFT JOIN hive.\"SERDE_PARAMS\" AS p \
                   ON p.\"SERDE_ID\" = s.\"SERDE_ID\" AND p.\"PARAM_KEY\" = 'path' \
                 WHERE s.\"SD_ID\" = $1",
                args![row.storage],
            )
            .await?;
        let location: Option<String> = match &location {
            Some(found) => db.read(found, 0, "Hive's SDS.LOCATION")?,
            None => None,
        };
        Ok(Some(SparkEntry {
            location: location.unwrap_or_default(),
            renamed_to,
        }))
    }

    /// Gives the job's entry its new name, in the transaction that makes the view. The caller has
    /// locked `TBLS`, so nobody makes a table meanwhile.
    ///
    /// # Errors
    /// `Stop` when the entry is gone or another one, or when the new name is taken.
    pub(super) async fn rename_spark_entry(
        &self,
        db: &Session,
        name: &TableName,
        renamed_to: &str,
    ) -> Result<(), CatalogError> {
        let rows = self.table_rows(db, name, true).await?;
        let view = name.of(TableKind::View);
        let Some(row) = rows.iter().find(|row| row.name == view) else {
            return Err(db.stop(format_args!(
                "table \"{name}\" was dropped meanwhile; run windrow adopt again"
            )));
        };
        check_entry(db, name, row)?;
        self.check_name_is_free(db, name, renamed_to).await?;
        db.execute(
            "UPDATE hive.\"TBLS\" SET \"TBL_NAME\" = $2 WHERE \"TBL_ID\" = $1",
            args![row.id, renamed_to],
        )
        .await?;
        Ok(())
    }

    async fn check_name_is_free(
        &self,
        db: &Session,
        name: &TableName,
        renamed_to: &str,
    ) -> Result<(), CatalogError> {
        let sql = format!(
            "SELECT EXISTS (SELECT FROM hive.\"TBLS\" AS t \
               JOIN hive.\"DBS\" AS d ON d.\"DB_ID\" = t.\"DB_ID\" \
             WHERE d.\"NAME\" = $1 AND t.\"TBL_NAME\" = $2{})",
            self.catalog_filter("d")
        );
        let row = db.query_one(&sql, args![name.database, renamed_to]).await?;
        if !row.get::<_, bool>(0) {
            return Ok(());
        }
        Err(db.stop(format_args!(
            "the Spark job's table would be \"{}.{renamed_to}\" in Hive, and there is a table of \
             that name; rename that one first",
            name.database
        )))
    }
}

/// Refuses what is windrow's already, and what is not a table with files of its own.
fn check_entry(db: &Session, name: &TableName, row: &HiveTableRow) -> Result<(), CatalogError> {
    if row.is_ours(name) {
        return Err(super::refusal(db, name, row));
    }
    let is_table = ["MANAGED_TABLE", "EXTERNAL_TABLE"].contains(&row.found.table_type.as_str());
    if !is_table || !row.found.partition_columns.is_empty() {
        return Err(db.stop(format_args!(
            "\"{name}\" is a view, or a table with table partitions, and not the table of a Spark \
             job that toTable or saveAsTable made"
        )));
    }
    Ok(())
}
