//! Objects in several parts, as S3 calls them: its multipart uploads.

#![expect(
    clippy::disallowed_methods,
    reason = "how old an upload is decides nothing here: the engine says which age is too old"
)]

use super::super::StoreError;
use super::{S3Store, object};
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;
use std::time::SystemTime;
use tracing::warn;

/// The parts of one upload that are stored.
pub(in super::super) struct Parts {
    upload_id: String,
    /// The ETag of each part, in order; S3 wants them again at the end.
    etags: Vec<String>,
    bytes: u64,
}

impl S3Store {
    pub(in super::super) async fn begin_parts(&self, key: &str) -> Result<Parts, StoreError> {
        let answer = self
            .client()
            .create_multipart_upload()
            .bucket(&self.inner.bucket)
            .key(self.path(key))
            .send()
            .await
            .map_err(|e| self.error("write", &object(key), &e))?;
        let Some(upload_id) = answer.upload_id else {
            return Err(self.unreachable("write", &object(key), "it gave the upload no id"));
        };
        Ok(Parts {
            upload_id,
            etags: Vec::new(),
            bytes: 0,
        })
    }

    pub(in super::super) async fn put_part(
        &self,
        key: &str,
        parts: &mut Parts,
        bytes: Bytes,
    ) -> Result<(), StoreError> {
        let size = bytes.len() as u64;
        let timeouts = self.inner.limits.timeouts(size);
        let answer = self
            .client()
            .upload_part()
            .bucket(&self.inner.bucket)
            .key(self.path(key))
            .upload_id(&parts.upload_id)
            .part_number(part_number(parts.etags.len()))
            .body(ByteStream::from(bytes))
            .customize()
            .config_override(aws_sdk_s3::Config::builder().timeout_config(timeouts))
            .send()
            .await
            .map_err(|e| self.error("write", &object(key), &e))?;
        parts.etags.push(answer.e_tag.unwrap_or_default());
        parts.bytes += size;
        Ok(())
    }

    pub(in super::super) async fn complete_parts(
        &self,
        key: &str,
        parts: &Parts,
    ) -> Result<(), StoreError> {
        let completed = parts.etags.iter().enumerate().map(|(index, etag)| {
            CompletedPart::builder()
                .part_number(part_number(index))
                .e_tag(etag)
                .build()
        });
        let completed = CompletedMultipartUpload::builder()
            .set_parts(Some(completed.collect()))
            .build();
        // Parts were stored already, but a store may copy them together now.
        let timeouts = self.inner.limits.timeouts(parts.bytes);
        let answer = self
            .client()
            .complete_multipart_upload()
            .bucket(&self.inner.bucket)
            .key(self.path(key))
            .upload_id(&parts.upload_id)
            .multipart_upload(completed)
            .customize()
            .config_override(aws_sdk_s3::Config::builder().timeout_config(timeouts))
            .send()
            .await;
        match answer {
            Ok(_) => Ok(()),
            // The answer to an earlier attempt was lost, and the upload is over. A key never gets
            // other bytes, so an object of that size is the one that was completed.
            Err(e) if is_no_such_upload(e.as_service_error()) => {
                if self.size(key).await? == Some(parts.bytes) {
                    return Ok(());
                }
                Err(self.error("write", &object(key), &e))
            }
            Err(e) => Err(self.error("write", &object(key), &e)),
        }
    }

    /// The size of an object; `None` when it is not there.
    async fn size(&self, key: &str) -> Result<Option<u64>, StoreError> {
        let answer = self
            .client()
            .head_object()
            .bucket(&self.inner.bucket)
            .key(self.path(key))
            .send()
            .await;
        match answer {
            Ok(head) => Ok(head.content_length.and_then(|n| u64::try_from(n).ok())),
            Err(e) if e.as_service_error().is_some_and(|e| e.is_not_found()) => Ok(None),
            Err(e) => Err(self.error("read", &object(key), &e)),
        }
    }

    /// Aborts an upload, as well as that is possible now.
    pub(in super::super) async fn abort_parts(&self, key: &str, parts: &Parts) {
        if let Err(error) = self.abort_upload(&self.path(key), &parts.upload_id).await {
            warn!(error = %error, "cannot abort an upload; trying again in a day");
        }
    }

    /// Aborts an upload of the object with this whole path. It is no failure when it is over.
    async fn abort_upload(&self, path: &str, upload_id: &str) -> Result<(), StoreError> {
        let answer = self
            .client()
            .abort_multipart_upload()
            .bucket(&self.inner.bucket)
            .key(path)
            .upload_id(upload_id)
            .send()
            .await;
        match answer {
            Err(e) if !is_no_such_upload(e.as_service_error()) => {
                Err(self.error("delete", &format!("upload of object \"{path}\""), &e))
            }
            _ => Ok(()),
        }
    }

    /// Aborts the uploads below `prefix` that were begun at least `age_ms` ago. Returns how many
    /// these were.
    ///
    /// MinIO lists only the uploads whose whole key is `prefix`, and so gives none of a folder. It
    /// deletes unfinished uploads by itself after a day.
    pub(in super::super) async fn abort_uploads(
        &self,
        prefix: &str,
        age_ms: u64,
    ) -> Result<u64, StoreError> {
        let (mut after, mut aborted) = ((None, None), 0);
        loop {
            let answer = self
                .client()
                .list_multipart_uploads()
                .bucket(&self.inner.bucket)
                .prefix(self.path(prefix))
                .set_key_marker(after.0.clone())
                .set_upload_id_marker(after.1.clone())
                .send()
                .await;
            let page = answer.map_err(|e| {
                self.error("list", &format!("uploads \"{}\"", self.path(prefix)), &e)
            })?;
            let now = SystemTime::now();
            for upload in page.uploads() {
                let (Some(path), Some(id)) = (upload.key(), upload.upload_id()) else {
                    continue;
                };
                let begun = upload.initiated();
                let begun = begun.and_then(|time| SystemTime::try_from(*time).ok());
                let age = begun.and_then(|begun| now.duration_since(begun).ok());
                if path.starts_with(&self.path(prefix))
                    && age.is_some_and(|age| age.as_millis() >= u128::from(age_ms))
                {
                    self.abort_upload(path, id).await?;
                    aborted += 1;
                }
            }
            let next = (page.next_key_marker, page.next_upload_id_marker);
            if page.is_truncated != Some(true) || next == after {
                return Ok(aborted);
            }
            after = next;
        }
    }
}

/// S3 counts parts from 1.
fn part_number(index: usize) -> i32 {
    i32::try_from(index + 1).expect("a file has at most a few thousand parts")
}

fn is_no_such_upload<E: ProvideErrorMetadata>(error: Option<&E>) -> bool {
    error.and_then(ProvideErrorMetadata::code) == Some("NoSuchUpload")
}
