//! The files that the workload reads, made of options and relations; and the digest that says
//! whether it must be restarted. Nothing is written here.

use crate::endpoint::{kafka::Kafka, metastore::Metastore, s3::S3};
use crate::facts::{CA, KAFKA, METASTORE, Proxy, S3 as S3_ENDPOINT};
use crate::options::{Options, put};
use crate::secrets;
use serde_yaml::{Mapping, Value as Yaml};
use std::collections::{BTreeMap, BTreeSet};
use windrow_core::settings::certificates::Certificates;
use windrow_core::settings::config::{Config, Secret, Secrets};
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
    /// CA certificates that are trusted in addition to those of each endpoint.
    pub ca: &'a Certificates,
    /// The files that are in the container now, by path.
    pub there: &'a BTreeMap<String, Secret>,
    /// The name by which other processes know this unit.
    pub instance: &'a str,
    /// The model's proxies, through which S3 is reached: only those that can be used.
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
    /// What an endpoint gives and is not in them, because it cannot be used: the endpoint, and why.
    pub left_out: Vec<(&'static str, String)>,
}

/// The most that one file of certificates may hold, in bytes. Together the charm reads back 1 MiB
/// from the container, and there are three such files.
const CA_FILE_BYTES_MAX: usize = 256 << 10;

/// The token that windrow's HTTP wants: the one in the secrets file in the container, which the
/// running windrow reads again by itself. The secret of option `api-token` may be newer.
#[must_use]
pub fn token_in_force(files: &BTreeMap<String, Secret>) -> Option<Secret> {
    let secrets = Secrets::parse(files.get(SECRETS_FILE)?.expose()).ok()?;
    secrets.api_token
}

/// What is given while something else that windrow needs is not, or is wrong.
#[derive(Clone, Copy, Debug)]
pub struct Given<'a> {
    /// What Kafka's charm gives; `None` where that cannot be used.
    pub kafka: Option<&'a Kafka>,
    /// The same of the S3 integrator.
    pub s3: Option<&'a S3>,
    /// The same of PostgreSQL's charm.
    pub metastore: Option<&'a Metastore>,
    /// The model's proxies that can be used.
    pub proxy: &'a Proxy,
    /// The token that windrow's HTTP wants; `None` where it wants none.
    pub token: Option<&'a Secret>,
    /// The files that are in the container now, by path.
    pub there: &'a BTreeMap<String, Secret>,
}

/// The secrets file with the logins that are given, and the others as they are. So one endpoint
/// that cannot be used holds back no other's new password. `None` where the file stays as it is, or
/// where there is none.
///
/// The settings stay as they are, so a login is replaced only where it is still for the same user
/// or for what the settings name. For example, the user of a new relation to another Kafka must
/// wait until windrow is told where that is.
#[must_use]
pub fn rotated_secrets(given: &Given<'_>) -> Option<Secret> {
    let old_text = given.there.get(SECRETS_FILE)?;
    let old = Secrets::parse(old_text.expose()).ok()?;
    let settings: Yaml = serde_yaml::from_str(given.there.get(SETTINGS_FILE)?.expose()).ok()?;
    let names = |(section, name): (&str, &str), value: &str| {
        let there = settings.get(section).and_then(|section| section.get(name));
        there.and_then(Yaml::as_str).unwrap_or_default() == value
    };
    let mut all: BTreeMap<_, _> = secrets::by_key(&old)
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
        .collect();
    let mut replace = |[user_key, key]: [&'static str; 2], user, secret, is_same_place: bool| {
        if let Some(before) = all.get(user_key)
            && (*before == user || is_same_place)
        {
            all.extend([(user_key, user), (key, secret)]);
        }
    };
    if let Some(kafka) = given.kafka {
        let is_same = names(("kafka", "bootstrap"), &kafka.bootstrap)
            && names(("kafka", "group-prefix"), &kafka.group_prefix);
        let keys = ["kafka-username", "kafka-password"];
        replace(keys, &kafka.username, &kafka.password, is_same);
    }
    let s3_proxy = given.s3.and_then(|s3| s3_proxy(s3, given.proxy));
    if let Some(s3) = given.s3 {
        let is_same = names(("s3", "endpoint"), &s3.endpoint);
        let keys = ["s3-access-key", "s3-secret-key"];
        replace(keys, &s3.access_key, &s3.secret_key, is_same);
    }
    if let Some(metastore) = given.metastore {
        let catalog = settings.get("catalog").and_then(Yaml::as_str);
        let is_same = catalog == Some(metastore.url().as_str());
        let keys = ["catalog-username", "catalog-password"];
        replace(keys, &metastore.username, &metastore.password, is_same);
    }
    // Which hosts are reached without the proxy is a setting.
    if let (Some(proxy), true) = (s3_proxy, all.contains_key("s3-proxy"))
        && names(("s3", "no-proxy"), &given.proxy.no_proxy)
    {
        all.insert("s3-proxy", proxy);
    }
    match given.token {
        Some(token) => all.insert("api-token", token),
        None => all.remove("api-token"),
    };
    Some(secrets::file_text(&all)).filter(|text| text != old_text)
}

