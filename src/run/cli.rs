//! The command line: its verbs and options, the questions to a running windrow, and what is printed
//! of its answers. Files are opened by `io/files.rs`, and `main` carries out the verbs.

use crate::io::cgroup;
use crate::io::verify_http::read_time;
use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use windrow_core::settings::config::{Config, Secret, Secrets};
use windrow_core::settings::parse::{format_bytes, parse_bytes};
use windrow_core::shown::status;
use windrow_core::shown::tables::{
    compaction_plan_table, rows_table, status_table, tables_table, windows_table,
};
use windrow_core::table::hive::TableKind;
use windrow_core::table::place::TablePlace;
use windrow_core::values::time::{EventTime, parse_duration_ms};
use windrow_core::verify::report::Report;

/// The version, and the git revision that it is built from: see `build.rs`.
pub const VERSION: &str = match option_env!("WINDROW_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};

/// The exit code of a verb that has done what it should.
pub const EXIT_FINE: u8 = 0;
/// The exit code of a verb that has failed.
pub const EXIT_FAILED: u8 = 1;
/// The exit code for wrong settings and, as clap has it, for wrong usage.
pub const EXIT_USAGE: u8 = 2;
/// The exit code of `windrow verify` where something differs.
pub const EXIT_DIFFERS: u8 = 3;

// The doc comments from here to `Of` are the program's help texts, without a full stop, as is usual
// there.

/// Counts Kafka records in event-time windows, exactly once, into a Hive table
#[derive(Debug, Parser)]
#[command(
    name = "windrow",
    version = VERSION,
    max_term_width = 110
)]
pub struct Cli {
    /// The settings file [default: /etc/windrow/windrow.yaml, else ./windrow.yaml]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How answers are printed
    #[arg(long, global = true, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
}

/// How answers are printed
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// As text, for people
    Table,
    /// As JSON, for programs
    Json,
}

#[expect(
    missing_docs,
    reason = "clap would print a comment here in place of the program's own"
)]
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Verb {
    /// Count records until it is told to stop
    Run,
    /// Count made-up records into a local table, and show how that goes
    Demo(Demo),
    /// Show what the running windrow is doing, and its topic partitions
    Status,
    /// Show the tables that it writes
    Tables,
    /// Show the newest rows of the table
    Rows(Rows),
    /// Show the windows that are still open
    Windows,
    /// Stop reading, in all units and also after restarts, until `windrow resume`
    Pause,
    /// Go on after `windrow pause`
    Resume,
    /// Merge the files of the table now, as far as its windows are closed, and wait for that
    Compact(Compact),
    /// Check the settings and the secrets, and show what they mean
    CheckConfig,
    /// Create Hive's schema in the catalog's database, if that is empty
    InitMetastore,
    /// Compare the table with its topic, its files, its journal and Hive; exit code 3: they differ
    Verify(Verify),
    /// Write the table's entries in Hive again, where somebody dropped or altered them
    Restore(Restore),
    /// Take over the table of a Spark Structured Streaming job that was stopped
    Adopt(Adopt),
    /// Add a notice to Pebble, which wakes the charm, if windrow's state has changed since the last
    /// notice
    Notify,
}

/// The options of `windrow restore`
#[derive(Args, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restore {
    /// Write windrow's own journal again first, from the manifests in the store; only where the
    /// journal has no epoch of the table
    #[arg(long)]
    pub from_manifests: bool,
}

/// The options of `windrow demo`
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Demo {
    /// How long it sends records, such as 10s or 2m
    #[arg(
        long = "for",
        value_name = "TIME",
        value_parser = parse_duration_ms,
        default_value = "30s"
    )]
    pub for_ms: u64,
    /// How many records it sends each second
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000),
        default_value_t = 1000
    )]
    pub rate: u32,
    /// How many origins the records come from
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000),
        default_value_t = 5
    )]
    pub origins: u32,
}

/// The options of `windrow compact`
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Compact {
    /// Only show what would be merged and dropped
    #[arg(long)]
    pub dry_run: bool,
}

