//! Table partitions that swaps have emptied: they are deleted when no query can look them up any
//! more.

use super::super::session::{Lost, args};
use super::journal::{Journal, compare_clock, to_bigint};
use super::{Link, PostgresCatalog};
use windrow_core::table::admit::check_owner;
use windrow_core::table::commit::{CatalogError, ClockBound, Owner};
use windrow_core::table::hive::TableName;

/// How many are deleted in one transaction. A commit waits for it.
const PARTITIONS_MAX: usize = 1000;

impl PostgresCatalog {
    pub(in super::super) async fn drop_emptied(
        &mut self,
        owner: &Owner,
        emptied_ms: u64,
        clock: &ClockBound,
    ) -> Result<(), CatalogError> {
        loop {
            let mut link = self
                .owners_link("cannot delete emptied table partitions of")
                .await?;
            link.db.begin().await?;
            let dropped = self.drop_some(&link, owner, emptied_ms, clock).await?;
            link.db.commit(Lost::Again).await?;
            self.link = Some(link);
            if dropped < PARTITIONS_MAX {
                return Ok(());
            }
        }
    }

    /// Locks what a commit locks, in the same order. Returns how many were deleted.
    async fn drop_some(
        &self,
        link: &Link,
        owner: &Owner,
        emptied_ms: u64,
        clock: &ClockBound,
    ) -> Result<usize, CatalogError> {
        let Link { db, hive, .. } = link;
        let journal = self.journal(db);
        let job = journal.lock_job().await?;
        check_owner(&job.facts, owner).map_err(|why| db.fenced(why))?;
        let emptied = journal.emptied(emptied_ms).await?;
        if !emptied.is_empty() {
            hive.drop_partitions(db, &self.name, &emptied).await?;
            journal.delete_partitions(&emptied).await?;
        }
        compare_clock(db, clock).await?;
        Ok(emptied.len())
    }
}

impl Journal<'_> {
    /// The table partitions that were emptied at least so long ago, with their ids and names: the
    /// first of them, at most [`PARTITIONS_MAX`].
    async fn emptied(&self, emptied_ms: u64) -> Result<Vec<(i64, String)>, CatalogError> {
        let TableName { database, table } = self.name;
        let limit = i64::try_from(PARTITIONS_MAX).unwrap_or(i64::MAX);
        let rows = self
            .db
            .query(
                "SELECT part_id, CASE kind WHEN 'rows' THEN 'date=' || date || '/' ELSE '' END \
                   || 'chunk=' || chunk FROM journal.part \
                 WHERE database = $1 AND \"table\" = $2 \
                 AND emptied_at <= clock_timestamp() - $3 * interval '1 millisecond' \
                 ORDER BY emptied_at, part_id LIMIT $4",
                args![*database, *table, to_bigint(emptied_ms), limit],
            )
            .await?;
        rows.iter()
            .map(|row| {
                let id = self.db.read(row, 0, "journal.part.part_id")?;
                Ok((id, self.db.read(row, 1, "journal.part.chunk")?))
            })
            .collect()
    }

    async fn delete_partitions(&self, partitions: &[(i64, String)]) -> Result<(), CatalogError> {
        let TableName { database, table } = self.name;
        let ids: Vec<i64> = partitions.iter().map(|(id, _)| *id).collect();
        self.db
            .execute(
                "DELETE FROM journal.part WHERE database = $1 AND \"table\" = $2 \
                 AND part_id = ANY($3) AND key IS NULL",
                args![*database, *table, ids],
            )
            .await?;
        Ok(())
    }
}
