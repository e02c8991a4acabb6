//! Requests on their way: they arrive late, are lost, outlive their sender, or their answers are lost.

use crate::process::News;
use crate::store::Mistake;
use crate::world::World;
use std::sync::Arc;
use windrow_core::engine::{
    Answer, BrokersAnswer, BrokersRequest, CatalogAnswer, CatalogRequest, LogEnd, Request,
    StoreAnswer, StoreRequest, TopicFacts,
};
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
        let (sender, request) = self.requests.remove(at);
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
        let fine = way == Way::Fine;
        let answer = match request {
            Request::Catalog(request) => {
                self.ask_catalog(sender, request, way).map(Answer::Catalog)
            }
            Request::Brokers(request) => {
                Some(Answer::Brokers(self.ask_brokers(sender, &request, fine)))
            }
            Request::Store(StoreRequest::Put { key, bytes }) => {
                Some(Answer::Store(self.put(key, bytes, way)))
            }
            Request::Store(request) => Some(Answer::Store(self.look(request, fine))),
        };
        if let (Some(answer), Some(process)) =
            (answer, self.processes.iter_mut().find(|p| p.id == sender))
        {
            process.inbox.push_back(News::Answer(answer));
        }
        Ok(())
    }

    fn ask_catalog(
        &mut self,
        sender: u64,
        request: CatalogRequest,
        way: Way,
    ) -> Option<CatalogAnswer> {
        let (db_now, lease_ms, mistake) = (self.db_now(), self.settings.lease_ms, self.mistake);
        Some(match request {
            CatalogRequest::Acquire if way == Way::NeverArrived => {
                CatalogAnswer::Acquire(Err(CatalogError::Retry(gone().into())))
            }
            CatalogRequest::Acquire => {
                let id = sender.to_string();
                let answer =
                    self.catalog
                        .acquire(db_now, &format!("unit/{id}"), &id, lease_ms, mistake);
                CatalogAnswer::Acquire(if way == Way::AnswerLost {
                    Err(CatalogError::Retry(gone().into()))
                } else {
                    answer
                })
            }
            CatalogRequest::Renew { .. } if way == Way::NeverArrived => {
                CatalogAnswer::Renew(Err(CatalogError::Retry(gone().into())))
            }
            CatalogRequest::Renew { owner } => {
                let answer = self.catalog.renew(db_now, &owner, lease_ms);
                CatalogAnswer::Renew(if way == Way::AnswerLost {
                    Err(CatalogError::Retry(gone().into()))
                } else {
                    answer
                })
            }
            CatalogRequest::Release { owner } => {
                self.catalog.release(&owner);
                return None;
            }
            CatalogRequest::Commit(commit) => self.commit(&commit, way),
            CatalogRequest::Locate => unreachable!("the place is in the settings"),
            // Nothing is doomed or deleted yet.
            CatalogRequest::Doom { .. }
            | CatalogRequest::DoomedPast { .. }
            | CatalogRequest::Forget { .. } => return None,
            CatalogRequest::Outcome { epoch, .. } if way != Way::Fine => CatalogAnswer::Outcome {
                epoch,
                result: Err(CatalogError::Retry(gone().into())),
            },
            CatalogRequest::Outcome { epoch, .. } => CatalogAnswer::Outcome {
                epoch,
                result: Ok(self.catalog.outcome(epoch)),
            },
        })
    }

    fn commit(&mut self, commit: &Commit, way: Way) -> CatalogAnswer {
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
        CatalogAnswer::Commit {
            epoch: commit.epoch,
            result,
        }
    }

    fn put(&mut self, key: String, bytes: Arc<Vec<u8>>, way: Way) -> StoreAnswer {
        let early = self.mistake == Some(Mistake::FilesAfterCommit) && key.ends_with(".parquet");
        if early && self.rng.one_in(2) {
            // Told as stored while it is still under way; a crash of the sender loses it.
            return StoreAnswer::Put {
                key,
                result: Ok(()),
            };
        }
        if way == Way::NeverArrived {
            return StoreAnswer::Put {
                key,
                result: Err(gone().into()),
            };
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
        let lost = way == Way::AnswerLost;
        StoreAnswer::Put {
            key,
            result: if lost { Err(gone().into()) } else { Ok(()) },
        }
    }

    /// What changes nothing: questions to brokers.
    fn ask_brokers(&mut self, sender: u64, request: &BrokersRequest, fine: bool) -> BrokersAnswer {
        let up = fine && self.now >= self.kafka_down_until;
        match request {
            BrokersRequest::Topic => BrokersAnswer::Topic(if up {
                Ok(self.facts())
            } else {
                Err(gone().into())
            }),
            BrokersRequest::TopicId => BrokersAnswer::TopicId(if up {
                Ok(self.topic_id())
            } else {
                Err(gone().into())
            }),
            BrokersRequest::LogEnd { partition } => {
                let partition = *partition;
                let lies = self.mistake == Some(Mistake::EndAlwaysHere);
                let there = self.topic().logs.get(&partition).map(|log| log.visible);
                let Some(mut end) = there.filter(|_| up || lies) else {
                    return BrokersAnswer::LogEnd {
                        partition,
                        end: Err(gone()),
                    };
                };
                let now = self.now;
                if let Some(process) = self.processes.iter_mut().find(|p| p.id == sender) {
                    process.looks.entry(partition).or_default().push((end, now));
                    let lane = process.engine.lanes().get(&partition);
                    let here = lane.map(|lane| lane.ledger.next_offset);
                    end = here.filter(|_| lies).unwrap_or(end);
                }
                let end = Ok(LogEnd {
                    last_stable: end,
                    high_watermark: end,
                });
                BrokersAnswer::LogEnd { partition, end }
            }
            BrokersRequest::LogLimits { partition } => {
                let log = self.topic().logs.get(partition).filter(|_| up);
                BrokersAnswer::LogLimits {
                    partition: *partition,
                    limits: log.map(|log| (log.start, log.visible)).ok_or_else(gone),
                }
            }
        }
    }

    /// What changes nothing: questions to the store.
    fn look(&mut self, request: StoreRequest, fine: bool) -> StoreAnswer {
        match request {
            StoreRequest::List { prefix } => {
                let found = self
                    .objects
                    .keys()
                    .filter(|k| k.starts_with(&prefix))
                    .cloned();
                let result = if fine {
                    Ok(found.collect())
                } else {
                    Err(gone().into())
                };
                StoreAnswer::List { prefix, result }
            }
            StoreRequest::Get { key } => {
                let found = self.objects.get(&key).map(|bytes| bytes.to_vec());
                let result = if fine { Ok(found) } else { Err(gone().into()) };
                StoreAnswer::Get { key, result }
            }
            StoreRequest::Put { .. } | StoreRequest::Delete { .. } => {
                unreachable!("it changes something")
            }
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

fn to_catalog(request: &Request) -> bool {
    matches!(request, Request::Catalog(_))
}
