//! One run of `dispatch`, with everything around it that Juju provides; and the search for
//! credentials in what it leaves behind.

use super::events::Event;
use super::{Done, Run, World};
use crate::client::{Call, Reply};
use crate::juju::{Action, Hook, Juju};
use crate::pebble::Mood;
use crate::workload::Workload;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

impl World {
    /// The environment that Juju 3.6 (or 3.5, where a test says so) gives a hook on Kubernetes, and
    /// nothing else.
    fn variables(&self, path: &str, hook: &str, context: &str) -> BTreeMap<String, String> {
        let charm = self.charm().display().to_string();
        let folder = self.folder.path().display().to_string();
        let juju = self.juju();
        let pairs: [(&str, &str); 29] = [
            ("CHARM_DIR", &charm),
            ("JUJU_CHARM_DIR", &charm),
            ("JUJU_CONTEXT_ID", context),
            ("JUJU_HOOK_NAME", hook),
            ("JUJU_DISPATCH_PATH", path),
            (
                "JUJU_AGENT_SOCKET_ADDRESS",
                &format!("{folder}/agent.socket"),
            ),
            ("JUJU_AGENT_SOCKET_NETWORK", "unix"),
            ("JUJU_UNIT_NAME", &juju.unit),
            ("JUJU_MODEL_UUID", &juju.uuid),
            ("JUJU_MODEL_NAME", &juju.model),
            (
                "JUJU_API_ADDRESSES",
                "controller-service.controller-k8s.svc.cluster.local:17070",
            ),
            ("JUJU_VERSION", &juju.version),
            ("CLOUD_API_VERSION", "1.32.0"),
            ("JUJU_SLA", "unsupported"),
            ("JUJU_MACHINE_ID", ""),
            ("JUJU_PRINCIPAL_UNIT", ""),
            ("JUJU_AVAILABILITY_ZONE", ""),
            ("JUJU_CHARM_HTTP_PROXY", ""),
            ("JUJU_CHARM_HTTPS_PROXY", ""),
            ("JUJU_CHARM_FTP_PROXY", ""),
            ("JUJU_CHARM_NO_PROXY", ""),
            (
                "PATH",
                &format!(
                    "{folder}/tools:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
                ),
            ),
            ("LANG", "C.UTF-8"),
            ("TERM", "tmux-256color"),
            ("DEBIAN_FRONTEND", "noninteractive"),
            ("APT_LISTCHANGES_FRONTEND", "none"),
            ("KUBERNETES_SERVICE_HOST", "10.152.183.1"),
            ("KUBERNETES_SERVICE_PORT", "443"),
            ("KUBERNETES_PORT", "tcp://10.152.183.1:443"),
        ];
        let mut variables: BTreeMap<String, String> = pairs
            .into_iter()
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect();
        if juju.version.starts_with("3.5") {
            variables.insert("JUJU_METER_STATUS".to_owned(), "AMBER".to_owned());
            variables.insert("JUJU_METER_INFO".to_owned(), "not set".to_owned());
        }
        variables.extend(self.environment.clone());
        variables
    }

