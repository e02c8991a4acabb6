//! The world around the engines: what happens when, which processes live, and what people and
//! clocks
//! do.

use crate::chain::Expected;
use crate::draw::{draw_limits, draw_shape};
use crate::faults::{CLOCK_OFF_MS, Faults};
use crate::garbage::Deletions;
use crate::hands::Objects;
use crate::judge::Judge;
use crate::process::{News, Process};
use crate::requests::Sent;
use crate::rng::Rng;
use crate::stale::OldFacts;
use crate::store::{Catalog, Mistake};
use crate::topic::{Log, Topic, Value};
use crate::upkeep::Upkeep;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use windrow_core::engine::{GarbageRules, Input, Rules, TopicFacts};
use windrow_core::table::commit::Commit;
use windrow_core::table::compaction::Times;
use windrow_core::table::file::Timestamps;
use windrow_core::table::place::TablePlace;
use windrow_core::values::cause::{Cause, Trouble};
use windrow_core::values::decision::{Decided, Decision, FloorReason};
use windrow_core::values::record::{Offset, Partition};
use windrow_core::values::shape::{Number, OnBadRecord};
use windrow_core::values::time::EventTime;

macro_rules! summary {
    ($($name:ident),* $(,)?) => {
        /// How often each thing happened: a simulation in which nothing happens finds nothing.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Summary { $(pub $name: u64),* }

        impl Summary {
            pub fn add(&mut self, other: &Self) { $(self.$name += other.$name;)* }
            pub fn all(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name)),*]
            }
        }
    };
}

summary! {
    rows, late, rejects, late_hits, epochs, null_keys,
    crashes, takeovers, lost_answers, zombie_writes, shutdowns, freezes, stalls, outages,
    replays, delays, pauses, clocks_back, clocks_far, sleeps, failovers,
    damaged, transactions, stale_answers, stale_facts,
    idle_floors, quiet_floors, joins, losses, generations, cuts,
    followed, counts_lost, rewritten, stopped_by_loss, checkpoints_harmed,
    goes_on, located, relocated, doomed, deleted, undeletable, pages,
    memory_holds, memory_full, swaps, folds, folded,
    verified,
    time_fields, decimals, nested, latest, bad_ends, full_slices, long_keys,
}

pub struct World {
    pub rng: Rng,
    /// What one of the systems does wrong on purpose.
    pub mistake: Option<Mistake>,
    /// What every process is started with, unless the settings vary.
    pub settings: Rules,
    pub faults: Faults,
    /// The time that has gone by, in milliseconds. It is the time of the engines, too.
    pub now: u64,
    /// The topic, and the ones of the same name that were deleted before it.
    pub topics: Vec<Topic>,
    pub processes: Vec<Process>,
    next_id: u64,
    pub requests: Vec<Sent>,
    /// Until when nothing arrives in the catalog of what each of these processes has sent.
    pub stalled_until: BTreeMap<u64, u64>,
    pub catalog: Catalog,
    /// The objects, by warehouse.
    pub stores: BTreeMap<String, Objects>,
    pub deletions: Deletions,
    /// What a broker that is behind knows.
    pub old_facts: OldFacts,
    /// No broker answers before this time.
    pub kafka_down_until: u64,
    /// By how much the database's clock is ahead of the right time.
    pub db_ahead: i64,
    /// The catalog as it was at these times, for failovers that lose what came after.
    pub backups: Vec<(u64, Catalog)>,
    pub summary: Summary,
    /// Where counting ended last, because a record cannot be counted (`on-bad-record: fail`), and
    /// how often it has ended so since the faults ended.
    pub bad_record: Option<(Partition, Offset)>,
    pub bad_ends: u64,
    /// What the brokers said of the topic before there was a table.
    pub topics_told: Vec<TopicFacts>,
    /// Good records go on although nothing goes wrong any more. Then every reader reads on each
    /// time.
    pub goes_on: bool,
    /// Epochs that were just reported as committed.
    pub reported: Vec<Arc<Commit>>,
    /// What is known of the upkeep of the table.
    pub upkeep: Upkeep,
    /// What the owner must commit again from the store.
    pub expected_chain: Expected,
}

