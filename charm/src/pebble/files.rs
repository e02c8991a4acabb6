//! Files in the container: read, listed, written and removed through Pebble.
//!
//! Contents travel as multipart forms (RFC 7578), in both directions.

use super::wire::{
    ANSWER, ErrorAnswer, Pebble, PebbleError, READ_MAX_BYTES, Result, Upload, escaped,
    parse_result, request,
};
use hyper::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// How long a push may stand still. Its end may have to wait for the disk.
const PUSH_STALL: Duration = Duration::from_secs(60);

/// A file to be written; its folders are made where needed. It replaces an older file in one step.
#[derive(Clone, Debug)]
pub struct FileWrite {
    /// An absolute path in the container.
    pub path: String,
    /// What the file will hold.
    pub content: Content,
    /// The permissions, such as `0o600`.
    pub mode: u32,
    /// The owner. Give `uid` and `gid` together or not at all: without them the file belongs to the
    /// user that Pebble runs as.
    pub uid: Option<u32>,
    /// The owner's group; see `uid`.
    pub gid: Option<u32>,
}

/// The contents of files, by path.
pub type Files = BTreeMap<String, Vec<u8>>;

/// What goes into a file.
#[derive(Clone)]
pub enum Content {
    /// These bytes, which may be a secret.
    Bytes(Vec<u8>),
    /// The contents of a file on our side, which may be large.
    File(PathBuf),
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // They may be a secret.
            Self::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Every function here fails in the same four ways: `Down` when nobody listens, `Slow` when no
/// answer comes in time, `Refused` when Pebble says no, and `Failed` when it did not work out.
impl Pebble {
    /// The contents of those files that exist, by path. Together they may hold 1 MiB.
    ///
    /// # Errors
    /// As for every function here. A file that does not exist is left out, which is not an error.
    pub fn read_files(&self, paths: &[&str]) -> Result<Files> {
        let what = "read files";
        if paths.is_empty() {
            return Ok(Files::new());
        }
        let query: String = paths
            .iter()
            .map(|path| format!("&path={}", escaped(path)))
            .collect();
        let request = request(Method::GET, &format!("/v1/files?action=read{query}"))
            .header("accept", "multipart/form-data");
        let (head, body) = self.send(what, request, Upload::default(), ANSWER)?;
        let odd = || {
            PebbleError::Failed(format!(
                "cannot {what}: the answer is not the multipart form that was expected"
            ))
        };
        let boundary = head
            .headers
            .get("content-type")
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("multipart/form-data; boundary="))
            .ok_or_else(odd)?;
        let (mut files, results) =
            parse_multipart(&body, boundary.trim_matches('"')).ok_or_else(odd)?;
        let results: Vec<FileResult> = parse_result(what, &results)?;
        for FileResult { path, error } in results {
            let Some(error) = error else { continue };
            files.remove(&path);
            if error.kind != "not-found" {
                return Err(PebbleError::Failed(format!(
                    "cannot read file \"{path}\": {}",
                    error.message
                )));
            }
        }
        if files.values().map(Vec::len).sum::<usize>() > READ_MAX_BYTES {
            return Err(PebbleError::Failed(format!(
                "cannot {what}: they hold more than {READ_MAX_BYTES} bytes"
            )));
        }
        Ok(files)
    }

    /// The files in a folder: name and size in bytes. Empty when there is no such folder.
    ///
    /// # Errors
    /// As for every function here.
    pub fn list(&self, dir: &str) -> Result<BTreeMap<String, u64>> {
        #[derive(Deserialize)]
        struct Info {
            name: String,
            /// Only files have a size.
            size: Option<u64>,
        }
        let path = format!("/v1/files?action=list&path={}", escaped(dir));
        let infos: Vec<Info> = match self.get(&format!("list folder \"{dir}\""), &path) {
            Err(PebbleError::Refused { kind, .. }) if kind == "not-found" => Vec::new(),
            infos => infos?,
        };
        Ok(infos
            .into_iter()
            .filter_map(|info| Some((info.name, info.size?)))
            .collect())
    }

    /// Writes files one after the other, each in one step.
    ///
    /// # Errors
    /// As for every function here. When one file fails, the others may have been written.
    pub fn write_files(&self, files: &[FileWrite]) -> Result<()> {
        let what = "write files";
        if files.is_empty() {
            return Ok(());
        }
        let boundary = new_boundary();
        let upload = multipart_upload(files, &boundary)?;
        let request = request(Method::POST, "/v1/files").header(
            "content-type",
            format!("multipart/form-data; boundary={boundary}"),
        );
        let (_, body) = self.send(what, request, upload, PUSH_STALL)?;
        check_results("write", &parse_result::<Vec<FileResult>>(what, &body)?)
    }

    /// Removes files.
    ///
    /// # Errors
    /// As for every function here. A file that does not exist is not an error.
    pub fn remove(&self, paths: &[&str]) -> Result<()> {
        if paths.is_empty() {
            return Ok(());
        }
        let paths: Vec<Value> = paths
            .iter()
            .map(|path| json!({"path": path, "recursive": false}))
            .collect();
        let what = "remove files";
        let body = json!({"action": "remove", "paths": paths});
        let answer = self.post(what, "/v1/files", &body)?;
        let mut results: Vec<FileResult> = parse_result(what, &answer)?;
        results.retain(|result| {
            result
                .error
                .as_ref()
                .is_none_or(|error| error.kind != "not-found")
        });
        check_results("remove", &results)
    }
}

