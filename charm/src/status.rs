//! The one place that decides what `juju status` shows. Every text says the next step; blocked is for a person alone.

use crate::endpoint::Endpoint;
use crate::facts::{KAFKA, METASTORE, S3};
use windrow_core::shown::status::{State, Status as Windrow};
use windrow_core::values::cause::{Cause, Trouble};

/// As Juju shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub level: Level,
    pub text: String,
}

/// In the order in which a person wants to hear of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// A person must act.
    Blocked,
    /// Another application will.
    Waiting,
    /// We are at it.
    Maintenance,
    Active,
}

impl Level {
    /// As `status-set` takes it.
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

/// Longer texts are cut: `juju status` shows one line.
const TEXT_MAX_CHARS: usize = 240;

impl Status {
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

    #[must_use]
    pub fn blocked(text: impl AsRef<str>) -> Self {
        Self::new(Level::Blocked, text)
    }

    #[must_use]
    pub fn waiting(text: impl AsRef<str>) -> Self {
        Self::new(Level::Waiting, text)
    }
}

/// Of several the one a person wants to hear of first; the earlier of equals.
#[must_use]
pub fn first(all: impl IntoIterator<Item = Status>) -> Option<Status> {
    all.into_iter().reduce(|first, next| {
        if next.level < first.level {
            next
        } else {
            first
        }
    })
}

/// What an endpoint that is not ready means; `None` when it is ready or absent.
#[must_use]
pub fn of_endpoint<T>(endpoint: &Endpoint<T>) -> Option<Status> {
    match endpoint {
        Endpoint::Absent | Endpoint::Ready(_) => None,
        Endpoint::Waiting(why) => Some(Status::waiting(why)),
        Endpoint::Invalid(why) => Some(Status::blocked(why)),
    }
}

/// What relations that are not there mean.
#[must_use]
pub fn of_absent(absent: &[&str], app: &str) -> Option<Status> {
    let provider = |endpoint: &str| match endpoint {
        KAFKA => "kafka-k8s",
        S3 => "s3-integrator",
        METASTORE => "postgresql-k8s",
        _ => "APPLICATION",
    };
    let first = absent.first()?;
    Some(Status::blocked(format!(
        "no relation on {}; run: juju integrate {app}:{first} {}",
        absent.join(", "),
        provider(first)
    )))
}

/// What the running windrow's own state means.
///
/// `unit` is ours, as in `windrow/0`, and `model` the UUID of our model, `model_name` its name.
#[must_use]
pub fn of_windrow(windrow: &Windrow, unit: &str, model: &str, model_name: &str) -> Status {
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
            format!("Paused by action: run resume ({app})"),
        ),
        (Cause::Held, _) => of_holder(&windrow.owner, table, app, model, model_name),
        (_, State::Standby) => Status::new(Level::Active, "Standby"),
        (Cause::OtherBucket, _) => Status::blocked(&windrow.reason),
        (_, State::Failed) => {
            of_cause(windrow.cause, topic, app).unwrap_or_else(|| Status::blocked(&windrow.reason))
        }
        (_, State::Waiting) => {
            of_cause(windrow.cause, topic, app).unwrap_or_else(|| Status::waiting(&windrow.reason))
        }
    }
}

/// What a cause means that has a next step of its own in this charm.
fn of_cause(cause: Cause, topic: &str, app: &str) -> Option<Status> {
    Some(match cause {
        Cause::NoRights => Status::blocked(format!(
            "{METASTORE}: no rights on Hive's tables. Run: juju config {app} metastore-roles=pg_read_all_data,pg_write_all_data, then remove and add the relation"
        )),
        Cause::NoCreate => Status::blocked(format!(
            "{METASTORE}: no right to create schema windrow_1. Grant CREATE on the database, or remove and add the relation"
        )),
        Cause::NoSchema => Status::waiting(
            "Hive schema not there yet: open Kyuubi and create a table, or set init-metastore=true",
        ),
        Cause::NoTopic => Status::waiting(format!(
            "{KAFKA}: topic {topic} is not there yet; a producer makes it"
        )),
        Cause::LoginKafka => refused(KAFKA),
        Cause::LoginS3 => refused(S3),
        Cause::LoginCatalog => refused(METASTORE),
        Cause::Starting => Status::new(Level::Maintenance, "starting windrow"),
        Cause::OtherBucket | Cause::Held | Cause::None => return None,
    })
}

