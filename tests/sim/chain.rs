//! What the auditor asks of the chain of manifests: whoever takes the table commits again what the
//! store has of it and the catalog has not, before anything else.

use crate::hands::Objects;
use crate::world::World;
use std::collections::BTreeMap;
use windrow_core::table::commit::{Commit, Owner};
use windrow_core::table::manifest::wanted_objects;
use windrow_core::values::digest::sha256_hex;

/// What must be committed again by the owner who took the table last.
#[derive(Default)]
pub struct Expected {
    owner: Option<Owner>,
    /// The digests of the epochs that follow the catalog's last one.
    digests: BTreeMap<u64, String>,
    /// The last of them, if nothing follows it: it may never have been committed, and then it may
    /// be of a topic that is gone.
    in_doubt: Option<u64>,
}

/// A manifest in the store.
struct Link {
    commit: Commit,
    /// All of its objects are there as they must be, and none is doomed.
    whole: bool,
}

impl World {
    /// Somebody has taken the table.
    pub fn note_chain(&mut self) {
        let owner = self.catalog.owner().cloned();
        let is_doomed = |key: &str| self.catalog.doomed.contains_key(key);
        let chain = self.chain_after(self.catalog.epochs.len(), is_doomed, None);
        let followed = chain.last().is_some_and(|(_, followed)| *followed);
        let digests: BTreeMap<u64, String> = chain
            .into_iter()
            .map(|(commit, _)| (commit.epoch, commit.digest))
            .collect();
        self.expected_chain = Expected {
            owner,
            in_doubt: digests.keys().last().copied().filter(|_| !followed),
            digests,
        };
    }

    /// The last epoch was committed just now.
    pub fn chain_is_followed(&mut self) -> Result<(), String> {
        let Some((commit, _)) = self.catalog.epochs.last() else {
            return Ok(());
        };
        self.summary.followed += u64::from(self.catalog.is_followed(commit.epoch));
        let Expected {
            owner,
            digests,
            in_doubt,
        } = &self.expected_chain;
        let expected = digests.get(&commit.epoch);
        if owner.as_ref() != Some(&commit.owner)
            || expected.is_none_or(|digest| *digest == commit.digest)
        {
            return Ok(());
        }
        if *in_doubt == Some(commit.epoch) && self.topics.len() > 1 {
            return Ok(());
        }
        // An object may have been stored since, by a process that was thought to be dead.
        let now = self.chain_after(commit.epoch as usize, |_| false, owner.as_ref());
        if now
            .first()
            .is_some_and(|(first, _)| first.digest == commit.digest)
        {
            return Ok(());
        }
        Err(format!(
            "epoch {} of term {} is another than the one in the store that its owner found",
            commit.epoch, commit.owner.term
        ))
    }

    /// The chain that follows the epoch before `next`: each with whether another one follows it.
    /// The manifests of `without` do not count.
    fn chain_after(
        &self,
        next: usize,
        is_doomed: impl Fn(&str) -> bool,
        without: Option<&Owner>,
    ) -> Vec<(Commit, bool)> {
        let warehouse = self.catalog.warehouse().unwrap_or_default();
        let Some(objects) = self.stores.get(&warehouse) else {
            return Vec::new();
        };
        let mut links: BTreeMap<String, Vec<Link>> = BTreeMap::new();
        for (key, bytes) in objects.range("_windrow/default.t/manifests/".to_owned()..) {
            if !key.contains("/manifests/") || !key.ends_with(".json") {
                continue;
            }
            let Ok(commit) = serde_json::from_slice::<Commit>(bytes) else {
                continue;
            };
            if commit.epoch >= next as u64 && without != Some(&commit.owner) {
                let whole = is_whole(&commit, objects)
                    && !commit.objects().iter().any(|key| is_doomed(key));
                let of_previous = links.entry(commit.previous.clone()).or_default();
                of_previous.push(Link { commit, whole });
            }
        }
        let mut chain = Vec::new();
        let last = next
            .checked_sub(1)
            .and_then(|at| self.catalog.epochs.get(at));
        let mut digest = last.map(|(commit, _)| commit.digest.clone());
        while let Some(of) = digest.take().and_then(|digest| links.get(&digest)) {
            let whole = of.iter().filter(|link| link.whole);
            let best = whole.max_by_key(|link| (length(link, &links), term_of(&link.commit)));
            if let Some(Link { commit, .. }) = best {
                digest = Some(commit.digest.clone());
                chain.push((commit.clone(), links.contains_key(&commit.digest)));
            }
        }
        chain
    }
}

/// How many whole epochs a branch has that begins with this one.
fn length(link: &Link, links: &BTreeMap<String, Vec<Link>>) -> u64 {
    let next = links.get(&link.commit.digest).into_iter().flatten();
    let longest = next
        .filter(|link| link.whole)
        .map(|link| length(link, links));
    1 + longest.max().unwrap_or(0)
}

fn term_of(commit: &Commit) -> u64 {
    commit.owner.term
}

fn is_whole(commit: &Commit, objects: &Objects) -> bool {
    wanted_objects(commit).iter().all(|wanted| {
        let bytes = objects.get(&wanted.key);
        bytes.is_some_and(|bytes| sha256_hex(bytes).starts_with(&wanted.sha256))
    })
}
