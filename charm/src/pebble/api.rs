//! Pebble's plan, services, logs and notices
//! (https://documentation.ubuntu.com/pebble/reference/api).

use super::wire::{
    ANSWER, Pebble, PebbleError, Result, Upload, escaped, not_understood, parse_result, request,
};
use hyper::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};
use windrow_core::shown::notice::{KEY, Notice};
use windrow_core::values::time::parse_rfc3339;

/// How long we wait for services. Pebble itself waits 1 s to see whether a service stays up.
pub(super) const START: Duration = Duration::from_secs(15);

/// A service may take its `kill-delay`, 20 s in our layer, to end by itself.
const STOP: Duration = Duration::from_secs(30);

/// Every function here fails in the same four ways: `Down` when nobody listens, `Slow` when no
/// answer comes in time, `Refused` when Pebble says no, and `Failed` when it did not work out.
impl Pebble {
    /// The whole plan, as YAML.
    ///
    /// # Errors
    /// As for every function here.
    pub fn plan(&self) -> Result<String> {
        self.get("read plan", "/v1/plan?format=yaml")
    }

    /// The services of the plan by name, each with its state: `active`, `inactive`, `backoff` or
    /// `error`.
    ///
    /// # Errors
    /// As for every function here.
    pub fn services(&self) -> Result<BTreeMap<String, String>> {
        #[derive(Deserialize)]
        struct Service {
            name: String,
            current: String,
        }
        let services: Vec<Service> = self.get("list services", "/v1/services")?;
        Ok(services
            .into_iter()
            .map(|service| (service.name, service.current))
            .collect())
    }

    /// Adds a layer to the plan, or combines it with the layer that has this label already. No
    /// service is started or stopped; [`Pebble::replan`] does that.
    ///
    /// # Errors
    /// As for every function here.
    pub fn add_layer(&self, label: &str, yaml: &str) -> Result<()> {
        let body = json!({
            "action": "add",
            "combine": true,
            "label": label,
            "format": "yaml",
            "layer": yaml,
        });
        self.post(&format!("add layer \"{label}\""), "/v1/layers", &body)
            .map(drop)
    }

    /// Starts the services that should run and restarts those whose configuration changed. Waits up
    /// to 15 s.
    ///
    /// # Errors
    /// As for every function here; a service that ends within its first second is `Failed`.
    pub fn replan(&self) -> Result<()> {
        self.change("replan services", &json!({"action": "replan"}), START)
    }

    /// Stops services. Waits up to 30 s.
    ///
    /// # Errors
    /// As for every function here.
    pub fn stop(&self, services: &[&str]) -> Result<()> {
        let what = format!("stop service \"{}\"", services.join("\", \""));
        let body = json!({"action": "stop", "services": services});
        self.change(&what, &body, STOP)
    }

    /// Sends a signal, such as `SIGHUP`, to a running service.
    ///
    /// # Errors
    /// As for every function here.
    pub fn signal(&self, name: &str, service: &str) -> Result<()> {
        let what = format!("send {name} to service \"{service}\"");
        let body = json!({"signal": name, "services": [service]});
        self.post(&what, "/v1/signals", &body).map(drop)
    }

