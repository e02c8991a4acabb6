//! The one place that words what `juju status` shows.
//!
//! Every text says the next step. Blocked is used only when a person must act.

mod causes;

pub use causes::{Names, describe_cause, describe_silence, describe_windrow};

use crate::endpoint::Endpoint;
use crate::facts::{KAFKA, METASTORE, PebbleTrouble, S3, TokenFault};
use crate::hookcmd::HookError;

/// A status as Juju shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// What kind of status it is.
    pub level: Level,
    /// One line.
    pub text: String,
}

/// The kinds of status, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// A person must act.
    Blocked,
    /// Another application will act.
    Waiting,
    /// We are working on it.
    Maintenance,
    /// It serves.
    Active,
}

impl Level {
    /// The name that the hook command `status-set` takes.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Level::Blocked => "blocked",
            Level::Waiting => "waiting",
            Level::Maintenance => "maintenance",
            Level::Active => "active",
        }
    }
}

/// Longer texts are cut: `juju status` shows each in one line.
const TEXT_MAX_CHARS: usize = 240;

impl Status {
    /// A status whose text is made one line, and is cut after 240 characters.
    #[must_use]
    pub fn new(level: Level, text: impl AsRef<str>) -> Self {
        let line = text
            .as_ref()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        let cut: String = line.chars().take(TEXT_MAX_CHARS).collect();
        let text = if cut.len() < line.len() {
            format!("{}...", cut.trim_end())
        } else {
            line
        };
        Self { level, text }
    }

    /// A status that asks a person to act.
    #[must_use]
    pub fn blocked(text: impl AsRef<str>) -> Self {
        Self::new(Level::Blocked, text)
    }

    /// A status that says what we wait for.
    #[must_use]
    pub fn waiting(text: impl AsRef<str>) -> Self {
        Self::new(Level::Waiting, text)
    }
}

/// The status to show, of several: the most urgent one, and of equals the first.
#[must_use]
pub fn most_urgent(all: impl IntoIterator<Item = Status>) -> Option<Status> {
    all.into_iter().reduce(|first, next| {
        if next.level < first.level {
            next
        } else {
            first
        }
    })
}

// ---------------------------------------------------------------- options and relations

/// What is wrong with the options: the first problem, and how many more there are. `None` when
/// nothing is.
#[must_use]
pub fn describe_options(problems: &[String], app: &str) -> Option<Status> {
    let first = problems
        .first()?
        .replace("config APP ", &format!("config {app} "));
    Some(Status::blocked(match problems.len() {
        1 => first,
        count => format!("{first} (and {} more)", count - 1),
    }))
}

/// The secret of option `api-token` gives no token. Counting goes on without one.
#[must_use]
pub fn describe_token(fault: &TokenFault, app: &str) -> Status {
    Status::blocked(match fault {
        TokenFault::Unread(why) => format!(
            "option api-token: the secret cannot be read: {why}; run: juju grant-secret NAME {app}"
        ),
        TokenFault::Unusable(why) => format!(
            "option api-token: the secret cannot be used and is left out: {why}; \
             run: juju update-secret NAME token=TOKEN"
        ),
    })
}

/// A proxy of the model, such as `juju-http-proxy`, cannot be used. S3 is reached without it.
#[must_use]
pub fn describe_proxy(key: &str, why: &str) -> Status {
    Status::blocked(format!(
        "the model's {key} cannot be used and is left out: {why}; \
         run: juju model-config {key}=VALUE"
    ))
}

/// Something that an endpoint gives cannot be used, and the rest of it counts. `unit` is ours.
#[must_use]
pub fn describe_left_out(endpoint: &str, why: &str, unit: &str) -> Status {
    Status::blocked(format!(
        "{endpoint}: {why}; run: juju show-unit {unit} --endpoint {endpoint}"
    ))
}

/// A CA is set for a server that does not speak TLS. `remote` is the application on its side.
#[must_use]
pub fn describe_ca_without_tls(option: &str, endpoint: &str, app: &str, remote: &str) -> Status {
    Status::blocked(format!(
        "option {option} is set, and {remote} speaks no TLS on {endpoint}; switch TLS on there, or \
         run: juju config {app} {option}=\"\""
    ))
}

