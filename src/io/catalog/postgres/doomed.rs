//! Doomed keys: they are noted before their objects are deleted, so that no commit names one.

use super::super::DOOMED_MAX;
use super::super::session::{Lost, Session, args};
use super::PostgresCatalog;
use super::journal::{Journal, compare_clock, to_bigint};
use tokio_postgres::Row;
use windrow_core::table::admit::check_owner;
use windrow_core::table::commit::{CatalogError, ClockBound, Owner};
use windrow_core::table::hive::TableName;
use windrow_core::table::place::Names;

impl PostgresCatalog {
    pub(in super::super) async fn doom(
        &mut self,
        owner: &Owner,
        keys: &[String],
        clock: &ClockBound,
    ) -> Result<Vec<String>, CatalogError> {
        let mut link = self.owners_link("cannot doom keys of").await?;
        link.db.begin().await?;
        let journal = self.journal(&link.db);
        let job = journal.read_job().await?.map(|(job, _)| job);
        check_owner(&job.unwrap_or_default().facts, owner).map_err(|why| link.db.fenced(why))?;
        // The first look is without the lock, because nearly every key that is asked about is
        // named, and a commit must not wait for that. What it finds is looked at again under the
        // lock: a commit may have come in between.
        let candidates = journal.unnamed(keys).await?;
        let mut free = Vec::new();
        if !candidates.is_empty() {
            let job = journal.lock_job().await?;
            check_owner(&job.facts, owner).map_err(|why| link.db.fenced(why))?;
            free = journal.unnamed(&candidates).await?;
            journal.insert_doomed(&free).await?;
        }
        compare_clock(&link.db, clock).await?;
        link.db.commit(Lost::Again).await?;
        self.link = Some(link);
        Ok(free)
    }

    pub(in super::super) async fn doomed_among(
        &mut self,
        keys: &[String],
    ) -> Result<Vec<String>, CatalogError> {
        let mut link = self.link("cannot list doomed keys of").await?;
        if !link.has_journal {
            return Ok(Vec::new());
        }
        link.db.begin().await?;
        let doomed = self.journal(&link.db).doomed_among(keys).await?;
        link.db.commit(Lost::Again).await?;
        self.link = Some(link);
        Ok(doomed)
    }

    pub(in super::super) async fn doomed_past(
        &mut self,
        grace_ms: u64,
        after: Option<&str>,
        clock: &ClockBound,
    ) -> Result<Vec<String>, CatalogError> {
        let mut link = self.link("cannot list doomed keys of").await?;
        if !link.has_journal {
            return Ok(Vec::new());
        }
        let TableName { database, table } = &self.name;
        link.db.begin().await?;
        let rows = link
            .db
            .query(
                "SELECT key FROM journal.doomed WHERE database = $1 AND \"table\" = $2 \
                 AND doomed_at <= clock_timestamp() - $3 * interval '1 millisecond' \
                 AND ($5::text IS NULL OR key > $5) ORDER BY key LIMIT $4",
                args![
                    *database,
                    *table,
                    to_bigint(grace_ms),
                    i64::from(DOOMED_MAX),
                    after
                ],
            )
            .await?;
        compare_clock(&link.db, clock).await?;
        link.db.commit(Lost::Again).await?;
        let keys = read_keys(&link.db, &rows, "journal.doomed.key")?;
        self.link = Some(link);
        Ok(keys)
    }

    pub(in super::super) async fn forget(
        &mut self,
        owner: &Owner,
        keys: &[String],
    ) -> Result<(), CatalogError> {
        let mut link = self.owners_link("cannot forget keys of").await?;
        let TableName { database, table } = &self.name;
        link.db.begin().await?;
        let job = self.journal(&link.db).lock_job().await?;
        check_owner(&job.facts, owner).map_err(|why| link.db.fenced(why))?;
        for sql in [
            "DELETE FROM journal.doomed WHERE database = $1 AND \"table\" = $2 AND key = ANY($3)",
            "DELETE FROM journal.file WHERE database = $1 AND \"table\" = $2 AND key = ANY($3) \
             AND retired_at IS NOT NULL",
        ] {
            link.db
                .execute(sql, args![*database, *table, keys.to_vec()])
                .await?;
        }
        link.db.commit(Lost::Again).await?;
        self.link = Some(link);
        Ok(())
    }
}

/// The first column of each row, which messages call `name`.
fn read_keys(db: &Session, rows: &[Row], name: &str) -> Result<Vec<String>, CatalogError> {
    rows.iter().map(|row| db.read(row, 0, name)).collect()
}

impl Journal<'_> {
    /// Those of `keys` that no file which readers see, no manifest and no checkpoint in force has,
    /// and that are not doomed yet; each once, in order. The file without rows is always named.
    ///
    /// Each key is looked up by a primary key. For a manifest this is the epoch in its name,
    /// because there is no index on manifests: to look through all epochs for each key took longer
    /// than a lease on a table of a year. Of day manifests there is one a day. The name of another
    /// manifest without an epoch is not windrow's, and is taken for named.
    async fn unnamed(&self, keys: &[String]) -> Result<Vec<String>, CatalogError> {
        let TableName { database, table } = self.name;
        let is_manifest = |key: &str| key.contains("/manifests/");
        let (keys, epochs): (Vec<&str>, Vec<i64>) = keys
            .iter()
            .filter_map(|key| match Names::epoch_of_manifest(key) {
                Some(epoch) if is_manifest(key) => Some((key.as_str(), to_bigint(epoch))),
                None if is_manifest(key) && !Names::is_day_manifest(key) => None,
                _ => Some((key.as_str(), -1)),
            })
            .unzip();
        let rows = self
            .db
            .query(
                "SELECT DISTINCT key FROM unnest($3, $4) AS key (key, epoch) \
                 WHERE NOT EXISTS (SELECT FROM journal.file AS f \
                     WHERE f.database = $1 AND f.\"table\" = $2 AND f.key = key.key \
                     AND f.retired_at IS NULL) \
                 AND NOT EXISTS (SELECT FROM journal.epoch AS e \
                     WHERE e.database = $1 AND e.\"table\" = $2 AND e.epoch = key.epoch \
                     AND e.manifest = key.key) \
                 AND NOT EXISTS (SELECT FROM journal.history AS h \
                     WHERE h.database = $1 AND h.\"table\" = $2 AND h.manifest = key.key) \
                 AND NOT EXISTS (SELECT FROM journal.doomed AS d \
                     WHERE d.database = $1 AND d.\"table\" = $2 AND d.key = key.key) \
                 AND NOT EXISTS (SELECT FROM journal.job AS j WHERE j.database = $1 \
                     AND j.\"table\" = $2 AND key.key IN (j.checkpoint->>'object', \
                       j.checkpoint->'before'->1->>'object', j.genesis->>'empty-file')) \
                 ORDER BY key",
                args![*database, *table, keys, epochs],
            )
            .await?;
        read_keys(self.db, &rows, "a key that was asked about")
    }

    /// Notes keys as doomed now. Those that are noted already keep their time.
    pub(super) async fn insert_doomed(&self, keys: &[String]) -> Result<(), CatalogError> {
        let TableName { database, table } = self.name;
        self.db
            .execute(
                "INSERT INTO journal.doomed (database, \"table\", key, doomed_at) \
                 SELECT $1, $2, key, clock_timestamp() FROM unnest($3) AS key \
                 ON CONFLICT DO NOTHING",
                args![*database, *table, keys.to_vec()],
            )
            .await?;
        Ok(())
    }
}
