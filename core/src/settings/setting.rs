//! Every setting, one row each. The parser takes defaults, limits and words from these rows, and a
//! test in `documents` writes `windrow.example.yaml`, `docs/settings.md` and the charm's
//! `config.yaml` from them. So a new setting is a row here and the place in `config` that reads it.

pub use crate::settings::row::{CharmOption, DefaultValue, Kind, Setting};

use DefaultValue::{Like, Required, Text};
use Kind::{Bytes, Duration, DurationOr, File, Flag, Number, Words};

/// Any duration, zero included.
const ANY: Kind = at_least(0);

const fn at_least(min_ms: u64) -> Kind {
    Duration {
        min_ms,
        max_ms: u64::MAX,
    }
}

/// What most settings have in common. Each row says in what it differs.
const ROW: Setting = Setting {
    key: "",
    option: None,
    default: Text(""),
    example: None,
    shapes_rows: false,
    kind: Kind::Free,
    doc: "",
};

const fn option(name: &'static str) -> Option<CharmOption> {
    noted(name, "")
}

/// An option about which the charm's users must know more than the setting's `doc`.
const fn noted(name: &'static str, note: &'static str) -> Option<CharmOption> {
    Some(CharmOption {
        name,
        default: None,
        note,
    })
}

/// An option with a default of its own.
const fn preset(
    name: &'static str,
    default: &'static str,
    note: &'static str,
) -> Option<CharmOption> {
    Some(CharmOption {
        name,
        default: Some(default),
        note,
    })
}

