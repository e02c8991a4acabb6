//! Every cause in one table: what is wrong, what to change, who can change it, and whether it wakes
//! the charm again. `notice`, the charm's statuses and `docs/causes.md` are made from these rows.

use crate::values::cause::Cause;

/// What is known about a cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CauseRow {
    /// The cause.
    pub cause: Cause,
    /// What is wrong, as a sentence.
    pub wrong: &'static str,
    /// What must change, in a few words.
    pub change: &'static str,
    /// Who can change it.
    pub acts: Acts,
    /// Whether it is told again while nothing changes.
    pub again: Again,
}

/// Who ends a trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acts {
    /// Only a person. In Juju the unit is Blocked.
    Person,
    /// Another program, in its usual course: a producer, Kafka's charm. In Juju the unit is
    /// Waiting.
    Provider,
    /// Windrow, or another windrow in its place.
    Itself,
}

impl Acts {
    fn name(self) -> &'static str {
        match self {
            Acts::Person => "you",
            Acts::Provider => "others",
            Acts::Itself => "windrow",
        }
    }
}

/// Whether a cause that stays as it is wakes the charm again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// No: the charm can do nothing about it, and is told when it is over.
    Never,
    /// Yes, because only the charm can fetch what ends it. The first time after `first_ms`, then
    /// after twice as long each time, and at last every `most_ms`.
    BackOff {
        /// The first pause.
        first_ms: u64,
        /// The longest pause.
        most_ms: u64,
    },
}

/// A refused login is told again, because the charm reads the credentials anew each time.
pub const LOGIN_AGAIN: Again = Again::BackOff {
    first_ms: 20_000,
    most_ms: 300_000,
};

