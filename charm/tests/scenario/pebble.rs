//! A Pebble for what a real one cannot be made to do: absent, deaf, 504, a full disk, a start that fails.
//!
//! It keeps layers, services, files and notices, refuses what Pebble v1.19.2 refuses, and starts nothing.

use crate::http::{self, Request, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use windrow_core::values::digest::sha256_hex;

/// How the socket and the daemon behind it behave.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Mood {
    Up,
    /// No socket: the container has not started.
    Down,
    /// A socket file that nobody listens on: it has just died.
    Deaf,
    /// Every request is answered 504.
    Late,
    /// Every request is answered 500.
    Broken,
}

pub struct File {
    pub bytes: Vec<u8>,
    pub mode: String,
    pub uid: u64,
    pub gid: u64,
    pub folder: bool,
}

#[derive(Default)]
pub struct Service {
    pub active: bool,
    /// What it was started with.
    pub started: Value,
}

/// What an exec is answered: exit code, stdout, stderr.
pub type Executed = (i32, String, String);

pub struct State {
    pub mood: Mood,
    pub version: String,
    pub boot: u32,
    /// Label and content, in order.
    pub layers: Vec<(String, Value)>,
    pub services: BTreeMap<String, Service>,
    pub files: BTreeMap<String, File>,
    pub notices: Vec<Value>,
    /// Beginning of a path → what writing there fails with (`no space left on device`).
    pub file_errors: BTreeMap<String, String>,
    /// What the change of the next starts fails with.
    pub start_error: Option<String>,
    /// Check name → whether it is up.
    pub checks: BTreeMap<String, bool>,
    /// Words that a command must contain → its end.
    pub execs: Vec<(String, Executed)>,
    /// Lines of the service's log.
    pub said: Vec<String>,
    /// What was asked in this hook.
    pub requests: Vec<String>,
    changes: BTreeMap<u64, Value>,
    pending_execs: BTreeMap<String, Exec>,
    made: u64,
}

struct Exec {
    change: u64,
    ended: Executed,
    joined: BTreeSet<String>,
}

pub struct Pebble {
    pub state: Arc<Mutex<State>>,
    socket: PathBuf,
    over: Arc<AtomicBool>,
}

/// Where the charm looks for it.
const PLACE: &str = "/charm/containers/windrow";

impl Pebble {
    /// A container that has just started; its socket lies in `folder`.
    pub fn new(folder: &Path) -> Pebble {
        let socket = folder.join("pebble.socket");
        let listener = UnixListener::bind(&socket).expect("a new folder");
        let pebble = Pebble {
            state: Arc::new(Mutex::new(State::new())),
            socket,
            over: Arc::default(),
        };
        let (state, over) = (Arc::clone(&pebble.state), Arc::clone(&pebble.over));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let state = Arc::clone(&state);
                std::thread::spawn(move || {
                    let _ = connection(&stream, &state);
                });
            }
        });
        pebble
    }

    /// Puts the socket where the charm looks for it, as its mood is.
    pub fn show(&self) {
        let place = Path::new(PLACE);
        let _ = std::fs::remove_dir_all(place);
        std::fs::create_dir_all(place).expect("a namespace of our own");
        let mood = self.state.lock().expect("not poisoned").mood;
        match mood {
            Mood::Down => {}
            Mood::Deaf => {
                drop(UnixListener::bind(place.join("pebble.socket")).expect("a new folder"))
            }
            _ => std::os::unix::fs::symlink(&self.socket, place.join("pebble.socket"))
                .expect("a new folder"),
        }
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        // The listener's thread looks up when somebody comes.
        self.over.store(true, Ordering::SeqCst);
        let _ = UnixStream::connect(&self.socket);
    }
}

impl State {
    fn new() -> State {
        let mut state = State {
            mood: Mood::Up,
            version: "v1.19.2".to_owned(),
            boot: 1,
            layers: Vec::new(),
            services: BTreeMap::new(),
            files: BTreeMap::new(),
            notices: Vec::new(),
            file_errors: BTreeMap::new(),
            start_error: None,
            checks: BTreeMap::new(),
            execs: Vec::new(),
            said: Vec::new(),
            requests: Vec::new(),
            changes: BTreeMap::new(),
            pending_execs: BTreeMap::new(),
            made: 0,
        };
        for path in ["/", "/bin", "/etc", "/opt", "/tmp", "/usr", "/var"] {
            state.files.insert(path.to_owned(), File::folder());
        }
        state
    }

