//! Facts → plan: what should be written, and what Juju should show.
//!
//! There is no I/O here, and the same facts always give the same plan.

use crate::endpoint::{Endpoint, Topology, kafka, logging, metastore, metrics, s3};
use crate::facts::{Bag, Container, Facts, KAFKA, LOGGING, METASTORE, METRICS, Memo, S3, Up};
use crate::layer::{self, BINARY_DIR, Layer};
use crate::needs::{OptionChoice, is_request, remembered_form, unwritten_app_data};
use crate::options::Options;
use crate::rendered::{FILES, SECRETS_FILE, WorkloadFiles};
use crate::status::{self, Level, Names, Status};
use crate::target::{Target, find_target};
use serde_json::Value;
use std::collections::BTreeMap;
use windrow_core::settings::config::Secret;

/// Everything that one dispatch does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What is written into our application's databags, by relation id. Only a leader has any.
    pub app_data: BTreeMap<String, Bag>,
    /// What is written into this unit's databags, by relation id.
    pub unit_data: BTreeMap<String, Bag>,
    /// What the next dispatch should remember. It is written when it differs from what was read.
    pub memo: Memo,
    /// Whether the port must be opened.
    pub open_port: bool,
    /// The workload's version, where Juju must be told; `None` where it knows.
    pub version: Option<String>,
    /// What is done in the workload's container.
    pub container: Work,
    /// The status to show when all of this has been done.
    pub status: Status,
    /// The names that a status needs which is only known afterwards.
    pub names: Names,
}

/// What is done in the workload's container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Nothing: nobody answers there, or there is nothing new to tell windrow.
    LeaveAlone,
    /// Something that windrow needs is gone: it stops, and its credentials are removed.
    Stop {
        /// Whether the service is running; if not, there is nothing to stop.
        stop: bool,
        /// Paths of the files to remove.
        remove: Vec<String>,
    },
    /// windrow runs.
    Run(Run),
}

/// The steps that are left until windrow runs as it should, in this order. When it already does,
/// there are none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// The name of the program that must be put into [`BINARY_DIR`].
    pub push: Option<String>,
    /// The files to write, by path.
    pub write: BTreeMap<String, Secret>,
    /// Paths of files that are no longer wanted.
    pub remove: Vec<String>,
    /// The layer to add to Pebble's plan.
    pub layer: Option<Value>,
    /// Whether Pebble must replan: it starts what does not run, and restarts what has changed.
    pub replan: bool,
    /// Whether the replan starts windrow anew. Otherwise it runs on, as with another Loki.
    pub starts: bool,
    /// Whether windrow must be sent a SIGHUP, because something has changed that it can take over
    /// while it runs.
    pub reload: bool,
    /// Paths of the programs of an earlier charm, to be removed.
    pub prune: Vec<String>,
}

/// Decides.
#[must_use]
pub fn plan(facts: &Facts, chosen: &OptionChoice) -> Plan {
    let mut memo = facts.memo.clone();
    let OptionChoice { problems, options } = chosen;
    if problems.is_empty() {
        memo.good_options = facts.options.clone();
    }
    let mut plan = Plan {
        app_data: BTreeMap::new(),
        unit_data: unwritten_unit_data(facts, options.as_ref()),
        open_port: !memo.port,
        version: (memo.version != facts.charm.version).then(|| facts.charm.version.clone()),
        memo,
        container: Work::LeaveAlone,
        status: Status::new(Level::Active, ""),
        names: names(facts, options.as_ref()),
    };
    plan.memo.port = true;
    plan.memo.version.clone_from(&facts.charm.version);
    add_app_data(facts, options.as_ref(), &mut plan);
    for (id, bag) in &plan.unit_data {
        plan.memo.relations.entry(id.clone()).or_default().unit_data = Some(bag.clone());
    }
    let mut findings = Findings {
        options: status::describe_options(problems, facts.app()),
        ..Findings::default()
    };
    plan.container = match &facts.container {
        Container::Up(up) => {
            let (options, names) = (options.as_ref(), &plan.names);
            plan_container(facts, up, options, &plan.memo, names, &mut findings)
        }
        Container::Away(trouble) => {
            findings.missing = Some(status::describe_pebble(trouble, &facts.unit));
            Work::LeaveAlone
        }
    };
    if let Some(status) = findings.status() {
        plan.status = status;
    }
    plan
}

/// All that there is to say, of which Juju shows one status.
#[derive(Default)]
struct Findings {
    /// What is wrong with the options.
    options: Option<Status>,
    /// What windrow needs and does not get.
    missing: Option<Status>,
    /// What windrow says itself.
    workload: Option<Status>,
    /// Requests that were written with other options than those that count now.
    requests: Vec<Status>,
    /// What a person should know although windrow can run without it.
    hints: Vec<Status>,
}

