//! Golden texts: each file in `golden/` tells an engine what happens, line by line. What the engine
//! does about it is shown in indented lines.
//!
//! Settings stand above `---`; with `checkpoints: few` beside them, only the first epoch has a
//! checkpoint, as where there are many keys. With `upkeep: shown`, it is shown what becomes of
//! files, and `retain: 1d` drops days. Each line below it is one of these:
//!
//! | line | means |
//! |---|---|
//! | `in clicks/0 12:00:03 a` | a record comes; its origin is `a` |
//! | `in clicks/0 - {"n": 1}` | a record without a timestamp, whose value is JSON; or `tombstone` |
//! | `gap clicks/0 2` | two offsets are never shown, as of an aborted transaction |
//! | `end clicks/0` | the reader has nothing more |
//! | `transaction clicks/0 2` | a transaction with two records is open at the log's end |
//! | `trouble clicks/0 why` | it cannot be read; with `-`, no broker can be reached |
//! | `wait 30s` | time goes by |
//! | `add clicks/1` | the topic gets another partition |
//! | `expire clicks/0 5` | the log begins at offset 5 now |
//! | `damage` | the object of the newest checkpoint is not what it was |
//! | `lose 2` | the object of the second live file is gone |
//! | `recreate` | the topic is deleted and made again, empty |
//! | `restart` | the process is killed and started again; a setting may follow |
//! | `clock database -2d` | the database's clock is so far off from now on; or `machine` |
//! | `sleep 2h` | the machine sleeps: its monotonic time stands still meanwhile |
//! | `forget 2` | the catalog loses its last two epochs, as after a failover or from a backup |
//! | `state` | it is shown what the status says |
//! | `stop` | the process is asked to end |
//! | `watermarks`, `ledger` | these are shown |
//!
//! `WINDROW_WRITE=1 cargo test --test it golden` writes the answers into the files, so that
//! `git diff` shows what has changed.
#![expect(
    clippy::disallowed_methods,
    reason = "the person at the keyboard sets WINDROW_WRITE"
)]

use crate::hands::{self, Client, Objects, Readers};
use crate::store::Catalog;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use windrow::run::clients::engine_settings;
use windrow_core::engine::{
    Answer, BrokersAnswer, CatalogRequest, Effect, Engine, Input, Request, State, StoreRequest,
    TopicFacts,
};
use windrow_core::settings::config::Config;
use windrow_core::table::commit::{CheckpointAt, Commit, FileKind};
use windrow_core::table::file::read_rows;
use windrow_core::table::listing::Value;
use windrow_core::table::place::Names;
use windrow_core::values::cause::name_or_empty;
use windrow_core::values::decision::{Decided, Decision};
use windrow_core::values::record::{Offset, Partition, Record};
use windrow_core::values::time::{
    DbTime, EventTime, Mono, WallTime, format_duration_ms, parse_duration_ms,
};

#[test]
fn golden_texts_are_answered_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/golden");
    let write = std::env::var("WINDROW_WRITE").is_ok_and(|w| w == "1");
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

/// One topic partition's log.
#[derive(Default)]
struct Log {
    start: Offset,
    end: Offset,
    records: BTreeMap<Offset, (i64, Option<Vec<u8>>)>,
    /// Offsets past the end that belong to an open transaction.
    open: Offset,
}

struct Play<'t> {
    settings: BTreeMap<&'t str, String>,
    engine: Engine,
    /// Milliseconds since noon, by the right time.
    now: u64,
    /// How long the machine has slept.
    slept: u64,
    /// How far the database's clock is off, in milliseconds, and the machine's.
    database_off: i64,
    machine_off: i64,
    logs: BTreeMap<Partition, Log>,
    readers: Readers,
    /// The topic partitions that cannot be read until they are started again.
    troubled: BTreeSet<Partition>,
    topic_id: usize,
    catalog: Catalog,
    objects: Objects,
    /// When files were replaced last, where the table partitions that this has emptied are still
    /// there.
    emptied_at: Option<u64>,
    /// Effects that are not performed yet.
    todo: VecDeque<Effect>,
    /// The text with the answers so far.
    said: String,
}