    /// The last `n` lines of a service's log, oldest first. Pebble keeps 100 KiB.
    ///
    /// # Errors
    /// As for every function here.
    pub fn logs(&self, service: &str, n: usize) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Line {
            message: String,
        }
        let what = format!("read log of service \"{service}\"");
        let path = format!("/v1/logs?services={}&n={n}", escaped(service));
        let request = request(Method::GET, &path);
        let (_, body) = self.send(&what, request, Upload::default(), ANSWER)?;
        serde_json::Deserializer::from_slice(&body)
            .into_iter::<Line>()
            .map(|line| Ok(line.map_err(|_| not_understood(&what))?.message))
            .collect()
    }

    /// The latest notice with windrow's key, and how long ago it occurred, in milliseconds. `None`
    /// where there is none that this user may see: Pebble keeps the notices of each user apart.
    ///
    /// # Errors
    /// As for every function here.
    pub fn last_notice(&self) -> Result<Option<(Notice, u64)>> {
        /// The first notices of an old windrow had no data.
        #[derive(Deserialize)]
        #[serde(rename_all = "kebab-case")]
        struct Listed {
            last_occurred: String,
            #[serde(default)]
            last_data: Option<Notice>,
        }
        let path = format!("/v1/notices?types=custom&keys={}", escaped(KEY));
        let listed: Option<Vec<Listed>> = self.get(&format!("read notice \"{KEY}\""), &path)?;
        let latest = listed
            .unwrap_or_default()
            .into_iter()
            .map(|listed| (parse_rfc3339(&listed.last_occurred), listed.last_data))
            .max_by_key(|(at, _)| *at);
        Ok(latest.map(|(at, data)| {
            let age_ms = at.map_or(u64::MAX, |at| age_ms(at.0));
            (data.unwrap_or_default(), age_ms)
        }))
    }

    /// Changes what the latest notice with windrow's key says, and wakes nobody: with such a long
    /// `repeat-after`, Pebble takes it for a repetition that comes too soon. The notice must exist.
    ///
    /// # Errors
    /// As for every function here.
    pub fn update_notice(&self, notice: &Notice) -> Result<()> {
        let body = json!({
            "action": "add",
            "type": "custom",
            "key": KEY,
            "data": notice,
            "repeat-after": "87600h",
        });
        self.post(&format!("update notice \"{KEY}\""), "/v1/notices", &body)
            .map(drop)
    }

    /// Asks for a change of services and waits for its end.
    fn change(&self, what: &str, body: &Value, limit: Duration) -> Result<()> {
        let body = self.post(what, "/v1/services", body)?;
        self.wait(what, &change_id(what, &body)?, limit).map(drop)
    }

    /// Waits for the end of a change. A change that failed is `Failed`.
    pub(super) fn wait(&self, what: &str, change: &str, limit: Duration) -> Result<Change> {
        let path = format!("/v1/changes/{change}/wait?timeout={}ms", limit.as_millis());
        let request = request(Method::GET, &path);
        let (_, body) = match self.send(what, request, Upload::default(), limit + ANSWER) {
            Err(PebbleError::Refused { status: 504, .. }) => {
                return Err(PebbleError::Failed(format!(
                    "cannot {what}: it is not done after {} s; Pebble goes on with it",
                    limit.as_secs_f32()
                )));
            }
            answer => answer?,
        };
        let change: Change = parse_result(what, &body)?;
        match change.failure() {
            None => Ok(change),
            Some(cause) => Err(PebbleError::Failed(format!("cannot {what}: {cause}"))),
        }
    }
}

/// How long ago a time was, in milliseconds since 1970. A time in the future, as after a clock was
/// set back, counts as very long ago.
fn age_ms(at_ms: i64) -> u64 {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis();
    u64::try_from(i64::try_from(now).unwrap_or(i64::MAX) - at_ms).unwrap_or(u64::MAX)
}

/// Work that Pebble has begun and that takes time.
#[derive(Deserialize)]
pub(super) struct Change {
    #[serde(default)]
    err: String,
    #[serde(default)]
    pub tasks: Vec<Task>,
}

/// A step of a change.
#[derive(Deserialize)]
pub(super) struct Task {
    #[serde(default)]
    log: Vec<String>,
    #[serde(default)]
    pub data: BTreeMap<String, Value>,
}

impl Change {
    /// Why the change failed, in one line: what Pebble says about each step that failed, and the
    /// last line that a service printed itself. `None` when it did not fail.
    fn failure(&self) -> Option<String> {
        if self.err.is_empty() {
            return None;
        }
        let steps = self
            .err
            .strip_prefix("cannot perform the following tasks:")
            .unwrap_or(&self.err);
        let steps: Vec<&str> = steps
            .lines()
            .map(|line| line.trim().trim_start_matches("- "))
            .filter(|line| !line.is_empty())
            .collect();
        let mut failure = steps.join("; ");
        let mut logs = self.tasks.iter().flat_map(|task| &task.log);
        let output = logs.rfind(|log| log.contains("Most recent service output:"));
        let last = output
            .and_then(|log| log.trim_end().rsplit_once('\n'))
            .map(|(_, line)| line.trim());
        if let Some(last) = last {
            failure = format!("{failure}; its last words: {last}");
        }
        Some(failure)
    }
}

/// The id of the change that was begun, according to an answer.
pub(super) fn change_id(what: &str, body: &[u8]) -> Result<String> {
    #[derive(Deserialize)]
    struct Answer {
        change: String,
    }
    let answer: Answer = serde_json::from_slice(body).map_err(|_| not_understood(what))?;
    // It becomes part of a path.
    Ok(escaped(&answer.change))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_change_is_one_line() {
        let failure = |text: &str| serde_json::from_str::<Change>(text).unwrap().failure();
        assert_eq!(failure(r#"{"status":"Done"}"#), None);
        assert_eq!(
            failure(
                &json!({
                    "err": "cannot perform the following tasks:\n\
                        - Start service \"a\" (cannot start service: exited quickly with code 1)\n\
                        - Start service \"b\" (no)",
                    "tasks": [
                        {"log": [
                            "2026-01-01T00:00:00Z INFO Most recent service output:\n  one\n  two\n",
                            "2026-01-01T00:00:01Z ERROR cannot start service",
                        ]},
                        {},
                    ],
                })
                .to_string()
            )
            .unwrap(),
            "Start service \"a\" (cannot start service: exited quickly with code 1); \
             Start service \"b\" (no); its last words: two"
        );
    }
}