/// The row of a cause.
#[must_use]
#[expect(
    clippy::too_many_lines,
    reason = "it is a table with one row for each cause"
)]
pub fn row(cause: Cause) -> CauseRow {
    use Acts::{Itself, Person, Provider};
    let (acts, wrong, change) = match cause {
        Cause::LoginKafka => (
            Provider,
            "Kafka refuses the user or the password.",
            "the secrets file",
        ),
        Cause::LoginS3 => (Provider, "S3 refuses the keys.", "the secrets file"),
        Cause::LoginCatalog => (
            Provider,
            "PostgreSQL refuses the user or the password.",
            "the secrets file",
        ),
        Cause::NoRights => (
            Person,
            "The catalog's user has no rights on Hive's tables.",
            "its rights, in PostgreSQL",
        ),
        Cause::NoCreate => (
            Person,
            "The catalog's user may make no schema or table.",
            "grant CREATE on database and schema public",
        ),
        Cause::NoSchema => (
            Provider,
            "Hive's schema is not in the catalog's database.",
            "`windrow init-metastore`, or use Kyuubi",
        ),
        Cause::NoTopic => (Provider, "The topic is not there.", "create the topic"),
        Cause::OtherBucket => (
            Person,
            "The table lies in another bucket than is set.",
            "the settings; a table never moves",
        ),
        Cause::KafkaRights => (
            Person,
            "Kafka knows the user, who lacks rights.",
            "grant READ and DESCRIBE on topic and group",
        ),
        Cause::S3Rights => (
            Person,
            "S3 knows the keys, which lack rights on the bucket.",
            "the policy of the keys",
        ),
        Cause::NoBucket => (
            Person,
            "The bucket is not there.",
            "create it, or the setting that names it",
        ),
        Cause::S3Region => (
            Person,
            "The bucket lies in another region than is set.",
            "`s3.region`",
        ),
        Cause::S3Proxy => (
            Person,
            "The proxy on the way to S3 refuses.",
            "`s3-proxy`, `s3.no-proxy`, or its rules",
        ),
        Cause::KafkaMechanism => (
            Person,
            "Kafka takes another kind of login.",
            "`kafka.mechanism` or `kafka.security`",
        ),
        Cause::CatalogRules => (
            Person,
            "PostgreSQL's rules keep the user out.",
            "what `reason` names, in PostgreSQL",
        ),
        Cause::TlsKafka => (
            Person,
            "Kafka is not trusted, or it wants TLS.",
            "`kafka.ca-file`; or `kafka.security`",
        ),
        Cause::TlsS3 => (
            Person,
            "S3 is not trusted, or it wants TLS.",
            "`s3.ca-file`; or https:// in `s3.endpoint`",
        ),
        Cause::TlsCatalog => (
            Person,
            "PostgreSQL is not trusted, or it wants TLS.",
            "`catalog-ca-file`, or `catalog-tls`",
        ),
        Cause::NoTlsKafka => (
            Person,
            "Kafka has no TLS that windrow speaks.",
            "switch it on there, or off in `kafka.security`",
        ),
        Cause::NoTlsS3 => (
            Person,
            "S3 has no TLS that windrow speaks.",
            "switch it on there, or http:// in `s3.endpoint`",
        ),
        Cause::NoTlsCatalog => (
            Person,
            "PostgreSQL has no TLS that windrow speaks.",
            "switch it on there, or off in `catalog-tls`",
        ),
        Cause::CertificateKafka => (Person, "Kafka's certificate is not valid.", CERTIFICATE),
        Cause::CertificateS3 => (Person, "S3's certificate is not valid.", CERTIFICATE),
        Cause::CertificateCatalog => (
            Person,
            "PostgreSQL's certificate is not valid.",
            CERTIFICATE,
        ),
        Cause::Clocks => (
            Person,
            "The machine's clock differs from the database's or S3's.",
            "the wrong clock",
        ),
        Cause::OpenTransaction => (
            Provider,
            "A producer's open transaction hides what follows.",
            "`kafka-transactions.sh abort`",
        ),
        Cause::Stalled => (
            Provider,
            "No window has closed for `stalled-after`.",
            WHAT_REASON_NAMES,
        ),
        Cause::Memory => (
            Person,
            "Memory is full, so reading waits.",
            WHAT_REASON_NAMES,
        ),
        Cause::DataLoss => (
            Person,
            "Records are gone, and `on-data-loss` is `stop`.",
            "`on-data-loss: continue`",
        ),
        Cause::BadRecord => (
            Person,
            "A bad record came, and `on-bad-record` is `fail`.",
            "`on-bad-record: reject` for a new table",
        ),
        Cause::TableDropped => (
            Person,
            "Hive's rows of the table are not as windrow wrote them.",
            "`windrow restore`",
        ),
        Cause::OtherSettings => (
            Person,
            "The table was made with other settings.",
            "set them back, or another table name",
        ),
        Cause::OtherVersion => (
            Person,
            "A windrow with other rules made the table.",
            "run that windrow, or another table name",
        ),
        Cause::OtherCheckpoint => (
            Person,
            "Another windrow wrote the checkpoint.",
            "run that windrow, or `on-data-loss: continue`",
        ),
        Cause::Following => (
            Itself,
            "The catalog lost epochs, which the store gives back.",
            "nothing",
        ),
        Cause::Held => (
            Itself,
            "Another process has the table; `owner` is its `instance`.",
            "nothing, if that process is meant to",
        ),
        Cause::Starting => (Itself, "It is on its way.", "nothing"),
    };
    let again = if cause.is_login() {
        LOGIN_AGAIN
    } else {
        Again::Never
    };
    CauseRow {
        cause,
        wrong,
        change,
        acts,
        again,
    }
}

const CERTIFICATE: &str = "it: expired, or another host's";
const WHAT_REASON_NAMES: &str = "what `reason` names";

/// The table of `docs/causes.md`.
#[must_use]
pub fn document() -> String {
    let mut text =
        "| `cause` | what is wrong | what to change | who can |\n|---|---|---|---|\n".to_owned();
    for row in Cause::ALL.map(row) {
        let (cause, acts) = (row.cause, row.acts.name());
        text += &format!("| `{cause}` | {} | {} | {acts} |\n", row.wrong, row.change);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn only_what_new_credentials_can_end_wakes_the_charm_again() {
        for row in Cause::ALL.map(row) {
            let wakes = row.again != Again::Never;
            assert_eq!(wakes, row.cause.is_login(), "{}", row.cause);
            assert!(!wakes || row.acts == Acts::Provider, "{}", row.cause);
            assert!(row.wrong.ends_with('.') && !row.change.ends_with('.'));
        }
    }

    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "WINDROW_WRITE is for the person at the keyboard"
    )]
    fn documents_say_what_the_causes_say() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/causes.md");
        let there = std::fs::read_to_string(&path).unwrap();
        let (before, rest) = there.split_once("| `cause` |").expect("the table");
        let (_, after) = rest.split_once("\n\n").expect("its end");
        let right = format!("{before}{}\n{after}", document());
        if std::env::var("WINDROW_WRITE").is_ok_and(|w| w == "1") {
            std::fs::write(&path, right).unwrap();
            return;
        }
        assert!(
            there == right,
            "docs/causes.md differs; run: WINDROW_WRITE=1 cargo test -p windrow-core documents"
        );
    }
}
