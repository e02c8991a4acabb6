//! The documents say what is there: their commands, files, options and settings exist, and the
//! demo prints what the README shows.
//!
//! Only names and shapes are checked here, not whether a sentence is true.

use crate::tidy::{all_files, root, text};
use clap::{CommandFactory, Parser};
use std::collections::BTreeSet;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use windrow::run::cli::Cli;

/// Paths, below the root, of every document for people.
fn documents() -> Vec<PathBuf> {
    let found: Vec<PathBuf> = all_files()
        .iter()
        .map(|path| path.strip_prefix(root()).expect("below it").to_owned())
        .filter(|path| path.extension().is_some_and(|e| e == "md"))
        .collect();
    assert!(found.len() > 8, "the documents are here: {found:?}");
    found
}

/// The commands and names that stand in a document's code: each line of a block, and each piece of
/// text in `backticks`.
///
/// Comments behind `#` are cut off, and so are assignments like `WINDROW_SIM_SEED=17` before a
/// command.
fn code(document: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut in_block = false;
    for line in document.lines() {
        if line.starts_with("```") {
            in_block = !in_block;
        } else if in_block {
            found.push(line.to_owned());
        } else {
            found.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    found
        .iter()
        .map(|code| {
            let mut code = code.split(" #").next().expect("a first part").trim();
            while let Some((first, rest)) = code.split_once(' ')
                && first.starts_with("WINDROW_")
                && first.contains('=')
            {
                code = rest.trim();
            }
            code.to_owned()
        })
        .collect()
}

/// The words of every command in `code` that begins with `command`, without these.
///
/// Example: `make demo ARGS='--for 5s'` gives, for `["make"]`, the words `demo` and
/// `ARGS=--for 5s`.
fn commands(code: &[String], command: &[&str]) -> Vec<Vec<String>> {
    code.iter()
        .map(|line| words(line))
        .filter(|words| words.len() > command.len() && words.starts_with(&owned(command)))
        .map(|words| words[command.len()..].to_vec())
        .collect()
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// A command line as a shell would split it, as far as documents need it: single and double quotes.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    for c in line.chars() {
        match (quote, c) {
            (None, '\'' | '"') => quote = Some(c),
            (Some(q), c) if q == c => quote = None,
            (None, ' ') => words.push(String::new()),
            (_, c) => words.last_mut().expect("one at least").push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// The keys of a YAML file's map, or of the map at `key` in it.
fn yaml_keys(file: &str, key: Option<&str>) -> BTreeSet<String> {
    let all: serde_yaml::Value = serde_yaml::from_str(&text(file)).expect("YAML");
    let map = key.map_or(Some(&all), |key| all.get(key));
    map.and_then(|map| map.as_mapping())
        .unwrap_or_else(|| panic!("{file} has no map {key:?}"))
        .keys()
        .map(|key| key.as_str().expect("a string").to_owned())
        .collect()
}

#[test]
fn documents_name_make_targets_that_are_there() {
    let makefile = text("Makefile");
    for document in documents() {
        for words in commands(&code(&text(&document)), &["make"]) {
            assert!(
                makefile.contains(&format!("\n{}:", words[0])),
                "{}: make {}",
                document.display(),
                words[0]
            );
            // `make demo` hands its ARGS to the verb.
            if let Some(args) = words.get(1).and_then(|word| word.strip_prefix("ARGS=")) {
                let line = format!("windrow {} {args}", words[0]);
                assert_parses(&document, &line.split(' ').collect::<Vec<_>>());
            }
        }
    }
}

fn assert_parses(document: &Path, words: &[&str]) {
    if let Err(error) = Cli::try_parse_from(words) {
        panic!("{}: {}: {error}", document.display(), words.join(" "));
    }
}

#[test]
fn documents_name_verbs_and_arguments_that_windrow_takes() {
    for document in documents() {
        for words in commands(&code(&text(&document)), &["windrow"]) {
            // `windrow demo: ...` is what it prints, and `windrow --help` and its kin end early.
            if words[0].ends_with(':') || words[0].starts_with("--") {
                continue;
            }
            let mut line = vec!["windrow"];
            line.extend(words.iter().map(String::as_str));
            assert_parses(&document, &line);
        }
    }
    let running = text("docs/running.md");
    for verb in Cli::command().get_subcommands() {
        let name = verb.get_name();
        assert!(
            running.contains(&format!("\nwindrow {name}")) || name == "help",
            "docs/running.md leaves out windrow {name}"
        );
    }
}

#[test]
fn documents_name_tests_that_are_there() {
    for document in documents() {
        for words in commands(&code(&text(&document)), &["cargo", "test"]) {
            let after = |option: &str| {
                let at = words.iter().position(|word| word == option)?;
                words.get(at + 1).map(String::as_str)
            };
            let manifest = match after("-p") {
                None | Some("windrow") => "Cargo.toml",
                Some("windrow-core") => "core/Cargo.toml",
                Some("windrow-charm") => "charm/Cargo.toml",
                Some(other) => panic!("{}: no package {other}", document.display()),
            };
            let Some(test) = after("--test") else {
                continue;
            };
            assert!(
                text(manifest).contains(&format!("[[test]]\nname = \"{test}\"\n")),
                "{}: {manifest} has no test {test}",
                document.display()
            );
        }
    }
}

#[test]
fn documents_name_options_actions_and_endpoints_of_the_charm() {
    let options = yaml_keys("config.yaml", Some("options"));
    let actions = yaml_keys("actions.yaml", None);
    let mut endpoints = yaml_keys("metadata.yaml", Some("requires"));
    endpoints.extend(yaml_keys("metadata.yaml", Some("provides")));
    for document in documents() {
        let code = code(&text(&document));
        for words in commands(&code, &["juju", "config", "windrow"]) {
            for word in &words {
                let option = word.split('=').next().expect("a first part");
                assert!(
                    options.contains(option),
                    "{}: juju config windrow {option}",
                    document.display()
                );
            }
        }
        for words in commands(&code, &["juju", "run", "windrow/0"]) {
            assert!(
                actions.contains(&words[0]),
                "{}: juju run windrow/0 {}",
                document.display(),
                words[0]
            );
        }
        for words in commands(&code, &["juju", "integrate"]) {
            let endpoint = words[0].strip_prefix("windrow:").unwrap_or("none");
            assert!(
                endpoints.contains(endpoint),
                "{}: juju integrate {}",
                document.display(),
                words[0]
            );
        }
    }
    let charm = text("docs/charm.md");
    for endpoint in endpoints {
        assert!(
            charm.contains(&format!("`{endpoint}`")),
            "docs/charm.md leaves out the endpoint {endpoint}"
        );
    }
    for action in actions {
        assert!(
            charm.contains(&format!("juju run windrow/0 {action}")),
            "docs/charm.md leaves out the action {action}"
        );
    }
}

#[test]
fn documents_name_files_that_are_there() {
    let files: Vec<String> = all_files()
        .iter()
        .map(|path| {
            let path = path.strip_prefix(root()).expect("below it");
            path.display().to_string()
        })
        .collect();
    for document in documents() {
        let folder = document.parent().expect("a folder");
        let content = text(&document);
        for name in code(&content).iter().filter(|name| is_path(name)) {
            let found = if name.contains('/') {
                root().join(name).exists() || root().join(folder).join(name).exists()
            } else {
                files
                    .iter()
                    .any(|file| file == name || file.ends_with(&format!("/{name}")))
            };
            assert!(found, "{}: there is no `{name}`", document.display());
        }
        for link in content
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            let is_file = !link.contains("://") && !link.starts_with('#');
            assert!(
                !is_file || root().join(folder).join(link).exists(),
                "{}: there is no {link}",
                document.display()
            );
        }
    }
}

/// Whether a piece of code is the name of a file or folder of this repository: it lies in one of
/// its folders, or ends as only its own files do.
///
/// `windrow.yaml` is not, as it is the user's file, nor is `part.parquet`.
fn is_path(code: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "./_-".contains(c);
    if !code.chars().all(plain) || code.starts_with('/') {
        return false;
    }
    let folders = [
        "core/", "src/", "charm/", "tests/", "docs/", ".ci/", ".cargo/",
    ];
    let endings = [".rs", ".md", ".py", ".sh", ".sql", ".toml"];
    folders.iter().any(|folder| code.starts_with(folder))
        || endings
            .iter()
            .any(|ending| code.ends_with(ending) && code.len() > ending.len())
}

#[test]
fn the_first_settings_that_are_shown_are_right() {
    let document = text("docs/running.md");
    let blocks: Vec<&str> = document
        .split("```yaml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    let folder = tempfile::tempdir().expect("a folder");
    for (name, content) in ["windrow.yaml", "secrets.yaml"].iter().zip(blocks) {
        assert!(content.starts_with(&format!("# {name}")), "{content}");
        let path = folder.path().join(name);
        std::fs::write(&path, content).expect("written");
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("its mode is set");
    }
    let run = Command::new(env!("CARGO_BIN_EXE_windrow"))
        .arg("check-config")
        .current_dir(folder.path())
        .output()
        .expect("windrow runs");
    let errors = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{errors}");
}

/// Runs the program on these two files, and gives its exit code and what it says of errors.
fn run_with(verb: &str, settings: &str, secrets: &str) -> (Option<i32>, String) {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("secrets.yaml");
    std::fs::write(&path, secrets).expect("written");
    std::fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("its mode is set");
    let settings = format!("{settings}\nsecrets-file: {}\n", path.display());
    std::fs::write(folder.path().join("windrow.yaml"), settings).expect("written");
    let run = Command::new(env!("CARGO_BIN_EXE_windrow"))
        .arg(verb)
        .current_dir(folder.path())
        .output()
        .expect("windrow runs");
    let errors = String::from_utf8_lossy(&run.stderr).into_owned();
    (run.status.code(), errors)
}

#[test]
fn a_bad_start_ends_with_a_last_line_that_names_the_next_step() {
    let kafka = "kafka: { bootstrap: 'k:9092', topic: t }";
    for (settings, secrets, expect) in [
        ("windw: 10s", "", "did you mean \"window\"?"),
        (
            kafka,
            "kafka-username: me",
            "cannot find secret kafka-password",
        ),
        (
            kafka,
            "kafka-username: me\nkafka-password: 2024",
            "cannot read secret kafka-password: not a text; write the value in quotes",
        ),
        (kafka, "kafka-username: [", "secrets.yaml: "),
    ] {
        for verb in ["run", "check-config"] {
            let (code, errors) = run_with(verb, settings, secrets);
            assert_eq!(code, Some(2), "{errors}");
            let said = |line: &str| {
                let trouble = windrow_core::values::cause::Trouble::of_last_line(line);
                trouble.expect("a line of that form").text
            };
            let texts: Vec<String> = errors.lines().map(said).collect();
            assert!(texts.iter().any(|t| t.contains(expect)), "{errors}");
        }
    }
}

#[test]
fn check_config_names_an_optional_secret_that_is_bad() {
    let kafka = "kafka: { bootstrap: 'k:9092', topic: t, security: plaintext }";
    let (code, errors) = run_with("check-config", kafka, "api-token: 'a b'\n");
    assert_eq!(code, Some(2), "{errors}");
    assert!(
        errors.starts_with("windrow: cannot read secret api-token: "),
        "{errors}"
    );
    assert_eq!(
        run_with("check-config", kafka, "api-token: \"ab\\n\"\n").0,
        Some(0)
    );
}

#[test]
fn architecture_names_every_folder() {
    let architecture = text("ARCHITECTURE.md");
    let folders: BTreeSet<String> = all_files()
        .iter()
        .filter(|path| path.ends_with("mod.rs"))
        .map(|path| {
            let folder = path.parent().expect("a folder");
            let folder = folder.strip_prefix(root()).expect("below it");
            folder.display().to_string()
        })
        .filter(|folder| folder.starts_with("core/src/") || folder.starts_with("src/"))
        .filter(|folder| !folder.starts_with("src/io/"))
        .filter(|folder| folder.matches('/').count() <= 2)
        .collect();
    assert!(folders.len() > 5, "the folders are here: {folders:?}");
    for folder in folders {
        assert!(
            architecture.contains(&format!("`{folder}`")),
            "ARCHITECTURE.md leaves out {folder}"
        );
    }
}

/// A line of output without what differs from run to run: numbers, and how wide a column is.
///
/// Example: `| producer-0 (10.1.63.1)  | 389    |` becomes `| producer-0 (0.0.0.0) | 0 |`.
fn shape(line: &str) -> String {
    let mut shape = String::new();
    for c in line.trim_end().chars() {
        let c = if c.is_ascii_digit() { '0' } else { c };
        if !("0 -".contains(c) && shape.ends_with(c)) {
            shape.push(c);
        }
    }
    shape
}

#[test]
fn the_demo_prints_what_the_readme_shows() {
    let readme = text("README.md");
    let shown = readme
        .split("\n```\n")
        .find(|block| block.starts_with("windrow demo: "))
        .expect("README.md shows what the demo prints");

    let folder = tempfile::tempdir().expect("a folder");
    let run = Command::new(env!("CARGO_BIN_EXE_windrow"))
        .args(["demo", "--for", "5s"])
        .env("TMPDIR", folder.path())
        .output()
        .expect("the demo runs");
    let printed = String::from_utf8(run.stdout)
        .expect("text")
        .replace(&folder.path().display().to_string(), "/tmp");
    let errors = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{printed}\n{errors}");

    let printed_shapes: Vec<String> = printed.lines().map(shape).collect();
    for line in shown.lines().filter(|line| !line.is_empty()) {
        // Three dots stand for the rest of a long line.
        let found = match line.strip_suffix("...") {
            Some(begin) => {
                let begin = shape(begin);
                printed_shapes.iter().any(|p| p.starts_with(&begin))
            }
            None => printed_shapes.contains(&shape(line)),
        };
        assert!(
            found,
            "the demo does not print this line of README.md:\n{line}\nbut:\n{printed}"
        );
    }
}
