//! What comes before everything else where a table has epochs: the store may have epochs after the
//! journal's last one, and these are committed again. A failover or a restored backup has lost
//! them, or their owner died just before the commit. Which epoch is next is decided in `chain`.
//!
//! ```text
//! ListPage(manifests)                which epochs after 119 are there?   those up to 8640
//! Get(manifest of 120)               it follows the digest of 119
//! Check(files of 120)                all are there, with their hashes
//! Doomed(keys of 120)                none of them is to be deleted
//! Commit(120)                        by us; its digest and its manifest stay as they are
//! ...
//! Acquire                            the table is read anew, and opened
//! ```
//!
//! Until that is done nothing is searched for orphans, and nothing is deleted. After a crash
//! half-way the next owner goes on from the epoch that was committed last.

use super::chain::{Chain, Next};
use super::conversation::{CatalogAnswer, CatalogRequest, Effect, StoreRequest};
use super::flight::{Flight, Landed};
use super::lease::RETRY_MS;
use super::manifest_pages::ManifestPages;
use super::step::{Break, Step};
use super::table::Table;
use super::topic::{Identity, Topic};
use super::troubles::Side;
use crate::table::commit::{CatalogError, Commit, Head, Owner};
use crate::table::manifest::{self, wanted_objects};
use crate::values::cause::{Cause, Trouble};
use crate::values::object::ObjectPage;
use crate::values::time::{DbTime, Mono};

/// So many manifests and their objects are asked for at a time.
const ON_THEIR_WAY_MAX: usize = 8;
/// Between two texts that say how far it is.
const SAY_EVERY_MS: u64 = 5000;

/// The chain is followed.
pub(super) struct Following {
    owner: Owner,
    /// What the catalog has, with all that was committed since.
    head: Box<Head>,
    /// The table as of the last commit, still without lanes.
    table: Box<Table>,
    chain: Chain,
    stage: Stage,
    /// How many epochs were committed again.
    followed: u64,
    /// When it was said last how far it is.
    said_at: Option<Mono>,
}

/// What is being done.
enum Stage {
    /// The store is asked which manifests it has.
    Listing(ManifestPages),
    /// Manifests are looked at.
    Looking {
        /// What failed is not asked again before this time.
        pause_until: Option<Mono>,
        /// Up to which epoch they are needed.
        look_to: u64,
    },
    /// An epoch is being committed.
    Committing(Box<Flight>),
}

/// What came of it.
pub(super) enum Followed {
    /// It goes on.
    NotYet,
    /// Nothing follows, and the table is as it was.
    Nothing(Box<Head>),
}

impl Following {
    /// The table has become ours.
    pub(super) fn begin(owner: Owner, head: Box<Head>, step: &mut Step<'_>) -> Self {
        Self {
            owner,
            table: Box::new(Table::at_head(&head)),
            chain: Chain::after(&head.last),
            head,
            stage: Stage::Listing(ManifestPages::begin(step)),
            followed: 0,
            said_at: None,
        }
    }

    /// The table as of the last commit.
    pub(super) fn table(&self) -> &Table {
        &self.table
    }

    /// The last epoch that is true.
    pub(super) fn last_epoch(&self) -> u64 {
        self.head.last.epoch
    }

    /// Whether the catalog was told of an epoch, so that it may be true already.
    pub(super) fn is_sent(&self) -> bool {
        matches!(&self.stage, Stage::Committing(flight) if flight.is_sent())
    }

    /// Time has gone on: asks again what could not be answered.
    pub(super) fn tick(&mut self, step: &mut Step<'_>) -> Result<Followed, Break> {
        match &mut self.stage {
            Stage::Listing(pages) => pages.tick(step),
            Stage::Looking { pause_until, .. } => {
                if pause_until.take_if(|at| step.now >= *at).is_some() {
                    return self.go_on(step);
                }
            }
            Stage::Committing(flight) => flight.push(step),
        }
        Ok(Followed::NotYet)
    }

