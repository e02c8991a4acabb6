//! `windrow demo` as a user runs it: the built program, and what it prints and serves meanwhile.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

/// The body of the answer to a GET.
fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("the page is served");
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .expect("a socket takes a timeout");
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )
    .expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    body.to_owned()
}

#[test]
fn the_demo_serves_its_status_page_and_counts_all_it_sent() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut demo = Command::new(env!("CARGO_BIN_EXE_windrow"))
        .args(["demo", "--for", "2s", "--rate", "200"])
        .env("TMPDIR", folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program is built");
    let mut lines = BufReader::new(demo.stdout.take().expect("piped")).lines();
    let address = lines
        .by_ref()
        .map(|line| line.expect("text"))
        .find_map(|line| Some(line.strip_prefix("status page: http://")?.to_owned()))
        .expect("the demo says where its page is");
    let address = address.trim_end_matches('/');
    assert!(address.starts_with("127.0.0.1:"), "{address}");
    assert!(get(address, "/").contains("<title>default.demo · windrow</title>"));
    let status = get(address, "/v1/status");
    let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    assert_eq!(status["topic"], "test-topic");
    let rest: Vec<String> = lines.map(|line| line.expect("text")).collect();
    assert!(demo.wait().expect("ended").success(), "{rest:?}");
    assert!(
        rest.iter().any(|line| line.starts_with("the ledger: ")),
        "{rest:?}"
    );
}
