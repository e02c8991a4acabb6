//! Mistakes in the engine itself: does the auditor notice them? Production code stays clean. A copy
//! of the core is made in a scratch folder, with all mutations of `mutations.rs` in it, each behind
//! a number. The copy is built once, and runs once for each number.
//!
//! `make test-mutations` does this and prints which seed caught each mutation, and how many of the
//! first 500 seeds do. `WINDROW_MUTATION='loss|replay'` runs only those with one of these texts in
//! their names. An ordinary run of the tests checks only that every mutation still finds its
//! place in the source.

use crate::mutations::{ALL, Mutation};
use crate::seeds_that_fail;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A mutation must be caught by one of this many seeds.
pub const SEEDS_MAX: u64 = 2000;
/// How many seeds are run to tell how often a mutation is caught.
const SEEDS_COUNTED: u64 = 500;

/// The environment variable that chooses the mutation in the copy.
const CHOICE: &str = "WINDROW_MUTANT";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

impl Mutation {
    fn source(&self) -> PathBuf {
        Path::new("core/src").join(self.file)
    }

    /// Where the expression stands in the text of its file.
    ///
    /// # Errors
    /// It does not stand there exactly once.
    fn place(&self, text: &str) -> Result<Range<usize>, String> {
        let (before, rest) = self.from.split_once('«').unwrap_or(("", self.from));
        let (expression, after) = rest.split_once('»').unwrap_or((rest, ""));
        let whole = format!("{before}{expression}{after}");
        let mut found = text.match_indices(&whole);
        match (found.next(), found.next()) {
            (Some((at, _)), None) => {
                let start = at + before.len();
                Ok(start..start + expression.len())
            }
            (first, _) => Err(format!(
                "the mutation \"{}\" must find its text once in {}, and finds it {}: write it anew \
                 in tests/sim/mutations.rs",
                self.name,
                self.file,
                if first.is_none() {
                    "nowhere"
                } else {
                    "more than once"
                }
            )),
        }
    }
}

#[test]
fn every_mutation_of_the_engine_still_finds_its_place() {
    let mut wrong = Vec::new();
    for mutation in ALL {
        let text = fs::read_to_string(root().join(mutation.source())).expect("a source file");
        wrong.extend(mutation.place(&text).err());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(ALL.len() >= 15, "there are {} mutations", ALL.len());
}

/// A source text with all mutations of its file in it, each behind its number.
fn mutated(text: &str, mutations: &[(usize, &Mutation)]) -> String {
    type Choices<'a> = Vec<(usize, &'a str)>;
    let mut places: BTreeMap<usize, (Range<usize>, Choices<'_>)> = BTreeMap::new();
    for (number, mutation) in mutations {
        let place = mutation.place(text).expect("checked by the fast test");
        let (there, choices) = places
            .entry(place.start)
            .or_insert_with(|| (place.clone(), Vec::new()));
        assert_eq!(
            *there, place,
            "mutations of overlapping texts: {}",
            mutation.name
        );
        choices.push((*number, mutation.to));
    }
    let (mut out, mut done) = (String::new(), 0);
    for (place, choices) in places.into_values() {
        assert!(done <= place.start, "mutations of overlapping texts");
        out.push_str(&text[done..place.start]);
        let original = &text[place.clone()];
        let statement = original.ends_with(';');
        out.push_str(if statement { "" } else { "(" });
        for (number, to) in choices {
            let _ = write!(out, "if crate::is_mutant({number}) {{ {to} }} else ");
        }
        let _ = write!(out, "{{ {original} }}");
        out.push_str(if statement { "" } else { ")" });
        done = place.end;
    }
    out.push_str(&text[done..]);
    out
}

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        fs::create_dir_all(to).expect("a scratch folder");
        for entry in fs::read_dir(from).expect("a folder") {
            let name = entry.expect("an entry").file_name();
            copy(&from.join(&name), &to.join(&name));
        }
        return;
    }
    fs::copy(from, to).expect("a scratch file");
}

