//! What a compiler does not see: headers, the border of the pure core, and that the documents say what is there.

use clap::CommandFactory;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use windrow::cli::Cli;

/// Files of `src/` that do I/O; all in `src/io/` do.
const EDGES: [&str; 7] = ["cli.rs", "demo.rs", "driver.rs", "parts.rs", "main.rs", "print.rs", "reload.rs"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display()))
}

/// Every file below a folder, without what is built, fetched or hidden.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("readable") {
        let path = entry.expect("readable").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if name.starts_with('.') && name != ".ci" || name == "target" || name.starts_with("__pycache__") {
            continue;
        }
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
}

fn all_files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    files(root(), &mut found);
    found.sort();
    assert!(found.len() > 50, "the repository is here");
    found
}

/// The files of the pure core: name and text without its tests.
fn pure() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for path in all_files().iter().filter(|p| p.parent() == Some(&root().join("src"))) {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if name.ends_with(".rs") && !EDGES.contains(&name.as_str()) {
            let all = text(path);
            found.push((name, all.split("#[cfg(test)]").next().expect("a first part").to_owned()));
        }
    }
    assert!(found.len() > 20, "the core is here");
    found
}

#[test]
fn every_file_says_first_what_it_is() {
    for path in all_files() {
        let begins: &[&str] = match path.extension().and_then(|e| e.to_str()) {
            Some("rs") => &["//! "],
            Some("sql") => &["-- "],
            Some("py") => &["\"\"\"", "# "],
            Some("sh" | "toml" | "yaml" | "txt") => &["# "],
            Some("md") => &["# "],
            _ if path.ends_with("Makefile") || path.ends_with(".ci/run") => &["# "],
            _ => continue,
        };
        let text = text(&path);
        let first = text.lines().find(|line| !line.starts_with("#!/")).unwrap_or_default();
        assert!(begins.iter().any(|b| first.starts_with(b)), "{}: {first}", path.display());
    }
}

#[test]
fn the_core_is_pure() {
    let forbidden = [
        "std::fs",
        "std::net::Tcp",
        "std::net::Udp",
        "std::net::ToSocketAddrs",
        "std::thread",
        "std::process",
        "std::env",
        "std::io",
        "Instant::now",
        "SystemTime",
        "tokio::",
        "println!",
        "print!(",
        "dbg!",
        "unsafe",
        "Mutex",
        "tracing::",
    ];
    for (name, text) in pure() {
        for (n, line) in text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
            for word in forbidden {
                assert!(!line.contains(word), "src/{name}:{}: {word} does not belong here: {line}", n + 1);
            }
            assert!(!line.starts_with("static "), "src/{name}:{}: state belongs to the engine", n + 1);
        }
    }
}

#[test]
fn dependencies_point_one_way() {
    // What may know a module; the core knows no edge, and only the driver knows the engine.
    let known_by: [(&str, &[&str]); 4] =
        [("io", &[]), ("driver", &[]), ("engine", &[]), ("merger", &["engine.rs"])];
    let stages =
        ["time.rs", "record.rs", "shape.rs", "window.rs", "watermark.rs", "row.rs", "ledger.rs", "json.rs"];
    for (name, text) in pure().iter().filter(|(name, _)| name != "lib.rs") {
        for (module, who) in known_by {
            let knows = text.contains(&format!("crate::{module}"));
            assert!(!knows || who.contains(&name.as_str()), "src/{name} must not know {module}");
        }
        for module in ["lane", "commit", "partial", "checkpoint", "config", "status", "file"] {
            let knows = text.contains(&format!("use crate::{module}"));
            assert!(!knows || !stages.contains(&name.as_str()), "src/{name} must not know {module}");
        }
    }
    for path in all_files().iter().filter(|p| p.starts_with(root().join("src/io"))) {
        let text = text(path);
        assert!(!text.contains("crate::driver") && !text.contains("crate::engine"), "{}", path.display());
    }
}

#[test]
fn no_file_speaks_of_one_machine() {
    // In pieces, so that this file is not one that says it.
    let forbidden = [
        ["/ho", "me/"].concat(),
        ["/ro", "ot/"].concat(),
        ["/wo", "rk/"].concat(),
        ["index", "-url"].concat(),
        ["replace", "-with"].concat(),
    ];
    for path in all_files() {
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        for word in &forbidden {
            assert!(!text.contains(word), "{} says {word}", path.display());
        }
    }
    let sources: BTreeSet<String> =
        text("Cargo.lock").lines().filter(|line| line.starts_with("source = ")).map(str::to_owned).collect();
    let one = sources.len() == 1 && sources.iter().all(|s| s.starts_with("source = \"registry+"));
    assert!(one, "everything comes from the one registry: {sources:?}");
}

/// The words that follow `before` in the code of a document: in `backticks` and in blocks.
fn words_after(document: &str, before: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut block = false;
    for line in document.lines() {
        if line.starts_with("```") {
            block = !block;
            continue;
        }
        let code: Vec<&str> = if block { vec![line] } else { line.split('`').skip(1).step_by(2).collect() };
        for code in code {
            if let Some(rest) = code.trim().strip_prefix(before) {
                let word: String = rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
                found.insert(word);
            }
        }
    }
    found.retain(|word| !word.is_empty() && !word.starts_with('-'));
    found
}

#[test]
fn documents_name_targets_verbs_settings_and_files_that_are_there() {
    let makefile = text("Makefile");
    let verbs: BTreeSet<String> = Cli::command().get_subcommands().map(|c| c.get_name().to_owned()).collect();
    for name in ["README.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "CHANGELOG.md"] {
        let document = text(name);
        for target in words_after(&document, "make ") {
            assert!(makefile.contains(&format!("\n{target}:")), "{name}: make {target}");
        }
        for verb in words_after(&document, "windrow ") {
            assert!(verbs.contains(&verb), "{name}: windrow {verb}");
        }
    }
    let readme = text("README.md");
    for verb in &verbs {
        assert!(
            readme.contains(&format!("windrow {verb}")) || verb == "help",
            "README.md leaves out windrow {verb}"
        );
    }
    let mut section = String::new();
    for line in text("windrow.example.yaml").lines().filter(|line| !line.starts_with('#')) {
        let key = line.trim().split(':').next().expect("a key");
        let path = match (line.starts_with(' '), line.trim_end().ends_with(':')) {
            (false, true) => {
                section = format!("{key}.");
                continue;
            }
            (true, _) => section.clone() + key,
            (false, false) => key.to_owned(),
        };
        assert!(readme.contains(&format!("`{path}`")), "README.md leaves out the setting {path}");
    }
    let architecture = text("ARCHITECTURE.md");
    for path in all_files().iter().filter(|p| p.extension().is_some_and(|e| e == "rs")) {
        let Ok(name) = path.strip_prefix(root().join("src")) else { continue };
        let name = name.with_extension("").display().to_string();
        let known = architecture.contains(&format!("`{name}`"))
            || name == "lib"
            || name.ends_with("mod")
            || name.ends_with("tests");
        assert!(known, "ARCHITECTURE.md leaves out {}", path.display());
    }
}
