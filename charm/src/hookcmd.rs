//! Juju's hook commands, one function each. They decide nothing.
//!
//! What could be secret or long is sent by standard input and comes by standard output, never as an
//! argument: everybody on the machine can see arguments. What follows `--` was written by people or
//! by other charms. So Juju never takes it for a flag, and errors leave it out.

#![expect(
    clippy::disallowed_methods,
    reason = "the edge to other processes: it waits for them, but not for ever"
)]

use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use windrow_core::settings::config::Secret;

/// How long we wait for a command. Most take 4 ms; one that takes this long asks an agent that is
/// stuck.
const PATIENCE: Duration = Duration::from_secs(60);

/// The most that a command may print. Juju keeps a databag in a document of at most 16 MB.
const OUTPUT_MAX_BYTES: u64 = 16 << 20;

/// The most that a log line may hold. Linux allows 128 KiB for one argument.
const LOG_MAX_BYTES: usize = 16 << 10;

/// How much an error keeps of what a command says.
const WORDS_MAX_BYTES: usize = 1000;

/// Why a hook command gave no answer. `command` is the command line without what comes after `--`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HookError {
    /// This Juju has no such command.
    #[error(
        "cannot run hook command \"{command}\": there is no command of that name; \
         this charm needs Juju 3.5 or newer"
    )]
    NotFound {
        /// The command line.
        command: String,
    },
    /// The relation has ended.
    #[error("cannot run hook command \"{command}\": {words}")]
    Gone {
        /// The command line.
        command: String,
        /// What the command said, cut after 1000 bytes.
        words: String,
    },
    /// The command refused.
    #[error("cannot run hook command \"{command}\": exit code {code}: {words}")]
    Refused {
        /// The command line.
        command: String,
        /// Its exit code.
        code: i32,
        /// What the command said, cut after 1000 bytes.
        words: String,
    },
    /// The command did not start, did not end, was killed, or its answer cannot be understood.
    #[error("cannot run hook command \"{command}\": {cause}")]
    Failed {
        /// The command line.
        command: String,
        /// What happened.
        cause: String,
    },
}

impl HookError {
    /// What the command said, without the command line: for a text that names the command already.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            HookError::NotFound { .. } => "this Juju has no such command".to_owned(),
            HookError::Gone { words, .. } | HookError::Refused { words, .. } => {
                words.trim_start_matches("ERROR ").to_owned()
            }
            HookError::Failed { cause, .. } => cause.clone(),
        }
    }
}

type Result<T> = std::result::Result<T, HookError>;

/// The hook commands.
#[derive(Clone, Debug)]
pub struct HookCommands {
    /// The folder that they are in. `None`: they are found by PATH, which Juju sets.
    dir: Option<PathBuf>,
    patience: Duration,
}

impl Default for HookCommands {
    fn default() -> Self {
        Self {
            dir: None,
            patience: PATIENCE,
        }
    }
}

impl HookCommands {
    /// The hook commands in one folder, whatever PATH says.
    #[must_use]
    pub fn in_dir(dir: PathBuf) -> Self {
        Self {
            dir: Some(dir),
            ..Self::default()
        }
    }

    /// The options that have a value. The value of a secret is its URI.
    ///
    /// # Errors
    /// As for every function here: there is no such command, or it refused, or it did not answer.
    pub fn config_get(&self) -> Result<BTreeMap<String, Value>> {
        self.read("config-get", &["--format=json"])
    }

    /// Whether this unit leads its application.
    ///
    /// # Errors
    /// As for every function here.
    pub fn is_leader(&self) -> Result<bool> {
        self.read("is-leader", &["--format=json"])
    }

    /// What this unit keeps under `key`; `None` when there is nothing, or an empty text.
    ///
    /// # Errors
    /// As for every function here.
    pub fn state_get(&self, key: &str) -> Result<Option<String>> {
        let value: Option<String> = self.read("state-get", &["--format=json", key])?;
        Ok(value.filter(|value| !value.is_empty()))
    }

