//! A broker with old metadata: for a while some questions about the topic are answered, and some
//! reads are served, as they would have been a while ago. Then there were fewer topic partitions,
//! and their logs began and ended earlier.

use crate::world::World;
use windrow_core::engine::TopicFacts;
use windrow_core::values::record::{Offset, Partition};

/// The longest time for which a broker is behind.
const BEHIND_MS: u64 = 20_000;
/// The longest time for which the only broker that answers is behind. The engine believes what all
/// answers have said for 30 s.
const ONLY_BROKER_BEHIND_MS: u64 = 25_000;
/// For so long after that, others answer.
const ONLY_AFTER_MS: u64 = 20_000;
/// So many earlier states of the topic are kept.
const KEPT_MAX: usize = 20;

/// What brokers knew of the topic at earlier times.
#[derive(Default)]
pub struct OldFacts {
    /// Each with its time, from old to new.
    kept: Vec<(u64, TopicFacts)>,
    /// A broker is behind until then, and what it knows is of this time.
    behind: Option<(u64, u64, TopicFacts)>,
    /// It is the only one that answers.
    is_alone: bool,
}

impl OldFacts {
    /// The topic was made again: no broker that is asked knows the old one any more.
    pub fn forget(&mut self) {
        *self = Self::default();
    }
}

impl World {
    /// From time to time the topic is kept as it is now, and a broker begins to be behind.
    pub fn let_a_broker_fall_behind(&mut self) {
        if !self.faults.facts_get_stale {
            return;
        }
        if self.rng.one_in(8) {
            let facts = self.topic_facts();
            self.old_facts.kept.push((self.now, facts));
            if self.old_facts.kept.len() > KEPT_MAX {
                self.old_facts.kept.remove(0);
            }
        }
        // Between two of them every broker is right for a while. Otherwise one after the other
        // could say the same for longer than what all brokers say is doubted.
        let last = self.old_facts.behind.as_ref();
        let rests = last.is_some_and(|(until, ..)| self.now < until + BEHIND_MS);
        if !self.old_facts.is_alone && !rests && self.rng.one_in(60) {
            self.begin_to_be_behind(BEHIND_MS);
        }
    }

    /// For a while the only broker that answers is behind, maybe while the table is taken over. It
    /// does not happen twice in a row.
    pub fn let_the_only_broker_be_behind(&mut self) -> Result<(), String> {
        let last = self.old_facts.behind.as_ref();
        if last.is_some_and(|(until, ..)| self.now <= until + ONLY_AFTER_MS) {
            return Ok(());
        }
        // It is behind what is committed, where one was.
        let committed = self.catalog.epochs.last().map(|(commit, _)| &commit.lanes);
        let ends_below = |facts: &TopicFacts| {
            let mut ends = facts.partitions.iter();
            ends.any(|(p, (_, end))| {
                let lane = committed.and_then(|lanes| lanes.get(p));
                lane.is_some_and(|lane| *end < lane.to)
            })
        };
        let below = self.old_facts.kept.iter().rposition(|(_, f)| ends_below(f));
        if let Some(below) = below {
            self.old_facts.kept.truncate(below + 1);
        }
        self.begin_to_be_behind(ONLY_BROKER_BEHIND_MS);
        self.old_facts.is_alone = true;
        if self.rng.one_in(2) {
            self.kill_owner();
        }
        self.go_on_for(ONLY_BROKER_BEHIND_MS)
    }

    fn begin_to_be_behind(&mut self, for_ms: u64) {
        if self.old_facts.kept.is_empty() {
            return;
        }
        let nth = self.rng.below(self.old_facts.kept.len() as u64) as usize;
        let (at, mut facts) = self.old_facts.kept[nth].clone();
        if facts.partitions.len() > 1 && self.rng.one_in(2) {
            // It has not heard of the newest topic partition.
            facts.partitions.pop_last();
        }
        let until = self.now + self.rng.below(for_ms);
        self.old_facts.behind = Some((until, at, facts));
    }

    /// What the broker that happens to answer knows of the topic.
    pub fn facts_of_a_broker(&mut self) -> TopicFacts {
        if let Some((until, _, facts)) = &self.old_facts.behind
            && self.now < *until
            && self.faults.facts_get_stale
            && (self.old_facts.is_alone || self.rng.one_in(2))
        {
            let facts = facts.clone();
            self.summary.stale_facts += u64::from(facts != self.topic_facts());
            return facts;
        }
        self.topic_facts()
    }

    /// The first offset and the end of a log as the broker has it that happens to be read from.
    /// `None` where that broker does not know the topic partition. One that was its leader before a
    /// log was cut off has been found out: it serves nobody.
    pub fn limits_to_read(&mut self, p: Partition) -> Option<(Offset, Offset)> {
        let log = &self.topic().logs[&p];
        let limits = (log.start, log.visible);
        let (uncut, exists_from) = (log.before.is_none(), log.exists_from);
        let Some((until, at, facts)) = &self.old_facts.behind else {
            return Some(limits);
        };
        let serves = self.now < *until && self.faults.facts_get_stale && uncut;
        let old = facts.partitions.get(&p).copied();
        let knows = *at >= exists_from;
        if !serves || !(self.old_facts.is_alone || self.rng.one_in(4)) {
            return Some(limits);
        }
        old.filter(|_| knows)
    }
}
