//! One run from its start to its end: the loop's thread, the tasks beside it, and the channels
//! between them. What the loop then does is in `driver`.

use crate::io::http::{Command, Handle};
use crate::io::kafka::{self, Reader};
use crate::run::catalog_task::{CatalogReport, CatalogTask, CatalogWork, pass_commands_on};
use crate::run::clients::{Clients, http_token, random_owner_id};
use crate::run::clock::MachineClock;
use crate::run::driver::{Driver, Message};
use crate::run::merging::Merging;
use crate::run::rotation::{Rotation, log_problems, watch_secrets};
use crate::run::rows::rows_reader;
use crate::run::verify_task::VerifyTask;
use anyhow::Context;
use std::collections::BTreeSet;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use tokio::runtime::Handle as Runtime;
use tokio::sync::{Notify, mpsc as async_mpsc, watch};
use windrow_core::engine::{Answer, Engine};
use windrow_core::settings::config::{CatalogSettings, Config};
use windrow_core::settings::secrets::Secrets;
use windrow_core::shown::snapshot::{RunFacts, snapshot};
use windrow_core::values::cause::Trouble;

/// What a started run gives to those who watch it and command it.
pub struct Running {
    /// What the HTTP server needs.
    pub handle: Handle,
    /// Ends the run.
    pub stop: Stopper,
    /// Has the secrets file read again at once.
    pub reload: Arc<Notify>,
    thread: JoinHandle<Result<(), Trouble>>,
}

/// Asks a run to commit what there is, and to end.
#[derive(Clone)]
pub struct Stopper(mpsc::Sender<Message>);

impl Stopper {
    /// Asks once more, or for the first time. It does not wait for the end.
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
/// The Kafka client refuses its settings, or the system has no random bytes or no thread.
pub fn start(clients: Clients, runtime: &Runtime) -> anyhow::Result<Running> {
    let (to_loop, from_tasks) = mpsc::channel();
    let (brokers, reader) = kafka::open(&clients.kafka)?;
    let run = run_facts(&clients);
    let must_be_located = clients.bucket().is_some();
    let task = CatalogTask {
        catalog: clients.catalog,
        instance: clients.who,
        owner_id: random_owner_id()?,
        lease_ms: clients.settings.lease_ms,
        database: clients.settings.database.clone(),
        init_metastore: wants_hive_schema(clients.config.as_ref()),
    };
    let to_catalog = start_catalog_task(task, runtime, to_loop.clone());
    let engine = Engine::new(clients.settings);
    let (look_login, look_login_rx) = watch::channel(None);
    let (located_store, store_rx) =
        watch::channel(Some(clients.store.clone()).filter(|_| !must_be_located));
    let (status, status_rx) = watch::channel(Arc::new(snapshot(&engine, &run)));
    let (token, token_rx) = watch::channel(http_token(&clients.secrets)?);
    let handle = Handle {
        status: status_rx,
        commands: take_commands(runtime, to_catalog.clone(), to_loop.clone()),
        rows: rows_reader(run.table.clone(), clients.look, look_login_rx, store_rx),
        token: token_rx,
        verifier: Some(Arc::new(VerifyTask::new(
            clients.config.clone(),
            runtime.clone(),
        ))),
    };
    let reload = Arc::new(Notify::new());
    log_problems(&clients.secrets);
    let (config, secrets) = (clients.config.clone(), clients.secrets.clone());
    start_watching_secrets(config, secrets, &reload, runtime, to_loop.clone());
    let driver = Driver {
        engine,
        run,
        kafka: clients.kafka,
        brokers,
        store: clients.store,
        located_store,
        rotation: clients.config.is_some().then_some(Rotation {
            catalog: clients.catalog_login,
            in_use: clients.secrets,
            token,
            look_login,
        }),
        merging: Merging::new(clients.compact_bytes_per_second),
        runtime: runtime.clone(),
        to_loop: to_loop.clone(),
        to_catalog,
        clock: MachineClock::start(),
        status,
        status_at: None,
        given_back_at: None,
        logged: None,
        committing_since: None,
        reading: BTreeSet::new(),
        releasing: None,
        ended: None,
    };
    let thread = start_thread(driver, reader, from_tasks)?;
    Ok(Running {
        handle,
        stop: Stopper(to_loop),
        reload,
        thread,
    })
}

/// Takes what operators wish, and hands it on to whoever does it.
fn take_commands(
    runtime: &Runtime,
    to_catalog: async_mpsc::UnboundedSender<CatalogWork>,
    to_loop: mpsc::Sender<Message>,
) -> async_mpsc::Sender<Command> {
    let (commands, commands_rx) = async_mpsc::channel(8);
    let compact = move |answer| {
        // Where the loop has ended, the answer is dropped, and says so.
        let _ = to_loop.send(Message::Compact(answer));
    };
    runtime.spawn(pass_commands_on(commands_rx, to_catalog, compact));
    commands
}

fn run_facts(clients: &Clients) -> RunFacts {
    let rules = &clients.settings;
    RunFacts {
        table: format!("{}.{}", rules.database, rules.table),
        topic: rules.shape.topic.clone(),
        version: crate::run::cli::VERSION.to_owned(),
        instance: clients.who.clone(),
        problems: clients.secrets.problems_text(),
        ..RunFacts::default()
    }
}

/// Reads the secrets again when they change. Without settings, they cannot.
fn start_watching_secrets(
    config: Option<Config>,
    secrets: Secrets,
    reload: &Arc<Notify>,
    runtime: &Runtime,
    to_loop: mpsc::Sender<Message>,
) {
    let Some(config) = config else { return };
    let reload = Arc::clone(reload);
    let report = move |secrets| to_loop.send(Message::Secrets(Box::new(secrets))).is_ok();
    runtime.spawn(watch_secrets(config, secrets, reload, report));
}

fn wants_hive_schema(config: Option<&Config>) -> bool {
    // A local catalog has no metastore, and what it needs is there without the setting.
    let is_local = |config: &Config| matches!(config.catalog, Some(CatalogSettings::Local(_)));
    config.is_some_and(|config| config.init_metastore && !is_local(config))
}

fn start_thread(
    driver: Driver,
    reader: Reader,
    from_tasks: mpsc::Receiver<Message>,
) -> anyhow::Result<JoinHandle<Result<(), Trouble>>> {
    std::thread::Builder::new()
        .name("windrow".to_owned())
        .spawn(move || driver.run(reader, &from_tasks))
        .context("cannot start a thread")
}

fn start_catalog_task(
    task: CatalogTask,
    runtime: &Runtime,
    to_loop: mpsc::Sender<Message>,
) -> async_mpsc::UnboundedSender<CatalogWork> {
    let (to_catalog, work) = async_mpsc::unbounded_channel();
    let report = move |report| {
        let message = match report {
            CatalogReport::Answer(answer) => Message::Answer(Answer::Catalog(answer)),
            CatalogReport::Totals(totals) => Message::Totals(totals),
            CatalogReport::Paused(paused) => Message::Paused(paused),
        };
        to_loop.send(message).is_ok()
    };
    runtime.spawn(task.run(work, report));
    to_catalog
}
