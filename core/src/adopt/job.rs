//! How far a Spark Structured Streaming job was, from its checkpoint, and where counting goes on.
//!
//! **Which batch is the last.** Spark writes `offsets/N`, the files, `_spark_metadata/N`, and
//! `commits/N`, in this order (read in Spark's `MicroBatchExecution`). A batch is in the table once
//! the log of files has it. These states agree, where N is the last batch in that log:
//!
//! | `offsets` ends with | `commits` ends with | the job was stopped |
//! |---|---|---|
//! | N | N | between two batches |
//! | N + 1 | N | in batch N + 1, of which nothing is in the table |
//! | N | N - 1 | after batch N was in the table, before it was noted as done |
//!
//! In any other state the checkpoint is not that of the table.
//!
//! **What is in the table.** Batch N closes the windows that end at or before the watermark in
//! `offsets/N`. What the batches before it had counted in later windows is in the job's state, and
//! not in the table. So windrow counts these windows again from the log.
//!
//! **Where reading begins.** The watermark in `offsets/B` is that of the records before batch B,
//! which began where batch B - 1 ended. Hence a record before it has at most the time
//! `watermark of B + delay`. Where that is below the start of the earliest open window, batch B and
//! those after it have all records of open windows. Reading begins with the newest such batch, or
//! else with batch 0, before which the job counted nothing.
//!
//! Example, with windows of 10 s and a delay of 10 s: the last batch is 12, with the watermark
//! 12:01:05. The earliest open window begins at 12:01:00. Batch 12 began with records of up to
//! 12:01:15, batch 11 (watermark 12:00:58) of up to 12:01:08, and batch 10 (watermark 12:00:45) of
//! up to 12:00:55. So reading begins where batch 9 ended.

use crate::values::ledger::NUMBER_MAX;
use crate::values::record::{Offset, Partition};
use crate::values::shape::Shape;
use crate::values::time::{EventTime, READABLE_MS};
use serde::Deserialize;
use std::collections::BTreeMap;

/// What `offsets/N` says of batch N.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The watermark by which it closes windows.
    pub watermark: EventTime,
    /// Where it ends: the next offset of each topic partition.
    pub next_offsets: BTreeMap<Partition, Offset>,
}

/// What was found of a job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobFacts {
    /// The last batch in the log of files.
    pub in_table: u64,
    /// The batches in `offsets`; older ones may be gone.
    pub batches: BTreeMap<u64, Batch>,
    /// The last batch in `commits`; `None` when there is none.
    pub committed: Option<u64>,
    /// The offsets at which batch 0 began, from `sources/0/0`; `None` when that is not there.
    pub begin: Option<BTreeMap<Partition, Offset>>,
    /// How far the job's watermark trails the newest event time, in milliseconds.
    pub delay_ms: i64,
    /// Kafka's first offset and end offset of each topic partition, as of now.
    pub logs: BTreeMap<Partition, (Offset, Offset)>,
}

/// Where counting goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The last batch whose rows are in the table.
    pub batch: u64,
    /// The windows that end here or earlier are rows of the table; none of the others is.
    pub through: EventTime,
    /// Where the job was: the next offset of each topic partition. A topic partition that it never
    /// read has its first offset here.
    pub next_offsets: BTreeMap<Partition, Offset>,
    /// Where reading begins, so that the windows that were open are counted as a whole.
    pub start_offsets: BTreeMap<Partition, Offset>,
}

impl Plan {
    /// How many offsets are read again, at most.
    #[must_use]
    pub fn offsets_again(&self) -> i64 {
        let again = self.start_offsets.iter();
        let again = again.map(|(p, start)| self.next_offsets[p] - start);
        again.fold(0, i64::saturating_add)
    }
}

/// The second line of `offsets/N`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    batch_watermark_ms: i64,
}

/// Reads `offsets/N`.
///
/// # Errors
/// It is not of version 1, or the job does not read this topic alone; as the end of a sentence.
pub fn read_batch(bytes: &[u8], topic: &str) -> Result<Batch, String> {
    let lines = lines_of(bytes)?;
    let [metadata, source] = lines.as_slice() else {
        return Err(match lines.len() {
            0 | 1 => "it has fewer than three lines: it is damaged".to_owned(),
            n => format!(
                "the job reads {} sources, and only one topic can be adopted",
                n - 1
            ),
        });
    };
    let metadata: Metadata = serde_json::from_str(metadata)
        .map_err(|error| format!("its second line does not hold the watermark: {error}"))?;
    let watermark = EventTime(metadata.batch_watermark_ms);
    if !READABLE_MS.contains(&watermark.0) {
        return Err(format!(
            "its watermark is {}, which is no time",
            watermark.0
        ));
    }
    Ok(Batch {
        watermark,
        next_offsets: read_offsets(source, topic)?,
    })
}

