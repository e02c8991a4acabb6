//! Whose the table is: asking for it, keeping it, giving it back, losing it.
//! What the catalog and the log hold is not looked at here.

use super::*;

impl Engine {
    pub(super) fn tick(&mut self, now: Mono, out: &mut Vec<Effect>) {
        self.now = now;
        match &mut self.phase {
            Phase::Standby { ask_at } if now >= *ask_at && self.stopping.is_none() => {
                self.phase = Phase::Asking;
                self.clock_asked_at = now;
                out.push(CatalogRequest::Acquire.into());
            }
            Phase::Locating { ask_at } if ask_at.is_some_and(|at| now >= at) => {
                *ask_at = None;
                self.look_up_topic(out);
            }
            Phase::Searching { ask_at, .. } if ask_at.is_some_and(|at| now >= at) => {
                *ask_at = None;
                self.list_manifests(out);
            }
            Phase::Restoring { ask_at, key, .. } if ask_at.is_some_and(|at| now >= at) => {
                *ask_at = None;
                let key = key.clone();
                self.fetch_checkpoint(key, out);
            }
            Phase::Counting => self.counting_tick(out),
            _ => {}
        }
        if self.renew_at.is_some_and(|at| now >= at) {
            self.renew(out);
        }
        self.push_commit(out);
    }

    pub(super) fn renew(&mut self, out: &mut Vec<Effect>) {
        if let Some(owner) = self.owner.clone().filter(|_| !self.renewing) {
            self.renewing = true;
            self.clock_asked_at = self.now;
            out.push(CatalogRequest::Renew { owner }.into());
        }
    }

    pub(super) fn acquired(
        &mut self,
        answer: Result<Acquired, CatalogError>,
        out: &mut Vec<Effect>,
    ) {
        if !matches!(self.phase, Phase::Asking) {
            return;
        }
        self.phase = Phase::Standby {
            ask_at: self.now.plus(RETRY_MS),
        };
        self.holder = None;
        match answer {
            Ok(Acquired::Held { by, left_ms }) => {
                let reason = format!(
                    "table {}.{} is written by {by}",
                    self.settings.database, self.settings.table
                );
                self.trouble(Side::Lease, Trouble::new(Cause::Held, reason));
                self.holder = Some(by);
                self.phase = Phase::Standby {
                    ask_at: self.now.plus(left_ms.clamp(200, 5000)),
                };
            }
            Ok(Acquired::Ours {
                owner,
                lease_ms,
                now,
                head,
            }) => {
                self.troubles.remove(&Side::Lease);
                self.owner = Some(owner);
                self.renew_at = Some(self.now.plus(lease_ms / 3));
                self.settings.lease_ms = lease_ms;
                self.clock = Some((now, self.clock_asked_at));
                if let Some(head) = &head {
                    self.committed_at = Some(head.committed_at);
                    if now < head.committed_at {
                        // Rejecting by such a clock would be for ever; waiting for it is not.
                        self.trouble(Side::Lease, CLOCK_BACK);
                        self.give_back(out);
                        return;
                    }
                    if let Err(reason) = same_table(&head.genesis, &self.settings) {
                        self.fail(reason, out);
                        return;
                    }
                    self.paused = head.paused;
                }
                self.head = head;
                self.phase = Phase::Locating { ask_at: None };
                self.look_up_topic(out);
            }
            Err(CatalogError::Stop(reason)) => self.fail(reason, out),
            Err(error) => self.trouble(Side::Lease, error),
        }
    }

    pub(super) fn renewed(
        &mut self,
        answer: Result<(DbTime, bool), CatalogError>,
        out: &mut Vec<Effect>,
    ) {
        self.renewing = false;
        if self.owner.is_none() {
            return;
        }
        match answer {
            Ok((now, paused)) => {
                self.troubles.remove(&Side::Catalog);
                self.renew_at = Some(self.now.plus(self.settings.lease_ms / 3));
                self.paused = paused;
                self.clock_back = self.committed_at.is_some_and(|at| now < at);
                if self.clock_back {
                    self.trouble(Side::Lease, CLOCK_BACK);
                    self.renew_at = Some(self.now.plus(RETRY_MS.min(self.settings.lease_ms / 3)));
                } else {
                    self.troubles.remove(&Side::Lease);
                    self.clock = Some((now, self.clock_asked_at));
                }
                match self.lost_catalog.take() {
                    Some((reason, true)) => self.fail(reason, out),
                    Some((reason, false)) => {
                        self.lost_catalog = Some((reason, true));
                        self.renew(out);
                    }
                    None => {}
                }
            }
            Err(CatalogError::Fenced(reason)) => self.fenced(reason, out),
            // The lease may end meanwhile. That costs only work: each commit looks whose table it is.
            Err(error) => {
                self.trouble(Side::Catalog, error);
                self.renew_at = Some(self.now.plus(RETRY_MS));
            }
        }
    }

    /// Another process has the table, or the ledger is another one than we thought: forget all, ask again.
    pub(super) fn fenced(&mut self, reason: String, out: &mut Vec<Effect>) {
        self.forget(out);
        self.trouble(Side::Lease, reason);
        self.phase = Phase::Standby {
            ask_at: self.now.plus(RETRY_MS),
        };
    }

    pub(super) fn give_back(&mut self, out: &mut Vec<Effect>) {
        if let Some(owner) = self.owner.take() {
            out.push(CatalogRequest::Release { owner }.into());
        }
    }

    pub(super) fn forget(&mut self, out: &mut Vec<Effect>) {
        let fresh = Self::new(self.settings.clone());
        let old = std::mem::replace(self, fresh);
        (self.now, self.paused) = (old.now, old.paused);
        (self.stopping, self.stopping_since) = (old.stopping, old.stopping_since);
        self.looking = old.looking;
        self.topic_asked = old.topic_asked.of_earlier_ownership();
        self.topic_check_asked = old.topic_check_asked.of_earlier_ownership();
        self.manifests_asked = old.manifests_asked.of_earlier_ownership();
        self.checkpoint_asked = old.checkpoint_asked.of_earlier_ownership();
        out.push(Effect::StopAll);
    }

    pub(super) fn fail(&mut self, reason: impl Into<Trouble>, out: &mut Vec<Effect>) {
        let reason = reason.into();
        out.push(Effect::StopAll);
        self.give_back(out);
        self.phase = Phase::Over(Some(reason.clone()));
        out.push(Effect::Exit(Some(reason)));
    }

    pub(super) fn trouble(&mut self, side: Side, trouble: impl Into<Trouble>) {
        self.troubles.insert(side, trouble.into());
    }
}
