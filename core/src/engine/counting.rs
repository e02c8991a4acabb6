//! Counting: what one input means for the table, the topic, the reading and the epoch on its way.
//! Each of these owns its state; here is only who is told what, and in which order.

mod losses;

use super::conversation::{CatalogAnswer, Effect, LogEnd, TopicFacts};
use super::cut::{Cut, cut, cut_swap};
use super::flight::{Flight, Landed};
use super::lease::RETRY_MS;
use super::memory::{Memory, committable};
use super::merge_order::MergeFailure;
use super::reading::Reading;
use super::stall::Stall;
use super::step::{Break, Going, Step};
use super::table::Table;
use super::topic::{Identity, TOPIC_EVERY_MS, Topic, ask_topic, with_partitions};
use super::troubles::Side;
use super::upkeep::{Upkeep, UpkeepView};
use crate::count::merger;
use crate::table::commit::{CatalogError, Genesis, LiveFile, NewFile, Owner};
use crate::values::cause::Trouble;
use crate::values::decision::FloorReason;
use crate::values::record::{Batch, Offset, Partition};
use crate::values::time::{DbTime, Mono};
use std::collections::BTreeMap;

/// A table that is counted, or whose epoch 0 is on its way.
pub(super) struct Counting {
    owner: Owner,
    table: Table,
    topic: Topic,
    reading: Reading,
    stall: Stall,
    memory: Memory,
    upkeep: Upkeep,
    /// At most one epoch is on its way at a time.
    flight: Option<Flight>,
}

impl Counting {
    /// A table without epochs: epoch 0 is on its way before a record is read.
    pub(super) fn found(
        owner: Owner,
        genesis: Genesis,
        step: &mut Step<'_>,
    ) -> Result<Self, Break> {
        let table = Table::founded(&genesis.start_offsets, step);
        let topic = Topic::founded(&genesis, step);
        let reading = Reading::default();
        let mut counting = Self {
            upkeep: Upkeep::new(owner.clone(), step.now),
            owner,
            table,
            topic,
            reading,
            stall: Stall::new(step.now),
            memory: Memory::default(),
            flight: None,
        };
        for partition in genesis.start_offsets.keys() {
            counting.reading.add(*partition, step.now);
        }
        counting.cut(Some(genesis), step)?;
        Ok(counting)
    }

    /// A table with epochs: its lanes are replayed from the checkpoint. Before anything is read, it
    /// is seen whether the topic is another one of the same name.
    pub(super) fn resume(
        owner: Owner,
        table: Table,
        topic: Topic,
        facts: &TopicFacts,
        step: &mut Step<'_>,
    ) -> Result<Self, Break> {
        let mut counting = Self {
            upkeep: Upkeep::new(owner.clone(), step.now),
            owner,
            table,
            topic,
            reading: Reading::default(),
            stall: Stall::new(step.now),
            memory: Memory::default(),
            flight: None,
        };
        for partition in counting.table.lanes().keys() {
            counting.reading.add(*partition, step.now);
        }
        match counting.topic.other(facts) {
            Some(what) => counting.begin_generation(&what, facts, step)?,
            None => counting.compare_topic(facts, step)?,
        }
        Ok(counting)
    }

    /// Where the topic's logs began when it was looked up last; none before that.
    pub(super) fn log_starts(&self) -> &BTreeMap<Partition, Offset> {
        self.topic.log_starts()
    }

    pub(super) fn table(&self) -> &Table {
        &self.table
    }

    pub(super) fn reading(&self) -> &Reading {
        &self.reading
    }

    /// Whether the frontier moves.
    pub(super) fn stall(&self) -> &Stall {
        &self.stall
    }

