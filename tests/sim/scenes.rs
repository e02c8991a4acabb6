//! Scenes: what a run brings about on purpose, because chance alone brings it about too seldom. A
//! scene comes on top of the ordinary faults of its run, except those that would hide it. In each
//! of them one rule of the engine is the only one that keeps the table right, so a mistake in that
//! rule is noticed.
//!
//! One in three of the runs in which anything goes wrong has no scene.

use crate::faults::{CLOCK_OFF_MS, DAY_MS, Faults};
use crate::rng::Rng;
use crate::topic::Topic;
use crate::world::World;
use windrow_core::engine::{CatalogRequest, Request, Rules};
use windrow_core::values::record::{Offset, Partition};

/// For so long the connection of a process stands still while another one commits.
const OTHERS_GO_ON_MS: u64 = 40_000;
/// For so long nothing is written: then topic partitions stand aside, and epochs come that move no
/// offset.
const QUIET_MS: u64 = 8000;
/// No broker answers for at most so long after the topic was made again.
const OUTAGE_MS: u64 = 5000;
/// Where everything goes on, it goes on in rounds of so many milliseconds.
const ROUND_MS: u64 = 200;

/// What a run brings about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scene {
    /// While a commit is on its way, another process commits an epoch of the same number.
    EpochTwice,
    /// The database is restored to an older epoch just before a commit arrives.
    EpochsForgotten,
    /// The database's clock is set just before a commit arrives.
    ClockSet,
    /// The topic is made again, and an epoch is cut after records of the new one were read.
    TopicMadeAgain,
    /// For a while the only broker that answers is behind, and the table is taken over meanwhile.
    BrokerBehind,
    /// The brokers are restored from a backup, and the log has another record than before, which
    /// no leader epoch tells. Then the table is taken over.
    LogRewritten,
    /// What a replay needs has expired in one topic partition when the table is taken over.
    CountsLost,
    /// There is little memory, and the table is taken over again and again.
    LittleMemory,
}

impl Scene {
    const ALL: [Scene; 8] = [
        Scene::EpochTwice,
        Scene::EpochsForgotten,
        Scene::ClockSet,
        Scene::TopicMadeAgain,
        Scene::BrokerBehind,
        Scene::LogRewritten,
        Scene::CountsLost,
        Scene::LittleMemory,
    ];

    /// Draws the scene of a run in which things go wrong; `None` in one of three.
    pub fn draw(rng: &mut Rng) -> Option<Self> {
        let scenes = Scene::ALL.len() as u64;
        let nth = rng.below(scenes * 3 / 2);
        (nth < scenes).then(|| Scene::ALL[nth as usize])
    }

    /// Which faults the scene needs.
    pub fn set_faults(self, faults: &mut Faults) {
        match self {
            Scene::EpochTwice => faults.epochs_are_forgotten = false,
            Scene::EpochsForgotten => {
                (faults.epochs_are_forgotten, faults.log_is_harmed) = (true, false);
            }
            Scene::ClockSet => faults.clocks_vary = true,
            Scene::BrokerBehind => faults.facts_get_stale = true,
            Scene::TopicMadeAgain | Scene::LogRewritten | Scene::CountsLost => {
                (faults.epochs_are_forgotten, faults.log_is_harmed) = (false, true);
            }
            Scene::LittleMemory => {}
        }
    }

    /// The settings by which the scene comes about.
    pub fn set_rules(self, rng: &mut Rng, rules: &mut Rules) {
        match self {
            Scene::EpochTwice | Scene::ClockSet => {}
            Scene::EpochsForgotten => {
                // Many epochs that move no offset.
                rules.limits.checkpoint_keys_small = 0;
                rules.limits.checkpoint_every_ms = 2000;
                rules.limits.progress_every_ms = 1000;
                rules.idle_timeout_ms = 1000;
                rules.commit_interval_ms = 0;
            }
            Scene::TopicMadeAgain => rules.commit_interval_ms = 0,
            Scene::BrokerBehind | Scene::LogRewritten | Scene::CountsLost => {
                set_long_replays(rules);
            }
            Scene::LittleMemory => {
                set_long_replays(rules);
                rules.max_memory_bytes = rng.pick(&[6000, 10_000]);
            }
        }
    }
}

/// Many commits, and few checkpoints.
fn set_long_replays(rules: &mut Rules) {
    rules.limits.checkpoint_keys_small = 0;
    rules.limits.checkpoint_every_ms = 60_000;
    rules.limits.checkpoint_every_records = 5_000_000;
    rules.limits.progress_every_ms = 1000;
    rules.commit_interval_ms = rules.commit_interval_ms.min(500);
}

