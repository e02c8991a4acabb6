//! The client against real Pebbles (ignored tests), and against a stand-in that answers oddly.

use super::api::START;
use super::exec::OUTPUT_MAX_BYTES;
use super::wire::{Upload, request};
use super::*;
use hyper::Method;
use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use windrow_core::shown::notice::KEY;
use windrow_core::values::cause::Cause;

/// Long enough for a machine that is busy with other things.
const SOON: Duration = Duration::from_secs(20);

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < until, "{what}: not within {SOON:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn signal(pid: u32, name: &str) {
    // It may have ended.
    let _ = Command::new("/bin/sh")
        .args(["-c", "kill -$1 $0", &pid.to_string(), name])
        .stderr(Stdio::null())
        .status();
}

/// A Pebble of the test's own, started as Juju starts it.
struct Daemon {
    binary: PathBuf,
    child: Child,
    dir: tempfile::TempDir,
    pebble: Pebble,
}

impl Daemon {
    fn start(binary: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("pebble.socket");
        let child = Command::new(binary)
            .args(["run", "--create-dirs", "--hold"])
            .env("PEBBLE", dir.path())
            .env("PEBBLE_SOCKET", &socket)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let daemon = Self {
            binary: binary.to_owned(),
            child,
            dir,
            pebble: Pebble::new(socket),
        };
        wait_for("Pebble answers", || daemon.pebble.services().is_ok());
        daemon
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // At this signal it stops its services first.
        signal(self.child.id(), "TERM");
        let until = Instant::now() + SOON;
        while Instant::now() < until && !matches!(self.child.try_wait(), Ok(Some(_))) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `test` against each version of Pebble that is there.
fn with_each(test: impl Fn(&Daemon)) {
    let dir = std::env::var("WINDROW_PEBBLE_DIR")
        .expect("WINDROW_PEBBLE_DIR names a directory with pebble-v*");
    let mut binaries: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with("pebble-v")
        })
        .collect();
    assert!(!binaries.is_empty(), "no pebble-v* there");
    binaries.sort();
    for binary in binaries {
        println!("{}", binary.display());
        test(&Daemon::start(&binary));
    }
}

/// Makes a call, and prints how long it took.
fn timed<T>(what: &str, call: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let result = call();
    println!("{what}: {:.2} ms", began.elapsed().as_secs_f64() * 1e3);
    result
}

fn layer(command: &str, digest: &str) -> String {
    format!(
        "services:\n  web:\n    override: replace\n    command: {command}\n\
         \x20   startup: enabled\n    kill-delay: 1s\n    environment: {{DIGEST: \"{digest}\"}}\n"
    )
}

fn current(pebble: &Pebble) -> String {
    pebble.services().unwrap()["web"].clone()
}

#[test]
#[ignore = "needs Pebble: WINDROW_PEBBLE_DIR, a directory with pebble-v*"]
fn services_are_planned_started_and_stopped() {
    with_each(|Daemon { pebble, .. }| {
        assert!(timed("services", || pebble.services()).unwrap().is_empty());
        assert_eq!(timed("plan", || pebble.plan()).unwrap(), "{}\n");
        timed("replan of nothing", || pebble.replan()).unwrap();

        timed("add_layer", || {
            pebble.add_layer("windrow", &layer("sleep 1000", "a"))
        })
        .unwrap();
        assert!(pebble.plan().unwrap().contains("command: sleep 1000"));
        assert_eq!(current(pebble), "inactive");
        timed("replan that starts", || pebble.replan()).unwrap();
        assert_eq!(current(pebble), "active");
        timed("replan without changes", || pebble.replan()).unwrap();
        pebble
            .add_layer("windrow", &layer("sleep 1000", "b"))
            .unwrap();
        timed("replan that restarts", || pebble.replan()).unwrap();
        assert_eq!(current(pebble), "active");
        timed("stop", || pebble.stop(&["web"])).unwrap();
        assert_eq!(current(pebble), "inactive");
        timed("replan that starts again", || pebble.replan()).unwrap();
        assert_eq!(current(pebble), "active");

        let PebbleError::Refused {
            status: 400,
            message,
            ..
        } = pebble.stop(&["other"]).unwrap_err()
        else {
            panic!("refused")
        };
        assert_eq!(
            message,
            "cannot stop service \"other\": cannot stop services: service \"other\" does not exist"
        );
        let error = pebble
            .add_layer("windrow", "services: {web: {command: a}}")
            .unwrap_err();
        println!("{error}");
        assert!(matches!(error, PebbleError::Refused { status: 400, .. }));

        // A start that fails: Pebble goes on trying, so the service is stopped.
        pebble
            .add_layer(
                "windrow",
                &layer("sh -c 'echo first; echo last words >&2; exit 7'", "c"),
            )
            .unwrap();
        let error = timed("replan that fails", || pebble.replan()).unwrap_err();
        println!("{error}");
        let PebbleError::Failed(text) = error else {
            panic!("failed")
        };
        assert!(
            text.starts_with("cannot replan services: Start service \"web\" ("),
            "{text}"
        );
        assert!(
            text.contains("code 7") && text.ends_with("; its last words: last words"),
            "{text}"
        );
        let _ = pebble.stop(&["web"]);
    });
}

