//! The chain of manifests past the journal's last epoch, as far as it was looked at, and which
//! epoch of it comes next. Nothing is asked here; that is in `following`.
//!
//! Each manifest names the digest of the epoch before it. Several may name the same one, where an
//! owner left an epoch that it could not commit any more, and its successor went on without it. Of
//! such branches the longest counts, and of branches of the same length that of the highest term:
//!
//! ```text
//! journal … 119 ─ 120 ─┬─ 121 (term 3)
//!                      └─ 121 (term 4) ─ 122 (term 4) ─ 123 (term 4)     this one
//! ```

use crate::table::commit::Commit;
use crate::table::place::Names;
use crate::values::object::ObjectPage;
use std::collections::{BTreeMap, BTreeSet};

/// So many epochs are looked for in one listing. When they are through, it is listed again.
const EPOCHS_MAX: u64 = 10_000;
/// So many epochs are looked at before their turn, so that nothing waits for the store.
const AHEAD: u64 = 16;

/// The epochs that follow the journal's last one.
#[derive(Debug)]
pub(super) struct Chain {
    /// The epoch that comes next.
    next: u64,
    /// The digest of the one before it.
    follows: String,
    /// The manifests of `next` and of later epochs that the store has, each with its term, from the
    /// lowest term to the highest.
    keys: BTreeMap<u64, BTreeSet<(u64, String)>>,
    /// What is known of the manifests that were looked at, by their keys.
    links: BTreeMap<String, Link>,
    /// The branch that was chosen where there are several, as the key of its manifest of `next`.
    chosen: Option<String>,
    /// How far several branches were followed.
    fork: Option<Fork>,
}

/// What is known of a manifest.
#[derive(Debug)]
enum Link {
    /// It is being fetched.
    Fetching,
    /// Its objects are being looked at.
    Checking(Box<Commit>),
    /// It is asked whether one of its keys is doomed.
    Judging(Box<Commit>),
    /// All of its objects are there, and none is doomed.
    Whole {
        previous: String,
        digest: String,
        /// `None` where it is so far ahead that it is fetched once more when its turn comes.
        commit: Option<Box<Commit>>,
    },
    /// It cannot be committed.
    Unfit {
        /// The digest that it follows; `None` where it cannot be read.
        previous: Option<String>,
        /// Why, as a sentence.
        why: String,
    },
}

/// Several branches that begin with `next`.
#[derive(Debug)]
struct Fork {
    /// The epoch to which they were followed.
    at: u64,
    /// The digests at which they are there, and the manifest of `next` with which each began.
    tips: BTreeMap<String, (u64, String)>,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Look at all manifests up to this epoch.
    Look(u64),
    /// Commit this epoch.
    Commit {
        commit: Box<Commit>,
        /// Whether another epoch follows it, whatever became of that one's objects. Then it was
        /// committed once. Otherwise its owner may have died before.
        was_committed: bool,
    },
    /// The chain ends.
    End,
}

impl Chain {
    /// What follows this commit. Nothing is known yet.
    pub(super) fn after(last: &Commit) -> Self {
        Self {
            next: last.epoch + 1,
            follows: last.digest.clone(),
            keys: BTreeMap::new(),
            links: BTreeMap::new(),
            chosen: None,
            fork: None,
        }
    }

    /// Takes a page of the listing of all manifests. Returns the text behind which the next page
    /// begins, which may be much further than this one's end; `None` after the last page.
    ///
    /// Within a term, manifests are in the order of their epochs, and day manifests come after
    /// them. So a term takes two requests: one that meets it, and one for what is new in it.
    pub(super) fn take_page(&mut self, page: &ObjectPage, names: &Names) -> Option<String> {
        let mut passed = String::new();
        for object in &page.objects {
            if object.key <= passed {
                continue;
            }
            match names.term_and_epoch(&object.key) {
                Some((term, Some(epoch))) if epoch < self.next => {
                    passed = names.manifests_from(term, self.next);
                }
                Some((term, Some(epoch))) if epoch < self.next + EPOCHS_MAX => {
                    let keys = self.keys.entry(epoch).or_default();
                    keys.insert((term, object.key.clone()));
                }
                Some((term, _)) => passed = names.manifests_after(term),
                None => {}
            }
        }
        page.next.clone().map(|next| next.max(passed))
    }

