//! Layers and the plan that they combine to, with what Pebble refuses in them.

use super::State;
use super::api::{failed, fine};
use crate::http::Response;
use serde_json::{Value, json};

impl State {
    /// All layers combined, as `GET /v1/plan` shows them.
    pub fn plan(&self) -> Value {
        let mut plan = json!({});
        for (_, layer) in &self.layers {
            for section in ["services", "checks", "log-targets"] {
                for (name, new) in layer[section].as_object().into_iter().flatten() {
                    if plan[section].is_null() {
                        plan[section] = json!({});
                    }
                    let old = plan[section][name].take();
                    plan[section][name] = combine(old, new);
                }
            }
        }
        let checks = plan.get_mut("checks").and_then(Value::as_object_mut);
        for check in checks.into_iter().flatten().map(|(_, check)| check) {
            for (name, value) in [
                ("startup", json!("enabled")),
                ("period", json!("10s")),
                ("timeout", json!("3s")),
                ("threshold", json!(3)),
            ] {
                if check[name].is_null() {
                    check[name] = value;
                }
            }
        }
        plan
    }

    pub(super) fn add_layer(&mut self, body: &Value) -> Response {
        let label = body["label"].as_str().unwrap_or_default().to_owned();
        if body["action"] != "add" || body["format"] != "yaml" || label.is_empty() {
            return failed(400, "invalid action, format or label");
        }
        if label.starts_with("pebble-") {
            return failed(400, "cannot use reserved label prefix \"pebble-\"");
        }
        let layer = match serde_yaml::from_str::<Value>(body["layer"].as_str().unwrap_or_default())
        {
            Ok(layer) => layer,
            Err(e) => return failed(400, &format!("cannot parse layer {label:?}: yaml: {e}")),
        };
        if let Err(e) = check_layer(&label, &layer) {
            return failed(400, &e);
        }
        let before = self.layers.clone();
        match self.layers.iter_mut().find(|(l, _)| *l == label) {
            Some(_) if body["combine"] != true => {
                return failed(400, &format!("layer {label:?} already exists"));
            }
            Some((_, old)) => {
                for section in ["services", "checks", "log-targets"] {
                    for (name, new) in layer[section].as_object().into_iter().flatten() {
                        if old[section].is_null() {
                            old[section] = json!({});
                        }
                        let was = old[section][name].take();
                        old[section][name] = combine(was, new);
                    }
                }
            }
            None => self.layers.push((label, layer)),
        }
        if let Err(e) = check_plan(&self.plan()) {
            self.layers = before;
            return failed(400, &e);
        }
        fine(&json!(true))
    }
}

fn combine(old: Value, new: &Value) -> Value {
    if old.is_null() || new["override"] == "replace" {
        return new.clone();
    }
    let mut merged = old;
    for (key, value) in new.as_object().expect("checked") {
        match (merged[key].as_object_mut(), value) {
            (Some(to), Value::Object(from)) => to.extend(from.clone()),
            _ => merged[key] = value.clone(),
        }
    }
    merged
}

/// The sections of a layer: the name, what Pebble calls an item, its type in Pebble's source, and
/// the fields that an item may have.
const SECTIONS: [(&str, &str, &str, &[&str]); 3] = [
    (
        "services",
        "service",
        "Service",
        &[
            "summary",
            "description",
            "startup",
            "override",
            "command",
            "after",
            "before",
            "requires",
            "environment",
            "user-id",
            "user",
            "group-id",
            "group",
            "working-dir",
            "on-success",
            "on-failure",
            "on-check-failure",
            "backoff-delay",
            "backoff-factor",
            "backoff-limit",
            "kill-delay",
        ],
    ),
    (
        "checks",
        "check",
        "Check",
        &[
            "override",
            "level",
            "startup",
            "period",
            "timeout",
            "threshold",
            "http",
            "tcp",
            "exec",
        ],
    ),
    (
        "log-targets",
        "log target",
        "LogTarget",
        &["override", "type", "location", "services", "labels"],
    ),
];

