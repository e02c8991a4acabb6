//! Where a table lies, from the settings through epoch 0 to Hive, and the names of its objects
//! there. Nothing is looked up here: what the catalog answers arrives as an argument of [`locate`].

use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The folder of a bucket that holds tables where nothing says otherwise. The Spark integration hub
/// and Kyuubi's charm set the same one as Spark's warehouse.
const DEFAULT_FOLDER: &str = "warehouse";

/// Where a table's objects lie; the key of each object is a path below it.
///
/// [`fmt::Display`] gives the text that epoch 0 keeps, and serde uses the same text.
///
/// ```
/// # use windrow_core::table::place::Place;
/// let place: Place = "s3a://spark/warehouse".parse().unwrap();
/// assert_eq!(place.bucket(), Some("spark"));
/// assert_eq!(place.to_string(), "s3a://spark/warehouse");
/// assert_eq!(place.uri_of("tables/rows"), "s3a://spark/warehouse/tables/rows");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Place {
    /// A path in an S3 bucket.
    Bucket {
        /// The bucket's name, as [`check_bucket`] allows it.
        bucket: String,
        /// It has no slash at either end. Empty is the whole bucket.
        path: String,
    },
    /// A directory of the local file system, as it was written: `/data`, `data` or `file:/data`.
    Directory(PathBuf),
}

impl Place {
    /// The place of a new table in a bucket when nothing else is known: `s3a://BUCKET/warehouse`.
    #[must_use]
    pub fn default_in(bucket: &str) -> Self {
        Place::Bucket {
            bucket: bucket.to_owned(),
            path: DEFAULT_FOLDER.to_owned(),
        }
    }

    /// The bucket's name; `None` for a directory.
    #[must_use]
    pub fn bucket(&self) -> Option<&str> {
        match self {
            Place::Bucket { bucket, .. } => Some(bucket),
            Place::Directory(_) => None,
        }
    }

    /// The directory as this machine's file system names it, without `file:`; `None` for a bucket.
    #[must_use]
    pub fn directory(&self) -> Option<&Path> {
        match self {
            Place::Bucket { .. } => None,
            Place::Directory(path) => Some(without_scheme(path)),
        }
    }

    /// The place as readers are told it. A directory gets its scheme, because Spark would look for
    /// a path without one in its own default file system.
    #[must_use]
    pub fn uri(&self) -> String {
        match self {
            Place::Directory(path) if without_scheme(path) == path => format!("file:{self}"),
            _ => self.to_string(),
        }
    }

    /// A path below this place as readers are told it: `s3a://spark/warehouse/tables/rows`.
    #[must_use]
    pub fn uri_of(&self, path: &str) -> String {
        format!("{}/{path}", self.uri().trim_end_matches('/'))
    }

    /// Reads a location that Hive or Spark wrote; `None` when it is not a plain path in a bucket.
    /// The schemes `s3` and `s3n` are older names of `s3a`.
    fn of_hive(location: &str) -> Option<Self> {
        let rest = ["s3a://", "s3://", "s3n://"]
            .iter()
            .find_map(|scheme| location.strip_prefix(scheme))?;
        format!("s3a://{rest}").parse().ok()
    }
}

fn without_scheme(path: &Path) -> &Path {
    // `file:/path` and `file:///path` are the same.
    path.to_str()
        .and_then(|text| text.strip_prefix("file:"))
        .map_or(path, |rest| {
            Path::new(rest.strip_prefix("//").unwrap_or(rest))
        })
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Bucket { bucket, path } if path.is_empty() => write!(f, "s3a://{bucket}"),
            Place::Bucket { bucket, path } => write!(f, "s3a://{bucket}/{path}"),
            Place::Directory(path) => write!(f, "{}", path.display()),
        }
    }
}

impl FromStr for Place {
    type Err = String;

