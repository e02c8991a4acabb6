//! Requests on their way: they arrive late, are lost, outlive their sender, or their answers are
//! lost. What a request does where it arrives is in `hands`.

use crate::hands::{self, Client};
use crate::process::{Look, News};
use crate::store::Mistake;
use crate::topic::Log;
use crate::world::World;
use std::collections::BTreeMap;
use std::sync::Arc;
use windrow_core::engine::{
    Answer, BrokersAnswer, CatalogAnswer, CatalogRequest, Request, StoreAnswer, StoreRequest,
    TopicFacts,
};
use windrow_core::table::commit::{Acquired, CatalogError, Commit};
use windrow_core::values::record::{Offset, Partition};

/// How long a connection to the catalog stands still. A lease lasts 3 s.
const STALLS_MS: [u64; 3] = [1000, 8000, 12_000];

/// A request on its way.
pub struct Sent {
    /// The process that sent it. It may be dead by now.
    pub sender: u64,
    /// Where its sender kept objects when it was sent.
    pub warehouse: Option<String>,
    pub request: Request,
}

/// What becomes of a request on its way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Fine,
    NeverArrived,
    AnswerLost,
}

fn connection_lost() -> CatalogError {
    CatalogError::Retry("connection lost".into())
}

fn outcome_unknown() -> CatalogError {
    CatalogError::Unknown("connection lost".to_owned())
}

impl World {
    /// One request arrives, is lost on the way, or its answer is.
    pub fn carry_request(&mut self) -> Result<(), String> {
        let Some(sent) = self.next_request() else {
            return Ok(());
        };
        let dead = !self.processes.iter().any(|p| p.id == sent.sender);
        if dead && self.rng.one_in(self.faults.lost_with_sender_one_in) {
            return Ok(());
        }
        self.summary.zombie_writes += u64::from(dead);
        let way = match (self.fails(), self.fails()) {
            (true, _) => Way::NeverArrived,
            (false, true) => Way::AnswerLost,
            _ => Way::Fine,
        };
        self.summary.lost_answers += u64::from(way != Way::Fine);
        let (sender, request) = (sent.sender, sent.request.clone());
        let answer = match way {
            Way::NeverArrived => self
                .lie_instead(&sent)
                .or_else(|| self.not_arrived(&request)),
            Way::AnswerLost => {
                let answer = self.arrive(sent)?;
                answer.and_then(|_| hands::failure(&request, lost_answer(&request)))
            }
            Way::Fine => self.arrive(sent)?,
        };
        let answer = self.mistake_answer(&request, answer);
        if let (Some(answer), Some(process)) =
            (answer, self.processes.iter_mut().find(|p| p.id == sender))
        {
            process.inbox.push_back(News::Answer(answer));
        }
        Ok(())
    }

    /// Requests of one sender to the catalog arrive in the order in which they were sent, as over
    /// one
    /// connection; all others in any order.
    fn next_request(&mut self) -> Option<Sent> {
        let to_catalog = |sent: &Sent| matches!(sent.request, Request::Catalog(_));
        let now = self.now;
        let stalls = |sent: &Sent| {
            let until = self.stalled_until.get(&sent.sender);
            to_catalog(sent) && until.is_some_and(|until| now < *until)
        };
        let arrive: Vec<usize> = (0..self.requests.len())
            .filter(|at| !stalls(&self.requests[*at]))
            .collect();
        if arrive.is_empty() {
            return None;
        }
        let at = self.rng.pick(&arrive);
        let sender = self.requests[at].sender;
        let at = if to_catalog(&self.requests[at]) {
            let first = |sent: &Sent| sent.sender == sender && to_catalog(sent);
            self.requests
                .iter()
                .position(first)
                .expect("it is one of them")
        } else {
            at
        };
        Some(self.requests.remove(at))
    }

