//! Which modules a source file names, read from its text: `use` trees, and paths inside the code.
//! What is allowed is not known here; `tidy` decides that.
//!
//! Example: in `core/src/count/lane.rs`, the line `use crate::values::{record::Key, time};` names
//! `windrow_core::values::record::Key` and `windrow_core::values::time`. The code
//! `super::extract::Extraction` names `windrow_core::count::extract::Extraction`. Comments and
//! tests are left out.

use std::collections::{BTreeMap, BTreeSet};

/// A path from a crate's name down, such as `["windrow_core", "values", "time"]`.
pub type ModulePath = Vec<String>;

/// A file's own path: that of `core/src/count/lane.rs` is `windrow_core::count::lane`. `name` is
/// the path of the file below the `src` folder of `krate`.
pub fn module_of(krate: &str, name: &str) -> ModulePath {
    let inner = name.strip_suffix(".rs").expect("a source file");
    let steps = inner.split('/').filter(|step| {
        // These three files are the module of their folder.
        !["mod", "lib", "main"].contains(step)
    });
    [krate]
        .into_iter()
        .chain(steps)
        .map(str::to_owned)
        .collect()
}

/// A source file without its tests, which are its last part, and without the first line of any
/// other item that only tests are built with, such as `#[cfg(test)] mod tests;`.
pub fn without_tests(text: &str) -> String {
    let mut lines = text.lines();
    let mut kept = String::new();
    while let Some(line) = lines.next() {
        if line.trim() != "#[cfg(test)]" {
            kept.extend([line, "\n"]);
            continue;
        }
        let mut item = lines.next().unwrap_or_default();
        while item.trim_start().starts_with("#[") {
            while !item.trim_end().ends_with(']') {
                item = lines.next().expect("an attribute has an end");
            }
            item = lines.next().unwrap_or_default();
        }
        if item.ends_with("mod tests {") {
            break;
        }
    }
    kept
}

/// A source file without its tests, and without the lines that are comments.
pub fn code_of(text: &str) -> String {
    let code = without_tests(text);
    let lines = code.lines();
    lines
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| [line, "\n"])
        .collect()
}

/// Every path that the code of `module` names. Such a path begins with `crate`, `super` or `self`,
/// or with a word of `others`, which says what these stand for: the names of other crates, for
/// example.
pub fn paths_named(
    module: &ModulePath,
    code: &str,
    others: &BTreeMap<String, ModulePath>,
) -> BTreeSet<ModulePath> {
    let mut found = BTreeSet::new();
    let mut before = ' ';
    let mut rest = code;
    while let Some(first) = rest.chars().next() {
        let word = identifier(rest);
        if word.is_empty() {
            (before, rest) = (first, &rest[first.len_utf8()..]);
            continue;
        }
        let after = &rest[word.len()..];
        let begins = !matches!(before, ':' | '\'' | '"') && after.starts_with("::");
        if let Some(prefix) = begins.then(|| beginning(module, word, others)).flatten() {
            read_tree(&mut after.trim_start_matches(':'), prefix, &mut found);
        }
        (before, rest) = ('a', after);
    }
    found
}

/// What the first word of a path stands for; `None` for a word that begins no path of ours.
fn beginning(
    module: &ModulePath,
    word: &str,
    others: &BTreeMap<String, ModulePath>,
) -> Option<ModulePath> {
    match word {
        "crate" => Some(module[..1].to_vec()),
        "self" => Some(module.clone()),
        "super" => Some(module[..module.len().saturating_sub(1).max(1)].to_vec()),
        other => others.get(other).cloned(),
    }
}

/// Reads what follows `prefix::`, such as `lane::Lane` or `{extract, lane::{Lane, LaneState}}`.
fn read_tree(rest: &mut &str, mut prefix: ModulePath, found: &mut BTreeSet<ModulePath>) {
    loop {
        if let Some(inside) = rest.strip_prefix('{') {
            *rest = inside;
            return read_group(rest, &prefix, found);
        }
        let word = identifier(rest);
        *rest = &rest[word.len()..];
        match word {
            "" | "self" => {}
            "super" if prefix.len() > 1 => _ = prefix.pop(),
            step => prefix.push(step.to_owned()),
        }
        match rest.strip_prefix("::") {
            Some(more) if !word.is_empty() => *rest = more,
            _ => {
                found.insert(prefix);
                return;
            }
        }
    }
}

