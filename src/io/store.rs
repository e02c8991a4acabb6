//! The object store: S3 or a directory, one warehouse each. Keys are paths below the warehouse.
//! It decides nothing: what is stored under which key, and what follows from an error, is the caller's.

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, IdentityCache, Region, RequestChecksumCalculation,
    ResponseChecksumValidation, SharedHttpClient,
};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};
use aws_smithy_http_client::{Builder as HttpBuilder, Connector};
use bytes::Bytes;
use std::error::Error;
use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::task::JoinSet;

use super::roots::trusted_pem;

/// Where a table's files are.
#[derive(Clone, Debug)]
pub enum Store {
    S3(S3Store),
    Local(LocalStore),
}

/// How to reach an S3 service. The warehouse names the bucket.
#[derive(Clone)]
pub struct S3Config {
    /// `http://host:port` or `https://…`; `None` is AWS's own for the region.
    pub endpoint: Option<String>,
    pub region: String,
    /// The bucket in the path, not in the host name: what MinIO and Ceph want.
    pub path_style: bool,
    /// CA certificates in PEM, trusted beside Mozilla's.
    pub ca_pem: Option<String>,
    pub access_key: String,
    pub secret_key: String,
}

impl fmt::Debug for S3Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Config")
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .field("path_style", &self.path_style)
            .finish_non_exhaustive()
    }
}

/// What went wrong, for who counts or branches; each may pass, so all may be tried again later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// The key is known, and may not do this.
    Denied,
    NoBucket,
    /// Our clock and the store's differ by more than S3 allows (15 minutes).
    Clock,
    /// The access key is unknown or the secret key wrong: what a rotation looks like before we hear of it.
    BadKey,
    /// No connection, or no answer in time.
    Unreachable,
    Other,
}

/// A sentence that says what failed, why, and what to do. Never a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct StoreError {
    pub kind: StoreErrorKind,
    pub text: String,
}

/// A warehouse's place, read from its URI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// `prefix` has no slash at either end; empty is the whole bucket.
    Bucket {
        bucket: String,
        prefix: String,
    },
    Folder(PathBuf),
}

