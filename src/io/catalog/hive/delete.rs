//! The deletion of table partitions with all rows that belong to them.

use super::super::session::{Session, args};
use windrow_core::table::commit::CatalogError;

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
pub(super) async fn delete_partitions(db: &Session, ids: &[i64]) -> Result<(), CatalogError> {
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
pub(super) async fn delete_from(
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
