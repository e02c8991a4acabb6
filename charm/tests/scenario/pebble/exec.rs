//! Commands in the container: the answers that a test has set, over websockets.

use super::api::{failed, started};
use super::{Exec, State};
use crate::http::{self, Request, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

impl State {
    pub(super) fn exec(&mut self, body: &Value) -> Response {
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
        let limit_text = body["timeout"].as_str().unwrap_or_default();
        let limit_ms: Option<u64> = limit_text.trim_end_matches("ms").parse().ok();
        let slow = self
            .slow
            .iter()
            .rfind(|(words, _)| line.contains(words.as_str()));
        let is_killed = slow.zip(limit_ms).is_some_and(|((_, s), ms)| s * 1000 > ms);
        let killed = format!("timed out after {limit_text}: context deadline exceeded");
        let change = self.change("exec", is_killed.then_some(killed));
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

/// Answers on one of the streams of a command.
pub(super) fn websocket(
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
        "HTTP/1.1 101 {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n",
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
    // What the other side sends does not matter; it ends the stream.
    while socket.read().is_ok() {}
    Ok(())
}
