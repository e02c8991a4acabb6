//! What the auditor asks of progress: where good records go on, windows close and are committed;
//! and a process that says that it counts does so. Both are judged by what the world has seen.

use crate::faults::CLOCK_OFF_MS;
use crate::topic::Log;
use crate::world::World;
use std::collections::BTreeSet;
use windrow_core::count::merger;
use windrow_core::engine::State;
use windrow_core::values::cause::Cause;
use windrow_core::values::record::{Offset, Partition};
use windrow_core::values::time::EventTime;

/// Between two looks at a table whose logs go on.
const EVERY_MS: u64 = 500;
/// So far beyond where it began must the table close its windows while records go on.
const GOES_ON_MS: i64 = 10_000;
/// The table must have closed them by then, or with very little memory a part of them. It is more
/// than the engine lets pass before it tries again what failed, with the longest delay and
/// `idle-timeout`.
const BOUND_MS: u64 = 200_000;
/// A transaction that stays open is told to people after a minute, once it is found.
const TRANSACTION_MS: u64 = 120_000;

/// What the auditor has seen of the progress of a process, in ms of its machine's monotonic time.
#[derive(Default)]
pub struct Progress {
    frontier: Option<EventTime>,
    /// When the frontier moved last, or could not be expected to move.
    moved_at: u64,
    /// When a record was read last; `None` before the first one.
    read_at: Option<u64>,
    /// Since when records have been read without a long pause.
    read_since: u64,
    /// The topic partitions that could not be read, and have not been read since.
    pub unreadable: BTreeSet<Partition>,
}

impl World {
    /// Records of a process were read.
    pub fn note_progress(&mut self, i: usize) {
        let process = &mut self.processes[i];
        let now = process.ticked.saturating_sub(process.clocks.slept);
        let pause_max = process.settings.stalled_after_ms / 2;
        let progress = &mut process.progress;
        if progress.read_at.is_none_or(|at| now - at > pause_max) {
            progress.read_since = now;
        }
        progress.read_at = Some(now);
    }

    /// A process was told the time. Where it says that it counts, the frontier has moved lately if
    /// records are read, and every topic partition that could not be read was read again.
    pub fn counting_is_true(&mut self, i: usize) -> Result<(), String> {
        let process = &mut self.processes[i];
        let now = self.now - process.clocks.slept;
        let frontier = merger::frontier(process.engine.lanes());
        // One that is told to stop reads nothing more.
        let counts = process.engine.state() == State::Counting && !process.stopping;
        let progress = &mut process.progress;
        if !counts || progress.frontier != frontier {
            (progress.frontier, progress.moved_at) = (frontier, now);
        }
        if !counts {
            return Ok(());
        }
        let engine = &process.engine;
        // One that is held back is not asked for, so nobody can know whether it can be read.
        let is_read = |p: &&Partition| !engine.is_idle(**p) && !engine.is_held(**p);
        if let Some(p) = progress.unreadable.iter().find(is_read) {
            return Err(format!(
                "it says that it counts, but topic partition {p} cannot be read"
            ));
        }
        let stalled_after = process.settings.stalled_after_ms;
        let is_read = progress
            .read_at
            .is_some_and(|at| now - at <= stalled_after / 2);
        let stands_ms = now - progress.moved_at.max(progress.read_since);
        if is_read && stands_ms > stalled_after + 1000 {
            return Err(format!(
                "it says that it counts, but the frontier has stood still for {stands_ms} ms \
                 although records are read"
            ));
        }
        Ok(())
    }

    /// In some runs good records go on while nothing goes wrong any more: on some topic partitions
    /// without an end, while others are quiet. The table must go on closing windows.
    pub fn good_records_go_on(&mut self) -> Result<(), String> {
        self.goes_on = true;
        let result = self.windows_close_while_records_go_on();
        self.goes_on = false;
        result
    }

    fn windows_close_while_records_go_on(&mut self) -> Result<(), String> {
        if !self.rng.one_in(4) {
            return Ok(());
        }
        let Some(begins) = self.traffic_begins() else {
            return Ok(());
        };
        let busy = self.draw_busy();
        let transaction = self.open_transaction();
        let by_whom = self.processes.first().map(|process| process.id);
        self.summary.goes_on += 1;
        let (from, mut left_ms, mut moved_to) = (self.now, BOUND_MS, None);
        // With a few kilobytes it goes on slowly: nearly each record waits for a commit. What a
        // transaction has kept back may take long to read.
        let mut least_behind = Offset::MAX;
        let slowly = self.settings.max_memory_bytes < 1 << 20;
        while left_ms > 0 {
            self.now += EVERY_MS;
            let since = (self.now - from) as i64;
            self.write_good_records(&busy, begins + since);
            self.go_on_with_unusable_records();
            self.let_all_happen()?;
            if let Some((p, until)) = transaction
                && self.now < until
            {
                if self.now + EVERY_MS >= until {
                    self.transaction_is_told(p, by_whom)?;
                }
                continue;
            }
            left_ms -= EVERY_MS;
            if self.bad_ends > 1 {
                return Ok(());
            }
            if self.is_full() || self.processes.is_empty() {
                left_ms = BOUND_MS;
            }
            if self.processes.is_empty() {
                self.start_process();
            }
            let last = self.catalog.epochs.last();
            let through = last.and_then(|(commit, _)| commit.closed_through);
            if through >= Some(EventTime(begins + GOES_ON_MS)) {
                return Ok(());
            }
            let behind = self.is_behind_by();
            if slowly && (through > moved_to || behind < least_behind) {
                (moved_to, left_ms) = (through.max(moved_to), BOUND_MS);
                least_behind = behind.min(least_behind);
            }
        }
        let engine = &self.processes[0].engine;
        Err(format!(
            "good records go on in topic partitions {busy:?} from {begins} on, and windows do not \
             close: {:?}, {:?}",
            engine.state(),
            engine.frontier_holder()
        ))
    }

