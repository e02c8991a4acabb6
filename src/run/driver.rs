//! The one loop: read, step, perform, answer. It carries out what the engine asks for and decides nothing itself.
//!
//! One thread reads Kafka and steps the engine. Whatever waits for a network runs beside it on tokio, and its answer
//! comes back over one channel.
#![expect(
    clippy::disallowed_methods,
    reason = "the edge that reads clocks for the engine"
)]

use crate::io::catalog::session::PgConfig;
use crate::io::catalog::{Catalog, Totals};
use crate::io::http::{Command, Handle, RowsFn, Wish};
use crate::io::kafka::{self, At, Brokers, Event, KafkaConfig, KafkaError, Reader};
use crate::io::store::Store;
use crate::run::clients::{Clients, expose, kafka_config, newest_rows, pg_config};
use anyhow::{Context, anyhow};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::Handle as Runtime;
use tokio::sync::{Notify, mpsc as async_mpsc, watch};
use tracing::{debug, info, warn};
use windrow_core::engine::{Effect, Engine, Input, LogEnd, Rules, State, TopicFacts};
use windrow_core::settings::config::{Config, Secret, Secrets, warehouse_of};
use windrow_core::shown::status::{LaneStatus, State as StatusState, Status, WindowStatus};
use windrow_core::table::commit::{
    Acquired, CatalogError, Commit, FileKind, Outcome, Owner, manifests_of,
};
use windrow_core::table::hive::TableKind;
use windrow_core::values::cause::{Cause, Trouble};
use windrow_core::values::record::{Offset, Partition};
use windrow_core::values::time::{DbTime, EventTime, Mono};

/// How long one question to Kafka may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the loop waits for records before it looks at anything else.
const POLL: Duration = Duration::from_millis(50);
/// The same while a commit is under way, whose answers it waits for.
const POLL_COMMITTING: Duration = Duration::from_millis(10);
/// An engine that was told the time this long ago is told again before it takes records.
const STALE: Duration = Duration::from_secs(1);
/// Between two snapshots of the status, changed or not.
const STATUS_EVERY: Duration = Duration::from_millis(500);
/// Between two rounds of garbage collection.
const COLLECT_EVERY: Duration = Duration::from_secs(3600);
/// Between two questions to the catalog where the table lies.
const PLACE_EVERY: Duration = Duration::from_secs(2);
/// Between two looks at whether the secrets file changed.
const SECRETS_EVERY: Duration = Duration::from_secs(5);
/// Open windows in one snapshot, the oldest.
const WINDOWS_MAX: usize = 1000;

/// What comes back to the loop.
enum Message {
    Acquired(Result<Acquired, CatalogError>),
    Totals(Totals),
    Renewed(Result<(DbTime, bool), CatalogError>),
    Topic(Result<TopicFacts, Trouble>),
    TopicId(Result<String, Trouble>),
    Manifests(Result<Vec<String>, Trouble>),
    Checkpoint(Result<Vec<u8>, Trouble>),
    Looked {
        partition: Partition,
        end: Result<LogEnd, String>,
    },
    OutOfRange {
        partition: Partition,
        log_start: Offset,
        log_end: Offset,
    },
    Stored {
        key: String,
        result: Result<(), Trouble>,
    },
    Committed {
        epoch: u64,
        result: Result<DbTime, CatalogError>,
    },
    Found {
        epoch: u64,
        result: Result<Outcome, CatalogError>,
    },
    Paused(bool),
    /// Objects that an owner before us stored for an epoch that never came true.
    Orphans(Owner, Vec<String>),
    /// Objects whose time has come.
    Doomed(Owner, Vec<String>),
    Deleted(Owner, Vec<String>),
    Secrets(Box<Secrets>),
    /// What says where the table lies in its bucket.
    Place(Result<Place, CatalogError>),
    Shutdown,
}

/// The warehouse of the table's epoch 0, and where Hive keeps the database; `None` where there is none.
struct Place {
    genesis: Option<String>,
    database: Option<String>,
}

/// What the catalog's task is asked, one after the other.
#[expect(clippy::large_enum_variant, reason = "a few a minute")]
enum CatalogAsk {
    /// Where the table lies, or where Hive keeps this database.
    Place(String),
    Acquire,
    Renew(Owner),
    Release(Owner, mpsc::Sender<()>),
    Commit(Arc<Commit>),
    Find(Owner, u64),
    /// Garbage collection: enter keys, ask for those entered long enough ago, take them off.
    Doom(Owner, Vec<String>),
    DoomedPast(Owner, u64),
    Forget(Owner, Vec<String>),
    Pause(bool, tokio::sync::oneshot::Sender<Result<(), String>>),
    Config(PgConfig),
}

