//! What a journal is rebuilt from where it was lost: epoch 0's manifest, and the day manifests.
//! What came after the newest of these is not here. It follows from the chain of manifests, which
//! the next owner follows anyway.
//!
//! ```text
//! manifests/3-0000000000-….json         epoch 0: what the table is
//! manifests/3-2026-11-26-….json.zst     epochs 1 to 8640 together
//! manifests/3-2026-11-27-….json.zst     epochs 8641 to 17280, and the files after them
//! manifests/3-0000017281-….json         the chain goes on here
//! ```

use crate::table::commit::{Commit, LiveFile};
use crate::table::history::{DayManifest, History};
use crate::table::manifest;
use crate::table::place::Names;
use crate::values::digest::sha256_hex;
use std::collections::BTreeSet;

/// What a journal begins with again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// The term of whoever writes it: above every term in a key.
    pub term: u64,
    /// Epoch 0.
    pub first: Commit,
    /// What the epochs of the days said together, each with the path of its day manifest, in the
    /// order of their epochs.
    pub history: Vec<(History, String)>,
    /// The last epoch of the last day, without its checkpoint; `None` where no epoch was folded
    /// yet.
    pub last: Option<Commit>,
    /// The files that readers see after that epoch.
    pub live: Vec<LiveFile>,
    /// What a person should know, as whole sentences.
    pub notes: Vec<String>,
}

/// Which objects a table has, as a listing shows them.
#[derive(Debug, Default)]
pub struct Listing {
    term: u64,
    first: Vec<String>,
    days: Vec<(u64, String)>,
    later: BTreeSet<u64>,
    files: BTreeSet<String>,
}

impl Listing {
    /// Adds the key of an object of the table.
    pub fn add(&mut self, names: &Names, key: &str) {
        let Some((term, epoch)) = names.term_and_epoch(key) else {
            return;
        };
        self.term = self.term.max(term);
        if !key.starts_with(&names.manifests()) {
            self.files.insert(key.to_owned());
            return;
        }
        match epoch {
            Some(0) => self.first.push(key.to_owned()),
            Some(epoch) => drop(self.later.insert(epoch)),
            None => self.days.push((term, key.to_owned())),
        }
    }

    /// The manifests that must be fetched: those of epoch 0, and all day manifests.
    #[must_use]
    pub fn wanted(&self) -> Vec<String> {
        let days = self.days.iter().map(|(_, key)| key);
        self.first.iter().chain(days).cloned().collect()
    }

    /// What the journal begins with again. `fetched` has the manifests of [`Listing::wanted`],
    /// each with its bytes.
    ///
    /// # Errors
    /// Why the store does not say it, as the end of a sentence.
    pub fn rebuild(&self, names: &Names, fetched: &[(String, Vec<u8>)]) -> Result<Base, String> {
        let mut notes = Vec::new();
        let mut days: Vec<(DayManifest, String)> = Vec::new();
        for (key, bytes) in fetched {
            if !Names::is_day_manifest(key) {
                continue;
            }
            match read_day(key, bytes) {
                Ok(day) => days.push((day, key.clone())),
                Err(why) => notes.push(format!("day manifest \"{key}\" is left out: {why}")),
            }
        }
        let days = newest_days(days);
        let follows = days.first().map(|(day, _)| &day.history);
        let firsts: Vec<Commit> = fetched
            .iter()
            .filter(|(key, _)| !Names::is_day_manifest(key))
            .filter_map(|(key, bytes)| manifest::read(key, bytes, names).ok())
            .filter(|first| match follows {
                Some(history) if history.first_epoch == 1 => first.digest == history.previous,
                _ => true,
            })
            .collect();
        let Some(first) = firsts.into_iter().max_by_key(|first| first.owner.term) else {
            return Err("the store has no manifest of epoch 0 that can be read".to_owned());
        };
        if first.genesis.is_none() {
            return Err("the manifest of epoch 0 does not say what the table is".to_owned());
        }
        if let Some(history) = follows
            && history.first_epoch > 1
        {
            notes.push(format!(
                "what epochs 1 to {} decided is not known any more, because their day manifests \
                 are gone; the rows and the ledger are not touched by that",
                history.first_epoch - 1
            ));
        }
        let (last, live) = days.last().map_or((None, Vec::new()), |(day, _)| {
            (Some(day.last.clone()), day.live.clone())
        });
        self.note_missing_files(&live, &mut notes);
        self.note_later(last.as_ref().map_or(0, |last| last.epoch), &mut notes);
        Ok(Base {
            term: self.term + 1,
            first,
            history: days
                .into_iter()
                .map(|(day, key)| (day.history, key))
                .collect(),
            last,
            live,
            notes,
        })
    }