/// A file below the daemon's folder, without an owner.
fn file(daemon: &Daemon, path: &str, content: Content, mode: u32) -> FileWrite {
    FileWrite {
        path: daemon.path(path),
        content,
        mode,
        uid: None,
        gid: None,
    }
}

/// A file of 26 MB on our side, as long as the program that the charm pushes, and its contents.
fn big_file(daemon: &Daemon) -> (PathBuf, Vec<u8>) {
    let path = PathBuf::from(daemon.path("big"));
    let content: Vec<u8> = (0..26_000_000u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    std::fs::write(&path, &content).unwrap();
    (path, content)
}

/// Writes `etc/a "b".yaml` with a text that looks like a boundary, and the empty file `etc/empty`.
fn write_small_files(daemon: &Daemon) -> String {
    // Only root may give files away; any other user writes as itself.
    let me = std::fs::metadata(daemon.dir.path()).unwrap();
    let (uid, gid) = if me.uid() == 0 {
        (584_792, 584_792)
    } else {
        (me.uid(), me.gid())
    };
    let text = Content::Bytes(b"\r\n--geheim\r\n".to_vec());
    let secret = FileWrite {
        uid: Some(uid),
        gid: Some(gid),
        ..file(daemon, "etc/a \"b\".yaml", text, 0o600)
    };
    let empty = file(daemon, "etc/empty", Content::Bytes(Vec::new()), 0o644);
    timed("push of two small files", || {
        daemon.pebble.write_files(&[secret, empty])
    })
    .unwrap();
    let path = daemon.path("etc/a \"b\".yaml");
    let about = std::fs::metadata(&path).unwrap();
    let mode = about.permissions().mode() & 0o7777;
    assert_eq!((mode, about.uid(), about.gid()), (0o600, uid, gid));
    path
}

#[test]
#[ignore = "needs Pebble: WINDROW_PEBBLE_DIR, a directory with pebble-v*"]
fn files_are_written_read_and_removed() {
    with_each(|daemon| {
        let pebble = &daemon.pebble;
        let (big, content) = big_file(daemon);
        let binary = file(daemon, "opt/windrow/windrow-1", Content::File(big), 0o755);
        timed("push of 26 MB", || pebble.write_files(&[binary])).unwrap();
        let pushed = daemon.path("opt/windrow/windrow-1");
        assert!(std::fs::read(&pushed).unwrap() == content);
        let about = std::fs::metadata(&pushed).unwrap();
        assert_eq!(about.permissions().mode() & 0o7777, 0o755);

        let a = write_small_files(daemon);
        let dir = daemon.path("etc");
        let names = timed("list", || pebble.list(&dir)).unwrap();
        assert_eq!(
            names,
            BTreeMap::from([("a \"b\".yaml".to_owned(), 12), ("empty".to_owned(), 0)])
        );
        assert_eq!(
            pebble.list(&daemon.path("opt/windrow")).unwrap()["windrow-1"],
            26_000_000
        );
        assert!(pebble.list(&daemon.path("nowhere")).unwrap().is_empty());

        let (empty, none) = (daemon.path("etc/empty"), daemon.path("no & such?"));
        let files = timed("read_files", || pebble.read_files(&[&a, &none, &empty])).unwrap();
        assert_eq!(
            files,
            BTreeMap::from([
                (a.clone(), b"\r\n--geheim\r\n".to_vec()),
                (empty, Vec::new())
            ])
        );
        assert!(pebble.read_files(&[&none]).unwrap().is_empty());

        timed("remove", || pebble.remove(&[&a, &none])).unwrap();
        assert_eq!(pebble.list(&dir).unwrap().len(), 1);
    });
}

#[test]
#[ignore = "needs Pebble: WINDROW_PEBBLE_DIR, a directory with pebble-v*"]
fn files_that_cannot_be_read_or_written_are_named() {
    with_each(|daemon| {
        let pebble = &daemon.pebble;
        let (big, _) = big_file(daemon);
        let big = || Content::File(big.clone());
        let a = write_small_files(daemon);
        let (dir, empty) = (daemon.path("etc"), daemon.path("etc/empty"));
        // A file that cannot be written does not keep a large one beside it from being written.
        let error = pebble
            .write_files(&[
                file(daemon, "etc", Content::Bytes(b"geheim".to_vec()), 0o600),
                file(daemon, "opt/windrow/windrow-2", big(), 0o755),
                file(daemon, "etc/empty/below", big(), 0o755),
            ])
            .unwrap_err();
        println!("{error}");
        let PebbleError::Failed(text) = error else {
            panic!("failed")
        };
        assert!(
            text.starts_with(&format!("cannot write file \"{dir}\": ")),
            "{text}"
        );
        assert!(
            text.contains(&format!("; cannot write file \"{empty}/below\": "))
                && !text.contains("geheim"),
            "{text}"
        );
        let pushed = daemon.path("opt/windrow/windrow-2");
        assert_eq!(
            pebble.list(&daemon.path("opt/windrow")).unwrap()["windrow-2"],
            26_000_000
        );
        let nowhere = Content::File("/nowhere/x".into());
        let error = pebble
            .write_files(&[file(daemon, "x", nowhere, 0o600)])
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot read file \"/nowhere/x\": No such file or directory (os error 2)"
        );
        let error = pebble.read_files(&[&pushed]).unwrap_err().to_string();
        assert_eq!(
            error,
            "cannot read files: the answer is longer than 1114112 bytes"
        );
        let error = pebble.read_files(&[&a, &dir]).unwrap_err().to_string();
        assert_eq!(
            error,
            format!("cannot read file \"{dir}\": can only read a regular file: \"{dir}\"")
        );
        let error = pebble.remove(&[&dir]).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("cannot remove file \"{dir}\": ")),
            "{error}"
        );
    });
}

