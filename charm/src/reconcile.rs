//! Facts → plan: what should be written, and what Juju should show. No I/O here; the same facts give the same plan.

use crate::endpoint::Endpoint;
use crate::endpoint::cos::{self, Topology};
use crate::endpoint::kafka::{self, Kafka};
use crate::endpoint::metastore;
use crate::endpoint::s3;
use crate::facts::{
    Bag, CA, Container, DASHBOARD, Facts, KAFKA, Known, LOGGING, METASTORE, METRICS, Memo,
    Namespace, OptionValues, S3 as S3_ENDPOINT, Up,
};
use crate::layer::{self, BINARY_DIR, Layer};
use crate::options::{self, Options};
use crate::settings::{FILES, HTTP_PORT, Inputs, Rendered, SECRETS_FILE, hex, render};
use crate::status::{self, Level, Status};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use windrow_core::settings::config::Secret;

/// All that one dispatch does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Into our application's databags, by relation; only the leader has any.
    pub app_data: BTreeMap<String, Bag>,
    /// Into this unit's databags, by relation.
    pub unit_data: BTreeMap<String, Bag>,
    /// Kept for the next dispatch; written when it is another one than was read.
    pub memo: Memo,
    pub open_port: bool,
    pub version: Option<String>,
    pub container: Work,
    /// Once all that is done.
    pub status: Status,
}

/// What is done in the workload's container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Nobody answers there.
    LeaveAlone,
    /// Something it needs is gone: it stops, and its credentials go.
    Stop {
        stop: bool,
        remove: Vec<String>,
    },
    Run(Run),
}

/// The steps that are left to a running windrow, in this order; none when all is as it should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// Name of the binary that is to be put into [`BINARY_DIR`].
    pub push: Option<String>,
    /// Files, by path.
    pub write: BTreeMap<String, Secret>,
    /// Paths of files that are no longer wanted.
    pub remove: Vec<String>,
    pub layer: Option<Value>,
    /// Pebble starts what is not running, and restarts what changed.
    pub replan: bool,
    /// The replan starts windrow anew; else it runs on, as with another Loki.
    pub starts: bool,
    /// SIGHUP: what can change while it runs did.
    pub reload: bool,
    /// Paths of binaries of an earlier charm.
    pub prune: Vec<String>,
}

/// The options that count, read once a dispatch.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// What is wrong with those that are set now.
    pub problems: Vec<String>,
    /// These, or the last that were right as a whole; `None` where there never were any.
    pub options: Option<Options>,
}

/// Reads the options, or the last good ones in their stead.
#[must_use]
pub fn choose(options: &OptionValues, memo: &Memo) -> Chosen {
    match options::read(options) {
        Ok(options) => Chosen {
            problems: Vec::new(),
            options: Some(options),
        },
        Err(problems) => {
            let good = Some(&memo.good_options).filter(|good| !good.is_empty());
            Chosen {
                problems,
                options: good.and_then(|good| options::read(good).ok()),
            }
        }
    }
}

/// Whether it must be known if this unit leads: only then is there something to write that only a leader may.
#[must_use]
pub fn asks_leader(facts: &Facts, chosen: &Chosen) -> bool {
    !unsaid(facts, chosen.options.as_ref()).is_empty()
}

/// Decides.
#[must_use]
pub fn plan(facts: &Facts, chosen: &Chosen) -> Plan {
    let mut memo = facts.memo.clone();
    let Chosen { problems, options } = chosen;
    if problems.is_empty() {
        memo.good_options = facts.options.clone();
    }
    let mut plan = Plan {
        app_data: BTreeMap::new(),
        unit_data: unit_data(facts),
        open_port: !memo.port,
        version: (memo.version != facts.charm.version).then(|| facts.charm.version.clone()),
        memo,
        container: Work::LeaveAlone,
        status: Status::new(Level::Active, ""),
    };
    plan.memo.port = true;
    plan.memo.version.clone_from(&facts.charm.version);
    requests(facts, options.as_ref(), &mut plan);
    for (id, bag) in &plan.unit_data {
        plan.memo.relations.entry(id.clone()).or_default().unit_data = Some(bag.clone());
    }
    let mut statuses: Vec<Status> = problems
        .first()
        .map(|first| bad_options(facts, first, problems.len()))
        .into_iter()
        .collect();
    plan.container = match &facts.container {
        Container::Down => {
            statuses.push(Status::waiting("waiting for Pebble in container windrow"));
            Work::LeaveAlone
        }
        Container::Up(up) => match options
            .as_ref()
            .map(|options| wanted(facts, options, &plan.memo))
        {
            None => stop(up),
            Some((Err(NotNow { why, gone }), more)) => {
                statuses.push(why);
                statuses.extend(more);
                // What an endpoint cannot say for a while, a running windrow was told before.
                if gone { stop(up) } else { Work::LeaveAlone }
            }
            Some((Ok(rendered), more)) => {
                statuses.extend(more);
                let run = run(facts, up, &rendered);
                statuses.extend(of_workload(facts, up, &run));
                Work::Run(run)
            }
        },
    };
    if let Some(status) = status::first(statuses) {
        plan.status = status;
    }
    plan
}

