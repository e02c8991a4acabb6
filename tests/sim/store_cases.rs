//! The modelled catalog in the cases that the real ones pass (`src/io/catalog_tests.rs`), as far as engines can tell:
//! files of the Hive tables and doomed keys are not modelled.

use crate::store::Catalog;
use std::collections::BTreeMap;
use windrow_core::table::commit::{
    Acquired, CatalogError, CheckpointAt, Commit, Genesis, Head, LaneCommit, Outcome, Owner,
};
use windrow_core::values::decision::{Decided, Decision, FloorReason};
use windrow_core::values::ledger::{LaneLedger, TableLedger};
use windrow_core::values::shape::Shape;
use windrow_core::values::time::{DbTime, EventTime};

const LEASE_MS: u64 = 60_000;
const NOW: DbTime = DbTime(1_725_192_000_000);

fn take(catalog: &mut Catalog, who: &str) -> (Owner, Option<Head>) {
    match catalog
        .acquire(NOW, who, &format!("id of {who}"), LEASE_MS, None)
        .unwrap()
    {
        Acquired::Ours { owner, head, .. } => (owner, head.map(|head| *head)),
        held @ Acquired::Held { .. } => panic!("{held:?}"),
    }
}

fn commit(catalog: &mut Catalog, commit: &Commit) -> Result<DbTime, CatalogError> {
    let checkpoints = match &commit.checkpoint {
        Some(CheckpointAt::Object(key)) => BTreeMap::from([(key.clone(), Default::default())]),
        _ => BTreeMap::new(),
    };
    catalog.commit(NOW, commit, &checkpoints, None)
}

/// Epoch `n` takes each topic partition from offset `10 * (n - 1)` to `10 * n`.
fn epoch(owner: &Owner, n: u64) -> Commit {
    let to = i64::try_from(n).unwrap() * 10;
    let ledger = LaneLedger {
        next_offset: to,
        counted: n * 10,
        ..LaneLedger::default()
    };
    let lane = LaneCommit {
        from: (to - 10).max(0),
        to,
        leader_epoch: 3,
        watermark: None,
        ledger,
    };
    let genesis = Genesis {
        shape: Shape::count_by_origin("test-topic", 10_000, 10_000),
        warehouse: "s3a://spark/warehouse".to_owned(),
        cluster_id: "cluster".to_owned(),
        topic_id: "topic".to_owned(),
        start_offsets: BTreeMap::from([(0, 0), (1, 0)]),
    };
    Commit {
        owner: owner.clone(),
        epoch: n,
        genesis: (n == 0).then_some(genesis),
        lanes: BTreeMap::from([(0, lane.clone()), (1, lane)]),
        topic_id: "topic".to_owned(),
        decisions: Vec::new(),
        closed_through: None,
        ledger: TableLedger::default(),
        files: Vec::new(),
        checkpoint: None,
        manifest: format!("_windrow/default.t/manifests/{}-{n}.json", owner.term),
        digest: format!("digest of {n}"),
    }
}

fn floor(offset: i64) -> Decision {
    let what = Decided::Floor {
        at: EventTime(offset),
        reason: FloorReason::Idle,
    };
    Decision {
        partition: 1,
        offset,
        what,
    }
}

#[track_caller]
fn fenced<T: std::fmt::Debug>(answer: Result<T, CatalogError>) {
    assert!(
        matches!(&answer, Err(CatalogError::Fenced(_))),
        "{answer:?}"
    );
}

#[test]
fn a_table_lives_through_owners() {
    let mut catalog = Catalog::default();
    assert_eq!(catalog.head(None), None);
    let (first, head) = take(&mut catalog, "m/app/0");
    assert_eq!(head, None);
    let held = catalog
        .acquire(NOW, "m/app/1", "other", LEASE_MS, None)
        .unwrap();
    assert!(
        matches!(&held, Acquired::Held { by, left_ms } if by == "m/app/0" && *left_ms > 0),
        "{held:?}"
    );

    for n in 0..3 {
        commit(&mut catalog, &epoch(&first, n)).unwrap();
    }
    let mut third = epoch(&first, 3);
    third.decisions = vec![floor(25)];
    let at = commit(&mut catalog, &third).unwrap();
    assert_eq!(
        commit(&mut catalog, &third).unwrap(),
        at,
        "the same again is success"
    );
    fenced(commit(
        &mut catalog,
        &Commit {
            digest: "another".to_owned(),
            ..third.clone()
        },
    ));
    fenced(commit(&mut catalog, &epoch(&first, 7)));
    let committed = Outcome::Committed {
        digest: "digest of 3".to_owned(),
        committed_at: at,
    };
    assert_eq!(catalog.outcome(3), committed);
    assert_eq!(catalog.outcome(4), Outcome::Absent);
    assert!(!catalog.renew(NOW, &first, LEASE_MS).unwrap().1);

    catalog.release(&first);
    let (second, head) = take(&mut catalog, "m/app/1");
    assert_eq!(second.term, first.term + 1);
    let head = head.unwrap();
    assert_eq!((&head.last, head.committed_at), (&third, at));
    assert_eq!(catalog.head(None), Some(head));

    // The first owner comes back to life, and has planned the next epoch.
    fenced(catalog.renew(NOW, &first, LEASE_MS));
    fenced(commit(&mut catalog, &epoch(&first, 4)));
    catalog.release(&first);
    commit(&mut catalog, &epoch(&second, 4)).unwrap();
}

