//! Hive's own tables in PostgreSQL: the rows that make readers see windrow's tables and table
//! partitions. What those rows say is decided in `windrow_core::table::hive`; when they are
//! written, in `postgres`. This file looks whether they are as they should be.
//!
//! Every statement names its columns, and only those that schema 2.3 has. So it works with the
//! schemas of Hive's scripts for 2.3, 3.1 and 4.0, and with the one that Spark makes on the way,
//! which has other integer widths, no UNIQUE constraint and no foreign keys.

mod ids;
mod create;
mod delete;
mod partitions;
mod compare;
mod places;
mod restore;
mod adopt;
mod init;

pub(super) use init::{ROLES_LET_IN, init};
pub(super) use restore::Restored;

use super::session::{Lost, Session, args};
use ids::Ids;
use tokio_postgres::Row;
use windrow_core::table::commit::{CatalogError, Genesis};
use windrow_core::table::hive::{self, FoundTable, HiveTable, MARK, TableKind, TableName};
use windrow_core::values::cause::Cause;

/// The tables that windrow writes.
const NEEDED: [&str; 12] = [
    "CDS",
    "COLUMNS_V2",
    "DBS",
    "PARTITIONS",
    "PARTITION_KEYS",
    "PARTITION_KEY_VALS",
    "SDS",
    "SEQUENCE_TABLE",
    "SERDES",
    "SERDE_PARAMS",
    "TABLE_PARAMS",
    "TBLS",
];

/// What was learned of this metastore over one connection.
#[derive(Default)]
pub(super) struct Hive {
    /// All needed tables are there, and ours to write.
    ready: bool,
    /// Databases belong to one of Hive's catalogs (3.1 and later); ours is the one called `hive`.
    has_catalogs: bool,
    /// How many commits may pass before all table partitions are counted again.
    commits_to_count: i64,
    ids: Ids,
}

impl Hive {
    /// Sees that Hive's tables are there and ours to write. It asks once for each connection.
    ///
    /// # Errors
    /// `Retry`, with what somebody has to do first.
    pub(super) async fn check_ready(&mut self, db: &mut Session) -> Result<(), CatalogError> {
        if self.ready {
            return Ok(());
        }
        db.begin().await?;
        let rows = db
            .query(
                "SELECT name, class IS NULL, COALESCE(has_table_privilege(class, 'SELECT') \
                   AND has_table_privilege(class, 'INSERT') \
                   AND has_table_privilege(class, 'UPDATE') \
                   AND has_table_privilege(class, 'DELETE'), false) \
                 FROM (SELECT name, to_regclass($2 || '.' || quote_ident(name))::oid AS class \
                   FROM unnest($1) AS name) AS needed \
                 ORDER BY name",
                args![NEEDED.to_vec(), db.hive_schema()],
            )
            .await?;
        let names = |have: &dyn Fn(&Row) -> bool| {
            rows.iter()
                .filter(|row| have(row))
                .map(|row| row.get::<_, &str>(0))
                .collect::<Vec<_>>()
                .join(", ")
        };
        let missing = names(&|row| row.get(1));
        if !missing.is_empty() {
            let why = format!(
                "Hive schema not there yet: open Kyuubi and create a table, \
                 or set init-metastore=true (missing: {missing})"
            );
            return Err(db.retry_for(Cause::NoSchema, why));
        }
        let closed = names(&|row| !row.get::<_, bool>(2));
        if !closed.is_empty() {
            let why = format!(
                "no rights on Hive's tables {closed}; \
                 grant the catalog's user pg_read_all_data and pg_write_all_data"
            );
            return Err(db.retry_for(Cause::NoRights, why));
        }
        let row = db
            .query_one(
                "SELECT EXISTS (SELECT FROM pg_attribute \
                 WHERE attrelid = to_regclass($1 || '.\"DBS\"') \
                 AND attname = 'CTLG_NAME' AND NOT attisdropped)",
                args![db.hive_schema()],
            )
            .await?;
        db.commit(Lost::Again).await?;
        self.has_catalogs = row.get(0);
        self.ready = true;
        Ok(())
    }

    async fn database_id(
        &self,
        db: &Session,
        name: &TableName,
    ) -> Result<Option<i64>, CatalogError> {
        let sql = format!(
            "SELECT \"DB_ID\"::bigint FROM hive.\"DBS\" WHERE \"NAME\" = $1{}",
            self.catalog_filter("\"DBS\"")
        );
        let rows = db.query(&sql, args![name.database]).await?;
        if rows.len() > 1 {
            return Err(db.stop(format_args!(
                "Hive has two databases \"{}\"; remove one",
                name.database
            )));
        }
        let read = |row| db.read(row, 0, "Hive's DBS.DB_ID");
        rows.first().map(read).transpose()
    }

