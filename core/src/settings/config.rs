//! The settings: text of `windrow.yaml` → [`Config`], text of the secrets file → [`Secrets`].
//! No file is opened here (`io/settings.rs` does) and no host name is looked up.

use crate::settings::grammar::{parse_aggregates, parse_group_by, parse_name, parse_time_field};
use crate::table::file::Timestamps;
use crate::values::shape::{OnBadRecord, SEMANTICS, Shape};
use crate::values::time::{format_duration_ms, parse_duration_ms};
use serde::Deserialize;
use serde_yaml::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Where the secrets are when `secrets-file` does not say.
pub const DEFAULT_SECRETS_FILE: &str = "/etc/windrow/secrets.yaml";

/// All settings but the secrets, checked as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub kafka: KafkaSettings,
    /// `None` is console mode: the windows are printed and nothing is kept.
    pub table: Option<TableSettings>,
    pub shape: Shape,
    /// How far the watermark trails the newest event time. Zero closes a window with the first record past its end.
    pub watermark_delay_ms: i64,
    pub on_data_loss: OnDataLoss,
    /// How long a topic partition has nothing to read before it no longer holds the others back.
    pub idle_timeout_ms: u64,
    /// How long the whole topic is silent before open windows close; `None` is never.
    pub quiet_timeout_ms: Option<u64>,
    /// How far a topic partition's watermark may run ahead of the slowest before its reading is paused.
    pub max_skew_ms: i64,
    /// How far past the database's clock an event time may lie.
    pub max_future_ms: i64,
    /// At most this long between a closed window and its commit.
    pub commit_interval_ms: u64,
    pub s3: S3Settings,
    /// `None` only in console mode.
    pub catalog: Option<CatalogSettings>,
    /// How long an owner that is gone is waited for.
    pub lease_ms: u64,
    /// Who this process is to others that want the table; `None` is host and process id.
    pub instance: Option<String>,
    /// Create Hive's schema where the database is empty.
    pub init_metastore: bool,
    pub http: SocketAddr,
    /// `None`: [`DEFAULT_SECRETS_FILE`], if there is one.
    pub secrets_file: Option<PathBuf>,
    pub log: LogSettings,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaSettings {
    /// Comma-separated `host:port`, as librdkafka takes them.
    pub bootstrap: String,
    pub security: Security,
    pub mechanism: Mechanism,
    /// What the group name begins with; Kafka's charm grants groups by prefix.
    pub group_prefix: String,
    /// Added to host names that only resolve in Kafka's namespace.
    pub namespace: Option<String>,
    pub cluster_domain: String,
    /// PEM certificates that are trusted beside Mozilla's.
    pub ca_file: Option<PathBuf>,
    pub start: Start,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    Plaintext,
    Ssl,
    SaslPlaintext,
    SaslSsl,
}

impl Security {
    /// librdkafka's `security.protocol`.
    #[must_use]
    pub fn protocol(self) -> &'static str {
        match self {
            Security::Plaintext => "plaintext",
            Security::Ssl => "ssl",
            Security::SaslPlaintext => "sasl_plaintext",
            Security::SaslSsl => "sasl_ssl",
        }
    }

    #[must_use]
    pub fn logs_in(self) -> bool {
        matches!(self, Security::SaslPlaintext | Security::SaslSsl)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    ScramSha256,
    ScramSha512,
}

impl Mechanism {
    /// librdkafka's `sasl.mechanism`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// Where reading begins in a topic partition that no commit names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    Earliest,
    Latest,
}

/// What happens when offsets that were not read are no longer in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDataLoss {
    Stop,
    /// Goes on, and records what is lost.
    Continue,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSettings {
    pub name: String,
    /// The Hive database.
    pub database: String,
    pub warehouse: Warehouse,
    pub timestamps: Timestamps,
    /// How long rows are kept; `None` is forever.
    pub retain_ms: Option<u64>,
    /// The same for the side tables, `__late` and `__rejects`.
    pub retain_side_ms: Option<u64>,
    /// How long replaced files are kept: longer than the longest query.
    pub keep_replaced_ms: u64,
}

/// Where the files are. `Display` gives the text that epoch 0 keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warehouse {
    /// `path` has no slash at either end and may be empty.
    S3 {
        bucket: String,
        path: String,
    },
    Directory(PathBuf),
    /// Somewhere in this bucket; [`warehouse_of`] says where, once the catalog was asked. Until then `Display` gives
    /// the place it is in where nothing else is known.
    Bucket(String),
}

/// Where a table's files are, of which only the bucket was set. A table that exists stays where it is; a new one goes
/// where Hive keeps the database, if that is in the bucket, else where Spark keeps its tables by custom.
///
/// `genesis` is the warehouse of the table's epoch 0, `database` the Hive database's own location; either may be of any
/// scheme.
///
/// # Errors
/// The table lies in another place than the bucket: both, and the way out.
pub fn warehouse_of(
    bucket: &str,
    genesis: Option<&str>,
    database: Option<&str>,
) -> Result<Warehouse, String> {
    let within = |place: &str| {
        let rest = ["s3a://", "s3://", "s3n://"]
            .iter()
            .find_map(|scheme| place.strip_prefix(scheme))?;
        match parse_warehouse(&format!("s3a://{rest}")) {
            Ok(Some(Warehouse::S3 { bucket: of, path })) if of == bucket => {
                Some(Warehouse::S3 { bucket: of, path })
            }
            _ => None,
        }
    };
    match genesis {
        Some(genesis) => within(genesis).ok_or_else(|| {
            format!(
                "the table lies in {genesis} and not in bucket \"{bucket}\": its files are never moved; set the bucket it is in, or choose another table name"
            )
        }),
        None => Ok(database.and_then(within).unwrap_or_else(|| {
            Warehouse::S3 { bucket: bucket.to_owned(), path: DEFAULT_FOLDER.to_owned() }
        })),
    }
}

/// The folder of a bucket that holds the warehouse where nothing says otherwise: what Charmed Spark's hub and Kyuubi set.
const DEFAULT_FOLDER: &str = "warehouse";