/// Where Hive may keep the database. The table may only lie in bucket `spark`.
const DATABASE_LOCATIONS: [Option<&str>; 4] = [
    None,
    Some("s3a://spark/hive/default.db"),
    Some("s3a://spark/other"),
    Some("s3a://elsewhere/warehouse"),
];

fn draw_garbage(rng: &mut Rng) -> GarbageRules {
    GarbageRules {
        search_every_ms: rng.pick(&[30_000, 86_400_000, 86_400_000]),
        orphan_age_ms: rng.pick(&[20_000, 86_400_000]),
        delete_every_ms: rng.pick(&[10_000, 3_600_000, 3_600_000]),
    }
}

/// Short, so that each of them is over in a run.
const TIMES: Times = Times {
    ten_minutes_ms: 20_000,
    hour_ms: 60_000,
    settled_ms: 2000,
    emptied_ms: 20_000,
    fold_ms: 15_000,
};

impl World {
    #[expect(clippy::too_many_lines, reason = "each field has its beginning here")]
    pub fn new(seed: u64, mistake: Option<Mistake>) -> Self {
        let mut rng = Rng(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x5eed);
        let mut faults = Faults::draw(&mut rng);
        let mut settings = Rules {
            shape: draw_shape(&mut rng),
            database: "default".to_owned(),
            table: "t".to_owned(),
            place: if rng.one_in(2) {
                TablePlace::InBucket("spark".to_owned())
            } else {
                TablePlace::At("s3a://spark/warehouse".parse().expect("a place"))
            },
            timestamps: Timestamps::Micros,
            start_at_end: rng.one_in(8),
            delay_ms: rng.pick(&[0, 1000, 10_000, 15_000]),
            idle_timeout_ms: rng.pick(&[1000, 3000, 8000]),
            stalled_after_ms: 300_000,
            quiet_timeout_ms: rng.pick(&[None, None, Some(5000)]),
            max_skew_ms: rng.pick(&[20_000, 3_600_000]),
            // Most runs never come near the bound; in the others it is a matter of a few windows.
            max_memory_bytes: rng.pick(&[512 << 20, 512 << 20, 512 << 20, 6000, 10_000]),
            max_future_ms: rng.pick(&[80_000, 600_000, 600_000]),
            commit_interval_ms: rng.pick(&[0, 500, 3000]),
            continue_on_data_loss: !(faults.log_is_harmed && rng.one_in(3)),
            lease_ms: 3000,
            keep_replaced_ms: rng.pick(&[150_000, 600_000]),
            garbage: draw_garbage(&mut rng),
            compaction: TIMES,
            retain_ms: None,
            retain_side_ms: None,
            limits: draw_limits(&mut rng),
        };
        let topics = vec![Topic::draw(&mut rng, &settings.shape, 0, 0)];
        faults.draw_more(&mut rng);
        let (calm, terms_are_unique) = (faults.lost_one_in == 0, !faults.epochs_are_forgotten);
        settings.stalled_after_ms = rng.pick(&[10_000, 300_000, 300_000]);
        // Files with the older kind of times are cheaper to compress, which is most of a run.
        settings.timestamps = rng.pick(&[Timestamps::Int96, Timestamps::Int96, Timestamps::Micros]);
        if let Some(scene) = faults.scene {
            scene.set_rules(&mut rng, &mut settings);
        }
        if faults.clocks_vary {
            // Much longer than clocks may differ: what a wrong one deletes too early is seen.
            settings.keep_replaced_ms = 14_400_000;
        }
        let mut world = Self {
            mistake,
            settings,
            faults,
            now: 0,
            topics,
            processes: Vec::new(),
            next_id: 0,
            requests: Vec::new(),
            stalled_until: BTreeMap::new(),
            catalog: Catalog::default(),
            stores: BTreeMap::new(),
            deletions: Deletions::default(),
            old_facts: OldFacts::default(),
            kafka_down_until: 0,
            db_ahead: 0,
            backups: Vec::new(),
            rng,
            summary: Summary::default(),
            bad_record: None,
            bad_ends: 0,
            topics_told: Vec::new(),
            goes_on: false,
            reported: Vec::new(),
            upkeep: Upkeep::new(seed, calm, terms_are_unique),
            expected_chain: Expected::default(),
        };
        world.note_shape();
        world.move_database();
        world
    }