    /// Reads `s3a://BUCKET/PATH` or a directory; slashes at the end are dropped.
    ///
    /// # Errors
    /// The reason and what is allowed, as the end of a sentence.
    fn from_str(text: &str) -> Result<Self, String> {
        let hint = "write s3a://BUCKET/PATH or a directory";
        if text.is_empty() {
            return Err(format!("it is empty; {hint}"));
        }
        if let Some(rest) = text.strip_prefix("s3a://") {
            let (bucket, path) = rest.split_once('/').unwrap_or((rest, ""));
            let path = path.trim_matches('/');
            check_bucket(bucket)?;
            // Any other path means one key to S3, and another one to a reader that tidies paths up.
            let plain = |part: &str| {
                !matches!(part, "" | "." | "..")
                    && part
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b"._-=+".contains(&b))
            };
            if !path.is_empty() && !path.split('/').all(plain) {
                return Err(format!(
                    "the path has other signs than a-z, A-Z, 0-9 and \"._-=+\"; {hint}"
                ));
            }
            return Ok(Place::Bucket {
                bucket: bucket.to_owned(),
                path: path.to_owned(),
            });
        }
        if text.contains("://") || text.starts_with("s3") && text.contains(':') {
            return Err(format!("only s3a is read by Spark and Hive alike; {hint}"));
        }
        let trimmed = text.trim_end_matches('/');
        Ok(Place::Directory(PathBuf::from(if trimmed.is_empty() {
            "/"
        } else {
            trimmed
        })))
    }
}

impl From<Place> for String {
    fn from(place: Place) -> String {
        place.to_string()
    }
}

impl TryFrom<String> for Place {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// What the settings say of where the table's files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TablePlace {
    /// Here: `table.warehouse`, or the directory of a local catalog.
    At(Place),
    /// Somewhere in this bucket, `table.bucket`. Where, [`locate`] decides once the catalog has
    /// been asked.
    InBucket(String),
}

impl TablePlace {
    /// The place, or the one to go on with until the catalog has been asked.
    #[must_use]
    pub fn or_default(&self) -> Place {
        match self {
            TablePlace::At(place) => place.clone(),
            TablePlace::InBucket(bucket) => Place::default_in(bucket),
        }
    }
}

/// Whether a text can be a bucket's name: what S3 allows, and what every reader can read. Readers
/// are Java programs, which take the bucket from `java.net.URI.getHost()`; that is null where
/// RFC 2396, 3.2.2 has no such host. For example, `logs.2024` is a bucket that no reader can read.
///
/// # Errors
/// Why not, as the end of a sentence, with a name that would do.
pub fn check_bucket(name: &str) -> Result<(), String> {
    let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let labels = || name.split('.');
    let last = labels().next_back().unwrap_or_default();
    let why = if !(3..=63).contains(&name.len()) || !name.bytes().all(known) {
        "not a bucket's name; write 3 to 63 of a-z, A-Z, 0-9, \".\" and \"-\""
    } else if name.contains('_') {
        "Spark and Hive cannot read a bucket with \"_\" in its name; write one"
    } else if labels().any(str::is_empty) {
        "a dot must stand between two letters or digits; write one"
    } else if labels().any(|label| label.starts_with('-') || label.ends_with('-')) {
        "Spark and Hive cannot read a bucket of which a part begins or ends with \"-\"; write one"
    } else if name.contains('.') && !last.starts_with(|c: char| c.is_ascii_lowercase()) {
        "Spark and Hive cannot read a bucket whose last part, after the dot, does not begin with a \
         letter; write one"
    } else {
        return Ok(());
    };
    // Other text is not repeated: an address may hold a key.
    let like = if name.bytes().all(known) { name } else { "" };
    Err(format!("{why} such as {}", readable_bucket(like)))
}

/// A bucket's name that is like this one and can be read: `logs.2024` becomes `logs-2024`.
fn readable_bucket(name: &str) -> String {
    let parts = name.split(|c: char| !c.is_ascii_alphanumeric());
    let parts: Vec<&str> = parts.filter(|part| !part.is_empty()).collect();
    let like = parts.join("-").to_ascii_lowercase();
    if (3..=63).contains(&like.len()) {
        like
    } else {
        "spark-logs".to_owned()
    }
}

