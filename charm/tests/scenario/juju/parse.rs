//! The arguments of hook commands, parsed and refused as Juju parses and refuses them.

use super::Stop::{Failed, NeedStdin, Usage};
use super::{Bag, Juju, Stop};
use serde_json::Value;
use std::collections::BTreeMap;

/// The output formats that a command offers. The first one is the default.
fn formats(command: &str) -> &'static [&'static str] {
    match command {
        "config-get" | "relation-get" | "relation-list" | "relation-model-get" | "relation-ids"
        | "is-leader" | "unit-get" | "action-get" | "leader-get" | "secret-ids"
        | "credential-get" | "opened-ports" | "state-get" | "status-get" | "network-get" => {
            &["smart", "yaml", "json"]
        }
        "goal-state" | "secret-get" | "secret-info-get" => &["yaml", "json"],
        _ => &[],
    }
}

/// The flags that a command takes.
fn flags(command: &str) -> Vec<(&'static str, Kind)> {
    let relation = [("r", Kind::Relation), ("relation", Kind::Relation)];
    let texts = |names: &[&'static str]| -> Vec<(&'static str, Kind)> {
        names.iter().map(|name| (*name, Kind::Text)).collect()
    };
    let bools = |names: &[&'static str]| -> Vec<(&'static str, Kind)> {
        names.iter().map(|name| (*name, Kind::Bool)).collect()
    };
    let mut flags = match command {
        "config-get" => bools(&["a", "all"]),
        "relation-get" | "relation-list" => bools(&["app"]),
        "relation-set" => [texts(&["file", "format"]), bools(&["app"])].concat(),
        "opened-ports" => bools(&["endpoints"]),
        "state-get" => bools(&["strict"]),
        "state-set" | "leader-set" => texts(&["file"]),
        "status-get" => bools(&["include-data", "application"]),
        "status-set" => bools(&["application"]),
        "network-get" => bools(&[
            "primary-address",
            "bind-address",
            "ingress-address",
            "egress-subnets",
        ]),
        "open-port" | "close-port" => texts(&["format", "endpoints"]),
        "juju-log" => [bools(&["debug"]), texts(&["l", "log-level", "format"])].concat(),
        "juju-reboot" => bools(&["now"]),
        "secret-get" => [texts(&["label"]), bools(&["peek", "refresh"])].concat(),
        "secret-info-get" => texts(&["label"]),
        "secret-add" | "secret-set" => {
            texts(&["expire", "rotate", "description", "label", "file", "owner"])
        }
        "secret-remove" => texts(&["revision"]),
        "secret-grant" => texts(&["unit"]),
        "secret-revoke" => texts(&["unit", "app"]),
        _ => Vec::new(),
    };
    let of_a_relation = [
        "relation-get",
        "relation-list",
        "relation-model-get",
        "relation-set",
        "network-get",
        "secret-grant",
        "secret-revoke",
    ];
    if of_a_relation.contains(&command) {
        flags.extend(relation);
    }
    if !formats(command).is_empty() {
        flags.push(("format", Kind::Format));
        flags.extend(texts(&["o", "output"]));
    }
    flags
}

/// What kind of value a flag takes.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Bool,
    Text,
    Relation,
    Format,
}

/// Arguments, parsed as Juju parses them.
pub(super) struct Parsed {
    pub(super) format: String,
    pub(super) flags: BTreeMap<&'static str, String>,
    /// The relation that is named, else the hook's own.
    pub(super) relation: Option<u32>,
    pub(super) args: Vec<String>,
}

impl Parsed {
    pub(super) fn has(&self, flag: &str) -> bool {
        self.flags.get(flag).is_some_and(|v| v == "true")
    }

    pub(super) fn text(&self, flag: &str) -> &str {
        self.flags.get(flag).map_or("", String::as_str)
    }

