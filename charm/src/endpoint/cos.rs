//! What the charm publishes and reads for observability and CA certificates; the interfaces' libraries are the judges.
//! No I/O in it. Everything comes out in the same order and the same bytes, so that what is unchanged is not written.

use crate::facts::{Bag, Relation};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
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
    /// service that Juju makes for each application in the namespace of the model's name.
    fn host(&self, cluster_domain: &str) -> String {
        let Self {
            model,
            application,
            unit,
            ..
        } = self;
        format!(
            "{}.{application}-endpoints.{model}.svc.{cluster_domain}",
            unit.replace('/', "-")
        )
    }
}

fn bag<const N: usize>(fields: [(&str, String); N]) -> Bag {
    fields
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
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

/// The same endpoint, this unit's databag. The unit's name in DNS, and not its IP address: that changes with the pod, and
/// costs a call to know.
#[must_use]
pub fn metrics_unit_data(topology: &Topology, cluster_domain: &str) -> Bag {
    let host = topology.host(cluster_domain);
    bag([
        ("prometheus_scrape_unit_address", host.clone()),
        ("prometheus_scrape_unit_fqdn", host),
        ("prometheus_scrape_unit_name", topology.unit.clone()),
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
    let name: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect();
    json!({"groups": [{"name": name, "rules": rules}]})
}

/// The dashboard. It names the variables `juju_*` and `prometheusds` and does not have them: Grafana's charm puts its own
/// in, and an older one would have them twice. Its `uid` is cosl's `DashboardPath40UID` of the charm's name and the file's:
/// 20 bytes of shake_256 of `windrow-k8s-dashboard.json`.
const DASHBOARD: &str = include_str!("../../dashboard.json");

/// 8 bytes of shake_256 of `windrow-k8s-file:windrow`: the library's rule for one without a `uid`.
const DASHBOARD_ALT_UID: &str = "7376b7487a8ac009";

/// More than the dashboard is long; what a preset takes is for files of megabytes.
const DICTIONARY_BYTES: u32 = 1 << 16;

/// `grafana-dashboard` (provider), the application's databag.
///
/// # Panics
/// Never: a vector takes all bytes, and the options are in range.
#[must_use]
pub fn dashboard_app_data(topology: &Topology) -> Bag {
    // A fast one: 2468 bytes in 0.3 ms, where the usual 6 makes 2368 in 3 ms.
    let mut options = lzma_rust2::XzOptions::with_preset(1);
    options.lzma_options.dict_size = DICTIONARY_BYTES;
    let mut xz = lzma_rust2::XzWriter::new(Vec::new(), options).expect("the options are in range");
    xz.write_all(DASHBOARD.as_bytes())
        .expect("a vector takes all bytes");
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
    bag([
        ("metadata", topology.dict().to_string()),
        ("alert_rules", "{}".to_owned()),
    ])
}

/// The log targets of a layer, by name: one for each unit of Loki that has said where it takes logs, and one that is
/// switched off for each of ours in the plan (`in_plan`, names) that is none of these any more. Layers only add to a plan,
/// so a target that the next layer leaves out would go on.
///
/// A name holds a digest of the location: Pebble (1.10 and 1.19 were tried) keeps the client of a target whose name stays,
/// and sends to the old location until it starts anew.
#[must_use]
pub fn log_targets<'a>(
    relations: &[Relation],
    topology: &Topology,
    in_plan: impl IntoIterator<Item = &'a str>,
) -> BTreeMap<String, Value> {
    // Pebble refuses a target without a location.
    let off = json!({"override": "replace", "type": "loki", "location": "(removed)", "services": ["-all"]});
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
        if let Some(url) = data.get("endpoint").and_then(|endpoint| push_url(endpoint)) {
            let name = format!(
                "{LOG_TARGET}{}-{}",
                unit.replace('/', "-"),
                hex(&Sha256::digest(&url), 4)
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
            for text in &texts {
                match blocks(text) {
                    Ok(blocks) => {
                        for block in blocks {
                            if found.contains(&block) {
                                continue;
                            }
                            bytes += block.len();
                            if bytes > CERTIFICATES_BYTES_MAX {
                                left_out.push(format!(
                                    "there are more than 1 MiB of them with {}",
                                    relation.app
                                ));
                                return (found.into_iter().collect(), left_out);
                            }
                            found.insert(block);
                        }
                    }
                    Err(why) => left_out.push(format!("{place}: {why}")),
                }
            }
        }
    }
    (found.into_iter().collect(), left_out)
}

/// Where in the databags there is text that should be certificates, and the text. Version 1 has them in the application's
/// databag; version 0 in the units', where a leaf certificate beside its CA is not one to trust.
fn certificate_texts(relation: &Relation) -> Vec<(String, Vec<String>)> {
    let v1 = relation
        .data
        .get("certificates")
        .map(|list| texts(list))
        .unwrap_or_default();
    if !v1.is_empty() {
        return vec![(format!("certificates of {}", relation.app), v1)];
    }
    let mut all = Vec::new();
    for (unit, data) in &relation.units {
        let in_field = |key: &str| {
            data.get(key)
                .map(|value| (format!("{key} of {unit}"), texts(value)))
        };
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
    let text = |item: Value| match item {
        Value::String(text) => text,
        // It is no PEM, and is left out as such.
        other => other.to_string(),
    };
    let mut all = match serde_json::from_str(value) {
        Ok(Value::Array(list)) => list.into_iter().map(text).collect(),
        Ok(Value::String(text)) => vec![text],
        Ok(Value::Null) => Vec::new(),
        Ok(_) | Err(_) => vec![value.to_owned()],
    };
    all.retain(|text| !text.trim().is_empty());
    all
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
            return Err(
                "it holds something that is not a certificate; give certificates only".to_owned(),
            );
        }
        let (body, after) = begun
            .split_once("-----END CERTIFICATE-----")
            .ok_or("a certificate in it has no end")?;
        let body: String = body.split_ascii_whitespace().collect();
        let der = BASE64_STANDARD
            .decode(&body)
            .map_err(|_| "a certificate in it is not base64")?;
        if !is_certificate(&der) {
            return Err("a certificate in it is cut off, or is something else".to_owned());
        }
        found.push(block(&der));
        rest = after;
    }
    if found.is_empty() {
        Err("it is not a PEM certificate".to_owned())
    } else {
        Ok(found)
    }
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
    let [0x30, first, rest @ ..] = der else {
        return None;
    };
    let (length, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        0x81..=0x84 => {
            let (length, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
            (
                length
                    .iter()
                    .fold(0, |n, byte| (n << 8) | usize::from(*byte)),
                rest,
            )
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

/// The first bytes of a digest.
fn hex(digest: &[u8], bytes: usize) -> String {
    digest
        .iter()
        .take(bytes)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    const A: &str = "\
-----BEGIN CERTIFICATE-----\n\
MIIBdTCCARugAwIBAgIUD6gfrXaar4nXieLIDSPrWAZVG4AwCgYIKoZIzj0EAwIw\n\
DzENMAsGA1UEAwwEYS1jYTAgFw0yNjExMjIyMjE2NTVaGA8yMTI2MTAyOTIyMTY1\n\
NVowDzENMAsGA1UEAwwEYS1jYTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABLMA\n\
am9Ni2G7TCWNFJkP2c/Hvri3SxRcLGlFoPKZREn4LJ9YbBQkwrAt/3IjI+ql7QAO\n\
pvu0BANIleK1IF3oX1ijUzBRMB0GA1UdDgQWBBQJQpTcR7VkiKaAqCxjjvbeH01U\n\
8jAfBgNVHSMEGDAWgBQJQpTcR7VkiKaAqCxjjvbeH01U8jAPBgNVHRMBAf8EBTAD\n\
AQH/MAoGCCqGSM49BAMCA0gAMEUCIEoyGcXCTQ099oGljIKLKYtgL25TNQoXjODy\n\
MrzLKU8IAiEAjgqcrzmH9nYuYqsp2wgzY7y6vKZi9SvtAL05O0RjvGY=\n\
-----END CERTIFICATE-----\n\
";
    const B: &str = "\
-----BEGIN CERTIFICATE-----\n\
MIIBdDCCARugAwIBAgIUWUvCCeBhBnDMi50xlQRlyZymNMYwCgYIKoZIzj0EAwIw\n\
DzENMAsGA1UEAwwEYi1jYTAgFw0yNjExMjIyMjE2NTVaGA8yMTI2MTAyOTIyMTY1\n\
NVowDzENMAsGA1UEAwwEYi1jYTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABK1x\n\
9C1RolcTbNqe/Ivmj0uPB5mZKAFBUEaRCa1i2AAWQtQpuUPYtSuvi2++98o1Wytz\n\
nMOQQi9gw4+Z3e+94hOjUzBRMB0GA1UdDgQWBBSqsgnwLChnVtlTQoKKc2d41Yps\n\
tTAfBgNVHSMEGDAWgBSqsgnwLChnVtlTQoKKc2d41YpstTAPBgNVHRMBAf8EBTAD\n\
AQH/MAoGCCqGSM49BAMCA0cAMEQCIA+KZBjiVvVMvG+GWRkbllyk0308rOdYRiyS\n\
V49gDgu7AiBAaA7bYq7FBvhF7ptaj3RTz6vcbNNAT13Ik9XedxDQ5g==\n\
-----END CERTIFICATE-----\n\
";

    fn topology() -> Topology {
        Topology::new("spark", "3f2c0a11-dcb3-4870-8509-330eb9745ee8", "windrow/1")
    }

    fn parsed(bag: &Bag, key: &str) -> Value {
        serde_json::from_str(&bag[key]).unwrap()
    }

    fn of_units(app: &str, units: &[(&str, &[(&str, &str)])]) -> Relation {
        let bags = units.iter().map(|(unit, pairs)| {
            let bag: Bag = pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect();
            ((*unit).to_owned(), bag)
        });
        Relation {
            id: "x:7".to_owned(),
            app: app.to_owned(),
            units: bags.collect(),
            ..Relation::default()
        }
    }

    fn of_app(app: &str, pairs: &[(&str, &str)]) -> Relation {
        let data = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        Relation {
            id: "x:7".to_owned(),
            app: app.to_owned(),
            data,
            ..Relation::default()
        }
    }

    #[test]
    fn metrics_data_is_as_the_scrape_library_writes_it() {
        let bag = metrics_app_data(&topology(), 8080);
        assert_eq!(
            bag.keys().collect::<Vec<_>>(),
            ["alert_rules", "scrape_jobs", "scrape_metadata"]
        );
        assert_eq!(
            parsed(&bag, "scrape_metadata"),
            json!({
                "model": "spark",
                "model_uuid": "3f2c0a11-dcb3-4870-8509-330eb9745ee8",
                "application": "windrow",
                "unit": "windrow/1",
                "charm_name": "windrow-k8s",
            })
        );
        let job = &parsed(&bag, "scrape_jobs")[0];
        assert_eq!(job["static_configs"], json!([{"targets": ["*:8080"]}]));
        assert_eq!(job["metrics_path"], "/metrics");
        assert_eq!(
            metrics_unit_data(&topology(), "cluster.local"),
            bag_of(&[
                (
                    "prometheus_scrape_unit_address",
                    "windrow-1.windrow-endpoints.spark.svc.cluster.local"
                ),
                (
                    "prometheus_scrape_unit_fqdn",
                    "windrow-1.windrow-endpoints.spark.svc.cluster.local"
                ),
                ("prometheus_scrape_unit_name", "windrow/1"),
                ("prometheus_scrape_unit_path", ""),
            ])
        );
    }

    fn bag_of(pairs: &[(&str, &str)]) -> Bag {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    /// The metrics that a text of queries names.
    fn metrics_in(text: &str) -> BTreeSet<String> {
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        text.split(|c| !word(c))
            .filter(|name| name.starts_with("windrow_") || name.starts_with("process_"))
            .map(str::to_owned)
            .collect()
    }

    /// Names of all metrics of a status with everything in it.
    fn our_metrics() -> BTreeSet<String> {
        let time = Some(windrow_core::values::time::EventTime(1));
        let status = windrow_core::shown::status::Status {
            epoch: Some(1),
            watermark: time,
            last_commit: time,
            lanes: vec![windrow_core::shown::status::LaneStatus {
                lag: Some(1),
                ..Default::default()
            }],
            ..Default::default()
        };
        metrics_in(&windrow_core::shown::metrics::metrics(
            &status,
            windrow_core::shown::metrics::ProcessUse::default(),
        ))
    }

    #[test]
    fn alerts_have_a_topology_in_their_labels_and_none_in_their_expressions() {
        let rules = parsed(&metrics_app_data(&topology(), 8080), "alert_rules");
        let group = &rules["groups"][0];
        assert_eq!(group["name"], "spark_3f2c0a11_windrow_windrow_rules");
        let ours = our_metrics();
        for rule in group["rules"].as_array().unwrap() {
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
            assert_eq!(rule["labels"]["juju_model"], "spark");
            assert_eq!(
                rule["labels"]["juju_model_uuid"],
                "3f2c0a11-dcb3-4870-8509-330eb9745ee8"
            );
            assert_eq!(rule["labels"]["juju_application"], "windrow");
            assert_eq!(rule["labels"]["juju_charm"], "windrow-k8s");
            assert!(
                rule["labels"].get("juju_unit").is_none(),
                "the leader's alone would be matched"
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
    fn dashboard_comes_back_from_base64_and_xz() {
        let bag = dashboard_app_data(&topology());
        assert_eq!(
            bag,
            dashboard_app_data(&topology()),
            "the same bytes each time"
        );
        let all = parsed(&bag, "dashboards");
        let one = &all["templates"]["file:windrow"];
        assert_eq!(one["charm"], "windrow-k8s");
        assert_eq!(one["inject_dropdowns"], true);
        assert_eq!(one["juju_topology"].as_object().unwrap().len(), 4);
        assert!(one["dashboard_alt_uid"].is_string() && all["uuid"].is_string());
        let xz = BASE64_STANDARD
            .decode(one["content"].as_str().unwrap())
            .unwrap();
        let mut text = String::new();
        lzma_rust2::XzReader::new(xz.as_slice(), false)
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, DASHBOARD);
        assert!(
            bag["dashboards"].len() < 16 << 10,
            "{}",
            bag["dashboards"].len()
        );
    }

    #[test]
    fn each_panel_asks_for_our_metrics_of_the_chosen_units() {
        let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
        assert_eq!(dashboard["uid"].as_str().unwrap().len(), 40);
        let panels = dashboard["panels"].as_array().unwrap();
        assert!(panels.len() >= 10);
        let ours = our_metrics();
        let mut places = BTreeSet::new();
        let mut ids = BTreeSet::new();
        for panel in panels {
            assert!(ids.insert(panel["id"].as_u64().unwrap()));
            assert_eq!(panel["datasource"]["uid"], "${prometheusds}");
            let place = &panel["gridPos"];
            let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| place[key].as_u64().unwrap());
            assert!(x + w <= 24);
            for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
                assert!(places.insert(cell), "{}", panel["title"]);
            }
            for target in panel["targets"].as_array().unwrap() {
                let expr = target["expr"].as_str().unwrap();
                let asked = metrics_in(expr);
                assert!(!asked.is_empty() && asked.is_subset(&ours), "{expr}");
                for label in [
                    "juju_model",
                    "juju_model_uuid",
                    "juju_application",
                    "juju_unit",
                ] {
                    assert!(expr.contains(&format!("{label}=~\"${label}\"")), "{expr}");
                }
            }
        }
    }

    #[test]
    fn each_unit_of_loki_is_a_log_target() {
        let url = r#"{"url": "http://loki-0.loki-endpoints.cos.svc.cluster.local:3100/loki/api/v1/push"}"#;
        let other = r#"{"url": "https://cos.example/cos-loki-1/loki/api/v1/push"}"#;
        let loki = of_units(
            "loki",
            &[
                ("loki/0", &[("endpoint", url)]),
                ("loki/1", &[("endpoint", other)]),
            ],
        );
        let targets = log_targets(&[loki], &topology(), []);
        assert_eq!(targets.len(), 2);
        assert_eq!(
            targets["logging-loki-0-580a0aa4"],
            json!({
                "override": "replace",
                "type": "loki",
                "location": "http://loki-0.loki-endpoints.cos.svc.cluster.local:3100/loki/api/v1/push",
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
        let app = logging_app_data(&topology());
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
        let before = log_targets(&at("http://a:3100/push"), &topology(), []);
        let names: Vec<&str> = before
            .keys()
            .map(String::as_str)
            .chain(["of-the-image"])
            .collect();
        let off = json!({"override": "replace", "type": "loki", "location": "(removed)", "services": ["-all"]});

        let gone = log_targets(&[], &topology(), names.iter().copied());
        assert_eq!(gone.values().collect::<Vec<_>>(), [&off]);

        let moved = log_targets(
            &at("http://b:3100/push"),
            &topology(),
            names.iter().copied(),
        );
        assert_eq!(
            moved.len(),
            2,
            "Pebble follows no location that changes below a name"
        );
        assert_eq!(moved[names[0]], off);

        assert_eq!(
            log_targets(
                &at("http://a:3100/push"),
                &topology(),
                names.iter().copied()
            ),
            before
        );
    }

    #[test]
    fn partial_or_hostile_endpoints_are_no_log_targets() {
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
                log_targets(&[relation], &topology(), []),
                BTreeMap::new(),
                "{endpoint}"
            );
        }
        assert_eq!(
            log_targets(&[of_units("loki", &[("loki/0", &[])])], &topology(), []),
            BTreeMap::new()
        );
    }

    #[test]
    fn certificates_of_version_1_are_read_once_each_and_in_fixed_order() {
        let one = json!([A, B, A]).to_string();
        let two = json!([format!("{B}{A}")]).to_string();
        let first = of_app("ca", &[("certificates", &one), ("version", "1")]);
        let second = of_app("other", &[("certificates", &two), ("version", "1")]);
        let (found, left_out) = ca_certificates(&[first.clone(), second.clone()]);
        assert_eq!(found, [B, A].map(str::to_owned));
        assert_eq!(left_out, [""; 0]);
        assert_eq!(ca_certificates(&[second, first]).0, found);
        assert_eq!(ca_app_data(), bag_of(&[("version", "1")]));
    }

    #[test]
    fn certificates_of_version_0_are_in_the_units_bags() {
        // As its own library writes them, and as version 1's does for an old requirer.
        let chain = json!([B]).to_string();
        let plain = of_units(
            "ca",
            &[(
                "ca/0",
                &[
                    ("certificate", A),
                    ("ca", B),
                    ("chain", &chain),
                    ("version", "0"),
                ],
            )],
        );
        let ca = json!(B).to_string();
        let quoted = of_units(
            "ca",
            &[(
                "ca/0",
                &[("certificate", "\"\""), ("ca", &ca), ("chain", "null")],
            )],
        );
        let lone = of_units("ca", &[("ca/0", &[("certificate", B)])]);
        for relation in [plain, quoted, lone] {
            assert_eq!(ca_certificates(&[relation]), (vec![B.to_owned()], vec![]));
        }
    }

    #[test]
    fn what_is_no_certificate_is_left_out_with_a_reason_and_the_rest_counts() {
        let list = json!([
            A,
            "enabled",
            7,
            "",
            "-----BEGIN RSA PRIVATE KEY-----\nc2VjcmV0\n-----END RSA PRIVATE KEY-----"
        ]);
        let (found, left_out) =
            ca_certificates(&[of_app("ca", &[("certificates", &list.to_string())])]);
        assert_eq!(found, [A]);
        assert_eq!(
            left_out,
            [
                "certificates of ca: it is not a PEM certificate",
                "certificates of ca: it is not a PEM certificate",
                "certificates of ca: it holds a private key; give certificates only",
            ]
        );
        let broken = of_app("ca", &[("certificates", "[\"-----BEGIN")]);
        assert_eq!(ca_certificates(&[broken]).1.len(), 1);
        for nothing in ["", "[]", "null"] {
            assert_eq!(
                ca_certificates(&[of_app("ca", &[("certificates", nothing)])]),
                (vec![], vec![])
            );
        }
    }

    #[test]
    fn there_is_an_end_to_certificates() {
        // As many different ones as are needed, each 60 KB long.
        let many: Vec<String> = (0..30_u8)
            .map(|n| block(&sequence(&sequence(&[n; 60_000]))))
            .collect();
        let (found, left_out) =
            ca_certificates(&[of_app("ca", &[("certificates", &json!(many).to_string())])]);
        assert!((10..20).contains(&found.len()), "{}", found.len());
        assert_eq!(left_out, ["there are more than 1 MiB of them with ca"]);
    }

    fn sequence(contents: &[u8]) -> Vec<u8> {
        let length = u32::try_from(contents.len()).unwrap().to_be_bytes();
        [&[0x30, 0x84][..], &length, contents].concat()
    }

    #[test]
    fn pem_is_checked_and_written_in_one_way() {
        assert_eq!(pem(A).unwrap(), A);
        assert_eq!(
            pem(&format!("{A}{B}")).unwrap(),
            format!("{A}{B}"),
            "a chain keeps its order"
        );
        let messy = format!(
            "subject=CN = a\r\n{}\r\n\r\n",
            A.trim_end().replace('\n', "\r\n")
        );
        assert_eq!(pem(&messy).unwrap(), A);
        assert_eq!(
            pem(&A.replace('\n', " ")).unwrap(),
            A,
            "lines lost on a command line"
        );
    }

    #[test]
    fn what_is_no_pem_is_refused_without_showing_it() {
        let base64 = |text: &str| BASE64_STANDARD.encode(text);
        let with = |body: &str| {
            format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
        };
        let half: String = A.lines().take(5).map(|line| format!("{line}\n")).collect();
        for (text, why) in [
            ("", "not a PEM certificate"),
            ("enabled", "not a PEM certificate"),
            ("disabled", "not a PEM certificate"),
            (&half, "has no end"),
            (&format!("{half}-----END CERTIFICATE-----"), "cut off"),
            (&with("secret!"), "not base64"),
            (&with(&base64("hunter2")), "something else"),
            (&with(&base64("0\u{0}")), "something else"),
            (&with(""), "something else"),
            (
                &format!("{A}-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----"),
                "private key",
            ),
            (&format!("{A}-----BEGIN hunter2"), "not a certificate"),
            (
                &A.replace("CERTIFICATE", "CERTIFICATE REQUEST"),
                "not a certificate",
            ),
            (
                &format!("{A}{}", " ".repeat(300_000)),
                "longer than 256 KiB",
            ),
        ] {
            let refused = pem(text).unwrap_err();
            assert!(refused.contains(why), "{refused}");
            assert!(
                !refused.contains("hunter2") && !refused.contains("secret"),
                "{refused}"
            );
        }
    }
}
