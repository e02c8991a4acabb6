//! Hive's rows are written again from the journal, where somebody dropped or altered them.

use super::super::hive::Restored;
use super::super::session::{Limits, Lost, args};
use super::PostgresCatalog;
use super::journal::{Journal, committed_file, kind_of_word};
use windrow_core::table::admit::check_owner;
use windrow_core::table::commit::{CatalogError, NewFile, Owner};
use windrow_core::table::hive::TableName;
use windrow_core::values::cause::Cause;

/// How much longer the lease is for each file that is restored. A table of 300,000 files took a
/// minute, which is 0.2 ms a file.
const LEASE_MS_A_FILE: u64 = 1;

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
        let files = self.reserve_for_restore().await?;
        self.renew(owner, lease_ms + files * LEASE_MS_A_FILE)
            .await?;
        let mut link = self.owners_link("cannot restore").await?;
        link.db.set_limits(Limits::LONG);
        link.db.begin().await?;
        let journal = self.journal(&link.db);
        let job = journal.lock_job().await?;
        check_owner(&job.facts, owner).map_err(|why| link.db.fenced(why))?;
        if job.facts.last_epoch.is_none() {
            return Err(link
                .db
                .stop("the journal has no epoch of it, so there is nothing to restore"));
        }
        let genesis = journal.genesis().await?;
        let files = journal.all_files().await?;
        let Restored {
            part_ids,
            notes,
            foreign,
        } = link
            .hive
            .restore(&link.db, &self.name, &genesis, &files)
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
    /// how many files there are.
    async fn reserve_for_restore(&mut self) -> Result<u64, CatalogError> {
        let mut link = self.owners_link("cannot restore").await?;
        link.hive.check_ready(&mut link.db).await?;
        link.db.set_limits(Limits::LONG);
        link.db.begin().await?;
        let files = self.journal(&link.db).count_files().await?;
        link.db.commit(Lost::Again).await?;
        let ids = usize::try_from(files).expect("files fit memory");
        link.hive
            .reserve(&mut link.db, &self.name, true, ids)
            .await?;
        self.link = Some(link);
        Ok(files)
    }
}

impl Journal<'_> {
    /// How many files readers should see.
    async fn count_files(&self) -> Result<u64, CatalogError> {
        let row = self
            .db
            .query_one(
                "SELECT count(*) FROM windrow_1.file \
                 WHERE database = $1 AND \"table\" = $2 AND retired_at IS NULL",
                args![self.name.database, self.name.table],
            )
            .await?;
        self.db.read_count(&row, 0, "the number of files")
    }

    /// Every file that readers should see, with the id of its table partition.
    async fn all_files(&self) -> Result<Vec<(i64, NewFile)>, CatalogError> {
        let rows = self
            .db
            .query(
                "SELECT epoch, date, chunk, key, bytes, rows, sha256, first_window, last_window, \
                   part_id, kind \
                 FROM windrow_1.file \
                 WHERE database = $1 AND \"table\" = $2 AND retired_at IS NULL \
                 ORDER BY epoch, key",
                args![self.name.database, self.name.table],
            )
            .await?;
        rows.iter()
            .map(|row| {
                let part_id = self.db.read(row, 9, "windrow_1.file.part_id")?;
                let word = self.db.read(row, 10, "windrow_1.file.kind")?;
                Ok((
                    part_id,
                    committed_file(self.db, kind_of_word(word), row)?.file,
                ))
            })
            .collect()
    }

    /// Notes the table partitions that show files from now on: their ids with the files' keys.
    async fn update_part_ids(&self, changed: Vec<(i64, String)>) -> Result<(), CatalogError> {
        let TableName { database, table } = self.name;
        let (ids, keys): (Vec<i64>, Vec<String>) = changed.into_iter().unzip();
        self.db
            .execute(
                "UPDATE windrow_1.file AS f SET part_id = n.id \
                 FROM unnest($3, $4) AS n (id, key) \
                 WHERE f.database = $1 AND f.\"table\" = $2 AND f.key = n.key",
                args![*database, *table, ids, keys],
            )
            .await?;
        Ok(())
    }
}
