//! How the log itself comes to harm, and the checkpoints.

use crate::topic::Topic;
use crate::world::World;
use std::sync::Arc;
use windrow_core::table::commit::CheckpointAt;
use windrow_core::values::record::{Offset, Partition};

impl World {
    /// The log itself comes to harm. Unless that is drawn, only records expire that no restart
    /// needs.
    pub fn harm_log(&mut self) {
        let shape = &self.settings.shape;
        let made = self.topics.len();
        let p = self.rng.below(self.topic().logs.len() as u64) as Partition;
        let needed_from = self.needed_from(p);
        let topic = self.topics.last_mut().expect("one at least");
        let topic_id = topic.id.clone();
        let log = topic.logs.get_mut(&p).expect("drawn");
        match self.rng.below(8) {
            0 => {
                let to = if self.faults.log_is_harmed {
                    log.start + self.rng.below((log.visible - log.start) as u64 + 1) as Offset
                } else {
                    needed_from
                };
                log.expire(to);
            }
            1..=5
                if self.faults.log_is_harmed && log.before.is_none() && log.visible > log.start =>
            {
                // Mostly it is cut below what is committed, else near the end, where readers are.
                let committed = self
                    .catalog
                    .epochs
                    .last()
                    .filter(|(c, _)| c.topic_id == topic_id);
                let to = committed
                    .and_then(|(c, _)| c.lanes.get(&p))
                    .map_or(0, |lane| lane.to);
                if to <= log.start {
                    // Nobody would notice: nothing that was counted is cut off.
                    return;
                }
                let near = if self.rng.one_in(3) {
                    log.visible
                } else {
                    to.min(log.visible)
                };
                let at = (near - self.rng.below(10) as Offset).max(log.start);
                log.cut(&mut self.rng, shape, at);
            }
            6 if self.faults.log_is_harmed => self.harm_checkpoint(),
            7 if self.faults.log_is_harmed && made < 3 && self.rng.one_in(2) => {
                let topic = Topic::draw(&mut self.rng, shape, made, self.now);
                self.topics.push(topic);
                self.old_facts.forget();
            }
            _ => {}
        }
    }

    /// The object of the newest checkpoint is gone, or is not what was stored.
    fn harm_checkpoint(&mut self) {
        let Some((_, CheckpointAt::Object(key))) = self.catalog.checkpoints().newest else {
            return;
        };
        let warehouse = self.catalog.warehouse().expect("there are epochs");
        let objects = self.stores.entry(warehouse).or_default();
        let Some(bytes) = objects.get_mut(&key) else {
            return;
        };
        self.summary.checkpoints_harmed += 1;
        if self.rng.one_in(2) {
            objects.remove(&key);
        } else {
            let mut damaged = bytes.to_vec();
            let at = self.rng.below(damaged.len() as u64) as usize;
            damaged[at] ^= 1;
            *bytes = Arc::new(damaged);
        }
    }
}
