//! Objects as files of a directory.
//! Nobody ever sees half a file: each one is written under a temporary name, made durable, and
//! renamed.

use super::{StoreError, StoreErrorKind};
use bytes::Bytes;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A directory, for the demo, development and tests.
#[derive(Clone, Debug)]
pub struct LocalStore {
    pub(super) root: PathBuf,
}

impl LocalStore {
    fn path(&self, key: &str) -> Result<PathBuf, StoreError> {
        if key
            .split('/')
            .all(|part| !part.is_empty() && !part.starts_with('.'))
        {
            return Ok(self.root.join(key));
        }
        let text = format!(
            "cannot use object key \"{key}\": it is not a plain path; this is a mistake in windrow"
        );
        Err(StoreError {
            kind: StoreErrorKind::Other,
            text,
        })
    }

    pub(super) async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        let path = self.path(key)?;
        blocking(move || write_durably(&path, &bytes).map_err(|e| file_error("write", &path, &e)))
            .await
    }

    pub(super) async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.path(key)?;
        blocking(move || match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(file_error("read", &path, &e)),
        })
        .await
    }

    pub(super) async fn get_range(
        &self,
        key: &str,
        range: Range<u64>,
    ) -> Result<Option<Bytes>, StoreError> {
        let path = self.path(key)?;
        blocking(move || match read_range(&path, &range) {
            Ok(bytes) => Ok(Some(Bytes::from(bytes))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(file_error("read", &path, &e)),
        })
        .await
    }

    pub(super) async fn delete(&self, keys: &[String]) -> Result<(), StoreError> {
        let paths = keys
            .iter()
            .map(|key| self.path(key))
            .collect::<Result<Vec<_>, _>>()?;
        let root = self.root.clone();
        blocking(move || {
            let mut first = Ok(());
            for path in paths {
                first =
                    first.and(remove(&root, &path).map_err(|e| file_error("delete", &path, &e)));
            }
            first
        })
        .await
    }

    pub(super) async fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, StoreError> {
        let (folder, prefix) = (
            self.root
                .join(prefix.rsplit_once('/').map_or("", |(f, _)| f)),
            prefix.to_owned(),
        );
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

/// The bytes of this range that the file has.
fn read_range(path: &Path, range: &Range<u64>) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(range.start))?;
    let mut bytes = Vec::new();
    file.take(range.end.saturating_sub(range.start))
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work)
        .await
        .expect("file work does not panic")
}

/// A number for each write of this process, so that two writes of one object at the same time have
/// different temporary names.
static WRITES: AtomicU64 = AtomicU64::new(0);

/// Writes a file as a whole or not at all: temporary file, fsync, rename, fsync of the folder. What
/// a crash leaves behind has a name that begins with a dot, and readers of tables ignore such
/// files.
fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().expect("a key is below the root");
    let name = path
        .file_name()
        .and_then(OsStr::to_str)
        .expect("a key is text");
    let temporary = folder.join(format!(
        ".{name}.{}-{}",
        std::process::id(),
        WRITES.fetch_add(1, Ordering::Relaxed)
    ));
    let mut file = loop {
        make_folders(folder)?;
        match File::create(&temporary) {
            // Meanwhile a delete has removed the folder, because it was empty.
            Err(e) if e.kind() == io::ErrorKind::NotFound && !folder.exists() => {}
            result => break result?,
        }
    };
    let written = file
        .write_all(bytes)
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // The first of the two errors is the one to report.
        _ = fs::remove_file(&temporary);
    }
    written?;
    sync_folder(folder)
}

/// Creates a folder and those above it, and makes the name of each new one durable.
fn make_folders(folder: &Path) -> io::Result<()> {
    if folder.as_os_str().is_empty() || folder.is_dir() {
        return Ok(());
    }
    let above = folder.parent().unwrap_or(Path::new(""));
    make_folders(above)?;
    match fs::create_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        // Meanwhile a delete has removed the folder above; the caller tries again.
        Err(e) if e.kind() == io::ErrorKind::NotFound && !above.exists() => Ok(()),
        Err(e) => Err(e),
        Ok(()) => sync_folder(above),
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    let folder = if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    };
    File::open(folder)?.sync_all()
}

/// Removes the file and the folders that it leaves empty.
fn remove(root: &Path, path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    for folder in path
        .ancestors()
        .skip(1)
        .take_while(|folder| *folder != root)
    {
        // This fails for a folder that is not empty, and then those above are not empty either.
        if fs::remove_dir(folder).is_err() {
            break;
        }
    }
    Ok(())
}

/// Adds the key and the size of every file below `folder`.
fn walk(root: &Path, folder: &Path, found: &mut Vec<(String, u64)>) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        // A folder that is not there has no objects; or a delete has just removed it.
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

pub(super) fn file_error(verb: &str, path: &Path, error: &io::Error) -> StoreError {
    use io::ErrorKind;
    let (kind, why) = match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => (
            StoreErrorKind::Denied,
            format!("{error}; allow windrow's user to {verb} there"),
        ),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            (StoreErrorKind::Other, format!("{error}; free some space"))
        }
        _ => (
            StoreErrorKind::Other,
            format!("{error}; check the warehouse's directory"),
        ),
    };
    StoreError {
        kind,
        text: format!("cannot {verb} file \"{}\": {why}", path.display()),
    }
}
