//! What the other charms write, when the real ones write it: only after a request, and into secrets
//! where they use secrets.

use crate::juju::Bag;
use windrow_core::values::digest::sha256_hex;

/// The other side of a relation.
#[derive(Clone)]
pub struct Provider {
    pub app: &'static str,
    pub units: u32,
    /// The UUID of its model; empty for our own model.
    pub model: &'static str,
    /// The key in our application's databag that is the request; empty when it writes without one.
    pub request: &'static str,
    /// What it writes into its application's databag before any request.
    pub first: Vec<(String, String)>,
    /// What it writes into its application's databag after a request. `{id}` is the relation's
    /// number, and `{request}` what was asked for.
    pub bag: Vec<(String, String)>,
    /// Group, such as `secret-user` → what is in its secret.
    pub secrets: Vec<(String, Vec<(String, String)>)>,
    /// What each of its units writes. `{n}` is the unit's number.
    pub unit_bag: Vec<(String, String)>,
}

/// A certificate of an authority, another one for each name.
pub fn pem(name: &str) -> String {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    let ca: String = include_str!("ca.pem")
        .lines()
        .filter(|line| !line.starts_with('-'))
        .collect();
    let mut der = STANDARD.decode(ca).expect("base64");
    // In the middle of the signature, which nobody checks in an anchor of trust.
    let at = der.len() - 24;
    der[at..at + 8].copy_from_slice(&sha256_hex(name.as_bytes()).as_bytes()[..8]);
    let inside = STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{inside}\n-----END CERTIFICATE-----")
}

impl Provider {
    fn new(app: &'static str, request: &'static str) -> Provider {
        Provider {
            app,
            units: 1,
            model: "",
            request,
            first: Vec::new(),
            bag: Vec::new(),
            secrets: Vec::new(),
            unit_bag: Vec::new(),
        }
    }

    /// Makes it write this into its application's databag. With an empty value it leaves the key
    /// out.
    pub fn with(mut self, key: &str, value: &str) -> Provider {
        self.bag.retain(|(k, _)| k != key);
        if !value.is_empty() {
            self.bag.push((key.to_owned(), value.to_owned()));
        }
        self
    }