impl Place {
    /// Reads `s3a://bucket/prefix` (or `s3`, `s3n`), `file:///folder`, or a path.
    ///
    /// # Errors
    /// Which part is wrong and what is allowed.
    pub fn parse(warehouse: &str) -> Result<Self, String> {
        let wrong = |cause: &str| {
            Err(format!(
                "cannot parse warehouse \"{warehouse}\": {cause}; write s3a://bucket/folder or a directory"
            ))
        };
        if warehouse.is_empty() {
            return wrong("it is empty");
        }
        if let Some(path) = warehouse.strip_prefix("file:") {
            // file:/path and file:///path are the same; file://host/path is a host we do not know.
            let path = path.strip_prefix("//").unwrap_or(path);
            let folder = PathBuf::from(path);
            return if folder.is_absolute() {
                Ok(Place::Folder(folder))
            } else {
                wrong("not an absolute path")
            };
        }
        let Some((scheme, rest)) = warehouse.split_once("://") else {
            return Ok(Place::Folder(PathBuf::from(warehouse)));
        };
        if !matches!(scheme, "s3" | "s3a" | "s3n") {
            return wrong(&format!("unknown scheme \"{scheme}\""));
        }
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_matches('/');
        if bucket.is_empty() {
            return wrong("no bucket");
        }
        if prefix.split('/').any(|part| matches!(part, "." | "..")) || prefix.contains("//") {
            return wrong("its folder is not a plain path");
        }
        Ok(Place::Bucket { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }
}

impl Store {
    /// The store of this warehouse. Nothing is asked of it yet; see [`Store::check`]. `s3` is not looked at for a
    /// directory. Proxies are taken from `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`.
    ///
    /// # Errors
    /// The warehouse, endpoint or CA certificates make no sense.
    pub fn open(warehouse: &str, s3: &S3Config) -> Result<Self, StoreError> {
        let other = |text| StoreError { kind: StoreErrorKind::Other, text };
        Ok(match Place::parse(warehouse).map_err(other)? {
            Place::Folder(root) => Store::Local(LocalStore { root }),
            Place::Bucket { bucket, prefix } => {
                Store::S3(S3Store::new(s3, bucket, prefix, Limits::default()).map_err(other)?)
            }
        })
    }

    /// Stores an object under its key, whole or not at all; once this returns it stays through a crash. Storing the
    /// same bytes again is harmless.
    ///
    /// # Errors
    /// The object may be there or not; put it again.
    pub async fn put(&self, key: &str, bytes: impl Into<Bytes>) -> Result<(), StoreError> {
        let bytes = bytes.into();
        match self {
            Store::S3(s3) => s3.put(key, bytes).await,
            Store::Local(local) => local.put(key, bytes).await,
        }
    }

    /// The object's bytes; `None` when there is no such object.
    ///
    /// # Errors
    /// See [`StoreErrorKind`].
    pub async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        match self {
            Store::S3(s3) => s3.get(key).await,
            Store::Local(local) => local.get(key).await,
        }
    }

    /// Deletes the objects; one that is not there is no error.
    ///
    /// # Errors
    /// The first that failed; all were tried.
    pub async fn delete(&self, keys: &[String]) -> Result<(), StoreError> {
        match self {
            Store::S3(s3) => s3.delete(keys).await,
            Store::Local(local) => local.delete(keys).await,
        }
    }

    /// Keys that begin with `prefix` (as text) and the objects' sizes in bytes, in order of the keys.
    ///
    /// # Errors
    /// See [`StoreErrorKind`].
    pub async fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, StoreError> {
        match self {
            Store::S3(s3) => s3.list(prefix).await,
            Store::Local(local) => local.list(prefix).await,
        }
    }

    /// Whether objects can be written, read and deleted, which is tried with one of no meaning.
    ///
    /// # Errors
    /// What cannot be done, and why.
    pub async fn check(&self) -> Result<(), StoreError> {
        // Others may check at the same moment, so that it is read says nothing, only that it may be.
        const KEY: &str = "_windrow/check";
        self.put(KEY, Bytes::from_static(b"windrow\n")).await?;
        self.get(KEY).await?;
        self.delete(&[KEY.to_owned()]).await
    }

    /// Takes other credentials from the next request on.
    pub fn set_credentials(&self, access_key: &str, secret_key: &str) {
        if let Store::S3(s3) = self {
            s3.set_credentials(access_key, secret_key);
        }
    }
}

/// How long to wait. An attempt's time grows with the bytes it sends.
#[derive(Clone, Copy, Debug)]
struct Limits {
    connect: Duration,
    answer: Duration,
    /// Slowest sending that is still waited for.
    bytes_per_second: u64,
    attempts: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(3),
            answer: Duration::from_secs(20),
            bytes_per_second: 128 * 1024,
            attempts: 3,
        }
    }
}

/// A bucket, or a folder of it.
#[derive(Clone)]
pub struct S3Store {
    inner: Arc<S3Inner>,
}

struct S3Inner {
    endpoint: String,
    bucket: String,
    /// Ends in a slash, or is empty.
    prefix: String,
    limits: Limits,
    /// Replaced as a whole when the credentials are.
    client: RwLock<Client>,
}

impl fmt::Debug for S3Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let S3Inner { endpoint, bucket, prefix, .. } = &*self.inner;
        write!(f, "S3Store({endpoint} {bucket}/{prefix})")
    }
}

/// Deletes under way at once.
const DELETES_MAX: usize = 16;

