//! The edge that looks: hook commands, Pebble, the running windrow and, where a name is missing,
//! Kubernetes and DNS → [`Facts`]. What must be asked in addition, `needs` says.
//!
//! A hook command costs some 4 ms, so what cannot have changed is remembered and not asked again.

use crate::context::{Context, RelationEvent};
use crate::facts::{
    CA, CharmFiles, Container, ENDPOINTS, Facts, LOGGING, Memo, NEEDED, Namespace, PebbleTrouble,
    Proxy, Relation, RelationMemo, Up, endpoint_of,
};
use crate::hookcmd::{HookCommands, HookError};
use crate::layer::{BINARY_DIR, LAST_WORDS, SERVICE};
use crate::namespace;
use crate::needs::{Need, OptionChoice, choose_options, next_need};
use crate::pebble::{Pebble, PebbleError};
use crate::rendered::{FILES, token_in_force};
use crate::workload;
use anyhow::{Context as _, Result};
use std::collections::BTreeMap;
use windrow_core::settings::config::Secret;

/// Hooks at which no relation comes or goes. (A relation's own hooks tell only about relations of
/// its endpoint.)
const QUIET: [&str; 7] = [
    "update-status",
    "secret-changed",
    "secret-remove",
    "windrow-pebble-ready",
    "windrow-pebble-custom-notice",
    "windrow-pebble-check-failed",
    "windrow-pebble-check-recovered",
];

/// The result of looking.
pub struct Observation {
    /// Everything that a plan needs.
    pub facts: Facts,
    /// The text of the memo as it was read; empty where there was none.
    pub memo_text: String,
    /// The options that count.
    pub chosen: OptionChoice,
}

/// Looks at everything once, and then asks what `needs` says.
///
/// # Errors
/// A hook command failed. Then nothing is known, and Juju must run the hook again.
pub fn gather(context: &Context, hooks: &HookCommands, pebble: &Pebble) -> Result<Observation> {
    let options = hooks.config_get()?;
    let memo_text = hooks.state_get(Memo::KEY)?.unwrap_or_default();
    // The memo of another version of the charm may be unreadable. Then everything is asked again.
    let mut memo: Memo = serde_json::from_str(&memo_text).unwrap_or_default();
    let relations = read_relations(context, hooks, &mut memo, memo_text.is_empty())?;
    let token = options
        .get("api-token")
        .and_then(|uri| uri.as_str())
        .map(str::trim)
        // As with every other option, an empty one is one that is not set.
        .filter(|uri| !uri.is_empty())
        .map(|uri| workload::read_token(hooks, uri));
    let chosen = choose_options(&options, &memo);
    let mut facts = Facts {
        unit: context.unit.clone(),
        model_uuid: context.model_uuid.clone(),
        model_name: context.model_name.clone(),
        instance: context.instance(),
        uid: own_uid()?,
        leader: None,
        options,
        token,
        memo,
        relations,
        container: read_container(pebble),
        charm: read_charm_files(context)?,
        kafka_namespace: None,
        proxy: Proxy {
            http: context.http_proxy.clone(),
            https: context.https_proxy.clone(),
            no_proxy: context.no_proxy.clone(),
        },
        shown: hooks.status_get().ok(),
    };
    while let Some(need) = next_need(&facts, &chosen) {
        ask_for(need, &mut facts, hooks)?;
    }
    Ok(Observation {
        facts,
        memo_text,
        chosen,
    })
}

