//! What Pebble is told: the service, the checks, and where logs go; and whether its plan says so
//! already.

use crate::rendered::{HTTP_PORT, SETTINGS_FILE};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The name of the workload's container in `metadata.yaml`.
pub const CONTAINER: &str = "windrow";
/// The name of the service in Pebble's plan.
pub const SERVICE: &str = "windrow";
/// The label of our layer. A layer with the same label replaces what it names.
pub const LABEL: &str = "windrow";
/// The folder in the container that holds the program.
pub const BINARY_DIR: &str = "/opt/windrow";

/// The user and the group that windrow runs as. No user of the image has this number.
pub const USER_ID: u32 = 584_792;

/// How many lines of windrow's log are read to find out why it has ended.
pub const LAST_WORDS: usize = 30;

/// What the layer depends on.
#[derive(Clone, Debug)]
pub struct Layer<'a> {
    /// The program's name in [`BINARY_DIR`].
    pub binary: &'a str,
    /// The digest of what cannot be changed while windrow runs. Another one makes Pebble restart
    /// it.
    pub config_digest: &'a str,
    /// The user that Juju's agent runs as. Pebble shows a notice only to the user that added it,
    /// and to an administrator who asks for the notices of all users, which the agent does not.
    pub agent_uid: u32,
    /// Where logs go, by the target's name.
    pub log_targets: &'a BTreeMap<String, Value>,
}

/// The name of the program with this digest in hexadecimal. Another program has another name, so
/// that Pebble's plan changes with it.
#[must_use]
pub fn binary_name(digest: &str) -> String {
    format!("windrow-{}", &digest[..digest.len().min(16)])
}

impl Layer<'_> {
    /// The layer as JSON, which is also YAML.
    #[must_use]
    pub fn render(&self) -> Value {
        let binary = format!("{BINARY_DIR}/{}", self.binary);
        let with = format!("--config {SETTINGS_FILE}");
        let health = format!("http://127.0.0.1:{HTTP_PORT}/healthz");
        json!({
            "summary": "windrow",
            "services": {SERVICE: {
                "override": "replace",
                "summary": "counts records in windows into the table",
                "command": format!("{binary} run {with}"),
                "startup": "enabled",
                "user-id": USER_ID,
                "group-id": USER_ID,
                // A commit may take some seconds to finish; Kubernetes waits 30 s.
                "kill-delay": "20s",
                "on-check-failure": {"up": "restart"},
                "environment": {"HOME": "/tmp", "WINDROW_CONFIG_DIGEST": self.config_digest},
            }},
            // There is no `level`: because of a check with one, Kubernetes would restart the
            // container or take away the unit's address.
            "checks": {
                "up": {
                    "override": "replace",
                    "period": "10s",
                    "timeout": "5s",
                    "threshold": 3,
                    "http": {"url": health},
                },
                "notify": {
                    "override": "replace",
                    "period": "5s",
                    "timeout": "4s",
                    "threshold": 3,
                    // It runs as root where the agent does. So what it reads, the program and its
                    // settings, belongs to root, in folders of root.
                    "exec": {
                        "command": format!("{binary} notify {with}"),
                        "user-id": self.agent_uid,
                        "group-id": self.agent_uid,
                    },
                },
            },
            "log-targets": self.log_targets,
        })
    }

    /// Whether this plan, as Pebble gives it, says all of this. Pebble adds its defaults to a plan,
    /// so the plan may say more.
    #[must_use]
    pub fn is_in(&self, plan: &str) -> bool {
        self.sections_are_in(plan, &["services", "checks", "log-targets"])
    }

    /// Whether this plan has the same service. Then a replan lets the service run on.
    #[must_use]
    pub fn service_is_in(&self, plan: &str) -> bool {
        self.sections_are_in(plan, &["services"])
    }

    fn sections_are_in(&self, plan: &str, sections: &[&str]) -> bool {
        let Ok(plan) = serde_yaml::from_str::<Value>(plan) else {
            return false;
        };
        let wanted = self.render();
        let none = json!({});
        sections.iter().all(|section| {
            let have = plan.get(*section).unwrap_or(&none);
            wanted[*section].as_object().is_some_and(|wanted| {
                wanted
                    .iter()
                    .all(|(name, wanted)| have.get(name).is_some_and(|have| covers(have, wanted)))
            })
        })
    }
}

/// Whether `have` has every key that is wanted, with the value that is wanted.
fn covers(have: &Value, wanted: &Value) -> bool {
    match (have, wanted) {
        (Value::Object(have), Value::Object(wanted)) => wanted
            .iter()
            .all(|(key, wanted)| have.get(key).is_some_and(|have| covers(have, wanted))),
        (have, wanted) => have == wanted,
    }
}

/// The log targets in a plan, by name. Those that are no longer wanted must be switched off.
#[must_use]
pub fn log_targets(plan: &str) -> BTreeMap<String, Value> {
    let plan: Value = serde_yaml::from_str(plan).unwrap_or_default();
    let targets = plan["log-targets"].as_object().cloned();
    targets.unwrap_or_default().into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer<'a>(digest: &'a str, targets: &'a BTreeMap<String, Value>) -> Layer<'a> {
        Layer {
            binary: "windrow-0123",
            config_digest: digest,
            agent_uid: 0,
            log_targets: targets,
        }
    }

    #[test]
    fn a_plan_with_more_in_it_is_the_same_plan() {
        let none = BTreeMap::new();
        let mut plan = layer("a", &none).render();
        plan["checks"]["up"]["startup"] = "enabled".into();
        plan["services"]["other"] = json!({"override": "replace", "command": "x"});
        let text = serde_yaml::to_string(&plan).unwrap();
        assert!(layer("a", &none).is_in(&text));
        assert!(!layer("b", &none).is_in(&text));
        assert!(!layer("a", &none).is_in("{}\n"));
        assert!(!layer("a", &none).is_in("not: [yaml"));
    }

    #[test]
    fn no_check_has_a_level() {
        let text = layer("a", &BTreeMap::new()).render().to_string();
        assert!(!text.contains("level"), "{text}");
    }
}
