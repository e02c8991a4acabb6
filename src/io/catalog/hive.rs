//! Hive's own tables in PostgreSQL: the rows that make readers see windrow's tables and table partitions.
//! What those rows say is decided in `table`; when they are written, in `metastore`.
//!
//! Every statement names its columns, and only those that schema 2.3 has, so that the schemas of Hive's scripts for 2.3,
//! 3.1 and 4.0 and the one that Spark makes on the way (other integer widths, no UNIQUE, no foreign keys) all work.

use super::session::{Lost, Session, args};
use std::collections::BTreeMap;
use std::ops::Range;
use windrow_core::table::commit::{CatalogError, Genesis, NewFile};
use windrow_core::table::file::ColumnType;
use windrow_core::table::hive::{
    self, HivePartition, HiveTable, MARK, Storage, TableKind, TableName,
};
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

/// Hive's tables of schema 2.3.0, for a database that has none.
const SCHEMA: &str = include_str!("hive-2.3.0.sql");

/// Ids are taken from the metastore in blocks of this many.
const BLOCK: i64 = 16;

/// What was learned of this metastore over one connection.
#[derive(Default)]
pub(super) struct Hive {
    /// All needed tables are there, and ours to write.
    ready: bool,
    /// Databases belong to a catalog (3.1 and later); ours is the one called `hive`.
    has_catalogs: bool,
    /// The table partitions were there when many were looked at; from then on a few suffice.
    verified: bool,
    ids: Ids,
}