    /// Keeps values in the unit's state, of which Juju takes 64 KiB each. They are kept only if the
    /// hook ends well.
    ///
    /// # Errors
    /// As for every function here.
    pub fn state_set(&self, values: &BTreeMap<String, String>) -> Result<()> {
        self.write("state-set", &["--file", "-"], values)
    }

    /// The relations of an endpoint, oldest first, without one that is just ending.
    ///
    /// # Errors
    /// As for every function here.
    pub fn relation_ids(&self, endpoint: &str) -> Result<Vec<String>> {
        let mut ids: Vec<String> = self.read("relation-ids", &["--format=json", endpoint])?;
        // Juju sorts them as texts, with 10 before 9.
        ids.sort_by_key(|id| {
            id.rsplit(':')
                .next()
                .and_then(|number| number.parse::<u64>().ok())
        });
        Ok(ids)
    }

    /// The remote application of a relation.
    ///
    /// # Errors
    /// As for every function here.
    pub fn relation_app(&self, id: &str) -> Result<String> {
        self.read("relation-list", &["-r", id, "--app", "--format=json"])
    }

    /// The remote units of a relation.
    ///
    /// # Errors
    /// As for every function here.
    pub fn relation_list(&self, id: &str) -> Result<Vec<String>> {
        self.read("relation-list", &["-r", id, "--format=json"])
    }

    /// The databag of `member`, which is an application when `app` is true, else a unit. Only the
    /// leader may read our own application's databag.
    ///
    /// # Errors
    /// As for every function here.
    pub fn relation_get(
        &self,
        id: &str,
        member: &str,
        app: bool,
    ) -> Result<BTreeMap<String, String>> {
        let flags = ["-r", id, "--format=json", "-", member, "--app"];
        self.read("relation-get", if app { &flags } else { &flags[..5] })
    }

    /// Writes into our application's databag when `app` is true, which only the leader may, else
    /// into our unit's. An empty value removes the key. Others see it only if the hook ends well.
    ///
    /// # Errors
    /// As for every function here.
    pub fn relation_set(
        &self,
        id: &str,
        app: bool,
        values: &BTreeMap<String, String>,
    ) -> Result<()> {
        let flags = ["-r", id, "--file", "-", "--app"];
        self.write(
            "relation-set",
            if app { &flags } else { &flags[..4] },
            values,
        )
    }

