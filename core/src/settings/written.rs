//! What a person wrote: the text of `windrow.yaml` → values, and all problems of the file at once.
//! Defaults, words and limits come from the rows of `setting`; what the values mean is for
//! `config`.

use crate::settings::parse::{format_bytes, parse_bytes, parse_duration_or, quote_setting};
use crate::settings::secrets::is_secret_key;
use crate::settings::setting::{DefaultValue, Kind, SETTINGS, Setting, find};
use crate::settings::yaml::{ConfigError, either, nearest, parse_yaml};
use crate::values::time::{format_duration_ms, parse_duration_ms};
use serde::Deserialize;
use serde_yaml::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// The values of a file by their keys, and its problems so far.
///
/// A value that cannot be read is a problem, and its default stands in for it. So all other
/// settings are checked, too, and the user is told of all problems at once.
pub(super) struct Written {
    given: BTreeMap<&'static str, String>,
    problems: Vec<String>,
    /// Settings that have a problem already: a rule over several would only repeat it.
    failed: BTreeSet<&'static str>,
    /// Settings that were asked for. In the end these are all: a setting that nothing reads would
    /// do nothing.
    asked: BTreeSet<&'static str>,
}

impl Written {
    /// Takes the file apart. Unknown keys are problems.
    ///
    /// # Errors
    /// The text is not a YAML map, so nothing in it can be checked.
    pub(super) fn parse(text: &str) -> Result<Self, ConfigError> {
        let mut written = Self {
            given: BTreeMap::new(),
            problems: Vec::new(),
            failed: BTreeSet::new(),
            asked: BTreeSet::new(),
        };
        for (key, value) in parse_yaml(text)? {
            let prefix = format!("{key}.");
            if !SETTINGS.iter().any(|row| row.key.starts_with(&prefix)) {
                written.give(&key, value);
                continue;
            }
            match value {
                Value::Null => {}
                Value::Mapping(section) => written.give_section(&prefix, section),
                _ => written.problem(format!(
                    "cannot read settings {key}: they are several; write them in lines of their \
                     own below \"{key}:\""
                )),
            }
        }
        // YAML takes the word null for nothing, but for this one setting it is a value.
        if !written.given.contains_key("on-bad-record") && Words::of(text).on_bad_record == "null" {
            written.given.insert("on-bad-record", "null".to_owned());
        }
        Ok(written)
    }

    fn give_section(&mut self, prefix: &str, section: serde_yaml::Mapping) {
        for (name, value) in section {
            match name {
                Value::String(name) => self.give(&format!("{prefix}{name}"), value),
                _ => self.problem(format!(
                    "cannot read settings {}: a key is not a text",
                    prefix.trim_end_matches('.')
                )),
            }
        }
    }

    fn give(&mut self, key: &str, value: Value) {
        let Some(Setting { key, .. }) = find(key) else {
            return self.problem(unknown_key(key));
        };
        let text = match value {
            Value::Null => return,
            Value::String(text) => text.trim().to_owned(),
            Value::Number(number) => number.to_string(),
            Value::Bool(yes) => yes.to_string(),
            _ => {
                self.failed.insert(key);
                return self.problem(format!(
                    "cannot read setting {key}: it takes one value, not a list or a map"
                ));
            }
        };
        self.given.insert(key, text);
    }

    /// Adds a problem, as a whole sentence without its full stop.
    pub(super) fn problem(&mut self, problem: String) {
        self.problems.push(problem);
    }

    /// Whether one of these settings has a problem already.
    pub(super) fn failed(&self, keys: &[&str]) -> bool {
        keys.iter().any(|key| self.failed.contains(*key))
    }

    /// Whether the file gives this setting a value that is not empty.
    pub(super) fn is_given(&self, key: &str) -> bool {
        self.given.get(key).is_some_and(|text| !text.is_empty())
    }

    /// Makes it a problem when a setting is absent or empty; `hint` says what to write.
    pub(super) fn must_be_given(&mut self, key: &str, hint: &str) {
        let Setting { key, .. } = row(key);
        if !self.is_given(key) && self.failed.insert(key) {
            self.given.remove(key);
            self.problem(format!(
                "cannot find setting {key}: it has no default; {hint}"
            ));
        }
    }

    /// The value of a setting, by its own rule: `parse` answers the end of a sentence for a text
    /// that it refuses.
    pub(super) fn read<T>(&mut self, key: &str, parse: impl Fn(&str) -> Result<T, String>) -> T {
        let row = row(key);
        self.asked.insert(row.key);
        if let Some(text) = self.given.get(key) {
            match parse(text) {
                Ok(value) => return value,
                Err(why) => {
                    let value = quote_setting(key, text);
                    let problem = format!("cannot read setting {key}{value}: {why}");
                    self.problem(problem);
                    self.failed.insert(row.key);
                }
            }
        }
        parse(&self.default_of(row)).expect("defaults can be read")
    }

    fn default_of(&self, row: &Setting) -> String {
        match row.default {
            DefaultValue::Text(text) => text.to_owned(),
            DefaultValue::Like(key) => match self.given.get(key) {
                Some(text) if !self.failed(&[key]) => text.clone(),
                _ => self.default_of(find(key).expect("a test looks")),
            },
            DefaultValue::Required => row.example.expect("a test looks").to_owned(),
        }
    }

    /// The value of a setting that may be empty, which is `None`.
    pub(super) fn optional<T>(
        &mut self,
        key: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        self.read(key, |text| {
            if text.is_empty() {
                Ok(None)
            } else {
                parse(text).map(Some)
            }
        })
    }

