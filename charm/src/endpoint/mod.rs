//! What relations give us and what we write into them. Each endpoint has a file; none does I/O.
//!
//! A databag is read as one of four states: absent, waiting, invalid or ready.

mod topology;
pub mod kafka;
pub mod s3;
pub mod metastore;
pub mod certificates;
pub mod logging;
pub mod metrics;
pub mod dashboard;

pub use topology::Topology;

use crate::facts::{Bag, Relation};
use windrow_core::settings::certificates::Certificates;
use windrow_core::settings::config::Secret;
use windrow_core::settings::parse::HostPort;

/// Longer values are not host names, topics or passwords. Certificates have a limit of their own.
const FIELD_MAX_BYTES: usize = 16_384;

/// What an endpoint gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint<T> {
    /// There is no relation.
    Absent,
    /// The other application will go on by itself: what we wait for.
    Waiting(String),
    /// A person must act: what is wrong with what the other application has written.
    Invalid(String),
    /// Everything that is needed.
    Ready(T),
}

impl<T> Endpoint<T> {
    /// What the endpoint gives; `None` when it is not ready.
    #[must_use]
    pub fn ready(&self) -> Option<&T> {
        match self {
            Endpoint::Ready(value) => Some(value),
            _ => None,
        }
    }

    /// The state for what was read on `endpoint` from application `app`.
    fn from_result(result: Result<T, Fault>, endpoint: &str, app: &str) -> Self {
        match result {
            Ok(value) => Endpoint::Ready(value),
            Err(Fault::Later(why)) => Endpoint::Waiting(format!("{endpoint}: {why}")),
            Err(Fault::Wrong(why)) => Endpoint::Invalid(format!("{endpoint}: {app} {why}")),
        }
    }
}

/// Why a relation cannot be used.
enum Fault {
    /// The other application has not written it yet.
    Later(String),
    /// What it has written is wrong. The text follows the application's name.
    Wrong(String),
}

/// A field of the remote databag. Providers put it into a secret, or into the databag itself, or
/// first into the one and then into the other; so the secret, such as `secret-user`, is looked at
/// first. Line ends around a value are dropped, because `juju add-secret KEY#file=FILE` keeps those
/// of the file.
///
/// # Errors
/// The secret is named but cannot be read, or the value is one that no sane provider writes.
fn field(relation: &Relation, secret: &str, name: &str) -> Result<Option<Secret>, Fault> {
    let value = match relation.secrets.get(secret) {
        Some(Err(why)) => {
            let secret = describe_secret(secret);
            return Err(Fault::Later(format!("{secret} cannot be read yet: {why}")));
        }
        Some(Ok(content)) => content.get(name).cloned(),
        None => None,
    };
    let value = value.or_else(|| relation.data.get(name).map(Secret::new));
    let trimmed = value.map(|value| Secret::new(value.expose().trim_matches(['\r', '\n'])));
    match trimmed {
        Some(value) if value.expose().is_empty() => Ok(None),
        Some(value) if name.contains("ca") && name.starts_with("tls") => Ok(Some(value)),
        Some(value) if value.expose().len() > FIELD_MAX_BYTES => Err(Fault::Wrong(format!(
            "gives {name} of {} bytes",
            value.expose().len()
        ))),
        Some(value) if value.expose().chars().any(char::is_control) => Err(Fault::Wrong(format!(
            "gives {name} with control characters"
        ))),
        value => Ok(value),
    }
}

/// A field that is not secret; see [`field`].
fn plain(relation: &Relation, secret: &str, name: &str) -> Result<Option<String>, Fault> {
    Ok(field(relation, secret, name)?.map(|value| value.expose().to_owned()))
}

/// The certificates in a field. Old providers write there only whether they speak TLS.
fn certificates(value: Option<&Secret>) -> Certificates {
    let text = value.map(Secret::expose).unwrap_or_default();
    let is_word = ["", "true", "false", "enabled", "disabled"]
        .iter()
        .any(|word| text.trim().eq_ignore_ascii_case(word));
    if is_word {
        return Certificates::default();
    }
    Certificates::read(text)
}

/// What a person calls the secret with this key.
fn describe_secret(key: &str) -> &str {
    match key {
        "secret-user" => "the user's secret",
        "secret-tls" => "the secret with certificates",
        _ => "the secret",
    }
}

