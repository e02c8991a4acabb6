//! The bound on memory, and flow control: which topic partitions wait, and for what. Only time and
//! memory are looked at. Nothing here decides about a record.
//!
//! What is counted: open windows, closed windows that are not final, late records and rejects,
//! decisions that are not committed, the objects of the epoch that is on its way, and what the
//! Kafka client may have fetched. Sums are kept where records are counted, so asking costs little.
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
//! When what is on its way and what can be committed do not bring it below the bound, no waiting
//! helps: open windows fill the memory. Then [`stuck`] says so, with the settings that bound them.

use super::reading::{Holds, Reading};
use super::step::Step;
use super::troubles::Side;
use crate::count::lane::Lane;
use crate::count::merger::{self, Lanes};
use crate::values::cause::{Cause, Trouble};
use crate::values::time::Mono;

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
        // Where what is under way will not bring it below that, the last eighth is not left unused.
        let will_free = || flight.unwrap_or(0) + committable(lanes);
        let stays_full = || {
            let was_full = self.level == Level::Full && self.used >= bound / 8 * 7;
            was_full && self.used.saturating_sub(will_free()) < bound / 8 * 7
        };
        self.level = if self.used >= bound || stays_full() {
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
                .map(|(partition, lane)| (lane.watermark_without_loss(), *partition))
                .filter(|(watermark, _)| !has_watermark || watermark.is_some())
                .min()
        };
        // Until a topic partition has a watermark, no window of the table closes. What runs too far
        // ahead is measured by those that have one.
        let (least, slowest) = (behind(false), behind(true));
        let mut holds = Holds::new();
        for (partition, lane) in lanes {
            let watermark = lane.watermark_without_loss();
            let ahead = least.is_some_and(|(least, _)| watermark > least);
            let skewed = slowest.is_some_and(|(least, _)| {
                watermark > least.map(|least| least.plus(step.rules.max_skew_ms))
            });
            // One that has nothing to read is let alone when nothing else can end the waiting: it
            // may come to stand aside, and then the others' windows are final.
            let may_end_it =
                !waits && !ahead && reading.is_at_end(*partition, lane.ledger.next_offset);
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
    ///
    /// Example: the bound is 512 MiB, and open windows take 520. A topic partition that stands
    /// aside brings a reject a second, and each is committed. That frees a few hundred bytes, so
    /// memory is full before, after and meanwhile.
    pub(super) fn report(&self, lanes: &Lanes, flight: Option<u64>, step: &mut Step<'_>) {
        let bound = step.rules.max_memory_bytes;
        let stays = || {
            self.used
                .saturating_sub(flight.unwrap_or(0) + committable(lanes))
        };
        let is_stuck = self.used >= bound && stays() >= bound;
        if is_stuck && !lanes.values().any(Lane::replaying) {
            let trouble = stuck(lanes, bound);
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

/// Memory is full of open windows.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::rules::Rules;
    use crate::engine::step::in_a_step;
    use crate::values::record::{Batch, Partition, Record};

    const MIB: u64 = 1 << 20;

    fn rules(max_memory_bytes: u64) -> Rules {
        Rules {
            max_memory_bytes,
            ..Rules::for_tests()
        }
    }

    struct One(i64, Vec<u8>);

    impl Batch for One {
        fn each(&self, f: &mut dyn FnMut(Record<'_>)) {
            for offset in 0..self.0 {
                f(Record {
                    offset,
                    timestamp_ms: 1_700_000_000_000 + offset * 1000,
                    value: Some(&self.1),
                });
            }
        }
    }

    /// Lanes with these many records, one a second.
    fn lanes(rules: &Rules, records: &[i64]) -> (Lanes, Reading) {
        let (mut lanes, mut reading) = (Lanes::new(), Reading::default());
        for (partition, n) in (0..).zip(records) {
            let mut lane = Lane::new(partition, &rules.shape, 0);
            lane.set_delay(0);
            lane.offer_ceiling(crate::values::time::EventTime(i64::MAX));
            lane.records(&One(*n, br#"{"origin": "a"}"#.to_vec()));
            lane.take_decisions();
            lanes.insert(partition, lane);
            reading.add(partition, Mono(0));
        }
        (lanes, reading)
    }

    /// Which topic partitions wait, and for which, when so much is in use.
    fn waiting(records: &[i64], flight: u64) -> (Memory, Vec<(Partition, Option<Partition>)>) {
        let rules = rules(MIB);
        let (lanes, reading) = lanes(&rules, records);
        let mut memory = Memory::default();
        let holds = in_a_step(0, &rules, |step| {
            memory.count(&lanes, Some(flight), step);
            memory.holds(&lanes, &reading, (false, true), step)
        });
        (memory, holds.into_iter().collect())
    }

    #[test]
    fn at_three_quarters_all_wait_for_the_one_that_is_furthest_behind() {
        let (_, holds) = waiting(&[90, 20, 60], MIB / 2);
        assert_eq!(holds, []);
        let (_, holds) = waiting(&[90, 20, 60], MIB / 4 * 3);
        assert_eq!(holds, [(0, Some(1)), (2, Some(1))]);
        // One without a watermark is furthest behind.
        let (_, holds) = waiting(&[90, 20, 0], MIB / 4 * 3);
        assert_eq!(holds, [(0, Some(2)), (1, Some(2))]);
    }

    #[test]
    fn at_the_bound_all_wait() {
        let (_, holds) = waiting(&[90, 20], MIB);
        assert_eq!(holds, [(0, Some(1)), (1, None)]);
    }

    #[test]
    fn holds_do_not_flap_at_the_borders() {
        use Level::{Free, Full, Tight};
        let (rules, mut memory) = (rules(MIB), Memory::default());
        for (sixteenths, level) in [
            (10, Free),
            (12, Tight),
            (11, Tight),
            (10, Tight),
            (9, Free),
            (16, Full),
            (15, Full),
            (14, Full),
            (13, Tight),
            (9, Free),
        ] {
            let flight = MIB / 16 * sixteenths - rules.fetched_bytes();
            in_a_step(0, &rules, |step| {
                memory.count(&Lanes::new(), Some(flight), step)
            });
            assert_eq!(memory.level, level, "{sixteenths}");
        }
        // What is left is used where nothing else is on its way.
        memory.level = Full;
        let lanes = Lanes::new();
        in_a_step(0, &rules, |step| {
            memory.count(&lanes, Some(MIB / 16 * 14), step);
            assert_eq!(memory.level, Full);
            memory.level = Tight;
            memory.count(&lanes, None, step);
            assert_eq!(memory.level, Free);
        });
    }

    /// An epoch that frees little was always on its way, so nothing was read that could free more.
    #[test]
    fn memory_that_an_epoch_does_not_free_is_used_up_to_the_bound() {
        let plenty = rules(MIB);
        // Nothing is final without a watermark of topic partition 1.
        let (lanes, _) = lanes(&plenty, &[90, 0]);
        let counted: usize = lanes.values().map(Lane::memory_bytes).sum();
        let rules = rules(counted as u64 / 14 * 16);
        let mut memory = Memory {
            level: Level::Full,
            ..Memory::default()
        };
        in_a_step(0, &rules, |step| memory.count(&lanes, Some(10), step));
        assert!(memory.used >= rules.max_memory_bytes / 8 * 7);
        assert_eq!(memory.level, Level::Tight);
    }

    #[test]
    fn memory_is_said_to_be_full_while_rejects_that_free_little_are_committed() {
        let plenty = rules(MIB);
        // Nothing is final without a watermark of topic partition 1.
        let (lanes, _) = lanes(&plenty, &[90, 0]);
        let counted: usize = lanes.values().map(Lane::memory_bytes).sum();
        let bound = counted as u64;
        let is_said = |flight: Option<u64>, bound: u64| {
            in_a_step(0, &rules(bound), |step| {
                let mut memory = Memory::default();
                memory.count(&lanes, flight, step);
                memory.report(&lanes, flight, step);
                step.troubles.of(Side::Memory).is_some()
            })
        };
        assert!(is_said(None, bound));
        assert!(is_said(Some(195), bound), "a reject is on its way");
        // Here an epoch is on its way that frees enough.
        assert!(!is_said(Some(2 * bound), 2 * bound));
    }

    #[test]
    fn full_memory_names_the_topic_partition_and_the_settings_that_bound_it() {
        let rules = rules(MIB);
        let (lanes, _) = lanes(&rules, &[3, 1000]);
        let trouble = stuck(&lanes, 512 * MIB);
        assert_eq!(trouble.cause, Some(Cause::Memory));
        for word in [
            "topic partition 1 ",
            "512 MiB",
            "max-memory",
            "window",
            "slide",
            "watermark-delay",
            "max-keys",
        ] {
            assert!(trouble.text.contains(word), "{word}: {}", trouble.text);
        }
    }
}
