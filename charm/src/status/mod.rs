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

/// Longer texts are shortened: `juju status` shows each in one line.
const TEXT_MAX_CHARS: usize = 240;

/// The most of a long text that is kept of its end.
const END_MAX_CHARS: usize = 100;

/// Where less than this would be shown of the innermost reason, what is before it is cut instead.
const SHOWN_MIN_CHARS: usize = 40;

impl Status {
    /// A status whose text is made one line, and is shortened to 240 characters.
    #[must_use]
    pub fn new(level: Level, text: impl AsRef<str>) -> Self {
        let line = text
            .as_ref()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        let text = shorten(&line, TEXT_MAX_CHARS, END_MAX_CHARS);
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

    /// This status and another one, both of which must be seen. Neither is shortened for the other.
    #[must_use]
    pub fn and_also(&self, other: &Status) -> Self {
        Self {
            level: self.level.min(other.level),
            text: format!("{}; also: {}", self.text, other.text),
        }
    }
}

/// A text of at most `max` characters and some dots, which stand for what is left out. The end of a
/// text says most: the step to take, or the innermost of several reasons. So `a: b: c` becomes
/// `a...: c`, where `: c` has at most `end_max` characters. A longer end loses its own last
/// characters, and so does a text without such an end.
fn shorten(text: &str, max: usize, end_max: usize) -> String {
    let count = text.chars().count();
    if count <= max {
        return text.to_owned();
    }
    let first = |text: &str, count: usize| text.chars().take(count).collect::<String>();
    let ends = ["; run: ", ": "].map(|begin| text.rfind(begin).map(|at| &text[at..]));
    let fits = |end: &&str| end.chars().count() <= end_max;
    if let Some(end) = ends.into_iter().flatten().find(fits) {
        let begin = first(text, max - end.chars().count());
        return format!("{}...{end}", begin.trim_end());
    }
    match ends[1] {
        Some(end) if count - end.chars().count() + SHOWN_MIN_CHARS > max => format!(
            "{}...{}...",
            first(text, max - end_max).trim_end(),
            first(end, end_max).trim_end()
        ),
        _ => format!("{}...", first(text, max).trim_end()),
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
    let unread = "option api-token: the secret cannot be read: ";
    match fault {
        TokenFault::Denied(why) => {
            Status::blocked(format!("{unread}{why}; run: juju grant-secret NAME {app}"))
        }
        TokenFault::Missing(why) => Status::blocked(format!(
            "{unread}{why}; run: juju config {app} api-token=SECRET-URI"
        )),
        TokenFault::Unread(why) => {
            Status::waiting(format!("{unread}{why}; it is read again at the next hook"))
        }
        TokenFault::Unusable(why) => Status::blocked(format!(
            "option api-token: the secret cannot be used and is left out: {why}; \
             run: juju update-secret NAME token=TOKEN"
        )),
    }
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

/// An endpoint that is not needed cannot be read. What was read from it earlier stays. `remote` is
/// the application on its side.
#[must_use]
pub fn describe_unread(endpoint: &str, remote: &str, why: &str) -> Status {
    Status::waiting(format!(
        "{endpoint}: what {remote} gives cannot be read and stays as it was: {why}; it is read \
         again at the next hook"
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
    fn a_long_text_keeps_its_step_or_its_innermost_reason() {
        let long = "x".repeat(300);
        for end in [
            "; run: juju config windrow a: b",
            ": no space left on device",
        ] {
            let text = Status::blocked(format!("cannot do it: {long}{end}")).text;
            assert!(text.starts_with("cannot do it: xx"), "{text}");
            assert!(text.ends_with(&format!("xx...{end}")), "{text}");
            assert_eq!(text.chars().count(), TEXT_MAX_CHARS + 3);
        }
    }

    #[test]
    fn only_a_person_can_grant_or_name_a_secret() {
        let of = |words: &str| describe_token(&TokenFault::of_refusal(words.to_owned()), "windrow");
        for (words, level, step) in [
            (
                "permission denied",
                Level::Blocked,
                "; run: juju grant-secret NAME windrow",
            ),
            (
                "secret \"c1\" not found",
                Level::Blocked,
                "; run: juju config windrow api-token=SECRET-URI",
            ),
            (
                "secret revision 2 not found",
                Level::Blocked,
                "; run: juju config windrow api-token=SECRET-URI",
            ),
            (
                "secret URI \"token\" not valid",
                Level::Blocked,
                "; run: juju config windrow api-token=SECRET-URI",
            ),
            (
                "getting secret backend config: model \"x\" not found",
                Level::Waiting,
                "; it is read again at the next hook",
            ),
            (
                "cannot talk to the controller",
                Level::Waiting,
                "; it is read again at the next hook",
            ),
        ] {
            let status = of(words);
            assert_eq!(status.level, level, "{words}");
            let text = format!("option api-token: the secret cannot be read: {words}{step}");
            assert_eq!(status.text, text);
        }
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
