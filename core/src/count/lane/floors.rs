//! How a lane's floor is raised, and which floors need not be recorded.

use super::Lane;
use crate::values::decision::{Decided, Decision, FloorReason};
use crate::values::time::EventTime;

impl Lane {
    /// Decides the floor `at`, unless the watermark is there already. Returns whether the watermark
    /// moved.
    pub fn raise_floor(&mut self, at: EventTime, reason: FloorReason) -> bool {
        let raises = at.0 > self.watermark_ms;
        if raises {
            let is_idle = reason == FloorReason::Idle;
            if is_idle {
                self.drop_idle_floor();
            }
            self.decide(Decided::Floor { at, reason });
            self.at_idle_floor = is_idle.then(|| self.counted_and_late());
        }
        raises
    }

    /// Forgets the last decision, where it is a floor of reason *idle* which a higher one takes
    /// over at a later offset. Only records that are counted or late ask how high the watermark is,
    /// so without one between the two the lower floor was of no use. Otherwise a lane that stands
    /// aside while tombstones come would have a floor for each tick until the next commit.
    ///
    /// Example: the floor is 12:00:11 at offset 5 and not committed yet, offsets 5 and 6 are
    /// tombstones, and the floor 12:00:14 follows. Only the floor 12:00:14 at offset 7 is recorded.
    fn drop_idle_floor(&mut self) {
        let Some(Decision {
            what: Decided::Floor { at, reason },
            ..
        }) = self.decisions.last()
        else {
            return;
        };
        // A record may have moved the watermark since.
        let is_in_force = *reason == FloorReason::Idle && at.0 == self.watermark_ms;
        if is_in_force && self.at_idle_floor == Some(self.counted_and_late()) {
            self.decisions.pop();
        }
    }

    fn counted_and_late(&self) -> (u64, u64) {
        (self.ledger.counted, self.ledger.late)
    }
}