/// The options of `windrow adopt`
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Adopt {
    /// The directory of the job's checkpoint, such as s3a://spark/checkpoints/newtable
    #[arg(long, value_name = "DIRECTORY")]
    pub checkpoint: String,
    /// The directory of the job's table [default: where Hive has it]
    #[arg(long, value_name = "DIRECTORY")]
    pub table_dir: Option<String>,
    /// Say what would be done, and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// The options of `windrow verify`
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct Verify {
    /// Count only windows again that start at this time or later, such as 2026-11-27T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub from: Option<EventTime>,
    /// Count only windows again that start before this time
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub to: Option<EventTime>,
    /// Read every byte of every file, not only those of windows that are counted again
    #[arg(long)]
    pub deep: bool,
    /// Read at most so many bytes a second, such as 8MiB
    #[arg(long, value_name = "BYTES", value_parser = parse_rate)]
    pub rate: Option<u64>,
}

/// A time in UTC, or the beginning of a day.
fn parse_time(text: &str) -> Result<EventTime, String> {
    read_time(text).ok_or_else(|| "write a time such as 2026-11-27T12:00:00Z, or a day".to_owned())
}

fn parse_rate(text: &str) -> Result<u64, String> {
    match parse_bytes(text)? {
        0 => Err("it must be more than zero".to_owned()),
        bytes => Ok(bytes),
    }
}

/// The options of `windrow rows`
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Rows {
    /// How many rows to show at most
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=1000),
        default_value_t = 20
    )]
    pub limit: u32,
    /// Which rows to show
    #[arg(long, value_enum, default_value_t = Of::Rows)]
    pub of: Of,
}

/// Which rows are shown
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Of {
    /// Those of the table itself
    Rows,
    /// Records that came too late
    Late,
    /// Records that could not be counted
    Rejects,
}

impl Of {
    /// The Hive table that holds these rows.
    #[must_use]
    pub fn kind(self) -> TableKind {
        match self {
            Of::Rows => TableKind::Chunks,
            Of::Late => TableKind::Late,
            Of::Rejects => TableKind::Rejects,
        }
    }
}

/// Why a question to the running windrow was not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// Nobody listens there, or nobody answered in time: look into the catalog instead.
    #[error("{0}")]
    NotRunning(String),
    /// It has answered, and says why it does not do what it was asked. Do not look elsewhere.
    #[error("{0}")]
    Refused(String),
}

/// What a verb asks over HTTP, as method and path; `None` for verbs that ask nobody.
///
/// # Errors
/// The verb is `rows`, and there is no table, because it is console mode.
pub fn question(verb: &Verb, config: &Config) -> Result<Option<(&'static str, String)>, AskError> {
    let question = match verb {
        Verb::Status => ("GET", "/v1/status".to_owned()),
        Verb::Tables => ("GET", "/v1/tables".to_owned()),
        Verb::Windows => ("GET", "/v1/windows".to_owned()),
        Verb::Pause => ("POST", "/v1/pause".to_owned()),
        Verb::Resume => ("POST", "/v1/resume".to_owned()),
        Verb::Rows(Rows { limit, of }) => {
            let side = if *of == Of::Rows {
                ""
            } else {
                of.kind().suffix()
            };
            let name = config.table_name().ok_or_else(|| {
                AskError::Refused(
                    "cannot show rows: console mode keeps none; set table.name".to_owned(),
                )
            })?;
            ("GET", format!("/v1/tables/{name}{side}/rows?limit={limit}"))
        }
        Verb::Run
        | Verb::Demo(_)
        | Verb::CheckConfig
        | Verb::InitMetastore
        | Verb::Verify(_)
        | Verb::Restore(_)
        | Verb::Compact(_)
        | Verb::Adopt(_)
        | Verb::Notify => {
            return Ok(None);
        }
    };
    Ok(Some(question))
}