    /// The container is made anew: nothing of it is left but what Pebble keeps in the pod.
    pub fn renew(&mut self) {
        let (boot, version) = (self.boot + 1, self.version.clone());
        // Pebble's own state lies in the pod, not in the container: notices outlive it.
        let (notices, made) = (std::mem::take(&mut self.notices), self.made);
        *self = State {
            boot,
            version,
            notices,
            made,
            ..State::new()
        };
    }

    /// The layers combined, as `GET /v1/plan` shows them.
    pub fn plan(&self) -> Value {
        let mut plan = json!({});
        for (_, layer) in &self.layers {
            for section in ["services", "checks", "log-targets"] {
                for (name, new) in layer[section].as_object().into_iter().flatten() {
                    if plan[section].is_null() {
                        plan[section] = json!({});
                    }
                    let old = plan[section][name].take();
                    plan[section][name] = combine(old, new);
                }
            }
        }
        let checks = plan.get_mut("checks").and_then(Value::as_object_mut);
        for check in checks.into_iter().flatten().map(|(_, check)| check) {
            for (name, value) in [
                ("startup", json!("enabled")),
                ("period", json!("10s")),
                ("timeout", json!("3s")),
                ("threshold", json!(3)),
            ] {
                if check[name].is_null() {
                    check[name] = value;
                }
            }
        }
        plan
    }

    /// The plan's text, and every file but folders, for people.
    pub fn tell(&self) -> Vec<String> {
        let mut said = Vec::new();
        let plan = self.plan();
        if plan != json!({}) {
            said.push("plan".to_owned());
            let text = serde_yaml::to_string(&plan).expect("JSON is YAML");
            said.extend(text.lines().map(|line| format!("  {line}")));
        }
        for (name, service) in &self.services {
            said.push(format!(
                "service {name} {}",
                if service.active { "active" } else { "inactive" }
            ));
        }
        for (path, file) in self.files.iter().filter(|(_, f)| !f.folder) {
            let size = file.bytes.len();
            let text = std::str::from_utf8(&file.bytes)
                .ok()
                .filter(|text| text.len() < 16384 && !text.contains('\0'));
            said.push(format!(
                "file {path} {} {}:{} {size} bytes",
                file.mode, file.uid, file.gid
            ));
            match text {
                Some(text) => said.extend(text.lines().map(|line| format!("  {line}"))),
                None => said.push(format!("  sha256 {}", digest(&file.bytes))),
            }
        }
        said
    }

    pub fn file(&self, path: &str) -> Option<&str> {
        std::str::from_utf8(&self.files.get(path)?.bytes).ok()
    }

    fn change(&mut self, kind: &str, error: Option<String>) -> u64 {
        self.made += 1;
        let id = self.made;
        let status = if error.is_some() { "Error" } else { "Done" };
        let time = "2026-01-01T00:00:00Z";
        let log: Vec<String> = error
            .iter()
            .map(|e| format!("{time} ERROR service start attempt: {e}, will restart"))
            .collect();
        let mut change = json!({
            "id": id.to_string(), "kind": kind, "summary": format!("{kind} service"), "status": status, "ready": true,
            "spawn-time": time, "ready-time": time,
            "tasks": [{
                "id": id.to_string(), "kind": kind, "summary": kind, "status": status, "log": log,
                "progress": {"label": "", "done": 1, "total": 1}, "spawn-time": time, "ready-time": time, "data": {},
            }],
        });
        if let Some(error) = error {
            change["err"] = json!(format!(
                "cannot perform the following tasks:\n- Start service \"windrow\" ({error})"
            ));
        }
        self.changes.insert(id, change);
        id
    }
}

impl File {
    fn folder() -> File {
        File {
            bytes: Vec::new(),
            mode: "755".to_owned(),
            uid: 0,
            gid: 0,
            folder: true,
        }
    }
}

/// The first 16 digits of a SHA-256 in hexadecimal.
fn digest(bytes: &[u8]) -> String {
    sha256_hex(bytes)[..16].to_owned()
}

fn combine(old: Value, new: &Value) -> Value {
    if old.is_null() || new["override"] == "replace" {
        return new.clone();
    }
    let mut merged = old;
    for (key, value) in new.as_object().expect("checked") {
        match (merged[key].as_object_mut(), value) {
            (Some(to), Value::Object(from)) => to.extend(from.clone()),
            _ => merged[key] = value.clone(),
        }
    }
    merged
}

