//! Commands in the container. Their outputs come over websockets.

use super::api::change_id;
use super::wire::{ANSWER, Pebble, PebbleError, Result, parse_result};
use serde::Deserialize;
use serde_json::json;
use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use tungstenite::{Message, WebSocket};

/// How much of each output of a command is kept. The rest is read and dropped, so that the command
/// can end.
pub(super) const OUTPUT_MAX_BYTES: usize = 1 << 20;

/// Pebble sends output in pieces of 128 KiB, so this is more than enough.
const MESSAGE_MAX_BYTES: usize = 4 << 20;

/// What Pebble says of a command that it has killed after its timeout.
const KILLED: &str = "timed out after";

/// The outputs of a command were still open a while after that.
const NOT_IN_TIME: &str = "it was not done in time";

/// How a command in the container ended, and what it printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecOutput {
    /// The exit code.
    pub code: i32,
    /// The first 1 MiB of its standard output.
    pub stdout: Vec<u8>,
    /// The first 1 MiB of its standard error.
    pub stderr: Vec<u8>,
}

impl Pebble {
    /// Runs a command in the container, as the user and group with the number `user`, with an empty
    /// standard input. After `timeout` Pebble kills the command, which is `Overdue`.
    ///
    /// # Errors
    /// `Down` when nobody listens, `Slow` when no answer comes in time, `Refused` when Pebble says
    /// no, `Overdue` when the command was not done in time, and `Failed` when it did not work out.
    /// An exit code other than 0 is not an error.
    pub fn exec(&self, command: &[String], user: u32, timeout: Duration) -> Result<ExecOutput> {
        #[derive(Deserialize)]
        #[serde(rename_all = "kebab-case")]
        struct Task {
            task_id: String,
        }
        let name = command.first().map_or("", String::as_str);
        let what = format!("run command \"{name}\"");
        let failed = |cause: String| PebbleError::Failed(format!("cannot {what}: {cause}"));
        let timeout_text = format!("{}ms", timeout.as_millis());
        let body = json!({
            "command": command,
            "user-id": user,
            "group-id": user,
            "environment": {"HOME": "/tmp"},
            "split-stderr": true,
            "timeout": timeout_text,
        });
        let body = self.post(&what, "/v1/exec", &body)?;
        // The answer also holds the whole environment. None of it may be shown.
        let task: Task = parse_result(&what, &body)?;
        let change = change_id(&what, &body)?;

        // Pebble kills the command and then says so, so we wait a little longer than it does. A
        // process that the command has started goes on, and as long as it holds the outputs open,
        // Pebble says nothing.
        let until = Instant::now() + timeout + ANSWER;
        let connect =
            |id| self.websocket(&what, &format!("/v1/tasks/{}/websocket/{id}", task.task_id));
        let (mut stdio, mut stderr) = (connect("stdio")?, connect("stderr")?);
        stdio
            .send(Message::text(json!({"command": "end"}).to_string()))
            .map_err(|error| PebbleError::Down(format!("cannot {what}: {error}")))?;
        // The two are read side by side: a command that fills one output would wait for ever while
        // we read the other.
        let (stdout, stderr) = std::thread::scope(|scope| {
            let stderr = scope.spawn(|| read_output(&mut stderr, until));
            let stdout = read_output(&mut stdio, until);
            let stderr = stderr.join().expect("reading a socket does not panic");
            (stdout, stderr)
        });
        let not_read = |cause: String| match cause.as_str() {
            NOT_IN_TIME => PebbleError::Overdue(format!("cannot {what}: {cause}")),
            _ => failed(cause),
        };
        let (stdout, stderr) = (stdout.map_err(not_read)?, stderr.map_err(not_read)?);
        let change = self
            .wait(&what, &change, ANSWER)
            .map_err(|error| match error {
                PebbleError::Failed(text) if text.contains(KILLED) => PebbleError::Overdue(text),
                other => other,
            })?;
        let code = change
            .tasks
            .first()
            .and_then(|task| task.data.get("exit-code")?.as_i64())
            .and_then(|code| i32::try_from(code).ok())
            .ok_or_else(|| failed("Pebble does not say its exit code".to_owned()))?;
        Ok(ExecOutput {
            code,
            stdout,
            stderr,
        })
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
        let url = format!("ws://localhost{path}");
        tungstenite::client::client_with_config(url, Socket(stream), Some(limits))
            .map(|(websocket, _)| websocket)
            .map_err(|error| down(&error))
    }
}

/// A socket that repeats a call that a signal has interrupted. The system does not do that itself
/// for sockets with a time limit (signal(7)).
struct Socket(UnixStream);

impl Socket {
    fn repeat<T>(
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
        self.repeat(|socket| socket.read(bytes))
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.repeat(|socket| socket.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads an output of a command to its end, and keeps its first [`OUTPUT_MAX_BYTES`].
fn read_output(
    websocket: &mut WebSocket<Socket>,
    until: Instant,
) -> std::result::Result<Vec<u8>, String> {
    let mut output = Vec::new();
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(NOT_IN_TIME.to_owned());
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
            // The only text that Pebble sends says that this was all.
            Ok(Message::Text(_) | Message::Close(_)) => return Ok(output),
            Ok(_) => {}
            Err(tungstenite::Error::Io(error)) if is_timeout(&error) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// Whether a read ended because its time was over.
fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}
