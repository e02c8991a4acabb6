//! Both stores against the same cases, what their errors say, and the S3 proxy; MinIO where there
//! is one.

#![expect(
    clippy::disallowed_methods,
    reason = "tests are told by environment where the real parts are"
)]

use super::Deleted;
use super::*;
use std::fs;
use std::future::Future;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};
use tokio::task::JoinSet;
use windrow_core::settings::config::S3Settings;
use windrow_core::values::object::ObjectPage;

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(work)
}

fn config(endpoint: &str, access_key: &str, secret_key: &str) -> S3Config {
    S3Config {
        settings: S3Settings {
            endpoint: Some(endpoint.to_owned()),
            region: "us-east-1".to_owned(),
            path_style: true,
            ca_file: None,
            no_proxy: Vec::new(),
        },
        ca_pem: None,
        access_key: access_key.to_owned(),
        secret_key: secret_key.to_owned(),
        proxy: None,
    }
}

/// What both stores do alike, below a folder of its own.
async fn cases(store: &Store) {
    store.check().await.unwrap();
    assert_eq!(all_pages(store, "").await, [""; 0]);
    assert_eq!(store.get("a/none").await.unwrap(), None);
    assert_eq!(store.delete(vec!["a/none".to_owned()]).await.kept, [""; 0]);
    assert_eq!(store.delete(Vec::new()).await, Deleted::default());

    let large = Bytes::from(vec![7_u8; 3 << 20]);
    for (key, bytes) in [
        ("a/b c/é=1.parquet", Bytes::from_static(b"one")),
        ("a/b/empty", Bytes::new()),
        ("ab/large", large.clone()),
        ("z+%41", Bytes::from_static(b"4")),
    ] {
        store.put(key, bytes.clone()).await.unwrap();
        store.put(key, bytes).await.unwrap();
    }
    assert_eq!(
        store.get("a/b c/é=1.parquet").await.unwrap().as_deref(),
        Some(b"one".as_slice())
    );
    assert_eq!(
        store.get("a/b/empty").await.unwrap().as_deref(),
        Some(b"".as_slice())
    );
    assert!(store.get("ab/large").await.unwrap().unwrap() == large);
    for (key, range, expect) in [
        ("a/b c/é=1.parquet", 1..3, Some("ne")),
        ("a/b c/é=1.parquet", 0..1, Some("o")),
        ("a/b c/é=1.parquet", 2..2, Some("")),
        ("a/b c/é=1.parquet", 2..9, Some("e")),
        ("a/b c/é=1.parquet", 3..9, Some("")),
        ("a/none", 0..1, None),
    ] {
        let found = store.get_range(key, range).await.unwrap();
        assert_eq!(found.as_deref(), expect.map(str::as_bytes), "{key}");
    }
    let end = store.get_range("ab/large", (3 << 20) - 5..3 << 20).await;
    assert_eq!(end.unwrap().unwrap(), vec![7; 5]);
    assert_eq!(
        all_pages(store, "").await,
        ["a/b c/é=1.parquet", "a/b/empty", "ab/large", "z+%41"]
    );
    assert_eq!(
        all_pages(store, "a/").await,
        ["a/b c/é=1.parquet", "a/b/empty"]
    );
    assert_eq!(all_pages(store, "a/b/e").await, ["a/b/empty"]);
    assert_eq!(all_pages(store, "a").await.len(), 3);
    let page = store.list_page("a", Some("a/b c/")).await.unwrap();
    let paged: Vec<&str> = page.objects.iter().map(|o| o.key.as_str()).collect();
    assert_eq!(paged, ["a/b c/é=1.parquet", "a/b/empty", "ab/large"]);
    assert!(page.objects.iter().all(|object| object.age_ms < 600_000) && page.next.is_none());
    assert_eq!(
        store.list_page("no/such/", None).await.unwrap(),
        ObjectPage::default()
    );

    let gone = all_pages(store, "").await;
    assert_eq!(store.delete(gone[..2].to_vec()).await.gone, gone[..2]);
    assert_eq!(all_pages(store, "").await, ["ab/large", "z+%41"]);
    assert_eq!(store.delete(gone.clone()).await.gone.len(), gone.len());
    assert_eq!(all_pages(store, "").await, [""; 0]);
}

/// 8 MiB, as a merge hands them out, of bytes that differ from place to place.
fn piece(seed: usize) -> Bytes {
    Bytes::from_iter((0..8 << 20).map(|i| ((i ^ seed) % 251) as u8))
}

