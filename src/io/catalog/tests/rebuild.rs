//! A journal that was lost is written again, and day manifests that are needed no longer go.

use super::*;
use windrow_core::table::history::History;
use windrow_core::table::rebuild::Base;
use windrow_core::values::time::DbTime;

/// When the epochs of the base were committed.
const THEN: DbTime = DbTime(1_795_651_200_000);

fn earlier_owner() -> Owner {
    Owner {
        term: 6,
        owner_id: "earlier".to_owned(),
    }
}

/// Epoch 0 alone, put by the owner of term 6.
fn young() -> Base {
    Base {
        term: 7,
        first: epoch(&earlier_owner(), 0),
        history: Vec::new(),
        last: None,
        live: Vec::new(),
        notes: vec!["a note".to_owned()],
    }
}

/// Epochs 1 to 6 are folded in three days.
fn old() -> Base {
    let owner = earlier_owner();
    let day = |first: u64| {
        let mut history = History::of(&full(&owner, first), THEN);
        history.push(&full(&owner, first + 1), THEN).unwrap();
        (history, format!("day manifest {first}"))
    };
    let live = (1..=6).flat_map(|n| {
        let live = move |file| LiveFile {
            epoch: n,
            committed_at: THEN,
            file,
        };
        full(&owner, n).files.into_iter().map(live)
    });
    Base {
        history: vec![day(1), day(3), day(5)],
        last: Some(full(&owner, 6)),
        live: live.collect(),
        ..young()
    }
}

async fn goes_on_after(catalog: &mut Catalog, last: u64) -> Owner {
    let (owner, head) = take(catalog, "b").await;
    assert!(owner.term > 7, "above every term in a key: {}", owner.term);
    let head = head.expect("it has epochs again");
    assert_eq!((head.last.epoch, head.genesis), (last, genesis()));
    catalog.commit(&full(&owner, last + 1)).await.unwrap();
    owner
}

#[tokio::test]
async fn a_local_catalog_begins_with_epoch_0_again() {
    let place = Place::local();
    let mut catalog = place.catalog("t");
    cases::stopped(catalog.rebuild("a", "a", &old()).await, "keeps no history");
    let notes = catalog.rebuild("a", "a", &young()).await.unwrap();
    assert_eq!(notes, ["a note"]);
    goes_on_after(&mut catalog, 0).await;
    drop(catalog);
    let mut catalog = place.catalog("t");
    let again = catalog.rebuild("a", "a", &young()).await;
    cases::stopped(again, "nothing of it is lost");
}

#[tokio::test]
#[ignore = "needs PostgreSQL: make parts-up"]
async fn a_journal_begins_with_epoch_0_again() {
    let place = Place::postgres("rebuild_young", "script");
    let mut catalog = place.catalog("t");
    catalog.rebuild("a", "a", &young()).await.unwrap();
    let owner = goes_on_after(&mut catalog, 0).await;
    let again = catalog.rebuild("c", "c", &young()).await;
    retried(again, "owns it; stop that windrow first");
    catalog.release(&owner).await.unwrap();
    let again = catalog.rebuild("c", "c", &young()).await;
    cases::stopped(again, "nothing of it is lost");
}

#[tokio::test]
#[ignore = "needs PostgreSQL: make parts-up"]
async fn a_journal_begins_with_its_newest_day_again() {
    let place = Place::postgres("rebuild_old", "script");
    let mut catalog = place.catalog("t");
    catalog.rebuild("a", "a", &old()).await.unwrap();
    let client = place.other_client().await;
    let shown = "SELECT count(*)::text FROM \"PARTITIONS\" AS p \
                 JOIN windrow_2.part AS j ON j.part_id = p.\"PART_ID\"";
    assert_eq!(text(&client, shown).await, "18", "three files an epoch");
    let owner = goes_on_after(&mut catalog, 6).await;
    assert_eq!(catalog.live_files().await.unwrap().len(), 21);
    let head = catalog.head().await.unwrap().unwrap();
    assert_eq!((head.last.epoch, head.checkpoint), (7, None));
    // The logs begin where the second day ends.
    let log_starts = BTreeMap::from([(0, 40), (1, 40)]);
    catalog
        .drop_days(&owner, &log_starts, &ANY_CLOCK)
        .await
        .unwrap();
    let named = "SELECT string_agg(manifest, ',' ORDER BY first_epoch) FROM windrow_2.history";
    assert_eq!(
        text(&client, named).await,
        ",day manifest 3,day manifest 5",
        "the newest two stay"
    );
    let keys = ["day manifest 1".to_owned(), "day manifest 3".to_owned()];
    let doomed = catalog.doomed_among(&keys).await.unwrap();
    assert_eq!(doomed, keys[..1]);
    catalog.release(&owner).await.unwrap();
    take(&mut catalog, "c").await;
    let dropped = catalog.drop_days(&owner, &log_starts, &ANY_CLOCK).await;
    cases::fenced(dropped, "owns it now");
}
