//! The edge that looks: hook commands, Pebble, the running windrow and, where a name is missing, Kubernetes → [`Facts`].
//! Each hook command costs some 4 ms, so what cannot have changed is remembered.

use crate::context::Context;
use crate::endpoint::kafka::model_of_secret;
use crate::facts::{
    CA, CharmFiles, Container, ENDPOINTS, Facts, KAFKA, Known, LOGGING, METASTORE, Memo, Namespace,
    Proxy, Relation, S3, Up,
};
use crate::hookcmd::{HookCommands, HookError};
use crate::layer::{BINARY_DIR, SERVICE};
use crate::namespace;
use crate::pebble::{Pebble, PebbleError};
use crate::reconcile::{Chosen, asks_leader, asks_namespace, choose};
use crate::settings::{FILES, HTTP_PORT};
use anyhow::{Context as _, Result};
use std::collections::BTreeMap;
use std::time::Duration;
use windrow_core::settings::config::Secret;

/// The name in the unit's state.
pub const MEMO: &str = "memo";

/// Hooks at which no relation comes or goes. A relation's own hooks tell of that relation's endpoint only.
const QUIET: [&str; 7] = [
    "update-status",
    "secret-changed",
    "secret-remove",
    "windrow-pebble-ready",
    "windrow-pebble-custom-notice",
    "windrow-pebble-check-failed",
    "windrow-pebble-check-recovered",
];

/// Lines of the log that are looked at for a last word.
pub const LAST_WORDS: usize = 30;

/// What was seen, the memo's text as it was read, and the options that count.
pub struct Seen {
    pub facts: Facts,
    pub memo_text: String,
    pub chosen: Chosen,
}

/// Looks at everything once.
///
/// # Errors
/// A hook command fails: then nothing is known, and Juju runs the hook again.
pub fn gather(context: &Context, hooks: &HookCommands, pebble: &Pebble) -> Result<Seen> {
    let options = hooks.config_get()?;
    let memo_text = hooks.state_get(MEMO)?.unwrap_or_default();
    // A memo of another version of the charm may not be readable: then all is asked anew.
    let mut memo: Memo = serde_json::from_str(&memo_text).unwrap_or_default();
    let relations = relations(context, hooks, &mut memo, memo_text.is_empty())?;
    let token = options
        .get("api-token")
        .and_then(|uri| uri.as_str())
        .map(|uri| token(hooks, uri));
    let chosen = choose(&options, &memo);
    let mut facts = Facts {
        unit: context.unit.clone(),
        model_uuid: context.model_uuid.clone(),
        model_name: context.model_name.clone(),
        instance: context.instance(),
        uid: uid()?,
        leader: None,
        options,
        token,
        memo,
        relations,
        container: container(pebble),
        charm: charm_files(context)?,
        kafka_namespace: None,
        proxy: Proxy {
            http: context.http_proxy.clone(),
            https: context.https_proxy.clone(),
            no_proxy: context.no_proxy.clone(),
        },
        shown: hooks.status_get().ok(),
    };
    facts.kafka_namespace = kafka_namespace(&mut facts, &chosen, hooks)?;
    if asks_leader(&facts, &chosen) {
        let leader = hooks.is_leader()?;
        facts.leader = Some(leader);
        if leader {
            own_data(&mut facts, context.app(), hooks)?;
        }
    }
    Ok(Seen {
        facts,
        memo_text,
        chosen,
    })
}

