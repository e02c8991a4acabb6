//! Hands over what was fetched, batch by batch, in the order of each topic partition's log.
//! The caller keeps the offsets and looks into the records.

use super::errors::{ClientErrors, KafkaError, code, is_too_early};
use super::ffi::{Bell, Client, Failure, Fetched, Messages, Queue};
use super::turns::{FIRST_FETCH_BYTES, Share, turns};
use super::{Event, MESSAGE_BYTES};
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::debug;
use windrow_core::values::record::{Offset, Partition};

/// How long a start that checks the leader epoch may take.
const START_TIMEOUT: Duration = Duration::from_secs(5);
/// How large a record is taken to be before one was read, in bytes.
const FIRST_RECORD_BYTES: u64 = 1024;
/// A topic partition that fetches nothing for so long leaves its turn to others.
const NOTHING_COMES: Duration = Duration::from_secs(2);
/// While others wait, a turn ends when so many times its share of the bound was read, although a
/// part of the record batch is left, which is then fetched again. Otherwise one topic partition
/// would be ahead of the others by more than memory can hold.
///
/// Example: `max-memory` is 32 MiB, so the bound is 2 MiB, and a turn of each of 40 topic
/// partitions ends after 410 KiB, which is 1,000 records of 100 bytes. With 512 MiB it ends after
/// 6.4 MiB, which is more than a batch of 1 MB takes.
const TURN_SHARES: u64 = 8;
/// How often it is looked at whose turn it is.
const TURNS_EVERY: Duration = Duration::from_millis(5);
/// A topic partition that could not be started again is tried again after this time.
const WAKE_AGAIN: Duration = Duration::from_secs(1);
/// The same problem is reported again after this time.
const REPORT_AGAIN: Duration = Duration::from_secs(30);

/// Hands over what was fetched of those topic partitions that were started.
pub struct Reader {
    feeds: BTreeMap<Partition, Feed>,
    messages: Messages,
    bell: Arc<Bell>,
    /// The texts of the problems that were reported lately, and when.
    recent: BTreeMap<String, Instant>,
    topic: Arc<CStr>,
    errors: Arc<ClientErrors>,
    client: Arc<Client>,
    /// How much all queues together may hold, in bytes.
    bound: u64,
    /// Counts the times when somebody went to rest.
    turn: u64,
    /// When it was last looked at whose turn it is.
    turns_at: Instant,
    /// Nobody is woken before this time, because it has just failed.
    wake_after: Option<Instant>,
}

/// One topic partition that was started.
struct Feed {
    queue: Queue,
    paused: bool,
    /// Nothing more is handed over until the next start, because what follows would hide that
    /// something is missing.
    halted: bool,
    /// Where reading goes on: the offset, and the leader epoch of the record before it or -1.
    next: (Offset, i32),
    /// It was woken, and the log may have been cut off while it rested. What comes first shows it.
    unchecked: bool,
    /// Since which turn it rests, which means that it is not assigned; `None` while it fetches.
    rests_since: Option<u64>,
    /// Nothing more was there when it fetched last.
    at_end: bool,
    /// What a record has in bytes, about.
    record_bytes: u64,
    /// The most messages that were in the queue since it was last read to its end.
    filled: u64,
    /// The same of the time before: what it may come to hold again. `None` before the first time.
    expected: Option<u64>,
    /// What it has fetched was read, or so much of it that its turn is over.
    is_read: bool,
    /// How many messages were read since it was woken.
    read_in_turn: u64,
    /// When something was read last, or fetching began.
    moved_at: Instant,
}

impl Feed {
    fn new(queue: Queue, next: (Offset, i32)) -> Self {
        Self {
            queue,
            paused: false,
            halted: false,
            next,
            unchecked: false,
            rests_since: None,
            at_end: false,
            record_bytes: FIRST_RECORD_BYTES,
            filled: 0,
            expected: None,
            is_read: false,
            read_in_turn: 0,
            moved_at: Instant::now(),
        }
    }

