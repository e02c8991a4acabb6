//! Verifies a table: reads its journal, its files and its topic, and hands all of it to the
//! machines of `windrow_core::verify`, which compare. Nothing is written, no lock is taken, and no
//! offset is committed to a group, so a windrow that runs is not disturbed.
//!
//! One request to the store is on its way at a time, and what is read keeps to a bandwidth.
#![expect(
    clippy::disallowed_methods,
    reason = "it notes when it begins, from where its bandwidth is reckoned"
)]

mod feeds;
mod from_store;
mod progress;

pub use progress::ProgressLine;

use crate::io::catalog::Catalog;
use crate::io::kafka::{KafkaConfig, Reader};
use crate::io::store::Store;
use crate::run::clients::Clients;
use crate::run::pace::Pace;
use anyhow::{Context, bail};
use feeds::{Feeds, Topic};
use from_store::FromStore;
use std::collections::BTreeSet;
use std::time::Instant;
use windrow_core::shown::snapshot::MovedBytes;
use windrow_core::table::commit::{CatalogError, Head, LiveFile};
use windrow_core::table::history::{DayManifest, History};
use windrow_core::table::hive::TableKind;
use windrow_core::table::reread::{Depth, Reread, RereadStep};
use windrow_core::values::cause::Trouble;
use windrow_core::values::shape::Shape;
use windrow_core::values::time::EventTime;
use windrow_core::verify::audit::{Audit, JournalEntry};
use windrow_core::verify::compare::{CompareStep, Comparison, Scope, check_file, damaged, missing};
use windrow_core::verify::recount::Recount;
use windrow_core::verify::report::{Finding, Kind, Recounted, Report, Stage};
use windrow_core::verify::starting::{Chooser, Start};

/// Without `--deep`, so many epochs are compared with their manifests: the newest ones that the
/// journal alone does not prove. Each is a request to the store.
const MANIFESTS_MAX: usize = 500;

/// What is verified, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Only windows that start here or later are compared with the log.
    pub from: Option<EventTime>,
    /// Only windows that start before this are compared with the log.
    pub to: Option<EventTime>,
    /// Every byte of every file is read, and every manifest.
    pub deep: bool,
    /// How many bytes a second may be read; `None` is as many as there are.
    pub bytes_per_second: Option<u64>,
    /// How many bytes the counts may take in memory.
    pub memory_max: usize,
}

/// What a verification reads from. The catalog and the store are those of the table.
pub struct Sources {
    /// The table: `default.newtable`.
    pub table: String,
    /// How to reach the topic.
    pub kafka: KafkaConfig,
    /// The store of the table's files.
    pub store: Store,
    /// The catalog.
    pub catalog: Catalog,
}

impl From<Clients> for Sources {
    fn from(clients: Clients) -> Self {
        let Clients {
            settings,
            kafka,
            store,
            look,
            ..
        } = clients;
        Self {
            table: format!("{}.{}", settings.database, settings.table),
            kafka,
            store,
            catalog: look,
        }
    }
}

/// Verifies the table. `show` is told how far it is, many times a second.
///
/// # Errors
/// It could not be done: the catalog, the store or a broker does not answer, or there is no such
/// table. What differs is no error; the report says it.
pub async fn verify(
    sources: Sources,
    options: Options,
    show: &mut (dyn FnMut(&Report) + Send),
) -> anyhow::Result<Report> {
    let report = Report {
        table: sources.table.clone(),
        ..Report::default()
    };
    let mut verifying = Verifying {
        from_store: FromStore {
            store: sources.store,
            pace: options.bytes_per_second.map(Pace::new),
            begun: Instant::now(),
            moved: MovedBytes::default(),
        },
        options,
        report,
        show,
    };
    verifying.run(sources.kafka, sources.catalog).await?;
    let mut report = verifying.report;
    (report.stage, report.percent) = (Stage::Done, 100);
    report.doing.clear();
    report.checked.bytes = verifying.from_store.moved.read;
    Ok(report)
}

