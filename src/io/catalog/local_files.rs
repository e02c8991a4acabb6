//! Files of the local catalog: each is JSON, and is replaced as a whole and on disk. And its clock.
#![expect(
    clippy::disallowed_methods,
    reason = "the machine's clock stands in for the database's"
)]

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};
use windrow_core::values::time::DbTime;

/// The names in a directory; none when the directory is not there.
pub(super) fn entries(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}

/// Removes what a process left behind that was killed in the middle of a write.
pub(super) fn remove_temporary(dir: &Path) -> io::Result<()> {
    for name in entries(dir)?.iter().filter(|name| name.ends_with(".tmp")) {
        fs::remove_file(dir.join(name))?;
    }
    Ok(())
}

/// A file's value; `None` when the file is not there.
///
/// # Errors
/// Those of [`damaged`] when it is not the JSON of such a value. Every error names the file.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            let why = format!("{}: {error}", path.display());
            return Err(io::Error::new(error.kind(), why));
        }
    };
    let value = serde_json::from_slice(&bytes);
    value.map(Some).map_err(|error| damaged(path, error))
}

/// A file that windrow cannot have left like this. To wait does not help, so it is told apart from
/// other errors by its kind, `InvalidData`.
pub(super) fn damaged(path: &Path, why: impl fmt::Display) -> io::Error {
    let why = format!("file \"{}\": {why}", path.display());
    io::Error::new(ErrorKind::InvalidData, why)
}

/// Replaces a file as a whole, also when the process is killed meanwhile.
pub(super) fn write(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    write_through(&temporary, value)?;
    fs::rename(&temporary, path)?;
    sync_parent(path)
}

/// Writes a file to the disk. A process that is killed meanwhile leaves a part of it, so the name
/// is a temporary one.
pub(super) fn write_through(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    file.sync_all()
}

/// Writes a file's directory to the disk: only then is a new name there after a power failure.
pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

/// The local catalog's clock, which is the machine's.
pub(super) fn now() -> DbTime {
    let ms = |since: Duration| i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
    DbTime(
        match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => ms(since),
            // A machine without a battery begins in 1970, or before it.
            Err(before) => -ms(before.duration()),
        },
    )
}
