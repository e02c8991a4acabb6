//! `windrow compact`: asks the running windrow to merge files now, and tells how that goes until
//! nothing is left to merge.
#![expect(
    clippy::disallowed_methods,
    reason = "the verb waits for another process, and looks at it twice a second"
)]

use crate::run::cli::{AskError, ask, raw};
use anyhow::bail;
use serde_json::json;
use serde_json::value::RawValue;
use std::time::Duration;
use windrow_core::settings::config::{Config, Secrets};
use windrow_core::shown::status::{State, Status};

/// Between two looks at how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// After so many failures without a success, somebody must look at the log.
const FAILURES_MAX: u64 = 3;

/// Merges what can be merged now. `progress` gets a line each time that there is something new to
/// tell. Returns the answer of the verb.
///
/// # Errors
/// No windrow runs on this machine, it does not have the table, or the merges fail.
pub fn run(
    config: &Config,
    secrets: &Secrets,
    progress: impl FnMut(&str),
) -> anyhow::Result<Box<RawValue>> {
    let look = || -> Result<Status, AskError> {
        let answer = ask(config, secrets, "GET", "/v1/status")?;
        serde_json::from_str(answer.get()).map_err(|error| {
            AskError::Refused(format!("cannot read the status of windrow: {error}"))
        })
    };
    let before = look()?;
    ask(config, secrets, "POST", "/v1/compact")?;
    wait(&before, progress, || {
        std::thread::sleep(LOOK_EVERY);
        look()
    })
}

/// Looks again and again until nothing is left to merge.
fn wait(
    before: &Status,
    mut progress: impl FnMut(&str),
    mut look: impl FnMut() -> Result<Status, AskError>,
) -> anyhow::Result<Box<RawValue>> {
    let mut told = String::new();
    loop {
        let status = look()?;
        if status.compaction != told {
            told.clone_from(&status.compaction);
            progress(&told);
        }
        let made = status.compactions.saturating_sub(before.compactions);
        let failed = status
            .compaction_failures
            .saturating_sub(before.compaction_failures);
        if status.compaction_due_merges + status.compaction_due_drops == 0 {
            return Ok(raw(&json!({
                "table": status.table,
                "merges": made,
                "files": status.files,
                "left-out-files": status.compaction_left_out_files,
            })));
        }
        match status.state {
            State::Counting | State::Waiting => {}
            State::Paused | State::Failed | State::Standby => bail!(
                "windrow merges no files now, because its state is {}: {}",
                status.state,
                status.reason
            ),
        }
        if made == 0 && failed >= FAILURES_MAX {
            bail!(
                "cannot merge the files of table {}: {failed} attempts have failed; windrow's log \
                 says why, and it tries again by itself",
                status.table
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    fn status(due: u64, made: u64, text: &str) -> Status {
        Status {
            table: "default.newtable".to_owned(),
            state: State::Counting,
            files: 40,
            compactions: made,
            compaction: text.to_owned(),
            compaction_due_merges: due,
            ..Status::default()
        }
    }

    /// What the verb answers or says when it sees these statuses, and the lines that it tells.
    fn waited(statuses: Vec<Status>) -> (anyhow::Result<String>, Vec<String>) {
        let before = Status {
            compactions: 4,
            compaction_failures: 1,
            ..Status::default()
        };
        let (mut seen, mut lines) = (VecDeque::from(statuses), Vec::new());
        let answer = wait(
            &before,
            |line| lines.push(line.to_owned()),
            || Ok(seen.pop_front().expect("it has seen enough")),
        );
        (answer.map(|answer| answer.get().to_owned()), lines)
    }

    #[test]
    fn it_waits_until_nothing_is_left_to_merge_and_tells_each_change_once() {
        let (answer, lines) = waited(vec![
            status(2, 4, "2 merges are due"),
            status(2, 4, "2 merges are due"),
            status(1, 5, "1 merge is due"),
            status(0, 6, ""),
        ]);
        assert_eq!(
            answer.unwrap(),
            r#"{"files":40,"left-out-files":0,"merges":2,"table":"default.newtable"}"#
        );
        assert_eq!(lines, ["2 merges are due", "1 merge is due", ""]);
    }

    #[test]
    fn it_does_not_wait_for_what_does_not_happen() {
        let failing = |failures| Status {
            compaction_failures: failures,
            ..status(1, 4, "1 merge is due")
        };
        let (answer, _) = waited(vec![failing(2), failing(3), failing(4)]);
        let why = answer.unwrap_err().to_string();
        assert!(why.contains("3 attempts have failed"), "{why}");

        let paused = Status {
            state: State::Paused,
            reason: "by an operator; run: windrow resume".to_owned(),
            ..status(1, 4, "1 merge is due")
        };
        let why = waited(vec![paused]).0.unwrap_err().to_string();
        assert!(
            why.ends_with("state is paused: by an operator; run: windrow resume"),
            "{why}"
        );
    }
}
