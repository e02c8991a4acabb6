//! What the log says of the engine's answers, of its state, and of each committed epoch.

use std::time::Duration;
use tracing::{debug, error, info, warn};
use tracing_subscriber::filter::{LevelFilter, Targets};
use windrow_core::engine::{
    Answer, BrokersAnswer, CatalogAnswer, MergeFailure, State, StoreAnswer,
};
use windrow_core::table::commit::Commit;
use windrow_core::values::cause::{Trouble, name_or_empty};

/// Our own events at this level, and those of libraries only when something is wrong with them.
/// They are never shown at a finer level than INFO, whatever is asked for: below that, clients of
/// S3, HTTP and PostgreSQL log whole requests, and with them records and credentials.
#[must_use]
pub fn targets(level: &str) -> Targets {
    // The settings allow only names of levels.
    let own = level.parse().unwrap_or(LevelFilter::INFO);
    let others = if own == LevelFilter::TRACE {
        LevelFilter::INFO
    } else {
        LevelFilter::WARN
    };
    Targets::new()
        .with_default(others.min(own))
        .with_target("windrow", own)
}

/// Logs where the engine stands. Called when that has changed.
pub fn log_state(state: &State) {
    match state {
        State::Counting => info!("counting"),
        State::Paused => info!("paused"),
        State::Waiting(Trouble { cause, text }) | State::Standby(Trouble { cause, text }) => {
            info!(cause = name_or_empty(*cause), reason = text, "waiting");
        }
        State::Failed(Trouble { cause, text }) => {
            error!(cause = name_or_empty(*cause), reason = text, "failed");
        }
    }
}

/// Logs what failed, unless the engine's state says it already.
pub fn log_failure(answer: &Answer) {
    match answer {
        Answer::Catalog(CatalogAnswer::Commit {
            epoch,
            result: Err(error),
        }) => {
            warn!(epoch, error = %error, "an epoch was not committed");
        }
        Answer::Catalog(CatalogAnswer::Doom(Err(error))) => {
            warn!(error = %error, "cannot note objects that nothing names; trying again");
        }
        Answer::Catalog(CatalogAnswer::Forget(Err(error))) => {
            warn!(error = %error, "cannot note that objects are deleted; they are deleted again");
        }
        Answer::Catalog(CatalogAnswer::LiveFiles(Err(error))) => {
            warn!(error = %error, "cannot learn which files to merge; trying again");
        }
        Answer::Catalog(CatalogAnswer::DropEmptied(Err(error))) => {
            warn!(error = %error, "cannot delete emptied table partitions; trying again");
        }
        Answer::Catalog(CatalogAnswer::Foldable(Err(error)) | CatalogAnswer::Fold(Err(error))) => {
            warn!(error = %error, "cannot fold the epochs of the day into history; trying again");
        }
        Answer::Store(StoreAnswer::Put {
            result: Err(error), ..
        }) => {
            warn!(error = %error, "cannot store an object; trying again");
        }
        Answer::Catalog(CatalogAnswer::DoomedPast {
            result: Err(error), ..
        }) => {
            warn!(error = %error, "cannot learn which objects to delete; trying again");
        }
        Answer::Store(StoreAnswer::Merge {
            key,
            result: Err(MergeFailure { left_out, trouble }),
        }) if left_out.is_empty() => {
            warn!(key, error = %trouble, "cannot merge files; trying again in a minute");
        }
        Answer::Store(StoreAnswer::AbortUploads(Err(error))) => {
            warn!(
                error = %error,
                "cannot abort uploads that were never finished; trying again in a day"
            );
        }
        Answer::Store(StoreAnswer::AbortUploads(Ok(uploads))) if *uploads > 0 => {
            info!(uploads, "aborted uploads that were never finished");
        }
        Answer::Store(StoreAnswer::ListPage {
            prefix,
            result: Err(error),
            ..
        }) => {
            warn!(prefix, error = %error, "cannot list objects; trying again");
        }
        Answer::Brokers(BrokersAnswer::LogEnd {
            partition,
            end: Err(error),
        }) => {
            debug!(
                partition, error = %error,
                "cannot ask for a topic partition's end; it is not idle until then"
            );
        }
        _ => {}
    }
}

/// Logs that keys are to be deleted which windrow does not make.
pub fn log_foreign_keys(keys: &[String]) {
    warn!(
        keys = keys.len(),
        first = keys.first(),
        "the catalog's list of objects to delete has keys that windrow does not make; it deletes \
         none of them: find out who wrote them there, and remove them from the table doomed"
    );
}

/// Logs that a file cannot be merged. Readers meet it as before.
pub fn log_left_out(key: &str, trouble: &Trouble) {
    warn!(
        key, cause = name_or_empty(trouble.cause), error = %trouble,
        "a file stays as it is, and so do those that do not fit together with it; the others are \
         merged without them; it is tried again after the next start"
    );
}

/// Logs that epochs are gone that were committed once, and returns it as a sentence for those who
/// watch.
pub fn log_lost_epochs(first: u64, last: u64, why: &str) -> String {
    let text = format!(
        "the catalog has lost epochs {first} to {last}, which cannot be committed again from the \
         store: {why}; counting goes on from epoch {before}, and records that Kafka still has are \
         counted again; objects of a lost epoch may be gone once keep-replaced is over",
        before = first.saturating_sub(1)
    );
    warn!(
        first,
        last,
        error = why,
        "the catalog has lost epochs that the store cannot give back"
    );
    text
}

/// Logs one line for a committed epoch, which added this many rows to the table. `took` is the time
/// from its line to its commit.
pub fn log_commit(commit: &Commit, rows: u64, took: Duration) {
    let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    if !commit.retired.is_empty() {
        return log_swap(commit, took_ms);
    }
    let ledger = &commit.ledger;
    info!(
        epoch = commit.epoch,
        files = commit.files.len(),
        rows,
        consumed = ledger.consumed,
        counted = ledger.counted,
        late = ledger.late,
        rejected = ledger.rejected,
        tombstones = ledger.tombstones,
        gaps = ledger.gaps,
        lost = ledger.lost,
        closed_through = commit.closed_through.map(|t| t.to_string()),
        took_ms,
        "committed"
    );
}

/// Logs one line for an epoch that shows other files, or fewer, instead of those before.
fn log_swap(commit: &Commit, took_ms: u64) {
    let rows = |rows: &mut dyn Iterator<Item = u64>| rows.sum::<u64>();
    let retired_rows = rows(&mut commit.retired.iter().map(|file| file.rows));
    if commit.files.is_empty() {
        info!(
            epoch = commit.epoch,
            files = commit.retired.len(),
            rows = retired_rows,
            took_ms,
            "dropped files that are kept no longer"
        );
        return;
    }
    info!(
        epoch = commit.epoch,
        key = commit.files[0].key,
        from = commit.retired.len(),
        files = commit.files.len(),
        rows = retired_rows,
        bytes = rows(&mut commit.files.iter().map(|file| file.bytes)),
        took_ms,
        "merged files"
    );
}
