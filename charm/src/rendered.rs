//! The files that the workload reads, made of options and relations; and the digest that says
//! whether it must be restarted. Nothing is written here.

use crate::endpoint::{kafka::Kafka, metastore::Metastore, s3::S3};
use crate::facts::{KAFKA, METASTORE, Proxy, S3 as S3_ENDPOINT};
use crate::options::{Options, put};
use serde_yaml::Mapping;
use std::collections::BTreeMap;
use windrow_core::settings::config::{Config, Secret};
use windrow_core::values::digest::sha256_hex;

/// The settings file in the workload's container.
pub const SETTINGS_FILE: &str = "/etc/windrow/windrow.yaml";
/// The secrets file, which only windrow may read.
pub const SECRETS_FILE: &str = "/etc/windrow/secrets.yaml";
/// The CA certificates for Kafka.
pub const KAFKA_CA_FILE: &str = "/etc/windrow/kafka-ca.pem";
/// The CA certificates for S3.
pub const S3_CA_FILE: &str = "/etc/windrow/s3-ca.pem";
/// The CA certificates for PostgreSQL.
pub const CATALOG_CA_FILE: &str = "/etc/windrow/catalog-ca.pem";

/// Every file that the charm may write into the container, except the program.
pub const FILES: [&str; 5] = [
    SETTINGS_FILE,
    SECRETS_FILE,
    KAFKA_CA_FILE,
    S3_CA_FILE,
    CATALOG_CA_FILE,
];

/// The port of windrow's HTTP: the status page, health and metrics.
pub const HTTP_PORT: u16 = 8080;

/// Everything that the workload is told.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// The options that count.
    pub options: &'a Options,
    /// What Kafka's charm gives.
    pub kafka: &'a Kafka,
    /// The namespace that is added to the names of Kafka's brokers; `None` where none is needed, or
    /// where an option names it and it is in `options` already.
    pub kafka_namespace: Option<&'a str>,
    /// What the S3 integrator gives; `None` in console mode, which does not need it.
    pub s3: Option<&'a S3>,
    /// What PostgreSQL's charm gives; `None` in console mode.
    pub metastore: Option<&'a Metastore>,
    /// CA certificates that are trusted in addition to those of each endpoint: PEM, or empty.
    pub ca: &'a str,
    /// The name by which other processes know this unit.
    pub instance: &'a str,
    /// The model's proxies, through which S3 is reached.
    pub proxy: &'a Proxy,
    /// The token that windrow's HTTP wants; `None` where it wants none.
    pub token: Option<&'a Secret>,
}

/// The workload's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadFiles {
    /// Their texts, by path.
    pub files: BTreeMap<&'static str, Secret>,
    /// A digest in hexadecimal; another one means a restart. It does not cover the secrets and the
    /// log level, which windrow reads again while it runs.
    pub digest: String,
}

/// Makes the texts of the files.
///
/// # Errors
/// What the workload would refuse, because a relation gives a value that cannot be used. Each
/// problem names the endpoint.
pub fn render(inputs: &Inputs<'_>) -> Result<WorkloadFiles, Vec<String>> {
    let mut draft = Draft {
        inputs: *inputs,
        settings: inputs.options.settings.clone(),
        certificates: BTreeMap::new(),
        secrets: BTreeMap::new(),
    };
    draft.add_kafka();
    draft.add_s3();
    draft.add_metastore();
    draft.add_unit();
    draft.finish()
}

/// The files while they are being made.
struct Draft<'a> {
    inputs: Inputs<'a>,
    settings: Mapping,
    /// The files of certificates, by path.
    certificates: BTreeMap<&'static str, Secret>,
    /// What the secrets file will hold, by name.
    secrets: BTreeMap<&'static str, &'a Secret>,
}