impl Findings {
    /// The most urgent one; and of several that are as urgent, the first in this order: what is
    /// missing, a windrow that does not count, all the rest.
    ///
    /// A hint never hides that something is missing or that windrow does not count, however urgent
    /// it is. Nor does a bad option or a request that cannot be changed, although they must be seen
    /// by whoever has just set the option: then both are told.
    fn status(self) -> Option<Status> {
        let is_unwell = |status: &Status| status.level <= Level::Waiting;
        let (unwell, well) = match self.workload {
            Some(status) if is_unwell(&status) => (Some(status), None),
            other => (None, other),
        };
        let is_bare = self.missing.is_none() && unwell.is_none();
        let options = self.options.map(|options| match &unwell {
            Some(windrow) => options.and_also(windrow),
            None => options,
        });
        let hints = self.hints.into_iter().filter(|_| is_bare);
        let vital = status::most_urgent(options.into_iter().chain(self.missing).chain(unwell));
        let request = self.requests.into_iter().next();
        let told = match (vital, request) {
            (Some(vital), Some(request)) => Some(vital.and_also(&request)),
            (vital, request) => vital.or(request),
        };
        status::most_urgent(told.into_iter().chain(hints).chain(well))
    }
}

/// The names that statuses need.
fn names(facts: &Facts, options: Option<&Options>) -> Names {
    let remote = |endpoint| {
        let relation = facts.newest(endpoint);
        relation.map_or_else(|| endpoint.to_owned(), |relation| relation.app.clone())
    };
    let mut names = Names {
        unit: facts.unit.clone(),
        model: facts.model_uuid.clone(),
        model_name: facts.model_name.clone(),
        kafka: remote(KAFKA),
        s3: remote(S3),
        metastore: remote(METASTORE),
        has_roles: options.is_some_and(|options| !options.metastore_roles.is_empty()),
        ..Names::default()
    };
    if let Endpoint::Ready(kafka) = kafka::read(facts.newest(KAFKA), "") {
        names.plain.extend((!kafka.tls).then_some(KAFKA));
        names.kafka_user = kafka.username.expose().to_owned();
        names.group_prefix = kafka.group_prefix;
    }
    let bucket = options.map_or("", |options| options.bucket.as_str());
    if let Endpoint::Ready(s3) = s3::read(facts.newest(S3), bucket) {
        let is_plain = s3.endpoint.starts_with("http://");
        names.plain.extend(is_plain.then_some(S3));
        names.bucket = s3.bucket;
    }
    let database = options.map_or("", |options| options.metastore_database.as_str());
    if let Endpoint::Ready(metastore) = metastore::read(facts.newest(METASTORE), database) {
        names.plain.extend((!metastore.tls).then_some(METASTORE));
        names.metastore_user = metastore.username.expose().to_owned();
        names.database = metastore.database;
        names.postgresql = metastore.version;
    }
    names
}

// ---------------------------------------------------------------- databags

/// Plans what a leader writes for the application, and remembers it as written.
fn add_app_data(facts: &Facts, options: Option<&Options>, plan: &mut Plan) {
    if facts.leader != Some(true) {
        return;
    }
    for (id, bag) in unwritten_app_data(facts, options) {
        // An earlier leader may have made the request already.
        let own = facts
            .relations
            .values()
            .flatten()
            .find(|relation| relation.id == id)
            .and_then(|relation| relation.own.as_ref());
        let earlier =
            own.filter(|own| is_request(&id) && bag.keys().any(|key| own.contains_key(key)));
        let memo = plan.memo.relations.entry(id.clone()).or_default();
        match earlier {
            Some(earlier) => memo.app_data = Some(earlier.clone()),
            None => {
                memo.app_data = Some(remembered_form(&id, &bag));
                plan.app_data.insert(id, bag);
            }
        }
    }
}

/// What this unit has to say and has not written yet, by relation id.
fn unwritten_unit_data(facts: &Facts, options: Option<&Options>) -> BTreeMap<String, Bag> {
    let written = |id: &str| facts.memo.relations.get(id)?.unit_data.as_ref();
    // Only options that are right as a whole are here, so this one is a domain.
    let kafka = options.and_then(|options| options.settings.get("kafka"));
    let domain = kafka
        .and_then(|kafka| kafka.get("cluster-domain"))
        .and_then(|domain| domain.as_str());
    let bag = metrics::unit_data(&topology(facts), domain.unwrap_or("cluster.local"));
    let relations = facts.relations.get(METRICS).into_iter().flatten();
    relations
        .filter(|relation| written(&relation.id) != Some(&bag))
        .map(|relation| (relation.id.clone(), bag.clone()))
        .collect()
}

fn topology(facts: &Facts) -> Topology {
    Topology::new(&facts.model_name, &facts.model_uuid, &facts.unit)
}

