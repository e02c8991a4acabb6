//! The requests that Pebble answers: services, checks, logs, notices; and the forms of its answers.

use super::{Mood, Service, State};
use crate::http::{self, Request, Response};
use serde_json::{Value, json};

impl State {
    pub(super) fn answer(&mut self, request: &Request) -> Response {
        self.requests.push(request_line(request));
        match self.mood {
            Mood::Late => return failed(504, "timed out"),
            Mood::Broken => return failed(500, "internal server error"),
            Mood::Forbidden => return failed(401, "access denied"),
            _ => {}
        }
        let body: Value = serde_json::from_slice(&request.body).unwrap_or(Value::Null);
        match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/v1/system-info") => {
                let boot = format!("00000000-0000-4000-8000-{:012}", self.boot);
                fine(&json!({"boot-id": boot, "version": self.version}))
            }
            ("POST", "/v1/layers") => self.add_layer(&body),
            ("GET", "/v1/plan") => fine(&json!(
                serde_yaml::to_string(&self.plan()).expect("JSON is YAML")
            )),
            ("GET", "/v1/services") => self.list_services(request),
            ("POST", "/v1/services") => self.act(&body),
            ("GET", path) if path.starts_with("/v1/changes/") => self.show_change(path),
            ("POST", "/v1/signals") => self.signal(&body),
            ("GET", "/v1/checks") => self.list_checks(),
            ("GET", "/v1/logs") => self.logs(request),
            ("GET", "/v1/notices") => self.list_notices(request),
            ("POST", "/v1/notices") => self.add_notice(&body),
            ("GET", "/v1/files") => self.read_files(request),
            ("POST", "/v1/files") => self.write_files(request, &body),
            ("POST", "/v1/exec") => self.exec(&body),
            (_, path) => failed(404, &format!("invalid API endpoint requested: {path}")),
        }
    }

    fn list_services(&self, request: &Request) -> Response {
        let names = request
            .asked("names")
            .map(|n| n.split(',').collect::<Vec<_>>());
        let plan = self.plan();
        let all = plan["services"].as_object().into_iter().flatten();
        let all = all.filter(|(name, _)| names.as_ref().is_none_or(|n| n.contains(&name.as_str())));
        let all = all.map(|(name, service)| {
            let startup = service["startup"].as_str().unwrap_or("disabled");
            let current = self.services.get(name).map_or("inactive", |s| s.current());
            json!({"name": name, "startup": startup, "current": current})
        });
        fine(&all.collect())
    }

    fn show_change(&self, path: &str) -> Response {
        let id = path["/v1/changes/".len()..].trim_end_matches("/wait");
        match id.parse().ok().and_then(|id: u64| self.changes.get(&id)) {
            Some(change) => fine(change),
            None => failed(404, &format!("cannot find change with id {id:?}")),
        }
    }

    fn signal(&self, body: &Value) -> Response {
        for name in body["services"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
        {
            if !self.services.get(name).is_some_and(|s| s.active) {
                return failed(
                    500,
                    &format!("cannot send signal to {name:?}: service is not running"),
                );
            }
        }
        fine(&json!(true))
    }

    fn list_checks(&self) -> Response {
        let plan = self.plan();
        let all = plan["checks"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, check)| {
                let up = self.checks.get(name).copied().unwrap_or(true);
                let threshold = &check["threshold"];
                json!({
                    "name": name, "startup": "enabled", "status": if up { "up" } else { "down" },
                    "failures": if up { 0 } else { 3 }, "threshold": threshold, "change-id": "1",
                })
            });
        fine(&all.collect())
    }

    fn logs(&self, request: &Request) -> Response {
        let known = self
            .services
            .keys()
            .any(|name| request.asked("services").is_none_or(|of| of == name));
        let lines = self.said.iter().filter(|_| known);
        let lines = lines.map(|text| {
            json!({"time": "2026-01-01T00:00:00.000Z", "service": "windrow", "message": text})
                .to_string()
                + "\n"
        });
        Response {
            code: 200,
            content_type: "application/x-ndjson".to_owned(),
            body: lines.collect::<String>().into_bytes(),
        }
    }

    fn list_notices(&self, request: &Request) -> Response {
        let one_of = |name: &str, value: &Value| {
            request
                .asked(name)
                .is_none_or(|of| of.split(',').any(|o| value == o))
        };
        let all = self
            .notices
            .iter()
            .filter(|n| one_of("types", &n["type"]) && one_of("keys", &n["key"]));
        fine(&all.cloned().collect())
    }

    fn add_notice(&mut self, body: &Value) -> Response {
        let key = body["key"].as_str().unwrap_or_default();
        if body["type"] != "custom" || !key.contains('/') || !key.contains('.') || key.len() > 256 {
            return failed(
                400,
                &format!("custom notice key must be in \"domain.com/key\" format: {key:?}"),
            );
        }
        // There is one notice of each user and key. Adding it again repeats it, unless
        // `repeat-after` says that it is too soon for that.
        let same = self
            .notices
            .iter_mut()
            .find(|n| n["type"] == "custom" && n["key"] == key);
        let id = if let Some(notice) = same {
            notice["last-data"] = body["data"].clone();
            let times = notice["occurrences"].as_u64().unwrap_or(0) + 1;
            notice["occurrences"] = json!(times);
            if body["repeat-after"].is_null() {
                notice["last-repeated"] = json!(format!("2026-01-01T00:00:{times:02}Z"));
            }
            notice["id"].as_str().unwrap_or_default().to_owned()
        } else {
            self.made += 1;
            let id = self.made.to_string();
            self.notices.push(json!({
                "id": id, "user-id": 0, "type": "custom", "key": key,
            "last-data": body["data"], "occurrences": 1,
                "first-occurred": "2026-01-01T00:00:00Z",
            "last-occurred": "2026-01-01T00:00:00Z",
                "last-repeated": "2026-01-01T00:00:00Z", "expire-after": "168h0m0s",
            }));
            id
        };
        fine(&json!({"id": id}))
    }

    /// The services that an action is for.
    fn services_of(&self, action: &str, body: &Value) -> Result<Vec<String>, Response> {
        let plan = self.plan();
        let named = body["services"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned);
        let mut named: Vec<String> = named.collect();
        match action {
            "replan" | "autostart" => {
                if !named.is_empty() {
                    return Err(failed(400, &format!("{action} accepts no service names")));
                }
                let all = plan["services"].as_object().into_iter().flatten();
                let all = all.filter(|(name, service)| {
                    let active = self.services.get(*name).is_some_and(|s| s.active);
                    service["startup"] == "enabled" || (active && action == "replan")
                });
                named = all.map(|(name, _)| name.clone()).collect();
            }
            "start" | "stop" | "restart" => {
                if named.is_empty() {
                    return Err(failed(400, &format!("no services to {action} provided")));
                }
            }
            _ => return Err(failed(400, &format!("action {action:?} is unsupported"))),
        }
        for name in &named {
            if plan["services"][name].is_null() {
                return Err(failed(
                    400,
                    &format!("cannot {action} services: service {name:?} does not exist"),
                ));
            }
        }
        Ok(named)
    }

    fn act(&mut self, body: &Value) -> Response {
        let action = body["action"].as_str().unwrap_or_default().to_owned();
        let plan = self.plan();
        let named = match self.services_of(&action, body) {
            Ok(named) => named,
            Err(response) => return response,
        };
        let mut error = None;
        for name in named {
            let wanted = plan["services"][&name].clone();
            let service = self.services.entry(name).or_default();
            if action == "stop" {
                service.active = false;
                continue;
            }
            if service.active
                && action != "restart"
                && (action != "replan" || service.started == wanted)
            {
                continue;
            }
            if let Some(text) = &self.start_error {
                error = Some(text.clone());
                service.active = false;
                continue;
            }
            let command = wanted["command"].as_str().unwrap_or_default();
            let program = command.split_whitespace().next().unwrap_or_default();
            if !self
                .files
                .get(program)
                .is_some_and(|file| !file.folder && file.mode.contains('7'))
            {
                error = Some(format!(
                    "cannot start service: fork/exec {program}: no such file or directory"
                ));
                service.active = false;
                continue;
            }
            *service = Service {
                active: true,
                backoff: false,
                started: wanted,
            };
        }
        started(self.change(&action, error), &Value::Null)
    }
}

