//! The result of a dispatch, and how golden files tell it.

use crate::juju::Called;
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::time::Duration;

/// The result of one dispatch.
pub struct Run {
    pub event: String,
    pub exit: i32,
    /// Why the hook failed, in Juju's words.
    pub error: Option<String>,
    pub stdout: String,
    pub stderr: String,
    pub calls: Vec<Called>,
    /// What Juju kept when the hook had ended.
    pub flushed: Vec<String>,
    /// The unit's status afterwards, such as `active ""`.
    pub status: String,
    pub statuses: Vec<String>,
    pub log: Vec<String>,
    pub action: Option<Done>,
    /// The requests to Pebble.
    pub pebble: Vec<String>,
    /// The requests to the workload.
    pub workload: Vec<String>,
    /// What has changed in the plan, the services and the files.
    pub container: Vec<String>,
    pub took: Duration,
    pub(super) hidden: BTreeSet<String>,
    pub(super) folder: String,
}

/// How an action ended.
pub struct Done {
    pub status: &'static str,
    pub message: String,
    pub results: Map<String, Value>,
    pub log: Vec<String>,
}

impl Run {
    /// The same run, if the hook ended well.
    ///
    /// # Panics
    /// If it did not.
    pub fn good(self) -> Run {
        assert!(
            self.error.is_none(),
            "{}: {}\n{}",
            self.event,
            self.error.as_deref().unwrap_or_default(),
            self.tell()
        );
        self
    }

    /// How often a hook command was called; for `""`, how often any was.
    pub fn count(&self, command: &str) -> usize {
        self.calls
            .iter()
            .filter(|call| command.is_empty() || call.command == command)
            .count()
    }

    /// What was changed in the container, in a few words: `push`, `write a.yaml`, `layer`,
    /// `replan`, `SIGHUP`, `remove`.
    pub fn did(&self) -> String {
        let word = |line: &String| {
            let (method, rest) = line.split_once(' ').unwrap_or_default();
            if let Some(path) = line.strip_prefix("  write ") {
                let path = path.split(' ').next().unwrap_or_default();
                let name = path.rsplit('/').next().unwrap_or_default();
                return Some(if path.starts_with("/opt/") {
                    "push".to_owned()
                } else {
                    format!("write {name}")
                });
            }
            if let Some(body) = line.strip_prefix("  {") {
                return Some(if body.contains("\"remove\"") {
                    "remove".to_owned()
                } else {
                    "make folders".to_owned()
                });
            }
            let (path, body) = rest.split_once(' ').unwrap_or((rest, "{}"));
            let body: Value = serde_json::from_str(body).unwrap_or_default();
            match (method, path) {
                ("POST", "/v1/layers") => Some("layer".to_owned()),
                ("POST", "/v1/services") => body["action"].as_str().map(str::to_owned),
                ("POST", "/v1/signals") => body["signal"].as_str().map(str::to_owned),
                ("POST", "/v1/exec") => Some("exec".to_owned()),
                ("POST", "/v1/files") | ("GET", _) => None,
                _ => Some(line.clone()),
            }
        };
        let words: Vec<String> = self.pebble.iter().filter_map(word).collect();
        words.join(", ")
    }

    /// The status, what was done in the container and what Juju kept, on one line, without what
    /// differs from run to run.
    pub fn brief(&self) -> String {
        let mut line = self.status.clone();
        if let Some(error) = &self.error {
            line = format!("{error}: {line}");
        }
        if let Some(action) = &self.action {
            line = format!("{} {:?}", action.status, action.message);
        }
        let did = self.did();
        if !did.is_empty() {
            line += &format!(" [{did}]");
        }
        let kept = self
            .flushed
            .iter()
            .map(|l| l.split(": ").next().unwrap_or_default());
        let kept: Vec<&str> = kept.filter(|l| *l != "state memo").collect();
        if !kept.is_empty() {
            line += &format!(" kept {}", kept.join(", "));
        }
        for value in &self.hidden {
            line = line.replace(value.as_str(), "***");
        }
        line.replace(&self.folder, "FOLDER")
    }

    /// Everything, for a golden file, without times, folders and credentials.
    pub fn tell(&self) -> String {
        let mut said = vec![format!(
            "{} {}",
            self.event,
            self.error.as_deref().unwrap_or("done")
        )];
        let mut section = |name: &str, lines: &[String]| {
            if !lines.is_empty() {
                said.push(format!("  {name}"));
                said.extend(
                    lines
                        .iter()
                        .flat_map(|l| l.lines())
                        .map(|line| format!("    {line}")),
                );
            }
        };
        let clean = |text: &str| {
            let text = self.hidden.iter().fold(text.to_owned(), |text, value| {
                text.replace(value.as_str(), "***")
            });
            text.replace(&self.folder, "FOLDER")
        };
        let calls: Vec<String> = self.calls.iter().map(|call| told(call, clean)).collect();
        section("hook commands", &calls);
        section("statuses", &self.statuses);
        section("log", &self.log);
        section(
            "printed",
            &[
                self.stdout.trim_end().to_owned(),
                self.stderr.trim_end().to_owned(),
            ],
        );
        section("kept", &self.flushed);
        if let Some(action) = &self.action {
            let mut lines = vec![
                format!("{} {}", action.status, action.message)
                    .trim_end()
                    .to_owned(),
            ];
            lines.extend(action.results.iter().map(|(k, v)| format!("{k}: {v}")));
            lines.extend(action.log.iter().map(|l| format!("log {l}")));
            section("action", &lines);
        }
        section("pebble", &self.pebble);
        section("workload", &self.workload);
        section("container", &self.container);
        clean(&(said.join("\n") + "\n"))
    }
}

/// A hook command on one line. Long values are cut.
fn told(call: &Called, clean: impl Fn(&str) -> String) -> String {
    let mut line = call.command.clone();
    for arg in &call.args {
        let mut arg: String = clean(arg).replace('\n', "\\n");
        if let Some((at, _)) = arg.char_indices().nth(100) {
            arg.truncate(at);
            arg.push('…');
        }
        let plain = !arg.is_empty() && !arg.contains(' ');
        line += &if plain {
            format!(" {arg}")
        } else {
            format!(" {arg:?}")
        };
    }
    if call.stdin.is_some() {
        line += " <stdin";
    }
    if call.code != 0 {
        line += &format!(" → {} {}", call.code, call.stderr.trim_end());
    }
    line
}
