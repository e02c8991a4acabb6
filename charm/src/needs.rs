//! The facts so far → what else must be asked before there can be a plan. No I/O here.
//!
//! A dispatch looks twice. First it looks at what is always needed. Most dispatches need nothing
//! more; then nothing here is asked, because a hook command costs 4 ms and Kubernetes may not
//! answer for 2 s.

use crate::endpoint::kafka::{self, model_of_secret};
use crate::endpoint::{
    Endpoint, Topology, certificates, dashboard, logging, metastore, metrics, s3,
};
use crate::facts::{
    Bag, CA, DASHBOARD, Facts, KAFKA, LOGGING, METASTORE, METRICS, Memo, Namespace, OptionValues,
    Relation, S3, endpoint_of,
};
use crate::options::{self, Options};
use crate::rendered::HTTP_PORT;
use windrow_core::values::digest::sha256_hex;

/// The options that count in this dispatch.
#[derive(Clone, Debug)]
pub struct OptionChoice {
    /// What is wrong with the options that are set now; empty when they are right.
    pub problems: Vec<String>,
    /// The options that are set now when they are right as a whole, else the last ones that were.
    /// `None` where there never were any.
    pub options: Option<Options>,
}

/// Reads the options that are set, or the last good ones in their place.
#[must_use]
pub fn choose_options(options: &OptionValues, memo: &Memo) -> OptionChoice {
    match options::read(options) {
        Ok(options) => OptionChoice {
            problems: Vec::new(),
            options: Some(options),
        },
        Err(problems) => {
            let good = Some(&memo.good_options).filter(|good| !good.is_empty());
            OptionChoice {
                problems,
                options: good.and_then(|good| options::read(good).ok()),
            }
        }
    }
}

/// One thing that must be asked in addition. The answer is added to the facts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// Which model is Kafka in? The answer goes into the memo of this relation.
    KafkaModel {
        /// The relation's id.
        relation: String,
        /// What the URI of a secret says, which needs no question; `None` where Juju must be asked.
        from_secret: Option<String>,
    },
    /// Which namespace is Kafka's model in? The answer is [`Facts::kafka_namespace`].
    KafkaNamespace {
        /// The model's UUID; empty where Juju does not say it.
        model: String,
        /// A broker's name. When it resolves from here, no namespace is needed.
        host: String,
    },
    /// Does this unit lead its application? The answer is [`Facts::leader`].
    Leader,
    /// What has our application written in this relation? The answer is [`Relation::own`].
    OwnData {
        /// The relation's id.
        relation: String,
    },
}

/// What must be asked next; `None` when the facts are complete. Call it again after each answer.
///
/// Example: Kafka's brokers have short names, and nothing is remembered. Then it says first
/// `KafkaModel`, and with the model known `KafkaNamespace`; and once that is answered, `Leader`,
/// because the request for a topic has not been written.
#[must_use]
pub fn next_need(facts: &Facts, chosen: &OptionChoice) -> Option<Need> {
    kafka_need(facts, chosen.options.as_ref())
        .or_else(|| leader_need(facts, chosen.options.as_ref()))
}

fn kafka_need(facts: &Facts, options: Option<&Options>) -> Option<Need> {
    let options = options.filter(|options| !options.has_namespace)?;
    let relation = facts.newest(KAFKA)?;
    let Endpoint::Ready(kafka) = kafka::read(Some(relation), &options.topic) else {
        return None;
    };
    let host = kafka.short_host?;
    if kafka_namespace(facts, relation).is_some() {
        return None;
    }
    Some(match model_of(facts, relation) {
        None => Need::KafkaModel {
            relation: relation.id.clone(),
            from_secret: model_of_secret(relation),
        },
        Some(model) => Need::KafkaNamespace {
            model: model.clone(),
            host,
        },
    })
}

fn model_of<'a>(facts: &'a Facts, relation: &Relation) -> Option<&'a String> {
    facts.memo.relations.get(&relation.id)?.model.as_ref()
}

/// The namespace of Kafka's brokers, as far as it is known. `None`: it must be asked.
#[must_use]
pub fn kafka_namespace(facts: &Facts, relation: &Relation) -> Option<Namespace> {
    let model = model_of(facts, relation)?;
    if *model == facts.model_uuid {
        return Some(Namespace::Here);
    }
    match facts.memo.namespaces.get(model) {
        Some(name) => Some(Namespace::Is(name.clone())),
        None => facts.kafka_namespace.clone(),
    }
}

/// Only a leader may write for the application. So it is asked only when there is something to
/// write; and an earlier leader may have written it already, which this unit then does not
/// remember.
fn leader_need(facts: &Facts, options: Option<&Options>) -> Option<Need> {
    match facts.leader {
        None if unwritten_app_data(facts, options).is_empty() => None,
        None => Some(Need::Leader),
        Some(false) => None,
        Some(true) => facts
            .relations
            .values()
            .flatten()
            .find(|relation| relation.own.is_none() && written(facts, &relation.id).is_none())
            .map(|relation| Need::OwnData {
                relation: relation.id.clone(),
            }),
    }
}

/// What the memo says that our application has written in a relation.
fn written<'a>(facts: &'a Facts, id: &str) -> Option<&'a Bag> {
    facts.memo.relations.get(id)?.app_data.as_ref()
}

