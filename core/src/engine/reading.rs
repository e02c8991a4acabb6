//! What is known of the reading of each topic partition: whether it is read, who stands aside, and
//! who must wait. Only processing time is looked at. Nothing here decides about a record: floors
//! and ceilings are the lane's decisions.

use super::answers::Answers;
use super::conversation::{BrokersRequest, Effect, LogEnd};
use super::feed::{
    Again, EndQuestion, EndToReach, Feed, Limits, OpenTransaction, pause_before_start,
};
use super::lease::RETRY_MS;
use super::step::Step;
use super::troubles::Side;
use crate::count::lane::Lane;
use crate::count::merger::Lanes;
use crate::values::cause::{Cause, Trouble};
use crate::values::record::{Offset, Partition};
use crate::values::time::{EventTime, Mono};
use std::collections::BTreeMap;

/// At least this long between two questions for a log's end.
const LOOK_AGAIN_MS: u64 = 500;
/// How often the reader is asked for the place of a cut.
const CUT_ASKED_MAX: u32 = 3;
/// Without a sign of life for this long a topic partition is called quiet.
const QUIET_MS: u64 = 5000;
/// A transaction that has been open for so long is told to people.
const TRANSACTION_TOLD_MS: u64 = 60_000;

/// Which topic partitions wait, each with the one that it waits for; `None` where it waits for
/// something else.
pub(super) type Holds = BTreeMap<Partition, Option<Partition>>;

/// The reading of all topic partitions.
#[derive(Debug, Default)]
pub(super) struct Reading {
    feeds: BTreeMap<Partition, Feed>,
}

impl Reading {
    /// A topic partition is counted from now on. Reading begins with [`Reading::start`].
    pub(super) fn add(&mut self, partition: Partition, now: Mono) {
        self.feeds.insert(
            partition,
            Feed {
                last_record: now,
                ..Feed::default()
            },
        );
    }

    /// The topic was made again: nothing that was known of this topic partition holds. `gone` says
    /// that the new topic does not have it.
    pub(super) fn begin_generation(&mut self, partition: Partition, gone: bool, now: Mono) {
        let gone = gone.then(|| Answers::one_more(None, now));
        self.feeds.insert(
            partition,
            Feed {
                gone,
                last_record: now,
                ..Feed::default()
            },
        );
    }

    /// Whether records of this topic partition are expected.
    pub(super) fn is_read(&self, partition: Partition) -> bool {
        self.feeds.get(&partition).is_some_and(|feed| feed.reading)
    }

    /// Whether this topic partition stands aside.
    pub(super) fn is_idle(&self, partition: Partition, now: Mono) -> bool {
        self.feeds
            .get(&partition)
            .is_some_and(|feed| feed.is_idle(now))
    }

    /// Whether a transaction was open in this topic partition when its log's end was asked for.
    pub(super) fn has_transaction(&self, partition: Partition) -> bool {
        self.feeds
            .get(&partition)
            .is_some_and(|feed| feed.transaction.is_some())
    }

    /// Whether nothing of this topic partition was counted, and its watermark has not moved, for
    /// some seconds.
    pub(super) fn is_quiet(&self, partition: Partition, now: Mono) -> bool {
        self.feeds
            .get(&partition)
            .is_some_and(|feed| now.since(feed.last_record) >= QUIET_MS)
    }

    /// Whether the lane has read all that is known to be in the log of this topic partition.
    pub(super) fn is_at_end(&self, partition: Partition, next_offset: Offset) -> bool {
        self.feeds
            .get(&partition)
            .is_some_and(|feed| next_offset >= feed.log_end)
    }

    /// Whether there is something to count that is not read: flow control holds it back, or the log
    /// is known to be longer than what was read.
    pub(super) fn has_unread(&self, lanes: &Lanes) -> bool {
        lanes.iter().any(|(partition, lane)| {
            let feed = self.feeds.get(partition).filter(|feed| feed.gone.is_none());
            feed.is_some_and(|feed| feed.held || lane.ledger.next_offset < feed.log_end)
        })
    }

    /// The topic partition that this one is held back for, where flow control holds it back.
    pub(super) fn held_by(&self, partition: Partition) -> Option<Partition> {
        self.feeds.get(&partition)?.held_by
    }

    /// Whether flow control holds this topic partition back.
    pub(super) fn is_held(&self, partition: Partition) -> bool {
        self.feeds.get(&partition).is_some_and(|feed| feed.held)
    }