fn refused(endpoint: &str) -> Status {
    Status::waiting(format!(
        "{endpoint}: the login was refused; waiting for new credentials"
    ))
}

/// Who writes the table in our stead. A unit of our own application is what we stand by for; another application's
/// table is not ours.
fn of_holder(owner: &str, table: &str, app: &str, model: &str, model_name: &str) -> Status {
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
                "table {table} is written by {their_app} in model {place}; choose another table-name"
            ))
        }
        None => Status::blocked(format!(
            "table {table} is written by {owner}; choose another table-name"
        )),
    }
}

/// What a windrow that should run and does not answer means, by the last lines of its log.
#[must_use]
pub fn of_silence(service: Option<&str>, last_words: &[String], app: &str) -> Status {
    let ended = matches!(service, Some("backoff" | "error"));
    match last_words
        .iter()
        .rev()
        .find_map(|line| Trouble::of_last_line(line))
    {
        Some(trouble) if ended => of_cause(trouble.cause, "", app)
            .unwrap_or_else(|| Status::blocked(format!("windrow ended: {trouble}"))),
        None if ended => Status::new(
            Level::Maintenance,
            "windrow ended and is started again; see: kubectl logs -c windrow",
        ),
        _ => Status::new(Level::Maintenance, "starting windrow"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(state: State, cause: Cause, owner: &str) -> Status {
        let windrow = Windrow {
            table: "default.newtable".to_owned(),
            topic: "test-topic".to_owned(),
            reason: "the reason".to_owned(),
            state,
            cause,
            owner: owner.to_owned(),
            ..Windrow::default()
        };
        of_windrow(&windrow, "windrow/1", "uuid-1", "spark")
    }

    #[test]
    fn each_state_says_the_next_step() {
        let check = |state, cause, owner, level, text: &str| {
            let status = of(state, cause, owner);
            assert_eq!((status.level, status.text.as_str()), (level, text));
        };
        check(
            State::Counting,
            Cause::None,
            "",
            Level::Active,
            "counting test-topic into default.newtable",
        );
        check(
            State::Standby,
            Cause::Held,
            "uuid-1/windrow/0",
            Level::Active,
            "Standby for windrow/0",
        );
        check(
            State::Standby,
            Cause::Held,
            "uuid-1/other/0",
            Level::Blocked,
            "table default.newtable is written by other in model spark; choose another table-name",
        );
        check(
            State::Standby,
            Cause::Held,
            "uuid-2/windrow/0",
            Level::Blocked,
            "table default.newtable is written by windrow in model uuid-2; choose another table-name",
        );
        check(
            State::Paused,
            Cause::None,
            "",
            Level::Maintenance,
            "Paused by action: run resume (windrow)",
        );
        check(
            State::Waiting,
            Cause::NoRights,
            "",
            Level::Blocked,
            "metastore-db: no rights on Hive's tables. Run: juju config windrow metastore-roles=pg_read_all_data,pg_write_all_data, then remove and add the relation",
        );
        check(
            State::Waiting,
            Cause::LoginKafka,
            "",
            Level::Waiting,
            "kafka-client: the login was refused; waiting for new credentials",
        );
        check(State::Failed, Cause::None, "", Level::Blocked, "the reason");
        check(
            State::Waiting,
            Cause::None,
            "",
            Level::Waiting,
            "the reason",
        );
    }

    #[test]
    fn of_several_the_first_to_act_on_is_shown() {
        let all = [
            Status::waiting("w"),
            Status::blocked("b"),
            Status::blocked("c"),
        ];
        assert_eq!(first(all).unwrap().text, "b");
        assert_eq!(first([]), None);
    }

    #[test]
    fn a_dead_windrow_tells_its_last_words() {
        let words = [
            "INFO x".to_owned(),
            "windrow: table was dropped; run adopt".to_owned(),
        ];
        let of_silence = |service, words: &[String]| of_silence(service, words, "w");
        assert_eq!(
            of_silence(Some("backoff"), &words).text,
            "windrow ended: table was dropped; run adopt"
        );
        assert_eq!(of_silence(Some("active"), &words).level, Level::Maintenance);
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
