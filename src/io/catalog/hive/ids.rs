//! Ids of Hive's rows, taken from `SEQUENCE_TABLE` as DataNucleus, Hive's library, takes them.
//! An id is never used twice, not even after a rollback; gaps are usual there.

use super::super::session::{Lost, Session, args};
use std::collections::BTreeMap;
use std::ops::Range;
use windrow_core::table::commit::CatalogError;

/// Ids are taken from the metastore in blocks of at least this many.
const BLOCK: i64 = 16;

/// Ids that are reserved and not yet used, by DataNucleus' name of their class.
#[derive(Default)]
pub(super) struct Ids(BTreeMap<&'static str, Range<i64>>);

/// A kind of row whose ids are taken, with the table and the column where they are used.
pub(super) struct Class {
    name: &'static str,
    table: &'static str,
    column: &'static str,
}

pub(super) const COLUMNS: Class = Class::new(
    "org.apache.hadoop.hive.metastore.model.MColumnDescriptor",
    "CDS",
    "CD_ID",
);
pub(super) const DATABASE: Class = Class::new(
    "org.apache.hadoop.hive.metastore.model.MDatabase",
    "DBS",
    "DB_ID",
);
pub(super) const PARTITION: Class = Class::new(
    "org.apache.hadoop.hive.metastore.model.MPartition",
    "PARTITIONS",
    "PART_ID",
);
pub(super) const SERDE: Class = Class::new(
    "org.apache.hadoop.hive.metastore.model.MSerDeInfo",
    "SERDES",
    "SERDE_ID",
);
pub(super) const STORAGE: Class = Class::new(
    "org.apache.hadoop.hive.metastore.model.MStorageDescriptor",
    "SDS",
    "SD_ID",
);
pub(super) const TABLE: Class = Class::new(
    "org.apache.hadoop.hive.metastore.model.MTable",
    "TBLS",
    "TBL_ID",
);

impl Class {
    const fn new(name: &'static str, table: &'static str, column: &'static str) -> Self {
        Self {
            name,
            table,
            column,
        }
    }
}

impl Ids {
    /// Sees to it that so many ids of each class are reserved. It uses transactions of its own that
    /// end at once, so that nobody's DDL waits for a commit. `needs` is in the order of the
    /// classes' names: whoever locks several rows of `SEQUENCE_TABLE` must take them in the same
    /// order.
    pub(super) async fn reserve(
        &mut self,
        db: &mut Session,
        needs: &[(&Class, i64)],
    ) -> Result<(), CatalogError> {
        let short: Vec<(&Class, i64)> = needs
            .iter()
            .filter(|(class, n)| self.left(class) < *n)
            .copied()
            .collect();
        if short.is_empty() {
            return Ok(());
        }
        add_missing_rows(db, &short).await?;
        self.take_blocks(db, &short).await
    }

    fn left(&self, class: &Class) -> i64 {
        self.0.get(class.name).map_or(0, |ids| ids.end - ids.start)
    }

    /// Uses one of the reserved ids.
    ///
    /// # Errors
    /// `Retry` when there is none left. That happens only when what was looked up before the
    /// transaction has changed since.
    pub(super) fn next(&mut self, db: &Session, class: &Class) -> Result<i64, CatalogError> {
        let id = self.0.get_mut(class.name).and_then(Iterator::next);
        id.ok_or_else(|| db.retry(format_args!("too few ids of {} were reserved", class.table)))
    }

    /// Takes a block of each class: `NEXT_VAL` is the first id that nobody has reserved.
    async fn take_blocks(
        &mut self,
        db: &mut Session,
        short: &[(&Class, i64)],
    ) -> Result<(), CatalogError> {
        let mut taken = Vec::new();
        db.begin().await?;
        for (class, n) in short {
            let n = (*n).max(BLOCK);
            let row = db
                .query_one(
                    "UPDATE hive.\"SEQUENCE_TABLE\" SET \"NEXT_VAL\" = \"NEXT_VAL\" + $2 \
                     WHERE \"SEQUENCE_NAME\" = $1 RETURNING \"NEXT_VAL\"::bigint",
                    args![class.name, n],
                )
                .await?;
            let next: i64 = db.read(&row, 0, "Hive's SEQUENCE_TABLE.NEXT_VAL")?;
            taken.push((class.name, next - n..next));
        }
        db.commit(Lost::Again).await?;
        // What was left of older blocks is given up: gaps are usual.
        self.0.extend(taken);
        Ok(())
    }
}

/// Adds the rows of `SEQUENCE_TABLE` that nobody has needed before. Like DataNucleus, it lets them
/// begin after the ids that are in use. The table is locked before anything else, because not every
/// schema would refuse a second row of one name.
async fn add_missing_rows(db: &mut Session, short: &[(&Class, i64)]) -> Result<(), CatalogError> {
    let names: Vec<&str> = short.iter().map(|(class, _)| class.name).collect();
    let count = "SELECT count(DISTINCT \"SEQUENCE_NAME\") FROM hive.\"SEQUENCE_TABLE\" \
                 WHERE \"SEQUENCE_NAME\" = ANY($1)";
    db.begin().await?;
    let row = db.query_one(count, args![names]).await?;
    let there: i64 = db.read(&row, 0, "the number of sequences")?;
    if usize::try_from(there).is_ok_and(|n| n == names.len()) {
        return db.commit(Lost::Again).await;
    }
    db.batch("LOCK TABLE hive.\"SEQUENCE_TABLE\" IN SHARE ROW EXCLUSIVE MODE")
        .await?;
    for (class, _) in short {
        let sql = format!(
            "INSERT INTO hive.\"SEQUENCE_TABLE\" (\"SEQUENCE_NAME\", \"NEXT_VAL\") \
             SELECT $1, (SELECT COALESCE(MAX(\"{}\"), 0) + 1 FROM hive.\"{}\") \
             WHERE NOT EXISTS (SELECT FROM hive.\"SEQUENCE_TABLE\" WHERE \"SEQUENCE_NAME\" = $1)",
            class.column, class.table
        );
        db.execute(&sql, args![class.name]).await?;
    }
    db.commit(Lost::Again).await
}