    /// What so many messages take in memory, in bytes, about.
    fn bytes(&self, messages: u64) -> u64 {
        messages * (MESSAGE_BYTES + self.record_bytes)
    }

    /// What the queue holds, in bytes, about.
    fn queued(&self) -> u64 {
        self.bytes(self.queue.len() as u64)
    }

    /// The queue had `before` messages, and a part of them was read; `turn_bytes` is what one turn
    /// reads at most while others wait.
    fn note_read(&mut self, before: u64, turn_bytes: u64) {
        let left = self.queue.len() as u64;
        self.moved_at = Instant::now();
        self.filled = self.filled.max(before);
        self.read_in_turn += before.saturating_sub(left);
        let all = left <= self.filled / 8;
        if all {
            self.expected = Some(std::mem::replace(&mut self.filled, left));
        }
        self.is_read = all || self.bytes(self.read_in_turn) >= turn_bytes;
    }

    /// Whether what comes first after a rest, a record of this leader epoch, may be handed over.
    ///
    /// Within one leader epoch a log only grows. So when the record before the offset and the one
    /// at it have the same leader epoch, nothing was cut off between. Otherwise the leader must be
    /// asked.
    fn passes_check(&mut self, first: Option<i32>) -> bool {
        let Some(first) = first.filter(|_| self.unchecked) else {
            return true;
        };
        let same = first == self.next.1;
        self.unchecked = !same;
        same
    }

    /// Takes note of what was handed over.
    fn note(&mut self, event: &Event<'_>) {
        match event {
            Event::Batch {
                leader_epoch,
                records,
                bytes,
                next_offset,
                ..
            } => {
                self.next = (*next_offset, *leader_epoch);
                self.record_bytes = (bytes / records.max(&1)) as u64;
                self.at_end = false;
            }
            Event::End { next_offset, .. } => {
                // A marker of a transaction lies between, and nobody tells its leader epoch. So
                // after a rest, reading goes on behind the last record: otherwise nothing would
                // show that the log was cut off and grew again meanwhile.
                if self.next.1 < 0 {
                    self.next.0 = self.next.0.max(*next_offset);
                }
                self.at_end = true;
            }
            _ => {}
        }
    }

    fn share(&self) -> Share {
        let queued = if self.rests_since.is_some() {
            0
        } else {
            self.queued()
        };
        Share {
            queued,
            expected: self.expected.map_or(FIRST_FETCH_BYTES, |n| self.bytes(n)),
            at_end: self.at_end,
            paused: self.paused,
            // Its leader may be away, and then the others do not wait for it.
            is_read: self.is_read || (queued == 0 && self.moved_at.elapsed() > NOTHING_COMES),
            rests_since: self.rests_since,
        }
    }
}

impl Reader {
    pub(super) fn new(
        client: Arc<Client>,
        errors: Arc<ClientErrors>,
        topic: Arc<CStr>,
        bound: u64,
    ) -> Self {
        Self {
            feeds: BTreeMap::new(),
            messages: Messages::new(),
            bell: Arc::default(),
            recent: BTreeMap::new(),
            topic,
            errors,
            client,
            bound,
            turn: 0,
            turns_at: Instant::now(),
            wake_after: None,
        }
    }

