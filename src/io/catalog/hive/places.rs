//! The places of the table partitions: each commit compares those in Hive with what the journal
//! says, and puts them right. A swap is nothing else: the journal says other places than before.
//!
//! Hive's metastore reads the table partitions of a query in several statements: first their ids,
//! by their table, then their places and their values, by these ids. A table partition that a swap
//! has emptied gets the place of the file without rows, for whoever has read its id before, and it
//! is taken off its table, so that nobody reads its id any more. Its rows are deleted when all
//! queries of before have read them. (Without that, a query that read its id just before the
//! deletion would find a place without values, and fail.)

use super::super::session::{Session, args};
use super::delete::{delete_from, delete_partitions};
use super::{Hive, HiveTableRow};
use windrow_core::table::commit::{CatalogError, Genesis};
use windrow_core::table::hive::{TableKind, TableName};
use windrow_core::values::cause::Cause;

/// All table partitions are counted again after as many commits as there are thousands of them. So
/// a commit counts a thousand on average, however many there are.
const PARTITIONS_A_COMMIT: i64 = 1000;

/// The table partitions that are not as the journal says, those that are missing first. The names
/// and the values are those of `windrow_core::table::hive::partition`. Emptied ones are among them
/// as long as they belong to their table.
///
/// The fastest of six whole commits took 13 and 20 ms in two runs with 400 table partitions by
/// Hive's script, and 31 and 46 ms in the schema that Spark makes, beside 100,000 table partitions
/// of another table; with 20,000 table partitions of its own, a commit took some 0.2 s. (A debug
/// build, and PostgreSQL without fsync.)
const DIFFERENT: &str = "SELECT w.part_id, w.name, w.place, c.is_there, w.is_empty \
     FROM (SELECT part_id, kind, key IS NULL AS is_empty, \
         CASE kind WHEN 'rows' THEN 'date=' || date || '/' ELSE '' END \
           || 'chunk=' || chunk AS name, \
         CASE kind WHEN 'rows' THEN ARRAY[date, chunk] ELSE ARRAY[chunk] END AS vals, \
         $3 || regexp_replace(COALESCE(key, $4), '/[^/]*$', '') AS place \
       FROM journal.part WHERE database = $1 AND \"table\" = $2) AS w \
     LEFT JOIN unnest($5, $6) AS t (kind, id) ON t.kind = w.kind \
     LEFT JOIN hive.\"PARTITIONS\" AS p ON p.\"PART_ID\" = w.part_id \
     LEFT JOIN hive.\"SDS\" AS s ON s.\"SD_ID\" = p.\"SD_ID\" \
     LEFT JOIN hive.\"SERDES\" AS d ON d.\"SERDE_ID\" = s.\"SERDE_ID\" \
     LEFT JOIN hive.\"SERDE_PARAMS\" AS v ON v.\"SERDE_ID\" = d.\"SERDE_ID\" \
       AND v.\"PARAM_KEY\" = 'path' \
     CROSS JOIN LATERAL (SELECT COALESCE(p.\"TBL_ID\" = t.id AND p.\"PART_NAME\" = w.name \
         AND d.\"SERDE_ID\" IS NOT NULL \
         AND w.vals = ARRAY(SELECT k.\"PART_KEY_VAL\" FROM hive.\"PARTITION_KEY_VALS\" AS k \
           WHERE k.\"PART_ID\" = w.part_id ORDER BY k.\"INTEGER_IDX\")::text[], \
         false) AS is_there) AS c \
     WHERE CASE WHEN w.is_empty THEN COALESCE(p.\"TBL_ID\" = t.id, false) \
       ELSE NOT c.is_there OR s.\"LOCATION\" IS DISTINCT FROM w.place \
         OR v.\"PARAM_VALUE\" IS DISTINCT FROM w.place END \
     ORDER BY c.is_there, w.name";

impl Hive {
    /// Makes the table partitions show what the journal says, and now and then counts them all.
    ///
    /// Somebody else may have written an earlier place back: `ANALYZE TABLE ... PARTITION` reads a
    /// table partition, and later writes all of it.
    ///
    /// # Errors
    /// `Stop` when one is gone or has another name, or when there are others.
    pub(super) async fn put_places_right(
        &mut self,
        db: &Session,
        name: &TableName,
        genesis: &Genesis,
        tables: &[HiveTableRow],
    ) -> Result<(), CatalogError> {
        let of_kind = |kind: TableKind| {
            let row = tables.iter().find(|row| row.name == name.of(kind))?;
            Some((kind.word(), row.id))
        };
        let (kinds, ids): (Vec<&str>, Vec<i64>) = TableKind::PARTITIONED
            .into_iter()
            .filter_map(of_kind)
            .unzip();
        let warehouse = genesis.warehouse.uri_of("");
        let different = db
            .query(
                DIFFERENT,
                args![
                    name.database,
                    name.table,
                    warehouse,
                    genesis.empty_file,
                    kinds,
                    ids
                ],
            )
            .await?;
        let (mut moved, mut emptied) = (Vec::new(), Vec::new());
        for row in &different {
            let partition: &str = db.read(row, 1, "journal.part.chunk")?;
            if !db.read::<bool>(row, 3, "Hive's PARTITIONS.PART_NAME")? {
                let why = format!(
                    "table was dropped: the table partition \"{partition}\" is missing or \
                     altered; run windrow restore, or choose another table name"
                );
                return Err(db.stop_for(Cause::TableDropped, why));
            }
            let id: i64 = db.read(row, 0, "journal.part.part_id")?;
            moved.push((id, db.read(row, 2, "journal.part.key")?));
            if db.read(row, 4, "journal.part.key")? {
                emptied.push(id);
            }
        }
        relocate(db, &moved).await?;
        if !emptied.is_empty() {
            let sql =
                "UPDATE hive.\"PARTITIONS\" SET \"TBL_ID\" = NULL WHERE \"PART_ID\" = ANY($1)";
            db.execute(sql, args![emptied]).await?;
        }
        if self.commits_to_count > 0 {
            self.commits_to_count -= 1;
            return Ok(());
        }
        let partitions = check_counts(db, name, tables).await?;
        self.commits_to_count = partitions / PARTITIONS_A_COMMIT;
        Ok(())
    }