    fn note_missing_files(&self, live: &[LiveFile], notes: &mut Vec<String>) {
        let missing = live
            .iter()
            .filter(|live| !self.files.contains(&live.file.key));
        let missing: Vec<&LiveFile> = missing.collect();
        if let Some(one) = missing.first() {
            let rows: u64 = missing.iter().map(|live| live.file.rows).sum();
            notes.push(format!(
                "{} files with {rows} rows are not in the store any more, such as \"{}\"; queries \
                 that read them fail until a later epoch replaces them or they are put back",
                missing.len(),
                one.file.key
            ));
        }
    }

    fn note_later(&self, last: u64, notes: &mut Vec<String>) {
        let later = self.later.range(last + 1..);
        notes.push(match later.max() {
            Some(until) => format!(
                "the journal has epochs up to {last} again; the store has manifests up to epoch \
                 {until}, which the next windrow run follows before it counts on"
            ),
            None => format!("the journal has epochs up to {last} again, and nothing comes after"),
        });
    }
}

/// Reads a day manifest, which must have the hash that its name says.
fn read_day(key: &str, bytes: &[u8]) -> Result<DayManifest, String> {
    let hash = sha256_hex(bytes);
    let name = key.strip_suffix(".json.zst").unwrap_or(key);
    if !Names::is_object_of(name, &hash) {
        return Err("it does not have the hash that its name says".to_owned());
    }
    let day = DayManifest::read(bytes)?;
    if day.last.epoch != day.history.last_epoch || day.last.digest != day.history.last_digest {
        return Err("it names another last epoch than it has".to_owned());
    }
    Ok(day)
}

