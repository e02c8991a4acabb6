//! What kind of trouble keeps windrow from counting: a word of a closed set for programs, beside a
//! sentence for people. The word is chosen where the other side's own error code is known
//! (SQLSTATE, librdkafka's, S3's); nothing here reads sentences.

use std::fmt;

/// Who or what must change before windrow counts. A trouble that is none of these has no cause, so
/// values and fields are `Option<Cause>`; in JSON they are written by [`optional`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Kafka refuses user or password.
    LoginKafka,
    /// S3 refuses the keys.
    LoginS3,
    /// PostgreSQL refuses user or password.
    LoginCatalog,
    /// No rights on Hive's tables, or on windrow's own.
    NoRights,
    /// No right to make windrow's own schema in the catalog's database, or Hive's tables in its
    /// schema `public`.
    NoCreate,
    /// Hive's schema is not in the catalog's database.
    NoSchema,
    /// The topic is not there, or the user has no rights on it.
    NoTopic,
    /// The table lies in another bucket than the settings name.
    OtherBucket,
    /// Kafka knows the user, who lacks rights on the topic or the group.
    KafkaRights,
    /// S3 knows the keys, which lack rights on the bucket.
    S3Rights,
    /// The bucket is not there.
    NoBucket,
    /// The bucket lies in another region than requests are signed for.
    S3Region,
    /// The proxy on the way to S3 refuses: it wants a login, or forbids the store.
    S3Proxy,
    /// Kafka takes another mechanism for the login, or none at this port.
    KafkaMechanism,
    /// PostgreSQL knows the user, whom its rules keep out: pg_hba.conf, CONNECT, datallowconn.
    CatalogRules,
    /// No TLS with Kafka: its certificate is not trusted, or Kafka alone wants TLS.
    TlsKafka,
    /// No TLS with S3: its certificate is not trusted, or S3 alone wants TLS.
    TlsS3,
    /// No TLS with PostgreSQL: its certificate is not trusted, or PostgreSQL alone wants TLS.
    TlsCatalog,
    /// Kafka has no TLS at this port, or none that windrow speaks. No CA could mend that.
    NoTlsKafka,
    /// S3 has no TLS at this port, or none that windrow speaks. No CA could mend that.
    NoTlsS3,
    /// PostgreSQL has no TLS, or none that windrow speaks. No CA could mend that.
    NoTlsCatalog,
    /// The certificate of Kafka is expired, or another host's. No CA could mend that.
    CertificateKafka,
    /// The certificate of S3 is expired, or another host's. No CA could mend that.
    CertificateS3,
    /// The certificate of PostgreSQL is expired, or another host's. No CA could mend that.
    CertificateCatalog,
    /// The machine's clock differs from the database's, so nothing is read or committed; or from
    /// the store's, which then refuses all requests.
    Clocks,
    /// A transaction of a producer is open, so that nothing behind it can be read.
    OpenTransaction,
    /// No window has closed for `stalled-after`, although records are being read.
    Stalled,
    /// Memory is full, so reading waits.
    Memory,
    /// Records are gone from the log, and `on-data-loss` is `stop`.
    DataLoss,
    /// A record cannot be counted, and `on-bad-record` is `fail`.
    BadRecord,
    /// Hive's rows of the table are not as windrow wrote them.
    TableDropped,
    /// The table was made with other settings than these.
    OtherSettings,
    /// The table was made by a windrow whose rules give other rows for the same log.
    OtherVersion,
    /// The table's checkpoint has a format that this windrow does not read.
    OtherCheckpoint,
    /// Epochs that the catalog has lost are committed again from the store.
    Following,
    /// Another process has the table.
    Held,
    /// Windrow is starting, and nothing hinders it.
    Starting,
}

impl Cause {
    /// All of them, in the order in which they stand above.
    pub const ALL: [Cause; 37] = [
        Cause::LoginKafka,
        Cause::LoginS3,
        Cause::LoginCatalog,
        Cause::NoRights,
        Cause::NoCreate,
        Cause::NoSchema,
        Cause::NoTopic,
        Cause::OtherBucket,
        Cause::KafkaRights,
        Cause::S3Rights,
        Cause::NoBucket,
        Cause::S3Region,
        Cause::S3Proxy,
        Cause::KafkaMechanism,
        Cause::CatalogRules,
        Cause::TlsKafka,
        Cause::TlsS3,
        Cause::TlsCatalog,
        Cause::NoTlsKafka,
        Cause::NoTlsS3,
        Cause::NoTlsCatalog,
        Cause::CertificateKafka,
        Cause::CertificateS3,
        Cause::CertificateCatalog,
        Cause::Clocks,
        Cause::OpenTransaction,
        Cause::Stalled,
        Cause::Memory,
        Cause::DataLoss,
        Cause::BadRecord,
        Cause::TableDropped,
        Cause::OtherSettings,
        Cause::OtherVersion,
        Cause::OtherCheckpoint,
        Cause::Following,
        Cause::Held,
        Cause::Starting,
    ];

