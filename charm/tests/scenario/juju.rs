//! What Juju's agent and controller keep of one unit, and its hook commands with all that they refuse.
//!
//! Flags, texts and exit codes are those of Juju 3.6.11: 2 for what is wrong in the arguments, 1 for what fails.
//! Relation data, charm state, ports and secrets wait for the hook's good end; statuses, versions and logs do not.

use crate::provider::Provider;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The hook commands there are; Juju 3.5 has no `relation-model-get`.
pub const COMMANDS: [&str; 35] = [
    "action-fail",
    "action-get",
    "action-log",
    "action-set",
    "application-version-set",
    "close-port",
    "config-get",
    "credential-get",
    "goal-state",
    "is-leader",
    "juju-log",
    "juju-reboot",
    "leader-get",
    "leader-set",
    "network-get",
    "open-port",
    "opened-ports",
    "relation-get",
    "relation-ids",
    "relation-list",
    "relation-model-get",
    "relation-set",
    "secret-add",
    "secret-get",
    "secret-grant",
    "secret-ids",
    "secret-info-get",
    "secret-remove",
    "secret-revoke",
    "secret-set",
    "state-delete",
    "state-get",
    "state-set",
    "status-get",
    "status-set",
];

pub type Bag = BTreeMap<String, String>;

/// What `metadata.yaml`, `config.yaml` and `actions.yaml` say.
pub struct Charm {
    /// Name → role (`requires`, `provides`, `peers`).
    pub endpoints: BTreeMap<String, String>,
    /// Name → type and default.
    pub options: BTreeMap<String, (String, Value)>,
    /// Name → what is said of it.
    pub actions: BTreeMap<String, Value>,
}

impl Charm {
    /// Reads the three texts.
    pub fn read(metadata: &str, config: &str, actions: &str) -> Charm {
        let parse = |text: &str| serde_yaml::from_str::<Value>(text).expect("YAML");
        let (metadata, config, actions) = (parse(metadata), parse(config), parse(actions));
        let mut endpoints = BTreeMap::new();
        for role in ["requires", "provides", "peers"] {
            for name in metadata[role]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(name, _)| name)
            {
                endpoints.insert(name.clone(), role.to_owned());
            }
        }
        let options = config["options"].as_object().into_iter().flatten();
        let options = options.map(|(name, o)| {
            let kind = o["type"].as_str().expect("an option has a type").to_owned();
            assert!(
                o["default"].is_null() || is_a(&kind, &o["default"]),
                "default of option {name}"
            );
            (name.clone(), (kind, o["default"].clone()))
        });
        Charm {
            endpoints,
            options: options.collect(),
            actions: actions
                .as_object()
                .into_iter()
                .flatten()
                .map(|(n, a)| (n.clone(), a.clone()))
                .collect(),
        }
    }

    /// The parameters of an action with its defaults, as Juju hands them over.
    ///
    /// # Errors
    /// What Juju would refuse before any hook runs.
    pub fn parameters(&self, action: &str, given: &Value) -> Result<Map<String, Value>, String> {
        let Some(said) = self.actions.get(action) else {
            return Err(format!("no action {action:?}"));
        };
        let mut all = given.as_object().cloned().unwrap_or_default();
        let known = said["params"].as_object().cloned().unwrap_or_default();
        for (name, value) in &all {
            let Some(spec) = known.get(name) else {
                if said["additionalProperties"] == json!(false) {
                    return Err(format!("additional property {name:?} is not allowed"));
                }
                continue;
            };
            if let Some(kind) = spec["type"].as_str().filter(|kind| !is_a(kind, value)) {
                return Err(format!("{name} must be of type {kind}"));
            }
            if spec["enum"]
                .as_array()
                .is_some_and(|of| !of.contains(value))
            {
                return Err(format!("{name} must be one of {}", spec["enum"]));
            }
            let number = value.as_f64();
            if number
                .zip(spec["minimum"].as_f64())
                .is_some_and(|(v, least)| v < least)
                || number
                    .zip(spec["maximum"].as_f64())
                    .is_some_and(|(v, most)| v > most)
            {
                return Err(format!("{name} is out of bounds"));
            }
        }
        for (name, spec) in known {
            if !spec["default"].is_null() {
                all.entry(name).or_insert_with(|| spec["default"].clone());
            }
        }
        for name in said["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
        {
            if !all.contains_key(name) {
                return Err(format!("{name} is missing and required"));
            }
        }
        Ok(all)
    }
}