/// What a started run gives to those who watch and command it.
pub struct Running {
    pub handle: Handle,
    pub stop: Stopper,
    /// Has the secrets file read again at once.
    pub reload: Arc<Notify>,
    thread: std::thread::JoinHandle<Result<(), Trouble>>,
}

/// Asks a run to commit what there is and end.
#[derive(Clone)]
pub struct Stopper(mpsc::Sender<Message>);

impl Stopper {
    pub fn stop(&self) {
        let _ = self.0.send(Message::Shutdown);
    }
}

impl Running {
    /// Waits for the end.
    ///
    /// # Errors
    /// Why it ended, when nobody asked for it.
    pub fn join(self) -> Result<(), Trouble> {
        self.thread
            .join()
            .unwrap_or_else(|_| Err("the loop panicked; see the log".into()))
    }
}

/// Starts the loop on a thread of its own. `runtime` carries what waits for networks.
///
/// # Errors
/// The Kafka client refuses its settings, or the system gives no random bytes.
pub fn start(parts: Clients, runtime: &Runtime) -> anyhow::Result<Running> {
    let mut random = [0; 16];
    getrandom::fill(&mut random)
        .map_err(|e| anyhow!("cannot get random bytes from the system: {e}"))?;
    let owner_id = format!("{:032x}", u128::from_ne_bytes(random));
    let (to_loop, from_tasks) = mpsc::channel();
    let (to_catalog, asks) = async_mpsc::unbounded_channel();
    let (consumer, reader) = kafka::open(&parts.kafka)?;
    let lease_ms = parts.settings.lease_ms;
    let bucket = parts.bucket().map(str::to_owned);
    let init = parts
        .config
        .as_ref()
        .is_some_and(|config| config.init_metastore);
    let task = catalog_task(
        parts.catalog,
        parts.who.clone(),
        owner_id,
        lease_ms,
        init,
        asks,
        to_loop.clone(),
    );
    runtime.spawn(task);
    let status = Status {
        table: format!("{}.{}", parts.settings.database, parts.settings.table),
        topic: parts.settings.shape.topic.clone(),
        owner: parts.who.clone(),
        version: crate::run::cli::VERSION.to_owned(),
        reason: "starting".to_owned(),
        cause: Cause::Starting,
        ..Status::default()
    };
    let (look_login_tx, look_login_rx) = watch::channel(None);
    let (store_tx, store_rx) = watch::channel(bucket.is_none().then(|| parts.store.clone()));
    let (status_tx, status_rx) = watch::channel(Arc::new(status.clone()));
    let (token_tx, token_rx) = watch::channel(parts.secrets.api_token.clone());
    let (commands_tx, commands_rx) = async_mpsc::channel(8);
    runtime.spawn(commands_task(commands_rx, to_catalog.clone()));
    let handle = Handle {
        status: status_rx,
        commands: commands_tx,
        rows: rows_fn(status.table.clone(), parts.look, look_login_rx, store_rx),
        token: token_rx,
    };
    let reload = Arc::new(Notify::new());
    if let Some(config) = parts.config.clone() {
        let to_loop = to_loop.clone();
        let tell = move |secrets| to_loop.send(Message::Secrets(Box::new(secrets))).is_ok();
        runtime.spawn(watch_secrets(
            config,
            parts.secrets.clone(),
            Arc::clone(&reload),
            tell,
        ));
    }
    let driver = Driver {
        who: parts.who,
        engine: Engine::new(parts.settings.clone()),
        settings: parts.settings,
        bucket,
        store_tx,
        look_login_tx,
        kafka: parts.kafka,
        consumer: Arc::new(Mutex::new(consumer)),
        store: parts.store,
        config: parts.config,
        runtime: runtime.clone(),
        to_loop: to_loop.clone(),
        to_catalog,
        started: Instant::now(),
        status,
        status_tx,
        token_tx,
        status_at: None,
        totals: Totals::default(),
        exit: None,
        keep_replaced_ms: parts.keep_replaced_ms,
        collected_at: None,
        reading: BTreeSet::new(),
        said: None,
    };
    let thread = std::thread::Builder::new()
        .name("windrow".to_owned())
        .spawn(move || driver.place_and_run(reader, &from_tasks))
        .context("cannot start a thread")?;
    Ok(Running {
        handle,
        stop: Stopper(to_loop),
        reload,
        thread,
    })
}

