//! One slice: the counts of a piece of time, by the number of the key. A slice is a dense list by
//! that number only where the list is well filled; otherwise it is a map. So a slice costs memory
//! for the keys that it has, however many keys other slices have.
//!
//! Example: a lane knows 100,000 keys, and its watermark delay of two hours keeps 720 slices of 10
//! seconds. With 250 keys in each, these slices take 4 MB as maps. As dense lists they would take
//! 576 MB.
//!
//! A slice begins as a map. It becomes a list once a quarter of all keys of the lane is in it, and
//! a map again when a new key would leave only one place in sixteen filled.

use crate::count::window::Span;
use crate::values::aggregate::Acc;
use hashbrown::HashTable;

/// A slice with at least one in so many keys of its lane becomes a dense list.
const DENSE_AT: usize = 4;
/// A dense list of which fewer than one in so many places would be filled becomes a map.
const SPARSE_AT: usize = 16;
/// A lane with at most so many keys has dense lists only.
const ALWAYS_DENSE: usize = 32;

/// The counts of one slice.
pub(super) struct Slice {
    pub(super) span: Span,
    places: Places,
    /// How many records, by place; zero for a key that is not in this slice.
    counts: Vec<u64>,
    /// The states of the aggregates. Those of place `n` begin at `n` times the width, which is the
    /// number of aggregates.
    accs: Vec<Acc>,
    /// How many keys are in this slice.
    keys: u64,
    /// The sum of `counts`.
    total: u64,
}

/// Where the count of a key is.
enum Places {
    /// At the number of the key.
    Dense,
    /// Where the map says.
    Map(Map),
}

/// The places of keys, in the order in which they came.
#[derive(Default)]
struct Map {
    /// The number of the key at each place.
    ids: Vec<u32>,
    /// The places, hashed by the number of the key. The order of the table never leaves it.
    places: HashTable<u32>,
}

/// Spreads the numbers of keys over a hash table. They are small and dense, so this is enough.
fn hash(id: u32) -> u64 {
    u64::from(id)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .rotate_left(32)
}

impl Map {
    fn find(&self, id: u32) -> Option<usize> {
        self.places
            .find(hash(id), |place| self.ids[*place as usize] == id)
            .map(|place| *place as usize)
    }

    fn insert(&mut self, id: u32) {
        let place = u32::try_from(self.ids.len()).expect("fewer than 2^32 keys");
        self.ids.push(id);
        let ids = &self.ids;
        self.places
            .insert_unique(hash(id), place, |place| hash(ids[*place as usize]));
    }

    fn bytes(&self) -> usize {
        // A table that takes 7 entries has 8 places, each with a byte of control.
        self.ids.capacity() * 4 + self.places.capacity() * 8 / 7 * 5
    }
}

impl Slice {
    pub(super) fn new(span: Span) -> Self {
        Self {
            span,
            places: Places::Map(Map::default()),
            counts: Vec::new(),
            accs: Vec::new(),
            keys: 0,
            total: 0,
        }
    }

    /// How many keys are in this slice.
    pub(super) fn keys(&self) -> u64 {
        self.keys
    }

    /// How many records are in this slice.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Where the count of a key is; `None` where the key is not in this slice.
    pub(super) fn find(&self, id: u32) -> Option<usize> {
        match &self.places {
            Places::Dense => Some(id as usize).filter(|at| self.counts.get(*at) > Some(&0)),
            Places::Map(map) => map.find(id),
        }
    }

    /// Adds `count` records of a key at its place, and gives the states of its aggregates.
    pub(super) fn add(&mut self, place: usize, count: u64, width: usize) -> &mut [Acc] {
        self.counts[place] += count;
        self.total += count;
        &mut self.accs[place * width..(place + 1) * width]
    }

    /// The count and the aggregates at a place.
    pub(super) fn at(&self, place: usize, width: usize) -> (u64, &[Acc]) {
        (
            self.counts[place],
            &self.accs[place * width..(place + 1) * width],
        )
    }

    /// Makes place for a key that is not in this slice, which must be added next. `known` is the
    /// number of keys of the lane.
    pub(super) fn insert(&mut self, id: u32, known: usize, width: usize) -> usize {
        let (at, keys) = (id as usize, self.keys as usize + 1);
        let sparse = known > ALWAYS_DENSE && at >= self.counts.len() && keys * SPARSE_AT <= at;
        match &self.places {
            Places::Dense if sparse => self.become_map(width),
            Places::Map(_) if known <= ALWAYS_DENSE || keys * DENSE_AT >= known => {
                self.become_list(known, width);
            }
            _ => {}
        }
        self.keys += 1;
        let place = match &mut self.places {
            Places::Dense => at,
            Places::Map(map) => {
                map.insert(id);
                map.ids.len() - 1
            }
        };
        if self.counts.len() <= place {
            self.counts.resize(place + 1, 0);
            self.accs.resize((place + 1) * width, Acc::default());
        }
        place
    }

    fn become_list(&mut self, known: usize, width: usize) {
        let Places::Map(map) = std::mem::replace(&mut self.places, Places::Dense) else {
            return;
        };
        let (counts, accs) = (
            std::mem::take(&mut self.counts),
            std::mem::take(&mut self.accs),
        );
        self.counts = vec![0; known];
        self.accs = vec![Acc::default(); known * width];
        for (place, id) in map.ids.iter().enumerate() {
            let at = *id as usize;
            self.counts[at] = counts[place];
            self.accs[at * width..(at + 1) * width]
                .copy_from_slice(&accs[place * width..(place + 1) * width]);
        }
    }

    fn become_map(&mut self, width: usize) {
        let mut map = Map::default();
        let (mut counts, mut accs) = (Vec::new(), Vec::new());
        self.each(width, |id, count, states| {
            map.insert(id);
            counts.push(count);
            accs.extend_from_slice(states);
        });
        (self.places, self.counts, self.accs) = (Places::Map(map), counts, accs);
    }

    /// Gives the number, the count and the aggregates of each key, in no particular order.
    pub(super) fn each(&self, width: usize, mut f: impl FnMut(u32, u64, &[Acc])) {
        for (place, count) in self.counts.iter().enumerate().filter(|(_, n)| **n > 0) {
            let id = match &self.places {
                Places::Dense => u32::try_from(place).expect("numbers of keys are u32"),
                Places::Map(map) => map.ids[place],
            };
            f(id, *count, &self.accs[place * width..(place + 1) * width]);
        }
    }

    /// The same slice where the keys have other numbers: `moved` has the new one of each old one,
    /// and `known` is how many there are.
    pub(super) fn renumbered(&self, moved: &[u32], known: usize, width: usize) -> Self {
        let mut slice = Self::new(self.span);
        self.each(width, |id, count, states| {
            let place = slice.insert(moved[id as usize], known, width);
            slice.add(place, count, width).copy_from_slice(states);
        });
        slice
    }

    /// What this slice takes in memory, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let places = match &self.places {
            Places::Dense => 0,
            Places::Map(map) => map.bytes(),
        };
        size_of::<Self>()
            + places
            + self.counts.capacity() * size_of::<u64>()
            + self.accs.capacity() * size_of::<Acc>()
    }

    /// Whether it is a dense list.
    #[cfg(test)]
    pub(super) fn is_list(&self) -> bool {
        matches!(self.places, Places::Dense)
    }
}
