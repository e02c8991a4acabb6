//! `kafka-client`, interface kafka_client: what Kafka's charm gives, and what it is asked for.
//!
//! The charm speaks version 0 of the library `data_interfaces`, which all providers understand. It
//! never creates the topic.

use super::{Endpoint, Fault, certificates, field, is_yes, parse_addresses, plain};
use crate::facts::{Bag, KAFKA, Relation};
use windrow_core::settings::certificates::Certificates;
use windrow_core::settings::config::Secret;
use windrow_core::settings::parse::join_addresses;

/// What Kafka's charm gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kafka {
    /// `host:port`, or several with commas between them.
    pub bootstrap: String,
    /// The topic that was granted.
    pub topic: String,
    /// Whether the brokers want TLS.
    pub tls: bool,
    /// Empty where Kafka gives none. Versions before 4 write `enabled` or `disabled` there.
    pub ca: Certificates,
    /// The SASL user.
    pub username: Secret,
    /// The SASL password.
    pub password: Secret,
    /// The name of our consumer group must begin with this; it may be empty.
    pub group_prefix: String,
    /// A broker's host whose name resolves only in Kafka's own namespace; `None` when there is
    /// none.
    pub short_host: Option<String>,
}

/// What we ask for. The role `consumer` grants reading the topic, and the consumer groups whose
/// names begin with the prefix that Kafka gives.
#[must_use]
pub fn request(topic: &str) -> Bag {
    Bag::from([
        ("topic".to_owned(), topic.to_owned()),
        ("extra-user-roles".to_owned(), "consumer".to_owned()),
        (
            "requested-secrets".to_owned(),
            r#"["username","password","tls","tls-ca","uris"]"#.to_owned(),
        ),
    ])
}

/// What the relation gives. `asked` is the topic that was asked for; the answer may name another.
#[must_use]
pub fn read(relation: Option<&Relation>, asked: &str) -> Endpoint<Kafka> {
    let Some(relation) = relation else {
        return Endpoint::Absent;
    };
    Endpoint::from_result(parse(relation, asked), KAFKA, &relation.app)
}

fn parse(relation: &Relation, asked: &str) -> Result<Kafka, Fault> {
    let user = |name| field(relation, "secret-user", name);
    let tls = |name| plain(relation, "secret-tls", name);
    let (username, password) = (user("username")?, user("password")?);
    let endpoints = plain(relation, "secret-user", "endpoints")?;
    let (Some(username), Some(password), Some(endpoints)) = (username, password, endpoints) else {
        return Err(Fault::Later(format!(
            "{} has not given endpoints and a user yet",
            relation.app
        )));
    };
    let endpoints = parse_addresses(&endpoints)?;
    let ca = field(relation, "secret-tls", "tls-ca")?;
    Ok(Kafka {
        bootstrap: join_addresses(&endpoints),
        topic: plain(relation, "", "topic")?.unwrap_or_else(|| asked.to_owned()),
        tls: is_yes(tls("tls")?.as_deref()),
        ca: certificates(ca.as_ref()),
        username,
        password,
        group_prefix: plain(relation, "", "consumer-group-prefix")?.unwrap_or_default(),
        short_host: endpoints
            .into_iter()
            .map(|address| address.host)
            .find(|host| is_short(host)),
    })
}

/// Whether a name is a pod's name without its namespace, such as `kafka-k8s-0.kafka-k8s-endpoints`.
fn is_short(host: &str) -> bool {
    host.split_once('.')
        .is_some_and(|(_, rest)| !rest.contains('.') && rest.ends_with("-endpoints"))
}

