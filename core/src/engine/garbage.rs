//! Garbage: objects that an earlier owner left behind are doomed, and objects that were doomed long
//! enough ago are deleted. Only doomed keys are deleted. That no live row names a doomed key is the
//! catalog's promise.

use super::conversation::{CatalogRequest, StoreRequest};
use super::step::Step;
use crate::table::commit::{CatalogError, ClockBound, Commit, Owner};
use crate::values::cause::{Cause, Trouble};
use crate::values::time::Mono;
use std::collections::BTreeSet;

/// Between two rounds of deletion.
const COLLECT_EVERY_MS: u64 = 3_600_000;
/// A clock that is off by so little deletes nothing too early, however short the grace is.
const CLOCK_OFF_MS: u64 = 60_000;
/// Between two attempts to find and doom what an earlier owner left behind.
const ORPHANS_AGAIN_MS: u64 = 60_000;

/// The garbage of one table, while it is ours.
pub(super) struct Garbage {
    owner: Owner,
    orphans: Orphans,
    collect_at: Mono,
}

/// What the owner before us left behind for the epoch that it did not finish: its manifests name
/// the objects.
enum Orphans {
    /// There is nothing more to find.
    Done,
    /// The manifests are to be listed.
    List {
        /// What their keys begin with.
        prefix: String,
        /// When to ask; `None` while the answer is on its way.
        ask_at: Option<Mono>,
    },
    /// The manifests are being read.
    Read {
        /// What their keys begin with.
        prefix: String,
        /// Those that are not read yet.
        manifests: BTreeSet<String>,
        /// What those that are read name.
        keys: Vec<String>,
    },
    /// The keys are to be doomed.
    Doom {
        /// Paths below the warehouse.
        keys: Vec<String>,
        /// When to ask; `None` while the answer is on its way.
        ask_at: Option<Mono>,
    },
}

impl Garbage {
    /// The table has become ours; `last_epoch` is its last one, `None` for a table that does not
    /// exist yet.
    pub(super) fn new(owner: Owner, last_epoch: Option<u64>, step: &Step<'_>) -> Self {
        let before = owner.term.checked_sub(1);
        let orphans = match before.zip(last_epoch) {
            Some((term, last)) => Orphans::List {
                prefix: step.names.manifests_of(term, last + 1),
                ask_at: Some(step.now),
            },
            None => Orphans::Done,
        };
        Self {
            owner,
            orphans,
            collect_at: step.now,
        }
    }

    /// Asks what is due; nothing while the clocks differ, because what was doomed by a wrong clock,
    /// or is said to be doomed for long enough by one, may still be needed.
    pub(super) fn tick(&mut self, step: &mut Step<'_>) {
        let Some(clock) = bound(step) else {
            return;
        };
        match &mut self.orphans {
            Orphans::List { prefix, ask_at } if ask_at.is_some_and(|at| step.now >= at) => {
                *ask_at = None;
                step.ask(StoreRequest::List {
                    prefix: prefix.clone(),
                });
            }
            Orphans::Doom { keys, ask_at } if ask_at.is_some_and(|at| step.now >= at) => {
                *ask_at = None;
                let (owner, keys) = (self.owner.clone(), keys.clone());
                step.ask(CatalogRequest::Doom { owner, keys, clock });
            }
            Orphans::Done | Orphans::List { .. } | Orphans::Read { .. } | Orphans::Doom { .. } => {}
        }
        if step.now >= self.collect_at {
            self.collect_at = step.now.plus(COLLECT_EVERY_MS);
            step.ask(CatalogRequest::DoomedPast {
                grace_ms: step.rules.keep_replaced_ms,
                clock,
            });
        }
    }

    /// The store listed the keys that begin with `answered`.
    pub(super) fn listed(
        &mut self,
        answered: &str,
        result: Result<Vec<String>, Trouble>,
        step: &mut Step<'_>,
    ) {
        let Orphans::List {
            prefix,
            ask_at: ask_at @ None,
        } = &mut self.orphans
        else {
            return;
        };
        if prefix != answered {
            return;
        }
        match result {
            Ok(manifests) => {
                for key in &manifests {
                    step.ask(StoreRequest::Get { key: key.clone() });
                }
                let (prefix, manifests) = (prefix.clone(), manifests.into_iter().collect());
                self.orphans = Orphans::Read {
                    prefix,
                    manifests,
                    keys: Vec::new(),
                };
                self.doom_when_read(step.now);
            }
            Err(_) => *ask_at = Some(step.now.plus(ORPHANS_AGAIN_MS)),
        }
    }

