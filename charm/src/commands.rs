//! A test of every command and option that a message of the charm names: each must exist.
//!
//! What it reads: the text literals of `charm/src` (without those of tests), and the descriptions
//! in `metadata.yaml`, `actions.yaml`, `config.yaml` and `charm/alerts.yaml`.

use serde_yaml::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The verbs of Juju's own command line that messages use.
const JUJU_VERBS: [&str; 12] = [
    "add-secret",
    "config",
    "debug-log",
    "grant-secret",
    "integrate",
    "model-config",
    "refresh",
    "remove-relation",
    "run",
    "show-unit",
    "status",
    "update-secret",
];

/// Settings of a model that messages name.
const MODEL_SETTINGS: [&str; 3] = ["juju-http-proxy", "juju-https-proxy", "juju-no-proxy"];

/// Actions of other charms that messages name.
const FOREIGN_ACTIONS: [&str; 1] = ["sync-s3-credentials"];

/// Options of other charms that messages name.
const FOREIGN_OPTIONS: [&str; 4] = ["bucket", "credentials", "endpoint", "region"];

/// What exists.
struct Known {
    actions: BTreeSet<String>,
    options: BTreeSet<String>,
    endpoints: BTreeSet<String>,
    /// The verbs of the program `windrow`.
    verbs: BTreeSet<String>,
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: impl AsRef<Path>) -> String {
    let path = repository().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display()))
}

fn keys(value: &Value) -> BTreeSet<String> {
    let keys = value.as_mapping().expect("a map").keys();
    keys.map(|key| key.as_str().expect("a name").to_owned())
        .collect()
}

impl Known {
    fn read() -> Self {
        let yaml = |name: &str| serde_yaml::from_str::<Value>(&read(name)).expect("YAML");
        let metadata = yaml("metadata.yaml");
        Self {
            actions: keys(&yaml("actions.yaml")),
            options: keys(&yaml("config.yaml")["options"]),
            endpoints: &keys(&metadata["requires"]) | &keys(&metadata["provides"]),
            verbs: verbs_of_windrow(),
        }
    }

    /// What is wrong with a command line, such as `juju run windrow/0 resume`.
    fn check(&self, command: &str) -> Result<(), String> {
        let words: Vec<&str> = command.split_whitespace().collect();
        match words.as_slice() {
            ["windrow", verb, ..] => exists(&self.verbs, "verb", verb),
            ["juju", "config", app, rest @ ..] => {
                is_ours(app)?;
                let settings: Vec<&str> = rest
                    .iter()
                    .map(|word| word.split_once('=').map_or(*word, |(option, _)| option))
                    .collect();
                // These stand for the name of another application.
                if ["{}", "{remote}"].contains(app)
                    && settings
                        .iter()
                        .all(|option| FOREIGN_OPTIONS.contains(option))
                {
                    return Ok(());
                }
                if settings.is_empty() {
                    return Err("it sets no option".to_owned());
                }
                settings
                    .iter()
                    .try_for_each(|option| exists(&self.options, "option", option))
            }
            ["juju", "run", unit, action, ..] => {
                if !unit.contains('/') && *unit != "{unit}" {
                    return Err(format!("\"{unit}\" is not a unit"));
                }
                if FOREIGN_ACTIONS.contains(action) {
                    return Ok(());
                }
                exists(&self.actions, "action", action)
            }
            ["juju", "integrate", ours, _] => match ours.split_once(':') {
                Some((app, endpoint)) => {
                    is_ours(app)?;
                    exists(&self.endpoints, "endpoint", endpoint)
                }
                None => Err("it names no endpoint".to_owned()),
            },
            ["juju", "show-unit", _, "--endpoint", endpoint] => {
                exists(&self.endpoints, "endpoint", endpoint)
            }
            ["juju", "model-config", setting] => {
                let (name, _) = setting.split_once('=').ok_or("it sets nothing")?;
                let known = MODEL_SETTINGS.map(str::to_owned);
                exists(&BTreeSet::from(known), "setting of a model", name)
            }
            ["juju", "debug-log", "--include", _] => Ok(()),
            ["juju", "refresh", app, "--revision=REVISION"] => is_ours(app),
            ["juju", "update-secret", _, value] if value.contains('=') => Ok(()),
            ["juju", "grant-secret" | "remove-relation", _, _]
            | ["juju", "status", _]
            | ["juju", "add-secret", _, ..] => Ok(()),
            ["juju", verb, ..] if JUJU_VERBS.contains(verb) => {
                Err("it has too few words, or too many".to_owned())
            }
            _ => Err("there is no such verb".to_owned()),
        }
    }
}

