//! Reads where a warehouse lies: in a bucket, or in a directory.

use std::path::PathBuf;

/// Where a warehouse lies, read from its URI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A bucket, or a folder of it.
    Bucket {
        /// The name of the bucket.
        bucket: String,
        /// The folder, without a slash at either end; empty for the whole bucket.
        prefix: String,
    },
    /// A directory.
    Folder(PathBuf),
}

impl Location {
    /// Reads `s3a://bucket/prefix` (or `s3`, `s3n`), `file:///folder`, or a path.
    ///
    /// # Errors
    /// Says which part is wrong and what to write instead.
    pub fn parse(warehouse: &str) -> Result<Self, String> {
        let wrong = |cause: &str| {
            Err(format!(
                "cannot parse warehouse \"{warehouse}\": {cause}; \
                 write s3a://bucket/folder or a directory"
            ))
        };
        if warehouse.is_empty() {
            return wrong("it is empty");
        }
        if let Some(path) = warehouse.strip_prefix("file:") {
            // file:/path and file:///path are the same. In file://host/path the host is unknown.
            let path = path.strip_prefix("//").unwrap_or(path);
            let folder = PathBuf::from(path);
            return if folder.is_absolute() {
                Ok(Location::Folder(folder))
            } else {
                wrong("not an absolute path")
            };
        }
        let Some((scheme, rest)) = warehouse.split_once("://") else {
            return Ok(Location::Folder(PathBuf::from(warehouse)));
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
        Ok(Location::Bucket {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
        })
    }
}
