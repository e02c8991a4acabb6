//! The judge: it compares what came out with what the auditor says must be there, for each
//! committed epoch, its files, its ledger and its decisions.

use crate::audit::{Cell, ExpectedLane, RowKey, SideRows, compare_maps, rows};
use crate::choices::{Choices, first_right};
use crate::faults::DAY_MS;
use crate::store::Catalog;
use crate::topic::{Log, Topic};
use std::collections::BTreeMap;
use windrow_core::table::commit::{Commit, FileKind, LaneCommit, NewFile};
use windrow_core::table::compaction::{Level, Times};
use windrow_core::table::file::read_rows;
use windrow_core::table::listing::Value;
use windrow_core::values::decision::{Decided, Decision};
use windrow_core::values::record::{Offset, Partition};
use windrow_core::values::shape::{Function, Shape};
use windrow_core::values::time::EventTime;

/// What readers of the table and of its side tables see.
#[derive(Default)]
pub struct Contents {
    /// The final rows.
    pub rows: BTreeMap<RowKey, Cell>,
    /// The late records.
    pub late: SideRows,
    /// The rejects.
    pub rejects: SideRows,
    /// Why each reject is one.
    pub reasons: Vec<String>,
}

impl Contents {
    /// How many rejects give this as a part of their reason.
    pub fn rejects_saying(&self, what: &str) -> u64 {
        self.reasons.iter().filter(|why| why.contains(what)).count() as u64
    }
}

/// A generation of a topic partition.
struct Generation {
    /// Which of the topics it belongs to.
    topic: usize,
    partition: Partition,
    /// Whether it is unknown if this generation read the log before it was cut off, or after.
    cut_is_open: bool,
}

/// What a commit says of a lane.
struct End<'a> {
    lane: &'a LaneCommit,
    /// How many decisions were made by then.
    decided: usize,
    /// A later owner has replayed it, maybe from a log that was cut off since. It must come to the
    /// same ledger; which leader wrote the records is not compared.
    read_again: bool,
}

/// Everything that is needed to judge a run.
pub struct Judge<'a> {
    pub shape: &'a Shape,
    /// All topics that had the name, in the order in which they were made.
    pub topics: &'a [Topic],
    pub catalog: &'a Catalog,
    /// The store lost or damaged a checkpoint.
    pub checkpoints_harmed: bool,
    /// How long periods are, and what a merge waits for.
    pub times: &'a Times,
    /// No clock was ever set back.
    pub clocks_are_right: bool,
    /// Where counting ended for good, because the record there cannot be counted.
    pub bad_record: Option<(Partition, Offset)>,
}