/// The user that this test runs as. Only root's Pebble can run commands as somebody else.
fn own_uid() -> u32 {
    std::fs::metadata("/proc/self").expect("Linux").uid()
}

#[test]
#[ignore = "needs Pebble: WINDROW_PEBBLE_DIR, a directory with pebble-v*"]
fn commands_are_run() {
    with_each(|Daemon { pebble, .. }| {
        let sh = |script: &str, timeout| {
            let command: Vec<String> = ["sh", "-c", script].map(str::to_owned).into();
            timed(&format!("exec of {script:?}"), || {
                pebble.exec(&command, own_uid(), timeout)
            })
        };
        let ran = sh("echo out; echo err >&2; cat; exit 3", SOON).unwrap();
        assert_eq!(
            ran,
            ExecOutput {
                code: 3,
                stdout: b"out\n".to_vec(),
                stderr: b"err\n".to_vec()
            }
        );
        assert_eq!(
            sh("true", SOON).unwrap(),
            ExecOutput {
                code: 0,
                stdout: vec![],
                stderr: vec![]
            }
        );

        let ran = sh(
            "head -c 3000000 /dev/zero >&2; head -c 5000000 /dev/zero; \
             head -c 3000000 /dev/zero >&2",
            SOON,
        )
        .unwrap();
        assert_eq!(
            (ran.code, ran.stdout.len(), ran.stderr.len()),
            (0, OUTPUT_MAX_BYTES, OUTPUT_MAX_BYTES)
        );

        let error = sh("exec sleep 1000", Duration::from_millis(300)).unwrap_err();
        println!("{error}");
        assert!(
            matches!(&error, PebbleError::Overdue(text) if text.contains("timed out after 300ms"))
        );
        let error = sh("sleep 7 & wait", Duration::from_millis(300)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot run command \"sh\": it was not done in time"
        );
        let error = pebble
            .exec(&["/no/such".to_owned()], own_uid(), SOON)
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot run command \"/no/such\": \
             cannot find executable \"/no/such\" (Pebble answers 400)"
        );
    });
}

