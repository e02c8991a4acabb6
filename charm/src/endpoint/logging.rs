//! `logging`, interface loki_push_api (requirer): where Pebble sends windrow's log lines.
//!
//! The charm library `loki_push_api` says what the databags hold.

use super::bag;
use super::topology::{CHARM, Topology};
use crate::facts::{Bag, Relation};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use windrow_core::values::digest::sha256_hex;

/// The names of our log targets begin with this. The image may bring log targets of its own.
const LOG_TARGET: &str = "logging-";

/// A longer text is not taken for a URL.
const URL_BYTES_MAX: usize = 2048;

/// The application's databag. It has no alert rules on log lines: what goes wrong is in the
/// metrics.
#[must_use]
pub fn app_data(topology: &Topology) -> Bag {
    bag([
        ("metadata", topology.as_dict().to_string()),
        ("alert_rules", "{}".to_owned()),
    ])
}

/// The log targets of a layer, by name: one for each unit of Loki that has said where it takes
/// logs. Each of our targets in the plan (`in_plan`, names) that is not among them is switched off,
/// because layers only add to a plan: a target that the next layer leaves out would remain.
///
/// A name holds a digest of the location. Pebble (tried with 1.10 and 1.19) keeps the client of a
/// target whose name stays the same, and sends to the old location until Pebble is restarted.
#[must_use]
pub fn log_targets<'a>(
    relations: &[Relation],
    topology: &Topology,
    in_plan: impl IntoIterator<Item = &'a str>,
) -> BTreeMap<String, Value> {
    // Pebble refuses a target without a location.
    let off = json!({
        "override": "replace",
        "type": "loki",
        "location": "(removed)",
        "services": ["-all"],
    });
    let ours = in_plan
        .into_iter()
        .filter(|name| name.starts_with(LOG_TARGET));
    let mut targets: BTreeMap<_, _> = ours.map(|name| (name.to_owned(), off.clone())).collect();
    let labels = json!({
        "product": "Juju",
        "charm": CHARM,
        "juju_model": topology.model,
        "juju_model_uuid": topology.model_uuid,
        "juju_application": topology.application,
        "juju_unit": topology.unit,
        "job": format!("juju_{}", topology.identifier()),
    });
    for (unit, data) in relations.iter().flat_map(|relation| &relation.units) {
        let Some(url) = data.get("endpoint").and_then(|text| push_url(text)) else {
            continue;
        };
        let name = format!(
            "{LOG_TARGET}{}-{}",
            unit.replace('/', "-"),
            &sha256_hex(url.as_bytes())[..8]
        );
        let target = json!({
            "override": "replace",
            "type": "loki",
            "location": url,
            "services": ["all"],
            "labels": labels,
        });
        targets.insert(name, target);
    }
    targets
}

/// Of the log targets in a plan, those that we have made.
#[must_use]
pub fn only_ours(mut in_plan: BTreeMap<String, Value>) -> BTreeMap<String, Value> {
    in_plan.retain(|name, _| name.starts_with(LOG_TARGET));
    in_plan
}

