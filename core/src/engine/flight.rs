//! One epoch on its way into the catalog: store its objects, check the topic, commit, find out
//! after a lost answer. What is in the epoch is not looked at here.

use super::conversation::{BrokersRequest, CatalogAnswer, CatalogRequest, StoreRequest};
use super::cut::Objects;
use super::lease::RETRY_MS;
use super::step::{Break, Step};
use super::troubles::Side;
use crate::table::commit::{CatalogError, Commit, Outcome};
use crate::values::cause::Trouble;
use crate::values::time::{DbTime, Mono};
use std::collections::BTreeMap;
use std::sync::Arc;

/// An epoch on its way.
pub(super) struct Flight {
    commit: Arc<Commit>,
    /// Objects that are not stored yet.
    puts: BTreeMap<String, Put>,
    stage: Stage,
    retry_at: Option<Mono>,
    topic: TopicCheck,
}

/// An object that is not stored yet.
struct Put {
    bytes: Arc<Vec<u8>>,
    /// A request is on its way.
    asked: bool,
}

/// Whether the topic was still the same after all of the epoch was read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum TopicCheck {
    AskAt(Mono),
    Asked,
    Same,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Objects are stored, and the topic is checked.
    Storing,
    /// The catalog was told to make the epoch true.
    Committing,
    /// The catalog's answer was lost, and it is asked what became of the epoch.
    Finding,
}

/// An epoch that is true, and since when by the database's clock.
pub(super) type Landed = (Arc<Commit>, DbTime);

impl Flight {
    /// Begins with storing the objects.
    pub(super) fn begin(commit: Commit, objects: Objects, step: &mut Step<'_>) -> Self {
        // Epoch 0 holds no record, and neither does a swap.
        let no_records = commit.genesis.is_some() || !commit.retired.is_empty();
        Self::new(commit, no_records, objects, step)
    }

    /// The same for an epoch whose objects are stored. Where it was committed once, the topic was
    /// checked then.
    pub(super) fn of_stored(commit: Commit, was_committed: bool, step: &mut Step<'_>) -> Self {
        let same = was_committed || !commit.retired.is_empty();
        Self::new(commit, same, Objects::new(), step)
    }

    fn new(commit: Commit, same: bool, objects: Objects, step: &mut Step<'_>) -> Self {
        let same = same || commit.topic_id.is_empty();
        let puts = objects.into_iter().map(|(key, bytes)| {
            (
                key,
                Put {
                    bytes,
                    asked: false,
                },
            )
        });
        let mut flight = Self {
            commit: Arc::new(commit),
            puts: puts.collect(),
            stage: Stage::Storing,
            retry_at: None,
            topic: if same {
                TopicCheck::Same
            } else {
                TopicCheck::AskAt(step.now)
            },
        };
        flight.push(step);
        flight
    }

    /// What is on its way.
    pub(super) fn commit(&self) -> &Commit {
        &self.commit
    }

