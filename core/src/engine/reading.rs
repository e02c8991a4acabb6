//! What the reader hands over, which topic partitions stand aside, and who must wait. Nothing here decides about a
//! record; floors and ceilings are the lane's decisions.

use super::*;

impl Engine {
    pub(super) fn records(&mut self, partition: Partition, leader_epoch: i32, batch: &dyn Batch) {
        let ceiling = self.ceiling();
        let (Some(lane), Some(watch)) = (
            self.lanes.get_mut(&partition),
            self.watches.get_mut(&partition),
        ) else {
            return;
        };
        if !watch.reading || self.stopping.is_some() {
            return;
        }
        // An eighth of the slack: often enough that no record of now is from the future, seldom enough to record.
        if let Some(ceiling) = ceiling
            && lane.ceiling_is_off(ceiling, self.settings.max_future_ms.unsigned_abs() / 8)
        {
            lane.offer_ceiling(ceiling);
        }
        lane.records(batch);
        self.troubles.remove(&Side::Reader);
        if leader_epoch >= 0 {
            lane.leader_epoch = leader_epoch;
        }
        watch.last_record = self.now;
        watch.at_end = false;
        watch.idle_until = None;
        watch.log_end = watch.log_end.max(lane.ledger.next_offset);
    }

    pub(super) fn ceiling(&self) -> Option<EventTime> {
        let (then, at) = self.clock?;
        let since = i64::try_from(self.now.since(at)).unwrap_or(i64::MAX);
        Some(
            EventTime(then.0)
                .plus(since)
                .plus(self.settings.max_future_ms),
        )
    }

    pub(super) fn end(&mut self, partition: Partition, offset: Offset) {
        let (Some(lane), Some(watch)) = (
            self.lanes.get_mut(&partition),
            self.watches.get_mut(&partition),
        ) else {
            return;
        };
        // What was read after the word to stop was passed over, so that the log's end says nothing of it.
        if watch.reading && self.stopping.is_none() {
            if offset > lane.ledger.next_offset {
                // What lies between, such as a transaction's marker, may be of a later epoch, with which the log would
                // seem to have been cut off.
                lane.leader_epoch = -1;
                // And the log went on after it was looked at.
                watch.idle_until = None;
            }
            lane.end(offset);
            watch.at_end = offset == lane.ledger.next_offset;
            self.troubles.remove(&Side::Reader);
            watch.log_end = watch.log_end.max(offset);
        }
    }

    pub(super) fn looked(&mut self, partition: Partition, end: Result<LogEnd, String>) {
        let Some(asked_at) = self.looking.remove(&partition) else {
            return;
        };
        let (Some(lane), Some(watch)) =
            (self.lanes.get(&partition), self.watches.get_mut(&partition))
        else {
            return;
        };
        watch.looked_at = Some(self.now);
        let Ok(end) = end else {
            watch.idle_until = None;
            return;
        };
        watch.log_end = watch.log_end.max(end.high_watermark);
        let next = lane.ledger.next_offset;
        let silent = self.now.since(watch.last_record) >= self.settings.idle_timeout_ms;
        let nothing = next == end.last_stable && next == end.high_watermark;
        let idle = watch.at_end && silent && nothing && watch.reading && !watch.held;
        let hold_ms = self.settings.idle_timeout_ms.max(IDLE_HOLDS_MS_MIN);
        watch.idle_until = idle.then(|| asked_at.plus(hold_ms));
        if idle {
            watch.nothing_by = watch.asked_with;
        }
    }

    /// Reading does not go on. Before anything is said of lost records, it is asked what the log has.
    pub(super) fn out_of_range(&mut self, partition: Partition, out: &mut Vec<Effect>) {
        if let Some(watch) = self.watches.get_mut(&partition)
            && std::mem::take(&mut watch.reading)
        {
            watch.limits = Some(None);
            out.push(BrokersRequest::LogLimits { partition }.into());
        }
    }

    pub(super) fn limits_answered(
        &mut self,
        partition: Partition,
        limits: Result<(Offset, Offset), String>,
        out: &mut Vec<Effect>,
    ) {
        let Some(watch) = self
            .watches
            .get_mut(&partition)
            .filter(|w| w.limits == Some(None))
        else {
            return;
        };
        match limits {
            Ok(limits) => {
                watch.limits = None;
                // It may be another topic of the same name.
                self.out_of_range.insert(partition, limits);
                self.look_up_topic(out);
            }
            // As long as it cannot be asked it cannot be read either.
            Err(_) => watch.limits = Some(Some(self.now.plus(RETRY_MS))),
        }
    }

    fn ask_limits_again(&mut self, out: &mut Vec<Effect>) {
        for (partition, watch) in &mut self.watches {
            if let Some(Some(at)) = watch.limits
                && self.now >= at
            {
                watch.limits = Some(None);
                let partition = *partition;
                out.push(BrokersRequest::LogLimits { partition }.into());
            }
        }
    }

    pub(super) fn counting_tick(&mut self, out: &mut Vec<Effect>) {
        if self.now >= self.topic_ask_at {
            self.look_up_topic(out);
        }
        self.ask_limits_again(out);
        self.look_at_ends(out);
        self.raise_floors();
        self.flow(out);
    }

