//! What the charm publishes and reads for observability and CA certificates; the interfaces' libraries are the judges.
//! No I/O in it. Everything comes out in the same order and the same bytes, so that what is unchanged is not written.

use crate::facts::{Bag, Relation};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;

/// The charm's name in `metadata.yaml`.
pub const CHARM: &str = "windrow-k8s";

/// Where in Juju something comes from: what alerts, dashboards and logs are told apart by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    pub model: String,
    pub model_uuid: String,
    pub application: String,
    /// `windrow/0`.
    pub unit: String,
}

impl Topology {
    #[must_use]
    pub fn new(model: &str, model_uuid: &str, unit: &str) -> Self {
        Self {
            model: model.to_owned(),
            model_uuid: model_uuid.to_owned(),
            application: unit.split('/').next().unwrap_or_default().to_owned(),
            unit: unit.to_owned(),
        }
    }

    /// As cosl's `JujuTopology.as_dict` has it.
    fn dict(&self) -> Value {
        json!({
            "model": self.model,
            "model_uuid": self.model_uuid,
            "application": self.application,
            "unit": self.unit,
            "charm_name": CHARM,
        })
    }

    /// `spark_3f2c0a11_windrow`, as cosl's `JujuTopology.identifier`.
    fn identifier(&self) -> String {
        let uuid: String = self.model_uuid.chars().take(8).collect();
        format!("{}_{uuid}_{}", self.model, self.application)
    }

    /// The unit's name in the cluster's DNS: `windrow-0.windrow-endpoints.spark.svc.cluster.local`, from the headless
    /// service that Juju makes for each application. It outlives the pod, which its IP address does not, and is known
    /// without asking anybody.
    #[must_use]
    pub fn host(&self, namespace: &str, cluster_domain: &str) -> String {
        let application = &self.application;
        format!("{}.{application}-endpoints.{namespace}.svc.{cluster_domain}", self.unit.replace('/', "-"))
    }
}

