//! Objects in an S3 bucket, through aws-sdk-s3. All of its settings are made here: it reads no
//! profile and no environment, and asks no address of a cloud for credentials.

mod pages;

use super::refusal::{Refused, cut, denied, other_region, region_in, without_login};
use super::{Deleted, S3Config, StoreError, StoreErrorKind};
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
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::task::JoinSet;
use windrow_core::settings::config::Secret;
use windrow_core::values::cause::innermost_cause;

/// How long to wait, and how often to try.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// For a connection.
    pub(super) connect: Duration,
    /// For the answer to one attempt, in addition to the time that its bytes may take.
    pub(super) answer: Duration,
    /// The slowest sending that is waited for. Example: 1 MiB may take 8 s at 128 KiB a second.
    pub(super) bytes_per_second: u64,
    /// How often one request is sent before it has failed.
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

/// A bucket, or a folder of it. Clones share one client.
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
    /// The client and its proxy. Both are replaced when the credentials or the proxy change.
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

/// How many objects are deleted at the same time.
const DELETES_MAX: usize = 16;

impl S3Store {
    pub(super) fn new(
        config: &S3Config,
        bucket: String,
        prefix: String,
        limits: Limits,
    ) -> Result<Self, String> {
        if let Some(endpoint) = &config.settings.endpoint
            && !["http://", "https://"]
                .iter()
                .any(|scheme| endpoint.starts_with(scheme))
        {
            return Err(format!(
                "cannot parse s3 endpoint \"{endpoint}\": no scheme; \
                 write http://host:port or https://host"
            ));
        }
        let tls = !config
            .settings
            .endpoint
            .as_ref()
            .is_some_and(|e| e.starts_with("http://"));
        let http = http_client(
            tls,
            config.ca_pem.as_deref(),
            config.proxy.as_ref(),
            &config.settings.no_proxy,
        )?;
        let mut settings = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .http_client(http)
            .region(Region::new(config.settings.region.clone()))
            .force_path_style(config.settings.path_style)
            // SDKs send checksums by themselves since 2025, which older MinIO and Ceph refuse.
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .retry_config(
                RetryConfig::standard()
                    .with_max_attempts(limits.attempts)
                    .with_initial_backoff(Duration::from_millis(100))
                    .with_max_backoff(Duration::from_secs(2)),
            )
            .timeout_config(limits.timeouts(0))
            // New credentials are used at once.
            .identity_cache(IdentityCache::no_cache())
            .credentials_provider(credentials(&config.access_key, &config.secret_key));
        settings.set_endpoint_url(config.settings.endpoint.clone());
        let client = Client::from_conf(settings.build());
        let endpoint = config
            .settings
            .endpoint
            .clone()
            .unwrap_or_else(|| format!("AWS {}", config.settings.region));
        let client = RwLock::new((client, config.proxy.clone()));
        let (ca_pem, no_proxy) = (config.ca_pem.clone(), config.settings.no_proxy.clone());
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

    /// The proxy's address without user name and password, for messages.
    fn proxy_shown(&self) -> Option<String> {
        let client = self
            .inner
            .client
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        client.1.as_ref().map(|proxy| without_login(proxy.expose()))
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
        let bytes = self.get_some(key, None).await?;
        Ok(bytes.map(Vec::from))
    }

    pub(super) async fn get_range(
        &self,
        key: &str,
        range: Range<u64>,
    ) -> Result<Option<Bytes>, StoreError> {
        if range.is_empty() {
            return Ok(Some(Bytes::new()));
        }
        // RFC 9110, 14.1.2: the last byte is included.
        let header = format!("bytes={}-{}", range.start, range.end - 1);
        self.get_some(key, Some(header)).await
    }

    async fn get_some(
        &self,
        key: &str,
        range: Option<String>,
    ) -> Result<Option<Bytes>, StoreError> {
        let answer = self
            .client()
            .get_object()
            .bucket(&self.inner.bucket)
            .key(self.path(key))
            .set_range(range)
            .send()
            .await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(e) if e.as_service_error().is_some_and(|e| e.is_no_such_key()) => return Ok(None),
            Err(e) => return Err(self.error("read", &object(key), &e)),
        };
        // The SDK's stalled stream protection notices a store that stops in the middle.
        match answer.body.collect().await {
            Ok(body) => Ok(Some(body.into_bytes())),
            Err(e) => Err(self.unreachable("read", &object(key), &innermost_cause(&e))),
        }
    }