/// Writes the copy of the core with all mutations in it.
fn write_copy(scratch: &Path) {
    for part in [
        "core",
        "tests/sim",
        "tests/hands.rs",
        "tests/rng.rs",
        "tests/catalog_cases.rs",
    ] {
        let (from, to) = (root().join(part), scratch.join(part));
        fs::create_dir_all(to.parent().expect("a part")).expect("a scratch folder");
        copy(&from, &to);
    }
    copy(&root().join("Cargo.lock"), &scratch.join("Cargo.lock"));
    // The workspace without the program and the charm.
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("the manifest");
    let lines = manifest.split_inclusive('\n').map(|line| match line {
        line if line.starts_with("members = ") => "members = [\"core\"]\n",
        line if line.starts_with("exclude = ") => "",
        line => line,
    });
    let manifest: String = lines.collect();
    let kept = manifest
        .split_inclusive("\n\n")
        .filter(|part| part.contains("[workspace") || part.contains("[profile"));
    fs::write(scratch.join("Cargo.toml"), kept.collect::<String>()).expect("a scratch file");
    let mut of_file: BTreeMap<PathBuf, Vec<(usize, &Mutation)>> = BTreeMap::new();
    for (number, mutation) in ALL.iter().enumerate() {
        of_file
            .entry(mutation.source())
            .or_default()
            .push((number, mutation));
    }
    for (file, mutations) in of_file {
        let text = fs::read_to_string(root().join(&file)).expect("a source file");
        fs::write(scratch.join(file), mutated(&text, &mutations)).expect("a scratch file");
    }
    let lib = scratch.join("core/src/lib.rs");
    let text = fs::read_to_string(&lib).expect("a source file");
    let choice = format!(
        "{text}\n#[allow(clippy::all, missing_docs)]\npub fn is_mutant(number: usize) -> bool {{\n\
         static CHOSEN: std::sync::OnceLock<usize> = std::sync::OnceLock::new();\n\
         let read = || std::env::var(\"{CHOICE}\").map_or(usize::MAX, |n| n.parse().unwrap());\n\
         number == *CHOSEN.get_or_init(read)\n}}\n"
    );
    fs::write(lib, choice).expect("a scratch file");
}

/// Builds the copy, and returns its program of this test.
fn build(scratch: &Path) -> PathBuf {
    let output = Command::new(env!("CARGO"))
        .args([
            "test",
            "--no-run",
            "--offline",
            "-p",
            "windrow-core",
            "--test",
            "sim",
        ])
        .arg("--message-format=json")
        .current_dir(scratch)
        // Not the target folder of this build: there the copy would have the same names.
        .env("CARGO_TARGET_DIR", scratch.join("target"))
        .env("RUSTFLAGS", std::env::var("RUSTFLAGS").unwrap_or_default())
        .output()
        .expect("cargo runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let program = said.lines().rev().find_map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(PathBuf::from(line.get("executable")?.as_str()?))
    });
    program.unwrap_or_else(|| {
        let rendered = said.lines().filter_map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).ok()?;
            let message = line.get("message")?;
            (message.get("level")?.as_str()? == "error")
                .then(|| message.get("rendered")?.as_str().map(str::to_owned))?
        });
        panic!(
            "the copy cannot be built:\n{}{}",
            rendered.collect::<String>(),
            String::from_utf8_lossy(&output.stderr)
        )
    })
}

/// What the seeds made of one mutation: how the line of the table ends.
fn run(program: &Path, number: Option<usize>) -> Result<String, String> {
    let mut command = Command::new(program);
    command
        .args([
            "mutants::how_many_seeds_fail",
            "--exact",
            "--ignored",
            "--nocapture",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    if let Some(number) = number {
        command.env(CHOICE, number.to_string());
    }
    let output = command.output().expect("the copy runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let line = said.lines().find_map(|line| line.strip_prefix("seeds: "));
    match line {
        Some(line) if line.starts_with("caught") => Ok(line.to_owned()),
        Some(line) => Err(line.to_owned()),
        // It was ended by the system, or never said anything.
        None => Ok(format!("caught: the program ended with {}", output.status)),
    }
}

#[test]
#[ignore = "it builds a copy of the core; make test-mutations runs it"]
fn every_mutation_of_the_engine_is_caught() {
    let scratch = root().join("target/mutations");
    write_copy(&scratch);
    let program = build(&scratch);
    assert!(
        run(&program, None).is_err(),
        "without a mutation no seed may fail"
    );
    let only = std::env::var("WINDROW_MUTATION").unwrap_or_default();
    let mut missed = Vec::new();
    for (number, mutation) in ALL.iter().enumerate() {
        if !only.split('|').any(|part| mutation.name.contains(part)) {
            continue;
        }
        let (Ok(line) | Err(line)) = &run(&program, Some(number));
        println!("{}: {line}", mutation.name);
        if !line.starts_with("caught") {
            missed.push(mutation.name);
        }
    }
    assert!(
        missed.is_empty(),
        "not caught in {SEEDS_MAX} seeds:\n{}",
        missed.join("\n")
    );
}

/// Runs in the copy.
#[test]
#[ignore = "it runs for each mutation, in the copy"]
fn how_many_seeds_fail() {
    std::panic::set_hook(Box::new(|_| {}));
    let failed = seeds_that_fail(0..SEEDS_COUNTED, usize::MAX);
    if let Some((first, why)) = failed.first() {
        let why = why.lines().next().unwrap_or_default();
        let why: String = why.chars().take(120).collect();
        println!(
            "seeds: caught by seed {first}, and by {} of {SEEDS_COUNTED} ({why})",
            failed.len()
        );
        return;
    }
    match seeds_that_fail(SEEDS_COUNTED..SEEDS_MAX, 1).first() {
        Some((first, why)) => println!("seeds: caught by seed {first} ({why})"),
        None => println!("seeds: NOT caught in {SEEDS_MAX}"),
    }
}
