//! Garbage: objects that no epoch names are doomed, and objects that were doomed long enough ago
//! are deleted. Only doomed keys are deleted. That no live row names a doomed key is the catalog's
//! promise.
//!
//! Both go through very many keys, page by page. The search for orphans lists the table's folder,
//! and asks the catalog about each page before it asks the store for the next one. A round of
//! deletion takes a page of what is due, deletes its objects, takes those that are gone off the
//! list, and goes on behind the page's last key. So a key that cannot be deleted is passed over
//! until the next round.

use super::conversation::{CatalogRequest, Effect, StoreRequest};
use super::rules::GarbageRules;
use super::step::Step;
use crate::table::commit::{CatalogError, ClockBound, Owner};
use crate::table::place::Names;
use crate::values::cause::Trouble;
use crate::values::object::ObjectPage;
use crate::values::time::Mono;

/// A clock that is off by so little deletes nothing too early, however short the grace is.
const CLOCK_OFF_MS: u64 = 60_000;
/// Between two attempts at what failed.
const AGAIN_MS: u64 = 60_000;

/// The garbage of one table, while it is ours.
pub(super) struct Garbage {
    owner: Owner,
    search: Search,
    deletion: Deletion,
    /// When the next search begins.
    search_at: Mono,
    /// When the next round of deletion begins.
    delete_at: Mono,
    /// It was said that keys are on the list which windrow does not make.
    foreign_reported: bool,
}

/// What the search for orphans does at the moment.
#[derive(PartialEq)]
enum Search {
    /// It waits for its time.
    Idle,
    /// A page of the table's objects is to be listed.
    List {
        /// The page begins behind this key; `None` is the first page.
        after: Option<String>,
        /// When to ask; `None` while the answer is on its way.
        ask_at: Option<Mono>,
    },
    /// The catalog is to doom what it does not name of a page.
    Doom {
        /// Keys that may be orphans.
        keys: Vec<String>,
        /// The last key of the page, if there may be further ones.
        next: Option<String>,
        /// When to ask; `None` while the answer is on its way.
        ask_at: Option<Mono>,
    },
}

/// What a round of deletion does at the moment.
#[derive(PartialEq)]
enum Deletion {
    /// It waits for its time.
    Idle,
    /// The catalog is to say which keys behind this one are due.
    List {
        /// The last key of the page before; `None` at the beginning of a round.
        after: Option<String>,
        /// When to ask; `None` while the answer is on its way.
        ask_at: Option<Mono>,
    },
    /// The objects of a page are being deleted.
    Delete {
        /// The last key of the page.
        last: String,
        /// The last one of the keys that were handed to the store. It is another one where the
        /// page ends with keys that windrow does not make.
        last_sent: String,
    },
}

/// What the engine knows of the table when a page of keys is looked through.
pub(super) struct Watch {
    /// The last epoch; `None` before epoch 0 is true.
    pub(super) last_epoch: Option<u64>,
    /// The keys of compacted files that wait for their swap.
    pub(super) in_hand: Vec<String>,
}

impl Garbage {
    /// The table has become ours.
    pub(super) fn new(owner: Owner, now: Mono) -> Self {
        Self {
            owner,
            search: Search::Idle,
            deletion: Deletion::Idle,
            search_at: now,
            delete_at: now,
            foreign_reported: false,
        }
    }

    /// Asks what is due; nothing while the clocks differ, because what was doomed by a wrong clock,
    /// or is said to be doomed for long enough by one, may still be needed.
    ///
    /// Nothing is searched for before epoch 0 is true: a catalog without epochs may be one that was
    /// lost, and then it would name none of the objects.
    pub(super) fn tick(&mut self, has_epochs: bool, step: &mut Step<'_>) {
        if bound(step).is_none() || !has_epochs {
            return;
        }
        if self.search == Search::Idle && step.now >= self.search_at {
            self.search_at = step.now.plus(step.rules.garbage.search_every_ms);
            // What a crash left of an upload costs its bytes, and no listing shows it.
            step.ask(StoreRequest::AbortUploads {
                prefix: step.names.prefix().to_owned(),
                age_ms: step.rules.garbage.orphan_age_ms,
            });
            self.search = Search::List {
                after: None,
                ask_at: Some(step.now),
            };
        }
        if self.deletion == Deletion::Idle && step.now >= self.delete_at {
            self.delete_at = step.now.plus(step.rules.garbage.delete_every_ms);
            self.deletion = Deletion::List {
                after: None,
                ask_at: Some(step.now),
            };
        }
        self.ask(step);
    }