impl World {
    /// From time to time the scene of this run is played.
    pub fn play_scene(&mut self) -> Result<(), String> {
        let Some(scene) = self.faults.scene else {
            return Ok(());
        };
        let one_in = match scene {
            Scene::EpochTwice => 4,
            Scene::ClockSet | Scene::LogRewritten => 10,
            Scene::TopicMadeAgain => 20,
            _ => 40,
        };
        if !self.rng.one_in(one_in) {
            return Ok(());
        }
        match scene {
            Scene::EpochTwice => self.let_an_epoch_come_twice()?,
            Scene::EpochsForgotten => self.go_on_for(QUIET_MS)?,
            Scene::ClockSet => self.set_clock_right(),
            Scene::TopicMadeAgain => self.make_topic_again_while_it_is_read()?,
            Scene::BrokerBehind => self.let_the_only_broker_be_behind()?,
            Scene::LogRewritten if self.rewrite_a_log() => {
                self.kill_owner();
                self.go_on_for(QUIET_MS)?;
            }
            Scene::CountsLost if self.expire_what_a_replay_needs() => self.kill_owner(),
            Scene::LittleMemory => self.kill_owner(),
            Scene::LogRewritten | Scene::CountsLost => {}
        }
        Ok(())
    }

    /// The process that has committed last, if it lives.
    fn owner(&self) -> Option<usize> {
        let (last, _) = self.catalog.epochs.last()?;
        let is_owner = |id: u64| id.to_string() == last.owner.owner_id;
        self.processes.iter().position(|p| is_owner(p.id))
    }

    /// The owner dies by SIGKILL.
    pub fn kill_owner(&mut self) {
        if let Some(i) = self.owner() {
            self.summary.crashes += 1;
            self.processes.remove(i);
        }
    }

    /// A commit hangs on its way until another process has committed under its number. Then it
    /// arrives.
    fn let_an_epoch_come_twice(&mut self) -> Result<(), String> {
        let to_catalog = |sender: u64| {
            let mut all = self.requests.iter().filter(move |s| s.sender == sender);
            all.find_map(|sent| match &sent.request {
                Request::Catalog(request) => Some(request),
                _ => None,
            })
        };
        // Its next one to arrive: nothing that comes before tells the process of the other one.
        let next_epoch = self.catalog.epochs.len() as u64;
        let hangs = self.processes.iter().map(|p| p.id).find(|id| {
            matches!(to_catalog(*id), Some(CatalogRequest::Commit { commit, .. })
                if commit.epoch == next_epoch && next_epoch > 0)
        });
        let Some(sender) = hangs else {
            return Ok(());
        };
        self.summary.stalls += 1;
        self.stalled_until
            .insert(sender, self.now + OTHERS_GO_ON_MS);
        if self.processes.len() < 2 {
            self.start_process();
        }
        self.processes.iter_mut().for_each(|p| p.frozen = false);
        for _ in 0..OTHERS_GO_ON_MS / ROUND_MS {
            self.go_on_once(Some(sender))?;
            if self.catalog.epochs.len() as u64 > next_epoch {
                break;
            }
        }
        self.stalled_until.remove(&sender);
        Ok(())
    }

    /// For so many milliseconds everything goes on, and nothing new is written.
    pub fn go_on_for(&mut self, ms: u64) -> Result<(), String> {
        for _ in 0..ms / ROUND_MS {
            self.go_on_once(None)?;
            if self.processes.is_empty() {
                self.start_process();
            }
        }
        Ok(())
    }

    /// What is on its way arrives, and each process but one receives it, reads, and is told the
    /// time.
    fn go_on_once(&mut self, but: Option<u64>) -> Result<(), String> {
        self.now += ROUND_MS;
        for _ in 0..self.requests.len() {
            self.carry_request()?;
        }
        type Act = fn(&mut World, usize) -> Result<(), String>;
        let acts: [Act; 3] = [World::receive_all_answers, World::deliver, World::tick];
        let ids: Vec<u64> = self.processes.iter().map(|p| p.id).collect();
        for id in ids.into_iter().filter(|id| Some(*id) != but) {
            for act in acts {
                if let Some(i) = self.processes.iter().position(|p| p.id == id) {
                    act(self, i)?;
                }
            }
        }
        Ok(())
    }

    fn receive_all_answers(&mut self, i: usize) -> Result<(), String> {
        let id = self.processes[i].id;
        for _ in 0..self.processes[i].inbox.len() {
            if self.processes.get(i).is_some_and(|p| p.id == id) {
                self.receive_answer(i)?;
            }
        }
        Ok(())
    }

