//! What is known of the reading of each topic partition: whether it is read, who stands aside, and
//! who must wait. Only processing time is looked at. Nothing here decides about a record: floors
//! and ceilings are the lane's decisions.

use super::conversation::{BrokersRequest, Effect, LogEnd};
use super::lease::RETRY_MS;
use super::step::Step;
use crate::count::lane::Lane;
use crate::count::merger::Lanes;
use crate::values::record::{Offset, Partition};
use crate::values::time::{EventTime, Mono};
use std::collections::BTreeMap;

/// At least this long between two questions for a log's end.
const LOOK_AGAIN_MS: u64 = 500;
/// A topic partition that the topic has not had for this long is gone. One broker may not know of a
/// new one yet.
const GONE_AFTER_MS: u64 = 30_000;
/// Late records and rejects that make a commit, in bytes; twice that holds all reading.
pub(super) const SIDE_BYTES_MAX: usize = 16 << 20;
/// Entries of closed windows that make a commit; twice that holds the topic partitions that are
/// ahead.
pub(super) const CLOSED_ENTRIES_MAX: u64 = 2_000_000;

/// The reading of all topic partitions.
#[derive(Debug, Default)]
pub(super) struct Reading {
    feeds: BTreeMap<Partition, Feed>,
}

/// What is known of the reading of one topic partition.
#[derive(Clone, Copy, Debug, Default)]
struct Feed {
    /// The reader was told to read it.
    reading: bool,
    /// Flow control holds it back.
    held: bool,
    /// Since when it is not in the topic any more; after [`GONE_AFTER_MS`] it holds nobody back.
    gone: Option<Mono>,
    limits: Limits,
    last_record: Mono,
    /// The reader said that it has nothing more.
    at_end: bool,
    /// When the end of the log was answered last.
    end_answered_at: Option<Mono>,
    /// The greatest watermark of all lanes when the end of this log was asked for.
    watermark_when_asked: Option<EventTime>,
    /// How far the floor of this lane may be raised: `watermark_when_asked` of the last question
    /// that found nothing to read. A watermark that was reached later does not count, because the
    /// record that moved it may have come together with records here.
    ///
    /// Example: the greatest watermark was 12:00:20 when the question was asked, and has since
    /// moved to 12:00:40. The floor may go to 12:00:20; for more, the question is asked again.
    floor_limit: Option<EventTime>,
    /// The end of the log was where we are, and nothing has come since. That is taken to hold until
    /// this time.
    idle_until: Option<Mono>,
    /// The end of the log as last heard of.
    log_end: Offset,
}

/// Whether the offset that was asked for is in the log: until that is known, reading is not started
/// again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Limits {
    /// Nothing is in doubt.
    #[default]
    Fine,
    /// The log's limits were asked for.
    Asked,
    /// The brokers could not answer; they are asked again at this time.
    AskAt(Mono),
    /// The log begins and ends here, if it is still the same topic, which is being asked.
    Known(Offset, Offset),
}