impl fmt::Display for Warehouse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warehouse::S3 { bucket, path } if path.is_empty() => write!(f, "s3a://{bucket}"),
            Warehouse::S3 { bucket, path } => write!(f, "s3a://{bucket}/{path}"),
            Warehouse::Directory(path) => write!(f, "{}", path.display()),
            Warehouse::Bucket(bucket) => write!(f, "s3a://{bucket}/{DEFAULT_FOLDER}"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Settings {
    /// `None`: AWS, by region.
    pub endpoint: Option<String>,
    pub region: String,
    pub path_style: bool,
    pub ca_file: Option<PathBuf>,
    /// Hosts, domains and networks that are reached without the secrets file's `s3-proxy`. `*` is all.
    pub no_proxy: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CatalogSettings {
    Postgres {
        host: String,
        port: u16,
        database: String,
        tls: CatalogTls,
        ca_file: Option<PathBuf>,
    },
    Local(PathBuf),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CatalogTls {
    Disable,
    /// Encrypted, whoever answers.
    Require,
    /// Encrypted, and the certificate must be trusted and name the host.
    VerifyFull,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// As `tracing` names levels: `error` to `trace`.
    pub level: &'static str,
    pub format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// Every setting, by its path. The order is that of `windrow.example.yaml`.
const KEYS: &[&str] = &[
    "kafka.bootstrap",
    "kafka.topic",
    "kafka.security",
    "kafka.mechanism",
    "kafka.group-prefix",
    "kafka.namespace",
    "kafka.cluster-domain",
    "kafka.ca-file",
    "kafka.start",
    "table.name",
    "table.database",
    "table.warehouse",
    "table.bucket",
    "table.timestamps",
    "table.retain",
    "table.retain-side",
    "table.keep-replaced",
    "window",
    "slide",
    "offset",
    "watermark-delay",
    "group-by",
    "aggregates",
    "timestamp-field",
    "on-bad-record",
    "on-data-loss",
    "idle-timeout",
    "quiet-timeout",
    "max-skew",
    "max-future",
    "max-keys",
    "max-key-bytes",
    "commit-interval",
    "s3.endpoint",
    "s3.region",
    "s3.path-style",
    "s3.ca-file",
    "s3.no-proxy",
    "catalog",
    "catalog-tls",
    "catalog-ca-file",
    "lease",
    "instance",
    "init-metastore",
    "http",
    "secrets-file",
    "log.level",
    "log.format",
];

const SECRET_KEYS: &[&str] = &[
    "kafka-username",
    "kafka-password",
    "s3-access-key",
    "s3-secret-key",
    "s3-proxy",
    "catalog-username",
    "catalog-password",
    "api-token",
];

/// All that is wrong with a file, a line each. It holds no secret: values of the secrets file, and addresses that
/// carry a user's name, are never in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(pub Vec<String>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Reads and checks the text of `windrow.yaml`.
    ///
    /// # Errors
    /// All that is wrong, each with the setting, its value and what is allowed.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let mut s = Settings::new(text)?;
        let kafka = s.kafka();
        let catalog = s.catalog();
        let table = s.table(catalog.as_ref());
        let config = Config {
            kafka,
            table,
            shape: s.shape(),
            watermark_delay_ms: signed(s.read("watermark-delay", "10s", parse_duration_ms)),
            on_data_loss: s.choice(
                "on-data-loss",
                &[
                    ("stop", OnDataLoss::Stop),
                    ("continue", OnDataLoss::Continue),
                ],
            ),
            idle_timeout_ms: s.duration("idle-timeout", "30s", 100, u64::MAX),
            quiet_timeout_ms: s.read("quiet-timeout", "off", |text| or_word(text, "off")),
            max_skew_ms: signed(s.duration("max-skew", "1h", 1000, u64::MAX)),
            max_future_ms: signed(s.read("max-future", "1h", parse_duration_ms)),
            commit_interval_ms: s.duration("commit-interval", "10s", 100, 3_600_000),
            s3: S3Settings {
                endpoint: s.read("s3.endpoint", "", parse_endpoint),
                region: s.read("s3.region", "us-east-1", |text| {
                    matching(text, "us-east-1", is_label)
                }),
                path_style: s.choice("s3.path-style", &[("true", true), ("false", false)]),
                ca_file: s.file("s3.ca-file"),
                no_proxy: s.read("s3.no-proxy", "", parse_no_proxy),
            },
            catalog,
            lease_ms: s.duration("lease", "15s", 1000, 3_600_000),
            instance: s.read("instance", "", |text| {
                if text.is_empty() {
                    Ok(None)
                } else {
                    matching(text, "spark/windrow/0", is_instance).map(Some)
                }
            }),
            init_metastore: s.choice("init-metastore", &[("false", false), ("true", true)]),
            http: s.read("http", "127.0.0.1:8080", |text| {
                text.parse().map_err(|_| {
                    "not an IP address and port; write 127.0.0.1:8080 or 0.0.0.0:8080".to_owned()
                })
            }),
            secrets_file: s.file("secrets-file"),
            log: s.log(),
        };
        s.done(config)
    }

    /// Whether the secrets that these settings need are there.
    ///
    /// # Errors
    /// The names of those that are missing, with the settings that need them.
    pub fn check_secrets(&self, secrets: &Secrets) -> Result<(), ConfigError> {
        let mut missing = Vec::new();
        let mut need = |secret: &Option<Secret>, name: &str, by: &str| {
            if secret.is_none() {
                missing.push(format!(
                    "cannot find secret {name}: {by} needs it; add it to the secrets file"
                ));
            }
        };
        if self.kafka.security.logs_in() {
            need(&secrets.kafka_username, "kafka-username", "kafka.security");
            need(&secrets.kafka_password, "kafka-password", "kafka.security");
        }
        if let Some(table) = &self.table {
            let by = match table.warehouse {
                Warehouse::S3 { .. } => Some("table.warehouse"),
                Warehouse::Bucket(_) => Some("table.bucket"),
                Warehouse::Directory(_) => None,
            };
            if let Some(by) = by {
                need(&secrets.s3_access_key, "s3-access-key", by);
                need(&secrets.s3_secret_key, "s3-secret-key", by);
            }
            if matches!(self.catalog, Some(CatalogSettings::Postgres { .. })) {
                need(&secrets.catalog_username, "catalog-username", "catalog");
                need(&secrets.catalog_password, "catalog-password", "catalog");
            }
        }
        if missing.is_empty() {
            Ok(())
        } else {
            Err(ConfigError(missing))
        }
    }

    /// The consumer group: `<prefix>windrow-<database>.<table>`, in console mode `<prefix>windrow-console-<topic>`.
    #[must_use]
    pub fn group(&self) -> String {
        let prefix = &self.kafka.group_prefix;
        match &self.table {
            Some(table) => format!("{prefix}windrow-{}.{}", table.database, table.name),
            None => format!("{prefix}windrow-console-{}", self.shape.topic),
        }
    }

    /// `database.table`, as statuses and logs name it; `None` in console mode.
    #[must_use]
    pub fn table_name(&self) -> Option<String> {
        self.table
            .as_ref()
            .map(|table| format!("{}.{}", table.database, table.name))
    }
}

impl Settings {
    fn kafka(&mut self) -> KafkaSettings {
        self.must_be_given(
            "kafka.bootstrap",
            "write HOST:PORT, several with commas between",
        );
        let security = self.choice(
            "kafka.security",
            &[
                ("sasl-plaintext", Security::SaslPlaintext),
                ("sasl-ssl", Security::SaslSsl),
                ("plaintext", Security::Plaintext),
                ("ssl", Security::Ssl),
            ],
        );
        let mechanisms = [
            ("scram-sha-512", Mechanism::ScramSha512),
            ("scram-sha-256", Mechanism::ScramSha256),
        ];
        KafkaSettings {
            bootstrap: self.read("kafka.bootstrap", "localhost:9092", parse_bootstrap),
            security,
            mechanism: self.choice("kafka.mechanism", &mechanisms),
            group_prefix: self.read("kafka.group-prefix", "", |text| {
                if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
                    return Err(
                        "blanks are not allowed in a group name; write relation-4-".to_owned()
                    );
                }
                Ok(text.to_owned())
            }),
            namespace: self.read("kafka.namespace", "", |text| {
                if text.is_empty() {
                    Ok(None)
                } else {
                    matching(text, "kafka", is_label).map(Some)
                }
            }),
            cluster_domain: self.read("kafka.cluster-domain", "cluster.local", |text| {
                matching(text, "cluster.local", |text| text.split('.').all(is_label))
            }),
            ca_file: self.file("kafka.ca-file"),
            start: self.choice(
                "kafka.start",
                &[("earliest", Start::Earliest), ("latest", Start::Latest)],
            ),
        }
    }

    /// The table's settings are checked in console mode too, so that a later name finds them right.
    fn table(&mut self, catalog: Option<&CatalogSettings>) -> Option<TableSettings> {
        let given = self
            .given
            .get("table.name")
            .is_some_and(|name| !name.is_empty());
        let name = if given {
            self.read("table.name", "newtable", parse_table_name)
        } else {
            String::new()
        };
        let database = self.read("table.database", "default", parse_name);
        let settings = TableSettings {
            name,
            database,
            warehouse: self.warehouse(given, catalog),
            timestamps: self.choice(
                "table.timestamps",
                &[("micros", Timestamps::Micros), ("int96", Timestamps::Int96)],
            ),
            retain_ms: self.read("table.retain", "forever", parse_retain),
            retain_side_ms: self.read("table.retain-side", "30d", parse_retain),
            keep_replaced_ms: self.duration("table.keep-replaced", "7d", 1000, u64::MAX),
        };
        if given {
            self.must_be_given(
                "catalog",
                "write postgresql://HOST:5432/DATABASE or local:DIRECTORY",
            );
        }
        given.then_some(settings)
    }

    fn warehouse(&mut self, needed: bool, catalog: Option<&CatalogSettings>) -> Warehouse {
        let warehouse = self.read("table.warehouse", "", parse_warehouse);
        let bucket = self.read("table.bucket", "", parse_bucket);
        let nowhere = Warehouse::Directory(PathBuf::new());
        match (warehouse, bucket, catalog) {
            (Some(_), Some(_), _) => {
                self.problem("cannot use setting table.bucket with table.warehouse: each says where the files are; leave one out".to_owned());
                nowhere
            }
            (_, Some(_), Some(CatalogSettings::Local(_))) => {
                self.problem("cannot use setting table.bucket with a local catalog: there is no Hive to say where in the bucket; write table.warehouse".to_owned());
                nowhere
            }
            (None, Some(bucket), _) => Warehouse::Bucket(bucket),
            (Some(Warehouse::Directory(dir)), None, Some(CatalogSettings::Postgres { .. }))
                if dir.is_relative() =>
            {
                let dir = dir.display();
                self.problem(format!("cannot read setting table.warehouse \"{dir}\": readers of a Hive table need the whole path; write s3a://BUCKET/PATH or /DIRECTORY"));
                nowhere
            }
            (Some(warehouse), None, _) => warehouse,
            (None, None, Some(CatalogSettings::Local(dir))) => Warehouse::Directory(dir.clone()),
            (None, None, _) => {
                if needed && !self.failed(&["table.warehouse", "table.bucket"]) {
                    self.must_be_given(
                        "table.warehouse",
                        "write s3a://BUCKET/PATH or a directory, or set table.bucket",
                    );
                }
                nowhere
            }
        }
    }

    fn catalog(&mut self) -> Option<CatalogSettings> {
        let tls = self.choice(
            "catalog-tls",
            &[
                ("disable", CatalogTls::Disable),
                ("require", CatalogTls::Require),
                ("verify-full", CatalogTls::VerifyFull),
            ],
        );
        let ca_file = self.file("catalog-ca-file");
        self.read("catalog", "", |text| {
            parse_catalog(text, tls, ca_file.as_ref())
        })
    }

    fn shape(&mut self) -> Shape {
        self.must_be_given("kafka.topic", "write the topic's name");
        let window = self.duration("window", "10s", 1, u64::MAX);
        let slide = self.duration("slide", &format_duration_ms(window), 1, u64::MAX);
        if !self.failed(&["window", "slide"]) && (slide > window || window.div_ceil(slide) > 1000) {
            let (least, most) = (
                format_duration_ms(window.div_ceil(1000)),
                format_duration_ms(window),
            );
            let slide = format_duration_ms(slide);
            self.problem(format!("cannot use setting slide \"{slide}\" with window \"{most}\": each record would fall in no window or in more than 1000; write {least} to {most}"));
        }
        let offset = self.read("offset", "0s", parse_duration_ms);
        if !self.failed(&["window", "slide", "offset"]) && offset >= slide {
            let (offset, slide) = (format_duration_ms(offset), format_duration_ms(slide));
            self.problem(format!(
                "cannot use setting offset \"{offset}\" with slide \"{slide}\": windows begin again every {slide}; write less than {slide}"
            ));
        }
        let group_by = self.read("group-by", "origin", parse_group_by);
        let aggregates = self.read("aggregates", "count", parse_aggregates);
        let mut names = BTreeSet::from(["window", "date", "chunk"]);
        for name in group_by
            .iter()
            .map(|c| &c.name)
            .chain(aggregates.iter().map(|a| &a.name))
        {
            if !names.insert(name) {
                self.problem(format!(
                    "cannot name column \"{name}\" of group-by and aggregates: the table has a column of that name already; write \"... as other_name\""
                ));
            }
        }
        Shape {
            topic: self.read("kafka.topic", "topic", parse_topic),
            window_ms: signed(window),
            slide_ms: signed(slide),
            offset_ms: signed(offset),
            group_by,
            aggregates,
            timestamp_field: self.read("timestamp-field", "", parse_time_field),
            on_bad_record: self.choice(
                "on-bad-record",
                &[
                    ("reject", OnBadRecord::Reject),
                    ("null", OnBadRecord::Null),
                    ("fail", OnBadRecord::Fail),
                ],
            ),
            max_keys: self.read("max-keys", "1000000", |text| match text.parse() {
                Ok(n) if (1..=1_000_000_000).contains(&n) => Ok(n),
                _ => Err("not a number of keys; write 1 to 1000000000".to_owned()),
            }),
            max_key_bytes: self.read("max-key-bytes", "64KiB", |text| {
                // A key is held in memory and in a row; what is longer is a document, not a key.
                parse_bytes(text).and_then(|n| {
                    if (1..=1 << 20).contains(&n) {
                        Ok(n)
                    } else {
                        Err("out of range; write 1 to 1MiB".to_owned())
                    }
                })
            }),
            semantics: SEMANTICS,
        }
    }

    fn log(&mut self) -> LogSettings {
        let levels = [
            ("info", "info"),
            ("error", "error"),
            ("warn", "warn"),
            ("debug", "debug"),
            ("trace", "trace"),
        ];
        LogSettings {
            level: self.choice("log.level", &levels),
            format: self.choice(
                "log.format",
                &[("text", LogFormat::Text), ("json", LogFormat::Json)],
            ),
        }
    }
}

/// The values as given, by path, and what is wrong with them so far.
struct Settings {
    given: BTreeMap<String, String>,
    problems: Vec<String>,
    failed: BTreeSet<String>,
}

impl Settings {
    fn new(text: &str) -> Result<Self, ConfigError> {
        let mut settings = Self {
            given: BTreeMap::new(),
            problems: Vec::new(),
            failed: BTreeSet::new(),
        };
        for (key, value) in parse_yaml(text)? {
            let prefix = format!("{key}.");
            if !KEYS.iter().any(|known| known.starts_with(&prefix)) {
                settings.give(key, value);
                continue;
            }
            match value {
                Value::Null => {}
                Value::Mapping(map) => {
                    for (inner, value) in map {
                        match inner {
                            Value::String(inner) => settings.give(prefix.clone() + &inner, value),
                            _ => settings.problem(format!("cannot read settings {key}: a key is not a text")),
                        }
                    }
                }
                _ => settings.problem(format!(
                    "cannot read settings {key}: they are several; write them in lines of their own below \"{key}:\""
                )),
            }
        }
        // YAML takes the word null for nothing; of this one setting it is a value.
        if !settings.given.contains_key("on-bad-record")
            && Written::of(text).on_bad_record == "null"
        {
            settings
                .given
                .insert("on-bad-record".to_owned(), "null".to_owned());
        }
        Ok(settings)
    }

    fn give(&mut self, key: String, value: Value) {
        if !KEYS.contains(&key.as_str()) {
            return self.problem(unknown_key(&key));
        }
        let text = match value {
            Value::Null => return,
            Value::String(text) => text.trim().to_owned(),
            Value::Number(number) => number.to_string(),
            Value::Bool(yes) => yes.to_string(),
            _ => {
                self.failed.insert(key.clone());
                return self.problem(format!(
                    "cannot read setting {key}: it takes one value, not a list or a map"
                ));
            }
        };
        self.given.insert(key, text);
    }

    fn problem(&mut self, problem: String) {
        self.problems.push(problem);
    }

    /// Whether one of these was refused already, so that a rule over several would only repeat it.
    fn failed(&self, keys: &[&str]) -> bool {
        keys.iter().any(|key| self.failed.contains(*key))
    }

    fn must_be_given(&mut self, key: &str, hint: &str) {
        if self.given.get(key).is_none_or(String::is_empty) && self.failed.insert(key.to_owned()) {
            self.given.remove(key);
            self.problem(format!(
                "cannot find setting {key}: it has no default; {hint}"
            ));
        }
    }

    /// The value of a setting; where it cannot be read, the default stands in so that all other settings are checked too.
    fn read<T>(
        &mut self,
        key: &str,
        default: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> T {
        assert!(
            KEYS.contains(&key),
            "every setting that is read is in KEYS: {key}"
        );
        if let Some(text) = self.given.get(key) {
            match parse(text) {
                Ok(value) => return value,
                Err(why) => {
                    let problem = format!("cannot read setting {key}{}: {why}", shown(text));
                    self.problem(problem);
                    self.failed.insert(key.to_owned());
                }
            }
        }
        parse(default).expect("defaults can be read")
    }

    fn duration(&mut self, key: &str, default: &str, min: u64, max: u64) -> u64 {
        self.read(key, default, |text| {
            let ms = parse_duration_ms(text)?;
            if ms < min {
                return Err(format!(
                    "too short; write at least {}",
                    format_duration_ms(min)
                ));
            }
            if ms > max {
                return Err(format!(
                    "too long; write at most {}",
                    format_duration_ms(max)
                ));
            }
            Ok(ms)
        })
    }

    /// One of a few words; the first is the default.
    fn choice<T: Copy>(&mut self, key: &str, choices: &[(&str, T)]) -> T {
        self.read(key, choices[0].0, |text| {
            match choices.iter().find(|(word, _)| *word == text) {
                Some((_, value)) => Ok(*value),
                None => {
                    let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
                    let near = nearest(text, &words)
                        .map(|word| format!("did you mean \"{word}\"? "))
                        .unwrap_or_default();
                    Err(format!("{near}write {}", either(&words)))
                }
            }
        })
    }

    fn file(&mut self, key: &str) -> Option<PathBuf> {
        self.read(key, "", |text| {
            Ok((!text.is_empty()).then(|| PathBuf::from(text)))
        })
    }

    fn done(self, config: Config) -> Result<Config, ConfigError> {
        if self.problems.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError(self.problems))
        }
    }
}