fn charm_files(context: &Context) -> Result<CharmFiles> {
    let (binary, digest) = (
        context.charm_dir.join("windrow"),
        context.charm_dir.join("windrow.sha256"),
    );
    let text = std::fs::read_to_string(&digest).with_context(|| {
        format!(
            "cannot read file \"{}\": the charm is not whole; deploy it again",
            digest.display()
        )
    })?;
    let size_bytes = std::fs::metadata(&binary)
        .with_context(|| {
            format!(
                "cannot read file \"{}\": the charm is not whole; deploy it again",
                binary.display()
            )
        })?
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

/// Our effective user: Linux says so of whoever owns this file.
fn uid() -> Result<u32> {
    use std::os::unix::fs::MetadataExt;
    Ok(std::fs::metadata("/proc/self")
        .context("cannot read /proc/self")?
        .uid())
}

// ---------------------------------------------------------------- relations

fn relations(
    context: &Context,
    hooks: &HookCommands,
    memo: &mut Memo,
    forgot: bool,
) -> Result<BTreeMap<String, Vec<Relation>>> {
    let event = context.relation();
    let quiet =
        !forgot && (event.is_some() || context.hook().is_some_and(|hook| QUIET.contains(&hook)));
    let mut all = BTreeMap::new();
    let mut known = std::mem::take(&mut memo.relations);
    for endpoint in ENDPOINTS {
        let mut ids: Vec<String> = if quiet && event.is_none_or(|event| event.endpoint != endpoint)
        {
            known
                .keys()
                .filter(|id| Known::endpoint(id) == endpoint)
                .cloned()
                .collect()
        } else {
            hooks.relation_ids(endpoint)?
        };
        ids.retain(|id| event.is_none_or(|event| !event.broken || event.id != *id));
        ids.sort_by_key(|id| {
            id.rsplit(':')
                .next()
                .and_then(|n| n.parse::<u64>().ok())
                .unwrap_or_default()
        });
        let mut found = Vec::new();
        for id in ids {
            let mut about = known.remove(&id).unwrap_or_default();
            match relation(
                hooks,
                endpoint,
                &id,
                &mut about,
                event.map(|e| (e.id.as_str(), e.app.as_str())),
            ) {
                Ok(relation) => {
                    found.push(relation);
                    memo.relations.insert(id, about);
                }
                // It ended, and somebody told Juju to go on without its hook.
                Err(HookError::Gone { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if !found.is_empty() {
            all.insert(endpoint.to_owned(), found);
        }
    }
    Ok(all)
}

fn relation(
    hooks: &HookCommands,
    endpoint: &str,
    id: &str,
    about: &mut Known,
    event: Option<(&str, &str)>,
) -> Result<Relation, HookError> {
    if about.app.is_empty() {
        about.app = match event {
            Some((event_id, app)) if event_id == id && !app.is_empty() => app.to_owned(),
            _ => hooks.relation_app(id)?,
        };
    }
    let mut relation = Relation {
        id: id.to_owned(),
        app: about.app.clone(),
        ..Relation::default()
    };
    // Of the others nothing is read.
    if [KAFKA, S3, METASTORE, CA].contains(&endpoint) {
        relation.data = hooks.relation_get(id, &about.app, true)?;
    }
    // Version 0 of certificate_transfer speaks in units' bags alone.
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
        // No label: a label stays with the first secret where a provider makes another in the same relation. Always with
        // the newest revision: of another model's secrets Juju does not tell that they changed.
        let content = hooks.secret_get(uri).map_err(|error| error.words());
        relation.secrets.insert(key.clone(), content);
    }
    Ok(relation)
}

pub(crate) fn token(hooks: &HookCommands, uri: &str) -> Result<Secret, String> {
    let content = hooks.secret_get(uri).map_err(|error| error.words())?;
    match (
        content.get("api-token").or_else(|| content.get("token")),
        content.values().next(),
    ) {
        (Some(token), _) => Ok(token.clone()),
        (None, Some(only)) if content.len() == 1 => Ok(only.clone()),
        _ => Err("it has no key api-token".to_owned()),
    }
}

/// What our application said earlier, where it is not remembered: this unit may lead since a moment ago.
fn own_data(facts: &mut Facts, app: &str, hooks: &HookCommands) -> Result<()> {
    for relation in facts.relations.values_mut().flatten() {
        let forgot = facts
            .memo
            .relations
            .get(&relation.id)
            .is_none_or(|known| known.app_data.is_none());
        if forgot {
            relation.own = Some(hooks.relation_get(&relation.id, app, true)?);
        }
    }
    Ok(())
}

/// Where Kafka's brokers have names that only resolve in their own namespace: which that is.
fn kafka_namespace(
    facts: &mut Facts,
    chosen: &Chosen,
    hooks: &HookCommands,
) -> Result<Option<Namespace>> {
    let Some(host) = asks_namespace(facts, chosen) else {
        return Ok(None);
    };
    let Some(relation) = facts.relations.get(KAFKA).and_then(|all| all.last()) else {
        return Ok(None);
    };
    let about = facts.memo.relations.entry(relation.id.clone()).or_default();
    if about.model.is_none() {
        about.model = Some(match model_of_secret(relation) {
            Some(model) => model,
            None => hooks.relation_model(&relation.id)?.unwrap_or_default(),
        });
    }
    let model = about.model.clone().unwrap_or_default();
    if model == facts.model_uuid {
        return Ok(Some(Namespace::Here));
    }
    if let Some(name) = facts.memo.namespaces.get(&model) {
        return Ok(Some(Namespace::Is(name.clone())));
    }
    let answer = if model.is_empty() {
        Namespace::Unknown("this Juju does not tell Kafka's model".to_owned())
    } else {
        namespace::of_model(&model)
    };
    Ok(Some(match answer {
        Namespace::Is(name) => {
            facts.memo.namespaces.insert(model, name.clone());
            Namespace::Is(name)
        }
        _ if namespace::resolves(&host) => Namespace::Here,
        other => other,
    }))
}

// ---------------------------------------------------------------- the container

fn container(pebble: &Pebble) -> Container {
    match look(pebble) {
        Ok(up) => Container::Up(Box::new(up)),
        Err(error) => {
            println!("{error}");
            Container::Down
        }
    }
}

fn look(pebble: &Pebble) -> Result<Up, PebbleError> {
    let plan = pebble.plan()?;
    let service = pebble.services()?.remove(SERVICE);
    let binaries = pebble.list(BINARY_DIR)?;
    let files = pebble.read_files(&FILES)?;
    let files = files
        .into_iter()
        .filter_map(|(path, bytes)| Some((path, Secret::new(String::from_utf8(bytes).ok()?))));
    let mut up = Up {
        plan,
        service,
        binaries,
        files: files.collect(),
        ..Up::default()
    };
    match up.service.as_deref() {
        None | Some("inactive") => {}
        Some("active") => up.windrow = ask_status(),
        Some(_) => {}
    }
    if up.windrow.is_none() && matches!(up.service.as_deref(), Some("active" | "backoff" | "error"))
    {
        up.last_words = pebble.logs(SERVICE, LAST_WORDS).unwrap_or_default();
    }
    Ok(up)
}

/// What the running windrow says; `None` where it does not answer.
#[must_use]
pub fn ask_status() -> Option<windrow_core::shown::status::Status> {
    ask("GET", "/v1/status", None)
        .ok()
        .and_then(|(code, text)| (code == 200).then_some(text))
        .and_then(|text| serde_json::from_str(&text).ok())
        // Another program may have the port.
        .filter(|status: &windrow_core::shown::status::Status| !status.version.is_empty())
}

/// Asks the running windrow over loopback, which the containers of a pod share: the answer's code and text.
///
/// # Errors
/// Nobody answers in time.
pub fn ask(method: &str, path: &str, token: Option<&Secret>) -> Result<(u16, String)> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .proxy(None)
        .max_redirects(0)
        .http_status_as_error(false)
        .timeout_connect(Some(Duration::from_secs(1)))
        .timeout_global(Some(Duration::from_secs(if method == "GET" {
            5
        } else {
            15
        })))
        .build()
        .into();
    let url = format!("http://127.0.0.1:{HTTP_PORT}{path}");
    let bearer = token
        .map(|token| format!("Bearer {}", token.expose()))
        .unwrap_or_default();
    let sent = match (method, bearer.as_str()) {
        ("POST", "") => agent.post(&url).content_type("application/json").send("{}"),
        ("POST", bearer) => agent
            .post(&url)
            .header("Authorization", bearer)
            .content_type("application/json")
            .send("{}"),
        (_, "") => agent.get(&url).call(),
        (_, bearer) => agent.get(&url).header("Authorization", bearer).call(),
    };
    let mut response = sent.context("cannot ask windrow")?;
    let text = response
        .body_mut()
        .with_config()
        .limit(8 << 20)
        .read_to_string()
        .context("cannot read windrow's answer")?;
    Ok((response.status().as_u16(), text))
}