/// An object in pieces is there as a whole or not at all; below a folder of its own.
async fn uploads(store: &Store) {
    let whole = [piece(1), piece(2), Bytes::from_static(b"end")].concat();
    for _ in 0..2 {
        let mut upload = store.upload("u/large");
        upload.add(piece(1)).await.unwrap();
        upload.add(piece(2)).await.unwrap();
        upload.finish(Bytes::from_static(b"end")).await.unwrap();
        assert!(store.get("u/large").await.unwrap().unwrap() == whole);
    }
    let small = store.upload("u/small");
    small.finish(Bytes::from_static(b"small")).await.unwrap();
    let found = store.get("u/small").await.unwrap();
    assert_eq!(found.as_deref(), Some(b"small".as_slice()));

    let mut aborted = store.upload("u/x/aborted");
    aborted.add(piece(1)).await.unwrap();
    assert_eq!(store.get("u/x/aborted").await.unwrap(), None);
    aborted.abort().await;
    store.upload("u/x/never").abort().await;
    assert_eq!(all_pages(store, "").await, ["u/large", "u/small"]);
    let uploads = store.abort_uploads("u/x/aborted", 0).await;
    assert_eq!(uploads, Ok(0), "nothing is left of it");
    store.delete(all_pages(store, "").await).await;
}

/// The keys of all pages; checks that they are pages.
async fn all_pages(store: &Store, prefix: &str) -> Vec<String> {
    let (mut keys, mut after) = (Vec::new(), None);
    loop {
        let page = store.list_page(prefix, after.as_deref()).await.unwrap();
        assert!(page.objects.len() <= 1000);
        keys.extend(page.objects.into_iter().map(|object| object.key));
        match page.next {
            None => return keys,
            next => after = next,
        }
    }
}

/// Deletes these objects and, in the middle, one that cannot be deleted; all pages below the prefix
/// show the others.
async fn deletes_all_but(store: &Store, prefix: &str, keys: &[String], stuck: String) {
    let mut before = all_pages(store, prefix).await;
    assert!(before.len() > 1000 && before.is_sorted());
    let (first, rest) = keys.split_at(keys.len() / 2);
    let asked = [first, std::slice::from_ref(&stuck), rest].concat();
    let mut deleted = store.delete(asked).await;
    deleted.gone.sort();
    assert_eq!((deleted.gone.as_slice(), deleted.kept), (keys, vec![stuck]));
    assert!(deleted.first_error.is_some());
    before.retain(|key| !keys.contains(key));
    assert_eq!(all_pages(store, prefix).await, before);
}

/// One worker puts and lists, the other deletes in the same folder.
async fn puts_and_deletes_side_by_side(store: &Store) {
    let other = store.clone();
    let deleter = tokio::spawn(async move {
        for i in 0..50 {
            other.delete(vec![format!("x/y/{i}/f")]).await;
        }
    });
    for i in 0..50 {
        store
            .put(&format!("x/y/{i}/f"), Bytes::from_static(b"1"))
            .await
            .unwrap();
        all_pages(store, "x/").await;
    }
    deleter.await.unwrap();
    store.delete(all_pages(store, "").await).await;
}

fn place(text: &str) -> Place {
    text.parse().unwrap()
}

fn local(folder: &Path) -> Store {
    Store::open(
        &place(folder.to_str().unwrap()),
        &config("http://unused", "", ""),
    )
    .unwrap()
}

#[test]
fn local_store_does_all_cases_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("warehouse");
    run(async {
        cases(&local(&root)).await;
        uploads(&local(&root)).await;
        assert_eq!(fs::read_dir(&root).unwrap().count(), 0, "no temporary file");
        puts_and_deletes_side_by_side(&local(&root)).await;
        let store = local(&root);
        // In the order of keys "p-0/f" stands before "p/f", although "p" is shorter than "p-0".
        let keys: Vec<String> = (0..1010)
            .map(|i| format!("p{}/{i:04}/f", ["-0", "", "0"][i % 3]))
            .collect();
        for key in &keys {
            store.put(key, Bytes::from_static(b"1")).await.unwrap();
        }
        // A folder cannot be deleted as if it were an object.
        let mut some = [&keys[3..4], &keys[4..5], &keys[900..902]].concat();
        some.sort();
        deletes_all_but(&store, "p", &some, "p-0".to_owned()).await;
        store.delete(all_pages(&store, "p").await).await;
    });
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
}