/// A value as the letters that stand there, whatever YAML makes of them.
#[derive(Default, Deserialize)]
struct Written {
    #[serde(default, rename = "on-bad-record")]
    on_bad_record: String,
}

impl Written {
    fn of(text: &str) -> Self {
        serde_yaml::from_str(text).unwrap_or_default()
    }
}

/// The top level of a YAML file. Parser messages may quote the file, so only the place is passed on.
fn parse_yaml(text: &str) -> Result<Vec<(String, Value)>, ConfigError> {
    let fail = |why: String| Err(ConfigError(vec![why]));
    match serde_yaml::from_str(text) {
        Ok(Value::Null) => Ok(Vec::new()),
        Ok(Value::Mapping(map)) => map
            .into_iter()
            .map(|(key, value)| match key {
                Value::String(key) => Ok((key, value)),
                _ => Err(ConfigError(vec![
                    "cannot read settings: a key is not a text".to_owned(),
                ])),
            })
            .collect(),
        Ok(_) => {
            fail("cannot read settings: not a YAML map; write lines of \"key: value\"".to_owned())
        }
        Err(error) => {
            let place = error
                .location()
                .map(|l| format!(" at line {} column {}", l.line(), l.column()));
            let twice = if error.to_string().contains("duplicate entry") {
                "a key is there twice"
            } else {
                "not YAML"
            };
            fail(format!(
                "cannot read settings: {twice}{}",
                place.unwrap_or_default()
            ))
        }
    }
}

