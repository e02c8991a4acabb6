//! Golden texts: each file in `golden/` tells an engine what happens, line by line, and shows indented what it answers.
//!
//! Rules stand above `---`. Then a line is one of
//! `in clicks/0 12:00:03 a` (a record with the origin `a`; else its value: JSON, or `tombstone`; `-` is no timestamp),
//! `gap clicks/0 2` (offsets that are never shown), `end clicks/0` (the reader has nothing more), `wait 30s`,
//! `add clicks/1`, `expire clicks/0 5` (the log begins there now), `recreate` (the topic is made again, empty),
//! `restart` (killed, and started again; a setting may follow), `stop`, `watermarks`, `ledger`.
//!
//! `WINDROW_GOLDEN=write cargo test --test it golden` writes what is answered into the files, for `git diff` to judge.
#![expect(
    clippy::disallowed_methods,
    reason = "WINDROW_GOLDEN is for the person at the keyboard"
)]

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use windrow::run::clients::engine_settings;
use windrow_core::engine::{
    BrokersAnswer, BrokersRequest, CatalogAnswer, CatalogRequest, Effect, Engine, Input, LogEnd,
    Request, StoreAnswer, StoreRequest, TopicFacts,
};
use windrow_core::settings::config::Config;
use windrow_core::table::commit::{Acquired, Commit, FileKind, Head, Owner};
use windrow_core::table::file::read_rows;
use windrow_core::table::listing::Value;
use windrow_core::values::decision::{Decided, Decision};
use windrow_core::values::record::{Offset, Partition, Record};
use windrow_core::values::time::{DbTime, EventTime, Mono, format_duration_ms, parse_duration_ms};

#[test]
fn golden_texts_are_answered_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/golden");
    let write = std::env::var("WINDROW_GOLDEN").is_ok_and(|w| w == "write");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("it is there")
        .map(|f| f.expect("readable").path())
        .collect();
    files.sort();
    assert!(files.len() > 20, "the golden texts are not there");
    let mut differ = String::new();
    for file in &files {
        let text = std::fs::read_to_string(file).expect("UTF-8");
        let answered = play(&text);
        if write {
            std::fs::write(file, answered).expect("writable");
        } else if answered != text {
            let line = answered
                .lines()
                .zip(text.lines())
                .position(|(a, b)| a != b)
                .unwrap_or(0)
                + 1;
            let _ = writeln!(
                differ,
                "{}:{line}: the answer is now\n{answered}",
                file.display()
            );
        }
    }
    assert!(differ.is_empty(), "{differ}");
}

/// The text with the answers that come now.
fn play(text: &str) -> String {
    let (head, script) = text.split_once("---\n").expect("settings, then ---");
    let mut settings = BTreeMap::from([
        (
            "kafka",
            "{ bootstrap: 'k:9092', topic: clicks, security: plaintext }".to_owned(),
        ),
        ("table", "{ name: t }".to_owned()),
        ("catalog", "'local:/t'".to_owned()),
    ]);
    let mut partitions = 1;
    for line in head.lines().filter(|l| !l.starts_with('#')) {
        match line.split_once(": ").expect("setting: value") {
            ("partitions", n) => partitions = n.parse().expect("a number"),
            (name, value) => {
                settings.insert(name, value.to_owned());
            }
        }
    }
    let mut play = Play::new(settings, partitions);
    play.said = format!("{head}---\n");
    play.start();
    for line in script.lines().filter(|l| !l.starts_with("  ")) {
        play.said += line;
        play.said.push('\n');
        if !line.starts_with('#') && !line.is_empty() {
            play.line(line);
        }
    }
    play.said
}

/// 2024-09-01T12:00:00Z: the database's clock when a text begins.
const NOON: i64 = 1_725_192_000_000;

#[derive(Default)]
struct Log {
    start: Offset,
    end: Offset,
    records: BTreeMap<Offset, (i64, Option<Vec<u8>>)>,
    /// The reader's next offset while it reads, and whether it is held.
    reader: Option<(Offset, bool)>,
}

struct Play<'t> {
    settings: BTreeMap<&'t str, String>,
    engine: Engine,
    now: u64,
    logs: BTreeMap<Partition, Log>,
    topic_id: u32,
    owners: u64,
    epochs: Vec<Commit>,
    objects: BTreeMap<String, Arc<Vec<u8>>>,
    /// Effects not yet carried out.
    todo: VecDeque<Effect>,
    said: String,
}