    /// The credentials have changed: what failed is asked again at once.
    pub(super) fn retry_now(&mut self, step: &mut Step<'_>) {
        match &mut self.stage {
            Stage::Listing(pages) => pages.retry_now(step),
            Stage::Looking { pause_until, .. } => {
                if let Some(at) = pause_until {
                    *at = step.now;
                }
            }
            Stage::Committing(flight) => flight.retry_now(step),
        }
    }

    /// The store has listed a page of manifests, behind the text that it was asked with; `None`
    /// when the answer does not count.
    pub(super) fn take_page(
        &mut self,
        answer: Option<(Option<&str>, Result<ObjectPage, Trouble>)>,
        step: &mut Step<'_>,
    ) -> Result<Followed, Break> {
        let Stage::Listing(pages) = &mut self.stage else {
            return Ok(Followed::NotYet);
        };
        let Some(page) = pages.take(answer, step) else {
            return Ok(Followed::NotYet);
        };
        step.troubles.end(Side::Store);
        if let Some(next) = self.chain.take_page(&page, step.names) {
            pages.go_on(next, step);
            return Ok(Followed::NotYet);
        }
        self.look(0);
        self.go_on(step)
    }

    fn look(&mut self, look_to: u64) {
        self.stage = Stage::Looking {
            pause_until: None,
            look_to,
        };
    }

    /// Commits what comes next, or looks at what must be known for that.
    fn go_on(&mut self, step: &mut Step<'_>) -> Result<Followed, Break> {
        let Stage::Looking {
            pause_until: None,
            look_to,
        } = &mut self.stage
        else {
            return Ok(Followed::NotYet);
        };
        let next = self.chain.next();
        if let Next::Look(to) = next {
            *look_to = to;
        }
        let look_to = *look_to;
        match next {
            Next::Look(_) => {}
            // The end of the process waits for one epoch at most.
            Next::Commit { .. } if step.ending => return Ok(Followed::NotYet),
            Next::Commit {
                commit,
                was_committed,
            } => self.commit(*commit, was_committed, step),
            Next::End => return self.end(step),
        }
        for key in self.chain.take_due(look_to, ON_THEIR_WAY_MAX) {
            step.ask(StoreRequest::Get { key });
        }
        Ok(Followed::NotYet)
    }

    fn commit(&mut self, mut commit: Commit, was_committed: bool, step: &mut Step<'_>) {
        if self
            .said_at
            .is_none_or(|at| step.now.since(at) >= SAY_EVERY_MS)
        {
            self.said_at = Some(step.now);
            let until = self.chain.until().unwrap_or(commit.epoch);
            let why = format!("following the chain: epoch {} of {until}", commit.epoch);
            step.troubles
                .report(Side::Chain, Trouble::new(Cause::Following, why));
        }
        commit.owner = self.owner.clone();
        let flight = Flight::of_stored(commit, was_committed, step);
        self.stage = Stage::Committing(Box::new(flight));
    }

    /// The chain has ended. Where it had epochs, the table is read anew.
    fn end(&mut self, step: &mut Step<'_>) -> Result<Followed, Break> {
        step.troubles.end(Side::Chain);
        if self.followed > 0 {
            return Err(Break::TakeAgain);
        }
        if let Some((first, last, why)) = self.chain.lost() {
            step.effect(Effect::ReportLostEpochs { first, last, why });
        }
        Ok(Followed::Nothing(self.head.clone()))
    }

    /// The store answered with the object of this key, if it has one.
    pub(super) fn take_manifest(
        &mut self,
        key: &str,
        result: Result<Option<Vec<u8>>, Trouble>,
        step: &mut Step<'_>,
    ) -> Result<Followed, Break> {
        let bytes = match result {
            Ok(bytes) => bytes,
            Err(trouble) => return Ok(self.look_later(key, Side::Store, trouble, step)),
        };
        step.troubles.end(Side::Store);
        let gone = || "it is gone".to_owned();
        let read = bytes.ok_or_else(gone);
        let read = read.and_then(|bytes| manifest::read(key, &bytes, step.names));
        if let Some(commit) = self.chain.fetched(key, read) {
            let objects = wanted_objects(commit);
            let manifest = key.to_owned();
            step.ask(StoreRequest::Check { manifest, objects });
        }
        self.go_on(step)
    }

