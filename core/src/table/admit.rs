//! Decides what may be done with a table, from what a catalog found of it under its lock.
//! There is no I/O here: a catalog reads [`JobFacts`], asks, and writes only what is allowed. The
//! PostgreSQL catalog, the local one and the simulated one all ask these functions, so the
//! simulation tests the rules that run in production.

use crate::table::commit::{Chunk, ClockBound, Commit, LeaseMark, Outcome, Owner};
use crate::values::record::{Offset, Partition};
use crate::values::time::{DbTime, EventTime, about_duration};
use std::collections::{BTreeMap, BTreeSet};

/// What a catalog found of a table, read while nobody else could change it.
///
/// A catalog may leave out what its question does not need: only a commit needs `next_offsets`,
/// `doomed`, `last_digest` and `live`, and only a commit or [`outcome`] needs `epoch`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobFacts {
    /// The owner of the newest term, also after it gave the lease back. `None` where the catalog
    /// does not know the table. In the local catalog it is also `None` while this process does not
    /// hold the table's lock file.
    pub owner: Option<Owner>,
    /// The name by which people know the owner; empty where there is none.
    pub owner_name: String,
    /// When the lease ends, by the catalog's clock. `None` when it was given back.
    pub lease_until: Option<DbTime>,
    /// The last epoch that is committed; `None` before epoch 0.
    pub last_epoch: Option<u64>,
    /// What is committed under the number of the epoch that is asked about; `None` when nothing is.
    pub epoch: Option<CommittedEpoch>,
    /// Where the last commit left each topic partition. One that no commit has named is absent.
    pub next_offsets: BTreeMap<Partition, Offset>,
    /// Those keys of the commit that are doomed: their objects may be deleted at any moment.
    pub doomed: Vec<String>,
    /// The digest of the last epoch; `None` before epoch 0.
    pub last_digest: Option<String>,
    /// Those files which the commit retires that readers see now: the chunk of each by its key.
    pub live: BTreeMap<String, Chunk>,
}

/// An epoch that a catalog has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedEpoch {
    /// The digest of its commit.
    pub digest: String,
    /// The catalog's clock when it was committed.
    pub committed_at: DbTime,
}

/// What [`admit`] says to a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Write all of it, in one act.
    Write,
    /// The same commit is there since this time. Write nothing, and answer success.
    AlreadyThere(DbTime),
    /// Another writer owns the table or the epoch, or the catalog is not the one that the commit
    /// was planned on. The sender must stop, and read the catalog again.
    Fenced(String),
    /// The commit contradicts itself. That is a mistake of windrow's, so the sender must end.
    Mistake(String),
}

/// Whether a commit may be written. The rules are asked from top to bottom.
#[must_use]
pub fn admit(facts: &JobFacts, commit: &Commit) -> Verdict {
    let there = facts.epoch.as_ref();
    if let Some(same) = there.filter(|there| there.digest == commit.digest) {
        return Verdict::AlreadyThere(same.committed_at);
    }
    if let Err(why) = check_owner(facts, &commit.owner) {
        return Verdict::Fenced(why);
    }
    // The object of a doomed key may be gone before the first reader looks for it.
    if let Some(key) = facts.doomed.first() {
        return Verdict::Fenced(format!("key \"{key}\" is doomed"));
    }
    if there.is_some() {
        return Verdict::Fenced("this epoch is there with other contents".to_owned());
    }
    let next_epoch = facts.last_epoch.map_or(0, |last| last + 1);
    if commit.epoch != next_epoch {
        return Verdict::Fenced(format!(
            "the catalog's next epoch is {next_epoch}; was another database restored?"
        ));
    }
    if facts.last_digest.as_deref().unwrap_or_default() != commit.previous {
        return Verdict::Fenced(
            "the catalog's last epoch has other contents than the one that this commit follows; \
             was another database restored?"
                .to_owned(),
        );
    }
    if let Some(why) = offset_gap(facts, commit) {
        return Verdict::Fenced(why);
    }
    if let Some(why) = swap_mistake(facts, commit) {
        return Verdict::Mistake(format!("{why}; this is a mistake of windrow's"));
    }
    if commit.genesis.is_some() != (commit.epoch == 0) {
        return Verdict::Mistake(
            "epoch 0 describes the table, and no other epoch does; this is a mistake of windrow's"
                .to_owned(),
        );
    }
    Verdict::Write
}

