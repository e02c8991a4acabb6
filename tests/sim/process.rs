//! One process: an engine, its readers, and what it has not heard yet. Between it and Kafka it does what `driver` does.

use crate::store::Mistake;
use crate::topic::BASE;
use crate::world::{CLOCK_OFF_MS, World};
use std::collections::{BTreeMap, VecDeque};
use windrow_core::engine::{Answer, Effect, Engine, Input, Rules};
use windrow_core::values::cause::Trouble;
use windrow_core::values::record::{Batch, Offset, Partition, Record};

pub struct Process {
    pub id: u64,
    pub settings: Rules,
    pub engine: Engine,
    readers: BTreeMap<Partition, Reader>,
    pub inbox: VecDeque<News>,
    pub frozen: bool,
    /// When it was told the time last.
    pub ticked: u64,
    /// It was told to end, for the last time, and did.
    pub stopping: bool,
    pub last: bool,
    pub done: bool,
    /// Where each log ended when it was looked at, and when that was.
    pub looks: BTreeMap<Partition, Vec<(Offset, u64)>>,
}

struct Reader {
    pos: Offset,
    /// Of the record before, -1 when unknown.
    leader_epoch: i32,
    /// Which topic of that name it was started in: it goes on in another one without a word.
    topic: usize,
    held: bool,
    told_end: bool,
    /// It said why it does not go on.
    halted: bool,
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
            settings,
            readers: BTreeMap::new(),
            inbox: VecDeque::new(),
            frozen: false,
            ticked: 0,
            stopping: false,
            last: false,
            done: false,
            looks: BTreeMap::new(),
        }
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
    /// A process hears one answer.
    pub fn answer(&mut self, i: usize) -> Result<(), String> {
        if self.processes[i].frozen {
            return Ok(());
        }
        let Some(answer) = self.processes[i].inbox.pop_front() else {
            return Ok(());
        };
        let input = match answer {
            News::Answer(answer) => Input::Answer(answer),
            News::Paused(paused) => Input::Paused(paused),
        };
        self.feed(i, input)
    }

    /// Carries out what an engine asks for, or sends it on its way. Returns its word to end.
    pub fn perform(&mut self, i: usize, effects: Vec<Effect>) -> Option<Option<Trouble>> {
        let (id, topic) = (self.processes[i].id, self.topics.len() - 1);
        let mut exit = None;
        for effect in effects {
            let process = &mut self.processes[i];
            match effect {
                Effect::Start {
                    partition,
                    offset,
                    leader_epoch,
                } => {
                    let lane = process.engine.lanes().get(&partition);
                    self.summary.replays += u64::from(lane.is_some_and(|lane| lane.replaying()));
                    let late = self.mistake == Some(Mistake::StartsLate) && offset > 0;
                    let reader = Reader {
                        pos: offset + Offset::from(late),
                        leader_epoch,
                        topic,
                        held: false,
                        told_end: false,
                        halted: false,
                    };
                    process.readers.insert(partition, reader);
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
                Effect::UseWarehouse(_) | Effect::CommitGroup(_) | Effect::Report(_) => {}
                Effect::Exit(reason) => exit = Some(reason),
                Effect::Ask(request) => self.requests.push((id, request)),
            }
        }
        exit
    }

    /// Hands over what comes next to one of a process's readers, at the end to all of them.
    pub fn deliver(&mut self, i: usize) -> Result<(), String> {
        let process = &self.processes[i];
        if process.frozen || process.readers.is_empty() || self.now < self.kafka_down_until {
            return Ok(());
        }
        let id = process.id;
        if self.now - process.ticked > 1000 {
            self.tick(i)?;
        }
        if self.processes.get(i).is_none_or(|process| process.id != id) {
            return Ok(());
        }
        let all: Vec<Partition> = self.processes[i].readers.keys().copied().collect();
        if all.is_empty() {
            return Ok(());
        }
        let all = if self.fault == 0 && self.requests.is_empty() {
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
                self.read(i, p)?;
            }
        }
        Ok(())
    }

    fn read(&mut self, i: usize, p: Partition) -> Result<(), String> {
        let topic = self.topics.len() - 1;
        let Some(log) = self.topics[topic].logs.get(&p) else {
            return Ok(());
        };
        let process = &mut self.processes[i];
        let Some(reader) = process.readers.get_mut(&p).filter(|r| !r.held && !r.halted) else {
            return Ok(());
        };
        let checked = reader.topic == topic && reader.leader_epoch >= 0 && reader.pos > 0;
        let kept = log
            .epoch_end(reader.leader_epoch)
            .is_some_and(|end| reader.pos <= end);
        if checked && !kept && self.mistake != Some(Mistake::CutUnsaid) {
            reader.halted = true;
            let why = format!(
                "topic partition {p} was cut off below offset {}",
                reader.pos
            );
            return self.feed(i, Input::Truncated { partition: p, why });
        }
        if self.mistake == Some(Mistake::ExpiredUnsaid) {
            reader.pos = reader.pos.max(log.start);
        }
        if reader.pos < log.start || reader.pos > log.visible {
            reader.halted = true;
            return self.feed(i, Input::OutOfRange { partition: p });
        }
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
        let Some(last) = records.last().map(|r| r.offset) else {
            if reader.told_end && !self.rng.one_in(4) {
                return Ok(());
            }
            reader.told_end = true;
            if log.visible > reader.pos {
                reader.leader_epoch = log.epoch_of(log.visible - 1);
            }
            reader.pos = log.visible;
            let offset = log.visible;
            return self.feed(
                i,
                Input::End {
                    partition: p,
                    offset,
                },
            );
        };
        reader.told_end = false;
        reader.pos = last + 1;
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
        let mut out = Vec::new();
        let batch: &dyn Batch = &Held(&records);
        self.processes[i].engine.step(
            Input::Records {
                partition: p,
                leader_epoch,
                batch,
            },
            &mut out,
        );
        let exit = self.perform(i, out);
        if exit.is_some() {
            return Err(format!("records made it end: {exit:?}"));
        }
        self.records_of_now_are_counted(i, p)
    }

    /// The ceiling is never below what the right time is, but for what the database's clock is off.
    fn records_of_now_are_counted(&mut self, i: usize, p: Partition) -> Result<(), String> {
        let process = &self.processes[i];
        let Some(lane) = process.engine.lanes().get(&p) else {
            return Ok(());
        };
        if process.stopping || lane.replaying() || lane.decisions.is_empty() {
            return Ok(());
        }
        let now = BASE + 60_000 + self.now as i64;
        let least = now - CLOCK_OFF_MS + process.settings.max_future_ms / 8 * 7 - 1000;
        let ceiling = lane.state().ceiling;
        if ceiling < least {
            return Err(format!(
                "at {now} the ceiling of topic partition {p} is {ceiling}"
            ));
        }
        Ok(())
    }
}

/// What a reader must never do.
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
