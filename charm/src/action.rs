//! Actions. Each is asked of the running windrow over loopback; when it does not answer, of its
//! program, which Pebble runs; and when that cannot be run either, a sentence says why not. Why a
//! windrow does not answer, Pebble knows: it has the state of the service and its last words.
//!
//! Every unit can be asked, because what is committed is in the catalog: a unit that stands by
//! looks there. What is not committed yet, such as the lag, only the unit that counts knows.

use crate::hookcmd::HookCommands;
use crate::layer::{BINARY_DIR, LAST_WORDS, SERVICE, USER_ID, binary_name};
use crate::pebble::{ExecOutput, Pebble, PebbleError};
use crate::rendered::{SECRETS_FILE, SETTINGS_FILE, token_in_force};
use crate::workload::{self, Answer};
use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use windrow_core::settings::config::Secret;
use windrow_core::shown::status::{Rows, State};
use windrow_core::shown::tables::LANE_COLUMNS;
use windrow_core::values::cause::{Trouble, name_or_empty};

/// The most that a list in a result may hold: Juju keeps results for a long time, and shows them in
/// a terminal.
const LIST_MAX_BYTES: usize = 60_000;

/// The most rows that windrow gives at once.
const LIMIT_MAX: u64 = 1000;

/// How long the program may run to answer a question.
const PROGRAM: Duration = Duration::from_secs(25);

/// How long it may run to restore the table. It is more than the 30 min that windrow allows the
/// transaction (`Limits::LONG` in `src/io/catalog/session.rs`), so that windrow's own error, which
/// says more, comes first. A table of 300,000 files took a minute.
const RESTORE: Duration = Duration::from_mins(35);

/// What an action answers: keys in kebab-case, and a text for each.
type Results = BTreeMap<String, String>;

/// Runs an action and gives its results to Juju. An action that cannot be done fails with a
/// sentence.
///
/// # Errors
/// A hook command failed.
pub fn run(name: &str, charm_dir: &Path, hooks: &HookCommands, pebble: &Pebble) -> Result<()> {
    let parameters = hooks.action_get()?;
    let asker = Asker {
        charm_dir,
        token: read_token(pebble),
        pebble,
    };
    match answer(name, &parameters, &asker) {
        Ok(results) => hooks.action_set(&results)?,
        Err(error) => hooks.action_fail(&format!("{error:#}"))?,
    }
    Ok(())
}

fn answer(name: &str, parameters: &BTreeMap<String, Value>, asker: &Asker<'_>) -> Result<Results> {
    let limit = parameters
        .get("limit")
        .and_then(Value::as_u64)
        .unwrap_or(20)
        .clamp(1, LIMIT_MAX);
    match name {
        "get-table-status" => {
            let mut results = summary(&asker.read_status()?)?;
            if results.contains_key("verification") {
                results.extend(asker.differences());
            }
            Ok(results)
        }
        "list-tables" => list(&asker.read_tables()?, "tables", limit),
        "show-windows" => list(&asker.read("/v1/windows", &["windows"])?, "windows", limit),
        "get-lag" => lag(&asker.read_status()?),
        "preview-table" => rows(&asker.read_rows("", limit)?),
        "list-rejects" => {
            let late = parameters
                .get("late")
                .and_then(Value::as_bool)
                .unwrap_or(false);
            rows(&asker.read_rows(if late { "late" } else { "rejects" }, limit)?)
        }
        "pause" | "resume" => {
            let answer: Value = parse(&asker.command(name)?)?;
            let paused = text(&answer["paused"]);
            Ok(Results::from([("paused".to_owned(), paused)]))
        }
        "compact-table" => {
            let dry_run = parameters.get("dry-run").and_then(Value::as_bool);
            if dry_run.unwrap_or(false) {
                let plan = asker.run_program(&["compact", "--dry-run"])?;
                let mut results = list(&plan, "merges", LIMIT_MAX)?;
                results.insert("drops".to_owned(), text(&parse::<Value>(&plan)?["drops"]));
                return Ok(results);
            }
            summary(&asker.compact()?)
        }
        "verify-table" => {
            let answer: Value = parse(&asker.verify(parameters)?)?;
            Ok(Results::from([("id".to_owned(), text(&answer["id"]))]))
        }
        "restore-table" => {
            let from_manifests = parameters
                .get("from-manifests")
                .and_then(Value::as_bool)
                .unwrap_or(false);
            let done = asker.restore(from_manifests)?;
            Ok(Results::from([(
                "restored".to_owned(),
                done.trim().to_owned(),
            )]))
        }
        _ => bail!("cannot run action \"{name}\": this charm has no such action"),
    }
}