/// Both listings pass over what a process left behind when it was killed, and so its folder stayed
/// for ever.
#[test]
fn local_store_removes_what_a_kill_left_behind_once_it_is_a_day_old() {
    let folder = tempfile::tempdir().unwrap();
    let store = local(folder.path());
    let file = |name: &str, age_hours: u64| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let file = fs::File::create(path).unwrap();
        let age = Duration::from_secs(age_hours * 3600);
        file.set_modified(SystemTime::now() - age).unwrap();
    };
    file("t/rows/a/.part.parquet.4711-12", 25);
    file("t/rows/b/.part.parquet.4711-13", 23);
    file("t/rows/c/.part.parquet.crc", 25);
    file("t/rows/c/.hidden", 25);
    file("other/.part.parquet.4711-14", 25);
    assert_eq!(run(all_pages(&store, "t/")), [""; 0]);
    let is_there = |name: &str| folder.path().join(name).exists();
    assert!(!is_there("t/rows/a"), "the folder is gone as well");
    assert!(
        is_there("t/rows/b/.part.parquet.4711-13"),
        "it may be on its way"
    );
    assert!(is_there("t/rows/c/.part.parquet.crc") && is_there("t/rows/c/.hidden"));
    assert!(is_there("other/.part.parquet.4711-14"), "it is not listed");
}

#[test]
fn local_store_hides_what_a_crash_left_and_stays_below_its_root() {
    let folder = tempfile::tempdir().unwrap();
    let store = local(folder.path());
    run(async {
        store.put("a/f", Bytes::from_static(b"1")).await.unwrap();
        fs::write(folder.path().join("a/.f.1-2"), "half").unwrap();
        assert_eq!(all_pages(&store, "").await, ["a/f"]);
        for key in ["../f", "/etc/f", "a//f", "", "a/../../f"] {
            assert!(store.put(key, Bytes::new()).await.is_err(), "{key}");
        }
    });
}

#[test]
fn local_errors_say_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    let error = run(local(&folder.path().join("file")).put("a/f", Bytes::new())).unwrap_err();
    assert!(error.to_string().contains("cannot write file"), "{error}");
    let full = directory::file_error("write", Path::new("w/f"), &io::Error::from_raw_os_error(28));
    assert_eq!(
        full.text,
        "cannot write file \"w/f\": No space left on device (os error 28); free some space"
    );
}

#[test]
fn bad_settings_are_refused_before_any_request() {
    let open = |config: &S3Config| {
        Store::open(&place("s3a://spark/w"), config)
            .unwrap_err()
            .text
    };
    let error = open(&config("127.0.0.1:80", "", ""));
    assert!(
        error.contains("no scheme; write http://host:port"),
        "{error}"
    );
    let bad_ca = S3Config {
        ca_pem: Some("hello".to_owned()),
        ..config("https://s3", "", "")
    };
    assert!(open(&bad_ca).contains("no certificate in it"));
}

#[test]
fn secrets_are_not_printed() {
    let config = config("http://127.0.0.1:1", "key-id", "very-secret");
    let store = Store::open(&place("s3a://spark/w"), &config).unwrap();
    let printed = format!("{config:?} {store:?}");
    assert!(
        !printed.contains("very-secret") && !printed.contains("key-id"),
        "{printed}"
    );
}

fn impatient(endpoint: &str) -> Store {
    let limits = s3::Limits {
        connect: Duration::from_millis(500),
        answer: Duration::from_millis(500),
        attempts: 2,
        ..s3::Limits::default()
    };
    let store = S3Store::new(
        &config(endpoint, "key", "very-secret"),
        "spark".to_owned(),
        "w".to_owned(),
        limits,
    );
    Store::S3(store.unwrap())
}

#[test]
fn unreachable_store_is_an_error_within_its_time() {
    // One that refuses, one that takes the connection and never answers, one that is no S3 at all.
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for (endpoint, cause) in [
        (format!("http://{closed}"), "Connection refused"),
        (
            format!("http://{}", silent.local_addr().unwrap()),
            "no answer in time",
        ),
        ("http://no-such-host.invalid".to_owned(), "cannot reach"),
    ] {
        let start = Instant::now();
        let error = run(impatient(&endpoint).put("a", Bytes::from_static(b"1"))).unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Unreachable, "{error}");
        assert!(error.text.contains(cause), "{error}");
        assert!(
            error
                .text
                .starts_with("cannot write object \"a\" in bucket \"spark\": cannot reach http://"),
            "{error}"
        );
        assert!(!error.text.contains("very-secret"));
        assert!(
            start.elapsed() < Duration::from_secs(8),
            "{:?}",
            start.elapsed()
        );
    }
}

