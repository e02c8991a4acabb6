//! The hands of an engine in tests: what an effect does to modelled readers, brokers, objects and
//! to the modelled catalog. Nothing fails here, and nothing takes time.
//!
//! The golden texts let every answer come at once. The simulation lays its faults around these
//! functions: it delays and loses requests, replaces answers by [`failure`], and makes mistakes.

use crate::store::{Catalog, Mistake};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use windrow_core::engine::{
    Answer, BrokersAnswer, BrokersRequest, CatalogAnswer, CatalogRequest, Effect, LogEnd,
    MergeFailure, MergeOrder, Request, StoreAnswer, StoreRequest, TopicFacts,
};
use windrow_core::table::commit::{CatalogError, NewFile};
use windrow_core::table::merge::{Merge, MergeStep, merge_side};
use windrow_core::values::cause::Trouble;
use windrow_core::values::digest::sha256_hex;
use windrow_core::values::object::{ListedObject, ObjectPage};
use windrow_core::values::record::{Offset, Partition};
use windrow_core::values::time::DbTime;

/// The reading of one topic partition.
pub struct Reader {
    pub next_offset: Offset,
    /// The leader epoch of the record before `next_offset`; -1 when it is unknown.
    pub leader_epoch: i32,
    /// In which topic of that name it was started, where the topic was made again. A reader goes on
    /// in the new one without a word.
    pub topic: usize,
    /// Flow control holds it back.
    pub held: bool,
    /// It has said that there is nothing more, and nothing came since.
    pub told_end: bool,
    /// It has said why it cannot go on.
    pub halted: bool,
}

/// The readers of one process.
#[derive(Default)]
pub struct Readers(pub BTreeMap<Partition, Reader>);

impl Readers {
    /// Does what an effect says about reading. Other effects change nothing here.
    pub fn perform(&mut self, effect: &Effect, topic: usize) {
        match effect {
            Effect::Start {
                partition,
                offset,
                leader_epoch,
            } => {
                let reader = Reader {
                    next_offset: *offset,
                    leader_epoch: *leader_epoch,
                    topic,
                    held: false,
                    told_end: false,
                    halted: false,
                };
                self.0.insert(*partition, reader);
            }
            Effect::StopAll => self.0.clear(),
            Effect::Hold { partition } => {
                if let Some(reader) = self.0.get_mut(partition) {
                    reader.held = true;
                }
            }
            Effect::Unhold { partition } => {
                if let Some(reader) = self.0.get_mut(partition) {
                    (reader.held, reader.told_end) = (false, false);
                }
            }
            _ => {}
        }
    }
}

/// What the brokers answer when the topic is like this.
pub fn ask_brokers(topic: &TopicFacts, request: &BrokersRequest) -> BrokersAnswer {
    let limits = |partition: Partition| topic.partitions.get(&partition).copied();
    match *request {
        BrokersRequest::Topic => BrokersAnswer::Topic(Ok(topic.clone())),
        BrokersRequest::TopicId => BrokersAnswer::TopicId(Ok(topic.topic_id.clone())),
        BrokersRequest::LogEnd { partition } => BrokersAnswer::LogEnd {
            partition,
            end: limits(partition).map_or_else(
                || Err("no such topic partition".to_owned()),
                |(_, end)| {
                    Ok(LogEnd {
                        last_stable: end,
                        high_watermark: end,
                    })
                },
            ),
        },
        BrokersRequest::LogLimits { partition } => BrokersAnswer::LogLimits {
            partition,
            limits: limits(partition).ok_or_else(|| "no such topic partition".to_owned()),
        },
    }
}

/// How many objects a page of a listing has, and how many doomed keys are told at a time. It is
/// small, so that pages follow each other.
pub const PAGE_MAX: usize = 20;

/// The objects below one warehouse, by key.
pub type Objects = BTreeMap<String, Arc<Vec<u8>>>;

/// Does what the object store is asked.
pub fn ask_store(objects: &mut Objects, request: StoreRequest) -> StoreAnswer {
    match request {
        StoreRequest::ListPage { prefix, after } => {
            let all = objects.keys().filter(|key| key.starts_with(&prefix));
            let mut rest = all.filter(|key| after.as_ref().is_none_or(|after| *key > after));
            let age_ms = 0;
            let page: Vec<ListedObject> = rest
                .by_ref()
                .take(PAGE_MAX)
                .map(|key| ListedObject {
                    key: key.clone(),
                    age_ms,
                })
                .collect();
            let next = rest.next().and(page.last()).map(|last| last.key.clone());
            StoreAnswer::ListPage {
                prefix,
                after,
                result: Ok(ObjectPage {
                    objects: page,
                    next,
                }),
            }
        }
        StoreRequest::Get { key } => {
            let result = Ok(objects.get(&key).map(|bytes| bytes.to_vec()));
            StoreAnswer::Get { key, result }
        }
        StoreRequest::Check {
            manifest,
            objects: wanted,
        } => {
            let wrong = wanted.iter().find(|wanted| {
                let bytes = objects.get(&wanted.key);
                let sha256 = bytes.map(|bytes| sha256_hex(bytes));
                sha256.is_none_or(|sha256| !sha256.starts_with(&wanted.sha256))
            });
            StoreAnswer::Check {
                manifest,
                result: Ok(wrong.map(|wanted| format!("{} is not as it must be", wanted.key))),
            }
        }
        StoreRequest::Put { key, bytes } => {
            objects.insert(key.clone(), bytes);
            StoreAnswer::Put {
                key,
                result: Ok(()),
            }
        }
        StoreRequest::Merge(order) => StoreAnswer::Merge {
            key: order.keys[0].clone(),
            result: merge(objects, &order),
        },
        StoreRequest::AbortUploads { .. } => StoreAnswer::AbortUploads(Ok(0)),
        StoreRequest::Delete { keys } => {
            objects.retain(|key, _| !keys.contains(key));
            StoreAnswer::Delete {
                gone: keys,
                kept: Vec::new(),
            }
        }
    }
}