/// Parses an answer of windrow.
fn parse<'a, T: serde::Deserialize<'a>>(answer: &'a str) -> Result<T> {
    serde_json::from_str(answer).context("cannot read windrow's answer")
}

/// What can answer.
struct Asker<'a> {
    charm_dir: &'a Path,
    /// The token that the running windrow wants; `None` where it wants none.
    token: Option<Secret>,
    pebble: &'a Pebble,
}

/// The token in the file that the running windrow reads. The secret of option `api-token` is not
/// asked for: it may be newer than what the last hook has written, or hold no token that windrow
/// can use, and then windrow goes on without one.
fn read_token(pebble: &Pebble) -> Option<Secret> {
    // Without Pebble, windrow may still answer whoever needs no token.
    let files = pebble.read_files(&[SECRETS_FILE]).ok()?;
    let text = |bytes| Secret::new(String::from_utf8(bytes).unwrap_or_default());
    let files = files.into_iter().map(|(path, bytes)| (path, text(bytes)));
    token_in_force(&files.collect())
}

/// The fields of a status that a unit which stands by knows best.
const OF_STANDBY: [&str; 4] = ["state", "cause", "reason", "owner"];

impl Asker<'_> {
    /// The JSON text that the running windrow gives for `path`; if it does not answer or stands by,
    /// the one that `windrow VERB` prints, which looks into the catalog.
    fn read(&self, path: &str, verb: &[&str]) -> Result<String> {
        if is_standby(&self.running_status()) {
            return self.run_program(verb);
        }
        match workload::get(path, self.token.as_ref()) {
            Ok(answer) => answer_text(answer),
            Err(_) => self.run_program(verb),
        }
    }

    /// The JSON text of windrow's status. A unit that stands by has no counts of its own: it says
    /// who counts, and the catalog says what was counted.
    fn read_status(&self) -> Result<String> {
        let answer = match workload::get("/v1/status", self.token.as_ref()) {
            Ok(answer) => answer_text(answer)?,
            Err(_) => return self.read_silent_status(),
        };
        let running: Value = parse(&answer)?;
        if !is_standby(&running) {
            return Ok(answer);
        }
        let mut status: BTreeMap<String, Value> = parse(&self.run_program(&["status"])?)?;
        for field in OF_STANDBY {
            status.insert(field.to_owned(), running[field].clone());
        }
        if running["verification"].is_string() {
            let verification = running["verification"].clone();
            status.insert("verification".to_owned(), verification);
        }
        serde_json::to_string(&status).context("cannot write a status")
    }

    /// The JSON text of the status of a windrow that does not answer: what the catalog says was
    /// counted, and what Pebble says of the service. Of a windrow that has ended, its last words
    /// are told even where the catalog cannot be asked, because that is often why it has ended.
    fn read_silent_status(&self) -> Result<String> {
        let catalog = self.run_program(&["status"]);
        let Some(silence) = self.silence() else {
            return catalog;
        };
        let mut status: BTreeMap<String, Value> = match (catalog, &silence) {
            (Ok(answer), _) => parse(&answer)?,
            (Err(_), Silence::Ended(_)) => BTreeMap::new(),
            (Err(error), _) => return Err(error),
        };
        silence.put_over(|key, value| {
            status.insert(key.to_owned(), value);
        });
        serde_json::to_string(&status).context("cannot write a status")
    }

    /// The JSON text of the tables. Each has the state and the reason of this unit's windrow.
    fn read_tables(&self) -> Result<String> {
        let running = self.running_status();
        let silence = if is_standby(&running) {
            None
        } else {
            match workload::get("/v1/tables", self.token.as_ref()) {
                Ok(answer) => return answer_text(answer),
                Err(_) => self.silence(),
            }
        };
        let mut answer: Value = parse(&self.run_program(&["tables"])?)?;
        for table in answer["tables"].as_array_mut().into_iter().flatten() {
            match &silence {
                Some(silence) => silence.put_over(|key, value| table[key] = value),
                None if is_standby(&running) => {
                    for field in OF_STANDBY {
                        table[field] = running[field].clone();
                    }
                }
                None => {}
            }
        }
        Ok(answer.to_string())
    }

    /// Why windrow does not answer; `None` where Pebble does not say that either.
    fn silence(&self) -> Option<Silence> {
        let service = self.pebble.services().ok()?.remove(SERVICE);
        Some(match service.as_deref() {
            Some("backoff" | "error") => {
                let words = self.pebble.logs(SERVICE, LAST_WORDS).unwrap_or_default();
                let mut lines = words.iter().rev();
                let trouble = lines.find_map(|line| Trouble::of_last_line(line));
                Silence::Ended(trouble.unwrap_or_else(|| {
                    "windrow ended and is started again; see: kubectl logs -c windrow".into()
                }))
            }
            Some("active") => Silence::Starting,
            _ => Silence::Down,
        })
    }

    /// What the running windrow says about itself; null where it does not answer.
    fn running_status(&self) -> Value {
        let status = workload::get("/v1/status", self.token.as_ref()).ok();
        status
            .filter(|answer| answer.code == 200)
            .and_then(|answer| serde_json::from_str(&answer.text).ok())
            .unwrap_or_default()
    }

    /// Makes windrow pause or resume; gives the JSON text of the answer.
    fn command(&self, verb: &str) -> Result<String> {
        match workload::post(&format!("/v1/{verb}"), &[], self.token.as_ref()) {
            Ok(answer) => answer_text(answer),
            Err(_) => self.run_program(&[verb]),
        }
    }

    /// Makes windrow merge files now; gives the JSON text of how far it is.
    fn compact(&self) -> Result<String> {
        let answer = workload::post("/v1/compact", &[], self.token.as_ref());
        let answer = answer.map_err(|error| {
            anyhow!(
                "windrow does not answer, and nothing else merges files: {error}; see the unit's \
                 status"
            )
        })?;
        answer_text(answer)
    }

    /// Starts a verification in the running windrow; gives the JSON text of the answer. A program
    /// that is run for an action could not go on after it.
    fn verify(&self, parameters: &BTreeMap<String, Value>) -> Result<String> {
        let value = |name: &str| parameters.get(name).map(text).unwrap_or_default();
        let deep = parameters.get("deep").and_then(Value::as_bool);
        let query = [
            ("from", value("from")),
            ("to", value("to")),
            ("deep", deep.unwrap_or(false).to_string()),
            ("rate", value("rate")),
        ];
        let answer = workload::post("/v1/verify", &query, self.token.as_ref());
        answer_text(answer.context(
            "cannot verify the table, because windrow does not answer; see the unit's status",
        )?)
    }

    /// What the last verification of the running windrow has found: the differences as a list of
    /// JSON. Nothing where there is none.
    fn differences(&self) -> Results {
        let report = workload::get("/v1/verify", self.token.as_ref());
        let report = report.ok().filter(Answer::is_success);
        let report = report.and_then(|answer| serde_json::from_str::<Value>(&answer.text).ok());
        let Some(report) = report.filter(|report| report["differences"] != 0) else {
            return Results::new();
        };
        let findings = report["findings"].as_array();
        let findings: Vec<String> = findings
            .into_iter()
            .flatten()
            .map(Value::to_string)
            .collect();
        let list = fit("verification-findings", &findings, false);
        let mut results: Results = list
            .into_iter()
            .filter(|(key, _)| key == "verification-findings")
            .collect();
        let differences = text(&report["differences"]);
        results.insert("verification-differences".to_owned(), differences);
        results
    }

    /// The JSON text of the newest rows: of the table, where `of` is empty, else of its side table
    /// `late` or `rejects`.
    fn read_rows(&self, of: &str, limit: u64) -> Result<String> {
        let limit_text = limit.to_string();
        let mut verb = vec!["rows", "--limit", limit_text.as_str()];
        if !of.is_empty() {
            verb.extend(["--of", of]);
        }
        let status = self.running_status();
        match status["table"].as_str() {
            Some("") => bail!("console mode keeps no rows; set option table-name"),
            Some(table) => {
                let table = if of.is_empty() {
                    table.to_owned()
                } else {
                    format!("{table}__{of}")
                };
                let path = format!("/v1/tables/{table}/rows?limit={limit}");
                match workload::get(&path, self.token.as_ref()) {
                    Ok(answer) => answer_text(answer),
                    Err(_) => self.run_program(&verb),
                }
            }
            None => self.run_program(&verb),
        }
    }

    /// Writes the table's entries in Hive again, and before that windrow's journal where
    /// `from_manifests` says so; gives what the program prints.
    fn restore(&self, from_manifests: bool) -> Result<String> {
        let verb = ["restore", "--from-manifests"];
        let verb = if from_manifests {
            &verb[..]
        } else {
            &verb[..1]
        };
        let output = self.exec(verb, RESTORE)?.map_err(|error| {
            if matches!(error, PebbleError::Overdue(_)) {
                return anyhow!(
                    "windrow restore was not done after {} min and was ended; PostgreSQL undoes \
                     what it had begun; look whether PostgreSQL is short of CPU or disk, and run \
                     the action again",
                    RESTORE.as_secs() / 60
                );
            }
            anyhow!("windrow's program cannot be run: {error}; see the unit's status")
        })?;
        printed(&output)
    }

    /// Runs the program to ask the catalog, and gives what it prints.
    fn run_program(&self, verb: &[&str]) -> Result<String> {
        let output = self.exec(verb, PROGRAM)?.map_err(|error| {
            if matches!(error, PebbleError::Overdue(_)) {
                return anyhow!(
                    "windrow does not answer, and its program was ended because the catalog gave \
                     it no answer within {} s; look whether PostgreSQL is up and not short of CPU \
                     or disk, and run the action again",
                    PROGRAM.as_secs()
                );
            }
            anyhow!(
                "windrow does not answer, and its program cannot be run to ask the catalog: \
                 {error}; see the unit's status"
            )
        })?;
        printed(&output)
    }

    /// Runs the program in the workload's container, as the user that windrow runs as, for at most
    /// this time.
    fn exec(&self, verb: &[&str], limit: Duration) -> Result<Result<ExecOutput, PebbleError>> {
        let digest = std::fs::read_to_string(self.charm_dir.join("windrow.sha256"))
            .context("the charm is incomplete; deploy it again")?;
        let mut command = vec![format!("{BINARY_DIR}/{}", binary_name(digest.trim()))];
        command.extend(["--config", SETTINGS_FILE, "--output", "json"].map(str::to_owned));
        command.extend(verb.iter().map(|word| (*word).to_owned()));
        Ok(self.pebble.exec(&command, USER_ID, limit))
    }
}

