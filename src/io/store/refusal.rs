//! What an answer of S3 says of why it refuses, and parts of sentences about that.

use super::StoreErrorKind;

/// What an answer of the service says of why it refuses.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Refused<'a> {
    pub(super) status: u16,
    /// One of those in the Amazon S3 API reference, "Error responses"; empty where the answer has
    /// none.
    pub(super) code: &'a str,
    pub(super) message: &'a str,
    /// The region that the service names as the right one.
    pub(super) region: Option<&'a str>,
    /// The answer is a text of somebody else: S3 answers in XML, or without a text.
    pub(super) is_foreign: bool,
    /// The answer speaks of HTTPS.
    pub(super) wants_tls: bool,
}

/// The region that an answer names: `<Region>eu-west-1</Region>` or `expecting 'eu-west-1'`.
pub(super) fn region_in(text: &str) -> Option<&str> {
    let between = |begin: &str, end: &str| {
        let (_, rest) = text.split_once(begin)?;
        rest.split_once(end).map(|(region, _)| region)
    };
    let found = between("<Region>", "</Region>").or_else(|| between("expecting '", "'"));
    found.filter(|region| !region.is_empty() && region.len() <= 64)
}

pub(super) fn other_region(region: Option<&str>, message: &str) -> String {
    match region {
        Some(region) => format!("the bucket is in region \"{region}\"; set s3.region to that"),
        None => format!(
            "the bucket is in another region ({}); correct s3.region or s3.endpoint",
            cut(message)
        ),
    }
}

pub(super) fn denied(verb: &str) -> (StoreErrorKind, String) {
    (
        StoreErrorKind::Denied,
        format!("access denied; allow the user of s3-access-key to {verb} objects there"),
    )
}

/// A proxy's URL without user name and password.
pub(super) fn without_login(proxy: &str) -> String {
    match (proxy.split_once("://"), proxy.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, server))) => format!("{scheme}://{server}"),
        _ => proxy.to_owned(),
    }
}

/// Text from outside, cut to a length that fits into a status line.
pub(super) fn cut(text: &str) -> String {
    text.trim()
        .trim_end_matches('.')
        .chars()
        .take(200)
        .collect()
}
