//! What the charm's own files say: its endpoints, options and actions.

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// What `metadata.yaml`, `config.yaml` and `actions.yaml` say.
pub struct Charm {
    /// Name → role (`requires`, `provides`, `peers`).
    pub endpoints: BTreeMap<String, String>,
    /// Name → type and default.
    pub options: BTreeMap<String, (String, Value)>,
    /// Name → its description and parameters.
    pub actions: BTreeMap<String, Value>,
}

impl Charm {
    /// Parses the three texts.
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

    /// The parameters of an action, with its defaults, as Juju gives them to the charm.
    ///
    /// # Errors
    /// Why Juju would refuse to run the action.
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

/// Whether a value has this type of an option or of an action's parameter.
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
