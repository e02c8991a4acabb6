//! The settings as values, and the rules over several of them: text of `windrow.yaml` → [`Config`].
//! No file is opened here (`io/files.rs` does that) and no host name is looked up.

use crate::settings::grammar::{parse_aggregates, parse_group_by, parse_time_field};
use crate::settings::parse::{
    HostPort, parse_addresses, parse_bucket, parse_domain, parse_endpoint, parse_group_prefix,
    parse_instance, parse_label, parse_name, parse_no_proxy, parse_postgres_url, parse_region,
    parse_table_name, parse_topic,
};
use crate::settings::written::Written;
use crate::table::file::Timestamps;
use crate::table::place::{Place, TablePlace};
use crate::values::shape::{OnBadRecord, SEMANTICS, Shape};
use crate::values::time::format_duration_ms;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

pub use crate::settings::secrets::{Secret, Secrets};
pub use crate::settings::yaml::ConfigError;

/// Where the secrets are when `secrets-file` does not say.
pub const DEFAULT_SECRETS_FILE: &str = "/etc/windrow/secrets.yaml";

/// `max-memory` where neither the settings nor a control group say it.
const MEMORY_UNLIMITED_BYTES: u64 = 512 << 20;

/// All settings except the secrets, checked as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How to reach Kafka.
    pub kafka: KafkaSettings,
    /// `None` is console mode: the windows are printed and nothing is kept.
    pub table: Option<TableSettings>,
    /// The settings that are kept with the table.
    pub shape: Shape,
    /// How far the watermark trails the newest event time. With zero, the first record past the end
    /// of a window closes it.
    pub watermark_delay_ms: i64,
    /// What happens when unread records are no longer in the log.
    pub on_data_loss: OnDataLoss,
    /// How long a topic partition has nothing to read before it no longer holds the others back.
    pub idle_timeout_ms: u64,
    /// How long the frontier may stand still, while records are read, before the state says so.
    pub stalled_after_ms: u64,
    /// How long the whole topic is silent before open windows close; `None` is never.
    pub quiet_timeout_ms: Option<u64>,
    /// How far the watermark of a topic partition may run ahead of the slowest one before its
    /// reading is paused.
    pub max_skew_ms: i64,
    /// How much memory the counts may take; `None` leaves it to the limit of the process.
    pub max_memory: Option<u64>,
    /// How far past the database's clock an event time may lie.
    pub max_future_ms: i64,
    /// At most this long between the closing of a window and its commit.
    pub commit_interval_ms: u64,
    /// How many bytes a second may be read and written together when files are merged.
    pub compact_bytes_per_second: u64,
    /// How to reach S3.
    pub s3: S3Settings,
    /// Where the table is recorded; `None` only in console mode.
    pub catalog: Option<CatalogSettings>,
    /// How long another process waits for an owner that no longer answers.
    pub lease_ms: u64,
    /// The name by which other processes know this one; `None` is host and process id.
    pub instance: Option<String>,
    /// Whether to create Hive's schema where the database is empty.
    pub init_metastore: bool,
    /// Where HTTP requests are answered.
    pub http: SocketAddr,
    /// `None`: [`DEFAULT_SECRETS_FILE`], if there is one.
    pub secrets_file: Option<PathBuf>,
    /// What is logged, and how.
    pub log: LogSettings,
}

/// How to reach Kafka. User and password are in [`Secrets`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaSettings {
    /// The servers to ask first; at least one.
    pub bootstrap: Vec<HostPort>,
    /// Whether the connection is encrypted, and whether to log in.
    pub security: Security,
    /// How the password is proved.
    pub mechanism: Mechanism,
    /// What the group's name begins with; Kafka's charm grants groups by prefix.
    pub group_prefix: String,
    /// The Kubernetes namespace that is added to broker names that do not resolve.
    pub namespace: Option<String>,
    /// What follows the namespace in such a name: `cluster.local`.
    pub cluster_domain: String,
    /// CA certificates in PEM that are trusted in addition to Mozilla's.
    pub ca_file: Option<PathBuf>,
    /// Where reading begins.
    pub start: Start,
}