struct Driver {
    engine: Engine,
    /// Who we are to other processes.
    who: String,
    settings: Rules,
    /// Set where the table's place in it is to be found before the engine may begin.
    bucket: Option<String>,
    /// For looks beside the loop, once it is known where the table lies.
    store_tx: watch::Sender<Option<Store>>,
    /// The newest login to the catalog, for the same.
    look_login_tx: watch::Sender<Option<PgConfig>>,
    kafka: KafkaConfig,
    /// Taken by the blocking tasks that ask brokers; another one after a rotation.
    consumer: Arc<Mutex<Brokers>>,
    store: Store,
    config: Option<Config>,
    runtime: Runtime,
    to_loop: mpsc::Sender<Message>,
    to_catalog: async_mpsc::UnboundedSender<CatalogAsk>,
    started: Instant,
    status: Status,
    status_tx: watch::Sender<Arc<Status>>,
    token_tx: watch::Sender<Option<Secret>>,
    status_at: Option<Instant>,
    totals: Totals,
    exit: Option<Option<Trouble>>,
    keep_replaced_ms: u64,
    collected_at: Option<Instant>,
    /// Topic partitions that the reader was told to read.
    reading: BTreeSet<Partition>,
    /// The state that the log had last.
    said: Option<State>,
}

impl Driver {
    fn place_and_run(
        mut self,
        mut reader: Reader,
        from_tasks: &mpsc::Receiver<Message>,
    ) -> Result<(), Trouble> {
        loop {
            if let Some(bucket) = self.bucket.clone()
                && !self.find_place(&bucket, &mut reader, from_tasks)
            {
                return Ok(());
            }
            if let Some(end) = self.run(&mut reader, from_tasks) {
                return end;
            }
        }
    }

    /// Asks the catalog again and again where in the bucket the table lies, and makes the engine for it. All the while
    /// those who watch are told why nothing is counted. Answers false when it was asked to end before.
    fn find_place(
        &mut self,
        bucket: &str,
        reader: &mut Reader,
        from_tasks: &mpsc::Receiver<Message>,
    ) -> bool {
        let mut state = State::Waiting(Trouble::new(
            Cause::Starting,
            "asking the catalog where the table lies",
        ));
        let mut ask_at = Some(Instant::now());
        loop {
            if ask_at.is_some_and(|at| at <= Instant::now()) {
                ask_at = None;
                self.ask_catalog(CatalogAsk::Place(self.settings.database.clone()));
            }
            self.publish(state.clone());
            let place = match from_tasks.recv_timeout(STATUS_EVERY) {
                Ok(Message::Place(place)) => place,
                Ok(Message::Secrets(secrets)) => {
                    // The engine has not begun: what it makes of a new Kafka client is of no matter.
                    self.rotate(&secrets, reader, &mut Vec::new());
                    continue;
                }
                Ok(Message::Shutdown) => return false,
                // Answers to questions of before are nobody's any more.
                Ok(_) | Err(_) => continue,
            };
            ask_at = Some(Instant::now() + PLACE_EVERY);
            state = match place {
                Ok(Place { genesis, database }) => {
                    let found = warehouse_of(bucket, genesis.as_deref(), database.as_deref());
                    let placed = found
                        .map_err(|why| Trouble::new(Cause::OtherBucket, why))
                        .and_then(|warehouse| {
                            let warehouse = warehouse.to_string();
                            let store = self
                                .store
                                .elsewhere(&warehouse)
                                .map_err(|e| Trouble::from(e.to_string()))?;
                            Ok((warehouse, store))
                        });
                    match placed {
                        Ok((warehouse, store)) => {
                            info!(warehouse, "the table's place");
                            self.store_tx.send_replace(Some(store.clone()));
                            self.settings.warehouse = warehouse;
                            self.engine = Engine::new(self.settings.clone());
                            self.store = store;
                            return true;
                        }
                        Err(why) => {
                            let text =
                                format!("cannot take table \"{}\": {why}", self.status.table);
                            State::Failed(Trouble::new(why.cause, text))
                        }
                    }
                }
                Err(CatalogError::Stop(why)) => State::Failed(why),
                Err(error) => State::Waiting(error.into()),
            };
        }
    }

    /// Until it ends, or until the table turns out to lie elsewhere, where another owner has made it meanwhile: then `None`.
    fn run(
        &mut self,
        reader: &mut Reader,
        from_tasks: &mpsc::Receiver<Message>,
    ) -> Option<Result<(), Trouble>> {
        let mut effects = Vec::new();
        loop {
            self.engine.step(tick(self.started), &mut effects);
            self.perform(&mut effects, reader);
            while let Ok(message) = from_tasks.try_recv() {
                if let Some(owner) = self.lies_elsewhere(&message) {
                    self.release(owner);
                    return None;
                }
                self.hear(message, reader, &mut effects);
                self.perform(&mut effects, reader);
            }
            let engine = &mut self.engine;
            let mut asked = Vec::new();
            let wait = if engine.committing() {
                POLL_COMMITTING
            } else {
                POLL
            };
            let (started, ticked) = (self.started, Instant::now());
            let polled = reader.poll(wait, &mut |event| {
                // The process may have been frozen while it waited, and by the time before these records are of the future.
                if ticked.elapsed() > STALE {
                    engine.step(tick(started), &mut effects);
                }
                step_event(engine, event, &mut effects, &mut asked);
            });
            for partition in asked {
                self.ask_limits(partition);
            }
            if let Err(error) = polled {
                warn!(error = %error, "the Kafka client is done for: making a new one");
                self.reopen(reader, &mut effects);
            }
            self.perform(&mut effects, reader);
            self.collect_garbage();
            self.tell();
            if let Some(reason) = self.exit.take() {
                self.status_at = None;
                self.tell();
                return Some(reason.map_or(Ok(()), Err));
            }
        }
    }

