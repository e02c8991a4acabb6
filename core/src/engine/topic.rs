//! The topic as it is now against the topic as it is counted: when it is looked up, and whether it
//! is still the same. Whether what is gone from it may be lost is asked here, too.
//!
//! One broker with old metadata must not lead to another topic, whose offsets mean other records:
//!
//! | the answer names | what follows |
//! |---|---|
//! | the id that is counted | counting goes on |
//! | an id that was counted before it and left | nothing: that broker has old metadata |
//! | any other id | reading holds until the next answers agree, or name the counted id again |
//!
//! Example: topic A was made again, and B is committed. A broker that still serves A is not
//! believed, however often it answers. When B is made again too, C is counted once all answers of
//! half a minute have named it.

use super::answers::OtherTopic;
use super::conversation::{BrokersRequest, TopicFacts};
use super::step::{Break, Going, Step};
use crate::table::commit::{Genesis, Head};
use crate::values::cause::{Cause, Trouble};
use crate::values::record::{Offset, Partition};
use crate::values::time::Mono;
use std::collections::BTreeMap;

/// Between two looks at the topic, in milliseconds.
pub(super) const TOPIC_EVERY_MS: u64 = 10_000;

/// The topic that is counted.
#[derive(Debug)]
pub(super) struct Topic {
    /// Kafka's id of it; empty where the broker could not tell.
    id: String,
    /// Kafka's id of its cluster; empty where the broker could not tell.
    cluster_id: String,
    /// The ids of the topics that were counted before it in this cluster, from old to new.
    left_ids: Vec<String>,
    look_up_at: Mono,
    /// Where its logs began when it was looked up last.
    log_starts: BTreeMap<Partition, Offset>,
}

/// So many ids of topics that were left are kept: of a topic that is made again each week, those of
/// two years.
const LEFT_IDS_MAX: usize = 100;

/// What an answer of the brokers says of the topic that is counted.
#[derive(Debug)]
pub(super) enum Identity {
    /// It is still the same one.
    Same,
    /// It is another one of the same name, and so many answers have said it that it is believed.
    /// The text says what it is, after the topic's name.
    Other(String),
    /// That cannot be told yet, for this reason; the brokers must be asked again.
    Unknown(Trouble),
}

impl Topic {
    /// The topic that a table is founded on.
    pub(super) fn founded(genesis: &Genesis, step: &Step<'_>) -> Self {
        Self {
            id: genesis.topic_id.clone(),
            cluster_id: genesis.cluster_id.clone(),
            left_ids: Vec::new(),
            look_up_at: step.now,
            log_starts: BTreeMap::new(),
        }
    }

    /// The topic as of the last commit, which has just been looked up.
    pub(super) fn at_head(head: &Head, step: &Step<'_>) -> Self {
        let (founded, now) = (&head.genesis.cluster_id, &head.last.cluster_id);
        Self {
            id: head.last.topic_id.clone(),
            cluster_id: if now.is_empty() { founded } else { now }.clone(),
            left_ids: head.last.left_topic_ids.clone(),
            look_up_at: step.now.plus(TOPIC_EVERY_MS),
            log_starts: BTreeMap::new(),
        }
    }

    /// It was looked up.
    pub(super) fn note_log_starts(&mut self, facts: &TopicFacts) {
        let logs = facts.partitions.iter();
        self.log_starts = logs.map(|(p, (start, _))| (*p, *start)).collect();
    }