/// The URL in a text such as `{"url":
/// "http://loki-0.loki-endpoints.cos.svc.cluster.local:3100/loki/api/v1/push"}`; `None` when there
/// is none. A URL with a user's name in it is refused, because everybody may read the plan.
fn push_url(endpoint: &str) -> Option<String> {
    let endpoint: Value = serde_json::from_str(endpoint).ok()?;
    let url = endpoint.get("url")?.as_str()?;
    let rest = url
        .strip_prefix("http://")
        .or_else(|| url.strip_prefix("https://"))?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let fine = !authority.is_empty()
        && !authority.starts_with(':')
        && !authority.contains('@')
        && url.len() <= URL_BYTES_MAX
        && url
            .bytes()
            .all(|b| b.is_ascii_graphic() && !b"\"'<>\\^`{|}".contains(&b));
    fine.then(|| url.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{of_units, parsed};
    use super::super::topology::example;
    use super::*;

    #[test]
    fn each_unit_of_loki_is_a_log_target() {
        let push = "http://loki-0.loki-endpoints.cos.svc.cluster.local:3100/loki/api/v1/push";
        let url = json!({ "url": push }).to_string();
        let other = r#"{"url": "https://cos.example/cos-loki-1/loki/api/v1/push"}"#;
        let loki = of_units(
            "loki",
            &[
                ("loki/0", &[("endpoint", url.as_str())]),
                ("loki/1", &[("endpoint", other)]),
            ],
        );
        let targets = log_targets(&[loki], &example(), []);
        assert_eq!(targets.len(), 2);
        assert_eq!(
            targets["logging-loki-0-580a0aa4"],
            json!({
                "override": "replace",
                "type": "loki",
                "location": push,
                "services": ["all"],
                "labels": {
                    "product": "Juju",
                    "charm": "windrow-k8s",
                    "juju_model": "spark",
                    "juju_model_uuid": "3f2c0a11-dcb3-4870-8509-330eb9745ee8",
                    "juju_application": "windrow",
                    "juju_unit": "windrow/1",
                    "job": "juju_spark_3f2c0a11_windrow",
                },
            })
        );
        let app = app_data(&example());
        assert_eq!(app["alert_rules"], "{}");
        assert_eq!(parsed(&app, "metadata")["unit"], "windrow/1");
    }

    #[test]
    fn what_is_gone_or_has_moved_is_switched_off_and_what_others_brought_stays() {
        let at = |url: &str| {
            let endpoint = json!({ "url": url }).to_string();
            [of_units(
                "loki",
                &[("loki/0", &[("endpoint", endpoint.as_str())])],
            )]
        };
        let before = log_targets(&at("http://a:3100/push"), &example(), []);
        let names: Vec<&str> = before
            .keys()
            .map(String::as_str)
            .chain(["of-the-image"])
            .collect();
        let off = json!({
            "override": "replace",
            "type": "loki",
            "location": "(removed)",
            "services": ["-all"],
        });

        let gone = log_targets(&[], &example(), names.iter().copied());
        assert_eq!(gone.values().collect::<Vec<_>>(), [&off]);

        let moved = log_targets(&at("http://b:3100/push"), &example(), names.iter().copied());
        assert_eq!(
            moved.len(),
            2,
            "Pebble follows no location that changes below a name"
        );
        assert_eq!(moved[names[0]], off);

        assert_eq!(
            log_targets(&at("http://a:3100/push"), &example(), names.iter().copied()),
            before
        );
    }

    #[test]
    fn partial_or_hostile_endpoints_are_not_log_targets() {
        let long = json!({"url": format!("http://a/{}", "x".repeat(3000))}).to_string();
        for endpoint in [
            "",
            "http://loki:3100/loki/api/v1/push",
            "{}",
            "[]",
            "null",
            r#"{"url": null}"#,
            r#"{"url": ["http://a"]}"#,
            r#"{"url": ""}"#,
            r#"{"url": "http://"}"#,
            r#"{"url": "http://:3100/"}"#,
            r#"{"url": "file:///etc/passwd"}"#,
            r#"{"url": "http://user:password@loki/"}"#,
            r#"{"url": "http://loki/\nservices: [all]"}"#,
            r#"{"url": "http://loki/ x"}"#,
            r#"{"url": "http://loki/${HOME}"}"#,
            &long,
        ] {
            let relation = of_units("loki", &[("loki/0", &[("endpoint", endpoint)])]);
            assert_eq!(
                log_targets(&[relation], &example(), []),
                BTreeMap::new(),
                "{endpoint}"
            );
        }
        assert_eq!(
            log_targets(&[of_units("loki", &[("loki/0", &[])])], &example(), []),
            BTreeMap::new()
        );
    }
}