/// The fields a layer may have: Pebble refuses others.
fn check_layer(label: &str, layer: &Value) -> Result<(), String> {
    let unknown = |map: &Value, known: &[&str], of: &str| {
        let unknown = map
            .as_object()
            .into_iter()
            .flatten()
            .map(|(k, _)| k)
            .find(|k| !known.contains(&k.as_str()));
        unknown.map_or(Ok(()), |k| {
            let why =
                format!("yaml: unmarshal errors:\n  line 1: field {k} not found in type plan.{of}");
            Err(format!("cannot parse layer {label:?}: {why}"))
        })
    };
    if !layer.is_object() {
        return Err(format!("cannot parse layer {label:?}: not a map"));
    }
    unknown(
        layer,
        &[
            "summary",
            "description",
            "services",
            "checks",
            "log-targets",
        ],
        "Layer",
    )?;
    let kinds: [(&str, &str, &str, &[&str]); 3] = [
        (
            "services",
            "service",
            "Service",
            &[
                "summary",
                "description",
                "startup",
                "override",
                "command",
                "after",
                "before",
                "requires",
                "environment",
                "user-id",
                "user",
                "group-id",
                "group",
                "working-dir",
                "on-success",
                "on-failure",
                "on-check-failure",
                "backoff-delay",
                "backoff-factor",
                "backoff-limit",
                "kill-delay",
            ],
        ),
        (
            "checks",
            "check",
            "Check",
            &[
                "override",
                "level",
                "startup",
                "period",
                "timeout",
                "threshold",
                "http",
                "tcp",
                "exec",
            ],
        ),
        (
            "log-targets",
            "log target",
            "LogTarget",
            &["override", "type", "location", "services", "labels"],
        ),
    ];
    for (section, kind, of, known) in kinds {
        for (name, value) in layer[section].as_object().into_iter().flatten() {
            if !value.is_object() {
                return Err(format!(
                    "layer {label:?} must define {kind} {name:?} as a map"
                ));
            }
            unknown(value, known, of)?;
            if !["merge", "replace"].contains(&value["override"].as_str().unwrap_or_default()) {
                return Err(format!(
                    "layer {label:?} must define \"override\" for {kind} {name:?}"
                ));
            }
            for (name, value) in value["environment"].as_object().into_iter().flatten() {
                if value.is_object() || value.is_array() {
                    return Err(format!("cannot parse layer {label:?}: environment {name}"));
                }
            }
        }
    }
    Ok(())
}

/// What the plan as a whole must be.
fn check_plan(plan: &Value) -> Result<(), String> {
    for (name, service) in plan["services"].as_object().into_iter().flatten() {
        let command = service["command"].as_str().unwrap_or_default();
        if command.is_empty() {
            return Err(format!("plan must define \"command\" for service {name:?}"));
        }
        if !["", "enabled", "disabled"].contains(&service["startup"].as_str().unwrap_or_default()) {
            return Err(format!(
                "plan service {name:?} startup must be \"enabled\" or \"disabled\""
            ));
        }
        for (check, action) in service["on-check-failure"]
            .as_object()
            .into_iter()
            .flatten()
        {
            if plan["checks"][check].is_null() {
                return Err(format!(
                    "plan service {name:?} on-check-failure has unknown check {check:?}"
                ));
            }
            if !["restart", "shutdown", "success-shutdown", "ignore"]
                .contains(&action.as_str().unwrap_or_default())
            {
                return Err(format!(
                    "plan service {name:?} on-check-failure action {action} invalid"
                ));
            }
        }
    }
    for (name, check) in plan["checks"].as_object().into_iter().flatten() {
        let kinds = ["http", "tcp", "exec"]
            .iter()
            .filter(|kind| !check[**kind].is_null())
            .count();
        if kinds != 1 {
            return Err(format!(
                "plan must specify one of \"http\", \"tcp\", or \"exec\" for check {name:?}"
            ));
        }
        if !check["level"].is_null()
            && !["alive", "ready"].contains(&check["level"].as_str().unwrap_or_default())
        {
            return Err(format!(
                "plan check {name:?} level must be \"alive\" or \"ready\""
            ));
        }
    }
    for (name, target) in plan["log-targets"].as_object().into_iter().flatten() {
        if !["loki", "opentelemetry"].contains(&target["type"].as_str().unwrap_or_default()) {
            return Err(format!(
                "plan must define \"type\" (\"loki\" or \"opentelemetry\") for log target {name:?}"
            ));
        }
        if target["location"].as_str().unwrap_or_default().is_empty() {
            return Err(format!(
                "plan must define \"location\" for log target {name:?}"
            ));
        }
    }
    Ok(())
}

