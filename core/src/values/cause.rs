//! What kind of trouble keeps windrow from counting: a word of a closed set for programs, beside a
//! sentence for people. The word is chosen where the other side's own error code is known
//! (SQLSTATE, librdkafka's, S3's); nothing here reads sentences.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Deref;

/// Who or what must change before windrow counts. In JSON it is a word in kebab-case, for example
/// `login-kafka`, and empty for [`Cause::None`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// Kafka refuses user or password.
    LoginKafka,
    /// S3 refuses the keys, or the keys may not do what is needed.
    LoginS3,
    /// PostgreSQL refuses user or password.
    LoginCatalog,
    /// No rights on Hive's tables, or on windrow's own.
    NoRights,
    /// No right to make windrow's own schema in the catalog's database.
    NoCreate,
    /// Hive's schema is not in the catalog's database.
    NoSchema,
    /// The topic is not there, or the user has no rights on it.
    NoTopic,
    /// The table lies in another bucket than the settings name.
    OtherBucket,
    /// Another process has the table.
    Held,
    /// Windrow is starting, and nothing hinders it.
    Starting,
    /// None of these, or one that only a newer windrow knows.
    #[default]
    #[serde(rename = "", other)]
    None,
}

impl Cause {
    /// All of them, in the order in which they stand above.
    pub const ALL: [Cause; 11] = [
        Cause::LoginKafka,
        Cause::LoginS3,
        Cause::LoginCatalog,
        Cause::NoRights,
        Cause::NoCreate,
        Cause::NoSchema,
        Cause::NoTopic,
        Cause::OtherBucket,
        Cause::Held,
        Cause::Starting,
        Cause::None,
    ];

    /// The word that JSON has.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Cause::LoginKafka => "login-kafka",
            Cause::LoginS3 => "login-s3",
            Cause::LoginCatalog => "login-catalog",
            Cause::NoRights => "no-rights",
            Cause::NoCreate => "no-create",
            Cause::NoSchema => "no-schema",
            Cause::NoTopic => "no-topic",
            Cause::OtherBucket => "other-bucket",
            Cause::Held => "held",
            Cause::Starting => "starting",
            Cause::None => "",
        }
    }

    /// The cause with this name; [`Cause::None`] for a name that this windrow does not know.
    #[must_use]
    pub fn of(name: &str) -> Self {
        Self::ALL
            .into_iter()
            .find(|cause| cause.name() == name)
            .unwrap_or_default()
    }

    /// Whether new credentials would help.
    #[must_use]
    pub fn is_login(self) -> bool {
        matches!(
            self,
            Cause::LoginKafka | Cause::LoginS3 | Cause::LoginCatalog
        )
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why something is not done. It prints as its sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What kind of trouble it is.
    pub cause: Cause,
    /// A sentence for people, with the next step.
    pub text: String,
}

impl Trouble {
    /// A trouble of which the cause is known; where it is not, a text alone becomes one.
    #[must_use]
    pub fn new(cause: Cause, text: impl Into<String>) -> Self {
        Self {
            cause,
            text: text.into(),
        }
    }

    /// The last line of a process that ends with it, for example
    /// `windrow: table a.b lies elsewhere; set it back (cause: other-bucket)`.
    #[must_use]
    pub fn last_line(&self) -> String {
        match self.cause {
            Cause::None => format!("{LAST_LINE}{}", self.text),
            cause => format!("{LAST_LINE}{} (cause: {cause})", self.text),
        }
    }

    /// The trouble of which [`Trouble::last_line`] made this line; `None` for a line that it did
    /// not make.
    #[must_use]
    pub fn of_last_line(line: &str) -> Option<Self> {
        let text = line.trim_end().strip_prefix(LAST_LINE)?;
        let cause = |rest: &str| rest.strip_suffix(')').map_or(Cause::None, Cause::of);
        match text.rsplit_once(" (cause: ") {
            Some((text, rest)) if cause(rest) != Cause::None => Some(Self::new(cause(rest), text)),
            _ => Some(Self::from(text)),
        }
    }
}

/// How the last line of a process begins.
const LAST_LINE: &str = "windrow: ";

impl From<String> for Trouble {
    fn from(text: String) -> Self {
        Self::new(Cause::None, text)
    }
}

impl From<&str> for Trouble {
    fn from(text: &str) -> Self {
        Self::new(Cause::None, text)
    }
}

impl Deref for Trouble {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Trouble {}

/// An error and all that caused it, in one line: `cannot connect: TLS: certificate has expired`.
#[must_use]
pub fn error_chain(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(error.source(), |error| error.source())
        .fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// The text of the innermost cause alone. It is for errors whose outer layers only say that
/// something inside of them has failed, as those of HTTP clients do.
#[must_use]
pub fn innermost_cause(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(error.source(), |error| error.source())
        .last()
        .map_or_else(|| error.to_string(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_json_and_come_back() {
        for cause in Cause::ALL {
            assert_eq!(serde_json::to_value(cause).unwrap(), cause.name());
            assert_eq!(
                serde_json::from_value::<Cause>(cause.name().into()).unwrap(),
                cause
            );
            assert_eq!(Cause::of(cause.name()), cause);
        }
        assert_eq!(
            serde_json::from_str::<Cause>("\"of-a-newer-windrow\"").unwrap(),
            Cause::None
        );
        assert_eq!(Cause::of("of-a-newer-windrow"), Cause::None);
    }

    #[test]
    fn the_last_line_of_a_process_says_the_cause() {
        for (trouble, line) in [
            (
                Trouble::new(
                    Cause::OtherBucket,
                    "table a.b lies elsewhere (far); set it back",
                ),
                "windrow: table a.b lies elsewhere (far); set it back (cause: other-bucket)",
            ),
            (
                Trouble::from("no more (cause: unknown)"),
                "windrow: no more (cause: unknown)",
            ),
        ] {
            assert_eq!(trouble.last_line(), line);
            assert_eq!(Trouble::of_last_line(&format!("{line}\n")), Some(trouble));
        }
        assert_eq!(
            Trouble::of_last_line("2024-09-01T19:42:15Z  INFO windrow: counting"),
            None
        );
    }
}