    /// Whether we have just become the owner of a table that lies at another place of the bucket than was found while
    /// there was no table. An owner that has just begun reads nothing yet.
    fn lies_elsewhere(&self, message: &Message) -> Option<Owner> {
        match message {
            Message::Acquired(Ok(Acquired::Ours {
                owner,
                head: Some(head),
                ..
            })) if self.bucket.is_some() && head.genesis.warehouse != self.settings.warehouse => {
                Some(owner.clone())
            }
            _ => None,
        }
    }

    fn hear(&mut self, message: Message, reader: &mut Reader, effects: &mut Vec<Effect>) {
        let input = match message {
            Message::Acquired(answer) => {
                if let Ok(Acquired::Ours {
                    owner,
                    head: Some(head),
                    ..
                }) = &answer
                {
                    self.status.last_commit = Some(EventTime(head.committed_at.0));
                    self.find_orphans(owner.clone(), head.last.epoch + 1);
                }
                Input::Acquired(answer)
            }
            Message::Totals(totals) => {
                self.totals = totals;
                return;
            }
            Message::Renewed(answer) => Input::Renewed(answer),
            Message::Topic(answer) => Input::Topic(answer),
            Message::TopicId(answer) => Input::TopicId(answer),
            Message::Manifests(answer) => Input::Manifests(answer),
            Message::Checkpoint(answer) => Input::Checkpoint(answer),
            Message::Looked { partition, end } => {
                if let Err(error) = &end {
                    debug!(partition, error = %error, "cannot ask for a topic partition's end; it is not idle until then");
                }
                Input::Looked { partition, end }
            }
            Message::OutOfRange {
                partition,
                log_start,
                log_end,
            } => Input::OutOfRange {
                partition,
                log_start,
                log_end,
            },
            Message::Stored { key, result } => {
                if let Err(error) = &result {
                    self.status.commit_failures += 1;
                    warn!(error = %error, "cannot store an object; trying again");
                }
                Input::Stored { key, result }
            }
            Message::Committed { epoch, result } => {
                match &result {
                    Ok(at) => self.status.last_commit = Some(EventTime(at.0)),
                    Err(error) => {
                        self.status.commit_failures += 1;
                        warn!(epoch, error = %error, "an epoch was not committed");
                    }
                }
                Input::Committed { epoch, result }
            }
            Message::Found { epoch, result } => Input::Found { epoch, result },
            Message::Paused(paused) => Input::Paused(paused),
            Message::Orphans(owner, keys) => {
                return self.ask_catalog(CatalogAsk::Doom(owner, keys));
            }
            Message::Doomed(owner, keys) => {
                return self.storing(async move |store| match store.delete(&keys).await {
                    Ok(()) => Message::Deleted(owner, keys),
                    Err(error) => {
                        warn!(error = %error, "cannot delete objects that nothing names; trying again in an hour");
                        Message::Deleted(owner, Vec::new())
                    }
                });
            }
            Message::Deleted(owner, keys) => {
                return self.ask_catalog(CatalogAsk::Forget(owner, keys));
            }
            Message::Secrets(secrets) => return self.rotate(&secrets, reader, effects),
            Message::Place(_) => return,
            Message::Shutdown => Input::Shutdown,
        };
        self.engine.step(input, effects);
    }

