//! One table's whole state behind one door, `step`. It reads no clock and does no I/O.
//!
//! Each part of the state has one owner, whose fields nobody else can write: [`Engine::step`]
//! decides only which owner hears an input, and what it says to the next. What the engine asks for
//! is performed by the driver, and comes back as another input, also when it failed.

mod answers;
mod chain;
mod clocks;
mod conversation;
mod counting;
mod cut;
mod feed;
mod flight;
mod fold;
mod following;
mod manifest_pages;
mod garbage;
mod lease;
mod locate;
mod memory;
mod merge_order;
mod opening;
mod ours;
mod questions;
mod reading;
mod rules;
mod stall;
mod step;
mod table;
#[cfg(test)]
mod tests;
mod topic;
mod troubles;
mod upkeep;
mod view;

pub use conversation::{
    Answer, BrokersAnswer, BrokersRequest, CatalogAnswer, CatalogRequest, Effect, Input, Location,
    LogEnd, Request, StoreAnswer, StoreRequest, TopicFacts,
};
pub use feed::pause_before_start;
pub use merge_order::{MergeFailure, MergeOrder};
pub use rules::{GarbageRules, Limits, Rules, fetched_bytes, same_table};
pub use upkeep::{DueSums, MergeView, UpkeepPlan, UpkeepView, plan_upkeep};
pub use view::{FrontierHolder, State};

use crate::table::commit::{Acquired, CatalogError, Head, LeaseMark};
use crate::table::place::{Names, Place, TablePlace};
use crate::values::cause::{Cause, Trouble};
use crate::values::time::{DbTime, Mono, WallTime};
use clocks::{Clocks, same_difference};
use lease::{Lease, RETRY_MS};
use locate::Locating;
use ours::Ours;
use questions::Questions;
use step::{Break, Going, Step};
use troubles::{Side, Troubles};

/// How long the last commit is waited for when windrow is to end; without it a restart reads again
/// what it held.
const ENDING_WAITS_MS: u64 = 10_000;

/// One table.
pub struct Engine {
    rules: Rules,
    names: Names,
    now: Mono,
    wall: WallTime,
    troubles: Troubles,
    questions: Questions,
    /// The other process that had the table when we asked last.
    holder: Option<String>,
    /// That process's lease, and since when it was seen unchanged.
    watched: Option<(LeaseMark, Mono)>,
    /// An operator's pause is in force.
    paused: bool,
    ending: Option<Ending>,
    phase: Phase,
}

/// No more records are read. After what is under way the engine ends.
struct Ending {
    since: Mono,
    /// Why it failed; `None` when somebody asked for the end.
    why: Option<Trouble>,
}

/// What the engine is at. Each phase carries what only it has.
enum Phase {
    /// It is not known where the table lies.
    Locating(Locating),
    /// The table is not ours; it is asked for at this time.
    Standby { place: Place, ask_at: Mono },
    /// The table was asked for.
    Asking { place: Place, asked_at: Mono },
    /// The table is ours.
    Ours(Box<Ours>),
    /// For good, with the reason when nobody asked for it. What was counted last is still shown.
    Over {
        why: Option<Trouble>,
        last: Option<Box<Ours>>,
    },
}

