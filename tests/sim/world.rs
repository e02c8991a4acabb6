//! The world around the engines: logs that grow, requests that arrive late, twice removed from their sender, or never.

use crate::audit;
use crate::rng::Rng;
use crate::store::{Catalog, Mistake};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use windrow::commit::{CatalogError, Commit, Decided, FileKind, FloorReason};
use windrow::engine::{Effect, Engine, Input, LogEnd, Settings, State, TopicFacts};
use windrow::file::{Timestamps, read_rows};
use windrow::listing::Value as Cell;
use windrow::record::{Offset, Partition, Record};
use windrow::shape::{Aggregate, Function, Number, Shape};
use windrow::time::{DbTime, Mono};

pub enum Value {
    Good { origin: String, n: i64 },
    Broken,
    Tombstone,
}

pub struct LogRecord {
    pub time: i64,
    pub value: Value,
    bytes: Option<Vec<u8>>,
}

/// One topic partition, whole; readers see it up to `visible`.
pub struct Log {
    pub records: BTreeMap<Offset, LogRecord>,
    pub end: Offset,
    visible: Offset,
    /// Not in the topic before this time.
    exists_from: u64,
}

#[derive(Default)]
struct Reader {
    pos: Offset,
    held: bool,
    told_end: bool,
}

struct Process {
    id: u64,
    engine: Engine,
    readers: BTreeMap<Partition, Reader>,
    inbox: VecDeque<Answer>,
    frozen: bool,
    exited: Option<Option<String>>,
}

/// What comes back to a process.
enum Answer {
    Acquired(Result<windrow::commit::Acquired, CatalogError>),
    Renewed(Result<(DbTime, bool), CatalogError>),
    Topic(Result<TopicFacts, String>),
    TopicId(Result<String, String>),
    Manifests(Result<Vec<String>, String>),
    Checkpoint(Result<Vec<u8>, String>),
    Looked(Partition, Result<LogEnd, String>),
    Stored(String, Result<(), String>),
    Committed(u64, Result<DbTime, CatalogError>),
    Found(u64, Result<windrow::commit::Outcome, CatalogError>),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub rows: u64,
    pub late: u64,
    pub rejects: u64,
    pub late_hits: u64,
    pub epochs: u64,
    pub crashes: u64,
    pub owners: u64,
    pub lost_answers: u64,
    pub zombie_writes: u64,
    pub replays: u64,
    pub idle_floors: u64,
    pub joins: u64,
}

impl Summary {
    pub fn add(&mut self, other: &Self) {
        self.rows += other.rows;
        self.late += other.late;
        self.rejects += other.rejects;
        self.late_hits += other.late_hits;
        self.epochs += other.epochs;
        self.crashes += other.crashes;
        self.owners += other.owners;
        self.lost_answers += other.lost_answers;
        self.zombie_writes += other.zombie_writes;
        self.replays += other.replays;
        self.idle_floors += other.idle_floors;
        self.joins += other.joins;
    }
}

pub struct World {
    rng: Rng,
    mistake: Option<Mistake>,
    settings: Settings,
    now: u64,
    logs: BTreeMap<Partition, Log>,
    processes: Vec<Process>,
    next_id: u64,
    /// Requests on their way, with their sender.
    requests: Vec<(u64, Effect)>,
    catalog: Catalog,
    objects: BTreeMap<String, Arc<Vec<u8>>>,
    /// How often things go wrong: one in so many; 0 is never.
    fault: u64,
    summary: Summary,
}

const BASE: i64 = 1_700_000_000_000;