impl S3Store {
    fn new(config: &S3Config, bucket: String, prefix: String, limits: Limits) -> Result<Self, String> {
        if let Some(endpoint) = &config.endpoint
            && !["http://", "https://"].iter().any(|scheme| endpoint.starts_with(scheme))
        {
            return Err(format!(
                "cannot parse s3 endpoint \"{endpoint}\": no scheme; write http://host:port or https://host"
            ));
        }
        let tls = !config.endpoint.as_ref().is_some_and(|e| e.starts_with("http://"));
        let trusted = trusted_pem(config.ca_pem.as_deref());
        let trusted = trusted.map_err(|cause| format!("cannot read CA certificates of s3: {cause}"))?;
        let mut settings = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .http_client(http_client(tls.then_some(trusted)))
            .region(Region::new(config.region.clone()))
            .force_path_style(config.path_style)
            // The checksums that SDKs send by themselves since 2025 break older MinIO and Ceph.
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .retry_config(
                RetryConfig::standard()
                    .with_max_attempts(limits.attempts)
                    .with_initial_backoff(Duration::from_millis(100))
                    .with_max_backoff(Duration::from_secs(2)),
            )
            .timeout_config(limits.timeouts(0))
            // Credentials that were replaced count at once.
            .identity_cache(IdentityCache::no_cache())
            .credentials_provider(credentials(&config.access_key, &config.secret_key));
        settings.set_endpoint_url(config.endpoint.clone());
        let client = Client::from_conf(settings.build());
        let endpoint = config.endpoint.clone().unwrap_or_else(|| format!("AWS {}", config.region));
        let prefix = if prefix.is_empty() { prefix } else { prefix + "/" };
        let client = RwLock::new(client);
        Ok(Self { inner: Arc::new(S3Inner { endpoint, bucket, prefix, limits, client }) })
    }

    fn client(&self) -> Client {
        self.inner.client.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_credentials(&self, access_key: &str, secret_key: &str) {
        let mut client = self.inner.client.write().unwrap_or_else(PoisonError::into_inner);
        // The builder keeps the HTTP client, and with it the open connections.
        let config =
            client.config().to_builder().credentials_provider(credentials(access_key, secret_key)).build();
        *client = Client::from_conf(config);
    }

    fn path(&self, key: &str) -> String {
        format!("{}{key}", self.inner.prefix)
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        let timeouts = self.inner.limits.timeouts(bytes.len() as u64);
        self.client()
            .put_object()
            .bucket(&self.inner.bucket)
            .key(self.path(key))
            .body(ByteStream::from(bytes))
            .customize()
            .config_override(aws_sdk_s3::Config::builder().timeout_config(timeouts))
            .send()
            .await
            .map_err(|e| self.error("write", key, &e))?;
        Ok(())
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let answer = self.client().get_object().bucket(&self.inner.bucket).key(self.path(key)).send().await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(e) if e.as_service_error().is_some_and(|e| e.is_no_such_key()) => return Ok(None),
            Err(e) => return Err(self.error("read", key, &e)),
        };
        // A store that stalls in the middle is noticed by the SDK's stalled stream protection.
        match answer.body.collect().await {
            Ok(body) => Ok(Some(body.to_vec())),
            Err(e) => Err(self.unreachable("read", key, &root_cause(&e))),
        }
    }

    /// One request for each: the request that deletes many needs a checksum or MD5, and stores differ on which.
    async fn delete(&self, keys: &[String]) -> Result<(), StoreError> {
        let mut first = Ok(());
        for some in keys.chunks(DELETES_MAX) {
            let mut requests = JoinSet::new();
            for key in some.iter().cloned() {
                let store = self.clone();
                requests.spawn(async move { store.delete_one(&key).await });
            }
            for result in requests.join_all().await {
                first = first.and(result);
            }
        }
        first
    }

    async fn delete_one(&self, key: &str) -> Result<(), StoreError> {
        let answer =
            self.client().delete_object().bucket(&self.inner.bucket).key(self.path(key)).send().await;
        match answer {
            Err(e) if e.as_service_error().and_then(ProvideErrorMetadata::code) == Some("NoSuchKey") => {
                Ok(())
            }
            Err(e) => Err(self.error("delete", key, &e)),
            Ok(_) => Ok(()),
        }
    }

