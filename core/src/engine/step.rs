//! What the owners share while one input is handled, and how they say that counting cannot go on as
//! it was.

use super::conversation::Effect;
use super::questions::Questions;
use super::rules::Rules;
use super::troubles::Troubles;
use crate::table::place::Names;
use crate::values::cause::Trouble;
use crate::values::time::Mono;

/// What every owner may read and use during one step.
pub(super) struct Step<'a> {
    pub(super) now: Mono,
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
