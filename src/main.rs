//! Wiring and exit code: which verb, with which parts, and what is said at the end.
#![expect(clippy::disallowed_methods, reason = "the demo and the console read clocks to redraw")]

mod demo;

use anyhow::{Context, anyhow};
use clap::Parser;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tracing_subscriber::EnvFilter;
use windrow::cli::{self, AskError, Cli, EXIT_FAILED, EXIT_FINE, EXIT_USAGE, Verb};
use windrow::config::{Config, LogFormat, Secrets};
use windrow::console::{Console, Hit, ROWS_MAX};
use windrow::driver;
use windrow::extract::{Extraction, Extractor};
use windrow::io::kafka::{self, At, Event};
use windrow::io::{http, settings};
use windrow::parts;
use windrow::window::Windows;

/// How long the last commit may take once we are asked to end; a supervisor would end us soon after.
const END_MAX: Duration = Duration::from_secs(15);

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Verb::Demo(demo) = &cli.verb {
        return finish(demo::run(demo));
    }
    let loaded = settings::load(cli.config.as_deref()).and_then(|(config, secrets)| {
        config.check_secrets(&secrets)?;
        Ok((config, secrets))
    });
    let (config, secrets) = match loaded {
        Ok(loaded) => loaded,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let result = match &cli.verb {
        Verb::Run => {
            log_to_stderr(&config);
            if config.table.is_some() { run(&config, &secrets) } else { console(&config, &secrets) }
        }
        Verb::CheckConfig => print(&cli, &cli::checked(&config)),
        Verb::InitMetastore => init_metastore(&config, &secrets),
        _ => ask(&cli, &config, &secrets),
    };
    finish(result)
}