    async fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, StoreError> {
        let mut found = Vec::new();
        let mut from = None;
        loop {
            let request =
                self.client().list_objects_v2().bucket(&self.inner.bucket).prefix(self.path(prefix));
            let page = request.set_continuation_token(from).send().await;
            let page = page.map_err(|e| self.error("list", prefix, &e))?;
            for object in page.contents() {
                if let Some(key) = object.key().and_then(|key| key.strip_prefix(&self.inner.prefix)) {
                    found.push((
                        key.to_owned(),
                        object.size().and_then(|n| u64::try_from(n).ok()).unwrap_or(0),
                    ));
                }
            }
            from = page.next_continuation_token().map(str::to_owned);
            if from.is_none() {
                break;
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    fn error<E>(&self, verb: &str, key: &str, error: &SdkError<E>) -> StoreError
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        match error {
            SdkError::ServiceError(answer) => {
                let status = answer.raw().status().as_u16();
                self.refusal(
                    verb,
                    key,
                    status,
                    answer.err().code().unwrap_or(""),
                    answer.err().message().unwrap_or(""),
                )
            }
            SdkError::TimeoutError(_) => self.unreachable(verb, key, "no answer in time"),
            _ => self.unreachable(verb, key, &root_cause(error)),
        }
    }

    /// What the service said no to. Codes: Amazon S3 API reference, "Error responses".
    fn refusal(&self, verb: &str, key: &str, status: u16, code: &str, message: &str) -> StoreError {
        use StoreErrorKind::{BadKey, Clock, Denied, NoBucket, Other};
        let bucket = &self.inner.bucket;
        let (kind, why) = match code {
            "InvalidAccessKeyId"
            | "SignatureDoesNotMatch"
            | "InvalidToken"
            | "ExpiredToken"
            | "TokenRefreshRequired" => (
                BadKey,
                format!(
                    "the S3 key is not accepted ({code}); give the right s3-access-key and s3-secret-key"
                ),
            ),
            "RequestTimeTooSkewed" | "RequestExpired" => (
                Clock,
                "the clocks of this machine and of the store differ too much; set both by NTP".to_owned(),
            ),
            "NoSuchBucket" => {
                (NoBucket, format!("no such bucket; create bucket \"{bucket}\" or correct the warehouse"))
            }
            "AccessDenied" | "AllAccessDisabled" | "AccountProblem" => {
                (Denied, format!("access denied; allow the user of s3-access-key to {verb} objects there"))
            }
            "" if status == 403 => {
                (Denied, format!("access denied; allow the user of s3-access-key to {verb} objects there"))
            }
            "AuthorizationHeaderMalformed"
            | "PermanentRedirect"
            | "TemporaryRedirect"
            | "IllegalLocationConstraintException" => (
                Other,
                format!(
                    "the bucket is in another region ({}); correct the s3 region or endpoint",
                    cut(message)
                ),
            ),
            _ => {
                let said =
                    [code, message].into_iter().filter(|s| !s.is_empty()).collect::<Vec<_>>().join(": ");
                let said = if said.is_empty() { "without a reason".to_owned() } else { cut(&said) };
                (Other, format!("{} answered {status}: {said}; it is tried again", self.inner.endpoint))
            }
        };
        StoreError { kind, text: format!("cannot {verb} object \"{key}\" in bucket \"{bucket}\": {why}") }
    }

    fn unreachable(&self, verb: &str, key: &str, cause: &str) -> StoreError {
        let S3Inner { endpoint, bucket, .. } = &*self.inner;
        let advice = if cause.contains("certificate") {
            "give the CA of the store's certificate"
        } else {
            "check the s3 endpoint and that the store is running"
        };
        let text = format!(
            "cannot {verb} object \"{key}\" in bucket \"{bucket}\": cannot reach {endpoint}: {}; {advice}",
            cut(cause)
        );
        StoreError { kind: StoreErrorKind::Unreachable, text }
    }
}

impl Limits {
    fn timeouts(&self, bytes: u64) -> TimeoutConfig {
        TimeoutConfig::builder()
            .connect_timeout(self.connect)
            .operation_attempt_timeout(self.answer + Duration::from_secs(bytes / self.bytes_per_second))
            .build()
    }
}

fn credentials(access_key: &str, secret_key: &str) -> Credentials {
    Credentials::new(access_key, secret_key, None, None, "windrow")
}

/// An HTTP client with proxies from the environment; with `trusted` CA certificates it speaks TLS too.
fn http_client(trusted: Option<String>) -> SharedHttpClient {
    let tls = trusted.map(|pem| {
        let store = TrustStore::empty().with_pem_certificate(pem);
        TlsContext::builder().with_trust_store(store).build().expect("certificates were checked")
    });
    // Called once; the connector is kept by the client it returns.
    HttpBuilder::new().build_with_connector_fn(move |settings, components| {
        let mut connector = Connector::builder().proxy_config(ProxyConfig::from_env());
        connector.set_connector_settings(settings.cloned());
        connector.set_sleep_impl(components.and_then(|c| c.sleep_impl()));
        match &tls {
            Some(tls) => {
                connector.tls_provider(Provider::rustls(CryptoMode::Ring)).tls_context(tls.clone()).build()
            }
            None => connector.build_http(),
        }
    })
}

/// The innermost error: the outer ones only say that something inside failed.
fn root_cause(error: &dyn Error) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

/// What a stranger said, at a length that a status line bears.
fn cut(text: &str) -> String {
    text.trim().trim_end_matches('.').chars().take(200).collect()
}

/// A directory, for the demo, development and tests.
#[derive(Clone, Debug)]
pub struct LocalStore {
    root: PathBuf,
}

impl LocalStore {
    fn path(&self, key: &str) -> Result<PathBuf, StoreError> {
        if key.split('/').all(|part| !part.is_empty() && !part.starts_with('.')) {
            return Ok(self.root.join(key));
        }
        let text =
            format!("cannot use object key \"{key}\": it is not a plain path; this is a mistake in windrow");
        Err(StoreError { kind: StoreErrorKind::Other, text })
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        let path = self.path(key)?;
        blocking(move || write_durably(&path, &bytes).map_err(|e| file_error("write", &path, &e))).await
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.path(key)?;
        blocking(move || match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(file_error("read", &path, &e)),
        })
        .await
    }

    async fn delete(&self, keys: &[String]) -> Result<(), StoreError> {
        let paths = keys.iter().map(|key| self.path(key)).collect::<Result<Vec<_>, _>>()?;
        let root = self.root.clone();
        blocking(move || {
            let mut first = Ok(());
            for path in paths {
                first = first.and(remove(&root, &path).map_err(|e| file_error("delete", &path, &e)));
            }
            first
        })
        .await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, StoreError> {
        let (folder, prefix) =
            (self.root.join(prefix.rsplit_once('/').map_or("", |(f, _)| f)), prefix.to_owned());
        let root = self.root.clone();
        blocking(move || {
            let mut found = Vec::new();
            walk(&root, &folder, &mut found).map_err(|e| file_error("list", &folder, &e))?;
            found.retain(|(key, _)| key.starts_with(&prefix));
            found.sort_unstable();
            Ok(found)
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("file work does not panic")
}

/// Tells apart the writes under way of one process.
static WRITES: AtomicU64 = AtomicU64::new(0);

/// Temporary file, fsync, rename, fsync of the folder: whole or not at all. What a crash leaves begins with a dot,
/// which no reader of tables looks at.
fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().expect("a key is below the root");
    let name = path.file_name().and_then(OsStr::to_str).expect("a key is text");
    let temporary =
        folder.join(format!(".{name}.{}-{}", std::process::id(), WRITES.fetch_add(1, Ordering::Relaxed)));
    let mut file = loop {
        make_folders(folder)?;
        match File::create(&temporary) {
            // A delete took the folder away, as it was empty.
            Err(e) if e.kind() == io::ErrorKind::NotFound && !folder.exists() => {}
            result => break result?,
        }
    };
    let written =
        file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // Of the two errors the first is the one to tell.
        _ = fs::remove_file(&temporary);
    }
    written?;
    sync_folder(folder)
}

/// Each new folder's name is made durable too.
fn make_folders(folder: &Path) -> io::Result<()> {
    if folder.as_os_str().is_empty() || folder.is_dir() {
        return Ok(());
    }
    let above = folder.parent().unwrap_or(Path::new(""));
    make_folders(above)?;
    match fs::create_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        // A delete was quicker; the caller looks again.
        Err(e) if e.kind() == io::ErrorKind::NotFound && !above.exists() => Ok(()),
        Err(e) => Err(e),
        Ok(()) => sync_folder(above),
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    File::open(folder)?.sync_all()
}

/// Removes the file and the folders that it leaves empty.
fn remove(root: &Path, path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    for folder in path.ancestors().skip(1).take_while(|folder| *folder != root) {
        // Fails where it is not empty, which is the end of it.
        if fs::remove_dir(folder).is_err() {
            break;
        }
    }
    Ok(())
}

fn walk(root: &Path, folder: &Path, found: &mut Vec<(String, u64)>) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        // No folder is no objects; or a delete took it away.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        let metadata = match entry.metadata() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            metadata => metadata?,
        };
        if metadata.is_dir() {
            walk(root, &path, found)?;
        } else if let Some(key) = path.strip_prefix(root).ok().and_then(Path::to_str) {
            found.push((key.to_owned(), metadata.len()));
        }
    }
    Ok(())
}

