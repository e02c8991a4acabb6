//! Epochs fold into rows of history, on PostgreSQL.

use super::*;
use windrow_core::table::history::DayManifest;
use windrow_core::values::decision::{Decided, Decision, FloorReason};

const DAY_MS: i64 = 86_400_000;

/// Epochs 0 to `last`, each with a decision and a checkpoint, those below `last` of yesterday.
async fn epochs(place: &Place, catalog: &mut Catalog, last: u64) -> Owner {
    let (owner, _) = take(catalog, "a").await;
    catalog.commit(&epoch(&owner, 0)).await.unwrap();
    for n in 1..=last {
        let mut commit = full(&owner, n);
        let offset = commit.lanes[&1].to;
        let what = Decided::Floor {
            at: EventTime(offset),
            reason: FloorReason::Idle,
        };
        commit.decisions.push(Decision {
            partition: 1,
            offset,
            what,
        });
        commit.checkpoint = Some(CheckpointAt::Inline(format!("{n:04x}")));
        catalog.commit(&commit).await.unwrap();
    }
    let client = place.other_client().await;
    let sql = format!(
        "UPDATE windrow_2.epoch SET committed_at = committed_at - interval '1 day' \
         WHERE epoch < {last}"
    );
    client.batch_execute(&sql).await.unwrap();
    owner
}

async fn foldable(catalog: &mut Catalog) -> Option<Box<DayManifest>> {
    catalog.foldable(DAY_MS, &ANY_CLOCK).await.unwrap()
}

fn key(n: u64) -> String {
    format!("_windrow/default.t/manifests/1-2026-11-27-{n:032x}.json.zst")
}

#[tokio::test]
#[ignore = "needs PostgreSQL: make parts-up"]
async fn the_epochs_of_yesterday_fold_into_one_row() {
    let place = Place::postgres("fold", "script");
    let mut catalog = place.catalog("t");
    assert!(foldable(&mut catalog).await.is_none(), "there is no table");
    let owner = epochs(&place, &mut catalog, 6).await;
    let before = catalog.head().await.unwrap();
    let live = catalog.live_files().await.unwrap();

    let day = foldable(&mut catalog).await.expect("yesterday is over");
    let (first, last) = (day.history.first_epoch, day.history.last_epoch);
    // Epoch 5 has the checkpoint before the newest.
    assert_eq!((first, last, day.last.epoch), (1, 5, 5));
    assert_eq!(day.history.decisions.len(), 5);
    assert_eq!(day.live.len(), live.len() - 3, "without those of epoch 6");
    catalog
        .fold(&owner, &day.history, &key(1), &ANY_CLOCK)
        .await
        .unwrap();
    assert!(foldable(&mut catalog).await.is_none(), "all is folded");

    let client = place.other_client().await;
    let left = "SELECT string_agg(epoch::text, ' ' ORDER BY epoch) FROM windrow_2.epoch";
    assert_eq!(text(&client, left).await, "0 6");
    let doomed = "SELECT count(*)::text FROM windrow_2.doomed WHERE key LIKE '%/manifests/%'";
    assert_eq!(text(&client, doomed).await, "5");
    assert_eq!(
        catalog.head().await.unwrap(),
        before,
        "a restart sees the same"
    );
    assert_eq!(catalog.live_files().await.unwrap(), live);
    // The day manifest is named, and another one is not.
    let keys = [key(1), key(2)];
    let free = catalog.doom(&owner, &keys, &ANY_CLOCK).await.unwrap();
    assert_eq!(free, [key(2)]);
    // Counting goes on, and so does folding.
    for n in 7..=9 {
        let mut commit = full(&owner, n);
        commit.checkpoint = Some(CheckpointAt::Inline(format!("{n:04x}")));
        catalog.commit(&commit).await.unwrap();
    }
    let sql = "UPDATE windrow_2.epoch SET committed_at = committed_at - interval '1 day' \
               WHERE epoch < 8";
    client.batch_execute(sql).await.unwrap();
    let day = foldable(&mut catalog).await.expect("there is more");
    assert_eq!((day.history.first_epoch, day.history.last_epoch), (6, 7));
    assert_eq!(day.history.previous, "digest of 5");
}

/// Without any checkpoint all is replayed, and all decisions are needed.
#[tokio::test]
#[ignore = "needs PostgreSQL: make parts-up"]
async fn a_replay_from_the_start_finds_decisions_that_are_folded() {
    let place = Place::postgres("fold_replay", "script");
    let mut catalog = place.catalog("t");
    let owner = epochs(&place, &mut catalog, 6).await;
    let day = foldable(&mut catalog).await.unwrap();
    catalog
        .fold(&owner, &day.history, &key(1), &ANY_CLOCK)
        .await
        .unwrap();
    let client = place.other_client().await;
    let sql = "UPDATE windrow_2.job SET checkpoint = NULL, checkpoint_epoch = NULL";
    client.batch_execute(sql).await.unwrap();
    let head = catalog.head().await.unwrap().unwrap();
    let offsets: Vec<i64> = head.decisions.iter().map(|d| d.offset).collect();
    assert_eq!(offsets, [10, 20, 30, 40, 50, 60]);
}

#[tokio::test]
#[ignore = "needs PostgreSQL: make parts-up"]
async fn what_may_not_fold_stays_as_it_is() {
    let place = Place::postgres("fold_refused", "script");
    let mut catalog = place.catalog("t");
    let owner = epochs(&place, &mut catalog, 6).await;
    let day = foldable(&mut catalog).await.unwrap();
    let (one, two) = (key(1), key(2));
    let client = place.other_client().await;
    let wrong_clock = ClockBound {
        expected: DbTime(0),
        off_max_ms: 1000,
    };
    because_of_clocks(
        catalog.foldable(DAY_MS, &wrong_clock).await,
        "the database's clock",
    );
    let fold = catalog.fold(&owner, &day.history, &one, &wrong_clock);
    because_of_clocks(fold.await, "the database's clock");
    // Its manifest is doomed: nothing may name it.
    let keys = [one.clone()];
    catalog.doom(&owner, &keys, &ANY_CLOCK).await.unwrap();
    let fold = catalog.fold(&owner, &day.history, &one, &ANY_CLOCK);
    retried(fold.await, "doomed");
    // The database was set back since it was read.
    let sql = "UPDATE windrow_2.epoch SET digest = 'another' WHERE epoch = 5";
    client.batch_execute(sql).await.unwrap();
    let fold = catalog.fold(&owner, &day.history, &two, &ANY_CLOCK);
    retried(fold.await, "not there as they were read");
    // Another owner has come.
    catalog.release(&owner).await.unwrap();
    take(&mut catalog, "b").await;
    let fold = catalog.fold(&owner, &day.history, &two, &ANY_CLOCK);
    cases::fenced(fold.await, "owns it now");
    let count = "SELECT count(*)::text FROM windrow_2.epoch";
    assert_eq!(text(&client, count).await, "7");
    // An epoch is missing: somebody's hand was here.
    let sql = "DELETE FROM windrow_2.epoch WHERE epoch = 3";
    client.batch_execute(sql).await.unwrap();
    let answer = catalog.foldable(DAY_MS, &ANY_CLOCK).await;
    cases::stopped(answer, "epoch 3 is missing");
}