fn bag<const N: usize>(fields: [(&str, String); N]) -> Bag {
    fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// `metrics-endpoint` (`prometheus_scrape`, provider), the application's databag. `port` is where `/metrics` is.
#[must_use]
pub fn metrics_app_data(topology: &Topology, port: u16) -> Bag {
    // `*` stands for each unit: Prometheus' charm puts the units' addresses in, and the labels `juju_*`.
    let jobs = json!([{
        "job_name": "windrow",
        "metrics_path": "/metrics",
        "scrape_interval": "30s",
        "scrape_timeout": "10s",
        "static_configs": [{"targets": [format!("*:{port}")]}],
    }]);
    bag([
        ("scrape_metadata", topology.dict().to_string()),
        ("scrape_jobs", jobs.to_string()),
        ("alert_rules", alert_rules(topology).to_string()),
    ])
}

/// The same endpoint, this unit's databag. `host` is [`Topology::host`].
#[must_use]
pub fn metrics_unit_data(host: &str, unit: &str) -> Bag {
    bag([
        ("prometheus_scrape_unit_address", host.to_owned()),
        ("prometheus_scrape_unit_fqdn", host.to_owned()),
        ("prometheus_scrape_unit_name", unit.to_owned()),
        ("prometheus_scrape_unit_path", String::new()),
    ])
}

/// How an alert is written here; its labels come from the topology.
struct Alert {
    name: &'static str,
    expr: &'static str,
    lasts: &'static str,
    severity: &'static str,
    summary: &'static str,
    description: &'static str,
}

/// The expressions name no model or application: Prometheus' charm puts matchers for the labels `juju_model`,
/// `juju_model_uuid` and `juju_application` of each rule into every selector.
const ALERTS: [Alert; 8] = [
    Alert {
        name: "WindrowDown",
        expr: "up == 0",
        lasts: "5m",
        severity: "critical",
        summary: "{{ $labels.juju_unit }} does not answer.",
        description: "Prometheus could not read the metrics of {{ $labels.juju_unit }} in model {{ $labels.juju_model }} for 5 minutes. Nothing is lost: positions are in the table. See: juju status {{ $labels.juju_application }}",
    },
    Alert {
        name: "WindrowNotCounting",
        // One unit counts and further ones stand by; who paused it knows.
        expr: "sum by (juju_model, juju_model_uuid, juju_application) (windrow_state{state=~\"counting|paused\"}) == 0",
        lasts: "5m",
        severity: "critical",
        summary: "{{ $labels.juju_application }} is not counting.",
        description: "No unit of {{ $labels.juju_application }} in model {{ $labels.juju_model }} has counted for 5 minutes, so the table does not grow. The reason is in: juju run {{ $labels.juju_application }}/leader get-table-status",
    },
    Alert {
        name: "WindrowPausedLong",
        expr: "max by (juju_model, juju_model_uuid, juju_application) (windrow_state{state=\"paused\"}) == 1",
        lasts: "12h",
        severity: "warning",
        summary: "{{ $labels.juju_application }} has been paused for 12 hours.",
        description: "Kafka deletes records after its retention time, read or not. To go on: juju run {{ $labels.juju_application }}/leader resume",
    },
    Alert {
        name: "WindrowLagGrows",
        expr: "sum by (juju_model, juju_model_uuid, juju_application, juju_unit) (deriv(windrow_lag_records[15m])) > 0 and sum by (juju_model, juju_model_uuid, juju_application, juju_unit) (windrow_lag_records) > 10000",
        lasts: "15m",
        severity: "warning",
        summary: "{{ $labels.juju_unit }} reads slower than records come in.",
        description: "{{ $value }} more records a second wait in the topic than were read, for at least 15 minutes. If it stays so, Kafka's retention deletes records unread. Per topic partition: juju run {{ $labels.juju_unit }} get-lag",
    },
    Alert {
        name: "WindrowRejects",
        expr: "sum by (juju_model, juju_model_uuid, juju_application) (rate(windrow_records_total{outcome=\"rejected\"}[15m])) / sum by (juju_model, juju_model_uuid, juju_application) (rate(windrow_records_total[15m])) > 0.01",
        lasts: "5m",
        severity: "warning",
        summary: "{{ $labels.juju_application }} rejects {{ $value | humanizePercentage }} of the records.",
        description: "More than one record in a hundred cannot be counted, as its key or time is missing or wrong. Which, and why: juju run {{ $labels.juju_application }}/leader list-rejects",
    },
    Alert {
        name: "WindrowRecordsLost",
        expr: "sum by (juju_model, juju_model_uuid, juju_application) (increase(windrow_records_total{outcome=\"lost\"}[15m])) > 0",
        lasts: "0m",
        severity: "critical",
        summary: "Records were deleted from Kafka before {{ $labels.juju_application }} read them.",
        description: "Kafka's retention was shorter than the time windrow was behind or stopped. The ledger has how many, the windows they belonged to are too low.",
    },
    Alert {
        name: "WindrowCommitsFail",
        expr: "sum by (juju_model, juju_model_uuid, juju_application, juju_unit) (increase(windrow_commit_failures_total[15m])) > 0 unless sum by (juju_model, juju_model_uuid, juju_application, juju_unit) (increase(windrow_commits_total[15m])) > 0",
        lasts: "5m",
        severity: "critical",
        summary: "{{ $labels.juju_unit }} cannot commit.",
        description: "Commits have failed for 15 minutes and none went through: S3 or the metastore refuses or does not answer. Readers see the table as it was. The reason is in: juju run {{ $labels.juju_unit }} get-table-status",
    },
    Alert {
        name: "WindrowNoCommit",
        // Longer than the longest commit-interval, which is an hour.
        expr: "min by (juju_model, juju_model_uuid, juju_application) (time() - windrow_last_commit_seconds) > 4500 and sum by (juju_model, juju_model_uuid, juju_application) (increase(windrow_records_total[15m])) > 0",
        lasts: "5m",
        severity: "critical",
        summary: "{{ $labels.juju_application }} reads and does not commit.",
        description: "Records come in and the last commit is {{ $value | humanizeDuration }} ago. See: juju run {{ $labels.juju_application }}/leader get-table-status",
    },
];

fn alert_rules(topology: &Topology) -> Value {
    let rules: Vec<Value> = ALERTS
        .iter()
        .map(|alert| {
            json!({
                "alert": alert.name,
                "expr": alert.expr,
                "for": alert.lasts,
                "labels": {
                    "severity": alert.severity,
                    "juju_model": topology.model,
                    "juju_model_uuid": topology.model_uuid,
                    "juju_application": topology.application,
                    "juju_charm": CHARM,
                },
                "annotations": {"summary": alert.summary, "description": alert.description},
            })
        })
        .collect();
    // cosl leaves a group alone whose name has this form, and makes a metric's name of it, which has no dashes.
    let name = format!("{}_windrow_rules", topology.identifier());
    let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    json!({"groups": [{"name": name, "rules": rules}]})
}

/// The dashboard. It names the variables `juju_*` and `prometheusds` and does not have them: Grafana's charm puts its own
/// in, and an older one would have them twice. Its `uid` is cosl's `DashboardPath40UID` of the charm's name and the file's:
/// 20 bytes of shake_256 of `windrow-k8s-dashboard.json`.
const DASHBOARD: &str = include_str!("../../dashboard.json");

/// 8 bytes of shake_256 of `windrow-k8s-file:windrow`: the library's rule for one without a `uid`.
const DASHBOARD_ALT_UID: &str = "7376b7487a8ac009";

/// Half of what an encoder with this setting wants; the default would take 90 MiB for a text of 20 KB.
const DICTIONARY_BYTES: u32 = 1 << 16;

/// `grafana-dashboard` (provider), the application's databag.
///
/// # Panics
/// Never: a vector takes all bytes, and the options are in range.
#[must_use]
pub fn dashboard_app_data(topology: &Topology) -> Bag {
    let mut options = lzma_rust2::XzOptions::with_preset(6);
    options.lzma_options.dict_size = DICTIONARY_BYTES;
    let mut xz = lzma_rust2::XzWriter::new(Vec::new(), options).expect("the options are in range");
    xz.write_all(DASHBOARD.as_bytes()).expect("a vector takes all bytes");
    let content = BASE64_STANDARD.encode(xz.finish().expect("a vector takes all bytes"));
    let mut origin = topology.dict();
    origin.as_object_mut().expect("a map").remove("charm_name");
    let dashboards = json!({
        "templates": {
            "file:windrow": {
                "charm": CHARM,
                "content": content,
                "juju_topology": origin,
                "inject_dropdowns": true,
                "dashboard_alt_uid": DASHBOARD_ALT_UID,
            },
        },
        // The library has dice here, so that every write counts as a change. We write when something changed.
        "uuid": hex(&Sha256::digest(DASHBOARD), 16),
    });
    bag([("dashboards", dashboards.to_string())])
}

/// `logging` (`loki_push_api`, requirer), the application's databag. We bring no rules on log lines: what goes wrong is
/// in the metrics.
#[must_use]
pub fn logging_app_data(topology: &Topology) -> Bag {
    bag([("metadata", topology.dict().to_string()), ("alert_rules", "{}".to_owned())])
}

/// A log target of a Pebble layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LogTarget {
    #[serde(rename = "override")]
    on_same_name: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    location: String,
    services: [&'static str; 1],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<&'static str, String>,
}

/// The log targets of a layer, by name: one for each unit of Loki that has said where it takes logs, and one that is
/// switched off for each of ours in the plan (`in_plan`, names) that is none of these any more. Layers only add to a plan,
/// so a target that is left out of the next layer would go on.
///
/// A name holds a digest of the location: Pebble keeps the connection of a target of the same name, and would send to the
/// old location until it starts anew.
#[must_use]
pub fn log_targets<'a>(
    relations: &[Relation],
    topology: &Topology,
    in_plan: impl IntoIterator<Item = &'a str>,
) -> BTreeMap<String, LogTarget> {
    let target = |location: String, services, labels| LogTarget {
        on_same_name: "replace",
        kind: "loki",
        location,
        services,
        labels,
    };
    // Pebble refuses a target without a location.
    let mut targets: BTreeMap<_, _> = in_plan
        .into_iter()
        .filter(|name| name.starts_with(LOG_TARGET))
        .map(|name| (name.to_owned(), target("(removed)".to_owned(), ["-all"], BTreeMap::new())))
        .collect();
    let labels = BTreeMap::from([
        ("product", "Juju".to_owned()),
        ("charm", CHARM.to_owned()),
        ("juju_model", topology.model.clone()),
        ("juju_model_uuid", topology.model_uuid.clone()),
        ("juju_application", topology.application.clone()),
        ("juju_unit", topology.unit.clone()),
        ("job", format!("juju_{}", topology.identifier())),
    ]);
    for (unit, data) in relations.iter().flat_map(|relation| &relation.units) {
        if let Some(url) = data.get("endpoint").and_then(|endpoint| push_url(endpoint)) {
            let digest = hex(&Sha256::digest(&url), 4);
            let name = format!("{LOG_TARGET}{}-{digest}", unit.replace('/', "-"));
            targets.insert(name, target(url, ["all"], labels.clone()));
        }
    }
    targets
}