/// Reads `sources/0/0`: the offsets at which batch 0 began.
///
/// # Errors
/// As [`read_batch`].
pub fn read_begin(bytes: &[u8], topic: &str) -> Result<BTreeMap<Partition, Offset>, String> {
    // Spark writes a zero byte before the text (read in KafkaSourceInitialOffsetWriter).
    let bytes = bytes.strip_prefix(&[0]).unwrap_or(bytes);
    match lines_of(bytes)?.as_slice() {
        [source] => read_offsets(source, topic),
        _ => Err("it does not have two lines: it is damaged".to_owned()),
    }
}

/// The lines after the first, which must be `v1`.
fn lines_of(bytes: &[u8]) -> Result<Vec<&str>, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not text".to_owned())?;
    let mut lines = text.lines();
    match lines.next().unwrap_or_default() {
        "v1" => Ok(lines.filter(|line| !line.is_empty()).collect()),
        other => Err(format!(
            "it has version \"{}\", and only v1 is known",
            other.chars().take(20).collect::<String>()
        )),
    }
}

/// Reads `{"test-topic":{"0":184,"1":90}}`.
fn read_offsets(source: &str, topic: &str) -> Result<BTreeMap<Partition, Offset>, String> {
    let topics: BTreeMap<String, BTreeMap<Partition, Offset>> = serde_json::from_str(source)
        .map_err(|error| format!("its offsets are not those of a Kafka topic: {error}"))?;
    let mut topics = topics.into_iter();
    match (topics.next(), topics.next()) {
        (Some((of, offsets)), None) if of == topic => {
            match offsets
                .iter()
                .find(|(_, offset)| !(0..NUMBER_MAX).contains(*offset))
            {
                None => Ok(offsets),
                Some((p, offset)) => Err(format!("topic partition {p} is at offset {offset}")),
            }
        }
        (Some((of, _)), None) => Err(format!(
            "the job reads topic \"{of}\", and the settings name topic \"{topic}\""
        )),
        _ => Err("the job does not read one topic, and only one can be adopted".to_owned()),
    }
}

/// Where counting goes on after a job.
///
/// # Errors
/// The job cannot be taken over, and why; as a sentence without its subject, "the job".
pub fn plan(facts: &JobFacts, shape: &Shape) -> Result<Plan, String> {
    let last = last_batch(facts)?;
    let through = last.watermark;
    let (from, first) = first_batch(facts, earliest_open(shape, through))?;
    let mut plan = Plan {
        batch: facts.in_table,
        through,
        next_offsets: BTreeMap::new(),
        start_offsets: BTreeMap::new(),
    };
    for (partition, (log_start, log_end)) in &facts.logs {
        let (to, start) = match last.next_offsets.get(partition) {
            // A topic partition that the job found later began at its first record.
            Some(to) => (*to, first.get(partition).copied().unwrap_or(0).min(*to)),
            None => (*log_start, *log_start),
        };
        if to > *log_end {
            return Err(format!(
                "has read topic partition {partition} up to offset {to}, but its log ends at \
                 {log_end}: the topic was deleted and made again since"
            ));
        }
        if start < *log_start {
            return Err(format!(
                "had windows open that need the records of topic partition {partition} from offset \
                 {start} on (batch {from}), but its log begins at {log_start}: they would be \
                 short; let the job run on until these windows are closed, stop it, and adopt then"
            ));
        }
        plan.next_offsets.insert(*partition, to);
        plan.start_offsets.insert(*partition, start);
    }
    let is_gone = |p: &&Partition| !facts.logs.contains_key(p);
    match last.next_offsets.keys().find(is_gone) {
        None => Ok(plan),
        Some(gone) => Err(format!(
            "has read topic partition {gone}, which the topic does not have: it was deleted and \
             made again since"
        )),
    }
}

