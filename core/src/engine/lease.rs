//! Whose the table is: keeping it by renewing the lease, and giving it back.
//! The lease saves work only. What keeps the table right is the check in each commit.

use super::conversation::CatalogRequest;
use super::step::Step;
use crate::table::commit::Owner;
use crate::values::cause::Trouble;
use crate::values::time::Mono;

/// Between two attempts at what failed; the driver adds jitter.
pub(super) const RETRY_MS: u64 = 1000;

/// The table is ours for a while.
#[derive(Debug)]
pub(super) struct Lease {
    owner: Owner,
    /// How long one renewal holds.
    length_ms: u64,
    renew_at: Mono,
    /// When the renewal that is on its way was sent.
    sent_at: Option<Mono>,
    lost_catalog: Option<LostCatalog>,
}

/// The catalog has no epoch, but the store has manifests. That is a reason to stop only while the
/// lease is ours, because the manifests may be those of an owner that came after us. So a renewal
/// must succeed first.
#[derive(Debug)]
enum LostCatalog {
    /// The renewal that is on its way was sent before the manifests were found.
    RenewalToBeSent(Trouble),
    /// A renewal was sent since.
    RenewalSent(Trouble),
}

/// What a renewal came to.
pub(super) enum Renewal {
    /// The lease goes on. The clock was asked for at this time.
    GoesOn {
        /// When the renewal was sent.
        asked_at: Mono,
    },
    /// The lease is ours, so the catalog was lost.
    CatalogLost(Trouble),
}

impl Lease {
    pub(super) fn new(owner: Owner, length_ms: u64, now: Mono) -> Self {
        let renew_at = now.plus(length_ms / 3);
        Self {
            owner,
            length_ms,
            renew_at,
            sent_at: None,
            lost_catalog: None,
        }
    }

    pub(super) fn owner(&self) -> &Owner {
        &self.owner
    }

    /// Renews the lease when a third of it has passed.
    pub(super) fn tick(&mut self, step: &mut Step<'_>) {
        if step.now >= self.renew_at {
            self.renew(step);
        }
    }

    fn renew(&mut self, step: &mut Step<'_>) {
        if self.sent_at.is_none() {
            self.sent_at = Some(step.now);
            step.ask(CatalogRequest::Renew {
                owner: self.owner.clone(),
            });
        }
    }

    /// Manifests were found although the catalog has no epoch.
    pub(super) fn suspect_lost_catalog(&mut self, why: Trouble, step: &mut Step<'_>) {
        self.lost_catalog = Some(if self.sent_at.is_some() {
            LostCatalog::RenewalToBeSent(why)
        } else {
            LostCatalog::RenewalSent(why)
        });
        self.renew(step);
    }

    /// The renewal succeeded.
    pub(super) fn renewed(&mut self, step: &mut Step<'_>) -> Renewal {
        let asked_at = self.sent_at.take().unwrap_or(step.now);
        self.renew_at = step.now.plus(self.length_ms / 3);
        match self.lost_catalog.take() {
            Some(LostCatalog::RenewalSent(why)) => return Renewal::CatalogLost(why),
            Some(LostCatalog::RenewalToBeSent(why)) => {
                self.lost_catalog = Some(LostCatalog::RenewalSent(why));
                self.renew(step);
            }
            None => {}
        }
        Renewal::GoesOn { asked_at }
    }

    /// The clocks differ, or one of them seems to have been set: the database's is heard again at
    /// once.
    pub(super) fn renew_now(&mut self, step: &mut Step<'_>) {
        self.renew(step);
    }

    pub(super) fn length_ms(&self) -> u64 {
        self.length_ms
    }

    /// The clocks differ: the database's is asked for again soon.
    pub(super) fn renew_soon(&mut self, step: &Step<'_>) {
        self.renew_at = step.now.plus(RETRY_MS.min(self.length_ms / 3));
    }

    /// The renewal failed. The lease may end before the next attempt. That costs only work.
    pub(super) fn not_renewed(&mut self, step: &Step<'_>) {
        self.sent_at = None;
        self.renew_at = step.now.plus(RETRY_MS);
    }

    /// Renews at once, because the credentials have changed.
    pub(super) fn retry_now(&mut self, step: &Step<'_>) {
        if self.sent_at.is_none() {
            self.renew_at = self.renew_at.min(step.now);
        }
    }
}