/// A status for each request that was written with other options than those that count now. The
/// relation keeps it.
fn check_requests(facts: &Facts, options: &Options, memo: &Memo) -> Vec<Status> {
    let database = &options.metastore_database;
    let asked = [
        (KAFKA, "topic", "topic-name", &options.topic),
        (S3, "bucket", "bucket", &options.bucket),
        (METASTORE, "database", "metastore-database", database),
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
        // Without a table, nothing is asked of the others.
        if endpoint != KAFKA && options.table.is_none() {
            continue;
        }
        let Some(relation) = facts.newest(endpoint) else {
            continue;
        };
        let memo = memo.relations.get(&relation.id);
        let Some(written) = memo.and_then(|memo| memo.app_data.as_ref()) else {
            continue;
        };
        let written = written.get(key).unwrap_or(&nothing);
        if written != value {
            let app = facts.app();
            all.push(status::describe_kept_request(
                endpoint,
                option,
                written,
                app,
                &relation.app,
            ));
        }
    }
    all
}

// ---------------------------------------------------------------- the workload

fn plan_container(
    facts: &Facts,
    up: &Up,
    options: Option<&Options>,
    memo: &Memo,
    names: &Names,
    findings: &mut Findings,
) -> Work {
    let Some(options) = options else {
        return plan_stop(up);
    };
    findings.requests = check_requests(facts, options, memo);
    match find_target(facts, up, options, &mut findings.hints) {
        Target::Run(rendered) => {
            let run = plan_run(facts, up, &rendered);
            findings.workload = Some(describe_workload(up, &run, names));
            Work::Run(run)
        }
        Target::Stop(why) => {
            findings.missing = Some(why);
            plan_stop(up)
        }
        Target::Unchanged { why, secrets } => {
            findings.missing = Some(why);
            findings.workload = describe_running(up, names);
            secrets.map_or(Work::LeaveAlone, |secrets| {
                Work::Run(Run {
                    write: BTreeMap::from([(SECRETS_FILE.to_owned(), secrets)]),
                    reload: up.service.as_deref() == Some("active"),
                    ..Run::default()
                })
            })
        }
    }
}

/// The steps from what is there to what should be.
fn plan_run(facts: &Facts, up: &Up, rendered: &WorkloadFiles) -> Run {
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
    run.remove = FILES
        .iter()
        .filter(|path| up.files.contains_key(**path) && !rendered.files.contains_key(**path))
        .map(|path| (*path).to_owned())
        .collect();
    let targets = log_targets(facts, up);
    let layer = Layer {
        binary: &binary,
        config_digest: &rendered.digest,
        agent_uid: facts.uid,
        log_targets: &targets,
    };
    if !layer.is_in(&up.plan) {
        run.layer = Some(layer.render());
    }
    let is_running = matches!(up.service.as_deref(), Some("active" | "backoff"));
    run.replan = run.layer.is_some() || run.push.is_some() || !is_running;
    run.starts = !is_running || !layer.service_is_in(&up.plan);
    run.reload = !run.starts && !run.write.is_empty();
    run.prune = up
        .binaries
        .keys()
        .filter(|name| **name != binary)
        .map(|name| format!("{BINARY_DIR}/{name}"))
        .collect();
    run
}

/// Where logs go. As long as a relation with Loki cannot be read, they go where they went.
fn log_targets(facts: &Facts, up: &Up) -> BTreeMap<String, Value> {
    let in_plan = layer::log_targets(&up.plan);
    let loki = facts.relations.get(LOGGING).map_or(&[][..], Vec::as_slice);
    if loki.iter().any(|relation| relation.unread.is_some()) {
        return logging::only_ours(in_plan);
    }
    let names = in_plan.keys().map(String::as_str);
    logging::log_targets(loki, &topology(facts), names)
}

fn plan_stop(up: &Up) -> Work {
    let remove = up
        .files
        .keys()
        .filter(|path| *path == SECRETS_FILE)
        .cloned()
        .collect();
    Work::Stop {
        stop: matches!(up.service.as_deref(), Some("active" | "backoff" | "error")),
        remove,
    }
}

/// What the workload says, unless it is about to be started.
fn describe_workload(up: &Up, run: &Run, names: &Names) -> Status {
    if run.starts {
        return Status::new(Level::Maintenance, "starting windrow");
    }
    match &up.windrow {
        Some(windrow) => status::describe_windrow(windrow, names),
        None => status::describe_silence(up.service.as_deref(), &up.last_words, names),
    }
}

/// What a workload that goes on with what it was told says; `None` where none is to be seen.
fn describe_running(up: &Up, names: &Names) -> Option<Status> {
    let service = up.service.as_deref();
    match &up.windrow {
        Some(windrow) => Some(status::describe_windrow(windrow, names)),
        None if matches!(service, Some("backoff" | "error")) => {
            Some(status::describe_silence(service, &up.last_words, names))
        }
        None => None,
    }
}