/// What becomes of a PUT that is answered with these bytes.
fn put_answered(scheme: &str, answer: Vec<u8>) -> StoreError {
    let endpoint = format!("{scheme}://{}", answering(answer));
    run(impatient(&endpoint).put("a", Bytes::from_static(b"1"))).unwrap_err()
}

/// The address of a server that answers everything with these bytes.
fn answering(answer: Vec<u8>) -> std::net::SocketAddr {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(&answer);
        }
    });
    address
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table of answers")]
fn each_refusal_has_its_cause_and_says_what_to_do() {
    let xml = |status: u16, headers: &str, code: &str, more: &str| {
        let body = format!("<Error><Code>{code}</Code><Message>m.</Message>{more}</Error>");
        let length = body.len();
        format!("HTTP/1.1 {status} X\r\n{headers}Content-Length: {length}\r\n\r\n{body}")
    };
    let plain = "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";
    let malformed = "<Region>eu-west-1</Region>";
    for (answer, cause, text) in [
        (
            xml(403, "", "AccessDenied", ""),
            Some(Cause::S3Rights),
            "cannot write object \"a\" in bucket \"spark\": access denied; allow the user of \
             s3-access-key to write objects there",
        ),
        (
            "HTTP/1.1 403 X\r\nContent-Length: 0\r\n\r\n".to_owned(),
            Some(Cause::S3Rights),
            "access denied",
        ),
        (
            xml(403, "", "InvalidAccessKeyId", ""),
            Some(Cause::LoginS3),
            "the S3 key is not accepted (InvalidAccessKeyId)",
        ),
        (
            xml(403, "", "SignatureDoesNotMatch", ""),
            Some(Cause::LoginS3),
            "give the right s3-access-key and s3-secret-key",
        ),
        (
            xml(400, "", "ExpiredToken", ""),
            Some(Cause::LoginS3),
            "(ExpiredToken)",
        ),
        (
            xml(404, "", "NoSuchBucket", ""),
            Some(Cause::NoBucket),
            "create bucket \"spark\"",
        ),
        (
            xml(403, "", "RequestTimeTooSkewed", ""),
            Some(Cause::Clocks),
            "set the wrong one, best by NTP",
        ),
        (
            xml(400, "", "AuthorizationHeaderMalformed", malformed),
            Some(Cause::S3Region),
            "the bucket is in region \"eu-west-1\"; set s3.region to that",
        ),
        (
            xml(
                301,
                "x-amz-bucket-region: eu_west\r\n",
                "PermanentRedirect",
                "",
            ),
            Some(Cause::S3Region),
            "the bucket is in region \"eu_west\"; set s3.region to that",
        ),
        (
            xml(507, "", "XMinioStorageFull", ""),
            None,
            "answered 507: XMinioStorageFull: m; it is tried again",
        ),
        (
            plain.to_owned(),
            Some(Cause::TlsS3),
            "speaks TLS; write https:// in s3.endpoint",
        ),
        (
            // A server of TLS that ends the connection with an alert.
            "\x15\x03\x01\x00\x02\x02\x46".to_owned(),
            Some(Cause::TlsS3),
            "speaks TLS; write https:// in s3.endpoint",
        ),
    ] {
        let error = put_answered("http", answer.clone().into_bytes());
        assert!(error.text.contains(text), "{answer}\n{error}");
        assert_eq!(Trouble::from(error).cause, cause, "{answer}");
    }
    let error = put_answered("https", plain.as_bytes().to_vec());
    assert!(
        error
            .text
            .contains("does not speak TLS: write http:// in s3.endpoint"),
        "{error}"
    );
    let cause = Trouble::from(error).cause;
    assert_eq!(cause, Some(Cause::NoTlsS3), "no CA would help");
}

/// A forward proxy on loopback: tunnels what is asked by CONNECT, and answers 200 to all else
/// itself, or 407.
struct Proxy {
    address: std::net::SocketAddr,
    /// First line and `Proxy-Authorization` of each request.
    seen: Arc<Mutex<Vec<(String, String)>>>,
    refuses: Arc<AtomicBool>,
}