    /// The last epoch of which there is a manifest; `None` where there is none after the journal's.
    pub(super) fn until(&self) -> Option<u64> {
        self.keys.last_key_value().map(|(epoch, _)| *epoch)
    }

    /// The manifests that should be fetched now, while so many may be on their way. From now on
    /// they are.
    pub(super) fn take_due(&mut self, look_to: u64, on_their_way_max: usize) -> Vec<String> {
        let on_their_way = self.links.values().filter(|link| link.is_open()).count();
        let until = look_to.max(self.next + AHEAD);
        let keys = self.keys.range(..=until).flat_map(|(_, keys)| keys);
        let due: Vec<String> = keys
            .map(|(_, key)| key)
            .filter(|key| !self.links.contains_key(*key))
            .take(on_their_way_max.saturating_sub(on_their_way))
            .cloned()
            .collect();
        for key in &due {
            self.links.insert(key.clone(), Link::Fetching);
        }
        due
    }

    /// Forgets that this manifest was looked at, because a question about it failed.
    pub(super) fn look_again(&mut self, key: &str) {
        if self.links.get(key).is_some_and(Link::is_open) {
            self.links.remove(key);
        }
    }

    /// The manifest was fetched. Returns the commit, whose objects are to be looked at; `None`
    /// where nobody waits for it, or where it cannot be read, for this reason.
    pub(super) fn fetched(&mut self, key: &str, read: Result<Commit, String>) -> Option<&Commit> {
        let link = self.links.get_mut(key)?;
        if !matches!(link, Link::Fetching) {
            return None;
        }
        *link = match read {
            Ok(commit) => Link::Checking(Box::new(commit)),
            Err(why) => Link::Unfit {
                previous: None,
                why: format!("manifest \"{key}\" cannot be read: {why}"),
            },
        };
        match link {
            Link::Checking(commit) => Some(commit),
            _ => None,
        }
    }

    /// The objects were looked at: `wrong` says what is wrong with one of them. Returns the keys of
    /// which it must be asked whether they are doomed; `None` where nobody waits for it.
    pub(super) fn checked(&mut self, key: &str, wrong: Option<String>) -> Option<Vec<String>> {
        let link = self.links.get_mut(key)?;
        let Link::Checking(commit) = link else {
            return None;
        };
        if let Some(why) = wrong {
            *link = Link::unfit(commit, why);
            return None;
        }
        let keys = commit.objects();
        *link = Link::Judging(commit.clone());
        Some(keys)
    }

    /// The catalog says which of its keys are doomed.
    pub(super) fn judged(&mut self, key: &str, doomed: &[String]) {
        let next = self.next;
        let Some(link) = self.links.get_mut(key) else {
            return;
        };
        let Link::Judging(commit) = link else {
            return;
        };
        *link = match doomed.first() {
            Some(key) => Link::unfit(commit, format!("object \"{key}\" is to be deleted")),
            None => Link::Whole {
                previous: commit.previous.clone(),
                digest: commit.digest.clone(),
                commit: (commit.epoch <= next + AHEAD).then(|| commit.clone()),
            },
        };
    }

    /// Leaves out the epoch that would come next.
    pub(super) fn leave_out(&mut self, key: &str, why: String) {
        self.chosen = None;
        self.fork = None;
        let previous = Some(self.follows.clone());
        self.links
            .insert(key.to_owned(), Link::Unfit { previous, why });
    }

    /// The epoch is committed.
    pub(super) fn note_commit(&mut self, commit: &Commit) {
        self.chosen = None;
        self.fork = None;
        self.follows = commit.digest.clone();
        for (_, key) in self.keys.remove(&self.next).into_iter().flatten() {
            self.links.remove(&key);
        }
        self.next = commit.epoch + 1;
    }

    /// What to do next.
    pub(super) fn next(&mut self) -> Next {
        let key = match self.choose() {
            Ok(Some(key)) => key,
            Ok(None) => return Next::End,
            Err(look_to) => return Next::Look(look_to),
        };
        let Some(Link::Whole { digest, commit, .. }) = self.links.get(&key) else {
            return Next::Look(self.next);
        };
        let Some(commit) = commit else {
            self.links.remove(&key);
            return Next::Look(self.next);
        };
        let was_committed = self.is_followed(digest);
        if !was_committed && !self.is_known(self.next + 1) {
            return Next::Look(self.next + 1);
        }
        Next::Commit {
            commit: commit.clone(),
            was_committed,
        }
    }