/// The UUID of the model that the URI of the user's secret names. The URI of a secret of another
/// model has the form `secret://<uuid>/<id>`; that of our own model has no UUID.
#[must_use]
pub fn model_of_secret(relation: &Relation) -> Option<String> {
    let (model, _) = relation
        .data
        .get("secret-user")?
        .strip_prefix("secret://")?
        .split_once('/')?;
    let is_uuid = model.len() == 36 && model.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    is_uuid.then(|| model.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::tests::relation;

    const V3: [(&str, &str); 8] = [
        ("secret-user/username", "relation-4"),
        ("secret-user/password", "pw"),
        ("secret-tls/tls", "disabled"),
        ("secret-tls/tls-ca", "disabled"),
        (
            "endpoints",
            "kafka-k8s-0.kafka-k8s-endpoints:9092,kafka-k8s-1.kafka-k8s-endpoints:9092",
        ),
        ("topic", "test-topic"),
        ("consumer-group-prefix", "relation-4-"),
        ("data", "{}"),
    ];

    fn read_of(pairs: &[(&str, &str)]) -> Endpoint<Kafka> {
        read(Some(&relation(KAFKA, pairs)), "asked")
    }

    #[test]
    fn kafka_3_is_read() {
        let Endpoint::Ready(kafka) = read_of(&V3) else {
            panic!("not ready")
        };
        assert_eq!(kafka.topic, "test-topic");
        assert_eq!(
            (kafka.tls, kafka.ca.blocks.concat().as_str()),
            (false, ""),
            "\"disabled\" is no certificate"
        );
        assert_eq!(kafka.group_prefix, "relation-4-");
        assert_eq!(
            kafka.short_host.as_deref(),
            Some("kafka-k8s-0.kafka-k8s-endpoints")
        );
    }

    #[test]
    fn fields_without_secrets_are_read_as_well() {
        let pairs = [
            ("username", "u"),
            ("password", "p"),
            ("endpoints", "10.1.2.3:31000"),
            ("tls", "enabled"),
        ];
        let Endpoint::Ready(kafka) = read_of(&pairs) else {
            panic!("not ready")
        };
        assert!(kafka.tls && kafka.short_host.is_none() && kafka.topic == "asked");
    }

    #[test]
    fn partial_and_hostile_data_is_named() {
        assert_eq!(read(None, "t"), Endpoint::Absent);
        for (pairs, expect) in [
            (
                &[][..],
                "kafka-client: provider has not given endpoints and a user yet",
            ),
            (
                &V3[..4],
                "kafka-client: provider has not given endpoints and a user yet",
            ),
            (
                &[("username", ""), ("password", "p"), ("endpoints", "h:1")],
                "kafka-client: provider has not given",
            ),
        ] {
            match read_of(pairs) {
                Endpoint::Waiting(why) => assert!(why.starts_with(expect), "{why}"),
                other => panic!("{other:?}"),
            }
        }
        for endpoints in [
            "kafka",
            "k:0",
            "k:99999",
            "a b:1",
            "k:9092,\nx",
            ":1",
            "http://k:9092",
            ",",
        ] {
            let read = read_of(&[
                ("username", "u"),
                ("password", "p"),
                ("endpoints", endpoints),
            ]);
            assert!(
                matches!(&read, Endpoint::Invalid(why) if why.contains("endpoint")),
                "{endpoints}: {read:?}"
            );
        }
        let mut broken = relation(KAFKA, &V3);
        broken.secrets.insert(
            "secret-user".to_owned(),
            Err("permission denied".to_owned()),
        );
        let read = read(Some(&broken), "t");
        assert_eq!(
            read,
            Endpoint::Waiting(
                "kafka-client: the user's secret cannot be read yet: permission denied".to_owned()
            )
        );
    }

    #[test]
    fn no_state_shows_a_password() {
        let read = read_of(&[
            ("username", "u"),
            ("password", "hunt\ner2"),
            ("endpoints", "k:1"),
        ]);
        assert!(
            matches!(&read, Endpoint::Invalid(why) if !why.contains("hunt")),
            "{read:?}"
        );
        assert!(!format!("{:?}", read_of(&V3)).contains("\"pw\""));
    }

    #[test]
    fn a_secret_of_another_model_names_it() {
        let uuid = "3f2c1e0a-5b7d-4c55-8a11-0d6b9e7f2a10";
        for (uri, expect) in [
            ("secret:c1kafkausers0000000g".to_owned(), None),
            (
                format!("secret://{uuid}/c1kafkausers0000000g"),
                Some(uuid.to_owned()),
            ),
            ("secret://x/../c1".to_owned(), None),
        ] {
            let relation = relation(KAFKA, &[("secret-user", &uri)]);
            assert_eq!(model_of_secret(&relation), expect);
        }
    }
}