impl Proxy {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, refuses) = (
            Arc::<Mutex<Vec<_>>>::default(),
            Arc::<AtomicBool>::default(),
        );
        let (to, refuse) = (Arc::clone(&seen), Arc::clone(&refuses));
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (to, refuse) = (Arc::clone(&to), Arc::clone(&refuse));
                std::thread::spawn(move || Self::serve(client.unwrap(), &to, &refuse));
            }
        });
        Self {
            address,
            seen,
            refuses,
        }
    }

    fn serve(mut client: TcpStream, seen: &Mutex<Vec<(String, String)>>, refuses: &AtomicBool) {
        let mut reader = BufReader::new(client.try_clone().unwrap());
        loop {
            let (mut first, mut login, mut length) = (String::new(), String::new(), 0);
            if reader.read_line(&mut first).unwrap_or(0) == 0 {
                return;
            }
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                let Some((name, value)) = line.trim_end().split_once(": ") else {
                    break;
                };
                match name.to_lowercase().as_str() {
                    "proxy-authorization" => value.clone_into(&mut login),
                    "content-length" => length = value.parse().unwrap(),
                    _ => {}
                }
            }
            std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink()).unwrap();
            seen.lock()
                .unwrap()
                .push((first.trim_end().to_owned(), login));
            if refuses.load(Ordering::SeqCst) {
                let no = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n";
                client.write_all(no).unwrap();
            } else if let Some(to) = first.strip_prefix("CONNECT ") {
                let server = TcpStream::connect(to.split(' ').next().unwrap()).unwrap();
                client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
                let (mut from, mut back) =
                    (server.try_clone().unwrap(), client.try_clone().unwrap());
                std::thread::spawn(move || std::io::copy(&mut from, &mut back));
                let _ = std::io::copy(&mut reader, &mut &server);
                return;
            } else {
                client
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                    .unwrap();
            }
        }
    }

    fn url(&self, login: &str) -> Secret {
        Secret::new(format!("http://{login}{}", self.address))
    }

    fn seen(&self) -> Vec<(String, String)> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

fn through(proxy: Option<Secret>, no_proxy: &[&str], endpoint: &str) -> Store {
    let limits = s3::Limits {
        connect: Duration::from_secs(2),
        attempts: 1,
        ..s3::Limits::default()
    };
    let no_proxy = no_proxy.iter().map(|&rule| rule.to_owned()).collect();
    let mut config = config(endpoint, "key", "very-secret");
    config.proxy = proxy;
    config.settings.no_proxy = no_proxy;
    Store::S3(S3Store::new(&config, "spark".to_owned(), "w".to_owned(), limits).unwrap())
}

fn put(store: &Store) -> Result<(), StoreError> {
    run(store.put("a", Bytes::from_static(b"1")))
}

#[test]
fn s3_goes_through_its_proxy_and_what_is_excepted_does_not() {
    let proxy = Proxy::new();
    let own = format!("http://{}", proxy.address);
    let used = || {
        proxy
            .seen()
            .into_iter()
            .map(|(line, _)| line)
            .collect::<Vec<_>>()
    };
    let store = through(
        Some(proxy.url("me:p%40ss-word@")),
        &["10.0.0.0/8", "other.invalid"],
        "http://s3.invalid:9000",
    );
    put(&store).unwrap();
    let put_there = "PUT http://s3.invalid:9000/spark/w/a?x-id=PutObject HTTP/1.1".to_owned();
    // me:p@ss-word
    assert_eq!(
        proxy.seen(),
        [(put_there.clone(), "Basic bWU6cEBzcy13b3Jk".to_owned())]
    );

    for rules in [&["s3.invalid"][..], &[".invalid"], &["invalid"], &["*"]] {
        let error = put(&through(
            Some(proxy.url("")),
            rules,
            "http://s3.invalid:9000",
        ))
        .unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Unreachable, "{rules:?} {error}");
        assert_eq!(used(), [""; 0], "{rules:?}");
    }
    // The request goes straight to the server: it names the path alone, as it does not for a proxy.
    for rules in [&["127.0.0.0/8"][..], &["10.0.0.1", "127.0.0.1"]] {
        put(&through(Some(proxy.url("")), rules, &own)).unwrap();
        assert_eq!(
            used(),
            ["PUT /spark/w/a?x-id=PutObject HTTP/1.1"],
            "{rules:?}"
        );
    }

    // A proxy that comes and goes with the secrets counts for all stores of the bucket.
    let store = through(None, &[], "http://s3.invalid:9000");
    let other = store.elsewhere(&place("s3a://spark/other")).unwrap();
    assert!(store.elsewhere(&place("s3a://spark2/other")).is_err());
    put(&other).unwrap_err();
    store.set_proxy(Some(&proxy.url(""))).unwrap();
    put(&other).unwrap();
    store.set_credentials("key", "secret");
    put(&store).unwrap();
    assert_eq!(used(), [put_there.replace("/w/", "/other/"), put_there]);
    store.set_proxy(None).unwrap();
    put(&other).unwrap_err();
    assert_eq!(used(), [""; 0]);
}

