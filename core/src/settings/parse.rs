//! Single values: text → addresses, sizes, durations and names.
//! Each error is the end of a sentence that begins with the setting and its value. Settings whose
//! text is a small language are in `grammar`; whether several values fit together is for `config`.

use crate::table::place::check_bucket;
use crate::values::time::{format_duration_ms, parse_duration_ms};
use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// A host and a port: `kafka-0.kafka:9092`, `10.1.2.3:9092` or `[fd00::1]:9092`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// A DNS name or an address; an IPv6 address is without its brackets.
    pub host: String,
    /// From 1 on.
    pub port: u16,
}

impl HostPort {
    /// Reads `HOST:PORT`, or `HOST` alone where there is a default port; `None` for other text.
    #[must_use]
    pub fn parse(text: &str, default_port: Option<u16>) -> Option<Self> {
        let (host, port) = split_host_port(text);
        let port = match port {
            Some(port) => port.parse().ok().filter(|port| *port != 0)?,
            None => default_port?,
        };
        let named = |host: &str| {
            (1..=255).contains(&host.len())
                && host
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
        };
        let host = match in_brackets(host) {
            Some(address) => address.parse::<Ipv6Addr>().ok().map(|_| address)?,
            None => Some(host).filter(|host| named(host))?,
        };
        Some(Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl FromStr for HostPort {
    type Err = String;

    /// Reads `HOST:PORT`.
    ///
    /// # Errors
    /// What is allowed, as the end of a sentence.
    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(text, None).ok_or_else(|| "it is not HOST:PORT".to_owned())
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') {
            write!(f, "[{host}]:{port}")
        } else {
            write!(f, "{host}:{port}")
        }
    }
}

/// Several addresses as librdkafka and databags have them: `a:9092,b:9092`.
#[must_use]
pub fn join_addresses(addresses: &[HostPort]) -> String {
    let all: Vec<String> = addresses.iter().map(HostPort::to_string).collect();
    all.join(",")
}

/// Divides `HOST:PORT` where it is divided, and checks neither part: `[::1]:80` → `[::1]` and `80`;
/// `[::1]` and `localhost` have no port.
#[must_use]
pub fn split_host_port(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    }
}

/// The address of `[::1]`, which is `::1`; `None` for a host without brackets.
pub(crate) fn in_brackets(host: &str) -> Option<&str> {
    host.strip_prefix('[')?.strip_suffix(']')
}

/// Servers with commas between.
pub(super) fn parse_addresses(text: &str) -> Result<Vec<HostPort>, String> {
    text.split(',')
        .map(str::trim)
        .map(|server| {
            HostPort::parse(server, None).ok_or_else(|| {
                format!(
                    "{} is not a server; write HOST:PORT, several with commas between",
                    quote(server).trim()
                )
            })
        })
        .collect()
}

/// The value of a setting in quotes, as [`quote`] has it. The URL of a server is left out, because
/// wherever it is wrong may be a password: `postgresql://db:hunter2/hive`.
pub(super) fn quote_setting(key: &str, text: &str) -> String {
    if matches!(key, "catalog" | "s3.endpoint") && text.contains('/') {
        return String::new();
    }
    quote(text)
}

/// A value in quotes, with a blank before it. A long value is cut, and one that may hold a password
/// is left out: one with a user (`me:hunter2@db`) or with parameters (`db?password=hunter2`).
fn quote(text: &str) -> String {
    if text.contains(['@', '?']) {
        return String::new();
    }
    let cut: String = text.chars().take(100).collect();
    let dots = if cut.len() < text.len() { "…" } else { "" };
    format!(" \"{}{dots}\"", cut.escape_debug())
}

/// Kafka's rule for topic names (`org.apache.kafka.common.internals.Topic`).
pub(super) fn parse_topic(text: &str) -> Result<String, String> {
    let legal = text
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if legal && (1..=249).contains(&text.len()) && text != "." && text != ".." {
        return Ok(text.to_owned());
    }
    Err("not a topic's name; write 1 to 249 of a-z, A-Z, 0-9, \".\", \"_\" and \"-\"".to_owned())
}

/// The beginning of a group's name. Kafka takes any text; blanks are most likely a mistake.
pub(super) fn parse_group_prefix(text: &str) -> Result<String, String> {
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err("blanks are not allowed in a group's name; write relation-4-".to_owned());
    }
    Ok(text.to_owned())
}

/// A name in Hive's catalog that needs no quoting anywhere.
pub(super) fn parse_name(text: &str) -> Result<String, String> {
    let is_right = |text: &str| {
        (1..=100).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
            && !text.bytes().all(|b| b.is_ascii_digit())
    };
    if is_right(text) {
        return Ok(text.to_owned());
    }
    let better: String = text
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .take(100)
        .collect();
    let such = if is_right(&better) {
        format!(" such as {better}")
    } else {
        String::new()
    };
    Err(format!(
        "not a name; write 1 to 100 of a-z, 0-9 and \"_\"{such}"
    ))
}

