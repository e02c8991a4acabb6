//! What windrow should do, by options and endpoints: run with these files, stop, or go on with what
//! it was told earlier. What is missing and what is left out becomes a status here.
//!
//! How to get there from what is in the container, `reconcile` plans.

use crate::endpoint::kafka::{self, Kafka};
use crate::endpoint::metastore::{self, Metastore};
use crate::endpoint::s3::{self, S3 as S3Given};
use crate::endpoint::{Endpoint, certificates};
use crate::facts::{
    CA, Facts, KAFKA, LOGGING, METASTORE, NEEDED, Namespace, Proxy, S3, TokenFault, Up,
};
use crate::needs::kafka_namespace;
use crate::options::Options;
use crate::rendered::{Given, Inputs, WorkloadFiles, render, rotated_secrets, token_in_force};
use crate::secrets::usable_secret;
use crate::status::{self, Status};
use windrow_core::settings::certificates::Certificates;
use windrow_core::settings::config::Secret;
use windrow_core::settings::parse::parse_no_proxy;

/// What windrow should do.
pub(crate) enum Target {
    /// Run with these files.
    Run(WorkloadFiles),
    /// Stop, because a relation that it needs is not there.
    Stop(Status),
    /// Go on with what it was told earlier, except for new logins. An endpoint cannot say for a
    /// while what it has said before, or says something wrong.
    Unchanged {
        /// What is missing.
        why: Status,
        /// The secrets file with new logins of the other endpoints; `None` where there are none.
        secrets: Option<Secret>,
    },
}

/// What the endpoints that windrow reads give.
struct Endpoints {
    kafka: Endpoint<Kafka>,
    s3: Endpoint<S3Given>,
    metastore: Endpoint<Metastore>,
}

impl Endpoints {
    fn read(facts: &Facts, options: &Options) -> Self {
        let kafka = kafka::read(facts.newest(KAFKA), &options.topic);
        // Console mode keeps nothing, so it needs neither of these.
        let (s3, metastore) = match &options.table {
            Some(_) => (
                s3::read(facts.newest(S3), &options.bucket),
                metastore::read(facts.newest(METASTORE), &options.metastore_database),
            ),
            None => (Endpoint::Absent, Endpoint::Absent),
        };
        Self {
            kafka,
            s3,
            metastore,
        }
    }

    /// Why each of them is not ready. `unit` is ours.
    fn why_not(&self, unit: &str) -> [Option<Status>; 3] {
        [
            status::describe_endpoint(&self.kafka, KAFKA, unit),
            status::describe_endpoint(&self.s3, S3, unit),
            status::describe_endpoint(&self.metastore, METASTORE, unit),
        ]
    }

    /// The options with a CA for a server that speaks no TLS.
    fn needless_cas(&self, facts: &Facts, options: &Options) -> Vec<Status> {
        let app = facts.app();
        let s3 = self.s3.ready();
        let is_plain_s3 = s3.is_some_and(|s3| s3.endpoint.starts_with("http://"));
        let no_tls = [
            (
                "kafka-ca",
                &options.kafka_ca,
                KAFKA,
                self.kafka.ready().is_some_and(|kafka| !kafka.tls),
            ),
            ("s3-ca", &options.s3_ca, S3, is_plain_s3),
            (
                "metastore-ca",
                &options.metastore_ca,
                METASTORE,
                self.metastore.ready().is_some_and(|given| !given.tls),
            ),
        ];
        no_tls
            .iter()
            .filter(|(_, ca, _, is_plain)| !ca.is_empty() && *is_plain)
            .map(|(option, _, endpoint, _)| {
                status::describe_ca_without_tls(option, endpoint, app, remote(facts, endpoint))
            })
            .collect()
    }

    /// The option `warehouse` names another bucket than the relation. `None` where it does not.
    fn other_bucket(&self, facts: &Facts, options: &Options) -> Option<Status> {
        let (named, given) = (options.warehouse_bucket.as_ref()?, &self.s3.ready()?.bucket);
        (named != given)
            .then(|| status::describe_other_bucket(named, given, facts.app(), remote(facts, S3)))
    }
}

/// The application on the other side of an endpoint; empty where there is none.
fn remote<'a>(facts: &'a Facts, endpoint: &str) -> &'a str {
    facts
        .newest(endpoint)
        .map_or("", |found| found.app.as_str())
}

/// The model's proxy that S3 is reached through, where windrow can use it. If it cannot, that is a
/// hint. Nothing else is reached through a proxy, so no other one matters.
fn usable_proxy(proxy: &Proxy, s3: Option<&S3Given>, hints: &mut Vec<Status>) -> Proxy {
    let Some(s3) = s3 else {
        return Proxy::default();
    };
    let mut usable = |key, secret: &Option<Secret>| {
        let checked = usable_secret("s3-proxy", secret.as_ref()?);
        checked
            .map_err(|why| hints.push(status::describe_proxy(key, &why)))
            .ok()
    };
    let (http, https) = if s3.is_https() {
        (None, usable("juju-https-proxy", &proxy.https))
    } else {
        (usable("juju-http-proxy", &proxy.http), None)
    };
    if http.is_none() && https.is_none() {
        return Proxy::default();
    }
    let no_proxy = match parse_no_proxy(&proxy.no_proxy) {
        Ok(_) => proxy.no_proxy.clone(),
        Err(why) => {
            hints.push(status::describe_proxy("juju-no-proxy", &why));
            String::new()
        }
    };
    Proxy {
        http,
        https,
        no_proxy,
    }
}

