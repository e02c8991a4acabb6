//! Folding of epochs into history, once a day. Which epochs these are, and what is kept of them, is
//! decided in `table/history`; here is when.
//!
//! ```text
//! Foldable(today's clock)    the catalog says what yesterday's epochs said together
//! Put(day manifest)          it is stored, and nothing names it yet
//! Fold(history, manifest)    one transaction: a row of history instead of 8,640 epochs
//! Foldable(today's clock)    there may be more, where windrow did not run for a while
//! DropDays(where logs begin) day manifests of which the log has nothing any more are doomed
//! ```
//!
//! A crash in between leaves a day manifest that nothing names. The next owner folds again.

use super::conversation::{CatalogRequest, StoreRequest};
use super::step::Step;
use crate::table::commit::{CatalogError, ClockBound, Owner};
use crate::table::history::{DayManifest, History, today};
use crate::values::cause::Trouble;
use crate::values::record::{Offset, Partition};
use crate::values::time::{DbTime, Mono};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Between two attempts at what failed.
const AGAIN_MS: u64 = 60_000;

/// The folding of one table's epochs, while it is ours.
pub(super) struct Folding {
    owner: Owner,
    stage: Stage,
}

enum Stage {
    /// What is to fold is asked when this period is over, and not before this time.
    Idle {
        folded: Option<DbTime>,
        ask_at: Mono,
    },
    /// The catalog is asked what is to fold. `today` is the period that has begun.
    Asked { today: DbTime },
    /// The day manifest is to be stored.
    Storing {
        history: Arc<History>,
        key: String,
        bytes: Arc<Vec<u8>>,
        /// When to ask; `None` while the answer is on its way.
        ask_at: Option<Mono>,
    },
    /// The catalog is to fold.
    Sending {
        history: Arc<History>,
        key: String,
        /// When to ask; `None` while the answer is on its way.
        ask_at: Option<Mono>,
    },
}

impl Folding {
    /// The table has become ours.
    pub(super) fn new(owner: Owner, now: Mono) -> Self {
        Self {
            owner,
            stage: Stage::Idle {
                folded: None,
                ask_at: now,
            },
        }
    }

    /// Time has gone on: asks what is due. Nothing is asked while the clocks differ.
    pub(super) fn tick(&mut self, step: &mut Step<'_>) {
        let Some(clock) = step.clock else {
            return;
        };
        if !step.paused && !step.ending {
            self.ask(clock, step);
        }
    }

    fn ask(&mut self, clock: ClockBound, step: &mut Step<'_>) {
        let now = step.now;
        let is_due = |ask_at: &mut Option<Mono>| ask_at.take_if(|at| now >= *at).is_some();
        match &mut self.stage {
            Stage::Idle { folded, ask_at } => {
                let every_ms = step.rules.compaction.fold_ms;
                let today = today(clock.expected, every_ms);
                if now >= *ask_at && *folded != Some(today) {
                    self.stage = Stage::Asked { today };
                    step.ask(CatalogRequest::Foldable { every_ms, clock });
                }
            }
            Stage::Asked { .. } => {}
            Stage::Storing {
                key, bytes, ask_at, ..
            } => {
                if is_due(ask_at) {
                    let (key, bytes) = (key.clone(), Arc::clone(bytes));
                    step.ask(StoreRequest::Put { key, bytes });
                }
            }
            Stage::Sending {
                history,
                key,
                ask_at,
            } => {
                if is_due(ask_at) {
                    step.ask(CatalogRequest::Fold {
                        owner: self.owner.clone(),
                        history: Arc::clone(history),
                        manifest: key.clone(),
                        clock,
                    });
                }
            }
        }
    }

    /// The path of a day manifest that no row of history names yet, however old its object is:
    /// during a pause it may wait for weeks.
    pub(super) fn in_hand(&self) -> Option<String> {
        match &self.stage {
            Stage::Idle { .. } | Stage::Asked { .. } => None,
            Stage::Storing { key, .. } | Stage::Sending { key, .. } => Some(key.clone()),
        }
    }

    /// The catalog said what is to fold. Once a day nothing is left to fold, and then the oldest
    /// day manifests may go. `log_starts` says where the logs begin, as far as that is known.
    pub(super) fn take(
        &mut self,
        result: Result<Option<Box<DayManifest>>, CatalogError>,
        log_starts: BTreeMap<Partition, Offset>,
        step: &mut Step<'_>,
    ) {
        let Stage::Asked { today } = self.stage else {
            return;
        };
        if let (Ok(None), Some(clock), false) = (&result, step.clock, log_starts.is_empty()) {
            step.ask(CatalogRequest::DropDays {
                owner: self.owner.clone(),
                log_starts,
                clock,
            });
        }
        self.stage = match result {
            Ok(Some(manifest)) => {
                let bytes = manifest.write();
                Stage::Storing {
                    key: manifest.key(step.names, self.owner.term, &bytes),
                    history: Arc::new(manifest.history),
                    bytes: Arc::new(bytes),
                    ask_at: Some(step.now),
                }
            }
            Ok(None) => Stage::Idle {
                folded: Some(today),
                ask_at: step.now,
            },
            Err(_) => Stage::Idle {
                folded: None,
                ask_at: step.now.plus(AGAIN_MS),
            },
        };
        self.tick(step);
    }

    /// The store answered a request of whoever it was.
    pub(super) fn stored(
        &mut self,
        stored_key: &str,
        result: &Result<(), Trouble>,
        step: &mut Step<'_>,
    ) {
        let Stage::Storing {
            history,
            key,
            ask_at,
            ..
        } = &mut self.stage
        else {
            return;
        };
        if key != stored_key {
            return;
        }
        if result.is_err() {
            *ask_at = Some(step.now.plus(AGAIN_MS));
            return;
        }
        self.stage = Stage::Sending {
            history: Arc::clone(history),
            key: std::mem::take(key),
            ask_at: Some(step.now),
        };
        self.tick(step);
    }

    /// The catalog has folded, or not. Where its answer was lost, it is asked anew what is to fold.
    pub(super) fn folded(&mut self, result: &Result<(), CatalogError>, step: &mut Step<'_>) {
        if !matches!(self.stage, Stage::Sending { ask_at: None, .. }) {
            return;
        }
        let ask_at = match result {
            Ok(()) => step.now,
            Err(_) => step.now.plus(AGAIN_MS),
        };
        self.stage = Stage::Idle {
            folded: None,
            ask_at,
        };
    }
}
