//! The table is ours, and counting has not begun: what the topic is, whether the store has
//! manifests of a catalog that was lost, and the checkpoint. Epoch 0 is made here.

use super::conversation::{StoreRequest, TopicFacts};
use super::counting::Counting;
use super::cut::empty_file;
use super::lease::{Lease, RETRY_MS};
use super::manifest_pages::ManifestPages;
use super::step::{Break, Step};
use super::table::Table;
use super::topic::{Identity, Topic, ask_topic, limits_needed, with_partitions};
use super::troubles::Side;
use crate::count::checkpoint::{self, Unreadable};
use crate::count::lane::LaneState;
use crate::table::commit::{CheckpointAt, Genesis, Head};
use crate::table::place::{Names, Place};
use crate::values::cause::{Cause, Trouble};
use crate::values::digest::{sha256_hex, unhex};
use crate::values::object::ObjectPage;
use crate::values::record::Partition;
use crate::values::shape::Shape;
use crate::values::time::Mono;
use std::collections::BTreeMap;

/// What must be known before counting begins.
pub(super) enum Opening {
    /// Kafka has not said yet what the topic is.
    Topic {
        /// When to ask again; `None` while the answer is on its way.
        ask_at: Option<Mono>,
        /// What the catalog says of the table; `None` for a table without epochs.
        head: Option<Box<Head>>,
        /// The table as of the last commit, still without lanes; `None` for one without epochs.
        table: Option<Box<Table>>,
    },
    /// The catalog has no epoch. Are there manifests of a catalog that was lost? They are listed
    /// page by page until one is found: a lost catalog of a year had millions of epochs.
    Manifests {
        /// How far they are listed.
        pages: ManifestPages,
        /// What the topic is.
        facts: TopicFacts,
    },
    /// The checkpoint is an object, and is being fetched.
    Checkpoint {
        /// When to ask again; `None` while the answer is on its way.
        ask_at: Option<Mono>,
        /// The object's key.
        key: String,
        /// What the topic is.
        facts: TopicFacts,
        /// What the catalog says of the table.
        head: Box<Head>,
        /// The table as of the last commit, still without lanes.
        table: Box<Table>,
    },
}

impl Opening {
    /// Asks what the topic is.
    pub(super) fn begin(head: Option<Box<Head>>, step: &mut Step<'_>) -> Self {
        ask_topic(step);
        let table = head.as_ref().map(|head| Box::new(Table::at_head(head)));
        Opening::Topic {
            ask_at: None,
            head,
            table,
        }
    }

    /// Asks again what could not be answered.
    pub(super) fn tick(&mut self, step: &mut Step<'_>) {
        let is_due = |ask_at: &mut Option<Mono>, now| ask_at.take_if(|at| now >= *at).is_some();
        match self {
            Opening::Topic { ask_at, .. } => {
                if is_due(ask_at, step.now) {
                    ask_topic(step);
                }
            }
            Opening::Manifests { pages, .. } => pages.tick(step),
            Opening::Checkpoint { ask_at, key, .. } => {
                if is_due(ask_at, step.now) {
                    ask_checkpoint(key, step);
                }
            }
        }
    }

    /// The credentials have changed: what failed is asked again at once.
    pub(super) fn retry_now(&mut self, step: &Step<'_>) {
        match self {
            Opening::Topic { ask_at, .. } | Opening::Checkpoint { ask_at, .. } => {
                if let Some(at) = ask_at {
                    *at = step.now;
                }
            }
            Opening::Manifests { pages, .. } => pages.retry_now(step),
        }
    }

    /// Kafka says what the topic is; `None` when the answer does not count.
    pub(super) fn take_topic(
        &mut self,
        answer: Option<Result<TopicFacts, Trouble>>,
        lease: &Lease,
        step: &mut Step<'_>,
    ) -> Result<Option<Counting>, Break> {
        let Opening::Topic { ask_at, head, .. } = self else {
            return Ok(None);
        };
        let Some(answer) = answer else {
            ask_topic(step);
            return Ok(None);
        };
        let facts = match with_partitions(answer, step) {
            Ok(facts) => facts,
            Err(trouble) => {
                *ask_at = Some(step.now.plus(RETRY_MS));
                step.troubles.report(Side::Topic, trouble);
                return Ok(None);
            }
        };
        step.troubles.end(Side::Brokers);
        if let Some(head) = &head {
            let topic = Topic::at_head(head, step);
            let identity = topic.identify(&facts.topic_id, &facts.cluster_id, step);
            if let Identity::Unknown(why) = identity {
                *ask_at = Some(step.now.plus(RETRY_MS));
                step.troubles.report(Side::Topic, why);
                return Ok(None);
            }
        }
        // A table begins with all topic partitions, at the offsets of one moment.
        let unknown = facts.unknown.iter().filter(|_| head.is_none());
        if let Some(why) = limits_needed(unknown, step) {
            *ask_at = Some(step.now.plus(RETRY_MS));
            step.troubles.report(Side::Topic, why);
            return Ok(None);
        }
        step.troubles.end(Side::Topic);
        match head.take() {
            None => {
                *self = Opening::Manifests {
                    pages: ManifestPages::begin(step),
                    facts,
                };
                Ok(None)
            }
            Some(head) => self.read_checkpoint(head, facts, lease, step),
        }
    }

