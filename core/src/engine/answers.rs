//! Answers of brokers that are believed only once several agree, because a single broker may have
//! old metadata.

use crate::values::time::Mono;

/// What only a look at the topic says (a topic partition is gone, a log ends below where we are,
/// the topic is another one) is believed once all answers have said it for this long.
const BELIEVED_AFTER_MS: u64 = 30_000;
/// Two answers with a longer silence between them do not agree about that silence: each may come
/// from a broker that was behind for a moment. It is more than there is between two looks at the
/// topic where brokers answer.
const SILENCE_MS_MAX: u64 = 20_000;

/// Answers that agreed, without one between them that said otherwise, and without a long silence.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answers {
    first: Mono,
    last: Mono,
}

impl Answers {
    /// One more answer says the same as the ones `before`, if there were any. After a long silence
    /// it is a first one again.
    ///
    /// Example: a broker with old metadata answers at 12:00:00. Nothing is heard for two minutes,
    /// and at 12:02:00 it answers once more. These two answers say no more than one of them.
    pub(super) fn one_more(before: Option<Self>, now: Mono) -> Self {
        let before = before.filter(|before| now.since(before.last) <= SILENCE_MS_MAX);
        let first = before.map_or(now, |before| before.first);
        Self { first, last: now }
    }

    /// Whether they are believed. How long ago they came makes no difference: a single answer,
    /// after which nothing was heard for minutes, proves nothing.
    pub(super) fn are_believed(self) -> bool {
        self.last.since(self.first) >= BELIEVED_AFTER_MS
    }
}

/// The answers by which the topic is another one of the same name.
#[derive(Clone, Debug)]
pub(super) struct OtherTopic {
    /// Kafka's id of the topic in these answers, or that of its cluster where the brokers know no
    /// ids of topics.
    id: String,
    answers: Answers,
}

impl OtherTopic {
    /// One more answer names this id. Answers that named another one do not count any more.
    pub(super) fn one_more(before: Option<Self>, id: &str, now: Mono) -> Self {
        let agrees = |before: &Self| before.id == id;
        let before = before.filter(agrees).map(|before| before.answers);
        Self {
            id: id.to_owned(),
            answers: Answers::one_more(before, now),
        }
    }

    /// Whether they are believed.
    pub(super) fn is_believed(&self) -> bool {
        self.answers.are_believed()
    }
}
