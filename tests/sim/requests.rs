//! Requests on their way: they arrive late, are lost, outlive their sender, or their answers are lost.

use crate::process::Answer;
use crate::store::Mistake;
use crate::world::World;
use std::sync::Arc;
use windrow_core::engine::{Effect, LogEnd, TopicFacts};
use windrow_core::table::commit::{CatalogError, Commit};
use windrow_core::values::record::Partition;

/// What became of a request on its way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Fine,
    NeverArrived,
    AnswerLost,
}

fn gone() -> String {
    "connection lost".to_owned()
}

impl World {
    /// One request arrives, is lost on the way, or its answer is.
    pub fn request(&mut self) -> Result<(), String> {
        if !self.limits.is_empty() && (self.requests.is_empty() || self.rng.one_in(3)) {
            self.tell_limits();
            return Ok(());
        }
        if self.requests.is_empty() {
            return Ok(());
        }
        // One sender's requests to the catalog arrive in order, as on one connection; the others in any order.
        let at = self.rng.below(self.requests.len() as u64) as usize;
        let sender = self.requests[at].0;
        let at = if to_catalog(&self.requests[at].1) {
            self.requests
                .iter()
                .position(|(s, e)| *s == sender && to_catalog(e))
                .expect("it is one of them")
        } else {
            at
        };
        let (sender, effect) = self.requests.remove(at);
        let dead = !self.processes.iter().any(|p| p.id == sender);
        if dead && self.rng.one_in(2) {
            return Ok(());
        }
        self.summary.zombie_writes += u64::from(dead);
        let way = match (self.fails(), self.fails()) {
            (true, _) => Way::NeverArrived,
            (false, true) => Way::AnswerLost,
            _ => Way::Fine,
        };
        self.summary.lost_answers += u64::from(way != Way::Fine);
        let answer = if to_catalog(&effect) {
            self.ask_catalog(sender, effect, way)
        } else if let Effect::Put { key, bytes } = effect {
            Some(self.put(key, bytes, way))
        } else {
            Some(self.look(sender, effect, way == Way::Fine))
        };
        if let (Some(answer), Some(process)) =
            (answer, self.processes.iter_mut().find(|p| p.id == sender))
        {
            process.inbox.push_back(answer);
        }
        Ok(())
    }

    fn ask_catalog(&mut self, sender: u64, effect: Effect, way: Way) -> Option<Answer> {
        let (db_now, lease_ms, mistake) = (self.db_now(), self.settings.lease_ms, self.mistake);
        Some(match effect {
            Effect::Acquire if way == Way::NeverArrived => {
                Answer::Acquired(Err(CatalogError::Retry(gone().into())))
            }
            Effect::Acquire => {
                let id = sender.to_string();
                let answer =
                    self.catalog
                        .acquire(db_now, &format!("unit/{id}"), &id, lease_ms, mistake);
                Answer::Acquired(if way == Way::AnswerLost {
                    Err(CatalogError::Retry(gone().into()))
                } else {
                    answer
                })
            }
            Effect::Renew { .. } if way == Way::NeverArrived => {
                Answer::Renewed(Err(CatalogError::Retry(gone().into())))
            }
            Effect::Renew { owner } => {
                let answer = self.catalog.renew(db_now, &owner, lease_ms);
                Answer::Renewed(if way == Way::AnswerLost {
                    Err(CatalogError::Retry(gone().into()))
                } else {
                    answer
                })
            }
            Effect::Release { owner } => {
                self.catalog.release(&owner);
                return None;
            }
            Effect::Commit(commit) => self.commit(&commit, way),
            Effect::Find { epoch, .. } if way != Way::Fine => {
                Answer::Found(epoch, Err(CatalogError::Retry(gone().into())))
            }
            Effect::Find { epoch, .. } => Answer::Found(epoch, Ok(self.catalog.outcome(epoch))),
            other => unreachable!("not for the catalog: {other:?}"),
        })
    }

    fn commit(&mut self, commit: &Commit, way: Way) -> Answer {
        let (db_now, mistake) = (self.db_now(), self.mistake);
        let result = if way == Way::NeverArrived {
            let told = self.rng.one_in(2);
            Err(if told {
                CatalogError::Retry(gone().into())
            } else {
                CatalogError::Unknown(gone())
            })
        } else {
            let result = self.catalog.commit(db_now, commit, &self.objects, mistake);
            if way == Way::AnswerLost {
                Err(CatalogError::Unknown(gone()))
            } else {
                result
            }
        };
        let result = match (mistake, result) {
            (Some(Mistake::UnknownIsSuccess), Err(CatalogError::Unknown(_))) => Ok(db_now),
            (Some(Mistake::UnknownIsFailure), Err(CatalogError::Unknown(reason))) => {
                // The same rows under another number.
                let mut again = commit.clone();
                again.epoch = self.catalog.epochs.len() as u64;
                self.catalog.epochs.push((again, db_now));
                Err(CatalogError::Retry(reason.into()))
            }
            (_, result) => result,
        };
        Answer::Committed(commit.epoch, result)
    }

