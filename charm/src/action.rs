//! Actions: asked of the running windrow over loopback, else of its binary by Pebble, else a sentence that says why not.
//! The same from any unit: what is committed is in the catalog.

use crate::gather::ask;
use crate::hookcmd::HookCommands;
use crate::layer::{BINARY_DIR, binary_name};
use crate::pebble::Pebble;
use crate::settings::SETTINGS_FILE;
use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use windrow_core::settings::config::Secret;
use windrow_core::shown::status::Rows;

/// Juju keeps results for long and shows them in a terminal.
const LIST_MAX_BYTES: usize = 60_000;
/// The most rows that windrow gives at once.
const LIMIT_MAX: u64 = 1000;

type Results = BTreeMap<String, String>;

/// Runs an action and gives its results to Juju. An action that cannot be done fails with a sentence.
///
/// # Errors
/// A hook command fails.
pub fn run(name: &str, charm_dir: &Path, hooks: &HookCommands, pebble: &Pebble) -> Result<()> {
    let parameters = hooks.action_get()?;
    match answer(name, &parameters, charm_dir, hooks, pebble) {
        Ok(results) => hooks.action_set(&results)?,
        Err(error) => hooks.action_fail(&format!("{error:#}"))?,
    }
    Ok(())
}

fn answer(
    name: &str,
    parameters: &BTreeMap<String, Value>,
    charm_dir: &Path,
    hooks: &HookCommands,
    pebble: &Pebble,
) -> Result<Results> {
    let asker = Asker {
        charm_dir,
        hooks,
        pebble,
    };
    let limit = parameters
        .get("limit")
        .and_then(Value::as_u64)
        .unwrap_or(20)
        .clamp(1, LIMIT_MAX);
    match name {
        "get-table-status" => summary(&asker.ask("GET", "/v1/status", &["status"])?),
        "list-tables" => list(
            &asker.ask("GET", "/v1/tables", &["tables"])?,
            "tables",
            limit,
        ),
        "show-windows" => list(
            &asker.ask("GET", "/v1/windows", &["windows"])?,
            "windows",
            limit,
        ),
        "get-lag" => lag(&asker.ask("GET", "/v1/status", &["status"])?),
        "preview-table" => rows(&asker.rows("", limit)?),
        "list-rejects" => {
            let late = parameters
                .get("late")
                .and_then(Value::as_bool)
                .unwrap_or(false);
            rows(&asker.rows(if late { "late" } else { "rejects" }, limit)?)
        }
        "pause" | "resume" => {
            let answer = asker.ask("POST", &format!("/v1/{name}"), &[name])?;
            let answer: Value =
                serde_json::from_str(&answer).context("cannot read windrow's answer")?;
            Ok(Results::from([(
                "paused".to_owned(),
                text(&answer["paused"]),
            )]))
        }
        _ => bail!("cannot run action \"{name}\": this charm has none of that name"),
    }
}

struct Asker<'a> {
    charm_dir: &'a Path,
    hooks: &'a HookCommands,
    pebble: &'a Pebble,
}

impl Asker<'_> {
    /// The JSON text of the answer: of the running windrow, else of `windrow VERB`, which looks into the catalog.
    fn ask(&self, method: &str, path: &str, verb: &[&str]) -> Result<String> {
        let token = if method == "POST" {
            self.token()?
        } else {
            None
        };
        match ask(method, path, token.as_ref()) {
            Ok((200..=299, text)) => Ok(text),
            Ok((_, text)) => {
                let error: Value = serde_json::from_str(&text).unwrap_or_default();
                let error = error["error"]
                    .as_str()
                    .unwrap_or("its answer is none; look at: kubectl logs -c windrow");
                Err(anyhow!("windrow refuses: {error}"))
            }
            Err(_) => self.exec(verb),
        }
    }

    fn rows(&self, of: &str, limit: u64) -> Result<String> {
        let limit_text = limit.to_string();
        let mut verb = vec!["rows", "--limit", limit_text.as_str()];
        if !of.is_empty() {
            verb.extend(["--of", of]);
        }
        let status = ask("GET", "/v1/status", None)
            .ok()
            .filter(|(code, _)| *code == 200);
        let status: Value = status
            .and_then(|(_, text)| serde_json::from_str(&text).ok())
            .unwrap_or_default();
        match status["table"].as_str() {
            Some("") => bail!("console mode keeps no rows; set option table-name"),
            Some(table) => {
                let table = if of.is_empty() {
                    table.to_owned()
                } else {
                    format!("{table}__{of}")
                };
                self.ask(
                    "GET",
                    &format!("/v1/tables/{table}/rows?limit={limit}"),
                    &verb,
                )
            }
            None => self.exec(&verb),
        }
    }

    fn exec(&self, verb: &[&str]) -> Result<String> {
        let digest = std::fs::read_to_string(self.charm_dir.join("windrow.sha256"))
            .context("the charm is not whole")?;
        let mut command = vec![format!("{BINARY_DIR}/{}", binary_name(digest.trim()))];
        command.extend(["--config", SETTINGS_FILE, "--output", "json"].map(str::to_owned));
        command.extend(verb.iter().map(|word| (*word).to_owned()));
        let output = self.pebble.exec(&command, Duration::from_secs(25)).map_err(|error| {
            anyhow!("windrow does not answer, and its program cannot be run to ask the catalog: {error}; see the unit's status")
        })?;
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        if output.code == 0 {
            return Ok(out.into_owned());
        }
        let last = err
            .lines()
            .rfind(|line| !line.trim().is_empty())
            .unwrap_or("it says nothing");
        Err(anyhow!("{}", last.trim_start_matches("windrow: ")))
    }

    fn token(&self) -> Result<Option<Secret>> {
        let options = self.hooks.config_get()?;
        let Some(uri) = options.get("api-token").and_then(Value::as_str) else {
            return Ok(None);
        };
        let token = crate::gather::token(self.hooks, uri);
        token
            .map(Some)
            .map_err(|why| anyhow!("cannot read the secret of option api-token: {why}"))
    }
}

