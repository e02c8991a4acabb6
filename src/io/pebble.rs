//! Plain HTTP to two neighbors in the container: windrow itself on loopback, and Pebble behind its
//! unix socket. A look takes a few milliseconds, so there is no client with pools, TLS or threads
//! here.
#![expect(
    clippy::disallowed_methods,
    reason = "Pebble's environment says where its socket is; a notice has an age"
)]

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::env;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use windrow_core::settings::secrets::Secret;
use windrow_core::shown::notice::{DOWN, KEY, News, Notice};
use windrow_core::values::time::parse_rfc3339;

/// How long a neighbor may be silent. Pebble ends the command of a check after three seconds.
const SILENT_MAX: Duration = Duration::from_secs(1);
/// Longer answers are cut off, and then they cannot be read.
const ANSWER_MAX_BYTES: u64 = 1 << 20;

/// Where Pebble listens: at `PEBBLE_SOCKET`; without it, at `.pebble.socket` in the folder
/// `PEBBLE`; without that too, where Juju puts the socket.
#[must_use]
pub fn socket() -> PathBuf {
    match (env::var_os("PEBBLE_SOCKET"), env::var_os("PEBBLE")) {
        (Some(socket), _) if !socket.is_empty() => PathBuf::from(socket),
        (_, Some(folder)) if !folder.is_empty() => Path::new(&folder).join(".pebble.socket"),
        _ => PathBuf::from("/charm/container/pebble.socket"),
    }
}

/// What the windrow at this address says about itself. The state of one that does not answer is
/// [`DOWN`]. Where windrow has an `api-token`, it gives its reason only to those who bring it.
#[must_use]
pub fn look(address: SocketAddr, token: Option<&Secret>) -> News {
    let asked = TcpStream::connect_timeout(&address, SILENT_MAX).and_then(|stream| {
        stream.set_read_timeout(Some(SILENT_MAX))?;
        stream.set_write_timeout(Some(SILENT_MAX))?;
        // Ready or not, the answer says what windrow is doing, in fewer words than `/v1/status`.
        let bearer = token.map(|token| format!("Authorization: Bearer {}\r\n", token.expose()));
        let headers = bearer.unwrap_or_default();
        exchange(stream, &address.to_string(), "GET", "/readyz", &headers, "")
    });
    let down = |why: String| News {
        state: DOWN.to_owned(),
        cause: None,
        reason: format!("cannot ask windrow at {address}: {why}"),
    };
    match asked {
        Ok((_, body)) => match serde_json::from_slice::<News>(&body) {
            Ok(news) if !news.state.is_empty() => news,
            _ => down("another program may have the port".to_owned()),
        },
        Err(error) => down(error.kind().to_string()),
    }
}

/// Pebble behind its socket.
pub struct Pebble {
    socket: PathBuf,
}

/// A notice as Pebble lists it. Older ones have no data.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Listed {
    last_occurred: String,
    #[serde(default)]
    last_data: Option<Notice>,
}

/// What is around each of Pebble's answers.
#[derive(Deserialize)]
struct Answer<T> {
    result: T,
}

#[derive(Deserialize)]
struct Refusal {
    message: String,
}

impl Pebble {
    /// The Pebble that listens on this socket. Nothing is connected yet.
    #[must_use]
    pub fn at(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// The latest notice that we may see, and its age in milliseconds; `None` when there is none.
    ///
    /// # Errors
    /// Pebble is not there, or it refuses.
    pub fn last_notice(&self) -> Result<Option<(Notice, u64)>> {
        let listed: Option<Vec<Listed>> =
            self.ask("GET", &format!("/v1/notices?types=custom&keys={KEY}"), "")?;
        let latest = listed.unwrap_or_default().into_iter();
        let latest = latest
            .map(|l| (parse_rfc3339(&l.last_occurred), l.last_data))
            .max_by_key(|(at, _)| *at);
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_millis();
        // A notice counts as very old when the clock was set back, or when its time cannot be read.
        let age = |ms: i64| {
            u64::try_from(i64::try_from(now).unwrap_or(i64::MAX) - ms).unwrap_or(u64::MAX)
        };
        Ok(latest.map(|(at, data)| {
            (
                data.unwrap_or_default(),
                at.map_or(u64::MAX, |at| age(at.0)),
            )
        }))
    }

    /// Adds a notice. It wakes Juju's agent, if that runs as the same user as windrow does.
    ///
    /// # Errors
    /// As for [`Pebble::last_notice`].
    pub fn add(&self, notice: &Notice) -> Result<()> {
        let body = json!({"action": "add", "type": "custom", "key": KEY, "data": notice});
        self.ask::<serde::de::IgnoredAny>("POST", "/v1/notices", &body.to_string())
            .map(|_| ())
    }

    fn ask<T: DeserializeOwned>(&self, method: &str, path: &str, body: &str) -> Result<T> {
        let stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(SILENT_MAX))?;
        stream.set_write_timeout(Some(SILENT_MAX))?;
        let (code, answer) = exchange(stream, "pebble", method, path, "", body)?;
        if code != 200 {
            let refusal = serde_json::from_slice::<Answer<Refusal>>(&answer);
            let why = refusal.map_or_else(|_| "without a reason".to_owned(), |a| a.result.message);
            return Err(Error::other(format!("Pebble answers {code}: {why}")));
        }
        Ok(serde_json::from_slice::<Answer<T>>(&answer)?.result)
    }
}

