//! The events of Juju: hooks of the unit, of relations, of the workload and of secrets; actions.

use super::{Run, World};
use crate::juju::Action;
use serde_json::{Value, json};

/// The variables of a relation's event that are about the other side.
#[derive(Default)]
pub(super) struct Event {
    pub(super) variables: Vec<(String, String)>,
    pub(super) relation: Option<u32>,
    pub(super) remote_unit: String,
    pub(super) broken: bool,
    pub(super) action: Option<Action>,
}

impl World {
    /// A hook without a relation: install, config-changed, start, update-status and so on.
    pub fn hook(&mut self, name: &str) -> Run {
        self.dispatch(&format!("hooks/{name}"), name, Event::default())
    }

    /// The event `created`, `changed` (of the application's databag) or `broken` (when the units
    /// have departed already).
    pub fn relation_event(&mut self, id: u32, kind: &str) -> Run {
        if kind == "broken" {
            let mut juju = self.juju();
            let relation = juju.relations.get_mut(&id).expect("a relation");
            relation.members.clear();
            let units = std::mem::take(&mut relation.units);
            relation.gone.extend(units);
        }
        let run = self.relation_hook(id, kind, "", Vec::new());
        if kind == "broken" && run.error.is_none() {
            let mut juju = self.juju();
            let relation = juju.relations.remove(&id).expect("a relation");
            for secret in relation.secrets.values() {
                juju.secrets.remove(secret);
            }
        }
        run
    }

    /// The event `joined`, `changed` or `departed` of one unit.
    pub fn unit_event(&mut self, id: u32, kind: &str, unit: &str) -> Run {
        let mut more = Vec::new();
        {
            // A unit is a member from its first hook on, and no longer in the hook that says it
            // departs.
            let mut juju = self.juju();
            let members = &mut juju.relations.get_mut(&id).expect("a relation").members;
            match kind {
                "departed" => members.remove(unit),
                _ => members.insert(unit.to_owned()),
            };
        }
        if kind == "departed" {
            more.push(("JUJU_DEPARTING_UNIT".to_owned(), unit.to_owned()));
        }
        let run = self.relation_hook(id, kind, unit, more);
        if kind == "departed" && run.error.is_none() {
            let mut juju = self.juju();
            let relation = juju.relations.get_mut(&id).expect("a relation");
            if let Some(bag) = relation.units.remove(unit) {
                relation.gone.insert(unit.to_owned(), bag);
            }
        }
        run
    }

    /// Removes a relation as Juju does: each unit departs, then the relation breaks.
    pub fn remove(&mut self, id: u32) -> Run {
        let units: Vec<String> = self.juju().relations[&id].units.keys().cloned().collect();
        for unit in units {
            self.unit_event(id, "departed", &unit).good();
        }
        self.relation_event(id, "broken")
    }

    fn relation_hook(
        &mut self,
        id: u32,
        kind: &str,
        unit: &str,
        more: Vec<(String, String)>,
    ) -> Run {
        let (endpoint, app) = {
            let juju = self.juju();
            let relation = &juju.relations[&id];
            (relation.endpoint.clone(), relation.app.clone())
        };
        let mut variables = vec![
            ("JUJU_RELATION".to_owned(), endpoint.clone()),
            ("JUJU_RELATION_ID".to_owned(), format!("{endpoint}:{id}")),
            ("JUJU_REMOTE_UNIT".to_owned(), unit.to_owned()),
            ("JUJU_REMOTE_APP".to_owned(), app),
        ];
        variables.extend(more);
        let name = format!("{endpoint}-relation-{kind}");
        let broken = kind == "broken";
        let remote_unit = unit.to_owned();
        let event = Event {
            variables,
            relation: Some(id),
            remote_unit,
            broken,
            ..Event::default()
        };
        self.dispatch(&format!("hooks/{name}"), &name, event)
    }

    fn workload_hook(&mut self, kind: &str, more: &[(&str, &str)]) -> Run {
        let mut variables = vec![("JUJU_WORKLOAD_NAME".to_owned(), "windrow".to_owned())];
        variables.extend(more.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
        let name = format!("windrow-pebble-{kind}");
        self.dispatch(
            &format!("hooks/{name}"),
            &name,
            Event {
                variables,
                ..Event::default()
            },
        )
    }

    pub fn pebble_ready(&mut self) -> Run {
        self.workload_hook("ready", &[])
    }

    /// The workload's state has changed: a custom notice with this data is there and wakes the
    /// charm.
    pub fn notice(&mut self, key: &str, data: &Value) -> Run {
        let id = {
            let mut container = self.container();
            container.notices.retain(|notice| notice["key"] != key);
            let id = (container.notices.len() + 100).to_string();
            container.notices.push(json!({
                "id": id, "user-id": 0, "type": "custom", "key": key, "last-data": data,
                "occurrences": 1,
                "first-occurred": "2026-01-01T00:00:00Z", "last-occurred": "2026-01-01T00:00:00Z",
                "last-repeated": "2026-01-01T00:00:00Z", "expire-after": "168h0m0s",
            }));
            id
        };
        let more = [
            ("JUJU_NOTICE_ID", id.as_str()),
            ("JUJU_NOTICE_TYPE", "custom"),
            ("JUJU_NOTICE_KEY", key),
        ];
        self.workload_hook("custom-notice", &more)
    }

    /// The check `up` has failed or recovered.
    pub fn check(&mut self, kind: &str) -> Run {
        self.workload_hook(
            &format!("check-{kind}"),
            &[("JUJU_PEBBLE_CHECK_NAME", "up")],
        )
    }

    /// There is a new revision of a group's secret in a relation.
    pub fn secret_changed(&mut self, id: u32, group: &str) -> Run {
        let secret = self.juju().relations[&id].secrets[group].clone();
        self.secret_event("secret-changed", &secret)
    }

    pub fn secret_event(&mut self, name: &str, secret: &str) -> Run {
        let label = self
            .juju()
            .secrets
            .get(secret)
            .map(|s| s.our_label.clone())
            .unwrap_or_default();
        let variables = vec![
            ("JUJU_SECRET_ID".to_owned(), format!("secret:{secret}")),
            ("JUJU_SECRET_LABEL".to_owned(), label),
        ];
        self.dispatch(
            &format!("hooks/{name}"),
            name,
            Event {
                variables,
                ..Event::default()
            },
        )
    }

    /// Runs an action. Its parameters are checked as Juju checks them.
    ///
    /// # Panics
    /// When Juju would refuse to run it.
    pub fn action(&mut self, name: &str, parameters: &Value) -> Run {
        let parameters = self
            .juju()
            .charm
            .parameters(name, parameters)
            .unwrap_or_else(|e| panic!("action {name}: {e}"));
        self.actions += 1;
        let number = self.actions;
        let variables = vec![
            ("JUJU_ACTION_NAME".to_owned(), name.to_owned()),
            ("JUJU_ACTION_UUID".to_owned(), number.to_string()),
            ("JUJU_ACTION_TAG".to_owned(), format!("action-{number}")),
        ];
        let action = Action {
            parameters,
            ..Action::default()
        };
        let event = Event {
            variables,
            action: Some(action),
            ..Event::default()
        };
        self.dispatch(&format!("actions/{name}"), "", event)
    }
}