    /// Somebody says to Hive that the database is kept at another place.
    fn move_database(&mut self) {
        self.catalog.database_location = self.rng.pick(&DATABASE_LOCATIONS).map(str::to_owned);
    }

    pub fn topic(&self) -> &Topic {
        self.topics.last().expect("one at least")
    }

    pub fn start_process(&mut self) {
        let mut settings = self.settings.clone();
        if self.faults.settings_vary {
            settings.delay_ms = self.rng.pick(&[settings.delay_ms, 0, 5000, 20_000]);
            settings.idle_timeout_ms = self.rng.pick(&[1000, 3000, 8000]);
            settings.max_future_ms = self.rng.pick(&[settings.max_future_ms, 80_000, 300_000]);
        }
        let mut process = Process::new(self.next_id, settings);
        if self.faults.clocks_vary && self.faults.lost_one_in > 0 && self.rng.one_in(4) {
            let ahead = self.faults.draw_clock(&mut self.rng);
            process.clocks.wall_ahead = ahead;
            process.clocks.was_wrong = ahead.abs() > CLOCK_OFF_MS;
        }
        self.processes.push(process);
        self.next_id += 1;
    }

    pub fn fails(&mut self) -> bool {
        self.faults.lost_one_in > 0 && self.rng.one_in(self.faults.lost_one_in)
    }

    pub fn run(&mut self) -> Result<(), String> {
        self.start_process();
        if self.rng.one_in(2) {
            self.start_process();
        }
        // Where the table lies is only asked before there is one.
        let located = matches!(self.settings.place, TablePlace::InBucket(_));
        if !self.rng.one_in(if located { 2 } else { 5 }) {
            self.found_table()?;
        }
        let steps = 300 + self.rng.below(400);
        for _ in 0..steps {
            self.now += self.rng.pick(&[0, 1, 10, 50, 200, 500]);
            self.act()?;
            if self.processes.is_empty() {
                self.start_process();
            }
        }
        self.finish()
    }

    /// Lets time go by until there is a table. Otherwise most of what goes wrong in a short run
    /// goes wrong before there is anything to lose.
    fn found_table(&mut self) -> Result<(), String> {
        for _ in 0..100 {
            self.now += 50;
            while !self.requests.is_empty() {
                self.carry_request()?;
            }
            for i in 0..self.processes.len() {
                self.tick(i)?;
                while self.processes.get(i).is_some_and(|p| !p.inbox.is_empty()) {
                    self.receive_answer(i)?;
                }
            }
            if !self.catalog.epochs.is_empty() {
                break;
            }
        }
        Ok(())
    }