/// What became of one file.
#[derive(Deserialize)]
struct FileResult {
    path: String,
    error: Option<ErrorAnswer>,
}

/// One error for all files that failed.
fn check_results(verb: &str, results: &[FileResult]) -> Result<()> {
    let errors: Vec<String> = results
        .iter()
        .filter_map(|result| {
            let error = result.error.as_ref()?;
            Some(format!(
                "cannot {verb} file \"{}\": {}",
                result.path, error.message
            ))
        })
        .collect();
    if errors.is_empty() {
        Ok(())
    } else {
        Err(PebbleError::Failed(errors.join("; ")))
    }
}

/// The form that Pebble expects for a write: a part of JSON, then a part for each file.
fn multipart_upload(files: &[FileWrite], boundary: &str) -> Result<Upload> {
    let about: Vec<Value> = files
        .iter()
        .map(|file| {
            json!({
                "path": file.path,
                "make-dirs": true,
                "permissions": format!("{:03o}", file.mode),
                "user-id": file.uid,
                "group-id": file.gid,
            })
        })
        .collect();
    let mut upload = Upload::default();
    upload.text(format!(
        "--{boundary}\r\n\
         Content-Disposition: form-data; name=\"request\"\r\n\
         Content-Type: application/json\r\n\r\n{}",
        json!({"action": "write", "files": about})
    ));
    for file in files {
        let name = file.path.replace('\\', "\\\\").replace('"', "\\\"");
        upload.text(format!(
            "\r\n--{boundary}\r\n\
             Content-Disposition: form-data; name=\"files\"; filename=\"{name}\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        ));
        match &file.content {
            Content::Bytes(bytes) => upload.bytes(bytes.clone()),
            Content::File(path) => upload.file(path).map_err(|error| {
                PebbleError::Failed(format!("cannot read file \"{}\": {error}", path.display()))
            })?,
        }
    }
    upload.text(format!("\r\n--{boundary}--\r\n"));
    Ok(upload)
}

/// The text between the parts of a push. It cannot be guessed, so no file can hold it and pass for
/// two files. Pebble wants 32 characters or more.
fn new_boundary() -> String {
    use std::hash::{BuildHasher as _, RandomState};
    let random = || RandomState::new().hash_one("boundary");
    format!("windrow-{:016x}{:016x}", random(), random())
}

/// The files of a multipart answer by name, and its JSON part, which says what became of each.
/// `None` when the answer is incomplete or has another form.
fn parse_multipart(body: &[u8], boundary: &str) -> Option<(Files, Vec<u8>)> {
    let (mut files, mut results) = (Files::new(), None);
    let between = format!("\r\n--{boundary}");
    // The first boundary is not preceded by a line break.
    let mut rest = body.strip_prefix(&between.as_bytes()[2..])?;
    while let Some(part) = rest.strip_prefix(b"\r\n") {
        let (head, part) = split_at(part, b"\r\n\r\n")?;
        let (content, after) = split_at(part, between.as_bytes())?;
        rest = after;
        let disposition = std::str::from_utf8(head).ok()?.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-disposition")
                .then(|| value.trim())
        })?;
        match parameter(disposition, "name")?.as_str() {
            "files" => drop(files.insert(parameter(disposition, "filename")?, content.to_vec())),
            "response" => results = Some(content.to_vec()),
            _ => {}
        }
    }
    Some((files, results.filter(|_| rest.starts_with(b"--"))?))
}

/// What comes before `separator`, and what comes after it.
fn split_at<'a>(bytes: &'a [u8], separator: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = bytes
        .windows(separator.len())
        .position(|window| window == separator)?;
    Some((&bytes[..at], &bytes[at + separator.len()..]))
}

/// The value of a header's parameter, such as `name="files"`. A backslash quotes the character
/// after it.
fn parameter(header: &str, name: &str) -> Option<String> {
    let (_, text) = header.split_once(&format!("; {name}=\""))?;
    let mut value = String::new();
    let mut chars = text.chars();
    loop {
        match chars.next()? {
            '"' => return Some(value),
            '\\' => value.push(chars.next()?),
            c => value.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn multipart_answers_are_taken_apart() {
        let body = |inner: &str| {
            format!(
                "--BB\r\n\
                 Content-Disposition: form-data; name=\"files\"; filename=\"/a\\\\\\\"b\"\r\n\
                 Content-Type: x\r\n\r\none\r\n--B\r\n--BB\r\n{inner}"
            )
        };
        let good =
            body("content-disposition: form-data; name=\"response\"\r\n\r\n{}\n\r\n--BB--\r\n");
        let (files, results) = parse_multipart(good.as_bytes(), "BB").unwrap();
        assert_eq!(
            files,
            BTreeMap::from([("/a\\\"b".to_owned(), b"one\r\n--B".to_vec())])
        );
        assert_eq!(results, b"{}\n");
        // An answer without its end does not count.
        for end in 0..good.len() - 4 {
            let cut = &good.as_bytes()[..end];
            assert!(parse_multipart(cut, "BB").is_none(), "{end}");
        }
        for bad in [
            "",
            "\r\n\r\n\r\n--BB--",
            "Content-Disposition: form-data\r\n\r\n\r\n--BB--",
        ] {
            assert!(
                parse_multipart(body(bad).as_bytes(), "BB").is_none(),
                "{bad:?}"
            );
        }
        assert!(parse_multipart(b"", "BB").is_none());
    }

    #[test]
    fn every_boundary_is_new() {
        assert!(new_boundary().len() >= 32 && new_boundary() != new_boundary());
    }
}
