//! Cases that every catalog passes: the simulated one, the directory and PostgreSQL. They ask only
//! what an engine asks. What one catalog alone can do is tested beside it.

use std::collections::BTreeMap;
use std::fmt::Debug;
use windrow_core::table::commit::{
    Acquired, CatalogError, CheckpointAt, ClockBound, Commit, FileKind, Genesis, Head, LaneCommit,
    LeaseMark, LiveFile, NewFile, Outcome, Owner, Renewed, RetiredFile,
};
use windrow_core::table::compaction::Level;
use windrow_core::table::hive::TableKind;
use windrow_core::values::cause::Cause;
use windrow_core::values::decision::{Decided, Decision, FloorReason};
use windrow_core::values::ledger::{LaneLedger, TableLedger};
use windrow_core::values::shape::Shape;
use windrow_core::values::time::{DbTime, EventTime};

/// A catalog of several tables.
pub trait Place {
    type Client: Client;

    /// A new client of one table.
    fn client(&self, table: &str) -> Self::Client;
}

/// What a process asks of one table's catalog.
pub trait Client {
    async fn acquire_over(
        &mut self,
        who: &str,
        owner_id: &str,
        lease_ms: u64,
        over: Option<&LeaseMark>,
    ) -> Result<Acquired, CatalogError>;
    async fn renew(&mut self, owner: &Owner, lease_ms: u64) -> Result<Renewed, CatalogError>;
    async fn release(&mut self, owner: &Owner) -> Result<(), CatalogError>;
    async fn commit_by(
        &mut self,
        commit: &Commit,
        clock: &ClockBound,
    ) -> Result<DbTime, CatalogError>;
    async fn outcome(&mut self, epoch: u64) -> Result<Outcome, CatalogError>;
    async fn head(&mut self) -> Result<Option<Head>, CatalogError>;
    async fn set_paused(&mut self, paused: bool) -> Result<(), CatalogError>;
    async fn live_files(&mut self) -> Result<Vec<LiveFile>, CatalogError>;
    async fn drop_emptied(
        &mut self,
        owner: &Owner,
        emptied_ms: u64,
        clock: &ClockBound,
    ) -> Result<(), CatalogError>;
    async fn doom(
        &mut self,
        owner: &Owner,
        keys: &[String],
        clock: &ClockBound,
    ) -> Result<Vec<String>, CatalogError>;
    async fn doomed_past(
        &mut self,
        grace_ms: u64,
        after: Option<&str>,
        clock: &ClockBound,
    ) -> Result<Vec<String>, CatalogError>;
    async fn forget(&mut self, owner: &Owner, keys: &[String]) -> Result<(), CatalogError>;

    /// Lets ten milliseconds pass by the catalog's clock.
    async fn wait(&mut self);

    async fn acquire(
        &mut self,
        who: &str,
        owner_id: &str,
        lease_ms: u64,
    ) -> Result<Acquired, CatalogError> {
        self.acquire_over(who, owner_id, lease_ms, None).await
    }

    /// A commit that is sent by whatever the catalog's clock is.
    async fn commit(&mut self, commit: &Commit) -> Result<DbTime, CatalogError> {
        self.commit_by(commit, &ANY_CLOCK).await
    }
}

/// A bound that every clock keeps.
pub const ANY_CLOCK: ClockBound = ClockBound {
    expected: DbTime(0),
    off_max_ms: u64::MAX,
};

pub const LEASE_MS: u64 = 60_000;

pub async fn take(client: &mut impl Client, who: &str) -> (Owner, Option<Head>) {
    match client
        .acquire(who, &format!("id of {who}"), LEASE_MS)
        .await
        .unwrap()
    {
        Acquired::Ours { owner, head, .. } => (owner, head.map(|head| *head)),
        held @ Acquired::Held { .. } => panic!("{held:?}"),
    }
}

