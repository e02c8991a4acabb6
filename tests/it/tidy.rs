//! What a compiler does not see: headers, the borders of the rooms, and that the documents say what
//! is there.

use crate::imports::{self, ModulePath, code_of, module_of, paths_named, without_tests};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The three crates, each with the folder of its source files.
const CRATES: [(&str, &str); 3] = [
    ("windrow_core", "core/src"),
    ("windrow", "src"),
    ("windrow_charm", "charm/src"),
];

/// The rooms of the core, each with those that it may use besides itself.
const ROOMS: [(&str, &[&str]); 8] = [
    ("values", &[]),
    ("count", &["values"]),
    ("table", &["values"]),
    ("adopt", &["values", "count", "table"]),
    ("engine", &["values", "count", "table"]),
    ("verify", &["values", "count", "table"]),
    ("settings", &["values", "count", "table"]),
    (
        "shown",
        &["values", "count", "table", "engine", "verify", "settings"],
    ),
];

/// The folder of the repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The text of a file of the repository.
pub(crate) fn text(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display()))
}

/// Adds every file below a folder to `found`, except what is built, fetched or hidden.
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

/// Every file of the repository, except what is built, fetched or hidden.
pub(crate) fn all_files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    files(root(), &mut found);
    found.sort();
    assert!(found.len() > 50, "the repository is here");
    found
}

/// The source files below a folder, without those of tests: path below that folder, and text.
fn sources(folder: &str) -> Vec<(String, String)> {
    let folder = root().join(folder);
    let mut found = Vec::new();
    for path in all_files() {
        let Ok(below) = path.strip_prefix(&folder) else {
            continue;
        };
        let name = below.display().to_string();
        if name.ends_with(".rs") && !name.ends_with("tests.rs") {
            found.push((name, text(&path)));
        }
    }
    found
}

/// Fails with everything that is wrong, not only with the first of it.
fn assert_none(what: &str, wrong: &[String]) {
    assert!(wrong.is_empty(), "{what}:\n{}", wrong.join("\n"));
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
        // The rest of `std::io` reads and writes what it is given: here, memory.
        "stdin",
        "stdout",
        "stderr",
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
        let code = without_tests(&text);
        let lines = code.lines().zip(1..);
        for (line, n) in lines.filter(|(line, _)| !line.trim_start().starts_with("//")) {
            for word in forbidden {
                assert!(
                    !line.contains(word),
                    "core/src/{name}:{n}: {word} does not belong here: {line}"
                );
            }
            assert!(
                !line.starts_with("static "),
                "core/src/{name}:{n}: state belongs to the engine"
            );
        }
    }
}

#[test]
fn the_core_depends_on_no_crate_that_does_io() {
    let forbidden = ["tokio", "rdkafka", "axum", "aws", "ureq", "hyper"];
    let manifest = text("core/Cargo.toml");
    let names: Vec<&str> = manifest
        .lines()
        .skip_while(|line| *line != "[dependencies]")
        .take_while(|line| !line.starts_with("[["))
        .filter_map(|line| line.split_once(" = "))
        .map(|(name, _)| name)
        .collect();
    assert!(names.contains(&"parquet"), "the dependencies are here");
    for name in names {
        let does_io = forbidden.iter().any(|word| name.starts_with(word));
        assert!(!does_io, "core/Cargo.toml names {name}");
    }
}

/// What each source file names: its place, its own module, and the paths.
fn named_paths() -> Vec<(String, ModulePath, BTreeSet<ModulePath>)> {
    let mut files = Vec::new();
    for (krate, folder) in CRATES {
        for (name, text) in sources(folder) {
            files.push((format!("{folder}/{name}"), module_of(krate, &name), text));
        }
    }
    let modules: BTreeSet<ModulePath> = files.iter().map(|(_, module, _)| module.clone()).collect();
    let mut others: BTreeMap<String, ModulePath> = BTreeMap::new();
    for (krate, _) in CRATES {
        others.insert(krate.to_owned(), vec![krate.to_owned()]);
    }
    let named = |(place, module, text): (String, ModulePath, String)| {
        let mut others = others.clone();
        // A `mod.rs` may name a child without `self::`.
        let children = modules
            .iter()
            .filter(|m| m.split_last().map(|l| l.1) == Some(&module[..]));
        others.extend(children.map(|m| (m[m.len() - 1].clone(), m.clone())));
        let paths = paths_named(&module, &code_of(&text), &others);
        (place, module, paths)
    };
    files.into_iter().map(named).collect()
}

#[test]
fn no_import_runs_upward() {
    let mut wrong = Vec::new();
    for (place, module, paths) in named_paths() {
        for path in paths {
            if !may_name(&module, &path) {
                wrong.push(format!("{place} must not use {}", path.join("::")));
            }
        }
    }
    assert_none("imports that run upward", &wrong);
}

/// Whether a module may name a path, by the order of the rooms.
fn may_name(module: &ModulePath, path: &ModulePath) -> bool {
    let module: Vec<&str> = module.iter().map(String::as_str).collect();
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    match (&module[..], &path[..]) {
        (["windrow_core", room, ..], ["windrow_core", used, ..]) => {
            let known = ROOMS.iter().find(|(name, _)| name == room);
            let (_, may_use) = known.expect("every file of the core is in a room");
            used == room || may_use.contains(used)
        }
        (["windrow_core", ..], [used, ..]) => *used == "windrow_core",
        (["windrow", "io", ..], ["windrow", used, ..]) => *used != "run",
        // The edges answer in values; only the driver holds a conversation with the engine.
        (["windrow", "io", ..], ["windrow_core", used, ..]) => *used != "engine",
        (["windrow_charm", ..], ["windrow_core", used, ..]) => {
            ["shown", "settings", "values"].contains(used)
        }
        _ => true,
    }
}

