//! What the auditor asks of the upkeep of the table: nothing is begun during a pause, and a file
//! that cannot be merged is left out, while the others go on.

use crate::hands::Objects;
use crate::process::Process;
use std::collections::BTreeSet;
use windrow_core::engine::{
    Answer, MergeFailure, MergeOrder, Request, State, StoreAnswer, StoreRequest,
};
use windrow_core::table::commit::Commit;
use windrow_core::table::place::Names;

/// In one of so many runs the store loses a file that is to be merged.
const LOSES_ONE_IN: u64 = 8;

/// What is known of the upkeep of the table.
#[derive(Default)]
pub struct Upkeep {
    /// What was found to be wrong while effects were performed.
    pub wrong: Option<String>,
    /// No clock is set in this run before the faults end, and then none is set back.
    pub calm: bool,
    /// The store is still to lose a file.
    loses: bool,
    /// The file that the store has lost.
    lost: Option<String>,
    /// Terms are told from each other by their numbers: the catalog loses none of them.
    terms_are_unique: bool,
    /// Which files cannot be merged, as far as the owner of this term was told.
    left_out: BTreeSet<(u64, String)>,
    /// The manifests that were stored, or were to be.
    manifests: BTreeSet<String>,
}

impl Upkeep {
    pub fn new(seed: u64, calm: bool, terms_are_unique: bool) -> Self {
        Self {
            calm,
            terms_are_unique,
            loses: seed % LOSES_ONE_IN == 3,
            ..Self::default()
        }
    }

    /// Whether this file is gone, through no fault of any engine.
    pub fn is_lost(&self, key: &str) -> bool {
        self.lost.as_deref() == Some(key)
    }

    /// A process asks this. It knows whether there is a pause.
    pub fn note_request(&mut self, process: &Process, request: &Request) {
        let is_paused = || process.engine.state() == State::Paused;
        match request {
            Request::Store(StoreRequest::Merge(order)) => {
                if is_paused() {
                    self.wrong = Some(format!("{} is made during a pause", order.keys[0]));
                }
                let term = term_of(&order.keys[0]);
                let mut sources = order.sources.iter().map(|file| (term, file.key.clone()));
                if self.terms_are_unique
                    && let Some((_, key)) = sources.find(|source| self.left_out.contains(source))
                {
                    self.wrong = Some(format!("{key} is merged once more, but it is gone"));
                }
            }
            Request::Store(StoreRequest::Put { key, bytes })
                if key.contains("/manifests/")
                    && self.manifests.insert(key.clone())
                    && is_paused() =>
            {
                let commit: Commit = serde_json::from_slice(bytes).expect("a manifest");
                if !commit.retired.is_empty() {
                    self.wrong = Some(format!("swap {} begins during a pause", commit.epoch));
                }
            }
            _ => {}
        }
    }

    /// A process hears this.
    pub fn note_answer(&mut self, answer: &Answer) {
        if let Answer::Store(StoreAnswer::Merge {
            key,
            result: Err(MergeFailure { left_out, .. }),
        }) = answer
        {
            let term = term_of(key);
            let left_out = left_out.iter().map(|source| (term, source.clone()));
            self.left_out.extend(left_out);
        }
    }

    /// A merge reaches the store, which may have lost the first of its files.
    pub fn lose_a_source(&mut self, order: &MergeOrder, objects: &mut Objects) {
        if order.sources.len() > 1 && std::mem::take(&mut self.loses) {
            let key = &order.sources[0].key;
            objects.remove(key);
            self.lost = Some(key.clone());
        }
    }
}

fn term_of(key: &str) -> u64 {
    let found = Names::new("default", "t").term_and_epoch(key);
    found.expect("a name of windrow's").0
}