    /// Sends the requests whose time has come.
    fn ask(&mut self, step: &mut Step<'_>) {
        let Some(clock) = bound(step) else {
            return;
        };
        let now = step.now;
        let is_due = |ask_at: &mut Option<Mono>| ask_at.take_if(|at| now >= *at).is_some();
        match &mut self.search {
            Search::List { after, ask_at } => {
                if is_due(ask_at) {
                    let (prefix, after) = (step.names.prefix().to_owned(), after.clone());
                    step.ask(StoreRequest::ListPage { prefix, after });
                }
            }
            Search::Doom { keys, ask_at, .. } => {
                if is_due(ask_at) {
                    let (owner, keys) = (self.owner.clone(), keys.clone());
                    step.ask(CatalogRequest::Doom { owner, keys, clock });
                }
            }
            Search::Idle => {}
        }
        if let Deletion::List { after, ask_at } = &mut self.deletion
            && is_due(ask_at)
        {
            let (after, grace_ms) = (after.clone(), step.rules.keep_replaced_ms);
            step.ask(CatalogRequest::DoomedPast {
                grace_ms,
                after,
                clock,
            });
        }
    }

    /// The store listed a page of objects. A listing that failed is asked for again, and so is one
    /// that gives the page before once more.
    pub(super) fn listed(
        &mut self,
        asked_after: Option<&str>,
        result: Result<ObjectPage, Trouble>,
        watch: Watch,
        step: &mut Step<'_>,
    ) {
        let Search::List {
            after,
            ask_at: ask_at @ None,
        } = &mut self.search
        else {
            return;
        };
        if after.as_deref() != asked_after {
            return;
        }
        let page = result.ok().filter(|page| page.moves_on(asked_after));
        let Some(page) = page else {
            *ask_at = Some(step.now.plus(AGAIN_MS));
            return;
        };
        let orphans = OrphanRule {
            names: step.names,
            rules: &step.rules.garbage,
            term: self.owner.term,
            watch,
        };
        let objects = page.objects.into_iter();
        let keys: Vec<String> = objects
            .filter(|object| orphans.may_be(&object.key, object.age_ms))
            .map(|object| object.key)
            .collect();
        if keys.is_empty() {
            self.search_on(page.next, step);
        } else {
            self.search = Search::Doom {
                keys,
                next: page.next,
                ask_at: Some(step.now),
            };
            self.ask(step);
        }
    }

    /// Goes on with the next page, if there is one.
    fn search_on(&mut self, next: Option<String>, step: &mut Step<'_>) {
        self.search = match next {
            None => Search::Idle,
            after => Search::List {
                after,
                ask_at: Some(step.now),
            },
        };
        self.ask(step);
    }

    /// The catalog has doomed what it does not name of a page, or not.
    pub(super) fn doomed(
        &mut self,
        result: &Result<Vec<String>, CatalogError>,
        step: &mut Step<'_>,
    ) {
        let Search::Doom {
            next,
            ask_at: ask_at @ None,
            ..
        } = &mut self.search
        else {
            return;
        };
        match result {
            Ok(_) => {
                let next = next.take();
                self.search_on(next, step);
            }
            Err(_) => *ask_at = Some(step.now.plus(AGAIN_MS)),
        }
    }

    /// The catalog said which keys were doomed long enough ago: their objects are deleted.
    ///
    /// The list is a table that others may write to, and a key on it may be that of another
    /// application in the same bucket. So only what windrow itself may have stored for this table
    /// is deleted. Other keys stay on the list, which is reported once.
    pub(super) fn delete(
        &mut self,
        asked_after: Option<&str>,
        result: Result<Vec<String>, CatalogError>,
        step: &mut Step<'_>,
    ) {
        let Deletion::List {
            after,
            ask_at: ask_at @ None,
        } = &mut self.deletion
        else {
            return;
        };
        if after.as_deref() != asked_after {
            return;
        }
        match result {
            Ok(keys) if bound(step).is_some() => self.delete_page(keys, step),
            Ok(_) | Err(_) => *ask_at = Some(step.now.plus(AGAIN_MS)),
        }
    }

    fn delete_page(&mut self, keys: Vec<String>, step: &mut Step<'_>) {
        let Some(last) = keys.last().cloned() else {
            self.deletion = Deletion::Idle;
            return;
        };
        let names = step.names;
        let is_ours = |key: &String| names.term_and_epoch(key).is_some();
        let (keys, foreign): (Vec<_>, Vec<_>) = keys.into_iter().partition(is_ours);
        if !foreign.is_empty() && !std::mem::replace(&mut self.foreign_reported, true) {
            step.effect(Effect::ReportForeignKeys(foreign));
        }
        match keys.last().cloned() {
            None => self.delete_on(last, step),
            Some(last_sent) => {
                self.deletion = Deletion::Delete { last, last_sent };
                step.ask(StoreRequest::Delete { keys });
            }
        }
    }

    /// Goes on with the keys behind this one.
    fn delete_on(&mut self, after: String, step: &mut Step<'_>) {
        self.deletion = Deletion::List {
            after: Some(after),
            ask_at: Some(step.now),
        };
        self.ask(step);
    }