    fn act(&mut self) -> Result<(), String> {
        self.play_scene()?;
        if self.processes.is_empty() {
            return Ok(());
        }
        let i = self.rng.below(self.processes.len() as u64) as usize;
        self.let_a_broker_fall_behind();
        // What Hive says about the database counts only while there is no table.
        if self.catalog.epochs.is_empty() && self.rng.one_in(10) {
            self.move_database();
        }
        match self.rng.below(100) {
            0..25 => self.deliver(i)?,
            25..45 => self.tick(i)?,
            45..78 => {
                self.let_a_connection_stall();
                for _ in 0..=self.rng.below(3) {
                    self.carry_request()?;
                }
            }
            78..88 => self.receive_answers(i)?,
            88..93 => {
                let p = self.rng.below(self.topic().logs.len() as u64) as Partition;
                let n = self.rng.below(12) as Offset;
                let log = self
                    .topics
                    .last_mut()
                    .and_then(|t| t.logs.get_mut(&p))
                    .expect("drawn");
                if self.now >= log.open_until {
                    log.visible = (log.visible + n).min(log.end);
                    if self.faults.lost_one_in > 0 && self.rng.one_in(8) {
                        self.summary.transactions += 1;
                        log.open_until = self.now + self.rng.below(20_000);
                    }
                }
            }
            _ if self.faults.lost_one_in == 0 => {}
            93 if self.faults.epochs_are_forgotten && self.rng.one_in(2) => self.fail_over(),
            93 => self.processes[i].frozen = true,
            94 => self.processes.iter_mut().for_each(|p| p.frozen = false),
            95 if self.rng.one_in(2) => {
                // Killed by SIGKILL: its requests go on without it.
                self.summary.crashes += 1;
                self.processes.remove(i);
            }
            96 if self.processes.len() < self.faults.processes_max && self.rng.one_in(3) => {
                self.start_process()
            }
            96 | 97 | 99 => self.harm_log(),
            98 => self.people_and_clocks(i)?,
            _ => {}
        }
        Ok(())
    }

    fn people_and_clocks(&mut self, i: usize) -> Result<(), String> {
        match self.rng.below(if self.faults.clocks_vary { 8 } else { 6 }) {
            6 | 7 => self.harm_clocks(i),
            0 => {
                self.summary.shutdowns += 1;
                self.processes[i].stopping = true;
                self.feed(i, Input::Shutdown)?;
            }
            1 => {
                let paused = !self.catalog.paused && self.rng.one_in(2);
                if self.catalog.set_paused(paused).is_ok() {
                    self.summary.pauses += u64::from(paused);
                    self.processes[i].inbox.push_back(News::Paused(paused));
                }
            }
            2 => {
                self.summary.outages += 1;
                self.kafka_down_until = self.now + self.rng.below(self.faults.outage_max_ms);
            }
            3 if self.faults.clocks_vary => self.harm_clocks(i),
            3 => {
                let ahead = self.faults.draw_clock(&mut self.rng);
                self.summary.clocks_back += u64::from(ahead < self.db_ahead);
                self.db_ahead = ahead;
            }
            _ => {
                // It is stopped for longer than its lease, and so are the answers to it. The others
                // only have a busy machine.
                self.summary.freezes += 1;
                self.processes[i].frozen = true;
                self.now += self.rng.pick(&self.faults.freezes_ms);
            }
        }
        Ok(())
    }

    pub fn decisions(&self) -> impl Iterator<Item = &Decision> {
        self.catalog.epochs.iter().flat_map(|(c, _)| &c.decisions)
    }

    pub fn tick(&mut self, i: usize) -> Result<(), String> {
        if self.processes[i].frozen {
            return Ok(());
        }
        let before: BTreeMap<Partition, Option<EventTime>> = self.processes[i]
            .engine
            .lanes()
            .iter()
            .map(|(p, lane)| (*p, lane.watermark()))
            .collect();
        let id = self.processes[i].id;
        self.processes[i].ticked = self.now;
        self.processes[i].clocks.set_since_tick = false;
        let tick = self.tick_of(i);
        self.feed(i, tick)?;
        if self.processes.get(i).is_some_and(|p| p.id == id) {
            self.idle_floors_are_right(i, &before)?;
            self.counting_is_true(i)?;
        }
        Ok(())
    }

