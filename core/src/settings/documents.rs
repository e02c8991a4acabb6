//! The documents that are made from the rows of `setting`, `charm_options` and `secrets`, and the
//! test that writes them: `WINDROW_WRITE=1 cargo test -p windrow-core documents`. Without that
//! variable it only says where a document differs from the rows.

use crate::settings::charm_options::OWN_OPTIONS;
use crate::settings::parse::format_bytes;
use crate::settings::secrets::SECRET_KEYS;
use crate::settings::setting::{CharmOption, DefaultValue, Kind, SETTINGS, Setting, find};
use crate::settings::yaml::either;
use crate::values::time::format_duration_ms;
use std::fmt::Write;

/// Columns of a line.
const WIDTH: usize = 100;

/// `windrow.example.yaml`.
fn example_file() -> String {
    let mut text = comment(
        "",
        "Every setting of windrow, with its default, or with an example where it says so. \
         Durations are a number and a unit: 500ms, 10s, 5m, 1h, 7d. Settings that shape the rows \
         are kept with the table, and another value later is refused: choose another table name \
         for it. This file is written from core/src/settings/setting.rs.",
    );
    let mut section = "";
    for row in SETTINGS {
        let (of, name) = row.key.split_once('.').unwrap_or(("", row.key));
        text.push('\n');
        if of != section && !of.is_empty() {
            let _ = writeln!(text, "{of}:");
        }
        section = of;
        let indent = if of.is_empty() { "" } else { "  " };
        let mut sentences = meaning(row);
        match row.default {
            DefaultValue::Required => sentences.push("It has no default.".to_owned()),
            DefaultValue::Text("") if row.example.is_some() => {
                sentences.push("This is an example: the default is empty.".to_owned());
            }
            DefaultValue::Text(_) | DefaultValue::Like(_) => {}
        }
        text += &comment(indent, &sentences.join(" "));
        let value = row.example.unwrap_or_else(|| default_text(row));
        let value = if value.is_empty() { "\"\"" } else { value };
        let _ = writeln!(text, "{indent}{name}: {value}");
    }
    text
}

/// `docs/settings.md`.
fn reference() -> String {
    let mut text = "# Settings\n\n".to_owned();
    text += &paragraph(
        "These are all settings of `windrow.yaml`. An unknown key is refused, and so is a value \
         that is not allowed; `windrow check-config` tells of all problems at once. The key \
         `kafka.topic` is the line `topic` in the section `kafka`. Durations are a number and a \
         unit: `500ms`, `10s`, `5m`, `1h`, `7d`. Settings that shape the rows are kept with the \
         table, and another value later is refused: choose another table name for it.",
    );
    text += &paragraph(
        "The charm takes most of them as options of `juju config`; it decides the others itself. \
         This document is written from `core/src/settings/setting.rs`.",
    );
    for row in SETTINGS {
        let _ = writeln!(text, "## `{}`\n", row.key);
        text += &paragraph(row.doc);
        if let Some(allowed) = allowed(row.kind) {
            let _ = writeln!(text, "- Value: {}", lower_first(&allowed));
        }
        let default = match row.default {
            DefaultValue::Required => "none; it must be given".to_owned(),
            DefaultValue::Text("") => "empty".to_owned(),
            DefaultValue::Text(default) => format!("`{default}`"),
            DefaultValue::Like(key) => format!("as `{key}`"),
        };
        let _ = writeln!(text, "- Default: {default}");
        let shapes = if row.shapes_rows { "yes" } else { "no" };
        let _ = writeln!(text, "- Shapes the rows: {shapes}");
        let option = match row.option {
            None => "none".to_owned(),
            Some(CharmOption { name, default, .. }) => match default {
                None => format!("`{name}`"),
                Some(default) => format!("`{name}`, with the default `{default}`"),
            },
        };
        let _ = writeln!(text, "- Charm option: {option}\n");
    }
    text += "## The secrets file\n\n";
    text += &paragraph(
        "`secrets-file` names a YAML file of mode 0600 with these keys. Only those are needed that \
         the settings ask for. It is read again every 5 s, and at once on SIGHUP.",
    );
    for (key, doc) in SECRET_KEYS {
        text += &item(&format!("`{key}`: {doc}"));
    }
    text += "\n## Options of the charm alone\n\n";
    text += &paragraph("The charm reads these itself; they are not settings of `windrow.yaml`.");
    for option in OWN_OPTIONS {
        text += &item(&format!("`{}`: {}", option.name, option.doc));
    }
    text
}