    fn perform(&mut self, effects: &mut Vec<Effect>, reader: &mut Reader) {
        for effect in effects.drain(..) {
            match effect {
                Effect::Acquire => self.ask_catalog(CatalogAsk::Acquire),
                Effect::Renew { owner } => self.ask_catalog(CatalogAsk::Renew(owner)),
                Effect::Release { owner } => self.release(owner),
                Effect::Commit(commit) => self.ask_catalog(CatalogAsk::Commit(commit)),
                Effect::Find { owner, epoch } => self.ask_catalog(CatalogAsk::Find(owner, epoch)),
                Effect::LookUpTopic => self.blocking(|consumer| Message::Topic(topic_facts(consumer).map_err(Trouble::from))),
                Effect::CheckTopic => self.blocking(|consumer| {
                    Message::TopicId(consumer.topic(ASK_TIMEOUT).map(|t| t.topic_id).map_err(Trouble::from))
                }),
                Effect::LookAtEnd { partition } => self.blocking(move |consumer| {
                    let end = consumer.end(partition, ASK_TIMEOUT);
                    let end = end.map(|e| LogEnd { last_stable: e.last_stable, high_watermark: e.high_watermark });
                    Message::Looked { partition, end: end.map_err(|e| e.to_string()) }
                }),
                Effect::ListManifests { prefix } => self.storing(async move |store| {
                    let found = store.list(&prefix).await;
                    Message::Manifests(found.map(|list| list.into_iter().map(|(key, _)| key).collect()).map_err(Trouble::from))
                }),
                Effect::FetchCheckpoint { key } => self.storing(async move |store| {
                    Message::Checkpoint(match store.get(&key).await {
                        Ok(Some(bytes)) => Ok(bytes),
                        Ok(None) => Err(format!("cannot read the checkpoint \"{key}\": it is not in the bucket; restore it from a backup").into()),
                        Err(error) => Err(error.into()),
                    })
                }),
                Effect::Put { key, bytes } => self.storing(async move |store| {
                    let result = store.put(&key, bytes.as_ref().clone()).await.map_err(Trouble::from);
                    Message::Stored { key, result }
                }),
                Effect::Start { partition, offset, leader_epoch } => {
                    self.reading.insert(partition);
                    if let Err(error) = reader.start(partition, offset, leader_epoch) {
                        warn!(partition, offset, error = %error, "cannot start reading; trying again");
                        // It comes back as out of range with limits that hold, and is started again.
                        self.ask_limits(partition);
                    }
                }
                Effect::StopAll => {
                    for partition in std::mem::take(&mut self.reading) {
                        reader.stop(partition);
                    }
                }
                Effect::Hold { partition } => reader.pause(partition),
                Effect::Unhold { partition } => reader.resume(partition),
                Effect::CommitGroup(offsets) => {
                    self.consumer.lock().unwrap_or_else(PoisonError::into_inner).commit_group(&offsets);
                }
                Effect::Report(commit) => self.report(&commit),
                Effect::Exit(reason) => self.exit = Some(reason),
            }
        }
    }

    /// What the owner before us stored for the epoch it did not finish: its manifest names it.
    fn find_orphans(&self, owner: Owner, epoch: u64) {
        let Some(before) = owner.term.checked_sub(1) else {
            return;
        };
        let prefix = manifests_of(self.engine.prefix(), before, epoch);
        self.storing(async move |store| {
            let mut keys = Vec::new();
            for (manifest, _) in store.list(&prefix).await.unwrap_or_default() {
                let bytes = store.get(&manifest).await.ok().flatten().unwrap_or_default();
                match serde_json::from_slice::<Commit>(&bytes) {
                    Ok(commit) => keys.extend(commit.objects()),
                    Err(error) => {
                        warn!(manifest, error = %error, "cannot read a manifest that was left behind")
                    }
                }
            }
            Message::Orphans(owner, keys)
        });
    }

    /// Once an hour: objects that nothing has named for `keep-replaced` are deleted.
    fn collect_garbage(&mut self) {
        if self
            .collected_at
            .is_none_or(|at| at.elapsed() >= COLLECT_EVERY)
            && let Some(owner) = self.engine.owner()
        {
            self.collected_at = Some(Instant::now());
            self.ask_catalog(CatalogAsk::DoomedPast(owner.clone(), self.keep_replaced_ms));
        }
    }

    fn ask_catalog(&self, ask: CatalogAsk) {
        let _ = self.to_catalog.send(ask);
    }

    /// Gives the table back before the process ends; a standby need not wait for the lease then.
    fn release(&self, owner: Owner) {
        let (done, wait) = mpsc::channel();
        self.ask_catalog(CatalogAsk::Release(owner, done));
        let _ = wait.recv_timeout(Duration::from_secs(5));
    }

    fn blocking(&self, ask: impl FnOnce(&Brokers) -> Message + Send + 'static) {
        let consumer = self
            .consumer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let to_loop = self.to_loop.clone();
        self.runtime.spawn_blocking(move || {
            let _ = to_loop.send(ask(&consumer));
        });
    }

