//! The topic as it is now against the topic as it is counted: when it is looked up, and whether it
//! is still the same. Whether what is gone from it may be lost is asked here, too.

use super::conversation::{BrokersRequest, TopicFacts};
use super::step::{Break, Going, Step};
use crate::table::commit::{Genesis, Head};
use crate::values::cause::{Cause, Trouble};
use crate::values::record::Offset;
use crate::values::time::Mono;

/// Between two looks at the topic, in milliseconds.
pub(super) const TOPIC_EVERY_MS: u64 = 10_000;

/// The topic that is counted.
#[derive(Debug)]
pub(super) struct Topic {
    /// Kafka's id of it; empty where the broker could not tell.
    id: String,
    /// Kafka's id of its cluster; empty where the broker could not tell.
    cluster_id: String,
    look_up_at: Mono,
}

impl Topic {
    /// The topic that a table is founded on.
    pub(super) fn founded(genesis: &Genesis, step: &Step<'_>) -> Self {
        Self {
            id: genesis.topic_id.clone(),
            cluster_id: genesis.cluster_id.clone(),
            look_up_at: step.now,
        }
    }

    /// The topic as of the last commit, which has just been looked up.
    pub(super) fn at_head(head: &Head, step: &Step<'_>) -> Self {
        let (founded, now) = (&head.genesis.cluster_id, &head.last.cluster_id);
        Self {
            id: head.last.topic_id.clone(),
            cluster_id: if now.is_empty() { founded } else { now }.clone(),
            look_up_at: step.now.plus(TOPIC_EVERY_MS),
        }
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// The topic's id and that of its cluster.
    pub(super) fn ids(&self) -> (&str, &str) {
        (&self.id, &self.cluster_id)
    }

    /// What it is, where these facts are of another topic of the same name. Brokers before Kafka
    /// 2.8 know no id of a topic, but its cluster's.
    pub(super) fn other(&self, facts: &TopicFacts) -> Option<String> {
        let differ = |a: &str, b: &str| !a.is_empty() && !b.is_empty() && a != b;
        let TopicFacts {
            topic_id,
            cluster_id,
            ..
        } = facts;
        if differ(topic_id, &self.id) {
            return Some(format!("was deleted and made again: its id is {topic_id}"));
        }
        let other = topic_id.is_empty() && differ(cluster_id, &self.cluster_id);
        other.then(|| format!("is of another Kafka cluster: \"{cluster_id}\""))
    }

    /// From here on the topic of these facts is counted.
    pub(super) fn begin_generation(&mut self, facts: &TopicFacts) {
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

/// A topic without topic partitions is one that is not there yet.
pub(super) fn with_partitions(
    answer: Result<TopicFacts, Trouble>,
    step: &Step<'_>,
) -> Result<TopicFacts, Trouble> {
    let facts = answer?;
    if facts.partitions.is_empty() {
        let why = format!("topic \"{}\" has no partitions yet", step.rules.shape.topic);
        return Err(Trouble::new(Cause::NoTopic, why));
    }
    Ok(facts)
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