    /// Sends one request for each object. The request that deletes many objects needs a checksum or
    /// an MD5, and stores differ on which.
    pub(super) async fn delete(&self, keys: Vec<String>) -> Deleted {
        let mut deleted = Deleted::default();
        for some in keys.chunks(DELETES_MAX) {
            let mut requests = JoinSet::new();
            for key in some {
                let (store, key) = (self.clone(), key.clone());
                requests.spawn(async move {
                    let result = store.delete_one(&key).await;
                    (key, result)
                });
            }
            for (key, result) in requests.join_all().await {
                deleted.add(key, result);
            }
        }
        deleted
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
                let raw = answer.raw();
                let body = String::from_utf8_lossy(raw.body().bytes().unwrap_or_default());
                let message = answer.err().message().unwrap_or("");
                let region = raw.headers().get("x-amz-bucket-region");
                let refused = Refused {
                    status: raw.status().as_u16(),
                    code: answer.err().code().unwrap_or(""),
                    message,
                    region: region
                        .or_else(|| region_in(&body))
                        .or_else(|| region_in(message)),
                    wants_tls: body.to_ascii_lowercase().contains("https"),
                };
                self.refusal(verb, what, &refused)
            }
            SdkError::TimeoutError(_) => self.unreachable(verb, what, "no answer in time"),
            _ => self.unreachable(verb, what, &innermost_cause(error)),
        }
    }

    /// The error for a request that the service has refused.
    pub(super) fn refusal(&self, verb: &str, what: &str, refused: &Refused<'_>) -> StoreError {
        let bucket = &self.inner.bucket;
        let (kind, why) = self.explain_refusal(verb, refused);
        StoreError {
            kind,
            text: format!("cannot {verb} {what} in bucket \"{bucket}\": {why}"),
        }
    }

    /// Kind, reason and next step for an answer of the service.
    fn explain_refusal(&self, verb: &str, refused: &Refused<'_>) -> (StoreErrorKind, String) {
        let Refused {
            status,
            code,
            message,
            region,
            wants_tls,
        } = *refused;
        use StoreErrorKind::{BadKey, Clock, NoBucket, Other, Tls};
        match code {
            "InvalidAccessKeyId"
            | "SignatureDoesNotMatch"
            | "InvalidToken"
            | "InvalidSecurity"
            | "NotSignedUp"
            | "ExpiredToken"
            | "TokenRefreshRequired" => (
                BadKey,
                format!(
                    "the S3 key is not accepted ({code}); \
                     give the right s3-access-key and s3-secret-key"
                ),
            ),
            "RequestTimeTooSkewed" | "RequestExpired" => (
                Clock,
                "the clocks of this machine and of the store differ too much; set both by NTP"
                    .to_owned(),
            ),
            "NoSuchBucket" => (
                NoBucket,
                format!(
                    "no such bucket; create bucket \"{}\" or correct the warehouse",
                    self.inner.bucket
                ),
            ),
            // Only a proxy answers 407 (RFC 9110, 15.5.8).
            "" if status == 407 => (
                BadKey,
                format!(
                    "the proxy {} wants a login; give the right name and password in s3-proxy",
                    self.proxy_shown().unwrap_or_default()
                ),
            ),
            "AccessDenied" | "AllAccessDisabled" | "AccountProblem" | "MethodNotAllowed" => {
                denied(verb)
            }
            "" if status == 403 => denied(verb),
            // Servers of TLS say in their own words what was sent to them.
            "" if status == 400 && wants_tls && !self.inner.tls => (Tls, self.wants_tls()),
            "AuthorizationHeaderMalformed"
            | "PermanentRedirect"
            | "TemporaryRedirect"
            | "IllegalLocationConstraintException" => (Other, other_region(region, message)),
            "" if status == 301 => (Other, other_region(region, message)),
            _ => {
                let reason = match (code, message) {
                    ("", "") => "without a reason".to_owned(),
                    ("", text) | (text, "") => cut(text),
                    (code, message) => cut(&format!("{code}: {message}")),
                };
                (
                    Other,
                    format!(
                        "{} answered {status}: {reason}; it is tried again",
                        self.inner.endpoint
                    ),
                )
            }
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
        let advice = if through.is_empty() {
            "check the s3 endpoint and that the store is running"
        } else {
            "check the s3 endpoint, s3-proxy and s3.no-proxy"
        };
        let (kind, advice) = match self.tls_advice(cause) {
            Some(advice) => (StoreErrorKind::Tls, advice),
            None => (StoreErrorKind::Unreachable, advice.to_owned()),
        };
        let text = format!(
            "cannot {verb} {what} in bucket \"{bucket}\": cannot reach {endpoint}{through}: {}; \
             {advice}",
            cut(cause)
        );
        StoreError { kind, text }
    }

    /// What to do about an error of TLS, in the words of rustls and hyper; `None` for any other.
    fn tls_advice(&self, cause: &str) -> Option<String> {
        let has = |part: &str| cause.contains(part);
        Some(
            if has("certificate expired") || has("certificate not valid yet") {
                "renew the store's certificate, or set this machine's clock by NTP".to_owned()
            } else if has("certificate not valid for name") {
                "write in s3.endpoint the name that the store's certificate has".to_owned()
            } else if has("certificate") {
                "give the CA that signed the store's certificate in s3.ca-file".to_owned()
            } else if has("InvalidContentType") || has("invalid record") {
                "this port does not speak TLS: write http:// in s3.endpoint, or the port that does"
                    .to_owned()
            } else if has("received fatal alert") || has("PeerIncompatible") {
                "the store refuses this TLS connection: check s3.endpoint and the store's settings"
                    .to_owned()
            } else if !self.inner.tls && (has("invalid HTTP version") || has("invalid HTTP header"))
            {
                self.wants_tls()
            } else {
                return None;
            },
        )
    }

    fn wants_tls(&self) -> String {
        format!(
            "{} speaks TLS; write https:// in s3.endpoint, and s3.ca-file for a CA of your own",
            self.inner.endpoint
        )
    }
}

