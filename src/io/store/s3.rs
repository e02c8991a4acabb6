//! Objects in an S3 bucket, by aws-sdk-s3 with settings made by hand: no profile, no environment, no look-up of
//! credentials at addresses of the cloud.

use super::{S3Config, StoreError, StoreErrorKind};
use crate::io::roots::trusted_pem;
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
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::task::JoinSet;
use windrow_core::settings::config::Secret;

/// How long to wait. An attempt's time grows with the bytes it sends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) connect: Duration,
    pub(super) answer: Duration,
    /// Slowest sending that is still waited for.
    pub(super) bytes_per_second: u64,
    pub(super) attempts: u32,
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
    /// Ends in a slash, or is empty.
    prefix: String,
}

struct S3Inner {
    endpoint: String,
    bucket: String,
    limits: Limits,
    /// The endpoint is https.
    tls: bool,
    ca_pem: Option<String>,
    no_proxy: Vec<String>,
    /// Replaced as a whole when the credentials or the proxy are.
    client: RwLock<(Client, Option<Secret>)>,
}

impl fmt::Debug for S3Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let S3Inner {
            endpoint, bucket, ..
        } = &*self.inner;
        write!(f, "S3Store({endpoint} {bucket}/{})", self.prefix)
    }
}

/// Deletes under way at once.
const DELETES_MAX: usize = 16;

impl S3Store {
    pub(super) fn new(
        config: &S3Config,
        bucket: String,
        prefix: String,
        limits: Limits,
    ) -> Result<Self, String> {
        if let Some(endpoint) = &config.endpoint
            && !["http://", "https://"]
                .iter()
                .any(|scheme| endpoint.starts_with(scheme))
        {
            return Err(format!(
                "cannot parse s3 endpoint \"{endpoint}\": no scheme; write http://host:port or https://host"
            ));
        }
        let tls = !config
            .endpoint
            .as_ref()
            .is_some_and(|e| e.starts_with("http://"));
        let http = http_client(
            tls,
            config.ca_pem.as_deref(),
            config.proxy.as_ref(),
            &config.no_proxy,
        )?;
        let mut settings = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .http_client(http)
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
        let endpoint = config
            .endpoint
            .clone()
            .unwrap_or_else(|| format!("AWS {}", config.region));
        let client = RwLock::new((client, config.proxy.clone()));
        let (ca_pem, no_proxy) = (config.ca_pem.clone(), config.no_proxy.clone());
        let inner = Arc::new(S3Inner {
            endpoint,
            bucket,
            limits,
            tls,
            ca_pem,
            no_proxy,
            client,
        });
        Ok(Self {
            inner,
            prefix: String::new(),
        }
        .elsewhere(&prefix))
    }

    pub(super) fn elsewhere(&self, prefix: &str) -> Self {
        let prefix = if prefix.is_empty() {
            String::new()
        } else {
            format!("{prefix}/")
        };
        Self {
            inner: Arc::clone(&self.inner),
            prefix,
        }
    }

    pub(super) fn bucket(&self) -> &str {
        &self.inner.bucket
    }

    fn client(&self) -> Client {
        self.inner
            .client
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .0
            .clone()
    }

    pub(super) fn set_credentials(&self, access_key: &str, secret_key: &str) {
        let mut client = self
            .inner
            .client
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        // The builder keeps the HTTP client, and with it the open connections.
        let config = client
            .0
            .config()
            .to_builder()
            .credentials_provider(credentials(access_key, secret_key))
            .build();
        client.0 = Client::from_conf(config);
    }

    pub(super) fn set_proxy(&self, proxy: Option<&Secret>) -> Result<(), String> {
        let mut client = self
            .inner
            .client
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if client.1.as_ref() == proxy {
            return Ok(());
        }
        let S3Inner {
            tls,
            ca_pem,
            no_proxy,
            ..
        } = &*self.inner;
        let http = http_client(*tls, ca_pem.as_deref(), proxy, no_proxy)?;
        let config = client.0.config().to_builder().http_client(http).build();
        *client = (Client::from_conf(config), proxy.cloned());
        Ok(())
    }

