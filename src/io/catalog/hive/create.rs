//! New rows: the tables of epoch 0, and the table partitions that show files.

use super::super::session::{Lost, Session, args};
use super::ids::{COLUMNS, DATABASE, PARTITION, SERDE, STORAGE, TABLE};
use super::partitions::insert_key_values;
use super::{Hive, HiveTableRow};
use windrow_core::table::commit::{CatalogError, Genesis};
use windrow_core::table::file::ColumnType;
use windrow_core::table::hive::{self, HivePartition, HiveTable, Storage, TableKind, TableName};

impl Hive {
    /// Reserves the ids that the rows of a commit need: of the four tables where it `creates` them,
    /// and of so many new table partitions.
    pub(in super::super) async fn reserve(
        &mut self,
        db: &mut Session,
        name: &TableName,
        creates: bool,
        partitions: usize,
    ) -> Result<(), CatalogError> {
        let partitions = i64::try_from(partitions).expect("they fit memory");
        let tables = if creates { 4 } else { 0 };
        let mut databases = 0;
        if creates {
            db.begin().await?;
            databases = i64::from(self.database_id(db, name).await?.is_none());
            db.commit(Lost::Again).await?;
        }
        let needs = [
            (&COLUMNS, tables),
            (&DATABASE, databases),
            (&PARTITION, partitions),
            (&SERDE, tables + partitions),
            (&STORAGE, tables + partitions),
            (&TABLE, tables),
        ];
        self.ids.reserve(db, &needs).await
    }

    /// Makes the four tables, and the database `default` where there is none yet.
    ///
    /// # Errors
    /// `Stop` when one of the names is taken, or when another database than `default` is missing.
    pub(in super::super) async fn create(
        &mut self,
        db: &Session,
        name: &TableName,
        genesis: &Genesis,
    ) -> Result<(), CatalogError> {
        let database = self.make_database(db, name, genesis).await?;
        // Spark's lazy schema has no UNIQUE constraint. With this lock no other client is in the
        // middle of making a table, and none begins before our commit. A client that looked before
        // us and inserts after us makes a second table of the name; the next commit finds both and
        // stops.
        db.batch("LOCK TABLE hive.\"TBLS\" IN SHARE ROW EXCLUSIVE MODE")
            .await?;
        let adopted = genesis.adopted.as_ref();
        if let Some(renamed_to) = adopted.and_then(|adopted| adopted.renamed_to.as_ref()) {
            self.rename_spark_entry(db, name, renamed_to).await?;
        }
        self.check_free(db, name).await?;
        for table in hive::tables(name, genesis) {
            self.create_table(db, database, &table).await?;
        }
        Ok(())
    }

    /// The id of the table's database. Where it is `default`, it is made if it is not there.
    ///
    /// # Errors
    /// `Stop` when another database than `default` is missing.
    pub(in super::super) async fn make_database(
        &mut self,
        db: &Session,
        name: &TableName,
        genesis: &Genesis,
    ) -> Result<i64, CatalogError> {
        match self.database_id(db, name).await? {
            Some(id) => Ok(id),
            None => self.create_default_database(db, name, genesis).await,
        }
    }

    async fn create_default_database(
        &mut self,
        db: &Session,
        name: &TableName,
        genesis: &Genesis,
    ) -> Result<i64, CatalogError> {
        if name.database != "default" {
            return Err(db.stop(format_args!(
                "Hive has no database \"{0}\"; run CREATE DATABASE `{0}` in Spark or Kyuubi, \
                 or choose another database",
                name.database
            )));
        }
        db.batch("LOCK TABLE hive.\"DBS\" IN SHARE ROW EXCLUSIVE MODE")
            .await?;
        if let Some(id) = self.database_id(db, name).await? {
            return Ok(id);
        }
        let id = self.ids.next(db, &DATABASE)?;
        // It is made as Hive itself makes it at its first start. In 3.1 and later the column's
        // default fills in the catalog.
        db.execute(
            "INSERT INTO hive.\"DBS\" (\"DB_ID\", \"DESC\", \"DB_LOCATION_URI\", \"NAME\", \
               \"OWNER_NAME\", \"OWNER_TYPE\") \
             VALUES ($1, 'Default Hive database', $2, 'default', 'public', 'ROLE')",
            args![id, genesis.warehouse.uri()],
        )
        .await?;
        Ok(id)
    }

