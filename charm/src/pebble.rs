//! The workload's Pebble, asked over its unix socket. It decides nothing.
//!
//! Every call has a limit of time and of size. What lies in files is in no error and in no log.

#![expect(
    clippy::disallowed_methods,
    reason = "the edge to Pebble: every wait for it has a limit"
)]

use http_body_util::BodyExt as _;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tungstenite::{Message, WebSocket};

/// How long an answer is waited for: Pebble needs 4 ms for most.
const ANSWER: Duration = Duration::from_secs(5);

/// How long a push may stand still. Its end may wait for the disk.
const PUSH_STALL: Duration = Duration::from_secs(60);

/// How long services are waited for. Pebble itself waits 1 s for a start.
const START: Duration = Duration::from_secs(15);

/// A service has `kill-delay` to end by itself: 20 s in our layer.
const STOP: Duration = Duration::from_secs(30);

/// What an answer may hold: [`READ_MAX_BYTES`] and what is around it.
const ANSWER_MAX_BYTES: usize = READ_MAX_BYTES + (64 << 10);

/// What the files of one reading may hold together.
const READ_MAX_BYTES: usize = 1 << 20;

/// What is kept of each output of a command; the rest is read and dropped, so that the command can end.
const OUTPUT_MAX_BYTES: usize = 1 << 20;

/// Pebble sends output in pieces of 128 KiB.
const MESSAGE_MAX_BYTES: usize = 4 << 20;

/// A file goes out in pieces of this size.
const PIECE_BYTES: usize = 64 << 10;

/// Why Pebble did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PebbleError {
    /// Nobody is there, or there is no answer in time.
    #[error("{0}")]
    Down(String),
    /// It is there and says no. `kind` is mostly empty.
    #[error("{message} (Pebble answers {status})")]
    Refused {
        status: u16,
        message: String,
        kind: String,
    },
    /// It began, and it did not work out; or its answer is not to be understood.
    #[error("{0}")]
    Failed(String),
}

type Result<T> = std::result::Result<T, PebbleError>;

/// A file to be written, with its folders. It takes an older one's place in one step.
#[derive(Clone, Debug)]
pub struct FileWrite {
    /// Absolute.
    pub path: String,
    pub content: Content,
    /// `0o600`.
    pub mode: u32,
    /// Both or none: without them the file is Pebble's own user's.
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

/// What lies in files, by path.
pub type Files = BTreeMap<String, Vec<u8>>;

/// What goes into a file.
#[derive(Clone)]
pub enum Content {
    Bytes(Vec<u8>),
    /// What lies in a file on our side, which may be large.
    File(PathBuf),
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // It may be a secret.
            Self::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// What a command in the container said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecOutput {
    pub code: i32,
    /// The first 1 MiB.
    pub stdout: Vec<u8>,
    /// The first 1 MiB.
    pub stderr: Vec<u8>,
}

/// A Pebble.
#[derive(Debug)]
pub struct Pebble {
    socket: PathBuf,
    runtime: io::Result<Runtime>,
}

impl Pebble {
    #[must_use]
    pub fn new(socket: PathBuf) -> Self {
        Self {
            socket,
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build(),
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The whole plan, as YAML.
    ///
    /// # Errors
    /// As every function here: `Down` when nobody answers, `Refused` when Pebble says no, `Failed` when it did not work out.
    pub fn plan(&self) -> Result<String> {
        self.get("read plan", "/v1/plan?format=yaml")
    }

    /// Each service of the plan, and whether it is `active`, `inactive`, `backoff` or in `error`.
    pub fn services(&self) -> Result<BTreeMap<String, String>> {
        #[derive(Deserialize)]
        struct Service {
            name: String,
            current: String,
        }
        let services: Vec<Service> = self.get("list services", "/v1/services")?;
        Ok(services
            .into_iter()
            .map(|service| (service.name, service.current))
            .collect())
    }

    /// Adds a layer to the plan, or combines it with the one of that label. Nothing is started or stopped yet.
    pub fn add_layer(&self, label: &str, yaml: &str) -> Result<()> {
        let body = json!({"action": "add", "combine": true, "label": label, "format": "yaml", "layer": yaml});
        self.post(&format!("add layer \"{label}\""), "/v1/layers", &body)
            .map(drop)
    }

    /// Starts what should run, and restarts what runs by an older plan: in the latter case waits up to 15 s.
    pub fn replan(&self) -> Result<()> {
        self.change("replan services", &json!({"action": "replan"}), START)
    }

    pub fn start(&self, services: &[&str]) -> Result<()> {
        self.change_services("start", services, START)
    }

    /// Waits up to 30 s.
    pub fn stop(&self, services: &[&str]) -> Result<()> {
        self.change_services("stop", services, STOP)
    }

    /// Stops and starts: waits up to 45 s.
    pub fn restart(&self, services: &[&str]) -> Result<()> {
        self.change_services("restart", services, STOP + START)
    }

    /// Sends a signal, such as `SIGHUP`, to a running service.
    pub fn signal(&self, name: &str, service: &str) -> Result<()> {
        let body = json!({"signal": name, "services": [service]});
        self.post(
            &format!("send {name} to service \"{service}\""),
            "/v1/signals",
            &body,
        )
        .map(drop)
    }

    /// The files that are there of those asked for, by path; together 1 MiB at most.
    pub fn read_files(&self, paths: &[&str]) -> Result<Files> {
        let what = "read files";
        if paths.is_empty() {
            return Ok(Files::new());
        }
        let query: String = paths
            .iter()
            .map(|path| format!("&path={}", escaped(path)))
            .collect();
        let request = request(Method::GET, &format!("/v1/files?action=read{query}"))
            .header("accept", "multipart/form-data");
        let (head, body) = self.ask(what, request, Upload::default(), ANSWER)?;
        let odd = || {
            PebbleError::Failed(format!(
                "cannot {what}: the answer is not multipart as it should be"
            ))
        };
        let boundary = head
            .headers
            .get("content-type")
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("multipart/form-data; boundary="))
            .ok_or_else(odd)?;
        let (mut files, results) = files_in(&body, boundary.trim_matches('"')).ok_or_else(odd)?;
        let results: Vec<FileResult> = understood(what, &results)?;
        for FileResult { path, error } in results {
            let Some(error) = error else { continue };
            files.remove(&path);
            if error.kind != "not-found" {
                return Err(PebbleError::Failed(format!(
                    "cannot read file \"{path}\": {}",
                    error.message
                )));
            }
        }
        if files.values().map(Vec::len).sum::<usize>() > READ_MAX_BYTES {
            return Err(PebbleError::Failed(format!(
                "cannot {what}: they hold more than {READ_MAX_BYTES} bytes"
            )));
        }
        Ok(files)
    }

    /// The files of a folder: name and size in bytes. None when there is no such folder.
    pub fn list(&self, dir: &str) -> Result<BTreeMap<String, u64>> {
        #[derive(Deserialize)]
        struct Info {
            name: String,
            /// Only files have one.
            size: Option<u64>,
        }
        let path = format!("/v1/files?action=list&path={}", escaped(dir));
        let infos: Vec<Info> = match self.get(&format!("list folder \"{dir}\""), &path) {
            Err(PebbleError::Refused { kind, .. }) if kind == "not-found" => Vec::new(),
            infos => infos?,
        };
        Ok(infos
            .into_iter()
            .filter_map(|info| Some((info.name, info.size?)))
            .collect())
    }

    /// Writes files one after the other, each in one step. When one fails, the others may be written all the same.
    pub fn write_files(&self, files: &[FileWrite]) -> Result<()> {
        let what = "write files";
        if files.is_empty() {
            return Ok(());
        }
        let about: Vec<Value> = files
            .iter()
            .map(|file| {
                json!({
                    "path": file.path, "make-dirs": true, "permissions": format!("{:03o}", file.mode),
                    "user-id": file.uid, "group-id": file.gid,
                })
            })
            .collect();
        let boundary = boundary();
        let mut upload = Upload::default();
        upload.text(format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"request\"\r\nContent-Type: application/json\r\n\r\n{}",
            json!({"action": "write", "files": about})
        ));
        for file in files {
            let name = file.path.replace('\\', "\\\\").replace('"', "\\\"");
            upload.text(format!(
                "\r\n--{boundary}\r\nContent-Disposition: form-data; name=\"files\"; filename=\"{name}\"\r\nContent-Type: application/octet-stream\r\n\r\n"
            ));
            match &file.content {
                Content::Bytes(bytes) => upload.bytes(bytes.clone()),
                Content::File(path) => upload.file(path).map_err(|error| {
                    PebbleError::Failed(format!("cannot read file \"{}\": {error}", path.display()))
                })?,
            }
        }
        upload.text(format!("\r\n--{boundary}--\r\n"));
        let request = request(Method::POST, "/v1/files").header(
            "content-type",
            format!("multipart/form-data; boundary={boundary}"),
        );
        let (_, body) = self.ask(what, request, upload, PUSH_STALL)?;
        all_went_well("write", &understood::<Vec<FileResult>>(what, &body)?)
    }