/// The newest day manifest and those before it, as far as each goes on where the one before it
/// ends. A fold that was not finished leaves a day manifest beside the one that counts.
fn newest_days(mut days: Vec<(DayManifest, String)>) -> Vec<(DayManifest, String)> {
    days.sort_by_key(|(day, _)| (day.history.last_epoch, day.made_at));
    let mut chain: Vec<(DayManifest, String)> = Vec::new();
    while let Some((day, key)) = days.pop() {
        let goes_on = chain.last().is_none_or(|(later, _)| {
            later.history.first_epoch == day.history.last_epoch + 1
                && later.history.previous == day.history.last_digest
        });
        if goes_on {
            chain.push((day, key));
        }
    }
    chain.reverse();
    chain
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::commit::{CheckpointAt, Genesis};
    use crate::values::shape::Shape;
    use crate::values::time::DbTime;
    use std::collections::BTreeMap;

    fn names() -> Names {
        Names::new("default", "t")
    }

    /// Epochs 0 to `n`, of term 3.
    fn epochs(n: u64) -> Vec<Commit> {
        let mut epochs: Vec<Commit> = Vec::new();
        for epoch in 0..=n {
            let mut commit = Commit::for_tests(epoch);
            commit.owner.term = 3;
            commit.previous = epochs
                .last()
                .map_or(String::new(), |last| last.digest.clone());
            commit.genesis = (epoch == 0).then(|| Genesis {
                shape: Shape::count_by_origin("t", 10_000, 10_000),
                warehouse: "s3a://spark/warehouse".parse().unwrap(),
                cluster_id: "cluster".to_owned(),
                topic_id: "topic".to_owned(),
                start_offsets: BTreeMap::new(),
                empty_file: String::new(),
                adopted: None,
            });
            commit.checkpoint = Some(CheckpointAt::Inline("00".to_owned()));
            commit.seal(&names());
            epochs.push(commit);
        }
        epochs
    }

    /// The day manifest of these epochs.
    fn day(epochs: &[Commit], made_at: i64) -> (String, Vec<u8>) {
        let at = DbTime(1_795_651_200_000);
        let mut history = History::of(&epochs[0], at);
        for commit in &epochs[1..] {
            history.push(commit, at).unwrap();
        }
        let day = DayManifest {
            made_at: DbTime(made_at),
            history,
            last: epochs.last().unwrap().clone(),
            live: Vec::new(),
        };
        let bytes = day.write();
        (day.key(&names(), 3, &bytes), bytes)
    }

    fn manifest_of(commit: &Commit) -> (String, Vec<u8>) {
        (commit.manifest.clone(), serde_json::to_vec(commit).unwrap())
    }

    fn rebuild(objects: &[(String, Vec<u8>)]) -> Result<Base, String> {
        let mut listing = Listing::default();
        for (key, _) in objects {
            listing.add(&names(), key);
        }
        let wanted = listing.wanted();
        let fetched: Vec<_> = objects
            .iter()
            .filter(|(key, _)| wanted.contains(key))
            .cloned()
            .collect();
        listing.rebuild(&names(), &fetched)
    }

    #[test]
    fn a_young_table_begins_with_epoch_0_again() {
        let epochs = epochs(3);
        let objects: Vec<_> = epochs.iter().map(manifest_of).collect();
        let base = rebuild(&objects).unwrap();
        assert_eq!((base.term, base.first.epoch, base.last), (4, 0, None));
        let note = "the journal has epochs up to 0 again; the store has manifests up to epoch 3";
        assert!(base.notes[0].starts_with(note), "{:?}", base.notes);
    }

    #[test]
    fn an_old_table_begins_with_its_newest_day() {
        let epochs = epochs(9);
        let objects = [
            manifest_of(&epochs[0]),
            day(&epochs[1..=3], 1),
            day(&epochs[4..=6], 2),
            // It was left by a fold that was not finished.
            day(&epochs[4..=5], 1),
            manifest_of(&epochs[7]),
        ];
        let base = rebuild(&objects).unwrap();
        let ranges: Vec<_> = base
            .history
            .iter()
            .map(|(history, _)| (history.first_epoch, history.last_epoch))
            .collect();
        assert_eq!(ranges, [(1, 3), (4, 6)]);
        assert_eq!(base.last.unwrap().digest, epochs[6].digest);
        assert_eq!(base.notes.len(), 1);
    }

    #[test]
    fn what_is_not_known_any_more_is_said() {
        let epochs = epochs(6);
        let (key, mut damaged) = day(&epochs[1..=2], 1);
        damaged[20] ^= 1;
        let objects = [
            manifest_of(&epochs[0]),
            (key, damaged),
            day(&epochs[3..=6], 2),
        ];
        let base = rebuild(&objects).unwrap();
        let notes = base.notes.join("\n");
        assert!(
            notes.contains("is left out: it does not have the hash"),
            "{notes}"
        );
        assert!(
            notes.contains("what epochs 1 to 2 decided is not known"),
            "{notes}"
        );
        assert!(notes.contains("nothing comes after"), "{notes}");
    }

    #[test]
    fn without_epoch_0_nothing_is_rebuilt() {
        let epochs = epochs(2);
        let error = rebuild(&[manifest_of(&epochs[1])]).unwrap_err();
        assert_eq!(
            error,
            "the store has no manifest of epoch 0 that can be read"
        );
    }
}