    /// Goes on where the last commit was: reads the checkpoint that `head` names, at once where the
    /// catalog itself has it. Then a replay follows.
    fn read_checkpoint(
        &mut self,
        mut head: Box<Head>,
        facts: TopicFacts,
        lease: &Lease,
        step: &mut Step<'_>,
    ) -> Result<Option<Counting>, Break> {
        let read = match &head.checkpoint {
            None => Ok(BTreeMap::new()),
            Some((_, CheckpointAt::Inline(hex))) => unhex(hex)
                .ok_or_else(|| {
                    Unreadable::Damaged("the one in the catalog is not hexadecimal".to_owned())
                })
                .and_then(|bytes| checkpoint::decode(&bytes, &step.rules.shape)),
            Some((_, CheckpointAt::Object(key))) => {
                let key = key.clone();
                ask_checkpoint(&key, step);
                *self = Opening::Checkpoint {
                    ask_at: None,
                    key,
                    facts,
                    table: Box::new(Table::at_head(&head)),
                    head,
                };
                return Ok(None);
            }
        };
        match read {
            Ok(states) => restore(states, &head, &facts, lease, step).map(Some),
            Err(why) if head.go_back() => {
                step.troubles
                    .report(Side::Store, checkpoint_unreadable(&why));
                self.read_checkpoint(head, facts, lease, step)
            }
            Err(why) => restore_without(&why, &head, &facts, lease, step).map(Some),
        }
    }

    /// The store has listed a page of manifests, behind the key that it was asked with; `None` when
    /// the answer does not count.
    pub(super) fn take_manifests(
        &mut self,
        answer: Option<(Option<&str>, Result<ObjectPage, Trouble>)>,
        place: &Place,
        lease: &mut Lease,
        step: &mut Step<'_>,
    ) -> Result<Option<Counting>, Break> {
        let Opening::Manifests { pages, facts } = self else {
            return Ok(None);
        };
        let Some(page) = pages.take(answer, step) else {
            return Ok(None);
        };
        // One of epoch 0 proves nothing, because it is stored before epoch 0 is committed.
        let keys = page.objects.iter().map(|object| &object.key);
        let epochs = keys.filter_map(|key| Names::epoch_of_manifest(key));
        if let Some(lost) = epochs.filter(|epoch| *epoch > 0).max() {
            let why = format!(
                "the catalog has no epoch of table {}, but {place} holds manifests of later ones, \
                 such as epoch {lost}: the catalog was lost, or restored from before the table; to \
                 rebuild it from the store run: windrow restore --from-manifests; or restore it \
                 from a backup, or choose another table name",
                step.table()
            );
            lease.suspect_lost_catalog(why.into(), step);
            return Ok(None);
        }
        if let Some(next) = page.next {
            pages.go_on(next, step);
            return Ok(None);
        }
        step.troubles.end(Side::Store);
        let facts = facts.clone();
        let genesis = genesis(facts, place, step);
        Counting::found(lease.owner().clone(), genesis, step).map(Some)
    }

    /// The store answered with the object of this key; `None` when the answer does not count.
    pub(super) fn take_checkpoint(
        &mut self,
        answered: &str,
        answer: Option<Result<Option<Vec<u8>>, Trouble>>,
        lease: &Lease,
        step: &mut Step<'_>,
    ) -> Result<Option<Counting>, Break> {
        let Opening::Checkpoint {
            ask_at,
            key,
            facts,
            head,
            ..
        } = self
        else {
            return Ok(None);
        };
        let Some(answer) = answer.filter(|_| key == answered) else {
            *ask_at = Some(step.now);
            return Ok(None);
        };
        let bytes = match answer {
            Ok(bytes) => bytes,
            Err(trouble) => {
                *ask_at = Some(step.now.plus(RETRY_MS));
                step.troubles.report(Side::Store, trouble);
                return Ok(None);
            }
        };
        match decode_object(key, bytes, &step.rules.shape) {
            Ok(states) => restore(states, head, facts, lease, step).map(Some),
            Err(why) if head.go_back() => {
                step.troubles
                    .report(Side::Store, checkpoint_unreadable(&why));
                let (head, facts) = (head.clone(), facts.clone());
                self.read_checkpoint(head, facts, lease, step)
            }
            Err(why) => restore_without(&why, head, facts, lease, step).map(Some),
        }
    }