/// The value in quotes, cut where it is long, left out where it may hold a password.
fn shown(text: &str) -> String {
    if text.contains('@') {
        return String::new();
    }
    let cut: String = text.chars().take(100).collect();
    let dots = if cut.len() < text.len() { "…" } else { "" };
    format!(" \"{}{dots}\"", cut.escape_debug())
}

/// What to say of a key that is no setting: the nearest one in the same place, else where it belongs.
fn unknown_key(path: &str) -> String {
    let (section, name) = path.rsplit_once('.').map_or(("", path), |(s, n)| (s, n));
    let (here, elsewhere): (Vec<&str>, Vec<&str>) = KEYS
        .iter()
        .partition(|k| k.rsplit_once('.').map_or("", |(s, _)| s) == section);
    let here: Vec<&str> = here
        .iter()
        .map(|k| k.rsplit('.').next().expect("a path has a name"))
        .collect();
    let hint = if SECRET_KEYS.contains(&name) {
        "secrets go into the secrets file".to_owned()
    } else if let Some(known) = elsewhere
        .iter()
        .find(|k| k.rsplit('.').next() == Some(name))
    {
        format!("did you mean \"{known}\"?")
    } else if let Some(known) = nearest(name, &here) {
        format!("did you mean \"{known}\"?")
    } else {
        format!("known are {}", here.join(", "))
    };
    format!("cannot read setting {path}: unknown key; {hint}")
}

fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        .map(|k| (strsim::normalized_damerau_levenshtein(name, k), *k))
        .filter(|(likeness, _)| *likeness >= 0.6)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, k)| k)
}

/// `a, b or c`.
fn either(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [most @ .., last] => format!("{} or {last}", most.join(", ")),
    }
}