    /// Where its logs began when it was looked up last; none before that.
    pub(super) fn log_starts(&self) -> &BTreeMap<Partition, Offset> {
        &self.log_starts
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// The ids of the topics that were counted before it in this cluster, from old to new.
    pub(super) fn left_ids(&self) -> &[String] {
        &self.left_ids
    }

    /// What it is, where these facts are of another topic of the same name.
    pub(super) fn other(&self, facts: &TopicFacts) -> Option<String> {
        self.other_of(&facts.topic_id, &facts.cluster_id)
    }

    /// The same, by the ids alone. Brokers before Kafka 2.8 know no id of a topic, but its
    /// cluster's.
    fn other_of(&self, topic_id: &str, cluster_id: &str) -> Option<String> {
        if differ(topic_id, &self.id) {
            return Some(format!("was deleted and made again: its id is {topic_id}"));
        }
        let other = topic_id.is_empty() && differ(cluster_id, &self.cluster_id);
        other.then(|| format!("is of another Kafka cluster: \"{cluster_id}\""))
    }

    /// Takes an answer about the topic. `cluster_id` is empty where only the topic's id was asked.
    pub(super) fn identify(
        &self,
        topic_id: &str,
        cluster_id: &str,
        step: &mut Step<'_>,
    ) -> Identity {
        let Some(what) = self.other_of(topic_id, cluster_id) else {
            step.questions.other_topic = None;
            return Identity::Same;
        };
        let (topic, table) = (&step.rules.shape.topic, step.table());
        // Of two clusters, each may have its own topic again.
        let was_left = self.left_ids.iter().any(|id| id == topic_id);
        if was_left && !differ(cluster_id, &self.cluster_id) {
            let why = format!(
                "a broker has old metadata of topic \"{topic}\": it names the id {topic_id}, \
                 which table {table} counted before {} and left; the brokers are asked again",
                self.id
            );
            return Identity::Unknown(why.into());
        }
        let id = if topic_id.is_empty() {
            cluster_id
        } else {
            topic_id
        };
        let before = step.questions.other_topic.take();
        let other = OtherTopic::one_more(before, id, step.now);
        let is_believed = other.is_believed();
        step.questions.other_topic = Some(other);
        if is_believed {
            return Identity::Other(what);
        }
        let why = format!(
            "topic \"{topic}\" {what}, as it seems; nothing is read until the brokers agree, \
             because one of them may have old metadata"
        );
        Identity::Unknown(why.into())
    }

    /// From here on the topic of these facts is counted.
    pub(super) fn begin_generation(&mut self, facts: &TopicFacts) {
        if differ(&self.cluster_id, &facts.cluster_id) {
            self.left_ids.clear();
        } else if differ(&self.id, &facts.topic_id) {
            self.left_ids.push(self.id.clone());
            let too_many = self.left_ids.len().saturating_sub(LEFT_IDS_MAX);
            self.left_ids.drain(..too_many);
        }
        self.id.clone_from(&facts.topic_id);
        self.cluster_id.clone_from(&facts.cluster_id);
    }

    /// Whether the topic should be looked up now.
    pub(super) fn is_due(&self, now: Mono) -> bool {
        now >= self.look_up_at
    }

    /// The topic is looked up again after this time.
    pub(super) fn look_up_after(&mut self, ms: u64, now: Mono) {
        self.look_up_at = now.plus(ms);
    }
}

/// Whether both ids are known, and differ.
fn differ(a: &str, b: &str) -> bool {
    !a.is_empty() && !b.is_empty() && a != b
}

/// A topic without topic partitions is one that is not there yet.
pub(super) fn with_partitions(
    answer: Result<TopicFacts, Trouble>,
    step: &Step<'_>,
) -> Result<TopicFacts, Trouble> {
    let facts = answer?;
    if facts.partitions.is_empty() && facts.unknown.is_empty() {
        let why = format!("topic \"{}\" has no partitions yet", step.rules.shape.topic);
        return Err(Trouble::new(Cause::NoTopic, why));
    }
    Ok(facts)
}

/// What hinders where the offsets of these topic partitions, which nobody could tell, are needed.
pub(super) fn limits_needed<'a>(
    mut unknown: impl Iterator<Item = (&'a Partition, &'a String)>,
    step: &Step<'_>,
) -> Option<Trouble> {
    let (partition, why) = unknown.next()?;
    let more = match unknown.count() {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    let topic = &step.rules.shape.topic;
    Some(Trouble::from(format!(
        "topic partition {partition}{more} of topic \"{topic}\" cannot be counted before its \
         leader tells where its log begins and ends: {why}"
    )))
}

/// Asks what the topic is, unless the answer is on its way.
pub(super) fn ask_topic(step: &mut Step<'_>) {
    if step.questions.topic.due() {
        step.ask(BrokersRequest::Topic);
    }
}

/// The reason of a generation that goes on at `to`, because nobody could tell where the cut is.
pub(super) fn unknown_cut(why: &str, to: Offset) -> String {
    format!(
        "{why}; the place of the cut is not known, so records that were written anew below offset \
         {to} may have been passed over, which the ledger does not count as lost"
    )
}

/// Whether counting may go on without records that are gone.
///
/// # Errors
/// The setting `on-data-loss` says no. `way_on` is what it would do otherwise.
pub(super) fn may_lose(step: &Step<'_>, what: &str, way_on: &str) -> Going {
    if step.rules.continue_on_data_loss {
        return Ok(());
    }
    let why = format!("{what}; set on-data-loss: continue to {way_on}");
    Err(Break::Fail(Trouble::new(Cause::DataLoss, why)))
}
