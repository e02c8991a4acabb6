//! Objects in an S3 bucket, through aws-sdk-s3. All of its settings are made here: it reads no
//! profile and no environment, and asks no address of a cloud for credentials.

mod pages;
mod parts;

mod errors;

pub(super) use parts::Parts;

use super::refusal::without_login;
use super::{Deleted, S3Config, StoreError};
use crate::io::roots::trusted_pem;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, IdentityCache, Region, RequestChecksumCalculation,
    ResponseChecksumValidation, SharedHttpClient,
};
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::primitives::ByteStream;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};
use aws_smithy_http_client::{Builder as HttpBuilder, Connector};
use bytes::Bytes;
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
            // The object ends before the range begins.
            Err(e) if e.code() == Some("InvalidRange") => return Ok(Some(Bytes::new())),
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
            // They end in any order; what is told has one of its own.
            let mut results = requests.join_all().await;
            results.sort_by(|(a, _), (b, _)| a.cmp(b));
            for (key, result) in results {
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