    /// The end of the log as last heard of.
    pub(super) fn log_end(&self, partition: Partition) -> Option<Offset> {
        self.feeds.get(&partition).map(|feed| feed.log_end)
    }

    /// Reads every lane of `lanes` that is not read yet, from its next offset on.
    pub(super) fn start<'l>(
        &mut self,
        lanes: impl Iterator<Item = (&'l Partition, &'l Lane)>,
        step: &mut Step<'_>,
    ) {
        for (partition, lane) in lanes {
            let feed = self.feeds.entry(*partition).or_default();
            if feed.reading || feed.gone.is_some() || feed.limits != Limits::Fine {
                continue;
            }
            let (last_record, log_end, cut_asked) = (step.now, feed.log_end, feed.cut_asked);
            *feed = Feed {
                reading: true,
                last_record,
                log_end,
                cut_asked,
                ..Feed::default()
            };
            let (offset, leader_epoch) = lane.starts_at();
            step.effect(Effect::Start {
                partition: *partition,
                offset,
                leader_epoch,
            });
        }
    }

    /// The reader is a new one, so nothing is read any more.
    pub(super) fn reopened(&mut self) {
        self.feeds
            .values_mut()
            .for_each(|feed| (feed.reading, feed.held) = (false, false));
    }

    /// This topic partition must be started again.
    pub(super) fn stopped(&mut self, partition: Partition) {
        if let Some(feed) = self.feeds.get_mut(&partition) {
            feed.reading = false;
        }
    }

    /// Records came that cannot be judged now. They are read again when the topic partition is
    /// started again, at the lane's next offset.
    pub(super) fn set_aside(&mut self, partition: Partition, step: &mut Step<'_>) {
        if let Some(feed) = self.feeds.get_mut(&partition)
            && std::mem::take(&mut feed.reading)
        {
            feed.held = false;
            step.effect(Effect::Hold { partition });
        }
    }

    /// The lane has read on, up to `next_offset`. `lives` says that a record was counted, or moved
    /// the watermark.
    pub(super) fn note_read(
        &mut self,
        partition: Partition,
        next_offset: Offset,
        lives: bool,
        step: &mut Step<'_>,
    ) {
        let Some(feed) = self.feeds.get_mut(&partition) else {
            return;
        };
        if lives {
            feed.last_record = step.now;
            feed.forget_ends();
            // Where its log ends need not be known now, and is not asked for.
            step.troubles.end(Side::LogEnd(partition));
        }
        feed.again = None;
        feed.cut_asked = 0;
        feed.log_end = feed.log_end.max(next_offset);
        if feed
            .transaction
            .is_none_or(|open| next_offset > open.last_stable)
        {
            feed.transaction = None;
            step.troubles.end(Side::Transaction(partition));
        }
        feed.stand_aside(next_offset, step);
    }

    /// This topic partition cannot be read. It is started again with growing pauses, until it can.
    pub(super) fn note_trouble(
        &mut self,
        partition: Partition,
        trouble: Trouble,
        step: &mut Step<'_>,
    ) {
        let Some(feed) = self.feeds.get_mut(&partition) else {
            return;
        };
        if feed.reading {
            // Also while the topic seems not to have it: it is started again once it is there.
            let pause_ms = pause_before_start(None);
            feed.again.get_or_insert(Again {
                at: step.now.plus(pause_ms),
                pause_ms,
            });
            if !feed.is_gone() {
                step.troubles.report(Side::Lane(partition), trouble);
            }
        }
    }

    /// The topic was looked up: it has the topic partitions for which `has` is true.
    pub(super) fn note_topic(&mut self, has: impl Fn(Partition) -> bool, has_id: bool, now: Mono) {
        for (partition, feed) in &mut self.feeds {
            // Without an id nothing says that the topic was made again with fewer topic partitions.
            let there = !has_id || has(*partition);
            feed.gone = (!there).then(|| Answers::one_more(feed.gone, now));
        }
    }

    /// The topic was looked up: its logs end here.
    pub(super) fn note_log_ends(&mut self, partitions: &BTreeMap<Partition, (Offset, Offset)>) {
        for (partition, (_, end)) in partitions {
            // Also where it is less than before: then the log was cut off since, or one of the two
            // answers was an old one, which the next one corrects.
            if let Some(feed) = self.feeds.get_mut(partition) {
                feed.log_end = *end;
            }
        }
    }

    /// A log was cut off at this offset: how long it is now will be seen when the topic is looked
    /// up again.
    pub(super) fn forget_log_end(&mut self, partition: Partition, cut_at: Offset) {
        if let Some(feed) = self.feeds.get_mut(&partition) {
            feed.log_end = cut_at;
            feed.cut_asked = 0;
        }
    }

    /// Whether the reader may still tell where a log was cut off, when it is started with a leader
    /// epoch. It is asked a few times, because the end of the log may be what it finds first.
    pub(super) fn may_tell_cut(&mut self, partition: Partition) -> bool {
        let Some(feed) = self.feeds.get_mut(&partition) else {
            return false;
        };
        feed.cut_asked += 1;
        feed.cut_asked <= CUT_ASKED_MAX
    }

    /// Reading does not go on at the offset that was asked for. Before anything is said of lost
    /// records, the brokers are asked what the log has.
    pub(super) fn out_of_range(&mut self, partition: Partition, step: &mut Step<'_>) {
        if let Some(feed) = self.feeds.get_mut(&partition)
            && std::mem::take(&mut feed.reading)
        {
            feed.limits = Limits::Asked;
            step.ask(BrokersRequest::LogLimits { partition });
        }
    }

    /// The brokers answered what the log has. Returns whether the topic should be looked up now,
    /// because it may be another topic of the same name.
    pub(super) fn take_limits(
        &mut self,
        partition: Partition,
        limits: Result<(Offset, Offset), String>,
        step: &mut Step<'_>,
    ) -> bool {
        let Some(feed) = self
            .feeds
            .get_mut(&partition)
            .filter(|f| f.limits == Limits::Asked)
        else {
            return false;
        };
        feed.limits = match limits {
            Ok((start, end)) => Limits::Known(start, end),
            // As long as it cannot be asked it cannot be read either.
            Err(why) => {
                step.troubles.report(Side::Lane(partition), why);
                Limits::AskAt(step.now.plus(RETRY_MS))
            }
        };
        matches!(feed.limits, Limits::Known(..))
    }

    /// The topic partitions whose limits are known, with these. They may be read again after this.
    pub(super) fn take_known_limits(&mut self) -> Vec<(Partition, (Offset, Offset))> {
        let mut known = Vec::new();
        for (partition, feed) in &mut self.feeds {
            if let Limits::Known(start, end) = feed.limits {
                feed.limits = Limits::Fine;
                known.push((*partition, (start, end)));
            }
        }
        known
    }

    /// Of a log that cannot be read, the brokers say that it ends below where we are. Returns
    /// whether that is believed. One broker may be behind, and to go on at its end would count
    /// twice what is read again there; so it is asked for again first.
    pub(super) fn believes_cut(&mut self, partition: Partition, step: &Step<'_>) -> bool {
        let Some(feed) = self.feeds.get_mut(&partition) else {
            return false;
        };
        let answers = Answers::one_more(feed.ends_below, step.now);
        feed.ends_below = Some(answers);
        if !answers.are_believed() {
            feed.limits = Limits::AskAt(step.now.plus(RETRY_MS));
        }
        answers.are_believed()
    }

    /// Time has gone on: asks what is due (the limits of logs that could not be asked for, and the
    /// ends of silent logs), starts again what could not be read, and tells people about
    /// transactions that stay open.
    pub(super) fn tick(&mut self, lanes: &Lanes, step: &mut Step<'_>) {
        for (partition, feed) in &mut self.feeds {
            if let Limits::AskAt(at) = feed.limits
                && step.now >= at
            {
                feed.limits = Limits::Asked;
                step.ask(BrokersRequest::LogLimits {
                    partition: *partition,
                });
            }
        }
        self.start_again(lanes, step);
        self.ask_log_ends(lanes, step);
        self.report_transactions(step);
    }

    /// Starts again what could not be read, after a pause that grows.
    fn start_again(&mut self, lanes: &Lanes, step: &mut Step<'_>) {
        for (partition, lane) in lanes {
            let Some(feed) = self.feeds.get_mut(partition) else {
                continue;
            };
            if feed.is_gone() {
                // The others do not wait for it any more, so nothing of it is a trouble.
                for side in [Side::Lane, Side::Transaction, Side::LogEnd] {
                    step.troubles.end(side(*partition));
                }
            }
            // One that is held could not show that it works.
            if let Some(Again { at, pause_ms }) = feed.again
                && step.now >= at
                && feed.reading
                && !feed.held
                && feed.gone.is_none()
            {
                let pause_ms = pause_before_start(Some(pause_ms));
                let at = step.now.plus(pause_ms);
                feed.again = Some(Again { at, pause_ms });
                // Flow control holds the new start anew, where it must.
                feed.held = false;
                let (offset, leader_epoch) = lane.starts_at();
                step.effect(Effect::Start {
                    partition: *partition,
                    offset,
                    leader_epoch,
                });
            }
        }
    }

    /// Tells people what a transaction that stays open keeps from being read, and how it ends.
    fn report_transactions(&self, step: &mut Step<'_>) {
        for (partition, feed) in &self.feeds {
            let Some(open) = feed.transaction else {
                continue;
            };
            let side = Side::Transaction(*partition);
            if step.now.since(open.since) >= TRANSACTION_TOLD_MS && step.troubles.of(side).is_none()
            {
                let (topic, start) = (&step.rules.shape.topic, open.last_stable);
                let why = format!(
                    "a transaction has been open in topic partition {partition} of topic \
                     \"{topic}\" since offset {start} (its last stable offset), so nothing from \
                     there on can be read, and no further window closes; it ends when its producer \
                     ends it or the producer's transaction.timeout.ms is over; to end it by hand, \
                     find it with kafka-transactions.sh --bootstrap-server HOST:PORT find-hanging \
                     --topic {topic}, and end it with kafka-transactions.sh --bootstrap-server \
                     HOST:PORT abort --topic {topic} --partition {partition} --start-offset {start}"
                );
                step.troubles
                    .report(side, Trouble::new(Cause::OpenTransaction, why));
            }
        }
    }

    /// Asks for the log's end of topic partitions that were silent for `idle-timeout` or
    /// `quiet-timeout`; sooner again where that is what keeps a window from closing.
    fn ask_log_ends(&mut self, lanes: &Lanes, step: &mut Step<'_>) {
        let timeout = Feed::shorter_timeout_ms(step);
        let shape = &step.rules.shape;
        let slides = |at: EventTime| (at.0 - shape.offset_ms).div_euclid(shape.slide_ms);
        let target = self.idle_and_target(lanes, step.now).1.map(slides);
        let greatest = lanes
            .values()
            .filter_map(Lane::watermark_without_loss)
            .max();
        for (partition, feed) in &mut self.feeds {
            let quiet = feed.is_quiet(step);
            let every = if feed.idle_until.is_some() && target > feed.floor_limit.map(slides) {
                LOOK_AGAIN_MS
            } else {
                (timeout / 4).clamp(LOOK_AGAIN_MS, 10_000)
            };
            let due = feed
                .end_answered_at
                .is_none_or(|at| step.now.since(at) >= every);
            let asks = feed.reading && feed.gone.is_none() && quiet && due;
            let Some(lane) = lanes.get(partition).filter(|_| asks) else {
                continue;
            };
            if step.questions.log_end_due(*partition, step.now) {
                feed.end_question = EndQuestion {
                    watermark: greatest,
                    next_offset: lane.ledger.next_offset,
                    silent: feed.is_silent(step),
                    quiet: feed.is_silent_for_quiet(step),
                };
                step.ask(BrokersRequest::LogEnd {
                    partition: *partition,
                });
            }
        }
    }

    /// The end of a log was answered, so its topic partition may stand aside, at once or when it
    /// has read to there. `asked_at` is when that was asked for.
    pub(super) fn take_log_end(
        &mut self,
        partition: Partition,
        asked_at: Mono,
        end: Result<LogEnd, String>,
        lanes: &Lanes,
        step: &mut Step<'_>,
    ) {
        let (Some(lane), Some(feed)) = (lanes.get(&partition), self.feeds.get_mut(&partition))
        else {
            return;
        };
        feed.end_answered_at = Some(step.now);
        let end = match end {
            Ok(end) => end,
            Err(why) => {
                feed.forget_ends();
                // Until it is answered, this one cannot stand aside. One that has been read since
                // it was asked need not.
                if feed.gone.is_none() && feed.is_quiet(step) {
                    step.troubles.report(Side::LogEnd(partition), why);
                }
                return;
            }
        };
        step.troubles.end(Side::LogEnd(partition));
        feed.log_end = feed.log_end.max(end.high_watermark);
        let question = std::mem::take(&mut feed.end_question);
        if end.high_watermark < question.next_offset {
            // The broker that answered is behind: we have read further than its log reaches.
            return;
        }
        if end.last_stable < end.high_watermark {
            feed.forget_ends();
            if feed
                .transaction
                .is_none_or(|open| open.last_stable != end.last_stable)
            {
                step.troubles.end(Side::Transaction(partition));
                feed.transaction = Some(OpenTransaction {
                    last_stable: end.last_stable,
                    since: asked_at,
                });
            }
            return;
        }
        feed.transaction = None;
        step.troubles.end(Side::Transaction(partition));
        let end = EndToReach {
            offset: end.high_watermark,
            asked_at,
            watermark: question.watermark,
        };
        feed.note_end(&question, end, step);
        feed.stand_aside(lane.ledger.next_offset, step);
    }

    /// The idle topic partitions, and where their floors belong: at the least watermark of the
    /// others, or at the greatest of all when all are idle.
    fn idle_and_target(&self, lanes: &Lanes, now: Mono) -> (Vec<Partition>, Option<EventTime>) {
        let idle: Vec<Partition> = lanes
            .keys()
            .copied()
            .filter(|p| self.is_idle(*p, now))
            .collect();
        let target = if idle.len() == lanes.len() {
            lanes
                .values()
                .filter_map(Lane::watermark_without_loss)
                .max()
        } else {
            // One that is not idle and has no watermark yet holds all the others.
            let watermark = |(p, lane): (&Partition, &Lane)| {
                (!idle.contains(p)).then(|| lane.watermark_without_loss())
            };
            lanes.iter().filter_map(watermark).min().flatten()
        };
        (idle, target)
    }

    /// The floors of topic partitions that stand aside: as far up as was known when their logs were
    /// seen to be empty.
    pub(super) fn idle_floors(&self, lanes: &Lanes, now: Mono) -> Vec<(Partition, EventTime)> {
        let (idle, target) = self.idle_and_target(lanes, now);
        let Some(target) = target else {
            return Vec::new();
        };
        let floor = |partition: Partition| {
            let feed = &self.feeds[&partition];
            let limit = if feed.is_gone() {
                Some(target)
            } else {
                feed.floor_limit
            };
            limit.map(|limit| (partition, limit.min(target)))
        };
        idle.into_iter().filter_map(floor).collect()
    }

    /// The floor of all topic partitions when the whole topic has been silent for `quiet-timeout`,
    /// and all that is in it was read: the end of the last open window. It does not go by
    /// `idle-timeout`, which may be longer.
    pub(super) fn quiet_floor(&self, lanes: &Lanes, step: &Step<'_>) -> Option<EventTime> {
        let quiet_ms = step.rules.quiet_timeout_ms?;
        let silent_since = self.feeds.values().map(|feed| feed.last_record).max()?;
        let quiet = step.now.since(silent_since) >= quiet_ms
            && lanes.keys().all(|partition| {
                let feed = self.feeds.get(partition);
                feed.is_some_and(|feed| feed.is_read_to_quiet_end(step.now))
            });
        if !quiet {
            return None;
        }
        lanes.values().filter_map(Lane::last_end).max()
    }

    /// Holds back exactly these topic partitions. It changes no row.
    pub(super) fn hold(&mut self, holds: &Holds, step: &mut Step<'_>) {
        for (partition, feed) in &mut self.feeds {
            let hold = holds.contains_key(partition);
            feed.held_by = holds.get(partition).copied().flatten();
            if feed.reading && feed.held != hold {
                // Its silence goes on, and so does its standing aside: it had read to an end that
                // was asked for before the hold, and its floor goes no further than was known then.
                // Holds that are short and never end would else keep it from standing aside for
                // ever.
                feed.held = hold;
                step.effect(if hold {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::rules::Rules;
    use crate::engine::step::in_a_step;

    #[test]
    fn one_answer_without_a_topic_partition_does_not_take_it_away() {
        let mut reading = Reading::default();
        reading.add(0, Mono(0));
        let (none, one) = (|_| false, |_| true);
        reading.note_topic(none, true, Mono(10_000));
        // However long nothing more is heard.
        assert!(!reading.is_idle(0, Mono(500_000)));
        reading.note_topic(one, true, Mono(500_000));
        reading.note_topic(none, true, Mono(510_000));
        // Two answers with nothing between them may be of the same broker.
        reading.note_topic(none, true, Mono(540_000));
        assert!(!reading.is_idle(0, Mono(540_000)));
        reading.note_topic(one, true, Mono(541_000));
        reading.note_topic(none, true, Mono(550_000));
        reading.note_topic(none, true, Mono(570_000));
        assert!(!reading.is_idle(0, Mono(570_000)));
        reading.note_topic(none, true, Mono(580_000));
        assert!(reading.is_idle(0, Mono(580_000)));
    }

    #[test]
    fn two_answers_with_a_long_silence_between_them_do_not_take_a_topic_partition_away() {
        let mut reading = Reading::default();
        reading.add(0, Mono(0));
        for now in [10_000, 130_000, 150_000] {
            reading.note_topic(|_| false, true, Mono(now));
            assert!(!reading.is_idle(0, Mono(now)), "at {now}");
        }
        reading.note_topic(|_| false, true, Mono(160_000));
        assert!(reading.is_idle(0, Mono(160_000)));
    }

    #[test]
    fn two_answers_with_a_long_silence_between_them_do_not_cut_a_log_off() {
        let (rules, mut reading) = (Rules::for_tests(), Reading::default());
        reading.add(0, Mono(0));
        for now in [1000, 121_000, 140_000] {
            let believes = in_a_step(now, &rules, |step| reading.believes_cut(0, step));
            assert!(!believes, "at {now}");
        }
        assert!(in_a_step(151_000, &rules, |step| reading.believes_cut(0, step)));
    }

    #[test]
    fn a_trouble_while_one_broker_does_not_know_the_topic_partition_is_tried_again() {
        let (rules, mut reading) = (Rules::for_tests(), Reading::default());
        let lane = Lane::new(0, &rules.shape, 0);
        let lanes = Lanes::from([(0, lane)]);
        reading.add(0, Mono(0));
        in_a_step(0, &rules, |step| reading.start(lanes.iter(), step));
        reading.note_topic(|_| false, true, Mono(1000));
        in_a_step(2000, &rules, |step| {
            reading.note_trouble(0, "a batch is damaged".into(), step);
            assert!(step.troubles.of(Side::Lane(0)).is_some());
        });
        let starts = |now: u64, reading: &mut Reading| {
            in_a_step(now, &rules, |step| {
                reading.tick(&lanes, step);
                let start = |effect: &&Effect| matches!(effect, Effect::Start { .. });
                step.effects.iter().filter(start).count()
            })
        };
        assert_eq!(starts(5000, &mut reading), 0, "it seems not to be there");
        reading.note_topic(|_| true, true, Mono(6000));
        assert_eq!(starts(7000, &mut reading), 1);
    }

    /// A lane that has been silent for long, at offset 0, and the end of its log as it is answered
    /// at these times. Returns whether it stands aside after it has read to `next`, at `now`.
    fn stands_aside(ends: &[(u64, Offset)], next: Offset, now: u64) -> bool {
        let (rules, mut reading) = (Rules::for_tests(), Reading::default());
        let lanes = Lanes::from([(0, Lane::new(0, &rules.shape, 0))]);
        reading.add(0, Mono(0));
        in_a_step(0, &rules, |step| reading.start(lanes.iter(), step));
        for (at, end) in ends {
            in_a_step(*at, &rules, |step| {
                reading.tick(&lanes, step);
                let end = LogEnd {
                    last_stable: *end,
                    high_watermark: *end,
                };
                reading.take_log_end(0, Mono(*at), Ok(end), &lanes, step);
            });
        }
        in_a_step(now, &rules, |step| reading.note_read(0, next, false, step));
        reading.is_idle(0, Mono(now))
    }

    #[test]
    fn an_end_that_is_read_to_slowly_is_reached_although_the_log_goes_on() {
        let ends = [(20_000, 50), (30_000, 150), (40_000, 250)];
        assert!(!stands_aside(&ends, 49, 45_000));
        assert!(
            stands_aside(&ends, 50, 45_000),
            "25 s after it was asked for"
        );
    }

    #[test]
    fn an_end_that_was_cut_off_is_not_waited_for() {
        let ends = [(20_000, 150), (30_000, 70)];
        assert!(!stands_aside(&ends, 69, 31_000));
        assert!(stands_aside(&ends, 70, 31_000));
    }

    #[test]
    fn one_broker_that_is_behind_does_not_cut_a_log_off() {
        let (rules, mut reading) = (Rules::for_tests(), Reading::default());
        reading.add(0, Mono(0));
        assert!(!in_a_step(1000, &rules, |step| reading.believes_cut(0, step)));
        let asks_at = |reading: &Reading| reading.feeds[&0].limits;
        assert_eq!(asks_at(&reading), Limits::AskAt(Mono(2000)));
        assert!(!in_a_step(15_000, &rules, |step| reading.believes_cut(0, step)));
        assert!(!in_a_step(30_999, &rules, |step| reading.believes_cut(0, step)));
        assert!(in_a_step(31_000, &rules, |step| reading.believes_cut(0, step)));
    }
}
