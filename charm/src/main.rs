//! What Juju runs at every event: the charm's `dispatch`.

use anyhow::{Result, anyhow};
use std::panic::catch_unwind;
use std::process::ExitCode;
use windrow_charm::context::{Context, Happened};
use windrow_charm::hookcmd::HookCommands;
use windrow_charm::pebble::Pebble;
use windrow_charm::{action, apply, gather, reconcile};

/// Where Juju puts the socket of the workload container's Pebble.
const PEBBLE_SOCKET: &str = "/charm/containers/windrow/pebble.socket";

fn main() -> ExitCode {
    let hooks = HookCommands::default();
    let done = catch_unwind(|| dispatch(&HookCommands::default())).unwrap_or_else(|_| {
        Err(anyhow!(
            "the charm has a fault: it panicked; please report the lines before this one"
        ))
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is put off: Juju runs the hook again, and till then people see why.
            let text = format!("{error:#}");
            hooks.juju_log("ERROR", &text);
            let _ = hooks.status_set(
                "blocked",
                &format!("the hook failed and is run again: {text}"),
            );
            ExitCode::FAILURE
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "Juju speaks to charms by environment; no secret of ours is in it"
)]
fn dispatch(hooks: &HookCommands) -> Result<()> {
    let context = Context::read(|name| std::env::var(name).ok())?;
    let pebble = Pebble::new(PEBBLE_SOCKET.into());
    match &context.happened {
        Happened::Action(name) => action::run(name, &context.charm_dir, hooks, &pebble),
        // The unit is on its way out: whatever is gone is gone for good.
        Happened::Hook { name, .. } if name == "remove" => Ok(()),
        Happened::Hook { .. } => {
            let seen = gather::gather(&context, hooks, &pebble)?;
            let plan = reconcile::plan(&seen.facts, &seen.chosen);
            apply::apply(plan, &seen, &context, hooks, &pebble)
        }
    }
}
