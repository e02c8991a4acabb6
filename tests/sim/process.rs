//! One process: an engine, its readers, and the answers that it has not received yet. Like the
//! program's driver it performs what its engine asks for, and decides nothing.

use crate::clocks::MachineClocks;
use crate::hands::Readers;
use crate::liveness::Progress;
use crate::requests::Sent;
use crate::store::Mistake;
use crate::world::World;
use std::collections::{BTreeMap, VecDeque};
use windrow_core::count::lane::Lane;
use windrow_core::engine::{
    Answer, BrokersAnswer, BrokersRequest, CatalogRequest, Effect, Engine, Input, Request, Rules,
};
use windrow_core::table::place::TablePlace;
use windrow_core::values::cause::Trouble;
use windrow_core::values::record::{Batch, Offset, Partition, Record};
use windrow_core::values::time::EventTime;

pub struct Process {
    /// Unique in the whole simulation. It is the owner id, too.
    pub id: u64,
    pub settings: Rules,
    pub engine: Engine,
    readers: Readers,
    /// Where its requests to the store go; `None` until it knows where the table lies.
    pub warehouse: Option<String>,
    /// What it has not received yet.
    pub inbox: VecDeque<News>,
    /// It is stopped, as by SIGSTOP. Answers wait.
    pub frozen: bool,
    /// The clocks of its machine.
    pub clocks: MachineClocks,
    /// When it was told the time last.
    pub ticked: u64,
    /// It was told to end.
    pub stopping: bool,
    /// It is the last process of this run: the simulation ends with it.
    pub last: bool,
    /// The last process has ended.
    pub done: bool,
    /// What each look at the end of a log has found.
    pub looks: BTreeMap<Partition, Vec<Look>>,
    /// The next offset of a lane when the end of its log was asked for.
    pub asked_at: BTreeMap<Partition, Offset>,
    /// The greatest watermark of all its lanes at that moment.
    pub greatest_when_asked: BTreeMap<Partition, Option<EventTime>>,
    /// When a record of a lane was counted last, or moved its watermark.
    pub lived: BTreeMap<Partition, u64>,
    /// What was seen of its progress.
    pub progress: Progress,
}

/// A look at the end of a log.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// The offset after the last record.
    pub end: Offset,
    /// When that was so.
    pub at: u64,
    /// No transaction was open, and the broker that answered was not behind the lane.
    pub proves_something: bool,
    /// The greatest watermark of all lanes when it was asked for.
    pub greatest: Option<EventTime>,
    /// The process was told.
    pub heard: bool,
    /// When the process, which was told, had read to there.
    pub reached_at: Option<u64>,
}

/// What comes back to a process.
pub enum News {
    Answer(Answer),
    Paused(bool),
}

impl Process {
    pub fn new(id: u64, settings: Rules) -> Self {
        Self {
            id,
            engine: Engine::new(settings.clone()),
            warehouse: given_warehouse(&settings),
            settings,
            readers: Readers::default(),
            inbox: VecDeque::new(),
            frozen: false,
            clocks: MachineClocks::default(),
            ticked: 0,
            stopping: false,
            last: false,
            done: false,
            looks: BTreeMap::new(),
            greatest_when_asked: BTreeMap::new(),
            asked_at: BTreeMap::new(),
            lived: BTreeMap::new(),
            progress: Progress::default(),
        }
    }
}

impl Process {
    /// After each step of its engine: notes to which ends of logs it has read.
    pub fn note_reached(&mut self) {
        let now = self.ticked.saturating_sub(self.clocks.slept);
        for (p, lane) in self.engine.lanes() {
            for look in self.looks.get_mut(p).into_iter().flatten() {
                if look.heard && lane.ledger.next_offset >= look.end {
                    look.reached_at.get_or_insert(now);
                }
            }
        }
    }
}

/// Where the table lies, when the settings say it.
fn given_warehouse(settings: &Rules) -> Option<String> {
    match &settings.place {
        TablePlace::At(place) => Some(place.to_string()),
        TablePlace::InBucket(_) => None,
    }
}

