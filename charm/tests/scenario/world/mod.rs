//! A world to run the hook binary in: Juju, Pebble, the workload's port and the other charms.
//!
//! ```text
//! // The leader windrow/0 in a Juju 3.6, and Pebble is up.
//! let mut world = World::new();
//! world.set("topic-name", "clicks");
//! // The hooks created, joined and changed, in Juju's order.
//! let kafka = world.relate("kafka-client", Provider::kafka_3());
//! // Or pebble_ready(), action(…), relation_event(…).
//! let run = world.hook("config-changed");
//! assert_eq!(run.status, "waiting …");
//! golden::check("config-changed", &run.tell());
//! ```

mod events;
mod dispatch;
mod run;

pub use run::{Done, Run};

use crate::juju::{Bag, COMMANDS, Charm, Juju, Relation, Secret};
use crate::pebble::{Mood, Pebble};
use crate::provider::Provider;
use crate::workload::Answers;
use dispatch::answer;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use windrow_core::values::digest::sha256_hex;

/// The UUID of our model, unless a test says otherwise.
pub const MODEL: &str = "3f2c6a1e-0000-4000-8000-000000000001";
/// The UUID of another model.
pub const OTHER_MODEL: &str = "3f2c6a1e-0000-4000-8000-000000000002";

pub struct World {
    folder: tempfile::TempDir,
    juju: Arc<Mutex<Juju>>,
    pub pebble: Pebble,
    /// What the workload answers once its service runs; empty when nothing should listen.
    pub workload: Answers,
    /// Values that must be nowhere except in secrets, in databags and in the secrets file.
    pub hidden: BTreeSet<String>,
    /// Variables that Juju adds to the environment, such as `JUJU_CHARM_HTTP_PROXY`.
    pub environment: BTreeMap<String, String>,
    over: Arc<AtomicBool>,
    contexts: u32,
    actions: u32,
}

/// A file of the charm, from the repository.
fn charm_file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display()))
}

impl World {
    /// The leader `windrow/0` in a Juju 3.6.11, with its container up and the binary that was
    /// built.
    pub fn new() -> World {
        World::with_charm(
            &charm_file("metadata.yaml"),
            &charm_file("config.yaml"),
            &charm_file("actions.yaml"),
        )
    }

    /// The same, with other texts of `metadata.yaml`, `config.yaml` and `actions.yaml`.
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

    /// Replaces the hook binary with a shell script.
    pub fn script(&self, text: &str) {
        let path = self.charm().join("dispatch");
        let _ = std::fs::remove_file(&path);
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("our folder");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("our file");
    }

    pub fn charm(&self) -> PathBuf {
        self.folder.path().join("charm")
    }

    /// Everything that Juju keeps, to look at and to change between events.
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
    /// When `juju config` would refuse it.
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

    /// Makes a user secret that this unit may read, and gives its URI.
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

    /// Adds a relation, and its units where the provider has any yet. No event runs.
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

    /// Adds a relation and runs its events in Juju's order: created; changed for the application's
    /// databag, where it has answered already; then joined and changed for each unit.
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

    /// Lets every provider answer, once, what it is asked.
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

    /// The other side changes its application's databag. An empty value deletes. No event runs.
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

    /// The secret of a group in a relation, to look at and to change: its grant and its revisions.
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

    /// The other side makes a new revision of a group's secret, with these fields changed. No event
    /// runs.
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
}

impl Drop for World {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = UnixStream::connect(self.folder.path().join("agent.socket"));
    }
}

/// Makes these names resolve inside the test's namespaces.
pub fn hosts(names: &[&str]) {
    let lines: Vec<String> = names
        .iter()
        .map(|name| format!("127.0.0.1 {name}\n"))
        .collect();
    // It is written in place, because `/etc/hosts` is bound to this very file.
    std::fs::write(
        "/charm/hosts",
        format!("127.0.0.1 localhost\n{}", lines.concat()),
    )
    .expect("a namespace of our own");
}