fn engine(settings: &BTreeMap<&str, String>) -> Engine {
    let yaml = settings.iter().fold(String::new(), |yaml, (name, value)| {
        yaml + name + ": " + value + "\n"
    });
    let mut settings =
        engine_settings(&Config::parse(&yaml).unwrap_or_else(|e| panic!("{e}\nin\n{yaml}")));
    // So that each answer stands below what it answers.
    settings.commit_interval_ms = 0;
    Engine::new(settings)
}

impl<'t> Play<'t> {
    fn new(settings: BTreeMap<&'t str, String>, partitions: Partition) -> Self {
        Self {
            engine: engine(&settings),
            settings,
            now: 0,
            logs: (0..partitions).map(|p| (p, Log::default())).collect(),
            topic_id: 1,
            owners: 0,
            epochs: Vec::new(),
            objects: BTreeMap::new(),
            todo: VecDeque::new(),
            said: String::new(),
        }
    }

    fn start(&mut self) {
        self.step(Input::Tick {
            now: Mono(self.now),
        });
    }

    fn line(&mut self, line: &'t str) {
        let mut words = line.splitn(4, ' ');
        let verb = words.next().expect("a word");
        let mut word = || {
            words
                .next()
                .unwrap_or_else(|| panic!("a word is missing: {line}"))
        };
        match verb {
            "in" => {
                let (p, time, value) = (partition(word()), word(), word());
                let value = match value {
                    "tombstone" => None,
                    origin if origin.bytes().all(|b| b.is_ascii_alphanumeric()) => {
                        Some(format!("{{\"origin\": \"{origin}\"}}").into_bytes())
                    }
                    json => Some(json.as_bytes().to_vec()),
                };
                let log = self.logs.get_mut(&p).expect("a topic partition");
                log.records.insert(log.end, (time_ms(time), value));
                log.end += 1;
                self.deliver(p);
            }
            "gap" => {
                let p = partition(word());
                self.logs.get_mut(&p).expect("a topic partition").end += offset(word());
            }
            "end" => {
                let p = partition(word());
                let offset = self.logs[&p].end;
                self.step(Input::End {
                    partition: p,
                    offset,
                });
            }
            "wait" => {
                let until = self.now + parse_duration_ms(word()).expect("a duration");
                while self.now < until {
                    self.now = until.min(self.now + 100);
                    self.step(Input::Tick {
                        now: Mono(self.now),
                    });
                }
            }
            "add" => {
                self.logs.insert(partition(word()), Log::default());
            }
            "expire" => {
                let (p, to) = (partition(word()), offset(word()));
                let log = self.logs.get_mut(&p).expect("a topic partition");
                (log.start, log.end) = (to, log.end.max(to));
                log.records.retain(|offset, _| *offset >= to);
                self.deliver(p);
            }
            "recreate" => {
                self.topic_id += 1;
                self.logs.values_mut().for_each(|log| {
                    *log = Log {
                        reader: log.reader,
                        ..Log::default()
                    }
                });
            }
            "restart" => {
                if let Some((name, value)) = line
                    .strip_prefix("restart ")
                    .and_then(|s| s.split_once(": "))
                {
                    self.settings.insert(name, value.to_owned());
                }
                self.engine = engine(&self.settings);
                self.logs.values_mut().for_each(|log| log.reader = None);
                self.start();
            }
            "stop" => self.step(Input::Shutdown),
            "watermarks" => {
                let text = |w: Option<EventTime>| w.map_or("-".to_owned(), short);
                let lanes = self
                    .engine
                    .lanes()
                    .values()
                    .map(|lane| text(lane.watermark()));
                let lanes = lanes.collect::<Vec<_>>().join(" ");
                let _ = writeln!(
                    self.said,
                    "  watermarks {lanes}, frontier {}",
                    text(self.engine.frontier())
                );
            }
            "ledger" => {
                let l = self.engine.ledger();
                let _ = writeln!(
                    self.said,
                    "  offsets {} = counted {} + late {} + rejected {} + tombstones {} + gaps {} + lost {}\n  \
                     hits {} = in rows {} + open {} + closed {} + late hits {}",
                    l.consumed,
                    l.counted,
                    l.late,
                    l.rejected,
                    l.tombstones,
                    l.gaps,
                    l.lost,
                    l.hits,
                    l.row_count,
                    l.open,
                    l.closed,
                    l.late_hits
                );
            }
            _ => panic!("no such line: {line}"),
        }
    }

