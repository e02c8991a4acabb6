//! The directories of a Spark job, as they are read: what is in its table, how far it was, its
//! rows. Nothing is written to them, and what it means is decided in `windrow_core::adopt`.
#![expect(
    clippy::disallowed_methods,
    reason = "it notes when it looked, for the look after that"
)]

use crate::io::catalog::SparkEntry;
use crate::io::store::Store;
use crate::run::clients::{self, Clients};
use anyhow::{anyhow, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Instant;
use tokio::task::JoinSet;
use windrow_core::adopt::epoch::day_of;
use windrow_core::adopt::job::{JobFacts, read_batch, read_begin};
use windrow_core::adopt::sink_log;
use windrow_core::settings::config::{Config, Secrets};
use windrow_core::table::place::Place;
use windrow_core::table::spark_file::{SparkFile, read_spark_file};
use windrow_core::values::object::ListedObject;
use windrow_core::values::row::Row;

/// So many of the job's files are fetched at a time.
const FETCHED_AT_A_TIME: usize = 16;

/// The job's directories.
pub(super) struct Old {
    pub(super) directory: Place,
    /// The last part of its path.
    folder: String,
    table: Store,
    checkpoint: Store,
}

impl Old {
    pub(super) fn open(
        config: &Config,
        secrets: &Secrets,
        checkpoint: &str,
        table_directory: Option<&str>,
        entry: Option<&SparkEntry>,
    ) -> anyhow::Result<Self> {
        let location = entry.map(|entry| entry.location.clone());
        let directory = match (table_directory, location.as_deref()) {
            (Some(told), Some(found)) if place_of(told)? != place_of(found)? => {
                bail!("its files are in {found} by Hive, and not in {told}")
            }
            (Some(directory), _) | (None, Some(directory)) => place_of(directory)?,
            (None, None) => bail!(
                "the catalog has no entry that says where its files are; name their directory with \
                 --table-dir"
            ),
        };
        let checkpoint = place_of(checkpoint)?;
        let folder = directory.to_string();
        let folder = folder.rsplit('/').next().unwrap_or_default().to_owned();
        let s3 = clients::s3_config(config, secrets)?;
        Ok(Self {
            table: Store::open(&directory, &s3)?,
            checkpoint: Store::open(&checkpoint, &s3)?,
            directory,
            folder,
        })
    }

    /// What changes when the job does anything: the names below these three.
    async fn names(&self) -> Result<ObjectNames, String> {
        Ok(ObjectNames {
            log: list(&self.table, "_spark_metadata/").await?,
            offsets: list(&self.checkpoint, "offsets/").await?,
            commits: list(&self.checkpoint, "commits/").await?,
        })
    }
}

/// The older schemes `s3` and `s3n` are the same as `s3a`.
fn place_of(location: &str) -> anyhow::Result<Place> {
    let rest = ["s3://", "s3n://"]
        .iter()
        .find_map(|scheme| location.strip_prefix(scheme));
    let location = rest.map_or_else(|| location.to_owned(), |rest| format!("s3a://{rest}"));
    let place = location.parse::<Place>();
    place.map_err(|why| anyhow!("cannot use the directory \"{location}\": {why}"))
}

/// The names in the three directories that a job writes to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ObjectNames {
    log: Vec<String>,
    offsets: Vec<String>,
    commits: Vec<String>,
}

async fn list(store: &Store, folder: &str) -> Result<Vec<String>, String> {
    let mut names = Vec::new();
    let add = |object: &ListedObject| {
        names.extend(object.key.strip_prefix(folder).map(str::to_owned));
    };
    let listed = store.list_all(folder, add).await;
    listed.map_err(|error| error.to_string())?;
    Ok(names)
}

async fn get(store: &Store, key: &str) -> Result<Vec<u8>, String> {
    let bytes = store.get(key).await.map_err(|error| error.to_string())?;
    bytes.ok_or_else(|| format!("its object \"{key}\" is named, but it is not there"))
}

/// All that is known of the job.
pub(super) struct Job {
    pub(super) looked_at: Instant,
    names: ObjectNames,
    pub(super) facts: JobFacts,
    /// The names of the files that are in its table, and the days that each has rows of; `None`
    /// for a file without rows.
    pub(super) files: BTreeMap<String, Option<RangeInclusive<i64>>>,
    /// How many rows each day has.
    pub(super) rows: BTreeMap<i64, u64>,
    /// The sum of `count` over all rows.
    pub(super) row_count: u64,
}