/// Ids reserved and not yet used, by DataNucleus' name of their class. An id is never used twice, not even after a
/// rollback; gaps are usual there.
#[derive(Default)]
struct Ids(BTreeMap<&'static str, Range<i64>>);

/// A class whose ids are taken, in the order in which they are locked.
struct Class {
    name: &'static str,
    table: &'static str,
    column: &'static str,
}

const COLUMNS: Class = Class::of(
    "org.apache.hadoop.hive.metastore.model.MColumnDescriptor",
    "CDS",
    "CD_ID",
);
const DATABASE: Class = Class::of(
    "org.apache.hadoop.hive.metastore.model.MDatabase",
    "DBS",
    "DB_ID",
);
const PARTITION: Class = Class::of(
    "org.apache.hadoop.hive.metastore.model.MPartition",
    "PARTITIONS",
    "PART_ID",
);
const SERDE: Class = Class::of(
    "org.apache.hadoop.hive.metastore.model.MSerDeInfo",
    "SERDES",
    "SERDE_ID",
);
const STORAGE: Class = Class::of(
    "org.apache.hadoop.hive.metastore.model.MStorageDescriptor",
    "SDS",
    "SD_ID",
);
const TABLE: Class = Class::of(
    "org.apache.hadoop.hive.metastore.model.MTable",
    "TBLS",
    "TBL_ID",
);

impl Class {
    const fn of(name: &'static str, table: &'static str, column: &'static str) -> Self {
        Self {
            name,
            table,
            column,
        }
    }
}

impl Hive {
    /// Whether Hive's tables are there and ours to write. Looked up once a connection.
    ///
    /// # Errors
    /// `Retry`, with what somebody has to do first.
    pub(super) async fn check_ready(&mut self, db: &Session) -> Result<(), CatalogError> {
        if self.ready {
            return Ok(());
        }
        let rows = db
            .query(
                "SELECT name, class IS NULL, COALESCE(has_table_privilege(class, 'SELECT') \
                   AND has_table_privilege(class, 'INSERT') AND has_table_privilege(class, 'UPDATE'), false) \
                 FROM (SELECT name, to_regclass(quote_ident(name))::oid AS class FROM unnest($1) AS name) AS needed \
                 ORDER BY name",
                args![NEEDED.to_vec()],
            )
            .await?;
        let names = |of: &dyn Fn(&tokio_postgres::Row) -> bool| {
            rows.iter()
                .filter(|row| of(row))
                .map(|row| row.get::<_, &str>(0))
                .collect::<Vec<_>>()
                .join(", ")
        };
        let missing = names(&|row| row.get(1));
        if !missing.is_empty() {
            return Err(db.retry_for(Cause::NoSchema, format_args!(
                "Hive schema not there yet: open Kyuubi and create a table, or set init-metastore=true (missing: {missing})"
            )));
        }
        let closed = names(&|row| !row.get::<_, bool>(2));
        if !closed.is_empty() {
            return Err(db.retry_for(Cause::NoRights, format_args!(
                "no rights on Hive's tables {closed}; grant the catalog's user pg_read_all_data and pg_write_all_data"
            )));
        }
        let row = db
            .query_one(
                "SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass('\"DBS\"') \
                 AND attname = 'CTLG_NAME' AND NOT attisdropped)",
                args![],
            )
            .await?;
        self.has_catalogs = row.get(0);
        self.ready = true;
        Ok(())
    }

    /// Reserves the ids that the rows of a commit need, each class in a transaction that ends at once, so that
    /// nobody's DDL waits for the commit.
    pub(super) async fn reserve(
        &mut self,
        db: &mut Session,
        name: &TableName,
        creates: bool,
        files: usize,
    ) -> Result<(), CatalogError> {
        let files = i64::try_from(files).expect("files fit memory");
        let tables = if creates { 4 } else { 0 };
        let databases = i64::from(creates && self.database_id(db, name).await?.is_none());
        // In the order of their names, as anybody else who takes several has to, too.
        let needs = [
            (&COLUMNS, tables),
            (&DATABASE, databases),
            (&PARTITION, files),
            (&SERDE, tables + files),
            (&STORAGE, tables + files),
            (&TABLE, tables),
        ];
        let short: Vec<_> = needs
            .into_iter()
            .filter(|(class, n)| self.ids.left(class) < *n)
            .collect();
        if !short.is_empty() {
            self.ids.add_missing_rows(db, &short).await?;
            self.ids.take_blocks(db, &short).await?;
        }
        Ok(())
    }

    async fn database_id(
        &self,
        db: &Session,
        name: &TableName,
    ) -> Result<Option<i64>, CatalogError> {
        let sql = format!(
            "SELECT \"DB_ID\"::bigint FROM \"DBS\" WHERE \"NAME\" = $1{}",
            self.catalog_filter("\"DBS\"")
        );
        let rows = db.query(&sql, args![name.database]).await?;
        if rows.len() > 1 {
            return Err(db.stop(format_args!(
                "Hive has two databases \"{}\"; remove one",
                name.database
            )));
        }
        Ok(rows.first().map(|row| row.get(0)))
    }

    /// The place of a Hive database, or `None` where there is no such database.
    pub(super) async fn database_location(
        &self,
        db: &Session,
        database: &str,
    ) -> Result<Option<String>, CatalogError> {
        let filter = self.catalog_filter("\"DBS\"");
        let sql = format!(
            "SELECT \"DB_LOCATION_URI\" FROM \"DBS\" WHERE \"NAME\" = $1{filter} ORDER BY \"DB_ID\""
        );
        Ok(db
            .query_opt(&sql, args![database])
            .await?
            .map(|row| row.get(0)))
    }

    fn catalog_filter(&self, alias: &str) -> String {
        if self.has_catalogs {
            format!(" AND {alias}.\"CTLG_NAME\" = 'hive'")
        } else {
            String::new()
        }
    }

    /// Refuses a table that is not windrow's, or of which the ledger knows nothing. Without a lock: an early look.
    pub(super) async fn check_free(
        &self,
        db: &Session,
        name: &TableName,
    ) -> Result<(), CatalogError> {
        match self.found(db, name, false).await?.into_iter().next() {
            Some(found) => Err(refusal(db, name, &found)),
            None => Ok(()),
        }
    }

    /// Writes again what is missing or altered of the tables and of the table partitions of `files`, which are given with
    /// the table partition that the ledger knows. Returns the files whose table partition is now another.
    ///
    /// # Errors
    /// `Stop` when another table has one of the names.
    pub(super) async fn restore(
        &mut self,
        db: &Session,
        name: &TableName,
        genesis: &Genesis,
        files: &[(i64, NewFile)],
    ) -> Result<Vec<(i64, String)>, CatalogError> {
        let Some(database) = self.database_id(db, name).await? else {
            return Err(db.stop(format_args!(
                "Hive has no database \"{0}\"; run CREATE DATABASE {0}",
                name.database
            )));
        };
        db.batch("LOCK TABLE \"TBLS\" IN SHARE ROW EXCLUSIVE MODE")
            .await?;
        let found = self.found(db, name, true).await?;
        for table in hive::tables(name, genesis) {
            match found.iter().find(|f| f.name == table.name) {
                None => self.create_table(db, database, &table).await?,
                Some(there) if !there.is_ours(name) || there.table_type != table.table_type => {
                    return Err(refusal(db, name, there));
                }
                Some(there) => {
                    db.execute(
                        "UPDATE \"TBLS\" SET \"VIEW_ORIGINAL_TEXT\" = $2, \"VIEW_EXPANDED_TEXT\" = $2 WHERE \"TBL_ID\" = $1",
                        args![there.id, table.view_text],
                    )
                    .await?;
                }
            }
        }
        let found = self.found(db, name, true).await?;
        let (mut there, mut missing) = (Vec::new(), Vec::new());
        let named = self
            .partition_ids(db, name, &found, &genesis.warehouse, files)
            .await?;
        for ((part_id, file), named) in files.iter().zip(named) {
            match named {
                Some(id) => there.push((id, *part_id, file)),
                None => missing.push(file.clone()),
            }
        }
        self.relocate(db, &genesis.warehouse, &there).await?;
        let added = self
            .add_partitions(db, &genesis.warehouse, &found, name, &missing)
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

    /// The table partition that has each file's place in its table, whatever it shows.
    async fn partition_ids(
        &self,
        db: &Session,
        name: &TableName,
        found: &[Found],
        warehouse: &str,
        files: &[(i64, NewFile)],
    ) -> Result<Vec<Option<i64>>, CatalogError> {
        let (mut tables, mut names) = (Vec::new(), Vec::new());
        for (_, file) in files {
            let partition = hive::partition(warehouse, file).map_err(|why| db.stop(why))?;
            let table = name.of(partition.kind);
            tables.push(found.iter().find(|f| f.name == table).map_or(-1, |f| f.id));
            names.push(partition.name);
        }
        let rows = db
            .query(
                "SELECT (SELECT min(p.\"PART_ID\")::bigint FROM \"PARTITIONS\" AS p JOIN \"SDS\" AS s ON s.\"SD_ID\" = p.\"SD_ID\" \
                   WHERE p.\"TBL_ID\" = f.id AND p.\"PART_NAME\" = f.name) \
                 FROM unnest($1, $2) WITH ORDINALITY AS f (id, name, position) ORDER BY f.position",
                args![tables, names],
            )
            .await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// Points table partitions at their files' folders.
    async fn relocate(
        &self,
        db: &Session,
        warehouse: &str,
        there: &[(i64, i64, &NewFile)],
    ) -> Result<(), CatalogError> {
        let ids: Vec<i64> = there.iter().map(|(id, ..)| *id).collect();
        let partitions: Vec<_> = there
            .iter()
            .filter_map(|(_, _, file)| hive::partition(warehouse, file).ok())
            .collect();
        let locations: Vec<Option<String>> =
            partitions.into_iter().map(|p| p.storage.location).collect();
        db.execute(
            "UPDATE \"SDS\" AS s SET \"LOCATION\" = n.location FROM \"PARTITIONS\" AS p, unnest($1, $2) AS n (id, location) \
             WHERE p.\"PART_ID\" = n.id AND s.\"SD_ID\" = p.\"SD_ID\"",
            args![ids, locations],
        )
        .await?;
        db.execute(
            "UPDATE \"SERDE_PARAMS\" AS v SET \"PARAM_VALUE\" = n.location \
             FROM \"PARTITIONS\" AS p, \"SDS\" AS s, unnest($1, $2) AS n (id, location) \
             WHERE p.\"PART_ID\" = n.id AND s.\"SD_ID\" = p.\"SD_ID\" AND v.\"SERDE_ID\" = s.\"SERDE_ID\" AND v.\"PARAM_KEY\" = 'path'",
            args![ids, locations],
        )
        .await?;
        Ok(())
    }

    /// Makes the four tables, and the database `default` where there is none yet.
    pub(super) async fn create(
        &mut self,
        db: &Session,
        name: &TableName,
        genesis: &Genesis,
    ) -> Result<(), CatalogError> {
        let database = match self.database_id(db, name).await? {
            Some(id) => id,
            None => self.create_default_database(db, name, genesis).await?,
        };
        // Spark's lazy schema has no UNIQUE constraint. With this lock no other client is in the middle of making a
        // table, and none begins before our commit. One that looked before us and inserts after us makes a second
        // table of the name; the next commit finds both and stops.
        db.batch("LOCK TABLE \"TBLS\" IN SHARE ROW EXCLUSIVE MODE")
            .await?;
        self.check_free(db, name).await?;
        for table in hive::tables(name, genesis) {
            self.create_table(db, database, &table).await?;
        }
        // A new table has no table partitions that could be missing.
        self.verified = true;
        Ok(())
    }

    async fn create_default_database(
        &mut self,
        db: &Session,
        name: &TableName,
        genesis: &Genesis,
    ) -> Result<i64, CatalogError> {
        if name.database != "default" {
            return Err(db.stop(format_args!(
                "Hive has no database \"{0}\"; run CREATE DATABASE {0} in Spark or Kyuubi, or choose another database",
                name.database
            )));
        }
        db.batch("LOCK TABLE \"DBS\" IN SHARE ROW EXCLUSIVE MODE")
            .await?;
        if let Some(id) = self.database_id(db, name).await? {
            return Ok(id);
        }
        let id = self.ids.next(db, &DATABASE)?;
        // As Hive itself makes it at its first start; 3.1 and later fill in the catalog by the column's default.
        db.execute(
            "INSERT INTO \"DBS\" (\"DB_ID\", \"DESC\", \"DB_LOCATION_URI\", \"NAME\", \"OWNER_NAME\", \"OWNER_TYPE\") \
             VALUES ($1, 'Default Hive database', $2, 'default', 'public', 'ROLE')",
            args![id, hive::warehouse_uri(&genesis.warehouse)],
        )
        .await?;
        Ok(id)
    }

    async fn create_table(
        &mut self,
        db: &Session,
        database: i64,
        table: &HiveTable,
    ) -> Result<(), CatalogError> {
        let columns = self.ids.next(db, &COLUMNS)?;
        db.execute(
            "INSERT INTO \"CDS\" (\"CD_ID\") VALUES ($1)",
            args![columns],
        )
        .await?;
        db.execute(
            "INSERT INTO \"COLUMNS_V2\" (\"CD_ID\", \"COLUMN_NAME\", \"TYPE_NAME\", \"INTEGER_IDX\") \
             SELECT $1, name, type, position - 1 FROM unnest($2, $3) WITH ORDINALITY AS c (name, type, position)",
            args![columns, names(&table.columns), types(&table.columns)],
        )
        .await?;
        let [storage] = self.create_storage(db, columns, &[&table.storage]).await?[..] else {
            return Err(db.retry("one storage row was asked for and not one was made"));
        };
        let id = self.ids.next(db, &TABLE)?;
        db.execute(
            "INSERT INTO \"TBLS\" (\"TBL_ID\", \"CREATE_TIME\", \"DB_ID\", \"LAST_ACCESS_TIME\", \"OWNER\", \"RETENTION\", \
               \"SD_ID\", \"TBL_NAME\", \"TBL_TYPE\", \"VIEW_EXPANDED_TEXT\", \"VIEW_ORIGINAL_TEXT\", \"IS_REWRITE_ENABLED\") \
             VALUES ($1, floor(extract(epoch FROM clock_timestamp()))::bigint, $2, 0, 'windrow', 0, $3, $4, $5, $6, $6, false)",
            args![id, database, storage, table.name, table.table_type, table.view_text],
        )
        .await?;
        let (keys, values): (Vec<_>, Vec<_>) = table
            .params
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .unzip();
        db.execute(
            "INSERT INTO \"TABLE_PARAMS\" (\"TBL_ID\", \"PARAM_KEY\", \"PARAM_VALUE\") \
             SELECT $1, key, value FROM unnest($2, $3) AS p (key, value)",
            args![id, keys, values],
        )
        .await?;
        db.execute(
            "INSERT INTO \"PARTITION_KEYS\" (\"TBL_ID\", \"PKEY_NAME\", \"PKEY_TYPE\", \"INTEGER_IDX\") \
             SELECT $1, name, type, position - 1 FROM unnest($2, $3) WITH ORDINALITY AS c (name, type, position)",
            args![id, names(&table.partition_columns), types(&table.partition_columns)],
        )
        .await?;
        Ok(())
    }

    /// A row of SDS for each, with a SERDES row of its own: `DROP PARTITION` deletes both. Returns the ids.
    async fn create_storage(
        &mut self,
        db: &Session,
        columns: i64,
        storages: &[&Storage],
    ) -> Result<Vec<i64>, CatalogError> {
        let mut serdes = Vec::new();
        let mut ids = Vec::new();
        let (mut param_serdes, mut keys, mut values) = (Vec::new(), Vec::new(), Vec::new());
        for storage in storages {
            let serde = self.ids.next(db, &SERDE)?;
            serdes.push(serde);
            ids.push(self.ids.next(db, &STORAGE)?);
            for (key, value) in storage.serde_params() {
                param_serdes.push(serde);
                keys.push(key);
                values.push(value);
            }
        }
        db.execute(
            "INSERT INTO \"SERDES\" (\"SERDE_ID\", \"SLIB\") SELECT id, slib FROM unnest($1, $2) AS s (id, slib)",
            args![serdes, storages.iter().map(|s| s.serde).collect::<Vec<_>>()],
        )
        .await?;
        db.execute(
            "INSERT INTO \"SERDE_PARAMS\" (\"SERDE_ID\", \"PARAM_KEY\", \"PARAM_VALUE\") \
             SELECT id, key, value FROM unnest($1, $2, $3) AS p (id, key, value)",
            args![param_serdes, keys, values],
        )
        .await?;
        db.execute(
            "INSERT INTO \"SDS\" (\"SD_ID\", \"INPUT_FORMAT\", \"IS_COMPRESSED\", \"LOCATION\", \"NUM_BUCKETS\", \
               \"OUTPUT_FORMAT\", \"SERDE_ID\", \"CD_ID\", \"IS_STOREDASSUBDIRECTORIES\") \
             SELECT id, input, false, location, -1, output, serde, $1, false \
             FROM unnest($2, $3, $4, $5, $6) AS s (id, serde, location, input, output)",
            args![
                columns,
                ids,
                serdes,
                storages.iter().map(|s| s.location.clone()).collect::<Vec<_>>(),
                storages.iter().map(|s| s.input_format).collect::<Vec<_>>(),
                storages.iter().map(|s| s.output_format).collect::<Vec<_>>(),
            ],
        )
        .await?;
        Ok(ids)
    }

    /// Locks the four tables, so that nobody drops or changes one before the commit, and sees that they are as windrow
    /// made them.
    ///
    /// # Errors
    /// `Stop` with the way out when a table, the view or a table partition is missing or altered.
    pub(super) async fn check_tables(
        &mut self,
        db: &Session,
        name: &TableName,
        genesis: &Genesis,
    ) -> Result<Vec<Found>, CatalogError> {
        let found = self.found(db, name, true).await?;
        for table in hive::tables(name, genesis) {
            let dropped = |what: &str| {
                db.stop(format_args!(
                    "table was dropped: \"{}.{}\" {what}; run windrow adopt --restore, or choose another table name",
                    name.database, table.name
                ))
            };
            let mut same_name = found.iter().filter(|f| f.name == table.name);
            let Some(there) = same_name.next() else {
                return Err(dropped("is no longer in Hive"));
            };
            if same_name.next().is_some() {
                return Err(db.stop(format_args!(
                    "Hive has two tables \"{}.{}\", as somebody made one at the same moment; drop the one that is not windrow's",
                    name.database, table.name
                )));
            }
            if !there.is_ours(name) {
                return Err(dropped("is another table now"));
            }
            let other_text = table.view_text.is_some() && there.view_text != table.view_text;
            if there.table_type != table.table_type || other_text || there.columns.is_none() {
                return Err(dropped("is no longer as windrow made it"));
            }
        }
        self.check_partitions(db, name, genesis, &found).await?;
        Ok(found)
    }

    /// Looks for the table partitions of committed files: many the first time, then the newest ones. Never for all of
    /// them: the look must end within a transaction's time however old the table is.
    async fn check_partitions(
        &mut self,
        db: &Session,
        name: &TableName,
        genesis: &Genesis,
        found: &[Found],
    ) -> Result<(), CatalogError> {
        let limit = if self.verified { 8_i64 } else { 10_000 };
        let tables: Vec<i64> = found.iter().map(|f| f.id).collect();
        let missing = db
            .query_opt(
                "SELECT f.key FROM (SELECT key, part_id FROM windrow_1.file WHERE database = $1 AND \"table\" = $2 \
                   AND retired_at IS NULL ORDER BY epoch DESC LIMIT $3) AS f \
                 WHERE NOT EXISTS (SELECT FROM \"PARTITIONS\" AS p JOIN \"SDS\" AS s ON s.\"SD_ID\" = p.\"SD_ID\" \
                   WHERE p.\"PART_ID\" = f.part_id AND p.\"TBL_ID\" = ANY($4) \
                   AND s.\"LOCATION\" = $5 || regexp_replace(f.key, '/[^/]*$', '')) \
                 LIMIT 1",
                args![name.database, name.table, limit, tables, hive::location(&genesis.warehouse, "")],
            )
            .await?;
        if let Some(row) = missing {
            let key: &str = row.get(0);
            return Err(db.stop(format_args!(
                "table was dropped: the table partition of file \"{key}\" is missing or altered; run windrow adopt --restore, or choose another table name"
            )));
        }
        self.verified = true;
        Ok(())
    }

    /// Shows the files to readers; returns the table partitions' ids in the order of the files.
    pub(super) async fn add_partitions(
        &mut self,
        db: &Session,
        warehouse: &str,
        found: &[Found],
        name: &TableName,
        files: &[NewFile],
    ) -> Result<Vec<i64>, CatalogError> {
        let partitions: Vec<HivePartition> = files
            .iter()
            .map(|file| hive::partition(warehouse, file))
            .collect::<Result<_, _>>()
            .map_err(|why| db.stop(why))?;
        let mut part_ids = vec![0; files.len()];
        for kind in [TableKind::Chunks, TableKind::Late, TableKind::Rejects] {
            let (indexes, of_kind): (Vec<usize>, Vec<&HivePartition>) = partitions
                .iter()
                .enumerate()
                .filter(|(_, p)| p.kind == kind)
                .unzip();
            if of_kind.is_empty() {
                continue;
            }
            let Some((id, columns)) = found
                .iter()
                .find(|f| f.name == name.of(kind))
                .and_then(|f| Some((f.id, f.columns?)))
            else {
                return Err(db.retry(format_args!("table \"{}\" went away", name.of(kind))));
            };
            let ids = self.add_partitions_of(db, id, columns, &of_kind).await?;
            for (index, id) in indexes.into_iter().zip(ids) {
                part_ids[index] = id;
            }
        }
        Ok(part_ids)
    }

    async fn add_partitions_of(
        &mut self,
        db: &Session,
        table: i64,
        columns: i64,
        partitions: &[&HivePartition],
    ) -> Result<Vec<i64>, CatalogError> {
        let storages: Vec<_> = partitions.iter().map(|p| &p.storage).collect();
        let storage_ids = self.create_storage(db, columns, &storages).await?;
        let mut ids = Vec::new();
        let (mut value_ids, mut values, mut positions) = (Vec::new(), Vec::new(), Vec::new());
        for partition in partitions {
            let id = self.ids.next(db, &PARTITION)?;
            ids.push(id);
            for (position, value) in (0_i32..).zip(&partition.values) {
                value_ids.push(id);
                values.push(value.as_str());
                positions.push(position);
            }
        }
        db.execute(
            "INSERT INTO \"PARTITIONS\" (\"PART_ID\", \"CREATE_TIME\", \"LAST_ACCESS_TIME\", \"PART_NAME\", \"SD_ID\", \"TBL_ID\") \
             SELECT id, floor(extract(epoch FROM clock_timestamp()))::bigint, 0, name, storage, $1 \
             FROM unnest($2, $3, $4) AS p (id, name, storage)",
            args![table, ids, partitions.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), storage_ids],
        )
        .await?;
        db.execute(
            "INSERT INTO \"PARTITION_KEY_VALS\" (\"PART_ID\", \"PART_KEY_VAL\", \"INTEGER_IDX\") \
             SELECT id, value, position FROM unnest($1, $2, $3) AS v (id, value, position)",
            args![value_ids, values, positions],
        )
        .await?;
        Ok(ids)
    }

    /// The rows of TBLS that have one of the four names.
    pub(super) async fn found(
        &self,
        db: &Session,
        name: &TableName,
        lock: bool,
    ) -> Result<Vec<Found>, CatalogError> {
        let sql = format!(
            "SELECT t.\"TBL_ID\"::bigint, t.\"TBL_NAME\", t.\"TBL_TYPE\", t.\"VIEW_EXPANDED_TEXT\", s.\"CD_ID\"::bigint, \
               (SELECT p.\"PARAM_VALUE\" FROM \"TABLE_PARAMS\" AS p WHERE p.\"TBL_ID\" = t.\"TBL_ID\" AND p.\"PARAM_KEY\" = $3) \
             FROM \"TBLS\" AS t JOIN \"DBS\" AS d ON d.\"DB_ID\" = t.\"DB_ID\" LEFT JOIN \"SDS\" AS s ON s.\"SD_ID\" = t.\"SD_ID\" \
             WHERE d.\"NAME\" = $1 AND t.\"TBL_NAME\" = ANY($2){} ORDER BY t.\"TBL_ID\"{}",
            self.catalog_filter("d"),
            if lock { " FOR UPDATE OF t" } else { "" }
        );
        let names: Vec<String> = TableKind::ALL.iter().map(|kind| name.of(*kind)).collect();
        let rows = db.query(&sql, args![name.database, names, MARK]).await?;
        Ok(rows
            .iter()
            .map(|row| Found {
                id: row.get(0),
                name: row.get(1),
                table_type: row.get::<_, Option<String>>(2).unwrap_or_default(),
                view_text: row.get(3),
                columns: row.get(4),
                mark: row.get(5),
            })
            .collect())
    }
}

/// A table of one of our names, as Hive has it.
pub(super) struct Found {
    id: i64,
    name: String,
    table_type: String,
    view_text: Option<String>,
    /// Id of its column list, which its table partitions share.
    columns: Option<i64>,
    mark: Option<String>,
}

impl Found {
    fn is_ours(&self, name: &TableName) -> bool {
        self.mark.as_deref() == Some(name.to_string().as_str())
    }
}

fn refusal(db: &Session, name: &TableName, found: &Found) -> CatalogError {
    let table = format!("{}.{}", name.database, found.name);
    if found.is_ours(name) {
        return db.stop(format_args!(
            "table {table} is windrow's, but its ledger is lost; run windrow adopt --from-manifests, or choose another table name"
        ));
    }
    db.stop(format_args!(
        "table {table} is there and is not windrow's (a Spark job's, perhaps); choose another table name, or run windrow adopt"
    ))
}

fn names(columns: &[ColumnType]) -> Vec<&str> {
    columns.iter().map(|c| c.name.as_str()).collect()
}

fn types(columns: &[ColumnType]) -> Vec<&str> {
    columns.iter().map(|c| c.hive.as_str()).collect()
}

impl Ids {
    fn left(&self, class: &Class) -> i64 {
        self.0.get(class.name).map_or(0, |ids| ids.end - ids.start)
    }

    fn next(&mut self, db: &Session, class: &Class) -> Result<i64, CatalogError> {
        // Fewer than needed only when what was looked up before the transaction has changed since.
        let id = self.0.get_mut(class.name).and_then(Iterator::next);
        id.ok_or_else(|| db.retry(format_args!("too few ids of {} were reserved", class.table)))
    }

    /// Adds rows of SEQUENCE_TABLE that nobody needed before, beginning after the ids that are there, as DataNucleus does.
    /// Under a lock, taken before anything else: not every schema would refuse a second row.
    async fn add_missing_rows(
        &self,
        db: &mut Session,
        short: &[(&Class, i64)],
    ) -> Result<(), CatalogError> {
        let names: Vec<&str> = short.iter().map(|(class, _)| class.name).collect();
        let count = "SELECT count(DISTINCT \"SEQUENCE_NAME\") FROM \"SEQUENCE_TABLE\" WHERE \"SEQUENCE_NAME\" = ANY($1)";
        let there: i64 = db.query_one(count, args![names]).await?.get(0);
        if usize::try_from(there).is_ok_and(|n| n == names.len()) {
            return Ok(());
        }
        db.begin().await?;
        db.batch("LOCK TABLE \"SEQUENCE_TABLE\" IN SHARE ROW EXCLUSIVE MODE")
            .await?;
        for (class, _) in short {
            let sql = format!(
                "INSERT INTO \"SEQUENCE_TABLE\" (\"SEQUENCE_NAME\", \"NEXT_VAL\") \
                 SELECT $1, (SELECT COALESCE(MAX(\"{}\"), 0) + 1 FROM \"{}\") \
                 WHERE NOT EXISTS (SELECT FROM \"SEQUENCE_TABLE\" WHERE \"SEQUENCE_NAME\" = $1)",
                class.column, class.table
            );
            db.execute(&sql, args![class.name]).await?;
        }
        db.commit(Lost::Again).await
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
                    "UPDATE \"SEQUENCE_TABLE\" SET \"NEXT_VAL\" = \"NEXT_VAL\" + $2 WHERE \"SEQUENCE_NAME\" = $1 \
                     RETURNING \"NEXT_VAL\"::bigint",
                    args![class.name, n],
                )
                .await?;
            let next: i64 = row.get(0);
            taken.push((class.name, next - n..next));
        }
        db.commit(Lost::Again).await?;
        // What was left of older blocks is given up: gaps are usual.
        self.0.extend(taken);
        Ok(())
    }
}

