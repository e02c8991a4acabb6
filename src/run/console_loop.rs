//! Console mode, which does what the Spark job does without a table: it prints all windows so far,
//! again and again as they change, and stores nothing. Health, metrics and the status are served as
//! in the mode with a table.
#![expect(
    clippy::disallowed_methods,
    reason = "it reads clocks to know when to ask for the topic and when to print again"
)]

use crate::io::http::{self, Command, Handle};
use crate::io::kafka::{self, At, Brokers, Event, KafkaConfig, KafkaError, Reader};
use crate::run::cli;
use crate::run::clients;
use crate::run::rotation::{log_problems, watch_secrets};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal, Write};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::{Notify, mpsc as async_mpsc, watch};
use tracing::{info, warn};
use windrow_core::count::extract::{Extraction, Extractor};
use windrow_core::count::window::Windows;
use windrow_core::engine::pause_before_start;
use windrow_core::settings::config::{Config, Secret, Secrets, Start};
use windrow_core::shown::console::{Console, Hit, ROWS_MAX};
use windrow_core::shown::status::{State, Status};
use windrow_core::values::cause::{Cause, Trouble, name_or_empty};
use windrow_core::values::record::{Offset, Partition, Record};
use windrow_core::values::time::EventTime;

/// How long one question to Kafka may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// How often it asks for the topic: for new topic partitions, and to see whether brokers answer.
const TOPIC_EVERY: Duration = Duration::from_secs(10);
/// The same while something is wrong.
const TOPIC_AGAIN: Duration = Duration::from_secs(1);
/// How long one read waits for records.
const POLL: Duration = Duration::from_millis(100);
/// How often it sends a snapshot of the status, whether it has changed or not.
const STATUS_EVERY: Duration = Duration::from_millis(500);
/// How often it prints on a terminal. Otherwise, for example into the log of a pod, it prints every
/// `commit-interval`.
const REDRAW: Duration = Duration::from_secs(1);
/// How long it may wait for a broker's answer after it was asked to end.
const END_MAX: Duration = Duration::from_secs(2);

/// What other tasks send to the loop.
enum Message {
    Secrets(Box<Secrets>),
    Stop,
}

/// Prints until it is told to stop, or until nobody reads the output any more.
///
/// # Errors
/// The address of the setting `http` is not free, or the Kafka client refuses its settings.
pub fn run(
    config: &Config,
    secrets: &Secrets,
    runtime: &Runtime,
    reload: Arc<Notify>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let kafka = clients::kafka_config(config, secrets)?;
    let (brokers, reader) = kafka::open(&kafka)?;
    let listener = runtime.block_on(http::bind(config.http))?;
    let status = Status {
        topic: config.shape.topic.clone(),
        owner: clients::who(config),
        version: cli::VERSION.to_owned(),
        reason: "starting".to_owned(),
        cause: Some(Cause::Starting),
        problems: secrets.problems_text(),
        ..Status::default()
    };
    log_problems(secrets);
    let (status_tx, status_rx) = watch::channel(Arc::new(status.clone()));
    let (token_tx, token_rx) = watch::channel(clients::http_token(secrets)?);
    let (commands_tx, commands_rx) = async_mpsc::channel(1);
    runtime.spawn(refuse(commands_rx));
    let handle = Handle {
        status: status_rx,
        commands: commands_tx,
        rows: Arc::new(|_, _| {
            Box::pin(async { Err("console mode keeps no table; set table.name".to_owned()) })
        }),
        token: token_rx,
        verifier: None,
    };
    runtime.spawn(http::serve(listener, handle, std::future::pending()));
    let (to_loop, inbox) = mpsc::channel();
    let secrets_to_loop = to_loop.clone();
    let send = move |secrets| {
        let message = Message::Secrets(Box::new(secrets));
        secrets_to_loop.send(message).is_ok()
    };
    runtime.spawn(watch_secrets(config.clone(), secrets.clone(), reload, send));
    runtime.spawn(async move {
        stop.await;
        let _ = to_loop.send(Message::Stop);
        tokio::time::sleep(END_MAX).await;
        // Nothing is stored, so nothing is lost.
        std::process::exit(i32::from(cli::EXIT_FINE));
    });
    let printer = Printer {
        config,
        kafka,
        brokers,
        reader,
        token_tx,
        next: None,
        asked_at: None,
        hindrances: Hindrances::default(),
        status,
        status_tx,
        status_at: None,
    };
    printer.run(&inbox);
    Ok(())
}

/// Refuses all commands, because there is nothing that could be paused.
async fn refuse(mut commands: async_mpsc::Receiver<Command>) {
    while let Some(Command { answer, .. }) = commands.recv().await {
        let _ = answer.send(Err(
            "console mode cannot be paused; set table.name".to_owned()
        ));
    }
}

