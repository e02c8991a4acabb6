//! Taking the table, holding it, giving it back.

use super::super::session::{Lost, args};
use super::Link;
use super::PostgresCatalog;
use super::journal::{NOW_MS, to_bigint};
use super::versions::{self, VERSIONS};
use windrow_core::table::admit::{Whose, check_owner, whose};
use windrow_core::table::commit::{Acquired, CatalogError, LeaseMark, Owner, Renewed};
use windrow_core::table::hive::TableName;
use windrow_core::values::time::DbTime;

impl PostgresCatalog {
    pub(in super::super) async fn acquire(
        &mut self,
        who: &str,
        owner_id: &str,
        lease_ms: u64,
        over: Option<&LeaseMark>,
    ) -> Result<Acquired, CatalogError> {
        let mut link = self.link("cannot take").await?;
        link.hive.check_ready(&mut link.db).await?;
        if !link.has_journal {
            versions::make(&mut link.db, VERSIONS).await?;
            link.has_journal = true;
        }
        link.db.begin().await?;
        let acquired = self
            .acquire_in(&link, who, owner_id, lease_ms, over)
            .await?;
        link.db.commit(Lost::Again).await?;
        self.link = Some(link);
        Ok(acquired)
    }

    async fn acquire_in(
        &self,
        link: &Link,
        who: &str,
        owner_id: &str,
        lease_ms: u64,
        over: Option<&LeaseMark>,
    ) -> Result<Acquired, CatalogError> {
        let (db, TableName { database, table }) = (&link.db, &self.name);
        self.journal(db).make_job().await?;
        // The first look is without the lock: processes that stand by ask again and again, and must
        // not be in the owner's way. The second one is under it, and reads the clock after the
        // wait.
        if let Some(held) = self.held(link, owner_id, over).await? {
            return Ok(held);
        }
        let job = self.journal(db).lock_job().await?;
        if let Some(held) = self.held(link, owner_id, over).await? {
            return Ok(held);
        }
        if job.facts.last_epoch.is_none() {
            versions::refuse_unreleased(link, &self.name).await?;
            if !self.adopts {
                link.hive.check_free(db, &self.name).await?;
            }
        }
        let sql = format!(
            "UPDATE journal.job SET term = term + 1, owner_id = $3, \
               owner_name = $4, lease_until = clock_timestamp() + $5 * interval '1 millisecond' \
             WHERE database = $1 AND \"table\" = $2 RETURNING term, {NOW_MS}"
        );
        let row = db
            .query_one(
                &sql,
                args![*database, *table, owner_id, who, to_bigint(lease_ms)],
            )
            .await?;
        let term = db.read_count(&row, 0, "journal.job.term")?;
        Ok(Acquired::Ours {
            owner: Owner {
                term,
                owner_id: owner_id.to_owned(),
            },
            lease_ms,
            now: DbTime(db.read(&row, 1, "PostgreSQL's clock")?),
            head: self.journal(db).head().await?.map(Box::new),
        })
    }

    /// Who keeps the table from this process; `None` when nobody does.
    pub(super) async fn held(
        &self,
        link: &Link,
        owner_id: &str,
        over: Option<&LeaseMark>,
    ) -> Result<Option<Acquired>, CatalogError> {
        let Some((job, now)) = self.journal(&link.db).read_job().await? else {
            return Ok(None);
        };
        Ok(match whose(&job.facts, owner_id, now, over) {
            Whose::Held { by, left_ms, lease } => Some(Acquired::Held { by, left_ms, lease }),
            Whose::Ours => None,
        })
    }

    pub(in super::super) async fn renew(
        &mut self,
        owner: &Owner,
        lease_ms: u64,
    ) -> Result<Renewed, CatalogError> {
        let mut link = self.owners_link("cannot renew the lease of").await?;
        link.db.begin().await?;
        let job = self.journal(&link.db).lock_job().await?;
        check_owner(&job.facts, owner).map_err(|why| link.db.fenced(why))?;
        let sql = format!(
            "UPDATE journal.job \
             SET lease_until = clock_timestamp() + $3 * interval '1 millisecond' \
             WHERE database = $1 AND \"table\" = $2 RETURNING paused, {NOW_MS}"
        );
        let TableName { database, table } = &self.name;
        let row = link
            .db
            .query_one(&sql, args![*database, *table, to_bigint(lease_ms)])
            .await?;
        link.db.commit(Lost::Again).await?;
        let renewed = Renewed {
            paused: link.db.read(&row, 0, "journal.job.paused")?,
            now: DbTime(link.db.read(&row, 1, "PostgreSQL's clock")?),
            last_epoch: job.facts.last_epoch,
        };
        self.link = Some(link);
        Ok(renewed)
    }

    pub(in super::super) async fn release(&mut self, owner: &Owner) -> Result<(), CatalogError> {
        let mut link = self.link("cannot give back").await?;
        if !link.has_journal {
            return Ok(());
        }
        link.db.begin().await?;
        let job = self.journal(&link.db).lock_job().await?;
        if check_owner(&job.facts, owner).is_ok() {
            link.db
                .execute(
                    "UPDATE journal.job SET lease_until = NULL \
                     WHERE database = $1 AND \"table\" = $2",
                    args![self.name.database, self.name.table],
                )
                .await?;
        }
        link.db.commit(Lost::Again).await?;
        self.link = Some(link);
        Ok(())
    }
}
