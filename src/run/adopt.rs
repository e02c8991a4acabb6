//! `windrow adopt`: takes over the table of a Spark Structured Streaming job. What of the job counts
//! and what epoch 0 says is decided in `windrow_core::adopt`; here its directories are read, its
//! rows are written anew, and epoch 0 is committed. The job's own directories are only read.
//!
//! ```text
//! look at _spark_metadata, offsets, commits      which files, and how far the job was
//! read every file                                which days it has rows of, and how many
//! look again after ten seconds                   the job must not be running
//! read the files of some days, sort, store       once for each piece of days
//! look once more, and commit epoch 0             with Hive's rows, where there is Hive
//! ```
#![expect(
    clippy::disallowed_methods,
    reason = "the verb that waits between two looks, and reckons how long it had the table"
)]

use super::clients::{self, Clients};
use super::perform::ask_brokers;
use crate::io::catalog::{Catalog, SparkEntry};
use crate::io::kafka;
use crate::io::store::Store;
use anyhow::{Context, anyhow, bail};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use windrow_core::adopt::epoch::{Files, day_of, epoch_0, pieces};
use windrow_core::adopt::job::{JobFacts, Plan, plan, read_batch, read_begin};
use windrow_core::adopt::sink_log;
use windrow_core::engine::{BrokersAnswer, BrokersRequest, TopicFacts};
use windrow_core::settings::config::{Config, Secrets};
use windrow_core::table::commit::{
    Acquired, AdoptedTable, CatalogError, ClockBound, Commit, Genesis, NewFile, Outcome, Owner,
};
use windrow_core::table::file::write_rows;
use windrow_core::table::hive::{TableKind, TableName};
use windrow_core::table::place::{Names, Place, TablePlace, locate};
use windrow_core::table::spark_file::{SparkFile, check_shape, read_spark_file};
use windrow_core::values::cause::Trouble;
use windrow_core::values::digest::sha256_hex;
use windrow_core::values::row::Row;
use windrow_core::values::time::DbTime;

/// Between the first look at the job and the second. A job that has records to read writes
/// something every few seconds.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(10);
/// So many of the job's files are fetched at a time.
const FETCHED_AT_A_TIME: usize = 16;
/// Days are sorted together up to so many rows; a single day may have more. All of them are in
/// memory, at some 200 bytes each with short keys.
const ROWS_AT_A_TIME: u64 = 1_000_000;
/// How often a question to the brokers is asked.
const ASKED_MAX: usize = 4;

/// What a person asks for.
#[derive(Clone, Debug)]
pub struct Wish {
    /// The directory of the job's checkpoint, as the job was told it.
    pub checkpoint: String,
    /// The directory of the job's table; `None` where Hive knows it.
    pub table_directory: Option<String>,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// What was adopted, or would be.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Adoption {
    /// The table's name.
    pub table: String,
    /// Whether it was only asked what would be done.
    pub dry_run: bool,
    /// What the job was.
    #[serde(flatten)]
    pub adopted: AdoptedTable,
    /// How many files the job's table has.
    pub spark_files: usize,
    /// How many files have its rows now; 0 in a dry run.
    pub files: usize,
    /// How many rows the table has now, as the catalog says; 0 in a dry run.
    pub rows_after: u64,
    /// The sum of `count` over the rows that were written; 0 in a dry run.
    pub row_count_after: u64,
    /// How many offsets are read again, for the windows that were open.
    pub offsets_again: i64,
}

impl Adoption {
    /// The same for people, as lines.
    #[must_use]
    pub fn text(&self) -> String {
        let Self { table, adopted, .. } = self;
        let mut lines = vec![
            format!(
                "the job had written {} rows in {} files, with a count of {} in sum: all windows \
                 through {}",
                adopted.rows, self.spark_files, adopted.row_count, adopted.through
            ),
            format!(
                "counting goes on where the job was after its batch {}; {} records are read again \
                 for the windows that were open",
                adopted.batch, self.offsets_again
            ),
        ];
        let renamed = adopted.renamed_to.as_deref();
        if self.dry_run {
            if let Some(renamed) = renamed {
                lines.push(format!("the job's table would be \"{renamed}\" in Hive"));
            }
            lines.push("nothing was changed".to_owned());
        } else {
            lines.push(format!(
                "table {table} has {} rows in {} files, with a count of {} in sum: the same",
                self.rows_after, self.files, self.row_count_after
            ));
            if let Some(renamed) = renamed {
                lines.push(format!("the job's table is \"{renamed}\" in Hive now"));
            }
            lines.push("start windrow now: windrow run".to_owned());
        }
        lines.join("\n") + "\n"
    }
}