/// Asks the windrow that runs with these settings on this machine. The answer is a JSON map, and
/// its text is kept as it was written, because its numbers may have more digits than a JSON library
/// keeps.
///
/// # Errors
/// See [`AskError`], which says whether to look elsewhere.
pub fn ask(
    config: &Config,
    secrets: &Secrets,
    method: &str,
    path: &str,
) -> Result<Box<RawValue>, AskError> {
    ask_at(
        loopback(config.http),
        secrets.api_token.as_ref(),
        method,
        path,
    )
}

/// The address at which one asks on the machine itself: `0.0.0.0:8080` becomes `127.0.0.1:8080`.
#[must_use]
pub fn loopback(http: SocketAddr) -> SocketAddr {
    let ip = match http.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    SocketAddr::new(ip, http.port())
}

fn ask_at(
    address: SocketAddr,
    token: Option<&Secret>,
    method: &str,
    path: &str,
) -> Result<Box<RawValue>, AskError> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        // A proxy would see the token, and its loopback is not ours.
        .proxy(None)
        .max_redirects(0)
        .http_status_as_error(false)
        .timeout_connect(Some(Duration::from_secs(2)))
        .timeout_global(Some(Duration::from_secs(15)))
        .build()
        .into();
    let url = format!("http://{address}{path}");
    let bearer = token.map(|token| format!("Bearer {}", token.expose()));
    let sent = match (method, bearer) {
        ("POST", Some(bearer)) => agent
            .post(url)
            .header("Authorization", bearer)
            .content_type("application/json")
            .send("{}"),
        ("POST", None) => agent.post(url).content_type("application/json").send("{}"),
        (_, Some(bearer)) => agent.get(url).header("Authorization", bearer).call(),
        (_, None) => agent.get(url).call(),
    };
    let stranger = |what: &str| {
        AskError::Refused(format!(
            "cannot ask windrow at {address}: {what}; \
             another program may have the port, see the setting http"
        ))
    };
    let mut response = sent.map_err(|error| match error {
        ureq::Error::Io(_) | ureq::Error::Timeout(_) | ureq::Error::ConnectionFailed => {
            AskError::NotRunning(format!(
                "cannot ask windrow at {address}: {error}; \
                 start it with \"windrow run\", or see the setting http"
            ))
        }
        // These errors name the fault, and hold neither a header nor a body.
        other => stranger(&other.to_string()),
    })?;
    let code = response.status();
    let body: Box<RawValue> = response
        .body_mut()
        .with_config()
        .limit(64 << 20)
        .read_json()
        .map_err(|_| {
            let code = code.as_u16();
            stranger(&format!("the answer, with code {code}, is not JSON"))
        })?;
    if code.is_success() && body.get().starts_with('{') {
        return Ok(body);
    }
    match value(&body)["error"].as_str() {
        Some(error) => Err(AskError::Refused(format!(
            "windrow at {address} refuses: {error}"
        ))),
        None => Err(stranger(&format!("the answer has code {}", code.as_u16()))),
    }
}

/// What is printed of an answer, with the end of the last line. The answer comes from [`ask`], or
/// was made from the catalog in the same form by [`raw`].
///
/// # Errors
/// The answer does not belong to this verb.
pub fn render(verb: &Verb, answer: &RawValue, output: Output) -> Result<String, serde_json::Error> {
    if output == Output::Json {
        return Ok(answer.get().to_owned() + "\n");
    }
    Ok(match verb {
        Verb::Status => status_table(&value(answer)),
        Verb::Tables => tables_table(&value(answer)),
        Verb::Windows => windows_table(&value(answer)) + &more(&value(answer)),
        Verb::Rows(_) => {
            let rows: status::Rows = serde_json::from_str(answer.get())?;
            if rows.count == 0 {
                return Ok(format!("table {} has no rows yet\n", rows.table));
            }
            rows_table(&rows)? + &shown(rows.count, rows.truncated)
        }
        Verb::Pause => "paused, until: windrow resume\n".to_owned(),
        Verb::Resume => "resumed\n".to_owned(),
        Verb::Compact(compact) if compact.dry_run => compaction_plan_table(&value(answer)),
        Verb::Compact(_) => compacted_text(&value(answer)),
        Verb::CheckConfig => checked_text(&value(answer)),
        Verb::Verify(_) => serde_json::from_str::<Report>(answer.get())?.text(),
        Verb::Run
        | Verb::Demo(_)
        | Verb::InitMetastore
        | Verb::Restore(_)
        | Verb::Adopt(_)
        | Verb::Notify => String::new(),
    })
}

