//! The catalog in the metastore's own PostgreSQL: the journal in a schema of its own, and with each
//! commit Hive's rows in the same transaction. This file keeps the connection; what is asked over
//! it is in the files below. What Hive's rows are is in `hive`.
//!
//! Whatever must not happen twice holds the table's row of `job` locked: taking the
//! table, a commit, dooming keys. So each of them sees what the one before did, and an old owner's
//! transaction ends before a new owner's begins.

pub(super) mod versions;
mod journal;
mod doomed;
mod emptied;
mod look;
mod lease;
mod commit;
mod history;
mod audit;
mod rebuild;
mod restore;
mod adopt;

use super::hive::{self, Hive};
use super::session::{Lost, PgConfig, Session};
use journal::Journal;
use std::fmt;
use windrow_core::table::commit::CatalogError;
use windrow_core::table::hive::TableName;

/// The catalog of one table. It connects when it must, and again after each error.
pub struct PostgresCatalog {
    config: PgConfig,
    name: TableName,
    link: Option<Link>,
    /// A Spark job's table may have the table's name, because it is to be adopted.
    adopts: bool,
}

/// A connection and what was learned over it.
struct Link {
    db: Session,
    hive: Hive,
    /// The journal's schema is there.
    has_journal: bool,
    /// So is that of before the first release.
    has_unreleased: bool,
}

impl fmt::Debug for PostgresCatalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresCatalog({:?}, {})", self.config, self.name)
    }
}

impl PostgresCatalog {
    /// Nothing is connected yet.
    #[must_use]
    pub fn new(config: PgConfig, name: TableName) -> Self {
        Self {
            config,
            name,
            link: None,
            adopts: false,
        }
    }

    /// Goes on with another login or place, from the next call on.
    pub fn set_config(&mut self, config: PgConfig) {
        self.config = config;
        self.link = None;
    }

    /// The connection, taken out of `self`: the caller puts it back only when all went well, so
    /// that whatever is left half-done is rolled back with it. `doing` begins every error message,
    /// for example `cannot commit epoch 12 of`; the table's name follows it.
    async fn link(&mut self, doing: &str) -> Result<Link, CatalogError> {
        let doing = format!("{doing} table \"{}\"", self.name);
        if let Some(mut link) = self.link.take().filter(|link| !link.db.is_closed()) {
            link.db.doing(&doing);
            return Ok(link);
        }
        let mut db = Session::connect(&self.config, &doing).await?;
        db.begin().await?;
        let journals = versions::find(&db).await?;
        db.commit(Lost::Again).await?;
        Ok(Link {
            db,
            hive: Hive::default(),
            has_journal: journals.has_ours(),
            has_unreleased: journals.unreleased,
        })
    }

    /// As [`PostgresCatalog::link`], for what only an owner does.
    async fn owners_link(&mut self, doing: &str) -> Result<Link, CatalogError> {
        let link = self.link(doing).await?;
        if link.has_journal {
            return Ok(link);
        }
        Err(link.db.fenced(
            "the journal is gone; was another database restored? To rebuild it from the store \
                 run: windrow restore --from-manifests",
        ))
    }

    fn journal<'a>(&'a self, db: &'a Session) -> Journal<'a> {
        Journal {
            db,
            name: &self.name,
        }
    }

    pub(super) async fn warehouse(
        &mut self,
        database: &str,
    ) -> Result<Option<String>, CatalogError> {
        let mut link = self.link("cannot look up the warehouse for").await?;
        link.hive.check_ready(&mut link.db).await?;
        link.db.begin().await?;
        let location = link.hive.database_location(&link.db, database).await?;
        link.db.commit(Lost::Again).await?;
        self.link = Some(link);
        Ok(location)
    }

    pub(super) async fn init_metastore(&mut self) -> Result<(), CatalogError> {
        let mut link = self.link("cannot make Hive's schema for").await?;
        hive::init(&mut link.db).await?;
        self.link = Some(link);
        Ok(())
    }
}