/// What the names of our log targets begin with: an image may bring others.
const LOG_TARGET: &str = "logging-";

/// A longer one is none.
const URL_BYTES_MAX: usize = 2048;

/// The URL in `{"url": "http://loki-0.loki-endpoints.cos.svc.cluster.local:3100/loki/api/v1/push"}`. One with a user's name
/// in it is refused: the plan is for everybody to read.
fn push_url(endpoint: &str) -> Option<String> {
    let endpoint: Value = serde_json::from_str(endpoint).ok()?;
    let url = endpoint.get("url")?.as_str()?;
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"))?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let fine = !authority.is_empty()
        && !authority.starts_with(':')
        && !authority.contains('@')
        && url.len() <= URL_BYTES_MAX
        && url.bytes().all(|b| b.is_ascii_graphic() && !b"\"'<>\\^`{|}".contains(&b));
    fine.then(|| url.to_owned())
}

/// `receive-ca-cert` (`certificate_transfer`, requirer), the application's databag: we read version 1, and 0 as well.
#[must_use]
pub fn ca_app_data() -> Bag {
    bag([("version", "1".to_owned())])
}

/// All certificates together are not longer than this, in bytes of PEM.
const CERTIFICATES_BYTES_MAX: usize = 1 << 20;

/// The CA certificates of `certificate_transfer` relations as PEM blocks, each once and in an order of their own, so that
/// who came first does not matter; and why others were left out.
#[must_use]
pub fn ca_certificates(relations: &[Relation]) -> (Vec<String>, Vec<String>) {
    let mut found = BTreeSet::new();
    let mut left_out = Vec::new();
    let mut bytes = 0;
    for relation in relations {
        for (place, texts) in certificate_texts(relation) {
            for text in texts.iter().filter(|text| !text.trim().is_empty()) {
                match blocks(text) {
                    Ok(blocks) => {
                        for block in blocks {
                            if found.contains(&block) {
                                continue;
                            }
                            bytes += block.len();
                            if bytes > CERTIFICATES_BYTES_MAX {
                                left_out.push(format!("{}: there are more than 1 MiB of certificates", relation.id));
                                return (found.into_iter().collect(), left_out);
                            }
                            found.insert(block);
                        }
                    }
                    Err(why) => left_out.push(format!("{}: {place} of {}: {why}", relation.id, relation.app)),
                }
            }
        }
    }
    (found.into_iter().collect(), left_out)
}

