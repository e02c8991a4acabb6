//! What Pebble is told: the service, the checks, where logs go; and whether its plan says so already.

use serde_json::{Value, json};
use std::collections::BTreeMap;

pub const CONTAINER: &str = "windrow";
pub const SERVICE: &str = "windrow";
pub const LABEL: &str = "windrow";
pub const BINARY_DIR: &str = "/opt/windrow";

/// The workload's user and group: no user of the image has this id.
pub const USER_ID: u32 = 584_792;

/// What the layer depends on.
#[derive(Clone, Debug)]
pub struct Layer<'a> {
    /// Name below [`BINARY_DIR`].
    pub binary: &'a str,
    pub config_digest: &'a str,
    /// Who Juju's agent runs as: Pebble shows a notice to the user that added it, and to nobody else but an administrator
    /// who asks for all, which the agent does not.
    pub agent_uid: u32,
    pub log_targets: &'a BTreeMap<String, Value>,
}

/// The name of the binary with this hex digest: another binary has another name, so that the plan changes with it.
#[must_use]
pub fn binary_name(digest: &str) -> String {
    format!("windrow-{}", &digest[..digest.len().min(16)])
}

impl Layer<'_> {
    /// The layer as JSON, which is YAML.
    #[must_use]
    pub fn render(&self) -> Value {
        let binary = format!("{BINARY_DIR}/{}", self.binary);
        let with = format!("--config {}", crate::settings::SETTINGS_FILE);
        let health = format!("http://127.0.0.1:{}/healthz", crate::settings::HTTP_PORT);
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
            // No `level`: a check with one would have Kubernetes restart the container, or take the unit's address away.
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

    /// Whether a plan, as Pebble gives it, has all of this. Pebble adds what it has defaults for.
    #[must_use]
    pub fn is_in(&self, plan: &str) -> bool {
        self.parts_are_in(plan, &["services", "checks", "log-targets"])
    }

    /// Whether the service is as in that plan: a replan lets it run on.
    #[must_use]
    pub fn service_is_in(&self, plan: &str) -> bool {
        self.parts_are_in(plan, &["services"])
    }

    fn parts_are_in(&self, plan: &str, parts: &[&str]) -> bool {
        let Ok(plan) = serde_yaml::from_str::<Value>(plan) else {
            return false;
        };
        let wanted = self.render();
        let none = json!({});
        parts.iter().all(|part| {
            let (Some(wanted), have) =
                (wanted[*part].as_object(), plan.get(*part).unwrap_or(&none))
            else {
                return false;
            };
            wanted
                .iter()
                .all(|(name, wanted)| have.get(name).is_some_and(|have| covers(have, wanted)))
        })
    }
}

/// Whether everything that is wanted is there.
fn covers(have: &Value, wanted: &Value) -> bool {
    match (have, wanted) {
        (Value::Object(have), Value::Object(wanted)) => wanted
            .iter()
            .all(|(key, wanted)| have.get(key).is_some_and(|have| covers(have, wanted))),
        (have, wanted) => have == wanted,
    }
}

/// Names of the log targets of a plan: those that are no longer wanted are switched off.
#[must_use]
pub fn log_targets(plan: &str) -> Vec<String> {
    let plan: Value = serde_yaml::from_str(plan).unwrap_or_default();
    plan["log-targets"]
        .as_object()
        .map(|targets| targets.keys().cloned().collect())
        .unwrap_or_default()
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
