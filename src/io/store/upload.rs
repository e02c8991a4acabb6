//! An object that is stored piece by piece, so that it is never in memory as a whole. Nobody sees
//! anything of it before its last piece is there.

use super::directory::Temporary;
use super::s3::Parts;
use super::{LocalStore, S3Store, Store, StoreError};
use bytes::Bytes;

/// An upload on its way. Where it is dropped before it is finished, as when the process ends, a
/// directory keeps nothing of it. S3 keeps its pieces until [`Store::abort_uploads`] finds them.
///
/// ```text
/// store.upload("rows/2026-11-27/3-day-9f86/part.parquet")   nothing is sent yet
/// add(8 MiB)       S3: CreateMultipartUpload, UploadPart 1   directory: a temporary file
/// add(8 MiB)       S3: UploadPart 2                          directory: more of it
/// finish(3 MiB)    S3: UploadPart 3, CompleteMultipartUpload directory: fsync, rename
/// ```
///
/// With `finish` alone it is one [`Store::put`].
pub struct Upload {
    key: String,
    target: Target,
}

enum Target {
    /// `None` before the first piece.
    S3(S3Store, Option<Parts>),
    /// `None` before the first piece.
    Local(LocalStore, Option<Temporary>),
}

impl Upload {
    pub(super) fn new(store: &Store, key: String) -> Self {
        let target = match store {
            Store::S3(s3) => Target::S3(s3.clone(), None),
            Store::Local(local) => Target::Local(local.clone(), None),
        };
        Self { key, target }
    }

    /// Stores a piece behind the earlier ones. S3 refuses pieces of less than 5 MiB, except the
    /// last one, which goes to [`Upload::finish`].
    ///
    /// # Errors
    /// See [`StoreErrorKind`](super::StoreErrorKind). The upload is aborted: begin a new one.
    pub async fn add(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        let key = &self.key;
        match &mut self.target {
            Target::S3(s3, parts) => {
                let mut on = match parts.take() {
                    Some(parts) => parts,
                    None => s3.begin_parts(key).await?,
                };
                if let Err(error) = s3.put_part(key, &mut on, bytes).await {
                    s3.abort_parts(key, &on).await;
                    return Err(error);
                }
                *parts = Some(on);
            }
            Target::Local(local, file) => {
                *file = Some(local.add(key, file.take(), bytes).await?);
            }
        }
        Ok(())
    }

    /// Stores the last piece. Once this has returned, the object is there as a whole, and survives
    /// a crash. Storing the same bytes again is harmless.
    ///
    /// # Errors
    /// See [`StoreErrorKind`](super::StoreErrorKind). The object may be there or not: store it
    /// again.
    pub async fn finish(self, bytes: Bytes) -> Result<(), StoreError> {
        let key = &self.key;
        match self.target {
            Target::S3(s3, None) => s3.put(key, bytes).await,
            Target::S3(s3, Some(mut parts)) => {
                let finished = match s3.put_part(key, &mut parts, bytes).await {
                    Ok(()) => s3.complete_parts(key, &parts).await,
                    Err(error) => Err(error),
                };
                if finished.is_err() {
                    s3.abort_parts(key, &parts).await;
                }
                finished
            }
            Target::Local(local, None) => local.put(key, bytes).await,
            Target::Local(local, Some(file)) => local.finish(file, bytes).await,
        }
    }

    /// Removes what was stored. Where that fails, [`Store::abort_uploads`] does it later.
    pub async fn abort(self) {
        if let Target::S3(s3, Some(parts)) = self.target {
            s3.abort_parts(&self.key, &parts).await;
        }
    }
}