/// The loop's state.
struct Printer<'a> {
    config: &'a Config,
    kafka: KafkaConfig,
    brokers: Brokers,
    reader: Reader,
    token_tx: watch::Sender<Option<Secret>>,
    /// The next offset of each topic partition that is read; `None` until the topic is known.
    next: Option<BTreeMap<Partition, Offset>>,
    /// When the brokers were asked for the topic.
    asked_at: Option<Instant>,
    hindrances: Hindrances,
    status: Status,
    status_tx: watch::Sender<Arc<Status>>,
    /// When the status was sent; `None` when it must be sent at once.
    status_at: Option<Instant>,
}

/// What keeps topic partitions from being read, until each goes on itself: records of the others do
/// not end it.
#[derive(Default)]
struct Hindrances {
    /// Why the topic could not be looked up, or a topic partition of it could not be started.
    topic: Option<Trouble>,
    /// The topic partitions that cannot be read for now, for example because what came of them was
    /// damaged.
    halted: BTreeMap<Partition, Halted>,
    /// The topic partitions whose log does not have the next offset, and are not read until it is
    /// known where they go on.
    lost: BTreeSet<Partition>,
}

impl Hindrances {
    /// What is told of them; `None` where everything is read.
    fn first(&self) -> Option<Trouble> {
        let halted = || self.halted.values().next().map(|halted| halted.why.clone());
        let lost = || {
            let partition = self.lost.first()?;
            Some(Trouble::from(format!(
                "the log of topic partition {partition} does not have the next offset; the brokers \
                 are asked where it goes on"
            )))
        };
        self.topic.clone().or_else(halted).or_else(lost)
    }

    /// A topic partition could not be read. It is started again after a pause.
    fn halt(&mut self, partition: Partition, why: Trouble) {
        let pause_ms = pause_before_start(None);
        self.halted.entry(partition).or_insert(Halted {
            why,
            at: Instant::now() + Duration::from_millis(pause_ms),
            pause_ms,
        });
    }
}

/// Starts each topic partition at its next offset. Returns those that could not be started.
fn start_each<'n, E>(
    next: impl IntoIterator<Item = (&'n Partition, &'n Offset)>,
    mut start: impl FnMut(Partition, Offset) -> Result<(), E>,
) -> Vec<(Partition, E)> {
    next.into_iter()
        .filter_map(|(partition, offset)| Some((*partition, start(*partition, *offset).err()?)))
        .collect()
}

/// Why a topic partition is not read for now.
struct Halted {
    why: Trouble,
    /// When it is started again.
    at: Instant,
    /// The pause before that.
    pause_ms: u64,
}