    /// The place of a Hive database, or `None` where there is no such database.
    pub(super) async fn database_location(
        &self,
        db: &Session,
        database: &str,
    ) -> Result<Option<String>, CatalogError> {
        let filter = self.catalog_filter("\"DBS\"");
        let sql = format!(
            "SELECT \"DB_LOCATION_URI\" FROM hive.\"DBS\" \
             WHERE \"NAME\" = $1{filter} ORDER BY \"DB_ID\""
        );
        let row = db.query_opt(&sql, args![database]).await?;
        row.map(|row| db.read(&row, 0, "Hive's DBS.DB_LOCATION_URI"))
            .transpose()
    }

    fn catalog_filter(&self, alias: &str) -> String {
        if self.has_catalogs {
            format!(" AND {alias}.\"CTLG_NAME\" = 'hive'")
        } else {
            String::new()
        }
    }

    /// Refuses a table that is not windrow's, or that the journal does not know. It takes no lock,
    /// so a table may still appear afterwards.
    pub(super) async fn check_free(
        &self,
        db: &Session,
        name: &TableName,
    ) -> Result<(), CatalogError> {
        match self.table_rows(db, name, false).await?.first() {
            Some(row) => Err(refusal(db, name, row)),
            None => Ok(()),
        }
    }

    /// Locks the rows of the four tables, so that nobody drops or changes one before the commit,
    /// and sees that they are as windrow made them. Their table partitions show what the journal
    /// says then.
    ///
    /// # Errors
    /// `Stop` with the way out when a table, the view or a table partition is missing or altered.
    pub(super) async fn check_tables(
        &mut self,
        db: &Session,
        name: &TableName,
        genesis: &Genesis,
    ) -> Result<Vec<HiveTableRow>, CatalogError> {
        let rows = self.table_rows(db, name, true).await?;
        for table in hive::tables(name, genesis) {
            if let Some(why) = damage(&rows, name, &table) {
                return Err(db.stop_for(Cause::TableDropped, why));
            }
        }
        self.put_places_right(db, name, genesis, &rows).await?;
        Ok(rows)
    }

    /// The rows of `TBLS` that have one of the four names, locked until the transaction ends or
    /// not.
    async fn table_rows(
        &self,
        db: &Session,
        name: &TableName,
        lock: bool,
    ) -> Result<Vec<HiveTableRow>, CatalogError> {
        let lists = "ARRAY(SELECT c.\"COLUMN_NAME\" FROM hive.\"COLUMNS_V2\" AS c \
               WHERE c.\"CD_ID\" = s.\"CD_ID\" ORDER BY c.\"INTEGER_IDX\")::text[], \
             ARRAY(SELECT c.\"TYPE_NAME\" FROM hive.\"COLUMNS_V2\" AS c \
               WHERE c.\"CD_ID\" = s.\"CD_ID\" ORDER BY c.\"INTEGER_IDX\")::text[], \
             ARRAY(SELECT k.\"PKEY_NAME\" FROM hive.\"PARTITION_KEYS\" AS k \
               WHERE k.\"TBL_ID\" = t.\"TBL_ID\" ORDER BY k.\"INTEGER_IDX\")::text[], \
             ARRAY(SELECT k.\"PKEY_TYPE\" FROM hive.\"PARTITION_KEYS\" AS k \
               WHERE k.\"TBL_ID\" = t.\"TBL_ID\" ORDER BY k.\"INTEGER_IDX\")::text[], \
             ARRAY(SELECT p.\"PARAM_KEY\" FROM hive.\"TABLE_PARAMS\" AS p \
               WHERE p.\"TBL_ID\" = t.\"TBL_ID\" ORDER BY p.\"PARAM_KEY\")::text[], \
             ARRAY(SELECT p.\"PARAM_VALUE\" FROM hive.\"TABLE_PARAMS\" AS p \
               WHERE p.\"TBL_ID\" = t.\"TBL_ID\" ORDER BY p.\"PARAM_KEY\")::text[]";
        let sql = format!(
            "SELECT t.\"TBL_ID\"::bigint, t.\"TBL_NAME\", t.\"TBL_TYPE\", \
               t.\"VIEW_EXPANDED_TEXT\", s.\"CD_ID\"::bigint, {lists}, t.\"SD_ID\"::bigint \
             FROM hive.\"TBLS\" AS t JOIN hive.\"DBS\" AS d ON d.\"DB_ID\" = t.\"DB_ID\" \
               LEFT JOIN hive.\"SDS\" AS s ON s.\"SD_ID\" = t.\"SD_ID\" \
             WHERE d.\"NAME\" = $1 AND t.\"TBL_NAME\" = ANY($2){} ORDER BY t.\"TBL_ID\"{}",
            self.catalog_filter("d"),
            if lock { " FOR UPDATE OF t" } else { "" }
        );
        let names: Vec<String> = TableKind::ALL.iter().map(|kind| name.of(*kind)).collect();
        let rows = db.query(&sql, args![name.database, names]).await?;
        rows.iter().map(|row| HiveTableRow::read(db, row)).collect()
    }
}

