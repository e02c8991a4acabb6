//! What the tests with real parts share: names of one's own, the parts' own verbs, windrow as a
//! process, a Spark session. It asserts nothing about windrow; whatever cannot be had is a panic
//! that says what was asked.
#![expect(
    clippy::disallowed_methods,
    reason = "it plays the user: it starts processes, and waits for them by the clock"
)]
#![allow(dead_code, reason = "each test file uses its part of it")]

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord};
use serde_json::{Value, json};
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tempfile::{NamedTempFile, TempDir};
use windrow_core::shown::status::Status;

/// One of the variables that `services.sh env` prints, without its `WINDROW_TEST_`.
pub fn env(name: &str) -> String {
    let name = format!("WINDROW_TEST_{name}");
    std::env::var(&name).unwrap_or_else(|_| {
        panic!(
            "{name} is not set; run: make test, or eval \"$(tests/services/services.sh env)\" \
             after make parts-up"
        )
    })
}

/// A name that no earlier run has used, for topics, databases and tables: `<prefix>_<6 digits>`.
pub fn unique(prefix: &str) -> String {
    let mut random = [0; 3];
    getrandom::fill(&mut random).expect("random bytes");
    format!(
        "{prefix}_{:02x}{:02x}{:02x}",
        random[0], random[1], random[2]
    )
}

/// Waits for a condition; `what` is said when it does not come true in time. Returns what the
/// condition gave.
pub fn wait<T>(what: &str, within: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + within;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < end, "not within {within:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

// ---- The parts' verbs (`services.sh`) ----

/// Runs a verb of `services.sh` with `stdin` and gives what it printed. Panics when it fails, with
/// what it said.
pub fn parts(args: &[&str], stdin: &str) -> String {
    parts_with(args, stdin, &[])
}

/// The same with variables of its environment, such as `WINDROW_SPARK_VERSION`.
pub fn parts_with(args: &[&str], stdin: &str, env: &[(&str, &str)]) -> String {
    let output = try_parts(args, stdin, env);
    assert!(
        output.status.success(),
        "services.sh {args:?} failed: {}\n{}",
        String::from_utf8_lossy(&output.stderr),
        String::from_utf8_lossy(&output.stdout)
    );
    String::from_utf8(output.stdout).expect("services.sh prints UTF-8")
}

/// The same for a verb that may fail.
pub fn try_parts(args: &[&str], stdin: &str, env: &[(&str, &str)]) -> Output {
    let mut child = parts_command(args, env)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("services.sh starts");
    let mut pipe = child.stdin.take().expect("piped");
    std::thread::scope(|scope| {
        scope.spawn(move || pipe.write_all(stdin.as_bytes()).ok());
        child.wait_with_output().expect("services.sh ends")
    })
}

/// A verb of `services.sh` that is at work. When this is dropped, the verb and what it has started
/// are killed.
pub struct AtWork {
    child: Child,
    /// What it says.
    log: NamedTempFile,
}

impl AtWork {
    /// What it has said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log.path()).unwrap_or_default()
    }
}

/// Starts a verb of `services.sh` and does not wait for it.
pub fn spawn_parts(args: &[&str]) -> AtWork {
    use std::os::unix::process::CommandExt;
    let log = NamedTempFile::new().expect("a temporary file");
    let reopened = || log.reopen().expect("our file");
    let child = parts_command(args, &[])
        .stdin(Stdio::null())
        .stdout(reopened())
        .stderr(reopened())
        .process_group(0)
        .spawn()
        .expect("services.sh starts");
    AtWork { child, log }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        let group = format!("-{}", self.child.id());
        let killed = Command::new("kill")
            .args(["-s", "KILL", "--", &group])
            .status();
        let _ = (killed, self.child.wait());
    }
}

fn parts_command(args: &[&str], env: &[(&str, &str)]) -> Command {
    let mut command = Command::new(self::env("PARTS"));
    command.args(args).envs(env.iter().copied());
    command
}