impl World {
    pub fn new(seed: u64, mistake: Option<Mistake>) -> Self {
        let mut rng = Rng(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x5eed);
        let (size, slide) =
            rng.pick(&[(10_000, 10_000), (10_000, 5000), (10_000, 3000), (7000, 7000), (12_000, 4000)]);
        let mut shape = Shape::count_by_origin("t", size, slide);
        shape.offset_ms = rng.pick(&[0, 0, 1000, slide - 1]);
        shape.aggregates.push(Aggregate {
            function: Function::Sum,
            path: vec!["n".to_owned()],
            number: Number::Integer,
            name: "sum_n".to_owned(),
        });
        let delay_ms = rng.pick(&[0, 1000, 10_000, 15_000]);
        let settings = Settings {
            shape,
            database: "default".to_owned(),
            table: "t".to_owned(),
            warehouse: "s3a://spark/warehouse".to_owned(),
            timestamps: Timestamps::Micros,
            start_at_end: false,
            delay_ms,
            idle_timeout_ms: rng.pick(&[1000, 3000, 8000]),
            quiet_timeout_ms: rng.pick(&[None, None, Some(5000)]),
            max_skew_ms: rng.pick(&[20_000, 3_600_000]),
            max_future_ms: 600_000,
            commit_interval_ms: rng.pick(&[0, 500, 3000]),
            continue_on_data_loss: false,
            lease_ms: 3000,
            checkpoint_keys_small: rng.pick(&[0, 4, 20_000]),
        };
        let partitions = 1 + rng.below(3) as Partition;
        let logs = (0..partitions)
            .map(|p| {
                let exists_from = if p > 0 && rng.one_in(4) { rng.below(60_000) } else { 0 };
                (p, draw_log(&mut rng, exists_from))
            })
            .collect();
        let fault = rng.pick(&[0, 8, 20, 60]);
        Self {
            rng,
            mistake,
            settings,
            now: 0,
            logs,
            processes: Vec::new(),
            next_id: 0,
            requests: Vec::new(),
            catalog: Catalog::default(),
            objects: BTreeMap::new(),
            fault,
            summary: Summary::default(),
        }
    }

    fn db_now(&self) -> DbTime {
        DbTime(BASE + 60_000 + self.now as i64)
    }

    fn start_process(&mut self) {
        let id = self.next_id;
        self.next_id += 1;
        let mut settings = self.settings.clone();
        if self.rng.one_in(8) {
            // Somebody changed it meanwhile.
            settings.delay_ms = self.rng.pick(&[0, 1000, 10_000, 15_000]);
        }
        self.processes.push(Process {
            id,
            engine: Engine::new(settings),
            readers: BTreeMap::new(),
            inbox: VecDeque::new(),
            frozen: false,
            exited: None,
        });
    }

    fn fails(&mut self) -> bool {
        self.fault > 0 && self.rng.one_in(self.fault)
    }

    pub fn run(&mut self) -> Result<(), String> {
        self.start_process();
        if self.rng.one_in(3) {
            self.start_process();
        }
        let steps = 200 + self.rng.below(400);
        for _ in 0..steps {
            self.now += self.rng.pick(&[0, 1, 10, 50, 200, 500]);
            self.act()?;
        }
        self.finish()
    }

    fn act(&mut self) -> Result<(), String> {
        let i = self.rng.below(self.processes.len() as u64) as usize;
        match self.rng.below(100) {
            0..25 => self.deliver(i)?,
            25..45 => self.tick(i)?,
            45..80 => self.request()?,
            80..90 => self.answer(i)?,
            90..96 => {
                let p = self.rng.below(self.logs.len() as u64) as Partition;
                let n = self.rng.below(12) as Offset;
                let log = self.logs.get_mut(&p).expect("drawn");
                log.visible = (log.visible + n).min(log.end);
            }
            96..98 if self.fault > 0 => {
                self.processes[i].frozen = !self.processes[i].frozen;
            }
            98 if self.fault > 0 => {
                // kill -9: its requests go on without it.
                self.summary.crashes += 1;
                self.processes.remove(i);
                if self.processes.is_empty() {
                    self.start_process();
                }
            }
            99 if self.processes.len() < 3 && self.fault > 0 => self.start_process(),
            _ => {}
        }
        Ok(())
    }

