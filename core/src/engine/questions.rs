//! The questions that are on their way. An answer to a question of an earlier ownership does not
//! count: it speaks of another time, so the question is asked again.

use super::answers::OtherTopic;
use super::conversation::{Answer, BrokersAnswer, StoreAnswer};
use crate::table::place::Names;
use crate::values::record::Partition;
use crate::values::time::Mono;
use std::collections::BTreeMap;

/// A question that is asked once until its answer comes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Question {
    asked: bool,
    void: bool,
}

impl Question {
    /// Whether to ask now, because no answer is on its way; from then on one is.
    pub(super) fn due(&mut self) -> bool {
        !std::mem::replace(&mut self.asked, true)
    }

    /// The answer came. Returns whether it counts.
    fn take_answer(&mut self) -> bool {
        self.asked = false;
        !std::mem::take(&mut self.void)
    }

    fn void(&mut self) {
        self.void = self.asked;
    }
}

/// All questions whose answers may outlive an ownership.
#[derive(Debug, Default)]
pub(super) struct Questions {
    /// What is there of the topic.
    pub(super) topic: Question,
    /// Whether the topic is still the same.
    pub(super) topic_id: Question,
    /// Answers by which the topic is another one than the one that is counted. While they are not
    /// believed, nothing is read or committed. They outlive an ownership, because they say nothing
    /// about it.
    pub(super) other_topic: Option<OtherTopic>,
    /// Which manifests the store has.
    pub(super) manifests: Question,
    /// The checkpoint's object.
    pub(super) checkpoint: Question,
    /// When the end of a topic partition's log was asked for, also if that was for an earlier
    /// reader.
    log_ends: BTreeMap<Partition, Mono>,
    /// How many merges were ordered. It outlives an ownership, because two ownerships have the same
    /// term where the catalog has lost one of them.
    merges: u64,
}

/// Whether an answer counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counts {
    /// It answers a question of this ownership, or it holds whoever asked.
    Yes,
    /// It answers a question that was asked at this time, maybe for an earlier reader.
    AskedAt(Mono),
    /// It answers a question of an earlier ownership.
    No,
}

impl Questions {
    /// The ownership ends: what is on its way does not count for the next one.
    pub(super) fn void_all(&mut self) {
        let Self {
            topic,
            topic_id,
            manifests,
            checkpoint,
            ..
        } = self;
        for question in [topic, topic_id, manifests, checkpoint] {
            question.void();
        }
    }

    /// Whether to ask for the end of a log now; from then on the answer is on its way.
    pub(super) fn log_end_due(&mut self, partition: Partition, now: Mono) -> bool {
        let asked = self.log_ends.contains_key(&partition);
        if !asked {
            self.log_ends.insert(partition, now);
        }
        !asked
    }

    /// Counts a merge that is ordered now: 0 is the first one of this process.
    pub(super) fn next_merge(&mut self) -> u64 {
        let nth = self.merges;
        self.merges += 1;
        nth
    }

    /// An answer came, so its question may be asked again. Returns whether the answer counts.
    pub(super) fn take_answer(&mut self, answer: &Answer, names: &Names) -> Counts {
        let question = match answer {
            Answer::Brokers(BrokersAnswer::Topic(_)) => &mut self.topic,
            Answer::Brokers(BrokersAnswer::TopicId(_)) => &mut self.topic_id,
            Answer::Brokers(BrokersAnswer::LogEnd { partition, .. }) => {
                return self
                    .log_ends
                    .remove(partition)
                    .map_or(Counts::No, Counts::AskedAt);
            }
            Answer::Store(StoreAnswer::ListPage { prefix, .. }) if *prefix == names.manifests() => {
                &mut self.manifests
            }
            // Whoever asked: a key never gets other bytes.
            Answer::Store(StoreAnswer::Get { key, .. }) if key.starts_with(&names.manifests()) => {
                return Counts::Yes;
            }
            // Every other object that is fetched is a checkpoint.
            Answer::Store(StoreAnswer::Get { .. }) => &mut self.checkpoint,
            Answer::Catalog(_) | Answer::Brokers(_) | Answer::Store(_) => return Counts::Yes,
        };
        if question.take_answer() {
            Counts::Yes
        } else {
            Counts::No
        }
    }
}