/// Decides where a table lies when the settings name only its bucket. A table that exists stays
/// where it is. A new one goes where Hive keeps the database if that is in the bucket, and else to
/// `s3a://BUCKET/warehouse`, where Spark's charms keep theirs.
///
/// `recorded` is the place in the table's epoch 0, and `database` the location of the Hive
/// database; each may be of any scheme, and `None` where there is no such thing.
///
/// # Errors
/// The table lies outside of the bucket: the text says where, and what to do.
pub fn locate(
    bucket: &str,
    recorded: Option<&str>,
    database: Option<&str>,
) -> Result<Place, String> {
    let within =
        |location: &str| Place::of_hive(location).filter(|place| place.bucket() == Some(bucket));
    match recorded {
        Some(recorded) => within(recorded).ok_or_else(|| {
            format!(
                "the table lies in {recorded} and not in bucket \"{bucket}\": its files are never \
                 moved; set the bucket it is in, or choose another table name"
            )
        }),
        None => Ok(database
            .and_then(within)
            .unwrap_or_else(|| Place::default_in(bucket))),
    }
}

/// How the names of day manifests end.
const DAY_MANIFEST: &str = ".json.zst";

/// How many digits an epoch has at least in a name.
const EPOCH_DIGITS: usize = 10;
/// How many digits of a SHA-256 stand in a name.
const HASH_DIGITS: usize = 32;

/// Whether this is what stands for a period in the name of a compacted file: `day`, `hour12` or
/// `1250`.
fn is_period(text: &str) -> bool {
    let is_number = |text: &str, digits: usize| {
        text.len() == digits && text.bytes().all(|b| b.is_ascii_digit())
    };
    let hour = text.strip_prefix("hour");
    text == "day" || hour.is_some_and(|hour| is_number(hour, 2)) || is_number(text, 4)
}

/// The names of a table's objects: paths below its [`Place`].
///
/// A name holds the term of its owner, the epoch and the digest of the bytes, so no other owner and
/// no other bytes can have it. The digest is cut at 128 bits, because people read these paths:
/// `_windrow/default.newtable/rows/3-0000000012-0f343b0931126a20f133d67c2b018a3b/part.parquet`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    prefix: String,
}

impl Names {
    /// The names of this table's objects. Hive's names need no escaping in a path.
    #[must_use]
    pub fn new(database: &str, table: &str) -> Self {
        // Spark and Hive pass over names that begin with an underscore when they list a folder.
        Self {
            prefix: format!("_windrow/{database}.{table}/"),
        }
    }

    /// What all names begin with; it ends in a slash.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The name of an object, or of the folder that holds one file alone:
    /// `<prefix><folder>/<term>-<epoch>-<sha256>`. `sha256` is hexadecimal and at least 32 long.
    #[must_use]
    pub fn object(&self, folder: &str, term: u64, epoch: u64, sha256: &str) -> String {
        format!(
            "{}{folder}/{term}-{epoch:0EPOCH_DIGITS$}-{}",
            self.prefix,
            &sha256[..HASH_DIGITS]
        )
    }

    /// Whether bytes with this SHA-256, in hexadecimal, are what was stored under this name by
    /// [`Names::object`].
    #[must_use]
    pub fn is_object_of(key: &str, sha256: &str) -> bool {
        sha256.len() >= HASH_DIGITS && key.rsplit('-').next() == Some(&sha256[..HASH_DIGITS])
    }

    /// The name of a Parquet file. It is alone in its folder, which is the location of a table
    /// partition. `folder` is `rows`, `late` or `rejects`.
    #[must_use]
    pub fn file(&self, folder: &str, term: u64, epoch: u64, sha256: &str) -> String {
        self.object(folder, term, epoch, sha256) + "/part.parquet"
    }

    /// The name of an epoch's manifest.
    #[must_use]
    pub fn manifest(&self, term: u64, epoch: u64, digest: &str) -> String {
        self.object("manifests", term, epoch, digest) + ".json"
    }

    /// The name of a day manifest. `day` is `2026-11-27`.
    #[must_use]
    pub fn day_manifest(&self, term: u64, day: &str, sha256: &str) -> String {
        format!(
            "{}manifests/{term}-{day}-{}{DAY_MANIFEST}",
            self.prefix,
            &sha256[..HASH_DIGITS]
        )
    }