fn is_instance(text: &str) -> bool {
    text.len() <= 200 && text.bytes().all(|b| b.is_ascii_graphic())
}

fn signed(ms: u64) -> i64 {
    i64::try_from(ms).expect("durations are at most a century")
}

fn matching(text: &str, example: &str, is_right: impl Fn(&str) -> bool) -> Result<String, String> {
    if is_right(text) {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "not a name as it has to be; write one such as {example}"
        ))
    }
}

/// A label of a DNS name (RFC 1123).
fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// A duration, or a word that means none.
fn or_word(text: &str, word: &str) -> Result<Option<u64>, String> {
    match text {
        _ if text == word || (word == "off" && text == "false") => Ok(None),
        _ => match parse_duration_ms(text) {
            Ok(0) => Err(format!("too short; write {word} or 5m")),
            Ok(ms) => Ok(Some(ms)),
            Err(why) => Err(format!("{why}, or {word}")),
        },
    }
}

fn parse_retain(text: &str) -> Result<Option<u64>, String> {
    match or_word(text, "forever")? {
        Some(ms) if ms < 86_400_000 => {
            Err("too short: whole days are kept; write 1d or more, or forever".to_owned())
        }
        retain => Ok(retain),
    }
}

/// Reads `64KiB`, `1MiB`, `1GiB` or plain bytes.
///
/// # Errors
/// The reason and what is allowed, as the end of a sentence.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let scale: u64 = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        unit => {
            return Err(format!(
                "unknown unit \"{unit}\"; write 65536, 64KiB, 1MiB or 1GiB"
            ));
        }
    };
    let bytes = number
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(scale));
    bytes.ok_or_else(|| "not a number of bytes; write 65536, 64KiB, 1MiB or 1GiB".to_owned())
}

fn parse_bootstrap(text: &str) -> Result<String, String> {
    let servers: Vec<&str> = text.split(',').map(str::trim).collect();
    for server in &servers {
        let right = server.rsplit_once(':').is_some_and(|(host, port)| {
            let host = host
                .strip_prefix('[')
                .and_then(|h| h.strip_suffix(']'))
                .unwrap_or(host);
            !host.is_empty()
                && !host.contains(|c: char| c.is_whitespace() || c == '/' || c == '@')
                && port.parse::<u16>().is_ok_and(|p| p != 0)
        });
        if !right {
            return Err(format!(
                "{} is not a server; write HOST:PORT, several with commas between",
                shown(server).trim()
            ));
        }
    }
    Ok(servers.join(","))
}

/// Kafka's rule for topic names (`org.apache.kafka.common.internals.Topic`).
fn parse_topic(text: &str) -> Result<String, String> {
    let legal = text
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if legal && (1..=249).contains(&text.len()) && text != "." && text != ".." {
        return Ok(text.to_owned());
    }
    Err("not a topic's name; write 1 to 249 of a-z, A-Z, 0-9, \".\", \"_\" and \"-\"".to_owned())
}

fn parse_table_name(text: &str) -> Result<String, String> {
    for taken in ["__chunks", "__late", "__rejects"] {
        if text.ends_with(taken) {
            return Err(format!(
                "names that end in {taken} are windrow's own; write another name"
            ));
        }
    }
    parse_name(text)
}

fn parse_warehouse(text: &str) -> Result<Option<Warehouse>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let hint = "write s3a://BUCKET/PATH or a directory";
    if let Some(rest) = text.strip_prefix("s3a://") {
        let (bucket, path) = rest.split_once('/').unwrap_or((rest, ""));
        let path = path.trim_matches('/');
        if !is_bucket(bucket) {
            return Err(format!("that is not a bucket's name; {hint}"));
        }
        // Such a path means one key to S3 and another to a reader that tidies paths up.
        let plain = |part: &str| {
            !part.is_empty()
                && part != "."
                && part != ".."
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"._-=+".contains(&b))
        };
        if !path.is_empty() && !path.split('/').all(plain) {
            return Err(format!(
                "the path is not a plain one of a-z, A-Z, 0-9 and \"._-=+\"; {hint}"
            ));
        }
        return Ok(Some(Warehouse::S3 {
            bucket: bucket.to_owned(),
            path: path.to_owned(),
        }));
    }
    if text.contains("://") || text.starts_with("s3") && text.contains(':') {
        return Err(format!("only s3a is read by Spark and Hive alike; {hint}"));
    }
    let trimmed = text.trim_end_matches('/');
    Ok(Some(Warehouse::Directory(PathBuf::from(
        if trimmed.is_empty() { "/" } else { trimmed },
    ))))
}

fn is_bucket(text: &str) -> bool {
    (3..=63).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

fn parse_bucket(text: &str) -> Result<Option<String>, String> {
    match text {
        "" => Ok(None),
        _ if is_bucket(text) => Ok(Some(text.to_owned())),
        _ => Err(
            "not a bucket's name; write 3 to 63 of a-z, A-Z, 0-9, \".\", \"_\" and \"-\""
                .to_owned(),
        ),
    }
}

/// Such lists come from elsewhere and hold what was meant for other programs, so what no rule fits is let stand: it
/// matches no host.
fn parse_no_proxy(text: &str) -> Result<Vec<String>, String> {
    if text.contains(char::is_control) {
        return Err(
            "it holds control characters; write hosts, domains or networks with commas between"
                .to_owned(),
        );
    }
    let rules = text
        .split(',')
        .map(str::trim)
        .filter(|rule| !rule.is_empty());
    // `*.example` is how others write `.example`.
    Ok(rules
        .map(|rule| {
            rule.strip_prefix('*')
                .filter(|rest| rest.starts_with('.'))
                .unwrap_or(rule)
                .to_owned()
        })
        .collect())
}

/// Whether a text is the address of an HTTP proxy. It may hold a password, so nothing says what it is.
fn is_proxy(text: &str) -> bool {
    let rest = text
        .strip_prefix("http://")
        .or_else(|| text.strip_prefix("https://"));
    let Some(authority) = rest.map(|rest| rest.strip_suffix('/').unwrap_or(rest)) else {
        return false;
    };
    let (user, server) = authority.split_once('@').unwrap_or(("", authority));
    // RFC 3986, 3.2.1; anything else in a name or password is written as %XX.
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:%".contains(&b);
    let (host, port) = match server.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            (host, port.parse::<u16>().is_ok_and(|port| port != 0))
        }
        _ => (server, true),
    };
    let host_is_right = match host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
        }
    };
    user.bytes().all(plain) && host_is_right && port
}

fn parse_endpoint(text: &str) -> Result<Option<String>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let host = text
        .strip_prefix("http://")
        .or_else(|| text.strip_prefix("https://"));
    match host.map(|h| h.trim_end_matches('/')) {
        Some(host)
            if !host.is_empty()
                && !host.contains(|c: char| c.is_whitespace() || "/?#@".contains(c)) =>
        {
            Ok(Some(text.trim_end_matches('/').to_owned()))
        }
        _ => Err(
            "not an address of S3; write http://HOST:PORT or https://HOST, or nothing for AWS"
                .to_owned(),
        ),
    }
}

