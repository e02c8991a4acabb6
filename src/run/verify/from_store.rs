//! What a verification reads from the store. A request that fails is tried again a few times.
#![expect(
    clippy::disallowed_methods,
    reason = "the edge that waits, so that a verification keeps to its bandwidth"
)]

use crate::io::store::Store;
use crate::run::pace::Pace;
use bytes::Bytes;
use std::ops::Range;
use std::time::{Duration, Instant};
use tokio::time::sleep;
use windrow_core::shown::snapshot::MovedBytes;

/// How often a request to the store is tried.
const TRIES: u32 = 4;

/// The store, within a bandwidth.
pub(super) struct FromStore {
    pub(super) store: Store,
    pub(super) pace: Option<Pace>,
    pub(super) begun: Instant,
    pub(super) moved: MovedBytes,
}

impl FromStore {
    /// Waits until so many bytes may be read.
    pub(super) async fn wait(&mut self, bytes: u64) {
        if let Some(pace) = &mut self.pace {
            sleep(pace.wait_for(self.begun.elapsed(), bytes)).await;
        }
    }

    pub(super) async fn get(&mut self, key: &str) -> anyhow::Result<Option<Vec<u8>>> {
        let mut tried = 1;
        let found = loop {
            match self.store.get(key).await {
                Err(_) if tried < TRIES => tried += 1,
                other => break other?,
            }
            sleep(Duration::from_secs(1)).await;
        };
        let bytes = found.as_ref().map_or(0, Vec::len) as u64;
        self.moved.read += bytes;
        self.wait(bytes).await;
        Ok(found)
    }

    pub(super) async fn get_range(
        &mut self,
        key: &str,
        range: Range<u64>,
    ) -> anyhow::Result<Option<Bytes>> {
        self.wait(range.end - range.start).await;
        let mut tried = 1;
        let found = loop {
            match self.store.get_range(key, range.clone()).await {
                Err(_) if tried < TRIES => tried += 1,
                other => break other?,
            }
            sleep(Duration::from_secs(1)).await;
        };
        self.moved.read += found.as_ref().map_or(0, Bytes::len) as u64;
        Ok(found)
    }
}