/// Whether a value is of that type of an option or an action's parameter.
pub fn is_a(kind: &str, value: &Value) -> bool {
    match kind {
        "string" | "secret" => value.is_string(),
        "int" | "integer" => value.is_i64() || value.is_u64(),
        "float" | "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    }
}

/// One relation as this unit's agent sees it.
#[derive(Default)]
pub struct Relation {
    pub endpoint: String,
    pub app: String,
    /// UUID of the other side's model; empty: this one.
    pub model: String,
    pub units: BTreeMap<String, Bag>,
    /// Those of them that this unit was told of.
    pub members: BTreeSet<String>,
    /// Units that have departed: their data can still be read.
    pub gone: BTreeMap<String, Bag>,
    pub remote: Bag,
    pub ours_app: Bag,
    pub ours_unit: Bag,
    pub provider: Option<Provider>,
    /// Group → id of the secret that the provider made for it.
    pub secrets: BTreeMap<String, String>,
}

impl Relation {
    fn key(&self, unit: &str) -> String {
        format!(
            "{}:{} {}:{}",
            app_of(unit),
            self.endpoint,
            self.app,
            self.endpoint
        )
    }
}

pub struct Secret {
    /// This unit, its application, another application, or `model` for a user's.
    pub owner: String,
    pub label: String,
    /// The label that this unit gave it as a consumer.
    pub our_label: String,
    /// `None`: that revision was removed.
    pub revisions: Vec<Option<Bag>>,
    /// Whether this unit may read it.
    pub granted: bool,
    /// The revision this unit tracks, from 1; 0: none yet.
    pub tracked: usize,
}

/// One call of a hook command.
#[derive(Clone)]
pub struct Called {
    pub command: String,
    pub args: Vec<String>,
    pub stdin: Option<String>,
    pub code: u8,
    pub stderr: String,
}

/// The hook that runs.
#[derive(Default)]
pub struct Hook {
    pub context: String,
    pub relation: Option<u32>,
    pub remote_unit: String,
    pub remote_app: String,
    pub broken: bool,
    pub action: Option<Action>,
    pub calls: Vec<Called>,
    /// (relation, application's bag?) → what is written; an empty value deletes.
    pub bags: BTreeMap<(u32, bool), Bag>,
    pub state: Option<BTreeMap<String, String>>,
    pub open: BTreeSet<String>,
    pub close: BTreeSet<String>,
    /// What is done to secrets, in order.
    pub secrets: Vec<SecretChange>,
    pub status: Option<(String, String)>,
}

pub enum SecretChange {
    Add(String, Secret),
    Set(String, Bag),
    Remove(String),
}

#[derive(Default)]
pub struct Action {
    pub parameters: Map<String, Value>,
    pub results: Map<String, Value>,
    pub failed: Option<String>,
    pub log: Vec<String>,
}

/// Everything Juju keeps of this unit and its application.
pub struct Juju {
    pub charm: Charm,
    pub version: String,
    pub unit: String,
    pub leader: bool,
    pub model: String,
    pub uuid: String,
    pub address: String,
    /// Options that somebody set.
    pub config: BTreeMap<String, Value>,
    pub relations: BTreeMap<u32, Relation>,
    pub secrets: BTreeMap<String, Secret>,
    pub state: BTreeMap<String, String>,
    pub ports: BTreeSet<String>,
    pub unit_status: (String, String),
    pub app_status: (String, String),
    pub workload_version: String,
    /// What was logged in this hook: level and text.
    pub log: Vec<String>,
    /// Statuses set in this hook.
    pub statuses: Vec<String>,
    /// Beginning of a command line → exit code and text it fails with, as a Juju that is out of order does.
    pub faults: BTreeMap<String, (u8, String)>,
    pub hook: Option<Hook>,
    pub environments: BTreeSet<String>,
    pub made: u32,
}

/// Why a hook command ends badly.
enum Stop {
    Usage(String),
    Failed(String),
    NeedStdin,
}
use Stop::{Failed, NeedStdin, Usage};

/// What a hook command comes to: exit code, stdout, stderr; `None`: it wants its standard input.
pub type Ended = Option<(u8, String, String)>;

/// A flag's value.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Bool,
    Text,
    Relation,
    Format,
}