    /// Runs the binary once, and keeps what it leaves behind.
    pub(super) fn dispatch(&mut self, path: &str, hook: &str, event: Event) -> Run {
        let context = self.next_context(hook);
        let mut variables = self.variables(path, hook, &context);
        variables.extend(event.variables.clone());
        let is_action = event.action.is_some();
        self.begin_hook(context, event);
        self.pebble.show();
        let (service_runs, before, token) = {
            let mut container = self.container();
            container.requests.clear();
            (
                container.mood == Mood::Up && container.services.values().any(|s| s.active),
                container.tell(),
                token_of(container.file("/etc/windrow/secrets.yaml")),
            )
        };
        let workload = (service_runs && !self.workload.is_empty())
            .then(|| Workload::new(self.workload.clone(), token));
        let began = Instant::now();
        let output = run(&self.charm(), &variables);
        let took = began.elapsed();
        let asked = workload
            .map(|w| w.requests.lock().expect("not poisoned").clone())
            .unwrap_or_default();

        let mut juju = self.juju();
        let mut hook = juju.hook.take().expect("set above");
        let mut error = (output.0 != 0).then(|| format!("exit status {}", output.0));
        let mut flushed = Vec::new();
        if error.is_none() {
            match juju.commit(&mut hook) {
                Ok(said) => flushed = said,
                Err(e) => error = Some(e),
            }
        }
        let action = hook
            .action
            .take()
            .map(|ended| finish_action(ended, error.take(), (output.0, &output.1, &output.2)));
        let status = format!("{} {:?}", juju.unit_status.0, juju.unit_status.1);
        let (log, statuses) = (juju.log.clone(), juju.statuses.clone());
        // What Juju itself logs does not come from the charm.
        let told: BTreeSet<String> = variables.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let environments: BTreeSet<String> = juju.environments.difference(&told).cloned().collect();
        drop(juju);
        self.providers();
        let container = self.container();
        let after = container.tell();
        let name = if is_action { path } else { hook_name(path) };
        let run = Run {
            event: name.to_owned(),
            exit: output.0,
            error,
            stdout: output.1,
            stderr: output.2,
            calls: hook.calls,
            flushed,
            status,
            statuses,
            log,
            action,
            pebble: container.requests.clone(),
            workload: asked,
            container: changed(&before, &after),
            took,
            hidden: self.hidden.clone(),
            folder: self.folder.path().display().to_string(),
        };
        drop(container);
        self.no_credential_in(&run, &environments);
        run
    }

    /// A context id as Juju makes it, another one for each dispatch.
    fn next_context(&mut self, hook: &str) -> String {
        self.contexts += 1;
        let unit = self.juju().unit.replace('/', "-");
        format!("{unit}-{hook}-{}", self.contexts)
    }

    /// Puts a hook into the agent, and forgets what the last one did.
    fn begin_hook(&self, context: String, event: Event) {
        let mut juju = self.juju();
        // What Juju 3.5 does not have.
        let newer = self.folder.path().join("tools/relation-model-get");
        if juju.version.starts_with("3.5") {
            let _ = std::fs::remove_file(newer);
        }
        juju.log.clear();
        juju.statuses.clear();
        juju.environments.clear();
        let relation = event.relation.and_then(|id| juju.relations.get(&id));
        let remote_app = relation.map(|r| r.app.clone()).unwrap_or_default();
        juju.hook = Some(Hook {
            context,
            relation: event.relation,
            remote_unit: event.remote_unit,
            remote_app,
            broken: event.broken,
            action: event.action,
            ..Hook::default()
        });
    }

    /// # Panics
    /// When a credential is in a place where it does not belong.
    fn no_credential_in(&self, run: &Run, environments: &BTreeSet<String>) {
        let mut places: Vec<(String, String)> = vec![
            ("stdout".to_owned(), run.stdout.clone()),
            ("stderr".to_owned(), run.stderr.clone()),
            ("log".to_owned(), run.log.join("\n")),
            ("statuses".to_owned(), run.statuses.join("\n")),
            ("pebble requests".to_owned(), run.pebble.join("\n")),
            (
                "hook commands' environment".to_owned(),
                environments.iter().cloned().collect::<Vec<_>>().join("\n"),
            ),
        ];
        for call in &run.calls {
            places.push((
                "arguments of a hook command".to_owned(),
                format!("{} {}", call.command, call.args.join(" ")),
            ));
        }
        if let Some(action) = &run.action {
            places.push((
                "action results".to_owned(),
                format!("{:?} {}", action.results, action.message),
            ));
        }
        let container = self.container();
        places.push(("plan".to_owned(), container.plan().to_string()));
        for (path, file) in container
            .files
            .iter()
            .filter(|(path, _)| !path.ends_with("/secrets.yaml"))
        {
            places.push((
                path.clone(),
                String::from_utf8_lossy(&file.bytes).into_owned(),
            ));
        }
        drop(container);
        let juju = self.juju();
        for (key, value) in &juju.state {
            places.push((format!("charm state {key}"), value.clone()));
        }
        for (id, relation) in &juju.relations {
            for bag in [&relation.ours_app, &relation.ours_unit] {
                places.push((format!("our databag of relation {id}"), format!("{bag:?}")));
            }
        }
        drop(juju);
        for (place, text) in places {
            for value in &self.hidden {
                assert!(
                    !text.contains(value.as_str()),
                    "{}: a credential is in {place}",
                    run.event
                );
            }
        }
    }
}

