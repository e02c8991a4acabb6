//! Files of the container: listed, read, written and removed.

use super::api::{failed, fine, shown};
use super::{File, State};
use crate::http::{Request, Response};
use serde_json::{Value, json};

impl State {
    pub(super) fn read_files(&mut self, request: &Request) -> Response {
        let path = request.asked("path").unwrap_or_default();
        if !path.starts_with('/') {
            return failed(400, &format!("path must be absolute, got {path:?}"));
        }
        match request.asked("action") {
            Some("list") => self.list_files(request, path),
            Some("read") => self.send_files(request),
            _ => failed(400, "invalid action"),
        }
    }

    fn list_files(&self, request: &Request, path: &str) -> Response {
        let absent = format!("stat {path}: no such file or directory");
        let Some(here) = self.files.get(path) else {
            let result = json!({"message": absent, "kind": "not-found"});
            let body = json!({
                "type": "error",
                "status-code": 404,
                "status": "Not Found",
                "result": result,
            });
            return Response::json(404, &body);
        };
        if !here.folder || request.asked("itself").is_some_and(|v| v == "true") {
            return fine(&json!([describe(path, here)]));
        }
        let under = format!("{}/", path.trim_end_matches('/'));
        let all = self.files.iter().filter(|(p, _)| {
            p.strip_prefix(&under)
                .is_some_and(|name| !name.is_empty() && !name.contains('/'))
        });
        let pattern = request.asked("pattern").unwrap_or("*");
        let (head, tail) = pattern.split_once('*').unwrap_or((pattern, ""));
        let all = all.filter(|(p, _)| {
            let name = p.rsplit('/').next().unwrap_or_default();
            name.starts_with(head) && name.ends_with(tail)
        });
        fine(&all.map(|(p, file)| describe(p, file)).collect())
    }

    fn send_files(&self, request: &Request) -> Response {
        let boundary = "01234567890123456789012345678901";
        let mut body = Vec::new();
        let mut results = Vec::new();
        for (_, path) in request.query.iter().filter(|(name, _)| name == "path") {
            let mut result = json!({"path": path});
            match self.files.get(path).filter(|file| !file.folder) {
                Some(file) => {
                    let head = "Content-Disposition: form-data; name=\"files\"; filename=";
                    body.extend(format!("--{boundary}\r\n{head}{path:?}\r\n\r\n").into_bytes());
                    body.extend(&file.bytes);
                    body.extend(b"\r\n");
                }
                None => {
                    let message = format!("open {path}: no such file or directory");
                    result["error"] = json!({"message": message, "kind": "not-found"});
                }
            }
            results.push(result);
        }
        let code = 200;
        let text = json!({"type": "sync", "status-code": code, "status": "OK", "result": results});
        let head =
            "Content-Disposition: form-data; name=\"response\"\r\nContent-Type: application/json";
        body.extend(
            format!("--{boundary}\r\n{head}\r\n\r\n{text}\r\n--{boundary}--\r\n").into_bytes(),
        );
        Response {
            code,
            content_type: format!("multipart/form-data; boundary={boundary}"),
            body,
        }
    }

    pub(super) fn write_files(&mut self, request: &Request, body: &Value) -> Response {
        let kind = request
            .headers
            .get("content-type")
            .cloned()
            .unwrap_or_default();
        let Some(boundary) = kind
            .strip_prefix("multipart/form-data")
            .and_then(|k| k.split_once("boundary="))
        else {
            return self.change_files(body);
        };
        let boundary = boundary.1.trim_matches('"');
        if boundary.len() < 32 {
            return failed(400, &format!("invalid boundary {boundary:?}"));
        }
        let parts = parts(&request.body, boundary);
        let Some((_, first)) = parts
            .first()
            .filter(|(head, _)| head.contains("name=\"request\""))
        else {
            return failed(400, "metadata field name must be \"request\"");
        };
        let Ok(asked) = serde_json::from_slice::<Value>(first) else {
            return failed(400, "cannot decode request metadata");
        };
        if asked["action"] != "write" {
            return failed(400, "multipart action must be \"write\"");
        }
        let mut results = Vec::new();
        for info in asked["files"].as_array().into_iter().flatten() {
            let path = info["path"].as_str().unwrap_or_default().to_owned();
            let head = format!("filename=\"{path}\"");
            let Some((_, bytes)) = parts[1..]
                .iter()
                .find(|(h, _)| h.contains("name=\"files\"") && h.contains(&head))
            else {
                return failed(400, &format!("no file content for {path:?}"));
            };
            let mode = info["permissions"]
                .as_str()
                .filter(|p| !p.is_empty())
                .unwrap_or("644")
                .to_owned();
            let (uid, gid) = (
                info["user-id"].as_u64().unwrap_or(0),
                info["group-id"].as_u64().unwrap_or(0),
            );
            let size = bytes.len();
            self.requests
                .push(format!("  write {path} {mode} {uid}:{gid} {size} bytes"));
            results.push(
                match self.write(&path, bytes, mode, (uid, gid), info["make-dirs"] == true) {
                    Ok(()) => json!({"path": path}),
                    Err((kind, message)) => {
                        json!({"path": path, "error": {"kind": kind, "message": message}})
                    }
                },
            );
        }
        fine(&json!(results))
    }

