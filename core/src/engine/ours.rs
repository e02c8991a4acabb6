//! The table while it is ours: the lease, the clocks, the garbage, and how far counting is.
//! Each of these owns its state; here is only who is told what.

use super::clocks::Clocks;
use super::conversation::{
    Answer, BrokersAnswer, CatalogAnswer, CatalogRequest, Input, StoreAnswer,
};
use super::counting::Counting;
use super::fold::Folding;
use super::following::{Followed, Following};
use super::garbage::{Garbage, Watch};
use super::lease::{Lease, Renewal};
use super::opening::Opening;
use super::questions::Counts;
use super::reading::Reading;
use super::rules::same_table;
use super::stall::Stall;
use super::step::{Break, Going, Step};
use super::table::Table;
use super::troubles::Side;
use super::upkeep::UpkeepView;
use crate::table::commit::{CatalogError, ClockBound, Head, Renewed};
use crate::table::place::Place;
use crate::values::cause::Cause;
use crate::values::time::Mono;

/// A table that is ours.
pub(super) struct Ours {
    place: Place,
    lease: Lease,
    clocks: Clocks,
    garbage: Garbage,
    folding: Folding,
    /// The last epoch when the table became ours; `None` for a table that had none.
    last_epoch: Option<u64>,
    stage: Stage,
}

/// How far we are with it.
#[expect(
    clippy::large_enum_variant,
    reason = "there is one of it, and `Ours` is in a box already"
)]
enum Stage {
    /// Epochs that the store has and the catalog has not are committed again.
    Following(Following),
    /// What must be known before counting begins is being asked.
    Opening(Opening),
    /// Epoch 0 is on its way, or records are read, replays included.
    Counting(Counting),
}

