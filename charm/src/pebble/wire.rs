//! One HTTP request to Pebble, on a connection of its own, and the whole answer.
//!
//! What the requests mean is in the files beside this one.

use http_body_util::BodyExt as _;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::http::request::Builder;
use hyper::http::response::Parts;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::Value;
use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// How long we wait for an answer. Pebble answers most requests within 4 ms.
pub(super) const ANSWER: Duration = Duration::from_secs(5);

/// The most that the files of one reading may hold together.
pub(super) const READ_MAX_BYTES: usize = 1 << 20;

/// The most that an answer may hold: [`READ_MAX_BYTES`] and the text around the files.
const ANSWER_MAX_BYTES: usize = READ_MAX_BYTES + (64 << 10);

/// A file is sent in pieces of this size.
const PIECE_BYTES: usize = 64 << 10;

/// Why Pebble did not do what it was asked to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PebbleError {
    /// Nobody listens on the socket. Ask again at the next event.
    #[error("{0}")]
    Down(String),
    /// Somebody listens, and no answer came in time. Ask again at the next event.
    #[error("{0}")]
    Slow(String),
    /// Pebble answers, and refuses.
    #[error("{message} (Pebble answers {status})")]
    Refused {
        /// The HTTP status code.
        status: u16,
        /// What could not be done, and why.
        message: String,
        /// Pebble's own word for the kind of error, such as `not-found`; empty for most errors.
        kind: String,
    },
    /// A command was ended, because its time was over.
    #[error("{0}")]
    Overdue(String),
    /// Pebble began, but it did not work out; or its answer cannot be understood.
    #[error("{0}")]
    Failed(String),
}

pub(super) type Result<T> = std::result::Result<T, PebbleError>;

/// A connection to one Pebble. Each request connects anew, so this can be made before Pebble is up.
#[derive(Debug)]
pub struct Pebble {
    pub(super) socket: PathBuf,
    runtime: io::Result<Runtime>,
}

impl Pebble {
    /// The Pebble that listens on this unix socket. Nothing is asked yet.
    #[must_use]
    pub fn new(socket: PathBuf) -> Self {
        Self {
            socket,
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build(),
        }
    }

    /// Sends a GET request and reads the `result` of the answer. `what` completes the sentence
    /// "cannot ..." in an error.
    pub(super) fn get<T: for<'de> Deserialize<'de>>(&self, what: &str, path: &str) -> Result<T> {
        let request = request(Method::GET, path);
        let (_, body) = self.send(what, request, Upload::default(), ANSWER)?;
        parse_result(what, &body)
    }

    /// Sends a JSON text and gives the body of the answer.
    pub(super) fn post(&self, what: &str, path: &str, body: &Value) -> Result<Vec<u8>> {
        let mut upload = Upload::default();
        upload.text(body.to_string());
        let request = request(Method::POST, path).header("content-type", "application/json");
        Ok(self.send(what, request, upload, ANSWER)?.1)
    }

    /// Sends one request and reads the whole answer. `stall` is how long nothing may move.
    pub(super) fn send(
        &self,
        what: &str,
        request: Builder,
        upload: Upload,
        stall: Duration,
    ) -> Result<(Parts, Vec<u8>)> {
        let down = |cause: &dyn fmt::Display| PebbleError::Down(format!("cannot {what}: {cause}"));
        let moved = upload.moved.clone();
        let request = request.body(upload).map_err(|error| down(&error))?;
        let runtime = self.runtime.as_ref().map_err(|error| down(error))?;
        let (head, body) = runtime.block_on(async {
            let exchange = std::pin::pin!(exchange(&self.socket, request));
            // `{:#}` prints the error with its causes, on one line.
            wait_while_moving(exchange, &moved, stall)
                .await
                .map_err(|error| match error.downcast_ref::<TooSlow>() {
                    Some(slow) => PebbleError::Slow(format!("cannot {what}: {slow}")),
                    None => down(&format!("{error:#}")),
                })
        })?;
        if body.len() > ANSWER_MAX_BYTES {
            return Err(PebbleError::Failed(format!(
                "cannot {what}: the answer is longer than {ANSWER_MAX_BYTES} bytes"
            )));
        }
        if head.status.is_success() {
            return Ok((head, body));
        }
        Err(refusal(what, head.status, &body))
    }
}

/// Pebble's account of an error.
#[derive(Deserialize)]
pub(super) struct ErrorAnswer {
    pub message: String,
    #[serde(default)]
    pub kind: String,
}

/// The `result` of an answer.
pub(super) fn parse_result<T: for<'de> Deserialize<'de>>(what: &str, body: &[u8]) -> Result<T> {
    #[derive(Deserialize)]
    struct Answer<T> {
        result: T,
    }
    serde_json::from_slice(body)
        .map(|answer: Answer<T>| answer.result)
        .map_err(|_| not_understood(what))
}

/// The error for an answer that cannot be parsed. What the JSON parser says is left out, because it
/// would quote the answer.
pub(super) fn not_understood(what: &str) -> PebbleError {
    PebbleError::Failed(format!(
        "cannot {what}: Pebble's answer is not the JSON that was expected"
    ))
}

