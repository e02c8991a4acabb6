//! The HTTP server: the status page, health, metrics, and the questions of the command line and of
//! the charm. Who may ask what is decided in `shown/access.rs`, and the answers come from
//! `shown/status.rs`, `metrics.rs` and `page.rs`.
#![expect(
    clippy::disallowed_methods,
    reason = "it measures how long the loop has been silent"
)]

use super::connections::{Bounded, Peer};
use super::verify_http::{self, Verifier};
use anyhow::Context;
use axum::body::{Body, Bytes};
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{ConnectInfo, DefaultBodyLimit, FromRequest, Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use windrow_core::settings::config::Secret;
use windrow_core::shown::access::{Asker, RequestFacts, admit, is_of_a_proxy};
use windrow_core::shown::metrics::{METRICS_CONTENT_TYPE, ProcessUse, metrics};
use windrow_core::shown::page::page;
use windrow_core::shown::status::{Rows, State as What, Status};
use windrow_core::table::hive::TableKind;
use windrow_core::values::cause::name_or_empty;

/// When there was no new status for this time, `/healthz` says that the loop hangs.
pub const SILENT_MAX: Duration = Duration::from_secs(30);
/// How long a command or a look at the rows may take. After that the answer is to try again.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// How many rows are in an answer when the question does not say.
const ROWS_DEFAULT: usize = 20;
/// The most rows in one answer. For more, query tools read the table itself.
pub const ROWS_MAX: usize = 1000;
const BODY_MAX_BYTES: usize = 65_536;

/// What the server knows of the running windrow.
#[derive(Clone)]
pub struct Handle {
    /// The status. It is sent again every few seconds, also when nothing has changed: see
    /// [`SILENT_MAX`].
    pub status: watch::Receiver<Arc<Status>>,
    /// Takes what operators want.
    pub commands: mpsc::Sender<Command>,
    /// Reads rows of the committed table.
    pub rows: RowsFn,
    /// The `api-token` in force.
    pub token: watch::Receiver<Option<Secret>>,
    /// Verifies the table; `None` in console mode.
    pub verifier: Option<Arc<dyn Verifier>>,
}

/// Reads the newest rows of the table or of one of its side tables, at most so many.
pub type RowsFn = Arc<dyn Fn(TableKind, usize) -> RowsFuture + Send + Sync>;
/// The rows, or the reason why they cannot be read.
pub type RowsFuture = Pin<Box<dyn Future<Output = Result<Rows, String>> + Send>>;

/// Something that an operator wants.
#[derive(Debug)]
pub struct Command {
    /// What is wanted.
    pub wish: Wish,
    /// Takes the answer: `Ok` once a pause or its end holds for all units, and once merging has
    /// begun where there is something to merge; or the reason why not.
    pub answer: oneshot::Sender<Result<(), String>>,
}

/// What an operator may want.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Stop reading until [`Wish::Resume`].
    Pause,
    /// Go on.
    Resume,
    /// Merge files now.
    Compact,
}

/// Listens on the address. With port 0 it takes any free port, which the listener knows.
///
/// # Errors
/// Another program has the address, or it does not belong to this machine.
pub async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!(
            "cannot listen on address \"{address}\"; \
             change the setting http, or end the program that has it"
        )
    })
}

/// Answers until `stop` is done, and then finishes those answers that it has begun.
///
/// # Errors
/// The errors of the listener.
pub async fn serve(
    listener: TcpListener,
    handle: Handle,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let app = App {
        handle,
        started: Instant::now(),
        heard_ms: Arc::default(),
    };
    let noting = tokio::spawn(note_statuses(app.clone()));
    let served = axum::serve(
        Bounded::new(listener),
        router(app).into_make_service_with_connect_info::<Peer>(),
    )
    .with_graceful_shutdown(stop)
    .await;
    noting.abort();
    served
}

#[derive(Clone)]
struct App {
    handle: Handle,
    started: Instant,
    /// When the last status has come, in ms after `started`.
    heard_ms: Arc<AtomicU64>,
}

