//! The topic as it is now against the topic as it is counted: when it is looked up, and whether it
//! is still the same.

use super::conversation::{BrokersRequest, TopicFacts};
use super::step::Step;
use crate::values::cause::{Cause, Trouble};
use crate::values::time::Mono;

/// Between two looks at the topic, in milliseconds.
pub(super) const TOPIC_EVERY_MS: u64 = 10_000;

/// The topic that is counted.
#[derive(Debug)]
pub(super) struct Topic {
    /// Kafka's id of it; empty where the broker could not tell.
    id: String,
    look_up_at: Mono,
}

impl Topic {
    pub(super) fn new(id: String, look_up_at: Mono) -> Self {
        Self { id, look_up_at }
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Whether these facts are of another topic of the same name.
    pub(super) fn is_other(&self, facts: &TopicFacts) -> bool {
        !facts.topic_id.is_empty() && !self.id.is_empty() && facts.topic_id != self.id
    }

    /// From here on the topic of these facts is counted.
    pub(super) fn begin_generation(&mut self, facts: &TopicFacts) {
        self.id.clone_from(&facts.topic_id);
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