    /// Deletes these table partitions, each with its id and its name. Those that are gone already,
    /// or are another's in a metastore that was made anew, are left alone.
    pub(in super::super) async fn drop_partitions(
        &self,
        db: &Session,
        name: &TableName,
        partitions: &[(i64, String)],
    ) -> Result<(), CatalogError> {
        let tables = self.table_rows(db, name, true).await?;
        let ours = tables.iter().filter(|row| row.is_ours(name));
        let tables: Vec<i64> = ours.map(|row| row.id).collect();
        let (ids, names): (Vec<i64>, Vec<&str>) =
            partitions.iter().map(|(id, name)| (*id, &**name)).unzip();
        let rows = db
            .query(
                "SELECT p.\"PART_ID\"::bigint FROM unnest($1, $2) AS n (id, name) \
                   JOIN hive.\"PARTITIONS\" AS p ON p.\"PART_ID\" = n.id \
                 WHERE p.\"TBL_ID\" IS NULL \
                   OR p.\"TBL_ID\" = ANY($3) AND p.\"PART_NAME\" = n.name",
                args![ids, names, tables],
            )
            .await?;
        let read = |row| db.read(row, 0, "Hive's PARTITIONS.PART_ID");
        let there: Vec<i64> = rows.iter().map(read).collect::<Result<_, _>>()?;
        delete_partitions(db, &there).await
    }
}

/// Sees that each table has as many table partitions as the journal knows of it. Returns how many
/// those are in all.
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
                   (SELECT count(*) FROM journal.part WHERE database = $2 AND \"table\" = $3 \
                     AND kind = $4 AND key IS NOT NULL)",
                args![row.id, name.database, name.table, kind.word()],
            )
            .await?;
        let found: i64 = db.read(&counts, 0, "the number of table partitions")?;
        let known: i64 = db.read(&counts, 1, "the number of table partitions")?;
        if found != known {
            let why = format!(
                "table was dropped or altered: \"{}.{table}\" has {found} table partitions in \
                 Hive, and {known} by the journal, so somebody has added or dropped some; run \
                 windrow restore, or choose another table name",
                name.database
            );
            return Err(db.stop_for(Cause::TableDropped, why));
        }
        total += known;
    }
    Ok(total)
}

/// Points table partitions at other places, and at the column list of their table. Each comes with
/// its id. What Hive has counted in the rows of the old place does not hold for the new one.
pub(super) async fn relocate(db: &Session, moved: &[(i64, String)]) -> Result<(), CatalogError> {
    if moved.is_empty() {
        return Ok(());
    }
    let (ids, places): (Vec<i64>, Vec<&str>) =
        moved.iter().map(|(id, place)| (*id, &**place)).unzip();
    db.execute(
        "UPDATE hive.\"SDS\" AS s SET \"LOCATION\" = n.place, \"CD_ID\" = o.\"CD_ID\" \
         FROM hive.\"PARTITIONS\" AS p, hive.\"TBLS\" AS t, hive.\"SDS\" AS o, \
           unnest($1, $2) AS n (id, place) \
         WHERE p.\"PART_ID\" = n.id AND s.\"SD_ID\" = p.\"SD_ID\" \
           AND t.\"TBL_ID\" = p.\"TBL_ID\" AND o.\"SD_ID\" = t.\"SD_ID\" \
           AND (s.\"LOCATION\", s.\"CD_ID\") IS DISTINCT FROM (n.place, o.\"CD_ID\")",
        args![ids, places],
    )
    .await?;
    // Spark takes the place from this parameter, and not from the location.
    db.execute(
        "UPDATE hive.\"SERDE_PARAMS\" AS v SET \"PARAM_VALUE\" = n.place \
         FROM hive.\"PARTITIONS\" AS p, hive.\"SDS\" AS s, unnest($1, $2) AS n (id, place) \
         WHERE p.\"PART_ID\" = n.id AND s.\"SD_ID\" = p.\"SD_ID\" \
           AND v.\"SERDE_ID\" = s.\"SERDE_ID\" AND v.\"PARAM_KEY\" = 'path' \
           AND v.\"PARAM_VALUE\" IS DISTINCT FROM n.place",
        args![ids, places],
    )
    .await?;
    db.execute(
        "INSERT INTO hive.\"SERDE_PARAMS\" (\"SERDE_ID\", \"PARAM_KEY\", \"PARAM_VALUE\") \
         SELECT s.\"SERDE_ID\", 'path', n.place \
         FROM hive.\"PARTITIONS\" AS p, hive.\"SDS\" AS s, unnest($1, $2) AS n (id, place) \
         WHERE p.\"PART_ID\" = n.id AND s.\"SD_ID\" = p.\"SD_ID\" \
           AND NOT EXISTS (SELECT FROM hive.\"SERDE_PARAMS\" AS v \
             WHERE v.\"SERDE_ID\" = s.\"SERDE_ID\" AND v.\"PARAM_KEY\" = 'path')",
        args![ids, places],
    )
    .await?;
    delete_from(db, &["PARTITION_PARAMS", "PART_COL_STATS"], "PART_ID", &ids).await
}
