//! Every command that a message advises exists: the verbs and options of `windrow`, and the actions
//! and options of the charm. Commands in documents are the tidy test's.

use clap::{Command, CommandFactory};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use windrow::run::cli::Cli;

/// Where messages stand: in the text of the three crates, and in the rules of the charm's alerts.
const MESSAGES: [&str; 4] = ["core/src", "src", "charm/src", "charm/alerts.yaml"];

/// What stands before a command of windrow in a message, to tell it from `windrow` as a name.
const BEFORE: [&str; 8] = [
    "run: ", "run ", "see ", "see: ", "until: ", "with ", "\\\"", "`",
];

/// Juju's own commands that messages may advise.
const JUJU: [&str; 14] = [
    "add-secret",
    "config",
    "debug-log",
    "grant-secret",
    "integrate",
    "model-config",
    "refresh",
    "remove-relation",
    "run",
    "scale-application",
    "show-unit",
    "status",
    "trust",
    "update-secret",
];

/// Actions of other charms.
const OTHER_CHARMS: [&str; 1] = ["sync-s3-credentials"];
/// Options of other charms that messages name.
const OTHER_OPTIONS: [&str; 2] = ["endpoint", "region"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files_below(path: &Path, found: &mut Vec<PathBuf>) {
    if path.is_file() {
        found.push(path.to_owned());
    } else if let Ok(entries) = std::fs::read_dir(path) {
        for entry in entries {
            files_below(&entry.expect("readable").path(), found);
        }
    }
}

/// A file's text without comments and tests. A string that goes on in the next line is one line.
fn messages(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let mut out = String::new();
    let mut goes_on = false;
    for line in code.lines() {
        if line.trim_start().starts_with("//") {
            continue;
        }
        let line = if goes_on { line.trim_start() } else { line };
        let begun = line.strip_suffix('\\');
        goes_on = begun.is_some();
        out += begun.unwrap_or(line);
        if !goes_on {
            out.push('\n');
        }
    }
    out
}

/// Name and messages of each file, and the help texts.
fn all_messages() -> Vec<(String, String)> {
    let mut files = Vec::new();
    for folder in MESSAGES {
        files_below(&root().join(folder), &mut files);
    }
    // The charm's own test of commands names some that do not exist.
    files.retain(|path| !path.ends_with("tests.rs") && !path.ends_with("commands.rs"));
    files.sort();
    let mut found: Vec<(String, String)> = files
        .iter()
        .filter_map(|path| Some((path, std::fs::read_to_string(path).ok()?)))
        .map(|(path, text)| {
            let name = path.strip_prefix(root()).expect("below it");
            (name.display().to_string(), messages(&text))
        })
        .collect();
    let mut cli = Cli::command();
    found.push(("help".to_owned(), cli.render_long_help().to_string()));
    for verb in cli.get_subcommands_mut() {
        let name = format!("help of {}", verb.get_name());
        found.push((name, verb.render_long_help().to_string()));
    }
    found
}

/// The words after `windrow`, up to the end of the command.
fn windrow_commands(line: &str) -> Vec<Vec<&str>> {
    let is_command = |at: &usize| BEFORE.iter().any(|before| line[..*at].ends_with(before));
    line.match_indices("windrow ")
        .map(|(at, _)| at)
        .filter(is_command)
        .map(|at| {
            let rest = &line[at + "windrow ".len()..];
            let end = rest
                .find([';', ',', '"', '`', '\\', ')', '('])
                .unwrap_or(rest.len());
            rest[..end].split_whitespace().collect()
        })
        .collect()
}

/// What is wrong with a command of windrow, if anything.
fn fault(words: &[&str], cli: &Command) -> Option<String> {
    let name = words.first()?;
    let Some(verb) = cli.find_subcommand(name) else {
        return Some(format!("there is no verb {name}"));
    };
    let options: BTreeSet<String> = verb
        .get_arguments()
        .chain(cli.get_arguments())
        .filter_map(|argument| Some(format!("--{}", argument.get_long()?)))
        .collect();
    words
        .iter()
        .filter_map(|word| word.strip_prefix("--"))
        .map(|word| format!("--{}", word.split('=').next().unwrap_or(word)))
        .find(|option| !options.contains(option))
        .map(|option| format!("windrow {name} has no option {option}"))
}

#[test]
fn messages_name_only_verbs_and_options_of_windrow_that_exist() {
    let cli = Cli::command();
    let (mut found, mut faults) = (0, Vec::new());
    for (name, text) in all_messages() {
        for line in text.lines() {
            for words in windrow_commands(line) {
                found += 1;
                if let Some(fault) = fault(&words, &cli) {
                    faults.push(format!("{name}: {fault}: {}", line.trim()));
                }
            }
        }
    }
    assert!(found >= 5, "only {found} commands were found");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The keys below `options`, or all keys of a file where there is no such key.
fn yaml_keys(file: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(root().join(file)).expect("the charm's files are here");
    let all: serde_yaml::Value = serde_yaml::from_str(&text).expect("YAML");
    let keys = all.get("options").unwrap_or(&all);
    let keys = keys.as_mapping().expect("a map").keys();
    keys.filter_map(|key| Some(key.as_str()?.to_owned()))
        .collect()
}

/// The text with each placeholder as the word `APP`: `{}`, `{app}` and `{{ $labels.x }}`.
fn without_placeholders(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(begin) = rest.find('{') {
        let close = if rest[begin..].starts_with("{{") {
            "}}"
        } else {
            "}"
        };
        let Some(end) = rest[begin..].find(close) else {
            break;
        };
        out += &rest[..begin];
        out += "APP";
        rest = &rest[begin + end + close.len()..];
    }
    out + rest
}

/// Whether a text can be the name of an action or an option, and not a placeholder.
fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

/// What is wrong with a command of Juju, given the words after `juju`.
fn juju_fault(
    words: &[&str],
    actions: &BTreeSet<String>,
    options: &BTreeSet<String>,
) -> Option<String> {
    let verb = words.first()?;
    if !JUJU.contains(verb) {
        return Some(format!("messages may not advise juju {verb}"));
    }
    let rest = words.get(2).copied().unwrap_or_default();
    match *verb {
        "run" if is_name(rest) && !actions.contains(rest) && !OTHER_CHARMS.contains(&rest) => {
            Some(format!("there is no action {rest}"))
        }
        "config" => {
            let option = rest.split('=').next().unwrap_or_default();
            (is_name(option) && !options.contains(option) && !OTHER_OPTIONS.contains(&option))
                .then(|| format!("there is no option {option}"))
        }
        _ => None,
    }
}

#[test]
fn messages_name_only_actions_and_options_of_the_charm_that_exist() {
    let (actions, options) = (yaml_keys("actions.yaml"), yaml_keys("config.yaml"));
    assert!(actions.contains("resume") && options.contains("topic-name"));
    let (mut found, mut faults) = (0, Vec::new());
    for (name, text) in all_messages() {
        for line in text.lines() {
            let plain = without_placeholders(line);
            for (at, _) in plain.match_indices("juju ") {
                let rest = &plain[at + "juju ".len()..];
                let end = rest.find([';', ',', '"', '`', '\\']).unwrap_or(rest.len());
                let words: Vec<&str> = rest[..end].split_whitespace().collect();
                found += 1;
                if let Some(fault) = juju_fault(&words, &actions, &options) {
                    faults.push(format!("{name}: {fault}: {}", line.trim()));
                }
            }
        }
    }
    assert!(found >= 8, "only {found} commands were found");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn commands_are_found_in_messages_and_judged() {
    let cli = Cli::command();
    let judge = |line: &str| -> Vec<Option<String>> {
        windrow_commands(line)
            .iter()
            .map(|words| fault(words, &cli))
            .collect()
    };
    assert_eq!(judge("paused; run: windrow resume"), [None]);
    assert_eq!(judge("start it with \\\"windrow run\\\", or"), [None]);
    assert_eq!(judge("run windrow rows --of late; or"), [None]);
    assert_eq!(judge("windrow at {address} refuses"), []);
    assert_eq!(
        judge("run windrow mend --restore, or"),
        [Some("there is no verb mend".to_owned())]
    );
    assert_eq!(
        judge("run: windrow resume --now"),
        [Some("windrow resume has no option --now".to_owned())]
    );
    let actions = BTreeSet::from(["resume".to_owned()]);
    let options = BTreeSet::from(["window".to_owned()]);
    let juju = |words: &[&str]| juju_fault(words, &actions, &options).is_none();
    assert!(juju(&["run", "APP/leader", "resume"]) && juju(&["config", "APP", "window=10s"]));
    assert!(!juju(&["run", "APP/leader", "adopt"]) && !juju(&["config", "APP", "windw=10s"]));
    assert!(!juju(&["frobnicate"]));
}