/// The proxy through which S3 is reached, of those of the model.
fn s3_proxy<'a>(s3: &S3, proxy: &'a Proxy) -> Option<&'a Secret> {
    let of_scheme = if s3.is_https() {
        &proxy.https
    } else {
        &proxy.http
    };
    of_scheme.as_ref()
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
        left_out: Vec::new(),
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
    left_out: Vec<(&'static str, String)>,
}

impl Draft<'_> {
    fn set(&mut self, setting: &str, value: impl Into<String>) {
        put(&mut self.settings, setting, value.into());
    }

    /// Adds a file with the certificates that an endpoint gives, those of its option (`chosen`, in
    /// PEM) and those that are trusted everywhere; and the setting that names it. Without any
    /// certificate there is neither.
    ///
    /// Each certificate is there once, and they are sorted: in which order they come changes
    /// nothing. As long as something that is given cannot be used, what is in the file already
    /// stays. So a certificate that is none never takes away a trust that windrow runs with.
    fn add_certificates(
        &mut self,
        (endpoint, path, setting): (&'static str, &'static str, &str),
        given: &Certificates,
        chosen: &str,
    ) {
        let there = self.inputs.there.get(path);
        let there = Certificates::read(there.map(Secret::expose).unwrap_or_default()).blocks;
        let chosen = Certificates::read(chosen).blocks;
        let everywhere = self.inputs.ca;
        let why = given.left_out.iter().map(|why| {
            let why = format!("a CA certificate that it gives is left out: {why}");
            (endpoint, why)
        });
        self.left_out.extend(why);
        let is_whole = given.left_out.is_empty() && everywhere.left_out.is_empty();
        let common: BTreeSet<&String> = everywhere.blocks.iter().collect();
        // Where there are too many, those that windrow trusts already are the last to go.
        let stay = there
            .iter()
            .filter(|block| !is_whole || common.contains(block));
        let mut file = BTreeSet::new();
        let (mut bytes, mut too_many) = (0, 0);
        let own = given.blocks.iter().chain(&chosen);
        for block in own.chain(stay).chain(common.iter().copied()) {
            if file.contains(block) {
                continue;
            }
            if bytes + block.len() > CA_FILE_BYTES_MAX {
                too_many += 1;
                continue;
            }
            bytes += block.len();
            file.insert(block.clone());
        }
        if too_many > 0 {
            let most = CA_FILE_BYTES_MAX >> 10;
            let why = format!(
                "more than {most} KiB of CA certificates are given, and {too_many} of them are \
                 left out; let {CA} give fewer"
            );
            self.left_out.push((endpoint, why));
        }
        if !file.is_empty() {
            let text: String = file.into_iter().collect();
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
        // Without TLS nothing checks a certificate, and windrow refuses to be given one.
        if kafka.tls {
            let to = (KAFKA, KAFKA_CA_FILE, "kafka.ca-file");
            self.add_certificates(to, &kafka.ca, &self.inputs.options.kafka_ca);
        }
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
        // Without an endpoint it is AWS, which is asked by https.
        let is_https = s3.endpoint.is_empty() || s3.endpoint.starts_with("https://");
        if is_https {
            let to = (S3_ENDPOINT, S3_CA_FILE, "s3.ca-file");
            self.add_certificates(to, &s3.ca, &self.inputs.options.s3_ca);
        }
        if !is_given(&self.settings, "table", "warehouse") {
            self.set("table.bucket", &s3.bucket);
        }
        self.secrets.extend([
            ("s3-access-key", &s3.access_key),
            ("s3-secret-key", &s3.secret_key),
        ]);
        let no_proxy = &self.inputs.proxy.no_proxy;
        if let Some(proxy) = s3_proxy(s3, self.inputs.proxy) {
            self.secrets.insert("s3-proxy", proxy);
            if !no_proxy.is_empty() {
                self.set("s3.no-proxy", no_proxy);
            }
        }
    }

    fn add_metastore(&mut self) {
        let Some(metastore) = self.inputs.metastore else {
            return;
        };
        self.set("catalog", metastore.url());
        // Whoever speaks TLS must be who they say they are, by the given certificates or Mozilla's.
        let tls = if metastore.tls {
            "verify-full"
        } else {
            "disable"
        };
        self.set("catalog-tls", tls);
        if metastore.tls {
            let to = (METASTORE, CATALOG_CA_FILE, "catalog-ca-file");
            self.add_certificates(to, &metastore.ca, &self.inputs.options.metastore_ca);
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
        let secrets = secrets::file_text(&self.secrets);
        let mut files = self.certificates;
        files.insert(SETTINGS_FILE, Secret::new(settings));
        files.insert(SECRETS_FILE, secrets);
        Ok(WorkloadFiles {
            files,
            digest,
            left_out: self.left_out,
        })
    }
}

/// A problem with a setting, with the endpoint that the setting comes from.
#[must_use]
pub fn name_endpoint(problem: &str) -> String {
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
            ca: Certificates::default(),
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
            ca: Certificates::default(),
            access_key: Secret::new("ak"),
            secret_key: Secret::new("sk"),
        }
    }

    fn metastore() -> Metastore {
        Metastore {
            endpoint: "metastore-primary.spark.svc.cluster.local:5432".to_owned(),
            database: "hivemetastore".to_owned(),
            version: None,
            tls: false,
            ca: Certificates::default(),
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
        ca: Certificates,
        there: BTreeMap<String, Secret>,
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
                ca: Certificates::default(),
                there: BTreeMap::new(),
            }
        }

        /// A world in which each endpoint has TLS.
        fn with_tls() -> Self {
            let mut world = Self::new();
            world.kafka.tls = true;
            if let Some(s3) = &mut world.s3 {
                s3.endpoint = "https://10.1.2.3".to_owned();
            }
            if let Some(metastore) = &mut world.metastore {
                metastore.tls = true;
            }
            world
        }

        /// What was rendered is in the container from now on.
        fn written(&mut self) -> WorkloadFiles {
            let rendered = self.render();
            self.there = rendered
                .files
                .iter()
                .map(|(path, text)| ((*path).to_owned(), text.clone()))
                .collect();
            rendered
        }

        fn render(&self) -> WorkloadFiles {
            render(&Inputs {
                options: &self.options,
                kafka: &self.kafka,
                kafka_namespace: Some("kafka"),
                s3: self.s3.as_ref(),
                metastore: self.metastore.as_ref(),
                ca: &self.ca,
                there: &self.there,
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

    /// So many different certificates, each of some 600 bytes as PEM.
    fn many(count: u32) -> Vec<String> {
        use base64::Engine as _;
        use base64::prelude::BASE64_STANDARD;
        let body: String = PEM.lines().filter(|line| !line.starts_with('-')).collect();
        let der = BASE64_STANDARD.decode(body).unwrap();
        let make = |n: u32| {
            let mut der = der.clone();
            // In the middle of the signature, which nobody checks in an anchor of trust.
            let at = der.len() - 24;
            der[at..at + 4].copy_from_slice(&n.to_be_bytes());
            let body = BASE64_STANDARD.encode(der);
            let pem = format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
            Certificates::read_all(&pem).unwrap()
        };
        (0..count).map(make).collect()
    }

    const PEM: &str = include_str!("../tests/scenario/ca.pem");

    fn bad() -> Vec<String> {
        vec!["certificates of ca: a certificate in it is cut off".to_owned()]
    }

    #[test]
    fn a_certificate_that_is_none_changes_no_digest() {
        let mut world = World::with_tls();
        let some = many(3);
        world.ca.blocks = some.clone();
        let before = world.written();
        assert_eq!(before.left_out, []);
        // One bad one among many; in another order; twice; and in place of a good one.
        let mut others = some.clone();
        others.reverse();
        others.extend(some.clone());
        for (blocks, left_out) in [
            (some.clone(), bad()),
            (others, Vec::new()),
            (some[..2].to_vec(), bad()),
            (Vec::new(), bad()),
        ] {
            world.ca = Certificates { blocks, left_out };
            assert_eq!(world.render().digest, before.digest, "{:?}", world.ca);
        }
        // One that is taken away is gone.
        world.ca = Certificates {
            blocks: some[..2].to_vec(),
            left_out: Vec::new(),
        };
        assert_ne!(world.render().digest, before.digest);
        // The same for what one endpoint gives; here the status names the endpoint.
        let mut world = World::with_tls();
        world.kafka.ca.blocks = some;
        let before = world.written();
        world.kafka.ca = Certificates {
            blocks: Vec::new(),
            left_out: vec!["it is not a PEM certificate".to_owned()],
        };
        let after = world.render();
        assert_eq!(after.digest, before.digest);
        assert_eq!(after.left_out[0].0, KAFKA);
    }

    #[test]
    fn a_ca_of_the_model_is_given_only_to_what_has_tls() {
        let ca_files = |mut world: World| {
            world.ca.blocks = many(1);
            let rendered = world.render();
            config(&rendered);
            let paths = rendered.files.into_keys();
            paths.filter(|path| path.ends_with(".pem")).collect()
        };
        let none: Vec<&str> = Vec::new();
        assert_eq!(ca_files(World::new()), none);
        let all: Vec<&str> = ca_files(World::with_tls());
        assert_eq!(all, [CATALOG_CA_FILE, KAFKA_CA_FILE, S3_CA_FILE]);
        let mut world = World::new();
        if let Some(s3) = &mut world.s3 {
            s3.endpoint = String::new();
        }
        assert_eq!(ca_files(world), [S3_CA_FILE], "AWS");
    }

    #[test]
    fn more_certificates_than_can_be_read_back_are_left_out_and_counted() {
        let mut world = World::with_tls();
        world.ca.blocks = many(1500);
        let rendered = world.written();
        let bytes: usize = rendered
            .files
            .values()
            .map(|text| text.expose().len())
            .sum();
        assert!(bytes < 900 << 10, "{bytes}");
        assert_eq!(rendered.left_out.len(), 3);
        let why = &rendered.left_out[0].1;
        assert!(
            why.contains("more than 256 KiB of CA certificates"),
            "{why}"
        );
        // Others come along: what windrow trusts already stays.
        world.ca.blocks = many(1600);
        assert_eq!(world.render().digest, rendered.digest);
    }

    #[test]
    fn a_login_waits_for_its_server_and_holds_back_no_other() {
        let mut world = World::new();
        world.token = Some(Secret::new("t0ken"));
        let written = world.written();
        let there: BTreeMap<String, Secret> = written
            .files
            .into_iter()
            .map(|(path, text)| (path.to_owned(), text))
            .collect();
        let mut kafka = kafka();
        let mut s3 = s3();
        let token = Secret::new("t0ken");
        let proxy = Proxy::default();
        let rotate = |kafka: Option<&Kafka>, s3: Option<&S3>, token: Option<&Secret>| {
            let text = rotated_secrets(&Given {
                kafka,
                s3,
                metastore: None,
                proxy: &proxy,
                token,
                there: &there,
            })?;
            let secrets = Secrets::parse(text.expose()).unwrap();
            let all = secrets::by_key(&secrets).map(|(_, value)| value.map(Secret::expose));
            Some(all.map(Option::unwrap_or_default).join(" "))
        };
        let token = Some(&token);
        assert_eq!(rotate(Some(&kafka), Some(&s3), token), None);
        assert_eq!(rotate(None, None, token), None);
        assert_eq!(
            rotate(None, None, None).unwrap(),
            "ku k: #\"p'w ak sk  pu yes "
        );
        // The same user has a new password, wherever the brokers are now.
        kafka.password = Secret::new("k2");
        kafka.bootstrap = "other:9092".to_owned();
        assert_eq!(
            rotate(Some(&kafka), None, token).unwrap(),
            "ku k2 ak sk  pu yes t0ken"
        );
        // Another user at another place, and other keys for the same place.
        kafka.username = Secret::new("other");
        (s3.access_key, s3.secret_key) = (Secret::new("ak2"), Secret::new("sk2"));
        assert_eq!(
            rotate(Some(&kafka), Some(&s3), token).unwrap(),
            "ku k: #\"p'w ak2 sk2  pu yes t0ken"
        );
    }
}
