//! The hook commands about relations.

use super::Stop::{Failed, Usage};
use super::parse::{Parsed, is_app, is_unit, pairs, settings_file};
use super::{Bag, Juju, Relation, Stop, app_of, apply};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

impl Juju {
    pub(super) fn relation_ids(&mut self, p: &Parsed) -> Result<String, Stop> {
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

    pub(super) fn relation_get(&mut self, p: &Parsed) -> Result<String, Stop> {
        let Some(id) = p.relation else {
            return Err(Usage("no relation id specified".to_owned()));
        };
        let key = p.args.first().map_or("", String::as_str);
        let key = if key == "-" { "" } else { key };
        let (whose, app) = self.whose_bag(p)?;
        p.at_most(2)?;
        let bag = self.read_bag(id, &whose, app)?;
        Ok(p.write(&match key {
            "" => json!(bag),
            key => bag.get(key).map_or(Value::Null, |value| json!(value)),
        }))
    }

    /// Whose databag is asked for, and whether that is an application.
    fn whose_bag(&mut self, p: &Parsed) -> Result<(String, bool), Stop> {
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
        Ok((whose, app))
    }

    /// A databag as this unit sees it in its hook.
    fn read_bag(&self, id: u32, whose: &str, app: bool) -> Result<Bag, Stop> {
        let relation = &self.relations[&id];
        let own_app = app_of(&self.unit).to_owned();
        let denied = || Failed("permission denied".to_owned());
        if whose == self.unit || (whose == own_app && app) {
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
            Ok(bag)
        } else if app {
            if whose != relation.app {
                return Err(denied());
            }
            Ok(relation.remote.clone())
        } else {
            if app_of(whose) != relation.app {
                return Err(denied());
            }
            let bag = relation
                .units
                .get(whose)
                .or_else(|| relation.gone.get(whose))
                .cloned();
            bag.ok_or_else(|| {
                let key = relation.key(&self.unit);
                let text = "cannot read settings for unit";
                Failed(format!(
                    "{text} {whose:?} in relation {key:?}: unit {whose:?}: settings not found"
                ))
            })
        }
    }

    pub(super) fn relation_set(&mut self, p: &Parsed, stdin: Option<&str>) -> Result<String, Stop> {
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

    pub(super) fn network_get(&mut self, p: &Parsed) -> Result<String, Stop> {
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

    pub(super) fn goal_state(&mut self, p: &Parsed) -> Result<String, Stop> {
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
}
