//! A directory that has no epoch of the table gets epoch 0 again, from what the store says.

use super::super::local_files::{now, write};
use super::{LocalCatalog, OwnerFile, failure};
use windrow_core::table::commit::{Acquired, CatalogError, ClockBound, Commit, Owner};
use windrow_core::table::rebuild::Base;
use windrow_core::values::cause::{Cause, Trouble};

/// No lease of a directory ends by a clock.
const LEASE_MS: u64 = 15_000;

impl LocalCatalog {
    /// Returns what a person should know, as whole sentences. All later epochs follow from the
    /// chain, because a local catalog folds nothing.
    pub(in super::super) async fn rebuild(
        &mut self,
        who: &str,
        owner_id: &str,
        base: &Base,
    ) -> Result<Vec<String>, CatalogError> {
        let refuse = |why: String| {
            CatalogError::Stop(format!("cannot rebuild table \"{}\": {why}", self.name).into())
        };
        if base.last.is_some() {
            return Err(refuse(
                "the store has day manifests, and a local catalog keeps no history".to_owned(),
            ));
        }
        match self.acquire(who, owner_id, LEASE_MS, None).await? {
            Acquired::Ours { head: None, .. } => {}
            Acquired::Ours {
                head: Some(head), ..
            } => {
                let last = head.last.epoch;
                self.held = None;
                return Err(CatalogError::Stop(
                    format!(
                        "cannot rebuild table \"{}\": the catalog has its epochs up to {last}, so \
                         nothing of it is lost",
                        self.name
                    )
                    .into(),
                ));
            }
            Acquired::Held { by, .. } => {
                let why = format!("\"{by}\" owns the table; stop that windrow first");
                return Err(CatalogError::Retry(Trouble::new(Cause::Held, why)));
            }
        }
        let owner = Owner {
            term: base.term,
            owner_id: owner_id.to_owned(),
        };
        let file = OwnerFile {
            owner: owner.clone(),
            who: who.to_owned(),
            lease_ms: LEASE_MS,
        };
        let name = self.name.clone();
        write(&self.path("owner.json"), &file)
            .map_err(|error| failure("cannot rebuild", &name, error))?;
        if let Some(held) = &mut self.held {
            held.owner = owner.clone();
        }
        let commit = Commit {
            owner: owner.clone(),
            ..base.first.clone()
        };
        let clock = ClockBound {
            expected: now(),
            off_max_ms: LEASE_MS,
        };
        self.commit(&commit, &clock).await?;
        self.release(&owner).await?;
        Ok(base.notes.clone())
    }
}