    /// One input to one process; what it asks for is on its way then. A process that ends is gone.
    pub fn feed(&mut self, i: usize, input: Input<'_>) -> Result<(), String> {
        let mut out = Vec::new();
        self.processes[i].engine.step(input, &mut out);
        self.processes[i].note_reached();
        let exit = self.perform(i, out);
        self.reports_are_true()?;
        match exit {
            Some(exit) => self.ended(i, exit),
            None => Ok(()),
        }
    }

    /// What an engine reports as committed is in the catalog, and with these contents. (A failover
    /// may have lost it since.)
    pub fn reports_are_true(&mut self) -> Result<(), String> {
        if let Some(wrong) = self.upkeep.wrong.take() {
            return Err(wrong);
        }
        for told in std::mem::take(&mut self.reported) {
            let there = self.catalog.epochs.get(told.epoch as usize);
            let same = there.is_some_and(|(commit, _)| commit.digest == told.digest);
            if !same && !self.faults.epochs_are_forgotten {
                return Err(format!(
                    "epoch {} of {:?} is reported as committed, but another one is there",
                    told.epoch, told.owner
                ));
            }
        }
        Ok(())
    }

    /// The engine of a process has ended. Where data loss stopped it, somebody sets `on-data-loss`.
    pub fn ended(&mut self, i: usize, exit: Option<Trouble>) -> Result<(), String> {
        let process = &mut self.processes[i];
        match exit {
            None if process.last => {
                process.done = true;
                return Ok(());
            }
            None if process.stopping => {}
            Some(Trouble {
                cause: Some(Cause::BadRecord),
                text,
            }) => self.is_bad_record(&text)?,
            None => return Err("it ended by itself".to_owned()),
            Some(reason)
                if reason.cause == Some(Cause::DataLoss)
                    && reason.text.contains("on-data-loss: continue")
                    && self.faults.log_is_harmed
                    && !process.settings.continue_on_data_loss =>
            {
                self.summary.stopped_by_loss += 1;
                self.settings.continue_on_data_loss = true;
            }
            Some(reason) => return Err(format!("it stopped: {reason}")),
        }
        self.processes.remove(i);
        Ok(())
    }

    /// It says that it ended at a record that cannot be counted. Whether that is so is known for
    /// sure where no log was cut off.
    fn is_bad_record(&mut self, text: &str) -> Result<(), String> {
        let number = |after: &str| -> Option<i64> {
            let rest = text.split_once(after)?.1;
            rest.split([' ', ':']).next()?.parse().ok()
        };
        let at = number("topic partition ").zip(number(" offset "));
        let (p, offset) = at.ok_or_else(|| format!("it ended, but where? {text}"))?;
        let p = p as Partition;
        let shape = &self.settings.shape;
        let future = self.right_now() - 2 * CLOCK_OFF_MS;
        // Two clocks that are wrong alike take records of now for ones from the future.
        let clocks_vary = self.faults.clocks_vary;
        let wrong = |log: &Log| match log.records.get(&offset) {
            None => true,
            Some(record) => match &record.value {
                Value::Tombstone => true,
                Value::Good { .. } => !clocks_vary && (0..future).contains(&record.time),
                Value::Broken => false,
            },
        };
        let logs = self.topics.iter().filter_map(|topic| topic.logs.get(&p));
        let mut logs = logs
            .flat_map(|log| [Some(log), log.before.as_deref()])
            .flatten();
        if shape.on_bad_record != OnBadRecord::Fail || logs.all(wrong) {
            return Err(format!("it ended at a record that can be counted: {text}"));
        }
        self.summary.bad_ends += 1;
        self.bad_ends += 1;
        self.bad_record = Some((p, offset));
        Ok(())
    }

    /// Counts what is drawn once for the whole run.
    fn note_shape(&mut self) {
        let shape = &self.settings.shape;
        let new = Summary {
            time_fields: shape.timestamp_field.is_some().into(),
            decimals: shape.inputs().any(|a| a.number != Number::Integer).into(),
            nested: shape.group_by.iter().any(|c| c.path.len() > 1).into(),
            latest: self.settings.start_at_end.into(),
            ..Summary::default()
        };
        self.summary.add(&new);
    }

