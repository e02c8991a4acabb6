//! Wiring and exit code: which verb runs, with which clients, and what is printed at the end.
#![expect(
    clippy::disallowed_methods,
    reason = "it waits for the last commit, and ends the process when that takes too long"
)]

use anyhow::Context;
use clap::Parser;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::signal::unix::Signal;
use tokio::sync::Notify;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{fmt, reload};
use windrow::io::pebble::{self, Pebble};
use windrow::io::{files, http};
use windrow::run::cli::{
    self, AskError, Cli, EXIT_DIFFERS, EXIT_FAILED, EXIT_FINE, EXIT_USAGE, Output, Verb,
};
use windrow::run::clients;
use windrow::run::{adopt, compact, console_loop, demo, log, panics, rotation, running, verify};
use windrow_core::settings::config::{Config, LogFormat, Secrets};
use windrow_core::shown::notice;
use windrow_core::shown::status::{State, Status};
use windrow_core::values::cause::{Trouble, name_or_empty};

/// How long the last commit may take once windrow is asked to end. A supervisor would kill it soon
/// after that.
const END_MAX: Duration = Duration::from_secs(15);

fn main() -> ExitCode {
    panics::end_the_process();
    let cli = Cli::parse();
    match &cli.verb {
        Verb::Demo(demo) => finish(demo::run(demo)),
        Verb::Notify => {
            notify(&cli);
            ExitCode::from(EXIT_FINE)
        }
        Verb::Run => run(&cli),
        _ => with_settings(&cli, |config, secrets| {
            finish(match &cli.verb {
                Verb::CheckConfig => match print_problems(secrets) {
                    Some(code) => return code,
                    None => print(&cli, &cli::checked(config)),
                },
                Verb::InitMetastore => init_metastore(config, secrets),
                Verb::Restore(options) => restore(*options, config, secrets),
                Verb::Compact(how) if how.dry_run => {
                    ask_catalog(&cli, config, secrets, None).and_then(|plan| print(&cli, &plan))
                }
                Verb::Compact(_) => compact::run(config, secrets, tell_progress)
                    .and_then(|answer| print(&cli, &answer)),
                Verb::Verify(options) => match verify(&cli, config, secrets, options) {
                    Ok(code) => return code,
                    Err(error) => Err(error),
                },
                Verb::Adopt(options) => adopt(&cli, options, config, secrets),
                _ => ask(&cli, config, secrets),
            })
        }),
    }
}

fn with_settings(cli: &Cli, work: impl FnOnce(&Config, &Secrets) -> ExitCode) -> ExitCode {
    let loaded = files::load(cli.config.as_deref()).and_then(|(config, secrets)| {
        config.check_secrets(&secrets)?;
        Ok((config, secrets))
    });
    match loaded {
        Ok((config, secrets)) => work(&config, &secrets),
        Err(error) => {
            // Whoever watches the process reads its last line, so each has that form.
            for problem in error.0 {
                eprintln!("{}", Trouble::from(problem).last_line());
            }
            ExitCode::from(EXIT_USAGE)
        }
    }
}

/// A run goes on without an optional secret that cannot be used, but whoever checks wants to know.
fn print_problems(secrets: &Secrets) -> Option<ExitCode> {
    for problem in &secrets.problems {
        eprintln!("{}", Trouble::from(problem.text.as_str()).last_line());
    }
    (!secrets.problems.is_empty()).then(|| ExitCode::from(EXIT_USAGE))
}

fn finish(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::from(EXIT_FINE),
        Err(error) => {
            let why = error
                .downcast::<Trouble>()
                .unwrap_or_else(|error| format!("{error:#}").into());
            eprintln!("{}", why.last_line());
            ExitCode::from(EXIT_FAILED)
        }
    }
}

/// Starts the log on standard error. The function that it returns changes the level.
fn log_to_stderr(config: &Config) -> Box<dyn Fn(&'static str) + Send> {
    let (level, handle) = reload::Layer::new(log::targets(config.log.level));
    let log = tracing_subscriber::registry().with(level);
    let lines = fmt::layer().with_writer(std::io::stderr);
    match config.log.format {
        LogFormat::Text => log
            .with(lines.with_ansi(std::io::stderr().is_terminal()))
            .init(),
        LogFormat::Json => log.with(lines.json()).init(),
    }
    Box::new(move |level| {
        // It fails only when the log has ended.
        let _ = handle.reload(log::targets(level));
    })
}

fn runtime() -> anyhow::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start threads")
}