    /// The word that programs read, for example `login-kafka`. It is the same in JSON, in the log
    /// and in the last line of a process.
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
            Cause::KafkaRights => "kafka-rights",
            Cause::S3Rights => "s3-rights",
            Cause::NoBucket => "no-bucket",
            Cause::S3Region => "s3-region",
            Cause::S3Proxy => "s3-proxy",
            Cause::KafkaMechanism => "kafka-mechanism",
            Cause::CatalogRules => "catalog-rules",
            Cause::TlsKafka => "tls-kafka",
            Cause::TlsS3 => "tls-s3",
            Cause::TlsCatalog => "tls-catalog",
            Cause::NoTlsKafka => "no-tls-kafka",
            Cause::NoTlsS3 => "no-tls-s3",
            Cause::NoTlsCatalog => "no-tls-catalog",
            Cause::CertificateKafka => "certificate-kafka",
            Cause::CertificateS3 => "certificate-s3",
            Cause::CertificateCatalog => "certificate-catalog",
            Cause::Clocks => "clocks",
            Cause::OpenTransaction => "open-transaction",
            Cause::Stalled => "stalled",
            Cause::Memory => "memory",
            Cause::DataLoss => "data-loss",
            Cause::BadRecord => "bad-record",
            Cause::TableDropped => "table-dropped",
            Cause::OtherSettings => "other-settings",
            Cause::OtherVersion => "other-version",
            Cause::OtherCheckpoint => "other-checkpoint",
            Cause::Following => "following",
            Cause::Held => "held",
            Cause::Starting => "starting",
        }
    }

    /// The cause with this name; `None` for the empty text, and for a name that only a newer
    /// windrow knows.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.name() == name)
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

/// The word of a cause where a word must stand: empty if there is no cause.
#[must_use]
pub fn name_or_empty(cause: Option<Cause>) -> &'static str {
    cause.map_or("", Cause::name)
}

/// How `Option<Cause>` is written by serde, with `#[serde(with = "optional")]`: the cause's name,
/// or the empty text for `None`. A name that only a newer windrow knows is read as `None`.
pub mod optional {
    use super::{Cause, name_or_empty};
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes the name, or the empty text.
    ///
    /// # Errors
    /// Those of the serializer.
    #[allow(
        clippy::trivially_copy_pass_by_ref,
        reason = "serde passes each field by reference"
    )]
    pub fn serialize<S: Serializer>(cause: &Option<Cause>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(name_or_empty(*cause))
    }

    /// Reads what [`serialize`] writes.
    ///
    /// # Errors
    /// The value is not a text.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Cause>, D::Error> {
        String::deserialize(from).map(|name| Cause::parse(&name))
    }
}

/// Why something is not done. It prints as its sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What kind of trouble it is; `None` for one that is not in the closed set.
    pub cause: Option<Cause>,
    /// A sentence for people, with the next step.
    pub text: String,
}

impl Trouble {
    /// A trouble of which the cause is known; where it is not, a text alone becomes one.
    #[must_use]
    pub fn new(cause: Cause, text: impl Into<String>) -> Self {
        Self {
            cause: Some(cause),
            text: text.into(),
        }
    }

    /// The last line of a process that ends with it, for example
    /// `windrow: table a.b lies elsewhere; set it back (cause: other-bucket)`.
    #[must_use]
    pub fn last_line(&self) -> String {
        match self.cause {
            None => format!("{LAST_LINE}{}", self.text),
            Some(cause) => format!("{LAST_LINE}{} (cause: {cause})", self.text),
        }
    }

    /// The trouble of which [`Trouble::last_line`] made this line; `None` for a line that it did
    /// not make.
    #[must_use]
    pub fn of_last_line(line: &str) -> Option<Self> {
        let text = line.trim_end().strip_prefix(LAST_LINE)?;
        let with_cause = text.rsplit_once(" (cause: ").and_then(|(text, rest)| {
            let cause = Cause::parse(rest.strip_suffix(')')?)?;
            Some(Self::new(cause, text))
        });
        Some(with_cause.unwrap_or_else(|| Self::from(text)))
    }
}

/// How the last line of a process begins.
const LAST_LINE: &str = "windrow: ";

impl From<String> for Trouble {
    fn from(text: String) -> Self {
        Self { cause: None, text }
    }
}

impl From<&str> for Trouble {
    fn from(text: &str) -> Self {
        Self::from(text.to_owned())
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
        let write = |cause| optional::serialize(&cause, serde_json::value::Serializer).unwrap();
        let read = |json: serde_json::Value| optional::deserialize(json);
        for cause in Cause::ALL {
            assert_eq!(write(Some(cause)), cause.name());
            assert_eq!(read(cause.name().into()).unwrap(), Some(cause));
            assert_eq!(Cause::parse(cause.name()), Some(cause));
        }
        assert_eq!(write(None), "");
        for none in ["", "of-a-newer-windrow"] {
            assert_eq!(read(none.into()).unwrap(), None);
            assert_eq!(Cause::parse(none), None);
        }
        assert!(read(serde_json::Value::Null).is_err(), "it never was null");
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
