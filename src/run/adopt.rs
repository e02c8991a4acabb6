//! `windrow adopt`: takes over the table of a Spark Structured Streaming job. What of the job
//! counts and what epoch 0 says is decided in `windrow_core::adopt`; here its directories are read,
//! its rows are written anew, and epoch 0 is committed. The job's own directories are only read.
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

mod job;

use super::clients::{self, Clients};
use super::clock::wall_now;
use super::perform::ask_brokers;
use crate::io::catalog::Catalog;
use crate::io::kafka;
use crate::io::store::Store;
use anyhow::{Context, anyhow, bail};
use job::{Job, Old};
use serde::Serialize;
use std::time::{Duration, Instant};
use windrow_core::adopt::epoch::{Files, epoch_0, pieces};
use windrow_core::adopt::job::{JobFacts, Plan, plan};
use windrow_core::engine::{BrokersAnswer, BrokersRequest, TopicFacts};
use windrow_core::settings::config::{Config, Secrets};
use windrow_core::table::commit::{
    Acquired, AdoptedTable, CatalogError, ClockBound, Commit, Genesis, NewFile, Outcome, Owner,
};
use windrow_core::table::file::write_rows;
use windrow_core::table::hive::{TableKind, TableName};
use windrow_core::table::place::{Names, Place};
use windrow_core::table::spark_file::check_shape;
use windrow_core::values::cause::Trouble;
use windrow_core::values::digest::sha256_hex;
use windrow_core::values::time::DbTime;

/// Between the first look at the job and the second, if nothing else is wished. A job that has
/// records to read writes something every few seconds.
pub const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(10);
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
    /// Between the first look at the job and the second: [`LOOK_AGAIN_AFTER`].
    pub look_again_after: Duration,
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
    /// What a person should know besides, as whole sentences.
    pub notes: Vec<String>,
}

impl Adoption {
    /// The same for people, as lines.
    #[must_use]
    pub fn text(&self) -> String {
        let Self { table, adopted, .. } = self;
        let mut lines = vec![
            format!(
                "the job's table: {} rows, sum of counts {}, files: {}",
                adopted.rows, adopted.row_count, self.spark_files
            ),
            format!(
                "the job has closed all windows through {}, with its batch {}",
                adopted.through, adopted.batch
            ),
            format!(
                "for the windows that were open, {} records are read again",
                self.offsets_again
            ),
        ];
        lines.extend(self.notes.iter().cloned());
        let renamed = adopted.renamed_to.as_deref();
        if self.dry_run {
            if let Some(renamed) = renamed {
                lines.push(format!("the job's table would be \"{renamed}\" in Hive"));
            }
            lines.push("nothing was changed".to_owned());
        } else {
            lines.push(format!(
                "table {table}: {} rows, sum of counts {}, files: {}",
                self.rows_after, self.row_count_after, self.files
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
    let (checkpoint, directory) = (&wish.checkpoint, wish.table_directory.as_deref());
    let old = Old::open(config, secrets, checkpoint, directory, entry.as_ref());
    let old = old.map_err(|error| cannot(error.to_string()))?;
    let (place, database) = (&parts.settings.place, &parts.settings.database);
    let place = clients::place_of_new_table(&mut parts.look, place, database).await?;
    let store = Store::open(&place, &clients::s3_config(config, secrets)?)?;
    let mut job = Job::look(&old, &parts).await.map_err(cannot)?;
    job.survey(&old, &parts).await.map_err(cannot)?;
    let topic = ask_topic(&parts)?;
    job.facts.logs.clone_from(&topic.partitions);
    let plan =
        plan(&job.facts, &parts.settings.shape).map_err(|why| cannot(format!("the job {why}")))?;
    check_watermark(&plan, parts.settings.max_future_ms).map_err(cannot)?;
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
        notes: notes(&job.facts, parts.settings.delay_ms),
    };
    let waited = job.looked_at.elapsed();
    tokio::time::sleep(wish.look_again_after.saturating_sub(waited)).await;
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
    let taken = taking.take(&mut parts, &mut adoption).await;
    taken.map_err(|error| match error.downcast::<Trouble>() {
        Ok(trouble) => trouble.into(),
        Err(error) => cannot(format!("{error:#}")),
    })?;
    Ok(adoption)
}

/// A single record from the far future moves Spark's watermark there, and the job counts nothing
/// any more. Neither would windrow.
fn check_watermark(plan: &Plan, max_future_ms: i64) -> Result<(), String> {
    if plan.through.0 <= wall_now().0.saturating_add(max_future_ms) {
        return Ok(());
    }
    Err(format!(
        "the job's watermark is {}, which is in the future, so all records would be late; set \
         table.name to another name",
        plan.through
    ))
}

/// What may surprise whoever adopts the table.
fn notes(facts: &JobFacts, delay_ms: i64) -> Vec<String> {
    let differs = facts.delay_ms != delay_ms;
    let note = differs.then(|| {
        format!(
            "note: the job's watermark delay was {} ms, and watermark-delay is {delay_ms} ms, \
             which holds from here on",
            facts.delay_ms
        )
    });
    note.into_iter().collect()
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
        let inline_max_bytes = parts.settings.limits.checkpoint_inline_bytes;
        let commit = epoch_0(
            &held.owner,
            genesis,
            self.plan,
            delay_ms,
            files,
            &names,
            inline_max_bytes,
        );
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