/// A value as an answer.
///
/// # Panics
/// When the value cannot be JSON, such as a map whose keys are not texts.
#[must_use]
pub fn raw(answer: &impl Serialize) -> Box<RawValue> {
    to_raw_value(answer).expect("answers are JSON")
}

fn value(answer: &RawValue) -> Value {
    // In spite of its type, an answer may be unreadable: a number may be out of range, or the maps
    // too deep.
    serde_json::from_str(answer.get()).unwrap_or_default()
}

fn compacted_text(answer: &Value) -> String {
    let number = |key: &str| answer[key].as_u64().unwrap_or_default();
    let done = match number("merges") {
        0 => "nothing is to be merged now".to_owned(),
        1 => "made 1 merge".to_owned(),
        n => format!("made {n} merges"),
    };
    let left_out = match number("left-out-files") {
        0 => String::new(),
        n => format!("; {n} files cannot be merged, and windrow's log says why"),
    };
    let table = answer["table"].as_str().unwrap_or_default();
    let files = number("files");
    format!("{done}; table {table} has {files} files{left_out}\n")
}

fn more(answer: &Value) -> String {
    let count = answer["count"]
        .as_u64()
        .and_then(|n| usize::try_from(n).ok());
    count.map_or_else(String::new, |n| {
        shown(n, answer["truncated"] == json!(true))
    })
}

fn shown(count: usize, truncated: bool) -> String {
    format!(
        "{count} shown{}\n",
        if truncated {
            ", and there are more"
        } else {
            ""
        }
    )
}

/// What the settings mean: the answer of `windrow check-config`.
#[must_use]
pub fn checked(config: &Config) -> Box<RawValue> {
    let shape = &config.shape;
    let names = shape
        .group_by
        .iter()
        .map(|c| &c.name)
        .chain(shape.aggregates.iter().map(|a| &a.name));
    let columns: Vec<&str> = std::iter::once("window")
        .chain(names.map(String::as_str))
        .collect();
    let (warehouse, bucket) = match config.table.as_ref().map(|table| &table.place) {
        Some(TablePlace::InBucket(bucket)) => (None, Some(bucket.as_str())),
        Some(TablePlace::At(place)) => (Some(place.to_string()), place.bucket()),
        None => (None, None),
    };
    raw(&json!({
        "topic": shape.topic,
        "table": config.table_name(),
        "warehouse": warehouse,
        "bucket": bucket,
        "group": config.group(),
        "columns": columns,
        "http": config.http,
        "max-memory": format_bytes(config.max_memory_bytes(cgroup::memory_limit())),
    }))
}