    /// The store deleted objects. The keys of those that are `gone` are taken off the list; the
    /// `kept` ones could not be deleted, and stay on it until the next round.
    pub(super) fn deleted(&mut self, gone: Vec<String>, kept: &[String], step: &mut Step<'_>) {
        let Deletion::Delete { last, last_sent } = &self.deletion else {
            return;
        };
        // An answer to an earlier ownership is about a page of its own.
        if !gone.contains(last_sent) && !kept.contains(last_sent) {
            return;
        }
        let last = last.clone();
        if !gone.is_empty() {
            let owner = self.owner.clone();
            step.ask(CatalogRequest::Forget { owner, keys: gone });
        }
        self.delete_on(last, step);
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

/// Which objects may be orphans; the catalog knows which of them are.
struct OrphanRule<'a> {
    names: &'a Names,
    rules: &'a GarbageRules,
    /// Ours.
    term: u64,
    watch: Watch,
}

impl OrphanRule<'_> {
    /// An object of an earlier term may be an orphan at once, because its owner is fenced. Whoever
    /// put it, it may be one when it is old.
    ///
    /// Left alone are names that windrow does not give, compacted files that wait for their swap,
    /// and objects of epochs that the catalog has not reached. Those are on their way there, except
    /// when an older database was restored: then they hold what it has lost. Only the very next
    /// epoch of an earlier owner is different: that is the one which the owner did not finish. A
    /// compacted file has no epoch in its name: where the catalog has lost the swap that showed it,
    /// it still shows what the file was made from.
    ///
    /// Example: we are of term 5, and the last epoch is 120. Of the objects of term 4 that of epoch
    /// 121 may be an orphan and that of epoch 122 not. Of our own, only those of epoch 120 and
    /// before may be, once they are old.
    fn may_be(&self, key: &str, age_ms: u64) -> bool {
        let (Some((term, epoch)), Some(last)) =
            (self.names.term_and_epoch(key), self.watch.last_epoch)
        else {
            return false;
        };
        if self.watch.in_hand.iter().any(|ours| ours == key) {
            return false;
        }
        let reached = if term < self.term { last + 1 } else { last };
        let old = age_ms >= self.rules.orphan_age_ms;
        epoch.is_none_or(|epoch| epoch <= reached) && (term < self.term || old)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Judges keys as the owner of term 5 at epoch 120, where an object is old after a minute.
    fn may_be_orphan(key: &str, age_ms: u64) -> bool {
        let names = Names::new("default", "t");
        let rules = GarbageRules {
            orphan_age_ms: 60_000,
            ..GarbageRules::default()
        };
        let rule = OrphanRule {
            names: &names,
            rules: &rules,
            term: 5,
            watch: Watch {
                last_epoch: Some(120),
                in_hand: vec![waiting_for_its_swap()],
            },
        };
        rule.may_be(key, age_ms)
    }

    fn key(term: u64, epoch: u64) -> String {
        let names = Names::new("default", "t");
        names.file("rows", term, epoch, &"a".repeat(64))
    }

    #[test]
    fn orphans_of_every_earlier_owner_are_found() {
        for term in 1..5 {
            for epoch in [0, 7, 120, 121] {
                assert!(may_be_orphan(&key(term, epoch), 0), "{term} {epoch}");
            }
        }
    }

    #[test]
    fn a_compacted_file_that_no_swap_showed_is_found() {
        let names = Names::new("default", "t");
        let key =
            |term, period| names.compacted("rows/2026-11-27", term, period, &"a".repeat(64), 1);
        for period in ["day", "hour12", "1250"] {
            assert!(may_be_orphan(&key(4, period), 0), "{period}");
            assert!(!may_be_orphan(&key(5, period), 59_999), "{period}");
            assert!(may_be_orphan(&key(5, period), 60_000), "{period}");
        }
    }

    fn waiting_for_its_swap() -> String {
        let names = Names::new("default", "t");
        names.compacted("rows/2026-11-27", 5, "hour12", &"b".repeat(64), 0)
    }

    #[test]
    fn a_compacted_file_that_waits_for_its_swap_is_left_alone() {
        let years = 100_000_000_000;
        assert!(!may_be_orphan(&waiting_for_its_swap(), years));
    }

    #[test]
    fn an_object_of_this_or_a_later_owner_must_be_old() {
        for term in [5, 6] {
            assert!(!may_be_orphan(&key(term, 120), 59_999));
            assert!(may_be_orphan(&key(term, 120), 60_000));
        }
    }

    #[test]
    fn objects_that_are_on_their_way_or_that_a_restored_catalog_lost_are_left_alone() {
        let years = 100_000_000_000;
        assert!(!may_be_orphan(&key(5, 121), years), "on its way");
        assert!(!may_be_orphan(&key(4, 122), years), "lost by the catalog");
    }

    #[test]
    fn what_windrow_did_not_name_is_left_alone() {
        let years = 100_000_000_000;
        for key in [
            "_windrow/default.t/tables/t__chunks/",
            "_windrow/default.t/rows/_SUCCESS",
            "_windrow/default.t/rows/notes-1-2",
            "_windrow/default.t/rows/2-notes-aaaa/part.parquet",
            "_windrow/default.t/rows/empty-0f343b0931126a20f133d67c2b018a3b/part.parquet",
            "_windrow/default.t2/manifests/1-0000000001-aaaa.json",
            "elsewhere/1-0000000001-aaaa",
        ] {
            assert!(!may_be_orphan(key, years), "{key}");
        }
    }
}