    /// From time to time nothing that a process has sent to the catalog arrives for longer than its
    /// lease, just as an epoch of it is on its way: another process may commit under that number.
    pub fn let_a_connection_stall(&mut self) {
        if self.faults.lost_one_in == 0 {
            return;
        }
        // After a lost answer, most of all: the epoch is then not known to be there.
        let asks = |sent: &Sent| {
            matches!(
                sent.request,
                Request::Catalog(CatalogRequest::Outcome { .. })
            )
        };
        let one_in = if self.requests.iter().any(asks) {
            2
        } else {
            10
        };
        if !self.rng.one_in(one_in) {
            return;
        }
        let of_an_epoch = |sent: &&Sent| {
            matches!(
                sent.request,
                Request::Catalog(CatalogRequest::Commit { .. } | CatalogRequest::Outcome { .. })
            )
        };
        if let Some(sent) = self.requests.iter().find(of_an_epoch) {
            let until = self.now + self.rng.pick(&STALLS_MS);
            self.stalled_until.insert(sent.sender, until);
            self.summary.stalls += 1;
        }
    }

    /// The request is carried out.
    fn arrive(&mut self, sent: Sent) -> Result<Option<Answer>, String> {
        let Sent {
            sender,
            warehouse,
            request,
        } = sent;
        Ok(match request {
            Request::Catalog(request) => self.ask_catalog(sender, request)?.map(Answer::Catalog),
            Request::Brokers(_) if self.now < self.kafka_down_until => {
                let lie = self.lie_instead(&Sent {
                    sender,
                    warehouse,
                    request: request.clone(),
                });
                lie.or_else(|| hands::failure(&request, connection_lost()))
            }
            Request::Brokers(request) => {
                let facts = self.facts_of_a_broker();
                let mut answer = hands::ask_brokers(&facts, &request);
                self.set_log_end(&mut answer);
                if let BrokersAnswer::Topic(Ok(facts)) = &answer
                    && self.catalog.epochs.is_empty()
                {
                    self.topics_told.push(facts.clone());
                }
                Some(Answer::Brokers(self.note_log_end(sender, answer)))
            }
            Request::Store(request) => {
                Some(Answer::Store(self.ask_store(sender, warehouse, request)?))
            }
        })
    }

    fn ask_catalog(
        &mut self,
        sender: u64,
        request: CatalogRequest,
    ) -> Result<Option<CatalogAnswer>, String> {
        if let CatalogRequest::Commit { commit, .. } = &request {
            self.fail_over_before_commit();
            self.set_clock_before_commit();
            self.check_not_doomed(commit)?;
        }
        if let CatalogRequest::DropEmptied { emptied_ms, .. } = &request
            && *emptied_ms < self.settings.compaction.emptied_ms
        {
            return Err(format!(
                "table partitions are deleted that were emptied {emptied_ms} ms ago, but a query \
                 that was planned before may still look them up"
            ));
        }
        if let CatalogRequest::Forget { keys, .. } = &request {
            self.check_forgotten(keys)?;
        }
        let client = Client {
            owner_id: sender.to_string(),
            lease_ms: self.settings.lease_ms,
            mistake: self.mistake,
        };
        let now = self.db_now();
        let warehouse = warehouse_of(&request).or_else(|| self.catalog.warehouse());
        let objects = self
            .stores
            .entry(warehouse.unwrap_or_default())
            .or_default();
        let before = self.catalog.epochs.len();
        let answer = hands::ask_catalog(&mut self.catalog, objects, &client, now, request);
        if self.catalog.epochs.len() > before {
            self.commit_is_by_a_right_clock(sender)?;
            self.new_epoch_is_allowed()?;
            self.chain_is_followed()?;
        }
        if let Some(CatalogAnswer::Acquire(Ok(Acquired::Ours { .. }))) = &answer {
            self.note_chain();
        }
        let off_ms = self.db_ahead.unsigned_abs();
        self.deletions.note_doomed(&self.catalog, self.now, off_ms);
        self.back_up();
        if let Some(CatalogAnswer::Doom(Ok(keys))) = &answer {
            self.summary.doomed += keys.len() as u64;
        }
        Ok(answer)
    }