/// A topic partition that does not go on where the last commit left it. One that no commit has
/// named yet may begin anywhere.
fn offset_gap(facts: &JobFacts, commit: &Commit) -> Option<String> {
    commit.lanes.iter().find_map(|(partition, lane)| {
        let next_offset = *facts.next_offsets.get(partition)?;
        (lane.from != next_offset).then(|| {
            let from = lane.from;
            format!(
                "topic partition {partition} goes on from offset {from}, \
                 but the catalog is at {next_offset}"
            )
        })
    })
}

/// What is wrong with the files that a commit replaces or drops. The sender knows what is live:
/// nobody but the owner changes that.
fn swap_mistake(facts: &JobFacts, commit: &Commit) -> Option<String> {
    if commit.retired.is_empty() {
        return None;
    }
    let mut keys = BTreeSet::new();
    for key in commit.retired.iter().map(|file| &file.key) {
        if !facts.live.contains_key(key) {
            return Some(format!(
                "file \"{key}\" is to be replaced or dropped, but readers do not see it"
            ));
        }
        if !keys.insert(key) {
            return Some(format!("file \"{key}\" is to be replaced or dropped twice"));
        }
    }
    if commit.files.len() > keys.len() {
        return Some(format!(
            "{} new files are to replace {} files, and each needs the table partition of one",
            commit.files.len(),
            keys.len()
        ));
    }
    let mut replaced = commit.files.iter().zip(&commit.retired);
    let (new, old) =
        replaced.find(|(new, old)| facts.live.get(&old.key) != Some(&new.as_chunk()))?;
    Some(format!(
        "file \"{}\" is to replace file \"{}\", which is of another chunk",
        new.key, old.key
    ))
}

/// The fence of whatever only the owner may do: commit, renew, give back, doom, forget, restore.
/// Whether its lease is over does not count: while nobody else has taken the table, it may go on.
///
/// # Errors
/// Who owns the table instead, as the end of a sentence. The caller is then fenced.
pub fn check_owner(facts: &JobFacts, owner: &Owner) -> Result<(), String> {
    match &facts.owner {
        Some(ours) if ours == owner => Ok(()),
        Some(_) => Err(format!("\"{}\" owns it now", facts.owner_name)),
        None => Err(
            "it has no owner any more; was it given back, or another database restored?".to_owned(),
        ),
    }
}

/// What [`whose`] says to a process that wants the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// It may take the table, and raises the term with it.
    Ours,
    /// Another process has it.
    Held {
        /// The name by which people know that process.
        by: String,
        /// How long it keeps the table if it does not renew; at least 1.
        left_ms: u64,
        /// The lease as it is now.
        lease: Option<LeaseMark>,
    },
}

/// Whether the process `owner_id` may take the table at `now`, by the catalog's clock: the lease
/// was given back or is over, or is its own. `over` is a lease that this process has seen unchanged
/// for the length of a lease by its own monotonic clock. It is over as well, although a clock that
/// was ahead when it was written, or that was set back since, says otherwise. The lease only saves
/// work. What keeps the table right is that [`admit`] looks at the owner of every commit.
#[must_use]
pub fn whose(facts: &JobFacts, owner_id: &str, now: DbTime, over: Option<&LeaseMark>) -> Whose {
    let another = facts
        .owner
        .as_ref()
        .is_some_and(|owner| owner.owner_id != owner_id);
    let left_ms = facts
        .lease_until
        .map_or(0, |until| until.0.saturating_sub(now.0));
    let lease = facts.owner.clone().zip(facts.lease_until);
    let lease = lease.map(|(owner, until)| LeaseMark { owner, until });
    let unchanged = lease.is_some() && lease.as_ref() == over;
    match u64::try_from(left_ms) {
        Ok(left_ms @ 1..) if another && !unchanged => Whose::Held {
            by: facts.owner_name.clone(),
            left_ms,
            lease,
        },
        _ => Whose::Ours,
    }
}

/// Whether the catalog's clock, which reads `now`, is the one by which a request was made. It is
/// asked in the transaction that writes or that says what may be deleted, after [`admit`] or
/// [`check_owner`] and as late as possible: the clock may have been set since the sender heard it.
///
/// # Errors
/// Both times, as a sentence. The caller writes nothing, and answers `Retry` with the cause
/// `Clocks`; the sender then hears the clock again before it goes on.
pub fn check_clock(now: DbTime, bound: &ClockBound) -> Result<(), String> {
    let off_ms = now.0.abs_diff(bound.expected.0);
    if off_ms <= bound.off_max_ms {
        return Ok(());
    }
    Err(format!(
        "the database's clock says {}, and {} was expected, which is {} off; correct the wrong \
         clock, and run NTP on both machines",
        EventTime(now.0),
        EventTime(bound.expected.0),
        about_duration(off_ms)
    ))
}

