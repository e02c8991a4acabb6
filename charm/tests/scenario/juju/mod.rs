//! What Juju's agent and controller keep about one unit; and the hook commands, which refuse what
//! Juju's refuse.
//!
//! Flags, texts and exit codes are those of Juju 3.6.11: exit code 2 for wrong arguments, 1 for
//! what fails. Relation data, charm state, ports and secrets are kept only when the hook ends well.
//! Statuses, versions and logs are kept at once.

mod charm;
mod parse;
mod relations;
mod unit;
mod secrets;
mod commit;

pub use charm::{Charm, is_a};
pub use parse::secret_id;

use crate::provider::Provider;
use parse::Parsed;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The hook commands that exist. Juju 3.5 has no `relation-model-get`.
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

/// One relation as this unit's agent sees it.
#[derive(Default)]
pub struct Relation {
    pub endpoint: String,
    pub app: String,
    /// The UUID of the other side's model; empty for our own model.
    pub model: String,
    pub units: BTreeMap<String, Bag>,
    /// Those of the units that this unit has been told about.
    pub members: BTreeSet<String>,
    /// Units that have departed. Their data can still be read.
    pub gone: BTreeMap<String, Bag>,
    pub remote: Bag,
    pub ours_app: Bag,
    pub ours_unit: Bag,
    pub provider: Option<Provider>,
    /// Group, such as `secret-user` → the id of the secret that the provider has made for it.
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
    /// This unit, its application, another application, or `model` for a user secret.
    pub owner: String,
    pub label: String,
    /// The label that this unit has given it as a consumer.
    pub our_label: String,
    /// The revisions from 1 on; `None` for one that was removed.
    pub revisions: Vec<Option<Bag>>,
    /// Whether this unit may read it.
    pub granted: bool,
    /// The revision that this unit tracks, from 1 on; 0 when it tracks none yet.
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
    /// (relation, whether it is the application's databag) → what is written. An empty value
    /// deletes.
    pub bags: BTreeMap<(u32, bool), Bag>,
    pub state: Option<BTreeMap<String, String>>,
    pub open: BTreeSet<String>,
    pub close: BTreeSet<String>,
    /// The changes to secrets, in their order.
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

/// Everything that Juju keeps about this unit and its application.
pub struct Juju {
    pub charm: Charm,
    pub version: String,
    pub unit: String,
    pub leader: bool,
    pub model: String,
    pub uuid: String,
    pub address: String,
    /// The options that somebody has set.
    pub config: BTreeMap<String, Value>,
    pub relations: BTreeMap<u32, Relation>,
    pub secrets: BTreeMap<String, Secret>,
    pub state: BTreeMap<String, String>,
    pub ports: BTreeSet<String>,
    pub unit_status: (String, String),
    pub app_status: (String, String),
    pub workload_version: String,
    /// What this hook has logged: level and text.
    pub log: Vec<String>,
    /// The statuses that this hook has set.
    pub statuses: Vec<String>,
    /// The beginning of a command line → the exit code and the text with which it fails, as when
    /// the controller cannot be reached.
    pub faults: BTreeMap<String, (u8, String)>,
    pub hook: Option<Hook>,
    pub environments: BTreeSet<String>,
    pub made: u32,
}

/// Why a hook command fails.
enum Stop {
    Usage(String),
    Failed(String),
    NeedStdin,
}
use Stop::{Failed, NeedStdin, Usage};

/// How a hook command ends: exit code, stdout and stderr; `None` when it wants its standard input.
pub type Ended = Option<(u8, String, String)>;

pub fn app_of(unit: &str) -> &str {
    unit.split('/').next().unwrap_or_default()
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

    fn execute(&mut self, command: &str, p: &Parsed, stdin: Option<&str>) -> Result<String, Stop> {
        match command {
            "config-get" => self.config_get(p),
            "relation-ids" => self.relation_ids(p),
            "relation-list" => self.relation_list(p),
            "relation-model-get" => self.relation_model_get(p),
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
            "opened-ports" => self.opened_ports(p),
            "unit-get" => self.unit_get(p),
            "network-get" => self.network_get(p),
            "goal-state" => self.goal_state(p),
            "credential-get" => {
                let text =
                    "cannot access cloud credentials: getting model credentials: permission denied";
                Err(Failed(text.to_owned()))
            }
            "state-get" => self.state_get(p),
            "state-set" => self.state_set(p, stdin),
            "state-delete" => self.state_delete(p),
            "secret-get" => self.secret_get(p),
            "secret-add" => self.secret_add(p),
            "secret-set" | "secret-remove" => self.secret_change(command, p),
            "secret-info-get" => self.secret_info_get(p),
            "secret-ids" => self.secret_ids(p),
            "action-get" | "action-set" | "action-fail" | "action-log" => self.action(command, p),
            // Commands that this charm does not call.
            _ => Err(Failed(format!("the stand-in has no {command}"))),
        }
    }

    fn relation_list(&mut self, p: &Parsed) -> Result<String, Stop> {
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

    fn relation_model_get(&mut self, p: &Parsed) -> Result<String, Stop> {
        let id = p
            .relation
            .ok_or_else(|| Usage("no relation id specified".to_owned()))?;
        p.at_most(0)?;
        let model = &self.relations[&id].model;
        Ok(p.write(&json!({"uuid": if model.is_empty() { &self.uuid } else { model }})))
    }

    fn opened_ports(&mut self, p: &Parsed) -> Result<String, Stop> {
        p.at_most(0)?;
        let shown = |port: &String| match p.has("endpoints") {
            true => format!("{port} (*)"),
            false => port.clone(),
        };
        Ok(p.write(&json!(self.ports.iter().map(shown).collect::<Vec<_>>())))
    }

    fn unit_get(&mut self, p: &Parsed) -> Result<String, Stop> {
        let Some(name) = p.args.first() else {
            return Err(Usage("no setting specified".to_owned()));
        };
        if name != "private-address" && name != "public-address" {
            return Err(Usage(format!("unknown setting {name:?}")));
        }
        p.at_most(1)?;
        Ok(p.write(&json!(self.address)))
    }

    fn state_delete(&mut self, p: &Parsed) -> Result<String, Stop> {
        let Some(key) = p.args.first() else {
            return Ok(String::new());
        };
        p.at_most(1)?;
        let state = self.state.clone();
        self.hook().state.get_or_insert(state).remove(key);
        Ok(String::new())
    }

    fn secret_ids(&mut self, p: &Parsed) -> Result<String, Stop> {
        let ours: Vec<&String> = self
            .secrets
            .iter()
            .filter(|(_, s)| self.manages(s))
            .map(|(id, _)| id)
            .collect();
        Ok(p.write(&json!(ours)))
    }

    /// All options: the value that is set, else the default, else null.
    pub fn options(&self) -> BTreeMap<String, Value> {
        let value =
            |name: &String, default: &Value| self.config.get(name).unwrap_or(default).clone();
        self.charm
            .options
            .iter()
            .map(|(name, (_, default))| (name.clone(), value(name, default)))
            .collect()
    }
}