#[test]
fn what_a_proxy_forbids_is_not_the_keys_rights() {
    let html = "<html><body>Access denied by the administrator</body></html>";
    let length = html.len();
    let no = format!("HTTP/1.1 403 Forbidden\r\nContent-Length: {length}\r\n\r\n{html}");
    let address = answering(no.into_bytes());
    let proxy = Secret::new(format!("http://me:hunter2@{address}"));
    let error = put(&through(Some(proxy), &[], "http://s3.invalid")).unwrap_err();
    assert_eq!(Trouble::from(error.clone()).cause, Some(Cause::S3Proxy));
    assert!(
        error
            .text
            .contains("forbids it; allow http://s3.invalid there"),
        "{error}"
    );
    // Without a proxy it can only be the store.
    let error = put(&through(None, &[], &format!("http://{address}"))).unwrap_err();
    assert_eq!(Trouble::from(error).cause, Some(Cause::S3Rights));
}

#[test]
fn proxys_password_is_never_said() {
    let proxy = Proxy::new();
    let url = proxy.url("me:hunter2@");
    let gone = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let gone = Secret::new(format!("http://me:hunter2@{gone}/"));
    for (scheme, kind) in [
        ("http", StoreErrorKind::Proxy),
        ("https", StoreErrorKind::Proxy),
    ] {
        proxy.refuses.store(true, Ordering::SeqCst);
        let endpoint = format!("{scheme}://s3.invalid");
        let refused = put(&through(Some(url.clone()), &[], &endpoint)).unwrap_err();
        assert_eq!(refused.kind, kind, "{refused}");
        let dead = put(&through(Some(gone.clone()), &[], &endpoint)).unwrap_err();
        assert_eq!(dead.kind, StoreErrorKind::Unreachable, "{dead}");
        assert!(
            dead.text.contains("cannot reach") && dead.text.contains(" through http://127.0.0.1:"),
            "{dead}"
        );
        for error in [refused, dead] {
            println!("{error}");
            assert!(
                !error.text.contains("hunter2") && error.text.contains("http://127.0.0.1:"),
                "{error}"
            );
        }
    }
    assert!(
        proxy
            .seen()
            .iter()
            .any(|(line, _)| line.starts_with("CONNECT s3.invalid:443 "))
    );
    let store = through(Some(url.clone()), &[], "http://s3.invalid");
    let config = S3Config {
        proxy: Some(url),
        ..config("http://s3.invalid", "", "")
    };
    assert!(!format!("{store:?}{config:?}").contains("hunter2"));
    let error = store
        .set_proxy(Some(&Secret::new("socks5://me:hunter2@proxy")))
        .unwrap_err();
    assert!(
        error.text.contains("not the address of a proxy") && !error.text.contains("hunter2"),
        "{error}"
    );
}

#[test]
fn environments_proxy_is_not_used() {
    const ASKED: &str = "WINDROW_TEST_ENDPOINT";
    if let Ok(endpoint) = std::env::var(ASKED) {
        return put(&through(None, &[], &endpoint)).unwrap();
    }
    // A process of its own, as this one's environment is all tests'.
    let (server, proxy) = (Proxy::new(), Proxy::new());
    let url = format!("http://{}", proxy.address);
    let mut again = std::process::Command::new(std::env::current_exe().unwrap());
    again.args([
        "--exact",
        "io::store::tests::environments_proxy_is_not_used",
    ]);
    for name in [
        "HTTP_PROXY",
        "http_proxy",
        "HTTPS_PROXY",
        "https_proxy",
        "ALL_PROXY",
        "all_proxy",
    ] {
        again.env(name, &url);
    }
    let output = again
        .env(ASKED, format!("http://{}", server.address))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}"
    );
    assert_eq!((server.seen().len(), proxy.seen().len()), (1, 0));
}

