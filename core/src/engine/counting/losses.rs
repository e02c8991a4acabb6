//! What a table loses when its topic is made again, or a log no longer has what is to be read.

use super::Counting;
use crate::count::lane::Lane;
use crate::engine::conversation::{Effect, TopicFacts};
use crate::engine::lease::RETRY_MS;
use crate::engine::step::{Going, Step};
use crate::engine::topic::{limits_needed, may_lose, unknown_cut};
use crate::engine::troubles::Side;
use crate::values::decision::FloorReason;
use crate::values::record::{Offset, Partition};

impl Counting {
    /// The logs of the topic as they are now against what we count of them.
    pub(super) fn compare_topic(&mut self, facts: &TopicFacts, step: &mut Step<'_>) -> Going {
        self.reading.note_log_ends(&facts.partitions);
        self.reading
            .note_topic(|p| facts.has(p), !facts.topic_id.is_empty(), step.now);
        for (partition, (start, end)) in self.reading.take_known_limits() {
            // Either answer may be an old one. A log neither begins earlier nor, uncut, ends
            // earlier than it says.
            let (first, last) = facts
                .partitions
                .get(&partition)
                .copied()
                .unwrap_or((start, end));
            self.check_lost(partition, start.max(first), end.max(last), step)?;
        }
        self.table.note_logs(&facts.partitions);
        self.topic.note_log_starts(facts);
        self.table.note_joining(facts);
        self.report_unknown(facts, step);
        self.start_lanes(step);
        Ok(())
    }

    /// A topic partition joins the table once its leader tells where its log begins. For one that
    /// is counted already, reading says what hinders.
    fn report_unknown(&mut self, facts: &TopicFacts, step: &mut Step<'_>) {
        let lanes = self.table.lanes();
        let joining = facts.unknown.iter().filter(|(p, _)| !lanes.contains_key(p));
        match limits_needed(joining, step) {
            Some(why) => {
                step.troubles.report(Side::Topic, why);
                self.topic.look_up_after(RETRY_MS, step.now);
            }
            None => step.troubles.end(Side::Topic),
        }
    }

    /// The topic is another one, as `what` says: its offsets mean other records now.
    pub(super) fn begin_generation(
        &mut self,
        what: &str,
        facts: &TopicFacts,
        step: &mut Step<'_>,
    ) -> Going {
        let (id, cluster_id) = (self.topic.id(), self.topic.cluster_id());
        let counted = if facts.topic_id.is_empty() {
            format!("the one of cluster \"{cluster_id}\"")
        } else {
            id.to_owned()
        };
        let (topic, table) = (&step.rules.shape.topic, step.table());
        let what = format!("topic \"{topic}\" {what}, table {table} counts {counted}");
        may_lose(step, &what, "count the new one into the same table")?;
        step.effect(Effect::StopAll);
        // Not the one that lost counts lead to: those say nothing about the topic.
        let frontier = self.table.closed_through();
        let partitions: Vec<Partition> = self.table.lanes().keys().copied().collect();
        for partition in partitions {
            self.lose_counts(partition, &what);
            let reason = if facts.topic_id.is_empty() {
                "the topic is of another cluster"
            } else {
                "the topic was made again"
            };
            self.table
                .begin_generation(partition, 0, &facts.topic_id, reason.to_owned());
            if let Some(frontier) = frontier {
                self.table
                    .raise_floor(partition, frontier, FloorReason::Generation);
            }
            let gone = !facts.has(partition);
            self.reading.begin_generation(partition, gone, step.now);
        }
        self.topic.begin_generation(facts);
        step.questions.other_topic = None;
        self.table.note_joining(facts);
        self.report_unknown(facts, step);
        self.start_lanes(step);
        Ok(())
    }

    /// A lane that is replayed cannot be: it is where the last commit left it, and what it had
    /// counted in open windows is lost.
    fn lose_counts(&mut self, partition: Partition, why: &str) {
        let lane = self.table.lanes().get(&partition);
        if lane.is_some_and(Lane::replaying) {
            let reason = format!("{why}, and open windows had counted what is gone");
            self.table.lose_counts(partition, reason);
        }
    }

    /// Whether the log of one topic partition reaches to where we are, and in a replay to where the
    /// last commit was.
    fn check_lost(
        &mut self,
        partition: Partition,
        log_start: Offset,
        log_end: Offset,
        step: &mut Step<'_>,
    ) -> Going {
        let Some(lane) = self.table.lanes().get(&partition) else {
            return Ok(());
        };
        let next = lane.ledger.next_offset;
        let last = lane.replays_to().unwrap_or(next);
        let what = if next < log_start {
            format!(
                "offsets {next} to {log_start} of topic partition {partition} are no longer in \
                 Kafka (retention, or deleted records)"
            )
        } else if last > log_end {
            format!(
                "topic partition {partition} was cut off at offset {log_end} or before, below the \
                 next offset {last}"
            )
        } else {
            self.table.forget_epoch_before(partition, log_start);
            return Ok(());
        };
        if next >= log_start && !self.reading.believes_cut(partition, step) {
            let why = format!("{what}, as it seems; the brokers are asked again");
            step.troubles.report(Side::Lane(partition), why);
            return Ok(());
        }
        may_lose(step, &what, "go on without them")?;
        self.lose_counts(partition, &what);
        let lane = &self.table.lanes()[&partition];
        let (next, checks) = (lane.ledger.next_offset, lane.starts_at().1 >= 0);
        if next < log_start {
            self.table.lose(partition, log_start, what);
        } else if next > log_end && !(checks && self.reading.may_tell_cut(partition)) {
            self.go_on_at_cut(partition, log_end, unknown_cut(&what, log_end));
        }
        // Otherwise the reader checks the leader epoch there, and then says where the cut is.
        self.table.forget_epoch_before(partition, log_start);
        Ok(())
    }

    /// A log was cut off below where it is read: what was counted of it is gone from the log.
    /// Reading goes on at the cut, in a new generation.
    pub(in super::super) fn truncated(
        &mut self,
        partition: Partition,
        cut_at: Option<Offset>,
        why: String,
        step: &mut Step<'_>,
    ) -> Going {
        if !self.table.lanes().contains_key(&partition) || !self.reading.is_read(partition) {
            return Ok(());
        }
        may_lose(step, &why, "go on behind the cut")?;
        self.lose_counts(partition, &why);
        let next = self.table.lanes()[&partition].ledger.next_offset;
        let (to, why) = match cut_at {
            Some(cut) => (cut.min(next), why),
            None => (next, unknown_cut(&why, next)),
        };
        self.go_on_at_cut(partition, to, why);
        self.reading.stopped(partition);
        self.start_lanes(step);
        Ok(())
    }

    /// The log of a lane was cut off at `to`: from there on it is another one.
    fn go_on_at_cut(&mut self, partition: Partition, to: Offset, why: String) {
        self.table
            .begin_generation(partition, to, self.topic.id(), why);
        self.reading.forget_log_end(partition, to);
    }

    /// The replay of a lane cannot be done, because its log is not the one that was counted.
    pub(super) fn replay_broke(
        &mut self,
        partition: Partition,
        why: &str,
        step: &mut Step<'_>,
    ) -> Going {
        may_lose(step, why, "go on without what open windows had counted")?;
        self.lose_counts(partition, why);
        self.reading.stopped(partition);
        self.start_lanes(step);
        Ok(())
    }
}