    /// What the objects that are not stored yet take in memory, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.puts.values().map(|put| put.bytes.len() as u64).sum()
    }

    /// Carries the epoch on: what is not stored is stored, then the catalog is told, then asked
    /// when it was silent.
    pub(super) fn push(&mut self, step: &mut Step<'_>) {
        if self.retry_at.is_some_and(|at| step.now < at) {
            return;
        }
        let retry = self.retry_at.take().is_some();
        match self.stage {
            Stage::Storing => self.store(step),
            Stage::Committing if retry => self.send(step),
            Stage::Finding if retry => self.ask_outcome(step),
            Stage::Committing | Stage::Finding => {}
        }
    }

    /// Tells the catalog to make the epoch true; not while the clocks differ.
    fn send(&mut self, step: &mut Step<'_>) {
        if let Some(clock) = step.clock {
            self.stage = Stage::Committing;
            let commit = Arc::clone(&self.commit);
            step.ask(CatalogRequest::Commit { commit, clock });
        } else if self.stage == Stage::Committing {
            self.retry_at = Some(step.now);
        }
    }

    /// Whether the catalog was told of this epoch, so that it may be true already.
    pub(super) fn is_sent(&self) -> bool {
        self.stage != Stage::Storing
    }

    fn store(&mut self, step: &mut Step<'_>) {
        if let TopicCheck::AskAt(at) = self.topic
            && step.now >= at
            && step.questions.topic_id.due()
        {
            self.topic = TopicCheck::Asked;
            step.ask(BrokersRequest::TopicId);
        }
        if self.puts.is_empty() && self.topic == TopicCheck::Same {
            if step.questions.other_topic.is_none() {
                return self.send(step);
            }
            // Another broker has named another topic since.
            self.topic = TopicCheck::AskAt(step.now.plus(RETRY_MS));
        }
        // The manifest first, and alone: whoever comes after us finds by it what we left behind.
        let first = self.puts.contains_key(&self.commit.manifest);
        for (key, put) in &mut self.puts {
            if !put.asked && (!first || *key == self.commit.manifest) {
                put.asked = true;
                step.ask(StoreRequest::Put {
                    key: key.clone(),
                    bytes: Arc::clone(&put.bytes),
                });
            }
        }
    }

    fn ask_outcome(&self, step: &mut Step<'_>) {
        let epoch = self.commit.epoch;
        step.ask(CatalogRequest::Outcome { epoch });
    }

    fn retry_later(&mut self, side: Side, trouble: impl Into<Trouble>, step: &mut Step<'_>) {
        self.retry_at = Some(step.now.plus(RETRY_MS));
        step.troubles.report(side, trouble);
    }

    /// The credentials have changed: what failed is tried again at once.
    pub(super) fn retry_now(&mut self, step: &mut Step<'_>) {
        if let Some(at) = &mut self.retry_at {
            *at = step.now;
        }
        if let TopicCheck::AskAt(at) = &mut self.topic {
            *at = step.now;
        }
        self.push(step);
    }

    /// The store answered.
    pub(super) fn stored(&mut self, key: &str, result: Result<(), Trouble>, step: &mut Step<'_>) {
        let Some(put) = self.puts.get_mut(key) else {
            return;
        };
        match result {
            Ok(()) => {
                self.puts.remove(key);
                if self.puts.is_empty() {
                    step.troubles.end(Side::Store);
                }
                self.push(step);
            }
            Err(trouble) => {
                put.asked = false;
                self.retry_later(Side::Store, trouble, step);
            }
        }
    }

    /// Whether the brokers were asked what the topic is, and have not answered.
    pub(super) fn has_asked_topic(&self) -> bool {
        self.topic == TopicCheck::Asked
    }

    /// The topic was still the same after all of the epoch was read.
    pub(super) fn topic_is_same(&mut self, step: &mut Step<'_>) {
        self.topic = TopicCheck::Same;
        step.troubles.end(Side::TopicId);
        self.push(step);
    }

    /// The brokers could not say whether the topic is still the same, so they are asked again.
    pub(super) fn check_topic_later(&mut self, why: Trouble, step: &mut Step<'_>) {
        self.topic = TopicCheck::AskAt(step.now.plus(RETRY_MS));
        step.troubles.report(Side::TopicId, why);
    }

    /// The catalog answered the commit, or what became of it. Other answers say nothing here.
    /// Returns the epoch once it is true.
    pub(super) fn catalog_answered(
        &mut self,
        answer: CatalogAnswer,
        step: &mut Step<'_>,
    ) -> Result<Option<Landed>, Break> {
        match answer {
            CatalogAnswer::Commit { epoch, result } => self.committed(epoch, result, step),
            CatalogAnswer::Outcome { epoch, result } => self.found(epoch, result, step),
            _ => Ok(None),
        }
    }

    /// The catalog answered the commit.
    fn committed(
        &mut self,
        epoch: u64,
        result: Result<DbTime, CatalogError>,
        step: &mut Step<'_>,
    ) -> Result<Option<Landed>, Break> {
        if self.commit.epoch != epoch || self.stage != Stage::Committing {
            return Ok(None);
        }
        match result {
            Ok(at) => return Ok(Some((Arc::clone(&self.commit), at))),
            Err(CatalogError::Fenced(why)) => return Err(Break::Fenced(why)),
            Err(CatalogError::Stop(why)) => return Err(Break::Fail(why)),
            Err(CatalogError::Retry(trouble)) => self.retry_later(Side::Commit, trouble, step),
            Err(CatalogError::Unknown(why)) => {
                self.stage = Stage::Finding;
                self.ask_outcome(step);
                step.troubles.report(Side::Commit, why);
            }
        }
        Ok(None)
    }

    /// The catalog answered what became of the epoch.
    fn found(
        &mut self,
        epoch: u64,
        result: Result<Outcome, CatalogError>,
        step: &mut Step<'_>,
    ) -> Result<Option<Landed>, Break> {
        if self.commit.epoch != epoch || self.stage != Stage::Finding {
            return Ok(None);
        }
        match result {
            Ok(Outcome::Committed {
                digest,
                committed_at,
            }) if digest == self.commit.digest => {
                return Ok(Some((Arc::clone(&self.commit), committed_at)));
            }
            Ok(Outcome::Committed { .. }) => {
                return Err(Break::Fenced(format!("epoch {epoch} is another owner's")));
            }
            Ok(Outcome::Absent) => {
                self.stage = Stage::Committing;
                self.send(step);
            }
            Err(CatalogError::Fenced(why)) => return Err(Break::Fenced(why)),
            Err(error) => self.retry_later(Side::Commit, error, step),
        }
        Ok(None)
    }
}