    fn write(
        &mut self,
        path: &str,
        bytes: &[u8],
        mode: String,
        (uid, gid): (u64, u64),
        make: bool,
    ) -> Result<(), (&'static str, String)> {
        const OTHER: &str = "generic-file-error";
        if !path.starts_with('/') {
            return Err((OTHER, format!("paths must be absolute, got {path:?}")));
        }
        if u32::from_str_radix(&mode, 8).is_err() || mode.len() > 4 {
            return Err((
                OTHER,
                format!("mode must be a 3 or 4-digit octal string, got {mode:?}"),
            ));
        }
        if let Some((_, error)) = self
            .file_errors
            .iter()
            .find(|(begin, _)| path.starts_with(begin.as_str()))
        {
            return Err((OTHER, format!("write {path}: {error}")));
        }
        let parent =
            path.rsplit_once('/').map_or(
                "/",
                |(parent, _)| if parent.is_empty() { "/" } else { parent },
            );
        if make {
            let mut at = String::new();
            for piece in parent.split('/').filter(|p| !p.is_empty()) {
                at += &format!("/{piece}");
                // As Pebble does, the folders belong to the owner of the file.
                self.files.entry(at.clone()).or_insert_with(|| File {
                    uid,
                    gid,
                    ..File::folder()
                });
            }
        } else if !self.files.contains_key(parent) {
            return Err((
                "not-found",
                format!("open {path}: no such file or directory"),
            ));
        }
        let file = File {
            bytes: bytes.to_vec(),
            mode,
            uid,
            gid,
            folder: false,
        };
        self.files.insert(path.to_owned(), file);
        Ok(())
    }

    fn change_files(&mut self, body: &Value) -> Response {
        self.requests.push(format!("  {}", shown(body)));
        let mut results = Vec::new();
        match body["action"].as_str() {
            Some("remove") => {
                for asked in body["paths"].as_array().into_iter().flatten() {
                    let path = asked["path"].as_str().unwrap_or_default();
                    let under = format!("{path}/");
                    let inside = self.files.keys().any(|p| p.starts_with(&under));
                    let recursive = asked["recursive"] == true;
                    results.push(if !self.files.contains_key(path) && !recursive {
                        let message = format!("remove {path}: no such file or directory");
                        json!({"path": path, "error": {"kind": "not-found", "message": message}})
                    } else if inside && !recursive {
                        let message = format!("remove {path}: directory not empty");
                        json!({
                            "path": path,
                            "error": {"kind": "generic-file-error", "message": message},
                        })
                    } else {
                        self.files
                            .retain(|p, _| p != path && !p.starts_with(&under));
                        json!({"path": path})
                    });
                }
            }
            Some("make-dirs") => {
                for asked in body["dirs"].as_array().into_iter().flatten() {
                    let path = asked["path"].as_str().unwrap_or_default();
                    self.files
                        .entry(path.to_owned())
                        .or_insert_with(File::folder);
                    results.push(json!({"path": path}));
                }
            }
            _ => return failed(400, "invalid action"),
        }
        fine(&json!(results))
    }
}

/// A file as a listing shows it. Folders have no size.
fn describe(path: &str, file: &File) -> Value {
    let mut about = json!({
        "path": path,
        "name": path.rsplit('/').next(),
        "type": if file.folder { "directory" } else { "file" },
        "permissions": file.mode,
        "last-modified": "2026-01-01T00:00:00Z",
        "user-id": file.uid,
        "user": if file.uid == 0 { "root" } else { "" },
        "group-id": file.gid,
        "group": if file.gid == 0 { "root" } else { "" },
    });
    if !file.folder {
        about["size"] = json!(file.bytes.len());
    }
    about
}

/// The parts of a multipart body: the head and the content of each.
fn parts<'a>(body: &'a [u8], boundary: &str) -> Vec<(String, &'a [u8])> {
    let marker = format!("--{boundary}");
    let mut found = Vec::new();
    let mut at = body;
    while let Some(begin) = find(at, marker.as_bytes()) {
        at = &at[begin + marker.len()..];
        if at.starts_with(b"--") {
            break;
        }
        let Some(head) = find(at, b"\r\n\r\n") else {
            break;
        };
        let content = &at[head + 4..];
        let Some(end) = find(content, format!("\r\n{marker}").as_bytes()) else {
            break;
        };
        found.push((
            String::from_utf8_lossy(&at[..head]).into_owned(),
            &content[..end],
        ));
        at = &content[end..];
    }
    found
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    let first = *what.first()?;
    let mut from = 0;
    while let Some(at) = text.get(from..)?.iter().position(|b| *b == first) {
        if text[from + at..].starts_with(what) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}