/// The relations in which our application has something to write, with what that is: those where it
/// has written nothing, or something else that may still change.
#[must_use]
pub fn unwritten_app_data(facts: &Facts, options: Option<&Options>) -> Vec<(String, Bag)> {
    let mut all = app_data(facts, options);
    all.retain(|(id, bag)| {
        written(facts, id)
            .is_none_or(|written| !is_request(id) && *written != remembered_form(id, bag))
    });
    all
}

/// What our application has to say in each relation. Requests come from the options, so without
/// options there are none.
fn app_data(facts: &Facts, options: Option<&Options>) -> Vec<(String, Bag)> {
    let topology = Topology::new(&facts.model_name, &facts.model_uuid, &facts.unit);
    let mut all = Vec::new();
    for (endpoint, relations) in &facts.relations {
        let bag = match (endpoint.as_str(), options) {
            (KAFKA, Some(options)) => kafka::request(&options.topic),
            (S3, Some(options)) => s3::request(&options.bucket),
            (METASTORE, Some(options)) => {
                metastore::request(&options.metastore_database, &options.metastore_roles)
            }
            (METRICS, _) => metrics::app_data(&topology, HTTP_PORT),
            (DASHBOARD, _) => dashboard::app_data(&topology),
            (CA, _) => certificates::app_data(),
            (LOGGING, _) => logging::app_data(&topology),
            _ => continue,
        };
        all.extend(
            relations
                .iter()
                .map(|relation| (relation.id.clone(), bag.clone())),
        );
    }
    all
}

/// Whether what we write in this relation is a request. A request stays as it was first written:
/// providers act on the first one, and some fail on a second. Everything else may change when the
/// charm is refreshed.
#[must_use]
pub fn is_request(id: &str) -> bool {
    [KAFKA, S3, METASTORE].contains(&endpoint_of(id))
}

/// The form in which the memo keeps a databag: a request as it is, anything else as a digest, which
/// is enough to see a change.
#[must_use]
pub fn remembered_form(id: &str, bag: &Bag) -> Bag {
    if is_request(id) {
        return bag.clone();
    }
    let text = serde_json::to_vec(bag).expect("a map of texts is JSON");
    Bag::from([("sha256".to_owned(), sha256_hex(&text))])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::tests::relation;
    use crate::facts::PebbleTrouble;
    use crate::facts::{CharmFiles, Container, Proxy};
    use crate::options::tests::defaults;
    use std::collections::BTreeMap;

    const OTHER_MODEL: &str = "3f2c1e0a-5b7d-4c55-8a11-0d6b9e7f2a10";

    /// A unit with a Kafka of another model, whose brokers have short names.
    fn facts() -> Facts {
        let kafka = relation(
            KAFKA,
            &[
                ("username", "u"),
                ("password", "p"),
                ("endpoints", "kafka-k8s-0.kafka-k8s-endpoints:9092"),
            ],
        );
        Facts {
            unit: "windrow/0".to_owned(),
            model_uuid: "uuid-1".to_owned(),
            model_name: "spark".to_owned(),
            instance: "uuid-1/windrow/0".to_owned(),
            uid: 0,
            leader: None,
            options: defaults(),
            token: None,
            memo: Memo::default(),
            relations: BTreeMap::from([(KAFKA.to_owned(), vec![kafka])]),
            container: Container::Away(PebbleTrouble::Down),
            charm: CharmFiles::default(),
            kafka_namespace: None,
            proxy: Proxy::default(),
            shown: None,
        }
    }

    fn next(facts: &Facts) -> Option<Need> {
        next_need(facts, &choose_options(&facts.options, &facts.memo))
    }

    #[test]
    fn each_answer_leads_to_the_next_question_until_none_is_left() {
        let mut facts = facts();
        let relation = || "kafka-client:4".to_owned();
        assert_eq!(
            next(&facts),
            Some(Need::KafkaModel {
                relation: relation(),
                from_secret: None
            })
        );
        let memo = facts.memo.relations.entry(relation()).or_default();
        memo.model = Some(OTHER_MODEL.to_owned());
        assert_eq!(
            next(&facts),
            Some(Need::KafkaNamespace {
                model: OTHER_MODEL.to_owned(),
                host: "kafka-k8s-0.kafka-k8s-endpoints".to_owned()
            })
        );
        facts.kafka_namespace = Some(Namespace::Later("no answer".to_owned()));
        assert_eq!(next(&facts), Some(Need::Leader));
        facts.leader = Some(true);
        assert_eq!(
            next(&facts),
            Some(Need::OwnData {
                relation: relation()
            })
        );
        let kafka = facts.relations.get_mut(KAFKA).unwrap();
        kafka[0].own = Some(Bag::new());
        assert_eq!(next(&facts), None);
    }

    #[test]
    fn what_is_remembered_is_not_asked_again() {
        let mut facts = facts();
        let memo = facts.memo.relations.entry("kafka-client:4".to_owned());
        let memo = memo.or_default();
        memo.model = Some(OTHER_MODEL.to_owned());
        memo.app_data = Some(kafka::request("test-topic"));
        let names = [(OTHER_MODEL.to_owned(), "kafka".to_owned())];
        facts.memo.namespaces = BTreeMap::from(names);
        assert_eq!(next(&facts), None);
        let relation = facts.newest(KAFKA).unwrap();
        let namespace = Namespace::Is("kafka".to_owned());
        assert_eq!(kafka_namespace(&facts, relation), Some(namespace));
    }
}
