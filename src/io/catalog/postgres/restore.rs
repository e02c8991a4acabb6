//! Hive's rows are written again from the journal, where somebody dropped or altered them.

use super::super::session::{Limits, Lost, args};
use super::PostgresCatalog;
use super::journal::{Journal, committed_file};
use windrow_core::table::admit::check_owner;
use windrow_core::table::commit::{CatalogError, NewFile, Owner};
use windrow_core::table::hive::{TableKind, TableName};

impl PostgresCatalog {
    pub(in super::super) async fn restore(&mut self, owner: &Owner) -> Result<(), CatalogError> {
        let mut link = self.owners_link("cannot restore").await?;
        link.hive.check_ready(&mut link.db).await?;
        link.db.set_limits(Limits::LONG);
        // At most all table partitions are missing. Their number is only a guess of how many ids to
        // reserve: a commit in between makes this transaction fail, and it is tried again.
        link.db.begin().await?;
        let files = self.journal(&link.db).all_files().await?.len();
        link.db.commit(Lost::Again).await?;
        link.hive
            .reserve(&mut link.db, &self.name, true, files)
            .await?;
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
        let changed = link
            .hive
            .restore(&link.db, &self.name, &genesis, &files)
            .await?;
        journal.update_part_ids(changed).await?;
        link.db.commit(Lost::Again).await?;
        self.link = Some(link);
        Ok(())
    }
}

impl Journal<'_> {
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
        let kind = |word: &str| {
            TableKind::ALL
                .into_iter()
                .find(|kind| kind.word() == word)
                .unwrap_or(TableKind::Chunks)
        };
        rows.iter()
            .map(|row| {
                let part_id = self.db.read(row, 9, "windrow_1.file.part_id")?;
                let word = self.db.read(row, 10, "windrow_1.file.kind")?;
                Ok((part_id, committed_file(self.db, kind(word), row)?.file))
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