    fn storing<F>(&self, ask: impl FnOnce(Store) -> F + Send + 'static)
    where
        F: Future<Output = Message> + Send + 'static,
    {
        let (store, to_loop) = (self.store.clone(), self.to_loop.clone());
        let asked = ask(store);
        self.runtime.spawn(async move {
            let _ = to_loop.send(asked.await);
        });
    }

    /// Where a topic partition's log begins and ends now, for one that could not be read where we are.
    fn ask_limits(&self, partition: Partition) {
        self.blocking(move |consumer| {
            loop {
                match consumer.end(partition, ASK_TIMEOUT) {
                    Ok(end) => {
                        return Message::OutOfRange {
                            partition,
                            log_start: end.log_start,
                            log_end: end.high_watermark,
                        };
                    }
                    // As long as it cannot be asked it cannot be read either.
                    Err(_) => std::thread::sleep(Duration::from_secs(1)),
                }
            }
        });
    }

    /// Another client in place of this one: after new credentials, or when it broke.
    fn reopen(&mut self, reader: &mut Reader, effects: &mut Vec<Effect>) {
        match kafka::open(&self.kafka) {
            Ok((consumer, fresh)) => {
                *self.consumer.lock().unwrap_or_else(PoisonError::into_inner) = consumer;
                *reader = fresh;
                self.engine.step(Input::Reopened, effects);
            }
            Err(error) => self.engine.step(Input::Trouble(error.into()), effects),
        }
    }

    fn rotate(&mut self, secrets: &Secrets, reader: &mut Reader, effects: &mut Vec<Effect>) {
        let Some(config) = self.config.clone() else {
            return;
        };
        info!("secrets have changed: using the new ones");
        self.store.set_credentials(
            &expose(secrets.s3_access_key.as_ref()),
            &expose(secrets.s3_secret_key.as_ref()),
        );
        if let Err(error) = self.store.set_proxy(secrets.s3_proxy.as_ref()) {
            warn!(error = %error, "cannot use the new secrets for S3");
        }
        if let Ok(pg) = pg_config(&config, secrets) {
            self.look_login_tx.send_replace(Some(pg.clone()));
            self.ask_catalog(CatalogAsk::Config(pg));
        }
        self.token_tx.send_replace(secrets.api_token.clone());
        match kafka_config(&config, secrets) {
            Ok(kafka)
                if kafka.username != self.kafka.username
                    || kafka.password != self.kafka.password =>
            {
                self.kafka = kafka;
                self.reopen(reader, effects);
            }
            Ok(_) => {}
            Err(error) => warn!(error = %error, "cannot use the new secrets for Kafka"),
        }
    }

    fn report(&mut self, commit: &Commit) {
        self.status.commits += 1;
        let ledger = &commit.ledger;
        let before = self.totals.rows;
        for file in &commit.files {
            if let FileKind::Rows { .. } = file.kind {
                self.totals.files += 1;
                self.totals.bytes += file.bytes;
                self.totals.rows += file.rows;
                self.totals.first_window = match (self.totals.first_window, file.first_window) {
                    (Some(a), Some(b)) => Some(a.min(b)),
                    (a, b) => a.or(b),
                };
                self.totals.last_window = self.totals.last_window.max(file.last_window);
            }
        }
        info!(
            epoch = commit.epoch,
            files = commit.files.len(),
            rows = self.totals.rows - before,
            consumed = ledger.consumed,
            counted = ledger.counted,
            late = ledger.late,
            rejected = ledger.rejected,
            tombstones = ledger.tombstones,
            gaps = ledger.gaps,
            lost = ledger.lost,
            closed_through = commit.closed_through.map(|t| t.to_string()),
            "committed"
        );
    }

    /// A new snapshot for those who watch, at least twice a second.
    fn tell(&mut self) {
        self.publish(self.engine.state());
    }

    fn publish(&mut self, state: State) {
        if self.said.as_ref() != Some(&state) {
            match &state {
                State::Counting => info!("counting"),
                State::Paused => info!("paused"),
                State::Waiting(Trouble { cause, text })
                | State::Standby(Trouble { cause, text }) => {
                    info!(cause = cause.name(), reason = text, "waiting");
                }
                State::Failed(Trouble { cause, text }) => {
                    tracing::error!(cause = cause.name(), reason = text, "failed");
                }
            }
            self.said = Some(state.clone());
            self.status_at = None;
        }
        if self.status_at.is_some_and(|at| at.elapsed() < STATUS_EVERY) {
            return;
        }
        self.status_at = Some(Instant::now());
        let (state, why) = match state {
            State::Counting => (StatusState::Counting, Trouble::from("")),
            State::Paused => (
                StatusState::Paused,
                Trouble::from("by an operator; run: windrow resume"),
            ),
            State::Waiting(why) => (StatusState::Waiting, why),
            State::Standby(why) => (StatusState::Standby, why),
            State::Failed(why) => (StatusState::Failed, why),
        };
        let ledger = self.engine.ledger();
        let status = &mut self.status;
        (status.state, status.reason, status.cause) = (state, why.text, why.cause);
        self.engine
            .holder()
            .unwrap_or(&self.who)
            .clone_into(&mut status.owner);
        (status.rows, status.files, status.bytes) =
            (self.totals.rows, self.totals.files, self.totals.bytes);
        (status.first_window, status.last_window) =
            (self.totals.first_window, self.totals.last_window);
        (status.watermark, status.epoch) = (self.engine.frontier(), self.engine.epoch());
        (status.consumed, status.counted, status.late) =
            (ledger.consumed, ledger.counted, ledger.late);
        (status.rejected, status.tombstones) = (ledger.rejected, ledger.tombstones);
        (status.gaps, status.lost, status.rows_committed) = (ledger.gaps, ledger.lost, ledger.rows);
        status.lanes = lanes(&self.engine);
        status.lag = status.lanes.iter().map(|l| l.lag).sum();
        status.windows = windows(&self.engine);
        self.status_tx.send_replace(Arc::new(status.clone()));
    }
}

fn tick(started: Instant) -> Input<'static> {
    Input::Tick {
        now: Mono(u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX)),
    }
}

