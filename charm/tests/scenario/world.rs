//! A world to run the hook binary in: Juju, Pebble, the workload's port, and the other charms.
//!
//! ```text
//! let mut world = World::new();                                   // leader, windrow/0, Juju 3.6, Pebble up
//! world.set("topic-name", "clicks");
//! let kafka = world.relate("kafka-client", Provider::kafka_3());  // created, joined, changed, as Juju orders them
//! let run = world.hook("config-changed");                         // or pebble_ready(), action(…), relation_event(…)
//! assert_eq!(run.status, "waiting …");
//! golden::check("config-changed", &run.tell());
//! ```

use crate::client::{Call, Reply};
use crate::juju::{Action, Bag, COMMANDS, Called, Charm, Hook, Juju, Relation, Secret};
use crate::pebble::{Mood, Pebble};
use crate::provider::Provider;
use crate::workload::{Answers, Workload};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use windrow_core::values::digest::sha256_hex;

/// The model's UUID when nothing else is said.
pub const MODEL: &str = "3f2c6a1e-0000-4000-8000-000000000001";
/// Another model's.
pub const OTHER_MODEL: &str = "3f2c6a1e-0000-4000-8000-000000000002";

pub struct World {
    folder: tempfile::TempDir,
    juju: Arc<Mutex<Juju>>,
    pub pebble: Pebble,
    /// What the workload answers once its service runs; empty: nothing listens.
    pub workload: Answers,
    /// Values that must be nowhere but in secrets, databags and the secrets file.
    pub hidden: BTreeSet<String>,
    /// Variables of the agent's environment that Juju hands over (`JUJU_CHARM_HTTP_PROXY`, …).
    pub environment: BTreeMap<String, String>,
    over: Arc<AtomicBool>,
    contexts: u32,
    actions: u32,
}

/// What came of one dispatch.
pub struct Run {
    pub event: String,
    pub exit: i32,
    /// Why the hook failed, as Juju says it.
    pub error: Option<String>,
    pub stdout: String,
    pub stderr: String,
    pub calls: Vec<Called>,
    /// What Juju's databases took at the end.
    pub flushed: Vec<String>,
    /// `active ""`: the unit's status after it.
    pub status: String,
    pub statuses: Vec<String>,
    pub log: Vec<String>,
    pub action: Option<Done>,
    /// Requests to Pebble.
    pub pebble: Vec<String>,
    /// Requests to the workload.
    pub workload: Vec<String>,
    /// What is now other than before of plan, services and files.
    pub container: Vec<String>,
    pub took: Duration,
    hidden: BTreeSet<String>,
    folder: String,
}

/// How an action ended.
pub struct Done {
    pub status: &'static str,
    pub message: String,
    pub results: Map<String, Value>,
    pub log: Vec<String>,
}

/// The charm's own file, from the repository.
fn charm_file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display()))
}

/// The other side's variables of a relation event.
#[derive(Default)]
struct Event {
    variables: Vec<(String, String)>,
    relation: Option<u32>,
    remote_unit: String,
    broken: bool,
    action: Option<Action>,
}

impl World {
    /// A leader `windrow/0` in a Juju 3.6.11 with its container up, and the binary that was built.
    pub fn new() -> World {
        World::with_charm(
            &charm_file("metadata.yaml"),
            &charm_file("config.yaml"),
            &charm_file("actions.yaml"),
        )
    }

    /// The same with other texts of `metadata.yaml`, `config.yaml` and `actions.yaml`.
    pub fn with_charm(metadata: &str, config: &str, actions: &str) -> World {
        let folder = tempfile::tempdir_in("/charm").expect("a namespace of our own");
        let charm = folder.path().join("charm");
        std::fs::create_dir(&charm).expect("a new folder");
        let write = |name: &str, bytes: &[u8]| {
            std::fs::write(charm.join(name), bytes).expect("a new folder")
        };
        write("metadata.yaml", metadata.as_bytes());
        write("config.yaml", config.as_bytes());
        write("actions.yaml", actions.as_bytes());
        let built = env!("CARGO_BIN_EXE_dispatch");
        std::os::unix::fs::symlink(built, charm.join("dispatch")).expect("a new folder");
        let juju = Juju {
            charm: Charm::read(metadata, config, actions),
            version: "3.6.11".to_owned(),
            unit: "windrow/0".to_owned(),
            leader: true,
            model: "spark".to_owned(),
            uuid: MODEL.to_owned(),
            address: "10.1.63.230".to_owned(),
            config: BTreeMap::new(),
            relations: BTreeMap::new(),
            secrets: BTreeMap::new(),
            state: BTreeMap::new(),
            ports: BTreeSet::new(),
            unit_status: ("waiting".to_owned(), "agent initialising".to_owned()),
            app_status: ("unknown".to_owned(), String::new()),
            workload_version: String::new(),
            log: Vec::new(),
            statuses: Vec::new(),
            faults: BTreeMap::new(),
            hook: None,
            environments: BTreeSet::new(),
            made: 0,
        };
        hosts(&[]);
        let pebble = Pebble::new(folder.path());
        let mut world = World {
            juju: Arc::new(Mutex::new(juju)),
            pebble,
            workload: Answers::new(),
            hidden: BTreeSet::new(),
            environment: BTreeMap::new(),
            over: Arc::default(),
            contexts: 0,
            actions: 0,
            folder,
        };
        world.listen();
        world.refresh(b"\x7fELF a workload that nobody starts\0");
        world
    }