/// Takes the table over, or says what would be done.
///
/// # Errors
/// Why it cannot be taken over, as a sentence. Then the table is as it was.
pub async fn adopt(config: &Config, secrets: &Secrets, wish: &Wish) -> anyhow::Result<Adoption> {
    let mut parts = clients::open(config, secrets)?;
    let name = TableName::new(&parts.settings.database, &parts.settings.table)
        .map_err(|why| anyhow!(why))?;
    let cannot = |why: String| anyhow!("cannot adopt table \"{name}\": {why}");
    check_shape(&parts.settings.shape).map_err(cannot)?;
    let has_epochs = parts.look.head().await.map_err(Trouble::from)?.is_some();
    if has_epochs {
        return Err(cannot(
            "windrow has counted it already; start it with windrow run".to_owned(),
        ));
    }
    let entry = parts.catalog.spark_entry().await.map_err(Trouble::from)?;
    let old =
        Old::open(config, secrets, wish, entry.as_ref()).map_err(|e| cannot(e.to_string()))?;
    let place = find_place(&mut parts, config).await?;
    let store = Store::open(&place, &clients::s3_config(config, secrets)?)?;
    let mut job = Job::look(&old, &parts).await.map_err(cannot)?;
    job.survey(&old, &parts).await.map_err(cannot)?;
    let topic = ask_topic(&parts)?;
    job.facts.logs.clone_from(&topic.partitions);
    let plan =
        plan(&job.facts, &parts.settings.shape).map_err(|why| cannot(format!("the job {why}")))?;
    let mut adoption = Adoption {
        table: name.to_string(),
        dry_run: wish.dry_run,
        adopted: AdoptedTable {
            directory: old.directory.to_string(),
            checkpoint: wish.checkpoint.clone(),
            batch: plan.batch,
            through: plan.through,
            next_offsets: plan.next_offsets.clone(),
            rows: job.rows.values().sum(),
            row_count: job.row_count,
            renamed_to: entry.map(|entry| entry.renamed_to),
        },
        spark_files: job.files.len(),
        files: 0,
        rows_after: 0,
        row_count_after: 0,
        offsets_again: plan.offsets_again(),
    };
    tokio::time::sleep(LOOK_AGAIN_AFTER.saturating_sub(job.looked_at.elapsed())).await;
    job.check_stopped(&old).await.map_err(cannot)?;
    if wish.dry_run {
        return Ok(adoption);
    }
    let taking = Taking {
        old: &old,
        job: &job,
        plan: &plan,
        topic,
        place,
        store,
    };
    taking
        .take(&mut parts, &mut adoption)
        .await
        .map_err(|error| {
            let trouble = error.downcast::<Trouble>();
            trouble.map_or_else(|error| cannot(format!("{error:#}")), anyhow::Error::from)
        })?;
    Ok(adoption)
}

/// Where the adopted table's files will lie.
async fn find_place(parts: &mut Clients, config: &Config) -> anyhow::Result<Place> {
    match &parts.settings.place {
        TablePlace::At(place) => Ok(place.clone()),
        TablePlace::InBucket(bucket) => {
            let database = config.table.as_ref().map(|table| table.database.clone());
            let database = database.unwrap_or_default();
            let location = parts.look.warehouse(&database).await;
            let location = location.map_err(Trouble::from)?;
            locate(bucket, None, location.as_deref()).map_err(|why| anyhow!(why))
        }
    }
}

fn ask_topic(parts: &Clients) -> anyhow::Result<TopicFacts> {
    let (brokers, _reader) = kafka::open(&parts.kafka)?;
    let mut asked = 0;
    loop {
        asked += 1;
        let BrokersAnswer::Topic(answer) =
            tokio::task::block_in_place(|| ask_brokers(&brokers, BrokersRequest::Topic))
        else {
            unreachable!("it is the answer to that question");
        };
        match answer {
            Ok(topic) => match topic.unknown.iter().next() {
                None => return Ok(topic),
                Some((partition, why)) if asked == ASKED_MAX => bail!(
                    "cannot adopt the table: topic partition {partition} does not say where its \
                     log begins and ends: {why}"
                ),
                Some(_) => {}
            },
            Err(trouble) if asked == ASKED_MAX => return Err(trouble.into()),
            Err(_) => {}
        }
    }
}

/// The job's directories.
struct Old {
    directory: Place,
    /// The last part of its path.
    folder: String,
    table: Store,
    checkpoint: Store,
}