fn engine(settings: &BTreeMap<&str, String>) -> Engine {
    let few = settings.contains_key("checkpoints");
    let retain = settings.get("retain").map(|text| parse_duration_ms(text));
    let ours = ["checkpoints", "upkeep", "retain"];
    let yaml = settings.iter().filter(|(name, _)| !ours.contains(name));
    let yaml = yaml.fold(String::new(), |yaml, (name, value)| {
        yaml + name + ": " + value + "\n"
    });
    let mut settings =
        engine_settings(&Config::parse(&yaml).unwrap_or_else(|e| panic!("{e}\nin\n{yaml}")));
    // So that each answer stands below what it answers.
    settings.commit_interval_ms = 0;
    settings.retain_ms = retain.map(|ms| ms.expect("a duration"));
    if few {
        settings.limits.checkpoint_keys_small = 0;
        settings.limits.checkpoint_inline_bytes = 0;
    }
    Engine::new(settings)
}

impl<'t> Play<'t> {
    fn new(settings: BTreeMap<&'t str, String>, partitions: Partition) -> Self {
        Self {
            engine: engine(&settings),
            settings,
            now: 0,
            slept: 0,
            database_off: 0,
            machine_off: 0,
            logs: (0..partitions).map(|p| (p, Log::default())).collect(),
            readers: Readers::default(),
            troubled: BTreeSet::new(),
            topic_id: 1,
            catalog: Catalog::default(),
            objects: Objects::new(),
            emptied_at: None,
            todo: VecDeque::new(),
            said: String::new(),
        }
    }

    fn start(&mut self) {
        self.step(self.tick());
    }