/// The flags a command takes, and the formats: the first is used when none is asked for.
fn flags(command: &str) -> (Vec<(&'static str, Kind)>, &'static [&'static str]) {
    const SMART: &[&str] = &["smart", "yaml", "json"];
    const YAML: &[&str] = &["yaml", "json"];
    let relation = [("r", Kind::Relation), ("relation", Kind::Relation)];
    let mut of: Vec<(&str, Kind)> = Vec::new();
    let mut formats: &[&str] = &[];
    match command {
        "config-get" => (of, formats) = (vec![("a", Kind::Bool), ("all", Kind::Bool)], SMART),
        "relation-get" | "relation-list" => {
            of.extend(relation);
            of.push(("app", Kind::Bool));
            formats = SMART;
        }
        "relation-model-get" => (of, formats) = (relation.to_vec(), SMART),
        "relation-set" => {
            of.extend(relation);
            of.extend([
                ("file", Kind::Text),
                ("app", Kind::Bool),
                ("format", Kind::Text),
            ]);
        }
        "relation-ids" | "is-leader" | "unit-get" | "action-get" | "leader-get" | "secret-ids"
        | "credential-get" => {
            formats = SMART;
        }
        "opened-ports" => (of, formats) = (vec![("endpoints", Kind::Bool)], SMART),
        "state-get" => (of, formats) = (vec![("strict", Kind::Bool)], SMART),
        "state-set" | "leader-set" => of.push(("file", Kind::Text)),
        "status-get" => {
            (of, formats) = (
                vec![("include-data", Kind::Bool), ("application", Kind::Bool)],
                SMART,
            )
        }
        "status-set" => of.push(("application", Kind::Bool)),
        "goal-state" => formats = YAML,
        "network-get" => {
            of.extend(relation);
            let names = [
                "primary-address",
                "bind-address",
                "ingress-address",
                "egress-subnets",
            ];
            of.extend(names.map(|name| (name, Kind::Bool)));
            formats = SMART;
        }
        "open-port" | "close-port" => {
            of.extend([("format", Kind::Text), ("endpoints", Kind::Text)])
        }
        "juju-log" => {
            of.extend([
                ("debug", Kind::Bool),
                ("l", Kind::Text),
                ("log-level", Kind::Text),
                ("format", Kind::Text),
            ]);
        }
        "juju-reboot" => of.push(("now", Kind::Bool)),
        "secret-get" => {
            (of, formats) = (
                vec![
                    ("label", Kind::Text),
                    ("peek", Kind::Bool),
                    ("refresh", Kind::Bool),
                ],
                YAML,
            );
        }
        "secret-info-get" => (of, formats) = (vec![("label", Kind::Text)], YAML),
        "secret-add" | "secret-set" => {
            of = ["expire", "rotate", "description", "label", "file", "owner"]
                .map(|n| (n, Kind::Text))
                .to_vec();
        }
        "secret-remove" => of.push(("revision", Kind::Text)),
        "secret-grant" => {
            of.extend(relation);
            of.push(("unit", Kind::Text));
        }
        "secret-revoke" => {
            of.extend(relation);
            of.extend([("unit", Kind::Text), ("app", Kind::Text)]);
        }
        _ => {}
    }
    if !formats.is_empty() {
        of.extend([
            ("format", Kind::Format),
            ("o", Kind::Text),
            ("output", Kind::Text),
        ]);
    }
    (of, formats)
}

/// Arguments, parsed as Juju parses them.
struct Parsed {
    format: String,
    flags: BTreeMap<&'static str, String>,
    /// The relation named, else the hook's.
    relation: Option<u32>,
    args: Vec<String>,
}

impl Parsed {
    fn has(&self, flag: &str) -> bool {
        self.flags.get(flag).is_some_and(|v| v == "true")
    }

    fn text(&self, flag: &str) -> &str {
        self.flags.get(flag).map_or("", String::as_str)
    }

    /// Refuses what is left after the first `n` arguments.
    fn at_most(&self, n: usize) -> Result<(), Stop> {
        match self.args.get(n..) {
            Some(rest) if !rest.is_empty() => {
                Err(Usage(format!("unrecognized args: {}", quoted(rest))))
            }
            _ => Ok(()),
        }
    }

    fn write(&self, value: &Value) -> String {
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

fn quoted(args: &[String]) -> String {
    format!(
        "[{}]",
        args.iter()
            .map(|a| format!("{a:?}"))
            .collect::<Vec<_>>()
            .join(" ")
    )
}

pub fn app_of(unit: &str) -> &str {
    unit.split('/').next().unwrap_or_default()
}

fn is_app(name: &str) -> bool {
    let piece = |p: &str| {
        p.bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
            && p.bytes().any(|b| b.is_ascii_lowercase())
    };
    name.starts_with(|c: char| c.is_ascii_lowercase()) && name.split('-').all(piece)
}

fn is_unit(name: &str) -> bool {
    name.split_once('/').is_some_and(|(app, n)| {
        is_app(app) && n.parse::<u32>().is_ok_and(|number| number.to_string() == n)
    })
}

/// The id in a secret's URI: `secret:ID`, `secret://MODEL/ID`, `secret:MODEL/ID` or `ID`.
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

/// `key=value` arguments.
fn pairs(args: &[String]) -> Result<Bag, Stop> {
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

/// `key[#base64|#file]=value` arguments of a secret.
fn secret_pairs(args: &[String]) -> Result<Bag, Stop> {
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

/// A YAML map of strings, from a file or the standard input (`-`).
fn settings_file(path: &str, stdin: Option<&str>) -> Result<Bag, Stop> {
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

fn apply(to: &mut Bag, changes: &Bag) {
    for (key, value) in changes {
        if value.is_empty() {
            to.remove(key);
        } else {
            to.insert(key.clone(), value.clone());
        }
    }
}

impl Juju {
    fn hook(&mut self) -> &mut Hook {
        self.hook.as_mut().expect("checked in run")
    }

    /// Runs one hook command.
    pub fn run(
        &mut self,
        context: &str,
        command: &str,
        args: &[String],
        stdin: Option<&str>,
    ) -> Ended {
        if self
            .hook
            .as_ref()
            .is_none_or(|hook| hook.context != context)
        {
            return Some((
                1,
                String::new(),
                format!("ERROR bad request: wrong context ID; got {context:?}\n"),
            ));
        }
        let line = format!("{command} {}", args.join(" "));
        let fault = self
            .faults
            .iter()
            .find(|(begin, _)| line.starts_with(begin.as_str()))
            .map(|(_, f)| f.clone());
        let ended = match fault {
            Some((code, text)) => (code, String::new(), format!("ERROR {text}\n")),
            None => {
                match self
                    .parse(command, args)
                    .and_then(|parsed| self.execute(command, &parsed, stdin))
                {
                    Ok(stdout) => (0, stdout, String::new()),
                    Err(NeedStdin) => return None,
                    Err(Usage(text)) => (2, String::new(), format!("ERROR {text}\n")),
                    Err(Failed(text)) => (1, String::new(), format!("ERROR {text}\n")),
                }
            }
        };
        let called = Called {
            command: command.to_owned(),
            args: args.to_vec(),
            stdin: stdin.map(str::to_owned),
            code: ended.0,
            stderr: ended.2.clone(),
        };
        self.hook().calls.push(called);
        Some(ended)
    }

    fn parse(&mut self, command: &str, args: &[String]) -> Result<Parsed, Stop> {
        let (known, formats) = flags(command);
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
            let (name, mut given) = match (arg.strip_prefix("--"), arg.strip_prefix('-')) {
                (Some(long), _) => match long.split_once('=') {
                    Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                    None => (long.to_owned(), None),
                },
                // A short flag's value may follow it at once.
                (None, Some(short)) if !short.is_empty() => {
                    let (name, value) =
                        short.split_at(short.chars().next().map_or(0, char::len_utf8));
                    (
                        name.to_owned(),
                        (!value.is_empty()).then(|| value.to_owned()),
                    )
                }
                _ => {
                    parsed.args.push(arg.clone());
                    continue;
                }
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

    fn execute(&mut self, command: &str, p: &Parsed, stdin: Option<&str>) -> Result<String, Stop> {
        match command {
            "config-get" => self.config_get(p),
            "relation-ids" => self.relation_ids(p),
            "relation-list" => {
                let id = p
                    .relation
                    .ok_or_else(|| Usage("no relation id specified".to_owned()))?;
                p.at_most(0)?;
                let relation = &self.relations[&id];
                let members = json!(relation.members);
                Ok(p.write(&if p.has("app") {
                    json!(relation.app)
                } else {
                    members
                }))
            }
            "relation-model-get" => {
                let id = p
                    .relation
                    .ok_or_else(|| Usage("no relation id specified".to_owned()))?;
                p.at_most(0)?;
                let model = &self.relations[&id].model;
                Ok(p.write(&json!({"uuid": if model.is_empty() { &self.uuid } else { model }})))
            }
            "relation-get" => self.relation_get(p),
            "relation-set" => self.relation_set(p, stdin),
            "is-leader" => {
                p.at_most(0)?;
                Ok(p.write(&json!(self.leader)))
            }
            "status-set" => self.status_set(p),
            "status-get" => self.status_get(p),
            "application-version-set" => {
                if p.args.is_empty() {
                    return Err(Usage("no version specified".to_owned()));
                }
                p.at_most(1)?;
                self.workload_version = p.args[0].clone();
                Ok(String::new())
            }
            "juju-log" => self.juju_log(p),
            "open-port" | "close-port" => self.port(command, p),
            "opened-ports" => {
                p.at_most(0)?;
                let shown = |port: &String| match p.has("endpoints") {
                    true => format!("{port} (*)"),
                    false => port.clone(),
                };
                Ok(p.write(&json!(self.ports.iter().map(shown).collect::<Vec<_>>())))
            }
            "unit-get" => {
                let Some(name) = p.args.first() else {
                    return Err(Usage("no setting specified".to_owned()));
                };
                if name != "private-address" && name != "public-address" {
                    return Err(Usage(format!("unknown setting {name:?}")));
                }
                p.at_most(1)?;
                Ok(p.write(&json!(self.address)))
            }
            "network-get" => self.network_get(p),
            "goal-state" => self.goal_state(p),
            "credential-get" => {
                let text =
                    "cannot access cloud credentials: getting model credentials: permission denied";
                Err(Failed(text.to_owned()))
            }
            "state-get" => self.state_get(p),
            "state-set" => self.state_set(p, stdin),
            "state-delete" => {
                let Some(key) = p.args.first() else {
                    return Ok(String::new());
                };
                p.at_most(1)?;
                let state = self.state.clone();
                self.hook().state.get_or_insert(state).remove(key);
                Ok(String::new())
            }
            "secret-get" => self.secret_get(p),
            "secret-add" => self.secret_add(p),
            "secret-set" | "secret-remove" => self.secret_change(command, p),
            "secret-info-get" => self.secret_info_get(p),
            "secret-ids" => {
                let ours: Vec<&String> = self
                    .secrets
                    .iter()
                    .filter(|(_, s)| self.manages(s))
                    .map(|(id, _)| id)
                    .collect();
                Ok(p.write(&json!(ours)))
            }
            "action-get" | "action-set" | "action-fail" | "action-log" => self.action(command, p),
            // Commands that no rule of this charm asks for.
            _ => Err(Failed(format!("the stand-in has no {command}"))),
        }
    }

    /// All options: set, else default, else null.
    pub fn options(&self) -> BTreeMap<String, Value> {
        let value =
            |name: &String, default: &Value| self.config.get(name).unwrap_or(default).clone();
        self.charm
            .options
            .iter()
            .map(|(name, (_, default))| (name.clone(), value(name, default)))
            .collect()
    }

    fn config_get(&mut self, p: &Parsed) -> Result<String, Stop> {
        let key = p.args.first().map_or("", String::as_str);
        let all = p.has("a") || p.has("all");
        if !key.is_empty() && all {
            return Err(Usage(format!(
                "cannot use argument --all together with key {key:?}"
            )));
        }
        p.at_most(1)?;
        let mut options = self.options();
        if !key.is_empty() {
            return Ok(p.write(&options.remove(key).unwrap_or(Value::Null)));
        }
        options.retain(|_, value| all || !value.is_null());
        Ok(p.write(&json!(options)))
    }

    fn relation_ids(&mut self, p: &Parsed) -> Result<String, Stop> {
        let hook = self.hook();
        let (current, broken) = (hook.relation, hook.broken);
        let name = match (p.args.first(), current) {
            (Some(name), _) => name.clone(),
            (None, Some(id)) => self.relations[&id].endpoint.clone(),
            (None, None) => return Err(Usage("no endpoint name specified".to_owned())),
        };
        p.at_most(1)?;
        let is = |id: &u32, r: &Relation| r.endpoint == name && !(broken && current == Some(*id));
        let mut ids: Vec<String> = self
            .relations
            .iter()
            .filter(|(id, r)| is(id, r))
            .map(|(id, r)| format!("{}:{id}", r.endpoint))
            .collect();
        ids.sort();
        Ok(p.write(&json!(ids)))
    }

    fn relation_get(&mut self, p: &Parsed) -> Result<String, Stop> {
        let Some(id) = p.relation else {
            return Err(Usage("no relation id specified".to_owned()));
        };
        let key = p.args.first().map_or("", String::as_str);
        let key = if key == "-" { "" } else { key };
        let mut app = p.has("app");
        let hook = self.hook();
        let (remote_unit, remote_app) = (hook.remote_unit.clone(), hook.remote_app.clone());
        let none = || Usage("no unit or application specified".to_owned());
        let whose = match p.args.get(1) {
            Some(name) if app => {
                if is_app(name) {
                    name.clone()
                } else if is_unit(name) {
                    app_of(name).to_owned()
                } else {
                    String::new()
                }
            }
            Some(name) if is_unit(name) => name.clone(),
            Some(name) if is_app(name) => {
                return Err(Usage(format!(
                    "expected unit name, got application name {name:?}"
                )));
            }
            Some(name) => return Err(Usage(format!("invalid unit name {name:?}"))),
            None if app && remote_app.is_empty() => return Err(none()),
            None if app => remote_app,
            None if !remote_unit.is_empty() => remote_unit,
            None if !remote_app.is_empty() => {
                app = true;
                remote_app
            }
            None => return Err(none()),
        };
        p.at_most(2)?;
        let relation = &self.relations[&id];
        let own_app = app_of(&self.unit).to_owned();
        let denied = || Failed("permission denied".to_owned());
        let bag = if whose == self.unit || (whose == own_app && app) {
            let peer = self
                .charm
                .endpoints
                .get(&relation.endpoint)
                .is_some_and(|role| role == "peers");
            if app && !self.leader && !peer {
                return Err(denied());
            }
            let mut bag = if app {
                relation.ours_app.clone()
            } else {
                relation.ours_unit.clone()
            };
            if let Some(changes) = self
                .hook
                .as_ref()
                .and_then(|hook| hook.bags.get(&(id, app)))
            {
                apply(&mut bag, changes);
            }
            bag
        } else if app {
            if whose != relation.app {
                return Err(denied());
            }
            relation.remote.clone()
        } else {
            if app_of(&whose) != relation.app {
                return Err(denied());
            }
            let bag = relation
                .units
                .get(&whose)
                .or_else(|| relation.gone.get(&whose))
                .cloned();
            bag.ok_or_else(|| {
                let key = relation.key(&self.unit);
                let text = "cannot read settings for unit";
                Failed(format!(
                    "{text} {whose:?} in relation {key:?}: unit {whose:?}: settings not found"
                ))
            })?
        };
        Ok(p.write(&match key {
            "" => json!(bag),
            key => bag.get(key).map_or(Value::Null, |value| json!(value)),
        }))
    }

    fn relation_set(&mut self, p: &Parsed, stdin: Option<&str>) -> Result<String, Stop> {
        let Some(id) = p.relation else {
            return Err(Usage("no relation id specified".to_owned()));
        };
        let given = pairs(&p.args)?;
        let mut settings = settings_file(p.text("file"), stdin)?;
        settings.extend(given);
        let app = p.has("app");
        if app && !self.leader {
            return Err(Failed("cannot write relation settings".to_owned()));
        }
        self.hook()
            .bags
            .entry((id, app))
            .or_default()
            .extend(settings);
        Ok(String::new())
    }

    fn status_set(&mut self, p: &Parsed) -> Result<String, Stop> {
        let Some(status) = p.args.first() else {
            return Err(Usage("invalid args, require <status> [message]".to_owned()));
        };
        if !["maintenance", "blocked", "waiting", "active"].contains(&status.as_str()) {
            let of = "[maintenance blocked waiting active]";
            return Err(Usage(format!(
                "invalid status {status:?}, expected one of {of}"
            )));
        }
        p.at_most(2)?;
        let set = (status.clone(), p.args.get(1).cloned().unwrap_or_default());
        if p.has("application") {
            if !self.leader {
                return Err(Failed("this unit is not the leader".to_owned()));
            }
            self.statuses
                .push(format!("application {} {:?}", set.0, set.1));
            self.app_status = set;
        } else {
            self.statuses.push(format!("{} {:?}", set.0, set.1));
            self.unit_status = set;
        }
        Ok(String::new())
    }

    fn status_get(&mut self, p: &Parsed) -> Result<String, Stop> {
        p.at_most(0)?;
        let detail = |status: &(String, String)| match p.has("include-data") {
            true => json!({"status": status.0, "message": status.1, "status-data": {}}),
            false => json!({"status": status.0}),
        };
        let short = !p.has("include-data") && p.format == "smart";
        if p.has("application") {
            if !self.leader {
                return Err(Failed(
                    "finding application status: this unit is not the leader".to_owned(),
                ));
            }
            if short {
                return Ok(p.write(&json!(self.app_status.0)));
            }
            let mut all = detail(&self.app_status);
            all["units"] = json!({self.unit.clone(): detail(&self.unit_status)});
            return Ok(p.write(&json!({"application-status": all})));
        }
        // What was read first in this hook is what stays to be seen.
        let now = self.unit_status.clone();
        let seen = self.hook().status.get_or_insert(now).clone();
        Ok(p.write(&if short { json!(seen.0) } else { detail(&seen) }))
    }

    fn juju_log(&mut self, p: &Parsed) -> Result<String, Stop> {
        if p.args.is_empty() {
            return Err(Usage("no message specified".to_owned()));
        }
        let level = if p.text("l").is_empty() {
            p.text("log-level")
        } else {
            p.text("l")
        };
        let level = match level.to_uppercase().as_str() {
            _ if p.has("debug") => "DEBUG",
            "" | "INFO" => "INFO",
            "TRACE" => "TRACE",
            "DEBUG" => "DEBUG",
            "WARN" | "WARNING" => "WARNING",
            "ERROR" => "ERROR",
            "CRITICAL" => "CRITICAL",
            other => {
                self.log.push(format!(
                    "WARNING Specified log level of {other:?} is not valid"
                ));
                "INFO"
            }
        };
        let relation = self.hook().relation;
        let prefix = relation
            .map(|id| format!("{}:{id}: ", self.relations[&id].endpoint))
            .unwrap_or_default();
        self.log
            .push(format!("{level} {prefix}{}", p.args.join(" ")));
        Ok(String::new())
    }

    fn port(&mut self, command: &str, p: &Parsed) -> Result<String, Stop> {
        let Some(given) = p.args.first().map(|a| a.to_lowercase()) else {
            return Err(Usage("no port or range specified".to_owned()));
        };
        let (port, protocol) = given.split_once('/').unwrap_or((&given, "tcp"));
        if port.contains('-') {
            let text =
                "port ranges are not supported for k8s applications, please specify a single port";
            return Err(Failed(text.to_owned()));
        }
        let number: i64 = port.parse().map_err(|_| {
            Usage(format!(
                "invalid port {port:?}: strconv.Atoi: parsing {port:?}: invalid syntax"
            ))
        })?;
        if !(1..=65535).contains(&number) {
            return Err(Usage(format!(
                "port range bounds must be between 1 and 65535, got {number}-{number}"
            )));
        }
        if protocol != "tcp" && protocol != "udp" {
            return Err(Usage(format!(
                "invalid protocol {protocol:?}, expected \"tcp\", \"udp\", or \"icmp\""
            )));
        }
        p.at_most(1)?;
        let port = format!("{number}/{protocol}");
        let hook = self.hook();
        let (to, from) = if command == "open-port" {
            (&mut hook.open, &mut hook.close)
        } else {
            (&mut hook.close, &mut hook.open)
        };
        from.remove(&port);
        to.insert(port);
        Ok(String::new())
    }

    fn network_get(&mut self, p: &Parsed) -> Result<String, Stop> {
        let Some(binding) = p.args.first() else {
            return Err(Usage("no arguments specified".to_owned()));
        };
        if binding.is_empty() {
            return Err(Usage("no binding name specified".to_owned()));
        }
        p.at_most(1)?;
        if binding != "juju-info" && !self.charm.endpoints.contains_key(binding) {
            return Err(Failed(format!(
                "no network config found for binding {binding:?}"
            )));
        }
        let address = &self.address;
        let subnets = json!([format!("{address}/32")]);
        if p.has("primary-address") {
            return Ok(p.write(&json!(address)));
        }
        let mut asked = Map::new();
        if p.has("bind-address") {
            asked.insert("bind-address".to_owned(), json!(address));
        }
        if p.has("ingress-address") {
            asked.insert("ingress-address".to_owned(), json!(address));
        }
        if p.has("egress-subnets") {
            asked.insert("egress-subnets".to_owned(), subnets.clone());
        }
        let all = json!({
            "bind-addresses": [{
                "mac-address": "", "interface-name": "",
                "addresses": [{"hostname": "", "value": address, "cidr": "", "address": address}],
            }],
            "egress-subnets": subnets,
            "ingress-addresses": [address],
        });
        Ok(p.write(&match asked.len() {
            0 => all,
            1 => asked.into_values().next().expect("one"),
            _ => Value::Object(asked),
        }))
    }

    fn goal_state(&mut self, p: &Parsed) -> Result<String, Stop> {
        p.at_most(0)?;
        let since = "2026-01-01 00:00:00Z";
        let mut relations: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
        for relation in self.relations.values() {
            let of = relations.entry(relation.endpoint.clone()).or_default();
            of.insert(
                relation.app.clone(),
                json!({"status": "joined", "since": since}),
            );
            for unit in relation.units.keys() {
                of.insert(unit.clone(), json!({"status": "active", "since": since}));
            }
        }
        let units = json!({self.unit.clone(): {"status": self.unit_status.0, "since": since}});
        Ok(p.write(&json!({"units": units, "relations": relations})))
    }

    fn state_get(&mut self, p: &Parsed) -> Result<String, Stop> {
        p.at_most(1)?;
        let state = self
            .hook
            .as_ref()
            .and_then(|h| h.state.as_ref())
            .unwrap_or(&self.state);
        match p.args.first().map_or("-", String::as_str) {
            "-" | "" => Ok(p.write(&if state.is_empty() {
                Value::Null
            } else {
                json!(state)
            })),
            key => match state.get(key) {
                None if p.has("strict") => Err(Failed(format!("{key:?} not found"))),
                found => Ok(p.write(&json!(found.cloned().unwrap_or_default()))),
            },
        }
    }

    fn state_set(&mut self, p: &Parsed, stdin: Option<&str>) -> Result<String, Stop> {
        let given = pairs(&p.args)?;
        let mut values = settings_file(p.text("file"), stdin)?;
        values.extend(given);
        let mut state = self
            .hook()
            .state
            .clone()
            .unwrap_or_else(|| self.state.clone());
        for (key, value) in values {
            if key.len() > 256 {
                return Err(Failed("max allowed key length (256) exceeded".to_owned()));
            }
            if value.len() > 65536 {
                return Err(Failed(
                    "max allowed value length (65536) exceeded".to_owned(),
                ));
            }
            state.insert(key, value);
        }
        self.hook().state = Some(state);
        Ok(String::new())
    }

    /// Whether this unit may change it and see its metadata.
    fn manages(&self, secret: &Secret) -> bool {
        secret.owner == self.unit || (secret.owner == app_of(&self.unit) && self.leader)
    }

    fn secret_get(&mut self, p: &Parsed) -> Result<String, Stop> {
        let mut id = None;
        if let Some(uri) = p.args.first() {
            id =
                Some(secret_id(uri).ok_or_else(|| Usage(format!("secret URI {uri:?} not valid")))?);
        }
        let label = p.text("label").to_owned();
        if id.is_none() && label.is_empty() {
            return Err(Usage("require either a secret URI or label".to_owned()));
        }
        if p.has("peek") && p.has("refresh") {
            return Err(Usage(
                "specify one of --peek or --refresh but not both".to_owned(),
            ));
        }
        p.at_most(2)?;
        let key = p.args.get(1).cloned().unwrap_or_default();
        for change in &self.hook().secrets {
            if let SecretChange::Add(added, secret) = change
                && (id.as_ref() == Some(added) || (!label.is_empty() && secret.label == label))
            {
                let content = secret.revisions[0].clone().unwrap_or_default();
                return show_secret(p, &content, &key);
            }
        }
        let (unit, own_app) = (self.unit.clone(), app_of(&self.unit).to_owned());
        let mine = |s: &Secret| s.owner == unit || s.owner == own_app;
        let id = match id {
            Some(id) => id,
            None => {
                let ours = self
                    .secrets
                    .iter()
                    .find(|(_, s)| mine(s) && s.label == label);
                let found = ours.or_else(|| {
                    self.secrets
                        .iter()
                        .find(|(_, s)| !mine(s) && s.our_label == label)
                });
                found
                    .map(|(id, _)| id.clone())
                    .ok_or_else(|| Failed(format!("consumer label {label:?} not found")))?
            }
        };
        let taken = self
            .secrets
            .iter()
            .any(|(other, s)| *other != id && !mine(s) && s.our_label == label);
        let secret = self
            .secrets
            .get_mut(&id)
            .ok_or_else(|| Failed(format!("secret {id:?} not found")))?;
        if !secret.granted && !mine(secret) {
            return Err(Failed("permission denied".to_owned()));
        }
        if !label.is_empty() && !mine(secret) && !p.args.is_empty() && !taken {
            secret.our_label = label;
        }
        let latest = secret.revisions.len();
        let wanted = if p.has("peek") || p.has("refresh") || secret.tracked == 0 {
            latest
        } else {
            secret.tracked
        };
        if p.has("refresh") || secret.tracked == 0 {
            secret.tracked = wanted;
        }
        let content = secret.revisions[wanted - 1].clone();
        let content =
            content.ok_or_else(|| Failed(format!("secret revision {wanted} not found")))?;
        show_secret(p, &content, &key)
    }

    fn secret_add(&mut self, p: &Parsed) -> Result<String, Stop> {
        if p.args.is_empty() && p.text("file").is_empty() {
            return Err(Usage("missing secret value or filename".to_owned()));
        }
        let owner = match p.text("owner") {
            "" | "application" => app_of(&self.unit).to_owned(),
            "unit" => self.unit.clone(),
            other => return Err(Usage(format!("secret owner {other:?} not valid"))),
        };
        let content = secret_pairs(&p.args)?;
        if owner != self.unit && !self.leader {
            return Err(Failed("this unit is not the leader".to_owned()));
        }
        self.made += 1;
        let id = format!("c0added{:012}g", self.made);
        let secret = Secret {
            owner,
            label: p.text("label").to_owned(),
            our_label: String::new(),
            revisions: vec![Some(content)],
            granted: true,
            tracked: 0,
        };
        self.hook()
            .secrets
            .push(SecretChange::Add(id.clone(), secret));
        Ok(format!("secret:{id}\n"))
    }

    fn secret_change(&mut self, command: &str, p: &Parsed) -> Result<String, Stop> {
        let Some(uri) = p.args.first() else {
            return Err(Usage("missing secret URI".to_owned()));
        };
        let id = secret_id(uri).ok_or_else(|| Usage(format!("secret URI {uri:?} not valid")))?;
        let change = if command == "secret-set" {
            SecretChange::Set(id, secret_pairs(&p.args[1..])?)
        } else {
            p.at_most(1)?;
            SecretChange::Remove(id)
        };
        // Whether this unit may is asked at the commit only.
        self.hook().secrets.push(change);
        Ok(String::new())
    }

    fn secret_info_get(&mut self, p: &Parsed) -> Result<String, Stop> {
        let mut wanted = p.text("label").to_owned();
        let by_id = !p.args.is_empty();
        if let Some(uri) = p.args.first() {
            if !wanted.is_empty() {
                return Err(Usage(
                    "specify either a secret URI or label but not both".to_owned(),
                ));
            }
            wanted =
                secret_id(uri).ok_or_else(|| Usage(format!("secret URI {uri:?} not valid")))?;
        }
        if wanted.is_empty() {
            return Err(Usage("require either a secret URI or label".to_owned()));
        }
        p.at_most(1)?;
        let is = |id: &String, s: &Secret| {
            self.manages(s)
                && if by_id {
                    *id == wanted
                } else {
                    s.label == wanted
                }
        };
        let found = self.secrets.iter().find(|(id, s)| is(id, s));
        let (id, secret) = found.ok_or_else(|| Failed(format!("secret {wanted:?} not found")))?;
        let owner = if secret.owner == self.unit {
            "unit"
        } else {
            "application"
        };
        let info =
            json!({"revision": secret.revisions.len(), "label": secret.label, "owner": owner});
        Ok(p.write(&json!({id.clone(): info})))
    }

    fn action(&mut self, command: &str, p: &Parsed) -> Result<String, Stop> {
        let mut sets = Vec::new();
        match command {
            "action-get" => p.at_most(1)?,
            "action-fail" => p.at_most(1)?,
            "action-log" if p.args.is_empty() => {
                return Err(Usage("no message specified".to_owned()));
            }
            "action-set" => {
                for arg in &p.args {
                    let Some((path, value)) = arg.split_once('=') else {
                        return Err(Usage(format!(
                            "argument {arg:?} must be of the form key...=value"
                        )));
                    };
                    for key in path.split('.') {
                        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
                        let inner = key.bytes().all(|b| plain(b) || b == b'-');
                        let ends = key.bytes().next().is_some_and(plain)
                            && key.bytes().last().is_some_and(plain);
                        if !inner || !ends {
                            return Err(Usage(format!(
                                "key {key:?} must start and end with lowercase alphanumeric, and contain only \
                                 lowercase alphanumeric and hyphens"
                            )));
                        }
                        if ["stdout", "stdout-encoding", "stderr", "stderr-encoding"].contains(&key)
                        {
                            return Err(Usage(format!("cannot set reserved action key {key:?}")));
                        }
                    }
                    sets.push((path.to_owned(), value.to_owned()));
                }
            }
            _ => {}
        }
        let action = self
            .hook()
            .action
            .as_mut()
            .ok_or_else(|| Failed("not running an action".to_owned()))?;
        match command {
            "action-get" => {
                let mut value = Value::Object(action.parameters.clone());
                for key in p.args.first().iter().flat_map(|path| path.split('.')) {
                    value = value[key].take();
                }
                return Ok(p.write(&value));
            }
            "action-fail" => {
                let text = "action failed without reason given, check action for errors";
                action.failed = Some(p.args.first().map_or(text, String::as_str).to_owned());
            }
            "action-log" => action.log.push(p.args.join(" ")),
            _ => {
                for (path, value) in sets {
                    let mut at = &mut action.results;
                    let mut keys: Vec<&str> = path.split('.').collect();
                    let last = keys.pop().expect("split gives one");
                    for key in keys {
                        let next = at.entry(key).or_insert_with(|| json!({}));
                        if !next.is_object() {
                            *next = json!({});
                        }
                        at = next.as_object_mut().expect("made one");
                    }
                    at.insert(last.to_owned(), json!(value));
                }
            }
        }
        Ok(String::new())
    }

    /// Takes what the hook left behind; says what it was, line by line.
    ///
    /// # Errors
    /// What Juju's commit fails with: the hook has failed then, and nothing else of it is kept.
    pub fn commit(&mut self, hook: &mut Hook) -> Result<Vec<String>, String> {
        let mut said = Vec::new();
        for change in std::mem::take(&mut hook.secrets) {
            let may = |juju: &Juju, id: &String| match juju.secrets.get(id) {
                None => Err("updating secrets: secret not found".to_owned()),
                Some(secret) if juju.manages(secret) => Ok(()),
                Some(_) => Err("updating secrets: permission denied".to_owned()),
            };
            match change {
                SecretChange::Add(id, secret) => {
                    said.push(format!("secret {id} added"));
                    self.secrets.insert(id, secret);
                }
                SecretChange::Set(id, content) => {
                    may(self, &id)?;
                    said.push(format!("secret {id} set"));
                    self.secrets
                        .get_mut(&id)
                        .expect("checked")
                        .revisions
                        .push(Some(content));
                }
                SecretChange::Remove(id) => {
                    may(self, &id)?;
                    said.push(format!("secret {id} removed"));
                    self.secrets.remove(&id);
                }
            }
        }
        if let Some(state) = &hook.state {
            let size: usize = state.iter().map(|(k, v)| k.len() + v.len()).sum();
            if size > 2 << 20 {
                return Err(format!(
                    "max allowed size ({}) exceeded: quota limit exceeded",
                    2 << 20
                ));
            }
        }
        for ((id, app), changes) in std::mem::take(&mut hook.bags) {
            let relation = self.relations.get_mut(&id).expect("checked by the command");
            let name = format!("{}:{id}", relation.endpoint);
            let bag = if app {
                &mut relation.ours_app
            } else {
                &mut relation.ours_unit
            };
            for (key, value) in changes {
                let before = bag.get(&key).cloned().unwrap_or_default();
                if before == value {
                    continue;
                }
                let whose = if app { "application" } else { "unit" };
                said.push(format!("{name} {whose} {key}: {value}"));
                apply(bag, &Bag::from([(key, value)]));
            }
        }
        if let Some(state) = hook.state.take() {
            for (key, value) in &state {
                if self.state.get(key) != Some(value) {
                    said.push(format!("state {key}: {value}"));
                }
            }
            said.extend(
                self.state
                    .keys()
                    .filter(|k| !state.contains_key(*k))
                    .map(|k| format!("state {k} deleted")),
            );
            self.state = state;
        }
        for port in std::mem::take(&mut hook.close) {
            if self.ports.remove(&port) {
                said.push(format!("close {port}"));
            }
        }
        for port in std::mem::take(&mut hook.open) {
            said.push(format!("open {port}"));
            self.ports.insert(port);
        }
        Ok(said)
    }
}

fn show_secret(p: &Parsed, content: &Bag, key: &str) -> Result<String, Stop> {
    match key {
        "" => Ok(p.write(&json!(content))),
        key => match content.get(key.trim_end_matches("#base64")) {
            None => Err(Failed(format!("secret key value {key:?} not found"))),
            Some(value) => Ok(p.write(&json!(value))),
        },
    }
}