pub fn genesis() -> Genesis {
    Genesis {
        shape: Shape::count_by_origin("test-topic", 10_000, 10_000),
        warehouse: "s3a://spark/warehouse".parse().unwrap(),
        cluster_id: "cluster".to_owned(),
        topic_id: "topic".to_owned(),
        start_offsets: BTreeMap::from([(0, 0), (1, 0)]),
        empty_file: "_windrow/default.t/rows/empty-abc/part.parquet".to_owned(),
        adopted: None,
    }
}

/// Epoch `n` without files. It takes each topic partition from offset `10 * (n - 1)` to `10 * n`.
pub fn epoch(owner: &Owner, n: u64) -> Commit {
    let to = i64::try_from(n).unwrap() * 10;
    let lane = LaneCommit {
        held: 0,
        newest: None,
        from: (to - 10).max(0),
        to,
        leader_epoch: 3,
        epoch_mark: None,
        watermark: None,
        ledger: LaneLedger {
            next_offset: to,
            counted: n * 10,
            ..LaneLedger::default()
        },
    };
    Commit {
        owner: owner.clone(),
        epoch: n,
        previous: n
            .checked_sub(1)
            .map_or(String::new(), |n| format!("digest of {n}")),
        genesis: (n == 0).then(genesis),
        lanes: BTreeMap::from([(0, lane.clone()), (1, lane)]),
        topic_id: "topic".to_owned(),
        cluster_id: "cluster".to_owned(),
        left_topic_ids: Vec::new(),
        decisions: Vec::new(),
        closed_through: None,
        ledger: TableLedger::default(),
        files: Vec::new(),
        retired: Vec::new(),
        checkpoint: None,
        manifest: format!(
            "_windrow/default.t/manifests/{}-{n:010}-abc.json",
            owner.term
        ),
        digest: format!("digest of {n}"),
    }
}

pub fn file(owner: &Owner, n: u64, kind: FileKind) -> NewFile {
    let rows = matches!(kind, FileKind::Rows { .. });
    let folder = TableKind::of(&kind).word();
    let first_window = EventTime(1_725_148_800_000);
    NewFile {
        chunk: format!("{n:010}"),
        key: format!(
            "_windrow/default.t/{folder}/{}-{n}-abc/part.parquet",
            owner.term
        ),
        bytes: 1000 + n,
        rows: n,
        sha256: "abc".to_owned(),
        first_window: rows.then_some(first_window),
        last_window: rows.then_some(first_window.plus(i64::try_from(n).unwrap() * 10_000)),
        level: Level::Commit,
        as_of: None,
        kind,
    }
}

pub fn rows() -> FileKind {
    FileKind::Rows {
        date: "2024-09-01".to_owned(),
    }
}

/// Epoch `n` with one file of each kind.
pub fn full(owner: &Owner, n: u64) -> Commit {
    let files = [rows(), FileKind::Late, FileKind::Rejects]
        .map(|kind| file(owner, n, kind))
        .to_vec();
    Commit {
        files,
        ..epoch(owner, n)
    }
}