/// Makes all of Hive's schema where the database has no table at all, and opens it to whoever may connect.
///
/// # Errors
/// `Retry` when there is a part of it: whoever began must finish.
pub(super) async fn init(db: &mut Session) -> Result<(), CatalogError> {
    db.begin().await?;
    // Against other windrows; against Hive's own clients a name that is there already undoes all of this.
    db.batch("SELECT pg_advisory_xact_lock(7595448412731)")
        .await?;
    let row = db
        .query_one(
            "SELECT to_regclass('\"TBLS\"') IS NOT NULL, EXISTS (SELECT FROM pg_class \
             WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p', 'v'))",
            args![],
        )
        .await?;
    match (row.get(0), row.get(1)) {
        (true, _) => return db.commit(Lost::Again).await,
        (false, true) => {
            return Err(db.retry(
                "init-metastore needs an empty database, and this one has tables; open Kyuubi and create a table instead",
            ));
        }
        (false, false) => {}
    }
    db.batch(SCHEMA).await?;
    grant_to_all_who_may_connect(db).await?;
    db.commit(Lost::Again).await
}

/// Grants by name: PostgreSQL gives a new table to nobody but its owner, and Kyuubi logs in as another role. To those
/// who log in and not to groups, of which some are there for looking on.
async fn grant_to_all_who_may_connect(db: &Session) -> Result<(), CatalogError> {
    let lists = db
        .query_one(
            "SELECT (SELECT string_agg(c.oid::regclass::text, ', ') FROM pg_class AS c \
                 WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r'), \
               (SELECT string_agg(c.oid::regclass::text, ', ') FROM pg_class AS c \
                 WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'S'), \
               (SELECT string_agg(quote_ident(r.rolname), ', ') FROM pg_roles AS r \
                 WHERE has_database_privilege(r.oid, current_database(), 'CONNECT') AND r.rolname <> current_user \
                 AND r.rolcanlogin AND NOT r.rolsuper)",
            args![],
        )
        .await?;
    let (tables, sequences, roles): (Option<&str>, Option<&str>, Option<&str>) =
        (lists.get(0), lists.get(1), lists.get(2));
    let Some(roles) = roles else { return Ok(()) };
    for (kind, objects) in [("TABLE", tables), ("SEQUENCE", sequences)] {
        if let Some(objects) = objects {
            db.batch(&format!("GRANT ALL ON {kind} {objects} TO {roles}"))
                .await?;
        }
    }
    Ok(())
}