    /// Replaces the hook binary by a shell script.
    pub fn script(&self, text: &str) {
        let path = self.charm().join("dispatch");
        let _ = std::fs::remove_file(&path);
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("our folder");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("our file");
    }

    pub fn charm(&self) -> PathBuf {
        self.folder.path().join("charm")
    }

    /// All that Juju keeps: to look at, and to change between events.
    pub fn juju(&self) -> MutexGuard<'_, Juju> {
        self.juju.lock().expect("no hook command panicked")
    }

    /// The container, to look at and to change.
    pub fn container(&self) -> MutexGuard<'_, crate::pebble::State> {
        self.pebble.state.lock().expect("no request panicked")
    }

    pub fn mood(&self, mood: Mood) {
        self.container().mood = mood;
    }

    fn listen(&self) {
        let tools = self.folder.path().join("tools");
        std::fs::create_dir(&tools).expect("a new folder");
        let me = std::env::current_exe().expect("a running program has a path");
        for command in COMMANDS {
            std::os::unix::fs::symlink(&me, tools.join(command)).expect("a new folder");
        }
        let listener =
            UnixListener::bind(self.folder.path().join("agent.socket")).expect("a new folder");
        let (juju, over) = (Arc::clone(&self.juju), Arc::clone(&self.over));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let juju = Arc::clone(&juju);
                std::thread::spawn(move || {
                    let _ = answer(&stream, &juju);
                });
            }
        });
    }

    /// Sets an option.
    ///
    /// # Panics
    /// Where `juju config` would refuse it.
    pub fn set(&mut self, option: &str, value: impl Into<Value>) {
        let value = value.into();
        let mut juju = self.juju();
        let Some((kind, _)) = juju.charm.options.get(option) else {
            panic!("no option {option:?}")
        };
        assert!(
            crate::juju::is_a(kind, &value),
            "option {option:?} is a {kind}, not {value}"
        );
        juju.config.insert(option.to_owned(), value);
    }

    /// A user's secret that this unit may read; its URI.
    pub fn user_secret(&mut self, content: &[(&str, &str)]) -> String {
        let uri = self.add_secret("model", content, "");
        self.juju()
            .secrets
            .get_mut(&uri["secret:".len()..])
            .expect("just added")
            .granted = true;
        uri
    }

    fn add_secret(&mut self, owner: &str, content: &[(&str, &str)], model: &str) -> String {
        let mut juju = self.juju();
        juju.made += 1;
        let id = format!("c0stand{:012}g", juju.made);
        let bag: Bag = content
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        let secret = Secret {
            owner: owner.to_owned(),
            label: String::new(),
            our_label: String::new(),
            revisions: vec![Some(bag.clone())],
            granted: true,
            tracked: 0,
        };
        juju.secrets.insert(id.clone(), secret);
        drop(juju);
        self.hide(&bag);
        if model.is_empty() {
            format!("secret:{id}")
        } else {
            format!("secret://{model}/{id}")
        }
    }

    fn hide(&mut self, bag: &Bag) {
        const SECRET: [&str; 6] = [
            "password",
            "secret-key",
            "access-key",
            "token",
            "api-token",
            "key",
        ];
        let of = bag
            .iter()
            .filter(|(k, v)| SECRET.contains(&k.as_str()) && v.len() > 5);
        self.hidden.extend(of.map(|(_, v)| v.clone()));
    }

    /// Adds a relation, and its units where the provider has any yet; no event runs.
    pub fn integrate(&mut self, endpoint: &str, provider: Provider) -> u32 {
        let mut juju = self.juju();
        assert!(
            juju.charm.endpoints.contains_key(endpoint),
            "no endpoint {endpoint:?}"
        );
        juju.made += 1;
        let id = juju.relations.keys().last().map_or(0, |last| last + 1);
        let address = juju.address.clone();
        let of_unit = |address: &str| {
            Bag::from([
                ("egress-subnets".to_owned(), format!("{address}/32")),
                ("ingress-address".to_owned(), address.to_owned()),
                ("private-address".to_owned(), address.to_owned()),
            ])
        };
        let mut relation = Relation {
            endpoint: endpoint.to_owned(),
            app: provider.app.to_owned(),
            model: provider.model.to_owned(),
            ours_unit: of_unit(&address),
            remote: provider.first.iter().cloned().collect(),
            ..Relation::default()
        };
        for n in 0..provider.units {
            let mut bag = of_unit("10.152.183.7");
            let filled = provider
                .unit_bag
                .iter()
                .map(|(k, v)| (k.clone(), v.replace("{n}", &n.to_string())));
            bag.extend(filled);
            relation.units.insert(format!("{}/{n}", provider.app), bag);
        }
        relation.provider = Some(provider);
        juju.relations.insert(id, relation);
        drop(juju);
        self.providers();
        id
    }

    /// Adds a relation and runs its events in Juju's order: created, changed for the application's bag where it has answered
    /// already, then joined and changed for each unit.
    pub fn relate(&mut self, endpoint: &str, provider: Provider) -> u32 {
        let id = self.integrate(endpoint, provider);
        self.events_of(id);
        id
    }

    fn events_of(&mut self, id: u32) {
        let before = self.juju().relations[&id].remote.clone();
        self.relation_event(id, "created").good();
        if self.juju().relations[&id].remote != before {
            self.relation_event(id, "changed").good();
        }
        let units: Vec<String> = self.juju().relations[&id].units.keys().cloned().collect();
        for unit in units {
            self.unit_event(id, "joined", &unit).good();
            self.unit_event(id, "changed", &unit).good();
        }
    }

    /// Lets every provider answer what it is asked, once.
    fn providers(&mut self) {
        let due: Vec<(u32, Provider)> = {
            let juju = self.juju();
            let asked = juju.relations.iter().filter_map(|(id, r)| {
                let provider = r.provider.clone()?;
                provider.is_asked(&r.ours_app).then_some((*id, provider))
            });
            asked.collect()
        };
        for (id, provider) in due {
            let asked = self.juju().relations[&id]
                .ours_app
                .get(provider.request)
                .cloned()
                .unwrap_or_default();
            let fill = |text: &str| {
                text.replace("{id}", &id.to_string())
                    .replace("{request}", &asked)
            };
            let mut bag: Bag = provider
                .bag
                .iter()
                .map(|(k, v)| (k.clone(), fill(v)))
                .collect();
            self.hide(&bag);
            for (group, fields) in &provider.secrets {
                let fields: Vec<(&str, String)> =
                    fields.iter().map(|(k, v)| (k.as_str(), fill(v))).collect();
                let fields: Vec<(&str, &str)> =
                    fields.iter().map(|(k, v)| (*k, v.as_str())).collect();
                let uri = self.add_secret(provider.app, &fields, provider.model);
                let secret = crate::juju::secret_id(&uri).expect("our own");
                let mut juju = self.juju();
                juju.relations
                    .get_mut(&id)
                    .expect("listed")
                    .secrets
                    .insert(group.clone(), secret);
                bag.insert(group.clone(), uri);
            }
            let mut juju = self.juju();
            let relation = juju.relations.get_mut(&id).expect("listed");
            relation.remote.extend(bag);
            relation.provider = None;
        }
    }

    /// The other side changes its application's bag; an empty value deletes. No event runs.
    pub fn write(&mut self, id: u32, key: &str, value: &str) {
        self.hide(&Bag::from([(key.to_owned(), value.to_owned())]));
        let mut juju = self.juju();
        let bag = &mut juju.relations.get_mut(&id).expect("a relation").remote;
        if value.is_empty() {
            bag.remove(key);
        } else {
            bag.insert(key.to_owned(), value.to_owned());
        }
    }

    /// The secret of that group in that relation, to look at and to change: its grant, its revisions.
    pub fn with_secret<T>(
        &mut self,
        id: u32,
        group: &str,
        what: impl FnOnce(&mut Secret) -> T,
    ) -> T {
        let mut juju = self.juju();
        let secret = juju.relations[&id].secrets[group].clone();
        what(juju.secrets.get_mut(&secret).expect("a secret"))
    }

    /// A new revision of the charm, with another program for the workload.
    pub fn refresh(&mut self, binary: &[u8]) {
        let digest = sha256_hex(binary);
        std::fs::write(self.charm().join("windrow"), binary).expect("our folder");
        std::fs::write(self.charm().join("windrow.sha256"), format!("{digest}\n"))
            .expect("our folder");
    }

    /// The other side makes a new revision of a group's secret with these fields changed. No event runs.
    pub fn rotate(&mut self, id: u32, group: &str, fields: &[(&str, &str)]) {
        let mut juju = self.juju();
        let secret = juju.relations[&id].secrets[group].clone();
        let secret = juju.secrets.get_mut(&secret).expect("a secret");
        let mut bag = secret
            .revisions
            .last()
            .cloned()
            .flatten()
            .unwrap_or_default();
        bag.extend(
            fields
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned())),
        );
        secret.revisions.push(Some(bag.clone()));
        drop(juju);
        self.hide(&bag);
    }

    /// A plain hook: install, config-changed, start, update-status, …
    pub fn hook(&mut self, name: &str) -> Run {
        self.dispatch(&format!("hooks/{name}"), name, Event::default())
    }

    /// `created`, `changed` (the application's bag) or `broken` (its units have departed by then).
    pub fn relation_event(&mut self, id: u32, kind: &str) -> Run {
        if kind == "broken" {
            let mut juju = self.juju();
            let relation = juju.relations.get_mut(&id).expect("a relation");
            relation.members.clear();
            let units = std::mem::take(&mut relation.units);
            relation.gone.extend(units);
        }
        let run = self.relation_hook(id, kind, "", Vec::new());
        if kind == "broken" && run.error.is_none() {
            let mut juju = self.juju();
            let relation = juju.relations.remove(&id).expect("a relation");
            for secret in relation.secrets.values() {
                juju.secrets.remove(secret);
            }
        }
        run
    }

    /// `joined`, `changed` or `departed` of one unit.
    pub fn unit_event(&mut self, id: u32, kind: &str, unit: &str) -> Run {
        let mut more = Vec::new();
        {
            // A hook's unit is a member from its first hook on, and none any more in the one that says it departs.
            let mut juju = self.juju();
            let members = &mut juju.relations.get_mut(&id).expect("a relation").members;
            match kind {
                "departed" => members.remove(unit),
                _ => members.insert(unit.to_owned()),
            };
        }
        if kind == "departed" {
            more.push(("JUJU_DEPARTING_UNIT".to_owned(), unit.to_owned()));
        }
        let run = self.relation_hook(id, kind, unit, more);
        if kind == "departed" && run.error.is_none() {
            let mut juju = self.juju();
            let relation = juju.relations.get_mut(&id).expect("a relation");
            if let Some(bag) = relation.units.remove(unit) {
                relation.gone.insert(unit.to_owned(), bag);
            }
        }
        run
    }

    /// Removes a relation as Juju does: each unit departs, then it breaks.
    pub fn remove(&mut self, id: u32) -> Run {
        let units: Vec<String> = self.juju().relations[&id].units.keys().cloned().collect();
        for unit in units {
            self.unit_event(id, "departed", &unit).good();
        }
        self.relation_event(id, "broken")
    }

    fn relation_hook(
        &mut self,
        id: u32,
        kind: &str,
        unit: &str,
        more: Vec<(String, String)>,
    ) -> Run {
        let (endpoint, app) = {
            let juju = self.juju();
            let relation = &juju.relations[&id];
            (relation.endpoint.clone(), relation.app.clone())
        };
        let mut variables = vec![
            ("JUJU_RELATION".to_owned(), endpoint.clone()),
            ("JUJU_RELATION_ID".to_owned(), format!("{endpoint}:{id}")),
            ("JUJU_REMOTE_UNIT".to_owned(), unit.to_owned()),
            ("JUJU_REMOTE_APP".to_owned(), app),
        ];
        variables.extend(more);
        let name = format!("{endpoint}-relation-{kind}");
        let broken = kind == "broken";
        let remote_unit = unit.to_owned();
        let event = Event {
            variables,
            relation: Some(id),
            remote_unit,
            broken,
            ..Event::default()
        };
        self.dispatch(&format!("hooks/{name}"), &name, event)
    }

    fn workload_hook(&mut self, kind: &str, more: &[(&str, &str)]) -> Run {
        let mut variables = vec![("JUJU_WORKLOAD_NAME".to_owned(), "windrow".to_owned())];
        variables.extend(more.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
        let name = format!("windrow-pebble-{kind}");
        self.dispatch(
            &format!("hooks/{name}"),
            &name,
            Event {
                variables,
                ..Event::default()
            },
        )
    }

    pub fn pebble_ready(&mut self) -> Run {
        self.workload_hook("ready", &[])
    }

    /// The workload's state has changed: a custom notice with that data is there, and wakes the charm.
    pub fn notice(&mut self, key: &str, data: &Value) -> Run {
        let id = {
            let mut container = self.container();
            container.notices.retain(|notice| notice["key"] != key);
            let id = (container.notices.len() + 100).to_string();
            container.notices.push(json!({
                "id": id, "user-id": 0, "type": "custom", "key": key, "last-data": data, "occurrences": 1,
                "first-occurred": "2026-01-01T00:00:00Z", "last-occurred": "2026-01-01T00:00:00Z",
                "last-repeated": "2026-01-01T00:00:00Z", "expire-after": "168h0m0s",
            }));
            id
        };
        let more = [
            ("JUJU_NOTICE_ID", id.as_str()),
            ("JUJU_NOTICE_TYPE", "custom"),
            ("JUJU_NOTICE_KEY", key),
        ];
        self.workload_hook("custom-notice", &more)
    }

    /// Check `up` has failed, or recovered.
    pub fn check(&mut self, kind: &str) -> Run {
        self.workload_hook(
            &format!("check-{kind}"),
            &[("JUJU_PEBBLE_CHECK_NAME", "up")],
        )
    }

    /// A new revision of the group's secret of that relation is there.
    pub fn secret_changed(&mut self, id: u32, group: &str) -> Run {
        let secret = self.juju().relations[&id].secrets[group].clone();
        self.secret_event("secret-changed", &secret)
    }

    pub fn secret_event(&mut self, name: &str, secret: &str) -> Run {
        let label = self
            .juju()
            .secrets
            .get(secret)
            .map(|s| s.our_label.clone())
            .unwrap_or_default();
        let variables = vec![
            ("JUJU_SECRET_ID".to_owned(), format!("secret:{secret}")),
            ("JUJU_SECRET_LABEL".to_owned(), label),
        ];
        self.dispatch(
            &format!("hooks/{name}"),
            name,
            Event {
                variables,
                ..Event::default()
            },
        )
    }

    /// Runs an action; its parameters are checked as Juju does.
    ///
    /// # Panics
    /// Where Juju would not run it at all.
    pub fn action(&mut self, name: &str, parameters: &Value) -> Run {
        let parameters = self
            .juju()
            .charm
            .parameters(name, parameters)
            .unwrap_or_else(|e| panic!("action {name}: {e}"));
        self.actions += 1;
        let number = self.actions;
        let variables = vec![
            ("JUJU_ACTION_NAME".to_owned(), name.to_owned()),
            ("JUJU_ACTION_UUID".to_owned(), number.to_string()),
            ("JUJU_ACTION_TAG".to_owned(), format!("action-{number}")),
        ];
        let action = Action {
            parameters,
            ..Action::default()
        };
        let event = Event {
            variables,
            action: Some(action),
            ..Event::default()
        };
        self.dispatch(&format!("actions/{name}"), "", event)
    }

    /// The environment that Juju 3.6 (3.5 where it is told so) gives a hook on Kubernetes, and nothing else.
    fn variables(&self, path: &str, hook: &str, context: &str) -> BTreeMap<String, String> {
        let charm = self.charm().display().to_string();
        let folder = self.folder.path().display().to_string();
        let juju = self.juju();
        let pairs: [(&str, &str); 29] = [
            ("CHARM_DIR", &charm),
            ("JUJU_CHARM_DIR", &charm),
            ("JUJU_CONTEXT_ID", context),
            ("JUJU_HOOK_NAME", hook),
            ("JUJU_DISPATCH_PATH", path),
            (
                "JUJU_AGENT_SOCKET_ADDRESS",
                &format!("{folder}/agent.socket"),
            ),
            ("JUJU_AGENT_SOCKET_NETWORK", "unix"),
            ("JUJU_UNIT_NAME", &juju.unit),
            ("JUJU_MODEL_UUID", &juju.uuid),
            ("JUJU_MODEL_NAME", &juju.model),
            (
                "JUJU_API_ADDRESSES",
                "controller-service.controller-k8s.svc.cluster.local:17070",
            ),
            ("JUJU_VERSION", &juju.version),
            ("CLOUD_API_VERSION", "1.32.0"),
            ("JUJU_SLA", "unsupported"),
            ("JUJU_MACHINE_ID", ""),
            ("JUJU_PRINCIPAL_UNIT", ""),
            ("JUJU_AVAILABILITY_ZONE", ""),
            ("JUJU_CHARM_HTTP_PROXY", ""),
            ("JUJU_CHARM_HTTPS_PROXY", ""),
            ("JUJU_CHARM_FTP_PROXY", ""),
            ("JUJU_CHARM_NO_PROXY", ""),
            (
                "PATH",
                &format!(
                    "{folder}/tools:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
                ),
            ),
            ("LANG", "C.UTF-8"),
            ("TERM", "tmux-256color"),
            ("DEBIAN_FRONTEND", "noninteractive"),
            ("APT_LISTCHANGES_FRONTEND", "none"),
            ("KUBERNETES_SERVICE_HOST", "10.152.183.1"),
            ("KUBERNETES_SERVICE_PORT", "443"),
            ("KUBERNETES_PORT", "tcp://10.152.183.1:443"),
        ];
        let mut variables: BTreeMap<String, String> = pairs
            .into_iter()
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect();
        if juju.version.starts_with("3.5") {
            variables.insert("JUJU_METER_STATUS".to_owned(), "AMBER".to_owned());
            variables.insert("JUJU_METER_INFO".to_owned(), "not set".to_owned());
        }
        variables.extend(self.environment.clone());
        variables
    }

    /// Runs the binary once and takes what it left behind.
    fn dispatch(&mut self, path: &str, hook: &str, event: Event) -> Run {
        self.contexts += 1;
        let context = format!(
            "{}-{}-{}",
            self.juju().unit.replace('/', "-"),
            hook,
            self.contexts
        );
        let mut variables = self.variables(path, hook, &context);
        variables.extend(event.variables);
        let is_action = event.action.is_some();
        {
            let mut juju = self.juju();
            // What Juju 3.5 lacks.
            let newer = self.folder.path().join("tools/relation-model-get");
            if juju.version.starts_with("3.5") {
                let _ = std::fs::remove_file(newer);
            }
            juju.log.clear();
            juju.statuses.clear();
            juju.environments.clear();
            let relation = event.relation.and_then(|id| juju.relations.get(&id));
            let remote_app = relation.map(|r| r.app.clone()).unwrap_or_default();
            juju.hook = Some(Hook {
                context,
                relation: event.relation,
                remote_unit: event.remote_unit,
                remote_app,
                broken: event.broken,
                action: event.action,
                ..Hook::default()
            });
        }
        self.pebble.show();
        let (service_runs, before) = {
            let mut container = self.container();
            container.requests.clear();
            (
                container.mood == Mood::Up && container.services.values().any(|s| s.active),
                container.tell(),
            )
        };
        let workload = (service_runs && !self.workload.is_empty())
            .then(|| Workload::new(self.workload.clone()));
        let began = Instant::now();
        let output = run(&self.charm(), &variables);
        let took = began.elapsed();
        let asked = workload
            .map(|w| w.requests.lock().expect("not poisoned").clone())
            .unwrap_or_default();

        let mut juju = self.juju();
        let mut hook = juju.hook.take().expect("set above");
        let mut error = (output.0 != 0).then(|| format!("exit status {}", output.0));
        let mut flushed = Vec::new();
        if error.is_none() {
            match juju.commit(&mut hook) {
                Ok(said) => flushed = said,
                Err(e) => error = Some(e),
            }
        }
        let mut action = None;
        if let Some(mut ended) = hook.action.take() {
            for (key, value) in [("stdout", &output.1), ("stderr", &output.2)] {
                if !value.is_empty() {
                    ended.results.insert(key.to_owned(), json!(value));
                }
            }
            ended
                .results
                .insert("return-code".to_owned(), json!(output.0));
            let message = error.take().or(ended.failed);
            action = Some(Done {
                status: if message.is_some() {
                    "failed"
                } else {
                    "completed"
                },
                message: message.unwrap_or_default(),
                results: ended.results,
                log: ended.log,
            });
        }
        let status = format!("{} {:?}", juju.unit_status.0, juju.unit_status.1);
        let (log, statuses) = (juju.log.clone(), juju.statuses.clone());
        // What Juju itself says is not the charm's doing.
        let told: BTreeSet<String> = variables.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let environments: BTreeSet<String> = juju.environments.difference(&told).cloned().collect();
        drop(juju);
        self.providers();
        let container = self.container();
        let after = container.tell();
        let name = if is_action { path } else { hook_name(path) };
        let run = Run {
            event: name.to_owned(),
            exit: output.0,
            error,
            stdout: output.1,
            stderr: output.2,
            calls: hook.calls,
            flushed,
            status,
            statuses,
            log,
            action,
            pebble: container.requests.clone(),
            workload: asked,
            container: changed(&before, &after),
            took,
            hidden: self.hidden.clone(),
            folder: self.folder.path().display().to_string(),
        };
        drop(container);
        self.no_credential_in(&run, &environments);
        run
    }

    /// # Panics
    /// When a credential is anywhere but where it belongs.
    fn no_credential_in(&self, run: &Run, environments: &BTreeSet<String>) {
        let mut places: Vec<(String, String)> = vec![
            ("stdout".to_owned(), run.stdout.clone()),
            ("stderr".to_owned(), run.stderr.clone()),
            ("log".to_owned(), run.log.join("\n")),
            ("statuses".to_owned(), run.statuses.join("\n")),
            ("pebble requests".to_owned(), run.pebble.join("\n")),
            (
                "hook commands' environment".to_owned(),
                environments.iter().cloned().collect::<Vec<_>>().join("\n"),
            ),
        ];
        for call in &run.calls {
            places.push((
                "arguments of a hook command".to_owned(),
                format!("{} {}", call.command, call.args.join(" ")),
            ));
        }
        if let Some(action) = &run.action {
            places.push((
                "action results".to_owned(),
                format!("{:?} {}", action.results, action.message),
            ));
        }
        let container = self.container();
        places.push(("plan".to_owned(), container.plan().to_string()));
        for (path, file) in container
            .files
            .iter()
            .filter(|(path, _)| !path.ends_with("/secrets.yaml"))
        {
            places.push((
                path.clone(),
                String::from_utf8_lossy(&file.bytes).into_owned(),
            ));
        }
        drop(container);
        let juju = self.juju();
        for (key, value) in &juju.state {
            places.push((format!("charm state {key}"), value.clone()));
        }
        for (id, relation) in &juju.relations {
            for bag in [&relation.ours_app, &relation.ours_unit] {
                places.push((format!("our databag of relation {id}"), format!("{bag:?}")));
            }
        }
        drop(juju);
        for (place, text) in places {
            for value in &self.hidden {
                assert!(
                    !text.contains(value.as_str()),
                    "{}: a credential is in {place}",
                    run.event
                );
            }
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = UnixStream::connect(self.folder.path().join("agent.socket"));
    }
}

/// The parts of what a container tells that are new or other, and the names of those that are gone.
fn changed(before: &[String], after: &[String]) -> Vec<String> {
    let parts = |lines: &[String]| {
        let mut parts: Vec<Vec<String>> = Vec::new();
        for line in lines {
            match parts.last_mut() {
                Some(part) if line.starts_with(' ') => part.push(line.clone()),
                _ => parts.push(vec![line.clone()]),
            }
        }
        parts
    };
    let name = |part: &Vec<String>| part[0].split(' ').take(2).collect::<Vec<_>>().join(" ");
    let (before, after) = (parts(before), parts(after));
    let gone = before
        .iter()
        .map(name)
        .filter(|old| !after.iter().any(|new| name(new) == *old));
    let mut said: Vec<String> = gone.map(|name| format!("{name} is gone")).collect();
    said.extend(
        after
            .iter()
            .filter(|part| !before.contains(part))
            .flatten()
            .cloned(),
    );
    said
}

fn hook_name(path: &str) -> &str {
    path.strip_prefix("hooks/").unwrap_or(path)
}

/// Answers one hook command.
fn answer(stream: &UnixStream, juju: &Arc<Mutex<Juju>>) -> std::io::Result<()> {
    for line in BufReader::new(stream).lines() {
        let call: Call = serde_json::from_str(&line?)?;
        let mut juju = juju.lock().expect("no hook command panicked");
        juju.environments
            .extend(call.env.iter().map(|(k, v)| format!("{k}={v}")));
        let reply = match juju.run(
            &call.context,
            &call.command,
            &call.args,
            call.stdin.as_deref(),
        ) {
            None => Reply::NeedStdin,
            Some((code, stdout, stderr)) => Reply::Done {
                code,
                stdout,
                stderr,
            },
        };
        drop(juju);
        let mut text = serde_json::to_string(&reply)?;
        text.push('\n');
        (&mut &*stream).write_all(text.as_bytes())?;
    }
    Ok(())
}

/// The longest a dispatch may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// Runs `dispatch` as Juju does: exit code, stdout, stderr.
fn run(charm: &Path, variables: &BTreeMap<String, String>) -> (i32, String, String) {
    let child = Command::new(charm.join("dispatch"))
        .current_dir(charm)
        .env_clear()
        .envs(variables)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("dispatch can be started");
    let (done, watched) = std::sync::mpsc::channel::<()>();
    let id = child.id().to_string();
    let watch = std::thread::spawn(move || {
        if watched.recv_timeout(DEADLINE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            let _ = Command::new("kill").args(["-KILL", &id]).status();
        }
    });
    let output = child.wait_with_output().expect("a child of ours");
    drop(done);
    let _ = watch.join();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (
        output.status.code().unwrap_or(-1),
        text(output.stdout),
        text(output.stderr),
    )
}

impl Run {
    /// The same run, when the hook ended well.
    ///
    /// # Panics
    /// When it did not.
    pub fn good(self) -> Run {
        assert!(
            self.error.is_none(),
            "{}: {}\n{}",
            self.event,
            self.error.as_deref().unwrap_or_default(),
            self.tell()
        );
        self
    }

    /// How often a hook command was called; all of them for `""`.
    pub fn count(&self, command: &str) -> usize {
        self.calls
            .iter()
            .filter(|call| command.is_empty() || call.command == command)
            .count()
    }

    /// What was changed in the container, in a few words: `push`, `write a.yaml`, `layer`, `replan`, `SIGHUP`, `remove`.
    pub fn did(&self) -> String {
        let word = |line: &String| {
            let (method, rest) = line.split_once(' ').unwrap_or_default();
            if let Some(path) = line.strip_prefix("  write ") {
                let path = path.split(' ').next().unwrap_or_default();
                let name = path.rsplit('/').next().unwrap_or_default();
                return Some(if path.starts_with("/opt/") {
                    "push".to_owned()
                } else {
                    format!("write {name}")
                });
            }
            if let Some(body) = line.strip_prefix("  {") {
                return Some(if body.contains("\"remove\"") {
                    "remove".to_owned()
                } else {
                    "make folders".to_owned()
                });
            }
            let (path, body) = rest.split_once(' ').unwrap_or((rest, "{}"));
            let body: Value = serde_json::from_str(body).unwrap_or_default();
            match (method, path) {
                ("POST", "/v1/layers") => Some("layer".to_owned()),
                ("POST", "/v1/services") => body["action"].as_str().map(str::to_owned),
                ("POST", "/v1/signals") => body["signal"].as_str().map(str::to_owned),
                ("POST", "/v1/exec") => Some("exec".to_owned()),
                ("POST", "/v1/files") | ("GET", _) => None,
                _ => Some(line.clone()),
            }
        };
        let words: Vec<String> = self.pebble.iter().filter_map(word).collect();
        words.join(", ")
    }

    /// The status, what was done in the container and what Juju kept, on one line without what is different each time.
    pub fn brief(&self) -> String {
        let mut line = self.status.clone();
        if let Some(error) = &self.error {
            line = format!("{error}: {line}");
        }
        if let Some(action) = &self.action {
            line = format!("{} {:?}", action.status, action.message);
        }
        let did = self.did();
        if !did.is_empty() {
            line += &format!(" [{did}]");
        }
        let kept = self
            .flushed
            .iter()
            .map(|l| l.split(": ").next().unwrap_or_default());
        let kept: Vec<&str> = kept.filter(|l| *l != "state memo").collect();
        if !kept.is_empty() {
            line += &format!(" kept {}", kept.join(", "));
        }
        for value in &self.hidden {
            line = line.replace(value.as_str(), "***");
        }
        line.replace(&self.folder, "FOLDER")
    }

    /// All of it, for a golden file: no time, no folder, no credential.
    pub fn tell(&self) -> String {
        let mut said = vec![format!(
            "{} {}",
            self.event,
            self.error.as_deref().unwrap_or("done")
        )];
        let mut section = |name: &str, lines: &[String]| {
            if !lines.is_empty() {
                said.push(format!("  {name}"));
                said.extend(
                    lines
                        .iter()
                        .flat_map(|l| l.lines())
                        .map(|line| format!("    {line}")),
                );
            }
        };
        let clean = |text: &str| {
            let text = self.hidden.iter().fold(text.to_owned(), |text, value| {
                text.replace(value.as_str(), "***")
            });
            text.replace(&self.folder, "FOLDER")
        };
        let calls: Vec<String> = self.calls.iter().map(|call| told(call, clean)).collect();
        section("hook commands", &calls);
        section("statuses", &self.statuses);
        section("log", &self.log);
        section(
            "printed",
            &[
                self.stdout.trim_end().to_owned(),
                self.stderr.trim_end().to_owned(),
            ],
        );
        section("kept", &self.flushed);
        if let Some(action) = &self.action {
            let mut lines = vec![
                format!("{} {}", action.status, action.message)
                    .trim_end()
                    .to_owned(),
            ];
            lines.extend(action.results.iter().map(|(k, v)| format!("{k}: {v}")));
            lines.extend(action.log.iter().map(|l| format!("log {l}")));
            section("action", &lines);
        }
        section("pebble", &self.pebble);
        section("workload", &self.workload);
        section("container", &self.container);
        clean(&(said.join("\n") + "\n"))
    }
}

/// A hook command on one line, with long values cut.
fn told(call: &Called, clean: impl Fn(&str) -> String) -> String {
    let mut line = call.command.clone();
    for arg in &call.args {
        let mut arg: String = clean(arg).replace('\n', "\\n");
        if let Some((at, _)) = arg.char_indices().nth(100) {
            arg.truncate(at);
            arg.push('…');
        }
        let plain = !arg.is_empty() && !arg.contains(' ');
        line += &if plain {
            format!(" {arg}")
        } else {
            format!(" {arg:?}")
        };
    }
    if call.stdin.is_some() {
        line += " <stdin";
    }
    if call.code != 0 {
        line += &format!(" → {} {}", call.code, call.stderr.trim_end());
    }
    line
}

/// Writes names that resolve inside these namespaces.
pub fn hosts(names: &[&str]) {
    let lines: Vec<String> = names
        .iter()
        .map(|name| format!("127.0.0.1 {name}\n"))
        .collect();
    // In place: `/etc/hosts` is this very file.
    std::fs::write(
        "/charm/hosts",
        format!("127.0.0.1 localhost\n{}", lines.concat()),
    )
    .expect("a namespace of our own");
}