/// Makes a topic.
pub fn topic(name: &str, partitions: u32) {
    parts(
        &[
            "kafka",
            "topic",
            name,
            "--partitions",
            &partitions.to_string(),
        ],
        "",
    );
}

/// Produces records, each `{"p": partition, "ts": ms, "v": text or null}`. See `kafka_admin.py` for
/// more keys.
pub fn produce(topic: &str, records: &[Value]) {
    let lines: String = records.iter().map(|record| format!("{record}\n")).collect();
    parts(&["kafka", "produce", topic], &lines);
}

/// A record as the use case's producer sends it.
pub fn record(partition: i32, ts: i64, origin: &str) -> Value {
    let value = json!({"timestamp": ts as f64 / 1000.0, "origin": origin, "content": "Message"});
    json!({"p": partition, "ts": ts, "v": value.to_string()})
}

/// Makes a database with a Hive schema of that kind, anew: `script`, `3.1`, `4.0`, `lazy`,
/// `lazy-fresh`, `empty`.
pub fn hive_db(name: &str, kind: &str) {
    parts(&["hive-db", name, kind], "");
}

/// SQL as PostgreSQL's super user; rows as lines with `|` between columns.
pub fn psql(database: &str, sql: &str) -> String {
    parts(&["psql", database, "-tAc", sql], "")
}

// ---- Windrow ----

/// Settings and secrets of one windrow in a folder of their own, which goes when this does.
pub struct Setup {
    dir: TempDir,
    /// The address of its HTTP server.
    pub http: String,
    pub settings: Value,
    pub secrets: Value,
}

impl Setup {
    /// A windrow that counts `topic` into `table` of the metastore `database` (whose owner has its
    /// name), below a warehouse of that name. `settings` are merged over that, key by key:
    /// `json!({"table": {"timestamps": "int96"}})`.
    pub fn new(database: &str, topic: &str, table: &str, settings: Value) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let http = format!("127.0.0.1:{}", free_port());
        let mut all = json!({
            "kafka": {"bootstrap": env("KAFKA"), "topic": topic},
            "table": {"name": table, "warehouse": format!("s3a://{}/{database}", env("S3_BUCKET"))},
            "s3": {"endpoint": env("S3")},
            "catalog": format!("postgresql://{}/{database}", env("PG")),
            "commit-interval": "500ms",
            "http": http,
            "secrets-file": dir.path().join("secrets.yaml"),
        });
        merge(&mut all, settings);
        let secrets = json!({
            "kafka-username": env("KAFKA_USER"),
            "kafka-password": env("KAFKA_PASSWORD"),
            "s3-access-key": env("S3_KEY"),
            "s3-secret-key": env("S3_SECRET"),
            "catalog-username": database,
            "catalog-password": env("PG_PASSWORD"),
        });
        let setup = Self {
            dir,
            http,
            settings: all,
            secrets,
        };
        setup.write();
        setup
    }

    /// Writes both files again, after `settings` or `secrets` were changed.
    pub fn write(&self) {
        // JSON is YAML.
        fs::write(self.config(), self.settings.to_string()).expect("the folder is ours");
        let secrets = self.dir.path().join("secrets.yaml");
        let new = self.dir.path().join("secrets.yaml.new");
        OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&new)
            .and_then(|mut file| file.write_all(self.secrets.to_string().as_bytes()))
            .and_then(|()| fs::rename(&new, &secrets))
            .expect("the folder is ours");
    }

    pub fn config(&self) -> PathBuf {
        self.dir.path().join("windrow.yaml")
    }

    /// Starts `windrow run` with these files. Its log goes on in the same file at each start.
    pub fn start(&self) -> Windrow<'_> {
        self.start_command(self.command(&["run"]))
    }

    /// The same by a command that becomes `windrow run` with these files.
    pub fn start_command(&self, mut command: Command) -> Windrow<'_> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_file())
            .expect("the folder is ours");
        let child = command
            .stdout(log.try_clone().expect("a file"))
            .stderr(log)
            .spawn();
        Windrow {
            setup: self,
            child: child.expect("windrow starts"),
        }
    }

    /// The windrow binary with these settings and a verb: `&["status", "--output", "json"]`.
    pub fn command(&self, verb: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_windrow"));
        command
            .arg("--config")
            .arg(self.config())
            .args(verb)
            .stdin(Stdio::null());
        command
    }

    /// What a verb answers as JSON; the process may run or not. Panics when the verb fails.
    pub fn ask(&self, verb: &[&str]) -> Value {
        let output = self
            .command(verb)
            .args(["--output", "json"])
            .output()
            .expect("windrow starts");
        assert!(
            output.status.success(),
            "windrow {verb:?} failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).expect("it prints JSON")
    }

    fn log_file(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// All that its processes have said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|l| l.local_addr())
        .expect("a free port")
        .port()
}

/// What a process has used.
#[derive(Clone, Copy, Debug, Default)]
pub struct Used {
    pub peak_rss_mib: f64,
    pub cpu_s: f64,
}

impl Used {
    /// The greater peak, and the CPU time of both.
    pub fn and(self, other: Self) -> Self {
        Self {
            peak_rss_mib: self.peak_rss_mib.max(other.peak_rss_mib),
            cpu_s: self.cpu_s + other.cpu_s,
        }
    }
}

/// A running `windrow run`. It is killed when this is dropped.
pub struct Windrow<'a> {
    setup: &'a Setup,
    child: Child,
}