/// Whether the connection to Kafka is encrypted, and whether to log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// Neither.
    Plaintext,
    /// Encrypted, without a login.
    Ssl,
    /// A login over a connection that is not encrypted.
    SaslPlaintext,
    /// Both.
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

    /// Whether user and password are needed.
    #[must_use]
    pub fn logs_in(self) -> bool {
        matches!(self, Security::SaslPlaintext | Security::SaslSsl)
    }
}

/// How a password is proved to Kafka (RFC 5802, RFC 7677).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// SCRAM with SHA-256.
    ScramSha256,
    /// SCRAM with SHA-512.
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
    /// At the oldest record that Kafka still has.
    Earliest,
    /// With the next record that comes.
    Latest,
}

/// What happens when offsets that were not read are no longer in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDataLoss {
    /// Stops, so that a person decides.
    Stop,
    /// Records what is lost, and goes on where the log begins.
    Continue,
}

/// The table that is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSettings {
    /// The table's name in Hive.
    pub name: String,
    /// The Hive database.
    pub database: String,
    /// Where the files are.
    pub place: TablePlace,
    /// How Parquet files hold timestamps.
    pub timestamps: Timestamps,
    /// How long after the end of its last window a day is kept; `None` is for ever.
    pub retain_ms: Option<u64>,
    /// How long late records and rejects are kept; `None` is for ever.
    pub retain_side_ms: Option<u64>,
    /// How long replaced files are kept: longer than the longest query.
    pub keep_replaced_ms: u64,
}

/// How to reach S3. The keys and the proxy are in [`Secrets`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Settings {
    /// `http://HOST:PORT` or `https://HOST`; `None` is AWS, by region.
    pub endpoint: Option<String>,
    /// The region that requests are signed for.
    pub region: String,
    /// Whether the bucket's name stands in the path of a request, instead of in the host's name.
    pub path_style: bool,
    /// CA certificates in PEM that are trusted in addition to Mozilla's.
    pub ca_file: Option<PathBuf>,
    /// Hosts, domains and networks that are reached without the secrets file's `s3-proxy`. `*` is
    /// all.
    pub no_proxy: Vec<String>,
}

/// Where the table is recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CatalogSettings {
    /// In the database of a Hive metastore. User and password are in [`Secrets`].
    Postgres {
        /// The server; its port is 5432 unless the setting says otherwise.
        server: HostPort,
        /// The database's name.
        database: String,
        /// How the connection is encrypted.
        tls: CatalogTls,
        /// CA certificates in PEM that are trusted in addition to Mozilla's.
        ca_file: Option<PathBuf>,
    },
    /// In files of this directory.
    Local(PathBuf),
}

/// How the connection to PostgreSQL is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CatalogTls {
    /// Not at all.
    Disable,
    /// Encrypted, whoever answers: no certificate is checked.
    Require,
    /// Encrypted, and the certificate must be trusted and name the host.
    VerifyFull,
}

/// What is logged, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// As `tracing` names levels: `error` to `trace`.
    pub level: &'static str,
    /// How a line is written.
    pub format: LogFormat,
}

/// How a line of the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs: one JSON object in each line.
    Json,
}

