//! Everything that one dispatch has seen, as plain values. Whoever plans needs nothing else.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use windrow_core::settings::config::Secret;
use windrow_core::shown::status::Status;

/// A databag, or what is to be written into one.
pub type Bag = BTreeMap<String, String>;

/// Options by name. An option without a value is not there.
pub type OptionValues = BTreeMap<String, Value>;

/// The endpoint to Kafka. This name and the next ones are those in `metadata.yaml`.
pub const KAFKA: &str = "kafka-client";
/// The endpoint to an S3 integrator.
pub const S3: &str = "s3-credentials";
/// The endpoint to the PostgreSQL of Hive's metastore.
pub const METASTORE: &str = "metastore-db";
/// The endpoint to those who give CA certificates.
pub const CA: &str = "receive-ca-cert";
/// The endpoint to Loki.
pub const LOGGING: &str = "logging";
/// The endpoint to Prometheus.
pub const METRICS: &str = "metrics-endpoint";
/// The endpoint to Grafana.
pub const DASHBOARD: &str = "grafana-dashboard";

/// All endpoints, in the order in which they are looked at.
pub const ENDPOINTS: [&str; 7] = [KAFKA, S3, METASTORE, CA, LOGGING, METRICS, DASHBOARD];

/// The endpoints without which windrow counts nothing into a table. The others are optional.
pub const NEEDED: [&str; 3] = [KAFKA, S3, METASTORE];

/// What one dispatch has seen.
#[derive(Clone, Debug)]
pub struct Facts {
    /// `windrow/0`.
    pub unit: String,
    /// The UUID of our model.
    pub model_uuid: String,
    /// The name of our model; empty where Juju does not say it.
    pub model_name: String,
    /// The name by which other processes know this unit.
    pub instance: String,
    /// The user that this process runs as. The check that wakes the charm must run as the same
    /// user.
    pub uid: u32,
    /// Whether this unit leads its application; `None` where nothing depends on it and it was not
    /// asked.
    pub leader: Option<bool>,
    /// The options as they are set now, right or wrong.
    pub options: OptionValues,
    /// The token in the user secret of option `api-token`, or why there is none. `None` where the
    /// option is not set.
    pub token: Option<Result<Secret, TokenFault>>,
    /// What earlier dispatches have remembered.
    pub memo: Memo,
    /// The relations of each endpoint, oldest first. Endpoints without relations are not there, nor
    /// are relations that are ending.
    pub relations: BTreeMap<String, Vec<Relation>>,
    /// The workload's container.
    pub container: Container,
    /// The files of the charm itself.
    pub charm: CharmFiles,
    /// What Kubernetes and DNS say about the namespace of Kafka's model; `None` where they were not
    /// asked.
    pub kafka_namespace: Option<Namespace>,
    /// The model's proxies.
    pub proxy: Proxy,
    /// The level and the text of the status that Juju shows now; `None` where Juju does not say.
    pub shown: Option<(String, String)>,
}

/// Why the secret of option `api-token` gives no token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenFault {
    /// We may not read the secret: why. A person must grant it.
    Denied(String),
    /// There is no such secret: why. A person must name another one.
    Missing(String),
    /// Juju does not give it to us at the moment: why.
    Unread(String),
    /// What it holds is not a token: why.
    Unusable(String),
}

impl TokenFault {
    /// What it means that `secret-get` has failed with these words.
    #[must_use]
    pub fn of_refusal(words: String) -> Self {
        let is_secret = ["secret \"", "secret revision ", "secret URI "]
            .iter()
            .any(|begin| words.contains(begin));
        if words.contains("permission denied") {
            Self::Denied(words)
        } else if is_secret && (words.contains("not found") || words.contains("not valid")) {
            Self::Missing(words)
        } else {
            Self::Unread(words)
        }
    }
}

/// The model's proxies.
#[derive(Clone, Debug, Default)]
pub struct Proxy {
    /// For `http://` URLs. It may hold a password.
    pub http: Option<Secret>,
    /// For `https://` URLs. It may hold a password.
    pub https: Option<Secret>,
    /// Hosts that are reached without a proxy, with commas between them.
    pub no_proxy: String,
}