/// The charm's `config.yaml`.
fn charm_config() -> String {
    let mut text = comment(
        "",
        "The charm's options. Their defaults are windrow's own, and fill the table of the use \
         case. Durations are a number and a unit: 500ms, 10s, 5m, 1h, 7d. A value that is not \
         allowed changes nothing that runs: the unit's status names the option, the value and \
         what is allowed. \"Shapes the rows\" marks what is kept with the table: another value \
         later is refused, so choose another table-name for it. This file is written from \
         core/src/settings/setting.rs and core/src/settings/charm_options.rs.",
    );
    text += "options:\n  # Settings of windrow.\n";
    for row in SETTINGS {
        let Some(option) = row.option else { continue };
        let mut sentences = meaning(row);
        if !option.note.is_empty() {
            sentences.push(option.note.to_owned());
        }
        let default = option.default.unwrap_or(match row.default {
            DefaultValue::Text(default) => default,
            // The charm leaves out a setting whose option is empty.
            DefaultValue::Like(_) | DefaultValue::Required => "",
        });
        let (juju_type, default) = match row.kind {
            Kind::Flag => ("boolean", default.to_owned()),
            Kind::Number { .. } => ("int", default.to_owned()),
            // In quotes, because other readers of YAML take off and yes for true and false.
            _ => ("string", format!("\"{default}\"")),
        };
        let description = with_option_names(&sentences.join(" "));
        text += &option_lines(option.name, juju_type, Some(&default), &description);
    }
    text += "\n  # What only the charm reads.\n";
    for option in OWN_OPTIONS {
        let default = option.default.map(|default| format!("\"{default}\""));
        text += &option_lines(
            option.name,
            option.juju_type,
            default.as_deref(),
            option.doc,
        );
    }
    text
}

fn option_lines(name: &str, juju_type: &str, default: Option<&str>, description: &str) -> String {
    let mut text = format!("  {name}:\n    type: {juju_type}\n");
    if let Some(default) = default {
        let _ = writeln!(text, "    default: {default}");
    }
    text += "    description: |\n";
    text + &wrap("      ", "      ", description)
}

/// What a setting is, what it takes and whether it shapes the rows: sentences.
fn meaning(row: &Setting) -> Vec<String> {
    let mut sentences = vec![row.doc.to_owned()];
    sentences.extend(allowed(row.kind));
    if row.shapes_rows {
        sentences.push("Shapes the rows.".to_owned());
    }
    sentences
}

/// What values a kind takes, as a sentence; `None` where only the row's `doc` can say.
fn allowed(kind: Kind) -> Option<String> {
    let duration = format_duration_ms;
    Some(match kind {
        Kind::Free => return None,
        Kind::Words(words) => format!("One of {}.", either(words)),
        Kind::Flag => "One of true or false.".to_owned(),
        Kind::Duration { min_ms: 0, .. } => "A duration.".to_owned(),
        Kind::Duration { min_ms, max_ms } if max_ms == u64::MAX => {
            format!("A duration of at least {}.", duration(min_ms))
        }
        Kind::Duration { min_ms, max_ms } => {
            format!(
                "A duration from {} to {}.",
                duration(min_ms),
                duration(max_ms)
            )
        }
        Kind::DurationOr { word, min_ms: 1 } => format!("A duration, or {word}."),
        Kind::DurationOr { word, min_ms } => {
            format!("A duration of at least {}, or {word}.", duration(min_ms))
        }
        Kind::Number { of, min, max } => format!("A number of {of} from {min} to {max}."),
        Kind::Bytes { min, max } => {
            format!(
                "A size from {} to {}.",
                format_bytes(min),
                format_bytes(max)
            )
        }
        Kind::File => "The path of a file.".to_owned(),
    })
}