impl Config {
    /// Reads and checks the text of `windrow.yaml`.
    ///
    /// # Errors
    /// All problems, each with the setting, its value and what is allowed.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let mut w = Written::parse(text)?;
        let kafka = kafka(&mut w);
        let catalog = catalog(&mut w);
        let table = table(&mut w, catalog.as_ref());
        let config = Config {
            kafka,
            table,
            shape: shape(&mut w),
            watermark_delay_ms: signed(w.duration_ms("watermark-delay")),
            on_data_loss: w.choice(
                "on-data-loss",
                &[
                    ("stop", OnDataLoss::Stop),
                    ("continue", OnDataLoss::Continue),
                ],
            ),
            idle_timeout_ms: w.duration_ms("idle-timeout"),
            stalled_after_ms: w.duration_ms("stalled-after"),
            quiet_timeout_ms: w.duration_or_none_ms("quiet-timeout"),
            max_skew_ms: signed(w.duration_ms("max-skew")),
            max_memory: w.optional_bytes("max-memory"),
            max_future_ms: signed(w.duration_ms("max-future")),
            commit_interval_ms: w.duration_ms("commit-interval"),
            compact_bytes_per_second: w.bytes("compact-bandwidth"),
            s3: s3(&mut w),
            catalog,
            lease_ms: w.duration_ms("lease"),
            instance: w.optional("instance", parse_instance),
            init_metastore: w.flag("init-metastore"),
            http: w.read("http", |text| {
                text.parse().map_err(|_| {
                    "not an IP address and port; write 127.0.0.1:8080 or 0.0.0.0:8080".to_owned()
                })
            }),
            secrets_file: w.file("secrets-file"),
            log: log(&mut w),
        };
        w.finish(config)
    }

    /// The bound on memory that is in force where the process's control group has this limit:
    /// `max-memory`, or half of the limit, or 512 MiB where there is none.
    #[must_use]
    pub fn max_memory_bytes(&self, cgroup_limit: Option<u64>) -> u64 {
        let half = || cgroup_limit.map_or(MEMORY_UNLIMITED_BYTES, |limit| limit / 2);
        self.max_memory.unwrap_or_else(half)
    }

    /// The consumer group: `<prefix>windrow-<database>.<table>`, and in console mode
    /// `<prefix>windrow-console-<topic>`.
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

fn kafka(w: &mut Written) -> KafkaSettings {
    w.must_be_given(
        "kafka.bootstrap",
        "write HOST:PORT, several with commas between",
    );
    let security = w.choice(
        "kafka.security",
        &[
            ("plaintext", Security::Plaintext),
            ("ssl", Security::Ssl),
            ("sasl-plaintext", Security::SaslPlaintext),
            ("sasl-ssl", Security::SaslSsl),
        ],
    );
    let mechanisms = [
        ("scram-sha-256", Mechanism::ScramSha256),
        ("scram-sha-512", Mechanism::ScramSha512),
    ];
    let ca_file = w.file("kafka.ca-file");
    let has_tls = matches!(security, Security::Ssl | Security::SaslSsl);
    if ca_file.is_some() && !has_tls && !w.failed(&["kafka.security"]) {
        w.problem(
            "cannot use setting kafka.ca-file: kafka.security has no TLS, so no certificate would \
             be checked; set kafka.security: sasl-ssl or ssl"
                .to_owned(),
        );
    }
    KafkaSettings {
        bootstrap: w.read("kafka.bootstrap", parse_addresses),
        security,
        mechanism: w.choice("kafka.mechanism", &mechanisms),
        group_prefix: w.read("kafka.group-prefix", parse_group_prefix),
        namespace: w.optional("kafka.namespace", |text| parse_label(text, "kafka")),
        cluster_domain: w.read("kafka.cluster-domain", |text| {
            parse_domain(text, "cluster.local")
        }),
        ca_file,
        start: w.choice(
            "kafka.start",
            &[("earliest", Start::Earliest), ("latest", Start::Latest)],
        ),
    }
}

/// The table's settings are checked in console mode, too, so that they are right when it gets a
/// name.
fn table(w: &mut Written, catalog: Option<&CatalogSettings>) -> Option<TableSettings> {
    let given = w.is_given("table.name");
    let settings = TableSettings {
        name: w
            .optional("table.name", parse_table_name)
            .unwrap_or_default(),
        database: w.read("table.database", parse_name),
        place: place(w, given, catalog),
        timestamps: w.choice(
            "table.timestamps",
            &[("micros", Timestamps::Micros), ("int96", Timestamps::Int96)],
        ),
        retain_ms: w.duration_or_none_ms("table.retain"),
        retain_side_ms: w.duration_or_none_ms("table.retain-side"),
        keep_replaced_ms: w.duration_ms("table.keep-replaced"),
    };
    if given {
        w.must_be_given("catalog", CATALOG_HINT);
    }
    given.then_some(settings)
}