    /// Makes one table or view, without table partitions. `database` is the id of its database.
    pub(super) async fn create_table(
        &mut self,
        db: &Session,
        database: i64,
        table: &HiveTable,
    ) -> Result<(), CatalogError> {
        let storage = self.create_table_storage(db, table).await?;
        let id = self.ids.next(db, &TABLE)?;
        db.execute(
            "INSERT INTO hive.\"TBLS\" (\"TBL_ID\", \"CREATE_TIME\", \"DB_ID\", \
               \"LAST_ACCESS_TIME\", \"OWNER\", \"RETENTION\", \"SD_ID\", \
               \"TBL_NAME\", \"TBL_TYPE\", \
               \"VIEW_EXPANDED_TEXT\", \"VIEW_ORIGINAL_TEXT\", \"IS_REWRITE_ENABLED\") \
             VALUES ($1, floor(extract(epoch FROM clock_timestamp()))::bigint, $2, 0, \
               'windrow', 0, $3, $4, $5, $6, $6, false)",
            args![
                id,
                database,
                storage,
                table.name,
                table.table_type,
                table.view_text
            ],
        )
        .await?;
        insert_params(db, id, table).await?;
        insert_partition_columns(db, id, table).await
    }

    /// Makes the column list and the row of `SDS` of one table or view. Returns the id of `SDS`.
    pub(super) async fn create_table_storage(
        &mut self,
        db: &Session,
        table: &HiveTable,
    ) -> Result<i64, CatalogError> {
        let columns = self.ids.next(db, &COLUMNS)?;
        db.execute(
            "INSERT INTO hive.\"CDS\" (\"CD_ID\") VALUES ($1)",
            args![columns],
        )
        .await?;
        insert_columns(db, columns, table).await?;
        let storages = self.create_storage(db, columns, &[&table.storage]).await?;
        Ok(storages[0])
    }

