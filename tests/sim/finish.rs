//! How a run ends: nothing goes wrong any more, and the last process must get everything done.

use crate::faults::CLOCK_OFF_MS;
use crate::topic::Log;
use crate::world::World;
use std::collections::BTreeMap;
use windrow_core::count::lane::Lane;
use windrow_core::count::merger;
use windrow_core::engine::{Input, State};
use windrow_core::values::cause::Cause;
use windrow_core::values::decision::Decided;
use windrow_core::values::record::{Offset, Partition};
use windrow_core::values::time::DbTime;

/// More than the engine lets pass before it tries again what failed.
const AGAIN_MS: u64 = 100_000;
/// With little memory, so many unusable records may wait to be read.
const UNREAD_MAX: Offset = 10;

/// What the last process has still to do about garbage.
enum GarbageLeft {
    /// Nothing was looked at yet.
    All,
    /// So much time has gone by that every orphan can be found; those are to be doomed.
    ToBeDoomed,
    /// What was doomed by this time is to be deleted.
    ToBeDeleted(DbTime),
}

impl World {
    /// There are no more faults: everything is read, idle topic partitions stand aside, garbage is
    /// deleted when its time has come, and the last process is told to end.
    pub fn finish(&mut self) -> Result<(), String> {
        self.end_faults();
        let mut fails_over = self.faults.epochs_are_forgotten;
        self.backups.clear();
        if !self.catalog.epochs.is_empty() {
            self.backups.push((self.now, self.catalog.clone()));
        }
        self.good_records_go_on()?;
        let mut quiet_since = self.now;
        let mut garbage = GarbageLeft::All;
        for _ in 0..3000 {
            self.now += 100;
            if matches!(garbage, GarbageLeft::All) && self.now % 500 < 100 {
                self.go_on_with_unusable_records();
            }
            self.let_all_happen()?;
            if self.is_full() {
                quiet_since = self.now;
                continue;
            }
            if self.bad_ends > 1 {
                // It ends there again whoever starts it.
                return Ok(());
            }
            let Some(process) = self.processes.first() else {
                self.start_process();
                continue;
            };
            if process.done {
                self.check_live_objects()?;
                self.check_history()?;
                return self.delay_is_in_force();
            }
            if !self.all_is_read(matches!(garbage, GarbageLeft::All)) {
                quiet_since = self.now;
            }
            if self.now - quiet_since <= 2 * process.settings.idle_timeout_ms + 8000 {
                continue;
            }
            if std::mem::take(&mut fails_over) {
                // Once more while all is quiet: only a renewal can tell.
                self.fail_over();
                quiet_since = self.now;
                continue;
            }
            let rules = &self.settings.garbage;
            match garbage {
                GarbageLeft::All => {
                    self.now += rules.search_every_ms + rules.orphan_age_ms + AGAIN_MS;
                    garbage = GarbageLeft::ToBeDoomed;
                }
                GarbageLeft::ToBeDoomed if self.orphans().is_empty() => {
                    garbage = GarbageLeft::ToBeDeleted(self.db_now());
                    self.now += rules.delete_every_ms + self.settings.keep_replaced_ms + AGAIN_MS;
                }
                GarbageLeft::ToBeDeleted(until)
                    if self.doomed_by(until).is_empty()
                        && self.all_is_read(false)
                        && self.all_is_committed() =>
                {
                    self.processes[0].stopping = true;
                    self.processes[0].last = true;
                    self.feed(0, Input::Shutdown)?;
                }
                // An object may have been on its way to a later epoch when that search was made. It
                // is found by the next one.
                GarbageLeft::ToBeDoomed if self.now % 20_000 < 100 => {
                    self.now += rules.search_every_ms;
                }
                GarbageLeft::ToBeDoomed | GarbageLeft::ToBeDeleted(_) => {}
            }
        }
        Err(self.no_end(&garbage))
    }

    fn no_end(&self, garbage: &GarbageLeft) -> String {
        format!(
            "it does not come to an end: {:?}, orphans {:?}, garbage {:?}",
            self.processes[0].engine.state(),
            self.orphans(),
            match garbage {
                GarbageLeft::ToBeDeleted(until) => self.doomed_by(*until),
                _ => Vec::new(),
            },
        )
    }

    /// Everything that is on its way arrives, and the process reads and ticks once.
    pub fn let_all_happen(&mut self) -> Result<(), String> {
        while !self.requests.is_empty() {
            self.carry_request()?;
        }
        while self.processes.first().is_some_and(|p| !p.inbox.is_empty()) {
            self.receive_answer(0)?;
        }
        if !self.processes.is_empty() {
            self.deliver(0)?;
        }
        if !self.processes.is_empty() {
            self.tick(0)?;
        }
        Ok(())
    }