    /// Whoever took the table last has committed, and epoch 0 begins where the settings say.
    fn new_epoch_is_allowed(&self) -> Result<(), String> {
        let Some((commit, _)) = self.catalog.epochs.last() else {
            return Ok(());
        };
        // A failover may forget who took the table.
        let known = !self.faults.epochs_are_forgotten;
        if known && commit.owner.term != self.catalog.owners {
            return Err(format!(
                "epoch {} is of term {}, but the table was taken {} times",
                commit.epoch, commit.owner.term, self.catalog.owners
            ));
        }
        let Some(genesis) = &commit.genesis else {
            return Ok(());
        };
        let begins = |limits: &(Offset, Offset)| {
            if self.settings.start_at_end {
                limits.1
            } else {
                limits.0
            }
        };
        let said = |facts: &TopicFacts| {
            let partitions = facts.partitions.iter();
            let starts = partitions.map(|(p, limits)| (*p, begins(limits)));
            starts.eq(genesis.start_offsets.iter().map(|(p, start)| (*p, *start)))
        };
        if self.topics_told.iter().any(said) {
            return Ok(());
        }
        Err(format!(
            "the table begins at {:?}, but the brokers never said so: {:?}",
            genesis.start_offsets, self.topics_told
        ))
    }

    fn ask_store(
        &mut self,
        sender: u64,
        warehouse: Option<String>,
        request: StoreRequest,
    ) -> Result<StoreAnswer, String> {
        let Some(warehouse) = warehouse else {
            return Err(format!(
                "it does not know where the table lies, and asks {request:?}"
            ));
        };
        let request = match request {
            StoreRequest::Put { key, bytes } => {
                let early = self.mistake == Some(Mistake::FilesAfterCommit);
                if early && key.ends_with(".parquet") && self.rng.one_in(2) {
                    // It is said to be stored while it is still on its way, and then it is lost.
                    return Ok(StoreAnswer::Put {
                        key,
                        result: Ok(()),
                    });
                }
                self.deletions.note_put(&key, self.now);
                StoreRequest::Put {
                    key,
                    bytes: self.damaged_or_not(bytes),
                }
            }
            StoreRequest::Delete { keys } => {
                self.check_deletion(sender, &keys)?;
                return Ok(self.delete(warehouse, keys));
            }
            // The manifests of a lost catalog are old, so their listing is never a stale one.
            StoreRequest::ListPage { prefix, after } if !prefix.ends_with("/manifests/") => {
                return Ok(self.list_page(warehouse, StoreRequest::ListPage { prefix, after }));
            }
            StoreRequest::Merge(order) => {
                self.deletions.note_merge(&order.keys, self.now)?;
                let objects = self.stores.entry(warehouse.clone()).or_default();
                self.upkeep.lose_a_source(&order, objects);
                StoreRequest::Merge(order)
            }
            request @ (StoreRequest::ListPage { .. }
            | StoreRequest::Get { .. }
            | StoreRequest::Check { .. }
            | StoreRequest::AbortUploads { .. }) => request,
        };
        Ok(hands::ask_store(
            self.stores.entry(warehouse).or_default(),
            request,
        ))
    }

    fn damaged_or_not(&mut self, bytes: Arc<Vec<u8>>) -> Arc<Vec<u8>> {
        if self.mistake != Some(Mistake::FileDamaged) || !self.rng.one_in(5) {
            return bytes;
        }
        let mut damaged = bytes.to_vec();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 1;
        Arc::new(damaged)
    }

    /// What the sender learns of a request that never arrived.
    fn not_arrived(&mut self, request: &Request) -> Option<Answer> {
        // Nobody can tell whether a commit arrived, unless it was not even sent.
        let commit = matches!(request, Request::Catalog(CatalogRequest::Commit { .. }));
        let error = if commit && self.rng.one_in(2) {
            outcome_unknown()
        } else {
            connection_lost()
        };
        hands::failure(request, error)
    }

    /// The end of a log as the broker tells it: a transaction may be open, and a broker that is
    /// behind tells an older end.
    fn set_log_end(&mut self, answer: &mut BrokersAnswer) {
        let BrokersAnswer::LogEnd {
            partition,
            end: Ok(end),
        } = answer
        else {
            return;
        };
        let told = end.high_watermark;
        if let Some(log) = self
            .topic()
            .logs
            .get(partition)
            .filter(|log| log.visible == told)
        {
            end.high_watermark = log.high_watermark(self.now).max(end.high_watermark);
        }
        let stale = self.faults.stale_broker_one_in;
        if stale > 0 && self.rng.one_in(stale) {
            self.summary.stale_answers += 1;
            let behind = self.rng.below(10) as i64;
            end.last_stable = (end.last_stable - behind).max(0);
            end.high_watermark = end.last_stable;
        }
    }

