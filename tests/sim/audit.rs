//! The auditor: it says what the table must hold, from the logs, the recorded decisions and the
//! definition of a window, one record and one window at a time.
//! It shares no code with the lanes, only the types of what was recorded.

use crate::topic::{Log, Value};
use std::collections::{BTreeMap, BTreeSet};
use windrow_core::values::decision::{Decided, Decision, FloorReason};
use windrow_core::values::ledger::LaneLedger;
use windrow_core::values::record::{Offset, Partition};
use windrow_core::values::shape::Shape;

/// The start of a window, its end, and the columns of a key.
pub type RowKey = (i64, i64, Vec<Option<String>>);

/// How many records fell in a window under a key, and what is known of their field `n`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    pub hits: u64,
    pub n: u64,
    pub sum: i128,
    pub min: Option<i64>,
    pub max: Option<i64>,
}

impl Cell {
    fn add(&mut self, other: &Cell) {
        self.hits += other.hits;
        self.n += other.n;
        self.sum += other.sum;
        self.min = self.min.into_iter().chain(other.min).min();
        self.max = self.max.max(other.max);
    }
}

/// How often a late record or a reject stands in its side table, by topic partition and offset.
pub type SideRows = BTreeMap<(Partition, Offset), u64>;

/// What one topic partition must come to, over all its generations.
#[derive(Clone, Default, Debug)]
pub struct ExpectedLane {
    partition: Partition,
    pub windows: BTreeMap<RowKey, Cell>,
    pub late: SideRows,
    pub rejects: SideRows,
    /// The ledger of this generation.
    pub ledger: LaneLedger,
    /// The ledgers of the generations before it.
    pub archived: Vec<LaneLedger>,
    newest: Option<i64>,
    floor: Option<i64>,
    /// The greatest watermark that this lane has come to without following others that stood aside:
    /// by its own records, or by floors that say something about the topic.
    pub own: Option<i64>,
    /// The greatest floor by which it followed others.
    pub followed: Option<i64>,
    /// The floor that comes of lost counts.
    pub loss: Option<i64>,
    ceiling: i64,
    delay: i64,
    /// The keys of each slice: of the times that fall in the windows between these two starts.
    slices: BTreeMap<(i64, i64), BTreeSet<Vec<Option<String>>>>,
}

impl ExpectedLane {
    pub fn new(partition: Partition, start: Offset) -> Self {
        let ledger = LaneLedger {
            start_offset: start,
            next_offset: start,
            ..LaneLedger::default()
        };
        Self {
            partition,
            ledger,
            ceiling: i64::MIN,
            ..Self::default()
        }
    }

    /// The watermark before the next record, by the definition.
    pub fn watermark(&self) -> Option<i64> {
        self.newest
            .map(|t| t - self.delay)
            .max(self.floor)
            .max(self.loss)
    }

    /// Reads on up to the offset `to`, with the decisions of this generation.
    pub fn read(&mut self, shape: &Shape, log: &Log, decisions: &[&Decision], to: Offset) {
        let mut decisions = decisions.iter().peekable();
        for offset in self.ledger.next_offset..=to {
            while let Some(decision) = decisions.next_if(|d| d.offset <= offset) {
                match &decision.what {
                    Decided::Floor { at, reason } => {
                        self.floor = self.floor.max(Some(at.0));
                        let which = match reason {
                            FloorReason::Idle => &mut self.followed,
                            _ => &mut self.own,
                        };
                        *which = (*which).max(Some(at.0));
                    }
                    Decided::Ceiling { at } => self.ceiling = at.0,
                    Decided::Delay { ms } => {
                        self.floor = self.watermark();
                        self.delay = *ms;
                        self.own = self.own.max(self.newest.map(|t| t - self.delay));
                    }
                    Decided::Lost { to, .. } => {
                        self.ledger.gaps += (decision.offset - self.ledger.next_offset) as u64;
                        self.ledger.lost += (to - decision.offset) as u64;
                        self.ledger.next_offset = *to;
                    }
                    Decided::Adopted { .. } => {
                        unreachable!("no table of the simulation is adopted")
                    }
                    Decided::CountsLost { .. } | Decided::Generation { .. } => {
                        unreachable!("the judge ends the piece with this decision")
                    }
                }
            }
            if offset < to && offset >= self.ledger.next_offset && log.records.contains_key(&offset)
            {
                self.record(shape, log, offset);
            }
        }
        self.ledger.gaps += (to - self.ledger.next_offset) as u64;
        self.ledger.next_offset = to;
    }

    /// What was counted in windows that end after `kept`, the watermark at the checkpoint, cannot
    /// be counted again, unless its rows are there, because the window ends at or before
    /// `frontier`. Returns the hits that are lost by that.
    pub fn hits_after(&self, kept: Option<i64>, frontier: Option<i64>) -> u64 {
        let gone = |end: i64| kept.is_none_or(|w| end > w) && frontier.is_none_or(|f| end > f);
        let windows = self.windows.iter();
        windows
            .filter(|((_, end, _), _)| gone(*end))
            .map(|(_, cell)| cell.hits)
            .sum()
    }