    /// Removes files. One that is not there is no error.
    pub fn remove(&self, paths: &[&str]) -> Result<()> {
        if paths.is_empty() {
            return Ok(());
        }
        let paths: Vec<Value> = paths
            .iter()
            .map(|path| json!({"path": path, "recursive": false}))
            .collect();
        let what = "remove files";
        let body = self.post(
            what,
            "/v1/files",
            &json!({"action": "remove", "paths": paths}),
        )?;
        let mut results: Vec<FileResult> = understood(what, &body)?;
        results.retain(|result| {
            result
                .error
                .as_ref()
                .is_none_or(|error| error.kind != "not-found")
        });
        all_went_well("remove", &results)
    }

    /// Runs a command in the container, as Pebble's own user, with nothing on stdin. It is ended after `timeout`, which is `Failed`.
    /// An exit code that is not 0 is an answer like any other.
    pub fn exec(&self, command: &[String], timeout: Duration) -> Result<ExecOutput> {
        #[derive(Deserialize)]
        #[serde(rename_all = "kebab-case")]
        struct Task {
            task_id: String,
        }
        let what = format!(
            "run command \"{}\"",
            command.first().map_or("", String::as_str)
        );
        let body = json!({"command": command, "split-stderr": true, "timeout": format!("{}ms", timeout.as_millis())});
        let body = self.post(&what, "/v1/exec", &body)?;
        // The answer also holds the whole environment: nothing of it is to be shown.
        let task: Task = understood(&what, &body)?;
        let change = change_id(&what, &body)?;

        // Pebble ends the command and says so, which is waited for a little longer. What the command has started itself goes on, and
        // as long as it holds the outputs Pebble says nothing.
        let until = Instant::now() + timeout + ANSWER;
        let websocket =
            |id| self.websocket(&what, &format!("/v1/tasks/{}/websocket/{id}", task.task_id));
        let (mut stdio, mut stderr) = (websocket("stdio")?, websocket("stderr")?);
        stdio
            .send(Message::text(json!({"command": "end"}).to_string()))
            .map_err(|error| PebbleError::Down(format!("cannot {what}: {error}")))?;
        // Side by side: a command that fills one output would wait for ever while we read the other.
        let (stdout, stderr) = std::thread::scope(|scope| {
            let stderr = scope.spawn(|| output(&mut stderr, until));
            (
                output(&mut stdio, until),
                stderr.join().expect("reading a socket does not panic"),
            )
        });
        let failed = |cause: String| PebbleError::Failed(format!("cannot {what}: {cause}"));
        let (stdout, stderr) = (stdout.map_err(failed)?, stderr.map_err(failed)?);
        let change = self.wait(&what, &change, ANSWER)?;
        let code = change
            .tasks
            .first()
            .and_then(|task| task.data.get("exit-code")?.as_i64());
        let code = code.and_then(|code| i32::try_from(code).ok());
        let code = code.ok_or_else(|| failed("Pebble does not tell its exit code".to_owned()))?;
        Ok(ExecOutput {
            code,
            stdout,
            stderr,
        })
    }

    /// The last `n` lines of a service's log, oldest first. Pebble keeps 100 KiB.
    pub fn logs(&self, service: &str, n: usize) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Line {
            message: String,
        }
        let what = format!("read log of service \"{service}\"");
        let request = request(
            Method::GET,
            &format!("/v1/logs?services={}&n={n}", escaped(service)),
        );
        let (_, body) = self.ask(&what, request, Upload::default(), ANSWER)?;
        serde_json::Deserializer::from_slice(&body)
            .into_iter::<Line>()
            .map(|line| Ok(line.map_err(|_| not_understood(&what))?.message))
            .collect()
    }