    /// A duration within the limits of its row, in milliseconds.
    pub(super) fn duration_ms(&mut self, key: &str) -> u64 {
        let Kind::Duration { min_ms, max_ms } = row(key).kind else {
            panic!("{key} is not a duration")
        };
        self.read(key, |text| {
            let ms = parse_duration_ms(text)?;
            if ms < min_ms {
                let min = format_duration_ms(min_ms);
                return Err(format!("too short; write at least {min}"));
            }
            if ms > max_ms {
                let max = format_duration_ms(max_ms);
                return Err(format!("too long; write at most {max}"));
            }
            Ok(ms)
        })
    }

    /// A duration of at least what its row says, in milliseconds; `None` for the row's word.
    pub(super) fn duration_or_none_ms(&mut self, key: &str) -> Option<u64> {
        let Kind::DurationOr { word, min_ms } = row(key).kind else {
            panic!("{key} is not a duration or a word")
        };
        self.read(key, |text| parse_duration_or(text, word, min_ms))
    }

    /// One of the words of its row, as the value that `meanings` gives it.
    pub(super) fn choice<T: Copy>(&mut self, key: &str, meanings: &[(&str, T)]) -> T {
        let Kind::Words(words) = row(key).kind else {
            panic!("{key} is not one of a few words")
        };
        assert_eq!(
            words.iter().copied().collect::<BTreeSet<_>>(),
            meanings.iter().map(|(word, _)| *word).collect(),
            "each word of {key} has one meaning"
        );
        self.read(key, |text| {
            let found = meanings.iter().find(|(word, _)| *word == text);
            found
                .map(|(_, value)| *value)
                .ok_or_else(|| not_one_of(text, words))
        })
    }

    /// Whether a setting is `true`.
    pub(super) fn flag(&mut self, key: &str) -> bool {
        assert_eq!(row(key).kind, Kind::Flag, "{key} is true or false");
        self.read(key, |text| match text {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(not_one_of(text, &["true", "false"])),
        })
    }

    /// A whole number within the limits of its row.
    pub(super) fn number(&mut self, key: &str) -> u64 {
        let Kind::Number { of, min, max } = row(key).kind else {
            panic!("{key} is not a number")
        };
        self.read(key, |text| match text.parse() {
            Ok(n) if (min..=max).contains(&n) => Ok(n),
            _ => Err(format!("not a number of {of}; write {min} to {max}")),
        })
    }

    /// A size in bytes within the limits of its row.
    pub(super) fn bytes(&mut self, key: &str) -> u64 {
        self.read(key, |text| bytes_within(key, text))
    }

    /// The same; `None` where it is empty.
    pub(super) fn optional_bytes(&mut self, key: &str) -> Option<u64> {
        self.optional(key, |text| bytes_within(key, text))
    }

    /// The path of a file; `None` where it is empty.
    pub(super) fn file(&mut self, key: &str) -> Option<PathBuf> {
        assert_eq!(row(key).kind, Kind::File, "{key} is a file");
        self.optional(key, |text| Ok(PathBuf::from(text)))
    }

    /// What the file comes to, if it has no problems.
    ///
    /// # Errors
    /// All problems, in the order in which the settings were read.
    pub(super) fn finish<T>(self, value: T) -> Result<T, ConfigError> {
        let unread: Vec<_> = SETTINGS
            .iter()
            .map(|row| row.key)
            .filter(|key| !self.asked.contains(key))
            .collect();
        assert!(unread.is_empty(), "settings that nothing reads: {unread:?}");
        if self.problems.is_empty() {
            Ok(value)
        } else {
            Err(ConfigError(self.problems))
        }
    }

    /// The keys that the file gives a value.
    #[cfg(test)]
    pub(super) fn keys(&self) -> Vec<&'static str> {
        self.given.keys().copied().collect()
    }
}

/// A size within the limits of the row.
fn bytes_within(key: &str, text: &str) -> Result<u64, String> {
    let Kind::Bytes { min, max } = row(key).kind else {
        panic!("{key} is not a size")
    };
    match parse_bytes(text)? {
        n if (min..=max).contains(&n) => Ok(n),
        _ => Err(format!(
            "out of range; write {} to {}",
            format_bytes(min),
            format_bytes(max)
        )),
    }
}

fn row(key: &str) -> &'static Setting {
    find(key).unwrap_or_else(|| panic!("setting {key} has no row"))
}

/// A value as the letters that stand there, whatever YAML makes of them.
#[derive(Default, Deserialize)]
struct Words {
    #[serde(default, rename = "on-bad-record")]
    on_bad_record: String,
}

impl Words {
    fn of(text: &str) -> Self {
        serde_yaml::from_str(text).unwrap_or_default()
    }
}

/// What to say of a key that is not a setting: the nearest one in its section, else where it
/// belongs.
fn unknown_key(path: &str) -> String {
    let (section, name) = path.rsplit_once('.').unwrap_or(("", path));
    let divided = |row: &Setting| row.key.rsplit_once('.').unwrap_or(("", row.key));
    let here: Vec<&str> = SETTINGS
        .iter()
        .map(divided)
        .filter(|(of, _)| *of == section)
        .map(|(_, name)| name)
        .collect();
    let elsewhere = SETTINGS.iter().find(|row| divided(row).1 == name);
    let hint = if is_secret_key(name) {
        "secrets go into the secrets file".to_owned()
    } else if let Some(row) = elsewhere {
        format!("did you mean \"{}\"?", row.key)
    } else if let Some(known) = nearest(name, &here) {
        format!("did you mean \"{known}\"?")
    } else {
        format!("known are {}", here.join(", "))
    };
    format!("cannot read setting {path}: unknown key; {hint}")
}

/// What to say of a word that is not among those that are allowed.
fn not_one_of(text: &str, words: &[&str]) -> String {
    let near = nearest(text, words)
        .map(|word| format!("did you mean \"{word}\"? "))
        .unwrap_or_default();
    format!("{near}write {}", either(words))
}
