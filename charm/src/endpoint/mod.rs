//! A relation's databag → what it gives us, or why not yet. Each endpoint has a file; none does I/O.

pub mod cos;
pub mod kafka;
pub mod metastore;
pub mod s3;

use crate::facts::Relation;
use windrow_core::settings::config::Secret;

/// Longer values are no host names, topics or passwords. Certificates have their own limit.
const FIELD_MAX_BYTES: usize = 16_384;

/// What an endpoint gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint<T> {
    /// No relation.
    Absent,
    /// The other application will go on: what it waits for.
    Waiting(String),
    /// A person must act: what is wrong, and the next step.
    Invalid(String),
    Ready(T),
}

impl<T> Endpoint<T> {
    #[must_use]
    pub fn ready(&self) -> Option<&T> {
        match self {
            Endpoint::Ready(value) => Some(value),
            _ => None,
        }
    }

    /// What was read, or the state that its fault means.
    fn of(result: Result<T, Fault>, endpoint: &str, app: &str) -> Self {
        match result {
            Ok(value) => Endpoint::Ready(value),
            Err(Fault::Later(why)) => Endpoint::Waiting(format!("{endpoint}: {why}")),
            Err(Fault::Wrong(why)) => {
                Endpoint::Invalid(format!("{endpoint}: {app} {why}; look at: juju show-unit"))
            }
        }
    }
}

/// A field of the remote databag. Providers put it into a secret, into the bag itself, or first into one and then into
/// the other, so each field is looked for in the secret first.
///
/// # Errors
/// The secret is named but cannot be read, or the value is none a sane provider writes: why.
fn field(relation: &Relation, secret: &str, name: &str) -> Result<Option<Secret>, Fault> {
    let found = match relation.secrets.get(secret) {
        Some(Err(why)) => {
            return Err(Fault::Later(format!(
                "{} cannot be read yet: {why}",
                kind(secret)
            )));
        }
        Some(Ok(content)) => content.get(name).cloned(),
        None => None,
    };
    let found = found.or_else(|| relation.data.get(name).map(Secret::new));
    match found {
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

/// A field that is no secret.
fn plain(relation: &Relation, secret: &str, name: &str) -> Result<Option<String>, Fault> {
    Ok(field(relation, secret, name)?.map(|value| value.expose().to_owned()))
}

/// Why a field is of no use.
enum Fault {
    Later(String),
    Wrong(String),
}

/// `secret-user` → what a person calls it.
fn kind(secret: &str) -> &str {
    match secret {
        "secret-user" => "the user's secret",
        "secret-tls" => "the secret with certificates",
        _ => "the secret",
    }
}

/// `true`, `True`, `enabled`: what providers write for yes.
fn yes(value: Option<&str>) -> bool {
    value.is_some_and(|value| {
        value.eq_ignore_ascii_case("true") || value.eq_ignore_ascii_case("enabled")
    })
}

/// `host:port[,host:port…]`, in order and without repeats.
///
/// # Errors
/// It is something else.
fn addresses(text: &str) -> Result<Vec<(String, u16)>, Fault> {
    let mut all = Vec::new();
    for one in text.split(',').map(str::trim).filter(|one| !one.is_empty()) {
        let address = one.rsplit_once(':').and_then(|(host, port)| {
            let named = !host.is_empty()
                && host
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
            let numbered = host
                .strip_prefix('[')
                .and_then(|h| h.strip_suffix(']'))
                .is_some_and(|h| h.parse::<std::net::Ipv6Addr>().is_ok());
            let port = port.parse::<u16>().ok().filter(|port| *port > 0)?;
            (host.len() <= 255 && (named || numbered)).then(|| (host.to_owned(), port))
        });
        match address {
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

fn join(addresses: &[(String, u16)]) -> String {
    addresses
        .iter()
        .map(|(host, port)| format!("{host}:{port}"))
        .collect::<Vec<_>>()
        .join(",")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// A relation whose application wrote this; keys of the form `secret-user/username` are in that secret.
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
}