    /// No more faults: everything is read, idle topic partitions stand aside, a last commit.
    fn finish(&mut self) -> Result<(), String> {
        self.fault = 0;
        for log in self.logs.values_mut() {
            log.visible = log.end;
            log.exists_from = 0;
        }
        self.processes.truncate(1);
        self.processes[0].frozen = false;
        let mut quiet_since = self.now;
        for round in 0.. {
            if round > 4000 {
                return Err(format!("it does not come to an end: {:?}", self.processes[0].engine.state()));
            }
            self.now += 100;
            while !self.requests.is_empty() {
                self.request()?;
            }
            while !self.processes[0].inbox.is_empty() {
                self.answer(0)?;
            }
            self.deliver(0)?;
            self.tick(0)?;
            if let Some(reason) = &self.processes[0].exited {
                return match reason {
                    None => Ok(()),
                    Some(reason) => Err(format!("it stopped: {reason}")),
                };
            }
            let engine = &self.processes[0].engine;
            let read = self.logs.iter().all(|(p, log)| {
                engine
                    .lanes()
                    .get(p)
                    .is_some_and(|lane| lane.ledger.next_offset == log.end && !lane.replaying())
            });
            if !read || engine.state() != State::Counting {
                quiet_since = self.now;
            }
            if self.now - quiet_since > 2 * self.settings.idle_timeout_ms + 8000 {
                self.step(0, Input::Shutdown)?;
            }
        }
        Ok(())
    }

    fn tick(&mut self, i: usize) -> Result<(), String> {
        if self.processes[i].frozen {
            return Ok(());
        }
        self.step(i, Input::Tick { now: Mono(self.now) })
    }

