//! The catalog: who owns a table, which epochs are true, what readers see. One act commits all of
//! an epoch. There are two kinds with the same methods: PostgreSQL with Hive's tables, and a
//! directory. Neither decides anything. Whether a commit may be written is said by
//! `windrow_core::table::admit`, and what an answer means for the table is up to the engine.
//!
//! Dropping one of these futures half-way drops the connection with it, so that nothing stays open.
//! Only a dropped [`Catalog::commit_by`] leaves a question, as [`CatalogError::Unknown`] does: ask
//! [`Catalog::outcome`].

mod answers;
mod local_files;
pub mod directory;
mod tls;
mod meaning;
pub mod session;
mod hive;
pub mod postgres;

pub use answers::{CommittedFile, Files, SparkEntry, Totals};

use directory::LocalCatalog;
use postgres::PostgresCatalog;
use std::collections::BTreeMap;
use windrow_core::table::commit::{
    Acquired, CatalogError, ClockBound, Commit, Head, LeaseMark, LiveFile, Outcome, Owner, Renewed,
};
use windrow_core::table::history::{DayManifest, History};
use windrow_core::table::hive::TableKind;
use windrow_core::table::rebuild::Base;
use windrow_core::values::cause::{Cause, Trouble};
use windrow_core::values::record::{Offset, Partition};
use windrow_core::values::time::DbTime;
use windrow_core::verify::audit::JournalEntry;

/// How many doomed keys are handed out for deletion at a time: as many as S3 deletes in one
/// request.
const DOOMED_MAX: u16 = 1000;

/// One table's catalog.
#[derive(Debug)]
pub enum Catalog {
    /// The journal and Hive's tables in one PostgreSQL database.
    Postgres(Box<PostgresCatalog>),
    /// A directory, without Hive.
    Local(LocalCatalog),
}

/// Passes a call on to the catalog's kind.
macro_rules! each {
    ($self:ident, $catalog:ident => $call:expr) => {
        match $self {
            Catalog::Postgres($catalog) => $call.await,
            Catalog::Local($catalog) => $call.await,
        }
    };
}

impl Catalog {
    /// Takes the table and all its topic partitions, if the lease is free or over, or was this
    /// process's own. Raises the term and reads the head in the same act. `who` is the name that
    /// other processes show to people; `owner_id` is random and new with every process.
    ///
    /// # Errors
    /// `Retry` while Hive's schema, rights or the database are missing. `Stop` when a table of that
    /// name is not windrow's, or a newer windrow's journal is there.
    pub async fn acquire(
        &mut self,
        who: &str,
        owner_id: &str,
        lease_ms: u64,
    ) -> Result<Acquired, CatalogError> {
        self.acquire_over(who, owner_id, lease_ms, None).await
    }

    /// The same. `over` is a lease that counts as over if it is still the same one, because it was
    /// seen unchanged for long enough.
    ///
    /// # Errors
    /// Those of [`Catalog::acquire`].
    pub async fn acquire_over(
        &mut self,
        who: &str,
        owner_id: &str,
        lease_ms: u64,
        over: Option<&LeaseMark>,
    ) -> Result<Acquired, CatalogError> {
        each!(self, c => c.acquire(who, owner_id, lease_ms, over))
    }

    /// Holds the table for `lease_ms` more.
    ///
    /// # Errors
    /// `Fenced` when another owner has it.
    pub async fn renew(&mut self, owner: &Owner, lease_ms: u64) -> Result<Renewed, CatalogError> {
        each!(self, c => c.renew(owner, lease_ms))
    }

    /// Gives the table back, so that a standby need not wait for the end of the lease. It is no
    /// error when the table is another's already.
    ///
    /// # Errors
    /// `Retry`. It may be left undone: the lease then ends by itself.
    pub async fn release(&mut self, owner: &Owner) -> Result<(), CatalogError> {
        each!(self, c => c.release(owner))
    }

    /// Makes an epoch true, with all that readers see of it. Sending the same commit again is
    /// success. Returns when the epoch was committed, which never goes back.
    ///
    /// # Errors
    /// `Fenced` when another owner has the table, when the catalog does not go on from here, or
    /// when this epoch is there with another digest: come back through [`Catalog::acquire`].
    /// `Unknown` when the answer was lost: until [`Catalog::outcome`] has answered, nothing may be
    /// deleted or planned anew. `Stop` when somebody dropped the table. After `Retry` nothing has
    /// changed; its cause is `Clocks` when the catalog's clock is not as `clock` says.
    pub async fn commit_by(
        &mut self,
        commit: &Commit,
        clock: &ClockBound,
    ) -> Result<DbTime, CatalogError> {
        each!(self, c => c.commit(commit, clock))
    }

    /// What became of an epoch whose answer was lost, whoever owns the table now. It waits for a
    /// commit that is still under way.
    ///
    /// # Errors
    /// `Retry` when it cannot be told yet.
    pub async fn outcome(&mut self, epoch: u64) -> Result<Outcome, CatalogError> {
        each!(self, c => c.outcome(epoch))
    }