    /// Refuses any arguments after the first `n`.
    pub(super) fn at_most(&self, n: usize) -> Result<(), Stop> {
        match self.args.get(n..) {
            Some(rest) if !rest.is_empty() => {
                Err(Usage(format!("unrecognized args: {}", quoted(rest))))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn write(&self, value: &Value) -> String {
        match (self.format.as_str(), value) {
            ("json", _) => format!("{value}\n"),
            (_, Value::Null) => String::new(),
            ("smart", Value::String(text)) if text.is_empty() => String::new(),
            ("smart", Value::String(text)) => format!("{text}\n"),
            ("smart", Value::Bool(yes)) => if *yes { "True\n" } else { "False\n" }.to_owned(),
            ("smart", Value::Array(all)) if all.is_empty() => String::new(),
            ("smart", Value::Array(all)) if all.iter().all(Value::is_string) => {
                let all: Vec<&str> = all.iter().filter_map(Value::as_str).collect();
                format!("{}\n", all.join("\n"))
            }
            _ => serde_yaml::to_string(value).expect("JSON is YAML"),
        }
    }
}

pub(super) fn quoted(args: &[String]) -> String {
    format!(
        "[{}]",
        args.iter()
            .map(|a| format!("{a:?}"))
            .collect::<Vec<_>>()
            .join(" ")
    )
}

pub(super) fn is_app(name: &str) -> bool {
    let piece = |p: &str| {
        p.bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
            && p.bytes().any(|b| b.is_ascii_lowercase())
    };
    name.starts_with(|c: char| c.is_ascii_lowercase()) && name.split('-').all(piece)
}

pub(super) fn is_unit(name: &str) -> bool {
    name.split_once('/').is_some_and(|(app, n)| {
        is_app(app) && n.parse::<u32>().is_ok_and(|number| number.to_string() == n)
    })
}

/// The id in a secret's URI: `secret:ID`, `secret://MODEL/ID`, `secret:MODEL/ID` or just `ID`.
pub fn secret_id(uri: &str) -> Option<String> {
    let rest = uri
        .strip_prefix("secret:")
        .unwrap_or(uri)
        .trim_start_matches('/');
    let (model, id) = rest.rsplit_once('/').unwrap_or(("", rest));
    let model_is = model.is_empty()
        || (model.len() == 36 && model.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-'));
    let id_is = id.len() == 20
        && id
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'v').contains(&b));
    (model_is && id_is).then(|| id.to_owned())
}

/// Parses `key=value` arguments.
pub(super) fn pairs(args: &[String]) -> Result<Bag, Stop> {
    let mut found = Bag::new();
    for arg in args.iter().filter(|a| !a.is_empty()) {
        let Some((key, value)) = arg.split_once('=') else {
            return Err(Usage(format!("expected \"key=value\", got {arg:?}")));
        };
        let (key, value) = (key.trim(), value.trim());
        if key.is_empty() {
            return Err(Usage(format!(
                "expected \"key=value\", got \"{key}={value}\""
            )));
        }
        if found.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(Usage(format!("key {key:?} specified more than once")));
        }
    }
    Ok(found)
}

/// Parses the `key[#base64|#file]=value` arguments of a secret.
pub(super) fn secret_pairs(args: &[String]) -> Result<Bag, Stop> {
    let mut found = Bag::new();
    for (key, value) in pairs(args)? {
        let (key, how) = key
            .split_once('#')
            .map_or((key.as_str(), ""), |(k, how)| (k, how));
        let ok = key.len() >= 3
            && key.starts_with(|c: char| c.is_ascii_lowercase())
            && key.split('-').all(|p| {
                !p.is_empty()
                    && p.bytes()
                        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
            });
        if !ok {
            return Err(Usage(format!("key {key:?} not valid")));
        }
        let value = match how {
            "file" => std::fs::read_to_string(&value)
                .map_err(|e| Usage(format!("reading content for secret key {key:?}: {e}")))?,
            _ => value,
        };
        found.insert(key.to_owned(), value);
    }
    Ok(found)
}

/// Reads a YAML map of strings from a file, or from the standard input (`-`).
pub(super) fn settings_file(path: &str, stdin: Option<&str>) -> Result<Bag, Stop> {
    let text = match (path, stdin) {
        ("", _) => return Ok(Bag::new()),
        ("-", None) => return Err(NeedStdin),
        ("-", Some(text)) => text.to_owned(),
        (path, _) => std::fs::read_to_string(path)
            .map_err(|_| Failed(format!("open {path}: no such file or directory")))?,
    };
    let value: Value = serde_yaml::from_str(&text).map_err(|e| Failed(format!("yaml: {e}")))?;
    let mut found = Bag::new();
    if value.is_null() {
        return Ok(found);
    }
    let all = value.as_object().ok_or_else(|| {
        Failed(
            "yaml: unmarshal errors:\n  line 1: cannot unmarshal into map[string]string".to_owned(),
        )
    })?;
    for (key, value) in all {
        let value = match value {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            Value::Number(_) | Value::Bool(_) => value.to_string(),
            _ => {
                let text =
                    format!("yaml: unmarshal errors:\n  {key}: cannot unmarshal !!map into string");
                return Err(Failed(text));
            }
        };
        found.insert(key.clone(), value);
    }
    Ok(found)
}

/// The name of a flag, and the value in the same argument; `None` for what is not a flag.
fn split_flag(arg: &str) -> Option<(String, Option<String>)> {
    if let Some(long) = arg.strip_prefix("--") {
        return Some(match long.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (long.to_owned(), None),
        });
    }
    // The value of a short flag may follow it without a space.
    let short = arg.strip_prefix('-').filter(|short| !short.is_empty())?;
    let (name, value) = short.split_at(short.chars().next().map_or(0, char::len_utf8));
    Some((
        name.to_owned(),
        (!value.is_empty()).then(|| value.to_owned()),
    ))
}

