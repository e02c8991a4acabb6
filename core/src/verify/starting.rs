//! From which commit on the log can be counted again.
//!
//! A commit says of each topic partition where it stood, its watermark, and the greatest event time
//! that had moved it. All records before that place have that time or an earlier one. So a window
//! that starts after the greatest of these times, over all topic partitions, holds no record from
//! before: counted from there on without any open window, it gives exactly the row of the table.
//!
//! Example: the log begins at offset 500 of topic partition 0, because older records are deleted.
//!
//! | commit | next offset | newest event time | can be counted from here on |
//! |---|---|---|---|
//! | epoch 0 | 0 | – | no, records are gone |
//! | epoch 7 | 480 | 11:59:58 | no |
//! | epoch 8 | 530 | 12:00:08 | windows that start after 12:00:08 |
//! | epoch 9 | 590 | 12:00:19 | windows that start after 12:00:19 |
//!
//! Epoch 8 covers most. With `--from 12:05`, the last commit is chosen that still covers 12:05, so
//! that less is read.
//!
//! A count never goes across a new generation of a topic partition (a topic that was made again, or
//! was cut off), across counts that were lost, or across a commit that cannot be read: it starts at
//! the last commit that decided one, or later.

use crate::count::lane::{Adoption, LanePlace};
use crate::table::commit::{AdoptedTable, Commit, Genesis, LaneCommit};
use crate::table::history::History;
use crate::table::plausible::check_epoch;
use crate::values::decision::{Decided, Decision};
use crate::values::ledger::LaneLedger;
use crate::values::record::{Offset, Partition};
use crate::values::time::EventTime;
use std::collections::BTreeMap;

/// Where to begin, and with what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// The commit after which the log is read.
    pub epoch: u64,
    /// Where each topic partition begins. Those that joined later begin at their start offset.
    pub lanes: BTreeMap<Partition, LanePlace>,
    /// It begins with the table's first record, so the count must come to the very ledger.
    pub from_first: bool,
    /// Windows that start after this time are covered; `None` where all are.
    pub after: Option<EventTime>,
    /// What was decided after that commit, in order.
    pub decisions: Vec<Decision>,
}

/// Chooses where to begin. It is told of all commits, in order.
pub struct Chooser {
    /// The first offset of each topic partition that the log still has.
    log_start: BTreeMap<Partition, Offset>,
    /// The last commit's topic partitions.
    last: BTreeMap<Partition, LaneCommit>,
    /// The first window that is asked for.
    from: Option<EventTime>,
    /// Only windows that start after this time were counted by windrow, where it has adopted the
    /// table of another job.
    adopted: Option<EventTime>,
    in_force: InForce,
    /// What was decided, with the epoch that recorded it or, once that is folded, the last epoch
    /// that was folded with it.
    decisions: Vec<(u64, Decision)>,
    best: Option<Candidate>,
    /// Commits whose day manifest says more, from old to new.
    folded: Vec<Folded>,
    /// The last epoch that was told, alone or folded.
    told: Option<u64>,
    /// The epoch before which nothing can be counted again, and why, for people.
    broken_by: Option<(u64, String)>,
    /// How many commits were left out because the log does not reach back to them.
    too_old: u64,
}

/// What holds in each topic partition.
type InForce = BTreeMap<Partition, Standing>;

#[derive(Clone, Copy)]
struct Standing {
    delay_ms: i64,
    ceiling_ms: i64,
    adoption: Option<Adoption>,
}

impl Default for Standing {
    fn default() -> Self {
        Self {
            delay_ms: 0,
            ceiling_ms: i64::MIN,
            adoption: None,
        }
    }
}

struct Candidate {
    epoch: u64,
    lanes: BTreeMap<Partition, LaneCommit>,
    after: Option<EventTime>,
    in_force: InForce,
}

struct Folded {
    epoch: u64,
    manifest: String,
    in_force: InForce,
}

impl Chooser {
    /// `last` is the journal's last commit. `from` is the start of the first window that is asked
    /// for; `None` asks for as many as there are.
    #[must_use]
    pub fn new(
        log_start: BTreeMap<Partition, Offset>,
        last: &Commit,
        from: Option<EventTime>,
    ) -> Self {
        Self {
            log_start,
            last: last.lanes.clone(),
            from,
            adopted: None,
            in_force: InForce::new(),
            decisions: Vec::new(),
            best: None,
            folded: Vec::new(),
            told: None,
            broken_by: None,
            too_old: 0,
        }
    }