impl App {
    fn status(&self) -> Arc<Status> {
        let mut status = self.handle.status.borrow().clone();
        let report = self.handle.verifier.as_ref();
        if let Some(report) = report.and_then(|verifier| verifier.report()) {
            Arc::make_mut(&mut status).verification =
                format!("{}: {}", report.id, report.headline());
        }
        status
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Notes when a status comes. It ends together with the loop that sends them.
async fn note_statuses(mut app: App) {
    while app.handle.status.changed().await.is_ok() {
        app.heard_ms.store(app.elapsed_ms(), Ordering::Relaxed);
    }
}

fn router(app: App) -> Router {
    Router::new()
        .route("/", get(show_page))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(show_metrics))
        .route(
            "/v1/status",
            get(async |State(app): State<App>| Json(app.status().as_ref().clone())),
        )
        .route(
            "/v1/tables",
            get(async |State(app): State<App>| Json(app.status().tables())),
        )
        .route("/v1/tables/{table}", get(table))
        .route("/v1/tables/{table}/rows", get(rows))
        .route(
            "/v1/windows",
            get(async |State(app): State<App>| Json(app.status().open_windows())),
        )
        .route(
            "/v1/pause",
            post(async |State(app): State<App>, body: EmptyBody| {
                command(app, body, Wish::Pause).await
            }),
        )
        .route(
            "/v1/resume",
            post(async |State(app): State<App>, body: EmptyBody| {
                command(app, body, Wish::Resume).await
            }),
        )
        .route(
            "/v1/compact",
            post(async |State(app): State<App>, body: EmptyBody| {
                command(app, body, Wish::Compact).await
            }),
        )
        .merge(verify_http::routes(app.handle.verifier.clone()))
        .fallback(async || {
            fail(
                StatusCode::NOT_FOUND,
                "no such path; see /v1/status, /v1/tables, /v1/windows, /metrics",
            )
        })
        .method_not_allowed_fallback(async || {
            fail(
                StatusCode::METHOD_NOT_ALLOWED,
                "this path does not take that method",
            )
        })
        .layer(DefaultBodyLimit::max(BODY_MAX_BYTES))
        .layer(from_fn_with_state(app.clone(), guard))
        .with_state(app)
}

fn fail(code: StatusCode, why: impl AsRef<str>) -> Response {
    (code, Json(json!({"error": why.as_ref()}))).into_response()
}

async fn guard(
    State(app): State<App>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    mut request: Request,
    next: Next,
) -> Response {
    let token = app.handle.token.borrow().clone();
    let headers = request.headers();
    let admitted = admit(&RequestFacts {
        path: request.uri().path(),
        changes: !matches!(*request.method(), Method::GET | Method::HEAD),
        peer: peer.from.ip(),
        local: peer.to.map(|to| to.ip()),
        token: token.as_ref().map(Secret::expose),
        authorization: text(headers, &header::AUTHORIZATION),
        host: only(headers, &header::HOST),
        origin: text(headers, &header::ORIGIN),
        content_type: only(headers, &header::CONTENT_TYPE),
        forwarded: headers.keys().any(|name| is_of_a_proxy(name.as_str())),
    });
    let mut response = match admitted {
        Ok(asker) => {
            request.extensions_mut().insert(asker);
            next.run(request).await
        }
        Err(refusal) => fail(
            StatusCode::from_u16(refusal.code).expect("a code of HTTP"),
            refusal.why,
        ),
    };
    if response.status() == StatusCode::UNAUTHORIZED {
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    for (name, value) in HARDENING {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

const HARDENING: [(HeaderName, &str); 5] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    ),
];

/// A header's text. A header that is not text counts as an empty one, which equals nothing.
fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap_or(""))
}

/// A header's text, where the request has this header exactly once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    if headers.get_all(name).iter().count() == 1 {
        text(headers, name)
    } else {
        None
    }
}

async fn show_page(State(app): State<App>) -> Response {
    (
        [(header::CONTENT_TYPE, "text/html; charset=utf-8")],
        page(&app.status()),
    )
        .into_response()
}

