//! `dispatch`, the program that Juju runs at every event: calls the library and gives the exit
//! code.

use anyhow::{Result, anyhow};
use std::panic::catch_unwind;
use std::process::ExitCode;
use windrow_charm::context::{Context, Happened};
use windrow_charm::hookcmd::HookCommands;
use windrow_charm::pebble::Pebble;
use windrow_charm::{action, apply, gather, reconcile, status};

/// Where Juju puts the socket of the Pebble in the workload's container.
const PEBBLE_SOCKET: &str = "/charm/containers/windrow/pebble.socket";

fn main() -> ExitCode {
    let hooks = HookCommands::default();
    let context = read_context();
    let is_action = matches!(&context, Ok(context) if context.hook().is_none());
    let done = context.and_then(|context| {
        catch_unwind(|| dispatch(&context, &HookCommands::default())).unwrap_or_else(|_| {
            Err(anyhow!(
                "the charm has a fault: it panicked; please report the lines before this one"
            ))
        })
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // What has failed is the action alone, which Juju does not run again. The unit is as well
        // as it was before.
        Err(error) if is_action => match hooks.action_fail(&format!("{error:#}")) {
            Ok(()) => ExitCode::SUCCESS,
            Err(again) => {
                eprintln!("{error:#}; {again}");
                ExitCode::FAILURE
            }
        },
        Err(error) => {
            // Juju runs a failed hook again. Until then the status says why it failed.
            hooks.juju_log("ERROR", &format!("{error:#}"));
            let status = status::describe_failed_hook(&error);
            let _ = hooks.status_set(status.level.name(), &status.text);
            ExitCode::FAILURE
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "Juju speaks to charms by environment variables; none holds a secret of ours"
)]
fn read_context() -> Result<Context> {
    Context::read(|name| std::env::var(name).ok())
}

fn dispatch(context: &Context, hooks: &HookCommands) -> Result<()> {
    let pebble = Pebble::new(PEBBLE_SOCKET.into());
    match &context.happened {
        Happened::Action(name) => action::run(name, &context.charm_dir, hooks, &pebble),
        // The unit is being removed: there is nothing left to reach.
        Happened::Hook { name, .. } if name == "remove" => Ok(()),
        Happened::Hook { .. } => {
            let seen = gather::gather(context, hooks, &pebble)?;
            let plan = reconcile::plan(&seen.facts, &seen.chosen);
            apply::apply(plan, &seen, context, hooks, &pebble)
        }
    }
}