    /// The UUID of the model that the remote application of a relation is in; `None` where Juju
    /// does not say it, as before 3.6.
    ///
    /// # Errors
    /// As for every function here.
    pub fn relation_model(&self, id: &str) -> Result<Option<String>> {
        let answer: Result<BTreeMap<String, Value>> =
            self.read("relation-model-get", &["-r", id, "--format=json"]);
        match answer {
            Ok(model) => Ok(model
                .get("uuid")
                .and_then(Value::as_str)
                .filter(|uuid| !uuid.is_empty())
                .map(str::to_owned)),
            Err(HookError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The latest content of a secret. From now on Juju takes this revision to be in use.
    ///
    /// # Errors
    /// As for every function here.
    pub fn secret_get(&self, uri: &str) -> Result<BTreeMap<String, Secret>> {
        let content: BTreeMap<String, String> =
            self.read("secret-get", &["--refresh", "--format=json", "--", uri])?;
        Ok(content
            .into_iter()
            .map(|(key, text)| (key, Secret::new(text)))
            .collect())
    }

    /// The level and the text of this unit's status, as Juju shows it.
    ///
    /// # Errors
    /// As for every function here.
    pub fn status_get(&self) -> Result<(String, String)> {
        let mut answer: BTreeMap<String, Value> =
            self.read("status-get", &["--include-data", "--format=json"])?;
        let mut text = |key| match answer.remove(key) {
            Some(Value::String(text)) => text,
            _ => String::new(),
        };
        Ok((text("status"), text("message")))
    }

    /// Sets this unit's status. `level` is `active`, `waiting`, `blocked` or `maintenance`. It is
    /// seen at once, even if the hook fails afterwards.
    ///
    /// # Errors
    /// As for every function here.
    pub fn status_set(&self, level: &str, text: &str) -> Result<()> {
        self.run("status-set", &["--", level, &argument(text)], None)
            .map(drop)
    }

    /// Opens a port, such as `8080/tcp`, if the hook ends well.
    ///
    /// # Errors
    /// As for every function here.
    pub fn open_port(&self, port: &str) -> Result<()> {
        self.run("open-port", &[port], None).map(drop)
    }

    /// Sets the workload's version, for `juju status`.
    ///
    /// # Errors
    /// As for every function here.
    pub fn application_version_set(&self, version: &str) -> Result<()> {
        self.run("application-version-set", &["--", &argument(version)], None)
            .map(drop)
    }

    /// Writes a line into Juju's log. `level` is DEBUG, INFO, WARNING or ERROR. When that fails,
    /// the line goes to standard error, which Juju logs too.
    pub fn juju_log(&self, level: &str, text: &str) {
        let text = argument(cut(text, LOG_MAX_BYTES));
        if self
            .run("juju-log", &["-l", level, "--", &text], None)
            .is_err()
        {
            // If that fails too, there is nowhere left to write to.
            let _ = writeln!(io::stderr(), "{level} {text}");
        }
    }

    /// The parameters of the action that runs.
    ///
    /// # Errors
    /// As for every function here.
    pub fn action_get(&self) -> Result<BTreeMap<String, Value>> {
        self.read("action-get", &["--format=json"])
    }

    /// Adds to the action's results. Keys are in kebab-case, and not names that Juju uses itself,
    /// such as `stdout`. The command takes no file, so the results are arguments: they may hold no
    /// secrets, and less than 128 KiB each.
    ///
    /// # Errors
    /// As for every function here.
    pub fn action_set(&self, results: &BTreeMap<String, String>) -> Result<()> {
        if results.is_empty() {
            return Ok(());
        }
        let pairs: Vec<String> = results
            .iter()
            .map(|(key, value)| argument(&format!("{key}={value}")))
            .collect();
        let args: Vec<&str> = std::iter::once("--")
            .chain(pairs.iter().map(String::as_str))
            .collect();
        self.run("action-set", &args, None).map(drop)
    }

    /// Makes the action fail, and says why.
    ///
    /// # Errors
    /// As for every function here.
    pub fn action_fail(&self, text: &str) -> Result<()> {
        self.run("action-fail", &["--", &argument(text)], None)
            .map(drop)
    }

    /// Runs a command that answers in JSON. The answer `null` is the empty value.
    fn read<T: DeserializeOwned + Default>(&self, name: &str, args: &[&str]) -> Result<T> {
        let answer = self.run(name, args, None)?;
        let value: Option<T> = serde_json::from_slice(&answer).map_err(|_| HookError::Failed {
            command: command_line(name, args),
            // The parser's own error would quote the answer, which may hold a secret.
            cause: "its answer is not the JSON that was expected".to_owned(),
        })?;
        Ok(value.unwrap_or_default())
    }

    /// Runs a command that takes a map by standard input. An empty map needs no command.
    fn write(&self, name: &str, args: &[&str], values: &BTreeMap<String, String>) -> Result<()> {
        if values.is_empty() {
            return Ok(());
        }
        self.run(name, args, Some(yaml(values).into_bytes()))
            .map(drop)
    }

    /// Runs a command and gives its standard output.
    fn run(&self, name: &str, args: &[&str], input: Option<Vec<u8>>) -> Result<Vec<u8>> {
        let command = || command_line(name, args);
        let failed = |cause: String| HookError::Failed {
            command: command(),
            cause,
        };
        let program = self
            .dir
            .as_ref()
            .map_or_else(|| name.into(), |dir| dir.join(name));
        let mut child = Command::new(program)
            .args(args)
            .stdin(if input.is_some() {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => HookError::NotFound { command: command() },
                _ => failed(error.to_string()),
            })?;
        let outputs = exchange(&mut child, input, self.patience).inspect_err(|_| {
            // If that fails, it has just ended by itself.
            let _ = child.kill();
        });
        // Both of its outputs are closed, or it was killed, so this does not wait long.
        let ended = child.wait().map_err(|error| failed(error.to_string()))?;
        let [stdout, stderr] = outputs.map_err(failed)?;
        if ended.success() {
            return Ok(stdout);
        }
        let stderr = String::from_utf8_lossy(&stderr).trim().replace('\n', "; ");
        let words = cut(
            stderr.strip_prefix("ERROR ").unwrap_or(&stderr),
            WORDS_MAX_BYTES,
        )
        .to_owned();
        Err(match ended.code() {
            Some(2) if words.contains("relation not found") => HookError::Gone {
                command: command(),
                words,
            },
            Some(code) => HookError::Refused {
                command: command(),
                code,
                words,
            },
            None => failed(format!("it was killed: {ended}")),
        })
    }
}

/// Sends a process its input, and reads its standard output and standard error to their ends.
fn exchange(
    child: &mut Child,
    input: Option<Vec<u8>>,
    patience: Duration,
) -> std::result::Result<[Vec<u8>; 2], String> {
    // Each pipe has a thread, so that none waits for another, whichever the process fills or reads
    // first. The threads are not joined when the process is killed, because what it has started
    // itself may hold its pipes open.
    if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
        // A process that ends without reading its input says why by itself.
        std::thread::spawn(move || stdin.write_all(&input));
    }
    let (sender, receiver) = mpsc::channel();
    let pipes: [Option<Box<dyn Read + Send>>; 2] = [
        child
            .stdout
            .take()
            .map(|pipe| Box::new(pipe) as Box<dyn Read + Send>),
        child
            .stderr
            .take()
            .map(|pipe| Box::new(pipe) as Box<dyn Read + Send>),
    ];
    for (number, pipe) in pipes.into_iter().enumerate() {
        let sender = sender.clone();
        std::thread::spawn(move || {
            let mut output = Vec::new();
            let read = pipe.map_or(Ok(0), |pipe| {
                pipe.take(OUTPUT_MAX_BYTES + 1).read_to_end(&mut output)
            });
            // When the process was killed, nobody is waiting any more.
            let _ = sender.send((number, read.map(|_| output)));
        });
    }
    let until = Instant::now() + patience;
    let mut outputs = [Vec::new(), Vec::new()];
    for _ in 0..outputs.len() {
        let (number, output) = receiver
            .recv_timeout(until.saturating_duration_since(Instant::now()))
            .map_err(|_| {
                format!(
                    "no answer within {} s; it was killed",
                    patience.as_secs_f32()
                )
            })?;
        outputs[number] = output.map_err(|error| error.to_string())?;
        if outputs[number].len() as u64 > OUTPUT_MAX_BYTES {
            return Err(format!(
                "it prints more than {} MiB",
                OUTPUT_MAX_BYTES >> 20
            ));
        }
    }
    Ok(outputs)
}

/// The command line as errors show it: up to `--`.
fn command_line(name: &str, args: &[&str]) -> String {
    std::iter::once(&name)
        .chain(args.iter().take_while(|arg| **arg != "--"))
        .copied()
        .collect::<Vec<_>>()
        .join(" ")
}

/// A text that can be an argument: Linux would end it at its first NUL.
fn argument(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// The first `bytes_max` bytes of a text, or a little less: it is cut between characters.
fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

/// A map of texts as YAML that Juju's reader cannot misunderstand. Juju reads YAML 1.1, where some
/// characters are not allowed, others end a line, and `yes` and `1` are not texts. So everything
/// that is not plain ASCII is escaped, and everything is quoted.
fn yaml(values: &BTreeMap<String, String>) -> String {
    use std::fmt::Write as _;
    let quoted = |text: &str| {
        let mut quoted = String::with_capacity(text.len() + 2);
        quoted.push('"');
        for c in text.chars() {
            let _ = match c {
                '"' | '\\' => write!(quoted, "\\{c}"),
                ' '..='~' => write!(quoted, "{c}"),
                '\0'..='\u{ffff}' => write!(quoted, "\\u{:04x}", u32::from(c)),
                _ => write!(quoted, "\\U{:08x}", u32::from(c)),
            };
        }
        quoted.push('"');
        quoted
    };
    values
        .iter()
        .map(|(key, value)| format!("{}: {}\n", quoted(key), quoted(value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    /// Hook commands that are small shell scripts, in a folder of their own.
    struct Tools(tempfile::TempDir);

    impl Tools {
        fn new(scripts: &[(&str, &str)]) -> Self {
            let dir = tempfile::tempdir().unwrap();
            for (name, script) in scripts {
                let path = dir.path().join(name);
                // Another process writes it. While we had it open, another test might fork, and the
                // script could then not be run (ETXTBSY).
                let made = Command::new("/bin/sh")
                    .args(["-c", "cat > \"$0\" && chmod 755 \"$0\""])
                    .arg(&path)
                    .stdin(Stdio::piped())
                    .spawn()
                    .and_then(|mut child| {
                        write!(
                            child.stdin.take().unwrap(),
                            "#!/bin/sh\ncd '{}'\n{script}\n",
                            dir.path().display()
                        )?;
                        child.wait()
                    })
                    .unwrap();
                assert!(made.success());
                assert_eq!(
                    fs::metadata(&path).unwrap().permissions().mode() & 0o777,
                    0o755
                );
            }
            Self(dir)
        }

        fn commands(&self) -> HookCommands {
            HookCommands::in_dir(self.0.path().to_owned())
        }

        /// What a script has written into a file.
        fn text(&self, file: &str) -> String {
            fs::read_to_string(self.0.path().join(file)).unwrap()
        }
    }

    /// A script that writes its arguments into `args`, one a line, and its input into `stdin`.
    const NOTE: &str = r#"printf '%s\n' "$@" > args; cat > stdin"#;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn answers_are_parsed() {
        let tools = Tools::new(&[
            (
                "config-get",
                r#"echo '{"window":"10s","init-metastore":false,"max-keys":7}'"#,
            ),
            ("is-leader", "echo true"),
            (
                "state-get",
                r#"[ "$2" = memo ] && echo '"{}"' || echo '""'"#,
            ),
            (
                "relation-ids",
                r#"[ "$2" = logging ] && echo '[]' || echo '["kafka-client:10","kafka-client:9"]'"#,
            ),
            (
                "relation-list",
                r#"case "$*" in *--app*) echo '"kafka"';; *) echo '["kafka/0","kafka/1"]';; esac"#,
            ),
            ("relation-get", r#"echo "{\"args\":\"$*\"}""#),
            (
                "status-get",
                r#"echo '{"message":"all is well","status":"active","status-data":{}}'"#,
            ),
            ("action-get", "echo null"),
            (
                "secret-get",
                r#"echo '{"username":"u","password":"geheim"}'"#,
            ),
            ("relation-model-get", r#"echo '{"uuid":"6f1c"}'"#),
        ]);
        let commands = tools.commands();
        let options = commands.config_get().unwrap();
        assert_eq!(options["window"], "10s");
        assert_eq!(
            (&options["init-metastore"], &options["max-keys"]),
            (&Value::from(false), &Value::from(7))
        );
        assert!(commands.is_leader().unwrap());
        assert_eq!(commands.state_get("memo").unwrap().as_deref(), Some("{}"));
        assert_eq!(commands.state_get("other").unwrap(), None);
        assert_eq!(
            commands.relation_ids("kafka-client").unwrap(),
            ["kafka-client:9", "kafka-client:10"]
        );
        assert!(commands.relation_ids("logging").unwrap().is_empty());
        assert_eq!(commands.relation_app("kafka-client:9").unwrap(), "kafka");
        assert_eq!(
            commands.relation_list("kafka-client:9").unwrap(),
            ["kafka/0", "kafka/1"]
        );
        assert_eq!(
            commands.relation_get("k:9", "kafka", true).unwrap()["args"],
            "-r k:9 --format=json - kafka --app"
        );
        assert_eq!(
            commands.relation_get("k:9", "kafka/0", false).unwrap()["args"],
            "-r k:9 --format=json - kafka/0"
        );
        assert_eq!(
            commands.status_get().unwrap(),
            ("active".to_owned(), "all is well".to_owned())
        );
        assert!(commands.action_get().unwrap().is_empty());
        assert_eq!(
            commands.relation_model("k:9").unwrap().as_deref(),
            Some("6f1c")
        );
        let secret = commands.secret_get("secret:abc").unwrap();
        assert_eq!(secret["password"].expose(), "geheim");
        assert!(!format!("{secret:?}").contains("geheim"));
    }

    #[test]
    fn values_go_by_standard_input_and_texts_after_two_dashes() {
        let tools = Tools::new(&[
            ("relation-set", NOTE),
            ("state-set", NOTE),
            ("status-set", NOTE),
            ("juju-log", NOTE),
            ("action-set", NOTE),
            ("action-fail", NOTE),
            ("open-port", NOTE),
            ("application-version-set", NOTE),
        ]);
        let commands = tools.commands();
        // Longer than a pipe holds, with everything that YAML could take for something else.
        let long = "ü\u{1f600}\n\"\\\u{7f}\u{85}\u{2028}\u{feff} yes: [1]".repeat(20_000);
        let values = map(&[
            ("extra-user-roles", "admin"),
            ("no", "1"),
            ("long", &long),
            ("gone", ""),
        ]);
        commands
            .relation_set("kafka-client:4", true, &values)
            .unwrap();
        assert_eq!(tools.text("args"), "-r\nkafka-client:4\n--file\n-\n--app\n");
        let text = tools.text("stdin");
        assert!(text.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\n')));
        let back: BTreeMap<String, String> = serde_yaml::from_str(&text).unwrap();
        assert!(back == values);

        commands
            .relation_set("kafka-client:4", false, &map(&[("a", "b")]))
            .unwrap();
        assert_eq!(tools.text("args"), "-r\nkafka-client:4\n--file\n-\n");
        commands
            .state_set(&map(&[("memo", "{\"port\":true}")]))
            .unwrap();
        assert_eq!(
            tools.text("args") + &tools.text("stdin"),
            "--file\n-\n\"memo\": \"{\\\"port\\\":true}\"\n"
        );

        commands.status_set("blocked", "--text\0").unwrap();
        assert_eq!(tools.text("args"), "--\nblocked\n--text\u{fffd}\n");
        commands.juju_log("INFO", &"é".repeat(LOG_MAX_BYTES));
        assert_eq!(
            tools.text("args"),
            format!("-l\nINFO\n--\n{}\n", "é".repeat(LOG_MAX_BYTES / 2))
        );
        commands
            .action_set(&map(&[("rows", &"x".repeat(64 << 10)), ("count", "1")]))
            .unwrap();
        assert_eq!(
            tools.text("args"),
            format!("--\ncount=1\nrows={}\n", "x".repeat(64 << 10))
        );
        commands.action_fail("-no").unwrap();
        assert_eq!(tools.text("args"), "--\n-no\n");
        commands.open_port("8080/tcp").unwrap();
        assert_eq!(tools.text("args"), "8080/tcp\n");
        commands.application_version_set("0.1.0").unwrap();
        assert_eq!(tools.text("args"), "--\n0.1.0\n");
    }

    #[test]
    fn an_empty_map_runs_no_command() {
        let commands = Tools::new(&[]).commands();
        commands
            .relation_set("k:1", true, &BTreeMap::new())
            .unwrap();
        commands.state_set(&BTreeMap::new()).unwrap();
        commands.action_set(&BTreeMap::new()).unwrap();
        commands.juju_log("ERROR", "there is no juju-log: this line is on stderr");
    }

    #[test]
    fn errors_say_what_to_do_and_hold_no_values() {
        let tools = Tools::new(&[
            (
                "relation-get",
                r#"echo 'ERROR value "k:99" for option -r: relation not found' >&2; exit 2"#,
            ),
            (
                "relation-set",
                "echo 'ERROR cannot write relation settings' >&2; exit 1",
            ),
            (
                "secret-get",
                "echo 'ERROR permission denied' >&2; echo at all >&2; exit 1",
            ),
            ("status-set", "kill -9 $$"),
            ("config-get", r#"echo '{"password": geheim}'"#),
            ("state-get", r#"echo '["geheim"]'"#),
            ("action-get", "echo 'ERROR what is this' >&2; exit 2"),
        ]);
        let commands = tools.commands();
        let gone = commands.relation_get("k:99", "kafka", true).unwrap_err();
        assert!(matches!(&gone, HookError::Gone { .. }), "{gone}");
        assert_eq!(
            gone.to_string(),
            "cannot run hook command \"relation-get -r k:99 --format=json - kafka --app\": \
             value \"k:99\" for option -r: relation not found"
        );
        assert!(matches!(
            commands.action_get(),
            Err(HookError::Refused { code: 2, .. })
        ));
        assert_eq!(commands.relation_model("k:1").unwrap(), None);
        assert!(matches!(
            commands.is_leader(),
            Err(HookError::NotFound { .. })
        ));
        for (error, text) in [
            (
                commands
                    .relation_set("k:1", true, &map(&[("password", "geheim")]))
                    .unwrap_err(),
                "cannot run hook command \"relation-set -r k:1 --file - --app\": \
                 exit code 1: cannot write relation settings",
            ),
            (
                commands.secret_get("geheim").unwrap_err(),
                "cannot run hook command \"secret-get --refresh --format=json\": \
                 exit code 1: permission denied; at all",
            ),
            (
                commands.status_set("active", "geheim").unwrap_err(),
                "cannot run hook command \"status-set\": it was killed: signal: 9 (SIGKILL)",
            ),
            (
                commands.config_get().unwrap_err(),
                "cannot run hook command \"config-get --format=json\": \
                 its answer is not the JSON that was expected",
            ),
            (
                commands.state_get("memo").unwrap_err(),
                "cannot run hook command \"state-get --format=json memo\": \
                 its answer is not the JSON that was expected",
            ),
        ] {
            assert_eq!(error.to_string(), text);
        }
    }

    #[test]
    fn a_command_that_hangs_is_killed() {
        let tools = Tools::new(&[
            ("is-leader", "echo $$ > pid; exec sleep 1000"),
            ("config-get", "sleep 1000 & echo $! > pid; wait"),
        ]);
        let commands = HookCommands {
            patience: Duration::from_millis(300),
            ..tools.commands()
        };
        let asked = Instant::now();
        let error = commands.is_leader().unwrap_err().to_string();
        assert_eq!(
            error,
            "cannot run hook command \"is-leader --format=json\": \
             no answer within 0.3 s; it was killed"
        );
        assert!(asked.elapsed() < Duration::from_secs(20));
        assert!(!fs::exists(format!("/proc/{}", tools.text("pid").trim())).unwrap());
        // The process that it has left behind holds its pipes, and is not waited for.
        assert!(
            commands
                .config_get()
                .unwrap_err()
                .to_string()
                .contains("no answer within")
        );
        let left = tools.text("pid");
        assert!(
            Command::new("/bin/sh")
                .args(["-c", "kill $0", left.trim()])
                .status()
                .unwrap()
                .success()
        );
    }
}