/// Merges files as the order says, and stores the new ones.
fn merge(objects: &mut Objects, order: &MergeOrder) -> Result<Vec<NewFile>, MergeFailure> {
    let gone = |key: &str| MergeFailure {
        left_out: vec![key.to_owned()],
        trouble: "it is gone".into(),
    };
    let get = |objects: &Objects, key: &str| -> Result<Bytes, MergeFailure> {
        let bytes = objects.get(key).ok_or_else(|| gone(key))?;
        Ok(Bytes::from(bytes.to_vec()))
    };
    let sources = order.merge_sources();
    if let Some(table) = order.side_table() {
        let mut read = Vec::new();
        for source in sources {
            let bytes = get(objects, &source.key)?;
            read.push((source, bytes));
        }
        let merged = merge_side(table, order.timestamps, &read);
        let bytes = merged.map_err(|error| order.failed(error))?;
        let files = order.new_side_file(&bytes);
        objects.insert(order.keys[0].clone(), Arc::new(bytes));
        return Ok(files);
    }
    let mut merge = Merge::new(&order.shape, order.timestamps, order.file_rows, sources);
    let mut made: Vec<Vec<u8>> = vec![Vec::new(); order.keys.len()];
    loop {
        match merge.step().map_err(|error| order.failed(error))? {
            MergeStep::Fetch { source, range } => {
                let bytes = get(objects, &order.sources[source].key)?;
                let range = range.start as usize..bytes.len().min(range.end as usize);
                let given = merge.give(bytes.slice(range));
                given.map_err(|error| order.failed(error))?;
            }
            MergeStep::Store { file, bytes, .. } => {
                made[file].extend_from_slice(&bytes);
                merge.stored();
            }
            MergeStep::Done => break,
        }
    }
    let files = order.new_files(&merge.finish());
    for (file, bytes) in files.iter().zip(made) {
        objects.insert(file.key.clone(), Arc::new(bytes));
    }
    Ok(files)
}

/// A process, as the catalog knows it.
pub struct Client {
    /// What tells it from all other processes.
    pub owner_id: String,
    /// How long it holds the table without a renewal.
    pub lease_ms: u64,
    /// What the catalog does wrong for it; `None` in the golden texts.
    pub mistake: Option<Mistake>,
}

/// Does what the catalog is asked, at `now` by the database's clock. `objects` are the ones below
/// the
/// table's warehouse. `None` is for a request that has no answer.
#[expect(
    clippy::too_many_lines,
    reason = "it is a table with one arm for each request"
)]
pub fn ask_catalog(
    catalog: &mut Catalog,
    objects: &Objects,
    client: &Client,
    now: DbTime,
    request: CatalogRequest,
) -> Option<CatalogAnswer> {
    let Client {
        owner_id,
        lease_ms,
        mistake,
    } = client;
    Some(match request {
        CatalogRequest::Locate => CatalogAnswer::Locate(Ok(catalog.locate())),
        CatalogRequest::Acquire { over } => {
            let who = format!("unit/{owner_id}");
            let over = over.as_ref();
            CatalogAnswer::Acquire(catalog.acquire(now, &who, owner_id, *lease_ms, over, *mistake))
        }
        CatalogRequest::Renew { owner } => {
            CatalogAnswer::Renew(catalog.renew(now, &owner, *lease_ms, *mistake))
        }
        CatalogRequest::Release { owner } => {
            catalog.release(&owner);
            return None;
        }
        CatalogRequest::Commit { commit, clock } => CatalogAnswer::Commit {
            epoch: commit.epoch,
            result: catalog.commit(now, &commit, &clock, objects, *mistake),
        },
        CatalogRequest::Outcome { epoch } => CatalogAnswer::Outcome {
            epoch,
            result: Ok(catalog.outcome(epoch)),
        },
        CatalogRequest::Doom { owner, keys, clock } => {
            CatalogAnswer::Doom(catalog.doom(now, &owner, &keys, &clock, *mistake))
        }
        CatalogRequest::Doomed { manifest, mut keys } => {
            keys.retain(|key| catalog.doomed.contains_key(key));
            CatalogAnswer::Doomed {
                manifest,
                result: Ok(keys),
            }
        }
        CatalogRequest::DoomedPast {
            grace_ms,
            after,
            clock,
        } => {
            let from = after.as_deref();
            let result = catalog.doomed_past(now, grace_ms, from, &clock, *mistake);
            CatalogAnswer::DoomedPast { after, result }
        }
        CatalogRequest::LiveFiles => CatalogAnswer::LiveFiles(Ok(catalog.live_files())),
        CatalogRequest::DropEmptied { owner, clock, .. } => {
            CatalogAnswer::DropEmptied(catalog.drop_emptied(now, &owner, &clock))
        }
        CatalogRequest::Foldable { every_ms, clock } => {
            CatalogAnswer::Foldable(catalog.foldable(now, every_ms, &clock))
        }
        CatalogRequest::Fold {
            owner,
            history,
            manifest,
            clock,
        } => {
            let result = catalog.fold(now, &owner, &history, manifest, &clock, *mistake);
            CatalogAnswer::Fold(result)
        }
        CatalogRequest::DropDays {
            owner,
            log_starts,
            clock,
        } => CatalogAnswer::DropDays(catalog.drop_days(now, &owner, &log_starts, &clock)),
        CatalogRequest::Forget { owner, keys } => {
            CatalogAnswer::Forget(catalog.forget(&owner, &keys))
        }
    })
}

