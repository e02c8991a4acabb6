//! Whether what a catalog answers can be true. People can reach the journal's tables, and a number
//! that was set by hand must end in a sentence, not in an overflow somewhere later.

use crate::table::commit::{Commit, Head};
use crate::values::decision::{Decided, Decision};
use crate::values::ledger::{NUMBER_MAX, check_numbers};
use crate::values::record::{Offset, Partition};
use crate::values::time::{EventTime, READABLE_MS};
use std::collections::BTreeMap;

/// Checks the ledgers of the last commit, and the decisions that a replay obeys.
///
/// # Errors
/// What cannot be true, as the end of a sentence.
pub fn check_head(head: &Head) -> Result<(), String> {
    let last = &head.last;
    for (partition, lane) in &last.lanes {
        let of_lane = |why: String| format!("topic partition {partition}: {why}");
        check_numbers(&lane.ledger).map_err(of_lane)?;
        lane.ledger.check().map_err(of_lane)?;
        if lane.to != lane.ledger.next_offset {
            return Err(of_lane(format!(
                "the next offset is {}, and {} by its ledger",
                lane.to, lane.ledger.next_offset
            )));
        }
    }
    let earlier = head.earlier.iter().flat_map(|earlier| &earlier.decisions);
    for decision in earlier.chain(&head.decisions) {
        check_decision(decision).map_err(|why| {
            let Decision {
                partition, offset, ..
            } = decision;
            format!("what was decided for topic partition {partition} at offset {offset}: {why}")
        })?;
    }
    check_numbers(&last.ledger)?;
    last.ledger.check()
}

/// Checks that nothing in an epoch is a number or a time that cannot be, so that it can be reckoned
/// with. Whether its sums are right is not checked.
///
/// # Errors
/// What cannot be true, as the end of a sentence.
pub fn check_epoch(commit: &Commit) -> Result<(), String> {
    let is_time = |at: &EventTime| READABLE_MS.contains(&at.0);
    check_numbers(&commit.ledger)?;
    for (partition, lane) in &commit.lanes {
        let of_lane = |why: String| format!("topic partition {partition}: {why}");
        check_numbers(&lane.ledger).map_err(of_lane)?;
        let times = [lane.watermark, lane.newest];
        if let Some(at) = times.iter().flatten().find(|at| !is_time(at)) {
            return Err(of_lane(format!("{} ms is no time", at.0)));
        }
        if !(0..NUMBER_MAX).contains(&lane.to) || !(0..NUMBER_MAX).contains(&lane.from) {
            return Err(of_lane(format!("{} is no offset", lane.to)));
        }
    }
    if let Some(at) = commit.closed_through.filter(|at| !is_time(at)) {
        return Err(format!("windows cannot be closed through {} ms", at.0));
    }
    let new = commit.files.iter().map(|file| (file.rows, file.bytes));
    let old = commit.retired.iter().map(|file| (file.rows, file.bytes));
    let is_large = |n: u64| i64::try_from(n).is_ok_and(|n| n < NUMBER_MAX);
    if new
        .chain(old)
        .any(|(rows, bytes)| !is_large(rows) || !is_large(bytes))
    {
        return Err("a file has more rows or bytes than can be".to_owned());
    }
    commit.decisions.iter().try_for_each(check_decided)
}

/// Checks a decision that is to be obeyed: where it leads, and its time.
///
/// # Errors
/// What cannot be true, as the end of a sentence.
pub fn check_decided(decision: &Decision) -> Result<(), String> {
    check_decision(decision)?;
    match &decision.what {
        Decided::Floor { at, .. } if !READABLE_MS.contains(&at.0) => {
            Err(format!("a floor of {} ms is no time", at.0))
        }
        _ => Ok(()),
    }
}