    /// Before a commit arrives, somebody may set the clock of the database by days.
    pub fn set_clock_before_commit(&mut self) {
        if self.faults.scene == Some(Scene::ClockSet) && self.rng.one_in(4) {
            let far = self.rng.pick(&[40 * DAY_MS, 2000 * DAY_MS]);
            self.db_ahead = if self.rng.one_in(2) { far } else { -far };
            self.summary.clocks_far += 1;
            self.summary.clocks_back += u64::from(self.db_ahead < 0);
        }
    }

    /// Somebody sets it right.
    fn set_clock_right(&mut self) {
        if self.db_ahead.abs() > CLOCK_OFF_MS {
            self.db_ahead = 0;
        }
    }

    /// The topic is made again with logs that are longer than what was read of the old one, so that
    /// its reader goes on without a word; and time goes by in which it does.
    fn make_topic_again_while_it_is_read(&mut self) -> Result<(), String> {
        let Some(i) = self.owner() else {
            return Ok(());
        };
        let process = &self.processes[i];
        let lanes = process.engine.lanes();
        let reads = !process.frozen && !lanes.is_empty() && lanes.values().all(|l| !l.replaying());
        if !reads || self.topics.len() > 2 {
            return Ok(());
        }
        let read: Vec<(Partition, Offset)> = lanes
            .iter()
            .map(|(p, lane)| (*p, lane.ledger.next_offset))
            .collect();
        let shape = &self.settings.shape;
        let mut topic = Topic::draw(&mut self.rng, shape, self.topics.len(), self.now);
        let at = self.right_now() - 10_000;
        for (p, next) in read {
            let Some(log) = topic.logs.get_mut(&p).filter(|log| !log.is_unusable) else {
                continue;
            };
            while log.end < next + 20 {
                let time = at + self.rng.below(20_000) as i64;
                log.append_good(&mut self.rng, &self.settings.shape, time);
            }
            log.visible = log.end;
        }
        self.topics.push(topic);
        self.old_facts.forget();
        self.go_on_once(None)?;
        // No broker tells that it is another topic.
        self.kafka_down_until = self.now + self.rng.below(OUTAGE_MS);
        self.go_on_for(OUTAGE_MS)
    }

    /// One record of a log is another one now, with another time. No reader notices: its leader
    /// epoch is the same. It is the record to which the last commit owes the watermark, and in the
    /// same windows as before: so nothing but the watermark tells a replay of it.
    fn rewrite_a_log(&mut self) -> bool {
        let Some((last, _)) = self.catalog.epochs.last() else {
            return false;
        };
        let shape = &self.settings.shape;
        if last.topic_id != self.topic().id || shape.timestamp_field.is_some() {
            return false;
        }
        let found = last.lanes.iter().find_map(|(p, lane)| {
            let log = self
                .topic()
                .logs
                .get(p)
                .filter(|log| log.before.is_none())?;
            let from = self.catalog.checkpointed(*p).unwrap_or(0);
            let newest = lane.newest?.0;
            let offset = log.newest_at(from..lane.to, newest)?;
            Some((*p, offset, newest))
        });
        let Some((p, offset, newest)) = found else {
            return false;
        };
        // Windows begin and end here.
        let borders = |time: i64| {
            let since = time - shape.offset_ms;
            let slide = shape.slide_ms;
            (
                since.div_euclid(slide),
                (since - shape.window_ms).div_euclid(slide),
            )
        };
        for _ in 0..20 {
            let time = newest + self.rng.below(6000) as i64 - 3000;
            if time != newest && borders(time) == borders(newest) {
                let topic = self.topics.last_mut().expect("one at least");
                topic
                    .logs
                    .get_mut(&p)
                    .expect("it is there")
                    .rewrite(offset, time);
                self.summary.rewritten += 1;
                return true;
            }
        }
        false
    }

    /// In one topic partition the log expires from the checkpoint up to where the last commit was.
    fn expire_what_a_replay_needs(&mut self) -> bool {
        let Some((last, _)) = self.catalog.epochs.last() else {
            return false;
        };
        if last.topic_id != self.topic().id {
            return false;
        }
        let needed = |p: Partition| self.catalog.checkpointed(p).unwrap_or(0);
        let replayed: Vec<(Partition, Offset, Offset)> = last
            .lanes
            .iter()
            .map(|(p, lane)| (*p, needed(*p), lane.to))
            .filter(|(_, from, to)| from < to)
            .collect();
        if replayed.is_empty() {
            return false;
        }
        let (p, from, to) = self.rng.pick(&replayed);
        let to = from + 1 + self.rng.below((to - from) as u64) as Offset;
        let topic = self.topics.last_mut().expect("one at least");
        let Some(log) = topic.logs.get_mut(&p) else {
            return false;
        };
        log.expire(to);
        true
    }
}