    /// Reads a topic partition from an offset on. Whatever was fetched before is forgotten.
    ///
    /// `leader_epoch` is that of the record before the offset, or -1. With it, a log that was cut
    /// off and written anew is reported as [`Event::Truncated`].
    ///
    /// Ask for the topic first: librdkafka says nothing about a partition that never existed, or
    /// about a topic that the user may not see.
    ///
    /// # Errors
    /// `Fatal` or `Other`. What goes wrong later comes as an event.
    pub fn start(
        &mut self,
        partition: Partition,
        offset: Offset,
        leader_epoch: i32,
    ) -> Result<(), KafkaError> {
        self.stop(partition);
        let Some(queue) = self.client.queue(&self.topic, partition, &self.bell) else {
            return Err(KafkaError::Other(format!(
                "cannot read topic \"{}\": librdkafka has no queue for it; start windrow again",
                self.errors.topic
            )));
        };
        let mut feed = Feed::new(queue, (offset, leader_epoch));
        let others = self.feeds.iter().map(|(p, feed)| (*p, feed.share()));
        let mut shares: BTreeMap<Partition, Share> = others.collect();
        feed.rests_since = Some(self.turn);
        shares.insert(partition, feed.share());
        if turns(self.bound, &shares).wake.contains(&partition) {
            self.fetch_validated(partition, &feed)
                .map_err(|f| self.errors.classify(&f, "read"))?;
            feed.rests_since = None;
        }
        self.feeds.insert(partition, feed);
        Ok(())
    }

    /// Assigns a topic partition to the client, which begins to fetch it.
    fn fetch(&mut self, partition: Partition, feed: &Feed) -> Result<(), Failure> {
        // Drops the errors of an earlier start. They carry no version, so librdkafka cannot know
        // that they are old.
        self.empty(&feed.queue);
        let (offset, leader_epoch) = feed.next;
        self.client
            .assign(&self.topic, partition, offset, leader_epoch)
    }

    /// The same, and the leader is asked whether its log was cut off below the offset. That takes
    /// librdkafka half a second where it has just ended fetching.
    fn fetch_validated(&mut self, partition: Partition, feed: &Feed) -> Result<(), Failure> {
        self.fetch(partition, feed)?;
        let (offset, leader_epoch) = feed.next;
        if leader_epoch >= 0 && offset > 0 {
            self.validate(partition, offset, leader_epoch)?;
        }
        Ok(())
    }

    /// Frees what is in the queue of a topic partition that is not assigned.
    fn empty(&mut self, queue: &Queue) {
        loop {
            self.messages.fill(queue);
            if self.messages.is_empty() {
                return;
            }
        }
    }

    /// Sends some topic partitions to rest and wakes others, so that all queues together stay
    /// within the bound.
    fn take_turns(&mut self) {
        if self.turns_at.elapsed() < TURNS_EVERY {
            return;
        }
        self.turns_at = Instant::now();
        let shares = self.feeds.iter().map(|(p, feed)| (*p, feed.share()));
        let turns = turns(self.bound, &shares.collect());
        for partition in turns.rest {
            let Some(mut feed) = self.feeds.remove(&partition) else {
                continue;
            };
            if let Err(failure) = self.client.unassign(&self.topic, partition) {
                debug!(partition, error = %failure.text, "unassign failed");
            }
            self.empty(&feed.queue);
            self.turn += 1;
            feed.rests_since = Some(self.turn);
            self.feeds.insert(partition, feed);
        }
        if self.wake_after.is_some_and(|at| Instant::now() < at) {
            return;
        }
        self.wake_after = None;
        for partition in turns.wake {
            let Some(mut feed) = self.feeds.remove(&partition) else {
                continue;
            };
            match self.fetch(partition, &feed) {
                Ok(()) => {
                    feed.unchecked = feed.next.0 > 0 && feed.next.1 >= 0;
                    (feed.rests_since, feed.is_read, feed.filled) = (None, false, 0);
                    (feed.read_in_turn, feed.moved_at) = (0, Instant::now());
                }
                Err(failure) => {
                    debug!(partition, error = %failure.text, "cannot fetch again");
                    self.wake_after = Some(Instant::now() + WAKE_AGAIN);
                }
            }
            self.feeds.insert(partition, feed);
        }
    }

    /// Fetches a topic partition again whose log may have been cut off while it rested.
    fn validate_again(&mut self, partition: Partition) {
        let Some(mut feed) = self.feeds.remove(&partition) else {
            return;
        };
        let unassigned = self.client.unassign(&self.topic, partition);
        match unassigned.and_then(|()| self.fetch_validated(partition, &feed)) {
            Ok(()) => feed.unchecked = false,
            Err(failure) => {
                debug!(partition, error = %failure.text, "cannot fetch again");
                feed.rests_since = Some(self.turn);
                self.wake_after = Some(Instant::now() + WAKE_AGAIN);
            }
        }
        self.feeds.insert(partition, feed);
    }