    /// What the latest custom notice of that key said; `None` when there is none that we may see.
    pub fn notice(&self, key: &str) -> Result<Option<BTreeMap<String, String>>> {
        #[derive(Deserialize)]
        #[serde(rename_all = "kebab-case")]
        struct Notice {
            /// UTC without trailing zeros; only for comparing.
            last_occurred: String,
            #[serde(default)]
            last_data: BTreeMap<String, String>,
        }
        let path = format!("/v1/notices?types=custom&keys={}", escaped(key));
        // Each user that adds one has its own. Pebble lists those that were repeated last at the end.
        let notices: Option<Vec<Notice>> = self.get(&format!("read notice \"{key}\""), &path)?;
        Ok(notices
            .unwrap_or_default()
            .into_iter()
            .max_by(|a, b| {
                a.last_occurred
                    .trim_end_matches('Z')
                    .cmp(b.last_occurred.trim_end_matches('Z'))
            })
            .map(|notice| notice.last_data))
    }

    fn get<T: for<'de> Deserialize<'de>>(&self, what: &str, path: &str) -> Result<T> {
        let (_, body) = self.ask(what, request(Method::GET, path), Upload::default(), ANSWER)?;
        understood(what, &body)
    }

    fn post(&self, what: &str, path: &str, body: &Value) -> Result<Vec<u8>> {
        let mut upload = Upload::default();
        upload.text(body.to_string());
        let request = request(Method::POST, path).header("content-type", "application/json");
        Ok(self.ask(what, request, upload, ANSWER)?.1)
    }

    fn change_services(&self, action: &str, services: &[&str], limit: Duration) -> Result<()> {
        let what = format!("{action} service \"{}\"", services.join("\", \""));
        self.change(
            &what,
            &json!({"action": action, "services": services}),
            limit,
        )
    }

    /// Asks for a change of services and waits for its end.
    fn change(&self, what: &str, body: &Value, limit: Duration) -> Result<()> {
        let body = self.post(what, "/v1/services", body)?;
        self.wait(what, &change_id(what, &body)?, limit).map(drop)
    }

    /// Waits for the end of a change. One that failed is `Failed`.
    fn wait(&self, what: &str, change: &str, limit: Duration) -> Result<Change> {
        let path = format!("/v1/changes/{change}/wait?timeout={}ms", limit.as_millis());
        let (_, body) = match self.ask(
            what,
            request(Method::GET, &path),
            Upload::default(),
            limit + ANSWER,
        ) {
            Err(PebbleError::Refused { status: 504, .. }) => {
                return Err(PebbleError::Failed(format!(
                    "cannot {what}: it is not done after {} s; Pebble goes on with it",
                    limit.as_secs_f32()
                )));
            }
            answer => answer?,
        };
        let change: Change = understood(what, &body)?;
        match change.cause() {
            None => Ok(change),
            Some(cause) => Err(PebbleError::Failed(format!("cannot {what}: {cause}"))),
        }
    }

    /// One request on its own connection, and the whole answer. `stall` is how long nothing may move.
    fn ask(
        &self,
        what: &str,
        request: hyper::http::request::Builder,
        upload: Upload,
        stall: Duration,
    ) -> Result<(hyper::http::response::Parts, Vec<u8>)> {
        let down = |cause: &dyn fmt::Display| PebbleError::Down(format!("cannot {what}: {cause}"));
        let moved = upload.moved.clone();
        let request = request.body(upload).map_err(|error| down(&error))?;
        let runtime = self.runtime.as_ref().map_err(|error| down(error))?;
        let (head, body) = runtime.block_on(async {
            let exchange = std::pin::pin!(exchange(&self.socket, request));
            moving(exchange, &moved, stall)
                .await
                .map_err(|cause| down(&cause))
        })?;
        if body.len() > ANSWER_MAX_BYTES {
            return Err(PebbleError::Failed(format!(
                "cannot {what}: the answer is longer than {ANSWER_MAX_BYTES} bytes"
            )));
        }
        if head.status.is_success() {
            return Ok((head, body));
        }
        Err(refused(what, head.status, &body))
    }

    /// Connects to an output of a command that is about to run.
    fn websocket(&self, what: &str, path: &str) -> Result<WebSocket<Socket>> {
        let down = |cause: &dyn fmt::Display| PebbleError::Down(format!("cannot {what}: {cause}"));
        let stream = UnixStream::connect(&self.socket).map_err(|error| down(&error))?;
        stream
            .set_read_timeout(Some(ANSWER))
            .map_err(|error| down(&error))?;
        stream
            .set_write_timeout(Some(ANSWER))
            .map_err(|error| down(&error))?;
        let limits = tungstenite::protocol::WebSocketConfig::default()
            .max_message_size(Some(MESSAGE_MAX_BYTES));
        tungstenite::client::client_with_config(
            format!("ws://localhost{path}"),
            Socket(stream),
            Some(limits),
        )
        .map(|(websocket, _)| websocket)
        .map_err(|error| down(&error))
    }
}

/// A change of Pebble's: something that takes time.
#[derive(Deserialize)]
struct Change {
    #[serde(default)]
    err: String,
    #[serde(default)]
    tasks: Vec<Task>,
}

/// A step of a change.
#[derive(Deserialize)]
struct Task {
    #[serde(default)]
    log: Vec<String>,
    #[serde(default)]
    data: BTreeMap<String, Value>,
}

impl Change {
    /// Why it failed, in one line: what Pebble says of each step that did, and the last line that a service said itself.
    fn cause(&self) -> Option<String> {
        if self.err.is_empty() {
            return None;
        }
        let steps = self
            .err
            .strip_prefix("cannot perform the following tasks:")
            .unwrap_or(&self.err);
        let steps: Vec<&str> = steps
            .lines()
            .map(|line| line.trim().trim_start_matches("- "))
            .filter(|line| !line.is_empty())
            .collect();
        let mut cause = steps.join("; ");
        let mut logs = self.tasks.iter().flat_map(|task| &task.log);
        let said = logs.rfind(|log| log.contains("Most recent service output:"));
        let last = said
            .and_then(|log| log.trim_end().rsplit_once('\n'))
            .map(|(_, line)| line.trim());
        if let Some(last) = last {
            cause = format!("{cause}; its last words: {last}");
        }
        Some(cause)
    }
}