    /// Loses them, and checks what was decided of it against what follows from the logs. `known`
    /// says whether the lane could know its delay and ceiling.
    pub fn lose(
        &mut self,
        shape: &Shape,
        decision: &Decision,
        kept: Option<i64>,
        frontier: Option<i64>,
        known: bool,
    ) -> Result<(), String> {
        let Decided::CountsLost {
            to,
            ledger,
            newest,
            floor,
            delay_ms,
            ceiling,
            ..
        } = &decision.what
        else {
            unreachable!("another decision");
        };
        let lost = self.hits_after(kept, frontier);
        self.ledger.lost_hits += lost;
        let last = self.newest.filter(|_| lost > 0).map(|t| {
            (t - shape.offset_ms).div_euclid(shape.slide_ms) * shape.slide_ms
                + shape.offset_ms
                + shape.window_ms
        });
        let must = last.max(self.watermark());
        let fits = *to == self.ledger.next_offset
            && *ledger == self.ledger
            && newest.map(|t| t.0) == self.newest
            && floor.map(|t| t.0) == must
            && (!known || (*delay_ms == self.delay && ceiling.0 == self.ceiling));
        if !fits {
            return Err(format!(
                "{decision:?}, but the ledger must be {:?}, the newest {:?}, the floor {must:?}, \
                 the delay {}, the ceiling {}",
                self.ledger, self.newest, self.delay, self.ceiling
            ));
        }
        let gone = |end: i64| kept.is_none_or(|w| end > w) && frontier.is_none_or(|f| end > f);
        self.windows.retain(|(_, end, _), _| !gone(*end));
        self.loss = self.loss.max(must);
        (self.delay, self.ceiling) = (*delay_ms, ceiling.0);
        // Where no checkpoint could be read, the delay that is decided may be shorter.
        self.own = self.own.max(self.newest.map(|t| t - self.delay));
        Ok(())
    }

    /// Begins another generation, whose log begins at `to`.
    pub fn generation(&mut self, to: Offset) {
        let ledger = LaneLedger {
            start_offset: to,
            next_offset: to,
            ..LaneLedger::default()
        };
        self.archived
            .push(std::mem::replace(&mut self.ledger, ledger));
    }

    /// Takes the record at `offset`, against each window that its time falls in.
    fn record(&mut self, shape: &Shape, log: &Log, offset: Offset) {
        let record = &log.records[&offset];
        let watermark = self.watermark();
        let ledger = &mut self.ledger;
        ledger.gaps += (offset - ledger.next_offset) as u64;
        ledger.next_offset = offset + 1;
        let at = (self.partition, offset);
        let (key, n) = match &record.value {
            Value::Tombstone => {
                ledger.tombstones += 1;
                return self.newest_is(record.time);
            }
            Value::Good { key, n }
                if record.time >= 0
                    && record.time <= self.ceiling
                    && bytes_of(key) <= shape.max_key_bytes =>
            {
                (key, *n)
            }
            _ => {
                ledger.rejected += 1;
                *self.rejects.entry(at).or_default() += 1;
                return self.newest_is(record.time);
            }
        };
        let mut windows = Vec::new();
        let mut start = (record.time - shape.offset_ms).div_euclid(shape.slide_ms) * shape.slide_ms
            + shape.offset_ms;
        while start + shape.window_ms > record.time {
            windows.push((start, start + shape.window_ms));
            start -= shape.slide_ms;
        }
        let open: Vec<_> = windows
            .iter()
            .filter(|(_, end)| watermark.is_none_or(|w| *end > w))
            .collect();
        if open.is_empty() {
            ledger.late += 1;
            *self.late.entry(at).or_default() += 1;
            return;
        }
        let slice = (windows[windows.len() - 1].0, windows[0].0);
        let keys = self.slices.entry(slice).or_default();
        if !keys.contains(key) && keys.len() as u64 >= shape.max_keys {
            ledger.rejected += 1;
            *self.rejects.entry(at).or_default() += 1;
            return self.newest_is(record.time);
        }
        keys.insert(key.clone());
        ledger.counted += 1;
        ledger.hits += windows.len() as u64;
        ledger.late_hits += (windows.len() - open.len()) as u64;
        let one = Cell {
            hits: 1,
            n: n.is_some().into(),
            sum: n.unwrap_or(0).into(),
            min: n,
            max: n,
        };
        for (start, end) in open {
            self.windows
                .entry((*start, *end, key.clone()))
                .or_default()
                .add(&one);
        }
        self.newest_is(record.time);
    }

    /// A record of this event time moves the watermark, unless that is no time or in the future.
    fn newest_is(&mut self, time: i64) {
        if (0..=self.ceiling).contains(&time) {
            self.newest = self.newest.max(Some(time));
            self.own = self.own.max(Some(time - self.delay));
        }
    }
}

/// The bytes of all columns of a key.
fn bytes_of(key: &[Option<String>]) -> u64 {
    key.iter().flatten().map(|column| column.len() as u64).sum()
}

/// The final rows: the windows that end at or before the frontier, summed over all topic
/// partitions.
pub fn rows(
    lanes: &BTreeMap<Partition, ExpectedLane>,
    frontier: Option<i64>,
) -> BTreeMap<RowKey, Cell> {
    let mut rows: BTreeMap<RowKey, Cell> = BTreeMap::new();
    for lane in lanes.values() {
        for (window, cell) in lane
            .windows
            .iter()
            .filter(|(w, _)| frontier.is_some_and(|f| w.1 <= f))
        {
            rows.entry(window.clone()).or_default().add(cell);
        }
    }
    rows
}

/// Compares what is there with what must be there.
///
/// # Errors
/// The first difference.
pub fn compare_maps<K: Ord + std::fmt::Debug, V: PartialEq + std::fmt::Debug>(
    what: &str,
    ours: &BTreeMap<K, V>,
    must: &BTreeMap<K, V>,
) -> Result<(), String> {
    for (key, value) in must {
        match ours.get(key) {
            None => return Err(format!("{what}: {key:?} {value:?} is missing")),
            Some(other) if other != value => {
                return Err(format!("{what}: {key:?} is {other:?}, must be {value:?}"));
            }
            Some(_) => {}
        }
    }
    match ours.iter().find(|(key, _)| !must.contains_key(key)) {
        Some((key, value)) => Err(format!("{what}: {key:?} {value:?} must not be there")),
        None => Ok(()),
    }
}