#[test]
fn no_files_of_a_folder_form_a_circle() {
    let files = named_paths();
    let modules: BTreeSet<&ModulePath> = files.iter().map(|(_, module, _)| module).collect();
    let is_module = |path: &[String]| modules.iter().any(|module| module.starts_with(path));
    let mut folders: BTreeMap<&[String], BTreeSet<(String, String)>> = BTreeMap::new();
    for (_, module, paths) in &files {
        for path in paths {
            let same = module.iter().zip(path).take_while(|(a, b)| a == b).count();
            // A file that is named, or else `mod.rs`. That one holds what its files share and hands
            // on what they offer, so it is no neighbor of theirs and no part of a circle.
            let node = |of: &ModulePath| match of.get(same) {
                Some(name) if is_module(&of[..=same]) => name.clone(),
                _ => "mod".to_owned(),
            };
            // Below a file there are only its own items.
            let folder = &module[..same];
            let is_folder = modules
                .iter()
                .any(|m| m.len() > same && m.starts_with(folder));
            let neighbors =
                node(module) != node(path) && node(module) != "mod" && node(path) != "mod";
            if same > 0 && is_folder && neighbors {
                let edges = folders.entry(folder).or_default();
                edges.insert((node(module), node(path)));
            }
        }
    }
    assert!(folders.len() > 5, "the folders are here");
    let circles = folders.iter().filter_map(|(folder, edges)| {
        let names = imports::circle(edges)?;
        Some(format!("{}: {}", folder.join("::"), names.join(" -> ")))
    });
    assert_none("circles", &circles.collect::<Vec<_>>());
}

#[test]
fn every_room_begins_with_its_sentence() {
    let architecture = text("ARCHITECTURE.md");
    let rows: Vec<(&str, &str)> = architecture
        .lines()
        .filter_map(|line| {
            line.strip_prefix("| `")?
                .strip_suffix(" |")?
                .split_once("` | ")
        })
        .filter(|(folder, _)| {
            *folder == "charm/src" || folder.starts_with("core/src/") || folder.starts_with("src/")
        })
        .collect();
    assert_eq!(
        rows.len(),
        ROOMS.len() + 3,
        "the table of the rooms is here: {rows:?}"
    );
    let mut wrong = Vec::new();
    for (folder, sentence) in rows {
        let first = ["mod.rs", "lib.rs"].map(|name| root().join(folder).join(name));
        let file = first
            .iter()
            .find(|path| path.is_file())
            .expect("a first file");
        let text = text(file);
        let header = text.lines().map_while(|line| line.strip_prefix("//! "));
        let header = header.collect::<Vec<_>>().join(" ");
        if !header.starts_with(sentence) {
            wrong.push(format!(
                "{folder}: \"{sentence}\" is not how \"{header}\" begins"
            ));
        }
    }
    assert_none(
        "rooms that begin with another sentence than in ARCHITECTURE.md",
        &wrong,
    );
}

/// The most lines that a source file may have, without its tests.
const LINES_MAX: usize = 600;

#[test]
fn no_source_file_is_too_long_to_read() {
    let mut wrong = Vec::new();
    for (_, folder) in CRATES {
        for (name, text) in sources(folder) {
            let lines = without_tests(&text).lines().count();
            if lines > LINES_MAX {
                wrong.push(format!("{folder}/{name}: {lines} lines without its tests"));
            }
        }
    }
    assert_none("files of more than 600 lines", &wrong);
}

#[test]
fn no_line_is_too_long_to_read() {
    let mut wrong = Vec::new();
    for path in all_files() {
        let markdown = path.extension().is_some_and(|e| e == "md");
        if !markdown && path.extension().is_none_or(|e| e != "rs") {
            continue;
        }
        let place = path.strip_prefix(root()).expect("below it").display();
        for (line, n) in text(&path).lines().zip(1..) {
            let columns_max = if markdown && line.starts_with('|') {
                120
            } else {
                100
            };
            // What a raw string or a printed table holds cannot be broken.
            let fixed = line.contains("r#\"") || line.starts_with(['+', '|']);
            if line.chars().count() > columns_max && (markdown || !fixed) {
                wrong.push(format!("{place}:{n}: {} columns", line.chars().count()));
            }
        }
    }
    assert_none(
        "lines of more than 100 columns, or table rows of more than 120",
        &wrong,
    );
}

#[test]
fn the_charm_is_not_built_with_the_program() {
    let manifest = text("charm/Cargo.toml");
    let names_it = manifest.lines().any(|line| line.starts_with("windrow ="));
    assert!(
        !names_it,
        "charm/Cargo.toml names the program: take what is needed from the core"
    );
    for (place, module, paths) in named_paths() {
        let uses_it = paths.iter().any(|path| path[0] == "windrow");
        assert!(
            module[0] != "windrow_charm" || !uses_it,
            "{place} uses the program"
        );
    }
}

#[test]
fn no_file_speaks_of_one_machine() {
    // In pieces, so that this file does not say it.
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
