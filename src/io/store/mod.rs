//! The object store of one warehouse, on S3 or in a directory. Keys are paths below the warehouse.
//! It decides nothing: the caller says what is stored under which key, and what follows from an
//! error.

mod directory;
mod refusal;
mod s3;
#[cfg(test)]
mod tests;
mod upload;

pub use directory::LocalStore;
pub use s3::S3Store;
pub use upload::Upload;

use bytes::Bytes;
use std::fmt;
use std::ops::Range;
use windrow_core::settings::config::{S3Settings, Secret};
use windrow_core::table::place::Place;
use windrow_core::values::cause::{Cause, Trouble};
use windrow_core::values::object::{ListedObject, ObjectPage};

/// Where a table's files are.
#[derive(Clone, Debug)]
pub enum Store {
    /// In a bucket.
    S3(S3Store),
    /// In a directory of this machine.
    Local(LocalStore),
}

/// How to reach an S3 service. The bucket is not here: the warehouse names it.
#[derive(Clone)]
pub struct S3Config {
    /// The settings of the service.
    pub settings: S3Settings,
    /// CA certificates in PEM, which are trusted in addition to Mozilla's.
    pub ca_pem: Option<String>,
    /// The id of the access key.
    pub access_key: String,
    /// The secret of the access key.
    pub secret_key: String,
    /// URL of the HTTP proxy for all requests, except those to the settings' `no_proxy`. It may
    /// hold a password.
    pub proxy: Option<Secret>,
}

impl fmt::Debug for S3Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Config")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// What kind of error it is, for callers that branch. Every kind may pass, so every request may be
/// tried again later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// The access key is known, but it may not do this.
    Denied,
    /// There is no such bucket.
    NoBucket,
    /// The bucket lies in another region than requests are signed for.
    Region,
    /// Our clock and the store's differ by more than S3 allows (15 minutes).
    Clock,
    /// The access key is unknown, or the secret key is wrong. A rotation looks like this until we
    /// are told the new key.
    BadKey,
    /// The proxy on the way refuses: it wants a login, or forbids the store.
    Proxy,
    /// The store's certificate is expired, or another host's.
    Certificate,
    /// Something answers there, but its certificate is not trusted; or it alone wants TLS.
    Tls,
    /// Something answers there, but speaks no TLS, or none that we speak.
    NoTls,
    /// There is no connection, or no answer came in time.
    Unreachable,
    /// Anything else.
    Other,
}

/// Why a request to the store has failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct StoreError {
    /// For callers that branch.
    pub kind: StoreErrorKind,
    /// What failed, why, and what to do. There is never a secret in it.
    pub text: String,
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        let cause = match error.kind {
            StoreErrorKind::BadKey => Some(Cause::LoginS3),
            StoreErrorKind::Denied => Some(Cause::S3Rights),
            StoreErrorKind::NoBucket => Some(Cause::NoBucket),
            StoreErrorKind::Region => Some(Cause::S3Region),
            StoreErrorKind::Clock => Some(Cause::Clocks),
            StoreErrorKind::Proxy => Some(Cause::S3Proxy),
            StoreErrorKind::Certificate => Some(Cause::CertificateS3),
            StoreErrorKind::Tls => Some(Cause::TlsS3),
            StoreErrorKind::NoTls => Some(Cause::NoTlsS3),
            StoreErrorKind::Unreachable | StoreErrorKind::Other => None,
        };
        Trouble {
            cause,
            text: error.text,
        }
    }
}

/// How many objects a page of a listing has at most. S3 gives no more at a time.
const PAGE_MAX: usize = 1000;

/// What came of a deletion.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deleted {
    /// The keys whose objects are gone now.
    pub gone: Vec<String>,
    /// The keys whose objects could not be deleted.
    pub kept: Vec<String>,
    /// Why the first of them could not.
    pub first_error: Option<StoreError>,
}

impl Deleted {
    /// Adds what came of one object.
    fn add(&mut self, key: String, result: Result<(), StoreError>) {
        match result {
            Ok(()) => self.gone.push(key),
            Err(error) => {
                self.kept.push(key);
                self.first_error.get_or_insert(error);
            }
        }
    }
}

impl Store {
    /// The store of this warehouse. No request is sent yet; see [`Store::check`]. For a directory,
    /// `s3` is ignored. A proxy that is named in the environment is not used.
    ///
    /// # Errors
    /// The endpoint or the CA certificates cannot be used; a person must correct them.
    pub fn open(warehouse: &Place, s3: &S3Config) -> Result<Self, StoreError> {
        let other = |text| StoreError {
            kind: StoreErrorKind::Other,
            text,
        };
        Ok(match warehouse {
            Place::Directory(path) => Store::Local(LocalStore {
                root: warehouse.directory().unwrap_or(path).to_owned(),
            }),
            Place::Bucket { bucket, path } => {
                let limits = s3::Limits::default();
                Store::S3(S3Store::new(s3, bucket.clone(), path.clone(), limits).map_err(other)?)
            }
        })
    }

    /// Stores an object under its key, as a whole or not at all. Once this has returned, the object
    /// survives a crash. Storing the same bytes again is harmless.
    ///
    /// # Errors
    /// The object may be there or not: store it again.
    pub async fn put(&self, key: &str, bytes: impl Into<Bytes>) -> Result<(), StoreError> {
        let bytes = bytes.into();
        match self {
            Store::S3(s3) => s3.put(key, bytes).await,
            Store::Local(local) => local.put(key, bytes).await,
        }
    }