/// Reads the branches of a group, up to and with its closing brace.
fn read_group(rest: &mut &str, prefix: &ModulePath, found: &mut BTreeSet<ModulePath>) {
    loop {
        *rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
        if rest.is_empty() || rest.starts_with('}') {
            *rest = rest.strip_prefix('}').unwrap_or(rest);
            return;
        }
        read_tree(rest, prefix.clone(), found);
        // What may follow a branch is `as other_name`, or a `*`.
        let end = rest.find([',', '}']).unwrap_or(rest.len());
        *rest = &rest[end..];
    }
}

/// The identifier that a text begins with; empty when there is none.
fn identifier(text: &str) -> &str {
    let end = text
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(text.len());
    &text[..end]
}

/// A circle in a graph of names, as its names in order; `None` when there is none.
pub fn circle(edges: &BTreeSet<(String, String)>) -> Option<Vec<String>> {
    let names: BTreeSet<&String> = edges.iter().map(|(from, _)| from).collect();
    let mut done = BTreeSet::new();
    names
        .into_iter()
        .find_map(|name| circle_from(name, edges, &mut Vec::new(), &mut done))
}

/// A circle that is reached from `name`, to which `path` leads. None is reached from those in
/// `done`.
fn circle_from(
    name: &str,
    edges: &BTreeSet<(String, String)>,
    path: &mut Vec<String>,
    done: &mut BTreeSet<String>,
) -> Option<Vec<String>> {
    if let Some(at) = path.iter().position(|p| p == name) {
        return Some(path[at..].to_vec());
    }
    if done.contains(name) {
        return None;
    }
    path.push(name.to_owned());
    for (_, to) in edges.iter().filter(|(from, _)| from == name) {
        if let Some(found) = circle_from(to, edges, path, done) {
            return Some(found);
        }
    }
    path.pop();
    done.insert(name.to_owned());
    None
}

#[test]
fn paths_are_read_from_use_trees_and_from_code() {
    let check = |code: &str, expect: &[&str]| {
        let module = module_of("windrow_core", "count/lane.rs");
        let others = BTreeMap::from([("windrow".to_owned(), vec!["windrow".to_owned()])]);
        let found = paths_named(&module, &code_of(code), &others);
        let found: Vec<String> = found.iter().map(|path| path.join("::")).collect();
        assert_eq!(found, expect, "{code}");
    };
    check("// crate::x\n/// [`crate::y`]\n", &[]);
    check("use crate::a::B as C;", &["windrow_core::a::B"]);
    check(
        "use crate::a::{self, b::{C, D as E}, f};",
        &[
            "windrow_core::a",
            "windrow_core::a::b::C",
            "windrow_core::a::b::D",
            "windrow_core::a::f",
        ],
    );
    check(
        "use crate::{\n    a::*,\n    b,\n};",
        &["windrow_core::a", "windrow_core::b"],
    );
    check(
        "fn f(x: super::extract::Y) -> super::super::table::Z {}",
        &["windrow_core::count::extract::Y", "windrow_core::table::Z"],
    );
    check(
        "windrow::io::f(self::g::<T>())",
        &["windrow::io::f", "windrow_core::count::lane::g"],
    );
    check(
        "std::fmt; my_crate::x(); a::windrow::b();\n#[cfg(test)]\nmod tests {\ncrate::z",
        &[],
    );
}

#[test]
fn tests_are_left_out_of_a_source_file() {
    let text =
        "a\n#[cfg(test)]\nmod tests;\nb\n#[cfg(test)]\n#[expect(\n    x\n)]\nmod tests {\nc\n}\n";
    assert_eq!(without_tests(text), "a\nb\n");
}

#[test]
fn circles_are_found_at_any_length() {
    let check = |edges: &[(&str, &str)], expect: Option<&str>| {
        let edges = edges
            .iter()
            .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()));
        let found = circle(&edges.collect()).map(|names| names.join(" "));
        assert_eq!(found.as_deref(), expect);
    };
    check(&[], None);
    check(&[("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")], None);
    check(&[("a", "b"), ("b", "a")], Some("a b"));
    check(
        &[("a", "b"), ("b", "c"), ("c", "d"), ("d", "b")],
        Some("b c d"),
    );
}