/// Whether a provider says yes: `true`, `True` or `enabled`.
fn is_yes(value: Option<&str>) -> bool {
    value.is_some_and(|value| {
        value.eq_ignore_ascii_case("true") || value.eq_ignore_ascii_case("enabled")
    })
}

/// Parses `host:port[,host:port...]`: the addresses in their order, each once.
///
/// # Errors
/// The text is something else.
fn parse_addresses(text: &str) -> Result<Vec<HostPort>, Fault> {
    let mut all = Vec::new();
    for one in text.split(',').map(str::trim).filter(|one| !one.is_empty()) {
        match HostPort::parse(one, None) {
            Some(address) if all.contains(&address) => {}
            Some(address) => all.push(address),
            None => {
                let cut: String = one.chars().take(60).collect();
                return Err(Fault::Wrong(format!(
                    "gives the endpoint \"{}\", which is not HOST:PORT",
                    cut.escape_debug()
                )));
            }
        }
    }
    if all.is_empty() {
        Err(Fault::Wrong("gives no endpoint".to_owned()))
    } else {
        Ok(all)
    }
}

/// A databag of these fields.
fn bag<const N: usize>(fields: [(&str, String); N]) -> Bag {
    fields
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::Value;
    use std::collections::{BTreeMap, BTreeSet};
    use windrow_core::shown::metrics::{ProcessUse, metrics};
    use windrow_core::shown::status::{LaneStatus, Status};
    use windrow_core::values::time::EventTime;

    /// A relation whose application wrote this. A key such as `secret-user/username` is in that
    /// secret.
    pub(crate) fn relation(endpoint: &str, pairs: &[(&str, &str)]) -> Relation {
        let mut relation = Relation {
            id: format!("{endpoint}:4"),
            app: "provider".to_owned(),
            ..Relation::default()
        };
        for (name, value) in pairs {
            if let Some((secret, name)) = name.split_once('/') {
                relation
                    .data
                    .insert(secret.to_owned(), "secret:c1kafkausers0000000g".to_owned());
                let content = relation
                    .secrets
                    .entry(secret.to_owned())
                    .or_insert_with(|| Ok(BTreeMap::new()));
                content
                    .as_mut()
                    .unwrap()
                    .insert(name.to_owned(), Secret::new(*value));
            } else {
                relation
                    .data
                    .insert((*name).to_owned(), (*value).to_owned());
            }
        }
        relation
    }

    /// A relation whose units wrote this.
    pub(super) fn of_units(app: &str, units: &[(&str, &[(&str, &str)])]) -> Relation {
        let bags = units
            .iter()
            .map(|(unit, pairs)| ((*unit).to_owned(), bag_of(pairs)));
        Relation {
            id: "x:7".to_owned(),
            app: app.to_owned(),
            units: bags.collect(),
            ..Relation::default()
        }
    }

    /// A relation whose application wrote this, without secrets.
    pub(super) fn of_app(app: &str, pairs: &[(&str, &str)]) -> Relation {
        Relation {
            id: "x:7".to_owned(),
            app: app.to_owned(),
            data: bag_of(pairs),
            ..Relation::default()
        }
    }

    fn bag_of(pairs: &[(&str, &str)]) -> Bag {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    /// A field of a databag that holds JSON.
    pub(super) fn parsed(bag: &Bag, key: &str) -> Value {
        serde_json::from_str(&bag[key]).unwrap()
    }

    /// The metrics that a text of queries names.
    pub(super) fn metrics_in(text: &str) -> BTreeSet<String> {
        text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .filter(|name| name.starts_with("windrow_") || name.starts_with("process_"))
            .map(str::to_owned)
            .collect()
    }

    /// The names of all metrics, from a status with everything in it.
    pub(super) fn our_metrics() -> BTreeSet<String> {
        let time = Some(EventTime(1));
        let lane = LaneStatus {
            lag: Some(1),
            ..LaneStatus::default()
        };
        let status = Status {
            epoch: Some(1),
            watermark: time,
            last_commit: time,
            lanes: vec![lane],
            ..Status::default()
        };
        metrics_in(&metrics(&status, ProcessUse::default()))
    }
}