fn parse_catalog(
    text: &str,
    tls: CatalogTls,
    ca_file: Option<&PathBuf>,
) -> Result<Option<CatalogSettings>, String> {
    let hint = "write postgresql://HOST:5432/DATABASE or local:DIRECTORY";
    if text.is_empty() {
        return Ok(None);
    }
    if let Some(dir) = text.strip_prefix("local:") {
        if dir.is_empty() {
            return Err(format!("no directory; {hint}"));
        }
        return Ok(Some(CatalogSettings::Local(PathBuf::from(dir))));
    }
    let Some(rest) = text
        .strip_prefix("postgresql://")
        .or_else(|| text.strip_prefix("postgres://"))
    else {
        return Err(format!("not a catalog; {hint}"));
    };
    if rest.contains('@') {
        return Err(format!(
            "a user's name and password go into the secrets file; {hint}"
        ));
    }
    if rest.contains('?') {
        return Err(format!(
            "parameters are settings of their own here, such as catalog-tls; {hint}"
        ));
    }
    let (server, database) = rest.split_once('/').unwrap_or((rest, ""));
    let (host, port) = match server.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            (host, port.parse::<u16>().ok().filter(|p| *p != 0))
        }
        _ => (server, Some(5432)),
    };
    let host = host
        .strip_prefix('[')
        .and_then(|h| h.strip_suffix(']'))
        .unwrap_or(host);
    match port {
        Some(port)
            if !host.is_empty()
                && !host.contains(|c: char| c.is_whitespace() || c == ',')
                && !database.is_empty()
                && !database.contains('/') =>
        {
            let (host, database) = (host.to_owned(), database.to_owned());
            Ok(Some(CatalogSettings::Postgres {
                host,
                port,
                database,
                tls,
                ca_file: ca_file.cloned(),
            }))
        }
        _ => Err(format!(
            "one host, a port and a database are needed; {hint}"
        )),
    }
}

/// A text that is shown nowhere: `Debug` and `Display` print stars.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one call that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// What the secrets file holds. Which of them are needed, [`Config::check_secrets`] says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Secrets {
    pub kafka_username: Option<Secret>,
    pub kafka_password: Option<Secret>,
    pub s3_access_key: Option<Secret>,
    pub s3_secret_key: Option<Secret>,
    /// The HTTP proxy that S3 is reached through, and nothing else: `http://USER:PASSWORD@HOST:PORT`.
    pub s3_proxy: Option<Secret>,
    pub catalog_username: Option<Secret>,
    pub catalog_password: Option<Secret>,
    /// What `Authorization: Bearer` must say.
    pub api_token: Option<Secret>,
}

impl Secrets {
    /// Reads the text of the secrets file.
    ///
    /// # Errors
    /// All that is wrong, by key and line; no value is in it.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let mut secrets = Self::default();
        let mut problems = Vec::new();
        for (key, value) in parse_yaml(text)? {
            let slot = match key.as_str() {
                "kafka-username" => &mut secrets.kafka_username,
                "kafka-password" => &mut secrets.kafka_password,
                "s3-access-key" => &mut secrets.s3_access_key,
                "s3-secret-key" => &mut secrets.s3_secret_key,
                "s3-proxy" => &mut secrets.s3_proxy,
                "catalog-username" => &mut secrets.catalog_username,
                "catalog-password" => &mut secrets.catalog_password,
                "api-token" => &mut secrets.api_token,
                _ => {
                    // A line without its colon can make a key of a password, so a key that is like none is not shown.
                    problems.push(match nearest(&key, SECRET_KEYS) {
                        Some(known) => {
                            format!("cannot read secrets: unknown key; did you mean \"{known}\"?")
                        }
                        None => {
                            format!(
                                "cannot read secrets: unknown key; known are {}",
                                SECRET_KEYS.join(", ")
                            )
                        }
                    });
                    continue;
                }
            };
            match value {
                Value::Null => {}
                Value::String(text) if text.is_empty() => {}
                Value::String(text)
                    if key == "api-token" && !text.bytes().all(|b| b.is_ascii_graphic()) =>
                {
                    problems.push("cannot read secret api-token: it goes into an HTTP header; write letters, digits and signs without blanks".to_owned());
                }
                Value::String(text) if key == "s3-proxy" && !is_proxy(&text) => {
                    problems.push("cannot read secret s3-proxy: not the address of a proxy; write http://HOST:PORT or http://USER:PASSWORD@HOST:PORT, with signs in the password as %40".to_owned());
                }
                Value::String(text) => *slot = Some(Secret(text)),
                // YAML would read 0123 and 1e5 as numbers and lose how they were written.
                _ => problems.push(format!(
                    "cannot read secret {key}: not a text; write the value in quotes"
                )),
            }
        }
        if problems.is_empty() {
            Ok(secrets)
        } else {
            Err(ConfigError(problems))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "kafka: { bootstrap: 'k:9092', topic: t }\n";

    fn table(more: &str) -> String {
        format!("{LEAST}table: {{ name: newtable }}\ncatalog: local:/data\n{more}")
    }

    fn read(text: &str) -> Config {
        Config::parse(text).unwrap_or_else(|e| panic!("{e}"))
    }

    /// What is said of one more line.
    fn check(line: &str, expect: &str) {
        let error = Config::parse(&table(line)).expect_err(line);
        assert_eq!(error.to_string(), expect);
    }

    #[test]
    fn the_example_says_the_defaults() {
        let example = include_str!("../../../windrow.example.yaml");
        let placeholders =
            "kafka: { bootstrap: 'kafka-k8s-0.kafka-k8s-endpoints:9092', topic: test-topic }
table: { name: newtable, warehouse: 's3a://spark/warehouse' }
s3: { endpoint: 'http://10.152.183.128:80' }
catalog: postgresql://metastore-primary.spark.svc.cluster.local:5432/hivemetastore
secrets-file: /etc/windrow/secrets.yaml";
        assert_eq!(read(example), read(placeholders));
        let given: Vec<String> = Settings::new(example).unwrap().given.into_keys().collect();
        let mut known = KEYS.to_vec();
        known.sort_unstable();
        assert_eq!(given, known, "the example shows every setting");
    }

    #[test]
    fn two_settings_are_enough_for_the_console() {
        let config = read(LEAST);
        assert_eq!(config.table, None);
        assert_eq!(config.catalog, None);
        assert_eq!(config.shape, Shape::count_by_origin("t", 10_000, 10_000));
        assert_eq!(config.group(), "windrow-console-t");
        let config = read("kafka: { bootstrap: 'k:9092', topic: t, group-prefix: relation-4- }");
        assert_eq!(config.group(), "relation-4-windrow-console-t");
        assert_eq!(read(&format!("{LEAST}table: {{ name: '' }}")).table, None);
    }

    #[test]
    fn a_local_catalog_is_its_own_warehouse() {
        let config = read(&table(""));
        assert_eq!(config.group(), "windrow-default.newtable");
        assert_eq!(
            config.table.unwrap().warehouse,
            Warehouse::Directory(PathBuf::from("/data"))
        );
    }

    #[test]
    fn null_needs_no_quotes_where_it_is_a_word() {
        for (line, expect) in [
            ("on-bad-record: null", OnBadRecord::Null),
            ("on-bad-record: 'null'   # quoted", OnBadRecord::Null),
            ("on-bad-record: fail", OnBadRecord::Fail),
            ("on-bad-record:", OnBadRecord::Reject),
            ("", OnBadRecord::Reject),
        ] {
            assert_eq!(read(&table(line)).shape.on_bad_record, expect, "{line}");
        }
    }

    #[test]
    fn all_errors_of_a_file_are_told_together() {
        let error =
            Config::parse("kafka: { bootstrp: 'k:9092' }\nwindow: 10 sconds\nhttp: localhost\n")
                .unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot read setting kafka.bootstrp: unknown key; did you mean \"bootstrap\"?
cannot find setting kafka.bootstrap: it has no default; write HOST:PORT, several with commas between
cannot find setting kafka.topic: it has no default; write the topic's name
cannot read setting window \"10 sconds\": unknown unit \"sconds\"; write 500ms, 10s or 5m
cannot read setting http \"localhost\": not an IP address and port; write 127.0.0.1:8080 or 0.0.0.0:8080"
        );
    }