#[test]
#[ignore = "needs Pebble: WINDROW_PEBBLE_DIR, a directory with pebble-v*"]
fn logs_signals_and_notices() {
    with_each(|daemon| {
        let pebble = &daemon.pebble;
        assert!(pebble.logs("web", 5).unwrap().is_empty());
        let script =
            "sh -c \"trap 'echo again' HUP; echo one; echo two; while :; do sleep 0.05; done\"";
        pebble.add_layer("windrow", &layer(script, "a")).unwrap();
        let error = pebble.signal("SIGHUP", "web").unwrap_err();
        println!("{error}");
        pebble.replan().unwrap();
        assert_eq!(
            timed("logs", || pebble.logs("web", 5)).unwrap(),
            ["one", "two"]
        );
        timed("signal", || pebble.signal("SIGHUP", "web")).unwrap();
        // The signal reaches the sleep too, of which the shell may say a word after.
        wait_for("the service says so", || {
            pebble.logs("web", 5).unwrap().contains(&"again".to_owned())
        });
        assert!(matches!(
            pebble.signal("SIGNONE", "web"),
            Err(PebbleError::Refused { .. })
        ));
        pebble.stop(&["web"]).unwrap();

        assert_eq!(timed("notice", || pebble.last_notice()).unwrap(), None);
        for state in ["waiting", "failed"] {
            let done = Command::new(&daemon.binary)
                .args([
                    "notify",
                    KEY,
                    &format!("state={state}"),
                    "cause=login-kafka",
                ])
                .env("PEBBLE", daemon.dir.path())
                .env("PEBBLE_SOCKET", &pebble.socket)
                .stdout(Stdio::null())
                .status()
                .unwrap();
            assert!(done.success());
        }
        let (mut notice, age_ms) = timed("notice", || pebble.last_notice()).unwrap().unwrap();
        assert_eq!(notice.news.state, "failed");
        assert_eq!(notice.news.cause.map(Cause::name), Some("login-kafka"));
        assert!(age_ms < 60_000, "{age_ms}");
        notice.news.state = "counting".to_owned();
        timed("update notice", || pebble.update_notice(&notice)).unwrap();
        assert_eq!(pebble.last_notice().unwrap().unwrap().0, notice);
    });
}

/// A Pebble that gives the same answer to everything, if any.
fn stand_in(answer: Option<(&str, &str)>) -> (tempfile::TempDir, Pebble) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("pebble.socket");
    let listener = UnixListener::bind(&socket).unwrap();
    let answer = answer.map(|(status, body)| {
        format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    });
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for mut stream in listener.incoming().map_while(io::Result::ok) {
            // Reads some of the request first, so that the answer does not come before it.
            let _ = stream.read(&mut [0; 4096]);
            match &answer {
                Some(answer) => drop(stream.write_all(answer.as_bytes())),
                None => open.push(stream),
            }
        }
    });
    (dir, Pebble::new(socket))
}

