//! The one loop: read records, step the engine, perform what it asks for, hand the answers back.
//! Nothing is decided here.
//!
//! One thread reads Kafka and steps the engine. Whatever waits for a network runs beside it on
//! tokio, and its answer comes back over one channel. For example:
//!
//! ```text
//! engine   Effect::Ask(Request::Store(StoreRequest::Put { key, bytes }))
//! loop     spawns a task that stores the object
//! task     sends Message::Answer(Answer::Store(StoreAnswer::Put { key, result: Ok(()) }))
//! loop     hands it to the engine as Input::Answer
//! ```
#![expect(
    clippy::disallowed_methods,
    reason = "the edge that reads clocks for the engine"
)]

use crate::io::catalog::Totals;
use crate::io::heap;
use crate::io::kafka::{self, Brokers, Event, KafkaConfig, KafkaError, Reader};
use crate::io::store::Store;
use crate::run::catalog_task::CatalogWork;
use crate::run::clock::MachineClock;
use crate::run::log::{
    log_commit, log_failure, log_foreign_keys, log_left_out, log_lost_epochs, log_state,
};
use crate::run::merging::Merging;
use crate::run::perform::{ask_brokers, ask_store};
use crate::run::rotation::Rotation;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle as Runtime;
use tokio::sync::{mpsc as async_mpsc, oneshot, watch};
use tracing::{info, warn};
use windrow_core::engine::{
    Answer, BrokersAnswer, CatalogAnswer, CatalogRequest, Effect, Engine, Input, Request, State,
    StoreAnswer, StoreRequest,
};
use windrow_core::settings::secrets::Secrets;
use windrow_core::shown::snapshot::{MovedBytes, RunFacts, snapshot};
use windrow_core::shown::status::Status;
use windrow_core::table::commit::Acquired;
use windrow_core::table::place::Place;
use windrow_core::values::cause::Trouble;
use windrow_core::values::record::Partition;
use windrow_core::values::time::EventTime;

/// How long the loop waits for records before it looks at anything else.
const POLL: Duration = Duration::from_millis(50);
/// The same while a commit is under way, because then answers are expected.
const POLL_COMMITTING: Duration = Duration::from_millis(10);
/// How long between two snapshots of the status, whether it changed or not.
const STATUS_EVERY: Duration = Duration::from_millis(500);
/// How long between two times when freed memory is given back, while memory is half full.
const GIVE_BACK_EVERY: Duration = Duration::from_secs(2);
/// How long the end waits for the table to be given back. After that its lease ends by itself.
const RELEASE_MAX: Duration = Duration::from_secs(5);

/// What comes back to the loop.
pub(super) enum Message {
    Answer(Answer),
    /// What came of a merge, and what it has moved.
    Merged(StoreAnswer, MovedBytes),
    Totals(Totals),
    Paused(bool),
    /// An operator wants files merged now, and takes the answer.
    Compact(oneshot::Sender<Result<(), String>>),
    Secrets(Box<Secrets>),
    Shutdown,
}

/// The loop's own state. All of it is made by `running::start`.
pub(super) struct Driver {
    pub(super) engine: Engine,
    pub(super) run: RunFacts,
    /// How Kafka is reached now. A rotation may change it.
    pub(super) kafka: KafkaConfig,
    /// Cloned for each task that asks brokers. A new client replaces it.
    pub(super) brokers: Brokers,
    /// Where the table lies, once that is known; until then any place in its bucket.
    pub(super) store: Store,
    /// The same store for those who look at rows; `None` until it is known where the table lies.
    pub(super) located_store: watch::Sender<Option<Store>>,
    /// `None` where the secrets cannot change, as in the demo.
    pub(super) rotation: Option<Rotation>,
    pub(super) merging: Merging,
    pub(super) runtime: Runtime,
    pub(super) to_loop: mpsc::Sender<Message>,
    pub(super) to_catalog: async_mpsc::UnboundedSender<CatalogWork>,
    pub(super) clock: MachineClock,
    pub(super) status: watch::Sender<Arc<Status>>,
    /// When the last snapshot was made; `None` when one is due at once.
    pub(super) status_at: Option<Instant>,
    /// When freed memory was last given back to the system; `None` before the first time.
    pub(super) given_back_at: Option<Instant>,
    /// The state that was logged last.
    pub(super) logged: Option<State>,
    /// Since when an epoch is on its way; `None` while none is.
    pub(super) committing_since: Option<Instant>,
    /// The topic partitions that the reader was told to read.
    pub(super) reading: BTreeSet<Partition>,
    /// Is told when the table has been given back.
    pub(super) releasing: Option<mpsc::Receiver<()>>,
    /// The engine has ended; an error says that it failed.
    pub(super) ended: Option<Result<(), Trouble>>,
}

