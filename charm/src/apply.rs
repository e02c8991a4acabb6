//! The edge that acts: carries a [`Plan`] out, and decides nothing but what a failure means.
//!
//! What Juju logs is what is printed: standard output as DEBUG, standard error as WARNING. It costs no hook command.

use crate::context::Context;
use crate::facts::{Container, Facts};
use crate::gather::{LAST_WORDS, MEMO, Seen};
use crate::hookcmd::{HookCommands, HookError};
use crate::layer::{BINARY_DIR, LABEL, SERVICE, USER_ID};
use crate::pebble::{Content, FileWrite, Pebble, PebbleError};
use crate::reconcile::{Plan, Run, Work};
use crate::settings::{HTTP_PORT, SECRETS_FILE};
use crate::status::{self, Level, Status};
use anyhow::Result;
use std::collections::BTreeMap;
use windrow::io::pebble::Pebble as Notices;
use windrow_core::shown::notice::{self, DOWN, News};

/// Does what the plan says. Databags are written whatever the container does.
///
/// # Errors
/// A hook command fails. Then Juju forgets what was written, and runs the hook again.
pub fn apply(
    plan: Plan,
    seen: &Seen,
    context: &Context,
    hooks: &HookCommands,
    pebble: &Pebble,
) -> Result<()> {
    for (app, all) in [(true, &plan.app_data), (false, &plan.unit_data)] {
        for (id, bag) in all {
            println!("writing {} fields for {id}", bag.len());
            match hooks.relation_set(id, app, bag) {
                Err(HookError::Gone { .. }) => println!("{id} has ended"),
                done => done?,
            }
        }
    }
    let failed = container(&plan.container, context, pebble).err();
    if let Work::Run(run) = &plan.container {
        note(&shown(run, &seen.facts), run.replan, pebble);
    }
    let memo = serde_json::to_string(&plan.memo)?;
    if memo != seen.memo_text {
        hooks.state_set(&BTreeMap::from([(MEMO.to_owned(), memo)]))?;
    }
    if plan.open_port {
        hooks.open_port(&format!("{HTTP_PORT}/tcp"))?;
    }
    if let Some(version) = &plan.version {
        hooks.application_version_set(version)?;
    }
    let status = match failed {
        None => plan.status,
        Some(failure) => of_failure(&failure, &plan, context, pebble),
    };
    show(&status, &seen.facts, hooks)
}

/// What people see of the workload from now on.
fn shown(run: &Run, facts: &Facts) -> News {
    match &facts.container {
        Container::Up(up) if !run.replan => up.windrow.as_ref().map(|windrow| News {
            state: windrow.state.name().to_owned(),
            cause: windrow.cause,
            reason: windrow.reason.clone(),
        }),
        _ => None,
    }
    .unwrap_or_else(|| News {
        state: DOWN.to_owned(),
        ..News::default()
    })
}

/// Lets the check that wakes us know what is shown: it knows only what was told last.
fn note(news: &News, restarted: bool, pebble: &Pebble) {
    let notices = Notices::at(pebble.socket().to_owned());
    let noted = notices.last_notice().and_then(|last| {
        let note = last.and_then(|(last, age_ms)| notice::shown(news, restarted, &last, age_ms));
        note.map_or(Ok(()), |note| notices.note(&note))
    });
    if let Err(error) = noted {
        println!("cannot note what is shown: {error}");
    }
}

fn show(status: &Status, facts: &Facts, hooks: &HookCommands) -> Result<()> {
    let wanted = (status.level.name().to_owned(), status.text.clone());
    if facts.shown.as_ref() != Some(&wanted) {
        hooks.status_set(&wanted.0, &wanted.1)?;
    }
    Ok(())
}

/// Why the container is not as it should be.
enum Failure {
    /// Files, layers.
    Setup(PebbleError),
    /// It was set up, and the service does not start.
    Start(PebbleError),
}

impl From<PebbleError> for Failure {
    fn from(error: PebbleError) -> Self {
        Failure::Setup(error)
    }
}

/// What a container that could not be set up means. What a person must see to before comes first.
fn of_failure(failure: &Failure, plan: &Plan, context: &Context, pebble: &Pebble) -> Status {
    let (Failure::Setup(error) | Failure::Start(error)) = failure;
    eprintln!("cannot set up container windrow: {error}");
    let ours = match (failure, error) {
        (_, PebbleError::Down(_) | PebbleError::Refused { status: 500.., .. }) => {
            Status::waiting("waiting for Pebble in container windrow")
        }
        (Failure::Start(_), PebbleError::Failed(_)) => {
            let words = pebble.logs(SERVICE, LAST_WORDS).unwrap_or_default();
            match status::of_silence(Some("error"), &words, context.app()) {
                Status {
                    level: Level::Maintenance,
                    ..
                } => Status::blocked(format!("windrow does not start: {error}")),
                told => told,
            }
        }
        _ => Status::blocked(format!("cannot set up container windrow: {error}")),
    };
    status::first([ours.clone(), plan.status.clone()]).unwrap_or(ours)
}

fn container(work: &Work, context: &Context, pebble: &Pebble) -> Result<(), Failure> {
    match work {
        Work::LeaveAlone => Ok(()),
        Work::Stop { stop, remove } => {
            if *stop {
                println!("stopping windrow");
                pebble.stop(&[SERVICE])?;
            }
            Ok(remove_files(remove, pebble)?)
        }
        Work::Run(run) => bring_up(run, context, pebble),
    }
}

fn remove_files(paths: &[String], pebble: &Pebble) -> Result<(), PebbleError> {
    if paths.is_empty() {
        return Ok(());
    }
    println!("removing {}", paths.join(", "));
    pebble.remove(&paths.iter().map(String::as_str).collect::<Vec<_>>())
}

fn bring_up(run: &Run, context: &Context, pebble: &Pebble) -> Result<(), Failure> {
    if let Some(name) = &run.push {
        println!("pushing {name}");
        pebble.write_files(&[FileWrite {
            path: format!("{BINARY_DIR}/{name}"),
            content: Content::File(context.charm_dir.join("windrow")),
            mode: 0o755,
            uid: None,
            gid: None,
        }])?;
    }
    if !run.write.is_empty() {
        println!(
            "writing {}",
            run.write.keys().cloned().collect::<Vec<_>>().join(", ")
        );
        let files: Vec<FileWrite> = run
            .write
            .iter()
            .map(|(path, text)| FileWrite {
                path: path.clone(),
                content: Content::Bytes(text.expose().as_bytes().to_vec()),
                mode: if path == SECRETS_FILE { 0o600 } else { 0o644 },
                uid: Some(USER_ID),
                gid: Some(USER_ID),
            })
            .collect();
        pebble.write_files(&files)?;
    }
    if let Some(layer) = &run.layer {
        pebble.add_layer(LABEL, &layer.to_string())?;
    }
    if run.replan {
        println!("replanning");
        pebble.replan().map_err(Failure::Start)?;
    }
    if run.reload {
        println!("telling windrow to read its secrets again");
        if let Err(error) = pebble.signal("SIGHUP", SERVICE) {
            // It is being started anew, and reads them then.
            println!("{error}");
        }
    }
    // What is left of an earlier charm takes room, and does no other harm.
    if let Err(error) = remove_files(&[run.remove.as_slice(), &run.prune].concat(), pebble) {
        eprintln!("{error}");
    }
    Ok(())
}