/// A table's name, from which the names of its side tables are made.
pub(super) fn parse_table_name(text: &str) -> Result<String, String> {
    for taken in ["__chunks", "__late", "__rejects"] {
        if text.ends_with(taken) {
            return Err(format!(
                "names that end in {taken} are windrow's own; write another name"
            ));
        }
    }
    parse_name(text)
}

/// A word that other programs' names are made of: `example` is one that is right.
pub(super) fn parse_label(text: &str, example: &str) -> Result<String, String> {
    parse_matching(text, example, is_label)
}

/// Labels with dots between: the domain `cluster.local`.
pub(super) fn parse_domain(text: &str, example: &str) -> Result<String, String> {
    parse_matching(text, example, |text| text.split('.').all(is_label))
}

/// The name of a process, which people read: visible ASCII without blanks.
pub(super) fn parse_instance(text: &str) -> Result<String, String> {
    parse_matching(text, "spark/windrow/0", |text| {
        (1..=200).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
    })
}

fn parse_matching(
    text: &str,
    example: &str,
    is_right: impl Fn(&str) -> bool,
) -> Result<String, String> {
    if is_right(text) {
        Ok(text.to_owned())
    } else {
        Err(format!("not a valid name; write one such as {example}"))
    }
}

/// A label of a DNS name (RFC 1123).
fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// A duration in milliseconds that is not shorter than `min_ms`, or a word that means none.
pub(super) fn parse_duration_or(
    text: &str,
    word: &str,
    min_ms: u64,
) -> Result<Option<u64>, String> {
    // YAML 1.1 takes the word off for false, so a file may come to us with that.
    if text == word || (word == "off" && text == "false") {
        return Ok(None);
    }
    match parse_duration_ms(text) {
        Ok(ms) if ms < min_ms => {
            let min = format_duration_ms(min_ms);
            Err(format!("too short; write {word} or at least {min}"))
        }
        Ok(ms) => Ok(Some(ms)),
        Err(why) => Err(format!("{why}, or {word}")),
    }
}

const SIZES: [(&str, u64); 4] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

/// Reads `64KiB`, `1MiB`, `1GiB` or plain bytes.
///
/// # Errors
/// The reason and what is allowed, as the end of a sentence.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let hint = "write 65536, 64KiB, 1MiB or 1GiB";
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let scale = match unit.trim() {
        "" => 1,
        unit => {
            let known = SIZES.iter().find(|(name, _)| *name == unit);
            known
                .ok_or_else(|| format!("unknown unit \"{unit}\"; {hint}"))?
                .1
        }
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(scale))
        .ok_or_else(|| format!("not a number of bytes; {hint}"))
}

/// The shortest text that [`parse_bytes`] reads back: `64KiB`, `1MiB`, `1`.
#[must_use]
pub fn format_bytes(bytes: u64) -> String {
    let (unit, scale) = SIZES
        .iter()
        .find(|(_, scale)| *scale > 1 && bytes >= *scale && bytes.is_multiple_of(*scale))
        .unwrap_or(&("", 1));
    format!("{}{unit}", bytes / scale)
}

/// An address of S3 without its last slash; `None` for the empty text, which is AWS.
pub(super) fn parse_endpoint(text: &str) -> Result<Option<String>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let address = text.trim_end_matches('/');
    let host = address
        .strip_prefix("http://")
        .or_else(|| address.strip_prefix("https://"));
    let is_host = |host: &str| {
        !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || "/?#@".contains(c))
    };
    if host.is_some_and(is_host) {
        Ok(Some(address.to_owned()))
    } else {
        Err(
            "not an address of S3; write http://HOST:PORT or https://HOST, or nothing for AWS"
                .to_owned(),
        )
    }
}

/// The name of a bucket.
///
/// # Errors
/// Why not, as the end of a sentence, with a name that would do.
pub fn parse_bucket(text: &str) -> Result<String, String> {
    check_bucket(text).map(|()| text.to_owned())
}

/// The region that requests are signed for. Stores other than AWS call theirs what they like, for
/// example `RegionOne` and `eu_west`; it must only fit into the `Authorization` header, where it
/// stands between slashes.
pub(super) fn parse_region(text: &str) -> Result<String, String> {
    parse_matching(text, "us-east-1", |text| {
        (1..=128).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_graphic() && !b"/,=\"\\".contains(&b))
    })
}