/// Placeholders, such as `{first}`, are filled in with names that exist.
fn exists(known: &BTreeSet<String>, kind: &str, name: &str) -> Result<(), String> {
    if is_placeholder(name) || known.contains(name) {
        Ok(())
    } else {
        Err(format!("there is no {kind} \"{name}\""))
    }
}

fn is_placeholder(word: &str) -> bool {
    word.starts_with('{') && word.ends_with('}')
}

fn is_ours(app: &str) -> Result<(), String> {
    if is_placeholder(app) || ["APP", "windrow-k8s"].contains(&app) {
        Ok(())
    } else {
        Err(format!("\"{app}\" is not our application"))
    }
}

/// The variants of `enum Verb`, as clap names them.
fn verbs_of_windrow() -> BTreeSet<String> {
    let text = read("src/run/cli.rs");
    let (_, verbs) = text.split_once("pub enum Verb {\n").expect("the verbs");
    let (verbs, _) = verbs.split_once("\n}").expect("their end");
    verbs
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()))
        .map(|line| {
            let name = line.split(|c: char| !c.is_ascii_alphanumeric()).next();
            let mut kebab = String::new();
            for c in name.unwrap_or_default().chars() {
                if c.is_ascii_uppercase() && !kebab.is_empty() {
                    kebab.push('-');
                }
                kebab.push(c.to_ascii_lowercase());
            }
            kebab
        })
        .collect()
}

/// The files below a folder that end in `.rs`.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let is_test = path.ends_with("commands.rs") || path.ends_with("tests.rs");
        if path.is_dir() {
            sources(&path, found);
        } else if !is_test && path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
}

/// The texts that the charm shows, each with the file that it is in.
fn messages() -> Vec<(String, String)> {
    let mut files = Vec::new();
    sources(&repository().join("charm/src"), &mut files);
    let mut all = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a text");
        let code = text.split("#[cfg(test)]\nmod tests").next();
        let name = file.file_name().expect("a name").to_string_lossy();
        for literal in literals(code.unwrap_or_default()) {
            all.push((name.clone().into_owned(), literal));
        }
    }
    for name in [
        "metadata.yaml",
        "actions.yaml",
        "config.yaml",
        "charm/alerts.yaml",
    ] {
        let yaml = serde_yaml::from_str(&read(name)).expect("YAML");
        // Prose is broken into lines anywhere, also within a command. An indented line is one of
        // an example, and stands for itself.
        texts(&yaml, &mut |text| {
            let text = text.replace("\n\n", "\0").replace("\n    ", "\0");
            for part in text.split('\0') {
                all.push((name.to_owned(), part.replace('\n', " ")));
            }
        });
    }
    all
}

/// The text literals of Rust code. Comments and characters are passed over.
fn literals(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = code;
    while let Some(at) = rest.find(['"', '/', '\'']) {
        let before = &rest[..at];
        rest = &rest[at..];
        if rest.starts_with("//") {
            rest = &rest[rest.find('\n').unwrap_or(rest.len())..];
        } else if rest.starts_with("'\"'") {
            rest = &rest[3..];
        } else if let Some(text) = rest.strip_prefix('"') {
            let hashes = before.len() - before.trim_end_matches('#').len();
            let is_raw = before.trim_end_matches('#').ends_with('r');
            let end = if is_raw {
                text.find(&format!("\"{}", "#".repeat(hashes)))
            } else {
                end_of_literal(text)
            };
            let end = end.expect("a literal has an end");
            found.push(unescaped(&text[..end]));
            rest = &text[end + 1..];
        } else {
            rest = &rest[1..];
        }
    }
    found
}

fn end_of_literal(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.find(|c| {
        let ends = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    })
}

/// Joins lines that end in a backslash; other escapes do not matter here.
fn unescaped(literal: &str) -> String {
    let mut lines = literal.split("\\\n");
    let first = lines.next().unwrap_or_default().to_owned();
    lines.fold(first, |all, line| all + line.trim_start())
}