/// The row of a key; `None` where there is no such setting.
#[must_use]
pub fn find(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

/// The charm's options that are settings: the option's name and the setting's key, in order.
pub fn options() -> impl Iterator<Item = (&'static str, &'static str)> {
    SETTINGS
        .iter()
        .filter_map(|setting| Some((setting.option?.name, setting.key)))
}

/// All settings, in the order of the file.
pub const SETTINGS: &[Setting] = &[
    Setting {
        key: "kafka.bootstrap",
        default: Required,
        example: Some("kafka-k8s-0.kafka-k8s-endpoints:9092"),
        doc: "The Kafka servers to ask first, each as HOST:PORT, several with commas between.",
        ..ROW
    },
    Setting {
        key: "kafka.topic",
        option: preset(
            "topic-name",
            "test-topic",
            "It is asked for when Kafka is related, so after a change remove the kafka-client \
             relation and add it again.",
        ),
        default: Required,
        example: Some("test-topic"),
        shapes_rows: true,
        doc: "The Kafka topic to count, as its producer names it: 1 to 249 of a-z, A-Z, 0-9, \
              \".\", \"_\" and \"-\". Windrow waits until it is there and never creates it.",
        ..ROW
    },
    Setting {
        key: "kafka.security",
        default: Text("sasl-plaintext"),
        kind: Words(&["plaintext", "ssl", "sasl-plaintext", "sasl-ssl"]),
        doc: "How Kafka is reached. The words with ssl encrypt the connection, and those with \
              sasl log in with the secrets kafka-username and kafka-password.",
        ..ROW
    },
    Setting {
        key: "kafka.mechanism",
        default: Text("scram-sha-512"),
        kind: Words(&["scram-sha-256", "scram-sha-512"]),
        doc: "How the password is proved to Kafka when `kafka.security` logs in.",
        ..ROW
    },
    Setting {
        key: "kafka.group-prefix",
        doc: "What the name of the consumer group begins with. The group is \
              PREFIXwindrow-DATABASE.TABLE. It is only for tools that show the lag: the offsets \
              that count are kept with the table.",
        ..ROW
    },
    Setting {
        key: "kafka.namespace",
        option: noted(
            "kafka-namespace",
            "In Juju it is the name of the model that Kafka is in. When it is empty, the charm \
             finds the namespace through Kubernetes; set it when the status asks for it.",
        ),
        doc: "The Kubernetes namespace of a Kafka elsewhere, whose brokers have names that only \
              resolve there. It is added to the names that do not resolve.",
        ..ROW
    },
    Setting {
        key: "kafka.cluster-domain",
        option: option("cluster-domain"),
        default: Text("cluster.local"),
        doc: "The DNS domain of the Kubernetes cluster, used together with `kafka.namespace`.",
        ..ROW
    },
    Setting {
        key: "kafka.ca-file",
        kind: File,
        doc: "CA certificates in PEM that Kafka's certificate is signed by. They are trusted in \
              addition to Mozilla's. Allowed only where `kafka.security` has TLS.",
        ..ROW
    },
    Setting {
        key: "kafka.start",
        option: option("start"),
        default: Text("earliest"),
        kind: Words(&["earliest", "latest"]),
        doc: "Where reading begins in a topic that this table has not read yet: earliest (all \
              that Kafka still has) or latest (what comes from now on). Later positions are kept \
              with the table.",
        ..ROW
    },
    Setting {
        key: "table.name",
        option: preset(
            "table-name",
            "newtable",
            "In console mode the windows go to the log.",
        ),
        example: Some("newtable"),
        doc: "The Hive table to write: 1 to 100 of a-z, 0-9 and \"_\". Empty is console mode: \
              the windows are printed and nothing is kept, so neither S3 nor a metastore is \
              needed. Another name starts another table; the old one stays as it is.",
        ..ROW
    },
    Setting {
        key: "table.database",
        option: option("database"),
        default: Text("default"),
        doc: "The Hive database (not PostgreSQL's) that the table is in: 1 to 100 of a-z, 0-9 \
              and \"_\". It must exist.",
        ..ROW
    },
    Setting {
        key: "table.warehouse",
        option: noted(
            "warehouse",
            "When it is empty, a new table goes where the Hive database is if that is in the \
             bucket, and else to s3a://BUCKET/warehouse, where Kyuubi and Charmed Spark have \
             theirs.",
        ),
        example: Some("s3a://spark/warehouse"),
        doc: "Where the table's files go: s3a://BUCKET/PATH, or a directory where windrow runs \
              without its charm, which takes no directory. A table that exists never moves.",
        ..ROW
    },
    Setting {
        key: "table.bucket",
        doc: "Only the bucket that the files go to, instead of `table.warehouse`. Then a table \
              that exists stays where it is. A new one goes where Hive keeps the database if \
              that is in the bucket, and else to s3a://BUCKET/warehouse. It needs a PostgreSQL \
              `catalog`.",
        ..ROW
    },
    Setting {
        key: "table.timestamps",
        option: option("timestamps"),
        default: Text("micros"),
        kind: Words(&["micros", "int96"]),
        doc: "How Parquet files hold timestamps and decimals: micros, or int96 for the reader of \
              Hive 2.3 itself, which also cannot read decimals that are integers. Spark, Kyuubi \
              and beeline read both. Files that are there already stay as they are.",
        ..ROW
    },
    Setting {
        key: "table.retain",
        option: option("retain"),
        default: Text("forever"),
        // Days are dropped as a whole, so a shorter time would not be kept to.
        kind: DurationOr {
            word: "forever",
            min_ms: 86_400_000,
        },
        doc: "How long the rows of a day (UTC, by the start of the window) stay in the table after \
              the day's last window has ended. Then the day is dropped as a whole. With 365d a \
              query finds at least the last 365 days. What is dropped is gone after \
              `table.keep-replaced`, also when a longer time is set later.",
        ..ROW
    },
    Setting {
        key: "table.retain-side",
        option: option("retain-side"),
        default: Text("30d"),
        // Files of an hour become one, and are dropped as a whole.
        kind: DurationOr {
            word: "forever",
            min_ms: 3_600_000,
        },
        doc: "How long late records and rejects stay in TABLE__late and TABLE__rejects after they \
              were committed. They are dropped together with those of up to a day.",
        ..ROW
    },
    Setting {
        key: "table.keep-replaced",
        option: option("keep-replaced"),
        default: Text("7d"),
        kind: at_least(1000),
        doc: "How long files are kept that no table names any more, because others have taken \
              their place or their day was dropped. Make it longer than the longest query.",
        ..ROW
    },
    Setting {
        key: "window",
        option: option("window"),
        default: Text("10s"),
        shapes_rows: true,
        kind: at_least(1),
        doc: "How long a window of event time is. Windows are aligned to 1970-01-01 00:00 UTC.",
        ..ROW
    },
    Setting {
        key: "slide",
        option: option("slide"),
        default: Like("window"),
        shapes_rows: true,
        kind: at_least(1),
        doc: "How far apart windows begin: at most `window`, and at least a thousandth of it. \
              Left out, it is as `window`, so that each record counts once.",
        ..ROW
    },
    Setting {
        key: "offset",
        option: option("window-offset"),
        default: Text("0s"),
        shapes_rows: true,
        kind: ANY,
        doc: "How far windows are shifted against 1970-01-01 00:00 UTC. It is less than \
              `slide`.",
        ..ROW
    },
    Setting {
        key: "watermark-delay",
        option: option("watermark-delay"),
        default: Text("10s"),
        kind: ANY,
        doc: "How late a record may come. A window closes when every topic partition has shown \
              a record this much newer than the window's end; later ones are kept in \
              TABLE__late. With 0s the first record past the end of a window closes it.",
        ..ROW
    },
    Setting {
        key: "group-by",
        option: option("group-by"),
        default: Text("origin"),
        shapes_rows: true,
        doc: "The fields of the JSON records that are counted by, with commas between: \
              \"origin\", or \"origin, payload.kind as kind\". Each becomes a column.",
        ..ROW
    },
    Setting {
        key: "aggregates",
        option: option("aggregates"),
        default: Text("count"),
        shapes_rows: true,
        doc: "What is kept of each window and key, with commas between: count, sum(FIELD), \
              min(FIELD), max(FIELD), avg(FIELD). Decimals are declared, as in \"count, \
              sum(price decimal(18,2)) as turnover\".",
        ..ROW
    },
    Setting {
        key: "timestamp-field",
        option: option("timestamp-field"),
        shapes_rows: true,
        doc: "The field with a record's event time, and its unit where that cannot be guessed: \
              \"timestamp\", \"at s\", \"at ms\", \"at us\" or \"at rfc3339\". With rfc3339 it is \
              a text such as 2024-09-01T19:42:15Z, where the T may be a blank. Empty is the \
              timestamp of the Kafka record. A record whose time is outside the years 2 to 9998 \
              is a reject.",
        ..ROW
    },
    Setting {
        key: "on-bad-record",
        option: option("on-bad-record"),
        default: Text("reject"),
        shapes_rows: true,
        kind: Words(&["reject", "null", "fail"]),
        doc: "What happens to a record without a key: reject (it goes to TABLE__rejects with \
              the reason), null (it is counted under a null key) or fail (counting stops).",
        ..ROW
    },
    Setting {
        key: "on-data-loss",
        option: option("on-data-loss"),
        default: Text("stop"),
        kind: Words(&["stop", "continue"]),
        doc: "What happens when Kafka has deleted records that were not read yet: stop (a \
              person has to decide) or continue (the loss is recorded with its offsets, and \
              counting goes on where the log begins).",
        ..ROW
    },
    Setting {
        key: "idle-timeout",
        option: option("idle-timeout"),
        default: Text("30s"),
        kind: at_least(100),
        doc: "How long a topic partition has nothing to count before it no longer holds the \
              windows of the others back. Records that cannot be counted and have no usable time \
              are nothing to count.",
        ..ROW
    },
    Setting {
        key: "quiet-timeout",
        option: option("quiet-timeout"),
        default: Text("off"),
        kind: DurationOr {
            word: "off",
            min_ms: 1,
        },
        doc: "How long the whole topic is silent before its last windows close. With off they \
              stay open until a record comes.",
        ..ROW
    },
    Setting {
        key: "stalled-after",
        option: option("stalled-after"),
        default: Text("5m"),
        kind: at_least(1000),
        doc: "How long no window closes, although there are records to count, before the state is \
              waiting instead of counting. The reason then names the topic partition that the \
              others wait for.",
        ..ROW
    },
    Setting {
        key: "max-skew",
        option: option("max-skew"),
        default: Text("1h"),
        kind: at_least(1000),
        doc: "How far the event time of a topic partition may run ahead of the slowest one \
              before its reading pauses. It bounds memory and changes no row.",
        ..ROW
    },
    Setting {
        key: "max-future",
        option: option("max-future"),
        default: Text("1h"),
        // With none at all, a record of this very moment would be from the future, and each batch
        // would need a decision of its own.
        kind: at_least(10_000),
        doc: "How far ahead of the clocks an event time may lie: the clock of the catalog's \
              database and the machine's own, whichever says the later time. Records past it go \
              to TABLE__rejects. Nothing is read or committed while the two clocks differ by more \
              than this, or by more than a minute where this is shorter.",
        ..ROW
    },
    Setting {
        key: "max-keys",
        option: option("max-keys"),
        default: Text("1000000"),
        shapes_rows: true,
        kind: Number {
            of: "keys",
            min: 1,
            max: 1_000_000_000,
        },
        doc: "How many keys one topic partition may have in one slice of a window. Records with \
              further keys go to TABLE__rejects.",
        ..ROW
    },
    Setting {
        key: "max-key-bytes",
        default: Text("64KiB"),
        shapes_rows: true,
        kind: Bytes {
            min: 1,
            max: 1 << 20,
        },
        doc: "How long a key may be, all columns together. Records with longer keys go to \
              TABLE__rejects: what is longer is a document and not a key.",
        ..ROW
    },
    Setting {
        key: "max-memory",
        option: option("max-memory"),
        kind: Bytes {
            min: 8 << 20,
            max: 1 << 50,
        },
        doc: "How much memory the counts may take: open windows, closed windows on their way into \
              the table, and what is fetched from Kafka. Near it, commits come early; at it, \
              reading waits. No record is decided by it. The process needs some 64 MiB more. \
              Empty is half of the memory limit of the process's control group, or 512 MiB where \
              there is none.",
        ..ROW
    },
    Setting {
        key: "commit-interval",
        option: option("commit-interval"),
        default: Text("10s"),
        kind: Duration {
            min_ms: 100,
            max_ms: 3_600_000,
        },
        doc: "How long a closed window waits for its commit at most. A longer interval makes \
              fewer and larger files.",
        ..ROW
    },
    Setting {
        key: "compact-bandwidth",
        option: option("compact-bandwidth"),
        // Rows that compress well take a second of one processor for some 10 MiB. So this is what
        // one processor does with them in any case, and an eighth of a gigabit network.
        default: Text("16MiB"),
        kind: Bytes {
            min: 64 << 10,
            max: 1 << 40,
        },
        doc: "How many bytes a second, read and written together, windrow may move while it merges \
              the table's files into fewer. With less, merging takes longer, and leaves more of \
              the network, the store and the processor to others. It changes no row.",
        ..ROW
    },
    Setting {
        key: "s3.endpoint",
        example: Some("http://10.152.183.128:80"),
        doc: "The address of S3: http://HOST:PORT or https://HOST. Empty is AWS, by \
              `s3.region`.",
        ..ROW
    },
    Setting {
        key: "s3.region",
        default: Text("us-east-1"),
        doc: "The region of S3. Stores other than AWS mostly take any.",
        ..ROW
    },
    Setting {
        key: "s3.path-style",
        default: Text("true"),
        kind: Flag,
        doc: "Whether the bucket's name stands in the path of a request (true), as most stores \
              other than AWS want it, or in the host's name (false).",
        ..ROW
    },
    Setting {
        key: "s3.ca-file",
        kind: File,
        doc: "CA certificates in PEM that the certificate of S3 is signed by. They are trusted \
              in addition to Mozilla's. Allowed only where `s3.endpoint` is not http.",
        ..ROW
    },
    Setting {
        key: "s3.no-proxy",
        doc: "Hosts, .domains and networks (10.0.0.0/8), with commas between, at which S3 is \
              reached without the secret s3-proxy. Proxies of the environment are never used.",
        ..ROW
    },
    Setting {
        key: "catalog",
        example: Some("postgresql://metastore-primary.spark.svc.cluster.local:5432/hivemetastore"),
        doc: "Where the table is recorded: postgresql://HOST:PORT/DATABASE, which is the \
              database of a Hive metastore, or local:DIRECTORY, which needs no database. With \
              local:DIRECTORY the files are in that directory, too, unless `table.warehouse` \
              says otherwise. Console mode needs no catalog.",
        ..ROW
    },
    Setting {
        key: "catalog-tls",
        default: Text("disable"),
        kind: Words(&["disable", "require", "verify-full"]),
        doc: "How the connection to PostgreSQL is encrypted: disable (not at all), verify-full \
              (the certificate must name the host, and be signed by a CA of Mozilla's or of \
              `catalog-ca-file`) or require (no certificate is checked: whoever answers is \
              trusted and given the password). The charm writes verify-full.",
        ..ROW
    },
    Setting {
        key: "catalog-ca-file",
        kind: File,
        doc: "CA certificates in PEM that PostgreSQL's certificate is signed by. They are \
              trusted in addition to Mozilla's. Only where `catalog-tls` is verify-full.",
        ..ROW
    },
    Setting {
        key: "lease",
        default: Text("15s"),
        kind: Duration {
            min_ms: 1000,
            max_ms: 3_600_000,
        },
        doc: "How long another process waits for an owner of the table that no longer answers \
              before it takes over.",
        ..ROW
    },
    Setting {
        key: "instance",
        doc: "The name by which other processes know this one: they show it as the owner of the \
              table. Up to 200 visible characters without blanks, such as spark/windrow/0. Empty \
              is HOST/PID.",
        ..ROW
    },
    Setting {
        key: "init-metastore",
        option: noted("init-metastore", "Leave it off where Kyuubi does so."),
        default: Text("false"),
        kind: Flag,
        doc: "Whether to create the metastore's schema (that of Hive 2.3.0) where the database \
              is empty.",
        ..ROW
    },
    Setting {
        key: "http",
        default: Text("127.0.0.1:8080"),
        doc: "The address and port of the status page, of health, metrics and the API. \
              0.0.0.0:8080 is reached from other machines, too.",
        ..ROW
    },
    Setting {
        key: "secrets-file",
        example: Some("/etc/windrow/secrets.yaml"),
        kind: File,
        doc: "The file with users, passwords and keys, of mode 0600. Left out, it is \
              /etc/windrow/secrets.yaml, if that exists.",
        ..ROW
    },
    Setting {
        key: "log.level",
        option: option("log-level"),
        default: Text("info"),
        kind: Words(&["error", "warn", "info", "debug", "trace"]),
        doc: "How much windrow writes to its log. No level logs credentials or records: of the \
              libraries that it uses, no level shows more than what they call information.",
        ..ROW
    },
    Setting {
        key: "log.format",
        default: Text("text"),
        kind: Words(&["text", "json"]),
        doc: "How a line of the log is written.",
        ..ROW
    },
];