    /// The memory that all of this takes, in bytes.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.memory.used()
    }

    /// Whether epoch 0 is still on its way. Nothing is read before it is true.
    pub(super) fn is_founding(&self) -> bool {
        self.table.next_epoch() == 0
    }

    /// Whether an epoch is on its way.
    pub(super) fn is_committing(&self) -> bool {
        self.flight.is_some()
    }

    /// Whether the catalog was told of the epoch on its way, so that it may be true already.
    pub(super) fn is_sent(&self) -> bool {
        self.flight.as_ref().is_some_and(Flight::is_sent)
    }

    /// The last epoch that is true, as far as we know; `None` before epoch 0.
    pub(super) fn last_epoch(&self) -> Option<u64> {
        self.table.next_epoch().checked_sub(1)
    }

    /// Time has gone on.
    pub(super) fn tick(&mut self, step: &mut Step<'_>) {
        if self.topic.is_due(step.now) {
            ask_topic(step);
        }
        self.reading.tick(self.table.lanes(), step);
        self.raise_floors(step);
        let stands = Self::is_all_held(step) || self.table.is_replaying();
        let frontier = merger::frontier(self.table.lanes());
        self.stall.tick(frontier, stands, step.now);
        self.hold_back(Self::is_all_held(step), step);
        let unread = !stands && self.reading.has_unread(self.table.lanes());
        self.stall.note_unread(unread, step);
        self.upkeep.tick(&self.table, self.memory.is_tight(), step);
    }

    /// Whether everything waits, whatever flow control would say.
    fn is_all_held(step: &Step<'_>) -> bool {
        step.paused || step.clock.is_none() || step.ending || Self::is_topic_unknown(step)
    }

    /// Whether brokers name another topic, and it is not known yet which of them is right. What is
    /// read meanwhile may be of either.
    fn is_topic_unknown(step: &Step<'_>) -> bool {
        step.questions.other_topic.is_some()
    }

    fn raise_floors(&mut self, step: &Step<'_>) {
        let stands = step.paused || step.clock.is_none() || Self::is_topic_unknown(step);
        if self.table.is_replaying() || stands {
            return;
        }
        for (partition, at) in self.reading.idle_floors(self.table.lanes(), step.now) {
            self.table.raise_floor(partition, at, FloorReason::Idle);
        }
        if let Some(at) = self.reading.quiet_floor(self.table.lanes(), step) {
            self.table.raise_floors(at, FloorReason::Quiet);
        }
    }

    /// Holds back what must wait.
    fn hold_back(&mut self, all: bool, step: &mut Step<'_>) {
        let lanes = self.table.lanes();
        let flight = self.flight.as_ref().map(Flight::bytes);
        self.memory.count(lanes, flight, step);
        // What can be committed is looked at only where it matters.
        let waits = self.flight.is_some() || !self.memory.is_tight() || committable(lanes) > 0;
        let holds = self.memory.holds(lanes, &self.reading, (all, waits), step);
        self.memory.report(lanes, flight, step);
        self.reading.hold(&holds, step);
    }

    /// Carries the epoch on its way on.
    pub(super) fn push(&mut self, step: &mut Step<'_>) {
        if let Some(flight) = &mut self.flight {
            flight.push(step);
        }
    }

    /// The credentials have changed: what failed is tried again at once.
    pub(super) fn retry_now(&mut self, step: &mut Step<'_>) {
        if let Some(flight) = &mut self.flight {
            flight.retry_now(step);
        }
        self.topic.look_up_after(0, step.now);
    }

    /// Reads every lane that is not read yet and whose first commit is through; none while the
    /// clocks differ.
    pub(super) fn start_lanes(&mut self, step: &mut Step<'_>) {
        if step.clock.is_none() {
            return;
        }
        self.reading.start(self.table.committed_lanes(), step);
        let all = step.paused || Self::is_topic_unknown(step);
        if all || self.memory.is_tight() {
            // Not with the next tick, because a batch would be counted before it.
            self.hold_back(all, step);
        }
    }

    /// The reader is a new one: reading must be started again.
    pub(super) fn reopened(&mut self, step: &mut Step<'_>) {
        self.reading.reopened();
        self.start_lanes(step);
    }

    /// Records came.
    pub(super) fn records(
        &mut self,
        partition: Partition,
        leader_epoch: i32,
        batch: &dyn Batch,
        step: &mut Step<'_>,
    ) -> Going {
        if !self.reading.is_read(partition) || step.ending {
            return Ok(());
        }
        if self.table.note_checked(partition) {
            self.read_replay(partition, step);
            return Ok(());
        }
        if self
            .table
            .replays_another_log(partition, leader_epoch, batch)
        {
            let why = format!(
                "topic partition {partition} was cut off below offset {}, where the last commit \
                 was",
                self.table.lanes()[&partition].replays_to().unwrap_or(0)
            );
            return self.replay_broke(partition, &why, step);
        }
        if let Some(cut) = self.table.shown_cut(partition, batch) {
            let next = self.table.lanes()[&partition].ledger.next_offset;
            let why = format!(
                "topic partition {partition} was cut off below offset {next}: it has records where \
                 none were"
            );
            return self.truncated(partition, Some(cut), why, step);
        }
        let Some(ceiling) = step.ceiling() else {
            // They are read again, from here on, when the clocks agree. By either clock they may be
            // taken for records from the future, and that is for ever.
            self.reading.set_aside(partition, step);
            return Ok(());
        };
        let max_future_ms = step.rules.max_future_ms;
        let read = self
            .table
            .count(partition, leader_epoch, batch, ceiling, max_future_ms);
        if let Some((next, lives)) = read {
            self.stall.note_read(step);
            self.note_read(partition, next, lives, step);
        }
        Ok(())
    }

    /// The reader has nothing more.
    pub(super) fn end(&mut self, partition: Partition, offset: Offset, step: &mut Step<'_>) {
        // What is read while we end is passed over, so the log's end says nothing of it.
        if !self.reading.is_read(partition) || step.ending {
            return;
        }
        // The log ends below the last commit: it was cut off, or the end is an old one.
        let lane = self.table.lanes().get(&partition);
        if lane.is_some_and(|lane| lane.replays_to().is_some_and(|to| offset < to)) {
            return self.reading.out_of_range(partition, step);
        }
        if self.table.note_checked(partition) {
            return self.read_replay(partition, step);
        }
        if let Some(next) = self.table.end(partition, offset) {
            self.note_read(partition, next, false, step);
        }
    }

    /// The log was found to be the one that was counted: its replay is read.
    fn read_replay(&mut self, partition: Partition, step: &mut Step<'_>) {
        self.reading.stopped(partition);
        self.start_lanes(step);
    }

    /// A topic partition was read, so it has no trouble, and neither have the brokers.
    fn note_read(&mut self, partition: Partition, next: Offset, lives: bool, step: &mut Step<'_>) {
        step.troubles.end(Side::Brokers);
        step.troubles.end(Side::Lane(partition));
        self.reading.note_read(partition, next, lives, step);
    }

    /// A topic partition cannot be read.
    pub(super) fn trouble(&mut self, partition: Partition, why: Trouble, step: &mut Step<'_>) {
        self.reading.note_trouble(partition, why, step);
    }

    /// Reading does not go on at the offset that was asked for.
    pub(super) fn out_of_range(&mut self, partition: Partition, step: &mut Step<'_>) {
        self.reading.out_of_range(partition, step);
    }

    /// The brokers answered where a log ends.
    pub(super) fn take_log_end(
        &mut self,
        partition: Partition,
        asked_at: Mono,
        end: Result<LogEnd, String>,
        step: &mut Step<'_>,
    ) {
        if end.is_ok() {
            step.troubles.end(Side::Brokers);
        }
        self.reading
            .take_log_end(partition, asked_at, end, self.table.lanes(), step);
    }

    /// The brokers answered what a log has.
    pub(super) fn take_limits(
        &mut self,
        partition: Partition,
        limits: Result<(Offset, Offset), String>,
        step: &mut Step<'_>,
    ) {
        if self.reading.take_limits(partition, limits, step) {
            ask_topic(step);
        }
    }

    /// The brokers answered what the topic is; `None` when the answer does not count.
    pub(super) fn take_topic(
        &mut self,
        answer: Option<Result<TopicFacts, Trouble>>,
        step: &mut Step<'_>,
    ) -> Going {
        let Some(answer) = answer else {
            ask_topic(step);
            return Ok(());
        };
        self.topic.look_up_after(TOPIC_EVERY_MS, step.now);
        match with_partitions(answer, step) {
            Ok(facts) => {
                // They answer, also where there is nothing to read that would show it.
                step.troubles.end(Side::Brokers);
                match self
                    .topic
                    .identify(&facts.topic_id, &facts.cluster_id, step)
                {
                    Identity::Same => self.compare_topic(&facts, step),
                    Identity::Other(what) => Err(made_again(&what, step)),
                    Identity::Unknown(why) => {
                        step.troubles.report(Side::Topic, why);
                        self.topic.look_up_after(RETRY_MS, step.now);
                        Ok(())
                    }
                }
            }
            Err(trouble) => {
                step.troubles.report(Side::Topic, trouble);
                self.topic.look_up_after(RETRY_MS, step.now);
                Ok(())
            }
        }
    }

    /// After each input: looks for a lane that takes no further record. Returns why counting should
    /// end, where a record cannot be counted and `on-bad-record` is `fail`.
    pub(super) fn settle(&mut self, step: &mut Step<'_>) -> Result<Option<String>, Break> {
        while let Some((partition, why)) = self.table.broken_replay() {
            self.replay_broke(partition, &why, step)?;
        }
        self.table.settle(step)
    }

    /// Commits what is due, unless an epoch is on its way.
    pub(super) fn commit_what_is_due(&mut self, step: &mut Step<'_>) -> Going {
        let flight = self.flight.as_ref().map(Flight::bytes);
        self.memory.count(self.table.lanes(), flight, step);
        let clock = step.clock.is_some();
        let may_cut = self.flight.is_none() && clock && !Self::is_topic_unknown(step);
        if !may_cut {
            return Ok(());
        }
        if self.table.is_due(&self.memory, step) {
            return self.cut(None, step);
        }
        if !step.paused
            && !step.ending
            && let Some(last) = self.table.last()
            && let Some(swap) = self.upkeep.take_swap()
        {
            let Cut {
                commit, objects, ..
            } = cut_swap(last, &self.owner, swap, step);
            self.flight = Some(Flight::begin(commit, objects, step));
        }
        Ok(())
    }

    /// The catalog said what readers see.
    pub(super) fn take_files(
        &mut self,
        result: Result<Vec<LiveFile>, CatalogError>,
        step: &mut Step<'_>,
    ) {
        self.upkeep.take_files(result, step);
    }

    /// The keys of compacted files that no epoch names yet.
    pub(super) fn files_in_hand(&self) -> Vec<String> {
        self.upkeep.in_hand()
    }

    /// Merges what can be merged now, also what failed before.
    pub(super) fn hurry_upkeep(&mut self, step: &mut Step<'_>) {
        self.upkeep.hurry(step);
        self.upkeep.tick(&self.table, self.memory.is_tight(), step);
    }

    /// What the upkeep of the files is doing.
    pub(super) fn upkeep(&self, now: Mono) -> UpkeepView {
        self.upkeep.view(now)
    }

    /// The store has merged files, or not.
    pub(super) fn merged(
        &mut self,
        key: &str,
        result: Result<Vec<NewFile>, MergeFailure>,
        step: &mut Step<'_>,
    ) {
        self.upkeep.merged(key, result, step);
    }

    /// Draws the line: everything up to here becomes one epoch.
    fn cut(&mut self, genesis: Option<Genesis>, step: &mut Step<'_>) -> Going {
        assert!(self.flight.is_none(), "one epoch is on its way at a time");
        let made = cut(&mut self.table, &self.owner, &self.topic, genesis, step)?;
        let Cut {
            commit,
            objects,
            joined,
        } = made;
        for partition in joined {
            self.reading.add(partition, step.now);
        }
        self.flight = Some(Flight::begin(commit, objects, step));
        Ok(())
    }

    /// The store answered.
    pub(super) fn stored(&mut self, key: &str, result: Result<(), Trouble>, step: &mut Step<'_>) {
        if let Some(flight) = &mut self.flight {
            flight.stored(key, result, step);
        }
    }

    /// The brokers answered what the topic's id is.
    pub(super) fn topic_checked(
        &mut self,
        answer: Result<String, Trouble>,
        step: &mut Step<'_>,
    ) -> Going {
        let Some(flight) = self.flight.as_mut().filter(|f| f.has_asked_topic()) else {
            return Ok(());
        };
        let answer = answer.map(|id| self.topic.identify(&id, "", step));
        match answer {
            Ok(Identity::Same) => flight.topic_is_same(step),
            Ok(Identity::Other(what)) => return Err(made_again(&what, step)),
            Ok(Identity::Unknown(why)) => {
                flight.check_topic_later(why, step);
                self.topic.look_up_after(RETRY_MS, step.now);
            }
            Err(why) => flight.check_topic_later(why, step),
        }
        Ok(())
    }

    /// The catalog answered the commit, or what became of it. Returns when the epoch was committed,
    /// if it is true now.
    pub(super) fn catalog_answered(
        &mut self,
        answer: CatalogAnswer,
        step: &mut Step<'_>,
    ) -> Result<Option<DbTime>, Break> {
        let Some(flight) = &mut self.flight else {
            return Ok(None);
        };
        let landed = flight.catalog_answered(answer, step)?;
        Ok(landed.map(|landed| self.land(landed, step)))
    }

    fn land(&mut self, (commit, at): Landed, step: &mut Step<'_>) -> DbTime {
        self.flight = None;
        step.troubles.end(Side::Commit);
        self.table.note_commit(&commit);
        self.upkeep.note_commit(&commit, at, step);
        if commit.genesis.is_some() {
            self.topic.look_up_after(TOPIC_EVERY_MS, step.now);
        }
        step.effect(Effect::CommitGroup(self.table.committed().clone()));
        step.effect(Effect::Report(commit));
        self.start_lanes(step);
        at
    }
}

/// The topic is another one, as `what` says. What was read since the last commit may be of either:
/// back to the journal, which is of the one before.
fn made_again(what: &str, step: &Step<'_>) -> Break {
    Break::Reload(format!("topic \"{}\" {what}", step.rules.shape.topic))
}
