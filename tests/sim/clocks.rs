//! Clocks that are set and stand still, and what the auditor asks of them: by which clocks records
//! are judged, and that nothing is committed by a wrong one. It knows the right time.

use crate::faults::{CLOCK_OFF_MS, DAY_MS};
use crate::store::Mistake;
use crate::topic::BASE;
use crate::world::World;
use windrow_core::engine::{Answer, CatalogAnswer, Input};
use windrow_core::table::commit::Acquired;
use windrow_core::values::record::{Offset, Partition};
use windrow_core::values::time::{DbTime, Mono, WallTime};

/// The clocks of the machine that a process runs on, and what it knows of the database's.
#[derive(Clone, Copy, Default)]
pub struct MachineClocks {
    /// How long the machine has slept. Its monotonic time stood still meanwhile.
    pub slept: u64,
    /// By how much its wall clock is ahead of the right time.
    pub wall_ahead: i64,
    /// By how much the database's clock is ahead of the right time, as the process reckons it from
    /// what it heard last. A sleep leaves it behind.
    heard_ahead: Option<i64>,
    /// How long the last answer that said it was on its way: so inexact it is.
    answer_took: u64,
    /// Its wall clock was wrong at some time: then the database's may have been wrong alike.
    pub was_wrong: bool,
    /// A clock of it was set since the process was told the time: the driver tells it once more.
    pub set_since_tick: bool,
    /// When the database was asked for its clock last.
    pub asked_at: u64,
}

/// Between two agreeing clocks may be as much.
fn agree_ms(max_future_ms: i64) -> i64 {
    max_future_ms.max(60_000)
}

impl World {
    /// The right time.
    pub fn right_now(&self) -> i64 {
        BASE + 60_000 + self.now as i64
    }

    pub fn db_now(&self) -> DbTime {
        DbTime(self.right_now() + self.db_ahead)
    }

    /// What the machine of a process says what time it is.
    pub fn tick_of(&self, i: usize) -> Input<'static> {
        let MachineClocks {
            slept, wall_ahead, ..
        } = self.processes[i].clocks;
        let slept_too = match self.mistake {
            Some(Mistake::WallClockSleeps) => slept as i64,
            _ => 0,
        };
        Input::Tick {
            now: Mono(self.now - slept),
            wall: WallTime(self.right_now() + wall_ahead - slept_too),
        }
    }

    /// A clock is set, or a machine sleeps.
    pub fn harm_clocks(&mut self, i: usize) {
        match self.rng.below(3) {
            0 => {
                let ahead = self.faults.draw_clock(&mut self.rng);
                self.summary.clocks_back += u64::from(ahead < self.db_ahead);
                self.summary.clocks_far += u64::from(ahead.abs() > CLOCK_OFF_MS);
                self.db_ahead = ahead;
            }
            1 => {
                let ahead = self.faults.draw_clock(&mut self.rng);
                self.summary.clocks_far += u64::from(ahead.abs() > CLOCK_OFF_MS);
                let clocks = &mut self.processes[i].clocks;
                (clocks.wall_ahead, clocks.set_since_tick) = (ahead, true);
                clocks.was_wrong |= ahead.abs() > CLOCK_OFF_MS;
            }
            _ => {
                self.summary.sleeps += 1;
                let ms = self.rng.pick(&[10_000, 200_000, 7_200_000]);
                self.now += ms;
                let clocks = &mut self.processes[i].clocks;
                clocks.slept += ms;
                clocks.set_since_tick = true;
                clocks.heard_ahead = clocks.heard_ahead.map(|ahead| ahead - ms as i64);
            }
        }
    }

    /// A process receives this answer: it may say what the database's clock was.
    pub fn note_heard(&mut self, i: usize, answer: &Answer) {
        let clock = match answer {
            Answer::Catalog(CatalogAnswer::Renew(Ok(renewed))) => renewed.now,
            Answer::Catalog(CatalogAnswer::Acquire(Ok(Acquired::Ours { now, .. }))) => *now,
            _ => return,
        };
        let (right, now) = (self.right_now(), self.now);
        let clocks = &mut self.processes[i].clocks;
        clocks.heard_ahead = Some(clock.0 - right);
        clocks.answer_took = now - clocks.asked_at;
    }

    /// Records from the offset `judged_before` on were judged: then both clocks agreed, and the
    /// ceiling is by the greater of them. So where one of them was right, no record was taken for
    /// one from the future that was not.
    pub fn ceiling_is_right(
        &self,
        i: usize,
        p: Partition,
        judged_before: Offset,
    ) -> Result<(), String> {
        let process = &self.processes[i];
        let Some(lane) = process.engine.lanes().get(&p) else {
            return Ok(());
        };
        // What lies below the end of a replay was judged before.
        if process.stopping || lane.replaying() || lane.ledger.next_offset <= judged_before {
            return Ok(());
        }
        let clocks = &process.clocks;
        let Some(heard_ahead) = clocks.heard_ahead else {
            return Err("it counts, and has not heard what time it is".to_owned());
        };
        let max_future_ms = process.settings.max_future_ms;
        let inexact = 2000 + clocks.answer_took as i64;
        let differ = (heard_ahead - clocks.wall_ahead).abs();
        if differ > agree_ms(max_future_ms) + inexact {
            return Err(format!(
                "records of topic partition {p} are counted, and the clocks differ by {differ} ms"
            ));
        }
        let greater = heard_ahead.max(clocks.wall_ahead);
        let must = self.right_now() + greater + max_future_ms;
        let ceiling = lane.ceiling();
        if (ceiling - must).abs() > max_future_ms / 8 + inexact {
            return Err(format!(
                "the ceiling of topic partition {p} is {ceiling}, must be about {must}"
            ));
        }
        let one_is_right = heard_ahead.abs().min(clocks.wall_ahead.abs()) <= CLOCK_OFF_MS;
        let least = self.right_now() + max_future_ms / 8 * 7 - CLOCK_OFF_MS - 2000;
        if one_is_right && ceiling < least {
            return Err(format!(
                "at {} the ceiling of topic partition {p} is {ceiling}",
                self.right_now()
            ));
        }
        Ok(())
    }

    /// An epoch was just written: not while the database's clock is days off and the sender's is
    /// right. (What is off by hours may be hidden by a sleep between sending and writing.)
    pub fn commit_is_by_a_right_clock(&self, sender: u64) -> Result<(), String> {
        let sender = self.processes.iter().find(|process| process.id == sender);
        let right = sender.is_some_and(|process| process.clocks.wall_ahead.abs() <= CLOCK_OFF_MS);
        if right && self.db_ahead.abs() > DAY_MS {
            return Err(format!(
                "an epoch is committed, and the database's clock is {} days off",
                self.db_ahead / DAY_MS
            ));
        }
        Ok(())
    }
}