fn step_event(
    engine: &mut Engine,
    event: Event<'_>,
    effects: &mut Vec<Effect>,
    asked: &mut Vec<Partition>,
) {
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
        Event::OutOfRange { partition, .. } => {
            asked.push(partition);
            return;
        }
        Event::Truncated { partition, why } => Input::Truncated { partition, why },
        Event::Problem { what, .. } => {
            warn!(error = %what, "cannot read");
            if matches!(what, KafkaError::GroupDenied(_)) {
                return;
            }
            Input::Trouble(what.into())
        }
    };
    engine.step(input, effects);
}

fn topic_facts(consumer: &Brokers) -> Result<TopicFacts, KafkaError> {
    let info = consumer.topic(ASK_TIMEOUT)?;
    let first = consumer.offsets(&info.partitions, At::Earliest, ASK_TIMEOUT)?;
    let end = consumer.offsets(&info.partitions, At::Latest, ASK_TIMEOUT)?;
    let limits = |p: Partition| {
        (
            first.get(&p).copied().unwrap_or(0),
            end.get(&p).copied().unwrap_or(0),
        )
    };
    let partitions: BTreeMap<_, _> = info.partitions.iter().map(|p| (*p, limits(*p))).collect();
    Ok(TopicFacts {
        cluster_id: info.cluster_id,
        topic_id: info.topic_id,
        partitions,
    })
}

fn lanes(engine: &Engine) -> Vec<LaneStatus> {
    let least = engine
        .lanes()
        .iter()
        .min_by_key(|(_, lane)| lane.watermark())
        .map(|(p, _)| *p);
    let lane = |(partition, lane): (&Partition, &windrow_core::count::lane::Lane)| {
        let end_offset = engine.log_end(*partition);
        let (idle, held) = engine.idle_and_held(*partition);
        LaneStatus {
            partition: *partition,
            next_offset: lane.ledger.next_offset,
            end_offset,
            lag: end_offset.map(|end| u64::try_from(end - lane.ledger.next_offset).unwrap_or(0)),
            watermark: lane.watermark(),
            idle,
            held_by: held.then_some(least).flatten(),
            ledger: lane.ledger,
        }
    };
    engine.lanes().iter().map(lane).collect()
}

/// Open windows over all topic partitions; those closed in one of them and not final are still open.
fn windows(engine: &Engine) -> Vec<WindowStatus> {
    let mut sums: BTreeMap<(i64, i64), BTreeMap<&[u8], u64>> = BTreeMap::new();
    let open: Vec<_> = engine
        .lanes()
        .values()
        .flat_map(windrow_core::count::lane::Lane::some_open_windows)
        .collect();
    for (start, end, entries) in &open {
        let window = sums.entry((*start, *end)).or_default();
        for entry in entries {
            *window.entry(&entry.key[..]).or_default() += entry.count;
        }
    }
    sums.into_iter()
        .take(WINDOWS_MAX)
        .map(|((start, end), keys)| WindowStatus {
            start: EventTime(start),
            end: EventTime(end),
            keys: keys.len() as u64,
            count: keys.values().sum(),
        })
        .collect()
}