impl Printer<'_> {
    fn run(mut self, inbox: &mpsc::Receiver<Message>) {
        let shape = &self.config.shape;
        let mut windows = Counts {
            windows: Windows::of_shape(shape),
            extractor: Extractor::new(shape),
            console: Console::new(shape, ROWS_MAX),
            changed: false,
        };
        let terminal = std::io::stdout().is_terminal();
        let every = if terminal {
            REDRAW
        } else {
            Duration::from_millis(self.config.commit_interval_ms)
        };
        let mut printed: Option<Instant> = None;
        loop {
            let mut stop = false;
            while let Ok(message) = inbox.try_recv() {
                match message {
                    Message::Secrets(secrets) => self.rotate(&secrets),
                    Message::Stop => stop = true,
                }
            }
            if !stop {
                self.check_topic();
                self.start_halted();
                self.read(&mut windows);
                self.send_status();
            }
            let due = stop || printed.is_none_or(|at| at.elapsed() >= every);
            if windows.changed && due {
                (windows.changed, printed) = (false, Some(Instant::now()));
                let text = windows.console.render(terminal);
                stop |= std::io::stdout().lock().write_all(text.as_bytes()).is_err();
            }
            if stop {
                return;
            }
        }
    }

    /// Asks for the topic when that is due, and starts topic partitions that are not read yet.
    fn check_topic(&mut self) {
        let every = if self.status.state == State::Counting {
            TOPIC_EVERY
        } else {
            TOPIC_AGAIN
        };
        if self.asked_at.is_some_and(|at| at.elapsed() < every) {
            return;
        }
        self.hindrances.topic = self.start_new().err();
        self.set_counting();
        self.asked_at = Some(Instant::now());
    }

    fn start_new(&mut self) -> Result<(), Trouble> {
        let found = self.brokers.topic(ASK_TIMEOUT)?.partitions;
        if self.kafka.share_out(found.len()) {
            self.reopen();
        }
        self.start_lost()?;
        let known = self.next.as_ref();
        let new: Vec<Partition> = found
            .iter()
            .filter(|p| known.is_none_or(|known| !known.contains_key(p)))
            .copied()
            .collect();
        // All records of a topic partition that is new since were sent after we began.
        let latest = self.config.kafka.start == Start::Latest && known.is_none();
        let at = if latest { At::Latest } else { At::Earliest };
        for (partition, offset) in self.brokers.offsets(&new, at, ASK_TIMEOUT)? {
            self.reader.start(partition, offset, -1)?;
            self.next.get_or_insert_default().insert(partition, offset);
        }
        if found.is_empty() {
            let why = format!("topic \"{}\" has no partitions yet", self.kafka.topic);
            return Err(Trouble::new(Cause::NoTopic, why));
        }
        Ok(())
    }

    /// Goes on with topic partitions whose log does not have the next offset.
    fn start_lost(&mut self) -> Result<(), Trouble> {
        let lost: Vec<Partition> = self.hindrances.lost.iter().copied().collect();
        if lost.is_empty() {
            return Ok(());
        }
        let first = self.brokers.offsets(&lost, At::Earliest, ASK_TIMEOUT)?;
        let end = self.brokers.offsets(&lost, At::Latest, ASK_TIMEOUT)?;
        for partition in lost {
            let of = |offsets: &BTreeMap<Partition, Offset>| offsets.get(&partition).copied();
            let (Some(first), Some(end)) = (of(&first), of(&end)) else {
                continue;
            };
            let next = self.next.get_or_insert_default();
            let offset = next.get(&partition).copied().unwrap_or(first);
            let to = offset.clamp(first, end.max(first));
            if to > offset {
                warn!(
                    partition,
                    offset, to, "records were removed before they were read"
                );
            } else if to < offset {
                warn!(
                    partition,
                    offset, to, "the log was cut off; going on at its end"
                );
            }
            self.reader.start(partition, to, -1)?;
            next.insert(partition, to);
            self.hindrances.lost.remove(&partition);
        }
        Ok(())
    }

    /// Starts again what could not be read, after a pause that grows.
    fn start_halted(&mut self) {
        for (partition, halted) in &mut self.hindrances.halted {
            let next = self.next.as_ref().and_then(|next| next.get(partition));
            if let Some(offset) = next.filter(|_| Instant::now() >= halted.at) {
                halted.pause_ms = pause_before_start(Some(halted.pause_ms));
                halted.at = Instant::now() + Duration::from_millis(halted.pause_ms);
                if let Err(error) = self.reader.start(*partition, *offset, -1) {
                    warn!(partition, error = %error, "cannot start reading; trying again");
                }
            }
        }
    }

    fn read(&mut self, windows: &mut Counts) {
        let Self {
            reader,
            next,
            status,
            hindrances: Hindrances { halted, lost, .. },
            asked_at,
            ..
        } = self;
        let (mut news, mut read) = (Vec::new(), false);
        let polled = reader.poll(POLL, &mut |event| match event {
            Event::Batch {
                partition,
                batch,
                next_offset,
                ..
            } => {
                read = true;
                halted.remove(&partition);
                next.get_or_insert_default().insert(partition, next_offset);
                batch.each(&mut |record| windows.add(record, status));
            }
            Event::End {
                partition,
                next_offset,
            } => {
                read = true;
                halted.remove(&partition);
                next.get_or_insert_default().insert(partition, next_offset);
            }
            Event::Problem {
                what: KafkaError::GroupDenied(_),
                ..
            } => {}
            Event::Problem { partition, what } => {
                warn!(error = %what, "cannot read");
                news.push((partition, Trouble::from(what)));
            }
            Event::OutOfRange { partition, .. } => {
                lost.insert(partition);
                *asked_at = None;
            }
            Event::Truncated {
                partition,
                cut_at,
                why,
            } => {
                warn!(
                    partition,
                    why, "the log was cut off; going on with what is written since"
                );
                if let Some(offset) = cut_at {
                    next.get_or_insert_default().insert(partition, offset);
                }
                news.push((Some(partition), Trouble::from(why)));
            }
        });
        if read {
            self.set_counting();
        }
        for (halted, why) in news {
            self.note_trouble(halted, why);
        }
        if let Err(error) = polled {
            warn!(error = %error, "the Kafka client no longer works: making a new one");
            self.reopen();
        }
    }

    /// Something cannot be read: the topic partition `halted`, where it is one alone, which is
    /// started again after a pause.
    fn note_trouble(&mut self, halted: Option<Partition>, why: Trouble) {
        if let Some(partition) = halted {
            self.hindrances.halt(partition, why.clone());
        }
        self.set_waiting(why);
    }

    /// Goes on counting, because brokers answer or records come, unless one topic partition is not
    /// read.
    fn set_counting(&mut self) {
        match self.hindrances.first() {
            Some(why) => self.set_waiting(why),
            None if self.status.state != State::Counting => {
                (self.status.state, self.status.reason) = (State::Counting, String::new());
                self.status.cause = None;
                self.status_at = None;
                info!("counting");
            }
            None => {}
        }
    }

    fn set_waiting(&mut self, why: Trouble) {
        if self.status.state != State::Waiting || self.status.reason != why.text {
            info!(
                cause = name_or_empty(why.cause),
                reason = why.text,
                "waiting"
            );
            self.status_at = None;
        }
        (self.status.state, self.status.cause, self.status.reason) =
            (State::Waiting, why.cause, why.text);
    }

    fn rotate(&mut self, secrets: &Secrets) {
        self.status.problems = secrets.problems_text();
        self.status_at = None;
        info!("secrets have changed: using the new ones");
        match clients::http_token(secrets) {
            Ok(token) => drop(self.token_tx.send_replace(token)),
            Err(error) => warn!(error = %error, "cannot use the new api-token"),
        }
        let (username, password) = clients::kafka_login(secrets);
        if let Some(kafka) = self.kafka.with_login(username, password) {
            self.kafka = kafka;
            self.reopen();
        }
    }

    /// Replaces the client by a new one, which goes on where the old one was.
    fn reopen(&mut self) {
        match kafka::open(&self.kafka) {
            Ok((brokers, reader)) => {
                (self.brokers, self.reader) = (brokers, reader);
                let next = self.next.iter().flatten();
                let failed = start_each(next, |partition, offset| {
                    self.reader.start(partition, offset, -1)
                });
                for (partition, error) in failed {
                    self.note_trouble(Some(partition), error.into());
                }
            }
            Err(error) => self.set_waiting(error.into()),
        }
        self.asked_at = None;
    }

    fn send_status(&mut self) {
        if self.status_at.is_none_or(|at| at.elapsed() >= STATUS_EVERY) {
            self.status_at = Some(Instant::now());
            self.status_tx.send_replace(Arc::new(self.status.clone()));
        }
    }
}