fn finish(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::from(EXIT_FINE),
        Err(error) => {
            eprintln!("windrow: {error:#}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

fn log_to_stderr(config: &Config) {
    let level = config.log.level;
    // Our own at the level that was set; libraries only when something is wrong with them.
    let filter =
        EnvFilter::new(if level == "trace" { level.to_owned() } else { format!("warn,windrow={level}") });
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.log.format {
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => log.json().init(),
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start threads")
}

fn run(config: &Config, secrets: &Secrets) -> anyhow::Result<()> {
    let runtime = runtime()?;
    let parts = parts::open(config, secrets)?;
    let listener = runtime.block_on(http::bind(config.http))?;
    let running = driver::start(parts, runtime.handle())?;
    let served = runtime.spawn(http::serve(listener, running.handle.clone(), std::future::pending()));
    let stop = running.stop.clone();
    runtime.spawn(async move {
        signalled().await;
        tracing::info!("asked to end: committing what there is");
        stop.stop();
        tokio::time::sleep(END_MAX).await;
        tracing::warn!("could not commit before the end; nothing is lost: the next start reads it again");
        std::process::exit(i32::from(EXIT_FINE));
    });
    let result = running.join();
    served.abort();
    // What still waits for a network has nothing left to say.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result.map_err(|reason| anyhow!(reason))
}

/// SIGTERM or SIGINT.
async fn signalled() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}

fn init_metastore(config: &Config, secrets: &Secrets) -> anyhow::Result<()> {
    runtime()?.block_on(parts::init_metastore(config, secrets))?;
    println!("Hive's schema is there");
    Ok(())
}

/// A running windrow knows most; without one the catalog knows what was committed.
fn ask(cli: &Cli, config: &Config, secrets: &Secrets) -> anyhow::Result<()> {
    let Some((method, path)) = cli::question(&cli.verb, config)? else { return Ok(()) };
    match cli::ask(config, secrets, method, &path) {
        Ok(answer) => return print(cli, &answer),
        Err(AskError::NotRunning(_)) if config.table.is_some() => {}
        Err(error) => return Err(error.into()),
    }
    let mut parts = parts::open(config, secrets)?;
    let answer = runtime()?.block_on(async {
        parts.settle().await?;
        anyhow::Ok(match &cli.verb {
            Verb::Status => cli::raw(&parts::look(&mut parts).await?),
            Verb::Tables => cli::raw(&parts::look(&mut parts).await?.tables()),
            Verb::Windows => cli::raw(&parts::look(&mut parts).await?.open_windows()),
            Verb::Rows(rows) => {
                let limit = rows.limit as usize;
                let table = config.table_name().unwrap_or_default();
                cli::raw(
                    &parts::newest_rows(&table, rows.of.kind(), &mut parts.look, &parts.store, limit).await?,
                )
            }
            Verb::Pause | Verb::Resume => {
                let paused = cli.verb == Verb::Pause;
                parts.look.set_paused(paused, "command line").await?;
                cli::raw(&serde_json::json!({ "paused": paused }))
            }
            _ => unreachable!("these ask nobody"),
        })
    })?;
    print(cli, &answer)
}

fn print(cli: &Cli, answer: &serde_json::value::RawValue) -> anyhow::Result<()> {
    let text = cli::render(&cli.verb, answer, cli.output)?;
    // A reader that has seen enough is no failure.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    Ok(())
}

/// What the Spark job does without a table: all windows so far, printed again as they change.
fn console(config: &Config, secrets: &Secrets) -> anyhow::Result<()> {
    const ASK: Duration = Duration::from_secs(5);
    let (consumer, mut reader) = kafka::open(&parts::kafka_config(config, secrets)?)?;
    let at = if config.kafka.start == windrow::config::Start::Latest { At::Latest } else { At::Earliest };
    let offsets = loop {
        match consumer.topic(ASK).and_then(|topic| consumer.offsets(&topic.partitions, at, ASK)) {
            Ok(offsets) if !offsets.is_empty() => break offsets,
            Ok(_) => tracing::info!("the topic has no partitions yet: waiting"),
            Err(error) => tracing::info!(reason = %error, "waiting"),
        }
        std::thread::sleep(Duration::from_secs(1));
    };
    for (partition, offset) in offsets {
        reader.start(partition, offset, -1)?;
    }
    let (windows, shape) = (Windows::of_shape(&config.shape), &config.shape);
    let (mut extractor, mut console) = (Extractor::new(shape), Console::new(shape, ROWS_MAX));
    let terminal = std::io::stdout().is_terminal();
    let (mut changed, mut rejected, mut drawn) = (false, 0_u64, Instant::now());
    loop {
        reader.poll(Duration::from_millis(100), &mut |event| match event {
            Event::Batch { batch, .. } => batch.each(&mut |record| {
                let Some(value) = record.value else { return };
                match extractor.extract(record.timestamp_ms, value) {
                    Extraction::Counted(found) => {
                        changed = true;
                        let span = windows.span(found.time.0);
                        let mut end = span.first_end;
                        while end <= span.last_end {
                            let (start, end_time) =
                                (windrow::time::EventTime(end - windows.size), windrow::time::EventTime(end));
                            console.add(Hit { start, end: end_time, key: found.key, values: found.values });
                            end += windows.slide;
                        }
                    }
                    Extraction::Reject { reason, .. } => {
                        rejected += 1;
                        if rejected.is_power_of_two() {
                            tracing::warn!(offset = record.offset, rejected, reason, "cannot count a record");
                        }
                    }
                }
            }),
            Event::Problem { what, .. } => tracing::warn!(error = %what, "cannot read"),
            Event::OutOfRange { partition, offset } => {
                tracing::warn!(
                    partition,
                    offset,
                    "records were removed before they were read; start again to see the rest"
                );
            }
            _ => {}
        })?;
        if changed && drawn.elapsed() >= Duration::from_secs(1) {
            (changed, drawn) = (false, Instant::now());
            if std::io::stdout().lock().write_all(console.render(terminal).as_bytes()).is_err() {
                return Ok(());
            }
        }
    }
}