    /// What the names of all manifests begin with.
    #[must_use]
    pub fn manifests(&self) -> String {
        format!("{}manifests/", self.prefix)
    }

    /// A text behind which a listing shows the manifests of this term from this epoch on. Terms are
    /// no numbers to a listing, so those of term 10 come before those of term 2.
    #[must_use]
    pub fn manifests_from(&self, term: u64, epoch: u64) -> String {
        format!("{}{term}-{epoch:0EPOCH_DIGITS$}", self.manifests())
    }

    /// A text behind which a listing shows no manifest of this term any more, and those of the next
    /// term in its order.
    #[must_use]
    pub fn manifests_after(&self, term: u64) -> String {
        // A colon comes after all digits, with which epochs and days begin.
        format!("{}{term}-:", self.manifests())
    }

    /// The epoch that a manifest's name holds; `None` when it is not the name of an epoch's
    /// manifest.
    #[must_use]
    pub fn epoch_of_manifest(key: &str) -> Option<u64> {
        let name = key.rsplit('/').next()?.strip_suffix(".json")?;
        name.split('-').nth(1)?.parse().ok()
    }

    /// Whether a name is that of a day manifest.
    #[must_use]
    pub fn is_day_manifest(key: &str) -> bool {
        key.ends_with(DAY_MANIFEST)
    }

    /// The term of its owner and the epoch in the name of one of this table's objects. A compacted
    /// file has no epoch in its name, because it is stored before it is known which one will show
    /// it. `None` for a name that windrow does not give, and for the file without rows, which stays
    /// as long as the table.
    #[must_use]
    pub fn term_and_epoch(&self, key: &str) -> Option<(u64, Option<u64>)> {
        let (folder, rest) = key.strip_prefix(&self.prefix)?.split_once('/')?;
        let name = match folder {
            "manifests" if rest.ends_with(DAY_MANIFEST) => {
                let term = rest.split('-').next()?.parse().ok()?;
                return Some((term, None));
            }
            "manifests" => rest.strip_suffix(".json")?,
            "checkpoints" => rest,
            "rows" | "late" | "rejects" => rest.strip_suffix("/part.parquet")?,
            _ => return None,
        };
        // Between the folder and the name there may be a day.
        let mut parts = name.rsplit('/').next()?.split('-');
        let (term, what) = (parts.next()?.parse().ok()?, parts.next()?);
        let hash = parts.next()?;
        let epoch = match what.parse() {
            // `1250` is ten minutes of a day, and an epoch has ten digits.
            Ok(epoch) if what.len() >= EPOCH_DIGITS => Some(epoch),
            _ if is_period(what) && hash.len() == HASH_DIGITS => None,
            _ => return None,
        };
        Some((term, epoch))
    }

    /// The name of the file without rows, which is put once with the table. `sha256` is that of its
    /// bytes.
    #[must_use]
    pub fn empty_file(&self, sha256: &str) -> String {
        format!(
            "{}rows/empty-{}/part.parquet",
            self.prefix,
            &sha256[..HASH_DIGITS]
        )
    }

    /// The folder of a compacted file, which holds it alone, without the day that it is below:
    /// `<folder>/<term>-<period>-<sha256>`. `folder` is `rows/2026-11-27`, `late` or `rejects`, and
    /// `sha256` is over who makes the file, for the how manyth time, and from what: that of its own
    /// bytes is known only when it is made, and no key may come twice. The second file of the same
    /// merge has `-1` at the end, and so on.
    #[must_use]
    pub fn compacted(
        &self,
        folder: &str,
        term: u64,
        period: &str,
        sha256: &str,
        part: usize,
    ) -> String {
        let part = match part {
            0 => String::new(),
            n => format!("-{n}"),
        };
        let hash = &sha256[..HASH_DIGITS];
        format!(
            "{}{folder}/{term}-{period}-{hash}{part}/part.parquet",
            self.prefix
        )
    }