impl Windrow<'_> {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The status, once it answers; `None` while it does not.
    pub fn status(&self) -> Option<Status> {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(5)))
            .build()
            .into();
        let mut ask = agent.get(format!("http://{}/v1/status", self.setup.http));
        if let Some(token) = self.setup.secrets["api-token"].as_str() {
            ask = ask.header("Authorization", format!("Bearer {token}"));
        }
        let mut answer = ask.call().ok()?;
        Some(answer.body_mut().read_json().expect("a status"))
    }

    /// Waits until the status fulfils a condition, and gives it. Panics with the last status and
    /// the log's end when it does not in time, or when the process ends.
    pub fn wait(
        &mut self,
        what: &str,
        within: Duration,
        condition: impl Fn(&Status) -> bool,
    ) -> Status {
        let end = Instant::now() + within;
        loop {
            let status = self.status();
            if let Some(status) = status.as_ref().filter(|s| condition(s)) {
                return status.clone();
            }
            let ended = self.child.try_wait().expect("our child");
            if ended.is_some() || Instant::now() > end {
                let log = self.setup.log();
                let tail: Vec<&str> = log.lines().rev().take(30).collect();
                let tail: Vec<&str> = tail.into_iter().rev().collect();
                panic!(
                    "not within {within:?}: {what}; ended: {ended:?}; status: {status:#?}\n{}",
                    tail.join("\n")
                );
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until `records` offsets are accounted for and each row that `idle-timeout` can close
    /// is committed. Needs a short `idle-timeout`. Late records and rejects may take another
    /// commit: `stop` brings them in.
    pub fn wait_for_all(&mut self, records: u64) -> Status {
        self.wait("all records are committed", Duration::from_secs(60), |s| {
            let idle = !s.lanes.is_empty() && s.lanes.iter().all(|l| l.idle);
            let same = s
                .lanes
                .windows(2)
                .all(|two| two[0].watermark == two[1].watermark);
            let closed = s.windows.iter().all(|w| Some(w.end) > s.watermark);
            s.consumed == records && idle && same && closed && s.rows == s.rows_committed
        })
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("our child").is_some()
    }

    /// Waits for its end. Panics when it does not come in time.
    pub fn ended(&mut self, within: Duration) -> ExitStatus {
        wait("windrow ends", within, || {
            self.child.try_wait().expect("our child")
        })
    }

    /// SIGTERM, and the end; panics when it fails or takes over 30 s. Returns what it has used.
    pub fn stop(mut self) -> Used {
        let peak = self.peak_rss_mib();
        self.signal("TERM");
        let cpu_s = self.cpu_until_its_end();
        let status = self.ended(Duration::from_secs(30));
        assert!(
            status.success(),
            "windrow ended with {status}\n{}",
            self.setup.log()
        );
        Used {
            peak_rss_mib: peak,
            cpu_s,
        }
    }

    /// SIGKILL. Returns what it has used.
    pub fn kill(mut self) -> Used {
        let peak_rss_mib = self.peak_rss_mib();
        self.child.kill().expect("our child");
        let cpu_s = self.cpu_until_its_end();
        self.child.wait().expect("our child");
        Used {
            peak_rss_mib,
            cpu_s,
        }
    }

    /// Sends a signal by name: `TERM`, `STOP`, `CONT`.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill")
            .args(["-s", name, &pid])
            .status()
            .expect("kill starts");
        assert!(sent.success(), "cannot send {name}");
    }

    /// The greatest resident memory so far, in MiB; 0 once it has ended.
    pub fn peak_rss_mib(&self) -> f64 {
        self.memory_mib("VmHWM:")
    }

    /// The resident memory of this moment, in MiB; 0 once it has ended.
    pub fn rss_mib(&self) -> f64 {
        self.memory_mib("VmRSS:")
    }

    /// A line of `/proc/PID/status`, which has kB.
    fn memory_mib(&self, name: &str) -> f64 {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|l| l.strip_prefix(name));
        line.and_then(|l| l.trim().trim_end_matches(" kB").parse::<f64>().ok())
            .unwrap_or_default()
            / 1024.0
    }

    /// Waits until it has ended and nobody has asked yet how: its whole CPU time is still there
    /// then.
    fn cpu_until_its_end(&self) -> f64 {
        const TICKS_A_SECOND: f64 = 100.0;
        wait("windrow ends", Duration::from_secs(30), || {
            let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).ok()?;
            let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
            let ticks = |i: usize| fields[i].parse::<f64>().expect("a number");
            // utime and stime, fields 14 and 15 of proc(5), whose third field comes first here.
            (fields[0] == "Z").then(|| (ticks(11) + ticks(12)) / TICKS_A_SECOND)
        })
    }
}