    /// Where open windows alone fill the memory, nothing but the bound itself helps: a person
    /// starts the process again with a higher one.
    pub fn is_full(&mut self) -> bool {
        let Some(process) = self.processes.first() else {
            return false;
        };
        let State::Waiting(why) = process.engine.state() else {
            return false;
        };
        if why.cause != Some(Cause::Memory) {
            return false;
        }
        let (used, bound) = process.engine.memory_bytes();
        let lanes = process.engine.lanes();
        let frontier = merger::frontier(lanes);
        let frees: usize = lanes
            .values()
            .map(|lane| lane.committable_bytes(frontier))
            .sum();
        if used.saturating_sub(frees as u64) < bound {
            // Something has come since it was said that will free enough. Where it never does, the
            // run does not end.
            return false;
        }
        self.summary.memory_full += 1;
        self.settings.max_memory_bytes = 512 << 20;
        self.processes.remove(0);
        true
    }

    fn end_faults(&mut self) {
        self.faults.end();
        self.kafka_down_until = 0;
        self.stalled_until.clear();
        self.db_ahead = CLOCK_OFF_MS;
        self.catalog.paused = false;
        let topic = self.topics.last_mut().expect("one at least");
        for log in topic.logs.values_mut() {
            log.visible = log.end;
            log.open_until = 0;
            log.exists_from = 0;
        }
        self.bad_ends = 0;
        self.processes.truncate(1);
        self.processes[0].frozen = false;
        let clocks = &mut self.processes[0].clocks;
        (clocks.wall_ahead, clocks.set_since_tick) = (0, true);
    }

    /// A topic partition that receives nothing but records without a usable time goes on to do so.
    /// The windows of the others must close all the same.
    pub fn go_on_with_unusable_records(&mut self) {
        // With a few kilobytes of memory, no faster than they can be committed.
        let slowly = self.settings.max_memory_bytes < 1 << 20;
        let read = |p: &Partition| {
            let lanes = self.processes.first().map(|process| process.engine.lanes());
            let lane = lanes.and_then(|lanes| lanes.get(p));
            lane.map(|lane| lane.ledger.next_offset)
        };
        let topic = self.topics.last_mut().expect("one at least");
        for (p, log) in topic.logs.iter_mut().filter(|(_, log)| log.is_unusable) {
            if !slowly || read(p).is_none_or(|next| log.end <= next + UNREAD_MAX) {
                log.append_unusable();
            }
            log.show_all(self.now);
        }
    }

    /// `goes_on` says that unusable records still come in, so that their topic partitions have no
    /// end to be read to.
    fn all_is_read(&self, goes_on: bool) -> bool {
        let engine = &self.processes[0].engine;
        let topic = self.topic();
        let read = |(p, log): (&Partition, &Log)| {
            engine.lanes().get(p).is_some_and(|lane| {
                (lane.ledger.next_offset == log.end || (goes_on && log.is_unusable))
                    && !lane.replaying()
            })
        };
        // A lane that lost counts may be ahead of all others.
        let common = engine
            .lanes()
            .values()
            .map(Lane::watermark_without_loss)
            .max();
        let common = common.flatten();
        // Where unusable records go on, nothing moves although records are read.
        let unusable = goes_on && topic.logs.values().any(|log| log.is_unusable);
        let counts = match engine.state() {
            State::Counting => true,
            State::Waiting(why) => unusable && why.cause == Some(Cause::Stalled),
            _ => false,
        };
        counts
            && engine.epoch() == self.catalog.last_epoch()
            && self
                .catalog
                .epochs
                .last()
                .is_some_and(|(c, _)| c.topic_id == topic.id)
            && topic.logs.iter().all(read)
            && engine.lanes().values().all(|lane| {
                lane.watermark() == common
                    || (lane.watermark() > common
                        && lane.watermark() > lane.watermark_without_loss())
            })
    }

    /// What was read is committed, also where there is nothing to show of it: only then may the
    /// log expire up to there.
    fn all_is_committed(&self) -> bool {
        let committed = self.catalog.epochs.last();
        committed.is_some_and(|(last, _)| {
            let mut logs = self.topic().logs.iter();
            logs.all(|(p, log)| last.lanes.get(p).map(|lane| lane.to) == Some(log.end))
        })
    }

    /// The delay that the last process was started with holds for all its lanes.
    fn delay_is_in_force(&self) -> Result<(), String> {
        let must = self.processes[0].settings.delay_ms;
        let mut delays: BTreeMap<Partition, i64> = BTreeMap::new();
        for decision in self.decisions() {
            if let Decided::Delay { ms } | Decided::CountsLost { delay_ms: ms, .. } = decision.what
            {
                delays.insert(decision.partition, ms);
            }
        }
        let last = self.catalog.epochs.last().map(|(c, _)| c.lanes.keys());
        match last
            .into_iter()
            .flatten()
            .find(|p| delays.get(p).copied().unwrap_or(0) != must)
        {
            None => Ok(()),
            Some(p) => Err(format!(
                "topic partition {p} does not have the delay {must}"
            )),
        }
    }
}
