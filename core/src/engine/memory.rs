//! The bound on memory, and flow control: which topic partitions wait, and for what. Only time and
//! memory are looked at. Nothing here decides about a record.
//!
//! What is counted: open windows, closed windows that are not final, late records and rejects, the
//! objects of the epoch that is on its way, and what the Kafka client may have fetched. Sums are
//! kept where records are counted, so asking costs little.
//!
//! | memory in use | what happens |
//! |---|---|
//! | half of the bound | commits come early, as soon as they would free a sixteenth of it |
//! | three quarters | all wait, except those with the least watermark: only these can free memory |
//! | the bound | all wait, whatever is waited for |
//!
//! Each step is left a little below where it begins, so that reading does not go on and off with
//! each record. A topic partition that is replayed never waits here: nothing can be committed
//! before the replay ends, and it ends in a state that fitted before.
//!
//! Example: the bound is 512 MiB, and S3 is away. Windows close, and their counts wait for the
//! epoch that cannot be stored. At 384 MiB only the topic partitions that are furthest behind are
//! read on, and at 512 MiB none is. S3 is back: the epoch lands, the next one takes all that has
//! been closed meanwhile, and everything is read again.
//!
//! When nothing is on its way and nothing can be committed, no waiting helps: open windows fill the
//! memory. Then [`stuck`] says so, with the settings that bound them.

use super::reading::Reading;
use super::step::Step;
use super::troubles::Side;
use crate::count::lane::Lane;
use crate::count::merger::{self, Lanes};
use crate::values::cause::{Cause, Trouble};
use crate::values::record::Partition;
use crate::values::time::Mono;
use std::collections::BTreeMap;

/// Between two early commits that free little, at least this long.
const EARLY_EVERY_MS: u64 = 1000;

/// How full the memory is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    /// Everything is read.
    #[default]
    Free,
    /// Only what can free memory is read.
    Tight,
    /// Nothing is read.
    Full,
}

/// The memory that one table takes.
#[derive(Debug, Default)]
pub(super) struct Memory {
    used: u64,
    level: Level,
}

/// Which topic partitions wait, each with the one that it waits for; `None` where it waits for
/// something else.
pub(super) type Holds = BTreeMap<Partition, Option<Partition>>;

impl Memory {
    /// What is in use, in bytes, as counted last.
    pub(super) fn used(&self) -> u64 {
        self.used
    }

    /// Whether some topic partitions wait until there is memory.
    pub(super) fn is_tight(&self) -> bool {
        self.level >= Level::Tight
    }

    /// Counts again what is in use. `flight` are the objects of the epoch on its way; `None` when
    /// none is.
    pub(super) fn count(&mut self, lanes: &Lanes, flight: Option<u64>, step: &Step<'_>) {
        let bound = step.rules.max_memory_bytes;
        let counted: usize = lanes.values().map(Lane::memory_bytes).sum();
        self.used = step.rules.fetched_bytes() + counted as u64 + flight.unwrap_or(0);
        // Where nothing will free memory by itself, the last eighth is not left unused.
        let nothing_comes = || flight.is_none() && committable(lanes) == 0;
        self.level = if self.used >= bound {
            Level::Full
        } else if self.level == Level::Full && self.used >= bound / 8 * 7 && !nothing_comes() {
            Level::Full
        } else if self.used >= bound / 4 * 3 || (self.is_tight() && self.used >= bound / 8 * 5) {
            Level::Tight
        } else {
            Level::Free
        };
    }

    /// Whether an epoch should be cut before its time, because that frees memory. Epochs that free
    /// little come no more often than each second.
    pub(super) fn wants_commit(
        &self,
        lanes: &Lanes,
        last_cut: Option<Mono>,
        step: &Step<'_>,
    ) -> bool {
        let bound = step.rules.max_memory_bytes;
        if self.used < bound / 2 {
            return false;
        }
        let frees = committable(lanes);
        let rested = last_cut.is_none_or(|at| step.now.since(at) >= EARLY_EVERY_MS);
        frees >= bound / 16 || (self.is_tight() && frees > 0 && rested)
    }

    /// Which topic partitions wait. `all` makes all of them wait, replays too.
    pub(super) fn holds(
        &self,
        lanes: &Lanes,
        reading: &Reading,
        (all, waits): (bool, bool),
        step: &Step<'_>,
    ) -> Holds {
        if all {
            return lanes.keys().map(|partition| (*partition, None)).collect();
        }
        let behind = |has_watermark: bool| {
            lanes
                .iter()
                .filter(|(partition, _)| !reading.is_idle(**partition, step.now))
                .map(|(partition, lane)| (lane.watermark(), *partition))
                .filter(|(watermark, _)| !has_watermark || watermark.is_some())
                .min()
        };
        // Until a topic partition has a watermark, no window of the table closes. What runs too far
        // ahead is measured by those that have one.
        let (least, slowest) = (behind(false), behind(true));
        let mut holds = Holds::new();
        for (partition, lane) in lanes {
            let watermark = lane.watermark();
            let ahead = least.is_some_and(|(least, _)| watermark > least);
            let skewed = slowest.is_some_and(|(least, _)| {
                watermark > least.map(|least| least.plus(step.rules.max_skew_ms))
            });
            // One that has nothing to read is let alone when nothing else can end the waiting: it
            // may come to stand aside, and then the others' windows are final.
            let may_end_it = !waits && !ahead && reading.is_at_end(*partition);
            let full = self.level == Level::Full && !may_end_it;
            let holds_back = skewed || full || (self.is_tight() && ahead);
            if holds_back && !lane.replaying() {
                let behind = if skewed {
                    slowest
                } else {
                    least.filter(|_| ahead)
                };
                holds.insert(*partition, behind.map(|(_, partition)| partition));
            }
        }
        holds
    }

    /// Says in the status when memory is full and nothing that is under way will change it.
    pub(super) fn report(&self, lanes: &Lanes, waits: bool, step: &mut Step<'_>) {
        if self.level == Level::Full && !waits && !lanes.values().any(Lane::replaying) {
            let trouble = stuck(lanes, step.rules.max_memory_bytes);
            step.troubles.report(Side::Memory, trouble);
        } else {
            step.troubles.end(Side::Memory);
        }
    }
}

/// What the next commit would free, in bytes.
pub(super) fn committable(lanes: &Lanes) -> u64 {
    let frontier = merger::frontier(lanes);
    let bytes = lanes.values().map(|lane| lane.committable_bytes(frontier));
    bytes.sum::<usize>() as u64
}

/// Memory is full, and nothing can be committed.
fn stuck(lanes: &Lanes, bound: u64) -> Trouble {
    let (partition, lane) = lanes
        .iter()
        .max_by_key(|(_, lane)| lane.open_bytes())
        .expect("memory is full of the counts of lanes");
    let open: usize = lanes.values().map(Lane::open_bytes).sum();
    let text = format!(
        "memory is full (max-memory {}): open windows take {}, most of it those of topic partition \
         {partition} with {} keys, and nothing can be committed before they close; give more with \
         max-memory, or choose a shorter window, slide or watermark-delay or a lower max-keys",
        shown(bound),
        shown(open as u64),
        lane.open_keys()
    );
    Trouble::new(Cause::Memory, text)
}

/// A size for people.
fn shown(bytes: u64) -> String {
    match bytes {
        ..10_240 => format!("{bytes} bytes"),
        10_240..10_485_760 => format!("{} KiB", bytes >> 10),
        _ => format!("{} MiB", bytes >> 20),
    }
}
