//! One request to the brokers or to the store → its answer. Both wait for a network, so they run
//! beside the loop; neither decides what to ask next.

use crate::io::kafka::{Brokers, KafkaError};
use crate::io::store::{Store, StoreError};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tracing::warn;
use windrow_core::engine::{
    BrokersAnswer, BrokersRequest, LogEnd, StoreAnswer, StoreRequest, TopicFacts,
};
use windrow_core::table::manifest::WantedObject;
use windrow_core::values::cause::Trouble;
use windrow_core::values::digest::Sha256;

/// How long one question to Kafka may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// Asks Kafka's brokers. It blocks for at most a few times [`ASK_TIMEOUT`].
pub fn ask_brokers(brokers: &Brokers, request: BrokersRequest) -> BrokersAnswer {
    match request {
        BrokersRequest::Topic => BrokersAnswer::Topic(topic_facts(brokers).map_err(Trouble::from)),
        BrokersRequest::TopicId => {
            let topic = brokers.topic(ASK_TIMEOUT);
            BrokersAnswer::TopicId(topic.map(|t| t.topic_id).map_err(Trouble::from))
        }
        BrokersRequest::LogEnd { partition } => {
            let end = brokers.end(partition, ASK_TIMEOUT).map(|end| LogEnd {
                last_stable: end.last_stable,
                high_watermark: end.high_watermark,
            });
            BrokersAnswer::LogEnd {
                partition,
                end: end.map_err(|error| error.to_string()),
            }
        }
        BrokersRequest::LogLimits { partition } => {
            let end = brokers.end(partition, ASK_TIMEOUT);
            let limits = end.map(|end| (end.log_start, end.high_watermark));
            BrokersAnswer::LogLimits {
                partition,
                limits: limits.map_err(|error| error.to_string()),
            }
        }
    }
}

