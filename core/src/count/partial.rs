//! The partial counts of one topic partition: open windows, kept by slice, and how they are closed.
//! Which record is late is not decided here; the lane gives only slices that have an open window.
//!
//! A record is added to its slice alone, whatever the number of windows that share it. When a
//! window closes, its slices are summed. Keys are interned, which means that each has a small
//! number: a record costs one look-up of its key and one addition.
//!
//! Example, with a size of 10s and a slide of 5s:
//!
//! | what happens | slice [12:00:00, 12:00:05) | slice [12:00:05, 12:00:10) |
//! |---|---|---|
//! | `a` at 12:00:03 | `a` 1 | |
//! | `a` at 12:00:07 | `a` 1 | `a` 1 |
//! | the watermark is 12:00:05 | `a` 1 | `a` 1 |
//! | the watermark is 12:00:10 | forgotten | `a` 1 |
//! | the watermark is 12:00:15 | | forgotten |
//!
//! At 12:00:05 the window [11:59:55, 12:00:05) closes with `a` 1; the first slice is still needed.
//! At 12:00:10 the window [12:00:00, 12:00:10) closes with `a` 2, and no open window needs the
//! first slice any more. At 12:00:15 the window [12:00:05, 12:00:15) closes with `a` 1.

use crate::count::interner::Interner;
use crate::count::slice::Slice;
use crate::count::window::{Span, Windows};
use crate::values::aggregate::{Acc, merge};
use crate::values::shape::{Function, Shape};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// A lane with at most so many keys keeps all of them, in slices or not.
const KEYS_SMALL: usize = 1024;
/// The same for what the keys take in memory.
const KEYS_SMALL_BYTES: usize = 256 << 10;
/// What an entry of a closed window takes while it is cut into an epoch, besides itself: the row
/// that it becomes, and its share of the file.
const CUT_ENTRY_BYTES: usize = 32;

/// What one topic partition counted under one key, in one window or in one slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key, encoded as [`crate::values::record::Key`] says.
    pub key: Arc<[u8]>,
    /// How many records were counted; at least one.
    pub count: u64,
    /// One state for each of [`Shape::inputs`], in the same order.
    pub accs: Box<[Acc]>,
}

/// One slice as a checkpoint has it, in lists that take little memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceState {
    /// Where the slice begins, in ms since 1970.
    pub start: i64,
    /// The places of its keys in the list of keys that comes with it.
    pub ids: Vec<u32>,
    /// How many records were counted under each of these keys, in the same order.
    pub counts: Vec<u64>,
    /// The aggregates of these keys, in the same order: as many for each as [`Shape::inputs`] has.
    pub accs: Vec<Acc>,
}

/// Closed windows by their start in ms since 1970, each with its entries in no particular order.
pub type Closed = BTreeMap<i64, Vec<Entry>>;

/// What the entries of one closed window take in memory, in bytes, until they are rows in a file.
pub(super) fn closed_bytes(entries: &Vec<Entry>, width: usize) -> usize {
    // A list of aggregates is an allocation of its own.
    let accs = if width > 0 {
        entries.len() * (width * size_of::<Acc>() + 16)
    } else {
        0
    };
    64 + entries.capacity() * (size_of::<Entry>() + CUT_ENTRY_BYTES) + accs
}

/// The slices of one topic partition that still belong to an open window. Invariant: each slice has
/// a window whose end is after the watermark.
pub(super) struct Partials {
    windows: Windows,
    /// One for each of [`Shape::inputs`], which are the aggregates except `count`.
    functions: Box<[Function]>,
    keys: Interner,
    /// In the order of their starts: those between the watermark and the newest time.
    slices: Vec<Slice>,
    /// Which of `slices` the last record went to. Most records go where the one before went.
    hot: usize,
    /// How many keys a slice takes (the setting `max-keys`).
    max_keys: u64,
    /// What all slices take in memory, in bytes. It is a running sum.
    slice_bytes: usize,
    /// How many keys the slices had that were forgotten since it was looked which keys are in no
    /// slice any more.
    dropped: usize,
    /// Bytes of keys that no slice has any more but that entries of closed windows still hold, with
    /// the start of the last window that may.
    held: VecDeque<(i64, usize)>,
}

/// The slice already has as many keys as it takes, and this key is new to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooManyKeys;