/// What an epoch says of when it was committed. It never goes back, also where the clock was ahead
/// at the last commit and is right now.
#[must_use]
pub fn committed_at(now: DbTime, last: Option<DbTime>) -> DbTime {
    last.map_or(now, |last| last.max(now))
}

/// What became of the epoch that the facts are about, after the answer to its commit was lost. The
/// catalog must have waited until that commit can no longer arrive.
///
/// Who owns the table now makes no difference: a commit that became true stays true when another
/// process takes the table, and one that is absent is sent again, to be judged by [`admit`].
#[must_use]
pub fn outcome(facts: &JobFacts) -> Outcome {
    match &facts.epoch {
        Some(there) => Outcome::Committed {
            digest: there.digest.clone(),
            committed_at: there.committed_at,
        },
        None => Outcome::Absent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::commit::{FileKind, Genesis, LaneCommit, NewFile, RetiredFile};
    use crate::table::compaction::Level;
    use crate::values::ledger::LaneLedger;
    use crate::values::shape::Shape;

    fn owner(term: u64, owner_id: &str) -> Owner {
        Owner {
            term,
            owner_id: owner_id.to_owned(),
        }
    }

    /// "a" owns the table in term 3 until 1,000; epoch 6 is the last, and topic partitions 0 and 1
    /// go on from offset 70.
    fn facts() -> JobFacts {
        JobFacts {
            owner: Some(owner(3, "a")),
            owner_name: "unit/a".to_owned(),
            lease_until: Some(DbTime(1000)),
            last_epoch: Some(6),
            epoch: None,
            next_offsets: BTreeMap::from([(0, 70), (1, 70)]),
            doomed: Vec::new(),
            last_digest: Some("digest of 6".to_owned()),
            live: BTreeMap::from([chunk("old", "12"), chunk("older", "11")]),
        }
    }

    /// A file that readers see, and the chunk that it is.
    fn chunk(key: &str, name: &str) -> (String, Chunk) {
        let kind = FileKind::Late;
        let name = name.to_owned();
        (key.to_owned(), Chunk { kind, name })
    }

    /// Epoch 7 of that owner, from offset 70 to 80, with the digest "ours".
    fn commit() -> Commit {
        let lane = LaneCommit {
            held: 0,
            newest: None,
            from: 70,
            to: 80,
            leader_epoch: -1,
            epoch_mark: None,
            watermark: None,
            ledger: LaneLedger::default(),
        };
        Commit {
            owner: owner(3, "a"),
            previous: "digest of 6".to_owned(),
            lanes: BTreeMap::from([(0, lane.clone()), (1, lane)]),
            manifest: "manifest".to_owned(),
            digest: "ours".to_owned(),
            ..Commit::for_tests(7)
        }
    }

    fn genesis() -> Genesis {
        Genesis {
            shape: Shape::count_by_origin("test-topic", 10_000, 10_000),
            warehouse: "s3a://spark/warehouse".parse().unwrap(),
            cluster_id: "cluster".to_owned(),
            topic_id: "topic".to_owned(),
            start_offsets: BTreeMap::from([(0, 70), (1, 70)]),
            empty_file: String::new(),
            adopted: None,
        }
    }

    fn file(key: &str) -> RetiredFile {
        RetiredFile {
            kind: FileKind::Late,
            key: key.to_owned(),
            rows: 1,
            bytes: 1,
        }
    }

    /// The commit retires these files, and brings new ones for these chunks.
    fn swap(commit: &mut Commit, retired: &[&str], chunks: &[&str]) {
        commit.retired = retired.iter().map(|key| file(key)).collect();
        let new = |chunk: &&str| NewFile {
            kind: FileKind::Late,
            chunk: (*chunk).to_owned(),
            level: Level::Hour,
            key: format!("new {chunk}"),
            bytes: 1,
            rows: 1,
            sha256: String::new(),
            first_window: None,
            last_window: None,
            as_of: None,
        };
        commit.files = chunks.iter().map(new).collect();
    }

    fn there(digest: &str) -> Option<CommittedEpoch> {
        Some(CommittedEpoch {
            digest: digest.to_owned(),
            committed_at: DbTime(500),
        })
    }

    fn found_owner(facts: &mut JobFacts, term: u64, owner_id: &str) {
        facts.owner = Some(owner(term, owner_id));
        facts.owner_name = format!("unit/{owner_id}");
    }

    /// Epoch 7 is there with this digest, and `last` is the last epoch.
    fn found_epoch(facts: &mut JobFacts, last: u64, digest: &str) {
        (facts.last_epoch, facts.epoch) = (Some(last), there(digest));
    }

    /// Nothing is committed yet, and epoch 0 is sent.
    fn begin(facts: &mut JobFacts, commit: &mut Commit) {
        (facts.last_epoch, facts.next_offsets) = (None, BTreeMap::new());
        (facts.last_digest, commit.previous) = (None, String::new());
        (commit.epoch, commit.genesis) = (0, Some(genesis()));
    }

    /// Changes the facts or the commit of a case from those above.
    type Change = fn(&mut JobFacts, &mut Commit);

    /// What is found or sent, the change that makes it so, and how the verdict begins.
    #[rustfmt::skip] // One line a case.
    const ADMIT: &[(&str, Change, &str)] = &[
        ("goes on from where we are", |_, _| {}, "write"),
        ("our lease is over", |f, _| f.lease_until = Some(DbTime(0)), "write"),
        ("our lease was given back", |f, _| f.lease_until = None, "write"),
        ("epoch 0", begin, "write"),
        ("a new topic partition", |f, _| f.next_offsets.retain(|p, _| *p != 1), "write"),
        ("one topic partition less", |_, c| c.lanes.retain(|p, _| *p != 1), "write"),
        ("sent again", |f, _| found_epoch(f, 7, "ours"), "there since 500"),
        ("sent again, others went on", |f, _| found_epoch(f, 9, "ours"), "there since 500"),
        ("sent again, unowned", |f, _| { f.owner = None; found_epoch(f, 7, "ours") }, "there"),
        ("another term of ours", |f, _| found_owner(f, 4, "a"), "fenced: \"unit/a\" owns it"),
        ("another owner in our term", |f, _| found_owner(f, 3, "b"), "fenced: \"unit/b\" owns it"),
        ("an unknown table", |f, _| *f = JobFacts::default(), "fenced: it has no owner any more"),
        ("a doomed key", |f, _| f.doomed.push("x".to_owned()), "fenced: key \"x\" is"),
        ("another digest", |f, _| found_epoch(f, 7, "theirs"), "fenced: this epoch is there"),
        ("an older base", |f, _| f.last_epoch = Some(2), "fenced: the catalog's next epoch is 3;"),
        ("an empty base", |f, _| f.last_epoch = None, "fenced: the catalog's next epoch is 0"),
        ("our epoch is gone", |f, _| f.last_epoch = Some(9), "fenced: the catalog's next epoch is"),
        ("another last epoch", |f, _| f.last_digest = Some("x".to_owned()), "fenced: the"),
        ("files are dropped", |_, c| swap(c, &["old", "older"], &[]), "write"),
        ("two become one", |_, c| swap(c, &["older", "old"], &["11"]), "write"),
        ("two become two", |_, c| swap(c, &["older", "old"], &["11", "12"]), "write"),
        ("one that is gone", |_, c| swap(c, &["old", "x"], &["12"]), "mistake: file \"x\" is"),
        ("one twice", |_, c| swap(c, &["old", "old"], &["12"]), "mistake: file \"old\" is"),
        ("one becomes two", |_, c| swap(c, &["old"], &["12", "13"]), "mistake: 2 new files are"),
        ("another chunk", |_, c| swap(c, &["older"], &["12"]), "mistake: file \"new 12\" is to"),
        ("a swap by another", |f, c| { found_owner(f, 4, "b"); swap(c, &["old"], &[]) }, "fenced"),
        ("a swap sent again", |f, c| { swap(c, &["old"], &[]); f.live.clear();
            found_epoch(f, 7, "ours") }, "there since 500"),
        ("a lane is ahead", |f, _| f.next_offsets.extend([(1, 75)]), "fenced: topic partition"),
        ("a lane is behind", |f, _| f.next_offsets.extend([(0, 5)]), "fenced: topic partition"),
        ("described again", |_, c| c.genesis = Some(genesis()), "mistake: epoch 0 describes"),
        ("never described", |f, c| { begin(f, c); c.genesis = None }, "mistake: epoch 0 describes"),
    ];

    #[test]
    fn a_commit_is_judged_by_what_was_found() {
        for (case, change, expect) in ADMIT {
            let (mut facts, mut commit) = (facts(), commit());
            change(&mut facts, &mut commit);
            let verdict = match admit(&facts, &commit) {
                Verdict::Write => "write".to_owned(),
                Verdict::AlreadyThere(at) => format!("there since {}", at.0),
                Verdict::Fenced(why) => format!("fenced: {why}"),
                Verdict::Mistake(why) => format!("mistake: {why}"),
            };
            assert!(verdict.starts_with(expect), "{case}: {verdict}");
        }
    }

    /// What is found, the change that makes it so, who asks, when, and how the answer begins.
    type WhoseCase = (
        &'static str,
        fn(&mut JobFacts),
        &'static str,
        i64,
        &'static str,
    );

    #[rustfmt::skip] // One line a case; the lease of the facts above ends at 1,000.
    const WHOSE: &[WhoseCase] = &[
        ("the lease is another's", |_| {}, "b", 400, "held by unit/a for 600 ms"),
        ("it has a millisecond left", |_| {}, "b", 999, "held by unit/a for 1 ms"),
        ("it is over", |_| {}, "b", 1000, "ours"),
        ("it was over long ago", |_| {}, "b", 9000, "ours"),
        ("it was given back", |f| f.lease_until = None, "b", 400, "ours"),
        ("it is our own", |_| {}, "a", 400, "ours"),
        ("nobody ever had it", |f| *f = JobFacts::default(), "b", 400, "ours"),
        ("without end", |f| f.lease_until = Some(DbTime(i64::MAX)), "b", -1, "held by unit/a for"),
    ];

    #[test]
    fn the_table_is_free_when_the_lease_is() {
        for (case, change, owner_id, now, expect) in WHOSE {
            let mut facts = facts();
            change(&mut facts);
            let answer = match whose(&facts, owner_id, DbTime(*now), None) {
                Whose::Ours => "ours".to_owned(),
                Whose::Held { by, left_ms, .. } => format!("held by {by} for {left_ms} ms"),
            };
            assert!(answer.starts_with(expect), "{case}: {answer}");
        }
    }

    #[test]
    fn a_lease_that_a_clock_ahead_has_written_is_over_once_it_was_seen_unchanged() {
        let mut facts = facts();
        let lease = LeaseMark {
            owner: owner(3, "a"),
            until: DbTime(1000),
        };
        let Whose::Held {
            lease: Some(seen), ..
        } = whose(&facts, "b", DbTime(-86_400_000), None)
        else {
            panic!("it has a day left");
        };
        assert_eq!(seen, lease);
        let again = |facts: &JobFacts| whose(facts, "b", DbTime(-86_400_000), Some(&seen));
        assert_eq!(again(&facts), Whose::Ours);
        facts.lease_until = Some(DbTime(1001));
        assert!(
            matches!(again(&facts), Whose::Held { .. }),
            "it was renewed"
        );
        facts.lease_until = Some(DbTime(1000));
        found_owner(&mut facts, 4, "c");
        assert!(
            matches!(again(&facts), Whose::Held { .. }),
            "it is another owner's"
        );
    }

    #[test]
    fn a_clock_that_was_set_since_refuses_what_was_made_by_the_old_one() {
        let bound = ClockBound {
            expected: DbTime(1_725_192_000_000),
            off_max_ms: 60_000,
        };
        let at = |off: i64| check_clock(DbTime(bound.expected.0 + off), &bound);
        for off in [-60_000, 0, 60_000] {
            assert_eq!(at(off), Ok(()), "{off}");
        }
        for off in [-60_001, 60_001, i64::MIN / 2, i64::MAX / 2] {
            assert!(at(off).is_err(), "{off}");
        }
        assert!(at(-172_800_000).unwrap_err().contains(
            "says 2024-08-30T12:00:00Z, and 2024-09-01T12:00:00Z was expected, which is 2d off"
        ));
    }

    #[test]
    fn the_time_of_a_commit_never_goes_back() {
        assert_eq!(committed_at(DbTime(5), None), DbTime(5));
        assert_eq!(committed_at(DbTime(5), Some(DbTime(3))), DbTime(5));
        assert_eq!(committed_at(DbTime(5), Some(DbTime(9))), DbTime(9));
    }

    #[test]
    fn an_epoch_that_is_there_stays_there_whoever_owns_the_table() {
        let mut facts = facts();
        assert_eq!(outcome(&facts), Outcome::Absent);
        (facts.owner, facts.epoch) = (Some(owner(4, "b")), there("ours"));
        let committed = Outcome::Committed {
            digest: "ours".to_owned(),
            committed_at: DbTime(500),
        };
        assert_eq!(outcome(&facts), committed);
    }
}
