//! All that was seen in one dispatch, as plain values. Whoever plans needs nothing else.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use windrow_core::settings::config::Secret;

/// A databag, or a request written into one.
pub type Bag = BTreeMap<String, String>;

/// Options by name. Those without a value are not there.
pub type OptionValues = BTreeMap<String, Value>;

/// The endpoints, by the names in `metadata.yaml`.
pub const KAFKA: &str = "kafka-client";
pub const S3: &str = "s3-credentials";
pub const METASTORE: &str = "metastore-db";
pub const CA: &str = "receive-ca-cert";
pub const LOGGING: &str = "logging";
pub const METRICS: &str = "metrics-endpoint";
pub const DASHBOARD: &str = "grafana-dashboard";

pub const ENDPOINTS: [&str; 7] = [KAFKA, S3, METASTORE, CA, LOGGING, METRICS, DASHBOARD];

/// What one dispatch saw.
#[derive(Clone, Debug)]
pub struct Facts {
    /// `windrow/0`.
    pub unit: String,
    pub model_uuid: String,
    pub model_name: String,
    /// What other processes know us by.
    pub instance: String,
    /// Of this process; the check that wakes the charm must run as the same user.
    pub uid: u32,
    /// `None` where nothing depends on it, and it was not asked.
    pub leader: Option<bool>,
    pub options: OptionValues,
    /// The user secret of option `api-token`; the reason where it cannot be read.
    pub token: Option<Result<Secret, String>>,
    pub memo: Memo,
    /// The relations of each endpoint that has any and that are not ending, oldest first.
    pub relations: BTreeMap<String, Vec<Relation>>,
    pub container: Container,
    pub charm: CharmFiles,
    /// The namespace of the model that Kafka is in, where it was asked for.
    pub kafka_namespace: Option<Namespace>,
    pub proxy: Proxy,
    /// The status that Juju shows now.
    pub shown: Option<(String, String)>,
}

/// What the model says of proxies.
#[derive(Clone, Debug, Default)]
pub struct Proxy {
    pub http: Option<Secret>,
    pub https: Option<Secret>,
    /// Hosts that are asked without one, divided by commas.
    pub no_proxy: String,
}

/// One relation, as this unit sees it.
#[derive(Clone, Debug, Default)]
pub struct Relation {
    /// `kafka-client:4`.
    pub id: String,
    /// The remote application's name on our side.
    pub app: String,
    /// The remote application's databag.
    pub data: Bag,
    /// The contents of the secrets that the databag names, by its key (`secret-user`); the reason where one cannot be read.
    pub secrets: BTreeMap<String, Result<BTreeMap<String, Secret>, String>>,
    /// The remote units' databags; only of endpoints that have something to say there.
    pub units: BTreeMap<String, Bag>,
    /// What our application wrote: read only by a leader that does not remember it.
    pub own: Option<Bag>,
}

/// The workload's container.
#[derive(Clone, Debug)]
pub enum Container {
    /// Pebble does not answer.
    Down,
    Up(Box<Up>),
}

/// What Pebble and the running windrow say.
#[derive(Clone, Debug, Default)]
pub struct Up {
    /// The whole plan, as YAML.
    pub plan: String,
    /// `active`, `inactive`, `backoff` or `error`; `None` where the plan has no such service.
    pub service: Option<String>,
    /// What lies in [`crate::layer::BINARY_DIR`]: name and size.
    pub binaries: BTreeMap<String, u64>,
    /// The files that are there of those we write, by path.
    pub files: BTreeMap<String, Secret>,
    /// What the running windrow answers.
    pub windrow: Option<windrow_core::shown::status::Status>,
    /// The last lines of its log, where it does not answer although it should.
    pub last_words: Vec<String>,
}

/// What the charm brings.
#[derive(Clone, Debug, Default)]
pub struct CharmFiles {
    /// Hex SHA-256 of the workload's binary.
    pub digest: String,
    pub size_bytes: u64,
    pub version: String,
}

/// What Kubernetes said of a model's namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Namespace {
    Is(String),
    /// Nothing need be added: Kafka is in our own model, or the names resolve from here.
    Here,
    /// We may not ask, or there is none with that label.
    Unknown(String),
    /// It did not answer: ask again.
    Later(String),
}

/// What the charm keeps from dispatch to dispatch, as one JSON text in the unit's state. Juju writes it together with
/// the databags, or neither. It holds no secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Memo {
    /// The last options that were right as a whole.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub good_options: OptionValues,
    /// What is known of each relation, by its id.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub relations: BTreeMap<String, Known>,
    /// Namespaces of models, by the models' UUIDs.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub namespaces: BTreeMap<String, String>,
    /// The port is open.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub port: bool,
    /// The workload's version that Juju was told.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
}

/// What does not change while a relation lasts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Known {
    /// The remote application.
    pub app: String,
    /// The UUID of its model; empty where Juju does not tell. Not there: not asked yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// What our application wrote, by this unit or by an earlier leader. Requests stay as they were first written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_data: Option<Bag>,
    /// What this unit wrote.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit_data: Option<Bag>,
}

impl Known {
    /// The endpoint: `kafka-client` of `kafka-client:4`.
    #[must_use]
    pub fn endpoint(id: &str) -> &str {
        id.split(':').next().unwrap_or_default()
    }
}

impl Facts {
    /// The newest relation of an endpoint: while one takes another's place both are seen.
    #[must_use]
    pub fn newest(&self, endpoint: &str) -> Option<&Relation> {
        self.relations.get(endpoint)?.last()
    }
}