/// The last batch in the table, if the checkpoint is that of the table.
fn last_batch(facts: &JobFacts) -> Result<&Batch, String> {
    let (n, committed) = (facts.in_table, facts.committed);
    let planned = facts.batches.keys().next_back().copied();
    let done = committed.map_or(0, |committed| committed + 1);
    let agree = (done == n || done == n + 1)
        && planned.is_some_and(|planned| planned == n || planned == n + 1 && done == n + 1);
    if !agree {
        let number = |batch: Option<u64>| batch.map_or("none".to_owned(), |n| n.to_string());
        return Err(format!(
            "has another checkpoint: the last batch in the table's _spark_metadata is {n}, and in \
             the checkpoint the last in offsets is {} and the last in commits is {}; name the \
             checkpoint that the job wrote this table with",
            number(planned),
            number(committed)
        ));
    }
    let last = facts.batches.get(&n);
    last.ok_or_else(|| format!("has no offsets/{n} in its checkpoint"))
}

/// The newest batch from which on all records of windows are read that start at `open` or later,
/// and the offsets at which it began.
fn first_batch(
    facts: &JobFacts,
    open: EventTime,
) -> Result<(u64, &BTreeMap<Partition, Offset>), String> {
    let began = |batch: u64| match batch.checked_sub(1) {
        Some(before) => facts
            .batches
            .get(&before)
            .map(|before| &before.next_offsets),
        None => facts.begin.as_ref(),
    };
    let batches = facts.batches.range(..=facts.in_table).rev();
    for (number, batch) in batches {
        let newest_before = batch.watermark.plus(facts.delay_ms);
        if (*number == 0 || newest_before < open)
            && let Some(offsets) = began(*number)
        {
            return Ok((*number, offsets));
        }
    }
    Err(format!(
        "had windows open that begin at {open}, and its checkpoint no longer says at which offsets \
         their records begin"
    ))
}