    fn with_unit(mut self, key: &str, value: &str) -> Provider {
        self.unit_bag.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Puts fields into the secret of a group. With an empty value a field is left out.
    pub fn with_secret(mut self, group: &str, fields: &[(&str, &str)]) -> Provider {
        if !self.secrets.iter().any(|(g, _)| g == group) {
            self.secrets.push((group.to_owned(), Vec::new()));
        }
        let (_, of) = self
            .secrets
            .iter_mut()
            .find(|(g, _)| g == group)
            .expect("just there");
        for (key, value) in fields {
            of.retain(|(k, _)| k != key);
            if !value.is_empty() {
                of.push(((*key).to_owned(), (*value).to_owned()));
            }
        }
        self
    }

    /// Makes it write into the databag what would be in secrets, as with a library without secrets.
    pub fn plain(mut self) -> Provider {
        for (_, fields) in std::mem::take(&mut self.secrets) {
            self.bag.extend(fields);
        }
        self
    }

    pub fn app(mut self, app: &'static str) -> Provider {
        self.app = app;
        self
    }

    pub fn units(mut self, units: u32) -> Provider {
        self.units = units;
        self
    }

    pub fn model(mut self, uuid: &'static str) -> Provider {
        self.model = uuid;
        self
    }

    /// kafka-k8s 3/stable revision 56, ZooKeeper, no TLS.
    pub fn kafka_56() -> Provider {
        Provider::new("kafka-k8s", "topic")
            .with("topic", "{request}")
            .with("endpoints", "kafka-k8s-0.kafka-k8s-endpoints:9092")
            .with("tls", "disabled")
            .with("consumer-group-prefix", "relation-{id}-")
            .with(
                "zookeeper-uris",
                "zookeeper-k8s-0.zookeeper-k8s-endpoints:2181/kafka-k8s",
            )
            .with("data", "{}")
            .with_secret(
                "secret-user",
                &[
                    ("username", "relation-{id}"),
                    ("password", "kafka-password-{id}"),
                ],
            )
    }

    /// kafka-k8s 3/edge: `tls-ca` does not hold a certificate.
    pub fn kafka_3() -> Provider {
        Provider::kafka_56()
            .with_secret("secret-tls", &[("tls", "disabled"), ("tls-ca", "disabled")])
            .with("tls", "")
    }

    /// kafka-k8s 4 with TLS: a provider of data_interfaces v1 that answers a requirer of v0.
    pub fn kafka_4() -> Provider {
        Provider::kafka_56()
            .with("zookeeper-uris", "")
            .with(
                "endpoints",
                "kafka-k8s-0.kafka-k8s-endpoints:9093,kafka-k8s-1.kafka-k8s-endpoints:9093",
            )
            .with("tls", "")
            .with("resource", "{request}")
            .with("salt", "0123456789abcdef")
            .with("version", "v0")
            .with_secret(
                "secret-tls",
                &[("tls", "enabled"), ("tls-ca", &pem("kafka"))],
            )
            .units(2)
    }

    /// s3-integrator 1: no secrets at all.
    pub fn s3_1() -> Provider {
        Provider::new("s3-integrator", "bucket")
            .with("bucket", "{request}")
            .with("endpoint", "http://10.152.183.128:80")
            .with("path", "spark-events")
            .with("access-key", "s3-access-key-{id}")
            .with("secret-key", "s3-secret-key-{id}")
            .with("data", "{\"bucket\": \"{request}\"}")
    }

    /// s3-integrator 2: the keys are in `secret-extra`. It writes its version before any request.
    pub fn s3_2() -> Provider {
        let mut provider = Provider::new("s3-integrator", "bucket")
            .with("bucket", "{request}")
            .with("endpoint", "https://s3.example.com")
            .with("region", "eu-central-1")
            .with("path", "spark-events")
            .with("s3-uri-style", "host")
            .with_secret(
                "secret-extra",
                &[
                    ("access-key", "s3-access-key-{id}"),
                    ("secret-key", "s3-secret-key-{id}"),
                ],
            );
        provider
            .first
            .push(("lib-version".to_owned(), "1.0".to_owned()));
        provider
    }

    /// postgresql-k8s 14/stable revision 281: no `uris`, no `tls`.
    pub fn postgresql_281() -> Provider {
        Provider::new("metastore", "database")
            .with("database", "{request}")
            .with(
                "endpoints",
                "metastore-primary.spark.svc.cluster.local:5432",
            )
            .with(
                "read-only-endpoints",
                "metastore-primary.spark.svc.cluster.local:5432",
            )
            .with("version", "14.11")
            .with("data", "{}")
            .with_secret(
                "secret-user",
                &[
                    ("username", "relation_id_{id}"),
                    ("password", "postgresql-password-{id}"),
                ],
            )
    }

    /// postgresql-k8s 14, later: `uris` too.
    pub fn postgresql_14() -> Provider {
        let uris = "postgresql://relation_id_{id}:postgresql-password-{id}\
                @metastore-primary.spark.svc.cluster.local:5432/hivemetastore";
        Provider::postgresql_281()
            .with("version", "14.15")
            .with_secret("secret-user", &[("uris", uris)])
            .with_secret("secret-tls", &[("tls", "False")])
    }

    /// postgresql-k8s 16 with TLS.
    pub fn postgresql_16() -> Provider {
        Provider::postgresql_14()
            .with("version", "16.9")
            .with_secret(
                "secret-tls",
                &[("tls", "True"), ("tls-ca", &pem("postgresql"))],
            )
    }

    /// certificate_transfer v1, as self-signed-certificates writes it.
    pub fn certificates_1() -> Provider {
        let list = serde_json::json!([pem("root"), pem("intermediate")]).to_string();
        Provider::new("self-signed-certificates", "")
            .with("certificates", &list)
            .with("version", "1")
    }

    /// certificate_transfer v0, which writes into the units' databags.
    pub fn certificates_0() -> Provider {
        let chain = serde_json::json!([pem("chain")]).to_string();
        Provider::new("manual-tls-certificates", "")
            .with_unit("certificate", &pem("leaf"))
            .with_unit("ca", &pem("root"))
            .with_unit("chain", &chain)
    }

    /// loki-k8s: each unit gives an address of its own.
    pub fn loki() -> Provider {
        let url = "http://loki-{n}.loki-endpoints.cos.svc.cluster.local:3100/loki/api/v1/push";
        Provider::new("loki", "")
            .with_unit("endpoint", &serde_json::json!({"url": url}).to_string())
            .units(2)
    }

    pub fn prometheus() -> Provider {
        Provider::new("prometheus", "")
    }

    pub fn grafana() -> Provider {
        Provider::new("grafana", "")
    }

    /// Whether an application's databag holds the request that this provider answers.
    pub fn is_asked(&self, ours: &Bag) -> bool {
        self.request.is_empty() || ours.contains_key(self.request)
    }
}