/// What became of one file.
#[derive(Deserialize)]
struct FileResult {
    path: String,
    error: Option<FileError>,
}

#[derive(Deserialize)]
struct FileError {
    message: String,
    #[serde(default)]
    kind: String,
}

fn all_went_well(verb: &str, results: &[FileResult]) -> Result<()> {
    let errors: Vec<String> = results
        .iter()
        .filter_map(|result| {
            Some(format!(
                "cannot {verb} file \"{}\": {}",
                result.path,
                result.error.as_ref()?.message
            ))
        })
        .collect();
    if errors.is_empty() {
        Ok(())
    } else {
        Err(PebbleError::Failed(errors.join("; ")))
    }
}

/// The `result` of an answer.
fn understood<T: for<'de> Deserialize<'de>>(what: &str, body: &[u8]) -> Result<T> {
    #[derive(Deserialize)]
    struct Answer<T> {
        result: T,
    }
    serde_json::from_slice(body)
        .map(|answer: Answer<T>| answer.result)
        .map_err(|_| not_understood(what))
}

/// The change that an answer says was begun.
fn change_id(what: &str, body: &[u8]) -> Result<String> {
    #[derive(Deserialize)]
    struct Answer {
        change: String,
    }
    let answer: Answer = serde_json::from_slice(body).map_err(|_| not_understood(what))?;
    // It becomes part of a path.
    Ok(escaped(&answer.change))
}

/// What the JSON reader says would quote the answer: it is left out.
fn not_understood(what: &str) -> PebbleError {
    PebbleError::Failed(format!(
        "cannot {what}: Pebble's answer is not the JSON it should be"
    ))
}

fn refused(what: &str, status: StatusCode, body: &[u8]) -> PebbleError {
    let answer = understood::<FileError>(what, body).unwrap_or_else(|_| FileError {
        message: status
            .canonical_reason()
            .unwrap_or("no reason")
            .to_lowercase(),
        kind: String::new(),
    });
    PebbleError::Refused {
        status: status.as_u16(),
        message: format!("cannot {what}: {}", answer.message),
        kind: answer.kind,
    }
}

fn request(method: Method, path: &str) -> hyper::http::request::Builder {
    Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost")
}

/// What stands between the parts of a push: nobody can guess it, so no file can hold it and pass for two. Pebble wants 32
/// characters or more.
fn boundary() -> String {
    use std::hash::{BuildHasher as _, RandomState};
    let random = || RandomState::new().hash_one("boundary");
    format!("windrow-{:016x}{:016x}", random(), random())
}

/// A text as it may stand in a query.
fn escaped(text: &str) -> String {
    use fmt::Write as _;
    text.bytes()
        .fold(String::with_capacity(text.len()), |mut escaped, byte| {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                    escaped.push(char::from(byte))
                }
                _ => write!(escaped, "%{byte:02X}").expect("a String takes all"),
            }
            escaped
        })
}

/// Sends a request and reads the answer: [`ANSWER_MAX_BYTES`], or one frame more.
async fn exchange(
    socket: &std::path::Path,
    request: Request<Upload>,
) -> std::result::Result<(hyper::http::response::Parts, Vec<u8>), String> {
    let stream = tokio::net::UnixStream::connect(socket)
        .await
        .map_err(|error| format!("no Pebble answers at {}: {error}", socket.display()))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Upload>(TokioIo::new(stream))
            .await
            .map_err(|error| chain(&error))?;
    let connection = tokio::spawn(connection);
    let answer = async {
        let response: Response<Incoming> = sender
            .send_request(request)
            .await
            .map_err(|error| chain(&error))?;
        let (head, mut body) = response.into_parts();
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame.map_err(|error| chain(&error))?.into_data() {
                bytes.extend_from_slice(&data);
            }
            if bytes.len() > ANSWER_MAX_BYTES {
                break;
            }
        }
        Ok((head, bytes))
    }
    .await;
    connection.abort();
    // Its end closes the socket and the files.
    let _ = connection.await;
    answer
}

/// An error and what caused it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(error.source(), |error| error.source())
        .fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Waits as long as something moves, and `stall` after that.
async fn moving<T>(
    mut exchange: Pin<&mut impl Future<Output = std::result::Result<T, String>>>,
    moved: &Moved,
    stall: Duration,
) -> std::result::Result<T, String> {
    loop {
        let until = moved.last() + stall;
        match tokio::time::timeout_at(until.into(), &mut exchange).await {
            Ok(answer) => return answer,
            Err(_) if moved.last() + stall > until => {}
            Err(_) => {
                return Err(format!(
                    "Pebble does not answer within {} s",
                    stall.as_secs_f32()
                ));
            }
        }
    }
}

/// When something last went out.
#[derive(Clone)]
struct Moved(Arc<Mutex<Instant>>);

impl Moved {
    fn last(&self) -> Instant {
        *self.0.lock().expect("nobody panics with it")
    }

    fn now(&self) {
        *self.0.lock().expect("nobody panics with it") = Instant::now();
    }
}

/// A request's body. Files are read as they go out.
struct Upload {
    pieces: VecDeque<Piece>,
    moved: Moved,
}

enum Piece {
    Bytes(Bytes),
    /// And how much of it is left to be read.
    File(File, u64),
}

impl Default for Upload {
    fn default() -> Self {
        Self {
            pieces: VecDeque::new(),
            moved: Moved(Arc::new(Mutex::new(Instant::now()))),
        }
    }
}

impl Upload {
    fn text(&mut self, text: String) {
        self.bytes(text.into_bytes());
    }

    fn bytes(&mut self, bytes: Vec<u8>) {
        self.pieces.push_back(Piece::Bytes(bytes.into()));
    }

    fn file(&mut self, path: &std::path::Path) -> io::Result<()> {
        let file = File::open(path)?;
        let bytes = file.metadata()?.len();
        self.pieces.push_back(Piece::File(file, bytes));
        Ok(())
    }

