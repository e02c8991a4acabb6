//! The partial counts of one topic partition: open windows, kept by slice, and how they are closed.
//! Which record is late is not decided here; the lane gives only slices that have an open window.
//!
//! A record is added to its slice alone, whatever the number of windows that share it. When a
//! window closes, its slices are summed. Keys are interned, which means that each has a small
//! number: a slice is a dense list of counts by that number, and a record costs one look-up and one
//! addition.
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

use crate::count::window::{Span, Windows};
use crate::values::aggregate::{Acc, merge};
use crate::values::shape::{Function, Shape};
use hashbrown::{DefaultHashBuilder, HashTable};
use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::sync::Arc;

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

/// Closed windows by their start in ms since 1970, each with its entries in no particular order.
pub type Closed = BTreeMap<i64, Vec<Entry>>;

/// The slices of one topic partition that still belong to an open window. Invariant: each slice has
/// a window whose end is after the watermark.
pub(super) struct Partials {
    windows: Windows,
    /// One for each of [`Shape::inputs`], which are the aggregates except `count`.
    functions: Box<[Function]>,
    keys: Interner,
    /// In the order of their starts. They are few: those between the watermark and the newest time.
    slices: Vec<Slice>,
    /// Which of `slices` the last record went to. Most records go where the one before went.
    hot: usize,
    /// How many keys a slice takes (the setting `max-keys`).
    max_keys: u64,
}