    fn validate(
        &self,
        partition: Partition,
        offset: Offset,
        leader_epoch: i32,
    ) -> Result<(), Failure> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            match self
                .client
                .validate(&self.topic, partition, offset, leader_epoch, START_TIMEOUT)
            {
                Ok(()) => return Ok(()),
                // An earlier stop has not come to its end, so the start has not begun.
                Err(f) if is_too_early(f.code) && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err(failure) => {
                    let _ = self.client.unassign(&self.topic, partition);
                    return Err(failure);
                }
            }
        }
    }

    /// Ends reading a topic partition. Nothing of it is handed over after this.
    pub fn stop(&mut self, partition: Partition) {
        if let Some(feed) = self.feeds.remove(&partition)
            && feed.rests_since.is_none()
            && let Err(failure) = self.client.unassign(&self.topic, partition)
        {
            debug!(partition, error = %failure.text, "unassign failed");
        }
    }

    /// Hands over nothing more of a topic partition until it is resumed. What was fetched stays in
    /// memory, and when the limits are reached, fetching pauses too.
    pub fn pause(&mut self, partition: Partition) {
        if let Some(feed) = self.feeds.get_mut(&partition) {
            feed.paused = true;
        }
    }

    /// Goes on where the topic partition was paused.
    pub fn resume(&mut self, partition: Partition) {
        if let Some(feed) = self.feeds.get_mut(&partition) {
            feed.paused = false;
        }
    }

    /// What all queues together hold, in bytes, about.
    #[cfg(test)]
    pub(super) fn queued_bytes(&self) -> u64 {
        self.feeds.values().map(Feed::queued).sum()
    }

    /// Waits at most for `timeout` until there is something, and then hands over one batch of each
    /// topic partition that has any. It does not wait for a batch to fill.
    ///
    /// # Errors
    /// `Fatal`: the client no longer works, so make a new one.
    pub fn poll(
        &mut self,
        timeout: Duration,
        on: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), KafkaError> {
        let deadline = Instant::now() + timeout;
        self.report_problems(on);
        let mut every = false;
        self.take_turns();
        while !self.read_feeds(every, on) && !every {
            // After a wait in which the bell did not ring, each queue is read once, ready or not.
            // So nothing depends on the bell alone.
            every = !self.bell.wait(deadline);
        }
        self.errors.fatal().map_or(Ok(()), Err)
    }

    /// Reads the feeds that are ready, or `every` feed. Says whether anything was there.
    fn read_feeds(&mut self, every: bool, on: &mut dyn FnMut(Event<'_>)) -> bool {
        let (mut any, mut to_validate) = (false, Vec::new());
        let turn_bytes = self.bound * TURN_SHARES / self.feeds.len().max(1) as u64;
        for (&partition, feed) in &mut self.feeds {
            if feed.paused || feed.rests_since.is_some() || !(every || feed.queue.ready()) {
                continue;
            }
            let before = feed.queue.len() as u64;
            self.messages.fill(&feed.queue);
            if self.messages.is_empty() {
                continue;
            }
            any = true;
            if !feed.passes_check(self.messages.first_leader_epoch()) {
                to_validate.push(partition);
                self.messages.clear();
                continue;
            }
            let (errors, recent) = (&self.errors, &mut self.recent);
            self.messages.each(|fetched| {
                if !feed.halted {
                    feed.halted = hand_over(partition, &fetched, errors, recent, &mut |event| {
                        feed.note(&event);
                        on(event);
                    });
                }
            });
            self.messages.clear();
            feed.note_read(before, turn_bytes);
        }
        for partition in to_validate {
            self.validate_again(partition);
        }
        if any {
            self.errors.clear();
        }
        any
    }

    fn report_problems(&mut self, on: &mut dyn FnMut(Event<'_>)) {
        self.client.serve();
        while let Some(failure) = self.client.next_failure() {
            let what = self.errors.classify(&failure, "read");
            report_problem(None, what, &mut self.recent, on);
        }
        for what in self.errors.take_news() {
            report_problem(None, what, &mut self.recent, on);
        }
        if let Some(why) = self.client.fatal() {
            self.errors.set_fatal(&why);
        }
    }
}

/// Hands over one piece. Says whether the topic partition halts with it.
fn hand_over(
    partition: Partition,
    fetched: &Fetched<'_>,
    errors: &ClientErrors,
    recent: &mut BTreeMap<String, Instant>,
    on: &mut dyn FnMut(Event<'_>),
) -> bool {
    let (failure, offset) = match fetched {
        Fetched::Records(records) => {
            let (last, leader_epoch) = records.last();
            on(Event::Batch {
                partition,
                leader_epoch,
                batch: records,
                records: records.count(),
                bytes: records.bytes(),
                next_offset: last + 1,
            });
            return false;
        }
        Fetched::Error { failure, offset } => (failure, *offset),
    };
    match failure.code {
        code::PARTITION_EOF => on(Event::End {
            partition,
            next_offset: offset,
        }),
        code::AUTO_OFFSET_RESET
            if failure.text.contains("truncat") || failure.text.contains("No epoch found") =>
        {
            on(Event::Truncated {
                partition,
                cut_at: cut_at(&failure.text),
                why: errors.redact(&failure.text),
            });
            return true;
        }
        code::AUTO_OFFSET_RESET => {
            on(Event::OutOfRange { partition, offset });
            return true;
        }
        _ => {
            let what = errors.classify(failure, &format!("read partition {partition} of"));
            // Nothing more comes until the next start, so whoever starts it must always be told.
            if matches!(what, KafkaError::Damaged(_)) {
                on(Event::Problem {
                    partition: Some(partition),
                    what,
                });
                return true;
            }
            report_problem(Some(partition), what, recent, on);
        }
    }
    false
}

/// The offset at which the log was cut off, in librdkafka's text about it. It has asked the broker
/// where the leader epoch ends (`OffsetForLeaderEpoch`) and gives the answer nowhere else:
/// `Partition log truncation detected at offset 40 (leader epoch 3): broker end offset is 25
/// (offset leader epoch 3). Reset to INVALID.` A broker that cannot tell answers -1.
fn cut_at(text: &str) -> Option<Offset> {
    let (_, rest) = text.split_once("broker end offset is ")?;
    let digits = rest
        .split(|c: char| !c.is_ascii_digit() && c != '-')
        .next()?;
    digits.parse().ok().filter(|offset| *offset >= 0)
}

/// Reports a problem that was not reported lately.
fn report_problem(
    partition: Option<Partition>,
    what: KafkaError,
    recent: &mut BTreeMap<String, Instant>,
    on: &mut dyn FnMut(Event<'_>),
) {
    let now = Instant::now();
    recent.retain(|_, reported| now.duration_since(*reported) < REPORT_AGAIN);
    if recent.insert(what.to_string(), now).is_none() {
        on(Event::Problem { partition, what });
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let partitions: Vec<_> = self.feeds.keys().copied().collect();
        for partition in partitions {
            self.stop(partition);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_a_cut_is_in_librdkafkas_text() {
        for (text, at) in [
            (
                "Partition log truncation detected at offset 40 (leader epoch 3): broker end \
                 offset is 25 (offset leader epoch 3). Reset to INVALID.: Local: Partition log \
                 truncation detected (broker 1)",
                Some(25),
            ),
            (
                "No epoch found less or equal to offset 40 (leader epoch 3): broker end offset is \
                 -1 (offset leader epoch -1). Reset using configured policy.",
                None,
            ),
            ("something else", None),
        ] {
            assert_eq!(cut_at(text), at, "{text}");
        }
    }
}