impl Drop for Windrow<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// ---- Spark ----

/// What one SQL statement gave. Timestamps are text in the session's time zone; cast decimals to
/// string, as JSON's numbers are not exact.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    pub columns: Vec<String>,
    pub types: Vec<String>,
    pub rows: Vec<Value>,
}

impl Found {
    /// The rows as text, sorted: a multiset to compare.
    pub fn sorted(&self) -> Vec<String> {
        let mut rows: Vec<String> = self.rows.iter().map(Value::to_string).collect();
        rows.sort_unstable();
        rows
    }

    /// The only value of the only row.
    pub fn one(&self) -> &Value {
        assert_eq!(
            (self.rows.len(), self.columns.len()),
            (1, 1),
            "one value was asked for: {self:?}"
        );
        &self.rows[0][0]
    }
}

/// A Spark session that stays open: a JVM of its own, some 10 s to start. Ends when this is
/// dropped.
pub struct Spark {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: mpsc::Receiver<String>,
    /// What it says beside its answers.
    log: NamedTempFile,
}

impl Spark {
    /// A session of Spark 3.4.2, in UTC, on the metastore `database`.
    pub fn open(database: &str) -> Self {
        Self::open_version(database, "3.4.2")
    }

    /// The same of another version: 3.5.3.
    pub fn open_version(database: &str, version: &str) -> Self {
        let log = NamedTempFile::new().expect("a temporary file");
        let mut child = parts_command(
            &["spark-sql", database, "--follow"],
            &[("WINDROW_SPARK_VERSION", version)],
        )
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log.reopen().expect("our file"))
        .spawn()
        .expect("services.sh starts");
        let out = BufReader::new(child.stdout.take().expect("piped"));
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        let stdin = child.stdin.take();
        Self {
            child,
            stdin,
            lines,
            log,
        }
    }

    /// Runs a statement of one line. Panics when Spark refuses it.
    pub fn sql(&mut self, sql: &str) -> Found {
        self.try_sql(sql)
            .unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Runs a statement of one line; the error is Spark's, its first line.
    pub fn try_sql(&mut self, sql: &str) -> Result<Found, String> {
        assert!(!sql.contains('\n'), "a statement is one line");
        let pipe = self.stdin.as_mut().expect("open");
        // When it has ended, the answer that does not come says so.
        let _ = writeln!(pipe, "{sql}").and_then(|()| pipe.flush());
        let mut head = self.line(sql);
        if let Some(error) = head["error"].as_str() {
            return Err(error.to_owned());
        }
        let count = head["rows"].as_u64().expect("a number of rows");
        let rows = (0..count).map(|_| self.line(sql)).collect();
        let texts = |v: Value| serde_json::from_value(v).expect("a list of texts");
        Ok(Found {
            columns: texts(head["columns"].take()),
            types: texts(head["types"].take()),
            rows,
        })
    }

    fn line(&self, sql: &str) -> Value {
        let line = self.lines.recv_timeout(Duration::from_secs(180));
        let line = line.unwrap_or_else(|e| {
            let said = fs::read_to_string(self.log.path()).unwrap_or_default();
            panic!("no answer from Spark ({e}) to: {sql}\n{said}")
        });
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"))
    }
}

