//! The catalog's own task: it carries out one request after the other, as over one connection, and
//! reports what came of each. What is asked, and when, is not decided here.

use crate::io::catalog::session::PgConfig;
use crate::io::catalog::{Catalog, Totals};
use crate::io::http::{Command, Wish};
use std::sync::mpsc as blocking;
use tokio::sync::{mpsc, oneshot};
use tracing::warn;
use windrow_core::engine::{CatalogAnswer, CatalogRequest, Location};
use windrow_core::table::commit::{Acquired, CatalogError, LeaseMark};
use windrow_core::table::hive::TableKind;

/// What the task is asked for. It carries them out in the order in which they were sent.
#[expect(clippy::large_enum_variant, reason = "there are a few a minute")]
pub enum CatalogWork {
    /// A request of the engine.
    Perform(CatalogRequest),
    /// An operator's pause (`true`) or its end. Whoever asked is told once it holds, or why not.
    Pause(bool, oneshot::Sender<Result<(), String>>),
    /// Log in with these credentials from the next connection on.
    UseLogin(PgConfig),
    /// Report the sums over the table's files, which a commit has changed in more than it says.
    ReportTotals,
    /// Say when everything that was asked for earlier has been carried out.
    SayWhenDone(blocking::Sender<()>),
}

/// What the task reports.
pub enum CatalogReport {
    /// The answer to a request of the engine.
    Answer(CatalogAnswer),
    /// The sums over the table's files. When the table is taken, they come before the answer that
    /// says so.
    Totals(Totals),
    /// A pause, or its end, is in the catalog now.
    Paused(bool),
}

/// The catalog, and what each request to it needs besides.
pub struct CatalogTask {
    /// Where the requests go.
    pub catalog: Catalog,
    /// The name by which other processes know this one.
    pub instance: String,
    /// Random, and new with every process.
    pub owner_id: String,
    /// How long the table is held without a renewal.
    pub lease_ms: u64,
    /// The Hive database in which the table lies.
    pub database: String,
    /// Whether Hive's schema is still to be made, as the setting `init-metastore` wishes.
    pub init_metastore: bool,
}

impl CatalogTask {
    /// Works until nobody can ask any more, or until `report` answers `false`, because nobody
    /// listens any more.
    pub async fn run(
        mut self,
        mut work: mpsc::UnboundedReceiver<CatalogWork>,
        report: impl Fn(CatalogReport) -> bool,
    ) {
        while let Some(work) = work.recv().await {
            let done = match work {
                CatalogWork::Perform(request) => match self.perform(request, &report).await {
                    Some(answer) => CatalogReport::Answer(answer),
                    None => continue,
                },
                CatalogWork::Pause(paused, answer) => {
                    let result = self.catalog.set_paused(paused, "api").await;
                    let holds = result.is_ok();
                    let _ = answer.send(result.map_err(|error| error.to_string()));
                    if !holds {
                        continue;
                    }
                    CatalogReport::Paused(paused)
                }
                CatalogWork::UseLogin(login) => {
                    if let Catalog::Postgres(metastore) = &mut self.catalog {
                        metastore.set_config(login);
                    }
                    continue;
                }
                CatalogWork::ReportTotals => match self.totals().await {
                    Some(totals) => CatalogReport::Totals(totals),
                    None => continue,
                },
                CatalogWork::SayWhenDone(done) => {
                    let _ = done.send(());
                    continue;
                }
            };
            if !report(done) {
                return;
            }
        }
    }

