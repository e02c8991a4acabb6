//! Objects as files of a directory.
//! Nobody ever sees half a file: each one is written under a temporary name, made durable, and
//! renamed.

use super::{Deleted, PAGE_MAX, StoreError, StoreErrorKind};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use windrow_core::values::object::{ListedObject, ObjectPage};

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
        let (root, path) = (self.root.clone(), self.path(key)?);
        blocking(move || {
            let written = write_durably(&root, &path, &bytes);
            written.map_err(|e| file_error("write", &path, &e))
        })
        .await
    }

    /// Writes a piece behind those that the file has; `None` is a file that is still to be made.
    pub(super) async fn add(
        &self,
        key: &str,
        file: Option<Temporary>,
        bytes: Bytes,
    ) -> Result<Temporary, StoreError> {
        let (root, path) = (self.root.clone(), self.path(key)?);
        blocking(move || {
            let written = file.map_or_else(|| Temporary::create(&root, &path), Ok);
            let written = written.and_then(|mut file| {
                file.file.write_all(&bytes)?;
                Ok(file)
            });
            written.map_err(|e| file_error("write", &path, &e))
        })
        .await
    }

    /// Writes the last piece, and shows the file.
    pub(super) async fn finish(&self, mut file: Temporary, bytes: Bytes) -> Result<(), StoreError> {
        blocking(move || {
            let path = file.path.clone();
            let written = file.file.write_all(&bytes).and_then(|()| file.show());
            written.map_err(|e| file_error("write", &path, &e))
        })
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

    pub(super) async fn delete(&self, keys: Vec<String>) -> Deleted {
        let store = self.clone();
        blocking(move || {
            let mut deleted = Deleted::default();
            for key in keys {
                let removed = store.path(&key).and_then(|path| {
                    remove(&store.root, &path).map_err(|e| file_error("delete", &path, &e))
                });
                deleted.add(key, removed);
            }
            deleted
        })
        .await
    }

    pub(super) async fn list_page(
        &self,
        prefix: &str,
        after: Option<&str>,
    ) -> Result<ObjectPage, StoreError> {
        let folder = prefix.rsplit_once('/').map_or("", |(folder, _)| folder);
        let (root, folder, prefix) = (self.root.clone(), folder.to_owned(), prefix.to_owned());
        let after = after.unwrap_or_default().to_owned();
        blocking(move || {
            let mut page = PageWalk {
                root: &root,
                prefix: &prefix,
                after: &after,
                found: Vec::new(),
                next: None,
            };
            let walked = page.walk(&folder);
            walked.map_err(|e| file_error("list", &root.join(&folder), &e))?;
            Ok(ObjectPage {
                objects: page.found,
                next: page.next,
            })
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

/// Writes a file as a whole or not at all.
fn write_durably(root: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = Temporary::create(root, path)?;
    file.file.write_all(bytes)?;
    file.show()
}

/// A file that is written under a temporary name, which is removed unless it is shown in the end.
/// What a crash leaves behind has a name that begins with a dot, and readers of tables ignore such
/// files.
pub(super) struct Temporary {
    root: PathBuf,
    /// Where the file will be.
    path: PathBuf,
    temporary: PathBuf,
    file: File,
    shown: bool,
}

impl Temporary {
    fn create(root: &Path, path: &Path) -> io::Result<Self> {
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
        let file = loop {
            make_folders(folder)?;
            match File::create(&temporary) {
                // Meanwhile a delete has removed the folder, because it was empty.
                Err(e) if e.kind() == io::ErrorKind::NotFound && !folder.exists() => {}
                result => break result?,
            }
        };
        Ok(Self {
            root: root.to_owned(),
            path: path.to_owned(),
            temporary,
            file,
            shown: false,
        })
    }

    /// Makes the file durable, and gives it its name: fsync, rename, fsync of the folder.
    fn show(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.temporary, &self.path)?;
        self.shown = true;
        sync_folder(self.path.parent().expect("a key is below the root"))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.shown {
            // Nobody sees it, and a listing removes it later.
            _ = remove(&self.root, &self.temporary);
        }
    }
}

/// No write takes so long: a temporary file of this age was left behind.
const LEFTOVER_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// Whether it is a name that [`Temporary`] gives for a time: `.part.parquet.4711-12`.
fn is_temporary(name: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let end = name
        .strip_prefix('.')
        .and_then(|name| name.rsplit_once('.'));
    end.and_then(|(name, end)| end.split_once('-').filter(|_| !name.is_empty()))
        .is_some_and(|(process, write)| is_number(process) && is_number(write))
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

/// A walk through files in the order of their keys, up to a page of them.
struct PageWalk<'a> {
    root: &'a Path,
    /// What the keys begin with.
    prefix: &'a str,
    /// Only keys behind this one are found.
    after: &'a str,
    found: Vec<ListedObject>,
    /// Where the next page begins, once this one is over before all was seen.
    next: Option<String>,
}

impl PageWalk<'_> {
    /// Walks through a folder, given as a path below the root. Of its names only those are kept in
    /// memory that may still belong to the page.
    fn walk(&mut self, folder: &str) -> io::Result<()> {
        let path = self.root.join(folder);
        let entries = match fs::read_dir(&path) {
            // A folder that is not there has no objects; or a delete has just removed it.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        // The key of a file, or what the keys of a folder begin with: it ends in a slash.
        let mut names: BTreeMap<String, fs::DirEntry> = BTreeMap::new();
        let mut cut = false;
        for entry in entries {
            let entry = entry?;
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
                continue;
            };
            let is_folder = entry.file_type()?.is_dir();
            let mut key = match folder {
                "" => name.clone(),
                _ => format!("{folder}/{name}"),
            };
            if is_folder {
                key.push('/');
            }
            let behind = key.as_str() > self.after || is_folder && self.after.starts_with(&key);
            let begins = key.starts_with(self.prefix) || self.prefix.starts_with(&key);
            if name.starts_with('.') {
                self.remove_leftover(&name, &entry);
                continue;
            }
            if !behind || !begins {
                continue;
            }
            names.insert(key, entry);
            if names.len() > PAGE_MAX {
                names.pop_last();
                cut = true;
            }
        }
        let last = names.keys().next_back().filter(|_| cut).cloned();
        for (key, entry) in names {
            match key.strip_suffix('/') {
                Some(folder) => self.walk(folder)?,
                None => self.add(key, &entry)?,
            }
            if self.next.is_some() {
                return Ok(());
            }
        }
        // Folders may have been empty, so that the page is over although it is not full. What
        // follows a folder is greater than all keys in it.
        self.next = last.map(|last| match last.strip_suffix('/') {
            Some(_) => last + "\u{10FFFF}",
            None => last,
        });
        Ok(())
    }

    /// Removes a temporary file that a process left behind when it was killed, so that its folder
    /// can become empty. One that cannot be removed is in nobody's way, and is tried again by the
    /// next listing.
    fn remove_leftover(&self, name: &str, entry: &fs::DirEntry) {
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        let age = modified.ok().and_then(|modified| modified.elapsed().ok());
        if is_temporary(name) && age.is_some_and(|age| age >= LEFTOVER_AGE) {
            _ = remove(self.root, &entry.path());
        }
    }

    fn add(&mut self, key: String, entry: &fs::DirEntry) -> io::Result<()> {
        let metadata = match entry.metadata() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            metadata => metadata?,
        };
        // A file of the future was stored just now.
        let age = metadata.modified()?.elapsed().unwrap_or_default();
        if self.found.len() + 1 == PAGE_MAX {
            self.next = Some(key.clone());
        }
        self.found.push(ListedObject {
            key,
            age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
        });
        Ok(())
    }
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