    /// A folder that stays empty: the location that Hive keeps for the table itself. What lies in a
    /// table's own location can be found by listing, and none of our files may be found that way.
    #[must_use]
    pub fn empty_folder(&self, table: &str) -> String {
        format!("{}tables/{table}", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Place {
        text.parse().unwrap_or_else(|why| panic!("{text}: {why}"))
    }

    #[test]
    fn a_bucket_that_java_cannot_parse_is_refused_with_one_that_it_can() {
        for good in [
            "spark",
            "2024logs",
            "my-bucket",
            "a.b.c",
            "lake.v1",
            "1.2.x",
            "a-b.c-d",
            "Spark",
            "logs2024",
            "abc",
        ] {
            assert_eq!(check_bucket(good), Ok(()), "{good}");
        }
        for (bad, part) in [
            (
                "logs.2024",
                "does not begin with a letter; write one such as logs-2024",
            ),
            ("lake-v1.1-eu", "such as lake-v1-1-eu"),
            ("10.0.0.1", "such as 10-0-0-1"),
            (
                "team_lake",
                "with \"_\" in its name; write one such as team-lake",
            ),
            ("-lake", "begins or ends with \"-\"; write one such as lake"),
            ("lake-", "begins or ends with \"-\""),
            (
                "lake-.eu",
                "begins or ends with \"-\"; write one such as lake-eu",
            ),
            ("lake.-eu", "begins or ends with \"-\""),
            ("lake..eu", "a dot must stand between"),
            (".lake", "a dot must stand between"),
            ("lake.", "a dot must stand between"),
            ("ab", "3 to 63"),
            ("a b c", "not a bucket's name"),
            ("", "such as spark-logs"),
            ("\u{e9}t\u{e9}s", "not a bucket's name"),
        ] {
            let why = check_bucket(bad).expect_err(bad);
            assert!(why.contains(part), "{bad}: {why}");
            let place = format!("s3a://{bad}/warehouse").parse::<Place>();
            assert_eq!(place, Err(why), "{bad}");
        }
        assert!(check_bucket(&"x".repeat(64)).is_err());
        // Hive's database lies in a bucket that no reader can read: it is not followed there.
        let found = locate("logs.2024", None, Some("s3a://logs.2024/w"));
        assert_eq!(found, Ok(Place::default_in("logs.2024")));
    }

    #[test]
    fn a_place_is_a_path_in_a_bucket_or_a_directory() {
        let bucket = |path: &str| Place::Bucket {
            bucket: "spark".to_owned(),
            path: path.to_owned(),
        };
        for (text, place, kept, uri) in [
            (
                "s3a://spark/warehouse",
                bucket("warehouse"),
                "s3a://spark/warehouse",
                "s3a://spark/warehouse",
            ),
            (
                "s3a://spark/a/b/",
                bucket("a/b"),
                "s3a://spark/a/b",
                "s3a://spark/a/b",
            ),
            ("s3a://spark/", bucket(""), "s3a://spark", "s3a://spark"),
            (
                "/data/",
                Place::Directory("/data".into()),
                "/data",
                "file:/data",
            ),
            ("/", Place::Directory("/".into()), "/", "file:/"),
            (
                "w/here",
                Place::Directory("w/here".into()),
                "w/here",
                "file:w/here",
            ),
            (
                "file:/w",
                Place::Directory("file:/w".into()),
                "file:/w",
                "file:/w",
            ),
        ] {
            assert_eq!(read(text), place, "{text}");
            assert_eq!(place.to_string(), kept, "{text}");
            assert_eq!(place.uri(), uri, "{text}");
            assert_eq!(read(kept), place, "{text}");
        }
        for bad in [
            "",
            "s3://bucket/w",
            "s3:bucket",
            "s3a://",
            "s3a:///w",
            "s3a://b b/w",
            "s3a://bucket/a//b",
            "s3a://bucket/../x",
            "hdfs://x/y",
            "file://host/x",
        ] {
            assert!(bad.parse::<Place>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_directory_is_found_with_and_without_its_scheme() {
        for text in ["/var/w", "file:/var/w"] {
            assert_eq!(read(text).directory(), Some(Path::new("/var/w")), "{text}");
        }
        let three = Place::Directory("file:///var/w".into());
        assert_eq!(three.directory(), Some(Path::new("/var/w")));
        assert_eq!(read("s3a://spark/w").directory(), None);
    }

    #[test]
    fn a_path_below_a_place_has_one_slash_between() {
        assert_eq!(read("s3a://spark").uri_of("a/b"), "s3a://spark/a/b");
        assert_eq!(read("/data").uri_of("a"), "file:/data/a");
        assert_eq!(read("/data").uri_of(""), "file:/data/");
        assert_eq!(read("/").uri_of("a"), "file:/a");
    }

    #[test]
    fn epoch_0_keeps_a_place_as_one_text() {
        for text in ["s3a://spark/warehouse", "s3a://spark", "/data", "data"] {
            let json = serde_json::to_string(&read(text)).unwrap();
            assert_eq!(json, format!("\"{text}\""));
            assert_eq!(serde_json::from_str::<Place>(&json).unwrap(), read(text));
        }
    }

    #[test]
    fn a_bucket_holds_a_new_table_where_hive_keeps_the_database() {
        for (database, expect) in [
            (None, "s3a://spark/warehouse"),
            (
                Some("s3a://spark/hive/default.db/"),
                "s3a://spark/hive/default.db",
            ),
            (Some("s3://spark/hive"), "s3a://spark/hive"),
            (Some("s3n://spark"), "s3a://spark"),
            (Some("s3a://spark2/hive"), "s3a://spark/warehouse"),
            (Some("file:/opt/spark/warehouse"), "s3a://spark/warehouse"),
            (Some("s3a://spark/a b"), "s3a://spark/warehouse"),
            (Some(""), "s3a://spark/warehouse"),
        ] {
            assert_eq!(
                locate("spark", None, database),
                Ok(read(expect)),
                "{database:?}"
            );
        }
    }

    #[test]
    fn a_table_that_exists_stays_where_it_is_and_in_its_bucket() {
        let of = |recorded, database| locate("spark", Some(recorded), database);
        let old = of("s3a://spark/old", Some("s3a://spark/new"));
        assert_eq!(old, Ok(read("s3a://spark/old")));
        assert_eq!(of("s3a://spark", None), Ok(read("s3a://spark")));
        for recorded in ["s3a://spark2/warehouse", "/data/warehouse"] {
            let error = of(recorded, Some("s3a://spark/new")).unwrap_err();
            let begin = format!("the table lies in {recorded} and not in bucket \"spark\"");
            assert!(error.starts_with(&begin), "{error}");
        }
    }

    #[test]
    fn names_hold_term_epoch_and_digest() {
        let names = Names::new("default", "newtable");
        let sha256 = "0f343b0931126a20f133d67c2b018a3b".repeat(2);
        assert_eq!(
            names.file("rows", 3, 12, &sha256),
            "_windrow/default.newtable/rows/3-0000000012-0f343b0931126a20f133d67c2b018a3b\
             /part.parquet"
        );
        let manifest = names.manifest(3, 12, &sha256);
        assert_eq!(
            manifest,
            "_windrow/default.newtable/manifests/3-0000000012-0f343b0931126a20f133d67c2b018a3b.json"
        );
        for (name, at) in [
            (manifest.clone(), Some((3, Some(12)))),
            (
                names.file("rows/2026-11-27", 3, 12, &"a".repeat(64)),
                Some((3, Some(12))),
            ),
            (
                names.object("checkpoints", 4, 0, &"a".repeat(64)),
                Some((4, Some(0))),
            ),
            (
                names.compacted("rows/2026-11-27", 3, "hour12", &"a".repeat(64), 1),
                Some((3, None)),
            ),
            (names.empty_file(&"a".repeat(64)), None),
            (names.empty_folder("t"), None),
            (format!("elsewhere/{manifest}"), None),
        ] {
            assert_eq!(names.term_and_epoch(&name), at, "{name}");
        }
        assert!(manifest.starts_with(&names.manifests()));
        assert_eq!(Names::epoch_of_manifest(&manifest), Some(12));
        assert_eq!(Names::epoch_of_manifest("manifests/notes.txt"), None);
        assert_eq!(
            names.empty_folder("rows"),
            "_windrow/default.newtable/tables/rows"
        );
        assert!(manifest.starts_with(names.prefix()));
    }
}
