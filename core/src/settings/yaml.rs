//! What the settings file and the secrets file have in common: YAML → keys and values, and how
//! problems are told. Which keys there are is for `written` and `secrets`.

use serde_yaml::Value;
use std::fmt;

/// All problems of a file, one in each line. No secret is in it: neither values of the secrets file
/// nor addresses that may hold a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(pub Vec<String>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for ConfigError {}

/// The top level of a YAML file. The parser's own messages may quote the file, in which secrets may
/// be, so only the place is passed on.
pub(super) fn parse_yaml(text: &str) -> Result<Vec<(String, Value)>, ConfigError> {
    let fail = |why: String| Err(ConfigError(vec![why]));
    match serde_yaml::from_str(text) {
        Ok(Value::Null) => Ok(Vec::new()),
        Ok(Value::Mapping(map)) => map
            .into_iter()
            .map(|(key, value)| match key {
                Value::String(key) => Ok((key, value)),
                _ => Err(ConfigError(vec![
                    "cannot read settings: a key is not a text".to_owned(),
                ])),
            })
            .collect(),
        Ok(_) => {
            fail("cannot read settings: not a YAML map; write lines of \"key: value\"".to_owned())
        }
        Err(error) => {
            let place = error
                .location()
                .map(|l| format!(" at line {} column {}", l.line(), l.column()));
            let twice = if error.to_string().contains("duplicate entry") {
                "a key is there twice"
            } else {
                "not YAML"
            };
            fail(format!(
                "cannot read settings: {twice}{}",
                place.unwrap_or_default()
            ))
        }
    }
}

/// The known word that a misspelled one most likely stands for, if one is near.
pub(super) fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        .map(|k| (strsim::normalized_damerau_levenshtein(name, k), *k))
        .filter(|(likeness, _)| *likeness >= 0.6)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, k)| k)
}

/// `a, b or c`.
pub(super) fn either(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [most @ .., last] => format!("{} or {last}", most.join(", ")),
    }
}