    /// The manifest of the epoch that comes next; `None` where none follows. As an error, the epoch
    /// up to which manifests must be looked at first.
    fn choose(&mut self) -> Result<Option<String>, u64> {
        if !self.is_known(self.next) {
            return Err(self.next);
        }
        // It may have been looked at once more, and be no longer what it was.
        let is_whole = |key: &String| matches!(self.links.get(key), Some(Link::Whole { .. }));
        if let Some(chosen) = self.chosen.take_if(|key| is_whole(key)) {
            self.chosen = Some(chosen.clone());
            return Ok(Some(chosen));
        }
        let follows = &self.follows;
        let tips = self.branches(self.next, |previous, key| {
            (previous == follows).then(|| key.clone())
        });
        self.chosen = if tips.len() < 2 {
            tips.into_values().next().map(|(_, key)| key)
        } else {
            Some(self.longest(tips)?)
        };
        Ok(self.chosen.clone())
    }

    /// Which of several branches is the longest, or the one of the highest term.
    fn longest(&mut self, tips: BTreeMap<String, (u64, String)>) -> Result<String, u64> {
        let begin = Fork {
            at: self.next,
            tips,
        };
        let mut fork = self.fork.take().unwrap_or(begin);
        loop {
            let at = fork.at + 1;
            if !self.is_known(at) {
                self.fork = Some(fork);
                return Err(at);
            }
            let tips = self.branches(at, |previous, _| fork.tips.get(previous).cloned());
            let began: BTreeSet<&(u64, String)> = tips.values().collect();
            match began.len() {
                0 => {
                    let highest = fork.tips.into_values().max().expect("there are several");
                    return Ok(highest.1);
                }
                1 => return Ok(tips.into_values().next().expect("there is one").1),
                _ => fork = Fork { at, tips },
            }
        }
    }

    /// The digests of the whole manifests of an epoch that belong to a branch, each with that
    /// branch. `branch_of` is asked with the digest that a manifest follows, and its own term and
    /// key.
    fn branches(
        &self,
        epoch: u64,
        branch_of: impl Fn(&str, &(u64, String)) -> Option<(u64, String)>,
    ) -> BTreeMap<String, (u64, String)> {
        let keys = self.keys.get(&epoch).into_iter().flatten();
        let whole = keys.filter_map(|named| match self.links.get(&named.1) {
            Some(Link::Whole {
                previous, digest, ..
            }) => Some((digest.clone(), branch_of(previous, named)?)),
            _ => None,
        });
        whole.collect()
    }

    /// Whether all manifests of an epoch were looked at.
    fn is_known(&self, epoch: u64) -> bool {
        let mut keys = self.keys.get(&epoch).into_iter().flatten();
        keys.all(|(_, key)| self.links.get(key).is_some_and(|link| !link.is_open()))
    }

    /// Whether a manifest of the epoch after the next one follows this digest.
    fn is_followed(&self, digest: &str) -> bool {
        let mut keys = self.keys.get(&(self.next + 1)).into_iter().flatten();
        keys.any(|(_, key)| self.links.get(key).and_then(Link::previous) == Some(digest))
    }

    /// After the end of the chain: epochs that were committed once and cannot be had, as the first
    /// and the last of them, and why. An epoch of which nothing follows may never have been
    /// committed.
    pub(super) fn lost(&self) -> Option<(u64, u64, String)> {
        let last = self.until().filter(|last| *last > self.next)?;
        let keys = self.keys.get(&self.next).into_iter().flatten();
        let mut unfit = keys.filter_map(|(_, key)| match self.links.get(key) {
            Some(Link::Unfit { previous, why })
                if previous
                    .as_ref()
                    .is_none_or(|digest| *digest == self.follows) =>
            {
                Some(why.clone())
            }
            _ => None,
        });
        let none = || {
            format!(
                "no manifest of epoch {} follows epoch {}",
                self.next,
                self.next - 1
            )
        };
        Some((self.next, last, unfit.next().unwrap_or_else(none)))
    }
}