impl Judge<'_> {
    /// Judges all epochs, and gives what readers see at the end.
    pub fn judge(&self) -> Result<Contents, String> {
        let epochs: Vec<&Commit> = self.catalog.epochs.iter().map(|(c, _)| c).collect();
        let last = epochs.last().ok_or("no epoch was committed")?;
        let mut seen = Contents::default();
        let mut to: BTreeMap<Partition, Offset> = BTreeMap::new();
        for (n, commit) in epochs.iter().enumerate() {
            if commit.epoch != n as u64 {
                return Err(format!("epoch {n} calls itself {}", commit.epoch));
            }
            for (p, lane) in &commit.lanes {
                if let Some(to) = to.insert(*p, lane.to).filter(|to| *to != lane.from) {
                    return Err(format!(
                        "epoch {n} of topic partition {p} begins at {}, not at {to}",
                        lane.from
                    ));
                }
            }
            if commit.checkpoint.is_none() && commit.decisions.iter().any(needs_checkpoint) {
                return Err(format!(
                    "epoch {n} has no checkpoint, but a replay could not repeat what it decides: \
                     {:?}",
                    commit.decisions
                ));
            }
            if commit.retired.is_empty() {
                self.read_files(commit, &mut seen)?;
            } else {
                self.read_swap(commit)?;
            }
            // A comparison sums the whole log, so not every epoch is compared: the last one always,
            // and one of seven of the others.
            if n + 1 == epochs.len() || n % 7 == 3 {
                self.compare(&epochs[..=n], &seen)?;
            }
        }
        self.is_at_the_end(last)?;
        Ok(seen)
    }

    /// A swap replaces files by others with the same rows, and changes nothing else.
    fn read_swap(&self, commit: &Commit) -> Result<(), String> {
        let n = commit.epoch;
        if commit.lanes.values().any(|lane| lane.from != lane.to) || !commit.decisions.is_empty() {
            return Err(format!("epoch {n} replaces files, and counts records"));
        }
        let earlier = || {
            self.catalog.epochs[..n as usize]
                .iter()
                .map(|(commit, _)| commit)
        };
        let (mut before, mut after) = (Contents::default(), Contents::default());
        for retired in &commit.retired {
            let is_it = |key: &str| key == retired.key;
            if earlier().any(|commit| commit.retired.iter().any(|file| is_it(&file.key))) {
                return Err(format!("epoch {n} replaces {} once more", retired.key));
            }
            let file = earlier()
                .flat_map(|commit| &commit.files)
                .find(|file| is_it(&file.key));
            let file = file.ok_or_else(|| format!("epoch {n} replaces {}", retired.key))?;
            self.read_file(n, file, &mut before)?;
        }
        self.merge_was_due(commit)?;
        for file in &commit.files {
            self.read_file(n, file, &mut after)?;
        }
        compare_maps(&format!("swap {n}: rows"), &after.rows, &before.rows)?;
        compare_maps(&format!("swap {n}: late"), &after.late, &before.late)?;
        compare_maps(
            &format!("swap {n}: rejects"),
            &after.rejects,
            &before.rejects,
        )?;
        Ok(())
    }

    /// A merge took only files that were a while old, of a period in which no further window
    /// closes.
    fn merge_was_due(&self, commit: &Commit) -> Result<(), String> {
        let n = commit.epoch;
        let at = self.catalog.epochs[n as usize].1;
        let is_source = |file: &NewFile| commit.retired.iter().any(|old| old.key == file.key);
        for (source, since) in &self.catalog.epochs[..n as usize] {
            // What the store gives back is committed as fast as it can be.
            let again = self.catalog.is_followed(n) && self.catalog.is_followed(source.epoch);
            let young = at.0 - since.0 < self.times.settled_ms && !again;
            if self.clocks_are_right && young && source.files.iter().any(is_source) {
                return Err(format!(
                    "epoch {n} of {at:?} merges files of {since:?}: a query may have begun before"
                ));
            }
        }
        for file in &commit.files {
            let length_ms = match file.level {
                Level::Commit => return Err(format!("swap {n} shows a file of level commit")),
                Level::TenMinutes => self.times.ten_minutes_ms,
                Level::Hour => self.times.hour_ms,
                Level::Day => DAY_MS,
            };
            let Some(EventTime(first)) = file.first_window else {
                continue;
            };
            let end = (first.div_euclid(length_ms) + 1) * length_ms;
            let last = first + (end - 1 - first) / self.shape.slide_ms * self.shape.slide_ms;
            let last_end = EventTime(last + self.shape.window_ms);
            if commit.closed_through < Some(last_end) {
                return Err(format!(
                    "swap {n} makes one file of windows up to {last_end}, but they are closed \
                     through {:?}",
                    commit.closed_through
                ));
            }
        }
        Ok(())
    }

    /// Reads the files of one epoch.
    fn read_files(&self, commit: &Commit, seen: &mut Contents) -> Result<(), String> {
        for file in &commit.files {
            self.read_file(commit.epoch, file, seen)?;
        }
        Ok(())
    }

    /// Reads a file that epoch `n` shows.
    fn read_file(&self, n: u64, file: &NewFile, seen: &mut Contents) -> Result<(), String> {
        let bytes = self.catalog.seen.get(&file.key).cloned().flatten();
        let bytes =
            bytes.ok_or_else(|| format!("epoch {n} shows {}, which was not stored", file.key))?;
        if windrow_core::values::digest::sha256_hex(&bytes) != file.sha256 {
            return Err(format!("{} has other bytes than its epoch says", file.key));
        }
        let listing = read_rows(&bytes, usize::MAX).map_err(|e| e.to_string())?;
        if listing.rows.len() as u64 != file.rows {
            return Err(format!("{} has other rows than its epoch says", file.key));
        }
        for row in listing.rows {
            match (&file.kind, &row[..]) {
                (FileKind::Rows { date }, [Value::Window { start, end }, rest @ ..]) => {
                    if start.date() != *date {
                        return Err(format!("a row of {start} lies under {date}"));
                    }
                    let (key, cell) = self.cell(rest)?;
                    if seen
                        .rows
                        .insert((start.0, end.0, key.clone()), cell)
                        .is_some()
                    {
                        return Err(format!("epoch {n} has the row {start} {key:?} again"));
                    }
                }
                (FileKind::Late, [_, Value::Integer(p), Value::Integer(offset), ..]) => {
                    *seen.late.entry((*p as Partition, *offset)).or_default() += 1;
                }
                (
                    FileKind::Rejects,
                    [
                        _,
                        Value::Integer(p),
                        Value::Integer(offset),
                        _,
                        Value::Text(why),
                        ..,
                    ],
                ) => {
                    seen.reasons.push(why.clone());
                    *seen.rejects.entry((*p as Partition, *offset)).or_default() += 1;
                }
                other => return Err(format!("a row that nobody expects: {other:?}")),
            }
        }
        Ok(())
    }

    /// The key of a row, and its aggregates as a [`Cell`].
    fn cell(&self, columns: &[Value]) -> Result<(Vec<Option<String>>, Cell), String> {
        let (key, values) = columns.split_at(self.shape.group_by.len());
        let key = key
            .iter()
            .map(|v| match v {
                Value::Null => Ok(None),
                Value::Text(text) => Ok(Some(text.clone())),
                other => Err(format!("a key of {other:?}")),
            })
            .collect::<Result<_, _>>()?;
        let mut cell = Cell::default();
        for (aggregate, value) in self.shape.aggregates.iter().zip(values) {
            match (aggregate.function, value) {
                (Function::Count, Value::Integer(hits)) => cell.hits = *hits as u64,
                (Function::Sum, Value::Decimal { units, .. }) => cell.sum = *units,
                (Function::Min, Value::Integer(n)) => cell.min = Some(*n),
                (Function::Max, Value::Integer(n)) => cell.max = Some(*n),
                // All numbers are small, so the sum divided by the average gives their number back.
                (Function::Min, Value::Decimal { units, .. }) => cell.min = Some(*units as i64),
                (Function::Max, Value::Decimal { units, .. }) => cell.max = Some(*units as i64),
                (Function::Avg, Value::Double(average)) if *average != 0.0 => {
                    let unit = 10_f64.powi(aggregate.number.scale().into());
                    cell.n = (cell.sum as f64 / unit / average).round() as u64;
                }
                (_, Value::Null) | (Function::Avg, Value::Double(_)) => {}
                (function, other) => return Err(format!("{function:?} is {other:?}")),
            }
        }
        Ok((key, cell))
    }

    /// What a row can show of an expected cell: only the aggregates that the table has.
    fn visible_in_row(&self, cell: &Cell) -> Cell {
        let has = |f| self.shape.aggregates.iter().any(|a| a.function == f);
        Cell {
            hits: cell.hits,
            n: if has(Function::Avg) && cell.sum != 0 {
                cell.n
            } else {
                0
            },
            sum: cell.sum,
            min: cell.min.filter(|_| has(Function::Min)),
            max: cell.max.filter(|_| has(Function::Max)),
        }
    }

    /// Compares what readers see with what must be there. When a log was cut off, the lane alone
    /// may not tell what it read of that log. Then one of the logs that fit the lane must give the
    /// rows.
    fn compare(&self, epochs: &[&Commit], seen: &Contents) -> Result<(), String> {
        first_right(|choices| self.compare_with(epochs, seen, choices))
    }

    /// The same for one choice of logs.
    fn compare_with(
        &self,
        epochs: &[&Commit],
        seen: &Contents,
        choices: &mut Choices,
    ) -> Result<(), String> {
        let (n, commit) = (epochs.len() - 1, epochs[epochs.len() - 1]);
        let mut lanes = BTreeMap::new();
        for p in commit.lanes.keys() {
            lanes.insert(*p, self.expect(epochs, *p, choices)?);
        }
        // A loss says nothing about the topic: nobody follows the floor that comes of it.
        let own = lanes.values().map(|lane| lane.own).max().flatten();
        if let Some((p, lane)) = lanes.iter().find(|(_, lane)| lane.followed > own) {
            return Err(format!(
                "epoch {n}: topic partition {p} followed others to {:?}, and none was further than \
                 {own:?}",
                lane.followed
            ));
        }
        let frontier = lanes.values().map(ExpectedLane::watermark).min().flatten();
        if commit.closed_through.map(|t| t.0) != frontier {
            return Err(format!(
                "epoch {n} closed through {:?}, must be {frontier:?}",
                commit.closed_through
            ));
        }
        let must = rows(&lanes, frontier)
            .into_iter()
            .map(|(k, cell)| (k, self.visible_in_row(&cell)))
            .collect();
        compare_maps(&format!("epoch {n}: rows"), &seen.rows, &must)?;
        let late = lanes.values().flat_map(|e| e.late.clone()).collect();
        compare_maps(&format!("epoch {n}: late"), &seen.late, &late)?;
        let rejects = lanes.values().flat_map(|e| e.rejects.clone()).collect();
        compare_maps(&format!("epoch {n}: rejects"), &seen.rejects, &rejects)?;
        let mut all = windrow_core::values::ledger::TableLedger::default();
        for (p, e) in &lanes {
            e.archived
                .iter()
                .chain([&e.ledger])
                .for_each(|l| all.add(l));
            let lane = &commit.lanes[p];
            if lane.ledger != e.ledger {
                return Err(format!(
                    "epoch {n}: the ledger of topic partition {p} is {:?}, must be {:?}",
                    lane.ledger, e.ledger
                ));
            }
            if lane.watermark.map(|w| w.0) != e.watermark() {
                return Err(format!(
                    "epoch {n}: the watermark of topic partition {p} is {:?}",
                    lane.watermark
                ));
            }
        }
        let sums = |l: &windrow_core::values::ledger::TableLedger| {
            [
                l.consumed,
                l.counted,
                l.late,
                l.rejected,
                l.tombstones,
                l.gaps,
                l.lost,
                l.hits,
                l.late_hits,
                l.lost_hits,
            ]
        };
        if sums(&commit.ledger) != sums(&all) {
            return Err(format!(
                "epoch {n}: the table's ledger is {:?}, must be {all:?}",
                commit.ledger
            ));
        }
        Ok(())
    }

    /// A generation begins where the world has begun one: `before` and `after` are the numbers of
    /// the topics. One cut may be decided twice: first that there was a cut, then where the log
    /// ends now. `again` says that it is decided for a third time.
    fn check_generation(
        &self,
        decision: &Decision,
        before: usize,
        after: usize,
        again: bool,
    ) -> Result<(), String> {
        let Decided::Generation { to, reason, .. } = &decision.what else {
            unreachable!("it is one");
        };
        let log = self.topics[before].logs.get(&decision.partition);
        if before != after {
            return if after < before || *to != 0 {
                let id = &self.topics[before].id;
                Err(format!("{decision:?}, but the topic was {id}"))
            } else {
                Ok(())
            };
        }
        if again || log.is_none_or(|log| log.cuts().len() < 2) {
            return Err(format!("{decision:?}, but it was not cut off"));
        }
        // Where the leader epoch tells the place of the cut, no record there is skipped. Offsets
        // that are never shown may be: a log that had nothing there before shows no difference.
        let cuts = log.map(|log| log.cuts());
        let at = cuts.and_then(|cuts| cuts.last()).map_or(0, |(_, at)| *at);
        let skipped = log.and_then(|log| log.records.range(at..at.max(*to)).next());
        if let Some((offset, _)) = skipped
            && reason.contains("cut off below offset")
        {
            return Err(format!(
                "{decision:?}, but the cut was at {at}, and offset {offset} has a record"
            ));
        }
        Ok(())
    }

    /// What one topic partition must come to, generation by generation.
    fn expect(
        &self,
        epochs: &[&Commit],
        p: Partition,
        choices: &mut Choices,
    ) -> Result<ExpectedLane, String> {
        let mut all = epochs.iter();
        let first = all.find(|c| c.lanes.contains_key(&p));
        let first = first.expect("it is in the last");
        let mut expected = ExpectedLane::new(p, first.lanes[&p].ledger.start_offset);
        let mut topic = self.topic(&first.topic_id)?;
        let mut cut = false;
        let generation = |topic, cut_is_open| Generation {
            topic,
            partition: p,
            cut_is_open,
        };
        let mut decisions: Vec<&Decision> = Vec::new();
        // What the commits of this generation say of the lane, each with the number of decisions
        // that were made by then.
        let mut ends: Vec<End<'_>> = Vec::new();
        for (n, commit) in epochs
            .iter()
            .enumerate()
            .filter(|(_, c)| c.lanes.contains_key(&p))
        {
            for decision in commit.decisions.iter().filter(|d| d.partition == p) {
                if let Decided::CountsLost { to, .. } = &decision.what {
                    let generation = generation(topic, true);
                    let read = (&decisions[..], *to);
                    self.read(&mut expected, generation, read, &ends, choices)?;
                    self.lose(&mut expected, &epochs[..n], decision, topic)?;
                    (decisions, ends) = (Vec::new(), Vec::new());
                    continue;
                }
                let Decided::Generation { to, topic_id, .. } = &decision.what else {
                    decisions.push(decision);
                    if let Decided::Lost { to, .. } = &decision.what
                        && self.topics[topic]
                            .logs
                            .get(&p)
                            .is_none_or(|log| log.start < *to)
                    {
                        return Err(format!("{decision:?}, but it was there"));
                    }
                    continue;
                };
                let other = self.topic(topic_id)?;
                let same = other == topic;
                let generation = generation(topic, cut || !same);
                let read = (&decisions[..], decision.offset);
                self.read(&mut expected, generation, read, &ends, choices)?;
                let again = cut && decision.offset != expected.ledger.start_offset;
                self.check_generation(decision, topic, other, again)?;
                (topic, cut) = (other, same);
                (decisions, ends) = (Vec::new(), Vec::new());
                expected.generation(*to);
            }
            ends.push(End {
                lane: &commit.lanes[&p],
                decided: decisions.len(),
                read_again: self.is_read_again(&epochs[n..]),
            });
        }
        let end = ends.last().expect("the last commit").lane.to;
        let generation = generation(topic, true);
        self.read(&mut expected, generation, (&decisions, end), &ends, choices)?;
        Ok(expected)
    }

    /// Lost counts: was anything gone, and is no more lost than must be?
    fn lose(
        &self,
        expected: &mut ExpectedLane,
        before: &[&Commit],
        decision: &Decision,
        topic: usize,
    ) -> Result<(), String> {
        let p = decision.partition;
        let log = self.topics[topic].logs.get(&p);
        let gone = self.checkpoints_harmed
            || topic + 1 < self.topics.len()
            || log.is_none_or(|log| log.before.is_some() || log.start > decision.offset);
        if !gone {
            return Err(format!("{decision:?}, but everything is there"));
        }
        let frontier = before.last().and_then(|c| c.closed_through).map(|t| t.0);
        // Checkpoints that a restart could begin at: the newest, and the one before it.
        let with = |(n, c): (usize, &&Commit)| c.checkpoint.is_some().then_some(n);
        let kept: Vec<usize> = before
            .iter()
            .enumerate()
            .rev()
            .filter_map(with)
            .take(2)
            .collect();
        let mut first = None;
        for at in kept {
            let lane = before[at].lanes.get(&p).map(|lane| lane.to);
            let start = before
                .iter()
                .find_map(|c| c.lanes.get(&p))
                .map(|l| l.ledger.start_offset);
            if lane.or(start) != Some(decision.offset) {
                continue;
            }
            let watermark = match lane {
                Some(_) => first_right(|c| self.expect(&before[..=at], p, c))?.watermark(),
                None => None,
            };
            let mut lane = expected.clone();
            match lane.lose(self.shape, decision, watermark, frontier, true) {
                Ok(()) => {
                    *expected = lane;
                    return Ok(());
                }
                Err(why) => first = first.or(Some(why)),
            }
        }
        // Where no checkpoint could be read, nothing is kept.
        if self.checkpoints_harmed && decision.offset == expected.ledger.start_offset {
            return expected.lose(self.shape, decision, None, frontier, false);
        }
        Err(first.unwrap_or_else(|| format!("{decision:?}, but there was no checkpoint")))
    }

    /// Whether the next owner has replayed the first of these commits: it has no checkpoint, and
    /// neither has a later one of the same owner.
    fn is_read_again(&self, epochs: &[&Commit]) -> bool {
        let term = epochs[0].owner.term;
        let of_the_same = epochs.iter().take_while(|c| c.owner.term == term);
        let kept = of_the_same.clone().any(|c| c.checkpoint.is_some());
        of_the_same.count() < epochs.len() && (!kept || self.checkpoints_harmed)
    }

    /// Which of the topics has this id.
    fn topic(&self, id: &str) -> Result<usize, String> {
        self.topics
            .iter()
            .position(|t| t.id == id)
            .ok_or_else(|| format!("no topic had the id {id}"))
    }

    /// Reads a generation to its end. When the log was cut off, the generation may have seen only
    /// what was there before the cut, or it may have read on after the cut without noticing it. The
    /// ledgers of its commits tell which; where they fit several logs, that is a choice.
    fn read(
        &self,
        expected: &mut ExpectedLane,
        generation: Generation,
        (decisions, end): (&[&Decision], Offset),
        ends: &[End<'_>],
        choices: &mut Choices,
    ) -> Result<(), String> {
        let none = Log::default();
        let Generation {
            topic,
            partition: p,
            ..
        } = generation;
        let log = self.topics[topic].logs.get(&p);
        if log.is_none() && end != expected.ledger.next_offset {
            return Err(format!(
                "topic partition {p} of {} was read, but never was",
                self.topics[topic].id
            ));
        }
        let log = log.unwrap_or(&none);
        let fits_one = |log: &Log, end: &End<'_>| {
            let (lane, decided) = (end.lane, end.decided);
            let mut try_it = expected.clone();
            try_it.read(self.shape, log, &decisions[..decided], lane.to);
            let last = log
                .records
                .range(..lane.to)
                .next_back()
                .map(|(_, r)| r.leader_epoch);
            try_it.ledger == lane.ledger
                && try_it.watermark() == lane.watermark.map(|w| w.0)
                && (end.read_again || lane.leader_epoch < 0 || Some(lane.leader_epoch) == last)
        };
        let fits = |log: &Log| ends.iter().all(|end| fits_one(log, end));
        let log = match log.before.as_deref() {
            None => log.clone(),
            Some(before) if !generation.cut_is_open => before.clone(),
            Some(before) => {
                let committed = ends.iter().map(|end| end.lane.to);
                let mut all = log.as_it_may_be_read(expected.ledger.next_offset..end, committed);
                all.retain(fits);
                if all.is_empty() {
                    before.clone()
                } else {
                    all.swap_remove(choices.one_of(all.len()))
                }
            }
        };
        expected.read(self.shape, &log, decisions, end);
        Ok(())
    }

    /// Checks the end of a run, after which there were no more faults: everything was read, and no
    /// lane holds another back.
    fn is_at_the_end(&self, last: &Commit) -> Result<(), String> {
        let topic = self.topics.last().expect("one at least");
        // Who ends at a bad record in the middle of a replay has committed nothing since. Floors
        // that came after the checkpoint are no way to go.
        let goes_back =
            |(p, lane): (&Partition, &LaneCommit)| self.catalog.checkpointed(*p) != Some(lane.to);
        if last.lanes.iter().any(goes_back) && self.bad_record.is_none() {
            return Err(
                "the next owner would have to replay, because there is no checkpoint".to_owned(),
            );
        }
        if let Some((p, offset)) = self.bad_record {
            return if last.lanes.get(&p).map(|lane| lane.to) == Some(offset) {
                Ok(())
            } else {
                Err(format!(
                    "counting ended at offset {offset} of topic partition {p}, and what came \
                     before it is not committed"
                ))
            };
        }
        if last.topic_id != topic.id {
            return Err(format!(
                "the last epoch is of topic {}, not {}",
                last.topic_id, topic.id
            ));
        }
        for (p, log) in &topic.logs {
            if last.lanes.get(p).map(|l| l.to) != Some(log.end) {
                return Err(format!("topic partition {p} was not read to its end"));
            }
        }
        // A lane that lost counts may be ahead of the others, by the floor that comes of it.
        let losses: Vec<_> = self
            .catalog
            .epochs
            .iter()
            .flat_map(|(c, _)| &c.decisions)
            .collect();
        let lost = |p: Partition, w| {
            losses.iter().any(|d| {
                let of_p = d.partition == p;
                matches!(&d.what, Decided::CountsLost { floor, .. } if of_p && *floor == w)
            })
        };
        let mut watermarks = last.lanes.iter().filter(|(p, l)| !lost(**p, l.watermark));
        let first = watermarks.next().map(|(_, l)| l.watermark);
        if watermarks.any(|(_, l)| Some(l.watermark) != first) {
            return Err("all are idle, but their watermarks differ".to_owned());
        }
        Ok(())
    }
}

/// Whether the commit of this decision carries a checkpoint: the records before it may be gone.
fn needs_checkpoint(decision: &Decision) -> bool {
    matches!(
        decision.what,
        Decided::Lost { .. } | Decided::CountsLost { .. } | Decided::Generation { .. }
    )
}
