//! Which topic partitions fetch at a time, so that all queues together stay within one bound.
//! Nothing is fetched here, and no record is looked at.
//!
//! librdkafka bounds the queue of each topic partition, but it always takes a record batch as a
//! whole. A producer may make batches of 1 MB, which is 10,000 records of 100 bytes, and they take
//! 4 MB in its queue. So 40 topic partitions would take 160 MB, whatever the limits of a queue are.
//! Therefore topic partitions take turns where their batches are large: some fetch, and the others
//! *rest*, which means that they are not assigned to the client. A turn ends when what was fetched
//! has been read. Where batches are small, everybody fetches all the time.
//!
//! Example: the bound is 32 MiB, and of 40 topic partitions each has fetched 4 MiB at once so far.
//! Eight fetch. One of them has been read, so it rests, and the one that has rested longest is
//! woken.

use std::collections::BTreeMap;
use windrow_core::values::record::Partition;

/// What a topic partition is expected to fetch at once before anything is known of it: a record
/// batch of 1 MB, which is the most that producers make by default, of records of 100 bytes.
pub(super) const FIRST_FETCH_BYTES: u64 = 4 << 20;

/// The queue of one topic partition, as far as turns depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    /// What is in the queue, in bytes.
    pub(super) queued: u64,
    /// What it may come to hold, in bytes.
    pub(super) expected: u64,
    /// Nothing more was there when it fetched last.
    pub(super) at_end: bool,
    /// Nobody reads it for now.
    pub(super) paused: bool,
    /// What it has fetched was read.
    pub(super) is_read: bool,
    /// Since which turn it rests; `None` while it fetches.
    pub(super) rests_since: Option<u64>,
}

impl Share {
    /// What must be set apart for it, in bytes.
    fn taken(&self) -> u64 {
        match (self.rests_since, self.at_end) {
            (Some(_), _) => 0,
            (None, true) => self.queued,
            (None, false) => self.queued.max(self.expected),
        }
    }
}

/// Who goes to rest, and then who is woken.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Turns {
    pub(super) rest: Vec<Partition>,
    pub(super) wake: Vec<Partition>,
}

/// Shares `bound` bytes out.
///
/// A topic partition that is paused loses what it has fetched when the bound is exceeded. One that
/// is read loses nothing, because its turn ends only when it has been read.
pub(super) fn turns(bound: u64, shares: &BTreeMap<Partition, Share>) -> Turns {
    let mut turns = Turns::default();
    let mut taken: u64 = shares.values().map(Share::taken).sum();
    let mut waiting: Vec<(u64, Partition)> = shares
        .iter()
        .filter(|(_, share)| !share.paused)
        .filter_map(|(partition, share)| Some((share.rests_since?, *partition)))
        .collect();
    waiting.sort_unstable();
    let first = waiting.first().map_or(0, |(_, p)| shares[p].expected);
    // Those that nobody reads make room first, the greatest before the others.
    let mut may_rest: Vec<(bool, u64, Partition)> = shares
        .iter()
        .filter(|(_, share)| share.rests_since.is_none() && share.taken() > 0)
        .filter(|(_, share)| share.paused || (share.is_read && !share.at_end))
        .map(|(partition, share)| (share.paused, share.taken(), *partition))
        .collect();
    may_rest.sort_unstable();
    while taken + first > bound
        && let Some((_, bytes, partition)) = may_rest.pop()
    {
        taken -= bytes;
        turns.rest.push(partition);
    }
    let mut fetches = shares.iter().any(|(partition, share)| {
        let awake = share.rests_since.is_none() && !turns.rest.contains(partition);
        awake && !share.paused && !share.at_end
    });
    for (_, partition) in waiting {
        let expected = shares[&partition].expected;
        // However small the bound is, one fetches.
        if fetches && taken + expected > bound {
            break;
        }
        taken += expected;
        fetches = true;
        turns.wake.push(partition);
    }
    // The only one that there is goes on.
    if !fetches && let Some(at) = turns.rest.iter().rposition(|p| !shares[p].paused) {
        turns.rest.remove(at);
    }
    turns
}

#[cfg(test)]
mod tests {
    use super::*;

    const FETCHES: Share = Share {
        queued: 4,
        expected: 4,
        at_end: false,
        paused: false,
        is_read: false,
        rests_since: None,
    };
    const READ: Share = Share {
        queued: 0,
        is_read: true,
        ..FETCHES
    };

    fn rests(since: u64) -> Share {
        Share {
            queued: 0,
            rests_since: Some(since),
            ..FETCHES
        }
    }

    fn check(bound: u64, shares: &[Share], rest: &[Partition], wake: &[Partition]) {
        let shares = (0..).zip(shares.iter().copied()).collect();
        let found = turns(bound, &shares);
        assert_eq!((&found.rest[..], &found.wake[..]), (rest, wake));
    }

    #[test]
    fn a_turn_ends_when_all_is_read_and_another_waits() {
        check(8, &[FETCHES, READ, rests(7), rests(3)], &[1], &[3]);
        // What is not read goes on, and what was read goes on while nobody waits.
        check(8, &[FETCHES, FETCHES, rests(7), rests(3)], &[], &[]);
        check(8, &[FETCHES, READ], &[], &[]);
        check(100, &[FETCHES, READ, rests(7), rests(3)], &[], &[3, 2]);
    }

    #[test]
    fn over_the_bound_those_rest_that_were_read_or_are_not_read() {
        let paused = Share {
            paused: true,
            ..FETCHES
        };
        check(8, &[FETCHES, READ, READ], &[2], &[]);
        check(8, &[FETCHES, READ, paused], &[2], &[]);
        check(4, &[FETCHES, FETCHES, FETCHES], &[], &[]);
    }

    #[test]
    fn one_fetches_however_small_the_bound_is() {
        check(1, &[rests(2), rests(1)], &[], &[1]);
        check(1, &[READ, rests(1)], &[0], &[1]);
        check(1, &[READ], &[], &[]);
        let at_end = Share {
            queued: 0,
            at_end: true,
            ..FETCHES
        };
        check(1, &[at_end, rests(1)], &[], &[1]);
        // Nobody reads one that is paused, so it is not woken.
        let paused = Share {
            paused: true,
            ..rests(1)
        };
        check(1, &[paused, FETCHES], &[], &[]);
    }

    #[test]
    fn those_at_the_end_of_the_log_take_what_is_in_their_queue() {
        let at_end = Share {
            queued: 1,
            at_end: true,
            ..FETCHES
        };
        check(8, &[at_end, at_end, at_end, rests(1)], &[], &[3]);
    }
}