/// The default as a user would write it; for a required setting, the empty text.
fn default_text(row: &Setting) -> &'static str {
    match row.default {
        DefaultValue::Text(text) => text,
        DefaultValue::Like(key) => default_text(find(key).expect("a test looks")),
        DefaultValue::Required => "",
    }
}

/// Writes the option's name in place of each key in back-quotes.
fn with_option_names(doc: &str) -> String {
    doc.split('`')
        .enumerate()
        .map(|(i, part)| match find(part).and_then(|row| row.option) {
            Some(option) if i % 2 == 1 => option.name,
            _ => part,
        })
        .collect()
}

fn lower_first(sentence: &str) -> String {
    let (first, rest) = sentence.split_at(1);
    first.to_lowercase() + rest.trim_end_matches('.')
}

fn comment(indent: &str, text: &str) -> String {
    let begin = format!("{indent}# ");
    wrap(&begin, &begin, text)
}

fn paragraph(text: &str) -> String {
    wrap("", "", text) + "\n"
}

fn item(text: &str) -> String {
    wrap("- ", "  ", text)
}

/// Lines of at most [`WIDTH`] columns, with these texts before the first and before the others.
fn wrap(first: &str, others: &str, text: &str) -> String {
    let mut lines = String::new();
    let mut line = first.to_owned();
    let mut is_empty = true;
    for word in text.split(' ') {
        if !is_empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            lines += &line;
            lines.push('\n');
            others.clone_into(&mut line);
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line += word;
        is_empty = false;
    }
    lines + &line + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::shape::Shape;
    use std::collections::BTreeSet;
    use std::path::Path;

    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "WINDROW_WRITE is for the person at the keyboard"
    )]
    fn documents_say_what_the_rows_say() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let write = std::env::var("WINDROW_WRITE").is_ok_and(|w| w == "1");
        for (name, text) in [
            ("windrow.example.yaml", example_file()),
            ("docs/settings.md", reference()),
            ("config.yaml", charm_config()),
        ] {
            let path = root.join(name);
            if write {
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(&path, text).unwrap();
                continue;
            }
            let there = std::fs::read_to_string(&path).unwrap_or_default();
            let line = text.lines().zip(there.lines()).position(|(a, b)| a != b);
            assert!(
                text == there,
                "{name}:{} differs from the rows; run: \
                 WINDROW_WRITE=1 cargo test -p windrow-core documents",
                line.unwrap_or_default() + 1
            );
        }
    }

    #[test]
    fn rows_are_whole_and_name_only_what_there_is() {
        let mut keys = BTreeSet::new();
        let mut options: BTreeSet<_> = OWN_OPTIONS.iter().map(|option| option.name).collect();
        for row in SETTINGS {
            assert!(keys.insert(row.key), "{} is there twice", row.key);
            if let Some(option) = row.option {
                assert!(
                    options.insert(option.name),
                    "{} is there twice",
                    option.name
                );
                assert!(option.note.is_empty() || option.note.ends_with('.'));
            }
            assert!(row.doc.ends_with('.'), "{} has no sentence", row.key);
            for named in row.doc.split('`').skip(1).step_by(2) {
                assert!(find(named).is_some(), "{} names {named}", row.key);
            }
            match row.default {
                DefaultValue::Text(_) => {}
                DefaultValue::Like(key) => assert!(find(key).is_some(), "{} is as {key}", row.key),
                DefaultValue::Required => assert!(row.example.is_some(), "{}", row.key),
            }
        }
        assert_eq!(
            options.len(),
            crate::settings::setting::options().count() + OWN_OPTIONS.len()
        );
    }

    #[test]
    fn what_shapes_the_rows_is_what_epoch_0_keeps() {
        let rows = SETTINGS.iter().filter(|row| row.shapes_rows);
        let shape = Shape::count_by_origin("t", 1, 1).as_settings();
        let kept = shape.iter().filter(|(name, _)| !name.contains(' '));
        assert_eq!(
            rows.map(|row| row.key).collect::<BTreeSet<_>>(),
            kept.map(|(name, _)| *name).collect()
        );
    }
}
