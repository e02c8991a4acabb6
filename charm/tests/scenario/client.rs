//! A hook command as a charm calls it: it sends its arguments to the test process and prints the
//! answer.
//!
//! It decides nothing. Like Juju's `jujuc`, it reads its standard input only when asked to.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

/// What a hook command sends to the agent: one line of JSON.
#[derive(Serialize, Deserialize)]
pub struct Call {
    pub context: String,
    pub command: String,
    pub args: Vec<String>,
    pub stdin: Option<String>,
    /// The caller's whole environment, in which there must be no credential.
    pub env: BTreeMap<String, String>,
}

/// What the agent answers.
#[derive(Serialize, Deserialize)]
pub enum Reply {
    /// Call again, with the standard input.
    NeedStdin,
    Done {
        code: u8,
        stdout: String,
        stderr: String,
    },
}

/// Calls the agent as hook command `name`.
pub fn call(name: &str, args: &[String]) -> ExitCode {
    match ask(name, args) {
        Ok((code, stdout, stderr)) => {
            print!("{stdout}");
            eprint!("{stderr}");
            ExitCode::from(code)
        }
        Err(text) => {
            eprintln!("ERROR {text}");
            ExitCode::from(1)
        }
    }
}

fn ask(name: &str, args: &[String]) -> Result<(u8, String, String), String> {
    let variable = |name: &str| std::env::var(name).map_err(|_| format!("{name} not set"));
    let mut call = Call {
        context: variable("JUJU_CONTEXT_ID")?,
        command: name.to_owned(),
        args: args.to_vec(),
        stdin: None,
        env: std::env::vars().collect(),
    };
    let socket = variable("JUJU_AGENT_SOCKET_ADDRESS")?;
    variable("JUJU_AGENT_SOCKET_NETWORK")?;
    let stream = UnixStream::connect(&socket).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => {
            format!("dial unix {socket}: connect: no such file or directory")
        }
        _ => format!("dial unix {socket}: connect: connection refused"),
    })?;
    let mut lines = BufReader::new(&stream).lines();
    loop {
        let mut text = serde_json::to_string(&call).expect("strings");
        text.push('\n');
        (&stream)
            .write_all(text.as_bytes())
            .map_err(|e| e.to_string())?;
        let line = lines
            .next()
            .ok_or("connection is shut down")?
            .map_err(|e| e.to_string())?;
        match serde_json::from_str(&line).map_err(|e| e.to_string())? {
            Reply::Done {
                code,
                stdout,
                stderr,
            } => return Ok((code, stdout, stderr)),
            Reply::NeedStdin => {
                let mut bytes = Vec::new();
                std::io::stdin()
                    .read_to_end(&mut bytes)
                    .map_err(|e| format!("cannot read stdin: {e}"))?;
                call.stdin = Some(String::from_utf8_lossy(&bytes).into_owned());
            }
        }
    }
}
