//! The edge that acts: carries out a [`Plan`]. It decides nothing except what a failure means.
//!
//! What is printed here, Juju logs: standard output as DEBUG, and standard error as WARNING. That
//! costs no hook command.

use crate::context::Context;
use crate::facts::{Container, Facts, Memo};
use crate::gather::{Observation, trouble_of};
use crate::hookcmd::{HookCommands, HookError};
use crate::layer::{BINARY_DIR, LABEL, LAST_WORDS, SERVICE, USER_ID};
use crate::pebble::{Content, FileWrite, Pebble, PebbleError};
use crate::reconcile::{Plan, Run, Work};
use crate::rendered::{HTTP_PORT, SECRETS_FILE};
use crate::status::{self, Level, Names, Status};
use anyhow::Result;
use std::collections::BTreeMap;
use std::path::Path;
use windrow_core::settings::config::Secret;
use windrow_core::shown::notice::{self, DOWN, News};

/// Does what the plan says. The databags are written whether or not the container can be set up.
///
/// # Errors
/// A hook command failed. Then Juju drops what was written into databags and state, and runs the
/// hook again.
pub fn apply(
    plan: Plan,
    seen: &Observation,
    context: &Context,
    hooks: &HookCommands,
    pebble: &Pebble,
) -> Result<()> {
    write_databags(&plan, hooks)?;
    let failure = set_up_container(&plan.container, &context.charm_dir, pebble).err();
    if let Work::Run(run) = &plan.container {
        update_notice(&news_after(run, &seen.facts), run.replan, pebble);
    }
    let memo = serde_json::to_string(&plan.memo)?;
    if memo != seen.memo_text {
        hooks.state_set(&BTreeMap::from([(Memo::KEY.to_owned(), memo)]))?;
    }
    if plan.open_port {
        hooks.open_port(&format!("{HTTP_PORT}/tcp"))?;
    }
    if let Some(version) = &plan.version {
        hooks.application_version_set(version)?;
    }
    let status = match failure {
        None => plan.status,
        Some(failure) => status_after_failure(&failure, &plan.status, &plan.names, pebble),
    };
    show_status(&status, &seen.facts, hooks)
}

fn write_databags(plan: &Plan, hooks: &HookCommands) -> Result<()> {
    for (is_app, all) in [(true, &plan.app_data), (false, &plan.unit_data)] {
        for (id, bag) in all {
            println!("writing {} fields for {id}", bag.len());
            match hooks.relation_set(id, is_app, bag) {
                Err(HookError::Gone { .. }) => println!("{id} has ended"),
                done => done?,
            }
        }
    }
    Ok(())
}

fn show_status(status: &Status, facts: &Facts, hooks: &HookCommands) -> Result<()> {
    let wanted = (status.level.name().to_owned(), status.text.clone());
    if facts.shown.as_ref() != Some(&wanted) {
        hooks.status_set(&wanted.0, &wanted.1)?;
    }
    Ok(())
}

// ---------------------------------------------------------------- the notice

/// What people see of the workload from now on.
fn news_after(run: &Run, facts: &Facts) -> News {
    let windrow = match &facts.container {
        Container::Up(up) if !run.replan => up.windrow.as_ref(),
        _ => None,
    };
    match windrow {
        Some(windrow) => News {
            state: windrow.state.name().to_owned(),
            cause: windrow.cause,
            reason: windrow.reason.clone(),
        },
        None => News {
            state: DOWN.to_owned(),
            ..News::default()
        },
    }
}

/// Makes the latest notice say what is shown now. The check that wakes the charm compares with the
/// notice, because it knows nothing else.
fn update_notice(news: &News, restarted: bool, pebble: &Pebble) {
    let updated = pebble.last_notice().and_then(|last| {
        let notice = last.and_then(|(last, age_ms)| notice::shown(news, restarted, &last, age_ms));
        notice.map_or(Ok(()), |notice| pebble.update_notice(&notice))
    });
    if let Err(error) = updated {
        println!("{error}");
    }
}

// ---------------------------------------------------------------- the container