    /// How many offsets are not read yet of the topic partitions that hold the frontier: the most
    /// of one of them.
    fn is_behind_by(&self) -> Offset {
        let lanes = self.processes.first().map(|process| process.engine.lanes());
        let lanes = || lanes.into_iter().flatten();
        let least = lanes().map(|(_, lane)| lane.watermark()).min();
        let unread = lanes()
            .filter(|(_, lane)| Some(lane.watermark()) == least)
            .filter_map(|(p, lane)| {
                let log = self.topic().logs.get(p)?;
                Some(log.visible - lane.ledger.next_offset)
            });
        unread.max().unwrap_or(Offset::MAX)
    }

    /// From which event time on records can move the frontier; `None` where they would be from the
    /// future, because something has moved it further than the right time.
    fn traffic_begins(&self) -> Option<i64> {
        let max_future = if self.faults.settings_vary {
            self.settings.max_future_ms.min(80_000)
        } else {
            self.settings.max_future_ms
        };
        let most = self.right_now() + max_future / 8 * 7 - 2 * CLOCK_OFF_MS;
        // No ceiling is greater unless a clock was wrong, and then a commit says it.
        let ceiling = self.right_now() + self.settings.max_future_ms.max(600_000) / 8 * 9;
        let logs = self.topics.iter().flat_map(|topic| topic.logs.values());
        let logs = logs.flat_map(|log| [Some(log), log.before.as_deref()]);
        let records = logs.flatten().flat_map(|log| log.records.values());
        let times = records
            .flat_map(|record| [record.time, record.kafka_time])
            .filter(|time| *time <= ceiling);
        let committed = self.catalog.epochs.last().into_iter();
        let lanes = committed.flat_map(|(commit, _)| commit.lanes.values());
        let watermarks = lanes.filter_map(|lane| lane.watermark.max(lane.newest));
        let engines = self.processes.iter();
        let uncommitted = engines
            .flat_map(|process| process.engine.lanes().values())
            .filter_map(|lane| lane.watermark().max(lane.newest()));
        let begins = times
            .chain(watermarks.chain(uncommitted).map(|at| at.0))
            .fold(self.right_now(), i64::max);
        (begins <= most).then_some(begins)
    }

    /// The topic partitions in which records go on.
    fn draw_busy(&mut self) -> Vec<Partition> {
        let usable = |(p, log): (&Partition, &Log)| (!log.is_unusable).then_some(*p);
        let usable: Vec<Partition> = self.topic().logs.iter().filter_map(usable).collect();
        let always = self.rng.pick(&usable);
        usable
            .into_iter()
            .filter(|p| *p == always || self.rng.one_in(2))
            .collect()
    }

    /// In some of these runs a transaction stays open in one topic partition for longer than a
    /// minute. Returns the topic partition, and until when.
    fn open_transaction(&mut self) -> Option<(Partition, u64)> {
        if !self.rng.one_in(5) {
            return None;
        }
        let all: Vec<Partition> = self.topic().logs.keys().copied().collect();
        let p = self.rng.pick(&all);
        let until = self.now + TRANSACTION_MS;
        let log = self.log_mut(p);
        log.open_until = until;
        // What has been written in it is not seen before it ends.
        log.end += 1;
        Some((p, until))
    }

    /// One more record comes in each of these topic partitions, near the time `at`.
    fn write_good_records(&mut self, busy: &[Partition], at: i64) {
        let shape = &self.settings.shape;
        let topic = self.topics.last_mut().expect("one at least");
        for p in busy {
            let log = topic.logs.get_mut(p).expect("drawn");
            let time = at - self.rng.below(400) as i64;
            log.append_good(&mut self.rng, shape, time);
        }
        for log in topic.logs.values_mut() {
            log.show_all(self.now);
        }
    }

    /// A transaction has been open for two minutes: people are told that it is what is waited for.
    fn transaction_is_told(&self, p: Partition, by_whom: Option<u64>) -> Result<(), String> {
        let process = self.processes.first();
        let Some(process) = process.filter(|process| Some(process.id) == by_whom) else {
            return Ok(());
        };
        let lane = process.engine.lanes().get(&p);
        let waits = lane.is_some_and(|lane| {
            !lane.replaying() && lane.ledger.next_offset == self.topic().logs[&p].visible
        });
        match process.engine.state() {
            State::Waiting(why) if why.cause == Some(Cause::OpenTransaction) => Ok(()),
            State::Counting | State::Waiting(_) if waits => Err(format!(
                "a transaction is open in topic partition {p}, and it says {:?}",
                process.engine.state()
            )),
            _ => Ok(()),
        }
    }

    fn log_mut(&mut self, p: Partition) -> &mut Log {
        let topic = self.topics.last_mut().expect("one at least");
        topic.logs.get_mut(&p).expect("it is in the topic")
    }
}
