//! The topic of a verification: what the brokers say of it, and its records for a recount.
#![expect(
    clippy::disallowed_methods,
    reason = "it measures how long nothing came"
)]

use crate::io::kafka::{self, Brokers, Event, KafkaConfig, KafkaError, Reader};
use anyhow::{anyhow, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use windrow_core::values::record::{Offset, Partition};
use windrow_core::verify::recount::Recount;
use windrow_core::verify::report::{Finding, Kind};

/// How long brokers may take to answer.
const ASK_MAX: Duration = Duration::from_secs(20);
/// How long no record may come while some are wanted.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// How long one look into the queues of the topic takes at most.
const POLL: Duration = Duration::from_millis(100);

/// What the brokers say of the topic.
pub(super) struct Topic {
    /// Kafka's id of it.
    pub(super) id: String,
    /// The first offset of each topic partition that is still there; `None` where there is no
    /// topic.
    pub(super) log_start: Option<BTreeMap<Partition, Offset>>,
    pub(super) reader: Option<Reader>,
    /// Why there is no topic.
    pub(super) note: Option<String>,
}

impl Topic {
    /// Asks the brokers. A topic that is no longer there is not an error.
    pub(super) fn ask(config: KafkaConfig) -> anyhow::Result<Self> {
        match Self::ask_brokers(config) {
            Ok(topic) => Ok(topic),
            Err(error @ KafkaError::NotThere(_)) => Ok(Self {
                id: String::new(),
                log_start: None,
                reader: None,
                note: Some(format!("nothing was compared with the log: {error}")),
            }),
            Err(error) => Err(anyhow!("cannot count the log again: {error}")),
        }
    }

    fn ask_brokers(mut config: KafkaConfig) -> Result<Self, KafkaError> {
        let (mut brokers, mut reader): (Brokers, Reader) = kafka::open(&config)?;
        let info = brokers.topic(ASK_MAX)?;
        if config.share_out(info.partitions.len()) {
            (brokers, reader) = kafka::open(&config)?;
        }
        let log_start = brokers.offsets(&info.partitions, kafka::At::Earliest, ASK_MAX)?;
        Ok(Self {
            id: info.topic_id,
            log_start: Some(log_start),
            reader: Some(reader),
            note: None,
        })
    }
}

/// Reads the topic for a recount.
pub(super) struct Feeds {
    /// When something came last.
    moved_at: Instant,
    /// Topic partitions that are read.
    open: BTreeSet<Partition>,
    /// Those of them that wait for others.
    paused: BTreeSet<Partition>,
    /// The log ends before the last commit.
    pub(super) too_short: Option<Finding>,
}

impl Feeds {
    pub(super) fn start(reader: &mut Reader, recount: &Recount) -> anyhow::Result<Self> {
        let begins = recount.begins();
        for (partition, offset) in &begins {
            reader.start(*partition, *offset, -1)?;
        }
        Ok(Self {
            moved_at: Instant::now(),
            open: begins.into_keys().collect(),
            paused: BTreeSet::new(),
            too_short: None,
        })
    }

    /// Hands what has come to the recount, and says how many bytes that was.
    pub(super) fn read_on(
        &mut self,
        reader: &mut Reader,
        recount: &mut Recount,
    ) -> anyhow::Result<u64> {
        let (mut moved, mut failed, mut lost, mut short) = (0, None, Vec::new(), None);
        reader.poll(POLL, &mut |event| match event {
            Event::Batch {
                partition,
                batch,
                bytes,
                next_offset,
                ..
            } => {
                moved += bytes as u64 + 1;
                recount.take(partition, batch, next_offset);
            }
            Event::End {
                partition,
                next_offset,
            } => {
                recount.end(partition, next_offset);
                if !recount.is_at_goal(partition) {
                    short = Some((partition, next_offset));
                }
            }
            Event::OutOfRange { partition, offset } => lost.push((partition, offset)),
            Event::Truncated { partition, why, .. } => {
                failed = Some(format!("topic partition {partition} was cut off: {why}"))
            }
            Event::Problem {
                what: what @ (KafkaError::Unreachable(_) | KafkaError::GroupDenied(_)),
                ..
            } => tracing::debug!(error = %what, "cannot read for the moment"),
            Event::Problem { what, .. } => failed = Some(what.to_string()),
        })?;
        if let Some((partition, offset)) = lost.first() {
            failed = Some(format!(
                "the log of topic partition {partition} has no offset {offset} any more; it was \
                 deleted meanwhile, so verify again"
            ));
        }
        if let Some(why) = failed {
            bail!("cannot count the log again: {why}");
        }
        self.too_short = short.map(|(partition, end)| {
            let text = format!(
                "the log of topic partition {partition} ends at offset {end}, before the last \
                 commit; it was cut off"
            );
            Finding::new(Kind::Log, text)
        });
        self.hold_back(reader, recount);
        if moved > 0 {
            self.moved_at = Instant::now();
        } else if self.moved_at.elapsed() > SILENCE_MAX {
            bail!(
                "cannot count the log again: no record came for {} s; is a broker away, or has the \
                 log fewer records than were committed?",
                SILENCE_MAX.as_secs()
            );
        }
        Ok(moved)
    }

    /// Ends what is read to its end, and pauses what would take memory while others are behind.
    fn hold_back(&mut self, reader: &mut Reader, recount: &Recount) {
        let ahead = recount.ahead();
        self.open.retain(|partition| {
            let is_open = !recount.is_at_goal(*partition);
            if !is_open {
                reader.stop(*partition);
            }
            is_open
        });
        for partition in &self.open {
            if ahead.contains(partition) && self.paused.insert(*partition) {
                reader.pause(*partition);
            } else if !ahead.contains(partition) && self.paused.remove(partition) {
                reader.resume(*partition);
            }
        }
    }
}