/// Why the container is not as it should be.
enum Failure {
    /// A file or the layer could not be written, or the service could not be stopped.
    Setup(PebbleError),
    /// Everything is in place, and the service does not start.
    Start(PebbleError),
}

impl From<PebbleError> for Failure {
    fn from(error: PebbleError) -> Self {
        Failure::Setup(error)
    }
}

/// The status for a container that could not be set up. When the plan's status is more urgent, that
/// one is shown.
fn status_after_failure(
    failure: &Failure,
    planned: &Status,
    names: &Names,
    pebble: &Pebble,
) -> Status {
    let (Failure::Setup(error) | Failure::Start(error)) = failure;
    eprintln!("cannot set up container windrow: {error}");
    let ours = match (failure, error) {
        (Failure::Start(_), PebbleError::Failed(_)) => {
            let words = pebble.logs(SERVICE, LAST_WORDS).unwrap_or_default();
            let silence = status::describe_silence(Some("error"), &words, names);
            // Its log says nothing about why it has ended.
            if silence.level == Level::Maintenance {
                Status::blocked(format!("windrow does not start: {error}"))
            } else {
                silence
            }
        }
        _ => status::describe_pebble(&trouble_of(error), &names.unit),
    };
    status::most_urgent([ours.clone(), planned.clone()]).unwrap_or(ours)
}

fn set_up_container(work: &Work, charm_dir: &Path, pebble: &Pebble) -> Result<(), Failure> {
    match work {
        Work::LeaveAlone => Ok(()),
        Work::Stop { stop, remove } => {
            if *stop {
                println!("stopping windrow");
                pebble.stop(&[SERVICE])?;
            }
            Ok(remove_files(remove, pebble)?)
        }
        Work::Run(run) => bring_up(run, charm_dir, pebble),
    }
}

fn bring_up(run: &Run, charm_dir: &Path, pebble: &Pebble) -> Result<(), Failure> {
    if let Some(name) = &run.push {
        println!("pushing {name}");
        pebble.write_files(&[FileWrite {
            path: format!("{BINARY_DIR}/{name}"),
            content: Content::File(charm_dir.join("windrow")),
            mode: 0o755,
            uid: None,
            gid: None,
        }])?;
    }
    write_files(run, pebble)?;
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
            // It is just being started, and then it reads them anyway.
            println!("{error}");
        }
    }
    // What is left of an earlier charm takes up space, and does no other harm.
    if let Err(error) = remove_files(&[run.remove.as_slice(), &run.prune].concat(), pebble) {
        eprintln!("{error}");
    }
    Ok(())
}

fn write_files(run: &Run, pebble: &Pebble) -> Result<(), PebbleError> {
    if run.write.is_empty() {
        return Ok(());
    }
    let paths: Vec<&str> = run.write.keys().map(String::as_str).collect();
    println!("writing {}", paths.join(", "));
    let write = |path: &String, text: &Secret| {
        let is_secret = path == SECRETS_FILE;
        let owner = if is_secret { USER_ID } else { ROOT };
        FileWrite {
            path: path.clone(),
            content: Content::Bytes(text.expose().as_bytes().to_vec()),
            mode: if is_secret { 0o600 } else { 0o644 },
            uid: Some(owner),
            gid: Some(owner),
        }
    };
    // Pebble makes a folder for the owner of the first file in it. The folder must be root's: then
    // windrow's user can put no other file in the place of one that root reads.
    let (secret, others): (Vec<_>, Vec<_>) = run
        .write
        .iter()
        .partition(|(path, _)| *path == SECRETS_FILE);
    let files: Vec<FileWrite> = others
        .into_iter()
        .chain(secret)
        .map(|(path, text)| write(path, text))
        .collect();
    pebble.write_files(&files)
}

/// Who owns what the check `notify` reads, which runs as root because Juju's agent does.
const ROOT: u32 = 0;

fn remove_files(paths: &[String], pebble: &Pebble) -> Result<(), PebbleError> {
    if paths.is_empty() {
        return Ok(());
    }
    println!("removing {}", paths.join(", "));
    pebble.remove(&paths.iter().map(String::as_str).collect::<Vec<_>>())
}
