//! `kafka-client`, interface kafka_client: what Kafka's charm gives, and what it is asked for.
//!
//! Spoken is version 0 of `data_interfaces`, which all providers understand. The charm never makes the topic.

use super::{Endpoint, Fault, addresses, cos::pem, field, join, plain, yes};
use crate::facts::{Bag, KAFKA, Relation};
use windrow_core::settings::config::Secret;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kafka {
    /// `host:port`, several with commas between.
    pub bootstrap: String,
    pub topic: String,
    pub tls: bool,
    /// PEM; empty where Kafka gives none. Versions before 4 write `enabled` or `disabled` there.
    pub ca: String,
    pub username: Secret,
    pub password: Secret,
    /// What the name of our group must begin with.
    pub group_prefix: String,
    /// A host whose name only resolves in Kafka's own namespace, if there is one.
    pub short_host: Option<String>,
}

/// What we ask for. The role grants reading the topic and groups that begin with the prefix Kafka gives.
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

/// What the newest relation gives. `asked` is the topic that was asked for; another may be given.
#[must_use]
pub fn read(relation: Option<&Relation>, asked: &str) -> Endpoint<Kafka> {
    let Some(relation) = relation else {
        return Endpoint::Absent;
    };
    Endpoint::of(given(relation, asked), KAFKA, &relation.app)
}

fn given(relation: &Relation, asked: &str) -> Result<Kafka, Fault> {
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
    let endpoints = addresses(&endpoints)?;
    let ca = tls("tls-ca")?.unwrap_or_default();
    Ok(Kafka {
        bootstrap: join(&endpoints),
        topic: plain(relation, "", "topic")?.unwrap_or_else(|| asked.to_owned()),
        tls: yes(tls("tls")?.as_deref()),
        ca: pem(&ca).unwrap_or_default(),
        username,
        password,
        group_prefix: plain(relation, "", "consumer-group-prefix")?.unwrap_or_default(),
        short_host: endpoints
            .into_iter()
            .map(|(host, _)| host)
            .find(|host| is_short(host)),
    })
}

/// `kafka-k8s-0.kafka-k8s-endpoints`: a pod's name, short for its own namespace.
fn is_short(host: &str) -> bool {
    host.split_once('.')
        .is_some_and(|(_, rest)| !rest.contains('.') && rest.ends_with("-endpoints"))
}

/// The UUID of the model that a secret's URI names: `secret://<uuid>/<id>`.
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
            (kafka.tls, kafka.ca.as_str()),
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
    fn plain_fields_do_as_well() {
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
    fn partial_and_hostile_data_is_told() {
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