/// Records on their way to the console.
struct Counts {
    windows: Windows,
    extractor: Extractor,
    console: Console,
    /// Something has changed that is not printed yet.
    changed: bool,
}

impl Counts {
    fn add(&mut self, record: Record<'_>, status: &mut Status) {
        status.consumed += 1;
        let Some(value) = record.value else {
            status.tombstones += 1;
            return;
        };
        match self.extractor.extract(record.timestamp_ms, value) {
            Extraction::Counted(found) => {
                status.counted += 1;
                self.changed = true;
                let span = self.windows.span(found.time.0);
                let mut end = span.first_end;
                while end <= span.last_end {
                    let start = EventTime(end - self.windows.size);
                    let hit = Hit {
                        start,
                        end: EventTime(end),
                        key: found.key,
                        values: found.values,
                    };
                    self.console.add(hit);
                    end += self.windows.slide;
                }
            }
            Extraction::Reject { reason, .. } => {
                status.rejected += 1;
                if status.rejected.is_power_of_two() {
                    let (offset, rejected) = (record.offset, status.rejected);
                    warn!(offset, rejected, reason, "cannot count a record");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_one_topic_partition_do_not_hide_that_another_stands_still() {
        let mut hindrances = Hindrances::default();
        assert_eq!(hindrances.first(), None);
        hindrances.lost.insert(3);
        let lost = hindrances.first().expect("it is not read");
        assert!(
            lost.text.starts_with("the log of topic partition 3 "),
            "{lost}"
        );
        hindrances.halt(1, "it came damaged".into());
        assert_eq!(hindrances.first(), Some("it came damaged".into()));
        // A new topic partition whose offsets cannot be asked for.
        hindrances.topic = Some(Trouble::new(Cause::NoTopic, "no leader"));
        assert_eq!(hindrances.first(), hindrances.topic);
        // What is said of the topic ends with the next look-up that succeeds, and only what goes on
        // itself is over.
        hindrances.topic = None;
        hindrances.halted.clear();
        assert_eq!(hindrances.first(), Some(lost));
    }

    #[test]
    fn one_topic_partition_that_cannot_be_started_does_not_stop_those_behind_it() {
        let next = BTreeMap::from([(0, 10), (1, 11), (2, 12)]);
        let mut started = Vec::new();
        let failed = start_each(&next, |partition, offset| {
            started.push((partition, offset));
            if partition == 0 {
                Err("no leader")
            } else {
                Ok(())
            }
        });
        assert_eq!(started, [(0, 10), (1, 11), (2, 12)]);
        assert_eq!(failed, [(0, "no leader")]);
    }
}
