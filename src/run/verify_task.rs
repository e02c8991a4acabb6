//! Verifications of a running windrow: one at a time, on a thread of its own, within a bandwidth
//! and an eighth of the memory, so that counting goes on as before. They read with clients of their
//! own, which are made anew each time with the secrets of that moment.

use crate::io::files;
use crate::io::verify_http::{Verifier, VerifyWish};
use crate::run::clients;
use crate::run::verify::{Options, verify};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::runtime::Handle as Runtime;
use windrow_core::settings::config::Config;
use windrow_core::verify::report::{Report, Stage};

/// A verification may take so much of `max-memory`.
const MEMORY_SHARE: u64 = 8;
/// What is fetched from the topic may take so many bytes at a time.
const FETCHED_BYTES: u64 = 8 << 20;

/// Verifies the table of these settings.
pub struct VerifyTask {
    /// The settings; `None` where windrow was started without a file of them.
    config: Option<Config>,
    runtime: Runtime,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// How many were started.
    started: u64,
    report: Option<Report>,
}

impl VerifyTask {
    /// None runs yet.
    #[must_use]
    pub fn new(config: Option<Config>, runtime: Runtime) -> Self {
        Self {
            config,
            runtime,
            state: Arc::default(),
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Verifier for VerifyTask {
    fn start(&self, wish: &VerifyWish) -> Result<String, String> {
        let Some(config) = self.config.clone() else {
            return Err("cannot verify: this windrow has no settings file".to_owned());
        };
        let mut state = lock(&self.state);
        if let Some(running) = state.report.as_ref().filter(|r| r.stage == Stage::Running) {
            return Err(format!(
                "cannot verify: verification {} is under way; it is {} % done",
                running.id, running.percent
            ));
        }
        state.started += 1;
        let id = format!("verify-{}", state.started);
        state.report = Some(Report {
            id: id.clone(),
            table: config.table_name().unwrap_or_default(),
            doing: "starting".to_owned(),
            ..Report::default()
        });
        let (shared, on, wish) = (Arc::clone(&self.state), self.runtime.clone(), wish.clone());
        let name = id.clone();
        self.runtime.spawn_blocking(move || {
            let note = |report: &Report| {
                lock(&shared).report = Some(Report {
                    id: name.clone(),
                    ..report.clone()
                });
            };
            let verified = on.block_on(run(&config, &wish, note));
            let mut state = lock(&shared);
            let last = state.report.take().unwrap_or_default();
            let report = verified.unwrap_or_else(|error| Report {
                stage: Stage::Failed,
                failure: format!("{error:#}"),
                ..last
            });
            tracing::info!(id = %name, outcome = %report.headline(), "verified the table");
            state.report = Some(Report { id: name, ..report });
        });
        Ok(id)
    }

    fn report(&self) -> Option<Report> {
        lock(&self.state).report.clone()
    }
}

async fn run(
    config: &Config,
    wish: &VerifyWish,
    mut note: impl FnMut(&Report) + Send,
) -> anyhow::Result<Report> {
    let secrets = files::load_secrets(config)?;
    let mut parts = clients::open(config, &secrets)?;
    parts.settle().await?;
    parts.kafka.fetched_bytes = parts.kafka.fetched_bytes.min(FETCHED_BYTES);
    let memory = parts.settings.max_memory_bytes / MEMORY_SHARE;
    let options = Options {
        from: wish.from,
        to: wish.to,
        deep: wish.deep,
        bytes_per_second: Some(wish.rate.unwrap_or(parts.compact_bytes_per_second)),
        memory_max: usize::try_from(memory).unwrap_or(usize::MAX),
    };
    let mut shown = None;
    let mut show = move |report: &Report| {
        // The differences so far are copied each time, so only news is worth it.
        let news = (report.percent, report.found.differences);
        if shown != Some(news) {
            shown = Some(news);
            note(report);
        }
    };
    verify(parts.into(), options, &mut show).await
}