#[test]
#[ignore = "needs MinIO with TLS: make parts-up"]
fn s3_over_tls_goes_through_a_tunnel() {
    let endpoint = std::env::var("WINDROW_TEST_S3_TLS").unwrap();
    let ca_pem = fs::read_to_string(std::env::var("WINDROW_TEST_S3_CA").unwrap()).unwrap();
    let proxy = Proxy::new();
    let host = endpoint.strip_prefix("https://").unwrap().to_owned();
    let mut config = minio(USER.0, USER.1);
    config.settings.endpoint = Some(endpoint);
    config.ca_pem = Some(ca_pem);
    config.proxy = Some(proxy.url("me:hunter2@"));
    run(Store::open(&place("s3a://spark/store-tunnel"), &config)
        .unwrap()
        .check())
    .unwrap();
    let seen = proxy.seen();
    let login = "Basic bWU6aHVudGVyMg=="; // me:hunter2
    assert!(!seen.is_empty(), "the proxy was asked");
    for (line, of) in seen {
        assert_eq!(
            (line, of.as_str()),
            (format!("CONNECT {host} HTTP/1.1"), login)
        );
    }
}

/// What MinIO is reached by: `make parts-up` says it.
fn minio(key: &str, secret: &str) -> S3Config {
    let env = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
    config(&env("WINDROW_TEST_S3"), &env(key), &env(secret))
}

fn of_minio(warehouse: &str, key: &str, secret: &str) -> Store {
    Store::open(&place(warehouse), &minio(key, secret)).unwrap()
}

const USER: (&str, &str) = ("WINDROW_TEST_S3_KEY", "WINDROW_TEST_S3_SECRET");

#[test]
#[ignore = "needs MinIO: make parts-up"]
fn s3_store_does_all_cases() {
    let folder = format!("s3a://spark/store-test/{}", std::process::id());
    let store = of_minio(&folder, USER.0, USER.1);
    run(async {
        cases(&store).await;
        uploads(&store).await;
        puts_and_deletes_side_by_side(&store).await;
    });
}

/// What a crash leaves of an upload is in no listing of objects, and costs its bytes for ever.
#[test]
#[ignore = "needs MinIO: make parts-up"]
fn s3_uploads_that_were_left_behind_are_aborted_once_they_are_old() {
    let folder = format!("s3a://spark/store-uploads/{}", std::process::id());
    let store = of_minio(&folder, USER.0, USER.1);
    run(async {
        let mut left = store.upload("u/left");
        left.add(piece(1)).await.unwrap();
        let mut other = store.upload("u/other");
        other.add(piece(2)).await.unwrap();
        // MinIO lists the uploads of a whole key only.
        assert_eq!(store.abort_uploads("u/left", 600_000).await, Ok(0), "young");
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(store.abort_uploads("u/left", 500).await, Ok(1));
        assert_eq!(store.abort_uploads("u/left", 0).await, Ok(0), "it is gone");
        let error = left.add(piece(3)).await.unwrap_err();
        assert!(error.text.contains("NoSuchUpload"), "{error}");
        other.finish(Bytes::from_static(b"end")).await.unwrap();
        assert_eq!(all_pages(&store, "").await, ["u/other"]);
        store.delete(vec!["u/other".to_owned()]).await;
    });
}

/// The answer to a completion was lost, and the SDK sent it again.
#[test]
#[ignore = "needs MinIO: make parts-up"]
fn s3_completed_upload_may_be_completed_again() {
    let folder = format!("s3a://spark/store-twice/{}", std::process::id());
    let Store::S3(s3) = of_minio(&folder, USER.0, USER.1) else {
        panic!("it is S3")
    };
    run(async {
        let mut parts = s3.begin_parts("k").await.unwrap();
        s3.put_part("k", &mut parts, piece(1)).await.unwrap();
        s3.complete_parts("k", &parts).await.unwrap();
        s3.complete_parts("k", &parts).await.unwrap();
        s3.abort_parts("k", &parts).await;
        assert_eq!(s3.delete(vec!["k".to_owned()]).await.kept, [""; 0]);
        let error = s3.complete_parts("k", &parts).await.unwrap_err();
        assert!(error.text.contains("NoSuchUpload"), "{error}");
    });
}