impl Draft<'_> {
    fn set(&mut self, setting: &str, value: impl Into<String>) {
        put(&mut self.settings, setting, value.into());
    }

    /// Adds a file with these certificates and those that are trusted everywhere, and the setting
    /// that names it. Without any certificate there is neither.
    fn add_certificates(&mut self, path: &'static str, setting: &str, own: &[&str]) {
        let text = own
            .iter()
            .chain([&self.inputs.ca])
            .filter(|pem| !pem.is_empty())
            .fold(String::new(), |all, pem| all + pem.trim_end() + "\n");
        if !text.is_empty() {
            self.set(setting, path);
            self.certificates.insert(path, Secret::new(text));
        }
    }

    fn add_kafka(&mut self) {
        let kafka = self.inputs.kafka;
        self.set("kafka.bootstrap", &kafka.bootstrap);
        self.set("kafka.topic", &kafka.topic);
        let security = if kafka.tls {
            "sasl-ssl"
        } else {
            "sasl-plaintext"
        };
        self.set("kafka.security", security);
        self.set("kafka.group-prefix", &kafka.group_prefix);
        if let Some(namespace) = self.inputs.kafka_namespace {
            self.set("kafka.namespace", namespace);
        }
        let own = [kafka.ca.as_str(), &self.inputs.options.kafka_ca];
        self.add_certificates(KAFKA_CA_FILE, "kafka.ca-file", &own);
        self.secrets.extend([
            ("kafka-username", &kafka.username),
            ("kafka-password", &kafka.password),
        ]);
    }

    fn add_s3(&mut self) {
        let Some(s3) = self.inputs.s3 else { return };
        self.set("s3.endpoint", &s3.endpoint);
        if !s3.region.is_empty() {
            self.set("s3.region", &s3.region);
        }
        self.set("s3.path-style", s3.path_style.to_string());
        let own = [s3.ca.as_str(), &self.inputs.options.s3_ca];
        self.add_certificates(S3_CA_FILE, "s3.ca-file", &own);
        if !is_given(&self.settings, "table", "warehouse") {
            self.set("table.bucket", &s3.bucket);
        }
        self.secrets.extend([
            ("s3-access-key", &s3.access_key),
            ("s3-secret-key", &s3.secret_key),
        ]);
        // Without an endpoint it is AWS, which is asked by https.
        let is_https = s3.endpoint.is_empty() || s3.endpoint.starts_with("https://");
        let all = self.inputs.proxy;
        let proxy = if is_https { &all.https } else { &all.http };
        if let Some(proxy) = proxy {
            self.secrets.insert("s3-proxy", proxy);
            if !all.no_proxy.is_empty() {
                self.set("s3.no-proxy", &all.no_proxy);
            }
        }
    }

    fn add_metastore(&mut self) {
        let Some(metastore) = self.inputs.metastore else {
            return;
        };
        let catalog = format!("postgresql://{}/{}", metastore.endpoint, metastore.database);
        self.set("catalog", catalog);
        let own = [metastore.ca.as_str(), &self.inputs.options.metastore_ca];
        // Who answers is always checked, by Mozilla's CAs where no others are given: a password
        // that is sent to whoever answers is given away.
        let tls = if metastore.tls {
            "verify-full"
        } else {
            "disable"
        };
        self.set("catalog-tls", tls);
        if metastore.tls {
            self.add_certificates(CATALOG_CA_FILE, "catalog-ca-file", &own);
        }
        self.secrets.extend([
            ("catalog-username", &metastore.username),
            ("catalog-password", &metastore.password),
        ]);
    }

    fn add_unit(&mut self) {
        self.set("instance", self.inputs.instance);
        self.set("http", format!("0.0.0.0:{HTTP_PORT}"));
        self.set("secrets-file", SECRETS_FILE);
        self.secrets
            .extend(self.inputs.token.map(|token| ("api-token", token)));
    }

    fn finish(self) -> Result<WorkloadFiles, Vec<String>> {
        let digest = digest(&self.settings, &self.certificates);
        let settings = yaml(
            &self.settings,
            "What windrow should do. The charm writes this file, so changes are lost.",
        );
        Config::parse(&settings).map_err(|error| {
            let problems = error.0.iter();
            problems
                .map(|problem| name_endpoint(problem))
                .collect::<Vec<_>>()
        })?;
        let secrets: BTreeMap<_, _> = self
            .secrets
            .iter()
            .map(|(name, secret)| (name, secret.expose()))
            .collect();
        let secrets = yaml(
            &secrets,
            "The secrets of windrow. The charm writes this file, so changes are lost.",
        );
        let mut files = self.certificates;
        files.insert(SETTINGS_FILE, Secret::new(settings));
        files.insert(SECRETS_FILE, Secret::new(secrets));
        Ok(WorkloadFiles { files, digest })
    }
}