    /// Makes a row of `SDS` for each, with a row of `SERDES` of its own, because `DROP PARTITION`
    /// deletes both. Returns the ids of `SDS`. `columns` is the id of the column list that they
    /// share.
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
            "INSERT INTO hive.\"SERDES\" (\"SERDE_ID\", \"SLIB\") \
             SELECT id, slib FROM unnest($1, $2) AS s (id, slib)",
            args![serdes, storages.iter().map(|s| s.serde).collect::<Vec<_>>()],
        )
        .await?;
        db.execute(
            "INSERT INTO hive.\"SERDE_PARAMS\" (\"SERDE_ID\", \"PARAM_KEY\", \"PARAM_VALUE\") \
             SELECT id, key, value FROM unnest($1, $2, $3) AS p (id, key, value)",
            args![param_serdes, keys, values],
        )
        .await?;
        db.execute(
            "INSERT INTO hive.\"SDS\" (\"SD_ID\", \"INPUT_FORMAT\", \"IS_COMPRESSED\", \
               \"LOCATION\", \"NUM_BUCKETS\", \"OUTPUT_FORMAT\", \"SERDE_ID\", \"CD_ID\", \
               \"IS_STOREDASSUBDIRECTORIES\") \
             SELECT id, input, false, location, -1, output, serde, $1, false \
             FROM unnest($2, $3, $4, $5, $6) AS s (id, serde, location, input, output)",
            args![
                columns,
                ids,
                serdes,
                storages
                    .iter()
                    .map(|s| s.location.clone())
                    .collect::<Vec<_>>(),
                storages.iter().map(|s| s.input_format).collect::<Vec<_>>(),
                storages.iter().map(|s| s.output_format).collect::<Vec<_>>(),
            ],
        )
        .await?;
        Ok(ids)
    }

    /// Makes table partitions; returns their ids in the same order.
    pub(in super::super) async fn add_partitions(
        &mut self,
        db: &Session,
        tables: &[HiveTableRow],
        name: &TableName,
        partitions: &[HivePartition],
    ) -> Result<Vec<i64>, CatalogError> {
        let mut part_ids = vec![0; partitions.len()];
        for kind in TableKind::PARTITIONED {
            let (indexes, of_kind): (Vec<usize>, Vec<&HivePartition>) = partitions
                .iter()
                .enumerate()
                .filter(|(_, p)| p.kind == kind)
                .unzip();
            if of_kind.is_empty() {
                continue;
            }
            let Some((id, columns)) = tables
                .iter()
                .find(|row| row.name == name.of(kind))
                .and_then(|row| Some((row.id, row.columns?)))
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
        for _ in partitions {
            ids.push(self.ids.next(db, &PARTITION)?);
        }
        db.execute(
            "INSERT INTO hive.\"PARTITIONS\" (\"PART_ID\", \"CREATE_TIME\", \"LAST_ACCESS_TIME\", \
               \"PART_NAME\", \"SD_ID\", \"TBL_ID\") \
             SELECT id, floor(extract(epoch FROM clock_timestamp()))::bigint, 0, name, storage, $1 \
             FROM unnest($2, $3, $4) AS p (id, name, storage)",
            args![
                table,
                ids,
                partitions
                    .iter()
                    .map(|p| p.name.as_str())
                    .collect::<Vec<_>>(),
                storage_ids
            ],
        )
        .await?;
        insert_key_values(db, ids.iter().copied().zip(partitions.iter().copied())).await?;
        Ok(ids)
    }
}

/// `id` is that of the column list.
pub(super) async fn insert_columns(
    db: &Session,
    id: i64,
    table: &HiveTable,
) -> Result<(), CatalogError> {
    db.execute(
        "INSERT INTO hive.\"COLUMNS_V2\" \
           (\"CD_ID\", \"COLUMN_NAME\", \"TYPE_NAME\", \"INTEGER_IDX\") \
         SELECT $1, name, type, position - 1 \
         FROM unnest($2, $3) WITH ORDINALITY AS c (name, type, position)",
        args![id, names(&table.columns), types(&table.columns)],
    )
    .await?;
    Ok(())
}

/// `id` is the table's.
pub(super) async fn insert_params(
    db: &Session,
    id: i64,
    table: &HiveTable,
) -> Result<(), CatalogError> {
    let params = table.params.iter();
    let (keys, values): (Vec<_>, Vec<_>) = params.map(|(k, v)| (k.as_str(), v.as_str())).unzip();
    db.execute(
        "INSERT INTO hive.\"TABLE_PARAMS\" (\"TBL_ID\", \"PARAM_KEY\", \"PARAM_VALUE\") \
         SELECT $1, key, value FROM unnest($2, $3) AS p (key, value)",
        args![id, keys, values],
    )
    .await?;
    Ok(())
}

/// `id` is the table's.
pub(super) async fn insert_partition_columns(
    db: &Session,
    id: i64,
    table: &HiveTable,
) -> Result<(), CatalogError> {
    let columns = &table.partition_columns;
    db.execute(
        "INSERT INTO hive.\"PARTITION_KEYS\" \
           (\"TBL_ID\", \"PKEY_NAME\", \"PKEY_TYPE\", \"INTEGER_IDX\") \
         SELECT $1, name, type, position - 1 \
         FROM unnest($2, $3) WITH ORDINALITY AS c (name, type, position)",
        args![id, names(columns), types(columns)],
    )
    .await?;
    Ok(())
}

fn names(columns: &[ColumnType]) -> Vec<&str> {
    columns.iter().map(|c| c.name.as_str()).collect()
}

fn types(columns: &[ColumnType]) -> Vec<&str> {
    columns.iter().map(|c| c.hive.as_str()).collect()
}