    /// The next bytes to go out.
    fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            match self.pieces.front_mut()? {
                Piece::File(_, 0) => drop(self.pieces.pop_front()),
                Piece::File(file, left) => {
                    let mut piece = Vec::with_capacity(PIECE_BYTES);
                    let read = file
                        .take((*left).min(PIECE_BYTES as u64))
                        .read_to_end(&mut piece);
                    return Some(match read {
                        Ok(0) => Err(io::Error::other(
                            "the file has become shorter while it was read",
                        )),
                        Ok(bytes) => {
                            *left -= bytes as u64;
                            Ok(piece.into())
                        }
                        Err(error) => Err(error),
                    });
                }
                Piece::Bytes(bytes) => {
                    let bytes = std::mem::take(bytes);
                    self.pieces.pop_front();
                    return Some(Ok(bytes));
                }
            }
        }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.moved.now();
        // A local file is read at once: nothing else runs on this thread.
        Poll::Ready(self.next().map(|bytes| bytes.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(
            self.pieces
                .iter()
                .map(|piece| match piece {
                    Piece::Bytes(bytes) => bytes.len() as u64,
                    Piece::File(_, left) => *left,
                })
                .sum(),
        )
    }
}

/// The files in a multipart answer by name, and the JSON part that tells what became of each.
fn files_in(body: &[u8], boundary: &str) -> Option<(Files, Vec<u8>)> {
    let (mut files, mut results) = (Files::new(), None);
    let between = format!("\r\n--{boundary}");
    // The first boundary has no line before it.
    let mut rest = body.strip_prefix(&between.as_bytes()[2..])?;
    while let Some(part) = rest.strip_prefix(b"\r\n") {
        let (head, part) = split(part, b"\r\n\r\n")?;
        let (content, after) = split(part, between.as_bytes())?;
        rest = after;
        let disposition = std::str::from_utf8(head).ok()?.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-disposition")
                .then(|| value.trim())
        })?;
        match parameter(disposition, "name")?.as_str() {
            "files" => drop(files.insert(parameter(disposition, "filename")?, content.to_vec())),
            "response" => results = Some(content.to_vec()),
            _ => {}
        }
    }
    Some((files, results.filter(|_| rest.starts_with(b"--"))?))
}

fn split<'a>(bytes: &'a [u8], at: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let found = bytes.windows(at.len()).position(|window| window == at)?;
    Some((&bytes[..found], &bytes[found + at.len()..]))
}

/// A parameter of a header, such as `name="files"`; a backslash keeps the character after it.
fn parameter(header: &str, name: &str) -> Option<String> {
    let (_, text) = header.split_once(&format!("; {name}=\""))?;
    let mut value = String::new();
    let mut chars = text.chars();
    loop {
        match chars.next()? {
            '"' => return Some(value),
            '\\' => value.push(chars.next()?),
            c => value.push(c),
        }
    }
}

/// A socket whose calls are made again when a signal comes between: with a time limit the system does not do so itself.
struct Socket(UnixStream);

