//! What the log shows at its finest level: what windrow does, and no record and no credential.

#![expect(
    clippy::disallowed_methods,
    reason = "threads play the store that takes whatever comes"
)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use windrow::io::store::{S3Config, Store};
use windrow::run::log::targets;
use windrow_core::settings::config::{Config, Secret};

const RECORD: &str = "the-value-of-a-reject";
const SECRETS: [&str; 3] = ["AKIDOFTHETEST", "s3-secret-of-the-test", "proxy-password"];

/// A store that takes whatever comes. It ends with the test's process.
fn store_that_takes_all() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            std::thread::spawn(move || {
                let (mut read, mut buffer) = (Vec::new(), [0; 4096]);
                while let Ok(n @ 1..) = stream.read(&mut buffer) {
                    read.extend_from_slice(&buffer[..n]);
                    // The body is the record alone, so its last byte ends the request.
                    if read.ends_with(RECORD.as_bytes()) {
                        read.clear();
                        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
                        let _ = stream.write_all(answer);
                    }
                }
            });
        }
    });
    address
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("the log").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The log of one object that is put into a bucket, through a proxy, with these targets.
fn log_of_a_put(targets: Targets) -> String {
    let address = store_that_takes_all();
    let settings = "kafka: { bootstrap: 'k:9092', topic: t }\n\
                    s3: { endpoint: 'http://store.example:80' }";
    let config = S3Config {
        settings: Config::parse(settings).expect("right settings").s3,
        ca_pem: None,
        access_key: SECRETS[0].to_owned(),
        secret_key: SECRETS[1].to_owned(),
        proxy: Some(Secret::new(format!("http://me:{}@{address}", SECRETS[2]))),
    };
    let lines = Lines::default();
    let writer = lines.clone();
    let log = tracing_subscriber::registry().with(targets).with(
        fmt::layer()
            .with_ansi(false)
            .with_writer(move || writer.clone()),
    );
    tracing::subscriber::with_default(log, || {
        tracing::trace!(target: "windrow::run", "our own event");
        let place = "s3a://bucket/warehouse".parse().expect("a place");
        let store = Store::open(&place, &config).expect("a store");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime
            .block_on(store.put("rejects/part.parquet", RECORD.as_bytes()))
            .expect("it is put");
    });
    let bytes = lines.0.lock().expect("the log").clone();
    String::from_utf8(bytes).expect("text")
}

#[test]
fn a_traced_put_shows_neither_records_nor_credentials() {
    let all = log_of_a_put(Targets::new().with_default(LevelFilter::TRACE));
    assert!(
        all.contains(SECRETS[0]),
        "the client logs such things when it may:\n{all}"
    );

    let shown = log_of_a_put(targets("trace"));
    assert!(shown.contains("our own event"), "{shown}");
    for secret in SECRETS.iter().chain([&RECORD]) {
        assert!(!shown.contains(secret), "{secret} is in the log:\n{shown}");
    }
    // As bytes, debug output of a body has its numbers.
    assert!(!shown.contains("116, 104, 101, 45"), "{shown}");
}
