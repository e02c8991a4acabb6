//! The manifest of an epoch: the object that says once more what the epoch's commit said, so that
//! the epoch can be committed again where the catalog has lost it. What is followed, and when, is
//! decided in `engine/following`.
//!
//! A manifest is the commit as JSON. Its digest is taken over that text, with three pieces blank:
//!
//! ```text
//! {"owner":{"term":3,"owner-id":"8f"},"epoch":12,...,"manifest":"_windrow/...","digest":"9f86"}
//! {"owner":{"term":0,"owner-id":""},"epoch":12,...,"manifest":"","digest":""}
//! ```
//!
//! It is checked on the text, and not on a commit that is written anew, because an earlier version
//! of windrow may have written it without the fields that came later.

use crate::table::commit::{CheckpointAt, Commit};
use crate::table::place::Names;
use crate::values::digest::sha256_hex;

/// What stands in the place of the owner while the digest is taken.
const NOBODY: &str = r#"{"owner":{"term":0,"owner-id":""}"#;
/// What comes after the owner.
const AFTER_OWNER: &str = r#","epoch":"#;
/// Where the pieces at the end begin.
const LAST_FIELDS: &str = r#","manifest":""#;
/// What stands in their place while the digest is taken.
const NO_LAST_FIELDS: &str = r#","manifest":"","digest":""}"#;

/// Reads the manifest that was stored under this key.
///
/// # Errors
/// It is damaged, or not what windrow stores under this key; as the end of a sentence.
pub fn read(key: &str, bytes: &[u8], names: &Names) -> Result<Commit, String> {
    let commit: Commit = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    if digest(text).as_ref() != Some(&commit.digest) {
        return Err("it does not have the digest that it names".to_owned());
    }
    let named = names.term_and_epoch(key);
    if commit.manifest != key || named.and_then(|(_, epoch)| epoch) != Some(commit.epoch) {
        return Err("it is the manifest of another epoch".to_owned());
    }
    let is_ours = |key: &String| names.term_and_epoch(key).is_some();
    if let Some(key) = commit.objects().iter().find(|key| !is_ours(key)) {
        return Err(format!(
            "it names \"{key}\", which is not an object of this table"
        ));
    }
    Ok(commit)
}

/// The digest of the commit that this text is; `None` where it is not the text of a commit.
fn digest(text: &str) -> Option<String> {
    let (_, rest) = text.split_once(AFTER_OWNER)?;
    let (middle, _) = rest.rsplit_once(LAST_FIELDS)?;
    Some(sha256_hex(
        format!("{NOBODY}{AFTER_OWNER}{middle}{NO_LAST_FIELDS}").as_bytes(),
    ))
}

/// An object that an epoch needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedObject {
    /// Its key.
    pub key: String,
    /// Its size; `None` where that is not known.
    pub bytes: Option<u64>,
    /// The beginning of its SHA-256, or all of it, in lower-case hexadecimal.
    pub sha256: String,
}

/// The objects that an epoch needs beside its manifest: its files and its checkpoint.
#[must_use]
pub fn wanted_objects(commit: &Commit) -> Vec<WantedObject> {
    let file = |file: &crate::table::commit::NewFile| WantedObject {
        key: file.key.clone(),
        bytes: Some(file.bytes),
        sha256: file.sha256.clone(),
    };
    let checkpoint = match &commit.checkpoint {
        Some(CheckpointAt::Object(key)) => Some(WantedObject {
            key: key.clone(),
            bytes: None,
            // Its name ends with the beginning of its hash.
            sha256: key.rsplit('-').next().unwrap_or_default().to_owned(),
        }),
        _ => None,
    };
    commit.files.iter().map(file).chain(checkpoint).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(epoch: u64) -> (Names, Commit) {
        let names = Names::new("default", "t");
        let mut commit = Commit::for_tests(epoch);
        commit.seal(&names);
        (names, commit)
    }

    #[test]
    fn a_manifest_is_read_as_it_was_written() {
        let (names, commit) = sealed(12);
        let bytes = serde_json::to_vec(&commit).unwrap();
        assert_eq!(read(&commit.manifest, &bytes, &names), Ok(commit));
    }

    #[test]
    fn a_manifest_without_the_fields_of_later_versions_is_read() {
        let (names, commit) = sealed(12);
        let text = serde_json::to_string(&commit).unwrap();
        let older = text.replace(r#""cluster-id":"cluster","#, "");
        assert_ne!(older, text);
        let digest = digest(&older).unwrap();
        let older = older.replace(&commit.digest, &digest);
        let older = older.replace(&commit.digest[..32], &digest[..32]);
        let key = names.manifest(1, 12, &digest);
        let read = read(&key, older.as_bytes(), &names).unwrap();
        assert_eq!((read.digest, read.cluster_id), (digest, String::new()));
    }

    #[test]
    fn a_manifest_that_was_altered_is_refused() {
        let (names, commit) = sealed(12);
        let text = serde_json::to_string(&commit).unwrap();
        let altered = text.replace(r#""topic-id":"topic""#, r#""topic-id":"topia""#);
        let refused = |key: &str, text: &str| read(key, text.as_bytes(), &names).unwrap_err();
        assert_eq!(
            refused(&commit.manifest, &altered),
            "it does not have the digest that it names"
        );
        let other = names.manifest(1, 13, &commit.digest);
        assert_eq!(
            refused(&other, &text),
            "it is the manifest of another epoch"
        );
        refused(&commit.manifest, "{}");
        refused(&commit.manifest, "");
    }

    #[test]
    fn a_manifest_that_names_foreign_objects_is_refused() {
        let (names, mut commit) = sealed(12);
        commit.checkpoint = Some(CheckpointAt::Object("somewhere/else".to_owned()));
        commit.seal(&names);
        let bytes = serde_json::to_vec(&commit).unwrap();
        let why = read(&commit.manifest, &bytes, &names).unwrap_err();
        assert!(why.contains("somewhere/else"), "{why}");
    }
}