    #[test]
    fn unknown_keys_name_where_they_belong() {
        check(
            "windows: 10s",
            "cannot read setting windows: unknown key; did you mean \"window\"?",
        );
        check(
            "bootstrap: k",
            "cannot read setting bootstrap: unknown key; did you mean \"kafka.bootstrap\"?",
        );
        check(
            "kafka-password: hunter2",
            "cannot read setting kafka-password: unknown key; secrets go into the secrets file",
        );
        check(
            "log: { zzz: 1 }",
            "cannot read setting log.zzz: unknown key; known are level, format",
        );
        check(
            "log: debug",
            "cannot read settings log: they are several; write them in lines of their own below \"log:\"",
        );
    }

    #[test]
    fn values_that_cannot_be_are_refused() {
        check(
            "idle-timeout: 10",
            "cannot read setting idle-timeout \"10\": no unit; write 500ms, 10s or 5m",
        );
        check(
            "window: 0s",
            "cannot read setting window \"0s\": too short; write at least 1ms",
        );
        check(
            "slide: 20s",
            "cannot use setting slide \"20s\" with window \"10s\": each record would fall in no window or in more than 1000; write 10ms to 10s",
        );
        check(
            "slide: 9ms",
            "cannot use setting slide \"9ms\" with window \"10s\": each record would fall in no window or in more than 1000; write 10ms to 10s",
        );
        check(
            "offset: 10s",
            "cannot use setting offset \"10s\" with slide \"10s\": windows begin again every 10s; write less than 10s",
        );
        check(
            "on-bad-record: rejects",
            "cannot read setting on-bad-record \"rejects\": did you mean \"reject\"? write reject, null or fail",
        );
        check(
            "on-data-loss: no",
            "cannot read setting on-data-loss \"no\": write stop or continue",
        );
        check(
            "max-keys: 0",
            "cannot read setting max-keys \"0\": not a number of keys; write 1 to 1000000000",
        );
        check(
            "max-key-bytes: 64kb",
            "cannot read setting max-key-bytes \"64kb\": unknown unit \"kb\"; write 65536, 64KiB, 1MiB or 1GiB",
        );
        check(
            "group-by: [origin]",
            "cannot read setting group-by: it takes one value, not a list or a map",
        );
        check(
            "quiet-timeout: never",
            "cannot read setting quiet-timeout \"never\": no number; write 500ms, 10s or 5m, or off",
        );
        check(
            "s3: { endpoint: 'minio:9000' }",
            "cannot read setting s3.endpoint \"minio:9000\": not an address of S3; write http://HOST:PORT or https://HOST, or nothing for AWS",
        );
        for names in ["NewTable", "new-table", "a.b", "12"] {
            let text = format!("{LEAST}table: {{ name: '{names}' }}\ncatalog: local:/data");
            assert!(Config::parse(&text).is_err(), "{names}");
        }
    }