/// A table of one of our names, as Hive has it.
pub(super) struct HiveTableRow {
    id: i64,
    name: String,
    /// The id of its row of `SDS`.
    storage: Option<i64>,
    /// The id of its column list, which its table partitions share.
    columns: Option<i64>,
    found: FoundTable,
}

impl HiveTableRow {
    fn read(db: &Session, row: &Row) -> Result<Self, CatalogError> {
        let table_type: Option<String> = db.read(row, 2, "Hive's TBLS.TBL_TYPE")?;
        Ok(Self {
            id: db.read(row, 0, "Hive's TBLS.TBL_ID")?,
            name: db.read(row, 1, "Hive's TBLS.TBL_NAME")?,
            storage: db.read(row, 11, "Hive's TBLS.SD_ID")?,
            columns: db.read(row, 4, "Hive's SDS.CD_ID")?,
            found: FoundTable {
                table_type: table_type.unwrap_or_default(),
                view_text: db.read(row, 3, "Hive's TBLS.VIEW_EXPANDED_TEXT")?,
                columns: read_pairs(
                    db,
                    row,
                    5,
                    ["COLUMNS_V2.COLUMN_NAME", "COLUMNS_V2.TYPE_NAME"],
                )?,
                partition_columns: read_pairs(
                    db,
                    row,
                    7,
                    ["PARTITION_KEYS.PKEY_NAME", "PARTITION_KEYS.PKEY_TYPE"],
                )?,
                params: read_pairs(
                    db,
                    row,
                    9,
                    ["TABLE_PARAMS.PARAM_KEY", "TABLE_PARAMS.PARAM_VALUE"],
                )?,
            },
        })
    }

    /// Whether it has the property that marks a table as windrow's, with the name of this one.
    fn is_ours(&self, name: &TableName) -> bool {
        self.found.params.get(MARK) == Some(&name.to_string())
    }

    /// What to do with a table that has one of windrow's names and is not windrow's, before
    /// `windrow restore`. A drop is never advised where it may delete files, because this may be
    /// windrow's own table without its mark, and the files are all that the table has.
    fn way_out(&self, name: &TableName) -> String {
        if !self.found.drop_deletes_files() {
            return "drop that one".to_owned();
        }
        format!(
            "do not drop it, because that may delete files: if it shows windrow's rows, run \
             ALTER TABLE `{}`.`{}` SET TBLPROPERTIES ('{MARK}'='{name}'), else rename it",
            name.database, self.name
        )
    }
}

/// Two arrays of one length that stand beside each other, as pairs; null as an empty text. `names`
/// are those of Hive's columns.
fn read_pairs<C: FromIterator<(String, String)>>(
    db: &Session,
    row: &Row,
    column: usize,
    names: [&str; 2],
) -> Result<C, CatalogError> {
    let read = |i: usize| -> Result<Vec<Option<String>>, CatalogError> {
        db.read(row, column + i, &format!("Hive's {}", names[i]))
    };
    let text = Option::unwrap_or_default;
    let pairs = read(0)?.into_iter().zip(read(1)?);
    Ok(pairs.map(|(a, b)| (text(a), text(b))).collect())
}

/// How Hive's rows differ from a table that windrow made, with the way out; `None` when they do
/// not.
fn damage(rows: &[HiveTableRow], name: &TableName, table: &HiveTable) -> Option<String> {
    let full_name = format!("{}.{}", name.database, table.name);
    let dropped = |what: &str| {
        Some(format!(
            "table was dropped: \"{full_name}\" {what}, or choose another table name"
        ))
    };
    let mut same_name = rows.iter().filter(|row| row.name == table.name);
    let Some(row) = same_name.next() else {
        return dropped("is no longer in Hive; run windrow restore");
    };
    if same_name.next().is_some() {
        return Some(format!(
            "Hive has two tables \"{full_name}\", because somebody made one at the same moment; \
             run windrow restore"
        ));
    }
    if !row.is_ours(name) {
        let way_out = row.way_out(name);
        return dropped(&format!(
            "is another table now; {way_out}, and run windrow restore"
        ));
    }
    let differences = table.differences(&row.found);
    let what = differences.first()?;
    dropped(&format!(
        "is no longer as windrow made it (altered: {what}); run windrow restore"
    ))
}

/// Why a name that is taken cannot be used, with the way out.
fn refusal(db: &Session, name: &TableName, row: &HiveTableRow) -> CatalogError {
    let full_name = format!("{}.{}", name.database, row.name);
    if row.is_ours(name) {
        return db.stop(format_args!(
            "table \"{full_name}\" is windrow's, but the journal does not know it; to rebuild \
             that from the store run: windrow restore --from-manifests; or restore the database \
             from a backup, or choose another table name"
        ));
    }
    let way_out = if row.found.drop_deletes_files() {
        "rename"
    } else {
        "drop"
    };
    db.stop(format_args!(
        "table \"{full_name}\" is there and is not windrow's (a Spark job's, perhaps); \
         take it over with \"windrow adopt\", choose another table name, or {way_out} that table"
    ))
}