/// A value as one line of a result; what is not known is empty.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The keys of `get-table-status`: everything but the lists.
fn summary(answer: &str) -> Result<Results> {
    let answer: BTreeMap<String, Value> =
        serde_json::from_str(answer).context("cannot read windrow's answer")?;
    Ok(answer
        .into_iter()
        .filter(|(_, value)| !value.is_array() && !value.is_object())
        .map(|(key, value)| (key, text(&value)))
        .collect())
}

fn lag(answer: &str) -> Result<Results> {
    let answer: Value = serde_json::from_str(answer).context("cannot read windrow's answer")?;
    const KEYS: [&str; 7] = [
        "partition",
        "next-offset",
        "end-offset",
        "lag",
        "watermark",
        "idle",
        "held-by",
    ];
    let lanes = answer["lanes"].as_array().into_iter().flatten();
    let partitions: Vec<Value> = lanes
        .map(|lane| {
            KEYS.iter()
                .map(|key| ((*key).to_owned(), lane[*key].clone()))
                .collect()
        })
        .collect();
    let count = partitions.len();
    let mut results = fit(
        "partitions",
        &partitions.iter().map(Value::to_string).collect::<Vec<_>>(),
        false,
    );
    results.insert("count".to_owned(), count.to_string());
    results.insert("lag".to_owned(), text(&answer["lag"]));
    results.insert("topic".to_owned(), text(&answer["topic"]));
    Ok(results)
}

fn list(answer: &str, key: &str, limit: u64) -> Result<Results> {
    let answer: BTreeMap<String, Box<RawValue>> =
        serde_json::from_str(answer).context("cannot read windrow's answer")?;
    let items: Vec<Box<RawValue>> = match answer.get(key) {
        Some(raw) => serde_json::from_str(raw.get()).context("cannot read windrow's answer")?,
        None => Vec::new(),
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = items.len() > limit
        || answer
            .get("truncated")
            .is_some_and(|raw| raw.get() == "true");
    Ok(fit(
        key,
        &items
            .iter()
            .take(limit)
            .map(|item| item.get().to_owned())
            .collect::<Vec<_>>(),
        more,
    ))
}

/// Numbers pass as they are written: a JSON library would lose digits of decimals.
fn rows(answer: &str) -> Result<Results> {
    let rows: Rows = serde_json::from_str(answer).context("cannot read windrow's answer")?;
    let items: Vec<Box<RawValue>> =
        serde_json::from_str(rows.rows.get()).context("cannot read windrow's answer")?;
    let mut results = fit(
        "rows",
        &items
            .iter()
            .map(|item| item.get().to_owned())
            .collect::<Vec<_>>(),
        rows.truncated,
    );
    results.insert("table".to_owned(), rows.table);
    results.insert("columns".to_owned(), rows.columns.join(", "));
    Ok(results)
}

/// As many as fit, as one JSON text beside `count` and `truncated`.
fn fit(key: &str, items: &[String], more: bool) -> Results {
    let mut text = String::from("[");
    let mut count = 0;
    for item in items {
        if text.len() + item.len() > LIST_MAX_BYTES {
            break;
        }
        text += if count == 0 { "" } else { "," };
        text += item;
        count += 1;
    }
    text += "]";
    Results::from([
        (key.to_owned(), text),
        ("count".to_owned(), count.to_string()),
        (
            "truncated".to_owned(),
            (more || count < items.len()).to_string(),
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_one_line_each() {
        let results = summary(
            r#"{"table":"default.t","state":"counting","lag":null,"rows":7,"lanes":[],"windows":[]}"#,
        )
        .unwrap();
        assert_eq!(results["rows"], "7");
        assert_eq!(results["lag"], "");
        assert!(!results.contains_key("lanes"));
    }

    #[test]
    fn a_long_list_is_cut_at_an_item_and_says_so() {
        let items = vec![format!("\"{}\"", "x".repeat(999)); 100];
        let results = fit("rows", &items, false);
        assert_eq!(
            (results["count"].as_str(), results["truncated"].as_str()),
            ("59", "true")
        );
        let back: Vec<String> = serde_json::from_str(&results["rows"]).unwrap();
        assert_eq!(back.len(), 59);
    }

    #[test]
    fn decimals_keep_their_digits() {
        let answer = r#"{"table":"default.t","columns":["a"],"rows":[{"a":0.10000000000000000001}],"count":1,"truncated":false}"#;
        assert_eq!(
            rows(answer).unwrap()["rows"],
            r#"[{"a":0.10000000000000000001}]"#
        );
    }

    #[test]
    fn windows_are_cut_at_the_limit() {
        let results = list(
            r#"{"windows":[{"a":1},{"a":2}],"count":2,"truncated":false}"#,
            "windows",
            1,
        )
        .unwrap();
        assert_eq!(
            (results["windows"].as_str(), results["truncated"].as_str()),
            (r#"[{"a":1}]"#, "true")
        );
    }
}