impl Driver {
    /// Runs until the engine ends.
    ///
    /// # Errors
    /// Why it ended, when nobody asked for it.
    pub(super) fn run(
        mut self,
        mut reader: Reader,
        from_tasks: &mpsc::Receiver<Message>,
    ) -> Result<(), Trouble> {
        let (reader, mut effects) = (&mut reader, Vec::new());
        loop {
            self.engine.step(self.clock.tick(), &mut effects);
            self.perform(&mut effects, reader);
            while let Ok(message) = from_tasks.try_recv() {
                self.take_message(message, reader, &mut effects);
                self.perform(&mut effects, reader);
            }
            self.poll(reader, &mut effects);
            self.perform(&mut effects, reader);
            self.show_status();
            if let Some(result) = self.ended.take() {
                self.status_at = None;
                self.show_status();
                // A standby takes over at once where the table was given back.
                if let Some(released) = self.releasing.take() {
                    let _ = released.recv_timeout(RELEASE_MAX);
                }
                return result;
            }
        }
    }

    /// Waits a moment for records, and hands what comes to the engine.
    fn poll(&mut self, reader: &mut Reader, effects: &mut Vec<Effect>) {
        let (engine, clock) = (&mut self.engine, &mut self.clock);
        let wait = if engine.is_committing() {
            POLL_COMMITTING
        } else {
            POLL
        };
        let polled = reader.poll(wait, &mut |event| {
            // The process may have been frozen while it waited, or the machine slept.
            if let Some(tick) = clock.tick_if_stale() {
                engine.step(tick, effects);
            }
            step_event(engine, event, effects);
        });
        if let Err(error) = polled {
            warn!(error = %error, "the Kafka client has failed: making a new one");
            self.reopen(reader, effects);
        }
    }

    fn take_message(&mut self, message: Message, reader: &mut Reader, effects: &mut Vec<Effect>) {
        let input = match message {
            Message::Answer(answer) => {
                if let Some(tick) = self.clock.tick_if_stale() {
                    self.engine.step(tick, effects);
                }
                if let Answer::Brokers(BrokersAnswer::Topic(Ok(topic))) = &answer
                    && self.kafka.share_out(topic.partitions.len())
                {
                    self.reopen(reader, effects);
                    self.perform(effects, reader);
                }
                self.note_answer(&answer);
                Input::Answer(answer)
            }
            Message::Merged(answer, moved) => {
                self.run.note_merge(&answer, moved);
                return self.take_message(Message::Answer(Answer::Store(answer)), reader, effects);
            }
            Message::Totals(totals) => {
                self.run.totals = totals;
                return;
            }
            Message::Paused(paused) => Input::Paused(paused),
            Message::Compact(answer) => return self.compact(answer, reader, effects),
            Message::Secrets(secrets) => return self.rotate(&secrets, reader, effects),
            Message::Shutdown => {
                // The next owner merges again; nobody waits for it at the end.
                self.merging.cancel();
                Input::Shutdown
            }
        };
        self.engine.step(input, effects);
    }

    /// Begins to merge files, and answers when that can be seen in the status.
    fn compact(
        &mut self,
        answer: oneshot::Sender<Result<(), String>>,
        reader: &mut Reader,
        effects: &mut Vec<Effect>,
    ) {
        let result = self.engine.may_compact();
        if result.is_ok() {
            self.engine.step(Input::Compact, effects);
            self.perform(effects, reader);
            self.status_at = None;
            self.show_status();
        }
        let _ = answer.send(result);
    }

