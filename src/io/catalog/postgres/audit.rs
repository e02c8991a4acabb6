//! The journal and Hive's rows, read from the first epoch to the last one as of one moment. Nothing
//! is locked, so a windrow that runs is not disturbed.

use super::super::session::{Limits, Lost, args};
use super::PostgresCatalog;
use super::journal::{FILE, Journal, read_file, to_bigint};
use windrow_core::table::commit::CatalogError;
use windrow_core::table::hive::TableName;
use windrow_core::values::time::DbTime;
use windrow_core::verify::audit::{EpochEntry, JournalEntry};

/// How many rows are read at a time. An epoch has some 2 KB.
const PAGE: i64 = 500;

type Take<'a> = &'a mut (dyn FnMut(JournalEntry) + Send);

impl PostgresCatalog {
    pub(in super::super) async fn journal_entries(
        &mut self,
        take: Take<'_>,
    ) -> Result<bool, CatalogError> {
        let mut link = self.link("cannot read the journal of").await?;
        if !link.has_journal {
            return Ok(false);
        }
        link.hive.check_ready(&mut link.db).await?;
        link.db.set_limits(Limits::LONG);
        link.db.begin_snapshot().await?;
        let journal = self.journal(&link.db);
        let Some(head) = journal.head().await? else {
            return Ok(false);
        };
        let genesis = head.genesis.clone();
        take(JournalEntry::Head(Box::new(head)));
        journal.epochs(-1, Some(0), take).await?;
        journal.histories(take).await?;
        journal.epochs(0, None, take).await?;
        journal.live(take).await?;
        let wanted = journal.partitions(&genesis).await?;
        let differences = link
            .hive
            .differences(&link.db, &self.name, &genesis, &wanted);
        for text in differences.await? {
            take(JournalEntry::Hive(text));
        }
        link.db.commit(Lost::Again).await?;
        link.db.set_limits(Limits::SHORT);
        self.link = Some(link);
        Ok(true)
    }
}

impl Journal<'_> {
    /// The epochs after `after`, up to `last`. A journal that was written again from the store has
    /// a row of the last folded epoch as well, from which the next one goes on; it is in a row of
    /// history, and is left out.
    async fn epochs(
        &self,
        mut after: i64,
        last: Option<i64>,
        take: Take<'_>,
    ) -> Result<(), CatalogError> {
        let (db, TableName { database, table }) = (self.db, self.name);
        loop {
            let rows = db
                .query(
                    "SELECT epoch, digest, manifest, said::text, \
                       floor(extract(epoch FROM committed_at) * 1000)::bigint \
                     FROM journal.epoch WHERE database = $1 AND \"table\" = $2 \
                     AND epoch > $3 AND epoch <= $4 AND NOT EXISTS (SELECT FROM journal.history \
                       AS h WHERE h.database = $1 AND h.\"table\" = $2 \
                       AND epoch BETWEEN h.first_epoch AND h.last_epoch) \
                     ORDER BY epoch LIMIT $5",
                    args![*database, *table, after, last.unwrap_or(i64::MAX), PAGE],
                )
                .await?;
            for row in &rows {
                let said: &str = db.read(row, 3, "journal.epoch.said")?;
                let entry = EpochEntry {
                    epoch: db.read_count(row, 0, "journal.epoch.epoch")?,
                    digest: db.read(row, 1, "journal.epoch.digest")?,
                    manifest: db.read(row, 2, "journal.epoch.manifest")?,
                    committed_at: DbTime(db.read(row, 4, "journal.epoch.committed_at")?),
                    said: serde_json::from_str(said).map_err(|error| error.to_string()),
                };
                after = to_bigint(entry.epoch);
                take(JournalEntry::Epoch(Box::new(entry)));
            }
            if i64::try_from(rows.len()).is_ok_and(|n| n < PAGE) {
                return Ok(());
            }
        }
    }

    async fn histories(&self, take: Take<'_>) -> Result<(), CatalogError> {
        let (db, TableName { database, table }) = (self.db, self.name);
        let mut after = -1;
        loop {
            let rows = db
                .query(
                    "SELECT first_epoch, manifest, said::text FROM journal.history \
                     WHERE database = $1 AND \"table\" = $2 AND first_epoch > $3 \
                     ORDER BY first_epoch LIMIT $4",
                    args![*database, *table, after, PAGE / 10],
                )
                .await?;
            for row in &rows {
                let first_epoch = db.read_count(row, 0, "journal.history.first_epoch")?;
                let said: &str = db.read(row, 2, "journal.history.said")?;
                take(JournalEntry::History {
                    first_epoch,
                    manifest: db.read(row, 1, "journal.history.manifest")?,
                    said: serde_json::from_str(said).map_err(|error| error.to_string()),
                });
                after = to_bigint(first_epoch);
            }
            if rows.is_empty() {
                return Ok(());
            }
        }
    }

    async fn live(&self, take: Take<'_>) -> Result<(), CatalogError> {
        let (db, TableName { database, table }) = (self.db, self.name);
        let rows = db
            .query(
                &format!(
                    "SELECT {FILE} FROM journal.file WHERE database = $1 AND \"table\" = $2 \
                     AND retired_at IS NULL ORDER BY key"
                ),
                args![*database, *table],
            )
            .await?;
        for row in &rows {
            take(JournalEntry::File(read_file(db, row)?));
        }
        Ok(())
    }
}
