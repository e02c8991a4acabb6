//! Merges files as the engine orders it: fetches what a merge asks for, stores what it makes, and
//! keeps to a bandwidth. What is merged, and when, is not decided here.
//!
//! One merge runs at a time, and it has one request to the store on its way at a time. It has a
//! thread of its own, because its work on rows takes some ten milliseconds at a time, in which
//! nothing else could be served. It is one thread from beginning to end, because glibc keeps what
//! one thread has freed from the others: on changing threads a merge takes twice the memory.
#![expect(
    clippy::disallowed_methods,
    reason = "the edge that waits, so that a merge keeps to its bandwidth"
)]

use crate::io::store::{Store, StoreError, Upload};
use crate::run::pace::Pace;
use bytes::Bytes;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle as Runtime;
use tokio::select;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};
use windrow_core::engine::{MergeFailure, MergeOrder, StoreAnswer};
use windrow_core::shown::snapshot::MovedBytes;
use windrow_core::table::commit::NewFile;
use windrow_core::table::merge::{Merge, MergeStep, SideTable, Source, merge_side};

/// The merge that runs, and the bandwidth of all of them.
pub struct Merging {
    pace: Arc<Mutex<Pace>>,
    /// What times are reckoned from.
    begun: Instant,
    /// How much the merge that runs, or ran last, has read from the store.
    read_bytes: Arc<AtomicU64>,
    /// The merge that runs ends when this is dropped.
    running: Option<oneshot::Sender<()>>,
}

impl Merging {
    /// No merge runs yet. They may move so many bytes a second, read and written together.
    #[must_use]
    pub fn new(bytes_per_second: u64) -> Self {
        Self {
            pace: Arc::new(Mutex::new(Pace::new(bytes_per_second))),
            begun: Instant::now(),
            read_bytes: Arc::default(),
            running: None,
        }
    }

    /// How many bytes the merge that runs, or ran last, has read from the store so far.
    #[must_use]
    pub fn read_bytes(&self) -> u64 {
        self.read_bytes.load(Ordering::Relaxed)
    }

    /// Begins a merge, and reports what came of it. An earlier one that still runs was ordered by
    /// an ownership that has ended: it is cancelled, so that memory is never taken twice.
    pub fn begin(
        &mut self,
        runtime: &Runtime,
        store: Store,
        order: MergeOrder,
        report: impl FnOnce(StoreAnswer, MovedBytes) + Send + 'static,
    ) {
        let (running, cancelled) = oneshot::channel();
        self.running = Some(running);
        // That of the merge before may still be counted up.
        self.read_bytes = Arc::default();
        let mut mover = Mover {
            store,
            read_bytes: Arc::clone(&self.read_bytes),
            pace: Arc::clone(&self.pace),
            begun: self.begun,
            moved: MovedBytes::default(),
        };
        let on = runtime.clone();
        runtime.spawn_blocking(move || {
            let merged = on.block_on(async {
                select! {
                    biased;
                    _ = cancelled => None,
                    result = merge(&mut mover, &order) => Some(result),
                }
            });
            if let Some(result) = merged {
                let key = order.keys[0].clone();
                report(StoreAnswer::Merge { key, result }, mover.moved);
            }
        });
    }

    /// Ends the merge that runs, if there is one. Nothing is reported of it, and what it has stored
    /// is an orphan.
    pub fn cancel(&mut self) {
        self.running = None;
    }
}

/// Merges the files, and stores the new ones under the paths of the order.
async fn merge(mover: &mut Mover, order: &MergeOrder) -> Result<Vec<NewFile>, MergeFailure> {
    if let Some(table) = order.side_table() {
        return merge_side_files(mover, order, table).await;
    }
    let mut upload = None;
    let result = merge_files(mover, order, &mut upload).await;
    if let Some(upload) = upload {
        upload.abort().await;
    }
    result
}

/// Merges files of rows. An upload that is left over in `upload` was not finished.
async fn merge_files(
    mover: &mut Mover,
    order: &MergeOrder,
    upload: &mut Option<Upload>,
) -> Result<Vec<NewFile>, MergeFailure> {
    let sources = order.merge_sources();
    let (shape, timestamps, file_rows) = (order.shape.clone(), order.timestamps, order.file_rows);
    let mut merge = Merge::new(&shape, timestamps, file_rows, sources);
    loop {
        match merge.step().map_err(|error| order.failed(error))? {
            MergeStep::Fetch { source, range } => {
                let bytes = mover.fetch(&order.sources[source].key, range).await?;
                let given = merge.give(bytes);
                given.map_err(|error| order.failed(error))?;
            }
            MergeStep::Store { file, bytes, last } => {
                mover.wait(bytes.len() as u64).await;
                let mut on = upload
                    .take()
                    .unwrap_or_else(|| mover.store.upload(&order.keys[file]));
                mover.moved.written += bytes.len() as u64;
                if last {
                    on.finish(bytes).await.map_err(away)?;
                } else {
                    on.add(bytes).await.map_err(away)?;
                    *upload = Some(on);
                }
                merge.stored();
            }
            MergeStep::Done => return Ok(order.new_files(&merge.finish())),
        }
    }
}

/// Merges files of a side table, all of which are in memory at once: the engine orders only as many
/// as `table/compaction` allows.
async fn merge_side_files(
    mover: &mut Mover,
    order: &MergeOrder,
    table: SideTable,
) -> Result<Vec<NewFile>, MergeFailure> {
    let mut sources: Vec<(Source, Bytes)> = Vec::new();
    for source in order.merge_sources() {
        let bytes = mover.fetch(&source.key, 0..source.bytes).await?;
        sources.push((source, bytes));
    }
    let merged = merge_side(table, order.timestamps, &sources);
    let bytes = merged.map_err(|error| order.failed(error))?;
    let files = order.new_side_file(&bytes);
    mover.wait(bytes.len() as u64).await;
    mover.moved.written += bytes.len() as u64;
    let stored = mover.store.put(&order.keys[0], bytes).await;
    stored.map_err(away)?;
    Ok(files)
}

/// The store, within a bandwidth.
struct Mover {
    store: Store,
    read_bytes: Arc<AtomicU64>,
    pace: Arc<Mutex<Pace>>,
    begun: Instant,
    moved: MovedBytes,
}

impl Mover {
    /// Some bytes of a source. There are fewer where it is shorter than the journal says, which the
    /// merge notices.
    async fn fetch(&mut self, key: &str, range: Range<u64>) -> Result<Bytes, MergeFailure> {
        self.wait(range.end - range.start).await;
        let fetched = self.store.get_range(key, range).await.map_err(away)?;
        let Some(bytes) = fetched else {
            let why = format!(
                "cannot merge file \"{key}\": it is gone; put back the file that windrow stored \
                 there, or write the table again from Kafka"
            );
            return Err(MergeFailure {
                left_out: vec![key.to_owned()],
                trouble: why.into(),
            });
        };
        self.moved.read += bytes.len() as u64;
        self.read_bytes.store(self.moved.read, Ordering::Relaxed);
        Ok(bytes)
    }

    /// Waits until so many bytes may be moved.
    async fn wait(&self, bytes: u64) {
        sleep(self.reserve(bytes)).await;
    }

    fn reserve(&self, bytes: u64) -> Duration {
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        pace.wait_for(self.begun.elapsed(), bytes)
    }
}

/// The store does not do what it is asked now: the engine orders the merge again later.
fn away(error: StoreError) -> MergeFailure {
    MergeFailure {
        left_out: Vec::new(),
        trouble: error.into(),
    }
}

#[cfg(test)]
mod tests;