impl Feed {
    fn is_idle(&self, now: Mono) -> bool {
        self.gone
            .is_some_and(|since| now.since(since) >= GONE_AFTER_MS)
            || self.idle_until.is_some_and(|until| now < until)
    }
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
        let gone = gone.then_some(now);
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
            let (last_record, log_end) = (step.now, feed.log_end);
            *feed = Feed {
                reading: true,
                last_record,
                log_end,
                ..Feed::default()
            };
            step.effect(Effect::Start {
                partition: *partition,
                offset: lane.ledger.next_offset,
                leader_epoch: lane.leader_epoch,
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

    /// Records came, up to `next_offset`.
    pub(super) fn note_records(&mut self, partition: Partition, next_offset: Offset, now: Mono) {
        if let Some(feed) = self.feeds.get_mut(&partition) {
            feed.last_record = now;
            feed.at_end = false;
            feed.idle_until = None;
            feed.log_end = feed.log_end.max(next_offset);
        }
    }

    /// The reader has nothing more. `went_on` says that offsets without records came before the
    /// end; `here` that the end is where the lane is.
    pub(super) fn note_end(
        &mut self,
        partition: Partition,
        offset: Offset,
        went_on: bool,
        here: bool,
    ) {
        if let Some(feed) = self.feeds.get_mut(&partition) {
            if went_on {
                // The log went on after its end was asked for.
                feed.idle_until = None;
            }
            feed.at_end = here;
            feed.log_end = feed.log_end.max(offset);
        }
    }

    /// The topic was looked up: it has these topic partitions, each with its first offset and its
    /// end.
    pub(super) fn note_topic(
        &mut self,
        partitions: &BTreeMap<Partition, (Offset, Offset)>,
        has_id: bool,
        now: Mono,
    ) {
        for (partition, feed) in &mut self.feeds {
            // Without an id nothing says that the topic was made again with fewer topic partitions.
            let there = !has_id || partitions.contains_key(partition);
            feed.gone = if there { None } else { feed.gone.or(Some(now)) };
        }
    }

    /// The topic was looked up: its logs end here.
    pub(super) fn note_log_ends(&mut self, partitions: &BTreeMap<Partition, (Offset, Offset)>) {
        for (partition, (_, end)) in partitions {
            if let Some(feed) = self.feeds.get_mut(partition) {
                feed.log_end = feed.log_end.max(*end);
            }
        }
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
        step: &Step<'_>,
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
            Err(_) => Limits::AskAt(step.now.plus(RETRY_MS)),
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

    /// Asks what is due: the limits of logs that could not be asked for, and the ends of silent
    /// logs.
    pub(super) fn ask(&mut self, lanes: &Lanes, step: &mut Step<'_>) {
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
        self.ask_log_ends(lanes, step);
    }

    /// Asks for the log's end of topic partitions that were silent for `idle-timeout`; sooner again
    /// where that is what keeps a window from closing.
    fn ask_log_ends(&mut self, lanes: &Lanes, step: &mut Step<'_>) {
        let timeout = step.rules.idle_timeout_ms;
        let shape = &step.rules.shape;
        let slides = |at: EventTime| (at.0 - shape.offset_ms).div_euclid(shape.slide_ms);
        let target = self.idle_and_target(lanes, step.now).1.map(slides);
        let greatest = lanes.values().filter_map(Lane::watermark).max();
        for (partition, feed) in &mut self.feeds {
            let silent = step.now.since(feed.last_record) >= timeout;
            let every = if feed.idle_until.is_some() && target > feed.floor_limit.map(slides) {
                LOOK_AGAIN_MS
            } else {
                (timeout / 4).clamp(LOOK_AGAIN_MS, 10_000)
            };
            let due = feed
                .end_answered_at
                .is_none_or(|at| step.now.since(at) >= every);
            let asks = feed.reading && feed.at_end && silent && due && !feed.held;
            if asks && step.questions.log_end_due(*partition, step.now) {
                feed.watermark_when_asked = greatest;
                step.ask(BrokersRequest::LogEnd {
                    partition: *partition,
                });
            }
        }
    }

    /// The end of a log was answered: whether its topic partition stands aside. `asked_at` is when
    /// that was asked for.
    pub(super) fn take_log_end(
        &mut self,
        partition: Partition,
        asked_at: Mono,
        end: Result<LogEnd, String>,
        lanes: &Lanes,
        step: &Step<'_>,
    ) {
        let (Some(lane), Some(feed)) = (lanes.get(&partition), self.feeds.get_mut(&partition))
        else {
            return;
        };
        feed.end_answered_at = Some(step.now);
        let Ok(end) = end else {
            feed.idle_until = None;
            return;
        };
        feed.log_end = feed.log_end.max(end.high_watermark);
        let next = lane.ledger.next_offset;
        let silent = step.now.since(feed.last_record) >= step.rules.idle_timeout_ms;
        let nothing = next == end.last_stable && next == end.high_watermark;
        let idle = feed.at_end && silent && nothing && feed.reading && !feed.held;
        let hold_ms = step
            .rules
            .idle_timeout_ms
            .max(step.rules.limits.idle_holds_ms);
        feed.idle_until = idle.then(|| asked_at.plus(hold_ms));
        if idle {
            feed.floor_limit = feed.watermark_when_asked;
        }
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
            lanes.values().filter_map(Lane::watermark).max()
        } else {
            // One that is not idle and has no watermark yet holds all the others.
            let watermark =
                |(p, lane): (&Partition, &Lane)| (!idle.contains(p)).then(|| lane.watermark());
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
            let limit = if feed.gone.is_some() {
                Some(target)
            } else {
                feed.floor_limit
            };
            limit.map(|limit| (partition, limit.min(target)))
        };
        idle.into_iter().filter_map(floor).collect()
    }

    /// The floor of all topic partitions when the whole topic has been silent for `quiet-timeout`:
    /// the end of the last open window.
    pub(super) fn quiet_floor(&self, lanes: &Lanes, step: &Step<'_>) -> Option<EventTime> {
        let quiet_ms = step.rules.quiet_timeout_ms?;
        let silent_since = self.feeds.values().map(|feed| feed.last_record).max()?;
        let quiet = step.now.since(silent_since) >= quiet_ms
            && lanes
                .keys()
                .all(|partition| self.is_idle(*partition, step.now));
        if !quiet {
            return None;
        }
        lanes.values().filter_map(Lane::last_end).max()
    }

    /// Flow control: holds back what runs ahead too far or fills memory. It changes no row. `all`
    /// holds everything.
    pub(super) fn control_flow(&mut self, lanes: &Lanes, all: bool, step: &mut Step<'_>) {
        let side: usize = lanes.values().map(|lane| lane.side_bytes).sum();
        let closed = closed_entries(lanes);
        let behind: Vec<Option<EventTime>> = lanes
            .iter()
            .filter(|(partition, _)| !self.is_idle(**partition, step.now))
            .map(|(_, lane)| lane.watermark())
            .collect();
        // While one that is not idle has no watermark yet, nothing becomes final.
        let (least, unset) = (behind.iter().flatten().min(), behind.contains(&None));
        let all = all || side > 2 * SIDE_BYTES_MAX;
        for (partition, lane) in lanes {
            let ahead = lane.watermark().is_some_and(|w| {
                least.is_some_and(|least| w > least.plus(step.rules.max_skew_ms))
                    || (closed > 2 * CLOSED_ENTRIES_MAX
                        && (unset || least.is_some_and(|least| w > *least)))
            });
            let hold = all || (ahead && !lane.replaying());
            let feed = self
                .feeds
                .get_mut(partition)
                .expect("every lane has a feed");
            if feed.reading && feed.held != hold {
                feed.held = hold;
                feed.idle_until = None;
                feed.last_record = step.now;
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

/// Entries of windows that are closed in their topic partition and not final yet.
pub(super) fn closed_entries(lanes: &Lanes) -> u64 {
    lanes
        .values()
        .flat_map(|lane| lane.closed.values())
        .map(|entries| entries.len() as u64)
        .sum()
}
