//! A Pebble that can do what a real one cannot be made to do: be absent or deaf, answer 504, have a
//! full disk, fail to start a service.
//!
//! It keeps layers, services, files and notices, and refuses what Pebble v1.19.2 refuses. It starts
//! no programs.

mod api;
mod layers;
mod files;
mod exec;

use crate::http;
use exec::websocket;
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
    /// There is no socket: the container has not started.
    Down,
    /// Nobody listens on the socket: Pebble has just died.
    Deaf,
    /// Every request is answered 504.
    Late,
    /// Every request is answered 500.
    Broken,
    /// Every request is answered 401, as to a user that Pebble does not obey.
    Forbidden,
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
    /// It has ended by itself, and Pebble will start it again.
    pub backoff: bool,
    /// The environment that it was started with.
    pub started: Value,
}

impl Service {
    /// Its state, as Pebble names it.
    pub fn current(&self) -> &'static str {
        match (self.active, self.backoff) {
            (_, true) => "backoff",
            (true, _) => "active",
            (false, _) => "inactive",
        }
    }
}

/// How a command ends: exit code, stdout and stderr.
pub type Executed = (i32, String, String);

pub struct State {
    pub mood: Mood,
    pub version: String,
    pub boot: u32,
    /// Label and content of each layer, in their order.
    pub layers: Vec<(String, Value)>,
    pub services: BTreeMap<String, Service>,
    pub files: BTreeMap<String, File>,
    pub notices: Vec<Value>,
    /// The beginning of a path → the error of writing there, such as `no space left on device`.
    pub file_errors: BTreeMap<String, String>,
    /// The error of the next start of a service.
    pub start_error: Option<String>,
    /// Check name → whether it is up.
    pub checks: BTreeMap<String, bool>,
    /// Words that a command must contain → how it ends.
    pub execs: Vec<(String, Executed)>,
    /// Words that a command must contain → how many seconds it takes. Nobody waits for them, but
    /// Pebble kills a command that takes longer than it may.
    pub slow: Vec<(String, u64)>,
    /// The lines of the service's log.
    pub said: Vec<String>,
    /// The requests of this hook.
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

/// The socket's path, where the charm looks for it.
const PLACE: &str = "/charm/containers/windrow";

impl Pebble {
    /// A container that has just started. Its socket lies in `folder`.
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

    /// Puts the socket where the charm looks for it, as the mood demands.
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
        // The listener's thread looks at its flag when somebody connects.
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
            slow: Vec::new(),
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

    /// The container is made anew. Nothing of the old one is left, except what Pebble keeps in the
    /// pod.
    pub fn renew(&mut self) {
        let (boot, version) = (self.boot + 1, self.version.clone());
        // Pebble's own state lies in the pod and not in the container, so notices outlive it.
        let (notices, made) = (std::mem::take(&mut self.notices), self.made);
        *self = State {
            boot,
            version,
            notices,
            made,
            ..State::new()
        };
    }

    /// The plan's text and every file that is not a folder, for people to read.
    pub fn tell(&self) -> Vec<String> {
        let mut said = Vec::new();
        let plan = self.plan();
        if plan != json!({}) {
            said.push("plan".to_owned());
            let text = serde_yaml::to_string(&plan).expect("JSON is YAML");
            said.extend(text.lines().map(|line| format!("  {line}")));
        }
        for (name, service) in &self.services {
            said.push(format!("service {name} {}", service.current()));
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
            "id": id.to_string(), "kind": kind, "summary": format!("{kind} service"),
            "status": status, "ready": true,
            "spawn-time": time, "ready-time": time,
            "tasks": [{
                "id": id.to_string(), "kind": kind, "summary": kind, "status": status, "log": log,
                "progress": {"label": "", "done": 1, "total": 1},
                "spawn-time": time, "ready-time": time, "data": {},
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
    pub(crate) fn folder() -> File {
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
