//! What a compiler does not see: headers, the border of the pure core, and where things come from.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The rooms and those that each may use, besides itself. What stands further down may use what stands further up.
const ROOMS: [(&str, &[&str]); 6] = [
    ("values", &[]),
    ("count", &["values"]),
    ("table", &["values"]),
    ("engine", &["values", "count", "table"]),
    ("settings", &["values", "count", "table"]),
    ("shown", &["values", "count", "table", "engine", "settings"]),
];

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn text(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display()))
}

/// Every file below a folder, without what is built, fetched or hidden.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("readable") {
        let path = entry.expect("readable").path();
        let name = path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        if name.starts_with('.') && name != ".ci"
            || name == "target"
            || name.starts_with("__pycache__")
        {
            continue;
        }
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
}

pub(crate) fn all_files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    files(root(), &mut found);
    found.sort();
    assert!(found.len() > 50, "the repository is here");
    found
}

/// A crate's source files: path below `folder`, and text without its tests.
fn sources(folder: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for path in all_files()
        .iter()
        .filter(|p| p.starts_with(root().join(folder)))
    {
        let name = path
            .strip_prefix(root().join(folder))
            .expect("below it")
            .display()
            .to_string();
        if name.ends_with(".rs") && !name.ends_with("tests.rs") {
            let all = text(path);
            found.push((
                name,
                all.split("#[cfg(test)]")
                    .next()
                    .expect("a first part")
                    .to_owned(),
            ));
        }
    }
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
        let first = text
            .lines()
            .find(|line| !line.starts_with("#!/"))
            .unwrap_or_default();
        assert!(
            begins.iter().any(|b| first.starts_with(b)),
            "{}: {first}",
            path.display()
        );
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
    let core = sources("core/src");
    assert!(core.len() > 25, "the core is here");
    for (name, text) in core {
        for (n, line) in text
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
        {
            for word in forbidden {
                assert!(
                    !line.contains(word),
                    "core/src/{name}:{}: {word} does not belong here: {line}",
                    n + 1
                );
            }
            assert!(
                !line.starts_with("static "),
                "core/src/{name}:{}: state belongs to the engine",
                n + 1
            );
        }
    }
}

/// Which of `rooms` a text names with `crate::`.
fn rooms_used<'r>(text: &str, rooms: &[&'r str]) -> Vec<&'r str> {
    rooms
        .iter()
        .filter(|room| text.contains(&format!("crate::{room}::")))
        .copied()
        .collect()
}

#[test]
fn no_import_runs_upward() {
    let rooms = ROOMS.map(|(room, _)| room);
    for (name, text) in sources("core/src")
        .iter()
        .filter(|(name, _)| name != "lib.rs")
    {
        let (room, _) = name
            .split_once('/')
            .expect("every file of the core is in a room");
        let (_, may_use) = ROOMS
            .iter()
            .find(|(r, _)| *r == room)
            .expect("a known room");
        for used in rooms_used(text, &rooms) {
            assert!(
                used == room || may_use.contains(&used),
                "core/src/{name} must not use {used}"
            );
        }
    }
    for (name, text) in sources("src")
        .iter()
        .filter(|(name, _)| name.starts_with("io/"))
    {
        assert!(
            rooms_used(text, &["run"]).is_empty(),
            "src/{name} must not use run"
        );
        assert!(
            !text.contains("windrow_core::engine"),
            "src/{name} must not use the engine"
        );
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
        let Ok(text) = std::fs::read_to_string(&path) else {
            continue;
        };
        for word in &forbidden {
            assert!(!text.contains(word), "{} says {word}", path.display());
        }
    }
    let sources: BTreeSet<String> = text("Cargo.lock")
        .lines()
        .filter(|line| line.starts_with("source = "))
        .map(str::to_owned)
        .collect();
    let one = sources.len() == 1
        && sources
            .iter()
            .all(|s| s.starts_with("source = \"registry+"));
    assert!(one, "everything comes from the one registry: {sources:?}");
}
