//! Secrets: the type that is shown nowhere, and text of the secrets file → [`Secrets`].
//! The file is opened and its mode is checked in `io/files.rs`.

use crate::settings::parse::parse_proxy;
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
         http://USER:PASSWORD@HOST:PORT, with signs in the password as %40. Without a scheme it \
         is http://.",
    ),
    (
        "catalog-username",
        "The user who logs in to the PostgreSQL database of the catalog.",
    ),
    ("catalog-password", "That user's password."),
    (
        "api-token",
        "What HTTP requests must bring as \"Authorization: Bearer TOKEN\" to be told more than \
         /healthz, /readyz and /metrics. The command line reads it here.",
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
    /// What the file holds besides and cannot be used. These values are left out; one of them does
    /// not hold back the others.
    pub problems: Vec<SecretProblem>,
}

/// Why a value of the secrets file is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretProblem {
    /// The key; `None` when it is not one that is known.
    pub key: Option<&'static str>,
    /// A sentence with the next step. It does not repeat any of the value.
    pub text: String,
}

/// Secrets that are only right together: a rotation replaces both or neither.
const LOGINS: [[&str; 2]; 3] = [
    ["kafka-username", "kafka-password"],
    ["s3-access-key", "s3-secret-key"],
    ["catalog-username", "catalog-password"],
];

impl Secrets {
    /// Reads the text of the secrets file. A key without a value counts as absent, and line ends
    /// around a value are dropped, because files and commands add them. A value that cannot be used
    /// is left out and is named in [`Secrets::problems`].
    ///
    /// # Errors
    /// The text as a whole cannot be read. No value of it is in the error.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let mut secrets = Self::default();
        for (key, value) in parse_yaml(text)? {
            let Some((known, _)) = SECRET_KEYS.iter().find(|(known, _)| *known == key) else {
                let text = unknown_key(&key);
                secrets.problems.push(SecretProblem { key: None, text });
                continue;
            };
            let read = match value {
                Value::Null => Ok(String::new()),
                Value::String(text) => read_value(known, text.trim_matches(['\r', '\n'])),
                // YAML would read 0123 and 1e5 as numbers, and forget how they were written.
                _ => Err("not a text; write the value in quotes"),
            };
            match read {
                Ok(text) if text.is_empty() => {}
                Ok(text) => *secrets.slot(known) = Some(Secret(text)),
                Err(why) => secrets.problems.push(SecretProblem {
                    key: Some(known),
                    text: format!("cannot read secret {known}: {why}"),
                }),
            }
        }
        Ok(secrets)
    }

    /// All problems in one line, for people; empty when there are none.
    #[must_use]
    pub fn problems_text(&self) -> String {
        let texts: Vec<&str> = self.problems.iter().map(|p| p.text.as_str()).collect();
        texts.join("; ")
    }

    /// Whether both hold the same secrets, whatever their problems are.
    #[must_use]
    pub fn has_same_values(&self, other: &Self) -> bool {
        SECRET_KEYS
            .iter()
            .all(|(key, _)| self.get(key) == other.get(key))
    }

    /// Why this secret is not there, when the file has a value for it that cannot be used.
    pub(super) fn problem_of(&self, key: &str) -> Option<&SecretProblem> {
        self.problems
            .iter()
            .find(|problem| problem.key == Some(key))
    }

    /// What is in force after a rotation from `self` to what the file holds `now`. Of the secrets
    /// in `needed`, each of which is there in `self`, those that are missing now stay as they were,
    /// and so does the other half of the same login. An api-token that cannot be used leaves the
    /// one before in force. All the rest is as the file says.
    pub(super) fn rotated(&self, mut now: Self, needed: &[&'static str]) -> Self {
        for login in LOGINS {
            let is_gone = |key: &&&str| needed.contains(*key) && now.get(key).is_none();
            let Some(gone) = login.iter().find(is_gone).copied() else {
                continue;
            };
            if now.problem_of(gone).is_none() {
                let text = format!("cannot find secret {gone}: it is no longer in the file");
                let key = Some(gone);
                now.problems.push(SecretProblem { key, text });
            }
            for problem in &mut now.problems {
                if problem.key.is_some_and(|key| login.contains(&key)) {
                    problem.text += "; the one before stays in use";
                }
            }
            for key in login {
                *now.slot(key) = self.get(key).cloned();
            }
        }
        if self.api_token.is_some() && now.has_bad_token() {
            now.api_token.clone_from(&self.api_token);
            for problem in &mut now.problems {
                if problem.key == Some("api-token") {
                    problem.text += "; the one before stays in use";
                }
            }
        }
        now
    }

    /// Whether the file has an api-token that cannot be used. Then nobody may be let in as if there
    /// were none.
    #[must_use]
    pub fn has_bad_token(&self) -> bool {
        self.api_token.is_none() && self.problem_of("api-token").is_some()
    }

    pub(super) fn get(&self, key: &str) -> Option<&Secret> {
        match key {
            "kafka-username" => self.kafka_username.as_ref(),
            "kafka-password" => self.kafka_password.as_ref(),
            "s3-access-key" => self.s3_access_key.as_ref(),
            "s3-secret-key" => self.s3_secret_key.as_ref(),
            "s3-proxy" => self.s3_proxy.as_ref(),
            "catalog-username" => self.catalog_username.as_ref(),
            "catalog-password" => self.catalog_password.as_ref(),
            "api-token" => self.api_token.as_ref(),
            _ => None,
        }
    }

    /// The place of a secret, whose key is one of [`SECRET_KEYS`].
    fn slot(&mut self, key: &'static str) -> &mut Option<Secret> {
        match key {
            "kafka-username" => &mut self.kafka_username,
            "kafka-password" => &mut self.kafka_password,
            "s3-access-key" => &mut self.s3_access_key,
            "s3-secret-key" => &mut self.s3_secret_key,
            "s3-proxy" => &mut self.s3_proxy,
            "catalog-username" => &mut self.catalog_username,
            "catalog-password" => &mut self.catalog_password,
            "api-token" => &mut self.api_token,
            other => unreachable!("\"{other}\" is not a key of the secrets file"),
        }
    }
}