    /// Hands a topic partition's records over, one by one, where somebody reads it.
    fn deliver(&mut self, p: Partition) {
        while let Some((pos, false)) = self.logs[&p].reader {
            let log = self.logs.get_mut(&p).expect("a topic partition");
            if pos < log.start {
                log.reader = None;
                return self.step(Input::OutOfRange { partition: p });
            }
            let Some((offset, (time, value))) = log.records.range(pos..).next() else {
                return;
            };
            log.reader = Some((offset + 1, false));
            let (time, value) = (*time, value.clone());
            let record = Record {
                offset: *offset,
                timestamp_ms: time,
                value: value.as_deref(),
            };
            self.step(Input::Records {
                partition: p,
                leader_epoch: 0,
                batch: &&[record][..],
            });
        }
    }

    fn step<'a>(&mut self, input: impl Into<Input<'a>>) {
        let mut out = Vec::new();
        self.engine.step(input.into(), &mut out);
        let outermost = self.todo.is_empty();
        self.todo.extend(out);
        while let (true, Some(effect)) = (outermost, self.todo.front().cloned()) {
            self.perform(effect);
            self.todo.pop_front();
        }
    }

    fn perform(&mut self, effect: Effect) {
        let db_now = DbTime(NOON + self.now as i64);
        match effect {
            Effect::Ask(Request::Catalog(CatalogRequest::Acquire)) => {
                self.owners += 1;
                let owner = Owner {
                    term: self.owners,
                    owner_id: self.owners.to_string(),
                };
                let head = self.head(db_now).map(Box::new);
                self.step(CatalogAnswer::Acquire(Ok(Acquired::Ours {
                    owner,
                    lease_ms: 15_000,
                    now: db_now,
                    head,
                })));
            }
            Effect::Ask(Request::Catalog(CatalogRequest::Renew { .. })) => {
                self.step(CatalogAnswer::Renew(Ok((db_now, false))))
            }
            Effect::Ask(Request::Brokers(BrokersRequest::Topic)) => {
                let facts = TopicFacts {
                    cluster_id: "c".to_owned(),
                    topic_id: self.topic_id.to_string(),
                    partitions: self
                        .logs
                        .iter()
                        .map(|(p, log)| (*p, (log.start, log.end)))
                        .collect(),
                };
                self.step(BrokersAnswer::Topic(Ok(facts)));
            }
            Effect::Ask(Request::Brokers(BrokersRequest::TopicId)) => {
                self.step(BrokersAnswer::TopicId(Ok(self.topic_id.to_string())))
            }
            Effect::Ask(Request::Store(StoreRequest::List { prefix })) => {
                let keys = self
                    .objects
                    .keys()
                    .filter(|k| k.starts_with(&prefix))
                    .cloned()
                    .collect();
                self.step(StoreAnswer::List {
                    prefix,
                    result: Ok(keys),
                });
            }
            Effect::Ask(Request::Store(StoreRequest::Get { key })) => {
                let bytes = self.objects[&key].to_vec();
                self.step(StoreAnswer::Get {
                    key,
                    result: Ok(Some(bytes)),
                });
            }
            Effect::Start {
                partition, offset, ..
            } => {
                self.logs
                    .get_mut(&partition)
                    .expect("a topic partition")
                    .reader = Some((offset, false));
                self.deliver(partition);
            }
            Effect::StopAll => self.logs.values_mut().for_each(|log| log.reader = None),
            Effect::Hold { partition } => {
                let _ = writeln!(self.said, "  hold clicks/{partition}");
                self.hold(partition, true);
            }
            Effect::Unhold { partition } => {
                let _ = writeln!(self.said, "  unhold clicks/{partition}");
                self.hold(partition, false);
                self.deliver(partition);
            }
            Effect::Ask(Request::Brokers(BrokersRequest::LogEnd { partition })) => {
                let end = self.logs[&partition].end;
                let end = Ok(LogEnd {
                    last_stable: end,
                    high_watermark: end,
                });
                self.step(BrokersAnswer::LogEnd { partition, end });
            }
            Effect::Ask(Request::Brokers(BrokersRequest::LogLimits { partition })) => {
                let log = &self.logs[&partition];
                let limits = Ok((log.start, log.end));
                self.step(BrokersAnswer::LogLimits { partition, limits });
            }
            Effect::Ask(Request::Store(StoreRequest::Put { key, bytes })) => {
                self.objects.insert(key.clone(), bytes);
                self.step(StoreAnswer::Put {
                    key,
                    result: Ok(()),
                });
            }
            Effect::Ask(Request::Catalog(CatalogRequest::Commit(commit))) => {
                let epoch = commit.epoch;
                assert_eq!(epoch, self.epochs.len() as u64, "epochs go by ones");
                self.tell(&commit);
                self.epochs.push((*commit).clone());
                self.step(CatalogAnswer::Commit {
                    epoch,
                    result: Ok(db_now),
                });
            }
            Effect::Ask(Request::Catalog(CatalogRequest::Outcome { .. })) => {
                unreachable!("no answer to a commit is lost here")
            }
            Effect::Ask(Request::Catalog(CatalogRequest::Release { .. }))
            | Effect::CommitGroup(_)
            | Effect::Report(_) => {}
            Effect::Ask(request) => unreachable!("not asked for here: {request:?}"),
            Effect::UseWarehouse(_) => {}
            Effect::Exit(None) => self.said += "  exit\n",
            Effect::Exit(Some(reason)) => {
                let _ = writeln!(self.said, "  exit: {reason}");
            }
        }
    }

    fn hold(&mut self, partition: Partition, held: bool) {
        if let Some(reader) = &mut self
            .logs
            .get_mut(&partition)
            .expect("a topic partition")
            .reader
        {
            reader.1 = held;
        }
    }

    fn head(&self, db_now: DbTime) -> Option<Head> {
        let at = self.epochs.iter().rposition(|c| c.checkpoint.is_some())?;
        Some(Head {
            genesis: self.epochs[0].genesis.clone().expect("epoch 0 has it"),
            last: self.epochs.last()?.clone(),
            committed_at: db_now,
            checkpoint: Some((at as u64, self.epochs[at].checkpoint.clone()?)),
            decisions: self.epochs[at + 1..]
                .iter()
                .flat_map(|c| c.decisions.clone())
                .collect(),
            paused: false,
        })
    }

    /// What an epoch shows, in words. Ceilings are left out, and the first delay: every text has them.
    fn tell(&mut self, commit: &Commit) {
        for Decision {
            partition,
            offset,
            what,
        } in &commit.decisions
        {
            let what = match what {
                Decided::Floor { at, reason } => format!("floor {} {reason:?}", short(*at)),
                Decided::Delay { ms } if commit.epoch > 0 => {
                    format!("delay {}", format_duration_ms(*ms as u64))
                }
                Decided::Lost { to, reason } => format!("lost to {to}: {reason}"),
                Decided::Generation { to, reason, .. } => format!("generation from {to}: {reason}"),
                Decided::Ceiling { .. } | Decided::Delay { .. } => continue,
            };
            let _ = writeln!(self.said, "  clicks/{partition}@{offset} {what}");
        }
        for file in &commit.files {
            for row in read_rows(&self.objects[&file.key], usize::MAX)
                .expect("our own file")
                .rows
            {
                let line = match (&file.kind, &row[..]) {
                    (FileKind::Rows { .. }, [Value::Window { start, end }, values @ ..]) => {
                        let values = values.iter().map(|v| format!(" {v}")).collect::<String>();
                        format!("row {} {}{values}", short(*start), short(*end))
                    }
                    (
                        FileKind::Late,
                        [
                            topic,
                            p,
                            offset,
                            Value::Time(time),
                            Value::Time(watermark),
                            key,
                            _,
                        ],
                    ) => {
                        let (time, watermark) = (short(*time), short(*watermark));
                        format!("late {topic}/{p}@{offset} {time} {key}, watermark {watermark}")
                    }
                    (FileKind::Rejects, [topic, p, offset, _, reason, _]) => {
                        format!("reject {topic}/{p}@{offset} {reason}")
                    }
                    other => panic!("a row that nobody expects: {other:?}"),
                };
                self.said += &format!("  {line}\n");
            }
        }
    }
}