    /// Carries out one request of the engine. Returns `None` where there is nothing to answer.
    #[expect(
        clippy::too_many_lines,
        reason = "it is a table with one arm for each request"
    )]
    async fn perform(
        &mut self,
        request: CatalogRequest,
        report: &impl Fn(CatalogReport) -> bool,
    ) -> Option<CatalogAnswer> {
        let catalog = &mut self.catalog;
        Some(match request {
            CatalogRequest::Locate => CatalogAnswer::Locate(self.locate().await),
            CatalogRequest::Acquire { over } => {
                let acquired = self.acquire(over.as_ref()).await;
                if let Ok(Acquired::Ours { head: Some(_), .. }) = &acquired
                    && let Some(totals) = self.totals().await
                {
                    report(CatalogReport::Totals(totals));
                }
                CatalogAnswer::Acquire(acquired)
            }
            CatalogRequest::Renew { owner } => {
                CatalogAnswer::Renew(catalog.renew(&owner, self.lease_ms).await)
            }
            CatalogRequest::Release { owner } => {
                if let Err(error) = catalog.release(&owner).await {
                    warn!(error = %error, "cannot give the table back; its lease ends by itself");
                }
                return None;
            }
            CatalogRequest::Commit { commit, clock } => CatalogAnswer::Commit {
                epoch: commit.epoch,
                result: catalog.commit_by(&commit, &clock).await,
            },
            CatalogRequest::Outcome { epoch } => CatalogAnswer::Outcome {
                epoch,
                result: catalog.outcome(epoch).await,
            },
            CatalogRequest::Doom { owner, keys, clock } => {
                CatalogAnswer::Doom(catalog.doom(&owner, &keys, &clock).await)
            }
            CatalogRequest::Doomed { manifest, keys } => CatalogAnswer::Doomed {
                manifest,
                result: catalog.doomed_among(&keys).await,
            },
            CatalogRequest::DoomedPast {
                grace_ms,
                after,
                clock,
            } => {
                let result = catalog
                    .doomed_past(grace_ms, after.as_deref(), &clock)
                    .await;
                CatalogAnswer::DoomedPast { after, result }
            }
            CatalogRequest::LiveFiles => CatalogAnswer::LiveFiles(catalog.live_files().await),
            CatalogRequest::DropEmptied {
                owner,
                emptied_ms,
                clock,
            } => {
                let result = catalog.drop_emptied(&owner, emptied_ms, &clock).await;
                CatalogAnswer::DropEmptied(result)
            }
            CatalogRequest::Foldable { every_ms, clock } => {
                CatalogAnswer::Foldable(catalog.foldable(every_ms, &clock).await)
            }
            CatalogRequest::Fold {
                owner,
                history,
                manifest,
                clock,
            } => {
                let result = catalog.fold(&owner, &history, &manifest, &clock).await;
                CatalogAnswer::Fold(result)
            }
            CatalogRequest::DropDays {
                owner,
                log_starts,
                clock,
            } => {
                let result = catalog.drop_days(&owner, &log_starts, &clock).await;
                CatalogAnswer::DropDays(result)
            }
            CatalogRequest::Forget { owner, keys } => {
                CatalogAnswer::Forget(catalog.forget(&owner, &keys).await)
            }
        })
    }

    /// The sums over the table's files; `None` where the catalog does not answer.
    async fn totals(&mut self) -> Option<Totals> {
        let files = self.catalog.files(TableKind::Chunks, 0).await;
        files.ok().map(|files| files.totals)
    }

    async fn acquire(&mut self, over: Option<&LeaseMark>) -> Result<Acquired, CatalogError> {
        self.make_hive_schema().await?;
        let (instance, owner_id) = (&self.instance, &self.owner_id);
        self.catalog
            .acquire_over(instance, owner_id, self.lease_ms, over)
            .await
    }

    /// What says where the table lies. Only for a table that does not exist is Hive asked, and its
    /// schema made where that is wished.
    async fn locate(&mut self) -> Result<Location, CatalogError> {
        if let Some(head) = self.catalog.head().await? {
            let genesis = Some(head.genesis.warehouse.to_string());
            return Ok(Location {
                genesis,
                database: None,
            });
        }
        self.make_hive_schema().await?;
        let database = self.catalog.warehouse(&self.database).await?;
        Ok(Location {
            genesis: None,
            database,
        })
    }

    async fn make_hive_schema(&mut self) -> Result<(), CatalogError> {
        if self.init_metastore {
            self.catalog.init_metastore().await?;
            self.init_metastore = false;
        }
        Ok(())
    }
}

/// Hands what operators wish on: a pause to the catalog's task, which does it in its turn, and the
/// wish to merge files now to `compact`.
pub async fn pass_commands_on(
    mut commands: mpsc::Receiver<Command>,
    to_catalog: mpsc::UnboundedSender<CatalogWork>,
    compact: impl Fn(oneshot::Sender<Result<(), String>>),
) {
    while let Some(Command { wish, answer }) = commands.recv().await {
        match wish {
            Wish::Pause | Wish::Resume => {
                let _ = to_catalog.send(CatalogWork::Pause(wish == Wish::Pause, answer));
            }
            Wish::Compact => compact(answer),
        }
    }
}