fn refusal(what: &str, status: StatusCode, body: &[u8]) -> PebbleError {
    let answer = parse_result::<ErrorAnswer>(what, body).unwrap_or_else(|_| ErrorAnswer {
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

/// The head of a request; the body is added by [`Pebble::send`].
pub(super) fn request(method: Method, path: &str) -> Builder {
    Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost")
}

/// A text as it may stand in a query or in a path (RFC 3986), with slashes left as they are.
/// Example: `/a b` → `/a%20b`.
pub(super) fn escaped(text: &str) -> String {
    use fmt::Write as _;
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                escaped.push(char::from(byte));
            }
            _ => write!(escaped, "%{byte:02X}").expect("writing to a String cannot fail"),
        }
    }
    escaped
}

/// Sends a request and reads the answer: at most [`ANSWER_MAX_BYTES`] and one frame more.
async fn exchange(socket: &Path, request: Request<Upload>) -> anyhow::Result<(Parts, Vec<u8>)> {
    let stream = tokio::net::UnixStream::connect(socket)
        .await
        .map_err(|error| anyhow::anyhow!("no Pebble answers at {}: {error}", socket.display()))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Upload>(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let answer = async {
        let response: Response<Incoming> = sender.send_request(request).await?;
        let (head, mut body) = response.into_parts();
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame?.into_data() {
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
    // The socket and the files are closed when the connection's task has ended.
    let _ = connection.await;
    answer
}

/// Nothing has moved for so many seconds.
#[derive(Debug, thiserror::Error)]
#[error("Pebble does not answer within {0} s")]
struct TooSlow(f32);

/// Waits as long as something moves, and for `stall` after that.
async fn wait_while_moving<T>(
    mut exchange: Pin<&mut impl Future<Output = anyhow::Result<T>>>,
    moved: &Moved,
    stall: Duration,
) -> anyhow::Result<T> {
    loop {
        let until = moved.last() + stall;
        match tokio::time::timeout_at(until.into(), &mut exchange).await {
            Ok(answer) => return answer,
            Err(_) if moved.last() + stall > until => {}
            Err(_) => anyhow::bail!(TooSlow(stall.as_secs_f32())),
        }
    }
}

/// When a piece of the request was last sent.
#[derive(Clone)]
struct Moved(Arc<Mutex<Instant>>);

impl Moved {
    fn last(&self) -> Instant {
        *self
            .0
            .lock()
            .expect("nobody panics while holding this lock")
    }

    fn set_now(&self) {
        *self
            .0
            .lock()
            .expect("nobody panics while holding this lock") = Instant::now();
    }
}

/// The body of a request. Files are read while they are sent.
pub(super) struct Upload {
    pieces: VecDeque<Piece>,
    moved: Moved,
}

enum Piece {
    Bytes(Bytes),
    /// A file, and how many of its bytes are still to be sent.
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
    pub(super) fn text(&mut self, text: String) {
        self.bytes(text.into_bytes());
    }

    pub(super) fn bytes(&mut self, bytes: Vec<u8>) {
        self.pieces.push_back(Piece::Bytes(bytes.into()));
    }

    pub(super) fn file(&mut self, path: &Path) -> io::Result<()> {
        let file = File::open(path)?;
        let bytes = file.metadata()?.len();
        self.pieces.push_back(Piece::File(file, bytes));
        Ok(())
    }

    /// The bytes to send next; `None` at the end.
    fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            match self.pieces.front_mut()? {
                Piece::File(_, 0) => drop(self.pieces.pop_front()),
                Piece::File(file, left) => return Some(read_piece(file, left)),
                Piece::Bytes(bytes) => {
                    let bytes = std::mem::take(bytes);
                    self.pieces.pop_front();
                    return Some(Ok(bytes));
                }
            }
        }
    }
}

/// Reads the next piece of a file, and subtracts its length from `left`.
fn read_piece(file: &mut File, left: &mut u64) -> io::Result<Bytes> {
    let mut piece = Vec::with_capacity(PIECE_BYTES);
    let bytes = file
        .take((*left).min(PIECE_BYTES as u64))
        .read_to_end(&mut piece)?;
    if bytes == 0 {
        return Err(io::Error::other(
            "the file became shorter while it was read",
        ));
    }
    *left -= bytes as u64;
    Ok(piece.into())
}

impl Body for Upload {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.moved.set_now();
        // A local file is read without waiting: nothing else runs on this thread.
        Poll::Ready(self.next().map(|bytes| bytes.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let bytes = |piece: &Piece| match piece {
            Piece::Bytes(bytes) => bytes.len() as u64,
            Piece::File(_, left) => *left,
        };
        SizeHint::with_exact(self.pieces.iter().map(bytes).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_escaped() {
        assert_eq!(escaped("/a b&c=ü%.yaml"), "/a%20b%26c%3D%C3%BC%25.yaml");
    }
}