impl Ours {
    /// The table has become ours. `head` is what the catalog says of a table that has epochs.
    ///
    /// # Errors
    /// The recorded table is not the one that the settings ask for.
    pub(super) fn begin(
        place: Place,
        lease: Lease,
        clocks: Clocks,
        head: Option<Box<Head>>,
        step: &mut Step<'_>,
    ) -> Result<Self, Break> {
        if let Some(head) = &head
            && let Err(why) = same_table(&head.genesis, step.rules, &place)
        {
            return Err(Break::Fail(why));
        }
        let last_epoch = head.as_ref().map(|head| head.last.epoch);
        let stage = match head {
            Some(head) => Stage::Following(Following::begin(lease.owner().clone(), head, step)),
            None => Stage::Opening(Opening::begin(None, step)),
        };
        Ok(Self {
            place,
            clocks,
            last_epoch,
            garbage: Garbage::new(lease.owner().clone(), step.now),
            folding: Folding::new(lease.owner().clone(), step.now),
            lease,
            stage,
        })
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// The request that gives the table back.
    pub(super) fn release(&self) -> CatalogRequest {
        CatalogRequest::Release {
            owner: self.lease.owner().clone(),
        }
    }

    /// The table as it is counted, or as of its last commit while it is restored.
    pub(super) fn table(&self) -> Option<&Table> {
        match &self.stage {
            Stage::Following(following) => Some(following.table()),
            Stage::Opening(opening) => opening.table(),
            Stage::Counting(counting) => Some(counting.table()),
        }
    }

    /// What is known of the reading of each topic partition.
    pub(super) fn reading(&self) -> Option<&Reading> {
        match &self.stage {
            Stage::Following(_) | Stage::Opening(_) => None,
            Stage::Counting(counting) => Some(counting.reading()),
        }
    }

    /// What garbage collection must know.
    fn watch(&self) -> Watch {
        Watch {
            last_epoch: self
                .table()
                .and_then(|table| table.next_epoch().checked_sub(1)),
            in_hand: match &self.stage {
                Stage::Following(_) | Stage::Opening(_) => Vec::new(),
                Stage::Counting(counting) => {
                    let mut keys = counting.files_in_hand();
                    keys.extend(self.folding.in_hand());
                    keys
                }
            },
        }
    }

    /// Merges what can be merged now, also what failed before.
    pub(super) fn hurry_upkeep(&mut self, step: &mut Step<'_>) {
        if let Some(counting) = self.stage.counting() {
            counting.hurry_upkeep(step);
        }
    }

    /// What the upkeep of the files is doing; `None` before counting begins.
    pub(super) fn upkeep(&self, now: Mono) -> Option<UpkeepView> {
        match &self.stage {
            Stage::Following(_) | Stage::Opening(_) => None,
            Stage::Counting(counting) => Some(counting.upkeep(now)),
        }
    }

    /// Whether the frontier moves.
    pub(super) fn stall(&self) -> Option<&Stall> {
        match &self.stage {
            Stage::Following(_) | Stage::Opening(_) => None,
            Stage::Counting(counting) => Some(counting.stall()),
        }
    }

    /// The memory that counting takes, in bytes.
    pub(super) fn memory_bytes(&self) -> u64 {
        match &self.stage {
            Stage::Following(_) | Stage::Opening(_) => 0,
            Stage::Counting(counting) => counting.memory_bytes(),
        }
    }

    /// Whether records are read, replays included.
    pub(super) fn is_counting(&self) -> bool {
        matches!(&self.stage, Stage::Counting(counting) if !counting.is_founding())
    }

    /// Whether an epoch is on its way into the catalog.
    pub(super) fn is_committing(&self) -> bool {
        match &self.stage {
            Stage::Following(following) => following.is_sent(),
            Stage::Opening(_) => false,
            Stage::Counting(counting) => counting.is_committing(),
        }
    }

    /// Whether an epoch is on its way that the end of the process should wait for. One that is not
    /// sent before the clocks agree again is not.
    pub(super) fn is_worth_waiting(&self) -> bool {
        match &self.stage {
            Stage::Following(following) => following.is_sent(),
            Stage::Opening(_) => false,
            Stage::Counting(counting) => {
                counting.is_sent() || (counting.is_committing() && !self.clocks.are_apart())
            }
        }
    }

    /// By which clock records are judged, and what is written is written; `None` while the clocks
    /// differ. And by how much they do.
    pub(super) fn clock(&self) -> (Option<ClockBound>, u64) {
        self.clocks.bound()
    }

    /// Time has gone on.
    pub(super) fn tick(&mut self, step: &mut Step<'_>) -> Going {
        let were_apart = self.clocks.are_apart();
        self.clocks.tick(step.now, step.wall);
        if self.clocks.are_apart() && !were_apart {
            // Maybe the machine slept: what was heard of the database's clock is then of before.
            self.lease.renew_now(step);
        }
        self.clocks_compared(were_apart, step)?;
        match &mut self.stage {
            Stage::Following(following) => {
                let followed = following.tick(step)?;
                self.stage.followed(followed, step);
            }
            Stage::Opening(opening) => opening.tick(step),
            Stage::Counting(counting) if counting.is_founding() => {}
            Stage::Counting(counting) => counting.tick(step),
        }
        self.lease.tick(step);
        let has_epochs = self.table().is_some_and(|table| table.next_epoch() > 0);
        // What the chain still needs is no garbage.
        let is_followed = !matches!(self.stage, Stage::Following(_));
        self.garbage.tick(has_epochs && is_followed, step);
        if self.is_counting() {
            self.folding.tick(step);
        }
        if let Some(counting) = self.stage.counting() {
            counting.push(step);
        }
        Ok(())
    }

    /// The clocks were compared: says what hinders, goes on where they agree again, and gives the
    /// table back where they have differed for longer than a lease.
    fn clocks_compared(&mut self, were_apart: bool, step: &mut Step<'_>) -> Going {
        (step.clock, step.clocks_differ_ms) = self.clocks.bound();
        if let Some(why) = self.clocks.trouble() {
            if self.clocks.are_apart_for(self.lease.length_ms()) {
                return Err(Break::ClocksApart(why.clone()));
            }
            step.troubles.report(Side::Clocks, why.clone());
        }
        if were_apart && !self.clocks.are_apart() {
            step.troubles.end(Side::Clocks);
            if let Some(counting) = self.stage.reading() {
                counting.start_lanes(step);
            }
        }
        Ok(())
    }

    /// The credentials have changed: what failed is tried again at once.
    pub(super) fn retry_now(&mut self, step: &mut Step<'_>) {
        self.lease.retry_now(step);
        match &mut self.stage {
            Stage::Following(following) => following.retry_now(step),
            Stage::Opening(opening) => opening.retry_now(step),
            Stage::Counting(counting) => counting.retry_now(step),
        }
    }

    /// Hands on what the reader says. Before counting begins it has nothing to say.
    pub(super) fn reader_says(&mut self, input: Input<'_>, step: &mut Step<'_>) -> Going {
        let Some(counting) = self.stage.reading() else {
            return Ok(());
        };
        match input {
            Input::Records {
                partition,
                leader_epoch,
                batch,
            } => {
                return counting.records(partition, leader_epoch, batch, step);
            }
            Input::End { partition, offset } => counting.end(partition, offset, step),
            Input::OutOfRange { partition } => counting.out_of_range(partition, step),
            Input::Truncated {
                partition,
                cut_at,
                why,
            } => return counting.truncated(partition, cut_at, why, step),
            Input::Trouble {
                partition: Some(partition),
                trouble,
            } => counting.trouble(partition, trouble, step),
            Input::Reopened => counting.reopened(step),
            _ => {}
        }
        Ok(())
    }

    /// After each input: looks for a lane that takes no further record. Returns why counting should
    /// end, where a record cannot be counted.
    pub(super) fn settle(&mut self, step: &mut Step<'_>) -> Result<Option<String>, Break> {
        match self.stage.reading() {
            Some(counting) => counting.settle(step),
            None => Ok(None),
        }
    }

    /// Commits what is due.
    pub(super) fn commit_what_is_due(&mut self, step: &mut Step<'_>) -> Going {
        match self.stage.reading() {
            Some(counting) => counting.commit_what_is_due(step),
            None => Ok(()),
        }
    }

    /// The lease was renewed, or not.
    pub(super) fn renewed(
        &mut self,
        answer: Result<Renewed, CatalogError>,
        step: &mut Step<'_>,
    ) -> Going {
        match answer {
            Ok(renewed) => {
                step.troubles.end(Side::Catalog);
                match self.lease.renewed(step) {
                    Renewal::GoesOn { asked_at } => {
                        step.troubles.end(Side::Lease);
                        self.check_last_epoch(renewed.last_epoch)?;
                        let were_apart = self.clocks.are_apart();
                        self.clocks.hear(renewed.now, asked_at, step);
                        if self.clocks.are_apart() {
                            self.lease.renew_soon(step);
                        }
                        self.clocks_compared(were_apart, step)
                    }
                    Renewal::CatalogLost(why) => Err(Break::Fail(why)),
                }
            }
            Err(CatalogError::Fenced(why)) => Err(Break::Fenced(why)),
            Err(error) => {
                step.troubles.report(Side::Catalog, error);
                self.lease.not_renewed(step);
                Ok(())
            }
        }
    }

    /// The journal's last epoch must be ours, also while there is nothing to commit: a database
    /// that failed over or was restored may have lost epochs, and its readers then see less than we
    /// say. While a commit of ours is on its way, its epoch may be there or not.
    fn check_last_epoch(&self, found: Option<u64>) -> Going {
        let (ours, sent) = match &self.stage {
            Stage::Following(following) => (Some(following.last_epoch()), following.is_sent()),
            Stage::Opening(_) => (self.last_epoch, false),
            Stage::Counting(counting) => (counting.last_epoch(), counting.is_sent()),
        };
        let next = ours.map_or(0, |last| last + 1);
        if found == ours || (sent && found == Some(next)) {
            return Ok(());
        }
        let name = |epoch: Option<u64>| {
            epoch.map_or("no epoch".to_owned(), |epoch| format!("epoch {epoch}"))
        };
        Err(Break::Reload(format!(
            "the catalog's last epoch is not ours: it has {}, and we have {}; was the database \
             restored, or has a failover lost commits? reading the journal again",
            name(found),
            name(ours)
        )))
    }

    /// Hands on an answer to whoever asked.
    pub(super) fn answered(
        &mut self,
        answer: Answer,
        counts: Counts,
        step: &mut Step<'_>,
    ) -> Going {
        match answer {
            Answer::Catalog(answer) => self.catalog_answered(answer, step),
            Answer::Brokers(answer) => self.brokers_answered(answer, counts, step),
            Answer::Store(answer) => self.store_answered(answer, counts, step),
        }
    }

    fn catalog_answered(&mut self, answer: CatalogAnswer, step: &mut Step<'_>) -> Going {
        match answer {
            CatalogAnswer::Commit { .. } | CatalogAnswer::Outcome { .. } => {
                if let CatalogAnswer::Commit {
                    result: Err(CatalogError::Retry(why)),
                    ..
                } = &answer
                    && why.cause == Some(Cause::Clocks)
                {
                    self.lease.renew_now(step);
                }
                let committed_at = match &mut self.stage {
                    Stage::Following(following) => following.catalog_answered(answer, step)?,
                    Stage::Opening(_) => None,
                    Stage::Counting(counting) => counting.catalog_answered(answer, step)?,
                };
                if let Some(at) = committed_at {
                    self.clocks.note_commit(at);
                    if let Stage::Following(following) = &mut self.stage {
                        let followed = following.landed(step)?;
                        self.stage.followed(followed, step);
                    }
                }
            }
            CatalogAnswer::Doomed { manifest, result } => {
                if let Stage::Following(following) = &mut self.stage {
                    let followed = following.take_doomed(&manifest, result, step)?;
                    self.stage.followed(followed, step);
                }
            }
            CatalogAnswer::Doom(result) => self.garbage.doomed(&result, step),
            CatalogAnswer::DoomedPast { after, result } => {
                self.garbage.delete(after.as_deref(), result, step);
            }
            // A key that could not be taken off the list is deleted once more.
            CatalogAnswer::Forget(_) => {}
            CatalogAnswer::LiveFiles(result) => {
                if let Some(counting) = self.stage.counting() {
                    counting.take_files(result, step);
                }
            }
            // It is asked again a little later in any case.
            CatalogAnswer::DropEmptied(_) | CatalogAnswer::DropDays(_) => {}
            CatalogAnswer::Foldable(result) => {
                let counting = self.stage.counting();
                let log_starts = counting.map(|counting| counting.log_starts().clone());
                self.folding
                    .take(result, log_starts.unwrap_or_default(), step);
            }
            CatalogAnswer::Fold(result) => self.folding.folded(&result, step),
            // These are the engine's.
            CatalogAnswer::Locate(_) | CatalogAnswer::Acquire(_) | CatalogAnswer::Renew(_) => {}
        }
        Ok(())
    }

    fn brokers_answered(
        &mut self,
        answer: BrokersAnswer,
        counts: Counts,
        step: &mut Step<'_>,
    ) -> Going {
        match (answer, &mut self.stage) {
            (BrokersAnswer::Topic(answer), Stage::Opening(opening)) => {
                let answer = (counts == Counts::Yes).then_some(answer);
                let opened = opening.take_topic(answer, &self.lease, step)?;
                self.stage.open(opened);
            }
            // An answer to an earlier ownership came in the place of ours, which is asked for next.
            (BrokersAnswer::TopicId(_), _) if counts == Counts::No => {}
            (BrokersAnswer::TopicId(answer), Stage::Counting(counting)) => {
                return counting.topic_checked(answer, step);
            }
            (BrokersAnswer::TopicId(answer), Stage::Following(following)) => {
                let followed = following.topic_checked(answer, step)?;
                self.stage.followed(followed, step);
            }
            // Before epoch 0 is true, nothing else is asked.
            (_, Stage::Counting(counting)) if counting.is_founding() => {}
            (BrokersAnswer::Topic(answer), Stage::Counting(counting)) => {
                return counting.take_topic((counts == Counts::Yes).then_some(answer), step);
            }
            (BrokersAnswer::LogEnd { partition, end }, Stage::Counting(counting)) => {
                if let Counts::AskedAt(asked_at) = counts {
                    counting.take_log_end(partition, asked_at, end, step);
                }
            }
            (BrokersAnswer::LogLimits { partition, limits }, Stage::Counting(counting)) => {
                counting.take_limits(partition, limits, step);
            }
            (_, Stage::Following(_) | Stage::Opening(_)) => {}
        }
        Ok(())
    }

    fn store_answered(
        &mut self,
        answer: StoreAnswer,
        counts: Counts,
        step: &mut Step<'_>,
    ) -> Going {
        match (answer, &mut self.stage) {
            (
                StoreAnswer::ListPage {
                    prefix,
                    after,
                    result,
                },
                stage,
            ) if prefix == step.names.manifests() => {
                let page = (counts == Counts::Yes).then_some((after.as_deref(), result));
                match stage {
                    Stage::Following(following) => {
                        let followed = following.take_page(page, step)?;
                        stage.followed(followed, step);
                    }
                    Stage::Opening(opening) => {
                        let opened =
                            opening.take_manifests(page, &self.place, &mut self.lease, step)?;
                        stage.open(opened);
                    }
                    Stage::Counting(_) => {}
                }
            }
            (StoreAnswer::ListPage { after, result, .. }, _) => {
                let watch = self.watch();
                self.garbage.listed(after.as_deref(), result, watch, step);
            }
            (StoreAnswer::Get { key, result }, Stage::Following(following)) => {
                let followed = following.take_manifest(&key, result, step)?;
                self.stage.followed(followed, step);
            }
            (StoreAnswer::Check { manifest, result }, Stage::Following(following)) => {
                let followed = following.take_check(&manifest, result, step)?;
                self.stage.followed(followed, step);
            }
            (StoreAnswer::Get { key, result }, Stage::Opening(opening)) => {
                let answer = (counts == Counts::Yes).then_some(result);
                let opened = opening.take_checkpoint(&key, answer, &self.lease, step)?;
                self.stage.open(opened);
            }
            (StoreAnswer::Put { key, result }, Stage::Counting(counting)) => {
                self.folding.stored(&key, &result, step);
                counting.stored(&key, result, step);
            }
            (StoreAnswer::Delete { gone, kept }, _) => self.garbage.deleted(gone, &kept, step),
            (StoreAnswer::Merge { key, result }, Stage::Counting(counting)) => {
                counting.merged(&key, result, step);
            }
            (
                StoreAnswer::Get { .. }
                | StoreAnswer::Check { .. }
                | StoreAnswer::Put { .. }
                | StoreAnswer::Merge { .. }
                | StoreAnswer::AbortUploads(_),
                _,
            ) => {}
        }
        Ok(())
    }
}

impl Stage {
    fn counting(&mut self) -> Option<&mut Counting> {
        match self {
            Stage::Following(_) | Stage::Opening(_) => None,
            Stage::Counting(counting) => Some(counting),
        }
    }

    /// The chain is followed. Where that is done, the table is opened.
    fn followed(&mut self, followed: Followed, step: &mut Step<'_>) {
        if let Followed::Nothing(head) = followed {
            *self = Stage::Opening(Opening::begin(Some(head), step));
        }
    }

    /// What is counted once epoch 0 is true, so that records may be read.
    fn reading(&mut self) -> Option<&mut Counting> {
        self.counting().filter(|counting| !counting.is_founding())
    }

    /// Counting begins, where all that it needs is known.
    fn open(&mut self, opened: Option<Counting>) {
        if let Some(counting) = opened {
            *self = Stage::Counting(counting);
        }
    }
}