/// The start of the earliest window that is open where all windows are closed that end at `through`
/// or earlier.
#[must_use]
pub fn earliest_open(shape: &Shape, through: EventTime) -> EventTime {
    let (size, slide, offset) = (shape.window_ms, shape.slide_ms, shape.offset_ms);
    let closed = (through.0 - size - offset).div_euclid(slide);
    EventTime((closed + 1) * slide + offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPIC: &str = "test-topic";

    fn batch(watermark_s: i64, offset: Offset) -> Batch {
        Batch {
            watermark: EventTime(watermark_s * 1000),
            next_offsets: BTreeMap::from([(0, offset)]),
        }
    }

    /// Windows of 10 s, a delay of 10 s, and the batches of the example above in seconds.
    fn facts() -> JobFacts {
        JobFacts {
            in_table: 12,
            batches: BTreeMap::from([
                (9, batch(30, 70)),
                (10, batch(45, 80)),
                (11, batch(58, 90)),
                (12, batch(65, 100)),
            ]),
            committed: Some(12),
            begin: None,
            delay_ms: 10_000,
            logs: BTreeMap::from([(0, (0, 120))]),
        }
    }

    fn shape() -> Shape {
        Shape::count_by_origin(TOPIC, 10_000, 10_000)
    }

    #[test]
    fn reading_begins_before_the_records_of_open_windows() {
        let found = plan(&facts(), &shape()).unwrap();
        assert_eq!(found.through, EventTime(65_000));
        assert_eq!(found.start_offsets, BTreeMap::from([(0, 70)]));
        assert_eq!(found.next_offsets, BTreeMap::from([(0, 100)]));
        assert_eq!(found.offsets_again(), 30);

        // Everything is read again where the job has only begun, and nothing before it began.
        let young = JobFacts {
            in_table: 0,
            batches: BTreeMap::from([(0, batch(0, 100))]),
            committed: None,
            begin: Some(BTreeMap::from([(0, 40)])),
            ..facts()
        };
        let found = plan(&young, &shape()).unwrap();
        assert_eq!(found.start_offsets, BTreeMap::from([(0, 40)]));
    }

    #[test]
    fn topic_partitions_that_the_job_found_late_or_never_begin_at_their_first_record() {
        let mut facts = facts();
        let last = facts.batches.get_mut(&12).unwrap();
        last.next_offsets.insert(1, 7);
        facts.logs.extend([(1, (0, 9)), (2, (3, 5))]);
        let found = plan(&facts, &shape()).unwrap();
        assert_eq!(
            found.start_offsets,
            BTreeMap::from([(0, 70), (1, 0), (2, 3)])
        );
        assert_eq!(
            found.next_offsets,
            BTreeMap::from([(0, 100), (1, 7), (2, 3)])
        );
    }

    #[test]
    fn the_states_in_which_a_job_can_be_stopped_agree_and_no_others() {
        for (planned, committed, expect) in [
            (12, Some(12), ""),
            (13, Some(12), ""),
            (12, Some(11), ""),
            (
                13,
                Some(11),
                "the last in offsets is 13 and the last in commits is 11",
            ),
            (
                13,
                Some(13),
                "the last in offsets is 13 and the last in commits is 13",
            ),
            (14, Some(12), "the last in offsets is 14"),
            (12, Some(10), "the last in commits is 10"),
            (12, None, "the last in commits is none"),
            (11, Some(11), "the last in offsets is 11"),
        ] {
            let mut facts = facts();
            facts.batches.retain(|number, _| *number <= planned);
            for number in 13..=planned {
                facts.batches.insert(number, batch(70, 110));
            }
            facts.committed = committed;
            let said = plan(&facts, &shape()).err().unwrap_or_default();
            let is_right = said.contains(expect) && said.is_empty() == expect.is_empty();
            assert!(is_right, "{planned} {committed:?}: {said}");
        }
    }

    #[test]
    fn what_can_no_longer_be_counted_is_refused() {
        let check = |change: fn(&mut JobFacts), expect: &str| {
            let mut facts = facts();
            change(&mut facts);
            let why = plan(&facts, &shape()).unwrap_err();
            assert!(why.contains(expect), "{why}");
        };
        check(
            |facts| facts.logs = BTreeMap::from([(0, (71, 120))]),
            "from offset 70 on (batch 10), but its log begins at 71",
        );
        check(
            |facts| facts.logs = BTreeMap::from([(0, (0, 99))]),
            "but its log ends at 99",
        );
        check(
            |facts| facts.logs = BTreeMap::from([(1, (0, 99))]),
            "has read topic partition 0, which the topic does not have",
        );
        check(
            |facts| _ = facts.batches.remove(&9),
            "no longer says at which offsets",
        );
    }

    #[test]
    fn offsets_are_read_as_spark_writes_them() {
        let bytes = b"v1\n{\"batchWatermarkMs\":1725219725000,\"batchTimestampMs\":1725219741000,\
            \"conf\":{\"a\":\"200\"}}\n{\"test-topic\":{\"1\":5,\"0\":7}}";
        let found = read_batch(bytes, TOPIC).unwrap();
        assert_eq!(found.watermark, EventTime(1_725_219_725_000));
        assert_eq!(found.next_offsets, BTreeMap::from([(0, 7), (1, 5)]));
        let begin = read_begin(b"\0v1\n{\"test-topic\":{\"0\":3}}", TOPIC);
        assert_eq!(begin, Ok(BTreeMap::from([(0, 3)])));
        for (bytes, expect) in [
            (&b"v2\n{}\n{}"[..], "version \"v2\""),
            (b"v1\n{}", "fewer than three lines"),
            (b"v1\n{}\n{}\n{}", "reads 2 sources"),
            (b"v1\n{}\n{}", "does not hold the watermark"),
            (
                b"v1\n{\"batchWatermarkMs\":0}\n-",
                "not those of a Kafka topic",
            ),
            (
                b"v1\n{\"batchWatermarkMs\":0}\n{\"a\":{}}",
                "reads topic \"a\"",
            ),
            (
                b"v1\n{\"batchWatermarkMs\":0}\n{\"a\":{},\"b\":{}}",
                "only one can be",
            ),
            (
                b"v1\n{\"batchWatermarkMs\":0}\n{\"test-topic\":{\"0\":-2}}",
                "offset -2",
            ),
        ] {
            let why = read_batch(bytes, TOPIC).unwrap_err();
            assert!(why.contains(expect), "{why}");
        }
    }

    #[test]
    fn the_earliest_open_window_is_the_one_after_the_last_that_is_closed() {
        let check = |slide, through, expect| {
            let shape = Shape::count_by_origin(TOPIC, 10_000, slide);
            assert_eq!(earliest_open(&shape, EventTime(through)), EventTime(expect));
        };
        check(10_000, 65_000, 60_000);
        check(10_000, 70_000, 70_000);
        check(10_000, 69_999, 60_000);
        check(5_000, 65_000, 60_000);
        check(5_000, 64_999, 55_000);
        check(10_000, 0, 0);
    }
}