/// What windrow should do. `hints` gets what a person should know although windrow can run.
pub(crate) fn find_target(
    facts: &Facts,
    up: &Up,
    options: &Options,
    hints: &mut Vec<Status>,
) -> Target {
    let endpoints = Endpoints::read(facts, options);
    let namespace = endpoints
        .kafka
        .ready()
        .map_or(Ok(None), |kafka| namespace_to_add(facts, options, kafka));
    let unit = &facts.unit;
    let ca = trusted_everywhere(facts, hints);
    let token = token_to_want(facts, up, hints);
    let proxy = usable_proxy(&facts.proxy, endpoints.s3.ready(), hints);
    let unchanged = |why| Target::Unchanged {
        why,
        secrets: rotated_secrets(&Given {
            kafka: endpoints.kafka.ready(),
            s3: endpoints.s3.ready(),
            metastore: endpoints.metastore.ready(),
            proxy: &proxy,
            token: token.as_ref(),
            there: &up.files,
        }),
    };

    let absent = absent_endpoints(facts, options);
    let absence = status::describe_absent(&absent, facts.app());
    let why_not = endpoints.why_not(unit).into_iter().flatten();
    let why_not = absence.into_iter().chain(why_not);
    if let Some(why) = status::most_urgent(why_not.chain(namespace.as_ref().err().cloned())) {
        return if absent.is_empty() {
            unchanged(why)
        } else {
            Target::Stop(why)
        };
    }
    // A table never moves, so there are no settings for another bucket.
    if let Some(why) = endpoints.other_bucket(facts, options) {
        return unchanged(why);
    }
    let mut needless = endpoints.needless_cas(facts, options).into_iter();
    // Nothing begins against what an option says. What runs already goes on with all that is new.
    let runs = matches!(up.service.as_deref(), Some("active" | "backoff"));
    match needless.next() {
        Some(why) if !runs => return unchanged(why),
        first => hints.extend(first.into_iter().chain(needless)),
    }
    let (Some(kafka), Ok(namespace)) = (endpoints.kafka.ready(), namespace) else {
        return unchanged(Status::waiting(format!("waiting for {KAFKA}")));
    };
    let rendered = render(&Inputs {
        options,
        kafka,
        kafka_namespace: namespace.as_deref(),
        s3: endpoints.s3.ready(),
        metastore: endpoints.metastore.ready(),
        ca: &ca,
        there: &up.files,
        instance: &facts.instance,
        proxy: &proxy,
        token: token.as_ref(),
    });
    match rendered {
        Ok(rendered) => {
            let left_out = rendered.left_out.iter();
            hints.extend(left_out.map(|(at, why)| status::describe_left_out(at, why, unit)));
            Target::Run(rendered)
        }
        // The options are right by themselves: it is a relation that gives what cannot be used.
        Err(problems) => unchanged(Status::blocked(
            problems
                .first()
                .map_or("the settings are refused", String::as_str),
        )),
    }
}

/// The certificates that are trusted for every endpoint. What cannot be used or read is a hint.
fn trusted_everywhere(facts: &Facts, hints: &mut Vec<Status>) -> Certificates {
    let relations = facts.relations.get(CA).map_or(&[][..], Vec::as_slice);
    let mut ca = certificates::read(relations);
    let left_out = ca.left_out.iter();
    hints.extend(left_out.map(|why| status::describe_left_out(CA, why, &facts.unit)));
    for endpoint in [CA, LOGGING] {
        for relation in facts.relations.get(endpoint).into_iter().flatten() {
            let Some(why) = &relation.unread else {
                continue;
            };
            hints.push(status::describe_unread(endpoint, &relation.app, why));
            // As long as something is left out, no certificate that is trusted is taken away.
            ca.left_out.extend((endpoint == CA).then(|| why.clone()));
        }
    }
    ca
}

/// The token that windrow's HTTP shall want. As long as the secret with it cannot be read, it is
/// the one before: without any, whoever is on the machine could pause and resume. What is in the
/// secret and cannot be used is left out, and then the status page stays closed to others.
fn token_to_want(facts: &Facts, up: &Up, hints: &mut Vec<Status>) -> Option<Secret> {
    let fault = match facts.token.as_ref()? {
        Ok(token) => return Some(token.clone()),
        Err(fault) => fault,
    };
    hints.push(status::describe_token(fault, facts.app()));
    match fault {
        TokenFault::Unusable(_) => None,
        TokenFault::Denied(_) | TokenFault::Missing(_) | TokenFault::Unread(_) => {
            token_in_force(&up.files)
        }
    }
}

/// The endpoints that are needed and have no relation.
fn absent_endpoints(facts: &Facts, options: &Options) -> Vec<&'static str> {
    let needed: &[&str] = match &options.table {
        Some(_) => &NEEDED,
        None => &[KAFKA],
    };
    needed
        .iter()
        .copied()
        .filter(|endpoint| facts.newest(endpoint).is_none())
        .collect()
}

/// The namespace to add to the names of Kafka's brokers; `None` where none need be added. A
/// namespace that an option names is in the settings already.
fn namespace_to_add(
    facts: &Facts,
    options: &Options,
    kafka: &Kafka,
) -> Result<Option<String>, Status> {
    let Some(relation) = facts.newest(KAFKA) else {
        return Ok(None);
    };
    if options.has_namespace || kafka.short_host.is_none() {
        return Ok(None);
    }
    match kafka_namespace(facts, relation) {
        None | Some(Namespace::Here) => Ok(None),
        Some(Namespace::Is(name)) => Ok(Some(name)),
        Some(Namespace::Unknown(why)) => Err(status::describe_namespace(&why, facts.app())),
        Some(Namespace::Later(why)) => Err(Status::waiting(format!(
            "{KAFKA}: looking for Kafka's namespace: {why}"
        ))),
    }
}