fn place(w: &mut Written, needed: bool, catalog: Option<&CatalogSettings>) -> TablePlace {
    let warehouse = w.optional("table.warehouse", str::parse);
    let bucket = w.optional("table.bucket", parse_bucket);
    // Stands in where there is a problem: then no settings come of it.
    let nowhere = TablePlace::At(Place::Directory(PathBuf::new()));
    match (warehouse, bucket, catalog) {
        (Some(_), Some(_), _) => {
            w.problem(
                "cannot use setting table.bucket with table.warehouse: each says where the files \
                 are; leave one out"
                    .to_owned(),
            );
            nowhere
        }
        (_, Some(_), Some(CatalogSettings::Local(_))) => {
            w.problem(
                "cannot use setting table.bucket with a local catalog: there is no Hive to say \
                 where in the bucket; write table.warehouse"
                    .to_owned(),
            );
            nowhere
        }
        (None, Some(bucket), _) => TablePlace::InBucket(bucket),
        (Some(Place::Directory(dir)), None, Some(CatalogSettings::Postgres { .. }))
            if dir.is_relative() =>
        {
            w.problem(format!(
                "cannot read setting table.warehouse \"{}\": readers of a Hive table need the \
                 whole path; write s3a://BUCKET/PATH or /DIRECTORY",
                dir.display()
            ));
            nowhere
        }
        (Some(place), None, _) => TablePlace::At(place),
        (None, None, Some(CatalogSettings::Local(dir))) => {
            TablePlace::At(Place::Directory(dir.clone()))
        }
        (None, None, _) => {
            if needed && !w.failed(&["table.warehouse", "table.bucket"]) {
                w.must_be_given(
                    "table.warehouse",
                    "write s3a://BUCKET/PATH or a directory, or set table.bucket",
                );
            }
            nowhere
        }
    }
}

fn s3(w: &mut Written) -> S3Settings {
    let endpoint = w.read("s3.endpoint", parse_endpoint);
    let ca_file = w.file("s3.ca-file");
    let is_http = endpoint
        .as_deref()
        .is_some_and(|to| to.starts_with("http://"));
    if ca_file.is_some() && is_http && !w.failed(&["s3.endpoint"]) {
        w.problem(
            "cannot use setting s3.ca-file: s3.endpoint is http, so no certificate would be \
             checked; write s3.endpoint: https://HOST"
                .to_owned(),
        );
    }
    S3Settings {
        endpoint,
        region: w.read("s3.region", parse_region),
        path_style: w.flag("s3.path-style"),
        ca_file,
        no_proxy: w.read("s3.no-proxy", parse_no_proxy),
    }
}

const CATALOG_HINT: &str = "write postgresql://HOST:5432/DATABASE or local:DIRECTORY";

fn catalog(w: &mut Written) -> Option<CatalogSettings> {
    let tls = w.choice(
        "catalog-tls",
        &[
            ("disable", CatalogTls::Disable),
            ("require", CatalogTls::Require),
            ("verify-full", CatalogTls::VerifyFull),
        ],
    );
    let ca_file = w.file("catalog-ca-file");
    // Whoever gives a CA wants the server to be checked, and the other two check nothing.
    if ca_file.is_some() && tls != CatalogTls::VerifyFull && !w.failed(&["catalog-tls"]) {
        w.problem(
            "cannot use setting catalog-ca-file: catalog-tls is not verify-full, so no \
             certificate would be checked; set catalog-tls: verify-full"
                .to_owned(),
        );
    }
    w.optional("catalog", |text| {
        if let Some(dir) = text.strip_prefix("local:") {
            return match dir {
                "" => Err(format!("no directory; {CATALOG_HINT}")),
                dir => Ok(CatalogSettings::Local(PathBuf::from(dir))),
            };
        }
        let (server, database) =
            parse_postgres_url(text).map_err(|why| format!("{why}; {CATALOG_HINT}"))?;
        Ok(CatalogSettings::Postgres {
            server,
            database,
            tls,
            ca_file: ca_file.clone(),
        })
    })
}