/// As [`full`], but epoch 0 has no files.
pub fn full_after_genesis(owner: &Owner, n: u64) -> Commit {
    if n == 0 {
        epoch(owner, 0)
    } else {
        full(owner, n)
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

/// The answer is that the asker is fenced, and the message has this part.
#[track_caller]
pub fn fenced<T: Debug>(answer: Result<T, CatalogError>, part: &str) {
    assert!(
        matches!(&answer, Err(CatalogError::Fenced(why)) if why.contains(part)),
        "{answer:?}"
    );
}

/// The answer is that a person must act, and the message has this part.
#[track_caller]
pub fn stopped<T: Debug>(answer: Result<T, CatalogError>, part: &str) {
    assert!(
        matches!(&answer, Err(CatalogError::Stop(why)) if why.text.contains(part)),
        "{answer:?}"
    );
}

/// All cases that need no lease that ends by itself.
pub async fn all(place: &impl Place) {
    a_table_lives_through_owners(place).await;
    a_commit_that_leaves_a_gap_changes_nothing(place).await;
    a_commit_that_contradicts_itself_is_refused(place).await;
    head_holds_the_newest_checkpoint_and_what_was_decided_since(place).await;
    the_checkpoint_before_the_newest_is_kept(place).await;
    pause_holds_for_later_owners(place).await;
    a_commit_of_another_clock_changes_nothing(place).await;
    a_renewal_says_which_epoch_is_the_last(place).await;
    a_swap_replaces_files_by_others(place).await;
    several_files_of_a_swap_take_the_chunks_of_as_many_sources(place).await;
    files_are_dropped_without_others_in_their_place(place).await;
    a_swap_that_contradicts_itself_is_refused(place).await;
    a_swap_of_an_owner_of_before_changes_nothing(place).await;
    what_a_swap_has_replaced_is_doomed_and_then_forgotten(place).await;
    emptied_table_partitions_are_deleted_by_the_owner_and_the_right_clock(place).await;
}

/// The table `life` has the files of epochs 1 to 4 afterwards, and `m/app/1` owns it in term 2.
async fn a_table_lives_through_owners(place: &impl Place) {
    let (mut a, mut b) = (place.client("life"), place.client("life"));
    assert_eq!(a.head().await.unwrap(), None);
    let (first, head) = take(&mut a, "m/app/0").await;
    assert_eq!(head, None);
    let held = b.acquire("m/app/1", "other", LEASE_MS).await.unwrap();
    assert!(
        matches!(&held, Acquired::Held { by, left_ms, .. } if by == "m/app/0" && *left_ms > 0),
        "{held:?}"
    );

    for n in 0..3 {
        a.commit(&full_after_genesis(&first, n)).await.unwrap();
    }
    let mut third = full(&first, 3);
    third.decisions = vec![floor(25)];
    let at = a.commit(&third).await.unwrap();
    let again = a.commit(&third).await.unwrap();
    assert_eq!(again, at, "the same again is success");
    let other_contents = Commit {
        digest: "another".to_owned(),
        ..third.clone()
    };
    fenced(a.commit(&other_contents).await, "other contents");
    fenced(a.commit(&epoch(&first, 7)).await, "next epoch is 4");
    let committed = Outcome::Committed {
        digest: "digest of 3".to_owned(),
        committed_at: at,
    };
    assert_eq!(a.outcome(3).await.unwrap(), committed);
    assert_eq!(a.outcome(4).await.unwrap(), Outcome::Absent);
    assert!(!a.renew(&first, LEASE_MS).await.unwrap().paused);

    a.release(&first).await.unwrap();
    let (second, head) = take(&mut b, "m/app/1").await;
    assert_eq!(second.term, first.term + 1);
    let head = head.unwrap();
    assert_eq!(
        (&head.genesis, &head.last, head.committed_at),
        (&genesis(), &third, at)
    );
    assert_eq!(b.head().await.unwrap(), Some(head));

    // The first owner comes back to life, and has planned the next epoch.
    fenced(a.renew(&first, LEASE_MS).await, "");
    fenced(a.commit(&epoch(&first, 4)).await, "");
    a.release(&first).await.unwrap();
    // It may still learn what became of its epochs.
    assert_eq!(a.outcome(3).await.unwrap(), committed);
    assert_eq!(a.outcome(4).await.unwrap(), Outcome::Absent);
    assert_eq!(a.commit(&third).await.unwrap(), at);
    b.commit(&full(&second, 4)).await.unwrap();
}

async fn a_commit_that_leaves_a_gap_changes_nothing(place: &impl Place) {
    let mut client = place.client("gap");
    let (owner, _) = take(&mut client, "a").await;
    client.commit(&epoch(&owner, 0)).await.unwrap();
    let before = client.head().await.unwrap();
    let mut wrong = full(&owner, 1);
    wrong.lanes.get_mut(&1).unwrap().from = 5;
    fenced(client.commit(&wrong).await, "goes on from offset 5");
    assert_eq!(client.outcome(1).await.unwrap(), Outcome::Absent);
    assert_eq!(client.head().await.unwrap(), before);
    // A topic partition that appears later begins where it likes.
    let mut right = full(&owner, 1);
    let joined = LaneCommit {
        from: 77,
        to: 80,
        ..right.lanes[&0].clone()
    };
    right.lanes.insert(2, joined);
    client.commit(&right).await.unwrap();
}

async fn a_commit_that_contradicts_itself_is_refused(place: &impl Place) {
    let mut client = place.client("mistake");
    let (owner, _) = take(&mut client, "a").await;
    let nameless = Commit {
        genesis: None,
        ..epoch(&owner, 0)
    };
    stopped(client.commit(&nameless).await, "a mistake of windrow's");
    assert_eq!(client.head().await.unwrap(), None);
    client.commit(&epoch(&owner, 0)).await.unwrap();
    let renamed = Commit {
        genesis: Some(genesis()),
        ..epoch(&owner, 1)
    };
    stopped(client.commit(&renamed).await, "a mistake of windrow's");
}

async fn head_holds_the_newest_checkpoint_and_what_was_decided_since(place: &impl Place) {
    let mut client = place.client("head");
    let (owner, _) = take(&mut client, "a").await;
    let first = Commit {
        decisions: vec![floor(1)],
        ..epoch(&owner, 0)
    };
    client.commit(&first).await.unwrap();
    let head = client.head().await.unwrap().unwrap();
    assert_eq!((head.checkpoint, head.decisions), (None, vec![floor(1)]));
    let inline = CheckpointAt::Inline("00ff".to_owned());
    let with = Commit {
        checkpoint: Some(inline.clone()),
        decisions: vec![floor(2)],
        ..epoch(&owner, 1)
    };
    client.commit(&with).await.unwrap();
    let head = client.head().await.unwrap().unwrap();
    assert_eq!(
        (head.last, head.checkpoint, head.decisions),
        (with, Some((1, inline.clone())), vec![])
    );
    for n in 2..5 {
        let next = Commit {
            decisions: vec![floor(i64::try_from(n).unwrap() + 1)],
            ..epoch(&owner, n)
        };
        client.commit(&next).await.unwrap();
    }
    let (_, head) = take(&mut client, "a").await;
    let head = head.unwrap();
    assert_eq!(
        (head.checkpoint, head.decisions),
        (Some((1, inline)), vec![floor(3), floor(4), floor(5)])
    );
}

async fn the_checkpoint_before_the_newest_is_kept(place: &impl Place) {
    let mut client = place.client("earlier");
    let (owner, _) = take(&mut client, "a").await;
    let object = |n: u64| CheckpointAt::Object(format!("_windrow/default.t/checkpoints/1-{n}-abc"));
    // Epochs 1, 3 and 5 have one.
    for n in 0..7 {
        let next = Commit {
            checkpoint: (n % 2 == 1).then(|| object(n)),
            decisions: vec![floor(i64::try_from(n).unwrap() + 1)],
            ..epoch(&owner, n)
        };
        client.commit(&next).await.unwrap();
    }
    let head = client.head().await.unwrap().unwrap();
    assert_eq!(head.checkpoint, Some((5, object(5))));
    assert_eq!(head.decisions, [floor(7)]);
    let earlier = head.earlier.clone().unwrap();
    assert_eq!((earlier.epoch, &earlier.at), (3, &object(3)));
    assert_eq!(earlier.decisions, [floor(5), floor(6)]);
    // Whoever goes back has all decisions since.
    let mut head = head;
    assert!(head.go_back());
    assert_eq!(head.checkpoint, Some((3, object(3))));
    assert_eq!(head.decisions, [floor(5), floor(6), floor(7)]);
    assert!(!head.go_back());
}

/// The table `pause` is owned by `b` afterwards, and not paused.
async fn pause_holds_for_later_owners(place: &impl Place) {
    let (mut a, mut b) = (place.client("pause"), place.client("pause"));
    stopped(b.set_paused(true).await, "no such table");
    let (owner, _) = take(&mut a, "a").await;
    a.commit(&epoch(&owner, 0)).await.unwrap();
    b.set_paused(true).await.unwrap();
    assert!(a.renew(&owner, LEASE_MS).await.unwrap().paused);
    a.release(&owner).await.unwrap();
    let (owner, head) = take(&mut b, "b").await;
    assert!(head.unwrap().paused);
    a.set_paused(false).await.unwrap();
    a.set_paused(false).await.unwrap();
    assert!(!b.renew(&owner, LEASE_MS).await.unwrap().paused);
}

async fn a_commit_of_another_clock_changes_nothing(place: &impl Place) {
    let mut client = place.client("clock");
    let (owner, _) = take(&mut client, "a").await;
    client.commit(&epoch(&owner, 0)).await.unwrap();
    let before = client.head().await.unwrap();
    let now = client.renew(&owner, LEASE_MS).await.unwrap().now;
    let day = 86_400_000;
    for ahead in [-2 * day, 2 * day] {
        let clock = ClockBound {
            expected: DbTime(now.0 + ahead),
            off_max_ms: 3_600_000,
        };
        let answer = client.commit_by(&full(&owner, 1), &clock).await;
        assert!(
            matches!(&answer, Err(CatalogError::Retry(why))
                if why.cause == Some(Cause::Clocks) && why.text.contains("which is")),
            "{answer:?}"
        );
        assert_eq!(client.outcome(1).await.unwrap(), Outcome::Absent);
        assert_eq!(client.head().await.unwrap(), before);
        // One that is there already is there, whatever the clock says.
        client.commit_by(&epoch(&owner, 0), &clock).await.unwrap();
    }
    let clock = ClockBound {
        expected: now,
        off_max_ms: 3_600_000,
    };
    let at = client.commit_by(&full(&owner, 1), &clock).await.unwrap();
    assert!(at >= now);
}

async fn a_renewal_says_which_epoch_is_the_last(place: &impl Place) {
    let mut client = place.client("renewal");
    let (owner, _) = take(&mut client, "a").await;
    for n in 0..3 {
        let before = client.renew(&owner, LEASE_MS).await.unwrap().last_epoch;
        assert_eq!(before, u64::checked_sub(n, 1));
        client.commit(&epoch(&owner, n)).await.unwrap();
    }
    let last = client.renew(&owner, LEASE_MS).await.unwrap().last_epoch;
    assert_eq!(last, Some(2));
}

/// The file is one that readers see no more.
pub fn retired(file: &NewFile) -> RetiredFile {
    RetiredFile {
        kind: file.kind.clone(),
        key: file.key.clone(),
        rows: file.rows,
        bytes: file.bytes,
    }
}

/// The compacted file number `part` of an hour, which takes the chunk of `source`.
pub fn compacted(owner: &Owner, source: &NewFile, part: u64) -> NewFile {
    let folder = TableKind::of(&source.kind).word();
    let side = source.first_window.is_none();
    NewFile {
        level: Level::Hour,
        key: format!(
            "_windrow/default.t/{folder}/{}-hour12-abc-{part}/part.parquet",
            owner.term
        ),
        bytes: 5000 + part,
        rows: 50 + part,
        as_of: side.then_some(DbTime(1_725_192_000_123)),
        ..source.clone()
    }
}

/// Epochs 0 to 3 are committed, of which the last three have a file of each kind.
pub async fn three_epochs(client: &mut impl Client) -> Owner {
    let (owner, _) = take(client, "a").await;
    for n in 0..4 {
        client.commit(&full_after_genesis(&owner, n)).await.unwrap();
    }
    owner
}

/// Epoch 4 after [`three_epochs`]: `files` take the chunks of the first of `sources`, and readers
/// see no rows in the others. No record was read.
pub fn fourth(owner: &Owner, sources: &[NewFile], files: Vec<NewFile>) -> Commit {
    let third = epoch(owner, 3);
    let mut lanes = third.lanes;
    lanes.values_mut().for_each(|lane| lane.from = lane.to);
    Commit {
        lanes,
        files,
        retired: sources.iter().map(retired).collect(),
        ..epoch(owner, 4)
    }
}

/// The files that readers see, by their keys.
pub async fn seen(client: &mut impl Client) -> BTreeMap<String, LiveFile> {
    let files = client.live_files().await.unwrap();
    let n = files.len();
    let by_key = files.into_iter().map(|live| (live.file.key.clone(), live));
    let by_key: BTreeMap<_, _> = by_key.collect();
    assert_eq!(by_key.len(), n, "one is seen twice");
    by_key
}

/// The three chunks of the table's own rows.
pub fn three_sources(owner: &Owner) -> Vec<NewFile> {
    (1..4).map(|n| file(owner, n, rows())).collect()
}

/// The table `swap` is owned by `b` afterwards.
async fn a_swap_replaces_files_by_others(place: &impl Place) {
    let mut client = place.client("swap");
    assert!(seen(&mut client).await.is_empty());
    let owner = three_epochs(&mut client).await;
    let before = seen(&mut client).await;
    assert_eq!(before.len(), 9);
    let third = &before[&file(&owner, 3, FileKind::Late).key];
    assert_eq!(third.epoch, 3);
    assert_eq!(third.file, file(&owner, 3, FileKind::Late));
    assert_eq!(
        third.committed_at,
        client.head().await.unwrap().unwrap().committed_at
    );

    let sources = three_sources(&owner);
    let new = compacted(&owner, &sources[0], 0);
    let commit = fourth(&owner, &sources, vec![new.clone()]);
    let at = client.commit(&commit).await.unwrap();
    // As when the answer was lost: it is asked for, and sent again.
    let committed = Outcome::Committed {
        digest: commit.digest.clone(),
        committed_at: at,
    };
    assert_eq!(client.outcome(4).await.unwrap(), committed);
    assert_eq!(client.commit(&commit).await.unwrap(), at);
    let after = seen(&mut client).await;
    assert_eq!(after.len(), 7);
    let live = LiveFile {
        epoch: 4,
        committed_at: at,
        file: new,
    };
    assert_eq!(after[&live.file.key], live);
    assert!(
        sources
            .iter()
            .all(|source| !after.contains_key(&source.key))
    );

    // The side tables, by another owner, who finds all of it as it was.
    client.release(&owner).await.unwrap();
    let mut other = place.client("swap");
    let (owner, head) = take(&mut other, "b").await;
    assert_eq!(head.unwrap().last, commit);
    assert_eq!(seen(&mut other).await, after);
    let late: Vec<NewFile> = after
        .values()
        .map(|live| live.file.clone())
        .filter(|file| file.kind == FileKind::Late)
        .collect();
    let new = compacted(&owner, &late[1], 1);
    let mut next = fourth(
        &owner,
        &[late[1].clone(), late[0].clone()],
        vec![new.clone()],
    );
    (next.epoch, next.previous) = (5, commit.digest);
    next.digest = "digest of 5".to_owned();
    other.commit(&next).await.unwrap();
    let after = seen(&mut other).await;
    assert_eq!(after.len(), 6);
    assert_eq!(after[&new.key].file, new);
}

async fn several_files_of_a_swap_take_the_chunks_of_as_many_sources(place: &impl Place) {
    let mut client = place.client("several");
    let owner = three_epochs(&mut client).await;
    let sources = three_sources(&owner);
    let new: Vec<NewFile> = (0..2)
        .map(|n| compacted(&owner, &sources[n], n as u64))
        .collect();
    client
        .commit(&fourth(&owner, &sources, new.clone()))
        .await
        .unwrap();
    let after = seen(&mut client).await;
    assert_eq!(after.len(), 8);
    assert!(new.iter().all(|file| after[&file.key].file == *file));
    // The next commit is one like all others, and its files are new chunks.
    let mut next = full(&owner, 5);
    next.lanes.values_mut().for_each(|lane| lane.from = 30);
    client.commit(&next).await.unwrap();
    assert_eq!(seen(&mut client).await.len(), 11);
}

async fn files_are_dropped_without_others_in_their_place(place: &impl Place) {
    let mut client = place.client("retention");
    let owner = three_epochs(&mut client).await;
    let mut dropped = three_sources(&owner);
    dropped.push(file(&owner, 1, FileKind::Rejects));
    client
        .commit(&fourth(&owner, &dropped, Vec::new()))
        .await
        .unwrap();
    let after = seen(&mut client).await;
    assert_eq!(after.len(), 5);
    assert!(after.values().all(|live| live.file.kind != rows()));
}

async fn a_swap_that_contradicts_itself_is_refused(place: &impl Place) {
    let mut client = place.client("contradiction");
    let owner = three_epochs(&mut client).await;
    let sources = three_sources(&owner);
    let before = seen(&mut client).await;
    let unknown = file(&owner, 77, rows());
    let new = |source: &NewFile, n| compacted(&owner, source, n);
    let cases = [
        (vec![unknown.clone()], vec![], "readers do not see it"),
        (vec![sources[0].clone(); 2], vec![], "dropped twice"),
        (
            vec![sources[0].clone()],
            vec![new(&sources[0], 0), new(&sources[1], 1)],
            "2 new files are to replace 1 files",
        ),
        (
            sources[..2].to_vec(),
            vec![new(&sources[1], 0)],
            "another chunk",
        ),
        (sources.clone(), vec![unknown], "another chunk"),
    ];
    for (sources, files, part) in cases {
        let wrong = fourth(&owner, &sources, files);
        stopped(client.commit(&wrong).await, part);
        assert_eq!(client.outcome(4).await.unwrap(), Outcome::Absent);
        assert_eq!(seen(&mut client).await, before);
    }
    // One that names a doomed key is put again under another one.
    let doomed = vec![new(&sources[0], 0)];
    let keys = [doomed[0].key.clone()];
    assert_eq!(client.doom(&owner, &keys, &ANY_CLOCK).await.unwrap(), keys);
    let named = fourth(&owner, &sources, doomed);
    fenced(client.commit(&named).await, "is doomed");
    assert_eq!(seen(&mut client).await, before);
    let again = fourth(&owner, &sources, vec![new(&sources[0], 1)]);
    client.commit(&again).await.unwrap();
}

async fn a_swap_of_an_owner_of_before_changes_nothing(place: &impl Place) {
    let (mut a, mut b) = (place.client("swapterm"), place.client("swapterm"));
    let first = three_epochs(&mut a).await;
    let sources = three_sources(&first);
    a.release(&first).await.unwrap();
    let (second, _) = take(&mut b, "b").await;
    let before = seen(&mut b).await;
    let new = compacted(&first, &sources[0], 0);
    let late = fourth(&first, &sources, vec![new]);
    fenced(a.commit(&late).await, "");
    fenced(a.drop_emptied(&first, 0, &ANY_CLOCK).await, "");
    assert_eq!(seen(&mut b).await, before);
    let new = compacted(&second, &sources[0], 0);
    b.commit(&fourth(&second, &sources, vec![new]))
        .await
        .unwrap();
    assert_eq!(seen(&mut b).await.len(), 7);
}

/// The table `forgotten` is owned by `a` afterwards. Its files are those of a swap and of the side
/// tables.
async fn what_a_swap_has_replaced_is_doomed_and_then_forgotten(place: &impl Place) {
    let mut client = place.client("forgotten");
    let owner = three_epochs(&mut client).await;
    let sources = three_sources(&owner);
    let new = compacted(&owner, &sources[0], 0);
    client
        .commit(&fourth(&owner, &sources, vec![new.clone()]))
        .await
        .unwrap();
    let keys: Vec<String> = sources.iter().map(|file| file.key.clone()).collect();
    let hour = 3_600_000;
    let due = client.doomed_past(hour, None, &ANY_CLOCK).await.unwrap();
    assert!(due.is_empty(), "{due:?}");
    assert_eq!(client.doomed_past(0, None, &ANY_CLOCK).await.unwrap(), keys);
    // They are doomed already, and neither the new file nor the one without rows can be.
    let mut asked = keys.clone();
    asked.extend([new.key, genesis().empty_file]);
    let doomed = client.doom(&owner, &asked, &ANY_CLOCK).await.unwrap();
    assert!(doomed.is_empty(), "{doomed:?}");
    let before = seen(&mut client).await;
    client.forget(&owner, &keys[..2]).await.unwrap();
    let left = client.doomed_past(0, None, &ANY_CLOCK).await.unwrap();
    assert_eq!(left, keys[2..]);
    assert_eq!(seen(&mut client).await, before);
    // If an object of such a key comes back, it can be doomed once more.
    let again = client.doom(&owner, &asked, &ANY_CLOCK).await.unwrap();
    assert_eq!(again, keys[..2]);
}

async fn emptied_table_partitions_are_deleted_by_the_owner_and_the_right_clock(place: &impl Place) {
    let mut client = place.client("emptied");
    let owner = three_epochs(&mut client).await;
    let sources = three_sources(&owner);
    let new = compacted(&owner, &sources[0], 0);
    client
        .commit(&fourth(&owner, &sources, vec![new]))
        .await
        .unwrap();
    let before = seen(&mut client).await;
    let now = client.renew(&owner, LEASE_MS).await.unwrap().now;
    let clock = |ahead: i64| ClockBound {
        expected: DbTime(now.0 + ahead),
        off_max_ms: 3_600_000,
    };
    let day = 86_400_000;
    for ahead in [-day, day] {
        let answer = client.drop_emptied(&owner, 0, &clock(ahead)).await;
        assert!(
            matches!(&answer, Err(CatalogError::Retry(why)) if why.cause == Some(Cause::Clocks)),
            "{answer:?}"
        );
    }
    for emptied_ms in [3_600_000, 0, 0] {
        client
            .drop_emptied(&owner, emptied_ms, &clock(0))
            .await
            .unwrap();
        assert_eq!(seen(&mut client).await, before);
    }
    let mut next = full(&owner, 5);
    next.lanes.values_mut().for_each(|lane| lane.from = 30);
    client.commit(&next).await.unwrap();
}

/// For catalogs whose leases end by the clock.
pub async fn lease_that_is_over_is_taken(place: &impl Place) {
    let (mut a, mut b) = (place.client("lease"), place.client("lease"));
    let Acquired::Ours { owner, .. } = a.acquire("a", "id of a", 200).await.unwrap() else {
        panic!("nobody else wants it")
    };
    a.commit(&epoch(&owner, 0)).await.unwrap();
    let mut waits = 0;
    let next = loop {
        match b.acquire("b", "id of b", LEASE_MS).await.unwrap() {
            Acquired::Ours { owner, .. } => break owner,
            Acquired::Held { by, .. } => assert!(by == "a" && waits < 1000, "{by} {waits}"),
        }
        b.wait().await;
        waits += 1;
    };
    fenced(a.commit(&epoch(&owner, 1)).await, "\"b\" owns it now");
    b.commit(&epoch(&next, 1)).await.unwrap();
}

/// For the same ones: the clock was ahead when the owner took the table, and its lease ends in a
/// day. Whoever has seen it unchanged for long enough takes it.
pub async fn lease_of_a_clock_that_was_ahead_is_taken_when_it_was_seen_unchanged(
    place: &impl Place,
) {
    let (mut a, mut b) = (place.client("ahead"), place.client("ahead"));
    let day = 86_400_000;
    let Acquired::Ours { owner, .. } = a.acquire("a", "id of a", day).await.unwrap() else {
        panic!("nobody else wants it")
    };
    a.commit(&epoch(&owner, 0)).await.unwrap();
    let mut seen = None;
    for _ in 0..2 {
        let held = b
            .acquire_over("b", "id of b", LEASE_MS, seen.as_ref())
            .await;
        let Acquired::Held { lease, left_ms, .. } = held.unwrap() else {
            panic!("it was renewed since it was seen")
        };
        assert!(left_ms > day / 2);
        seen = lease;
        b.wait().await;
        a.renew(&owner, day).await.unwrap();
    }
    let held = b
        .acquire_over("b", "id of b", LEASE_MS, seen.as_ref())
        .await;
    let Acquired::Held { lease, .. } = held.unwrap() else {
        panic!("it was renewed since it was seen")
    };
    let taken = b
        .acquire_over("b", "id of b", LEASE_MS, lease.as_ref())
        .await;
    assert!(matches!(taken, Ok(Acquired::Ours { .. })), "{taken:?}");
    fenced(a.commit(&epoch(&owner, 1)).await, "\"b\" owns it now");
}