/// What the program has printed, or the error in its last line.
fn printed(output: &ExecOutput) -> Result<String> {
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

/// Why windrow does not answer.
enum Silence {
    /// It has ended by itself, for this reason.
    Ended(Trouble),
    /// It runs, and does not answer yet.
    Starting,
    /// It does not run, because the charm has not started it or has stopped it.
    Down,
}

impl Silence {
    /// Sets what is known over what the catalog says, field by field. The program that asks the
    /// catalog knows of no service, so its reason is for those who have no charm.
    fn put_over(&self, mut set: impl FnMut(&str, Value)) {
        let reason = match self {
            Silence::Ended(trouble) => {
                set("state", State::Failed.name().into());
                set("cause", name_or_empty(trouble.cause).into());
                trouble.text.as_str()
            }
            Silence::Starting => "windrow does not answer yet; see the unit's status",
            Silence::Down => "windrow does not run; see the unit's status",
        };
        set("reason", reason.into());
    }
}

/// Whether this is the status of a unit that stands by.
fn is_standby(status: &Value) -> bool {
    status["state"] == State::Standby.name()
}

/// The text of an answer, or the reason that windrow gives for refusing.
fn answer_text(answer: Answer) -> Result<String> {
    if answer.is_success() {
        return Ok(answer.text);
    }
    let error: Value = serde_json::from_str(&answer.text).unwrap_or_default();
    let error = error["error"]
        .as_str()
        .unwrap_or("its answer cannot be understood; look at: kubectl logs -c windrow");
    Err(anyhow!("windrow refuses: {error}"))
}

/// A value as the text of a result; what is not known is an empty text.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The results of `get-table-status`: everything except the lists.
fn summary(answer: &str) -> Result<Results> {
    let answer: BTreeMap<String, Value> = parse(answer)?;
    Ok(answer
        .into_iter()
        .filter(|(_, value)| !value.is_array() && !value.is_object())
        .map(|(key, value)| (key, text(&value)))
        .collect())
}

/// The results of `get-lag`, from a status: how far each topic partition is, and which one the
/// others wait for.
fn lag(answer: &str) -> Result<Results> {
    let answer: Value = parse(answer)?;
    if answer["lanes"].is_null() && answer["state"] == State::Failed.name() {
        bail!("windrow ended: {}", text(&answer["reason"]));
    }
    let partitions: Vec<String> = answer["lanes"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|lane| {
            let fields: Value = LANE_COLUMNS
                .iter()
                .map(|key| ((*key).to_owned(), lane[*key].clone()))
                .collect();
            fields.to_string()
        })
        .collect();
    let mut results = fit("partitions", &partitions, false);
    // The count is that of the topic, although the list may be cut.
    results.insert("count".to_owned(), partitions.len().to_string());
    for key in ["lag", "topic", "frontier-holder", "frontier-held-because"] {
        results.insert(key.to_owned(), text(&answer[key]));
    }
    Ok(results)
}

/// The results of an action that lists what windrow has under `key`.
fn list(answer: &str, key: &str, limit: u64) -> Result<Results> {
    let answer: BTreeMap<String, Box<RawValue>> = parse(answer)?;
    let items: Vec<Box<RawValue>> = match answer.get(key) {
        Some(raw) => parse(raw.get())?,
        None => Vec::new(),
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let was_cut = answer
        .get("truncated")
        .is_some_and(|raw| raw.get() == "true");
    let more = items.len() > limit || was_cut;
    let items = &items[..items.len().min(limit)];
    Ok(fit(key, &texts(items), more))
}

/// The results of an action that shows rows. Numbers pass as they are written, because a JSON
/// library would lose digits of decimals.
fn rows(answer: &str) -> Result<Results> {
    let rows: Rows = parse(answer)?;
    let items: Vec<Box<RawValue>> = parse(rows.rows.get())?;
    let mut results = fit("rows", &texts(&items), rows.truncated);
    results.insert("table".to_owned(), rows.table);
    results.insert("columns".to_owned(), rows.columns.join(", "));
    Ok(results)
}

fn texts(items: &[Box<RawValue>]) -> Vec<String> {
    items.iter().map(|item| item.get().to_owned()).collect()
}

/// As many items as fit, as one JSON text beside `count` and `truncated`. `more` says that there
/// are further items, which were not given.
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
        let results =
            summary(r#"{"table":"default.t","state":"counting","lag":null,"rows":7,"lanes":[]}"#)
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
        let answer = r#"{"table":"default.t","columns":["a"],"count":1,"truncated":false,
            "rows":[{"a":0.10000000000000000001}]}"#;
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