    /// Whether the object of this key is read here.
    pub(super) fn reads(&self, key: &str) -> bool {
        matches!(&self.orphans, Orphans::Read { manifests, .. } if manifests.contains(key))
    }

    /// The store answered with a manifest. One that is gone or damaged names nothing. When the
    /// store could not answer, all of them are listed again a little later.
    pub(super) fn read(
        &mut self,
        key: &str,
        result: Result<Option<Vec<u8>>, Trouble>,
        step: &Step<'_>,
    ) {
        let Orphans::Read {
            prefix,
            manifests,
            keys,
        } = &mut self.orphans
        else {
            return;
        };
        if !manifests.remove(key) {
            return;
        }
        let Ok(bytes) = result else {
            self.orphans = Orphans::List {
                prefix: std::mem::take(prefix),
                ask_at: Some(step.now.plus(ORPHANS_AGAIN_MS)),
            };
            return;
        };
        let bytes = bytes.unwrap_or_default();
        if let Ok(commit) = serde_json::from_slice::<Commit>(&bytes) {
            keys.extend(commit.objects());
        }
        self.doom_when_read(step.now);
    }

    fn doom_when_read(&mut self, now: Mono) {
        if let Orphans::Read {
            manifests, keys, ..
        } = &mut self.orphans
            && manifests.is_empty()
        {
            let keys = std::mem::take(keys);
            self.orphans = if keys.is_empty() {
                Orphans::Done
            } else {
                Orphans::Doom {
                    keys,
                    ask_at: Some(now),
                }
            };
        }
    }

    /// The catalog answered which keys are doomed now.
    pub(super) fn doomed(&mut self, result: &Result<Vec<String>, CatalogError>, step: &Step<'_>) {
        if let Orphans::Doom {
            ask_at: ask_at @ None,
            ..
        } = &mut self.orphans
        {
            match result {
                Ok(_) => self.orphans = Orphans::Done,
                Err(_) => *ask_at = Some(step.now.plus(ORPHANS_AGAIN_MS)),
            }
        }
    }

    /// The catalog answered which keys were doomed long enough ago: their objects are deleted.
    /// After a failure the next round asks again.
    pub(super) fn delete(
        &mut self,
        result: Result<Vec<String>, CatalogError>,
        step: &mut Step<'_>,
    ) {
        if bound(step).is_none() {
            self.collect_at = step.now;
            return;
        }
        match result {
            Ok(keys) if keys.is_empty() => {}
            Ok(keys) => step.ask(StoreRequest::Delete { keys }),
            // The clock was set since it was heard last, and is being heard again.
            Err(CatalogError::Retry(why)) if why.cause == Some(Cause::Clocks) => {
                self.collect_at = step.now.plus(ORPHANS_AGAIN_MS);
            }
            Err(_) => {}
        }
    }

    /// The store answered the deletion: keys whose objects are gone are taken off the list.
    pub(super) fn deleted(
        &mut self,
        keys: Vec<String>,
        result: &Result<(), Trouble>,
        step: &mut Step<'_>,
    ) {
        if result.is_ok() {
            step.ask(CatalogRequest::Forget {
                owner: self.owner.clone(),
                keys,
            });
        }
    }
}

/// By which clock keys are doomed and handed out for deletion. A `max-future` of a year lets the
/// clocks differ by a year, but no object is deleted a year too early.
fn bound(step: &Step<'_>) -> Option<ClockBound> {
    let clock = step.clock?;
    let tolerable_ms = (step.rules.keep_replaced_ms / 8).max(CLOCK_OFF_MS);
    (step.clocks_differ_ms <= tolerable_ms).then(|| ClockBound {
        off_max_ms: clock.off_max_ms.min(tolerable_ms),
        ..clock
    })
}