/// A problem with a setting, with the endpoint that the setting comes from.
fn name_endpoint(problem: &str) -> String {
    let endpoint = [
        ("setting kafka.", KAFKA),
        ("setting s3.", S3_ENDPOINT),
        ("setting table.", S3_ENDPOINT),
        ("setting catalog", METASTORE),
    ];
    match endpoint
        .iter()
        .find(|(setting, _)| problem.contains(setting))
    {
        Some((_, endpoint)) => format!("{endpoint}: what is given cannot be used: {problem}"),
        None => problem.to_owned(),
    }
}

/// Whether a section has this setting.
fn is_given(all: &Mapping, section: &str, name: &str) -> bool {
    all.get(section)
        .and_then(|section| section.get(name))
        .is_some()
}

/// A YAML file with one line of comment at its top.
fn yaml(value: &impl serde::Serialize, comment: &str) -> String {
    let text = serde_yaml::to_string(value).expect("maps of texts are YAML");
    format!("# {comment}\n{text}")
}

/// The digest of what cannot be changed while windrow runs: all settings except the log's, and the
/// certificates.
fn digest(all: &Mapping, certificates: &BTreeMap<&str, Secret>) -> String {
    let mut all = all.clone();
    all.remove("log");
    let mut text = serde_yaml::to_string(&all).expect("maps of texts are YAML");
    for (path, certificate) in certificates {
        text += path;
        text += certificate.expose();
    }
    sha256_hex(text.as_bytes())[..16].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options;
    use windrow_core::settings::config::Secrets;

    fn options(more: &[(&str, &str)]) -> Options {
        let mut values = options::tests::defaults();
        for (name, value) in more {
            values.insert((*name).to_owned(), (*value).into());
        }
        options::read(&values).unwrap()
    }

    fn kafka() -> Kafka {
        Kafka {
            bootstrap: "kafka-k8s-0.kafka-k8s-endpoints:9092".to_owned(),
            topic: "given".to_owned(),
            tls: false,
            ca: String::new(),
            username: Secret::new("ku"),
            password: Secret::new("k: #\"p'w"),
            group_prefix: "relation-4-".to_owned(),
            short_host: None,
        }
    }

    fn s3() -> S3 {
        S3 {
            bucket: "lake".to_owned(),
            endpoint: "http://10.1.2.3:80".to_owned(),
            region: String::new(),
            path_style: true,
            ca: String::new(),
            access_key: Secret::new("ak"),
            secret_key: Secret::new("sk"),
        }
    }

    fn metastore() -> Metastore {
        Metastore {
            endpoint: "metastore-primary.spark.svc.cluster.local:5432".to_owned(),
            database: "hivemetastore".to_owned(),
            tls: false,
            ca: String::new(),
            username: Secret::new("pu"),
            password: Secret::new("yes"),
        }
    }

    struct World {
        options: Options,
        kafka: Kafka,
        s3: Option<S3>,
        metastore: Option<Metastore>,
        proxy: Proxy,
        token: Option<Secret>,
    }

    impl World {
        fn new() -> Self {
            let (s3, metastore) = (Some(s3()), Some(metastore()));
            Self {
                options: options(&[]),
                kafka: kafka(),
                s3,
                metastore,
                proxy: Proxy::default(),
                token: None,
            }
        }

        fn render(&self) -> WorkloadFiles {
            render(&Inputs {
                options: &self.options,
                kafka: &self.kafka,
                kafka_namespace: Some("kafka"),
                s3: self.s3.as_ref(),
                metastore: self.metastore.as_ref(),
                ca: "",
                instance: "uuid/windrow/0",
                proxy: &self.proxy,
                token: self.token.as_ref(),
            })
            .unwrap()
        }
    }

    fn config(rendered: &WorkloadFiles) -> (Config, Secrets) {
        let config = Config::parse(rendered.files[SETTINGS_FILE].expose()).unwrap();
        let secrets = Secrets::parse(rendered.files[SECRETS_FILE].expose()).unwrap();
        config.check_secrets(&secrets).unwrap();
        (config, secrets)
    }

    #[test]
    fn the_workload_reads_what_the_charm_writes() {
        let (config, secrets) = config(&World::new().render());
        assert_eq!(
            config.shape.topic, "given",
            "the topic of the relation counts"
        );
        assert_eq!(config.kafka.namespace.as_deref(), Some("kafka"));
        assert_eq!(config.group(), "relation-4-windrow-default.newtable");
        assert_eq!(secrets.kafka_password.unwrap().expose(), "k: #\"p'w");
        assert_eq!(
            secrets.catalog_password.unwrap().expose(),
            "yes",
            "a word of YAML stays a text"
        );
    }

    #[test]
    fn console_mode_needs_kafka_alone() {
        let mut world = World::new();
        world.options = options(&[("table-name", "")]);
        (world.s3, world.metastore) = (None, None);
        assert_eq!(config(&world.render()).0.table, None);
    }

    #[test]
    fn secrets_and_the_log_level_change_no_digest_and_all_else_does() {
        let before = World::new().render().digest;
        let mut world = World::new();
        world.kafka.password = Secret::new("other");
        world.options = options(&[("log-level", "debug")]);
        world.token = Some(Secret::new("t"));
        assert_eq!(world.render().digest, before);
        world.kafka.bootstrap = "b:1".to_owned();
        assert_ne!(world.render().digest, before);
        let mut world = World::new();
        world.options = options(&[("window", "20s")]);
        assert_ne!(world.render().digest, before);
    }

    #[test]
    fn a_metastore_with_tls_is_always_checked_whoever_brings_the_ca() {
        let mut world = World::new();
        world.metastore.as_mut().unwrap().tls = true;
        let rendered = world.render();
        let settings = rendered.files[SETTINGS_FILE].expose();
        assert!(
            settings.contains("catalog-tls: verify-full\n"),
            "{settings}"
        );
        // Then Mozilla's CAs are trusted, which are part of the program.
        assert!(!settings.contains("catalog-ca-file"), "{settings}");
        assert!(config(&rendered).0.catalog.is_some());
    }

    #[test]
    fn no_secret_is_in_the_settings() {
        let mut world = World::new();
        world.token = Some(Secret::new("t0ken"));
        world.proxy = Proxy {
            http: Some(Secret::new("http://u:pr0xy@proxy:3128")),
            https: None,
            no_proxy: "10.0.0.0/8".to_owned(),
        };
        let rendered = world.render();
        let settings = rendered.files[SETTINGS_FILE].expose();
        for secret in ["ku", "sk", "pu", "t0ken", "pr0xy"] {
            assert!(
                !settings.contains(&format!(" {secret}\n")) && !settings.contains("pr0xy"),
                "{settings}"
            );
        }
        assert!(settings.contains("no-proxy: 10.0.0.0/8"), "{settings}");
        assert_eq!(config(&rendered).1.api_token.unwrap().expose(), "t0ken");
    }
}
