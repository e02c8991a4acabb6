//! `s3-credentials`, interface s3: what s3-integrator gives (tracks 1 and 2), and what it is asked
//! for.
//!
//! The field `path` is not read: it says where Spark's event logs lie, and nothing about tables.

use super::{Endpoint, Fault, certificates, field, plain};
use crate::facts::{Bag, Relation, S3 as ENDPOINT};
use crate::secrets::usable_secret;
use windrow_core::settings::certificates::Certificates;
use windrow_core::settings::config::Secret;

/// What s3-integrator gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3 {
    /// The bucket that the table is kept in.
    pub bucket: String,
    /// A URL; empty means AWS.
    pub endpoint: String,
    /// Empty where it is not given.
    pub region: String,
    /// Whether the bucket is part of the path (`http://host/bucket/key`) and not of the host's
    /// name.
    pub path_style: bool,
    /// The certificates that the endpoint's is signed by.
    pub ca: Certificates,
    /// The access key.
    pub access_key: Secret,
    /// The secret key.
    pub secret_key: Secret,
}

impl S3 {
    /// Whether it is asked by https. Without an endpoint it is AWS, which is.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.endpoint.is_empty() || self.endpoint.starts_with("https://")
    }
}

/// What we ask for. Track 1 reads the bucket alone. Track 2 puts the keys into a secret when it is
/// asked to.
#[must_use]
pub fn request(bucket: &str) -> Bag {
    Bag::from([
        ("bucket".to_owned(), bucket.to_owned()),
        ("lib-version".to_owned(), "1.0".to_owned()),
        (
            "requested-secrets".to_owned(),
            r#"["access-key","secret-key"]"#.to_owned(),
        ),
    ])
}

/// What the relation gives. `asked` is the bucket that was asked for; the one in the answer counts.
#[must_use]
pub fn read(relation: Option<&Relation>, asked: &str) -> Endpoint<S3> {
    let Some(relation) = relation else {
        return Endpoint::Absent;
    };
    Endpoint::from_result(parse(relation, asked), ENDPOINT, &relation.app)
}

fn parse(relation: &Relation, asked: &str) -> Result<S3, Fault> {
    let text = |name| Ok::<_, Fault>(plain(relation, "secret-extra", name)?.unwrap_or_default());
    let (access_key, secret_key) = (
        field(relation, "secret-extra", "access-key")?,
        field(relation, "secret-extra", "secret-key")?,
    );
    let (Some(access_key), Some(secret_key)) = (access_key, secret_key) else {
        // Track 1 gives the endpoint and the bucket before its action has been run.
        return Err(Fault::Later(format!(
            "{0} has no keys yet; run: juju run {0}/leader sync-s3-credentials, \
             or set its option credentials",
            relation.app
        )));
    };
    // Windrow refuses it too, but only when it starts: it would run on, and not start again.
    usable_secret("s3-access-key", &access_key)
        .map_err(|why| Fault::Wrong(format!("gives an access-key that cannot be used: {why}")))?;
    let endpoint = text("endpoint")?;
    let is_url = endpoint.starts_with("http://") || endpoint.starts_with("https://");
    if !endpoint.is_empty() && (!is_url || endpoint.contains([' ', '@'])) {
        return Err(Fault::Wrong(
            "gives an endpoint that is not http://HOST:PORT or https://HOST:PORT".to_owned(),
        ));
    }
    let bucket = Some(text("bucket")?)
        .filter(|bucket| !bucket.is_empty())
        .unwrap_or_else(|| asked.to_owned());
    Ok(S3 {
        bucket,
        endpoint,
        region: text("region")?,
        path_style: !matches!(text("s3-uri-style")?.as_str(), "host" | "virtual"),
        ca: parse_chain(field(relation, "secret-extra", "tls-ca-chain")?),
        access_key,
        secret_key,
    })
}

/// The certificates in a JSON list of PEM texts, or in one PEM text.
fn parse_chain(value: Option<Secret>) -> Certificates {
    let list = value
        .as_ref()
        .and_then(|value| serde_json::from_str::<Vec<String>>(value.expose()).ok());
    certificates(
        list.map(|list| Secret::new(list.join("\n")))
            .or(value)
            .as_ref(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::tests::relation;

    const V1: [(&str, &str); 6] = [
        ("access-key", "AK"),
        ("secret-key", "SK"),
        ("bucket", "spark"),
        ("endpoint", "http://10.152.183.128:80"),
        ("path", "spark-events"),
        ("region", ""),
    ];

    fn read_of(pairs: &[(&str, &str)]) -> Endpoint<S3> {
        read(Some(&relation(ENDPOINT, pairs)), "asked")
    }

    #[test]
    fn both_tracks_are_read() {
        let Endpoint::Ready(one) = read_of(&V1) else {
            panic!("not ready")
        };
        let mut two = V1.to_vec();
        (two[0].0, two[1].0) = ("secret-extra/access-key", "secret-extra/secret-key");
        assert_eq!(read_of(&two), Endpoint::Ready(one.clone()));
        assert!(one.path_style && one.bucket == "spark");
        two.push(("s3-uri-style", "host"));
        assert!(matches!(
            read_of(&two),
            Endpoint::Ready(S3 {
                path_style: false,
                ..
            })
        ));
    }

    #[test]
    fn a_key_with_a_line_end_is_a_key() {
        let plain = read_of(&V1);
        for end in ["\n", "\r\n"] {
            let (access, secret) = (format!("AK{end}"), format!("SK{end}"));
            let mut pairs = V1.to_vec();
            (pairs[0], pairs[1]) = (
                ("secret-extra/access-key", access.as_str()),
                ("secret-extra/secret-key", secret.as_str()),
            );
            assert_eq!(read_of(&pairs), plain);
        }
    }

    #[test]
    fn a_key_that_windrow_would_refuse_is_named_before_it_is_written() {
        let mut pairs = V1.to_vec();
        for bad in ["AK ", "A\u{e9}hunter2"] {
            pairs[0].1 = bad;
            let read = read_of(&pairs);
            assert!(
                matches!(&read, Endpoint::Invalid(why)
                    if why.contains("access-key") && why.contains("without blanks")
                        && !why.contains("hunter2")),
                "{read:?}"
            );
        }
    }

    #[test]
    fn keys_are_waited_for() {
        let Endpoint::Waiting(why) = read_of(&V1[2..]) else {
            panic!("ready without keys")
        };
        assert!(
            why.starts_with(
                "s3-credentials: provider has no keys yet; run: juju run provider/leader"
            ),
            "{why}"
        );
    }

    #[test]
    fn a_number_stays_a_text_and_what_is_not_a_url_is_refused() {
        let mut pairs = V1.to_vec();
        pairs[2].1 = "123";
        assert!(matches!(read_of(&pairs), Endpoint::Ready(S3 { bucket, .. }) if bucket == "123"));
        for endpoint in [
            "minio:9000",
            "file:///etc/passwd",
            "http://u:p@host",
            "http://a b",
        ] {
            pairs[3].1 = endpoint;
            let read = read_of(&pairs);
            assert!(
                matches!(&read, Endpoint::Invalid(why) if !why.contains("u:p")),
                "{read:?}"
            );
        }
        pairs[3].1 = "";
        assert!(
            matches!(read_of(&pairs), Endpoint::Ready(S3 { endpoint, .. }) if endpoint.is_empty())
        );
    }
}