    fn tick(&self) -> Input<'static> {
        Input::Tick {
            now: Mono(self.now - self.slept),
            wall: WallTime(NOON + self.now as i64 + self.machine_off),
        }
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
                let value = value_bytes(value);
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
            "transaction" => {
                let p = partition(word());
                self.logs.get_mut(&p).expect("a topic partition").open = offset(word());
            }
            "trouble" => {
                let (whose, first) = (word(), word());
                let rest = words
                    .next()
                    .map_or_else(String::new, |rest| format!(" {rest}"));
                self.trouble(whose, format!("{first}{rest}"));
            }
            "wait" => self.wait(parse_duration_ms(word()).expect("a duration")),
            "add" => {
                self.logs.insert(partition(word()), Log::default());
            }
            "expire" => {
                let (p, to) = (partition(word()), offset(word()));
                self.expire(p, to);
            }
            "damage" => self.damage(),
            "lose" => self.lose(offset(word()) as usize),
            "recreate" => {
                self.topic_id += 1;
                self.logs.values_mut().for_each(|log| *log = Log::default());
            }
            "clock" => {
                let (whose, off) = (word(), word());
                self.set_clock(whose, off);
            }
            "sleep" => {
                let ms = parse_duration_ms(word()).expect("a duration");
                (self.now, self.slept) = (self.now + ms, self.slept + ms);
                self.step(self.tick());
            }
            "forget" => self.forget(offset(word())),
            "restart" => self.restart(line),
            "stop" => self.step(Input::Shutdown),
            "watermarks" => self.show_watermarks(),
            "ledger" => self.show_ledger(),
            "state" => self.show_state(),
            _ => panic!("no such line: {line}"),
        }
    }

    /// The object of the `nth` file that readers see is gone, counted from 1.
    fn lose(&mut self, nth: usize) {
        let live = self.catalog.live_files();
        let gone = self.objects.remove(&live[nth - 1].file.key);
        gone.expect("it was stored");
    }

    fn wait(&mut self, ms: u64) {
        let until = self.now + ms;
        while self.now < until {
            self.now = until.min(self.now + 100);
            self.step(self.tick());
        }
    }

    fn expire(&mut self, p: Partition, to: Offset) {
        let log = self.logs.get_mut(&p).expect("a topic partition");
        (log.start, log.end) = (to, log.end.max(to));
        log.records.retain(|offset, _| *offset >= to);
        self.deliver(p);
    }

    /// The object of the newest checkpoint is not what was stored.
    fn damage(&mut self) {
        let newest = self.catalog.checkpoints().newest.expect("a checkpoint").1;
        let CheckpointAt::Object(key) = newest else {
            panic!("it lies in the catalog")
        };
        let bytes = self.objects.get_mut(&key).expect("it was stored");
        *bytes = Arc::new(bytes[1..].to_vec());
    }

    /// Something cannot be read. A topic partition gives nothing more until it is started again.
    fn trouble(&mut self, whose: &str, why: String) {
        let p = (whose != "-").then(|| partition(whose));
        if let Some(reader) = p.and_then(|p| self.readers.0.get_mut(&p)) {
            reader.halted = true;
        }
        self.troubled.extend(p);
        self.step(Input::Trouble {
            partition: p,
            trouble: why.into(),
        });
    }

    fn set_clock(&mut self, whose: &str, text: &str) {
        let ms = parse_duration_ms(text.trim_start_matches('-')).expect("a duration") as i64;
        *match whose {
            "database" => &mut self.database_off,
            "machine" => &mut self.machine_off,
            other => panic!("database or machine, not {other}"),
        } = if text.starts_with('-') { -ms } else { ms };
    }

    fn forget(&mut self, epochs: i64) {
        let left = self.catalog.epochs.len() - epochs as usize;
        self.catalog.epochs.truncate(left);
    }

    /// `restart`, or `restart <setting>: <value>`.
    fn restart(&mut self, line: &'t str) {
        if let Some((name, value)) = line
            .strip_prefix("restart ")
            .and_then(|s| s.split_once(": "))
        {
            self.settings.insert(name, value.to_owned());
        }
        self.engine = engine(&self.settings);
        self.readers = Readers::default();
        self.start();
    }

    fn show_state(&mut self) {
        let text = match self.engine.state() {
            State::Counting => "counting".to_owned(),
            State::Paused => "paused".to_owned(),
            State::Waiting(why) | State::Standby(why) | State::Failed(why) => {
                format!("{}: {why}", name_or_empty(why.cause))
            }
        };
        let _ = writeln!(self.said, "  {text}");
    }

    fn show_watermarks(&mut self) {
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

    fn show_ledger(&mut self) {
        let l = self.engine.ledger();
        let _ = writeln!(
            self.said,
            "  offsets {} = counted {} + late {} + rejected {} + tombstones {} + gaps {} \
             + lost {}\n  \
             hits {} = in rows {} + open {} + closed {} + late hits {} + lost hits {}",
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
            l.late_hits,
            l.lost_hits
        );
    }

    /// Hands a topic partition's records over, one by one, while its reader is there and not held.
    fn deliver(&mut self, p: Partition) {
        while let Some(reader) = self.readers.0.get_mut(&p)
            && !reader.held
            && !reader.halted
        {
            let log = &self.logs[&p];
            if reader.next_offset < log.start {
                reader.halted = true;
                return self.step(Input::OutOfRange { partition: p });
            }
            let Some((offset, (time, value))) = log.records.range(reader.next_offset..).next()
            else {
                return;
            };
            reader.next_offset = offset + 1;
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
        if let Effect::Start {
            partition, offset, ..
        } = &effect
            && self.troubled.remove(partition)
        {
            let _ = writeln!(self.said, "  clicks/{partition} again from {offset}");
        }
        self.readers.perform(&effect, self.topic_id);
        match effect {
            Effect::Ask(request) => {
                if self.settings.contains_key("upkeep") {
                    self.show_upkeep(&request);
                }
                if let Request::Catalog(CatalogRequest::Commit { commit, .. }) = &request
                    && commit.retired.is_empty()
                {
                    let key = Names::new("default", "t").term_and_epoch(&commit.manifest);
                    if key.is_some_and(|(term, _)| term != commit.owner.term) {
                        let _ = writeln!(self.said, "  epoch {} from the store", commit.epoch);
                    }
                    self.show_epoch(commit);
                }
                if let Some(answer) = self.answer(request) {
                    self.step(Input::Answer(answer));
                }
            }
            Effect::Start { partition, .. } => self.deliver(partition),
            Effect::Hold { partition } => {
                let _ = writeln!(self.said, "  hold clicks/{partition}");
            }
            Effect::Unhold { partition } => {
                let _ = writeln!(self.said, "  unhold clicks/{partition}");
                self.deliver(partition);
            }
            Effect::ReportLeftOut { key, trouble } => {
                let _ = writeln!(self.said, "  left out: {}: {trouble}", short_key(&key));
            }
            Effect::ReportLostEpochs { first, last, why } => {
                let _ = writeln!(self.said, "  lost epochs {first} to {last}: {why}");
            }
            Effect::Exit(None) => self.said += "  exit\n",
            Effect::Exit(Some(reason)) => {
                let _ = writeln!(self.said, "  exit: {reason}");
            }
            Effect::StopAll
            | Effect::UseWarehouse(_)
            | Effect::CommitGroup(_)
            | Effect::ReportForeignKeys(_)
            | Effect::Report(_) => {}
        }
    }

    /// Every request is answered at once.
    fn answer(&mut self, request: Request) -> Option<Answer> {
        let now = DbTime(NOON + self.now as i64 + self.database_off);
        // A process that is started again takes the table back without waiting for its lease.
        let client = Client {
            owner_id: "0".to_owned(),
            lease_ms: 15_000,
            mistake: None,
        };
        Some(match request {
            Request::Catalog(request) => {
                let (catalog, objects) = (&mut self.catalog, &self.objects);
                Answer::Catalog(hands::ask_catalog(catalog, objects, &client, now, request)?)
            }
            Request::Brokers(request) => {
                let limits = self.logs.iter().map(|(p, log)| (*p, (log.start, log.end)));
                let topic = TopicFacts {
                    cluster_id: "c".to_owned(),
                    unknown: BTreeMap::new(),
                    topic_id: self.topic_id.to_string(),
                    partitions: limits.collect(),
                };
                let mut answer = hands::ask_brokers(&topic, &request);
                if let BrokersAnswer::LogEnd {
                    partition,
                    end: Ok(end),
                } = &mut answer
                {
                    end.high_watermark += self.logs[partition].open;
                }
                Answer::Brokers(answer)
            }
            Request::Store(request) => Answer::Store(hands::ask_store(&mut self.objects, request)),
        })
    }

    /// Writes what is asked for the sake of files.
    fn show_upkeep(&mut self, request: &Request) {
        let line = match request {
            Request::Catalog(CatalogRequest::LiveFiles) => "which files are live?".to_owned(),
            Request::Store(StoreRequest::Merge(order)) => format!(
                "merge {} files to {}",
                order.sources.len(),
                short_key(&order.keys[0])
            ),
            Request::Catalog(CatalogRequest::Commit { commit, .. })
                if !commit.retired.is_empty() =>
            {
                self.emptied_at = Some(self.now);
                let (epoch, new, old) = (commit.epoch, commit.files.len(), commit.retired.len());
                format!("epoch {epoch}: {new} for {old} files")
            }
            Request::Catalog(CatalogRequest::DropEmptied { emptied_ms, .. })
                if self
                    .emptied_at
                    .is_some_and(|at| self.now >= at + emptied_ms) =>
            {
                self.emptied_at = None;
                let after = format_duration_ms(*emptied_ms);
                format!("delete the table partitions that were emptied {after} ago")
            }
            _ => return,
        };
        let _ = writeln!(self.said, "  {line}");
    }

    /// Writes what an epoch shows. Ceilings are left out, and so is the first delay, because every
    /// text would have them.
    fn show_epoch(&mut self, commit: &Commit) {
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
                Decided::CountsLost {
                    to, floor, ledger, ..
                } => {
                    let floor = floor.map_or("-".to_owned(), short);
                    let hits = ledger.lost_hits;
                    format!("counts lost to {to}: lost hits {hits}, floor {floor}")
                }
                Decided::Lost { to, reason } => format!("lost to {to}: {reason}"),
                Decided::Generation { to, reason, .. } => format!("generation from {to}: {reason}"),
                Decided::Adopted { .. } => unreachable!("no golden text adopts a table"),
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

/// The folder of a file, without the hash that the bytes or the sources give:
/// `rows/2024-09-01/1-hour12`.
fn short_key(key: &str) -> &str {
    let name = key.trim_start_matches("_windrow/default.t/");
    let folder = name.trim_end_matches("/part.parquet");
    folder
        .rsplit_once('-')
        .map_or(folder, |(folder, _hash)| folder)
}

/// The bytes of a record's value; `None` for a tombstone.
fn value_bytes(value: &str) -> Option<Vec<u8>> {
    match value {
        "tombstone" => None,
        origin if origin.bytes().all(|b| b.is_ascii_alphanumeric()) => {
            Some(format!("{{\"origin\": \"{origin}\"}}").into_bytes())
        }
        json => Some(json.as_bytes().to_vec()),
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