    /// The proxy's address without name and password, for messages.
    fn proxy_shown(&self) -> Option<String> {
        let client = self
            .inner
            .client
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        client.1.as_ref().map(|proxy| shown(proxy.expose()))
    }

    fn path(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    pub(super) async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
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
            .map_err(|e| self.error("write", &object(key), &e))?;
        Ok(())
    }

    pub(super) async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let answer = self
            .client()
            .get_object()
            .bucket(&self.inner.bucket)
            .key(self.path(key))
            .send()
            .await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(e) if e.as_service_error().is_some_and(|e| e.is_no_such_key()) => return Ok(None),
            Err(e) => return Err(self.error("read", &object(key), &e)),
        };
        // A store that stalls in the middle is noticed by the SDK's stalled stream protection.
        match answer.body.collect().await {
            Ok(body) => Ok(Some(body.to_vec())),
            Err(e) => Err(self.unreachable("read", &object(key), &root_cause(&e))),
        }
    }

    /// One request for each: the request that deletes many needs a checksum or MD5, and stores differ on which.
    pub(super) async fn delete(&self, keys: &[String]) -> Result<(), StoreError> {
        let mut first = Ok(());
        for some in keys.chunks(DELETES_MAX) {
            let mut requests = JoinSet::new();
            for key in some {
                let (store, key) = (self.clone(), key.clone());
                requests.spawn(async move { store.delete_one(&key).await });
            }
            for result in requests.join_all().await {
                first = first.and(result);
            }
        }
        first
    }

    async fn delete_one(&self, key: &str) -> Result<(), StoreError> {
        let answer = self
            .client()
            .delete_object()
            .bucket(&self.inner.bucket)
            .key(self.path(key))
            .send()
            .await;
        match answer {
            Err(e)
                if e.as_service_error().and_then(ProvideErrorMetadata::code)
                    == Some("NoSuchKey") =>
            {
                Ok(())
            }
            Err(e) => Err(self.error("delete", &object(key), &e)),
            Ok(_) => Ok(()),
        }
    }

    pub(super) async fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, StoreError> {
        let mut found = Vec::new();
        let mut from = None;
        loop {
            let request = self
                .client()
                .list_objects_v2()
                .bucket(&self.inner.bucket)
                .prefix(self.path(prefix));
            let page = request.set_continuation_token(from).send().await;
            let page = page.map_err(|e| {
                self.error("list", &format!("objects \"{}\"", self.path(prefix)), &e)
            })?;
            for object in page.contents() {
                if let Some(key) = object.key().and_then(|key| key.strip_prefix(&self.prefix)) {
                    found.push((
                        key.to_owned(),
                        object
                            .size()
                            .and_then(|n| u64::try_from(n).ok())
                            .unwrap_or(0),
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

    fn error<E>(&self, verb: &str, what: &str, error: &SdkError<E>) -> StoreError
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        match error {
            SdkError::ServiceError(answer) => {
                let status = answer.raw().status().as_u16();
                self.refusal(
                    verb,
                    what,
                    status,
                    answer.err().code().unwrap_or(""),
                    answer.err().message().unwrap_or(""),
                )
            }
            SdkError::TimeoutError(_) => self.unreachable(verb, what, "no answer in time"),
            _ => self.unreachable(verb, what, &root_cause(error)),
        }
    }

    /// What the service said no to. Codes: Amazon S3 API reference, "Error responses".
    pub(super) fn refusal(
        &self,
        verb: &str,
        what: &str,
        status: u16,
        code: &str,
        message: &str,
    ) -> StoreError {
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
                "the clocks of this machine and of the store differ too much; set both by NTP"
                    .to_owned(),
            ),
            "NoSuchBucket" => (
                NoBucket,
                format!("no such bucket; create bucket \"{bucket}\" or correct the warehouse"),
            ),
            "AccessDenied" | "AllAccessDisabled" | "AccountProblem" => (
                Denied,
                format!("access denied; allow the user of s3-access-key to {verb} objects there"),
            ),
            // RFC 9110, 15.5.8: only a proxy says so.
            "" if status == 407 => (
                Denied,
                format!(
                    "the proxy {} wants a login; give the right name and password in s3-proxy",
                    self.proxy_shown().unwrap_or_default()
                ),
            ),
            "" if status == 403 => (
                Denied,
                format!("access denied; allow the user of s3-access-key to {verb} objects there"),
            ),
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
                let said = [code, message]
                    .into_iter()
                    .filter(|s| !s.is_empty())
                    .collect::<Vec<_>>()
                    .join(": ");
                let said = if said.is_empty() {
                    "without a reason".to_owned()
                } else {
                    cut(&said)
                };
                (
                    Other,
                    format!(
                        "{} answered {status}: {said}; it is tried again",
                        self.inner.endpoint
                    ),
                )
            }
        };
        StoreError {
            kind,
            text: format!("cannot {verb} {what} in bucket \"{bucket}\": {why}"),
        }
    }

    fn unreachable(&self, verb: &str, what: &str, cause: &str) -> StoreError {
        let S3Inner {
            endpoint, bucket, ..
        } = &*self.inner;
        let through = self
            .proxy_shown()
            .map(|proxy| format!(" through {proxy}"))
            .unwrap_or_default();
        let advice = if cause.contains("certificate") {
            "give the CA of the store's certificate"
        } else if !through.is_empty() {
            "check the s3 endpoint, s3-proxy and s3.no-proxy"
        } else {
            "check the s3 endpoint and that the store is running"
        };
        let text = format!(
            "cannot {verb} {what} in bucket \"{bucket}\": cannot reach {endpoint}{through}: {}; {advice}",
            cut(cause)
        );
        StoreError {
            kind: StoreErrorKind::Unreachable,
            text,
        }
    }
}

impl Limits {
    fn timeouts(&self, bytes: u64) -> TimeoutConfig {
        TimeoutConfig::builder()
            .connect_timeout(self.connect)
            .operation_attempt_timeout(
                self.answer + Duration::from_secs(bytes / self.bytes_per_second),
            )
            .build()
    }
}

fn object(key: &str) -> String {
    format!("object \"{key}\"")
}

fn credentials(access_key: &str, secret_key: &str) -> Credentials {
    Credentials::new(access_key, secret_key, None, None, "windrow")
}

/// An HTTP client that takes the given proxy and none of the environment.
fn http_client(
    tls: bool,
    ca_pem: Option<&str>,
    proxy_url: Option<&Secret>,
    no_proxy: &[String],
) -> Result<SharedHttpClient, String> {
    let proxy = match proxy_url {
        None => ProxyConfig::disabled(),
        // What the crate says of it might repeat a part of the URL.
        Some(url) => ProxyConfig::all(url.expose())
            .map_err(|_| {
                "cannot use secret s3-proxy: not the address of a proxy; write http://HOST:PORT"
                    .to_owned()
            })?
            .no_proxy(no_proxy.join(",")),
    };
    let trusted = trusted_pem(ca_pem)
        .map_err(|cause| format!("cannot read CA certificates of s3: {cause}"))?;
    // A proxy may be spoken to over TLS where the store is not.
    let tls = tls || proxy_url.is_some_and(|url| url.expose().starts_with("https://"));
    let tls = tls.then_some(trusted).map(|pem| {
        let store = TrustStore::empty().with_pem_certificate(pem);
        TlsContext::builder()
            .with_trust_store(store)
            .build()
            .expect("certificates were checked")
    });
    // Called once; the connector is kept by the client it returns.
    Ok(
        HttpBuilder::new().build_with_connector_fn(move |settings, components| {
            let mut connector = Connector::builder().proxy_config(proxy.clone());
            connector.set_connector_settings(settings.cloned());
            connector.set_sleep_impl(components.and_then(|c| c.sleep_impl()));
            match &tls {
                Some(tls) => connector
                    .tls_provider(Provider::rustls(CryptoMode::Ring))
                    .tls_context(tls.clone())
                    .build(),
                None => connector.build_http(),
            }
        }),
    )
}

/// A proxy's URL without name and password.
fn shown(proxy: &str) -> String {
    match (proxy.split_once("://"), proxy.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, server))) => format!("{scheme}://{server}"),
        _ => proxy.to_owned(),
    }
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
    text.trim()
        .trim_end_matches('.')
        .chars()
        .take(200)
        .collect()
}