fn shape(w: &mut Written) -> Shape {
    w.must_be_given("kafka.topic", "write the topic's name");
    let (window_ms, slide_ms, offset_ms) = windows(w);
    let group_by = w.read("group-by", parse_group_by);
    let aggregates = w.read("aggregates", parse_aggregates);
    // The columns that every table has.
    let mut names = BTreeSet::from(["window", "date", "chunk"]);
    for name in group_by
        .iter()
        .map(|c| &c.name)
        .chain(aggregates.iter().map(|a| &a.name))
    {
        if !names.insert(name) {
            w.problem(format!(
                "cannot name column \"{name}\" of group-by and aggregates: the table has a column \
                 of that name already; write \"... as other_name\""
            ));
        }
    }
    Shape {
        topic: w.read("kafka.topic", parse_topic),
        window_ms,
        slide_ms,
        offset_ms,
        group_by,
        aggregates,
        timestamp_field: w.read("timestamp-field", parse_time_field),
        on_bad_record: w.choice(
            "on-bad-record",
            &[
                ("reject", OnBadRecord::Reject),
                ("null", OnBadRecord::Null),
                ("fail", OnBadRecord::Fail),
            ],
        ),
        max_keys: w.number("max-keys"),
        max_key_bytes: w.bytes("max-key-bytes"),
        semantics: SEMANTICS,
    }
}

/// Size, slide and offset of the windows in milliseconds: `1 <= slide <= window <= 1000 * slide`
/// and `0 <= offset < slide`.
fn windows(w: &mut Written) -> (i64, i64, i64) {
    let window = w.duration_ms("window");
    let slide = w.duration_ms("slide");
    if !w.failed(&["window", "slide"]) && (slide > window || window.div_ceil(slide) > 1000) {
        let (least, most) = (
            format_duration_ms(window.div_ceil(1000)),
            format_duration_ms(window),
        );
        let slide = format_duration_ms(slide);
        w.problem(format!(
            "cannot use setting slide \"{slide}\" with window \"{most}\": each record would \
             fall in no window or in more than 1000; write {least} to {most}"
        ));
    }
    let offset = w.duration_ms("offset");
    if !w.failed(&["window", "slide", "offset"]) && offset >= slide {
        let (offset, slide) = (format_duration_ms(offset), format_duration_ms(slide));
        w.problem(format!(
            "cannot use setting offset \"{offset}\" with slide \"{slide}\": windows begin again \
             every {slide}; write less than {slide}"
        ));
    }
    (signed(window), signed(slide), signed(offset))
}

fn log(w: &mut Written) -> LogSettings {
    let levels = ["error", "warn", "info", "debug", "trace"];
    LogSettings {
        level: w.choice("log.level", &levels.map(|level| (level, level))),
        format: w.choice(
            "log.format",
            &[("text", LogFormat::Text), ("json", LogFormat::Json)],
        ),
    }
}