#[test]
#[ignore = "needs MinIO: make parts-up"]
fn s3_lists_more_than_one_page() {
    let store = of_minio(
        &format!("s3a://spark/store-pages/{}", std::process::id()),
        USER.0,
        USER.1,
    );
    run(async {
        let keys: Vec<String> = (0..1010).map(|i| format!("k/{i:04}")).collect();
        for some in keys.chunks(16) {
            let mut puts = JoinSet::new();
            for key in some {
                let (store, key) = (store.clone(), key.clone());
                puts.spawn(async move { store.put(&key, Bytes::from_static(b"1")).await.unwrap() });
            }
            puts.join_all().await;
        }
        let stuck = format!("k/{}", "x".repeat(1100));
        deletes_all_but(&store, "k/", &keys[..5], stuck).await;
        let keys = keys[5..].to_vec();
        assert_eq!(all_pages(&store, "k/").await, keys);
        assert_eq!(store.delete(keys).await.kept, [""; 0]);
        assert_eq!(all_pages(&store, "").await, [""; 0]);
    });
}

#[test]
#[ignore = "needs MinIO: make parts-up"]
fn s3_refusals_have_their_kind_and_credentials_can_change() {
    run(async {
        let kind = |result: Result<(), StoreError>| {
            let error = result.unwrap_err();
            println!("{error}");
            for secret in [
                USER.1,
                "WINDROW_TEST_S3_READONLY_SECRET",
                "WINDROW_TEST_S3_ROOT_SECRET",
            ] {
                assert!(
                    !error.text.contains(&std::env::var(secret).unwrap()),
                    "{error}"
                );
            }
            error.kind
        };
        let put = async |store: &Store| kind(store.put("denied", Bytes::from_static(b"1")).await);
        let readonly = of_minio(
            "s3a://spark/w",
            "WINDROW_TEST_S3_READONLY_KEY",
            "WINDROW_TEST_S3_READONLY_SECRET",
        );
        assert_eq!(put(&readonly).await, StoreErrorKind::Denied);
        assert_eq!(
            kind(
                readonly
                    .delete(vec!["denied".to_owned()])
                    .await
                    .first_error
                    .map_or(Ok(()), Err)
            ),
            StoreErrorKind::Denied
        );
        assert_eq!(kind(readonly.check().await), StoreErrorKind::Denied);
        let root = ("WINDROW_TEST_S3_ROOT_KEY", "WINDROW_TEST_S3_ROOT_SECRET");
        assert_eq!(
            put(&of_minio("s3a://no-such-bucket/w", root.0, root.1)).await,
            StoreErrorKind::NoBucket
        );
        let list = of_minio("s3a://no-such-bucket/w", root.0, root.1)
            .list_page("", None)
            .await;
        assert_eq!(kind(list.map(drop)), StoreErrorKind::NoBucket);

        let wrong = S3Config {
            secret_key: "wrong".to_owned(),
            ..minio(USER.0, USER.1)
        };
        let store = Store::open(&place("s3a://spark/store-keys"), &wrong).unwrap();
        assert_eq!(put(&store).await, StoreErrorKind::BadKey);
        store.set_credentials("nobody", "wrong");
        assert_eq!(put(&store).await, StoreErrorKind::BadKey);
        let right = minio(USER.0, USER.1);
        store.set_credentials(&right.access_key, &right.secret_key);
        store.check().await.unwrap();
    });
}

#[test]
#[ignore = "needs MinIO with TLS: make parts-up"]
fn s3_over_tls_needs_the_given_ca() {
    let endpoint = std::env::var("WINDROW_TEST_S3_TLS").unwrap();
    let ca_pem = fs::read_to_string(std::env::var("WINDROW_TEST_S3_CA").unwrap()).unwrap();
    let mut without = minio(USER.0, USER.1);
    without.settings.endpoint = Some(endpoint);
    let with = S3Config {
        ca_pem: Some(ca_pem),
        ..without.clone()
    };
    run(async {
        Store::open(&place("s3a://spark/store-tls"), &with)
            .unwrap()
            .check()
            .await
            .unwrap();
        let error = Store::open(&place("s3a://spark/store-tls"), &without)
            .unwrap()
            .check()
            .await
            .unwrap_err();
        println!("{error}");
        assert_eq!(error.kind, StoreErrorKind::Tls);
        assert!(
            error
                .text
                .ends_with("give the CA that signed the store's certificate in s3.ca-file"),
            "{error}"
        );
    });
}