    /// Hands the next records of a topic partition to its reader.
    fn deliver(&mut self, i: usize) -> Result<(), String> {
        if self.processes[i].frozen || self.processes[i].readers.is_empty() {
            return Ok(());
        }
        let all: Vec<Partition> = self.processes[i].readers.keys().copied().collect();
        let all = if self.fault == 0 && self.requests.is_empty() { all } else { vec![self.rng.pick(&all)] };
        for p in all {
            let Some(reader) = self.processes[i].readers.get_mut(&p).filter(|r| !r.held) else { continue };
            let log = &self.logs[&p];
            let most = 1 + self.rng.below(16) as usize;
            let mut records: Vec<Record<'_>> = log
                .records
                .range(reader.pos..log.visible)
                .take(most)
                .map(|(offset, r)| Record {
                    offset: *offset,
                    timestamp_ms: r.time,
                    value: r.bytes.as_deref(),
                })
                .collect();
            if records.is_empty() {
                if !reader.told_end || self.rng.one_in(4) {
                    reader.told_end = true;
                    reader.pos = reader.pos.max(log.visible);
                    let input = Input::End { partition: p, offset: log.visible };
                    let mut out = Vec::new();
                    self.processes[i].engine.step(input, &mut out);
                    self.perform(i, out);
                }
                continue;
            }
            reader.told_end = false;
            reader.pos = records[records.len() - 1].offset + 1;
            let mistaken = self.mistake.is_some() && self.rng.one_in(20) && records.len() > 1;
            match self.mistake.filter(|_| mistaken) {
                Some(Mistake::RecordSkipped) => {
                    records.remove(0);
                }
                Some(Mistake::RecordTwice) => {
                    let last = records.len() - 1;
                    records[last] = Record { offset: records[last].offset, ..records[last - 1] };
                }
                Some(Mistake::RecordsSwapped) => {
                    let (a, b) = (records[0], records[1]);
                    records[0] = Record { offset: a.offset, ..b };
                    records[1] = Record { offset: b.offset, ..a };
                }
                _ => {}
            }
            let batch: &[Record<'_>] = &records;
            let mut out = Vec::new();
            self.processes[i]
                .engine
                .step(Input::Records { partition: p, leader_epoch: 0, batch: &batch }, &mut out);
            self.perform(i, out);
        }
        Ok(())
    }

    /// One request arrives, is lost on the way, or its answer is.
    fn request(&mut self) -> Result<(), String> {
        if self.requests.is_empty() {
            return Ok(());
        }
        // One sender's requests to the catalog arrive in order, as on one connection; objects in any order.
        let at = self.rng.below(self.requests.len() as u64) as usize;
        let sender = self.requests[at].0;
        let is_put = |e: &Effect| matches!(e, Effect::Put { .. });
        let at = if is_put(&self.requests[at].1) {
            at
        } else {
            self.requests.iter().position(|(s, e)| *s == sender && !is_put(e)).expect("it is one of them")
        };
        let (sender, effect) = self.requests.remove(at);
        let dead = !self.processes.iter().any(|p| p.id == sender);
        if dead && self.rng.one_in(2) {
            return Ok(());
        }
        if dead {
            self.summary.zombie_writes += 1;
        }
        let lost_before = self.fails();
        let lost_after = !lost_before && self.fails();
        if lost_before || lost_after {
            self.summary.lost_answers += 1;
        }
        let gone = || "connection lost".to_owned();
        let db_now = self.db_now();
        let mistake = self.mistake;
        let unclear = lost_before || lost_after;
        let answer = match effect {
            Effect::Acquire => Answer::Acquired(if lost_before {
                Err(CatalogError::Retry(gone()))
            } else {
                let id = sender.to_string();
                let answer =
                    self.catalog.acquire(db_now, &format!("unit/{id}"), &id, self.settings.lease_ms, mistake);
                if lost_after { Err(CatalogError::Retry(gone())) } else { answer }
            }),
            Effect::Renew { owner } => Answer::Renewed(if unclear {
                Err(CatalogError::Retry(gone()))
            } else {
                self.catalog.renew(db_now, &owner, self.settings.lease_ms)
            }),
            Effect::Release { owner } => {
                self.catalog.release(&owner);
                return Ok(());
            }
            Effect::LookUpTopic => Answer::Topic(if unclear { Err(gone()) } else { Ok(self.facts()) }),
            Effect::CheckTopic => Answer::TopicId(if unclear { Err(gone()) } else { Ok("id".to_owned()) }),
            Effect::ListManifests { prefix } => Answer::Manifests(if unclear {
                Err(gone())
            } else {
                Ok(self.objects.keys().filter(|k| k.starts_with(&prefix)).cloned().collect())
            }),
            Effect::FetchCheckpoint { key } => Answer::Checkpoint(if unclear {
                Err(gone())
            } else {
                self.objects.get(&key).map(|b| b.to_vec()).ok_or_else(|| format!("no object {key}"))
            }),
            Effect::LookAtEnd { partition } => {
                let end = self.logs[&partition].visible;
                Answer::Looked(
                    partition,
                    if unclear { Err(gone()) } else { Ok(LogEnd { last_stable: end, high_watermark: end }) },
                )
            }
            Effect::Put { key, bytes } => {
                if mistake == Some(Mistake::FilesAfterCommit)
                    && key.ends_with(".parquet")
                    && self.rng.one_in(2)
                {
                    // Told as stored while it is still under way; a crash of the sender loses it.
                    Answer::Stored(key, Ok(()))
                } else if lost_before {
                    Answer::Stored(key, Err(gone()))
                } else {
                    let bytes = if mistake == Some(Mistake::FileDamaged) && self.rng.one_in(5) {
                        let mut other = bytes.to_vec();
                        let middle = other.len() / 2;
                        other[middle] ^= 1;
                        Arc::new(other)
                    } else {
                        bytes
                    };
                    self.objects.insert(key.clone(), bytes);
                    Answer::Stored(key, if lost_after { Err(gone()) } else { Ok(()) })
                }
            }
            Effect::Commit(commit) => {
                let result = if lost_before {
                    Err(if self.rng.one_in(2) {
                        CatalogError::Unknown(gone())
                    } else {
                        CatalogError::Retry(gone())
                    })
                } else {
                    let result = self.catalog.commit(db_now, &commit, &self.objects, mistake);
                    if lost_after { Err(CatalogError::Unknown(gone())) } else { result }
                };
                let result = match (mistake, result) {
                    (Some(Mistake::UnknownIsSuccess), Err(CatalogError::Unknown(_))) => Ok(db_now),
                    (Some(Mistake::UnknownIsFailure), Err(CatalogError::Unknown(reason))) => {
                        // The same rows under another number.
                        let mut again = (*commit).clone();
                        again.epoch = self.catalog.epochs.len() as u64;
                        self.catalog.epochs.push((again, db_now));
                        Err(CatalogError::Retry(reason))
                    }
                    (_, result) => result,
                };
                Answer::Committed(commit.epoch, result)
            }
            Effect::Find { owner, epoch } => Answer::Found(
                epoch,
                if unclear { Err(CatalogError::Retry(gone())) } else { self.catalog.outcome(&owner, epoch) },
            ),
            other => unreachable!("not a request: {other:?}"),
        };
        if let Some(process) = self.processes.iter_mut().find(|p| p.id == sender) {
            process.inbox.push_back(answer);
        }
        Ok(())
    }

    fn facts(&self) -> TopicFacts {
        let there = self.logs.iter().filter(|(_, log)| log.exists_from <= self.now);
        TopicFacts {
            cluster_id: "c".to_owned(),
            topic_id: "id".to_owned(),
            partitions: there.map(|(p, log)| (*p, (0, log.visible))).collect(),
        }
    }

    /// A process hears one answer.
    fn answer(&mut self, i: usize) -> Result<(), String> {
        if self.processes[i].frozen {
            return Ok(());
        }
        let Some(answer) = self.processes[i].inbox.pop_front() else { return Ok(()) };
        let input = match answer {
            Answer::Acquired(a) => Input::Acquired(a),
            Answer::Renewed(a) => Input::Renewed(a),
            Answer::Topic(a) => Input::Topic(a),
            Answer::TopicId(a) => Input::TopicId(a),
            Answer::Manifests(a) => Input::Manifests(a),
            Answer::Checkpoint(a) => Input::Checkpoint(a),
            Answer::Looked(partition, end) => Input::Looked { partition, end },
            Answer::Stored(key, result) => Input::Stored { key, result },
            Answer::Committed(epoch, result) => Input::Committed { epoch, result },
            Answer::Found(epoch, result) => Input::Found { epoch, result },
        };
        self.step(i, input)
    }

    fn step(&mut self, i: usize, input: Input<'_>) -> Result<(), String> {
        let mut out = Vec::new();
        self.processes[i].engine.step(input, &mut out);
        self.perform(i, out);
        let frozen_out = self.processes[i].exited.clone();
        match frozen_out {
            Some(Some(reason)) => Err(format!("it stopped: {reason}")),
            Some(None) if self.fault > 0 => Err("it ended by itself".to_owned()),
            _ => Ok(()),
        }
    }

    fn perform(&mut self, i: usize, effects: Vec<Effect>) {
        let id = self.processes[i].id;
        for effect in effects {
            let process = &mut self.processes[i];
            match effect {
                Effect::Start { partition, offset, .. } => {
                    if let Some(lane) = process.engine.lanes().get(&partition)
                        && lane.replaying()
                    {
                        self.summary.replays += 1;
                    }
                    let late = self.mistake == Some(Mistake::StartsLate) && offset > 0;
                    process
                        .readers
                        .insert(partition, Reader { pos: offset + Offset::from(late), ..Reader::default() });
                }
                Effect::StopAll => process.readers.clear(),
                Effect::Hold { partition } => {
                    if let Some(reader) = process.readers.get_mut(&partition) {
                        reader.held = true;
                    }
                }
                Effect::Unhold { partition } => {
                    if let Some(reader) = process.readers.get_mut(&partition) {
                        reader.held = false;
                        reader.told_end = false;
                    }
                }
                Effect::CommitGroup(_) | Effect::Report(_) => {}
                Effect::Exit(reason) => process.exited = Some(reason),
                request => self.requests.push((id, request)),
            }
        }
    }

    /// What came out against what must.
    pub fn audit(&mut self) -> Result<Summary, String> {
        let epochs: Vec<Commit> = self.catalog.epochs.iter().map(|(c, _)| c.clone()).collect();
        let last = epochs.last().ok_or("no epoch was committed")?;
        let mut rows: BTreeMap<(i64, i64, String), (u64, i128)> = BTreeMap::new();
        let mut late: BTreeSet<(Partition, Offset)> = BTreeSet::new();
        let mut rejects: BTreeSet<(Partition, Offset)> = BTreeSet::new();
        let mut to: BTreeMap<Partition, Offset> = epochs[0].lanes.keys().map(|p| (*p, 0)).collect();
        for (n, commit) in epochs.iter().enumerate() {
            if commit.epoch != n as u64 {
                return Err(format!("epoch {n} calls itself {}", commit.epoch));
            }
            for (p, lane) in &commit.lanes {
                if to.get(p).is_some_and(|to| *to != lane.from) {
                    return Err(format!(
                        "epoch {n} of topic partition {p} begins at {}, not at {}",
                        lane.from, to[p]
                    ));
                }
                to.insert(*p, lane.to);
            }
            for file in &commit.files {
                let bytes = self.catalog.seen.get(&file.key).cloned().flatten();
                let bytes =
                    bytes.ok_or_else(|| format!("epoch {n} shows {}, which was not stored", file.key))?;
                if windrow::commit::sha256_hex(&bytes) != file.sha256 {
                    return Err(format!("{} has other bytes than its epoch says", file.key));
                }
                let listing = read_rows(&bytes, usize::MAX).map_err(|e| e.to_string())?;
                if listing.rows.len() as u64 != file.rows {
                    return Err(format!("{} has other rows than its epoch says", file.key));
                }
                for row in listing.rows {
                    match (&file.kind, &row[..]) {
                        (
                            FileKind::Rows { date },
                            [Cell::Window { start, end }, Cell::Text(origin), Cell::Integer(count), sum],
                        ) => {
                            if start.date() != *date {
                                return Err(format!("a row of {start} lies under {date}"));
                            }
                            let sum = match sum {
                                Cell::Decimal { units, .. } => *units,
                                _ => 0,
                            };
                            let key = (start.0, end.0, origin.clone());
                            if rows.insert(key, (*count as u64, sum)).is_some() {
                                return Err(format!("epoch {n} has the row {start} {origin} again"));
                            }
                        }
                        (
                            FileKind::Late | FileKind::Rejects,
                            [_, Cell::Integer(p), Cell::Integer(offset), ..],
                        ) => {
                            let side = if file.kind == FileKind::Late { &mut late } else { &mut rejects };
                            if !side.insert((*p as Partition, *offset)) {
                                return Err(format!("epoch {n} has the side row {p} {offset} again"));
                            }
                        }
                        other => return Err(format!("a row that nobody expects: {other:?}")),
                    }
                }
            }
            let parts: BTreeMap<Partition, audit::Expected> = commit
                .lanes
                .iter()
                .map(|(p, lane)| {
                    let decisions = audit::decisions(&epochs[..=n], *p);
                    (*p, audit::expect(&self.settings, &self.logs[p], 0, lane.to, &decisions))
                })
                .collect();
            // Each epoch in a few runs, the last one always: the sums are over the whole log each time.
            if n + 1 < epochs.len() && n % 7 != 3 {
                continue;
            }
            let frontier = parts.values().map(|e| e.watermark).min().flatten();
            if commit.closed_through.map(|t| t.0) != frontier {
                return Err(format!(
                    "epoch {n} closed through {:?}, must be {frontier:?}",
                    commit.closed_through
                ));
            }
            differ(&format!("epoch {n}: rows"), &rows, &audit::rows(&parts, frontier))?;
            let all = |side: fn(&audit::Expected) -> &BTreeSet<Offset>| -> BTreeSet<(Partition, Offset)> {
                parts.iter().flat_map(|(p, e)| side(e).iter().map(|o| (*p, *o))).collect()
            };
            let count =
                |s: BTreeSet<(Partition, Offset)>| s.into_iter().map(|o| (o, ())).collect::<BTreeMap<_, _>>();
            differ(&format!("epoch {n}: late"), &count(late.clone()), &count(all(|e| &e.late)))?;
            differ(&format!("epoch {n}: rejects"), &count(rejects.clone()), &count(all(|e| &e.rejects)))?;
            for (p, e) in &parts {
                let l = &commit.lanes[p].ledger;
                let ours = (l.counted, l.late, l.rejected, l.tombstones, l.gaps, l.hits, l.late_hits);
                let must = (
                    e.counted,
                    e.late.len() as u64,
                    e.rejects.len() as u64,
                    e.tombstones,
                    e.gaps,
                    e.hits,
                    e.late_hits,
                );
                if ours != must {
                    return Err(format!(
                        "epoch {n}: the ledger of topic partition {p} says {ours:?}, must be {must:?}"
                    ));
                }
            }
        }
        for (p, log) in &self.logs {
            if last.lanes.get(p).map(|l| l.to) != Some(log.end) {
                return Err(format!("topic partition {p} was not read to its end"));
            }
        }
        self.summary.rows = rows.len() as u64;
        self.summary.late = late.len() as u64;
        self.summary.rejects = rejects.len() as u64;
        self.summary.late_hits = last.ledger.late_hits;
        self.summary.epochs = epochs.len() as u64;
        self.summary.owners = self.catalog.owners - 1;
        let floors = |reason| {
            let is = |d: &&windrow::commit::Decision| matches!(&d.what, Decided::Floor { reason: r, .. } if *r == reason);
            epochs.iter().flat_map(|c| &c.decisions).filter(is).count() as u64
        };
        self.summary.idle_floors = floors(FloorReason::Idle);
        self.summary.joins = floors(FloorReason::Join);
        Ok(self.summary.clone())
    }
}

fn differ<K: Ord + std::fmt::Debug, V: PartialEq + std::fmt::Debug>(
    what: &str,
    ours: &BTreeMap<K, V>,
    must: &BTreeMap<K, V>,
) -> Result<(), String> {
    for (key, value) in must {
        match ours.get(key) {
            None => return Err(format!("{what}: {key:?} {value:?} is missing")),
            Some(other) if other != value => {
                return Err(format!("{what}: {key:?} is {other:?}, must be {value:?}"));
            }
            Some(_) => {}
        }
    }
    match ours.iter().find(|(key, _)| !must.contains_key(key)) {
        Some((key, value)) => Err(format!("{what}: {key:?} {value:?} must not be there")),
        None => Ok(()),
    }
}

fn draw_log(rng: &mut Rng, exists_from: u64) -> Log {
    let mut records = BTreeMap::new();
    let n = rng.below(90);
    let step = rng.pick(&[50, 400, 2500]);
    let disorder = rng.pick(&[0, 3000, 20_000]);
    let keys = rng.pick(&[1, 3, 8]);
    let (mut time, mut offset) = (BASE + rng.below(20_000) as i64, 0);
    for _ in 0..n {
        time += rng.below(step) as i64;
        let mut at = time - rng.below(disorder + 1) as i64;
        if rng.one_in(60) {
            at = rng.pick(&[-1, 253_402_300_799_000, time + 700_000]);
        }
        let value = match rng.below(30) {
            0 => Value::Broken,
            1 => Value::Tombstone,
            _ => Value::Good { origin: format!("o{}", rng.below(keys)), n: rng.below(1000) as i64 - 300 },
        };
        let bytes = match &value {
            Value::Good { origin, n } => {
                Some(format!("{{\"origin\": \"{origin}\", \"n\": {n}}}").into_bytes())
            }
            Value::Broken => {
                Some(rng.pick(&[&b"{"[..], b"[]", b"{\"n\": 1}", b"{\"origin\": null}", b""]).to_vec())
            }
            Value::Tombstone => None,
        };
        if rng.one_in(12) {
            offset += 1 + rng.below(3) as Offset;
        }
        records.insert(offset, LogRecord { time: at, value, bytes });
        offset += 1;
    }
    let end = offset + rng.below(2) as Offset;
    Log { records, end, visible: rng.below(end as u64 + 1) as Offset, exists_from }
}
