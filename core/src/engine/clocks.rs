//! Two clocks witness what time it is: the database's, as last heard, and the machine's wall clock.
//! From both follows the ceiling, or the reason why nothing is read and committed. No clock is read
//! here.
//!
//! One clock alone is not enough. What was heard of the database's clock is carried on by monotonic
//! time, which stands still while the machine sleeps: two hours later, records of that moment would
//! be from the future. And a wall clock may be wrong by years.
//!
//! | what happens | database's | machine's | what follows |
//! |---|---|---|---|
//! | the machine slept for 2 h | 2 h behind, until heard again | right | it is heard at once |
//! | the database's clock is set back | wrong | right | reading holds, nothing is committed |
//! | windrow's machine has a wrong clock | right | wrong | the same; the table is given back |

use super::step::Step;
use crate::table::commit::ClockBound;
use crate::values::cause::{Cause, Trouble};
use crate::values::time::{DbTime, EventTime, Mono, WallTime, about_duration};

/// Clocks that differ by no more than this agree, however short `max-future` is.
const AGREE_MS: u64 = 60_000;
/// For so long nothing is said of a difference while the database's clock is being heard again.
const UNCONFIRMED_MS: u64 = 5000;

/// Both clocks, beside the machine's monotonic time.
#[derive(Debug)]
pub(super) struct Clocks {
    heard: Heard,
    wall: WallTime,
    now: Mono,
    /// How far they may differ.
    apart_max_ms: u64,
    /// When the last commit was. By this one knows which clock was set back while windrow did not
    /// run.
    committed_at: Option<DbTime>,
    /// The last moment at which both agreed. By this one knows which clock was set.
    agreed: Option<Agreed>,
    apart: Option<Apart>,
}

/// A reading of the database's clock.
#[derive(Clone, Copy, Debug)]
struct Heard {
    clock: DbTime,
    /// It was read at this time or later.
    asked_at: Mono,
    /// It was read at this time or earlier.
    answered_at: Mono,
}

/// Both clocks at a moment at which they agreed.
#[derive(Clone, Copy, Debug)]
struct Agreed {
    now: Mono,
    database: DbTime,
    machine: WallTime,
}

/// The clocks differ by too much.
#[derive(Debug)]
struct Apart {
    since: Mono,
    /// The database's clock was heard since. Before that they may only seem to differ, as after a
    /// sleep.
    confirmed: bool,
    /// By how much they differed when this was said, and what.
    said: Option<(u64, Trouble)>,
}

impl Clocks {
    /// The clocks as they were heard with the table. `clock` is the database's, `asked_at` when it
    /// was asked for.
    pub(super) fn new(
        clock: DbTime,
        asked_at: Mono,
        committed_at: Option<DbTime>,
        step: &Step<'_>,
    ) -> Self {
        let mut clocks = Self {
            heard: Heard {
                clock,
                asked_at,
                answered_at: step.now,
            },
            wall: step.wall,
            now: step.now,
            apart_max_ms: step.rules.max_future_ms.unsigned_abs().max(AGREE_MS),
            committed_at,
            agreed: None,
            apart: None,
        };
        clocks.compare(true);
        clocks
    }

    /// Time has gone on, by the machine's clocks.
    pub(super) fn tick(&mut self, now: Mono, wall: WallTime) {
        (self.now, self.wall) = (now, wall);
        self.compare(false);
    }

    /// Takes another reading of the database's clock.
    pub(super) fn hear(&mut self, clock: DbTime, asked_at: Mono, step: &Step<'_>) {
        (self.now, self.wall) = (step.now, step.wall);
        self.heard = Heard {
            clock,
            asked_at,
            answered_at: step.now,
        };
        self.compare(true);
    }

    /// An epoch was committed at this time.
    pub(super) fn note_commit(&mut self, at: DbTime) {
        self.committed_at = self.committed_at.max(Some(at));
    }

    /// Whether the clocks differ by too much: nothing is read, committed or deleted.
    pub(super) fn are_apart(&self) -> bool {
        self.apart.is_some()
    }

    /// Whether they have differed for so long, and not only seemed to.
    pub(super) fn are_apart_for(&self, ms: u64) -> bool {
        let long = |apart: &Apart| apart.confirmed && self.now.since(apart.since) >= ms;
        self.apart.as_ref().is_some_and(long)
    }

    /// What is said of clocks that differ, if anything yet.
    pub(super) fn trouble(&self) -> Option<&Trouble> {
        self.apart.as_ref()?.said.as_ref().map(|(_, why)| why)
    }