/// Checks where a decision leads: a loss leads on, and all offsets are offsets.
fn check_decision(decision: &Decision) -> Result<(), String> {
    let is_number = |n: i64| (0..NUMBER_MAX).contains(&n);
    let from = decision.offset;
    let to = match &decision.what {
        Decided::Lost { to, .. } => (*to).max(from),
        Decided::CountsLost { to, ledger, .. } => {
            check_numbers(ledger)?;
            ledger.check()?;
            if *to != ledger.next_offset {
                let next = ledger.next_offset;
                return Err(format!(
                    "it leads to offset {to}, and to {next} by its ledger"
                ));
            }
            *to
        }
        Decided::Generation { to, .. } => *to,
        Decided::Delay { ms } if !is_number(*ms) => return Err(format!("the delay is {ms} ms")),
        Decided::Adopted { to, .. } => (*to).max(from),
        Decided::Delay { .. } | Decided::Floor { .. } | Decided::Ceiling { .. } => from,
    };
    match &decision.what {
        Decided::Lost { to, .. } if *to < from => {
            Err(format!("offsets {from} to {to} cannot be lost"))
        }
        _ if !is_number(from) || !is_number(to) => Err(format!("it leads to offset {to}")),
        _ => Ok(()),
    }
}

/// Checks that the offsets from which the topic partitions go on are those at which the last commit
/// ended. Otherwise whoever reads the last commit plans one that goes on from there, `admit`
/// refuses it because of the offsets, and so on for ever.
///
/// A topic partition without an offset is fine: the next commit gives it one.
///
/// # Errors
/// What cannot be true, as the end of a sentence.
pub fn check_next_offsets(
    next_offsets: &BTreeMap<Partition, Offset>,
    last: Option<&Commit>,
) -> Result<(), String> {
    for (partition, next) in next_offsets {
        let Some(last) = last else {
            return Err(format!(
                "it is {next} for topic partition {partition}, and no epoch is committed"
            ));
        };
        let ended = last.lanes.get(partition).map(|lane| lane.to);
        if ended != Some(*next) {
            let ended = ended.map_or("does not know it".to_owned(), |to| format!("ended at {to}"));
            return Err(format!(
                "it is {next} for topic partition {partition}, and epoch {} {ended}",
                last.epoch
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::commit::LaneCommit;
    use crate::values::ledger::LaneLedger;

    #[test]
    fn decisions_that_cannot_be_are_named() {
        let decision = |offset, what| {
            check_decision(&Decision {
                partition: 0,
                offset,
                what,
            })
        };
        let lost = |to| Decided::Lost {
            to,
            reason: String::new(),
        };
        let generation = |to| Decided::Generation {
            to,
            topic_id: String::new(),
            reason: String::new(),
        };
        assert_eq!(decision(3, lost(5)), Ok(()));
        assert_eq!(decision(3, generation(0)), Ok(()));
        assert_eq!(decision(3, Decided::Delay { ms: 0 }), Ok(()));
        for (offset, what, expect) in [
            (5, lost(3), "offsets 5 to 3 cannot be lost"),
            (5, generation(-3), "it leads to offset -3"),
            (-5, lost(3), "it leads to offset 3"),
            (5, Decided::Delay { ms: -1 }, "the delay is -1 ms"),
        ] {
            assert_eq!(decision(offset, what), Err(expect.to_owned()));
        }
    }

    #[test]
    fn offsets_that_do_not_go_on_from_the_last_commit_are_named() {
        let lane = |to| LaneCommit {
            from: 0,
            to,
            leader_epoch: 0,
            watermark: None,
            ledger: LaneLedger::default(),
            held: 0,
            newest: None,
            epoch_mark: None,
        };
        let last = Commit {
            lanes: BTreeMap::from([(0, lane(70)), (1, lane(80))]),
            ..Commit::for_tests(7)
        };
        let check = |offsets: &[(Partition, Offset)], last, expect: &str| {
            let offsets = offsets.iter().copied().collect();
            let said = check_next_offsets(&offsets, last).err().unwrap_or_default();
            assert_eq!(said, expect);
        };
        let last = Some(&last);
        check(&[(0, 70), (1, 80)], last, "");
        check(&[(1, 80)], last, "");
        check(&[], None, "");
        check(
            &[(0, 75), (1, 80)],
            last,
            "it is 75 for topic partition 0, and epoch 7 ended at 70",
        );
        check(
            &[(2, 0)],
            last,
            "it is 0 for topic partition 2, and epoch 7 does not know it",
        );
        check(
            &[(0, 5)],
            None,
            "it is 5 for topic partition 0, and no epoch is committed",
        );
    }
}