impl Job {
    /// Looks how far the job was, and which files are in its table.
    pub(super) async fn look(old: &Old, parts: &Clients) -> Result<Self, String> {
        let looked_at = Instant::now();
        let names = old.names().await?;
        let needed = sink_log::needed(&names.log)
            .map_err(|why| format!("{why}; is {} the directory of its table?", old.directory))?;
        let mut logs = Vec::new();
        for name in &needed.names {
            logs.push((
                name,
                get(&old.table, &format!("_spark_metadata/{name}")).await?,
            ));
        }
        let files: BTreeSet<String> = sink_log::files(
            logs.iter()
                .map(|(name, bytes)| (name.as_str(), bytes.as_slice())),
            &old.folder,
        )?;
        let topic = &parts.settings.shape.topic;
        let mut batches = BTreeMap::new();
        for number in names
            .offsets
            .iter()
            .filter_map(|n| sink_log::batch_number(n))
        {
            let key = format!("offsets/{number}");
            let read = read_batch(&get(&old.checkpoint, &key).await?, topic);
            let batch = read.map_err(|why| format!("its checkpoint's \"{key}\": {why}"))?;
            batches.insert(number, batch);
        }
        let key = "sources/0/0";
        let begin = old.checkpoint.get(key).await.map_err(|e| e.to_string())?;
        let begin = begin.map(|bytes| read_begin(&bytes, topic)).transpose();
        let begin = begin.map_err(|why| format!("its checkpoint's \"{key}\": {why}"))?;
        Ok(Self {
            looked_at,
            facts: JobFacts {
                in_table: needed.last_batch,
                batches,
                committed: names
                    .commits
                    .iter()
                    .filter_map(|n| sink_log::batch_number(n))
                    .max(),
                begin,
                delay_ms: 0,
                logs: BTreeMap::new(),
            },
            names,
            files: files.into_iter().map(|file| (file, None)).collect(),
            rows: BTreeMap::new(),
            row_count: 0,
        })
    }

    /// Reads every file once: which days it has rows of, and by which delay it was written. Where
    /// no file says the delay, it is that of the settings.
    pub(super) async fn survey(&mut self, old: &Old, parts: &Clients) -> Result<(), String> {
        let names: Vec<String> = self.files.keys().cloned().collect();
        let mut delay_ms = None;
        for names in names.chunks(FETCHED_AT_A_TIME) {
            for (name, file) in fetch_all(old, parts, names).await? {
                delay_ms = delay_ms.max(file.delay_ms);
                let days = file.rows.iter().map(|row| day_of(row.start));
                let days = days.clone().min().zip(days.max());
                self.files
                    .insert(name, days.map(|(first, last)| first..=last));
                for row in &file.rows {
                    *self.rows.entry(day_of(row.start)).or_default() += 1;
                    self.row_count += row.count;
                }
            }
        }
        self.facts.delay_ms = delay_ms.unwrap_or(parts.settings.delay_ms);
        Ok(())
    }

    /// The rows of some days.
    pub(super) async fn rows_of(
        &self,
        days: &RangeInclusive<i64>,
        old: &Old,
        parts: &Clients,
    ) -> Result<Vec<Row>, String> {
        let overlaps =
            |has: &RangeInclusive<i64>| has.start() <= days.end() && days.start() <= has.end();
        let files = self.files.iter();
        let files = files.filter(|(_, has)| has.as_ref().is_some_and(overlaps));
        let names: Vec<String> = files.map(|(name, _)| name.clone()).collect();
        let mut rows = Vec::new();
        for names in names.chunks(FETCHED_AT_A_TIME) {
            for (_, file) in fetch_all(old, parts, names).await? {
                let of_days = file.rows.into_iter();
                rows.extend(of_days.filter(|row| days.contains(&day_of(row.start))));
            }
        }
        Ok(rows)
    }

    /// The job has written nothing since the first look. A job that waits for records writes
    /// nothing either; what it does when it wakes up is not read by anybody.
    pub(super) async fn check_stopped(&self, old: &Old) -> Result<(), String> {
        if old.names().await? == self.names {
            return Ok(());
        }
        Err(
            "the Spark job is still running: it has written to its checkpoint or its table in the \
             last seconds; stop it, and run windrow adopt again"
                .to_owned(),
        )
    }
}

/// Fetches files side by side.
async fn fetch_all(
    old: &Old,
    parts: &Clients,
    names: &[String],
) -> Result<Vec<(String, SparkFile)>, String> {
    let mut fetches = JoinSet::new();
    for name in names {
        let (store, name) = (old.table.clone(), name.clone());
        fetches.spawn(async move {
            let bytes = get(&store, &name).await;
            (name, bytes)
        });
    }
    let mut files = Vec::new();
    while let Some(fetched) = fetches.join_next().await {
        let (name, bytes) = fetched.map_err(|error| error.to_string())?;
        let file = read_spark_file(bytes?, &parts.settings.shape)
            .map_err(|error| format!("cannot read its file \"{name}\": {error}"))?;
        files.push((name, file));
    }
    Ok(files)
}