    fn perform(&mut self, effects: &mut Vec<Effect>, reader: &mut Reader) {
        let mut not_started: Vec<(Partition, KafkaError)> = Vec::new();
        if self.engine.is_committing() {
            self.committing_since.get_or_insert_with(Instant::now);
        }
        for effect in effects.drain(..) {
            match effect {
                Effect::Ask(request) => self.ask(request),
                Effect::Start {
                    partition,
                    offset,
                    leader_epoch,
                } => {
                    self.reading.insert(partition);
                    if let Err(error) = reader.start(partition, offset, leader_epoch) {
                        warn!(
                            partition, offset, error = %error,
                            "cannot start reading; trying again"
                        );
                        not_started.push((partition, error));
                    }
                }
                Effect::StopAll => {
                    for partition in std::mem::take(&mut self.reading) {
                        reader.stop(partition);
                    }
                }
                Effect::Hold { partition } => reader.pause(partition),
                Effect::Unhold { partition } => reader.resume(partition),
                Effect::UseWarehouse(warehouse) => self.use_warehouse(&warehouse),
                Effect::CommitGroup(offsets) => self.brokers.commit_group(&offsets),
                Effect::ReportForeignKeys(keys) => log_foreign_keys(&keys),
                Effect::ReportLeftOut { key, trouble } => log_left_out(&key, &trouble),
                Effect::ReportLostEpochs { first, last, why } => {
                    self.run.lost_epochs = log_lost_epochs(first, last, &why);
                    self.status_at = None;
                }
                Effect::Report(commit) => {
                    let rows = self.run.count_commit(&commit);
                    let since = self.committing_since.take();
                    log_commit(
                        &commit,
                        rows,
                        since.map_or(Duration::ZERO, |at| at.elapsed()),
                    );
                    if !commit.retired.is_empty() {
                        // Which windows the table has now is known to the catalog alone.
                        self.ask_catalog(CatalogWork::ReportTotals);
                    }
                }
                Effect::Exit(None) => self.ended = Some(Ok(())),
                Effect::Exit(Some(reason)) => self.ended = Some(Err(reason)),
            }
        }
        if !self.engine.is_committing() {
            // It is true, or it was given up.
            self.committing_since = None;
        }
        for (partition, error) in not_started {
            self.engine
                .step(not_started_input(partition, error), effects);
        }
    }

    fn ask(&mut self, request: Request) {
        let to_loop = self.to_loop.clone();
        match request {
            Request::Catalog(request) => {
                let release = matches!(request, CatalogRequest::Release { .. });
                self.ask_catalog(CatalogWork::Perform(request));
                if release {
                    let (done, released) = mpsc::channel();
                    self.ask_catalog(CatalogWork::SayWhenDone(done));
                    self.releasing = Some(released);
                }
            }
            Request::Brokers(request) => {
                let brokers = self.brokers.clone();
                self.runtime.spawn_blocking(move || {
                    let answer = Answer::Brokers(ask_brokers(&brokers, request));
                    let _ = to_loop.send(Message::Answer(answer));
                });
            }
            Request::Store(StoreRequest::Merge(order)) => {
                let report = move |answer, moved| {
                    let _ = to_loop.send(Message::Merged(answer, moved));
                };
                let store = self.store.clone();
                self.merging.begin(&self.runtime, store, *order, report);
            }
            Request::Store(request) => {
                let store = self.store.clone();
                self.runtime.spawn(async move {
                    let answer = Answer::Store(ask_store(&store, request).await);
                    let _ = to_loop.send(Message::Answer(answer));
                });
            }
        }
    }

    fn ask_catalog(&mut self, work: CatalogWork) {
        // Without that task nothing would be committed any more, and nothing would say so.
        if self.to_catalog.send(work).is_err() && self.ended.is_none() {
            let why = "the task that asks the catalog has ended: this is a mistake in windrow; \
                       start it again";
            self.ended = Some(Err(why.into()));
        }
    }

    fn use_warehouse(&mut self, warehouse: &Place) {
        match self.store.elsewhere(warehouse) {
            Ok(store) => {
                info!(%warehouse, "found where the table lies");
                self.located_store.send_replace(Some(store.clone()));
                self.store = store;
            }
            // The engine locates the table in the bucket of the settings, which this store opened.
            Err(error) => self.ended = Some(Err(error.to_string().into())),
        }
    }

    /// Makes a new Kafka client in place of this one: after new credentials, or when it failed.
    fn reopen(&mut self, reader: &mut Reader, effects: &mut Vec<Effect>) {
        match kafka::open(&self.kafka) {
            Ok((brokers, fresh)) => {
                (self.brokers, *reader) = (brokers, fresh);
                self.engine.step(Input::Reopened, effects);
            }
            Err(error) => self.engine.step(
                Input::Trouble {
                    partition: None,
                    trouble: error.into(),
                },
                effects,
            ),
        }
    }