    /// By which clock records are judged, and what is written is written: the greater of both, and
    /// how far the database's may be from it when something is written. `None` while they differ.
    /// And by how many milliseconds they differ.
    pub(super) fn bound(&self) -> (Option<ClockBound>, u64) {
        let bound = (!self.are_apart()).then(|| ClockBound {
            expected: self.greater(),
            off_max_ms: self.apart_max_ms,
        });
        (bound, self.differ_by())
    }

    fn greater(&self) -> DbTime {
        self.database().0.max(DbTime(self.wall.0))
    }

    /// The database's clock of now: the earliest and the latest that it can read. They differ by
    /// the time that the answer was on its way, so that a late answer puts it neither ahead nor
    /// behind.
    fn database(&self) -> (DbTime, DbTime) {
        let at = |then: Mono| {
            let since = i64::try_from(self.now.since(then)).unwrap_or(i64::MAX);
            DbTime(self.heard.clock.0.saturating_add(since))
        };
        (at(self.heard.answered_at), at(self.heard.asked_at))
    }

    fn differ_by(&self) -> u64 {
        let (earliest, latest) = self.database();
        let wall = self.wall.0;
        if wall < earliest.0 {
            earliest.0.abs_diff(wall)
        } else if wall > latest.0 {
            wall.abs_diff(latest.0)
        } else {
            0
        }
    }

    /// Compares both. `heard` says that the database's clock was just heard.
    fn compare(&mut self, heard: bool) {
        let (differ_by, database) = (self.differ_by(), self.database().0);
        if differ_by <= self.apart_max_ms {
            self.apart = None;
            self.agreed = Some(Agreed {
                now: self.now,
                database,
                machine: self.wall,
            });
            return;
        }
        let mut apart = self.apart.take().unwrap_or(Apart {
            since: self.now,
            confirmed: false,
            said: None,
        });
        let confirmed_now = heard && !apart.confirmed;
        apart.confirmed |= heard;
        let due = apart.confirmed || self.now.since(apart.since) >= UNCONFIRMED_MS;
        // The text stays while the difference does, because whoever watches is told of each change.
        let stays = |(then, _): &(u64, Trouble)| then.abs_diff(differ_by) <= self.apart_max_ms;
        if due && (confirmed_now || !apart.said.as_ref().is_some_and(stays)) {
            let why = if apart.confirmed {
                self.describe(differ_by)
            } else {
                Trouble::from(format!(
                    "this machine's clock has moved by {} (it slept, or was set): waiting for the \
                     database to say what time it is",
                    about_duration(differ_by)
                ))
            };
            apart.said = Some((differ_by, why));
        }
        self.apart = Some(apart);
    }

    fn describe(&self, differ_by: u64) -> Trouble {
        let seconds = |ms: i64| EventTime(ms.div_euclid(1000).saturating_mul(1000));
        let text = format!(
            "the clocks differ by {}: the database's says {}, this machine's says {}; correct {}, \
             and run NTP on both machines",
            about_duration(differ_by),
            seconds(self.database().0.0),
            seconds(self.wall.0),
            self.wrong_one()
        );
        Trouble::new(Cause::Clocks, text)
    }

    /// Which clock to correct: the one that has moved most since both agreed, else the one that is
    /// before the last commit, which both had agreed on.
    fn wrong_one(&self) -> &'static str {
        let (database, machine) = ("the database's clock", "this machine's clock");
        let (db_now, wall_now) = (self.database().0.0, self.wall.0);
        if let Some(then) = self.agreed {
            let since = i64::try_from(self.now.since(then.now)).unwrap_or(i64::MAX);
            let moved = |from: i64, to: i64| from.saturating_add(since).abs_diff(to);
            return if moved(then.database.0, db_now) > moved(then.machine.0, wall_now) {
                database
            } else {
                machine
            };
        }
        match self.committed_at {
            Some(at) if db_now < at.0 && wall_now >= at.0 => database,
            Some(at) if wall_now < at.0 && db_now >= at.0 => machine,
            _ => "whichever is wrong",
        }
    }
}

/// Whether both say the same of clocks that differ, except what the clocks say: a text that changed
/// with each look would be news each time.
pub(super) fn same_difference(then: &Trouble, now: &Trouble) -> bool {
    let headline = |why: &Trouble| why.text.split(": ").next().map(str::to_owned);
    then.cause == now.cause && headline(then) == headline(now)
}
