//! The options of the charm that are not settings of the program, one row each.
//! Options that are settings stand with these, in `setting`.

/// An option that only the charm reads: it is not a setting of the program.
#[derive(Clone, Copy, Debug)]
pub struct OwnOption {
    /// The option's name.
    pub name: &'static str,
    /// Juju's type: `string`, or `secret` for the address of a secret.
    pub juju_type: &'static str,
    /// The default; `None` for a secret, which has none.
    pub default: Option<&'static str>,
    /// What it is, in whole sentences.
    pub doc: &'static str,
}

/// The options that only the charm reads.
pub const OWN_OPTIONS: &[OwnOption] = &[
    OwnOption {
        name: "bucket",
        juju_type: "string",
        default: Some("spark"),
        doc: "The bucket to ask the S3 integrator for; the bucket that it answers with is used. \
              It is asked for when S3 is related, so after a change remove the s3-credentials \
              relation and add it again. A table never moves to another bucket.",
    },
    OwnOption {
        name: "metastore-database",
        juju_type: "string",
        default: Some("hivemetastore"),
        doc: "The PostgreSQL database of the Hive metastore: the one that Kyuubi uses. It is \
              asked for when PostgreSQL is related, so after a change remove the metastore-db \
              relation and add it again.",
    },
    OwnOption {
        name: "metastore-roles",
        juju_type: "string",
        default: Some(""),
        doc: "The roles to ask PostgreSQL for, with commas between. Empty is right for \
              PostgreSQL 16. On PostgreSQL 14 set pg_read_all_data,pg_write_all_data before \
              metastore-db is related, or the tables that Kyuubi makes stay closed to windrow.",
    },
    OwnOption {
        name: "kafka-ca",
        juju_type: "string",
        default: Some(""),
        doc: "CA certificates in PEM that Kafka's certificate is signed by, in addition to \
              those of the relations and Mozilla's: juju config windrow-k8s kafka-ca=@ca.pem",
    },
    OwnOption {
        name: "s3-ca",
        juju_type: "string",
        default: Some(""),
        doc: "CA certificates in PEM that the certificate of the S3 endpoint is signed by, in \
              addition to those of the relations and Mozilla's: juju config windrow-k8s \
              s3-ca=@ca.pem",
    },
    OwnOption {
        name: "metastore-ca",
        juju_type: "string",
        default: Some(""),
        doc: "CA certificates in PEM that PostgreSQL's certificate is signed by, in addition to \
              those of the relations and Mozilla's: juju config windrow-k8s metastore-ca=@ca.pem",
    },
    OwnOption {
        name: "api-token",
        juju_type: "secret",
        default: None,
        doc: "A secret with the key \"token\", which HTTP requests must bring as \
              \"Authorization: Bearer TOKEN\", also those from the unit itself; without it they \
              get only /healthz, /readyz and /metrics. Make it with: juju add-secret \
              windrow-token token=TOKEN; juju grant-secret windrow-token windrow-k8s; juju \
              config windrow-k8s api-token=SECRET-URI",
    },
];