    /// Takes the table, writes the journal's tables and files into Hive again, where somebody
    /// dropped or altered them there, and gives the table back. The arguments are those of
    /// [`Catalog::acquire`]. Returns what a person should know of it, as whole sentences.
    ///
    /// # Errors
    /// `Retry` while another process owns the table; the message names it. `Stop` when a table that
    /// is not windrow's has one of the names, when no epoch of the table is committed, or when the
    /// catalog is a local one, which has no Hive. `Stop` also when all was written, and a table
    /// shows rows that somebody else has added. Otherwise those of [`Catalog::acquire`].
    pub async fn restore(
        &mut self,
        who: &str,
        owner_id: &str,
        lease_ms: u64,
    ) -> Result<Vec<String>, CatalogError> {
        let Catalog::Postgres(catalog) = self else {
            let why = "cannot restore the table: a local catalog has no entries in Hive";
            return Err(CatalogError::Stop(why.into()));
        };
        let owner = match catalog.acquire(who, owner_id, lease_ms, None).await? {
            Acquired::Ours { owner, .. } => owner,
            Acquired::Held { by, left_ms, .. } => {
                let why = format!(
                    "cannot restore the table while \"{by}\" owns it, for at most {left_ms} ms \
                     more; stop that windrow first"
                );
                return Err(CatalogError::Retry(Trouble::new(Cause::Held, why)));
            }
        };
        let restored = catalog.restore(&owner, lease_ms).await;
        // If this fails, the lease ends by itself; what counts is whether the rows are there.
        let _ = catalog.release(&owner).await;
        restored
    }

    /// The entry in Hive of the Spark job's table that has this table's name, so that it can be
    /// adopted: from here on the entry does not keep this process from taking the table. `None`
    /// where there is no such entry, or no Hive.
    ///
    /// # Errors
    /// `Stop` when the entry is not that of a Spark job's table, or its new name is taken.
    /// Otherwise those of [`Catalog::acquire`].
    pub async fn spark_entry(&mut self) -> Result<Option<SparkEntry>, CatalogError> {
        match self {
            Catalog::Postgres(catalog) => catalog.spark_entry().await,
            Catalog::Local(_) => Ok(None),
        }
    }

    /// Writes the journal of a table again, and its entries in Hive, where the journal has no epoch
    /// of it. `who` and `owner_id` are those of [`Catalog::acquire`]. Returns what a person should
    /// know of it, as whole sentences.
    ///
    /// # Errors
    /// `Retry` while another process owns the table. `Stop` when the journal has epochs of it, or a
    /// table that is not windrow's has one of its names. Otherwise those of [`Catalog::acquire`].
    pub async fn rebuild(
        &mut self,
        who: &str,
        owner_id: &str,
        base: &Base,
    ) -> Result<Vec<String>, CatalogError> {
        each!(self, c => c.rebuild(who, owner_id, base))
    }

    /// What is committed, for a look without owning the table. `None` for a table that does not
    /// exist.
    ///
    /// # Errors
    /// `Retry`, or `Stop` when a newer windrow's journal is there.
    pub async fn head(&mut self) -> Result<Option<Head>, CatalogError> {
        each!(self, c => c.head())
    }

    /// The files of one Hive table, the newest first, at most `limit` of them. The view has none of
    /// its own.
    ///
    /// # Errors
    /// As [`Catalog::head`].
    pub async fn files(&mut self, kind: TableKind, limit: u32) -> Result<Files, CatalogError> {
        each!(self, c => c.files(kind, limit))
    }

    /// Pauses or resumes the table for whoever owns it, now and later. `by` is noted for people:
    /// who wanted it.
    ///
    /// # Errors
    /// `Retry`, or `Stop` when there is no such table.
    pub async fn set_paused(&mut self, paused: bool, by: &str) -> Result<(), CatalogError> {
        each!(self, c => c.set_paused(paused, by))
    }

    /// Where Hive keeps a database; `None` where Hive does not know it, or there is no Hive.
    ///
    /// # Errors
    /// `Retry` while Hive's schema is not there.
    pub async fn warehouse(&mut self, database: &str) -> Result<Option<String>, CatalogError> {
        each!(self, c => c.warehouse(database))
    }

    /// Makes Hive's schema in a database that has no table at all. Where all of Hive's tables that
    /// windrow needs are there already, it does nothing.
    ///
    /// # Errors
    /// `Retry` when there is something else, or only a part of Hive's schema; `Retry` with the
    /// cause `NoCreate` while the user may not make tables there. `Stop` when the catalog is a
    /// local one, which has no Hive.
    pub async fn init_metastore(&mut self) -> Result<(), CatalogError> {
        let Catalog::Postgres(catalog) = self else {
            let why = "cannot make Hive's schema: a local catalog has no metastore; \
                       set catalog to a PostgreSQL database";
            return Err(CatalogError::Stop(why.into()));
        };
        catalog.init_metastore().await
    }