fn file_error(verb: &str, path: &Path, error: &io::Error) -> StoreError {
    use io::ErrorKind;
    let (kind, why) = match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            (StoreErrorKind::Denied, format!("{error}; allow windrow's user to {verb} there"))
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            (StoreErrorKind::Other, format!("{error}; free some space"))
        }
        _ => (StoreErrorKind::Other, format!("{error}; check the warehouse's directory")),
    };
    StoreError { kind, text: format!("cannot {verb} file \"{}\": {why}", path.display()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::time::Instant;

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
            endpoint: Some(endpoint.to_owned()),
            region: "us-east-1".to_owned(),
            path_style: true,
            ca_pem: None,
            access_key: access_key.to_owned(),
            secret_key: secret_key.to_owned(),
        }
    }

    /// What both stores do alike, below a folder of its own.
    async fn cases(store: &Store) {
        let keys = |found: Vec<(String, u64)>| found.into_iter().map(|(key, _)| key).collect::<Vec<_>>();
        store.check().await.unwrap();
        assert_eq!(store.list("").await.unwrap(), []);
        assert_eq!(store.get("a/none").await.unwrap(), None);
        store.delete(&["a/none".to_owned()]).await.unwrap();
        store.delete(&[]).await.unwrap();

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
        assert_eq!(store.get("a/b c/é=1.parquet").await.unwrap().as_deref(), Some(b"one".as_slice()));
        assert_eq!(store.get("a/b/empty").await.unwrap().as_deref(), Some(b"".as_slice()));
        assert!(store.get("ab/large").await.unwrap().unwrap() == large);
        let all = [("a/b c/é=1.parquet", 3), ("a/b/empty", 0), ("ab/large", 3 << 20), ("z+%41", 1)];
        assert_eq!(store.list("").await.unwrap(), all.map(|(key, size)| (key.to_owned(), size)));
        assert_eq!(keys(store.list("a/").await.unwrap()), ["a/b c/é=1.parquet", "a/b/empty"]);
        assert_eq!(keys(store.list("a/b/e").await.unwrap()), ["a/b/empty"]);
        assert_eq!(keys(store.list("a").await.unwrap()).len(), 3);
        assert_eq!(store.list("no/such/").await.unwrap(), []);

        let gone: Vec<String> = keys(store.list("").await.unwrap());
        store.delete(&gone[..2]).await.unwrap();
        assert_eq!(keys(store.list("").await.unwrap()), ["ab/large", "z+%41"]);
        store.delete(&gone).await.unwrap();
        assert_eq!(store.list("").await.unwrap(), []);
    }

    /// One worker puts and lists, the other deletes in the same folder.
    async fn puts_and_deletes_side_by_side(store: &Store) {
        let other = store.clone();
        let deleter = tokio::spawn(async move {
            for i in 0..50 {
                other.delete(&[format!("x/y/{i}/f")]).await.unwrap();
            }
        });
        for i in 0..50 {
            store.put(&format!("x/y/{i}/f"), Bytes::from_static(b"1")).await.unwrap();
            store.list("x/").await.unwrap();
        }
        deleter.await.unwrap();
        let rest: Vec<String> = store.list("").await.unwrap().into_iter().map(|(key, _)| key).collect();
        store.delete(&rest).await.unwrap();
    }

    fn local(folder: &Path) -> Store {
        Store::open(folder.to_str().unwrap(), &config("http://unused", "", "")).unwrap()
    }

    #[test]
    fn local_store_does_all_cases_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("warehouse");
        run(async {
            cases(&local(&root)).await;
            puts_and_deletes_side_by_side(&local(&root)).await;
        });
        assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
    }

    #[test]
    fn local_store_hides_what_a_crash_left_and_stays_below_its_root() {
        let folder = tempfile::tempdir().unwrap();
        let store = local(folder.path());
        run(async {
            store.put("a/f", Bytes::from_static(b"1")).await.unwrap();
            fs::write(folder.path().join("a/.f.1-2"), "half").unwrap();
            assert_eq!(store.list("").await.unwrap(), [("a/f".to_owned(), 1)]);
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
        let full = file_error("write", Path::new("w/f"), &io::Error::from_raw_os_error(28));
        assert_eq!(
            full.text,
            "cannot write file \"w/f\": No space left on device (os error 28); free some space"
        );
    }

    #[test]
    fn warehouses_are_read() {
        let bucket = |prefix: &str| Place::Bucket { bucket: "spark".to_owned(), prefix: prefix.to_owned() };
        for (text, place) in [
            ("s3a://spark/warehouse", bucket("warehouse")),
            ("s3://spark/a/b/", bucket("a/b")),
            ("s3n://spark", bucket("")),
            ("s3a://spark/", bucket("")),
            ("file:///var/w", Place::Folder("/var/w".into())),
            ("file:/var/w", Place::Folder("/var/w".into())),
            ("w/here", Place::Folder("w/here".into())),
        ] {
            assert_eq!(Place::parse(text).unwrap(), place, "{text}");
        }
        for bad in ["", "s3a://", "s3a:///w", "hdfs://x/y", "file://host/x", "s3a://b/../c", "s3a://b/c//d"] {
            let error = Place::parse(bad).unwrap_err();
            assert!(error.starts_with("cannot parse warehouse"), "{error}");
        }
    }

    #[test]
    fn bad_settings_are_refused_before_any_request() {
        let open = |config: &S3Config| Store::open("s3a://spark/w", config).unwrap_err().text;
        let error = open(&config("127.0.0.1:80", "", ""));
        assert!(error.contains("no scheme; write http://host:port"), "{error}");
        let bad_ca = S3Config { ca_pem: Some("hello".to_owned()), ..config("https://s3", "", "") };
        assert!(open(&bad_ca).contains("no certificate in it"));
    }

    #[test]
    fn secrets_are_not_printed() {
        let config = config("http://127.0.0.1:1", "key-id", "very-secret");
        let store = Store::open("s3a://spark/w", &config).unwrap();
        let printed = format!("{config:?} {store:?}");
        assert!(!printed.contains("very-secret") && !printed.contains("key-id"), "{printed}");
    }

    fn impatient(endpoint: &str) -> Store {
        let limits = Limits {
            connect: Duration::from_millis(500),
            answer: Duration::from_millis(500),
            attempts: 2,
            ..Limits::default()
        };
        let store =
            S3Store::new(&config(endpoint, "key", "very-secret"), "spark".to_owned(), "w".to_owned(), limits);
        Store::S3(store.unwrap())
    }

    #[test]
    fn unreachable_store_is_an_error_within_its_time() {
        // One that refuses, one that takes the connection and never answers, one that is no S3 at all.
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        for (endpoint, cause) in [
            (format!("http://{closed}"), "Connection refused"),
            (format!("http://{}", silent.local_addr().unwrap()), "no answer in time"),
            ("http://no-such-host.invalid".to_owned(), "cannot reach"),
        ] {
            let start = Instant::now();
            let error = run(impatient(&endpoint).put("a", Bytes::from_static(b"1"))).unwrap_err();
            assert_eq!(error.kind, StoreErrorKind::Unreachable, "{error}");
            assert!(error.text.contains(cause), "{error}");
            assert!(
                error.text.starts_with("cannot write object \"a\" in bucket \"spark\": cannot reach http://"),
                "{error}"
            );
            assert!(!error.text.contains("very-secret"));
            assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
        }
    }

    #[test]
    fn refusals_say_what_to_do() {
        let Store::S3(store) = impatient("http://s3:80") else { unreachable!() };
        for (status, code, kind, text) in [
            (403, "RequestTimeTooSkewed", StoreErrorKind::Clock, "set both by NTP"),
            (403, "SignatureDoesNotMatch", StoreErrorKind::BadKey, "give the right s3-access-key"),
            (404, "NoSuchBucket", StoreErrorKind::NoBucket, "create bucket \"spark\""),
            (403, "", StoreErrorKind::Denied, "access denied"),
            (
                507,
                "XMinioStorageFull",
                StoreErrorKind::Other,
                "http://s3:80 answered 507 XMinioStorageFull: m; it is",
            ),
        ] {
            let error = store.refusal("write", "k", status, code, "m.");
            assert_eq!(error.kind, kind);
            assert!(error.text.contains(text), "{error}");
        }
    }

    /// What MinIO is reached by: `make parts-up` says it.
    fn minio(key: &str, secret: &str) -> S3Config {
        let env = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
        config(&env("WINDROW_TEST_S3"), &env(key), &env(secret))
    }

    fn of_minio(warehouse: &str, key: &str, secret: &str) -> Store {
        Store::open(warehouse, &minio(key, secret)).unwrap()
    }

    const USER: (&str, &str) = ("WINDROW_TEST_S3_KEY", "WINDROW_TEST_S3_SECRET");

    #[test]
    #[ignore = "needs MinIO: make parts-up"]
    fn s3_store_does_all_cases() {
        let folder = format!("s3a://spark/store-test/{}", std::process::id());
        let store = of_minio(&folder, USER.0, USER.1);
        run(async {
            cases(&store).await;
            puts_and_deletes_side_by_side(&store).await;
        });
    }

    #[test]
    #[ignore = "needs MinIO: make parts-up"]
    fn s3_lists_more_than_one_page() {
        let store = of_minio(&format!("s3a://spark/store-pages/{}", std::process::id()), USER.0, USER.1);
        run(async {
            let keys: Vec<String> = (0..1005).map(|i| format!("k/{i:04}")).collect();
            let mut puts = JoinSet::new();
            for key in keys.clone() {
                let store = store.clone();
                puts.spawn(async move { store.put(&key, Bytes::from_static(b"1")).await });
            }
            assert!(puts.join_all().await.iter().all(Result::is_ok));
            let found = store.list("k/").await.unwrap();
            assert!(found.iter().map(|(key, _)| key).eq(&keys));
            store.delete(&keys).await.unwrap();
            assert_eq!(store.list("").await.unwrap(), []);
        });
    }

    #[test]
    #[ignore = "needs MinIO: make parts-up"]
    fn s3_refusals_have_their_kind_and_credentials_can_change() {
        run(async {
            let kind = |result: Result<(), StoreError>| {
                let error = result.unwrap_err();
                println!("{error}");
                assert!(!error.text.contains("secret-"), "{error}");
                error.kind
            };
            let put = async |store: &Store| kind(store.put("denied", Bytes::from_static(b"1")).await);
            let readonly =
                of_minio("s3a://spark/w", "WINDROW_TEST_S3_READONLY_KEY", "WINDROW_TEST_S3_READONLY_SECRET");
            assert_eq!(put(&readonly).await, StoreErrorKind::Denied);
            assert_eq!(kind(readonly.delete(&["denied".to_owned()]).await), StoreErrorKind::Denied);
            assert_eq!(kind(readonly.check().await), StoreErrorKind::Denied);
            let root = ("WINDROW_TEST_S3_ROOT_KEY", "WINDROW_TEST_S3_ROOT_SECRET");
            assert_eq!(
                put(&of_minio("s3a://no-such-bucket/w", root.0, root.1)).await,
                StoreErrorKind::NoBucket
            );
            let list = of_minio("s3a://no-such-bucket/w", root.0, root.1).list("").await;
            assert_eq!(kind(list.map(drop)), StoreErrorKind::NoBucket);

            let wrong = S3Config { secret_key: "wrong".to_owned(), ..minio(USER.0, USER.1) };
            let store = Store::open("s3a://spark/store-keys", &wrong).unwrap();
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
        let without = S3Config { endpoint: Some(endpoint), ..minio(USER.0, USER.1) };
        let with = S3Config { ca_pem: Some(ca_pem), ..without.clone() };
        run(async {
            Store::open("s3a://spark/store-tls", &with).unwrap().check().await.unwrap();
            let error = Store::open("s3a://spark/store-tls", &without).unwrap().check().await.unwrap_err();
            println!("{error}");
            assert_eq!(error.kind, StoreErrorKind::Unreachable);
            assert!(error.text.ends_with("give the CA of the store's certificate"), "{error}");
        });
    }
}