/// Sends one request, and gives the code and the body of its answer. Each of `headers` ends in a
/// line end.
fn exchange(
    mut stream: impl Read + Write,
    host: &str,
    method: &str,
    path: &str,
    headers: &str,
    body: &str,
) -> Result<(u16, Vec<u8>)> {
    let typed = if body.is_empty() {
        ""
    } else {
        "Content-Type: application/json\r\n"
    };
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\
         {headers}{typed}Content-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX_BYTES).read_to_end(&mut answer)?;
    parse(&answer).ok_or_else(|| {
        Error::new(
            ErrorKind::InvalidData,
            "the answer is cut off, or it is not HTTP",
        )
    })
}

/// The code and the body of an answer (RFC 9112), which may come in chunks; `None` when it is not
/// complete.
fn parse(answer: &[u8]) -> Option<(u16, Vec<u8>)> {
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let body = &answer[end + 4..];
    let (line, headers) = head.split_once("\r\n").unwrap_or((head, ""));
    let code = line
        .strip_prefix("HTTP/1.")?
        .split(' ')
        .nth(1)?
        .parse()
        .ok()?;
    let header = |name: &str| {
        let named = headers.lines().filter_map(|line| line.split_once(':'));
        named
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
            .next()
    };
    if header("transfer-encoding").is_some_and(|how| how.eq_ignore_ascii_case("chunked")) {
        return Some((code, unchunked(body)?));
    }
    let length = header("content-length").map_or(Some(body.len()), |n| n.parse().ok())?;
    Some((code, body.get(..length)?.to_vec()))
}

