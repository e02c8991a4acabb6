//! What the auditor asks of the floors that come with time: who was taken for idle, and how far its
//! watermark was raised. Both are derived from what the process heard, not from its decisions.

use crate::process::Look;
use crate::world::World;
use std::collections::BTreeMap;
use windrow_core::count::lane::Lane;
use windrow_core::values::decision::Decided;
use windrow_core::values::record::Partition;
use windrow_core::values::time::EventTime;

/// So long ago at most was the end of a log reached, by which its topic partition stands aside.
const REACHED_MS: u64 = 2000;

/// The watermarks of all lanes of a process.
pub type Watermarks = BTreeMap<Partition, Option<EventTime>>;

impl World {
    /// Who was taken for idle had read all that there was when the log's end was looked at, a
    /// short while ago, and had had no sign of life for `idle-timeout`; and no watermark was
    /// raised further than that look allows.
    pub fn idle_floors_are_right(&self, i: usize, before: &Watermarks) -> Result<(), String> {
        let process = &self.processes[i];
        // What is read of another topic than the committed one never counts.
        let other = self
            .catalog
            .epochs
            .last()
            .is_some_and(|(c, _)| c.topic_id != self.topic().id);
        let gone = |p: &Partition| !self.topic().logs.contains_key(p);
        if other || before.keys().any(gone) {
            return Ok(());
        }
        for (p, lane) in process.engine.lanes() {
            // No record came with the time: only a floor moves a watermark then, and each needs a
            // look.
            let raised = lane.watermark();
            if before.get(p).is_none_or(|before| *before == raised) {
                continue;
            }
            let now = self.now - process.clocks.slept;
            let lived = process.lived.get(p).copied().unwrap_or(0);
            // The whole topic may be quiet for a shorter time than that.
            let quiet = process
                .settings
                .quiet_timeout_ms
                .is_some_and(|quiet_ms| now - lived >= quiet_ms && raised <= self.last_end_read(i));
            if now - lived < process.settings.idle_timeout_ms && !quiet {
                return Err(format!(
                    "topic partition {p} was taken for idle at {now}, but it counted at {lived}"
                ));
            }
            let looks = self.looks(i, *p);
            if looks.is_empty() {
                return Err(format!(
                    "topic partition {p} was taken for idle at offset {} at {}, but the looks were \
                     {:?}",
                    lane.ledger.next_offset,
                    self.now,
                    process.looks.get(p)
                ));
            }
            let known = looks.iter().filter_map(|look| look.greatest).max();
            let most = known.min(self.least_of_those_that_read(i, before));
            let quiet = process.settings.quiet_timeout_ms.is_some();
            if raised > most && !(quiet && raised <= self.last_end_read(i)) {
                return Err(format!(
                    "the floor of topic partition {p} is {raised:?}, must be at most {most:?}: \
                     the watermarks were {before:?}, the looks {looks:?}"
                ));
            }
        }
        Ok(())
    }

    /// The looks at a log's end by which its topic partition may stand aside now.
    fn looks(&self, i: usize, p: Partition) -> Vec<Look> {
        let process = &self.processes[i];
        let rules = &process.settings;
        let most = rules.idle_timeout_ms.max(rules.limits.idle_holds_ms) + 1000;
        let next = process.engine.lanes()[&p].ledger.next_offset;
        let looks = process.looks.get(&p).map_or(&[][..], |looks| looks);
        // By the monotonic time of its machine, which may have slept.
        let now = self.now - process.clocks.slept;
        // It may have taken long to read to that end.
        let is_new = |at: u64, most: u64| now.saturating_sub(at) <= most;
        let seen = |look: &&Look| {
            let fresh =
                is_new(look.at, most) || look.reached_at.is_some_and(|at| is_new(at, REACHED_MS));
            look.proves_something && look.end <= next && fresh
        };
        looks.iter().filter(seen).copied().collect()
    }

    /// The least watermark of the topic partitions that cannot stand aside, because nobody has seen
    /// the end of their logs; where there is none, the greatest of all.
    fn least_of_those_that_read(&self, i: usize, before: &Watermarks) -> Option<EventTime> {
        let reads = |p: &Partition| self.looks(i, *p).is_empty();
        let reading = before.iter().filter(|(p, _)| reads(p));
        let least = reading.map(|(_, watermark)| *watermark).min();
        least.unwrap_or_else(|| before.values().copied().max().flatten())
    }

    /// The end of the last window that a record falls in which the process has read.
    fn last_end_read(&self, i: usize) -> Option<EventTime> {
        let shape = &self.settings.shape;
        let lanes = self.processes[i].engine.lanes();
        let read = lanes.iter().flat_map(|(p, lane)| {
            let until = self.greatest_ceiling(*p, lane);
            let log = self.topic().logs.get(p);
            // What was read before a log was cut off may be open still.
            let logs = log
                .into_iter()
                .flat_map(|log| [Some(log), log.before.as_deref()]);
            logs.flatten().flat_map(move |log| {
                let all = log.records.values().map(|record| record.time);
                all.filter(move |time| *time <= until)
            })
        });
        let slide = shape.slide_ms;
        let end = |time: i64| {
            let start = (time - shape.offset_ms).div_euclid(slide) * slide + shape.offset_ms;
            EventTime(start + shape.window_ms)
        };
        // Windows of an earlier topic may be open, too.
        let earlier = self.topics.len() > 1;
        read.max()
            .map(end)
            .max(earlier.then_some(EventTime(i64::MAX)))
    }

    /// The greatest ceiling that any record of a lane was judged by. The one in force may be lower,
    /// because a clock was set back or `max-future` was made shorter; windows that were opened
    /// before are still there.
    fn greatest_ceiling(&self, p: Partition, lane: &Lane) -> i64 {
        let decided = self.decisions().chain(&lane.decisions);
        let ceilings = decided
            .filter(|decision| decision.partition == p)
            .filter_map(|decision| match &decision.what {
                Decided::Ceiling { at } | Decided::CountsLost { ceiling: at, .. } => Some(at.0),
                _ => None,
            });
        ceilings.fold(lane.ceiling(), i64::max)
    }
}