/// Where in the databags there is text that should be certificates, and the text. Version 1 has them in the application's
/// databag; version 0 in the units', where a leaf certificate beside its CA is not one to trust.
fn certificate_texts(relation: &Relation) -> Vec<(String, Vec<String>)> {
    let v1 = relation.data.get("certificates").map(|list| texts(list)).unwrap_or_default();
    if !v1.is_empty() {
        return vec![("certificates".to_owned(), v1)];
    }
    let mut all = Vec::new();
    for (unit, data) in &relation.units {
        let in_field = |key: &str| data.get(key).map(|value| (format!("{key} of {unit}"), texts(value)));
        let authorities: Vec<_> = ["ca", "chain"].into_iter().filter_map(in_field).collect();
        if authorities.iter().any(|(_, texts)| !texts.is_empty()) {
            all.extend(authorities);
        } else {
            all.extend(in_field("certificate"));
        }
    }
    all
}

/// A JSON list of texts, one JSON text, or plain text: libraries differ.
fn texts(value: &str) -> Vec<String> {
    match serde_json::from_str(value) {
        Ok(Value::Array(list)) => list
            .into_iter()
            .map(|item| match item {
                Value::String(text) => text,
                // It is no PEM, and is left out as such.
                other => other.to_string(),
            })
            .collect(),
        Ok(Value::String(text)) if text.is_empty() => Vec::new(),
        Ok(Value::String(text)) => vec![text],
        Ok(Value::Null) => Vec::new(),
        Ok(_) | Err(_) if value.trim().is_empty() => Vec::new(),
        Ok(_) | Err(_) => vec![value.to_owned()],
    }
}