impl Socket {
    fn again<T>(
        &mut self,
        mut call: impl FnMut(&mut UnixStream) -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            match call(&mut self.0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}

impl Read for Socket {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.again(|socket| socket.read(bytes))
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.again(|socket| socket.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads an output of a command to its end, and keeps the beginning.
fn output(
    websocket: &mut WebSocket<Socket>,
    until: Instant,
) -> std::result::Result<Vec<u8>, String> {
    let mut output = Vec::new();
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err("it was not done in time".to_owned());
        }
        websocket
            .get_mut()
            .0
            .set_read_timeout(Some(left))
            .map_err(|error| error.to_string())?;
        match websocket.read() {
            Ok(Message::Binary(bytes)) => {
                let room = OUTPUT_MAX_BYTES - output.len();
                output.extend_from_slice(&bytes[..bytes.len().min(room)]);
            }
            // The one text there is says that this was all.
            Ok(Message::Text(_) | Message::Close(_)) => return Ok(output),
            Ok(_) => {}
            Err(tungstenite::Error::Io(error))
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                ) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    use std::os::unix::net::UnixListener;
    use std::process::{Child, Command, Stdio};

    /// Long enough for a machine that is busy with other things.
    const SOON: Duration = Duration::from_secs(20);

    fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
        let until = Instant::now() + SOON;
        while !holds() {
            assert!(Instant::now() < until, "{what}: not within {SOON:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn signal(pid: u32, name: &str) {
        // It may have ended.
        let _ = Command::new("/bin/sh")
            .args(["-c", "kill -$1 $0", &pid.to_string(), name])
            .stderr(Stdio::null())
            .status();
    }

    /// A Pebble of its own, as Juju starts it.
    struct Daemon {
        binary: PathBuf,
        child: Child,
        dir: tempfile::TempDir,
        pebble: Pebble,
    }

    impl Daemon {
        fn start(binary: &Path) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let socket = dir.path().join("pebble.socket");
            let child = Command::new(binary)
                .args(["run", "--create-dirs", "--hold"])
                .env("PEBBLE", dir.path())
                .env("PEBBLE_SOCKET", &socket)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let daemon = Self {
                binary: binary.to_owned(),
                child,
                dir,
                pebble: Pebble::new(socket),
            };
            wait_for("Pebble answers", || daemon.pebble.services().is_ok());
            daemon
        }

        fn path(&self, name: &str) -> String {
            self.dir.path().join(name).to_str().unwrap().to_owned()
        }
    }

    impl Drop for Daemon {
        fn drop(&mut self) {
            // It ends its services then.
            signal(self.child.id(), "TERM");
            let until = Instant::now() + SOON;
            while Instant::now() < until && !matches!(self.child.try_wait(), Ok(Some(_))) {
                std::thread::sleep(Duration::from_millis(5));
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    /// Runs `test` against each version of Pebble that is there.
    fn with_each(test: impl Fn(&Daemon)) {
        let dir = std::env::var("WINDROW_PEBBLE_DIR")
            .expect("WINDROW_PEBBLE_DIR names a directory with pebble-v*");
        let mut binaries: Vec<PathBuf> = std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| {
                path.file_name()
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .starts_with("pebble-v")
            })
            .collect();
        assert!(!binaries.is_empty(), "no pebble-v* there");
        binaries.sort();
        for binary in binaries {
            println!("{}", binary.display());
            test(&Daemon::start(&binary));
        }
    }

    /// Says how long a call took.
    fn timed<T>(what: &str, call: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let result = call();
        println!("{what}: {:.2} ms", began.elapsed().as_secs_f64() * 1e3);
        result
    }

    fn layer(command: &str, digest: &str) -> String {
        format!(
            "services:\n  web:\n    override: replace\n    command: {command}\n    startup: enabled\n    kill-delay: 1s\n    environment: {{DIGEST: \"{digest}\"}}\n"
        )
    }

    fn current(pebble: &Pebble) -> String {
        pebble.services().unwrap()["web"].clone()
    }

    #[test]
    #[ignore = "needs Pebble: WINDROW_PEBBLE_DIR, a directory with pebble-v*"]
    fn services_are_planned_started_and_stopped() {
        with_each(|Daemon { pebble, .. }| {
            assert!(timed("services", || pebble.services()).unwrap().is_empty());
            assert_eq!(timed("plan", || pebble.plan()).unwrap(), "{}\n");
            timed("replan of nothing", || pebble.replan()).unwrap();

            timed("add_layer", || {
                pebble.add_layer("windrow", &layer("sleep 1000", "a"))
            })
            .unwrap();
            assert!(pebble.plan().unwrap().contains("command: sleep 1000"));
            assert_eq!(current(pebble), "inactive");
            timed("replan that starts", || pebble.replan()).unwrap();
            assert_eq!(current(pebble), "active");
            timed("replan without changes", || pebble.replan()).unwrap();
            pebble
                .add_layer("windrow", &layer("sleep 1000", "b"))
                .unwrap();
            timed("replan that restarts", || pebble.replan()).unwrap();
            assert_eq!(current(pebble), "active");
            timed("stop", || pebble.stop(&["web"])).unwrap();
            assert_eq!(current(pebble), "inactive");
            timed("start", || pebble.start(&["web"])).unwrap();
            timed("restart", || pebble.restart(&["web"])).unwrap();
            assert_eq!(current(pebble), "active");

            let PebbleError::Refused {
                status: 400,
                message,
                ..
            } = pebble.stop(&["other"]).unwrap_err()
            else {
                panic!("refused")
            };
            assert_eq!(
                message,
                "cannot stop service \"other\": cannot stop services: service \"other\" does not exist"
            );
            let error = pebble
                .add_layer("windrow", "services: {web: {command: a}}")
                .unwrap_err();
            println!("{error}");
            assert!(matches!(error, PebbleError::Refused { status: 400, .. }));

            // A start that fails: Pebble goes on trying, so the service is stopped.
            pebble
                .add_layer(
                    "windrow",
                    &layer("sh -c 'echo first; echo last words >&2; exit 7'", "c"),
                )
                .unwrap();
            let error = timed("replan that fails", || pebble.replan()).unwrap_err();
            println!("{error}");
            let PebbleError::Failed(text) = error else {
                panic!("failed")
            };
            assert!(
                text.starts_with("cannot replan services: Start service \"web\" ("),
                "{text}"
            );
            assert!(
                text.contains("code 7") && text.ends_with("; its last words: last words"),
                "{text}"
            );
            let _ = pebble.stop(&["web"]);
        });
    }

    #[test]
    #[ignore = "needs Pebble: WINDROW_PEBBLE_DIR, a directory with pebble-v*"]
    fn files_are_written_read_and_removed() {
        with_each(|daemon| {
            let pebble = &daemon.pebble;
            let big = daemon.path("big");
            let content: Vec<u8> = (0..26_000_000u32)
                .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
                .collect();
            std::fs::write(&big, &content).unwrap();
            // Who may not give files away writes as itself.
            let (uid, gid) = {
                let me = std::fs::metadata(&big).unwrap();
                if me.uid() == 0 {
                    (584_792, 584_792)
                } else {
                    (me.uid(), me.gid())
                }
            };
            let write = |path: &str, content, mode| FileWrite {
                path: daemon.path(path),
                content,
                mode,
                uid: None,
                gid: None,
            };
            let binary = write(
                "opt/windrow/windrow-1",
                Content::File(big.clone().into()),
                0o755,
            );
            timed("push of 26 MB", || pebble.write_files(&[binary])).unwrap();
            let pushed = daemon.path("opt/windrow/windrow-1");
            assert!(std::fs::read(&pushed).unwrap() == content);
            assert_eq!(
                std::fs::metadata(&pushed).unwrap().permissions().mode() & 0o7777,
                0o755
            );

            let secret = FileWrite {
                uid: Some(uid),
                gid: Some(gid),
                ..write(
                    "etc/a \"b\".yaml",
                    Content::Bytes(b"\r\n--geheim\r\n".to_vec()),
                    0o600,
                )
            };
            let empty = write("etc/empty", Content::Bytes(Vec::new()), 0o644);
            timed("push of two small files", || {
                pebble.write_files(&[secret, empty])
            })
            .unwrap();
            let about = std::fs::metadata(daemon.path("etc/a \"b\".yaml")).unwrap();
            assert_eq!(
                (
                    about.permissions().mode() & 0o7777,
                    about.uid(),
                    about.gid()
                ),
                (0o600, uid, gid)
            );

            let names = timed("list", || pebble.list(&daemon.path("etc"))).unwrap();
            assert_eq!(
                names,
                BTreeMap::from([("a \"b\".yaml".to_owned(), 12), ("empty".to_owned(), 0)])
            );
            assert_eq!(
                pebble.list(&daemon.path("opt/windrow")).unwrap()["windrow-1"],
                26_000_000
            );
            assert!(pebble.list(&daemon.path("nowhere")).unwrap().is_empty());

            let (a, empty, none) = (
                daemon.path("etc/a \"b\".yaml"),
                daemon.path("etc/empty"),
                daemon.path("no & such?"),
            );
            let files = timed("read_files", || pebble.read_files(&[&a, &none, &empty])).unwrap();
            assert_eq!(
                files,
                BTreeMap::from([
                    (a.clone(), b"\r\n--geheim\r\n".to_vec()),
                    (empty.clone(), Vec::new())
                ])
            );
            assert!(pebble.read_files(&[&none]).unwrap().is_empty());
            let error = pebble.read_files(&[&pushed]).unwrap_err().to_string();
            assert_eq!(
                error,
                "cannot read files: the answer is longer than 1114112 bytes"
            );
            let dir = daemon.path("etc");
            let error = pebble.read_files(&[&a, &dir]).unwrap_err().to_string();
            assert_eq!(
                error,
                format!("cannot read file \"{dir}\": can only read a regular file: \"{dir}\"")
            );

            // One that cannot be written; a large one beside it is.
            let error = pebble
                .write_files(&[
                    write("etc", Content::Bytes(b"geheim".to_vec()), 0o600),
                    write(
                        "opt/windrow/windrow-2",
                        Content::File(big.clone().into()),
                        0o755,
                    ),
                    write("etc/empty/below", Content::File(big.clone().into()), 0o755),
                ])
                .unwrap_err();
            println!("{error}");
            let PebbleError::Failed(text) = error else {
                panic!("failed")
            };
            assert!(
                text.starts_with(&format!("cannot write file \"{dir}\": ")),
                "{text}"
            );
            assert!(
                text.contains(&format!("; cannot write file \"{empty}/below\": "))
                    && !text.contains("geheim"),
                "{text}"
            );
            assert_eq!(
                pebble.list(&daemon.path("opt/windrow")).unwrap()["windrow-2"],
                26_000_000
            );
            let error = pebble
                .write_files(&[write("x", Content::File("/nowhere/x".into()), 0o600)])
                .unwrap_err();
            assert_eq!(
                error.to_string(),
                "cannot read file \"/nowhere/x\": No such file or directory (os error 2)"
            );

            timed("remove", || pebble.remove(&[&a, &none])).unwrap();
            assert_eq!(pebble.list(&dir).unwrap().len(), 1);
            let error = pebble.remove(&[&dir]).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("cannot remove file \"{dir}\": ")),
                "{error}"
            );
        });
    }

    #[test]
    #[ignore = "needs Pebble: WINDROW_PEBBLE_DIR, a directory with pebble-v*"]
    fn commands_are_run() {
        with_each(|Daemon { pebble, .. }| {
            let sh = |script: &str, timeout| {
                let command: Vec<String> = ["sh", "-c", script].map(str::to_owned).into();
                timed(&format!("exec of {script:?}"), || {
                    pebble.exec(&command, timeout)
                })
            };
            let ran = sh("echo out; echo err >&2; cat; exit 3", SOON).unwrap();
            assert_eq!(
                ran,
                ExecOutput {
                    code: 3,
                    stdout: b"out\n".to_vec(),
                    stderr: b"err\n".to_vec()
                }
            );
            assert_eq!(
                sh("true", SOON).unwrap(),
                ExecOutput {
                    code: 0,
                    stdout: vec![],
                    stderr: vec![]
                }
            );

            let ran = sh(
                "head -c 3000000 /dev/zero >&2; head -c 5000000 /dev/zero; head -c 3000000 /dev/zero >&2",
                SOON,
            )
            .unwrap();
            assert_eq!(
                (ran.code, ran.stdout.len(), ran.stderr.len()),
                (0, OUTPUT_MAX_BYTES, OUTPUT_MAX_BYTES)
            );

            let error = sh("exec sleep 1000", Duration::from_millis(300)).unwrap_err();
            println!("{error}");
            assert!(
                matches!(&error, PebbleError::Failed(text) if text.contains("timed out after 300ms"))
            );
            let error = sh("sleep 7 & wait", Duration::from_millis(300)).unwrap_err();
            assert_eq!(
                error.to_string(),
                "cannot run command \"sh\": it was not done in time"
            );
            let error = pebble.exec(&["/no/such".to_owned()], SOON).unwrap_err();
            assert_eq!(
                error.to_string(),
                "cannot run command \"/no/such\": cannot find executable \"/no/such\" (Pebble answers 400)"
            );
        });
    }

    #[test]
    #[ignore = "needs Pebble: WINDROW_PEBBLE_DIR, a directory with pebble-v*"]
    fn logs_signals_and_notices() {
        with_each(|daemon| {
            let pebble = &daemon.pebble;
            assert!(pebble.logs("web", 5).unwrap().is_empty());
            let script =
                "sh -c \"trap 'echo again' HUP; echo one; echo two; while :; do sleep 0.05; done\"";
            pebble.add_layer("windrow", &layer(script, "a")).unwrap();
            let error = pebble.signal("SIGHUP", "web").unwrap_err();
            println!("{error}");
            pebble.replan().unwrap();
            assert_eq!(
                timed("logs", || pebble.logs("web", 5)).unwrap(),
                ["one", "two"]
            );
            timed("signal", || pebble.signal("SIGHUP", "web")).unwrap();
            // The signal reaches the sleep too, of which the shell may say a word after.
            wait_for("the service says so", || {
                pebble.logs("web", 5).unwrap().contains(&"again".to_owned())
            });
            assert!(matches!(
                pebble.signal("SIGNONE", "web"),
                Err(PebbleError::Refused { .. })
            ));
            pebble.stop(&["web"]).unwrap();

            let key = "windrow.dev/state";
            assert_eq!(timed("notice", || pebble.notice(key)).unwrap(), None);
            for state in ["waiting", "failed"] {
                let done = Command::new(&daemon.binary)
                    .args([
                        "notify",
                        key,
                        &format!("state={state}"),
                        "cause=login-kafka",
                    ])
                    .env("PEBBLE", daemon.dir.path())
                    .env("PEBBLE_SOCKET", &pebble.socket)
                    .stdout(Stdio::null())
                    .status()
                    .unwrap();
                assert!(done.success());
            }
            let data = timed("notice", || pebble.notice(key)).unwrap().unwrap();
            assert_eq!(
                data,
                BTreeMap::from([
                    ("state".into(), "failed".into()),
                    ("cause".into(), "login-kafka".into())
                ])
            );
            assert_eq!(pebble.notice("windrow.dev/other").unwrap(), None);
        });
    }

    /// A Pebble that gives the same answer to everything, if any.
    fn stand_in(answer: Option<(&str, &str)>) -> (tempfile::TempDir, Pebble) {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("pebble.socket");
        let listener = UnixListener::bind(&socket).unwrap();
        let answer = answer.map(|(status, body)| {
            format!(
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )
        });
        std::thread::spawn(move || {
            let mut open = Vec::new();
            for mut stream in listener.incoming().map_while(io::Result::ok) {
                // The beginning of the request, so that it is not answered before it came.
                let _ = stream.read(&mut [0; 64]);
                match &answer {
                    Some(answer) => drop(stream.write_all(answer.as_bytes())),
                    None => open.push(stream),
                }
            }
        });
        (dir, Pebble::new(socket))
    }

    #[test]
    fn nobody_there_is_down() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("pebble.socket");
        let pebble = Pebble::new(socket.clone());
        let text = format!(
            "cannot list services: no Pebble answers at {}: ",
            socket.display()
        );
        assert_eq!(
            pebble.services(),
            Err(PebbleError::Down(format!(
                "{text}No such file or directory (os error 2)"
            )))
        );
        drop(UnixListener::bind(&socket).unwrap());
        assert_eq!(
            pebble.services(),
            Err(PebbleError::Down(format!(
                "{text}Connection refused (os error 111)"
            )))
        );

        let (_dir, pebble) = stand_in(None);
        let ask = |upload| {
            pebble
                .ask(
                    "do it",
                    request(Method::POST, "/v1/files"),
                    upload,
                    Duration::from_millis(200),
                )
                .unwrap_err()
        };
        let silent =
            PebbleError::Down("cannot do it: Pebble does not answer within 0.2 s".to_owned());
        assert_eq!(ask(Upload::default()), silent);
        // It takes no more than a socket holds.
        let mut upload = Upload::default();
        upload.bytes(vec![0; 10 << 20]);
        assert_eq!(ask(upload), silent);
        let (_dir, pebble) = stand_in(Some(("", "")));
        let PebbleError::Down(text) = pebble.plan().unwrap_err() else {
            panic!("down")
        };
        assert!(text.starts_with("cannot read plan: "), "{text}");
    }

    #[test]
    fn what_pebble_refuses_is_told() {
        let refused = |status, message: &str, kind: &str| PebbleError::Refused {
            status,
            message: message.to_owned(),
            kind: kind.to_owned(),
        };
        let (_dir, pebble) = stand_in(Some((
            "504 Gateway Timeout",
            "{\"type\":\"error\",\"status-code\":504,\"result\":{\"message\":\"timed out\",\"kind\":\"daemon-restart\"}}",
        )));
        assert_eq!(
            pebble.plan().unwrap_err(),
            refused(504, "cannot read plan: timed out", "daemon-restart")
        );
        assert_eq!(
            pebble.plan().unwrap_err().to_string(),
            "cannot read plan: timed out (Pebble answers 504)"
        );
        assert_eq!(
            pebble.wait("replan services", "7", START).err(),
            Some(PebbleError::Failed(
                "cannot replan services: it is not done after 15 s; Pebble goes on with it".into()
            ))
        );
        // It hangs up before it has read all that we send: its answer may be lost then.
        let file = FileWrite {
            path: "/x".into(),
            content: Content::Bytes(vec![0; 10 << 20]),
            mode: 0o600,
            uid: None,
            gid: None,
        };
        assert_eq!(format!("{:?}", file.content), "10485760 bytes");
        let error = pebble.write_files(&[file]).unwrap_err();
        assert!(
            matches!(
                &error,
                PebbleError::Down(_) | PebbleError::Refused { status: 504, .. }
            ),
            "{error}"
        );

        let (_dir, pebble) = stand_in(Some(("502 Bad Gateway", "<h1>")));
        assert_eq!(
            pebble.services().unwrap_err(),
            refused(502, "cannot list services: bad gateway", "")
        );
        let (_dir, pebble) = stand_in(Some(("200 OK", "{\"result\":\"geheim\"}")));
        assert_eq!(
            pebble.services().unwrap_err(),
            PebbleError::Failed(
                "cannot list services: Pebble's answer is not the JSON it should be".into()
            )
        );
    }

    #[test]
    fn multipart_answers_are_taken_apart() {
        let body = |inner: &str| {
            format!(
                "--BB\r\nContent-Disposition: form-data; name=\"files\"; filename=\"/a\\\\\\\"b\"\r\nContent-Type: x\r\n\r\none\r\n--B\r\n--BB\r\n{inner}"
            )
        };
        let good =
            body("content-disposition: form-data; name=\"response\"\r\n\r\n{}\n\r\n--BB--\r\n");
        let (files, results) = files_in(good.as_bytes(), "BB").unwrap();
        assert_eq!(
            files,
            BTreeMap::from([("/a\\\"b".to_owned(), b"one\r\n--B".to_vec())])
        );
        assert_eq!(results, b"{}\n");
        // Without its end it counts for nothing.
        for end in 0..good.len() - 4 {
            assert!(files_in(&good.as_bytes()[..end], "BB").is_none(), "{end}");
        }
        for bad in [
            "",
            "\r\n\r\n\r\n--BB--",
            "Content-Disposition: form-data\r\n\r\n\r\n--BB--",
        ] {
            assert!(files_in(body(bad).as_bytes(), "BB").is_none(), "{bad:?}");
        }
        assert!(files_in(b"", "BB").is_none());
    }

    #[test]
    fn a_failed_change_is_one_line() {
        let change = |text| serde_json::from_str::<Change>(text).unwrap().cause();
        assert_eq!(change(r#"{"status":"Done"}"#), None);
        assert_eq!(
            change(
                r#"{"err":"cannot perform the following tasks:\n- Start service \"a\" (cannot start service: exited quickly with code 1)\n- Start service \"b\" (no)",
                "tasks":[{"log":["2026-01-01T00:00:00Z INFO Most recent service output:\n    one\n    two\n","2026-01-01T00:00:01Z ERROR cannot start service"]},{}]}"#
            )
            .unwrap(),
            "Start service \"a\" (cannot start service: exited quickly with code 1); Start service \"b\" (no); its last words: two"
        );
    }

    #[test]
    fn queries_are_escaped_and_boundaries_are_new() {
        assert!(boundary().len() >= 32 && boundary() != boundary());
        assert_eq!(escaped("/a b&c=ü%.yaml"), "/a%20b%26c%3D%C3%BC%25.yaml");
    }
}
