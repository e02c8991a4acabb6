//! Counts of open windows of one topic partition, kept by slice: add, close, sum up.
//! Keys are interned, so that a slice is a dense list of counts and a record costs one look-up and one addition.

use crate::count::window::{Span, Windows};
use crate::values::aggregate::{Acc, merge};
use crate::values::shape::{Function, Shape};
use hashbrown::{DefaultHashBuilder, HashTable};
use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::sync::Arc;

/// One key's share of a closed window in one topic partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: Arc<[u8]>,
    pub count: u64,
    pub accs: Box<[Acc]>,
}

/// Closed windows by start, each with its entries in no particular order.
pub type Closed = BTreeMap<i64, Vec<Entry>>;

/// The slices that still belong to an open window. Invariant: each has a window whose end is after the watermark.
pub struct Partials {
    windows: Windows,
    /// One for each aggregate but `count`.
    functions: Box<[Function]>,
    keys: Interner,
    /// By start. Few: those between the watermark and the newest time.
    slices: Vec<Slice>,
    /// The slice of the last record: most records go where the one before went.
    hot: usize,
    /// New keys a slice takes.
    max_keys: u64,
}

struct Slice {
    span: Span,
    /// By key id; zero for a key that is not in this slice.
    counts: Vec<u64>,
    /// By key id times the number of functions.
    accs: Vec<Acc>,
    keys: u64,
    total: u64,
}

/// The slice has as many keys as it takes, and this one is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyKeys;

impl Partials {
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

    /// The slice of a time, from the last one looked up where that is the same.
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

    /// Counts one record in the slice `span`, which is not closed.
    ///
    /// # Errors
    /// [`TooManyKeys`]: nothing was changed.
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

    /// Earliest end of a window that has data and is open at `watermark`.
    #[must_use]
    pub fn next_end(&self, watermark: i64) -> Option<i64> {
        self.slices
            .iter()
            .filter_map(|s| s.span.next_end(self.windows.slide, watermark))
            .min()
    }

    /// The greatest end of a window that has data.
    #[must_use]
    pub fn last_end(&self) -> Option<i64> {
        self.slices.iter().map(|s| s.span.last_end).max()
    }

    /// Closes the windows with `from < end <= to` into `closed`, and forgets slices that no open window needs.
    /// `from` is the watermark before; at each record counted so far it was at most that.
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

    /// What an open or closing window holds so far.
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

    /// The open windows that have data: start, end, keys, sum of counts. For people to look at.
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

    /// Sum of counts over the windows that are open at `watermark`.
    #[must_use]
    pub fn open_count(&self, watermark: i64) -> u64 {
        let slide = self.windows.slide;
        self.slices
            .iter()
            .map(|s| s.total * (s.span.windows(slide) - s.span.closed(slide, watermark)))
            .sum()
    }

    /// Keys of all slices, each counted in every slice it is in: what a checkpoint's size goes by.
    #[must_use]
    pub fn key_slots(&self) -> u64 {
        self.slices.iter().map(|s| s.keys).sum()
    }

    /// The slices as plain values, for a checkpoint: start of the slice, then its entries.
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

    /// Takes back what [`Partials::export`] gave.
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

    /// An interner never forgets by itself: once most of its keys are in no slice, it is made anew.
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

/// Key bytes ↔ small numbers. The hash's seed is random; no order of it ever leaves.
#[derive(Default)]
struct Interner {
    keys: Vec<Arc<[u8]>>,
    ids: HashTable<u32>,
    hasher: DefaultHashBuilder,
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