    #[test]
    fn a_key_that_is_there_twice_is_refused_with_its_place() {
        let error = Config::parse("window: 1s\nwindow: 2s\n")
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("cannot read settings: a key is there twice"),
            "{error}"
        );
        let error = Config::parse("window: [1s\n").unwrap_err().to_string();
        assert!(
            error.starts_with("cannot read settings: not YAML at line"),
            "{error}"
        );
    }

    #[test]
    fn column_clashes_are_refused() {
        for line in [
            "group-by: a.kind, b.kind",
            "group-by: window",
            "group-by: date",
            "group-by: chunk",
            "group-by: count",
            "aggregates: count, sum(a), sum(b.a)",
            "aggregates: count as origin",
        ] {
            let error = Config::parse(&table(line)).expect_err(line).to_string();
            assert!(
                error.contains("the table has a column of that name already"),
                "{error}"
            );
        }
        read(&table("group-by: count\naggregates: sum(a)"));
        check(
            "group-by: user-id",
            "cannot read setting group-by \"user-id\": \"user-id\" cannot be a column's name; write \"... as NAME\" with a-z, 0-9 and \"_\"",
        );
    }

    #[test]
    fn the_catalog_is_an_address_without_a_user() {
        let text = |catalog: &str| {
            format!("{LEAST}table: {{ name: n, warehouse: 's3a://b-b/w/' }}\ncatalog: {catalog}")
        };
        let config = read(&text("postgresql://db/hive"));
        let Some(CatalogSettings::Postgres {
            host,
            port,
            database,
            ..
        }) = &config.catalog
        else {
            panic!()
        };
        assert_eq!(
            (host.as_str(), *port, database.as_str()),
            ("db", 5432, "hive")
        );
        assert_eq!(
            config.table.as_ref().unwrap().warehouse.to_string(),
            "s3a://b-b/w"
        );
        let missing = config.check_secrets(&Secrets::default()).unwrap_err();
        assert_eq!(missing.0.len(), 6);
        let error = Config::parse(&text("postgresql://me:hunter2@db/hive"))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("secrets file") && !error.contains("hunter2"),
            "{error}"
        );
        for bad in [
            "postgresql://db",
            "postgresql://db:x/hive",
            "postgresql://a,b/hive",
            "mysql://db/hive",
            "local:",
        ] {
            assert!(Config::parse(&text(bad)).is_err(), "{bad}");
        }
        let error = Config::parse(&format!(
            "{LEAST}table: {{ name: n, warehouse: data }}\ncatalog: postgresql://db/hive"
        ));
        assert!(
            error
                .unwrap_err()
                .to_string()
                .contains("readers of a Hive table need the whole path")
        );
        let error = Config::parse(&format!(
            "{LEAST}table: {{ name: n }}\ncatalog: postgresql://db/hive"
        ));
        assert!(
            error
                .unwrap_err()
                .to_string()
                .contains("cannot find setting table.warehouse")
        );
    }

    #[test]
    fn an_instance_is_named_by_whoever_runs_it() {
        assert_eq!(read(&table("")).instance, None);
        assert_eq!(
            read(&table("instance: 3f2c/windrow/0")).instance.as_deref(),
            Some("3f2c/windrow/0")
        );
        check(
            "instance: my windrow",
            "cannot read setting instance \"my windrow\": not a name as it has to be; write one such as spark/windrow/0",
        );
    }

    #[test]
    fn a_key_in_an_address_is_not_repeated() {
        for line in [
            "table: { name: n, warehouse: 's3a://key:hunter2@bucket/w' }",
            "s3: { endpoint: 'http://key:hunter2@minio:9000' }",
            "kafka: { bootstrap: 'key:hunter2@k:9092,l:1', topic: t }",
        ] {
            let error = Config::parse(line).expect_err(line).to_string();
            assert!(
                error.contains("cannot read setting") && !error.contains("hunter2"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_bucket_takes_the_place_of_a_warehouse() {
        let text = |table: &str, catalog: &str| {
            format!("{LEAST}table: {{ name: n, {table} }}\ncatalog: {catalog}")
        };
        let postgres = "postgresql://db/hive";
        let config = read(&text("bucket: spark", postgres));
        assert_eq!(
            config.table.as_ref().unwrap().warehouse,
            Warehouse::Bucket("spark".to_owned())
        );
        let missing = config
            .check_secrets(&Secrets::default())
            .unwrap_err()
            .to_string();
        assert!(
            missing.contains("s3-access-key: table.bucket needs it"),
            "{missing}"
        );
        for (table, catalog, expect) in [
            (
                "bucket: spark, warehouse: 's3a://spark/w'",
                postgres,
                "cannot use setting table.bucket with table.warehouse",
            ),
            (
                "bucket: spark",
                "local:/data",
                "cannot use setting table.bucket with a local catalog",
            ),
            (
                "bucket: s3a://spark",
                postgres,
                "cannot read setting table.bucket \"s3a://spark\": not a bucket's name",
            ),
            (
                "bucket: ''",
                postgres,
                "cannot find setting table.warehouse",
            ),
        ] {
            let error = Config::parse(&text(table, catalog))
                .expect_err(table)
                .to_string();
            assert!(
                error.starts_with(expect) && error.lines().count() == 1,
                "{error}"
            );
        }
    }

    #[test]
    fn a_bucket_holds_a_new_table_where_hive_keeps_the_database() {
        let of =
            |genesis, database| warehouse_of("spark", genesis, database).map(|w| w.to_string());
        for (database, expect) in [
            (None, "s3a://spark/warehouse"),
            (
                Some("s3a://spark/hive/default.db/"),
                "s3a://spark/hive/default.db",
            ),
            (Some("s3://spark/hive"), "s3a://spark/hive"),
            (Some("s3n://spark"), "s3a://spark"),
            (Some("s3a://spark2/hive"), "s3a://spark/warehouse"),
            (Some("file:/opt/spark/warehouse"), "s3a://spark/warehouse"),
            (Some("s3a://spark/a b"), "s3a://spark/warehouse"),
            (Some(""), "s3a://spark/warehouse"),
        ] {
            assert_eq!(of(None, database).as_deref(), Ok(expect), "{database:?}");
        }
    }

    #[test]
    fn a_table_that_exists_stays_where_it_is_and_in_its_bucket() {
        let of = |genesis, database| {
            warehouse_of("spark", Some(genesis), database).map(|w| w.to_string())
        };
        assert_eq!(
            of("s3a://spark/old", Some("s3a://spark/new")).as_deref(),
            Ok("s3a://spark/old")
        );
        assert_eq!(of("s3a://spark", None).as_deref(), Ok("s3a://spark"));
        for genesis in ["s3a://spark2/warehouse", "/data/warehouse"] {
            let error = of(genesis, Some("s3a://spark/new")).unwrap_err();
            assert!(
                error.starts_with(&format!(
                    "the table lies in {genesis} and not in bucket \"spark\""
                )),
                "{error}"
            );
        }
    }

    #[test]
    fn proxies_are_addresses_and_their_exceptions_a_list() {
        for right in [
            "http://proxy:3128",
            "https://u:p%40ss@10.0.0.1:3128/",
            "http://u@[::1]:1",
            "http://p",
        ] {
            let secrets = Secrets::parse(&format!("s3-proxy: '{right}'")).unwrap();
            assert_eq!(secrets.s3_proxy.unwrap().expose(), right);
        }
        for wrong in [
            "proxy:3128",
            "http://u:hunter2@",
            "http://u:hunter2/x@p:1",
            "http://u:hunter2 x@p:1",
            "http://u@hunter2@p:1",
            "socks5://u:hunter2@p:1",
            "http://hunter2:0",
        ] {
            let error = Secrets::parse(&format!("s3-proxy: '{wrong}'"))
                .expect_err(wrong)
                .to_string();
            assert!(
                error.contains("write http://HOST:PORT") && !error.contains("hunter2"),
                "{error}"
            );
        }
        let config = read(&table(
            "s3: { no-proxy: ' 10.0.0.0/8,, .svc, *.example.com,localhost ,*' }",
        ));
        assert_eq!(
            config.s3.no_proxy,
            ["10.0.0.0/8", ".svc", ".example.com", "localhost", "*"]
        );
    }

    #[test]
    fn warehouses_are_s3a_or_a_directory() {
        for bad in [
            "s3://b/w",
            "s3a://",
            "s3a://b b/w",
            "s3a://bucket/a//b",
            "s3a://bucket/../x",
            "hdfs://x/y",
        ] {
            assert!(parse_warehouse(bad).is_err(), "{bad}");
        }
        let bucket = Some(Warehouse::S3 {
            bucket: "spark".to_owned(),
            path: String::new(),
        });
        assert_eq!(parse_warehouse("s3a://spark/"), Ok(bucket));
    }

    #[test]
    fn secrets_are_read_and_never_shown() {
        let secrets =
            Secrets::parse("kafka-username: me\nkafka-password: 'hunter2'\napi-token: ''\n")
                .unwrap();
        assert_eq!(secrets.kafka_password.as_ref().unwrap().expose(), "hunter2");
        assert_eq!(secrets.api_token, None);
        assert!(
            !format!("{secrets:?}{}", secrets.kafka_password.as_ref().unwrap()).contains("hunter2")
        );
        for bad in [
            "kafka-pasword: hunter2",
            "hunter2: x",
            "kafka-password: 20240901",
            "kafka-password: [hunter2]",
            "hunter2",
            "kafka-password: 'hunter2",
            "kafka-password: hunter2: x",
            "kafka-password: *hunter2",
            "kafka-password: !hunter2 x",
            "api-token: 'hunter2 x'",
        ] {
            let error = Secrets::parse(bad).expect_err(bad).to_string();
            assert!(
                !error.contains("hunter2") && !error.contains("20240901"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_shape_is_told_as_it_is_written() {
        let read = |settings: &str| {
            let text = format!("kafka: {{ bootstrap: 'k:9092', topic: t }}\n{settings}");
            Config::parse(&text).expect("right settings").shape
        };
        for written in [
            "",
            "window: 90s\nslide: 30s\noffset: 1500ms\ngroup-by: origin, payload.Kind as k\non-bad-record: fail",
            "aggregates: count as n, sum(bytes), max(a.Price decimal(18,2)), avg(x) as y\ntimestamp-field: a.at rfc3339",
        ] {
            let shape = read(written);
            let told = shape.as_settings();
            let settings = told
                .iter()
                .filter(|(name, _)| !name.contains("topic") && !name.contains(' '));
            let again: String = settings
                .map(|(name, value)| format!("{name}: '{}'\n", value.trim_matches('"')))
                .collect();
            assert_eq!(read(&again), shape, "{again}");
        }
    }
}