/// How an action ended. `error` is why its hook failed.
fn finish_action(
    mut ended: Action,
    error: Option<String>,
    (exit, stdout, stderr): (i32, &str, &str),
) -> Done {
    for (key, value) in [("stdout", stdout), ("stderr", stderr)] {
        if !value.is_empty() {
            ended.results.insert(key.to_owned(), json!(value));
        }
    }
    ended.results.insert("return-code".to_owned(), json!(exit));
    let message = error.or(ended.failed);
    Done {
        status: if message.is_some() {
            "failed"
        } else {
            "completed"
        },
        message: message.unwrap_or_default(),
        results: ended.results,
        log: ended.log,
    }
}

/// The parts of a container's description that are new or have changed, and the names of those that
/// are gone.
fn changed(before: &[String], after: &[String]) -> Vec<String> {
    let parts = |lines: &[String]| {
        let mut parts: Vec<Vec<String>> = Vec::new();
        for line in lines {
            match parts.last_mut() {
                Some(part) if line.starts_with(' ') => part.push(line.clone()),
                _ => parts.push(vec![line.clone()]),
            }
        }
        parts
    };
    let name = |part: &Vec<String>| part[0].split(' ').take(2).collect::<Vec<_>>().join(" ");
    let (before, after) = (parts(before), parts(after));
    let gone = before
        .iter()
        .map(name)
        .filter(|old| !after.iter().any(|new| name(new) == *old));
    let mut said: Vec<String> = gone.map(|name| format!("{name} is gone")).collect();
    said.extend(
        after
            .iter()
            .filter(|part| !before.contains(part))
            .flatten()
            .cloned(),
    );
    said
}

fn hook_name(path: &str) -> &str {
    path.strip_prefix("hooks/").unwrap_or(path)
}

/// Answers one hook command.
pub(super) fn answer(stream: &UnixStream, juju: &Arc<Mutex<Juju>>) -> std::io::Result<()> {
    for line in BufReader::new(stream).lines() {
        let call: Call = serde_json::from_str(&line?)?;
        let mut juju = juju.lock().expect("no hook command panicked");
        juju.environments
            .extend(call.env.iter().map(|(k, v)| format!("{k}={v}")));
        let reply = match juju.run(
            &call.context,
            &call.command,
            &call.args,
            call.stdin.as_deref(),
        ) {
            None => Reply::NeedStdin,
            Some((code, stdout, stderr)) => Reply::Done {
                code,
                stdout,
                stderr,
            },
        };
        drop(juju);
        let mut text = serde_json::to_string(&reply)?;
        text.push('\n');
        (&mut &*stream).write_all(text.as_bytes())?;
    }
    Ok(())
}

/// The longest time that a dispatch may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// Runs `dispatch` as Juju does, and gives its exit code, stdout and stderr.
fn run(charm: &Path, variables: &BTreeMap<String, String>) -> (i32, String, String) {
    let child = Command::new(charm.join("dispatch"))
        .current_dir(charm)
        .env_clear()
        .envs(variables)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("dispatch can be started");
    let (done, watched) = std::sync::mpsc::channel::<()>();
    let id = child.id().to_string();
    let watch = std::thread::spawn(move || {
        if watched.recv_timeout(DEADLINE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            let _ = Command::new("kill").args(["-KILL", &id]).status();
        }
    });
    let output = child.wait_with_output().expect("a child of ours");
    drop(done);
    let _ = watch.join();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (
        output.status.code().unwrap_or(-1),
        text(output.stdout),
        text(output.stderr),
    )
}

/// The token in the secrets file of a container, which its workload wants from everybody.
fn token_of(secrets: Option<&str>) -> Option<String> {
    let found = secrets?
        .lines()
        .find_map(|line| line.strip_prefix("api-token: "));
    found.map(|token| token.trim_matches(['"', '\'']).to_owned())
}