#[test]
fn nobody_there_is_down() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("pebble.socket");
    let pebble = Pebble::new(socket.clone());
    let text = format!(
        "cannot list services: no Pebble answers at {}: ",
        socket.display()
    );
    assert_eq!(
        pebble.services(),
        Err(PebbleError::Down(format!(
            "{text}No such file or directory (os error 2)"
        )))
    );
    drop(UnixListener::bind(&socket).unwrap());
    assert_eq!(
        pebble.services(),
        Err(PebbleError::Down(format!(
            "{text}Connection refused (os error 111)"
        )))
    );

    let (_dir, pebble) = stand_in(None);
    let ask = |upload| {
        pebble
            .send(
                "do it",
                request(Method::POST, "/v1/files"),
                upload,
                Duration::from_millis(200),
            )
            .unwrap_err()
    };
    let silent = PebbleError::Slow("cannot do it: Pebble does not answer within 0.2 s".to_owned());
    assert_eq!(ask(Upload::default()), silent);
    // It takes no more than a socket holds.
    let mut upload = Upload::default();
    upload.bytes(vec![0; 10 << 20]);
    assert_eq!(ask(upload), silent);
    let (_dir, pebble) = stand_in(Some(("", "")));
    let PebbleError::Down(text) = pebble.plan().unwrap_err() else {
        panic!("down")
    };
    assert!(text.starts_with("cannot read plan: "), "{text}");
}

#[test]
fn the_reason_of_a_refusal_is_given() {
    let refused = |status, message: &str, kind: &str| PebbleError::Refused {
        status,
        message: message.to_owned(),
        kind: kind.to_owned(),
    };
    let (_dir, pebble) = stand_in(Some((
        "504 Gateway Timeout",
        "{\"type\":\"error\",\"status-code\":504,\
         \"result\":{\"message\":\"timed out\",\"kind\":\"daemon-restart\"}}",
    )));
    assert_eq!(
        pebble.plan().unwrap_err(),
        refused(504, "cannot read plan: timed out", "daemon-restart")
    );
    assert_eq!(
        pebble.plan().unwrap_err().to_string(),
        "cannot read plan: timed out (Pebble answers 504)"
    );
    assert_eq!(
        pebble.wait("replan services", "7", START).err(),
        Some(PebbleError::Failed(
            "cannot replan services: it is not done after 15 s; Pebble goes on with it".into()
        ))
    );
    // It hangs up before it has read all that we send: its answer may be lost then.
    let file = FileWrite {
        path: "/x".into(),
        content: Content::Bytes(vec![0; 10 << 20]),
        mode: 0o600,
        uid: None,
        gid: None,
    };
    assert_eq!(format!("{:?}", file.content), "10485760 bytes");
    let error = pebble.write_files(&[file]).unwrap_err();
    assert!(
        matches!(
            &error,
            PebbleError::Down(_) | PebbleError::Refused { status: 504, .. }
        ),
        "{error}"
    );

    let (_dir, pebble) = stand_in(Some(("502 Bad Gateway", "<h1>")));
    assert_eq!(
        pebble.services().unwrap_err(),
        refused(502, "cannot list services: bad gateway", "")
    );
    let (_dir, pebble) = stand_in(Some(("200 OK", "{\"result\":\"geheim\"}")));
    assert_eq!(
        pebble.services().unwrap_err(),
        PebbleError::Failed(
            "cannot list services: Pebble's answer is not the JSON that was expected".into()
        )
    );
}

#[test]
fn the_latest_notice_is_read_with_its_age() {
    let (_dir, pebble) = stand_in(Some(("200 OK", "{\"result\":[]}")));
    assert_eq!(pebble.last_notice().unwrap(), None);
    let (_dir, pebble) = stand_in(Some((
        "200 OK",
        "{\"result\":[{\"last-occurred\":\"2024-09-01T19:42:14Z\"},\
         {\"id\":\"1\",\"last-occurred\":\"2024-09-01T19:42:15.123456789Z\",\
         \"last-data\":{\"state\":\"waiting\",\"cause\":\"login-s3\",\"credit\":\"60\"}}]}",
    )));
    let (notice, age_ms) = pebble.last_notice().unwrap().unwrap();
    assert_eq!(notice.news.cause.map(Cause::name), Some("login-s3"));
    assert_eq!(notice.credit, "60");
    assert!(age_ms > 3_600_000 && age_ms < u64::MAX);
    pebble.update_notice(&notice).unwrap();
    let (_dir, pebble) = stand_in(Some((
        "400 Bad Request",
        "{\"type\":\"error\",\"result\":{\"message\":\"bad key\"}}",
    )));
    assert_eq!(
        pebble.update_notice(&notice).unwrap_err().to_string(),
        "cannot update notice \"windrow.dev/state\": bad key (Pebble answers 400)"
    );
}