/// Takes `postgresql://HOST:5432/DATABASE` apart. What is allowed is not in the errors.
pub(super) fn parse_postgres_url(text: &str) -> Result<(HostPort, String), &'static str> {
    let rest = text
        .strip_prefix("postgresql://")
        .or_else(|| text.strip_prefix("postgres://"))
        .ok_or("not a catalog")?;
    if rest.contains('@') {
        return Err("a user's name and password go into the secrets file");
    }
    if rest.contains('?') {
        return Err("parameters are settings of their own here, such as catalog-tls");
    }
    let (server, database) = rest.split_once('/').unwrap_or((rest, ""));
    match HostPort::parse(server, Some(5432)) {
        Some(server) if !database.is_empty() && !database.contains('/') => {
            Ok((server, database.to_owned()))
        }
        _ => Err("one host, a port and a database are needed"),
    }
}

/// Reads a list that is often made for other programs, and holds what only they understand. A rule
/// that is not understood stays in the list: it matches no host.
///
/// # Errors
/// What is wrong, as the end of a sentence.
pub fn parse_no_proxy(text: &str) -> Result<Vec<String>, String> {
    if text.contains(char::is_control) {
        return Err(
            "it holds control characters; write hosts, domains or networks with commas between"
                .to_owned(),
        );
    }
    let rules = text
        .split(',')
        .map(str::trim)
        .filter(|rule| !rule.is_empty());
    // `*.example` is how others write `.example`.
    Ok(rules
        .map(|rule| {
            rule.strip_prefix('*')
                .filter(|rest| rest.starts_with('.'))
                .unwrap_or(rule)
                .to_owned()
        })
        .collect())
}

/// The URL of an HTTP proxy; without a scheme it is `http://`, as `curl` has it. `None` for any
/// other text. It may hold a password, so no error quotes it.
pub(super) fn parse_proxy(text: &str) -> Option<String> {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (scheme.to_ascii_lowercase(), rest),
        None => ("http".to_owned(), text),
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    let (user, server) = authority.split_once('@').unwrap_or(("", authority));
    // RFC 3986, 3.2.1; anything else in a name or password is written as %XX.
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:%".contains(&b);
    // The default port does not matter here: it only says that a port may be left out.
    let is_right = ["http", "https"].contains(&scheme.as_str())
        && user.bytes().all(plain)
        && HostPort::parse(server, Some(80)).is_some();
    is_right.then(|| format!("{scheme}://{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_and_port_are_taken_apart() {
        for (text, host, port) in [
            ("k:9092", "k", 9092),
            ("kafka-0.kafka_endpoints:1", "kafka-0.kafka_endpoints", 1),
            ("10.1.2.3:65535", "10.1.2.3", 65_535),
            ("[fd00::1]:9092", "fd00::1", 9092),
        ] {
            let read: HostPort = text.parse().unwrap();
            assert_eq!((read.host.as_str(), read.port), (host, port), "{text}");
            assert_eq!(read.to_string(), text);
        }
        for bad in [
            "",
            "k",
            "k:",
            ":9092",
            "k:0",
            "k:65536",
            "k:x",
            "a b:1",
            "a/b:1",
            "me@k:1",
            "a,b:1",
            "[k]:1",
            "[::1]",
            "::1:9092",
            "http://k:80",
        ] {
            assert!(bad.parse::<HostPort>().is_err(), "{bad}");
        }
        for (text, expect) in [("db", "db:5432"), ("[::1]", "[::1]:5432"), ("db:1", "db:1")] {
            let read = HostPort::parse(text, Some(5432)).unwrap();
            assert_eq!(read.to_string(), expect);
        }
        assert_eq!(split_host_port("[::1]:80"), ("[::1]", Some("80")));
        assert_eq!(split_host_port("[::1]"), ("[::1]", None));
        assert_eq!(split_host_port("localhost"), ("localhost", None));
    }

    #[test]
    fn a_store_calls_its_region_what_it_likes() {
        for region in [
            "us-east-1",
            "RegionOne",
            "eu_west",
            "cn.north.1",
            "default",
            "auto",
        ] {
            assert_eq!(parse_region(region), Ok(region.to_owned()));
        }
        for bad in [
            "",
            "eu west",
            "eu/west",
            "a,b",
            "a=b",
            "eu-west-1\n",
            "größe",
        ] {
            assert!(parse_region(bad).is_err(), "{bad:?}");
        }
        assert!(parse_region(&"r".repeat(129)).is_err());
    }

    #[test]
    fn sizes_read_and_print() {
        for (text, bytes) in [
            ("64KiB", 65_536),
            ("1MiB", 1 << 20),
            ("1", 1),
            ("3GiB", 3 << 30),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes));
            assert_eq!(format_bytes(bytes), text);
        }
        assert_eq!(parse_bytes("1024"), Ok(1024));
        assert_eq!(parse_bytes("7B"), Ok(7));
        assert_eq!(parse_bytes("1 KiB"), Ok(1024));
        for bad in ["", "KiB", "1KB", "1.5MiB", "99999999999GiB"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }
}