impl Link {
    fn unfit(commit: &Commit, why: String) -> Self {
        Link::Unfit {
            previous: Some(commit.previous.clone()),
            why,
        }
    }

    /// Whether a question about it is on its way.
    fn is_open(&self) -> bool {
        matches!(self, Link::Fetching | Link::Checking(_) | Link::Judging(_))
    }

    /// The digest that it follows, where that is known.
    fn previous(&self) -> Option<&str> {
        match self {
            Link::Fetching => None,
            Link::Checking(commit) | Link::Judging(commit) => Some(&commit.previous),
            Link::Whole { previous, .. } => Some(previous),
            Link::Unfit { previous, .. } => previous.as_deref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::object::ListedObject;

    fn names() -> Names {
        Names::new("default", "t")
    }

    /// An epoch of this owner that follows another one. `salt` tells it from others of the same
    /// owner.
    fn epoch(term: u64, after: &Commit, salt: &str) -> Commit {
        let mut commit = Commit::for_tests(after.epoch + 1);
        commit.owner.term = term;
        commit.previous = after.digest.clone();
        commit.topic_id = format!("topic{term}{salt}");
        commit.seal(&names());
        commit
    }

    fn epochs(term: u64, after: &Commit, n: usize) -> Vec<Commit> {
        let mut all: Vec<Commit> = Vec::new();
        for _ in 0..n {
            let next = epoch(term, all.last().unwrap_or(after), "");
            all.push(next);
        }
        all
    }

    fn last() -> Commit {
        let mut commit = Commit::for_tests(119);
        commit.seal(&names());
        commit
    }

    /// The store has these, of which `missing` lacks an object.
    fn follow(last: &Commit, there: &[&[Commit]], missing: &[&Commit]) -> (Chain, Vec<Commit>) {
        let there: Vec<&Commit> = there.iter().copied().flatten().collect();
        let mut chain = Chain::after(last);
        let mut keys: Vec<String> = there.iter().map(|c| c.manifest.clone()).collect();
        keys.sort();
        let objects = keys.into_iter().map(|key| ListedObject { key, age_ms: 0 });
        let page = ObjectPage {
            objects: objects.collect(),
            next: None,
        };
        assert_eq!(chain.take_page(&page, &names()), None);
        let mut followed = Vec::new();
        loop {
            let look_to = match chain.next() {
                Next::End => return (chain, followed),
                Next::Commit { commit, .. } => {
                    chain.note_commit(&commit);
                    followed.push(*commit);
                    continue;
                }
                Next::Look(to) => to,
            };
            let due = chain.take_due(look_to, 8);
            assert!(!due.is_empty(), "nothing is on its way");
            for key in due {
                let commit = there.iter().find(|c| c.manifest == key).unwrap();
                assert!(chain.fetched(&key, Ok((*commit).clone())).is_some());
                let wrong = missing
                    .contains(commit)
                    .then(|| "x is not there".to_owned());
                if chain.checked(&key, wrong).is_some() {
                    chain.judged(&key, &[]);
                }
            }
        }
    }

    fn digests(commits: &[Commit]) -> Vec<&str> {
        commits.iter().map(|commit| &*commit.digest).collect()
    }

    #[test]
    fn a_chain_is_followed_to_its_end() {
        let last = last();
        let lost = epochs(3, &last, 50);
        let (chain, followed) = follow(&last, &[&lost], &[]);
        assert_eq!(digests(&followed), digests(&lost));
        assert_eq!(chain.lost(), None);
        assert!(chain.links.is_empty() && chain.keys.is_empty());
    }

    #[test]
    fn a_chain_ends_where_an_object_is_missing_and_says_what_is_lost() {
        let last = last();
        let lost = epochs(3, &last, 5);
        let (chain, followed) = follow(&last, &[&lost], &[&lost[2]]);
        assert_eq!(digests(&followed), digests(&lost[..2]));
        assert_eq!(chain.lost(), Some((122, 124, "x is not there".to_owned())));
    }

    #[test]
    fn an_unfinished_epoch_is_no_loss() {
        let last = last();
        let unfinished = epochs(3, &last, 1);
        let (chain, followed) = follow(&last, &[&unfinished], &[&unfinished[0]]);
        assert_eq!((followed.len(), chain.lost()), (0, None));
    }

    #[test]
    fn a_gap_in_the_chain_is_a_loss() {
        let last = last();
        let lost = epochs(3, &last, 9);
        let (chain, followed) = follow(&last, &[&lost[3..]], &[]);
        assert_eq!(followed.len(), 0);
        let why = "no manifest of epoch 120 follows epoch 119";
        assert_eq!(chain.lost(), Some((120, 128, why.to_owned())));
    }

    #[test]
    fn the_longest_branch_counts_whatever_its_term_is() {
        let last = last();
        let (short, long) = (epochs(7, &last, 2), epochs(3, &last, 40));
        let (_, followed) = follow(&last, &[&short, &long], &[]);
        assert_eq!(digests(&followed), digests(&long));
    }

    #[test]
    fn a_branch_is_as_long_as_it_can_be_committed() {
        let last = last();
        let (short, long) = (epochs(7, &last, 2), epochs(3, &last, 40));
        let (_, followed) = follow(&last, &[&short, &long], &[&long[1]]);
        assert_eq!(digests(&followed), digests(&short));
    }

    #[test]
    fn of_branches_of_the_same_length_the_highest_term_counts() {
        let last = last();
        let (two, ten) = (epochs(2, &last, 30), epochs(10, &last, 30));
        let (_, followed) = follow(&last, &[&two, &ten], &[]);
        assert_eq!(digests(&followed), digests(&ten));
    }

    #[test]
    fn an_epoch_that_another_one_follows_was_committed() {
        let last = last();
        let first = epoch(3, &last, "");
        let second = epoch(3, &first, "");
        let mut chain = Chain::after(&last);
        for commit in [&first, &second] {
            let key = (3, commit.manifest.clone());
            chain.keys.entry(commit.epoch).or_default().insert(key);
        }
        assert_eq!(chain.take_due(0, 8).len(), 2);
        for commit in [&first, &second] {
            chain.fetched(&commit.manifest, Ok(commit.clone()));
        }
        // What became of the second one's objects makes no difference.
        chain.checked(&first.manifest, None);
        chain.judged(&first.manifest, &[]);
        let commit = Box::new(first);
        assert_eq!(
            chain.next(),
            Next::Commit {
                commit,
                was_committed: true
            }
        );
    }

    /// A store of this many manifests, and how many pages a listing of what is new takes.
    fn pages(terms: u64, epochs_each: u64, last: u64) -> (usize, usize) {
        let names = names();
        let hash = "0".repeat(64);
        let mut keys = BTreeSet::new();
        for term in 1..=terms {
            let first = (term - 1) * epochs_each;
            keys.extend((first..first + epochs_each).map(|e| names.manifest(term, e, &hash)));
            keys.insert(names.day_manifest(term, "2026-11-27", &hash));
        }
        let mut at = Commit::for_tests(last);
        at.digest = "x".to_owned();
        let mut chain = Chain::after(&at);
        let (mut after, mut pages) = (String::new(), 0);
        loop {
            pages += 1;
            let mut rest = keys.range(after.clone()..).filter(|key| **key > after);
            let page: Vec<ListedObject> = rest
                .by_ref()
                .take(1000)
                .map(|key| ListedObject {
                    key: key.clone(),
                    age_ms: 0,
                })
                .collect();
            let next = rest.next().and(page.last()).map(|last| last.key.clone());
            let page = ObjectPage {
                objects: page,
                next,
            };
            match chain.take_page(&page, &names) {
                Some(next) => after = next,
                None => break,
            }
        }
        (pages, chain.keys.values().map(BTreeSet::len).sum())
    }

    #[test]
    fn what_is_new_is_found_with_few_requests() {
        assert_eq!(pages(1, 60_000, 59_999), (2, 0));
        assert_eq!(pages(6, 10_000, 59_990), (7, 9));
        assert_eq!(pages(6, 10_000, 49_999), (16, 10_000));
        // A term has few epochs where a process crashes again and again.
        assert_eq!(pages(3000, 20, 59_990), (63, 9));
    }
}