fn run(cli: &Cli) -> ExitCode {
    // This comes before all else, so that a SIGHUP never ends the process.
    let started = runtime().and_then(|runtime| {
        let hangups = rotation::hangups(&runtime).context("cannot listen to signals")?;
        Ok((runtime, hangups))
    });
    let (runtime, hangups) = match started {
        Ok(started) => started,
        Err(error) => return finish(Err(error)),
    };
    with_settings(cli, |config, secrets| {
        let set_level = log_to_stderr(config);
        let known = rotation::Loaded::new(cli.config.as_deref(), config);
        let reload = Reload {
            hangups,
            known,
            set_level,
        };
        finish(if config.table.is_some() {
            count(config, secrets, runtime, reload)
        } else {
            console(config, secrets, runtime, reload)
        })
    })
}

/// All that a SIGHUP needs.
struct Reload {
    hangups: Signal,
    known: rotation::Loaded,
    set_level: Box<dyn Fn(&'static str) + Send>,
}

impl Reload {
    fn hear(self, runtime: &Runtime, secrets: Arc<Notify>) {
        runtime.spawn(rotation::reload_at_hangups(
            self.hangups,
            self.known,
            secrets,
            self.set_level,
        ));
    }
}

fn count(
    config: &Config,
    secrets: &Secrets,
    runtime: Runtime,
    reload: Reload,
) -> anyhow::Result<()> {
    let parts = clients::open(config, secrets)?;
    let listener = runtime.block_on(http::bind(config.http))?;
    let running = running::start(parts, runtime.handle())?;
    reload.hear(&runtime, Arc::clone(&running.reload));
    let served = runtime.spawn(http::serve(
        listener,
        running.handle.clone(),
        std::future::pending(),
    ));
    let stop = running.stop.clone();
    runtime.spawn(async move {
        signalled().await;
        tracing::info!("asked to end: committing what there is");
        stop.stop();
        tokio::time::sleep(END_MAX).await;
        tracing::warn!(
            "could not commit before the end; nothing is lost: the next start reads it again"
        );
        std::process::exit(i32::from(EXIT_FINE));
    });
    let result = running.join();
    served.abort();
    // Tasks that still wait for the network have nothing left to do.
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(result?)
}

fn console(
    config: &Config,
    secrets: &Secrets,
    runtime: Runtime,
    reload: Reload,
) -> anyhow::Result<()> {
    let secrets_again = Arc::new(Notify::new());
    reload.hear(&runtime, Arc::clone(&secrets_again));
    let result = console_loop::run(config, secrets, &runtime, secrets_again, signalled());
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

/// Looks at windrow once, and adds a notice to Pebble where there is news. It never fails, because
/// whatever runs it only wants it to run.
fn notify(cli: &Cli) {
    let config = match files::load_config(cli.config.as_deref()) {
        Ok(config) => config,
        Err(error) => return eprintln!("{error}"),
    };
    // It is asked as well as it can be: a user who may not read the secrets is told less.
    let token = files::load_secrets(&config)
        .ok()
        .and_then(|secrets| secrets.api_token);
    let news = pebble::look(cli::loopback(config.http), token.as_ref());
    let socket = pebble::socket();
    let pebble = Pebble::at(socket.clone());
    let told = pebble.last_notice().and_then(|last| {
        let notice = notice::decide(
            &news,
            last.as_ref().map(|(notice, age_ms)| (notice, *age_ms)),
        );
        notice
            .as_ref()
            .map_or(Ok(()), |notice| pebble.add(notice))?;
        Ok(notice.is_some())
    });
    let cause = name_or_empty(news.cause);
    match told {
        Ok(true) => println!("{} {} {}: told Pebble", news.state, cause, news.reason),
        Ok(false) => println!("{} {} {}: no news", news.state, cause, news.reason),
        Err(error) => {
            eprintln!(
                "cannot tell Pebble at \"{}\": {error}; is it running?",
                socket.display()
            );
        }
    }
}

/// Waits for SIGTERM or SIGINT.
async fn signalled() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}

fn init_metastore(config: &Config, secrets: &Secrets) -> anyhow::Result<()> {
    runtime()?.block_on(clients::init_metastore(config, secrets))?;
    println!("Hive's schema is there");
    Ok(())
}

fn restore(options: cli::Restore, config: &Config, secrets: &Secrets) -> anyhow::Result<()> {
    let notes = runtime()?.block_on(async {
        if options.from_manifests {
            return clients::restore_from_manifests(config, secrets).await;
        }
        clients::restore(config, secrets).await
    })?;
    for note in notes {
        println!("{note}");
    }
    println!("Hive shows what the journal says");
    Ok(())
}

/// Tells on standard error how far something long is, where a person may be looking.
fn tell_progress(line: &str) {
    if std::io::stderr().is_terminal() && !line.is_empty() {
        eprintln!("{line}");
    }
}

/// Verifies the table beside a windrow that may run. What differs is printed like an answer.
fn verify(
    cli: &Cli,
    config: &Config,
    secrets: &Secrets,
    asked: &cli::Verify,
) -> anyhow::Result<ExitCode> {
    let mut parts = clients::open(config, secrets)?;
    let options = verify::Options {
        from: asked.from,
        to: asked.to,
        deep: asked.deep,
        bytes_per_second: asked.rate,
        memory_max: parts
            .settings
            .max_memory_bytes
            .try_into()
            .unwrap_or(usize::MAX),
    };
    let mut progress = verify::ProgressLine::new(std::io::stderr().is_terminal());
    let report = runtime()?.block_on(async {
        parts.settle().await?;
        verify::verify(parts.into(), options, &mut |report| progress.show(report)).await
    });
    progress.clear();
    let report = report?;
    print(cli, &cli::raw(&report))?;
    Ok(ExitCode::from(match report.found.differences {
        0 => EXIT_FINE,
        _ => EXIT_DIFFERS,
    }))
}

fn adopt(
    cli: &Cli,
    options: &cli::Adopt,
    config: &Config,
    secrets: &Secrets,
) -> anyhow::Result<()> {
    let wish = adopt::Wish {
        checkpoint: options.checkpoint.clone(),
        table_directory: options.table_dir.clone(),
        dry_run: options.dry_run,
        look_again_after: adopt::LOOK_AGAIN_AFTER,
    };
    let adoption = runtime()?.block_on(adopt::adopt(config, secrets, &wish))?;
    match cli.output {
        Output::Table => print!("{}", adoption.text()),
        Output::Json => println!("{}", cli::raw(&adoption)),
    }
    Ok(())
}

/// Asks the running windrow, which knows most. Where none is running, or the one that does has not
/// got the table, the catalog knows what was committed.
fn ask(cli: &Cli, config: &Config, secrets: &Secrets) -> anyhow::Result<()> {
    let Some((method, path)) = cli::question(&cli.verb, config)? else {
        return Ok(());
    };
    let running = (method == "GET").then(|| find_without_table(config, secrets));
    let running = running.flatten();
    let answer = match cli::ask(config, secrets, method, &path) {
        Ok(answer) if running.is_none() => return print(cli, &answer),
        Ok(answer) => Some(answer),
        Err(AskError::NotRunning(_)) if config.table.is_some() => None,
        Err(error) => return Err(error.into()),
    };
    // What it waits for may be the catalog.
    let waits = running
        .as_ref()
        .is_some_and(|running| running.state == State::Waiting);
    let looked = ask_catalog(cli, config, secrets, running);
    match (looked, answer.filter(|_| waits)) {
        (Err(_), Some(answer)) => print(cli, &answer),
        (looked, _) => print(cli, &looked?),
    }
}

/// Answers a question from the catalog. `running` is the status of a windrow that has not got the
/// table; `None` where none is running.
fn ask_catalog(
    cli: &Cli,
    config: &Config,
    secrets: &Secrets,
    running: Option<Status>,
) -> anyhow::Result<Box<serde_json::value::RawValue>> {
    let mut parts = clients::open(config, secrets)?;
    runtime()?.block_on(async {
        parts.settle().await?;
        anyhow::Ok(match &cli.verb {
            Verb::Status => {
                let committed = clients::look(&mut parts).await?;
                cli::raw(&match running {
                    Some(running) => Status {
                        state: running.state,
                        cause: running.cause,
                        reason: running.reason,
                        owner: running.owner,
                        ..committed
                    },
                    None => committed,
                })
            }
            Verb::Tables => cli::raw(&clients::look(&mut parts).await?.tables()),
            Verb::Windows => cli::raw(&clients::look(&mut parts).await?.open_windows()),
            Verb::Rows(rows) => {
                let limit = rows.limit as usize;
                let table = config.table_name().unwrap_or_default();
                cli::raw(
                    &clients::newest_rows(
                        &table,
                        rows.of.kind(),
                        &mut parts.look,
                        &parts.store,
                        limit,
                    )
                    .await?,
                )
            }
            Verb::Compact(_) => cli::raw(&clients::compaction_plan(&mut parts).await?),
            Verb::Pause | Verb::Resume => {
                let paused = cli.verb == Verb::Pause;
                parts.look.set_paused(paused, "command line").await?;
                cli::raw(&serde_json::json!({ "paused": paused }))
            }
            _ => unreachable!("these ask nobody"),
        })
    })
}

/// What the running windrow says about itself, where it stands by or waits for the table. It has
/// counted nothing, so what it says about the table is all zeros. `None` where it has the table or
/// does not answer.
fn find_without_table(config: &Config, secrets: &Secrets) -> Option<Status> {
    let answer = cli::ask(config, secrets, "GET", "/v1/status").ok()?;
    let status: Status = serde_json::from_str(answer.get()).ok()?;
    status.knows_less_than_the_catalog().then_some(status)
}

fn print(cli: &Cli, answer: &serde_json::value::RawValue) -> anyhow::Result<()> {
    let text = cli::render(&cli.verb, answer, cli.output)?;
    // It is not a failure when the reader of a pipe has seen enough and closed it.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    Ok(())
}
