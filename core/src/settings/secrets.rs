//! Secrets: the type that is shown nowhere, and text of the secrets file → [`Secrets`].
//! The file is opened and its mode is checked in `io/files.rs`.

use crate::settings::parse::is_proxy;
use crate::settings::yaml::{ConfigError, nearest, parse_yaml};
use serde_yaml::Value;
use std::fmt;

/// A text that is shown nowhere: `Debug` and `Display` print stars.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes the text over.
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

/// The keys of the secrets file, each with a sentence for the documents.
pub(super) const SECRET_KEYS: [(&str, &str); 8] = [
    ("kafka-username", "The user who logs in to Kafka."),
    ("kafka-password", "That user's password."),
    (
        "s3-access-key",
        "The key that may read, write and delete objects of the bucket.",
    ),
    ("s3-secret-key", "The secret that belongs to it."),
    (
        "s3-proxy",
        "The HTTP proxy that S3 is reached through, and nothing else: \
         http://USER:PASSWORD@HOST:PORT, with signs in the password as %40.",
    ),
    (
        "catalog-username",
        "The user who logs in to the PostgreSQL database of the catalog.",
    ),
    ("catalog-password", "That user's password."),
    (
        "api-token",
        "What HTTP requests from other machines must bring as \"Authorization: Bearer TOKEN\" \
         to be told more than /healthz, /readyz and /metrics.",
    ),
];

/// Whether this is a key of the secrets file.
pub(super) fn is_secret_key(key: &str) -> bool {
    SECRET_KEYS.iter().any(|(known, _)| *known == key)
}

/// What the secrets file holds. Which of them are needed depends on the settings: see
/// [`Config::check_secrets`](crate::settings::config::Config::check_secrets).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Secrets {
    /// The user of Kafka.
    pub kafka_username: Option<Secret>,
    /// The password of Kafka's user.
    pub kafka_password: Option<Secret>,
    /// The access key of S3.
    pub s3_access_key: Option<Secret>,
    /// The secret key of S3.
    pub s3_secret_key: Option<Secret>,
    /// The HTTP proxy that S3 is reached through: `http://USER:PASSWORD@HOST:PORT`.
    pub s3_proxy: Option<Secret>,
    /// The user of PostgreSQL.
    pub catalog_username: Option<Secret>,
    /// The password of PostgreSQL's user.
    pub catalog_password: Option<Secret>,
    /// What `Authorization: Bearer` must say.
    pub api_token: Option<Secret>,
}

impl Secrets {
    /// Reads the text of the secrets file. A key without a value counts as absent.
    ///
    /// # Errors
    /// All problems, by key and line. No value is in them, and no unknown key either.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let mut secrets = Self::default();
        let mut problems = Vec::new();
        for (key, value) in parse_yaml(text)? {
            let Some(slot) = secrets.slot(&key) else {
                problems.push(unknown_key(&key));
                continue;
            };
            match value {
                Value::Null => {}
                Value::String(text) if text.is_empty() => {}
                Value::String(text) => match check(&key, &text) {
                    Ok(()) => *slot = Some(Secret(text)),
                    Err(why) => problems.push(format!("cannot read secret {key}: {why}")),
                },
                // YAML would read 0123 and 1e5 as numbers, and forget how they were written.
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

    fn slot(&mut self, key: &str) -> Option<&mut Option<Secret>> {
        Some(match key {
            "kafka-username" => &mut self.kafka_username,
            "kafka-password" => &mut self.kafka_password,
            "s3-access-key" => &mut self.s3_access_key,
            "s3-secret-key" => &mut self.s3_secret_key,
            "s3-proxy" => &mut self.s3_proxy,
            "catalog-username" => &mut self.catalog_username,
            "catalog-password" => &mut self.catalog_password,
            "api-token" => &mut self.api_token,
            _ => return None,
        })
    }
}

/// Whether a secret can be used at all. The reason does not repeat any of it.
fn check(key: &str, text: &str) -> Result<(), &'static str> {
    match key {
        "api-token" if !text.bytes().all(|b| b.is_ascii_graphic()) => {
            Err("it goes into an HTTP header; write letters, digits and signs without blanks")
        }
        "s3-proxy" if !is_proxy(text) => {
            Err("not the address of a proxy; write http://HOST:PORT or \
             http://USER:PASSWORD@HOST:PORT, with signs in the password as %40")
        }
        _ => Ok(()),
    }
}

/// A line without its colon can make a key of a password, so an unknown key is never repeated.
fn unknown_key(key: &str) -> String {
    let known = SECRET_KEYS.map(|(key, _)| key);
    match nearest(key, &known) {
        Some(known) => format!("cannot read secrets: unknown key; did you mean \"{known}\"?"),
        None => format!(
            "cannot read secrets: unknown key; known are {}",
            known.join(", ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn every_known_key_has_a_place() {
        for (key, _) in SECRET_KEYS {
            assert!(Secrets::default().slot(key).is_some(), "{key}");
        }
    }

    #[test]
    fn a_proxy_is_an_http_address() {
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
    }
}