struct Verifying<'a> {
    options: Options,
    report: Report,
    from_store: FromStore,
    show: &'a mut (dyn FnMut(&Report) + Send),
}

/// What the journal says, as far as the rest needs it.
struct Journal {
    head: Box<Head>,
    audit: Audit,
    chooser: Option<Chooser>,
    /// Rows of history with the keys of their day manifests.
    histories: Vec<(Box<History>, String)>,
}

impl Verifying<'_> {
    fn show(&mut self, doing: &str, percent: u64) {
        doing.clone_into(&mut self.report.doing);
        self.report.percent = u8::try_from(percent.min(99)).unwrap_or(99);
        self.report.checked.bytes = self.from_store.moved.read;
        (self.show)(&self.report);
    }

    async fn run(&mut self, kafka: KafkaConfig, catalog: Catalog) -> anyhow::Result<()> {
        self.show("asking the brokers", 0);
        let topic = Topic::ask(kafka)?;
        self.show("reading the journal", 1);
        let Some(mut journal) = self.read_journal(&topic, catalog).await? else {
            return Ok(());
        };
        self.report.epoch = Some(journal.head.last.epoch);
        self.check_journal(&mut journal).await?;
        let start = self.choose_start(&mut journal, &topic).await?;
        let files = journal.audit.live();
        self.report.checked.files = files.len() as u64;
        let mut reread = BTreeSet::new();
        if let Some((start, reader)) = start.zip(topic.reader) {
            reread = self.recount(&journal, &files, &start, reader).await?;
        }
        self.check_files(&journal.head, &files, &reread).await
    }

    /// Reads the journal. `None` when it cannot be understood; the report says so.
    async fn read_journal(
        &mut self,
        topic: &Topic,
        mut catalog: Catalog,
    ) -> anyhow::Result<Option<Journal>> {
        let (mut journal, mut audit) = (None::<Journal>, Some(Audit::default()));
        let (from, mut log_start) = (self.options.from, topic.log_start.clone());
        let mut take = |entry: JournalEntry| {
            if let JournalEntry::Head(head) = entry {
                let mut audit = audit.take().unwrap_or_default();
                audit.take_head(&head);
                let chooser = log_start
                    .take()
                    .map(|log_start| Chooser::new(log_start, &head.last, from))
                    .map(|chooser| chooser.beside_adopted(&head.genesis));
                journal = Some(Journal {
                    head,
                    audit,
                    chooser,
                    histories: Vec::new(),
                });
            } else if let Some(journal) = &mut journal {
                journal.take(entry);
            }
        };
        match catalog.journal(&mut take).await {
            Ok(true) => {}
            Ok(false) => bail!(
                "cannot verify table \"{}\": there is no such table yet",
                self.report.table
            ),
            Err(CatalogError::Stop(why)) => {
                let finding = Finding::new(Kind::Journal, why.text);
                self.report.found.add(finding);
                return Ok(None);
            }
            Err(error) => return Err(Trouble::from(error).into()),
        }
        journal.map(Some).context("the catalog gave no head")
    }

    /// Compares the journal with its manifests and with itself.
    async fn check_journal(&mut self, journal: &mut Journal) -> anyhow::Result<()> {
        self.show("checking the journal", 5);
        let base = journal.audit.base().map(str::to_owned);
        let histories = std::mem::take(&mut journal.histories);
        let mut base_manifest = None;
        for (history, key) in &histories {
            let is_base = base.as_ref() == Some(key);
            if is_base || self.options.deep {
                let manifest = self.day_manifest(key).await?;
                let audit = &mut journal.audit;
                audit.check_day_manifest(history, key, manifest.as_ref());
                base_manifest = manifest.filter(|_| is_base).and_then(Result::ok);
            }
        }
        journal.audit.check_files(base_manifest.as_ref());
        let unproven = journal.audit.unproven().to_vec();
        let most = if self.options.deep {
            unproven.len()
        } else {
            MANIFESTS_MAX
        };
        let left_out = unproven.len().saturating_sub(most);
        if left_out > 0 {
            self.report.notes.push(format!(
                "{left_out} epochs were not compared with their manifests; --deep compares all"
            ));
        }
        let checked = unproven.len() - left_out;
        for (i, unproven) in unproven.iter().skip(left_out).enumerate() {
            let manifest = self.from_store.get(&unproven.manifest).await?;
            let audit = &mut journal.audit;
            audit.check_manifest(unproven, manifest.as_deref());
            self.show("checking the journal", 5 + 15 * i as u64 / checked as u64);
        }
        let counts = journal.audit.counts();
        let checked = &mut self.report.checked;
        (checked.epochs, checked.proven_epochs, checked.folded_days) = counts;
        self.report.found.append(journal.audit.take_findings());
        Ok(())
    }

    async fn day_manifest(
        &mut self,
        key: &str,
    ) -> anyhow::Result<Option<Result<DayManifest, String>>> {
        let bytes = self.from_store.get(key).await?;
        Ok(bytes.map(|bytes| DayManifest::read(&bytes)))
    }

    /// From where on the log is counted again; `None` where it is not. The notes say why.
    async fn choose_start(
        &mut self,
        journal: &mut Journal,
        topic: &Topic,
    ) -> anyhow::Result<Option<Start>> {
        self.report.notes.extend(topic.note.clone());
        let Some(mut chooser) = journal.chooser.take() else {
            return Ok(None);
        };
        if topic.id != journal.head.last.topic_id {
            self.report.notes.push(format!(
                "nothing was compared with the log, because the topic is another one: its id is \
                 \"{}\", and the table was counted from \"{}\"",
                topic.id, journal.head.last.topic_id
            ));
            return Ok(None);
        }
        while let Some(key) = chooser.wanted().map(str::to_owned) {
            let manifest = self.day_manifest(&key).await?;
            if manifest.is_none() {
                let text = format!("day manifest \"{key}\" is not in the store");
                self.report.found.add(Finding::new(Kind::Manifest, text));
            }
            let manifest = manifest.and_then(Result::ok);
            chooser.give(manifest.as_ref().map(|manifest| &manifest.last));
        }
        self.report.notes.extend(chooser.notes());
        let start = chooser.choose();
        if start.is_none() {
            self.report.notes.push(
                "nothing was compared with the log, because it no longer has the records after any \
                 commit that is known"
                    .to_owned(),
            );
        }
        Ok(start)
    }

    /// Counts the log again and compares the rows. Returns the keys of the files that were read.
    async fn recount(
        &mut self,
        journal: &Journal,
        files: &[LiveFile],
        start: &Start,
        mut reader: Reader,
    ) -> anyhow::Result<BTreeSet<String>> {
        let (shape, last) = (&journal.head.genesis.shape, &journal.head.last);
        let scope = Scope {
            after: start.after,
            from: self.options.from,
            until: self.options.to,
            through: last.closed_through,
            dropped_days: journal.audit.dropped_days().clone(),
        };
        let mut recount = Recount::new(shape, start, last, self.options.to);
        let mut comparison = Comparison::new(shape, scope, files);
        let read = comparison.keys();
        let mut feeds = Feeds::start(&mut reader, &recount)?;
        while !recount.is_done() {
            let bytes = feeds.read_on(&mut reader, &mut recount)?;
            self.from_store.wait(bytes).await;
            if recount.memory_bytes() > self.options.memory_max {
                bail!(
                    "cannot count the log again: the open windows would take more than {} bytes of \
                     memory; verify a shorter time with --from and --to, or raise max-memory",
                    self.options.memory_max
                );
            }
            recount.give_rows(|rows| comparison.expect(&rows));
            self.compare(&mut comparison).await?;
            let (done, all) = recount.progress();
            self.show("counting the log again", 20 + 60 * done / all.max(1));
            if let Some(finding) = feeds.too_short.take() {
                self.report.found.add(finding);
                return Ok(BTreeSet::new());
            }
        }
        recount.give_rows(|rows| comparison.expect(&rows));
        comparison.end();
        self.compare(&mut comparison).await?;
        self.report.found.append(recount.check_sums());
        let (findings, unread_rows, proven) = comparison.finish();
        self.report.found.append(findings);
        self.report.checked.hashed_files += proven.len() as u64;
        self.report.recounted = Some(Recounted {
            after_epoch: start.epoch,
            after: start.after,
            from: self.options.from,
            until: self.options.to,
            closed_through: last.closed_through,
            offsets: recount.progress().0,
            rows: recount.rows(),
            unread_rows,
        });
        Ok(read)
    }

    async fn compare(&mut self, comparison: &mut Comparison) -> anyhow::Result<()> {
        while let CompareStep::Fetch { key, range } = comparison.step() {
            comparison.give(self.from_store.get_range(&key, range).await?);
        }
        Ok(())
    }

    /// Looks at the files that were not read yet.
    async fn check_files(
        &mut self,
        head: &Head,
        files: &[LiveFile],
        read: &BTreeSet<String>,
    ) -> anyhow::Result<()> {
        let empty = &head.genesis.empty_file;
        if !empty.is_empty() && self.from_store.get(empty).await?.is_none() {
            let text = format!("file \"{empty}\", which has no rows, is not in the store");
            self.report.found.add(Finding::new(Kind::FileMissing, text));
        }
        let rest: Vec<&LiveFile> = files
            .iter()
            .filter(|live| !read.contains(&live.file.key))
            .collect();
        for (i, live) in rest.iter().enumerate() {
            self.show("checking files", 80 + 20 * i as u64 / rest.len() as u64);
            self.check_one_file(&head.genesis.shape, live).await?;
        }
        Ok(())
    }

    async fn check_one_file(&mut self, shape: &Shape, live: &LiveFile) -> anyhow::Result<()> {
        let depth = if self.options.deep {
            Depth::Bytes
        } else {
            Depth::Description
        };
        let file = &live.file;
        let mut reread = Reread::new(shape, TableKind::of(&file.kind), file.bytes, depth);
        loop {
            let found = match reread.step() {
                Ok(RereadStep::Fetch(range)) => {
                    let Some(bytes) = self.from_store.get_range(&file.key, range).await? else {
                        self.report.found.add(missing(live));
                        return Ok(());
                    };
                    reread.give(bytes)
                }
                Ok(RereadStep::Rows(_)) => continue,
                Ok(RereadStep::End { sha256 }) => {
                    let findings = check_file(live, reread.rows(), sha256.as_deref());
                    let is_proven = sha256.is_some() && findings.differences == 0;
                    self.report.checked.hashed_files += u64::from(is_proven);
                    self.report.found.append(findings);
                    return Ok(());
                }
                Err(error) => Err(error),
            };
            if let Err(error) = found {
                self.report.found.add(damaged(live, error.why()));
                return Ok(());
            }
        }
    }
}

impl Journal {
    fn take(&mut self, entry: JournalEntry) {
        match entry {
            JournalEntry::Head(_) => {}
            JournalEntry::Epoch(entry) => {
                let commit = self.audit.take_epoch(&entry);
                if let Some((commit, chooser)) = commit.zip(self.chooser.as_mut()) {
                    chooser.take_epoch(commit);
                }
            }
            JournalEntry::History {
                first_epoch,
                manifest,
                said,
            } => {
                let history = self.audit.take_history(first_epoch, &manifest, &said);
                if let Some((history, chooser)) = history.zip(self.chooser.as_mut()) {
                    chooser.take_history(history, &manifest);
                }
                // The oldest day manifests are deleted, with the log's records.
                if let Ok(history) = said
                    && !manifest.is_empty()
                {
                    self.histories.push((history, manifest));
                }
            }
            JournalEntry::File(live) => self.audit.take_file(live),
            JournalEntry::Hive(text) => self.audit.take_hive(text),
        }
    }
}
