//! The one place that words what `juju status` shows.
//!
//! Every text says the next step. Blocked is used only when a person must act.

use crate::endpoint::Endpoint;
use crate::facts::{KAFKA, METASTORE, S3};
use windrow_core::shown::status::{State, Status as Windrow};
use windrow_core::values::cause::{Cause, Trouble};

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

/// The secret of option `api-token` cannot be read.
#[must_use]
pub fn describe_token(why: &str, app: &str) -> Status {
    Status::blocked(format!(
        "option api-token: the secret cannot be read: {why}; run: juju grant-secret NAME {app}"
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

// ---------------------------------------------------------------- the workload

/// What the running windrow says about itself.
///
/// `unit` is ours, such as `windrow/0`; `model` is the UUID of our model, and `model_name` its
/// name.
#[must_use]
pub fn describe_windrow(windrow: &Windrow, unit: &str, model: &str, model_name: &str) -> Status {
    let app = unit.split('/').next().unwrap_or_default();
    let (table, topic) = (&windrow.table, &windrow.topic);
    match (windrow.cause, windrow.state) {
        (_, State::Counting) if table.is_empty() => Status::new(
            Level::Active,
            format!("printing windows of {topic}; see: kubectl logs -c windrow"),
        ),
        (_, State::Counting) => {
            Status::new(Level::Active, format!("counting {topic} into {table}"))
        }
        (_, State::Paused) => Status::new(
            Level::Maintenance,
            format!("Paused by action; to go on run: juju run {app}/leader resume"),
        ),
        (Some(Cause::Held), _) => describe_holder(&windrow.owner, table, app, model, model_name),
        (_, State::Standby) => Status::new(Level::Active, "Standby"),
        (Some(Cause::OtherBucket), _) => Status::blocked(&windrow.reason),
        (cause, State::Failed) => {
            describe_cause(cause, topic, app).unwrap_or_else(|| Status::blocked(&windrow.reason))
        }
        (cause, State::Waiting) => {
            describe_cause(cause, topic, app).unwrap_or_else(|| Status::waiting(&windrow.reason))
        }
    }
}

/// What is shown for a cause that has a next step of its own in this charm; `None` for the others.
fn describe_cause(cause: Option<Cause>, topic: &str, app: &str) -> Option<Status> {
    Some(match cause? {
        Cause::NoRights => Status::blocked(format!(
            "{METASTORE}: no rights on Hive's tables. Run: juju config {app} \
             metastore-roles=pg_read_all_data,pg_write_all_data, \
             then remove and add the relation"
        )),
        Cause::NoCreate => Status::blocked(format!(
            "{METASTORE}: no right to create schema windrow_1. Grant CREATE on the database, \
             or remove and add the relation"
        )),
        Cause::NoSchema => Status::waiting(
            "Hive schema not there yet: open Kyuubi and create a table, or set init-metastore=true",
        ),
        Cause::NoTopic => Status::waiting(format!(
            "{KAFKA}: topic {topic} is not there yet; a producer creates it"
        )),
        Cause::LoginKafka => describe_refused_login(KAFKA),
        Cause::LoginS3 => describe_refused_login(S3),
        Cause::LoginCatalog => describe_refused_login(METASTORE),
        Cause::Starting => Status::new(Level::Maintenance, "starting windrow"),
        _ => return None,
    })
}

fn describe_refused_login(endpoint: &str) -> Status {
    Status::waiting(format!(
        "{endpoint}: the login was refused; waiting for new credentials"
    ))
}

/// Who writes the table in our place. When it is a unit of our own application, we stand by for it.
/// When it is another application, its table is not ours.
///
/// `owner` is `<model uuid>/<application>/<unit number>`, or any other name that a windrow without
/// Juju has.
fn describe_holder(owner: &str, table: &str, app: &str, model: &str, model_name: &str) -> Status {
    let mut parts = owner.splitn(3, '/');
    let (their_model, their_app, number) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
        parts.next(),
    );
    match number {
        Some(number) if their_model == model && their_app == app => {
            Status::new(Level::Active, format!("Standby for {their_app}/{number}"))
        }
        Some(_) => {
            let place = if their_model == model {
                model_name
            } else {
                their_model
            };
            Status::blocked(format!(
                "table {table} is written by {their_app} in model {place}; \
                 choose another table-name"
            ))
        }
        None => Status::blocked(format!(
            "table {table} is written by {owner}; choose another table-name"
        )),
    }
}

/// A windrow that should run and does not answer. `service` is Pebble's state of it, and
/// `last_words` are the last lines of its log.
#[must_use]
pub fn describe_silence(service: Option<&str>, last_words: &[String], app: &str) -> Status {
    let has_ended = matches!(service, Some("backoff" | "error"));
    let trouble = last_words
        .iter()
        .rev()
        .find_map(|line| Trouble::of_last_line(line));
    match trouble {
        Some(trouble) if has_ended => describe_cause(trouble.cause, "", app)
            .unwrap_or_else(|| Status::blocked(format!("windrow ended: {trouble}"))),
        None if has_ended => Status::new(
            Level::Maintenance,
            "windrow ended and is started again; see: kubectl logs -c windrow",
        ),
        _ => Status::new(Level::Maintenance, "starting windrow"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn describe(state: State, cause: Option<Cause>, owner: &str) -> Status {
        let windrow = Windrow {
            table: "default.newtable".to_owned(),
            topic: "test-topic".to_owned(),
            reason: "the reason".to_owned(),
            state,
            cause,
            owner: owner.to_owned(),
            ..Windrow::default()
        };
        describe_windrow(&windrow, "windrow/1", "uuid-1", "spark")
    }

    #[test]
    fn each_state_says_the_next_step() {
        let check = |state, cause, owner, level, text: &str| {
            let status = describe(state, cause, owner);
            assert_eq!((status.level, status.text.as_str()), (level, text));
        };
        check(
            State::Counting,
            None,
            "",
            Level::Active,
            "counting test-topic into default.newtable",
        );
        check(
            State::Standby,
            Some(Cause::Held),
            "uuid-1/windrow/0",
            Level::Active,
            "Standby for windrow/0",
        );
        check(
            State::Standby,
            Some(Cause::Held),
            "uuid-1/other/0",
            Level::Blocked,
            "table default.newtable is written by other in model spark; choose another table-name",
        );
        check(
            State::Standby,
            Some(Cause::Held),
            "uuid-2/windrow/0",
            Level::Blocked,
            "table default.newtable is written by windrow in model uuid-2; \
             choose another table-name",
        );
        check(
            State::Paused,
            None,
            "",
            Level::Maintenance,
            "Paused by action; to go on run: juju run windrow/leader resume",
        );
        check(
            State::Waiting,
            Some(Cause::NoRights),
            "",
            Level::Blocked,
            "metastore-db: no rights on Hive's tables. Run: juju config windrow \
             metastore-roles=pg_read_all_data,pg_write_all_data, then remove and add the relation",
        );
        check(
            State::Waiting,
            Some(Cause::LoginKafka),
            "",
            Level::Waiting,
            "kafka-client: the login was refused; waiting for new credentials",
        );
        check(State::Failed, None, "", Level::Blocked, "the reason");
        check(State::Waiting, None, "", Level::Waiting, "the reason");
    }

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
    fn a_dead_windrow_is_described_by_its_last_words() {
        let words = [
            "INFO x".to_owned(),
            "windrow: table was dropped; run windrow restore".to_owned(),
        ];
        let describe = |service, words: &[String]| describe_silence(service, words, "w");
        assert_eq!(
            describe(Some("backoff"), &words).text,
            "windrow ended: table was dropped; run windrow restore"
        );
        assert_eq!(describe(Some("active"), &words).level, Level::Maintenance);
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