fn checked_text(answer: &Value) -> String {
    let text = |key: &str| answer[key].as_str().unwrap_or("the console").to_owned();
    let columns: Vec<&str> = answer["columns"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    format!(
        "settings are fine: topic {} is counted into {}\ncolumns: {}\nconsumer group: {}\n\
         memory for counting: {}\n",
        text("topic"),
        text("table"),
        columns.join(", "),
        text("group"),
        text("max-memory")
    )
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "a thread plays the running windrow"
)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    fn config() -> Config {
        Config::parse(
            "kafka: { bootstrap: 'k:9092', topic: t }\ntable: { name: newtable }\ncatalog: \
             local:/data\nmax-memory: 256MiB",
        )
        .unwrap()
    }

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    /// Answers one request, and gives what was asked.
    fn server(answer: &'static str) -> (SocketAddr, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.windows(4).any(|w| w == b"\r\n\r\n") {
                let mut buffer = [0; 1024];
                let n = stream.read(&mut buffer).unwrap();
                request.extend_from_slice(&buffer[..n]);
            }
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8(request).unwrap()
        });
        (address, asked)
    }

    /// Of each option, what its help names as an example or as the default is taken.
    #[test]
    fn help_texts_say_what_the_options_take() {
        let help = |verb: &str| {
            parse(&format!("windrow {verb} --help"))
                .unwrap_err()
                .to_string()
        };
        let demo = help("demo");
        assert!(
            demo.contains("--for <TIME>") && !demo.contains("millisecond"),
            "{demo}"
        );
        for (verb, option, values) in [
            ("demo", "--for", vec!["10s", "2m", "30s"]),
            ("demo", "--rate", vec!["1000"]),
            ("demo", "--origins", vec!["5"]),
            ("rows", "--limit", vec!["20"]),
            ("rows", "--of", vec!["rows", "late", "rejects"]),
            ("status", "--output", vec!["table", "json"]),
        ] {
            let text = help(verb);
            for value in values {
                assert!(text.contains(value), "{verb} {option}: {text}");
                parse(&format!("windrow {verb} {option} {value}")).expect(value);
            }
        }
    }

    #[test]
    fn the_definitions_hold() {
        Cli::command().debug_assert();
        assert_eq!(
            parse("windrow --nonsense").unwrap_err().exit_code(),
            i32::from(EXIT_USAGE)
        );
        assert_eq!(
            parse("windrow").unwrap_err().exit_code(),
            i32::from(EXIT_USAGE)
        );
        assert_eq!(
            parse("windrow --version").unwrap_err().exit_code(),
            i32::from(EXIT_FINE)
        );
        let version = parse("windrow --version").unwrap_err().to_string();
        let number = format!("windrow {}", env!("CARGO_PKG_VERSION"));
        assert!(version.starts_with(&number), "{version}");
    }

    #[test]
    fn flags_are_read_before_and_after_the_verb() {
        let cli = parse("windrow --config a.yaml status --output json").unwrap();
        assert_eq!(
            (cli.config, cli.output, cli.verb),
            (Some(PathBuf::from("a.yaml")), Output::Json, Verb::Status)
        );
        let cli = parse("windrow demo --for 2m --rate 50 --origins 3").unwrap();
        assert_eq!(
            cli.verb,
            Verb::Demo(Demo {
                for_ms: 120_000,
                rate: 50,
                origins: 3
            })
        );
        let error = parse("windrow demo --for 10").unwrap_err().to_string();
        assert!(error.contains("no unit; write 500ms, 10s or 5m"), "{error}");
        assert!(parse("windrow rows --limit 0").is_err());
        let cli = parse("windrow rows --of late").unwrap();
        assert_eq!(
            cli.verb,
            Verb::Rows(Rows {
                limit: 20,
                of: Of::Late
            })
        );
        assert!(parse("windrow rows --of chunks").is_err());
    }

    #[test]
    fn verbs_ask_their_path() {
        let path = |verb: Verb| question(&verb, &config()).unwrap();
        assert_eq!(
            path(Verb::Rows(Rows {
                limit: 5,
                of: Of::Rows
            })),
            Some(("GET", "/v1/tables/default.newtable/rows?limit=5".to_owned()))
        );
        assert_eq!(
            path(Verb::Rows(Rows {
                limit: 5,
                of: Of::Rejects
            })),
            Some((
                "GET",
                "/v1/tables/default.newtable__rejects/rows?limit=5".to_owned()
            ))
        );
        assert_eq!(path(Verb::Pause), Some(("POST", "/v1/pause".to_owned())));
        assert_eq!(path(Verb::Run), None);
        let console = Config::parse("kafka: { bootstrap: 'k:9092', topic: t }").unwrap();
        assert!(
            question(
                &Verb::Rows(Rows {
                    limit: 5,
                    of: Of::Rows
                }),
                &console
            )
            .is_err()
        );
    }

    #[test]
    fn a_table_without_rows_is_told_in_a_sentence() {
        let answer: Box<RawValue> = serde_json::from_str(
            r#"{"table":"default.t","columns":[],"rows":[],"count":0,"truncated":false}"#,
        )
        .unwrap();
        let rows = Verb::Rows(Rows {
            limit: 5,
            of: Of::Rows,
        });
        assert_eq!(
            render(&rows, &answer, Output::Table).unwrap(),
            "table default.t has no rows yet\n"
        );
        assert!(
            render(&rows, &answer, Output::Json)
                .unwrap()
                .starts_with('{')
        );
    }

    #[test]
    fn an_unspecified_address_is_asked_on_loopback() {
        for (http, expect) in [
            ("0.0.0.0:8080", "127.0.0.1:8080"),
            ("[::]:1", "[::1]:1"),
            ("10.0.0.1:2", "10.0.0.1:2"),
        ] {
            assert_eq!(loopback(http.parse().unwrap()), expect.parse().unwrap());
        }
    }

    #[test]
    fn a_windrow_that_does_not_run_is_told_from_one_that_refuses() {
        let free = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        assert!(matches!(
            ask_at(free, None, "GET", "/v1/status"),
            Err(AskError::NotRunning(_))
        ));

        let (address, _) = server(
            "HTTP/1.1 409 Conflict\r\nContent-Length: 23\r\n\r\n{\"error\":\"not the owner\"",
        );
        let error = ask_at(address, None, "POST", "/v1/pause");
        assert!(
            matches!(error, Err(AskError::Refused(_))),
            "a cut answer is no reason to look elsewhere: {error:?}"
        );

        let (address, _) = server(
            "HTTP/1.1 409 Conflict\r\nContent-Length: 25\r\n\r\n{\"error\":\"not the owner\"}",
        );
        let error = ask_at(address, None, "POST", "/v1/pause")
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            format!("windrow at {address} refuses: not the owner")
        );

        let (address, _) = server("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
        let error = ask_at(address, None, "GET", "/v1/status")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("another program may have the port"),
            "{error}"
        );
    }

    #[test]
    fn the_token_goes_with_the_question() {
        let (address, asked) =
            server("HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{\"paused\":true}");
        let answer = ask_at(address, Some(&Secret::new("t0ken")), "POST", "/v1/pause").unwrap();
        assert_eq!(answer.get(), r#"{"paused":true}"#);
        let asked = asked.join().unwrap().to_lowercase();
        assert!(asked.starts_with("post /v1/pause http/1.1\r\n"), "{asked}");
        assert!(
            asked.contains("authorization: bearer t0ken\r\n")
                && asked.contains("content-type: application/json\r\n"),
            "{asked}"
        );
    }

    #[test]
    fn answers_print_as_tables_or_json() {
        let window = json!({
            "start": "2024-09-01T19:42:15Z",
            "end": "2024-09-01T19:42:25Z",
            "keys": 1,
            "count": 2,
        });
        let answer = json!({"windows": [window], "count": 1, "truncated": true});
        let answer = raw(&answer);
        let out = render(&Verb::Windows, &answer, Output::Table).unwrap();
        assert!(
            out.contains("| 2024-09-01T19:42:15Z  |")
                && out.ends_with("1 shown, and there are more\n"),
            "{out}"
        );
        assert_eq!(
            render(&Verb::Windows, &answer, Output::Json)
                .unwrap()
                .trim_end(),
            answer.get()
        );
        let rows = raw(&windrow_core::shown::example::rows(
            &["a", "b"],
            r#"[{"a":"x","b":0.10}]"#,
        ));
        let out = render(
            &Verb::Rows(Rows {
                limit: 1,
                of: Of::Rows,
            }),
            &rows,
            Output::Table,
        )
        .unwrap();
        assert!(
            out.contains("| x  | 0.10  |") && out.ends_with("1 shown, and there are more\n"),
            "{out}"
        );
        let out = render(&Verb::CheckConfig, &checked(&config()), Output::Table).unwrap();
        assert_eq!(
            out,
            "settings are fine: topic t is counted into default.newtable\ncolumns: window, \
             origin, count\nconsumer group: windrow-default.newtable\nmemory for counting: 256MiB\n"
        );
    }
}