/// The catalog's own task: one request after the other, as over one connection.
async fn catalog_task(
    mut catalog: Catalog,
    who: String,
    owner_id: String,
    lease_ms: u64,
    mut init_metastore: bool,
    mut asks: async_mpsc::UnboundedReceiver<CatalogAsk>,
    to_loop: mpsc::Sender<Message>,
) {
    while let Some(ask) = asks.recv().await {
        let message = match ask {
            CatalogAsk::Place(database) => {
                let place = find_place(&mut catalog, &database, &mut init_metastore).await;
                Message::Place(place)
            }
            CatalogAsk::Acquire => {
                if init_metastore {
                    match catalog.init_metastore().await {
                        Ok(()) => init_metastore = false,
                        Err(error) => {
                            if to_loop.send(Message::Acquired(Err(error))).is_err() {
                                return;
                            }
                            continue;
                        }
                    }
                }
                let answer = catalog.acquire(&who, &owner_id, lease_ms).await;
                if let Ok(Acquired::Ours { head: Some(_), .. }) = &answer
                    && let Ok(files) = catalog.files(TableKind::Chunks, 0).await
                {
                    let _ = to_loop.send(Message::Totals(files.totals));
                }
                Message::Acquired(answer)
            }
            CatalogAsk::Renew(owner) => Message::Renewed(
                catalog
                    .renew(&owner, lease_ms)
                    .await
                    .map(|renewed| (renewed.now, renewed.paused)),
            ),
            CatalogAsk::Release(owner, done) => {
                if let Err(error) = catalog.release(&owner).await {
                    warn!(error = %error, "cannot give the table back; its lease ends by itself");
                }
                let _ = done.send(());
                continue;
            }
            CatalogAsk::Commit(commit) => Message::Committed {
                epoch: commit.epoch,
                result: catalog.commit(&commit).await,
            },
            CatalogAsk::Find(_, epoch) => Message::Found {
                epoch,
                result: catalog.outcome(epoch).await,
            },
            CatalogAsk::Doom(owner, keys) => {
                if !keys.is_empty()
                    && let Err(error) = catalog.doom(&owner, &keys).await
                {
                    warn!(error = %error, "cannot note objects that nothing names; they stay");
                }
                continue;
            }
            CatalogAsk::DoomedPast(owner, grace_ms) => match catalog.doomed_past(grace_ms).await {
                Ok(keys) if !keys.is_empty() => Message::Doomed(owner, keys),
                _ => continue,
            },
            CatalogAsk::Forget(owner, keys) => {
                if !keys.is_empty()
                    && let Err(error) = catalog.forget(&owner, &keys).await
                {
                    warn!(error = %error, "cannot note that objects are deleted; they are deleted again");
                }
                continue;
            }
            CatalogAsk::Pause(paused, answer) => {
                let result = catalog
                    .set_paused(paused, "api")
                    .await
                    .map_err(|e| e.to_string());
                let held = result.is_ok();
                let _ = answer.send(result);
                if !held {
                    continue;
                }
                Message::Paused(paused)
            }
            CatalogAsk::Config(config) => {
                if let Catalog::Postgres(metastore) = &mut catalog {
                    metastore.set_config(config);
                }
                continue;
            }
        };
        if to_loop.send(message).is_err() {
            return;
        }
    }
}

/// What says where the table lies. Hive is only asked, and made where that is wished, for a table that does not exist.
async fn find_place(
    catalog: &mut Catalog,
    database: &str,
    init_metastore: &mut bool,
) -> Result<Place, CatalogError> {
    if let Some(head) = catalog.head().await? {
        return Ok(Place {
            genesis: Some(head.genesis.warehouse),
            database: None,
        });
    }
    if *init_metastore {
        catalog.init_metastore().await?;
        *init_metastore = false;
    }
    Ok(Place {
        genesis: None,
        database: catalog.warehouse(database).await?,
    })
}

async fn commands_task(
    mut commands: async_mpsc::Receiver<Command>,
    to_catalog: async_mpsc::UnboundedSender<CatalogAsk>,
) {
    while let Some(Command { wish, answer }) = commands.recv().await {
        let _ = to_catalog.send(CatalogAsk::Pause(wish == Wish::Pause, answer));
    }
}

/// Looks at the secrets file again and again, at once when `reload` says so, and tells of others until `tell` wants no
/// more. What cannot be read is said once and the old ones stay.
pub async fn watch_secrets(
    config: Config,
    mut known: Secrets,
    reload: Arc<Notify>,
    tell: impl Fn(Secrets) -> bool,
) {
    let mut told = None;
    loop {
        tokio::select! {
            () = tokio::time::sleep(SECRETS_EVERY) => {}
            () = reload.notified() => {}
        }
        match crate::io::files::load_secrets(&config) {
            Ok(secrets) if secrets != known => {
                known = secrets.clone();
                if !tell(secrets) {
                    return;
                }
            }
            Ok(_) => told = None,
            Err(error) => {
                let text = error.to_string();
                if told.as_ref() != Some(&text) {
                    warn!(error = %error, "cannot read the secrets again; going on with those we have");
                    told = Some(text);
                }
            }
        }
    }
}

/// Reads the newest rows of the committed table or a side table, for people.
fn rows_fn(
    table: String,
    look: Catalog,
    login: watch::Receiver<Option<PgConfig>>,
    store: watch::Receiver<Option<Store>>,
) -> RowsFn {
    let look = Arc::new(tokio::sync::Mutex::new((look, login)));
    Arc::new(move |kind, limit| {
        let (table, look, store) = (table.clone(), Arc::clone(&look), store.borrow().clone());
        Box::pin(async move {
            let store = store.ok_or("where the table lies is not known yet; see /v1/status")?;
            let (look, login) = &mut *look.lock().await;
            if login.has_changed().unwrap_or(false)
                && let (Catalog::Postgres(metastore), Some(login)) =
                    (&mut *look, &*login.borrow_and_update())
            {
                metastore.set_config(login.clone());
            }
            newest_rows(&table, kind, look, &store, limit)
                .await
                .map_err(|e| format!("{e:#}"))
        })
    })
}
