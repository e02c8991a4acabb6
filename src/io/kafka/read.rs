//! Hands over what was fetched, batch by batch, in the order of each topic partition's log.
//! The caller keeps the offsets and looks into the records.

use super::Event;
use super::errors::{ClientErrors, KafkaError, code, is_too_early};
use super::ffi::{Bell, Client, Failure, Fetched, Messages, Queue};
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::debug;
use windrow_core::values::record::{Offset, Partition};

/// How long a start that checks the leader epoch may take.
const START_TIMEOUT: Duration = Duration::from_secs(5);
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
}

/// One topic partition that was started.
struct Feed {
    queue: Queue,
    paused: bool,
    /// Nothing more is handed over until the next start, because what follows would hide that
    /// something is missing.
    halted: bool,
}

impl Reader {
    pub(super) fn new(client: Arc<Client>, errors: Arc<ClientErrors>, topic: Arc<CStr>) -> Self {
        Self {
            feeds: BTreeMap::new(),
            messages: Messages::new(),
            bell: Arc::default(),
            recent: BTreeMap::new(),
            topic,
            errors,
            client,
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
        let failed = |failure: &Failure| self.errors.classify(failure, "read");
        let Some(queue) = self.client.queue(&self.topic, partition, &self.bell) else {
            return Err(KafkaError::Other(format!(
                "cannot read topic \"{}\": librdkafka has no queue for it; start windrow again",
                self.errors.topic
            )));
        };
        // Drops the errors of an earlier start. They carry no version, so librdkafka cannot know
        // that they are old.
        loop {
            self.messages.fill(&queue);
            if self.messages.is_empty() {
                break;
            }
        }
        self.client
            .assign(&self.topic, partition, offset, leader_epoch)
            .map_err(|f| failed(&f))?;
        if leader_epoch >= 0 && offset > 0 {
            self.validate(partition, offset, leader_epoch)?;
        }
        self.feeds.insert(
            partition,
            Feed {
                queue,
                paused: false,
                halted: false,
            },
        );
        Ok(())
    }

    fn validate(
        &self,
        partition: Partition,
        offset: Offset,
        leader_epoch: i32,
    ) -> Result<(), KafkaError> {
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
                    return Err(self.errors.classify(&failure, "read"));
                }
            }
        }
    }

    /// Ends reading a topic partition. Nothing of it is handed over after this.
    pub fn stop(&mut self, partition: Partition) {
        if self.feeds.remove(&partition).is_some()
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
        while !self.read_feeds(every, on) && !every {
            // After a wait in which the bell did not ring, each queue is read once, ready or not.
            // So nothing depends on the bell alone.
            every = !self.bell.wait(deadline);
        }
        self.errors.fatal().map_or(Ok(()), Err)
    }

    /// Reads the feeds that are ready, or `every` feed. Says whether anything was there.
    fn read_feeds(&mut self, every: bool, on: &mut dyn FnMut(Event<'_>)) -> bool {
        let mut any = false;
        for (&partition, feed) in &mut self.feeds {
            if feed.paused || !(every || feed.queue.ready()) {
                continue;
            }
            self.messages.fill(&feed.queue);
            any |= !self.messages.is_empty();
            let (errors, recent, halted) = (&self.errors, &mut self.recent, &mut feed.halted);
            self.messages.each(|fetched| {
                if !*halted {
                    *halted = hand_over(partition, &fetched, errors, recent, on);
                }
            });
            self.messages.clear();
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