fn connection(stream: &UnixStream, state: &Arc<Mutex<State>>) -> std::io::Result<()> {
    http::serve(stream, stream, |request, rest| {
        if let Some((task, channel)) = request
            .path
            .strip_prefix("/v1/tasks/")
            .and_then(|p| p.split_once("/websocket/"))
        {
            let _ = websocket(stream, request, rest, state, task, channel);
            return None;
        }
        Some(state.lock().expect("not poisoned").answer(request))
    })
}

fn failed(code: u16, message: &str) -> Response {
    let result = json!({"message": message});
    Response::json(
        code,
        &json!({"type": "error", "status-code": code, "status": http::reason(code), "result": result}),
    )
}

fn fine(result: &Value) -> Response {
    Response::json(
        200,
        &json!({"type": "sync", "status-code": 200, "status": "OK", "result": result}),
    )
}

fn started(change: u64, result: &Value) -> Response {
    Response::json(
        202,
        &json!({
            "type": "async", "status-code": 202, "status": "Accepted", "change": change.to_string(), "result": result,
        }),
    )
}

impl State {
    fn answer(&mut self, request: &Request) -> Response {
        let query: Vec<String> = request
            .query
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect();
        let mut line = format!("{} {}", request.method, request.path);
        if !query.is_empty() {
            line += &format!("?{}", query.join("&"));
        }
        if request.path != "/v1/files" && !request.body.is_empty() {
            let body: Value = serde_json::from_slice(&request.body).unwrap_or(json!("not JSON"));
            line += &format!(" {}", shown(&body));
        }
        self.requests.push(line);
        match self.mood {
            Mood::Late => return failed(504, "timed out"),
            Mood::Broken => return failed(500, "internal server error"),
            _ => {}
        }
        let body: Value = serde_json::from_slice(&request.body).unwrap_or(Value::Null);
        match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/v1/system-info") => {
                let boot = format!("00000000-0000-4000-8000-{:012}", self.boot);
                fine(&json!({"boot-id": boot, "version": self.version}))
            }
            ("POST", "/v1/layers") => self.add_layer(&body),
            ("GET", "/v1/plan") => fine(&json!(
                serde_yaml::to_string(&self.plan()).expect("JSON is YAML")
            )),
            ("GET", "/v1/services") => {
                let names = request
                    .asked("names")
                    .map(|n| n.split(',').collect::<Vec<_>>());
                let plan = self.plan();
                let all = plan["services"].as_object().into_iter().flatten();
                let all = all
                    .filter(|(name, _)| names.as_ref().is_none_or(|n| n.contains(&name.as_str())));
                let all = all.map(|(name, service)| {
                    let active = self.services.get(name).is_some_and(|s| s.active);
                    let startup = service["startup"].as_str().unwrap_or("disabled");
                    json!({"name": name, "startup": startup, "current": if active { "active" } else { "inactive" }})
                });
                fine(&all.collect())
            }
            ("POST", "/v1/services") => self.act(&body),
            ("GET", path) if path.starts_with("/v1/changes/") => {
                let id = path["/v1/changes/".len()..].trim_end_matches("/wait");
                match id.parse().ok().and_then(|id: u64| self.changes.get(&id)) {
                    Some(change) => fine(change),
                    None => failed(404, &format!("cannot find change with id {id:?}")),
                }
            }
            ("POST", "/v1/signals") => {
                for name in body["services"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                {
                    if !self.services.get(name).is_some_and(|s| s.active) {
                        return failed(
                            500,
                            &format!("cannot send signal to {name:?}: service is not running"),
                        );
                    }
                }
                fine(&json!(true))
            }
            ("GET", "/v1/checks") => {
                let plan = self.plan();
                let all = plan["checks"].as_object().into_iter().flatten().map(|(name, check)| {
                    let up = self.checks.get(name).copied().unwrap_or(true);
                    let threshold = &check["threshold"];
                    json!({
                        "name": name, "startup": "enabled", "status": if up { "up" } else { "down" },
                        "failures": if up { 0 } else { 3 }, "threshold": threshold, "change-id": "1",
                    })
                });
                fine(&all.collect())
            }
            ("GET", "/v1/logs") => {
                let known = self
                    .services
                    .keys()
                    .any(|name| request.asked("services").is_none_or(|of| of == name));
                let lines = self.said.iter().filter(|_| known);
                let lines = lines.map(|text| {
                    json!({"time": "2026-01-01T00:00:00.000Z", "service": "windrow", "message": text})
                        .to_string()
                        + "\n"
                });
                Response {
                    code: 200,
                    content_type: "application/x-ndjson".to_owned(),
                    body: lines.collect::<String>().into_bytes(),
                }
            }
            ("GET", "/v1/notices") => {
                let one_of = |name: &str, value: &Value| {
                    request
                        .asked(name)
                        .is_none_or(|of| of.split(',').any(|o| value == o))
                };
                let all = self
                    .notices
                    .iter()
                    .filter(|n| one_of("types", &n["type"]) && one_of("keys", &n["key"]));
                fine(&all.cloned().collect())
            }
            ("POST", "/v1/notices") => {
                let key = body["key"].as_str().unwrap_or_default();
                if body["type"] != "custom"
                    || !key.contains('/')
                    || !key.contains('.')
                    || key.len() > 256
                {
                    return failed(
                        400,
                        &format!("custom notice key must be in \"domain.com/key\" format: {key:?}"),
                    );
                }
                // One of a user and key is there once; what is added later repeats it, unless it says that this is too soon.
                let same = self
                    .notices
                    .iter_mut()
                    .find(|n| n["type"] == "custom" && n["key"] == key);
                let id = if let Some(notice) = same {
                    notice["last-data"] = body["data"].clone();
                    let times = notice["occurrences"].as_u64().unwrap_or(0) + 1;
                    notice["occurrences"] = json!(times);
                    if body["repeat-after"].is_null() {
                        notice["last-repeated"] = json!(format!("2026-01-01T00:00:{times:02}Z"));
                    }
                    notice["id"].as_str().unwrap_or_default().to_owned()
                } else {
                    self.made += 1;
                    let id = self.made.to_string();
                    self.notices.push(json!({
                        "id": id, "user-id": 0, "type": "custom", "key": key, "last-data": body["data"], "occurrences": 1,
                        "first-occurred": "2026-01-01T00:00:00Z", "last-occurred": "2026-01-01T00:00:00Z",
                        "last-repeated": "2026-01-01T00:00:00Z", "expire-after": "168h0m0s",
                    }));
                    id
                };
                fine(&json!({"id": id}))
            }
            ("GET", "/v1/files") => self.read_files(request),
            ("POST", "/v1/files") => self.write_files(request, &body),
            ("POST", "/v1/exec") => self.exec(&body),
            (_, path) => failed(404, &format!("invalid API endpoint requested: {path}")),
        }
    }

    fn add_layer(&mut self, body: &Value) -> Response {
        let label = body["label"].as_str().unwrap_or_default().to_owned();
        if body["action"] != "add" || body["format"] != "yaml" || label.is_empty() {
            return failed(400, "invalid action, format or label");
        }
        if label.starts_with("pebble-") {
            return failed(400, "cannot use reserved label prefix \"pebble-\"");
        }
        let layer = match serde_yaml::from_str::<Value>(body["layer"].as_str().unwrap_or_default())
        {
            Ok(layer) => layer,
            Err(e) => return failed(400, &format!("cannot parse layer {label:?}: yaml: {e}")),
        };
        if let Err(e) = check_layer(&label, &layer) {
            return failed(400, &e);
        }
        let before = self.layers.clone();
        match self.layers.iter_mut().find(|(l, _)| *l == label) {
            Some(_) if body["combine"] != true => {
                return failed(400, &format!("layer {label:?} already exists"));
            }
            Some((_, old)) => {
                for section in ["services", "checks", "log-targets"] {
                    for (name, new) in layer[section].as_object().into_iter().flatten() {
                        if old[section].is_null() {
                            old[section] = json!({});
                        }
                        let was = old[section][name].take();
                        old[section][name] = combine(was, new);
                    }
                }
            }
            None => self.layers.push((label, layer)),
        }
        if let Err(e) = check_plan(&self.plan()) {
            self.layers = before;
            return failed(400, &e);
        }
        fine(&json!(true))
    }

    fn act(&mut self, body: &Value) -> Response {
        let action = body["action"].as_str().unwrap_or_default().to_owned();
        let plan = self.plan();
        let named = body["services"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned);
        let mut named: Vec<String> = named.collect();
        match action.as_str() {
            "replan" | "autostart" => {
                if !named.is_empty() {
                    return failed(400, &format!("{action} accepts no service names"));
                }
                let all = plan["services"].as_object().into_iter().flatten();
                let all = all.filter(|(name, service)| {
                    let active = self.services.get(*name).is_some_and(|s| s.active);
                    service["startup"] == "enabled" || (active && action == "replan")
                });
                named = all.map(|(name, _)| name.clone()).collect();
            }
            "start" | "stop" | "restart" => {
                if named.is_empty() {
                    return failed(400, &format!("no services to {action} provided"));
                }
            }
            _ => return failed(400, &format!("action {action:?} is unsupported")),
        }
        for name in &named {
            if plan["services"][name].is_null() {
                return failed(
                    400,
                    &format!("cannot {action} services: service {name:?} does not exist"),
                );
            }
        }
        let mut error = None;
        for name in named {
            let wanted = plan["services"][&name].clone();
            let service = self.services.entry(name).or_default();
            if action == "stop" {
                service.active = false;
                continue;
            }
            if service.active
                && action != "restart"
                && (action != "replan" || service.started == wanted)
            {
                continue;
            }
            if let Some(text) = &self.start_error {
                error = Some(text.clone());
                service.active = false;
                continue;
            }
            let command = wanted["command"].as_str().unwrap_or_default();
            let program = command.split_whitespace().next().unwrap_or_default();
            if !self
                .files
                .get(program)
                .is_some_and(|file| !file.folder && file.mode.contains('7'))
            {
                error = Some(format!(
                    "cannot start service: fork/exec {program}: no such file or directory"
                ));
                service.active = false;
                continue;
            }
            *service = Service {
                active: true,
                started: wanted,
            };
        }
        started(self.change(&action, error), &Value::Null)
    }

    fn read_files(&mut self, request: &Request) -> Response {
        let path = request.asked("path").unwrap_or_default().to_owned();
        let info = |path: &str, file: &File| {
            json!({
                "path": path, "name": path.rsplit('/').next(), "type": if file.folder { "directory" } else { "file" },
                "permissions": file.mode, "last-modified": "2026-01-01T00:00:00Z",
                "user-id": file.uid, "user": if file.uid == 0 { "root" } else { "" },
                "group-id": file.gid, "group": if file.gid == 0 { "root" } else { "" },
            })
        };
        let sized = |path: &str, file: &File| {
            let mut info = info(path, file);
            if !file.folder {
                info["size"] = json!(file.bytes.len());
            }
            info
        };
        if !path.starts_with('/') {
            return failed(400, &format!("path must be absolute, got {path:?}"));
        }
        let absent = format!("stat {path}: no such file or directory");
        match request.asked("action") {
            Some("list") => {
                let Some(here) = self.files.get(&path) else {
                    let result = json!({"message": absent, "kind": "not-found"});
                    let body = json!({"type": "error", "status-code": 404, "status": "Not Found", "result": result});
                    return Response::json(404, &body);
                };
                if !here.folder || request.asked("itself").is_some_and(|v| v == "true") {
                    return fine(&json!([sized(&path, here)]));
                }
                let under = format!("{}/", path.trim_end_matches('/'));
                let all = self.files.iter().filter(|(p, _)| {
                    p.strip_prefix(&under)
                        .is_some_and(|name| !name.is_empty() && !name.contains('/'))
                });
                let pattern = request.asked("pattern").unwrap_or("*");
                let (head, tail) = pattern.split_once('*').unwrap_or((pattern, ""));
                let all = all.filter(|(p, _)| {
                    let name = p.rsplit('/').next().unwrap_or_default();
                    name.starts_with(head) && name.ends_with(tail)
                });
                fine(&all.map(|(p, file)| sized(p, file)).collect())
            }
            Some("read") => {
                let boundary = "01234567890123456789012345678901";
                let mut body = Vec::new();
                let mut results = Vec::new();
                for (_, path) in request.query.iter().filter(|(name, _)| name == "path") {
                    let mut result = json!({"path": path});
                    match self.files.get(path).filter(|file| !file.folder) {
                        Some(file) => {
                            let head = "Content-Disposition: form-data; name=\"files\"; filename=";
                            body.extend(
                                format!("--{boundary}\r\n{head}{path:?}\r\n\r\n").into_bytes(),
                            );
                            body.extend(&file.bytes);
                            body.extend(b"\r\n");
                        }
                        None => {
                            let message = format!("open {path}: no such file or directory");
                            result["error"] = json!({"message": message, "kind": "not-found"});
                        }
                    }
                    results.push(result);
                }
                let code = 200;
                let text =
                    json!({"type": "sync", "status-code": code, "status": "OK", "result": results});
                let head = "Content-Disposition: form-data; name=\"response\"\r\nContent-Type: application/json";
                body.extend(
                    format!("--{boundary}\r\n{head}\r\n\r\n{text}\r\n--{boundary}--\r\n")
                        .into_bytes(),
                );
                Response {
                    code,
                    content_type: format!("multipart/form-data; boundary={boundary}"),
                    body,
                }
            }
            _ => failed(400, "invalid action"),
        }
    }

    fn write_files(&mut self, request: &Request, body: &Value) -> Response {
        let kind = request
            .headers
            .get("content-type")
            .cloned()
            .unwrap_or_default();
        let Some(boundary) = kind
            .strip_prefix("multipart/form-data")
            .and_then(|k| k.split_once("boundary="))
        else {
            return self.change_files(body);
        };
        let boundary = boundary.1.trim_matches('"');
        if boundary.len() < 32 {
            return failed(400, &format!("invalid boundary {boundary:?}"));
        }
        let parts = parts(&request.body, boundary);
        let Some((_, first)) = parts
            .first()
            .filter(|(head, _)| head.contains("name=\"request\""))
        else {
            return failed(400, "metadata field name must be \"request\"");
        };
        let Ok(asked) = serde_json::from_slice::<Value>(first) else {
            return failed(400, "cannot decode request metadata");
        };
        if asked["action"] != "write" {
            return failed(400, "multipart action must be \"write\"");
        }
        let mut results = Vec::new();
        for info in asked["files"].as_array().into_iter().flatten() {
            let path = info["path"].as_str().unwrap_or_default().to_owned();
            let head = format!("filename=\"{path}\"");
            let Some((_, bytes)) = parts[1..]
                .iter()
                .find(|(h, _)| h.contains("name=\"files\"") && h.contains(&head))
            else {
                return failed(400, &format!("no file content for {path:?}"));
            };
            let mode = info["permissions"]
                .as_str()
                .filter(|p| !p.is_empty())
                .unwrap_or("644")
                .to_owned();
            let (uid, gid) = (
                info["user-id"].as_u64().unwrap_or(0),
                info["group-id"].as_u64().unwrap_or(0),
            );
            let size = bytes.len();
            self.requests
                .push(format!("  write {path} {mode} {uid}:{gid} {size} bytes"));
            results.push(
                match self.write(&path, bytes, mode, (uid, gid), info["make-dirs"] == true) {
                    Ok(()) => json!({"path": path}),
                    Err((kind, message)) => {
                        json!({"path": path, "error": {"kind": kind, "message": message}})
                    }
                },
            );
        }
        fine(&json!(results))
    }

    fn write(
        &mut self,
        path: &str,
        bytes: &[u8],
        mode: String,
        (uid, gid): (u64, u64),
        make: bool,
    ) -> Result<(), (&'static str, String)> {
        const OTHER: &str = "generic-file-error";
        if !path.starts_with('/') {
            return Err((OTHER, format!("paths must be absolute, got {path:?}")));
        }
        if u32::from_str_radix(&mode, 8).is_err() || mode.len() > 4 {
            return Err((
                OTHER,
                format!("mode must be a 3 or 4-digit octal string, got {mode:?}"),
            ));
        }
        if let Some((_, error)) = self
            .file_errors
            .iter()
            .find(|(begin, _)| path.starts_with(begin.as_str()))
        {
            return Err((OTHER, format!("write {path}: {error}")));
        }
        let parent =
            path.rsplit_once('/').map_or(
                "/",
                |(parent, _)| if parent.is_empty() { "/" } else { parent },
            );
        if make {
            let mut at = String::new();
            for piece in parent.split('/').filter(|p| !p.is_empty()) {
                at += &format!("/{piece}");
                self.files.entry(at.clone()).or_insert_with(File::folder);
            }
        } else if !self.files.contains_key(parent) {
            return Err((
                "not-found",
                format!("open {path}: no such file or directory"),
            ));
        }
        let file = File {
            bytes: bytes.to_vec(),
            mode,
            uid,
            gid,
            folder: false,
        };
        self.files.insert(path.to_owned(), file);
        Ok(())
    }

    fn change_files(&mut self, body: &Value) -> Response {
        self.requests.push(format!("  {}", shown(body)));
        let mut results = Vec::new();
        match body["action"].as_str() {
            Some("remove") => {
                for asked in body["paths"].as_array().into_iter().flatten() {
                    let path = asked["path"].as_str().unwrap_or_default();
                    let under = format!("{path}/");
                    let inside = self.files.keys().any(|p| p.starts_with(&under));
                    let recursive = asked["recursive"] == true;
                    results.push(if !self.files.contains_key(path) && !recursive {
                        let message = format!("remove {path}: no such file or directory");
                        json!({"path": path, "error": {"kind": "not-found", "message": message}})
                    } else if inside && !recursive {
                        let message = format!("remove {path}: directory not empty");
                        json!({"path": path, "error": {"kind": "generic-file-error", "message": message}})
                    } else {
                        self.files.retain(|p, _| p != path && !p.starts_with(&under));
                        json!({"path": path})
                    });
                }
            }
            Some("make-dirs") => {
                for asked in body["dirs"].as_array().into_iter().flatten() {
                    let path = asked["path"].as_str().unwrap_or_default();
                    self.files
                        .entry(path.to_owned())
                        .or_insert_with(File::folder);
                    results.push(json!({"path": path}));
                }
            }
            _ => return failed(400, "invalid action"),
        }
        fine(&json!(results))
    }

    fn exec(&mut self, body: &Value) -> Response {
        let command: Vec<&str> = body["command"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let line = command.join(" ");
        let program = command.first().copied().unwrap_or_default();
        if !self.files.contains_key(program) {
            return failed(400, &format!("cannot find executable {program:?}"));
        }
        let known = self
            .execs
            .iter()
            .find(|(words, _)| line.contains(words.as_str()));
        let Some((_, ended)) = known.cloned() else {
            return failed(500, &format!("the stand-in was told nothing of {line:?}"));
        };
        let change = self.change("exec", None);
        let task = change.to_string();
        self.changes.get_mut(&change).expect("just made")["tasks"][0]["data"]["exit-code"] =
            json!(ended.0);
        self.pending_execs.insert(
            task.clone(),
            Exec {
                change,
                ended,
                joined: BTreeSet::new(),
            },
        );
        started(
            change,
            &json!({"task-id": task, "environment": {}, "working-dir": "/"}),
        )
    }
}