    /// The store says whether all objects of a manifest are there.
    pub(super) fn take_check(
        &mut self,
        key: &str,
        result: Result<Option<String>, Trouble>,
        step: &mut Step<'_>,
    ) -> Result<Followed, Break> {
        let wrong = match result {
            Ok(wrong) => wrong,
            Err(trouble) => return Ok(self.look_later(key, Side::Store, trouble, step)),
        };
        if let Some(keys) = self.chain.checked(key, wrong) {
            let manifest = key.to_owned();
            step.ask(CatalogRequest::Doomed { manifest, keys });
        }
        self.go_on(step)
    }

    /// The catalog says which objects of a manifest are doomed.
    pub(super) fn take_doomed(
        &mut self,
        key: &str,
        result: Result<Vec<String>, CatalogError>,
        step: &mut Step<'_>,
    ) -> Result<Followed, Break> {
        match result {
            Ok(doomed) => self.chain.judged(key, &doomed),
            Err(error) => return Ok(self.look_later(key, Side::Catalog, error, step)),
        }
        self.go_on(step)
    }

    /// A question about a manifest failed: it is looked at once more a little later.
    fn look_later(
        &mut self,
        key: &str,
        side: Side,
        trouble: impl Into<Trouble>,
        step: &mut Step<'_>,
    ) -> Followed {
        self.chain.look_again(key);
        step.troubles.report(side, trouble);
        if let Stage::Looking { pause_until, .. } = &mut self.stage {
            *pause_until = Some(step.now.plus(RETRY_MS));
        }
        Followed::NotYet
    }

    /// The brokers say what the topic is now. An epoch that may never have been committed counts
    /// only if the topic is still the one that it was read from: its owner may have died before it
    /// asked that itself.
    pub(super) fn topic_checked(
        &mut self,
        answer: Result<String, Trouble>,
        step: &mut Step<'_>,
    ) -> Result<Followed, Break> {
        let Stage::Committing(flight) = &mut self.stage else {
            return Ok(Followed::NotYet);
        };
        if !flight.has_asked_topic() {
            return Ok(Followed::NotYet);
        }
        let head = Head {
            last: flight.commit().clone(),
            ..*self.head.clone()
        };
        let topic = Topic::at_head(&head, step);
        match answer.map(|id| topic.identify(&id, "", step)) {
            Ok(Identity::Same) => flight.topic_is_same(step),
            Ok(Identity::Other(what)) => {
                let why = format!("topic \"{}\" {what}", step.rules.shape.topic);
                self.chain.leave_out(&head.last.manifest, why);
                step.troubles.end(Side::TopicId);
                self.look(0);
                return self.go_on(step);
            }
            Ok(Identity::Unknown(why)) | Err(why) => flight.check_topic_later(why, step),
        }
        Ok(Followed::NotYet)
    }

    /// The catalog answered the commit, or what became of it. Returns when the epoch was committed,
    /// if it is true now.
    pub(super) fn catalog_answered(
        &mut self,
        answer: CatalogAnswer,
        step: &mut Step<'_>,
    ) -> Result<Option<DbTime>, Break> {
        let Stage::Committing(flight) = &mut self.stage else {
            return Ok(None);
        };
        let landed = flight.catalog_answered(answer, step)?;
        Ok(landed.map(|landed| self.land(landed, step)))
    }

    fn land(&mut self, (commit, at): Landed, step: &mut Step<'_>) -> DbTime {
        step.troubles.end(Side::Commit);
        self.followed += 1;
        self.chain.note_commit(&commit);
        (self.head.last, self.head.committed_at) = ((*commit).clone(), at);
        *self.table = Table::at_head(&self.head);
        step.effect(Effect::Report(commit));
        self.look(0);
        at
    }

    /// After an epoch has landed: the next one.
    pub(super) fn landed(&mut self, step: &mut Step<'_>) -> Result<Followed, Break> {
        self.go_on(step)
    }
}