/// The option `warehouse` names another bucket than the relation.
#[must_use]
pub fn describe_other_bucket(warehouse: &str, given: &str, app: &str, remote: &str) -> Status {
    Status::blocked(format!(
        "option warehouse: bucket \"{warehouse}\" is not \"{given}\", the one that {remote} gives; \
         run: juju config {app} warehouse=s3a://{given}/PATH"
    ))
}

/// An endpoint that is not ready; `None` when it is ready or absent. `unit` is ours.
#[must_use]
pub fn describe_endpoint<T>(endpoint: &Endpoint<T>, name: &str, unit: &str) -> Option<Status> {
    match endpoint {
        Endpoint::Absent | Endpoint::Ready(_) => None,
        Endpoint::Waiting(why) => Some(Status::waiting(why)),
        Endpoint::Invalid(why) => Some(Status::blocked(format!(
            "{why}; run: juju show-unit {unit} --endpoint {name}"
        ))),
    }
}

/// Needed endpoints without a relation; `None` when there are none.
#[must_use]
pub fn describe_absent(absent: &[&str], app: &str) -> Option<Status> {
    let first = absent.first()?;
    let provider = match *first {
        KAFKA => "kafka-k8s",
        S3 => "s3-integrator",
        METASTORE => "postgresql-k8s",
        _ => "APPLICATION",
    };
    Some(Status::blocked(format!(
        "no relation on {}; run: juju integrate {app}:{first} {provider}",
        absent.join(", "),
    )))
}

/// A request that was written before an option was changed. The relation keeps it; `remote` is the
/// application on its other side.
#[must_use]
pub fn describe_kept_request(
    endpoint: &str,
    option: &str,
    written: &str,
    app: &str,
    remote: &str,
) -> Status {
    Status::blocked(format!(
        "option {option}: the relation on {endpoint} was made with \"{written}\" and keeps it; \
         run: juju remove-relation {app} {remote}, \
         then juju integrate {app}:{endpoint} {remote}"
    ))
}

/// The namespace of Kafka's brokers is needed and cannot be found.
#[must_use]
pub fn describe_namespace(why: &str, app: &str) -> Status {
    Status::blocked(format!(
        "{KAFKA}: the brokers' names resolve only in Kafka's namespace, which is unknown: {why}; \
         run: juju config {app} kafka-namespace=NAMESPACE"
    ))
}

/// A hook has failed, and Juju runs it again. A person must act only where another try ends in the
/// same way.
#[must_use]
pub fn describe_failed_hook(error: &anyhow::Error) -> Status {
    let text = format!("the hook failed and is run again: {error:#}");
    match error.downcast_ref::<HookError>() {
        Some(HookError::NotFound { .. }) | None => Status::blocked(text),
        Some(_) => Status::waiting(text),
    }
}

// ---------------------------------------------------------------- the container

/// Pebble does not do what it is asked to do. Only where it refuses must a person act. `unit` is
/// ours.
#[must_use]
pub fn describe_pebble(trouble: &PebbleTrouble, unit: &str) -> Status {
    match trouble {
        PebbleTrouble::Down => Status::waiting("waiting for Pebble in container windrow"),
        PebbleTrouble::Slow => Status::waiting(
            "Pebble in container windrow does not answer in time; it is asked again",
        ),
        PebbleTrouble::Unwell(why) => Status::waiting(format!(
            "Pebble in container windrow is not well and is asked again: {why}"
        )),
        PebbleTrouble::Refused(why) => Status::blocked(format!(
            "cannot set up container windrow: {why}; for more run: juju debug-log --include {unit}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_the_most_urgent_is_shown() {
        let all = [
            Status::waiting("w"),
            Status::blocked("b"),
            Status::blocked("c"),
        ];
        assert_eq!(most_urgent(all).unwrap().text, "b");
        assert_eq!(most_urgent([]), None);
    }

    #[test]
    fn a_long_reason_is_one_short_line() {
        let status = Status::blocked("a\nb ".repeat(300));
        assert!(
            status.text.len() < 250
                && status.text.starts_with("a b a b")
                && status.text.ends_with("...")
        );
    }
}