impl Partials {
    /// No slice yet.
    #[must_use]
    pub fn new(shape: &Shape) -> Self {
        Self {
            windows: Windows::of_shape(shape),
            functions: shape.inputs().map(|a| a.function).collect(),
            keys: Interner::default(),
            slices: Vec::new(),
            hot: 0,
            max_keys: shape.max_keys,
            slice_bytes: 0,
            dropped: 0,
            held: VecDeque::new(),
        }
    }

    /// How many aggregates there are besides `count`.
    #[must_use]
    pub fn width(&self) -> usize {
        self.functions.len()
    }

    /// What slices and keys take in memory, in bytes, roughly. It costs nothing to ask.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let held: usize = self.held.iter().map(|(_, bytes)| bytes).sum();
        self.slice_bytes + self.keys.bytes() + held
    }

    /// The slice that a time falls in. It costs no division when the last record fell in the same
    /// one.
    #[must_use]
    pub fn span(&mut self, time: i64) -> Span {
        if let Some(slice) = self.slices.get(self.hot)
            && slice.span.start <= time
            && time < slice.span.end
        {
            return slice.span;
        }
        self.windows.span(time)
    }

    /// Counts one record in the slice `span`, which must have an open window. `values` has one
    /// value for each of [`Shape::inputs`]; `None` is skipped, as SQL skips null.
    ///
    /// # Errors
    /// [`TooManyKeys`]. Then nothing was changed, and the record is a reject.
    pub fn add(
        &mut self,
        span: Span,
        key: &[u8],
        values: &[Option<i64>],
    ) -> Result<(), TooManyKeys> {
        if self
            .slices
            .get(self.hot)
            .is_none_or(|slice| slice.span != span)
        {
            self.hot = match self
                .slices
                .binary_search_by_key(&span.start, |s| s.span.start)
            {
                Ok(i) => i,
                Err(i) => {
                    let slice = Slice::new(span);
                    self.slice_bytes += slice.bytes();
                    self.slices.insert(i, slice);
                    i
                }
            };
        }
        let slice = &mut self.slices[self.hot];
        let width = self.functions.len();
        let full = slice.keys() >= self.max_keys;
        let id = if full {
            self.keys.find(key).ok_or(TooManyKeys)?
        } else {
            self.keys.intern(key)
        };
        let place = match slice.find(id) {
            Some(place) => place,
            None if full => return Err(TooManyKeys),
            None => {
                let before = slice.bytes();
                let place = slice.insert(id, self.keys.len(), width);
                self.slice_bytes = self.slice_bytes - before + slice.bytes();
                place
            }
        };
        let accs = slice.add(place, 1, width);
        for ((acc, function), value) in accs.iter_mut().zip(&self.functions).zip(values) {
            if let Some(value) = value {
                merge(
                    acc,
                    *function,
                    Acc {
                        n: 1,
                        value: i128::from(*value),
                    },
                );
            }
        }
        Ok(())
    }

    /// The earliest end of a window that has data and is open at `watermark`.
    #[must_use]
    pub fn next_end(&self, watermark: i64) -> Option<i64> {
        self.slices
            .iter()
            .filter_map(|s| s.span.next_end(self.windows.slide, watermark))
            .min()
    }

    /// The greatest end of a window that has data; `None` when no slice is kept.
    #[must_use]
    pub fn last_end(&self) -> Option<i64> {
        self.slices.iter().map(|s| s.span.last_end).max()
    }

    /// Closes the windows with `from < end <= to` into `closed`, and forgets the slices that no
    /// open window needs any more. `from` is the watermark before this move. It was never higher at
    /// any record that was counted so far, so no window that ends at or before it has anything to
    /// give. Returns what the closed windows take in memory, in bytes.
    pub fn close(&mut self, from: i64, to: i64, closed: &mut Closed) -> usize {
        let Windows { size, slide, .. } = self.windows;
        let mut ends: Vec<i64> = Vec::new();
        for span in self.slices.iter().map(|s| s.span) {
            let mut next = span.next_end(slide, from);
            while let Some(end) = next.filter(|end| *end <= to) {
                ends.push(end);
                next = span.next_end(slide, end);
            }
        }
        ends.sort_unstable();
        ends.dedup();
        let mut bytes = 0;
        for end in ends {
            let entries = self.window(end - size, end);
            bytes += closed_bytes(&entries, self.functions.len());
            let before = closed.insert(end - size, entries);
            assert!(before.is_none(), "a window closes once");
        }
        for slice in self.slices.extract_if(.., |s| s.span.last_end <= to) {
            self.slice_bytes -= slice.bytes();
            self.dropped += usize::try_from(slice.keys()).expect("a number of keys in memory");
        }
        self.hot = 0;
        self.forget_keys(closed);
        bytes
    }

    /// The closed windows that start before `start` were taken out.
    pub fn closed_taken(&mut self, start: i64) {
        while self.held.front().is_some_and(|(last, _)| *last < start) {
            self.held.pop_front();
        }
    }

    /// Forgets all slices: what they had counted is lost.
    pub fn clear(&mut self) {
        self.slices.clear();
        self.hot = 0;
        self.keys = Interner::default();
        self.slice_bytes = 0;
        self.dropped = 0;
        self.held.clear();
    }

    /// Whether the running sum of what slices take is what a recount says.
    #[must_use]
    pub fn sum_is_right(&self) -> bool {
        self.slice_bytes == self.slices.iter().map(Slice::bytes).sum::<usize>()
    }

    /// The end of the last window that holds this time.
    #[must_use]
    pub fn last_end_of(&self, time: i64) -> i64 {
        self.windows.span(time).last_end
    }

    /// The sum of the slices in one window: what it holds so far.
    fn window(&self, start: i64, end: i64) -> Vec<Entry> {
        let inside: Vec<&Slice> = self
            .slices
            .iter()
            .filter(|s| start <= s.span.start && s.span.end <= end)
            .collect();
        if let [only] = inside[..] {
            return self.entries(only);
        }
        let keys: u64 = inside.iter().map(|s| s.keys()).sum();
        if keys * 4 < self.keys.len() as u64 {
            self.sum_few(&inside)
        } else {
            self.sum_many(&inside)
        }
    }

    /// What one slice holds, as entries.
    fn entries(&self, slice: &Slice) -> Vec<Entry> {
        let keys = usize::try_from(slice.keys()).expect("a number of keys in memory");
        let mut entries = Vec::with_capacity(keys);
        slice.each(self.functions.len(), |id, count, accs| {
            entries.push(Entry {
                key: Arc::clone(self.keys.key(id)),
                count,
                accs: accs.into(),
            });
        });
        entries
    }

    /// The sum of slices that have few of the lane's keys: by sorting what they have.
    fn sum_few(&self, inside: &[&Slice]) -> Vec<Entry> {
        let mut found: Vec<(u32, usize)> = Vec::new();
        for (which, slice) in inside.iter().enumerate() {
            slice.each(self.functions.len(), |id, _, _| found.push((id, which)));
        }
        found.sort_unstable();
        let mut entries = Vec::with_capacity(found.chunk_by(|a, b| a.0 == b.0).count());
        for same in found.chunk_by(|a, b| a.0 == b.0) {
            let (mut count, mut accs) = (0, vec![Acc::default(); self.functions.len()]);
            for (id, which) in same {
                let slice = inside[*which];
                let place = slice.find(*id).expect("it was found there");
                let (n, states) = slice.at(place, self.functions.len());
                count += n;
                self.merge_into(&mut accs, states);
            }
            entries.push(Entry {
                key: Arc::clone(self.keys.key(same[0].0)),
                count,
                accs: accs.into(),
            });
        }
        entries
    }

    /// The sum of slices that have many of the lane's keys: by the number of the key.
    fn sum_many(&self, inside: &[&Slice]) -> Vec<Entry> {
        let width = self.functions.len();
        let mut counts = vec![0; self.keys.len()];
        let mut accs = vec![Acc::default(); self.keys.len() * width];
        for slice in inside {
            slice.each(width, |id, count, states| {
                let id = id as usize;
                counts[id] += count;
                self.merge_into(&mut accs[id * width..(id + 1) * width], states);
            });
        }
        let present = counts.iter().filter(|n| **n > 0).count();
        let mut entries = Vec::with_capacity(present);
        for (id, count) in counts.into_iter().enumerate().filter(|(_, n)| *n > 0) {
            entries.push(Entry {
                key: Arc::clone(&self.keys.keys()[id]),
                count,
                accs: accs[id * width..(id + 1) * width].into(),
            });
        }
        entries
    }

    fn merge_into(&self, accs: &mut [Acc], more: &[Acc]) {
        for ((acc, function), more) in accs.iter_mut().zip(&self.functions).zip(more) {
            merge(acc, *function, *more);
        }
    }

    /// The windows that have data and are open at `watermark`, for people to look at: start, end,
    /// and what the window holds so far.
    #[must_use]
    pub fn open_windows(&self, watermark: i64) -> Vec<(i64, i64, Vec<Entry>)> {
        let Windows { size, slide, .. } = self.windows;
        let mut ends: Vec<i64> = Vec::new();
        for span in self.slices.iter().map(|s| s.span) {
            let mut next = span.next_end(slide, watermark);
            while let Some(end) = next {
                ends.push(end);
                next = span.next_end(slide, end);
            }
        }
        ends.sort_unstable();
        ends.dedup();
        ends.into_iter()
            .map(|end| (end - size, end, self.window(end - size, end)))
            .collect()
    }

    /// The sum of the counts in all windows that are open at `watermark`. A record that falls in
    /// two open windows counts twice.
    #[must_use]
    pub fn open_count(&self, watermark: i64) -> u64 {
        let slide = self.windows.slide;
        self.slices
            .iter()
            .map(|s| s.total() * (s.span.windows(slide) - s.span.closed(slide, watermark)))
            .sum()
    }

    /// The number of keys of all slices. A key counts once for each slice that it is in; the size
    /// of a checkpoint is in proportion to this.
    #[must_use]
    pub fn key_slots(&self) -> u64 {
        self.slices.iter().map(Slice::keys).sum()
    }

    /// The slices, in the order of their starts.
    pub fn slices(&self) -> &[Slice] {
        &self.slices
    }

    /// The keys of the slices, and others that were in a slice before.
    pub fn interner(&self) -> &Interner {
        &self.keys
    }

    /// Takes in the slices of a checkpoint, which name `keys` by their places.
    pub fn import(&mut self, keys: &[Arc<[u8]>], slices: Vec<SliceState>) {
        let width = self.functions.len();
        for state in slices {
            let mut slice = Slice::new(self.windows.span(state.start));
            for (at, id) in state.ids.iter().enumerate() {
                let id = self.keys.intern_shared(&keys[*id as usize]);
                let place = slice.insert(id, self.keys.len(), width);
                slice
                    .add(place, state.counts[at], width)
                    .copy_from_slice(&state.accs[at * width..(at + 1) * width]);
            }
            self.slice_bytes += slice.bytes();
            self.slices.push(slice);
        }
        self.slices.sort_by_key(|s| s.span.start);
    }

    /// Makes the interner anew once at most half of its keys are in a slice. By itself it never
    /// forgets a key. Whether that is so is looked at whenever as many keys as a quarter of it have
    /// left a slice: a key cannot leave its last slice without leaving a slice.
    fn forget_keys(&mut self, closed: &Closed) {
        let len = self.keys.len();
        let small = len <= KEYS_SMALL && self.keys.bytes() <= KEYS_SMALL_BYTES;
        if small || self.dropped < len.div_ceil(4) {
            return;
        }
        self.dropped = 0;
        let width = self.functions.len();
        let mut live = vec![false; len];
        for slice in &self.slices {
            slice.each(width, |id, _, _| live[id as usize] = true);
        }
        let alive = live.iter().filter(|live| **live).count();
        if alive * 2 > len {
            return;
        }
        let (mut fresh, mut held) = (Interner::default(), 0);
        let moved: Vec<u32> = live
            .iter()
            .zip(self.keys.keys())
            .map(|(live, key)| {
                if *live {
                    return fresh.intern_shared(key);
                }
                if Arc::strong_count(key) > 1 {
                    held += Interner::cost(key);
                }
                u32::MAX
            })
            .collect();
        for slice in &mut self.slices {
            self.slice_bytes -= slice.bytes();
            *slice = slice.renumbered(&moved, alive, width);
            self.slice_bytes += slice.bytes();
        }
        self.keys = fresh;
        if let Some((last, _)) = closed.last_key_value().filter(|_| held > 0) {
            self.held.push_back((*last, held));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPES: [(i64, i64); 3] = [(10, 10), (10, 5), (30, 3)];

    fn partials(size: i64, slide: i64) -> Partials {
        Partials::new(&Shape::count_by_origin("t", size, slide))
    }

    /// Numbers that look drawn, without a generator.
    fn draw(n: u64, below: u64) -> u64 {
        (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33) % below
    }

    fn plain(entries: &[Entry]) -> BTreeMap<Vec<u8>, u64> {
        let plain: BTreeMap<_, _> = entries.iter().map(|e| (e.key.to_vec(), e.count)).collect();
        assert_eq!(plain.len(), entries.len(), "a key has one entry");
        plain
    }

    #[test]
    fn lists_and_maps_count_as_a_plain_model_does() {
        for (size, slide) in SHAPES {
            for keys in [3_u64, 40, 5000] {
                let mut partials = partials(size, slide);
                let windows = partials.windows;
                let mut model: BTreeMap<i64, BTreeMap<Vec<u8>, u64>> = BTreeMap::new();
                let (mut watermark, mut closed) = (i64::MIN, Closed::new());
                for n in 0..20_000_u64 {
                    let time = (n / 200) as i64 + draw(n, 20) as i64;
                    // Few keys in one half of the time, many in the other.
                    let some = if (n / 4000) % 2 == 0 {
                        keys
                    } else {
                        keys.div_ceil(50)
                    };
                    let key = format!("k{}", draw(n * 7 + 1, some)).into_bytes();
                    let span = partials.span(time);
                    if span.last_end > watermark {
                        partials.add(span, &key, &[]).unwrap();
                        let mut end = span.first_end;
                        while end <= span.last_end {
                            if end > watermark {
                                let window = model.entry(end - size).or_default();
                                *window.entry(key.clone()).or_default() += 1;
                            }
                            end += windows.slide;
                        }
                    }
                    if n % 500 == 0 {
                        let to = watermark.max(time - 25);
                        partials.close(watermark, to, &mut closed);
                        watermark = to;
                    }
                }
                partials.close(watermark, i64::MAX / 2, &mut closed);
                let closed: BTreeMap<i64, _> =
                    closed.iter().map(|(start, e)| (*start, plain(e))).collect();
                assert_eq!(closed, model, "{size} {slide} {keys}");
                assert_eq!(
                    partials.slice_bytes, 0,
                    "the running sum comes back to nothing"
                );
            }
        }
    }

    #[test]
    fn open_slices_with_few_of_many_keys_take_memory_for_their_keys_only() {
        let mut partials = partials(10, 10);
        for n in 0..720 * 250 {
            let time = n / 250 * 10;
            let key = format!("key-{}", draw(n, 100_000));
            let span = partials.span(time as i64);
            partials.add(span, key.as_bytes(), &[]).unwrap();
        }
        let slots = partials.key_slots() as usize;
        assert!(
            partials.slice_bytes < slots * 40,
            "{}",
            partials.slice_bytes / slots
        );
        assert!(
            partials
                .slices
                .iter()
                .skip(10)
                .all(|slice| !slice.is_list())
        );
        let exact: usize = partials.slices.iter().map(Slice::bytes).sum();
        assert_eq!(partials.slice_bytes, exact, "the running sum is the sum");
    }

    #[test]
    fn a_slice_with_most_keys_is_a_list() {
        let mut partials = partials(10, 10);
        for n in 0..10_000_u64 {
            let span = partials.span(0);
            partials.add(span, &n.to_be_bytes(), &[]).unwrap();
        }
        assert!(partials.slices[0].is_list());
        assert!(partials.slice_bytes < 10_000 * 8 * 2 + 500);
    }

    #[test]
    fn keys_of_one_busy_hour_are_forgotten_although_slices_never_empty() {
        let mut partials = partials(10, 10);
        let mut closed = Closed::new();
        for n in 0..100_000_u64 {
            let span = partials.span(0);
            partials
                .add(span, format!("busy-{n}").as_bytes(), &[])
                .unwrap();
        }
        // Half of the keys are in the next slice too, so that nothing is forgotten with the first.
        for n in 0..60_000_u64 {
            let span = partials.span(10);
            partials
                .add(span, format!("busy-{n}").as_bytes(), &[])
                .unwrap();
        }
        let busy = partials.keys.bytes();
        for slice in 2..2000 {
            let span = partials.span(slice * 10);
            partials.add(span, b"quiet", &[]).unwrap();
            let to = (slice - 1) * 10;
            partials.close(to - 10, to, &mut closed);
        }
        assert!(
            partials.keys.len() <= 2,
            "{} keys stay",
            partials.keys.len()
        );
        // They are in closed windows still, and count until these are taken.
        assert!(partials.bytes() > busy);
        partials.closed_taken(20_000);
        assert!(partials.bytes() < 10_000, "{}", partials.bytes());
    }

    #[test]
    fn slices_that_are_forgotten_take_no_memory() {
        let mut partials = partials(10, 5);
        for n in 0..5000 {
            let span = partials.span(n / 500);
            partials.add(span, format!("k{n}").as_bytes(), &[]).unwrap();
        }
        let mut closed = Closed::new();
        partials.close(i64::MIN, 5, &mut closed);
        assert!(partials.bytes() > 0 && !closed.is_empty());
        partials.clear();
        assert_eq!(partials.bytes(), 0);
        assert!(partials.sum_is_right());
    }
}
