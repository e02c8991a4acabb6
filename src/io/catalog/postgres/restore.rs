//! Hive's rows are written again from the journal, where somebody dropped or altered them.

use super::super::hive::Restored;
use super::super::session::{Limits, Lost, args};
use super::PostgresCatalog;
use super::journal::{Journal, read_kind};
use tokio_postgres::Row;
use windrow_core::table::admit::check_owner;
use windrow_core::table::commit::{CatalogError, Chunk, Genesis, Owner};
use windrow_core::table::hive::{self, HivePartition, TableName};
use windrow_core::values::cause::Cause;

/// How much longer the lease is for each table partition that is restored. A table of 300,000 took
/// a minute, which is 0.2 ms for each.
const LEASE_MS_A_PARTITION: u64 = 1;

impl PostgresCatalog {
    /// Nobody takes the table meanwhile, however long it takes: the transaction holds the job's row
    /// locked from the check of the owner to its end, and whoever waits for the lock tries again.
    /// The lease is lengthened before that, so that others see whose the table is, instead of a
    /// lock. It cannot be renewed while the row is locked.
    ///
    /// Returns what a person should know of it, as whole sentences.
    pub(in super::super) async fn restore(
        &mut self,
        owner: &Owner,
        lease_ms: u64,
    ) -> Result<Vec<String>, CatalogError> {
        let partitions = self.reserve_for_restore().await?;
        self.renew(owner, lease_ms + partitions * LEASE_MS_A_PARTITION)
            .await?;
        let mut link = self.owners_link("cannot restore").await?;
        link.db.set_limits(Limits::LONG);
        link.db.begin().await?;
        let journal = self.journal(&link.db);
        let job = journal.lock_job().await?;
        check_owner(&job.facts, owner).map_err(|why| link.db.fenced(why))?;
        if job.facts.last_epoch.is_none() {
            return Err(link.db.stop(
                "the journal has no epoch of it, so there is nothing to restore; where the \
                     store has epochs of it, run: windrow restore --from-manifests",
            ));
        }
        let genesis = journal.genesis().await?;
        journal.forget_emptied().await?;
        let wanted = journal.partitions(&genesis).await?;
        let Restored {
            part_ids,
            notes,
            foreign,
        } = link
            .hive
            .restore(&link.db, &self.name, &genesis, &wanted)
            .await?;
        journal.update_part_ids(part_ids).await?;
        link.db.commit(Lost::Again).await?;
        match foreign {
            Some(why) => return Err(link.db.stop_for(Cause::TableDropped, why)),
            None => self.link = Some(link),
        }
        Ok(notes)
    }

    /// Reserves ids for all table partitions, because at most all of them are missing. Their number
    /// is only a guess: a commit in between makes the restore fail, and it is tried again. Returns
    /// how many there are.
    async fn reserve_for_restore(&mut self) -> Result<u64, CatalogError> {
        let mut link = self.owners_link("cannot restore").await?;
        link.hive.check_ready(&mut link.db).await?;
        link.db.set_limits(Limits::LONG);
        link.db.begin().await?;
        let partitions = self.journal(&link.db).count_partitions().await?;
        link.db.commit(Lost::Again).await?;
        let ids = usize::try_from(partitions).expect("they fit memory");
        link.hive
            .reserve(&mut link.db, &self.name, true, ids)
            .await?;
        self.link = Some(link);
        Ok(partitions)
    }
}

impl Journal<'_> {
    async fn count_partitions(&self) -> Result<u64, CatalogError> {
        let row = self
            .db
            .query_one(
                "SELECT count(*) FROM journal.part \
                 WHERE database = $1 AND \"table\" = $2 AND key IS NOT NULL",
                args![self.name.database, self.name.table],
            )
            .await?;
        self.db
            .read_count(&row, 0, "the number of table partitions")
    }

    /// Every table partition that Hive should have, with its id. Those that a swap has emptied
    /// belong to no table any more.
    pub(super) async fn partitions(
        &self,
        genesis: &Genesis,
    ) -> Result<Vec<(i64, HivePartition)>, CatalogError> {
        let db = self.db;
        let rows = db
            .query(
                "SELECT part_id, kind, date, chunk, key FROM journal.part \
                 WHERE database = $1 AND \"table\" = $2 AND key IS NOT NULL ORDER BY part_id",
                args![self.name.database, self.name.table],
            )
            .await?;
        let partition = |row: &Row| {
            let chunk = Chunk {
                kind: read_kind(db, row, 1, "journal.part")?,
                name: db.read(row, 3, "journal.part.chunk")?,
            };
            let key: &str = db.read(row, 4, "journal.part.key")?;
            let partition = hive::partition(&genesis.warehouse, &chunk, key);
            let partition = partition.map_err(|why| db.stop(why))?;
            Ok((db.read(row, 0, "journal.part.part_id")?, partition))
        };
        rows.iter().map(partition).collect()
    }

    /// Forgets emptied table partitions that Hive does not have. In a metastore that was made anew,
    /// their ids may be given to others.
    async fn forget_emptied(&self) -> Result<(), CatalogError> {
        let TableName { database, table } = self.name;
        self.db
            .execute(
                "DELETE FROM journal.part AS j WHERE database = $1 AND \"table\" = $2 \
                 AND key IS NULL AND NOT EXISTS (SELECT FROM hive.\"PARTITIONS\" AS p \
                   WHERE p.\"PART_ID\" = j.part_id AND p.\"TBL_ID\" IS NULL)",
                args![*database, *table],
            )
            .await?;
        Ok(())
    }

    /// Notes other ids of table partitions: the one that is known, and the one that holds now.
    pub(super) async fn update_part_ids(
        &self,
        changed: Vec<(i64, i64)>,
    ) -> Result<(), CatalogError> {
        let TableName { database, table } = self.name;
        let (known, ids): (Vec<i64>, Vec<i64>) = changed.into_iter().unzip();
        self.db
            .execute(
                "UPDATE journal.part AS p SET part_id = n.id FROM unnest($3, $4) AS n (known, id) \
                 WHERE p.database = $1 AND p.\"table\" = $2 AND p.part_id = n.known",
                args![*database, *table, known, ids],
            )
            .await?;
        Ok(())
    }
}