    /// Leaves the windows alone that another job has counted, where the table was adopted.
    #[must_use]
    pub fn beside_adopted(mut self, genesis: &Genesis) -> Self {
        // A window ends after `through` if and only if it starts after this.
        let last = |adopted: &AdoptedTable| adopted.through.minus(genesis.shape.window_ms);
        self.adopted = genesis.adopted.as_ref().map(last);
        self
    }

    /// Takes the next commit. One that cannot be read is left out: nothing is counted across it,
    /// because what it decided is not known.
    pub fn take_epoch(&mut self, commit: &Commit) {
        self.follow(commit.epoch, commit.epoch);
        self.take_decisions(commit.epoch, &commit.decisions);
        let next: BTreeMap<Partition, Offset> =
            commit.lanes.iter().map(|(p, lane)| (*p, lane.to)).collect();
        if !self.is_in_log(&next) {
            self.too_old += 1;
            return;
        }
        let covers = self.covers(&commit.lanes);
        if (self.best.is_none() || covers)
            && let Some(candidate) = Candidate::of(commit, self.in_force.clone())
        {
            self.best = Some(candidate);
        }
    }

    /// Takes commits that are folded. The key is that of their day manifest, and empty where that
    /// was deleted, because the log no longer has what they read.
    pub fn take_history(&mut self, history: &History, manifest: &str) {
        self.follow(history.first_epoch, history.last_epoch);
        self.take_decisions(history.last_epoch, &history.decisions);
        let next = history.offsets.iter().map(|(p, (_, to))| (*p, *to));
        if !manifest.is_empty() && self.is_in_log(&next.collect()) {
            self.folded.push(Folded {
                epoch: history.last_epoch,
                manifest: manifest.to_owned(),
                in_force: self.in_force.clone(),
            });
        } else {
            self.too_old += 1;
        }
    }

    fn follow(&mut self, first: u64, last: u64) {
        let next = self.told.map_or(0, |told| told + 1);
        if first != next {
            let why = format!("epoch {next} is missing or cannot be read");
            self.break_off(first, why);
        }
        self.told = Some(last);
    }

    /// Nothing is counted across this epoch.
    fn break_off(&mut self, epoch: u64, why: String) {
        (self.best, self.folded) = (None, Vec::new());
        self.decisions.clear();
        self.broken_by = Some((epoch, why));
    }

    fn take_decisions(&mut self, epoch: u64, decisions: &[Decision]) {
        let mut broken_by = None;
        for decision in decisions {
            let standing = self.in_force.entry(decision.partition).or_default();
            match &decision.what {
                Decided::Delay { ms } => standing.delay_ms = *ms,
                Decided::Ceiling { at } => standing.ceiling_ms = at.0,
                Decided::Adopted { through, to } => {
                    let (through, to) = (*through, *to);
                    standing.adoption = Some(Adoption { through, to });
                }
                Decided::CountsLost {
                    delay_ms,
                    ceiling: at,
                    reason,
                    ..
                } => {
                    *standing = Standing {
                        delay_ms: *delay_ms,
                        ceiling_ms: at.0,
                        adoption: None,
                    };
                    broken_by = Some(reason.clone());
                }
                Decided::Generation { reason, .. } => {
                    standing.adoption = None;
                    broken_by = Some(reason.clone());
                }
                Decided::Floor { .. } | Decided::Lost { .. } => {}
            }
        }
        if let Some(why) = broken_by {
            self.break_off(epoch, why);
        }
        let decisions = decisions.iter().cloned();
        self.decisions.extend(decisions.map(|d| (epoch, d)));
    }

    /// Whether the log has all that comes after these next offsets.
    fn is_in_log(&self, next: &BTreeMap<Partition, Offset>) -> bool {
        self.last.iter().all(|(partition, last)| {
            let begin = next.get(partition).copied();
            let begin = begin.unwrap_or(last.ledger.start_offset);
            let first = self.log_start.get(partition);
            begin <= last.to && first.is_some_and(|first| begin >= *first || begin == last.to)
        })
    }

    /// Whether a count from these places on covers the first window that is asked for, so that a
    /// later commit which does so as well is better. Without such a window none is.
    fn covers(&self, lanes: &BTreeMap<Partition, LaneCommit>) -> bool {
        let newest = lanes.values().filter_map(|lane| lane.newest).max();
        self.from
            .is_some_and(|from| newest.is_none_or(|newest| newest < from))
    }

