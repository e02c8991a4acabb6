//! `metrics-endpoint`, interface prometheus_scrape (provider): where Prometheus reads windrow's
//! metrics, and the rules by which it raises alerts.
//!
//! The charm library `prometheus_scrape` says what the databags hold. The same topology gives the
//! same bytes, so that what is unchanged is not written again.

use super::bag;
use super::topology::{CHARM, Topology};
use crate::facts::Bag;
use serde::Deserialize;
use serde_json::{Value, json};

/// The alert rules, without the labels that say which application they are for.
const ALERTS: &str = include_str!("../../alerts.yaml");

/// The application's databag. `port` is where `/metrics` is.
#[must_use]
pub fn app_data(topology: &Topology, port: u16) -> Bag {
    // `*` stands for each unit: Prometheus' charm replaces it with the units' addresses and adds
    // the labels `juju_*`.
    let jobs = json!([{
        "job_name": "windrow",
        "metrics_path": "/metrics",
        "scrape_interval": "30s",
        "scrape_timeout": "10s",
        "static_configs": [{"targets": [format!("*:{port}")]}],
    }]);
    bag([
        ("scrape_metadata", topology.as_dict().to_string()),
        ("scrape_jobs", jobs.to_string()),
        ("alert_rules", alert_rules(topology).to_string()),
    ])
}

/// This unit's databag. It holds the unit's name in DNS instead of its IP address: the address
/// changes with the pod, and a hook command would be needed to know it.
#[must_use]
pub fn unit_data(topology: &Topology, cluster_domain: &str) -> Bag {
    let host = topology.host(cluster_domain);
    bag([
        ("prometheus_scrape_unit_address", host.clone()),
        ("prometheus_scrape_unit_fqdn", host),
        ("prometheus_scrape_unit_name", topology.unit.clone()),
        ("prometheus_scrape_unit_path", String::new()),
    ])
}

/// A rule file of Prometheus, as much as `alerts.yaml` has of one.
#[derive(Deserialize)]
struct RuleFile {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    rules: Vec<Alert>,
}

#[derive(Deserialize)]
struct Alert {
    alert: String,
    expr: String,
    r#for: String,
    labels: Labels,
    annotations: Value,
}

#[derive(Deserialize)]
struct Labels {
    severity: String,
}

/// The alerts with the labels of this application, as JSON.
fn alert_rules(topology: &Topology) -> Value {
    let file: RuleFile = serde_yaml::from_str(ALERTS).expect("a test reads alerts.yaml");
    let rules: Vec<Value> = file
        .groups
        .into_iter()
        .flat_map(|group| group.rules)
        .map(|alert| {
            json!({
                "alert": alert.alert,
                "expr": alert.expr,
                "for": alert.r#for,
                "labels": {
                    "severity": alert.labels.severity,
                    "juju_model": topology.model,
                    "juju_model_uuid": topology.model_uuid,
                    "juju_application": topology.application,
                    "juju_charm": CHARM,
                },
                "annotations": alert.annotations,
            })
        })
        .collect();
    // cosl does not rename a group whose name has this form. It also makes the name of a metric of
    // it, and such a name cannot have dashes.
    let name: String = format!("{}_windrow_rules", topology.identifier())
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect();
    json!({"groups": [{"name": name, "rules": rules}]})
}

#[cfg(test)]
mod tests {
    use super::super::tests::{metrics_in, our_metrics, parsed};
    use super::super::topology::example;
    use super::*;

    #[test]
    fn the_databags_are_as_the_scrape_library_writes_them() {
        let app = app_data(&example(), 8080);
        assert_eq!(
            app.keys().collect::<Vec<_>>(),
            ["alert_rules", "scrape_jobs", "scrape_metadata"]
        );
        assert_eq!(
            parsed(&app, "scrape_metadata"),
            json!({
                "model": "spark",
                "model_uuid": "3f2c0a11-dcb3-4870-8509-330eb9745ee8",
                "application": "windrow",
                "unit": "windrow/1",
                "charm_name": "windrow-k8s",
            })
        );
        let job = &parsed(&app, "scrape_jobs")[0];
        assert_eq!(job["static_configs"], json!([{"targets": ["*:8080"]}]));
        assert_eq!(job["metrics_path"], "/metrics");
        let host = "windrow-1.windrow-endpoints.spark.svc.cluster.local".to_owned();
        assert_eq!(
            unit_data(&example(), "cluster.local"),
            bag([
                ("prometheus_scrape_unit_address", host.clone()),
                ("prometheus_scrape_unit_fqdn", host),
                ("prometheus_scrape_unit_name", "windrow/1".to_owned()),
                ("prometheus_scrape_unit_path", String::new()),
            ])
        );
    }

    #[test]
    fn alerts_have_a_topology_in_their_labels_and_none_in_their_expressions() {
        let rules = parsed(&app_data(&example(), 8080), "alert_rules");
        let group = &rules["groups"][0];
        assert_eq!(group["name"], "spark_3f2c0a11_windrow_windrow_rules");
        let ours = our_metrics();
        let rules = group["rules"].as_array().unwrap();
        assert_eq!(rules.len(), 11);
        for rule in rules {
            let expr = rule["expr"].as_str().unwrap();
            assert!(
                !expr.contains("spark") && !expr.contains("windrow/"),
                "{expr}"
            );
            assert!(metrics_in(expr).is_subset(&ours), "{expr}");
            assert_eq!(
                expr.matches('(').count(),
                expr.matches(')').count(),
                "{expr}"
            );
            let labels = &rule["labels"];
            assert_eq!(labels["juju_model"], "spark");
            assert_eq!(
                labels["juju_model_uuid"],
                "3f2c0a11-dcb3-4870-8509-330eb9745ee8"
            );
            assert_eq!(labels["juju_application"], "windrow");
            assert_eq!(labels["juju_charm"], "windrow-k8s");
            assert!(
                labels.get("juju_unit").is_none(),
                "with it, the rule would match the leader alone"
            );
            for key in ["alert", "for"] {
                assert!(rule[key].is_string());
            }
            for key in ["summary", "description"] {
                assert!(rule["annotations"][key].is_string());
            }
        }
    }

    #[test]
    fn an_alert_about_a_unit_names_that_unit_and_not_the_leader() {
        let rules = parsed(&app_data(&example(), 8080), "alert_rules");
        for rule in rules["groups"][0]["rules"].as_array().unwrap() {
            let text = |key: &str| rule["annotations"][key].as_str().unwrap();
            let (expr, texts) = (rule["expr"].as_str().unwrap(), text("summary").to_owned());
            let texts = texts + " " + text("description");
            // The catalog answers these for every unit; all else is what one unit knows of itself.
            let mut of_leader = texts.split("/leader ").skip(1);
            assert!(
                of_leader.all(|action| ["resume", "list-rejects"].contains(&action)),
                "{texts}"
            );
            let has_unit = expr.contains("juju_unit") || expr == "up == 0";
            assert!(
                has_unit || !texts.contains("$labels.juju_unit"),
                "{expr}: {texts}"
            );
        }
    }
}