fn unchunked(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|w| w == b"\r\n")?;
        let line = std::str::from_utf8(&rest[..end]).ok()?;
        let size = usize::from_str_radix(line.split(';').next()?.trim(), 16).ok()?;
        rest = &rest[end + 2..];
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size.checked_add(2)?..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;
    use std::thread::JoinHandle;
    use windrow_core::values::cause::Cause;

    /// Answers one request after another, and gives what was asked.
    fn answering<S: Read + Write + 'static>(
        mut accept: impl FnMut() -> S + Send + 'static,
        answers: &'static [&'static str],
    ) -> JoinHandle<Vec<String>> {
        std::thread::spawn(move || {
            let one = |answer: &&str| {
                let mut stream = accept();
                let mut asked = Vec::new();
                let whole = |asked: &[u8]| {
                    let text = String::from_utf8_lossy(asked).into_owned();
                    let (head, body) = text.split_once("\r\n\r\n")?;
                    let length: usize = head.rsplit_once("Content-Length: ")?.1.parse().ok()?;
                    (body.len() >= length).then_some(text)
                };
                loop {
                    if let Some(text) = whole(&asked) {
                        stream.write_all(answer.as_bytes()).unwrap();
                        return text;
                    }
                    let mut buffer = [0; 1024];
                    let n = stream.read(&mut buffer).unwrap();
                    assert!(n > 0, "cut off: {}", String::from_utf8_lossy(&asked));
                    asked.extend_from_slice(&buffer[..n]);
                }
            };
            answers.iter().map(one).collect()
        })
    }

    #[test]
    fn answers_are_read_whole_or_not_at_all() {
        let body = |answer: &str| {
            parse(answer.as_bytes()).map(|(_, body)| String::from_utf8(body).unwrap())
        };
        assert_eq!(
            body("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi, more").unwrap(),
            "hi"
        );
        assert_eq!(
            body("HTTP/1.0 200 OK\r\n\r\nto the end").unwrap(),
            "to the end"
        );
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: \
                       chunked\r\n\r\n2\r\nhi\r\nb;x=1\r\n, long text\r\n0\r\n\r\n";
        assert_eq!(body(chunked).unwrap(), "hi, long text");
        for cut in [
            "",
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhi",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nhi",
            "SSH-2.0-x\r\n\r\n",
        ] {
            assert_eq!(body(cut), None, "{cut}");
        }
    }

    #[test]
    fn windrow_says_what_it_is_doing_or_is_down() {
        let free = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let news = look(free, None);
        assert_eq!((news.state.as_str(), news.cause), (DOWN, None));
        assert!(
            news.reason.contains("connection refused"),
            "{}",
            news.reason
        );

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let answers: &[&str] = &[
            "HTTP/1.1 503 Service Unavailable\r\n\r\n\
             {\"state\":\"waiting\",\"cause\":\"login-kafka\",\"reason\":\"refused\"}",
            "HTTP/1.1 503 Service Unavailable\r\nContent-Length: \
             99\r\n\r\n{\"state\":\"waiting\",\"cause\":\"login-kafka\",\"reason\":\"refused\"}",
            "HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nhello",
        ];
        let asked = answering(move || listener.accept().unwrap().0, answers);
        let news = look(address, Some(&Secret::new("t0ken")));
        assert_eq!(
            (news.state.as_str(), news.cause, news.reason.as_str()),
            ("waiting", Some(Cause::LoginKafka), "refused")
        );
        let news = look(address, Some(&Secret::new("t0ken")));
        assert_eq!(news.state, DOWN, "one that is cut: {news:?}");
        assert!(
            look(address, None).reason.contains("another program"),
            "no windrow"
        );
        assert!(asked.join().unwrap()[0].starts_with("GET /readyz HTTP/1.1\r\nHost: 127.0.0.1:"));
    }

    #[test]
    fn notices_are_read_and_added() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".pebble.socket");
        let pebble = Pebble::at(path.clone());
        assert_eq!(
            pebble.last_notice().unwrap_err().kind(),
            ErrorKind::NotFound
        );
        let listener = UnixListener::bind(&path).unwrap();
        let answers: &[&str] = &[
            "HTTP/1.1 200 OK\r\n\r\n{\"type\":\"sync\",\"status-code\":200,\"result\":[]}",
            "HTTP/1.1 200 OK\r\n\r\n\
             {\"result\":[{\"id\":\"1\",\"last-occurred\":\"2024-09-01T19:42:15.123456789Z\",\
             \"last-data\":{\"state\":\"waiting\",\"cause\":\"login-s3\",\"reason\":\"no\",\
             \"credit\":\"60\"}}]}",
            "HTTP/1.1 200 OK\r\n\r\n{\"result\":{\"id\":\"2\"}}",
            "HTTP/1.1 400 Bad Request\r\n\r\n{\"type\":\"error\",\"result\":{\"message\":\"bad \
             key\"}}",
        ];
        let asked = answering(move || listener.accept().unwrap().0, answers);
        assert!(pebble.last_notice().unwrap().is_none());
        let (notice, age_ms) = pebble.last_notice().unwrap().unwrap();
        assert_eq!(
            (notice.news.cause, notice.credit.as_str()),
            (Some(Cause::LoginS3), "60")
        );
        assert!(age_ms > 3_600_000 && age_ms < u64::MAX);
        pebble.add(&notice).unwrap();
        assert_eq!(
            pebble.add(&notice).unwrap_err().to_string(),
            "Pebble answers 400: bad key"
        );
        let asked = asked.join().unwrap();
        assert!(
            asked[0]
                .starts_with("GET /v1/notices?types=custom&keys=windrow.dev/state HTTP/1.1\r\n")
        );
        let body = asked[2].split_once("\r\n\r\n").unwrap().1;
        assert_eq!(
            body,
            "{\"action\":\"add\",\"data\":{\"cause\":\"login-s3\",\"credit\":\"60\",\
             \"reason\":\"no\",\"state\":\"waiting\",\"wait\":\"\"},\
             \"key\":\"windrow.dev/state\",\"type\":\"custom\"}"
        );
    }
}