/// A value as it is used. The reason why it cannot be does not repeat any of it.
fn read_value(key: &str, text: &str) -> Result<String, &'static str> {
    if text.contains('\0') {
        return Err("it holds a zero byte; write it as text");
    }
    let header = "it goes into an HTTP header; write letters, digits and signs without blanks";
    match key {
        "api-token" | "s3-access-key" if !text.bytes().all(|b| b.is_ascii_graphic()) => Err(header),
        "s3-proxy" if !text.is_empty() => parse_proxy(text).ok_or(
            "not the address of a proxy; write http://HOST:PORT or \
             http://USER:PASSWORD@HOST:PORT, with signs in the password as %40",
        ),
        _ => Ok(text.to_owned()),
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
            "kafka-password: !hunter2 x",
            "api-token: 'hunter2 x'",
            "s3-access-key: 'hunter2 x'",
            "kafka-password: \"hunter2\\0\"",
        ] {
            let secrets = Secrets::parse(bad).expect(bad);
            assert_eq!(secrets.problems.len(), 1, "{bad}");
            let shown = format!("{secrets:?}");
            assert!(
                !shown.contains("hunter2") && !shown.contains("20240901"),
                "{shown}"
            );
        }
        for bad in [
            "hunter2",
            "kafka-password: 'hunter2",
            "kafka-password: hunter2: x",
            "kafka-password: *hunter2",
        ] {
            let error = Secrets::parse(bad).expect_err(bad).to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_newline_after_a_secret_is_not_part_of_it() {
        for (key, _) in SECRET_KEYS {
            for end in ["\\n", "\\r\\n", "\\n\\n"] {
                let secrets = Secrets::parse(&format!("{key}: \"p:1{end}\"")).unwrap();
                let read = secrets.get(key).expect(key).expose();
                assert!(["p:1", "http://p:1"].contains(&read), "{key}: {read:?}");
                assert_eq!(secrets.problems, []);
            }
            assert_eq!(
                Secrets::parse(&format!("{key}: \"\\n\"")).unwrap().get(key),
                None
            );
        }
    }

    #[test]
    fn one_bad_secret_holds_back_no_other() {
        let text = "api-token: 'a b'\ns3-proxy: 'ftp://p'\nkafka-pasword: x\nkafka-username: me\n";
        let secrets = Secrets::parse(text).unwrap();
        assert_eq!(secrets.kafka_username.unwrap().expose(), "me");
        assert_eq!((secrets.api_token, secrets.s3_proxy), (None, None));
        let keys: Vec<_> = secrets.problems.iter().map(|problem| problem.key).collect();
        assert_eq!(keys, [Some("api-token"), Some("s3-proxy"), None]);
        assert!(
            secrets.problems[2]
                .text
                .contains("did you mean \"kafka-password\"?")
        );
    }

    #[test]
    fn a_bad_needed_secret_keeps_its_login_and_no_other() {
        let old = Secrets::parse(
            "kafka-username: k1\nkafka-password: p1\ns3-access-key: a1\ns3-secret-key: s1\n\
             api-token: t1\n",
        )
        .unwrap();
        let needed = [
            "kafka-username",
            "kafka-password",
            "s3-access-key",
            "s3-secret-key",
        ];
        let new = "kafka-username: k2\nkafka-password: 2024\ns3-access-key: a2\n\
                   s3-secret-key: s2\n";
        let now = old.rotated(Secrets::parse(new).unwrap(), &needed);
        let values = SECRET_KEYS.map(|(key, _)| now.get(key).map(Secret::expose));
        let [k, p, a, s] = ["k1", "p1", "a2", "s2"].map(Some);
        assert_eq!(values, [k, p, a, s, None, None, None, None]);
        let [problem] = &now.problems[..] else {
            panic!("{:?}", now.problems);
        };
        assert_eq!(
            problem.text,
            "cannot read secret kafka-password: not a text; write the value in quotes; the one \
             before stays in use"
        );
        let now = old.rotated(Secrets::parse("s3-access-key: a2").unwrap(), &needed);
        assert_eq!(now.s3_access_key.as_ref().unwrap().expose(), "a1");
        let texts: Vec<_> = now.problems.iter().map(|p| p.text.as_str()).collect();
        assert_eq!(
            texts,
            [
                "cannot find secret kafka-username: it is no longer in the file; the one before \
                 stays in use",
                "cannot find secret s3-secret-key: it is no longer in the file; the one before \
                 stays in use"
            ]
        );
    }

    #[test]
    fn every_known_key_has_a_place() {
        for (key, _) in SECRET_KEYS {
            *Secrets::default().slot(key) = None;
            let secrets = Secrets::parse(&format!("{key}: x")).unwrap();
            assert!(secrets.get(key).is_some(), "{key}");
        }
    }

    #[test]
    fn a_proxy_is_an_http_address() {
        for (written, read) in [
            ("http://proxy:3128", "http://proxy:3128"),
            (
                "https://u:p%40ss@10.0.0.1:3128/",
                "https://u:p%40ss@10.0.0.1:3128/",
            ),
            ("http://u@[::1]:1", "http://u@[::1]:1"),
            ("http://p", "http://p"),
            ("proxy:3128", "http://proxy:3128"),
            ("u:p@10.0.0.1:3128", "http://u:p@10.0.0.1:3128"),
            ("HTTP://proxy:3128", "http://proxy:3128"),
        ] {
            let secrets = Secrets::parse(&format!("s3-proxy: '{written}'")).unwrap();
            assert_eq!(secrets.s3_proxy.expect(written).expose(), read);
        }
        for wrong in [
            "http://u:hunter2@",
            "http://u:hunter2/x@p:1",
            "http://u:hunter2 x@p:1",
            "http://u@hunter2@p:1",
            "socks5://u:hunter2@p:1",
            "http://hunter2:0",
            "hunter2:0",
        ] {
            let secrets = Secrets::parse(&format!("s3-proxy: '{wrong}'")).unwrap();
            assert_eq!(secrets.s3_proxy, None, "{wrong}");
            let why = &secrets.problems[0].text;
            assert!(
                why.contains("write http://HOST:PORT") && !why.contains("hunter2"),
                "{why}"
            );
        }
    }
}