/// A request's body for people: the layer as its own text's digest, as the plan shows it.
fn shown(body: &Value) -> String {
    let mut body = body.clone();
    if body["layer"].is_string() {
        body["layer"] = json!("…");
    }
    body.to_string()
}

/// The parts of a multipart body: head and content.
fn parts<'a>(body: &'a [u8], boundary: &str) -> Vec<(String, &'a [u8])> {
    let marker = format!("--{boundary}");
    let mut found = Vec::new();
    let mut at = body;
    while let Some(begin) = find(at, marker.as_bytes()) {
        at = &at[begin + marker.len()..];
        if at.starts_with(b"--") {
            break;
        }
        let Some(head) = find(at, b"\r\n\r\n") else {
            break;
        };
        let content = &at[head + 4..];
        let Some(end) = find(content, format!("\r\n{marker}").as_bytes()) else {
            break;
        };
        found.push((
            String::from_utf8_lossy(&at[..head]).into_owned(),
            &content[..end],
        ));
        at = &content[end..];
    }
    found
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    let first = *what.first()?;
    let mut from = 0;
    while let Some(at) = text.get(from..)?.iter().position(|b| *b == first) {
        if text[from + at..].starts_with(what) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

/// One of an exec's streams.
fn websocket(
    stream: &UnixStream,
    request: &Request,
    rest: Vec<u8>,
    state: &Arc<Mutex<State>>,
    task: &str,
    channel: &str,
) -> Result<(), tungstenite::Error> {
    use std::io::Write;
    use tungstenite::protocol::{Message, Role, WebSocket};
    let key = request
        .headers
        .get("sec-websocket-key")
        .cloned()
        .unwrap_or_default();
    let accept = tungstenite::handshake::derive_accept_key(key.as_bytes());
    debug_assert!(STANDARD.decode(&key).is_ok());
    let head = format!(
        "HTTP/1.1 101 {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n",
        http::reason(101)
    );
    let mut writer = stream;
    writer.write_all(head.as_bytes())?;
    let text = {
        let mut state = state.lock().expect("not poisoned");
        let Some(exec) = state.pending_execs.get_mut(task) else {
            return Ok(());
        };
        exec.joined.insert(channel.to_owned());
        assert!(exec.change > 0, "an exec has a change");
        match channel {
            "stdio" => Some(exec.ended.1.clone()),
            "stderr" => Some(exec.ended.2.clone()),
            _ => None,
        }
    };
    let mut socket = WebSocket::from_partially_read(stream, rest, Role::Server, None);
    if let Some(text) = text {
        socket.send(Message::binary(text.into_bytes()))?;
        socket.send(Message::text(r#"{"command":"end"}"#))?;
    }
    // What the other side says is not looked at; it ends the stream.
    while socket.read().is_ok() {}
    Ok(())
}