    /// The key of a day manifest that says more of a commit which may be a better beginning; `None`
    /// when nothing more must be known. Answer with [`Chooser::give`].
    #[must_use]
    pub fn wanted(&self) -> Option<&str> {
        self.next_folded().map(|at| &*self.folded[at].manifest)
    }

    fn next_folded(&self) -> Option<usize> {
        let before_best = |folded: &Folded| {
            let best = self.best.as_ref();
            best.is_none_or(|best| folded.epoch < best.epoch)
        };
        if self.from.is_none() {
            // The earliest covers most.
            return self.folded.first().filter(|f| before_best(f)).map(|_| 0);
        }
        let best = self.best.as_ref();
        let best_covers = best.is_some_and(|best| self.covers(&best.lanes));
        let last = self.folded.len().checked_sub(1)?;
        let is_better = if best_covers {
            !before_best(&self.folded[last])
        } else {
            before_best(&self.folded[last])
        };
        is_better.then_some(last)
    }

    /// Takes the last commit that the wanted day manifest names; `None` where the manifest cannot
    /// be read.
    pub fn give(&mut self, commit: Option<&Commit>) {
        let Some(at) = self.next_folded() else { return };
        let folded = self.folded.remove(at);
        let Some(commit) = commit.filter(|commit| commit.epoch == folded.epoch) else {
            return;
        };
        let Some(candidate) = Candidate::of(commit, folded.in_force) else {
            return;
        };
        let covers = self.covers(&candidate.lanes);
        let best = self.best.as_ref();
        if covers || best.is_none_or(|best| !self.covers(&best.lanes)) {
            self.best = Some(candidate);
        }
        if self.from.is_none() || covers {
            self.folded.clear();
        }
    }

    /// What should be said of the choice, as whole sentences.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if let Some((epoch, why)) = &self.broken_by {
            notes.push(format!(
                "what was counted before epoch {epoch} cannot be counted again: {why}"
            ));
        }
        if self.too_old > 0 {
            notes.push(
                "the log no longer has the table's first records, so older windows were compared \
                 with the journal only"
                    .to_owned(),
            );
        }
        notes
    }

    /// The choice; `None` where the log cannot be counted from any commit on.
    #[must_use]
    pub fn choose(self) -> Option<Start> {
        let best = self.best?;
        let place = |(partition, last): (&Partition, &LaneCommit)| {
            let standing = best.in_force.get(partition).copied();
            let Standing {
                delay_ms,
                ceiling_ms,
                adoption,
            } = standing
                .filter(|_| best.lanes.contains_key(partition))
                .unwrap_or_default();
            let place = match best.lanes.get(partition) {
                Some(lane) => LanePlace {
                    ledger: lane.ledger,
                    watermark: lane.watermark,
                    newest: lane.newest,
                    delay_ms,
                    ceiling_ms,
                    adoption,
                },
                None => LanePlace {
                    ledger: LaneLedger {
                        start_offset: last.ledger.start_offset,
                        next_offset: last.ledger.start_offset,
                        ..LaneLedger::default()
                    },
                    watermark: None,
                    newest: None,
                    delay_ms,
                    ceiling_ms,
                    adoption,
                },
            };
            (*partition, place)
        };
        let later = self.decisions.into_iter();
        let decisions = later.filter(|(epoch, _)| *epoch > best.epoch);
        Some(Start {
            epoch: best.epoch,
            lanes: self.last.iter().map(place).collect(),
            from_first: best.after.is_none(),
            after: best.after.max(self.adopted),
            decisions: decisions.map(|(_, decision)| decision).collect(),
        })
    }
}

impl Candidate {
    /// `None` where the commit does not say how new its newest record is, or cannot be reckoned
    /// with.
    fn of(commit: &Commit, in_force: InForce) -> Option<Self> {
        let says = |lane: &LaneCommit| lane.newest.is_some() || lane.ledger.counted == 0;
        let can_be = |lane: &LaneCommit| lane.ledger.check().is_ok_and(|()| says(lane));
        let is_fine = check_epoch(commit).is_ok() && commit.lanes.values().all(can_be);
        is_fine.then(|| Self {
            epoch: commit.epoch,
            lanes: commit.lanes.clone(),
            after: commit.lanes.values().filter_map(|lane| lane.newest).max(),
            in_force,
        })
    }
}