impl Old {
    fn open(
        config: &Config,
        secrets: &Secrets,
        wish: &Wish,
        entry: Option<&SparkEntry>,
    ) -> anyhow::Result<Self> {
        let location = entry.map(|entry| entry.location.clone());
        let directory = match (wish.table_directory.as_deref(), location.as_deref()) {
            (Some(told), Some(found)) if place_of(told)? != place_of(found)? => {
                bail!("its files are in {found} by Hive, and not in {told}")
            }
            (Some(directory), _) | (None, Some(directory)) => place_of(directory)?,
            (None, None) => bail!(
                "the catalog has no entry that says where its files are; name their directory with \
                 --table-dir"
            ),
        };
        let checkpoint = place_of(&wish.checkpoint)?;
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
    async fn names(&self) -> Result<Names3, String> {
        Ok(Names3 {
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
struct Names3 {
    log: Vec<String>,
    offsets: Vec<String>,
    commits: Vec<String>,
}

async fn list(store: &Store, folder: &str) -> Result<Vec<String>, String> {
    let (mut names, mut after) = (Vec::new(), None);
    loop {
        let page = store.list_page(folder, after.as_deref()).await;
        let page = page.map_err(|error| error.to_string())?;
        let keys = page.objects.iter();
        names.extend(keys.filter_map(|o| o.key.strip_prefix(folder).map(str::to_owned)));
        if page.next.is_none() || !page.moves_on(after.as_deref()) {
            return Ok(names);
        }
        after = page.next;
    }
}

async fn get(store: &Store, key: &str) -> Result<Vec<u8>, String> {
    let bytes = store.get(key).await.map_err(|error| error.to_string())?;
    bytes.ok_or_else(|| format!("its object \"{key}\" is named, but it is not there"))
}

/// All that is known of the job.
struct Job {
    looked_at: Instant,
    names: Names3,
    facts: JobFacts,
    /// The names of the files that are in its table, and the days that each has rows of; `None`
    /// for a file without rows.
    files: BTreeMap<String, Option<RangeInclusive<i64>>>,
    /// How many rows each day has.
    rows: BTreeMap<i64, u64>,
    /// The sum of `count` over all rows.
    row_count: u64,
}

impl Job {
    /// Looks how far the job was, and which files are in its table.
    async fn look(old: &Old, parts: &Clients) -> Result<Self, String> {
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
        for number in names.offsets.iter().filter_map(|name| name.parse().ok()) {
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
                committed: names.commits.iter().filter_map(|n| n.parse().ok()).max(),
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
    async fn survey(&mut self, old: &Old, parts: &Clients) -> Result<(), String> {
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
    async fn rows_of(
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
    async fn check_stopped(&self, old: &Old) -> Result<(), String> {
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

/// All that is needed to take a table over.
struct Taking<'a> {
    old: &'a Old,
    job: &'a Job,
    plan: &'a Plan,
    topic: TopicFacts,
    place: Place,
    store: Store,
}

/// The table, as long as it is ours.
struct Held {
    owner: Owner,
    lease_ms: u64,
    /// The catalog's clock, and when it was heard.
    now: (DbTime, Instant),
}

impl Taking<'_> {
    async fn take(&self, parts: &mut Clients, adoption: &mut Adoption) -> anyhow::Result<()> {
        let owner_id = clients::random_owner_id()?;
        let lease_ms = parts.settings.lease_ms;
        let acquired = parts.catalog.acquire(&parts.who, &owner_id, lease_ms).await;
        let mut held = match acquired.map_err(Trouble::from)? {
            Acquired::Held { by, left_ms, .. } => {
                bail!("\"{by}\" owns it, for at most {left_ms} ms more; stop that windrow first")
            }
            Acquired::Ours { head: Some(_), .. } => bail!("windrow has counted it already"),
            Acquired::Ours { owner, now, .. } => Held {
                owner,
                lease_ms,
                now: (now, Instant::now()),
            },
        };
        let taken = self.write_and_commit(parts, &mut held, adoption).await;
        // If this fails, the lease ends by itself.
        let _ = parts.catalog.release(&held.owner).await;
        taken?;
        let after = parts.look.files(TableKind::Chunks, 0).await;
        adoption.rows_after = after.map_err(Trouble::from)?.totals.rows;
        if adoption.rows_after == adoption.adopted.rows {
            return Ok(());
        }
        bail!(
            "it is adopted, but has {} rows, and the job's table had {}; this is a mistake in \
             windrow",
            adoption.rows_after,
            adoption.adopted.rows
        )
    }

    async fn write_and_commit(
        &self,
        parts: &mut Clients,
        held: &mut Held,
        adoption: &mut Adoption,
    ) -> anyhow::Result<()> {
        let names = Names::new(&parts.settings.database, &parts.settings.table);
        let files = self.write_files(parts, held, &names, adoption).await?;
        adoption.files = files.len();
        let (shape, timestamps) = (&parts.settings.shape, parts.settings.timestamps);
        let empty = write_rows(shape, timestamps, &[], &[]);
        let genesis = Genesis {
            shape: shape.clone(),
            warehouse: self.place.clone(),
            cluster_id: self.topic.cluster_id.clone(),
            topic_id: self.topic.topic_id.clone(),
            start_offsets: self.plan.start_offsets.clone(),
            empty_file: names.empty_file(&sha256_hex(&empty)),
            adopted: Some(adoption.adopted.clone()),
        };
        self.store.put(&genesis.empty_file, empty).await?;
        let delay_ms = parts.settings.delay_ms;
        let commit = epoch_0(&held.owner, genesis, self.plan, delay_ms, files, &names);
        let manifest = serde_json::to_vec(&commit).context("cannot write the manifest")?;
        self.store.put(&commit.manifest, manifest).await?;
        let stopped = self.job.check_stopped(self.old).await;
        stopped.map_err(|why| anyhow!(why))?;
        held.commit(&mut parts.catalog, &commit, parts.settings.max_future_ms)
            .await
    }

    /// Writes the job's rows in files of windrow's, some days after the others.
    async fn write_files(
        &self,
        parts: &mut Clients,
        held: &mut Held,
        names: &Names,
        adoption: &mut Adoption,
    ) -> anyhow::Result<Vec<NewFile>> {
        let (mut all, mut rows_written) = (Vec::new(), 0);
        for days in pieces(&self.job.rows, ROWS_AT_A_TIME) {
            held.renew_when_due(&mut parts.catalog).await?;
            let rows = self.job.rows_of(&days, self.old, parts).await;
            let rows = rows.map_err(|why| anyhow!(why))?;
            adoption.row_count_after += rows.iter().map(|row| row.count).sum::<u64>();
            let files = Files {
                shape: &parts.settings.shape,
                timestamps: parts.settings.timestamps,
                file_rows: parts.settings.limits.file_rows,
                names,
                term: held.owner.term,
                through: self.plan.through,
            };
            for (file, bytes) in files.write(rows).map_err(|why| anyhow!(why))? {
                held.renew_when_due(&mut parts.catalog).await?;
                self.store.put(&file.key, bytes).await?;
                rows_written += file.rows;
                all.push(file);
            }
        }
        let (before, after) = (&adoption.adopted, (rows_written, adoption.row_count_after));
        if (before.rows, before.row_count) != after {
            bail!(
                "its files had {} rows with a count of {} in sum, and then {} with {}: somebody \
                 changed them meanwhile; run windrow adopt again",
                before.rows,
                before.row_count,
                after.0,
                after.1
            );
        }
        Ok(all)
    }
}

impl Held {
    async fn renew_when_due(&mut self, catalog: &mut Catalog) -> anyhow::Result<()> {
        if self.now.1.elapsed() < Duration::from_millis(self.lease_ms / 3) {
            return Ok(());
        }
        let renewed = catalog.renew(&self.owner, self.lease_ms).await;
        self.now = (renewed.map_err(Trouble::from)?.now, Instant::now());
        Ok(())
    }

    /// Commits the epoch. When the answer is lost, it is asked for until it is known.
    async fn commit(
        &mut self,
        catalog: &mut Catalog,
        commit: &Commit,
        max_future_ms: i64,
    ) -> anyhow::Result<()> {
        loop {
            let renewed = catalog.renew(&self.owner, self.lease_ms).await;
            let clock = ClockBound {
                expected: renewed.map_err(Trouble::from)?.now,
                off_max_ms: max_future_ms.unsigned_abs().max(60_000),
            };
            let lost = match catalog.commit_by(commit, &clock).await {
                Ok(_) => return Ok(()),
                Err(CatalogError::Unknown(why)) => why,
                Err(error) => return Err(Trouble::from(error).into()),
            };
            match catalog.outcome(commit.epoch).await {
                Ok(Outcome::Committed { digest, .. }) if digest == commit.digest => return Ok(()),
                Ok(Outcome::Committed { .. }) => bail!("another process has begun the table"),
                Ok(Outcome::Absent) => {}
                Err(error) => {
                    let error = Trouble::from(error);
                    bail!(
                        "{lost}; whether it was adopted is not known: {error}; ask: windrow status"
                    );
                }
            }
        }
    }
}