    /// The table as of its last commit, while the topic is looked up and the checkpoint fetched.
    /// `None` for a table without epochs.
    pub(super) fn table(&self) -> Option<&Table> {
        match self {
            Opening::Checkpoint { table, .. } => Some(table),
            Opening::Topic { table, .. } => table.as_deref(),
            Opening::Manifests { .. } => None,
        }
    }
}

/// The lanes in an object, which must be what was stored under its key.
fn decode_object(
    key: &str,
    bytes: Option<Vec<u8>>,
    shape: &Shape,
) -> Result<BTreeMap<Partition, LaneState>, Unreadable> {
    let damaged = |why: String| Unreadable::Damaged(format!("object \"{key}\" {why}"));
    let bytes = bytes.ok_or_else(|| damaged("is not in the bucket".to_owned()))?;
    if !Names::is_object_of(key, &sha256_hex(&bytes)) {
        let why = "does not have the hash that its name says: it is damaged";
        return Err(damaged(why.to_owned()));
    }
    checkpoint::decode(&bytes, shape).map_err(|why| match why {
        Unreadable::Damaged(why) => Unreadable::Damaged(format!("object \"{key}\": {why}")),
        Unreadable::OtherVersion(_) => why,
    })
}

fn checkpoint_unreadable(why: &Unreadable) -> Trouble {
    format!("cannot read the newest checkpoint: {why}; the one before it is taken").into()
}

/// The lanes as the checkpoint has them. One that it does not have begins at its start offset.
fn restore(
    states: BTreeMap<Partition, LaneState>,
    head: &Head,
    facts: &TopicFacts,
    lease: &Lease,
    step: &mut Step<'_>,
) -> Result<Counting, Break> {
    let mut table = Table::at_head(head);
    table.restore(head, Ok(states), &step.rules.shape, step.now);
    go_on(table, head, facts, lease, step)
}

/// No checkpoint can be read: the lanes are where the last commit left them, and what open windows
/// had counted is lost.
fn restore_without(
    unreadable: &Unreadable,
    head: &Head,
    facts: &TopicFacts,
    lease: &Lease,
    step: &mut Step<'_>,
) -> Result<Counting, Break> {
    let why = format!(
        "cannot read any checkpoint of table {}: {unreadable}",
        step.table()
    );
    if !step.rules.continue_on_data_loss {
        let (cause, way_on) = match unreadable {
            Unreadable::Damaged(_) => (Cause::DataLoss, "restore it from a backup, or"),
            // Nothing is lost, so this is no loss of data.
            Unreadable::OtherVersion(_) => (
                Cause::OtherCheckpoint,
                "run the windrow that wrote it, which counts on from there; or, where that cannot \
                 be,",
            ),
        };
        let why = format!(
            "{why}; {way_on} set on-data-loss: continue to go on without what open windows had \
             counted"
        );
        return Err(Break::Fail(Trouble::new(cause, why)));
    }
    let mut table = Table::at_head(head);
    table.restore(head, Err(why), &step.rules.shape, step.now);
    go_on(table, head, facts, lease, step)
}

/// Counts on from the last commit, now that the table is restored.
fn go_on(
    table: Table,
    head: &Head,
    facts: &TopicFacts,
    lease: &Lease,
    step: &mut Step<'_>,
) -> Result<Counting, Break> {
    step.troubles.end(Side::Store);
    Counting::resume(
        lease.owner().clone(),
        table,
        Topic::at_head(head, step),
        facts,
        step,
    )
}

/// Epoch 0: everything that later epochs only refer to.
fn genesis(facts: TopicFacts, place: &Place, step: &Step<'_>) -> Genesis {
    let at_end = step.rules.start_at_end;
    let start = |(first, end): (i64, i64)| if at_end { end } else { first };
    Genesis {
        shape: step.rules.shape.clone(),
        warehouse: place.clone(),
        cluster_id: facts.cluster_id,
        topic_id: facts.topic_id,
        start_offsets: facts
            .partitions
            .into_iter()
            .map(|(p, limits)| (p, start(limits)))
            .collect(),
        empty_file: empty_file(step.rules, step.names).0,
        adopted: None,
    }
}

fn ask_checkpoint(key: &str, step: &mut Step<'_>) {
    if step.questions.checkpoint.due() {
        step.ask(StoreRequest::Get {
            key: key.to_owned(),
        });
    }
}