impl Juju {
    pub(super) fn parse(&mut self, command: &str, args: &[String]) -> Result<Parsed, Stop> {
        let (known, formats) = (flags(command), formats(command));
        let hook_relation = self.hook().relation;
        let mut parsed = Parsed {
            format: formats.first().copied().unwrap_or_default().to_owned(),
            flags: BTreeMap::new(),
            relation: hook_relation,
            args: Vec::new(),
        };
        let mut rest = args.iter();
        while let Some(arg) = rest.next() {
            if arg == "--" {
                parsed.args.extend(rest.cloned());
                break;
            }
            let Some((name, mut given)) = split_flag(arg) else {
                parsed.args.push(arg.clone());
                continue;
            };
            let minus = if name.len() == 1 {
                format!("-{name}")
            } else {
                format!("--{name}")
            };
            let Some(&(flag, kind)) = known.iter().find(|(flag, _)| *flag == name) else {
                return Err(Usage(format!("option provided but not defined: {minus}")));
            };
            if kind == Kind::Bool && given.is_none() {
                given = Some("true".to_owned());
            }
            let value = match given {
                Some(value) => value,
                None => rest
                    .next()
                    .cloned()
                    .ok_or_else(|| Usage(format!("option needs an argument: {minus}")))?,
            };
            let bad =
                |why: &str| Usage(format!("invalid value {value:?} for option {minus}: {why}"));
            match kind {
                Kind::Bool if !["true", "false", "1", "0", "t", "f"].contains(&value.as_str()) => {
                    return Err(Usage(format!("invalid boolean option {name}: {value:?}")));
                }
                Kind::Format if !formats.contains(&value.as_str()) => {
                    return Err(bad(&format!("unknown format {value:?}")));
                }
                Kind::Format => parsed.format = value,
                Kind::Relation => {
                    let id = value.rsplit(':').next().unwrap_or_default();
                    let id: i64 = id.parse().map_err(|_| bad("invalid relation id"))?;
                    let id = u32::try_from(id)
                        .ok()
                        .filter(|id| self.relations.contains_key(id));
                    parsed.relation = Some(id.ok_or_else(|| bad("relation not found"))?);
                }
                Kind::Bool | Kind::Text => {
                    parsed.flags.insert(flag, value);
                }
            }
        }
        Ok(parsed)
    }
}
