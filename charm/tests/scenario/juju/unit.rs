//! The hook commands about the unit itself: options, status, log, ports, state, actions.

use super::Stop::{Failed, Usage};
use super::parse::{Parsed, pairs, settings_file};
use super::{Juju, Stop};
use serde_json::{Value, json};

impl Juju {
    pub(super) fn config_get(&mut self, p: &Parsed) -> Result<String, Stop> {
        let key = p.args.first().map_or("", String::as_str);
        let all = p.has("a") || p.has("all");
        if !key.is_empty() && all {
            return Err(Usage(format!(
                "cannot use argument --all together with key {key:?}"
            )));
        }
        p.at_most(1)?;
        let mut options = self.options();
        if !key.is_empty() {
            return Ok(p.write(&options.remove(key).unwrap_or(Value::Null)));
        }
        options.retain(|_, value| all || !value.is_null());
        Ok(p.write(&json!(options)))
    }

    pub(super) fn status_set(&mut self, p: &Parsed) -> Result<String, Stop> {
        let Some(status) = p.args.first() else {
            return Err(Usage("invalid args, require <status> [message]".to_owned()));
        };
        if !["maintenance", "blocked", "waiting", "active"].contains(&status.as_str()) {
            let of = "[maintenance blocked waiting active]";
            return Err(Usage(format!(
                "invalid status {status:?}, expected one of {of}"
            )));
        }
        p.at_most(2)?;
        let set = (status.clone(), p.args.get(1).cloned().unwrap_or_default());
        if p.has("application") {
            if !self.leader {
                return Err(Failed("this unit is not the leader".to_owned()));
            }
            self.statuses
                .push(format!("application {} {:?}", set.0, set.1));
            self.app_status = set;
        } else {
            self.statuses.push(format!("{} {:?}", set.0, set.1));
            self.unit_status = set;
        }
        Ok(String::new())
    }

    pub(super) fn status_get(&mut self, p: &Parsed) -> Result<String, Stop> {
        p.at_most(0)?;
        let detail = |status: &(String, String)| match p.has("include-data") {
            true => json!({"status": status.0, "message": status.1, "status-data": {}}),
            false => json!({"status": status.0}),
        };
        let short = !p.has("include-data") && p.format == "smart";
        if p.has("application") {
            if !self.leader {
                return Err(Failed(
                    "finding application status: this unit is not the leader".to_owned(),
                ));
            }
            if short {
                return Ok(p.write(&json!(self.app_status.0)));
            }
            let mut all = detail(&self.app_status);
            all["units"] = json!({self.unit.clone(): detail(&self.unit_status)});
            return Ok(p.write(&json!({"application-status": all})));
        }
        // A hook sees the same revision each time, that which it has read first.
        let now = self.unit_status.clone();
        let seen = self.hook().status.get_or_insert(now).clone();
        Ok(p.write(&if short { json!(seen.0) } else { detail(&seen) }))
    }

    pub(super) fn juju_log(&mut self, p: &Parsed) -> Result<String, Stop> {
        if p.args.is_empty() {
            return Err(Usage("no message specified".to_owned()));
        }
        let level = if p.text("l").is_empty() {
            p.text("log-level")
        } else {
            p.text("l")
        };
        let level = match level.to_uppercase().as_str() {
            _ if p.has("debug") => "DEBUG",
            "" | "INFO" => "INFO",
            "TRACE" => "TRACE",
            "DEBUG" => "DEBUG",
            "WARN" | "WARNING" => "WARNING",
            "ERROR" => "ERROR",
            "CRITICAL" => "CRITICAL",
            other => {
                self.log.push(format!(
                    "WARNING Specified log level of {other:?} is not valid"
                ));
                "INFO"
            }
        };
        let relation = self.hook().relation;
        let prefix = relation
            .map(|id| format!("{}:{id}: ", self.relations[&id].endpoint))
            .unwrap_or_default();
        self.log
            .push(format!("{level} {prefix}{}", p.args.join(" ")));
        Ok(String::new())
    }