    /// What was committed, for whoever looks at one seed.
    pub fn tell(&self) -> String {
        let mut said = String::new();
        for (commit, at) in &self.catalog.epochs {
            let _ = writeln!(
                said,
                "epoch {} of {} at {at:?}",
                commit.epoch, commit.owner.owner_id
            );
            for (p, lane) in &commit.lanes {
                let _ = writeln!(
                    said,
                    "  {p}: {} to {}, epoch {}, {:?}",
                    lane.from, lane.to, lane.leader_epoch, lane.ledger
                );
            }
            for decision in &commit.decisions {
                let _ = writeln!(said, "  {decision:?}");
            }
        }
        for topic in &self.topics {
            for (p, log) in &topic.logs {
                let _ = writeln!(
                    said,
                    "{} {p}: {} to {}, cut {:?}",
                    topic.id,
                    log.start,
                    log.end,
                    log.cuts()
                );
            }
        }
        said
    }

    /// What came out against what must.
    pub fn audit(&mut self) -> Result<Summary, String> {
        let judge = Judge {
            shape: &self.settings.shape,
            topics: &self.topics,
            catalog: &self.catalog,
            checkpoints_harmed: self.summary.checkpoints_harmed > 0,
            times: &self.settings.compaction,
            clocks_are_right: self.upkeep.calm,
            bad_record: self.bad_record.filter(|_| self.bad_ends > 1),
        };
        let seen = judge.judge()?;
        let verified = self.verify()?;
        let epochs: Vec<&Commit> = self.catalog.epochs.iter().map(|(c, _)| c).collect();
        let count =
            |is: &dyn Fn(&Decided) -> bool| self.decisions().filter(|d| is(&d.what)).count() as u64;
        let floors = |why| count(&|d| matches!(d, Decided::Floor { reason, .. } if *reason == why));
        let ids: Vec<&str> = epochs.iter().map(|c| &*c.topic_id).collect();
        let made_again = ids.windows(2).filter(|w| w[0] != w[1]).count() as u64;
        let all = count(&|d| matches!(d, Decided::Generation { .. }));
        let cuts = self
            .decisions()
            .filter(|d| {
                matches!(&d.what, Decided::Generation { reason, .. } if !reason.contains("made \
                 again"))
            })
            .count() as u64;
        let new = Summary {
            rows: seen.rows.len() as u64,
            late: seen.late.len() as u64,
            rejects: seen.rejects.len() as u64,
            full_slices: seen.rejects_saying("max-keys"),
            long_keys: seen.rejects_saying("max-key-bytes"),
            null_keys: seen
                .rows
                .keys()
                .filter(|(_, _, key)| key.contains(&None))
                .count() as u64,
            late_hits: epochs.last().map_or(0, |c| c.ledger.late_hits),
            epochs: epochs.len() as u64,
            swaps: epochs.iter().filter(|c| !c.retired.is_empty()).count() as u64,
            folds: self.catalog.folded.len() as u64,
            folded: epochs
                .iter()
                .filter(|c| self.catalog.is_folded(c.epoch))
                .count() as u64,
            takeovers: self.catalog.owners - 1,
            idle_floors: floors(FloorReason::Idle),
            quiet_floors: floors(FloorReason::Quiet),
            joins: floors(FloorReason::Join),
            counts_lost: count(&|d| matches!(d, Decided::CountsLost { .. })),
            losses: count(&|d| matches!(d, Decided::Lost { .. })),
            delays: count(&|d| matches!(d, Decided::Delay { .. })).saturating_sub(3),
            generations: made_again.min(all),
            cuts,
            verified,
            ..Summary::default()
        };
        self.summary.add(&new);
        Ok(self.summary.clone())
    }
}