/// Checks the fields of a layer. Pebble refuses unknown ones.
fn check_layer(label: &str, layer: &Value) -> Result<(), String> {
    if !layer.is_object() {
        return Err(format!("cannot parse layer {label:?}: not a map"));
    }
    check_fields(
        label,
        layer,
        &[
            "summary",
            "description",
            "services",
            "checks",
            "log-targets",
        ],
        "Layer",
    )?;
    for (section, kind, of, known) in SECTIONS {
        for (name, value) in layer[section].as_object().into_iter().flatten() {
            if !value.is_object() {
                return Err(format!(
                    "layer {label:?} must define {kind} {name:?} as a map"
                ));
            }
            check_fields(label, value, known, of)?;
            if !["merge", "replace"].contains(&value["override"].as_str().unwrap_or_default()) {
                return Err(format!(
                    "layer {label:?} must define \"override\" for {kind} {name:?}"
                ));
            }
            for (name, value) in value["environment"].as_object().into_iter().flatten() {
                if value.is_object() || value.is_array() {
                    return Err(format!("cannot parse layer {label:?}: environment {name}"));
                }
            }
        }
    }
    Ok(())
}

/// Refuses a field of `map` that is not in `known`. `of` is the map's type in Pebble's source.
fn check_fields(label: &str, map: &Value, known: &[&str], of: &str) -> Result<(), String> {
    let unknown = map
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, _)| key)
        .find(|key| !known.contains(&key.as_str()));
    unknown.map_or(Ok(()), |key| {
        let why =
            format!("yaml: unmarshal errors:\n  line 1: field {key} not found in type plan.{of}");
        Err(format!("cannot parse layer {label:?}: {why}"))
    })
}

/// Checks the plan as a whole.
fn check_plan(plan: &Value) -> Result<(), String> {
    for (name, service) in plan["services"].as_object().into_iter().flatten() {
        let command = service["command"].as_str().unwrap_or_default();
        if command.is_empty() {
            return Err(format!("plan must define \"command\" for service {name:?}"));
        }
        if !["", "enabled", "disabled"].contains(&service["startup"].as_str().unwrap_or_default()) {
            return Err(format!(
                "plan service {name:?} startup must be \"enabled\" or \"disabled\""
            ));
        }
        for (check, action) in service["on-check-failure"]
            .as_object()
            .into_iter()
            .flatten()
        {
            if plan["checks"][check].is_null() {
                return Err(format!(
                    "plan service {name:?} on-check-failure has unknown check {check:?}"
                ));
            }
            if !["restart", "shutdown", "success-shutdown", "ignore"]
                .contains(&action.as_str().unwrap_or_default())
            {
                return Err(format!(
                    "plan service {name:?} on-check-failure action {action} invalid"
                ));
            }
        }
    }
    for (name, check) in plan["checks"].as_object().into_iter().flatten() {
        let kinds = ["http", "tcp", "exec"]
            .iter()
            .filter(|kind| !check[**kind].is_null())
            .count();
        if kinds != 1 {
            return Err(format!(
                "plan must specify one of \"http\", \"tcp\", or \"exec\" for check {name:?}"
            ));
        }
        if !check["level"].is_null()
            && !["alive", "ready"].contains(&check["level"].as_str().unwrap_or_default())
        {
            return Err(format!(
                "plan check {name:?} level must be \"alive\" or \"ready\""
            ));
        }
    }
    for (name, target) in plan["log-targets"].as_object().into_iter().flatten() {
        if !["loki", "opentelemetry"].contains(&target["type"].as_str().unwrap_or_default()) {
            return Err(format!(
                "plan must define \"type\" (\"loki\" or \"opentelemetry\") for log target {name:?}"
            ));
        }
        if target["location"].as_str().unwrap_or_default().is_empty() {
            return Err(format!(
                "plan must define \"location\" for log target {name:?}"
            ));
        }
    }
    Ok(())
}