fn bad_options(facts: &Facts, first: &str, count: usize) -> Status {
    let more = if count > 1 {
        format!(" (and {} more)", count - 1)
    } else {
        String::new()
    };
    Status::blocked(format!(
        "{}{more}",
        first.replace("juju config APP", &format!("juju config {}", app(facts)))
    ))
}

fn app(facts: &Facts) -> &str {
    facts.unit.split('/').next().unwrap_or_default()
}

fn topology(facts: &Facts) -> Topology {
    Topology::new(&facts.model_name, &facts.model_uuid, &facts.unit)
}

// ---------------------------------------------------------------- databags

/// What our application has to say, by relation. Requests come from options.
fn app_data(facts: &Facts, options: Option<&Options>) -> Vec<(String, Bag)> {
    let mut all = Vec::new();
    for (endpoint, relations) in &facts.relations {
        let bag = match (endpoint.as_str(), options) {
            (KAFKA, Some(options)) => kafka::request(&options.topic),
            (S3_ENDPOINT, Some(options)) => s3::request(&options.bucket),
            (METASTORE, Some(options)) => {
                metastore::request(&options.metastore_database, &options.metastore_roles)
            }
            (METRICS, _) => cos::metrics_app_data(&topology(facts), HTTP_PORT),
            (DASHBOARD, _) => cos::dashboard_app_data(&topology(facts)),
            (CA, _) => cos::ca_app_data(),
            (LOGGING, _) => cos::logging_app_data(&topology(facts)),
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

/// Requests stay as they were first written: providers act on the first, and some fail on a second. What is no request
/// may change with a refresh of the charm.
fn is_request(id: &str) -> bool {
    [KAFKA, S3_ENDPOINT, METASTORE].contains(&Known::endpoint(id))
}

/// What is remembered of a bag: a request as it is, of others only that they are the same.
fn kept(id: &str, bag: &Bag) -> Bag {
    if is_request(id) {
        return bag.clone();
    }
    let text = serde_json::to_vec(bag).expect("a map of texts is JSON");
    Bag::from([("sha256".to_owned(), hex(&Sha256::digest(text)))])
}

/// Relations that nothing was said in yet, or something else that may change.
fn unsaid(facts: &Facts, options: Option<&Options>) -> Vec<(String, Bag)> {
    let known = |id: &str| {
        facts
            .memo
            .relations
            .get(id)
            .and_then(|known| known.app_data.as_ref())
    };
    let mut all = app_data(facts, options);
    all.retain(|(id, bag)| {
        known(id).is_none_or(|known| !is_request(id) && *known != kept(id, bag))
    });
    all
}

/// What is written now, and remembered as written.
fn requests(facts: &Facts, options: Option<&Options>, plan: &mut Plan) {
    if facts.leader != Some(true) {
        return;
    }
    for (id, bag) in unsaid(facts, options) {
        // An earlier leader may have made the request.
        let own = facts
            .relations
            .values()
            .flatten()
            .find(|relation| relation.id == id)
            .and_then(|r| r.own.as_ref());
        let earlier =
            own.filter(|own| is_request(&id) && bag.keys().any(|key| own.contains_key(key)));
        let known = plan.memo.relations.entry(id.clone()).or_default();
        match earlier {
            Some(earlier) => known.app_data = Some(earlier.clone()),
            None => {
                known.app_data = Some(kept(&id, &bag));
                plan.app_data.insert(id, bag);
            }
        }
    }
}

/// What this unit has to say, where it has not said it.
fn unit_data(facts: &Facts) -> BTreeMap<String, Bag> {
    let said = |id: &str| {
        facts
            .memo
            .relations
            .get(id)
            .and_then(|known| known.unit_data.as_ref())
    };
    let domain = facts
        .options
        .get("cluster-domain")
        .and_then(Value::as_str)
        .filter(|domain| !domain.is_empty());
    let bag = cos::metrics_unit_data(&topology(facts), domain.unwrap_or("cluster.local"));
    let relations = facts.relations.get(METRICS).into_iter().flatten();
    relations
        .filter(|r| said(&r.id) != Some(&bag))
        .map(|r| (r.id.clone(), bag.clone()))
        .collect()
}

/// A request that was written for other options: the relation keeps it.
fn frozen(facts: &Facts, options: &Options, memo: &Memo) -> Vec<Status> {
    let asked = [
        (KAFKA, "topic", "topic-name", &options.topic),
        (S3_ENDPOINT, "bucket", "bucket", &options.bucket),
        (
            METASTORE,
            "database",
            "metastore-database",
            &options.metastore_database,
        ),
        (
            METASTORE,
            "extra-user-roles",
            "metastore-roles",
            &options.metastore_roles,
        ),
    ];
    let nothing = String::new();
    let mut all = Vec::new();
    for (endpoint, key, option, value) in asked {
        let Some(relation) = facts.newest(endpoint) else {
            continue;
        };
        let Some(written) = memo
            .relations
            .get(&relation.id)
            .and_then(|known| known.app_data.as_ref())
        else {
            continue;
        };
        let written = written.get(key).unwrap_or(&nothing);
        if written != value {
            all.push(Status::blocked(format!(
                "option {option}: the relation on {endpoint} was made with \"{written}\" and keeps it; run: juju remove-relation {app} {remote}, then juju integrate {app}:{endpoint} {remote}",
                app = app(facts),
                remote = relation.app,
            )));
        }
    }
    all
}

// ---------------------------------------------------------------- the workload

/// Why there is nothing new to tell the workload.
struct NotNow {
    why: Status,
    /// A needed relation is not there: it must not run.
    gone: bool,
}

/// The workload's files, or why there are none now; and what else a person should know.
fn wanted(
    facts: &Facts,
    options: &Options,
    memo: &Memo,
) -> (Result<Rendered, NotNow>, Vec<Status>) {
    let kafka = kafka::read(facts.newest(KAFKA), &options.topic);
    let (s3, metastore) = match &options.table {
        Some(_) => (
            s3::read(facts.newest(S3_ENDPOINT), &options.bucket),
            metastore::read(facts.newest(METASTORE), &options.metastore_database),
        ),
        // On the console nothing is kept.
        None => (Endpoint::Absent, Endpoint::Absent),
    };
    let namespace = kafka
        .ready()
        .map_or(Ok(None), |kafka| kafka_namespace(facts, options, kafka));
    let token = match &facts.token {
        None => Ok(None),
        Some(Ok(token)) => Ok(Some(token)),
        Some(Err(why)) => Err(Status::blocked(format!(
            "option api-token: the secret cannot be read: {why}; run: juju grant-secret NAME {}",
            app(facts)
        ))),
    };
    let (ca, refused) = cos::ca_certificates(facts.relations.get(CA).map_or(&[], Vec::as_slice));
    let mut more = frozen(facts, options, memo);
    more.extend(
        refused
            .into_iter()
            .map(|why| Status::blocked(format!("{CA}: {why}"))),
    );
    let mut why_not: Vec<Status> = Vec::new();
    let mut absent = Vec::new();
    if facts.newest(KAFKA).is_none() {
        absent.push(KAFKA);
    }
    if options.table.is_some() {
        absent.extend(
            [S3_ENDPOINT, METASTORE]
                .into_iter()
                .filter(|endpoint| facts.newest(endpoint).is_none()),
        );
    }
    why_not.extend(status::of_absent(&absent, app(facts)));
    why_not.extend(status::of_endpoint(&kafka));
    why_not.extend(status::of_endpoint(&s3));
    why_not.extend(status::of_endpoint(&metastore));
    why_not.extend(namespace.as_ref().err().cloned());
    // A token that cannot be read leaves the status page closed rather than open; counting goes on.
    more.extend(token.as_ref().err().cloned());
    let gone = !absent.is_empty();
    if let Some(why) = status::first(why_not) {
        return (Err(NotNow { why, gone }), more);
    }
    let (Some(kafka), Ok(namespace)) = (kafka.ready(), namespace) else {
        let why = Status::waiting(format!("waiting for {KAFKA}"));
        return (Err(NotNow { why, gone }), more);
    };
    let rendered = render(&Inputs {
        options,
        kafka,
        kafka_namespace: namespace.as_deref(),
        s3: s3.ready(),
        metastore: metastore.ready(),
        ca: &ca.concat(),
        instance: &facts.instance,
        proxy: &facts.proxy,
        token: token.ok().flatten(),
    });
    // The options are right by themselves: it is a relation that gives what cannot be used.
    let rendered = rendered.map_err(|problems| {
        let why = Status::blocked(
            problems
                .first()
                .map_or("the settings are refused", String::as_str),
        );
        NotNow { why, gone }
    });
    (rendered, more)
}

/// What is added to the names of Kafka's brokers. The option's namespace is with the other settings already.
fn kafka_namespace(
    facts: &Facts,
    options: &Options,
    kafka: &Kafka,
) -> Result<Option<String>, Status> {
    if options.has_namespace || kafka.short_host.is_none() {
        return Ok(None);
    }
    let unknown = |why: &str| {
        Status::blocked(format!(
            "{KAFKA}: the brokers' names only resolve in Kafka's namespace, which is unknown: {why}; run: juju config {} kafka-namespace=NAMESPACE",
            app(facts)
        ))
    };
    match &facts.kafka_namespace {
        None | Some(Namespace::Here) => Ok(None),
        Some(Namespace::Is(name)) => Ok(Some(name.clone())),
        Some(Namespace::Unknown(why)) => Err(unknown(why)),
        Some(Namespace::Later(why)) => Err(Status::waiting(format!(
            "{KAFKA}: looking for Kafka's namespace: {why}"
        ))),
    }
}

/// The steps from what is to what should be.
fn run(facts: &Facts, up: &Up, rendered: &Rendered) -> Run {
    let mut run = Run::default();
    let binary = layer::binary_name(&facts.charm.digest);
    if up.binaries.get(&binary) != Some(&facts.charm.size_bytes) {
        run.push = Some(binary.clone());
    }
    for (path, text) in &rendered.files {
        if up.files.get(*path) != Some(text) {
            run.write.insert((*path).to_owned(), text.clone());
        }
    }
    let gone = |path: &&str| up.files.contains_key(*path) && !rendered.files.contains_key(*path);
    run.remove = FILES
        .iter()
        .copied()
        .filter(gone)
        .map(str::to_owned)
        .collect();
    let in_plan = layer::log_targets(&up.plan);
    let loki = facts.relations.get(LOGGING).map_or(&[][..], Vec::as_slice);
    let targets = cos::log_targets(loki, &topology(facts), in_plan.iter().map(String::as_str));
    let layer = Layer {
        binary: &binary,
        config_digest: &rendered.digest,
        agent_uid: facts.uid,
        log_targets: &targets,
    };
    if !layer.is_in(&up.plan) {
        run.layer = Some(layer.render());
    }
    let runs = matches!(up.service.as_deref(), Some("active" | "backoff"));
    run.replan = run.layer.is_some() || run.push.is_some() || !runs;
    run.starts = !runs || !layer.service_is_in(&up.plan);
    run.reload = !run.starts && !run.write.is_empty();
    run.prune = up
        .binaries
        .keys()
        .filter(|name| **name != binary)
        .map(|name| format!("{BINARY_DIR}/{name}"))
        .collect();
    run
}

fn stop(up: &Up) -> Work {
    let runs = matches!(up.service.as_deref(), Some("active" | "backoff" | "error"));
    let remove = up
        .files
        .keys()
        .filter(|path| *path == SECRETS_FILE)
        .cloned()
        .collect();
    Work::Stop { stop: runs, remove }
}

/// What the workload says, unless it is about to be started anew.
fn of_workload(facts: &Facts, up: &Up, run: &Run) -> Option<Status> {
    if run.starts {
        return Some(Status::new(Level::Maintenance, "starting windrow"));
    }
    Some(match &up.windrow {
        Some(windrow) => {
            status::of_windrow(windrow, &facts.unit, &facts.model_uuid, &facts.model_name)
        }
        None => status::of_silence(up.service.as_deref(), &up.last_words, app(facts)),
    })
}

/// A host of Kafka whose name only resolves in a namespace that nobody named.
#[must_use]
pub fn asks_namespace(facts: &Facts, chosen: &Chosen) -> Option<String> {
    let options = chosen.options.as_ref()?;
    match kafka::read(facts.newest(KAFKA), &options.topic) {
        Endpoint::Ready(kafka) if !options.has_namespace => kafka.short_host,
        _ => None,
    }
}