    fn rotate(&mut self, secrets: &Secrets, reader: &mut Reader, effects: &mut Vec<Effect>) {
        let Some(rotation) = &mut self.rotation else {
            return;
        };
        self.run.problems = secrets.problems_text();
        self.status_at = None;
        let Some(logins) = rotation.apply(secrets, &self.kafka, &self.store) else {
            return;
        };
        if let Some(login) = logins.catalog {
            self.ask_catalog(CatalogWork::UseLogin(login));
        }
        if let Some(kafka) = logins.kafka {
            self.kafka = kafka;
            self.reopen(reader, effects);
        }
        self.engine.step(Input::CredentialsChanged, effects);
    }

    /// What an answer tells those who watch and those who read the log.
    fn note_answer(&mut self, answer: &Answer) {
        match answer {
            Answer::Catalog(CatalogAnswer::Acquire(Ok(Acquired::Ours {
                head: Some(head),
                ..
            }))) => {
                self.run.last_commit = Some(EventTime(head.committed_at.0));
            }
            Answer::Catalog(CatalogAnswer::Commit { result: Ok(at), .. }) => {
                self.run.last_commit = Some(EventTime(at.0));
            }
            Answer::Catalog(CatalogAnswer::Commit { result: Err(_), .. })
            | Answer::Store(StoreAnswer::Put { result: Err(_), .. }) => {
                self.run.commit_failures += 1;
            }
            _ => {}
        }
        log_failure(answer);
    }

    /// Makes a new snapshot for those who watch: at least twice a second, and at once when the
    /// state has changed.
    fn show_status(&mut self) {
        let state = self.engine.state();
        if self.logged.as_ref() != Some(&state) {
            log_state(&state);
            self.logged = Some(state);
            self.status_at = None;
        }
        if self.status_at.is_none_or(|at| at.elapsed() >= STATUS_EVERY) {
            self.status_at = Some(Instant::now());
            self.run.merge_read_bytes = self.merging.read_bytes();
            let status = snapshot(&self.engine, &self.run);
            let half_full = status.memory_bytes >= status.memory_limit_bytes / 2;
            self.status.send_replace(Arc::new(status));
            if half_full {
                self.give_memory_back();
            }
        }
    }

    /// The bound on memory counts what is in use, and the system what was not given back.
    fn give_memory_back(&mut self) {
        if self
            .given_back_at
            .is_none_or(|at| at.elapsed() >= GIVE_BACK_EVERY)
        {
            heap::give_back();
            self.given_back_at = Some(Instant::now());
        }
    }
}

/// A topic partition could not be started. The offset is not in question, so the engine shows the
/// reason and starts it again after its usual pauses.
fn not_started_input(partition: Partition, error: KafkaError) -> Input<'static> {
    Input::Trouble {
        partition: Some(partition),
        trouble: error.into(),
    }
}

fn step_event(engine: &mut Engine, event: Event<'_>, effects: &mut Vec<Effect>) {
    let input = match event {
        Event::Batch {
            partition,
            leader_epoch,
            batch,
            ..
        } => Input::Records {
            partition,
            leader_epoch,
            batch,
        },
        Event::End {
            partition,
            next_offset,
        } => Input::End {
            partition,
            offset: next_offset,
        },
        Event::OutOfRange { partition, .. } => Input::OutOfRange { partition },
        Event::Truncated {
            partition,
            cut_at,
            why,
        } => Input::Truncated {
            partition,
            cut_at,
            why,
        },
        Event::Problem { partition, what } => {
            warn!(error = %what, "cannot read");
            // Offsets are committed to the group for lag tools only: nothing waits for them.
            if matches!(what, KafkaError::GroupDenied(_)) {
                return;
            }
            Input::Trouble {
                partition,
                trouble: what.into(),
            }
        }
    };
    engine.step(input, effects);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It was taken for an offset that the log does not have, which the state does not show, and
    /// after which it is started again without a pause.
    #[test]
    fn a_topic_partition_that_cannot_be_started_is_in_trouble() {
        let error = KafkaError::Other("cannot read topic \"t\"".to_owned());
        let Input::Trouble { partition, trouble } = not_started_input(3, error) else {
            panic!("it is a trouble")
        };
        assert_eq!(partition, Some(3));
        assert_eq!(trouble.text, "cannot read topic \"t\"");
    }
}