/// A process is alive as long as its loop turns. What the loop waits for does not matter here,
/// because a restart would not help; `/readyz` tells that.
async fn healthz(State(app): State<App>) -> Response {
    let silent = Duration::from_millis(
        app.elapsed_ms()
            .saturating_sub(app.heard_ms.load(Ordering::Relaxed)),
    );
    if silent > SILENT_MAX {
        let why = format!(
            "the loop has been silent for {} s; restart windrow",
            silent.as_secs()
        );
        return fail(StatusCode::SERVICE_UNAVAILABLE, why);
    }
    Json(json!({"alive": true})).into_response()
}

/// The reason may name users, hosts and paths, so strangers are told its kind alone.
async fn readyz(State(app): State<App>, Extension(asker): Extension<Asker>) -> Response {
    let status = app.status();
    let mut body = json!({"state": status.state, "cause": name_or_empty(status.cause)});
    if asker == Asker::Trusted {
        body["reason"] = status.reason.as_str().into();
    }
    let body = Json(body);
    match status.state {
        What::Counting => body.into_response(),
        What::Waiting | What::Paused | What::Failed | What::Standby => {
            (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
        }
    }
}

async fn show_metrics(State(app): State<App>) -> Response {
    (
        [(header::CONTENT_TYPE, METRICS_CONTENT_TYPE)],
        metrics(&app.status(), process_use()),
    )
        .into_response()
}

async fn table(State(app): State<App>, name: Result<Path<String>, PathRejection>) -> Response {
    let Ok(Path(name)) = name else {
        return unreadable_name();
    };
    let status = app.status();
    match check_name(&status, &name) {
        Ok(()) => Json(status.summary()).into_response(),
        Err(response) => *response,
    }
}

fn unreadable_name() -> Response {
    fail(
        StatusCode::BAD_REQUEST,
        "cannot read the table's name: it is not UTF-8; see /v1/tables",
    )
}

/// Whether it is the name of our table: for `default.newtable` that is also `newtable`.
fn check_name(status: &Status, name: &str) -> Result<(), Box<Response>> {
    let own = &status.table;
    if !own.is_empty()
        && (name == own || own.split_once('.').is_some_and(|(_, short)| name == short))
    {
        return Ok(());
    }
    let why = if own.is_empty() {
        "there is no table in console mode".to_owned()
    } else {
        format!("no such table; this windrow writes {own}")
    };
    Err(Box::new(fail(StatusCode::NOT_FOUND, why)))
}

async fn rows(
    State(app): State<App>,
    name: Result<Path<String>, PathRejection>,
    query: Result<Query<HashMap<String, String>>, QueryRejection>,
) -> Response {
    let Ok(Path(name)) = name else {
        return unreadable_name();
    };
    let status = app.status();
    let (name, kind) = [TableKind::Late, TableKind::Rejects]
        .into_iter()
        .find_map(|kind| Some((name.strip_suffix(kind.suffix())?, kind)))
        .unwrap_or((&name, TableKind::Chunks));
    if let Err(response) = check_name(&status, name) {
        return *response;
    }
    let Some(limit) = query.ok().and_then(|query| limit(&query)) else {
        return fail(
            StatusCode::BAD_REQUEST,
            format!("cannot read the query; write ?limit= and 1 to {ROWS_MAX}"),
        );
    };
    match tokio::time::timeout(ANSWER_MAX, (app.handle.rows)(kind, limit)).await {
        Ok(Ok(rows)) => Json(rows).into_response(),
        Ok(Err(why)) => fail(StatusCode::SERVICE_UNAVAILABLE, why),
        Err(_) => fail(
            StatusCode::GATEWAY_TIMEOUT,
            "the rows could not be read in time; try again",
        ),
    }
}

fn limit(query: &HashMap<String, String>) -> Option<usize> {
    match query.iter().next() {
        None => Some(ROWS_DEFAULT),
        Some((key, value)) if query.len() == 1 && key == "limit" => {
            value.parse().ok().filter(|n| (1..=ROWS_MAX).contains(n))
        }
        Some(_) => None,
    }
}

/// A body that says nothing: it is empty or `{}`. A field in it would be a wish that is not
/// understood, and so it is refused.
struct EmptyBody;

impl FromRequest<App> for EmptyBody {
    type Rejection = Response;

    async fn from_request(request: Request<Body>, app: &App) -> Result<Self, Response> {
        let bytes = Bytes::from_request(request, app)
            .await
            .map_err(|error| fail(error.status(), "the body cannot be read; send {}"))?;
        let empty = bytes.is_empty()
            || serde_json::from_slice::<HashMap<String, Value>>(&bytes).is_ok_and(|m| m.is_empty());
        if empty {
            Ok(EmptyBody)
        } else {
            Err(fail(
                StatusCode::BAD_REQUEST,
                "the body takes no fields; send {}",
            ))
        }
    }
}

async fn command(app: App, _: EmptyBody, wish: Wish) -> Response {
    let (answer, answered) = oneshot::channel();
    let asked = async {
        app.handle
            .commands
            .send(Command { wish, answer })
            .await
            .ok()?;
        answered.await.ok()
    };
    match tokio::time::timeout(ANSWER_MAX, asked).await {
        Ok(Some(Ok(()))) => {
            let status = app.status();
            match wish {
                Wish::Pause | Wish::Resume => {
                    Json(json!({"table": status.table, "paused": wish == Wish::Pause}))
                        .into_response()
                }
                Wish::Compact => Json(status.compaction()).into_response(),
            }
        }
        Ok(Some(Err(why))) => fail(StatusCode::CONFLICT, why),
        Ok(None) => fail(
            StatusCode::SERVICE_UNAVAILABLE,
            "windrow is stopping; try again",
        ),
        Err(_) => fail(
            StatusCode::GATEWAY_TIMEOUT,
            "no answer in time; it may still take effect: look at /v1/status",
        ),
    }
}

/// What this process uses; zeros where `/proc` cannot be read.
fn process_use() -> ProcessUse {
    let read =
        |name: &str| std::fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
    let resident = read("status")
        .lines()
        .find_map(|line| {
            line.strip_prefix("VmRSS:")?
                .trim()
                .strip_suffix(" kB")?
                .parse::<u64>()
                .ok()
        })
        .unwrap_or(0);
    // Fields 14 and 15, utime and stime, in hundredths of a second (proc_pid_stat(5)); the name
    // before may hold blanks.
    let stat = read("stat");
    let ticks: u32 = stat
        .rsplit_once(')')
        .map(|(_, rest)| {
            rest.split_whitespace()
                .skip(11)
                .take(2)
                .filter_map(|n| n.parse::<u32>().ok())
                .sum()
        })
        .unwrap_or(0);
    ProcessUse {
        resident_bytes: resident * 1024,
        cpu_seconds: f64::from(ticks) / 100.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::verify_http::VerifyWish;
    use std::io::{Read, Write};
    use std::net::TcpStream as StdStream;
    use windrow_core::shown::example::{full, rows};
    use windrow_core::values::time::parse_rfc3339;
    use windrow_core::verify::report::Report;

    /// Takes one verification, which never ends.
    #[derive(Default)]
    struct Once(std::sync::Mutex<Option<VerifyWish>>);

    impl Verifier for Once {
        fn start(&self, wish: &VerifyWish) -> Result<String, String> {
            let mut taken = self.0.lock().unwrap();
            if taken.is_some() {
                return Err("verification v is under way".to_owned());
            }
            *taken = Some(wish.clone());
            Ok("v".to_owned())
        }

        fn report(&self) -> Option<Report> {
            let taken = self.0.lock().unwrap().clone()?;
            Some(Report {
                id: "v".to_owned(),
                doing: format!("{taken:?}"),
                percent: 7,
                ..Report::default()
            })
        }
    }

    struct Running {
        address: SocketAddr,
        status: watch::Sender<Arc<Status>>,
        token: watch::Sender<Option<Secret>>,
        commands: mpsc::Receiver<Command>,
    }

    async fn start() -> Running {
        start_on("127.0.0.1:0").await
    }

    async fn start_on(address: &str) -> Running {
        let (status, status_rx) = watch::channel(Arc::new(full()));
        let (token, token_rx) = watch::channel(None);
        let (commands_tx, commands) = mpsc::channel(1);
        let rows: RowsFn = Arc::new(|kind, limit| {
            Box::pin(async move {
                if kind != TableKind::Chunks {
                    let row = json!([{"reason": format!("of {}", kind.word()), "offset": limit}]);
                    return Ok(rows(&["reason", "offset"], &row.to_string()));
                }
                let window =
                    json!({"start": "2024-09-01T19:42:15Z", "end": "2024-09-01T19:42:25Z"});
                let row = json!([{"window": window, "origin": "a", "count": limit}]);
                Ok(rows(&["window", "origin", "count"], &row.to_string()))
            })
        });
        let listener = bind(address.parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let handle = Handle {
            status: status_rx,
            commands: commands_tx,
            rows,
            token: token_rx,
            verifier: Some(Arc::new(Once::default())),
        };
        tokio::spawn(serve(listener, handle, std::future::pending()));
        Running {
            address,
            status,
            token,
            commands,
        }
    }

    /// Sends a request as it is written, and gives the code, the headers and the body.
    async fn ask(address: SocketAddr, request: &str) -> (u16, String, String) {
        let request = request.to_owned();
        tokio::task::spawn_blocking(move || {
            let mut stream = StdStream::connect(address).unwrap();
            stream
                .set_read_timeout(Some(Duration::from_secs(20)))
                .unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            (
                head[9..12].parse().unwrap(),
                head.to_lowercase(),
                body.to_owned(),
            )
        })
        .await
        .unwrap()
    }

    async fn get(address: SocketAddr, path: &str) -> (u16, String, String) {
        ask(
            address,
            &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"),
        )
        .await
    }

    async fn post(
        address: SocketAddr,
        path: &str,
        headers: &str,
        body: &str,
    ) -> (u16, String, String) {
        let length = body.len();
        ask(
            address,
            &format!(
                "POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: \
                               close\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
            ),
        )
        .await
    }

    const JSON: &str = "Content-Type: application/json\r\n";

    #[tokio::test(flavor = "multi_thread")]
    async fn a_verification_is_started_once_and_asked_for() {
        let running = start().await;
        let to = running.address;
        assert_eq!(get(to, "/v1/verify").await.0, 404);
        for wrong in ["from=yesterday", "rate=0", "rate=x", "depth=1"] {
            let path = format!("/v1/verify?{wrong}");
            assert_eq!(post(to, &path, JSON, "{}").await.0, 400, "{wrong}");
        }
        let path = "/v1/verify?from=2026-11-27&to=2026-11-27T12:00:00Z&deep=true&rate=8MiB";
        let (code, _, body) = post(to, path, JSON, "{}").await;
        assert_eq!((code, body.as_str()), (200, r#"{"id":"v"}"#));
        assert_eq!(post(to, "/v1/verify", JSON, "{}").await.0, 409);
        let (code, _, body) = get(to, "/v1/verify").await;
        assert_eq!(code, 200);
        let report: Report = serde_json::from_str(&body).unwrap();
        let wanted = VerifyWish {
            from: parse_rfc3339("2026-11-27T00:00:00Z"),
            to: parse_rfc3339("2026-11-27T12:00:00Z"),
            deep: true,
            rate: Some(8 << 20),
        };
        assert_eq!(report.doing, format!("{wanted:?}"));
        let (_, _, body) = get(to, "/v1/status").await;
        let status: Status = serde_json::from_str(&body).unwrap();
        assert!(status.verification.starts_with("v: VerifyWish"), "{body}");
    }

    #[tokio::test]
    async fn every_path_answers() {
        let running = start().await;
        let to = running.address;
        let (code, head, body) = get(to, "/").await;
        assert!(
            code == 200 && head.contains("text/html") && body.contains("default.newtable"),
            "{head}\n{body}"
        );
        assert!(
            head.contains("content-security-policy: default-src 'none'"),
            "{head}"
        );
        assert_eq!(get(to, "/healthz").await.0, 200);
        assert_eq!(get(to, "/readyz").await.0, 200);
        let (_, head, body) = get(to, "/metrics").await;
        assert!(
            head.contains("application/openmetrics-text") && body.contains("windrow_up 1"),
            "{body}"
        );
        let rss = body
            .lines()
            .find_map(|l| l.strip_prefix("process_resident_memory_bytes "))
            .unwrap();
        assert!(rss.parse::<u64>().unwrap() > 100_000);
        let json =
            async |path: &str| serde_json::from_str::<Value>(&get(to, path).await.2).unwrap();
        assert_eq!(json("/v1/status").await["lanes"][0]["partition"], 7);
        assert_eq!(
            json("/v1/tables").await["tables"][0]["table"],
            "default.newtable"
        );
        assert_eq!(json("/v1/tables/newtable").await["rows"], 10);
        assert_eq!(json("/v1/tables/default.newtable").await["counted"], 170);
        assert_eq!(
            json("/v1/tables/newtable/rows").await["rows"][0]["count"],
            ROWS_DEFAULT
        );
        assert_eq!(
            json("/v1/tables/newtable/rows?limit=3").await["rows"][0]["count"],
            3
        );
        let side = json("/v1/tables/default.newtable__rejects/rows?limit=4").await;
        assert_eq!(side["rows"], json!([{"reason": "of rejects", "offset": 4}]));
        assert_eq!(
            json("/v1/tables/newtable__late/rows").await["rows"][0]["reason"],
            "of late"
        );
        assert_eq!(json("/v1/windows").await["windows"][0]["count"], 9);
    }

    #[tokio::test]
    async fn errors_are_json_with_the_right_code() {
        let running = start().await;
        let to = running.address;
        for (path, expect) in [
            ("/nowhere", 404),
            ("/v1/tables/other", 404),
            ("/v1/tables/other/rows", 404),
            ("/v1/tables/other__late/rows", 404),
            ("/v1/tables/newtable__chunks/rows", 404),
            ("/v1/tables/newtable__late__late/rows", 404),
            ("/v1/tables/newtable/rows?limit=0", 400),
            ("/v1/tables/newtable/rows?limit=1001", 400),
            ("/v1/tables/newtable/rows?limit=x", 400),
            ("/v1/tables/newtable/rows?limt=3", 400),
            ("/v1/tables/%ff", 400),
            ("/v1/tables/%ff/rows", 400),
            ("/v1/pause", 405),
        ] {
            let (code, _, body) = get(to, path).await;
            assert_eq!(code, expect, "{path}");
            assert!(
                serde_json::from_str::<Value>(&body).unwrap()["error"].is_string(),
                "{path}: {body}"
            );
        }
        assert_eq!(post(to, "/v1/status", JSON, "").await.0, 405);
        for body in ["[]", "{\"force\":true}", "pause"] {
            assert_eq!(post(to, "/v1/pause", JSON, body).await.0, 400, "{body}");
        }
        let big = " ".repeat(BODY_MAX_BYTES + 1);
        assert_eq!(post(to, "/v1/pause", JSON, &big).await.0, 413);
    }

    #[tokio::test]
    async fn pause_and_resume_reach_the_loop_and_bring_its_answer() {
        let mut running = start().await;
        let to = running.address;
        let driver = tokio::spawn(async move {
            for answer in [Ok(()), Ok(()), Err("not the owner".to_owned()), Ok(())] {
                let command = running.commands.recv().await.unwrap();
                command.answer.send(answer).unwrap();
            }
        });
        let (code, _, body) = post(to, "/v1/pause", JSON, "{}").await;
        assert_eq!(
            (code, body.as_str()),
            (200, r#"{"paused":true,"table":"default.newtable"}"#)
        );
        assert_eq!(post(to, "/v1/resume", JSON, "").await.0, 200);
        let (code, _, body) = post(to, "/v1/pause", JSON, "").await;
        assert_eq!((code, body.as_str()), (409, r#"{"error":"not the owner"}"#));
        let (code, _, body) = post(to, "/v1/compact", JSON, "").await;
        let how_far: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((code, &how_far["compaction-due-merges"]), (200, &json!(2)));
        driver.await.unwrap();
        assert_eq!(
            post(to, "/v1/compact", JSON, "").await.0,
            503,
            "the loop has ended"
        );
    }

    #[tokio::test]
    async fn the_command_line_understands_the_server() {
        use crate::run::cli::{Output, Verb, ask, question, render};
        let running = start().await;
        let settings = format!(
            "{{ kafka: {{ bootstrap: 'k:9092', topic: t }}, table: {{ name: newtable }}, \
             catalog: 'local:/data', http: '{}' }}",
            running.address
        );
        let config = windrow_core::settings::config::Config::parse(&settings).unwrap();
        let secrets = windrow_core::settings::config::Secrets::default();
        let rows = |of| Verb::Rows(crate::run::cli::Rows { limit: 3, of });
        let verbs = [
            (Verb::Status, "| watermark "),
            (Verb::Tables, "| default.newtable "),
            (Verb::Windows, "1 shown\n"),
            (
                rows(crate::run::cli::Of::Rows),
                "{\"start\":2024-09-01 19:42:15,",
            ),
            (rows(crate::run::cli::Of::Rejects), "| of rejects "),
        ];
        tokio::task::spawn_blocking(move || {
            for (verb, expect) in verbs {
                let (method, path) = question(&verb, &config).unwrap().unwrap();
                let answer = ask(&config, &secrets, method, &path).unwrap();
                let out = render(&verb, &answer, Output::Table).unwrap();
                assert!(out.contains(expect), "{out}");
            }
        })
        .await
        .unwrap();
    }

    #[tokio::test]
    async fn a_post_without_the_token_changes_nothing() {
        let mut running = start().await;
        let to = running.address;
        running.token.send_replace(Some(Secret::new("t0ken")));
        let (code, head, _) = post(to, "/v1/pause", JSON, "").await;
        assert!(
            code == 401 && head.contains("www-authenticate: bearer"),
            "{head}"
        );
        let wrong = format!("{JSON}Authorization: Bearer t0kex\r\n");
        assert_eq!(post(to, "/v1/pause", &wrong, "").await.0, 401);
        assert_eq!(
            post(to, "/v1/pause", "Authorization: Bearer t0ken\r\n", "")
                .await
                .0,
            415
        );
        let foreign =
            format!("{JSON}Authorization: Bearer t0ken\r\nOrigin: http://evil.example\r\n");
        assert_eq!(post(to, "/v1/pause", &foreign, "").await.0, 403);
        assert!(running.commands.try_recv().is_err());
        for path in ["/v1/status", "/v1/tables/newtable__rejects/rows", "/"] {
            assert_eq!(get(to, path).await.0, 401, "{path}");
        }
        running.token.send_replace(None);
        assert_eq!(get(to, "/v1/status").await.0, 200);
        for line in [
            "Host: evil.example",
            "Host: localhost\r\nX-Forwarded-For: 10.1.2.3",
            "Host: localhost\r\nForwarded: for=10.1.2.3",
            "Host: localhost\r\nVia: 1.1 proxy",
            "Host: localhost\r\nx-envoy-internal: true",
        ] {
            for path in ["/v1/status", "/v1/tables/newtable__rejects/rows"] {
                let request = format!("GET {path} HTTP/1.1\r\n{line}\r\nConnection: close\r\n\r\n");
                assert_eq!(ask(to, &request).await.0, 403, "{request}");
            }
        }
    }

    /// As with `http: 10.1.2.3:8080`, where 10.1.2.3 is the machine's own address.
    #[tokio::test]
    async fn the_machine_itself_may_ask_at_its_own_address() {
        // No packet is sent: the system only says which address it would send from.
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        let own = match socket.connect("192.0.2.1:9") {
            Ok(()) => socket.local_addr().unwrap().ip(),
            Err(error) => {
                println!("not tried, because this machine has no other address: {error}");
                return;
            }
        };
        let running = start_on(&format!("{own}:0")).await;
        let (code, _, body) = get(running.address, "/v1/status").await;
        assert_eq!(code, 200, "{own}: {body}");
        // The listener is at all addresses, and the machine asks at one of them.
        let running = start_on("0.0.0.0:0").await;
        let to = SocketAddr::new(own, running.address.port());
        assert_eq!(get(to, "/v1/status").await.0, 200, "{own}");
    }

    #[tokio::test]
    async fn not_counting_is_not_ready_but_healthy() {
        let running = start().await;
        let waiting = Status {
            state: What::Waiting,
            reason: "cannot reach Kafka".into(),
            ..full()
        };
        running.status.send_replace(Arc::new(waiting));
        let (code, _, body) = get(running.address, "/readyz").await;
        assert_eq!(
            (code, body.as_str()),
            (
                503,
                r#"{"cause":"","reason":"cannot reach Kafka","state":"waiting"}"#
            )
        );
        assert_eq!(get(running.address, "/healthz").await.0, 200);
    }

    #[tokio::test]
    async fn strangers_are_told_no_reason() {
        let running = start().await;
        let secret = "user-7 at kafka.internal:9092 and /var/lib/x";
        let waiting = Status {
            state: What::Waiting,
            cause: Some(windrow_core::values::cause::Cause::LoginKafka),
            reason: secret.to_owned(),
            problems: secret.to_owned(),
            owner: secret.to_owned(),
            ..full()
        };
        running.status.send_replace(Arc::new(waiting));
        let stranger = async |path: &str| {
            let request = format!(
                "GET {path} HTTP/1.1\r\nHost: localhost\r\nVia: 1.1 proxy\r\n\
                 Connection: close\r\n\r\n"
            );
            ask(running.address, &request).await
        };
        let (code, _, body) = stranger("/readyz").await;
        assert_eq!(
            (code, body.as_str()),
            (503, r#"{"cause":"login-kafka","state":"waiting"}"#)
        );
        for path in [
            "/healthz",
            "/readyz",
            "/metrics",
            "/",
            "/nowhere",
            "/v1/status",
        ] {
            let (code, head, body) = stranger(path).await;
            let shown = format!("{code} {head}{body}");
            for word in ["user-7", "kafka.internal", "/var/lib"] {
                assert!(!shown.contains(word), "{path}: {shown}");
            }
        }
        running.token.send_replace(Some(Secret::new("t0ken")));
        let (_, _, body) = get(running.address, "/readyz").await;
        assert_eq!(body, r#"{"cause":"login-kafka","state":"waiting"}"#);
        let request = "GET /readyz HTTP/1.1\r\nHost: any.example\r\n\
                       Authorization: Bearer t0ken\r\nConnection: close\r\n\r\n";
        assert!(ask(running.address, request).await.2.contains("user-7"));
    }

    #[tokio::test]
    async fn a_silent_loop_is_not_healthy() {
        let running = start().await;
        let handle = Handle {
            status: running.status.subscribe(),
            commands: mpsc::channel(1).0,
            rows: Arc::new(|_, _| Box::pin(async { Err(String::new()) })),
            token: running.token.subscribe(),
            verifier: None,
        };
        let started = Instant::now()
            .checked_sub(SILENT_MAX + Duration::from_secs(2))
            .unwrap();
        let app = App {
            handle,
            started,
            heard_ms: Arc::default(),
        };
        assert_eq!(healthz(State(app.clone())).await.status(), 503);
        let noting = tokio::spawn(note_statuses(app.clone()));
        let deadline = Instant::now() + Duration::from_secs(10);
        while healthz(State(app.clone())).await.status() != 200 {
            assert!(Instant::now() < deadline, "a status was sent and not heard");
            running.status.send_replace(Arc::new(full()));
            tokio::task::yield_now().await;
        }
        noting.abort();
    }

    #[tokio::test]
    async fn an_address_that_is_taken_is_named() {
        let running = start().await;
        let error = format!("{:#}", bind(running.address).await.unwrap_err());
        assert!(
            error.contains(&format!("cannot listen on address \"{}\"", running.address)),
            "{error}"
        );
    }
}