    /// Dooms those of `keys` that no epoch, checkpoint or manifest names and that are not doomed
    /// already, and returns them. A commit that names one of them later is refused. Keys are paths
    /// below the warehouse.
    ///
    /// # Errors
    /// `Fenced` when another owner has the table. `Retry` with the cause `Clocks` when the
    /// catalog's clock is not as `clock` says.
    pub async fn doom(
        &mut self,
        owner: &Owner,
        keys: &[String],
        clock: &ClockBound,
    ) -> Result<Vec<String>, CatalogError> {
        each!(self, c => c.doom(owner, keys, clock))
    }

    /// Those of `keys` that are doomed, in order.
    ///
    /// # Errors
    /// As [`Catalog::head`].
    pub async fn doomed_among(&mut self, keys: &[String]) -> Result<Vec<String>, CatalogError> {
        each!(self, c => c.doomed_among(keys))
    }

    /// Keys that were doomed at least `grace_ms` ago: those behind `after` in the catalog's own
    /// order of keys, at most a thousand. Their objects may be deleted.
    ///
    /// # Errors
    /// `Retry` when they cannot be read, or, with the cause `Clocks`, when the catalog's clock is
    /// not as `clock` says.
    pub async fn doomed_past(
        &mut self,
        grace_ms: u64,
        after: Option<&str>,
        clock: &ClockBound,
    ) -> Result<Vec<String>, CatalogError> {
        each!(self, c => c.doomed_past(grace_ms, after, clock))
    }

    /// The files that readers see, in no particular order.
    ///
    /// # Errors
    /// As [`Catalog::head`].
    pub async fn live_files(&mut self) -> Result<Vec<LiveFile>, CatalogError> {
        each!(self, c => c.live_files())
    }

    /// Hands over what the journal holds, and how Hive differs from it, in the order of
    /// [`JournalEntry`]: all of it as of one moment, and without a lock. An epoch that cannot be
    /// read is handed over as such. Says whether there is such a table.
    ///
    /// # Errors
    /// As [`Catalog::head`]. `Stop` also when the last epoch is not one that windrow writes.
    pub async fn journal(
        &mut self,
        take: &mut (dyn FnMut(JournalEntry) + Send),
    ) -> Result<bool, CatalogError> {
        each!(self, c => c.journal_entries(take))
    }

    /// Deletes the table partitions that swaps have emptied at least `emptied_ms` ago. Where there
    /// is no Hive, there is nothing to delete.
    ///
    /// # Errors
    /// `Fenced` when another owner has the table. `Retry` with the cause `Clocks` when the
    /// catalog's clock is not as `clock` says.
    pub async fn drop_emptied(
        &mut self,
        owner: &Owner,
        emptied_ms: u64,
        clock: &ClockBound,
    ) -> Result<(), CatalogError> {
        each!(self, c => c.drop_emptied(owner, emptied_ms, clock))
    }

    /// Which epochs fold now, and what they say together: those that were committed before the
    /// present period of `every_ms` began, by the catalog's clock. `None` where there is nothing to
    /// fold. A local catalog keeps every epoch.
    ///
    /// # Errors
    /// As [`Catalog::head`]. `Retry` with the cause `Clocks` when the catalog's clock is not as
    /// `clock` says.
    pub async fn foldable(
        &mut self,
        every_ms: i64,
        clock: &ClockBound,
    ) -> Result<Option<Box<DayManifest>>, CatalogError> {
        match self {
            Catalog::Postgres(catalog) => catalog.foldable(every_ms, clock).await,
            Catalog::Local(_) => Ok(None),
        }
    }

    /// Keeps epochs as one row of history from now on: their own rows are deleted, and their
    /// manifests are doomed. `manifest` is the path of their day manifest, which is stored.
    ///
    /// # Errors
    /// `Fenced` when another owner has the table. `Retry` when the epochs are not there as they
    /// were read, and, with the cause `Clocks`, when the catalog's clock is not as `clock` says.
    pub async fn fold(
        &mut self,
        owner: &Owner,
        history: &History,
        manifest: &str,
        clock: &ClockBound,
    ) -> Result<(), CatalogError> {
        match self {
            Catalog::Postgres(catalog) => catalog.fold(owner, history, manifest, clock).await,
            Catalog::Local(_) => Ok(()),
        }
    }

    /// Dooms the day manifests whose offsets the logs, which begin there now, have no longer. Their
    /// rows of history stay. A local catalog has none.
    ///
    /// # Errors
    /// `Fenced` when another owner has the table. `Retry` with the cause `Clocks` when the
    /// catalog's clock is not as `clock` says.
    pub async fn drop_days(
        &mut self,
        owner: &Owner,
        log_starts: &BTreeMap<Partition, Offset>,
        clock: &ClockBound,
    ) -> Result<(), CatalogError> {
        match self {
            Catalog::Postgres(catalog) => catalog.drop_days(owner, log_starts, clock).await,
            Catalog::Local(_) => Ok(()),
        }
    }

    /// Takes keys off the list of doomed ones, after their objects were deleted.
    ///
    /// # Errors
    /// `Fenced` when another owner has the table.
    pub async fn forget(&mut self, owner: &Owner, keys: &[String]) -> Result<(), CatalogError> {
        each!(self, c => c.forget(owner, keys))
    }
}

#[cfg(test)]
mod fake_server;
#[cfg(test)]
mod tests;