    /// Begins to store an object piece by piece. No request is sent yet.
    #[must_use]
    pub fn upload(&self, key: &str) -> Upload {
        Upload::new(self, key.to_owned())
    }

    /// Aborts the uploads of objects whose keys begin with `prefix` that were begun at least
    /// `age_ms` ago, and never finished. Returns how many these were.
    ///
    /// A directory has none: its listings remove temporary files that are a day old.
    ///
    /// # Errors
    /// See [`StoreErrorKind`]. Some of them may be there still.
    pub async fn abort_uploads(&self, prefix: &str, age_ms: u64) -> Result<u64, StoreError> {
        match self {
            Store::S3(s3) => s3.abort_uploads(prefix, age_ms).await,
            Store::Local(_) => Ok(0),
        }
    }

    /// The object's bytes; `None` when there is no such object.
    ///
    /// # Errors
    /// See [`StoreErrorKind`]. AWS answers `Denied` for an object that is not there when the user
    /// may not list the bucket.
    pub async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        match self {
            Store::S3(s3) => s3.get(key).await,
            Store::Local(local) => local.get(key).await,
        }
    }

    /// The bytes of this range of an object; `None` when there is no such object.
    ///
    /// # Errors
    /// As for [`Store::get`]. An object that is shorter than the range gives fewer bytes.
    pub async fn get_range(
        &self,
        key: &str,
        range: Range<u64>,
    ) -> Result<Option<Bytes>, StoreError> {
        match self {
            Store::S3(s3) => s3.get_range(key, range).await,
            Store::Local(local) => local.get_range(key, range).await,
        }
    }

    /// Deletes the objects, each for itself: one that cannot be deleted does not hold back the
    /// others. An object that is not there is gone.
    pub async fn delete(&self, keys: Vec<String>) -> Deleted {
        match self {
            Store::S3(s3) => s3.delete(keys).await,
            Store::Local(local) => local.delete(keys).await,
        }
    }

    /// A page of the objects whose keys begin with `prefix` (as text): those behind the key
    /// `after`, at most [`PAGE_MAX`], in the order of their keys. No more than a page is held in
    /// memory, however many objects there are.
    ///
    /// Ages are reckoned by this machine's clock. S3 refuses requests when that differs from its
    /// own by more than 15 minutes.
    ///
    /// # Errors
    /// See [`StoreErrorKind`]. It says nothing of which objects are there: ask again.
    pub async fn list_page(
        &self,
        prefix: &str,
        after: Option<&str>,
    ) -> Result<ObjectPage, StoreError> {
        match self {
            Store::S3(s3) => s3.list_page(prefix, after).await,
            Store::Local(local) => local.list_page(prefix, after).await,
        }
    }

    /// Calls `take` with every object whose key begins with `prefix`, in the order of their keys.
    ///
    /// # Errors
    /// As [`Store::list_page`].
    pub async fn list_all(
        &self,
        prefix: &str,
        mut take: impl FnMut(&ListedObject),
    ) -> Result<(), StoreError> {
        let mut after: Option<String> = None;
        loop {
            let page = self.list_page(prefix, after.as_deref()).await?;
            page.objects.iter().for_each(&mut take);
            if page.next.is_none() || !page.moves_on(after.as_deref()) {
                return Ok(());
            }
            after = page.next;
        }
    }

    /// Tries whether objects can be written, read and deleted, with an object that means nothing.
    ///
    /// # Errors
    /// Says what cannot be done, and why.
    pub async fn check(&self) -> Result<(), StoreError> {
        // Another process may check at the same moment and delete the object. So what is read does
        // not matter, only that reading is allowed.
        const KEY: &str = "_windrow/check";
        self.put(KEY, Bytes::from_static(b"windrow\n")).await?;
        self.get(KEY).await?;
        let deleted = self.delete(vec![KEY.to_owned()]).await;
        deleted.first_error.map_or(Ok(()), Err)
    }

    /// The same store for another warehouse in the same bucket. Credentials and proxies that are
    /// set later hold for both.
    ///
    /// # Errors
    /// The warehouse is not in the same bucket, or this store is a directory.
    pub fn elsewhere(&self, warehouse: &Place) -> Result<Self, StoreError> {
        if let (Store::S3(s3), Place::Bucket { bucket, path }) = (self, warehouse)
            && bucket == s3.bucket()
        {
            return Ok(Store::S3(s3.elsewhere(path)));
        }
        let text = format!(
            "cannot use warehouse \"{warehouse}\": it is not in the bucket that was opened; this \
             is a mistake in windrow"
        );
        Err(StoreError {
            kind: StoreErrorKind::Other,
            text,
        })
    }

    /// Uses another proxy, or none, from the next request on.
    ///
    /// # Errors
    /// It is not the address of a proxy. Then the previous one stays in use.
    pub fn set_proxy(&self, proxy: Option<&Secret>) -> Result<(), StoreError> {
        let Store::S3(s3) = self else { return Ok(()) };
        s3.set_proxy(proxy).map_err(|text| StoreError {
            kind: StoreErrorKind::Other,
            text,
        })
    }

    /// Uses other credentials from the next request on.
    pub fn set_credentials(&self, access_key: &str, secret_key: &str) {
        if let Store::S3(s3) = self {
            s3.set_credentials(access_key, secret_key);
        }
    }
}