/// The bytes of an object, which the engine keeps until it is stored. They are not copied.
struct Shared(Arc<Vec<u8>>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

fn topic_facts(brokers: &Brokers) -> Result<TopicFacts, KafkaError> {
    let topic = brokers.topic(ASK_TIMEOUT)?;
    let (mut partitions, mut unknown) = (BTreeMap::new(), BTreeMap::new());
    for (partition, limits) in brokers.limits(&topic, ASK_TIMEOUT)? {
        match limits {
            Ok(limits) => drop(partitions.insert(partition, limits)),
            Err(why) => drop(unknown.insert(partition, why)),
        }
    }
    Ok(TopicFacts {
        partitions,
        unknown,
        cluster_id: topic.cluster_id,
        topic_id: topic.topic_id,
    })
}

/// How much of a file is fetched at a time while its hash is taken.
const PIECE_BYTES: u64 = 2 << 20;

/// What is wrong with the first of these objects that is not as it must be; `None` where all are.
///
/// # Errors
/// The store cannot be asked.
pub async fn check_objects(
    store: &Store,
    objects: &[WantedObject],
) -> Result<Option<String>, StoreError> {
    for wanted in objects {
        let key = &wanted.key;
        let Some((bytes, sha256)) = hash_object(store, wanted).await? else {
            return Ok(Some(format!("object \"{key}\" is not there")));
        };
        if wanted.bytes.is_some_and(|wanted| wanted != bytes) || !sha256.starts_with(&wanted.sha256)
        {
            return Ok(Some(format!(
                "object \"{key}\" has other bytes than were stored"
            )));
        }
    }
    Ok(None)
}

/// The size and the SHA-256 of an object, piece by piece where its size is known; `None` where it
/// is not there. A byte more is asked for at the end, because it may be longer than it must be.
async fn hash_object(
    store: &Store,
    wanted: &WantedObject,
) -> Result<Option<(u64, String)>, StoreError> {
    let mut hasher = Sha256::default();
    let Some(size) = wanted.bytes else {
        let bytes = store.get(&wanted.key).await?;
        return Ok(bytes.map(|bytes| {
            hasher.update(&bytes);
            (bytes.len() as u64, hasher.finish_hex())
        }));
    };
    let mut done = 0;
    while done < size {
        let until = if size - done <= PIECE_BYTES {
            size + 1
        } else {
            done + PIECE_BYTES
        };
        let Some(bytes) = store.get_range(&wanted.key, done..until).await? else {
            return Ok(None);
        };
        hasher.update(&bytes);
        if bytes.is_empty() {
            break;
        }
        done += bytes.len() as u64;
    }
    Ok(Some((done, hasher.finish_hex())))
}

/// Asks the object store.
///
/// # Panics
/// For a merge, which `merging` does.
pub async fn ask_store(store: &Store, request: StoreRequest) -> StoreAnswer {
    match request {
        StoreRequest::ListPage { prefix, after } => {
            let page = store.list_page(&prefix, after.as_deref()).await;
            StoreAnswer::ListPage {
                prefix,
                after,
                result: page.map_err(Trouble::from),
            }
        }
        StoreRequest::Get { key } => {
            let result = store.get(&key).await.map_err(Trouble::from);
            StoreAnswer::Get { key, result }
        }
        StoreRequest::Check { manifest, objects } => {
            let result = check_objects(store, &objects).await;
            StoreAnswer::Check {
                manifest,
                result: result.map_err(Trouble::from),
            }
        }
        StoreRequest::Put { key, bytes } => {
            let result = store.put(&key, Bytes::from_owner(Shared(bytes))).await;
            StoreAnswer::Put {
                key,
                result: result.map_err(Trouble::from),
            }
        }
        StoreRequest::Delete { keys } => {
            let deleted = store.delete(keys).await;
            if let Some(error) = &deleted.first_error {
                warn!(
                    objects = deleted.kept.len(), error = %error,
                    "cannot delete objects that nothing names; trying again in an hour"
                );
            }
            StoreAnswer::Delete {
                gone: deleted.gone,
                kept: deleted.kept,
            }
        }
        StoreRequest::AbortUploads { prefix, age_ms } => {
            let aborted = store.abort_uploads(&prefix, age_ms).await;
            StoreAnswer::AbortUploads(aborted.map_err(Trouble::from))
        }
        StoreRequest::Merge(_) => unreachable!("the driver hands it to `merging`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::kafka::{self, KafkaConfig};
    use std::time::Instant;
    use windrow_core::settings::config::Config;

    /// A thread that asked on and on with the client that it began with would never see the
    /// password of a rotation.
    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "it measures how long a question takes"
    )]
    fn a_question_to_brokers_is_asked_once_with_the_client_of_its_time() {
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = nobody.local_addr().unwrap().port();
        drop(nobody);
        let settings =
            format!("kafka: {{ bootstrap: '127.0.0.1:{port}', topic: t, security: plaintext }}");
        let config = Config::parse(&settings).unwrap();
        let (brokers, _reader) = kafka::open(&KafkaConfig {
            settings: config.kafka.clone(),
            topic: "t".to_owned(),
            username: String::new(),
            password: windrow_core::settings::secrets::Secret::default(),
            group: config.group(),
            ca_pem: None,
            fetched_bytes: 32 << 20,
            partitions: 0,
        })
        .unwrap();
        for request in [
            BrokersRequest::Topic,
            BrokersRequest::TopicId,
            BrokersRequest::LogEnd { partition: 0 },
            BrokersRequest::LogLimits { partition: 0 },
        ] {
            let started = Instant::now();
            let failed = match ask_brokers(&brokers, request) {
                BrokersAnswer::Topic(answer) => answer.is_err(),
                BrokersAnswer::TopicId(answer) => answer.is_err(),
                BrokersAnswer::LogEnd { end, .. } => end.is_err(),
                BrokersAnswer::LogLimits { limits, .. } => limits.is_err(),
            };
            assert!(failed);
            assert!(started.elapsed() < ASK_TIMEOUT * 4, "it gives up");
        }
    }
}
