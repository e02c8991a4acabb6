//! The server's side of HTTP/1.1, as much of it as the stand-ins need: keep-alive, lengths, chunks.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};

pub struct Request {
    pub method: String,
    pub path: String,
    /// In their order; a name may occur more than once.
    pub query: Vec<(String, String)>,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

pub struct Response {
    pub code: u16,
    pub content_type: String,
    pub body: Vec<u8>,
}

impl Request {
    /// The first value of this name in the query.
    pub fn asked(&self, name: &str) -> Option<&str> {
        self.query
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }
}

impl Response {
    pub fn json(code: u16, value: &serde_json::Value) -> Response {
        Response {
            code,
            content_type: "application/json".to_owned(),
            body: value.to_string().into_bytes(),
        }
    }
}

/// Answers the requests of one connection until it closes, or until `answer` takes over the stream
/// (`None`).
pub fn serve(
    stream: impl Read,
    mut out: impl Write,
    mut answer: impl FnMut(&Request, Vec<u8>) -> Option<Response>,
) -> std::io::Result<()> {
    let mut input = BufReader::new(stream);
    while let Some(request) = read(&mut input, &mut out)? {
        let rest = if request.headers.contains_key("upgrade") {
            input.buffer().to_vec()
        } else {
            Vec::new()
        };
        let Some(response) = answer(&request, rest) else {
            return Ok(());
        };
        let mut head = format!("HTTP/1.1 {} {}\r\n", response.code, reason(response.code));
        head += &format!(
            "Content-Type: {}\r\nContent-Length: {}\r\n\r\n",
            response.content_type,
            response.body.len()
        );
        out.write_all(&[head.as_bytes(), &response.body].concat())?;
        out.flush()?;
        if request
            .headers
            .get("connection")
            .is_some_and(|c| c.eq_ignore_ascii_case("close"))
        {
            break;
        }
    }
    Ok(())
}

pub fn reason(code: u16) -> &'static str {
    match code {
        101 => "Switching Protocols",
        200 => "OK",
        202 => "Accepted",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Other",
    }
}

fn read(input: &mut impl BufRead, out: &mut impl Write) -> std::io::Result<Option<Request>> {
    let Some(first) = line(input)? else {
        return Ok(None);
    };
    let mut words = first.split(' ');
    let (method, target) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut request = Request {
        method: method.to_owned(),
        path: unescape(path),
        query: Vec::new(),
        headers: BTreeMap::new(),
        body: Vec::new(),
    };
    for pair in query.split('&').filter(|p| !p.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        request
            .query
            .push((unescape(name), unescape(&value.replace('+', " "))));
    }
    while let Some(text) = line(input)?.filter(|l| !l.is_empty()) {
        let (name, value) = text.split_once(':').unwrap_or((&text, ""));
        request
            .headers
            .insert(name.trim().to_lowercase(), value.trim().to_owned());
    }
    if request
        .headers
        .get("expect")
        .is_some_and(|e| e.eq_ignore_ascii_case("100-continue"))
    {
        out.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    if request
        .headers
        .get("transfer-encoding")
        .is_some_and(|t| t.eq_ignore_ascii_case("chunked"))
    {
        loop {
            let size = line(input)?.unwrap_or_default();
            let size = usize::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16)
                .map_err(|_| std::io::Error::other("not a chunk's size"))?;
            let mut chunk = vec![0; size];
            input.read_exact(&mut chunk)?;
            line(input)?;
            if size == 0 {
                break;
            }
            request.body.extend(chunk);
        }
    } else if let Some(length) = request.headers.get("content-length") {
        let length = length
            .parse()
            .map_err(|_| std::io::Error::other("not a length"))?;
        request.body = vec![0; length];
        input.read_exact(&mut request.body)?;
    }
    Ok(Some(request))
}

/// The next line, without its line break; `None` when the other side has closed the connection.
fn line(input: &mut impl BufRead) -> std::io::Result<Option<String>> {
    let mut bytes = Vec::new();
    if input.read_until(b'\n', &mut bytes)? == 0 {
        return Ok(None);
    }
    Ok(Some(
        String::from_utf8_lossy(&bytes)
            .trim_end_matches(['\r', '\n'])
            .to_owned(),
    ))
}

fn unescape(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = after
            .get(..2)
            .and_then(|h| u8::from_str_radix(std::str::from_utf8(h).ok()?, 16).ok());
        match (first, code) {
            (b'%', Some(code)) => {
                bytes.push(code);
                rest = &after[2..];
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