fn signed(ms: u64) -> i64 {
    i64::try_from(ms).expect("durations are at most a century")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::setting::SETTINGS;

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
        let given = Written::parse(example).unwrap().keys();
        let mut known: Vec<_> = SETTINGS.iter().map(|row| row.key).collect();
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
    fn a_bandwidth_is_a_size_that_moves_something() {
        check(
            "compact-bandwidth: unlimited",
            "cannot read setting compact-bandwidth \"unlimited\": unknown unit \"unlimited\"; \
             write 65536, 64KiB, 1MiB or 1GiB",
        );
        check(
            "compact-bandwidth: 0",
            "cannot read setting compact-bandwidth \"0\": out of range; write 64KiB to 1024GiB",
        );
        let line = "compact-bandwidth: 1GiB";
        assert_eq!(read(&table(line)).compact_bytes_per_second, 1 << 30);
    }

    /// A day is dropped as a whole, so less than a day could not be kept to.
    #[test]
    fn what_is_kept_no_longer_is_said_by_two_durations() {
        let with = |line: &str| {
            let text = format!("{LEAST}table: {{ name: t, {line} }}\ncatalog: local:/data\n");
            Config::parse(&text).map(|config| {
                let table = config.table.unwrap();
                (table.retain_ms, table.retain_side_ms)
            })
        };
        const DAY: u64 = 86_400_000;
        for (line, expect) in [
            ("", (None, Some(30 * DAY))),
            ("retain: forever, retain-side: forever", (None, None)),
            (
                "retain: 365d, retain-side: 1h",
                (Some(365 * DAY), Some(3_600_000)),
            ),
            ("retain: 24h", (Some(DAY), Some(30 * DAY))),
        ] {
            assert_eq!(with(line), Ok(expect), "{line}");
        }
        for (line, expect) in [
            (
                "retain: 0d",
                "retain \"0d\": too short; write forever or at least 1d",
            ),
            (
                "retain: 23h",
                "retain \"23h\": too short; write forever or at least 1d",
            ),
            (
                "retain-side: 5m",
                "retain-side \"5m\": too short; write forever or at least 1h",
            ),
            (
                "retain: always",
                "retain \"always\": no number; write 500ms, 10s or 5m, or forever",
            ),
        ] {
            let error = with(line).unwrap_err().to_string();
            assert_eq!(error, format!("cannot read setting table.{expect}"));
        }
    }

    #[test]
    fn a_local_catalog_is_its_own_warehouse() {
        let config = read(&table(""));
        assert_eq!(config.group(), "windrow-default.newtable");
        assert_eq!(
            config.table.unwrap().place,
            TablePlace::At(Place::Directory(PathBuf::from("/data")))
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
            error.0,
            [
                "cannot read setting kafka.bootstrp: unknown key; did you mean \"bootstrap\"?",
                "cannot find setting kafka.bootstrap: it has no default; write HOST:PORT, several \
                 with commas between",
                "cannot find setting kafka.topic: it has no default; write the topic's name",
                "cannot read setting window \"10 sconds\": unknown unit \"sconds\"; write 500ms, \
                 10s or 5m",
                "cannot read setting http \"localhost\": not an IP address and port; write \
                 127.0.0.1:8080 or 0.0.0.0:8080",
            ]
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
            "cannot read settings log: they are several; write them in lines of their own below \
             \"log:\"",
        );
    }

    #[test]
    fn a_key_that_is_like_none_is_told_those_that_are_known() {
        let error = Config::parse(&format!("{LEAST}table: {{ zzz: 30d }}")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot read setting table.zzz: unknown key; known are name, database, warehouse, \
             bucket, timestamps, retain, retain-side, keep-replaced"
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
            "cannot use setting slide \"20s\" with window \"10s\": each record would fall in no \
             window or in more than 1000; write 10ms to 10s",
        );
        check(
            "slide: 9ms",
            "cannot use setting slide \"9ms\" with window \"10s\": each record would fall in no \
             window or in more than 1000; write 10ms to 10s",
        );
        check(
            "offset: 10s",
            "cannot use setting offset \"10s\" with slide \"10s\": windows begin again every \
             10s; write less than 10s",
        );
        check(
            "on-bad-record: rejects",
            "cannot read setting on-bad-record \"rejects\": did you mean \"reject\"? write \
             reject, null or fail",
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
            "cannot read setting max-key-bytes \"64kb\": unknown unit \"kb\"; write 65536, \
             64KiB, 1MiB or 1GiB",
        );
        check(
            "group-by: [origin]",
            "cannot read setting group-by: it takes one value, not a list or a map",
        );
        check(
            "quiet-timeout: never",
            "cannot read setting quiet-timeout \"never\": no number; write 500ms, 10s or 5m, or \
             off",
        );
        check(
            "quiet-timeout: 0s",
            "cannot read setting quiet-timeout \"0s\": too short; write off or at least 1ms",
        );
        check(
            "s3: { endpoint: 'minio:9000' }",
            "cannot read setting s3.endpoint \"minio:9000\": not an address of S3; write \
             http://HOST:PORT or https://HOST, or nothing for AWS",
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
            "cannot read setting group-by \"user-id\": \"user-id\" cannot be a column's name; \
             write \"... as NAME\" with a-z, 0-9 and \"_\"",
        );
    }

    #[test]
    fn the_catalog_is_an_address_without_a_user() {
        let text = |catalog: &str| {
            format!("{LEAST}table: {{ name: n, warehouse: 's3a://b-b/w/' }}\ncatalog: {catalog}")
        };
        let config = read(&text("postgresql://db/hive"));
        let Some(CatalogSettings::Postgres {
            server, database, ..
        }) = &config.catalog
        else {
            panic!()
        };
        assert_eq!(server.to_string(), "db:5432");
        assert_eq!(database, "hive");
        let place = config.table.as_ref().unwrap().place.or_default();
        assert_eq!(place.to_string(), "s3a://b-b/w");
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
            "cannot read setting instance \"my windrow\": not a valid name; write one such as \
             spark/windrow/0",
        );
    }

    #[test]
    fn a_key_in_an_address_is_not_repeated() {
        for line in [
            "catalog: 'postgresql://me:hunter2@db/hive'",
            "catalog: 'postgresql://db/hive?password=hunter2'",
            "catalog: 'postgresql://db:hunter2/hive'",
            "catalog: 'db:hunter2/hive'",
            "catalog: 'db?password=hunter2'",
            "catalog: 'mysql://db/hive/hunter2'",
            "s3: { endpoint: 'http://minio/?key=hunter2' }",
            "s3: { endpoint: 'http://minio:9000/hunter2' }",
            "s3: { endpoint: 'key:hunter2/minio' }",
            "table: { name: n, warehouse: 's3a://bucket/w?key=hunter2' }",
            "kafka: { bootstrap: 'k:9092?password=hunter2', topic: t }",
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
    fn a_ca_where_nothing_is_encrypted_is_refused_and_not_ignored() {
        let problems = |text: &str| match Config::parse(text) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        };
        let kafka = |security: &str| {
            let of = "bootstrap: 'k:9092', topic: t, ca-file: /ca.pem";
            problems(&format!("kafka: {{ {of}{security} }}"))
        };
        for security in [", security: plaintext", ", security: sasl-plaintext", ""] {
            assert!(
                kafka(security).contains("cannot use setting kafka.ca-file: kafka.security has no"),
                "{security}"
            );
        }
        for security in [", security: ssl", ", security: sasl-ssl"] {
            assert_eq!(kafka(security), "", "{security}");
        }
        let s3 = |endpoint: &str| {
            problems(&format!(
                "{LEAST}s3: {{ ca-file: /ca.pem, endpoint: '{endpoint}' }}"
            ))
        };
        let http = s3("http://minio:9000");
        assert!(
            http.contains("cannot use setting s3.ca-file: s3.endpoint is http"),
            "{http}"
        );
        assert_eq!(
            (s3("https://minio"), s3("")),
            (String::new(), String::new())
        );
    }

    #[test]
    fn a_bucket_takes_the_place_of_a_warehouse() {
        let text = |table: &str, catalog: &str| {
            format!("{LEAST}table: {{ name: n, {table} }}\ncatalog: {catalog}")
        };
        let postgres = "postgresql://db/hive";
        let config = read(&text("bucket: spark", postgres));
        assert_eq!(
            config.table.as_ref().unwrap().place,
            TablePlace::InBucket("spark".to_owned())
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
    fn exceptions_of_the_proxy_are_a_list() {
        let config = read(&table(
            "s3: { no-proxy: ' 10.0.0.0/8,, .svc, *.example.com,localhost ,*' }",
        ));
        assert_eq!(
            config.s3.no_proxy,
            ["10.0.0.0/8", ".svc", ".example.com", "localhost", "*"]
        );
    }

    #[test]
    fn a_shape_is_told_as_it_is_written() {
        let read = |settings: &str| {
            let text = format!("kafka: {{ bootstrap: 'k:9092', topic: t }}\n{settings}");
            Config::parse(&text).expect("right settings").shape
        };
        for written in [
            "",
            "window: 90s\nslide: 30s\noffset: 1500ms\n\
             group-by: origin, payload.Kind as k\non-bad-record: fail",
            "aggregates: count as n, sum(bytes), max(a.Price decimal(18,2)), avg(x) as y\n\
             timestamp-field: a.at rfc3339",
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