fn read_charm_files(context: &Context) -> Result<CharmFiles> {
    let (program, digest) = (
        context.charm_dir.join("windrow"),
        context.charm_dir.join("windrow.sha256"),
    );
    let incomplete = |path: &std::path::Path| {
        format!(
            "cannot read file \"{}\": the charm is incomplete; deploy it again",
            path.display()
        )
    };
    let text = std::fs::read_to_string(&digest).with_context(|| incomplete(&digest))?;
    let size_bytes = std::fs::metadata(&program)
        .with_context(|| incomplete(&program))?
        .len();
    let digest = text
        .split_whitespace()
        .next()
        .unwrap_or_default()
        .to_owned();
    anyhow::ensure!(
        digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit()),
        "cannot read file windrow.sha256: it holds no SHA-256; deploy the charm again"
    );
    Ok(CharmFiles {
        digest,
        size_bytes,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

/// The user that this process runs as: on Linux it owns `/proc/self` (proc(5)).
fn own_uid() -> Result<u32> {
    use std::os::unix::fs::MetadataExt;
    Ok(std::fs::metadata("/proc/self")
        .context("cannot read /proc/self")?
        .uid())
}

// ---------------------------------------------------------------- relations

/// Reads all relations. `memo` is brought up to date: relations that are gone leave it.
fn read_relations(
    context: &Context,
    hooks: &HookCommands,
    memo: &mut Memo,
    forgot: bool,
) -> Result<BTreeMap<String, Vec<Relation>>> {
    let event = context.relation();
    let is_quiet =
        !forgot && (event.is_some() || context.hook().is_some_and(|hook| QUIET.contains(&hook)));
    let mut all = BTreeMap::new();
    let mut known = std::mem::take(&mut memo.relations);
    for endpoint in ENDPOINTS {
        let unchanged = is_quiet && event.is_none_or(|event| event.endpoint != endpoint);
        let mut ids: Vec<String> = if unchanged {
            known
                .keys()
                .filter(|id| endpoint_of(id) == endpoint)
                .cloned()
                .collect()
        } else {
            hooks.relation_ids(endpoint)?
        };
        ids.retain(|id| event.is_none_or(|event| !event.broken || event.id != *id));
        ids.sort_by_key(|id| relation_number(id));
        let mut relations = Vec::new();
        for id in ids {
            let mut about = known.remove(&id).unwrap_or_default();
            match read_relation(hooks, endpoint, &id, &mut about, event) {
                Ok(relation) => {
                    relations.push(relation);
                    memo.relations.insert(id, about);
                }
                // It has ended, and somebody told Juju to go on without its hook.
                Err(HookError::Gone { .. }) => {}
                Err(error) if NEEDED.contains(&endpoint) => return Err(error.into()),
                // Counting goes on without these.
                Err(error) => {
                    relations.push(Relation {
                        id: id.clone(),
                        app: about.app.clone(),
                        unread: Some(error.words()),
                        ..Relation::default()
                    });
                    memo.relations.insert(id, about);
                }
            }
        }
        if !relations.is_empty() {
            all.insert(endpoint.to_owned(), relations);
        }
    }
    Ok(all)
}

/// 4 of `kafka-client:4`. Juju counts relations up, so a higher number is newer.
fn relation_number(id: &str) -> u64 {
    id.rsplit(':')
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or_default()
}

fn read_relation(
    hooks: &HookCommands,
    endpoint: &str,
    id: &str,
    about: &mut RelationMemo,
    event: Option<&RelationEvent>,
) -> Result<Relation, HookError> {
    if about.app.is_empty() {
        about.app = match event {
            Some(event) if event.id == id && !event.app.is_empty() => event.app.clone(),
            _ => hooks.relation_app(id)?,
        };
    }
    let mut relation = Relation {
        id: id.to_owned(),
        app: about.app.clone(),
        ..Relation::default()
    };
    // On the other endpoints, the remote application has nothing to say to us.
    if endpoint == CA || NEEDED.contains(&endpoint) {
        relation.data = hooks.relation_get(id, &about.app, true)?;
    }
    // Version 0 of certificate_transfer writes into the databags of units alone.
    if endpoint == LOGGING || endpoint == CA && !relation.data.contains_key("certificates") {
        for unit in hooks.relation_list(id)? {
            let bag = hooks.relation_get(id, &unit, false)?;
            relation.units.insert(unit, bag);
        }
    }
    for (key, uri) in relation
        .data
        .iter()
        .filter(|(key, uri)| key.starts_with("secret-") && uri.starts_with("secret:"))
    {
        // Without a label: a label stays with the first secret when a provider makes another one in
        // the same relation. And always the newest revision: Juju does not say when a secret of
        // another model has changed.
        let content = hooks.secret_get(uri).map_err(|error| error.words());
        relation.secrets.insert(key.clone(), content);
    }
    Ok(relation)
}

// ---------------------------------------------------------------- what is needed in addition

/// Asks one thing, and adds the answer to the facts.
fn ask_for(need: Need, facts: &mut Facts, hooks: &HookCommands) -> Result<()> {
    match need {
        Need::KafkaModel {
            relation,
            from_secret,
        } => {
            let model = match from_secret {
                Some(model) => model,
                None => hooks.relation_model(&relation)?.unwrap_or_default(),
            };
            facts.memo.relations.entry(relation).or_default().model = Some(model);
        }
        Need::KafkaNamespace { model, host } => {
            let namespace = ask_namespace(&model, &host);
            if let Namespace::Is(name) = &namespace {
                facts.memo.namespaces.insert(model, name.clone());
            }
            facts.kafka_namespace = Some(namespace);
        }
        Need::Leader => facts.leader = Some(hooks.is_leader()?),
        Need::OwnData { relation } => {
            let app = facts.app().to_owned();
            let own = hooks.relation_get(&relation, &app, true)?;
            let mut all = facts.relations.values_mut().flatten();
            if let Some(found) = all.find(|one| one.id == relation) {
                found.own = Some(own);
            }
        }
    }
    Ok(())
}

/// Asks Kubernetes for the namespace of a model; and DNS, where Kubernetes does not tell.
fn ask_namespace(model: &str, host: &str) -> Namespace {
    let answer = if model.is_empty() {
        Namespace::Unknown("this Juju does not say which model Kafka is in".to_owned())
    } else {
        namespace::find_namespace(model)
    };
    match answer {
        Namespace::Is(name) => Namespace::Is(name),
        _ if namespace::resolves(host) => Namespace::Here,
        other => other,
    }
}

// ---------------------------------------------------------------- the container

fn read_container(pebble: &Pebble) -> Container {
    match read_pebble(pebble) {
        Ok(up) => Container::Up(Box::new(up)),
        Err(error) => {
            println!("{error}");
            Container::Away(trouble_of(&error))
        }
    }
}

/// What an error of Pebble means for people.
#[must_use]
pub fn trouble_of(error: &PebbleError) -> PebbleTrouble {
    match error {
        PebbleError::Down(_) => PebbleTrouble::Down,
        PebbleError::Slow(_) | PebbleError::Refused { status: 504, .. } => PebbleTrouble::Slow,
        PebbleError::Refused { status: 500.., .. } => PebbleTrouble::Unwell(error.to_string()),
        PebbleError::Refused { .. } | PebbleError::Overdue(_) | PebbleError::Failed(_) => {
            PebbleTrouble::Refused(error.to_string())
        }
    }
}

fn read_pebble(pebble: &Pebble) -> Result<Up, PebbleError> {
    let plan = pebble.plan()?;
    let service = pebble.services()?.remove(SERVICE);
    let binaries = pebble.list(BINARY_DIR)?;
    let files = read_files(pebble)?;
    let mut up = Up {
        plan,
        service,
        binaries,
        files,
        ..Up::default()
    };
    if up.service.as_deref() == Some("active") {
        up.windrow = workload::status(token_in_force(&up.files).as_ref());
    }
    let should_run = matches!(up.service.as_deref(), Some("active" | "backoff" | "error"));
    if up.windrow.is_none() && should_run {
        up.last_words = pebble.logs(SERVICE, LAST_WORDS).unwrap_or_default();
    }
    Ok(up)
}

/// The files that the charm writes, as far as they can be read back. One that is too long, or a
/// folder in its place, must not hold back all the others: it counts as empty.
fn read_files(pebble: &Pebble) -> Result<BTreeMap<String, Secret>, PebbleError> {
    let all = match pebble.read_files(&FILES) {
        Ok(all) => all,
        Err(PebbleError::Failed(why) | PebbleError::Refused { message: why, .. }) => {
            println!("{why}; reading them one by one");
            let mut all = BTreeMap::new();
            for path in FILES {
                match pebble.read_files(&[path]) {
                    Ok(one) => all.extend(one),
                    Err(PebbleError::Failed(why)) => {
                        println!("{why}");
                        all.insert(path.to_owned(), Vec::new());
                    }
                    Err(error) => return Err(error),
                }
            }
            all
        }
        Err(error) => return Err(error),
    };
    let text = |bytes| Secret::new(String::from_utf8(bytes).unwrap_or_default());
    Ok(all
        .into_iter()
        .map(|(path, bytes)| (path, text(bytes)))
        .collect())
}