impl Limits {
    /// For a request that sends so many bytes.
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

/// An HTTP client that uses the given proxy, and ignores proxies of the environment.
fn http_client(
    tls: bool,
    ca_pem: Option<&str>,
    proxy_url: Option<&Secret>,
    no_proxy: &[String],
) -> Result<SharedHttpClient, String> {
    let proxy = match proxy_url {
        None => ProxyConfig::disabled(),
        // The crate's own error is left out, because it might repeat a part of the URL.
        Some(url) => ProxyConfig::all(url.expose())
            .map_err(|_| {
                "cannot use secret s3-proxy: not the address of a proxy; write http://HOST:PORT"
                    .to_owned()
            })?
            .no_proxy(no_proxy.join(",")),
    };
    let trusted = trusted_pem(ca_pem)
        .map_err(|cause| format!("cannot read CA certificates of s3: {cause}"))?;
    // The proxy may need TLS even where the store does not.
    let tls = tls || proxy_url.is_some_and(|url| url.expose().starts_with("https://"));
    let tls = tls.then_some(trusted).map(|pem| {
        let store = TrustStore::empty().with_pem_certificate(pem);
        TlsContext::builder()
            .with_trust_store(store)
            .build()
            .expect("certificates were checked")
    });
    // The closure is called once, and the client that it returns keeps the connector.
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