/// One relation, as this unit sees it.
#[derive(Clone, Debug, Default)]
pub struct Relation {
    /// `kafka-client:4`.
    pub id: String,
    /// The name that the remote application has on our side.
    pub app: String,
    /// The remote application's databag.
    pub data: Bag,
    /// The contents of the secrets that the databag names, by the key that names them, such as
    /// `secret-user`; or why one cannot be read.
    pub secrets: BTreeMap<String, Result<BTreeMap<String, Secret>, String>>,
    /// The databags of the remote units. They are read only on endpoints where units write
    /// something.
    pub units: BTreeMap<String, Bag>,
    /// What our application has written. It is read only by a leader that does not remember it.
    pub own: Option<Bag>,
    /// Why what the other side has written could not be read, on an endpoint that windrow does not
    /// need. `None` where it was read.
    pub unread: Option<String>,
}

/// The workload's container.
#[derive(Clone, Debug)]
pub enum Container {
    /// Its Pebble says nothing about it.
    Away(PebbleTrouble),
    /// Its Pebble answers.
    Up(Box<Up>),
}

/// Why Pebble does not do what it is asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PebbleTrouble {
    /// Nobody listens there.
    Down,
    /// No answer comes in time.
    Slow,
    /// It says that it is not well: its words.
    Unwell(String),
    /// It refuses, or what it says cannot be understood: why.
    Refused(String),
}

/// What Pebble and the running windrow say.
#[derive(Clone, Debug, Default)]
pub struct Up {
    /// Pebble's whole plan, as YAML.
    pub plan: String,
    /// The state of the service: `active`, `inactive`, `backoff` or `error`. `None` where the plan
    /// has no such service.
    pub service: Option<String>,
    /// The files in the folder of programs, `/opt/windrow`: name and size in bytes.
    pub binaries: BTreeMap<String, u64>,
    /// The files that exist of those that the charm writes, by path. A file that cannot be read
    /// back, as one that is no text, counts as empty, so that it is written anew.
    pub files: BTreeMap<String, Secret>,
    /// What the running windrow answers; `None` where it does not.
    pub windrow: Option<Status>,
    /// The last lines of windrow's log, where it does not answer although it should.
    pub last_words: Vec<String>,
}

/// What the charm brings.
#[derive(Clone, Debug, Default)]
pub struct CharmFiles {
    /// The SHA-256 of the program `windrow`, in hexadecimal.
    pub digest: String,
    /// The size of the program.
    pub size_bytes: u64,
    /// The version of the charm, which is windrow's too.
    pub version: String,
}

/// What Kubernetes and DNS say about the namespace of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Namespace {
    /// This is its name.
    Is(String),
    /// Nothing need be added: Kafka is in our own model, or its names resolve from here.
    Here,
    /// We may not ask, or no namespace has the model's label: why.
    Unknown(String),
    /// There was no answer, so it must be asked again: why.
    Later(String),
}

/// What the charm remembers from dispatch to dispatch, as one JSON text in the unit's state. Juju
/// keeps it together with the databags that a hook has written, or it keeps neither. There are no
/// secrets in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Memo {
    /// The last options that were right as a whole; empty where there never were any.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub good_options: OptionValues,
    /// What is known about each relation, by the relation's id.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub relations: BTreeMap<String, RelationMemo>,
    /// The namespaces of models, by the models' UUIDs.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub namespaces: BTreeMap<String, String>,
    /// Whether the port is open.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub port: bool,
    /// The workload's version that Juju was told; empty where none was.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
}

impl Memo {
    /// The key in the unit's state.
    pub const KEY: &str = "memo";
}

/// What does not change as long as a relation lasts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct RelationMemo {
    /// The remote application.
    pub app: String,
    /// The UUID of its model; an empty text where Juju does not say it. `None`: not asked yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// What our application has written, through this unit or through an earlier leader. A request
    /// stays as it was first written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_data: Option<Bag>,
    /// What this unit has written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit_data: Option<Bag>,
}

/// The endpoint of a relation: `kafka-client` of `kafka-client:4`.
#[must_use]
pub fn endpoint_of(id: &str) -> &str {
    id.split(':').next().unwrap_or_default()
}

impl Facts {
    /// The newest relation of an endpoint, which is the one that counts: there are two while one
    /// replaces the other.
    #[must_use]
    pub fn newest(&self, endpoint: &str) -> Option<&Relation> {
        self.relations.get(endpoint)?.last()
    }

    /// The application's name: `windrow` of `windrow/0`.
    #[must_use]
    pub fn app(&self) -> &str {
        self.unit.split('/').next().unwrap_or_default()
    }
}