fn partition(word: &str) -> Partition {
    word.strip_prefix("clicks/")
        .and_then(|p| p.parse().ok())
        .unwrap_or_else(|| panic!("not clicks/N: {word}"))
}

fn offset(word: &str) -> Offset {
    word.parse().unwrap_or_else(|_| panic!("no offset: {word}"))
}

/// `12:00:03` or `12:00:03.250` of 2024-09-01, a number of ms since 1970, or `-` for none.
fn time_ms(word: &str) -> i64 {
    if word == "-" {
        return -1;
    }
    if let Ok(ms) = word.parse() {
        return ms;
    }
    let (clock, ms) = word.split_once('.').unwrap_or((word, "0"));
    let parts: Vec<i64> = clock
        .split(':')
        .map(|n| n.parse().expect("a number"))
        .collect();
    let [h, m, s] = parts[..] else {
        panic!("not h:m:s: {word}")
    };
    NOON + ((h - 12) * 3600 + m * 60 + s) * 1000 + ms.parse::<i64>().expect("ms")
}

/// Without the day where it is the usual one.
fn short(time: EventTime) -> String {
    let text = time.to_string();
    text.strip_prefix("2024-09-01T")
        .map_or(text.clone(), |t| t.trim_end_matches('Z').to_owned())
}