/// A longer chain is none.
const PEM_BYTES_MAX: usize = 256 << 10;

/// A chain of PEM certificates, checked, and written in one way: blocks only, lines of 64. Some Kafka charms send
/// `enabled` where the CA belongs; that is none.
///
/// # Errors
/// Why it is not a chain of certificates, to be put behind the name of what it is; never a part of the text, as that may
/// be a key.
pub fn pem(text: &str) -> Result<String, String> {
    Ok(blocks(text)?.concat())
}

fn blocks(text: &str) -> Result<Vec<String>, String> {
    if text.len() > PEM_BYTES_MAX {
        return Err("it is longer than 256 KiB".to_owned());
    }
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((_, begun)) = rest.split_once("-----BEGIN ") {
        let (label, begun) = begun.split_once("-----").unwrap_or_default();
        if label.ends_with("PRIVATE KEY") {
            return Err("it holds a private key; give certificates only".to_owned());
        }
        if label != "CERTIFICATE" {
            return Err("it holds something that is not a certificate; give certificates only".to_owned());
        }
        let (body, after) =
            begun.split_once("-----END CERTIFICATE-----").ok_or("a certificate in it has no end")?;
        let body: String = body.split_ascii_whitespace().collect();
        let der = BASE64_STANDARD.decode(&body).map_err(|_| "a certificate in it is not base64")?;
        if !is_certificate(&der) {
            return Err("a certificate in it is cut off, or is something else".to_owned());
        }
        found.push(block(&der));
        rest = after;
    }
    if found.is_empty() { Err("it is not a PEM certificate".to_owned()) } else { Ok(found) }
}

fn block(der: &[u8]) -> String {
    let body = BASE64_STANDARD.encode(der);
    let mut out = "-----BEGIN CERTIFICATE-----\n".to_owned();
    for line in body.as_bytes().chunks(64) {
        out.extend(line.iter().map(|b| char::from(*b)));
        out.push('\n');
    }
    out + "-----END CERTIFICATE-----\n"
}

/// Whether it is one whole DER sequence that begins with another, as X.509 certificates do. What uses it looks closer.
fn is_certificate(der: &[u8]) -> bool {
    contents(der).is_some_and(|(inner, after)| after.is_empty() && contents(inner).is_some())
}

/// A DER sequence's contents, and what comes after it.
fn contents(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let [0x30, first, rest @ ..] = der else { return None };
    let (length, rest) = match first {
        0..0x80 => (usize::from(*first), rest),
        0x81..=0x84 => {
            let (length, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
            (length.iter().fold(0, |n, byte| n << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

/// The first bytes of a digest.
fn hex(digest: &[u8], bytes: usize) -> String {
    digest.iter().take(bytes).map(|byte| format!("{byte:02x}")).collect()
}