/// A batch of borrowed records.
struct Held<'a>(&'a [Record<'a>]);

impl Batch for Held<'_> {
    fn each(&self, f: &mut dyn FnMut(Record<'_>)) {
        self.0.iter().for_each(|r| f(*r));
    }
}

impl World {
    /// Whether a process is told the time before it takes anything else.
    fn is_stale(&self, i: usize) -> bool {
        let process = &self.processes[i];
        self.now - process.ticked > 1000 || process.clocks.set_since_tick
    }

    /// A process receives one answer.
    pub fn receive_answer(&mut self, i: usize) -> Result<(), String> {
        if self.processes[i].frozen || self.processes[i].inbox.is_empty() {
            return Ok(());
        }
        let id = self.processes[i].id;
        if self.is_stale(i) {
            self.tick(i)?;
        }
        if self.processes.get(i).is_none_or(|process| process.id != id) {
            return Ok(());
        }
        match self.processes[i].inbox.pop_front() {
            Some(News::Answer(answer)) => {
                self.note_heard(i, &answer);
                if let Answer::Brokers(BrokersAnswer::LogEnd { partition, .. }) = &answer
                    && let Some(looks) = self.processes[i].looks.get_mut(partition)
                    && let Some(look) = looks.last_mut()
                {
                    look.heard = true;
                }
                self.upkeep.note_answer(&answer);
                self.feed(i, Input::Answer(answer))
            }
            Some(News::Paused(paused)) => self.feed(i, Input::Paused(paused)),
            None => Ok(()),
        }
    }

    /// A process receives some of its answers.
    pub fn receive_answers(&mut self, i: usize) -> Result<(), String> {
        let id = self.processes[i].id;
        for _ in 0..=self.rng.below(4) {
            if self.processes.get(i).is_some_and(|p| p.id == id) {
                self.receive_answer(i)?;
            }
        }
        Ok(())
    }

    /// Performs what an engine asks for, or sends it on its way. Returns how the engine ended, if
    /// it
    /// did: `Some(None)` when it was asked to.
    pub fn perform(&mut self, i: usize, effects: Vec<Effect>) -> Option<Option<Trouble>> {
        let topic = self.topics.len() - 1;
        let mut exit = None;
        for effect in effects {
            let process = &mut self.processes[i];
            process.readers.perform(&effect, topic);
            match effect {
                Effect::Start { partition, .. } => {
                    let lane = process.engine.lanes().get(&partition);
                    self.summary.replays += u64::from(lane.is_some_and(|lane| lane.replaying()));
                    if self.mistake == Some(Mistake::StartsLate)
                        && let Some(reader) = process.readers.0.get_mut(&partition)
                    {
                        reader.next_offset += Offset::from(reader.next_offset > 0);
                    }
                }
                Effect::Hold { .. } => {
                    let (used, bound) = process.engine.memory_bytes();
                    let tight = used >= bound / 4 * 3;
                    self.summary.memory_holds += u64::from(tight);
                    if self.mistake == Some(Mistake::AllHeld) && tight {
                        process.readers.0.values_mut().for_each(|r| r.held = true);
                    }
                }
                Effect::UseWarehouse(place) => {
                    self.summary.located += 1;
                    let kept = self.mistake == Some(Mistake::WarehouseKept);
                    if !kept || process.warehouse.is_none() {
                        self.summary.relocated += u64::from(process.warehouse.is_some());
                        process.warehouse = Some(place.to_string());
                    }
                }
                Effect::Exit(reason) => exit = Some(reason),
                Effect::Ask(request) => {
                    if let Request::Brokers(BrokersRequest::LogEnd { partition }) = &request {
                        let lanes = process.engine.lanes().values();
                        let greatest = lanes.filter_map(Lane::watermark).max();
                        process.greatest_when_asked.insert(*partition, greatest);
                    }
                    self.upkeep.note_request(process, &request);
                    if asks_the_time(&request) {
                        process.clocks.asked_at = self.now;
                    }
                    let warehouse = process.warehouse.clone();
                    if let Request::Brokers(BrokersRequest::LogEnd { partition }) = request
                        && let Some(lane) = process.engine.lanes().get(&partition)
                    {
                        process.asked_at.insert(partition, lane.ledger.next_offset);
                    }
                    self.requests.push(Sent {
                        sender: process.id,
                        warehouse,
                        request,
                    });
                }
                Effect::StopAll => process.progress.unreadable.clear(),
                Effect::Report(commit) => self.reported.push(commit),
                Effect::Unhold { .. }
                | Effect::CommitGroup(_)
                | Effect::ReportForeignKeys(_)
                | Effect::ReportLostEpochs { .. }
                | Effect::ReportLeftOut { .. } => {}
            }
        }
        exit
    }

    /// Hands over what comes next to one of the readers of a process; in the end to all of them.
    pub fn deliver(&mut self, i: usize) -> Result<(), String> {
        let process = &self.processes[i];
        if process.frozen || process.readers.0.is_empty() || self.now < self.kafka_down_until {
            return Ok(());
        }
        let id = process.id;
        if self.is_stale(i) {
            self.tick(i)?;
        }
        if self.processes.get(i).is_none_or(|process| process.id != id) {
            return Ok(());
        }
        let all: Vec<Partition> = self.processes[i].readers.0.keys().copied().collect();
        if all.is_empty() {
            return Ok(());
        }
        let all = if self.faults.lost_one_in == 0 && (self.goes_on || self.requests.is_empty()) {
            all
        } else {
            vec![self.rng.pick(&all)]
        };
        for p in all {
            if self
                .processes
                .get(i)
                .is_some_and(|process| process.id == id)
            {
                let replays_to = self.replays_to(i, p);
                self.read(i, p)?;
                if self
                    .processes
                    .get(i)
                    .is_some_and(|process| process.id == id)
                {
                    self.replay_was_right(i, p, replays_to)?;
                }
            }
        }
        Ok(())
    }

    /// One reader hands over what comes next, or says why it cannot.
    fn read(&mut self, i: usize, p: Partition) -> Result<(), String> {
        let topic = self.topics.len() - 1;
        let Some(log) = self.topics[topic].logs.get(&p) else {
            return Ok(());
        };
        let lane = self.processes[i].engine.lanes().get(&p);
        let replays = lane.is_some_and(|lane| lane.replaying());
        let (used, bound) = self.processes[i].engine.memory_bytes();
        if self.mistake == Some(Mistake::ReplayHeld) && replays && used >= bound / 4 * 3 {
            return Ok(());
        }
        let readers = &mut self.processes[i].readers.0;
        let Some(reader) = readers.get_mut(&p).filter(|r| !r.held && !r.halted) else {
            return Ok(());
        };
        let checked = reader.topic == topic && reader.leader_epoch >= 0 && reader.next_offset > 0;
        let kept = log
            .epoch_end(reader.leader_epoch)
            .is_some_and(|end| reader.next_offset <= end);
        if checked && !kept && self.mistake != Some(Mistake::CutUnsaid) {
            reader.halted = true;
            let why = format!(
                "topic partition {p} was cut off below offset {}",
                reader.next_offset
            );
            let cut_at = match self.mistake {
                Some(Mistake::CutMisplaced) => Some(reader.next_offset),
                _ => log.epoch_end(reader.leader_epoch),
            };
            let input = Input::Truncated {
                partition: p,
                cut_at,
                why,
            };
            return self.feed(i, input);
        }
        if self.mistake == Some(Mistake::ExpiredUnsaid) {
            reader.next_offset = reader.next_offset.max(log.start);
        }
        let next = reader.next_offset;
        let Some((start, visible)) = self.limits_to_read(p) else {
            return self.is_unreadable(i, p, "this broker does not know it");
        };
        if next < start || next > visible {
            self.halt(i, p);
            return self.feed(i, Input::OutOfRange { partition: p });
        }
        if self.faults.damaged_one_in > 0 && self.rng.one_in(self.faults.damaged_one_in) {
            // What the broker sent cannot be read. Asked again, it sends what is in its log.
            self.summary.damaged += 1;
            return self.is_unreadable(i, p, "a batch is damaged");
        }
        self.read_on(i, p, visible)
    }

    /// A topic partition cannot be read, for this reason, until the engine starts it again.
    fn is_unreadable(&mut self, i: usize, p: Partition, why: &str) -> Result<(), String> {
        self.halt(i, p);
        self.processes[i].progress.unreadable.insert(p);
        let (partition, trouble) = (Some(p), Trouble::from(why));
        self.feed(i, Input::Trouble { partition, trouble })
    }

    /// Nothing more is read of a topic partition until the engine starts it again.
    fn halt(&mut self, i: usize, p: Partition) {
        if let Some(reader) = self.processes[i].readers.0.get_mut(&p) {
            reader.halted = true;
        }
    }

    /// The log has what the reader wants next, unless it is at the end: readers see it up to the
    /// offset `visible`.
    fn read_on(&mut self, i: usize, p: Partition, visible: Offset) -> Result<(), String> {
        let log = &self.topics[self.topics.len() - 1].logs[&p];
        self.processes[i].progress.unreadable.remove(&p);
        let readers = &mut self.processes[i].readers.0;
        let reader = readers.get_mut(&p).expect("it reads");
        let most = 1 + self.rng.below(16) as usize;
        let mut records: Vec<Record<'_>> = log
            .records
            .range(reader.next_offset..visible)
            .take(most)
            .map(|(offset, r)| Record {
                offset: *offset,
                timestamp_ms: r.kafka_time,
                value: r.bytes.as_deref(),
            })
            .collect();
        let Some(last) = records.last().map(|r| r.offset) else {
            if reader.told_end && !self.rng.one_in(4) {
                return Ok(());
            }
            reader.told_end = true;
            if visible > reader.next_offset {
                reader.leader_epoch = log.epoch_of(visible - 1);
            }
            reader.next_offset = visible;
            let end = Input::End {
                partition: p,
                offset: visible,
            };
            return self.feed(i, end);
        };
        reader.told_end = false;
        reader.next_offset = last + 1;
        reader.leader_epoch = log.records[&last].leader_epoch;
        let leader_epoch = reader.leader_epoch;
        if let Some(mistake) = self
            .mistake
            .filter(|_| records.len() > 1 && self.rng.one_in(20))
        {
            spoil(&mut records, mistake);
        }
        if self.mistake == Some(Mistake::EndTooFar) && self.rng.one_in(20) {
            return self.feed(
                i,
                Input::End {
                    partition: p,
                    offset: last,
                },
            );
        }
        let lane = self.processes[i].engine.lanes().get(&p);
        let judged_before = lane.map_or(0, |lane| {
            let next = lane.ledger.next_offset;
            lane.replays_to().unwrap_or(next).max(next)
        });
        let out = take_batch(&mut self.processes[i], p, leader_epoch, &records);
        self.processes[i].note_reached();
        let id = self.processes[i].id;
        if let Some(exit) = self.perform(i, out) {
            self.ended(i, exit)?;
        }
        self.reports_are_true()?;
        if self.processes.get(i).is_none_or(|process| process.id != id) {
            return Ok(());
        }
        self.note_progress(i);
        self.ceiling_is_right(i, p, judged_before)
    }
}

/// Hands records to the engine of a process, and notes when it took them for a sign of life.
fn take_batch(
    process: &mut Process,
    p: Partition,
    leader_epoch: i32,
    records: &[Record<'_>],
) -> Vec<Effect> {
    let mut out = Vec::new();
    let batch: &dyn Batch = &Held(records);
    let input = Input::Records {
        partition: p,
        leader_epoch,
        batch,
    };
    let life = |engine: &Engine| {
        let lane = engine.lanes().get(&p)?;
        Some((lane.ledger.counted, lane.newest(), lane.watermark()))
    };
    let before = life(&process.engine);
    let delay_ms = process.engine.lanes().get(&p).map_or(0, Lane::delay_ms);
    process.engine.step(input, &mut out);
    // A replay, or its end, may bring another delay, and with it another watermark. That is no
    // life, so what a record moves is reckoned with the delay that held before as well.
    let after = life(&process.engine);
    let lives = after
        .zip(before)
        .is_some_and(|(now, (counted, newest, watermark))| {
            let further = now.1.map(|at| at.plus(-delay_ms)) > watermark;
            now.0 != counted || (now.1 != newest && now.2 != watermark && further)
        });
    if lives {
        let ticked = process.ticked.saturating_sub(process.clocks.slept);
        process.lived.insert(p, ticked);
    }
    out
}

/// Whether the answer to this request says what time it is by the database's clock.
fn asks_the_time(request: &Request) -> bool {
    matches!(
        request,
        Request::Catalog(CatalogRequest::Acquire { .. } | CatalogRequest::Renew { .. })
    )
}

/// Does what a reader must never do.
fn spoil(records: &mut Vec<Record<'_>>, mistake: Mistake) {
    match mistake {
        Mistake::RecordSkipped => {
            records.remove(0);
        }
        Mistake::RecordTwice => {
            let last = records.len() - 1;
            records[last] = Record {
                offset: records[last].offset,
                ..records[last - 1]
            };
        }
        Mistake::RecordsSwapped => {
            let (a, b) = (records[0], records[1]);
            records[0] = Record {
                offset: a.offset,
                ..b
            };
            records[1] = Record {
                offset: b.offset,
                ..a
            };
        }
        _ => {}
    }
}