pub(super) fn failed(code: u16, message: &str) -> Response {
    let result = json!({"message": message});
    Response::json(
        code,
        &json!({
            "type": "error",
            "status-code": code,
            "status": http::reason(code),
            "result": result,
        }),
    )
}

pub(super) fn fine(result: &Value) -> Response {
    Response::json(
        200,
        &json!({"type": "sync", "status-code": 200, "status": "OK", "result": result}),
    )
}

pub(super) fn started(change: u64, result: &Value) -> Response {
    Response::json(
        202,
        &json!({
            "type": "async", "status-code": 202, "status": "Accepted",
            "change": change.to_string(), "result": result,
        }),
    )
}

/// The body of a request, for people to read: instead of a layer's text its digest, because the
/// plan shows the text.
pub(super) fn shown(body: &Value) -> String {
    let mut body = body.clone();
    if body["layer"].is_string() {
        body["layer"] = json!("…");
    }
    body.to_string()
}

/// A request on one line, for people to read.
fn request_line(request: &Request) -> String {
    let query: Vec<String> = request
        .query
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    let mut line = format!("{} {}", request.method, request.path);
    if !query.is_empty() {
        line += &format!("?{}", query.join("&"));
    }
    if request.path != "/v1/files" && !request.body.is_empty() {
        let body: Value = serde_json::from_slice(&request.body).unwrap_or(json!("not JSON"));
        line += &format!(" {}", shown(&body));
    }
    line
}
