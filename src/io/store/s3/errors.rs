//! What went wrong with a request to S3, in words that say what to do.

use super::{S3Inner, S3Store};
use crate::io::store::refusal::{Refused, cut, denied, other_region, region_in};
use crate::io::store::{StoreError, StoreErrorKind};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use std::error::Error;
use windrow_core::values::cause::innermost_cause;

impl S3Store {
    pub(super) fn error<E>(&self, verb: &str, what: &str, error: &SdkError<E>) -> StoreError
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
                    is_foreign: !body.trim().is_empty() && !body.contains("<Error"),
                    wants_tls: body.to_ascii_lowercase().contains("https"),
                };
                self.refusal(verb, what, &refused)
            }
            SdkError::TimeoutError(_) => self.unreachable(verb, what, "no answer in time"),
            _ => self.unreachable(verb, what, &innermost_cause(error)),
        }
    }

    /// The error for a request that the service has refused.
    pub(in crate::io::store) fn refusal(
        &self,
        verb: &str,
        what: &str,
        refused: &Refused<'_>,
    ) -> StoreError {
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
            is_foreign,
            wants_tls,
        } = *refused;
        use StoreErrorKind::{BadKey, Clock, NoBucket, Other, Proxy, Region, Tls};
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
                "the clocks of this machine and of the store differ too much; set the wrong one, \
                 best by NTP"
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
            "" if status == 407 => (Proxy, self.proxy_wants_login()),
            "" if status == 403 && is_foreign && self.proxy_shown().is_some() => {
                (Proxy, self.proxy_forbids())
            }
            "AccessDenied" | "AllAccessDisabled" | "AccountProblem" | "MethodNotAllowed" => {
                denied(verb)
            }
            "" if status == 403 => denied(verb),
            // Servers of TLS say in their own words what was sent to them.
            "" if status == 400 && wants_tls && !self.inner.tls => (Tls, self.wants_tls()),
            "AuthorizationHeaderMalformed"
            | "PermanentRedirect"
            | "TemporaryRedirect"
            | "IllegalLocationConstraintException" => (Region, other_region(region, message)),
            "" if status == 301 => (Region, other_region(region, message)),
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

    pub(super) fn unreachable(&self, verb: &str, what: &str, cause: &str) -> StoreError {
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
        let (kind, advice) = self
            .proxy_advice(cause)
            .or_else(|| self.tls_advice(cause))
            .unwrap_or_else(|| (StoreErrorKind::Unreachable, advice.to_owned()));
        let text = format!(
            "cannot {verb} {what} in bucket \"{bucket}\": cannot reach {endpoint}{through}: {}; \
             {advice}",
            cut(cause)
        );
        StoreError { kind, text }
    }

    fn proxy_wants_login(&self) -> String {
        format!(
            "the proxy {} wants a login; give the right name and password in s3-proxy",
            self.proxy_shown().unwrap_or_default()
        )
    }

    fn proxy_forbids(&self) -> String {
        format!(
            "the proxy {} forbids it; allow {} there, or name its host in s3.no-proxy",
            self.proxy_shown().unwrap_or_default(),
            self.inner.endpoint
        )
    }

    /// What to do where a proxy refuses to connect to the store, in the words of hyper-util; `None`
    /// for any other error.
    fn proxy_advice(&self, cause: &str) -> Option<(StoreErrorKind, String)> {
        let text = match cause.strip_prefix("tunnel error: ")? {
            "proxy authorization required" => self.proxy_wants_login(),
            "unsuccessful" => self.proxy_forbids(),
            _ => return None,
        };
        Some((StoreErrorKind::Proxy, text))
    }

    /// What to do about an error of TLS, in the words of rustls and hyper; `None` for any other.
    fn tls_advice(&self, cause: &str) -> Option<(StoreErrorKind, String)> {
        let has = |part: &str| cause.contains(part);
        let certificate = |text: &str| Some((StoreErrorKind::Certificate, text.to_owned()));
        if has("certificate expired") || has("certificate not valid yet") {
            return certificate(
                "renew the store's certificate, or set this machine's clock by NTP",
            );
        }
        if has("certificate not valid for name") {
            return certificate("write in s3.endpoint the name that the store's certificate has");
        }
        let no_tls = |text: &str| Some((StoreErrorKind::NoTls, text.to_owned()));
        if has("certificate") {
            let text = "give the CA that signed the store's certificate in s3.ca-file";
            Some((StoreErrorKind::Tls, text.to_owned()))
        } else if has("InvalidContentType") || has("invalid record") {
            no_tls(
                "this port does not speak TLS: write http:// in s3.endpoint, or the port that does",
            )
        } else if has("received fatal alert") || has("PeerIncompatible") {
            no_tls(
                "the store refuses this TLS connection: check s3.endpoint and the store's settings",
            )
        } else if !self.inner.tls && (has("invalid HTTP version") || has("invalid HTTP header")) {
            Some((StoreErrorKind::Tls, self.wants_tls()))
        } else {
            None
        }
    }

    fn wants_tls(&self) -> String {
        format!(
            "{} speaks TLS; write https:// in s3.endpoint, and s3.ca-file for a CA of your own",
            self.inner.endpoint
        )
    }
}