    pub(super) fn port(&mut self, command: &str, p: &Parsed) -> Result<String, Stop> {
        let Some(given) = p.args.first().map(|a| a.to_lowercase()) else {
            return Err(Usage("no port or range specified".to_owned()));
        };
        let (port, protocol) = given.split_once('/').unwrap_or((&given, "tcp"));
        if port.contains('-') {
            let text =
                "port ranges are not supported for k8s applications, please specify a single port";
            return Err(Failed(text.to_owned()));
        }
        let number: i64 = port.parse().map_err(|_| {
            Usage(format!(
                "invalid port {port:?}: strconv.Atoi: parsing {port:?}: invalid syntax"
            ))
        })?;
        if !(1..=65535).contains(&number) {
            return Err(Usage(format!(
                "port range bounds must be between 1 and 65535, got {number}-{number}"
            )));
        }
        if protocol != "tcp" && protocol != "udp" {
            return Err(Usage(format!(
                "invalid protocol {protocol:?}, expected \"tcp\", \"udp\", or \"icmp\""
            )));
        }
        p.at_most(1)?;
        let port = format!("{number}/{protocol}");
        let hook = self.hook();
        let (to, from) = if command == "open-port" {
            (&mut hook.open, &mut hook.close)
        } else {
            (&mut hook.close, &mut hook.open)
        };
        from.remove(&port);
        to.insert(port);
        Ok(String::new())
    }

    pub(super) fn state_get(&mut self, p: &Parsed) -> Result<String, Stop> {
        p.at_most(1)?;
        let state = self
            .hook
            .as_ref()
            .and_then(|h| h.state.as_ref())
            .unwrap_or(&self.state);
        match p.args.first().map_or("-", String::as_str) {
            "-" | "" => Ok(p.write(&if state.is_empty() {
                Value::Null
            } else {
                json!(state)
            })),
            key => match state.get(key) {
                None if p.has("strict") => Err(Failed(format!("{key:?} not found"))),
                found => Ok(p.write(&json!(found.cloned().unwrap_or_default()))),
            },
        }
    }

    pub(super) fn state_set(&mut self, p: &Parsed, stdin: Option<&str>) -> Result<String, Stop> {
        let given = pairs(&p.args)?;
        let mut values = settings_file(p.text("file"), stdin)?;
        values.extend(given);
        let mut state = self
            .hook()
            .state
            .clone()
            .unwrap_or_else(|| self.state.clone());
        for (key, value) in values {
            if key.len() > 256 {
                return Err(Failed("max allowed key length (256) exceeded".to_owned()));
            }
            if value.len() > 65536 {
                return Err(Failed(
                    "max allowed value length (65536) exceeded".to_owned(),
                ));
            }
            state.insert(key, value);
        }
        self.hook().state = Some(state);
        Ok(String::new())
    }

    pub(super) fn action(&mut self, command: &str, p: &Parsed) -> Result<String, Stop> {
        let mut sets = Vec::new();
        match command {
            "action-get" => p.at_most(1)?,
            "action-fail" => p.at_most(1)?,
            "action-log" if p.args.is_empty() => {
                return Err(Usage("no message specified".to_owned()));
            }
            "action-set" => {
                for arg in &p.args {
                    let Some((path, value)) = arg.split_once('=') else {
                        return Err(Usage(format!(
                            "argument {arg:?} must be of the form key...=value"
                        )));
                    };
                    for key in path.split('.') {
                        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
                        let inner = key.bytes().all(|b| plain(b) || b == b'-');
                        let ends = key.bytes().next().is_some_and(plain)
                            && key.bytes().last().is_some_and(plain);
                        if !inner || !ends {
                            return Err(Usage(format!(
                                "key {key:?} must start and end with lowercase alphanumeric, \
                                 and contain only lowercase alphanumeric and hyphens"
                            )));
                        }
                        if ["stdout", "stdout-encoding", "stderr", "stderr-encoding"].contains(&key)
                        {
                            return Err(Usage(format!("cannot set reserved action key {key:?}")));
                        }
                    }
                    sets.push((path.to_owned(), value.to_owned()));
                }
            }
            _ => {}
        }
        let action = self
            .hook()
            .action
            .as_mut()
            .ok_or_else(|| Failed("not running an action".to_owned()))?;
        match command {
            "action-get" => {
                let mut value = Value::Object(action.parameters.clone());
                for key in p.args.first().iter().flat_map(|path| path.split('.')) {
                    value = value[key].take();
                }
                return Ok(p.write(&value));
            }
            "action-fail" => {
                let text = "action failed without reason given, check action for errors";
                action.failed = Some(p.args.first().map_or(text, String::as_str).to_owned());
            }
            "action-log" => action.log.push(p.args.join(" ")),
            _ => {
                for (path, value) in sets {
                    let mut at = &mut action.results;
                    let mut keys: Vec<&str> = path.split('.').collect();
                    let last = keys.pop().expect("split gives one");
                    for key in keys {
                        let next = at.entry(key).or_insert_with(|| json!({}));
                        if !next.is_object() {
                            *next = json!({});
                        }
                        at = next.as_object_mut().expect("made one");
                    }
                    at.insert(last.to_owned(), json!(value));
                }
            }
        }
        Ok(String::new())
    }
}