    /// Asks for the log's end of topic partitions that were silent for `idle-timeout`; sooner again where that is what
    /// keeps a window from closing.
    pub(super) fn look_at_ends(&mut self, out: &mut Vec<Effect>) {
        let timeout = self.settings.idle_timeout_ms;
        let shape = &self.settings.shape;
        let slides = |at: EventTime| (at.0 - shape.offset_ms).div_euclid(shape.slide_ms);
        let target = self.idle_and_target().1.map(slides);
        let highest = self.lanes.values().filter_map(Lane::watermark).max();
        for (partition, watch) in &mut self.watches {
            let silent = self.now.since(watch.last_record) >= timeout;
            let every = if watch.idle_until.is_some() && target > watch.nothing_by.map(slides) {
                LOOK_AGAIN_MS
            } else {
                (timeout / 4).clamp(LOOK_AGAIN_MS, 10_000)
            };
            let due = watch.looked_at.is_none_or(|at| self.now.since(at) >= every);
            if watch.reading
                && watch.at_end
                && silent
                && due
                && !watch.held
                && !self.looking.contains_key(partition)
            {
                self.looking.insert(*partition, self.now);
                watch.asked_with = highest;
                out.push(
                    BrokersRequest::LogEnd {
                        partition: *partition,
                    }
                    .into(),
                );
            }
        }
    }

    pub(super) fn is_idle(&self, partition: Partition) -> bool {
        let watch = &self.watches[&partition];
        watch
            .gone
            .is_some_and(|since| self.now.since(since) >= GONE_AFTER_MS)
            || watch.idle_until.is_some_and(|until| self.now < until)
    }

    /// The idle topic partitions, and where their floors belong: at the least watermark of the others, or at the
    /// greatest of all when all are idle.
    pub(super) fn idle_and_target(&self) -> (Vec<Partition>, Option<EventTime>) {
        let idle: Vec<Partition> = self
            .lanes
            .keys()
            .copied()
            .filter(|p| self.is_idle(*p))
            .collect();
        let target = if idle.len() == self.lanes.len() {
            self.lanes.values().filter_map(Lane::watermark).max()
        } else {
            // One that is not idle and has no watermark yet holds all the others.
            let watermark =
                |(p, lane): (&Partition, &Lane)| (!idle.contains(p)).then(|| lane.watermark());
            self.lanes.iter().filter_map(watermark).min().flatten()
        };
        (idle, target)
    }

    /// Idle topic partitions stand aside: their floors go up, as far as was known when they were seen to be empty.
    pub(super) fn raise_floors(&mut self) {
        if self.lanes.values().any(Lane::replaying) || self.paused {
            return;
        }
        let (idle, target) = self.idle_and_target();
        if idle.is_empty() {
            return;
        }
        let all = idle.len() == self.lanes.len();
        if let Some(target) = target {
            for partition in &idle {
                let watch = &self.watches[partition];
                let at = if watch.gone.is_some() {
                    Some(target)
                } else {
                    watch.nothing_by.map(|by| by.min(target))
                };
                if let Some(at) = at {
                    self.lanes
                        .get_mut(partition)
                        .expect("just listed")
                        .raise_floor(at, FloorReason::Idle);
                }
            }
        }
        if let Some(quiet) = self.settings.quiet_timeout_ms
            && all
            && self
                .watches
                .values()
                .all(|w| self.now.since(w.last_record) >= quiet)
            && let Some(end) = self.lanes.values().filter_map(Lane::last_end).max()
        {
            for lane in self.lanes.values_mut() {
                lane.raise_floor(end, FloorReason::Quiet);
            }
        }
    }

    /// Pauses what runs ahead too far or fills memory. It changes no row.
    pub(super) fn flow(&mut self, out: &mut Vec<Effect>) {
        let side: usize = self.lanes.values().map(|l| l.side_bytes).sum();
        let closed: u64 = self
            .lanes
            .values()
            .flat_map(|l| l.closed.values())
            .map(|e| e.len() as u64)
            .sum();
        let behind = self
            .lanes
            .iter()
            .filter(|(p, _)| !self.is_idle(**p))
            .map(|(_, l)| l.watermark());
        // While one that is not idle has no watermark yet, nothing becomes final.
        let (least, unset) = (
            behind.clone().flatten().min(),
            behind.clone().any(|w| w.is_none()),
        );
        let all =
            self.paused || self.clock_back || self.stopping.is_some() || side > 2 * SIDE_BYTES_MAX;
        for (partition, lane) in &self.lanes {
            let ahead = lane.watermark().is_some_and(|w| {
                least.is_some_and(|least| w > least.plus(self.settings.max_skew_ms))
                    || (closed > 2 * CLOSED_ENTRIES_MAX
                        && (unset || least.is_some_and(|least| w > least)))
            });
            let hold = all || (ahead && !lane.replaying());
            let watch = self
                .watches
                .get_mut(partition)
                .expect("every lane is watched");
            if watch.reading && watch.held != hold {
                watch.held = hold;
                watch.idle_until = None;
                watch.last_record = self.now;
                out.push(if hold {
                    Effect::Hold {
                        partition: *partition,
                    }
                } else {
                    Effect::Unhold {
                        partition: *partition,
                    }
                });
            }
        }
    }
}