#[test]
fn lease_that_is_over_is_taken() {
    let mut catalog = Catalog::default();
    let (first, _) = take(&mut catalog, "a");
    commit(&mut catalog, &epoch(&first, 0)).unwrap();
    let later = DbTime(NOW.0 + LEASE_MS as i64);
    let taken = catalog
        .acquire(later, "b", "id of b", LEASE_MS, None)
        .unwrap();
    let Acquired::Ours { owner: next, .. } = taken else {
        panic!("{taken:?}")
    };
    fenced(commit(&mut catalog, &epoch(&first, 1)));
    commit(&mut catalog, &epoch(&next, 1)).unwrap();
}

#[test]
fn a_commit_that_leaves_a_gap_changes_nothing() {
    let mut catalog = Catalog::default();
    let (owner, _) = take(&mut catalog, "a");
    commit(&mut catalog, &epoch(&owner, 0)).unwrap();
    let mut wrong = epoch(&owner, 1);
    wrong.lanes.get_mut(&1).unwrap().from = 5;
    fenced(commit(&mut catalog, &wrong));
    assert_eq!(catalog.outcome(1), Outcome::Absent);
    // A topic partition that appears later begins where it likes.
    let mut right = epoch(&owner, 1);
    right.lanes.insert(
        2,
        LaneCommit {
            from: 77,
            to: 80,
            ..right.lanes[&0].clone()
        },
    );
    commit(&mut catalog, &right).unwrap();
}

#[test]
fn head_holds_the_newest_checkpoint_and_what_was_decided_since() {
    let mut catalog = Catalog::default();
    let (owner, _) = take(&mut catalog, "a");
    commit(
        &mut catalog,
        &Commit {
            decisions: vec![floor(1)],
            ..epoch(&owner, 0)
        },
    )
    .unwrap();
    let head = catalog.head(None).unwrap();
    assert_eq!((head.checkpoint, head.decisions), (None, vec![floor(1)]));
    let inline = CheckpointAt::Inline("00ff".to_owned());
    let with = Commit {
        checkpoint: Some(inline.clone()),
        decisions: vec![floor(2)],
        ..epoch(&owner, 1)
    };
    commit(&mut catalog, &with).unwrap();
    let head = catalog.head(None).unwrap();
    assert_eq!(
        (head.last, head.checkpoint, head.decisions),
        (with, Some((1, inline.clone())), vec![])
    );
    for n in 2..5 {
        let decisions = vec![floor(i64::try_from(n).unwrap() + 1)];
        commit(
            &mut catalog,
            &Commit {
                decisions,
                ..epoch(&owner, n)
            },
        )
        .unwrap();
    }
    let (_, head) = take(&mut catalog, "a");
    let head = head.unwrap();
    assert_eq!(
        (head.checkpoint, head.decisions),
        (Some((1, inline)), vec![floor(3), floor(4), floor(5)])
    );
}

#[test]
fn pause_holds_for_later_owners() {
    let mut catalog = Catalog::default();
    assert!(matches!(
        catalog.set_paused(true),
        Err(CatalogError::Stop(_))
    ));
    let (owner, _) = take(&mut catalog, "a");
    commit(&mut catalog, &epoch(&owner, 0)).unwrap();
    catalog.set_paused(true).unwrap();
    assert!(catalog.renew(NOW, &owner, LEASE_MS).unwrap().1);
    catalog.release(&owner);
    let (owner, head) = take(&mut catalog, "b");
    assert!(head.unwrap().paused);
    catalog.set_paused(false).unwrap();
    assert!(!catalog.renew(NOW, &owner, LEASE_MS).unwrap().1);
}