    fn put(&mut self, key: String, bytes: Arc<Vec<u8>>, way: Way) -> Answer {
        let early = self.mistake == Some(Mistake::FilesAfterCommit) && key.ends_with(".parquet");
        if early && self.rng.one_in(2) {
            // Told as stored while it is still under way; a crash of the sender loses it.
            return Answer::Stored(key, Ok(()));
        }
        if way == Way::NeverArrived {
            return Answer::Stored(key, Err(gone()));
        }
        let damaged = self.mistake == Some(Mistake::FileDamaged) && self.rng.one_in(5);
        let bytes = if damaged {
            let mut other = bytes.to_vec();
            let middle = other.len() / 2;
            other[middle] ^= 1;
            Arc::new(other)
        } else {
            bytes
        };
        self.objects.insert(key.clone(), bytes);
        Answer::Stored(
            key,
            if way == Way::AnswerLost {
                Err(gone())
            } else {
                Ok(())
            },
        )
    }

    /// What changes nothing: questions to brokers and to the store.
    fn look(&mut self, sender: u64, effect: Effect, fine: bool) -> Answer {
        let up = fine && self.now >= self.kafka_down_until;
        match effect {
            Effect::LookUpTopic => Answer::Topic(if up { Ok(self.facts()) } else { Err(gone()) }),
            Effect::CheckTopic => {
                Answer::TopicId(if up { Ok(self.topic_id()) } else { Err(gone()) })
            }
            Effect::LookAtEnd { partition } => {
                let lies = self.mistake == Some(Mistake::EndAlwaysHere);
                let there = self.topic().logs.get(&partition).map(|log| log.visible);
                let Some(mut end) = there.filter(|_| up || lies) else {
                    return Answer::Looked(partition, Err(gone()));
                };
                let now = self.now;
                if let Some(process) = self.processes.iter_mut().find(|p| p.id == sender) {
                    process.looks.entry(partition).or_default().push((end, now));
                    let here = process
                        .engine
                        .lanes()
                        .get(&partition)
                        .map(|lane| lane.ledger.next_offset);
                    end = here.filter(|_| lies).unwrap_or(end);
                }
                Answer::Looked(
                    partition,
                    Ok(LogEnd {
                        last_stable: end,
                        high_watermark: end,
                    }),
                )
            }
            Effect::ListManifests { prefix } => Answer::Manifests(if fine {
                Ok(self
                    .objects
                    .keys()
                    .filter(|k| k.starts_with(&prefix))
                    .cloned()
                    .collect())
            } else {
                Err(gone())
            }),
            Effect::FetchCheckpoint { key } => Answer::Checkpoint(if fine {
                self.objects
                    .get(&key)
                    .map(|b| b.to_vec())
                    .ok_or_else(|| format!("no object {key}"))
            } else {
                Err(gone())
            }),
            other => unreachable!("not a request: {other:?}"),
        }
    }

    /// As the driver does: it asks until it is told.
    fn tell_limits(&mut self) {
        let at = self.rng.below(self.limits.len() as u64) as usize;
        let (sender, p) = self.limits[at];
        if self.now < self.kafka_down_until || self.fails() {
            return;
        }
        self.limits.remove(at);
        let limits = self
            .topic()
            .logs
            .get(&p)
            .map(|log| (log.start, log.visible));
        if let (Some((start, end)), Some(process)) = (
            limits,
            self.processes
                .iter_mut()
                .find(|process| process.id == sender),
        ) {
            process.inbox.push_back(Answer::Limits(p, start, end));
        }
    }

    fn topic_id(&self) -> String {
        let kept = self.mistake == Some(Mistake::TopicIdKept);
        if kept {
            self.topics[0].id.clone()
        } else {
            self.topic().id.clone()
        }
    }

    fn facts(&self) -> TopicFacts {
        let there = self
            .topic()
            .logs
            .iter()
            .filter(|(_, log)| log.exists_from <= self.now);
        TopicFacts {
            cluster_id: "c".to_owned(),
            topic_id: self.topic_id(),
            partitions: there
                .map(|(p, log): (&Partition, _)| (*p, (log.start, log.visible)))
                .collect(),
        }
    }
}

fn to_catalog(effect: &Effect) -> bool {
    matches!(
        effect,
        Effect::Acquire
            | Effect::Renew { .. }
            | Effect::Release { .. }
            | Effect::Commit(_)
            | Effect::Find { .. }
    )
}