impl Drop for Spark {
    fn drop(&mut self) {
        // The end of its input is its end.
        self.stdin = None;
        let end = Instant::now() + Duration::from_secs(20);
        while Instant::now() < end && self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Spark's Thrift server on one metastore, and beeline to it; apart from the one that `services.sh
/// up thrift` starts.
pub struct Thrift {
    run: TempDir,
    port: String,
}

impl Thrift {
    pub fn up(database: &str) -> Self {
        let run = tempfile::tempdir().expect("a temporary folder");
        let thrift = Self {
            run,
            port: free_port().to_string(),
        };
        thrift.parts(&["thrift-up", database]);
        thrift
    }

    /// What beeline shows of each statement, as it stands.
    pub fn beeline(&self, statements: &[&str]) -> String {
        self.parts(&[&["beeline"], statements].concat())
    }

    fn parts(&self, args: &[&str]) -> String {
        let run = self.run.path().to_str().expect("UTF-8");
        parts_with(
            args,
            "",
            &[("WINDROW_RUN", run), ("WINDROW_THRIFT_PORT", &self.port)],
        )
    }
}

impl Drop for Thrift {
    fn drop(&mut self) {
        let run = self.run.path().to_str().expect("UTF-8");
        try_parts(
            &["thrift-down"],
            "",
            &[("WINDROW_RUN", run), ("WINDROW_THRIFT_PORT", &self.port)],
        );
    }
}

/// The settings of a producer that keeps the order and sends nothing twice: the log here is the log
/// there.
pub fn producer_settings() -> ClientConfig {
    let mut settings = ClientConfig::new();
    settings
        .set("bootstrap.servers", env("KAFKA"))
        .set("security.protocol", "SASL_PLAINTEXT")
        .set("sasl.mechanism", "SCRAM-SHA-512")
        .set("sasl.username", env("KAFKA_USER"))
        .set("sasl.password", env("KAFKA_PASSWORD"))
        .set("enable.idempotence", "true");
    settings
}

/// Hands a record to the producer, and waits while its queue is full.
///
/// # Panics
/// When the producer refuses the record.
pub fn enqueue(producer: &BaseProducer, mut record: BaseRecord<'_, (), str>) {
    while let Err((error, back)) = producer.send(record) {
        assert!(
            matches!(
                error,
                KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)
            ),
            "cannot produce: {error}"
        );
        producer.poll(Duration::from_millis(50));
        record = back;
    }
}