/// The answer to a request that failed: `error` where the catalog was asked, and its text
/// elsewhere.
/// `None` is for a request that has no answer.
#[expect(
    clippy::too_many_lines,
    reason = "it is a table with one arm for each request"
)]
pub fn failure(request: &Request, error: CatalogError) -> Option<Answer> {
    let why = error.to_string();
    let trouble = || Trouble::from(&*why);
    Some(match request.clone() {
        Request::Catalog(request) => Answer::Catalog(match request {
            CatalogRequest::Locate => CatalogAnswer::Locate(Err(error)),
            CatalogRequest::Acquire { .. } => CatalogAnswer::Acquire(Err(error)),
            CatalogRequest::Renew { .. } => CatalogAnswer::Renew(Err(error)),
            CatalogRequest::Release { .. } => return None,
            CatalogRequest::Commit { commit, .. } => CatalogAnswer::Commit {
                epoch: commit.epoch,
                result: Err(error),
            },
            CatalogRequest::Outcome { epoch, .. } => CatalogAnswer::Outcome {
                epoch,
                result: Err(error),
            },
            CatalogRequest::Doom { .. } => CatalogAnswer::Doom(Err(error)),
            CatalogRequest::Doomed { manifest, .. } => CatalogAnswer::Doomed {
                manifest,
                result: Err(error),
            },
            CatalogRequest::DoomedPast { after, .. } => CatalogAnswer::DoomedPast {
                after,
                result: Err(error),
            },
            CatalogRequest::LiveFiles => CatalogAnswer::LiveFiles(Err(error)),
            CatalogRequest::DropEmptied { .. } => CatalogAnswer::DropEmptied(Err(error)),
            CatalogRequest::Foldable { .. } => CatalogAnswer::Foldable(Err(error)),
            CatalogRequest::Fold { .. } => CatalogAnswer::Fold(Err(error)),
            CatalogRequest::DropDays { .. } => CatalogAnswer::DropDays(Err(error)),
            CatalogRequest::Forget { .. } => CatalogAnswer::Forget(Err(error)),
        }),
        Request::Brokers(request) => Answer::Brokers(match request {
            BrokersRequest::Topic => BrokersAnswer::Topic(Err(trouble())),
            BrokersRequest::TopicId => BrokersAnswer::TopicId(Err(trouble())),
            BrokersRequest::LogEnd { partition } => BrokersAnswer::LogEnd {
                partition,
                end: Err(why),
            },
            BrokersRequest::LogLimits { partition } => BrokersAnswer::LogLimits {
                partition,
                limits: Err(why),
            },
        }),
        Request::Store(request) => Answer::Store(match request {
            StoreRequest::Get { key } => StoreAnswer::Get {
                key,
                result: Err(trouble()),
            },
            StoreRequest::Check { manifest, .. } => StoreAnswer::Check {
                manifest,
                result: Err(trouble()),
            },
            StoreRequest::Put { key, .. } => StoreAnswer::Put {
                key,
                result: Err(trouble()),
            },
            StoreRequest::ListPage { prefix, after } => StoreAnswer::ListPage {
                prefix,
                after,
                result: Err(trouble()),
            },
            StoreRequest::Merge(order) => StoreAnswer::Merge {
                key: order.keys[0].clone(),
                result: Err(MergeFailure {
                    left_out: Vec::new(),
                    trouble: trouble(),
                }),
            },
            StoreRequest::AbortUploads { .. } => StoreAnswer::AbortUploads(Err(trouble())),
            StoreRequest::Delete { keys } => StoreAnswer::Delete {
                gone: Vec::new(),
                kept: keys,
            },
        }),
    })
}