    /// Remembers where the log ended when a process asked, for the auditor of idle floors.
    fn note_log_end(&mut self, sender: u64, answer: BrokersAnswer) -> BrokersAnswer {
        let BrokersAnswer::LogEnd {
            partition,
            end: Ok(mut end),
        } = answer
        else {
            return answer;
        };
        let lies = self.mistake == Some(Mistake::EndAlwaysHere);
        let world = self.now;
        if let Some(process) = self.processes.iter_mut().find(|p| p.id == sender) {
            let now = world - process.clocks.slept;
            let asked_at = process.asked_at.get(&partition).copied();
            let greatest = process.greatest_when_asked.get(&partition).copied();
            process.looks.entry(partition).or_default().push(Look {
                end: end.high_watermark,
                at: now,
                greatest: greatest.flatten(),
                heard: false,
                reached_at: None,
                proves_something: end.last_stable == end.high_watermark
                    && asked_at.is_some_and(|next| next <= end.high_watermark),
            });
            let lane = process.engine.lanes().get(&partition);
            if let Some(lane) = lane.filter(|_| lies) {
                end.last_stable = lane.ledger.next_offset;
                end.high_watermark = lane.ledger.next_offset;
            }
        }
        BrokersAnswer::LogEnd {
            partition,
            end: Ok(end),
        }
    }

    /// [`Mistake::EndAlwaysHere`]: a log's end is told although no broker was asked.
    fn lie_instead(&mut self, sent: &Sent) -> Option<Answer> {
        let Request::Brokers(request) = &sent.request else {
            return None;
        };
        if self.mistake != Some(Mistake::EndAlwaysHere) {
            return None;
        }
        let answer = hands::ask_brokers(&self.topic_facts(), request);
        let is_end = matches!(answer, BrokersAnswer::LogEnd { .. });
        is_end.then(|| Answer::Brokers(self.note_log_end(sent.sender, answer)))
    }

    /// What a sender that is mistaken makes of an answer.
    fn mistake_answer(&mut self, request: &Request, answer: Option<Answer>) -> Option<Answer> {
        let (Some(mistake), Request::Catalog(CatalogRequest::Commit { commit, .. })) =
            (self.mistake, request)
        else {
            return answer;
        };
        let Some(Answer::Catalog(CatalogAnswer::Commit {
            epoch,
            result: Err(CatalogError::Unknown(_)),
        })) = answer
        else {
            return answer;
        };
        let result = match mistake {
            Mistake::UnknownIsSuccess => Ok(self.db_now()),
            Mistake::UnknownIsFailure => {
                self.commit_again(commit);
                Err(connection_lost())
            }
            _ => return answer,
        };
        Some(Answer::Catalog(CatalogAnswer::Commit { epoch, result }))
    }

    /// The same rows under the next number.
    fn commit_again(&mut self, commit: &Commit) {
        let mut again = commit.clone();
        again.epoch = self.catalog.epochs.len() as u64;
        let now = self.db_now();
        self.catalog.epochs.push((again, now));
    }

    /// The topic as brokers know it now.
    pub fn topic_facts(&self) -> TopicFacts {
        let kept = self.mistake == Some(Mistake::TopicIdKept);
        let id = if kept {
            &self.topics[0].id
        } else {
            &self.topic().id
        };
        let there = self
            .topic()
            .logs
            .iter()
            .filter(|(_, log)| log.exists_from <= self.now);
        let later = Offset::from(self.mistake == Some(Mistake::StartTooFar));
        let start = |log: &Log| log.start + later * Offset::from(log.start < log.visible);
        TopicFacts {
            cluster_id: "c".to_owned(),
            unknown: BTreeMap::new(),
            topic_id: id.clone(),
            partitions: there
                .map(|(p, log): (&Partition, _)| (*p, (start(log), log.visible)))
                .collect(),
        }
    }
}

/// What the sender learns when the answer is lost.
fn lost_answer(request: &Request) -> CatalogError {
    match request {
        Request::Catalog(CatalogRequest::Commit { .. }) => outcome_unknown(),
        _ => connection_lost(),
    }
}

/// The warehouse that epoch 0 names; `None` for every other request.
fn warehouse_of(request: &CatalogRequest) -> Option<String> {
    match request {
        CatalogRequest::Commit { commit, .. } => commit
            .genesis
            .as_ref()
            .map(|genesis| genesis.warehouse.to_string()),
        _ => None,
    }
}