fn texts(yaml: &Value, found: &mut impl FnMut(&str)) {
    match yaml {
        Value::String(text) => found(text),
        Value::Sequence(items) => items.iter().for_each(|item| texts(item, found)),
        Value::Mapping(map) => map.values().for_each(|value| texts(value, found)),
        _ => {}
    }
}

/// The command lines in a text. A command ends where the sentence goes on.
fn commands(text: &str) -> Vec<String> {
    // In alerts, `{{ $labels.juju_application }}` is one word.
    let mut text = text.replace("{{ $labels.juju_unit }}", "{unit}/0");
    while let Some((before, rest)) = text.split_once("{{ ") {
        let (_, after) = rest.split_once(" }}").expect("a template has an end");
        text = format!("{before}{{label}}{after}");
    }
    let mut found = Vec::new();
    for (begin, program) in [
        ("juju ", "juju"),
        ("run: windrow ", "windrow"),
        ("`windrow ", "windrow"),
        ("{binary} ", "windrow"),
    ] {
        for (at, _) in text.match_indices(begin) {
            let is_word = text[..at].ends_with(|c: char| c.is_alphanumeric() || "-_./".contains(c));
            let rest = &text[at + begin.len()..];
            if is_word || !rest.starts_with(|c: char| c.is_ascii_lowercase()) {
                continue;
            }
            let end = [";", "\n", "`", ")", ", "]
                .iter()
                .filter_map(|end| rest.find(end))
                .min();
            let command = rest[..end.unwrap_or(rest.len())].trim_end_matches('.');
            found.push(format!("{program} {command}"));
        }
    }
    found
}

/// The options that a text names after the word "option".
fn options(text: &str) -> Vec<String> {
    text.match_indices("option ")
        .filter_map(|(at, word)| {
            let rest = &text[at + word.len()..];
            let end = rest.find(|c: char| !c.is_ascii_lowercase() && c != '-');
            let name = &rest[..end.unwrap_or(rest.len())];
            (!name.is_empty()).then(|| name.to_owned())
        })
        .collect()
}

#[test]
fn every_command_and_option_in_a_message_exists() {
    let known = Known::read();
    assert!(known.verbs.contains("run") && known.verbs.contains("check-config"));
    let mut wrong = Vec::new();
    let mut verbs = BTreeSet::new();
    for (file, text) in messages() {
        for command in commands(&text) {
            if let Err(why) = known.check(&command) {
                wrong.push(format!("{file}: {command}: {why}"));
            }
            verbs.extend(command.split(' ').nth(1).map(str::to_owned));
        }
        for option in options(&text) {
            if !known.options.contains(&option) && !FOREIGN_OPTIONS.contains(&option.as_str()) {
                wrong.push(format!("{file}: option {option}: there is no such option"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for verb in JUJU_VERBS {
        assert!(
            verbs.contains(verb),
            "no message names juju {verb} any more"
        );
    }
    assert!(verbs.contains("notify"), "{verbs:?}");
}

#[test]
fn a_command_that_does_not_exist_is_found() {
    let known = Known::read();
    let check = |text: &str, why: &str| {
        let found = commands(text);
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        let result = known.check(&found[0]).err().unwrap_or_default();
        assert_eq!(result, why, "{text}");
    };
    check("run: juju run {app}/leader resume, then wait", "");
    check(
        "to go on run: juju run {app}/leader go-on",
        "there is no action \"go-on\"",
    );
    check("run: juju run {app} resume", "\"{app}\" is not a unit");
    check("run: juju config {app} window=5s; it", "");
    check(
        "run: juju config {app} windows=5s",
        "there is no option \"windows\"",
    );
    check(
        "run: juju integrate {app}:kafka kafka-k8s",
        "there is no endpoint \"kafka\"",
    );
    check("run: juju resume {app}", "there is no such verb");
    check("in: juju run {{ $labels.juju_unit }} get-lag", "");
    check("run: windrow query", "there is no verb \"query\"");
    assert!(commands("Juju runs it; juju-log; juju >= 3.5").is_empty());
    assert_eq!(options("set option table-name; options"), ["table-name"]);
    assert_eq!(
        literals("a(\"x \\\n   y\", '\"', r#\"z\"#) // \"no\"\n"),
        ["x y", "z"]
    );
}
