//! What the owners share while one input is handled, and how they say that counting cannot go on as
//! it was.

use super::conversation::Effect;
use super::questions::Questions;
use super::rules::Rules;
use super::troubles::Troubles;
use crate::table::commit::ClockBound;
use crate::table::place::Names;
use crate::values::cause::Trouble;
use crate::values::time::{EventTime, Mono, WallTime};

/// What every owner may read and use during one step.
pub(super) struct Step<'a> {
    pub(super) now: Mono,
    /// The machine's wall clock, read with `now`.
    pub(super) wall: WallTime,
    /// By which clock records are judged, and what is written is written. `None` while the clocks
    /// differ: then nothing is read, committed or deleted.
    pub(super) clock: Option<ClockBound>,
    /// By how many milliseconds the clocks differ, although they agree well enough for records.
    pub(super) clocks_differ_ms: u64,
    pub(super) rules: &'a Rules,
    pub(super) names: &'a Names,
    pub(super) troubles: &'a mut Troubles,
    pub(super) questions: &'a mut Questions,
    /// An operator's pause is in force.
    pub(super) paused: bool,
    /// No more records are read; the last commit is on its way.
    pub(super) ending: bool,
    pub(super) effects: &'a mut Vec<Effect>,
}

impl Step<'_> {
    /// Asks one of the systems around windrow.
    pub(super) fn ask(&mut self, request: impl Into<Effect>) {
        self.effects.push(request.into());
    }

    /// Has something else done.
    pub(super) fn effect(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    /// The greatest event time that is not from the future now; `None` while the clocks differ.
    pub(super) fn ceiling(&self) -> Option<EventTime> {
        let now = EventTime(self.clock?.expected.0);
        Some(now.plus(self.rules.max_future_ms))
    }

    /// The table's name as people write it: `default.newtable`.
    pub(super) fn table(&self) -> String {
        format!("{}.{}", self.rules.database, self.rules.table)
    }
}

/// Why counting cannot go on as it was.
#[derive(Debug)]
pub(super) enum Break {
    /// Another process has the table, or the journal differs from what we thought: forget
    /// everything, and ask for the table again.
    Fenced(String),
    /// The same, but the table is still ours: it is given back first.
    Reload(String),
    /// Epochs were committed from the store: the table is still ours, and is read anew.
    TakeAgain,
    /// The clocks have differed for longer than a lease, and the wrong one may be this machine's:
    /// the table is given back, and asked for again later.
    ClocksApart(Trouble),
    /// Stop for good; the process ends with this reason.
    Fail(Trouble),
}

impl Break {
    /// A reason to stop for good that has no cause of its own.
    pub(super) fn fail(why: impl Into<Trouble>) -> Self {
        Break::Fail(why.into())
    }
}

/// Whether counting goes on.
pub(super) type Going = Result<(), Break>;

/// Runs `f` in a step at this time, in which nothing is told, paused or ending.
#[cfg(test)]
pub(super) fn in_a_step<T>(now: u64, rules: &Rules, f: impl FnOnce(&mut Step<'_>) -> T) -> T {
    f(&mut Step {
        now: Mono(now),
        wall: WallTime(0),
        clock: None,
        clocks_differ_ms: 0,
        rules,
        names: &Names::new("default", "t"),
        troubles: &mut Troubles::default(),
        questions: &mut Questions::default(),
        paused: false,
        ending: false,
        effects: &mut Vec::new(),
    })
}