struct Slice {
    span: Span,
    /// How many records, by the number of the key; zero for a key that is not in this slice.
    counts: Vec<u64>,
    /// The states of the aggregates. Those of key number `n` begin at `n` times the number of
    /// `functions`.
    accs: Vec<Acc>,
    /// How many keys are in this slice.
    keys: u64,
    /// The sum of `counts`.
    total: u64,
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
        }
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
                    self.slices.insert(
                        i,
                        Slice {
                            span,
                            counts: Vec::new(),
                            accs: Vec::new(),
                            keys: 0,
                            total: 0,
                        },
                    );
                    i
                }
            };
        }
        let slice = &mut self.slices[self.hot];
        let full = slice.keys >= self.max_keys;
        let id = if full {
            self.keys.find(key)
        } else {
            Some(self.keys.intern(key))
        };
        let Some(id) = id.filter(|id| !full || slice.counts.get(*id).is_some_and(|n| *n > 0))
        else {
            return Err(TooManyKeys);
        };
        if slice.counts.len() <= id {
            slice.counts.resize(id + 1, 0);
            slice
                .accs
                .resize((id + 1) * self.functions.len(), Acc::default());
        }
        slice.keys += u64::from(slice.counts[id] == 0);
        slice.counts[id] += 1;
        slice.total += 1;
        let accs = &mut slice.accs[id * self.functions.len()..];
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
    /// give.
    pub fn close(&mut self, from: i64, to: i64, closed: &mut Closed) {
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
        for end in ends {
            let entries = self.window(end - size, end);
            let before = closed.insert(end - size, entries);
            assert!(before.is_none(), "a window closes once");
        }
        let before = self.slices.len();
        self.slices.retain(|s| s.span.last_end > to);
        self.hot = 0;
        if self.slices.len() < before {
            self.forget_keys();
        }
    }

    /// Forgets all slices: what they had counted is lost.
    pub fn clear(&mut self) {
        self.slices.clear();
        self.hot = 0;
        self.keys = Interner::default();
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
        let width = self.functions.len();
        let ids = inside.iter().map(|s| s.counts.len()).max().unwrap_or(0);
        let mut entries = Vec::new();
        for id in 0..ids {
            let mut count = 0;
            let mut accs = vec![Acc::default(); width];
            for slice in &inside {
                let Some(n) = slice.counts.get(id).filter(|n| **n > 0) else {
                    continue;
                };
                count += n;
                for (i, acc) in accs.iter_mut().enumerate() {
                    merge(acc, self.functions[i], slice.accs[id * width + i]);
                }
            }
            if count > 0 {
                entries.push(Entry {
                    key: Arc::clone(&self.keys.keys[id]),
                    count,
                    accs: accs.into(),
                });
            }
        }
        entries
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
            .map(|s| s.total * (s.span.windows(slide) - s.span.closed(slide, watermark)))
            .sum()
    }

    /// The number of keys of all slices. A key counts once for each slice that it is in; the size
    /// of a checkpoint is in proportion to this.
    #[must_use]
    pub fn key_slots(&self) -> u64 {
        self.slices.iter().map(|s| s.keys).sum()
    }

    /// The slices as plain values, for a checkpoint: the start of each slice, and its entries.
    #[must_use]
    pub fn export(&self) -> Vec<(i64, Vec<Entry>)> {
        let width = self.functions.len();
        let entries = |s: &Slice| {
            let present = s.counts.iter().enumerate().filter(|(_, n)| **n > 0);
            present
                .map(|(id, n)| Entry {
                    key: Arc::clone(&self.keys.keys[id]),
                    count: *n,
                    accs: s.accs[id * width..(id + 1) * width].into(),
                })
                .collect()
        };
        self.slices
            .iter()
            .map(|s| (s.span.start, entries(s)))
            .collect()
    }

    /// Takes back the slices that [`Partials::export`] gave.
    pub fn import(&mut self, slices: Vec<(i64, Vec<Entry>)>) {
        let width = self.functions.len();
        for (start, entries) in slices {
            let span = self.windows.span(start);
            let mut slice = Slice {
                span,
                counts: Vec::new(),
                accs: Vec::new(),
                keys: 0,
                total: 0,
            };
            for entry in entries {
                let id = self.keys.intern(&entry.key);
                if slice.counts.len() <= id {
                    slice.counts.resize(id + 1, 0);
                    slice.accs.resize((id + 1) * width, Acc::default());
                }
                slice.counts[id] = entry.count;
                slice.accs[id * width..(id + 1) * width].copy_from_slice(&entry.accs);
                slice.keys += 1;
                slice.total += entry.count;
            }
            self.slices.push(slice);
        }
        self.slices.sort_by_key(|s| s.span.start);
    }

    /// Makes the interner anew once at most half of its keys are in a slice. By itself it never
    /// forgets a key.
    fn forget_keys(&mut self) {
        const SMALL: usize = 1024;
        let len = self.keys.keys.len();
        if len <= SMALL || len < self.keys.look_again_at {
            return;
        }
        let mut live = vec![false; len];
        for slice in &self.slices {
            for (id, n) in slice.counts.iter().enumerate() {
                live[id] |= *n > 0;
            }
        }
        let alive = live.iter().filter(|l| **l).count();
        self.keys.look_again_at = (2 * alive).max(len + len / 4);
        if alive * 2 > len {
            return;
        }
        let mut fresh = Interner {
            look_again_at: (2 * alive).max(SMALL),
            ..Interner::default()
        };
        let moved: Vec<usize> = live
            .iter()
            .zip(&self.keys.keys)
            .map(|(live, key)| {
                if *live {
                    fresh.intern_shared(key)
                } else {
                    usize::MAX
                }
            })
            .collect();
        let width = self.functions.len();
        for slice in &mut self.slices {
            let mut counts = vec![0; alive];
            let mut accs = vec![Acc::default(); alive * width];
            for (id, n) in slice.counts.iter().enumerate().filter(|(_, n)| **n > 0) {
                let to = moved[id];
                counts[to] = *n;
                accs[to * width..(to + 1) * width]
                    .copy_from_slice(&slice.accs[id * width..(id + 1) * width]);
            }
            slice.counts = counts;
            slice.accs = accs;
        }
        self.keys = fresh;
    }
}

/// Gives each key a small number, counted from 0. The seed of the hash is random, so its order
/// never leaves this type.
#[derive(Default)]
struct Interner {
    keys: Vec<Arc<[u8]>>,
    ids: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// The number of keys at which it is looked again whether most of them are in no slice.
    look_again_at: usize,
}

impl Interner {
    fn find(&self, key: &[u8]) -> Option<usize> {
        let hash = self.hasher.hash_one(key);
        self.ids
            .find(hash, |id| *self.keys[*id as usize] == *key)
            .map(|id| *id as usize)
    }

    fn intern(&mut self, key: &[u8]) -> usize {
        match self.find(key) {
            Some(id) => id,
            None => self.insert(Arc::from(key)),
        }
    }

    fn intern_shared(&mut self, key: &Arc<[u8]>) -> usize {
        self.find(key)
            .unwrap_or_else(|| self.insert(Arc::clone(key)))
    }

    fn insert(&mut self, key: Arc<[u8]>) -> usize {
        let hash = self.hasher.hash_one(&*key);
        let id = u32::try_from(self.keys.len())
            .expect("fewer than 2^32 live keys: max-keys bounds them");
        self.keys.push(key);
        let (keys, hasher) = (&self.keys, &self.hasher);
        self.ids
            .insert_unique(hash, id, |id| hasher.hash_one(&*keys[*id as usize]));
        id as usize
    }
}