impl Engine {
    /// An engine at the time 0. It asks for nothing before its first [`Input::Tick`].
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        let phase = match &rules.place {
            TablePlace::At(place) => Phase::Standby {
                place: place.clone(),
                ask_at: Mono(0),
            },
            TablePlace::InBucket(bucket) => Phase::Locating(Locating::new(bucket.clone(), Mono(0))),
        };
        Self {
            names: Names::new(&rules.database, &rules.table),
            rules,
            now: Mono(0),
            wall: WallTime(0),
            troubles: Troubles::default(),
            questions: Questions::default(),
            holder: None,
            watched: None,
            paused: false,
            ending: None,
            phase,
        }
    }

    /// The only way in. What should be done is appended to `effects`.
    pub fn step(&mut self, input: Input<'_>, effects: &mut Vec<Effect>) {
        if matches!(self.phase, Phase::Over { .. }) {
            return;
        }
        let going = self.handle(input, effects);
        let going = going.and_then(|()| self.commit_what_is_due(effects));
        if let Err(why) = going {
            self.break_off(why, effects);
        }
        self.end_when_idle(effects);
    }

    /// The phase, and beside it what all owners share during a step.
    fn split<'a>(&'a mut self, effects: &'a mut Vec<Effect>) -> (&'a mut Phase, Step<'a>) {
        let (clock, clocks_differ_ms) = match &self.phase {
            Phase::Ours(ours) => ours.clock(),
            _ => (None, 0),
        };
        let step = Step {
            now: self.now,
            wall: self.wall,
            clock,
            clocks_differ_ms,
            rules: &self.rules,
            names: &self.names,
            troubles: &mut self.troubles,
            questions: &mut self.questions,
            paused: self.paused,
            ending: self.ending.is_some(),
            effects,
        };
        (&mut self.phase, step)
    }

    fn handle(&mut self, input: Input<'_>, effects: &mut Vec<Effect>) -> Going {
        match input {
            Input::Tick { now, wall } => return self.tick(now, wall, effects),
            Input::Answer(answer) => return self.answered(answer, effects),
            Input::Trouble {
                partition: None,
                trouble,
            } => self.troubles.report(Side::Brokers, trouble),
            Input::Paused(paused) => self.paused = paused,
            Input::Shutdown => self.end_soon(None),
            Input::CredentialsChanged => self.retry_now(effects),
            Input::Compact => {
                if let (Phase::Ours(ours), mut step) = self.split(effects) {
                    ours.hurry_upkeep(&mut step);
                }
            }
            Input::Trouble { .. }
            | Input::Records { .. }
            | Input::End { .. }
            | Input::OutOfRange { .. }
            | Input::Truncated { .. }
            | Input::Reopened => {
                if let (Phase::Ours(ours), mut step) = self.split(effects) {
                    return ours.reader_says(input, &mut step);
                }
            }
        }
        Ok(())
    }

    fn tick(&mut self, now: Mono, wall: WallTime, effects: &mut Vec<Effect>) -> Going {
        (self.now, self.wall) = (now, wall);
        let over = self.lease_that_is_over();
        let (phase, mut step) = self.split(effects);
        match phase {
            Phase::Locating(locating) => locating.tick(&mut step),
            Phase::Standby { place, ask_at } if now >= *ask_at && !step.ending => {
                step.ask(CatalogRequest::Acquire { over });
                *phase = Phase::Asking {
                    place: place.clone(),
                    asked_at: now,
                };
            }
            Phase::Ours(ours) => return ours.tick(&mut step),
            Phase::Standby { .. } | Phase::Asking { .. } | Phase::Over { .. } => {}
        }
        Ok(())
    }

    /// The lease that this process waits for, if it has not changed for the length of a lease by
    /// this process's own monotonic clock: its owner is gone, although the clock that wrote it was
    /// ahead and the catalog's clock says that it goes on.
    fn lease_that_is_over(&self) -> Option<LeaseMark> {
        let (lease, since) = self.watched.as_ref()?;
        (self.now.since(*since) >= self.rules.lease_ms).then(|| lease.clone())
    }

    fn retry_now(&mut self, effects: &mut Vec<Effect>) {
        let held = self.holder.is_some();
        let (phase, mut step) = self.split(effects);
        match phase {
            Phase::Locating(locating) => locating.retry_now(&step),
            Phase::Standby { ask_at, .. } if !held => *ask_at = step.now,
            Phase::Ours(ours) => ours.retry_now(&mut step),
            Phase::Standby { .. } | Phase::Asking { .. } | Phase::Over { .. } => {}
        }
    }

    fn answered(&mut self, answer: Answer, effects: &mut Vec<Effect>) -> Going {
        let counts = self.questions.take_answer(&answer, &self.names);
        match answer {
            Answer::Catalog(CatalogAnswer::Locate(answer)) => {
                self.located(answer, effects);
                Ok(())
            }
            Answer::Catalog(CatalogAnswer::Acquire(answer)) => self.acquired(answer, effects),
            Answer::Catalog(CatalogAnswer::Renew(answer)) => {
                if let (Phase::Ours(_), Ok(renewed)) = (&self.phase, &answer) {
                    self.paused = renewed.paused;
                }
                match self.split(effects) {
                    (Phase::Ours(ours), mut step) => ours.renewed(answer, &mut step),
                    _ => Ok(()),
                }
            }
            answer => match self.split(effects) {
                (Phase::Ours(ours), mut step) => ours.answered(answer, counts, &mut step),
                _ => Ok(()),
            },
        }
    }

    fn located(&mut self, answer: Result<Location, CatalogError>, effects: &mut Vec<Effect>) {
        let (phase, mut step) = self.split(effects);
        if let Phase::Locating(locating) = phase
            && let Some(place) = locating.take_answer(answer, &mut step)
        {
            step.effect(Effect::UseWarehouse(place.clone()));
            *phase = Phase::Standby {
                place,
                ask_at: step.now,
            };
        }
    }

    fn acquired(
        &mut self,
        answer: Result<Acquired, CatalogError>,
        effects: &mut Vec<Effect>,
    ) -> Going {
        let Phase::Asking { place, asked_at } = &self.phase else {
            return Ok(());
        };
        let (place, asked_at) = (place.clone(), *asked_at);
        self.holder = None;
        let watched = self.watched.take();
        let ask_at = match answer {
            Ok(Acquired::Ours {
                owner,
                lease_ms,
                now,
                head,
            }) => {
                self.troubles.end(Side::Lease);
                let lease = Lease::new(owner, lease_ms, self.now);
                return self.begin(place, lease, (now, asked_at), head, effects);
            }
            Ok(Acquired::Held { by, left_ms, lease }) => {
                let unchanged = |(then, _): &(LeaseMark, Mono)| Some(then) == lease.as_ref();
                let since = watched
                    .filter(unchanged)
                    .map_or(self.now, |(_, since)| since);
                self.watched = lease.map(|lease| (lease, since));
                let Rules {
                    database, table, ..
                } = &self.rules;
                let why = format!("table {database}.{table} is written by {by}");
                self.troubles
                    .report(Side::Lease, Trouble::new(Cause::Held, why));
                self.holder = Some(by);
                self.now.plus(left_ms.clamp(200, 5000))
            }
            Err(CatalogError::Stop(why)) => return Err(Break::Fail(why)),
            Err(error) => {
                self.watched = watched;
                self.troubles.report(Side::Lease, error);
                self.now.plus(RETRY_MS)
            }
        };
        self.phase = Phase::Standby { place, ask_at };
        Ok(())
    }

    /// The table is ours. `clock` is the database's clock, and when it was asked for.
    fn begin(
        &mut self,
        place: Place,
        lease: Lease,
        clock: (DbTime, Mono),
        head: Option<Box<Head>>,
        effects: &mut Vec<Effect>,
    ) -> Going {
        let release = CatalogRequest::Release {
            owner: lease.owner().clone(),
        };
        if let Some(head) = &head {
            let elsewhere = head.genesis.warehouse != place;
            if let TablePlace::InBucket(bucket) = &self.rules.place
                && elsewhere
            {
                // Another owner has made it since, at another place of the bucket.
                effects.push(release.into());
                self.phase = Phase::Locating(Locating::new(bucket.clone(), self.now));
                return Ok(());
            }
            self.paused = head.paused;
        }
        let ask_again = self.ask_after_clocks_differed();
        let (phase, mut step) = self.split(effects);
        let committed_at = head.as_ref().map(|head| head.committed_at);
        let clocks = Clocks::new(clock.0, clock.1, committed_at, &step);
        if let Some(why) = clocks.trouble() {
            // What a wrong clock rejects is rejected for ever; waiting for it is not. Another
            // process may have a right one.
            if !step
                .troubles
                .of(Side::Clocks)
                .is_some_and(|then| same_difference(then, why))
            {
                step.troubles.report(Side::Clocks, why.clone());
            }
            step.ask(release);
            *phase = Phase::Standby {
                place,
                ask_at: ask_again,
            };
            return Ok(());
        }
        step.troubles.end(Side::Clocks);
        (step.clock, step.clocks_differ_ms) = clocks.bound();
        match Ours::begin(place, lease, clocks, head, &mut step) {
            Ok(ours) => {
                *phase = Phase::Ours(Box::new(ours));
                Ok(())
            }
            Err(why) => {
                step.ask(release);
                Err(why)
            }
        }
    }

    /// After each input: commits what is due. A record that cannot be counted ends counting first,
    /// so that the commit is the last one.
    fn commit_what_is_due(&mut self, effects: &mut Vec<Effect>) -> Going {
        if let (Phase::Ours(ours), mut step) = self.split(effects)
            && let Some(why) = ours.settle(&mut step)?
        {
            self.end_soon(Some(Trouble::new(Cause::BadRecord, why)));
        }
        match self.split(effects) {
            (Phase::Ours(ours), mut step) => ours.commit_what_is_due(&mut step),
            _ => Ok(()),
        }
    }

    /// Counting cannot go on as it was.
    fn break_off(&mut self, why: Break, effects: &mut Vec<Effect>) {
        match why {
            Break::Fail(why) => self.end(Some(why), effects),
            Break::Reload(why) => {
                self.release(effects);
                self.stand_by(Side::Lease, why, effects);
            }
            Break::TakeAgain => {
                if let Phase::Ours(ours) = &self.phase {
                    let place = ours.place().clone();
                    let asked_at = self.now;
                    self.questions.void_all();
                    self.troubles.clear();
                    self.phase = Phase::Asking { place, asked_at };
                    effects.push(CatalogRequest::Acquire { over: None }.into());
                }
            }
            Break::ClocksApart(why) => {
                self.release(effects);
                self.stand_by(Side::Clocks, why, effects);
                if let Phase::Standby { place, .. } = &self.phase {
                    let (place, ask_at) = (place.clone(), self.ask_after_clocks_differed());
                    self.phase = Phase::Standby { place, ask_at };
                }
            }
            Break::Fenced(why) => self.stand_by(Side::Lease, why, effects),
        }
    }

    fn release(&self, effects: &mut Vec<Effect>) {
        if let Phase::Ours(ours) = &self.phase {
            effects.push(ours.release().into());
        }
    }

    /// Forgets what was known of the table, and asks for it again a little later.
    fn stand_by(&mut self, side: Side, why: impl Into<Trouble>, effects: &mut Vec<Effect>) {
        let Phase::Ours(ours) = &self.phase else {
            return;
        };
        let (place, ask_at) = (ours.place().clone(), self.now.plus(RETRY_MS));
        self.phase = Phase::Standby { place, ask_at };
        self.questions.void_all();
        self.troubles.clear();
        self.troubles.report(side, why);
        effects.push(Effect::StopAll);
    }

    /// When the table is asked for again whose clock differed from ours: so late that another
    /// process can take it meanwhile, and so soon that it goes on by itself when both are right.
    fn ask_after_clocks_differed(&self) -> Mono {
        self.now.plus(self.rules.lease_ms.clamp(RETRY_MS, 5000))
    }

    /// No more records are read; the engine ends after what is under way.
    fn end_soon(&mut self, why: Option<Trouble>) {
        if self.ending.is_none() {
            self.ending = Some(Ending {
                since: self.now,
                why,
            });
        }
    }

    /// Ends, where the end is due and nothing is under way that is worth waiting for.
    fn end_when_idle(&mut self, effects: &mut Vec<Effect>) {
        let busy = match &self.phase {
            Phase::Asking { .. } => true,
            Phase::Ours(ours) => ours.is_worth_waiting(),
            Phase::Over { .. } => return,
            Phase::Locating(_) | Phase::Standby { .. } => false,
        };
        if let Some(ending) = &self.ending {
            let waited = self.now.since(ending.since) >= ENDING_WAITS_MS;
            if !busy || waited {
                let why = ending.why.clone();
                self.end(why, effects);
            }
        }
    }

    fn end(&mut self, why: Option<Trouble>, effects: &mut Vec<Effect>) {
        effects.push(Effect::StopAll);
        self.release(effects);
        effects.push(Effect::Exit(why.clone()));
        let over = Phase::Over { why, last: None };
        if let Phase::Ours(ours) = std::mem::replace(&mut self.phase, over)
            && let Phase::Over { last, .. } = &mut self.phase
        {
            *last = Some(ours);
        }
    }
}
